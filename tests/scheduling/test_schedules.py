"""Schedules of a running agent: SCHED in all its forms, and each due time once, over stops, kills and holds."""
import re
import sqlite3
import sys
import time
from contextlib import closing
from datetime import datetime, timedelta

import pytest

from conftest import ahead, local, sessions_of, wait_for, why
from support.ledger import check_complete


def when(text):
    """A time of a reply -> datetime."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d", text), text
    form = "%Y-%m-%dT%H%M%S.%f%z" if "." in text else "%Y-%m-%dT%H%M%S%z"
    return datetime.strptime(text.replace(":", ""), form)


def shown(agent, name):
    """The first line of SCHED SHOW."""
    return agent.rows("SCHED SHOW %s" % name)[0]


def import_job(agent):
    """J, which prints what it got."""
    agent.import_os("J", "echo $VAR_v $DUE", variables={"v": "1"})


@pytest.fixture(scope="module", autouse=True)
def scenarios(shared_inside):
    import_job(shared_inside)


def wait_fired(agent, name, count):
    """Waits until a schedule has made so many sessions that have ended -> its sessions, the newest first."""
    def found():
        rows = sessions_of(agent, name)[::-1]
        return len([row for row in rows if row["ended"]]) >= count and rows
    return wait_for(found, "%d sessions of %s" % (count, name))


def fire(agent, name, count):
    """So many seconds pass; waits after each of them until the session of a schedule, due every second, has ended
    -> its sessions, the newest first."""
    for number in range(len(sessions_of(agent, name)) + 1, count + 1):
        agent.let_pass(1)
        wait_fired(agent, name, number)
    return wait_fired(agent, name, count)


# -- the verb --------------------------------------------------------------------------

def test_add_show_list_set_del(shared_inside):
    zone = "Europe/Zurich" if sys.version_info >= (3, 9) else "UTC"
    shared_inside.send("SCHED ADD S1 J -1 GLOBAL 'daily at 02:00' v=x -TIMEZONE=" + zone)
    shared_inside.expect("OK schedule=S1")
    shared_inside.send("SCHED SHOW S1")
    shared_inside.expect('* name=S1 agent=AGENT scenario=J version=-1 context=GLOBAL rule="daily at 02:00" '
                  'timezone=%s enabled=yes hold=no next=* last= last_session= last_status= repository=WORKREP' % zone,
                  "* variable=v value=x", "OK")
    assert shared_inside.err("SCHED ADD S1 J -1 GLOBAL 'daily at 03:00'") == "EXISTS"
    shared_inside.ok("SCHED SET S1 v=y -RULE='weekly on mon at 10:00' -VERSION=1 -TIMEZONE=UTC")
    assert shared_inside.rows("SCHED SHOW S1")[1] == {"variable": "v", "value": "y"}
    row = shown(shared_inside, "S1")
    assert (row["rule"], row["version"], row["timezone"]) == ("weekly on mon at 10:00", "1", "UTC")
    due = when(row["next"]).astimezone(when("2026-01-01T00:00:00+00:00").tzinfo)
    assert due.weekday() == 0 and (due.hour, due.minute) == (10, 0)
    assert row == [r for r in shared_inside.rows("SCHED LIST") if r["name"] == "S1"][0]
    shared_inside.ok("SCHED DEL S1")
    assert shared_inside.err("SCHED SHOW S1") == "NOT_FOUND"
    assert shared_inside.err("SCHED DEL S1") == "NOT_FOUND"
    assert not [row for row in shared_inside.rows("SCHED LIST") if row["name"] == "S1"]


@pytest.mark.parametrize("line, code", [
    ("SCHED ADD X NO_SUCH -1 GLOBAL 'every 1h'", "NOT_FOUND"),
    ("SCHED ADD X J 99 GLOBAL 'every 1h'", "NOT_FOUND"),
    ("SCHED ADD X J -1 NO_SUCH 'every 1h'", "NOT_FOUND"),
    ("SCHED ADD X J -1 GLOBAL 'every blue moon'", "BAD_REQUEST"),
    ("SCHED ADD X J -1 GLOBAL 'yearly on 02-30 at 10:00'", "BAD_REQUEST"),
    ("SCHED ADD X J -1 GLOBAL ''", "BAD_REQUEST"),
    ("SCHED ADD X J -1 GLOBAL 'every 1h' w=1", "BAD_REQUEST"),
    ("SCHED ADD X J -1 GLOBAL 'every 1h' DUE=1", "BAD_REQUEST"),
    ("SCHED ADD X J -1 GLOBAL 'daily at 10:00' -TIMEZONE=Mars/Olympus", "BAD_REQUEST"),
    ("SCHED ADD X J -1 GLOBAL 'every 1h' -ENABLED=maybe", "BAD_REQUEST"),
    ("SCHED ADD X J -1 GLOBAL 'every 1h' -NO_SUCH=1", "BAD_REQUEST"),
    ("SCHED ADD X J -1 GLOBAL every 1h", "BAD_REQUEST"),
    ("SCHED ADD X J -1 GLOBAL", "BAD_REQUEST"),
    ("SCHED ADD -X J -1 GLOBAL 'every 1h'", "BAD_REQUEST"),
    ("SCHED ADD 'a b' J -1 GLOBAL 'every 1h'", "BAD_REQUEST"),
    ("SCHED ADD X J -1 GLOBAL 'every 1h' -REPO=NO_SUCH", "NOT_FOUND"),
    ("SCHED SET NO_SUCH -RULE='every 1h'", "NOT_FOUND"),
    ("SCHED SET KEPT", "BAD_REQUEST"),
    ("SCHED SET KEPT -RULE=nonsense", "BAD_REQUEST"),
    ("SCHED SET KEPT -SCENARIO=NO_SUCH", "NOT_FOUND"),
    ("SCHED SET KEPT -CONTEXT=NO_SUCH", "NOT_FOUND"),
    ("SCHED SET KEPT w=1", "BAD_REQUEST"),
    ("SCHED ON NO_SUCH", "NOT_FOUND"),
    ("SCHED OFF NO_SUCH", "NOT_FOUND"),
    ("SCHED NEXT NO_SUCH", "NOT_FOUND"),
    ("SCHED WHY NO_SUCH", "NOT_FOUND"),
    ("HOLD -SCHEDULE=NO_SUCH", "NOT_FOUND"),
    ("RELEASE -SCHEDULE=NO_SUCH", "NOT_FOUND"),
    ("SCHED NO_SUCH", "BAD_REQUEST"),
    ("SCHED", "BAD_REQUEST"),
    ("DROP J 1", "CONFLICT"),
])
def test_what_is_wrong_changes_nothing(shared_inside, line, code):
    if not [row for row in shared_inside.rows("SCHED LIST") if row["name"] == "KEPT"]:
        shared_inside.ok("SCHED ADD KEPT J -1 GLOBAL 'daily at 02:00'")

    def state():
        return [row for row in shared_inside.rows("SCHED LIST") if row["name"] != "V1"], \
            shared_inside.ask("SCHED SHOW KEPT")
    before = state()
    assert shared_inside.err(line) == code
    assert state() == before


def test_a_python_without_time_zones_says_so(shared_inside):
    last = shared_inside.ask("SCHED ADD Z1 J -1 GLOBAL 'daily at 02:00' -TIMEZONE=Europe/Zurich")[-1]
    assert last == "OK schedule=Z1" or re.match("ERR BAD_REQUEST .*Europe/Zurich.*3.9", last), last
    if last.startswith("OK"):
        shared_inside.ok("SCHED DEL Z1")


def test_on_and_off(shared_inside):
    shared_inside.ok("SCHED ADD O1 J -1 GLOBAL 'every 1h' -ENABLED=no")
    assert (shown(shared_inside, "O1")["enabled"], shown(shared_inside, "O1")["next"]) == ("no", "")
    assert shared_inside.ok("SCHED ON O1") == {"schedule": "O1", "enabled": "yes"}
    assert shown(shared_inside, "O1")["next"] != ""
    assert shared_inside.ok("SCHED ON O1")["enabled"] == "yes"
    assert shared_inside.ok("SCHED OFF O1")["enabled"] == "no"
    assert shown(shared_inside, "O1")["next"] == ""
    shared_inside.ok("SCHED DEL O1")


def test_next_is_a_preview(shared_inside):
    shared_inside.ok("SCHED ADD N1 J -1 GLOBAL 'daily at 02:00' -TIMEZONE=UTC")
    shared_inside.ok("SCHED ADD N2 J -1 GLOBAL 'every 6h' -ENABLED=no")
    rows = shared_inside.rows("SCHED NEXT N1 -FROM=2026-03-01T02:00Z -COUNT=3")
    assert [when(row["due"]).timestamp() for row in rows] == [
        when("2026-03-0%dT02:00:00+00:00" % day).timestamp() for day in (2, 3, 4)]
    assert shared_inside.rows("SCHED NEXT N1 -FROM=2026-03-01T00:00Z -TO=2026-03-02T02:00Z")[1:][0]["note"] == ""
    assert len(shared_inside.rows("SCHED NEXT N1 -FROM=2026-03-01T00:00Z -TO=2026-03-02T01:59:59Z")) == 1
    assert len(shared_inside.rows("SCHED NEXT N1")) == 10
    disabled = shared_inside.rows("SCHED NEXT N2 -COUNT=2")
    assert len(disabled) == 2 and "disabled" in disabled[0]["note"]
    shared_inside.ok("SCHED ADD N3 J -1 GLOBAL 'every 6h'")
    both = shared_inside.rows("SCHED NEXT -FROM=2026-03-01T00:00Z -TO=2026-03-04T00:00Z")
    dues = [when(row["due"]) for row in both]
    assert len(dues) == 10 and dues == sorted(dues) and "N2" not in {row["schedule"] for row in both}
    assert shared_inside.rows("SCHED WHY N1") == [] and shared_inside.rows("SESSIONS -SCHEDULE=N1") == []
    assert '"schedule": "N1"' in shared_inside.ask("SCHED NEXT N1 -COUNT=1 -JSON")[0]
    for name in ("N1", "N2", "N3"):
        shared_inside.ok("SCHED DEL " + name)


def test_an_import_sets_a_schedule_to_its_new_definition(shared_inside):
    one = {"name": "I1", "scenario": "J", "version": "-1", "context": "GLOBAL",
           "rule": "daily at 02:00", "variables": {"v": "x"}}
    shared_inside.import_document({"schedules": [one]})
    assert shown(shared_inside, "I1")["rule"] == "daily at 02:00"
    shared_inside.import_document({"schedules": [dict(one, rule="every 2h", enabled=False)]})
    assert (shown(shared_inside, "I1")["rule"], shown(shared_inside, "I1")["enabled"]) == ("every 2h", "no")
    assert len([row for row in shared_inside.rows("SCHED LIST") if row["name"] == "I1"]) == 1
    shared_inside.ok("SCHED DEL I1")


def test_another_agents_schedule_is_listed_and_not_fired(shared_inside):
    shared_inside.ok("SCHED ADD A1 J -1 GLOBAL 'every 1s' -AGENT=OTHER")
    shared_inside.ok("SCHED ADD A2 J -1 GLOBAL 'every 1s'")
    fire(shared_inside, "A2", 1)
    shared_inside.ok("SCHED DEL A2")
    assert shown(shared_inside, "A1")["agent"] == "OTHER" and shared_inside.rows("SCHED WHY A1") == []
    shared_inside.ok("SCHED SET A1 -AGENT=AGENT")
    fire(shared_inside, "A1", 1)
    shared_inside.ok("SCHED DEL A1")


def test_update_reads_what_another_program_wrote(shared_inside):
    shared_inside.ok("SCHED ADD U1 J -1 GLOBAL 'daily at 02:00'")
    number = int(shared_inside.ok("SCHED UPDATE")["schedules"])
    with closing(sqlite3.connect(str(shared_inside.work), timeout=30, isolation_level=None)) as other:
        other.execute("update schedule set rule='every 1s' where name='U1'")    # a trigger does the rest
        other.execute("insert into schedule(name, agent, scenario, version, context, rule, timezone, enabled,"
                      " variables, created, revision, decided) select 'U2', agent, scenario, version, context,"
                      " 'every 1h', timezone, enabled, variables, created, revision + 1, decided from schedule"
                      " where name='U1'")
    assert int(shared_inside.ok("SCHED UPDATE")["schedules"]) == number + 1
    fire(shared_inside, "U1", 1)
    with closing(sqlite3.connect(str(shared_inside.work), timeout=30, isolation_level=None)) as other:
        other.execute("delete from schedule where name in ('U1', 'U2')")
    assert int(shared_inside.ok("SCHED UPDATE")["schedules"]) == number - 1
    count = len(why(shared_inside, "U1"))
    shared_inside.let_pass(3)
    assert len(why(shared_inside, "U1")) == count


# -- firing ----------------------------------------------------------------------------

def test_every_second_fires_once_per_due_time(shared_inside):
    begun = shared_inside.now()
    shared_inside.ok("SCHED ADD E1 J -1 GLOBAL 'every 1s' v=mine")
    sessions = fire(shared_inside, "E1", 2)
    shared_inside.ok("SCHED OFF E1")
    rows = check_complete(why(shared_inside, "E1"))
    assert when(rows[0]["due"]).timestamp() > begun         # not what was due before it was added
    assert {row["decision"] for row in rows} <= {"started", "late", "skipped"}
    for session in [session for session in sessions if session["ended"]][:2]:
        assert session["schedule"] == "E1"
        row = next(row for row in rows if row["session"] == session["session"])
        assert row["due"] == session["due"] and row["status"] == "DONE"
        assert shared_inside.log_texts(session["session"]) == ["mine " + session["due"]]
        assert when(session["begun"]) >= when(session["due"])
    assert shown(shared_inside, "E1")["last"] == max(row["due"] for row in rows if row["session"])
    shared_inside.ok("SCHED DEL E1")
    assert why(shared_inside, "E1")                                # what it decided is kept


def test_on_after_off_does_not_fire_the_time_between(shared_inside):
    shared_inside.ok("SCHED ADD E2 J -1 GLOBAL 'every 1s'")
    fire(shared_inside, "E2", 1)
    shared_inside.ok("SCHED OFF E2")
    count = len(why(shared_inside, "E2"))
    shared_inside.let_pass(3)
    assert len(why(shared_inside, "E2")) == count
    on = shared_inside.now()
    shared_inside.ok("SCHED ON E2")
    shared_inside.let_pass(1)
    assert len(why(shared_inside, "E2")) > count
    shared_inside.ok("SCHED DEL E2")
    rows = why(shared_inside, "E2")
    assert when(rows[count]["due"]).timestamp() > on - 1 and rows[count]["reason"] != "misfire"


def test_overlap_one_waits_and_further_ones_are_skipped(shared_inside, tmp_path):
    shared_inside.import_os("SLOW", "until [ -e %s ]; do sleep 0.05; done" % (tmp_path / "go"))
    shared_inside.ok("SCHED ADD V1 SLOW -1 GLOBAL 'every 1s'")
    shared_inside.let_pass(1)
    wait_for(lambda: why(shared_inside, "V1")[0]["status"] == "RUNNING", "the first to run")
    for _ in range(3):
        shared_inside.let_pass(1)
    rows = why(shared_inside, "V1")
    assert [(row["decision"], row["status"]) for row in rows] == [
        ("started", "RUNNING"), ("started", "QUEUED"), ("skipped", "")]
    assert rows[2]["reason"] == "overlap" and int(rows[2]["count"]) >= 2
    assert len(shared_inside.rows("SESSIONS -SCHEDULE=V1")) == 2
    shared_inside.ok("SCHED OFF V1")
    (tmp_path / "go").touch()
    sessions = wait_fired(shared_inside, "V1", 2)
    assert when(sessions[0]["begun"]) >= when(sessions[1]["ended"])
    rows = check_complete(why(shared_inside, "V1"))
    assert rows[1]["decision"] == "late"                    # it began over a second after it was due
    shared_inside.ok("SCHED DEL V1")


# -- starts, stops and holds -----------------------------------------------------------

def test_startup_fires_at_a_start_and_at_once_for_ever(make_agent):
    agent = make_agent().start()
    import_job(agent)
    past = (datetime.now() - timedelta(days=1)).strftime("%Y-%m-%d %H:%M:%S")
    assert agent.err("SCHED ADD PAST J -1 GLOBAL 'at %s'" % past) == "BAD_REQUEST"      # it never fires any more
    ahead(lambda due: [agent.ask("SCHED DEL AT"), agent.ask("SCHED ADD AT J -1 GLOBAL 'at %s'" % local(due))])
    for name, options in (("U", ""), ("OFF", "-ENABLED=no"), ("OTHER", "-AGENT=OTHER"), ("HELD", "")):
        agent.ok("SCHED ADD %s J -1 GLOBAL startup %s" % (name, options))
    agent.ok("HOLD -SCHEDULE=HELD")
    agent.ok("SCHED SET U -RULE=startup -TIMEZONE=UTC")
    agent.ok("SCHED UPDATE")
    time.sleep(0.5)
    assert why(agent, "U") == []        # not when it is added
    for count in (1, 2, 3):
        if count == 2:
            agent.kill()
        else:
            agent.stop()
        agent.start()
        assert len(wait_fired(agent, "U", count)) == count
        agent.ok("SCHED UPDATE")
        agent.ok("SCHED OFF U")
        agent.ok("SCHED ON U")
        if count == 2:
            wait_fired(agent, "AT", 1)
            assert shown(agent, "AT")["next"] == ""
    time.sleep(0.3)
    assert sorted(row["schedule"] for row in agent.rows("SESSIONS")) == ["AT", "U", "U", "U"]
    assert len(why(agent, "U")) == 3 and len(why(agent, "AT")) == 1


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_what_was_missed_while_down_makes_one_session_and_one_row(make_agent, make_inside, end):
    agent = make_inside(folder="repo")
    first = make_agent() if end == "killed" else agent
    first.start()
    import_job(first)
    first.ok("SCHED ADD S J -1 GLOBAL 'every 1s'")
    first.ok("SCHED ADD D J -1 GLOBAL 'daily at 02:00' -ENABLED=no")
    if end == "killed":
        wait_fired(first, "S", 1)
        first.kill()
    else:
        fire(first, "S", 1)
        first.stop()
    before = agent.now()
    agent.let_pass(5)
    agent.start()
    ready = agent.now()
    agent.let_pass(1)
    agent.ok("SCHED OFF S")
    rows = check_complete(why(agent, "S"))
    misfires = [row for row in rows if row["reason"] == "misfire" and when(row["last_due"]).timestamp() > before]
    assert [row["decision"] for row in misfires] == ["skipped"] and int(misfires[0]["count"]) >= 2
    caught_up = rows[rows.index(misfires[0]) + 1]
    assert caught_up["decision"] in ("started", "late") and caught_up["session"]
    assert when(caught_up["due"]).timestamp() <= ready
    assert not [row for row in sessions_of(agent, "S")
                if before + 1 < when(row["due"]).timestamp() < when(caught_up["due"]).timestamp()]
    assert why(agent, "D") == []


def test_no_due_time_is_doubled_over_many_starts(make_agent):
    agent = make_agent().start()
    import_job(agent)
    agent.ok("SCHED ADD S J -1 GLOBAL 'every 1s'")
    for number in range(3):
        count = len(why(agent, "S"))
        wait_for(lambda: len(why(agent, "S")) > count, "a further due time")
        if number % 2:
            agent.stop()
        else:
            agent.kill()
        agent.start()
    agent.ok("SCHED OFF S")
    rows = check_complete(why(agent, "S"))
    dues = [row["due"] for row in agent.rows("SESSIONS -SCHEDULE=S -LIMIT=1000")]
    assert len(set(dues)) == len(dues) == len([row for row in rows if row["session"]])


def test_the_hold_of_one_schedule(inside):
    import_job(inside)
    for name in ("A", "B"):
        inside.ok("SCHED ADD %s J -1 GLOBAL 'every 1s'" % name)
    fire(inside, "A", 1)
    inside.ok("HOLD 'not now' -SCHEDULE=A")
    assert shown(inside, "A")["hold"] == "yes" and shown(inside, "B")["hold"] == "no"
    held = inside.rows("SCHED SHOW A")[-1]
    assert held["reason"] == "not now" and held["by"] and when(held["held"])
    assert inside.ok("PING")["hold"] == "no"
    inside.ok("SCHED SET A -TIMEZONE=UTC")                  # a change leaves the hold
    inside.stop()
    inside.start()                                          # so does a start; and a crash, in test_options.py
    assert shown(inside, "A")["hold"] == "yes"
    count, begun = len(why(inside, "A")), inside.now()
    inside.let_pass(3)
    wait_for(lambda: when(why(inside, "B")[-1]["due"]).timestamp() > begun + 1, "the one that is not held")
    assert len(why(inside, "A")) == count
    assert inside.ok("EXEC J -SYNC")["status"] == "DONE"    # the scenario itself is not held
    inside.ok("RELEASE -SCHEDULE=A")
    inside.let_pass(1)
    wait_for(lambda: len(why(inside, "A")) >= count + 3, "what was held to be decided")
    inside.ok("SCHED OFF A")
    rows = why(inside, "A")
    assert (rows[count]["decision"], rows[count]["reason"]) == ("skipped", "hold")
    assert rows[count + 1]["session"] and int(rows[count]["count"]) >= 1
    assert shown(inside, "A")["hold"] == "no"


def test_the_hold_of_a_schedule_ends_at_its_time(shared_inside):
    shared_inside.ok("SCHED ADD H1 J -1 GLOBAL 'every 1s'")
    until = int(shared_inside.now()) + 100
    shared_inside.ok("HOLD -SCHEDULE=H1 -UNTIL=%s" % local(until))
    shared_inside.let_pass(50)
    assert shown(shared_inside, "H1")["hold"] == "yes" and why(shared_inside, "H1") == []
    shared_inside.let_pass_until(until)
    wait_for(lambda: shown(shared_inside, "H1")["hold"] == "no", "the hold to end")
    shared_inside.let_pass(1)
    wait_for(lambda: why(shared_inside, "H1"), "a due time after the hold")
    check_complete(why(shared_inside, "H1"))
    shared_inside.ok("SCHED DEL H1")


def test_what_an_import_of_other_times_forgets_while_held_is_told(shared_inside):
    schedule = {"name": "IMPORTED", "scenario": "J", "version": "-1", "context": "GLOBAL", "rule": "every 1s",
                "timezone": "UTC", "overlap": "parallel"}
    shared_inside.import_document({"schedules": [schedule]})
    shared_inside.let_pass(1)
    assert why(shared_inside, "IMPORTED")
    shared_inside.ok("HOLD -SCHEDULE=IMPORTED")
    shared_inside.let_pass(3)
    shared_inside.import_document({"schedules": [dict(schedule, rule="daily at 02:00")]})
    told = why(shared_inside, "IMPORTED")[-1]
    assert told["decision"] == "skipped" and "changed before it ran" in told["message"]
    assert int(told["count"]) >= 2
    check_complete(why(shared_inside, "IMPORTED"))


def test_the_hold_of_the_agent_decides_nothing_until_its_release(inside):
    import_job(inside)
    inside.ok("SCHED ADD S J -1 GLOBAL 'every 1s'")
    fire(inside, "S", 1)
    inside.ok("HOLD")
    wait_for(lambda: inside.ok("PING")["running"] == "0")
    inside.let_pass(0)
    count = len(why(inside, "S"))
    inside.stop()
    inside.start()
    inside.let_pass(3)
    assert len(why(inside, "S")) == count
    inside.ok("RELEASE")
    inside.let_pass(1)
    assert len(why(inside, "S")) >= count + 3
    inside.ok("SCHED OFF S")
    rows = check_complete(why(inside, "S"))
    assert rows[count]["reason"] == "hold" and rows[count + 1]["session"]


def test_startup_under_a_hold_is_decided_at_the_release(inside):
    import_job(inside)
    inside.ok("SCHED ADD U J -1 GLOBAL startup")
    inside.ok("HOLD")
    inside.stop()
    inside.start()
    inside.let_pass(1)
    assert inside.rows("SESSIONS") == []
    inside.ok("RELEASE")
    wait_fired(inside, "U", 1)
    inside.ok("HOLD")
    inside.ok("RELEASE")
    inside.let_pass(1)
    assert len(why(inside, "U")) == 1


def test_a_schedule_whose_rule_another_program_broke_costs_the_others_nothing(inside):
    import_job(inside)
    for name, rule in (("BAD", "startup"), ("GOOD", "startup"), ("TOO", "every 1h")):
        inside.ok("SCHED ADD %s J -1 GLOBAL '%s'" % (name, rule))
    inside.stop()
    with closing(sqlite3.connect(str(inside.work), timeout=30, isolation_level=None)) as other:
        other.execute("update schedule set rule='every blue moon' where name='BAD'")
    inside.start()
    wait_fired(inside, "GOOD", 1)
    assert {row["name"]: row["next"] != "" for row in inside.rows("SCHED LIST")} == {
        "BAD": False, "GOOD": False, "TOO": True}
    row, = why(inside, "BAD")
    assert (row["decision"], row["count"], row["session"]) == ("failed", "1", "")
    assert "does not fire" in row["message"] and "every blue moon" in row["message"] and "BAD" in inside.log()
    inside.ok("SCHED SET BAD -RULE='every 1s'")
    fire(inside, "BAD", 1)
