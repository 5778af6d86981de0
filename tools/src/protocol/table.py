"""The verb table: a function for each form of a request, and the check of one against it."""
from typing import Callable, NamedTuple, Optional, Union

from ..base.vocabulary import ENDED, ERR, MAX_LIST, MAX_NAME, OUT, ROLES, STATES
from ..base.errors import BadRequest, UnknownVerb
from ..base.forms import VERB_FORMS, list_parts
from ..base.clients import Client
from ..base.hashes import MAX_PASSWORD, MIN_PASSWORD
from ..base.patterns import check_patterns
from ..base.words import PASSWORD_VERBS, capitals, check_user_name, tell_word
from ..definitions.kinds import (BOOLEAN, Kind, LABEL, NAMED, PRIORITY, SECONDS, TIMEOUT, _refuse,
                                 between, check_calendar_name, check_dates, choice, list_of,
                                 parse_time)
from ..definitions.fields import SCHEDULE_FIELDS


class TimeKind(NamedTuple):
    """The kind of a word for a time, which may count from the time of its request."""
    accepts: str            # what it takes, for the manual
    is_back: bool = False   # it looks back: a clock time is the last one, a distance is ago
    is_end: bool = False    # a range ends with it: a date alone is its last instant

    def parse_at(self, text, now):
        """A text of a request at `now` -> epoch seconds. ValueError."""
        return parse_time(text, self.is_end, now, self.is_back)


class Option(NamedTuple):
    """An option of a verb: its kind, and how HELP shows its value."""
    kind: Union[Kind, TimeKind, None]       # None: a flag
    shown: str
    is_value_optional: bool


class Verb(NamedTuple):
    """One row of the verb table."""
    name: str               # SCHED ADD is one, by its first two words
    form: str               # of a request, as HELP shows it
    role: Optional[str]     # None: everybody
    help: str
    arguments: list         # (name, Kind) in order
    required: int           # how many of them must be there
    options: dict           # `-NAME` -> Option
    run: Optional[Callable]  # (agent, Request) -> fields, a generator of data lines, or a Pending
    is_pipelined: bool      # as of its Form
    names: frozenset        # of its arguments and options
    # is_quick(agent, Request): whether it is carried out without waiting for anything, but for the
    # commit of what is pipelined; None: it may always wait
    is_quick: Optional[Callable] = None


class Request(dict):
    """A checked request: its arguments and options by their names in the form of its verb, such as
    SESSION and -REPO; None for those left out. KeyError for what the form does not have: a fault of
    the program."""

    def __init__(self, row, client=Client(), has_left=lambda: False):
        super().__init__()
        self.verb, self.client = row.name, client       # who asks
        self.has_left = has_left                    # whether the one who asks has gone for good
        self.variables = {}
        self._known = row.names

    def _check(self, name):
        if name not in self._known:
            raise KeyError("%s has no %s" % (self.verb, name))

    def __missing__(self, name):
        if name not in self._known:
            self._check(name)
        return None

    def __contains__(self, name):
        if name not in self._known:
            self._check(name)
        return super().__contains__(name)

    def get(self, name, default=None):
        """The value of an argument or option, or this when it was left out."""
        self._check(name)
        return super().get(name, default)

    @property
    def is_json(self):
        """Whether the lines of the reply are wanted as JSON."""
        return "-JSON" in self


_PASSWORD_LENGTH = "must have %d to %d characters" % (MIN_PASSWORD, MAX_PASSWORD)
TOKEN = Kind(None, lambda text: text if 0 < len(text) <= 256 else _refuse(
    "must have 1 to 256 characters"), "1 to 256 characters")

# what the kinds of words in the forms of verbs take, besides `field NAME`: one of a schedule
KINDS = {
    "amount": between(0, 10 ** 9), "calendar": Kind(None, check_calendar_name, "a name"),
    "count": between(1, 100000), "dates": Kind(None, check_dates, "dates"),
    "days": between(0, 100000, (int, float)), "ends": list_of(choice(*ENDED), at_least=1),
    "end": TimeKind("a time; a date alone is its last instant", is_end=True), "label": LABEL,
    "level": between(0, 5), "limit": between(1, MAX_LIST), "name": NAMED, "priority": PRIORITY,
    "seconds": SECONDS, "session": between(1, 10 ** 15),
    "states": list_of(choice(*STATES), at_least=1), "stream": choice(OUT, ERR),
    "text": Kind(None, str, "text"),
    "past": TimeKind("a time, or how long ago", is_back=True), "time": TimeKind("a time"),
    "timeout": TIMEOUT, "token": TOKEN,
    "version": SCHEDULE_FIELDS["version"].kind,
    "user": Kind(None, check_user_name, "a name of a user"), "secret": Kind(None, str, "text"),
    "role": choice(*ROLES), "patterns": Kind(None, check_patterns, "patterns"),
    "os_user": Kind(None, lambda text: text if len(text) <= MAX_NAME and text.isprintable()
                    else _refuse("must be a user of this host"), "a user of this host"),
    "password": Kind(None, lambda text: text if MIN_PASSWORD <= len(text) <= MAX_PASSWORD
                     else _refuse(_PASSWORD_LENGTH), _PASSWORD_LENGTH[len("must have "):]),
}


def find_kind(word):
    """The Kind of a word for one, None for that of a flag. A field of a schedule is an option that
    without a value behind its = makes it the default again."""
    if word is None or not word.startswith("field "):
        return word and KINDS[word]
    field = SCHEDULE_FIELDS[word[6:]]
    return Kind(None, lambda text: (field.kind.parse(text) if text or field.kind is BOOLEAN
                                    else field.default), field.kind.accepts)


def make_row(form):
    """The row of a Form, to which no function is bound yet."""
    parts = list_parts(form)
    arguments = [part for part in parts if not part.name.startswith("-")]
    options = {part.name: Option(find_kind(part.kind), part.shown, part.is_value_optional)
               for part in parts if part not in arguments}
    options.setdefault("-JSON", Option(None, "", False))
    return Verb(form.name, form.text, form.role, form.help,
                [(part.name, find_kind(part.kind)) for part in arguments],
                len([part for part in arguments if part.is_required]), options, None,
                form.is_pipelined, frozenset(part.name for part in parts) | {"-JSON"})


VERBS = {form.name: make_row(form) for form in VERB_FORMS}


def verb(name, is_quick=None):
    """Binds a function to the verb of this name. LookupError: it has one, or no form."""
    def register(function):
        row = VERBS[name]
        if row.run is not None:
            raise LookupError("the verb %s has two functions" % name)
        VERBS[name] = row._replace(run=function, is_quick=is_quick)
        return function
    return register


def list_help():
    """What HELP tells: {name: line}, when all are bound. LookupError: a verb has no function."""
    for row in VERBS.values():
        if row.run is None:
            raise LookupError("the verb %s has no function" % row.name)
    return {row.name: "%s: %s" % (row.form, row.help) for row in VERBS.values()}


def wants_json(words):
    """Whether -JSON stands among the words of a request, whatever is wrong with them."""
    return any(word.kind == "option" and capitals(word.name) == "-JSON" for word in words)


def find_verb(words):
    """The row of a request and the words behind its name. UnknownVerb, BadRequest."""
    first = capitals(words[0].value) if words[0].kind == "argument" else ""
    if first in VERBS and " " not in first:
        return VERBS[first], words[1:]
    subs = [name.split()[1] for name in VERBS if name.split()[0] == first and " " in name]
    if not subs:
        raise UnknownVerb("%s is no verb; HELP lists them"
                          % tell_word(words, 0, 1).replace("word ", "", 1))
    second = capitals(words[1].value) if len(words) > 1 and words[1].kind == "argument" else ""
    if second not in subs:
        raise BadRequest("%s takes one of %s" % (first, " ".join(subs)))
    return VERBS["%s %s" % (first, second)], words[2:]


def check_request(row, words, client=Client(), has_left=lambda: False, find_now=lambda: 0.0):
    """The words behind a verb -> Request; BadRequest names the word that is wrong. Times that are
    not absolute count from `find_now()`, epoch seconds."""
    request, missing = Request(row, client, has_left), list(row.arguments)
    for index, word in enumerate(words):
        place = ""
        try:
            if word.kind == "option":
                _take_option(row, word, request, find_now)
            elif word.kind == "variable":
                _take_variable(row, word, request)
            elif missing:
                name, kind = missing.pop(0)
                place = " for %s" % name
                request[name] = kind.parse(word.value)
            else:
                raise ValueError("one too many: %s" % row.form)
        except (ValueError, OverflowError) as error:
            number = len(row.name.split()) + index + 1
            subject = "word %d" % number if tuple(row.name.split()) in PASSWORD_VERBS \
                else tell_word(words, index, number, row.options)
            dashes = "; an option has one dash" if word.kind == "argument" \
                and word.value.startswith("--") else ""
            raise BadRequest("%s%s: %s%s" % (subject, place, error, dashes)) from None
    if len(missing) > len(row.arguments) - row.required:
        raise BadRequest("%s is missing: %s" % (missing[0][0], row.form))
    return request


def _take_variable(row, word, request):
    if "[VARIABLE=" not in row.form:
        raise ValueError("%s takes no variables" % row.name)
    if word.name in request.variables:
        raise ValueError("the variable stands twice")
    request.variables[word.name] = word.value


def _take_option(row, word, request, find_now):
    """Puts the value of an option into the Request: True when it has none. ValueError."""
    name = capitals(word.name)
    option = row.options.get(name)
    if option is None:
        raise ValueError("%s has no such option: %s" % (row.name, row.form))
    if name in request:
        raise ValueError("the option stands twice")
    if not option.shown and word.value is not None:
        raise ValueError("%s takes no value" % name)
    if option.shown and word.value is None and not option.is_value_optional:
        raise ValueError("must be %s=%s" % (name, option.shown))
    if word.value is None:
        request[name] = True
    elif isinstance(option.kind, TimeKind):
        request[name] = option.kind.parse_at(word.value, find_now())
    else:
        request[name] = option.kind.parse(word.value)
