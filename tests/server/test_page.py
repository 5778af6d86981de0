"""The operator page at the port: who gets it, under which names, and what comes with every answer."""
import json
import re
import socket
import time

import pytest

from conftest import program
from support.other_user import NOBODY
from support.pages import basic, browse, exchange
from support.sealed import (AWAY, SealedClient, authority, away, certificate,  # noqa: F401 (fixtures)
                            plain_client, serve)

PATHS = ("/", "/session/1001", "/schedules", "/metrics", "/api/", "/api/session/1001", "/api/schedules", "/page.css",
         "/page.js", "/icon.svg")


@pytest.fixture
def stranger(monkeypatch):
    """Connections of loopback are an OS user's whom the agent does not know."""
    monkeypatch.setattr(program, "find_peer_uid", lambda connection: NOBODY)


@pytest.fixture
def plain(serve):  # noqa: F811
    """The port of a Server of `inside` without TLS."""
    return serve(has_tls=False).port


@pytest.fixture(scope="module")
def door(shared_inside):
    """The port of one Server for the tests that leave nothing behind."""
    server = program.Server(shared_inside.agent, "127.0.0.1", 0, program.WireLimits())
    server.listen()
    yield server.port
    server.close()


def sealed_reply(port, authority, path="/", headers="", source="127.0.0.1", host="localhost", **words):  # noqa: F811
    client = SealedClient(port, authority, source=source, **words)
    client._file.close()
    return browse(port, path, host, headers, client.socket)


# -- the answers -----------------------------------------------------------------------


def test_every_address_is_answered_whole_and_by_the_rules(inside, plain):
    inside.ok("EXEC HELLO -SYNC")
    for path in PATHS:
        reply = browse(plain, path)
        assert reply.status == 200, (path, reply.text)
        headers = reply.headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
        assert headers["connection"] == "close" and headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY" and headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store" and re.match("..., .. ... .... ..:..:.. GMT$", headers["date"])
        kind = headers["content-type"].split(";")[0]
        assert kind == {"/metrics": "text/plain", "/page.css": "text/css", "/page.js": "text/javascript",
                        "/icon.svg": "image/svg+xml"}.get(path, "application/json" if "/api" in path else "text/html")
    assert json.loads(browse(plain, "/api/session/1001").text)["title"].startswith("HELLO 1001")


def test_what_belongs_to_every_page_may_be_kept_under_its_digest(door):
    page = browse(door).text
    for path in re.findall('(?:href|src)="(/(?:page|icon)[^"]*)"', page):
        assert "immutable" in browse(door, path).headers["cache-control"] and "?v=" in path
        assert browse(door, path + "0").headers["cache-control"] == "no-store"


def test_nothing_in_a_page_is_run_or_loaded_from_elsewhere(inside, plain):
    inside.ok("EXEC HELLO -SYNC")
    for path in PATHS[:3]:
        page = browse(plain, path).text
        assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:|(?:src|href)=\"(?!/|#|\")", page), path
        assert re.findall("<script([^>]*)>", page) == [' src="%s" defer' % re.search(r"/page\.js\?v=\w+", page).group()]
    code = "".join(browse(plain, path).text for path in ("/page.css", "/page.js"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|eval\(|localStorage|document\.cookie", code)


def test_other_addresses(inside, plain):
    for path, status in (("/nope", 404), ("/session/", 404), ("/session/1001/", 404), ("/session/7001", 404),
                         ("/session/1002", 404), ("/session/" + "9" * 15, 404), ("/session/" + "9" * 16, 404),
                         ("/session/0", 404), ("//", 404), ("/..", 404), ("/%2e%2e/%2e%2e/etc/passwd", 404),
                         ("/page.css/../page.js", 404), ("/%ff", 400), ("/%00", 400), ("/?text=%ff", 400), ("/api", 200),
                         ("/api/nope", 404), ("/api/metrics", 404), ("/%73chedules", 200), ("/?nope=1&&=&%", 200),
                         ("/#x", 200), ("/session/%D9%A1", 404)):
        assert browse(plain, path).status == status, path
    for line in (b"GET http://localhost/ HTTP/1.1", b"GET * HTTP/1.1", b"GET localhost HTTP/1.0"):
        assert exchange(plain, line + b"\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert exchange(plain, b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in inside.log()


def test_other_methods_and_what_is_behind_a_page_are_nothing(inside, plain):
    for method in ("HEAD", "POST", "OPTIONS", "PUT", "get", "Get"):
        answer = exchange(plain, ("%s / HTTP/1.1\r\nHost: localhost\r\n\r\n" % method).encode())
        assert answer.startswith(b"ERR ") and answer.count(b"\n") == 1
    for rest in (b"EXEC HELLO\n", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", b"x" * 60000):
        answer = exchange(plain, b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(rest) + rest)
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"</svg>")
    answer = exchange(plain, b"PING\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\nEXEC HELLO\n")
    assert [line.split()[:2] for line in answer.splitlines()] == [[b"OK", b"agent=AGENT"], [b"ERR", b"UNKNOWN_VERB"]]
    assert inside.rows("SESSIONS") == []


# -- its bounds ------------------------------------------------------------------------


@pytest.mark.parametrize("head, status", [
    (b"Host : localhost", 400), (b" Host: localhost", 400), (b"Host: localhost\r\n folded", 400), (b"Host", 400),
    (b"Host: localhost\r\nHost: localhost", 400), (b": x", 400), (b"Host: local\x01host", 400), (b"EXEC HELLO", 400),
    (b"Host: localhost\r\nX: \x80\xff", 200), (b"hOST:localhost", 200), (b"Host: \t localhost \t", 200),
    (b"Host: localhost\r\nX: " + b"x" * 16000, 200), (b"Host: localhost\r\nX: " + b"x" * 16400, 431),
    (b"Host: localhost" + b"\r\nX: y" * 3000, 431), (b"Host: localhost\r\nX: " + b"x" * 200000, 431)])
def test_headers(door, head, status):
    answer = exchange(door, b"GET /icon.svg HTTP/1.1\r\n" + head + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:100]


def test_a_long_address(door):
    for size, start in ((15000, b"HTTP/1.1 200"), (17000, b"HTTP/1.1 431"), (70000, b"ERR TOO_LONG")):
        data = b"GET /?text=%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * size)
        assert exchange(door, data).startswith(start)


def test_headers_that_do_not_come_are_not_waited_for(door, monkeypatch):
    monkeypatch.setattr(program, "HEAD_S", 0.3)
    for data in (b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nX"):
        assert exchange(door, data).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", door), 60) as client:      # a byte now and then is no help
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        until = time.monotonic() + 60
        client.settimeout(0.02)
        answer = b""
        while not answer and time.monotonic() < until:
            client.sendall(b"x")
            try:
                answer = client.recv(100)
            except socket.timeout:
                pass
        assert answer.startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", door), 60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_request_in_pieces(door):
    with socket.create_connection(("127.0.0.1", door), 60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n":
            client.sendall(bytes([byte]))
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_without_a_thread_to_answer_it(door, monkeypatch):
    def cannot_start(*_):
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(program.Worker, "start", cannot_start)
    assert exchange(door, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"ERR BUSY the host has no thread")
    monkeypatch.undo()
    assert browse(door).status == 200


# -- its names -------------------------------------------------------------------------


@pytest.mark.parametrize("host, status", [
    ("localhost", 200), ("LOCALHOST:20910", 200), ("localhost.", 200), ("127.0.0.1", 200), ("127.0.0.1:1", 200),
    ("127.9.8.7", 200), ("[::1]", 200), ("[::1]:20910", 200), ("", 403), ("evil.example", 403), ("10.0.0.1", 403),
    ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403), ("evil.example:20910", 403), ("0.0.0.0", 403),
    ("localhost, evil.example", 403), ("localhost evil", 403), ("user@localhost", 403), ("[::2]", 403), ("::1", 403),
    ("1127.0.0.1", 403), ("localhos\u0165".encode("utf-8").decode("latin-1"), 403), ("127.0.0.1:x", 403)])
def test_names_of_loopback_alone(door, host, status):
    """So no site can have its own name lead to this port (DNS rebinding)."""
    for path in ("/", "/metrics", "/api/", "/page.js"):
        assert browse(door, path, host).status == status


def test_a_request_without_a_name(door):
    assert exchange(door, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403 ")


def test_further_names(make_inside):
    running = make_inside("--page-host", "agent.example, OPS.example.,[fd00::1]").start()
    names = program.list_page_names(running.agent.settings)
    assert names == {"127.0.0.1", "agent.example", "ops.example", "fd00::1"}
    for host in ("agent.example", "Agent.Example:443", "ops.example", "[fd00::1]:1"):
        program.check_origin({"host": host}, names)
    for host in ("x.agent.example", "ample", "fd00::1", "agent.example,ops.example"):
        with pytest.raises(program.HttpError) as caught:
            program.check_origin({"host": host}, names)
        assert caught.value.status == 403 and "--page-host" in caught.value.message


@pytest.mark.parametrize("site, status", [
    ("cross-site", 403), ("CROSS-SITE", 403), ("same-origin", 200), ("same-site", 200), ("none", 200)])
def test_another_site_may_not_lead_here(door, site, status):
    assert browse(door, "/", headers="Sec-Fetch-Site: %s\r\n" % site).status == status
    double = browse(door, "/", headers="Sec-Fetch-Site: none\r\nSec-Fetch-Site: %s\r\n" % site)
    assert double.status == 400


# -- who asks --------------------------------------------------------------------------


def test_a_stranger_of_this_host_gets_nothing(inside, plain, stranger):
    inside.ok("USERS ADD bob -ROLE=administrator")
    inside.ok('USERS PASSWORD bob "correct horse"')
    for path in PATHS + ("/nope",):
        for headers in ("", basic("bob", "correct horse"), basic("bob", "wrong")):
            reply = browse(plain, path, headers=headers)
            assert reply.status == 403 and "https" in reply.text and "www-authenticate" not in reply.headers
            assert "AGENT" not in reply.text
    assert inside.rows("AUDIT -VERB=GET")[0]["outcome"] == "AUTH"


def test_an_os_user_whom_the_agent_knows(inside, plain, stranger):
    inside.ok("EXEC HELLO -SYNC")
    inside.ok("USERS ADD bob -ROLE=monitor -OS_USER=%d" % NOBODY)
    assert [browse(plain, path).status for path in PATHS] == [200] * len(PATHS)
    inside.ok("USERS SET bob -SCENARIOS=OTHER*")
    assert [browse(plain, path).status for path in PATHS[:4]] == [200, 404, 200, 403]
    assert "HELLO" not in browse(plain).text and "HELLO" not in browse(plain, "/api/").text
    inside.ok("USERS DEL bob")
    assert browse(plain).status == 403


def test_by_tls_a_user_says_who_he_is(inside, serve, authority, quick_hashes, stranger):  # noqa: F811
    port = serve().port
    inside.ok("USERS ADD bob -ROLE=monitor")
    inside.ok('USERS PASSWORD bob "correct h\u00f6rse: x"')
    reply = sealed_reply(port, authority)
    assert reply.status == 401 and reply.headers["www-authenticate"] == 'Basic realm="agent", charset="UTF-8"'
    for words in (basic("bob", "wrong"), "Authorization: Basic %%%\r\n", "Authorization: Bearer x\r\n",
                  "Authorization: Basic Ym9i\r\n", "Authorization:\r\n", "Authorization: Basic gICA\r\n"):
        assert sealed_reply(port, authority, headers=words).status == 401
    for path in PATHS[:1] + PATHS[2:5]:
        assert sealed_reply(port, authority, path, basic("bob", "correct h\u00f6rse: x")).status == 200
    assert inside.rows("AUDIT -VERB=AUTH")[0]["object"] == "bob"


def test_a_password_for_one_use_is_not_let_in(inside, serve, authority, quick_hashes, stranger):  # noqa: F811
    port = serve().port
    password = inside.ok("USERS ADD bob -ROLE=administrator")["password"]
    for path in PATHS:
        reply = sealed_reply(port, authority, path, basic("bob", password))
        assert reply.status == 403 and "USERS PASSWORD" in reply.text


def test_from_elsewhere_without_tls_it_says_why_not(serve, authority, away):  # noqa: F811
    port = serve().port
    client = plain_client(port, AWAY)
    client._file.close()
    reply = browse(port, "/", headers=basic("bob", "x"), connection=client.socket)
    assert reply.status == 403 and "https" in reply.text


def test_no_owner_asks_everybody(make_agent):
    running = make_agent().start()
    running.ok("USERS ADD root -ROLE=administrator")
    running.ok('USERS PASSWORD root "correct horse"')
    assert browse(running.port).status == 200
    running.stop()
    running.options.append("--no-owner")
    running.start()
    assert browse(running.port).status == browse(running.port, headers=basic("root", "correct horse")).status == 403
    running.stop()


def test_where_the_host_does_not_tell_the_owner_shows_his_token(monkeypatch, make_inside):
    monkeypatch.setattr(program, "HOST_TELLS", False)
    running = make_inside().start()
    monkeypatch.setattr(program, "find_peer_uid", lambda connection: None)
    token = (running.folder / "master.db.AGENT.token").read_text().strip()
    server = program.Server(running.agent, "127.0.0.1", 0, program.WireLimits())
    server.listen()
    try:
        assert browse(server.port).status == 401
        for _ in range(8):                              # whoever guesses does not keep the owner out
            assert browse(server.port, headers=basic("-", token[:-1])).status in (401, 429)
        assert browse(server.port, headers=basic("-", token)).status == 200
    finally:
        server.close()


def test_by_the_unix_socket(make_agent, tmp_path):
    path = tmp_path / "socket"
    make_agent("--unix", str(path)).start()
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(str(path))
    assert browse(None, connection=client).status == 200


# -- logins that are remembered --------------------------------------------------------


@pytest.fixture
def logins(inside, quick_hashes):
    """Logs bob in, as a page does: -> the Client; `comparisons` counts the passwords that were compared."""
    inside.ok("USERS ADD bob -ROLE=monitor")
    inside.ok('USERS PASSWORD bob "correct horse"')
    access, own = inside.agent.access, inside.agent.access._desk.is_right

    def log_in(password="correct horse", address="10.0.0.1", name="bob"):
        return access.log_in_again(program.Peer(None, "", address), name, password)
    log_in.comparisons = 0

    def is_right(*words):
        log_in.comparisons += 1
        return own(*words)
    access._desk.is_right = is_right
    return log_in


def test_a_login_is_remembered_for_five_minutes(inside, logins):
    for _ in range(5):
        assert logins().user == "bob"
    assert logins.comparisons == 1
    logins(address="10.0.0.2")                          # each source says it itself
    assert logins.comparisons == 2
    inside.clock.passed += 299
    logins()
    assert logins.comparisons == 2
    inside.clock.passed += 2
    logins()
    assert logins.comparisons == 3


@pytest.mark.parametrize("change", ['USERS PASSWORD bob "another horse"', "USERS DEL bob", "USERS SET bob -RESET"])
def test_a_login_is_forgotten_when_the_user_changes(inside, logins, change):
    logins()
    inside.ok(change)
    with pytest.raises(program.AuthError):
        logins()


def test_what_a_user_may_do_changes_at_once(inside, logins):
    assert logins().role == "monitor" and logins().scenarios == ()
    inside.ok("USERS SET bob -SCENARIOS=A*")
    assert logins().scenarios == ("A*",) and logins.comparisons == 1


def test_wrong_passwords_slow_down_and_starve_nobody(inside, logins):
    logins(address="10.0.0.2")
    for _ in range(5):
        with pytest.raises(program.AuthError):
            logins("wrong")
    for _ in range(50):
        with pytest.raises(program.Busy):
            logins("wrong")
    with pytest.raises(program.Busy):                   # even the right one, as with AUTH
        logins()
    assert logins.comparisons == 6
    assert logins(address="10.0.0.2").user == "bob" and logins(address="10.0.0.3").user == "bob"


def test_memory_has_no_password(inside, logins):
    logins()
    held = repr(vars(inside.agent.access._logins))
    assert "correct horse" not in held and "bob" in held


def test_logins_are_bounded(inside):
    memory = program.Logins(inside.clock)
    for number in range(1500):
        memory.keep(("a", number), "bob", "x", program.Client("monitor", "bob"))
    assert len(memory._clients) == program.MAX_LOGINS and memory.find(("a", 1499), "bob", "x")
    assert memory.find(("a", 1), "bob", "x") is None


def test_throttled_by_http(inside, serve, authority, quick_hashes, stranger):  # noqa: F811
    port = serve().port
    codes = [sealed_reply(port, authority, headers=basic("bob", "x")).status for _ in range(7)]
    assert codes == [401] * 5 + [429] * 2
