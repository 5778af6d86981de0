"""A time as people write it, placed in a zone: the one parser of times."""
import re
from datetime import date

from ..base.errors import CalendarError
from ..base.times import parse_duration
from .days import DAY, EPOCH_ORDINAL
from .rules import parse_clock, parse_day

_MOMENT = re.compile(r"([0-9-]{10})(?:[ Tt]([0-9:]+)(\.[0-9]+)?)?"
                     r"([Zz]|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])?")
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
# what of a request is meant for a date, however wrong it is; a day by its name; a distance
_LIKE_DATE, _NAMED_DAY = re.compile("[0-9]{4}-"), re.compile("([a-z]+)(?: +([0-9:]+))?")
_CLOCK_TIME, _DISTANCE = re.compile("[0-9]+:[0-9:]+"), re.compile("([+-]?)([0-9.]+[smhd]?)")

_FIRST_DAY, _LAST_DAY = (date(year, 1, 1).toordinal() - EPOCH_ORDINAL for year in (2, 9999))


def parse_moment(text, zone, is_end=False, is_second=False):
    """An ISO 8601 date or time -> epoch seconds. CalendarError.

    Without Z or an offset it is local in `zone`: in a gap the instant after it, in a fold the
    first, or with `is_second` the second. A date alone is its first instant, with `is_end` its last
    millisecond. The first year and the last are taken as UTC: no zone reaches beyond.
    """
    match = _MOMENT.fullmatch(str(text))
    if not match:
        raise CalendarError("'%s' is not YYYY-MM-DD or YYYY-MM-DD HH:MM[:SS], with Z or +HH:MM if "
                            "not local" % text)
    day, clock, fraction, offset = match.groups()
    day, second, part = parse_day(day), parse_clock(clock or "00:00"), float(fraction or 0)
    if clock is None and is_end:
        second, part = DAY - 1, 0.999
    if offset:
        return day * DAY + second - _east(offset) + part
    if not _FIRST_DAY <= day < _LAST_DAY:
        return day * DAY + second + part
    return _place(day * DAY + second, zone, is_second) + part


def parse_request_time(text, zone, now, is_back=False, is_end=False):
    """A time of a request, `now` being epoch seconds -> epoch seconds. CalendarError.

    An ISO 8601 time as parse_moment takes it; `now`; `today`, `yesterday` and `tomorrow`, alone or
    with a clock time; a clock time: the next one, with `is_back` the last one; a distance with a
    sign or a unit, which with `is_back` and without a sign lies in the past.
    """
    word = text.lower()
    named, distance = _NAMED_DAY.fullmatch(word), _DISTANCE.fullmatch(word)
    if word == "now":
        return now
    if named and named.group(1) in _DAYS:
        return _find_clock_time(named.group(2) or "00:00", zone, now, _DAYS[named.group(1)])
    if _CLOCK_TIME.fullmatch(word):
        instant = _find_clock_time(word, zone, now)
        is_wrong_way = instant > now if is_back else instant <= now
        return _find_clock_time(word, zone, now, -1 if is_back else 1) if is_wrong_way else instant
    if distance and (distance.group(1) or word[-1].isalpha()):
        sign = distance.group(1) or "-+"[not is_back]
        return now + parse_duration(distance.group(2)) * (-1 if sign == "-" else 1)
    if _LIKE_DATE.match(word):
        return parse_moment(text, zone, is_end)
    raise CalendarError("must be a time: 2026-12-01, 2026-12-01T02:00, 02:00, now, today, "
                        "yesterday, tomorrow, 'tomorrow 02:00', or a distance like 10m or +1d")


def _find_clock_time(clock, zone, now, days=0):
    """The instant of a clock time on the day of `now`, or so many days later. CalendarError."""
    today = int(now + zone.get_piece(int(now // 1))[2]) // DAY
    return _place((today + days) * DAY + parse_clock(clock), zone, is_second=False)


def _east(offset):
    """Seconds east of UTC of Z, +05:30 or -0130."""
    if offset in "Zz":
        return 0
    seconds = int(offset[1:3]) * 3600 + int(offset[-2:]) * 60
    return -seconds if offset[0] == "-" else seconds


def _place(local, zone, is_second):
    """The instant of local seconds in a zone."""
    start, end, offset, _ = zone.get_piece(local - DAY)         # no zone is a day from UTC
    while local - offset >= end:
        start, end, offset, _ = zone.get_piece(end)
    again = local - zone.get_piece(end)[2]
    return again if is_second and again >= end else max(local - offset, start)
