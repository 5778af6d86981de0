"""A whole agent on a clock that the test sets: steps while it runs, and a start on a clock that was wrong."""
import time
from datetime import datetime

import pytest

from conftest import TOP, sessions_of, wait_for

SCRIPT = """import sys
sys.path.insert(0, %r)
import agent


class MovedClock(agent.Clock):
    \"\"\"The system's, so many seconds ahead as a file says.\"\"\"

    def now(self):
        with open("ahead") as file:
            return super().now() + float(file.read() or 0)


if __name__ == "__main__":
    sys.exit(agent.main(clock=MovedClock()))
""" % str(TOP)


@pytest.fixture
def moved(make_agent):
    agent = make_agent()
    agent.folder.mkdir(parents=True)
    agent.script = agent.folder / "moved.py"
    agent.script.write_text(SCRIPT)
    set_ahead(agent, 0)
    return agent


def set_ahead(agent, seconds):
    """Sets the agent's clock, at once and whole."""
    new = agent.folder / "ahead.new"
    new.write_text(str(seconds))
    new.replace(agent.folder / "ahead")


def add_hello(agent, name, rule, *options):
    agent.ok('SCHED ADD %s HELLO 001 GLOBAL "%s" %s' % (name, rule, " ".join(options)))


def steps(agent):
    """What the ledger says of steps of the clock, newest first."""
    return [row["message"] for row in agent.rows("SCHED WHY -LIMIT=1000") if "the clock stepped" in row["message"]
            and not row["schedule"]]


def test_a_step_forward_and_back_while_it_runs(moved):
    moved.start()
    # half an hour from now, so that none is due but by the steps
    rule = time.strftime("hourly at %M:%S", time.localtime(time.time() + 1800))
    add_hello(moved, "ONCE", rule)
    add_hello(moved, "NEVER", rule, "-MISFIRE=skip")
    set_ahead(moved, 7210)
    wait_for(lambda: steps(moved), "the step forward to stand in the ledger")
    wait_for(lambda: sessions_of(moved, "ONCE"), "one session for the missed two hours")
    assert "clock stepped forward by 72" in moved.log()
    skipped = wait_for(lambda: [row for row in moved.rows("SCHED WHY NEVER")
                                if "clock stepped forward" in row["message"]], "the missed ones to be decided")
    assert sum(int(row["count"]) for row in skipped) == 2
    count, again = len(sessions_of(moved, "ONCE")), len(sessions_of(moved, "NEVER"))
    set_ahead(moved, 0)
    wait_for(lambda: len(steps(moved)) == 2, "the step back to stand in the ledger")
    assert "clock stepped back by 72" in steps(moved)[0] + steps(moved)[1] and "does not fire again" in moved.log()
    moved.ok("EXEC HELLO -SYNC")
    assert (len(sessions_of(moved, "ONCE")), len(sessions_of(moved, "NEVER"))) == (count, again)
    due = [row["due"] for row in sessions_of(moved, "ONCE") + sessions_of(moved, "NEVER")]
    assert len(due) == 1


def test_a_clock_that_was_years_ahead_at_a_start(inside):
    inside.stop()
    inside.clock.passed = 8 * 365 * 86400
    inside.start()
    add_hello(inside, "S", "every 1s", "-OVERLAP=parallel")
    inside.let_pass(4)
    assert len(sessions_of(inside, "S")) > 2
    inside.stop()
    inside.clock.passed = 0
    inside.start()
    before = {row["due"] for row in sessions_of(inside, "S")}
    assert inside.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    following = inside.rows("SCHED NEXT S -COUNT=1")[0]
    assert following["due"] > max(before)
    assert "the clock was ahead" in following["note"] and "SCHED ON" in following["note"]
    assert "the clock was ahead" in inside.log()
    inside.ok("SCHED OFF S")
    inside.ok("SCHED ON S")
    inside.let_pass(4)
    assert len(sessions_of(inside, "S")) > len(before) + 2
    new = [row for row in sessions_of(inside, "S") if row["due"] not in before]
    assert all(datetime.strptime(row["due"][:19], "%Y-%m-%dT%H:%M:%S").year < int(min(before)[:4]) for row in new)
    assert len({row["due"] for row in new}) == len(new)
    assert not inside.rows("SCHED NEXT S -COUNT=1")[0]["note"]
