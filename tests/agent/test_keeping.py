"""What the agent purges by itself, and that no wrong clock makes it purge."""
import logging

import pytest

import agent as program
from conftest import wait_for
from support.outside import query

HOUR, DAY = 3600.0, 86400.0


class MovedClock(program.Clock):
    """The system's, moved by so many seconds."""

    def __init__(self):
        self.of_day = self.steady = 0.0

    def now(self):
        return super().now() + self.of_day

    def monotonic(self):
        return super().monotonic() + self.steady

    def move(self, seconds):
        self.of_day += seconds
        self.steady += seconds


@pytest.fixture
def agent(make_inside):
    """An agent whose clock can be moved, with a session of the key `k` that ended just now."""
    agent = make_inside()
    agent.clock = MovedClock()
    agent.start()
    agent.session = agent.ok("EXEC HELLO -SYNC -KEY=k")["session"]
    look(agent, 0)
    return agent


def look(agent, seconds):
    """Time goes on, and the agent looks whether there is something to purge."""
    def looked():
        return query(agent.work, "select purge_looked from repository")[0][0]
    before = seconds and looked()
    agent.clock.move(seconds)
    agent.agent.keeper.keep()           # or its thread has just begun to
    wait_for(lambda: looked() not in (None, before), "a look")


def is_kept(agent):
    return [row["session"] for row in agent.rows("SESSIONS")] == [agent.session]


def test_a_clock_that_is_ahead_for_a_while_purges_nothing(agent):
    agent.clock.of_day += 400 * DAY
    look(agent, HOUR)
    assert is_kept(agent) and "clock is 400.0 days ahead" in agent.log()
    agent.stop()                        # a start is no proof of it
    agent.start()
    look(agent, HOUR)
    assert is_kept(agent)
    agent.clock.of_day -= 400 * DAY
    for _ in range(30):
        look(agent, HOUR)
    assert is_kept(agent)
    again = agent.ok("EXEC HELLO -KEY=k")
    assert (again["session"], again["duplicate"]) == (agent.session, "yes")
    assert agent.log().count("days ahead") == 1 and "are purged" not in agent.log()


def test_one_that_has_stood_for_a_day_is_believed(agent, caplog):
    caplog.set_level(logging.INFO, "agent")
    agent.clock.of_day += 400 * DAY
    look(agent, HOUR)
    agent.clock.of_day -= 5             # as the network's time service does
    for _ in range(22):
        look(agent, HOUR)
        assert is_kept(agent)
    look(agent, 3 * HOUR)
    wait_for(lambda: agent.rows("SESSIONS") == [], "the purge")
    wait_for(lambda: "1 sessions older than 90 days are purged" in agent.log(), "that to be told")


def test_who_asks_for_it_believes_the_clock(agent):
    agent.clock.of_day += 400 * DAY
    look(agent, HOUR)
    assert is_kept(agent) and agent.ok("PURGE -DAYS=90") == {"purged": "1"}


def test_an_agent_that_was_away_for_long_waits_too(agent):
    agent.stop()
    agent.clock.move(100 * DAY)
    agent.start()
    look(agent, HOUR)
    assert is_kept(agent)
    for _ in range(24):
        look(agent, HOUR)
    wait_for(lambda: agent.rows("SESSIONS") == [], "the purge")
