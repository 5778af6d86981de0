"""on_stale adopt: a process that lived through a crash or a restart of the agent is taken up again."""
import os
import pwd

import pytest

from conftest import is_alive, wait_for
from support.waiting import go
from support.adoptable import UNTIL_GO, adoptable, pid_of, spools


def test_as_any_other_when_nothing_happens(agent):
    adoptable(agent, "echo one; echo two >&2; exit 0", "echo three")
    assert agent.ok("EXEC A -SYNC")["status"] == "DONE"
    assert sorted(agent.log_texts(1001)) == ["one", "three", "two"]
    adoptable_again = agent.import_document({"scenarios": [{
        "name": "C", "version": "1", "on_stale": "adopt", "variables": {"v": ""},
        "steps": [{"name": "s", "tasks": [
            {"type": "os", "command": "echo taken", "capture": "v"},
            {"type": "python", "code": "import os; print(os.environ['VAR_v'], '$${v}')"},
            {"type": "os", "command": ["./no-such"]}]}]}]})
    assert adoptable_again["scenarios"] == "1"
    end = agent.ok("EXEC C -SYNC")
    assert end["status"] == "ERROR" and "No such file or directory" in end["message"]
    assert "taken ${v}" in agent.log_texts(2001)
    assert spools(agent) == []


def test_after_a_kill_its_output_and_its_real_exit_code_decide(make_agent):
    agent = make_agent().start()
    adoptable(agent, "sh -c 'echo early; echo $$ > pid; %s; echo late; exit 3'" % UNTIL_GO)
    agent.ok("EXEC A")
    pid = pid_of(agent)
    agent.kill()
    assert is_alive(pid)
    agent.start()
    go(agent)
    end = agent.ok("WAIT 1001")
    assert end["status"] == "ERROR" and "exit code 3" in end["message"]
    assert agent.log_texts(1001) == ["early", "late"]
    task = next(row for row in agent.rows("STATUS 1001") if "task" in row)
    assert (task["rc"], task["attempt"]) == ("3", "1")
    assert spools(agent) == []


def test_the_session_goes_on_with_its_next_task_and_step(make_agent):
    agent = make_agent().start()
    agent.import_document({"scenarios": [{
        "name": "A", "version": "1", "on_stale": "adopt", "variables": {"v": "none"}, "steps": [
            {"name": "one", "tasks": [
                {"type": "os", "command": "echo $$ > pid; %s; echo value" % UNTIL_GO, "capture": "v"},
                {"type": "os", "command": "echo \"second ${v}\" >> order"}]},
            {"name": "two", "tasks": [{"type": "os", "command": "echo third >> order"}]}]}]})
    agent.ok("EXEC A")
    pid_of(agent)
    agent.kill()
    agent.start()
    go(agent)
    assert agent.ok("WAIT 1001")["status"] == "DONE"
    assert (agent.folder / "order").read_text() == "second value\nthird\n"


def test_one_that_ended_while_no_agent_was_there(make_agent):
    agent = make_agent().start()
    adoptable(agent, "echo $$ > pid; %s; echo done; exit 0" % UNTIL_GO)
    agent.ok("EXEC A")
    pid = pid_of(agent)
    agent.kill()
    go(agent)
    wait_for(lambda: not is_alive(pid), "the task to end")
    wait_for(lambda: not any("agent.py" in command and "--hold" in command and str(agent.folder) in command
                             for command in commands()), "its minder to end")
    agent.start()
    assert agent.ok("WAIT 1001")["status"] == "DONE"
    assert agent.log_texts(1001) == ["done"]


def commands():
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/cmdline" % name, errors="replace") as file:
                    yield file.read().replace("\0", " ")
            except OSError:
                pass


def test_neither_alive_nor_noted_is_an_error(make_agent):
    agent = make_agent().start()
    adoptable(agent, "echo $$ > pid; sleep 1000")
    agent.ok("EXEC A")
    pid = pid_of(agent)
    with open("/proc/%d/stat" % pid) as file:
        minder = int(file.read().rpartition(")")[2].split()[1])
    agent.kill()
    os.kill(minder, 9)
    agent.start()
    end = agent.ok("WAIT 1001")
    assert end["status"] == "ERROR" and "stale" in end["message"]
    wait_for(lambda: not is_alive(pid), "the leftover to be ended")


@pytest.mark.parametrize("how", ["stop", "timeout"])
def test_a_stop_and_a_timeout_reach_it(make_agent, how):
    agent = make_agent().start()
    adoptable(agent, "trap '' TERM; (setsid sleep 1000 & echo $! > child); echo $$ > pid; sleep 1000; sleep 1000",
              **({"timeout": 3} if how == "timeout" else {}))
    agent.ok("EXEC A")
    pids = [pid_of(agent), pid_of(agent, "child")]
    agent.kill()
    agent.start()
    agent.wait_status(1001, "RUNNING", "ERROR")
    if how == "stop":
        assert agent.ok("STOP 1001 -IMMEDIATE")["status"] == "STOPPED"
    else:
        assert "time-out" in agent.ok("WAIT 1001")["message"]
    wait_for(lambda: not any(map(is_alive, pids)), "all its processes to be gone")
    assert spools(agent) == []


def test_shutdown_leave_is_an_upgrade_without_a_stop(make_agent):
    agent = make_agent().start()
    adoptable(agent, "echo early; echo $$ > pid; %s; echo late" % UNTIL_GO)
    agent.import_os("B", "echo $$ > pid_b; sleep 1000")
    agent.ok("EXEC A")
    agent.ok("EXEC B")
    pid = pid_of(agent)
    other = pid_of(agent, "pid_b")
    followers = [agent.connect() for _ in range(4)]
    for client, line in zip(followers, ("LOG 1001 -FOLLOW -TAIL=0", "WAIT 1001", "EXEC A -AT=1h -SYNC", "LOG 2001 -FOLLOW")):
        client.send(line)
    assert "waits_for=time" in followers[2].line()
    agent.ok("SHUTDOWN -LEAVE -MAX_WAIT=0")
    ends = [client.reply()[-1] for client in followers]
    assert [end.split(" the ")[0] for end in ends[:3]] == [
        "ERR STOPPING session=%d" % number for number in (1001, 1001, 3001)] and ends[3] == "OK status=STOPPED", ends
    assert agent.wait() == 0
    assert is_alive(pid) and not is_alive(other)
    agent.start()
    go(agent)
    assert agent.ok("WAIT 1001")["status"] == "DONE"
    assert agent.log_texts(1001) == ["early", "late"]
    row, user = agent.status(2001), pwd.getpwuid(os.getuid()).pw_name
    assert (row["status"], row["message"]) == (
        "STOPPED", "stopped by SHUTDOWN -LEAVE of %s: it had not ended in 0 s" % user)
    agent.ok("STOP 3001")


def test_output_is_capped_and_secrets_are_masked_by_the_minder(make_agent):
    agent = make_agent("--max-output", "20000").start()
    agent.import_document({"scenarios": [{
        "name": "A", "version": "1", "on_stale": "adopt", "variables": {"key": {"secret": True}}, "steps": [
            {"name": "s", "tasks": [{"type": "os", "command":
             'echo "first ${key}"; echo $$ > pid; %s; seq 100000; echo "last ${key}"' % UNTIL_GO}]}]}]})
    agent.ok("EXEC A key=top-secret")
    pid_of(agent)
    agent.kill()
    agent.start()
    go(agent)
    assert agent.ok("WAIT 1001")["status"] == "DONE"
    texts = agent.log_texts(1001)
    assert texts[0] == "first ***" and texts[-1] == "last ***"
    assert any("left out" in text for text in texts) and sum(map(len, texts)) < 20000


LAST_WORDS = ("trap 'echo got >>tb; echo said; sleep 0.5; echo after >>tb; exit 3' TERM; echo ready >>tb; "
              "for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done")


def last_words(agent, **fields):
    """Has begun a session that says something when it is told to end -> the words that it has put into a file."""
    path = agent.folder / "tb"
    agent.import_document({"scenarios": [{"name": "A", "version": "1", "on_stale": "adopt", "steps": [{
        "name": "main", "tasks": [dict({"type": "os", "command": LAST_WORDS, "cwd": str(agent.folder)}, **fields)]}]}]})
    agent.ok("EXEC A")
    wait_for(path.exists, "the task to be ready")
    return lambda: path.read_text().split()


@pytest.mark.parametrize("how", ["timeout", "stop", "restart", "shutdown"])
def test_what_it_prints_after_sigterm_is_in_the_log(inside, how):
    words = last_words(inside, **({"timeout": 100} if how == "timeout" else {}))
    if how == "timeout":
        inside.let_pass(100)
    elif how == "shutdown":
        inside.stop()
        inside.start()
    else:
        inside.ok("STOP 1001 -IMMEDIATE")
    inside.ok("WAIT 1001")
    assert words() == ["ready", "got", "after"] and "said" in inside.log_texts(1001)
    if how == "restart":
        inside.ok("RESTART 1001")
        wait_for(lambda: len(words()) == 4, "the task to be ready again")
        inside.ok("STOP 1001 -IMMEDIATE")
        assert words() == ["ready", "got", "after"] * 2 and inside.log_texts(1001).count("said") == 2
    assert spools(inside) == []


def test_what_it_prints_after_sigterm_is_in_the_log_once_it_was_taken_up(make_agent):
    agent = make_agent().start()
    words = last_words(agent)
    agent.kill()
    agent.start().ok("STOP 1001 -IMMEDIATE")
    assert words() == ["ready", "got", "after"] and "said" in agent.log_texts(1001)
