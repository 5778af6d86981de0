"""When a rule fires in its zone and window: next and count, by arithmetic on local time."""
import functools

from ..base.errors import CalendarError
from .days import (DAY, DayTimes, EVERY_DAY, EVERY_TRIES, LAST_INSTANT, MAX_OVERLAP, NEVER,
                   _is_possible)
from .windows import _parse_window


@functools.lru_cache(maxsize=64)
def _cut_times(starts, within, spans):
    seconds = tuple(second for second in (start + second for start in starts for second in within)
                    if any(low <= second <= high for low, high in spans))
    return DayTimes((0,), seconds) if seconds else NEVER


OPEN_WINDOW = _parse_window(*[""] * 9)
BARE_WINDOW = OPEN_WINDOW._replace(fold="both")


class Firings:
    """When a rule is due in a zone and a window, but for repetitions, from `first` to `last`.
    Immutable.

    Nothing is due before 1970 or after 9997. Dates and hours of the window are those of the local
    time that the rule names; for `every` and for repetitions, those of the instant. `anchor` is an
    instant at which `every` is due.
    """

    __slots__ = ("rule", "zone", "window", "times", "first", "last", "anchor")

    def __init__(self, rule, zone, window, first=0, last=LAST_INSTANT, anchor=None):
        self.rule, self.zone, self.window, self.first, self.last = rule, zone, window, first, last
        self.anchor, self.times = first if anchor is None else anchor, rule.times
        if rule.day is not None:  # the one date of `at` lies within, in any zone
            self.first, self.last = (max(first, (rule.day - 2) * DAY),
                                     min(last, (rule.day + 3) * DAY))
        if window not in (OPEN_WINDOW, BARE_WINDOW):
            self._narrow(rule, window)

    def _narrow(self, rule, window):
        """Leaves out times of day that the window never lets be. CalendarError."""
        if window.spans != OPEN_WINDOW.spans and not rule.step:
            times = _cut_times(rule.times.starts, rule.times.within, window.spans)
            if times.size < rule.times.size:        # many have one list with their rule
                self.times = times
        if not _is_possible(rule.days, window.weekdays, window.monthdays):
            self.times = NEVER
        span, per_day = (window.every * window.repeats,
                         DAY // rule.step + 1 if rule.step else self.times.size)
        if min(per_day * (span // DAY + 1), span) > MAX_OVERLAP:
            raise CalendarError("repetitions of over %d firings might overlap; repeat for less time"
                                % MAX_OVERLAP)

    def _next_firing(self, after):
        """The first firing after an instant, or None: piece by piece of the zone."""
        instant = max(after + 1, self.first)
        if not self.times.size:
            return None
        if self.rule.step:
            return self._next_step(self.anchor, self.rule.step, instant - 1, self.last)
        while instant <= self.last:
            start, end, offset, before = self.zone.get_piece(instant)
            local = self._next_local(self._begin_local(instant, start, offset, before))
            if local is None:
                return None
            if local < end + offset:
                # local time that a gap swallowed would be before start
                due = max(local - offset, start)
                return due if due <= self.last else None
            # Far off nothing in between can match: a fold sets the clock back by a day at most.
            instant = end if end - instant < 2 * DAY else max(end, local - offset - 2 * DAY)
        return None

    def _count_firings(self, after, until):
        """How many firings there are in (after, until]: piece by piece of the zone."""
        after, until, count = max(after, self.first - 1), min(until, self.last), 0
        if not self.times.size:
            return 0
        if self.rule.step:
            return self._count_steps(self.anchor, self.rule.step, after, until, until)
        instant = after + 1
        while instant <= until:
            start, end, offset, before = self.zone.get_piece(instant)
            end, local = min(end, until + 1), self._begin_local(instant, start, offset, before)
            if local < instant + offset:  # what the gap swallowed is due once, at its end
                count += min(self._count_local(local, instant + offset + 1), 1)
                local = instant + offset + 1
            count += self._count_local(local, end + offset)
            instant = end
        return count

    def _begin_local(self, instant, start, offset, before):
        """The local time from which on the rule is looked up at `instant`."""
        if not self.rule.real:
            if before < offset and instant == start and self.window.gap == "run":
                return start + before
            if before > offset and self.window.fold == "first":
                return max(instant + offset, start + before)
        return instant + offset

    def _find_missing(self, instant):
        """The first local time of the rule that a gap swallowed and for which `instant` is due,
        or None."""
        start, _, offset, before = self.zone.get_piece(instant)
        begin = self._begin_local(instant, start, offset, before)
        local = (self._next_local(begin)
                 if begin < start + offset and self.times.size and not self.rule.step else None)
        return local if local is not None and local < start + offset else None

    def _next_local(self, local):
        """The first local time of the rule from `local` on, as if the zone never changed,
        or None."""
        day, second = divmod(local, DAY)
        due_day = self.window.next_day(self.rule.days, day)
        if due_day == day:
            place = self.times.count_before(second)
            if place < self.times.size:
                return day * DAY + self.times.get_nth(place)
            due_day = self.window.next_day(self.rule.days, day + 1)
        return None if due_day is None else due_day * DAY + self.times.get_nth(0)

    def _count_local(self, low, high):
        """How many local times of the rule are in [low, high)."""
        def count_before(local):
            day, second = divmod(local, DAY)
            today = (self.times.count_before(second)
                     if second and count_days(days, day, day + 1) else 0)
            return today + (count_days(days, first, day) * self.times.size if first < day else 0)
        count_days, days, first = self.window.count_days, self.rule.days, low // DAY
        return count_before(high) - count_before(low) if low < high else 0

    # Steps are the instants anchor + k * step that the window leaves: `every`, and repetitions.

    def _next_step(self, anchor, step, after, until):
        """The first step in (after, until], or None: stretch by stretch that the window leaves."""
        instant, until = after + 1, min(until, self.last)
        for _ in range(EVERY_TRIES):
            instant += (anchor - instant) % step
            low, high = self._find_open(instant) if instant <= until else (None, 0)
            if low is None:
                break
            instant = low + (anchor - low) % step
            if instant <= high:
                return instant if instant <= until else None
        return None

    def _count_steps(self, anchor, step, after, *limits):
        count, until = 0, min(self.last, *limits)
        while after < until:
            low, high = self._find_open(after + 1)
            if low is None or low > until:
                break
            count += (min(high, until) - anchor) // step - (low - 1 - anchor) // step
            after = high
        return count

    def _find_open(self, instant):
        """(first, last) instant of the next stretch from `instant` on that the window leaves,
        or (None, None)."""
        if self.window[:5] == OPEN_WINDOW[:5]:
            return instant, self.last
        while instant <= self.last:
            _, end, offset, _ = self.zone.get_piece(instant)
            day = self.window.next_day(EVERY_DAY, (instant + offset) // DAY)
            if day is None:
                break
            midnight = day * DAY - offset
            for low, high in self.window.spans:
                if instant <= midnight + high and midnight + low < end:
                    return max(midnight + low, instant), min(midnight + high, end - 1, self.last)
            instant = min(end, midnight + DAY) if midnight + DAY > instant else end
        return None, None
