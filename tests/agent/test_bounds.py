"""--allow-types and --root of a running agent; who may run tasks as root."""
import json
import os
import subprocess
import sys

import pytest

from conftest import AGENT, program
from support.tasks import add, begin, import_faults, os_task, run, stop

SET = {"type": "set", "variable": "v", "value": "new"}


def document_with(*tasks, name="J"):
    return {"scenarios": [{"name": name, "version": "1", "variables": {"v": ""},
                           "steps": [{"name": "main", "tasks": list(tasks)}]}]}


def put_in(agent, document):
    """Imports as an agent does that allows all types."""
    repository = agent.agent.places.get(None)
    program.import_into(agent.agent.master, repository, json.dumps(document), "OTHER", agent.clock.now(), False)


# -- the command line ------------------------------------------------------------------

@pytest.mark.parametrize("options, reason", [
    (["--allow-types", "sql,kopy"], '--allow-types: "kopy" is no type of a task; there are copy, delete, '),
    (["--allow-types", "sql,cpy"], "zip; do you mean copy?"),
    (["--allow-types", ""], '--allow-types: "" is no type of a task; there are copy'),
    (["--allow-types", "sql,,copy"], "is no type of a task"),
    (["--root", "/tmp"], "--root needs --allow-types without os and python: their processes reach any file"),
    (["--root", "/tmp", "--allow-types", "copy,os"], "--root needs --allow-types without os and python"),
    (["--root", "/tmp", "--allow-types", "python"], "--root needs --allow-types without os and python"),
])
def test_options_that_do_not_go_together_are_usage(capsys, options, reason):
    with pytest.raises(SystemExit) as caught:
        program.main(options)
    assert caught.value.code == 2 and reason in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("folder, reason", [
    ("none", "there is no such folder"), ("file", "there is no such folder"), ("", "master.db is in it"),
    ("link", "master.db is in it"), ("/", "agent.py is in it"), (os.path.dirname(sys.executable), " is in it, which tasks could")])
def test_a_root_that_cannot_be_one_is_told_at_the_start(tmp_path, folder, reason):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    settings = program.parse_arguments(["--master", str(tmp_path / "master.db"), "--create", "--allow-types", "sql",
                                        "--root", str(tmp_path / folder)])
    with pytest.raises(program.CannotStart) as caught:
        program.Agent(settings)
    assert reason in caught.value.message and caught.value.message.startswith("--root ")


@pytest.mark.parametrize("options, is_loopback, is_refused", [
    ([], True, False), ([], False, True), (["--as-root"], False, False), (["--run-as", "nobody"], False, False)])
def test_an_agent_of_root_serves_loopback_unless_told_otherwise(monkeypatch, options, is_loopback, is_refused):
    settings = program.parse_arguments(options + ["--host", "192.0.2.1"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    program.check_address(settings, is_loopback)            # of anybody else
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if not is_refused:
        program.check_address(settings, is_loopback)
        return
    with pytest.raises(program.CannotStart) as caught:
        program.check_address(settings, is_loopback)
    assert "--host 192.0.2.1: " in caught.value.message and "--as-root" in caught.value.message


# -- types -----------------------------------------------------------------------------

def test_a_type_that_is_not_allowed_is_a_fault_of_the_document(make_inside):
    agent = make_inside("--allow-types", "set, sleep").start()
    document = document_with(SET, os_task(), {"type": "copy", "from": "a"}, os_task(3))
    before = "scenarios[0].steps[0].tasks"
    forbidden = "tasks of this type (%s) may not run here: --allow-types has set, sleep"
    assert import_faults(agent, document) == {
        before + "[1].type": forbidden % "os", before + "[2].type": forbidden % "copy", before + "[2].to": "missing",
        before + "[3].type": forbidden % "os",
        before + "[3].command": "must be a string for the shell, or a list of program and arguments"}
    assert agent.err("IMPORT '%s' -DRY_RUN" % json.dumps(document_with(os_task()))) == "BAD_REQUEST"
    assert run(agent, SET, {"type": "sleep", "seconds": 0}, variables={"v": ""}).values == {"v": "new"}


def test_import_beside_the_agent_has_the_bound_that_it_is_given(make_inside, tmp_path):
    agent = make_inside().start()
    (tmp_path / "document").write_text(json.dumps(document_with(os_task())))
    command = [sys.executable, str(AGENT), "--master", str(agent.master), "--import", str(tmp_path / "document")]
    process = subprocess.run(command + ["--allow-types", "sql"], stderr=subprocess.PIPE, universal_newlines=True)
    assert process.returncode == 1 and "tasks[0].type: tasks of this type (os) may not run here" in process.stderr
    assert subprocess.call(command, stdout=subprocess.DEVNULL) == 0


def test_what_somebody_else_has_put_in_does_not_run(make_inside, tmp_path):
    agent = make_inside("--allow-types", "set,scenario").start()
    mark = tmp_path / "mark"
    put_in(agent, document_with(SET, os_task("touch %s" % mark)))
    put_in(agent, {"scenarios": [{"name": "PARENT", "version": "1", "steps": [
        {"name": "main", "tasks": [{"type": "scenario", "name": "J"}]}]}]})
    put_in(agent, {"scenarios": [{"name": "HANDLED", "version": "1", "variables": {"v": ""}, "steps": [
        {"name": "main", "tasks": [os_task("touch %s" % mark)], "on_error": "instead", "on_ok": "END"},
        {"name": "instead", "tasks": [SET]}]}]})
    reason = "tasks of this type (os) may not run here: --allow-types has scenario, set"
    end = agent.ok("EXEC J -SYNC")
    assert (end["status"], end["message"]) == ("ERROR", "step main: task 2: " + reason)
    assert [row["status"] for row in agent.rows("STATUS %s" % end["session"]) if "task" in row] == ["DONE", "ERROR"]
    assert agent.ok("EXEC PARENT -SYNC")["message"].endswith(reason)
    assert agent.ok("EXEC HANDLED -SYNC")["status"] == "WARNING"
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "ERROR"
    assert not mark.exists()


def test_what_was_allowed_when_it_was_stored_is_asked_for_when_it_runs(make_inside):
    agent = make_inside().start()
    name = add(agent, os_task())
    agent.stop()
    agent = make_inside("--allow-types", "set").start()
    assert agent.ok("EXEC %s -SYNC" % name)["status"] == "ERROR"
    assert agent.ask("EXPORT %s" % name)[-1].startswith("OK")
    agent.stop()
    agent = make_inside().start()
    assert agent.ok("EXEC %s -SYNC" % name)["status"] == "DONE"


# -- files -----------------------------------------------------------------------------

TYPES = "copy,move,delete,mkdir,zip,unzip,load_csv,unload_csv,sql,refresh,http,mail,wait_file,set"


@pytest.fixture(scope="module")
def rooted(tmp_path_factory):
    """An agent in the tests' process whose tasks have a folder, with a data server in it and one beside it."""
    from conftest import AgentInside
    top = tmp_path_factory.mktemp("rooted")
    for name in ("root", "beside"):
        (top / name).mkdir()
        (top / name / "a.csv").write_text("a\n1\n")
    agent = AgentInside(top / "repositories", "--root", str(top / "root"), "--allow-types", TYPES).start()
    agent.top = top
    agent.import_document({
        "data_servers": [{"name": name.upper(), "driver": "sqlite3", "database": str(top / name / "x.db")}
                         for name in ("root", "beside")] + [
            {"name": "MAIL", "driver": "smtp", "connect": {"host": "127.0.0.1", "port": 1}}],
        "logical_schemas": [{"name": "IN", "contexts": {"GLOBAL": "ROOT"}}, {"name": "OUT", "contexts": {"GLOBAL": "BESIDE"}}]})
    yield agent
    agent.finish()
    assert sorted(path.name for path in (top / "beside").iterdir()) == ["a.csv"]


@pytest.mark.parametrize("task", [
    {"type": "copy", "from": "BESIDE/a.csv", "to": "ROOT/b"}, {"type": "move", "from": "ROOT/a.csv", "to": "BESIDE/b"},
    {"type": "delete", "path": "BESIDE/a.csv"}, {"type": "mkdir", "path": "BESIDE/new"},
    {"type": "zip", "from": "ROOT/a.csv", "to": "BESIDE/b"}, {"type": "unzip", "from": "BESIDE/a.csv", "to": "ROOT/new"},
    {"type": "load_csv", "schema": "IN", "table": "t", "mode": "create", "file": "BESIDE/a.csv"},
    {"type": "unload_csv", "schema": "IN", "query": "select 1 as a", "file": "BESIDE/b"},
    {"type": "sql", "schema": "OUT", "statement": "create table t (a)"},
    {"type": "sql", "schema": "IN", "statement": "attach database 'BESIDE/b' as b"},
    {"type": "refresh", "schema": "OUT", "query": "select 1", "variable": "v"},
    {"type": "http", "url": "http://127.0.0.1:1/", "save": "BESIDE/b"},
    {"type": "mail", "to": ["a@b.example"], "subject": "x", "attach": ["BESIDE/a.csv"]},
    {"type": "wait_file", "path": "BESIDE/a.csv"}, {"type": "wait_file", "path": "BESIDE/*", "absent": True},
    {"type": "wait_file", "path": "ROOT/*/../../beside/a.csv"},
], ids=lambda task: task["type"])
def test_each_type_is_kept_in_the_folder(rooted, task):
    task = json.loads(json.dumps(task).replace("ROOT", str(rooted.top / "root")).replace("BESIDE", str(rooted.top / "beside")))
    session = run(rooted, task, variables={"v": ""})
    assert session.status == "ERROR"
    assert "leads out of %s, where --root has the files of tasks" % (rooted.top / "root") in session.message


def test_in_the_folder_all_goes_on(rooted):
    root = rooted.top / "root"
    (root / "out").symlink_to(rooted.top / "beside")
    session = run(rooted, {"type": "load_csv", "schema": "IN", "table": "t", "mode": "create", "file": str(root / "a.csv")},
                  {"type": "refresh", "schema": "IN", "query": "select a from t", "variable": "v"},
                  {"type": "copy", "from": str(root / "a.csv"), "to": str(root / "c-${v}")},
                  {"type": "wait_file", "path": str(root / "c-*"), "stable_s": 0}, variables={"v": ""})
    assert session.status == "DONE" and session.values == {"v": "1"} and (root / "c-1").exists(), session.message
    waiting = begin(rooted, {"type": "wait_file", "path": str(root / "later")})
    assert stop(rooted, waiting).status == "STOPPED"
    assert "leads out of" in run(rooted, {"type": "wait_file", "path": str(root / "out" / "a.csv")}).message


def test_a_secret_is_read_from_the_folder_alone(rooted):
    for name, status in (("root", "DONE"), ("beside", "ERROR")):
        path = rooted.top / name / "a.csv"
        secret = {"secret": True, "file": str(path)}
        (rooted.top / "root" / "a.csv").write_text("open sesame\n")
        session = run(rooted, SET, variables={"v": "", "password": secret})
        assert session.status == status, session.message
        assert (status == "DONE") is ("leads out of" not in session.message)
