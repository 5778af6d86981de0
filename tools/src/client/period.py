"""The period of a report: instants as people write them, in the reader's zone."""
import re
import time
from calendar import timegm

from ..base.errors import CalendarError
from ..base.times import parse_duration
from .errors import ClientError, USAGE

_DAY_NAMES = {"yesterday": -1, "today": 0, "tomorrow": 1}
_DAY_NAME = re.compile(r"(yesterday|today|tomorrow)(?: +([0-9:]+))?")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?")
_AWAY = re.compile(r"([+-]?)([0-9.]+[smhd]?)")
_ISO = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ t]([0-9:]+)(\.[0-9]+)?)?"
                  r"(z|[+-][0-9]{2}:?[0-9]{2})?")


def read_instant(name, text, now, is_end=False):
    """A time in a form of requests, local to the reader, -> epoch seconds; a clock time is the last
    one, a distance without a sign lies in the past, a date alone is its begin, with `is_end` its
    end. `name` is the option that has it. Raises ClientError."""
    try:
        return _read(text.strip().lower(), now, is_end)
    except (CalendarError, ValueError, OverflowError):
        raise ClientError(USAGE, "%s takes a time: 2026-12-01, 2026-12-01T02:00, 02:00, now, "
                          "yesterday, 'yesterday 22:00', or a distance like 12h" % name)


def _read(word, now, is_end):
    """The instant of a word. CalendarError, ValueError, OverflowError."""
    named, away, date = (form.fullmatch(word) for form in (_DAY_NAME, _AWAY, _ISO))
    if word == "now":
        return now
    if named:
        return _find_local(now, named.group(2) or "00:00", _DAY_NAMES[named.group(1)])
    if _CLOCK.fullmatch(word):
        instant = _find_local(now, word)
        return instant if instant <= now else _find_local(now, word, -1)
    if away and (away.group(1) or word[-1].isalpha()):
        length_s = parse_duration(away.group(2))
        return now + length_s if away.group(1) == "+" else now - length_s
    return _read_iso(date, is_end)


def _read_iso(match, is_end):
    """The instant of a date, with or without time of day and offset. ValueError."""
    if not match:
        raise ValueError
    day, clock, fraction, offset = match.groups()
    date = time.strptime(day, "%Y-%m-%d")[:3]
    if clock is None and offset is None:
        return _place(date, "00:00", 1) - 0.001 if is_end else _place(date, "00:00")
    if offset:
        east = offset.replace("z", "+0000").replace(":", "")
        seconds = (int(east[1:3]) * 60 + int(east[3:])) * 60
        instant = _read_wall(date, clock or "00:00") - (-seconds if east[0] == "-" else seconds)
    else:
        instant = _place(date, clock or "00:00")
    return instant + float(fraction or 0)


def _find_local(now, clock, days=0):
    """The instant of a clock time on the local day of `now`, or so many days later. ValueError."""
    return _place(time.localtime(now)[:3], clock, days)


def _read_wall(date, clock, days=0):
    """A clock time on a day, or so many days later, as if it were UTC. ValueError."""
    text = clock if clock.count(":") == 2 else clock + ":00"
    return timegm((date[0], date[1], date[2] + days) + time.strptime(text, "%H:%M:%S")[3:6])


def _place(date, clock, days=0):
    """The instant of a local clock time: in a fold the first, in a gap the one after it.
    ValueError."""
    wall = _read_wall(date, clock, days)
    early, late = sorted(wall - time.localtime(wall + away_s).tm_gmtoff
                         for away_s in (-86400, 86400))
    for instant in (early, late):
        if timegm(time.localtime(instant)) == wall:
            return float(instant)
    while late - early > 1:             # between them the clock was put on
        middle = (early + late) // 2
        if timegm(time.localtime(middle)) < wall:
            early = middle
        else:
            late = middle
    return float(late)
