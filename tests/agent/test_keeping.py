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
def keeping(make_inside):
    """An agent whose clock can be moved, with a session of the key `k` that ended just now."""
    keeping = make_inside()
    keeping.clock = MovedClock()
    keeping.start()
    keeping.session = keeping.ok("EXEC HELLO -SYNC -KEY=k")["session"]
    look(keeping, 0)
    return keeping


def look(keeping, seconds):
    """Time goes on, and the agent looks whether there is something to purge."""
    def looked():
        return query(keeping.work, "select purge_looked from repository")[0][0]
    before = seconds and looked()
    keeping.clock.move(seconds)
    keeping.agent.keeper.keep()           # or its thread has just begun to
    wait_for(lambda: looked() not in (None, before), "a look")


def is_kept(keeping):
    return [row["session"] for row in keeping.rows("SESSIONS")] == [keeping.session]


def test_a_clock_that_is_ahead_for_a_while_purges_nothing(keeping):
    keeping.clock.of_day += 400 * DAY
    look(keeping, HOUR)
    assert is_kept(keeping) and "clock is 400.0 days ahead" in keeping.log()
    keeping.stop()                        # a start is no proof of it
    keeping.start()
    look(keeping, HOUR)
    assert is_kept(keeping)
    keeping.clock.of_day -= 400 * DAY
    for _ in range(30):
        look(keeping, HOUR)
    assert is_kept(keeping)
    again = keeping.ok("EXEC HELLO -KEY=k")
    assert (again["session"], again["duplicate"]) == (keeping.session, "yes")
    assert keeping.log().count("days ahead") == 1 and "are purged" not in keeping.log()


def test_one_that_has_stood_for_a_day_is_believed(keeping, caplog):
    caplog.set_level(logging.INFO, "agent")
    keeping.clock.of_day += 400 * DAY
    look(keeping, HOUR)
    keeping.clock.of_day -= 5             # as the network's time service does
    for _ in range(22):
        look(keeping, HOUR)
        assert is_kept(keeping)
    look(keeping, 3 * HOUR)
    wait_for(lambda: keeping.rows("SESSIONS") == [], "the purge")
    wait_for(lambda: "1 sessions older than 90 days are purged" in keeping.log(), "that to be told")


def test_who_asks_for_it_believes_the_clock(keeping):
    keeping.clock.of_day += 400 * DAY
    look(keeping, HOUR)
    assert is_kept(keeping) and keeping.ok("PURGE -DAYS=90") == {"purged": "1"}


def test_an_agent_that_was_away_for_long_waits_too(keeping):
    keeping.stop()
    keeping.clock.move(100 * DAY)
    keeping.start()
    look(keeping, HOUR)
    assert is_kept(keeping)
    for _ in range(24):
        look(keeping, HOUR)
    wait_for(lambda: keeping.rows("SESSIONS") == [], "the purge")
