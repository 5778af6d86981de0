"""Definitions: every fault with its path and reason, all at once; IMPORT, EXPORT and --import on real repositories."""
import copy
import json
import subprocess
import sys

import pytest

import agent
import conftest
from support.tasks import os_task

pytestmark = pytest.mark.once


def step_of(name="one", *tasks, **fields):
    return dict({"name": name, "tasks": list(tasks) or [os_task()]}, **fields)


def document_of(*steps, **fields):
    """The document of a scenario A 1."""
    return {"scenarios": [dict({"name": "A", "version": "1", "steps": list(steps) or [step_of()]}, **fields)]}


def schedule(**fields):
    return {"schedules": [dict({"name": "S", "scenario": "A", "rule": "daily at 02:00"}, **fields)]}


def faults(document):
    """{path: reason} of all that is wrong in a document."""
    text = document if isinstance(document, str) else json.dumps(document)
    try:
        agent.Definitions().read(text)
    except agent.BadRequest as error:
        return dict(error.faults)
    return {}


def only(document):
    """The one fault of a document: (path, reason)."""
    with pytest.raises(agent.BadRequest) as caught:
        agent.Definitions().read(document if isinstance(document, str) else json.dumps(document))
    assert len(caught.value.faults) == 1, caught.value.faults
    return caught.value.faults[0]


# -- faults ----------------------------------------------------------------------------

@pytest.mark.parametrize("text, reason", [
    ("", "Expecting value"), ("{", "Expecting"), ("[]", "must be an object"), ("5", "must be an object"), ("null", "must be"),
    ("\"a\"", "must be an object"), ("{} {}", "Extra data"), ("{'a': 1}", "Expecting"), ('{"scenarios": NaN}', "NaN"),
    ('{"scenarios": [Infinity]}', "Infinity"), ('{"contexts": [], "contexts": []}', "contexts stands twice"),
    ('{"scenarios": [{"name": "A", "name": "B"}]}', "name stands twice"), ("[" * 100000, "nested too deeply"),
    ('{"a":' * 30000, "nested too deeply"), ("{}\ufeff", "Extra data"),
])
def test_what_is_no_json_object(text, reason):
    path, refusal = only(text)
    assert path == "document" and reason in refusal


def test_a_sound_document_has_no_faults():
    assert faults({}) == {}
    assert faults({"scenarios": [], "schedules": [], "contexts": []}) == {}
    assert faults(dict(document_of(
        step_of("fetch", os_task(["./fetch.sh", "${day}"], name="t.1", cwd="/srv/${day}", env={"LANG": "C", "D": "${DUE}"},
                              timeout="2h", stdin="${n}", ok_codes=[0, 3], warning_codes=[4], nice=5, umask="027",
                              capture="n"), attempts=3, retry_delay="10s", retry_factor=1.5, timeout=600,
             on_ok="load", on_error="alert"),
        step_of("load", on_ok="END", on_error="alert"), step_of("alert", on_ok="FAIL", on_error="fetch"),
        variables={"day": "2015-01-01", "n": 5, "x": 1.5, "_e": ""}, timeout="1d", max_steps=5, on_stale="restart",
        on_error="alert"), **dict(schedule(
            version="-1", context="GLOBAL", agent="OTHER", timezone="UTC", enabled=False, variables={"day": "x"},
            to="2026-12-31", hours="22:00-06:00", exclude_weekdays=["sat", "sun"], exclude_monthdays=[1, "last"],
            exclude_dates="2026-12-24..2026-12-26,SWISS", repeat_every="15m", repeat_for="2h", gap="skip", fold="both",
            jitter="1m", after=["A/2h", "scenario:B"], session_name="nightly", keywords=["a", "b"], priority=-5, attempts=3,
            retry_delay="10s", timeout=5.5, overlap="stop", misfire="all", grace="1d", **{"from": "2026-01-01 02:00"}),
            contexts=["GLOBAL", "PROD"]))) == {}


@pytest.mark.parametrize("document, path, reason", [
    ({"nope": []}, "nope", "unknown field"), ({"Scenarios": []}, "Scenarios", "unknown field"),
    ({"scenarios": {}}, "scenarios", "must be a list"), ({"schedules": None}, "schedules", "must be a list"),
    ({"contexts": "GLOBAL"}, "contexts", "must be a list"), ({"contexts": ["A", "b/c"]}, "contexts[1]", "must be a name"),
    ({"contexts": [5]}, "contexts[0]", "must be a name"), ({"scenarios": [5]}, "scenarios[0]", "must be an object"),
    ({"schedules": [[]]}, "schedules[0]", "must be an object"),
    (document_of(color="red"), "scenarios[0].color", "unknown field"),
    (document_of(name=None), "scenarios[0].name", "must be a name"), (document_of(name="a b"), "scenarios[0].name", "must be"),
    (document_of(name="x" * 129), "scenarios[0].name", "128"), (document_of(version=1), "scenarios[0].version", "must be a name"),
    (document_of(version="-1"), "scenarios[0].version", ""), (document_of(timeout=0), "scenarios[0].timeout", "more than 0"),
    (document_of(timeout=-1), "scenarios[0].timeout", "seconds"), (document_of(timeout="1w"), "scenarios[0].timeout", "90s"),
    (document_of(timeout=True), "scenarios[0].timeout", "seconds"), (document_of(timeout=[]), "scenarios[0].timeout", "seconds"),
    (document_of(timeout=10 ** 400), "scenarios[0].timeout", "seconds"),
    (document_of(max_steps=0), "scenarios[0].max_steps", "from 1"), (document_of(max_steps="5"), "scenarios[0].max_steps", "number"),
    (document_of(max_steps=1.5), "scenarios[0].max_steps", "whole number"),
    (document_of(on_stale="ignore"), "scenarios[0].on_stale", "error"), (document_of(on_stale=[]), "scenarios[0].on_stale", ""),
    (document_of(on_stale="ERROR"), "scenarios[0].on_stale", "error"),
    (document_of(on_error="nobody"), "scenarios[0].on_error", "no step is named nobody"),
    (document_of(on_error="a b"), "scenarios[0].on_error", "must be a name"),
    (document_of(steps=[]), "scenarios[0].steps", "at least one"), (document_of(steps={}), "scenarios[0].steps", "a list"),
    (document_of(steps=None), "scenarios[0].steps", "a list"), (document_of("x"), "scenarios[0].steps[0]", "an object"),
    (document_of(variables=[]), "scenarios[0].variables", "an object"),
    (document_of(variables={"a": True}), "scenarios[0].variables.a", "text or a number"),
    (document_of(variables={"a": None}), "scenarios[0].variables.a", "text or a number"),
    (document_of(variables={"1a": ""}), "scenarios[0].variables.1a", "letters"),
    (document_of(variables={"": ""}), "scenarios[0].variables.", "letters"),
    (document_of(variables={"a" * 129: ""}), "scenarios[0].variables." + "a" * 129, "128"),
    (document_of(variables={"DUE": ""}), "scenarios[0].variables.DUE", "agent's own"),
    (document_of(variables={"a": "\0"}), "scenarios[0].variables.a", "U+0000"),
    (document_of(variables={"a": "\ud800"}), "scenarios[0].variables.a", "surrogates"),
    (document_of(step_of(colour=1)), "scenarios[0].steps[0].colour", "unknown field"),
    (document_of({"name": "one"}), "scenarios[0].steps[0].tasks", "missing"),
    (document_of(step_of(), {"tasks": [os_task()]}), "scenarios[0].steps[1].name", "missing"),
    (document_of(step_of(tasks=[])), "scenarios[0].steps[0].tasks", "at least one"),
    (document_of(step_of(tasks="x")), "scenarios[0].steps[0].tasks", "a list"),
    (document_of(step_of(attempts=0)), "scenarios[0].steps[0].attempts", "from 1"),
    (document_of(step_of(attempts=True)), "scenarios[0].steps[0].attempts", "number"),
    (document_of(step_of(retry_delay=-1)), "scenarios[0].steps[0].retry_delay", "seconds"),
    (document_of(step_of(retry_factor=0.5)), "scenarios[0].steps[0].retry_factor", "number"),
    (document_of(step_of(timeout="0s")), "scenarios[0].steps[0].timeout", "more than 0"),
    (document_of(step_of(on_ok="two")), "scenarios[0].steps[0].on_ok", "no step is named two"),
    (document_of(step_of(on_error="ONE")), "scenarios[0].steps[0].on_error", "no step is named ONE"),
    (document_of(step_of(on_ok="end")), "scenarios[0].steps[0].on_ok", "no step is named end"),
    (document_of(step_of(on_ok=None)), "scenarios[0].steps[0].on_ok", "must be a name"),
    (document_of(step_of("END")), "scenarios[0].steps[0].name", "targets"),
    (document_of(step_of("FAIL")), "scenarios[0].steps[0].name", "targets"),
    (document_of(step_of("a"), step_of("b"), step_of("a")), "scenarios[0].steps[2]", "second time"),
    (document_of(step_of("a", 5)), "scenarios[0].steps[0].tasks[0]", "an object"),
    (document_of(step_of("a", {"command": "x"})), "scenarios[0].steps[0].tasks[0].type", "missing"),
    (document_of(step_of("a", {"type": "os"})), "scenarios[0].steps[0].tasks[0].command", "missing"),
    (document_of(step_of("a", {"type": "nope", "command": "x"})), "scenarios[0].steps[0].tasks[0].type", "one of"),
    (document_of(step_of("a", {"type": 5})), "scenarios[0].steps[0].tasks[0].type", "text"),
    (document_of(step_of("a", {"type": None})), "scenarios[0].steps[0].tasks[0].type", "text"),
    (document_of(step_of("a", {"type": []})), "scenarios[0].steps[0].tasks[0].type", "text"),
    (document_of(step_of("a", os_task(shell=True))), "scenarios[0].steps[0].tasks[0].shell", "unknown field"),
    (document_of(step_of("a", os_task(name="a b"))), "scenarios[0].steps[0].tasks[0].name", "must be a name"),
    (document_of(step_of("a", os_task(timeout=0))), "scenarios[0].steps[0].tasks[0].timeout", "more than 0"),
    (document_of(step_of("a", os_task(""))), "scenarios[0].steps[0].tasks[0].command", "string for the shell"),
    (document_of(step_of("a", os_task(" \n"))), "scenarios[0].steps[0].tasks[0].command", "string for the shell"),
    (document_of(step_of("a", os_task([]))), "scenarios[0].steps[0].tasks[0].command", "list of program"),
    (document_of(step_of("a", os_task(["", "x"]))), "scenarios[0].steps[0].tasks[0].command", "list of program"),
    (document_of(step_of("a", os_task(5))), "scenarios[0].steps[0].tasks[0].command", "string for the shell"),
    (document_of(step_of("a", os_task(["a", 5]))), "scenarios[0].steps[0].tasks[0].command[1]", "text"),
    (document_of(step_of("a", os_task("a\0b"))), "scenarios[0].steps[0].tasks[0].command", "U+0000"),
    (document_of(step_of("a", os_task(cwd=""))), "scenarios[0].steps[0].tasks[0].cwd", "empty"),
    (document_of(step_of("a", os_task(env=[]))), "scenarios[0].steps[0].tasks[0].env", "an object"),
    (document_of(step_of("a", os_task(env={"A": 5}))), "scenarios[0].steps[0].tasks[0].env", "text"),
    (document_of(step_of("a", os_task(env={"A=B": "x"}))), "scenarios[0].steps[0].tasks[0].env", "without ="),
    (document_of(step_of("a", os_task(ok_codes=0))), "scenarios[0].steps[0].tasks[0].ok_codes", "a list"),
    (document_of(step_of("a", os_task(ok_codes=[0, "1"]))), "scenarios[0].steps[0].tasks[0].ok_codes[1]", "number"),
    (document_of(step_of("a", os_task(warning_codes=[256]))), "scenarios[0].steps[0].tasks[0].warning_codes[0]", "255"),
    (document_of(step_of("a", os_task(capture="x"))), "scenarios[0].steps[0].tasks[0].capture", "no variable is named x"),
    (document_of(step_of("a", os_task(capture="DUE"))), "scenarios[0].steps[0].tasks[0].capture", "agent's own"),
    (document_of(step_of("a", os_task(capture=5))), "scenarios[0].steps[0].tasks[0].capture", "letters"),
    (document_of(step_of("a", os_task(nice=20))), "scenarios[0].steps[0].tasks[0].nice", "19"),
    (document_of(step_of("a", os_task(umask=27))), "scenarios[0].steps[0].tasks[0].umask", "octal"),
    (document_of(step_of("a", os_task(umask="089"))), "scenarios[0].steps[0].tasks[0].umask", "octal"),
    (schedule(colour=1), "schedules[0].colour", "unknown field"), (schedule(name=""), "schedules[0].name", "must be"),
    (schedule(scenario=5), "schedules[0].scenario", "must be a name"), (schedule(version=5), "schedules[0].version", ""),
    (schedule(version="-2"), "schedules[0].version", "must be a name"), (schedule(context=[]), "schedules[0].context", ""),
    (schedule(agent=""), "schedules[0].agent", "must be a name"), (schedule(enabled="yes"), "schedules[0].enabled", "true"),
    (schedule(enabled=1), "schedules[0].enabled", "true or false"), (schedule(rule=""), "schedules[0].rule", "missing"),
    (schedule(rule=5), "schedules[0].rule", "text"), (schedule(rule="nightly"), "schedules[0].rule", "nightly"),
    (schedule(rule="daily at 25:00"), "schedules[0].rule", "25:00"),
    (schedule(rule="cron 0 0 30 2 *"), "schedules[0].rule", "never fire"),
    (schedule(timezone="Nope/Nope"), "schedules[0].timezone", "Nope/Nope"), (schedule(timezone=5), "schedules[0].timezone", ""),
    (schedule(variables=[]), "schedules[0].variables", "an object"),
    (schedule(variables={"a": []}), "schedules[0].variables.a", "text or a number"),
    (schedule(variables={"SESSION": "1"}), "schedules[0].variables.SESSION", "agent's own"),
    (schedule(**{"from": "soon"}), "schedules[0].from", "soon"), (schedule(to=5), "schedules[0].to", "text"),
    (schedule(hours="8-18"), "schedules[0].hours", "8"), (schedule(exclude_weekdays="xyz"), "schedules[0].exclude_weekdays", "xyz"),
    (schedule(exclude_monthdays=[1, 32]), "schedules[0].exclude_monthdays", "32"),
    (schedule(exclude_monthdays=[True]), "schedules[0].exclude_monthdays", "words between commas"),
    (schedule(exclude_dates="2026-02-30"), "schedules[0].exclude_dates", "2026-02-30"),
    (schedule(repeat_every="15m"), "schedules[0].repeat_every", "repeat_count"),
    (schedule(repeat_every=60, repeat_count=2, repeat_for=1.5), "schedules[0].repeat_for", "whole seconds"),
    (schedule(repeat_every=60, repeat_count=0, repeat_for=60), "schedules[0].repeat_count", "from 1"),
    (schedule(gap="jump"), "schedules[0].gap", "run"), (schedule(fold=""), "schedules[0].fold", "first"),
    (schedule(jitter=86401), "schedules[0].jitter", "one day"), (schedule(jitter=-1), "schedules[0].jitter", ""),
    (schedule(after="S"), "schedules[0].after", "itself"), (schedule(after=["A/soon"]), "schedules[0].after", "soon"),
    (schedule(after="A,B,A/2h"), "schedules[0].after", "A stands twice"), (schedule(after="job:A"), "schedules[0].after", "job:A"),
    (schedule(rule="", after="A", hours="08:00-18:00"), "schedules[0].hours", "due times by the clock"),
    (schedule(rule="startup", hours="08:00-18:00"), "schedules[0].hours", "due times by the clock"),
    (schedule(rule="@reboot", jitter=3), "schedules[0].jitter", "due times by the clock"),
    (schedule(session_name="x" * 1001), "schedules[0].session_name", "1000"), (schedule(keywords={}), "schedules[0].keywords", "words"),
    (schedule(priority="high"), "schedules[0].priority", "number"), (schedule(attempts=0), "schedules[0].attempts", "from 1"),
    (schedule(retry_delay="soon"), "schedules[0].retry_delay", "duration"), (schedule(timeout=0), "schedules[0].timeout", "more than 0"),
    (schedule(overlap="wait"), "schedules[0].overlap", "parallel"), (schedule(misfire="twice"), "schedules[0].misfire", "once"),
    (schedule(grace=0), "schedules[0].grace", "more than 0"),
    (schedule(**{"from": "2026-01-02", "to": "2026-01-01"}), "schedules[0].to", "before from"),
])
def test_each_fault_has_its_path_and_reason(document, path, reason):
    told_path, refusal = only(document)
    assert told_path == path and reason in refusal


def test_missing_fields():
    assert faults({"scenarios": [{}], "schedules": [{}]}) == {
        "scenarios[0].name": "missing", "scenarios[0].version": "missing", "scenarios[0].steps": "missing",
        "schedules[0].name": "missing", "schedules[0].scenario": "missing", "schedules[0].rule": "missing"}


def test_what_stands_twice():
    one, other = document_of()["scenarios"][0], dict(document_of()["scenarios"][0], version="2")
    assert set(faults({"scenarios": [one, other, one]})) == {"scenarios[2]"}
    twice = schedule()["schedules"][0]
    assert set(faults({"schedules": [twice, twice, twice]})) == {"schedules[1]", "schedules[2]"}


@pytest.mark.parametrize("place, field", [
    ("command", "a ${x}"), ("command[1]", ["a", "${x}"]), ("cwd", "/${x}"), ("stdin", "${x}\n"), ("env.A", {"A": "${x}"})])
def test_references_are_checked_wherever_they_stand(place, field):
    document = document_of(step_of("a", os_task(**{place.split(".")[0].split("[")[0]: field})))
    path, reason = only(document)
    assert path == "scenarios[0].steps[0].tasks[0]." + place and "no variable is named x" in reason
    document["scenarios"][0]["variables"] = {"x": ""}
    assert faults(document) == {}


@pytest.mark.parametrize("text", [
    "$${x}", "$x", "$", "$$", "$(x)", "${", "${}", "${1x}", "${x-y}", "${x:-1}", "$ {x}", "${SESSION}${SCENARIO}${CONTEXT}",
    "${DUE}", "{x}", "$$$${x}"])
def test_what_is_no_reference(text):
    assert faults(document_of(step_of("a", os_task(text)))) == {}


@pytest.mark.parametrize("text, value, shell", [
    ("${x}", "V", "${VAR_x}"), ("a${x}b${x}", "aVbV", "a${VAR_x}b${VAR_x}"), ("$${x}", "${x}", "${x}"), ("$x", "$x", "$x"),
    ("$$", "$$", "$$"), ("${SESSION}", "7", "${SESSION}"), ("$${x}${x}", "${x}V", "${x}${VAR_x}"), ("$$ {", "$$ {", "$$ {"),
    ("${}", "${}", "${}"),
])
def test_substitution(text, value, shell):
    assert agent.substitute(text, {"x": "V", "SESSION": "7"}) == value
    assert agent.shell_command(text) == shell


def test_values_are_not_substituted_again():
    assert agent.substitute("${a}${b}", {"a": "${b}", "b": "$${a}"}) == "${b}$${a}"


def test_all_at_once():
    document = {
        "nope": 1, "contexts": ["ok", ""],
        "scenarios": [
            {"version": "-1", "colour": 1, "variables": {"1": "", "b": [], "DUE": True}, "on_error": "nobody",
             "steps": [{"name": "a", "attempts": 0, "on_ok": "gone", "tasks": [
                 {"type": "nope", "timeout": 0}, {"type": "os", "ok_codes": ["x", 0, 999], "command": ["a", 1, None], "nice": "x"},
                 {"command": "x"}, 5]},
                       {"name": "a", "x": 1, "tasks": []}]},
            {"name": "B", "version": "1", "steps": [step_of("s", os_task("${u} ${v}", cwd="${w}"))]}],
        "schedules": [{"name": "S", "rule": "never", "timezone": "Mars", "after": 5.5, "variables": {"a": None, "b": None}}]}
    a, b, s = "scenarios[0]", "scenarios[1].steps[0].tasks[0]", "schedules[0]"
    t = a + ".steps[0].tasks"
    with pytest.raises(agent.BadRequest) as caught:
        agent.Definitions().read(json.dumps(document))
    refusal = caught.value.faults
    assert {path for path, _ in refusal} == {
        "nope", "contexts[1]", a + ".name", a + ".version", a + ".colour", a + ".variables.1", a + ".variables.b",
        a + ".variables.DUE", a + ".on_error", a + ".steps[0].attempts", a + ".steps[0].on_ok", t + "[0].type",
        t + "[0].timeout", t + "[1].ok_codes[0]", t + "[1].ok_codes[2]", t + "[1].command[1]", t + "[1].command[2]",
        t + "[1].nice", t + "[2].type", t + "[3]", a + ".steps[1]", a + ".steps[1].x", a + ".steps[1].tasks",
        b + ".command", b + ".cwd", s + ".scenario", s + ".rule", s + ".timezone", s + ".after", s + ".variables.a",
        s + ".variables.b"}
    assert sorted(reason.split()[4] for path, reason in refusal if path == b + ".command") == ["u", "v"]
    assert str(len(refusal)) in caught.value.message


def test_variables_at_fault_make_no_other_faults():
    """Which references are wrong cannot be said then."""
    assert list(faults(document_of(step_of("a", os_task("${b}", capture="b")), variables={"b": []}))) == \
        ["scenarios[0].variables.b"]


def test_targets_are_settled():
    document = document_of(step_of("a"), step_of("b", on_error="c"), step_of("c"), step_of("d", on_ok="a", on_error="END"), on_error="c")
    found = agent.Definitions().read(json.dumps(document)).scenarios[0]
    assert [(s.on_ok, s.on_error) for s in found.steps] == [("b", "c"), ("c", "c"), ("d", "FAIL"), ("a", "END")]
    found = agent.Definitions().read(json.dumps(document_of(step_of("a"), step_of("b")))).scenarios[0]
    assert [(s.on_ok, s.on_error) for s in found.steps] == [("b", "FAIL"), ("END", "FAIL")]
    assert found.max_steps == 10000 and found.on_stale == "error" and found.timeout is None


def test_a_large_document_is_read_in_time():
    many = 20000
    steps = [step_of("s%d" % number, on_ok="s0") for number in range(many)]
    for document in (document_of(*steps),
                     {"scenarios": [dict(document_of()["scenarios"][0], version=str(n)) for n in range(many)]}):
        found, turns = conftest.turns_of(lambda: faults(document))
        assert found == {} and turns < many ** 2        # less than to look at all the others for each


def test_any_change_to_a_document_is_taken_or_told():
    """Whatever stands at whatever place, there are faults or a document, never another exception."""
    whole = dict(document_of(step_of("a", os_task(["x", "${v}"], cwd="/", env={"A": "b"}, ok_codes=[0], capture="v")),
                          variables={"v": "1"}, timeout=5, on_error="a"), **schedule(variables={"v": "1"}))
    values = [None, True, 0, -1, 1.5, 1e308, 10 ** 30, "", "a b", "\0", "\ud800", "x" * 5000, [], [[]], [None], {}, {"": None},
              {"type": "os"}, "${v}", "${no}", ["${no}"]]

    def places(value, path=()):
        yield path
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield from places(value[key], path + (key,))

    for path in places(whole):
        for value in values:
            changed = {"top": copy.deepcopy(whole)}
            inner = changed
            for key in ("top",) + path[:-1] if path else ():
                inner = inner[key]
            inner[path[-1] if path else "top"] = value
            assert all(faults(changed["top"]).values())


# -- import and export -----------------------------------------------------------------

def word(document):
    """A document as one word of a request."""
    return json.dumps(json.dumps(document))


def export(running, line="EXPORT"):
    lines = running.ask(line)
    assert lines[-1] == "OK" and all(each.startswith("* ") for each in lines[:-1]), lines
    return json.loads("\n".join(each[2:] for each in lines[:-1]))


def refusal(running, line):
    """({path: reason}, code) of a refusal."""
    *data, last = running.ask(line)
    assert last.startswith("ERR "), last
    return dict(each[2:].split(": ", 1) for each in data), last.split()[1]


def scenarios_of(document):
    return {(s["name"], s["version"]): s for s in document["scenarios"]}


def test_faults_on_the_wire(agent):
    document = {"x\ny": 1, "scenarios": [{"name": "A", "version": "1", "steps": [step_of("s", {"type": "os"})]}]}
    assert refusal(agent, "IMPORT " + word(document)) == (
        {"x y": "unknown field", "scenarios[0].steps[0].tasks[0].command": "missing"}, "BAD_REQUEST")
    assert refusal(agent, "IMPORT '{'")[1] == "BAD_REQUEST"
    assert refusal(agent, 'IMPORT {"scenarios": []}') == ({}, "BAD_REQUEST")
    assert "quote the document as one word" in agent.ask('IMPORT {"scenarios":[]}')[0]
    assert agent.err("EXEC A") == "NOT_FOUND"


def test_import_of_the_same_another_and_replace(agent):
    first, second = document_of(step_of("a", os_task("echo first"))), document_of(step_of("a", os_task("echo second")))
    agent.import_document(first)
    old = agent.ok("EXEC A -SYNC")["session"]
    agent.import_document(first)                                            # the same again changes nothing
    turned = json.loads(json.dumps(first), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert agent.ok("IMPORT " + word(turned))["scenarios"] == "0"           # the order of fields means nothing
    assert refusal(agent, "IMPORT " + word(second)) == (
        {"scenarios[0]": "A 1 exists with another definition; give it a new version, or replace it with -REPLACE "
         "(from a shell --replace)"}, "EXISTS")
    assert scenarios_of(export(agent))["A", "1"] == first["scenarios"][0]
    agent.ok("IMPORT %s -REPLACE" % word(second))
    assert scenarios_of(export(agent))["A", "1"] == second["scenarios"][0]
    new = agent.ok("EXEC A -SYNC")["session"]
    assert agent.log_texts(old) == ["first"] and agent.log_texts(new) == ["second"]


def test_nothing_is_imported_when_anything_is_wrong(agent):
    agent.import_document(dict(document_of(variables={"v": "1"}), contexts=["TEST"]))
    before = export(agent)
    good = dict(document_of()["scenarios"][0], name="NEW")
    document = {
        "contexts": ["NEXT"], "scenarios": [good, dict(document_of()["scenarios"][0])],
        "schedules": [dict(schedule()["schedules"][0], name=name, **fields) for name, fields in (
            ("S0", {}), ("S1", {"scenario": "GONE"}), ("S2", {"version": "9"}), ("S3", {"context": "NOPE"}),
            ("S4", {"context": "NEXT", "scenario": "NEW"}), ("S5", {"variables": {"v": "2", "w": "", "x": ""}}),
            ("S6", {"scenario": "GONE", "context": "NOPE"}))]}
    wrong = {"schedules[1].scenario", "schedules[2].scenario", "schedules[3].context", "schedules[5].variables.w",
             "schedules[5].variables.x", "schedules[6].scenario", "schedules[6].context"}
    found, code = refusal(agent, "IMPORT " + word(document))
    assert (set(found), code) == (wrong | {"scenarios[1]"}, "EXISTS")
    assert export(agent) == before
    document["scenarios"].pop()
    found, code = refusal(agent, "IMPORT " + word(document))
    assert (set(found), code) == (wrong, "BAD_REQUEST")
    assert found["schedules[3].context"] == "no context NOPE"
    assert export(agent) == before
    assert [row["context"] for row in agent.rows("CONTEXTS")] == ["GLOBAL", "TEST"]
    assert agent.rows("SCHED LIST") == []


def test_export_gives_the_same_back(agent, make_agent):
    document = dict(document_of(
        step_of("first", os_task(["printf", "%s", "${day} \u00e9\u2028\U0001f600 \"q\" 'a' \\ \x01\ttab"], env={"A": "${DUE}"}),
             retry_factor=1.5, timeout="2h"),
        step_of("second", os_task("echo \"${day}\" $HOME '$${x}'\n# more"), on_error="first"),
        variables={"day": "2015-01-01", "n": 5, "f": 0.1, "empty": ""}, on_stale="restart"),
        schedules=[
            {"name": "NIGHTLY", "scenario": "A", "version": "1", "rule": "daily at 02:00", "timezone": "UTC",
             "variables": {"day": "x y"}, "enabled": False},
            {"name": "OTHERS", "agent": "OTHER", "scenario": "A", "context": "PROD", "rule": "every 90s"}],
        contexts=["GLOBAL", "PROD"])
    document["scenarios"].append(dict(document["scenarios"][0], version="10"))
    document["scenarios"].append(dict(document["scenarios"][0], version="9"))
    agent.import_document(document)
    exported = export(agent)
    for each in document["scenarios"]:
        assert scenarios_of(exported)["A", each["version"]] == each
    assert [s["version"] for s in exported["scenarios"] if s["name"] == "A"] == ["1", "9", "10"]
    assert exported["contexts"] == ["GLOBAL", "PROD"]
    nightly, others = exported["schedules"]
    assert nightly == dict(document["schedules"][0], agent="AGENT")
    assert others == document["schedules"][1]
    # one scenario, one version, the latest
    assert len(export(agent, "EXPORT A")["scenarios"]) == 3 and "schedules" in export(agent, "EXPORT A")
    assert [s["version"] for s in export(agent, "EXPORT A 9")["scenarios"]] == ["9"]
    assert [s["version"] for s in export(agent, "EXPORT A -1")["scenarios"]] == ["10"]
    assert agent.err("EXPORT A 7") == agent.err("EXPORT NOPE") == agent.err("EXPORT -REPO=NOPE") == "NOT_FOUND"
    # it is imported again: the same here, and into a fresh repository
    assert agent.ok("IMPORT " + word(exported))["scenarios"] == "0"
    assert export(agent) == exported
    assert [row["name"] for row in agent.rows("SCHED LIST")] == ["NIGHTLY", "OTHERS"]
    fresh = make_agent(folder="fresh").start()
    fresh.ok("IMPORT " + word(exported))
    assert export(fresh) == exported


def test_a_schedule_is_set_to_the_new_definition_and_keeps_its_ledger(agent):
    document = dict(document_of(), **schedule(rule="every 1s"))
    agent.import_document(document)
    conftest.wait_for(lambda: [row for row in agent.rows("SCHED WHY S") if row["session"]], "a session of the schedule")
    agent.import_document(schedule(rule="yearly on 01-01 at 00:00", timezone="UTC"))
    assert agent.rows("SCHED SHOW S")[0]["rule"] == "yearly on 01-01 at 00:00"
    assert agent.rows("SCHED SHOW S")[0]["timezone"] == "UTC"
    known = agent.rows("SCHED WHY S")
    assert [row for row in known if row["session"]]
    agent.import_document(schedule(rule="yearly on 01-01 at 00:00", timezone="UTC"))
    assert [row["due"] for row in agent.rows("SCHED WHY S")] == [row["due"] for row in known]


def test_drop(agent):
    agent.import_document(document_of())
    agent.import_document(document_of(version="2"))
    agent.ok("SCHED ADD S A 1 GLOBAL 'daily at 02:00'")
    assert agent.err("DROP A 1") == "CONFLICT"
    agent.ok("DROP A 2")
    assert agent.err("DROP A 2") == agent.err("DROP NOPE 1") == "NOT_FOUND"
    agent.ok("SCHED SET S -VERSION=-1")
    assert agent.err("DROP A 1") == "CONFLICT"                      # the last that -1 could mean
    agent.ok("SCHED DEL S")
    agent.ok("DROP A 1")
    assert agent.err("EXEC A") == "NOT_FOUND"


def test_import_of_4_mib_and_not_more(agent):
    def padded(size):
        text = json.dumps(document_of(step_of("a", os_task(": PAD"))))
        line = "IMPORT '%s'" % text
        return line.replace("PAD", "x" * (size - len(line) + 3))
    limit = 4 * 1024 * 1024
    with agent.connect() as client:
        client.send(padded(limit))
        client.expect("* kind=scenario *", "OK scenarios=1 *")
        client.send(padded(limit + 1))
        client.expect("ERR TOO_LONG *")
        assert client.line() == ""
    with agent.connect() as client:
        client.send("PING " + "x" * 70000)
        client.expect("ERR TOO_LONG *")


def test_import_from_files_beside_a_running_agent(agent, tmp_path):
    def run(*files, options=()):
        done = subprocess.run([sys.executable, str(conftest.TOP / "agent.py"), "--master", str(agent.master), "--import"]
                              + [str(file) for file in files] + list(options), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=conftest.LIMIT_S)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done.returncode, done.stderr.decode()

    def write(name, document):
        path = tmp_path / name
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return path
    good = write("good.json", document_of())
    assert run(good) == (0, "")
    assert agent.ok("EXEC A -SYNC")["status"] == "DONE"
    code, said = run(write("bad.json", {"scenarios": [{"name": "B", "version": "1", "steps": []}], "x": 1}))
    assert code == 1 and "bad.json: x: unknown field" in said and "scenarios[0].steps: must have" in said
    assert run(write("latin.json", b'{"contexts": ["\xe9"]}'))[0] == 1
    assert run(tmp_path / "missing.json")[0] == 1
    other = write("other.json", document_of(step_of("b")))
    assert run(other)[0] == 1
    assert run(other, options=["--replace"]) == (0, "")
    assert run(good, options=["--repo", "NOPE"])[0] == 1
    assert scenarios_of(export(agent))["A", "1"]["steps"][0]["name"] == "b"
