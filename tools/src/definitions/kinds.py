"""What a field of a definition may hold: each kind checks a JSON value or the text of an option."""
import json
import re
import time
from typing import Any, Callable, NamedTuple

from ..base.vocabulary import MAX_NAME, MAX_VALUE, RESERVED_VARIABLES
from ..base.times import parse_duration
from ..base.words import VARIABLE, _SURROGATE, check_name
from ..timetable.days import MAX_SECONDS, find_zone
from ..timetable.moments import parse_request_time
from ..timetable.windows import _join, _parse_dates


class Kind(NamedTuple):
    """What a field may hold: `check` takes a JSON value, `parse` the text of an option.

    Both give the value back in its normal form or raise ValueError with what would be right.
    """
    check: Callable
    parse: Callable
    accepts: str = ""          # what it takes, for the manual


class Field(NamedTuple):
    """One field of an object of a definitions document."""
    kind: Kind
    required: bool = False
    default: Any = None
    meaning: str = ""       # for the manual


def _of_type(types, wording, parse=None):
    def check(value):
        if isinstance(value, bool) and bool not in types or not isinstance(value, types):
            raise ValueError("must be " + wording)
        if isinstance(value, str) and ("\0" in value or _SURROGATE.search(value)):
            raise ValueError("U+0000 and lone surrogates are not taken")
        return value
    return Kind(check, parse or check, wording)


def between(low, high, types=(int,)):
    """A number within limits; as text too where it is an option."""
    wording = "%s from %s to %s" % (
        "a whole number" if types == (int,) else "a number", low, high)
    reason = "must be " + wording

    def check(value):
        if isinstance(value, bool) or not isinstance(value, types) or not low <= value <= high:
            raise ValueError(reason)
        return value

    def parse(text):
        fraction = "" if types == (int,) else r"(\.[0-9]{1,9})?"
        if not re.fullmatch("[+-]?[0-9]{1,15}" + fraction, text):
            raise ValueError(reason)
        return check(int(text) if types == (int,) else float(text))
    return Kind(check, parse, wording)


def choice(*values):
    """One of some words; an option takes them in any case."""
    wording = " or ".join(values)
    reason = "must be " + wording
    by_fold = {value.lower(): value for value in values}

    def parse(text):
        if text.lower() not in by_fold:
            raise ValueError(reason)
        return by_fold[text.lower()]

    def check(value):
        if value not in values:
            raise ValueError(reason)
        return value
    return Kind(check, parse, wording)


class InnerFaults(ValueError):
    """Faults inside a list or an object: `faults` are (path from there, reason)."""

    def __init__(self, faults):
        super().__init__(faults[0][1])
        self.faults = faults


def check_each(parts):
    """[(path, check, value)] -> the values as checked; InnerFaults tells all that are wrong."""
    values, faults = [], []
    for path, check, value in parts:
        try:
            values.append(check(value))
        except ValueError as error:
            faults.append((path, str(error)))
    if faults:
        raise InnerFaults(faults)
    return values


def check_items(check, values):
    """check_each over the items of a list."""
    return check_each([("[%d]" % index, check, value) for index, value in enumerate(values)])


def list_of(kind, at_least=0):
    """A JSON list of one kind; as an option, its parts between commas."""
    reason = "must be a list" + (" of at least %d" % at_least if at_least else "")

    def check(value):
        if not isinstance(value, list) or len(value) < at_least:
            raise ValueError(reason)
        return check_items(kind.check, value)

    def parse(text):
        parts = [part for part in text.split(",") if part]
        return [kind.parse(part) for part in parts] if len(parts) >= at_least else _refuse(reason)
    return Kind(check, parse, "a list, each part %s" % kind.accepts)


def _check_seconds(value):
    if isinstance(value, str):
        value = parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
        raise ValueError("must be seconds, or a duration such as 90s, 15m, 2h or 1d")
    return value


def _check_whole_seconds(value):
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("must be whole seconds, or a duration such as 90s, 15m, 2h or 1d")
    value = parse_duration(str(value).strip().lower(), is_whole=True)
    if value > MAX_SECONDS:
        raise ValueError("must be at most %d seconds" % MAX_SECONDS)
    return value


def _check_joined(value):
    """Words between commas, or a list of them -> words between commas."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise ValueError("must be words between commas, or a list of them")
    return _join(",".join(TEXT.check(str(item)) for item in items))


def _check_positive_seconds(value):
    value = _check_seconds(value)
    if not value > 0:
        raise ValueError("must be more than 0 seconds")
    return value


def _parse_boolean(text):
    if text.lower() not in ("yes", "no"):
        raise ValueError("must be yes or no")
    return text.lower() == "yes"


def _check_value(value):
    """The value of a variable: text, and numbers as their text."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("must be text or a number")
    return check_size(TEXT.check(value if isinstance(value, str) else json.dumps(value)))


def check_size(text):
    """The value of a variable, which has no more bytes than may be, or ValueError."""
    if len(text) > MAX_VALUE or len(text.encode("utf-8", "replace")) > MAX_VALUE:
        raise ValueError("has over %d bytes, more than a variable takes" % MAX_VALUE)
    return text


def _check_values(value):
    if not isinstance(value, dict):
        raise ValueError("must be an object of names and values")
    check_each([("." + name, lambda _, name=name: _check_variable(name), None) for name in value]
               + [("." + name, _check_value, item) for name, item in value.items()])
    return {name: _check_value(item) for name, item in value.items()}


def _check_variable(name):
    if not isinstance(name, str) or not VARIABLE.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError("must be a name of letters, digits and _, at most %d characters"
                         % MAX_NAME)
    if name in RESERVED_VARIABLES:
        raise ValueError("%s is the agent's own variable" % name)
    return name


def parse_time(text, is_end=False, now=0.0, is_back=False):
    """parse_request_time in the agent's zone, within the years that replies can show.
    ValueError."""
    try:
        instant = parse_request_time(text, find_zone(""), now, is_back, is_end)
        year = int(text[:4]) if text[4:5] == "-" else time.gmtime(instant).tm_year
    except (OverflowError, OSError):
        raise ValueError("is outside the years that this host can handle") from None
    if not 2 <= year <= 9998:           # no offset leads out of the years 1 to 9999
        raise ValueError("must lie in the years 2 to 9998")
    return instant


TEXT = _of_type((str,), "text")
FILLED = Kind(lambda value: TEXT.check(value) or _refuse("must not be empty"),
              lambda text: text or _refuse("must not be empty"), "text, not empty")
BOOLEAN = _of_type((bool,), "true or false", _parse_boolean)
NAMED = Kind(check_name, check_name, "a name")
SECONDS = Kind(_check_seconds, _check_seconds, "a duration")
TIMEOUT = Kind(_check_positive_seconds, _check_positive_seconds, "a duration above 0")
VALUES = Kind(_check_values, _check_values, "an object of variables and values")
VARIABLE_NAME = Kind(_check_variable, _check_variable, "a variable")
WHOLE_SECONDS = Kind(_check_whole_seconds, _check_whole_seconds, "a duration of whole seconds")
JOINED = Kind(_check_joined, _check_joined, "words between commas, or a list of them")
LABEL = Kind(lambda value: TEXT.check(value) if len(str(value)) <= 1000 else
             _refuse("must have at most 1000 characters"),
             lambda text: text if len(text) <= 1000 else _refuse("at most 1000 characters"),
             "text of at most 1000 characters")
PRIORITY = between(-1000000, 1000000)


def _refuse(reason):
    raise ValueError(reason)


def check_calendar_name(name):
    """The name of a calendar, which no date can be taken for, or ValueError."""
    if check_name(name)[0].isdigit():
        raise ValueError("the name of a calendar does not begin with a digit")
    return name


def check_dates(text):
    """The dates of a calendar, at least one, or ValueError."""
    text = _check_joined(text)
    if not _parse_dates(text)[0]:
        raise ValueError("must be dates such as 2026-12-25 or 2026-12-24..2026-12-31")
    return text
