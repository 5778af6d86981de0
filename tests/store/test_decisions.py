"""What a repository decides of a due time: sessions, overlap, limits, after, attempts, and the rows of its ledger."""
import json
import os
import random
import sqlite3
import time
from contextlib import closing

import pytest

import agent
from agent import (DONE, ERROR, FAILED, LATE, SKIPPED, STARTED, STOPPED, Definitions, Schedule, Span, WorkRepository,
                   from_text)
from support.site import HELD, NOON, make_scenario, text


def skip(first, last, count, reason="misfire", message=""):
    """Due times that are not to run, for Ledger.decide()."""
    return Span(NOON + first, NOON + last, count, reason, message)


def to_run(due, planned=None):
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
        spans = [span if isinstance(span, Span) else to_run(span) for span in spans]
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
    assert ledger.decide(skip(10, 30, 3), to_run(30)) == []
    assert [row[:4] for row in ledger.occurrences()] == [(20, 20, 1, STARTED), (30, 30, 1, STARTED)]
    assert len(ledger.sessions()) == 2


def test_a_decision_goes_up_to_where_it_says(ledger):
    """What is not due any more is decided as well, and asks for nothing."""
    ledger.add()
    assert ledger.decide(skip(10, 40, 4, "window"), upto=45, now=50) == []
    assert ledger.row()["decided"] == text(45)
    assert ledger.decide(to_run(40), now=50) == [] and ledger.row()["decided"] == text(45)


def test_a_crash_between_leaves_neither_session_nor_occurrence(ledger):
    ledger.add()
    revision = ledger.row()["revision"]

    class Crash(Exception):
        pass

    def work(connection):
        assert ledger.repository.decisions.decide(connection, "S", revision, NOON + 10, [to_run(10)], NOON + 10, False)
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
            connection, "S", revision, NOON + 60, [to_run(60)], NOON + 60, False))
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
    assert ledger.decide(to_run(10, planned=60), to_run(20, planned=25), now=30) == [1007, 2007]
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
    assert (ending.session, ending.status, ending.tickets) == (3007, ERROR, ()) and len(ledger.sessions()) == 3


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
    ledger.write(lambda connection: ledger.repository.restarts.reopen(connection, agent.RestartRequest(first)))
    assert not ledger.end(first, ERROR, now=13).tickets
    ledger.end(second, ERROR, now=14)
    ledger.write(lambda connection: ledger.repository.restarts.reopen(connection, agent.RestartRequest(second)))
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
