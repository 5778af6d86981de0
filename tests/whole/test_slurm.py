"""The engine slurm on a real slurmctld of this host (support/slurm.py)."""
import subprocess

import pytest

from conftest import wait_for
from support.engines import engine_scenario, wait_there
from support.slurm import slurm         # noqa: F401 (a fixture)
from support.tasks import os_task

pytestmark = [pytest.mark.once, pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def on_slurm(make, slurm):
    agent = make("slurm", "--engine-look", "1", env=slurm.env)
    agent.import_document({"engines": [slurm.definition()]})
    return agent


def start(agent, name, *tasks, options="", **fields):
    """Asks for a session of a scenario of its own -> its number."""
    agent.import_document({"scenarios": [engine_scenario(name, *tasks, **fields)]}, "-REPLACE")
    return agent.ok("EXEC %s %s" % (name, options))["session"]


def test_how_tasks_end(on_slurm, slurm):
    well = start(on_slurm, "WELL", os_task("echo \"${v} $SLURM_JOB_PARTITION\"; echo bad >&2", capture="got"),
                 {"type": "python", "code": "import os, sys\nprint(sys.argv[1:], os.environ['VAR_got'])", "args": ["x y"]},
                 variables={"v": "it's", "got": ""})
    code = start(on_slurm, "CODE", os_task("exit 3"))
    sent = start(on_slurm, "SENT", os_task("kill -9 $$"))
    other = start(on_slurm, "OTHER", os_task("sleep 300"))
    lost = start(on_slurm, "LOST", os_task("sleep 300"))
    assert on_slurm.ok("WAIT %s" % well)["status"] == "DONE"
    assert sorted(on_slurm.log_texts(well)) == ["['x y'] it's night", "bad", "it's night"]
    assert "exit code 3" in on_slurm.ok("WAIT %s" % code)["message"]
    assert "ended by signal 9 (SIGKILL)" in on_slurm.ok("WAIT %s" % sent)["message"]
    subprocess.check_call(["scancel", wait_there(on_slurm, other)], env=dict(slurm.env))
    assert "cancelled there (CANCELLED) on engine HPC" in on_slurm.ok("WAIT %s" % other)["message"]
    wait_there(on_slurm, lost)
    slurm.ask("scontrol", "update", "nodename=" + slurm.host, "state=down", "reason=test")
    assert "its node was lost (NODE_FAIL" in on_slurm.ok("WAIT %s" % lost)["message"]
    slurm.ask("scontrol", "update", "nodename=" + slurm.host, "state=resume")
    wait_for(lambda: not list(slurm.spool.iterdir()), "the spool to be cleared")


def test_a_partition_that_there_is_not_is_a_refusal(on_slurm, slurm):
    on_slurm.import_document({"engines": [dict(slurm.definition(partition="nope"), name="OTHER")]})
    session = start(on_slurm, "REFUSED", os_task("true", engine="OTHER"))
    end = on_slurm.ok("WAIT %s" % session)
    assert end["status"] == "ERROR" and "engine OTHER refuses it" in end["message"] and "Invalid partition" in end["message"]


def test_stop_cancels_and_a_secret_is_not_shown(on_slurm, slurm):
    session = start(on_slurm, "STOPPED", os_task("sleep 300", env={"ALSO": "${word}"}), variables={"word": {"secret": True}},
                    options="word=open-sesame")
    job = wait_there(on_slurm, session)
    shown = "".join(slurm.ask(*words) for words in (
        ["scontrol", "show", "job", "-dd", job], ["scontrol", "write", "batch_script", job, "-"],
        ["squeue", "--Format=ALL", "--jobs=" + job]))
    assert ".%s.2" % session in shown and "open-sesame" not in shown
    assert on_slurm.ok("STOP %s -IMMEDIATE" % session)["status"] == "STOPPED"
    assert "CANCELLED" in slurm.ask("squeue", "--noheader", "--states=all", "--format=%T", "--jobs=" + job)


def test_killed_between_the_submission_and_its_record(on_slurm, slurm):
    ran = slurm.top / "ran"
    slurm.wrap("sbatch", '"$REAL" "$@" >/dev/null; exec sleep 100')
    session = start(on_slurm, "CUT", os_task("echo ran >> '%s'; sleep 3; echo end" % ran))
    wait_for(ran.exists, "it to run")
    on_slurm.kill()
    slurm.wrap("sbatch", "")
    on_slurm.start()
    assert on_slurm.ok("WAIT %s" % session)["status"] == "DONE"
    assert (on_slurm.log_texts(session), ran.read_text()) == (["end"], "ran\n")


def test_what_slurm_has_forgotten_is_in_the_spool(on_slurm, slurm):
    go = slurm.top / "go"
    session = start(on_slurm, "FORGOTTEN", os_task("echo out; until [ -e '%s' ]; do sleep 0.1; done; exit 5" % go))
    job = wait_there(on_slurm, session)
    on_slurm.kill()
    go.touch()
    wait_for(lambda: slurm.ask("squeue", "--noheader", "--format=%i") == "", "its end")
    slurm.stop("slurmctld")
    slurm.start_controller("-c")
    assert job not in slurm.ask("squeue", "--noheader", "--states=all", "--format=%i")
    on_slurm.start()
    end = on_slurm.ok("WAIT %s" % session)
    assert end["status"] == "ERROR" and "exit code 5" in end["message"]
    assert on_slurm.log_texts(session) == ["out"]


def test_tasks_wait_for_a_controller_that_is_away(on_slurm, slurm):
    go = slurm.top / "go on"
    running = start(on_slurm, "RUNS", os_task("until [ -e '%s' ]; do sleep 0.1; done; echo it went on" % go))
    wait_there(on_slurm, running)
    slurm.stop("slurmctld")
    go.touch()
    session = start(on_slurm, "WAITS", os_task("echo at last"))
    row = wait_for(lambda: "Unable to contact" in on_slurm.status(session)["message"] and on_slurm.status(session))
    assert (row["status"], row["waits_for"]) == ("RUNNING", "engine")
    slurm.start_controller()
    assert on_slurm.ok("WAIT %s" % session)["status"] == "DONE"
    assert on_slurm.log_texts(session) == ["at last"]
    assert on_slurm.ok("WAIT %s" % running)["status"] == "DONE"
