"""The manual's topic troubleshooting: each command of its table tells what the symptom is of."""
import json
import re
import shlex
import subprocess
import sys

import pytest

import agent as program
from conftest import AGENT, LIMIT_S, TOP, wait_for, why

sys.path.insert(0, str(TOP / "tools"))

import agentcli     # noqa: E402
from support.client import PATH, run_client

pytestmark = pytest.mark.once

TOPIC = program.make_manual("troubleshooting")
TABLE = dict(re.findall(r"^    (\S.*?)  +(\S.*(?:\n {30,}\S.*)?)$", TOPIC.split("### ")[0], re.M))


@pytest.fixture(scope="module")
def ill(make, tmp_path_factory):
    """An agent in which something of everything is wrong, and the names of the table's words."""
    agent = make("ill", "--max-sessions", "2")
    agent.import_document({"scenarios": [
        {"name": "BAD", "version": "1", "steps": [{"name": "s", "tasks": [
            {"type": "os", "command": "echo looking; no_such_program --all"}]}]},
        {"name": "SLOW", "version": "1", "steps": [{"name": "s", "tasks": [{"type": "os", "command": ["sleep", "600"]}]}]}],
        "schedules": [{"name": "OFTEN", "scenario": "SLOW", "rule": "every 1s", "overlap": "skip"}]})
    bad = agent.ok("EXEC BAD -SYNC")["session"]
    agent.ok("EXEC SLOW")
    wait_for(lambda: [row for row in why(agent, "OFTEN") if row["decision"] == "skipped"], "a due time that is skipped")
    waiting = agent.ok("EXEC SLOW")["session"]
    agent.ok("SCHED ADD NIGHT BAD -1 GLOBAL 'daily at 02:00' -TIMEZONE=UTC")
    folder = tmp_path_factory.mktemp("files")
    (folder / "FILE").write_text(json.dumps({"scenarios": [{"name": "X", "steps": []}]}))
    yield agent, folder, bad, waiting
    agent.ok("SCHED OFF OFTEN")


# what you see -> (status, what its command tells of the agent `ill`)
TELLS = {
    "ERR AUTH, ERR DENIED": (2, "no such file|password"),
    "nothing runs at all": (0, "running=2 queued=1 .*hold=no"),
    "a session does not begin": (0, "WAITING|QUEUED"),
    "a session failed": (0, r"looking\n.* err .*no_such_program"),
    "what failed last night?": (0, "BAD .* ERROR .* exit code 127"),
    "what did not run last night?": (0, "^SCHEDULE .*\nOFTEN .* skipped +overlap"),
    "a schedule did not run": (0, r"overlap.*\n\nNOTE\nnext due 20"),
    "it runs at the wrong time": (0, r"OFTEN +20\d\d-"),
    "it runs too often, or twice": (0, r"SLOW .* OFTEN +20\d\d-"),
    "what will not fit tonight?": (0, "STARTS +OVERLAPS +QUEUES +SKIPPED +NEVER"),
    "a document is refused": (1, r"scenarios\[0\]\.version: missing"),
    "who did that?": (0, "SCHED ADD +NIGHT"),
    "PING says DEGRADED or STANDBY": (0, "workrep.db +ATTACHED"),
    "all of it on one page": (0, r"file=night.html bytes=\d+ sessions=\d+ failed=1"),
}


@pytest.mark.parametrize("symptom", sorted(TELLS))
def test_what_its_command_tells(ill, symptom):
    agent, folder, bad, waiting = ill
    status, pattern = TELLS[symptom]
    words = TABLE[symptom].split()
    assert words.pop(0) == "agentcli.py"
    names = {"N": waiting if "begin" in symptom else bad, "NAME": "OFTEN"}
    words = [names.get(word, word) for word in words]
    if "--user" in words:
        words += ["--password-file", "no such file"]
    result = subprocess.run([sys.executable, PATH, "--port", str(agent.port)] + words, cwd=str(folder), timeout=LIMIT_S,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    text = (result.stdout + result.stderr).decode()
    assert result.returncode == status and re.search(pattern, text, re.S | re.M), (TABLE[symptom], text)


def test_every_line_of_the_table_is_tried():
    others = {"cannot connect", "it does not start", "something is wrong with its files", "a session takes too long"}
    assert set(TABLE) == set(TELLS) | others
    for symptom in others:
        assert re.match(r"systemctl status agent-AGENT|python agent.py( --doctor)?|agentcli.py wait N --follow", TABLE[symptom])


def test_what_a_session_that_takes_too_long_tells(ill):
    """wait --follow, until it is stopped."""
    agent = ill[0]
    session = next(row["session"] for row in agent.rows("SESSIONS -STATUS=RUNNING -SCENARIO=SLOW"))
    process = subprocess.Popen([sys.executable, PATH, "--port", str(agent.port), "wait", session, "--follow"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert any(b"step 1 s  RUNNING" in line for line in iter(process.stderr.readline, b""))
    agent.ok("STOP %s -IMMEDIATE" % session)
    assert b"STOPPED" in process.communicate(timeout=LIMIT_S)[1] and process.returncode == 1


def test_when_it_does_not_answer(tmp_path):
    result = run_client(1, "ping")
    assert result.status == 3 and "Connection refused; does the agent run?" in result.err and "Connection refused" in TOPIC
    done = subprocess.run([sys.executable, str(AGENT), "--master", str(tmp_path / "none.db"), "--port", "0"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=LIMIT_S)
    assert done.returncode == 1 and b"does not exist; --create" in done.stderr


def parse_command(text):
    """The command that a line of the manual names, as the client takes it."""
    words = shlex.split(re.sub(r"\bN\b", "1001", text))
    parsed, _, _ = agentcli.parse_command_line(words, agentcli.COMMANDS)
    return parsed.command.name


def test_every_command_of_its_prose_is_one():
    """What stands in the prose as a command of the client is one that the client takes."""
    names = {command.name.split()[0] for command in agentcli.COMMANDS}
    commands = [text for text in re.findall(r"`([a-z]+(?: [^`\n]*)?)`", TOPIC) if text.split()[0] in names]
    assert len(commands) > 15
    for text in commands:
        if " " in text or text in ("ping", "repos", "release"):         # else a word of the prose
            assert parse_command(text)


@pytest.mark.parametrize("topic, heading, least", [("operating", "Looking", 11), ("crontab", "What was where in cron", 11)])
def test_every_command_of_other_tables_is_one(topic, heading, least):
    """Of each line the first command; what stands behind `, or` and `;` is one, too, where it has words."""
    text = program.make_manual(topic).split("### %s\n" % heading)[1].split("###")[0]
    commands = []
    for line in re.findall(r"^    \S.*? {2,}(\S.*)$", text, re.M):
        if line.startswith(("agentcli.py ", "ping", "sess", "sched", "log", "audit", "report")):
            commands += [part for part in re.split(r", or |; |, and |: ", line.replace("agentcli.py ", "")) if " -" in part
                         or part.split()[0] in ("ping", "sched", "log", "status", "exec", "edit", "top")]
    assert len(commands) >= least and all(map(parse_command, commands))
