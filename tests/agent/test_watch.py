"""Who waits for a session or follows its log is woken by what is new, and asks nothing meanwhile."""
import collections
import time

import pytest

import agent as program
from conftest import wait_for
from support.asker import Asker
from support.outside import change

COUNT = 20


@pytest.fixture
def reads(monkeypatch):
    """How often each method of the store was read with, {name: count}."""
    counts, read = collections.Counter(), program.Database.read

    def count(database, method, *arguments):
        counts[method.__name__] += 1
        return read(database, method, *arguments)
    monkeypatch.setattr(program.Database, "read", count)
    monkeypatch.setattr(program, "LOOK_S", 0.05, raising=False)        # a client is looked for often
    return counts


def settle(counts):
    """Waits until nothing more is read."""
    before = None
    while before != counts:
        before = counts.copy()
        time.sleep(0.3)


def test_who_waits_for_what_does_not_come_reads_nothing(inside, reads):
    inside.import_os("S", "until [ -e %s ]; do sleep 0.05; done; echo one; sleep 0.4; echo two" % (inside.folder / "go"))
    inside.import_document({"scenarios": [{"name": "P", "version": "1", "steps": [
        {"name": "main", "tasks": [{"type": "scenario", "name": "S"}]}]}]})
    parent = inside.ok("EXEC P")["session"]
    session = wait_for(lambda: inside.rows("SESSIONS -SCENARIO=S -STATUS=RUNNING"), "the child")[0]["session"]
    followers = [Asker(inside, "LOG %s -FOLLOW" % session) for _ in range(COUNT)]
    waiters = [Asker(inside, "WAIT %s" % number) for number in (session, parent) for _ in range(COUNT)]
    settle(reads)
    before = reads.copy()
    time.sleep(1)                           # 20 looks after each client
    assert reads["get"] == before["get"] and reads["list_log"] == before["list_log"], reads - before
    (inside.folder / "go").touch()
    for asker in followers + waiters:
        asker.join(60)
        assert asker.is_ok(), asker.lines
    assert all(asker.texts() == ["one", "two"] for asker in followers)
    # a look for the first line, maybe for each further record of the session, and one for its end
    assert reads["list_log"] - before["list_log"] <= 5 * COUNT
    assert reads["get"] - before["get"] <= 6 * COUNT
    assert inside.status(parent)["status"] == "DONE"


def test_what_is_new_is_followed_as_it_comes(inside, reads):
    inside.import_os("S", "echo first; until [ -e %s ]; do sleep 0.05; done" % (inside.folder / "go"), "echo second")
    follower = Asker(inside, "LOG %s -FOLLOW" % inside.ok("EXEC S")["session"])
    wait_for(lambda: follower.has(" first"), "the first line")
    assert follower.is_alive()
    (inside.folder / "go").touch()
    follower.join(60)
    assert follower.texts() == ["first", "second"] and follower.is_ok()


def test_what_another_program_writes_is_noticed(inside, reads):
    """A session that another agent runs: its lines and its end come by way of the file."""
    inside.ok("HOLD")
    session = inside.ok("EXEC HELLO")["session"]
    change(inside.work, "insert into session_step(session, run, step, name, attempt, status, begun) values"
          " (%s, 1, 0, 's', 1, 'RUNNING', '2026-01-01T00:00:00.000Z')" % session,
          "insert into session_task(session, run, step_run, step, task, name, type, attempt, status, begun)"
          " values (%s, 2, 1, 0, 0, 't', 'os', 1, 'RUNNING', '2026-01-01T00:00:00.000Z')" % session)
    waiter, follower = Asker(inside, "WAIT %s" % session), Asker(inside, "LOG %s -FOLLOW" % session)
    settle(reads)
    change(inside.work, "insert into session_log values (%s, 2, 0, '2026-01-01T00:00:00.000Z', 'out', 'of another')"
          % session)
    wait_for(lambda: follower.has("of another"), "the line")
    assert waiter.is_alive() and follower.is_alive()
    change(inside.work, "update session set status='STOPPED', begun='2026-01-01T00:00:00.000Z',"
          " ended='2026-01-01T00:00:01.000Z' where id=%s" % session)
    for asker in (waiter, follower):
        asker.join(60)
        assert asker.is_ok(), asker.lines
    assert waiter.has("status=STOPPED")


def test_an_end_while_the_file_cannot_be_read_is_not_missed(inside, reads, monkeypatch):
    inside.import_os("S", "until [ -e %s ]; do sleep 0.05; done" % (inside.folder / "go"))
    waiter = Asker(inside, "WAIT %s" % inside.ok("EXEC S")["session"])
    settle(reads)
    counted, is_broken = program.Database.read, [True]

    def refuse(database, method, *arguments):
        if is_broken and method.__name__ == "get":
            is_broken.append(True)
            raise program.RepositoryError("it cannot be read now")
        return counted(database, method, *arguments)
    monkeypatch.setattr(program.Database, "read", refuse)
    (inside.folder / "go").touch()
    wait_for(lambda: len(is_broken) > 3, "some looks")
    del is_broken[:]
    waiter.join(60)
    assert waiter.is_ok() and waiter.has("status=DONE")


def test_a_repository_that_goes_tells_who_waits_there(inside, reads):
    inside.ok("HOLD")
    waiter = Asker(inside, "WAIT %s" % inside.ok("EXEC HELLO")["session"])
    settle(reads)
    inside.work.rename(inside.folder / "away.db")
    program.WorkRepository.create(1, "WORKREP", str(inside.work), program.Clock()).db.close()
    waiter.join(60)
    assert waiter.has("ERR REPOSITORY"), waiter.lines
