"""Each due time once, whatever comes between: kill -9, pauses, changes by requests and by other programs.

Rules are due each second or two, so a test of seconds has many due times; the machine may be slow: what is
checked is that none is lost or doubled, never how fast it came.
"""
import collections
import random
import signal
import subprocess
import sys
import time

import pytest

from agent import make_timetable
from conftest import LIMIT_S, ahead, sessions_of, wait_for, why
from support.ledger import check_ledger, import_schedules, rule_at, seconds_of, wait_decided
from support.outside import foreign_lock

pytestmark = pytest.mark.once

OPEN = "SESSIONS -STATUS=WAITING,QUEUED,RUNNING -LIMIT=1"


def import_tasks(agent):
    """TICK, which costs little, BAD, which fails, and MARK, which leaves a line."""
    agent.import_os("MARK", "echo $SESSION >> marks")
    agent.import_document({"scenarios": [
        {"name": name, "version": "1", "variables": {"v": "1"}, "steps": [
            {"name": "a", "on_ok": target, "tasks": [{"type": "set", "variable": "v", "value": "2"}]}]}
        for name, target in (("TICK", "END"), ("BAD", "FAIL"))]})


def import_ticks(agent, schedules):
    """Schedules of TICK: {name: fields}"""
    import_schedules(agent, schedules, "TICK")


QUEUES = ["QUEUE%d" % number for number in range(20)]


@pytest.fixture(scope="module")
def paused(make):
    """An agent that a signal has paused in the middle of its work, deciding twenty due times; `since` is
    when."""
    made = make("paused", "--max-sessions", "20", env={"TZ": "UTC"})
    import_tasks(made)
    import_ticks(made, {name: {"rule": "every 1s", "misfire": "skip"} for name in QUEUES})
    import_ticks(made, {"PARALLEL": {"rule": "every 1s", "misfire": "skip", "overlap": "parallel"}})
    added = time.time()
    wait_for(lambda: [row for row in made.rows("SCHED WHY -LIMIT=1") if seconds_of(row["due"]) > added])
    made.process.send_signal(signal.SIGSTOP)
    made.since = time.time()
    yield made
    made.process.send_signal(signal.SIGCONT)


PROGRAM = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30)
connection.executescript(sys.argv[2])
"""
COLUMNS = ("agent, scenario, version, context, rule, timezone, enabled, variables, options, created, revision,"
           " decided")


def change_by_another_program(agent, script):
    """What a person with sqlite3 does, in a process of its own -> when it began."""
    began = time.time()
    subprocess.run([sys.executable, "-c", PROGRAM, str(agent.work), script], check=True, timeout=60)
    return began


@pytest.fixture(scope="module")
def untold(make):
    """An agent whose schedules another program has changed, and nobody has told it; `changed` is when."""
    made = make("untold", "--max-sessions", "20", env={"TZ": "UTC"})
    import_tasks(made)
    import_ticks(made, {"NOTICED": {"rule": "daily at 02:00", "overlap": "parallel"},
                            "GONE": {"rule": "every 1s"}})
    time.sleep(1.1)
    made.changed = change_by_another_program(
        made, "update schedule set rule='every 1s' where name='NOTICED'; delete from schedule where name='GONE';"
        "insert into schedule(name, %s) select 'NEW', %s from schedule where name='NOTICED';" % (COLUMNS, COLUMNS))
    return made


@pytest.fixture(scope="module", autouse=True)
def begun(paused, untold):
    """What needs time begins before the first test, and comes about while others run."""


@pytest.fixture
def ticking(make_agent):
    """A running agent in UTC with the scenarios of these tests and a schedule TICK, due every second."""
    made = make_agent("--max-sessions", "20", env={"TZ": "UTC"}).start()
    import_tasks(made)
    import_ticks(made, {"TICK": {"rule": "every 1s", "overlap": "parallel"}})
    return made


# -- kill -9 ---------------------------------------------------------------------------

def list_variants():
    """{name: fields} of schedules of each misfire, overlap and jitter, due every second or two."""
    variants = {}
    for misfire in ("once", "all", "skip"):
        for overlap in ("queue", "parallel"):
            for jitter in (0, 2):
                name = "%s_%s_%d" % (misfire, overlap, jitter)
                variants[name] = {"rule": "every 1s", "misfire": misfire, "overlap": overlap, "jitter": jitter}
                variants["CRON_" + name] = dict(variants[name], rule="cron */2 * * * * *")
        variants["MARK_" + misfire] = {"rule": "every 1s", "misfire": misfire, "overlap": "parallel",
                                       "scenario": "MARK"}
    variants["stop"] = {"rule": "every 1s", "misfire": "all", "overlap": "stop", "jitter": 1}
    variants["grace"] = {"rule": "every 1s", "misfire": "all", "overlap": "parallel", "grace": 1}
    return variants


def hold_for_a_moment(agent, moments):
    agent.ok("HOLD")
    time.sleep(moments.random())
    agent.ok("RELEASE")


def hold_one_for_a_moment(agent, moments):
    name = moments.choice(sorted(list_variants()))
    agent.ok("HOLD -SCHEDULE=" + name)
    time.sleep(moments.random())
    agent.ok("RELEASE -SCHEDULE=" + name)


def change_them(agent, moments):
    for name in list_variants():
        agent.ok("SCHED SET %s -PRIORITY=%d" % (name, moments.randrange(100)))


def lock_for_a_moment(agent, moments):
    with foreign_lock(agent.work):
        time.sleep(moments.random())


def test_killed_again_and_again_around_due_times(make_agent):
    """Each round the agent is held, changed or locked out for a moment, and killed about a whole second."""
    ticking = make_agent("--max-sessions", "20", env={"TZ": "UTC"}).start()
    import_tasks(ticking)
    begun = time.time()
    import_ticks(ticking, list_variants())
    added, seed = time.time(), random.randrange(10 ** 6)
    moments = random.Random(seed)
    import_ticks(ticking, {
        "CHAIN": {"after": "once_parallel_0", "overlap": "parallel"},
        "RETRY": {"rule": "every 1s", "scenario": "BAD", "attempts": 2, "overlap": "parallel"}})
    for deed in moments.sample([hold_for_a_moment, hold_one_for_a_moment, change_them, lock_for_a_moment] * 2, 4):
        deed(ticking, moments)
        now = time.time()
        time.sleep(max(0.0, int(now) + 1 - now + moments.uniform(-0.02, 0.15)))
        ticking.kill()
        time.sleep(moments.choice((0.0, 0.0, 1.1)))
        ticking.start(is_ready=moments.random() < 0.7)
        if ticking.client is None:        # killed while it starts
            time.sleep(moments.random() * 0.4)
            ticking.kill()
            ticking.start()
    ended = time.time()
    print("seed", seed)
    for name in list(list_variants()) + ["RETRY"]:
        wait_decided(ticking, name, ended + 1)
        ticking.ok("SCHED OFF " + name)
    wait_for(lambda: not ticking.rows(OPEN) and "met=" in ticking.ask("SCHED SHOW CHAIN")[-2].split(),
             "all sessions to end, and what runs after them")
    for name, fields in list_variants().items():
        rows = check_ledger(ticking, name, fields["rule"])
        first = make_timetable(fields["rule"], "UTC").next_after(int(begun // 1))
        assert first <= seconds_of(rows[0]["due"]) <= added + 2, (name, rows[0])
        reasons = {row["reason"] for row in rows} - {"misfire", "hold", "repository", ""}
        assert reasons <= ({"overlap"} if fields["overlap"] == "queue" else set()), (name, reasons)
    found = {row["session"]: row for row in ticking.rows("SESSIONS -LIMIT=100000")}
    for row in found.values():
        assert row["status"] == "DONE" or row["status"] == "ERROR" and "stale" in row["message"] \
            or (row["status"], row["schedule"]) in (("STOPPED", "stop"), ("ERROR", "RETRY")), row
    runs = collections.Counter((ticking.folder / "marks").read_text().split())
    assert set(runs.values()) == {1} and set(runs) <= set(found)
    assert all(runs[number] for number, row in found.items()
               if row["status"] == "DONE" and row["scenario"] == "MARK")
    check_chain_and_attempts(ticking)
    assert ticking.stop() == 0


def check_chain_and_attempts(agent):
    """CHAIN ran at most once after each session that it waits for, and after the last; each due time of
    RETRY has its two attempts, of which the ledger shows the second."""
    ends = [row["ended"] for row in sessions_of(agent, "once_parallel_0") if row["status"] == "DONE"]
    chain = sessions_of(agent, "CHAIN")
    assert 0 < len(chain) <= len(ends) and chain[-1]["created"] >= max(ends)
    assert [row["session"] for row in why(agent, "CHAIN")] == [row["session"] for row in chain]
    attempts = collections.defaultdict(list)
    for row in sessions_of(agent, "RETRY"):
        attempts[row["due"]].append(row["session"])
    assert attempts and {len(numbers) for numbers in attempts.values()} == {2}
    rows = {row["due"]: row["session"] for row in why(agent, "RETRY") if row["session"]}
    assert rows == {due: max(numbers, key=int) for due, numbers in attempts.items()}


# -- changes ---------------------------------------------------------------------------

def test_changes_are_effective_at_once(ticking):
    """Due a second or two ahead: what a request adds, sets or enables fires, what it takes away does not."""
    far = "daily at 00:00"

    def change_all(due):
        names = ["%s%d" % (name, due) for name in ("ADD", "SET", "ON", "IMPORT", "DEL", "OFF", "AWAY")]
        add, change, on, imported, delete, off, away = names
        for name in (change, on, delete, off, away):
            rule = far if name == change else rule_at(due)
            ticking.ok("SCHED ADD %s TICK -1 GLOBAL '%s' -TIMEZONE=UTC -ENABLED=%s"
                     % (name, rule, "no" if name == on else "yes"))
        ticking.ok("SCHED ADD %s TICK -1 GLOBAL '%s' -TIMEZONE=UTC" % (add, rule_at(due)))
        ticking.ok("SCHED SET %s -RULE='%s'" % (change, rule_at(due)))
        ticking.ok("SCHED ON " + on)
        import_ticks(ticking, {imported: {"rule": rule_at(due)}})
        ticking.ok("SCHED DEL " + delete)
        ticking.ok("SCHED OFF " + off)
        ticking.ok("SCHED SET %s -RULE='%s'" % (away, far))
        return names
    due, (add, change, on, imported, delete, off, away) = ahead(change_all)
    wait_decided(ticking, "TICK", due + 1)
    for name in (add, change, on, imported):
        wait_for(lambda: sessions_of(ticking, name), "%s to fire" % name)
        row, = why(ticking, name)
        assert seconds_of(row["due"]) == due and row["session"] and row["reason"] == ""
        assert len(sessions_of(ticking, name)) == 1
    for name in (off, away):
        assert why(ticking, name) == [] and sessions_of(ticking, name) == []
    assert ticking.err("SCHED WHY " + delete) == "NOT_FOUND" and sessions_of(ticking, delete) == []
    assert ticking.stop() == 0


def test_a_change_at_the_moment_of_a_due_time_is_no_time_away(ticking):
    """Schedules that skip what was missed, changed all the while: nothing was missed. Nor was it where
    a due time has come and jitter has not yet let it run."""
    skip = {"rule": "every 1s", "misfire": "skip", "overlap": "parallel"}
    names = ["S%d" % number for number in range(5)]
    import_ticks(ticking, {name: dict(skip, jitter=3 * (name == "S4")) for name in names})
    ends, count = time.time() + 2, 0
    while time.time() < ends:
        ticking.ok("SCHED SET %s -PRIORITY=%d" % (names[count % 5], count % 1000))
        count += 1
        if count % 20 == 0:
            ticking.ok("CALENDAR %s C 2020-01-%02d" % ("ADD" if count == 20 else "SET", 1 + count // 20 % 30))
    for name in names:
        wait_decided(ticking, name, ends - 1)
        assert {row["reason"] for row in why(ticking, name)} == {""}
        ticking.ok("SCHED OFF " + name)   # what jitter still delays does not run any more
        assert {row["reason"] for row in check_ledger(ticking, name)} <= {"", "misfire"}
    assert ticking.stop() == 0


def test_another_programs_change_is_effective_at_once_with_update(ticking):
    for name in ("UPDATED", "DOWN", "GONE", "OFF"):
        rule = "every 1s" if name in ("GONE", "OFF") else "daily at 02:00"
        ticking.ok("SCHED ADD %s TICK -1 GLOBAL '%s' -TIMEZONE=UTC -OVERLAP=parallel" % (name, rule))
    for name in ("GONE", "OFF"):
        wait_for(lambda: sessions_of(ticking, name))
    changed = change_by_another_program(
        ticking, "update schedule set rule='every 1s' where name='UPDATED'; delete from schedule where"
        " name='GONE'; update schedule set enabled=0 where name='OFF';")
    assert ticking.ok("SCHED UPDATE")["schedules"] == "4"
    updated = time.time()
    wait_for(lambda: sessions_of(ticking, "UPDATED"), "UPDATED to fire")
    row = check_ledger(ticking, "UPDATED")[0]
    assert changed < seconds_of(row["due"]) <= updated + 1 and row["session"], row
    wait_decided(ticking, "TICK", updated + 1)
    for name in ("GONE", "OFF"):
        assert seconds_of(why(ticking, name)[-1]["last_due"]) <= updated
    # while the agent is down: from the change on it was missed
    assert ticking.stop() == 0
    changed = change_by_another_program(ticking, "update schedule set rule='every 1s' where name='DOWN'")
    ticking.start()
    wait_for(lambda: sessions_of(ticking, "DOWN"), "DOWN to fire")
    assert changed < seconds_of(check_ledger(ticking, "DOWN")[0]["due"])
    assert ticking.stop() == 0


def test_another_programs_change_is_noticed_and_its_past_not_fired(untold):
    for name in ("NOTICED", "NEW"):
        wait_for(lambda: sessions_of(untold, name), "%s to fire" % name)
        rows = check_ledger(untold, name)
        assert untold.changed < seconds_of(rows[0]["due"]) and {row["reason"] for row in rows} == {""}, rows
        # a look every two seconds; the rest is for a slow machine
        assert seconds_of(sessions_of(untold, name)[0]["begun"]) < untold.changed + LIMIT_S
    noticed = seconds_of(sessions_of(untold, "NEW")[0]["created"])      # by the same look
    assert seconds_of(why(untold, "GONE")[-1]["last_due"]) <= noticed


# -- zones -----------------------------------------------------------------------------

def test_a_system_zone_that_changed_and_one_that_the_host_lacks(make_agent):
    ticking = make_agent("--max-sessions", "20", env={"TZ": "UTC"}).start()
    import_tasks(ticking)
    for name, rule in (("LOCAL", "daily at 02:00"), ("SECONDS", "cron * * * * * *"), ("LACKS", "cron * * * * * *"),
                       ("LACKS_TOO", "daily at 02:00"), ("EVERY", "every 1s")):
        ticking.ok("SCHED ADD %s TICK -1 GLOBAL '%s' -OVERLAP=parallel" % (name, rule))
    before, = ticking.rows("SCHED NEXT LOCAL -COUNT=1 -FROM=2026-12-01T00:00Z")
    assert before["due"] == "2026-12-01T02:00:00+00:00"
    for name in ("SECONDS", "LACKS"):
        wait_for(lambda: sessions_of(ticking, name), "%s to fire" % name)
    assert ticking.stop() == 0
    change_by_another_program(ticking, "update schedule set timezone='Mars/Olympus' where name like 'LACKS%'")
    ticking.env = {"TZ": "XYZ-3"}         # three hours east
    ticking.start()
    started = time.time()
    after, = ticking.rows("SCHED NEXT LOCAL -COUNT=1 -FROM=2026-12-01T00:00Z")
    assert after["due"] == "2026-12-02T02:00:00+03:00"
    assert {row["name"]: row["next"] != "" for row in ticking.rows("SCHED LIST")} == {
        "LOCAL": True, "SECONDS": True, "LACKS": False, "LACKS_TOO": False, "EVERY": True}
    for name in ("LACKS", "LACKS_TOO"):
        row = wait_for(lambda: why(ticking, name) and why(ticking, name)[-1])
        assert (row["decision"], row["session"]) == ("failed", "") and "Mars/Olympus" in row["message"], row
    assert "Mars/Olympus" in ticking.log()
    ticking.env = {"TZ": "UTC"}
    ticking.kill()
    ticking.start()
    for name, rule in (("SECONDS", "cron * * * * * *"), ("EVERY", "every 1s")):
        wait_decided(ticking, name, int(started) + 1)
        check_ledger(ticking, name, rule)
    row = why(ticking, "LACKS_TOO")
    assert len(row) == 1 and int(row[0]["count"]) >= 2      # one row, however often it was started
    ticking.ok("SCHED SET LACKS -TIMEZONE=")
    mended = time.time()
    wait_for(lambda: seconds_of(sessions_of(ticking, "LACKS")[-1]["due"]) >= mended, "LACKS to fire again")
    assert ticking.stop() == 0


# -- many ------------------------------------------------------------------------------

def test_a_thousand_due_in_the_same_second_fire_once_each(make_agent):
    ticking = make_agent("--max-sessions", "200", env={"TZ": "UTC"}).start()
    import_tasks(ticking)

    def import_them(due):
        names = ["M%d_%d" % (due, number) for number in range(1000)]
        import_ticks(ticking, {name: {"rule": rule_at(due), "misfire": "skip"} for name in names})
        return names
    due, names = ahead(import_them, 3)
    wait_for(lambda: len([row for row in ticking.rows("SCHED WHY -LIMIT=10000") if row["schedule"] in set(names)]) >= 1000,
             "1000 decisions")
    wait_for(lambda: not ticking.rows(OPEN), "all sessions to end")
    rows = [row for row in ticking.rows("SESSIONS -LIMIT=10000") if row["schedule"] in set(names)]
    assert sorted(row["schedule"] for row in rows) == sorted(names)
    assert {(row["status"], seconds_of(row["due"])) for row in rows} == {("DONE", due)}
    found = [row for row in ticking.rows("SCHED WHY -LIMIT=10000") if row["schedule"] in set(names)]
    assert sorted(row["schedule"] for row in found) == sorted(names)
    assert {(row["decision"] in ("started", "late"), row["count"]) for row in found} == {(True, "1")}
    assert ticking.stop() == 0


# -- a pause ---------------------------------------------------------------------------

def test_a_pause_is_no_step_of_the_clock_and_loses_nothing(paused):
    """SIGSTOP, for 5 s at least: what came due meanwhile is late, not missed, even with misfire=skip."""
    time.sleep(max(0.0, paused.since + 5 - time.time()))
    before = time.time()
    paused.process.send_signal(signal.SIGCONT)
    after = time.time()
    for name in ["PARALLEL"] + QUEUES:
        wait_decided(paused, name, after + 1)
        paused.ok("SCHED OFF " + name)
    wait_for(lambda: not paused.rows(OPEN), "all sessions to end")
    rows = check_ledger(paused, "PARALLEL")
    assert {row["reason"] for row in rows} == {""}
    late = [row for row in rows if paused.since + 1 < seconds_of(row["due"]) < before - 1.5]
    assert len(late) >= 2 and {row["decision"] for row in late} == {"late"}
    assert {row["status"] for row in sessions_of(paused, "PARALLEL")} == {"DONE"}
    for name in QUEUES:
        assert {row["reason"] for row in check_ledger(paused, name)} <= {"", "overlap"}
    assert "clock stepped" not in paused.log()
    assert [row for row in paused.rows("SCHED WHY -LIMIT=10000") if row["schedule"] == ""] == []
