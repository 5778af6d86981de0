"""HOLD -REPO and RELEASE -REPO, and copies of repositories, which are held until somebody says that they go on."""
import os
import shutil
import subprocess

import pytest

import agent as program
from conftest import wait_for
from support.outside import change, query


def copy_of(path, target):
    """A copy of a repository that nobody has open, under another inode."""
    shutil.copy(str(path), str(target))
    os.chmod(str(target), 0o600)


def put_copy(path):
    """A copy takes the place of a repository that nobody has open."""
    copy_of(path, str(path) + ".copy")
    os.rename(str(path) + ".copy", str(path))


def held_line(agent):
    """What REPOS says of the first repository."""
    return agent.rows("REPOS")[0]["message"]


# -- HOLD -REPO ------------------------------------------------------------------------

def test_a_held_repository_begins_nothing_and_the_others_go_on(inside):
    inside.ok("ATTACH two two.db -CREATE")
    failed = inside.ok("EXEC HELLO -REPO=two -AT=2099-01-01")["session"]
    inside.ok("STOP %s" % failed)
    assert inside.ok("HOLD maintenance -REPO=two") == {"repository": "two", "hold": "yes"}
    ping = inside.ok("PING")
    assert (ping["hold"], ping["status"]) == ("no", "READY")
    made = inside.ok("EXEC HELLO -REPO=two")
    assert (made["status"], made["waits_for"]) == ("WAITING", "hold")
    assert "held by test since " in made["message"] and made["message"].endswith(": maintenance")
    again = inside.ok("RESTART %s" % failed)
    assert (again["status"], again["waits_for"]) == ("WAITING", "hold")
    assert inside.ok("EXEC HELLO -SYNC -REPO=WORKREP")["status"] == "DONE"
    row = inside.status(made["session"])
    assert (row["status"], row["waits_for"], row["message"]) == ("WAITING", "hold", made["message"])
    assert [row["message"].startswith("held by test since ") for row in inside.rows("REPOS")] == [False, True]
    assert any(line.endswith("agent_repositories_held 1") for line in inside.ask("METRICS"))
    assert inside.ok("PING")["queued"] == "2"
    assert inside.ok("RELEASE -REPO=two") == {"repository": "two", "hold": "no"}
    for session in (made["session"], failed):
        inside.wait_status(session, "DONE")
    assert inside.err("HOLD -REPO=three") == inside.err("RELEASE -REPO=three") == "NOT_FOUND"
    assert inside.err("HOLD -REPO=two -UNTIL=2001-01-01") == "BAD_REQUEST"


def test_the_hold_of_a_repository_is_kept_over_restarts_and_in_its_file(make_inside):
    inside = make_inside().start()
    inside.ok("HOLD why -REPO=WORKREP -UNTIL=2099-01-01T00:00:00Z")
    session = inside.ok("EXEC HELLO")["session"]
    inside.stop()
    assert query(inside.work, "select hold_reason, hold_by, hold_until from repository") == [
        ("why", "test", "2099-01-01T00:00:00.000Z")]
    inside.start()
    assert inside.status(session)["waits_for"] == "hold" and "until 2099-01-0" in held_line(inside)
    inside.ok("RELEASE -REPO=WORKREP")
    inside.wait_status(session, "DONE")


def test_the_hold_of_a_repository_ends_by_itself(inside):
    inside.ok("HOLD -REPO=WORKREP -UNTIL=+1h")
    session = inside.ok("EXEC HELLO")["session"]
    inside.let_pass(1800)
    assert inside.status(session)["status"] == "WAITING"
    inside.let_pass(1801)
    inside.wait_status(session, "DONE")
    assert held_line(inside) == ""
    assert inside.rows("AUDIT -VERB=RELEASE")[0]["object"] == "-REPO=WORKREP"


def test_what_runs_goes_on_and_what_waits_is_released_by_the_last_hold(inside):
    flag = inside.folder / "go"
    inside.import_os("W", "until [ -e %s ]; do sleep 0.02; done" % flag)
    running = inside.ok("EXEC W")["session"]
    inside.wait_status(running, "RUNNING")
    inside.ok("HOLD -REPO=WORKREP")
    inside.ok("HOLD")
    session = inside.ok("EXEC HELLO")["session"]
    flag.write_text("")
    inside.wait_status(running, "DONE")
    inside.ok("RELEASE")
    assert inside.status(session)["message"].startswith("repository WORKREP is held by test")
    assert inside.ok("PING")["queued"] == "1"
    inside.ok("RELEASE -REPO=WORKREP")
    inside.wait_status(session, "DONE")


def test_the_hold_of_a_schedule_with_repo_stays_the_schedules(inside):
    inside.ok("SCHED ADD S HELLO 001 GLOBAL 'every 1h'")
    assert inside.ok("HOLD -SCHEDULE=S -REPO=WORKREP") == {"schedule": "S", "hold": "yes"}
    assert inside.ok("EXEC HELLO -SYNC")["status"] == "DONE" and held_line(inside) == ""


@pytest.mark.parametrize("misfire, count", [("once", 1), ("skip", 0), ("all", 3)])
def test_due_times_are_decided_at_the_release_by_their_misfire(inside, misfire, count):
    inside.ok("SCHED ADD S HELLO 001 GLOBAL 'every 1h' -MISFIRE=%s -OVERLAP=parallel" % misfire)
    inside.ok("HOLD -REPO=WORKREP")
    inside.let_pass(3 * 3600)
    assert not inside.rows("SCHED WHY S") and not inside.rows("SESSIONS -SCHEDULE=S")
    assert "held since" in inside.ask("SCHED WHY S")[-1]
    assert all("held since" in row["note"] for row in inside.rows("SCHED NEXT S -COUNT=2"))
    inside.ok("RELEASE -REPO=WORKREP")
    inside.let_pass(0)
    wait_for(lambda: sum(int(row["count"]) for row in inside.rows("SCHED WHY S")) == 3, "all to be decided")
    rows = inside.rows("SCHED WHY S")
    assert len([row for row in rows if row["session"]]) == count
    assert {row["reason"] for row in rows if not row["session"]} <= {"hold"}
    inside.let_pass(3600)
    wait_for(lambda: len([row for row in inside.rows("SCHED WHY S") if row["session"]]) == count + 1,
             "the next to fire")


def test_another_agent_on_the_same_file_follows(make_inside):
    first, second = make_inside().start(), make_inside("--name", "SECOND").start()
    first.ok("HOLD -REPO=WORKREP")
    wait_for(lambda: "held by test" in held_line(second), "the other to see it")
    session = second.ok("EXEC HELLO")["session"]
    assert second.status(session)["waits_for"] == "hold"
    first.ok("RELEASE -REPO=WORKREP")
    second.wait_status(session, "DONE")


# -- copies ----------------------------------------------------------------------------

def test_a_copy_in_the_place_of_the_file_is_held_and_not_cleaned(make_inside):
    inside = make_inside().start()
    inside.import_os("NAP", "sleep 1000")
    outstanding = inside.ok("EXEC HELLO -AT=+1h")["session"]
    inside.ok("SCHED ADD S HELLO 001 GLOBAL 'every 1h'")
    inside.stop()
    change(inside.work, "update session set start_at=null, status='QUEUED'",
           "insert into session(id, agent, scenario, version, definition, context, status, created, begun, variables,"
           " given, ran_by) select 2001, agent, scenario, version, definition, context, 'RUNNING', created, created,"
           " variables, given, 'a/b/c/1/d/e' from session")
    put_copy(inside.work)
    program.WorkRepository(1, "W", str(inside.work), program.Clock()).open().db.close()     # --import: at no place
    inside.start()
    assert "held by the agent since " in held_line(inside)
    assert ": copy: it is not the file that was used last" in held_line(inside)
    assert "repository WORKREP is held by the agent" in inside.log()
    assert inside.ok("CLEAN -HOST=a") == {"cleaned": "0"}
    assert inside.ask("STOP 2001")[0].endswith("; RELEASE -REPO=WORKREP mends that")
    inside.let_pass(7200)
    assert inside.status(2001)["status"] == "RUNNING" and not inside.rows("SCHED WHY S")
    row = inside.wait_status(outstanding, "WAITING")
    assert row["waits_for"] == "hold" and "copy: " in row["message"]
    assert inside.ok("EXEC HELLO")["waits_for"] == "hold"
    inside.stop()
    inside.start()
    assert "copy: " in held_line(inside), "a restart is no release"
    inside.ok("RELEASE -REPO=WORKREP")
    inside.wait_status(outstanding, "DONE")
    assert inside.ok("CLEAN -HOST=a") == {"cleaned": "1"}
    inside.let_pass(0)
    wait_for(lambda: inside.rows("SCHED WHY S"), "what came due to be decided")
    inside.stop()
    inside.start()
    assert held_line(inside) == "", "it goes on here"


def test_a_copy_on_another_host_is_held(make_inside):
    inside = make_inside("--host-id", "one").start()
    inside.stop()
    other = make_inside("--host-id", "two").start()
    assert "it was used last on host one, and this is host two" in held_line(other)
    other.ok("RELEASE -REPO=WORKREP")
    assert held_line(other) == ""
    other.stop()
    inside.start()
    assert "it was used last on host two, and this is host one" in held_line(inside)


def test_a_hold_of_the_operators_over_a_copy_leaves_it_a_copy(make_inside):
    inside = make_inside().start()
    inside.stop()
    put_copy(inside.work)
    inside.start()
    inside.ok("HOLD mine -REPO=WORKREP -UNTIL=+1h")
    assert "copy: " in held_line(inside)
    inside.let_pass(3601)
    assert "copy: " in held_line(inside)
    inside.ok("RELEASE -REPO=WORKREP")
    assert held_line(inside) == "" and inside.ok("EXEC HELLO -SYNC")["status"] == "DONE"


def test_a_file_that_moves_or_was_never_noted_is_no_copy(make_inside, tmp_path):
    inside = make_inside(folder="a").start()
    inside.stop()
    os.rename(str(inside.folder), str(tmp_path / "b"))
    moved = make_inside(folder="b").start()
    assert held_line(moved) == ""
    moved.stop()
    change(moved.work, "update repository set host=null, boot=null, device=null, inode=null")
    put_copy(moved.work)
    moved.start()
    assert held_line(moved) == ""
    wait_for(lambda: query(moved.work, "select inode from repository") == [(str(moved.work.stat().st_ino),)],
             "its place to be noted")


def test_a_restore_by_cp_over_the_file_keeps_it(make_inside):
    inside = make_inside().start()
    inside.stop()
    shutil.copy(str(inside.work), str(inside.folder / "kept.db"))
    inside.start()
    inside.stop()
    subprocess.check_call(["cp", str(inside.folder / "kept.db"), str(inside.work)])
    inside.start()
    assert held_line(inside) == ""


@pytest.mark.parametrize("noted, is_copy", [
    (("here", "boot/1", "7", "9"), False), (("there", "boot/1", "7", "9"), True), (("here", "boot/1", "7", "8"), True),
    (("here", "boot/1", "6", "9"), True), (("here", "before/1", "6", "9"), False),
    (("here", "boot/2", "6", "9"), False),
    (("here", "before/1", "7", "8"), True)])
def test_where_a_file_is_a_copy(noted, is_copy):
    """A device may have another number after a boot, and in a container that was started again."""
    reason = program.tell_move(program.Spot(*noted), program.Spot("here", "boot/1", "7", "9"))
    assert bool(reason) == is_copy


def test_another_number_of_the_device_after_a_boot_is_noted(make_inside):
    inside = make_inside().start()
    inside.stop()
    change(inside.work, "update repository set boot='before', device='1'")
    inside.start()
    assert held_line(inside) == ""
    wait_for(lambda: query(inside.work, "select device from repository") == [(str(inside.work.stat().st_dev),)],
             "it to be noted")


def test_the_uuid_of_what_is_attached_is_not_attached_again(inside):
    inside.ok("BACKUP kept")
    last = inside.ask("ATTACH again kept/1-WORKREP.db")[-1]
    assert last.startswith("ERR CONFLICT ") and "is a copy of a work repository that is attached" in last
    assert inside.ok("PING")["repositories"] == "1/1" and inside.ok("EXEC HELLO -SYNC")["status"] == "DONE"


def test_a_copy_that_is_attached_beside_another_master_is_held(make_inside):
    inside, other = make_inside(folder="a").start(), make_inside(folder="b").start()
    inside.ok("ATTACH two two.db -CREATE")
    inside.ok("EXEC HELLO -REPO=two -AT=+1h")
    inside.ok("BACKUP kept")
    copy_of(inside.folder / "kept" / "2-two.db", other.folder / "two.db")
    assert other.ok("ATTACH two two.db")["id"] == "2"
    assert "copy: it is not the file that was used last" in other.rows("REPOS")[1]["message"]
    other.let_pass(3601)
    assert other.status(1002)["waits_for"] == "hold"
