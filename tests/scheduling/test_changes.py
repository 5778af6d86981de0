"""Changes of schedules beside all else that goes on: a slow master, other clients, due times that come meanwhile."""
import json
import select
import threading
import time

import pytest

import agent as program
from conftest import sessions_of, wait_for, why
from support.ledger import check_complete
from support.outside import slow_to_read

pytestmark = pytest.mark.once

TICK = {"name": "TICK", "version": "1", "variables": {"v": "1"},
        "steps": [{"name": "a", "tasks": [{"type": "set", "variable": "v", "value": "2"}]}]}


def start_ticking(make_agent):
    """An agent with a schedule S that fires each second."""
    agent = make_agent("--max-sessions", "20", env={"TZ": "UTC"}).start()
    agent.import_document({"scenarios": [TICK]})
    agent.ok('SCHED ADD S TICK -1 GLOBAL "every 1s" -OVERLAP=parallel')
    return agent


# -- a slow master ---------------------------------------------------------------------

def is_answered(client):
    return select.select([client.socket], [], [], 0)[0] != []


@pytest.mark.parametrize("request_of", ["SCHED SET S -PRIORITY=3", 'SCHED ADD T TICK -1 GLOBAL "every 1h"'],
                         ids=["set", "add"])
def test_a_change_that_waits_for_the_master_keeps_nobody_else_waiting(make_agent, request_of):
    agent = start_ticking(make_agent)
    wait_for(lambda: sessions_of(agent, "S"), "S to fire")
    agent.ok("EXEC HELLO -SYNC")
    with agent.connect() as changing:
        with slow_to_read(agent.master):
            changing.send(request_of)
            count, fired, until = 0, len(sessions_of(agent, "S")), time.monotonic() + 1
            while count < 20 or time.monotonic() < until or len(sessions_of(agent, "S")) == fired:
                agent.ok("EXEC TICK")
                count += 1
                assert not is_answered(changing), "after %d sessions of another client" % count
        assert changing.reply() == ["OK schedule=" + request_of.split()[2]]
    agent.ok("EXEC TICK -SYNC")
    assert agent.stop() == 0


# -- changes that meet -----------------------------------------------------------------

def test_a_change_that_meets_due_times_and_other_changes_loses_none(make_agent):
    """Two clients set fields of their own all the while: each keeps what the other has set, and each due time stands
    in the ledger once."""
    agent, faults, last = start_ticking(make_agent), [], {}

    def change(field, count):
        with agent.connect() as client:
            for number in range(1, count + 1):
                said = client.ask("SCHED SET S -%s=%s" % (field, number))[-1]
                if said == "OK schedule=S":
                    last[field] = str(number)
                else:
                    faults.append(said)
    begun = wait_for(lambda: why(agent, "S"), "S to fire")
    rounds = 0
    while rounds < 4 or len(why(agent, "S")) < len(begun) + 4:
        threads = [threading.Thread(target=change, args=(field, 40)) for field in ("PRIORITY", "KEYWORDS")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rounds += 1
    assert faults == []
    options = {row["option"]: row["value"] for row in agent.rows("SCHED SHOW S") if "option" in row}
    assert {field: options[field] for field in last} == last and len(last) == 2
    ended, = agent.rows("SCHED WHY S -LIMIT=1")
    wait_for(lambda: why(agent, "S")[-1]["due"] > ended["due"], "S to go on")
    agent.ok("SCHED OFF S")
    rows = check_complete(why(agent, "S"))
    assert {row["reason"] for row in rows} == {""}
    assert [row["session"] for row in sessions_of(agent, "S")] == [row["session"] for row in rows]
    assert agent.stop() == 0


def changes_of_another_agent(site):
    return program.ScheduleChanges(site.schedules, site.places, site.master, site.clock)


@pytest.mark.parametrize("deed", ["a due time", "another agent", "both"])
def test_a_change_goes_round_again_until_it_meets_nothing(site, deed):      # noqa: F811
    """The change is worked out, and before it is written something else is: it is worked out anew from that."""
    site.add(overlap="parallel")
    site.at(5)
    seen, others = [], changes_of_another_agent(site)

    def meet(number):
        if deed != "another agent":
            site.at(number * 10)
        if deed != "a due time":
            others.set("S", None, lambda schedule: schedule._replace(
                options=dict(schedule.options, keywords="k%d" % number)))

    def changed(schedule):
        seen.append(dict(schedule.options))
        if len(seen) <= 3:
            meet(len(seen))
        return schedule._replace(options=dict(schedule.options, priority=7))
    site.changes.set("S", None, changed)
    assert len(seen) == 4
    site.at(40)
    row = site.row()
    options = site.repository.schedules.read_definition(row).options
    assert options == dict({"overlap": "parallel", "priority": 7}, **{"keywords": "k3"} if deed != "a due time" else {})
    assert site.of() == [10, 20, 30, 40]


def test_a_change_that_always_meets_another_gives_up_and_says_so(site):     # noqa: F811
    site.add()
    site.at(5)
    rounds, others = [], changes_of_another_agent(site)

    def changed(schedule):
        rounds.append(1)
        others.set("S", None, lambda other: other._replace(
            options=dict(other.options, keywords="k%d" % len(rounds))))
        return schedule._replace(options=dict(schedule.options, priority=7))
    with pytest.raises(program.Changed, match="try again"):
        site.changes.set("S", None, changed)
    assert 2 <= len(rounds) <= 100
    site.at(10)
    assert site.of() == [10]


@pytest.mark.parametrize("way", ["set", "import"])
def test_clients_that_change_one_schedule_all_at_once_are_all_served(site, way):     # noqa: F811
    """Each takes its time between reading and writing: none is passed by again and again until it gives up."""
    site.add()
    site.at(5)
    faults, count = [], program.CHANGE_TRIES + 5

    def change(number):
        def changed(schedule):
            time.sleep(0.02)
            return schedule._replace(options=dict(schedule.options, priority=number))
        try:
            site.changes.set("S", None, changed)
        except program.AgentError as error:
            faults.append(str(error))
    threads = [threading.Thread(target=change, args=(number,)) for number in range(1, count + 1)]
    for thread in threads:
        thread.start()
    if way == "import":
        text = json.dumps({"schedules": [{"name": "S", "scenario": "HELLO", "version": "-1", "context": "GLOBAL",
                                          "rule": "every 10s", "timezone": "UTC", "keywords": "imported"}]})
        program.import_into(site.master, site.repository, text, "AGENT", site.clock.now(), False, site.changes)
        site.schedules.refresh(site.repository, "S")
    for thread in threads:
        thread.join()
    assert faults == []
    site.at(10)
    assert site.of() == [10]
