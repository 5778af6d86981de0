"""Tasks on an engine, the batch system of support/batch.py, in the test's own process."""
import os
import signal
import subprocess
import time

import pytest

from conftest import is_alive, program, wait_for
from support.tasks import os_task
from support.engines import add_engine, batch, begin_there, engines, engine_scenario, exec_sync, spool_is_empty, wait_there     # noqa: F401 (fixtures)


pytestmark = pytest.mark.once


def wait_job(agent, batch, session):
    """Waits until its job runs -> the folder of the job."""
    return batch.folder / wait_there(agent, session)


# -- where it runs -----------------------------------------------------------------------------------------------------

def test_local_by_word_and_by_context(engines, batch):
    engines.import_document({"contexts": ["DEV"], "engines": [batch.definition(contexts={"DEV": "LOCAL"})]})
    exec_sync(engines, os_task("echo here", engine="LOCAL"))
    assert (engines.log_texts(1001), batch.calls()) == (["here"], [])
    exec_sync(engines, os_task("echo here"), options="1 DEV")
    assert (engines.log_texts(2001), batch.calls()) == (["here"], [])
    engines.import_document({"scenarios": [dict(engine_scenario("B", os_task("echo there", engine="HPC")), engine="LOCAL")]})
    engines.ok("EXEC B -SYNC")
    assert (engines.log_texts(3001), len(batch.jobs())) == (["there"], 1)


def test_another_engine_in_a_context(engines, batch, tmp_path):
    other = dict(batch.definition(), name="TEST", spool=str(tmp_path / "other"))
    engines.import_document({"contexts": ["DEV"], "engines": [other, batch.definition(contexts={"DEV": "TEST"})]})
    assert exec_sync(engines, os_task("echo ${CONTEXT}"), options="1 DEV")["status"] == "DONE"
    assert str(tmp_path / "other") in batch.calls("submit")[0]


def test_no_slot_is_taken_and_a_look_is_one_call_for_all(make_inside, batch):
    agent = make_inside("--max-sessions", "2").start()
    agent.agent.settings.engine_look_s = 0.5
    add_engine(agent, batch, engine_scenario("A", os_task(["true"])))
    batch.hold()
    sessions = [agent.ok("EXEC A")["session"] for _ in range(12)]
    wait_for(lambda: len(batch.jobs()) == 12, "all to be submitted")
    assert {agent.status(session)["status"] for session in sessions} == {"RUNNING"}
    row = wait_for(lambda: agent.status(sessions[-1])["message"].startswith("is queued") and agent.status(sessions[-1]))
    assert (row["waits_for"], row["message"]) == ("engine", "is queued on engine HPC as 12")
    agent.import_os("LOCALLY", "true")
    assert agent.ok("EXEC LOCALLY -SYNC")["status"] == "DONE"       # a slot is free
    before, begun = len(batch.calls()), time.monotonic()
    wait_for(lambda: len(batch.calls()) >= before + 2, "two looks")
    assert {call.split()[0] for call in batch.calls()[before:]} == {"state"}
    assert len(batch.calls()[-1].split()) == 13
    assert len(batch.calls()) - before <= (time.monotonic() - begun) / 0.5 + 1
    batch.hold(False)
    for session in sessions:
        assert agent.ok("WAIT %s" % session)["status"] == "DONE"


# -- how it ends -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command, words", [
    ("kill -9 $$", "ended by signal 9 (SIGKILL)"), ("exit 7", "exit code 7"),
    (["/no/such"], "exit code 127"), ("cd /; exec sh -c 'kill -15 $$'", "ended by signal 15 (SIGTERM)")])
def test_exit_codes_and_signals(engines, batch, command, words):
    end = exec_sync(engines, os_task(command))
    assert end["status"] == "ERROR" and words in end["message"], end


def test_an_exit_code_that_is_named_is_no_signal(engines):
    assert exec_sync(engines, os_task("exit 137", ok_codes=[137]))["status"] == "DONE"


def test_what_somebody_cancels_there(engines, batch):
    session = begin_there(engines, os_task("sleep 300"))
    job = wait_job(engines, batch, session)
    (job / "words").write_text("cancelled by root")
    os.killpg(int((job / "pid").read_text()), signal.SIGTERM)
    end = engines.ok("WAIT %s" % session)
    assert (end["status"], end["message"]) == (
        "ERROR", "step main: task 1: cancelled by root on engine HPC (ended by signal 15 (SIGTERM))")


def test_what_neither_the_engine_nor_the_spool_knows(engines, batch):
    session = begin_there(engines, os_task("sleep 300"))
    job = wait_job(engines, batch, session)
    job.rename(batch.spool.parent / "forgotten")
    os.killpg(int((batch.spool.parent / "forgotten" / "pid").read_text()), signal.SIGKILL)
    end = engines.ok("WAIT %s" % session)
    assert end["status"] == "ERROR" and "outcome unknown" in end["message"], end


def test_an_end_that_the_engine_has_forgotten_is_in_the_spool(engines, batch):
    session = begin_there(engines, os_task("until [ -e '%s' ]; do sleep 0.05; done; exit 4" % (batch.folder / "go")))
    job = wait_job(engines, batch, session)
    batch.fail("away")
    wait_for(lambda: engines.status(session)["waits_for"] == "engine", "the engine to be away")
    (batch.folder / "go").touch()
    wait_for((job / "state").exists, "its end")
    job.rename(batch.spool.parent / "forgotten")
    batch.fail("")
    end = engines.ok("WAIT %s" % session)
    assert end["status"] == "ERROR" and "exit code 4" in end["message"], end


def test_a_refusal_is_the_end(engines, batch):
    batch.fail("full")
    end = exec_sync(engines, os_task("true"))
    assert end["status"] == "ERROR" and "engine HPC refuses it: exit code 65" in end["message"], end
    wait_for(lambda: spool_is_empty(batch), "the spool to be cleared")


# -- stop and time-outs ------------------------------------------------------------------------------------------------

def test_stop_waits_until_the_engine_says_that_it_is_over(engines, batch):
    session = begin_there(engines, os_task("sleep 300"))
    job = wait_job(engines, batch, session)
    engines.ask("STOP %s -IMMEDIATE" % session)
    end = engines.ok("WAIT %s" % session)
    assert (end["status"], batch.calls("cancel")) == ("STOPPED", ["cancel 1"])
    assert not is_alive(int((job / "pid").read_text())) and (job / "state").exists()
    assert engines.agent.queue.find(int(session)) is None
    wait_for(lambda: spool_is_empty(batch), "the spool to be cleared")


@pytest.mark.parametrize("scope", ["task", "session"])
def test_a_time_out_cancels(engines, batch, scope):
    more = {"timeout": 600}
    session = begin_there(engines, os_task("sleep 300", **(more if scope == "task" else {})),
                    **(more if scope == "session" else {}))
    wait_job(engines, batch, session)
    engines.let_pass(601)
    end = engines.ok("WAIT %s" % session)
    assert end["status"] == "ERROR" and "time-out of the %s" % scope in end["message"]
    assert batch.calls("cancel") == ["cancel 1"]


def test_a_stop_while_the_engine_is_away_waits_for_it(engines, batch):
    session = begin_there(engines, os_task("sleep 300"))
    job = wait_job(engines, batch, session)
    batch.fail("away")
    engines.agent.queue.find(int(session)).stop(program.IMMEDIATE, "stopped by test")
    wait_for(lambda: "has not answered since" in engines.status(session)["message"], "the engine to be away")
    assert (engines.status(session)["status"], is_alive(int((job / "pid").read_text()))) == ("RUNNING", True)
    batch.fail("")
    assert engines.ok("WAIT %s" % session)["status"] == "STOPPED"
    assert not is_alive(int((job / "pid").read_text()))


def test_what_was_not_submitted_yet_is_not_submitted_after_a_stop(engines, batch):
    batch.fail("away")
    session = begin_there(engines, os_task("true"))         # this one is tried, maybe it was taken
    wait_for(lambda: "has not answered since" in engines.status(session)["message"], "the engine to be away")
    other = engines.ok("EXEC A")["session"]
    wait_for(lambda: "has not answered since" in engines.status(other)["message"], "the other to wait")
    engines.agent.queue.find(int(other)).stop(program.IMMEDIATE, "stopped by test")
    assert engines.ok("WAIT %s" % other)["status"] == "STOPPED"
    batch.fail("")
    assert engines.ok("WAIT %s" % session)["status"] == "DONE"
    assert len(batch.jobs()) == 1


# -- an engine that does not answer --------------------------------------------------------------------------------------

def test_tasks_wait_for_an_engine_that_does_not_answer(engines, batch):
    batch.fail("away")
    session = begin_there(engines, os_task("true"))
    row = wait_for(lambda: engines.status(session)["waits_for"] == "engine" and engines.status(session), "it to wait")
    wait_for(lambda: "the batch system is away" in engines.status(session)["message"], "the words")
    assert (row["status"], "engine HPC does not answer: exit code 1" in engines.log()) == ("RUNNING", True)
    assert engines.rows("SESSIONS")[0]["waits_for"] == "engine"
    batch.fail("")
    assert engines.ok("WAIT %s" % session)["status"] == "DONE"
    assert len(batch.jobs()) == 1


@pytest.mark.parametrize("is_there", [False, True])
def test_patience_has_an_end_where_it_was_given_one(make_inside, batch, is_there):
    agent = make_inside("--engine-patience", "3600").start()
    agent.agent.settings.engine_look_s = 0.15
    add_engine(agent, batch)
    if is_there:
        session = begin_there(agent, os_task("sleep 300"))
        wait_job(agent, batch, session)
    batch.fail("away")
    if not is_there:
        session = begin_there(agent, os_task("true"))
        begin_there(agent, os_task("true"))
    wait_for(lambda: "has not answered since" in agent.status(session)["message"], "the engine to be away")
    assert agent.status(session)["status"] == "RUNNING"
    agent.let_pass(3601)
    end = agent.ok("WAIT %s" % session)
    assert end["status"] == "ERROR" and "engine HPC has not answered for 3600 s" in end["message"]
    batch.fail("")


def test_a_call_that_hangs_is_ended(engines, batch, monkeypatch):
    monkeypatch.setattr(program, "ENGINE_CALL_S", 1.0)
    batch.fail("hang")
    session = begin_there(engines, os_task("true"))
    wait_for(lambda: "took over 1 s" in engines.status(session)["message"], "the call to be ended")
    batch.fail("")
    assert engines.ok("WAIT %s" % session)["status"] == "DONE"
    assert len(batch.jobs()) == 1


def test_a_submission_that_was_taken_without_an_answer_is_found(engines, batch, monkeypatch):
    monkeypatch.setattr(program, "ENGINE_CALL_S", 1.0)
    batch.fail("mute")
    session = begin_there(engines, os_task("echo once; sleep 1"))
    assert engines.ok("WAIT %s" % session)["status"] == "DONE"
    assert (len(batch.jobs()), engines.log_texts(session)) == (1, ["once"])


def test_a_spool_that_others_may_change_is_not_used(engines, batch):
    batch.spool.mkdir()
    batch.spool.chmod(0o777)
    end = exec_sync(engines, os_task("true"))
    assert end["status"] == "ERROR" and "may be written by others (chmod go-w" in end["message"], end
    assert batch.calls() == []


def test_a_spool_that_is_away_makes_tasks_wait(engines, batch, tmp_path):
    engines.import_document({"engines": [batch.definition(spool=str(tmp_path / "not" / "mounted"))]})
    session = begin_there(engines, os_task("true"))
    wait_for(lambda: "No such file or directory" in engines.status(session)["message"], "it to wait")
    assert engines.status(session)["waits_for"] == "engine"
    (tmp_path / "not").mkdir()
    assert engines.ok("WAIT %s" % session)["status"] == "DONE"


def test_a_call_that_cannot_be_ended_is_the_only_one(monkeypatch):
    calls = program.Calls(dict(os.environ), program.Bounds(), 0.2)
    monkeypatch.setattr(program, "signal_group", lambda *_: None)
    monkeypatch.setattr(program, "LEAVE_S", 0.1)
    with pytest.raises(program.NoAnswer, match="sleep took over 0.2 s"):
        calls.call(["sleep", "300"])
    with pytest.raises(program.NoAnswer, match="process [0-9]+, cannot be ended") as caught:
        calls.call(["true"])
    os.kill(int(str(caught.value).split("process ")[1].split(",")[0]), signal.SIGKILL)
    calls = wait_for(lambda: attempt(calls), "it to be gone")
    assert calls.rc == 0


def attempt(calls):
    try:
        return calls.call(["true"])
    except program.NoAnswer:
        return None


def test_the_script_runs_its_command_once_whoever_comes_again(tmp_path):
    folder = tmp_path / "it's a \"folder\""
    order = program.EngineOrder(["sh", "-c", "echo $A; exit 4"], {"A": "it's $HOME"}, {}, None)
    folder.mkdir()
    for name, text in program.make_files(order, str(folder), "/no/such").items():
        (folder / name).write_text(text)
    assert [subprocess.call(["/bin/sh", str(folder / "script")]) for _ in range(2)] == [4, 75]
    assert ((folder / "out").read_text(), (folder / "end").read_text()) == ("it's $HOME\n", "4\n")
