"""SCHED PLAN and the preview, without a repository: what comes, what would become of it, and how it is told."""
import contextlib
import itertools
import random
import sqlite3
import time

import pytest

import agent
from agent import (OVERLAPS, QUEUES, SKIPS, STARTS, UNFIT, Definitions, Play, Schedule, Visit, find_jitter, list_coming,
                   list_earliest, list_notes, list_visits, visit_maker)
from conftest import turns_of

pytestmark = pytest.mark.once

NOON = 1780315200               # 2026-06-01T12:00:00Z, a Monday
HOUR, DAY = 3600, 86400


@pytest.fixture(autouse=True)
def in_utc(monkeypatch):
    """Times are told in the system's zone."""
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def make_schedule(name="S", rule="every 10s", enabled=True, **options):
    options = {key.rstrip("_"): value for key, value in options.items()}
    return Schedule(name, "AGENT", "J", "-1", "GLOBAL", rule, "UTC", enabled, {}, options)


# -- the preview -----------------------------------------------------------------------

def coming(begin, end=None, with_excluded=False, count=10, **options):
    """[(seconds after noon, seconds of the one before, why it is excluded)]"""
    timetable = make_schedule(**options).timetable({})
    found = list_coming(timetable, NOON + begin, None if end is None else NOON + end, with_excluded, ("S",))
    return [(due - NOON, before - NOON, excluded and excluded[0])
            for due, _, before, excluded, _ in itertools.islice(found, count)]


def test_what_comes():
    assert coming(0, count=3) == [(10, 0, None), (20, 10, None), (30, 20, None)]
    assert coming(0.5, 20) == [(10, 0, None), (20, 10, None)]
    assert coming(10, 19.9) == [] and coming(0, 0) == []
    assert coming(0, rule="startup") == [] and coming(0, 100, True, rule="startup") == []
    assert coming(0, rule="at 2026-06-01 12:00:05") == [(5, 0, None)]


def test_what_comes_with_what_does_not():
    hours = {"rule": "every 1h", "hours": "12:00-13:00"}
    assert coming(0, 26 * HOUR, **hours) == [(HOUR, 0, None), (24 * HOUR, HOUR, None), (25 * HOUR, 24 * HOUR, None)]
    found = coming(0, 26 * HOUR, True, 30, **hours)
    assert [due // HOUR for due, _, _ in found] == list(range(1, 27))
    assert [due // HOUR for due, _, excluded in found if not excluded] == [1, 24, 25]
    assert {excluded for _, _, excluded in found} == {None, "window"}
    assert coming(0, None, True, 3, **hours) == [(HOUR, 0, None), (2 * HOUR, HOUR, "window"), (3 * HOUR, HOUR, "window")]
    assert [row[0] for row in coming(2 * HOUR, 3 * HOUR + 5, True, **hours)] == [3 * HOUR]


def test_a_preview_of_far_off_times_looks_at_no_more_than_is_asked():
    for end in (None, 10 ** 10):
        found, turns = turns_of(lambda: coming(0, end, True, 5, rule="cron * * * * * *",
                                               exclude_dates="2020-01-01..2030-01-01"))
        assert len(found) == 5 and turns < 365 * DAY        # less than to count the seconds of a year


def test_the_earliest_of_many_streams():
    rng = random.Random(1)
    for _ in range(200):
        streams = [sorted(rng.randrange(100) for _ in range(rng.randrange(8))) for _ in range(rng.randrange(9))]
        count = rng.randrange(1, 20)
        found = list(list_earliest(map(iter, streams), count, lambda item: item))
        assert found == sorted(itertools.chain(*streams))[:count]


def test_the_earliest_of_streams_that_never_end():
    open_visit = []

    def stream(start):
        open_visit.append(start)
        for item in itertools.count(start, 7):
            assert item < 200
            yield item
    assert list(list_earliest(map(stream, range(50, 0, -1)), 5, lambda item: item)) == [1, 2, 3, 4, 5]
    assert len(open_visit) == 50


def notes(due, before=None, enabled=True, **options):
    schedule = make_schedule(enabled=enabled, **options)
    return list_notes(schedule, schedule.timetable({}), NOON + due, NOON + (due - 1 if before is None else before))


def test_what_is_told_of_a_due_time():
    assert notes(10) == []
    assert notes(10, enabled=False) == ["disabled"]
    assert notes(10, after="A,B/2h") == ["waits for A,B/2h"]
    late = find_jitter("S", NOON + 10, 9)       # never up to the next
    assert notes(10, jitter=600) == ["jitter %d s: runs at %s" % (late, agent.local_iso(NOON + 10 + late))]
    assert notes(24 * HOUR, HOUR, rule="every 1h", hours="12:00-13:00") == ["22 excluded before (outside hours)"]
    assert notes(HOUR, 0, rule="every 1h", hours="12:00-13:00") == []
    assert notes(10, enabled=False, after="A", jitter=600) == ["disabled", "waits for A"] + notes(10, jitter=600)
    assert notes(8 * DAY, 1 * DAY, rule="daily at 12:00", exclude_weekdays="wed-fri", exclude_dates="2026-06-06..2026-06-08",
                 ) == ["6 excluded before (excluded day wed 2026-06-03)"]


def test_what_daylight_saving_does_is_told(monkeypatch):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    spring, autumn = 1774746000, 1792890000         # 2026-03-29 and 2026-10-25, 01:00 UTC
    schedule = make_schedule(rule="daily at 02:30")._replace(timezone="")
    timetable = schedule.timetable({})
    assert list_notes(schedule, timetable, spring, spring - DAY) == ["after gap 02:30 does not exist"]
    assert list_notes(schedule, timetable, autumn - HOUR // 2, autumn - DAY) == ["first of two 02:30"]
    following = timetable.next_after(autumn - HOUR // 2)
    assert list_notes(schedule, timetable, following, autumn - HOUR // 2) == [
        "1 excluded before (second of two 02:30)"]
    schedule = schedule._replace(options={"gap": "skip"})
    timetable = schedule.timetable({})
    assert list_notes(schedule, timetable, timetable.next_after(spring), spring - HOUR) == [
        "1 excluded before (02:30 does not exist)"]


# -- due times as a plan takes them ----------------------------------------------------

class Scenarios:
    """What list_visits asks a repository for."""

    def __init__(self, **fields):
        self.id, self.db, self.scenarios = 7, self, self
        document = {"name": "J", "version": "1", "steps": [{"name": "a", "tasks": [{"type": "os", "command": "true"}]}]}
        self.scenario = Definitions().read(agent.json.dumps({"scenarios": [dict(document, **fields)]})).scenarios[0]

    def read(self, method, *arguments):
        return method(None, *arguments)

    def get_scenario(self, connection, name, version):
        assert (name, version) == ("J", "-1")
        if self.scenario is None:
            raise agent.NotFound("no scenario J")
        return None, self.scenario


def visits_of(schedule, duration=None, begin=0, end=25, **fields):
    make = visit_maker(Scenarios(**fields), schedule, duration)
    return list(list_visits(make, schedule.timetable({}), NOON + begin + 0.5, NOON + end))


def test_visits_of_a_schedule():
    found = visits_of(make_schedule(priority=5, overlap="skip"), 7.5)
    assert [(visit.due - NOON, visit.at - NOON) for visit in found] == [(10, 10), (20, 20)]
    first = found[0]
    assert (first.name, first.scenario, first.schedule) == ("S", (7, "J"), (7, "S"))
    assert (first.duration, first.is_known, first.overlap, first.priority) == (7.5, True, "skip", 5)
    assert (first.limit, first.on_limit) == (None, "wait")
    assert (first.begin, first.end, first.outcome, first.notes) == (None, None, None, [])
    assert visits_of(make_schedule(), begin=20, end=29) == [] and visits_of(make_schedule(rule="startup")) == []
    schedule = make_schedule()                  # what is due at the first instant belongs to the period
    assert list(list_visits(int, schedule.timetable({}), NOON, NOON + 10)) == [NOON, NOON + 10]
    unknown, _ = visits_of(make_schedule())
    assert "taken as 0 s" in unknown.notes[0]
    assert (unknown.duration, unknown.is_known, unknown.overlap) == (0.0, False, "queue")


def test_visits_with_jitter_come_at_their_planned_time():
    found = visits_of(make_schedule(jitter=600), end=1000)
    assert len(found) == 100 and all(visit.at == visit.due + find_jitter("S", visit.due, 600) for visit in found)


def test_visits_have_the_limit_of_their_scenario():
    first, _ = visits_of(make_schedule(), concurrency={"limit": 2, "on_limit": "skip"})
    assert (first.limit, first.on_limit) == (2, "skip")


@pytest.mark.parametrize("options, fields, limit", [
    ({}, {}, None), ({"timeout": 60}, {}, 60), ({}, {"timeout": 60}, 60), ({"timeout": 60}, {"timeout": 5}, 60)])
def test_what_takes_longer_than_its_timeout_never_fits(options, fields, limit):
    visit, _ = visits_of(make_schedule(**options), 100.0, **fields)
    if limit is None:
        assert (visit.duration, visit.outcome) == (100, None)
    else:
        assert (visit.duration, visit.outcome) == (limit, UNFIT)
        assert visit.notes == ["takes 100 s, its timeout is %d s" % limit]
    visit, _ = visits_of(make_schedule(**options), 5.0, **fields)
    assert (visit.duration, visit.outcome) == (5, None)


def test_visits_of_a_scenario_that_is_not_there():
    schedule, repository = make_schedule(), Scenarios()
    repository.scenario = None
    make = visit_maker(repository, schedule, None)
    assert len(list(list_visits(make, schedule.timetable({}), NOON + 1, NOON + 25))) == 2


def test_what_runs_after_others_is_played_too():
    """B after A, C after A and scenario:J within 25 s: their visits come with the ends of the others."""
    scenarios = Scenarios()
    follow = [agent.Follower(scenarios, schedule, agent.visit_maker(scenarios, schedule, 3.0)) for schedule in (
        make_schedule("B", "", after="A"), make_schedule("C", "", after="A,scenario:X/25"))]
    visits = [visit(0, 5.0, "A", repository=7), visit(10, 5.0, "X", "X", repository=7), visit(40, 5.0, "A", repository=7)]
    found = Play(9, 0.0, follow).run(visits, NOON + 100)
    assert [(made.name, made.due - NOON, made.end - NOON) for made in found] == [
        ("A", 0, 5), ("B", 5, 8), ("X", 10, 15), ("C", 15, 18), ("A", 40, 45), ("B", 45, 48)]
    assert found[1].notes == ["after A"]
    # X counts for 25 s, and what is ended by its timeout meets nothing
    visits = [visit(10, 5.0, "X", "X", repository=7), visit(50, 5.0, "A", repository=7),
              visit(60, 5.0, "A", repository=7, outcome=UNFIT)]
    follow = [agent.Follower(scenarios, schedule, agent.visit_maker(scenarios, schedule, 3.0)) for schedule in (
        make_schedule("B", "", after="A"), make_schedule("C", "", after="A,scenario:X/25"))]
    assert [made.name for made in Play(9, 0.0, follow).run(visits, NOON + 100)] == ["X", "A", "B", "A"]


# -- a plan ----------------------------------------------------------------------------

def visit(at, duration=10.0, name="S", scenario=None, overlap="queue", priority=0, limit=None, on_limit="wait",
          repository=1, due=None, outcome=None, is_backlog=False, is_plan=False):
    """A Visit; times in seconds after noon."""
    made = Visit(name=name, scenario=(repository, scenario or name), due=NOON + (at if due is None else due), at=NOON + at,
                 duration=duration, is_known=True, overlap=overlap, priority=priority, limit=limit, on_limit=on_limit)
    made.outcome, made.is_backlog, made.is_plan = outcome, is_backlog, is_plan
    return made


def played(*visits, slots=10, end=1000):
    """[(outcome, begin, end)] in seconds after noon."""
    return [(made.outcome, made.begin if made.begin is None else made.begin - NOON,
             made.end if made.end is None else made.end - NOON) for made in Play(slots).run(list(visits), NOON + end)]


def test_nothing_in_the_way():
    assert played() == []
    assert played(visit(0), visit(10), visit(20)) == [(STARTS, 0, 10), (STARTS, 10, 20), (STARTS, 20, 30)]
    assert played(visit(0, name="A"), visit(0, name="B"), slots=2) == [(STARTS, 0, 10)] * 2
    assert played(visit(0, 0.0), visit(0, 0.0, "B"), slots=1) == [(STARTS, 0, 0)] * 2


def test_slots_that_are_full():
    visits = [visit(0, name="A"), visit(1, name="B"), visit(2, name="C"), visit(25, name="D")]
    assert played(*visits, slots=1) == [(STARTS, 0, 10), (QUEUES, 10, 20), (QUEUES, 20, 30), (QUEUES, 30, 40)]
    assert [made.notes for made in visits] == [[], ["waits for a free slot", "waits 9 s"], ["waits for a free slot", "waits 18 s"],
                                               ["waits for a free slot", "waits 5 s"]]


def test_a_load_plan_takes_no_slot():
    plans = [visit(0, name="P", is_plan=True), visit(1, name="Q", is_plan=True)]
    assert played(visit(0, name="A"), *plans, slots=1) == [(STARTS, 0, 10), (STARTS, 0, 10), (STARTS, 1, 11)]
    # but counts for its limit
    assert played(visit(0, name="P", limit=1, is_plan=True), visit(1, name="Q", scenario="P", limit=1, is_plan=True),
                  slots=1) == [(STARTS, 0, 10), (QUEUES, 10, 20)]


def test_a_higher_priority_begins_first():
    assert [row[1] for row in played(visit(0, name="A"), visit(1, name="B"), visit(2, name="C", priority=5),
                                     visit(3, name="D", priority=5), slots=1)] == [0, 30, 10, 20]


def test_overlap_queue():
    visits = [visit(at, 25.0) for at in (0, 10, 20, 30, 60)]
    assert played(*visits) == [(STARTS, 0, 25), (OVERLAPS, 25, 50), (SKIPS, None, None), (OVERLAPS, 50, 75), (OVERLAPS, 75, 100)]
    assert visits[1].notes == ["the one due 2026-06-01T12:00:00+00:00 still runs", "waits 15 s"]
    assert visits[2].notes == ["the one due 2026-06-01T12:00:10+00:00 waits already"]


def test_overlap_skip():
    visits = [visit(at, 25.0, overlap="skip") for at in (0, 10, 20, 30)]
    assert played(*visits) == [(STARTS, 0, 25), (SKIPS, None, None), (SKIPS, None, None), (STARTS, 30, 55)]
    assert visits[1].notes == ["the one due 2026-06-01T12:00:00+00:00 still runs"]
    blocker = visit(0, 100.0, "OTHER")
    visits = [visit(at, overlap="skip") for at in (1, 11)]
    assert played(blocker, *visits, slots=1)[1:] == [(QUEUES, 100, 110), (SKIPS, None, None)]
    assert visits[1].notes == ["the one due 2026-06-01T12:00:01+00:00 waits already"]


def test_overlap_parallel():
    visits = [visit(at, 25.0, overlap="parallel") for at in (0, 10, 20, 30)]
    assert played(*visits) == [(STARTS, 0, 25), (OVERLAPS, 10, 35), (OVERLAPS, 20, 45), (OVERLAPS, 30, 55)]
    assert [row[1] for row in played(*[visit(at, 25.0, overlap="parallel") for at in (0, 10, 20, 30)], slots=2)] == [0, 10, 25, 35]


def test_overlap_stop():
    visits = [visit(at, 25.0, overlap="stop") for at in (0, 10, 40)]
    assert played(*visits) == [(OVERLAPS, 0, 10), (STARTS, 10, 35), (STARTS, 40, 65)]
    assert visits[0].notes == ["stopped by the one due 2026-06-01T12:00:10+00:00"] and visits[1].notes == []
    blocker = visit(0, 100.0, "OTHER")
    visits = [visit(at, 20.0, overlap="stop") for at in (1, 11, 21)]
    assert played(blocker, *visits, slots=1)[1:] == [(OVERLAPS, None, 11), (OVERLAPS, None, 21), (QUEUES, 100, 120)]


def test_a_slot_that_a_stop_frees_serves_who_waits():
    rows = played(visit(0, 100.0, overlap="stop"), visit(5, name="B"), visit(10, overlap="stop"), slots=1)
    assert rows == [(OVERLAPS, 0, 10), (QUEUES, 10, 20), (QUEUES, 20, 30)]


@pytest.mark.parametrize("on_limit", ["skip", "error"])
def test_a_limit_that_lets_none_wait(on_limit):
    def one(at, name):
        return visit(at, 25.0, name, "J", limit=2, on_limit=on_limit)
    visits = [one(0, "A"), one(5, "B"), one(10, "C"), one(26, "D")]
    assert played(*visits) == [(STARTS, 0, 25), (STARTS, 5, 30), (SKIPS, None, None), (STARTS, 26, 51)]
    assert visits[2].notes == ["the limit of its scenario, 2"]
    rows = played(visit(0, 50.0, limit=1, on_limit=on_limit, overlap="stop"), visit(10, limit=1, on_limit=on_limit, overlap="stop"))
    assert rows == [(OVERLAPS, 0, 10), (STARTS, 10, 20)]        # what is stopped takes no place


def test_a_limit_that_lets_wait():
    visits = [visit(at, 25.0, name, "J", limit=1) for at, name in ((0, "A"), (5, "B"), (10, "C"))]
    assert played(*visits) == [(STARTS, 0, 25), (QUEUES, 25, 50), (QUEUES, 50, 75)]
    assert visits[1].notes == ["waits for the limit of its scenario", "waits 20 s"]


def test_what_waits_for_a_limit_holds_up_no_other():
    rows = played(visit(0, 25.0, "A", "J", limit=1), visit(1, 25.0, "B", "J", limit=1), visit(2, 5.0, "C"), slots=2)
    assert rows == [(STARTS, 0, 25), (QUEUES, 25, 50), (STARTS, 2, 7)]


def test_same_names_in_two_repositories_are_two():
    rows = played(visit(0, 25.0, limit=1), visit(5, 25.0, limit=1, repository=2), visit(10, 25.0, "J", limit=1))
    assert rows == [(STARTS, 0, 25), (STARTS, 5, 30), (STARTS, 10, 35)]
    assert played(visit(0, 25.0, "X", "Y"), visit(5, 25.0, "Y", "X")) == [(STARTS, 0, 25), (STARTS, 5, 30)]


def test_what_has_not_begun_by_the_end_never_fits():
    visits = [visit(0, 500.0, "A"), visit(1, 100.0, "B"), visit(2, 100.0, "C"), visit(3, 100.0, "C")]
    assert played(*visits, slots=1, end=550) == [
        (STARTS, 0, 500), (QUEUES, 500, 600), (UNFIT, None, None), (SKIPS, None, None)]
    assert visits[2].notes == ["waits for a free slot", "has not begun by the end of the period"]


def test_what_does_not_fit_its_timeout_keeps_that_outcome():
    visits = [visit(0, outcome=UNFIT), visit(5), visit(8, outcome=UNFIT)]
    assert played(*visits) == [(UNFIT, 0, 10), (OVERLAPS, 10, 20), (SKIPS, None, None)]


# -- what is open when a plan begins ---------------------------------------------------

def open_visit(at, duration=10.0, begun=None, **fields):
    """The Visit of a session that runs since `begun`, or may begin from `at` on."""
    made = visit(at, duration, **dict({"overlap": "queue"}, **fields))
    if begun is not None:
        made.begin, made.end = NOON + begun, NOON + max(0, begun + duration)
    return made


def played_with(sessions, *visits, slots=10, end=1000):
    """played() of a plan that begins at noon with these sessions."""
    play = Play(slots, NOON)
    play.take_up(sessions)
    return [(made.outcome, made.begin and made.begin - NOON, made.end and made.end - NOON)
            for made in play.run(list(visits), NOON + end)]


def test_what_runs_has_a_slot_until_it_ends():
    assert played_with([open_visit(0, 100.0, -40, name="A"), open_visit(0, 10.0, -40, name="B")], visit(5), visit(5, name="C"),
                       slots=2) == [(STARTS, 5, 15), (QUEUES, 15, 25)]
    assert played_with([open_visit(0, 100.0, -40)], visit(5, limit=1, name="C", scenario="S")) == [(QUEUES, 60, 70)]
    assert played_with([open_visit(0, 100.0, -40, limit=1)], visit(5, limit=1, on_limit="skip", name="C", scenario="S")) == [
        (SKIPS, None, None)]
    lent = [open_visit(0, 100.0, -10, name="A"), open_visit(0, 50.0, -10, name="B")]        # more than there are slots
    assert played_with(lent, visit(5), slots=1) == [(QUEUES, 90, 100)]


@pytest.mark.parametrize("overlap, row", [
    ("queue", (OVERLAPS, 60, 70)), ("skip", (SKIPS, None, None)), ("parallel", (OVERLAPS, 5, 15)), ("stop", (STARTS, 5, 15))])
def test_a_session_that_runs_is_one_of_its_schedule(overlap, row):
    session = open_visit(0, 100.0, -40)
    assert played_with([session], visit(5, overlap=overlap)) == [row]
    assert session.end == NOON + (5 if overlap == "stop" else 60)


def test_what_waits_begins_before_what_comes_due():
    sessions = [open_visit(0, 100.0, -40, name="R"), open_visit(0, 10.0, name="A"), open_visit(0, 20.0, name="B", priority=5)]
    assert played_with(sessions, visit(0, name="C"), visit(1, name="D", priority=9), slots=1) == [
        (QUEUES, 100, 110), (QUEUES, 60, 70)]
    assert [session.begin - NOON for session in sessions] == [-40, 90, 70]
    assert played_with([open_visit(0, name="A"), open_visit(0, name="B", priority=5)], visit(0, name="C"), slots=1) == [
        (QUEUES, 20, 30)]
    assert played_with([open_visit(0), open_visit(0, 100.0, -10)], visit(5)) == [(SKIPS, None, None)]     # one waits already


def test_what_its_schedule_holds_up_leaves_the_limit_to_the_next():
    """The second of S is first in line for a place of J, but S runs: T takes it."""
    sessions = [open_visit(0, 10.0, -1, name="R", scenario="J", limit=2), open_visit(0, 10.0, -1, name="Q", scenario="J", limit=2)] + [
        open_visit(0, 50.0, name=name, scenario="J", limit=2) for name in ("S", "S", "T")]
    assert played_with(sessions) == [] and [session.begin - NOON for session in sessions] == [-1, -1, 9, 59, 9]


def test_what_is_to_start_later_arrives_then():
    sessions = [open_visit(50, 10.0, name="A"), open_visit(50, 10.0, name="B", priority=1)]
    assert played_with(sessions, visit(45, 7.0, "C"), visit(50, 7.0, "D", priority=9), slots=1) == [
        (STARTS, 45, 52), (QUEUES, 52, 59)]
    assert [session.begin - NOON for session in sessions] == [69, 59]
    retry = [open_visit(50)]
    assert played_with(retry, visit(5, overlap="skip"), visit(8), visit(55)) == [
        (SKIPS, None, None), (SKIPS, None, None), (OVERLAPS, 60, 70)]
    assert retry[0].begin == NOON + 50
    replaced = open_visit(50)
    assert played_with([replaced], visit(5, overlap="stop")) == [(STARTS, 5, 15)] and replaced.begin is None


# -- after, with due times -------------------------------------------------------------

def follower(after, name="B", rule="every 10s", met=(), release=0, made=Scenarios()):
    schedule = make_schedule(name, rule, after=after)
    return agent.Follower(made, schedule, visit_maker(made, schedule, 3.0), {
        (kind, 7, other): NOON + ended for kind, other, ended in met}, NOON + release)


def followed(followers, *visits, sessions=(), end=100):
    """[(name, due, outcome, begin)] in seconds after noon."""
    play = Play(9, NOON, followers)
    play.take_up(sessions)
    return [(made.name, made.due - NOON, made.outcome, made.begin and made.begin - NOON)
            for made in play.run(sorted(visits, key=lambda visit: visit.at), NOON + end)]


def in_seven(*args, **fields):
    return visit(*args, repository=7, **fields)


def test_a_due_time_waits_for_the_end_of_others():
    waits = in_seven(10, 3.0, "B")
    assert followed([follower("A")], in_seven(5, 20.0, "A"), waits) == [("A", 5, STARTS, 5), ("B", 10, QUEUES, 25)]
    assert waits.notes == ["waits 15 s"]
    assert followed([follower("A")], in_seven(5, 5.0, "A"), in_seven(10, 3.0, "B")) == [
        ("A", 5, STARTS, 5), ("B", 10, STARTS, 10)]
    never = in_seven(10, 3.0, "B")
    assert followed([follower("A")], in_seven(5, 20.0, "A", outcome=UNFIT), never)[1] == ("B", 10, UNFIT, None)
    assert never.notes == ["has not begun by the end of the period"]


def test_the_next_due_time_replaces_one_that_waits():
    first = in_seven(10, 3.0, "B")
    assert followed([follower("A,C")], in_seven(0, 5.0, "A"), first, in_seven(20, 3.0, "B"), in_seven(22, 5.0, "C"),
                    in_seven(30, 3.0, "B"), in_seven(31, 5.0, "C")) == [
        ("A", 0, STARTS, 0), ("B", 10, SKIPS, None), ("B", 20, QUEUES, 27), ("C", 22, STARTS, 22),
        ("B", 30, UNFIT, None), ("C", 31, STARTS, 31)]      # A has not ended since the second
    assert first.notes == ["what it runs after had not ended well by the next due time"]


def test_what_has_ended_before_the_period_counts():
    met = [("schedule", "A", -5), ("scenario", "X", -50)]
    assert followed([follower("A,scenario:X", met=met)], in_seven(10, 3.0, "B"), in_seven(20, 3.0, "B")) == [
        ("B", 10, STARTS, 10), ("B", 20, UNFIT, None)]
    assert followed([follower("A/20,scenario:X/55", met=met)], in_seven(10, 3.0, "B"))[0][2] == UNFIT
    running = open_visit(0, 30.0, -10, name="Q", scenario="X", repository=7)
    assert followed([follower("A/20,scenario:X/55", met=met)], in_seven(10, 3.0, "B"), in_seven(12, 1.0, "A"),
                    sessions=[running]) == [("B", 10, QUEUES, 20), ("A", 12, STARTS, 12)]
    assert followed([follower("A", rule="")], sessions=[open_visit(0, 30.0, -10, name="A", repository=7)]) == [
        ("B", 20, STARTS, 20)]


def test_nothing_follows_while_it_is_held():
    for rule, expected in (("", [("B", 50, STARTS, 50)]), ("every 10s", [])):
        assert followed([follower("A", rule=rule, release=50)], in_seven(5, 5.0, "A"))[1:] == expected
    assert followed([follower("A", release=50)], in_seven(5, 5.0, "A"), in_seven(10, 3.0, "B"))[1] == (
        "B", 10, QUEUES, 50)
    assert len(followed([follower("A", rule="", release=agent.NEVER_RELEASED)], in_seven(5, 5.0, "A"))) == 1
    assert len(followed([follower("A/20", rule="", release=50)], in_seven(5, 5.0, "A"))) == 1


# -- a hold ----------------------------------------------------------------------------

def held(release, begin=0, end=100, decided=0, misfire="once", grace=None, jitter=0, rule="every 10s"):
    """[(due, at, outcome, is_held)] of list_held, in seconds after noon; is_held without an outcome: it never comes."""
    schedule = make_schedule(rule=rule, jitter=jitter, misfire=misfire, grace=grace)
    stored = agent.StoredSchedule(schedule, 1, NOON + decided, None, None, schedule.timetable({}))
    entry = agent.Entry(Scenarios(), stored, agent.Missed(NOON + release, *agent.ON_HOLD))
    found = list(agent.list_held(visit_maker(Scenarios(), schedule, 1.0), entry, NOON + begin, NOON + end,
                                 NOON + release, "held"))
    assert all(made.notes == ["held"] * (NOON + decided < made.due and made.due <= NOON + release) for made in found if not jitter)
    return [(made.due - NOON, made.at - NOON, made.outcome, made.is_held) for made in found]


def test_due_times_within_a_hold_are_decided_at_its_release():
    after = [(at, at, None, False) for at in (40, 50)]
    assert held(35, 1, 50, misfire="skip") == [(at, at, SKIPS, True) for at in (10, 20, 30)] + after
    assert held(35, 1, 50) == [(10, 10, SKIPS, True), (20, 20, SKIPS, True), (30, 35, QUEUES, False)] + after
    assert held(35, 1, 50, grace=4) == held(35, 1, 50, misfire="skip")
    assert held(35, 1, 50, misfire="all") == [(at, 35, QUEUES, False) for at in (10, 20, 30)] + after
    assert held(35, 1, 50, misfire="all", grace=20)[:2] == [(10, 10, SKIPS, True), (20, 35, QUEUES, False)]
    found = held(1505, 1, 2000, misfire="all")
    assert [made[0] for made in found if made[2] == QUEUES] == list(range(510, 1501, 10))
    assert len([made for made in found if made[2] == SKIPS]) == 50


def test_what_a_hold_kept_before_the_period_runs_at_its_release():
    assert held(35, 25, 40, decided=-95) == [(30, 35, QUEUES, False), (40, 40, None, False)]
    assert held(35, 31, 40, decided=-95) == [(30, 35, QUEUES, False), (40, 40, None, False)]
    assert held(35, 31, 40, decided=-95, misfire="skip") == [(40, 40, None, False)]
    assert [made[:2] for made in held(35, 31, 40, decided=-25, misfire="all")] == [
        (due, 35) for due in (-20, -10, 0, 10, 20, 30)] + [(40, 40)]


def test_a_hold_without_an_end_in_the_period():
    assert held(101, 1, 30) == held(agent.NEVER_RELEASED, 1, 30) == [(at, at, None, True) for at in (10, 20, 30)]
    assert held(agent.NEVER_RELEASED, -25, 10, decided=-15) == [
        (-20, -20, None, False), (-10, -10, None, True), (0, 0, None, True), (10, 10, None, True)]
    visits = [visit(5), visit(15)]
    visits[1].is_held = True
    visits[1].notes.append("held")
    assert played(*visits, visit(20)) == [(STARTS, 5, 15), (UNFIT, None, None), (STARTS, 20, 30)]
    assert visits[1].notes == ["held", "has not begun by the end of the period"]


def test_a_hold_and_jitter():
    late = find_jitter("S", NOON + 800, 600)
    assert held(800 + late, 1, 1500, jitter=600, rule="every 1000s") == [(800, 800 + late, QUEUES, False)]
    assert held(799 + late, 1, 1500, jitter=600, rule="every 1000s") == [(800, 800 + late, None, False)]


def test_all_that_was_held_runs_one_after_the_other():
    visits = [visit(50, 5.0, due=due) for due in (10, 20, 30)]
    for made in visits:
        made.is_backlog, made.outcome = True, QUEUES
    assert played(*visits) == [(QUEUES, 50, 55), (QUEUES, 55, 60), (QUEUES, 60, 65)]


def test_the_words_of_a_hold():
    def hold(reason, until=None):
        return agent.Hold(reason, "me", NOON, until and NOON + until)
    assert agent.find_release(None, None) == (0, None)
    assert agent.find_release(hold("", 60), None) == (
        NOON + 60, "held since 2026-06-01T12:00:00+00:00 until 2026-06-01T12:01:00+00:00")
    assert agent.find_release(hold("x", 60), hold("repair"))[1] == "held since 2026-06-01T12:00:00+00:00: repair"
    assert agent.find_release(hold("x", 60), hold("y", 50))[1].endswith(": x")


@pytest.mark.parametrize("make", [
    lambda n: visit(4 * n, 3600.0, overlap="parallel"), lambda n: visit(4 * n, 3600.0, "S%d" % (n % 100), overlap="parallel"),
    lambda n: visit(0, 60.0, "S%d" % n), lambda n: visit(0, 60.0, "S%d" % n, "J", limit=1),
    lambda n: visit(n // 100, 60.0, "S%d" % (n % 3000), "J%d" % (n % 7), limit=3, priority=n % 5),
    lambda n: visit(4 * n, 3600.0, "S%d" % (n % 100), overlap="stop"),
    lambda n: visit(0, 60.0, "S%d" % (n % 200), "J", limit=2, is_backlog=True)])
def test_a_plan_of_many_is_quick(make):
    visits = [make(n) for n in range(agent.MAX_VISITS)]
    _, turns = turns_of(lambda: Play(8).run(visits, NOON + DAY))
    assert turns < agent.MAX_VISITS ** 2 / 2        # less than to look at every other for each


# -- all of it, read from repositories -------------------------------------------------

def hold_of(since, until=None, reason=""):
    return agent.Hold(reason, "me", NOON + since, until and NOON + until)


def planned(site, begin, end, hold=None, slots=10):
    """[(name, due, outcome, begin)] in seconds after noon, of a period that begins at noon plus this; the site's now."""
    period = agent.Period(NOON + begin, NOON + end, site.clock.time, slots, hold)
    site.upto, site.visits = site.listing.plan(period, None, [])
    return [(made.name, made.due - NOON, made.outcome, made.begin and made.begin - NOON) for made in site.visits]


def open_session(site, begun=None, at=0, duration=None, **fields):
    """A session of HELLO that was made at a time, runs since `begun`, or has ended after its duration -> number."""
    def work(connection):
        made = site.repository.arrivals.add(connection, agent.SessionRequest(
            "HELLO", fields.pop("agent", "AGENT"), **fields), NOON + at).session
        if begun is not None:
            site.repository.sessions.begin(connection, made, "me", False, NOON + begun)
        if duration is not None:
            site.repository.endings.end(connection, made, agent.DONE, "", NOON + begun + duration)
        return made
    return site.repository.db.write(work)


def test_a_plan_knows_what_runs_and_waits(site):
    site.add("A", "every 60s")
    open_session(site, begun=-500, at=-500, duration=40)
    assert planned(site, 0, 120) == [("A", 60, STARTS, 60), ("A", 120, STARTS, 120)]     # at 0 it was added
    open_session(site, begun=30, schedule="A", due=NOON)
    open_session(site, begun=0, agent="OTHER", schedule="A", due=NOON - 5)
    open_session(site, start_at=NOON + 125)
    site.clock.move(50)
    open_session(site, priority=3)
    assert planned(site, 50, 120, slots=2) == [("A", 60, OVERLAPS, 70), ("A", 120, STARTS, 120)]
    assert site.visits[0].notes == ["the one due 2026-06-01T12:00:00+00:00 still runs", "waits 10 s"]
    assert planned(site, 50, 150, slots=1) == [("A", 60, OVERLAPS, 110), ("A", 120, OVERLAPS, 150)]     # priority first
    assert planned(site, 49, 119) == [("A", 60, STARTS, 60)]            # a period that is past begins empty
    assert planned(site, 60, 150, slots=1) == [("A", 60, OVERLAPS, 110), ("A", 120, OVERLAPS, 150)]
    assert planned(site, 120, 180, slots=1)[0] == ("A", 120, STARTS, 120)       # up to now, and then what is open alone
    site.clock.move(950)                # longer than ever before: until now, at least
    site.sql("update schedule set decided='%s'" % agent.to_text(NOON + 1000))
    assert planned(site, 1000, 1020) == [("A", 1020, STARTS, 1020)]


def test_a_plan_knows_holds(site):
    site.add("A", "every 10s")
    site.add("B", "every 20s", misfire="skip")
    site.add("C", "every 20s", misfire="all")
    site.hold_one(True, "C", until=45)
    open_session(site, begun=-500, at=-500, duration=4)
    site.clock.move(30)
    assert site.row("A")["decided"] <= agent.to_text(NOON)
    assert planned(site, 30, 60, hold_of(0, 35, "repair"))[:3] == [
        ("A", 30, QUEUES, 35), ("A", 40, STARTS, 40), ("B", 40, STARTS, 40)]
    assert "held since 2026-06-01T12:00:00+00:00 until 2026-06-01T12:00:35+00:00: repair" in site.visits[0].notes
    rows = planned(site, 30, 60)
    assert [row for row in rows if row[0] == "C"] == [("C", 20, QUEUES, 45), ("C", 40, QUEUES, 49), ("C", 60, STARTS, 60)]
    assert [row for row in rows if row[0] == "A"] == [("A", at, STARTS, at) for at in (30, 40, 50, 60)]
    assert planned(site, 30, 60, hold_of(0)) == [
        ("A", 30, UNFIT, None), ("A", 40, UNFIT, None), ("B", 40, UNFIT, None), ("C", 40, UNFIT, None),
        ("A", 50, UNFIT, None), ("A", 60, UNFIT, None), ("B", 60, UNFIT, None), ("C", 60, UNFIT, None)]
    assert planned(site, 30, 50, hold_of(0, 51))[0][2] == UNFIT
    assert planned(site, 41, 60, hold_of(0, 43))[0] == ("A", 40, QUEUES, 43)        # of -FROM after now
    assert planned(site, 46, 60)[0] == ("C", 40, QUEUES, 49)
    assert ("A", 60, STARTS, 60) in planned(site, 51, 60, hold_of(0, 43)) and min(site.visits, key=lambda made: made.due).due == NOON + 60
    site.clock.move(-20)                                                        # and one that is past
    site.sql("update schedule set hold_until = 'soon' where name = 'C'")
    assert {row[0] for row in planned(site, 30, 60)} == {"A", "B"}


def test_what_waits_goes_on_at_the_release(site):
    site.add("A", "every 20s")
    open_session(site, begun=-500, at=-500, duration=40)
    open_session(site, is_held=True, priority=-5)
    open_session(site, is_held=True, schedule="A", due=NOON - 60)
    assert planned(site, 0, 50, hold_of(0, 30), slots=1) == [("A", 20, UNFIT, None), ("A", 40, SKIPS, None)]
    assert site.visits[0].notes[1:] == [
        "the one due 2026-06-01T11:59:00+00:00 still runs", "has not begun by the end of the period"]
    site.hold_one(True, "A", until=10)
    assert planned(site, 0, 50, hold_of(0, 5), slots=2) == [("A", 20, OVERLAPS, 50), ("A", 40, SKIPS, None)]
    assert planned(site, 0, 50, slots=1) == [("A", 20, SKIPS, None), ("A", 40, UNFIT, None)]
    assert [made.notes for made in site.visits] == [["the one due 2026-06-01T11:59:00+00:00 waits already"], [
        "the one due 2026-06-01T11:59:00+00:00 still runs", "has not begun by the end of the period"]]


def test_a_plan_knows_what_has_ended_well(site):
    site.add("A", "every 60s")
    site.add("B", "every 20s", after="A/50")
    site.add("C", "", after="A,B")
    open_session(site, begun=-500, at=-500, duration=5)
    met = "update schedule_condition set met='%s' where schedule='B'"
    site.sql(met % agent.to_text(NOON - 35))
    assert planned(site, 0, 79) == [
        ("B", 20, SKIPS, None), ("B", 40, SKIPS, None), ("A", 60, STARTS, 60), ("B", 60, QUEUES, 65), ("C", 70, STARTS, 70)]
    site.sql(met % agent.to_text(NOON - 30))
    assert planned(site, 0, 79) == [
        ("B", 20, STARTS, 20), ("B", 40, SKIPS, None), ("A", 60, STARTS, 60), ("B", 60, QUEUES, 65), ("C", 65, STARTS, 65)]
    site.sql("update schedule set waiting='%s' where name='B'" % agent.to_text(NOON - 20))
    site.clock.move(1)
    open_session(site, begun=1, schedule="A")
    assert planned(site, 1, 25) == [("B", -20, QUEUES, 1), ("C", 6, STARTS, 6), ("B", 20, STARTS, 20)]
    site.sql("update schedule_condition set met=null")
    assert planned(site, 1, 25) == [("B", -20, QUEUES, 6), ("C", 11, STARTS, 11), ("B", 20, UNFIT, None)]
    site.sql("update session set status='STOPPED' where status='RUNNING'")
    assert planned(site, 1, 25) == [("B", -20, SKIPS, None), ("B", 20, UNFIT, None)]
    assert planned(site, 0, 25) == [            # one that is past
        ("A", 0, STARTS, 0), ("B", 0, QUEUES, 5), ("C", 10, STARTS, 10), ("B", 20, UNFIT, None)]


def test_more_kept_by_a_hold_than_a_plan_plays(site, monkeypatch):
    monkeypatch.setattr(agent, "MAX_VISITS", 3)
    site.add("A", "every 10s", misfire="all")
    site.clock.move(100)
    planned(site, 100, 500, hold_of(0, 200))
    assert site.upto == NOON + 100 and len(site.visits) == 3


# -- as a user asks --------------------------------------------------------------------

def in_seconds(seconds):
    """The time after so many seconds, as an argument."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def test_a_plan_of_an_agent_that_is_busy_and_held(make_agent):
    """What runs takes the slot; a hold with and without an end; a due time with after."""
    one = make_agent("--max-sessions", "1").start()
    one.import_os("J", "sleep ${seconds}", variables={"seconds": "0"})
    one.ok("EXEC J -SYNC=50")
    due, plan = in_seconds(7200), "SCHED PLAN -ALL -TO=%s" % in_seconds(10000)
    one.ok("SCHED ADD FAR J -1 GLOBAL 'at %s' -TIMEZONE=UTC" % due.replace("T", " ").rstrip("Z"))
    assert [row["outcome"] for row in one.rows(plan)] == ["starts"]
    one.ok("HOLD 'the disk is full'")
    found, = one.rows(plan)
    assert (found["outcome"], found["begin"]) == ("never", "") and found["note"].startswith("held since ")
    assert found["note"].endswith(": the disk is full; has not begun by the end of the period")
    assert one.ok(plan)["never"] == "1"
    one.ok("RELEASE")
    until = in_seconds(9000)
    one.ok("HOLD repair -SCHEDULE=FAR -UNTIL=%s" % until)
    found, = one.rows(plan)
    assert found["outcome"] == "queues" and agent.parse_time(found["begin"]) == agent.parse_time(until)
    one.ok("RELEASE -SCHEDULE=FAR")
    one.ok("SCHED ADD LAST J -1 GLOBAL 'at %s' -TIMEZONE=UTC -AFTER=FAR" % due.replace("T", " ").rstrip("Z"))
    assert [row["outcome"] for row in one.rows(plan)] == ["starts", "queues"]
    with contextlib.closing(sqlite3.connect(str(one.work), timeout=30, isolation_level=None)) as other:
        other.execute("update session set begun=strftime('%Y-%m-%dT%H:%M:%fZ', ended, '-4000 seconds')")
    session = one.ok("EXEC J seconds=300")["session"]
    one.wait_status(session, "RUNNING")
    begun = agent.parse_time(one.status(session)["begun"])
    one.ok("SCHED ADD SOON J -1 GLOBAL 'at %s' -TIMEZONE=UTC" % in_seconds(1800).replace("T", " ").rstrip("Z"))
    soon, far, last = one.rows(plan)
    assert (soon["schedule"], soon["outcome"]) == ("SOON", "queues") and soon["note"].startswith("waits for a free slot")
    assert abs(agent.parse_time(soon["begin"]) - begun - 4000) <= 1
    assert [(row["schedule"], row["outcome"]) for row in (far, last)] == [("FAR", "queues"), ("LAST", "never")]
    one.ok("STOP %s -IMMEDIATE" % session)
    assert one.rows(plan)[0]["outcome"] == "starts"
