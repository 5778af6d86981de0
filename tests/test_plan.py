"""SCHED PLAN and the preview, without a repository: what comes, what would become of it, and how it is told."""
import itertools
import random
import time

import pytest

import agent
from agent import (OVERLAPS, QUEUES, SKIPS, STARTS, UNFIT, Definitions, Plan, Schedule, Visit, find_jitter, list_coming,
                   list_earliest, list_notes, list_visits, make_timetable)

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
    begun = time.process_time()
    assert len(coming(0, None, True, 5, rule="cron * * * * * *", exclude_dates="2020-01-01..2030-01-01")) == 5
    assert len(coming(0, 10 ** 10, True, 5, rule="cron * * * * * *", exclude_dates="2020-01-01..2030-01-01")) == 5
    assert time.process_time() - begun < 2


def test_the_earliest_of_many_streams():
    rng = random.Random(1)
    for _ in range(200):
        streams = [sorted(rng.randrange(100) for _ in range(rng.randrange(8))) for _ in range(rng.randrange(9))]
        count = rng.randrange(1, 20)
        found = list(list_earliest(map(iter, streams), count, lambda item: item))
        assert found == sorted(itertools.chain(*streams))[:count]


def test_the_earliest_of_streams_that_never_end():
    opened = []

    def stream(start):
        opened.append(start)
        for item in itertools.count(start, 7):
            assert item < 200
            yield item
    assert list(list_earliest(map(stream, range(50, 0, -1)), 5, lambda item: item)) == [1, 2, 3, 4, 5]
    assert len(opened) == 50


def notes(due, before=None, enabled=True, **options):
    schedule = make_schedule(enabled=enabled, **options)
    return list_notes(schedule, schedule.timetable({}), NOON + due, NOON + (due - 1 if before is None else before))


def test_what_is_told_of_a_due_time():
    assert notes(10) == []
    assert notes(10, enabled=False) == ["disabled"]
    assert notes(10, after="A,B/2h") == ["waits for A,B/2h"]
    late = find_jitter("S", NOON + 10, 600)
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
        self.id = 7
        document = {"name": "J", "version": "1", "steps": [{"name": "a", "tasks": [{"type": "os", "command": "true"}]}]}
        self.scenario = Definitions().read(agent.json.dumps({"scenarios": [dict(document, **fields)]})).scenarios[0]

    def find_parsed(self, name, version):
        assert (name, version) == ("J", "-1")
        return self.scenario


def visits_of(schedule, duration=None, begin=0, end=25, **fields):
    return list(list_visits(Scenarios(**fields), schedule, schedule.timetable({}), duration, NOON + begin + 0.5, NOON + end))


def test_visits_of_a_schedule():
    found = visits_of(make_schedule(priority=5, overlap="skip"), 7.5)
    assert [(visit.due - NOON, visit.at - NOON) for visit in found] == [(10, 10), (20, 20)]
    first = found[0]
    assert (first.name, first.scenario, first.schedule) == ("S", (7, "J"), (7, "S"))
    assert (first.duration, first.is_known, first.overlap, first.priority) == (7.5, True, "skip", 5)
    assert (first.limit, first.on_limit) == (agent.MAX_QUEUE, "wait")
    assert (first.begin, first.end, first.outcome, first.notes) == (None, None, None, [])
    assert visits_of(make_schedule(), begin=20, end=29) == [] and visits_of(make_schedule(rule="startup")) == []
    schedule = make_schedule()                  # what is due at the first instant belongs to the period
    assert [found.due for found in list_visits(Scenarios(), schedule, schedule.timetable({}), 1, NOON, NOON + 10)] == [
        NOON, NOON + 10]
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
    assert len(list(list_visits(repository, schedule, schedule.timetable({}), None, NOON + 1, NOON + 25))) == 2


def test_what_runs_after_others_is_played_too():
    """B after A, C after A and scenario:J within 25 s: their visits come with the ends of the others."""
    scenarios = Scenarios()
    follow = [agent.Follower(scenarios, schedule, agent.visit_maker(scenarios, schedule, 3.0)) for schedule in (
        make_schedule("B", "", after="A"), make_schedule("C", "", after="A,scenario:X/25"))]
    visits = [visit(0, 5.0, "A", repository=7), visit(10, 5.0, "X", "X", repository=7), visit(40, 5.0, "A", repository=7)]
    found = Plan(9, follow).play(visits, NOON + 100)
    assert [(made.name, made.due - NOON, made.end - NOON) for made in found] == [
        ("A", 0, 5), ("B", 5, 8), ("X", 10, 15), ("C", 15, 18), ("A", 40, 45), ("B", 45, 48)]
    assert found[1].notes == ["after A"]
    # X counts for 25 s, and what is ended by its timeout meets nothing
    visits = [visit(10, 5.0, "X", "X", repository=7), visit(50, 5.0, "A", repository=7),
              visit(60, 5.0, "A", repository=7, outcome=UNFIT)]
    follow = [agent.Follower(scenarios, schedule, agent.visit_maker(scenarios, schedule, 3.0)) for schedule in (
        make_schedule("B", "", after="A"), make_schedule("C", "", after="A,scenario:X/25"))]
    assert [made.name for made in Plan(9, follow).play(visits, NOON + 100)] == ["X", "A", "B", "A"]


# -- a plan ----------------------------------------------------------------------------

def visit(at, duration=10.0, name="S", scenario=None, overlap="queue", priority=0, limit=agent.MAX_QUEUE, on_limit="wait",
          repository=1, due=None, outcome=None):
    """A Visit; times in seconds after noon."""
    made = Visit(name=name, scenario=(repository, scenario or name), due=NOON + (at if due is None else due), at=NOON + at,
                 duration=duration, is_known=True, overlap=overlap, priority=priority, limit=limit, on_limit=on_limit)
    made.outcome = outcome
    return made


def played(*visits, slots=10, end=1000):
    """[(outcome, begin, end)] in seconds after noon."""
    return [(made.outcome, made.begin if made.begin is None else made.begin - NOON,
             made.end if made.end is None else made.end - NOON) for made in Plan(slots).play(list(visits), NOON + end)]


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


class SlowPlan:
    """The same by looking at everything, instant by instant."""

    def __init__(self, slots):
        self.slots, self.running, self.waiting = slots, [], []

    def play(self, visits, end):
        visits, result = list(visits), {}
        for at, together in itertools.groupby(enumerate(visits), key=lambda entry: entry[1].at):
            self.go_to(at, result)
            for number, made in together:
                self.arrive(number, made, result)
            self.begin(at, result)
        self.go_to(end, result)
        for number, made in self.waiting:
            result[number] = UNFIT, None, None
        return [result[number] for number in range(len(visits))]

    def go_to(self, now, result):
        while self.running and min(until for until, _, _ in self.running) <= now:
            first = min(range(len(self.running)), key=lambda place: self.running[place][:2])
            until = self.running.pop(first)[0]
            self.begin(until, result)

    def arrive(self, number, made, result):
        mine = [other for _, _, other in self.running if other.schedule == made.schedule]
        queued = [other for _, other in self.waiting if other.schedule == made.schedule]
        rivals = [other for other in [o for _, _, o in self.running] + [o for _, o in self.waiting]
                  if other.scenario == made.scenario and not (made.overlap == "stop" and other.schedule == made.schedule)]
        if made.overlap == "skip" and mine + queued or made.overlap == "queue" and queued \
                or made.on_limit != "wait" and len(rivals) >= made.limit:
            result[number] = SKIPS, None, None
            return
        if made.overlap == "stop":
            for entry in [entry for entry in self.running if entry[2] in mine]:
                self.running.remove(entry)
                result[entry[1]] = OVERLAPS, result[entry[1]][1], made.at
            for entry in [entry for entry in self.waiting if entry[1] in queued]:
                self.waiting.remove(entry)
                result[entry[0]] = OVERLAPS, None, made.at
        elif mine:
            result[number] = OVERLAPS, None, None
        self.waiting.append((number, made))

    def begin(self, now, result):
        for number, made in sorted(self.waiting, key=lambda entry: -entry[1].priority):
            own = [other for _, _, other in self.running if other.schedule == made.schedule]
            rivals = [other for _, _, other in self.running if other.scenario == made.scenario]
            if len(self.running) < self.slots and (made.overlap == "parallel" or not own) and len(rivals) < made.limit:
                self.waiting.remove((number, made))
                self.running.append((now + made.duration, number, made))
                outcome = result.get(number, (None,))[0] or (STARTS if now == made.at else QUEUES)
                result[number] = outcome, now, now + made.duration


def test_plans_against_one_that_looks_at_everything():
    rng = random.Random(8)
    for _ in range(400):
        kinds = {}
        for name in "ABCDEF"[:rng.randint(1, 6)]:
            scenario = rng.choice("JKL")
            kinds[name] = dict(name=name, scenario=scenario, overlap=rng.choice(("queue", "skip", "parallel", "stop")),
                               priority=rng.choice((0, 0, 0, 5, -5)), duration=float(rng.choice((0, 1, 5, 20, 60))))
        limits = {scenario: (rng.choice((1, 1, 2, 100)), rng.choice(("wait", "wait", "skip"))) for scenario in "JKL"}
        at, visits = 0, []
        for _ in range(rng.randint(1, 60)):
            at += rng.choice((0, 0, 1, 3, 10))
            kind = kinds[rng.choice(sorted(kinds))]
            limit, on_limit = limits[kind["scenario"]]
            visits.append(visit(at, limit=limit, on_limit=on_limit, **kind))
        slots, end = rng.randint(1, 5), at + rng.choice((0, 10, 1000))
        expected = [(outcome, begin and begin - NOON, until and until - NOON)
                    for outcome, begin, until in SlowPlan(slots).play(visits, NOON + end)]
        found = played(*visits, slots=slots, end=end)
        assert [row if row[1] is not None or row[0] != UNFIT else (UNFIT, None, None) for row in found] == expected


@pytest.mark.parametrize("make", [
    lambda n: visit(4 * n, 3600.0, overlap="parallel"), lambda n: visit(4 * n, 3600.0, "S%d" % (n % 100), overlap="parallel"),
    lambda n: visit(0, 60.0, "S%d" % n), lambda n: visit(0, 60.0, "S%d" % n, "J", limit=1),
    lambda n: visit(n // 100, 60.0, "S%d" % (n % 3000), "J%d" % (n % 7), limit=3, priority=n % 5),
    lambda n: visit(4 * n, 3600.0, "S%d" % (n % 100), overlap="stop")])
def test_a_plan_of_many_is_quick(make):
    visits = [make(n) for n in range(agent.MAX_VISITS)]
    begun = time.process_time()
    Plan(8).play(visits, NOON + DAY)
    assert time.process_time() - begun < 5
