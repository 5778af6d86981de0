"""What an import says: a line for each definition, what looks wrong, and as if with -DRY_RUN."""
import json

import pytest

from conftest import fields_of
from support.outside import query

SLEEP = {"type": "sleep", "seconds": 0}
EVALUATE = {"type": "evaluate", "variable": "v", "operator": "=", "value": "1"}


def step_list(*parts):
    """(name, {fields}) each -> the steps of a scenario."""
    return [dict({"name": name, "tasks": [SLEEP]}, **fields) for name, fields in parts]


def named_scenario(*parts, name="S", **fields):
    return dict({"name": name, "version": "1", "variables": {"v": ""}, "steps": step_list(*parts)}, **fields)


def imported_lines(agent, document, options=""):
    """The reply of an IMPORT -> ([fields of a line], fields of the OK)."""
    lines = agent.ask("IMPORT '%s' %s" % (json.dumps(document).replace("'", "\\u0027"), options))
    assert lines[-1].startswith("OK"), lines
    return [fields_of(line) for line in lines[:-1]], fields_of(lines[-1])


def warnings_of(agent, *scenarios):
    """{path: warning} of an import."""
    lines, last = imported_lines(agent, {"scenarios": list(scenarios)})
    warnings = {line["path"]: line["warning"] for line in lines if "warning" in line}
    assert last["warnings"] == str(len(warnings))
    return warnings


@pytest.mark.parametrize("command, env, names", [
    ("ls $src $dst; ls \"$src\"", {}, ["dst", "src"]), ("ls ${src} $VAR_src \\$src $other $srcs $$src $1", {}, []),
    ("src=1; ls $src", {}, []), ("for src in a b; do ls $src; done", {}, []), ("cat x | while read -r a src; do ls $src; done", {}, []),
    ("x=$src; for a in $dst; do :; done", {}, ["src"]), ("ls $src", {"src": "x"}, []), (["echo", "$src"], {}, []),
    ("awk '{ print $src }' x; ls $dst", {}, ["dst"])])
def test_a_variable_behind_a_bare_dollar_is_told(inside, command, env, names):
    scenario = named_scenario(("a", {}), variables={"src": "", "dst": ""})
    scenario["steps"][0]["tasks"] = [{"type": "os", "command": command, "env": env}]
    warning = "%s: a variable of the shell, which is empty; the scenario's is %s" % (
        ", ".join("$" + name for name in names), ", ".join("${%s}" % name for name in names))
    assert warnings_of(inside, scenario) == ({"scenarios[0].steps[0].tasks[0].command": warning} if names else {})


WHOLE = {
    "contexts": ["DEV"], "calendars": [{"name": "HOLIDAYS", "dates": ["2026-12-25"]}],
    "data_servers": [{"name": "FILE", "driver": "sqlite3", "database": "/tmp/none.db"}],
    "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "FILE", "DEV": "FILE.s"}}],
    "scenarios": [named_scenario(("a", {}))],
    "schedules": [{"name": "N", "scenario": "S", "rule": "every 1h"}]}
KINDS = ["context DEV", "data_server FILE", "logical_schema DWH", "calendar HOLIDAYS", "scenario S", "schedule N"]


def test_a_line_for_each_definition(inside):
    for option, changes, count in (("-DRY_RUN", "new", "1"), ("", "new", "1"), ("", "same", "0"),
                                   ("-DRY_RUN", "same", "0")):
        lines, last = imported_lines(inside, WHOLE, option)
        assert ["%(kind)s %(name)s" % line for line in lines] == KINDS
        assert {line["change"] for line in lines} == {changes}
        assert [line["version"] for line in lines] == ["", "", "", "", "1", ""]
        assert last == dict({kind + "s": count for kind in ("scenario", "schedule", "context", "data_server",
                                                            "logical_schema", "calendar")},
                            engines="0", notices="0", warnings="0", **{"dry_run": "yes"} if option else {})
        if option and changes == "new":
            assert inside.rows("CONTEXTS")[0]["context"] == "GLOBAL" and len(inside.rows("CONTEXTS")) == 1
            assert query(inside.work, "select count(*) from scenario")[0][0] == 1           # HELLO
            assert inside.rows("SCHED LIST") == []


def test_what_has_changed(inside):
    imported_lines(inside, WHOLE)
    other = dict(WHOLE, calendars=[{"name": "HOLIDAYS", "dates": ["2026-12-26"]}],
                 data_servers=[dict(WHOLE["data_servers"][0], database="/tmp/other.db")],
                 logical_schemas=[{"name": "DWH", "contexts": {"GLOBAL": "FILE"}}],
                 scenarios=[named_scenario(("b", {}))],
                 schedules=[{"name": "N", "scenario": "S", "rule": "every 2h"}])
    for option in ("-REPLACE -DRY_RUN", "-REPLACE"):
        lines, last = imported_lines(inside, other, option)
        assert [line["change"] for line in lines] == ["same"] + ["changed"] * 5
        assert (last["contexts"], last["scenarios"], last["schedules"]) == ("0", "1", "1")
    assert inside.rows("SCHED LIST")[0]["rule"] == "every 2h"
    assert inside.err("IMPORT '%s' -DRY_RUN" % json.dumps(WHOLE)) == "EXISTS"


def test_a_schedule_that_was_switched_off_stays_off(inside):
    imported_lines(inside, WHOLE)
    inside.ok("SCHED OFF N")
    moved = dict(WHOLE, schedules=[dict(WHOLE["schedules"][0], rule="every 2h")])
    lines, last = imported_lines(inside, moved)
    assert lines[-1] == {"path": "schedules[0].enabled", "warning":
                         "stays switched off, for the document does not say; SCHED ON N switches it on"}
    assert lines[-2]["change"] == "changed" and last["warnings"] == "1"
    row = inside.rows("SCHED LIST")[0]
    assert (row["rule"], row["enabled"]) == ("every 2h", "no")
    said = dict(WHOLE, schedules=[dict(WHOLE["schedules"][0], enabled=True)])
    assert imported_lines(inside, said)[1]["warnings"] == "0"
    assert inside.rows("SCHED LIST")[0]["enabled"] == "yes"
    assert imported_lines(inside, WHOLE)[0][-1]["change"] == "same"       # and what is on stays on


@pytest.mark.parametrize("parts, fields, path, words", [
    ([("load", {"on_error": "alert"}), ("report", {}), ("alert", {})], {}, "steps[2]", "the success of step report leads"),
    ([("load", {}), ("report", {}), ("alert", {})], {"on_error": "alert"}, "steps[2]", "the success of step report leads"),
    ([("load", {"on_error": "alert"}), ("alert", {"on_ok": "FAIL"})], {}, "steps[1]", "ends in FAIL, but the success"),
    ([("a", {"on_ok": "END"}), ("b", {})], {}, "steps[1]", "nothing leads to step b"),
    ([("a", {"on_ok": "END", "on_false": "b"}), ("b", {})], {}, "steps[1]", "nothing leads to step b"),
    ([("a", {"on_ok": "c"}), ("b", {"on_ok": "b"}), ("c", {})], {}, "steps[1]", "nothing leads to step b")])
def test_steps_that_look_wrong(inside, parts, fields, path, words):
    (where, warning), = warnings_of(inside, named_scenario(*parts, **fields)).items()
    assert where == "scenarios[0]." + path and words in warning


@pytest.mark.parametrize("parts, fields", [
    ([("load", {"on_error": "alert"}), ("report", {"on_ok": "END"}), ("alert", {"on_ok": "FAIL"})], {}),
    ([("a", {"on_error": "b"}), ("b", {})], {}),                            # goes on whatever a does
    ([("a", {"tasks": [EVALUATE], "on_ok": "END", "on_false": "b"}), ("b", {})], {}),
    ([("a", {}), ("b", {"on_ok": "END"}), ("c", {})], {"on_error": "c"}),
    ([("a", {"tasks": [EVALUATE], "on_ok": "a", "on_false": "END"})], {})])
def test_steps_that_look_well(inside, parts, fields):
    assert warnings_of(inside, named_scenario(*parts, **fields)) == {}


def test_a_task_that_names_nobody(inside):
    def parent(name, child, version="-1"):
        return named_scenario(("a", {"tasks": [{"type": "scenario", "name": child, "version": version}]}), name=name)
    found = warnings_of(inside, parent("A", "NOBODY"), parent("B", "C"), parent("D", "B", "9"),
                        parent("E", "HELLO", "001"), named_scenario(("a", {}), name="C"),
                        parent("F", "HELO"))
    assert found == {"scenarios[0].steps[0].tasks[0].name": "no scenario NOBODY",
                     "scenarios[2].steps[0].tasks[0].name": "scenario B has no version 9",
                     "scenarios[5].steps[0].tasks[0].name": "no scenario HELO; do you mean HELLO?"}


@pytest.mark.parametrize("name", ["HELO", "HELLOO", "HALLO", "HELLA", "JELLO"])
def test_a_schedule_of_a_scenario_one_letter_off(inside, name):
    lines = inside.ask("IMPORT '%s'" % json.dumps(
        {"schedules": [{"name": "S", "scenario": name, "rule": "every 1h"}]}))
    assert "* schedules[0].scenario: no scenario %s; do you mean HELLO?" % name in lines


@pytest.mark.parametrize("document, path, words", [
    ({"scenarios": [named_scenario(("a", {}), version=1)]}, "scenarios[0].version", 'quote it, "1"'),
    ({"scenarios": [named_scenario(("a", {"on_eror": "b"}), ("b", {}))]}, "scenarios[0].steps[0].on_eror",
     "unknown field; do you mean on_error?"),
    ({"scenarios": [named_scenario(("load", {"on_ok": "reprot"}), ("report", {}))]}, "scenarios[0].steps[0].on_ok",
     "no step is named reprot; do you mean report?"),
    ({"scenarios": [named_scenario(("a", {"tasks": [dict(EVALUATE, variable="vv")]}), variables={"v1": "", "vx": ""})]},
     "scenarios[0].steps[0].tasks[0].variable", "no variable is named vv"),
    ({"scenarios": [named_scenario(("a", {"tasks": [{"type": "os", "command": "echo ${dya}"}]}), variables={"day": ""})]},
     "scenarios[0].steps[0].tasks[0].command", "do you mean day?"),
    ({"scenarios": [named_scenario(("a", {"tasks": [{"type": "slep"}]}))]}, "scenarios[0].steps[0].tasks[0].type",
     "do you mean sleep?"),
    ({"scenario": []}, "scenario", "unknown field; do you mean scenarios?"),
    ({"data_servers": [{"name": "MAIL", "driver": "smtp", "connect": {"hots": "h"}}]}, "data_servers[0].connect.hots",
     "do you mean host?")])
def test_a_fault_says_what_is_near(inside, document, path, words):
    lines = inside.ask("IMPORT '%s'" % json.dumps(document))
    assert any(line.startswith("* %s: " % path) and words in line for line in lines), lines
