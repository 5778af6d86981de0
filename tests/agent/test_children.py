"""Whose child a session is: by what has started it, whatever it is called."""
import threading

import pytest

import agent as program

from conftest import sessions_of, wait_for
from support.outside import query

CALL = {"name": "main", "tasks": [{"type": "scenario", "name": "A"}]}


@pytest.fixture
def with_family(inside):
    """An agent with a scenario A, which leaves a line, and P, which runs A as its child; and schedules W and V, which
    run P and HELLO after a session of A."""
    inside.import_os("A", "echo a")
    inside.import_document({"scenarios": [{"name": "P", "version": "1", "steps": [CALL]}]})
    inside.ok('SCHED ADD W P -1 GLOBAL "" -AFTER=scenario:A')
    inside.ok('SCHED ADD V HELLO -1 GLOBAL "" -AFTER=scenario:A')
    return inside


def wait_ended(agent, name, count):
    """Waits until a schedule has so many sessions, and all have ended -> them, oldest first."""
    def found():
        rows = sessions_of(agent, name)
        return len(rows) == count and all(row["status"] == "DONE" for row in rows) and rows
    return wait_for(found, "%d sessions of %s" % (count, name))


def has_met(agent, name):
    """Whether a session of A has ended well since a schedule fired last."""
    return [row["met"] for row in agent.rows("SCHED SHOW " + name) if row.get("after") == "A"] != [""]


def test_a_schedule_does_not_run_after_what_its_own_session_starts(with_family):
    with_family.ok("EXEC A -SYNC")
    own, = wait_ended(with_family, "W", 1)
    wait_ended(with_family, "V", 2)           # after A, and after the child that W has started
    child, = [row for row in with_family.rows("SESSIONS -SCENARIO=A") if row["name"]]
    assert child["name"] == "child of " + own["session"]
    assert query(with_family.work, "select parent from session where id=?", int(child["session"])) == [(int(own["session"]),)]
    assert query(with_family.work, "select count(*) from session where parent is not null") == [(1,)]
    assert not has_met(with_family, "W") and len(sessions_of(with_family, "W")) == 1


def test_a_name_makes_no_child(with_family):
    """A session is called as a child of a schedule's session would be, and the schedule runs after it as after any."""
    with_family.ok("EXEC A -SYNC")
    first, = wait_ended(with_family, "W", 1)
    wait_ended(with_family, "V", 2)
    last = with_family.ok('EXEC A -SYNC -NAME="child of %s"' % first["session"])["session"]
    assert wait_ended(with_family, "W", 2)
    wait_ended(with_family, "V", 4)
    assert with_family.status(last)["name"] == "child of " + first["session"]
    assert query(with_family.work, "select parent from session where id=?", int(last)) == [(None,)]


def test_a_name_makes_no_circle(with_family):
    """P called as a child of a session of A has A run all the same; A that starts itself by way of P is refused."""
    above = with_family.ok("EXEC A -SYNC")["session"]
    wait_ended(with_family, "W", 1)
    end = with_family.ok('EXEC P -SYNC -NAME="child of %s"' % above)
    assert end["status"] == "DONE", end["message"]
    with_family.import_document({"scenarios": [
        {"name": "A", "version": "2", "steps": [{"name": "main", "tasks": [{"type": "scenario", "name": "P"}]}]}]})
    end = with_family.ok("EXEC A -SYNC")
    assert end["status"] == "ERROR" and "would start itself: A > P > A" in end["message"]


def test_the_line_of_parents_is_followed_to_its_end(with_family):
    """The schedule stands two sessions above, with a name of its own on the way."""
    with_family.import_document({"scenarios": [
        {"name": "Q", "version": "1", "steps": [{"name": "main", "tasks": [{"type": "scenario", "name": "P"}]}]}]})
    with_family.ok("SCHED SET W -SCENARIO=Q -NAME=nightly")
    with_family.ok("EXEC A -SYNC")
    wait_ended(with_family, "W", 1)
    wait_ended(with_family, "V", 2)
    assert [row["name"] for row in with_family.rows("SESSIONS -SCENARIO=Q")] == ["nightly"]
    assert not has_met(with_family, "W") and len(sessions_of(with_family, "W")) == 1


# -- whose turn it is ------------------------------------------------------------------

def count_at_once(agent, scenario):
    """How many sessions of a scenario were under way at once, at most; of those that end as another begins, both."""
    rows = query(agent.work, "select begun, ended from session where scenario=?", scenario)
    changes = sorted([(begun, 1) for begun, _ in rows] + [(ended, 2) for _, ended in rows])
    open_now = [0]
    for _, kind in changes:
        open_now.append(open_now[-1] + (1 if kind == 1 else -1))
    return max(open_now)


@pytest.mark.parametrize("options", ["", "-PRIORITY=7"])
def test_children_begin_before_further_parents(make_inside, options):
    """So what has begun ends soon, and few wait, however many parents have come."""
    agent = make_inside("--max-sessions", "2").start()
    agent.import_os("A", "true")
    agent.import_document({"scenarios": [
        {"name": "P", "version": "1", "steps": [CALL]},
        {"name": "Q", "version": "1", "steps": [{"name": "main", "tasks": [{"type": "scenario", "name": "P"}]}]}]})
    agent.ok("HOLD")
    for _ in range(40):
        agent.ok("EXEC Q %s" % options)
    agent.ok("RELEASE")
    wait_for(lambda: agent.ok("PING")["queued"] == agent.ok("PING")["running"] == "0", "all to end")
    assert [row["status"] for row in agent.rows("SESSIONS -LIMIT=1000")] == ["DONE"] * 120
    assert count_at_once(agent, "Q") <= 12 and count_at_once(agent, "P") <= 12
    assert {row[0] for row in query(agent.work, "select priority from session")} == {7 if options else 0}


def test_of_one_priority_children_go_first():
    admission = program.Admission(1)
    admission.add("first", 0, [])
    admission.add("second", 0, [])
    admission.add("child", 0, [], True)
    admission.add("important", 5, [])
    order = []
    for _ in range(4):
        order.append(admission.take())
        admission.leave(order[-1])
    assert order == ["important", "child", "first", "second"]


# -- waiting without a thread ----------------------------------------------------------

@pytest.fixture
def parents(make_inside):
    """An agent with two slots: a C, which runs alone, has one until there is the file `go`; P after P has the other,
    until it waits for its C."""
    agent = make_inside("--max-sessions", "2").start()
    agent.import_os("C", "until [ -e %s ]; do sleep 0.05; done; echo $SESSION" % (agent.folder / "go"),
                    concurrency={"limit": 1})
    agent.import_document({"scenarios": [
        {"name": "P", "version": "1", "steps": [
            {"name": "before", "tasks": [{"type": "os", "command": "true"}]},
            {"name": "main", "timeout": 1000, "attempts": 2, "tasks": [
                {"type": "scenario", "name": "C", "timeout": 900}, {"type": "os", "command": "echo after"}]}]}]})
    return agent


def begin_parents(agent, count):
    """Begins parents and waits until each waits for its child -> their sessions."""
    numbers = [agent.ok("EXEC P")["session"] for _ in range(count)]
    wait_for(lambda: len(agent.rows("SESSIONS -SCENARIO=C -LIMIT=1000")) == count, "a child of each")
    return numbers


def test_parents_that_wait_have_no_thread(parents):
    before = threading.active_count()
    numbers = begin_parents(parents, 60)                # beside them: two slots, and who waits for a process
    assert parents.ok("PING")["running"] == "61"        # and a child
    wait_for(lambda: threading.active_count() <= before + 3, "the threads to be given back")
    (parents.folder / "go").touch()
    for number in numbers:
        assert parents.ok("WAIT %s" % number)["status"] == "DONE"
    assert [parents.ok("EXEC %s -SYNC" % name)["status"] for name in "PCP"] == ["DONE"] * 3     # the slots are free


def test_what_ends_a_parent_that_waits_ends_its_child(parents):
    first, second, third = begin_parents(parents, 3)
    assert parents.ok("STOP %s -IMMEDIATE" % second)["status"] == "STOPPED"     # its child has not begun
    assert parents.ok("STOP %s -IMMEDIATE" % first)["status"] == "STOPPED"
    parents.ok("STOP %s" % third)                       # after the task now running
    (parents.folder / "go").touch()
    assert parents.ok("WAIT %s" % third)["status"] == "STOPPED"
    assert sorted(row["status"] for row in parents.rows("SESSIONS -SCENARIO=C")) == ["DONE", "STOPPED", "STOPPED"]


def test_a_time_out_ends_a_parent_that_waits(parents):
    number = parents.ok("EXEC P -TIMEOUT=1")["session"]
    end = parents.ok("WAIT %s" % number)
    assert end["status"] == "ERROR" and end["message"] == "time-out of the session after 1 s"
    child, = parents.rows("SESSIONS -SCENARIO=C")
    assert child["status"] == "STOPPED"


def test_parents_that_wait_end_with_the_agent(parents):
    numbers = begin_parents(parents, 3)
    parents.stop()
    assert query(parents.work, "select id, status from session where scenario='P' order by id") == [
        (int(number), "STOPPED") for number in numbers]


def test_without_a_thread_to_have_a_parent_goes_on_later(parents, monkeypatch):
    number, = begin_parents(parents, 1)
    start, refused = threading.Thread.start, []

    def refuse(thread):
        if thread.name.startswith("parent") and len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    (parents.folder / "go").touch()
    assert parents.ok("WAIT %s" % number)["status"] == "DONE" and len(refused) == 3
