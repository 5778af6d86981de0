"""Words of requests and replies: names, splitting, quoting, and what makes a text one line."""
import json
import re
from typing import NamedTuple, Optional

from .vocabulary import MASK, MAX_NAME, MIN_SECRET
from .errors import BadRequest

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_name(text):
    """A name of a scenario, schedule, repository or step, or ValueError."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        raise ValueError('must be a name, which is text: quote it, "%s"' % text)
    if not isinstance(text, str) or not NAME.fullmatch(text) or len(text) > MAX_NAME:
        raise ValueError("must be a name: letters, digits, _ . - (not first: . -), "
                         "at most %d characters" % MAX_NAME)
    return text


_USER_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_.@+-]*")


def check_user_name(text):
    """A name of a user, which may be an address of mail too, or ValueError."""
    if not _USER_NAME.fullmatch(text) or len(text) > MAX_NAME:
        raise ValueError("must be a name of a user: letters, digits, _ . @ + - (not first: . @ + "
                         "-), at most %d characters" % MAX_NAME)
    return text


def tell_near(name, names):
    """Words on the one of some names (None among them is none) that is nearly this one, or
    nothing."""
    import difflib
    names = [other for other in names if other]
    near = difflib.get_close_matches(name, names, 1) if len(name) <= MAX_NAME else []
    return "; do you mean %s?" % near[0] if near else ""


def version_key(version):
    """A text that sorts versions in natural order: 9 < 10 < 10.1."""
    def padded(match):
        digits = match.group().lstrip("0")
        return "%03d%s" % (len(digits), digits)
    return re.sub(r"\d+", padded, version)


class Word(NamedTuple):
    """One word of a request: what it is, its name when it is an option or variable, its value."""
    kind: str                   # argument, option, variable
    name: str
    value: Optional[str]        # None: an option without =value

    @property
    def has_value(self):
        """Whether it holds what may be the value of a variable, by wrong quoting too."""
        return self.kind == "variable" or "=" in (self.value or "")


PASSWORD_VERBS = (("AUTH",), ("USERS", "PASSWORD"))
# place of the first word that may be a password, or a piece of one that was not quoted
_PASSWORD_PLACES = {"AUTH": 1, "USERS": 3}


def is_about_password(words):
    """Whether a request is one with a password, as far as its words are known."""
    return any(tuple(capitals(word.value or "") for word in words[:len(beginning)]) == beginning
               for beginning in PASSWORD_VERBS)


_PART = re.compile(r"""[^ \t"']+|"(?:[^"\\]|\\.)*"|'[^']*'""")
_SURROGATE = re.compile("[\ud800-\udfff]")


def split_words(line):
    """A request -> its words (section 4 of the contract); BadRequest names the word at fault."""
    if '"' not in line and "'" not in line:
        return [_classify(part, part) for part in line.replace("\t", " ").split(" ") if part]
    words, position = [], 0
    while position < len(line):
        if line[position] in " \t":
            position += 1
            continue
        try:
            word, after = _quoted_word(line, position)
        except ValueError as error:
            raise BadRequest("%s: %s" % (_tell_start(line[position:], words), error)) from None
        words.append(word)
        position = after
    return words


def _tell_start(text, words):
    """How an error names a word that cannot be read: by what stands before its first quote, if that
    cannot be a piece of a value."""
    if is_about_password(words):
        return "word %d" % (len(words) + 1)
    bare = re.match("[^ \t\"']*", text).group()
    variable = VARIABLE.match(bare)
    if variable and bare[variable.end():variable.end() + 1] == "=":
        return "word %s" % shorten(variable.group() + "=...")
    is_safe = bare and not any(word.has_value for word in words) and bare.count("=") < 2
    return "word %s" % (shorten(bare + "...") if is_safe else len(words) + 1)


def tell_word(words, index, number, options=()):
    """How an error names words[index], the `number`-th of its request,
    whose verb has these options.

    A value of a variable is never shown, nor what wrong quoting or a dash too many may have made of
    one: an argument behind a value is told by its number.
    """
    word = words[index]
    if word.kind == "variable":
        return "word %s" % shorten(word.name + "=...")
    if word.kind == "option":
        is_safe = capitals(word.name) in options and not word.has_value
        return "word %s" % shorten(word.name if word.value is None else "%s=%s" % (
            word.name, word.value if is_safe else "..."))
    is_safe = not re.search("[={]", word.value) and not any(before.has_value
                                                            for before in words[:index])
    return "word %s" % (shorten(word.value) if is_safe else number)


def list_hidden(words):
    """The texts of a request that no error and no log may repeat, in each form that a message may
    give them, the longest first: values of variables, and what stands behind one and may belong to
    it."""
    hidden, is_behind = set(), False
    is_secret = is_about_password(words)
    for index, word in enumerate(words):
        is_behind = is_behind or word.has_value
        value = word.value
        if is_secret and index >= _PASSWORD_PLACES[capitals(words[0].value)]:
            value = word.name + (value or "")       # an unquoted one may begin with a dash
            hidden.add(word.value or word.name)
        elif not word.has_value and not (is_behind and word.kind == "argument"):
            continue
        for text in (value, " ".join(value.split()), json.dumps(value)[1:-1]):
            hidden |= {text, text[:SHORT]}
    return sorted((text for text in hidden if len(text) >= MIN_SECRET), key=len, reverse=True)


FEW = 300               # texts to hide that are looked for one after the other


def mask_all(text, hidden):
    """A text, or bytes, with MASK in place of each of these, which come with the longest first and
    have MIN_SECRET characters at least."""
    mask = MASK if isinstance(text, str) else MASK.encode()
    if FEW < len(hidden) < len(text):
        return _mask_many(text, hidden, mask)
    for value in hidden:
        text = text.replace(value, mask)
    return text


def _mask_many(text, hidden, mask):
    """mask_all in time that grows as both, not as their product: one way through the text."""
    whole, sizes = set(hidden), {}      # beginning -> the lengths of those that begin so
    for value in hidden:
        lengths = sizes.setdefault(value[:MIN_SECRET], [])
        if len(value) not in lengths[-1:]:
            lengths.append(len(value))
    pieces, begin, position = [], 0, 0
    while position < len(text):
        for size in sizes.get(text[position:position + MIN_SECRET], ()):
            if text[position:position + size] in whole:
                pieces += [text[begin:position], mask]
                begin = position = position + size
                break
        else:
            position += 1
    return text[:0].join(pieces + [text[begin:]])


def _quoted_word(line, position):
    """The word that begins at `position`, and where the next may begin. ValueError."""
    start, text, bare, is_quoted, has_brace = position, [], None, False, False
    while position < len(line) and line[position] not in " \t":
        match = _PART.match(line, position)
        if not match:
            raise ValueError("the quote has no end")
        part, position = match.group(), match.end()
        if part[0] == '"':
            part, is_quoted = _json_string(part), True
        elif part[0] == "'":
            part, is_quoted = part[1:-1], True
        else:
            has_brace = has_brace or "{" in part
            bare = part if start == match.start() else bare
        text.append(part)
    if is_quoted and has_brace:
        raise ValueError("quote the document as one word")
    text = "".join(text)
    if "\0" in text or _SURROGATE.search(text):
        raise ValueError("U+0000 and lone surrogates are not taken")
    return _classify(bare or "", text), position


def _json_string(part):
    try:
        return json.loads(part)
    except ValueError:
        raise ValueError("not a JSON string") from None


def _classify(bare, text):
    """`bare` is what stands before the first quote: it alone makes an option or a variable."""
    if "=" not in bare and bare[:1] != "-":
        return Word("argument", "", text)
    head, equals, _ = bare.partition("=")
    if bare[:1] == "-" and bare[1:2].isalpha() and bare[1] < "\x80":
        if equals:
            return Word("option", head, text[len(head) + 1:])
        return Word("option", text, None)
    if equals and VARIABLE.fullmatch(head):
        return Word("variable", head, text[len(head) + 1:])
    return Word("argument", "", text)


_CAPITALS = {small: small - 32 for small in range(ord("a"), ord("z") + 1)}


def capitals(text):
    """ASCII letters in capitals and nothing else, so that no other letter passes for one of
    them."""
    return text.translate(_CAPITALS)


SHORT = 60              # characters of a user's text in a message


def shorten(text, limit=SHORT):
    """A text of a user for a message: on one line, ASCII, cut."""
    text = text if len(text) <= limit else text[:limit] + "..."
    return json.dumps(text)


_PLAIN = re.compile(r"[!#-&(-\[\]-~]*")


def render_value(value):
    """A value of a field: bare when it is printable ASCII without space, quote, backslash."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else json.dumps(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, (int, float)) else render_value(str(value))


def render_fields(fields):
    """[(key, value)] -> `key=value key=value`."""
    return " ".join([key + "=" + render_value(value) for key, value in fields])


_CONTROL = re.compile("[\0-\x08\x0a-\x1f\x7f-\x9f]")
