"""The message of a session that was stopped says who has stopped it, and by what."""
import contextlib
import os
import signal

import pytest

import agent as program

from conftest import sessions_of, wait_for
from support.outside import query


def begin_one(agent, *commands):
    """A session of a new scenario S that runs -> its number."""
    agent.import_os("S", *commands)
    session = agent.ok("EXEC S")["session"]
    wait_for(lambda: any("task" in row for row in agent.rows("STATUS %s" % session)), "the task")
    return session


def messages(agent, session):
    """Those of a session that was stopped, of its step and its task."""
    agent.wait_status(session, "STOPPED")
    return [row["message"] for row in agent.rows("STATUS %s" % session) if "message" in row]


def test_by_an_operator_at_once(inside):
    session = begin_one(inside, "sleep 1000")
    inside.ok("STOP %s -IMMEDIATE" % session)
    assert messages(inside, session) == ["stopped at once by test (STOP -IMMEDIATE)"] * 3


def test_by_an_operator_between_two_tasks(inside):
    go = inside.folder / "go"
    session = begin_one(inside, "until [ -e %s ]; do sleep 0.05; done" % go, "true")
    inside.ok("STOP %s" % session)
    go.touch()
    assert messages(inside, session)[0] == "stopped by test (STOP)"


@pytest.mark.parametrize("option", ["", " -IMMEDIATE"])
def test_by_an_operator_before_it_began(inside, option):
    session = inside.ok("EXEC HELLO -AT=1h")["session"]
    inside.ok("STOP %s%s" % (session, option))
    assert messages(inside, session) == ["stopped before it began by test (STOP%s)" % option]


def test_by_its_schedule(inside):
    inside.import_os("S", "sleep 1000")
    inside.ok("SCHED ADD OFTEN S -1 GLOBAL 'every 1h' -OVERLAP=stop")
    inside.let_pass(3600)
    first = wait_for(lambda: sessions_of(inside, "OFTEN"), "the first")[0]["session"]
    inside.wait_status(first, "RUNNING")
    inside.let_pass(3600)
    assert messages(inside, first)[0] == \
        "stopped at once by its schedule OFTEN: the next due time had come (overlap=stop)"
    inside.ok("HOLD -SCHEDULE=OFTEN")
    second = sessions_of(inside, "OFTEN")[1]["session"]
    inside.ok("STOP %s -IMMEDIATE" % second)


def test_by_its_schedule_before_it_began(inside):
    inside.import_os("L", "sleep 1000", concurrency={"limit": 1, "on_limit": "wait"})
    runs = inside.ok("EXEC L")["session"]
    inside.wait_status(runs, "RUNNING")
    inside.ok("SCHED ADD OFTEN L -1 GLOBAL 'every 1h' -OVERLAP=stop")
    inside.let_pass(3600)
    first = wait_for(lambda: sessions_of(inside, "OFTEN"), "the first")[0]["session"]
    inside.let_pass(3600)
    assert messages(inside, first) == [
        "stopped before it began by its schedule OFTEN: the next due time had come (overlap=stop)"]


@pytest.mark.parametrize("options, request_, reason", [
    ("", "STOP %s -IMMEDIATE", "stopped at once by test (STOP -IMMEDIATE)"),
    ("-TIMEOUT=1", None, "time-out of the session after 1 s")])
def test_by_its_parent(inside, options, request_, reason):
    inside.import_os("S", "sleep 1000")
    inside.import_document({"scenarios": [{"name": "P", "version": "1", "steps": [
        {"name": "main", "tasks": [{"type": "scenario", "name": "S"}]}]}]})
    parent = inside.ok("EXEC P " + options)["session"]
    child = wait_for(lambda: inside.rows("SESSIONS -SCENARIO=S"), "the child")[0]["session"]
    if request_:
        inside.wait_status(child, "RUNNING")
        inside.ok(request_ % parent)
    assert messages(inside, child)[0] in [
        "stopped %s by its parent, session %s: %s" % (when, parent, reason) for when in ("at once", "before it began")]
    assert inside.wait_status(parent, "STOPPED", "ERROR")["message"] == reason


@contextlib.contextmanager
def main_thread(agent):
    """What the main thread of an agent reads: give(bytes) says what woke it; leaving it, it has stopped."""
    out, into = os.pipe()
    try:
        yield lambda data: os.write(into, data)
        agent.agent.run_until_stopped(out, lambda: None)
    finally:
        os.close(out)
        os.close(into)


TERM, INT = bytes([signal.SIGTERM]), bytes([signal.SIGINT])


@pytest.mark.parametrize("requests, given, reason", [
    (["SHUTDOWN -IMMEDIATE"], program.WAKE, "stopped at once by SHUTDOWN -IMMEDIATE of test"),
    (["SHUTDOWN -MAX_WAIT=0.1"], program.WAKE, "stopped by SHUTDOWN of test: it had not ended in 0.1 s"),
    (["SHUTDOWN -LEAVE -MAX_WAIT=0"], program.WAKE, "stopped by SHUTDOWN -LEAVE of test: it had not ended in 0 s"),
    (["SHUTDOWN -MAX_WAIT=99", "SHUTDOWN -IMMEDIATE"], program.WAKE, "stopped at once by SHUTDOWN -IMMEDIATE of test"),
    (["SHUTDOWN"], program.WAKE + TERM, "stopped at once by SIGTERM, after SHUTDOWN of test"),
    ([], TERM + INT, "stopped at once by SIGINT, after SIGTERM")])
def test_with_the_agent(inside, requests, given, reason):
    session = begin_one(inside, "sleep 1000")
    with main_thread(inside) as give:
        for line in requests:
            inside.ok(line)
        give(given)
    assert query(inside.work, "select status, message from session where id=?", int(session)) == [("STOPPED", reason)]
