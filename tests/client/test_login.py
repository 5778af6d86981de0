"""The client as a user of the agent: --user, with a password from a file or a terminal."""
import os
import pty
import re
import sys
import time

import pytest

from conftest import LIMIT_S
from support.client import PATH, objects, run_client

PASSWORD = "corréct \"horse\" $battery"


@pytest.fixture(scope="module")
def with_alice(make):
    """An agent with a user alice, who is a monitor."""
    running = make("with_alice")
    running.ok("USERS ADD alice -ROLE=monitor")
    running.ok("USERS PASSWORD alice '%s'" % PASSWORD)
    return running


def password_file(folder, text=PASSWORD, mode=0o600):
    path = folder / "password"
    path.write_bytes((text + "\n").encode())
    path.chmod(mode)
    return str(path)


def type_at_terminal(port, lines, *words):
    """Runs the client at a terminal of its own, and types a line at each prompt -> (exit status, what it showed)."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, PATH, "--port", str(port)] + list(words))
    shown, rest, until = b"", list(lines), time.monotonic() + LIMIT_S
    prompts = 0
    while time.monotonic() < until:
        try:
            data = os.read(terminal, 4096)
        except OSError:                 # its end, on Linux
            break
        if not data:
            break
        shown += data
        if rest and len(re.findall(rb"(?:password of \w+|the same again): ", shown)) > prompts:
            prompts += 1
            os.write(terminal, rest.pop(0).encode() + b"\n")
    os.close(terminal)
    return os.waitpid(pid, 0)[1] >> 8, shown.decode()


def test_a_password_from_a_file(with_alice, tmp_path):
    login = ("--user", "alice", "--password-file", password_file(tmp_path))
    assert run_client(with_alice.port, *login, "ping").status == 0
    assert run_client(with_alice.port, "scenarios", *login, "--json").status == 0
    refused = run_client(with_alice.port, "exec", "HELLO", *login)
    assert (refused.status, refused.out) == (4, "") and "ERR DENIED" in refused.err


def test_a_wrong_password_is_refused(with_alice, tmp_path):
    path = password_file(tmp_path, "nonsense")
    result = run_client(with_alice.port, "ping", "--user", "alice", "--password-file", path)
    assert (result.status, result.out) == (4, "") and "ERR AUTH" in result.err and "nonsense" not in result.err


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_read_is_refused(with_alice, tmp_path, mode):
    path = password_file(tmp_path, mode=mode)
    result = run_client(with_alice.port, "ping", "--user", "alice", "--password-file", path)
    assert result.status == 2 and "chmod 600" in result.err and PASSWORD not in result.err


def test_files_that_have_none(with_alice, tmp_path):
    for path in (str(tmp_path / "absent"), str(tmp_path), password_file(tmp_path, "")):
        result = run_client(with_alice.port, "ping", "--user", "alice", "--password-file", path)
        assert (result.status, result.out) == (2, "") and len(result.err.splitlines()) == 1
    assert run_client(with_alice.port, "ping", "--password-file", path).status == 2


def test_without_a_terminal_nobody_is_asked(with_alice):
    result = run_client(with_alice.port, "ping", "--user", "alice", input=PASSWORD.encode(), start_new_session=True)
    assert result.status == 2 and "no terminal" in result.err and PASSWORD not in result.err + result.out


def test_a_password_is_asked_for_and_not_shown(with_alice):
    status, shown = type_at_terminal(with_alice.port, [PASSWORD], "ping", "--user", "alice")
    assert status == 0 and "status=READY" in shown and PASSWORD not in shown
    status, shown = type_at_terminal(with_alice.port, ["nonsense"], "ping", "--user", "alice")
    assert status == 4 and "ERR AUTH" in shown and "nonsense" not in shown


def test_a_new_password_is_typed_twice_and_never_stands_on_the_command_line(with_alice, tmp_path):
    added, = objects(run_client(with_alice.port, "users", "add", "bob", "--role", "operator", "--json"))
    once = added["password"]
    path = password_file(tmp_path, once)
    login = ("--user", "bob", "--password-file", path)
    told = run_client(with_alice.port, "ping", *login)
    assert told.status == 4 and "users password" in told.err
    status, shown = type_at_terminal(with_alice.port, ["one password", "another one"], "users", "password", "bob", *login)
    assert status == 2 and "nothing was changed" in shown
    status, shown = type_at_terminal(with_alice.port, ["one password"] * 2, "users", "password", "bob", *login)
    assert status == 0 and "one password" not in shown
    assert run_client(with_alice.port, "ping", *login).status == 4
    password_file(tmp_path, "one password")
    assert run_client(with_alice.port, "ping", *login).status == 0
    refused = run_client(with_alice.port, "users", "password", "bob", "the third one")
    assert refused.status == 2 and "third" not in refused.err
    (tmp_path / "new").mkdir()
    new = password_file(tmp_path / "new", "the third one")
    assert run_client(with_alice.port, "users", "password", "bob", "--new-password-file", new, *login).status == 0
    password_file(tmp_path, "the third one")
    assert run_client(with_alice.port, "ping", *login).status == 0
