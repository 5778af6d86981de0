"""Users at the port of a running agent: other users of the host, passwords, and no owner."""
import os
import shutil
import socket

import pytest

from conftest import program
from support.other_user import NOBODY, OtherUser

needs_root = pytest.mark.skipif(os.getuid() != 0 or not shutil.which("bash"), reason="needs root, and bash")


@needs_root
def test_another_os_user_is_auth_until_he_is_let_in(shared):
    with OtherUser(shared.port) as guest:
        assert guest.err("PING") == "AUTH"
        assert guest.ask("QUITE")[0].startswith("ERR UNKNOWN_VERB")
        shared.ok("USERS ADD guest -ROLE=monitor -SCENARIOS=LOAD_* -OS_USER=%d" % NOBODY)
        assert guest.ok("PING")["agent"] == "AGENT"             # on the connection that is open
        assert guest.err("EXEC HELLO") == "DENIED" and guest.rows("SCENARIOS") == []
        with OtherUser(shared.port) as second:
            assert second.ok("PING")
            shared.ok("USERS DEL guest")
            assert guest.err("PING") == second.err("PING") == "AUTH"


@needs_root
def test_another_os_user_with_a_password(shared):
    once = shared.ok("USERS ADD alice -ROLE=operator")["password"]
    with OtherUser(shared.port) as guest:
        assert guest.err("AUTH alice nonsense") == "AUTH"
        assert guest.ok("AUTH alice %s" % once)["role"] == "operator"
        assert guest.err("EXEC HELLO") == "DENIED"
        guest.ok("USERS PASSWORD alice 'correct horse'")
        session = guest.ok("EXEC HELLO -SYNC")["session"]
        assert shared.status(session)["by"] == "alice" and guest.err("SHUTDOWN") == "DENIED"
    with shared.connect() as own:
        assert own.ok("AUTH alice 'correct horse'") and own.err("SHUTDOWN") == "DENIED"
    text = shared.log()
    assert once not in text and "correct horse" not in text


def test_an_administrator_by_password_imports_and_executes_quickly(shared):
    """What he asks is served as what the owner asks: long lines, and a pipeline of EXECs in their order."""
    shared.ok("USERS ADD boss -ROLE=administrator")
    shared.ok("USERS PASSWORD boss 'correct horse'")
    with shared.connect() as boss:
        boss.ok("AUTH boss 'correct horse'")
        boss.import_os("LONG", *["echo %s" % ("x" * 1000)] * 100)
        boss.send_raw(b"EXEC HELLO\n" * 20 + b"PING\n")
        sessions = [int(boss.reply()[-1].split("session=")[1].split()[0]) for _ in range(20)]
        assert sessions == sorted(set(sessions)) and boss.reply()[-1].startswith("OK agent=")
        boss.send_raw(b"USERS DEL boss\nPING\n")
        boss.expect("OK user=boss")
        boss.expect("ERR AUTH *")


def test_no_owner(make_agent):
    running = make_agent().start()
    running.ok("USERS ADD root2 -ROLE=administrator")
    running.ok("USERS PASSWORD root2 'correct horse'")
    assert running.stop() == 0
    running = make_agent("--no-owner").start()
    assert running.err("PING") == "AUTH"
    running.ok("AUTH root2 'correct horse'")
    assert running.err("USERS DEL root2") == "CONFLICT"
    running.send("SHUTDOWN -IMMEDIATE")
    running.expect("OK")
    assert running.wait() == 0


def test_no_owner_without_an_administrator_cannot_start(make_agent):
    running = make_agent("--no-owner").start(is_ready=False)
    assert running.wait() == 1
    (line,) = running.log().splitlines()
    assert line.startswith("agent.py: --no-owner: ") and "USERS ADD" in line


def test_who_is_known_may_be_silent_for_long():
    """A line of one whom the agent does not know has its time; from AUTH on it has as much as it wants."""
    here, there = socket.socketpair()
    limits = [30.0, None, 30.0]
    lines = program.Lines(here, lambda: limits.pop(0))
    timeouts = []
    for _ in range(3):
        there.sendall(b"PING\n")
        assert lines.read(lambda start: 100) == b"PING"
        timeouts.append(here.gettimeout())
    assert timeouts == [30.0, None, 30.0]
    here.close()
    there.close()
