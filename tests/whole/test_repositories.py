"""Sections 6 to 8 and 13 on real agents: repositories that come and go, are locked, broken, full or replaced."""
import contextlib
import os
import resource
import select
import shutil
import sqlite3
import stat
import time

import pytest

from conftest import wait_for
from support.outside import copy_repository, foreign_lock, move_repository, no_wal_of, query
from support.waiting import go, import_waiting, marks, wait_begun, wait_ping

pytestmark = pytest.mark.once


def replace_work(agent, copy):
    """Puts a copy in the place of the work repository, waits until the agent has opened it, and says that it is to go
    on with it."""
    os.rename(str(copy), str(agent.work))
    for name in ("-wal", "-shm"):
        with contextlib.suppress(OSError):
            os.unlink(str(agent.work) + name)
    wait_for(lambda: "replaced" in agent.log(), "the agent to see it")
    wait_ping(agent, status="READY")
    wait_for(lambda: "WORKREP is held by the agent" in agent.log(), "the copy to be held")
    assert agent.ok("RELEASE -REPO=WORKREP") == {"repository": "WORKREP", "hold": "no"}


# -- repositories that come and go ------------------------------------------------------

def attach_second(agent):
    """Attaches a second repository with a scenario of its own."""
    assert agent.ok("ATTACH two two.db -CREATE") == {"repository": "two", "id": "2"}
    agent.import_document({"scenarios": [{"name": "SECOND", "version": "1", "steps": [
        {"name": "a", "tasks": [{"type": "os", "command": "true"}]}]}]}, "-REPO=two")
    return agent.folder / "two.db"


def test_attach_and_detach(agent):
    path = attach_second(agent)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert agent.ok("PING")["repositories"] == "2/2"
    assert agent.ask("EXEC SECOND who") == ["ERR NOT_FOUND no attached repository has version who of scenario SECOND"]
    assert agent.ask("EXEC THIRD who") == ["ERR NOT_FOUND no attached repository has a scenario THIRD"]
    assert agent.ok("EXEC SECOND -SYNC")["session"] == "1002"
    for line, code in (("ATTACH two other.db -CREATE", "EXISTS"), ("ATTACH three two.db", "EXISTS"),
                       ("ATTACH three two.db -CREATE", "EXISTS"), ("ATTACH three none.db", "NOT_FOUND"),
                       ("ATTACH three no/folder.db -CREATE", "REPOSITORY"),
                       ("ATTACH three master.db", "EXISTS REPOSITORY"), ("DETACH nine", "NOT_FOUND")):
        assert agent.err(line) in code, line
    assert not (agent.folder / "other.db").exists() and not (agent.folder / "none.db").exists()
    later = agent.ok("EXEC SECOND -AT=2099-01-01")["session"]
    assert agent.err("DETACH two") == "CONFLICT"
    agent.ok("STOP %s" % later)
    agent.ok("DETACH two")
    assert agent.ok("PING")["repositories"] == "1/1"
    assert agent.err("STATUS 1002") == agent.err("EXEC SECOND") == "NOT_FOUND"
    assert no_wal_of(path)
    assert agent.ok("ATTACH again two.db") == {"repository": "again", "id": "2"}
    assert agent.status(1002)["status"] == "DONE"
    assert agent.ok("EXEC SECOND -SYNC")["session"] == "3002"
    assert agent.stop() == 0
    agent.start()
    assert agent.ok("PING")["repositories"] == "2/2"
    assert agent.status(3002)["status"] == "DONE"


def test_attach_takes_the_id_that_the_file_has(agent, make_agent):
    """A repository carried over from another master."""
    other = make_agent(folder="other").start()
    path = attach_second(other)
    assert other.stop() == 0
    shutil.copy(str(path), str(agent.folder / "carried.db"))
    shutil.copy(str(other.work), str(agent.folder / "first.db"))
    assert agent.ok("ATTACH carried carried.db")["id"] == "2"
    agent.ok("RELEASE -REPO=carried")       # it is a copy
    assert agent.err("ATTACH first first.db") == "EXISTS"
    assert agent.ok("PING")["repositories"] == "2/2"
    assert agent.ok("EXEC SECOND -SYNC")["session"] == "1002"


TROUBLES = {"missing": "does not exist", "corrupt": "not a database", "newer": "version 99",
            "other_id": "of id 1, not", "other_uuid": "another UUID"}


def spoil(path, trouble, agent):
    """Puts something else in the place of a repository that was moved away."""
    if trouble == "corrupt":
        path.write_bytes(b"no database " * 1000)
    elif trouble == "other_id":
        shutil.copy(str(agent.work), str(path))
    elif trouble != "missing":
        shutil.copy(str(path) + ".away", str(path))
        with contextlib.closing(sqlite3.connect(str(path))) as connection:
            connection.execute("pragma user_version=99" if trouble == "newer" else
                               "update repository set uuid='another'")
            connection.commit()


def test_broken_work_repositories_hold_back_no_other_and_come_back(make_agent):
    agent = make_agent().start()
    agent.ok("HOLD")
    later, held = {}, {}
    for name in TROUBLES:
        agent.ok("ATTACH %s %s.db -CREATE" % (name, name))
        later[name] = agent.ok("EXEC HELLO -REPO=%s -AT=2099-01-01" % name)["session"]
        held[name] = agent.ok("EXEC HELLO -REPO=%s" % name)["session"]
    assert agent.stop() == 0
    for name in TROUBLES:
        path = agent.folder / (name + ".db")
        os.rename(str(path), str(path) + ".away")
        spoil(path, name, agent)
    agent.start()
    ping = agent.ok("PING")
    assert (ping["repositories"], ping["status"]) == ("1/6", "DEGRADED")
    agent.ok("RELEASE")
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    for row in agent.rows("REPOS")[1:]:
        assert row["status"] == "TROUBLE" and TROUBLES[row["repository"]] in row["message"], row
    for name in TROUBLES:
        assert agent.err("STATUS %s" % later[name]) == "REPOSITORY"
        assert agent.err("EXEC HELLO -REPO=%s" % name) == "REPOSITORY"
        path = agent.folder / (name + ".db")
        for beside in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(str(path) + beside)
        os.rename(str(path) + ".away", str(path))
    wait_ping(agent, repositories="6/6", status="READY")
    for name in TROUBLES:
        assert agent.wait_status(held[name], "DONE"), "what the hold made wait begins when it is back"
        assert agent.status(later[name])["status"] == "WAITING"
    assert agent.stop() == 0


def test_a_locked_work_repository_at_start(make_agent):
    agent = make_agent().start()
    path = attach_second(agent)
    agent.ok("HOLD")
    held = agent.ok("EXEC SECOND")["session"]
    agent.ok("RELEASE")
    agent.wait_status(held, "DONE")
    import_waiting(agent)
    agent.ok("HOLD")
    first = agent.ok("EXEC W")["session"]
    assert agent.stop() == 0
    go(agent)
    with foreign_lock(path):
        agent.start()
        assert agent.ok("PING")["repositories"] == "1/2"
        agent.ok("RELEASE")
        assert agent.wait_status(first, "DONE")
        assert agent.ok("PING")["status"] == "DEGRADED"
    wait_ping(agent, repositories="2/2", status="READY")
    assert agent.ok("EXEC SECOND -SYNC")["status"] == "DONE"


def test_a_damaged_session_holds_back_no_other(make_agent):
    agent = make_agent("--max-sessions", "1").start()
    import_waiting(agent)
    agent.import_os("NEXT", "true")
    bad, good = agent.ok("EXEC W")["session"], agent.ok("EXEC NEXT")["session"]
    wait_begun(agent, bad)
    agent.kill()
    with contextlib.closing(sqlite3.connect(str(agent.work))) as connection:
        connection.execute("update definition set body='{\"of\": \"another version\"}'"
                           " where id=(select definition from session where id=?)", (int(bad),))
        connection.commit()
    agent.start()
    assert agent.wait_status(good, "DONE")
    assert agent.status(bad)["status"] == "ERROR"
    agent.ok("SHUTDOWN")
    assert agent.wait() == 0


def test_a_foreign_lock_at_a_sessions_end_delays_no_ping_and_loses_nothing(agent):
    import_waiting(agent)
    session = agent.ok("EXEC W")["session"]
    wait_begun(agent, session)
    with agent.connect() as waiting, agent.connect() as second:
        waiting.send("WAIT %s" % session)
        with foreign_lock(agent.work):
            go(agent)
            second.send("EXEC HELLO")
            pings = 0
            while not select.select([second.socket], [], [], 0.1)[0]:
                agent.ok("PING")
                pings += 1
            assert pings > 4, "each waited for the lock, as EXEC did"
            assert agent.ok("PING")["running"] == "1"
            assert agent.ok("PING")["status"] == "DEGRADED"
            assert second.reply()[0].startswith("ERR REPOSITORY ")
        assert "status=DONE" in waiting.reply()[-1]
    wait_ping(agent, status="READY", running="0")
    assert agent.log_texts(session) == ["over"]
    rows = agent.rows("STATUS %s" % session)
    assert [row["status"] for row in rows if "status" in row] == ["DONE"] * 3
    assert len(agent.rows("SESSIONS")) == 1, "nothing was made of what got ERR REPOSITORY"


def test_a_full_disk_makes_what_runs_wait_and_refuses_the_rest(agent):
    import_waiting(agent)
    session = agent.ok("EXEC W")["session"]
    wait_begun(agent, session)
    size = max(path.stat().st_size for path in agent.folder.iterdir() if path.name.startswith("workrep"))
    _, hard = resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (min(size, 4096), hard))
    assert agent.err("EXEC HELLO") == "REPOSITORY"
    go(agent)
    wait_ping(agent, status="DEGRADED", running="1")
    assert agent.status(session)["status"] == "RUNNING"
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert agent.wait_status(session, "DONE")
    assert agent.log_texts(session) == ["over"]
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert len(agent.rows("SESSIONS")) == 2
    wait_ping(agent, status="READY")
    assert agent.stop() == 0
    assert query(agent.work, "pragma integrity_check") == [("ok",)]


def test_a_work_repository_moved_away_and_back_while_a_session_runs(make_agent):
    agent = make_agent("--max-sessions", "1").start()
    import_waiting(agent)
    running, queued = agent.ok("EXEC W")["session"], agent.ok("EXEC W")["session"]
    wait_begun(agent, running)
    away = agent.folder / "away.db"
    move_repository(agent.work, away)
    wait_ping(agent, status="DEGRADED", repositories="0/1")
    assert agent.err("STATUS %s" % running) == "REPOSITORY"
    go(agent)
    time.sleep(0.5)
    assert marks(agent) == [running] and not agent.work.exists()
    move_repository(away, agent.work)
    assert agent.wait_status(running, "DONE") and agent.wait_status(queued, "DONE")
    assert marks(agent) == [running, queued]
    assert agent.log_texts(running) == ["over"]
    wait_ping(agent, status="READY", repositories="1/1")


def test_a_work_repository_replaced_by_a_copy_under_the_agent(make_agent):
    """The session that ran in the old file ends in memory; what is outstanding in the new one runs."""
    agent = make_agent("--max-sessions", "1", "--clean-every", "1").start()
    import_waiting(agent)
    running = agent.ok("EXEC W")["session"]
    wait_begun(agent, running)
    queued, later = agent.ok("EXEC W")["session"], agent.ok("EXEC W -AT=2099-01-01")["session"]
    copy_repository(agent.work, agent.folder / "copy.db")
    lost = agent.ok("EXEC HELLO")["session"]            # only in the old file
    replace_work(agent, agent.folder / "copy.db")
    assert agent.err("STATUS %s" % lost) == "NOT_FOUND"
    agent.wait_status(queued, "QUEUED")
    go(agent)
    assert agent.wait_status(queued, "DONE")
    assert "stale" in agent.wait_status(running, "ERROR")["message"]
    assert "session %s ended in memory" % running in agent.log()
    assert agent.status(later)["status"] == "WAITING"
    assert marks(agent) == [running, queued]
    assert agent.ok("EXEC HELLO -SYNC")["session"] == lost, "the new file's own count"
    assert agent.stop() == 0


def test_a_replaced_file_gives_a_running_sessions_number_again(make_agent):
    agent = make_agent().start()
    import_waiting(agent)
    copy_repository(agent.work, agent.folder / "copy.db")
    running = agent.ok("EXEC W")["session"]
    wait_begun(agent, running)
    replace_work(agent, agent.folder / "copy.db")
    assert agent.ok("EXEC HELLO")["session"] == running
    go(agent)
    assert agent.wait_status(running, "DONE")["scenario"] == "HELLO"


def test_a_master_moved_away_and_back(agent):
    away = agent.folder / "away.db"
    move_repository(agent.master, away)
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert agent.err("CONTEXTS") == "REPOSITORY"
    move_repository(away, agent.master)
    wait_for(lambda: not agent.ask("HOLD")[0].startswith("ERR"), "the master to be back")
    agent.ok("RELEASE")
    wait_ping(agent, status="READY")
    assert agent.stop() == 0
