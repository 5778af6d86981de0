"""Load plans as definitions: what they are read to, every fault with its path, circles, their strings and values."""
import json
import sys

import pytest

import agent
from support.tasks import os_task

EXCERPT = "SELECT day FROM load WHERE day >= :day"


def plan_of(plan, **fields):
    """The document of scenario P 1 with a plan."""
    return {"scenarios": [dict({"name": "P", "version": "1", "plan": plan, "variables": {
        "day": "2015-01-01", "loaded": "0", "key": {"secret": True}}}, **fields)]}


def faults_of(document):
    """[(path, reason)] of a document; those of scenario 0 without its name."""
    definitions = agent.Definitions()
    definitions.collect(json.dumps(document))
    return [(path.replace("scenarios[0].", ""), reason) for path, reason in definitions.faults]


def root_of(plan, **fields):
    """The root of a plan without faults."""
    return agent.Definitions().read(json.dumps(plan_of(plan, **fields))).scenarios[0].plan


def each(do=None, **source):
    """A for_each node over the variable x."""
    return {"for_each": dict({"variable": "x"}, **source), "do": do or {"run": "A"}}


def case(*branches, **fields):
    """A case node over the variable day."""
    return {"case": dict({"variable": "day", "when": list(branches) or [branch_of()]}, **fields)}


def branch_of(operator="=", value="mon", do=None):
    return {"operator": operator, "value": value, "do": do or {"run": "A"}}


WHOLE = {"name": "all", "timeout": "2h", "serial": [
    {"name": "years", "parallel": [{"run": "A"}, {"run": "B", "enabled": False}], "limit": 1, "max_errors": 3,
     "restart": "all"},
    {"for_each": {"variable": "x", "from": "2015-01-01", "to": "2015-01-31", "step": "7d"}, "parallel": 4,
     "max_errors": 2, "do": {
         "run": "LOAD", "version": "001", "context": "PROD", "variables": {"day": "${x}", "n": 5},
         "keywords": ["load", "${x}"], "priority": 5, "returns": {"rows": "loaded"}, "restart": "session"}},
    {"case": {"variable": "loaded", "when": [
        {"operator": ">", "value": 0, "do": {"run": "REPORT", "name": "report", "attempts": 3, "retry_delay": "10s"}},
        {"operator": "in", "value": ["a", "${day}"], "do": {"run": "C"}}],
        "else": {"run": "NOTHING"}},
     "exception": {"run": "ALERT"}, "on_exception": "ignore"}]}


def test_a_plan_is_read_to_its_nodes():
    root = root_of(WHOLE)
    assert root[:9] == ("serial", "all", True, 7200, 1, 0, None, "raise", "failed")
    years, days, after = root.body.nodes
    assert years[:2] == ("parallel", "years") and years.restart == "all" and years.body[1:] == (1, 3)
    assert [node.enabled for node in years.body.nodes] == [True, False]
    assert days.body[:4] == ("x", agent.DatesSource("2015-01-01", "2015-01-31", 7 * 86400), 4, 2)
    assert days.body.node.restart == "session"
    assert days.body.node.body == ("LOAD", "001", "PROD", {"day": "${x}", "n": "5"}, "load,${x}", 5, {"rows": "loaded"})
    assert [branch[:2] for branch in after.body.branches] == [(">", "0"), ("in", ["a", "${day}"])]
    assert after.body.branches[0].node[1:6] == ("report", True, None, 3, 10)
    assert (after.body.otherwise.body.scenario, after.exception.body.scenario) == ("NOTHING", "ALERT")
    assert after.on_exception == "ignore" and after.restart is None
    paths = [path for path, _ in agent.walk_plan(root)]
    assert paths[:5] == ["plan", "plan.serial[0]", "plan.serial[0].parallel[0]", "plan.serial[0].parallel[1]",
                         "plan.serial[1]"]
    assert paths[-2:] == ["plan.serial[2].case.else", "plan.serial[2].exception"]
    assert [run.scenario for _, run in agent.list_runs(root)] == ["A", "LOAD", "REPORT", "C", "NOTHING", "ALERT"]


def test_what_a_node_does_not_say():
    assert root_of({"run": "A"}) == ("run", None, True, None, 1, 0, None, "raise", "task",
                                  ("A", "-1", None, {}, "", None, {}))
    assert root_of({"parallel": [{"run": "A"}, {"run": "B"}, {"run": "C"}]}).body[1:] == (3, 0)
    assert root_of(each(**{"in": ["a", 5]})).body[1:4] == (agent.ValuesSource(("a", "5")), 1, 0)
    assert root_of(each(**{"from": "2015-01-01", "to": "2015-01-02"})).body.source.step_s == 86400
    assert root_of(each(schema="DWH", query=EXCERPT)).body.source == ("DWH", EXCERPT)
    assert root_of(each(files="/in/${day}/*.csv")).body.source == ("/in/${day}/*.csv",)
    assert root_of(case()).body.otherwise is None
    scenario = agent.Definitions().read(json.dumps(plan_of({"run": "A"}))).scenarios[0]
    assert scenario.steps == () and scenario.plan.body.scenario == "A"


@pytest.mark.parametrize("plan, path, reason", [
    (5, "", "must be an object"), ([], "", "must be an object"), (None, "", "must be an object"),
    ({}, "", "no kind; a node has one of run, serial, parallel, case, for_each"),
    ({"name": "x"}, "", "no kind"), ({"run": "A", "serial": []}, "", "run and serial"),
    ({"parallel": [{"run": "A"}], "case": {}}, "", "parallel and case"),
    ({"run": "A", "color": "red"}, "color", "unknown field"), ({"run": "A", "limit": 2}, "limit", "unknown field"),
    ({"run": "A", "retrun": 1}, "retrun", "unknown field"), ({"serial": [{"run": "A"}], "returns": {}}, "returns", "unknown"),
    ({"serial": [{"run": "A"}], "version": "1"}, "version", "unknown"), (dict(case(), restart="all"), "restart", "unknown"),
    ({"run": 5}, "run", "must be a name"), ({"run": "a b"}, "run", "must be a name"), ({"run": ""}, "run", "must be a name"),
    ({"run": "A", "version": 1}, "version", "quote it"), ({"run": "A", "context": "a/b"}, "context", "must be a name"),
    ({"run": "A", "variables": {"DUE": "x"}}, "variables.DUE", "agent's own"),
    ({"run": "A", "variables": {"a": True}}, "variables.a", "text or a number"),
    ({"run": "A", "variables": {"a": "${nope}"}}, "variables.a", "no variable is named nope"),
    ({"run": "A", "variables": []}, "variables", "an object"), ({"run": "A", "keywords": 1.5}, "keywords", "words"),
    ({"run": "A", "keywords": "${dya}"}, "keywords", "do you mean day?"), ({"run": "${x}"}, "run", "no variable is named x"),
    ({"run": "A", "version": "${x}"}, "version", "named x"), ({"run": "A", "context": "${x}"}, "context", "named x"),
    ({"run": "A", "keywords": "a,${key}"}, "keywords", "secret"), ({"run": "A_${key}"}, "run", "secret"),
    ({"run": "A", "context": "${key}"}, "context", "secret"), ({"run": "A", "version": "${key}"}, "version", "secret"),
    ({"run": "A", "priority": "high"}, "priority", "whole number"), ({"run": "A", "priority": 10 ** 7}, "priority", "from"),
    ({"run": "A", "returns": ["a"]}, "returns", "variable of the scenario to variable of the plan"),
    ({"run": "A", "returns": {"rows": "nope"}}, "returns.rows", "no variable is named nope"),
    ({"run": "A", "returns": {"rows": "key"}}, "returns.rows", "secret"),
    ({"run": "A", "returns": {"rows": "DUE"}}, "returns.rows", "agent's own"),
    ({"run": "A", "returns": {"a b": "day"}}, "returns.a b", "letters"),
    ({"run": "A", "returns": {"a": 5}}, "returns.a", "must be a name of letters"),
    ({"run": "A", "returns": {"a": "day", "b": "day"}}, "returns.b", "day takes the value of a already"),
    ({"run": "A", "restart": "failed"}, "restart", "task or session"),
    ({"serial": [{"run": "A"}], "restart": "task"}, "restart", "failed or all"),
    ({"run": "A", "name": "a b"}, "name", "must be a name"), ({"run": "A", "name": 5}, "name", "quote it"),
    ({"run": "A", "name": "x" * 129}, "name", "128"), ({"run": "A", "enabled": "no"}, "enabled", "true or false"),
    ({"run": "A", "timeout": 0}, "timeout", "more than 0"), ({"run": "A", "timeout": "1w"}, "timeout", "90s"),
    ({"run": "A", "attempts": 0}, "attempts", "from 1 to 1000"), ({"run": "A", "retry_delay": -1}, "retry_delay", "seconds"),
    ({"run": "A", "exception": "B"}, "exception", "an object"), ({"run": "A", "exception": {}}, "exception", "no kind"),
    ({"run": "A", "on_exception": "raise"}, "on_exception", "is for a node with an exception"),
    ({"run": "A", "exception": {"run": "B"}, "on_exception": "pass"}, "on_exception", "raise or ignore"),
    ({"run": "A", "exception": {"run": "${x}"}}, "exception.run", "named x"),
    ({"serial": []}, "serial", "at least one node"), ({"serial": {}}, "serial", "a list"),
    ({"serial": ["A"]}, "serial[0]", "must be an object"), ({"parallel": 4}, "parallel", "a list"),
    ({"parallel": []}, "parallel", "at least one"), ({"parallel": [{"run": "A"}], "limit": 0}, "limit", "from 1"),
    ({"parallel": [{"run": "A"}], "max_errors": -1}, "max_errors", "from 0"),
    ({"serial": [{"run": "A"}, {"parallel": [{"run": "A"}, {"run": "A", "x": 1}]}]}, "serial[1].parallel[1].x", "unknown"),
    ({"serial": [{"run": "A", "name": "x"}, {"run": "B", "name": "x"}]}, "serial[1].name", "that of scenarios[0].plan.serial[0]"),
    ({"case": []}, "case", "an object"), (case(colour=1), "case.colour", "unknown field"),
    (case(variable="dya"), "case.variable", "do you mean day?"), (case(variable="DUE"), "case.variable", "agent's own"),
    (case(when=[]), "case.when", "at least one branch"), (case(when={}), "case.when", "a list"),
    (case(5), "case.when[0]", "an object"), (case(branch_of("like")), "case.when[0].operator", "matches"),
    (case({"operator": "=", "do": {"run": "A"}}), "case.when[0].value", "missing"),
    (case({"operator": "=", "value": "a"}), "case.when[0].do", "missing"), (case(branch_of(do=5)), "case.when[0].do", "an object"),
    (case(branch_of("=", ["a"])), "case.when[0].value", "for the operator in"), (case(branch_of("=", {})), "case.when[0].value", "text"),
    (case(branch_of("in", ["a", "${x}"])), "case.when[0].value[1]", "named x"), (case(branch_of("=", "${x}")), "case.when[0].value", "named"),
    (case(branch_of("matches", "a")), None, None), (case(branch_of("matches", "(")), "case.when[0].value", "regular expression"),
    (case(branch_of(do={"run": "A", "x": 1})), "case.when[0].do.x", "unknown"), (case(**{"else": {}}), "case.else", "no kind"),
    (case(**{"else": 5}), "case.else", "an object"),
    ({"for_each": 5, "do": {"run": "A"}}, "for_each", "an object"), ({"for_each": {"variable": "x", "in": []}}, "do", "missing"),
    ({"for_each": {"in": []}, "do": {"run": "A"}}, "for_each.variable", "missing"),
    (each({"run": "A", "keywords": "${y}"}, **{"in": []}), "do.keywords", "named y"),
    (each(**{"in": ["${x}"]}), "for_each.in[0]", "named x"), (each(**{"in": ["${key}"]}), "for_each.in[0]", "secret"),
    (each(variable="key", **{"in": []}), "for_each.variable", "secret"),
    (each(variable="DUE", **{"in": []}), "for_each.variable", "agent's own"),
    (each(), "for_each", "no values; its values come from one of in, from, query, files"),
    (each(**{"in": [], "files": "x"}), "for_each", "in and files"), (each(**{"in": "a,b"}), "for_each.in", "a list"),
    (each(**{"in": [None]}), "for_each.in[0]", "text or a number"), (each(**{"in": [], "step": 1}), "for_each.step", "go with in"),
    (each(**{"in": [0] * 100001}), "for_each.in", "100001"), (each(files=""), "for_each.files", "not be empty"),
    (each(files="/in/${key}"), "for_each.files", "secret"), (each(values=[]), "for_each", "no values"),
    (each(schema="DWH"), "for_each.query", "missing"), (each(query="select 1"), "for_each.schema", "missing"),
    (each(schema="DWH", query="select :nope"), "for_each.query", "no variable is named nope"),
    (each(schema="a b", query="select 1"), "for_each.schema", "must be a name"),
    (each(to="2015-01-01", step="1d"), "for_each.from", "missing"),
    (each(**{"from": "2015-01-01"}), "for_each.to", "missing"),
    (each(**{"from": "2015-02-30", "to": "2015-03-01"}), "for_each.from", "must be a date"),
    (each(**{"from": "2015-01-01", "to": "today"}), "for_each.to", "must be a date"),
    (each(**{"from": 20150101, "to": "2015-01-01"}), "for_each.from", "must be a date"),
    (each(**{"from": "${key}", "to": "2015-01-01"}), "for_each.from", "secret"),
    (each(**{"from": "2015-01-01", "to": "2015-01-02", "step": 0}), "for_each.step", "more than 0"),
    (each(**{"from": "2015-01-01", "to": "2015-01-02", "step": "0d"}), "for_each.step", "more than 0"),
    (each(**{"from": "2015-01-01", "to": "2015-01-02", "step": "-1d"}), "for_each.step", "1d"),
    (each(**{"from": "2015-01-01", "to": "2015-01-02", "step": -86400}), "for_each.step", "1d"),
    (each(**{"from": "2015-01-01", "to": "2015-01-02", "step": "0.5d"}), "for_each.step", "whole"),
    (each(**{"from": "2015-01-01", "to": "2015-01-02", "step": "1 month"}), "for_each.step", "1d"),
    (each(**{"from": "2015-01-01", "to": "2015-01-02", "step": "1s"}), "for_each", "172800 values"),
])
def test_each_fault_of_a_plan_has_its_path_and_reason(plan, path, reason):
    found = faults_of(plan_of(plan))
    if path is not None:
        found = [fault for fault in found if fault != ("plan.for_each.values", "unknown field")]
        assert [place for place, _ in found] == ["plan." + path if path else "plan"] and reason in found[0][1], found
    else:
        assert found == []


def test_all_faults_of_a_plan_are_told_at_once():
    found = dict(faults_of(plan_of({"serial": [
        {"run": "a b"}, {"color": 1}, case({"operator": "=", "value": "x", "do": {"run": "A", "retrun": {}}}),
        each({"run": "A", "variables": {"d": "${y}"}}, **{"from": "never", "to": "2015-01-01"})]}, timeout=0)))
    assert sorted(found) == [
        "plan.serial[0].run", "plan.serial[1]", "plan.serial[1].color", "plan.serial[2].case.when[0].do.retrun",
        "plan.serial[3].do.variables.d", "plan.serial[3].for_each.from", "timeout"]


def test_a_loop_variable_is_seen_below_its_loop_alone():
    assert faults_of(plan_of(each({"serial": [each({"run": "${x}${y}"}, variable="y", files="/${x}/*")]}, **{"in": [1]}))) == []
    (path, reason), = faults_of(plan_of(dict(each({"run": "A", "exception": {"run": "${x}"}}, **{"in": [1]}),
                                             exception={"run": "B${x}"})))
    assert path == "plan.exception.run" and "named x" in reason
    # also where the plan has a variable of that name; taken back is into what is seen there
    assert faults_of(plan_of(each({"run": "A", "returns": {"n": "day", "m": "x"}}, **{"in": [1]}))) == []
    assert faults_of(plan_of(each({"run": "A"}, variable="day", **{"in": [1]}))) == []


@pytest.mark.parametrize("fields, path, reason", [
    ({"steps": [{"name": "one", "tasks": [os_task()]}]}, "steps", "does not go with a plan"),
    ({"max_steps": 5}, "max_steps", "does not go with a plan"), ({"on_error": "one"}, "on_error", "does not go with a plan"),
    ({"plan": None}, "plan", "must be an object"),
])
def test_what_does_not_go_with_a_plan(fields, path, reason):
    (found, told), = faults_of(plan_of(**dict({"plan": {"run": "A"}}, **fields)))
    assert found == path and reason in told


def test_a_scenario_has_steps_or_a_plan():
    document = plan_of({"run": "A"})
    del document["scenarios"][0]["plan"]
    assert faults_of(document) == [("steps", "missing")]
    assert faults_of(plan_of({"run": "A"}, timeout="1h", description="x", concurrency={"limit": 1}, on_stale="adopt")) == []


def test_nodes_deep_inside_one_another_are_a_fault():
    def nested(depth):
        opening, closing = '{"serial":[', "]}"
        return ('{"scenarios":[{"name":"P","version":"1","plan":' + opening * (depth - 1) + '{"run":"A"}'
                + closing * (depth - 1) + "}]}")
    assert agent.Definitions().read(nested(50)).scenarios
    for depth in (51, 300):
        with pytest.raises(agent.BadRequest) as caught:
            agent.Definitions().read(nested(depth))
        (path, reason), = caught.value.faults
        assert path == "scenarios[0].plan" + ".serial[0]" * 50 and "more than 50 nodes" in reason
    for depth in (3000, 100000):        # where Python's reader of JSON gives up, it is the document's fault
        with pytest.raises(agent.BadRequest) as caught:
            agent.Definitions().read(nested(depth))
        (path, reason), = caught.value.faults
        assert (path, reason) == ("document", "is nested too deeply") or "more than 50 nodes" in reason
    exceptions = {"run": "A"}
    for _ in range(50):
        exceptions = {"run": "A", "exception": exceptions}
    assert faults_of(plan_of(exceptions)) == [("plan" + ".exception" * 50, "more than 50 nodes lie inside one another")]


# -- strings and values ------------------------------------------------------------------

def test_the_strings_of_a_node_get_the_values_of_variables():
    run = root_of({"run": "LOAD_${day}", "version": "${day}", "context": "${day}", "keywords": ["a", "${day}"],
                "variables": {"d": "${day} ${SESSION} $${day} $day"}, "returns": {"n": "loaded"}})
    values = {"day": "2015-01-01", "SESSION": "1001"}
    assert agent.settle(run, values).body[:5] == (
        "LOAD_2015-01-01", "2015-01-01", "2015-01-01", {"d": "2015-01-01 1001 ${day} $day"}, "a,2015-01-01")
    choice = agent.settle(root_of(case(branch_of("=", "${day}", {"run": "${day}"}), branch_of("in", ["${day}", "b"]))), values)
    assert [branch.value for branch in choice.body.branches] == ["2015-01-01", ["2015-01-01", "b"]]
    assert choice.body.branches[0].node.body.scenario == "${day}"       # when that begins
    for source, result in (({"in": ["${day}", "b"]}, (("2015-01-01", "b"),)), ({"files": "/${day}/*"}, ("/2015-01-01/*",)),
                           ({"schema": "S_${day}", "query": "select '${day}'"}, ("S_2015-01-01", "select '${day}'")),
                           ({"from": "${day}", "to": "${day}T05:00"}, ("2015-01-01", "2015-01-01T05:00", 86400))):
        assert agent.settle(root_of(each(**source)), values).body.source == result
    plain = root_of({"serial": [{"run": "A"}]})
    assert agent.settle(plain, {}) == plain


@pytest.mark.parametrize("plan, value, reason", [
    ({"run": "${day}"}, "a b", "run: must be a name"), ({"run": "A", "version": "${day}"}, "", "version: must be a name"),
    ({"run": "A", "context": "${day}"}, "a/b", "context: must be a name"),
    ({"run": "A", "variables": {"d": "${day}${day}"}}, "x" * 40000, "variables.d: has over 65536 bytes"),
    ({"run": "A", "keywords": "${day}" * 500}, "x" * 65536, "keywords: a text would have over"),
    (each(**{"from": "${day}", "to": "2015-01-01"}), "today", "from: must be a date"),
    (each(**{"from": "2015-01-01", "to": "${day}"}), "2015-13-01", "to: must be a date"),
    (each(**{"in": ["${day}${day}"]}), "x" * 40000, "in: has over 65536 bytes"),
])
def test_a_value_that_makes_a_string_wrong(plan, value, reason):
    with pytest.raises(ValueError, match=reason):
        agent.settle(root_of(plan), {"day": value})


@pytest.mark.parametrize("first, last, step, values", [
    ("2015-01-30", "2015-02-02", "1d", ["2015-01-30", "2015-01-31", "2015-02-01", "2015-02-02"]),
    ("2015-01-01", "2015-01-10", "7d", ["2015-01-01", "2015-01-08"]), ("2015-01-01", "2015-01-01", "1d", ["2015-01-01"]),
    ("2016-02-28", "2016-03-01", "24h", ["2016-02-28", "2016-02-29", "2016-03-01"]),
    ("2015-01-02", "2015-01-01", "1d", []), ("2015-01-01T12:00", "2015-01-01T11:59:59", "1h", []),
    ("2015-01-01", "2015-01-01", "6h", ["2015-01-01T00:00:00", "2015-01-01T06:00:00", "2015-01-01T12:00:00",
                                        "2015-01-01T18:00:00"]),
    ("2015-01-01", "2015-01-02T00:00", "12h", ["2015-01-01T00:00:00", "2015-01-01T12:00:00", "2015-01-02T00:00:00"]),
    ("2015-01-01 22:00", "2015-01-02", "1d", ["2015-01-01T22:00:00", "2015-01-02T22:00:00"]),
    ("2015-03-29T01:00:00.250+01:00", "2015-03-29T04:00Z", "1h", [  # a night without 02:30 in Zurich: the clock on a wall
        "2015-03-29T01:00:00", "2015-03-29T02:00:00", "2015-03-29T03:00:00", "2015-03-29T04:00:00"]),
    ("9999-12-30", "9999-12-31", "1d", ["9999-12-30", "9999-12-31"]),
])
def test_dates_from_one_to_another(first, last, step, values):
    source = agent.DatesSource(first, last, agent.WHOLE_SECONDS.check(step))
    assert agent.expand(source) == tuple(values)


def test_dates_are_at_most_a_hundred_thousand():
    source = agent.DatesSource("2015-01-01T00:00", "2015-01-02T03:46:39", 1)
    assert len(agent.expand(source)) == 100000
    with pytest.raises(ValueError, match="100001 values; there may be 100000"):
        agent.expand(source._replace(last="2015-01-02T03:46:40"))


def test_what_a_run_hands_to_its_session():
    child = agent.Definitions().read(json.dumps({"scenarios": [{
        "name": "A", "version": "1", "variables": {"day": "", "n": "1", "key": {"secret": True}, "pin": {"secret": True}},
        "steps": [{"name": "one", "tasks": [os_task()]}]}]})).scenarios[0]
    values = {"day": "mon", "x": "5", "key": "topsecret", "SESSION": "1001", "n": "7"}

    def hand_down(secrets=frozenset({"key"}), **run):
        return agent.hand_down(child, root_of(each(dict({"run": "A"}, **run), **{"in": []})).body.node.body, values, secrets)
    assert hand_down() == {"day": "mon", "n": "7", "key": "topsecret"}
    assert hand_down(variables={"n": "${x}", "pin": "${key}", "z": "1"}) == {    # whether it has z is asked as in EXEC
        "day": "mon", "n": "5", "key": "topsecret", "pin": "topsecret", "z": "1"}
    assert hand_down(frozenset({"key", "day"})) == {"n": "7", "key": "topsecret"}
    with pytest.raises(ValueError, match="variables.n: is given a secret, and is none in scenario A"):
        hand_down(variables={"n": "x${key}"})


# -- import ------------------------------------------------------------------------------

def runs(name, *scenarios, **fields):
    """A plan NAME 1 that runs these, each as it is named or a node."""
    return dict({"name": name, "version": "1", "variables": {"day": ""}, "plan": {"serial": [
        each if isinstance(each, dict) else {"run": each} for each in scenarios]}}, **fields)


def stepped(name, *tasks, **fields):
    return dict({"name": name, "version": "1", "steps": [{"name": "one", "tasks": list(tasks) or [os_task()]}]}, **fields)


def refused_faults(inside, *scenarios, options=""):
    """{path: reason} of an import that is refused."""
    *lines, last = inside.ask("IMPORT '%s' %s" % (json.dumps({"scenarios": list(scenarios)}), options))
    assert last.startswith("ERR BAD_REQUEST"), last
    return dict(line.lstrip("* ").split(": ", 1) for line in lines)


def test_a_plan_comes_back_as_it_was_given(inside):
    document = plan_of(WHOLE, on_stale="adopt", timeout="1d")
    inside.import_document({"contexts": ["PROD"]})
    lines = inside.rows("IMPORT '%s'" % json.dumps(document))
    assert [line["change"] for line in lines if "change" in line] == ["new"]
    assert {line["path"]: line["warning"] for line in lines if "path" in line} == {
        "scenarios[0].on_stale": "does not apply to a plan: a crash leaves it open, and the sessions that it has started "
                                 "follow their own",
        "scenarios[0].plan.serial[0].parallel[0].run": "no scenario A",     # of what is switched off, nothing is said
        "scenarios[0].plan.serial[1].do.run": "no scenario LOAD",
        "scenarios[0].plan.serial[2].case.when[0].do.run": "no scenario REPORT",
        "scenarios[0].plan.serial[2].case.when[1].do.run": "no scenario C",
        "scenarios[0].plan.serial[2].case.else.run": "no scenario NOTHING",
        "scenarios[0].plan.serial[2].exception.run": "no scenario ALERT"}
    exported = json.loads("".join(line[2:] for line in inside.ask("EXPORT P 1")[:-1]))
    assert exported["scenarios"] == document["scenarios"]
    assert inside.import_document(document)["scenarios"] == "0"      # the same again changes nothing
    assert [row["scenario"] for row in inside.rows("SCENARIOS")] == ["HELLO", "P"]


def test_warnings_of_loops_that_have_no_value(inside):
    inside.import_document({"scenarios": [stepped("A")]})
    lines = inside.rows("IMPORT '%s'" % json.dumps(plan_of({"serial": [
        each(**{"in": []}), each(**{"from": "2015-01-02", "to": "2015-01-01"}), each(**{"from": "${day}", "to": "2015-01-01"})
    ]})))
    assert [(line["path"], line["warning"]) for line in lines if "path" in line] == [
        ("scenarios[0].plan.serial[%d].for_each" % index, "there is no value") for index in (0, 1)]


def test_warnings_of_variables_that_a_scenario_lacks(inside):
    inside.import_document({"scenarios": [stepped("A", variables={"n": "", "key": {"secret": True, "env": "HOME"}})]})
    plan = runs("P", {"run": "A", "variables": {"n": "1", "key": "long", "m": "1"}, "returns": {"n": "day"}},
                {"run": "A", "returns": {"key": "day"}}, {"run": "B", "variables": {"m": "2"}, "returns": {"m": "day"}},
                {"run": "${day}", "variables": {"m": "2"}}, {"run": "A", "enabled": False, "variables": {"m": "2"}})
    lines = inside.rows("IMPORT '%s'" % json.dumps({"scenarios": [plan, stepped("B")]}))
    assert {line["path"].replace("scenarios[0].plan.", ""): line["warning"] for line in lines if "path" in line} == {
        "serial[0].variables.m": "scenario A 1 has no variable of that name",
        "serial[1].returns.key": "is secret, and is not taken back",
        "serial[2].variables.m": "scenario B 1 has no variable of that name",
        "serial[2].returns.m": "scenario B 1 has no variable of that name"}


def test_the_schema_of_a_loop_must_be_there(inside):
    assert refused_faults(inside, runs("P", each(schema="DWH", query="select 1"), each(schema="${SCENARIO}", query="select 1"))) == {
        "scenarios[0].plan.serial[0].for_each.schema": "no logical schema DWH"}


def test_a_query_is_a_task_that_a_host_may_forbid(make_inside):
    limited = make_inside("--allow-types", "os,sleep").start()
    plan = runs("P", each(files="/x/*"), each(schema="DWH", query="select 1"))
    (path, reason), = refused_faults(limited, plan).items()
    assert path == "scenarios[0].plan.serial[1].for_each.query" and "tasks of this type (refresh) may not run here" in reason


def test_circles_are_refused_where_all_of_them_is_known(inside):
    told = refused_faults(inside, runs("P", "P"))
    assert told == {"scenarios[0].plan.serial[0].run": "a plan cannot start itself: P 1 > P 1"}
    told = refused_faults(inside, runs("P", "A", "Q"), stepped("A"), runs("Q", each({"run": "R"}, files="/x/*")),
                   runs("R", case(**{"else": {"run": "P", "version": "1"}})))
    assert list(told.items()) == [("scenarios[0].plan.serial[1].run", "a plan cannot start itself: P 1 > Q 1 > R 1 > P 1")]
    # by way of tasks that wait, too; by those that do not, it begins anew
    circle = [runs("P", "A"), stepped("A", {"type": "scenario", "name": "P"})]
    assert refused_faults(inside, *circle) == {
        "scenarios[0].plan.serial[0].run": "a plan cannot start itself: P 1 > A 1 > P 1"}
    assert [row["scenario"] for row in inside.rows("SCENARIOS")] == ["HELLO"]
    inside.import_document({"scenarios": [runs("P", "A"), stepped("A", {"type": "scenario", "name": "P", "wait": False})]})


def test_a_circle_that_another_import_would_close(inside):
    inside.import_document({"scenarios": [runs("P", "Q"), runs("S", {"run": "P", "enabled": False}, "${SCENARIO}X")]})
    assert refused_faults(inside, runs("Q", "P")) == {
        "scenarios[0].plan.serial[0].run": "a plan cannot start itself: Q 1 > P 1 > Q 1"}
    inside.import_document({"scenarios": [stepped("Q")]})
    # the newest version is the one that would run
    assert list(refused_faults(inside, runs("Q", "S", "P", version="2"))) == ["scenarios[0].plan.serial[1].run"]
    inside.import_document({"scenarios": [runs("Q", "S", version="2")]})
    assert list(refused_faults(inside, runs("P", "Q", "P"), options="-REPLACE")) == ["scenarios[0].plan.serial[1].run"]
    assert list(refused_faults(inside, runs("Q", "P", version="2"), options="-REPLACE -DRY_RUN")) == [
        "scenarios[0].plan.serial[0].run"]


def test_another_version_of_a_plan_is_itself(inside):
    """So it is when it would start: the limits of a scenario are those of all its versions."""
    inside.import_document({"scenarios": [runs("P", "A"), stepped("A"), runs("Q", {"run": "P", "version": "1"})]})
    assert refused_faults(inside, runs("P", "A", {"run": "P", "version": "1"}, version="2")) == {
        "scenarios[0].plan.serial[1].run": "a plan cannot start itself: P 2 > P 1"}
    assert refused_faults(inside, runs("P", "Q", version="2")) == {
        "scenarios[0].plan.serial[0].run": "a plan cannot start itself: P 2 > Q 1 > P 1"}
    inside.import_document({"scenarios": [runs("P", "A", version="2"), runs("R", "P", {"run": "P", "version": "1"})]})


def test_tasks_close_a_circle_and_close_none_without_a_plan(inside):
    def task(name):
        return {"type": "scenario", "name": name}
    inside.import_document({"scenarios": [runs("P", "A"), stepped("A"), stepped("B", task("C")), stepped("C", task("B"))]})
    assert refused_faults(inside, stepped("A", task("P"), version="2")) == {
        "scenarios[0].steps[0].tasks[0].name": "a plan cannot start itself: A 2 > P 1 > A 2"}
    # Q lies on a circle by way of tasks that make one without it, too
    told = refused_faults(inside, stepped("B", task("C"), task("Q"), version="2"), runs("Q", "C"))
    assert told == {"scenarios[1].plan.serial[0].run": "a plan cannot start itself: Q 1 > C 1 > B 2 > Q 1"}
    inside.import_document({"scenarios": [runs("Q", "C"), runs("R", "Q", "Q")]})     # leads to one, and is on none


def test_a_long_chain_of_plans_is_looked_through_once(inside):
    chain = [runs("P%d" % index, "P%d" % (index + 1), "P%d" % (index + 1), each(**{"in": []})) for index in range(400)]
    assert sys.getrecursionlimit() < 400 * 3
    inside.import_document({"scenarios": chain + [stepped("P400"), stepped("A")]})
    told = refused_faults(inside, runs("P400", "P0"), options="-REPLACE")
    assert list(told) == ["scenarios[0].plan.serial[0].run"] and told.popitem()[1] == (
        "a plan cannot start itself: P400 1 > P0 1 > P1 1 > P2 1 > ... > P397 1 > P398 1 > P399 1 > P400 1")


def test_the_example_of_the_manual_is_sound():
    text = agent.make_manual("plans")
    begin = text.index('    {"scenarios"')
    plan = agent.Definitions().read(text[begin:text.index("\n\n", begin)]).scenarios[0].plan
    assert [run.scenario for _, run in agent.list_runs(plan)] == ["LOAD_DAY", "COUNT", "REPORT", "ALERT", "ALERT"]
