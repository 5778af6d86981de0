"""Sections 13 and 17: start, stop, and --import beside a running agent; repositories: test_repositories.py."""
import contextlib
import json
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from datetime import datetime, timezone

import pytest

import agent as program
from conftest import LIMIT_S, TOP, Client, is_alive, wait_for
from support.outside import foreign_lock, query
from support.waiting import go, import_waiting, marks, wait_begun, wait_ping


def file_names(folder):
    return sorted(path.name for path in folder.iterdir())


def run_agent(*options, cwd=None, script=None):
    """An agent that is to end by itself -> (exit code, stdout, lines of stderr)."""
    done = subprocess.run([sys.executable, str(script or TOP / "agent.py")] + list(options),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=LIMIT_S, universal_newlines=True, cwd=cwd and str(cwd))
    return done.returncode, done.stdout, done.stderr.splitlines()


DEAF = """import errno, os, sys
sys.path.insert(0, %r)
import agent


def refuse(server):
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


agent.Server.server_activate = refuse
sys.exit(agent.main())
"""


def no_wal(agent):
    return not [name for name in file_names(agent.folder) if name.endswith(("-wal", "-shm", ".lock"))]


# -- start -----------------------------------------------------------------------------

def test_alone_in_an_empty_folder_it_makes_its_repositories(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(str(TOP / "agent.py"), str(home))
    with open(str(tmp_path / "log"), "wb") as log:
        process = subprocess.Popen([sys.executable, "-B", str(home / "agent.py"), "--port", "0"],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
    try:
        port = int(wait_for(lambda: re.search(r"agent AGENT ready on 127.0.0.1:(\d+)",
                                              (tmp_path / "log").read_text()), "ready").group(1))
        with Client(port) as client:
            client.send("EXEC HELLO -SYNC")
            client.expect("* session=1001 status=QUEUED", "OK session=1001 status=DONE *")
            client.send("REPOS")
            client.expect("* repository=WORKREP id=1 path=%s/sqlite_repos/workrep.db "
                          "status=ATTACHED message=" % home, "OK")
            assert stat.S_IMODE((home / "sqlite_repos").stat().st_mode) == 0o700
            for name in file_names(home / "sqlite_repos"):
                assert stat.S_IMODE((home / "sqlite_repos" / name).stat().st_mode) == 0o600, name
            client.send("SHUTDOWN")
            client.expect("OK")
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()
    assert file_names(home) == ["agent.py", "sqlite_repos"]
    assert file_names(home / "sqlite_repos") == ["master.db", "workrep.db"]


def test_a_second_agent_of_the_name_says_who_holds_it(agent, make_agent):
    code, out, err = run_agent("--port", "0", "--master", str(agent.master))
    assert (code, out, len(err)) == (1, "", 1)
    assert re.search(r"agent named AGENT is running on this master: pid %d on 127.0.0.1:%d since "
                     % (agent.process.pid, agent.port), err[0]), err
    link = agent.folder / "link.db"                     # under another name of the file too
    link.symlink_to(agent.master)
    assert run_agent("--port", "0", "--master", str(link))[0] == 1
    other = make_agent("--name", "OTHER").start()
    assert other.ok("PING")["agent"] == "OTHER" and agent.ok("PING")["agent"] == "AGENT"
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert other.ok("EXEC HELLO -SYNC")["session"] == "2001"


def test_the_name_is_free_again_after_a_crash_and_after_a_stop(make_agent):
    agent = make_agent().start()
    agent.kill()
    agent.start()
    assert agent.stop() == 0
    agent.start()
    assert agent.stop() == 0


@pytest.mark.parametrize("is_listening", [True, False])
def test_a_taken_port_touches_nothing(tmp_path, is_listening):
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        if is_listening:
            taken.listen(1)
        port = str(taken.getsockname()[1])
        code, out, err = run_agent("--port", port, "--create", "--master", str(tmp_path / "new" / "m.db"))
        assert (code, out, len(err)) == (1, "", 1) and "port %s" % port in err[0], err
        assert file_names(tmp_path) == []


def test_a_taken_port_leaves_what_is_there(make_agent):
    agent = make_agent().start()
    assert agent.stop() == 0
    before = {name: (agent.folder / name).read_bytes() for name in file_names(agent.folder)}
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        code, _, err = run_agent("--port", str(taken.getsockname()[1]), "--master", str(agent.master))
    assert code == 1 and len(err) == 1
    assert before == {name: (agent.folder / name).read_bytes() for name in file_names(agent.folder)}


def test_one_that_cannot_listen_in_the_end_stops_in_good_order(make_agent, tmp_path):
    """No other program can take the port meanwhile, but the kernel may still refuse."""
    agent = make_agent().start()
    import_waiting(agent)
    agent.ok("HOLD")
    first = agent.ok("EXEC W")["session"]
    assert agent.stop() == 0
    deaf = make_agent()
    deaf.script = tmp_path / "deaf.py"
    deaf.script.write_text(DEAF % str(TOP))
    deaf.start(is_ready=False)
    assert deaf.process.wait(LIMIT_S) == 1
    assert deaf.log().endswith("agent.py: cannot start: Address already in use\n")
    assert agent.start().status(first)["status"] == "WAITING"
    assert marks(agent) == []


def test_a_missing_master_is_not_made_without_create(tmp_path):
    for options in ([], ["--import", str(tmp_path / "none.json")]):
        code, out, err = run_agent("--port", "0", "--master", str(tmp_path / "new" / "m.db"), *options)
        assert (code, out, len(err)) == (1, "", 1) and "m.db does not exist; --create" in err[0], err
        assert file_names(tmp_path) == []


@pytest.mark.parametrize("options", [["--port", "x"], ["--port", "70000"], ["--unknown"], ["--create"],
                                     ["--name", "a b"], ["word"]])
def test_wrong_usage_is_2(tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        program.main(options)
    said = capsys.readouterr()
    assert (caught.value.code, said.out) == (2, "") and said.err.startswith("usage: agent.py")
    if options == ["word"]:             # and as a process of its own
        code, out, err = run_agent(*options, cwd=tmp_path)
        assert (code, out) == (2, "") and err[0].startswith("usage: agent.py")
    assert file_names(tmp_path) == []


@pytest.mark.parametrize("content", ["corrupt", "foreign", "newer", "work"])
def test_a_master_that_is_none_is_told_in_a_line(make_agent, content):
    agent = make_agent()
    agent.folder.mkdir()
    if content == "corrupt":
        agent.master.write_bytes(b"no database " * 1000)
    elif content == "foreign":
        with contextlib.closing(sqlite3.connect(str(agent.master))) as connection:
            connection.execute("create table mine (a)")
    else:
        agent.start()
        assert agent.stop() == 0
    if content == "newer":
        with contextlib.closing(sqlite3.connect(str(agent.master))) as connection:
            connection.execute("pragma user_version=99")
    master = agent.work if content == "work" else agent.master
    before = master.read_bytes()
    code, out, err = run_agent("--port", "0", "--master", str(master))
    assert (code, out, len(err)) == (1, "", 1) and "master repository" in err[0], err
    assert master.read_bytes() == before


# -- stop ------------------------------------------------------------------------------

@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, "SHUTDOWN"])
def test_a_stop_lets_running_sessions_end_and_refuses_new_ones(make_agent, how):
    agent = make_agent("--max-sessions", "1").start()
    import_waiting(agent)
    running, queued = agent.ok("EXEC W")["session"], agent.ok("EXEC W")["session"]
    later = agent.ok("EXEC W -AT=2099-01-01")["session"]
    wait_begun(agent, running)
    with agent.connect() as waiting:
        waiting.send("EXEC W -SYNC -AT=2098-01-01")
        assert waiting.line().startswith("* session=4001 status=WAITING start_at=2098-")
        if how == "SHUTDOWN":
            agent.ok("SHUTDOWN")
        else:
            agent.process.send_signal(how)
        wait_ping(agent, status="STOPPING")
        assert agent.err("EXEC W") == agent.err("EXEC HELLO -SYNC") == "STOPPING"
        assert agent.err("RESTART %s" % running) in ("STOPPING", "CONFLICT")
        assert agent.status(running)["status"] == "RUNNING"
        with agent.connect() as other:
            assert "status=STOPPING" in other.ask("PING")[0]
        go(agent)
        assert waiting.line().startswith("ERR STOPPING session=4001 ")
    assert agent.wait() == 0
    assert no_wal(agent)
    assert query(agent.work, "select id, status from session order by id") == [
        (1001, "DONE"), (2001, "QUEUED"), (3001, "WAITING"), (4001, "WAITING")]
    agent.start()
    assert agent.wait_status(queued, "DONE")["message"] == ""
    assert agent.status(later)["status"] == "WAITING"
    assert marks(agent) == [running, queued]
    assert agent.stop() == 0
    assert query(agent.master, "select name, stopped is not null from agent") == [("AGENT", 1)]


@pytest.mark.parametrize("how", ["second signal", "SHUTDOWN -IMMEDIATE", "SHUTDOWN -MAX_WAIT=0.5"])
def test_an_immediate_stop_ends_what_runs(make_agent, how):
    agent = make_agent("--max-sessions", "1").start()
    trap = "[ -e pid ] || trap '' TERM; " if how == "SHUTDOWN -IMMEDIATE" else ""     # takes two seconds
    agent.import_os("W", trap + "echo $$ > pid; setsid sleep 1000 & echo begun; sleep 1000")
    running, queued = agent.ok("EXEC W")["session"], agent.ok("EXEC W")["session"]
    wait_for(lambda: agent.log_texts(running) == ["begun"], "its output")
    if how == "second signal":
        agent.process.send_signal(signal.SIGTERM)
        wait_ping(agent, status="STOPPING")
        assert agent.status(running)["status"] == "RUNNING"
        agent.process.send_signal(signal.SIGINT)
    else:
        agent.ok(how)
    assert agent.wait() == 0
    assert no_wal(agent)
    assert query(agent.work, "select id, status from session order by id") == [
        (1001, "STOPPED"), (2001, "QUEUED")]
    assert query(agent.work, "select status from session_task") == [("STOPPED",)]
    assert query(agent.work, "select status from session_step") == [("STOPPED",)]
    assert not is_alive(int((agent.folder / "pid").read_text()))
    agent.start()
    agent.wait_status(queued, "RUNNING")
    assert agent.status(running)["status"] == "STOPPED"
    agent.ok("SHUTDOWN -IMMEDIATE")
    assert agent.wait() == 0


def test_hangup_stops_nothing(agent):
    agent.process.send_signal(signal.SIGHUP)
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    agent.process.send_signal(signal.SIGHUP)
    assert agent.ok("PING")["status"] == "READY"
    assert agent.stop() == 0


def test_signals_do_not_cut_the_closing_short(agent):
    """It has nothing to wait for but a foreign lock, while it writes down and closes."""
    with foreign_lock(agent.master):
        agent.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping" in agent.log(), "the stop")
        for _ in range(5):
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                agent.process.send_signal(signal.SIGTERM)
    assert agent.wait() == 0
    assert no_wal(agent)


def test_what_ended_under_a_foreign_lock_is_written_before_the_stop_is_over(make_agent):
    agent = make_agent().start()
    import_waiting(agent)
    session = agent.ok("EXEC W")["session"]
    wait_begun(agent, session)
    wait_for(lambda: query(agent.work, "select pid from session_task")[0][0], "its pid on disk")
    with foreign_lock(agent.work):
        agent.process.send_signal(signal.SIGTERM)
        go(agent)
        time.sleep(1.0)
        assert agent.process.poll() is None
    assert agent.wait() == 0
    assert query(agent.work, "select status from session") == [("DONE",)]
    assert query(agent.work, "select line from session_log") == [("over",)]


def test_a_stop_leaves_the_wal_to_another_program(agent):
    with contextlib.closing(sqlite3.connect(str(agent.work), isolation_level=None)) as other:
        other.execute("begin")
        other.execute("select count(*) from session").fetchone()
        assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
        assert agent.stop() == 0
        other.execute("rollback")
        assert other.execute("select status from session").fetchall() == [("DONE",)]


def test_a_hold_is_kept_over_a_restart(make_agent):
    agent = make_agent().start()
    agent.ok("HOLD 'for the night'")
    session = agent.ok("EXEC HELLO")["session"]
    assert agent.status(session)["status"] == "WAITING"
    agent.kill()
    agent.start()
    assert agent.ok("PING")["hold"] == "yes"
    assert agent.status(session)["status"] == "WAITING"
    agent.ok("RELEASE")
    assert agent.wait_status(session, "DONE")


# -- definitions -----------------------------------------------------------------------

def test_import_beside_a_running_agent(agent):
    document = agent.folder / "document.json"

    def run_import(rule, *options):
        document.write_text(json.dumps({
            "contexts": ["PROD"],
            "scenarios": [{"name": "TICK", "version": "1", "steps": [
                {"name": "a", "tasks": [{"type": "os", "command": "true"}]}]}],
            "schedules": [{"name": "S", "scenario": "TICK", "version": "-1", "context": "PROD",
                           "rule": rule}]}))
        return run_agent("--master", str(agent.master), "--import", str(document), *options)
    code, out, err = run_import("yearly on 01-01 at 00:00")
    assert (code, err) == (0, []) and "1 scenarios and 1 schedules imported" in out
    assert agent.ok("EXEC TICK 1 PROD -SYNC")["status"] == "DONE"
    assert agent.rows("SCHED LIST")[0]["rule"] == "yearly on 01-01 at 00:00"
    assert run_import("every 1s")[0] == 0
    wait_for(lambda: agent.rows("SESSIONS -SCHEDULE=S -STATUS=DONE"), "the schedule to fire")
    assert run_import("yearly on 01-01 at 00:00")[0] == 0
    agent.ok("SCHED UPDATE")
    updated = datetime.now(timezone.utc)
    time.sleep(1.5)
    last = agent.rows("SESSIONS -SCHEDULE=S -LIMIT=1")[0]["due"].replace(":", "")
    last = datetime.strptime(last, "%Y-%m-%dT%H%M%S" + ".%f" * ("." in last) + "%z")
    assert last <= updated, "the old rule still fires"
    document.write_text('{"scenarios": [{"name": "X", "version": "1"}], "colour": 1}')
    code, out, err = run_agent("--master", str(agent.master), "--import", str(document))
    assert (code, out) == (1, "")
    assert any("scenarios[0].steps: " in line for line in err) and any("colour" in line for line in err)
    code, _, err = run_agent("--master", str(agent.master), "--import", str(document), "--repo", "NO")
    assert code == 1
    assert agent.ok("PING")["repositories"] == "1/1"


def test_a_definitions_number_that_is_used_again_does_not_bring_the_old_one_back(agent):
    agent.import_os("OLD", "echo old")
    session = agent.ok("EXEC OLD -SYNC")["session"]
    agent.ok("PURGE -KEEP=0")
    agent.ok("DROP OLD 1")
    agent.import_os("NEW", "echo new")
    session = agent.ok("EXEC NEW -SYNC")["session"]
    assert agent.log_texts(session) == ["new"]
    step = {"name": "a", "tasks": [{"type": "os", "command": "echo refused"}]}
    document = {"scenarios": [{"name": "REFUSED", "version": "1", "steps": [step]}],
                "schedules": [{"name": "S", "scenario": "REFUSED", "version": "1", "rule": "every 1d",
                               "context": "NOWHERE"}]}
    assert agent.err("IMPORT '%s'" % json.dumps(document)) == "BAD_REQUEST"
    agent.import_os("NEXT", "echo next")
    assert agent.log_texts(agent.ok("EXEC NEXT -SYNC")["session"]) == ["next"]
