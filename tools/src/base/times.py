"""The clock, and every form of an instant or a duration as text."""
import re
import time
from calendar import timegm
from datetime import datetime, timedelta, timezone


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
    return "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ" % (time.gmtime(whole)[:6] + (thousandths,))


def from_text(text):
    """UTC ISO 8601 text of the tables -> epoch seconds."""
    fields = (int(text[0:4]), int(text[5:7]), int(text[8:10]),
              int(text[11:13]), int(text[14:16]), int(text[17:19]))
    return timegm(fields) + int(text[20:23] or 0) / 1000.0      # as SQLite itself writes it: none


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


_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)"
                   r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(Z|[+-]\d\d:?\d\d)?)?",
                   re.ASCII | re.I)


def parse_time(text, is_end=False):
    """ISO 8601 text of a request -> epoch seconds; ValueError when it is none.

    Without offset it is in the agent's zone; a date alone is its first instant, with
    `is_end` its last millisecond.
    """
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError("must be a time such as 2026-12-01T02:00 or 2026-12-01")
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    if not 1 < int(year) < 9999:        # so that no offset leads out of the years 1 to 9999
        raise ValueError("must lie in the years 2 to 9998")
    moment = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0),
                      int(second or 0), int((fraction or "0").ljust(6, "0")))
    if hour is None and is_end:
        moment += timedelta(days=1, milliseconds=-1)
    if offset:
        sign = -1 if offset[0] == "-" else 1
        ahead = 0 if offset in "Zz" else sign * (int(offset[1:3]) * 60 + int(offset[-2:]))
        moment = moment.replace(tzinfo=timezone(timedelta(minutes=ahead)))
    try:
        return moment.timestamp()
    except OverflowError:
        raise ValueError("is outside the years that this host can handle") from None


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text):
    """`90`, `90s`, `15m`, `2h`, `1d` -> seconds as float; ValueError when it is none."""
    match = _DURATION.fullmatch(text)
    if not match or len(text) > 15:
        raise ValueError("must be a duration such as 90, 90s, 15m, 2h or 1d")
    return float(match.group(1)) * _UNITS_S[match.group(2)]
