"""The due times of a rule in its window and zone: next, last, count, and what is excluded."""
import functools
import itertools
import math

from ..base.digests import sha256
from ..base.errors import CalendarError
from .days import DAY, LAST_INSTANT, MAX_SPANS, MOVING_FIELDS, WINDOW_FIELDS, _find_first, find_zone
from .firings import BARE_WINDOW, Firings, OPEN_WINDOW
from .moments import parse_moment
from .rules import parse_rule
from .windows import _join, _parse_window, _read, format_clock


def make_timetable(rule, zone_name="", options=None, calendars=None):
    """The Timetable of a schedule. Raises CalendarError.

    rule: its text; zone_name: for find_zone; options: a mapping that may hold, among others, from,
    to and WINDOW_FIELDS; calendars: name -> dates (text or list), for exclude_dates.
    """
    zone = find_zone(zone_name)
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


class Timetable(Firings):
    """When a schedule is due: the Firings of its rule, each with its repetitions. Immutable."""

    __slots__ = ("_known",)

    def __init__(self, rule, zone, window, first=0, last=LAST_INSTANT, anchor=None):
        super().__init__(rule, zone, window, first, last, anchor)
        self._known = (0, 0)        # an instant and its next due time

    def next_after(self, instant):
        """The first due time after `instant`, or None."""
        begin, due = self._known
        if begin <= instant < due:
            return due
        due = self._find_next(instant)
        if due is not None:
            self._known = instant, due
        return due

    def _find_next(self, instant):
        """next_after by looking: the next firing, or a repetition of one that began before."""
        after, span = (max(int(instant // 1), self.first - 1),
                       self.window.every * self.window.repeats)
        following = self._next_firing(after)
        firing = self._next_firing(after - span - 1) if span else following
        while firing is not None and firing <= after:
            again = self._next_step(firing, self.window.every, after, firing + span)
            if again is not None and (following is None or again < following):
                following = again
                if again == after + 1:
                    break               # of many firings that overlap, none has an earlier one
            firing = self._next_firing(firing)
        return following

    def count(self, after, until):
        """How many due times there are in (after, until]."""
        after, until = max(after, self.first - 1), min(until, self.last)
        every, span = self.window.every, self.window.every * self.window.repeats
        if not span:
            return self._count_firings(after, until)
        # Repetitions of several firings meet where these are a multiple of `every` apart: up to
        # where those of each remainder are counted. An instant that two share counts once.
        count, counted = 0, {}
        firing = self._next_firing(after - span - 1)
        while firing is not None and firing <= until:
            upto = counted.get(firing % every, -1)
            is_repetition = firing <= upto and self._count_steps(firing, every, firing - 1, firing)
            if firing > after and not is_repetition:
                count += 1
            count += self._count_steps(firing, every, max(after, firing, upto), firing + span,
                                       until)
            counted[firing % every] = max(upto, firing + span)
            firing = self._next_firing(firing)
        return count

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
        """excluded_between, one by one and without a limit. To count over thousands of years takes
        long, so it goes from one stretch to the next, each twice as long."""
        bare, after, width = self._bare(), max(after, -1), 32 * DAY
        until = min(until, bare.last)
        while after < until:
            upto = min(after + width, until)
            for instant in self._iter_lost(bare, after, upto):
                yield (instant,) + self._find_loss(bare, instant)
            after, width = upto, 2 * width

    def next_excluded(self, after, before):
        """The first of excluded_between in (after, before), where no due time lies, or None."""
        is_open = self.window is OPEN_WINDOW or self.window[:7] == OPEN_WINDOW[:7]
        if is_open and self.first <= after:
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


def find_jitter(name, due, jitter_s, timetable=None):
    """Seconds 0..jitter_s by which a schedule's due time is delayed, never up to its next: a hash,
    the same on every host and start."""
    following = timetable.next_after(due) if timetable and jitter_s else None
    most = jitter_s if following is None else min(jitter_s, following - int(due) - 1)
    digest = sha256(("%s@%d" % (name, due)).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % (most + 1)
