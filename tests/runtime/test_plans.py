"""Load plans as they run: nodes, their options, stops, restarts."""
import json
import time

import pytest

from conftest import wait_for
from support.outside import change, foreign_lock, query
from support.plans import (leaf, make_plan, node_states, plan_children, plan_nodes, plan_variable, put_plan, run_plan,
                           wait_plan)
from support.users import add_guest
from support.waiting import go, import_waiting, marks, wait_begun, wait_ping

pytestmark = pytest.mark.once


# -- kinds of nodes ----------------------------------------------------------------------

def test_a_serial_and_a_parallel(inside):
    put_plan(inside, {"name": "all", "serial": [{"run": "A"}, {"parallel": [{"run": "A", "name": "x"}, {"run": "A"}]}]})
    number, lines = run_plan(inside)
    assert node_states(lines) == dict.fromkeys(("1", "1.1", "1.2", "1.2.1", "1.2.2"), "DONE")
    assert [lines[place]["kind"] for place in ("1", "1.1", "1.2")] == ["serial", "run", "parallel"]
    assert (lines["1"]["name"], lines["1.2.1"]["name"]) == ("all", "x")
    made = plan_children(inside, number)
    assert {row["session"] for row in made} == {lines[place]["session"] for place in ("1.1", "1.2.1", "1.2.2")}
    assert [(row["parent"], row["scenario"], row["status"]) for row in made] == [(number, "A", "DONE")] * 3
    assert list(lines["1"]) == ["node", "name", "kind", "value", "attempt", "status", "session", "begun", "ended",
                                "message"]


def test_a_serial_ends_where_it_fails(inside):
    put_plan(inside, {"serial": [{"run": "A"}, {"run": "B", "name": "bad"}, {"run": "A"}]})
    number, lines = run_plan(inside, status="ERROR")
    assert node_states(lines) == {"1": "ERROR", "1.1": "DONE", "1.2": "ERROR"}
    assert inside.status(number)["message"] == "bad: session %s: ERROR: step main: task 1: exit code 1" % \
        lines["1.2"]["session"]


@pytest.mark.parametrize("value, place", [("mon", "1.1"), ("17", "1.2"), ("tuesday", "1.3"), ("sun", "1.else")])
def test_a_case_takes_the_first_branch_that_fits(inside, value, place):
    put_plan(inside, {"case": {"variable": "v", "when": [
        {"operator": "=", "value": "mon", "do": {"run": "A"}}, {"operator": "in", "value": ["9", "17.0"], "do": {"run": "A"}},
        {"operator": "matches", "value": "^t.*${end}$", "do": {"run": "A"}}], "else": {"run": "A"}}},
        variables={"v": "", "end": "day"})
    _, lines = run_plan(inside, "P v=" + value)
    assert node_states(lines) == {"1": "DONE", place: "DONE"}


def test_nothing_is_kept_of_the_processes_of_a_question(inside):
    """Or `output` would look at them until the agent ends."""
    put_plan(inside, {"case": {"variable": "v", "when": [
        {"operator": "matches", "value": "^x", "do": {"run": "B"}}, {"operator": "matches", "value": "^t", "do": {"run": "A"}}]}},
        variables={"v": "text"})
    assert node_states(run_plan(inside)[1]) == {"1": "DONE", "1.2": "DONE"}
    wait_for(lambda: not inside.agent._output._processes, "them to be let go")


def test_no_case_fits(inside):
    put_plan(inside, {"case": {"variable": "v", "when": [{"operator": "=", "value": "1", "do": {"run": "B"}}]}},
        variables={"v": "0"})
    assert node_states(run_plan(inside)[1]) == {"1": "DONE"}


def test_a_loop_over_dates(inside):
    put_plan(inside, {"for_each": {"variable": "day", "from": "2015-01-30", "to": "2015-02-02"}, "parallel": 2,
                 "do": {"run": "D", "keywords": "load"}},
        leaf("D", "echo day=$VAR_day", variables={"day": ""}))
    number, lines = run_plan(inside)
    days = ["day=2015-01-30", "day=2015-01-31", "day=2015-02-01", "day=2015-02-02"]
    assert [lines["1.%d" % place]["value"] for place in range(1, 5)] == days
    made = plan_children(inside, number)
    assert [row["name"] for row in made] == days and [row["keywords"] for row in made] == [
        "load," + day for day in days]
    assert [inside.log_texts(row["session"]) for row in made] == [[day] for day in days]
    assert len(inside.rows("SESSIONS -KEYWORD=day=2015-01-31")) == 1


def test_loops_in_one_another(inside):
    put_plan(inside, {"for_each": {"variable": "a", "in": ["1", "2"]}, "do": {"for_each": {
        "variable": "b", "in": ["x${a}", "y"]}, "do": {"run": "D", "variables": {"both": "${a}${b}"}}}},
        leaf("D", "echo $VAR_both", variables={"both": ""}))
    number, lines = run_plan(inside)
    assert [(row["name"], inside.log_texts(row["session"])) for row in plan_children(inside, number)] == [
        ("a=1 b=x1", ["1x1"]), ("a=1 b=y", ["1y"]), ("a=2 b=x2", ["2x2"]), ("a=2 b=y", ["2y"])]
    assert lines["1.2.1"]["value"] == "a=2 b=x2" and lines["1.2"]["value"] == "a=2"


def test_a_loop_over_files_and_a_query(inside, tmp_path):
    for name in "ba":
        (tmp_path / (name + ".csv")).write_text("")
    inside.import_document({"data_servers": [{"name": "S", "driver": "sqlite3", "database": str(tmp_path / "s.db")}],
                            "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "S"}}]})
    put_plan(inside, {"serial": [
        {"for_each": {"variable": "v", "files": str(tmp_path / "${what}.csv")}, "do": {"run": "A"}},
        {"for_each": {"variable": "v", "schema": "DWH",
                      "query": "select 'one' union all select :what union all select 3"}, "do": {"run": "A"}},
        {"for_each": {"variable": "v", "files": str(tmp_path / "none*")}, "do": {"run": "B"}}]},
        variables={"what": "*"})
    _, lines = run_plan(inside)
    assert [row["value"] for place, row in lines.items() if place.count(".") == 2] == [
        "v=%s" % (tmp_path / "a.csv"), "v=%s" % (tmp_path / "b.csv"), "v=one", "v=*", "v=3"]
    assert lines["1.3"]["status"] == "DONE"


def test_values_that_cannot_be_had(inside):
    put_plan(inside, {"serial": [{"for_each": {"variable": "v", "schema": "${s}", "query": "select 1"},
                                  "do": {"run": "A"}}]}, variables={"s": "NOWHERE"})
    _, lines = run_plan(inside, status="ERROR")
    assert lines["1.1"]["status"] == "ERROR" and "NOWHERE" in lines["1.1"]["message"]


def test_a_loop_runs_so_many_at_once(make_inside):
    agent = make_inside("--max-sessions", "8").start()
    import_waiting(agent)
    put_plan(agent, {"for_each": {"variable": "v", "in": [str(n) for n in range(6)]}, "parallel": 3, "do": {"run": "W"}})
    number = agent.ok("EXEC P")["session"]
    wait_for(lambda: len(marks(agent)) == 3, "three children")
    row = agent.status(number)
    assert (row["status"], row["waits_for"], row["message"]) == ("RUNNING", "children", "waits for 3 sessions")
    assert len(plan_children(agent, number)) == 3
    go(agent)
    wait_plan(agent, number)
    assert len(marks(agent)) == 6


def test_what_is_not_enabled_is_passed_over(inside):
    put_plan(inside, {"serial": [{"run": "B", "enabled": False}, {"parallel": [{"run": "A"}, {"run": "B", "enabled": False}]}]})
    assert node_states(run_plan(inside)[1]) == {"1": "DONE", "1.2": "DONE", "1.2.1": "DONE"}
    put_plan(inside, {"enabled": False, "run": "B"})
    assert node_states(run_plan(inside)[1]) == {}


# -- errors ------------------------------------------------------------------------------

FOUR = ["good", "bad", "good", "bad"]


@pytest.mark.parametrize("max_errors, status, begun", [(0, "ERROR", 2), (1, "ERROR", 4), (2, "WARNING", 4)])
def test_errors_of_a_loop(inside, max_errors, status, begun):
    put_plan(inside, {"for_each": {"variable": "v", "in": FOUR}, "max_errors": max_errors, "do": {"run": "V"}},
        leaf("V", "[ $VAR_v = good ]", variables={"v": ""}))
    number, lines = run_plan(inside, status=status)
    assert len(lines) == begun + 1 and lines["1"]["status"] == status
    waiting = ", 2 did not begin" if begun == 2 else ""
    assert "%d of 4 failed%s, the last: V v=bad: session" % (begun // 2, waiting) in inside.status(number)["message"]


def test_what_runs_goes_on_beyond_the_errors(make_inside):
    agent = make_inside("--max-sessions", "8").start()
    import_waiting(agent)
    put_plan(agent, {"parallel": [{"run": "W"}, {"run": "B"}, {"run": "A"}], "limit": 2})
    number = agent.ok("EXEC P")["session"]
    wait_for(lambda: plan_nodes(agent, number).get("1.2", {}).get("status") == "ERROR", "the error")
    wait_for(lambda: marks(agent), "the other")
    assert agent.status(number)["status"] == "RUNNING"
    go(agent)
    assert node_states(wait_plan(agent, number, "ERROR")) == {"1": "ERROR", "1.1": "DONE", "1.2": "ERROR"}


def test_a_warning_is_no_error(inside):
    warn = leaf("W")
    warn["steps"][0]["tasks"][0].update(command=["false"], warning_codes=[1])
    put_plan(inside, {"serial": [{"run": "W"}, {"run": "A"}]}, warn)
    assert node_states(run_plan(inside, status="WARNING")[1]) == {"1": "WARNING", "1.1": "WARNING", "1.2": "DONE"}


def test_a_skip_at_a_limit_is_an_error(inside):
    import_waiting(inside)
    put_plan(inside, {"serial": [{"run": "S"}]}, leaf("S", ("sleep", "60"), concurrency={"limit": 1, "on_limit": "skip"}))
    first = inside.ok("EXEC S")["session"]
    _, lines = run_plan(inside, status="ERROR")
    assert "scenario S is at its limit of open sessions: 1" in lines["1.1"]["message"] and lines["1.1"]["session"] == ""
    inside.ok("STOP %s -IMMEDIATE" % first)


def test_an_error_at_a_limit_is_one(inside):
    put_plan(inside, {"run": "S"}, leaf("S", ("sleep", "60"), concurrency={"limit": 1, "on_limit": "error"}))
    first = inside.ok("EXEC S")["session"]
    _, lines = run_plan(inside, status="ERROR")
    assert inside.status(lines["1"]["session"])["status"] == "ERROR"
    inside.ok("STOP %s -IMMEDIATE" % first)


def test_attempts_of_a_run(inside, tmp_path):
    """Each goes on with the session that failed."""
    count = tmp_path / "count"
    put_plan(inside, {"run": "C", "attempts": 3}, leaf("C", "echo >> %s; [ $(wc -l < %s) = 3 ]" % (count, count)))
    number, lines = run_plan(inside)
    assert lines["1"]["attempt"] == "3" and len(plan_children(inside, number)) == 1
    count.unlink()
    put_plan(inside, {"run": "C", "attempts": 3, "restart": "session"},
        leaf("C", "echo >> %s; [ $(wc -l < %s) = 3 ]" % (count, count)))
    number, lines = run_plan(inside)
    made = plan_children(inside, number)
    assert [row["status"] for row in made] == ["ERROR", "ERROR", "DONE"]
    assert lines["1"]["session"] == made[-1]["session"]


@pytest.mark.parametrize("restart, count", [("failed", 4), ("all", 6)])
def test_attempts_of_a_serial(inside, restart, count):
    put_plan(inside, {"serial": [{"run": "A"}, {"run": "B", "restart": "session"}], "attempts": 3, "restart": restart})
    number, lines = run_plan(inside, status="ERROR")
    assert lines["1"]["attempt"] == "3" and len(plan_children(inside, number)) == count
    assert lines["1.1"]["attempt"] == ("3" if restart == "all" else "1")


def test_the_delay_between_attempts(inside):
    put_plan(inside, {"run": "B", "attempts": 2, "retry_delay": 3600})
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: "attempt 2 of 2 follows" in plan_nodes(inside, number).get("1", {}).get("message", ""), "the failure")
    row = inside.status(number)
    assert (row["status"], row["waits_for"]) == ("RUNNING", "children")
    inside.let_pass(3601)
    assert wait_plan(inside, number, "ERROR")["1"]["attempt"] == "2"


@pytest.mark.parametrize("handler, option, status", [
    ("A", {}, "ERROR"), ("A", {"on_exception": "ignore"}, "WARNING"), ("B", {"on_exception": "ignore"}, "ERROR")])
def test_an_exception(inside, handler, option, status):
    put_plan(inside, {"serial": [dict({"run": "B", "attempts": 2, "exception": {"run": handler}}, **option), {"run": "A"}]})
    number, lines = run_plan(inside, status=status)
    assert lines["1.1"]["status"] == status and lines["1.1.exception"]["attempt"] == "1"
    assert ("1.2" in lines) == (status == "WARNING")
    assert ("its exception failed, too" in lines["1.1"]["message"]) == (handler == "B")


def test_an_exception_of_what_ended_well(inside):
    put_plan(inside, {"run": "A", "exception": {"run": "B"}})
    assert node_states(run_plan(inside)[1]) == {"1": "DONE"}


def begin_plan(agent, count):
    """EXEC of P, once so many of its children run -> its number."""
    number = agent.ok("EXEC P")["session"]
    wait_for(lambda: [row["status"] for row in plan_children(agent, number)].count("RUNNING") == count, "the children")
    return number


def test_the_timeout_of_a_node(inside):
    """Its running children are stopped; then its attempts and its exception follow."""
    put_plan(inside, {"serial": [{"parallel": [{"run": "S"}, {"serial": [{"run": "S"}, {"run": "A"}]}], "timeout": "1h",
                             "exception": {"run": "A"}, "on_exception": "ignore"}, {"run": "A"}]},
        leaf("S", ("sleep", "60")))
    number = begin_plan(inside, 2)
    inside.let_pass(3601)
    lines = wait_plan(inside, number, "WARNING")
    assert node_states(lines) == {"1": "WARNING", "1.1": "WARNING", "1.1.1": "STOPPED", "1.1.2": "STOPPED",
                             "1.1.2.1": "STOPPED", "1.1.exception": "DONE", "1.2": "DONE"}
    assert "time-out of the node after 3600 s" in lines["1.1"]["message"]
    assert "time-out of the node" in inside.status(lines["1.1.1"]["session"])["message"]


def test_the_timeout_of_a_run(inside):
    put_plan(inside, {"run": "S", "timeout": "1h", "attempts": 2, "restart": "session"}, leaf("S", ("sleep", "60")))
    number = begin_plan(inside, 1)
    inside.let_pass(3601)
    wait_for(lambda: [row["status"] for row in plan_children(inside, number)] == ["STOPPED", "RUNNING"], "the second")
    inside.let_pass(3601)
    line = wait_plan(inside, number, "ERROR")["1"]
    assert (line["status"], line["attempt"]) == ("ERROR", "2")
    assert [row["status"] for row in plan_children(inside, number)] == ["STOPPED", "STOPPED"]


def test_the_timeout_of_a_plan(inside):
    put_plan(inside, {"serial": [{"run": "S", "exception": {"run": "A"}}]}, leaf("S", ("sleep", "60")), timeout="1h")
    number = begin_plan(inside, 1)
    inside.let_pass(3601)
    assert node_states(wait_plan(inside, number, "ERROR")) == {"1": "STOPPED", "1.1": "STOPPED"}
    assert inside.status(number)["message"] == "time-out of the session after 3600 s"


def test_the_timeouts_go_on_over_a_start(inside):
    """They count from the begin, and not anew."""
    put_plan(inside, {"serial": [{"run": "S", "timeout": "1h", "restart": "session"}]},
             leaf("S", ("sleep", "60"), on_stale="restart"), timeout="2h")
    number = begin_plan(inside, 1)
    inside.let_pass(1800)
    inside.stop()
    inside.let_pass(5500)
    inside.start()
    wait_plan(inside, number, "ERROR")
    assert inside.status(number)["message"] == "time-out of the session after 7200 s"


# -- variables ---------------------------------------------------------------------------

def test_variables_are_handed_down_and_taken_back(inside):
    add = leaf("ADD", "echo $((VAR_n + 1))", variables={"n": "0", "secret_one": {"secret": True, "env": "HOME"}})
    add["steps"][0]["tasks"][0]["capture"] = "n"
    put_plan(inside, {"serial": [{"run": "ADD", "returns": {"n": "n"}}, {"parallel": [
        {"serial": [{"run": "ADD", "returns": {"n": "n"}}, {"run": "SHOW", "name": "left"}]},
        {"serial": [{"run": "SHOW", "name": "right"}]}]}, {"run": "SHOW", "name": "last"}]},
        add, leaf("SHOW", "echo $VAR_n", variables={"n": "none"}), variables={"n": "40", "other": "x"})
    number, lines = run_plan(inside)
    shown = {row["name"]: inside.log_texts(row["session"]) for row in plan_children(inside, number)}
    assert (shown["left"], shown["right"], shown["last"]) == (["42"], ["41"], ["41"])
    assert plan_variable(inside, number, "n") == "41"


def test_secrets_are_handed_to_secret_ones_alone(inside):
    show = "echo \"$VAR_word\" | tr a-z A-Z"
    put_plan(inside, {"serial": [{"run": "S"}, {"run": "N"}]}, leaf("S", show, variables={"word": {"secret": True}}),
        leaf("N", show, variables={"word": "plain"}), variables={"word": {"secret": True}})
    number, lines = run_plan(inside, "P word=geheim")
    first, second = plan_children(inside, number)
    assert inside.log_texts(first["session"]) == ["GEHEIM"] and inside.log_texts(second["session"]) == ["PLAIN"]
    assert b"geheim" not in inside.work.read_bytes()
    assert not list(inside.folder.glob("*.secret.*"))
    put_plan(inside, {"run": "N", "variables": {"word": "x${word}"}}, leaf("N", show, variables={"word": "plain"}),
        variables={"word": {"secret": True}})
    _, lines = run_plan(inside, "P word=geheim", "ERROR")
    assert "is given a secret, and is none in scenario N" in lines["1"]["message"]


def test_a_secret_is_not_taken_back(inside, tmp_path):
    """Neither where the session itself does not know that it is one."""
    put_plan(inside, {"serial": [{"run": "S"}, {"run": "D", "returns": {"x": "y"}}]},
             leaf("S", "echo $VAR_pw > %s/pw" % tmp_path, variables={"pw": {"secret": True}}),
             {"name": "D", "version": "1", "variables": {"x": ""}, "steps": [{"name": "main", "tasks": [
                 {"type": "os", "command": "cat %s/pw" % tmp_path, "capture": "x"}]}]},
             variables={"pw": {"secret": True}, "y": ""})
    number, lines = run_plan(inside, "P pw=hunter22", "ERROR")
    assert lines["1.2"]["message"] == "returns.x: would store a secret of session %s" % lines["1.2"]["session"]
    assert plan_variable(inside, number, "y") == ""


def test_what_a_run_asks_for(inside):
    inside.import_document({"contexts": ["PROD", "TEST"]})
    put_plan(inside, {"parallel": [{"run": "${what}", "name": "a"}, {"run": "A", "name": "b", "context": "${where}",
                                                               "priority": 7, "version": "1"}]},
        variables={"what": "A", "where": "TEST"})
    number, lines = run_plan(inside, "P 1 PROD -PRIORITY=3 -LEVEL=3")
    rows = query(inside.work, "select name, context, priority, level from session where parent=? order by name", int(number))
    assert rows == [("a", "PROD", 3, 3), ("b", "TEST", 7, 3)]


def test_a_run_that_cannot_begin(inside):
    put_plan(inside, {"parallel": [{"run": "${what}"}, {"run": "A", "context": "${what}"}, {"run": "A"}], "max_errors": 2},
        variables={"what": "NOWHERE"})
    _, lines = run_plan(inside, status="WARNING")
    assert "no scenario NOWHERE" in lines["1.1"]["message"] and "no context NOWHERE" in lines["1.2"]["message"]


def test_a_circle_is_refused_when_it_would_start(inside):
    put_plan(inside, {"run": "${what}", "name": "x"}, make_plan({"run": "${what}"}, "Q", variables={"what": "P"}),
        variables={"what": "Q"})
    number, _ = run_plan(inside, status="ERROR")
    assert "scenario Q would start itself: P > Q > Q" in inside.status(number)["message"]


def test_a_plan_in_a_plan(inside):
    put_plan(inside, {"serial": [{"run": "Q"}, {"run": "A"}]}, make_plan({"parallel": [{"run": "A"}, {"run": "A"}]}, "Q"))
    number, lines = run_plan(inside)
    inner = lines["1.1"]["session"]
    assert node_states(plan_nodes(inside, inner)) == {"1": "DONE", "1.1": "DONE", "1.2": "DONE"}
    assert len(plan_children(inside, inner)) == 2 and len(plan_children(inside, number)) == 2


def test_levels(inside):
    put_plan(inside, {"run": "A"})
    number, lines = run_plan(inside, "P -LEVEL=0")
    assert lines == {} and query(inside.work, "select count(*) from plan_node") == [(0,)]


# -- stops -------------------------------------------------------------------------------

def test_a_stop_goes_down(inside):
    import_waiting(inside)
    put_plan(inside, {"serial": [{"parallel": [{"run": "W"}, {"run": "Q"}], "exception": {"run": "A"}}, {"run": "A"}]},
        make_plan({"serial": [{"run": "W"}]}, "Q"))
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: len(marks(inside)) == 2, "both to begin")
    inside.ok("STOP %s" % number)
    assert inside.status(number)["status"] == "RUNNING"
    go(inside)
    lines = wait_plan(inside, number, "STOPPED")
    assert lines["1.1"]["status"] == "STOPPED" and "1.2" not in lines and "1.1.exception" not in lines
    assert {row["status"] for row in inside.rows("SESSIONS")} <= {"STOPPED", "DONE"}


def test_an_immediate_stop_goes_down(inside):
    import_waiting(inside)
    put_plan(inside, {"for_each": {"variable": "v", "in": ["1", "2", "3"]}, "parallel": 2, "do": {"run": "W"}})
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: len(marks(inside)) == 2, "both to begin")
    assert inside.ok("STOP %s -IMMEDIATE" % number)["status"] == "STOPPED"
    assert node_states(plan_nodes(inside, number)) == {"1": "STOPPED", "1.1": "STOPPED", "1.2": "STOPPED"}
    assert "by test (STOP -IMMEDIATE)" in plan_children(inside, number)[0]["message"]


def test_a_stop_of_what_waits(make_inside):
    agent = make_inside("--max-sessions", "1").start()
    import_waiting(agent)
    put_plan(agent, {"parallel": [{"run": "A"}, {"run": "B", "attempts": 2, "retry_delay": 3600}]})
    other = agent.ok("EXEC W")["session"]
    wait_begun(agent, other)
    number = agent.ok("EXEC P")["session"]
    wait_for(lambda: len(plan_children(agent, number)) == 2, "the children")
    assert agent.status(number)["waits_for"] == "children"      # it takes no slot
    assert {row["waits_for"] for row in plan_children(agent, number)} == {"slot"}
    agent.ok("STOP %s" % number)
    wait_plan(agent, number, "STOPPED")
    go(agent)


def test_the_end_of_an_agent_ends_a_query(inside, tmp_path):
    inside.import_document({"data_servers": [{"name": "S", "driver": "sqlite3", "database": str(tmp_path / "s.db")}],
                            "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "S"}}]})
    put_plan(inside, {"for_each": {"variable": "v", "schema": "DWH", "query": "with recursive n(x) as (select 1 union all "
                              "select x + 1 from n) select count(*) from n"}, "do": {"run": "A"}})
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: plan_nodes(inside, number), "it to begin")
    assert inside.ok("STOP %s -IMMEDIATE" % number)["status"] == "STOPPED"


# -- the queue ---------------------------------------------------------------------------

def test_plans_take_no_slots(make_inside):
    agent = make_inside("--max-sessions", "1").start()
    import_waiting(agent)
    put_plan(agent, {"run": "W"})
    numbers = [agent.ok("EXEC P")["session"] for _ in range(30)]
    wait_for(lambda: all(agent.status(number)["status"] == "RUNNING" for number in numbers), "all to run")
    wait_ping(agent, running="31")
    go(agent)
    for number in numbers:
        wait_plan(agent, number)
    assert len(marks(agent)) == 30


def test_a_plan_counts_for_its_limit(inside):
    import_waiting(inside)
    put_plan(inside, {"run": "W"}, concurrency={"limit": 1})
    first, second = (inside.ok("EXEC P")["session"] for _ in range(2))
    wait_for(lambda: marks(inside), "the first")
    assert inside.status(second)["waits_for"] == "limit"
    go(inside)
    wait_plan(inside, first)
    wait_plan(inside, second)


def test_a_hold_keeps_children_back(inside):
    import_waiting(inside)
    put_plan(inside, {"serial": [{"run": "W"}, {"run": "A"}]})
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: marks(inside), "the first")
    inside.ok("HOLD")
    go(inside)
    wait_for(lambda: len(plan_children(inside, number)) == 2, "the second")
    assert plan_children(inside, number)[1]["waits_for"] == "hold"
    inside.ok("RELEASE")
    wait_plan(inside, number)


def test_many_values(inside):
    put_plan(inside, {"for_each": {"variable": "v", "in": [str(n) for n in range(300)]}, "parallel": 8,
                 "do": {"run": "Q"}}, leaf("Q"))
    inside.import_document({"scenarios": [{"name": "Q", "version": "1", "steps": [{"name": "s", "tasks": [
        {"type": "set", "variable": "x", "value": "1"}]}], "variables": {"x": ""}}]}, "-REPLACE")
    number, lines = run_plan(inside)
    assert len(lines) == 301 and {row["attempt"] for row in lines.values()} == {"1"}


# -- RESTART -----------------------------------------------------------------------------

def switch(agent, name="T"):
    """A leaf that fails until the file `mended` is there."""
    return leaf(name, "echo run; [ -e %s ]" % (agent.folder / "mended"))


def mend_leaf(agent):
    (agent.folder / "mended").write_text("")


@pytest.mark.parametrize("restart, count", [("failed", 3), ("all", 6)])
def test_a_restart_goes_on_where_it_failed(inside, restart, count):
    put_plan(inside, {"serial": [{"run": "A"}, {"run": "A"}, {"run": "T"}], "restart": restart}, switch(inside))
    number, before = run_plan(inside, status="ERROR")
    mend_leaf(inside)
    assert inside.ok("RESTART %s" % number)["status"] == "QUEUED"
    lines = wait_plan(inside, number)
    assert node_states(lines) == dict.fromkeys(("1", "1.1", "1.2", "1.3"), "DONE")
    assert lines["1"]["attempt"] == "2" and lines["1.1"]["attempt"] == ("1" if restart == "failed" else "2")
    # of a run the session that failed goes on, unless all of it is run anew
    assert len(plan_children(inside, number)) == count


def test_a_restart_of_a_run_by_a_new_session(inside):
    put_plan(inside, {"run": "T", "restart": "session"}, switch(inside))
    number, _ = run_plan(inside, status="ERROR")
    mend_leaf(inside)
    inside.ok("RESTART %s" % number)
    wait_plan(inside, number)
    assert [row["status"] for row in plan_children(inside, number)] == ["ERROR", "DONE"]


def test_a_restart_with_other_variables(inside):
    put_plan(inside, {"serial": [{"run": "V"}, {"run": "V", "variables": {"v": "x${v}"}, "name": "last"}]},
        leaf("V", "echo $VAR_v; [ $VAR_v != bad ]", variables={"v": ""}), variables={"v": "bad"})
    number, _ = run_plan(inside, status="ERROR")
    inside.ok("RESTART %s v=good" % number)
    lines = wait_plan(inside, number)
    assert inside.log_texts(lines["1.1"]["session"]) == ["bad", "good"]
    assert inside.log_texts(lines["1.2"]["session"]) == ["xgood"]


def test_the_newest_outcome_of_a_child_counts(inside):
    put_plan(inside, {"parallel": [{"run": "T"}, {"run": "T", "name": "other"}]}, switch(inside))
    number, lines = run_plan(inside, status="ERROR")
    mend_leaf(inside)
    first = lines["1.1"]["session"]
    inside.ok("RESTART %s" % first)
    assert inside.ok("WAIT %s" % first)["status"] == "DONE"
    inside.ok("RESTART %s" % number)
    lines = wait_plan(inside, number)
    assert lines["1.1"]["session"] == first and inside.log_texts(first) == ["run", "run"]


def test_a_child_of_an_open_plan_is_not_restarted(inside):
    import_waiting(inside)
    put_plan(inside, {"parallel": [{"run": "B"}, {"run": "W"}, {"run": "Q"}]}, make_plan({"run": "B"}, "Q"))
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: [row["status"] for row in plan_children(inside, number)].count("ERROR") == 2, "both errors")
    wait_for(lambda: marks(inside), "the other")
    lines = plan_nodes(inside, number)
    assert inside.ask("RESTART %s" % lines["1.1"]["session"])[-1].startswith("ERR CONFLICT")
    inner = plan_nodes(inside, lines["1.3"]["session"])["1"]["session"]
    assert inside.err("RESTART %s" % inner) == "CONFLICT"
    go(inside)
    wait_plan(inside, number, "ERROR")
    inside.ok("RESTART %s" % inner)


def test_skip_goes_on_behind_what_failed(inside):
    put_plan(inside, {"serial": [{"parallel": [{"run": "B"}, {"run": "A"}, {"run": "B"}], "restart": "all"}, {"run": "A"}]})
    number, _ = run_plan(inside, status="ERROR")
    inside.ok("RESTART %s -SKIP" % number)
    lines = wait_plan(inside, number, "WARNING")
    assert lines["1.2"]["status"] == "DONE" and len(plan_children(inside, number)) == 4
    assert inside.err("RESTART %s -SKIP" % number) == "CONFLICT"


def test_from_goes_on_at_a_node(inside):
    put_plan(inside, {"serial": [{"run": "A", "name": "a"}, {"serial": [{"run": "A", "name": "b"}, {"run": "A", "name": "c"}],
                                                     "restart": "all"}, {"run": "T", "name": "d"}]}, switch(inside))
    number, _ = run_plan(inside, status="ERROR")
    mend_leaf(inside)
    assert inside.err("RESTART %s -FROM=nothing" % number) == "NOT_FOUND"
    inside.ok("RESTART %s -FROM=c" % number)
    lines = wait_plan(inside, number)
    assert [row["name"] for row in plan_children(inside, number)] == ["a", "b", "c", "d", "c", "d"]
    assert [lines[place]["attempt"] for place in ("1.1", "1.2.1", "1.2.2", "1.3")] == ["1", "1", "2", "2"]


def test_from_passes_over_what_failed_before(inside):
    put_plan(inside, {"serial": [{"run": "B"}, {"parallel": [{"run": "A"}, {"serial": [{"run": "A"}, {"run": "A", "name": "x"}]}]}]})
    number, _ = run_plan(inside, status="ERROR")
    inside.ok("RESTART %s -FROM=x" % number)
    lines = wait_plan(inside, number, "WARNING")
    assert "1.2.2.1" not in lines and lines["1.2.2.2"]["status"] == lines["1.2.1"]["status"] == "DONE"


def test_from_in_a_loop(inside):
    put_plan(inside, {"for_each": {"variable": "v", "in": ["1", "2"]}, "max_errors": 9, "do": {"serial": [
        {"run": "A", "name": "a"}, {"run": "A", "name": "b"}, {"run": "T", "name": "c"}]}}, switch(inside))
    number, _ = run_plan(inside, status="WARNING")
    assert inside.err("RESTART %s" % number) == "CONFLICT"
    put_plan(inside, {"serial": [{"for_each": {"variable": "v", "in": ["1", "2"]}, "max_errors": 1, "do": {"serial": [
        {"run": "A", "name": "a"}, {"run": "A", "name": "b"}, {"run": "T", "name": "c"}]}}]}, switch(inside))
    number, _ = run_plan(inside, status="ERROR")
    mend_leaf(inside)
    inside.ok("RESTART %s -FROM=1.1.2.2" % number)
    wait_plan(inside, number)
    assert [row["name"] for row in plan_children(inside, number)] == [
        "a v=1", "b v=1", "c v=1", "a v=2", "b v=2", "c v=2", "b v=2", "c v=2"]
    assert inside.err("RESTART %s -FROM=1.1.9.1" % number) == "CONFLICT"


def test_another_definition(inside):
    put_plan(inside, {"serial": [{"run": "A", "name": "a"}, {"run": "B", "name": "b"}]})
    number, _ = run_plan(inside, status="ERROR")
    put_plan(inside, {"serial": [{"run": "A", "name": "new"}, {"run": "A", "name": "a"}, {"run": "A", "name": "b"}]})
    assert "was replaced" in inside.ok("RESTART %s" % number)["note"]
    wait_plan(inside, number, "ERROR")
    inside.ok("RESTART %s -REDEFINE" % number)
    assert node_states(wait_plan(inside, number)) == dict.fromkeys(("1", "1.1", "1.2", "1.3"), "DONE")


def test_the_same_values_at_a_restart(inside, tmp_path):
    (tmp_path / "a.in").write_text("")
    put_plan(inside, {"for_each": {"variable": "v", "files": str(tmp_path / "*.in")}, "restart": "all", "do": {"run": "T"}},
        switch(inside))
    number, _ = run_plan(inside, status="ERROR")
    (tmp_path / "b.in").write_text("")
    mend_leaf(inside)
    inside.ok("RESTART %s" % number)
    assert set(wait_plan(inside, number)) == {"1", "1.1"}


def test_fewer_values_in_a_later_attempt(inside, tmp_path):
    """What a loop runs over is as it was when that began last, also after a restart."""
    for name in "abc":
        (tmp_path / (name + ".in")).write_text("")
    put_plan(inside, {"serial": [{"serial": [
        {"for_each": {"variable": "v", "files": str(tmp_path / "*.in")}, "do": {"run": "A"}}, {"run": "L"}],
        "restart": "all", "attempts": 2}, {"run": "B"}]}, leaf("L", "cd %s && rm b.in c.in && exit 1; true" % tmp_path))
    run_plan(inside, status="ERROR")
    assert query(inside.work, "select place, value from plan_value") == [
        ("1.1.1", str(tmp_path / "a.in"))]


# -- the agent ends ----------------------------------------------------------------------

@pytest.mark.parametrize("restart, count", [("task", 2), ("session", 3)])
def test_a_plan_goes_on_with_the_next_start(inside, restart, count):
    import_waiting(inside)
    put_plan(inside, {"serial": [{"run": "W", "restart": restart}, {"run": "A"}]})
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: marks(inside), "the first")
    inside.stop()
    assert query(inside.work, "select status from session where id=?", int(number)) == [("RUNNING",)]
    go(inside)
    inside.start()
    lines = wait_plan(inside, number)
    made = plan_children(inside, number)
    assert [row["status"] for row in made] == ["STOPPED"] * (count - 2) + ["DONE"] * 2
    assert lines["1.1"]["attempt"] == "2" and lines["1"]["attempt"] == "1"


def test_what_ended_meanwhile_is_taken(inside):
    """An agent ends between the end of a child and what its plan makes of that."""
    import_waiting(inside)
    put_plan(inside, {"serial": [{"run": "W"}, {"run": "A"}]})
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: marks(inside), "the first")
    inside.agent.families.leave()
    wait_for(lambda: not inside.agent.queue.find(int(number)), "the plan to be left")
    go(inside)
    child, = plan_children(inside, number)
    inside.ok("WAIT %s" % child["session"])
    inside.stop()
    inside.start()
    assert wait_plan(inside, number)["1.1"]["attempt"] == "1"


# -- what else there is ------------------------------------------------------------------

def test_a_plan_is_purged_with_its_children(inside):
    put_plan(inside, {"serial": [{"run": "Q"}, {"run": "A"}]}, make_plan({"parallel": [{"run": "A"}, {"run": "A"}]}, "Q"))
    run_plan(inside)
    inside.ok("EXEC A -SYNC")
    assert inside.ok("PURGE -DAYS=0 -SCENARIO=Q")["purged"] == "0"
    assert inside.ok("PURGE -KEEP=1 -DRY_RUN")["purged"] == "5"
    assert inside.ok("PURGE -KEEP=1")["purged"] == "5"
    assert len(inside.rows("SESSIONS")) == 1
    for table in ("plan_node", "plan_value"):
        assert query(inside.work, "select count(*) from " + table) == [(0,)]


def test_the_length_of_a_plan_is_known(inside):
    put_plan(inside, {"run": "A"})
    run_plan(inside)
    inside.ok('SCHED ADD S P -1 GLOBAL "every 1h"')
    row = inside.rows("SCHED PLAN -ALL -TO=+2h")[0]
    assert row["schedule"] == "S" and row["duration"] != ""


def test_a_schedule_runs_a_plan(inside):
    put_plan(inside, {"serial": [{"run": "D"}]}, leaf("D", "echo $DUE"))
    inside.ok('SCHED ADD S P -1 GLOBAL "every 1h"')
    inside.ok('SCHED ADD T A -1 GLOBAL "" -AFTER=S')
    inside.let_pass(3600)
    row, = wait_for(lambda: inside.rows("SESSIONS -SCHEDULE=S"), "it to be due")
    lines = wait_plan(inside, row["session"])
    assert inside.log_texts(lines["1.1"]["session"]) == [row["due"]]
    wait_for(lambda: inside.rows("SESSIONS -SCHEDULE=T -STATUS=DONE"), "what runs after it")


def test_json(inside):
    put_plan(inside, {"for_each": {"variable": "v", "in": ["1"]}, "do": {"run": "A"}})
    number, _ = run_plan(inside)
    rows = [json.loads(line[2:]) for line in inside.ask("STATUS %s -JSON" % number)[:-1]]
    row = next(row for row in rows if row.get("node") == "1.1")
    assert (row["value"], row["attempt"], row["kind"]) == ("v=1", 1, "run") and isinstance(row["session"], int)


def test_a_circle_that_an_import_cannot_see(inside):
    """The newest version of what it runs leads back."""
    inside.import_document({"scenarios": [leaf("A"), make_plan({"run": "M"}), leaf("M")]})
    inside.import_document({"scenarios": [dict(make_plan({"run": "${what}"}, "M", variables={"what": "P"}), version="2")]})
    number, _ = run_plan(inside, status="ERROR")
    assert "scenario P would start itself: P > M > P" in inside.status(number)["message"]


def test_secrets_at_a_restart(inside):
    """They are given again, and the child gets them again."""
    put_plan(inside, {"run": "S"}, leaf("S", "echo $VAR_word | rev; [ -e %s ]" % (inside.folder / "mended"),
                                        variables={"word": {"secret": True}}), variables={"word": {"secret": True}})
    number, _ = run_plan(inside, "P word=abcdef", "ERROR")
    mend_leaf(inside)
    assert inside.err("RESTART %s" % number) == "BAD_REQUEST"
    inside.ok("RESTART %s word=ghijkl" % number)
    lines = wait_plan(inside, number)
    assert inside.log_texts(lines["1"]["session"]) == ["fedcba", "lkjihg"]
    assert not list(inside.folder.glob("*.secret.*"))


def test_a_locked_repository_delays_a_plan(inside):
    import_waiting(inside)
    put_plan(inside, {"serial": [{"run": "W"}, {"run": "A"}]})
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: marks(inside), "the first")
    with foreign_lock(inside.work):
        go(inside)
        time.sleep(0.5)
        assert inside.status(number)["status"] == "RUNNING"
    wait_plan(inside, number)


def test_a_child_that_another_program_deletes(make_inside):
    agent = make_inside("--max-sessions", "1").start()
    import_waiting(agent)
    put_plan(agent, {"parallel": [{"run": "W"}, {"run": "A"}], "max_errors": 1})
    number = agent.ok("EXEC P")["session"]
    wait_for(lambda: marks(agent), "the first")
    lost = wait_for(lambda: plan_nodes(agent, number).get("1.2"), "the second")["session"]
    change(agent.work, ("delete from session where id=?", (int(lost),)))
    agent.agent.families.look(agent.agent.places.list_open()[0])
    wait_for(lambda: plan_nodes(agent, number)["1.2"]["status"] == "ERROR", "the error")
    assert "it was purged" in plan_nodes(agent, number)["1.2"]["message"]
    go(agent)
    wait_plan(agent, number, "WARNING")


def test_a_full_queue_delays_a_plan(make_inside):
    agent = make_inside("--max-sessions", "1", "--max-queue", "2").start()
    import_waiting(agent)
    put_plan(agent, {"parallel": [{"run": "A"}, {"run": "A"}]})
    running, other = (agent.ok("EXEC W")["session"] for _ in range(2))
    wait_begun(agent, running)
    plans = [agent.ok("EXEC P")["session"]]
    wait_for(lambda: plan_nodes(agent, plans[0]), "it to begin")
    go(agent)
    wait_plan(agent, plans[0])


def test_who_is_narrowed_sees_no_number_of_others(inside):
    put_plan(inside, {"parallel": [{"run": "A"}, {"run": "X"}]}, leaf("X"))
    number, _ = run_plan(inside)
    lines = list(plan_nodes(add_guest(inside, "monitor", "P,X"), number).values())
    assert [bool(row["session"]) for row in lines] == [False, False, True] and len(plan_nodes(inside, number)) == 3


def test_a_plan_restored_from_a_backup_restarts(inside):
    """Its rows are those of a moment at which it ran; its session ended ERROR, its children, too."""
    put_plan(inside, {"serial": [{"run": "A"}, {"parallel": [{"run": "A"}, {"run": "A"}]}]})
    number, _ = run_plan(inside)
    change(inside.work, ("update session set status='ERROR' where id=? or id=(select child from plan_node where place="
                         "'1.2.2')", (int(number),)),
           "update plan_node set status='RUNNING', ended=null where place in ('1', '1.2', '1.2.2')")
    inside.ok("RESTART %s" % number)
    lines = wait_plan(inside, number)
    assert [lines[place]["attempt"] for place in ("1", "1.1", "1.2", "1.2.1", "1.2.2")] == ["2", "1", "2", "1", "2"]


def test_from_is_refused_at_exec(inside):
    put_plan(inside, {"run": "A", "name": "a"})
    assert inside.err("EXEC P -FROM=a") == "NOT_FOUND"


def test_a_plan_that_has_not_begun(inside):
    put_plan(inside, {"run": "A"})
    number = inside.ok("EXEC P -AT=+1h")["session"]
    assert inside.ok("STOP %s" % number)["status"] == "STOPPED"
    inside.ok("RESTART %s" % number)
    wait_plan(inside, number)


def test_a_plan_whose_row_is_gone(inside):
    """Another program has deleted it: it ends in memory, and its children go on."""
    import_waiting(inside)
    put_plan(inside, {"serial": [{"run": "W"}, {"run": "A"}]})
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: marks(inside), "the first")
    child, = plan_children(inside, number)
    change(inside.work, ("delete from session where id=?", (int(number),)))
    go(inside)
    assert inside.ok("WAIT " + child["session"])["status"] == "DONE"
    wait_ping(inside, running="0")
    assert "session %s ended in memory alone" % number in inside.log()


def test_the_next_due_time_stops_a_plan(inside):
    import_waiting(inside)
    put_plan(inside, {"serial": [{"run": "W"}]})
    inside.ok('SCHED ADD S P -1 GLOBAL "every 1h" -OVERLAP=stop')
    inside.let_pass(3600)
    wait_for(lambda: len(marks(inside)) == 1, "the first")
    inside.let_pass(3600)
    wait_for(lambda: len(marks(inside)) == 2, "the second")
    go(inside)
    first, second = wait_for(lambda: [row for row in inside.rows("SESSIONS -SCENARIO=P")[::-1] if row["ended"]][1:] and
                             inside.rows("SESSIONS -SCENARIO=P")[::-1], "both to end")
    assert (first["status"], second["status"]) == ("STOPPED", "DONE")
    assert [row["status"] for row in plan_children(inside, first["session"])] == ["STOPPED"]


def test_a_stopped_plan_goes_on_by_restart(inside):
    import_waiting(inside)
    put_plan(inside, {"serial": [{"for_each": {"variable": "v", "in": ["1", "2", "3"]}, "parallel": 2,
                                  "do": {"run": "W"}}, {"run": "A"}]})
    number = inside.ok("EXEC P")["session"]
    wait_for(lambda: len(marks(inside)) == 2, "both to begin")
    inside.ok("STOP %s -IMMEDIATE" % number)
    go(inside)
    inside.ok("RESTART %s" % number)
    lines = wait_plan(inside, number)
    assert [lines[place]["attempt"] for place in ("1", "1.1", "1.1.1", "1.1.2", "1.1.3", "1.2")] == list("222211")
    assert len(plan_children(inside, number)) == 4


def test_from_the_whole_plan(inside):
    put_plan(inside, {"name": "all", "serial": [{"run": "A"}, {"run": "T"}]}, switch(inside))
    number, _ = run_plan(inside, status="ERROR")
    mend_leaf(inside)
    inside.ok("RESTART %s -FROM=all" % number)
    wait_plan(inside, number)
    assert len(plan_children(inside, number)) == 4


def test_a_plan_that_cannot_be_read_any_more(make_inside):
    """It ends, and with it what was open of its nodes."""
    agent = make_inside("--max-sessions", "4").start()
    import_waiting(agent)
    put_plan(agent, {"parallel": [{"run": "W"}, {"run": "A"}]})
    number = agent.ok("EXEC P")["session"]
    wait_for(lambda: node_states(plan_nodes(agent, number)).get("1.2") == "DONE", "the other to end")
    agent.stop()
    change(agent.work, "update definition set body='{' where body like '%\"plan\"%'")
    agent.start()
    lines = wait_plan(agent, number, "ERROR")
    assert node_states(lines) == {"1": "ERROR", "1.1": "ERROR", "1.2": "DONE"}
    assert lines["1"]["message"] == agent.status(number)["message"]
