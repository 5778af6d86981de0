"""The due times of a rule in its window and zone: next, last, count, and what is excluded."""
import functools
import hashlib
import itertools
import math

from ..base.errors import CalendarError
from .days import (DAY, DayTimes, EVERY_DAY, EVERY_TRIES, LAST_INSTANT, MAX_OVERLAP, MAX_SPANS,
                   MOVING_FIELDS, NEVER, WINDOW_FIELDS, _find_first, _is_possible, find_zone)
from .moments import parse_moment
from .rules import parse_rule
from .windows import _join, _parse_window, _read, format_clock


@functools.lru_cache(maxsize=64)
def _cut_times(starts, within, spans):
    seconds = tuple(second for second in (start + second for start in starts for second in within)
                    if any(low <= second <= high for low, high in spans))
    return DayTimes((0,), seconds) if seconds else NEVER


def make_timetable(rule, timezone="", options=None, calendars=None):
    """The Timetable of a schedule. Raises CalendarError.

    rule: its text; timezone: a name for find_zone; options: a mapping that may hold, among others,
    from, to and WINDOW_FIELDS; calendars: name -> dates (text or list), for exclude_dates.
    """
    zone = find_zone(timezone)
    if not options or MOVING_FIELDS.isdisjoint(options):
        return _make_plain(rule, zone)
    texts = [_join(options[name]) if name in options else "" for name in WINDOW_FIELDS]
    if texts[2]:
        texts[2] = ",".join(_join((calendars or {}).get(item, item))
                            for item in texts[2].split(","))
    window = _parse_window(*texts)
    first = _read("from", lambda text: parse_moment(text, zone), options.get("from"), 0)
    last = _read("to", lambda text: parse_moment(text, zone, is_end=True, is_second=True),
                 options.get("to"), LAST_INSTANT)
    if last < first:
        raise CalendarError("to: '%s' is before from '%s'" % (options["to"], options["from"]))
    return Timetable(parse_rule(rule), zone, window, max(math.floor(first), 0),
                     max(-1, min(math.floor(last), LAST_INSTANT)))


@functools.lru_cache(maxsize=8192)
def _make_plain(rule, zone):
    """The Timetable without a window, one for all schedules that have it."""
    return Timetable(parse_rule(rule), zone, OPEN_WINDOW)


OPEN_WINDOW = _parse_window(*[""] * 9)
BARE_WINDOW = OPEN_WINDOW._replace(fold="both")


class Timetable:
    """When a rule is due in a zone and a window, from `first` to `last`. Immutable.

    Nothing is due before 1970 or after 9997. Dates and hours of the window are those of the local
    time that the rule names; for `every` and for repetitions, those of the instant. `anchor` is an
    instant at which `every` is due.
    """

    __slots__ = ("rule", "zone", "window", "times", "first", "last", "anchor", "_known")

    def __init__(self, rule, zone, window, first=0, last=LAST_INSTANT, anchor=None):
        self.rule, self.zone, self.window, self.first, self.last = rule, zone, window, first, last
        self._known = (0, 0)        # an instant and its next due time
        self.anchor, self.times = first if anchor is None else anchor, rule.times
        if rule.day is not None:  # the one date of `at` lies within, in any zone
            self.first, self.last = (max(first, (rule.day - 2) * DAY),
                                     min(last, (rule.day + 3) * DAY))
        if window not in (OPEN_WINDOW, BARE_WINDOW):
            self._narrow(rule, window)

    def _narrow(self, rule, window):
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

    def next_after(self, instant):
        """The first due time after `instant`, or None."""
        known, due = self._known
        if known <= instant < due:
            return due
        due = self._find_next(instant)
        if due is not None:
            self._known = instant, due
        return due

    def _find_next(self, instant):
        after, span = (max(int(instant // 1), self.first - 1),
                       self.window.every * self.window.repeats)
        following = self._next_firing(after)
        firing = self._next_firing(after - span - 1) if span else following
        while firing is not None and firing <= after:
            again = self._next_step(firing, self.window.every, after, firing + span)
            if again is not None and (following is None or again < following):
                following = again
            firing = self._next_firing(firing)
        return following

    def count(self, after, until):
        """How many due times there are in (after, until]."""
        after, until = max(after, self.first - 1), min(until, self.last)
        every, span = self.window.every, self.window.every * self.window.repeats
        if not span:
            return self._count_firings(after, until)
        count, shared, reach = 0, set(), -1
        firing = self._next_firing(after - span - 1)
        while firing is not None and firing <= until:
            following = self._next_firing(firing)
            if firing > reach and (following is None or following > firing + span):
                count += (firing > after) + self._count_steps(firing, every, max(after, firing),
                                                              firing + span, until)
            else:  # overlapping repetitions: an instant that two of them share counts once
                again = firing
                while again is not None and again <= until:
                    shared.add(again)
                    again = self._next_step(firing, every, max(again, after), firing + span)
            firing, reach = following, max(reach, firing + span)
        return count + sum(instant > after for instant in shared)

    def last_until(self, after, until):
        """The newest due time in (after, until], or None. Found by halving with count()."""
        after, until = max(after, self.first - 1), min(until, self.last)
        low, width = until, 2 * DAY
        while not self.count(low, until):
            if low <= after:
                return None
            low, width = max(after, until - width), width * 8
        return _find_first(low, until, lambda instant: not self.count(instant, until))

    def notes(self, due):
        """Short texts about a due time for the preview:
        what the zone's changes of offset mean for it."""
        start, end, offset, before = self.zone.get_piece(due)
        local, missing = due + offset, self._find_missing(due)
        if self.rule.step:
            return []
        notes = [] if missing is None else ["after gap %s does not exist" % format_clock(missing)]
        if local < start + before:
            notes.append("second of two %s" % format_clock(local))
        elif local >= end + self.zone.get_piece(end)[2]:
            notes.append("first of two %s" % format_clock(local))
        return notes

    def excluded_between(self, after, until, limit=100):
        """[(instant, reason, text)] of at most `limit` due times in (after, until] that the rule
        alone would have.

        The reason is window, gap or fold. What the window takes from repetitions is not listed.
        """
        return list(itertools.islice(self.iter_excluded(after, until), limit))

    def iter_excluded(self, after, until):
        """excluded_between, one by one and without a limit."""
        bare = self._bare()
        for instant in self._iter_lost(bare, max(after, -1), min(until, bare.last)):
            yield (instant,) + self._find_loss(bare, instant)

    def next_excluded(self, after, before):
        """The first of excluded_between in (after, before), where no due time lies, or None."""
        if self.window[:7] == OPEN_WINDOW[:7] and self.first <= after:
            start, end, offset, earlier = self.zone.get_piece(after)
            if self.rule.step or before <= end and after >= start + max(0, earlier - offset):
                return None             # nothing is but in a fold
        instant = self._bare()._next_firing(max(after, -1))
        return instant if instant is not None and instant < before else None

    def excluded_spans(self, after, until):
        """excluded_between as [(first, last, count, reason, text)],
        those that follow each other as one.

        Many are told as few: after the first MAX_SPANS the rest is one,
        with the reason of its first.
        """
        spans, bare = [], self._bare()
        for instant, reason, text in self.excluded_between(after, until, MAX_SPANS):
            if spans and spans[-1][3] == reason:
                spans[-1] = spans[-1][:1] + (instant, spans[-1][2] + 1) + spans[-1][3:]
            else:
                spans.append((instant, instant, 1, reason, text))
        if sum(span[2] for span in spans) == MAX_SPANS:
            def count(after):
                return bare._count_firings(after, until) - self._count_firings(after, until)
            first, last, have, reason, text = spans.pop()
            have += count(last)
            spans.append((first, _find_first(last - 1, until, lambda instant: not count(instant)),
                          have, reason, text))
        return spans

    def _bare(self):
        """The rule alone."""
        return Timetable(self.rule, self.zone, BARE_WINDOW, anchor=self.anchor)

    def _iter_lost(self, bare, after, until):
        """Due times of `bare` in (after, until] that are none here; halves where both have some."""
        have = self._count_firings(after, until)
        if not have:
            instant = bare._next_firing(after)
            while instant is not None and instant <= until:
                yield instant
                instant = bare._next_firing(instant)
        elif have != bare._count_firings(after, until):
            yield from self._iter_lost(bare, after, (after + until) // 2)
            yield from self._iter_lost(bare, (after + until) // 2, until)

    def _find_loss(self, bare, instant):
        if not self.first <= instant <= self.last:
            return "window", "before from" if instant < self.first else "after to"
        local, missing = instant + self.zone.get_piece(instant)[2], bare._find_missing(instant)
        text = self.window.find_reason(local if missing is None else missing)
        if text:
            return "window", text
        if missing is not None:
            return "gap", "%s does not exist" % format_clock(missing)
        return "fold", "second of two %s" % format_clock(local)

    # A firing is a due time that is no repetition.

    def _next_firing(self, after):
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
        found = self.window.next_day(self.rule.days, day)
        if found == day:
            place = self.times.count_before(second)
            if place < self.times.size:
                return day * DAY + self.times.get_nth(place)
            found = self.window.next_day(self.rule.days, day + 1)
        return None if found is None else found * DAY + self.times.get_nth(0)

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


def find_jitter(name, due, jitter_s, timetable=None):
    """Seconds 0..jitter_s by which a schedule's due time is delayed, never up to its next: a hash,
    the same on every host and start."""
    following = timetable.next_after(due) if timetable and jitter_s else None
    most = jitter_s if following is None else min(jitter_s, following - int(due) - 1)
    digest = hashlib.sha256(("%s@%d" % (name, due)).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % (most + 1)
