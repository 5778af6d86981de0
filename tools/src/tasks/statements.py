"""SQL taken apart: its statements and the variables it binds, in time that grows as its length."""
import bisect
import re
from typing import NamedTuple, Optional

from ..base.words import shorten
from .task import TaskError

# a literal, quoted name, comment or cast is passed over; what is left may be `:name`, `;`, or
# `\:`, `::` for a colon: `::` behind an expression is a cast, `[` there is an index
_SQL_PART = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\[|--[^\n]*|/\*|\$\w*\$|\\:|::"""
                   r"""|:([A-Za-z_][A-Za-z0-9_]*)|;|\?|%""")
_BEHIND = re.compile(r"""[\w)\]"'`]""")      # an expression ends so
_TAG = re.compile(r"(?=(\$\w*\$))")
# of SQLite; it has statements inside, and ends with one that is `end` alone
_TRIGGER = re.compile(r"(explain\s+(query\s+plan\s+)?)?create\s+(temp(orary)?\s+)?trigger\b", re.I)
_OWN_TRANSACTION = re.compile(r"(commit|rollback(?!\s+(?:\w+\s+)?to\b)|start\s+transaction)\b",
                              re.I)
# of SQLite; elsewhere it may be a block of code
_OWN_BLOCK = re.compile(r"(begin|end)\b", re.I)


class SqlPart(NamedTuple):
    """A piece of SQL that is more than its characters, by its place: text[start:end]."""
    start: int
    end: int
    head: str               # all of it, but of a comment or what $ or [ quotes its beginning alone
    name: Optional[str]     # of `:name`
    is_colon: bool          # it stands for one


def list_sql_parts(text, has_brackets=False):
    """Yields the Parts. A comment without an end reaches to the end of the text, other quotes
    without one are none. [a name] is quoted, but behind an expression it is an index and may hold a
    variable; `has_brackets`: of SQLite, which has no index."""
    position, tags, last_bracket = 0, None, text.rfind("]")
    while True:
        match = _SQL_PART.search(text, position)
        if match is None:
            return
        head, start, position = match.group(), match.start(), match.end()
        is_behind = start > 0 and _BEHIND.match(text[start - 1]) is not None
        if head == "/*":
            end = text.find("*/", position)
            position = len(text) if end < 0 else end + 2
        elif head == "[":
            if is_behind and not has_brackets or last_bracket < position:
                continue
            position = text.find("]", position) + 1
        elif head[0] == "$":
            tags = _find_tags(text) if tags is None else tags
            end = bisect.bisect_left(tags[head], position)
            if end == len(tags[head]):      # its last $ may begin another
                position -= 1
                continue
            position = tags[head][end] + len(head)
        yield SqlPart(start, position, head, match.group(1),
                      head == "\\:" or head == "::" and not is_behind)


def _find_tags(text):
    """{`$tag$`: where it stands, in order}: to look for the end of each anew would take long."""
    places = {}
    for match in _TAG.finditer(text):
        places.setdefault(match.group(1), []).append(match.start())
    return places


def list_bound(text):
    """The variables that SQL binds, one for each time that it does."""
    return [part.name for part in list_sql_parts(text) if part.name]


def bare_sql(text):
    """SQL without its comments and what separates statements."""
    pieces, position = [], 0
    for part in list_sql_parts(text):
        if part.head[:2] in ("--", "/*"):
            pieces.append(text[position:part.start])
            position = part.end
    return " ".join(pieces + [text[position:]]).strip("; \t\r\n")


def split_script(text, is_sqlite):
    """Yields the statements of a script that say something. A trigger of SQLite is one, whatever is
    inside."""
    start = before = 0              # where the statement begins, and what stands before a ;
    is_trigger = False
    for part in list_sql_parts(text, is_sqlite):
        if part.head != ";":
            continue
        bare = bare_sql(text[before:part.start])
        if is_sqlite and before == start:
            is_trigger = bool(_TRIGGER.match(bare))
        before = part.end
        if is_trigger and bare.lower() != "end":
            continue
        if bare:
            yield text[start:part.end] if is_sqlite else text[start:part.start].strip()
        start, is_trigger = part.end, False
    if bare_sql(text[start:]):
        yield text[start:] if is_sqlite else text[start:].strip()


def bind(text, values, style):
    """SQL with `:name` and the values -> SQL and parameters of a DB-API parameter style."""
    by_name = {name: values[name] for name in list_bound(text)}
    pieces, order, position = [], [], 0
    for part in list_sql_parts(text):
        piece = text[part.start:part.end]
        if part.is_colon:
            piece = ":"
        elif part.name and style != "named":
            order.append(values[part.name])
            piece = {"qmark": "?", "format": "%s", "numeric": ":%d" % len(order),
                     "pyformat": "%%(%s)s" % part.name}[style]
        elif "format" in style:
            piece = piece.replace("%", "%%")
        pieces += [text[position:part.start], piece]
        position = part.end
    return "".join(pieces + [text[position:]]), by_name if style in ("named", "pyformat") else order


def check_statement(statement, is_sqlite):
    """TaskError for a statement that would begin or end the transaction, which is the task's."""
    text = bare_sql(statement)
    if _OWN_TRANSACTION.match(text) or is_sqlite and _OWN_BLOCK.match(text):
        raise TaskError("%s: the task is one transaction, which the agent begins and ends"
                        % shorten(text))
