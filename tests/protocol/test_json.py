"""-JSON: every verb takes it, and every line of the reply is JSON then."""
import json

import pytest

import agent as program
from conftest import fields_of

DOCUMENT_TEXT = json.dumps({"scenarios": [
    {"name": "A", "version": "1", "variables": {"v": "x"}, "steps": [
        {"name": "one", "tasks": [{"type": "set", "variable": "v", "value": "2"}]}]},
    {"name": "B", "version": "1", "steps": [{"name": "one", "tasks": [{"type": "os", "command": "echo a b; exit 3"}]}]}],
    "schedules": [{"name": "N", "scenario": "A", "rule": "yearly on 02-29 at 03:00"}]})

# one of each verb, in an order that works
REQUESTS = """
PING
IMPORT '{document}'
EXEC A
EXEC B -SYNC
WAIT {good}
STATUS {good}
SESSIONS
LOG {bad}
SCENARIOS
REPOS
CONTEXTS
EXPORT
SCHED LIST
SCHED SHOW N
SCHED NEXT N
SCHED WHY N
SCHED PLAN -TO={day}
SCHED ADD M A 1 GLOBAL 'every 1h'
SCHED SET M -HOURS=01:00-23:00
SCHED OFF M
SCHED ON M
SCHED UPDATE
SCHED DEL M
CALENDAR ADD C 2026-12-25
CALENDAR SET C 2026-12-26
CALENDAR LIST
CALENDAR DEL C
HOLD why
RELEASE
EXEC A -AT={day}
STOP {waiting}
RESTART {bad}
CLEAN
ATTACH SECOND second.db -CREATE
DETACH SECOND
PURGE -DAYS=9
BACKUP kept
AUDIT
METRICS
HELP
DROP B 1
USERS ADD alice -ROLE=administrator -SCENARIOS=
USERS ADD bob -ROLE=monitor
IMPORT '{"notices":[{"name":"OPS","send":{"type":"os","command":"cat"}}]}'
NOTICE LIST
NOTICE TEST OPS
NOTICE DEL OPS
USERS LIST
USERS SET alice -RESET
USERS PASSWORD alice 'correct horse'
USERS DEL bob
AUTH alice 'correct horse'
QUIT
"""


def objects_of(lines):
    """The data lines and the last one as JSON."""
    assert all(line.startswith("* {") for line in lines[:-1]), lines
    assert lines[-1].startswith("OK {"), lines
    return [json.loads(line[2:]) for line in lines[:-1]], json.loads(lines[-1][3:])


def test_every_verb_takes_it(inside):
    places, asked = {"document": DOCUMENT_TEXT, "day": "2099-01-01"}, set()
    for request in REQUESTS.strip().split("\n"):
        words = request.split()
        asked.add(" ".join(words[:2]) if words[0] in ("SCHED", "CALENDAR", "USERS", "NOTICE") else words[0])
        for name, value in places.items():
            request = request.replace("{%s}" % name, str(value))
        rows, last = objects_of(inside.ask(request + " -JSON"))
        if request.startswith("EXEC A -AT"):
            places["waiting"] = last["session"]
        elif request.startswith("EXEC A"):
            assert last == {"session": 1001, "status": "QUEUED"}
            places["good"] = last["session"]
        elif request.startswith("EXEC B"):
            assert rows == [{"session": 2001, "status": "QUEUED"}] and last["status"] == "ERROR"
            assert isinstance(last["duration"], float) and last["message"]
            places["bad"] = last["session"]
        elif words[0] == "LOG":
            assert [(row["step"], row["task"], row["stream"], row["text"]) for row in rows] == [
                ("one", 1, "out", "a b")] and list(rows[0]) == ["time", "step", "task", "stream", "text"]
        elif words[0] == "EXPORT":
            assert len(rows) == 1 and {each["name"] for each in rows[0]["scenarios"]} >= {"A", "B"}
        elif words[0] == "HELP":
            assert {row["verb"] for row in rows} == {form.name for form in program.VERB_FORMS}
            assert all(list(row) == ["verb", "form", "help"] for row in rows)
        elif words[0] == "METRICS":
            assert all(list(row) == ["line"] for row in rows) and len(rows) > 5
        elif words[0] in ("DROP", "QUIT"):
            assert (rows, last) == ([], {})
        elif words[0] == "PING":
            assert (last["hold"], last["running"]) == (False, 0) and isinstance(last["uptime"], float)
        elif request == "SESSIONS":
            assert rows[0]["schedule"] is None and rows[0]["session"] == 2001
    assert asked | {"SHUTDOWN"} == {form.name for form in program.VERB_FORMS}


def test_shutdown(agent):
    assert agent.ask("SHUTDOWN -JSON") == ["OK {}"]
    assert agent.wait() == 0


@pytest.mark.parametrize("request_, code", [
    ("EXEC", "BAD_REQUEST"), ("NO_SUCH", "UNKNOWN_VERB"), ("SCHED", "BAD_REQUEST"),
    ("STATUS 99001", "NOT_FOUND"), ("EXEC HELLO -NO_SUCH", "BAD_REQUEST"), ("STATUS x", "BAD_REQUEST"),
    ("EXEC HELLO 'not closed", "BAD_REQUEST"), ("PING -JSON HTTP/1.1", "BAD_REQUEST")])
def test_errors(inside, request_, code):
    inside.ask("PING")
    last, = inside.ask(request_.replace("EXEC ", "EXEC -json ") + " -JSON" * ("HTTP" not in request_
                                                                           and "EXEC " not in request_))
    first, _, rest = last.partition(" {")
    assert first == "ERR " + code, last
    assert list(json.loads("{" + rest)) == ["message"], last


def test_faults_and_the_session_of_an_error(inside):
    last, = inside.ask("IMPORT '{\"scenarios\": [{\"name\": \"A\"}]}' -JSON")
    assert last.startswith("ERR BAD_REQUEST {")
    fields = json.loads(last[len("ERR BAD_REQUEST "):])
    assert {"path": "scenarios[0].version", "reason": "missing"} in fields["faults"] and "nothing" in fields["message"]
    session = inside.ok("EXEC HELLO -AT=2099-01-01")["session"]
    last, = inside.ask("WAIT %s -TIMEOUT=0 -JSON" % session)
    assert json.loads(last[len("ERR TIMEOUT "):]) == {"message": "has not ended in 0 s", "session": int(session)}
    assert inside.ask("WAIT %s -TIMEOUT=0" % session) == ["ERR TIMEOUT session=%s has not ended in 0 s" % session]


def test_secrets_are_masked_in_json_too(inside):
    inside.import_document({"scenarios": [{"name": "S", "version": "1", "variables": {"p": {"secret": True}}, "steps": [
        {"name": "a", "tasks": [{"type": "sleep", "seconds": 0}]}]}]})
    last, = inside.ask("EXEC S p=hunter22 hunter22 -JSON")
    assert "hunter22" not in last and last.startswith("ERR ") and "***" in json.loads(last[last.index("{"):])["message"]


def test_without_it_nothing_is_json(inside):
    assert fields_of(inside.ask("PING")[-1])["hold"] == "no"
    assert [list(json.loads(line[2:])) for line in inside.ask("HELP STOP -JSON")[:-1]] == [["verb", "form", "help"]] * 4
    assert inside.ask("HELP STOP")[1:3] == ["*   SESSION: number of the session",
                                            "*   -IMMEDIATE: end it now, with all its processes"]
    assert inside.ask("HELP PING") == ["* PING: how the agent is; never waits for a repository", "OK"]
