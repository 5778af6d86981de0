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


@needs_root
def test_an_administrator_of_another_os_user_is_demoted_at_once(shared):
    """His EXECs are served as the owner's are, and end with his role."""
    shared.ok("USERS ADD deputy -ROLE=administrator -OS_USER=%d" % NOBODY)
    with OtherUser(shared.port) as deputy:
        assert deputy.ok("EXEC HELLO") and deputy.ok("PING") and deputy.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    with OtherUser(shared.port) as deputy:
        assert deputy.ok("EXEC HELLO")
        shared.ok("USERS SET deputy -ROLE=monitor")
        assert deputy.err("EXEC HELLO") == "DENIED" and deputy.ok("PING")
        shared.ok("USERS DEL deputy")
        assert deputy.err("EXEC HELLO") == deputy.err("PING") == "AUTH"


def test_what_follows_auth_in_one_packet_is_asked_by_that_user(shared):
    shared.ok("USERS ADD looker -ROLE=monitor")
    shared.ok("USERS PASSWORD looker 'correct horse'")
    with shared.connect() as owner:
        owner.send_raw(b"EXEC HELLO\nAUTH looker 'correct horse'\nEXEC HELLO\nPING\n")
        owner.expect("OK session=* status=*")
        owner.expect("OK user=looker role=monitor")
        owner.expect("ERR DENIED *")
        owner.expect("OK agent=*")
    with shared.connect() as owner:             # a failure leaves him who he was
        owner.send_raw(b"AUTH looker wrong\nEXEC HELLO\n")
        owner.expect("ERR AUTH *")
        owner.expect("OK session=* status=*")


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
    lines = program.Lines(here, lambda: program.Patience(limits[0], limits[0]))
    timeouts = []
    while limits:
        there.sendall(b"PING\n")
        assert lines.read(lambda start: 100) == b"PING"
        timeouts.append(here.gettimeout())
        limits.pop(0)
    assert timeouts[1] is None and 0 < timeouts[0] <= 30 and 0 < timeouts[2] <= 30
    here.close()
    there.close()
