"""What an agent costs that has little to do, or much to wait for: counted, not timed."""
import glob
import os
import re
import sys
import time

import pytest

from conftest import wait_for

pytestmark = [pytest.mark.once, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells it")]
SESSIONS = 500


def wakings_of(pid):
    """How often the threads of a process have gone to sleep and been woken so far."""
    count = 0
    for path in glob.glob("/proc/%d/task/*/status" % pid):
        with open(path) as file:
            count += int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", file.read()).group(1))
    return count


def test_wakings_of_an_idle_agent(make_agent):
    """About 500 a minute: it looks after its files and processes, and nothing else."""
    running = make_agent().start()
    assert running.ok("PING")["running"] == "0"
    wait_for(lambda: running.ok("EXEC HELLO -SYNC")["status"] == "DONE", "a session")
    time.sleep(2)                       # what follows its end
    before, begun = wakings_of(running.process.pid), time.monotonic()
    time.sleep(6)
    count, seconds = wakings_of(running.process.pid) - before, time.monotonic() - begun
    assert 0 < count * 60 / seconds < 1200, (count, seconds)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="a thread waits for each process")
def test_threads_of_running_sessions(make_agent):
    """None for a session whose process runs, and none for the process and its pipes."""
    running = make_agent("--max-sessions", str(SESSIONS)).start()
    running.import_os("NAP", "exec sleep 300")
    running.client.send_raw(b"EXEC NAP\n" * SESSIONS)
    for _ in range(SESSIONS):
        assert running.client.reply()[-1].startswith("OK session=")
    wait_for(lambda: running.ok("PING")["running"] == str(SESSIONS), "the sessions to run")
    wait_for(lambda: all("status=RUNNING" in line for line in running.ask("SESSIONS -LIMIT=%d" % SESSIONS)[:-1]),
             "their records")
    threads = len(os.listdir("/proc/%d/task" % running.process.pid))
    assert threads <= 40, threads
    assert running.ok("SHUTDOWN -IMMEDIATE") == {}
    assert running.process.wait(60) == 0
