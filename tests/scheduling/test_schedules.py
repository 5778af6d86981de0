"""Schedules on real agents: SCHED in all its forms, and each due time once, over stops, kills and holds."""
import re
import sqlite3
import sys
import time
from contextlib import closing
from datetime import datetime, timedelta

import pytest

from conftest import ahead, local, wait_for, why
from support.ledger import check_complete


@pytest.fixture(scope="module")
def with_slow(make):
    """One agent for the tests that neither stop nor hold it; schedules have names of their own.

    V1 is there from the beginning: what it waits for is over when its test comes.
    """
    made = make("shared")
    made.import_os("J", "echo $VAR_v $DUE", variables={"v": "1"})
    made.import_os("SLOW", "until [ -e slow_go ]; do sleep 0.05; done")
    made.ok("SCHED ADD V1 SLOW -1 GLOBAL 'every 1s'")
    return made


def when(text):
    """A time of a reply -> datetime."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d", text), text
    form = "%Y-%m-%dT%H%M%S.%f%z" if "." in text else "%Y-%m-%dT%H%M%S%z"
    return datetime.strptime(text.replace(":", ""), form)


def shown(agent, name):
    """The first line of SCHED SHOW."""
    return agent.rows("SCHED SHOW %s" % name)[0]


def import_job(agent, name="J", command="true"):
    agent.import_os(name, command)


def wait_fired(agent, name, count):
    """Waits until a schedule has made so many sessions that have ended -> its sessions."""
    def found():
        rows = agent.rows("SESSIONS -SCHEDULE=%s -LIMIT=1000" % name)
        return len([row for row in rows if row["ended"]]) >= count and rows
    return wait_for(found, "%d sessions of %s" % (count, name))


# -- the verb --------------------------------------------------------------------------

def test_add_show_list_set_del(with_slow):
    zone = "Europe/Zurich" if sys.version_info >= (3, 9) else "UTC"
    with_slow.send("SCHED ADD S1 J -1 GLOBAL 'daily at 02:00' v=x -TIMEZONE=" + zone)
    with_slow.expect("OK schedule=S1")
    with_slow.send("SCHED SHOW S1")
    with_slow.expect('* name=S1 agent=AGENT scenario=J version=-1 context=GLOBAL rule="daily at 02:00" '
                  'timezone=%s enabled=yes hold=no next=* last= repository=WORKREP' % zone,
                  "* variable=v value=x", "OK")
    assert with_slow.err("SCHED ADD S1 J -1 GLOBAL 'daily at 03:00'") == "EXISTS"
    with_slow.ok("SCHED SET S1 v=y -RULE='weekly on mon at 10:00' -VERSION=1 -TIMEZONE=UTC")
    assert with_slow.rows("SCHED SHOW S1")[1] == {"variable": "v", "value": "y"}
    row = shown(with_slow, "S1")
    assert (row["rule"], row["version"], row["timezone"]) == ("weekly on mon at 10:00", "1", "UTC")
    due = when(row["next"]).astimezone(when("2026-01-01T00:00:00+00:00").tzinfo)
    assert due.weekday() == 0 and (due.hour, due.minute) == (10, 0)
    assert row == [r for r in with_slow.rows("SCHED LIST") if r["name"] == "S1"][0]
    with_slow.ok("SCHED DEL S1")
    assert with_slow.err("SCHED SHOW S1") == "NOT_FOUND"
    assert with_slow.err("SCHED DEL S1") == "NOT_FOUND"
    assert not [row for row in with_slow.rows("SCHED LIST") if row["name"] == "S1"]


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
def test_what_is_wrong_changes_nothing(with_slow, line, code):
    if not [row for row in with_slow.rows("SCHED LIST") if row["name"] == "KEPT"]:
        with_slow.ok("SCHED ADD KEPT J -1 GLOBAL 'daily at 02:00'")

    def state():
        return [row for row in with_slow.rows("SCHED LIST") if row["name"] != "V1"], \
            with_slow.ask("SCHED SHOW KEPT")
    before = state()
    assert with_slow.err(line) == code
    assert state() == before


def test_a_python_without_time_zones_says_so(with_slow):
    last = with_slow.ask("SCHED ADD Z1 J -1 GLOBAL 'daily at 02:00' -TIMEZONE=Europe/Zurich")[-1]
    assert last == "OK schedule=Z1" or re.match("ERR BAD_REQUEST .*Europe/Zurich.*3.9", last), last
    if last.startswith("OK"):
        with_slow.ok("SCHED DEL Z1")


def test_on_and_off(with_slow):
    with_slow.ok("SCHED ADD O1 J -1 GLOBAL 'every 1h' -ENABLED=no")
    assert (shown(with_slow, "O1")["enabled"], shown(with_slow, "O1")["next"]) == ("no", "")
    assert with_slow.ok("SCHED ON O1") == {"schedule": "O1", "enabled": "yes"}
    assert shown(with_slow, "O1")["next"] != ""
    assert with_slow.ok("SCHED ON O1")["enabled"] == "yes"
    assert with_slow.ok("SCHED OFF O1")["enabled"] == "no"
    assert shown(with_slow, "O1")["next"] == ""
    with_slow.ok("SCHED DEL O1")


def test_next_is_a_preview(with_slow):
    with_slow.ok("SCHED ADD N1 J -1 GLOBAL 'daily at 02:00' -TIMEZONE=UTC")
    with_slow.ok("SCHED ADD N2 J -1 GLOBAL 'every 6h' -ENABLED=no")
    rows = with_slow.rows("SCHED NEXT N1 -FROM=2026-03-01T02:00Z -COUNT=3")
    assert [when(row["due"]).timestamp() for row in rows] == [
        when("2026-03-0%dT02:00:00+00:00" % day).timestamp() for day in (2, 3, 4)]
    assert with_slow.rows("SCHED NEXT N1 -FROM=2026-03-01T00:00Z -TO=2026-03-02T02:00Z")[1:][0]["note"] == ""
    assert len(with_slow.rows("SCHED NEXT N1 -FROM=2026-03-01T00:00Z -TO=2026-03-02T01:59:59Z")) == 1
    assert len(with_slow.rows("SCHED NEXT N1")) == 10
    disabled = with_slow.rows("SCHED NEXT N2 -COUNT=2")
    assert len(disabled) == 2 and "disabled" in disabled[0]["note"]
    both = with_slow.rows("SCHED NEXT -FROM=2026-03-01T00:00Z -TO=2026-03-04T00:00Z")
    dues = [when(row["due"]) for row in both]
    assert len(dues) == 10 and dues == sorted(dues) and "N2" not in {row["schedule"] for row in both}
    assert with_slow.rows("SCHED WHY N1") == [] and with_slow.rows("SESSIONS -SCHEDULE=N1") == []
    assert '"schedule": "N1"' in with_slow.ask("SCHED NEXT N1 -COUNT=1 -JSON")[0]
    for name in ("N1", "N2"):
        with_slow.ok("SCHED DEL " + name)


def test_an_import_sets_a_schedule_to_its_new_definition(with_slow):
    one = {"name": "I1", "scenario": "J", "version": "-1", "context": "GLOBAL",
           "rule": "daily at 02:00", "variables": {"v": "x"}}
    with_slow.import_document({"schedules": [one]})
    assert shown(with_slow, "I1")["rule"] == "daily at 02:00"
    with_slow.import_document({"schedules": [dict(one, rule="every 2h", enabled=False)]})
    assert (shown(with_slow, "I1")["rule"], shown(with_slow, "I1")["enabled"]) == ("every 2h", "no")
    assert len([row for row in with_slow.rows("SCHED LIST") if row["name"] == "I1"]) == 1
    with_slow.ok("SCHED DEL I1")


def test_another_agents_schedule_is_listed_and_not_fired(with_slow):
    with_slow.ok("SCHED ADD A1 J -1 GLOBAL 'every 1s' -AGENT=OTHER")
    with_slow.ok("SCHED ADD A2 J -1 GLOBAL 'every 1s'")
    wait_fired(with_slow, "A2", 1)
    with_slow.ok("SCHED DEL A2")
    assert shown(with_slow, "A1")["agent"] == "OTHER" and with_slow.rows("SCHED WHY A1") == []
    with_slow.ok("SCHED SET A1 -AGENT=AGENT")
    wait_fired(with_slow, "A1", 1)
    with_slow.ok("SCHED DEL A1")


def test_update_reads_what_another_program_wrote(with_slow):
    with_slow.ok("SCHED ADD U1 J -1 GLOBAL 'daily at 02:00'")
    number = int(with_slow.ok("SCHED UPDATE")["schedules"])
    with closing(sqlite3.connect(str(with_slow.work), timeout=30, isolation_level=None)) as other:
        other.execute("update schedule set rule='every 1s' where name='U1'")    # a trigger does the rest
        other.execute("insert into schedule(name, agent, scenario, version, context, rule, timezone, enabled,"
                      " variables, created, revision, decided) select 'U2', agent, scenario, version, context,"
                      " 'every 1h', timezone, enabled, variables, created, revision + 1, decided from schedule"
                      " where name='U1'")
    assert int(with_slow.ok("SCHED UPDATE")["schedules"]) == number + 1
    wait_fired(with_slow, "U1", 1)
    with closing(sqlite3.connect(str(with_slow.work), timeout=30, isolation_level=None)) as other:
        other.execute("delete from schedule where name in ('U1', 'U2')")
    assert int(with_slow.ok("SCHED UPDATE")["schedules"]) == number - 1
    count = len(why(with_slow, "U1"))
    time.sleep(1.5)
    assert len(why(with_slow, "U1")) <= count


# -- firing ----------------------------------------------------------------------------

def test_every_second_fires_once_per_due_time(with_slow):
    begun = time.time()
    with_slow.ok("SCHED ADD E1 J -1 GLOBAL 'every 1s' v=mine")
    sessions = wait_fired(with_slow, "E1", 2)
    with_slow.ok("SCHED OFF E1")
    rows = check_complete(why(with_slow, "E1"))
    assert when(rows[0]["due"]).timestamp() > begun         # not what was due before it was added
    assert {row["decision"] for row in rows} <= {"started", "late", "skipped"}
    for session in sessions[:2]:
        assert session["schedule"] == "E1"
        row = next(row for row in rows if row["session"] == session["session"])
        assert row["due"] == session["due"] and row["status"] == "DONE"
        assert with_slow.log_texts(session["session"]) == ["mine " + session["due"]]
        assert when(session["begun"]) >= when(session["due"])
    assert shown(with_slow, "E1")["last"] == max(row["due"] for row in rows if row["session"])
    with_slow.ok("SCHED DEL E1")
    assert why(with_slow, "E1")                                # what it decided is kept


def test_on_after_off_does_not_fire_the_time_between(with_slow):
    with_slow.ok("SCHED ADD E2 J -1 GLOBAL 'every 1s'")
    wait_fired(with_slow, "E2", 1)
    with_slow.ok("SCHED OFF E2")
    time.sleep(0.1)
    count = len(why(with_slow, "E2"))
    time.sleep(1.4)
    assert len(why(with_slow, "E2")) - count <= 1              # one may have been under way
    on = time.time()
    with_slow.ok("SCHED ON E2")
    before = len(why(with_slow, "E2"))
    wait_for(lambda: len(why(with_slow, "E2")) > before)
    with_slow.ok("SCHED DEL E2")
    rows = why(with_slow, "E2")
    assert when(rows[before]["due"]).timestamp() > on - 1 and rows[before]["reason"] != "misfire"


def test_overlap_one_waits_and_further_ones_are_skipped(with_slow):
    wait_for(lambda: [row for row in why(with_slow, "V1") if row["reason"] == "overlap"
                      and int(row["count"]) >= 2], "two skipped due times in a row")
    rows = why(with_slow, "V1")
    assert [(row["decision"], row["status"]) for row in rows] == [
        ("started", "RUNNING"), ("started", "QUEUED"), ("skipped", "")]
    assert len(with_slow.rows("SESSIONS -SCHEDULE=V1")) == 2
    with_slow.ok("SCHED OFF V1")
    (with_slow.folder / "slow_go").touch()
    sessions = wait_fired(with_slow, "V1", 2)
    assert when(sessions[0]["begun"]) >= when(sessions[1]["ended"])
    rows = check_complete(why(with_slow, "V1"))
    assert rows[1]["decision"] == "late"                    # it began over a second after it was due
    with_slow.ok("SCHED DEL V1")


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


def test_what_was_missed_while_down_makes_one_session_and_one_row(make_agent):
    agents = [make_agent(folder="stopped").start(), make_agent(folder="killed").start()]
    for agent in agents:
        import_job(agent)
        agent.ok("SCHED ADD S J -1 GLOBAL 'every 1s'")
        agent.ok("SCHED ADD D J -1 GLOBAL 'daily at 02:00'")
    for agent in agents:
        wait_fired(agent, "S", 1)
    agents[0].stop()
    agents[1].kill()
    before = time.time()
    time.sleep(3.2)
    for agent in agents:
        agent.start()
    ready = time.time()
    for agent in agents:
        wait_for(lambda: why(agent, "S") and when(why(agent, "S")[-1]["due"]).timestamp() > ready)
        agent.ok("SCHED OFF S")
        rows = check_complete(why(agent, "S"))
        misfires = [row for row in rows if row["reason"] == "misfire"
                    and when(row["last_due"]).timestamp() > before]
        assert [row["decision"] for row in misfires] == ["skipped"] and int(misfires[0]["count"]) >= 2
        caught_up = rows[rows.index(misfires[0]) + 1]
        assert caught_up["decision"] in ("started", "late") and caught_up["session"]
        assert when(caught_up["due"]).timestamp() <= ready
        assert not [row for row in agent.rows("SESSIONS -SCHEDULE=S -LIMIT=1000")
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


def test_the_hold_of_one_schedule(make_agent):
    agent = make_agent().start()
    import_job(agent)
    for name in ("A", "B"):
        agent.ok("SCHED ADD %s J -1 GLOBAL 'every 1s'" % name)
    wait_fired(agent, "A", 1)
    agent.ok("HOLD 'not now' -SCHEDULE=A")
    begun = time.time()
    assert shown(agent, "A")["hold"] == "yes" and shown(agent, "B")["hold"] == "no"
    held = agent.rows("SCHED SHOW A")[-1]
    assert held["reason"] == "not now" and held["by"] and when(held["held"])
    assert agent.ok("PING")["hold"] == "no"
    agent.ok("SCHED SET A -TIMEZONE=UTC")                   # a change leaves the hold
    agent.kill()
    agent.start()                                           # so does a crash
    assert shown(agent, "A")["hold"] == "yes"
    count = len(why(agent, "A"))
    wait_for(lambda: why(agent, "B") and when(why(agent, "B")[-1]["due"]).timestamp() > begun + 2)
    assert len(why(agent, "A")) == count
    assert agent.ok("EXEC J -SYNC")["status"] == "DONE"     # the scenario itself is not held
    agent.ok("RELEASE -SCHEDULE=A")
    wait_for(lambda: len(why(agent, "A")) >= count + 3)
    agent.ok("SCHED OFF A")
    rows = why(agent, "A")
    assert (rows[count]["decision"], rows[count]["reason"]) == ("skipped", "hold")
    assert rows[count + 1]["session"] and int(rows[count]["count"]) >= 1
    assert shown(agent, "A")["hold"] == "no"


def test_the_hold_of_a_schedule_ends_at_its_time(with_slow):
    with_slow.ok("SCHED ADD H1 J -1 GLOBAL 'every 1s'")
    until, _ = ahead(lambda until: with_slow.ask("HOLD -SCHEDULE=H1 -UNTIL=%s" % local(until)))
    count = len(why(with_slow, "H1"))
    wait_for(lambda: shown(with_slow, "H1")["hold"] == "no", "the hold to end")
    assert time.time() >= until - 0.05
    wait_for(lambda: len(why(with_slow, "H1")) > count)
    check_complete(why(with_slow, "H1"))
    with_slow.ok("SCHED DEL H1")


def test_what_an_import_of_other_times_forgets_while_held_is_told(with_slow):
    schedule = {"name": "IMPORTED", "scenario": "J", "version": "-1", "context": "GLOBAL", "rule": "every 1s",
                "timezone": "UTC", "overlap": "parallel"}
    with_slow.import_document({"schedules": [schedule]})
    wait_for(lambda: why(with_slow, "IMPORTED"), "a due time")
    with_slow.ok("HOLD -SCHEDULE=IMPORTED")
    begun = time.time()
    wait_for(lambda: time.time() > begun + 3, "due times that are held")
    with_slow.import_document({"schedules": [dict(schedule, rule="daily at 02:00")]})
    told = why(with_slow, "IMPORTED")[-1]
    assert told["decision"] == "skipped" and "changed before it ran" in told["message"]
    assert int(told["count"]) >= 2
    check_complete(why(with_slow, "IMPORTED"))


def test_the_hold_of_the_agent_decides_nothing_until_its_release(make_agent):
    agent = make_agent().start()
    import_job(agent)
    agent.ok("SCHED ADD S J -1 GLOBAL 'every 1s'")
    wait_fired(agent, "S", 1)
    agent.ok("HOLD")
    wait_for(lambda: agent.ok("PING")["running"] == "0")
    time.sleep(0.2)
    count = len(why(agent, "S"))
    agent.stop()
    agent.start()
    time.sleep(2.1)
    assert len(why(agent, "S")) == count
    agent.ok("RELEASE")
    wait_for(lambda: len(why(agent, "S")) >= count + 3)
    agent.ok("SCHED OFF S")
    rows = check_complete(why(agent, "S"))
    assert rows[count]["reason"] == "hold" and rows[count + 1]["session"]


def test_startup_under_a_hold_is_decided_at_the_release(make_agent):
    agent = make_agent().start()
    import_job(agent)
    agent.ok("SCHED ADD U J -1 GLOBAL startup")
    agent.ok("HOLD")
    agent.stop()
    agent.start()
    time.sleep(0.3)
    assert agent.rows("SESSIONS") == []
    agent.ok("RELEASE")
    wait_fired(agent, "U", 1)
    agent.ok("HOLD")
    agent.ok("RELEASE")
    time.sleep(0.3)
    assert len(why(agent, "U")) == 1


def test_a_schedule_whose_rule_another_program_broke_costs_the_others_nothing(make_agent):
    agent = make_agent().start()
    import_job(agent)
    for name, rule in (("BAD", "startup"), ("GOOD", "startup"), ("TOO", "every 1h")):
        agent.ok("SCHED ADD %s J -1 GLOBAL '%s'" % (name, rule))
    agent.stop()
    with closing(sqlite3.connect(str(agent.work), timeout=30, isolation_level=None)) as other:
        other.execute("update schedule set rule='every blue moon' where name='BAD'")
    agent.start()
    wait_fired(agent, "GOOD", 1)
    assert {row["name"]: row["next"] != "" for row in agent.rows("SCHED LIST")} == {
        "BAD": False, "GOOD": False, "TOO": True}
    row, = why(agent, "BAD")
    assert (row["decision"], row["count"], row["session"]) == ("failed", "1", "")
    assert "does not fire" in row["message"] and "every blue moon" in row["message"] and "BAD" in agent.log()
    agent.ok("SCHED SET BAD -RULE='every 1s'")
    wait_fired(agent, "BAD", 1)
