"""What an agent costs that has little to do, or much to wait for: counted, not timed."""
import glob
import os
import re
import subprocess
import sys
import time

import pytest

from conftest import TOP, wait_for

pytestmark = [pytest.mark.once, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells it")]
SESSIONS = 500
# modules of which a start without users and TLS needs none, by their names, and by those of files that a process has
# mapped: each takes memory, OpenSSL the most
MODULES = ("hashlib", "hmac", "uuid", "platform", "zipfile", "ipaddress", "zoneinfo", "ssl", "ctypes", "email", "smtplib",
           "http", "urllib.request", "mimetypes", "encodings.idna", "decimal", "pickle", "unittest", "asyncio")
LIBRARIES = ("libcrypto", "libssl", "_hashlib", "_uuid", "unicodedata", "_decimal")
# argv: the folder of agent.py, or nothing. The modules of a bare Python and, with a folder, of the agent
LOAD = """
import sys
import concurrent.futures, sqlite3, tempfile, urllib.parse      # what they draw in themselves depends on the Python
if sys.argv[1:]:
    sys.path.insert(0, sys.argv[1])
    import agent
print(*sys.modules)
"""


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


def modules_of(*arguments):
    """Names of modules that a new process has loaded."""
    return set(subprocess.check_output([sys.executable, "-c", LOAD] + list(arguments)).decode().split())


def libraries_of(pid):
    """Those of LIBRARIES that a process has mapped."""
    with open("/proc/%s/maps" % pid) as file:
        maps = file.read()
    return {name for name in LIBRARIES if "/%s." % name in maps}


def test_modules_that_a_start_does_not_need():
    """They are imported where they are used."""
    assert modules_of(str(TOP)) & set(MODULES) <= modules_of() & set(MODULES)


def test_libraries_that_an_agent_without_users_does_not_need(make_agent):
    """Neither to start nor to run a session. With a user, passwords are hashed by OpenSSL, and from the next start on
    it is there at once."""
    bare = subprocess.Popen([sys.executable, "-c", LOAD + "sys.stdout.flush(); sys.stdin.read()"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with bare:
        assert bare.stdout.readline()
        inevitable = libraries_of(bare.pid)
        bare.stdin.close()
    running = make_agent().start()
    assert running.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert libraries_of(running.process.pid) <= inevitable
    running.ask("USERS ADD EVE -ROLE=monitor -PASSWORD")
    with_password = libraries_of(running.process.pid)
    assert running.stop() == 0
    running.start()
    assert with_password - inevitable <= libraries_of(running.process.pid)
