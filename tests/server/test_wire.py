"""The limits on connections: how many, from where, how slow; who pays for those who misbehave, and what METRICS tells."""
import contextlib
import os
import socket
import subprocess
import sys
import threading

import pytest

import agent as program
from conftest import Client, wait_for
from support.wire import client_threads, codes

pytestmark = pytest.mark.once

TRICKLED_S = 0.05           # between two bytes of a slow client


@pytest.fixture
def bounded(inside):
    """Servers of `inside` with these limits: bounded(line_s=1)."""
    servers = []

    def make(**limits):
        servers.append(program.Server(inside.agent, "127.0.0.1", 0, program.WireLimits(**limits)))
        servers[-1].listen()
        return servers[-1]
    yield make
    for server in servers:
        server.close()


@pytest.fixture
def uids(monkeypatch):
    """Whose the clients are: a client from 127.0.0.N has uids[N], and the test's own user where there is none."""
    table, own = {}, program.find_peer_uid

    def find(connection):
        number = int(connection.getpeername()[0].rpartition(".")[2])
        return table.get(number, own(connection)) if number in table else own(connection)
    monkeypatch.setattr(program, "find_peer_uid", find)
    return table


class LocalClient(Client):
    """A connection from 127.0.0.NUMBER."""

    def __init__(self, port, number=1):
        self.socket = socket.create_connection(("127.0.0.1", port), 60, ("127.0.0.%d" % number, 0))
        self._file = self.socket.makefile("rb")


def counts_of(inside):
    """How often each limit was reached, of those that were."""
    rows = [line.partition('reached_total{limit="')[2] for line in inside.ask("METRICS") if "reached_total{" in line]
    assert len(rows) == len(program.CONNECTION_LIMITS)
    return {row.partition('"')[0]: int(row.split()[-1]) for row in rows if not row.endswith(" 0")}


def trickle(client, data=b"PING" * 10000):
    """Sends a byte now and then until the other end is closed -> what came back."""
    client.socket.settimeout(TRICKLED_S)
    received = b""
    for byte in data:
        try:
            client.socket.send(bytes([byte]))
            part = client.socket.recv(1000)
            if not part:
                return received
            received += part
        except socket.timeout:
            pass
        except OSError:
            return received
    raise AssertionError("it was never closed")


# -- how slow --------------------------------------------------------------------------

@pytest.mark.parametrize("who", ["owner", "user", "stranger"])
def test_a_byte_now_and_then_is_closed(inside, bounded, uids, who):
    server = bounded(line_s=0.6, stranger_s=0.6)
    if who == "user":
        inside.ok("USERS ADD u70001 -ROLE=monitor -OS_USER=70001")
    if who != "owner":
        uids[7] = 70001
    with LocalClient(server.port, 7) as client:
        assert trickle(client) == b""
    assert counts_of(inside) == {"line": 1}
    wait_for(lambda: not client_threads(), "its thread to end")


@pytest.mark.parametrize("who", ["owner", "user", "stranger"])
def test_who_is_silent_is_closed(inside, bounded, uids, who):
    server = bounded(idle_s=0.6, stranger_s=0.6)
    if who == "user":
        inside.ok("USERS ADD u70001 -ROLE=monitor -OS_USER=70001")
    if who != "owner":
        uids[7] = 70001
    with LocalClient(server.port, 7) as client:
        client.send("HELP PING")
        assert client.reply()[-1] == "OK"
        assert client._file.read() == b""
    with LocalClient(server.port, 7) as client:
        assert client._file.read() == b""
    assert counts_of(inside) == {"idle": 2}


def test_the_owner_may_be_silent_and_slow_by_default(inside, bounded):
    limits = program.WireLimits()
    owner, user = program.Client("administrator", "me"), program.Client("administrator", "u", "u")
    assert limits.find_patience(owner) == (None, None, None)
    assert limits.find_patience(user) == (program.IDLE_S, program.LINE_S, program.SEND_S)
    assert limits.find_patience(program.Client()) == (program.STRANGER_S,) * 3
    settings = program.parse_arguments(["--idle-timeout", "5", "--line-timeout", "6", "--send-timeout", "7",
                                        "--stranger-timeout", "8"])
    limits = program.read_limits(settings)
    assert limits.find_patience(owner) == limits.find_patience(user) == (5, 6, 7)
    assert limits.find_patience(program.Client()) == (8, 8, 8)


def test_who_asks_in_time_is_not_closed(inside, bounded):
    """Neither between requests nor while a reply is waited for."""
    inside.import_os("WAITING", "until [ -e %s ]; do sleep 0.05; done" % (inside.folder / "go"))
    server = bounded(idle_s=1.0, line_s=1.0)
    with Client(server.port) as client, Client(server.port) as waiting:
        waiting.send("EXEC WAITING -SYNC")
        for _ in range(8):
            assert client.ok("PING")
            threading.Event().wait(0.25)
        (inside.folder / "go").write_text("")
        waiting.expect("* session=* status=QUEUED", "OK session=* status=DONE *")
    assert counts_of(inside) == {}


@pytest.mark.parametrize("line", [b"HELP\n", b"PING\n"])
def test_who_does_not_take_his_replies_is_closed(inside, bounded, line):
    """By the front, too; and it is not the sum of many pieces that counts."""
    server = bounded(send_s=0.6)
    with Client(server.port) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.socket.settimeout(0.2)
        with contextlib.suppress(OSError):
            while True:                     # until nothing more is taken in
                client.send_raw(line * 1000)
        wait_for(lambda: server.connection_count == 0, "it to be closed")
    assert counts_of(inside)["send"] == 1
    with Client(server.port) as client:
        assert client.ok("PING")


# -- how many --------------------------------------------------------------------------

def test_one_address_has_so_many(inside, bounded, uids):
    uids.update({7: 70001, 8: 70001, 9: 70002})
    inside.ok("USERS ADD u70001 -ROLE=monitor -OS_USER=70001")
    server = bounded(max_per_address=3)
    with contextlib.ExitStack() as stack:
        for number, count in ((7, 3), (8, 3), (9, 3), (1, 20)):       # of the owner as many as he likes
            for _ in range(count):
                client = stack.enter_context(LocalClient(server.port, number))
                assert client.ask("HELP PING")[-1] == "OK"
            if number != 1:
                one_more = stack.enter_context(LocalClient(server.port, number))
                one_more.expect("ERR BUSY 3 connections from this address are open, the limit")
        wait_for(lambda: server.connection_count == 29, "those to be gone who were refused")
    assert counts_of(inside) == {"per_address": 3}
    wait_for(lambda: server.connection_count == 0, "all to be gone")
    with LocalClient(server.port, 7) as client:
        assert client.ok("PING")


def test_strangers_keep_neither_users_nor_the_owner_out_and_users_not_the_owner(inside, bounded, uids):
    uids.update({number: 70001 if number < 30 else 70002 for number in range(20, 60)})
    inside.ok("USERS ADD u70001 -ROLE=monitor -OS_USER=70001")
    server = bounded(max_connections=20)
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(LocalClient(server.port, 30 + number)) for number in range(5)]
        for stranger in strangers[2:]:
            stranger.expect("ERR BUSY 2 connections are open, the limit")
        users = [stack.enter_context(LocalClient(server.port, 20 + number % 10)) for number in range(18)]
        for user in users[:16]:
            assert user.ok("PING")
        for user in users[16:]:
            user.expect("ERR BUSY 18 connections are open, the limit")
        assert len(client_threads()) <= 18                  # no thread beyond the limit
        owners = [stack.enter_context(Client(server.port)) for _ in range(4)]
        assert [owner.ask("PING")[-1][:2] for owner in owners] == ["OK"] * 4
    counts = counts_of(inside)
    assert counts == {"strangers": 3, "connections": 2}


def test_who_has_said_who_he_is_is_no_stranger_any_more(inside, bounded, uids):
    uids.update({number: 70000 + number for number in range(30, 40)})
    server = bounded(max_connections=20)
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(LocalClient(server.port, 30 + number)) for number in range(2)]
        for client in first:
            assert client.err("PING") == "AUTH"
        with LocalClient(server.port, 33) as refused:
            refused.expect("ERR BUSY 2 connections are open, the limit")
        inside.ok("USERS ADD u70030 -ROLE=monitor -OS_USER=70030")
        assert first[0].ok("PING")
        with LocalClient(server.port, 34) as second:
            assert second.err("PING") == "AUTH"


def test_requests_under_way_are_bounded(inside, bounded):
    """The others are read later: all are answered, in their order."""
    server = bounded(max_requests=5)
    for sync in (b"", b"SCENARIOS\n"):
        with Client(server.port) as client:
            client.send_raw(sync + b"EXEC HELLO\n" * 40 + b"PING\n")
            replies = [client.reply() for _ in range(41 + bool(sync))][bool(sync):]
        numbers = [int(reply[0].split("=")[1].split()[0]) for reply in replies[:40]]
        assert numbers == sorted(numbers) and replies[40][0].startswith("OK agent=")
    assert counts_of(inside)["requests"] >= 2


def test_a_long_line_is_counted(inside, bounded):
    with Client(bounded(max_line=2000).port) as client:
        client.send_raw(b"PING\n" + b"x" * 3000 + b"\n")
        assert codes(client._file.read().decode().splitlines()) == ["OK", "ERR TOO_LONG"]
    assert counts_of(inside) == {"line_bytes": 1}


# -- who pays --------------------------------------------------------------------------

def test_many_that_misbehave_cost_the_others_no_thread(inside, bounded):
    """Of the owner's: silent, amid a line, gone amid one."""
    server = bounded()
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for number in range(150):
            client = stack.enter_context(Client(server.port))
            if number % 3:
                client.send_raw(b"EXEC HEL")
            if number % 3 == 2:
                client.close()
        honest = [stack.enter_context(Client(server.port)) for _ in range(10)]
        for client in honest:
            assert client.ok("PING")
        assert threading.active_count() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="netlink is Linux's")
def test_identity_asks_netlink_alone(inside, bounded, monkeypatch):
    """However many sockets the host has open: /proc/net/tcp, which lists them all, is not read."""
    asked = []
    by_netlink, by_proc = program.list_owners_by_netlink, program.list_owners_by_proc
    monkeypatch.setattr(program, "list_owners_by_netlink", lambda *ends: asked.append("netlink") or by_netlink(*ends))
    monkeypatch.setattr(program, "list_owners_by_proc", lambda *ends: asked.append("proc") or by_proc(*ends))
    if not has_netlink():
        pytest.skip("this host's kernel does not answer by netlink")
    server = bounded()
    asked.clear()
    for _ in range(5):
        with Client(server.port) as client:
            assert client.ok("PING")
    assert asked == ["netlink"] * 10


def has_netlink():
    """Whether the kernel tells by netlink who is connected."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname()) as client:
            ends = [(socket.inet_aton(name[0]), name[1]) for name in (client.getsockname(), client.getpeername())]
            return program.list_owners_by_netlink(*ends)[0] != []


def test_the_options_of_the_command_line_reach_the_port(make_agent):
    running = make_agent("--idle-timeout", "1", "--max-requests", "7").start()
    with contextlib.closing(socket.create_connection(("127.0.0.1", running.port), 60)) as silent:
        assert silent.recv(100) == b""
    with running.connect() as client:
        assert any('limit="idle"} ' in line and not line.endswith(" 0") for line in client.ask("METRICS"))
    for wrong in (("--idle-timeout", "0"), ("--max-per-address", "0"), ("--max-requests", "0"), ("--line-timeout", "x")):
        process = subprocess.run([sys.executable, str(running.script)] + list(wrong), stderr=subprocess.PIPE,
                                 env=dict(os.environ), timeout=60)
        assert process.returncode == 2 and wrong[0].encode() in process.stderr
