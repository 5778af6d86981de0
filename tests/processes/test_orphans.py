"""Processes that lost their parent become this one's children, and are reaped by its main thread."""
import os
import subprocess
import sys

import pytest

import agent

# a subreaper of its own, which must not be what runs the tests
PROGRAM = """
import os, subprocess, sys, threading, time
sys.path.insert(0, sys.argv[1])
import agent
from agent import Tree
agent.take_orphans()
LEADER = '''
import os, sys, time
if os.fork():
    os._exit(0)
if sys.argv[1]:
    os.setuid(int(sys.argv[1]))
print(os.getpid(), flush=True)
os.close(1)
time.sleep(60)
'''
leader = subprocess.Popen([sys.executable, "-S", "-c", LEADER, sys.argv[2]], stdout=subprocess.PIPE,
                          start_new_session=True, env={})
with leader.stdout:
    child = int(leader.stdout.readline())
leader.wait()
tree = Tree([], {leader.pid: "1"})
assert set(tree.find()) == {child}, tree.find()
assert tree.end(2) == 0

def stat(pid):
    with open("/proc/%d/stat" % pid) as file:
        return file.read().rpartition(")")[2].split()[:2]
assert stat(child) == ["Z", str(os.getpid())]

# what another thread has started is that thread's to wait for
begun, popens = threading.Event(), []
def start():
    popens.append(subprocess.Popen(["sh", "-c", "exit 7"]))
    begun.wait()
thread = threading.Thread(target=start)
thread.start()
while not popens or stat(popens[0].pid)[0] != "Z":
    time.sleep(0.01)
agent.reap_orphans()
assert not os.path.exists("/proc/%d" % child) and popens[0].wait() == 7
begun.set()
thread.join()
agent.reap_orphans()            # no child at all
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
@pytest.mark.parametrize("user", ["", "65534"])
def test_an_orphan_is_found_and_reaped(tmp_path, user):
    """Also one that is another user's by now: nobody else's can be a child of the agent."""
    if user and os.geteuid() != 0:
        pytest.skip("only root has processes of another user")
    script = tmp_path / "subreaper.py"
    script.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(script), os.path.dirname(agent.__file__), user],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_without_ctypes_nothing_is_taken_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctypes", None)        # its import fails
    agent.take_orphans()
