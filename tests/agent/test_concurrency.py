"""The limit of a scenario's sessions at once, over every way to start it."""
import json

import pytest


def import_limited(agent, command="sleep 1000", **concurrency):
    agent.import_os("L", command, concurrency=dict({"limit": 1}, **concurrency))


def test_wait_in_order_of_arrival(inside, monkeypatch):
    monkeypatch.chdir(str(inside.folder))       # where its tasks work
    import_limited(inside, "echo $SESSION >> order; sleep 0.1")
    for _ in range(4):
        inside.ok("EXEC L")
    for number in (1001, 2001, 3001, 4001):
        inside.wait_status(number, "DONE")
    assert (inside.folder / "order").read_text().split() == ["1001", "2001", "3001", "4001"]
    rows = sorted(inside.rows("SESSIONS"), key=lambda row: row["begun"])
    assert all(first["ended"] <= then["begun"] for first, then in zip(rows, rows[1:]))


def test_who_waits_for_the_limit_is_waiting_and_can_be_stopped(inside):
    import_limited(inside)
    inside.ok("EXEC L")
    inside.wait_status(1001, "RUNNING")
    assert inside.ok("EXEC L")["status"] == "WAITING"
    inside.import_os("FREE", "true")
    assert inside.ok("EXEC FREE -SYNC")["status"] == "DONE"      # nobody else waits
    assert inside.ok("STOP 2001")["status"] == "STOPPED"
    assert inside.ok("EXEC L")["status"] == "WAITING"
    inside.ok("STOP 1001 -IMMEDIATE")
    inside.wait_status(4001, "RUNNING")
    inside.ok("STOP 4001 -IMMEDIATE")


def test_error_ends_at_once(inside):
    import_limited(inside, on_limit="error")
    inside.ok("EXEC L")
    assert inside.ok("EXEC L")["status"] == "ERROR"
    assert "limit" in inside.status(2001)["message"]
    assert inside.ok("WAIT 2001")["status"] == "ERROR"
    inside.ok("STOP 1001 -IMMEDIATE")
    assert inside.ok("EXEC L")["status"] == "QUEUED"
    inside.ok("STOP 3001 -IMMEDIATE")


def test_skip_is_busy_and_a_schedule_says_so(inside):
    import_limited(inside, on_limit="skip")
    inside.ok("EXEC L")
    assert inside.err("EXEC L") == "BUSY"
    inside.ok("SCHED ADD N L -1 GLOBAL 'every 1s'")
    inside.let_pass(1)
    row = inside.rows("SCHED WHY N")[0]
    assert (row["decision"], row["reason"], row["session"]) == ("skipped", "limit", "")
    inside.ok("SCHED OFF N")
    assert [row["session"] for row in inside.rows("SESSIONS")] == ["1001"]
    inside.ok("STOP 1001 -IMMEDIATE")


def test_max_wait(inside):
    import_limited(inside, max_wait=0.5)
    inside.ok("EXEC L")
    inside.ok("EXEC L")
    end = inside.ok("WAIT 2001")
    assert end["status"] == "ERROR" and "max_wait" in end["message"]
    assert inside.status(1001)["status"] == "RUNNING"
    inside.ok("STOP 1001 -IMMEDIATE")


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


def test_a_restart_waits_too(inside):
    import_limited(inside)
    for _ in range(2):
        inside.ok("EXEC L")
    inside.wait_status(1001, "RUNNING")
    inside.ok("STOP 2001")
    inside.ok("RESTART 2001")
    assert inside.status(2001)["status"] in ("QUEUED", "WAITING")
    inside.ok("STOP 1001 -IMMEDIATE")
    inside.wait_status(2001, "RUNNING")
    inside.ok("STOP 2001 -IMMEDIATE")


@pytest.mark.parametrize("value, path", [
    ({}, ".concurrency"), ({"limit": 0}, ".concurrency.limit"),
    ({"limit": 1, "on_limit": "queue"}, ".concurrency.on_limit"),
    ({"limit": 1, "max_wait": 0}, ".concurrency.max_wait"), ({"limit": 1, "x": 1}, ".concurrency.x")])
def test_faults(shared_inside, value, path):
    document = {"scenarios": [{"name": "F", "version": "1", "concurrency": value, "steps": [
        {"name": "s", "tasks": [{"type": "os", "command": "true"}]}]}]}
    lines = shared_inside.ask("IMPORT '%s'" % json.dumps(document))
    assert lines[0].startswith("* scenarios[0]%s: " % path), lines
