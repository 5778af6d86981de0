"""Between two steps of the begin and the end of a session: what another thread does just then."""
import os
import shutil
import sqlite3
import subprocess
import threading

import agent as program
import pytest

from conftest import wait_for
from support.outside import foreign_lock
from support.tasks import step

pytestmark = pytest.mark.once


def import_one(inside, name, command, **fields):
    """Imports a scenario of one os task."""
    inside.import_document({"scenarios": [dict({"name": name, "version": "1", "steps": [
        step("a", command)]}, **fields)]})


def repository_of(inside):
    return inside.agent.places.list_open()[0]


def once(function, error):
    """`function`, which raises the error at its first call."""
    errors = [error]

    def call(*arguments, **keywords):
        if errors:
            raise errors.pop()
        return function(*arguments, **keywords)
    return call


def test_the_end_is_written_before_the_begin_of_who_waits_for_its_place(make_inside, monkeypatch):
    inside = make_inside("--max-sessions", "2").start()
    import_one(inside, "S", "true", concurrency={"limit": 1})
    has_come, record_end, begin = threading.Event(), program.Session.record_end, program.Sessions.begin

    def slowly(session, on_recorded):
        if session.number == 1001:
            has_come.wait(0.5)
        record_end(session, on_recorded)

    def note_begin(sessions, connection, session, *arguments):
        try:
            return begin(sessions, connection, session, *arguments)
        finally:
            if session != 1001:
                has_come.set()
    monkeypatch.setattr(program.Session, "record_end", slowly)
    monkeypatch.setattr(program.Sessions, "begin", note_begin)
    inside.ok("EXEC S")
    inside.ok("EXEC S")
    assert [inside.ok("WAIT %d" % number)["status"] for number in (1001, 2001)] == ["DONE"] * 2
    assert "does not begin yet" not in inside.log()


def test_an_end_that_cannot_be_handed_over_costs_no_slot(make_inside, monkeypatch):
    inside = make_inside("--max-sessions", "1").start()
    monkeypatch.setattr(program.Journal, "hand_over", once(program.Journal.hand_over, MemoryError()))
    inside.ok("EXEC HELLO")
    assert inside.ok("EXEC HELLO -SYNC=60")["status"] == "DONE"
    inside.ok("CLEAN")
    assert inside.ok("WAIT 1001")["status"] == "ERROR"
    assert inside.agent.queue.counts() == (0, 0)
    inside._handler.lines.clear()       # what nobody expected is told with its place


def test_a_session_that_begins_with_its_end_is_tried_again_when_that_cannot_be_handed_over(inside, monkeypatch):
    inside.import_document({"scenarios": [{"name": "S", "version": "1", "variables": {"a": "1"}, "steps": [
        {"name": "a", "tasks": [{"type": "set", "variable": "a", "value": "2"}]}]}]})
    monkeypatch.setattr(program.Journal, "hand_over", once(program.Journal.hand_over, MemoryError()))
    assert inside.ok("EXEC S -SYNC=60")["status"] == "DONE"
    inside._handler.lines.clear()


def test_what_could_not_begin_is_read_again_when_its_number_is_free(inside, monkeypatch):
    end = inside.agent.queue.end

    def end_later(*arguments):
        if repository_of(inside).is_behind:         # its owner comes just before
            inside.agent.places.list_all()[0].look()
        end(*arguments)
    monkeypatch.setattr(inside.agent.queue, "end", end_later)
    monkeypatch.setattr(program.Sessions, "begin", once(program.Sessions.begin, program.RepositoryError("not now")))
    inside.ok("EXEC HELLO")
    wait_for(lambda: inside.status(1001)["status"] == "DONE", "it to be tried again")


def test_what_ends_in_a_locked_repository_keeps_nothing_of_another_from_beginning(make_inside, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "MAX_ENDING", 1)
    inside = make_inside("--max-sessions", "2").start()
    inside.ok("ATTACH two two.db -CREATE")
    flag = tmp_path / "go"
    for name in ("WORKREP", "two"):
        inside.import_document({"scenarios": [{"name": "S" + name, "version": "1", "steps": [
            step("a", "until test -e %s; do sleep 0.02; done" % flag)]}]}, "-REPO=" + name)
    numbers = [int(inside.ok("EXEC SWORKREP")["session"]) for _ in range(2)]
    for number in numbers:
        inside.wait_status(number, "RUNNING")
    with foreign_lock(inside.work):
        flag.write_text("")
        wait_for(lambda: inside.agent.queue._ending == 2, "their ends to be on the way")
        assert inside.ok("EXEC Stwo -SYNC=60")["status"] == "DONE"
    assert [inside.ok("WAIT %d" % number)["status"] for number in numbers] == ["DONE"] * 2


def test_a_session_that_has_no_memory_to_begin_is_tried_again(inside, monkeypatch):
    monkeypatch.setattr(program.Course, "_begin_task", once(program.Course._begin_task, MemoryError()))
    inside.ok("EXEC HELLO")
    assert inside.ok("WAIT 1001")["status"] == "DONE"
    inside._handler.lines.clear()


def test_no_memory_even_to_tell_that_there_is_none_costs_no_thread(make_inside, monkeypatch):
    inside = make_inside("--max-sessions", "1").start()
    import_one(inside, "S", "true")
    monkeypatch.setattr(program.Session, "run", once(program.Session.run, MemoryError()))
    monkeypatch.setattr(program, "tell_traceback", once(program.tell_traceback, MemoryError()))
    inside.ok("EXEC S")
    assert inside.ok("WAIT 1001")["status"] == "DONE"


def test_a_restart_amid_a_cleaning_is_not_closed_as_stale(inside, monkeypatch, tmp_path):
    flag, again = tmp_path / "go", tmp_path / "again"
    import_one(inside, "S", "test -e {1} && exec sleep 1000; until test -e {0}; do sleep 0.02; done; exit 3".format(
        flag, again))
    inside.ok("EXEC S")
    inside.wait_status(1001, "RUNNING")
    is_stale, has = program.Cleaner._is_stale, inside.agent.queue.has

    def end_before(cleaner, repository, row, host):
        flag.write_text("")
        inside.wait_status(1001, "ERROR")
        wait_for(lambda: not has(1001), "it to be forgotten")
        return is_stale(cleaner, repository, row, host)

    def restart_after(number):
        is_there = has(number)
        monkeypatch.undo()
        again.write_text("")
        inside.ok("RESTART 1001")
        inside.wait_status(1001, "RUNNING")
        return is_there
    monkeypatch.setattr(program.Cleaner, "_is_stale", end_before)
    monkeypatch.setattr(inside.agent.queue, "has", restart_after)
    inside.agent._cleaner.clean(repository_of(inside))
    assert inside.status(1001)["status"] == "RUNNING"
    inside.ok("STOP 1001 -IMMEDIATE")


def test_what_waits_in_a_file_put_in_the_place_of_another_begins_though_its_number_runs(inside, tmp_path):
    flag, copy = tmp_path / "go", tmp_path / "copy.db"
    import_one(inside, "S", "until test -e %s; do sleep 0.02; done" % flag)
    inside.ok("HOLD")
    inside.ok("EXEC S")
    before = repository_of(inside)
    copy_file(inside.work, copy)
    inside.ok("RELEASE")
    inside.wait_status(1001, "RUNNING")
    os.chmod(str(copy), 0o600)
    for suffix in ("-wal", "-shm"):
        os.unlink(str(inside.work) + suffix)
    shutil.move(str(copy), str(inside.work))
    wait_for(lambda: repository_of_or_none(inside) not in (None, before), "the new file to be attached")
    wait_for(lambda: not inside.agent.places.list_all()[0].reason, "it to be usable")
    wait_for(lambda: "is held by the agent" in inside.log(), "the copy to be held")
    inside.ok("RELEASE -REPO=WORKREP")
    flag.write_text("")
    wait_for(lambda: inside.status(1001)["status"] == "DONE", "the session of the new file to run")


def repository_of_or_none(inside):
    return next(iter(inside.agent.places.list_open()), None)


def copy_file(path, copy):
    """A copy of a repository in use, by another process: a descriptor closed here would drop SQLite's locks."""
    connection = sqlite3.connect(str(path))
    try:
        connection.execute("pragma wal_checkpoint(truncate)").fetchone()
    finally:
        connection.close()
    subprocess.check_call(["cp", str(path), str(copy)])
