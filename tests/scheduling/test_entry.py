"""What becomes of due times: an Entry that judges them, against a reference that looks at every second."""
import random
import time

import pytest

import agent
from agent import DOWN, EXCLUDED_S, MAX_SPANS, Missed, Span, make_timetable
from conftest import turns_of
from support.site import DAY, HOUR, NOON, Reference, brief, find_late, late, make_entry


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
