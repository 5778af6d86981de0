"""Section 12 without a thread, the clock in the test's hand; what a repository decides of a due time; and both
together over holds, steps of the clock, crashes and starts, against a reference that looks at every second."""
import bisect
import collections
import itertools
import json
import logging
import os
import random
import sqlite3
import time
from contextlib import closing

import pytest

import agent
from agent import (DONE, DOWN, ERROR, EXCLUDED_S, FAILED, LATE, MAX_SPANS, SKIPPED, STARTED, STOPPED, Definitions,
                   Entry, Hold, Missed, Schedule, Scheduler, Span, StoredSchedule, WorkRepository, find_jitter, from_text,
                   make_timetable, to_text)
from conftest import turns_of, wait_for

NOON = 1780315200               # 2026-06-01T12:00:00Z, a Monday
HOUR, DAY = 3600, 86400
Owner = collections.namedtuple("Owner", "id")
HELD = Hold("", "me", NOON, None)


class FakeClock:
    """A clock that stands still until the test moves it; step() moves the time of day alone."""

    def __init__(self, now=NOON):
        self.time, self.steady = float(now), 5000.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.steady

    def move(self, seconds):
        self.time += seconds
        self.steady += seconds

    def step(self, seconds):
        self.time += seconds


def brief(span):
    """A due time that is to run, or (first, last, count, reason) of those that are not; seconds after noon."""
    if not span.reason:
        assert (span.first, span.count) == (span.last, 1)
        return span.first - NOON
    return span.first - NOON, span.last - NOON, span.count, span.reason


def make_entry(rule, decided=0, since=0, why=DOWN, misfire="once", grace=None, jitter=0, name="S", revision=1,
               hold=None, repository=1, zone="UTC", **options):
    """An Entry; times in seconds after noon, options of the window by keyword (from_ for from)."""
    options = {key.rstrip("_"): value for key, value in options.items()}
    timetable = make_timetable(rule, zone, options) if rule is not None else None
    policy = {"misfire": misfire, "grace": grace, "jitter": jitter}
    schedule = Schedule(name, "AGENT", "J", "-1", "GLOBAL", rule or "", zone, True, {}, policy)
    stored = StoredSchedule(schedule, revision, NOON + decided, None, hold, timetable)
    return Entry(Owner(repository), stored, Missed(NOON + since, *why))


# -- what becomes of due times: Entry.judge --------------------------------------------

def judged(entry, now, since=None, why=DOWN):
    """(up to where all is decided, what becomes of it), in seconds after noon."""
    upto, spans = entry.judge(NOON + now, entry.missed if since is None else Missed(NOON + since, *why))
    for span in spans:
        assert not span.reason or span.planned is None
    return upto - NOON, [brief(span) for span in spans]


@pytest.mark.parametrize("rule, decided, since, now, options, upto, expected", [
    # not missed: each on its own, however late the tick
    ("every 10s", 0, 0, 9.9, {}, 0, []),
    ("every 10s", 0, 0, 10, {}, 10, [10]),
    ("every 10s", 0, 0, 45, {}, 40, [10, 20, 30, 40]),
    ("every 10s", 0.4, 0.4, 45, {}, 40, [10, 20, 30, 40]),
    ("every 1d", 0, 0, 3 * DAY, {}, 2.5 * DAY, [0.5 * DAY, 1.5 * DAY, 2.5 * DAY]),
    ("every 10s", 0, 0, 45, {"misfire": "skip"}, 40, [10, 20, 30, 40]),
    ("every 10s", 0, 0, 45, {"grace": 1}, 40, [10, 20, 30, 40]),
    # missed: the newest
    ("every 10s", 0, 45, 45, {}, 40, [(10, 30, 3, "misfire"), 40]),
    ("every 10s", 0, 40, 45, {}, 40, [(10, 30, 3, "misfire"), 40]),
    ("every 10s", 0, 39.9, 45, {}, 40, [(10, 20, 2, "misfire"), 30, 40]),
    ("every 10s", 0, 19.9, 45, {}, 40, [10, 20, 30, 40]),
    ("every 10s", 0, 29.9, 45, {}, 40, [(10, 10, 1, "misfire"), 20, 30, 40]),
    ("every 10s", 0, 60, 45, {}, 40, [(10, 30, 3, "misfire"), 40]),         # the clock went back since
    ("daily at 02:00", -DAY, 0, 0, {}, -10 * HOUR, [-10 * HOUR]),
    ("at 2020-01-01 00:00", -10 * 366 * DAY, 0, 0, {}, -202478400, [-202478400]),   # however old
    # .. within its grace
    ("daily at 02:00", -DAY, 0, 0, {"grace": 10 * HOUR}, -10 * HOUR, [-10 * HOUR]),
    ("daily at 02:00", -DAY, 0, 0, {"grace": 10 * HOUR - 1}, -10 * HOUR, [(-10 * HOUR, -10 * HOUR, 1, "misfire")]),
    ("every 10s", 0, 35, 35.5, {"grace": 5}, 30, [(10, 30, 3, "misfire")]),
    ("every 10s", 0, 35, 35.5, {"grace": 5.5}, 30, [(10, 20, 2, "misfire"), 30]),
    # none
    ("every 10s", 0, 45, 45, {"misfire": "skip"}, 40, [(10, 40, 4, "misfire")]),
    ("every 10s", 0, 25, 45, {"misfire": "skip"}, 40, [(10, 20, 2, "misfire"), 30, 40]),
    ("every 10s", 0, 25, 45, {"misfire": "skip", "grace": 100}, 40, [(10, 20, 2, "misfire"), 30, 40]),
    # all, within a day or what grace says, at most 100
    ("every 10s", 0, 45, 45, {"misfire": "all"}, 40, [10, 20, 30, 40]),
    ("every 10s", 0, 35, 35, {"misfire": "all", "grace": 15}, 30, [(10, 10, 1, "misfire"), 20, 30]),
    ("every 10s", 0, 35, 35.5, {"misfire": "all", "grace": 15}, 30, [(10, 20, 2, "misfire"), 30]),
    ("every 10s", 0, 35, 35, {"misfire": "all", "grace": 4}, 30, [(10, 30, 3, "misfire")]),
    ("every 10s", 0, 35, 55, {"misfire": "all", "grace": 4}, 50, [(10, 30, 3, "misfire"), 40, 50]),
    ("every 6h", -3 * DAY, 0, 0, {"misfire": "all"}, 0,
     [(-66 * HOUR, -30 * HOUR, 7, "misfire"), -24 * HOUR, -18 * HOUR, -12 * HOUR, -6 * HOUR, 0]),
    ("every 6h", -3 * DAY, 0, 0, {"misfire": "all", "grace": 2 * DAY}, 0,
     [(-66 * HOUR, -54 * HOUR, 3, "misfire")] + [hour * HOUR for hour in range(-48, 1, 6)]),
    ("every 1s", -1000, 0, 0, {"misfire": "all"}, 0, [(-999, -100, 900, "misfire")] + list(range(-99, 1))),
    ("every 1s", -100, 0, 0, {"misfire": "all"}, 0, list(range(-99, 1))),
    ("every 1s", -101, 0, 0, {"misfire": "all"}, 0, [(-100, -100, 1, "misfire")] + list(range(-99, 1))),
    ("daily at 02:00", -30 * DAY, 2 * DAY, 2 * DAY, {"misfire": "all", "grace": HOUR}, 38 * HOUR,
     [(-706 * HOUR, 38 * HOUR, 32, "misfire")]),
    # what the window excludes
    ("every 1h", 0, 0, 3.5 * HOUR, {"hours": "12:00-14:00"}, 3 * HOUR,
     [1 * HOUR, 2 * HOUR, (3 * HOUR, 3 * HOUR, 1, "window")]),
    ("every 1h", 0, 0, 10.5 * HOUR, {"hours": "12:00-14:00"}, 10 * HOUR,
     [1 * HOUR, 2 * HOUR, (3 * HOUR, 10 * HOUR, 8, "window")]),
    ("every 1h", 10 * HOUR, 10 * HOUR, 25 * HOUR, {"hours": "12:00-14:00"}, 25 * HOUR,
     [(11 * HOUR, 23 * HOUR, 13, "window"), 24 * HOUR, 25 * HOUR]),
    ("every 1h", 0, 24.5 * HOUR, 24.5 * HOUR, {"hours": "12:00-14:00"}, 24 * HOUR,
     [(1 * HOUR, 2 * HOUR, 2, "misfire"), (3 * HOUR, 23 * HOUR, 21, "window"), 24 * HOUR]),
    ("every 1h", 0, 25.5 * HOUR, 25.5 * HOUR, {"hours": "12:00-14:00", "misfire": "skip"}, 25 * HOUR,
     [(1 * HOUR, 25 * HOUR, 4, "misfire"), (3 * HOUR, 23 * HOUR, 21, "window")]),
    ("every 1h", 0, 27.5 * HOUR, 27.5 * HOUR, {"hours": "12:00-14:00", "misfire": "all"}, 27 * HOUR,
     [(1 * HOUR, 3 * HOUR - 3600, 2, "misfire"), (3 * HOUR, 23 * HOUR, 21, "window"), 24 * HOUR, 25 * HOUR, 26 * HOUR,
      (27 * HOUR, 27 * HOUR, 1, "window")]),
    ("every 10s", 0, 0, 45, {"from_": "2026-06-01 12:00:25"}, 45, [(5, 15, 2, "window"), 25, 35, 45]),
    ("daily at 12:00", 0, 0, 5 * DAY, {"exclude_dates": "2026-06-03,2026-06-05"}, 5 * DAY,
     [1 * DAY, (2 * DAY, 2 * DAY, 1, "window"), 3 * DAY, (4 * DAY, 4 * DAY, 1, "window"), 5 * DAY]),
    # the last ones that the window excludes, when nothing is due any more
    ("daily at 12:00", 0, 0, 5 * DAY, {"exclude_weekdays": "thu", "to": "2026-06-04"}, 3 * DAY,
     [1 * DAY, 2 * DAY, (3 * DAY, 3 * DAY, 1, "window")]),
    ("at 2026-06-02 12:00", 0, 0, 2 * DAY, {"exclude_weekdays": "tue"}, 1 * DAY, [(1 * DAY, 1 * DAY, 1, "window")]),
    ("at 2026-06-02 12:00", 0, 0, DAY - 1, {"exclude_weekdays": "tue"}, 0, []),
    ("daily at 12:00", 0, 0, 5 * DAY, {"exclude_weekdays": "thu", "to": "2026-06-04 12:00"}, 3 * DAY,
     [1 * DAY, 2 * DAY, (3 * DAY, 3 * DAY, 1, "window")]),
    ("daily at 12:00", 0, 0, 5 * DAY, {"to": "2026-06-03"}, 2 * DAY, [1 * DAY, 2 * DAY]),     # it is over
    ("startup", 0, 100, 100, {}, 0, []),
])
def test_judge(rule, decided, since, now, options, upto, expected):
    said, spans = judged(make_entry(rule, decided, since, **options), now)
    assert (spans, said) == (expected, upto)


def test_the_reason_and_its_words_are_handed_through():
    for why in (DOWN, agent.AWAY, agent.ON_HOLD, ("misfire", "the clock stepped forward by 5.0 s")):
        _, spans = make_entry("every 10s").judge(NOON + 45, Missed(NOON + 25, *why))
        assert spans[0] == Span(NOON + 10, NOON + 10, 1, *why)
        assert [brief(span) for span in spans[1:]] == [20, 30, 40]


def test_judge_asked_twice_says_the_same():
    entry = make_entry("every 10s", since=25)
    assert judged(entry, 45) == judged(entry, 45)


def test_gap_and_fold_of_a_zone(monkeypatch):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        spring, autumn = 1774746000 - NOON, 1792890000 - NOON     # 2026-03-29 and 2026-10-25, 01:00 UTC
        entry = make_entry("daily at 02:30", spring - DAY, zone="", gap="skip")
        assert judged(entry, spring + 2 * DAY, since=-10 ** 9)[1] == [
            spring - DAY + 0.5 * HOUR, (spring, spring, 1, "gap"), spring + DAY - 0.5 * HOUR,
            spring + 2 * DAY - 0.5 * HOUR]
        entry = make_entry("daily at 02:30", spring - DAY, zone="")
        assert judged(entry, spring + DAY, since=-10 ** 9)[1] == [
            spring - DAY + 0.5 * HOUR, spring, spring + DAY - 0.5 * HOUR]
        first, second = autumn - 0.5 * HOUR, autumn + 0.5 * HOUR
        entry = make_entry("daily at 02:30", autumn - HOUR, zone="")
        assert judged(entry, autumn + HOUR, since=-10 ** 9) == (second, [first, (second, second, 1, "fold")])
        assert judged(entry, second + 2 * DAY, since=-10 ** 9)[1] == [
            first, (second, second, 1, "fold"), second + DAY, second + 2 * DAY]
        entry = make_entry("daily at 02:30", autumn - HOUR, zone="", fold="both")
        assert judged(entry, autumn + HOUR, since=-10 ** 9)[1] == [first, second]
        entry = make_entry("hourly at 30:00", autumn - HOUR, zone="")
        assert judged(entry, autumn + HOUR, since=-10 ** 9)[1] == [first, second]
    finally:
        monkeypatch.undo()
        time.tzset()


def late(due, jitter, name="S"):
    return find_jitter(name, NOON + due, jitter)


def find_late(low, high, jitter=600, step=1000):
    """A due time (a multiple of `step`) of S whose jitter lies in low..high."""
    return next(due for due in range(step - NOON % step, 10 ** 6, step) if low <= late(due, jitter) <= high)


def test_jitter_moves_the_event_and_not_the_due_time():
    due = find_late(300, 500)
    entry = make_entry("every 1000s", due - 1, jitter=600)
    planned = due + late(due, 600)
    assert entry.find_event() == NOON + planned == entry.plan(NOON + due)
    assert judged(entry, planned - 1) == (due - 1, [])
    upto, spans = entry.judge(NOON + planned, Missed(0, *DOWN))
    assert (upto, spans) == (NOON + due, [Span(NOON + due, NOON + due, 1, "", "", NOON + planned)])
    assert make_entry("every 1000s", due - 1).judge(NOON + due, Missed(0, *DOWN))[1][0].planned is None


@pytest.mark.parametrize("misfire", ["once", "all", "skip"])
def test_what_its_jitter_still_delays_was_not_missed(misfire):
    due = find_late(300, 500)
    entry = make_entry("every 1000s", due - 3001, jitter=600, misfire=misfire)
    planned = due + late(due, 600)
    upto, spans = judged(entry, due + 10, since=due + 5)
    assert (upto, spans) == (due - 1000, {
        "once": [(due - 3000, due - 2000, 2, "misfire"), due - 1000], "skip": [(due - 3000, due - 1000, 3, "misfire")],
        "all": [due - 3000, due - 2000, due - 1000]}[misfire])
    entry.decided = NOON + upto
    assert entry.find_event() == NOON + planned
    assert judged(entry, planned - 1, since=due + 5) == (due - 1000, [])
    assert judged(entry, planned, since=due + 5) == (due, [due])
    assert judged(entry, planned + 10, since=planned + 5) == (due, [due] if misfire != "skip" else [(due, due, 1, "misfire")])


@pytest.mark.parametrize("misfire", ["once", "all"])
def test_grace_counts_from_the_planned_time(misfire):
    due = find_late(300, 500)
    planned = due + late(due, 600)
    entry = make_entry("every 1000s", due - 1, jitter=600, misfire=misfire, grace=100)
    assert judged(entry, planned + 90, since=planned + 5) == (due, [due])
    assert judged(entry, due + 900, since=planned + 5) == (due, [(due, due, 1, "misfire")])
    assert judged(entry, due + 900, since=planned - 5) == (due, [due])


def test_all_with_jitter_makes_each_with_its_planned_time():
    due = find_late(300, 500)
    entry = make_entry("every 1000s", due - 3001, jitter=600, misfire="all")
    _, spans = entry.judge(NOON + due + 600, Missed(NOON + due + 600, *DOWN))
    assert [(span.first, span.planned) for span in spans] == [
        (NOON + each, NOON + each + late(each, 600)) for each in range(due - 3000, due + 1, 1000)]


def test_a_jitter_of_more_than_the_interval_delays_never_up_to_the_next_due_time():
    entry = make_entry("every 10s", jitter=600)
    planned = [entry.plan(NOON + due) - NOON for due in range(10, 2001, 10)]
    assert all(due <= at < due + 10 for due, at in zip(range(10, 2001, 10), planned))
    assert len({at % 10 for at in planned}) == 10       # spread all over
    assert judged(entry, planned[0] - 1, since=-1) == (0, [])
    assert judged(entry, planned[0], since=-1) == (10, [10])
    assert judged(entry, planned[2], since=-1) == (30, [10, 20, 30])


def test_a_late_tick_hands_over_a_batch_at_a_time():
    entry = make_entry("every 1s")
    upto, spans = judged(entry, 3000)
    assert (upto, spans) == (agent.MAX_BATCH, list(range(1, agent.MAX_BATCH + 1)))
    entry = make_entry("every 1s", hours="12:00-12:10")
    upto, spans = judged(entry, 2 * DAY)
    assert upto == agent.MAX_BATCH


@pytest.mark.parametrize("rule, options", [
    ("every 1s", {}), ("every 1s", {"hours": "08:00-18:00"}), ("cron * * * * * *", {"hours": "08:00-18:00"}),
    ("every 1s", {"exclude_weekdays": "sat,sun", "hours": "22:00-06:00"}),
    ("every 1s", {"exclude_dates": ["2025-%02d-%02d" % (month, day) for month in range(1, 13) for day in range(1, 29, 3)]}),
    ("cron * * * * * *", {"gap": "skip", "zone": ""}), ("every 7s", {"hours": "00:00-00:00"}),
    ("cron */2 * * * * *", {"exclude_monthdays": "last,1-7"}), ("every 1s", {"exclude_dates": "2000-01-01..2026-05-31"}),
    ("every 1s", {"from_": "2026-06-01 12:00:00"}), ("hourly at 00:00,30:00", {"hours": "00:00-00:10"}),
])
@pytest.mark.parametrize("misfire", ["once", "skip", "all"])
def test_a_year_of_missed_and_excluded_seconds_is_cheap(rule, options, misfire):
    begin = -366 * DAY
    entry = make_entry(rule, begin, misfire=misfire, **options)
    (upto, spans), turns = turns_of(lambda: entry.judge(NOON, Missed(NOON, *DOWN)))
    assert len(spans) <= MAX_SPANS + agent.MAX_MISSED + MAX_SPANS and turns < 366 * DAY
    bare = make_timetable(rule, options.get("zone", "UTC"))
    assert sum(span.count for span in spans) == bare.count(NOON + begin, upto)
    entry.decided = upto
    event, turns = turns_of(entry.find_event)
    assert turns < 366 * DAY and (event is None or event > NOON - EXCLUDED_S)


def test_a_year_of_excluded_seconds_while_nothing_is_due_is_cheap():
    entry = make_entry("every 1s", -366 * DAY, exclude_dates="2000-01-01..2030-01-01")
    (upto, spans), turns = turns_of(lambda: judged(entry, 0))
    assert (upto, spans) == (0, [(-366 * DAY + 1, 0, 366 * DAY, "window")]) and turns < 366 * DAY


class Reference:
    """Every second of some hours after noon, and what a slow and simple judge would make of it."""

    def __init__(self, rng, length=4000):
        self.step = rng.choice((1, 7, 10, 60, 61, 300))
        self.rule, self.options, checks = "every %ds" % self.step, {}, []
        if rng.random() < 0.4:
            low, high = sorted(rng.sample(range(0, 60), 2))
            inside = rng.random() < 0.5     # over midnight when not
            self.options["hours"] = "12:%02d-12:%02d" % ((low, high) if inside else (high, low))
            checks.append(lambda s: (low * 60 <= s <= high * 60) if inside else (s >= high * 60 or s <= low * 60))
        if rng.random() < 0.3:
            begin = rng.randrange(0, 2000)
            self.options["from_"] = to_text(NOON + begin)[:19]
            checks.append(lambda s: s >= begin)
        self.first = begin if "from_" in self.options else 0
        if rng.random() < 0.3:
            end = self.first + rng.randrange(1, 3000)
            self.options["to"] = to_text(NOON + end)[:19]
            checks.append(lambda s: s <= end)
        self.last = end if "to" in self.options else length
        anchor = self.first if "from_" in self.options else -NOON
        bare = [s for s in range(-100, length + 1) if (s - anchor) % self.step == 0]
        self.due = [s for s in bare if all(check(s) for check in checks)]
        self.excluded = sorted(set(bare).difference(self.due).difference(range(self.last + 1, length + 1)))

    def judge(self, decided, since, now, misfire, grace, jitter):
        """(upto, spans) as judged() gives them."""
        def plan(due):
            following = next((s for s in self.due if s > due), due + jitter + 1)
            return due + late(due, min(jitter, following - due - 1))
        due = [s for s in self.due if s > decided]
        missed = list(itertools.takewhile(lambda s: plan(s) <= min(since, now), due))
        runs, spans, cursor = [], [], int(decided // 1)
        if missed and misfire == "once" and (grace is None or now - plan(missed[-1]) <= grace):
            runs = missed[-1:]
        if missed and misfire == "all":
            runs = [s for s in missed if now - s <= (DAY if grace is None else grace) + jitter][-100:]
        skipped = missed[:missed.index(runs[0])] if runs else missed
        if skipped:
            spans.append((skipped[0], skipped[-1], len(skipped), "misfire"))
        if missed:
            spans += self.list_excluded(cursor, missed[-1])
            cursor = missed[-1]
        spans = sorted(spans + runs, key=lambda span: span if isinstance(span, int) else span[0])
        coming = collections.deque(s for s in due if s > cursor)
        while coming and plan(coming[0]) <= now:
            spans += self.list_excluded(cursor, coming[0]) + [coming[0]]
            cursor = coming.popleft()
        until = min(list(coming)[:1] + [int(now // 1) + 1])
        excluded = self.list_excluded(cursor, until)
        return excluded[-1][1] if excluded else cursor, spans + excluded

    def list_excluded(self, after, before):
        """What is excluded in between; that is told as one, whatever is due in between."""
        found = self.excluded[bisect.bisect_right(self.excluded, after):bisect.bisect_left(self.excluded, before)]
        return [(found[0], found[-1], len(found), "window")] if found else []


def test_judge_against_every_second():
    rng = random.Random(12)
    for _ in range(400):
        reference = Reference(rng)
        misfire = rng.choice(("once", "skip", "all"))
        grace = rng.choice((None, 0.5, 30, 400, 3000))
        jitter = rng.choice((0, 0, 5, 700))
        for _ in range(4):
            decided = rng.choice((0, 0.5, rng.randrange(0, 3000)))
            now = decided + rng.choice((0, 0.25, 1, 30.5, rng.randrange(0, 400)))
            since = rng.choice((0, decided, now, now - 1, now + 100, rng.uniform(decided, now)))
            entry = make_entry(reference.rule, decided, since, misfire=misfire, grace=grace, jitter=jitter,
                               **reference.options)
            expected = reference.judge(decided, since, now, misfire, grace, jitter)
            said = (reference.rule, reference.options, decided, since, now, misfire, grace, jitter)
            assert judged(entry, now) == expected, said
            entry.decided = NOON + expected[0]
            event = entry.find_event()
            assert event is None or event > NOON + now, said


# -- the scheduler ---------------------------------------------------------------------

class Decisions:
    """A Scheduler and what it decided: [(name, brief)], each written down at once."""

    def __init__(self, is_prompt=True):
        self.clock, self.made, self.steps, self.is_prompt = FakeClock(), [], [], is_prompt
        self.scheduler = Scheduler(self.clock, self._decide, self.steps.append)

    def _decide(self, entry, upto, spans):
        self.made += [(entry.name, brief(span)) for span in spans]
        if self.is_prompt:
            self.scheduler.decided(entry, upto)

    def put(self, rule, name="S", **keywords):
        """Puts an Entry in, loaded now; times in seconds after noon."""
        keywords.setdefault("decided", self.clock.time - NOON)
        keywords.setdefault("since", self.clock.time - NOON)
        entry = make_entry(rule, name=name, **keywords)
        self.scheduler.put(entry)
        return entry

    def at(self, seconds):
        """Moves the clock to so many seconds after noon -> (what was decided, what tick said)."""
        self.clock.move(NOON + seconds - self.clock.time)
        return self.tick()

    def tick(self):
        before = len(self.made)
        left = self.scheduler.tick()
        return self.made[before:], left

    def of(self, name="S"):
        return [made for who, made in self.made if who == name]

    @property
    def event_count(self):
        return len(self.scheduler._events.queue)


@pytest.fixture
def decisions():
    return Decisions()


def test_nothing_known_nothing_to_wait_for(decisions):
    assert decisions.scheduler.tick() is None


def test_tick_gives_the_seconds_until_the_next(decisions):
    decisions.put("every 90s")
    assert decisions.at(0) == ([], 90)
    assert decisions.at(60.5) == ([], 29.5)
    assert decisions.at(89.999)[0] == []
    assert decisions.at(90) == ([("S", 90)], 90)
    assert decisions.at(180.25) == ([("S", 180)], 89.75)


def test_each_due_time_once(decisions):
    decisions.put("every 1s")
    for tenth in range(0, 100):
        decisions.at(tenth / 10)
    assert decisions.of() == list(range(1, 10))


def test_many_schedules_in_the_order_of_their_due_times(decisions):
    for name, rule in (("C", "daily at 12:00:03"), ("A", "daily at 12:00:01"), ("B", "every 2s")):
        decisions.put(rule, name)
    assert decisions.at(0)[1] == 1
    for second in (1, 2, 3, 4):
        decisions.at(second)
    assert decisions.made == [("A", 1), ("B", 2), ("C", 3), ("B", 4)]


def test_many_due_at_once_are_all_decided_in_one_tick(decisions):
    for number in range(200):
        decisions.put("daily at 12:00:05", "S%03d" % number)
    made, left = decisions.at(5)
    assert sorted(name for name, _ in made) == ["S%03d" % n for n in range(200)]
    assert left == 86400


def test_same_name_in_two_repositories_are_two(decisions):
    one, two = decisions.put("every 1s", repository=1), decisions.put("every 1s", repository=2)
    assert one.key != two.key and len(decisions.at(1)[0]) == 2
    assert decisions.scheduler.list_entries(1) == [one]
    decisions.scheduler.remove(one.key)
    assert len(decisions.at(2)[0]) == 1 and decisions.scheduler.find(one.key) is None


def test_one_event_a_schedule(decisions):
    """However far time goes, no schedule piles up events, and none is decided twice."""
    decisions.put("every 1s")
    assert decisions.event_count == 1
    for second in (1, 5, 5, 5, 60):
        decisions.at(second)
        assert decisions.event_count == 1
    assert decisions.of() == list(range(1, 61))


def test_a_late_tick_merges_nothing(decisions):
    """As after SIGSTOP, or on a machine that is slow: the agent was there, each due time is decided."""
    decisions.put("every 1s")
    decisions.at(2000)
    assert decisions.of() == list(range(1, 2001)) and decisions.event_count == 1


def test_missed_at_the_start(decisions):
    decisions.put("every 10s", decided=-95)
    made, left = decisions.at(3)
    assert made == [("S", (-90, -10, 9, "misfire")), ("S", 0)] and left == 7


def test_missed_at_the_start_and_due_before_the_first_tick(decisions):
    decisions.put("every 10s", decided=-15)
    assert decisions.at(25)[0] == [("S", (-10, -10, 1, "misfire")), ("S", 0), ("S", 10), ("S", 20)]


def test_an_at_of_the_past_that_is_decided_never_comes_up(decisions):
    decisions.put("at 2026-06-01 11:00")
    assert decisions.at(100) == ([], None)


def test_an_at_missed_while_down_comes_up_once(decisions):
    decisions.put("at 2026-06-01 11:00", decided=-7200)
    assert decisions.at(0) == ([("S", -3600)], None)
    assert decisions.at(100000)[0] == []


def test_startup_never_comes_up_by_time(decisions):
    decisions.put("startup", decided=-7200)
    assert decisions.at(100000) == ([], None)


def test_a_change_is_recognised_when_the_event_comes_up(decisions):
    decisions.put("every 10s")
    decisions.put("every 15s", revision=2)
    for second in (10, 15, 20, 30):
        decisions.at(second)
    assert decisions.of() == [15, 30]


def test_a_change_to_the_same_due_time_fires_once(decisions):
    decisions.put("every 10s")
    decisions.put("daily at 12:00:10", revision=2)
    assert len(decisions.at(10)[0]) == 1


def test_removed_and_without_timetable_fire_no_more(decisions):
    entry = decisions.put("every 10s")
    decisions.scheduler.remove(entry.key)
    off = decisions.put(None, "OFF")
    assert decisions.at(100) == ([], None) and off.due is None
    assert decisions.scheduler.list_entries(1) == [off]
    decisions.scheduler.remove((1, "NO_SUCH"))


def test_removed_and_put_in_again(decisions):
    entry = decisions.put("every 10s")
    decisions.scheduler.remove(entry.key)
    decisions.put("every 10s", revision=2)
    assert len(decisions.at(10)[0]) == 1


def test_the_next_is_armed_only_when_the_last_is_written():
    decisions = Decisions(is_prompt=False)
    entry = decisions.put("every 10s")
    assert decisions.at(10)[0] == [("S", 10)]
    assert decisions.at(40)[0] == []
    decisions.scheduler.decided(entry, NOON + 10)
    assert decisions.at(41)[0] == [("S", 20), ("S", 30), ("S", 40)]


def test_what_came_due_while_a_slow_repository_was_waited_for_was_missed():
    decisions = Decisions(is_prompt=False)
    entry = decisions.put("every 10s")
    decisions.at(10)
    decisions.at(45)
    decisions.scheduler.decided(entry, NOON + 10, was_slow=True)
    assert decisions.at(55)[0] == [("S", (20, 30, 2, "repository")), ("S", 40), ("S", 50)]
    decisions.scheduler.decided(entry, NOON + 50)
    assert decisions.at(65)[0] == [("S", 60)]


def test_what_was_decided_for_an_entry_since_replaced_arms_nothing():
    decisions = Decisions(is_prompt=False)
    old = decisions.put("every 10s")
    decisions.at(10)
    decisions.put("every 30s", revision=2)
    decisions.scheduler.decided(old, NOON + 10)
    assert decisions.at(20)[0] + decisions.at(30)[0] == [("S", 30)]


def test_held_nothing_is_decided_and_the_release_decides_the_rest_once(decisions):
    decisions.put("every 10s")
    decisions.put("every 1h", "LATER")
    decisions.scheduler.hold(True)
    for second in (10, 20, 35):
        assert decisions.at(second)[0] == []
    decisions.scheduler.hold(False)
    assert decisions.at(45)[0] == [("S", (10, 20, 2, "hold")), ("S", 30), ("S", 40)]
    assert decisions.at(50)[0] == [("S", 50)]
    decisions.at(3600)
    assert decisions.of("LATER") == [3600]


@pytest.mark.parametrize("misfire, made", [
    ("skip", [(10, 30, 3, "hold"), 40]), ("all", [10, 20, 30, 40]), ("once", [(10, 20, 2, "hold"), 30, 40])])
def test_a_release_follows_misfire(decisions, misfire, made):
    decisions.put("every 10s", misfire=misfire)
    decisions.scheduler.hold(True)
    decisions.at(35)
    decisions.scheduler.hold(False)
    decisions.at(40)
    assert decisions.of() == made


def test_a_release_of_what_was_not_held_says_nothing(decisions):
    decisions.put("every 10s", misfire="skip")
    decisions.clock.move(25)
    decisions.scheduler.hold(False)
    decisions.tick()
    assert decisions.of() == [10, 20]


def test_held_and_released_before_anything_is_due(decisions):
    decisions.put("every 10s")
    decisions.scheduler.hold(True)
    decisions.scheduler.hold(False)
    assert decisions.at(10)[0] == [("S", 10)] and decisions.event_count == 1


def test_held_twice_and_released_twice(decisions):
    decisions.put("every 10s")
    for is_held in (True, True, False, False):
        decisions.scheduler.hold(is_held)
        decisions.at(decisions.clock.time - NOON + 10)
    assert decisions.of() == [(10, 10, 1, "hold"), 20, 30, 40] and decisions.event_count == 1


def test_what_was_missed_before_a_hold_is_told_as_held(decisions):
    decisions.put("every 10s", decided=-35)
    decisions.scheduler.hold(True)
    decisions.at(25)
    decisions.scheduler.hold(False)
    assert decisions.at(26)[0] == [("S", (-30, 10, 5, "hold")), ("S", 20)]


def test_a_release_while_a_decision_is_written(decisions):
    """It is not asked for again before that."""
    decisions.is_prompt = False
    entry = decisions.put("every 10s")
    decisions.at(10)
    decisions.scheduler.hold(True)
    decisions.at(35)
    decisions.scheduler.hold(False)
    assert decisions.at(36)[0] == [] and decisions.event_count == 0
    decisions.scheduler.decided(entry, NOON + 10)
    decisions.is_prompt = True
    decisions.at(40)
    assert decisions.of() == [10, (20, 20, 1, "hold"), 30, 40] and decisions.event_count == 1


def test_the_hold_of_one_schedule_leaves_the_others(decisions):
    held = decisions.put("every 10s", hold=HELD)
    decisions.put("every 10s", "OTHER")
    for second in (10, 20):
        assert [name for name, _ in decisions.at(second)[0]] == ["OTHER"]
    decisions.put("every 10s", decided=held.decided - NOON, why=agent.ON_HOLD)      # its release
    decisions.at(30)
    assert decisions.of() == [(10, 10, 1, "hold"), 20, 30] and decisions.of("OTHER") == [10, 20, 30]


def test_the_release_of_the_agent_leaves_the_hold_of_a_schedule(decisions):
    decisions.put("every 10s", hold=HELD)
    decisions.scheduler.hold(True)
    decisions.at(10)
    decisions.scheduler.hold(False)
    assert decisions.at(20)[0] == []


# -- steps of the clock

def test_a_clock_set_back_fires_nothing_again(decisions):
    decisions.put("every 10s")
    for second in (10, 20):
        decisions.at(second)
    decisions.clock.step(-121)
    made, left = decisions.at(-100)
    assert made == [] and left == 130 and decisions.steps == [-121]
    assert decisions.at(15)[0] == [] and decisions.at(29)[0] == []
    assert decisions.at(30)[0] == [("S", 30)] and len(decisions.steps) == 1


def test_a_clock_set_forward_counts_as_downtime(decisions):
    decisions.put("every 10s")
    decisions.at(1)
    decisions.clock.step(86400)
    assert decisions.at(86402)[0] == [("S", (10, 86390, 8639, "misfire")), ("S", 86400)]
    assert decisions.steps == [86400]
    assert decisions.at(86425)[0] == [("S", 86410), ("S", 86420)]


def test_the_words_of_a_step(decisions):
    entry, told = decisions.put("every 10s"), []
    decisions.tick()
    decisions.scheduler._decide = lambda entry, upto, spans: told.extend(spans)
    decisions.clock.step(60.25)
    decisions.tick()
    assert told[0] == Span(NOON + 10, NOON + 50, 5, "misfire", "the clock stepped forward by 60.2 s")
    assert entry.due is None


@pytest.mark.parametrize("step, is_noticed", [(0.49, False), (0.51, True), (-0.49, False), (-0.51, True)])
def test_how_small_a_step_is_noticed(decisions, step, is_noticed):
    decisions.tick()
    decisions.clock.step(step)
    decisions.at(decisions.clock.time - NOON + 1)
    assert [round(seconds, 6) for seconds in decisions.steps] == [step] * is_noticed


def test_a_clock_that_is_slewed_has_not_stepped(decisions):
    decisions.put("every 1s")
    for _ in range(100):
        decisions.clock.step(0.4)
        decisions.at(decisions.clock.time - NOON + 1)
    assert decisions.steps == [] and decisions.of() == list(range(1, 141))


def test_a_step_between_two_ticks_is_told_once(decisions):
    for step in (5, -5, 7200):
        decisions.tick()
        decisions.clock.step(step)
        for _ in range(3):
            decisions.at(decisions.clock.time - NOON + 1)
    assert decisions.steps == [5, -5, 7200]


def test_readings_that_were_interrupted_say_nothing(decisions):
    """A pause of the process between the reading of the two clocks is no step of one."""
    decisions.put("every 10s")
    decisions.tick()
    clock, now = decisions.clock, decisions.clock.now
    pauses = iter([30.0])

    def slow():
        value = now()
        clock.move(next(pauses, 0.0))
        return value
    clock.now = slow
    decisions.tick()
    clock.now = now
    decisions.at(45)
    assert decisions.steps == [] and decisions.of() == [10, 20, 30, 40]


def test_after_a_step_back_a_new_schedule_is_not_judged_as_missed(decisions):
    decisions.put("every 10s", "OLD")
    decisions.scheduler.hold(True)
    decisions.at(100)
    decisions.scheduler.hold(False)         # up to here all was missed
    decisions.at(100)
    decisions.clock.step(-50)
    decisions.put("every 10s", "NEW", misfire="skip")
    decisions.tick()
    decisions.at(95)
    assert decisions.of("NEW") == [60, 70, 80, 90]
    assert decisions.of("OLD") == [(10, 90, 9, "hold"), 100]
    decisions.at(110)
    assert decisions.of("OLD")[2:] == [110] and decisions.of("NEW")[4:] == [100, 110]


def test_after_a_step_back_what_was_loaded_before_it_is_not_judged_as_missed(decisions):
    decisions.at(100)
    decisions.put("every 10s", decided=0, misfire="skip")
    decisions.clock.step(-50)
    assert decisions.tick()[0] == [("S", (10, 50, 5, "misfire"))]
    decisions.at(75)
    assert decisions.of() == [(10, 50, 5, "misfire"), 60, 70]


def test_after_a_step_back_what_its_jitter_delays_is_not_judged_as_missed(decisions):
    """The clock is set to before its due time."""
    due = find_late(300, 500)
    decisions.at(due + 10)
    decisions.put("every 1000s", decided=due - 1, misfire="skip", jitter=600)
    decisions.tick()
    decisions.clock.step(-50)
    decisions.tick()
    decisions.at(due + late(due, 600))
    assert decisions.of() == [due]


def test_a_step_forward_while_held(decisions):
    decisions.put("every 10s")
    decisions.scheduler.hold(True)
    decisions.tick()
    decisions.clock.step(100)
    assert decisions.at(105)[0] == []
    decisions.scheduler.hold(False)
    assert decisions.at(115)[0] == [("S", (10, 90, 9, "hold")), ("S", 100), ("S", 110)]


def test_a_step_forward_over_a_jitter_still_to_come():
    decisions = Decisions()
    due = find_late(300, 500)
    planned = due + late(due, 600)
    decisions.put("every 1000s", decided=due - 1, since=due - 1, jitter=600)
    decisions.at(due + 1)
    decisions.clock.step(100)
    decisions.at(due + 102)
    assert decisions.of() == []
    decisions.at(planned)
    assert decisions.of() == [due]


# -- what the window excludes

def test_what_is_excluded_is_recorded_once_a_minute(decisions):
    decisions.put("every 1s", hours="13:00-14:00")
    for second in range(0, 201):
        decisions.at(second)
    spans = decisions.of()
    assert spans == [(1, 1, 1, "window"), (2, 61, 60, "window"), (62, 121, 60, "window"), (122, 181, 60, "window")]
    decisions.at(3601)
    assert decisions.of()[4:] == [(182, 3599, 3418, "window"), 3600, 3601]


def test_what_is_excluded_is_recorded_with_the_next_due_time(decisions):
    decisions.put("every 10s", hours="12:01-14:00")
    for second in range(0, 75):
        decisions.at(second)
    assert decisions.of() == [(10, 10, 1, "window"), (20, 50, 4, "window"), 60, 70]


def test_what_is_excluded_last_is_recorded_too(decisions):
    decisions.put("daily at 12:00", exclude_weekdays="wed,thu", to="2026-06-04")
    for day in (1, 2, 3, 4, 5, 50):
        decisions.at(day * DAY)
    assert decisions.of() == [1 * DAY, (2 * DAY, 2 * DAY, 1, "window"), (3 * DAY, 3 * DAY, 1, "window")]
    assert decisions.event_count == 0


def test_many_excluded_after_another_cost_no_event_each(decisions):
    decisions.put("every 1s", hours="13:00-14:00")
    assert [decisions.at(second)[1] for second in (0, 1, 2, 60)] == [1, 60, 59, 1]


# -- events

def test_replaced_entries_leave_no_events_behind(decisions):
    called = []
    decisions.put("every 1d", "OTHER")
    decisions.scheduler.call_at(NOON + 50, lambda: called.append(1))
    for revision in range(5000):
        decisions.put("every 1h", revision=revision)
        if revision % 100 == 0:
            decisions.tick()
            assert decisions.event_count < 1300
    assert decisions.at(60)[0] == [] and called == [1]
    assert decisions.at(DAY / 2)[0][-1] == ("OTHER", DAY / 2)
    assert decisions.of() == [hour * HOUR for hour in range(1, 13)] and decisions.event_count == 2


def test_removed_and_held_entries_leave_no_events_behind(decisions):
    for number in range(3000):
        entry = decisions.put("every 1h", "S%d" % (number % 7), revision=number, hold=HELD if number % 2 else None)
        if number % 3 == 0:
            decisions.scheduler.remove(entry.key)
        decisions.tick()
        assert decisions.event_count < 1300
    for _ in range(3000):
        decisions.scheduler.hold(True)
        decisions.scheduler.hold(False)
    assert decisions.event_count < 1300


def test_what_is_decided_ahead_of_its_event_leaves_none_behind(decisions):
    entry = decisions.put("every 1h")
    for number in range(3000):
        assert decisions.scheduler.decide_now(entry.key) == NOON
        decisions.put("every 1h")
        if number % 100 == 0:
            decisions.tick()
            assert decisions.event_count < 1300
    decisions.clock.move(HOUR)
    assert decisions.scheduler.decide_now(entry.key) == NOON + HOUR and decisions.of() == [HOUR]
    decisions.at(2 * HOUR)
    assert decisions.of() == [HOUR, 2 * HOUR] and decisions.event_count == 1
    assert decisions.scheduler.decide_now((1, "NO_SUCH")) is None
    decisions.scheduler.hold(True)
    decisions.clock.move(HOUR)
    assert decisions.scheduler.decide_now(entry.key) is None and len(decisions.of()) == 2


def test_call_at(decisions):
    called = []
    decisions.scheduler.call_at(NOON + 5, lambda: called.append(5))
    decisions.scheduler.call_at(NOON + 3, lambda: called.append(3))
    assert decisions.at(0)[1] == 3
    decisions.at(4)
    assert called == [3]
    decisions.at(60)
    assert called == [3, 5]


def test_one_that_fails_costs_the_others_nothing():
    clock, made = FakeClock(), []

    def decide(entry, upto, spans):
        if entry.name == "BAD":
            raise RuntimeError("no")
        made.append(upto)
    scheduler = Scheduler(clock, decide)
    for name in ("BAD", "GOOD"):
        scheduler.put(make_entry("every 10s", name=name))
    clock.move(10)
    for _ in range(2):
        try:
            scheduler.tick()
        except RuntimeError:
            pass
    assert made == [NOON + 10]


def test_stopped_nothing_more_is_decided(decisions):
    decisions.put("every 10s")
    decisions.scheduler.stop()
    assert decisions.at(100)[0] == []
    decisions.scheduler.run()           # returns at once


class Story:
    """A schedule through holds, changes, steps of the clock, slow writing, crashes and starts, at random.

    What stands in for the repository keeps what a real one does: up to where all is decided, and rows.
    """

    def __init__(self, rng):
        self.rng, self.clock, self.reference = rng, FakeClock(), Reference(rng)
        self.decided, self.rows, self.pending = 0, [], []
        self.is_held, self.hold, self.revision, self.is_slow = False, None, 1, False
        self.policy = "once", None, rng.choice((0, 0, 4, 90))
        self.steps = 0
        self.start()

    def start(self):
        """A start of the agent."""
        self.scheduler = Scheduler(self.clock, self.decide)
        self.scheduler.hold(self.is_held)
        self.pending, self.is_slow = [], False
        self.put(self.clock.time - NOON, DOWN)

    def put(self, since, why):
        misfire, grace, jitter = self.policy
        self.scheduler.put(make_entry(self.reference.rule, self.decided, since, why, misfire, grace, jitter,
                                      revision=self.revision, hold=self.hold, **self.reference.options))

    def decide(self, entry, upto, spans):
        self.pending.append((entry, upto, spans))
        if not self.is_slow:
            self.write()

    def write(self, is_told=True):
        """What is pending gets into the file, and the scheduler hears of it unless the agent has gone."""
        for entry, upto, spans in self.pending:
            if entry.revision == self.revision:
                self.rows += [brief(span) for span in spans if span.last - NOON > self.decided]
                self.decided = max(self.decided, upto - NOON)
            if is_told:
                self.scheduler.decided(entry, upto, self.rng.random() < 0.5)
        self.pending = []

    def go_on(self):
        """One thing happens, and time goes on."""
        rng = self.rng
        what = rng.choice(("hold", "release", "hold one", "release one", "set", "slow", "prompt", "start", "kill", "step",
                           "nothing", "nothing", "nothing", "nothing"))
        if what in ("hold", "release"):
            self.is_held = what == "hold"
            self.scheduler.hold(self.is_held)
        elif what in ("hold one", "release one"):
            self.write()                # in the same file, in turn
            was_held, self.hold = self.hold, HELD if what == "hold one" else None
            self.put(self.clock.time - NOON, agent.ON_HOLD if was_held else DOWN)
        elif what == "set":
            self.write()
            before = self.scheduler.find((1, "S"))
            self.policy = rng.choice(("once", "skip", "all")), rng.choice((None, 0, 20, 500)), self.policy[2]
            self.revision += 1
            self.put(before.missed.until - NOON, before.missed[1:])
        elif what in ("slow", "prompt"):
            self.is_slow = what == "slow"
            if not self.is_slow:
                self.write()
        elif what in ("start", "kill"):
            if what == "start" or rng.random() < 0.5:       # a kill comes before the commit or after it
                self.write(is_told=False)
            self.clock.move(rng.choice((0, 1, 100)))
            self.start()
        elif what == "step" and self.steps < 4:
            self.steps += 1
            self.clock.step(rng.choice((-200, -20, -0.7, 0.7, 20, 200)))
        self.clock.move(rng.choice((0.1, 0.9, 1, 3, 17, 70)))
        self.scheduler.tick()

    def finish(self):
        self.write()
        self.is_slow, self.is_held = False, False
        self.scheduler.hold(False)
        self.hold = None
        self.put(self.clock.time - NOON, DOWN)
        for _ in range(3):
            self.clock.move(EXCLUDED_S)
            self.scheduler.tick()

    def check(self):
        """Every due time of the rule is decided, and stands in one row."""
        found, reference = collections.Counter(), self.reference
        for row in self.rows:
            if isinstance(row, int):
                found[row] += 1
                assert row in set(reference.due)
            else:
                first, last, count, reason = row
                kind = reference.excluded if reason == "window" else reference.due
                inside = [s for s in kind if first <= s <= last]
                assert (first, last, count) == (inside[0], inside[-1], len(inside)), row
                found.update(inside)
        now, jitter = self.clock.time - NOON, self.policy[2]
        assert now < 4000
        expected = {s for s in reference.due + reference.excluded if 0 < s <= self.decided}
        assert found == dict.fromkeys(expected, 1)
        left = [s for s in reference.due if self.decided < s < now]
        assert not left or left[0] + late(left[0], jitter) > now
        assert not left or left[0] - now < jitter
        assert not [s for s in reference.excluded if self.decided < s < min(left + [now - EXCLUDED_S - 1])]
        assert len(self.scheduler._events.queue) < 200


@pytest.mark.parametrize("seed", range(60))
def test_at_random_no_due_time_is_lost_or_doubled(seed):
    story = Story(random.Random(seed))
    for _ in range(60):
        story.go_on()
    story.finish()
    story.check()


# -- what a repository decides ---------------------------------------------------------

def text(seconds):
    """Seconds after noon -> time of the tables."""
    return to_text(NOON + seconds)


def skip(first, last, count, reason="misfire", message=""):
    """Due times that are not to run, for Ledger.decide()."""
    return Span(NOON + first, NOON + last, count, reason, message)


def run(due, planned=None):
    """A due time that is to run; times in seconds after noon."""
    return Span(NOON + due, NOON + due, 1, "", "", None if planned is None else NOON + planned)


def list_sessions(made):
    """What a Made has made: [session, or (session, those that it replaces), and the next attempt]."""
    replaced = sorted([ending.session for ending in made.endings] + list(made.replaced))
    sessions = [] if made.ticket is None else [made.ticket.session]
    ending = made.ticket and made.ticket.ending
    return [(session, replaced) if replaced else session for session in sessions] + [
        ticket.session for ticket in (ending.tickets if ending else ())]


def next_attempt(ending):
    """The Ticket of the next attempt that the end of a session has made, or None."""
    return ending.tickets[0] if ending.tickets else None


def make_scenario(name="J", version="1", **fields):
    task = {"type": "os", "command": "true"}
    return dict({"name": name, "version": version, "variables": {"day": "x", "n": "1"},
                 "steps": [{"name": "a", "tasks": [task]}]}, **fields)


class Ledger:
    """A work repository with scenarios, schedules and their decisions. Times are seconds after noon."""

    def __init__(self, folder):
        self.repository = WorkRepository.create(7, "R", str(folder / "r.db"), agent.Clock())
        self.put_scenarios(make_scenario(), make_scenario("K"))

    def write(self, work):
        return self.repository.db.write(work)

    def put_scenarios(self, *scenarios, is_replacing=False):
        document = Definitions().read(json.dumps({"scenarios": scenarios}))
        self.write(lambda connection: self.repository.imports.put(
            connection, document, "AGENT", NOON, is_replacing))

    def add(self, name="S", rule="every 10s", now=0, scenario="J", variables=None, enabled=True, **options):
        options = {key.rstrip("_"): value for key, value in options.items()}
        schedule = Schedule(name, "AGENT", scenario, "-1", "GLOBAL", rule, "UTC", enabled, variables or {}, options)
        self.write(lambda connection: self.repository.schedules.add(connection, schedule, NOON + now))

    def set(self, name="S", now=0, **changes):
        """Options by keyword too; None takes one away."""
        def change(schedule):
            own = {key: value for key, value in changes.items() if key in Schedule._fields}
            options = dict(schedule.options, **{key.rstrip("_"): value for key, value in changes.items() if key not in own})
            return schedule._replace(options={key: value for key, value in options.items() if value is not None}, **own)
        self.write(lambda connection: self.repository.schedules.set(
            connection, change(self.repository.schedules.read_definition(self.row(name))), NOON + now, None))

    def delete(self, name="S"):
        self.write(lambda connection: self.repository.schedules.delete(connection, name))

    def row(self, name="S"):
        with self.repository.db.reading() as connection:
            return self.repository.schedules.get(connection, name)

    def decide(self, *spans, name="S", revision=None, is_held=False, now=None, upto=None):
        """-> [session, or (session, those it replaces)] that were made; a number is a due time that is to run."""
        spans = [span if isinstance(span, Span) else run(span) for span in spans]
        revision = self.row(name)["revision"] if revision is None else revision
        now = max(span.last for span in spans) if now is None else NOON + now
        upto = max(span.last for span in spans) if upto is None else NOON + upto
        try:
            made = self.write(lambda connection: self.repository.decisions.decide(
                connection, name, revision, upto, spans, now, is_held))
        except agent.Changed:
            made = []
        return [session for each in made for session in list_sessions(each)]

    def decide_after(self, now, name="AGENT"):
        return [session for each in self.write(lambda connection: self.repository.decisions.decide_after(
            connection, name, NOON + now, False)) for session in list_sessions(each)]

    def begin(self, session, now=0, is_late=False):
        self.write(lambda connection: self.repository.sessions.begin(connection, session, "me", is_late, NOON + now))

    def end(self, session, status=DONE, now=0, is_late=False):
        """Runs a session -> Ending."""
        if self.session(session)["status"] in agent.OUTSTANDING:
            self.begin(session, now, is_late)
        return self.write(lambda connection: self.repository.endings.end(connection, session, status, "", NOON + now))

    def occurrences(self, name=None):
        """Oldest first: (due, last due, count, decision, reason, session)."""
        return [(from_text(row["due"]) - NOON, from_text(row["last_due"]) - NOON, row["count"], row["decision"],
                 row["reason"], row["session"]) for row in reversed(self.repository.db.read(self.repository.ledger.list_occurrences, name, 1000))]

    def newest(self, name="S"):
        return self.repository.db.read(self.repository.ledger.list_occurrences, name, 1)[0]

    def sessions(self):
        """Newest first."""
        return self.repository.db.read(self.repository.views.list_sessions, agent.SessionFilter(), 1 << 62, 1000)

    def session(self, number):
        with self.repository.db.reading() as connection:
            return self.repository.sessions.get(connection, number)

    def conditions(self, name="S"):
        """{name: when it was met, or None}"""
        return {name: met and met - NOON for _, name, met in self.repository.db.read(self.repository.schedules.list_conditions, name)}

    def sql(self, *statements):
        """What another program does to the file."""
        with closing(sqlite3.connect(self.repository.path, timeout=30, isolation_level=None)) as other:
            for statement in statements:
                other.execute(statement)


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path)
    yield made
    made.repository.db.close()


def test_a_due_time_makes_one_session_with_its_occurrence(ledger):
    ledger.add(variables={"day": "monday"}, session_name="nightly run", keywords="a,b", priority=5, timeout=60)
    assert ledger.decide(10) == [1007]
    assert ledger.occurrences() == [(10, 10, 1, STARTED, "", 1007)]
    row = ledger.session(1007)
    assert (row["status"], row["schedule"], row["due"], row["start_at"]) == ("QUEUED", "S", text(10), None)
    assert (row["name"], row["keywords"], row["priority"], row["timeout"]) == ("nightly run", "a,b", 5, 60)
    assert json.loads(row["variables"]) == {"day": "monday", "n": "1"}
    assert (row["attempt"], row["is_parallel"]) == (1, 0)
    assert ledger.row()["decided"] == text(10)


def test_once_per_due_time_whoever_asks(ledger):
    ledger.add()
    ledger.end(*ledger.decide(20))
    for seconds in (20, 20, 10, -5, 0):
        assert ledger.decide(seconds) == []
    assert ledger.decide(skip(-20, 20, 5), 30) == [2007]
    assert ledger.decide(skip(10, 30, 3), run(30)) == []
    assert [row[:4] for row in ledger.occurrences()] == [(20, 20, 1, STARTED), (30, 30, 1, STARTED)]
    assert len(ledger.sessions()) == 2


def test_a_decision_goes_up_to_where_it_says(ledger):
    """What is not due any more is decided as well, and asks for nothing."""
    ledger.add()
    assert ledger.decide(skip(10, 40, 4, "window"), upto=45, now=50) == []
    assert ledger.row()["decided"] == text(45)
    assert ledger.decide(run(40), now=50) == [] and ledger.row()["decided"] == text(45)


def test_a_crash_between_leaves_neither_session_nor_occurrence(ledger):
    ledger.add()
    revision = ledger.row()["revision"]

    class Crash(Exception):
        pass

    def work(connection):
        assert ledger.repository.decisions.decide(connection, "S", revision, NOON + 10, [run(10)], NOON + 10, False)
        raise Crash
    with pytest.raises(Crash):
        ledger.write(work)
    assert ledger.occurrences() == [] and ledger.sessions() == [] and ledger.row()["decided"] == text(0)
    assert ledger.decide(10) == [1007]


def test_out_of_date_decides_nothing(ledger):
    ledger.add()
    revision = ledger.row()["revision"]
    ledger.set(rule="every 20s", now=5)
    assert ledger.decide(10, revision=revision) == [] and ledger.row()["decided"] == text(5)
    assert ledger.decide(20) == [1007]
    ledger.set(enabled=False, now=25)
    assert ledger.decide(40) == [] and ledger.row()["decided"] == text(25)
    revision = ledger.row()["revision"]
    ledger.delete()
    with pytest.raises(agent.Changed):
        ledger.write(lambda connection: ledger.repository.decisions.decide(
            connection, "S", revision, NOON + 60, [run(60)], NOON + 60, False))
    assert len(ledger.sessions()) == 1


def test_a_deleted_schedule_made_again_does_not_decide_what_the_old_one_did(ledger):
    ledger.add()
    assert ledger.decide(10) == [1007]
    assert ledger.decide(skip(20, 50, 4, "window")) == []
    ledger.delete()
    ledger.add(now=30)
    for due in (10, 20, 40, 50):
        assert ledger.decide(due) == []
    assert ledger.decide(60, is_held=True) == []        # 1007 waits still
    assert [row[:5] for row in ledger.occurrences()] == [
        (10, 10, 1, STARTED, ""), (20, 50, 4, SKIPPED, "window"), (40, 60, 3, SKIPPED, "overlap")]


def test_what_fired_by_a_clock_that_was_ahead_does_not_fire_again_and_the_rest_does(ledger):
    ledger.add(rule="every 10s", overlap="parallel")
    assert ledger.decide(1000) == [1007]                # ahead of it by far
    ledger.decide(skip(1010, 5000, 400, "misfire"))
    assert ledger.decide(20) == []                      # an agent that only goes on decides nothing anew
    ledger.set(now=15, enabled=False)
    ledger.set(now=16, enabled=True)
    assert ledger.row()["decided"] == text(16)
    assert ledger.decide(20) == [2007] and ledger.decide(1000) == [] and ledger.decide(1010) == [3007]
    assert [row[:4] for row in ledger.occurrences()] == [
        (due, due, 1, STARTED) for due in (20, 1000, 1010)]


def test_what_was_skipped_before_a_clock_was_set_back_stays_told(ledger):
    ledger.add(rule="every 10s")
    ledger.decide(skip(10, 5000, 500, "misfire"))
    ledger.set(now=105, rule="every 11s")
    row = ledger.newest()
    assert (row["due"], row["count"]) == (text(10), 500)
    assert row["message"].endswith("; begun anew at " + text(105))


# -- changes

def test_the_same_again_changes_nothing(ledger):
    ledger.add(hours="08:00-18:00")
    before = tuple(ledger.row())
    ledger.set(now=100)
    ledger.set(now=100, hours="08:00-18:00")
    assert tuple(ledger.row()) == before


@pytest.mark.parametrize("change", [
    {"rule": "every 20s"}, {"timezone": ""}, {"enabled": False}, {"from_": "2026-01-01"}, {"to": "2027-01-01"},
    {"hours": "08:00-18:00"}, {"exclude_weekdays": "sat"}, {"exclude_monthdays": "1"}, {"exclude_dates": "2026-12-25"},
    {"repeat_every": 60, "repeat_count": 2}, {"gap": "skip"}, {"fold": "both"}])
def test_a_change_of_its_times_does_not_fire_the_past(ledger, change):
    ledger.add()
    revision = ledger.row()["revision"]
    ledger.set(now=100.25, **change)
    assert ledger.row()["decided"] == text(100.25) and ledger.row()["revision"] > revision
    if not set(change) <= set(Schedule._fields):
        ledger.set(now=200, **dict.fromkeys(change))
        assert ledger.row()["decided"] == text(200)
    ledger.set(now=50, rule="every 40s")        # the clock went back
    assert ledger.row()["decided"] == text(50)


@pytest.mark.parametrize("change", [
    {"scenario": "K"}, {"version": "1"}, {"agent": "OTHER"}, {"variables": {"day": "y"}}, {"jitter": 5}, {"priority": 1},
    {"session_name": "x"}, {"keywords": "k"}, {"attempts": 3}, {"retry_delay": 5}, {"timeout": 5}, {"overlap": "skip"},
    {"misfire": "skip"}, {"grace": 60}, {"after": "scenario:K"}])
def test_any_other_change_loses_no_due_time(ledger, change):
    ledger.add()
    revision = ledger.row()["revision"]
    ledger.set(now=100, **change)
    assert ledger.row()["decided"] == text(0) and ledger.row()["revision"] > revision
    assert [revision for _, revision, _ in ledger.repository.db.read(ledger.repository.schedules.list_revisions, "AGENT")] == [
        ledger.row()["revision"]] * ("agent" not in change)


def test_what_another_program_changes_is_noticed(ledger):
    ledger.add()
    ledger.add("OTHER")
    other = tuple(ledger.row("OTHER"))
    seen = [ledger.row()["revision"]]
    for change in ("rule='every 20s'", "timezone=''", "enabled=0", "scenario='K'", "version='1'", "context='X'",
                   "variables='{}'", "options='{\"priority\": 4}'", "agent='OTHER'"):
        before = time.time()
        ledger.sql("update schedule set %s where name='S'" % change)
        row = ledger.row()
        assert row["revision"] > max(seen) and from_text(row["decided"]) >= max(NOON, before - 0.001)
        seen.append(row["revision"])
    ledger.sql("update schedule set decided='2999-01-01T00:00:00.000Z' where name='S'",
               "update schedule set rule='every 7s' where name='S'")
    assert ledger.row()["decided"] == '2999-01-01T00:00:00.000Z'
    assert tuple(ledger.row("OTHER")) == other
    ledger.sql("update schedule set enabled=1, revision=1000 where name='S'")       # it knows what it does
    assert ledger.row()["revision"] == 1000


def test_hold_and_decision_are_no_change(ledger):
    ledger.add(after="scenario:K")
    revision = ledger.row()["revision"]
    ledger.write(lambda connection: ledger.repository.schedules.hold(connection, "S", HELD))
    ledger.decide(10)
    ledger.sql("update schedule set hold_since=null")
    assert ledger.row()["waiting"] == text(10)
    assert ledger.row()["revision"] == revision
    ledger.set(priority=3)
    assert ledger.row()["revision"] == revision + 1 and ledger.row()["decided"] == text(10)


def test_what_a_change_of_its_times_forgets_is_told(ledger):
    ledger.add()
    ledger.decide(10)

    def change(now, decided=10, **changes):
        row = ledger.row()
        origin = agent.Origin(row["revision"], NOON + decided, (skip(20, 40, 3),))
        ledger.write(lambda connection: ledger.repository.schedules.set(
            connection, ledger.repository.schedules.read_definition(row)._replace(**changes), NOON + now, origin))
    change(44, scenario="K")
    assert len(ledger.occurrences()) == 1
    with pytest.raises(agent.Changed):          # a due time was decided since the row was read
        change(45, 5, rule="every 7s")
    change(45, rule="every 7s")
    assert ledger.row()["decided"] == text(45)
    assert [row[:5] for row in ledger.occurrences()] == [(10, 10, 1, STARTED, ""), (20, 40, 3, SKIPPED, "misfire")]


# -- overlap and limits

def test_overlap_queue_one_waits_further_ones_are_skipped_in_one_row(ledger):
    ledger.add()
    first, = ledger.decide(10)
    ledger.begin(first)
    second, = ledger.decide(20)                         # it waits
    assert second == 2007
    for seconds in (30, 40, 50):
        assert ledger.decide(seconds) == []
    assert ledger.occurrences() == [(10, 10, 1, STARTED, "", first), (20, 20, 1, STARTED, "", second),
                                    (30, 50, 3, SKIPPED, "overlap", None)]
    assert "session 2007 of it is QUEUED" in ledger.newest()["message"]
    ledger.end(second)
    assert ledger.decide(60) == [3007]
    assert ledger.decide(70) == []
    assert ledger.occurrences()[-2:] == [(60, 60, 1, STARTED, "", 3007),
                                         (70, 70, 1, SKIPPED, "overlap", None)]
    assert ledger.decide(30) == [] and ledger.decide(50) == []


def test_overlap_skip(ledger):
    ledger.add(overlap="skip")
    first, = ledger.decide(10)
    assert ledger.decide(20) == []
    ledger.begin(first)
    assert ledger.decide(30) == []
    assert ledger.occurrences()[1:] == [(20, 30, 2, SKIPPED, "overlap", None)]
    assert "session 1007 of it is RUNNING" in ledger.newest()["message"]
    ledger.end(first)
    assert ledger.decide(40) == [2007]


def test_overlap_parallel(ledger):
    ledger.add(overlap="parallel")
    first, = ledger.decide(10)
    ledger.begin(first)
    assert ledger.decide(20, 30) == [2007, 3007]
    assert [row["is_parallel"] for row in ledger.sessions()] == [1, 1, 1]
    assert [row[3] for row in ledger.occurrences()] == [STARTED] * 3


def test_overlap_stop(ledger):
    ledger.add(overlap="stop")
    first, = ledger.decide(10)
    ledger.begin(first)
    assert ledger.decide(20) == [(2007, [1007])]
    assert ledger.session(1007)["status"] == "RUNNING"          # it is stopped by who runs it
    assert ledger.decide(30) == [(3007, [1007, 2007])]
    row = ledger.session(2007)
    assert (row["status"], row["begun"]) == (STOPPED, None) and "next due time" in row["message"]
    assert [row[3] for row in ledger.occurrences()] == [STARTED] * 3
    assert ledger.decide(40, 50) == [(4007, [1007, 3007]), (5007, [1007, 4007])]


def test_overlap_is_of_the_same_schedule_alone(ledger):
    ledger.add(overlap="skip")
    ledger.add("OTHER", overlap="stop")
    ledger.decide(10)
    assert ledger.decide(10, name="OTHER") == [2007]
    ledger.write(lambda connection: ledger.repository.arrivals.add(
        connection, agent.SessionRequest("J", "AGENT"), NOON))
    ledger.end(1007)
    assert ledger.decide(20) == [4007]


def test_the_limit_of_a_scenario_with_on_limit_skip(ledger):
    ledger.put_scenarios(make_scenario("L", concurrency={"limit": 1, "on_limit": "skip"}))
    ledger.add(scenario="L", overlap="parallel")
    assert ledger.decide(10, 20, 30) == [1007]
    assert ledger.occurrences() == [(10, 10, 1, STARTED, "", 1007), (20, 30, 2, SKIPPED, "limit", None)]
    assert "limit" in ledger.newest()["message"]
    ledger.end(1007)
    assert ledger.decide(40) == [2007]


def test_the_limit_of_a_scenario_with_on_limit_error_and_wait(ledger):
    ledger.put_scenarios(make_scenario("E", concurrency={"limit": 1, "on_limit": "error"}),
                         make_scenario("W", concurrency={"limit": 1}))
    ledger.add(scenario="E", overlap="parallel")
    ledger.add("W", scenario="W", overlap="parallel")
    assert ledger.decide(10, 20) == [1007, 2007] and ledger.decide(10, 20, name="W") == [3007, 4007]
    assert [row["status"] for row in ledger.sessions()] == ["WAITING", "QUEUED", "ERROR", "QUEUED"]
    assert [row[3] for row in ledger.occurrences()] == [STARTED] * 4


@pytest.mark.parametrize("on_limit", ["skip", "error", "wait"])
def test_what_is_stopped_for_it_takes_no_place_of_the_limit(ledger, on_limit):
    ledger.put_scenarios(make_scenario("L", concurrency={"limit": 1, "on_limit": on_limit}))
    ledger.add(scenario="L", overlap="stop")
    ledger.begin(*ledger.decide(10))
    assert ledger.decide(20) == [(2007, [1007])] and ledger.session(2007)["status"] == "QUEUED"
    assert ledger.decide(30) == [(3007, [1007, 2007])] and ledger.session(3007)["status"] == "QUEUED"


def test_held_it_waits(ledger):
    ledger.add()
    assert ledger.decide(10, is_held=True) == [1007]
    assert ledger.session(1007)["status"] == "WAITING"
    assert ledger.decide(20, is_held=True) == []


def test_a_planned_time_is_when_the_session_may_start(ledger):
    ledger.add(overlap="parallel")
    assert ledger.decide(run(10, planned=60), run(20, planned=25), now=30) == [1007, 2007]
    rows = [ledger.session(number) for number in (1007, 2007)]
    assert [(row["status"], row["due"], row["start_at"]) for row in rows] == [
        ("WAITING", text(10), text(60)), ("QUEUED", text(20), text(25))]
    assert [row[:2] for row in ledger.occurrences()] == [(10, 10), (20, 20)]


# -- rows of the ledger

def test_missed_is_one_row_before_the_session(ledger):
    ledger.add()
    assert ledger.decide(skip(10, 90, 9), 100, now=103) == [1007]
    assert ledger.occurrences() == [(10, 90, 9, SKIPPED, "misfire", None), (100, 100, 1, STARTED, "", 1007)]


@pytest.mark.parametrize("reason", ["misfire", "hold", "repository", "window", "gap", "fold"])
def test_skipped_rows_that_follow_each_other_are_merged(ledger, reason):
    """A decision whose session fell to the overlap leaves no second row of the same reason."""
    ledger.add()
    assert ledger.decide(skip(10, 90, 9, reason, "one"), 100) == [1007]
    assert ledger.decide(skip(110, 190, 9, reason, "two"), 200) == []       # 1007 waits still
    assert ledger.decide(210) == []
    assert ledger.decide(skip(220, 290, 8, reason), 300) == []
    assert ledger.decide(310) == []
    assert ledger.decide(skip(320, 330, 2, reason, "three")) == []
    assert ledger.decide(skip(340, 340, 1, reason, "four")) == []
    assert ledger.occurrences()[1:] == [
        (100, 100, 1, STARTED, "", 1007),
        (110, 190, 9, SKIPPED, reason, None), (200, 210, 2, SKIPPED, "overlap", None),
        (220, 290, 8, SKIPPED, reason, None), (300, 310, 2, SKIPPED, "overlap", None),
        (320, 340, 3, SKIPPED, reason, None)]
    assert ledger.newest()["message"] == "four"


def test_rows_of_different_reasons_are_not_merged(ledger):
    ledger.add()
    ledger.decide(skip(10, 20, 2), skip(30, 40, 2, "hold"), skip(50, 50, 1, "window"), skip(60, 60, 1, "window"),
                  skip(70, 70, 1, "fold"))
    ledger.add("OTHER")
    ledger.decide(skip(80, 80, 1, "fold"), name="OTHER")
    assert [row[:5] for row in ledger.occurrences()] == [
        (10, 20, 2, SKIPPED, "misfire"), (30, 40, 2, SKIPPED, "hold"), (50, 60, 2, SKIPPED, "window"),
        (70, 70, 1, SKIPPED, "fold"), (80, 80, 1, SKIPPED, "fold")]


def test_every_due_time_stands_in_the_ledger_exactly_once(ledger):
    rng, due, expected = random.Random(5), 0, 0
    ledger.add()
    open_sessions = []
    for _ in range(120):
        skipped = rng.choice((0, 0, 0, 1, 5))
        missed = [skip(due + 10, due + 10 * skipped, skipped)] if skipped else []
        due += 10 * (skipped + 1)
        expected += skipped + 1
        open_sessions += ledger.decide(*missed + [due])
        if open_sessions and rng.random() < 0.4:
            ledger.end(open_sessions.pop(0))
    rows = ledger.occurrences()
    assert sum(row[2] for row in rows) == expected
    upto = 0
    for first, last, count, decision, reason, session in rows:
        assert first == upto + 10 and last == first + (count - 1) * 10
        assert (session is None) == (decision == SKIPPED)
        upto = last
    assert not any(a[3:5] == b[3:5] and a[3] == SKIPPED for a, b in zip(rows, rows[1:]))


def test_late_is_what_the_runtime_says_is_late(ledger):
    ledger.add()
    for seconds, is_late in ((10, False), (20, True)):
        ledger.end(*ledger.decide(seconds), is_late=is_late)
    assert [row[3] for row in ledger.occurrences()] == [STARTED, LATE]


def test_a_session_that_cannot_be_made_is_a_failure_and_repeated_ones_are_merged(ledger):
    ledger.add()
    ledger.write(lambda connection: connection.execute("delete from scenario where name='J'"))
    assert ledger.decide(10) == []
    row = ledger.newest()
    assert (row["decision"], row["reason"], row["session"]) == (FAILED, "", None) and "J" in row["message"]
    assert ledger.decide(10) == [] and len(ledger.occurrences()) == 1
    assert ledger.decide(20, 30) == []
    assert ledger.occurrences() == [(10, 30, 3, FAILED, "", None)]
    ledger.put_scenarios(make_scenario())
    assert ledger.decide(40) == [1007]
    ledger.sql("delete from scenario where name='J'")
    ledger.end(1007)
    assert ledger.decide(50) == []
    assert [row[:4] for row in ledger.occurrences()] == [(10, 30, 3, FAILED), (40, 40, 1, STARTED), (50, 50, 1, FAILED)]


def test_failures_of_different_causes_are_not_merged(ledger):
    ledger.add()
    for due, message in ((10, "one"), (20, "one"), (30, "two")):
        ledger.write(lambda connection: ledger.repository.ledger.note_failed(connection, "S", NOON + due, message, NOON + due))
    assert [row[:4] for row in ledger.occurrences()] == [(10, 20, 2, FAILED), (30, 30, 1, FAILED)]
    assert ledger.newest()["message"] == "two"


def test_a_variable_that_the_latest_version_lacks_is_a_failure_too(ledger):
    ledger.add(variables={"day": "x"})
    ledger.put_scenarios(make_scenario(version="2", variables={}))
    assert ledger.decide(10) == []
    assert ledger.occurrences()[0][3] == FAILED and ledger.sessions() == []
    assert "day" in ledger.newest()["message"]


def test_the_ledger_survives_its_file(ledger):
    ledger.add()
    ledger.decide(10)
    ledger.repository.db.close()
    again = WorkRepository(7, "R", ledger.repository.path, agent.Clock()).open()
    ledger.repository = again
    assert ledger.decide(10) == [] and len(ledger.occurrences()) == 1
    assert os.path.exists(again.path)


def test_a_step_of_the_clock_stands_in_the_ledger(ledger):
    ledger.add()
    ledger.decide(10)
    for _ in range(2):
        ledger.write(lambda connection: ledger.repository.ledger.note_step(connection, "the clock stepped", NOON + 20))
    assert [row[:5] for row in ledger.occurrences()] == [(10, 10, 1, STARTED, ""), (20, 20, 0, SKIPPED, "misfire")]
    assert [row["schedule"] for row in ledger.repository.db.read(ledger.repository.ledger.list_occurrences, "S", 9)] == ["", "S"]
    assert agent.explain(ledger.repository.db.read(ledger.repository.ledger.list_occurrences, None, 1)[0]) == "the clock stepped"
    assert ledger.decide(15) == []          # 1007 waits; it is no row of S that this is merged into
    assert ledger.occurrences("S")[1] == (15, 15, 1, SKIPPED, "overlap", None)


def test_what_is_told_of_an_occurrence(ledger):
    ledger.add(overlap="parallel")
    ledger.end(*ledger.decide(10))
    ledger.end(*ledger.decide(20), is_late=True)
    ledger.decide(skip(30, 30, 1, "misfire", "the agent was down"), skip(40, 50, 2, *agent.ON_HOLD), skip(60, 60, 1, *agent.AWAY),
                  skip(70, 70, 1, "gap", "02:30 does not exist"), skip(80, 80, 1, "fold"), skip(90, 90, 1, "window"),
                  skip(100, 100, 1, "overlap"), skip(110, 110, 1, "limit", "2 sessions are open"))
    ledger.write(lambda connection: ledger.repository.ledger.note_failed(connection, "S", NOON + 120, "no scenario J", NOON + 120))
    told = [agent.explain(row) for row in reversed(ledger.repository.db.read(ledger.repository.ledger.list_occurrences, "S", 99))]
    assert told == [
        "session 1007, it is DONE",
        "session 2007 began late, it had waited for a free slot, a limit or the one before it, it is DONE",
        "1 due time skipped: missed: the agent was down", "2 due times skipped: held at that time",
        "1 due time skipped: the repository could not be used",
        "1 due time skipped: that local time did not exist: 02:30 does not exist",
        "1 due time skipped: that local time came a second time", "1 due time skipped: outside its window",
        "1 due time skipped: one session of it is enough at a time", "1 due time skipped: 2 sessions are open",
        "1 due time failed: no scenario J"]


# -- after

@pytest.fixture
def chain(ledger):
    """Schedules A and B, and S that runs after both."""
    ledger.add("A")
    ledger.add("B")
    ledger.add(rule="", after="A,B")
    return ledger


def test_after_fires_when_all_have_ended_well(chain):
    a, = chain.decide(10, name="A")
    b, = chain.decide(10, name="B")
    assert chain.conditions() == {"A": None, "B": None} and chain.decide_after(11) == []
    assert chain.end(a, now=12).is_awaited
    assert chain.conditions() == {"A": 12, "B": None} and chain.decide_after(13) == []
    assert chain.end(b, "WARNING", now=14).is_awaited
    assert chain.decide_after(15) == [3007]
    row = chain.session(3007)
    assert (row["schedule"], row["due"], row["status"]) == ("S", text(15), "QUEUED")
    assert chain.newest()["message"] == "after A,B" and chain.newest()["decision"] == STARTED
    assert chain.row()["decided"] == text(15)
    assert chain.conditions() == {"A": None, "B": None}         # and begins anew
    assert chain.decide_after(16) == []
    chain.end(*chain.decide(20, name="A"), now=20)
    assert chain.decide_after(21) == []
    chain.end(*chain.decide(20, name="B"), now=22)
    chain.end(3007)
    assert chain.decide_after(23) == [6007]


def test_what_has_not_ended_well_meets_no_condition(chain):
    for status in (ERROR, STOPPED):
        session, = chain.decide(10 if status == ERROR else 20, name="A")
        assert not chain.end(session, status, now=21).is_awaited
    assert chain.conditions() == {"A": None, "B": None}
    ending = chain.end(*chain.decide(30, name="B"), now=31)
    assert ending.is_awaited and not ending.tickets
    assert chain.conditions() == {"A": None, "B": 31}


def test_an_end_that_came_already_meets_nothing(chain):
    session, = chain.decide(10, name="A")
    chain.end(session, STOPPED, now=11)
    assert chain.end(session, DONE, now=12) is None and chain.conditions()["A"] is None


def test_the_condition_is_met_in_the_transaction_of_the_end(chain):
    session, = chain.decide(10, name="A")
    chain.begin(session)

    class Crash(Exception):
        pass

    def work(connection):
        chain.repository.endings.end(connection, session, DONE, "", NOON + 11)
        raise Crash
    with pytest.raises(Crash):
        chain.write(work)
    assert chain.conditions()["A"] is None and chain.session(session)["status"] == "RUNNING"
    chain.end(session, now=12)
    assert chain.conditions()["A"] == 12


def test_after_a_scenario_whoever_started_it(ledger):
    ledger.add(rule="", after="scenario:K")
    request = agent.SessionRequest("K", "AGENT")
    ticket = ledger.write(lambda connection: ledger.repository.arrivals.add(connection, request, NOON))
    assert ledger.end(ticket.session, now=5).is_awaited
    assert ledger.decide_after(6) == [2007]
    ledger.add("K")                                             # a schedule of that name is another thing
    assert not ledger.end(*ledger.decide(10, name="K")).is_awaited


def test_a_period_says_how_long_an_end_counts(ledger):
    ledger.add("A")
    ledger.add("B")
    ledger.add(rule="", after="A/1m,B")
    ledger.end(*ledger.decide(10, name="A"), now=10)
    ledger.end(*ledger.decide(10, name="B"), now=70.5)
    assert ledger.decide_after(70.5) == []
    ledger.end(*ledger.decide(80, name="A"), now=80)
    assert ledger.decide_after(140) == [4007]


def test_who_is_held_disabled_or_another_agents_waits(chain):
    for name in "AB":
        chain.end(*chain.decide(10, name=name), now=10)
    chain.write(lambda connection: chain.repository.schedules.hold(connection, "S", HELD))
    assert chain.decide_after(11) == []
    chain.write(lambda connection: chain.repository.schedules.hold(connection, "S", None))
    chain.sql("update schedule set enabled=0 where name='S'")
    assert chain.decide_after(11) == []
    chain.sql("update schedule set enabled=1 where name='S'")
    assert chain.decide_after(11, "OTHER") == []
    assert chain.decide_after(11) == [3007]


def test_an_after_that_changes_or_is_enabled_looks_at_what_ends_from_then_on(chain):
    for name in "AB":
        chain.end(*chain.decide(10, name=name), now=10)
    assert chain.conditions() == {"A": 10, "B": 10}
    chain.set(priority=5)
    assert chain.conditions() == {"A": 10, "B": 10}
    chain.set(after="A,B,scenario:K")
    assert chain.conditions() == {"A": None, "B": None, "K": None}
    chain.set(after="A")
    chain.end(*chain.decide(20, name="A"), now=20)
    chain.set(enabled=False)
    chain.set(enabled=True)
    assert chain.conditions() == {"A": None} and chain.decide_after(21) == []


def test_twice_in_a_millisecond_are_two_due_times(chain):
    dues = []
    for due in (10, 20):
        for name in "AB":
            chain.end(*chain.decide(due, name=name), now=20)
        session, = chain.decide_after(20)
        chain.end(session)
        dues.append(chain.session(session)["due"])
    assert dues == [text(20), text(20.001)]


def test_overlap_holds_for_after_too(chain):
    for due in (10, 20):
        for name in "AB":
            chain.end(*chain.decide(due, name=name), now=due)
        chain.decide_after(due + 1)
    assert [row[:5] for row in chain.occurrences("S")] == [(11, 11, 1, STARTED, ""), (21, 21, 1, SKIPPED, "overlap")]
    assert chain.conditions() == {"A": None, "B": None}


def test_with_a_rule_the_due_time_waits(ledger):
    ledger.add("A", rule="every 20s")
    ledger.add(after="A")
    assert ledger.decide(10) == [] and ledger.row()["waiting"] == text(10)
    assert ledger.occurrences("S") == [] and ledger.decide_after(11) == []
    ledger.end(*ledger.decide(20, name="A"), now=21)
    assert ledger.decide_after(21) == [2007]
    assert (ledger.session(2007)["due"], ledger.row()["waiting"]) == (text(10), None)
    assert ledger.occurrences("S") == [(10, 10, 1, STARTED, "", 2007)]
    assert ledger.decide_after(22) == [] and ledger.decide(10) == []


def test_with_a_rule_what_was_met_before_the_due_time_counts(ledger):
    ledger.add("A")
    ledger.add(after="A")
    ledger.end(*ledger.decide(10, name="A"), now=10)
    assert ledger.decide_after(11) == []                # nothing is due
    assert ledger.decide(20) == [2007] and ledger.conditions() == {"A": None}
    ledger.end(2007)
    assert ledger.decide(30) == [] and ledger.row()["waiting"] == text(30)


def test_the_next_due_time_takes_the_place_of_one_that_waits(ledger):
    ledger.add("A")
    ledger.add(after="A")
    for due in (10, 20, 30):
        assert ledger.decide(due) == []
    assert ledger.row()["waiting"] == text(30)
    assert ledger.occurrences("S") == [(10, 20, 2, SKIPPED, "misfire", None)]
    assert "by the next due time" in ledger.newest()["message"]
    ledger.end(*ledger.decide(30, name="A"), now=31)
    assert ledger.decide_after(32) == [2007] and ledger.session(2007)["due"] == text(30)


def test_the_next_due_time_that_finds_all_met_leaves_the_older_skipped(ledger):
    """The end of A comes, and the next due time before the agent has heard of it."""
    ledger.add("A")
    ledger.add(after="A")
    ledger.decide(10)
    ledger.end(*ledger.decide(10, name="A"), now=15)
    assert ledger.decide(20) == [2007]
    assert ledger.session(2007)["due"] == text(20) and ledger.row()["waiting"] is None
    assert ledger.occurrences("S") == [(10, 10, 1, SKIPPED, "misfire", None), (20, 20, 1, STARTED, "", 2007)]


def test_one_that_waits_keeps_its_due_time_whatever_is_recorded_meanwhile(ledger):
    """On Friday it is due, over the weekend its window excludes, on Sunday what it waits for has ended."""
    ledger.add("A")
    ledger.add(after="A")
    ledger.decide(10)
    ledger.decide(skip(20, 40, 3, "window"))
    ledger.end(*ledger.decide(40, name="A"), now=45)
    assert ledger.decide_after(45) == [2007]
    assert ledger.session(2007)["due"] == text(10)
    assert ledger.occurrences("S") == [(10, 10, 1, STARTED, "", 2007), (20, 40, 3, SKIPPED, "window", None)]


def test_one_that_waits_is_skipped_as_what_it_is(ledger):
    """It is older than what was missed and held since; no row covers what another has."""
    ledger.add("A")
    ledger.add(after="A")
    ledger.decide(10)
    ledger.decide(20)
    ledger.decide(skip(30, 40, 2, "hold"), skip(50, 60, 2, "misfire", "the agent was down"), 70)
    assert ledger.row()["waiting"] == text(70)
    assert [row[:5] for row in ledger.occurrences("S")] == [
        (10, 20, 2, SKIPPED, "misfire"), (30, 40, 2, SKIPPED, "hold"), (50, 60, 2, SKIPPED, "misfire")]


def test_no_row_covers_one_that_waits(ledger):
    ledger.add("A")
    ledger.add(after="A")
    ledger.decide(skip(10, 20, 2, "hold"), 30)
    ledger.decide(skip(40, 50, 2, "hold"))
    ledger.decide(skip(60, 60, 1, "hold"))
    assert ledger.row()["waiting"] == text(30)
    ledger.end(*ledger.decide(60, name="A"), now=61)
    ledger.decide_after(61)
    assert ledger.occurrences("S") == [(10, 20, 2, SKIPPED, "hold", None), (30, 30, 1, STARTED, "", 2007),
                                       (40, 60, 3, SKIPPED, "hold", None)]


@pytest.mark.parametrize("change", [{"after": None}, {"rule": "every 7s"}, {"enabled": False}])
def test_one_that_waits_is_skipped_when_the_schedule_waits_no_more(ledger, change):
    ledger.add("A")
    ledger.add(after="A")
    ledger.decide(10)
    ledger.set(now=12, priority=3)
    assert ledger.row()["waiting"] == text(10)
    ledger.set(now=15, **change)
    assert ledger.row()["waiting"] is None
    assert ledger.occurrences("S") == [(10, 10, 1, SKIPPED, "misfire", None)]
    assert "changed" in ledger.newest()["message"]
    ledger.end(*ledger.decide(10, name="A"), now=16)
    assert ledger.decide_after(17) == []


def test_one_that_waits_while_another_program_takes_its_after_away(ledger):
    ledger.add("A")
    ledger.add(after="A")
    ledger.decide(10)
    ledger.sql("update schedule set options='{}' where name='S'", "update schedule set decided='%s'" % text(10))
    assert ledger.decide(20) == [1007] and ledger.row()["waiting"] is None
    assert ledger.occurrences("S") == [(10, 10, 1, SKIPPED, "misfire", None), (20, 20, 1, STARTED, "", 1007)]


def test_one_that_waits_waits_on_when_its_after_changes(ledger):
    ledger.add("A")
    ledger.add("B")
    ledger.add(after="A,B")
    ledger.decide(10)
    ledger.end(*ledger.decide(10, name="A"), now=12)
    assert ledger.decide_after(12) == []
    ledger.set(now=16, after="A")
    assert ledger.row()["waiting"] == text(10) and ledger.decide_after(16) == []
    ledger.end(*ledger.decide(20, name="A"), now=20)
    assert ledger.decide_after(20) == [3007] and ledger.session(3007)["due"] == text(10)


def test_what_after_names_must_be_there_and_not_wait_for_it(ledger):
    with pytest.raises(agent.NotFound):
        ledger.add(rule="", after="NO_SUCH")
    with pytest.raises(agent.NotFound):
        ledger.add(rule="", after="scenario:NO_SUCH")
    ledger.add("A")
    ledger.add("B", rule="", after="A")
    ledger.add("C", rule="", after="B")
    with pytest.raises(agent.Conflict):
        ledger.set("A", rule="", after="C")
    for name in ("A", "B"):
        with pytest.raises(agent.Conflict):
            ledger.delete(name)
    ledger.delete("C")
    ledger.delete("B")
    with pytest.raises(agent.NotFound):
        ledger.row("B")


def test_one_that_another_program_broke_costs_the_others_nothing(ledger):
    ledger.add("A")
    for name in ("S1", "S2", "S3"):
        ledger.add(name, rule="", after="A")
    ledger.sql("update schedule set options='{\"after\": \"A/soon\"}' where name='S1'",
               "update schedule set variables='nonsense' where name='S3'")
    ledger.end(*ledger.decide(10, name="A"), now=11)
    assert ledger.decide_after(12) == [2007]
    assert ledger.session(2007)["schedule"] == "S2"


# -- attempts

def test_attempts_are_new_sessions_of_the_same_due_time(ledger):
    ledger.add(attempts=3, retry_delay=60, variables={"day": "mon"}, priority=4, keywords="k", session_name="x", timeout=9,
               overlap="parallel")
    first, = ledger.decide(10)
    ledger.begin(first, 11)
    ledger.write(lambda connection: ledger.repository.progress.set_variables(connection, first, {"day": "changed", "n": "9"}))
    ticket = next_attempt(ledger.end(first, ERROR, now=20))
    assert (ticket.session, ticket.status, ticket.start_at, ticket.schedule) == (2007, "WAITING", NOON + 80, "S")
    assert (ticket.priority, ticket.is_parallel) == (4, True)
    old, new = ledger.session(first), ledger.session(2007)
    for name in ("agent", "scenario", "version", "definition", "context", "name", "keywords", "priority", "level",
                 "timeout", "given", "schedule", "due", "is_parallel"):
        assert new[name] == old[name], name
    assert (new["status"], new["start_at"], new["created"], new["begun"], new["attempt"]) == (
        "WAITING", text(80), text(20), None, 2)
    assert json.loads(new["variables"]) == {"day": "mon", "n": "1"}       # as given, not as they stood
    assert old["status"] == ERROR and old["message"].endswith("attempt 2 of 3 is session 2007")
    assert ledger.occurrences() == [(10, 10, 1, STARTED, "", 2007)]
    assert ledger.newest()["message"] == "attempt 2 of 3, before it session 1007"
    ledger.begin(2007, 80)
    assert next_attempt(ledger.end(2007, ERROR, now=90)).start_at == NOON + 150
    assert ledger.occurrences() == [(10, 10, 1, STARTED, "", 3007)]
    ending = ledger.end(3007, ERROR, now=160)
    assert ending == agent.Ending(3007, ERROR) and len(ledger.sessions()) == 3


def test_a_good_attempt_meets_the_condition_a_bad_one_does_not(ledger):
    ledger.add("A", attempts=2)
    ledger.add(rule="", after="A")
    first, = ledger.decide(10, name="A")
    ending = ledger.end(first, ERROR, now=11)
    assert next_attempt(ending).start_at == NOON + 11 and not ending.is_awaited
    assert ledger.conditions() == {"A": None}
    assert ledger.end(next_attempt(ending).session, now=12).is_awaited and ledger.conditions() == {"A": 12}


@pytest.mark.parametrize("status", [DONE, "WARNING", STOPPED])
def test_only_an_error_is_tried_again(ledger, status):
    ledger.add(attempts=3)
    assert not ledger.end(*ledger.decide(10), status, now=11).tickets and len(ledger.sessions()) == 1


def test_the_definition_of_an_attempt_is_that_of_the_first(ledger):
    ledger.add(attempts=3)
    first, = ledger.decide(10)
    ledger.put_scenarios(make_scenario(timeout=5), is_replacing=True)
    ledger.put_scenarios(make_scenario(version="2"))
    second = next_attempt(ledger.end(first, ERROR, now=11)).session
    assert (ledger.session(second)["version"], ledger.session(second)["definition"]) == (
        "1", ledger.session(first)["definition"])


def test_no_attempt_of_a_schedule_that_is_gone_or_wants_no_more(ledger):
    ledger.add("GONE", attempts=3)
    ledger.add("LESS", attempts=3)
    ledger.add("MORE", attempts=1)
    ledger.add("OFF", attempts=2)
    sessions = [ledger.decide(10, name=name)[0] for name in ("GONE", "LESS", "MORE", "OFF")]
    ledger.delete("GONE")
    ledger.set("LESS", attempts=1)
    ledger.set("MORE", attempts=2)
    ledger.set("OFF", enabled=False)
    assert [bool(ledger.end(session, ERROR, now=11).tickets) for session in sessions] == [False, False, True, True]


def test_a_restart_of_one_that_has_a_later_attempt_makes_none(ledger):
    ledger.add(attempts=3, overlap="parallel")
    first, = ledger.decide(10)
    second = next_attempt(ledger.end(first, ERROR, now=11)).session
    ledger.write(lambda connection: ledger.repository.arrivals.reopen(connection, first, {}, None, None, NOON + 12, False))
    assert not ledger.end(first, ERROR, now=13).tickets
    ledger.end(second, ERROR, now=14)
    ledger.write(lambda connection: ledger.repository.arrivals.reopen(connection, second, {}, None, None, NOON + 15, False))
    assert not ledger.end(second, ERROR, now=16).tickets and len(ledger.sessions()) == 3
    other, = ledger.decide(20)                  # a later session of another due time is none of it
    assert not ledger.end(3007, ERROR, now=21).tickets and ledger.session(3007)["attempt"] == 3
    ledger.decide(30)
    assert bool(ledger.end(other, ERROR, now=31).tickets)


def test_a_stale_session_is_tried_again_too(ledger):
    ledger.add(attempts=2, retry_delay=5)
    first, = ledger.decide(10)
    ledger.begin(first, 10)
    ending = ledger.write(lambda connection: ledger.repository.endings.close_stale(
        connection, ledger.repository.sessions.get(connection, first), NOON + 20))
    assert (ending.session, ending.status) == (1007, ERROR)
    assert [(ticket.session, ticket.status, ticket.start_at) for ticket in ending.tickets] == [
        (2007, "WAITING", NOON + 25)]
    assert ledger.occurrences() == [(10, 10, 1, STARTED, "", 2007)]


def test_an_attempt_and_the_end_of_the_one_before_are_one_transaction(ledger):
    ledger.add(attempts=2)
    first, = ledger.decide(10)
    ledger.begin(first)

    class Crash(Exception):
        pass

    def work(connection):
        assert ledger.repository.endings.end(connection, first, ERROR, "", NOON + 11).tickets
        raise Crash
    with pytest.raises(Crash):
        ledger.write(work)
    assert len(ledger.sessions()) == 1 and ledger.session(first)["status"] == "RUNNING"
    assert ledger.occurrences() == [(10, 10, 1, STARTED, "", first)]


def test_an_attempt_that_waits_is_one_that_waits(ledger):
    """For overlap it is a session of the schedule as any other."""
    ledger.add(attempts=2, retry_delay=100)
    ledger.end(*ledger.decide(10), ERROR, now=11)
    assert ledger.decide(20) == []
    ledger.set(overlap="stop")
    assert ledger.decide(30) == [(3007, [2007])] and ledger.session(2007)["status"] == STOPPED


def test_one_that_the_limit_of_its_scenario_ends_is_tried_again_too(ledger):
    ledger.put_scenarios(make_scenario("E", concurrency={"limit": 1, "on_limit": "error"}),
                         make_scenario("W", concurrency={"limit": 1, "max_wait": 5}))
    ledger.add(scenario="E", overlap="parallel", attempts=2, retry_delay=60)
    ledger.add("W", scenario="W", attempts=2, retry_delay=60)
    assert ledger.decide(10) == [1007]
    assert ledger.decide(20) == [2007, 3007]
    assert [ledger.session(number)["status"] for number in (2007, 3007)] == [ERROR, "WAITING"]
    assert ledger.session(3007)["start_at"] == text(80) and ledger.newest()["session"] == 3007
    waiting, = ledger.decide(10, name="W")
    ending = ledger.write(lambda connection: ledger.repository.endings.end_outstanding(
        connection, waiting, ERROR, "too long", NOON + 20))
    assert next_attempt(ending).session == 5007 and ledger.session(waiting)["status"] == ERROR
    assert ledger.session(waiting)["message"] == "too long; attempt 2 of 2 is session 5007"
    assert ledger.write(lambda connection: ledger.repository.endings.end_outstanding(
        connection, waiting, ERROR, "x", NOON + 21)) is None


def test_a_session_with_no_schedule_has_one_attempt(ledger):
    ledger.add(attempts=5)
    ticket = ledger.write(lambda connection: ledger.repository.arrivals.add(
        connection, agent.SessionRequest("J", "AGENT"), NOON))
    assert not ledger.end(ticket.session, ERROR).tickets


# -- both together: Schedules, with repositories and without threads of its own --------

class Direct:
    """An Inbox whose things are done at once: a Site has no threads of its own."""

    @staticmethod
    def put(function, pending):
        function(pending)


class Site:
    """The schedules of an agent, its repositories real, over starts and crashes. Nothing runs by itself: sessions end
    when the test says so, time goes on when it does. Times are seconds after noon."""
    inbox = Direct()

    def __init__(self, folder):
        self.clock, self.hold, self.is_running = FakeClock(), False, False
        self.path = str(folder / "master.db")
        agent.make_repositories(self.path, agent.Clock())
        self.tickets, self.replaced = [], []
        self.start()

    def start(self):
        """A start of the agent."""
        self.master = agent.Master(self.path, agent.Clock()).open()
        self.queue = self.make_queue()
        clock = agent.Clock()
        self.places = agent.Places(self.master, agent.Care(
            lambda attachment: agent.open_work(attachment, clock, self.inbox, True),
            lambda place: self.schedules.load(place), lambda repository: self.schedules.forget(repository), None, 60.0,
            clock))
        self.schedules = agent.Schedules("AGENT", self.places, self.master, self.clock, self.queue, lambda: self.hold,
                                         lambda repository, made: self.take(made))
        self.changes = agent.ScheduleChanges(self.schedules, self.places, self.master, self.clock)
        self.listing = agent.ScheduleListing(self.schedules, self.places, self.clock)
        self.scheduler = self.schedules.scheduler
        self.scheduler.hold(self.hold)
        self.is_running = True
        self.attach()

    def take(self, made):
        """What a due time has made."""
        self.replaced.extend([ending.session for ending in made.endings] + list(made.replaced))
        if made.ticket is not None:
            self.tickets.extend(made.ticket.ending.tickets if made.ticket.ending else [made.ticket])

    def make_queue(self):
        """Nothing begins there."""
        queue = agent.SessionQueue(4, None, lambda: False)
        queue.hold(True)
        return queue

    def attach(self):
        place, = self.places.list_all()
        place.attach()
        self.repository = place.repository
        self.tick()

    def detach(self):
        """The repository is lost, as with its disk; attach() brings it back."""
        place, = self.places.list_all()
        place.let_go("gone")

    def stop(self, within_s=10.0):
        """What was decided is written, or with 0 is not, where another program holds the file's lock."""
        if self.is_running:
            self.is_running = False
            self.scheduler.stop()
            self.repository.db.close(within_s)
            self.master.db.close()

    def settle(self):
        """Waits until all is written that was handed over."""
        self.repository.db.write(lambda connection: None)

    def tick(self):
        """Decides what is due, and what comes up by that."""
        left = 0
        while True:
            before, left = left, self.scheduler.tick()
            self.settle()
            if left == before and left != 0:
                return left

    def at(self, seconds):
        self.clock.move(NOON + seconds - self.clock.time)
        return self.tick()

    def add(self, name="S", rule="every 10s", enabled=True, **options):
        options = {key.rstrip("_"): value for key, value in options.items()}
        self.changes.add(Schedule(name, "AGENT", "HELLO", "-1", "GLOBAL", rule, "UTC", enabled, {}, options), None)
        self.settle()

    def set(self, name="S", **changes):
        own = {key: value for key, value in changes.items() if key in Schedule._fields}
        options = {key.rstrip("_"): value for key, value in changes.items() if key not in own}
        self.changes.set(name, None, lambda schedule: schedule._replace(
            options=dict(schedule.options, **options), **own))
        self.settle()

    def hold_agent(self, is_held):
        self.hold = is_held
        self.scheduler.hold(is_held)
        if not is_held:
            self.schedules.released()
        self.settle()

    def hold_one(self, is_held, name="S", until=None):
        self.changes.hold(name, Hold("", "me", self.clock.time, until and NOON + until) if is_held else None)
        self.settle()

    def end(self, session, status=DONE):
        """A session runs, in no time."""
        def work(connection):
            self.repository.sessions.begin(connection, session, "me", False, self.clock.time)
            return self.repository.endings.end(connection, session, status, "", self.clock.time)
        ending = self.repository.db.write(work)
        self.tickets.extend(ending.tickets)
        if ending.is_awaited:
            self.schedules.decide_after(self.repository)
        self.settle()

    def outstanding(self, name=None):
        """The sessions that have not begun."""
        with self.repository.db.reading() as connection:
            return [ticket.session for ticket in self.repository.sessions.list_outstanding(connection, "AGENT")
                    if name in (None, ticket.schedule)]

    def of(self, name="S", is_brief=True):
        """Occurrences, oldest first, as brief() has them: (reason told in words of decision when there is none)."""
        rows = [row for row in reversed(self.repository.db.read(self.repository.ledger.list_occurrences, name, 10000)) if row["schedule"] == name]
        if not is_brief:
            return rows
        return [from_text(row["due"]) - NOON if row["session"] else (
            from_text(row["due"]) - NOON, from_text(row["last_due"]) - NOON, row["count"],
            row["reason"] or row["decision"]) for row in rows]

    def row(self, name="S"):
        with self.repository.db.reading() as connection:
            return self.repository.schedules.get(connection, name)

    def sql(self, *statements):
        with closing(sqlite3.connect(self.repository.path, timeout=30, isolation_level=None)) as other:
            for statement in statements:
                other.execute(statement)

    def lock(self):
        """Another program holds the lock of the file until the connection is closed."""
        other = sqlite3.connect(self.repository.path, timeout=30, isolation_level=None)
        other.execute("begin immediate")
        return closing(other)

    @property
    def event_count(self):
        return len(self.scheduler._events.queue)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.stop()


def test_it_fires_and_goes_on_after_a_start(site):
    site.add(overlap="parallel")
    for second in (5, 10, 20):
        site.at(second)
    assert site.of() == [10, 20] and [ticket.schedule for ticket in site.tickets] == ["S", "S"]
    site.stop()
    site.clock.move(35)
    site.start()
    assert site.of() == [10, 20, (30, 40, 2, "misfire"), 50]
    site.at(60)
    assert site.of()[4:] == [60]
    rows = site.of(is_brief=False)
    assert rows[2]["message"] == "the agent was down" and len({row["session"] for row in rows}) == 5


@pytest.mark.parametrize("misfire, made", [("skip", [(10, 50, 5, "misfire")]), ("all", [10, 20, 30, 40, 50])])
def test_a_start_follows_misfire(site, misfire, made):
    site.add(overlap="parallel", misfire=misfire)
    site.stop()
    site.clock.move(55)
    site.start()
    assert site.of() == made


def test_a_year_down_is_a_few_rows(site):
    site.add(rule="every 1s", overlap="parallel", misfire="all", hours="08:00-18:00", exclude_weekdays="sat")
    site.stop()
    site.clock.move(366 * DAY)
    _, turns = turns_of(site.start)
    rows = site.of(is_brief=False)
    assert turns < 366 * DAY and len(rows) <= agent.MAX_MISSED + MAX_SPANS + 2
    assert sum(row["count"] for row in rows) == 366 * DAY
    assert sum(row["session"] is not None for row in rows) == agent.MAX_MISSED


def test_all_beside_queue_wait_in_line(site):
    """Who asks for all that was missed gets all, one after the other; what is due afterwards queues as ever."""
    site.add(misfire="all")
    site.stop()
    site.clock.move(55)
    site.start()
    assert site.of() == [10, 20, 30, 40, 50]
    site.at(60)
    assert site.of() == [10, 20, 30, 40, 50, (60, 60, 1, "overlap")]


def test_all_beside_skip_is_bounded_by_it(site):
    site.add(misfire="all", overlap="skip")
    site.stop()
    site.clock.move(55)
    site.start()
    assert site.of() == [10, (20, 50, 4, "overlap")]


def test_what_the_repository_missed_while_it_was_away(site):
    site.add(overlap="parallel")
    site.at(10)
    site.detach()
    site.scheduler.tick()
    site.clock.move(25)
    site.scheduler.tick()
    site.attach()
    assert site.of() == [10, (20, 20, 1, "repository"), 30]
    assert site.of(is_brief=False)[1]["message"] == "the repository could not be used"


def test_a_repository_that_is_slow(site):
    site.add(overlap="parallel")
    failures = site.repository.db.failures
    with site.lock():
        site.clock.move(10)
        site.scheduler.tick()
        wait_for(lambda: site.repository.db.failures > failures, "a try that fails")
        site.clock.move(25)
        site.scheduler.tick()
    site.settle()
    site.tick()
    assert site.of() == [10, (20, 20, 1, "repository"), 30]
    site.at(40)
    assert site.of()[3:] == [40]


def test_a_repository_that_is_a_little_slow(site):
    site.add(overlap="parallel", misfire="skip")
    with site.lock():
        site.clock.move(10)
        site.scheduler.tick()
        site.clock.move(4.5)
        site.scheduler.tick()
    site.settle()
    site.at(15)
    site.at(20)
    assert site.of() == [10, 20]


def test_killed_before_a_decision_is_written(site):
    site.add(overlap="parallel")
    site.at(10)
    with site.lock():
        site.clock.move(10)
        site.scheduler.tick()
        site.stop(0.0)
    site.clock.move(20)
    site.start()
    assert site.of() == [10, (20, 30, 2, "misfire"), 40]


def test_a_change_loses_no_due_time_that_is_about_to_be_decided(site):
    """It is due, the tick is a little late, and a change of something else comes first."""
    site.add(misfire="skip", overlap="parallel")
    site.clock.move(10.1)
    site.set(priority=3)
    site.tick()
    assert site.of() == [10]
    site.clock.move(9.95)
    site.schedules.update()
    site.tick()
    assert site.of() == [10, 20]
    assert site.of(is_brief=False)[0]["decision"] == STARTED


def test_a_change_does_not_lose_what_its_jitter_delays(site):
    due = find_late(300, 500)
    site.clock.move(due - 500)
    site.add(rule="every 1000s", jitter=600, misfire="skip")
    site.at(due + 10)
    site.set(priority=3)
    site.at(due + late(due, 600) - 1)
    assert site.of() == []
    site.at(due + late(due, 600))
    assert site.of() == [due] and site.tickets[-1].start_at == NOON + due + late(due, 600)


def test_a_change_of_its_times_forgets_what_was_due(site):
    site.add()
    site.clock.move(10.1)
    site.set(rule="every 15s")
    site.at(31)
    assert site.of() == [(10, 10, 1, "misfire"), 15, (30, 30, 1, "overlap")]
    assert "changed" in site.of(is_brief=False)[0]["message"]
    site.set(enabled=False)
    site.at(100)
    site.set(enabled=True)
    site.at(105)
    assert site.of()[1:] == [15, (30, 105, 2, "overlap")]


def test_what_comes_while_a_change_of_its_times_is_written_is_not_forgotten(site):
    """Up to when is said once; with the next due time it goes on from there."""
    site.add(overlap="parallel")
    site.clock.move(10.1)

    def change(schedule):
        site.clock.move(10)
        return schedule._replace(timezone="")
    site.changes.set("S", None, change)
    site.tick()
    assert site.of() == [(10, 10, 1, "misfire"), 20]
    site.clock.time = NOON + 29.999995      # which the tables have as 30
    site.set(timezone="UTC")
    site.at(45)
    assert site.of()[2:] == [(30, 30, 1, "misfire"), 40]


def test_a_change_of_its_times_while_due_times_are_being_decided(site):
    site.add(overlap="parallel")
    with site.lock():
        site.clock.move(10)
        site.scheduler.tick()
        site.clock.move(25)
    site.set(timezone="")
    site.at(45)
    assert site.of() == [10, (20, 30, 2, "misfire"), 40]


def test_a_change_of_its_times_tells_of_what_was_held(site):
    site.add(overlap="parallel")
    site.at(10)
    site.hold_one(True)
    site.at(35)
    site.set(timezone="")
    site.at(45)
    site.hold_one(False)
    site.tick()
    assert site.of() == [10, (20, 30, 2, "misfire"), 40]


def test_what_another_program_writes_is_decided_from_then_on(site):
    """The time that the trigger notes is SQLite's, which knows nothing of the clock of the test."""
    site.add(overlap="parallel")
    site.at(10)
    site.sql("update schedule set rule='every 7s'")
    site.at(20)
    assert site.of() == [10] and site.tickets[1:] == []         # out of date: nothing is decided
    site.sql("update schedule set decided='%s', revision=revision + 1" % text(21))
    site.schedules.update()
    site.at(35)
    assert site.of() == [10] + [due for due in range(22, 36) if (NOON + due) % 7 == 0]


def test_the_hold_of_the_agent(site):
    site.add(overlap="parallel")
    site.add("SKIP", misfire="skip")
    site.hold_agent(True)
    for second in (10, 20, 35):
        site.at(second)
    assert site.of() == site.of("SKIP") == []
    site.hold_agent(False)
    site.tick()
    assert site.of() == [(10, 20, 2, "hold"), 30] and site.of("SKIP") == [(10, 30, 3, "hold")]
    site.at(40)
    assert site.of()[2:] == [40] and site.of("SKIP")[1:] == [40]


def test_the_hold_of_the_agent_over_a_start(site):
    site.add(overlap="parallel")
    site.hold_agent(True)
    site.stop()
    site.clock.move(25)
    site.start()
    assert site.of() == []
    site.at(35)
    site.hold_agent(False)
    site.tick()
    assert site.of() == [(10, 20, 2, "hold"), 30]


def test_the_hold_of_one_schedule(site):
    site.add(overlap="parallel")
    site.add("OTHER", overlap="parallel")
    site.hold_one(True)
    site.at(15)
    site.set(grace=1000)            # a change leaves the hold
    site.at(25)
    site.stop()
    site.start()
    site.at(35)
    assert site.of() == [] and site.of("OTHER") == [10, 20, 30]
    site.hold_one(False)
    site.tick()
    assert site.of() == [(10, 20, 2, "hold"), 30]
    site.at(40)
    assert site.of()[2:] == [40]


def test_the_hold_of_one_within_that_of_the_agent(site):
    site.add(overlap="parallel")
    site.hold_agent(True)
    site.at(15)
    site.hold_one(True)
    site.at(25)
    site.hold_agent(False)
    site.at(35)
    assert site.of() == []
    site.hold_one(False)
    site.tick()
    assert site.of() == [(10, 20, 2, "hold"), 30]


def test_a_hold_with_an_end(site):
    site.add(overlap="parallel")
    site.hold_one(True, until=35)
    for second in (10, 20, 30):
        site.at(second)
    assert site.of() == [] and site.row()["hold_since"]
    site.at(35)
    assert site.of() == [(10, 20, 2, "hold"), 30] and site.row()["hold_since"] is None
    site.hold_one(True, until=60)
    site.hold_one(True, until=80)
    site.at(75)
    assert site.row()["hold_since"]
    site.at(80)
    assert site.row()["hold_since"] is None


def test_changes_of_a_schedule_that_is_held_until_leave_no_events_behind(site):
    site.add()
    site.hold_one(True, until=10 ** 7)
    for number in range(30):
        site.set(priority=number)
    site.tick()
    assert len([event for event in site.scheduler._events.queue if event.action is not site.scheduler._look]) == 1
    site.stop()
    site.start()
    site.at(10 ** 7)
    assert site.row()["hold_since"] is None


def test_what_after_met_while_held_fires_at_the_release(site):
    site.add("A", rule="every 10s")
    site.add(rule="", after="A")
    site.add("ONE", rule="", after="A")
    site.at(10)
    site.hold_one(True, "ONE")
    site.hold_agent(True)
    site.end(*site.outstanding("A"))
    site.at(15)
    assert site.of() == []
    site.hold_agent(False)
    assert site.of() == [15] and site.of("ONE") == []
    site.at(16)
    site.hold_one(False, "ONE")
    assert site.of("ONE") == [16]


def test_after_fires_once_over_starts(site):
    site.add("A")
    site.add(rule="", after="A")
    site.at(10)
    site.end(*site.outstanding("A"))
    assert site.of() == [10]
    site.stop()
    site.start()
    assert site.of() == [10]
    site.at(20)
    session, = site.outstanding("A")
    site.repository.db.write(lambda connection: (
        site.repository.sessions.begin(connection, session, "me", False, NOON + 20),
        site.repository.endings.end(connection, session, DONE, "", NOON + 20)))   # .. and the agent is killed
    site.end(*site.outstanding("S"))
    site.stop()
    site.clock.move(3)
    site.start()
    assert site.of() == [10, 23]


def test_startup_fires_at_each_start(site):
    site.add(rule="startup", overlap="parallel")
    site.add("OFF", rule="startup", enabled=False)
    site.at(10)
    assert site.of() == []
    for number in (1, 2):
        site.stop()
        site.clock.move(10)
        site.start()
        site.schedules.update()
        site.set(priority=number)
        site.set("OFF", enabled=number == 1)
        site.tick()
        assert site.of() == [20, 30][:number] and site.of("OFF") == [30][:number - 1]


def test_startup_under_holds_fires_at_the_release(site):
    site.add(rule="startup")
    site.add("ONE", rule="startup")
    site.hold_one(True, "ONE")
    site.hold_agent(True)
    site.stop()
    site.clock.move(10)
    site.start()
    site.set(timezone="")               # it is changed meanwhile
    site.at(20)
    assert site.of() == site.of("ONE") == []
    site.hold_agent(False)
    assert len(site.of()) == 1 and site.of("ONE") == []
    site.at(25)
    site.hold_one(False, "ONE")
    assert site.of("ONE") == [10]
    site.hold_agent(True)
    site.hold_agent(False)
    assert len(site.of()) == len(site.of("ONE")) == 1


def test_startup_on_a_host_whose_clock_is_behind(site):
    """As one without a battery, before it asks the network: a start is a start."""
    site.add(rule="startup", overlap="parallel")
    for step in (0, -DAY, 100):
        site.stop()
        site.clock.move(10)
        site.clock.step(step)
        site.start()
    assert len(site.of()) == 3 and len({ticket.session for ticket in site.tickets}) == 3


def test_a_schedule_that_cannot_fire_says_so_once(site, caplog):
    site.add()
    site.add("GOOD")
    site.stop()
    site.sql("update schedule set timezone='Mars/Olympus', decided='%s' where name='S'" % text(0))
    for _ in range(2):
        site.clock.move(12)
        with caplog.at_level(logging.WARNING):
            site.start()
        site.stop()
    site.start()
    row, = site.of(is_brief=False)
    assert (row["decision"], row["reason"], row["session"]) == (FAILED, "", None)
    assert row["message"].startswith("does not fire: timezone 'Mars/Olympus'") and "Mars/Olympus" in caplog.text
    assert site.of("GOOD")
    assert "does not fire" in agent.explain(dict(row, status=None))


def test_once_it_can_fire_again_what_was_missed_is_decided(site):
    """Its zone was not known to this Python; a newer one knows it."""
    site.add(overlap="parallel")
    site.at(10)
    site.stop()
    site.sql("update schedule set timezone='Mars/Olympus'", "update schedule set decided='%s'" % text(10))
    site.clock.move(15)
    site.start()
    site.stop()
    site.sql("update schedule set timezone='UTC'", "update schedule set decided='%s'" % text(10))
    site.clock.move(1)
    site.start()
    rows = site.of()
    assert rows == [10, 20, (25.5, 25.5, 1, "failed")]
    site.at(30)
    assert site.of()[-1] == 30


@pytest.mark.parametrize("spoilt", [
    "options='nonsense'", "options='[1]'", "options='{\"misfire\": \"maybe\"}'", "options='{\"no_such\": 1}'",
    "options='{\"hours\": \"8-18\"}'", "options='{\"jitter\": []}'", "variables='{'", "variables='{\"v\": []}'",
    "rule='every blue moon'"])
def test_what_another_program_has_spoilt_costs_the_others_nothing(site, spoilt):
    site.add()
    site.add("GOOD", rule="every 10s")
    site.add("AFTER", rule="", after="GOOD")
    site.stop()
    site.sql("update schedule set %s where name='S'" % spoilt)
    site.clock.move(15)
    site.start()
    assert site.of("GOOD") == [10]
    assert site.of(is_brief=False)[0]["message"].startswith("does not fire: ")
    site.end(*site.outstanding("GOOD"))
    assert site.of("AFTER") == [15]
    assert [(stored.schedule.name, due is not None) for _, stored, due in site.listing.list_all()] == [
        ("AFTER", False), ("GOOD", True), ("S", False)]
    site.changes.put_calendar("C", "2026-12-25", True)
    site.changes.delete("S", None)
    site.add()
    site.at(20)
    assert site.of()[-1] == 20


def test_what_another_program_writes_in_other_words_is_understood(site):
    site.add(rule="every 1000s")
    site.stop()
    site.sql("update schedule set options='{\"jitter\": \"10m\", \"retry_delay\": \"1m\", \"attempts\": 2}'",
             "update schedule set decided='%s'" % text(0))
    site.start()
    due = site.scheduler.find((1, "S")).timetable.next_after(NOON) - NOON
    planned = due + late(due, 600)
    site.at(planned)
    assert site.of() == [due]
    site.end(*site.outstanding("S"), status=ERROR)
    assert site.tickets[-1].start_at == NOON + planned + 60


def test_a_step_of_the_clock_is_noticed_and_noted(site):
    site.add(overlap="parallel")
    site.at(1)
    site.clock.step(50)
    site.at(52)
    assert site.of() == [(10, 40, 4, "misfire"), 50]
    assert site.of(is_brief=False)[0]["message"] == "the clock stepped forward by 50.0 s"
    site.clock.step(-30)
    site.at(23)
    site.add("NEW", overlap="parallel", misfire="skip")
    site.at(45)
    assert site.of() == [(10, 40, 4, "misfire"), 50] and site.of("NEW") == [30, 40]
    site.at(60)
    assert site.of()[2:] == [60] and site.of("NEW")[2:] == [50, 60]
    steps = [row for row in site.repository.db.read(site.repository.ledger.list_occurrences, None, 99) if row["schedule"] == ""]
    assert [(row["count"], from_text(row["due"]) - NOON) for row in steps] == [(0, 52), (0, 23)]
    assert steps[0]["message"].startswith("the clock stepped forward by 50.0 s: ")
    assert steps[1]["message"].startswith("the clock stepped back by 30.0 s: ")
    site.stop()
    site.start()                # nor does a start after the step
    assert len(site.of()) == 3


@pytest.mark.parametrize("is_started_anew", [False, True])
def test_a_calendar_that_changes_fires_nothing_of_the_past(site, is_started_anew):
    site.changes.put_calendar("C", "2026-06-01", True)
    site.add(exclude_dates="C", overlap="parallel")
    for second in (10, 20, 30):
        site.at(second)
    assert site.of() == [(10, 10, 1, "window")]
    site.changes.put_calendar("C", "2026-06-02", False)
    site.settle()
    assert site.of() == [(10, 30, 3, "window")]
    if is_started_anew:
        site.stop()
        site.start()
    site.at(40)
    assert site.of() == [(10, 30, 3, "window"), 40] and site.event_count <= 2
    site.changes.put_calendar("C", "2026-06-01", False)
    site.at(50)
    assert site.of()[1:] == [40, (50, 50, 1, "window")]
    with pytest.raises(agent.Conflict):
        site.changes.delete_calendar("C")


def test_a_calendar_that_changes_loses_nothing_that_is_held(site):
    site.changes.put_calendar("C", "2026-01-01", True)
    site.add(exclude_dates="C", overlap="parallel")
    site.add("ONE", exclude_dates="C", overlap="parallel")
    site.hold_one(True, "ONE")
    site.hold_agent(True)
    site.at(25)
    site.changes.put_calendar("C", "2026-01-02", False)
    site.at(35)
    site.hold_agent(False)
    site.hold_one(False, "ONE")
    site.tick()
    assert site.of() == site.of("ONE") == [(10, 20, 2, "hold"), 30]


def test_a_calendar_that_changes_loses_nothing_that_its_jitter_delays(site):
    site.changes.put_calendar("C", "2026-01-01", True)
    due = find_late(300, 500)
    site.clock.move(due - 500)
    site.add(rule="every 1000s", jitter=600, misfire="skip", exclude_dates="C")
    site.at(due + 10)
    site.changes.put_calendar("C", "2026-01-02", False)
    site.at(due + late(due, 600))
    assert site.of() == [due]


def test_a_calendar_that_changes_while_the_repository_is_slow(site):
    site.changes.put_calendar("C", "2026-01-01", True)
    site.add(exclude_dates="C", overlap="parallel")
    with site.lock():
        site.clock.move(10)
        site.scheduler.tick()
        site.changes.put_calendar("C", "2026-01-02", False)
        site.clock.move(2)
        site.scheduler.tick()
    site.settle()
    site.at(20)
    site.at(30)
    assert site.of() == [10, 20, 30] and len(site.tickets) == 3 and site.event_count == 1


def test_a_calendar_that_comes_late(site):
    """The schedule could not fire without it; what was due meanwhile is past."""
    site.changes.put_calendar("C", "2026-01-01", True)
    site.add(exclude_dates="C", overlap="parallel")
    site.stop()
    site.start()
    site.at(10)
    site.master.delete_calendar("C")
    site.stop()
    site.start()
    site.at(35)
    assert site.of()[:1] == [10] and site.of()[-1][3] == "failed"
    site.changes.put_calendar("C", "2026-01-01", True)
    site.at(40)
    assert [row for row in site.of() if not isinstance(row, tuple)] == [10, 40]


def test_a_schedule_added_by_another_program_is_not_judged_as_missed(site):
    """What comes due between its commit and its reading, as of an IMPORT of many, is a little late."""
    schedule = Schedule("S", "AGENT", "HELLO", "-1", "GLOBAL", "every 10s", "UTC", True, {}, {"misfire": "skip"})
    site.repository.db.write(lambda connection: site.repository.schedules.add(connection, schedule, NOON + 9))
    site.clock.move(11)
    site.schedules.refresh(site.repository, "S")
    site.tick()
    assert site.of() == [10]


def test_a_due_time_that_stops_the_one_before_says_whom(site):
    site.add(overlap="stop")
    site.at(10)
    site.at(20)
    assert site.of() == [10, 20] and site.replaced == [site.tickets[0].session]


def test_one_of_another_agent_is_not_decided(site):
    site.add()
    site.changes.set("S", None, lambda schedule: schedule._replace(agent="OTHER"))
    site.at(30)
    assert site.of() == [] and site.scheduler.list_entries(1) == []


def test_a_schedule_deleted_and_added_again_decides_nothing_twice(site):
    site.add(overlap="parallel")
    site.at(10)
    site.clock.step(-5)
    site.changes.delete("S", None)
    site.add(overlap="parallel")
    for second in (5, 10, 20):
        site.at(second)
    assert site.of() == [10, 20]


def test_the_preview_of_all_and_of_one(site):
    site.add("A", "every 20s")
    site.add("B", "every 30s", after="A", hours="12:00-12:01")
    site.add("OFF", "every 10s", enabled=False)
    site.add("LAST", rule="", after="A")

    def preview(name, end, count=9, with_excluded=False):
        return [(due - NOON, who, note) for due, who, _, note in site.listing.preview(
            name, None, None, NOON + end, count, with_excluded)]
    assert preview(None, 60) == [(20, "A", ""), (30, "B", "waits for A"), (40, "A", ""), (60, "A", ""),
                                 (60, "B", "waits for A")]
    assert preview(None, 60, 2) == preview(None, 60)[:2]
    assert preview("OFF", 25) == [(10, "OFF", "disabled"), (20, "OFF", "disabled")]
    assert preview("LAST", 1000) == []
    assert preview("B", 120, with_excluded=True) == [
        (30, "B", "waits for A"), (60, "B", "waits for A"), (90, "B", "excluded (window): outside hours"),
        (120, "B", "excluded (window): outside hours")]
    site.clock.move(25)
    assert preview("A", 60) == [(40, "A", ""), (60, "A", "")]       # from now on
    site.tick()
    site.clock.step(-15)
    for enabled in (False, True):
        site.set("A", enabled=enabled)
    assert site.of("A") == [20] and preview("A", 60) == [(40, "A", ""), (60, "A", "")]      # 20 does not fire again
    with pytest.raises(agent.NotFound):
        preview("NO_SUCH", 60)
    with pytest.raises(agent.NotFound):
        list(site.listing.list_occurrences("NO_SUCH", None, 9))
    assert list(site.listing.list_occurrences("OFF", None, 9)) == [] and site.of() == []


def test_a_plan_of_what_is_there(site, monkeypatch):
    site.add("A", "every 20s", jitter=30, overlap="parallel")
    site.add("B", "every 30s", overlap="skip")
    site.add("OFF", "every 10s", enabled=False)
    site.changes.set("A", None, lambda schedule: schedule)
    session = site.repository.db.write(lambda connection: site.repository.arrivals.add(
        connection, agent.SessionRequest("HELLO", "AGENT"), NOON)).session
    site.repository.db.write(lambda connection: (
        site.repository.sessions.begin(connection, session, "me", False, NOON + 0),
        site.repository.endings.end(connection, session, DONE, "", NOON + 45)))
    end, visits = site.listing.plan(agent.Period(NOON + 1, NOON + 100, NOON, 10), None, [])
    assert end == NOON + 100 and [visit.at for visit in visits] == sorted(visit.at for visit in visits)
    assert sorted((visit.name, visit.due - NOON) for visit in visits) == [
        ("A", due) for due in range(20, 101, 20)] + [("B", due) for due in (30, 60, 90)]
    assert {visit.duration for visit in visits} == {45}
    assert [visit.outcome for visit in visits if visit.name == "B"] == [agent.STARTS, agent.SKIPS, agent.STARTS]
    assert [visit.begin == visit.at == visit.due + late(visit.due - NOON, 19, "A") for visit in visits
            if visit.name == "A"] == [True] * 4 + [False]
    assert visits[-1].at > end and visits[-1].outcome == agent.UNFIT       # jitter leads out of the period
    monkeypatch.setattr(agent, "MAX_VISITS", 4)
    end, visits = site.listing.plan(agent.Period(NOON + 1, NOON + 100, NOON, 10), None, [])
    assert (end, len(visits)) == (NOON + 60, 4) and max(visit.due for visit in visits) <= end
    assert site.of("A") == []


class Life(Site):
    """A Site with schedules of random options, through all that may come."""

    def __init__(self, folder, rng):
        super().__init__(folder)
        self.rng, self.steps, self.references = rng, 0, {}
        self.moved = set()          # those whose times were set anew, to the same
        self.locked = None
        for name in ("A", "B", "C"):
            reference = self.references[name] = next(
                made for made in iter(lambda: Reference(rng), None) if made.due and made.due[-1] > 0)
            options = {"misfire": rng.choice(("once", "skip", "all")), "jitter": rng.choice((0, 0, 5, 90)),
                       "overlap": rng.choice(("queue", "skip", "parallel", "stop")), "attempts": rng.choice((1, 2)),
                       "retry_delay": rng.choice((0, 30)), "after": "A" if name == "C" else None}
            options.update(reference.options)
            self.add(name, reference.rule, **{key: value for key, value in options.items() if value})

    def go_on(self):
        rng = self.rng
        self.do(rng.choice(("hold", "release", "hold one", "release one", "set", "end", "end", "start", "lock", "unlock",
                            "step", "update", "times", "nothing", "nothing")), rng.choice("ABC"))
        self.clock.move(rng.choice((0.1, 0.9, 1, 3, 17, 70)))
        self.scheduler.tick() if self.locked else self.tick()

    def do(self, what, name):
        rng = self.rng
        if self.locked and what not in ("unlock", "start", "step", "nothing"):
            return
        if what in ("hold", "release"):
            self.hold_agent(what == "hold")
        elif what in ("hold one", "release one"):
            self.hold_one(what == "hold one", name)
        elif what == "set":
            self.set(name, misfire=rng.choice(("once", "skip", "all")), grace=rng.choice((20, 500)),
                     priority=rng.randrange(9))
        elif what == "update":
            self.schedules.update()
        elif what == "times" and self.references[name].due[-1] > self.clock.time - NOON + 5:
            self.moved.add(name)
            self.changes.set(name, None, lambda schedule: schedule._replace(
                timezone="" if schedule.timezone else "UTC"))
            self.settle()
        elif what == "end":
            for session in self.outstanding(name):
                self.end(session, rng.choice((DONE, ERROR, STOPPED)))
        elif what == "start":
            self.stop(0.0 if self.locked else 10.0)
            self.unlock()
            self.clock.move(rng.choice((0, 1, 100)))
            self.start()
        elif what == "lock" and not self.locked:
            self.locked = self.lock()
        elif what == "unlock":
            self.unlock()
        elif what == "step" and self.steps < 4:
            self.steps += 1
            self.clock.step(rng.choice((-200, -20, -0.7, 0.7, 20, 200)))

    def unlock(self):
        if self.locked:
            self.locked.thing.close()
            self.locked = None
            if self.is_running:
                self.settle()

    def finish(self):
        self.unlock()
        self.hold_agent(False)
        for name in self.references:
            self.hold_one(False, name)
        for _ in range(3):
            self.clock.move(EXCLUDED_S)
            self.tick()

    def check(self, name):
        """Every due time of the rule is decided, and stands in one row, or waits for `after`.

        What was excluded in the last minute before a change of its times is not recorded.
        """
        found, reference = collections.Counter(), self.references[name]
        excluded = [] if name in self.moved else reference.excluded
        row = self.row(name)
        decided = from_text(row["decided"]) - NOON
        if row["waiting"]:
            found[from_text(row["waiting"]) - NOON] += 1
        for made in self.of(name):
            if not isinstance(made, tuple):
                found[made] += 1
                assert made in reference.due
                continue
            first, last, count, reason = made
            inside = [s for s in (excluded if reason == "window" else reference.due) if first <= s <= last]
            if reason != "window" or excluded:
                assert (first, last, count) == (inside[0], inside[-1], len(inside)), made
            found.update(inside)
        now, jitter = self.clock.time - NOON, json.loads(row["options"]).get("jitter", 0)
        assert now < 4000
        assert found == dict.fromkeys({s for s in reference.due + excluded if 0 < s <= decided}, 1)
        left = [s for s in reference.due if decided < s < now]
        following = [s for s in reference.due if left and s > left[0]][:1] or [left and left[0] + jitter + 1]
        assert not left or left[0] + late(left[0], min(jitter, following[0] - left[0] - 1), name) > now
        assert not [s for s in excluded if decided < s < min(left + [now - EXCLUDED_S - 1])]
        with self.repository.db.reading() as connection:
            twice = connection.execute("select due from session where schedule=? and attempt=1 group by due"
                                       " having count(*) > 1", (name,)).fetchall()
        assert not twice


@pytest.mark.parametrize("seed", range(8))
def test_at_random_every_due_time_stands_in_the_ledger_exactly_once(tmp_path, seed, monkeypatch):
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    life = Life(tmp_path, random.Random(seed))
    try:
        for _ in range(50):
            life.go_on()
        life.finish()
        for name in life.references:
            life.check(name)
        assert life.event_count < 300
    finally:
        life.unlock()
        life.stop()
        monkeypatch.undo()
        time.tzset()
