"""Schedules that are held, broken or changed from outside, and old files: each costs the others nothing."""
import json
import os
import sqlite3
import time
from contextlib import closing

import pytest

import agent
from agent import Clock, Database, WorkRepository, to_text
from conftest import sessions_of, wait_for
from support.outside import change

pytestmark = pytest.mark.once

QUICK = {"name": "QUICK", "version": "1", "variables": {"v": "1"},
         "steps": [{"name": "a", "tasks": [{"type": "set", "variable": "v", "value": "2"}]}]}


def wait_rows(running, name, decision, count=1):
    """Waits for occurrences of a schedule with this decision -> them, newest first."""
    def found():
        rows = [row for row in running.rows("SCHED WHY %s -LIMIT=1000" % name) if row["decision"] == decision]
        return len(rows) >= count and rows
    return wait_for(found, "%d %s of %s" % (count, decision, name))


def start_busy(make_agent):
    """An agent with a session of schedule H that runs, and one that waits for its end."""
    running = make_agent().start()
    running.import_os("NAP", "sleep 1000")
    running.ok('SCHED ADD H NAP -1 GLOBAL "every 1s"')
    wait_for(lambda: len(sessions_of(running, "H")) == 2, "one that runs and one that waits")
    return running


# -- held ------------------------------------------------------------------------------

def test_what_a_held_schedule_has_waiting_waits_over_a_restart_too(make_agent):
    running = start_busy(make_agent)
    running.ok('HOLD "look first" -SCHEDULE=H')
    held = sessions_of(running, "H")[-1]["session"]
    running.kill()
    running.start()
    running.ok("EXEC HELLO -SYNC")                  # others begin, and have had the time
    time.sleep(1)
    assert running.status(held)["status"] in ("QUEUED", "WAITING")
    row, = running.rows("SCHED LIST")
    assert (row["hold"], row["hold_reason"]) == ("yes", "look first")
    running.ok("RELEASE -SCHEDULE=H")
    running.wait_status(held, "RUNNING")


def test_a_held_schedule_that_is_deleted_lets_go_of_its_session(make_agent):
    running = start_busy(make_agent)
    running.ok("HOLD -SCHEDULE=H -REPO=WORKREP")
    runs, waiting = [row["session"] for row in sessions_of(running, "H")]
    running.ok("SCHED DEL H")
    running.ok("STOP %s -IMMEDIATE" % runs)
    running.wait_status(waiting, "RUNNING")


def test_two_schedules_of_one_name_are_held_by_their_repository(make_agent):
    running = make_agent().start()
    running.ok("ATTACH SECOND second.db -CREATE")
    for repository in ("WORKREP", "SECOND"):
        running.ok('SCHED ADD X HELLO -1 GLOBAL "daily at 02:00" -REPO=%s' % repository)
    running.ok("HOLD -SCHEDULE=X -REPO=SECOND")
    assert [(row["repository"], row["hold"]) for row in running.rows("SCHED LIST")] == [
        ("WORKREP", "no"), ("SECOND", "yes")]
    running.ok("RELEASE -SCHEDULE=X -REPO=SECOND")
    assert [row["hold"] for row in running.rows("SCHED LIST")] == ["no", "no"]


# -- broken ----------------------------------------------------------------------------

def test_off_works_whatever_else_is_wrong(make_agent):
    running = make_agent().start()
    running.import_document({"scenarios": [QUICK]})
    running.ok('SCHED ADD V QUICK -1 GLOBAL "every 1s" v=9')
    running.import_document({"scenarios": [dict(QUICK, version="2", variables={"other": "1"}, steps=[
        {"name": "a", "tasks": [{"type": "sleep", "seconds": 0}]}])]})
    row = wait_rows(running, "V", "failed")[0]
    assert "no variable of that name" in row["message"]
    assert running.err("SCHED SET V -PRIORITY=3") == "BAD_REQUEST"
    running.ok("SCHED OFF V")
    assert running.rows("SCHED LIST")[0]["enabled"] == "no"
    assert running.err("SCHED ON V") == "BAD_REQUEST"


SPOILT = (("decided", ""), ("decided", "yesterday"), ("hold_since", "x"), ("options", "{"), ("options", "[]"),
          ("options", '{"foo": 1}'), ("variables", "3"), ("rule", "sometimes"), ("timezone", "Mars/Olympus"))


def test_rows_that_another_program_has_spoilt_cost_the_others_nothing(make_agent):
    running = make_agent().start()
    running.import_document({"scenarios": [QUICK]})
    names = ["SPOILT%d" % number for number in range(len(SPOILT))]
    for name in names + ["GOOD"]:
        running.ok('SCHED ADD %s QUICK -1 GLOBAL "every 1s" -OVERLAP=parallel' % name)
    change(running.work, *("update schedule set %s='%s', revision=revision+1 where name='%s'" % (column, value, name)
                     for name, (column, value) in zip(names, SPOILT)))
    running.stop()
    running.start()
    before = len(wait_rows(running, "GOOD", "started"))
    wait_rows(running, "GOOD", "started", before + 2)
    for name, spoilt in zip(names, SPOILT):
        assert "does not fire" in wait_rows(running, name, "failed")[0]["message"], spoilt
        for request in ("SCHED WHY %s", "SCHED SHOW %s", "SCHED NEXT %s"):
            assert "INTERNAL" not in running.ask(request % name)[-1], (request, spoilt)
    for request in ("SCHED LIST", "SCHED WHY", "SCHED NEXT", "SCHED PLAN", "SCHED UPDATE", "EXPORT"):
        assert "INTERNAL" not in running.ask(request)[-1], request
    for name in names:
        running.ok("SCHED DEL " + name)


def test_the_time_as_sqlite_writes_it_is_one(make_agent):
    running = make_agent().start()
    running.import_document({"scenarios": [QUICK]})
    running.ok('SCHED ADD S QUICK -1 GLOBAL "every 1s" -OVERLAP=parallel')
    change(running.work, "update schedule set decided=datetime('now'), revision=revision+1")
    running.ok("SCHED UPDATE")
    before = len(wait_rows(running, "S", "started"))
    wait_rows(running, "S", "started", before + 2)


@pytest.mark.parametrize("words, told", [
    ("", "RULE is missing"), ("''", "RULE is missing"), ('"startup" -HOURS=08:00-18:00', "hours"), ('"@reboot" -JITTER=60', "jitter"),
    ('"startup" -FROM=2030-01-01', "from"), ("-AFTER=,", "names nothing"),
    ('"daily at 02:00" -REPEAT_EVERY=1h -REPEAT_FOR=30m', "shorter"),
    ('"daily at 02:00" -REPEAT_EVERY=20000d -REPEAT_COUNT=2', "at most"),
    ('"daily at 02:00" -FROM=2026-12-01T00:00+99:99', "from"), ('"cron ? * * * *"', "'?'"),
    ('"cron 1,,2 * * * *"', "minute"), ('"cron 0 0 * * 5#6"', "week day"),
    ('"at 2030-01-01 02:00" -TO=2029-01-01', "within its to")])
def test_what_could_never_be_meant_is_refused(shared, words, told):
    *_, last = shared.ask("SCHED ADD N HELLO -1 GLOBAL " + words)
    assert last.startswith("ERR BAD_REQUEST") and told in last, last
    assert shared.rows("SCHED LIST") == []


def test_schedules_that_wait_for_each_other_are_refused(shared):
    shared.ok('SCHED ADD A HELLO -1 GLOBAL "every 1h"')
    shared.ok("SCHED ADD B HELLO -1 GLOBAL -AFTER=A")
    assert shared.err("SCHED SET A -AFTER=B") == "CONFLICT"
    lines = shared.ask("IMPORT '%s'" % json.dumps({"schedules": [
        {"name": "X", "scenario": "HELLO", "rule": "every 1h", "after": "Y"},
        {"name": "Y", "scenario": "HELLO", "rule": "every 1h", "after": "X"}]}))
    assert lines[-1].startswith("ERR BAD_REQUEST") and "schedules[0].after" in lines[0]
    for name in "BA":
        shared.ok("SCHED DEL " + name)


@pytest.mark.parametrize("dates", [",", "2026-02-30", "2026-05-02..2026-05-01", "X", "''"])
def test_a_calendar_has_dates(shared, dates):
    assert shared.err("CALENDAR ADD NONE " + dates) == "BAD_REQUEST"
    assert shared.rows("CALENDAR LIST") == []


def test_dates_of_a_calendar_may_have_blanks_between(shared):
    shared.ok('CALENDAR ADD TWO "2026-01-01, 2026-02-01"')
    assert shared.rows("CALENDAR LIST") == [{"calendar": "TWO", "dates": "2026-01-01,2026-02-01"}]
    shared.ok("CALENDAR DEL TWO")


def test_a_repository_that_is_gone_leaves_the_others_lines(make_agent):
    running = make_agent().start()
    running.ok("ATTACH SECOND second.db -CREATE")
    running.ok('SCHED ADD HERE HELLO -1 GLOBAL "daily at 02:00" -REPO=WORKREP')
    running.ok('SCHED ADD THERE HELLO -1 GLOBAL "daily at 02:00" -REPO=SECOND')
    os.rename(str(running.folder / "second.db"), str(running.folder / "moved.db"))
    wait_for(lambda: running.ok("PING")["status"] == "DEGRADED", "the repository to be missed")
    for request in ("SCHED LIST", "SCHED NEXT", "SCHED WHY", "SCHED PLAN -ALL"):
        *lines, last = running.ask(request)
        assert last.startswith("ERR REPOSITORY"), (request, last)
        assert request == "SCHED WHY" or any("HERE" in line for line in lines), (request, lines)
    *lines, last = running.ask("SCHED SHOW HERE")
    assert last == "OK" and len(lines) == 1
    assert running.err("SCHED SHOW THERE") == "REPOSITORY"


# -- cost and old files ----------------------------------------------------------------

def test_a_due_time_costs_the_same_whatever_has_run_before(tmp_path):
    """Counted in steps of SQLite's machine, not in time."""
    path = str(tmp_path / "work.db")
    repository = WorkRepository.create(1, "W", path, Clock())
    now = 1780315200.0

    def decide(connection, second):
        steps = []
        connection.set_progress_handler(lambda: steps.append(1) and None, 100)
        due = 1780315200.0 + second
        row = repository.schedules.find(connection, "S")
        made = repository.decisions.decide(connection, "S", row["revision"], due, [agent.Span(due, due, 1, "")], due, False)
        connection.set_progress_handler(None, 0)
        for ticket in [each.ticket for each in made]:
            connection.execute("update session set status='DONE', ended=? where id=?", (to_text(due), ticket.session))
        return len(steps)

    def work(connection):
        repository.schedules.put(connection, agent.Schedule("S", "AGENT", "HELLO", "-1", "GLOBAL", "every 1s", "UTC",
                                                           True, {}), now)
        few = [decide(connection, second) for second in range(1, 6)][-1]
        for second in range(6, 3000):
            decide(connection, second)
        return few, decide(connection, 3000)
    few, many = repository.db.write(work, within_s=60)
    repository.db.close()
    assert many <= few + 5, (few, many)


def test_an_older_file_is_migrated_after_a_whole_copy(tmp_path):
    path = str(tmp_path / "work.db")
    agent.make_private(path)
    old = Database(path, "work", "old", agent.WORK_MIGRATIONS[:1], Clock()).open()
    old.write(lambda connection: connection.execute(
        "insert into schedule(name, agent, scenario, version, context, rule, timezone, enabled, variables, created,"
        " revision, decided) values ('S', 'AGENT', 'HELLO', '-1', 'GLOBAL', 'every 1h', '', 1, '{}', ?, 1, ?)",
        (to_text(0), to_text(0))))
    old.close()
    with open(path + ".v1.part", "w") as file:      # a copy that a crash cut short
        file.write("half a copy")
    for _ in range(2):
        new = Database(path, "work", "new", agent.WORK_MIGRATIONS, Clock()).open()
        with new.reading() as connection:
            row = connection.execute("select * from schedule").fetchone()
            assert (row["name"], row["options"], row["waiting"]) == ("S", "{}", None)
        new.close()
    with closing(sqlite3.connect(path + ".v1")) as copy:
        assert copy.execute("pragma user_version").fetchone()[0] == 1
        assert copy.execute("select name, rule from schedule").fetchall() == [("S", "every 1h")]
        assert copy.execute("pragma integrity_check").fetchone()[0] == "ok"
    assert os.stat(path + ".v1").st_mode & 0o777 == 0o600
    assert sorted(os.listdir(str(tmp_path))) == ["work.db", "work.db.v1"]
    os.rename(path + ".v1", path)                   # back, and forth again: both copies stay
    with open(path + ".v1", "w") as file:
        file.write("another")
    Database(path, "work", "again", agent.WORK_MIGRATIONS, Clock()).open().close()
    with open(path + ".v1") as file:
        assert file.read() == "another"
    with closing(sqlite3.connect(path + ".v1.2")) as copy:
        assert copy.execute("select name from schedule").fetchall() == [("S",)]


def test_a_copy_without_the_online_backup(tmp_path):
    """As under Python 3.6: what the copy holds is the same."""
    class Plain:
        """A connection without backup()."""

        def __init__(self, connection):
            self.execute, self.iterdump = connection.execute, connection.iterdump
    path = str(tmp_path / "work.db")
    repository = WorkRepository.create(1, "W", path, Clock())
    repository.db.write(lambda connection: repository.arrivals.add(
        connection, agent.SessionRequest("HELLO", "AGENT", variables={"who": "it's \u00e9 \n \"x\""}), 0.0))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        agent._copy_beside(Plain(connection), path, 2)
        with closing(sqlite3.connect(path + ".v2")) as copy:
            for table in ("session", "scenario", "definition", "repository", "sqlite_master"):
                query = "select * from %s" % table if table != "sqlite_master" else \
                    "select type, name, sql from sqlite_master where sql not null order by name"
                assert copy.execute(query).fetchall() == connection.execute(query).fetchall(), table
            assert copy.execute("pragma user_version").fetchone()[0] == 2
    repository.db.close()
