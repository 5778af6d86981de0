"""What people see of replies: times from now, tables that fit, a session as a tree, due times folded, colours."""
import os
import re
import sys
import time

import pytest

from conftest import TOP, wait_for

sys.path.insert(0, str(TOP / "tools"))

import agentcli     # noqa: E402
from support.client import objects, run_client
from support.terminal import Terminal

pytestmark = pytest.mark.once


def shown_on(port, *words, status=0, **keywords):
    """The lines of a client on a terminal, and all that it wrote."""
    with Terminal(port, *words, **keywords) as terminal:
        assert terminal.end() == status, terminal.text[-3000:]
        return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in terminal.text.split("\r\n")[:-1]], terminal.text


@pytest.mark.parametrize("away_s, shown", [
    (0, "now"), (-0.4, "now"), (-3, "3 s ago"), (42, "in 42 s"), (-60, "1 min ago"), (-200, "3 min ago"), (7199, "in 119 min"),
    (7200, "in 2 h"), (-86400 * 1.5, "36 h ago"), (-86400 * 3, "3 d ago"), (86400 * 20, "2026-01-21"), (-86400 * 20, "2025-12-12")])
def test_times_from_now(away_s, shown, monkeypatch):
    now = agentcli.find_instant("2026-01-01T12:00:00.250+00:00")
    assert agentcli.show_relative(now + away_s, now) == shown


@pytest.mark.parametrize("seconds, shown", [(0.04, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (59.6, "1 m 00 s"), (725, "12 m 05 s"),
                                            (11520, "3 h 12 m"), (183600, "2 d 3 h")])
def test_durations(seconds, shown):
    assert agentcli.show_duration(seconds) == shown


def test_sessions_from_now_on_a_terminal(agent):
    agent.ok("EXEC HELLO -SYNC")
    agent.ok("EXEC HELLO -AT=+125m")
    (heading, coming, past), text = shown_on(agent.port, "sessions", columns=150)
    assert heading.split() == "SESSION SCENARIO VERSION CONTEXT STATUS START_AT BEGUN DURATION WAITS_FOR MESSAGE".split()
    assert "in 2 h" in coming and re.search(r"DONE +(now|\d+ s ago) +0\.\d+$", past)
    assert "\x1b[32mDONE\x1b[0m" in text and "\x1b[2mWAITING\x1b[0m" in text
    assert re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", run_client(agent.port, "sessions").out)
    first, second = objects(run_client(agent.port, "sessions", "--json"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[0-9:.]+[+-]\d\d:\d\d", first["start_at"]) and second["session"] == 1001


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}])
def test_no_colours(shared, env):
    assert "\x1b" not in shown_on(shared.port, "repos", env=env)[1]


def test_colours(agent):
    agent.ok("EXEC HELLO -SYNC")
    for env in ({}, {"NO_COLOR": ""}):
        assert "\x1b[32mDONE\x1b[0m" in shown_on(agent.port, "sessions", env=env)[1]
    assert "\x1b" not in run_client(agent.port, "sessions", env=dict(os.environ, TERM="linux")).out


def test_no_table_is_wider_than_the_terminal(agent, monkeypatch, capfdbinary):
    monkeypatch.delenv("LINES", raising=False)
    agent.import_document({"scenarios": [{"name": "A_RATHER_LONG_NAME_OF_A_SCENARIO", "version": "2026.11.28-1", "steps": [
        {"name": "a_rather_long_name_of_a_step", "tasks": [
            {"type": "os", "name": "a_rather_long_name_of_a_task", "command": "exit 3"}]}]}],
        "schedules": [{"name": "A_RATHER_LONG_NAME_OF_A_SCHEDULE", "scenario": "A_RATHER_LONG_NAME_OF_A_SCENARIO",
                       "rule": "cron 1,2,3,4,5,6,7,8,9,10 3,4,5,6,7 * * mon,tue,wed", "timezone": "UTC",
                       "hours": "02:00-05:00", "jitter": 77, "session_name": "an even longer name of its sessions"},
                      {"name": "NOW", "scenario": "A_RATHER_LONG_NAME_OF_A_SCENARIO", "rule": "every 1s", "keywords": "a,b,c",
                       "session_name": "an even longer name of its sessions"}]})
    agent.ok("EXEC A_RATHER_LONG_NAME_OF_A_SCENARIO -NAME='what I call it' -KEYWORDS=one,two,three -SYNC")
    agent.ok("EXEC HELLO -AT=2099-01-01T03:04:05")
    wait_for(lambda: agent.rows("SCHED WHY"), "a due time")
    agent.ok("HOLD 'a reason that is told at some length' -SCHEDULE=NOW")
    for words in ("sessions", "status 1001", "sched list", "sched next", "sched why", "sched plan", "sched plan --all --to +10s",
                  "sched next --all --count 50", "scenarios"):
        for columns in (120, 80, 40):
            monkeypatch.setenv("COLUMNS", str(columns))
            assert agentcli.main(["--port", str(agent.port)] + words.split()) == 0
            lines = capfdbinary.readouterr().out.decode().splitlines()
            assert lines and max(map(len, lines)) <= columns, (words, lines)
    assert max(map(len, shown_on(agent.port, "sessions", columns=40)[0])) <= 40


def test_a_session_as_a_tree(agent):
    agent.import_document({"scenarios": [{"name": "T", "version": "7", "variables": {"v": "x"}, "steps": [
        {"name": "load", "attempts": 2, "retry_delay": 0, "tasks": [{"type": "os", "name": "quick", "command": "true"},
                                                                   {"type": "os", "command": "sleep 0.3; exit 3"}]}]}]})
    agent.ok("EXEC T -SYNC")
    for lines in (run_client(agent.port, "status", "1001").out.splitlines(), shown_on(agent.port, "status", "1001")[0]):
        end = lines.index("")
        tree = [line.split("  ") for line in lines[:end]]
        assert [line[:line.index("ERROR")].rstrip() if "ERROR" in line else line.rstrip()
                for line in lines[:end] if "DONE" not in line] == [
            "session 1001  T 7", "  1 load", "    1.2 os", "      exit code 3", "  1 load (attempt 2)",
            "    1.2 os (attempt 2)" if "1.2 os (attempt 2)" in "\n".join(lines) else "    1.2 os", "      exit code 3"], lines
        bars = [len(re.findall("[#\u2588]", line)) for line in lines[:end]]
        assert bars[0] == 24 and 8 <= bars[1] <= 13 and all(bar == 1 for bar, line in zip(bars, lines) if "1.1 os" in line)
        assert re.search(r"ERROR +0\.[6-9] s|ERROR +\d\.\d s", lines[0]) and tree
        assert [line.split() for line in lines[-2:]] == [["VARIABLE", "VALUE"], ["v", "x"]]
        assert any(line.startswith("created  2") for line in lines[end:])


def test_a_session_that_has_not_begun(agent):
    agent.ok("EXEC HELLO -AT=2099-01-01T03:04:05")
    lines = run_client(agent.port, "status", "1001").out.splitlines()
    assert lines[0] == "session 1001  HELLO 001  WAITING" and lines[1].startswith("  starts at 2099") | ("2099" in lines[1])
    assert "waits_for  time" in lines


def test_what_comes_is_folded(agent):
    for name, rule in (("MINUTELY", "every 1m"), ("NIGHT", "daily at 02:00"), ("OFFICE", "cron */5 9-17 * * *")):
        agent.ok('SCHED ADD %s HELLO -1 GLOBAL "%s" -TIMEZONE=UTC' % (name, rule))
    rows = [re.split("  +", line) for line in run_client(
        agent.port, "sched", "next", "--from", "2099-01-01T00:00Z", env=dict(os.environ, TZ="UTC0")).out.splitlines()]
    assert rows[0] == ["SCHEDULE", "DUE", "TIMES"]
    assert rows[1][0:2] == ["MINUTELY", "2099-01-01 00:01:00"] and re.fullmatch(r"\d{3} or more", rows[1][-1])
    assert rows[2] == ["NIGHT", "2099-01-01 02:00:00"] and rows[3][:2] == ["OFFICE", "2099-01-01 09:00:00"]
    assert len(rows) == 4
    words = ("sched", "next", "OFFICE", "--count", "250", "--from", "2099-01-01T00:00Z")
    rows = [re.split("  +", line) for line in run_client(
        agent.port, *words, env=dict(os.environ, TZ="UTC0")).out.splitlines()]
    assert rows[1:] == [["OFFICE", "2099-01-0%d 09:00:00" % day, "2099-01-0%d %s:00" % (day, until), times]
                        for day, until, times in ((1, "17:55", "108"), (2, "17:55", "108"), (3, "11:45", "34"))]
    assert len(objects(run_client(agent.port, "--json", *words))) == 250
    assert len(objects(run_client(agent.port, "sched", "next", "--json"))) == 10
    nights = run_client(agent.port, "sched", "next", "NIGHT").out.splitlines()
    assert nights[0].split() == ["SCHEDULE", "DUE"] and len(nights) == 11
    agent.ok("SCHED DEL NIGHT")


def test_each_schedule_has_its_next_due_time(agent):
    """Also one that is due more seldom than others are a thousand times, or than they fill all lines."""
    for name, rule in (("MINUTELY", "every 1m"), ("HOURLY", "hourly at 13:00"), ("YEARLY", "yearly on %s at 02:30" % time.strftime(
            "%m-%d", time.localtime(time.time() + 40 * 86400))), ("OFF", "daily at 02:00")):
        agent.ok('SCHED ADD %s HELLO -1 GLOBAL "%s" -TIMEZONE=UTC%s' % (name, rule, " -ENABLED=no" * (name == "OFF")))
    lines = [line.split() for line in run_client(agent.port, "sched", "next").out.splitlines()[1:]]
    assert lines[0][0] == "MINUTELY" and lines[-1][0] == "YEARLY" and [line[0] for line in lines[1:-1]] == ["HOURLY"] * 8
    assert lines == sorted(lines, key=lambda line: line[1:3])
    lines = run_client(agent.port, "sched", "next", "YEARLY").out.splitlines()
    assert len(lines) == 11 and len({line.split()[1][:4] for line in lines[1:]}) == 10
    agent.ok("SCHED DEL MINUTELY")


def test_what_did_not_start(agent):
    """sched why --decision: of a thousand due times those that matter."""
    agent.import_os("SLOW", "sleep 60")
    agent.ok('SCHED ADD OFTEN SLOW -1 GLOBAL "every 1s" -OVERLAP=skip')
    agent.ok('SCHED ADD GOOD HELLO -1 GLOBAL "every 1s" -OVERLAP=parallel')
    wait_for(lambda: [row for row in agent.rows("SCHED WHY OFTEN") if row["decision"] == "skipped"], "a due time that is skipped")
    rows = objects(run_client(agent.port, "sched", "why", "--decision", "Skipped,failed", "--json"))
    assert {(row["schedule"], row["decision"]) for row in rows if "schedule" in row} == {("OFTEN", "skipped")}
    rows = objects(run_client(agent.port, "sched", "why", "GOOD", "--decision=started", "--limit", "1", "--json"))
    assert [row["decision"] for row in rows if "decision" in row] == ["started"] and "next due" in rows[-1]["note"]
    result = run_client(agent.port, "sched", "why", "--decision", "never")
    assert result.status == 2 and "--decision takes started, late, skipped, failed" in result.err
    for name in ("OFTEN", "GOOD"):
        agent.ok("SCHED OFF " + name)


def test_a_listing_that_is_cut_says_so(agent):
    for _ in range(50):
        agent.ok("EXEC HELLO -AT=2099-01-01")
    hint = "the newest 50; --limit shows more"
    assert shown_on(agent.port, "sessions", columns=120)[0][-1] == hint
    for words in (("sessions", "--limit", "50"), ("sessions", "--json"), ("sched", "next")):
        assert hint not in shown_on(agent.port, *words)[1]
    assert hint not in run_client(agent.port, "sessions").err


def test_which_year_is_told():
    """It is left out where a table is too wide and a month and a day tell."""
    now = agentcli.Clock().now()
    for away_d, length in ((100, 14), (-100, 14), (1000, 19)):
        rows = [{"name": "n" * 30, "at": agentcli.to_text(now + away_d * 86400 + 0.5).replace("Z", "+00:00")}]
        at = agentcli.make_table(rows, 35)[1].split("  ")[-1]
        assert len(at) in (length, length - 3), at
