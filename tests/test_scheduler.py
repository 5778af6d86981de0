"""Section 12 without a thread, the clock in the test's hand; and what a repository decides of a due time."""
import collections
import json
import os
import random

import pytest

import agent
from agent import (DONE, LATE, SKIPPED, STARTED, FAILED, Definitions, Entry, Hold, Schedule, Scheduler,
                   WorkRepository, from_text, make_timetable, to_text)

NOON = 1780315200               # 2026-06-01T12:00:00Z
Owner = collections.namedtuple("Owner", "id")


class FakeClock:
    """A clock that stands still until the test moves it."""

    def __init__(self, now=NOON):
        self.time = float(now)

    def now(self):
        return self.time

    def monotonic(self):
        return self.time


class Decisions:
    """A Scheduler and what it decided: [(name, due, missed)], each written down at once."""

    def __init__(self, is_prompt=True):
        self.clock, self.made, self.is_prompt = FakeClock(), [], is_prompt
        self.scheduler = Scheduler(self.clock, self._decide)

    def _decide(self, entry, due, missed):
        self.made.append((entry.schedule.name, due, missed))
        if self.is_prompt:
            self.scheduler.decided(entry, due)

    def put(self, rule, name="S", decided=None, enabled=True, hold=None, revision=1, repository=1):
        schedule = Schedule(name, "AGENT", "J", "-1", "GLOBAL", rule, "UTC", enabled, {})
        entry = Entry(Owner(repository), schedule, revision, make_timetable(rule, "UTC"),
                      self.clock.time if decided is None else decided, hold)
        self.scheduler.put(entry)
        return entry

    def at(self, seconds):
        """Moves the clock to so many seconds after noon -> (what was decided, what tick said)."""
        self.clock.time = NOON + seconds
        before = len(self.made)
        left = self.scheduler.tick()
        return self.made[before:], left


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
    assert decisions.at(90) == ([("S", NOON + 90, None)], 90)
    assert decisions.at(180.25) == ([("S", NOON + 180, None)], 89.75)


def test_each_due_time_once(decisions):
    decisions.put("every 1s")
    for tenth in range(0, 100):
        decisions.at(tenth / 10)
    assert decisions.made == [("S", NOON + second, None) for second in range(1, 10)]


def test_many_schedules_in_the_order_of_their_due_times(decisions):
    for name, rule in (("C", "daily at 12:00:03"), ("A", "daily at 12:00:01"), ("B", "every 2s")):
        decisions.put(rule, name)
    assert decisions.at(0)[1] == 1
    for second in (1, 2, 3, 4):
        decisions.at(second)
    assert [(name, due - NOON) for name, due, _ in decisions.made] == [
        ("A", 1), ("B", 2), ("C", 3), ("B", 4)]


def test_many_due_at_once_are_all_decided_in_one_tick(decisions):
    for number in range(200):
        decisions.put("daily at 12:00:05", "S%03d" % number)
    made, left = decisions.at(5)
    assert sorted(name for name, _, _ in made) == ["S%03d" % n for n in range(200)]
    assert left == 86400


def test_same_name_in_two_repositories_are_two(decisions):
    one, two = decisions.put("every 1s", repository=1), decisions.put("every 1s", repository=2)
    assert one.key != two.key and len(decisions.at(1)[0]) == 2
    assert decisions.scheduler.list_entries(1) == [one]
    decisions.scheduler.remove(one.key)
    assert len(decisions.at(2)[0]) == 1 and decisions.scheduler.find(one.key) is None


def test_one_event_a_schedule(decisions):
    """However far the clock jumps, no schedule piles up events, and none is decided twice."""
    decisions.put("every 1s")
    assert len(decisions.scheduler._events.queue) == 1
    for second in (1, 5, 5, 5, 60):
        decisions.at(second)
        assert len(decisions.scheduler._events.queue) == 1
    assert [due - NOON for _, due, _ in decisions.made] == [1, 5, 60]


def test_what_was_missed_is_one_decision_with_its_count(decisions):
    decisions.put("every 10s", decided=NOON - 95)
    made, left = decisions.at(3)
    assert made == [("S", NOON, (NOON - 90, NOON - 10, 9))] and left == 7


def test_one_missed_is_told_as_one(decisions):
    decisions.put("every 10s", decided=NOON - 15)
    assert decisions.at(3)[0] == [("S", NOON, (NOON - 10, NOON - 10, 1))]


def test_one_late_due_time_is_not_missed(decisions):
    decisions.put("daily at 02:00", decided=NOON - 86400)
    assert decisions.at(0)[0] == [("S", NOON - 10 * 3600, None)]


def test_years_of_downtime_are_counted_at_once(decisions):
    decisions.put("every 1s", decided=NOON - 3 * 365 * 86400)
    made, _ = decisions.at(0)
    first = NOON - 3 * 365 * 86400 + 1
    assert made == [("S", NOON, (first, NOON - 1, NOON - first))]


def test_an_at_of_the_past_that_is_decided_never_comes_up(decisions):
    decisions.put("at 2026-06-01 11:00")
    assert decisions.at(100) == ([], None)


def test_an_at_missed_while_down_comes_up_once(decisions):
    decisions.put("at 2026-06-01 11:00", decided=NOON - 7200)
    assert decisions.at(0) == ([("S", NOON - 3600, None)], None)
    assert decisions.at(100000)[0] == []


def test_startup_never_comes_up_by_time(decisions):
    decisions.put("startup", decided=NOON - 7200)
    assert decisions.at(100000) == ([], None)


def test_a_change_is_recognised_when_the_event_comes_up(decisions):
    decisions.put("every 10s")
    decisions.put("every 15s", revision=2)
    for second in (10, 15, 20, 30):
        decisions.at(second)
    assert [due - NOON for _, due, _ in decisions.made] == [15, 30]


def test_a_change_to_the_same_due_time_fires_once(decisions):
    decisions.put("every 10s")
    decisions.put("daily at 12:00:10", revision=2)
    assert len(decisions.at(10)[0]) == 1


def test_removed_and_disabled_fire_no_more(decisions):
    entry = decisions.put("every 10s")
    decisions.scheduler.remove(entry.key)
    decisions.put("every 10s", "OFF", enabled=False)
    assert decisions.at(100)[0] == []
    assert decisions.scheduler.list_entries(1)[0].due is None
    decisions.scheduler.remove((1, "NO_SUCH"))


def test_removed_and_put_in_again(decisions):
    entry = decisions.put("every 10s")
    decisions.scheduler.remove(entry.key)
    decisions.put("every 10s", revision=2)
    assert len(decisions.at(10)[0]) == 1


def test_without_a_timetable_it_never_fires(decisions):
    schedule = Schedule("S", "AGENT", "J", "-1", "GLOBAL", "nonsense", "", True, {})
    decisions.scheduler.put(Entry(Owner(1), schedule, 1, None, NOON))
    assert decisions.at(100000) == ([], None)


def test_the_next_is_armed_only_when_the_last_is_written():
    decisions = Decisions(is_prompt=False)
    entry = decisions.put("every 10s")
    assert len(decisions.at(10)[0]) == 1
    assert decisions.at(40)[0] == []
    decisions.scheduler.decided(entry, NOON + 10)
    assert decisions.at(41)[0] == [("S", NOON + 40, (NOON + 20, NOON + 30, 2))]


def test_what_was_decided_for_an_entry_since_replaced_arms_nothing():
    decisions = Decisions(is_prompt=False)
    old = decisions.put("every 10s")
    decisions.at(10)
    decisions.put("every 30s", revision=2)
    decisions.scheduler.decided(old, NOON + 10)
    assert [due - NOON for _, due, _ in decisions.at(20)[0] + decisions.at(30)[0]] == [30]


def test_held_nothing_is_decided_and_the_release_decides_the_rest_once(decisions):
    decisions.put("every 10s")
    decisions.put("every 1h", "LATER")
    decisions.scheduler.hold(True)
    for second in (10, 20, 35):
        assert decisions.at(second)[0] == []
    decisions.scheduler.hold(False)
    assert decisions.at(36)[0] == [("S", NOON + 30, (NOON + 10, NOON + 20, 2))]
    assert decisions.at(40)[0] == [("S", NOON + 40, None)]
    assert decisions.at(3600)[0][-1][0] in ("S", "LATER")
    assert [name for name, _, _ in decisions.made].count("LATER") == 1


def test_held_and_released_before_anything_is_due(decisions):
    decisions.put("every 10s")
    decisions.scheduler.hold(True)
    decisions.scheduler.hold(False)
    assert len(decisions.at(10)[0]) == 1


def test_the_hold_of_one_schedule_leaves_the_others(decisions):
    hold = Hold("", "me", to_text(NOON), None)
    held = decisions.put("every 10s", hold=hold)
    decisions.put("every 10s", "OTHER")
    for second in (10, 20):
        assert [name for name, _, _ in decisions.at(second)[0]] == ["OTHER"]
    decisions.put("every 10s", decided=held.decided, revision=1)        # its release
    assert ("S", NOON + 20, (NOON + 10, NOON + 10, 1)) in decisions.at(25)[0]


def test_the_release_of_the_agent_leaves_the_hold_of_a_schedule(decisions):
    decisions.put("every 10s", hold=Hold("", "me", to_text(NOON), None))
    decisions.scheduler.hold(True)
    decisions.at(10)
    decisions.scheduler.hold(False)
    assert decisions.at(20)[0] == []


def test_a_clock_set_back_fires_nothing_again(decisions):
    decisions.put("every 10s")
    for second in (10, 20):
        decisions.at(second)
    made, left = decisions.at(-100)
    assert made == [] and left == 130
    assert decisions.at(15)[0] == [] and decisions.at(29)[0] == []
    assert decisions.at(30)[0] == [("S", NOON + 30, None)]


def test_a_clock_set_forward_counts_as_downtime(decisions):
    decisions.put("every 10s")
    assert decisions.at(86400)[0] == [("S", NOON + 86400, (NOON + 10, NOON + 86390, 8639))]


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

    def decide(entry, due, missed):
        if entry.schedule.name == "BAD":
            raise RuntimeError("no")
        made.append(due)
    scheduler = Scheduler(clock, decide)
    for name in ("BAD", "GOOD"):
        schedule = Schedule(name, "AGENT", "J", "-1", "GLOBAL", "every 10s", "UTC", True, {})
        scheduler.put(Entry(Owner(1), schedule, 1, make_timetable("every 10s"), NOON))
    clock.time += 10
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


def test_at_random_no_due_time_is_lost_or_doubled():
    """Each due time is decided or counted as missed, once, whatever happens in between."""
    rng = random.Random(3)
    for _ in range(20):
        decisions, second, revision = Decisions(), 0.0, 1
        entry = decisions.put("every 7s", decided=NOON)
        for _ in range(80):
            second += rng.choice((0.1, 1, 3, 7, 20, 100))
            what = rng.randrange(6)
            if what == 0:
                decisions.scheduler.hold(True)
            elif what == 1:
                decisions.scheduler.hold(False)
            elif what == 2:
                revision += 1
                entry = decisions.put("every 7s", decided=entry.decided, revision=revision)
            elif what == 3:
                second -= 50
            decisions.at(second)
        decisions.scheduler.hold(False)
        decisions.at(second + 1000)
        upto = NOON
        timetable = make_timetable("every 7s")
        for _, due, missed in decisions.made:
            first, last, count = missed or (due, None, 0)
            assert first == timetable.next_after(upto)
            assert count == timetable.count(upto, due) - 1
            assert missed is None or last == timetable.last_until(upto, due - 1)
            upto = due
        assert timetable.count(upto, NOON + second + 1000) == 0


# -- what a repository decides ---------------------------------------------------------

class Ledger:
    """A work repository with scenario J and schedules, and its decisions."""

    def __init__(self, folder):
        self.clock = FakeClock()
        self.repository = WorkRepository.create(7, "R", str(folder / "r.db"), agent.Clock())
        scenario = {"name": "J", "version": "1", "variables": {"day": "x"}, "steps": [
            {"name": "a", "tasks": [{"type": "os", "command": "true"}]}]}
        self.write(lambda connection: self.repository.import_document(
            connection, Definitions().read(json.dumps({"scenarios": [scenario]})), "AGENT",
            to_text(NOON)))

    def write(self, work):
        return self.repository.db.write(work)

    def add(self, name="S", **changes):
        schedule = Schedule(name, "AGENT", "J", "-1", "GLOBAL", "every 10s", "UTC", True, {})
        self.write(lambda connection: self.repository.add_schedule(
            connection, schedule._replace(**changes), to_text(NOON)))

    def row(self, name="S"):
        with self.repository.db.reading() as connection:
            return self.repository.get_schedule(connection, name)

    def decide(self, seconds, missed=None, name="S", revision=None, is_held=False, now=None):
        """decide() of a due time, all in seconds after noon -> session number or None."""
        if missed:
            missed = to_text(NOON + missed[0]), to_text(NOON + missed[1]), missed[2]
        ticket = self.write(lambda connection: self.repository.decide(
            connection, name, self.row(name)["revision"] if revision is None else revision,
            to_text(NOON + seconds), missed, to_text(NOON + (seconds if now is None else now)), is_held))
        return ticket and ticket.session

    def end(self, session, late_s=0.0):
        """Runs a session in no time."""
        with self.repository.db.reading() as connection:
            due = from_text(self.repository.get_session(connection, session)["due"])
        now = to_text(due + late_s)
        self.write(lambda connection: (
            self.repository.begin_session(connection, session, "me", late_s > 1, now),
            self.repository.end_session(connection, session, DONE, "", 5, now)))

    def occurrences(self, name=None):
        """Oldest first: (due, last due, count, decision, reason, session), seconds after noon."""
        return [(from_text(row["due"]) - NOON, from_text(row["last_due"]) - NOON, row["count"],
                 row["decision"], row["reason"], row["session"])
                for row in reversed(self.repository.list_occurrences(name, 1000))]

    def sessions(self):
        return self.repository.list_sessions(agent.SessionFilter(), 1 << 62, 1000)


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path)
    yield made
    made.repository.db.close()


def test_a_due_time_makes_one_session_with_its_occurrence(ledger):
    ledger.add(variables={"day": "monday"})
    assert ledger.decide(10) == 1007
    assert ledger.occurrences() == [(10, 10, 1, STARTED, "", 1007)]
    row = ledger.sessions()[0]
    assert (row["status"], row["schedule"], row["due"]) == ("QUEUED", "S", to_text(NOON + 10))
    assert json.loads(row["variables"]) == {"day": "monday"}
    assert ledger.row()["decided"] == to_text(NOON + 10)


def test_once_per_due_time_whoever_asks(ledger):
    ledger.add()
    ledger.end(ledger.decide(20))
    for seconds in (20, 20, 10, -5, 0):
        assert ledger.decide(seconds) is None
    assert ledger.decide(30) == 2007
    assert [row[0] for row in ledger.occurrences()] == [20, 30]
    assert len(ledger.sessions()) == 2


def test_a_crash_between_leaves_neither_session_nor_occurrence(ledger):
    ledger.add()

    class Crash(Exception):
        pass

    def work(connection):
        self = ledger.repository
        assert self.decide(connection, "S", ledger.row()["revision"], to_text(NOON + 10), None,
                           to_text(NOON + 10), False)
        raise Crash
    with pytest.raises(Crash):
        ledger.write(work)
    assert ledger.occurrences() == [] and ledger.sessions() == []
    assert ledger.decide(10) == 1007


def test_out_of_date_decides_nothing(ledger):
    ledger.add()
    revision = ledger.row()["revision"]
    ledger.write(lambda connection: ledger.repository.set_schedule(
        connection, "S", lambda schedule: schedule._replace(rule="every 20s"), to_text(NOON + 5)))
    assert ledger.decide(10, revision=revision) is None
    assert ledger.decide(20) == 1007
    ledger.write(lambda connection: ledger.repository.set_schedule(
        connection, "S", lambda schedule: schedule._replace(enabled=False), to_text(NOON + 25)))
    assert ledger.decide(40) is None
    ledger.write(lambda connection: ledger.repository.delete_schedule(connection, "S"))
    assert ledger.decide(60, revision=1) is None
    assert len(ledger.sessions()) == 1


def test_a_deleted_schedule_made_again_does_not_decide_what_the_old_one_did(ledger):
    ledger.add()
    assert ledger.decide(10) == 1007
    ledger.write(lambda connection: ledger.repository.delete_schedule(connection, "S"))
    ledger.add()
    assert ledger.decide(10) is None
    assert len(ledger.occurrences()) == 1


def test_a_change_does_not_fire_the_past(ledger):
    ledger.add()
    ledger.write(lambda connection: ledger.repository.set_schedule(
        connection, "S", lambda schedule: schedule._replace(rule="every 1s"), to_text(NOON + 100)))
    assert ledger.row()["decided"] == to_text(NOON + 100)
    revision = ledger.row()["revision"]
    ledger.write(lambda connection: ledger.repository.set_schedule(
        connection, "S", lambda schedule: schedule, to_text(NOON + 200)))
    assert ledger.row()["decided"] == to_text(NOON + 100) and ledger.row()["revision"] == revision


def test_overlap_one_waits_further_ones_are_skipped_in_one_row(ledger):
    ledger.add()
    first = ledger.decide(10)
    ledger.write(lambda connection: ledger.repository.begin_session(
        connection, first, "me", False, to_text(NOON + 10)))
    second = ledger.decide(20)
    assert second == 2007                               # it waits
    for seconds in (30, 40, 50):
        assert ledger.decide(seconds) is None
    assert ledger.occurrences() == [(10, 10, 1, STARTED, "", first), (20, 20, 1, STARTED, "", second),
                                    (30, 50, 3, SKIPPED, "overlap", None)]
    ledger.end(second)
    assert ledger.decide(60) == 3007
    assert ledger.decide(70) is None
    assert ledger.occurrences()[-2:] == [(60, 60, 1, STARTED, "", 3007),
                                         (70, 70, 1, SKIPPED, "overlap", None)]
    assert ledger.decide(30) is None and ledger.decide(50) is None


def test_overlap_is_of_the_same_schedule_alone(ledger):
    ledger.add()
    ledger.add("OTHER")
    ledger.decide(10)
    assert ledger.decide(10, name="OTHER") == 2007
    ledger.write(lambda connection: ledger.repository.add_session(
        connection, agent.SessionRequest("J", "AGENT"), to_text(NOON)))
    ledger.end(1007)
    assert ledger.decide(20) == 4007


def test_held_it_waits(ledger):
    ledger.add()
    assert ledger.decide(10, is_held=True) == 1007
    assert ledger.sessions()[0]["status"] == "WAITING"
    assert ledger.decide(20, is_held=True) is None


def test_missed_is_one_row_before_the_session(ledger):
    ledger.add()
    assert ledger.decide(100, (10, 90, 9), now=103) == 1007
    assert ledger.occurrences() == [(10, 90, 9, SKIPPED, "misfire", None),
                                    (100, 100, 1, STARTED, "", 1007)]


def test_missed_rows_that_follow_each_other_are_merged(ledger):
    """A decision whose session fell to the overlap leaves no second row of the same reason."""
    ledger.add()
    assert ledger.decide(100, (10, 90, 9)) == 1007
    assert ledger.decide(200, (110, 190, 9)) is None        # 1007 waits still
    assert ledger.decide(210) is None
    assert ledger.decide(300, (220, 290, 8)) is None
    assert ledger.decide(310) is None
    assert ledger.occurrences()[1:] == [
        (100, 100, 1, STARTED, "", 1007),
        (110, 190, 9, SKIPPED, "misfire", None), (200, 210, 2, SKIPPED, "overlap", None),
        (220, 290, 8, SKIPPED, "misfire", None), (300, 310, 2, SKIPPED, "overlap", None)]


def test_every_due_time_stands_in_the_ledger_exactly_once(ledger):
    rng, due, expected = random.Random(5), 0, 0
    ledger.add()
    open_sessions = []
    for _ in range(120):
        skipped = rng.choice((0, 0, 0, 1, 5))
        missed = (due + 10, due + 10 * skipped, skipped) if skipped else None
        due += 10 * (skipped + 1)
        expected += skipped + 1
        session = ledger.decide(due, missed)
        if session:
            open_sessions.append(session)
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


def test_late_is_what_begins_over_a_second_after_its_due_time(ledger):
    ledger.add()
    for seconds, late_s in ((10, 0.9), (20, 1.5)):
        ledger.end(ledger.decide(seconds), late_s)
    assert [row[3] for row in ledger.occurrences()] == [STARTED, LATE]


def test_a_schedule_whose_scenario_is_gone_notes_that_it_failed(ledger):
    ledger.add()
    ledger.write(lambda connection: connection.execute("delete from scenario where name='J'"))
    assert ledger.decide(10) is None
    row = ledger.repository.list_occurrences("S", 1)[0]
    assert (row["decision"], row["session"]) == (FAILED, None) and "J" in row["message"]
    assert ledger.decide(10) is None and len(ledger.occurrences()) == 1


def test_a_variable_that_the_latest_version_lacks_is_a_failure_too(ledger):
    ledger.add(variables={"day": "x"})
    scenario = {"name": "J", "version": "2", "steps": [
        {"name": "a", "tasks": [{"type": "os", "command": "true"}]}]}
    ledger.write(lambda connection: ledger.repository.import_document(
        connection, Definitions().read(json.dumps({"scenarios": [scenario]})), "AGENT",
        to_text(NOON)))
    assert ledger.decide(10) is None
    assert ledger.occurrences()[0][3] == FAILED and ledger.sessions() == []


def test_the_ledger_survives_its_file(ledger):
    ledger.add()
    ledger.decide(10)
    ledger.repository.db.close()
    again = WorkRepository(7, "R", ledger.repository.path, agent.Clock()).open()
    ledger.repository = again
    assert ledger.decide(10) is None and len(ledger.occurrences()) == 1
    assert os.path.exists(again.path)
