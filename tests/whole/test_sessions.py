"""Sections 10 and 11 on real agents: what a session does with its definition, and how it is stopped."""
import itertools
import json
import os
import re
import shlex
import sys
import time
from datetime import datetime, timedelta

import pytest

import agent as agent_module
from conftest import ahead, fields_of, is_alive, local, wait_for
from support.queues import QueuedSession, WellRepository
from support.tasks import add_steps, step

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def roomy(make):
    """One agent for the tests that only run scenarios; each has names of its own."""
    return make("shared", "--max-sessions", "20")


def run_steps(agent, *steps, **fields):
    """Runs a scenario to its end -> the fields of its end."""
    return agent.ok("EXEC %s -SYNC" % add_steps(agent, *steps, **fields))


def run_task(agent, command, options="", variables=None, **fields):
    """Runs one os task -> (the session's end, the task's line, what it printed)."""
    name = add_steps(agent, step("main", dict(fields, command=command)), variables=variables or {})
    end = agent.ok("EXEC %s -SYNC %s" % (name, options))
    task = next(row for row in agent.rows("STATUS %s" % end["session"]) if "task" in row)
    return end, task, agent.log_texts(end["session"])


def begin_session(agent, name, options=""):
    """Starts a session -> its number."""
    return agent.ok("EXEC %s %s" % (name, options))["session"]


def history(agent, session):
    """[(step, attempt, status)] of the steps' attempts."""
    return [(row["name"], int(row["attempt"]), row["status"])
            for row in agent.rows("STATUS %s" % session) if "step" in row]


def tasks_of(agent, session):
    """[(task, attempt, status)]"""
    return [(row["task"], int(row["attempt"]), row["status"])
            for row in agent.rows("STATUS %s" % session) if "task" in row]


def variables_of(agent, session):
    return {row["variable"]: row["value"] for row in agent.rows("STATUS %s" % session)
            if "variable" in row}


def say(text, code=0):
    """A command that prints and ends with a code."""
    return "echo %s; exit %d" % (text, code)


# -- the course of a session -----------------------------------------------------------

def test_steps_and_tasks_run_in_order(roomy):
    end = run_steps(roomy, step("a", "echo a1", "echo a2"), step("b", "echo b1"), step("c", "echo c1"))
    assert end["status"] == "DONE" and end["message"] == ""
    assert roomy.log_texts(end["session"]) == ["a1", "a2", "b1", "c1"]
    assert history(roomy, end["session"]) == [(name, 1, "DONE") for name in "abc"]
    assert tasks_of(roomy, end["session"]) == [
        ("1.1", 1, "DONE"), ("1.2", 1, "DONE"), ("2.1", 1, "DONE"), ("3.1", 1, "DONE")]


def test_a_failure_ends_the_session_and_what_was_not_reached_has_no_row(roomy):
    end = run_steps(roomy, step("a", "echo a"), step("b", "exit 3", "echo never"), step("c", "echo never"))
    assert end["status"] == "ERROR" and "exit code 3" in end["message"] and "b" in end["message"]
    assert history(roomy, end["session"]) == [("a", 1, "DONE"), ("b", 1, "ERROR")]
    assert tasks_of(roomy, end["session"])[1:] == [("2.1", 1, "ERROR")]
    task = [row for row in roomy.rows("STATUS %s" % end["session"]) if row.get("task") == "2.1"][0]
    assert task["rc"] == "3" and task["message"] == "exit code 3"


@pytest.mark.parametrize("steps, status, order", [
    ([step("a", "true", on_ok="c"), step("b", "true"), step("c", "true")], "DONE", "a c"),
    ([step("a", "true", on_ok="END"), step("b", "true")], "DONE", "a"),
    ([step("a", "true", on_ok="FAIL"), step("b", "true")], "ERROR", "a"),
    ([step("a", "false", on_error="END"), step("b", "true")], "WARNING", "a"),
    ([step("a", "false", on_error="FAIL"), step("b", "true")], "ERROR", "a"),
    ([step("a", "false", on_error="c"), step("b", "true"), step("c", "true")], "WARNING", "a c"),
    ([step("a", "false", on_error="b"), step("b", "true")], "WARNING", "a b"),
    ([step("a", "false", on_error="b"), step("b", "true", on_ok="FAIL")], "ERROR", "a b"),
    ([step("a", "false", on_error="b"), step("b", "false")], "ERROR", "a b"),
    ([step("a", "true"), step("b", "true", on_ok="FAIL")], "ERROR", "a b"),
])
def test_targets(roomy, steps, status, order):
    end = run_steps(roomy, *steps)
    assert end["status"] == status
    assert " ".join(name for name, _, _ in history(roomy, end["session"])) == order


def test_the_scenarios_on_error_takes_failures_without_a_target(roomy):
    steps = [step("a", "echo a; exit 4"), step("b", "echo b"),
             step("alert", "echo alert", on_ok="FAIL")]
    end = run_steps(roomy, *steps, on_error="alert")
    assert roomy.log_texts(end["session"]) == ["a", "alert"]
    # the cause, not its handler, is the session's message
    assert end["status"] == "ERROR" and "exit code 4" in end["message"]
    steps[0]["on_error"] = "FAIL"
    end = run_steps(roomy, *steps, on_error="alert")
    assert roomy.log_texts(end["session"]) == ["a"]


def test_a_handler_that_fails_itself_is_not_handled_by_itself(roomy):
    end = run_steps(roomy, step("a", "exit 4"), step("alert", "exit 5", on_ok="FAIL"), on_error="alert")
    assert end["status"] == "ERROR" and "exit code 4" in end["message"]
    assert history(roomy, end["session"]) == [("a", 1, "ERROR"), ("alert", 1, "ERROR")]


def test_a_warning_of_a_task_rolls_up(roomy):
    steps = [step("a", {"command": "exit 2", "warning_codes": [2]}, "echo on"), step("b", "echo b")]
    end = run_steps(roomy, *steps)
    assert end["status"] == "WARNING"
    assert history(roomy, end["session"]) == [("a", 1, "WARNING"), ("b", 1, "DONE")]
    assert tasks_of(roomy, end["session"])[0] == ("1.1", 1, "WARNING")
    assert roomy.log_texts(end["session"]) == ["on", "b"]


def test_an_error_made_good_by_a_further_attempt_is_no_warning(roomy):
    end = run_steps(roomy, step("a", "echo try; [ -e again ] || { touch again; exit 1; }", attempts=2))
    assert end["status"] == "DONE"
    assert history(roomy, end["session"]) == [("a", 1, "ERROR"), ("a", 2, "DONE")]


def test_loops_are_allowed_and_end_at_max_steps(roomy):
    end = run_steps(roomy, step("a", "echo a", on_ok="b"), step("b", "echo b", on_ok="a"), max_steps=5)
    assert end["status"] == "ERROR" and "max_steps" in end["message"] and "5" in end["message"]
    assert roomy.log_texts(end["session"]) == ["a", "b", "a", "b", "a"]
    assert [n for _, n, _ in history(roomy, end["session"])] == [1, 1, 2, 2, 3]


def test_a_loop_that_ends_by_itself_within_max_steps(roomy):
    counted = {"command": "expr ${n} + 1", "capture": "n", "ok_codes": [0]}
    end = run_steps(roomy, step("count", counted), step("check", "[ $VAR_n -ge 3 ]", on_ok="END",
                                                   on_error="count"),
              variables={"n": 0}, max_steps=6)
    assert end["status"] == "WARNING"       # an error was passed over
    assert variables_of(roomy, end["session"]) == {"n": "3"}


def test_attempts_run_every_task_again_and_wait(roomy):
    name = add_steps(roomy, step("a", "echo one", "echo two; date +%s%N; exit 1", attempts=3,
                            retry_delay=0.3, retry_factor=2))
    end = roomy.ok("EXEC %s -SYNC" % name)
    texts = roomy.log_texts(end["session"])
    assert end["status"] == "ERROR"
    assert [t for t in texts if not t.isdigit()] == ["one", "two"] * 3
    times = [int(t) / 1e9 for t in texts if t.isdigit()]
    assert times[1] - times[0] >= 0.29 and times[2] - times[1] >= 0.59
    assert history(roomy, end["session"]) == [("a", n, "ERROR") for n in (1, 2, 3)]


def test_timeouts(shared_inside):
    agent = shared_inside

    def start(where, seconds=300):
        slow = step("slow", dict({"command": "echo begun; sleep 1000"},
                                 **{"timeout": seconds} if where == "task" else {}),
                    "echo never", on_error="after", **{"timeout": seconds} if where == "step" else {})
        name = add_steps(agent, slow, step("after", "echo after"),
                         **{"timeout": "%ds" % seconds} if where == "scenario" else {})
        return begin_session(agent, name, "-TIMEOUT=%d" % seconds if where == "exec" else "")
    sessions = [(where, start(where)) for where in ("task", "step", "scenario", "exec")]
    wait_for(lambda: all(agent.log_texts(session) == ["begun"] for _, session in sessions))
    agent.let_pass(200)
    assert [agent.status(session)["status"] for _, session in sessions] == ["RUNNING"] * 4
    agent.let_pass(100)
    for where, session in sessions:
        end = agent.ok("WAIT %s" % session)
        line = [row for row in agent.rows("STATUS %s" % session) if "step" in row][0]
        assert "time-out" in line["message"] and "300 s" in line["message"]
        if where in ("task", "step"):           # a failure as any other: it has its target
            assert end["status"] == "WARNING"
            assert agent.log_texts(session) == ["begun", "after"]
        else:                                   # the whole session ends
            assert end["status"] == "ERROR" and "time-out" in end["message"]
            assert agent.log_texts(session) == ["begun"]
            assert history(agent, session) == [("slow", 1, "ERROR")]


def test_a_timed_out_step_has_its_further_attempts_and_a_session_its_restart(shared_inside, tmp_path):
    agent, go = shared_inside, tmp_path / "go"
    retried = begin_session(agent, add_steps(agent, step(
        "a", "echo try; [ -e %s ] || sleep 1000" % go, attempts=2, timeout=300)))
    name = add_steps(agent, step("a", "echo a", "echo b; [ -e %s ] || sleep 1000" % go), step("c", "echo c"))
    stopped, timed_out = begin_session(agent, name), begin_session(agent, name, "-TIMEOUT=300")
    wait_for(lambda: [agent.log_texts(session) for session in (retried, stopped, timed_out)]
             == [["try"], ["a", "b"], ["a", "b"]])
    agent.ok("STOP %s -IMMEDIATE" % stopped)
    go.touch()
    agent.let_pass(300)
    for session, status in ((stopped, "STOPPED"), (timed_out, "ERROR")):
        assert agent.ok("WAIT %s" % session)["status"] == status
    for session in (stopped, timed_out):
        agent.ok("RESTART %s" % session)
        agent.wait_status(session, "DONE")
        assert agent.log_texts(session) == ["a", "b", "b", "c"]
    assert agent.ok("WAIT %s" % retried)["status"] == "DONE"
    assert history(agent, retried) == [("a", 1, "ERROR"), ("a", 2, "DONE")]


def test_exec_timeout_goes_before_the_scenarios_and_ends_a_retry_delay(roomy):
    name = add_steps(roomy, step("a", "false", attempts=2, retry_delay=300), timeout=0.1)
    end = roomy.ok("EXEC %s -TIMEOUT=0.7s -SYNC" % name)
    assert end["status"] == "ERROR" and "0.7 s" in end["message"]


# -- variables -------------------------------------------------------------------------

HOSTILE = "'; touch PWNED; echo \"$(touch PWNED)`touch PWNED` && || | > PWNED # \\ \t* ?"


@pytest.mark.parametrize("form", ['printf "%s\\n" "${v}"', 'printf "%s\\n" "$VAR_v"',
                                  ["printf", "%s\\n", "${v}"],
                                  ["sh", "-c", 'printf "%s\\n" "$1"', "sh", "${v}"]])
def test_no_value_becomes_shell_text(roomy, form):
    name = add_steps(roomy, step("a", form), variables={"v": "default"})
    values = [HOSTILE, "", "-n", "${v}", "$$", "\u00e9\u20ac \U0001f600", "a  b"]
    sessions = [begin_session(roomy, name, "v=%s" % json.dumps(value)) for value in values]
    for session, value in zip(sessions, values):
        assert roomy.ok("WAIT %s" % session)["status"] == "DONE"
        assert roomy.log_texts(session) == [value]
    assert not (roomy.folder / "PWNED").exists()


def test_unquoted_in_the_shell_a_value_is_split_and_nothing_worse(roomy):
    end, _, texts = run_task(roomy, "printf '%s,' ${v}; echo", variables={"v": "a;touch PWNED $(x)"})
    assert texts == ["a;touch,PWNED,$(x),"] and not (roomy.folder / "PWNED").exists()


def test_values_in_strings_and_in_the_environment(roomy):
    end, _, texts = run_task(
        roomy, ["sh", "-c", 'echo "$1"; echo "$A"; pwd; cat; echo "$VAR_day $VAR_n"', "sh",
                 "<${day}>${n}$HOME$$"],
        variables={"day": "2015-01-01", "n": 1.5, "folder": str(roomy.folder)},
        env={"A": "it is ${day} $$ ${SCENARIO}"}, cwd="${folder}", stdin="in ${day}\n")
    assert texts == ["<2015-01-01>1.5$HOME$$", "it is 2015-01-01 $$ %s" % scenario_of(roomy, end),
                     str(roomy.folder), "in 2015-01-01", "2015-01-01 1.5"]


def scenario_of(agent, end):
    return agent.status(end["session"])["scenario"]


@pytest.mark.parametrize("command, texts", [
    (["echo", "$${v}", "$$$${v}", "$$", "$${", "$", "${v}$${v}", "$v"],
     ["${v} $$${v} $$ ${ $ x${v} $v"]),
    ("V=own; echo \"${v}\" \"$${V}\" '$v'", ["x own $v"]),
    ('[ "$$" -gt 1 ] && echo "$((1+1))" "$(echo ${v})" "$${#VAR_v}"', ["2 x 1"]),
])
def test_dollars(roomy, command, texts):
    assert run_task(roomy, command, variables={"v": "x"})[2] == texts


def test_the_agents_own_variables(roomy):
    roomy.import_document({"contexts": ["PROD"]})
    command = 'echo "$SESSION $SCENARIO $CONTEXT $DUE"; echo "${SESSION} ${SCENARIO} ${CONTEXT} ${DUE}"'
    name = add_steps(roomy, step("a", command))
    end = roomy.ok("EXEC %s 1 PROD -SYNC" % name)
    texts = roomy.log_texts(end["session"])
    created = roomy.status(end["session"])["created"]
    assert texts == ["%s %s PROD %s" % (end["session"], name, created)] * 2


def test_the_own_names_cannot_be_given(roomy):
    name = add_steps(roomy, step("a", "true"), variables={"v": "1"})
    for word in ("SESSION=5", "DUE=x", "w=1"):
        assert roomy.err("EXEC %s %s" % (name, word)) == "BAD_REQUEST"


def test_due_of_a_session_with_a_start_time_is_that_time_also_after_restart(roomy):
    name = add_steps(roomy, step("a", 'echo "$DUE"; [ -e due_go ]'))
    at = (datetime.now() + timedelta(seconds=0.7)).astimezone().isoformat(timespec="milliseconds")
    session = begin_session(roomy, name, "-AT=%s" % at)
    roomy.wait_status(session, "ERROR")
    (roomy.folder / "due_go").touch()
    roomy.ok("RESTART %s" % session)
    roomy.wait_status(session, "DONE")
    texts = roomy.log_texts(session)
    assert [datetime.strptime(t.replace(":", ""), "%Y-%m-%dT%H%M%S.%f%z") for t in texts] == [
        datetime.strptime(at.replace(":", ""), "%Y-%m-%dT%H%M%S.%f%z")] * 2


# -- the os task -----------------------------------------------------------------------

def test_cwd_env_umask_nice(roomy):
    (roomy.folder / "sub").mkdir()
    base = os.nice(0)
    for command in ("pwd; echo $LANG; umask; nice", ["sh", "-c", "pwd; echo $LANG; umask; nice"]):
        _, _, texts = run_task(roomy, command, cwd=str(roomy.folder / "sub"), env={"LANG": "X"},
                               umask="027", nice=5)
        assert texts == [str(roomy.folder / "sub"), "X", "0027", str(min(19, base + 5))]
    _, _, texts = run_task(roomy, "pwd; umask; nice")      # the agent's own otherwise
    assert texts[0] == str(roomy.folder) and texts[2] == str(base)


def test_env_adds_to_the_agents_environment(roomy):
    _, _, texts = run_task(roomy, 'echo "$PATH"; echo "$X"', env={"X": ""})
    assert texts == [os.environ["PATH"], ""]


@pytest.mark.parametrize("code, codes, status", [
    (0, {}, "DONE"), (1, {}, "ERROR"), (0, {"ok_codes": [1]}, "ERROR"), (1, {"ok_codes": [1]}, "DONE"),
    (3, {"ok_codes": [0, 3], "warning_codes": [4]}, "DONE"), (4, {"warning_codes": [4]}, "WARNING"),
    (255, {"ok_codes": [255]}, "DONE"), (5, {"warning_codes": [4]}, "ERROR")])
def test_exit_codes(roomy, code, codes, status):
    end, task, _ = run_task(roomy, "exit %d" % code, **codes)
    assert (end["status"], task["status"], task["rc"]) == (status, status, str(code))


def test_a_signal_is_told(roomy):
    end, task, _ = run_task(roomy, "kill -9 $$")
    assert end["status"] == "ERROR" and task["rc"] == "-9" and "SIGKILL" in task["message"]


def test_standard_input(roomy):
    assert run_task(roomy, ["cat"])[2] == []
    assert run_task(roomy, ["cat"], stdin="a\nb")[2] == ["a", "b"]
    assert run_task(roomy, ["true"], stdin="x" * 1000000)[0]["status"] == "DONE"
    assert run_task(roomy, ["wc", "-c"], stdin="x" * 1000000)[2][0].strip() == "1000000"


@pytest.mark.parametrize("command, value", [
    ("echo one; echo two; echo err >&2", "one\ntwo"), ("printf 'no end'", "no end"), ("true", ""),
    ("printf 'a\\n\\n'", "a\n"), ("printf '\\303\\251\\377'", "\u00e9\ufffd")])
def test_capture(roomy, command, value):
    name = add_steps(roomy, step("a", {"command": command, "capture": "v"}),
               step("b", 'printf "%s" "${v}" | od -An -tx1'), variables={"v": "before"})
    end = roomy.ok("EXEC %s -SYNC" % name)
    assert variables_of(roomy, end["session"])["v"] == value
    shown = [line for line in roomy.ask("LOG %s" % end["session"]) if " b/1 " in line]
    shown = "".join(line.split("out ", 1)[1] for line in shown)
    assert bytes.fromhex(shown.replace(" ", "")).decode() == value


def test_capture_of_a_failed_task_changes_nothing_and_too_much_is_an_error(roomy):
    end = run_steps(roomy, step("a", {"command": "echo x; exit 1", "capture": "v"}, on_error="END"),
              variables={"v": "before"})
    assert variables_of(roomy, end["session"]) == {"v": "before"}
    end = run_steps(roomy, step("a", {"command": "head -c 70000 /dev/zero | tr '\\0' x", "capture": "v"}),
              variables={"v": "before"})
    assert end["status"] == "ERROR" and "65536" in end["message"]


@pytest.mark.parametrize("command, fields, reason", [
    (["/no/such/program"], {}, "No such file or directory"),
    (["no-such-program-at-all", "x"], {}, "No such file or directory"),
    (["./plain.txt"], {}, "Permission denied"),
    (["true"], {"cwd": "/no/such/folder"}, "No such file or directory: /no/such/folder"),
    ("true", {"cwd": "/no/such/folder"}, "No such file or directory: /no/such/folder"),
    ("true", {"cwd": "plain.txt"}, "Not a directory"),
    (["."], {}, "Permission denied"),
    (["true", "${big}" * 5], {}, "Argument list too long"),
])
def test_what_cannot_start_is_an_error_with_the_systems_reason(roomy, command, fields, reason):
    (roomy.folder / "plain.txt").write_text("no program\n")
    variables = {"big": "x" * 60000} if "${big}" in command[-1] else {}
    end, task, texts = run_task(roomy, command, variables=variables, **fields)
    assert end["status"] == "ERROR" and task["status"] == "ERROR"
    assert reason in task["message"] and reason in end["message"] and texts == []


def test_what_the_shell_cannot_find_is_its_exit_code_and_message(roomy):
    end, task, texts = run_task(roomy, "no-such-program-at-all")
    assert task["rc"] == "127" and "not found" in texts[0]
    end, task, texts = run_task(roomy, ["no-such-program-at-all"], umask="022", nice=1)
    assert end["status"] == "ERROR" and task["rc"] == "127" and "no-such-program" in texts[0]


def test_the_streams_by_their_device_names_lose_no_line(roomy):
    end, _, texts = run_task(roomy, "echo err > /dev/stderr; echo out > /dev/stdout; "
                             "echo out2 >> /dev/stdout; echo err2 > /dev/fd/2")
    lines = roomy.ask("LOG %s" % end["session"])[:-1]
    assert sorted(line.split(" ", 3)[3] for line in lines) == [
        "err err", "err err2", "out out", "out out2"]
    assert all(re.match(r"\* \d{4}-\d\d-\d\dT\S+ main/1 (out|err) ", line) for line in lines)


def test_nothing_printed_imitates_a_reply(roomy):
    session = run_task(roomy, ["printf", "OK session=1\\n* fake\\r\\nERR X\\n\\033[2J\\377\\n"])[0]["session"]
    lines = roomy.ask("LOG %s" % session)
    assert [line[:2] for line in lines] == ["* "] * 4 + ["OK"]
    assert roomy.log_texts(session) == ["OK session=1", "* fake\\x0d", "ERR X", "\\x1b[2J\\xff"]


def test_the_log_is_there_while_the_task_runs(roomy):
    name = add_steps(roomy, step("a", "echo begun; until [ -e log_go ]; do sleep 0.05; done; echo over"))
    session = begin_session(roomy, name)
    wait_for(lambda: roomy.log_texts(session) == ["begun"], "the first line")
    (roomy.folder / "log_go").touch()
    roomy.wait_status(session, "DONE")
    assert roomy.log_texts(session) == ["begun", "over"]


def plain_python(folder):
    """A python for AgentProcess that drops its -X dev and -W error."""
    path = folder / "plain-python"
    path.write_text('#!/bin/sh\nwhile [ "$1" = -X ] || [ "$1" = -W ]; do shift 2; done\n'
                    'exec %s "$@"\n' % shlex.quote(sys.executable))
    path.chmod(0o755)
    return str(path)


def peak_kib(agent):
    """The most memory that the agent has had so far."""
    with open("/proc/%d/status" % agent.process.pid) as file:
        return int(re.search(r"VmHWM:\s+(\d+) kB", file.read()).group(1))


@pytest.mark.parametrize("kind", ["lines", "no line ends"])
def test_300_megabytes_of_output(make_agent, tmp_path, kind):
    size = 300000000 if kind == "lines" else 60000000
    agent = make_agent(python=plain_python(tmp_path)).start()
    source = "yes 'this is one of many lines that are printed' | head -c %d" % size
    before_kib = peak_kib(agent)
    if kind != "lines":
        source += " | tr '\\n' ' '"
    agent.import_os("BIG", "echo first; %s; echo; echo last" % source)
    end = agent.ok("EXEC BIG -SYNC")
    assert end["status"] == "DONE"
    texts = agent.log_texts(end["session"])
    assert texts[0] == "first" and texts[-1] == "last"
    assert sum("are left out here" in text for text in texts) == 1
    kept = sum(len(text) for text in texts)
    assert 100000 < kept <= agent_module.MAX_OUTPUT + 1000
    assert peak_kib(agent) - before_kib < 50 * 1024         # a fraction of what was printed, and of what is kept
    assert os.path.getsize(str(agent.work)) < 20e6


def test_a_secret_of_the_agent_such_as_open_files_is_not_inherited(roomy):
    _, _, texts = run_task(roomy, "for fd in /proc/self/fd/*; do readlink $fd; done")
    assert not [text for text in texts if ".db" in text or ".lock" in text or "socket" in text]


# -- stop ------------------------------------------------------------------------------

def stubborn(name):
    """A command whose processes try to stay: they note their pids in a file of this name."""
    note = "echo $$ >> %s.pids; while :; do sleep 0.5; done" % name
    deaf = "trap \"\" TERM HUP INT; " + note
    return ("setsid sh -c '%s' & (setsid sh -c '%s' &); env -i sh -c '%s' & "
            "echo $$ >> %s.pids; trap '' TERM; while :; do sleep 0.5; done" % (note, deaf, note, name))


def pids_of(agent, name, count=4):
    path = agent.folder / (name + ".pids")

    def found():
        pids = path.read_text().split() if path.exists() else []
        return len(pids) >= count and [int(pid) for pid in pids]
    return wait_for(found, "%d pids of %s" % (count, name))


def test_a_normal_stop_lets_the_task_end_and_begins_no_further(roomy):
    name = add_steps(roomy, step("a", "echo one; until [ -e stop_go ]; do sleep 0.05; done; echo over",
                            "echo two"), step("b", "echo never"))
    session = begin_session(roomy, name)
    wait_for(lambda: roomy.log_texts(session) == ["one"])
    assert roomy.ok("STOP %s" % session) == {"session": session, "status": "RUNNING"}
    time.sleep(0.3)
    assert roomy.status(session)["status"] == "RUNNING"
    (roomy.folder / "stop_go").touch()
    roomy.wait_status(session, "STOPPED")
    assert roomy.log_texts(session) == ["one", "over"]
    assert tasks_of(roomy, session) == [("1.1", 1, "DONE")]
    assert history(roomy, session) == [("a", 1, "STOPPED")]
    assert roomy.err("STOP %s" % session) == "CONFLICT"
    roomy.ok("RESTART %s" % session)                       # goes on where it stopped
    roomy.wait_status(session, "DONE")
    assert roomy.log_texts(session) == ["one", "over", "two", "never"]


def test_a_normal_stop_in_the_last_task_changes_nothing(roomy):
    name = add_steps(roomy, step("a", "echo one; until [ -e last_go ]; do sleep 0.05; done"))
    session = begin_session(roomy, name)
    wait_for(lambda: roomy.log_texts(session) == ["one"])
    roomy.ok("STOP %s" % session)
    (roomy.folder / "last_go").touch()
    assert roomy.wait_status(session, "DONE", "STOPPED")["status"] == "DONE"


def test_an_immediate_stop_and_a_timeout_leave_no_process(shared_inside, monkeypatch):
    agent = shared_inside
    monkeypatch.chdir(str(agent.folder))        # where its tasks work
    timed_out = {
        "t": begin_session(agent, add_steps(agent, step("a", {"command": stubborn("t"), "timeout": 300}))),
        "s": begin_session(agent, add_steps(agent, step("a", stubborn("s"), timeout=300))),
        "e": begin_session(agent, add_steps(agent, step("a", stubborn("e"))), "-TIMEOUT=300")}
    their_pids = {name: pids_of(agent, name) for name in timed_out}
    session = begin_session(agent, add_steps(agent, step("a", stubborn("stop"), on_error="b"), step("b", "true")))
    pids = pids_of(agent, "stop")
    assert agent.ok("STOP %s -IMMEDIATE" % session) == {"session": session, "status": "STOPPED"}
    assert not [pid for pid in pids if is_alive(pid)]
    assert agent.status(session)["status"] == "STOPPED"
    assert history(agent, session) == [("a", 1, "STOPPED")]
    assert tasks_of(agent, session) == [("1.1", 1, "STOPPED")]
    assert agent.err("STOP %s -IMMEDIATE" % session) == "CONFLICT"
    agent.let_pass(300)
    for name, session in timed_out.items():
        agent.wait_status(session, "ERROR")
        assert not [pid for pid in their_pids[name] if is_alive(pid)]


@pytest.mark.parametrize("left", ["setsid sh -c '%s' & sleep 0.2", "(env -i sh -c '%s' &); sleep 0.2"])
def test_an_immediate_stop_ends_what_earlier_tasks_left_too(roomy, left):
    """By its marker, or by the OS session that the earlier task's process led."""
    name = "left%d" % next(NUMBERS)
    note = "echo $$ >> %s.pids; while :; do sleep 0.2; done" % name
    session = begin_session(roomy, add_steps(roomy, step("a", left % note), step("b", "sleep 300")))
    pids = pids_of(roomy, name, 1)
    wait_for(lambda: ("2.1", 1, "RUNNING") in tasks_of(roomy, session))
    assert is_alive(pids[0])
    roomy.ok("STOP %s -IMMEDIATE" % session)
    assert not is_alive(pids[0])


def test_a_normal_stop_can_become_an_immediate_one(roomy):
    session = begin_session(roomy, add_steps(roomy, step("a", "echo a; sleep 300")))
    wait_for(lambda: roomy.log_texts(session) == ["a"])
    assert roomy.ok("STOP %s" % session)["status"] == "RUNNING"
    assert roomy.ok("STOP %s -IMMEDIATE" % session)["status"] == "STOPPED"


@pytest.mark.parametrize("how", ["", "-IMMEDIATE"])
def test_a_stop_during_a_retry_delay(roomy, how):
    name = add_steps(roomy, step("a", "echo try; exit 1", attempts=5, retry_delay=300))
    session = begin_session(roomy, name)
    wait_for(lambda: history(roomy, session) == [("a", 1, "ERROR")])
    roomy.ok("STOP %s %s" % (session, how))
    roomy.wait_status(session, "STOPPED")
    assert roomy.log_texts(session) == ["try"]


def test_a_time_out_behind_a_normal_stop_ends_also_what_earlier_tasks_left(shared_inside, tmp_path):
    agent, path = shared_inside, tmp_path / "left.pid"
    name = add_steps(agent, step("a", "(setsid sh -c 'echo $$ > %s; exec sleep 1000' &); until [ -s %s ]; do "
                                 "sleep 0.05; done" % (path, path), {"type": "sleep", "seconds": 1000}), timeout=300)
    session = begin_session(agent, name)
    wait_for(lambda: len([row for row in agent.rows("STATUS %s" % session) if "task" in row]) == 2, "the second task")
    assert agent.ok("STOP %s" % session)["status"] == "RUNNING"
    assert is_alive(int(path.read_text()))
    agent.let_pass(300)
    assert "time-out of the session" in agent.ok("WAIT %s" % session)["message"]
    wait_for(lambda: not is_alive(int(path.read_text())), "what was left to be ended")


def test_what_ignores_everything_is_gone_after_shutdown_immediate(make_agent):
    agent = make_agent().start()
    agent.import_os("S", stubborn("shutdown"))
    session = begin_session(agent, "S")
    pids = pids_of(agent, "shutdown")
    agent.ok("SHUTDOWN -IMMEDIATE")
    assert agent.wait() == 0
    assert not [pid for pid in pids if is_alive(pid)]
    agent.start()
    assert agent.status(session)["status"] == "STOPPED"


def test_a_daemon_left_on_purpose_by_an_ended_session_stays(make_agent):
    agent = make_agent("--clean-every", "1").start()
    pids = []
    for code, status in ((0, "DONE"), (1, "ERROR")):
        name = "daemon%d" % code
        agent.import_os(name, "setsid sh -c 'echo $$ >> %s.pids; exec sleep 300' & until [ -e %s.pids ];"
                        " do sleep 0.05; done; echo over; exit %d" % (name, name, code))
        end = agent.ok("EXEC %s -SYNC" % name)
        assert end["status"] == status and agent.log_texts(end["session"]) == ["over"]
        pids += pids_of(agent, name, 1)
    agent.import_os("S", "sleep 300")
    other = begin_session(agent, "S")
    agent.wait_status(other, "RUNNING")
    try:
        agent.ok("STOP %s -IMMEDIATE" % other)
        agent.ok("CLEAN")
        assert all(map(is_alive, pids))
        other = begin_session(agent, "S")
        agent.wait_status(other, "RUNNING")
        agent.kill()                        # cleaning at the start: only of sessions then open
        agent.start()
        agent.wait_status(other, "ERROR")
        assert all(map(is_alive, pids))
        agent.ok("SHUTDOWN -IMMEDIATE")
        assert agent.wait() == 0
        assert all(map(is_alive, pids))
    finally:
        for pid in pids:
            os.kill(pid, 9)


# -- queue, priority, start time -------------------------------------------------------

@pytest.fixture
def narrow(make_agent):
    """An agent of one slot, a session that holds it until release(), and a scenario NOTE."""
    agent = make_agent("--max-sessions", "1").start()
    agent.import_os("HOLDER", "echo held; until [ -e go ]; do sleep 0.05; done")
    agent.import_os("NOTE", "echo $SESSION >> order")
    agent.release = (agent.folder / "go").touch
    agent.holder = begin_session(agent, "HOLDER")
    agent.wait_status(agent.holder, "RUNNING")
    return agent


def order(agent, count):
    path = agent.folder / "order"
    return wait_for(lambda: path.exists() and len(path.read_text().split()) >= count
                    and path.read_text().split(), "%d sessions to run" % count)


def test_the_queue_leaves_in_order_of_arrival_and_priority(narrow):
    sessions = [begin_session(narrow, "NOTE", "-PRIORITY=%d" % priority) for priority in (0, 0, 5, -1, 5, 0)]
    assert narrow.ok("PING")["queued"] == "6" and narrow.ok("PING")["running"] == "1"
    assert {narrow.status(session)["status"] for session in sessions} == {"QUEUED"}
    narrow.release()
    assert order(narrow, 6) == [sessions[i] for i in (2, 4, 0, 1, 5, 3)]


def test_a_queued_session_is_stopped_before_it_begins(narrow):
    first, second = begin_session(narrow, "NOTE"), begin_session(narrow, "NOTE")
    assert narrow.ok("STOP %s" % first) == {"session": first, "status": "STOPPED"}
    assert narrow.ok("PING")["queued"] == "1"
    row = narrow.status(first)
    assert row["status"] == "STOPPED" and row["begun"] == "" and history(narrow, first) == []
    assert narrow.err("STOP %s" % first) == "CONFLICT"
    narrow.release()
    assert order(narrow, 1) == [second]
    assert narrow.ok("RESTART %s" % first)["status"] == "QUEUED"
    assert order(narrow, 2) == [second, first]


def test_a_hold_makes_all_wait_and_its_release_keeps_the_order(narrow):
    first = begin_session(narrow, "NOTE")
    narrow.ok('HOLD "maintenance"')
    assert narrow.ok("PING")["hold"] == "yes"
    held = narrow.ok("EXEC NOTE")
    assert held["status"] == "WAITING"
    for session in (first, held["session"]):
        narrow.wait_status(session, "WAITING")
    failed = narrow.ok("STOP %s -IMMEDIATE" % narrow.holder)
    assert failed["status"] == "STOPPED"
    again = narrow.ok("RESTART %s" % narrow.holder)
    assert again["status"] == "WAITING"
    time.sleep(0.5)
    assert narrow.ok("PING")["running"] == "0" and not (narrow.folder / "order").exists()
    stopped = begin_session(narrow, "NOTE")
    assert narrow.ok("STOP %s" % stopped)["status"] == "STOPPED"
    narrow.release()
    narrow.ok("RELEASE")
    assert order(narrow, 2) == [first, held["session"]]
    narrow.wait_status(narrow.holder, "DONE")
    assert narrow.ok("PING")["hold"] == "no"
    assert narrow.status(stopped)["status"] == "STOPPED"


def test_a_hold_until_a_time_ends_by_itself(roomy):
    name = add_steps(roomy, step("a", "echo ran"))

    def hold(until):
        roomy.ask("HOLD -UNTIL=%s" % local(until))
        return roomy.ok("EXEC %s" % name)
    _, session = ahead(hold)
    assert session["status"] == "WAITING"
    roomy.wait_status(session["session"], "DONE")
    assert roomy.ok("PING")["hold"] == "no"
    assert roomy.err("HOLD -UNTIL=2020-01-01") == "BAD_REQUEST"


def test_at_a_time(roomy):
    name = add_steps(roomy, step("a", "echo ran"))

    def wait(at):
        made = roomy.ok("EXEC %s -AT=%s" % (name, local(at)))
        return made, roomy.log_texts(made["session"])
    at, (waiting, texts) = ahead(wait)
    assert (waiting["status"], texts) == ("WAITING", [])
    session = waiting["session"]
    roomy.wait_status(session, "DONE")
    begun = datetime.strptime(roomy.status(session)["begun"].replace(":", ""), "%Y-%m-%dT%H%M%S.%f%z")
    assert begun.timestamp() >= at
    past = roomy.ok("EXEC %s -AT=2020-01-01T00:00" % name)
    assert past["status"] == "QUEUED"
    roomy.wait_status(past["session"], "DONE")
    far = roomy.ok("EXEC %s -AT=2099-01-01" % name)
    assert far["status"] == "WAITING"
    assert roomy.ok("STOP %s" % far["session"])["status"] == "STOPPED"
    assert roomy.status(far["session"])["begun"] == ""


def test_what_waits_for_its_time_survives_the_agent(make_agent):
    agent = make_agent().start()
    at = (datetime.now() + timedelta(seconds=1)).astimezone().isoformat()
    session = begin_session(agent, "HELLO", "-AT=%s" % at)
    agent.kill()
    agent.start()
    agent.wait_status(session, "DONE")
    assert agent.log_texts(session) == ["Hello, world! This is session %s." % session]


# -- what is kept ----------------------------------------------------------------------

@pytest.mark.parametrize("level, rows, lines", [(0, 0, 0), (2, 0, 0), (3, 2, 0), (4, 2, 0), (5, 2, 1)])
def test_level(roomy, level, rows, lines):
    good, bad = add_steps(roomy, step("a", "echo out")), add_steps(roomy, step("a", "echo out; exit 1"))
    warned = add_steps(roomy, step("a", {"command": "echo out; exit 1", "warning_codes": [1]}))
    for name, is_kept in ((good, False), (warned, False), (bad, True)):
        end = roomy.ok("EXEC %s -SYNC -LEVEL=%d" % (name, level))
        kept = [row for row in roomy.rows("STATUS %s" % end["session"]) if "step" in row or "task" in row]
        assert len(kept) == (2 if is_kept else rows)
        assert len(roomy.log_texts(end["session"])) == (1 if is_kept else lines)
        assert roomy.status(end["session"])["status"] == end["status"]


def test_purge_keeps_the_newest_and_what_is_open(make_agent):
    agent = make_agent().start()
    agent.import_os("S", "sleep 300")
    running = begin_session(agent, "S")
    waiting = begin_session(agent, "HELLO", "-AT=2099-01-01")
    ended = [agent.ok("EXEC HELLO -SYNC")["session"] for _ in range(5)]
    assert agent.err("PURGE") == "BAD_REQUEST"
    assert agent.ok("PURGE -DAYS=1") == {"purged": "0"}
    assert agent.ok("PURGE -KEEP=2") == {"purged": "3"}
    assert [row["session"] for row in agent.rows("SESSIONS")] == [
        ended[4], ended[3], waiting, running]
    assert agent.err("STATUS %s" % ended[0]) == "NOT_FOUND"
    assert agent.err("LOG %s" % ended[0]) == "NOT_FOUND"
    assert agent.log_texts(ended[4])
    wait_for(lambda: agent.ok("PURGE -DAYS=0 -KEEP=0") == {"purged": "2"})
    assert {row["session"] for row in agent.rows("SESSIONS")} == {waiting, running}
    assert int(begin_session(agent, "HELLO")) == int(ended[4]) + 1000       # a number is never given again
    agent.ok("STOP %s -IMMEDIATE" % running)


# -- restart ---------------------------------------------------------------------------

def test_restart_goes_on_at_the_task_that_failed_and_keeps_the_history(roomy):
    name = add_steps(roomy, step("a", "echo a"), step("b", "echo b1", "echo b2 $VAR_v; [ -e restart_go ]",
                                                 attempts=2), step("c", "echo c $VAR_v"),
               variables={"v": "old"})
    session = begin_session(roomy, name)
    roomy.wait_status(session, "ERROR")
    assert roomy.log_texts(session) == ["a", "b1", "b2 old", "b1", "b2 old"]
    before = roomy.ask("STATUS %s" % session)[1:-2], roomy.ask("LOG %s" % session)[:-1]
    assert roomy.ok("RESTART %s" % session)["session"] == session      # fails again, attempts anew
    wait_for(lambda: len(history(roomy, session)) == 5 and roomy.status(session)["status"] == "ERROR")
    assert roomy.log_texts(session)[5:] == ["b2 old", "b1", "b2 old"]
    assert history(roomy, session) == [("a", 1, "DONE"), ("b", 1, "ERROR"), ("b", 2, "ERROR"),
                                        ("b", 3, "ERROR"), ("b", 4, "ERROR")]
    (roomy.folder / "restart_go").touch()
    assert roomy.err("RESTART %s w=1" % session) == "BAD_REQUEST"
    roomy.ok("RESTART %s v=new" % session)
    row = roomy.wait_status(session, "DONE")
    assert row["message"] == ""
    assert roomy.log_texts(session)[8:] == ["b2 new", "c new"]
    assert roomy.ask("STATUS %s" % session)[1:len(before[0]) + 1] == before[0]
    assert roomy.ask("LOG %s" % session)[:len(before[1])] == before[1]
    assert variables_of(roomy, session) == {"v": "new"}
    assert roomy.err("RESTART %s" % session) == "CONFLICT"


def test_restart_from_a_step(roomy):
    name = add_steps(roomy, step("a", "echo a"), step("b", "echo b"), step("c", "echo c; [ -e from_go ]"))
    session = begin_session(roomy, name)
    roomy.wait_status(session, "ERROR")
    assert roomy.err("RESTART %s -FROM=nowhere" % session) == "NOT_FOUND"
    (roomy.folder / "from_go").touch()
    roomy.ok("RESTART %s -FROM=b" % session)
    roomy.wait_status(session, "DONE")
    assert roomy.log_texts(session) == ["a", "b", "c", "b", "c"]


def test_restart_goes_to_the_cause_and_not_to_its_handler(roomy):
    name = add_steps(roomy, step("a", "echo a"), step("b", "echo b; [ -e cause_go ]", on_error="alert"),
               step("c", "echo c", on_ok="END"), step("alert", "echo alert", on_ok="FAIL"))
    session = begin_session(roomy, name)
    roomy.wait_status(session, "ERROR")
    (roomy.folder / "cause_go").touch()
    roomy.ok("RESTART %s" % session)
    roomy.wait_status(session, "DONE")
    assert roomy.log_texts(session) == ["a", "b", "alert", "b", "c"]


def test_restart_keeps_the_definition_the_session_was_made_with(roomy):
    name = add_steps(roomy, step("a", "echo old; [ -e frozen_go ]"))
    session = begin_session(roomy, name)
    roomy.wait_status(session, "ERROR")
    roomy.import_document({"scenarios": [{"name": name, "version": "1", "steps": [
        step("x", "echo new")]}]}, "-REPLACE")
    (roomy.folder / "frozen_go").touch()
    roomy.ok("RESTART %s" % session)
    roomy.wait_status(session, "DONE")
    assert roomy.log_texts(session) == ["old", "old"]


def test_captured_variables_are_there_after_a_restart(roomy):
    name = add_steps(roomy, step("a", {"command": "echo made", "capture": "v"}),
               step("b", 'echo "${v}"; [ -e captured_go ]'), variables={"v": ""})
    session = begin_session(roomy, name)
    roomy.wait_status(session, "ERROR")
    (roomy.folder / "captured_go").touch()
    roomy.ok("RESTART %s" % session)
    roomy.wait_status(session, "DONE")
    assert roomy.log_texts(session) == ["made", "made", "made"]


def test_a_warning_before_a_restart_is_not_forgotten(roomy):
    name = add_steps(roomy, step("a", {"command": "exit 2", "warning_codes": [2]}),
               step("b", "[ -e warned_go ]"))
    session = begin_session(roomy, name)
    roomy.wait_status(session, "ERROR")
    (roomy.folder / "warned_go").touch()
    roomy.ok("RESTART %s" % session)
    assert roomy.wait_status(session, "DONE", "WARNING")["status"] == "WARNING"


def test_an_error_made_good_by_a_restart_is_no_warning(roomy):
    """Run again from the first step, what it warned of before counts no more."""
    name = add_steps(roomy, step("a", {"command": "[ -e good_go ] || exit 2", "warning_codes": [2]}),
               step("b", "[ -e good_go ]", attempts=2))
    session = begin_session(roomy, name)
    roomy.wait_status(session, "ERROR")
    (roomy.folder / "good_go").touch()
    roomy.ok("RESTART %s -FROM=a" % session)
    assert roomy.wait_status(session, "DONE", "WARNING")["status"] == "DONE"


def test_an_error_passed_over_before_a_restart_is_not_forgotten(roomy):
    name = add_steps(roomy, step("a", "exit 1", on_error="b"), step("b", "[ -e passed_go ]"))
    session = begin_session(roomy, name)
    roomy.wait_status(session, "ERROR")
    (roomy.folder / "passed_go").touch()
    roomy.ok("RESTART %s" % session)
    assert roomy.wait_status(session, "DONE", "WARNING")["status"] == "WARNING"


def test_restart_the_moment_it_has_ended(make_agent):
    """The slot may still be busy with the end: the RESTART is not lost."""
    agent = make_agent().start()
    agent.import_os("E", "exit 1")
    session = begin_session(agent, "E")
    for attempt in range(2, 40):
        end = agent.ok("WAIT %s" % session)
        assert end["status"] == "ERROR"
        agent.ok("RESTART %s" % session)
    agent.ok("WAIT %s -TIMEOUT=60" % session)
    assert [n for _, n, _ in history(agent, session)] == list(range(1, 40))


def test_a_ticket_that_comes_while_its_session_still_runs_is_not_lost():
    """The same without luck: the queue is told of the RESTART before the slot is free."""
    begun = []

    class Ended(QueuedSession):
        """A session at its very end."""

        def run(self):
            begun.append(self.number)
            if len(begun) == 1:
                queue.add(self.ticket, self.repository)
            return True
    queue = agent_module.SessionQueue(1, Ended, lambda: 0, agent_module.Clock())
    queue.add(agent_module.Ticket(1001, "QUEUED", "AGENT"), WellRepository)
    try:
        wait_for(lambda: begun == [1001, 1001], "the second run")
        wait_for(lambda: queue.counts() == (0, 0))
    finally:
        queue.close()
        queue.join()


def test_a_queue_that_closes_adopts_nothing():
    """What SHUTDOWN -LEAVE has left looks stale to a cleaning that comes before the agent has ended."""
    begun = []
    queue = agent_module.SessionQueue(1, lambda ticket, repository: begun.append(ticket), lambda: 0,
                                      agent_module.Clock())
    queue.close()
    queue.adopt(agent_module.Ticket(1001, "RUNNING", "AGENT"), None)
    queue.join()
    assert (begun, queue.counts()) == ([], (0, 0))


# -- waiting and keys ------------------------------------------------------------------

def test_sync_and_wait_with_their_time_outs(roomy):
    session = roomy.ask("EXEC %s -SYNC=0.3" % add_steps(roomy, step("a", "sleep 300")))
    assert len(session) == 2 and session[1].startswith("ERR TIMEOUT session=")
    number = fields_of(session[0])["session"]
    assert roomy.ask("WAIT %s -TIMEOUT=0.1" % number)[-1].startswith("ERR TIMEOUT session=" + number)
    assert roomy.status(number)["status"] == "RUNNING"     # it goes on
    with roomy.connect() as other:
        other.send("WAIT %s" % number)
        roomy.ok("STOP %s -IMMEDIATE" % number)
        assert fields_of(other.reply()[-1])["status"] == "STOPPED"
    assert roomy.ok("WAIT %s" % number)["status"] == "STOPPED"
    assert roomy.err("WAIT 999999001") == "NOT_FOUND"
    assert roomy.err("STOP 999999001") == "NOT_FOUND"
    assert roomy.err("RESTART 999999001") == "NOT_FOUND"


def test_a_key_makes_one_session(roomy):
    name = add_steps(roomy, step("a", "echo ran"), variables={"v": "1"})
    first = roomy.ok("EXEC %s v=2 -KEY=k1" % name)
    again = roomy.ok("EXEC %s v=2 -KEY=k1" % name)
    assert again["session"] == first["session"] and again["duplicate"] == "yes"
    assert roomy.err("EXEC %s v=3 -KEY=k1" % name) == "CONFLICT"
    assert roomy.err("EXEC HELLO -KEY=k1") == "CONFLICT"
    roomy.wait_status(first["session"], "DONE")
    assert roomy.ok("EXEC %s v=2 -KEY=k1" % name)["duplicate"] == "yes"
    assert len(roomy.rows("SESSIONS -SCENARIO=%s" % name)) == 1


def test_one_session_costs_the_others_nothing(roomy):
    """What prints without end and what fails run beside what works."""
    noisy = begin_session(roomy, add_steps(roomy, step("a", "yes")))
    failing = add_steps(roomy, step("a", "exit 1"))
    try:
        for _ in range(3):
            assert roomy.ok("EXEC %s -SYNC" % failing)["status"] == "ERROR"
            assert roomy.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    finally:
        assert roomy.ok("STOP %s -IMMEDIATE" % noisy)["status"] == "STOPPED"
