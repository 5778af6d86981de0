"""The port: who can have it, how many connections it takes, and what one too many is told."""
import os
import socket
import subprocess
import sys
import time

import pytest

import agent as program
from conftest import wait_for

needs_root = pytest.mark.skipif(os.geteuid() != 0 or not sys.platform.startswith("linux"),
                                reason="programs of other users need root")
STRANGER = 12345

# argv: uid port. Binds and listens in every way that Linux has -> a line for each: in which way it listens.
THIEF = r"""
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
for host in ("127.0.0.1", "0.0.0.0", "::"):
    for flags in ((), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)):
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as thief:
                for flag in flags:
                    thief.setsockopt(socket.SOL_SOCKET, flag, 1)
                thief.bind((host, int(sys.argv[2])))
                thief.listen(5)
                print(host, flags)
        except OSError:
            pass
"""

# argv: uid port count. Opens connections, says so, and sends a byte on each now and then until its input ends.
CROWD = r"""
import os, select, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
crowd = []
for _ in range(int(sys.argv[3])):
    crowd.append(socket.socket())
    crowd[-1].connect(("127.0.0.1", int(sys.argv[2])))
print("here", flush=True)
while not select.select([sys.stdin], [], [], 0.2)[0]:
    for one in crowd:
        try:
            one.send(b"P")
        except OSError:
            pass
os._exit(0)
"""


class NoAgent:
    """What a Server wants of an agent that nobody asks anything."""
    connections = None

    def __init__(self):
        self.access = program.Access(program.parse_arguments([]), None)
        self.reached = program.Reached()


@pytest.fixture
def bind():
    """Servers that are bound and do not listen yet: bind(port)."""
    servers = []

    def make(port=0, host="127.0.0.1", **limits):
        servers.append(program.Server(NoAgent(), host, port, program.WireLimits(10, 1024, **limits)))
        return servers[-1]
    yield make
    for server in servers:
        server.close(0.0)


def steal(port):
    """The ways in which another user can listen on a port."""
    return subprocess.run([sys.executable, "-c", THIEF, str(STRANGER), str(port)], stdout=subprocess.PIPE, check=True,
                          cwd="/").stdout.decode().splitlines()


def leave_time_wait(server):
    """A connection that the server has closed first: the kernel keeps its ends for a minute."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(b"HELP\x01\n")       # not well-formed: the server closes
        while client.recv(65536):
            pass


# -- whose the port is -----------------------------------------------------------------

@needs_root
def test_no_other_user_can_listen_before_the_agent_does(bind):
    first = bind()
    assert steal(first.port) == []
    first.listen()
    leave_time_wait(first)
    first.close()
    again = bind(first.port)                # a restart: what the first has left does not keep it out
    assert steal(again.port) == []
    again.listen()
    with socket.create_connection(("127.0.0.1", again.port), 10):
        pass


@pytest.mark.parametrize("host, addresses", [
    ("127.0.0.1", ["127.0.0.1"]), ("::1", ["::1"]), ("localhost", ["127.0.0.1", "::1"])])
def test_the_address_of_a_host(host, addresses):
    assert program.find_address(host) in addresses


@pytest.mark.parametrize("host", ["", "a" * 70, "a..b", "\u00fc..x", "\u00fc" * 70, "\udcff"])
def test_a_text_that_is_no_name_of_a_host(host):
    """Neither as it is nor in letters of ASCII."""
    with pytest.raises(program.CannotStart, match="--host"):
        program.find_address(host)


def test_one_agent_of_a_user_has_a_port(bind):
    first = bind()
    for _ in range(3):
        with pytest.raises(program.CannotStart, match="cannot be taken"):
            bind(first.port)
    first.listen()
    with pytest.raises(program.CannotStart, match="cannot be taken"):
        bind(first.port)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract names are Linux's")
def test_all_addresses_are_those_of_others_too(bind):
    """The kernel would let one user share them."""
    one, every = bind(), bind(host="0.0.0.0")
    for port, host in ((one.port, "0.0.0.0"), (every.port, "127.0.0.1"), (every.port, "127.0.0.2")):
        with pytest.raises(program.CannotStart, match="cannot be taken"):
            bind(port, host)
    bind(one.port, "127.0.0.2")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract names are Linux's")
@pytest.mark.parametrize("uid", [os.geteuid(), pytest.param(STRANGER, marks=needs_root)])
@pytest.mark.parametrize("is_listening", [False, True])
def test_the_name_of_the_agent_held_by_a_stranger(bind, uid, is_listening):
    """It keeps nobody from starting, unless it is the user's own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = ("import os, socket, sys; uid = int(sys.argv[1]); os.setgid(uid); os.setuid(uid);"
            "name = socket.socket(socket.AF_UNIX); name.bind('\\0agent.py:127.0.0.1:' + sys.argv[2]);"
            "int(sys.argv[3]) and name.listen(1); print('here', flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code, str(uid), str(port), str(int(is_listening))], cwd="/",
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        if uid == os.geteuid() and is_listening:
            with pytest.raises(program.CannotStart, match="cannot be taken"):
                bind(port)
        else:
            bind(port).listen()
            with pytest.raises(program.CannotStart, match="cannot be taken"):
                bind(port)
        holder.stdin.close()


# -- how many --------------------------------------------------------------------------

@needs_root
def test_strangers_never_keep_the_owner_out(make_agent):
    running = make_agent("--max-connections", "20").start()
    with subprocess.Popen([sys.executable, "-c", CROWD, str(STRANGER), str(running.port), "100"], cwd="/",
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as crowd:
        crowd.stdout.readline()
        owners = [running.connect() for _ in range(19)]         # and that of the fixture
        assert all(owner.ok("PING")["status"] == "READY" for owner in owners)
        with running.connect() as one_too_many:
            one_too_many.expect("ERR BUSY 20 connections are open, the limit")
        for owner in owners:
            owner.close()
        crowd.stdin.close()


@needs_root
def test_a_stranger_has_so_long_for_a_line(bind):
    """Not so long for each byte of it."""
    server = bind(stranger_s=0.5)
    server.listen()
    with subprocess.Popen([sys.executable, "-c", CROWD, str(STRANGER), str(server.port), "1"], cwd="/",
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as crowd:
        crowd.stdout.readline()
        wait_for(lambda: server.connection_count == 0, "the stranger to be sent away")
        crowd.stdin.close()


def flood_port(running, count, line):
    """Connections that each ask for this -> those that wait for their reply, and the replies of the others."""
    clients, waiting, replies = [], [], []
    for _ in range(count):
        clients.append(socket.create_connection(("127.0.0.1", running.port), 60))
        clients[-1].sendall(line)
    time.sleep(0.2)
    for client in clients:
        client.settimeout(0.02)
        try:
            replies.append(client.recv(1000).decode())
        except socket.timeout:
            waiting.append(client)
        except ConnectionError:
            replies.append("reset")
    return clients, waiting, replies


def test_few_files(make_agent, tmp_path):
    """A connection too many is told BUSY, and the agent has what it needs itself."""
    wrapper = tmp_path / "python"
    wrapper.write_text('#!/bin/sh\nulimit -n 64\nexec "%s" "$@"\n' % sys.executable)
    wrapper.chmod(0o755)
    running = make_agent(python=str(wrapper)).start()
    running.import_os("LONG", "sleep 100")
    session = running.ok("EXEC LONG")["session"]
    clients, waiting, replies = flood_port(running, 100, b"WAIT %s\n" % session.encode())
    try:
        assert waiting and len(replies) >= 50  # how many get in depends on what the agent has open itself
        assert all(reply.startswith("ERR BUSY ") for reply in replies), set(replies)
        assert running.ok("EXEC HELLO -SYNC")["status"] == "DONE"
        assert running.ok("STOP %s -IMMEDIATE" % session)["status"] == "STOPPED"
        for client in waiting:
            client.settimeout(60)
            assert client.recv(1000).startswith(b"OK session=%s status=STOPPED" % session.encode())
    finally:
        for client in clients:
            client.close()
    assert "Too many open files" not in running.log()
