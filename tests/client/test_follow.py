"""exec, restart and wait with --follow: steps, output, bars, Ctrl-C, ends."""
import re
import signal

import pytest

from conftest import LIMIT_S, wait_for
from support.client import objects, run_client, spawn
from support.terminal import Terminal

pytestmark = pytest.mark.once


def made_of(*commands, **fields):
    """A scenario F with a step of one command each."""
    return {"scenarios": [dict({"name": "F", "version": "1", "steps": [
        {"name": "s%d" % number, "tasks": [{"type": "os", "command": command}]}
        for number, command in enumerate(commands, 1)]}, **fields)]}


@pytest.mark.parametrize("command, status, end", [("true", 0, "DONE"), ("exit 3", 1, "ERROR")])
def test_output_alone_is_on_stdout(agent, command, status, end):
    agent.import_document(made_of("echo one; echo 'two  \t*'; echo oops >&2", "echo three; " + command))
    result = run_client(agent.port, "exec", "F", "--follow")
    assert (result.status, result.out) == (status, "one\ntwo  \t*\nthree\n")
    lines = result.err.splitlines()
    assert lines[0] == "session=1001 status=QUEUED" and "oops" in lines
    assert re.match(r"session 1001  %s  after \d+\.\d s" % end, lines[-1])
    told = [line for line in lines if line.startswith("step ")]
    assert [line.split("  ")[:2] for line in told if "RUNNING" not in line] == [["step 1 s1", "DONE"], ["step 2 s2", end]]
    again = run_client(agent.port, "wait", "1001", "--follow")
    assert (again.status, again.out) == (status, result.out)


def test_json(agent):
    agent.import_document(made_of("echo one; echo two >&2"))
    first, *lines, last = objects(run_client(agent.port, "exec", "F", "--follow", "--json"))
    assert first == {"session": 1001, "status": "QUEUED"} and (last["session"], last["status"]) == (1001, "DONE")
    assert sorted((line["step"], line["stream"], line["text"]) for line in lines) == [("s1", "err", "two"), ("s1", "out", "one")]


def test_output_comes_as_it_is_printed(agent, tmp_path):
    gate = tmp_path / "gate"
    agent.import_document(made_of("echo first; while [ ! -e '%s' ]; do sleep 0.05; done; echo second" % gate))
    process = spawn(agent.port, "exec", "F", "--follow")
    assert process.stdout.readline() == b"first\n"
    gate.write_text("")
    out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (0, b"second\n"), err


def test_what_it_waits_for_is_told(agent):
    agent.import_document(made_of("echo on"))
    agent.ok("HOLD maintenance")
    process = spawn(agent.port, "exec", "F", "--follow")
    lines = [process.stderr.readline().decode() for _ in range(2)]
    assert "waits_for=hold" in lines[0] and re.match("session 1001  WAITING  held .*: maintenance$", lines[1])
    agent.ok("RELEASE")
    assert process.communicate(timeout=LIMIT_S)[0] == b"on\n" and process.returncode == 0


def test_restart_shows_only_what_is_new(agent, tmp_path):
    gate = tmp_path / "gate"
    agent.import_document(made_of("echo one", "echo two; test -e '%s'" % gate))
    assert run_client(agent.port, "exec", "F", "--follow").status == 1
    gate.write_text("")
    result = run_client(agent.port, "restart", "1001", "--follow")
    assert (result.status, result.out) == (0, "two\n"), result
    assert run_client(agent.port, "restart", "1001", "--follow").status == 4


def test_what_is_refused(shared):
    result = run_client(shared.port, "exec", "NONE", "--follow")
    assert (result.status, result.out) == (4, "") and "ERR NOT_FOUND" in result.err
    assert run_client(shared.port, "wait", "77001", "--follow").status == 4
    result = run_client(shared.port, "wait", "1001", "--follow", "--timeout", "1")
    assert result.status == 2 and "Ctrl-C" in result.err


@pytest.mark.parametrize("is_orderly", [False, True])
def test_the_agent_goes_while_it_is_watched(agent, is_orderly):
    agent.import_document(made_of("echo on; exec sleep 1000", on_stale="adopt") if is_orderly else
                          made_of("echo on; exec sleep 1000"))
    process = spawn(agent.port, "exec", "F", "--follow")
    assert process.stdout.readline() == b"on\n"
    if is_orderly:
        agent.ok("SHUTDOWN -LEAVE")
        agent.wait()
    else:
        agent.kill()
    out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (3, b""), err
    assert "session 1001 goes on, if the agent does: wait 1001 --follow" in err.decode().splitlines()[-1]
    agent.start()
    if is_orderly:
        agent.ok("STOP 1001 -IMMEDIATE")
    agent.wait_status(1001, "STOPPED" if is_orderly else "ERROR")


def test_ctrl_c_without_a_terminal_leaves_it(agent):
    agent.import_document(made_of("echo on; sleep 1000"))
    process = spawn(agent.port, "exec", "F", "--follow")
    assert process.stdout.readline() == b"on\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (130, b"")
    assert err.decode().splitlines()[-1] == "agentcli: session 1001 goes on: wait 1001 --follow follows it again"
    assert agent.status(1001)["status"] == "RUNNING"
    agent.ok("STOP 1001 -IMMEDIATE")


@pytest.mark.parametrize("typed, status, end", [("l\n", 130, "RUNNING"), ("\x03", 130, "RUNNING"), ("s\n", 1, "STOPPED"),
                                                ("?\n\n", 0, "DONE")])
def test_ctrl_c_asks_on_a_terminal(agent, tmp_path, typed, status, end):
    gate = tmp_path / "gate"
    agent.import_document(made_of("echo on; while [ ! -e '%s' ]; do sleep 0.05; done; echo off" % gate))
    with Terminal(agent.port, "exec", "F", "--follow") as terminal:
        terminal.wait_text("\non\r\n")
        terminal.type("\x03")
        terminal.wait_text("s stops it now")
        terminal.type(typed)
        if end == "DONE":
            wait_for(lambda: terminal.text.count("s stops it now") == 2 or terminal.read(), "the second question")
            gate.write_text("")
        assert terminal.end() == status, terminal.text
        assert ("session 1001 goes on" in terminal.text) == (end == "RUNNING")
    assert agent.status(1001)["status"] == end
    if end == "RUNNING":
        agent.ok("STOP 1001 -IMMEDIATE")


def test_bars_from_past_sessions(agent, tmp_path):
    gate = tmp_path / "gate"
    agent.import_document(made_of("true", "echo on; while [ ! -e '%s' ]; do sleep 0.05; done" % gate))
    gate.write_text("")
    agent.ok("EXEC F -SYNC")
    gate.unlink()
    with Terminal(agent.port, "exec", "F", "--follow", columns=75) as terminal:
        step = terminal.wait_screen(r"step 2 s2 +RUNNING +\S+ s +\u2588{20} +\S+ s over the usual").group()
        terminal.wait_screen(r"session 2001 +RUNNING +\S+ s +\u2588{20} +\S+ s over the usual")
        terminal.wait_screen(r"step 1 s1  DONE  after .*\n(.*\n)*on\n")
        gate.write_text("")
        assert terminal.end() == 0 and "\x1b[36mRUNNING" in terminal.text
        lines = [line for line in terminal.screen() if line]
        assert max(map(len, lines)) < 75 and step not in lines
        assert [line.split("  ")[0] for line in lines] == [
            "session=2001 status=QUEUED"] + [line.split("  ")[0] for line in lines[1:-1]] + ["session 2001"]
        assert re.match(r"session 2001  DONE  after \d\.\d s$|session 2001  DONE  after \d+ s$", lines[-1])


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_where_none_are_wanted(agent, env):
    agent.import_document(made_of("echo on; sleep 0.3"))
    with Terminal(agent.port, "exec", "F", "--follow", env=env) as terminal:
        assert terminal.end() == 0
        assert not re.search(r"\x1b\[[0-9;]*m", terminal.text) and "session 1001  DONE" in terminal.text
        assert ("\x1b" in terminal.text) == ("NO_COLOR" in env)


def test_output_to_a_file_and_steps_on_the_terminal(agent, tmp_path):
    agent.import_document(made_of("echo on; echo off >&2"))
    with open(str(tmp_path / "out"), "wb") as out, Terminal(agent.port, "exec", "F", "--follow", out=out) as terminal:
        assert terminal.end() == 0 and "\r\noff\r\n" in terminal.text
    assert (tmp_path / "out").read_text() == "on\n"


def test_a_pipe_that_nobody_reads(agent):
    agent.import_document(made_of("seq 1 40000; sleep 1000"))
    process = spawn(agent.port, "exec", "F", "--follow")
    assert process.stdout.readline() == b"1\n"
    process.stdout.close()
    assert process.wait(LIMIT_S) == 141
    process.stdin.close()
    process.stderr.close()
    agent.ok("STOP 1001 -IMMEDIATE")


def test_shutdown_wait(agent, tmp_path):
    agent.import_document(made_of("echo on; trap '' TERM; sleep 0.5"))
    agent.ok("EXEC F")
    agent.wait_status(1001, "RUNNING")
    result = run_client(agent.port, "shutdown", "--wait")
    assert (result.status, result.out) == (0, "OK\n")
    assert run_client(agent.port, "ping").status == 3
    assert agent.process.wait(LIMIT_S) == 0
