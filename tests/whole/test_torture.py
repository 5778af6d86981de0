"""Rounds of kill -9 under load: tools/torture.py, and that it sees what it looks for."""
import contextlib
import importlib.util
import shutil
import sqlite3
import sys

import pytest

from conftest import TOP
from support.outside import change

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def torture():
    spec = importlib.util.spec_from_file_location("torture", str(TOP / "tools" / "torture.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(400)
def test_thirty_rounds(torture, tmp_path, capsys):
    seed = torture.random.randrange(10 ** 6)
    print("seed", seed)
    report = torture.Driver(str(tmp_path), seed, seconds=0.25, python=sys.executable).run(30)
    with capsys.disabled():
        print("\n%d rounds, %d acknowledged" % (report["rounds"], report["acknowledged"]))
    assert not torture.is_bad(report), report
    assert report["rounds"] == 30 and report["acknowledged"] > 30


def test_it_sees_what_is_lost_and_doubled(torture, tmp_path):
    """The counting, on what a run of one round has left and another program has spoilt."""
    driver = torture.Driver(str(tmp_path), 1, seconds=0.5, python=sys.executable)
    assert not torture.is_bad(driver.run(1))
    agent, ledger = driver.agent, driver.ledger
    with contextlib.closing(sqlite3.connect(agent.work)) as connection:
        session, = connection.execute("select max(id) from session where id in (%s)" % ",".join(
            map(str, ledger.sessions))).fetchone()
        begun = connection.execute("select max(session) from session_task where status='DONE' and type='os'").fetchone()
        connection.execute("delete from session where id=?", (session,))
        connection.commit()
    assert ("session %d" % session) in torture.find_lost(agent, ledger)
    with open(str(tmp_path / "marks"), "a") as marks:
        marks.write("begin %d 0.0\nbegin %d 0.0\nbeside %d 0.1\n" % (begun * 2 + (session,)))
    doubled = torture.find_doubled(agent, ledger)
    assert any("session %d: begun" % begun in text for text in doubled)
    assert "task 0.1 of session %d beside another" % session in doubled


def test_it_sees_what_is_wrong_with_a_plan(torture, tmp_path):
    """A plan as it has to end, and the same one spoilt in each way by another program."""
    driver = torture.Driver(str(tmp_path), 5, python=sys.executable)
    agent = driver.agent
    try:
        driver.prepare()
        with contextlib.closing(agent.converse()) as connection:
            assert "status=WARNING" in connection.ask("EXEC PLAN s=0 -SYNC")[-1]
    finally:
        agent.kill()
    faults, plans = torture.find_plan_faults(agent)
    assert faults == [] and len(plans) == 2 and torture.find_doubled_nodes(agent) == []
    plan = min(plans)                           # the other one is the last of its runs
    assert agent.query("select count(*) from plan_node where session=?", plan) == [(29,)]
    leaf, = agent.query("select child from plan_node where session=? and place='1.2.3.2.1'", plan)[0]

    def spoil(statement):
        change(agent.work, statement)
        return [text.partition(": ")[2] for text in torture.find_plan_faults(agent)[0]]
    assert spoil("update session set status='ERROR' where id=%d" % leaf) == [
        "node 1.2.3.2.1 is DONE, not ERROR", "node 1.2.3.2 is DONE, not ERROR", "node 1.2.3 is DONE, not ERROR",
        "node 1.2 is DONE, not WARNING"]
    assert spoil("update session set status='RUNNING' where id=%d" % leaf)[0] == "session %d is RUNNING" % leaf
    assert spoil("update session set status='DONE' where id=%d" % leaf) == []
    assert spoil("update plan_node set tries=2 where session=%d and place='1.1'" % plan) == ["node 1.1 was tried 2 times"]
    assert spoil("update plan_node set tries=1, status='RUNNING' where session=%d and place='1.1'" % plan) == [
        "node 1.1 is RUNNING", "node 1.1 is RUNNING, not DONE"]
    assert spoil("update plan_node set status='DONE' where session=%d and place='1.1'" % plan) == []
    assert spoil("delete from plan_value where session=%d and position=3" % plan) == [
        "node 1.2 has the values ['1', '2', '3']"]
    assert spoil("insert into plan_value values (%d, '1.2', 3, '4')" % plan) == []
    change(agent.work, "insert into plan_node(session, run, place, since, kind, name, value, attempt, tries, status, begun, child)"
                       " values (%d, 999, '1.1', 999, 'run', '', '', 1, 1, 'DONE', '', %d)" % (plan, leaf))
    assert torture.find_doubled_nodes(agent) == ["attempt 1 of node 1.1 of plan %d: 2 times" % plan,
                                                 "session %d is of 2 nodes" % leaf]
    assert "node 1.2: ['DONE', 'DONE', None, 'DONE']" in spoil(
        "delete from plan_node where session=%d and place like '1.2.3%%'" % plan)
    assert len([text for text in torture.find_doubled_nodes(agent) if text.endswith("of no node")]) == 3


def test_it_sees_a_broken_link_of_the_audit(torture, tmp_path):
    driver = torture.Driver(str(tmp_path), 2, seconds=0.3, python=sys.executable)
    assert not torture.is_bad(driver.run(1))
    master, audit = str(tmp_path / "master.db"), torture.Audit(str(tmp_path / "master.db"))
    assert audit.walk_on() == [] == audit.walk_on()
    change(master, "delete from audit where n=(select max(n) from audit)")
    assert len(audit.walk_on()) == 1 and torture.Audit(master).walk_on() == []
    change(master, "update audit set outcome='' where n=2")
    assert torture.Audit(master).walk_on() == ["the audit is broken at row 2"]


def test_it_sees_what_is_lost_of_users_holds_and_switches(torture, tmp_path):
    driver = torture.Driver(str(tmp_path), 3, seconds=0.5, python=sys.executable)
    assert not torture.is_bad(driver.run(1))
    agent, states = driver.agent, driver.ledger.states
    assert ("role", "OFFICER") in states and torture.find_lost_states(agent, states) == []
    change(agent.master, "delete from user where name='MONITOR'")
    change(agent.master, "update user set role='monitor' where name='OFFICER'")
    change(agent.master, "update agent set hold_since='2026-01-01T00:00:00Z'")
    change(agent.work, "update schedule set enabled=1 where name='SWITCHED'")
    states["role", "OPERATOR"] = None           # as if its DEL had been acknowledged
    assert torture.find_lost_states(agent, states) == [
        "hold of AGENT: True, not False", "role of MONITOR: None, not monitor",
        "role of OFFICER: monitor, not administrator",
        "role of OPERATOR: operator, not None", "switch of SWITCHED: True, not False"]


def test_its_users_come_by_tls_and_ask_for_what_is_theirs(torture, tmp_path):
    """Where openssl is; what is not theirs is refused, and each kind of change is acknowledged."""
    driver = torture.Driver(str(tmp_path), 4, python=sys.executable)
    agent = driver.agent
    assert (agent.certificate is None) == (shutil.which("openssl") is None)

    def has_all():
        audit = agent.query_master("select user, verb, outcome from audit")
        by = {user for user, in agent.query("select distinct asked_by from session")}
        return {"OPERATOR", "NARROWED"} <= by and set(audit) >= {
            ("OFFICER", "USERS ADD", "OK"), ("OFFICER", "HOLD", "OK"), ("MONITOR", "EXEC", "DENIED")}
    try:
        driver.prepare()
        with torture.Load(agent, driver.ledger, 4):
            assert torture.wait_for(has_all)
    finally:
        agent.kill()
    assert not driver.ledger.faults
