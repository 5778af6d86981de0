"""Times that count from the moment of a request, in every verb that takes a time."""
import time

import agent as program
import pytest
from conftest import wait_for
from support.outside import query
from support.site import NOON


def after_now(text):
    """Seconds from now to a time of a reply."""
    return program.parse_time(text) - time.time()


def test_what_looks_ahead(inside):
    inside.ok("EXEC HELLO -AT=10m")
    inside.ok('EXEC HELLO -AT="tomorrow 02:30"')
    (soon,), (tomorrow,) = query(inside.work, "select start_at from session order by id")
    assert 500 < after_now(soon) <= 600
    assert program.to_local(tomorrow)[10:19] == "T02:30:00" and after_now(tomorrow) > 0
    inside.ok("HOLD -UNTIL=02:30")
    until = inside.ok("PING")["hold_until"]
    assert until[10:19] == "T02:30:00" and 0 < after_now(until) < 90001
    inside.ok("RELEASE")
    assert inside.err("HOLD -UNTIL=-1h") == inside.err("HOLD -UNTIL=today") == "BAD_REQUEST"
    inside.ok("SCHED ADD A HELLO -1 GLOBAL 'every 1h'")
    begin, end = (inside.ok("SCHED PLAN -FROM=2d -TO=3d")[name] for name in ("from", "to"))
    assert 86400 * 2 - 60 < after_now(begin) < 86400 * 2 + 1 and 86400 * 3 - 60 < after_now(end) < 86400 * 3 + 1
    assert len(inside.rows("SCHED NEXT A -FROM=+1d -TO=27h -COUNT=99")) == 3
    assert inside.err("SCHED NEXT A -TO=now -COUNT=99") == "BAD_REQUEST"        # nothing can lie there


def test_what_looks_back(inside):
    inside.ok("EXEC HELLO -SYNC")
    for since, count in (("1h", 1), ("yesterday", 1), ("-90", 1), ("+1h", 0), ("tomorrow", 0), ("now", 0), ("0s", 0),
                         ("'yesterday 23:59'", 1), ("2d", 1)):
        assert len(inside.rows("SESSIONS -SINCE=" + since)) == count, since
    clock = time.strftime("%H:%M:%S", time.localtime(time.time() + 600))        # of yesterday
    assert len(inside.rows("SESSIONS -SINCE=" + clock)) == 1
    assert "must be a time: 2026-12-01, " in inside.ask("SESSIONS -SINCE=10")[-1]


@pytest.mark.parametrize("value", ["tomorrow", "1h", "02:30", "now"])
def test_what_is_stored_must_not_move(inside, value):
    inside.ok("SCHED ADD A HELLO -1 GLOBAL 'every 1h'")
    for line in ("SCHED ADD B HELLO -1 GLOBAL 'every 1h' -FROM=", "SCHED SET A -TO=", "SCHED SET A -FROM="):
        assert inside.err(line + value) == "BAD_REQUEST"


def test_why_at_a_due_time_or_since(site):
    site.add(rule="every 10s", overlap="parallel", misfire="skip")
    for second in (10, 20):
        site.at(second)
    site.stop()
    site.clock.move(35)
    site.start()                                            # 30, 40 and 50 were missed

    def dues(*period):
        rows = [row for _, row in site.listing.list_occurrences("S", None, 50, period)]
        return [(int(program.from_text(row["due"]) - NOON), row["count"]) for row in rows]
    assert dues(0.0, None) == [(30, 3), (20, 1), (10, 1)]
    assert dues(NOON + 20.0, None) == [(30, 3), (20, 1)] and dues(NOON + 45.0, None) == [(30, 3)]
    assert dues(0.0, NOON + 20.0) == [(20, 1)] and dues(0.0, NOON + 40.0) == [(30, 3)] and dues(0.0, NOON + 15.0) == []
    assert dues(NOON + 30.0, NOON + 20.0) == []


def test_why_and_log_look_back(inside):
    inside.ok("SCHED ADD A HELLO -1 GLOBAL 'every 1s'")
    wait_for(lambda: len(inside.rows("SCHED WHY A")) > 1)
    inside.ok("SCHED OFF A")
    rows = inside.rows("SCHED WHY A")
    assert inside.rows("SCHED WHY A -SINCE=1h") == inside.rows("SCHED WHY A -SINCE=today") == rows
    assert inside.rows("SCHED WHY A -SINCE=+1h") == [] == inside.rows("SCHED WHY A -DUE=1h")
    assert inside.rows("SCHED WHY A -DUE=%s" % rows[-1]["due"]) == rows[-1:]
    assert inside.rows("SCHED WHY A -DUE=%s" % rows[-1]["due"][11:19]) == rows[-1:]      # the last such clock time
    session = inside.ok("EXEC HELLO -SYNC")["session"]
    lines = inside.ask("LOG %s" % session)
    assert len(lines) == 2 and inside.ask("LOG %s -SINCE=1h" % session) == lines
    assert inside.ask("LOG %s -SINCE=+1h" % session) == inside.ask("LOG %s -FOLLOW -SINCE=+1h" % session) == lines[1:]
