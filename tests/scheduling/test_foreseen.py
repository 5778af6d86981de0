"""PLAN says what then happens: schedules at random are planned, and then played by the real scheduler, ledger and queue
over a repository, the clock in the test's hand. And the decisions that they share, each by itself."""
import collections
import contextlib
import json
import random
import types

import pytest

import agent
from agent import DONE, ERROR, NORMAL, SKIPS, STOPPED, Admission, Hold, are_met, find_overlap, list_gates, weigh_limit
from conftest import turns_of
from support.site import NOON, Site, make_scenario


class Later:
    """An Inbox whose things the test does itself."""

    def __init__(self):
        self.things = collections.deque()

    def put(self, function, pending):
        self.things.append((function, pending))


class Queue(agent.SessionQueue):
    """A queue without threads: the test asks it what may begin."""

    def _call_thread(self):
        pass


class SlotRun:
    """A session in its slot, which runs when the test says so."""
    is_apart = has_parked = False

    def __init__(self, world, ticket, repository):
        self._world, self.ticket, self.repository = world, ticket, repository
        self.number, self.is_begun, self.until = ticket.session, True, None

    def stop(self, mode, message):
        assert mode != NORMAL and message
        self._world.end_run(self, STOPPED)


class World(Site):
    """A Site whose sessions run as long as their scenario does. Times are seconds after noon."""

    def __init__(self, folder, slots, durations):
        self.inbox, self._slots, self._durations = Later(), slots, durations
        self.is_stopping, self.settings = False, types.SimpleNamespace(max_queue=1000)
        self.name, self._desk = "AGENT", None
        self.waits = types.SimpleNamespace(of_ticket=lambda ticket, patterns: None)      # nobody asks
        super().__init__(folder)

    def make_queue(self):
        return Queue(self._slots, lambda ticket, repository: SlotRun(self, ticket, repository), lambda: False,
                     agent.Clock())

    @property
    def desk(self):
        """It sees the World as its agent."""
        if self._desk is None:
            self.watch = agent.Watch(self.places, self.clock)
            self.families = agent.Families(self)
            self._desk = agent.Desk(self)
        return self._desk

    def take(self, made):
        self.desk.take_made(self.repository, made)

    def settle(self):
        """Writes and does what is to be written and done -> whether there was anything."""
        super().settle()
        has_things = bool(self.inbox.things)
        while self.inbox.things:
            function, pending = self.inbox.things.popleft()
            function(pending)
            super().settle()
        return has_things

    def tick(self):
        while True:
            left = self.scheduler.tick()
            if not self.settle():
                return left

    def execute(self, scenario, **fields):
        self.desk.submit(agent.SessionRequest(scenario, "AGENT", **fields), self.repository).result()
        self.settle()

    def begin(self):
        """Begins what may."""
        while True:
            run = self.queue.take_next()
            if run is None:
                return
            now = self.clock.time
            self.repository.db.write(self.repository.sessions.begin, run.number, "me", False, now)
            row = self.repository.db.read(self.repository.sessions.get, run.number)
            duration = self._durations[row["scenario"]]
            run.is_late = row["timeout"] is not None and row["timeout"] < duration
            run.until = now + (row["timeout"] if run.is_late else duration)

    def end_run(self, run, status):
        ending = self.repository.db.write(self.repository.endings.end, run.number, status, "", self.clock.time)
        self.queue.leave(run)
        self.queue.end(run, None)
        self.desk.ended(self.repository, ending)

    def hold_all(self, until):
        self._change_hold(Hold("", "me", self.clock.time, None if until is None else NOON + until))

    def _change_hold(self, hold):
        self.hold = hold
        self.repository.db.submit(self.repository.sessions.set_waiting, "AGENT", hold is not None, self.clock.time)
        self.queue.hold(hold is not None)
        self.hold_agent(hold)
        self.begin()

    def go_on(self, until):
        """All that happens up to a time."""
        left = self.tick()
        self.begin()
        while True:
            now = self.clock.time
            times = [run.until for run in self.queue.list_running()] + [
                now + left if left is not None else NOON + until + 1,
                self.hold.until if self.hold and self.hold.until else NOON + until + 1]
            if min(times) > NOON + until:
                self.clock.move(NOON + until - now)
                return
            self.clock.move(min(times) - now)
            if self.hold and self.hold.until and self.hold.until <= self.clock.time:
                self._change_hold(None)
            self.end_over()
            left = self.tick()
            self.begin()

    def end_over(self):
        """Ends the sessions whose time is over, and those that begin by that and take none."""
        over = True
        while over:
            over = [run for run in self.queue.list_running() if run.until <= self.clock.time]
            for run in over:
                if self.queue.find(run.number) is run:      # not stopped by what follows another
                    self.end_run(run, ERROR if run.is_late else DONE)
                    self.settle()
            self.begin()

    def list_happened(self, since):
        """{(schedule, due): (begin, end) in seconds after noon, or (None, None) where there is no session}, later
        than this."""
        happened = {}
        for row in self.repository.db.read(self.repository.ledger.list_occurrences, None, 100000):
            if row["session"] is None:
                happened.update(((row["schedule"], due), SKIPS) for due in self._list_dues(row))
        for row in self.repository.db.read(self.repository.views.list_sessions, agent.SessionFilter(), 1 << 62, 100000):
            if row["schedule"]:
                begun, ended = (row[name] and agent.from_text(row[name]) - NOON for name in ("begun", "ended"))
                happened[row["schedule"], agent.from_text(row["due"]) - NOON] = \
                    SKIPS if row["status"] == ERROR and begun is None else (begun, ended)
        return {key: what for key, what in happened.items() if key[1] > since}

    def _list_dues(self, row):
        """The due times that share a row of the ledger."""
        first, last = agent.from_text(row["due"]), agent.from_text(row["last_due"])
        entry = self.scheduler.find((1, row["schedule"]))
        dues, due = {first}, entry.timetable and entry.timetable.next_after(first - 1)
        while due is not None and due <= last:
            dues.add(due)
            due = entry.timetable.next_after(due)
        return [due - NOON for due in dues]

    def foresee(self, until):
        """What PLAN says, as list_happened has it; None for what has not begun in the end."""
        period = agent.Period(self.clock.time, NOON + until, self.clock.time, self._slots, self.hold or None)
        troubles = []
        _, visits = self.listing.plan(period, None, troubles)
        assert not troubles
        foreseen = {}
        for visit in sorted(visits, key=lambda visit: visit.outcome != SKIPS):      # two may follow in a millisecond
            if visit.at <= NOON + until:        # else jitter leads out of the period
                foreseen[visit.name, round(visit.due - NOON, 3)] = SKIPS if visit.outcome == SKIPS else (
                    visit.begin and visit.begin - NOON, visit.end and visit.end - NOON)
        return foreseen


def make_world(folder, rng):
    """Scenarios with and without a limit, and schedules of every kind of overlap."""
    durations = {name: rng.choice((1, 4, 9, 25, 60)) for name in "JKL"}
    world = World(folder, rng.choice((1, 1, 2, 3, 9)), durations)
    scenarios = [make_scenario(name, **rng.choice(({}, {}, {"concurrency": {
        "limit": rng.choice((1, 1, 2)), "on_limit": rng.choice(("wait", "wait", "skip", "error"))}}))) for name in durations]
    document = agent.Definitions().read(json.dumps({"scenarios": scenarios}))
    world.repository.db.write(world.repository.imports.put, document, "AGENT", NOON)
    for name, duration in durations.items():            # PLAN knows how long each takes
        world.execute(name)
        world.begin()
        world.go_on(world.clock.time - NOON + duration)
    for name in "ABCDEF"[:rng.randint(2, 6)]:
        after = [rng.choice(("A", "scenario:" + rng.choice("JKL"))) + rng.choice(("", "/30"))] if name != "A" else []
        options = {"overlap": rng.choice(("queue", "skip", "parallel", "stop")), "priority": rng.choice((0, 0, 5, -5)),
                   "misfire": rng.choice(("once", "skip", "all")), "jitter": rng.choice((0, 0, 0, 4))}
        if after and rng.random() < 0.4:
            options["after"] = after[0]
        if rng.random() < 0.2:
            options.update(timeout=rng.choice((2, 30)), grace=rng.choice((10, 100)))
        has_rule = "after" not in options or rng.random() < 0.5
        options = {key: value for key, value in options.items() if has_rule or key != "jitter"}
        rule = "every %ds" % rng.choice((5, 7, 10, 20, 33)) if has_rule else ""
        with contextlib.suppress(agent.Conflict):       # it would wait for itself
            world.changes.add(agent.Schedule(
                name, "AGENT", rng.choice("JKL"), "-1", "GLOBAL", rule, "UTC", True, {}, options), None)
        world.settle()
    return world


def stir(world, rng):
    """What operators and clients do: EXEC now and later, holds of one and of all."""
    now = world.clock.time - NOON
    for _ in range(rng.choice((0, 2, 6))):
        with contextlib.suppress(agent.Busy):
            world.execute(rng.choice("JKL"), priority=rng.choice((0, 3)),
                          start_at=rng.choice((None, None, int(world.clock.time) + rng.randint(1, 40) + 0.75)))
        world.begin()
    for entry in world.scheduler.list_entries(1):
        if rng.random() < 0.25:
            world.hold_one(True, entry.name, rng.choice((None, int(now) + rng.randint(1, 50) + 0.5)))
    if rng.random() < 0.3:
        world.hold_all(rng.choice((None, int(now) + rng.randint(1, 50) + 0.25)))


@pytest.mark.parametrize("seed", range(24))
def test_plan_says_what_then_happens(tmp_path, seed):
    rng = random.Random(seed)
    world = make_world(tmp_path, rng)
    try:
        before = world.clock.time - NOON
        world.go_on(before + rng.randint(0, 60))
        stir(world, rng)
        begin = world.clock.time - NOON
        world.go_on(begin + rng.choice((0, 0, 7.125)))
        begin = world.clock.time - NOON
        end = begin + rng.choice((10, 60, 150))
        foreseen, known = world.foresee(end), world.list_happened(-1e9)
        world.go_on(end)
        happened = {key: what for key, what in world.list_happened(-1e9).items() if known.get(key) != what and key[1] <= end}
        nothing = None, None
        for key in sorted(set(foreseen) | set(happened)):
            plan, fact = foreseen.get(key, nothing), happened.get(key, nothing)
            if plan != SKIPS and plan[1] is not None:       # what comes behind the end has not happened yet
                plan = tuple(when if when is not None and when <= end else None for when in plan)
            if key not in foreseen and (key in known or key[1] <= begin and fact == SKIPS):
                continue                # PLAN shows due times, but what was open, and no skipped ones of before
            if SKIPS in (plan, fact) and nothing in (plan, fact) and world.scheduler.find((1, key[0])).timetable is None:
                continue                # the ledger has many as one row, and no rule tells them
            assert plan == fact, (key, begin, end)
    finally:
        world.stop()


# -- the decisions that they share -----------------------------------------------------

@pytest.mark.parametrize("overlap, is_backlog, expected", [
    ("queue", False, ("b", [])), ("queue", True, (None, [])), ("skip", False, ("a", [])), ("parallel", False, (None, [])),
    ("stop", False, (None, ["a", "b"]))])
def test_overlap(overlap, is_backlog, expected):
    assert find_overlap(overlap, [("a", True), ("b", False)], is_backlog) == expected
    assert find_overlap(overlap, [], is_backlog) == (None, [])
    assert find_overlap("queue", [("a", True)]) == (None, [])


def test_limit():
    for on_limit in ("wait", "error", "skip"):
        assert [weigh_limit(2, on_limit, count) for count in range(4)] == ["", "", on_limit, on_limit]
        assert weigh_limit(None, on_limit, 10 ** 6) == ""


def test_conditions():
    assert are_met([], {}, 100)
    assert not are_met([("A", None)], {}, 100) and not are_met([("A", None)], {"A": None}, 100)
    assert are_met([("A", None), ("B", 30)], {"A": -1e9, "B": 70}, 100)
    assert not are_met([("A", None), ("B", 30)], {"A": 0, "B": 69.9}, 100)


def test_gates():
    assert list_gates(7, "S", False, "J", 2) == [(("schedule", 7, "S"), 1), (("scenario", 7, "J"), 2)]
    assert list_gates(7, "S", True, "J", None) == [
        (("schedule", 7, "S"), agent.MAX_QUEUE), (("scenario", 7, "J"), agent.MAX_QUEUE)]
    assert list_gates(7, None, False, "J", 1) == [(("scenario", 7, "J"), 1)]


class SlowAdmission:
    """The same by looking at everybody who waits."""

    def __init__(self, slots):
        self.slots, self.is_held, self.waiting, self.running, self.held = slots, False, [], {}, set()

    def take(self):
        for key, _, gates in sorted(self.waiting, key=lambda entry: -entry[1]):
            busy = collections.Counter(gate for own in self.running.values() for gate, _ in own)
            if not self.is_held and len(self.running) < self.slots and all(
                    busy[gate] < limit and gate not in self.held for gate, limit in gates):
                self.waiting = [entry for entry in self.waiting if entry[0] != key]
                self.running[key] = gates
                return key
        return None


def test_who_begins_against_one_that_looks_at_everybody():
    rng = random.Random(3)
    for _ in range(300):
        slots, keys = rng.randint(0, 4), iter(range(10 ** 6))
        fast, slow = Admission(slots), SlowAdmission(slots)
        for _ in range(rng.randint(1, 120)):
            deed = rng.random()
            if deed < 0.4:          # limits of one gate differ: versions of a scenario, changes of a schedule
                gates = [(gate, rng.choice((1, 1, 2, 9))) for gate in rng.sample("ABC", rng.randint(0, 2))]
                key, priority = next(keys), rng.choice((0, 0, 5))
                fast.add(key, priority, gates)
                slow.waiting.append((key, priority, gates))
            elif deed < 0.65 and slow.running:
                key = rng.choice(sorted(slow.running))
                fast.leave(key)
                del slow.running[key]
            elif deed < 0.72 and slow.waiting:
                key = rng.choice(slow.waiting)[0]
                fast.discard(key)
                slow.waiting = [entry for entry in slow.waiting if entry[0] != key]
            elif deed < 0.82:
                gate, is_held = rng.choice("ABC"), rng.random() < 0.5
                fast.hold_gate(gate, is_held)
                (slow.held.add if is_held else slow.held.discard)(gate)
            elif deed < 0.86:
                slow.is_held = not slow.is_held
                fast.hold(slow.is_held)
            elif deed < 0.9:
                key, gates = next(keys), [("A", 1)]
                fast.occupy(key, gates)
                slow.running[key] = gates
            elif deed < 0.93:
                count = rng.choice((1, -1)) if slow.slots else 1
                fast.lend(count)
                slow.slots += count
            for _ in range(rng.choice((0, 1, 20))):
                begun = slow.take()
                assert fast.take() == begun
                if begun is None:
                    break


def test_an_end_costs_the_same_however_many_wait():
    def cost(count):
        admission = Admission(1)
        for key in range(count):
            admission.add(key, 0, [("J", 1)])
        assert admission.take() == 0 and admission.take() is None

        def go_round():
            for key in range(90):
                admission.leave(key)
                assert admission.take() == key + 1
        return turns_of(go_round)[1]
    assert cost(20000) <= cost(100) * 20        # looking at all would cost 200 times as much
