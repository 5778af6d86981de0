"""kill -9 of the agent while a load plan of three levels runs: each leaf has one session, which ran to its end once an
attempt, and the plan ends as it is defined. The number of kills: PLAN_KILLS (5)."""
import collections
import os
import random
import time

import pytest

from conftest import wait_for
from support.outside import change, query
from support.plans import leaf, make_plan, node_states

pytestmark = pytest.mark.once

KILLS = int(os.environ.get("PLAN_KILLS", "5"))
OUTER, INNER = "abc", ["1", "2", "3"]


def import_family(agent, marks):
    """P runs for each of OUTER a leaf, then for each of INNER the plan Q, of three leaves, one of which fails at first;
    each leaf writes its key at its end."""
    note = "sleep 0.05; echo ${outer}${inner}%s $SESSION >> " + str(marks)
    values = {"outer": "", "inner": ""}
    agent.import_document({"scenarios": [
        leaf("FIRST", note % "first", variables=values, on_stale="restart"),
        leaf("X", note % "x", variables=values, on_stale="restart"),
        leaf("Y", note % "y", variables=values, on_stale="restart"),
        leaf("Z", note % "z" + "; [ $(grep -c ^${outer}${inner}z %s) != 1 ]" % marks, variables=values,
             on_stale="restart"),
        make_plan({"serial": [{"parallel": [{"run": "X"}, {"run": "Y"}], "limit": 2},
                              {"run": "Z", "attempts": 4, "retry_delay": 0.01}]}, "Q", variables=values),
        make_plan({"for_each": {"variable": "outer", "in": list(OUTER)}, "parallel": 2, "do": {"serial": [
            {"run": "FIRST"}, {"for_each": {"variable": "inner", "in": INNER}, "parallel": 3,
                               "do": {"run": "Q"}}]}})]})


def check_family(agent, number, marks):
    """What holds however often the agent was killed."""
    rows = query(agent.work, "select id, scenario, status, parent, node from session where parent not null")
    assert {row[2] for row in rows} == {"DONE"}, rows
    counts = collections.Counter(row[1] for row in rows)
    inner = len(OUTER) * len(INNER)
    assert counts == {"FIRST": len(OUTER), "Q": inner, "X": inner, "Y": inner, "Z": inner}
    attempts = collections.Counter(row[0] for row in query(agent.work, "select session from session_task"))
    ends = collections.defaultdict(list)
    for key, session in (line.split() for line in marks.read_text().splitlines()):
        ends[key].append(int(session))
    expected = {outer + "first" for outer in OUTER} | {
        outer + inner + name for outer in OUTER for inner in INNER for name in "xyz"}
    assert set(ends) == expected
    for key, sessions in ends.items():
        assert len(set(sessions)) == 1, (key, sessions)
        assert len(sessions) <= attempts[sessions[0]], (key, sessions, attempts[sessions[0]])
    lines = {row["node"]: row for row in agent.rows("STATUS %s" % number) if "node" in row}
    assert set(node_states(lines).values()) == {"DONE"} and len(lines) == 1 + len(OUTER) * (3 + len(INNER))
    assert query(agent.work, "select count(*) from plan_node where status='RUNNING'") == [(0,)]


def test_killed_at_any_moment(make_agent, tmp_path):
    """Families are run, until enough agents were killed."""
    generator, killed = random.Random(os.environ.get("PLAN_SEED", "15")), 0
    agent, marks = make_agent("--max-sessions", "6"), tmp_path / "marks"
    agent.start()
    import_family(agent, marks)
    while killed < KILLS:
        if marks.exists():
            marks.unlink()
            change(agent.work, "delete from session", "delete from session_task", "delete from plan_node",
                   "delete from plan_value")
        number = agent.ok("EXEC P")["session"]
        while agent.status(number)["status"] != "DONE":
            time.sleep(generator.random() ** 2)
            if killed < KILLS:
                killed += 1
                agent.kill()
                agent.start()
                assert agent.status(number)["status"] in ("RUNNING", "QUEUED", "DONE"), agent.ask("STATUS " + number)
        check_family(agent, number, marks)


def test_a_shutdown_leaves_a_plan_open(make_agent, tmp_path):
    """What runs may end; its plan takes that at the next start, and goes on."""
    agent, step = make_agent(), "echo begun >> %s; until [ -e %s ]; do sleep 0.05; done"
    agent.start()
    agent.import_document({"scenarios": [leaf("W", step % (tmp_path / "marks", tmp_path / "go")), leaf("A"),
                                         make_plan({"serial": [{"run": "W"}, {"run": "A"}]})]})
    number = agent.ok("EXEC P")["session"]
    wait_for((tmp_path / "marks").exists, "the first to begin")
    assert agent.ok("SHUTDOWN") == {}
    (tmp_path / "go").write_text("")
    assert agent.wait() == 0
    assert query(agent.work, "select scenario, status from session order by id") == [("P", "RUNNING"), ("W", "DONE")]
    agent.start()
    assert agent.ok("WAIT " + number)["status"] == "DONE"
    assert (tmp_path / "marks").read_text() == "begun\n"


def test_an_immediate_shutdown_runs_its_nodes_again(make_agent, tmp_path):
    agent = make_agent().start()
    agent.import_document({"scenarios": [
        leaf("W", "echo begun >> %s; until [ -e %s ]; do sleep 0.05; done" % (tmp_path / "marks", tmp_path / "go")),
        make_plan({"run": "W"}, "Q"), make_plan({"serial": [{"run": "Q"}]})]})
    number = agent.ok("EXEC P")["session"]
    wait_for((tmp_path / "marks").exists, "the first to begin")
    assert agent.ok("SHUTDOWN -IMMEDIATE") == {} and agent.wait() == 0
    assert query(agent.work, "select scenario, status from session order by id") == [
        ("P", "RUNNING"), ("Q", "RUNNING"), ("W", "STOPPED")]
    (tmp_path / "go").write_text("")
    agent.start()
    assert agent.ok("WAIT " + number)["status"] == "DONE"
    assert (tmp_path / "marks").read_text() == "begun\n" * 2
    assert query(agent.work, "select attempt, is_cut from plan_node where kind='run' order by session, run") == [
        (1, 0), (1, 1), (2, 0)]
