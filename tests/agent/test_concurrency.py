"""The limit of a scenario's sessions at once, over every way to start it."""
import json

import pytest

from conftest import wait_for


def import_limited(agent, command="sleep 1000", **concurrency):
    agent.import_os("L", command, concurrency=dict({"limit": 1}, **concurrency))


def test_wait_in_order_of_arrival(agent):
    import_limited(agent, "echo $SESSION >> order; sleep 0.1")
    for _ in range(4):
        agent.ok("EXEC L")
    for number in (1001, 2001, 3001, 4001):
        agent.wait_status(number, "DONE")
    assert (agent.folder / "order").read_text().split() == ["1001", "2001", "3001", "4001"]
    rows = sorted(agent.rows("SESSIONS"), key=lambda row: row["begun"])
    assert all(first["ended"] <= then["begun"] for first, then in zip(rows, rows[1:]))


def test_who_waits_for_the_limit_is_waiting_and_can_be_stopped(agent):
    import_limited(agent)
    agent.ok("EXEC L")
    agent.wait_status(1001, "RUNNING")
    assert agent.ok("EXEC L")["status"] == "WAITING"
    agent.import_os("FREE", "true")
    assert agent.ok("EXEC FREE -SYNC")["status"] == "DONE"      # nobody else waits
    assert agent.ok("STOP 2001")["status"] == "STOPPED"
    assert agent.ok("EXEC L")["status"] == "WAITING"
    agent.ok("STOP 1001 -IMMEDIATE")
    agent.wait_status(4001, "RUNNING")
    agent.ok("STOP 4001 -IMMEDIATE")


def test_error_ends_at_once(agent):
    import_limited(agent, on_limit="error")
    agent.ok("EXEC L")
    assert agent.ok("EXEC L")["status"] == "ERROR"
    assert "limit" in agent.status(2001)["message"]
    assert agent.ok("WAIT 2001")["status"] == "ERROR"
    agent.ok("STOP 1001 -IMMEDIATE")
    assert agent.ok("EXEC L")["status"] == "QUEUED"
    agent.ok("STOP 3001 -IMMEDIATE")


def test_skip_is_busy_and_a_schedule_says_so(agent):
    import_limited(agent, on_limit="skip")
    agent.ok("EXEC L")
    assert agent.err("EXEC L") == "BUSY"
    agent.ok("SCHED ADD N L -1 GLOBAL 'every 1s'")
    row = wait_for(lambda: agent.rows("SCHED WHY N"), "a decision")[0]
    assert (row["decision"], row["reason"], row["session"]) == ("skipped", "limit", "")
    agent.ok("SCHED OFF N")
    assert [row["session"] for row in agent.rows("SESSIONS")] == ["1001"]
    agent.ok("STOP 1001 -IMMEDIATE")


def test_max_wait(agent):
    import_limited(agent, max_wait=0.5)
    agent.ok("EXEC L")
    agent.ok("EXEC L")
    end = agent.ok("WAIT 2001")
    assert end["status"] == "ERROR" and "max_wait" in end["message"]
    assert agent.status(1001)["status"] == "RUNNING"
    agent.ok("STOP 1001 -IMMEDIATE")


def test_kept_over_restarts_of_the_agent(make_agent):
    agent = make_agent().start()
    import_limited(agent, "echo begin $SESSION >> order; until [ -e go ]; do sleep 0.05; done; sleep 0.1;"
                   " echo end $SESSION >> order")
    for _ in range(4):
        agent.ok("EXEC L")
    agent.wait_status(1001, "RUNNING")
    agent.kill()
    (agent.folder / "go").touch()
    agent.start()
    for number in (2001, 3001, 4001):
        agent.wait_status(number, "DONE")
    lines = [line for line in (agent.folder / "order").read_text().splitlines() if "1001" not in line]
    assert lines == [word + " " + str(n) for n in (2001, 3001, 4001) for word in ("begin", "end")]


def test_over_two_agents_of_one_repository(make_agent):
    first = make_agent().start()
    import_limited(first)
    second = make_agent("--name", "OTHER").start()
    first.ok("EXEC L")
    first.wait_status(1001, "RUNNING")
    second.ok("EXEC L")
    second.ok("EXEC HELLO -SYNC")
    assert first.status(2001)["status"] == "WAITING"
    first.ok("STOP 1001 -IMMEDIATE")
    second.wait_status(2001, "RUNNING")
    second.ok("STOP 2001 -IMMEDIATE")


def test_a_restart_waits_too(agent):
    import_limited(agent)
    for _ in range(2):
        agent.ok("EXEC L")
    agent.wait_status(1001, "RUNNING")
    agent.ok("STOP 2001")
    agent.ok("RESTART 2001")
    assert agent.status(2001)["status"] in ("QUEUED", "WAITING")
    agent.ok("STOP 1001 -IMMEDIATE")
    agent.wait_status(2001, "RUNNING")
    agent.ok("STOP 2001 -IMMEDIATE")


@pytest.mark.parametrize("value, path", [
    ({}, ".concurrency"), ({"limit": 0}, ".concurrency.limit"),
    ({"limit": 1, "on_limit": "queue"}, ".concurrency.on_limit"),
    ({"limit": 1, "max_wait": 0}, ".concurrency.max_wait"), ({"limit": 1, "x": 1}, ".concurrency.x")])
def test_faults(shared, value, path):
    document = {"scenarios": [{"name": "F", "version": "1", "concurrency": value, "steps": [
        {"name": "s", "tasks": [{"type": "os", "command": "true"}]}]}]}
    lines = shared.ask("IMPORT '%s'" % json.dumps(document))
    assert lines[0].startswith("* scenarios[0]%s: " % path), lines
