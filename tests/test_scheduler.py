"""Section 12 without a thread, the clock in the test's hand; what a repository decides of a due time; and both
together over holds, steps of the clock, crashes and starts, against a reference that looks at every second."""
import bisect
import collections
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
                   Entry, Hold, Policy, Schedule, Scheduler, Span, WorkRepository, find_jitter, from_text,
                   make_timetable, to_text)

NOON = 1780315200               # 2026-06-01T12:00:00Z, a Monday
HOUR, DAY = 3600, 86400
Owner = collections.namedtuple("Owner", "id")
HELD = Hold("", "me", to_text(NOON), None)


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
    return Entry(Owner(repository), name, revision, timetable, Policy(misfire, grace, jitter), hold, NOON + decided,
                 NOON + since, why)


# -- what becomes of due times: Entry.judge --------------------------------------------

def judged(entry, now, since=None, why=DOWN):
    """(up to where all is decided, what becomes of it), in seconds after noon."""
    upto, spans = entry.judge(NOON + now, entry.since if since is None else NOON + since, why)
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
    ("daily at 12:00", 0, 0, 5 * DAY, {"to": "2026-06-03"}, 2 * DAY, [1 * DAY, 2 * DAY]),     # it is over
    ("startup", 0, 100, 100, {}, 0, []),
])
def test_judge(rule, decided, since, now, options, upto, expected):
    said, spans = judged(make_entry(rule, decided, since, **options), now)
    assert (spans, said) == (expected, upto)


def test_the_reason_and_its_words_are_handed_through():
    for why in (DOWN, agent.AWAY, agent.ON_HOLD, ("misfire", "the clock stepped forward by 5.0 s")):
        _, spans = make_entry("every 10s").judge(NOON + 45, NOON + 25, why)
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
    upto, spans = entry.judge(NOON + planned, 0, DOWN)
    assert (upto, spans) == (NOON + due, [Span(NOON + due, NOON + due, 1, "", "", NOON + planned)])
    assert make_entry("every 1000s", due - 1).judge(NOON + due, 0, DOWN)[1][0].planned is None


def test_a_missed_time_whose_jitter_is_still_to_come_waits_for_it():
    due = find_late(300, 500)
    entry = make_entry("every 1000s", due - 3001, jitter=600)
    planned = due + late(due, 600)
    upto, spans = judged(entry, due + 10, since=due + 5)
    assert (upto, spans) == (due - 1, [(due - 3000, due - 1000, 3, "misfire")])
    entry.decided = NOON + upto
    assert entry.find_event() == NOON + planned
    assert judged(entry, planned, since=due + 5) == (due, [due])


@pytest.mark.parametrize("misfire", ["once", "all"])
def test_grace_counts_from_the_planned_time(misfire):
    due = find_late(300, 500)
    planned = due + late(due, 600)
    entry = make_entry("every 1000s", due - 1, jitter=600, misfire=misfire, grace=100)
    assert judged(entry, planned, since=due + 5) == (due, [due])
    assert judged(entry, planned + 90, since=due + 5) == (due, [due])
    assert judged(entry, due + 900, since=due + 5) == (due, [(due, due, 1, "misfire")])


def test_all_with_jitter_makes_each_with_its_planned_time():
    due = find_late(300, 500)
    entry = make_entry("every 1000s", due - 3001, jitter=600, misfire="all")
    _, spans = entry.judge(NOON + due + 10, NOON + due + 5, DOWN)
    assert [(span.first, span.planned) for span in spans] == [
        (NOON + each, NOON + each + late(each, 600)) for each in range(due - 3000, due + 1, 1000)]


def test_what_is_due_later_waits_behind_what_its_jitter_delays():
    entry = make_entry("every 10s", jitter=600)
    firsts = late(10, 600)
    assert judged(entry, 10 + firsts - 1, since=-1) == (0, [])
    upto, spans = judged(entry, 10 + firsts, since=-1)
    assert spans[0] == 10 and spans == list(range(10, upto + 1, 10))


def test_a_late_tick_hands_over_a_batch_at_a_time():
    entry = make_entry("every 1s")
    upto, spans = judged(entry, 3000)
    assert (upto, spans) == (agent.MAX_BATCH, list(range(1, agent.MAX_BATCH + 1)))
    entry = make_entry("every 1s", hours="12:00-12:10")
    upto, spans = judged(entry, 2 * DAY)
    assert upto == agent.MAX_BATCH


def cost(work):
    """(its value, seconds of processor time)"""
    begun = time.process_time()
    value = work()
    return value, time.process_time() - begun


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
    (upto, spans), seconds = cost(lambda: entry.judge(NOON, NOON, DOWN))
    assert len(spans) <= MAX_SPANS + agent.MAX_MISSED + MAX_SPANS and seconds < 3
    bare = make_timetable(rule, options.get("zone", "UTC"))
    assert sum(span.count for span in spans) == bare.count(NOON + begin, upto)
    entry.decided = upto
    event, seconds = cost(entry.find_event)
    assert seconds < 1 and (event is None or event > NOON - EXCLUDED_S)


def test_a_year_of_excluded_seconds_while_nothing_is_due_is_cheap():
    entry = make_entry("every 1s", -366 * DAY, exclude_dates="2000-01-01..2030-01-01")
    (upto, spans), seconds = cost(lambda: judged(entry, 0))
    assert (upto, spans) == (0, [(-366 * DAY + 1, 0, 366 * DAY, "window")]) and seconds < 3


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
            return due + late(due, jitter)
        due = [s for s in self.due if s > decided]
        missed = [s for s in due if s <= min(since, now)]
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
            if misfire == "once" and runs and plan(missed[-1]) > now:
                cursor, runs = cursor - 1, []
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
    """The same may be decided once more, which the repository refuses; it is not lost, and no event stays over."""
    decisions.is_prompt = False
    entry = decisions.put("every 10s")
    decisions.at(10)
    decisions.scheduler.hold(True)
    decisions.at(25)
    decisions.scheduler.hold(False)
    decisions.scheduler.decided(entry, NOON + 10)
    decisions.is_prompt = True
    decisions.at(26)
    decisions.at(30)
    assert decisions.of()[-2:] == [20, 30] and decisions.event_count == 1


def test_the_hold_of_one_schedule_leaves_the_others(decisions):
    held = decisions.put("every 10s", hold=HELD)
    decisions.put("every 10s", "OTHER")
    for second in (10, 20):
        assert [name for name, _ in decisions.at(second)[0]] == ["OTHER"]
    decisions.put("every 10s", decided=held.decided - NOON, why=agent.ON_HOLD)      # its release
    assert decisions.at(30)[0] == [("S", (10, 10, 1, "hold")), ("S", 20), ("S", 30), ("OTHER", 30)] \
        or sorted(decisions.of(), key=str) == sorted([(10, 10, 1, "hold"), 20, 30], key=str)


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
        clock.move(next(pauses, 0.0))
        return now()
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
    """It was loaded at 100 and decided up to 0; after the step the times up to 50 are missed, those after are not."""
    decisions.at(100)
    decisions.put("every 10s", decided=0, misfire="skip", hold=HELD)
    decisions.clock.step(-50)
    decisions.tick()
    decisions.put("every 10s", decided=0, misfire="skip", since=50)
    decisions.at(75)
    assert decisions.of() == [(10, 50, 5, "misfire"), 60, 70]


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
            was_held, self.hold = self.hold, HELD if what == "hold one" else None
            self.put(self.clock.time - NOON, agent.ON_HOLD if was_held else DOWN)
        elif what == "set":
            before = self.scheduler.find((1, "S"))
            self.policy = rng.choice(("once", "skip", "all")), rng.choice((None, 0, 20, 500)), self.policy[2]
            self.revision += 1
            self.put(before.since - NOON, before.why)
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
