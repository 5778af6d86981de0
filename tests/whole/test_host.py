"""The host, and how the agent was started: what it inherits is not what its tasks get."""
import contextlib
import json
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest

from conftest import AGENT, wait_for

pytestmark = pytest.mark.once

NOBODY_LISTENS = 1      # no port that tests take

# begins the agent as a shell's `trap '' ...`, nohup or a careless daemon begins it
IGNORING = """
import os, signal, sys
for number in (signal.SIGCHLD, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGTSTP):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD])
os.execv(sys.argv[1], sys.argv[1:])
"""
MASKS = "grep -E '^Sig(Blk|Ign):' /proc/self/status"
AS_USUAL = ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]


def one_step(name, *tasks, **fields):
    return dict({"name": name, "version": "1", "steps": [{"name": "main", "tasks": list(tasks)}]}, **fields)


def test_tasks_get_no_signal_that_is_ignored_or_blocked(make_agent):
    """Exit codes are known also where SIGCHLD was ignored."""
    agent = make_agent(launcher=[sys.executable, "-c", IGNORING]).start()
    masks_by_python = "import subprocess; subprocess.call(['sh', '-c', %r])" % MASKS
    agent.import_document({"scenarios": [
        one_step("SHELL", {"type": "os", "command": MASKS}),
        one_step("LIST", {"type": "os", "command": ["sh", "-c", MASKS]}),
        one_step("PYTHON", {"type": "python", "code": masks_by_python}),
        one_step("ADOPT", {"type": "os", "command": MASKS}, on_stale="adopt"),
        one_step("OS7", {"type": "os", "command": "exit 7"}),
        one_step("PYTHON7", {"type": "python", "code": "raise SystemExit(7)"}),
        one_step("ADOPT7", {"type": "os", "command": "exit 7"}, on_stale="adopt")]})
    for name in ("SHELL", "LIST", "PYTHON", "ADOPT"):
        session = agent.ok("EXEC %s -SYNC" % name)["session"]
        assert agent.log_texts(session) == AS_USUAL, name
    for name in ("OS7", "PYTHON7", "ADOPT7"):
        end = agent.ok("EXEC %s -SYNC" % name)
        assert end["status"] == "ERROR" and "exit code 7" in end["message"], end
    for number in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        agent.process.send_signal(number)       # the agent goes on as its starter wished
    assert agent.ok("EXEC SHELL -SYNC")["status"] == "DONE"
    assert agent.stop() == 0


@pytest.mark.parametrize("is_beside", [False, True])
def test_no_module_of_the_folder_stands_for_one_of_python(make_agent, tmp_path, is_beside):
    """Neither of the working folder, nor beside agent.py."""
    agent = make_agent(plain=True)
    agent.folder.mkdir(parents=True)
    for name in ("csv", "email", "token", "types", "json", "os", "socket", "zipfile", "http", "smtplib"):
        (agent.folder / (name + ".py")).write_text("open(%r, 'a').write(%r)" % (str(tmp_path / "ran"), name + " "))
    if is_beside:
        agent.script = agent.folder / "agent.py"
        shutil.copy(str(AGENT), str(agent.script))
    agent.start()
    (agent.folder / "in.csv").write_text("n\n1\n")
    agent.import_document({
        "data_servers": [{"name": "DWH", "driver": "sqlite3", "database": str(tmp_path / "dwh.db")},
                         {"name": "MAIL", "driver": "smtp", "connect": {
                             "host": "127.0.0.1", "port": NOBODY_LISTENS, "sender": "a@b.example"}}],
        "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "DWH"}}],
        "scenarios": [
            one_step("CSV", {"type": "load_csv", "file": "in.csv", "schema": "DWH", "table": "t", "mode": "create"}),
            one_step("PYTHON", {"type": "python", "code": "import csv, email, token; print(csv.reader)"}),
            one_step("ADOPT", {"type": "python", "code": "import csv; csv.reader"}, on_stale="adopt"),
            one_step("FILES", {"type": "zip", "from": "in.csv", "to": "a.zip"}),
            one_step("HTTP", {"type": "http", "url": "http://127.0.0.1:%d/" % NOBODY_LISTENS}),
            one_step("MAIL", {"type": "mail", "to": ["c@d.example"], "subject": "x"})]})
    for name in ("CSV", "PYTHON", "ADOPT", "FILES"):
        end = agent.ok("EXEC %s -SYNC" % name)
        assert end["status"] == "DONE", (name, end, agent.log_texts(end["session"]))
    for name in ("HTTP", "MAIL"):
        assert "refused" in agent.ok("EXEC %s -SYNC" % name)["message"]
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_the_folder_of_a_python_file_is_searched(make_agent):
    """Programs of several files work as they do by hand."""
    agent = make_agent().start()
    (agent.folder / "lib").mkdir()
    (agent.folder / "lib" / "beside.py").write_text("print('it is here')")
    (agent.folder / "lib" / "program.py").write_text("import beside")
    agent.import_document({"scenarios": [one_step("P", {"type": "python", "file": "lib/program.py"})]})
    session = agent.ok("EXEC P -SYNC")["session"]
    assert agent.log_texts(session) == ["it is here"]


def test_a_byte_order_mark_is_passed_over(make_agent):
    agent = make_agent().start()
    document = json.dumps({"scenarios": [one_step("A", {"type": "os", "command": "true"})]})
    (agent.folder / "bom.json").write_bytes(b"\xef\xbb\xbf" + document.encode())
    subprocess.check_call([sys.executable, str(AGENT), "--master", str(agent.master), "--import",
                           str(agent.folder / "bom.json")])
    assert agent.ok("IMPORT '\ufeff%s'" % document.replace('"A"', '"B"'))["scenarios"] == "1"
    for name in "AB":
        assert agent.ok("EXEC %s -SYNC" % name)["status"] == "DONE"


def test_the_agent_goes_on_with_the_code_it_began_with(make_agent):
    """agent.py is moved away, then another version stands there: helpers and minders do not mind."""
    agent = make_agent(plain=True)
    agent.folder.mkdir(parents=True)
    agent.script = agent.folder / "agent.py"
    shutil.copy(str(AGENT), str(agent.script))
    agent.start()
    agent.import_document({"scenarios": [
        one_step("COPY", {"type": "copy", "from": "agent.log", "to": "copy", "overwrite": True}),
        one_step("ADOPT", {"type": "os", "command": "echo adopted"}, on_stale="adopt")]})
    agent.script.rename(agent.folder / "old")
    for _ in range(2):
        for name in ("COPY", "ADOPT"):
            end = agent.ok("EXEC %s -SYNC" % name)
            assert end["status"] == "DONE", end
        agent.script.write_text("raise SystemExit('another version')")


def test_the_wal_shrinks_when_a_long_reader_has_left(make_agent):
    agent = make_agent().start()
    agent.import_document({"scenarios": [one_step("A", {"type": "os", "command": "seq 20000"})]})
    wal = agent.folder / "workrep.db-wal"
    with contextlib.closing(sqlite3.connect(str(agent.work))) as reader:
        rows = reader.execute("select * from sqlite_master")
        rows.fetchone()                             # a snapshot that is kept
        reader.execute("begin")
        reader.execute("select count(*) from session").fetchone()
        for _ in range(20):
            assert agent.ok("EXEC A -SYNC")["status"] == "DONE"
        assert wal.stat().st_size > 8 * 1024 * 1024
        rows.close()
    # of an idle agent, by its looks
    wait_for(lambda: wal.stat().st_size <= 5 * 1024 * 1024, "the -wal to shrink")


SOFT = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"


@pytest.mark.parametrize("soft, is_raised", [(256, True), (700, False)])
def test_tasks_have_the_limit_of_files_that_the_agent_was_started_with(make_agent, soft, is_raised):
    """Whether the agent raises its own, for connections, or not yet."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("the host allows few files")
    agent = make_agent("--max-sessions", "8", launcher=["sh", "-c", 'ulimit -Sn %d; exec "$@"' % soft, "sh"]).start()

    def limit_of_agent():
        return resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)[0]
    assert (limit_of_agent() > soft) is is_raised
    python = [sys.executable, "-c", SOFT]
    agent.import_document({"scenarios": [
        one_step("SHELL", {"type": "os", "command": "ulimit -Sn", "nice": 1}, {"type": "os", "command": "ulimit -Sn"}),
        one_step("LIST", {"type": "os", "command": python, "cwd": "/"},
                 {"type": "os", "command": ["sh", "-c", 'ulimit -Sn; echo "$0" "$1"', "a b", "c"], "env": {"a.b": "1"}}),
        one_step("PYTHON", {"type": "python", "code": SOFT}),
        one_step("ADOPT", {"type": "os", "command": "ulimit -Sn"}, {"type": "python", "code": SOFT}, on_stale="adopt"),
        one_step("NAMES", {"type": "os", "command": [sys.executable, "-c", "import os; print(os.environ['a.b'])"],
                           "env": {"a.b": "7"}}),
        one_step("NONE", {"type": "os", "command": ["./no-such"]})]})

    def check():
        for name in ("SHELL", "LIST", "PYTHON", "ADOPT"):
            texts = agent.log_texts(agent.ok("EXEC %s -SYNC" % name)["session"])
            assert set(texts) - {"a b c"} == {str(soft)}, (name, texts)
        assert agent.log_texts(agent.ok("EXEC NAMES -SYNC")["session"]) == ["7"]
        end = agent.ok("EXEC NONE -SYNC")
        assert end["message"].endswith("cannot start: No such file or directory: ./no-such"), end
    if is_raised:
        check()
        return
    assert agent.log_texts(agent.ok("EXEC LIST -SYNC")["session"])[0] == str(soft)
    connections = [agent.connect() for _ in range(soft)]        # then it needs more
    connections[-1].ok("PING")
    assert limit_of_agent() > soft
    check()
    for connection in connections:
        connection.close()
