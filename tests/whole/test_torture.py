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
