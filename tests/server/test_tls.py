"""TLS: who speaks it, who may not do without, client certificates, what is wrong with certificates, and who pays for it."""
import contextlib
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import pytest

import agent as program
from conftest import LIMIT_S, Client, wait_for
from support.certificates import Authority, openssl, sign_server
from support.client import run_client
from support.sealed import AWAY, SealedClient, authority, away, certificate, plain_client, serve  # noqa: F401
from support.users import add_user
from support.wire import client_threads, codes

def reached(inside, limit):
    """How often a limit on connections was reached, by METRICS."""
    line = next(line for line in inside.ask("METRICS") if 'reached_total{limit="%s"}' % limit in line)
    return int(line.split()[-1])


def lines_until_end(client):
    """All that comes until the agent closes."""
    return client._file.read().decode().splitlines()


# -- who speaks it ---------------------------------------------------------------------

def ask_openssl(port, authority, text, *options):
    """What `openssl s_client` shows, for these lines."""
    with subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-CAfile", str(authority.path),
                           "-verify_return_error"] + list(options), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        process.stdin.write(text)
        process.stdin.flush()
        return process.communicate(timeout=LIMIT_S)[0].decode("utf-8", "replace")


def test_openssl_speaks_with_it(serve, authority):
    port = serve().port
    for version in ("-tls1_2", "-tls1_3"):
        shown = ask_openssl(port, authority, b"PING\nEXEC HELLO -NAME=sealed\nQUIT\n", version, "-quiet")
        assert "OK agent=AGENT" in shown and "OK session=" in shown, shown
    shown = ask_openssl(port, authority, b"PING\n", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "OK agent=" not in shown and "alert" in shown, shown


def test_by_one_port_by_tls_and_plainly(serve, authority):
    port = serve().port
    with SealedClient(port, authority) as sealed, Client(port) as plain:
        for client in (sealed, plain, sealed):
            client.send_raw(b"PI")
            client.send_raw(b"NG\nSCENARIOS\n\nNOPE\n")
            client.expect("OK agent=AGENT *")
            client.expect("* repository=WORKREP scenario=HELLO *", "OK")
            client.expect("ERR UNKNOWN_VERB *")
        assert sealed.ask("HELP") == plain.ask("HELP")
        long = "EXEC HELLO who=%s -REPO=NOPE" % ("x" * 60000)
        assert sealed.err(long) == plain.err(long) == "NOT_FOUND"
        sealed.send("PING -NOPE")
        sealed.expect("ERR BAD_REQUEST *")
        sealed.send("QUIT")
        assert lines_until_end(sealed) == ["OK"]


def test_the_rules_of_lines_hold_by_tls(serve, authority):
    port = serve().port
    for line, answers in ((b"HEAD / HTTP/1.1\r\nEXEC HELLO\r\n", ["ERR UNKNOWN_VERB"]),
                          (b"GET / HTTP/1.1\r\nEXEC HELLO\r\n", []), (b"HELP\x01\nPING\n", ["ERR BAD_REQUEST"]),
                          (b"PING\n" + b"x" * 70000, ["OK", "ERR TOO_LONG"]), (b"PING\nPI", ["OK"])):
        with SealedClient(port, authority) as client:
            client.send_raw(line)
            if line.endswith(b"PI"):
                client.expect("OK agent=AGENT *")
                with contextlib.suppress(OSError):
                    client.socket.unwrap()              # its farewell, and nothing more
            else:
                assert codes(lines_until_end(client)) == answers
    wait_for(lambda: not client_threads(), "the threads to end")


def test_the_first_byte_of_tls_without_certificates(serve):
    with Client(serve(has_tls=False).port) as client:
        client.send_raw(b"\x16\x03\x01\x00\xa5\x01\n")
        assert codes(lines_until_end(client)) == ["ERR BAD_REQUEST"]


def test_a_client_that_is_gone_is_not_waited_for(inside, serve, authority):
    inside.import_os("LONG", "sleep 1000")
    session = inside.ok("EXEC LONG")["session"]
    port = serve().port
    for is_polite in (True, False):
        client = SealedClient(port, authority)
        client.send("WAIT %s" % session)
        wait_for(lambda: len(client_threads()) == 1, "its thread")
        if is_polite:
            with contextlib.suppress(OSError):
                client.socket.settimeout(0.2)
                client.socket.unwrap()                  # the agent's farewell comes after its reply
        client.close()
        wait_for(lambda: not client_threads(), "its thread to end")
    inside.ok("STOP %s -IMMEDIATE" % session)


# -- who may not do without ------------------------------------------------------------

def test_elsewhere_plain_lines_are_not_served(serve, authority, away):
    port = serve().port
    for data, answer in ((b"PING\nEXEC HELLO\n", "ERR AUTH lines that are not sealed *"), (b"HELP\n", "ERR AUTH *"),
                         (b"AUTH alice secret\n", "ERR AUTH *"), (b"PING -JSON\n", 'ERR AUTH {"message": "lines that *"}'),
                         (b"x" * 70000, "ERR AUTH *"), (b"HEAD / HTTP/1.1\r\n", "ERR AUTH *")):
        with plain_client(port, AWAY) as client:
            client.send_raw(data)
            client.expect(answer)
            assert lines_until_end(client) == []
    with SealedClient(port, authority, source=AWAY) as client:
        assert client.err("PING") == "AUTH" and client.ask("HELP")[-1] == "OK"


def own_address():
    """An address of this host that is not loopback; skips where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))             # sends nothing
            address = probe.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
    if program.is_loopback(address):
        pytest.skip("this host has no address but loopback")
    return address


@pytest.mark.parametrize("host", ["own", "0.0.0.0", "::"])
def test_at_an_address_that_is_not_loopback(inside, authority, certificate, host):
    """The agent's own user is nobody there, too."""
    address = own_address()
    certificates = program.Certificates(str(certificate), None, str(authority.path), inside.clock)
    server = program.Server(inside.agent, host.replace("own", address), 0, program.WireLimits(), None, certificates)
    server.listen()
    try:
        with plain_client(server.port, address, address) as client:
            client.send("PING")
            client.expect("ERR AUTH lines that are not sealed *")
        row = inside.rows("AUDIT -VERB=CONNECT")[0]
        assert (row["address"], row["user"], row["object"], row["outcome"]) == (address, "", "", "AUTH")
        with SealedClient(server.port, authority, None, address, address) as client:
            assert client.err("PING") == "AUTH"
        inside.ok("USERS ADD alice -ROLE=monitor")
        with SealedClient(server.port, authority, authority.sign("alice", "alice"), address, address) as client:
            assert client.ok("PING") and client.err("EXEC HELLO") == "DENIED"
        if host != "own":
            with Client(server.port) as client:
                assert client.ok("EXEC HELLO")
    finally:
        server.close()


def test_without_tls_elsewhere_is_served_plainly(serve, away):
    """--insecure: else nobody listens there."""
    with plain_client(serve(has_tls=False).port, AWAY) as client:
        assert client.err("PING") == "AUTH" and client.ask("HELP")[-1] == "OK"


@pytest.mark.parametrize("options, told", [
    ((), r"--host 0\.0\.0\.0 is no loopback address: give --tls-cert"), (("TLS",), "there is no user"),
    (("--tls-key", "x"), "go with --tls-cert")])
def test_what_has_to_be_there_for_other_hosts(make_agent, certificate, options, told):
    options = ("--tls-cert", str(certificate)) if options == ("TLS",) else options
    running = make_agent("--host", "0.0.0.0", "--as-root", *options).start(is_ready=False)
    assert running.wait() == (2 if "--tls-key" in options else 1) and told.replace("\\", "") in running.log()


@pytest.mark.skipif(os.getuid() != 0, reason="for an agent of root")
def test_an_agent_of_root_serves_no_other_host_unless_that_is_said(make_agent, certificate):
    running = make_agent("--host", "0.0.0.0", "--insecure").start(is_ready=False)
    assert running.wait() == 1 and "--as-root" in running.log() and "Traceback" not in running.log()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_any_address_for_who_knows_better(make_agent, host):
    if host == "::" and not socket.has_ipv6:
        pytest.skip("needs IPv6")
    running = make_agent("--host", host, "--insecure", "--as-root").start()
    assert running.ok("EXEC HELLO -SYNC")["status"] == "DONE"       # by 127.0.0.1 it is the owner


# -- client certificates ---------------------------------------------------------------

def test_a_client_certificate_says_who_it_is(inside, serve, authority, away):
    server = serve()
    inside.ok("USERS ADD alice -ROLE=operator")
    alice, bob = authority.sign("alice", "alice"), authority.sign("bob", "bob")
    with SealedClient(server.port, authority, alice, AWAY) as client:
        assert client.ok("PING")["status"] == "READY"
        session = client.ok("EXEC HELLO -SYNC")["session"]
        assert client.err("SHUTDOWN") == "DENIED"
    for other in (bob, None):
        with SealedClient(server.port, authority, other, AWAY) as client:
            assert client.err("PING") == "AUTH"
    assert inside.status(session)["status"] == "DONE"


def test_a_certificate_of_another_authority_is_refused(inside, serve, authority, away, tmp_path):
    server = serve()
    inside.ok("USERS ADD alice -ROLE=operator")
    forged = Authority(tmp_path / "other", "other").sign("alice", "alice")
    for _ in range(5):
        with pytest.raises((OSError, AssertionError)):          # with TLS 1.3 what refuses comes later
            with SealedClient(server.port, authority, forged, AWAY) as client:
                client.ok("PING")
    (line,) = [line for line in inside.log().splitlines() if "TLS with" in line]
    assert "TLS with %s failed: " % AWAY in line and "certificate" in line


def test_what_fails_is_logged_once_a_minute_and_counted(inside, serve, monkeypatch):
    server = serve()
    for times in (3, 1):
        for _ in range(times):
            with Client(server.port) as client:
                client.send_raw(b"\x16\x03\x01\x00\x05hello")
                client._file.read()
        monkeypatch.setattr(server.certificates, "_quiet_until", 0.0)
    first, second = [line for line in inside.log().splitlines() if "TLS with" in line]
    assert "others" not in first and "; 2 others before" in second


def test_a_password_is_taken_by_tls_from_elsewhere(inside, serve, authority, away, tmp_path):
    server, secret = serve(), tmp_path / "secret"
    add_user(inside, "alice", "operator")
    with SealedClient(server.port, authority, source=AWAY) as client:
        assert client.err("PING") == "AUTH"
        assert client.ok('AUTH alice "correct horse"')["user"] == "alice"
        assert client.ok("PING") and client.err("SHUTDOWN") == "DENIED"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    result = run_client(server.port, "users", "list", "--user", "alice", "--password-file", str(secret), "--tls-ca",
                        str(authority.path))
    assert result.status == 4 and "DENIED" in result.err        # it is alice, also where the owner would be let in


# -- who pays --------------------------------------------------------------------------

def test_a_handshake_that_never_ends_costs_nobody_else_anything(inside, serve, authority):
    server = serve(stranger_s=1.5)
    slow = [Client(server.port) for _ in range(20)]
    for client in slow:
        client.send_raw(b"\x16\x03\x01")
    wait_for(lambda: len(client_threads()) == 20, "their threads")
    with Client(server.port) as plain, SealedClient(server.port, authority) as sealed:
        assert plain.ok("PING") and sealed.ok("PING")
        for client in slow:
            with contextlib.suppress(OSError):
                client.send_raw(b"\x01")                # no byte in between gives it longer
            assert client._file.read() == b""
    assert reached(inside, "handshake") == 20
    for client in slow:
        client.close()


def test_wrong_beginnings_of_tls(inside, serve, authority):
    """Of a real one, some bytes are others, too many or too few: nobody is let in, and nothing breaks."""
    server, rng = serve(stranger_s=0.3), random.Random(13)
    context, outgoing = ssl.create_default_context(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()
    for _ in range(150):
        data = bytearray(hello)
        for _ in range(rng.randrange(1, 8)):
            place = rng.randrange(1, len(data))
            data[place:place + rng.choice((0, 1, 1, 1, 9))] = bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 1, 5))))
        with Client(server.port) as client:
            client.send_raw(bytes(data) + b"\nEXEC HELLO\n" * rng.randrange(2))
            with contextlib.suppress(OSError):
                client.socket.shutdown(socket.SHUT_WR)
                assert b"OK" not in client._file.read().splitlines()
    wait_for(lambda: server.connection_count == 0, "all to be gone")
    assert inside.rows("SESSIONS") == []
    with SealedClient(server.port, authority) as client:
        assert client.ok("PING")


def test_the_owner_pays_nothing_for_it(serve):
    """No thread and no wait for who speaks plainly, also before he does."""
    server = serve()
    before = threading.active_count()
    clients = [Client(server.port) for _ in range(20)]
    for client in clients[::2]:
        assert client.ok("PING")
    wait_for(lambda: server.connection_count == 20, "all to be let in")
    assert threading.active_count() == before
    for client in clients:
        client.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs /proc")
def test_without_certificates_no_tls_is_loaded(make_agent, certificate):
    def has_tls(running):
        with open("/proc/%d/maps" % running.process.pid) as file:
            return "libssl" in file.read()
    assert not has_tls(make_agent().start())
    assert has_tls(make_agent("--tls-cert", str(certificate), folder="tls").start())


def test_a_python_without_tls(monkeypatch, inside, certificate):
    monkeypatch.setitem(sys.modules, "ssl", None)
    with pytest.raises(program.CannotStart, match="--tls-cert: this host's Python has no TLS"):
        program.Certificates(str(certificate), None, None, inside.clock)


# -- what is wrong with certificates ---------------------------------------------------

def test_certificates_that_cannot_be_used(inside, authority, certificate, tmp_path):
    other = authority.sign("other", "other")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    locked = tmp_path / "locked.key"
    openssl("ec", "-in", authority.folder / "server.key", "-aes128", "-passout", "pass:word", "-out", locked)
    bare = tmp_path / "bare.pem"
    bare.write_text(certificate.read_text().partition("-----BEGIN PRIVATE")[0])
    for files, told in (((tmp_path / "no.pem", None, None), r"--tls-cert \S+no\.pem: No such file"),
                        ((certificate, tmp_path / "no.key", None), r"--tls-key \S+no\.key: No such file"),
                        ((certificate, None, tmp_path / "no.ca"), r"--tls-client-ca \S+no\.ca: No such file"),
                        ((certificate, other, None), "the key does not belong to the certificate"),
                        ((empty, None, None), r"--tls-cert \S+empty\.pem --tls-key \S+: "),
                        ((bare, locked, None), "passphrase"), ((certificate, None, empty), r"--tls-client-ca \S+empty\.pem: ")):
        with pytest.raises(program.CannotStart, match=told):
            program.Certificates(*[path and str(path) for path in files], clock=inside.clock)


def shown_serial(port):
    """The serial number of the certificate that an agent shows."""
    der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))
    return openssl("x509", "-inform", "der", "-noout", "-serial", input=der)


def test_certificates_are_read_again_at_sighup(make_agent, authority, tmp_path):
    path = tmp_path / "now.pem"
    first, second = sign_server(authority, "first"), sign_server(authority, "second")
    path.write_text(first.read_text())
    running = make_agent("--tls-cert", str(path)).start()
    with SealedClient(running.port, authority) as client:
        before = shown_serial(running.port)
        path.write_text(second.read_text())
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: shown_serial(running.port) != before, "the new certificate")
        path.write_text("nothing")
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "the TLS certificates from before stay" in running.log(), "the log to tell")
        after = shown_serial(running.port)
        assert after != before and client.ok("PING")            # connections go on
    assert running.stop() == 0


def test_a_key_that_everybody_can_read_is_told(inside, serve, certificate):
    serve()
    assert "can read the key" not in inside.log()
    certificate.chmod(0o644)
    try:
        serve()
        assert "everybody on this host can read the key %s" % certificate in inside.log()
    finally:
        certificate.chmod(0o600)


def test_a_certificate_that_expires_is_told_before_and_after(inside, serve, authority):
    certificates = serve().certificates
    assert "expires" not in inside.log()
    for day, told in ((17, " expires at "), (25, "in 4 days"), (31, " expired at ")):
        inside.clock.passed = day * 86400.0
        certificates._tell_expiry()
        assert told in inside.log().splitlines()[-1]


def test_an_expired_certificate_is_served_and_the_client_sees_it(make_agent, authority):
    expired = sign_server(authority, "expired", 0)
    time.sleep(1.1)
    running = make_agent("--tls-cert", str(expired)).start()
    result = run_client(running.port, "ping", "--tls", "--tls-ca", str(authority.path), "--host", "localhost")
    assert result.status == 3 and ("expired" in result.err or sys.version_info < (3, 7))
    assert running.ok("PING")["status"] == "READY" and " expired at " in running.log()


# -- the client ------------------------------------------------------------------------

def test_agentcli_verifies_who_answers(serve, authority, certificate, tmp_path):
    port = serve().port
    trusted = ("--tls-ca", str(authority.path))
    assert run_client(port, "ping", "--tls", *trusted).out.startswith("agent=AGENT ")
    assert run_client(port, *trusted, "sched", "list").status == 0
    result = run_client(port, "exec", "HELLO", "--wait", "--tls-cert", str(certificate), *trusted)
    assert result.status == 0 and "status=DONE" in result.out
    for words, told in ((("--tls",), "its certificate is not valid here"),
                        ((*trusted, "--host", "127.0.0.3"), "127.0.0.3"),
                        (("--tls-ca", str(tmp_path / "none")), "No such file"),
                        (("--unix", "x", "--tls"), "--unix goes without --tls")):
        result = run_client(port, "ping", *words)
        assert result.status in (2, 3) and told in result.err and not result.out, result
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        thread = threading.Thread(target=lambda: listener.accept()[0].sendall(b"OK\n"))
        thread.start()
        result = run_client(listener.getsockname()[1], "ping", "--tls", *trusted)
        thread.join(LIMIT_S)
    assert result.status == 3 and not result.out


def test_a_client_that_resets_amid_tls(inside, serve, authority):
    server = serve()
    for data in (b"", b"\x16\x03", b"PING\n"):
        client = SealedClient(server.port, authority) if data == b"PING\n" else Client(server.port)
        client.send_raw(data)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    wait_for(lambda: server.connection_count == 0, "them to be gone")
    with SealedClient(server.port, authority) as client:
        assert client.ok("PING")
