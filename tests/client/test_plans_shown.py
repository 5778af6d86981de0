"""What people see of load plans: a plan as a tree of its nodes, while it is followed, and in top."""
import re
import sys

import pytest

from conftest import TOP, wait_for

sys.path.insert(0, str(TOP / "tools"))

import agentcli     # noqa: E402
from support.client import objects, run_client
from support.tasks import os_task

pytestmark = pytest.mark.once


def import_plan(agent, count):
    """Imports the plan P: a loop over so many values, of which 5 fails, and a run behind it."""
    agent.import_document({"scenarios": [
        {"name": "LEAF", "version": "1", "variables": {"v": "x"}, "steps": [
            {"name": "main", "tasks": [os_task('echo "leaf $VAR_v"; test "$VAR_v" != 5')]}]},
        {"name": "P", "version": "1", "plan": {"name": "all", "serial": [
            {"for_each": {"variable": "v", "in": list(range(1, count + 1))}, "parallel": 4, "max_errors": 1,
             "do": {"serial": [{"run": "LEAF"}]}},
            {"run": "LEAF", "name": "last"}]}}]})


def tree_of(port, session):
    """The lines of the tree without bars and durations: [(depth, text, state)]."""
    lines = run_client(port, "status", session).out.splitlines()
    lines = lines[:lines.index("")]
    found = [re.fullmatch(r"( *)(.*?)(?:  +(DONE|WARNING|ERROR|RUNNING).*)?", line) for line in lines]
    return [(len(match.group(1)) // 2, match.group(2), match.group(3) or "") for match in found]


def test_a_plan_as_a_tree(agent):
    import_plan(agent, 7)
    number = agent.ok("EXEC P -SYNC")["session"]
    nodes = {row["node"]: row for row in agent.rows("STATUS %s" % number) if "node" in row}
    tree = tree_of(agent.port, number)
    assert tree[0][1:] == ("session %s  P 1" % number, "WARNING")
    for line in ((1, "1 all serial", "WARNING"), (2, "1.1 for_each", "WARNING"), (3, "1.1.1 serial v=1", "DONE"),
                 (4, "1.1.1.1 run session %s" % nodes["1.1.1.1"]["session"], "DONE"), (3, "1.1.5 serial v=5", "ERROR"),
                 (3, "1.1.7 serial v=7", "DONE"), (2, "1.2 last run session %s" % nodes["1.2"]["session"], "DONE")):
        assert line in tree, tree
    failed = "session %s: ERROR: step main: task 1: exit code 1" % nodes["1.1.5.1"]["session"]
    assert (5, failed, "") in tree and [text for _, text, _ in tree].count(failed) == 1     # where it comes from, alone
    rows = objects(run_client(agent.port, "status", number, "--json"))
    assert [row["node"] for row in rows if "node" in row] == list(nodes)


def test_many_that_ended_well_are_told_by_a_few(agent):
    import_plan(agent, 30)
    number = agent.ok("EXEC P -SYNC")["session"]
    lines = [(text.split(" ")[0], state) for depth, text, state in tree_of(agent.port, number) if depth == 3]
    assert lines == [("1.1.%d" % place, "ERROR" if place == 5 else "DONE") for place in (1, 2, 3, 4, 5, 6, 7, 8)] + [
        ("...", "DONE")]
    assert "... 22 more" in run_client(agent.port, "status", number).out


@pytest.mark.parametrize("states, lines", [
    ("D" * 8, "1 2 3 4 5 6 7 8"), ("D" * 9, "1 2 3 +6"), ("DDDEDDDDDDDDDR", "1 2 3 4 5 6 7 +6 14"), ("W" * 10, "1 2 3 4 5 6 7 8 9 10"),
])
def test_which_nodes_are_folded(states, lines):
    words = {"D": "DONE", "E": "ERROR", "R": "RUNNING", "W": "WARNING"}
    blank = {"name": "", "kind": "run", "value": "", "attempt": 1, "session": None}
    rows = [dict(blank, node="1", status="RUNNING")]
    for place, state in enumerate(states, 1):
        rows.append(dict(blank, node="1.%d" % place, status="DONE"))
        rows.append(dict(blank, node="1.%d.1" % place, status=words[state]))    # what is below counts
    told = [(name.split(" ")[0][2:] if row else "+" + name.split(" ")[1]) for row, depth, name in agentcli.fold_nodes(rows)
            if depth == 2]
    assert " ".join(told) == lines


@pytest.mark.parametrize("fields, above, name", [
    ({}, None, "1.2 run"), ({"name": "load", "attempt": 2, "session": 5001}, None, "1.2 load run session 5001 (attempt 2)"),
    ({"value": "day=mon n=2"}, {"value": "day=mon"}, "1.2 run n=2"), ({"value": "day=mon"}, {"value": "day=mon"}, "1.2 run"),
    ({"value": "day=mon"}, {"value": ""}, "1.2 run day=mon"),
])
def test_names_of_nodes(fields, above, name):
    assert agentcli.name_node(dict({"node": "1.2", "name": "", "kind": "run", "value": "", "attempt": 1, "session": None},
                                   **fields), above) == name


def test_a_plan_is_followed(agent):
    import_plan(agent, 6)
    result = run_client(agent.port, "exec", "P", "--follow")
    assert result.status == 0 and result.out == ""
    nodes = {row["node"]: row for row in agent.rows("STATUS 1001") if "node" in row}
    told = [line.split("  ")[:2] for line in result.err.splitlines()]
    for place in ("1.1.1.1", "1.1.6.1"):
        assert ["%s run v=%s session %s" % (place, place[4], nodes[place]["session"]), "DONE"] in told
    assert ["1.1.5.1 run v=5 session %s" % nodes["1.1.5.1"]["session"], "ERROR"] in told
    assert ["1.1.5 serial v=5", "ERROR"] in told and ["1.2 last run session %s" % nodes["1.2"]["session"], "DONE"] in told
    assert ["1 all serial", "WARNING"] in told and told[-1] == ["session 1001", "WARNING"]
    assert not any(line[0].startswith(("1.1 ", "1.1.1 ")) for line in told)     # what has no name, and nothing to say


def test_children_stand_below_their_plan():
    sessions = [{"session": number, "parent": parent} for number, parent in (
        (9001, 3001), (8001, None), (7001, 2001), (6001, 1001), (3001, 1001), (2001, None), (1001, None))]
    assert [(row["session"], depth) for row, depth in agentcli.nest(sessions)] == [
        (8001, 0), (2001, 0), (7001, 1), (1001, 0), (3001, 1), (9001, 2), (6001, 1)]
    assert [row["session"] for row, _ in agentcli.nest([{"session": 5001, "parent": 4001}])] == [5001]


def test_top_shows_a_plan_with_what_it_runs(agent, tmp_path):
    mark = tmp_path / "go"
    agent.import_document({"scenarios": [
        {"name": "LEAF", "version": "1", "variables": {"v": ""}, "steps": [
            {"name": "main", "tasks": [os_task("while [ ! -e %s ]; do sleep 0.05; done; test $VAR_v = a" % mark)]}]},
        {"name": "P", "version": "1", "plan": {"for_each": {"variable": "v", "in": ["a", "b"]}, "parallel": 2, "do": {
            "run": "LEAF"}}}]})
    number = agent.ok("EXEC P")["session"]
    wait_for(lambda: len(agent.rows("SESSIONS -STATUS=RUNNING -PARENT=%s" % number)) == 2, "both children")
    lines = run_client(agent.port, "top", "--count", "1").out.splitlines()
    begin = lines.index("RUNNING 3")
    assert [line.split()[:2] for line in lines[begin + 1:begin + 4]] == [[number, "P"], ["2001", "LEAF"], ["3001", "LEAF"]]
    assert "v=a" in lines[begin + 2] and lines[begin + 2].index("LEAF") == lines[begin + 1].index("P") + 2
    mark.write_text("")
    agent.wait_status(number, "ERROR")
    lines = run_client(agent.port, "top", "--count", "1").out.splitlines()
    assert any(line.split()[:4] == ["3001", "LEAF", "v=b", "of"] for line in lines), lines
