"""What may be sent to the operator page: damaged, enormous, hostile. Nothing of it is a fault of the agent, nothing is let
in, nothing is carried out. The same seed makes the same."""
import html.parser
import random
import re
import socket
import urllib.parse

import pytest

from conftest import program
from support.fuzz import HOSTILE
from support.other_user import NOBODY
from support.pages import Reply, TYPED
from support.sealed import authority, certificate, serve  # noqa: F401 (fixtures)

pytestmark = pytest.mark.once

PATHS = ["/", "/session/1001", "/session/2001", "/schedules", "/metrics", "/api/", "/api/session/1001", "/api/schedules",
         "/page.css", "/page.js", "/icon.svg", "/nope", "/session/", "/api", "//", "/..", "/../../etc/passwd",
         "/%2e%2e%2fetc%2fpasswd", "/session/%31%30%30%31", "/session/1001%00", "/.git/config", "/index.html", "/%", "/%zz",
         "/session/-1", "/session/1e3", "/session/99999999999999999999", "/\\..\\x", "/?", "/#", "/;a=b", "/page.js/x"]
NAMES = ["status", "scenario", "schedule", "since", "text", "page", "step", "stream", "tail", "after", "v", "nope", ""]
VALUES = HOSTILE + ["failed", "open", "DONE,ERROR", "-1h", "yesterday 02:00", "1001", "1001.2002", "0.0", "99999.99999",
                    "1.-1", "out", "err", "500", "0", "9" * 18, "S", "HELLO", "LOAD_*", "%", "_", "\\", "%_%", "1001..", "."]
HEADERS = ["Host: localhost", "Host: 127.0.0.1:20910", "Host: evil.example", "Host:", "Host: [::1]", "host: LOCALHOST",
           "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: none", "Authorization: Basic", "Authorization: Basic %%",
           "Authorization: Basic cm9vdDpyb290", "Authorization: Digest x", "Content-Length: 5", "Content-Length: -1",
           "Transfer-Encoding: chunked", "Expect: 100-continue", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings",
           "Range: bytes=0-1", "If-None-Match: *", "Cookie: a=b", "Origin: null", "X-Forwarded-For: 127.0.0.1",
           "X-Forwarded-Host: localhost", "Forwarded: host=localhost", "EXEC HELLO", "SHUTDOWN -IMMEDIATE", "", " folded",
           "A" * 17000 + ": x", "X: " + "y" * 9000, "\0: x", "X: \x7f", ": x", "Host\t: localhost"]


class RequestFuzz:
    """Bytes of requests, by a seed."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def address(self):
        """A path with filters."""
        pairs = [(self.rng.choice(NAMES), self.rng.choice(VALUES)) for _ in range(self.rng.randrange(4))]
        query = urllib.parse.urlencode(pairs, encoding="utf-8", errors="surrogatepass")
        if self.rng.random() < 0.1:
            query = query.replace("%", "", 1) + self.rng.choice(["%", "%f", "%ff%fe", "&&&=", "?", "=" * 50, "%00", "&a" * 900])
        return self.rng.choice(PATHS) + ("?" + query if pairs else "")

    def request(self):
        """The bytes of a request, whole or damaged."""
        headers = [self.rng.choice(HEADERS) for _ in range(self.rng.randrange(4))]
        if self.rng.random() < 0.7:
            headers = ["Host: localhost"] + [line for line in headers if not line.lower().startswith("host")]
        if self.rng.random() < 0.3:
            headers += TYPED.split("\r\n")[:-1]
        line = "%s %s %s" % (self.rng.choice(["GET"] * 12 + ["HEAD", "get", "POST", "GET ", "EXEC", "GET\t"]), self.address(),
                             self.rng.choice(["HTTP/1.1"] * 12 + ["HTTP/1.0", "HTTP/2", "HTTP/1.1 ", "HTTP/9.9", ""]))
        data = bytearray(self.rng.choice(["\r\n"] * 9 + ["\n"]).join([line] + headers + ["", ""]).encode("latin-1", "replace"))
        for _ in range(self.rng.choice([0, 0, 0, 1, 2, 5])):
            place = self.rng.randrange(len(data))
            how = self.rng.randrange(4)
            if how == 0:
                data[place] = self.rng.randrange(256)
            elif how == 1:
                del data[place:place + self.rng.randrange(20)]
            elif how == 2:
                data[place:place] = bytes(self.rng.randrange(256) for _ in range(self.rng.randrange(9)))
            else:
                data[place:place] = data[:self.rng.randrange(60)]
            data = data or bytearray(b"\n")
        return bytes(data + self.rng.choice([b"", b"", b"EXEC HELLO\nSHUTDOWN\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]))

    def pieces(self, data):
        """The same in pieces."""
        while data and self.rng.random() < 0.4:
            cut = self.rng.randrange(len(data) + 1)
            yield data[:cut]
            data = data[cut:]
        yield data


def send_request(port, pieces):
    """All that comes back for these pieces and the end of input."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
        except OSError:                 # it has its answer already
            pass
        while True:
            try:
                part = client.recv(65536)
            except ConnectionResetError:        # more than it reads came behind its answer
                return received
            if not part:
                return received
            received += part


def import_hostile(inside):
    """A session and a schedule whose texts are hostile."""
    inside.import_os("S", "printf '</code></li><script>x</script>\\n\\033[2J\\n'; exit 3")
    inside.ok("EXEC S -SYNC -NAME='<script>x</script>&amp;\"'")
    inside.ok("SCHED ADD T S 1 GLOBAL 'every 5m' -KEYWORDS='<img/src=x>'")
    inside.ok("HOLD '</p><script>x</script>' -SCHEDULE=T")


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_sent_to_the_port(inside, serve, monkeypatch, seed):  # noqa: F811
    """The second half comes of a stranger, who gets nothing."""
    monkeypatch.setattr(program, "HEAD_S", 0.5)
    import_hostile(inside)
    port, fuzz, statuses = serve(has_tls=False).port, RequestFuzz(seed), set()
    before = inside.rows("SESSIONS")
    for number in range(300):
        if number == 150:
            monkeypatch.setattr(program, "find_peer_uid", lambda connection: NOBODY)
        data = fuzz.request()
        answer = send_request(port, fuzz.pieces(data))
        if answer.startswith(b"HTTP/"):
            reply = Reply(answer)
            statuses.add(reply.status)
            assert reply.status in ((200, 400, 403, 404, 431) if number < 150 else (400, 403, 431)), (data, answer[:500])
            assert number < 150 or b"AGENT" not in answer and b"HELLO" not in answer
        else:                           # no request for a page: what the protocol says
            assert not answer or re.match(b"(OK|ERR|\\*) ", answer) or answer == b"OK\n", (data, answer[:500])
            assert b"INTERNAL" not in answer
    assert {200, 400, 403} <= statuses <= {200, 400, 403, 404, 431}
    assert len(inside.rows("SESSIONS")) == len(before)
    assert "Traceback" not in inside.log() and "fault " not in inside.log()


class Watcher(html.parser.HTMLParser):
    """Complains of what only the program itself may put into a page."""

    def __init__(self):
        super().__init__()
        self.scripts, self.open_tags = 0, []

    def handle_starttag(self, tag, attrs):
        names = dict(attrs)
        assert tag not in ("img", "iframe", "object", "style", "base", "embed"), tag
        assert not any(name.startswith("on") or name == "style" for name in names), attrs
        assert not re.match(r"\s*(javascript|data):", names.get("href") or names.get("src") or "", re.I)
        if tag == "script":
            self.scripts += 1
            assert names["src"].startswith("/page.js?v=")
        if tag not in ("meta", "link", "input"):
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_asked_of_the_pages(inside, seed):
    """Without a socket: every address is answered, and what is hostile in it stays a text."""
    import_hostile(inside)
    page, fuzz = program.Page(inside.agent), RequestFuzz(100 + seed)
    client, statuses = program.Client(program.ADMINISTRATOR, "test"), set()
    for _ in range(250):
        line = b"GET %s HTTP/1.1" % fuzz.address().encode("latin-1", "replace").replace(b" ", b"+")
        try:
            answer = page.answer(program.read_request(line, [b"Host: localhost"]), client)
        except program.HttpError as error:
            assert error.status == 400, line
            continue
        statuses.add(answer.status)
        assert answer.status in (200, 404), (line, answer)
        if answer.kind == program.HTML_TYPE:
            watcher = Watcher()
            watcher.feed(answer.body.decode())
            watcher.close()
            assert watcher.scripts == 1 and watcher.open_tags == [], line
    assert statuses == {200, 404}
    assert "Traceback" not in inside.log()
