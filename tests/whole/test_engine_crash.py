"""Tasks on an engine live through crashes, restarts and upgrades of the agent: found again, never made twice."""
import pytest

from conftest import is_alive, wait_for
from support.outside import change, query
from support.plans import make_plan
from support.engines import add_engine, batch, engine_scenario     # noqa: F401 (a fixture)

pytestmark = pytest.mark.once


@pytest.fixture
def hpc(make_agent, batch):
    """A whole agent with the engine, and scenario A: it notes that it runs, and ends once there is a file `go`."""
    agent = make_agent("--engine-look", "1").start()
    command = "echo ran >> '%s/ran'; echo early; until [ -e '%s/go' ]; do sleep 0.05; done; echo late; exit 3" % (
        batch.folder, batch.folder)
    add_engine(agent, batch, engine_scenario("A", {"type": "os", "command": command, "capture": "got"}, variables={"got": ""},
                                         on_stale="error"))
    return agent


def let_go(batch):
    (batch.folder / "go").touch()


def ended_well(agent, batch, session="1001"):
    """Its real exit code decides, its whole output is in the log once, and it has run once."""
    end = agent.ok("WAIT %s" % session)
    assert end["status"] == "ERROR" and "exit code 3" in end["message"], end
    assert agent.log_texts(session) == ["early", "late"]
    assert (batch.folder / "ran").read_text() == "ran\n"
    wait_for(lambda: not list(batch.spool.iterdir()), "the spool to be cleared")
    task = next(row for row in agent.rows("STATUS %s" % session) if "task" in row)
    assert (task["rc"], task["attempt"]) == ("3", "1")


def test_killed_between_the_submission_and_its_record(hpc, batch):
    batch.fail("mute")                  # it takes the job, and never says its id
    hpc.ok("EXEC A")
    wait_for(lambda: (batch.folder / "ran").exists(), "the job to run")
    hpc.kill()
    batch.fail("")
    hpc.start()
    wait_for(lambda: batch.calls("find"), "a look for its marker")
    let_go(batch)
    ended_well(hpc, batch)
    assert (len(batch.jobs()), len(batch.calls("submit"))) == (1, 1)


def test_killed_before_anything_was_submitted(hpc, batch):
    batch.fail("away")
    hpc.ok("EXEC A")
    wait_for(lambda: hpc.status("1001")["waits_for"] == "engine", "it to wait")
    hpc.kill()
    batch.fail("")
    hpc.start()
    let_go(batch)
    ended_well(hpc, batch)
    assert len(batch.jobs()) == 1


@pytest.mark.parametrize("how", ["kill", "ended meanwhile", "forgotten meanwhile", "SHUTDOWN", "SHUTDOWN -LEAVE"])
def test_it_goes_on_without_the_agent(hpc, batch, how):
    hpc.ok("EXEC A")
    wait_for(lambda: hpc.log_texts("1001") == ["early"], "its first line")
    if how.startswith("SHUTDOWN"):
        hpc.ok(how)
        assert hpc.wait() == 0
    else:
        hpc.kill()
    if "meanwhile" in how:
        let_go(batch)
        wait_for((batch.jobs()[0] / "state").exists, "its end")
    if how.startswith("forgotten"):
        batch.jobs()[0].rename(batch.spool.parent / "forgotten")
    hpc.start()
    let_go(batch)
    ended_well(hpc, batch)
    assert len(batch.calls("submit")) == 1 and not batch.calls("cancel")


def test_shutdown_immediate_cancels(hpc, batch):
    hpc.ok("EXEC A")
    pid = int(wait_for(lambda: (batch.folder / "1" / "pid").exists() and (batch.folder / "1" / "pid").read_text(), "a pid"))
    hpc.ok("SHUTDOWN -IMMEDIATE")
    assert hpc.wait() == 0 and not is_alive(pid)
    hpc.start()
    assert hpc.status("1001")["status"] == "STOPPED"


def test_a_stop_that_a_crash_cut_short_goes_on(hpc, batch):
    hpc.ok("EXEC A")
    wait_for(lambda: hpc.log_texts("1001") == ["early"], "its first line")
    batch.fail("away")
    with hpc.connect() as other:
        other.send("STOP 1001 -IMMEDIATE")
        wait_for(lambda: "has not answered" in hpc.status("1001")["message"], "the engine to be away")
        hpc.kill()
    batch.fail("")
    hpc.start()
    assert hpc.ok("WAIT 1001")["status"] == "STOPPED"
    assert batch.calls("cancel")[-1] == "cancel 1"
    wait_for(lambda: not is_alive(int((batch.folder / "1" / "pid").read_text())), "its end")


def test_a_child_of_a_plan_that_is_still_to_be_cancelled_is_run_again(hpc, batch):
    """SHUTDOWN -IMMEDIATE ends it, the engine only after the next start; its node begins again then."""
    hpc.import_document({"scenarios": [make_plan({"run": "A"})]})
    hpc.ok("EXEC P")
    wait_for(lambda: (batch.folder / "ran").exists(), "the job to run")
    batch.fail("away")
    hpc.ok("SHUTDOWN -IMMEDIATE")
    wait_for(lambda: query(hpc.work, "select 1 from session_task where engine_stop not null"), "the cancellation to be noted")
    hpc.kill()
    batch.fail("")
    hpc.start()
    wait_for(lambda: len(batch.jobs()) == 2, "it to be submitted again")
    assert batch.calls("cancel")[-1] == "cancel 1" and hpc.status("1001")["status"] == "RUNNING"
    let_go(batch)
    assert "exit code 3" in hpc.ok("WAIT 1001")["message"]
    task = [row for row in hpc.rows("STATUS 2001") if "task" in row]
    assert [row["status"] for row in task] == ["STOPPED", "ERROR"]


def test_killed_at_any_moment_each_ran_once(make_agent, batch):
    agent = make_agent("--engine-look", "1").start()
    add_engine(agent, batch, engine_scenario("A", {"type": "os", "command": "echo ${SESSION} >> '%s/ran'" % batch.folder}))
    for number in range(8):
        agent.ok("EXEC A")
    for number in range(4):
        wait_for(lambda: len(batch.jobs()) >= 2 * number, "some to be submitted")
        agent.kill()
        agent.start()
    sessions = ["%d001" % (number + 1) for number in range(8)]
    assert [agent.ok("WAIT %s" % each)["status"] for each in sessions] == ["DONE"] * 8
    assert sorted((batch.folder / "ran").read_text().split()) == sessions


def test_a_folder_that_a_crash_has_left_is_deleted(hpc, batch):
    let_go(batch)
    hpc.ok("EXEC A -SYNC")
    hpc.kill()
    hpc.start()
    wait_for(lambda: not list(batch.spool.iterdir()), "the spool to be cleared")


def test_time_outs_count_from_the_begin_whatever_agent_it_was(hpc, batch):
    """Of the session, the step and the task: all began two hours before the agent was lost."""
    task, names = {"type": "os", "command": "sleep 600"}, ("session", "step", "task")
    scenarios = [engine_scenario("X" + name, dict(task, **({"timeout": "1h"} if name == "task" else {})),
                                 **({"timeout": "1h"} if name == "session" else {})) for name in names]
    scenarios[1]["steps"][0]["timeout"] = "1h"
    add_engine(hpc, batch, *scenarios)
    sessions = [hpc.ok("EXEC X" + name)["session"] for name in names]
    wait_for(lambda: len(batch.jobs()) == 3, "them to be there")
    hpc.kill()
    change(hpc.work, *["update %s set begun=strftime('%%Y-%%m-%%dT%%H:%%M:%%fZ', begun, '-2 hours')" % table
                       for table in ("session", "session_step", "session_task")])
    hpc.start()
    assert ["time-out of the %s after 3600 s" % name in hpc.ok("WAIT %s -TIMEOUT=40" % session)["message"]
            for name, session in zip(names, sessions)] == [True] * 3
