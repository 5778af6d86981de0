"""An agent that runs for months holds no more than it needs: nothing is kept that nobody uses, and nothing waits for a
full search for garbage."""
import collections
import gc
import re
import tracemalloc

import pytest

import agent as program
from conftest import wait_for
from support.outside import change

VALUE = "x" * 60000
DOING = {"name": "main", "tasks": [{"type": "os", "command": "echo a"}]}


@pytest.fixture
def with_ends(inside):
    """An agent with scenarios that end in each way."""
    def scenario(name, *tasks, **fields):
        return dict({"name": name, "version": "1", "steps": [{"name": "main", "tasks": list(tasks)}]}, **fields)
    inside.import_document({
        "data_servers": [{"name": "FILE", "driver": "sqlite3", "database": str(inside.folder / "data.db")}],
        "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "FILE"}}],
        "scenarios": [
            scenario("GOOD", {"type": "os", "command": "echo a"}),
            scenario("BAD", {"type": "os", "command": "exit 1"}),
            scenario("CALL", {"type": "scenario", "name": "GOOD"}),
            scenario("KEPT", {"type": "os", "command": "echo a"}, on_stale="adopt"),
            scenario("SQL", {"type": "sql", "schema": "DWH", "statement": "select 1"}),
            scenario("NO_SQL", {"type": "sql", "schema": "DWH", "statement": "selec 1"}),
            scenario("NO_TIME", {"type": "os", "command": "sleep 100"}, timeout=0.2),
            scenario("NO_TIME_LEFT", {"type": "scenario", "name": "NO_TIME"}, timeout=0.1)]})
    return inside


def replace(agent, number):
    """IMPORT of another definition of the same scenario, some 60 KB."""
    agent.import_document({"scenarios": [{"name": "LONG", "version": "1", "steps": [DOING],
                                          "variables": {"v": VALUE, "n": str(number)}}]}, "-REPLACE")


WORK = {
    "sessions": lambda agent: [agent.ok("EXEC %s -SYNC" % name) for name in ("GOOD", "BAD", "CALL", "KEPT", "SQL")],
    "errors in SQL": lambda agent: agent.ok("EXEC NO_SQL -SYNC"),
    "time-outs": lambda agent: [agent.ok("EXEC %s -SYNC" % name) for name in ("NO_TIME", "NO_TIME_LEFT")],
    "refusals": lambda agent: [agent.err(line) for line in (
        "EXEC NONE", "EXEC GOOD x=1", "STOP 1", "LOG 1", "DROP NONE 1", "SCHED DEL NONE", "RESTART 1", "NO")],
    "waiting": lambda agent: agent.ok("STOP %s" % agent.ok("EXEC GOOD -AT=2099-01-01")["session"]),
    "listings": lambda agent: [agent.rows(line) for line in ("SESSIONS", "SCENARIOS", "SCHED LIST", "SCHED PLAN")],
    "imports": lambda agent: replace(agent, 1),
    "faulty imports": lambda agent: agent.err("IMPORT '{\"scenarios\": [{}]}'"),
}


@pytest.mark.parametrize("what", sorted(WORK))
def test_nothing_waits_for_a_search_for_garbage(with_ends, what):
    WORK[what](with_ends)                       # what is made once is made now
    wait_for(lambda: with_ends.ok("PING")["running"] == "0", "all to have ended")
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        WORK[what](with_ends)
        wait_for(lambda: with_ends.ok("PING")["running"] == "0", "all to have ended")
        gc.collect()
        own = collections.Counter(type(each).__name__ for each in gc.garbage if type(each).__module__ == "agent")
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not own


@pytest.mark.skipif(not hasattr(gc, "freeze"), reason="this Python has no gc.freeze")
def test_a_reading_of_the_schedules_sets_nothing_aside(with_ends):
    """What is set aside is never searched for garbage; at each commit of another program it would become more."""
    with_ends.ok('SCHED ADD S HELLO -1 GLOBAL "daily at 02:00"')
    place, = with_ends.agent.places.list_all()
    before = gc.get_freeze_count()
    for number in range(5):
        change(with_ends.work, "update schedule set rule='daily at 02:0%d'" % number)
        with_ends.ok("SCHED UPDATE")
        place.attach()
    assert gc.get_freeze_count() == before


def test_many_schedules_that_are_read_are_set_aside_once():
    if hasattr(gc, "freeze"):
        with program.uncollected(program.MANY_SCHEDULES):
            assert not gc.isenabled()
        first = gc.get_freeze_count()
        rows = [[] for _ in range(10000)]
        with program.uncollected(program.MANY_SCHEDULES):
            rows.clear()
        assert gc.isenabled() and gc.get_freeze_count() < first + 5000
        gc.unfreeze()


def test_a_few_among_many_schedules_hold_up_nobody_to_look_for_garbage():
    if hasattr(gc, "freeze"):
        before = gc.get_freeze_count()
        with program.uncollected(program.MANY_SCHEDULES, 10 * program.MANY_SCHEDULES):
            assert gc.isenabled()
        assert gc.get_freeze_count() == before


def test_definitions_that_nobody_uses_are_forgotten(with_ends):
    for number in range(60):
        replace(with_ends, number)
        if number % 20 == 0:
            with_ends.ok("EXEC LONG -SYNC")
    gc.collect()
    kept = [each for each in gc.get_objects() if type(each) is program.Scenario and each.name == "LONG"]
    assert len(kept) <= 2 * (program.KEPT_BODIES // len(VALUE) + 2)


def test_a_look_for_spools_keeps_nothing(tmp_path):
    """A pattern of files that Python has compiled stays; each session would have its own."""
    def count():
        return sum(type(each) is type(re.compile("a")) for each in gc.get_objects())
    spools, before = program.Spools(str(tmp_path / "work.db")), count()
    for number in range(50):
        assert spools.find(number, 1) is None
    assert count() - before < 25


def test_sessions_that_wait_are_not_read_again_when_another_program_has_written(with_ends):
    count = 2000
    change(with_ends.work, (
        "with recursive n(n) as (select 100 union all select n + 1 from n where n < ?) insert into session(id, agent,"
        " scenario, version, definition, context, status, created, start_at, variables, given) select n * 1000 + 1,"
        " 'AGENT', 'GOOD', '1', (select definition from scenario where name='GOOD'), 'GLOBAL', 'WAITING',"
        " '2026-01-01T00:00:00.000Z', '2099-01-01T00:00:00.000Z', '{}', '{}' from n", (99 + count,)))
    place, = with_ends.agent.places.list_all()
    wait_for(lambda: with_ends.ok("PING")["queued"] == str(count), "the sessions to be read")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        place.attach()
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 300 * count, (size, peak)


def test_a_stopped_session_with_a_start_time_leaves_no_event_behind(with_ends):
    scheduler = with_ends.agent.schedules.scheduler
    numbers = [with_ends.ok("EXEC GOOD -AT=2099-01-01")["session"] for _ in range(3)]

    def count_calls():
        return sum(event.action is not scheduler._look for event in scheduler._events.queue)
    assert count_calls() == 3
    for number in numbers[:2]:
        with_ends.ok("STOP %s" % number)
    scheduler._forget_outdated()            # as tick() does when there are many
    assert count_calls() == 1 and with_ends.status(numbers[2])["status"] == "WAITING"
