"""The UNIX socket: who says who asks, its file, and what may not be taken for it."""
import os
import pathlib
import socket
import subprocess
import sys

import pytest

import agent as program
from conftest import LIMIT_S, Client, wait_for
from support.client import run_client
from support.wire import client_threads

STRANGER_UID = 12345
needs_other_users = pytest.mark.skipif(os.geteuid() != 0 or not sys.platform.startswith("linux"),
                                       reason="programs of other users need root")

# argv: uid path line. Asks as this user -> what comes until the end.
ASKER = r"""
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(60)
    client.connect(sys.argv[2])
    client.sendall(sys.argv[3].encode() + b"\nQUIT\n")
    while True:
        data = client.recv(65536)
        if not data:
            break
        sys.stdout.write(data.decode())
"""


class UnixClient(Client):
    """A connection by a UNIX socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(str(path))
        self._file = self.socket.makefile("rb")


@pytest.fixture
def open_doors():
    """UnixDoors that are closed at the end: open_doors(path, mode)."""
    doors = []

    def make(path, *mode):
        doors.append(program.UnixDoor(str(path), *mode))
        return doors[-1]
    yield make
    for door in doors:
        door.close()


@pytest.fixture
def by_unix(inside, tmp_path):
    """(The path of a UNIX socket of `inside`, its Server)."""
    path = tmp_path / "agent.sock"
    server = program.Server(inside.agent, "127.0.0.1", 0, program.WireLimits())
    server.open_door(str(path), 0o666)
    server.listen()
    yield path, server
    server.close()
    assert not path.exists()


def test_what_goes_wrong_with_one_costs_the_next_nothing(by_unix, monkeypatch):
    path, server = by_unix
    admit, faults = server._admit, [MemoryError()]

    def fail_once(connection, peer):
        if faults:
            raise faults.pop()
        return admit(connection, peer)
    told = []
    monkeypatch.setattr(server, "_admit", fail_once)
    monkeypatch.setattr(server, "handle_error", lambda *_: told.append("told"))
    with UnixClient(path) as client:
        assert client.line() == ""
    with UnixClient(path) as client:
        assert client.ask("PING")[0].startswith("OK ")
    assert told == ["told"]


def ask_by_door(uid, path, line):
    """The lines of the reply that a user gets."""
    return subprocess.run([sys.executable, "-c", ASKER, str(uid), str(path), line], stdout=subprocess.PIPE, cwd="/",
                          check=True, timeout=LIMIT_S).stdout.decode().splitlines()


def test_the_owner_by_the_unix_socket(inside, by_unix):
    path, server = by_unix
    with UnixClient(path) as client:
        assert client.ok("PING")["status"] == "READY" and client.ok("EXEC HELLO")["session"]
        assert not client_threads() and server.connection_count == 1        # the front serves it, too
        assert client.ok("EXEC HELLO -SYNC")["status"] == "DONE"
        client.send("SCENARIOS")
        client.socket.shutdown(socket.SHUT_WR)
        client.expect("* repository=WORKREP *", "OK")
    wait_for(lambda: server.connection_count == 0, "it to be gone")
    assert run_client(server.port, "ping", "--unix", str(path)).out.startswith("agent=AGENT ")
    result = run_client(server.port, "ping", "--unix", str(path) + "x")
    assert result.status == 3 and "cannot connect to %sx: " % path in result.err


@pytest.mark.parametrize("is_half", [True, False])
def test_who_has_gone_is_not_waited_for_and_who_has_ended_his_input_is(inside, by_unix, is_half):
    inside.import_os("WAITING", "until [ -e %s ]; do sleep 0.05; done" % (inside.folder / "go"))
    session = inside.ok("EXEC WAITING")["session"]
    client = UnixClient(by_unix[0])
    client.send("WAIT %s" % session)
    if is_half:
        client.socket.shutdown(socket.SHUT_WR)
        (inside.folder / "go").write_text("")
        assert client.reply()[-1].startswith("OK session=%s status=DONE" % session)
    client.close()
    wait_for(lambda: by_unix[1].connection_count == 0, "the connection to end")
    (inside.folder / "go").write_text("")


@needs_other_users
def test_the_kernel_says_who_asks(inside, by_unix, tmp_path):
    path = pathlib.Path(program.tempfile.mkdtemp()) / "agent.sock"
    path.parent.chmod(0o711)
    try:
        os.link(str(by_unix[0]), str(path))             # pytest's folders are closed to others
        assert ask_by_door(STRANGER_UID, path, "PING")[0].startswith("ERR AUTH ")
        inside.ok("USERS ADD bob -ROLE=monitor -OS_USER=%d" % STRANGER_UID)
        assert ask_by_door(STRANGER_UID, path, "PING")[0].startswith("OK agent=")
        assert ask_by_door(STRANGER_UID, path, "EXEC HELLO")[0].startswith("ERR DENIED ")
        assert ask_by_door(STRANGER_UID + 1, path, "PING")[0].startswith("ERR AUTH ")
    finally:
        path.unlink()
        path.parent.rmdir()


def test_its_file(make_agent, tmp_path):
    path = tmp_path / "agent.sock"
    running = make_agent("--unix", str(path)).start()
    assert path.stat().st_mode & 0o7777 == 0o600
    with UnixClient(path) as client:
        assert client.ok("PING")["status"] == "READY"
    second = make_agent("--unix", str(path), folder="second").start(is_ready=False)
    assert second.wait() == 1 and "--unix %s: " % path in second.log()
    assert not (second.folder / "master.db").exists() and path.exists()
    running.kill()
    assert path.exists()
    running = make_agent("--unix", str(path), "--unix-mode", "0660", folder="third").start()
    assert path.stat().st_mode & 0o7777 == 0o660 and " unix=%s" % path in running.log()
    assert running.stop() == 0 and not path.exists()


@pytest.mark.parametrize("mode", ["9", "1600", "rw", ""])
def test_modes_that_are_none(make_agent, mode):
    running = make_agent("--unix-mode", mode).start(is_ready=False)
    assert running.wait() == 2 and "--unix-mode" in running.log()


def test_what_is_there_already(open_doors, tmp_path):
    file, link, folder = tmp_path / "file", tmp_path / "link", tmp_path / "folder"
    file.write_text("content")
    folder.mkdir()
    stale, live = tmp_path / "stale", tmp_path / "live"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(stale))
    link.symlink_to(stale)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(live))
        other.listen(1)
        for path, told in ((file, "which is no socket"), (link, "which is no socket"), (folder, "which is no socket"),
                           (live, "another program listens there"), (tmp_path / "no" / "way", "No such file"),
                           (tmp_path / ("x" * 120), "too long")):
            with pytest.raises(program.CannotStart, match=told):
                open_doors(path)
    assert file.read_text() == "content" and link.is_symlink() and live.exists() and stale.exists()
    assert open_doors(stale).path == str(stale)


@needs_other_users
def test_a_socket_of_another_user_stays(open_doors, tmp_path):
    path = tmp_path / "theirs"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    os.chown(str(path), STRANGER_UID, STRANGER_UID)
    with pytest.raises(program.CannotStart, match="of another user"):
        open_doors(path)
    assert path.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract names are Linux's")
def test_one_that_does_not_listen_yet_is_no_stale_one(open_doors, tmp_path):
    """An agent that is still starting."""
    path = tmp_path / "agent.sock"
    first = open_doors(path)
    with pytest.raises(program.CannotStart, match="in use"):
        open_doors(path)
    first.close()
    assert not path.exists()
    open_doors(path)


def test_another_file_of_its_name_is_left_alone(open_doors, tmp_path):
    path = tmp_path / "agent.sock"
    door = open_doors(path)
    path.unlink()
    path.write_text("content")
    door.close()
    assert path.read_text() == "content"
