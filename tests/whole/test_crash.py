"""Promises 1 and 2: kill -9 at any moment loses and doubles nothing that was acknowledged."""
import collections
import contextlib
import os
import random
import re
import signal
import sqlite3
import threading
import time

import pytest

from conftest import is_alive, wait_for

pytestmark = pytest.mark.once


@pytest.fixture
def read_pid(tmp_path):
    """pid_of(path): the process id that a task wrote into a file; what lives at the end is killed."""
    read = []

    def read_pid(path):
        def found():
            text = path.read_text() if path.exists() else ""
            return text.endswith("\n") and int(text)
        read.append(wait_for(found, "a pid in %s" % path))
        return read[-1]
    yield read_pid
    for pid in read:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def lines(path):
    return path.read_text().split() if path.exists() else []


def is_running(agent, session):
    """Whether a session's task has begun."""
    return lambda: session in lines(agent.folder / "marks")


def flood(agent, connections, requests, kill_after):
    """EXEC on many connections at once; the agent is killed after so many OKs -> those read."""
    acknowledged, enough, lock = [], threading.Event(), threading.Lock()

    def converse(client):
        with contextlib.suppress(OSError):
            client.send_raw(b"EXEC MARK -PRIORITY=1\n" * (requests // connections))
            while True:
                match = re.match(r"OK session=(\d+) status=QUEUED$", client.line())
                if not match:
                    return
                with lock:
                    acknowledged.append(match.group(1))
                    if len(acknowledged) >= kill_after:
                        enough.set()
    clients = [agent.connect() for _ in range(connections)]
    threads = [threading.Thread(target=converse, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    agent.kill()
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
    return acknowledged


def check_nothing_is_lost_or_doubled(agent, acknowledged):
    """All have ended, those that ended well ran once, the others at most once."""
    def open_ones():
        return agent.rows("SESSIONS -STATUS=WAITING,QUEUED,RUNNING -LIMIT=1")
    wait_for(lambda: not open_ones(), "all sessions to end")
    found = {row["session"]: row for row in agent.rows("SESSIONS -LIMIT=100000")}
    assert not set(acknowledged) - set(found), "acknowledged sessions are lost"
    assert len(set(acknowledged)) == len(acknowledged), "a number was given twice"
    runs = collections.Counter(lines(agent.folder / "marks"))
    assert not [session for session, count in runs.items() if count > 1], "sessions ran twice"
    assert not set(runs) - set(found), "what ran is not recorded"
    for session, row in found.items():
        if row["status"] == "ERROR":
            assert "stale" in row["message"], row
        else:
            assert row["status"] == "DONE" and runs[session] == 1, (row, runs[session])


def test_kill_at_random_moments_of_a_flood(make_agent):
    agent = make_agent().start()
    agent.import_os("MARK", "echo $SESSION >> marks")
    acknowledged, seed = [], random.randrange(10 ** 6)
    moments = random.Random(seed)
    for kill_after in [200, 1] + [moments.randint(2, 199) for _ in range(3)]:
        acknowledged += flood(agent, 8, 200, kill_after)
        time.sleep(moments.random() * 0.2)
        agent.start()
    print("seed", seed)
    check_nothing_is_lost_or_doubled(agent, acknowledged)
    assert agent.stop() == 0


def test_kill_at_random_moments_of_running(make_agent):
    """Killed again and again while it works off what it has, also while it starts."""
    agent = make_agent("--max-sessions", "4").start()
    agent.import_os("MARK", "echo $SESSION >> marks")
    agent.ok("HOLD")
    acknowledged = [agent.ok("EXEC MARK")["session"] for _ in range(120)]
    agent.ok("RELEASE")
    moments = random.Random()
    for _ in range(3):
        time.sleep(moments.random() * 0.4)
        agent.kill()
        agent.start(is_ready=False)
        time.sleep(moments.random() * 1.0)
        agent.kill()
        agent.start()
    check_nothing_is_lost_or_doubled(agent, acknowledged)


def test_kill_during_the_very_first_start(make_agent):
    agent = make_agent(plain=True)
    for _ in range(5):
        agent.start(is_ready=False)
        time.sleep(random.random() * 0.6)
        agent.kill()
    agent.start()
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert agent.ok("PING")["repositories"] == "1/1"
    assert agent.stop() == 0


def test_the_key_of_a_killed_agents_session_still_counts(make_agent):
    agent = make_agent("--max-sessions", "1").start()
    agent.import_os("MARK", "echo $SESSION >> marks")
    agent.ok("HOLD")
    first = agent.ok("EXEC MARK -KEY=nightly")["session"]
    agent.kill()
    agent.start()
    again = agent.ok("EXEC MARK -KEY=nightly")
    assert again["session"] == first and again["duplicate"] == "yes"
    agent.ok("RELEASE")
    agent.wait_status(first, "DONE")
    assert lines(agent.folder / "marks") == [first]


def test_waiting_queued_stopped_and_reopened_ones_survive(make_agent):
    agent = make_agent("--max-sessions", "1").start()
    agent.import_os("MARK", "echo $SESSION >> marks")
    agent.import_os("FIRST", "echo $SESSION >> marks; [ -e go ] || sleep 1000")
    agent.import_os("BAD", "echo $SESSION >> marks; [ -e go ]")
    bad = agent.ok("EXEC BAD -SYNC")["session"]
    first = agent.ok("EXEC FIRST")["session"]
    wait_for(is_running(agent, first), "the first to run")
    queued = agent.ok("EXEC MARK -PRIORITY=-1")["session"]
    urgent = agent.ok("EXEC MARK -PRIORITY=5")["session"]
    stopped = agent.ok("EXEC MARK")["session"]
    agent.ok("STOP %s" % stopped)
    far = agent.ok("EXEC MARK -AT=2099-01-01")["session"]
    soon = agent.ok("EXEC MARK -AT=%s" % time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2)))["session"]
    assert agent.ok("RESTART %s" % bad)["status"] == "QUEUED"
    agent.kill()
    (agent.folder / "go").write_text("")
    assert agent.start().status(soon)["status"] in ("WAITING", "QUEUED", "RUNNING", "DONE")
    for session in (queued, urgent, soon, bad):
        agent.wait_status(session, "DONE")
    assert "stale" in agent.status(first)["message"]
    assert agent.status(stopped)["status"] == "STOPPED" and agent.status(far)["status"] == "WAITING"
    runs = lines(agent.folder / "marks")
    assert sorted(runs) == sorted([bad, bad, first, queued, urgent, soon])
    assert runs.index(urgent) < runs.index(queued)
    agent.ok("RESTART %s" % first)
    agent.wait_status(first, "DONE")


LEFTOVERS = """
echo $SESSION >> marks
trap '' TERM
(setsid sh -c 'trap "" TERM; echo $$ > %(name)s.setsid; while :; do sleep 0.1; done' &)
sleep 1000 & echo $! > %(name)s.child
echo $$ > %(name)s.shell
while :; do sleep 0.1; done
"""


def test_leftovers_are_ended_before_anything_begins(make_agent, read_pid):
    agent = make_agent("--max-sessions", "1").start()
    agent.import_os("LEAVE", LEFTOVERS % {"name": "stale"})
    agent.import_os("LOOK", "for p in stale.*; do read x < $p; grep -q 'State:.[^ZX]' /proc/$x/status 2>/dev/null "
                            "&& echo $p lives; done; echo looked")
    session, next_one = agent.ok("EXEC LEAVE")["session"], agent.ok("EXEC LOOK")["session"]
    pids = [read_pid(agent.folder / ("stale." + name)) for name in ("setsid", "child", "shell")]
    agent.kill()
    assert all(is_alive(pid) for pid in pids)
    agent.start()
    assert not any(is_alive(pid) for pid in pids)
    row = agent.status(session)
    assert row["status"] == "ERROR" and "stale" in row["message"] and row["ended"]
    assert agent.wait_status(next_one, "DONE")
    assert agent.log_texts(next_one) == ["looked"]
    steps = agent.rows("STATUS %s" % session)[1:3]
    assert [(row["status"], "stale" in row["message"]) for row in steps] == [("ERROR", True)] * 2
    assert agent.ok("CLEAN") == {"cleaned": "0"}


def test_on_stale_restart_goes_on_where_it_was(make_agent, read_pid):
    agent = make_agent().start()
    agent.import_document({"scenarios": [{
        "name": "AGAIN", "version": "1", "on_stale": "restart", "variables": {"v": "0"}, "steps": [
            {"name": "one", "tasks": [{"type": "os", "command": "echo one >> marks; echo 7", "capture": "v"}]},
            {"name": "two", "tasks": [
                {"type": "os", "command": "echo two >> marks"},
                {"type": "os", "command": "echo three-$VAR_v >> marks; [ -e go ] || "
                                          "{ echo $$ > pid; sleep 1000; }"},
                {"type": "os", "command": "echo four >> marks"}]}]}]})
    session = agent.ok("EXEC AGAIN")["session"]
    pid = read_pid(agent.folder / "pid")
    agent.kill()
    (agent.folder / "go").write_text("")
    agent.start()
    assert not is_alive(pid)
    agent.wait_status(session, "DONE")
    assert lines(agent.folder / "marks") == ["one", "two", "three-7", "three-7", "four"]
    stale = [row for row in agent.rows("STATUS %s" % session) if "stale" in row.get("message", "")]
    assert [row["status"] for row in stale if "attempt" in row] == ["ERROR", "ERROR"]


def test_what_an_ended_session_left_on_purpose_is_not_ended(make_agent, read_pid):
    agent = make_agent().start()
    agent.import_os("SERVE", "setsid sh -c 'echo $$ > left; exec sleep 1000' >/dev/null 2>&1 & "
                             "sleep 1000 >/dev/null 2>&1 & echo $! > group; until [ -s left ]; do sleep 0.05; done")
    agent.import_os("RUN", "echo $$ > runs; sleep 1000")
    assert agent.ok("EXEC SERVE -SYNC")["status"] == "DONE"
    running = agent.ok("EXEC RUN")["session"]
    left = [read_pid(agent.folder / name) for name in ("left", "group")]
    pid = read_pid(agent.folder / "runs")
    agent.kill()
    agent.start()
    assert agent.status(running)["status"] == "ERROR" and not is_alive(pid)
    assert agent.ok("CLEAN") == {"cleaned": "0"}
    assert all(is_alive(pid) for pid in left)
    agent.ok("SHUTDOWN -IMMEDIATE")
    assert agent.wait() == 0
    assert all(is_alive(pid) for pid in left)


def test_a_healthy_session_of_another_agent_is_left_alone(make_agent, read_pid):
    """It waits between two attempts, and one runs: neither is stale for an agent that starts."""
    other = make_agent("--name", "OTHER").start()
    other.import_document({"scenarios": [{"name": "TWICE", "version": "1", "steps": [
        {"name": "a", "attempts": 2, "retry_delay": 3, "tasks": [{"type": "os", "command":
         "echo $SESSION >> marks; [ -e tried ] || { touch tried; exit 1; }; until [ -e go ]; do sleep 0.1; done"}]}]}]})
    other.import_os("LONG", "echo $$ > long; sleep 1000")
    long = other.ok("EXEC LONG")["session"]
    pid = read_pid(other.folder / "long")
    agent = make_agent().start()
    twice = other.ok("EXEC TWICE")["session"]
    wait_for(lambda: (other.folder / "tried").exists(), "the first attempt")
    agent.import_os("RUN", "echo $$ > runs; sleep 1000")
    stale = agent.ok("EXEC RUN")["session"]
    read_pid(agent.folder / "runs")
    agent.kill()
    agent.start()
    assert agent.ok("CLEAN") == {"cleaned": "0"}
    assert "stale" in agent.status(stale)["message"]
    assert agent.status(twice)["status"] == agent.status(long)["status"] == "RUNNING"
    (other.folder / "go").touch()
    assert other.wait_status(twice, "DONE")
    assert lines(other.folder / "marks") == [twice, twice]
    assert is_alive(pid)
    other.kill()                                        # now it is stale, but not for this agent
    assert agent.ok("CLEAN") == {"cleaned": "0"}
    assert agent.status(long)["status"] == "RUNNING" and is_alive(pid)
    other.start()
    assert "stale" in other.status(long)["message"] and not is_alive(pid)


def test_a_session_of_another_host_is_left_alone_until_it_is_said_to_be_gone(make_agent, read_pid):
    first = make_agent("--host-id", "one").start()
    first.import_os("RUN", "echo $$ > runs; sleep 1000")
    session = first.ok("EXEC RUN")["session"]
    read_pid(first.folder / "runs")
    first.kill()
    second = make_agent("--host-id", "two").start()
    assert second.ok("CLEAN -HOST=one") == {"cleaned": "0"}     # nor before the file is said to go on here
    second.ok("RELEASE -REPO=WORKREP")
    assert second.status(session)["status"] == "RUNNING"
    assert second.ok("CLEAN") == {"cleaned": "0"}
    assert "another host, one" in second.log()
    assert second.ok("CLEAN -HOST=three") == {"cleaned": "0"}
    assert second.ok("CLEAN -HOST=one") == {"cleaned": "1"}
    assert "stale" in second.status(session)["message"]


def test_a_process_that_took_the_agents_number_does_not_keep_it_alive(make_agent, read_pid):
    """The start time counts with the pid, and a boot of before is over."""
    agent = make_agent().start()
    agent.import_os("RUN", "echo $SESSION >> marks; sleep 1000")
    sessions = [agent.ok("EXEC RUN")["session"] for _ in range(2)]
    for session in sessions:
        wait_for(is_running(agent, session), "session %s" % session)
    agent.kill()
    with contextlib.closing(sqlite3.connect(str(agent.work))) as connection:
        ran_by = connection.execute("select ran_by from session").fetchone()[0].split("/")
        ran_by[3:] = [str(os.getpid()), "1", "another-master"]
        connection.execute("update session set ran_by=? where id=?", ("/".join(ran_by), int(sessions[0])))
        ran_by[1] = "another-boot"
        connection.execute("update session set ran_by=? where id=?", ("/".join(ran_by), int(sessions[1])))
        connection.commit()
    agent.start()
    for session in sessions:
        assert "stale" in agent.status(session)["message"]
