"""The commands that no verb stands behind: check, diff, edit, run, completion."""
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys

import pytest

from conftest import LIMIT_S, TOP

sys.path.insert(0, str(TOP / "tools"))

import agentcli     # noqa: E402
from support.client import PATH, run_client, spawn
from support.terminal import Terminal

pytestmark = pytest.mark.once


def of_command(name, command="true", version="1", **fields):
    return {"name": name, "version": version,
            "steps": [{"name": "main", "tasks": [dict({"type": "os", "command": command}, **fields)]}]}


@pytest.mark.parametrize("name", ["check", "diff", "edit", "run", "completion"])
def test_help_of_its_own(capsys, name):
    with pytest.raises(SystemExit):
        agentcli.main([name, "-h"])
    text = capsys.readouterr().out
    assert text.startswith("usage: agentcli.py %s " % name) and "\narguments:\n" in text
    with pytest.raises(SystemExit):
        agentcli.main(["-h"])
    assert re.search(r"^    %s\s+[a-z]" % name, capsys.readouterr().out, re.M)
    assert run_client(1, name).status == 2


# ---- check, diff -----------------------------------------------------------------------------------------------------

def test_check(agent, tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps({"scenarios": [of_command("A")]}))
    bad.write_text(json.dumps({"scenarios": [of_command("B", cmd="x"), {"name": "C"}]}))
    result = run_client(agent.port, "check", str(good))
    assert (result.status, result.out, result.err) == (0, "%s: definitions: 1, warnings: 0\n" % good, "")
    result = run_client(agent.port, "check", str(bad), str(good))
    assert result.status == 1 and result.out.splitlines() == ["%s: faults: 3" % bad, "%s: definitions: 1, warnings: 0" % good]
    assert "agentcli: %s: scenarios[0].steps[0].tasks[0].cmd: unknown field" % bad in result.err
    first, second = [json.loads(line) for line in run_client(agent.port, "check", "--json", str(bad), str(good)).out.splitlines()]
    assert {"path": "scenarios[1].version", "reason": "missing"} in first["faults"] and (first["ok"], second["ok"]) == (False, True)
    agent.import_document({"scenarios": [of_command("A", "false")]})          # what differs is no fault
    assert run_client(agent.port, "check", "-", input=good.read_bytes()).status == 0
    assert run_client(agent.port, "check", "-", input=b"{").status == 1
    assert [row["scenario"] for row in agent.rows("SCENARIOS")] == ["A", "HELLO"]
    assert run_client(agent.port, "check", "no such file").status == 2
    agent.stop()
    assert run_client(agent.port or 1, "check", str(good)).status == 3


def test_check_tells_warnings(agent, tmp_path):
    path = tmp_path / "w.json"
    scenario = of_command("W")
    scenario["steps"] += [dict(scenario["steps"][0], name="alone")]
    scenario["steps"][0]["on_ok"] = "END"
    path.write_text(json.dumps({"scenarios": [scenario]}))
    result = run_client(agent.port, "check", str(path))
    assert result.status == 0 and result.out.endswith("warnings: 1\n")
    assert re.match("agentcli: %s: scenarios.0..steps.1..*: warning: " % re.escape(str(path)), result.err)


def test_diff(agent, tmp_path):
    path = tmp_path / "d.json"
    document = {"scenarios": [of_command("A"), of_command("B")], "schedules": [{"name": "N", "scenario": "A", "rule": "daily at 02:00"}],
                "contexts": ["PROD"]}
    agent.import_document(document)
    path.write_text(json.dumps(document))
    result = run_client(agent.port, "diff", str(path))
    assert (result.status, result.err) == (0, "") and set(result.out.splitlines()) == {
        "only there  scenario HELLO 001", "only there  context GLOBAL"}
    agent.import_document({"scenarios": [of_command("A%d" % number) for number in range(9)]})
    assert run_client(agent.port, "diff", str(path)).out.splitlines() == [
        "only there  scenario A0 1, A1 1, A2 1, A3 1, A4 1 and 5 more", "only there  context GLOBAL"]
    assert run_client(agent.port, "diff", "--json", str(path)).out.count('"only there"') == 11
    document["scenarios"] = [of_command("A", "false"), of_command("B"), of_command("NEW")]
    document["schedules"][0]["rule"] = "daily at 03:00"
    path.write_text(json.dumps(document))
    result = run_client(agent.port, "diff", str(path))
    lines = result.out.splitlines()
    assert result.status == 1 and lines[0] == "changed  scenario A 1" and "new  scenario NEW 1" in lines
    assert '    -     "command": "true",' in lines and '    +     "command": "false",' in lines
    assert re.search('^    - +"rule": "daily at 02:00"', result.out, re.M) and "scenario B" not in result.out
    rows = [json.loads(line) for line in run_client(agent.port, "diff", "--json", str(path)).out.splitlines()]
    assert {(row["change"], row["name"]) for row in rows} >= {("changed", "A"), ("same", "B"), ("new", "NEW"), ("changed", "N"),
                                                            ("only there", "HELLO")}
    path.write_text('{"scenarios": [{}]}')
    result = run_client(agent.port, "diff", str(path))
    assert (result.status, result.out) == (2, "") and "scenarios[0].name: missing" in result.err


# ---- edit ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def editor(tmp_path):
    """editor("s/a/b/") -> an environment whose editor does that to a file, and notes its mode; of several each once."""
    def make_environment(*changes):
        path = tmp_path / "editor.py"
        left_path = tmp_path / "changes.json"
        left_path.write_text(json.dumps(changes))
        path.write_text("import json, os, re, sys\nleft = json.load(open(%r))\nwhat, by = left.pop(0)\n"
                        "json.dump(left, open(%r, 'w'))\ntext = open(sys.argv[1]).read()\n"
                        "open(%r, 'w').write('%%o' %% (os.stat(sys.argv[1]).st_mode & 0o777))\n"
                        "open(sys.argv[1], 'w').write(text.replace(what, by))\n" % (
                            str(left_path), str(left_path), str(tmp_path / "mode")))
        return dict(os.environ, VISUAL="%s '%s'" % (sys.executable, path), TMPDIR=str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return make_environment


def versions(agent, name):
    return [row["version"] for row in agent.rows("SCENARIOS") if row["scenario"] == name]


def test_edit(agent, tmp_path, editor):
    agent.import_document({"scenarios": [of_command("E", "echo one", "009")]})
    result = run_client(agent.port, "edit", "E", env=editor(("one", "one")))
    assert (result.status, result.out, result.err) == (0, "", "unchanged: nothing is imported\n")
    assert (tmp_path / "mode").read_text() == "600"
    result = run_client(agent.port, "edit", "E", env=editor(("one", "two \u00e9")))
    assert (result.status, result.err) == (0, "") and "kind=scenario name=E version=010 change=new" in result.out
    assert versions(agent, "E") == ["009", "010"]
    assert run_client(agent.port, "edit", "E", "009", env=editor(("one", "three"))).out.startswith("kind=scenario name=E version=011")
    assert run_client(agent.port, "edit", "E", env=editor(("011", "2.0"))).out.startswith("kind=scenario name=E version=2.0")
    result = run_client(agent.port, "edit", "E", "009", "--replace", env=editor(("one", "four")))
    assert result.out.startswith("kind=scenario name=E version=009 change=changed"), result
    assert "echo four" in "".join(agent.ask("EXPORT E 009")) and os.listdir(str(tmp_path / "tmp")) == []
    assert run_client(agent.port, "edit", "NONE", env=editor()).status == 4


def test_edit_asks_again_on_faults(agent, tmp_path, editor):
    agent.import_document({"scenarios": [of_command("E", "echo one", "1")]})
    result = run_client(agent.port, "edit", "E", env=editor(("steps", "step")))
    assert result.status == 1 and "unknown field" in result.err and versions(agent, "E") == ["1"]
    kept = re.search("what was edited is in (.*)", result.err).group(1)
    assert '"step"' in open(kept).read() and stat.S_IMODE(os.stat(kept).st_mode) == 0o600
    with Terminal(agent.port, "edit", "E", env=editor(("steps", "step"), ('"step"', '"steps"'), ("one", "two"))) as terminal:
        terminal.wait_text("Enter edits again, q gives up: ")
        terminal.type("\n")
        assert terminal.end() == 0 and "unchanged" in terminal.text
    with Terminal(agent.port, "edit", "E", env=editor(("steps", "step"), ('"step"', '"steps"'))) as terminal:
        terminal.wait_text("Enter edits again")
        terminal.type("q\n")
        assert terminal.end() == 1 and "nothing is imported" in terminal.text
    result = run_client(agent.port, "edit", "E", env=dict(os.environ, VISUAL="no-such-editor-here"))
    assert result.status == 2 and "no-such-editor-here" in result.err


# ---- run -------------------------------------------------------------------------------------------------------------

def test_run(agent, tmp_path):
    result = run_client(agent.port, "run", "--wait", "--name", "mine", "--", "mkdir", "a b", "-v", cwd=str(tmp_path))
    assert (result.status, result.err) == (0, "") and result.out.startswith("session=1001 status=QUEUED\nsession=1001 status=DONE")
    assert (tmp_path / "a b").exists() and agent.status(1001)["name"] == "mine"
    (tmp_path / "elsewhere").mkdir()
    again = run_client(agent.port, "run", "--follow", "--", "mkdir", "a b", "-v", cwd=str(tmp_path / "elsewhere"))
    assert again.status == 0 and agent.status(1001)["scenario"] == agent.status(2001)["scenario"]
    assert agent.status(1001)["scenario"].startswith("RUN.mkdir-") and len(agent.rows("SCENARIOS")) == 2
    result = run_client(agent.port, "run", "--follow", "--", "echo '${x}' $$ | sed 's/[0-9]*$/n/'; pwd; exit 3", cwd=str(tmp_path))
    assert (result.status, result.out) == (1, "${x} n\n%s\n" % tmp_path), result
    result = run_client(agent.port, "run", "--", "uname")
    assert (result.status, result.out) == (0, "session=4001 status=QUEUED\n")
    assert agent.wait_status(4001, "DONE")["scenario"] == "RUN.uname"


def test_run_takes_the_callers_path_and_outlives_him_and_the_agent(agent, tmp_path):
    program = tmp_path / "bin" / "my_program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho begun\nwhile [ ! -e '%s' ]; do sleep 0.05; done\necho over\n" % (tmp_path / "gate"))
    program.chmod(0o700)
    client = spawn(agent.port, "run", "--follow", "--", "my_program", env=dict(
        os.environ, PATH="%s:%s" % (program.parent, os.environ["PATH"])))
    assert client.stdout.readline() == b"begun\n"
    client.kill()
    client.communicate()
    agent.kill()
    agent.start()
    assert agent.wait_status(1001, "RUNNING")
    (tmp_path / "gate").write_text("")
    agent.wait_status(1001, "DONE")
    assert agent.log_texts(1001) == ["begun", "over"]


@pytest.mark.parametrize("one_way, other_way", [(["a", "b"], ["a_b"]), (["echo", "a b"], ["echo 'a b'"]), (["a", "b"], ["a", "b c"])])
def test_different_commands_are_different_scenarios(one_way, other_way):
    one_scenario, other_scenario = agentcli.make_scenario(one_way), agentcli.make_scenario(other_way)
    assert one_scenario["name"] != other_scenario["name"]
    assert one_scenario == agentcli.make_scenario(one_way)


# ---- completion ------------------------------------------------------------------------------------------------------

def test_what_is_offered(agent):
    agent.import_document({"scenarios": [dict(of_command("LOAD", version="7"), variables={"day": "", "hour": ""}), of_command("LAST")],
                           "schedules": [{"name": "NIGHT", "scenario": "LOAD", "rule": "daily at 02:00"}]})

    def offered(*words):
        result = run_client(agent.port, "completion", "words", "--", *words)
        assert (result.status, result.err) == (0, ""), result
        return result.out.split()
    assert offered("se") == ["sessions"] and {"exec", "sched", "run", "top"} - {"top"} <= set(offered(""))
    assert offered("sched", "n") == ["next"] and "--json" in offered("--")
    assert offered("exec", "L") == ["LAST", "LOAD"] and offered("exec", "LOAD", "") == ["7", "day=", "hour="]
    assert offered("--port", str(agent.port), "exec", "--wait", "LO") == ["LOAD"]
    assert "--max-wait" in offered("shutdown", "--") and offered("sched", "next", "") == ["NIGHT"]
    assert offered("sessions", "--status", "D") == ["DONE"] and offered("sessions", "--scenario", "LA") == ["LAST"]
    assert offered("log", "1001", "--stream", "") == ["out", "err"] and offered("completion", "") == ["bash", "zsh"]
    agent.ok("EXEC LAST -SYNC")
    assert offered("status", "") == ["1001"]


def test_nothing_is_offered_where_no_agent_answers():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        result = run_client(silent.getsockname()[1], "completion", "words", "--", "exec", "")
    assert result == (0, "", "")
    assert run_client(1, "completion", "words", "--", "exec", "") == (0, "", "")
    assert run_client(1, "completion", "fish").status == 2


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_in_a_shell(shared, shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip("no %s" % shell)
    script = run_client(shared.port, "completion", shell).out
    assert "agentcli.py" in script
    words = [PATH, "--port", str(shared.port), "exec", "HEL"]
    ask = ("COMP_WORDS=(%s); COMP_CWORD=4; _agentcli; echo \"${COMPREPLY[@]}\"" if shell == "bash" else
           "compdef() { :; }; compadd() { shift; print -- ${(P)1}; }; words=(%s); CURRENT=5; _agentcli") % " ".join(words)
    if shell == "zsh":
        ask, script = ask.replace("; words", "\n%s\nwords" % script, 1), ""
    done = subprocess.run([shell, "-c", script + "\n" + ask], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S,
                          env=dict(os.environ, PATH="%s:%s" % (os.path.dirname(sys.executable), os.environ["PATH"])))
    assert done.stdout.decode().split() == ["HELLO"], done
