"""Another program deletes the -wal or -shm of a file that is in use: nothing that was acknowledged is lost."""
import contextlib
import os
import sqlite3
import subprocess

import pytest

from conftest import wait_for
from store.test_database import adding, db, shelf       # noqa: F401 (fixtures)

BESIDE = (["-wal"], ["-shm"], ["-wal", "-shm"])


def delete(path, endings):
    for ending in endings:
        os.unlink(str(path) + ending)


def after_a_crash(path, folder):
    """The texts of what a crash would leave just now: copies of the files that have a name."""
    folder.mkdir()
    # by a process of its own: one that closes a file drops its locks of it
    subprocess.check_call("cp %s* %s" % (path, folder), shell=True)
    with contextlib.closing(sqlite3.connect(str(folder / path.name))) as connection:
        return [text for text, in connection.execute("select text from note order by id")]


@pytest.mark.parametrize("endings", BESIDE, ids=" ".join)
def test_what_was_committed_before_is_kept(shelf, db, tmp_path, endings):    # noqa: F811
    db.write(adding("a"))
    with db.reading() as connection:            # an idle connection, too
        assert connection.execute("select count(*) from note").fetchone()[0] == 1
    delete(shelf.path, endings)
    assert db.is_torn
    pending = db.submit(adding("b"), within_s=60)
    wait_for(lambda: db.trouble, "the trouble to be told")
    assert "deleted the -wal or -shm" in db.trouble and not pending.is_done
    assert after_a_crash(shelf.path, tmp_path / "first") == ["a"]
    pending.result()
    assert not db.trouble and not db.is_torn
    assert all(os.path.exists(str(shelf.path) + ending) for ending in ("-wal", "-shm"))
    assert after_a_crash(shelf.path, tmp_path / "second") == ["a", "b"]
    assert db.read(lambda connection: connection.execute("select count(*) from note").fetchone()[0]) == 2
    assert shelf.texts() == ["a", "b"]


@pytest.mark.parametrize("endings", BESIDE, ids=" ".join)
def test_what_is_being_committed_is_answered_when_it_is_safe(shelf, db, tmp_path, endings):      # noqa: F811
    def work(connection):
        adding("a")(connection)
        delete(shelf.path, endings)
    db.write(work)
    assert after_a_crash(shelf.path, tmp_path / "crash") == ["a"]


def test_who_reads_is_waited_for(shelf, db):            # noqa: F811
    db.write(adding("a"))
    with db.reading() as connection:
        connection.execute("begin")
        assert connection.execute("select count(*) from note").fetchone()[0] == 1
        db.write(adding("b"))
        delete(shelf.path, ["-wal"])
        pending = db.submit(adding("c"), within_s=60)
        wait_for(lambda: db.trouble, "the trouble to be told")
        assert connection.execute("select count(*) from note").fetchone()[0] == 1
        connection.execute("rollback")
        assert not pending.is_done
    pending.result()
    assert shelf.texts() == ["a", "b", "c"]


def test_another_in_its_place_is_seen(shelf, db):       # noqa: F811
    db.write(adding("a"))
    delete(shelf.path, ["-wal"])
    with open(str(shelf.path) + "-wal", "wb"):
        pass
    db.write(adding("b"), within_s=60)
    assert shelf.texts() == ["a", "b"]


def test_closing_keeps_it_too(shelf, db):               # noqa: F811
    db.write(adding("a"))
    delete(shelf.path, ["-wal"])
    db.close()
    assert shelf.texts() == ["a"]


def test_an_agent_notices_it_and_goes_on(make_agent):
    """Also of its master; and a kill takes nothing along."""
    agent = make_agent().start()
    agent.import_os("A", "echo $SESSION >> marks")
    before = agent.ok("EXEC A -SYNC")["session"]
    for path in (agent.work, agent.master):
        delete(path, ["-wal"])
        wait_for(lambda: agent.ok("PING")["status"] == "DEGRADED", "the loss of %s to be noticed" % path, limit_s=5)
        wait_for(lambda: agent.ok("PING")["status"] == "READY", "%s to be opened anew" % path)
    assert agent.log().count("cannot be written: another program has deleted") == 2
    delete(agent.work, ["-wal", "-shm"])
    session = agent.ok("EXEC A")["session"]
    agent.kill()
    agent.start()
    agent.wait_status(session, "DONE", "ERROR")
    assert agent.status(before)["status"] == "DONE"
