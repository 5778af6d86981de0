"""What a session has under way never lives on beside it: after a crash, without its marker, its minder or its spool;
and what cannot be done for a while goes on when it can."""
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess

import pytest

from conftest import is_alive, wait_for
from support.adoptable import UNTIL_GO, adoptable, pid_of, spools
from support.outside import query
from support.waiting import go

# notes that it begins, and whether the one before lives, as a process without the marker that goes on for long
ALONE = ("[ -e pid ] && grep -q 'State:.[^ZX]' /proc/$(cat pid)/status 2>/dev/null && echo twice > twice; "
         "echo $$ > pid; echo begun >> begun; exec env -i sleep 300")


def begun_session(agent, count=1):
    """Waits until so many attempts have begun."""
    path = agent.folder / "begun"
    wait_for(lambda: path.exists() and path.read_text().count("begun") == count, "attempt %d" % count)


def only_spool(agent):
    path, = [path for path in spools(agent) if not path.name.endswith(("-wal", "-shm"))]
    return path


def note_of(agent):
    """Waits until the number of the process under way is on disk -> it."""
    return wait_for(lambda: query(agent.work, "select pid from session_task where pid is not null and status='RUNNING'"),
                    "the process to be noted")[0][0]


# -- after a crash ---------------------------------------------------------------------

@pytest.mark.parametrize("on_stale", ["error", "restart", "adopt"])
def test_a_process_without_its_marker_is_ended_before_its_session_is_closed(make_agent, on_stale):
    agent = make_agent().start()
    agent.import_os("A", ALONE, on_stale=on_stale)
    agent.ok("EXEC A")
    begun_session(agent)
    pid, noted = pid_of(agent), note_of(agent)
    wait_for(lambda: b"sleep" in open("/proc/%d/cmdline" % pid, "rb").read()[:9], "its environment to be gone")
    if on_stale == "adopt":             # the minder: what it held is noted by itself
        wait_for(lambda: query(only_spool(agent), "select pid from state")[0][0] == pid, "its number in the spool")
        os.kill(noted, signal.SIGKILL)
    agent.kill()
    assert is_alive(pid)
    agent.start()
    if on_stale == "restart":
        begun_session(agent, 2)
        assert agent.ok("STOP 1001 -IMMEDIATE")["status"] == "STOPPED"
    else:
        assert "stale" in agent.ok("WAIT 1001")["message"]
    assert not is_alive(pid) and not (agent.folder / "twice").exists()


# -- spools ----------------------------------------------------------------------------

@pytest.mark.parametrize("statements", [
    (), ("drop table log", "drop table omitted", "drop table state"), ("delete from state",)],
    ids=["no tables, empty", "no tables", "no row"])
def test_a_spool_that_was_only_half_made_costs_its_session_alone(make_agent, statements):
    agent = make_agent().start()
    adoptable(agent, "echo $$ > pid; sleep 300")
    agent.import_os("B", "echo $$ > pid_b; sleep 300")
    agent.ok("EXEC A")
    agent.ok("EXEC B")
    pids = [pid_of(agent), pid_of(agent, "pid_b")]
    path = only_spool(agent)
    minder = query(path, "select holder from state")[0][0]
    agent.kill()
    os.kill(minder, signal.SIGKILL)
    if statements:
        with contextlib.closing(sqlite3.connect(str(path), isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
    else:
        for each in spools(agent):
            each.unlink()
        path.touch(mode=0o600)
    agent.start()
    for session in (1001, 2001):
        end = agent.ok("WAIT %d" % session)
        assert end["status"] == "ERROR" and "stale" in end["message"]
    assert not any(map(is_alive, pids))
    assert agent.ok("PING")["status"] == "READY" and agent.ok("EXEC B")["status"] == "QUEUED"


def test_a_spool_appears_whole_and_what_a_crash_left_of_one_goes(make_agent):
    agent = make_agent().start()
    for ending in ("", "-wal", "-shm"):
        path = agent.folder / (".workrep.db.spool.1001.2.0123456789abcdef.0123456789abcdef.new" + ending)
        path.touch(mode=0o600)
    agent.kill()
    agent.start()
    adoptable(agent, "true")
    assert agent.ok("EXEC A -SYNC")["status"] == "DONE"
    assert list(agent.folder.glob("*spool*")) == [] and list(agent.folder.glob(".*spool*")) == []


# -- what cannot be followed any more --------------------------------------------------

def test_a_minder_that_is_gone_takes_its_process_along_before_the_next_attempt(inside):
    inside.import_document({"scenarios": [{
        "name": "A", "version": "1", "on_stale": "adopt", "steps": [{"name": "s", "attempts": 2, "tasks": [
            {"type": "os", "command": ALONE, "cwd": str(inside.folder)}]}]}]})
    inside.ok("EXEC A")
    pids = []
    for attempt in (1, 2):
        begun_session(inside, attempt)
        pids.append(pid_of(inside))
        minder = wait_for(lambda: query(only_spool(inside), "select holder from state where pid=%d" % pids[-1]),
                          "the minder to note its process")[0][0]
        os.kill(minder, signal.SIGKILL)
    end = inside.ok("WAIT 1001")
    assert end["status"] == "ERROR" and "the process that held it is gone" in end["message"]
    assert not any(map(is_alive, pids)) and len(set(pids)) == 2 and not (inside.folder / "twice").exists()
    assert spools(inside) == []


def test_a_spool_that_is_deleted_takes_its_process_along_before_the_next_attempt(inside):
    inside.import_document({"scenarios": [{
        "name": "A", "version": "1", "on_stale": "adopt", "steps": [{"name": "s", "attempts": 2, "tasks": [
            {"type": "os", "command": ALONE, "cwd": str(inside.folder)}]}]}]})
    inside.ok("EXEC A")
    pids = []
    for attempt in (1, 2):
        begun_session(inside, attempt)
        pids.append(pid_of(inside))
        for path in spools(inside):
            path.unlink()
    end = inside.ok("WAIT 1001")
    assert end["status"] == "ERROR" and "what its process wrote is gone" in end["message"]
    assert not any(map(is_alive, pids)) and len(set(pids)) == 2 and not (inside.folder / "twice").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A folder that is a file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.call(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)], stderr=subprocess.DEVNULL) != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.check_call(["umount", "-l", str(folder)])


def test_a_full_disk_is_waited_for_by_session_and_minder(small_disk, make_agent):
    agent = make_agent(folder=str(small_disk / "repo")).start()
    adoptable(agent, "echo $$ > pid; echo early; until [ -e full ]; do sleep 0.05; done; "
                     "echo while full; echo more >&2; %s; echo late; exit 3" % UNTIL_GO)
    agent.ok("EXEC A")
    pid = pid_of(agent)
    wait_for(lambda: agent.log_texts(1001) == ["early"], "the first line")
    (agent.folder / "full").touch()
    (agent.folder / "go").touch()       # it ends while nothing can be written
    with open(str(agent.folder / "ballast"), "wb", 0) as file:
        with contextlib.suppress(OSError):
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)
    wait_for(lambda: not is_alive(pid), "the process to end")
    assert agent.status(1001)["status"] == "RUNNING"
    (agent.folder / "ballast").unlink()
    end = agent.ok("WAIT 1001")
    assert end["status"] == "ERROR" and "exit code 3" in end["message"]
    assert sorted(agent.log_texts(1001)) == ["early", "late", "more", "while full"]
    assert spools(agent) == []


def test_a_session_waits_for_a_spool_that_cannot_be_made_or_read_now(inside, monkeypatch):
    """As on a full disk: nothing of it ends, and nothing is begun twice."""
    import agent as program
    refusals = {"create": 3, "read_new": 3}
    for name in refusals:
        def refuse(spool, name=name, before=getattr(program.Spool, name)):
            if refusals[name]:
                refusals[name] -= 1
                raise program.RepositoryError("the disk is full")
            return before(spool)
        monkeypatch.setattr(program.Spool, name, refuse)
    inside.import_os("A", "echo $$ >> %s; echo out" % (inside.folder / "begun"), on_stale="adopt")
    assert inside.ok("EXEC A -SYNC")["status"] == "DONE"
    assert inside.log_texts(1001) == ["out"] and len((inside.folder / "begun").read_text().split()) == 1
    assert refusals == {"create": 0, "read_new": 0} and inside.log().count("session 1001 waits: the disk is full") == 1
