"""The protocol on a real port: transcripts of every verb, the rules of lines and connections, limits, hostile clients."""
import fnmatch
import json
import os
import random
import re
import socket
import struct
import sys
import threading
import time

import pytest

import agent as program
import conftest
from conftest import fields_of, resident_mb, wait_for
from support.audit import Notes
from support.wire import codes, converse

SESSION_LINE = ("* session=%s scenario=* version=* context=* status=* name=* keywords=* schedule=* due=* start_at=* created=*"
                " begun=* ended=* duration=* parent=* waits_for=* message=*")
SESSION_FIELDS = ("session scenario version context status name keywords schedule due start_at created begun ended"
                  " duration parent waits_for message").split()


@pytest.fixture(scope="module")
def with_nap(make):
    """A running agent for tests that leave no trace: HELLO, BAD (fails), and a hold that keeps nothing."""
    running = make("shared")
    running.import_os("BAD", "echo out; echo err >&2; exit 3")
    running.import_os("NAP", "sleep 300")
    return running


# -- lines and connections -------------------------------------------------------------

def test_lf_crlf_blank_lines_and_no_greeting(with_nap):
    with with_nap.connect() as client:
        client.socket.settimeout(0.3)
        with pytest.raises(socket.timeout):
            client.socket.recv(1)
        client.socket.settimeout(conftest.LIMIT_S)
        client.send_raw(b"PING\n\n\r\n \t \n   ping  \r\n\tPiNg\t\n'PING'\n")
        for _ in range(4):
            client.expect("OK agent=AGENT *")
        client.send_raw(b"CONTEXTS\r\n")
        client.expect("* context=GLOBAL schemas=", "OK")


def test_every_way_to_cut_a_request_into_packets(with_nap):
    with with_nap.connect() as client:
        for byte in b"PING\r\nCONTEXTS\n":
            client.send_raw(bytes([byte]))
            time.sleep(0.005)
        client.expect("OK agent=AGENT *")
        client.expect("* context=GLOBAL schemas=", "OK")


def test_end_of_input_after_a_request_still_gets_its_reply(with_nap):
    assert codes(converse(with_nap, b"PING\n")) == ["OK"]
    assert codes(converse(with_nap, b"PING\r\nCONTEXTS\n")) == ["OK", "OK"]
    lines = converse(with_nap, b"EXEC BAD -SYNC\n")
    assert codes(lines) == ["OK"] and "status=ERROR" in lines[-1]
    assert codes(converse(with_nap, b"EXEC HELLO\nEXEC HELLO\n")) == ["OK", "OK"]
    assert converse(with_nap, b"") == converse(with_nap, b"\n\r\n") == []


def test_a_line_cut_short_is_not_carried_out(with_nap):
    before = with_nap.rows("SESSIONS -LIMIT=1")[0]["session"]
    assert codes(converse(with_nap, b"PING\nEXEC HELLO")) == ["OK", "ERR BAD_REQUEST"]
    assert with_nap.rows("SESSIONS -LIMIT=1")[0]["session"] == before


def test_pipelined_requests_are_answered_in_order(with_nap):
    lines = []
    for number in range(60):
        lines += ["PING", "NOPE%d" % number, "EXEC HELLO -NAME=p%d" % number, "EXEC HELLO nope=%d" % number,
                  "CONTEXTS", "EXEC NOPE%d" % number, "STATUS %d" % (900000001 + number * 1000)]
    with with_nap.connect() as client:
        client.send_raw("".join(line + "\n" for line in lines).encode())
        sessions = []
        for number in range(60):
            client.expect("OK agent=*")
            client.expect('ERR UNKNOWN_VERB *NOPE%d"*' % number)
            sessions.append(int(fields_of(client.reply()[-1])["session"]))
            client.expect("ERR BAD_REQUEST *nope*")
            client.expect("* context=GLOBAL schemas=", "OK")
            client.expect("ERR NOT_FOUND *NOPE%d*" % number)
            client.expect("ERR NOT_FOUND *%d*" % (900000001 + number * 1000))
    assert sessions == sorted(set(sessions))
    for number, session in enumerate(sessions[:3]):
        assert with_nap.status(session)["name"] == "p%d" % number


def test_what_is_pipelined_sees_what_came_before_it(agent):
    number = 0
    agent.ok("HOLD")
    for _ in range(20):
        number += 1
        session = number * 1000 + 1
        with agent.connect() as client:
            client.send_raw(b"EXEC HELLO\nSTATUS %d\nSESSIONS -LIMIT=1\nSTOP %d\nPING\n" % (session, session))
            client.expect("OK session=%d status=WAITING waits_for=hold message=*" % session)
            assert client.reply()[0].startswith("* session=%d " % session)
            assert client.reply()[0].startswith("* session=%d " % session)
            client.expect("OK session=%d status=STOPPED" % session)
            client.expect("OK agent=*")


def test_requests_after_quit_are_not_read(with_nap):
    assert codes(converse(with_nap, b"PING\nQUIT\nPING\n", is_ended=False)) == ["OK", "OK"]
    assert codes(converse(with_nap, b"PING\nQUIT x\nPING\n")) == ["OK", "ERR BAD_REQUEST", "OK"]


@pytest.mark.parametrize("line, code", [
    (b"GET / HTTP/2", "UNKNOWN_VERB"), (b"HEAD / HTTP/1.1", "UNKNOWN_VERB"), (b"POST / HTTP/1.0", "UNKNOWN_VERB"), (b"Host: x", "UNKNOWN_VERB"),
    (b"PINGS", "UNKNOWN_VERB"), (b"SCHEDLIST", "UNKNOWN_VERB"), (b"-PING", "UNKNOWN_VERB"), (b"PING=1", "UNKNOWN_VERB"),
    ("p\u0131ng".encode(), "UNKNOWN_VERB"), (b"\xef\xbb\xbfPING", "UNKNOWN_VERB"), (b"'", "BAD_REQUEST"),
    (b"PING \xff", "BAD_REQUEST"), (b"PING \xc0\x80", "BAD_REQUEST"), (b"PING \xed\xa0\x80", "BAD_REQUEST"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "BAD_REQUEST"), (b"PING \0", "BAD_REQUEST"),
    (b"PING \x01", "BAD_REQUEST"), (b"PING\rPING", "BAD_REQUEST"), (b"\x7fPING", "BAD_REQUEST"),
    (b"PING \xc2\x85", "BAD_REQUEST"), (b"PING \x1b[2J", "BAD_REQUEST"),
    (b"PING x", "BAD_REQUEST"), (b"SCHED", "BAD_REQUEST"), (b"SCHED NOPE", "BAD_REQUEST"), (b"EXEC 'open", "BAD_REQUEST"),
    (b"exec {'a'", "BAD_REQUEST"), (b"STATUS x", "BAD_REQUEST"), (b"PING -NOPE", "BAD_REQUEST"),
])
def test_a_bad_first_line_is_answered_and_closes(with_nap, line, code):
    """The rest is not read: nothing can be smuggled behind it."""
    before = with_nap.rows("SESSIONS -LIMIT=1")
    for blank in (b"", b"\r\n \n"):
        lines = converse(with_nap, blank + line + b"\r\nEXEC HELLO -NAME=smuggled\r\nPING\r\n", is_ended=False)
        assert codes(lines) == ["ERR " + code] and len(lines) == 1
    assert with_nap.rows("SESSIONS -LIMIT=1") == before


@pytest.mark.parametrize("line", [b"HELP NOPE", b"STATUS 1", b"EXEC\tNOPE", b"EXEC HELLO 9 NOPE", b"SCHED SHOW NOPE",
                                  b"EXEC HELLO nope=1"])
def test_a_first_line_of_the_right_form_keeps_the_connection_whatever_it_names(with_nap, line):
    lines = converse(with_nap, line + b"\nPING\n")
    assert len(codes(lines)) == 2 and codes(lines)[0].startswith("ERR ") and codes(lines)[1] == "OK"


@pytest.mark.parametrize("line, code", [
    (b"GET / http", "UNKNOWN_VERB"), (b"\xff\xfe", "BAD_REQUEST"), (b"PING \0", "BAD_REQUEST"), (b"\0", "BAD_REQUEST"),
    (b"EXEC '", "BAD_REQUEST"), (b"\x01", "UNKNOWN_VERB"), (b"OK", "UNKNOWN_VERB"), (b"* x", "UNKNOWN_VERB"),
    (b"\xef\xbb\xbfPING", "UNKNOWN_VERB"), (b"PING\rPING", "UNKNOWN_VERB"),
    (b'EXEC HELLO who="\\u0000"', "BAD_REQUEST"), (b'EXEC HELLO who="\\ud800"', "BAD_REQUEST"),
])
def test_later_wrong_lines_cost_only_themselves(with_nap, line, code):
    assert codes(converse(with_nap, b"PING\n" + line + b"\nPING\n")) == ["OK", "ERR " + code, "OK"]


def test_too_long(with_nap):
    def of(size):
        return b"PING " + b"x" * (size - 5)
    limit = 65536
    for end in (b"\n", b"\r\n"):
        assert codes(converse(with_nap, b"PING\n" + of(limit) + end + b"PING\n")) == ["OK", "ERR BAD_REQUEST", "OK"]
        assert codes(converse(with_nap, b"PING\n" + of(limit + 1) + end + b"PING\n", is_ended=False)) == \
            ["OK", "ERR TOO_LONG"]
    assert codes(converse(with_nap, b"x" * 300000, is_ended=False)) == ["ERR TOO_LONG"]
    assert codes(converse(with_nap, b"PING" + b" " * 65532 + b"\nPING\n")) == ["OK", "OK"]
    assert codes(converse(with_nap, b"HELP\n" + b"EXEC HELLO who=" + b"\xff" * 70000, is_ended=False)) == \
        ["OK", "ERR TOO_LONG"]
    assert codes(converse(with_nap, b"EXPORT IMPORT " + b"x" * 70000 + b"\n", is_ended=False)) == ["ERR TOO_LONG"]


def test_max_line(make_agent):
    running = make_agent("--max-line", "1024").start()
    assert codes(converse(running, b"PING" + b" " * 1020 + b"\n")) == ["OK"]
    assert codes(converse(running, b"PING" + b" " * 1021 + b"\nPING\n", is_ended=False)) == ["ERR TOO_LONG"]
    assert codes(converse(running, b"PING" + b" " * 1022, is_ended=False)) == ["ERR TOO_LONG"]
    running.import_os("LONG", ": " + "x" * 5000)         # IMPORT by an administrator has a limit of its own


# -- the verbs -------------------------------------------------------------------------

def test_ping(with_nap):
    assert re.fullmatch(r"OK agent=AGENT version=\d+\.\d+\.\d+ status=READY uptime=\d+(\.\d+)? running=\d+ queued=\d+"
                        r" repositories=1/1 hold=no", with_nap.ask("PING")[0])


def test_exec_and_its_options(with_nap):
    with_nap.send("EXEC HELLO")
    with_nap.expect("OK session=*001 status=QUEUED")
    first = with_nap.ok("EXEC HELLO 001 GLOBAL who=\"a \\\"b\\\" \u00e9\" -REPO=WORKREP -NAME='my name' -KEYWORDS=a,b"
                      " -PRIORITY=5 -LEVEL=5 -TIMEOUT=1h -AGENT=AGENT")
    row = with_nap.wait_status(first["session"], "DONE")
    assert (row["version"], row["context"], row["name"], row["keywords"], row["schedule"], row["due"]) == \
        ("001", "GLOBAL", "my name", "a,b", "", "")
    assert with_nap.log_texts(first["session"]) == ['Hello, a "b" \u00e9! This is session %s.' % first["session"]]
    assert {"variable": "who", "value": 'a "b" \u00e9'} in with_nap.rows("STATUS %s" % first["session"])
    assert with_nap.ok("EXEC HELLO -1 -SYNC")["status"] == "DONE"
    assert with_nap.ok("EXEC HELLO -AT=2001-01-01 -SYNC")["status"] == "DONE"


@pytest.mark.parametrize("line, code", [
    ("EXEC", "BAD_REQUEST"), ("EXEC NOPE", "NOT_FOUND"), ("EXEC hello", "NOT_FOUND"), ("EXEC HELLO 1", "NOT_FOUND"),
    ("EXEC HELLO -1 NOPE", "NOT_FOUND"), ("EXEC HELLO 001 global", "NOT_FOUND"), ("EXEC HELLO -REPO=NOPE", "NOT_FOUND"),
    ("EXEC HELLO 001 GLOBAL x", "BAD_REQUEST"), ("EXEC HELLO Who=1", "BAD_REQUEST"), ("EXEC HELLO SESSION=1", "BAD_REQUEST"),
    ("EXEC HELLO DUE=1", "BAD_REQUEST"), ("EXEC HELLO -NAME", "BAD_REQUEST"), ("EXEC HELLO -SYNC=x", "BAD_REQUEST"),
    ("STOP", "BAD_REQUEST"), ("STOP 999001", "NOT_FOUND"), ("STOP 1002", "NOT_FOUND"), ("STOP x", "BAD_REQUEST"),
    ("STOP 999001 -NOW", "BAD_REQUEST"), ("RESTART 999001", "NOT_FOUND"), ("RESTART", "BAD_REQUEST"),
    ("STATUS 999001", "NOT_FOUND"), ("STATUS 1777", "NOT_FOUND"), ("STATUS", "BAD_REQUEST"), ("STATUS 0", "BAD_REQUEST"),
    ("LOG 999001", "NOT_FOUND"), ("LOG", "BAD_REQUEST"), ("LOG x", "BAD_REQUEST"), ("WAIT 999001", "NOT_FOUND"),
    ("WAIT", "BAD_REQUEST"), ("WAIT 999001 -TIMEOUT=x", "BAD_REQUEST"), ("SESSIONS x", "BAD_REQUEST"),
    ("SESSIONS -STATUS=GOOD", "BAD_REQUEST"), ("SESSIONS -REPO=NOPE", "NOT_FOUND"), ("SESSIONS -LIMIT=0", "BAD_REQUEST"),
    ("SESSIONS -LIMIT=1000001", "BAD_REQUEST"), ("SESSIONS -SINCE=soon", "BAD_REQUEST"), ("SCENARIOS x", "BAD_REQUEST"),
    ("SCENARIOS -REPO=NOPE", "NOT_FOUND"), ("REPOS x", "BAD_REQUEST"), ("CONTEXTS x", "BAD_REQUEST"),
    ("METRICS x", "BAD_REQUEST"), ("HELP NOPE", "NOT_FOUND"), ("PURGE", "BAD_REQUEST"), ("PURGE -DAYS=-1", "BAD_REQUEST"),
    ("PURGE -KEEP=x", "BAD_REQUEST"), ("PURGE 5", "BAD_REQUEST"), ("ATTACH A", "BAD_REQUEST"),
    ("ATTACH A gone.db", "NOT_FOUND"), ("ATTACH WORKREP gone.db", "EXISTS"), ("ATTACH A workrep.db", "EXISTS"),
    ("ATTACH A workrep.db -CREATE", "EXISTS"), ("ATTACH a/b x.db", "BAD_REQUEST"), ("DETACH NOPE", "NOT_FOUND"),
    ("DETACH", "BAD_REQUEST"), ("DROP NOPE 1", "NOT_FOUND"), ("DROP HELLO", "BAD_REQUEST"), ("DROP HELLO 9", "NOT_FOUND"),
    ("EXPORT NOPE", "NOT_FOUND"), ("EXPORT HELLO 9", "NOT_FOUND"), ("IMPORT", "BAD_REQUEST"), ("IMPORT x", "BAD_REQUEST"),
    ("IMPORT '{}' -REPO=NOPE", "NOT_FOUND"), ("HOLD a b", "BAD_REQUEST"), ("HOLD -UNTIL=2001-01-01", "BAD_REQUEST"),
    ("HOLD -SCHEDULE=NOPE", "NOT_FOUND"), ("RELEASE -SCHEDULE=NOPE", "NOT_FOUND"), ("RELEASE x", "BAD_REQUEST"),
    ("CLEAN x", "BAD_REQUEST"), ("CLEAN -HOST", "BAD_REQUEST"), ("SHUTDOWN x", "BAD_REQUEST"),
    ("SHUTDOWN -MAX_WAIT", "BAD_REQUEST"), ("SHUTDOWN -IMMEDIATE=yes", "BAD_REQUEST"), ("SCHED", "BAD_REQUEST"),
    ("SCHED NOPE", "BAD_REQUEST"), ("SCHED LIST x", "BAD_REQUEST"), ("SCHED SHOW", "BAD_REQUEST"),
    ("SCHED SHOW NOPE", "NOT_FOUND"), ("SCHED SET NOPE -ENABLED=no", "NOT_FOUND"), ("SCHED SET NOPE", "BAD_REQUEST"),
    ("SCHED DEL NOPE", "NOT_FOUND"), ("SCHED ON NOPE", "NOT_FOUND"), ("SCHED OFF NOPE", "NOT_FOUND"),
    ("SCHED NEXT NOPE", "NOT_FOUND"), ("SCHED WHY NOPE", "NOT_FOUND"), ("SCHED NEXT -COUNT=0", "BAD_REQUEST"),
    ("SCHED WHY -LIMIT=x", "BAD_REQUEST"), ("SCHED UPDATE x", "BAD_REQUEST"),
    ("SCHED ADD S NOPE 1 GLOBAL 'every 90s'", "NOT_FOUND"), ("SCHED ADD S HELLO 001 NOPE 'every 90s'", "NOT_FOUND"),
    ("SCHED ADD S HELLO 001 GLOBAL 'now and then'", "BAD_REQUEST"), ("SCHED ADD S HELLO 001 GLOBAL daily at", "BAD_REQUEST"),
    ("SCHED ADD S HELLO 001 GLOBAL 'every 90s' nope=1", "BAD_REQUEST"),
    ("SCHED ADD S HELLO 001 GLOBAL 'every 90s' -TIMEZONE=Mars/Base", "BAD_REQUEST"),
    ("SCHED ADD S HELLO 001 GLOBAL 'every 90s' -REPO=NOPE", "NOT_FOUND"),
])
def test_bad_forms(with_nap, line, code):
    assert with_nap.err(line) == code


@pytest.mark.parametrize("line, told", [
    ("EXEC HELLO who=data people", "NOT_FOUND scenario HELLO has no version *** in *is quoted when it has spaces"),
    ("EXEC HELLO who", "NOT_FOUND scenario HELLO has no version who in *"), ("EXEC NOPE who", "NOT_FOUND no scenario NOPE in *"),
    ("EXPORT HELLO 9", "NOT_FOUND scenario HELLO has no version 9 in *"),
    ("""IMPORT '{"schedules": [{"name": "S", "scenario": "HELLO", "version": "9", "rule": "startup"}]}'""",
     "BAD_REQUEST *schedules[[]0].scenario: scenario HELLO has no version 9"),
    ("""IMPORT '{"schedules": [{"name": "S", "scenario": "NOPE", "rule": "startup"}]}'""",
     "BAD_REQUEST *schedules[[]0].scenario: no scenario NOPE"),
    ("EXEC HELLO --sync", 'BAD_REQUEST word "--sync" for VERSION: must be a name*; an option has one dash'),
    ("SCHED ADD S HELLO GLOBAL 'daily at 02:00'", 'BAD_REQUEST word "daily at 02:00" for CONTEXT: must be a name*'),
])
def test_a_slip_is_plain_from_the_message(with_nap, line, told):
    assert fnmatch.fnmatchcase(with_nap.ask(line)[-1], "ERR " + told)


def test_stop_and_restart(with_nap):
    with_nap.import_document({"scenarios": [{
        "name": "A", "version": "1", "variables": {"rc": "3"}, "steps": [
            {"name": "one", "tasks": [{"type": "os", "command": "echo one"}]},
            {"name": "two", "tasks": [{"type": "os", "command": "exit ${rc}"}]}]}]})
    with_nap.import_os("NAP", "sleep 300")
    bad = with_nap.ok("EXEC A -SYNC")
    assert bad["status"] == "ERROR" and "3" in bad["message"]
    for line, code in (("STOP %(session)s", "CONFLICT"), ("RESTART %(session)s nope=1", "BAD_REQUEST"),
                       ("RESTART %(session)s -FROM=nope", "NOT_FOUND"), ("RESTART %(session)s -FROM=a/b", "BAD_REQUEST")):
        assert with_nap.err(line % bad) == code
    assert with_nap.ok("RESTART %(session)s rc=0" % bad) == {"session": bad["session"], "status": "QUEUED"}
    assert with_nap.ok("WAIT %(session)s" % bad)["status"] == "DONE"
    assert with_nap.err("RESTART %(session)s" % bad) == "CONFLICT"
    attempts = [(row["name"], row["attempt"], row["status"]) for row in with_nap.rows("STATUS %(session)s" % bad) if "step" in row]
    assert attempts == [("one", "1", "DONE"), ("two", "1", "ERROR"), ("two", "2", "DONE")]
    nap = with_nap.ok("EXEC NAP")["session"]
    with_nap.wait_status(nap, "RUNNING")
    assert with_nap.err("RESTART %s" % nap) == "CONFLICT"
    assert with_nap.ok("STOP %s -IMMEDIATE" % nap) == {"session": nap, "status": "STOPPED"}
    assert with_nap.status(nap)["status"] == "STOPPED"
    later = with_nap.ok("EXEC NAP -AT=2098-01-01")
    assert later["status"] == "WAITING"
    assert with_nap.ok("STOP %(session)s" % later) == {"session": later["session"], "status": "STOPPED"}


def test_sync_wait_and_timeout(with_nap):
    with with_nap.connect() as client:
        client.send("EXEC HELLO -SYNC")
        assert re.fullmatch(r"\* session=\d+001 status=QUEUED", client.line())
        assert re.fullmatch(r"OK session=\d+001 status=DONE duration=\d+(\.\d+)? message=", client.line())
        client.send("EXEC BAD -SYNC=100")
        first, last = client.line(), client.line()
        assert fields_of(first)["session"] == fields_of(last)["session"] and last.startswith("OK session=")
        assert fields_of(last)["status"] == "ERROR"         # the outcome of the session is no ERR
        client.send("EXEC NAP -SYNC=0.2")
        session = fields_of(client.line())["session"]       # comes at the commit, not at the end
        assert client.line().startswith("ERR TIMEOUT session=%s " % session)
        with_nap.wait_status(session, "RUNNING")              # it goes on
        client.send("WAIT %s -TIMEOUT=0.1" % session)
        client.expect("ERR TIMEOUT session=%s *" % session)
        client.send("WAIT %s -TIMEOUT=0" % session)
        client.expect("ERR TIMEOUT session=%s *" % session)
        client.send("WAIT %s" % session)
        with_nap.ok("STOP %s -IMMEDIATE" % session)
        assert fields_of(client.reply()[-1])["status"] == "STOPPED"
        client.send("WAIT %s -TIMEOUT=5" % session)
        client.expect("OK session=%s status=STOPPED *" % session)
        client.send("EXEC NOPE -SYNC")
        client.expect("ERR NOT_FOUND *")


def test_a_session_goes_on_when_its_client_goes_away(with_nap):
    with with_nap.connect() as client:
        client.send("EXEC NAP -SYNC")
        session = fields_of(client.line())["session"]
    with_nap.wait_status(session, "RUNNING")
    time.sleep(0.2)
    assert with_nap.status(session)["status"] == "RUNNING"
    with_nap.ok("STOP %s -IMMEDIATE" % session)


def test_sync_of_an_agent_that_stops(make_agent):
    running = make_agent("--max-sessions", "1").start()
    running.import_os("NAP", "sleep 300")
    with running.connect() as waiting, running.connect() as queued:
        waiting.send("EXEC NAP -SYNC")
        session = fields_of(waiting.line())["session"]
        running.wait_status(session, "RUNNING")
        queued.send("EXEC HELLO -SYNC")
        outstanding = fields_of(queued.line())["session"]
        running.ok("SHUTDOWN")
        assert running.ok("PING")["status"] == "STOPPING"
        assert running.err("EXEC HELLO") == running.err("RESTART %s" % session) == "STOPPING"
        running.ok("SHUTDOWN -MAX_WAIT=0")
        assert fields_of(waiting.line())["status"] == "STOPPED"
        assert queued.line().startswith("ERR STOPPING session=%s " % outstanding)
    assert running.wait() == 0


def test_key(with_nap):
    key = "k-\u00e9 '1'"
    line = "EXEC HELLO who=x -KEY=%s" % json.dumps(key)
    first = with_nap.ok(line)
    assert "duplicate" not in first
    with_nap.wait_status(first["session"], "DONE")
    again = with_nap.ok(line)
    assert again == {"session": first["session"], "status": "DONE", "duplicate": "yes"}
    assert with_nap.ok(line + " -NAME=other -PRIORITY=7")["duplicate"] == "yes"
    with with_nap.connect() as client:
        client.send(line + " -SYNC")
        assert "duplicate=yes" in client.line()
        client.expect("OK session=%s status=DONE *" % first["session"])
    for other in ("EXEC HELLO who=y", "EXEC HELLO", "EXEC BAD", "EXEC BAD who=x", "EXEC NOPE", "EXEC HELLO who=x nope=1"):
        assert with_nap.err("%s -KEY=%s" % (other, json.dumps(key))) == "CONFLICT", other
    assert with_nap.ok("EXEC HELLO who=x -KEY=K2")["session"] != first["session"]
    assert with_nap.ok("EXEC HELLO who=x -KEY=k2")["session"] != with_nap.ok("EXEC HELLO who=x -KEY=K2")["session"]


def test_one_key_from_many_clients_makes_one_session(with_nap):
    answers, clients = [], [with_nap.connect() for _ in range(8)]
    try:
        for client in clients:
            client.send_raw(b"EXEC HELLO -KEY=same\n" * 10)
        for client in clients:
            answers += [fields_of(client.reply()[-1]) for _ in range(10)]
    finally:
        for client in clients:
            client.close()
    assert len({answer["session"] for answer in answers}) == 1
    assert sum("duplicate" not in answer for answer in answers) == 1


def test_sessions(agent):
    agent.import_os("BAD", "exit 1")
    done = [agent.ok("EXEC HELLO -SYNC -NAME=n%d -KEYWORDS=all,k%d" % (n, n))["session"] for n in range(3)]
    bad = agent.ok("EXEC BAD -SYNC")["session"]
    everything = [row["session"] for row in agent.rows("SESSIONS")]
    assert everything == [bad] + done[::-1]                             # newest first
    for line in agent.ask("SESSIONS")[:-1]:
        assert re.findall(r"(\w+)=(?:\"(?:[^\"\\]|\\.)*\"|\S*)", line) == SESSION_FIELDS

    def found(options):
        return [row["session"] for row in agent.rows("SESSIONS " + options)]
    assert found("-LIMIT=2") == everything[:2]
    assert found("-STATUS=error") == found("-STATUS=ERROR") == found("-SCENARIO=BAD") == [bad]
    assert found("-STATUS=DONE,ERROR") == everything == found("-REPO=WORKREP -LIMIT=1000000")
    assert found("-STATUS=RUNNING") == found("-SCENARIO=bad") == found("-SCHEDULE=X") == []
    assert found("-KEYWORD=k1") == [done[1]] and len(found("-KEYWORD=all")) == 3
    assert found("-KEYWORD=k") == found("-KEYWORD=all,k") == []
    assert found("-SINCE=2001-01-01") == everything and found("-SINCE=2098-01-01") == []


def test_json_listings(with_nap):
    session = with_nap.ok("EXEC HELLO -SYNC -NAME='a \"b\" \u00e9'")["session"]
    with_nap.ok("SCHED ADD J HELLO 001 GLOBAL 'yearly on 01-01 at 00:00' who=x -TIMEZONE=UTC")
    try:
        for line in ("SESSIONS -JSON -LIMIT=5", "STATUS %s -json" % session, "SCENARIOS -JSON", "REPOS -JSON", "CONTEXTS -JSON",
                     "SCHED LIST -JSON", "SCHED SHOW J -JSON", "SCHED NEXT J -JSON -COUNT=2", "SCHED WHY -JSON"):
            plain, lines = with_nap.ask(line.replace("-JSON", "").replace("-json", "")), with_nap.ask(line)
            assert (lines[-1], plain[-1]) == ("OK {}", "OK") and len(lines) == len(plain), line
            assert all(c < "\x7f" for c in "".join(lines))
            for text, row in zip(plain[:-1], lines[:-1]):
                assert list(json.loads(row[2:])) == list(fields_of(text)), line
        rows = [json.loads(row[2:]) for row in with_nap.ask("SESSIONS -JSON -LIMIT=1")[:-1]]
        assert rows[0]["session"] == int(session) and rows[0]["name"] == 'a "b" \u00e9'
        assert rows[0]["schedule"] is None and isinstance(rows[0]["duration"], float)
    finally:
        with_nap.ok("SCHED DEL J")


def test_status_and_log(with_nap):
    session = with_nap.ok("EXEC BAD -SYNC")["session"]
    lines = with_nap.ask("STATUS %s" % session)
    assert fnmatch.fnmatchcase(lines[0], SESSION_LINE % session)
    assert lines[1].startswith("* step=1 name=main attempt=1 status=ERROR begun=2")
    assert lines[2].startswith("* task=1.1 type=os ") and "status=ERROR rc=3" in lines[2]
    assert lines[-1] == "OK" and len(lines) == 4
    log = with_nap.ask("LOG %s" % session)
    assert sorted(line.split(" ", 2)[2] for line in log[:-1]) == ["main/1 err err", "main/1 out out"]
    for line in log[:-1]:
        assert re.fullmatch(r"\* \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d main/1 (out|err) \w+", line)
    hello = with_nap.ok("EXEC HELLO -SYNC")["session"]
    assert with_nap.rows("STATUS %s" % hello)[-1] == {"variable": "who", "value": "world"}


def test_output_cannot_imitate_a_reply(with_nap):
    with_nap.import_os("FORGE", r"printf 'OK session=1\nERR X\r\nOK\n\033[2J\001\tx\n\377\376\n* OK\n\302\205\n\nlast'")
    session = with_nap.ok("EXEC FORGE -SYNC")["session"]
    log = with_nap.ask("LOG %s" % session)
    assert log[-1] == "OK status=DONE" and all(line.startswith("* 2") for line in log[:-1])
    assert with_nap.log_texts(session) == ["OK session=1", "ERR X\\x0d", "OK", "\\x1b[2J\\x01\tx", "\\xff\\xfe", "* OK",
                                        "\\x85", "", "last"]


def test_listings(with_nap):
    with_nap.send("REPOS")
    with_nap.expect("* repository=WORKREP id=1 path=%s status=ATTACHED message=" % with_nap.work, "OK")
    assert {("HELLO", "001"), ("BAD", "1"), ("NAP", "1")} <= {
        (row["scenario"], row["version"]) for row in with_nap.rows("SCENARIOS -REPO=WORKREP")}
    with_nap.send("CONTEXTS")
    with_nap.expect("* context=GLOBAL schemas=", "OK")
    metrics = with_nap.ask("METRICS")
    assert metrics[-1] == "OK"
    for line in metrics[:-1]:
        assert re.fullmatch(r'\* (# TYPE \w+ (gauge|counter|histogram)|# HELP .*|\w+(\{.*\})? -?[\d.e+-]+)', line), line


def test_hold_and_release(with_nap):
    with_nap.ok("HOLD 'the \"reason\"' -UNTIL=2098-01-01")
    assert with_nap.ok("PING")["hold"] == "yes"
    held = with_nap.ok("EXEC HELLO")
    assert held["status"] == "WAITING"
    with_nap.ok("RELEASE")
    assert with_nap.ok("WAIT %(session)s" % held)["status"] == "DONE"
    with_nap.ok("RELEASE")
    assert with_nap.ok("PING")["hold"] == "no"
    assert with_nap.ok("CLEAN")["cleaned"] == with_nap.ok("clean -HOST=gone")["cleaned"] == "0"


def test_attach_and_detach(agent):
    assert agent.ok("ATTACH SECOND second.db -CREATE") == {"repository": "SECOND", "id": "2"}
    assert agent.err("ATTACH SECOND third.db -CREATE") == agent.err("ATTACH THIRD second.db") == "EXISTS"
    assert [row["repository"] for row in agent.rows("REPOS")] == ["WORKREP", "SECOND"]
    assert agent.ok("PING")["repositories"] == "2/2"
    session = agent.ok("EXEC HELLO -REPO=SECOND -SYNC")["session"]
    assert session == "1002" and agent.status(session)["status"] == "DONE"
    assert agent.ok("EXEC HELLO -SYNC")["session"] == "1001"            # the lowest id that has it
    waiting = agent.ok("EXEC HELLO -REPO=SECOND -AT=2098-01-01")["session"]
    assert agent.err("DETACH SECOND") == "CONFLICT"
    agent.ok("STOP %s" % waiting)
    agent.ok("DETACH SECOND")
    assert agent.err("STATUS %s" % session) == "NOT_FOUND"
    assert agent.ok("ATTACH SECOND second.db")["id"] == "2"
    assert agent.status(session)["status"] == "DONE"


def test_schedules(with_nap):
    with_nap.send("SCHED ADD S HELLO 001 GLOBAL 'daily at 02:00' who='a b' -TIMEZONE=UTC -ENABLED=yes -REPO=WORKREP")
    assert with_nap.client.reply()[-1].startswith("OK")
    assert with_nap.err("SCHED ADD S HELLO 001 GLOBAL 'every 90s'") == "EXISTS"
    (row,) = with_nap.rows("SCHED LIST")
    assert list(row)[:11] == "name agent scenario version context rule timezone enabled hold next last".split()
    assert (row["name"], row["agent"], row["rule"], row["enabled"], row["hold"]) == ("S", "AGENT", "daily at 02:00", "yes", "no")
    assert row["next"]
    due = with_nap.rows("SCHED NEXT S -COUNT=3 -FROM=2027-01-01T00:00Z")
    assert [list(each) for each in due] == [["schedule", "due", "note"]] * 3
    assert [program.parse_time(each["due"]) for each in due] == [program.parse_time("2027-01-0%dT02:00Z" % n) for n in (1, 2, 3)]
    assert len(with_nap.rows("SCHED NEXT S -COUNT=100 -FROM=2027-01-01T00:00Z -TO=2027-01-10T02:00Z")) == 10
    with_nap.ok("SCHED SET S -RULE='every 2h' -ENABLED=NO who=c")
    shown = with_nap.rows("SCHED SHOW S")
    assert shown[0]["rule"] == "every 2h" and shown[0]["enabled"] == "no" and shown[0]["next"] == ""
    assert {"variable": "who", "value": "c"} in shown
    assert with_nap.rows("SCHED NEXT S -COUNT=1")                          # of a disabled schedule too
    assert with_nap.rows("SCHED NEXT -COUNT=1") == [] == with_nap.rows("SCHED WHY S")
    for line in ("SCHED SET S -RULE=nope", "SCHED SET S nope=1", "SCHED SET S -TIMEZONE=Mars", "SCHED SET S"):
        assert with_nap.err(line) == "BAD_REQUEST"
    with_nap.ok("SCHED ON S")
    with_nap.ok("HOLD why -SCHEDULE=S")
    assert with_nap.rows("SCHED LIST")[0]["hold"] == "yes"
    with_nap.ok("RELEASE -SCHEDULE=S")
    with_nap.ok("SCHED OFF S")
    assert with_nap.rows("SCHED LIST")[0]["enabled"] == "no"
    with_nap.ok("SCHED UPDATE")
    with_nap.ok("SCHED DEL S")
    assert with_nap.err("SCHED SHOW S") == "NOT_FOUND"


def test_purge(agent):
    sessions = [agent.ok("EXEC HELLO -SYNC")["session"] for _ in range(4)]
    assert agent.ok("PURGE -DAYS=1")["purged"] == "0"
    assert agent.ok("PURGE -KEEP=3")["purged"] == "1"
    assert [row["session"] for row in agent.rows("SESSIONS")] == sessions[:0:-1]
    assert agent.err("LOG %s" % sessions[0]) == "NOT_FOUND"
    assert agent.ok("PURGE -DAYS=0 -KEEP=0")["purged"] == "3"
    assert int(agent.ok("EXEC HELLO -SYNC")["session"]) > int(sessions[-1])       # a number is never used again


# -- the table -------------------------------------------------------------------------

def test_help_tells_every_verb_from_the_table(with_nap):
    lines = with_nap.ask("HELP")
    assert lines[-1] == "OK" and len(lines) == len(program.VERBS) + 1
    for name, row in program.VERBS.items():
        (line,) = [each for each in lines if re.match(r"\* %s[: ]" % re.escape(name), each)]
        assert line.endswith(": " + row.help) and row.help
        assert [word for word, _ in row.arguments if word not in line.split(":")[0]] == []
        for option in set(row.options) - {"-JSON"}:         # which all take
            assert "[" + option in line
        first, *others, last = with_nap.ask("help " + name.lower())
        assert (first, last) == (line, "OK")
        assert [word for word in list(row.arguments) + [(option, None) for option in row.options]
                if word[0] != "-JSON" and not [each for each in others if re.match(r"\*   %s\b.*: \S" % re.escape(word[0]), each)]] == []
        assert others == [] or others[-1] == "*   python agent.py --manual %s tells more" % name
    assert len(with_nap.ask("HELP SCHED")) > 9


def test_roles():
    def of(role):
        return {name for name, row in program.VERBS.items() if row.role == role}
    assert {"HELP", "QUIT"} <= of(None) <= {"HELP", "QUIT", "AUTH"}
    assert of("operator") == {"EXEC", "STOP", "RESTART", "CLEAN", "HOLD", "RELEASE", "SCHED ON", "SCHED OFF"}
    looks = set("PING SESSIONS STATUS LOG WAIT SCENARIOS REPOS CONTEXTS EXPORT METRICS".split())
    assert looks <= of("monitor")
    assert {"SCHED LIST", "SCHED SHOW", "SCHED NEXT", "SCHED WHY"} <= of("monitor")
    changes = {"SHUTDOWN", "IMPORT", "DROP", "ATTACH", "DETACH", "PURGE"} | {
        "SCHED " + verb for verb in "ADD SET DEL UPDATE".split()} | {
        "USERS " + verb for verb in "LIST ADD SET DEL".split()}
    assert changes <= of("administrator")


def test_each_role_may_do_what_the_table_says():
    ranks = ("monitor", "operator", "administrator")
    for role in (None,) + ranks:
        for name, row in program.VERBS.items():
            reply = program.Conversation(Notes(), program.Client(role)).begin(name.encode() + b" x y z u v w -NOPE")
            (last,) = reply.chunks()
            if row.role is None or role and ranks.index(role) >= ranks.index(row.role):
                assert last.startswith("ERR BAD_REQUEST"), (role, name, last)
            else:
                assert last.startswith("ERR DENIED" if role else "ERR AUTH"), (role, name, last)


# -- limits ----------------------------------------------------------------------------

def test_max_connections(make_agent):
    running = make_agent("--max-connections", "3").start()
    others = [running.connect() for _ in range(2)]
    for client in others:
        assert client.ask("PING")[-1].startswith("OK")
    for _ in range(5):
        with running.connect() as refused:
            refused.expect("ERR BUSY *3*")
            assert refused.line() == ""
    assert running.ok("PING")
    others.pop().close()

    def again():
        with running.connect() as client:
            client.send("PING")
            return client.line().startswith("OK") or None
    wait_for(again, "a connection to be free")
    others.pop().close()


def test_max_queue(make_agent):
    running = make_agent("--max-queue", "3", "--max-sessions", "1").start()
    running.import_os("NAP", "sleep 300")
    nap = running.ok("EXEC NAP")["session"]
    running.wait_status(nap, "RUNNING")
    queued = [running.ok("EXEC HELLO")["session"] for _ in range(3)]
    assert running.ok("PING")["queued"] == "3"
    assert running.err("EXEC HELLO") == "BUSY"
    assert running.err("EXEC HELLO -SYNC") == "BUSY"
    assert len(running.rows("SESSIONS")) == 4
    running.ok("STOP %s" % queued[0])
    queued.append(running.ok("EXEC HELLO")["session"])
    assert running.err("EXEC HELLO") == "BUSY"
    running.ok("STOP %s -IMMEDIATE" % nap)
    for session in queued[1:]:
        assert running.ok("WAIT %s" % session)["status"] == "DONE"
    assert running.ok("EXEC HELLO -SYNC")["status"] == "DONE"


def test_max_queue_of_pipelined_requests(make_agent):
    running = make_agent("--max-queue", "5").start()
    running.ok("HOLD")
    with running.connect() as client:
        client.send_raw(b"EXEC HELLO\n" * 200)
        answers = [client.reply()[-1].split(" session")[0].split()[0:2] for _ in range(200)]
    assert answers.count(["OK"]) == len(running.rows("SESSIONS -LIMIT=1000")) == 5
    assert all(answer == ["ERR", "BUSY"] for answer in answers if answer != ["OK"])


def test_max_queue_counts_what_waits_for_its_time_or_a_hold(make_agent):
    running = make_agent("--max-queue", "3").start()
    running.ok("HOLD")
    for line in ("EXEC HELLO -AT=2098-01-01", "EXEC HELLO", "EXEC HELLO -AT=2098-01-01"):
        assert running.ok(line)["status"] == "WAITING"
    assert running.err("EXEC HELLO -AT=2098-01-01") == "BUSY"
    assert running.ok("PING")["queued"] == "3"


# -- hostile clients -------------------------------------------------------------------

WORDS = ("PING EXEC STOP RESTART SCHED HOLD RELEASE CLEAN SESSIONS STATUS LOG WAIT SCENARIOS REPOS CONTEXTS IMPORT EXPORT"
         " METRICS AUTH USERS AUDIT CALENDAR HELP LIST SHOW ADD SET DEL ON OFF NEXT WHY PLAN UPDATE HELLO 001 -1 GLOBAL"
         " 1001 2001 99 1e9 999999999999999 -SYNC=0.01 -IMMEDIATE -JSON -FOLLOW -REPLACE -ALL OK ERR * GET / HTTP/1.1 every cron").split()
OPTIONS = ("REPO NAME KEYWORDS AT KEY PRIORITY LEVEL TIMEOUT AGENT STATUS SCENARIO SCHEDULE KEYWORD SINCE LIMIT FROM TO COUNT"
           " UNTIL HOST TIMEZONE ENABLED RULE VERSION CONTEXT DAYS KEEP JITTER GAP").split()
VALUES = ("0 1 -1 +1 00 1.5 1e308 nan inf 99999999999999999999 " + "9" * 400 + " 90s 15m 1d 1w yes no NO true 2026-12-01"
          " 2026-12-01T02:00Z 0001-01-01 9998-12-31 9999-12-31T23:59:59-14:00 0001-01-01T00:00+14:00 1969-12-31 WORKREP HELLO"
          " GLOBAL Europe/Zurich ../../etc/passwd :memory: file:x?mode=rw DONE,ERROR ,,, a,b % %s %n {0} ${who} $(id) `id` ;"
          " '' \"\" \"\\n\" \"\\u0000\" \"\\ud800\" \"\\x\" '{}' '[]' '{\"scenarios\":5}' '{\"a\":1}' {} {\"a\":1} ' \" \u00e9 \U0001f600"
          " 'drop table session;--' 1'or'1'='1 'every 90s' 'daily at 02:00' 'cron * * * * *' 'cron */0 * * * *' 'every 0s'"
          " 'every 1e9d' 'yearly on 02-30 at 00:00' 'at 9998-12-31 23:59'").split(" ") + ["x" * 129, "x" * 60000, ""]


def hostile_line(dice):
    """A line of bytes without LF: random bytes, or words that could be a request, sometimes damaged."""
    kind = dice.random()
    if kind < 0.15:
        return bytes(dice.randrange(256) for _ in range(dice.randrange(80))).replace(b"\n", b"")
    words = [dice.choice(WORDS)]
    for _ in range(dice.randrange(7)):
        words.append(dice.choice((
            lambda: dice.choice(WORDS), lambda: dice.choice(VALUES),
            lambda: "-%s=%s" % (dice.choice(OPTIONS), dice.choice(VALUES)),
            lambda: "%s=%s" % (dice.choice(("who", "x", "SESSION", "_")), dice.choice(VALUES))))())
    if words[0] == "WAIT":
        words.append("-TIMEOUT=0.01")
    line = dice.choice((" ", " ", "\t", "  ")).join(words).encode()
    if kind > 0.8 and words[0] != "WAIT":
        line = bytearray(line)
        for _ in range(dice.randrange(1, 4)):
            line[dice.randrange(len(line))] = dice.choice(b"\"'\\=-{}\0\r\x01\xff\xc3 \t")
        line = bytes(line)
    return line


def bombard(running, seed, count):
    """Sends hostile lines, ten at a time; each is answered, or the connection is closed where it may. -> the codes seen."""
    dice, seen, client = random.Random(seed), {}, None
    for number in range(count // 10):
        is_first_hostile = False
        if client is None:
            client, is_first_hostile = running.connect(), dice.random() < 0.3
            if not is_first_hostile:
                client.send("PING")
                client.expect("OK agent=*")
        lines = [hostile_line(dice) for _ in range(10)]
        barrier = "BARRIER%d" % number
        expected = 1 + sum(bool(re.sub(b"\r$", b"", line).strip(b" \t")) for line in lines)
        answered, line = [], ""
        try:
            client.send_raw(b"".join(line + b"\n" for line in lines) + b"HELP %s\n" % barrier.encode())
            while barrier not in line:
                line = client.line()
                if not line:
                    break
                assert re.match(r"\*( |$)|OK\b|ERR [A-Z_]+ ", line), (line, lines)
                if line[0] != "*":
                    answered.append(line)
        except OSError:         # closed, with lines of ours unread
            line = ""
        for each in answered:
            code = each.split()[1] if each.startswith("ERR") else "OK"
            assert code != "INTERNAL", (each, lines)
            seen[code] = seen.get(code, 0) + 1
        if line:
            assert len(answered) == expected, (lines, answered)
        else:
            assert is_first_hostile or "ERR TOO_LONG" in answered[-1] or "a line of HTTP" in answered[-1] \
                or b"HTTP/" in lines[len(answered) - 1], (lines, answered)
            client.close()
            client = None
    if client:
        client.close()
    return seen


@pytest.fixture
def lean(make_agent, tmp_path):
    """An agent without the interpreter's development mode, which takes memory of its own."""
    wrapper = tmp_path / "python"
    wrapper.write_text('#!/bin/sh\n[ "$1" = -X ] && shift 4\nexec "%s" "$@"\n' % sys.executable)
    wrapper.chmod(0o755)
    return make_agent(python=str(wrapper)).start()


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")


@needs_proc
def test_hostile_lines(lean):
    before = resident_mb(lean.process.pid)
    seen = bombard(lean, 1, 3000)
    assert {"OK", "BAD_REQUEST", "UNKNOWN_VERB", "NOT_FOUND", "TOO_LONG"} <= set(seen), seen
    lean.ok("RELEASE")
    assert lean.ok("PING")["status"] == "READY"
    assert resident_mb(lean.process.pid) < before + 10


def test_hostile_lines_from_several_clients_at_once(agent):
    """In development mode: what is left open or decoded wrongly stands in the agent's log."""
    failed = []

    def work(seed):
        try:
            bombard(agent, seed, 150)
        except BaseException as error:
            failed.append(error)
            raise
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    agent.ok("RELEASE")
    assert agent.ok("PING")["status"] == "READY"


@needs_proc
def test_idle_and_half_sent_connections_cost_the_others_nothing(lean):
    before = resident_mb(lean.process.pid)
    clients = [lean.connect() for _ in range(300)]
    try:
        for number in range(50):
            clients.append(lean.connect())
            clients[-1].send_raw(b"EXEC HELLO who=" + b"x" * (number * 1000))
        for client in clients[:300:50]:
            client.send("PING")
            client.expect("OK agent=*")
        for _ in range(20):
            with lean.connect() as client:
                client.send("PING")
                client.expect("OK agent=*")
            assert lean.ok("PING")
        assert lean.ok("EXEC HELLO -SYNC")["status"] == "DONE"
        assert resident_mb(lean.process.pid) < before + 20
    finally:
        for client in clients:
            client.close()
    assert len(lean.rows("SESSIONS")) == 1          # of the half-sent lines none was carried out


def test_a_client_that_does_not_read_costs_the_others_nothing(agent):
    agent.import_os("LOUD", "head -c 900000 /dev/zero | tr '\\0' x | fold -w 100")
    session = agent.ok("EXEC LOUD -SYNC")["session"]
    deaf = agent.connect()
    try:
        deaf.send_raw(b"LOG %s\n" % session.encode() * 20)
        writer = agent.connect()
        writer.socket.settimeout(1)
        try:
            for _ in range(3000):                   # acknowledgements that nobody reads
                writer.send_raw(b"EXEC NOPE\n" * 100)
        except socket.timeout:
            pass
        for _ in range(20):
            assert agent.ok("PING")
        assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
        writer.close()
    finally:
        deaf.close()
    agent.ok("SHUTDOWN")
    assert agent.wait() == 0


def test_clients_that_reset(with_nap):
    """RST instead of an end, before and while a reply is written."""
    for data in (b"", b"P", b"PING\n", b"HELP\n" * 100, b"EXEC HELLO\n" * 5, b"EXEC HELLO -SYNC\n"):
        for _ in range(5):
            client = socket.create_connection(("127.0.0.1", with_nap.port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(data)
            client.close()
    assert with_nap.ok("PING")["status"] == "READY"
    assert with_nap.ok("EXEC HELLO -SYNC")["status"] == "DONE"


def test_who_went_away_while_waiting_gives_its_connection_back(agent):
    agent.import_os("NAP", "sleep 1000")

    def connections():
        row = next(line for line in agent.ask("METRICS") if line.startswith("* agent_connections "))
        return int(row.split()[-1])
    clients = [agent.connect() for _ in range(3)]
    for client in clients:
        client.send("EXEC NAP -SYNC")
        client.line()
    clients[0].socket.shutdown(socket.SHUT_WR)      # still waits for its reply
    for client in clients[1:]:
        client.close()
    wait_for(lambda: connections() == 2, "two connections to be given back")
    agent.ok("STOP 1001 -IMMEDIATE")
    assert "status=STOPPED" in clients[0].line()
    clients[0].close()
