"""What processes of tasks leave behind when they end: it becomes the agent's, is reaped when it ends, and ended by nobody."""
import os
import subprocess

import pytest

from conftest import is_alive, wait_for
from support.adoptable import pid_of

NAMESPACE = ["unshare", "-pf", "--mount-proc"]
# a child whose parent ends at once; it ends, too, when `go` is there
ORPHAN = "(sh -c '(echo $PPID > parent; until [ -e go ]; do sleep 0.02; done; echo > over) & exit' &)"
# processor time, of a moment, is what the exit codes are mixed with
BRIEF = "i=0; while [ $i -lt 5 ]; do (sh -c 'sleep 0.0$i & exit' &); i=$((i+1)); done; exit 7"


def list_below(pid):
    """{pid: (state, parent)} of the children of a process and theirs, zombies, too."""
    entries = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            entries[int(name)] = state, int(parent)
    below = {pid}
    while any(each not in below and parent in below for each, (_, parent) in entries.items()):
        below.update(each for each, (_, parent) in entries.items() if parent in below)
    return {each: entries[each] for each in below - {pid}}


def parent_of(pid):
    with open("/proc/%d/stat" % pid) as file:
        return int(file.read().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("launcher", [[], NAMESPACE], ids=["subreaper", "process 1"])
def test_what_lost_its_parent_is_reaped(make_agent, launcher):
    if launcher and (not os.path.exists("/usr/bin/unshare") or subprocess.call(launcher + ["true"], stderr=subprocess.DEVNULL)):
        pytest.skip("no pid namespace can be made here")
    agent = make_agent(launcher=launcher).start()
    agent.import_os("ORPHAN", ORPHAN)
    agent.import_os("BRIEF", BRIEF)
    own = set(list_below(agent.process.pid))
    assert agent.ok("EXEC ORPHAN -SYNC")["status"] == "DONE"
    wait_for((agent.folder / "parent").exists, "the orphan")
    wait_for(lambda: set(list_below(agent.process.pid)) - own, "it to be below the agent")
    sessions = [agent.ok("EXEC BRIEF")["session"] for _ in range(20)]
    for session in sessions:
        assert "exit code 7" in agent.ok("WAIT %s" % session)["message"]
    (agent.folder / "go").touch()
    wait_for((agent.folder / "over").exists, "its end")
    wait_for(lambda: set(list_below(agent.process.pid)) <= own, "all that ended to be reaped")
    agent.ok("SHUTDOWN -IMMEDIATE")
    assert agent.wait() == 0


def test_what_a_session_that_ended_left_goes_on(make_agent):
    """By the stop of another, of the agent, and after its crash."""
    agent = make_agent().start()
    agent.import_os("LEAVES", "nohup sh -c 'echo $$ > left; exec sleep 300' > /dev/null 2>&1 & "
                    "(env -i setsid sh -c 'echo $$ > apart; exec sleep 300' > /dev/null 2>&1 &)")
    agent.import_os("LONG", "echo $$ > pid; sleep 300")
    assert agent.ok("EXEC LEAVES -SYNC")["status"] == "DONE"
    left = [pid_of(agent, "left"), pid_of(agent, "apart")]
    try:
        wait_for(lambda: {parent_of(pid) for pid in left} == {agent.process.pid}, "both to be the agent's")
        session = agent.ok("EXEC LONG")["session"]
        pid_of(agent)
        assert agent.ok("STOP %s -IMMEDIATE" % session)["status"] == "STOPPED"
        (agent.folder / "pid").unlink()
        session = agent.ok("EXEC LONG")["session"]
        pid = pid_of(agent)
        agent.kill()
        agent.start()
        assert agent.status(session)["status"] == "ERROR" and not is_alive(pid)
        assert agent.stop() == 0
        assert all(map(is_alive, left))
    finally:
        for pid in left:
            os.kill(pid, 9)
