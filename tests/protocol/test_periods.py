"""Two times of a request that leave nothing between them are refused; and what SCHED LIST says of the last session."""
import pytest

from conftest import wait_for


@pytest.fixture(scope="module")
def with_schedule(shared_inside):
    shared_inside.ok("SCHED ADD PAIRS HELLO -1 GLOBAL 'every 1h' -ENABLED=no")
    return shared_inside


@pytest.mark.parametrize("line, words", [
    ("SCHED NEXT -FROM=2026-05-02 -TO=2026-05-01", "-TO -FROM"),
    ("SCHED NEXT PAIRS -FROM=2026-05-02 -TO=2026-05-01 -ALL", "-TO -FROM"),
    ("SCHED NEXT -FROM=2026-05-01T10:00 -TO=2026-05-01T10:00", "-TO -FROM"), ("SCHED NEXT -TO=now", "-TO past"),
    ("SCHED NEXT -TO=2001-01-01", "-TO past"), ("SCHED PLAN -TO=2001-01-01", "-TO past"),
    ("SCHED PLAN -FROM=2026-05-02T00:00 -TO=2026-05-02T00:00", "-TO -FROM"),
    ("SCHED WHY PAIRS -DUE=2026-05-01 -SINCE=2026-05-02", "-DUE -SINCE"),
    ("HOLD -UNTIL=2001-01-01", "-UNTIL past"),
    ("SCHED ADD P2 HELLO -1 GLOBAL 'every 1h' -FROM=2026-05-02 -TO=2026-05-01", "from"),
    ("SCHED SET PAIRS -FROM=2026-05-02 -TO=2026-05-01", "from")])
def test_nothing_lies_between(with_schedule, line, words):
    message = with_schedule.ask(line)[-1]
    assert message.startswith("ERR BAD_REQUEST") and all(word in message for word in words.split()), message


@pytest.mark.parametrize("line", [
    "SCHED NEXT -FROM=2026-05-01 -TO=2026-05-01",
    "SCHED NEXT -TO=+1h", "SCHED NEXT -FROM=2026-05-01T10:00 -TO=2026-05-01T10:00:01", "SCHED WHY -DUE=2026-05-02 -SINCE=2026-05-01", "SCHED WHY -DUE=2026-05-02 -SINCE=2026-05-02"])
def test_something_may(with_schedule, line):
    assert with_schedule.ask(line)[-1].startswith("OK")


def test_a_listing_of_schedules_has_the_newest_session(inside):
    inside.import_os("BAD", "exit 3")
    inside.ok("SCHED ADD S BAD -1 GLOBAL 'every 1h'")
    assert inside.rows("SCHED LIST")[0]["last_session"] == inside.rows("SCHED LIST")[0]["last_status"] == ""
    numbers = []
    for _ in range(2):
        inside.let_pass(3600)
        wait_for(lambda: len(inside.rows("SESSIONS -STATUS=ERROR")) > len(numbers), "the session")
        numbers.append(inside.rows("SESSIONS")[0]["session"])
        row = inside.rows("SCHED SHOW S")[0]
        assert (row["last_session"], row["last_status"]) == (numbers[-1], "ERROR")
    assert inside.rows("SCHED LIST")[0]["last_session"] == numbers[1] > numbers[0]
    inside.ok("PURGE -DAYS=0 -KEEP=0")
