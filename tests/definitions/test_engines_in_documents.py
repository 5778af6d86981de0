"""Engines in a document: every fault has its path, and EXPORT gives the same back."""
import json

import pytest

from conftest import program
from support.engines import batch       # noqa: F401 (a fixture)

ENGINE = {"name": "HPC", "driver": "slurm", "options": {"partition": "night", "time": "02:00:00", "nodes": 2, "hold": True},
          "spool": "/shared/agent", "contexts": {"DEV": "LOCAL"}}
COMMAND = {"submit": ["sub", "${SCRIPT}"], "find": ["find", "${MARKER}"], "state": ["state", "${ID}"], "cancel": ["del", "${ID}"]}


def engine_faults(agent, document):
    reply = agent.ask("IMPORT '%s' -DRY_RUN -JSON" % json.dumps(document))
    assert reply[-1].startswith("ERR BAD_REQUEST "), reply
    return [(each["path"], each["reason"]) for each in json.loads(reply[-1].split(" ", 2)[2])["faults"]]


def scenario_with(*tasks, **fields):
    return dict({"name": "S", "version": "1", "steps": [{"name": "a", "tasks": list(tasks)}]}, **fields)


@pytest.mark.parametrize("change, path, words", [
    ({"name": "LOCAL"}, "name", "LOCAL is this host"),
    ({"driver": "pbs"}, "driver", "must be slurm or command"),
    ({"spool": "here"}, "spool", "absolute path"),
    ({"spool": "/a\nb"}, "spool", "control characters"),
    ({"other": 1}, "other", "unknown field"),
    ({"options": {"job-name": "x"}}, "options.job-name", "the agent's own"),
    ({"options": {"array": "1-9"}}, "options.array", "the agent's own"),
    ({"options": {"-p": "x"}}, "options.-p", "no long option of sbatch"),
    ({"options": {"time": False}}, "options.time", "must be text, a whole number, or true"),
    ({"options": []}, "options", "must be an object"),
    ({"contexts": {"DEV": 1}}, "contexts.DEV", "must be a name"),
    ({"contexts": {"DEV": "NONE"}}, "contexts.DEV", "no engine NONE"),
    ({"contexts": {"NONE": "LOCAL"}}, "contexts.NONE", "no context NONE"),
    ({"driver": "command", "options": {}}, "options.submit", "missing"),
    ({"driver": "command", "options": dict(COMMAND, find="find")}, "options.find", "must be a list"),
    ({"driver": "command", "options": dict(COMMAND, find=["find"])}, "options.find", "must have ${MARKER}"),
    ({"driver": "command", "options": dict(COMMAND, state=["x", "${WHO}"])}, "options.state", "${WHO} is not known here"),
    ({"driver": "command", "options": dict(COMMAND, kill=["x"])}, "options.kill", "unknown field"),
])
def test_faults_of_an_engine(shared_inside, change, path, words):
    shared_inside.import_document({"contexts": ["DEV"]})
    faults = engine_faults(shared_inside, {"engines": [dict(ENGINE, **change)]})
    assert [reason for place, reason in faults if place == "engines[0]." + path and words in reason], faults


@pytest.mark.parametrize("fields, path, words", [
    ({"stdin": "x"}, "stdin", "is for a task on this host; this one runs on engine HPC"),
    ({"nice": 3}, "nice", "is for a task on this host"),
    ({"umask": "022"}, "umask", "is for a task on this host"),
    ({"env": {"a.b": "x"}}, "env.a.b", "no name that a shell can hand"),
    ({"engine": "HPCC"}, "engine", "no engine HPCC; do you mean HPC?"),
])
def test_what_a_task_on_an_engine_cannot_have(shared_inside, fields, path, words):
    task = dict({"type": "os", "command": "true", "engine": "HPC"}, **fields)
    document = {"contexts": ["DEV"], "engines": [ENGINE], "scenarios": [scenario_with(task)]}
    faults = engine_faults(shared_inside, document)
    assert [place for place, _ in faults] == ["scenarios[0].steps[0].tasks[0]." + path] and words in faults[0][1], faults
    if path != "engine":
        task.pop("engine")
        document["scenarios"] = [scenario_with(task, engine="HPC")]
        assert [place for place, _ in engine_faults(shared_inside, document)] == ["scenarios[0].steps[0].tasks[0]." + path]
        document["scenarios"] = [scenario_with(dict(task, engine="LOCAL"), engine="HPC")]
        assert shared_inside.import_document(document, "-DRY_RUN")["engines"] == "1"


def test_other_types_have_no_engine_and_a_scenario_names_one_that_is_there(shared_inside):
    assert engine_faults(shared_inside, {"scenarios": [scenario_with({"type": "sleep", "seconds": 1, "engine": "HPC"})]}) == [
        ("scenarios[0].steps[0].tasks[0].engine", "unknown field")]
    faults = engine_faults(shared_inside, {"scenarios": [scenario_with({"type": "os", "command": "true"}, engine="NONE")]})
    assert faults == [("scenarios[0].engine", "no engine NONE")]
    twice = engine_faults(shared_inside, {"contexts": ["DEV"], "engines": [ENGINE, ENGINE]})
    assert twice == [("engines[1]", "stands here a second time")]


def test_export_gives_it_back(inside, batch):
    document = {"contexts": ["DEV", "GLOBAL"], "engines": [batch.definition(), dict(ENGINE, name="NIGHT")],
                "scenarios": [scenario_with({"type": "os", "command": "true", "engine": "NIGHT"}, engine="HPC")]}
    assert inside.import_document(document)["engines"] == "2"
    exported = json.loads("".join(line[2:] for line in inside.ask("EXPORT")[:-1]))
    assert exported["engines"] == document["engines"]
    assert document["scenarios"][0] in exported["scenarios"]
    again = inside.ask("IMPORT '%s'" % json.dumps(exported).replace("'", "\\u0027"))
    assert "* kind=engine name=HPC version= change=same" in again and " engines=0 " in again[-1], again
    assert inside.import_document({"engines": [dict(ENGINE, name="NIGHT", spool="/other")]})["engines"] == "1"


def test_a_host_without_the_programs_is_warned_of(shared_inside):
    options = dict(COMMAND, submit=["/no/such/program", "${SCRIPT}"])
    lines = shared_inside.ask("IMPORT '%s' -DRY_RUN" % json.dumps({"engines": [
        {"name": "E", "driver": "command", "options": options, "spool": "/x"}]}))
    assert [line for line in lines if "engines[0].driver" in line and "/no/such/program" in line], lines


def test_states_in_either_form_and_what_is_none():
    def state(word, rc=None, text=""):
        return program.JobState(word, rc, text, not text)
    lines = "RUNNING\nENDED 3\nLOST\n"
    assert program.read_states(lines, ["7", "8", "9"]) == {"7": state("RUNNING"), "8": state("ENDED", 3), "9": state("LOST")}
    named = "9 QUEUED\n7 ENDED 137 out of memory\n"
    assert program.read_states(named, ["7", "8", "9"]) == {
        "7": state("ENDED", -9, "out of memory"), "8": state("LOST"), "9": state("QUEUED")}
    assert program.read_states("ENDED", ["7"]) == {"7": state("ENDED")}
    assert program.read_states("ENDED 271", ["7"])["7"].rc == -15
    for text in ("RUNNING", "RUNNING\nwhat\n", "7\n8 RUNNING"):
        with pytest.raises(program.NoAnswer):
            program.read_states(text, ["7", "8"])


@pytest.mark.parametrize("shown, rc, words", [
    ("JobState=TIMEOUT Reason=TimeLimit ExitCode=0:15", -15, "out of time (TIMEOUT, TimeLimit)"),
    ("JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125", -125, "out of memory (OUT_OF_MEMORY, OutOfMemory)"),
    ("JobState=NODE_FAIL Reason=NodeDown ExitCode=1:0", 1, "its node was lost (NODE_FAIL, NodeDown)"),
    ("JobState=PREEMPTED Reason=None ExitCode=0:0", 0, "preempted (PREEMPTED)"),
])
def test_how_slurm_tells_an_end(shown, rc, words):
    calls = []

    def call(command, choose, data=b""):
        calls.append(command)
        return program.Answer(0, ("JobId=5 JobName=x %s\n" % shown).encode(), "")
    driver = program.SlurmEngine({}, call)
    assert driver.end_of("5", program.JobState("ENDED")) == program.JobState("ENDED", rc, words, False)
    assert calls == [["scontrol", "--oneliner", "show", "job", "5"]]
