"""What a notice is: its fields, the ways in which it is sent, and the checks of both."""
import re

from ..base.patterns import PATTERN
from ..base.words import tell_near
from .kinds import (FILLED, Field, Kind, NAMED, TEXT, _check_seconds, _of_type, _refuse, check_each,
                    check_items, choice, list_of)

MAX_GROUP_S = 86400
# what a notice may be about, the most special first: of several that one happening is, it takes
# the first that it wants
NOTICE_KINDS = ("stale", "error", "failed", "stopped", "late", "skipped", "long")
DEFAULT_KINDS = ["error", "failed", "stopped"]


def _check_pattern(value):
    if not isinstance(value, str) or not PATTERN.fullmatch(value):
        raise ValueError("must be a name of a scenario, in which * stands for any text and ? for "
                         "one character")
    return value


def _check_line(value):
    """A text that stands on one line."""
    if re.search("[\\x00-\\x1f\\x7f]", FILLED.check(value)):
        raise ValueError("must not have a control character")
    return value


def _check_source(value):
    """A text, or where it is to be read when it is needed."""
    if not isinstance(value, dict):
        return _check_line(value)
    if len(value) != 1 or not set(value) <= {"env", "file"} or not all(
            isinstance(item, str) and item for item in value.values()):
        raise ValueError('must be text, {"env": name} or {"file": path}')
    return value


def _check_url(value):
    """A url of HTTP, as far as it can be seen."""
    if isinstance(_check_source(value), str) and not value.lower().startswith(
            ("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return value


def _check_headers(value):
    """{name: text, or where it is to be read} of further headers."""
    if not isinstance(value, dict):
        raise ValueError("must be an object of names and values")

    def check_name(name):
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError("is no name of a header")
        if name.lower() in OWN_HEADERS:
            raise ValueError("is set by the agent")
    check_each([("." + name, check_name, name) for name in value]
               + [("." + name, _check_source, item) for name, item in value.items()])
    return value


def _check_os_command(value):
    if isinstance(value, list) and value:
        return check_items(FILLED.check, value)
    return FILLED.check(value) if isinstance(value, str) else _refuse(
        "must be text, or a list of texts")


def _check_group(value):
    if _check_seconds(value) > MAX_GROUP_S:
        raise ValueError("must be at most %d seconds" % MAX_GROUP_S)
    return _check_seconds(value)


# headers of a notice that nobody else sets
OWN_HEADERS = ("content-type", "content-length", "idempotency-key", "host", "transfer-encoding")
NOTICE_FIELDS = {
    "name": Field(NAMED, required=True, meaning="its name"),
    "on": Field(list_of(choice(*NOTICE_KINDS), 1), default=DEFAULT_KINDS,
                meaning="what it tells of: error, failed, stopped, late, skipped, long, stale"),
    "scenarios": Field(Kind(
        lambda value: list_of(Kind(_check_pattern, _refuse), 1).check(value), _refuse,
        "a list of patterns"), default=["*"],
        meaning="of which scenarios: * stands for any text, ? for one character"),
    "send": Field(_of_type((dict,), "an object"), required=True,
                  meaning="how it is sent: one of the types below"),
    "group_s": Field(Kind(_check_group, _refuse, "a duration of at most one day"), default=60,
                     meaning="it is sent so long after its first event, with what came meanwhile"),
}
# type of `send` -> its fields
SEND_FIELDS = {
    "mail": {"to": Field(list_of(Kind(_check_line, _refuse, "an address"), 1), required=True,
                         meaning="the addresses")},
    "http": {"url": Field(Kind(_check_url, _refuse, "a url"), required=True, meaning="where it is "
                          'posted: text, or {"env": name} or {"file": path} where it is secret'),
             "headers": Field(Kind(_check_headers, _refuse, "an object of names and values"),
                              default={}, meaning="further headers; a secret one is told by env or "
                              "file")},
    "os": {"command": Field(Kind(_check_os_command, _refuse, "text, or a list of texts"),
                            required=True, meaning="a string for the shell, or a list without one; "
                            "it gets the JSON on its standard input")},
}


class NoticeReader:
    """Reads notices for a Definitions, which notes what is wrong. `take_object(path, value,
    fields)` gives its values, `fault(path, reason)` notes one."""

    def __init__(self, take_object, fault, tell_forbidden):
        self._take_object, self._fault = take_object, fault
        self._tell_forbidden = tell_forbidden

    def read(self, path, value):
        """The values of a notice by name, and of its `send`, as far as they are right; `document`
        is what it was written as.
        """
        fields = dict(self._take_object(path, value, NOTICE_FIELDS), document=value)
        way = fields["send"]
        if way is None:
            return fields
        kind = way.get("type")
        if not isinstance(kind, str) or kind not in SEND_FIELDS:
            near = tell_near(kind, SEND_FIELDS) if isinstance(kind, str) else ""
            reason = "must be one of %s%s" % (", ".join(sorted(SEND_FIELDS)), near)
            self._fault(path + ".send.type", "missing" if kind is None else reason)
            return fields
        if self._tell_forbidden(kind):
            self._fault(path + ".send.type", self._tell_forbidden(kind))
        own = {"type": Field(TEXT, required=True)}
        return dict(fields, send=self._take_object(path + ".send", way,
                                                   dict(own, **SEND_FIELDS[kind])))
