"""Faults that an older shape of the agent had."""
import contextlib
import errno
import fcntl
import json
import os
import select
import sqlite3
import time

import pytest

import agent as program
from conftest import wait_for
from support.outside import change, query

pytestmark = pytest.mark.once

SECRET = "swordfish-42"


def scenario(name, *tasks, **fields):
    """A scenario NAME 1 with one step; a text is the command of an os task."""
    tasks = [{"type": "os", "command": task} if isinstance(task, str) else task for task in tasks]
    return dict({"name": name, "version": "1", "steps": [{"name": "s", "tasks": tasks}]}, **fields)


def secret_files(running):
    return sorted(path.name for path in running.folder.glob("*.secret.*"))


# -- a change of a schedule reads the master outside the transaction --------------------

@contextlib.contextmanager
def unreadable(path):
    """Nobody can begin to read a file in WAL mode: SQLite's locks of its readers are taken."""
    with open(str(path) + "-shm", "r+b") as shm:
        fcntl.lockf(shm, fcntl.LOCK_EX, 5, 123)         # WAL_READ_LOCK(0) to (4), of wal.c
        try:
            yield
        finally:
            fcntl.lockf(shm, fcntl.LOCK_UN, 5, 123)


def test_a_master_that_is_slow_to_read_keeps_only_those_waiting_who_ask_it(agent):
    agent.ok("SCHED ADD S HELLO -1 GLOBAL 'daily at 02:00'")
    agent.ok("HOLD")
    with agent.connect() as slow, agent.connect() as other:
        with unreadable(agent.master):
            slow.send("SCHED SET S -RULE='daily at 03:00' -PRIORITY=5")
            time.sleep(0.3)             # it is being looked at
            for _ in range(20):
                other.send("EXEC HELLO")
                other.expect("OK session=* status=WAITING waits_for=hold message=*")
            assert not select.select([slow.socket], [], [], 0)[0], "it did not wait for the master"
        assert slow.reply()[-1].startswith("OK schedule=S")
    assert agent.rows("SCHED LIST")[0]["rule"] == "daily at 03:00"


def test_changes_of_a_schedule_that_fires_meanwhile_lose_and_double_nothing(agent):
    agent.ok("SCHED ADD S HELLO -1 GLOBAL 'every 1s' -OVERLAP=parallel")
    until, zones = time.monotonic() + 5, ("UTC", "")
    with agent.connect() as one, agent.connect() as two:
        count = 0
        while time.monotonic() < until:
            for client in (one, two):
                client.send("SCHED SET S -TIMEZONE=%s -PRIORITY=%d" % (zones[count % 2], count % 7))
            for client in (one, two):
                assert client.reply()[-1].startswith("OK schedule=S")
            count += 1
    agent.ok("SCHED OFF S")
    spans = [(row["due"], row["last_due"], int(row["count"])) for row in agent.rows("SCHED WHY S -LIMIT=1000")][::-1]
    seconds = []
    for due, last, number in spans:
        first, last = (int(program.parse_time(moment)) for moment in (due, last))
        assert last - first + 1 == number
        seconds += range(first, last + 1)
    assert count > 5 and len(seconds) > 2 and seconds == list(range(seconds[0], seconds[-1] + 1))


# -- a stored definition that this version cannot read -----------------------------------

SPOILT = ["{not json", "[]", "{}", '{"name": "BAD", "version": "1", "steps": [], "color": "red"}',
          '{"name": "BAD", "version": "1", "steps": [{"name": "s", "tasks": [{"type": "teleport"}]}]}']


@pytest.mark.parametrize("body", SPOILT)
def test_a_definition_that_cannot_be_read_costs_its_own_sessions_alone(make_agent, body):
    running = make_agent().start()
    running.import_document({"scenarios": [scenario("BAD", "exit 3"), scenario("GOOD", "true")]})
    assert running.ok("EXEC BAD -SYNC")["status"] == "ERROR"
    running.ok("HOLD")
    running.ok("EXEC BAD")
    running.stop()
    change(running.work, "update definition set body = '%s' where body like '%%BAD%%'" % body)
    running.start()
    assert running.ok("PING")["status"] == "READY"
    running.ok("RELEASE")
    end = running.ok("WAIT 2001")
    assert end["status"] == "ERROR" and "definition" in end["message"]
    for line in ("EXEC BAD", "EXEC BAD x=1", "RESTART 1001"):
        last = running.ask(line)[-1]
        assert last.startswith("ERR REPOSITORY ") and "definition" in last, last
    rows = {row["scenario"]: row for row in running.rows("SCENARIOS")}
    assert set(rows) == {"BAD", "GOOD", "HELLO"} and "definition" in rows["BAD"]["message"]
    assert rows["GOOD"]["message"] == "" and rows["GOOD"]["steps"] == "1"
    assert running.status(1001)["status"] == "ERROR" and running.ask("LOG 1001")[-1].startswith("OK")
    assert running.ok("EXEC GOOD -SYNC")["status"] == "DONE"
    export = running.ask("EXPORT")[-1]
    assert export.startswith("OK") if body != "{not json" else export.startswith("ERR REPOSITORY ")
    running.ok("SCHED ADD S GOOD -1 GLOBAL 'every 1s'")
    wait_for(lambda: running.rows("SESSIONS -SCHEDULE=S"), "a schedule to fire")
    assert running.err("SCHED ADD T BAD -1 GLOBAL 'every 1s'") == "REPOSITORY"
    running.import_document({"scenarios": [scenario("BAD", "true")]}, "-REPLACE")
    assert running.ok("EXEC BAD -SYNC")["status"] == "DONE"


# -- whose child a session is --------------------------------------------------------------

def test_a_name_makes_no_child(agent):
    agent.import_document({"scenarios": [scenario("A", "true"), scenario("P", {"type": "scenario", "name": "A"})]})
    agent.ok("SCHED ADD S HELLO -1 GLOBAL -AFTER=scenario:A")
    first = agent.rows("SESSIONS -LIMIT=1")
    assert not first
    agent.ok("HOLD -SCHEDULE=S")
    agent.ok("RELEASE -SCHEDULE=S")
    before = agent.ok("EXEC A -SYNC")["session"]
    made, = wait_for(lambda: agent.rows("SESSIONS -SCHEDULE=S"), "the schedule to run after A")
    agent.ok("WAIT %s" % made["session"])
    assert agent.ok('EXEC A -NAME="child of %s" -SYNC' % made["session"])["status"] == "DONE"
    wait_for(lambda: len(agent.rows("SESSIONS -SCHEDULE=S")) == 2, "the schedule to run after one of such a name")
    parent = agent.ok("EXEC P -SYNC")["session"]
    child = query(agent.work, "select name, parent from session where parent is not null")
    assert child == [("child of %s" % parent, int(parent))] and before != parent


# -- the six ways to end a session have one follow-up ----------------------------------------

def ended_total(running):
    """{status: how many} of METRICS."""
    return {line.split('"')[1]: int(line.split()[-1]) for line in running.ask("METRICS") if "agent_sessions_ended_total{" in line}


def secret_scenario(name, command="true", **fields):
    return scenario(name, command, variables={"password": {"secret": True}}, **fields)


def test_every_end_forgets_its_secret_and_is_counted(make_agent):
    running = make_agent("--clean-every", "1").start()
    running.import_document({"scenarios": [
        secret_scenario("RUNS"), secret_scenario("FULL", "sleep 300", concurrency={"limit": 1, "on_limit": "error"}),
        secret_scenario("PATIENT", "sleep 300", concurrency={"limit": 1, "max_wait": 1})]})

    def execute(name, options=""):
        return running.ok("EXEC %s password=%s %s" % (name, SECRET, options))
    assert execute("RUNS", "-SYNC")["status"] == "DONE"                             # its course
    open_now = [execute("FULL")["session"], execute("PATIENT")["session"]]
    wait_for(lambda: len(secret_files(running)) == 2, "the secrets of two sessions")
    limited = execute("FULL")                                                       # the limit, at once
    assert limited["status"] == "ERROR" and len(secret_files(running)) == 2
    waiting = execute("PATIENT")["session"]                                         # max_wait
    assert running.ok("WAIT %s" % waiting)["status"] == "ERROR"
    later = execute("RUNS", "-AT=2098-01-01")["session"]                            # a stop before it begins
    assert running.ok("STOP %s" % later)["status"] == "STOPPED"
    wait_for(lambda: len(secret_files(running)) == 2, "the secrets of those that have ended to be gone")
    assert ended_total(running) == {"DONE": 1, "WARNING": 0, "ERROR": 2, "STOPPED": 1}
    for session in open_now:                                                        # an immediate stop
        assert running.ok("STOP %s -IMMEDIATE" % session)["status"] == "STOPPED"
    wait_for(lambda: not secret_files(running), "all secrets to be gone")
    assert ended_total(running)["STOPPED"] == 3
    execute("FULL")                                                                 # a crash
    running.wait_status(query(running.work, "select max(id) from session")[0][0], "RUNNING")
    running.kill()
    running.start()
    wait_for(lambda: not secret_files(running), "the secret of a stale session to be gone")
    assert ended_total(running) == {"DONE": 0, "WARNING": 0, "ERROR": 1, "STOPPED": 0}


def test_what_a_due_time_replaces_is_counted_too(inside):
    inside.import_document({"scenarios": [scenario("LONG", "sleep 300")]})
    inside.ok("SCHED ADD S LONG -1 GLOBAL 'every 1s' -OVERLAP=stop")
    for _ in range(3):
        inside.let_pass(1)
    wait_for(lambda: ended_total(inside)["STOPPED"] >= 2, "two sessions to be replaced")
    inside.ok("SCHED OFF S")


# -- a session that cannot be added leaves nothing -------------------------------------------

class FailingOs:
    """os, but that one of its functions fails once it has been called so often for a secret file."""

    def __init__(self, name, path, number):
        self._name, self._path, self._number = name, path, number
        self.count = 0

    def __getattr__(self, name):
        function = getattr(os, name)
        if name != self._name:
            return function

        def fail(*arguments, **keywords):
            if name in ("fsync", "write") or self._path in str(arguments[0]):
                self.count += 1
                raise OSError(self._number, os.strerror(self._number), None)
            return function(*arguments, **keywords)
        return fail


@pytest.mark.parametrize("name, number", [("open", errno.ENOSPC), ("open", errno.EACCES), ("open", errno.EMFILE),
                                          ("fsync", errno.EIO), ("fsync", errno.ENOSPC)])
def test_a_secret_that_cannot_be_kept_leaves_no_session(tmp_path, monkeypatch, name, number):
    repository = program.WorkRepository.create(1, "WORKREP", str(tmp_path / "work.db"), program.Clock())
    document = program.Definitions().read(json.dumps({"scenarios": [secret_scenario("S")]}))
    repository.db.write(repository.imports.put, document, "AGENT", 0.0)
    failing = FailingOs(name, ".secret.", number)
    monkeypatch.setattr(program, "os", failing)
    with pytest.raises(program.RepositoryError) as caught:
        repository.secrets.write({"password": SECRET})
    monkeypatch.undo()
    assert failing.count and os.strerror(number) in caught.value.message and SECRET not in caught.value.message
    assert repository.db.read(repository.views.list_sessions, program.SessionFilter(), 1 << 62, 9) == []
    repository.db.close()
    assert sorted(os.listdir(str(tmp_path))) == ["work.db"]


def test_an_exec_that_was_refused_is_not_carried_out_at_the_next_start(make_agent):
    """The secret's file has a name that is too long, the repository's own has not."""
    running = make_agent().start()
    running.ok("ATTACH long %s -CREATE" % ("w" * 235 + ".db"))
    running.import_document({"scenarios": [secret_scenario("S", "echo ran > proof")]}, "-REPO=long")
    assert running.err("EXEC S password=%s -REPO=long" % SECRET) == "REPOSITORY"
    running.stop()
    running.start()
    assert running.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert running.rows("SESSIONS -REPO=long") == [] and not (running.folder / "proof").exists()
    assert running.ok("PING")["repositories"] == "2/2"


def test_a_commit_that_fails_leaves_neither_session_nor_secret(agent):
    agent.import_document({"scenarios": [secret_scenario("S")]})
    lock = sqlite3.connect(str(agent.work), isolation_level=None)
    lock.execute("begin immediate")
    try:
        assert agent.err("EXEC S password=%s" % SECRET) == "REPOSITORY"
        assert secret_files(agent) == []
    finally:
        lock.rollback()
        lock.close()
    wait_for(lambda: agent.ok("PING")["status"] == "READY", "the repository to be written again")
    assert agent.rows("SESSIONS") == []
