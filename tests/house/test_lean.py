"""The agent without what Python needed to compile it: how much it holds, and what it and its helpers run."""
import os
import platform
import shutil
import sys

import pytest

from conftest import AGENT, resident_mb

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")


@pytest.fixture
def plain_agent(make_agent, tmp_path):
    """An agent as a user starts it, without the interpreter's development mode, which takes memory of its own."""
    wrapper = tmp_path / "python"
    wrapper.write_text('#!/bin/sh\n[ "$1" = -X ] && shift 4\nexec "%s" "$@"\n' % sys.executable)
    wrapper.chmod(0o755)
    script = tmp_path / "app" / "agent.py"
    script.parent.mkdir()
    shutil.copy(str(AGENT), str(script))
    running = make_agent(python=str(wrapper), plain=True)
    running.script = script
    return running.start()


def test_an_idle_agent_holds_under_32_mb(plain_agent):
    assert resident_mb(plain_agent.process.pid) < 32
    assert plain_agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"


def test_it_is_the_same_process_and_says_what_it_is(plain_agent):
    with open("/proc/%d/cmdline" % plain_agent.process.pid) as file:
        words = file.read().split("\0")
    assert str(plain_agent.script) in words and "--port" in words
    assert plain_agent.ok("PING")["status"] == "READY"        # this process has the port, and no other


def test_its_code_is_that_it_began_with(plain_agent, tmp_path):
    """Helpers and minders too, when agent.py is gone or another by now."""
    (tmp_path / "a").write_text("x")
    task = {"type": "copy", "from": str(tmp_path / "a"), "to": str(tmp_path / "b")}
    plain_agent.import_document({"scenarios": [
        {"name": "COPY", "version": "1", "steps": [{"name": "s", "tasks": [task]}]},
        {"name": "KEPT", "version": "1", "on_stale": "adopt",
         "steps": [{"name": "s", "tasks": [{"type": "os", "command": "exit 0"}]}]}]})
    plain_agent.script.write_text("raise SystemExit('another program')")
    assert plain_agent.ok("EXEC COPY -SYNC")["status"] == "DONE" and (tmp_path / "b").read_text() == "x"
    plain_agent.script.unlink()
    assert plain_agent.ok("EXEC COPY -SYNC")["status"] == plain_agent.ok("EXEC KEPT -SYNC")["status"] == "DONE"


def test_no_module_of_the_working_folder_is_run(make_agent):
    running = make_agent(plain=True)
    running.folder.mkdir(exist_ok=True)
    for name in ("csv", "email", "marshal", "tempfile", "socketserver"):
        (running.folder / (name + ".py")).write_text("raise SystemExit('not the standard library')")
    running.start()
    assert running.ok("EXEC HELLO -SYNC")["status"] == "DONE"


def count_heaps(pid):
    """How many heaps of 64 MiB glibc has reserved for threads: a part in use, the rest behind it."""
    ends, count = {}, 0
    with open("/proc/%d/maps" % pid) as file:
        for line in file:
            words = line.split()
            begin, end = (int(text, 16) for text in words[0].split("-"))
            if words[1].startswith("---") and begin in ends and end - ends[begin] == 64 << 20:
                count += 1
            if words[1].startswith("rw-") and begin % (64 << 20) == 0:
                ends[end] = begin
    return count


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_many_threads_share_few_heaps(plain_agent):
    clients = [plain_agent.connect() for _ in range(20)]
    for client in clients:
        client.ok("EXEC HELLO -SYNC")
    assert count_heaps(plain_agent.process.pid) <= 2
    for client in clients:
        client.close()
