"""What happens between two looks: slots, cleaning, holds, detaching and ports under odd timing."""
import shutil
import subprocess
import sys
import threading
import time

import pytest

from conftest import TOP, ahead, is_alive, local, wait_for
from support.outside import foreign_lock

pytestmark = pytest.mark.once


def pid_in(path):
    wait_for(lambda: path.exists() and path.read_text().strip(), str(path))
    return int(path.read_text())


def test_all_slots_serve_at_once(make_agent):
    agent = make_agent("--max-sessions", "4").start()
    agent.import_os("NAP", "sleep 1000")
    agent.ok("EXEC HELLO -SYNC")
    agent.client.send_raw(b"EXEC NAP\n" * 4)
    for _ in range(4):
        agent.client.reply()
    wait_for(lambda: agent.ok("PING")["running"] == "4", "four sessions to run")
    agent.ok("SHUTDOWN -IMMEDIATE")
    assert agent.wait() == 0


def test_all_slots_serve_after_a_hold(make_agent):
    agent = make_agent("--max-sessions", "4").start()
    agent.import_os("NAP", "sleep 1000")
    agent.ok("HOLD")
    for _ in range(4):
        agent.ok("EXEC NAP")
    agent.ok("RELEASE")
    wait_for(lambda: agent.ok("PING")["running"] == "4", "four sessions to run")
    agent.ok("SHUTDOWN -IMMEDIATE")


def test_an_agent_on_a_copy_leaves_the_live_ones_processes_alone(make_agent):
    agent = make_agent().start()
    agent.import_os("NAP", "echo $$ > pid; sleep 1000")
    agent.ok("EXEC NAP")
    pid = pid_in(agent.folder / "pid")
    copy = make_agent(folder="copy")
    shutil.copytree(str(agent.folder), str(copy.folder))
    copy.start()
    assert is_alive(pid) and agent.status(1001)["status"] == "RUNNING"
    assert copy.status(1001)["status"] == "RUNNING"     # of a process that lives
    assert "copy: it is not the file" in copy.rows("REPOS")[0]["message"]
    copy.ok("RELEASE -REPO=WORKREP")
    agent.ok("STOP 1001 -IMMEDIATE")
    assert copy.ok("CLEAN")["cleaned"] == "0"           # its agent lives
    assert agent.stop() == 0
    assert copy.ok("CLEAN")["cleaned"] == "1"


def test_a_stop_while_the_output_is_drained_leaves_no_process(agent):
    agent.import_os("LEAVES", "sleep 1000 & echo $! > pid; exit 0")
    agent.ok("EXEC LEAVES")
    pid = pid_in(agent.folder / "pid")
    agent.ok("STOP 1001 -IMMEDIATE")
    wait_for(lambda: not is_alive(pid), "what it left to be ended")


def test_a_stop_of_what_could_not_begin_yet_is_a_stop(agent):
    agent.import_os("SAYS", "echo ran > ran")
    agent.ok("HOLD")
    agent.ok("EXEC SAYS")
    replies = []
    with foreign_lock(agent.work):
        agent.ok("RELEASE")
        with agent.connect() as client:
            asker = threading.Thread(target=lambda: replies.append(client.ask("STOP 1001")[-1]))
            asker.start()
            time.sleep(1)
            asker.join(0.1)
    asker.join()
    end = agent.ok("WAIT 1001 -TIMEOUT=30")["status"]
    assert (end == "STOPPED") == ("status=STOPPED" in replies[0]), (end, replies)


def test_the_hold_of_a_schedule_holds_what_is_queued(agent):
    agent.import_os("NAP", "until [ -e go ]; do sleep 0.05; done")
    agent.ok("SCHED ADD EVERY NAP -1 GLOBAL 'every 1s'")
    wait_for(lambda: len(agent.rows("SESSIONS")) == 2, "one to run and one to wait")
    agent.ok("HOLD why -SCHEDULE=EVERY")
    first, second = sorted((row["session"] for row in agent.rows("SESSIONS")), key=int)
    (agent.folder / "go").touch()
    agent.wait_status(first, "DONE")
    time.sleep(0.5)
    assert agent.status(second)["begun"] == ""
    agent.ok("RELEASE -SCHEDULE=EVERY")
    agent.wait_status(second, "RUNNING", "DONE")


def test_a_hold_ends_at_its_time_though_the_master_is_locked(agent):
    ahead(lambda until: agent.ask("HOLD why -UNTIL=%s" % local(until)))
    with foreign_lock(agent.master):
        wait_for(lambda: agent.ok("PING")["hold"] == "no", "the hold to end")
        assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"


def test_detaching_takes_nothing_more(make_agent):
    agent = make_agent().start()
    agent.ok("ATTACH W2 w2.db -CREATE")
    agent.import_document({"scenarios": [{"name": "ONLY2", "version": "1", "steps": [
        {"name": "s", "tasks": [{"type": "os", "command": "sleep 1000"}]}]}]}, "-REPO=W2")
    with agent.connect() as client:
        with foreign_lock(agent.master):
            client.send("DETACH W2")
            wait_for(lambda: agent.err("STATUS 9002") == "CONFLICT", "the detaching to begin")
            code = agent.err("EXEC ONLY2")
        assert client.reply()[-1].startswith("OK")
    assert code in ("CONFLICT", "NOT_FOUND", "BUSY")


def test_a_locked_master_at_the_start_is_told(make_agent):
    agent = make_agent().start()
    agent.stop()
    with foreign_lock(agent.master):
        done = subprocess.run([sys.executable, str(TOP / "agent.py"), "--port", "0", "--master",
                               str(agent.master)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1 and lines[-1].startswith("agent.py: master repository"), lines
    assert "Traceback" not in done.stderr.decode()


def test_agent_and_import_may_make_the_repositories_at_once(tmp_path):
    document = tmp_path / "d.json"
    document.write_text('{"contexts": ["PROD"]}')
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(str(TOP / "agent.py"), str(folder))
        command = [sys.executable, str(folder / "agent.py"), "--import", str(document)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                for _ in range(2)]
        for process in both:
            out, err = process.communicate()
            assert process.returncode == 0, (out, err)
        assert sorted(path.name for path in (folder / "sqlite_repos").iterdir()) == [
            "master.db", "workrep.db"]


def test_no_line_separator_of_unicode_in_the_log(agent):
    agent.import_os("P", "printf 'a\\342\\200\\250OK session=9\\342\\200\\256\\n'")
    agent.ok("EXEC P -SYNC")
    assert agent.log_texts(1001) == ["a\\xe2\\x80\\xa8OK session=9\\xe2\\x80\\xae"]


def test_what_was_stopped_before_its_start_time_stays_stopped(make_inside, monkeypatch):
    """All slots are busy when the time comes that the session was to wait for."""
    agent = make_inside("--max-sessions", "1").start()
    monkeypatch.chdir(str(agent.folder))        # where its tasks work
    agent.import_os("BLOCK", "until [ -e go ]; do sleep 0.05; done")
    agent.import_os("BAD", "echo run >> bad; exit 3")
    agent.ok("SCHED ADD R BAD -1 GLOBAL startup -ATTEMPTS=3 -RETRY_DELAY=60")
    agent.stop()
    agent.start()
    retry = wait_for(lambda: [row for row in agent.rows("SESSIONS -SCHEDULE=R") if row["status"] == "WAITING"],
                     "the second attempt to wait")[0]["session"]
    agent.ok("EXEC BLOCK")
    start_at = local(int(agent.now()) + 60)
    later = agent.ok("EXEC HELLO -AT=%s" % start_at)["session"]
    again = agent.ok("EXEC BAD -AT=%s" % start_at)["session"]
    for session in (retry, later, again):
        agent.ok("STOP %s" % session)
    agent.ok("RESTART %s" % again)
    last = agent.ok("EXEC HELLO -AT=%s" % local(int(agent.now()) + 70))["session"]
    agent.let_pass(100)
    wait_for(lambda: agent.status(last)["status"] == "QUEUED", "the start times to have come")
    (agent.folder / "go").touch()
    assert agent.ok("WAIT %s" % last)["status"] == "DONE"
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert [agent.status(session)["status"] for session in (retry, later, again)] == ["STOPPED", "STOPPED", "ERROR"]
    assert (agent.folder / "bad").read_text() == "run\n" * 2    # the first attempt of R, and the restarted one
    assert len(agent.rows("SESSIONS -SCHEDULE=R")) == 2
