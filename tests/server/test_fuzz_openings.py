"""How a connection may begin, by a seeded generator (see test_fuzz.py): damaged and divided beginnings of TLS, garbage
behind its first byte or amid it, plain lines where TLS is due, TLS where there is none, and AUTH by TLS. It all comes
from another host: nobody is let in, and the agent serves its owner afterwards."""
import contextlib
import re
import socket
import ssl

import pytest

from conftest import wait_for
from support.fuzz import HOSTILE, SEEDS, Fuzz
from support.outside import query
from support.pages import Reply
from support.sealed import AWAY, SealedClient, authority, away, certificate, plain_client, serve  # noqa: F401
from support.users import add_user
from support.wire import client_threads

pytestmark = pytest.mark.once

HIDDEN = "ZQHIDDENQZ"       # a scenario, which no stranger is told of
ASKED = b"\nEXEC %s\nSCENARIOS\nEXPORT\n" % HIDDEN.encode()
SECRET = "the word that lets alice in"
COUNT = 60                  # connections a seed


class Openings:
    """What clients send first, by a seed."""

    def __init__(self, seed, is_refused=True):
        self.fuzz, self._password = Fuzz(seed), SECRET if is_refused else "another"
        context, outgoing = ssl.create_default_context(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
        self._hello = outgoing.read()

    def bytes(self, most):
        """Up to so many of any."""
        return bytes(self.fuzz.rng.randrange(256) for _ in range(self.fuzz.rng.randrange(most + 1)))

    def damaged(self):
        """A beginning of TLS in which some bytes are others, too many, or not there."""
        data, rng = bytearray(self._hello), self.fuzz.rng
        for _ in range(rng.randrange(1, 8)):
            place = rng.randrange(1, len(data))
            data[place:place + rng.choice((0, 1, 1, 1, 9))] = self.bytes(5)
        return bytes(data)

    def divided(self):
        """The same handshake in records of a few bytes, the one or other of which is not there, or there twice."""
        body, records = self._hello[5:], []
        while body:
            size = self.fuzz.pick([1, 2, 7, 50, 200])
            records.append(self._hello[:3] + len(body[:size]).to_bytes(2, "big") + body[:size])
            body = body[size:]
        if self.fuzz.chance(0.5):
            place = self.fuzz.rng.randrange(len(records))
            records[place:place + 1] = records[place:place + 1] * self.fuzz.pick([0, 2])
        return b"".join(records)

    def garbage(self):
        """The first byte of TLS, and anything behind it: also a length that never comes, and other records."""
        return b"\x16" + self.fuzz.pick([
            self.bytes(300), b"\x03\x01\xff\xff" + self.bytes(50), b"\x03\x03\x00\x00" * 50, b"\x03\x01\x00\x05hello",
            b"\x03\x01\x00\x02\x01\x00" + b"\x15\x03\x01\x00\x02\x02\x28", b"\x16" * 2000, b"\x03\x01", b"\n", b"",
            b"\x03\x03\x00\x04\x0b\x00\x00\x00", b"\x03\x01\x40\x00" + b"\x01" * 16384])

    def plain(self):
        """Lines as nobody may send them from another host."""
        return self.fuzz.pick([
            b"PING", b"AUTH alice '%s'" % self._password.encode(), b"AUTH alice x", b"\0",
            b"GET / HTTP/1.1\r\nHost: a\r\n", b"\x15\x03\x01", b"\x80\x2e\x01\x03\x01", b"SSH-2.0-x\r", b"HELP", b"x" * 70000, b"\xff\xfe", b"\r", b" \x16\x03\x01",
            self.fuzz.request(), self.fuzz.request()])

    def any(self):
        """One of all these, with requests behind it or without."""
        data = self.fuzz.pick([self.damaged, self.damaged, self.divided, self.garbage, self.plain])()
        if self.fuzz.chance(0.2):
            data = data[:self.fuzz.rng.randrange(1, len(data) + 1)]
        return data + (ASKED if self.fuzz.chance(0.6) else b"")

    def auth(self):
        """A line of AUTH, or another, as a stranger says it by TLS."""
        words = HOSTILE + ["alice", "correct", "horse", "\ud800", "\0", "x" * 70000]
        text = "AUTH " + " ".join(self.fuzz.quote(self.fuzz.pick(words)) for _ in range(self.fuzz.pick([1, 2, 2, 3])))
        line = text.replace("\n", "").encode("utf-8", "surrogatepass")
        if self.fuzz.chance(0.3):
            return self.fuzz.request()
        return self.fuzz.damage(line) if self.fuzz.chance(0.2) else line


@pytest.fixture
def closed(inside, away):       # noqa: F811
    """An agent with a scenario; when the test is over nothing of it was begun, and it serves its owner."""
    inside.import_os(HIDDEN, "true")
    add_user(inside, "alice", "administrator", SECRET)
    users = query(inside.master, "select * from user")
    yield inside
    assert query(inside.work, "select count(*) from session") == [(0,)]
    assert query(inside.master, "select * from user") == users
    assert inside.ok("EXEC %s -SYNC" % HIDDEN)["status"] == "DONE"
    assert not re.search("Traceback|fault of the agent", inside.log()), inside.log()


def receive_all(client, shown):
    """What comes until the agent closes; a reset, or what is wrong by TLS, ends it, too. It has no data for him."""
    data = b""
    with contextlib.suppress(OSError):
        while True:
            part = client.socket.recv(65536)
            if not part:
                break
            data += part
    assert HIDDEN.encode() not in data and b"INTERNAL" not in data, (shown[:300], data[:1000])
    return data


def check_refused(data, reply):
    """Each line of replies is one for a stranger, and each reply has its end; so is the answer to a browser."""
    if reply.startswith(b"HTTP/"):
        assert Reply(reply).status in (400, 401, 403, 431), (data[:300], reply)
        return
    lines = reply.decode().splitlines()
    assert all(re.match(r"ERR [A-Z_]+ |\*( |$)|OK( {})?$", line) for line in lines), (data[:300], lines)
    assert re.match("ERR|OK", lines[-1]), (data[:300], lines)


def send_in_parts(client, openings, data):
    """Sends data as it is, or cut somewhere; whether the agent has closed meanwhile does not matter."""
    cut = openings.fuzz.rng.randrange(len(data) + 1) if openings.fuzz.chance(0.5) else 0
    with contextlib.suppress(OSError):
        for part in (data[:cut], data[cut:]):
            client.send_raw(part)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("has_tls", [True, False])
def test_any_beginning(closed, serve, seed, has_tls):       # noqa: F811
    """Where there is TLS also a right password is refused in a plain line; --insecure without TLS would take it."""
    server, openings, counts = serve(has_tls=has_tls, stranger_s=2), Openings(seed, has_tls), {}
    for _ in range(COUNT):
        data = openings.any()
        with plain_client(server.port, AWAY) as client:
            send_in_parts(client, openings, data)
            with contextlib.suppress(OSError):
                client.socket.shutdown(socket.SHUT_WR)
            reply = receive_all(client, data)
        # an alert or a handshake of TLS, or lines: ERR, and OK for HELP and QUIT alone
        kind = "nothing" if not reply else "TLS" if reply[:1] in b"\x15\x16" else "lines"
        counts[kind] = counts.get(kind, 0) + 1
        assert kind != "TLS" or has_tls, data[:300]
        if kind == "lines":
            check_refused(data, reply)
    print(counts)
    wait_for(lambda: server.connection_count == 0 and not client_threads(), "the connections to be gone")


@pytest.mark.parametrize("seed", SEEDS)
def test_what_comes_by_tls(closed, serve, authority, seed):       # noqa: F811
    """Lines of a stranger, some with bytes amid them that no TLS has sealed."""
    server, openings, counts = serve(stranger_s=2), Openings(seed), {}
    for _ in range(COUNT):
        line, is_spoilt = openings.auth(), openings.fuzz.chance(0.3)
        with SealedClient(server.port, authority, source=AWAY) as client:
            with contextlib.suppress(OSError):
                client.send_raw(line + ASKED + b"QUIT\n")
                if is_spoilt:
                    with socket.fromfd(client.socket.fileno(), socket.AF_INET, socket.SOCK_STREAM) as bare:
                        bare.sendall(openings.fuzz.pick([
                            openings.bytes(100), openings.any(), b"\x17\x03\x03\x00\x05hello"]))
            reply = receive_all(client, line)
        if reply:
            check_refused(line, reply)
        first = re.findall(br"(?m)^(?:ERR )?([A-Z_]+)", reply)[:1] or [b"nothing"]
        counts[first[0]] = counts.get(first[0], 0) + 1
    print(counts)
    wait_for(lambda: server.connection_count == 0 and not client_threads(), "the connections to be gone")
