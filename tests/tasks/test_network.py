"""Task types of the network on a real agent and real peers: good, bad and stopped courses, TLS, redirects.

The peers keep every byte that they could read, so that a test tells what reached them, and what did not.
"""
import base64
import contextlib
import email
import email.policy
import itertools
import json
import os
import shutil
import socket
import socketserver
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import traceback

import pytest

from conftest import LIMIT_S, TOP, AgentProcess, wait_for
from support.tasks import begin, run, stop

NUMBERS = itertools.count(1)
SECRET = "s3cr3t"           # what nobody but the own origin may see
STATUSES = (301, 302, 303, 307, 308)


# -- certificates ----------------------------------------------------------------------

OPENSSL_CONFIG = """
[ca]
default_ca = own
[own]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
default_days = 30
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[own_name]
subjectAltName = DNS:localhost,IP:127.0.0.1
basicConstraints = critical,CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[other_name]
subjectAltName = DNS:other.example
basicConstraints = critical,CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
CERTIFICATES = ("good", "self-signed", "other name", "expired")
PAST = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"]


class Certificates:
    """An authority, and certificates for localhost and 127.0.0.1 that have one fault each, or none."""

    def __init__(self, folder):
        self._folder = folder
        (folder / "config").write_text(OPENSSL_CONFIG)
        (folder / "index.txt").write_text("")
        (folder / "serial").write_text("01\n")
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
                      "-subj", "/CN=Authority", "-days", "30", "-config", "config", "-extensions", "authority")
        self._openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "request",
                      "-subj", "/CN=peer", "-config", "config")
        self._openssl("req", "-x509", "-key", "key", "-out", "self-signed", "-subj", "/CN=localhost", "-days", "30",
                      "-config", "config", "-extensions", "own_name")
        self._sign("good", "own_name")
        self._sign("other name", "other_name")
        self._sign("expired", "own_name", *PAST)
        self.authority = str(folder / "ca.pem")

    def _openssl(self, *words):
        done = subprocess.run(("openssl",) + words, cwd=str(self._folder), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            pytest.skip("openssl %s does not do it here: %s" % (words[0], done.stdout.decode("utf-8", "replace")))

    def _sign(self, name, extensions, *words):
        self._openssl("ca", "-batch", "-notext", "-config", "config", "-extensions", extensions, "-keyfile", "ca.key",
                      "-cert", "ca.pem", "-in", "request", "-out", name, *words)

    def context(self, name):
        """The side of a server that shows this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(self._folder / name), str(self._folder / "key"))
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("there is no command openssl")
    return Certificates(tmp_path_factory.mktemp("certificates"))


# -- peers -----------------------------------------------------------------------------

class Peer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A server on a free port of 127.0.0.1. `seen` is what its handler understood, `received` all that it read."""
    daemon_threads = allow_reuse_address = True
    block_on_close = False

    def __init__(self, handler, context=None, **options):
        super().__init__(("127.0.0.1", 0), handler)
        self.port, self.context, self.options = self.server_address[1], context, options
        self.seen, self.received, self.faults, self.answers = [], [], [], {}
        self._lock, self._open = threading.Lock(), 0
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def process_request(self, request, client_address):
        with self._lock:
            self._open += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open -= 1

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):      # a client that went away, or trusts nobody
            self.faults.append(traceback.format_exc())

    def text(self):
        """All that has come, once every connection is over."""
        wait_for(lambda: self._open == 0, "the ends of the connections")
        return b"".join(self.received).decode("latin-1")

    def close(self):
        self.shutdown()
        self.server_close()
        assert not self.faults, "".join(self.faults)


class Recorded(socketserver.BaseRequestHandler):
    """A connection whose bytes are kept; it speaks TLS from its first byte on where the client does."""

    def setup(self):
        self.request.settimeout(LIMIT_S)
        self.buffer = b""
        if self.server.context and not self.server.options.get("starttls"):
            if self.request.recv(1, socket.MSG_PEEK) == b"\x16":
                self.to_tls()

    def to_tls(self):
        self.request = self.server.context.wrap_socket(self.request, server_side=True)

    def finish(self):
        self.request.close()

    def line(self):
        """The next line with its end; what is left at the end of input."""
        while b"\n" not in self.buffer and self._more():
            pass
        line, end, self.buffer = self.buffer.partition(b"\n")
        return line + end

    def take(self, size):
        while len(self.buffer) < size and self._more():
            pass
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def _more(self):
        data = self.request.recv(1 << 16)
        self.server.received.append(data)
        self.buffer += data
        return data

    def say(self, *lines):
        self.request.sendall("".join(line + "\r\n" for line in lines).encode("latin-1"))


@pytest.fixture(scope="module")
def serving():
    """serving(handler, context) -> a Peer until the end of the file."""
    with contextlib.ExitStack() as stack:
        def serve(*arguments, **options):
            peer = Peer(*arguments, **options)
            stack.callback(peer.close)
            return peer
        yield serve


@pytest.fixture(scope="module")
def trusting(tmp_path_factory, request):
    """One agent for all, which trusts the authority of the test where there is one."""
    trusted = {}
    if shutil.which("openssl"):
        trusted["SSL_CERT_FILE"] = request.getfixturevalue("certificates").authority
    made = AgentProcess(tmp_path_factory.mktemp("network"), env=dict(
        trusted, no_proxy="*", http_proxy="", HTTP_PROXY="", MAIL_PASSWORD=SECRET)).start()
    yield made
    made.finish()
    assert "Traceback" not in made.log() and "Warning:" not in made.log(), made.log()


@pytest.fixture
def closed_port():
    """One that nobody listens on, nor can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def work(given, before="", env=None):
    """The work of a task as its helper does it, after some statements on the module `agent` -> its result."""
    program = "import sys; sys.path.insert(0, %r); import agent; %s; agent.run_helper(1)" % (str(TOP), before or "pass")
    done = subprocess.run([sys.executable, "-c", program], input=json.dumps(given).encode(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=dict(os.environ, **(env or {})), timeout=LIMIT_S)
    assert done.stdout, done.stderr.decode()
    return json.loads(done.stdout.decode())


# -- http ------------------------------------------------------------------------------

class Web(Recorded):
    """Answers as `answers` of the server says for the path (status, Location), else by its first word:
    /status/N, /echo, /flaky (503 twice), /large/N, /slow, /short (less than its length), /trickle/head, /trickle/body.
    """

    def handle(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.line()
            if not line:
                return
            head += line
        words, _, rest = head.decode("latin-1").partition("\r\n")
        headers = email.message_from_string(rest)
        body = self.take(int(headers.get("Content-Length") or 0))
        method, path = words.split()[:2]
        self.server.seen.append((method, path, headers, body))
        self.reply(method, path, headers, body)

    def reply(self, method, path, headers, body):
        kind, _, value = path[1:].partition("?")[0].partition("/")
        if kind in ("slow", "trickle"):
            return self.trickle(kind, value)
        status, location = self.server.answers.get(path, (200, None))
        out = b"fine"
        if kind == "status":
            status = int(value)
        elif kind == "echo":
            out = json.dumps([method, headers["X-Own"], body.decode("utf-8")]).encode()
        elif kind == "flaky":
            status = 503 if [seen[1] for seen in self.server.seen].count(path) < 3 else 200
        elif kind == "large":
            out = b"x" * int(value)
        self.say("HTTP/1.1 %d because" % status, *(["Location: " + location] if location is not None else []))
        self.say("Content-Length: %d" % (len(out) + 100 * (kind == "short")), "Connection: close", "")
        self.request.sendall(b"" if method == "HEAD" else out)

    def trickle(self, kind, value):
        if value == "body":
            self.say("HTTP/1.1 200 because", "Connection: close", "")
        elif value == "head":
            self.say("HTTP/1.1 200 because")
        for number in range(LIMIT_S * 10):
            time.sleep(0.1)
            if kind != "slow":
                self.say("X-%d: x" % (number % 10))


@pytest.fixture(scope="module")
def web(serving, request):
    """Speaks HTTP, and HTTPS with the good certificate, on one port."""
    return serving(Web, request.getfixturevalue("certificates").context("good") if shutil.which("openssl") else None)


@pytest.fixture(scope="module")
def other(serving):
    """Another origin, by its port."""
    return serving(Web)


def url_of(web, path="", scheme="http", host="127.0.0.1", login=""):
    return "%s://%s%s:%d/%s" % (scheme, login, host, web.port, path)


def get(web, path, **fields):
    return dict({"type": "http", "url": url_of(web, path)}, **fields)


def seen_by(web, path):
    """[(method, headers, body)] of the requests for a path."""
    return [(method, headers, body) for method, seen, headers, body in web.seen if seen == "/" + path]


def test_http(trusting, web, tmp_path):
    web.answers["/moved"] = (302, "/echo")
    done = run(trusting, get(web, "echo", method="put", headers={"X-Own": "a${v}"}, body="b\u00e9 ${v}", capture="v"),
               get(web, "large/3000000", save=str(tmp_path / "out")), get(web, "status/404", expect=[200, 404]),
               get(web, "moved", capture="w"), variables={"v": "1", "w": ""})
    assert done.status == "DONE", (done.message, done.texts)
    assert json.loads(done.values["v"]) == ["PUT", "a1", "b\u00e9 1"]
    assert json.loads(done.values["w"])[0] == "GET" and seen_by(web, "moved")[0][0] == "GET"
    assert (tmp_path / "out").stat().st_size == 3000000
    assert [task["rc"] for task in done.tasks] == ["200", "200", "404", "200"]


def test_http_that_is_not_as_expected(trusting, web, closed_port, tmp_path):
    (tmp_path / "out").write_text("old")
    closed = "http://127.0.0.1:%d/" % closed_port
    for task, reason in [(get(web, "status/500", save=str(tmp_path / "out")), "status 500, expected 200"),
                         (get(web, "echo", expect=[201]), "status 200, expected 201"),
                         (get(web, "status/302"), "status 302, expected 200"),      # and no Location
                         (get(web, "large/100000", capture="v"), "more than a variable takes"),
                         (get(web, "short", save=str(tmp_path / "out")), "ended early"),
                         (get(web, "", url=closed), "refused"),
                         (get(web, "", url="${w}"), "must begin with http"),
                         (get(web, "", url="http://127.0.0.1:1/a b"), "the url has a blank"),
                         (get(web, "", url="http://127.0.0.1:1/a\r\nX: y"), "control character"),
                         (get(web, "", url="http://%31%32%37.0.0.1:1/"), "no valid host"),
                         (get(web, "", url="http:///path"), "no valid host"),
                         (get(web, "echo", headers={"X": "a\r\nY: b"}), "header X"),
                         (get(web, "echo", headers={"X": "\u20ac"}), "not Latin-1")]:
        done = run(trusting, task, variables={"v": "kept", "w": "file:///etc/passwd"})
        assert done.status == "ERROR" and reason in done.message, (task, done.message)
        assert done.values["v"] == "kept"
    assert (tmp_path / "out").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_http_attempts_and_stop(trusting, web):
    done = run(trusting, get(web, "flaky/a", attempts=3))
    assert done.status == "DONE" and len(seen_by(web, "flaky/a")) == 3
    assert len([line for line in done.texts if "503" in line]) == 2
    session = begin(trusting, get(web, "slow"))
    wait_for(lambda: seen_by(web, "slow"), "the request")
    stop(trusting, session)


@pytest.mark.parametrize("place, limit", [("trickle/head", "ANSWER_S"), ("trickle/body", "CONTENT_S")])
def test_an_answer_that_comes_for_ever_byte_by_byte(other, place, limit):
    given = {"type": "http", "url": url_of(other, place), "method": "GET", "headers": {}, "body": None,
             "expect": [200], "save": None, "capture": None, "attempts": 1}
    result = work(given, "agent.%s = 0.5" % limit)
    assert result["status"] == "ERROR" and "took over 0.5 s" in result["message"], result


# -- http: where credentials go --------------------------------------------------------

OWN = {"Authorization": "Bearer " + SECRET, "X-Own": SECRET, "Cookie": "session=" + SECRET}
ELSEWHERE = ("host", "port", "scheme")


def place(kind, web, other, path):
    """The url of a path on the same origin as `web`, or on one that differs from it by its host, port or scheme."""
    if kind == "scheme" and not web.context:
        pytest.skip("no openssl, no TLS")
    return {"origin": url_of(web, path), "host": url_of(web, path, host="localhost"),
            "port": url_of(other, path), "scheme": url_of(web, path, scheme="https")}[kind]


def detour(web, status, location):
    """A new path that is answered with a redirect."""
    path = "from/%d" % next(NUMBERS)
    web.answers["/" + path] = (status, location)
    return path


def arrived(web, other, path):
    """The (method, headers, body) that reached a path, wherever that is."""
    seen, = seen_by(web, path) + seen_by(other, path)
    return seen


@pytest.mark.parametrize("kind", ELSEWHERE + ("origin",))
@pytest.mark.parametrize("status", STATUSES)
def test_headers_go_to_their_own_origin_alone(trusting, web, other, status, kind):
    path = "to/%d" % next(NUMBERS)
    done = run(trusting, get(web, detour(web, status, place(kind, web, other, path)), headers=OWN))
    assert done.status == "DONE", done.message
    method, headers, _ = arrived(web, other, path)
    assert method == "GET"
    if kind == "origin":
        assert {name: headers[name] for name in OWN} == OWN
    else:
        assert SECRET not in headers.as_string() and not set(OWN) & set(headers)


def test_from_https_to_http_is_another_origin(trusting, web, other, certificates):
    path = "to/%d" % next(NUMBERS)
    start = detour(web, 302, url_of(web, path))
    done = run(trusting, get(web, "", url=url_of(web, start, scheme="https"), headers=OWN))
    assert done.status == "DONE", done.message
    assert seen_by(web, start)[0][1]["Authorization"] == OWN["Authorization"]
    assert SECRET not in arrived(web, other, path)[1].as_string()


@pytest.mark.parametrize("status", STATUSES)
def test_a_circle(trusting, web, other, status):
    path = "circle/%d" % next(NUMBERS)
    web.answers["/" + path] = (status, url_of(other, path))
    other.answers["/" + path] = (status, url_of(web, path))
    done = run(trusting, get(web, path, headers=OWN))
    assert done.status == "ERROR" and "circle" in done.message and len(done.message) < 300, done.message
    assert SECRET not in "".join(headers.as_string() for _, headers, _ in seen_by(other, path))
    alone = "alone/%d" % next(NUMBERS)
    web.answers["/" + alone] = (status, alone.partition("/")[2])
    done = run(trusting, get(web, alone, method="POST", body="b"))
    assert done.status == "ERROR" and "circle" in done.message
    assert [body for method, _, body in seen_by(web, alone) if method == "POST"] == [b"b"]


def test_ten_redirects_and_no_more(trusting, web):
    for number in range(11):
        web.answers["/hop/%d" % number] = (302, "%d" % (number + 1))
    done = run(trusting, get(web, "hop/1"))
    assert done.status == "DONE", done.message
    done = run(trusting, get(web, "hop/0"))
    assert done.status == "ERROR" and "over 10 redirects" in done.message


@pytest.mark.parametrize("method, status, method_after, is_body_kept", [
    ("POST", 301, "GET", False), ("POST", 302, "GET", False), ("POST", 303, "GET", False),
    ("POST", 307, "POST", True), ("POST", 308, "POST", True),
    ("PUT", 301, "PUT", True), ("PUT", 302, "PUT", True), ("PUT", 303, "GET", False), ("PUT", 308, "PUT", True)])
def test_method_and_body_after_a_redirect(trusting, web, other, method, status, method_after, is_body_kept):
    """By RFC 9110, 15.4."""
    path = "to/%d" % next(NUMBERS)
    start = detour(web, status, "/" + path)
    fields = {"method": method, "body": "the body", "headers": dict(OWN, **{"Content-Type": "text/own"})}
    done = run(trusting, get(web, start, **fields))
    assert done.status == "DONE", done.message
    seen, headers, body = arrived(web, other, path)
    assert (seen, body) == (method_after, b"the body" if is_body_kept else b"")
    assert headers["Content-Type"] == ("text/own" if is_body_kept else None)
    assert headers["Authorization"] == OWN["Authorization"]


@pytest.mark.parametrize("method, statuses, method_after", [
    ("HEAD", STATUSES, "HEAD"), ("DELETE", (301, 302, 307, 308), "DELETE"), ("DELETE", (303,), "GET")])
def test_a_method_without_a_body_after_a_redirect(trusting, web, other, method, statuses, method_after):
    for status in statuses:
        for kind in ("origin", "port"):
            path = "to/%d" % next(NUMBERS)
            start = detour(web, status, place(kind, web, other, path))
            done = run(trusting, get(web, start, method=method, headers=OWN))
            assert done.status == "DONE", done.message
            seen, headers, body = arrived(web, other, path)
            assert (seen, body) == (method_after, b"")
            assert ("Authorization" in headers) == (kind == "origin")


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize("method, status", [("POST", 307), ("POST", 308), ("PUT", 301), ("PUT", 302)])
def test_a_body_is_never_sent_to_another_origin(trusting, web, other, method, status, kind):
    path = "to/%d" % next(NUMBERS)
    there = place(kind, web, other, path)
    start = detour(web, status, there.replace("://", "://u:%s@" % SECRET) + "?key=" + SECRET)
    done = run(trusting, get(web, start, method=method, body=SECRET, headers=OWN))
    assert done.status == "ERROR"
    assert "body" in done.message and there[:there.index("/to/")] in done.message, done.message
    assert SECRET not in done.message + "".join(done.texts)
    assert seen_by(web, path) + seen_by(other, path) == []


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_form_that_is_answered_elsewhere_is_fetched_from_there(trusting, web, other, kind):
    for status in (301, 302, 303):
        path = "to/%d" % next(NUMBERS)
        start = detour(web, status, place(kind, web, other, path))
        done = run(trusting, get(web, start, method="POST", body=SECRET, headers=OWN))
        assert done.status == "DONE", done.message
        method, headers, body = arrived(web, other, path)
        assert (method, body) == ("GET", b"") and SECRET not in headers.as_string()


def test_nothing_is_sent_any_more_where_the_way_leads_back(trusting, web, other):
    path = "to/%d" % next(NUMBERS)
    start = detour(web, 302, url_of(other, detour(other, 307, url_of(web, path))))
    done = run(trusting, get(web, start, headers=OWN))
    assert done.status == "DONE", done.message
    assert SECRET not in arrived(web, other, path)[1].as_string()


def test_a_redirect_that_is_expected_is_the_answer(trusting, web, other):
    path = "to/%d" % next(NUMBERS)
    for status in STATUSES:
        start = detour(web, status, url_of(other, path))
        done = run(trusting, get(web, start, expect=[status], headers=OWN, capture="v"), variables={"v": ""})
        assert done.status == "DONE" and done.tasks[0]["rc"] == str(status) and done.values["v"] == "fine"
    assert seen_by(other, path) == []


@pytest.mark.parametrize("location", [
    "ftp://127.0.0.1/x", "file:///etc/passwd", "FILE:/etc/passwd", "data:,x", "gopher://127.0.0.1/", "javascript:x",
    "//[::1/", "http://127.0.0.1:x/", "http://u:%s@/" % SECRET, "http://127.0.0.1:99999/", "//127.0.0.1%2f.localhost/",
    "http://u:%s@\x85\xff/" % SECRET, "ftp://x/" + "y" * 50000, "http://" + "y" * 50000])
def test_a_redirect_that_leads_nowhere(trusting, web, location):
    done = run(trusting, get(web, detour(web, 302, location)))
    assert done.status == "ERROR" and "redirect of status 302 is not followed" in done.message, done.message
    assert len(done.message) < 300 and done.message.isprintable()
    assert SECRET not in done.message and "passwd" not in done.message


def test_a_location_is_a_strangers_text(trusting, web, other):
    """What it has is asked for as it can be, its login is not taken, and messages tell no more than the origin."""
    path = "to/%d" % next(NUMBERS)
    login = "u:%s@" % SECRET
    start = detour(web, 302, url_of(web, path + "?k=\xe9 \x01", login=login))
    done = run(trusting, get(web, start))
    assert done.status == "DONE", done.message
    assert "Authorization" not in arrived(web, other, path + "?k=%E9%20%01")[1]
    start = detour(web, 302, url_of(other, "status/404", login=login) + "#" + SECRET)
    other.answers["/status/404"] = (404, None)
    done = run(trusting, get(web, start, attempts=2))
    assert done.status == "ERROR" and "status 404, expected 200" in done.message
    assert "redirected to http://127.0.0.1:%d: " % other.port in done.message
    assert SECRET not in done.message + "".join(done.texts)


def test_a_login_in_the_url(trusting, web, other):
    """Is sent as a header, to its origin alone."""
    path = "to/%d" % next(NUMBERS)
    wanted = "Basic " + base64.b64encode(("me:%s/@" % SECRET).encode()).decode()
    login = "me:%s%%2F%%40@" % SECRET
    for number, kind in enumerate(("origin",) + ELSEWHERE):
        there = place(kind, web, other, "%s/%d" % (path, number))
        start = detour(web, 307, there)
        done = run(trusting, get(web, "", url=url_of(web, start, login=login)))
        assert done.status == "DONE", done.message
        assert seen_by(web, start)[0][1]["Authorization"] == wanted
        assert arrived(web, other, "%s/%d" % (path, number))[1]["Authorization"] == (
            wanted if kind == "origin" else None)
    done = run(trusting, get(web, "", url=url_of(web, path, login=login), headers={"authorization": "own"}))
    assert done.status == "DONE" and seen_by(web, path)[0][1].get_all("Authorization") == ["own"]


def test_messages_repeat_no_login_and_no_query(trusting, web, closed_port, certificates):
    login = "me:%s@" % SECRET
    tail = "?key=" + SECRET
    for url, reason in [(url_of(web, "status/500" + tail, login=login), "status 500"),
                        ("http://%s127.0.0.1:%d/%s" % (login, closed_port, tail), "refused"),
                        ("https://%s127.0.0.1:%d/%s" % (login, closed_port, tail), "refused"),
                        ("http://me:%s#x@127.0.0.1/" % SECRET, "no valid host"),
                        ("http://me:%s/x@127.0.0.1/" % SECRET, "no valid host"),
                        ("http://me:%s%%zz@127.0.0.1:x/" % SECRET, "no valid host"),
                        ("http://me:%s@[::1/" % SECRET, "no valid host"),
                        (url_of(web, "short" + tail, login=login), "ended early"),
                        (url_of(web, "a b" + tail, login=login), "blank")]:
        done = run(trusting, get(web, "", url=url, attempts=2))
        assert done.status == "ERROR" and reason in done.message, (url, done.message)
        assert SECRET not in done.message + "".join(done.texts), (done.message, done.texts)
    done = run(trusting, get(web, "echo", headers={"Authorization": SECRET + "\n"}))
    assert done.status == "ERROR" and "header Authorization" in done.message
    assert SECRET not in done.message + "".join(done.texts)


# -- http: TLS and proxies -------------------------------------------------------------

@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("name", CERTIFICATES)
def test_https(trusting, serving, certificates, name, host):
    web = serving(Web, certificates.context(name))
    task = get(web, "", url=url_of(web, "x", scheme="https", host=host, login="me:%s@" % SECRET), method="POST",
               body=SECRET)
    done = run(trusting, task)
    if name == "good":
        assert done.status == "DONE", done.message
        assert seen_by(web, "x")[0][2] == SECRET.encode()
    else:
        assert done.status == "ERROR" and is_about_the_certificate(done.message), done.message
        assert web.text() == ""


def is_about_the_certificate(message):
    return "certificate" in message.lower() or "doesn't match" in message      # the latter: Python 3.6


@pytest.mark.parametrize("name", CERTIFICATES[1:])
def test_a_redirect_to_https_that_is_not_to_be_trusted(trusting, serving, certificates, other, name):
    web = serving(Web, certificates.context(name))
    done = run(trusting, get(other, detour(other, 302, url_of(web, "x", scheme="https"))))
    assert done.status == "ERROR" and is_about_the_certificate(done.message), done.message
    assert web.text() == ""


def test_https_without_the_module_ssl(other):
    given = {"type": "http", "url": url_of(other, "x"), "method": "GET", "headers": {}, "body": None,
             "expect": [200], "save": None, "capture": None, "attempts": 1}
    assert work(given, "sys.modules['ssl'] = None")["status"] == "DONE"
    result = work(dict(given, url=url_of(other, "x", scheme="https")), "sys.modules['ssl'] = None")
    assert result["status"] == "ERROR" and "this host's Python has no TLS" in result["message"]


def test_proxies_of_the_environment(serving, other):
    """They get every request with their own login, and of the definition what its origin gets."""
    proxy = serving(Web)
    proxy.answers["http://one.example/a"] = (302, "http://two.example/b")
    given = {"type": "http", "url": "http://me:pw@one.example/a", "method": "GET", "headers": {"X-Own": SECRET},
             "body": None, "expect": [200], "save": None, "capture": None, "attempts": 1}
    address = "http://proxy:word@127.0.0.1:%d" % proxy.port
    env = {"http_proxy": address, "https_proxy": address, "no_proxy": "127.0.0.1", "HTTP_PROXY": ""}
    assert work(given, env=env)["status"] == "DONE"
    assert [(seen[0], seen[1]) for seen in proxy.seen] == [
        ("GET", "http://one.example/a"), ("GET", "http://two.example/b")]
    wanted = "Basic " + base64.b64encode(b"proxy:word").decode()
    assert [seen[2]["Proxy-Authorization"] for seen in proxy.seen] == [wanted, wanted]
    assert [seen[2]["X-Own"] for seen in proxy.seen] == [SECRET, None]
    assert [seen[2]["Authorization"] for seen in proxy.seen] == ["Basic " + base64.b64encode(b"me:pw").decode(), None]
    result = work(dict(given, url="https://three.example/c"), env=env)
    assert result["status"] == "ERROR"              # the peer only answers, it makes no tunnel
    assert proxy.seen[-1][:2] == ("CONNECT", "three.example:443") and not proxy.seen[-1][2]["X-Own"]
    assert work(dict(given, url=url_of(other, "near")), env=env)["status"] == "DONE"
    assert seen_by(other, "near")


# -- mail ------------------------------------------------------------------------------

class Post(Recorded):
    """As much of SMTP as a client needs; nobody@... is refused. Options: `starttls` (offers it; "454": and has it
    not), `login` (wants one), `quit` (the answer to QUIT), `trickle` (an answer to EHLO that never ends)."""

    def handle(self):
        self.is_tls, self.sender, self.to = isinstance(self.request, ssl.SSLSocket), "", []
        self.say("220 test")
        while True:
            line = self.line().decode("latin-1").strip()
            word = line.upper().partition(" ")[0]
            if not word or not getattr(self, "on_" + word.lower(), self.other)(line):
                return

    def other(self, line):
        self.say("250 ok")
        return True

    def on_ehlo(self, line):
        options = self.server.options
        while options.get("trickle"):
            self.say("250-more")
            time.sleep(0.05)
        self.say("250-test", *(["250-STARTTLS"] if options.get("starttls") and not self.is_tls else []))
        self.say("250 AUTH PLAIN" if options.get("login") else "250 HELP")
        return True

    def on_starttls(self, line):
        if self.server.options["starttls"] == "454":
            return self.say("454 not now") or True
        self.say("220 go on")
        self.to_tls()
        self.is_tls = True
        return True

    def on_auth(self, line):
        is_right = base64.b64decode(line.split()[2]) == ("\0me\0" + SECRET).encode()
        self.say("235 welcome" if is_right else "535 no")
        return True

    def on_mail(self, line):
        self.sender, self.to = line[10:], []
        return self.other(line)

    def on_rcpt(self, line):
        if "nobody@" in line:
            self.say("550 unknown")
        else:
            self.to.append(line[8:].strip("<> "))
            self.say("250 ok")
        return True

    def on_data(self, line):
        self.say("354 go on")
        data = b""
        while not data.endswith(b"\r\n.\r\n"):
            data += self.line()
        message = email.message_from_bytes(data[:-3], policy=email.policy.default)
        self.server.seen.append((self.sender, self.to, message))
        return self.other(line)

    def on_quit(self, line):
        self.say(self.server.options.get("quit", "221 bye"))


MAIL = {"type": "mail", "to": ["a@example.org"], "subject": "s", "body": "the body"}


def mail_by(agent, post, **connect):
    """Makes this peer the server MAIL."""
    connect = dict({"host": "127.0.0.1", "port": post.port, "sender": "agent@example.org"}, **connect)
    agent.import_document({"data_servers": [{"name": "MAIL", "driver": "smtp", "connect": connect}]})


def test_mail(trusting, serving, tmp_path):
    task = {"type": "mail", "to": ["a@example.org", "B ${v} <b@example.org>"], "subject": "Night ${v}\u00e9",
            "body": "Line \u00e9 ${v}\n.\nend", "attach": [str(tmp_path / "${v}.csv")]}
    done = run(trusting, task, variables={"v": "1"})
    assert done.status == "ERROR" and "no data server MAIL" in done.message
    post = serving(Post)
    mail_by(trusting, post)
    done = run(trusting, task, variables={"v": "1"})
    assert done.status == "ERROR" and "1.csv" in done.message and not post.seen
    (tmp_path / "1.csv").write_bytes(b"a,b\n\xff\n")
    done = run(trusting, task, variables={"v": "1"})
    assert done.status == "DONE", (done.message, done.texts)
    sender, to, message = post.seen.pop()
    assert "agent@example.org" in sender and to == ["a@example.org", "b@example.org"]
    assert message["Subject"] == "Night 1\u00e9"
    assert message.get_body().get_content().replace("\r", "").startswith("Line \u00e9 1\n")
    attached = next(message.iter_attachments())
    assert attached.get_filename() == "1.csv" and attached.get_payload(decode=True) == b"a,b\n\xff\n"


def test_mail_that_fails(trusting, serving, closed_port):
    post = serving(Post)
    mail_by(trusting, post)
    done = run(trusting, dict(MAIL, to=["a@example.org", "nobody@example.org"]))
    assert done.status == "WARNING" and "nobody@example.org" in done.tasks[0]["message"]
    assert post.seen.pop()[1] == ["a@example.org"]
    done = run(trusting, dict(MAIL, to=["nobody@example.org"]))
    assert done.status == "ERROR" and "unknown" in done.message
    done = run(trusting, dict(MAIL, subject="a\r\nBcc: evil@example.org"))
    assert not post.seen or "Bcc" not in post.seen.pop()[2]
    done = run(trusting, dict(MAIL, to=["${v}"]), variables={"v": "a@example.org\nBcc: evil@example.org"})
    assert done.status == "ERROR" and "header" in done.message and not post.seen
    mail_by(trusting, post, port=closed_port)
    done = run(trusting, MAIL)
    assert done.status == "ERROR" and "refused" in done.message.lower() and "127.0.0.1" in done.message


LOGIN = {"user": "me", "password": {"env": "MAIL_PASSWORD"}}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("tls", ["ssl", "starttls"])
@pytest.mark.parametrize("name", CERTIFICATES)
def test_mail_by_tls(trusting, serving, certificates, name, tls, host):
    post = serving(Post, certificates.context(name), starttls=tls == "starttls", login=True)
    mail_by(trusting, post, host=host, tls=tls, **LOGIN)
    done = run(trusting, MAIL)
    if name == "good":
        assert done.status == "DONE", done.message
        assert "AUTH PLAIN" in post.text() and post.seen[0][1] == ["a@example.org"]
        return
    assert done.status == "ERROR" and is_about_the_certificate(done.message), done.message
    words = [line.split()[0] for line in post.text().splitlines()]
    assert words == ([] if tls == "ssl" else ["ehlo", "STARTTLS"]) and not post.seen


@pytest.mark.parametrize("name", CERTIFICATES[:2])
def test_a_server_elsewhere_is_spoken_to_by_starttls(trusting, serving, certificates, name):
    """127.1 is 127.0.0.1, by a name that is not one of the loopback's nor of the certificate."""
    post = serving(Post, certificates.context(name), starttls=True, login=True)
    mail_by(trusting, post, host="127.1", **LOGIN)
    done = run(trusting, MAIL)
    assert done.status == "ERROR" and is_about_the_certificate(done.message), done.message
    assert [line.split()[0] for line in post.text().splitlines()] == ["ehlo", "STARTTLS"]


@pytest.mark.parametrize("connect", [{"tls": "starttls"}, {"host": "127.1"}])
@pytest.mark.parametrize("offer", [None, "454"])
def test_a_server_that_does_not_do_starttls(trusting, serving, connect, offer):
    post = serving(Post, starttls=offer, login=True)
    mail_by(trusting, post, **dict(connect, **LOGIN))
    done = run(trusting, MAIL)
    assert done.status == "ERROR" and ("STARTTLS" in done.message or "454" in done.message), done.message
    words = [line.split()[0].upper() for line in post.text().splitlines()]
    assert set(words) <= {"EHLO", "STARTTLS", "QUIT"} and not post.seen


@pytest.mark.parametrize("value", ["SSL", "tls", "", "yes", True, False, 1, None])
def test_an_unknown_tls_is_a_fault(trusting, value):
    lines = import_lines(trusting, {"host": "mail.example.org", "tls": value})
    assert lines[0] == "* data_servers[0].connect.tls: must be none or starttls or ssl"
    assert lines[-1].startswith("ERR BAD_REQUEST")


def test_a_misspelled_field_of_the_server_is_a_fault(trusting):
    lines = import_lines(trusting, {"host": "mail.example.org", "tsl": "ssl", "tls": "x"})
    assert len(lines) == 3 and lines[0].startswith("* data_servers[0].connect.tsl: unknown field"), lines
    assert import_lines(trusting, {"tls": {"env": "X"}, "port": 25})[-1].startswith("OK")     # told when it is read


def import_lines(agent, connect):
    document = {"data_servers": [{"name": "MAIL", "driver": "smtp", "connect": connect}]}
    return agent.ask("IMPORT '%s'" % json.dumps(document))


@pytest.mark.parametrize("value", ["SSL", "tls", True, False, 1])
def test_an_unknown_tls_of_an_older_definition_is_told_and_nothing_is_sent(trusting, serving, value):
    post = serving(Post, login=True)
    mail_by(trusting, post, **LOGIN)
    with contextlib.closing(sqlite3.connect(str(trusting.master), timeout=LIMIT_S)) as connection, connection:
        text, = connection.execute("select connect from data_server where name='MAIL'").fetchone()
        connection.execute("update data_server set connect=? where name='MAIL'",
                           (json.dumps(dict(json.loads(text), tls=value)),))
    done = run(trusting, MAIL)
    assert done.status == "ERROR" and "MAIL: connect.tls: must be none or starttls or ssl" in done.message
    assert post.text() == ""


def test_a_mail_that_was_taken_is_sent_whatever_comes_after(trusting, serving):
    post = serving(Post, quit="421 busy")
    mail_by(trusting, post)
    done = run(trusting, MAIL)
    assert done.status == "DONE" and len(post.seen) == 1, done.message


def test_a_mail_server_that_answers_for_ever(serving):
    post = serving(Post, trickle=True)
    connect = {"host": "127.0.0.1", "port": post.port, "sender": "agent@example.org"}
    given = dict(MAIL, attach=[], server={"connect": connect})
    result = work(given, "agent.MAIL_S = 0.5")
    assert result["status"] == "ERROR" and "took over 0.5 s" in result["message"], result


def test_mail_by_tls_without_the_module_ssl(serving):
    post = serving(Post, starttls=True)
    for tls in ("ssl", "starttls"):
        connect = {"host": "127.0.0.1", "port": post.port, "sender": "agent@example.org", "tls": tls}
        result = work(dict(MAIL, attach=[], server={"connect": connect}), "sys.modules['ssl'] = None")
        assert result["status"] == "ERROR" and "this host's Python has no TLS" in result["message"], result
    assert post.text() == ""


def test_a_login_that_is_not_ascii_is_not_told(serving):
    post = serving(Post, login=True)
    connect = {"host": "127.0.0.1", "port": post.port, "sender": "a@example.org", "user": "me", "password": "\u00fcber"}
    result = work(dict(MAIL, attach=[], server={"connect": connect}))
    assert result["status"] == "ERROR" and "must be ASCII" in result["message"]
    assert "AUTH" not in post.text()
