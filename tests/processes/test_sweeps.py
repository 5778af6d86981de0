"""The end of a tree of processes: chains of forks, leaders that are gone, numbers that are another's by now."""
import errno
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest

import agent
from agent import Control, Tree
from conftest import is_alive, wait_for

UUID = str(uuid.uuid4())        # of this run alone
NOBODY = 65534

# each link forks, notes its child, and ends
CHAIN = """
import os, signal, sys, time
kind, path, pause_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(int(30 / pause_s)):
    if os.fork():
        os._exit(0)
    if kind == "setsid":
        os.setsid()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b"%d\\n" % os.getpid())
    os.close(file)
    time.sleep(pause_s)
"""
# a leader that forks, as another user when there is one, and ends
LEADER = """
import os, sys, time
if os.fork():
    os._exit(0)
if sys.argv[1]:
    os.setuid(int(sys.argv[1]))
print(os.getpid(), flush=True)
os.close(1)
time.sleep(60)
"""
# waits for SIGTERM, and says by its exit code whether a file was there by then
MINDER = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(4 if os.path.exists(sys.argv[1]) else 5))
print("ready", flush=True)
signal.pause()
"""


def marked_environment(session=1001):
    return dict(os.environ, **{agent.MARKER: agent.make_marker(UUID, session, 1)})


def numbers(path):
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("kind, environment, pause_s", [
    ("plain", marked_environment(), 0.01), ("setsid", marked_environment(), 0.01), ("plain", {}, 0.01), ("plain", marked_environment(), 0.003),
    ("setsid", marked_environment(), 0.003)])
def test_a_chain_of_forks_is_ended(tmp_path, kind, environment, pause_s):
    path = tmp_path / "links"
    first = subprocess.Popen([sys.executable, "-S", "-c", CHAIN, kind, str(path), str(pause_s)], env=environment,
                             start_new_session=True)
    started = agent.start_time(first.pid)
    first.wait()
    wait_for(lambda: len(numbers(path)) > 3, "the chain to be under way")
    assert Tree(["%s/1001" % UUID], {first.pid: started}).end(0.1) == 0
    links = numbers(path)
    assert not is_alive(int(links[-1]))
    time.sleep(pause_s * 20)
    assert numbers(path) == links


@pytest.fixture
def orphan():
    """Starts a leader of an OS session that ends, and its child, which lives on: orphan(uid) -> (pid of the leader,
    of the child)."""
    made = []

    def start(uid=""):
        leader = subprocess.Popen([sys.executable, "-S", "-c", LEADER, str(uid)], stdout=subprocess.PIPE,
                                  start_new_session=True, env={})
        with leader.stdout:
            made.append(int(leader.stdout.readline()))
        leader.wait()
        return leader.pid, made[-1]
    yield start
    for pid in made:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_what_a_leader_that_is_gone_left_is_ended(orphan):
    leader, child = orphan()
    assert set(Tree([], {leader: "1"}).find()) == {child}
    assert Tree([], {leader: "1"}).end(1) == 0
    assert not is_alive(child)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has processes of another user")
def test_below_the_number_of_a_leader_that_is_gone_another_user_is_spared(orphan):
    leader, child = orphan(NOBODY)
    assert Tree([], {leader: "1"}).find() == {} and Tree([], {leader: "1"}).end(0) == 0
    assert is_alive(child)


def test_what_a_task_left_in_its_group_is_known_by_itself_once_the_leader_is_gone(orphan):
    """The number of the leader may be anybody's when the last of the group is gone."""
    leader, child = orphan()
    control = Control(agent.Clock(), "%s/1001" % UUID)
    control.add_root(leader, "1")
    control.drop_ended_roots()
    assert control._roots == {child: agent.start_time(child)}
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: not is_alive(child), "the child to be gone")
    control.drop_ended_roots()
    assert control._roots == {}


def test_a_signal_goes_to_the_process_that_was_found_and_no_other():
    other = subprocess.Popen(["sleep", "60"])
    try:
        entry = agent.read_process(other.pid)
        agent.send(entry._replace(started="1"), signal.SIGKILL)
        assert is_alive(other.pid)
        agent.send(entry, signal.SIGKILL)
        assert other.wait() == -signal.SIGKILL
    finally:
        other.kill()
        other.wait()


def test_the_os_session_of_who_sweeps_is_spared_also_below_a_member():
    """A marked process in the OS session of the agent, whose leader is the agent or above it."""
    child = subprocess.Popen(["sleep", "60"], env=marked_environment())
    bystander = subprocess.Popen(["sleep", "60"], env={})
    try:
        wait_for(lambda: agent.read_marker(child.pid), "the marker")
        assert set(Tree(["%s/1001" % UUID]).find()) == {child.pid}
    finally:
        for process in (child, bystander):
            process.kill()
            process.wait()


def test_while_the_process_table_cannot_be_read_nothing_is_taken_for_ended(monkeypatch):
    process = subprocess.Popen(["sleep", "60"], env=marked_environment(), start_new_session=True)
    tries, listdir = [], os.listdir

    def refuse(path):
        tries.append(path)
        if len(tries) < 4:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return listdir(path)
    monkeypatch.setattr(os, "listdir", refuse)
    try:
        assert Tree(["%s/1001" % UUID], {process.pid: agent.start_time(process.pid)}).end(1) == 0
        assert process.wait() == -signal.SIGTERM and len(tries) > 4
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("has_proc", [True, False])
def test_a_minder_is_ended_when_it_was_alone_for_a_while(tmp_path, monkeypatch, has_proc):
    monkeypatch.setattr(agent, "HAS_PROC", has_proc)
    monkeypatch.setattr(agent, "MINDER_S", 0.2)
    path = tmp_path / "over"
    minder = subprocess.Popen([sys.executable, "-S", "-c", MINDER, str(path)], stdout=subprocess.PIPE, start_new_session=True)
    process = subprocess.Popen(["sh", "-c", "trap 'sleep 0.3; echo > %s; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
                                % path], stdout=subprocess.PIPE, start_new_session=True)
    waiters = [threading.Thread(target=each.wait) for each in (minder, process)]     # no zombies
    try:
        for each, waiter in zip((minder, process), waiters):
            assert each.stdout.readline() == b"ready\n"
            waiter.start()
        tree = Tree([], {process.pid: agent.start_time(process.pid)}, {minder.pid: agent.start_time(minder.pid)})
        assert tree.end(20) == 0
        for waiter in waiters:
            waiter.join()
        assert (process.returncode, minder.returncode) == (3, 4)
    finally:
        for each in (minder, process):
            each.kill()
            each.stdout.close()


@pytest.mark.parametrize("error", [None, MemoryError])
def test_who_looks_at_the_process_table_looks_for_all_who_wait_for_it(monkeypatch, error):
    looks, begun, go, listings, outcomes = agent.Looks(), threading.Event(), threading.Event(), [], []
    real = agent.look
    roots = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(3)]

    def slow(searches):
        listings.append(len(searches))
        begun.set()
        assert go.wait(30)
        if error and len(listings) == 2:
            raise error
        return real(searches)

    def find(number):
        try:
            outcomes.append((number, set(Tree([], {roots[number].pid: agent.start_time(roots[number].pid)}, None, looks).find())))
        except (OSError, MemoryError) as failure:
            outcomes.append((number, type(failure)))
    monkeypatch.setattr(agent, "look", slow)
    threads = [threading.Thread(target=find, args=(number,)) for number in range(3)]
    try:
        threads[0].start()
        assert begun.wait(30)
        for thread in threads[1:]:
            thread.start()
        wait_for(lambda: len(looks._searches) == 2, "two who wait")
        go.set()
        for thread in threads:
            thread.join(30)
        assert listings == [1, 2]
        if error:
            assert (0, {roots[0].pid}) in outcomes and {what for number, what in outcomes if number} == {OSError, MemoryError}
        else:
            assert sorted(outcomes) == [(number, {roots[number].pid}) for number in range(3)]
    finally:
        go.set()
        for process in roots:
            process.kill()
            process.wait()
