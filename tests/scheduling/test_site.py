"""Schedules with real repositories over holds, steps of the clock, crashes and starts, against a reference."""
import collections
import json
import logging
import random
import time

import pytest

import agent
from agent import DONE, ERROR, EXCLUDED_S, FAILED, MAX_SPANS, STARTED, STOPPED, Schedule, from_text
from conftest import turns_of, wait_for
from support.site import DAY, NOON, Reference, Site, find_late, late, text


def test_it_fires_and_goes_on_after_a_start(site):
    site.add(overlap="parallel")
    for second in (5, 10, 20):
        site.at(second)
    assert site.of() == [10, 20] and [ticket.schedule for ticket in site.tickets] == ["S", "S"]
    site.stop()
    site.clock.move(35)
    site.start()
    assert site.of() == [10, 20, (30, 40, 2, "misfire"), 50]
    site.at(60)
    assert site.of()[4:] == [60]
    rows = site.of(is_brief=False)
    assert rows[2]["message"] == "the agent was down" and len({row["session"] for row in rows}) == 5


@pytest.mark.parametrize("misfire, made", [("skip", [(10, 50, 5, "misfire")]), ("all", [10, 20, 30, 40, 50])])
def test_a_start_follows_misfire(site, misfire, made):
    site.add(overlap="parallel", misfire=misfire)
    site.stop()
    site.clock.move(55)
    site.start()
    assert site.of() == made


def test_a_year_down_is_a_few_rows(site):
    site.add(rule="every 1s", overlap="parallel", misfire="all", hours="08:00-18:00", exclude_weekdays="sat")
    site.stop()
    site.clock.move(366 * DAY)
    _, turns = turns_of(site.start)
    rows = site.of(is_brief=False)
    assert turns < 366 * DAY and len(rows) <= agent.MAX_MISSED + MAX_SPANS + 2
    assert sum(row["count"] for row in rows) == 366 * DAY
    assert sum(row["session"] is not None for row in rows) == agent.MAX_MISSED


def test_all_beside_queue_wait_in_line(site):
    """Who asks for all that was missed gets all, one after the other; what is due afterwards queues as ever."""
    site.add(misfire="all")
    site.stop()
    site.clock.move(55)
    site.start()
    assert site.of() == [10, 20, 30, 40, 50]
    site.at(60)
    assert site.of() == [10, 20, 30, 40, 50, (60, 60, 1, "overlap")]


def test_all_beside_skip_is_bounded_by_it(site):
    site.add(misfire="all", overlap="skip")
    site.stop()
    site.clock.move(55)
    site.start()
    assert site.of() == [10, (20, 50, 4, "overlap")]


def test_what_the_repository_missed_while_it_was_away(site):
    site.add(overlap="parallel")
    site.at(10)
    site.detach()
    site.scheduler.tick()
    site.clock.move(25)
    site.scheduler.tick()
    site.attach()
    assert site.of() == [10, (20, 20, 1, "repository"), 30]
    assert site.of(is_brief=False)[1]["message"] == "the repository could not be used"


def test_a_repository_that_is_slow(site):
    site.add(overlap="parallel")
    failures = site.repository.db.failures
    with site.lock():
        site.clock.move(10)
        site.scheduler.tick()
        wait_for(lambda: site.repository.db.failures > failures, "a try that fails")
        site.clock.move(25)
        site.scheduler.tick()
    site.settle()
    site.tick()
    assert site.of() == [10, (20, 20, 1, "repository"), 30]
    site.at(40)
    assert site.of()[3:] == [40]


def test_a_repository_that_is_a_little_slow(site):
    site.add(overlap="parallel", misfire="skip")
    with site.lock():
        site.clock.move(10)
        site.scheduler.tick()
        site.clock.move(4.5)
        site.scheduler.tick()
    site.settle()
    site.at(15)
    site.at(20)
    assert site.of() == [10, 20]


def test_killed_before_a_decision_is_written(site):
    site.add(overlap="parallel")
    site.at(10)
    with site.lock():
        site.clock.move(10)
        site.scheduler.tick()
        site.stop(0.0)
    site.clock.move(20)
    site.start()
    assert site.of() == [10, (20, 30, 2, "misfire"), 40]


def test_a_change_loses_no_due_time_that_is_about_to_be_decided(site):
    """It is due, the tick is a little late, and a change of something else comes first."""
    site.add(misfire="skip", overlap="parallel")
    site.clock.move(10.1)
    site.set(priority=3)
    site.tick()
    assert site.of() == [10]
    site.clock.move(9.95)
    site.schedules.update()
    site.tick()
    assert site.of() == [10, 20]
    assert site.of(is_brief=False)[0]["decision"] == STARTED


def test_a_change_does_not_lose_what_its_jitter_delays(site):
    due = find_late(300, 500)
    site.clock.move(due - 500)
    site.add(rule="every 1000s", jitter=600, misfire="skip")
    site.at(due + 10)
    site.set(priority=3)
    site.at(due + late(due, 600) - 1)
    assert site.of() == []
    site.at(due + late(due, 600))
    assert site.of() == [due] and site.tickets[-1].start_at == NOON + due + late(due, 600)


def test_a_change_of_its_times_forgets_what_was_due(site):
    site.add()
    site.clock.move(10.1)
    site.set(rule="every 15s")
    site.at(31)
    assert site.of() == [(10, 10, 1, "misfire"), 15, (30, 30, 1, "overlap")]
    assert "changed" in site.of(is_brief=False)[0]["message"]
    site.set(enabled=False)
    site.at(100)
    site.set(enabled=True)
    site.at(105)
    assert site.of()[1:] == [15, (30, 105, 2, "overlap")]


def test_what_comes_while_a_change_of_its_times_is_written_is_not_forgotten(site):
    """Up to when is said once; with the next due time it goes on from there."""
    site.add(overlap="parallel")
    site.clock.move(10.1)

    def change(schedule):
        site.clock.move(10)
        return schedule._replace(timezone="")
    site.changes.set("S", None, change)
    site.tick()
    assert site.of() == [(10, 10, 1, "misfire"), 20]
    site.clock.time = NOON + 29.999995      # which the tables have as 30
    site.set(timezone="UTC")
    site.at(45)
    assert site.of()[2:] == [(30, 30, 1, "misfire"), 40]


def test_a_change_of_its_times_while_due_times_are_being_decided(site):
    site.add(overlap="parallel")
    with site.lock():
        site.clock.move(10)
        site.scheduler.tick()
        site.clock.move(25)
    site.set(timezone="")
    site.at(45)
    assert site.of() == [10, (20, 30, 2, "misfire"), 40]


def test_a_change_of_its_times_tells_of_what_was_held(site):
    site.add(overlap="parallel")
    site.at(10)
    site.hold_one(True)
    site.at(35)
    site.set(timezone="")
    site.at(45)
    site.hold_one(False)
    site.tick()
    assert site.of() == [10, (20, 30, 2, "misfire"), 40]


def test_what_another_program_writes_is_decided_from_then_on(site):
    """The time that the trigger notes is SQLite's, which knows nothing of the clock of the test."""
    site.add(overlap="parallel")
    site.at(10)
    site.sql("update schedule set rule='every 7s'")
    site.at(20)
    assert site.of() == [10] and site.tickets[1:] == []         # out of date: nothing is decided
    site.sql("update schedule set decided='%s', revision=revision + 1" % text(21))
    site.schedules.update()
    site.at(35)
    assert site.of() == [10] + [due for due in range(22, 36) if (NOON + due) % 7 == 0]


def test_the_hold_of_the_agent(site):
    site.add(overlap="parallel")
    site.add("SKIP", misfire="skip")
    site.hold_agent(True)
    for second in (10, 20, 35):
        site.at(second)
    assert site.of() == site.of("SKIP") == []
    site.hold_agent(False)
    site.tick()
    assert site.of() == [(10, 20, 2, "hold"), 30] and site.of("SKIP") == [(10, 30, 3, "hold")]
    site.at(40)
    assert site.of()[2:] == [40] and site.of("SKIP")[1:] == [40]


def test_the_hold_of_the_agent_over_a_start(site):
    site.add(overlap="parallel")
    site.hold_agent(True)
    site.stop()
    site.clock.move(25)
    site.start()
    assert site.of() == []
    site.at(35)
    site.hold_agent(False)
    site.tick()
    assert site.of() == [(10, 20, 2, "hold"), 30]


def test_the_hold_of_one_schedule(site):
    site.add(overlap="parallel")
    site.add("OTHER", overlap="parallel")
    site.hold_one(True)
    site.at(15)
    site.set(grace=1000)            # a change leaves the hold
    site.at(25)
    site.stop()
    site.start()
    site.at(35)
    assert site.of() == [] and site.of("OTHER") == [10, 20, 30]
    site.hold_one(False)
    site.tick()
    assert site.of() == [(10, 20, 2, "hold"), 30]
    site.at(40)
    assert site.of()[2:] == [40]


def test_the_hold_of_one_within_that_of_the_agent(site):
    site.add(overlap="parallel")
    site.hold_agent(True)
    site.at(15)
    site.hold_one(True)
    site.at(25)
    site.hold_agent(False)
    site.at(35)
    assert site.of() == []
    site.hold_one(False)
    site.tick()
    assert site.of() == [(10, 20, 2, "hold"), 30]


def test_a_hold_with_an_end(site):
    site.add(overlap="parallel")
    site.hold_one(True, until=35)
    for second in (10, 20, 30):
        site.at(second)
    assert site.of() == [] and site.row()["hold_since"]
    site.at(35)
    assert site.of() == [(10, 20, 2, "hold"), 30] and site.row()["hold_since"] is None
    site.hold_one(True, until=60)
    site.hold_one(True, until=80)
    site.at(75)
    assert site.row()["hold_since"]
    site.at(80)
    assert site.row()["hold_since"] is None


def test_changes_of_a_schedule_that_is_held_until_leave_no_events_behind(site):
    site.add()
    site.hold_one(True, until=10 ** 7)
    for number in range(30):
        site.set(priority=number)
    site.tick()
    assert len([event for event in site.scheduler._events.queue if event.action is not site.scheduler._look]) == 1
    site.stop()
    site.start()
    site.at(10 ** 7)
    assert site.row()["hold_since"] is None


def test_what_after_met_while_held_fires_at_the_release(site):
    site.add("A", rule="every 10s")
    site.add(rule="", after="A")
    site.add("ONE", rule="", after="A")
    site.at(10)
    site.hold_one(True, "ONE")
    site.hold_agent(True)
    site.end(*site.outstanding("A"))
    site.at(15)
    assert site.of() == []
    site.hold_agent(False)
    assert site.of() == [15] and site.of("ONE") == []
    site.at(16)
    site.hold_one(False, "ONE")
    assert site.of("ONE") == [16]


def test_after_fires_once_over_starts(site):
    site.add("A")
    site.add(rule="", after="A")
    site.at(10)
    site.end(*site.outstanding("A"))
    assert site.of() == [10]
    site.stop()
    site.start()
    assert site.of() == [10]
    site.at(20)
    session, = site.outstanding("A")
    site.repository.db.write(lambda connection: (
        site.repository.sessions.begin(connection, session, "me", False, NOON + 20),
        site.repository.endings.end(connection, session, DONE, "", NOON + 20)))   # .. and the agent is killed
    site.end(*site.outstanding("S"))
    site.stop()
    site.clock.move(3)
    site.start()
    assert site.of() == [10, 23]


def test_startup_fires_at_each_start(site):
    site.add(rule="startup", overlap="parallel")
    site.add("OFF", rule="startup", enabled=False)
    site.at(10)
    assert site.of() == []
    for number in (1, 2):
        site.stop()
        site.clock.move(10)
        site.start()
        site.schedules.update()
        site.set(priority=number)
        site.set("OFF", enabled=number == 1)
        site.tick()
        assert site.of() == [20, 30][:number] and site.of("OFF") == [30][:number - 1]


def test_startup_under_holds_fires_at_the_release(site):
    site.add(rule="startup")
    site.add("ONE", rule="startup")
    site.hold_one(True, "ONE")
    site.hold_agent(True)
    site.stop()
    site.clock.move(10)
    site.start()
    site.set(timezone="")               # it is changed meanwhile
    site.at(20)
    assert site.of() == site.of("ONE") == []
    site.hold_agent(False)
    assert len(site.of()) == 1 and site.of("ONE") == []
    site.at(25)
    site.hold_one(False, "ONE")
    assert site.of("ONE") == [10]
    site.hold_agent(True)
    site.hold_agent(False)
    assert len(site.of()) == len(site.of("ONE")) == 1


def reboot(site, noted="'another boot'"):
    """The agent stops, the host boots, the agent starts."""
    site.stop()
    site.sql("update schedule set boot=%s" % noted)
    site.clock.move(10)
    site.start()


def test_boot_fires_at_the_first_start_after_each_boot(site):
    site.add(rule="boot", overlap="parallel")
    site.add("OFF", rule="cron @reboot", enabled=False)
    for _ in range(2):                  # neither adding nor a further start fires it
        site.stop()
        site.clock.move(10)
        site.start()
    assert site.of() == []
    reboot(site)
    assert site.of() == [30]
    for number in range(2):
        site.stop()
        site.clock.move(10)
        site.start()
        site.schedules.update()
        site.set(priority=number)
    assert site.of() == [30]
    reboot(site)
    assert site.of() == [30, 60] and site.of("OFF") == []
    site.set("OFF", enabled=True)       # begins now
    site.schedules.update()
    assert site.of("OFF") == []
    reboot(site)
    assert site.of() == [30, 60, 70] and site.of("OFF") == [70]


def test_boot_is_noted_where_a_row_is_read_that_has_none(site):
    """As an agent that has become newer reads it."""
    site.add(rule="boot")
    reboot(site, "null")
    assert site.of() == []
    site.stop()
    site.start()
    assert site.of() == []
    reboot(site)
    assert len(site.of()) == 1


def test_boot_under_a_hold_fires_at_the_release(site):
    site.add(rule="boot")
    site.hold_agent(True)
    reboot(site)
    for _ in range(2):                  # another start while it is held does not lose it
        site.stop()
        site.clock.move(5)
        site.start()
        site.schedules.update()
    assert site.of() == []
    site.hold_agent(False)
    assert len(site.of()) == 1
    site.hold_agent(True)
    site.hold_agent(False)
    assert len(site.of()) == 1


@pytest.mark.parametrize("field, value", [("hours", "08:00-18:00"), ("jitter", "60"), ("from", "2026-01-01")])
def test_boot_takes_no_window(site, field, value):
    with pytest.raises(agent.BadRequest, match="is for due times by the clock"):
        site.add(rule="boot", **{field: value})


def test_startup_on_a_host_whose_clock_is_behind(site):
    """As one without a battery, before it asks the network: a start is a start."""
    site.add(rule="startup", overlap="parallel")
    for step in (0, -DAY, 100):
        site.stop()
        site.clock.move(10)
        site.clock.step(step)
        site.start()
    assert len(site.of()) == 3 and len({ticket.session for ticket in site.tickets}) == 3


def test_a_schedule_that_cannot_fire_says_so_once(site, caplog):
    site.add()
    site.add("GOOD")
    site.stop()
    site.sql("update schedule set timezone='Mars/Olympus', decided='%s' where name='S'" % text(0))
    for _ in range(2):
        site.clock.move(12)
        with caplog.at_level(logging.WARNING):
            site.start()
        site.stop()
    site.start()
    row, = site.of(is_brief=False)
    assert (row["decision"], row["reason"], row["session"]) == (FAILED, "", None)
    assert row["message"].startswith("does not fire: timezone 'Mars/Olympus'") and "Mars/Olympus" in caplog.text
    assert site.of("GOOD")
    assert "does not fire" in agent.explain(dict(row, status=None))


def test_once_it_can_fire_again_what_was_missed_is_decided(site):
    """Its zone was not known to this Python; a newer one knows it."""
    site.add(overlap="parallel")
    site.at(10)
    site.stop()
    site.sql("update schedule set timezone='Mars/Olympus'", "update schedule set decided='%s'" % text(10))
    site.clock.move(15)
    site.start()
    site.stop()
    site.sql("update schedule set timezone='UTC'", "update schedule set decided='%s'" % text(10))
    site.clock.move(1)
    site.start()
    rows = site.of()
    assert rows == [10, 20, (25.5, 25.5, 1, "failed")]
    site.at(30)
    assert site.of()[-1] == 30


@pytest.mark.parametrize("spoilt", [
    "options='nonsense'", "options='[1]'", "options='{\"misfire\": \"maybe\"}'", "options='{\"no_such\": 1}'",
    "options='{\"hours\": \"8-18\"}'", "options='{\"jitter\": []}'", "variables='{'", "variables='{\"v\": []}'",
    "rule='every blue moon'"])
def test_what_another_program_has_spoilt_costs_the_others_nothing(site, spoilt):
    site.add()
    site.add("GOOD", rule="every 10s")
    site.add("AFTER", rule="", after="GOOD")
    site.stop()
    site.sql("update schedule set %s where name='S'" % spoilt)
    site.clock.move(15)
    site.start()
    assert site.of("GOOD") == [10]
    assert site.of(is_brief=False)[0]["message"].startswith("does not fire: ")
    site.end(*site.outstanding("GOOD"))
    assert site.of("AFTER") == [15]
    assert [(stored.schedule.name, due is not None) for _, stored, due in site.listing.list_all()] == [
        ("AFTER", False), ("GOOD", True), ("S", False)]
    site.changes.put_calendar("C", "2026-12-25", True)
    site.changes.delete("S", None)
    site.add()
    site.at(20)
    assert site.of()[-1] == 20


def test_an_import_takes_few_statements_a_schedule(site):
    def work(connection, count):
        document = document_of(count)
        statements = []
        connection.set_trace_callback(lambda statement: statement.startswith("--") or statements.append(statement))
        changes, _ = site.repository.imports.put(connection, document, "AGENT", NOON)
        connection.set_trace_callback(None)
        assert {change.change for change in changes} == {agent.NEW}
        return len(statements)

    def document_of(count):
        return agent.Definitions().read(json.dumps({"schedules": [
            {"name": "S%d_%d" % (count, number), "scenario": "HELLO", "rule": "daily at 02:00"}
            for number in range(count)]}))
    few, many = [site.repository.db.write(work, count) for count in (10, 30)]
    assert many - few <= 7 * 20


def test_equal_schedules_share_their_timetable_and_their_times(site):
    for name in "ABC":
        site.add(name, rule="every 10s", hours="08:00-18:00", misfire="skip")
    site.add("OTHER", rule="every 10s", hours="08:00-19:00", misfire="all")
    site.stop()
    site.sql("update schedule set decided='%s'" % text(0))
    site.start()
    first, *alike, other = [site.scheduler.find((1, name)) for name in ("A", "B", "C", "OTHER")]
    for entry in alike:
        assert entry.timetable is first.timetable and entry.decided is first.decided
        assert entry.missed is first.missed and entry.policy is first.policy and entry.boot is first.boot
    assert other.timetable is not first.timetable
    assert (first.policy.misfire, other.policy.misfire) == ("skip", "all")
    site.at(10)
    assert [site.of(name) for name in ("A", "B", "C", "OTHER")] == [[10]] * 4


@pytest.mark.parametrize("spoilt", ["variables='{'", "decided='never'", "enabled=0"])
def test_what_does_not_fire_lends_nothing_to_its_like(site, spoilt):
    for name in "AB":
        site.add(name, misfire="skip", overlap="parallel")
    site.stop()
    site.sql("update schedule set %s where name='A'" % spoilt)
    site.clock.move(15)
    site.start()
    assert site.scheduler.find((1, "A")).timetable is None and site.scheduler.find((1, "B")).policy.misfire == "skip"
    assert site.of("B") == [(10, 10, 1, "misfire")]


def test_what_another_program_writes_in_other_words_is_understood(site):
    site.add(rule="every 1000s")
    site.stop()
    site.sql("update schedule set options='{\"jitter\": \"10m\", \"retry_delay\": \"1m\", \"attempts\": 2}'",
             "update schedule set decided='%s'" % text(0))
    site.start()
    due = site.scheduler.find((1, "S")).timetable.next_after(NOON) - NOON
    planned = due + late(due, 600)
    site.at(planned)
    assert site.of() == [due]
    site.end(*site.outstanding("S"), status=ERROR)
    assert site.tickets[-1].start_at == NOON + planned + 60


def test_a_step_of_the_clock_is_noticed_and_noted(site):
    site.add(overlap="parallel")
    site.at(1)
    site.clock.step(50)
    site.at(52)
    assert site.of() == [(10, 40, 4, "misfire"), 50]
    assert site.of(is_brief=False)[0]["message"] == "the clock stepped forward by 50.0 s"
    site.clock.step(-30)
    site.at(23)
    site.add("NEW", overlap="parallel", misfire="skip")
    site.at(45)
    assert site.of() == [(10, 40, 4, "misfire"), 50] and site.of("NEW") == [30, 40]
    site.at(60)
    assert site.of()[2:] == [60] and site.of("NEW")[2:] == [50, 60]
    steps = [row for row in site.repository.db.read(site.repository.ledger.list_occurrences, None, 99) if row["schedule"] == ""]
    assert [(row["count"], from_text(row["due"]) - NOON) for row in steps] == [(0, 52), (0, 23)]
    assert steps[0]["message"].startswith("the clock stepped forward by 50.0 s: ")
    assert steps[1]["message"].startswith("the clock stepped back by 30.0 s: ")
    site.stop()
    site.start()                # nor does a start after the step
    assert len(site.of()) == 3


@pytest.mark.parametrize("is_started_anew", [False, True])
def test_a_calendar_that_changes_fires_nothing_of_the_past(site, is_started_anew):
    site.changes.put_calendar("C", "2026-06-01", True)
    site.add(exclude_dates="C", overlap="parallel")
    for second in (10, 20, 30):
        site.at(second)
    assert site.of() == [(10, 10, 1, "window")]
    site.changes.put_calendar("C", "2026-06-02", False)
    site.settle()
    assert site.of() == [(10, 30, 3, "window")]
    if is_started_anew:
        site.stop()
        site.start()
    site.at(40)
    assert site.of() == [(10, 30, 3, "window"), 40] and site.event_count <= 2
    site.changes.put_calendar("C", "2026-06-01", False)
    site.at(50)
    assert site.of()[1:] == [40, (50, 50, 1, "window")]
    with pytest.raises(agent.Conflict):
        site.changes.delete_calendar("C")


def test_a_calendar_that_changes_loses_nothing_that_is_held(site):
    site.changes.put_calendar("C", "2026-01-01", True)
    site.add(exclude_dates="C", overlap="parallel")
    site.add("ONE", exclude_dates="C", overlap="parallel")
    site.hold_one(True, "ONE")
    site.hold_agent(True)
    site.at(25)
    site.changes.put_calendar("C", "2026-01-02", False)
    site.at(35)
    site.hold_agent(False)
    site.hold_one(False, "ONE")
    site.tick()
    assert site.of() == site.of("ONE") == [(10, 20, 2, "hold"), 30]


def test_a_calendar_that_changes_loses_nothing_that_its_jitter_delays(site):
    site.changes.put_calendar("C", "2026-01-01", True)
    due = find_late(300, 500)
    site.clock.move(due - 500)
    site.add(rule="every 1000s", jitter=600, misfire="skip", exclude_dates="C")
    site.at(due + 10)
    site.changes.put_calendar("C", "2026-01-02", False)
    site.at(due + late(due, 600))
    assert site.of() == [due]


def test_a_calendar_that_changes_while_the_repository_is_slow(site):
    site.changes.put_calendar("C", "2026-01-01", True)
    site.add(exclude_dates="C", overlap="parallel")
    with site.lock():
        site.clock.move(10)
        site.scheduler.tick()
        site.changes.put_calendar("C", "2026-01-02", False)
        site.clock.move(2)
        site.scheduler.tick()
    site.settle()
    site.at(20)
    site.at(30)
    assert site.of() == [10, 20, 30] and len(site.tickets) == 3 and site.event_count == 1


def test_a_calendar_that_comes_late(site):
    """The schedule could not fire without it; what was due meanwhile is past."""
    site.changes.put_calendar("C", "2026-01-01", True)
    site.add(exclude_dates="C", overlap="parallel")
    site.stop()
    site.start()
    site.at(10)
    site.master.delete_calendar("C")
    site.stop()
    site.start()
    site.at(35)
    assert site.of()[:1] == [10] and site.of()[-1][3] == "failed"
    site.changes.put_calendar("C", "2026-01-01", True)
    site.at(40)
    assert [row for row in site.of() if not isinstance(row, tuple)] == [10, 40]


def test_a_schedule_added_by_another_program_is_not_judged_as_missed(site):
    """What comes due between its commit and its reading, as of an IMPORT of many, is a little late."""
    schedule = Schedule("S", "AGENT", "HELLO", "-1", "GLOBAL", "every 10s", "UTC", True, {}, {"misfire": "skip"})
    site.repository.db.write(lambda connection: site.repository.schedules.add(connection, schedule, NOON + 9))
    site.clock.move(11)
    site.schedules.refresh(site.repository, "S")
    site.tick()
    assert site.of() == [10]


def test_a_due_time_that_stops_the_one_before_says_whom(site):
    site.add(overlap="stop")
    site.at(10)
    site.at(20)
    assert site.of() == [10, 20] and site.replaced == [site.tickets[0].session]


def test_one_of_another_agent_is_not_decided(site):
    site.add()
    site.changes.set("S", None, lambda schedule: schedule._replace(agent="OTHER"))
    site.at(30)
    assert site.of() == [] and site.scheduler.list_entries(1) == []


def test_a_schedule_deleted_and_added_again_decides_nothing_twice(site):
    site.add(overlap="parallel")
    site.at(10)
    site.clock.step(-5)
    site.changes.delete("S", None)
    site.add(overlap="parallel")
    for second in (5, 10, 20):
        site.at(second)
    assert site.of() == [10, 20]


def test_the_preview_of_all_and_of_one(site):
    site.add("A", "every 20s")
    site.add("B", "every 30s", after="A", hours="12:00-12:01")
    site.add("OFF", "every 10s", enabled=False)
    site.add("LAST", rule="", after="A")

    def preview(name, end, count=9, with_excluded=False):
        return [(due - NOON, who, note) for due, who, _, note in site.listing.preview(
            name, None, None, NOON + end, count, with_excluded)]
    assert preview(None, 60) == [(20, "A", ""), (30, "B", "waits for A"), (40, "A", ""), (60, "A", ""),
                                 (60, "B", "waits for A")]
    assert preview(None, 60, 2) == preview(None, 60)[:2]
    assert preview("OFF", 25) == [(10, "OFF", "disabled"), (20, "OFF", "disabled")]
    assert preview("LAST", 1000) == []
    assert preview("B", 120, with_excluded=True) == [
        (30, "B", "waits for A"), (60, "B", "waits for A"), (90, "B", "excluded (window): outside hours"),
        (120, "B", "excluded (window): outside hours")]
    site.clock.move(25)
    assert preview("A", 60) == [(40, "A", ""), (60, "A", "")]       # from now on
    site.tick()
    site.clock.step(-15)
    for enabled in (False, True):
        site.set("A", enabled=enabled)
    assert site.of("A") == [20] and preview("A", 60) == [(40, "A", ""), (60, "A", "")]      # 20 does not fire again
    with pytest.raises(agent.NotFound):
        preview("NO_SUCH", 60)
    with pytest.raises(agent.NotFound):
        list(site.listing.list_occurrences("NO_SUCH", None, 9))
    assert list(site.listing.list_occurrences("OFF", None, 9)) == [] and site.of() == []


def test_a_plan_of_what_is_there(site, monkeypatch):
    site.add("A", "every 20s", jitter=30, overlap="parallel")
    site.add("B", "every 30s", overlap="skip")
    site.add("OFF", "every 10s", enabled=False)
    site.changes.set("A", None, lambda schedule: schedule)
    session = site.repository.db.write(lambda connection: site.repository.arrivals.add(
        connection, agent.SessionRequest("HELLO", "AGENT"), NOON)).session
    site.repository.db.write(lambda connection: (
        site.repository.sessions.begin(connection, session, "me", False, NOON + 0),
        site.repository.endings.end(connection, session, DONE, "", NOON + 45)))
    end, visits = site.listing.plan(agent.Period(NOON + 1, NOON + 100, NOON, 10), None, [])
    assert end == NOON + 100 and [visit.at for visit in visits] == sorted(visit.at for visit in visits)
    assert sorted((visit.name, visit.due - NOON) for visit in visits) == [
        ("A", due) for due in range(20, 101, 20)] + [("B", due) for due in (30, 60, 90)]
    assert {visit.duration for visit in visits} == {45}
    assert [visit.outcome for visit in visits if visit.name == "B"] == [agent.STARTS, agent.SKIPS, agent.STARTS]
    assert [visit.begin == visit.at == visit.due + late(visit.due - NOON, 19, "A") for visit in visits
            if visit.name == "A"] == [True] * 4 + [False]
    assert visits[-1].at > end and visits[-1].outcome == agent.UNFIT       # jitter leads out of the period
    monkeypatch.setattr(agent, "MAX_VISITS", 4)
    end, visits = site.listing.plan(agent.Period(NOON + 1, NOON + 100, NOON, 10), None, [])
    assert (end, len(visits)) == (NOON + 60, 4) and max(visit.due for visit in visits) <= end
    assert site.of("A") == []


class Life(Site):
    """A Site with schedules of random options, through all that may come."""

    def __init__(self, folder, rng):
        super().__init__(folder)
        self.rng, self.steps, self.references = rng, 0, {}
        self.moved = set()          # those whose times were set anew, to the same
        self.locked = None
        for name in ("A", "B", "C"):
            reference = self.references[name] = next(
                made for made in iter(lambda: Reference(rng), None) if made.due and made.due[-1] > 0)
            options = {"misfire": rng.choice(("once", "skip", "all")), "jitter": rng.choice((0, 0, 5, 90)),
                       "overlap": rng.choice(("queue", "skip", "parallel", "stop")), "attempts": rng.choice((1, 2)),
                       "retry_delay": rng.choice((0, 30)), "after": "A" if name == "C" else None}
            options.update(reference.options)
            self.add(name, reference.rule, **{key: value for key, value in options.items() if value})

    def go_on(self):
        rng = self.rng
        self.do(rng.choice(("hold", "release", "hold one", "release one", "set", "end", "end", "start", "lock", "unlock",
                            "step", "update", "times", "nothing", "nothing")), rng.choice("ABC"))
        self.clock.move(rng.choice((0.1, 0.9, 1, 3, 17, 70)))
        self.scheduler.tick() if self.locked else self.tick()

    def do(self, what, name):
        rng = self.rng
        if self.locked and what not in ("unlock", "start", "step", "nothing"):
            return
        if what in ("hold", "release"):
            self.hold_agent(what == "hold")
        elif what in ("hold one", "release one"):
            self.hold_one(what == "hold one", name)
        elif what == "set":
            self.set(name, misfire=rng.choice(("once", "skip", "all")), grace=rng.choice((20, 500)),
                     priority=rng.randrange(9))
        elif what == "update":
            self.schedules.update()
        elif what == "times" and self.references[name].due[-1] > self.clock.time - NOON + 5:
            self.moved.add(name)
            self.changes.set(name, None, lambda schedule: schedule._replace(
                timezone="" if schedule.timezone else "UTC"))
            self.settle()
        elif what == "end":
            for session in self.outstanding(name):
                self.end(session, rng.choice((DONE, ERROR, STOPPED)))
        elif what == "start":
            self.stop(0.0 if self.locked else 10.0)
            self.unlock()
            self.clock.move(rng.choice((0, 1, 100)))
            self.start()
        elif what == "lock" and not self.locked:
            self.locked = self.lock()
        elif what == "unlock":
            self.unlock()
        elif what == "step" and self.steps < 4:
            self.steps += 1
            self.clock.step(rng.choice((-200, -20, -0.7, 0.7, 20, 200)))

    def unlock(self):
        if self.locked:
            self.locked.thing.close()
            self.locked = None
            if self.is_running:
                self.settle()

    def finish(self):
        self.unlock()
        self.hold_agent(False)
        for name in self.references:
            self.hold_one(False, name)
        for _ in range(3):
            self.clock.move(EXCLUDED_S)
            self.tick()

    def check(self, name):
        """Every due time of the rule is decided, and stands in one row, or waits for `after`.

        What was excluded in the last minute before a change of its times is not recorded.
        """
        found, reference = collections.Counter(), self.references[name]
        excluded = [] if name in self.moved else reference.excluded
        row = self.row(name)
        decided = from_text(row["decided"]) - NOON
        if row["waiting"]:
            found[from_text(row["waiting"]) - NOON] += 1
        for made in self.of(name):
            if not isinstance(made, tuple):
                found[made] += 1
                assert made in reference.due
                continue
            first, last, count, reason = made
            inside = [s for s in (excluded if reason == "window" else reference.due) if first <= s <= last]
            if reason != "window" or excluded:
                assert (first, last, count) == (inside[0], inside[-1], len(inside)), made
            found.update(inside)
        now, jitter = self.clock.time - NOON, json.loads(row["options"]).get("jitter", 0)
        assert now < 4000
        assert found == dict.fromkeys({s for s in reference.due + excluded if 0 < s <= decided}, 1)
        left = [s for s in reference.due if decided < s < now]
        following = [s for s in reference.due if left and s > left[0]][:1] or [left and left[0] + jitter + 1]
        assert not left or left[0] + late(left[0], min(jitter, following[0] - left[0] - 1), name) > now
        assert not [s for s in excluded if decided < s < min(left + [now - EXCLUDED_S - 1])]
        with self.repository.db.reading() as connection:
            twice = connection.execute("select due from session where schedule=? and attempt=1 group by due"
                                       " having count(*) > 1", (name,)).fetchall()
        assert not twice


@pytest.mark.parametrize("seed", range(8))
def test_at_random_every_due_time_stands_in_the_ledger_exactly_once(tmp_path, seed, monkeypatch):
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    life = Life(tmp_path, random.Random(seed))
    try:
        for _ in range(50):
            life.go_on()
        life.finish()
        for name in life.references:
            life.check(name)
        assert life.event_count < 300
    finally:
        life.unlock()
        life.stop()
        monkeypatch.undo()
        time.tzset()
