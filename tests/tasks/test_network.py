"""Task types of the network on a real agent and real peers: good, bad and stopped courses, TLS, redirects.

The peers keep every byte that they could read, so that a test tells what reached them, and what did not.
"""
import base64
import contextlib
import email
import email.utils
import gzip
import itertools
import json
import os
import re
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import zlib

import pytest

from conftest import LIMIT_S, TOP, AgentProcess, wait_for
from support.peers import SECRET, Peer, Post, Recorded
from support.tasks import begin, run, stop

NUMBERS = itertools.count(1)
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
    """Answers as `answers` of the server says for the path (status, Location; or all bytes), else by its first word:
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
        answer = self.server.answers.get(path, (200, None))
        if isinstance(answer, bytes):
            return self.request.sendall(answer)
        status, location = answer
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


def answer_of(web, content, *headers, before=b""):
    """The path of an answer with this content and these lines of its head."""
    path = "as-it-is/%d" % next(NUMBERS)
    web.answers["/" + path] = before + "\r\n".join(
        ("HTTP/1.1 200 because",) + headers + ("Content-Length: %d" % len(content), "", "")).encode() + content
    return path


def test_what_only_announces_the_answer_is_passed_over(trusting, web):
    early = b"HTTP/1.1 103 early\r\nLink: </a.css>\r\nContent-Length: 7\r\n\r\n"
    before = [early, early + early, b"HTTP/1.1 100 go on\r\n\r\n" + early, b"HTTP/1.1 102 wait\r\n\r\n" + early]
    done = run(trusting, *[get(web, answer_of(web, b"fine", before=lines), capture="v") for lines in before],
               variables={"v": ""})
    assert done.status == "DONE" and done.values["v"] == "fine", done.message
    assert [task["rc"] for task in done.tasks] == ["200"] * len(before)
    done = run(trusting, get(web, answer_of(web, b"", before=early * 3), expect=[103]))
    assert done.status == "ERROR" and "status 200, expected 103" in done.message


@pytest.mark.parametrize("kind, content", [
    ("text/plain; charset=iso-8859-1", b"caf\xe9"), ('text/plain; charset="UTF-16"', "caf\u00e9".encode("utf-16")),
    ("text/plain", b"caf\xc3\xa9"), ("text/plain; charset=nobody-knows", b"caf\xc3\xa9"),
    ("text/plain; charset=base64", b"caf\xc3\xa9")], ids=["latin-1", "utf-16", "none", "unknown", "no charset"])
def test_an_answer_is_read_in_its_charset(trusting, web, tmp_path, kind, content):
    path = answer_of(web, content, "Content-Type: " + kind)
    done = run(trusting, get(web, path, capture="v"), get(web, path, save=str(tmp_path / "out")), variables={"v": ""})
    assert (done.status, done.values["v"]) == ("DONE", "caf\u00e9"), done.message
    assert (tmp_path / "out").read_bytes() == content


def raw_deflate(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


LONG = b"caf\xc3\xa9" * 10000
CODED = [("gzip", gzip.compress(LONG)), ("x-GZIP", gzip.compress(LONG[:100]) + gzip.compress(LONG[100:])),
         ("gzip", gzip.compress(LONG) + b"\0" * 100), ("deflate", zlib.compress(LONG)), ("deflate", raw_deflate(LONG)),
         ("identity", LONG), ("deflate, gzip", gzip.compress(zlib.compress(LONG)))]


def test_an_answer_is_taken_without_its_content_coding(trusting, web, tmp_path):
    """By RFC 9110, 8.4."""
    for coding, content in CODED:
        path = answer_of(web, content, "Content-Encoding: " + coding)
        done = run(trusting, get(web, path, capture="v"), get(web, path, save=str(tmp_path / "out")),
                   get(web, answer_of(web, b"", "Content-Encoding: " + coding), capture="w"), variables={"v": "", "w": "1"})
        assert (done.status, done.values) == ("DONE", {"v": LONG.decode(), "w": ""}), (coding, done.message)
        assert (tmp_path / "out").read_bytes() == LONG


def test_a_gz_that_is_fetched_stays_one(trusting, web, tmp_path):
    content = gzip.compress(LONG)
    for name, kind in (("r.csv.gz", "text/csv"), ("file", "application/gzip")):
        path = answer_of(web, content, "Content-Encoding: x-gzip", "Content-Type: " + kind)
        done = run(trusting, get(web, path, save=str(tmp_path / name)))
        assert done.status == "DONE" and (tmp_path / name).read_bytes() == content, done.message


@pytest.mark.parametrize("coding, content, reason", [
    ("br", b"x", "content coding br, which is not known"), ("gzip", gzip.compress(LONG)[:50], "ended early"),
    ("gzip", b"no gzip at all", "cannot be unpacked"), ("gzip", gzip.compress(b"0" * 50000000), "more than a variable takes")],
                         ids=["unknown", "short", "rubbish", "bomb"])
def test_an_answer_that_cannot_be_unpacked(trusting, web, tmp_path, coding, content, reason):
    path = answer_of(web, content, "Content-Encoding: " + coding)
    done = run(trusting, get(web, path, save=str(tmp_path / "out"), capture="v"), variables={"v": "kept"})
    assert done.status == "ERROR" and reason in done.message and "127.0.0.1" in done.message, done.message
    assert done.values["v"] == "kept" and list(tmp_path.iterdir()) == []
    assert run(trusting, get(web, path)).status == "DONE"          # nobody wants to know what is in it


def test_a_value_is_as_long_as_it_is_in_utf8(trusting, web):
    for size, status in ((1 << 16, "DONE"), ((1 << 16) + 1, "ERROR")):
        content = "\u00e9".encode("utf-16-le") * (size // 2) + b"x\0" * (size % 2)
        path = answer_of(web, content, "Content-Type: text/plain; charset=utf-16-le")
        done = run(trusting, get(web, path, capture="v"), variables={"v": ""})
        assert done.status == status, done.message


def test_nothing_stays_of_an_answer_that_is_not_waited_for(trusting, other, tmp_path):
    session = begin(trusting, get(other, "trickle/body", save=str(tmp_path / "out")))
    wait_for(lambda: list(tmp_path.iterdir()), "the half of a file")
    stop(trusting, session)
    assert list(tmp_path.iterdir()) == []


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


def sent(trusting, serving, **fields):
    """(recipients, message) of a mail."""
    post = serving(Post)
    mail_by(trusting, post)
    done = run(trusting, dict(MAIL, **fields))
    assert done.status == "DONE", (done.message, done.texts)
    _, to, message = post.seen.pop()
    return to, message


def test_a_mail_has_a_date_and_an_id(trusting, serving):
    begun = int(time.time())
    messages = [sent(trusting, serving)[1] for _ in range(2)]
    for message in messages:
        assert begun <= email.utils.parsedate_to_datetime(str(message["Date"])).timestamp() <= time.time()
    ids = {str(message["Message-ID"]).strip() for message in messages}
    assert len(ids) == 2 and all(re.match(r"<[^<>@ ]+@example\.org>$", text) for text in ids)


@pytest.mark.parametrize("to, addresses, names", [
    (["Doe, Jane <j@x.example>"], ["j@x.example"], ["Doe, Jane"]),
    (['"Doe, Jane" <j@x.example>'], ["j@x.example"], ["Doe, Jane"]),
    (["M\u00fcller, J\u00f6rg <j@x.example>", "b@x.example"], ["j@x.example", "b@x.example"], None),
    (["a@x.example, b@x.example"], ["a@x.example", "b@x.example"], ["", ""]),
    (["A <a@x.example>, B <b@x.example>"], ["a@x.example", "b@x.example"], ["A", "B"]),
    (["Jane Doe (ops) <j@x.example>"], ["j@x.example"], None), (["<j@x.example>"], ["j@x.example"], [""]),
    ([" j@x.example\n"], ["j@x.example"], [""]), (["root"], ["root"], [""])])
def test_what_is_one_address(trusting, serving, to, addresses, names):
    seen, message = sent(trusting, serving, to=to)
    assert seen == addresses
    assert names is None or [address.display_name for address in message["To"].addresses] == names


@pytest.mark.parametrize("to", ["Jane <>", "a b@x.example", "Doe, Jane <>", " "])
def test_what_is_no_address(trusting, serving, to):
    post = serving(Post)
    mail_by(trusting, post)
    done = run(trusting, dict(MAIL, to=["a@x.example", to]))
    assert done.status == "ERROR" and "header" in done.message and not post.seen, done.message


def test_an_attachment_without_an_end_is_told(trusting, serving, tmp_path):
    post = serving(Post)
    mail_by(trusting, post)
    os.mkfifo(str(tmp_path / "pipe"))
    done = run(trusting, dict(MAIL, attach=[str(tmp_path / "pipe")]))
    assert done.status == "ERROR" and "is a named pipe" in done.message and not post.seen


EML = (b"Received: from a (a [10.0.0.1]) by b with ESMTP id 0123456789 for <somebody@example.org>; Mon, 2 Jan 2006 00:00:00\r\n"
       b"From: x@y.example\r\nSubject: =?utf-8?q?caf=C3=A9?=  and a long subject that nobody has folded, though it is"
       b" over 78 columns\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=b\"\r\n\r\npreamble\r\n--=b\r\n"
       b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ncaf\xc3\xa9\r\n.\r\n--=b--\r\n")


def test_a_mail_is_attached_whole(trusting, serving, tmp_path):
    (tmp_path / "m.eml").write_bytes(EML)
    (tmp_path / "unix.eml").write_bytes(EML.replace(b"\r\n", b"\n"))
    post = serving(Post)
    mail_by(trusting, post)
    done = run(trusting, dict(MAIL, attach=[str(tmp_path / "m.eml"), str(tmp_path / "unix.eml")]))
    assert done.status == "DONE", (done.message, done.texts)
    for part, name in zip(post.seen.pop()[2].iter_attachments(), ("m.eml", "unix.eml")):
        assert (part.get_content_type(), part.get_filename()) == ("message/rfc822", name)
        assert part["Content-Transfer-Encoding"] in (None, "7bit", "8bit")
        assert part.get_payload(0)["Subject"].startswith("caf\u00e9  and a long")
    assert post.text().encode("latin-1").count(EML.replace(b"\r\n.\r\n", b"\r\n..\r\n")) == 2


@pytest.mark.parametrize("name, kind", [
    ("r.csv", "text/csv"), ("r.csv.gz", "application/gzip"), ("r.tgz", "application/gzip"),
    ("r.csv.bz2", "application/x-bzip2"), ("r.xz", "application/x-xz"), ("r.eml.gz", "application/gzip"),
    ("r", "application/octet-stream"), ("r.pdf", "application/pdf")])
def test_what_kind_an_attachment_is(trusting, serving, tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"\x1f\x8b\0\xff")
    part, = sent(trusting, serving, attach=[str(tmp_path / name)])[1].iter_attachments()
    assert (part.get_content_type(), part.get_filename()) == (kind, name)
    assert part.get_payload(decode=True) == b"\x1f\x8b\0\xff"


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
