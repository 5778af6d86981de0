"""A time of day on a date, as people write it, placed in a zone: the one parser of times."""
import re
from datetime import date

from ..base.errors import CalendarError
from .days import DAY, EPOCH_ORDINAL
from .rules import parse_clock, parse_day

_MOMENT = re.compile(r"([0-9-]{10})(?:[ Tt]([0-9:]+)(\.[0-9]+)?)?"
                     r"([Zz]|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])?")

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
