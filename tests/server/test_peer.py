"""Who is at the other end of a loopback connection: the kernel's word, asked in both ways, and what an agent makes of it."""
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

import pytest

import agent
import conftest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel is asked on Linux only")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="clients of other users need root")
needs_setpriv = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")

NOBODY = 65534
LOOPBACKS = ["127.0.0.1", "::1", "::ffff:127.0.0.1"]

# argv: uid host port behaviour count. It changes its user after the start, as nobody cannot read every Python.
# A line on standard output says that the behaviour is carried out; the end of standard input ends it.
CLIENT = r"""
import os, socket, struct, sys
uid, host, port, behaviour, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
if uid != os.getuid():
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
for _ in range(count):
    connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if behaviour == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.connect((host, port))
    name = connection.getsockname()[1]
    connection.sendall(b"EXEC HELLO\n")
    if behaviour == "half_close":
        connection.shutdown(socket.SHUT_WR)
    elif behaviour != "stay":
        connection.close()
print(name, flush=True)
sys.stdin.read()
os._exit(0)
"""


class ClientProcess:
    """A process of another (or the own) user that connects `count` times and then stays until `end()`."""

    def __init__(self, address, behaviour, uid, host=None, count=1):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(uid), host or address[0], str(address[1]), behaviour, str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def port(self):
        """Waits until it has done what it should; the port of its last connection."""
        return int(self.process.stdout.readline())

    def end(self):
        """Lets it exit, waits for it."""
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(30) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.end()
        self.process.stdin.close()
        self.process.stdout.close()


def listen(host):
    """A listener on a free port."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.settimeout(30)
        if ":" in host:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, 0))
        listener.listen(128)
    except OSError:
        listener.close()
        pytest.skip("no " + host)
    return listener


def connect(listener, source_port=0, device=None):
    """A connection of this process to the listener, from a chosen port and device."""
    name = listener.getsockname()
    client = socket.socket(listener.family)
    client.settimeout(30)
    if device:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    if source_port:
        client.bind((name[0], source_port))
    client.connect(name)
    return client


@pytest.fixture(params=["netlink", "proc"])
def source(request, monkeypatch):
    """Both ways to ask; a family that does not exist fails as NETLINK does in a sandbox."""
    if request.param == "proc":
        monkeypatch.setattr(socket, "AF_NETLINK", 255)
    return request.param


@pytest.fixture(params=LOOPBACKS)
def listener(request):
    """A listener on each loopback address."""
    with listen(request.param) as made:
        yield made


# -- the kernel's word -----------------------------------------------------------------

@pytest.mark.parametrize("address, expected", [
    ("127.0.0.1", True), ("127.255.3.4", True), ("::1", True), ("::ffff:127.0.0.1", True), ("::ffff:7f01:203", True),
    ("128.0.0.1", False), ("0.0.0.0", False), ("::", False), ("::2", False), ("::127.0.0.1", False), ("127.1", False),
    ("::ffff:10.0.0.1", False), ("fe80::1%lo", False), ("7f00::1", False), ("localhost", False), ("", False),
    ("127.0.0.1\0", False), ("\ud800", False), ("64:ff9b::127.0.0.1", False)])
def test_loopback_addresses(address, expected):
    assert agent.is_loopback(address) is expected


def test_own_user(listener, source):
    with connect(listener) as client, listener.accept()[0] as connection:
        assert agent.find_peer_uid(connection) == os.geteuid()
        assert agent.find_peer_uid(client) == os.geteuid()


@needs_root
@pytest.mark.parametrize("behaviour", ["stay", "half_close"])
def test_another_user_until_its_process_exits(listener, source, behaviour):
    with ClientProcess(listener.getsockname(), behaviour, NOBODY) as client:
        client.port()
        with listener.accept()[0] as connection:
            assert agent.find_peer_uid(connection) == NOBODY
            client.end()
            assert agent.find_peer_uid(connection) is None


@needs_root
def test_ipv4_client_of_a_listener_on_all_addresses(source):
    with listen("::") as listener:
        for host in LOOPBACKS + ["127.9.8.7"]:
            with ClientProcess(listener.getsockname(), "stay", NOBODY, host) as client, listener.accept()[0] as connection:
                client.port()
                assert agent.find_peer_uid(connection) == NOBODY


def test_other_addresses_of_this_host_are_not_loopback(source):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))     # sends nothing: it only chooses the source address
        except OSError:
            pytest.skip("no network")
        host = probe.getsockname()[0]
    with listen(host) as listener, connect(listener), listener.accept()[0] as connection:
        assert agent.find_peer_uid(connection) is None


@needs_root
@pytest.mark.parametrize("behaviour", ["close", "reset"])
def test_client_that_closes_at_once_is_itself_or_nobody(listener, source, behaviour):
    count = 300 if source == "netlink" else 30
    with ClientProcess(listener.getsockname(), behaviour, NOBODY, count=count) as client:
        for _ in range(count):
            with listener.accept()[0] as connection:
                assert agent.find_peer_uid(connection) in (NOBODY, None)
        client.port()


@needs_root
def test_port_of_a_client_that_reset_now_held_by_us(listener, source):
    """What accept() gave is the first one's connection, with its address and its bytes."""
    for _ in range(50):
        with ClientProcess(listener.getsockname(), "reset", NOBODY) as client:
            port = client.port()
        dead = listener.accept()[0]
        try:
            own = connect(listener, port)
        except OSError:                         # some other program was faster to take it
            dead.close()
            continue
        with own, dead, listener.accept()[0] as connection:
            assert dead.recv(100) == b"EXEC HELLO\n"
            assert agent.find_peer_uid(dead) is None
            assert connection.getpeername()[1] == port
            assert agent.find_peer_uid(connection) == os.geteuid()
            return
    pytest.skip("the port of a client was always taken")


@needs_root
def test_client_bound_to_the_device(listener, source):
    with connect(listener, device=b"lo\0"), listener.accept()[0] as connection:
        assert agent.find_peer_uid(connection) == os.geteuid()


def test_sockets_that_are_no_accepted_connection(source):
    with listen("127.0.0.1") as listener:
        assert agent.find_peer_uid(listener) is None
    assert agent.find_peer_uid(listener) is None        # closed
    for one in socket.socketpair():
        with one:
            assert agent.find_peer_uid(one) is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(("127.0.0.1", 9))
        assert agent.find_peer_uid(datagrams) is None


def test_no_descriptor_is_kept(source):
    with listen("127.0.0.1") as listener, connect(listener), listener.accept()[0] as connection:
        before = os.listdir("/proc/self/fd")
        for _ in range(5):
            agent.find_peer_uid(connection)
        assert os.listdir("/proc/self/fd") == before


def test_both_sources_say_the_same(listener):
    with connect(listener) as client, listener.accept()[0] as connection:
        ends = [(agent.find_packed_loopback(name[0]), name[1])
                for name in (connection.getpeername(), connection.getsockname())]
        expected = tuple([(os.geteuid(), os.fstat(one.fileno()).st_ino)] for one in (client, connection))
        assert agent.list_owners_by_proc(*ends) == expected
        assert agent.list_owners_by_netlink(*ends) in (expected, ([], []))      # the latter where it is refused


def test_answers_about_anything_else_are_refused():
    local, remote = (b"\x7f\0\0\1", 40000), (b"\x7f\0\0\1", 20910)

    def reply(kind=20, number=40000, state=1, ends=(40000, 20910, local[0], remote[0]), inode=99):
        return (struct.pack("=IHHII", 88, kind, 0, number, 1) + struct.pack("=BBBB", socket.AF_INET, state, 0, 0)
                + struct.pack("!HH16s16s", *ends) + struct.pack("=IIIIIIII", 0, 0, 0, 0, 0, 0, 1000, inode))
    assert agent.read_diag_reply(reply(), local, remote) == [(1000, 99)]
    assert agent.read_diag_reply(reply(state=2), local, remote) == [(1000, 0)]       # SYN_SENT
    assert agent.read_diag_reply(reply(state=6), local, remote) == [(1000, 0)]       # TIME_WAIT
    for other in (reply(kind=2), reply(number=20910), reply()[:87], reply(ends=(40000, 0, local[0], b"")),
                  reply(ends=(20910, 40000, local[0], remote[0])),
                  reply(ends=(40000, 20910, b"\x7f\0\0\2", remote[0]))):
        assert agent.read_diag_reply(other, local, remote) == []


def test_choice_among_owners():
    assert agent.choose_uid([(1000, 5)]) == 1000
    for doubtful in ([], [(0, 0)], [(1000, 0)], [(1000, 5), (0, 6)], [(0, 0), (1000, 5)]):
        assert agent.choose_uid(doubtful) is None


def test_forms_of_an_end_in_proc():
    (words,) = struct.unpack("=I", b"\x7f\0\0\1")
    expected = "%08X" % words
    assert agent.format_proc_ends((b"\x7f\0\0\1", 80), (b"\x7f\0\0\1", 0xABCD)).split("|")[0] == \
        "{0}:0050 {0}:ABCD".format(expected)
    mapped = "0" * 16 + "%08X" % struct.unpack("=I", b"\0\0\xff\xff") + expected
    assert agent.format_proc_ends((b"\x7f\0\0\1", 80), (b"\x7f\0\0\1", 0xABCD)).split("|")[1] == \
        "{0}:0050 {0}:ABCD".format(mapped)


@needs_root
def test_user_whom_the_namespace_does_not_map():
    """There everybody looks like 65534, so an agent that runs as such must not take anybody for itself."""
    code = ("import socket, sys; sys.path[:0] = sys.argv[1:]; import agent; listener = socket.socket();"
            "listener.bind(('127.0.0.1', 0)); listener.listen(1); client = socket.socket();"
            "client.connect(listener.getsockname()); print(agent.find_peer_uid(listener.accept()[0]))")
    try:
        answer = subprocess.check_output(["unshare", "--user", sys.executable, "-W", "ignore", "-c", code,
                                          str(conftest.TOP)], stderr=subprocess.DEVNULL, timeout=conftest.LIMIT_S)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no user namespaces here")
    assert answer.split() == [b"None"]


# -- what an agent makes of it ---------------------------------------------------------

@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A running agent that gets a session from its own user alone."""
    running = conftest.AgentProcess(tmp_path_factory.mktemp("peer")).start()
    try:
        yield running
        assert running.rows("SESSIONS -LIMIT=1000") == []       # nothing has run in any of these tests
    finally:
        running.finish()
    log = running.log()
    assert "Traceback" not in log and "Warning:" not in log, log


def as_nobody(running, data):
    """What the agent answers these bytes from another OS user; bash speaks, as nobody cannot read every Python."""
    script = 'exec 3<>/dev/tcp/127.0.0.1/%d; printf "%%b" "$0" >&3; cat <&3' % running.port
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", script, data],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd="/",
                          timeout=conftest.LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


@needs_setpriv
def test_another_user_is_asked_who_it_is(private):
    answers = as_nobody(private, "PING\\nQUIT\\n")
    assert len(answers) == 2 and answers[0].startswith("ERR AUTH ") and answers[1] == "OK"


@needs_setpriv
def test_every_verb_but_help_and_quit_wants_to_know_who_asks(private):
    """Whatever stands behind the verb: nothing is told of the scenarios, sessions and files there are."""
    names = [name for name in agent.VERBS if name.split()[0] not in ("HELP", "QUIT", "AUTH")]
    lines = [form % name for name in names for form in ("%s", "%s HELLO", "%s 1001", "%s -NOPE")]
    answers = as_nobody(private, "".join(line + "\\n" for line in lines + ["HELP PING", "QUIT"]))
    assert len(answers) == len(lines) + 3
    for line, answer in zip(lines, answers):
        assert answer.startswith("ERR AUTH "), (line, answer)
    assert answers[-3:] == ["* PING: " + agent.VERBS["PING"].help, "OK", "OK"]


@needs_setpriv
def test_an_import_of_another_user_has_the_short_limit(private):
    assert [line.split()[1] for line in as_nobody(private, "IMPORT " + "x" * 66000 + "\\n")] == ["TOO_LONG"]


@needs_root
@pytest.mark.parametrize("behaviour", ["close", "reset", "half_close", "stay"])
def test_nothing_runs_for_another_user_who_closes_at_once(private, behaviour):
    """Asked when the connection is accepted: a client that is gone is nobody, never root and never the own user."""
    with ClientProcess(("127.0.0.1", private.port), behaviour, NOBODY, count=300) as client:
        client.port()
    assert private.ok("PING")["status"] == "READY"
    assert private.rows("SESSIONS -LIMIT=1") == []


@needs_setpriv
def test_an_agent_of_another_user_serves_that_user_and_root(make_agent, request):
    """The own OS user of the agent, and root, are administrators without more."""
    # not tmp_path: pytest takes the folders above it from other users whenever it starts
    top = pathlib.Path(tempfile.mkdtemp(prefix="agent-of-nobody-"))
    request.addfinalizer(lambda: shutil.rmtree(str(top)))
    folder = top / "repo"
    folder.mkdir()
    reachable = subprocess.call(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c",
                                 "import sys; open(sys.argv[1]).close()", str(conftest.TOP / "agent.py")],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    if reachable != 0:
        pytest.skip("another user cannot run this Python")
    for each in (folder, top):
        os.chmod(str(each), 0o755)
    os.chown(str(folder), NOBODY, NOBODY)
    wrapper = top / "python"
    wrapper.write_text('#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups "%s" "$@"\n' % sys.executable)
    wrapper.chmod(0o755)
    running = make_agent(python=str(wrapper), folder=str(folder)).start()
    request.addfinalizer(running.finish)
    assert running.ok("PING")["status"] == "READY"                      # of root
    assert as_nobody(running, "PING\\nQUIT\\n")[0].startswith("OK agent=")
    assert running.ok("EXEC HELLO -SYNC")["status"] == "DONE"
