"""What restricts a rule: hours, dates, weekdays, and repetitions."""
import functools
from bisect import bisect_left
from datetime import date
from typing import NamedTuple

from ..base.errors import CalendarError
from ..base.times import parse_duration
from .days import (DAY, END_DAY, EPOCH_ORDINAL, EVERY_DAY, WEEKDAYS, WINDOW_FIELDS, _find_month,
                   _week_bits)
from .rules import _parse_monthdays, _parse_weekdays, parse_clock, parse_day


class Window(NamedTuple):
    """What the fields of a schedule take away or add, but for `from` and `to`."""

    weekdays: int              # excluded, bits, Monday is bit 0
    monthdays: int             # excluded, bits; bit 0 is the last day
    starts: tuple              # excluded stretches of days: their first ones ..
    ends: tuple                # .. and last ones, in order, apart from each other
    spans: tuple               # stretches of a day that `hours` leaves, first and last second
    gap: str
    fold: str
    every: int                 # repetition: seconds, and how many more times
    repeats: int

    def get_mask(self, days, month):
        """The bits of the days of that month (year * 12 + month - 1) that are not excluded."""
        first, weekday, length = _find_month(month)
        mask = days.get_mask(month % 12, weekday, length)
        if mask and (self.weekdays or self.monthdays):
            mask &= ~(self.monthdays | (self.monthdays & 1) << length
                      | _week_bits(self.weekdays, weekday))
        place = bisect_left(self.ends, first)
        while mask and place < len(self.starts) and self.starts[place] < first + length:
            low, high = (max(self.starts[place] - first, 0) + 1,
                         min(self.ends[place] - first, length) + 1)
            mask &= ~((2 << high) - (1 << low))
            place += 1
        return mask

    def next_day(self, days, day):
        """The first day from `day` on, or None.
        Tries months, no more than the 40 years that may lie between."""
        while day < END_DAY:
            when = date.fromordinal(day + EPOCH_ORDINAL)
            month = when.year * 12 + when.month - 1
            mask = self.get_mask(days, month) >> when.day << when.day
            if mask:
                return day - when.day + (mask & -mask).bit_length() - 1
            month += 1
            while not days.months[month % 12]:
                month += 1
            day = _find_month(month)[0]
            place = bisect_left(self.ends, day)
            if place < len(self.ends) and self.starts[place] <= day:
                day = self.ends[place] + 1
        return None

    def count_days(self, days, first, last):
        """How many days there are from `first` until before `last`."""
        low, high = (date.fromordinal(day + EPOCH_ORDINAL) for day in (first, last))
        start, end = low.year * 12 + low.month - 1, high.year * 12 + high.month - 1
        masks = [self.get_mask(days, month) for month in range(start, end)]
        masks.append(self.get_mask(days, end) & (1 << high.day) - 1)
        masks[0] = masks[0] >> low.day
        return sum(bin(mask).count("1") for mask in masks)

    def find_reason(self, local):
        """Why this local time is excluded, in words, or ''."""
        day, second = divmod(local, DAY)
        if not self.count_days(EVERY_DAY, day, day + 1):
            return "excluded day %s %s" % (WEEKDAYS[(day + 3) % 7],
                                           date.fromordinal(day + EPOCH_ORDINAL))
        return "" if any(low <= second <= high for low, high in self.spans) else "outside hours"


def format_clock(local):
    """`HH:MM`, with `:SS` unless 00, of local seconds or a second of the day."""
    text = "%02d:%02d:%02d" % (local // 3600 % 24, local // 60 % 60, local % 60)
    return text[:5] if text.endswith(":00") else text


def _join(value):
    items = (value if isinstance(value, (list, tuple))
             else str("" if value is None else value).split(","))
    return ",".join(str(item).strip() for item in items)


def _read(name, parse, text, default=0):
    try:
        return parse(text) if text else default
    except CalendarError as error:
        raise CalendarError("%s: %s" % (name, error)) from None


@functools.lru_cache(maxsize=1024)
def _parse_window(weekdays, monthdays, dates, hours, gap, fold, *repetition):
    """The Window of the texts of WINDOW_FIELDS, '' where there is none. Equal ones are shared."""
    for name, text, choices in (("gap", gap, ("run", "skip")), ("fold", fold, ("first", "both"))):
        if text not in choices + ("",):
            raise CalendarError("%s: '%s' is not %s or %s" % ((name, text) + choices))
    every, count, duration = (_read(name, _parse_whole, text.lower(), None)
                              for name, text in zip(WINDOW_FIELDS[6:], repetition))
    limits = [limit for limit in (count, duration if duration is None else duration // (every or 1))
              if limit is not None]
    if bool(every) != bool(limits):
        raise CalendarError("repeat_every (from 1s up) needs repeat_count or repeat_for, and they "
                            "need it")
    if limits and not min(limits):
        raise CalendarError("repeat_for is shorter than repeat_every: nothing would be repeated")
    return Window(_read("exclude_weekdays", _parse_weekdays, weekdays.lower()),
                  _read("exclude_monthdays", _parse_monthdays, monthdays.lower()),
                  *_read("exclude_dates", _parse_dates, dates, ((), ())),
                  _read("hours", _parse_hours, hours, ((0, DAY - 1),)),
                  gap or "run", fold or "first", every or 0, min(limits, default=0))


def _parse_whole(text):
    return parse_duration(text, is_whole=True)


def _parse_hours(text):
    low, dash, high = text.replace(" ", "").partition("-")
    if not dash:
        raise CalendarError("'%s' is not HH:MM-HH:MM, like 08:00-18:00" % text)
    low, high = parse_clock(low), DAY - 1 if high == "24:00" else parse_clock(high)
    return ((low, high),) if low <= high else ((0, high), (low, DAY - 1))


@functools.lru_cache(maxsize=256)
def _parse_dates(text):
    """(starts, ends) of the stretches of days in a list of dates and ranges `a..b`."""
    starts, ends, spans = [], [], []
    for item in filter(None, text.split(",")):
        if not item[0].isdigit():
            raise CalendarError("'%s' is neither a date YYYY-MM-DD, a range a..b, nor a calendar "
                                "that exists" % item)
        first, dots, last = item.partition("..")
        spans.append((parse_day(first.strip()), parse_day(last.strip() if dots else first)))
        if spans[-1][1] < spans[-1][0]:
            raise CalendarError("range '%s' ends before it begins" % item)
    for first, last in sorted(spans):
        if ends and first <= ends[-1] + 1:
            ends[-1] = max(ends[-1], last)
        else:
            starts.append(first)
            ends.append(last)
    return tuple(starts), tuple(ends)
