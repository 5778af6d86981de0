"""The clock, instants as text, and the one parser of durations."""
import functools
import re
import time
from calendar import timegm
from datetime import datetime, timezone

from .errors import CalendarError


class Clock:
    """The one place that reads the time: of day in epoch seconds, and one that never steps."""

    def now(self):
        """Seconds since 1970-01-01 UTC, as the system's clock has it."""
        return time.time()

    def monotonic(self):
        """Seconds that only ever go forward."""
        return time.monotonic()


def to_text(instant):
    """Epoch seconds -> UTC ISO 8601 text, 24 characters, as the tables hold it."""
    # 0.01 ms more than the float: from_text(text) must give the same text again
    whole, thousandths = divmod(int((instant * 1000 + 0.01) // 1), 1000)
    return "%s.%03dZ" % (_second_to_text(whole), thousandths)


@functools.lru_cache(maxsize=64)        # of the second that it is, many are asked for
def _second_to_text(whole):
    return "%04d-%02d-%02dT%02d:%02d:%02d" % time.gmtime(whole)[:6]


@functools.lru_cache(maxsize=1024)
def from_text(text):
    """UTC ISO 8601 text of the tables -> epoch seconds; of many equal ones the same float."""
    fields = (int(text[0:4]), int(text[5:7]), int(text[8:10]),
              int(text[11:13]), int(text[14:16]), int(text[17:19]))
    return timegm(fields) + int(text[20:23] or 0) / 1000.0      # as SQLite itself writes it: none


def as_stored(instant):
    """Epoch seconds as the tables will have them: to the millisecond."""
    return from_text(to_text(instant))


def find_time(text):
    """`from_text`, or None of what is none: another program has written it."""
    try:
        return from_text(text) if text else None
    except (ValueError, TypeError):
        return None


def to_local(text):
    """UTC text of the tables -> the agent's local time with its offset;
    what is none stays as it is."""
    try:
        return text and local_iso(from_text(text), "milliseconds")
    except ValueError:                  # another program has written it
        return text


def local_iso(instant, timespec="seconds"):
    """Epoch seconds -> ISO 8601 in the agent's zone with its offset."""
    moment = datetime.fromtimestamp(instant, timezone.utc).astimezone()
    return moment.isoformat(timespec=timespec)


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


# a time as replies have it; with Z, as the tables have it
INSTANT = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})"
                     r"([.][0-9]+)?(?:Z|([+-])([0-9]{2}):([0-9]{2}))")


def find_instant(value):
    """A time of a reply -> epoch seconds; None: it is no time."""
    match = isinstance(value, str) and INSTANT.fullmatch(value)
    if not match:
        return None
    *fields, fraction, sign, hours, minutes = match.groups()
    offset_s = (int(hours or 0) * 60 + int(minutes or 0)) * 60 * (-1 if sign == "-" else 1)
    return timegm([int(field) for field in fields]) - offset_s + float(fraction or 0)


def parse_duration(text, is_whole=False):
    """`90`, `90s`, `1.5m`, `2h`, `1d` -> seconds; with `is_whole` an int of at most 9 digits before
    its unit, without a fraction. CalendarError."""
    match = _DURATION.fullmatch(text)
    if not match or len(text) > 15 or is_whole and not re.fullmatch("[0-9]{1,9}", match.group(1)):
        raise CalendarError("duration '%s' is not a %s with s, m, h or d, like 90s, 15m, 2h, 1d"
                            % (text[:60], "whole number" if is_whole else "number"))
    return (int if is_whole else float)(match.group(1)) * _UNITS_S[match.group(2)]
