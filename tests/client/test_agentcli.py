"""tools/agentcli.py: a real client process against a real agent; what it sends, shows, and ends with."""
import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

import agent as agent_module
from conftest import LIMIT_S, TOP, wait_for

sys.path.insert(0, str(TOP / "tools"))

import agentcli     # noqa: E402
from support.client import PATH, Result, objects, run_client, spawn

# which no verb has
OWN_OPTIONS = {"-HOST", "-PORT", "-JSON", "-WAIT", "-OF_HOST", "-CRONTAB", "-SYSTEM", "-DRY_RUN", "-PRUNE",
               "-USER", "-PASSWORD_FILE", "-NEW_PASSWORD_FILE", "-UNIX", "-TLS", "-TLS_CA",
               "-TLS_CERT", "-TLS_KEY", "-FOLLOW", "-DECISION"}


@pytest.fixture
def cli(request):
    """cli("exec", "HELLO") -> Result, with the port of the test's `agent`, or else of the `shared` one."""
    served = request.getfixturevalue("agent" if "agent" in request.fixturenames else "shared")
    return lambda *words, **keywords: run_client(served.port, *words, **keywords)


def status_rows(agent, session):
    """The objects of STATUS -JSON, asked without the client."""
    return [json.loads(line[2:]) for line in agent.ask("STATUS %s -JSON" % session)[:-1]]


# ---- the connection --------------------------------------------------------------------------------------------------

def test_ping(cli):
    result = cli("ping")
    assert re.match(r"agent=AGENT version=\S+ status=READY .*repositories=1/1 hold=no\n$", result.out), result
    assert (result.status, result.err) == (0, "")
    found, = objects(cli("ping", "--json"))
    assert (found["agent"], found["running"], found["hold"]) == ("AGENT", 0, False)
    assert isinstance(found["uptime"], float)


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        result = run_client(port, "ping")
    assert (result.status, result.out) == (3, "")
    assert result.err.startswith("agentcli: cannot connect to 127.0.0.1:%d: " % port)


@pytest.mark.parametrize("said, told", [(b"SSH-2.0-OpenSSH_9.6\r\n", "is no agent"),
                                        (b"* name=A\n", "before its reply was complete"),
                                        (b"OK agent=A", "before its reply was complete")])
def test_what_answers_is_no_agent(said, told):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(said)
        thread = threading.Thread(target=answer)
        thread.start()
        result = run_client(listener.getsockname()[1], "ping")
        thread.join(LIMIT_S)
    assert result.status == 3 and told in result.err, result


def test_the_agent_is_gone_while_the_client_waits(agent):
    agent.import_os("LONG", "sleep 1000")
    waiting = spawn(agent.port, "exec", "LONG", "--wait")
    assert waiting.stdout.readline() == b"session=1001 status=QUEUED\n"
    agent.wait_status(1001, "RUNNING")
    agent.kill()
    out, err = waiting.communicate(timeout=LIMIT_S)
    assert (waiting.returncode, out) == (3, b"") and b"lost the agent" in err, (out, err)
    agent.start()               # ends the process that it left
    agent.wait_status(1001, "ERROR")


def test_one_file_is_enough(shared, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(PATH, str(alone))
    done = subprocess.run([sys.executable, "-I", "-S", str(alone / "agentcli.py"), "ping", "--host", "localhost",
                           "--port=%d" % shared.port], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S)
    assert done.returncode == 0 and done.stdout.startswith(b"agent=AGENT "), done


# ---- usage -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("words, told", [
    ((), "COMMAND"), (("nonsense",), "error: 'nonsense' is no command; agentcli.py -h lists them"),
    (("sched",), "usage: agentcli.py sched [-h] COMMAND"), (("sched", "x"), "'x' is no command; agentcli.py sched -h lists them"),
    (("stop",), "SESSION is missing"),
    (("stop", "1", "2"), "'2' is one too many"), (("stop", "1", "--imediate"), "unknown option --imediate"),
    (("exec", "HELLO", "--sync"), "unknown option --sync; here it is --wait"),
    (("sched", "add", "A", "HELLO", "-1", "GLOBAL", "daily", "at", "02:00"), "'at' is one too many; a rule stands in quotes"),
    (("sched", "add", "A", "HELLO", "-1"), "CONTEXT is missing"), (("sessions", "--limit"), "--limit"),
    (("import",), "FILE... is missing"), (("sessions", "-x"), "-x"),
    (("ping", "--port", "70000"), "--port: must be a number from 1 to 65535, not '70000'"),
    (("--port", "x", "ping"), "--port: must be a number from 1 to 65535, not 'x'"),
    (("sched", "set", "A", "--exclude_date", "x"), "unknown option --exclude-date"),
    (("import", "no such file"), "cannot read 'no such file'")])
def test_usage(words, told):
    with socket.socket() as free:               # nothing of this is asked of an agent
        free.bind(("127.0.0.1", 0))
        result = run_client(free.getsockname()[1], *words)
    assert (result.status, result.out) == (2, "") and told in result.err, result


def test_what_the_agent_refuses(cli):
    for words, told in (("status 77001", "ERR NOT_FOUND "), ("exec NONE", "ERR NOT_FOUND "),
                        ("exec HELLO nowho=x", "ERR BAD_REQUEST "), ("sessions --limit 0", "ERR BAD_REQUEST "),
                        ("exec HELLO -NEWER=1", "ERR BAD_REQUEST "), ("stop x", "ERR BAD_REQUEST ")):
        result = cli(*words.split())
        assert (result.status, result.out) == (4, ""), result
        assert result.err.startswith("agentcli: " + told), result


def test_every_verb_is_a_command(cli, capsys):
    for row in agent_module.VERBS.values():
        if row.name in ("QUIT", "AUTH"):    # they mean something on a connection that lasts
            continue
        with contextlib.suppress(SystemExit):
            agentcli.main(row.name.lower().split() + ["-h"])
        help_text = capsys.readouterr().out
        found = {"-" + word.upper().replace("-", "_")
                 for word in re.findall(r"^  --([a-z-]+)", help_text, re.MULTILINE)}
        assert set(row.options) - {"-SYNC"} <= found, row.name
        assert found - set(row.options) <= OWN_OPTIONS, row.name
        assert "HOST=" not in help_text and ("-OF_HOST" in found) == (row.name == "CLEAN")
        options = help_text.split("\noptions:\n")[-1].split("\noptional arguments:\n")[-1]
        told = re.findall(r"^  (--[a-z-]+).*(\n   .*)*", options, re.MULTILINE)
        assert len(told) == len(found)
        for name, text in re.findall(r"^  (--[a-z-]+)[^\n]*?(?:  |\n  +)(\w[^\n]*)", options, re.MULTILINE):
            assert len(text.split()) >= 2, (row.name, name)
            told.remove(next(each for each in told if each[0] == name))
        assert told == [], row.name                         # a word on each option, and on each argument
        for argument in re.findall("[A-Z]{2,}", re.sub("VARIABLE=", "", row.form.split(" [-")[0])[len(row.name):]):
            assert row.name == "IMPORT" or argument == "NEW" or re.search(      # which is asked for
                "^  %s +\\w.* \\w" % argument, help_text, re.MULTILINE), argument
        assert not re.search("(?<![A-Z-])-[A-Z]{2,}", help_text), row.name      # in the client's spelling


def test_what_the_fields_of_an_ok_hold(agent):
    """Numbers and flags are what base/forms says, in the OK of every verb that has fields."""
    agent.import_os("SLOW", "sleep 1000")
    later = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() + 86400))
    requests = [
        "PING", "EXEC HELLO -KEY=a", "EXEC HELLO -KEY=a", "EXEC HELLO -SYNC",
        "EXEC SLOW -AT=" + later, "STOP 3001 -IMMEDIATE", "RESTART 3001", "STOP 3001 -IMMEDIATE",
        "WAIT 1001", "CLEAN", "HOLD", "RELEASE", "SCHED ADD A HELLO -1 GLOBAL 'daily at 02:00'",
        "HOLD x -SCHEDULE=A", "RELEASE -SCHEDULE=A", "SCHED SET A -PRIORITY=1", "SCHED OFF A",
        "SCHED ON A", "SCHED PLAN", "SCHED WHY A", "SCHED UPDATE", "SCHED DEL A",
        "CALENDAR ADD C 2099-12-25", "CALENDAR SET C 2099-12-26", "CALENDAR DEL C",
        "ATTACH SECOND second.db -CREATE", "DETACH SECOND", "BACKUP kept", "PURGE -DAYS=9", "IMPORT '{}' -DRY_RUN"]
    names = set()
    for request in requests:
        last = agent.ask(request)[-1]
        assert last.startswith("OK"), (request, last)
        for name, value in re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ ]*)', last):
            names.add(name)
            if value:
                is_number = bool(re.fullmatch(r"-?\d+(\.\d+)?", value))
                assert is_number == (name in agent_module.NUMBER_FIELDS), last
                assert (value in ("yes", "no")) == (name in agent_module.FLAG_FIELDS), last
    assert names >= agent_module.NUMBER_FIELDS | agent_module.FLAG_FIELDS


@pytest.mark.parametrize("words, told", [
    ("purge", "--days=n or --keep=n is missing"), ("hold --until 2001-01-01", "--until lies in the past"),
    ("sessions --limit 0", 'word "--limit=0": must be'), ("wait 1 --timeout x", 'word "--timeout=x": '),
    ("sched plan --from tomorrow --to today", "--to must lie after --from"), ("exec HELLO -NEWER=1", "no such option: exec SCEN"),
    ("drop LOG 1", "scenario LOG "), ("exec STOP", "scenario STOP"), ("attach X no.db", "--create makes it"),
    ("calendar add C 2030-01-01", "calendar set changes it")])
def test_errors_in_the_spelling_of_the_client(cli, words, told):
    cli("calendar", "add", "C", "2030-01-01")
    result = cli(*words.split())
    assert (result.status, result.out) == (4, "") and told in result.err, result
    assert not re.search("(?<!\\w)-[A-Z]{2,}", result.err.replace("-NEWER", "")), result
    assert cli("calendar", "del", "C").status == 0


@pytest.mark.parametrize("text, spelled", [
    ("exists; replace it with -REPLACE (from a shell --replace)", "exists; replace it with --replace"),
    ("say who you are: AUTH USER PASSWORD", "say who you are: --user NAME"),
    ("is shown as running; CLEAN mends it", "is shown as running; clean mends it"),
    ("SCHED OFF and SCHED ON begin anew", "sched off and sched on begin anew"),
    ("one too many: STOP SESSION [-IMMEDIATE]", "one too many: stop SESSION [--immediate]"),
    ("-HOST=x, -MAX_WAIT=5 and -SYNC", "--of-host=x, --max-wait=5 and --wait"),
    ('word "-HOST=..." and "LOG -HOST" of scenario LOG, limit 1 of STOP: LOG-1 x-HOST LOG=1 -UNKNOWN -X',
     'word "--of-host=..." and "LOG -HOST" of scenario LOG, limit 1 of STOP: LOG-1 x-HOST LOG=1 -UNKNOWN -X'),
    ("ended in ERROR or STOPPED, it is WAITING", "ended in ERROR or STOPPED, it is WAITING")])
def test_what_is_spelled_as_the_client_does(text, spelled):
    assert agentcli.spell(text) == spelled


def test_where_the_agent_is(shared):
    def ping(*words, **variables):
        done = subprocess.run([sys.executable, PATH, "ping"] + list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=dict(os.environ, **variables), timeout=LIMIT_S)
        return done.returncode, done.stderr.decode()
    port = str(shared.port)
    assert ping(AGENT_PORT=port)[0] == ping(AGENT_PORT=port, AGENT_HOST="localhost")[0] == ping(AGENT_HOST="", AGENT_PORT=port)[0] == 0
    assert ping("--port", port, AGENT_PORT="1")[0] == ping("--port", port, AGENT_PORT="x")[0] == 0
    assert ping("--host", "127.0.0.1", AGENT_HOST="no.such.host.example", AGENT_PORT=port)[0] == 0
    assert "127.0.0.2:1: " in ping(AGENT_HOST="127.0.0.2", AGENT_PORT="1")[1]
    assert ping(AGENT_PORT="0")[0] == 2 and "must be a number from 1 to 65535, not 'x' (AGENT_PORT)" in ping(AGENT_PORT="x")[1]


def test_version(capsys):
    for words in (["--version"], ["--port", "1", "--version"]):
        with pytest.raises(SystemExit) as ended:
            agentcli.main(words)
        assert (ended.value.code, capsys.readouterr()) == (0, ("agentcli.py %s\n" % agent_module.VERSION, ""))


def test_times_are_handed_on_unread(agent, cli):
    assert cli("exec", "HELLO", "--at", "10m").out.startswith("session=1001 status=WAITING")
    assert cli("exec", "HELLO", "--at", "tomorrow 02:00").out.startswith("session=2001 status=WAITING")
    assert cli("exec", "HELLO", "--wait").status == 0
    for words in (["--since", "1h"], ["--since", "yesterday"], ["--since", "-1h"], ["--since=-1h"], ["--since", "-90"]):
        assert len(objects(cli("sessions", "--json", *words))) == 3
    assert cli("sessions", "--since", "+1h") == Result(0, "", "")
    assert cli("hold", "--until", "02:30").status == 0
    assert objects(cli("ping", "--json"))[0]["hold_until"][11:19] == "02:30:00"


# ---- sessions --------------------------------------------------------------------------------------------------------

def test_exit_status_is_the_sessions(agent, cli):
    agent.import_os("GOOD", "echo good")
    agent.import_os("BAD", "echo bad; exit 3")
    agent.import_document({"scenarios": [{"name": "FAIR", "version": "1", "steps": [
        {"name": "main", "tasks": [{"type": "os", "command": "exit 3", "warning_codes": [3]}]}]}]})
    assert cli("exec", "BAD") == Result(0, "session=1001 status=QUEUED\n", "")
    for scenario, status, end in (("GOOD", 0, "DONE"), ("FAIR", 0, "WARNING"), ("BAD", 1, "ERROR")):
        result = cli("exec", scenario, "--wait")
        assert result.status == status, result
        first, last = result.out.splitlines()
        assert re.match(r"session=\d+ status=QUEUED$", first)
        assert last.startswith(first.split()[0] + " status=%s duration=" % end)
        again = cli("wait", first[len("session="):].split()[0])
        assert (again.status, again.out) == (status, last + "\n")
    result = cli("--json", "exec", "BAD", "--wait")
    first, last = map(json.loads, result.out.splitlines())
    assert first == {"session": 5001, "status": "QUEUED"}
    assert (result.status, last["session"], last["status"]) == (1, 5001, "ERROR") and last["duration"] >= 0


@pytest.mark.parametrize("words", [(), ("--wait",)])
def test_what_a_new_session_waits_for(agent, words):
    first = spawn(agent.port, "exec", "HELLO", "--at", "2099-01-01T05:00Z", *words)
    shown = first.stdout.readline().decode()
    assert shown.startswith("session=1001 status=WAITING start_at=2099-01-01T") and "waits_for=time message=" in shown
    agent.ok("HOLD maintenance")
    second = spawn(agent.port, "--json", "exec", "HELLO", *words)
    row = json.loads(second.stdout.readline().decode())
    assert (row["status"], row["waits_for"]) == ("WAITING", "hold") and row["message"].endswith(": maintenance")
    for number in (1001, 2001):
        agent.ok("STOP %d" % number)
    assert [process.wait(LIMIT_S) for process in (first, second)] == [1 if words else 0] * 2
    for process in (first, second):
        process.communicate()


def test_stop_restart_and_wait(agent, cli, tmp_path):
    gate = tmp_path / "gate"
    agent.import_os("LONG", "test -e '%s' || sleep 1000" % gate)
    assert objects(cli("exec", "LONG", "--json")) == [{"session": 1001, "status": "QUEUED"}]
    agent.wait_status(1001, "RUNNING")
    result = cli("wait", "1001", "--timeout", "0.1")
    assert (result.status, result.out) == (5, "") and result.err.startswith("agentcli: ERR TIMEOUT session=1001")
    waiting = spawn(agent.port, "wait", "1001")
    assert cli("stop", "1001", "--immediate").status == 0
    out, err = waiting.communicate(timeout=LIMIT_S)
    assert waiting.returncode == 1 and out.startswith(b"session=1001 status=STOPPED"), (out, err)
    gate.write_text("")
    assert cli("restart", "1001").out == "session=1001 status=QUEUED\n"
    assert cli("wait", "1001").status == 0


def test_where_a_session_begins_and_goes_on(agent, cli):
    def document(*words):
        return {"scenarios": [{"name": "AB", "version": "1", "steps": [
            {"name": word[0], "tasks": [{"type": "os", "command": "echo " + word}]} for word in words]}]}
    agent.import_document(document("a1", "b1; false"))
    assert cli("exec", "AB", "--from", "b", "--wait").status == 1
    agent.import_document(document("a2", "b2; false", "c2"), "-REPLACE")
    result = cli("restart", "1001")
    assert "restart --redefine" in result.out and "-REDEFINE" not in result.out, result
    assert cli("wait", "1001").status == 1
    assert cli("restart", "1001", "--redefine", "--from", "a").status == 0
    assert cli("wait", "1001").status == 1
    assert cli("restart", "1001", "--skip").status == 0
    assert cli("wait", "1001").status == 0
    assert agent.log_texts(1001) == ["b1", "b1", "a2", "b2", "c2"]
    result = cli("exec", "AB", "--from", "x")
    assert result.status == 4 and "NOT_FOUND" in result.err, result


def test_everything_typed_arrives_as_it_is(agent, cli):
    texts = ["", "a b", 'say "hi"', "it's", "back\\slash", "-dash", "-DASH=1", "x=y", "tab\tand\nline", "{\"a\": 1}",
             "é€\U0001f600", "'", '"', "\\n", "1", "-1", "* OK"]
    names = ["v%d" % number for number in range(len(texts))]
    agent.import_document({"scenarios": [{
        "name": "MANY", "version": "1", "variables": dict.fromkeys(names, "?"),
        "steps": [{"name": "main", "tasks": [{"type": "os", "command": "true"}]}]}]})
    words = ["%s=%s" % pair for pair in zip(names, texts)]
    result = cli("exec", "MANY", "-1", "GLOBAL", *words)
    assert result.status == 0, result
    assert {row["variable"]: row["value"] for row in status_rows(agent, 1001) if "variable" in row} == \
        dict(zip(names, texts))
    for number, text in enumerate(texts, 2):
        assert cli("exec", "--name=" + text, "MANY").out == "session=%d001 status=QUEUED\n" % number
        assert status_rows(agent, "%d001" % number)[0]["name"] == text
    result = cli("exec", "MANY", "--name", b"\xff")
    assert result.status == 4 and "BAD_REQUEST" in result.err, result


def test_arguments_that_look_like_something_else(cli):
    for reason in ("a=b c", "-x y", "plain"):
        assert cli("hold", reason) == Result(0, "agent=AGENT hold=yes\n", "")
        assert cli("release").status == 0
    assert objects(cli("hold", "--json", "--", "-IMMEDIATE")) == [{"agent": "AGENT", "hold": True}]
    assert objects(cli("ping", "--json"))[0]["hold"] is True
    result = cli("exec", "HELLO", "--", "who=x")
    assert result.status == 4 and "word 3 for VERSION" in result.err, result
    assert cli("release").status == 0


def test_options_of_the_protocols_own_form(agent, cli):
    agent.ok("EXEC HELLO -NAME=one")
    agent.ok("EXEC HELLO -NAME=two")
    for words in (["-LIMIT=1", "sessions"], ["sessions", "-LIMIT=1"], ["sessions", "--limit=1"],
                  ["sessions", "--limit", "1"]):
        assert [row["name"] for row in objects(cli("--json", *words))] == ["two"]
    assert cli("exec", "-NAME=a b", "HELLO", "-SYNC").out.startswith("session=3001 status=QUEUED\nsession=3001 status=")


# ---- what is shown ---------------------------------------------------------------------------------------------------

def test_listings(agent, cli):
    agent.ok('EXEC HELLO -NAME="a \\u00e9\\u001b[1m" -SYNC')
    agent.ok("EXEC HELLO -SYNC")
    heading, second, first = cli("sessions").out.splitlines()
    assert heading.split() == "SESSION SCENARIO VERSION CONTEXT STATUS NAME BEGUN DURATION".split()
    assert first.index("HELLO") == second.index("HELLO") == heading.index("SCENARIO")
    assert first[heading.index("NAME"):heading.index("BEGUN")].rstrip() == "a é\\x1b[1m"
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", first[heading.index("BEGUN"):])
    one, two = objects(cli("sessions", "--json"))
    assert (one["session"], one["version"], two["name"]) == (2001, "001", "a é\x1b[1m")
    assert cli("sessions", "--status", "ERROR") == Result(0, "", "")
    for listing, shown in (("scenarios", "HELLO"), ("repos", "ATTACHED"), ("contexts", "GLOBAL")):
        heading, row = cli(listing).out.splitlines()
        assert heading.isupper() and shown in row.split()
        found, = objects(cli(listing, "--json"))
        assert shown in found.values()


def on_terminal(port, *words, columns=200):
    """What a client whose stdout is a terminal writes there, and on stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    done = subprocess.run([sys.executable, PATH, "--port", str(port)] + list(words), stdin=subprocess.DEVNULL,
                          stdout=theirs, stderr=subprocess.PIPE, timeout=LIMIT_S)
    os.write(theirs, b"END\n")          # so that something can be read
    shown = b""
    while not shown.endswith(b"END\r\n"):
        shown += os.read(ours, 10000)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, done
    return shown[:-len(b"END\r\n")], done.stderr


def test_nothing_to_list(shared):
    for words in (("sessions", "--status", "ERROR"), ("calendar", "list")):
        assert run_client(shared.port, *words) == Result(0, "", "")
        assert run_client(shared.port, "--json", *words) == Result(0, "", "")
        assert on_terminal(shared.port, *words) == (b"", b"none\n")
    assert on_terminal(shared.port, "sessions", "--json") == (b"", b"")
    shown, told = on_terminal(shared.port, "sched", "plan")
    assert shown.startswith(b"FROM ") and told == b""


@pytest.mark.parametrize("columns", [60, 52])
def test_a_table_fits_the_terminal(agent, cli, columns):
    agent.ok('SCHED ADD EVERY_NIGHT HELLO -1 GLOBAL "daily at 02:00"')
    agent.ok('SCHED ADD A_RATHER_LONG_NAME_OF_A_SCHEDULE HELLO -1 GLOBAL "weekly on mon,wed at 02:00"')
    wide = cli("sched", "list").out.splitlines()
    assert len(wide[0]) > 100
    shown = on_terminal(agent.port, "sched", "list", columns=columns)[0].decode().splitlines()
    assert cli("sched", "list", env=dict(os.environ, COLUMNS=str(columns))).out.splitlines() == shown
    assert cli("sched", "list", env=dict(os.environ, COLUMNS=str(columns), LINES="9")).out.splitlines() == wide
    assert len(shown) == 3 and max(map(len, shown)) <= columns
    assert shown[0].split() == "NAME SCENARIO RULE NEXT".split()
    assert re.match(r"A_R.*~  HELLO +week.*  (\d{4}-)?\d\d-\d\d 02:00$", shown[1])
    agent.ok("SCHED OFF EVERY_NIGHT")
    assert "ENABLED" in on_terminal(agent.port, "sched", "list", columns=columns)[0].decode()


def test_what_goes_first_where_a_table_is_too_wide(capfdbinary, monkeypatch):
    """What is usual, or the same as the first column; then what matters less; then texts are cut."""
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.delenv("LINES", raising=False)
    rows = [{"name": "A" * 8, "scenario": "A" * 8, "agent": "X", "enabled": True, "hold": False, "rule": "r" * 20}]
    for changes, shown in (({}, ["NAME", "RULE"]), ({"hold": True}, ["NAME", "HOLD", "RULE"]),
                           ({"scenario": "B"}, ["NAME", "SCENARIO", "RULE"]), ({"enabled": False}, ["NAME", "ENABLED", "RULE"])):
        agentcli.put_table([dict(rows[0], **changes)])
        sys.stdout.flush()
        heading, line = capfdbinary.readouterr().out.decode().splitlines()
        assert heading.split() == shown and len(line) <= 30
        assert line.endswith("r~") == bool(changes)
    monkeypatch.setenv("COLUMNS", "80")
    agentcli.put_table(rows)
    sys.stdout.flush()
    assert capfdbinary.readouterr().out.split()[:6] == [b"NAME", b"SCENARIO", b"AGENT", b"ENABLED", b"HOLD", b"RULE"]


def test_the_fields_of_a_listings_ok(make_agent):
    agent = make_agent(env={"TZ": "UTC0"}).start()
    agent.ok('SCHED ADD A HELLO -1 GLOBAL "daily at 12:00"')
    words = ("sched", "plan", "--from", "2099-01-01", "--to", "2099-01-03T00:00")
    counts = {"slots": objects(run_client(agent.port, *words, "--json"))[-1]["slots"], "due": 2, "starts": 2, "overlaps": 0,
              "queues": 0, "skipped": 0, "never": 0}
    times = {"from": "2099-01-01T00:00:00+00:00", "to": "2099-01-03T00:00:00+00:00"}
    assert objects(run_client(agent.port, *words, "--json")) == [dict(times, **counts)]
    rows = objects(run_client(agent.port, *words, "--all", "--json"))
    assert [row.get("schedule") for row in rows] == ["A", "A", None] and rows[-1] == dict(times, **counts)
    env = dict(os.environ, TZ="XXX-1")
    heading, line = run_client(agent.port, *words, env=env).out.splitlines()
    assert heading.split() == "FROM TO SLOTS DUE STARTS OVERLAPS QUEUES SKIPPED NEVER".split()
    assert line.split("  ")[:2] == ["2099-01-01 01:00:00", "2099-01-03 01:00:00"]
    assert line.split()[4:] == [str(counts["slots"])] + "2 2 0 0 0 0".split()
    listed, fields = run_client(agent.port, *words, "--all", env=env).out.split("\n\n")
    assert listed.startswith("SCHEDULE ") and len(listed.splitlines()) == 3
    assert fields.splitlines() == [heading, line]


def test_whatever_fields_a_listings_ok_has(capfdbinary):
    """Those of a newer agent too: a listing of nothing that says why."""
    class Said:
        def __init__(self):
            self.lines = ['OK note="held since 2026-11-24T02:00"']

        def read_line(self):
            return self.lines.pop(0)
    for is_json, shown in ((False, b"NOTE\nheld since 2026-11-24T02:00\n"),
                           (True, b'{"note": "held since 2026-11-24T02:00"}\n')):
        agentcli.show_listing(agentcli.Reply(Said()), is_json)
        sys.stdout.flush()
        assert capfdbinary.readouterr() == (shown, b"")


def test_times_are_the_readers(make_agent):
    agent = make_agent(env={"TZ": "UTC0"}).start()
    agent.ok('SCHED ADD A HELLO -1 GLOBAL "at 2099-01-01 12:00"')
    for zone, shown in (("UTC0", "2099-01-01 12:00:00"), ("XXX-5:30", "2099-01-01 17:30:00")):
        result = run_client(agent.port, "sched", "next", env=dict(os.environ, TZ=zone))
        assert result.out.splitlines()[1].split(None, 1) == ["A", shown]


def test_status(agent, cli):
    agent.ok("EXEC HELLO who=there -SYNC")
    tree, session, variables = cli("status", "1001").out.split("\n\n")
    assert re.match(r"session 1001  HELLO 001  DONE .*\n  1 greet +DONE .*\n    1\.1 os +DONE ", tree)
    assert re.match(r"context +GLOBAL\ncreated +2", session)
    assert [line.split() for line in variables.splitlines()] == [["VARIABLE", "VALUE"], ["who", "there"]]
    rows = objects(cli("status", "1001", "--json"))
    assert [next(iter(row)) for row in rows] == ["session", "step", "task", "variable"]


def test_log(agent, cli):
    agent.import_os("TALK", "printf 'OK  two  spaces \\n\\n* star\\n'; echo oops >&2; printf '\\303\\251\\n'")
    agent.ok("EXEC TALK -SYNC")
    lines = [line.split(" ", 3) for line in cli("log", "1001").out.splitlines()]
    assert sorted(line[3] for line in lines) == sorted(["OK  two  spaces ", "", "* star", "oops", "é"])
    rows = objects(cli("log", "1001", "--json"))
    assert [row["text"] for row in rows if row["stream"] == "err"] == ["oops"]
    assert [row["text"] for row in rows if row["stream"] == "out"] == ["OK  two  spaces ", "", "* star", "é"]
    assert {(row["step"], row["task"]) for row in rows} == {("main", "1")}
    plain = cli("log", "1001", env=dict(os.environ, PYTHONIOENCODING="ascii:strict"))
    assert plain.status == 0 and "out \\xe9\n" in plain.out


def test_metrics_and_help(cli):
    assert "\nagent_sessions_running 0\n" in cli("metrics").out
    assert {"line": "agent_sessions_running 0"} in objects(cli("metrics", "--json"))
    assert cli("help", "sched", "add").out.startswith("SCHED ADD NAME ")
    assert cli("exec", "-h").out.startswith("usage: agentcli.py exec SCENARIO ")


# ---- definitions, schedules, repositories ----------------------------------------------------------------------------

def test_import_and_export(cli, tmp_path):
    one, two, bad = [tmp_path / name for name in ("one.json", "two.json", "bad.json")]

    def document(name, text="\u00e9 \"q\" \\ 'a'"):
        return {"scenarios": [{"name": name, "version": "1", "variables": {"v": text},
                               "steps": [{"name": "main", "tasks": [{"type": "os", "command": "true"}]}]}]}
    one.write_text(json.dumps(document("ONE"), indent=2))
    two.write_bytes(b"\xef\xbb\xbf" + json.dumps(document("TWO"), ensure_ascii=False).encode())
    bad.write_text('{"scenarios": [{}]}')
    lines = cli("import", str(one), "--dry-run").out.splitlines()
    assert lines[0] == "kind=scenario name=ONE version=1 change=new" and lines[1].endswith(" dry_run=yes")
    lines = cli("import", str(one), str(two)).out.splitlines()
    assert lines[::2] == ["kind=scenario name=%s version=1 change=new" % name for name in ("ONE", "TWO")]
    assert [line.split(" contexts=")[0] for line in lines[1::2]] == ["scenarios=1 schedules=0"] * 2
    for options in ((), ("--dry-run",)):
        result = cli("import", str(bad), str(one), *options)
        assert (result.status, result.out) == (4, "")
    lines = result.err.splitlines()
    assert lines[0] == "agentcli: %s: scenarios[0].name: missing" % bad
    assert lines[-1].startswith("agentcli: %s: ERR BAD_REQUEST " % bad) and lines[-1].endswith(" nothing was imported")
    assert result.err.count("scenarios[0].name: missing") == 1 and "--crontab" not in result.err
    assert cli("import", "-", input=b"{}x").err.startswith("agentcli: standard input: document: Extra data: ")
    exported = cli("export", "TWO")
    assert json.loads(exported.out) == document("TWO") == objects(cli("export", "TWO", "--json"))[0]
    changed = json.dumps(document("TWO", "x")).encode()
    assert "ERR EXISTS " in cli("import", "-", input=changed).err
    change, counts = objects(cli("import", "--replace", "-", "--json", input=changed))
    assert change == {"kind": "scenario", "name": "TWO", "version": "1", "change": "changed"}
    assert (counts["scenarios"], counts["schedules"], counts["warnings"]) == (1, 0, 0)
    assert cli("import", "-", input=b"\xff").status == 2
    assert cli("drop", "TWO", "1").out == "OK\n"
    assert cli("export", "TWO").status == 4


def test_what_is_no_document(cli, tmp_path):
    path = tmp_path / "e2scrub_all"
    path.write_text("30 3 * * 0 root x\n")
    first, hint, last = cli("import", str(path)).err.splitlines()
    assert first.startswith("agentcli: %s: document: Extra data: " % path)
    assert hint == "agentcli: %s: a document begins with {; crontabs are imported with --crontab" % path
    assert last.startswith("agentcli: %s: ERR BAD_REQUEST " % path)
    path.write_text("[]")
    assert hint in cli("import", str(path)).err


def test_a_large_document_and_one_too_large(cli):
    def text(size):
        return json.dumps({"scenarios": [{"name": "BIG", "version": "1", "variables": {"v": "x" * size}, "steps": [
            {"name": "main", "tasks": [{"type": "os", "command": "true"}]}]}]}).encode()
    result = cli("import", "-", input=text(60000))
    assert result.status == 0, result
    result = cli("import", "-", input=text(5 * 1024 * 1024))
    assert result.status in (3, 4) and result.out == ""         # the close may overtake the reason


def test_schedules(cli):
    add = ["sched", "add", "NIGHT", "HELLO", "-1", "GLOBAL", "daily at 02:00", "who=the night"]
    assert cli(*add).out == "schedule=NIGHT\n"
    assert cli(*add).err.startswith("agentcli: ERR EXISTS ")
    listed, = objects(cli("sched", "list", "--json"))
    assert (listed["name"], listed["version"], listed["rule"]) == ("NIGHT", "-1", "daily at 02:00")
    assert "daily at 02:00" in cli("sched", "list").out.splitlines()[1]
    assert cli("sched", "set", "NIGHT", "--rule", "daily at 03:00", "who=x=y").status == 0
    record, variables = cli("sched", "show", "NIGHT").out.split("\n\n")
    assert re.search(r"^rule +daily at 03:00$", record, re.MULTILINE) and "x=y" in variables
    assert [row["schedule"] for row in objects(cli("sched", "next", "--count", "2", "--json"))] == ["NIGHT"] * 2
    assert objects(cli("sched", "off", "NIGHT", "--json")) == [{"schedule": "NIGHT", "enabled": False}]
    assert cli("sched", "on", "NIGHT").out == "schedule=NIGHT enabled=yes\n"
    for words in (["--hours"], ["--hours="], ["--hours", "--rule", "daily at 03:00"], ["-HOURS="]):
        assert cli("sched", "set", "NIGHT", "--hours", "01:00-18:00").status == 0
        assert "HOURS" in cli("sched", "show", "NIGHT").out
        assert cli("sched", "set", "NIGHT", *words) == Result(0, "schedule=NIGHT\n", "")
        assert "HOURS" not in cli("sched", "show", "NIGHT").out
    for words in (["--exclude_dates", "2026-12-25"], ["--exclude_dates=2026-12-25"], ["--exclude-dates=2026-12-25"]):
        assert cli("sched", "set", "NIGHT", "--exclude-dates=").status == 0
        assert "2026-12-25" not in cli("sched", "show", "NIGHT").out
        assert cli("sched", "set", "NIGHT", *words) == Result(0, "schedule=NIGHT\n", "")
        assert "2026-12-25" in cli("sched", "show", "NIGHT").out
    assert cli("hold", "not now", "--schedule", "NIGHT").status == 0
    assert "not now" in cli("sched", "show", "NIGHT").out
    assert cli("release", "--schedule=NIGHT").status == 0
    assert cli("sched", "why").status == 0
    assert cli("sched", "update").out.startswith("schedules=")
    assert cli("sched", "del", "NIGHT").out == "schedule=NIGHT\n"
    assert cli("sched", "list").out == ""


def test_repositories_and_cleaning(cli, tmp_path):
    path = str(tmp_path / "second repository.db")
    assert objects(cli("attach", "SECOND", path, "--create", "--json")) == [{"repository": "SECOND", "id": 2}]
    assert [row["path"] for row in objects(cli("repos", "--json"))][1] == path
    assert cli("detach", "SECOND").status == 0
    assert cli("clean").out == "cleaned=0\n"
    assert cli("clean", "-HOST=gone").out == "cleaned=0\n" == cli("clean", "--of-host", "gone").out
    assert cli("purge", "--days", "1").out == "purged=0\n"


def test_shutdown(agent, cli):
    assert cli("shutdown", "--max-wait", "5").out == "OK\n"
    assert agent.wait() == 0
    assert cli("ping").status == 3


# ---- ends ------------------------------------------------------------------------------------------------------------

def test_ctrl_c(agent):
    agent.import_os("LONG", "sleep 1000")
    process = spawn(agent.port, "exec", "LONG", "--wait")
    assert process.stdout.readline() == b"session=1001 status=QUEUED\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=LIMIT_S) == (b"", b"")
    assert process.returncode == 130
    assert agent.wait_status(1001, "RUNNING")           # the session goes on
    agent.ok("STOP 1001 -IMMEDIATE")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_nobody_reads_the_output(agent, form):
    agent.import_os("MUCH", "seq 1 40000")
    agent.ok("EXEC MUCH -SYNC")
    process = spawn(agent.port, "log", "1001", *form)
    assert b"main" in process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(LIMIT_S) == 141
    process.stdin.close()
    process.stderr.close()
    wait_for(lambda: "* agent_connections 1" in agent.ask("METRICS"), "the agent to notice")


def test_output_that_cannot_be_written(shared):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, PATH, "--port", str(shared.port), "ping"], stdout=full,
                              stderr=subprocess.PIPE, timeout=LIMIT_S)
    assert (done.returncode, done.stderr.count(b"\n")) == (141, 1) and b"cannot write" in done.stderr
