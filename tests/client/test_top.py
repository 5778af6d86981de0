"""top: what stands on its screen, what keys do, and its plain pages."""
import re
import signal
import sys

import pytest

from conftest import LIMIT_S, TOP, wait_for

sys.path.insert(0, str(TOP / "tools"))

import agentcli     # noqa: E402
from support.client import run_client, spawn
from support.terminal import Terminal


@pytest.fixture
def crowded(make_agent, tmp_path):
    """An agent with something in every part of the page; what runs ends when the file `gate` is there."""
    agent = make_agent("--max-sessions", "1").start()
    agent.gate = tmp_path / "gate"
    agent.gate.write_text("")
    agent.import_os("LOAD", "echo first; while [ ! -e '%s' ]; do sleep 0.05; done; echo last" % agent.gate)
    agent.import_os("BAD", "echo oops; exit 3")
    agent.ok("SCHED ADD MINUTELY HELLO -1 GLOBAL 'every 1m' -FROM=2099-01-01")
    agent.ok("SCHED ADD NIGHT HELLO -1 GLOBAL 'at 2099-01-01 02:00'")
    agent.ok("HOLD 'not tonight' -SCHEDULE=NIGHT")
    agent.ok("EXEC LOAD -SYNC")
    agent.ok("EXEC BAD -SYNC")
    agent.gate.unlink()
    agent.ok("EXEC LOAD")
    agent.wait_status(3001, "RUNNING")
    agent.ok("EXEC HELLO -NAME=next")
    yield agent
    agent.gate.write_text("")


@pytest.mark.parametrize("rows, columns", [(24, 80), (50, 200)])
def test_what_stands_on_the_screen(crowded, rows, columns):
    with Terminal(crowded.port, "top", rows=rows, columns=columns) as terminal:
        terminal.wait_screen("q quit")
        lines = terminal.screen()
        text = "\n".join(lines)
        assert re.match(r"AGENT \S+  READY  up .* running 1  queued 1  repositories 1/1", lines[0])
        assert re.search(r"RUNNING 1\n> +3001 +LOAD +\S+ s  [\u2588\u2591]{10} +\S+ s (over|to go)", text)
        assert re.search(r"QUEUE 1\n +4001 +HELLO +next +QUEUED", text)
        assert re.search(r"FAILED 1\n +2001 +BAD +ERROR +\S+( s ago)? +step main: task 1: exit code 3", text)
        assert re.search(r"NEXT\n +MINUTELY .*excluded before.*\n +MINUTELY .*01-01 00:0\d:00  x \d{3}\+", text) and re.search(r"HELD SCHEDULES 1\n +NIGHT +not", text)
        assert lines[-1].startswith("arrows choose") and "q quit" in lines[-1] and "\x1b[31mERROR" in terminal.text
        terminal.type("q")
        assert terminal.end() == 0


def test_it_follows_the_window_and_the_agent(crowded):
    with Terminal(crowded.port, "top", "--every", "0.2", rows=24, columns=80) as terminal:
        terminal.wait_screen(r"QUEUE 1\n")
        terminal.resize(12, 60)
        terminal.wait_screen(r"(.*\n){11}arrows choose")
        terminal.resize(40, 120)
        terminal.wait_screen(r"(.*\n){39}arrows choose .*q quit")
        crowded.gate.write_text("")
        terminal.wait_screen(r"RUNNING 0\nFAILED 1")
        crowded.ok("HOLD maintenance")
        terminal.wait_screen(r"\nHELD by \S+: maintenance")
        port = crowded.port
        crowded.stop()
        terminal.wait_screen("^(cannot connect to|lost the agent at) 127.0.0.1:%d" % port)
        terminal.type("\x03")
        assert terminal.end() == 0


def test_keys(crowded):
    with Terminal(crowded.port, "top", "--every", "0.2", rows=30, columns=100) as terminal:
        terminal.wait_screen(r"RUNNING 1\n> +3001")
        terminal.type("\n")                                         # the log of what is chosen
        terminal.wait_screen(r"^session 3001\n\d\d:\d\d:\d\d main/1 out first")
        crowded.gate.write_text("")
        terminal.wait_screen(r"main/1 out last\n(.*\n)*session 3001 has ended: DONE")
        terminal.type("q")
        terminal.wait_screen(r"RUNNING 0\nFAILED 1\n> +2001")
        terminal.type("r")
        terminal.wait_screen("restart session 2001: y, any other key: not")
        terminal.type("n")
        wait_for(lambda: terminal.read() or "restart session" not in "\n".join(terminal.screen()), "the answer")
        assert crowded.status(2001)["status"] == "ERROR"
        terminal.type("ry")
        terminal.wait_screen("restart 2001: session=2001 status=QUEUED")
        wait_for(lambda: len(crowded.log_texts(2001)) == 2, "the second attempt")
        crowded.wait_status(2001, "ERROR")
        terminal.wait_screen(r"FAILED 1\n> +2001")
        terminal.type("s")
        terminal.wait_screen("stop session 2001: t after its task, n now")
        terminal.type("n")
        terminal.wait_screen("ERR CONFLICT")
        terminal.type("\x1b[B")                                     # down
        terminal.wait_screen(r"NEXT\n> +MINUTELY")
        terminal.type("hy")
        terminal.wait_screen("hold --schedule=MINUTELY: schedule=MINUTELY hold=yes")
        assert [row["hold"] for row in crowded.rows("SCHED LIST")] == ["yes", "yes"]
        terminal.type("uy")
        terminal.wait_screen("release --schedule=\\S+: schedule=\\S+ hold=no")
        terminal.type("Hy")
        terminal.wait_screen(r"\nHELD by .*(.*\n)*hold: agent=AGENT hold=yes")
        terminal.type("Uy")
        terminal.wait_screen("release: agent=AGENT hold=no")
        terminal.type("q")
        assert terminal.end() == 0
    assert crowded.ok("PING")["hold"] == "no"


def test_stop_of_what_runs(crowded):
    with Terminal(crowded.port, "top", "--every", "0.2", rows=30, columns=100) as terminal:
        terminal.wait_screen(r"RUNNING 1\n> +3001")
        terminal.type("sn")
        terminal.wait_screen("RUNNING 0\n(.*\n)*> +3001 +LOAD +STOPPED")
        terminal.type("q")
        assert terminal.end() == 0


def test_plain_pages(crowded):
    result = run_client(crowded.port, "top", "--count", "2", "--every", "0.1")
    assert result.status == 0 and result.err == ""
    first, second = result.out.strip().split("\n\n")
    for page in (first, second):
        assert re.match(r"AGENT .*\nRUNNING 1\n +3001 +LOAD .*\nQUEUE 1\n +4001 .*\nFAILED 1\n.*\nNEXT\n.*\n", page)
    with Terminal(crowded.port, "top", "--every", "0.1", env={"TERM": "dumb"}) as terminal:
        terminal.wait_text(r"(?s)AGENT .*RUNNING 1.*\r\n\r\nAGENT ")
        assert "\x1b" not in terminal.text
        terminal.type("\x03")
        assert terminal.end() == 0
    process = spawn(crowded.port, "top")
    assert process.stdout.readline().startswith(b"AGENT ")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0


def test_what_top_refuses():
    assert run_client(1, "top").status == 3
    for words in (("--every", "x"), ("--count", "0"), ("extra",)):
        assert run_client(1, "top", *words).status == 2


@pytest.mark.parametrize("wanted, room, shares", [([3, 1, 2], 10, [3, 1, 2]), ([3, 1, 2], 4, [2, 1, 1]), ([5, 5], 1, [1, 0]), ([], 9, []),
                                                  ([2], -1, [0])])
def test_the_room_is_shared(wanted, room, shares):
    assert agentcli.share_lines(wanted, room) == shares
