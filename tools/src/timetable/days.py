"""Days and times of day as bit masks and lists, and the zones that place them in time."""
import functools
import os
import sys
import time
from bisect import bisect_left, bisect_right
from datetime import date, datetime
from typing import NamedTuple

from ..base.errors import CalendarError

# Pure: rule, zone and window, after -> next. Instants are whole seconds since 1970-01-01 UTC.
#
# Local time is counted likewise, as if the wall clock were UTC ("local seconds"); a "day" is local
# seconds // 86400. A rule is a pattern of days (one bit mask a month) and an ordered list of times
# of day; both can be ranked, so next and count are arithmetic. A zone is cut into pieces of one
# offset, and in each the rule is looked up in local seconds: a gap is local time between two pieces
# that neither has, a fold is local time that both have.

DAY = 86400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
END_DAY = date(9998, 1, 1).toordinal() - EPOCH_ORDINAL  # datetime ends with the year 9999
LAST_INSTANT = END_DAY * DAY
CHUNK_BITS = 24             # pieces of a zone are found, and kept, for 194 days at a time
PROBE_S = 1 << 19           # six days: since 1970 no zone keeps an offset for less
# stretches tried for steps that the window leaves seldom: ten years of days at least
EVERY_TRIES = 4000
MAX_OVERLAP = 2000          # firings whose repetitions may overlap
MAX_SPANS = 50              # due times that are excluded, told one by one
MAX_SECONDS = 999999999     # of a duration in whole seconds

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# as in cron
WEEKDAY_NUMBERS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
MONTH_NUMBERS = {name: i + 1 for i, name in enumerate(
    "jan feb mar apr may jun jul aug sep oct nov dec".split())}
MONTH_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
ORDINALS = {"first": "#1", "second": "#2", "third": "#3", "fourth": "#4", "last": "l"}
MACROS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
          "@weekly": "0 0 * * 0",
          "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *"}
FORMS = {"startup": "startup", "boot": "boot", "at": "at 2026-12-01 02:00", "every": "every 15m",
         "hourly": "hourly at 05:00", "daily": "daily at 02:00,14:00",
         "weekly": "weekly on mon,wed at 02:00",
         "monthly": "monthly on 1,15,last at 02:00' or 'monthly on last fri at 18:00",
         "yearly": "yearly on 12-31 at 23:00", "cron": "cron 0 2 * * mon-fri"}
WINDOW_FIELDS = ("exclude_weekdays", "exclude_monthdays", "exclude_dates", "hours", "gap", "fold",
                 "repeat_every", "repeat_count", "repeat_for")
MOVING_FIELDS = frozenset(WINDOW_FIELDS + ("from", "to"))      # those that due times follow from


def _find_first(low, high, holds):
    """The first number in (low, high] for which `holds`; from it up to `high` it does for all."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@functools.lru_cache(maxsize=1024)
def _share(value):
    """The first of all equal values, so that many schedules keep one."""
    return value


class Zone:
    """Offsets of local time, found with `probe(instant) -> seconds east of UTC`.
    Threads may share one."""

    __slots__ = ("_probe", "_chunks")

    def __init__(self, probe):
        self._probe, self._chunks = probe, {}

    def get_piece(self, instant):
        """(start, end, offset, offset before start) of the stretch of one offset around `instant`.

        A start or end that is no change of offset lies two days off or more,
        and has the same offset before it.
        """
        pieces = self._chunks.get(instant >> CHUNK_BITS)
        if pieces is None:  # two threads may both look: what they find is equal
            pieces = self._chunks[instant >> CHUNK_BITS] = self._find_pieces(instant >> CHUNK_BITS)
        for piece in pieces:
            if instant < piece[1]:
                break
        return piece

    def _find_pieces(self, chunk):
        """The pieces of a stretch of 2 ** CHUNK_BITS seconds, with two days before and behind."""
        start, end = (chunk << CHUNK_BITS) - 2 * DAY, (chunk + 1 << CHUNK_BITS) + 2 * DAY
        before = offset = self._probe(start)
        pieces = []
        for low in range(start, end, PROBE_S):
            high = min(low + PROBE_S, end)
            while self._probe(high) != offset:
                low = _find_first(low, high, lambda instant: self._probe(instant) != offset)
                pieces.append((start, low, offset, before))
                start, before, offset = low, offset, self._probe(low)
        return tuple(pieces) + ((start, end, offset, before),)


def find_zone(name):
    """The zone called `name`: '' is the system's, 'UTC' needs nothing,
    others are IANA names (CalendarError)."""
    # tzset() shows in the names and the offset, and TZ tells zones apart that agree in both.
    return (_make_zone(name) if name
            else _make_zone("", os.environ.get("TZ"), time.tzname, time.timezone))


@functools.lru_cache(maxsize=1024)
def _make_zone(name, *_system):
    """find_zone by name; `_system` tells the system's zones apart. CalendarError."""
    if not name:
        return Zone(lambda instant: time.localtime(instant).tm_gmtoff)
    if name == "UTC":
        return Zone(lambda instant: 0)
    only = "only UTC and the system's zone (no timezone) are known"
    try:
        import zoneinfo
        info = zoneinfo.ZoneInfo(name)
    except ImportError:
        raise CalendarError("timezone '%s': the time-zone database needs Python 3.9 or newer, this "
                            "is %s; %s; TZ=Europe/Zurich python agent.py starts it in another"
                            % (name, sys.version.split()[0], only)) from None
    except (KeyError, ValueError, OSError, TypeError):
        right = "no such zone; write a name like Europe/Zurich, or UTC"
        if not zoneinfo.available_timezones():
            right = "this host has no time-zone data (tzdata); " + only
        raise CalendarError("timezone '%s': %s" % (name, right)) from None
    return Zone(
        lambda instant: int(datetime.fromtimestamp(instant, info).utcoffset().total_seconds()))


class Days(NamedTuple):
    """Which days of any month: bit n of a mask is the n-th, bit 0 the last day."""

    months: tuple    # a mask for each month, January first; 0 where no day of it is meant
    weekdays: int    # bits, Monday is bit 0
    nth: tuple       # pairs (n, weekday), Monday 0; n 0 is the last one of the month
    either: bool     # mask or week day is enough; else both must match

    def get_mask(self, month, weekday, length):
        """The bits of a month (0..11) of that length that begins on that week day."""
        chosen, week = self.months[month], _week_bits(self.weekdays, weekday)
        if not chosen:
            return 0
        chosen |= (chosen & 1) << length
        for n, day in self.nth:
            place = 1 + (day - weekday) % 7 + 7 * (n - 1 if n else 4)
            week |= 1 << (place if n or place <= length else place - 7)
        return (chosen | week if self.either else chosen & week) & ((2 << length) - 2)


def _week_bits(weekdays, first):
    """Bits 1..31 for the week days of a month that begins on the week day `first`."""
    return ((weekdays >> first | weekdays << 7 - first) & 127) * 0x10204081 << 1


@functools.lru_cache(maxsize=8192)
def _find_month(month):
    """(first day, its week day, length) of the month numbered year * 12 + month - 1."""
    first, following = (date(m // 12, m % 12 + 1, 1).toordinal() - EPOCH_ORDINAL
                        for m in (month, month + 1))
    return first, (first + 3) % 7, following - first


@functools.lru_cache(maxsize=1024)
def _is_possible(days, weekdays=0, monthdays=0):
    """Whether any day remains when these week days and days of the month (bits) are excluded.

    Exact: in the 400 years of the Gregorian cycle every month begins on each week day,
    a leap February too.
    """
    return any(days.get_mask(month, first, length) & ~(monthdays | (monthdays & 1) << length)
               & ~_week_bits(weekdays, first)
               for month, length in [(1, 28)] + list(enumerate(MONTH_LENGTHS))
               for first in range(7))


class DayTimes:
    """An ordered list of seconds of the day: each of `starts` plus each of `within`."""

    __slots__ = ("starts", "within", "size")

    def __init__(self, starts, within):
        self.starts, self.within, self.size = starts, within, len(starts) * len(within)

    def count_before(self, second):
        """How many come before this second of the day."""
        place = bisect_right(self.starts, second) - 1
        return (place * len(self.within) + bisect_left(self.within, second - self.starts[place])
                if place >= 0 else 0)

    def get_nth(self, n):
        """The n-th of these seconds of the day, from 0."""
        return self.starts[n // len(self.within)] + self.within[n % len(self.within)]


EVERY_DAY = Days(((1 << 32) - 2,) * 12, 127, (), False)
HOURS = tuple(range(0, DAY, 3600))
NEVER = DayTimes((), ())
