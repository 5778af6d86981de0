"""A stored definition that this version cannot read, spoilt or of a newer agent: it costs the others nothing, and
whatever needs it says why."""
import json

import pytest

from conftest import sessions_of, wait_for, why
from support.outside import change, query

pytestmark = pytest.mark.once

STEPS = [{"name": "main", "tasks": [{"type": "os", "command": "echo made; test ! -e fail"}]}]


def with_fields(**fields):
    """The definition with other fields, those with None left out."""
    def body(text):
        document = dict(json.loads(text), **fields)
        return json.dumps({name: value for name, value in document.items() if value is not None})
    return body


# how a definition is spoilt, and what then is said of it
SPOILT = {
    "cut short": (lambda text: text[:len(text) // 2], "not JSON"),
    "empty": (lambda text: "", "not JSON"),
    "nested too deeply": (lambda text: "[" * 50000, "not JSON"),
    "no text": (lambda text: b"\xff" + text.encode(), "not JSON"),
    "a list": (lambda text: "[%s]" % text, "object"),
    "a number": (lambda text: "3", "object"),
    "null": (lambda text: "null", "object"),
    "an unknown field": (with_fields(turbine="HPC"), "turbine"),
    "no steps": (with_fields(steps=None), "steps"),
    "steps of another kind": (with_fields(steps={"main": []}), "steps"),
    "an unknown type": (with_fields(steps=[{"name": "main", "tasks": [{"type": "teleport"}]}]), "type: must be"),
    "a target that is not there": (with_fields(steps=[dict(STEPS[0], on_ok="NOWHERE")]), "NOWHERE"),
}


@pytest.fixture(params=sorted(SPOILT))
def spoilt(request):
    """(how, what is said)"""
    return SPOILT[request.param]


def import_bad_and_good(agent):
    """Scenarios BAD, whose definition is to be spoilt, and GOOD; CALLS, which runs BAD; a session of each way that
    there is: 1001 has ended in ERROR, 2001 waits for the release of a hold."""
    steps = [{"name": "main", "tasks": [{"type": "os", "command": "echo made; test -e %s" % (agent.folder / "mended")}]}]
    agent.import_document({"scenarios": [
        {"name": "BAD", "version": "1", "steps": steps}, {"name": "BAD", "version": "2", "steps": steps},
        {"name": "CALLS", "version": "1", "steps": [
            {"name": "main", "tasks": [{"type": "scenario", "name": "BAD", "version": "1"}]}]},
        {"name": "GOOD", "version": "1", "variables": {"v": "1"}, "steps": [
            {"name": "main", "tasks": [{"type": "set", "variable": "v", "value": "2"}]}]}]})
    assert agent.ok("EXEC BAD 1 -SYNC")["status"] == "ERROR"
    agent.ok("HOLD")
    held = agent.ok("EXEC BAD 1")
    assert (held["session"], held["status"], held["waits_for"]) == ("2001", "WAITING", "hold")
    return agent


def spoil_stored(agent, how):
    """Another program spoils the definition of BAD 1, which sessions share."""
    (number, body), = query(agent.work, "select d.id, d.body from scenario s join definition d on d.id = s.definition"
                            " where s.name='BAD' and s.version='1'")
    change(agent.work, ("update definition set body=cast(? as text) where id=?", (how(body), number)))


def check_reason(line, told):
    """The ERR line says that the repository has something that cannot be read, and what."""
    assert line.startswith("ERR REPOSITORY ") and "definition" in line and told in line, line


@pytest.fixture
def with_spoilt(inside, spoilt):
    """An agent with a spoilt definition."""
    spoil_stored(import_bad_and_good(inside), spoilt[0])
    return inside


def test_exec_says_why(with_spoilt, spoilt):
    check_reason(with_spoilt.ask("EXEC BAD 1")[-1], spoilt[1])
    check_reason(with_spoilt.ask("EXEC BAD 1 v=1 -AT=2099-01-01")[-1], spoilt[1])
    assert len(with_spoilt.rows("SESSIONS -SCENARIO=BAD")) == 2
    with_spoilt.ok("RELEASE")
    assert with_spoilt.ok("EXEC GOOD -SYNC")["status"] == "DONE"
    end = with_spoilt.ok("EXEC CALLS -SYNC")
    assert end["status"] == "ERROR" and spoilt[1] in end["message"]


def test_scenarios_lists_all(with_spoilt, spoilt):
    rows = {(row["scenario"], row["version"]): row for row in with_spoilt.rows("SCENARIOS")}
    assert sorted(rows) == [("BAD", "1"), ("BAD", "2"), ("CALLS", "1"), ("GOOD", "1"), ("HELLO", "001")]
    bad = rows.pop(("BAD", "1"))
    assert "definition" in bad["message"] and spoilt[1] in bad["message"]
    assert bad["steps"] == "" and bad["imported"]
    assert {(row["steps"], row["message"]) for row in rows.values()} == {("1", "")}


def test_what_has_run_is_still_shown(with_spoilt, spoilt):
    assert with_spoilt.status("1001")["status"] == "ERROR"
    assert [row["status"] for row in with_spoilt.rows("STATUS 1001") if "status" in row] == ["ERROR"] * 3
    assert with_spoilt.log_texts("1001") == ["made"]
    assert [row["session"] for row in with_spoilt.rows("SESSIONS -SCENARIO=BAD")] == ["2001", "1001"]
    assert with_spoilt.ok("WAIT 1001")["status"] == "ERROR"
    for line in ("RESTART 1001", "RESTART 1001 v=1", "RESTART 1001 -FROM=main"):
        check_reason(with_spoilt.ask(line)[-1], spoilt[1])
    assert with_spoilt.status("1001")["status"] == "ERROR"


def test_what_waits_ends_with_the_reason(with_spoilt, spoilt):
    with_spoilt.ok("RELEASE")
    end = with_spoilt.ok("WAIT 2001")
    assert end["status"] == "ERROR" and spoilt[1] in end["message"] and "definition" in end["message"]
    assert with_spoilt.log_texts("2001") == []
    assert with_spoilt.ok("EXEC GOOD -SYNC")["status"] == "DONE"


def test_what_waits_can_be_stopped(with_spoilt):
    assert with_spoilt.ok("STOP 2001")["status"] == "STOPPED"
    with_spoilt.ok("RELEASE")
    assert with_spoilt.ok("EXEC GOOD -SYNC")["status"] == "DONE"


def test_the_agent_starts(with_spoilt, spoilt):
    with_spoilt.stop()
    with_spoilt.start()
    assert "status=READY" in with_spoilt.ask("PING")[-1]
    with_spoilt.ok("RELEASE")
    end = with_spoilt.ok("WAIT 2001")
    assert end["status"] == "ERROR" and spoilt[1] in end["message"]
    check_reason(with_spoilt.ask("EXEC BAD 1")[-1], spoilt[1])
    assert with_spoilt.ok("EXEC GOOD -SYNC")["status"] == "DONE"
    assert with_spoilt.rows("SCENARIOS")[0]["message"] and with_spoilt.ok("PURGE -KEEP=0")["purged"] == "3"


@pytest.mark.parametrize("spoilt", ["cut short", "an unknown field", "no steps"], indirect=True)
def test_its_schedule_says_why_and_the_others_fire(inside, spoilt):
    with_spoilt = import_bad_and_good(inside)
    for name, scenario in (("BAD_ONE", "BAD 1"), ("GOOD_ONE", "GOOD -1")):
        with_spoilt.ok('SCHED ADD %s %s GLOBAL "every 1s" -OVERLAP=parallel' % (name, scenario))
    with_spoilt.ok('SCHED ADD CHAIN GOOD -1 GLOBAL "" -AFTER=scenario:BAD,GOOD_ONE')
    spoil_stored(with_spoilt, spoilt[0])
    with_spoilt.ok("RELEASE")
    row = wait_for(lambda: [row for row in why(with_spoilt, "BAD_ONE") if row["decision"] == "failed"], "BAD_ONE to fail")[0]
    assert spoilt[1] in row["message"] and row["session"] == ""
    count = len(sessions_of(with_spoilt, "GOOD_ONE"))
    wait_for(lambda: len(sessions_of(with_spoilt, "GOOD_ONE")) >= count + 2, "GOOD_ONE to go on")
    assert [row["name"] for row in with_spoilt.rows("SCHED LIST")] == ["BAD_ONE", "CHAIN", "GOOD_ONE"]
    for line in ("SCHED NEXT", "SCHED WHY", "SCHED PLAN", "SCHED UPDATE", "SCHED SHOW BAD_ONE", "SCHED NEXT BAD_ONE"):
        assert with_spoilt.ask(line)[-1].startswith("OK"), line
    for line in ("SCHED SET BAD_ONE -PRIORITY=3", 'SCHED ADD NEW BAD 1 GLOBAL "every 1h"'):
        check_reason(with_spoilt.ask(line)[-1], spoilt[1])
    with_spoilt.ok("SCHED OFF BAD_ONE")
    with_spoilt.ok("SCHED DEL BAD_ONE")


def test_what_runs_and_was_killed_is_closed_as_stale(make_agent):
    with_spoilt = make_agent().start()
    with_spoilt.import_os("BAD", "sleep 1000", on_stale="restart")
    session = with_spoilt.ok("EXEC BAD")["session"]
    with_spoilt.wait_status(session, "RUNNING")
    with_spoilt.kill()
    change(with_spoilt.work, "update definition set body='{' where body like '%sleep%'")
    with_spoilt.start()
    end = with_spoilt.status(session)
    assert end["status"] == "ERROR" and "stale" in end["message"] and "not JSON" in end["message"]
    assert with_spoilt.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert with_spoilt.stop() == 0


def test_what_runs_goes_on(inside):
    """It has its definition since it began; what is recorded of its end does not need it again."""
    inside.import_os("BAD", "until [ -e %s ]; do sleep 0.05; done" % (inside.folder / "go"))
    session = inside.ok("EXEC BAD")["session"]
    inside.wait_status(session, "RUNNING")
    change(inside.work, "update definition set body='{' where body like '%sleep%'")
    (inside.folder / "go").touch()
    assert inside.ok("WAIT %s" % session)["status"] == "DONE"


GONE = "delete from definition where id = (select definition from scenario where name='BAD' and version='1')"
NO_TEXT = GONE.replace("delete from definition", "update definition set body = cast(x'7bff' as text)")


@pytest.mark.parametrize("statement, code", [(GONE, "NOT_FOUND"), (NO_TEXT, "REPOSITORY")])
def test_a_row_that_is_gone_or_no_text_stops_nobody(inside, statement, code):
    with_spoilt = import_bad_and_good(inside)
    for name, scenario in (("BAD_ONE", "BAD 1"), ("GOOD_ONE", "GOOD -1")):
        with_spoilt.ok('SCHED ADD %s %s GLOBAL "every 1s" -OVERLAP=parallel' % (name, scenario))
    change(with_spoilt.work, statement)
    with_spoilt.ok("RELEASE")
    assert with_spoilt.ok("WAIT 2001")["status"] == "ERROR"
    for line in ("EXEC BAD 1", "EXEC BAD 1 v=1"):
        assert with_spoilt.err(line) == code
    assert with_spoilt.err("RESTART 1001") == "REPOSITORY"
    assert with_spoilt.status("1001")["status"] == "ERROR" and with_spoilt.log_texts("1001") == ["made"]
    wait_for(lambda: [row for row in why(with_spoilt, "BAD_ONE") if row["decision"] == "failed"], "BAD_ONE to fail")
    count = len(sessions_of(with_spoilt, "GOOD_ONE"))
    wait_for(lambda: len(sessions_of(with_spoilt, "GOOD_ONE")) >= count + 2, "GOOD_ONE to go on")
    for line in ("SCENARIOS", "SCHED PLAN", "EXPORT", "SCHED SET BAD_ONE -PRIORITY=3", "PURGE -KEEP=1"):
        assert "INTERNAL" not in with_spoilt.ask(line)[-1], line


# -- out, away and in again ------------------------------------------------------------

def test_export_gives_what_is_stored_or_says_why(with_spoilt, spoilt):
    """What is JSON is carried away as it is: a newer agent may read it."""
    for line in ("EXPORT", "EXPORT BAD", "EXPORT BAD 1"):
        lines = with_spoilt.ask(line)
        if spoilt[1] == "not JSON":
            check_reason(lines[-1], spoilt[1])
            assert "scenario BAD 1" in lines[-1]
            continue
        assert lines[-1] == "OK"
        scenarios = json.loads("\n".join(text[2:] for text in lines[:-1]))["scenarios"]
        (body,), = query(with_spoilt.work, "select d.body from scenario s join definition d on d.id = s.definition"
                         " where s.name='BAD' and s.version='1'")
        assert json.loads(body) in scenarios
    for line in ("EXPORT GOOD", "EXPORT BAD 2", "CONTEXTS"):
        assert with_spoilt.ask(line)[-1] == "OK"


def test_drop_takes_it_away(with_spoilt, spoilt):
    with_spoilt.ok("DROP BAD 1")
    assert with_spoilt.err("EXEC BAD 1") == "NOT_FOUND"
    check_reason(with_spoilt.ask("RESTART 1001")[-1], spoilt[1])      # its sessions have it still
    assert with_spoilt.status("1001")["status"] == "ERROR"
    assert [row["message"] for row in with_spoilt.rows("SCENARIOS")] == [""] * 4


def test_a_new_version_is_not_concerned(with_spoilt):
    with_spoilt.ok("RELEASE")
    assert with_spoilt.ok("EXEC BAD -SYNC")["status"] == "ERROR"      # version 2, in its task
    assert with_spoilt.rows("SESSIONS -LIMIT=1")[0]["version"] == "2"


@pytest.mark.parametrize("is_dropped", [False, True])
def test_the_same_import_mends_it(inside, spoilt, is_dropped):
    """The definition as it was is put in again: sessions that share it can go on, too."""
    with_spoilt = import_bad_and_good(inside)
    document = json.loads("\n".join(text[2:] for text in with_spoilt.ask("EXPORT BAD 1")[:-1]))
    spoil_stored(with_spoilt, spoilt[0])
    if is_dropped:
        with_spoilt.ok("DROP BAD 1")
    with_spoilt.import_document(document)
    assert with_spoilt.rows("SCENARIOS")[0]["message"] == ""
    (with_spoilt.folder / "mended").touch()
    with_spoilt.ok("RELEASE")
    assert with_spoilt.ok("WAIT 2001")["status"] == "DONE"
    with_spoilt.ok("RESTART 1001")
    assert with_spoilt.ok("WAIT 1001")["status"] == "DONE"
    assert with_spoilt.ok("EXEC BAD 1 -SYNC")["status"] == "DONE"
