"""Whose child a session is: by what has started it, whatever it is called."""
import pytest

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
