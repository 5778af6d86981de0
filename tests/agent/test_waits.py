"""A session that has not begun says what it waits for, when and in words; one that has, for whom."""
import json

import pytest

import agent as program

from conftest import sessions_of, wait_for
from support.asker import Asker
from support.outside import change
from support.tasks import add_steps, step

WAITS = ("start_at", "waits_for", "message")


@pytest.fixture
def busy(make_inside):
    """An agent of one slot, with a scenario S that waits for a file, L with a limit, and P that runs S."""
    agent = make_inside("--max-sessions", "1").start()
    command = "until [ -e %s ]; do sleep 0.05; done" % (agent.folder / "go")
    agent.import_os("S", command)
    agent.import_os("L", command, concurrency={"limit": 1, "on_limit": "wait"})
    agent.import_document({"scenarios": [{"name": "P", "version": "1", "steps": [
        {"name": "main", "tasks": [{"type": "scenario", "name": "S"}]}]}]})
    yield agent
    (agent.folder / "go").touch()


def wait_of(agent, session):
    """What the line of a session says of its waiting, the same in SESSIONS and STATUS."""
    rows = agent.rows("STATUS %s" % session)[:1] + [
        row for row in agent.rows("SESSIONS") if row["session"] == session]
    first, second = (tuple(row[name] for name in WAITS) for row in rows)
    assert first == second or rows[0]["status"] != rows[1]["status"] or rows[0]["begun"], rows
    return second


def clock_of(text):
    """A time of a reply as messages have it, were it today."""
    return text[11:16] if text[17:19] == "00" else text[11:19]


def test_for_its_time(inside):
    at = inside.ok("EXEC HELLO -AT=1h")
    assert (at["status"], at["waits_for"]) == ("WAITING", "time") and at["start_at"]
    assert at["message"].startswith("begins at ") and at["message"].endswith(clock_of(at["start_at"]))
    assert wait_of(inside, at["session"]) == tuple(at[name] for name in WAITS)
    fields = json.loads(inside.ask("EXEC HELLO -AT=2099-01-02T05:00 -JSON")[-1][3:])
    assert fields["start_at"][:19] == "2099-01-02T05:00:00" and fields["message"] == "begins at 2099-01-02 05:00"
    asker = Asker(inside, "EXEC HELLO -AT=1h -SYNC")
    wait_for(lambda: asker.has(" waits_for=time "), "the line of what was made")
    inside.let_pass(3700)
    assert asker.finish().is_ok()
    done = wait_for(lambda: wait_of(inside, at["session"])[1:] == ("", "") and inside.status(at["session"]), "its begin")
    assert done["start_at"] == at["start_at"]


def test_its_time_is_told_as_it_is_stored(inside, monkeypatch):
    now = int(inside.now()) + 0.601995          # of which the tables make 602 ms
    monkeypatch.setattr(inside.clock, "now", lambda: now)
    at = inside.ok("EXEC HELLO -AT=1h")
    monkeypatch.undo()
    assert ".602" in at["start_at"] and wait_of(inside, at["session"])[0] == at["start_at"]


@pytest.mark.parametrize("options, until", [("", ""), (" -UNTIL=2099-01-02T06:00", " until 2099-01-02 06:00")])
def test_for_the_end_of_a_hold(inside, options, until):
    inside.ok('HOLD "for a while"' + options)
    held = inside.ok("EXEC HELLO")
    since = inside.agent.hold.since
    text = "held by test since %s%s: for a while" % (program.tell_clock(since, since), until)
    assert (held["status"], held["waits_for"], held["message"]) == ("WAITING", "hold", text)
    assert wait_of(inside, held["session"]) == ("", "hold", text) and "start_at" not in held
    inside.ok("RELEASE")
    assert inside.wait_status(held["session"], "DONE")["waits_for"] == ""


def test_a_hold_of_another_day_is_told_with_its_date(inside):
    inside.ok("HOLD")
    held = inside.ok("EXEC HELLO")
    day = program.local_iso(inside.agent.hold.since)
    inside.let_pass(2 * 86400)
    assert inside.status(held["session"])["message"] == "held by test since %s %s" % (day[:10], clock_of(day))


def test_a_restart_says_it_too(inside):
    name = add_steps(inside, step("s", "exit 1"))
    session = inside.ok("EXEC %s -SYNC" % name)["session"]
    inside.ok("HOLD 'no more'")
    again = inside.ok("RESTART %s" % session)
    assert (again["status"], again["waits_for"]) == ("WAITING", "hold") and again["message"].endswith(": no more")
    assert inside.ok("STOP %s" % session)["status"] == "STOPPED"
    assert inside.status(session)["message"] == "stopped before it began by test (STOP)"


def test_for_the_hold_of_a_schedule_that_has_made_it(busy):
    runs = busy.ok("EXEC S")["session"]
    busy.wait_status(runs, "RUNNING")
    busy.ok("SCHED ADD N S -1 GLOBAL 'every 1h'")
    busy.let_pass(3600)
    session = wait_for(lambda: sessions_of(busy, "N"), "its session")[0]["session"]
    assert wait_of(busy, session) == ("", "slot", "limit 1 of the agent: session %s runs" % runs)
    busy.ok("HOLD -SCHEDULE=N nothing")
    _, word, text = wait_of(busy, session)
    assert word == "hold" and text.startswith("schedule N is held by test since ") and text.endswith(": nothing")
    busy.ok("RELEASE -SCHEDULE=N")
    assert wait_of(busy, session)[1] == "slot"


def test_for_a_place_at_the_limit(inside):
    inside.import_os("L", "until [ -e %s ]; do sleep 0.05; done" % (inside.folder / "go"),
                     concurrency={"limit": 2, "on_limit": "wait"})
    numbers = [inside.ok("EXEC L")["session"] for _ in range(2)]
    for number in numbers:
        inside.wait_status(number, "RUNNING")
    third = inside.ok("EXEC L")
    text = "limit 2 of L: sessions %s and %s run" % tuple(numbers)
    assert (third["status"], third["waits_for"], third["message"]) == ("WAITING", "limit", text)
    assert wait_of(inside, third["session"]) == ("", "limit", text)
    inside.ok("STOP %s -IMMEDIATE" % numbers[0])
    inside.wait_status(third["session"], "RUNNING")
    assert wait_of(inside, third["session"]) == ("", "", "")
    (inside.folder / "go").touch()


def test_for_the_one_before_it_of_its_schedule(inside):
    inside.import_os("S", "until [ -e %s ]; do sleep 0.05; done" % (inside.folder / "go"))
    inside.ok("SCHED ADD N S -1 GLOBAL 'every 1h' -OVERLAP=queue")
    inside.let_pass(3600)
    first = wait_for(lambda: sessions_of(inside, "N"), "the first")[0]["session"]
    inside.wait_status(first, "RUNNING")
    inside.let_pass(3600)
    second = wait_for(lambda: sessions_of(inside, "N")[1:], "the second")[0]["session"]
    assert wait_of(inside, second) == ("", "limit", "limit 1 of schedule N: session %s runs" % first)
    (inside.folder / "go").touch()


def test_what_other_agents_run_fills_a_limit_too(inside):
    inside.import_os("L", "true", concurrency={"limit": 1, "on_limit": "wait"})
    inside.ok("HOLD")
    other, own = (inside.ok("EXEC L %s" % words)["session"] for words in ("-AGENT=B", ""))
    assert wait_of(inside, other) == ("", "", "it is for agent B to begin it")
    later = inside.ok("EXEC L -AGENT=B -AT=1h")
    assert later["waits_for"] == "time"
    change(inside.work, "update session set status='RUNNING', ran_by='x' where id=%s" % other)
    inside.ok("RELEASE")
    wait_for(lambda: inside.status(own)["waits_for"] == "limit", "that to be told")
    assert wait_of(inside, own)[1:] == ("limit", "limit 1 of L: 1 sessions run, of other agents too")
    change(inside.work, "update session set status='DONE', ended=created where id=%s" % other)
    inside.wait_status(own, "DONE")


def test_for_a_slot_and_a_parent_for_its_child(busy):
    parent = busy.ok("EXEC P")["session"]
    child = wait_for(lambda: busy.rows("SESSIONS -PARENT=%s" % parent), "the child")[0]
    busy.wait_status(child["session"], "RUNNING")
    assert child["parent"] == parent and busy.status(parent)["parent"] == ""
    wait_for(lambda: wait_of(busy, parent) == ("", "children", "waits for session %s" % child["session"]), "the parent to say it")
    last = busy.ok("EXEC S")
    assert last == {"session": last["session"], "status": "QUEUED"}
    assert wait_of(busy, last["session"]) == ("", "slot", "limit 1 of the agent: session %s runs" % child["session"])
    assert [row["session"] for row in busy.rows("SESSIONS")] == [last["session"], child["session"], parent]
    (busy.folder / "go").touch()
    for number in (parent, last["session"]):
        assert busy.wait_status(number, "DONE")["waits_for"] == ""


def test_for_its_repository(inside):
    inside.ok("HOLD")
    session = inside.ok("EXEC HELLO")["session"]
    inside.agent.places.find_by_id(1).repository.db._writer.trouble = "it cannot be written"
    assert wait_of(inside, session) == ("", "repository", "it cannot be written")


def test_many_that_run_are_not_all_named():
    assert [program.tell_limit(9, "L", range(count)) for count in (1, 2, 3, 4, 5, 900)] == [
        "limit 9 of L: session 0 runs", "limit 9 of L: sessions 0 and 1 run", "limit 9 of L: sessions 0, 1 and 2 run",
        "limit 9 of L: sessions 0, 1, 2 and 3 run", "limit 9 of L: sessions 0, 1, 2 and 2 more run",
        "limit 9 of L: sessions 0, 1, 2 and 897 more run"]


@pytest.mark.parametrize("options, expected", [
    ("-PARENT=%s", ["A", "A", "HELLO"]), ("-PARENT=%s -SCENARIO=HELLO", ["HELLO"]), ("-PARENT=%s -STATUS=ERROR", []),
    ("-PARENT=%s -STATUS=DONE,ERROR -LIMIT=2", ["A", "A"]), ("-PARENT=%s -KEYWORD=k", []), ("-PARENT=999001", [])])
def test_the_children_of_a_session(shared_inside, options, expected):
    shared_inside.import_os("A", "true")
    shared_inside.import_document({"scenarios": [{"name": "P", "version": "1", "steps": [{"name": "main", "tasks": [
        {"type": "scenario", "name": name} for name in ("HELLO", "A", "A")]}]}]})
    shared_inside.ok("EXEC P -SYNC")
    parent = shared_inside.ok("EXEC P -SYNC -KEYWORDS=k")["session"]
    rows = shared_inside.rows("SESSIONS " + options % parent if "%" in options else "SESSIONS " + options)
    assert [row["scenario"] for row in rows] == expected
