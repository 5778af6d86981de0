"""Data servers, schemas and contexts: what a document may say, what comes back, and where a task then works."""
import itertools
import json

import pytest

from conftest import AgentProcess
from support.outside import query
from support.tasks import add, import_faults, sql

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def with_topology(tmp_path_factory):
    """One agent whose schema DWH is a file a context, `ONE` for GLOBAL and `TWO` for PROD; DEV has none of its own."""
    folder = tmp_path_factory.mktemp("topology")
    (folder / "lib").mkdir()
    (folder / "lib" / "seen_driver.py").write_text(
        "import json, os, sqlite3\nparamstyle = 'qmark'\n"
        "def connect(**keywords):\n"
        "    with open(os.environ['SEEN'], 'w') as file:\n        json.dump(keywords, file)\n"
        "    return sqlite3.connect(':memory:')\n")
    made = AgentProcess(folder / "repo", env={"PYTHONPATH": str(folder / "lib"), "SEEN": str(folder / "seen"), "DB_PASSWORD": "open sesame"}).start()
    made.top = folder
    made.import_document({
        "contexts": ["DEV", "PROD"],
        "data_servers": [{"name": name, "driver": "sqlite3", "database": str(folder / (name + ".db"))}
                         for name in ("ONE", "TWO")],
        "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "ONE", "PROD": "TWO.SALES"}},
                            {"name": "PROD_ONLY", "contexts": {"PROD": "TWO"}}]})
    yield made
    made.finish()
    assert "Traceback" not in made.log() and "Warning:" not in made.log(), made.log()


# -- contexts --------------------------------------------------------------------------

def test_the_same_scenario_in_each_context_works_on_its_database(with_topology):
    name = add(with_topology, sql("create table if not exists seen (context text)"), sql("insert into seen values (:CONTEXT)"))
    for context in ("GLOBAL", "PROD", "DEV", "PROD"):
        assert with_topology.ok("EXEC %s -1 %s -SYNC" % (name, context))["status"] == "DONE"
    assert query(with_topology.top / "ONE.db", "select * from seen") == [("GLOBAL",), ("DEV",)]     # DEV takes GLOBAL's
    assert query(with_topology.top / "TWO.db", "select * from seen") == [("PROD",), ("PROD",)]


def test_a_schema_without_a_server_in_the_context(with_topology):
    name = add(with_topology, sql("select 1", "PROD_ONLY"))
    end = with_topology.ok("EXEC %s -1 GLOBAL -SYNC" % name)
    assert end["status"] == "ERROR" and "PROD_ONLY has no data server in context GLOBAL" in end["message"]
    assert with_topology.ok("EXEC %s -1 PROD -SYNC" % name)["status"] == "DONE"
    assert with_topology.err("EXEC %s -1 NOWHERE" % name) == "NOT_FOUND"


def test_contexts_are_listed(with_topology):
    assert {"GLOBAL", "DEV", "PROD"} <= {row["context"] for row in with_topology.rows("CONTEXTS")}


def test_a_changed_topology_counts_from_the_next_task(with_topology):
    name = add(with_topology, sql("create table if not exists moved (n integer)"))
    server = {"name": "MOVING", "driver": "sqlite3", "database": str(with_topology.top / "a.db")}
    with_topology.import_document({"data_servers": [server], "logical_schemas": [{"name": "M", "contexts": {"GLOBAL": "MOVING"}}]})
    name = add(with_topology, sql("create table moved (n integer)", "M"))
    for file in ("a.db", "b.db"):
        with_topology.import_document({"data_servers": [dict(server, database=str(with_topology.top / file))]})
        assert with_topology.ok("EXEC %s -SYNC" % name)["status"] == "DONE"
        assert query(with_topology.top / file, "select * from moved") == []


# -- export ----------------------------------------------------------------------------

def test_export_gives_the_topology_back(make_agent):
    document = {
        "contexts": ["DEV", "GLOBAL", "PROD"],
        "data_servers": [{"name": "A", "driver": "sqlite3", "database": "/srv/\u00e9.db"},
                         {"name": "B", "driver": "some.module", "connect": {
                             "user": "etl", "port": 1521, "tls": True, "password": {"env": "NO_SUCH"}, "key": {"file": "/no/file"}}}],
        "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "A", "PROD": "B.SALES"}}, {"name": "X", "contexts": {"DEV": "B"}}],
        "scenarios": [{"name": "S", "version": "1", "steps": [{"name": "main", "tasks": [sql("select 1"), sql("select 1", "X")]}]}]}
    first = make_agent(folder="first").start()
    first.import_document(document)
    exported = json.loads("\n".join(line[2:] if line.startswith("* ") else line for line in first.ask("EXPORT")[:-1]))
    for key in ("contexts", "data_servers", "logical_schemas"):
        assert exported[key] == document[key]
    second = make_agent(folder="second").start()
    second.import_document(exported, "-REPLACE")
    again = json.loads("\n".join(line[2:] if line.startswith("* ") else line for line in second.ask("EXPORT")[:-1]))
    assert again == exported
    second.import_document(exported)
    assert second.stop() == 0
    assert second.start().rows("CONTEXTS") == first.rows("CONTEXTS")


# -- faults at import ------------------------------------------------------------------

SERVER = {"name": "A", "driver": "sqlite3", "database": "/x.db"}


@pytest.mark.parametrize("document, path, reason", [
    ({"data_servers": [{"name": "A", "driver": "sqlite3"}]}, "data_servers[0].database", "missing"),
    ({"data_servers": [{"name": "A"}]}, "data_servers[0].driver", "missing"),
    ({"data_servers": [{"driver": "x"}]}, "data_servers[0].name", "missing"),
    ({"data_servers": [dict(SERVER, driver="x")]}, "data_servers[0].database", "sqlite3"),
    ({"data_servers": [dict(SERVER, port=1)]}, "data_servers[0].port", "unknown field"),
    ({"data_servers": [SERVER, SERVER]}, "data_servers[1]", "second time"),
    ({"data_servers": ["A"]}, "data_servers[0]", "must be an object"),
    ({"data_servers": [{"name": "A", "driver": "x", "connect": {"p": {"envy": "X"}}}]}, "data_servers[0].connect", "secret"),
    ({"data_servers": [{"name": "A", "driver": "x", "connect": {"p": {"env": "X", "file": "y"}}}]}, "data_servers[0].connect", "secret"),
    ({"data_servers": [{"name": "A", "driver": "x", "connect": {"p": ["X"]}}]}, "data_servers[0].connect", "list"),
    ({"data_servers": [{"name": "A", "driver": "x; import os"}]}, "data_servers[0].driver", ""),
    ({"contexts": ["a b"]}, "contexts[0]", ""),
    ({"contexts": "A"}, "contexts", "must be a list"),
    ({"logical_schemas": [{"name": "L"}]}, "logical_schemas[0].contexts", "missing"),
    ({"logical_schemas": [{"name": "L", "contexts": {}}]}, "logical_schemas[0].contexts", "object"),
    ({"logical_schemas": [{"name": "L", "contexts": {"NOWHERE": "ONE"}}]}, "logical_schemas[0].contexts.NOWHERE", "no context NOWHERE"),
    ({"logical_schemas": [{"name": "L", "contexts": {"GLOBAL": "NONE.X"}}]}, "logical_schemas[0].contexts.GLOBAL", "no data server NONE"),
    ({"logical_schemas": [{"name": "L", "contexts": {"GLOBAL": 7}}]}, "logical_schemas[0].contexts", "data server"),
    ({"scenarios": [{"name": "S", "version": "1", "steps": [{"name": "m", "tasks": [sql("select 1", "NOPE")]}]}]},
     "scenarios[0].steps[0].tasks[0].schema", "no logical schema NOPE"),
])
def test_faults(with_topology, document, path, reason):
    found = import_faults(with_topology, document)
    assert path in found and reason in found[path], found


def test_all_faults_at_once_and_nothing_is_imported(with_topology):
    before = with_topology.ask("EXPORT")
    found = import_faults(with_topology, {"contexts": ["NEW", "a b"], "data_servers": [SERVER, {"name": "B"}],
                            "logical_schemas": [{"name": "L"}]})
    assert len(found) == 3
    found = import_faults(with_topology, {"contexts": ["NEW"], "data_servers": [SERVER],
                            "logical_schemas": [{"name": "L", "contexts": {"NEW": "A", "NOWHERE": "A", "GLOBAL": "B"}}]})
    assert len(found) == 2
    assert with_topology.ask("EXPORT") == before


# -- drivers and secrets ---------------------------------------------------------------

def run_on(agent, driver, connect, tasks=None):
    """Runs a statement on a data server of its own -> the end."""
    name = "D%d" % next(NUMBERS)
    agent.import_document({"data_servers": [{"name": name, "driver": driver, "connect": connect}],
                           "logical_schemas": [{"name": name, "contexts": {"GLOBAL": name}}]})
    end = agent.ok("EXEC %s -SYNC" % add(agent, *(tasks or [sql("select 1", name)])))
    return end


def test_a_missing_driver_is_an_error_of_the_task(with_topology):
    end = run_on(with_topology, "no_such_driver", {})
    assert end["status"] == "ERROR" and "no module no_such_driver" in end["message"]
    end = run_on(with_topology, "json", {})
    assert end["status"] == "ERROR" and "connect" in end["message"]


def test_the_secrets_of_connect(with_topology):
    (with_topology.top / "secret").write_text("from a file\n")
    connect = {"user": "etl", "port": 7, "tls": False, "password": {"env": "DB_PASSWORD"},
               "key": {"file": str(with_topology.top / "secret")}}
    assert run_on(with_topology, "seen_driver", connect)["status"] == "DONE"
    assert json.loads((with_topology.top / "seen").read_text()) == {
        "user": "etl", "port": 7, "tls": False, "password": "open sesame", "key": "from a file"}
    (with_topology.top / "secret").write_text("another")               # read at the task
    assert run_on(with_topology, "seen_driver", connect)["status"] == "DONE"
    assert json.loads((with_topology.top / "seen").read_text())["key"] == "another"
    text = "\n".join(with_topology.ask("EXPORT"))
    assert "open sesame" not in text and "from a file" not in text and "DB_PASSWORD" in text


@pytest.mark.parametrize("source, told", [({"env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE"),
                                          ({"file": "/no/such/secret"}, "/no/such/secret")])
def test_a_missing_secret_is_an_error_that_names_it(with_topology, source, told):
    end = run_on(with_topology, "seen_driver", {"password": source})
    assert end["status"] == "ERROR" and told in end["message"] and "password" in end["message"]


def test_secrets_are_not_in_the_arguments_of_processes(with_topology, tmp_path):
    (with_topology.top / "lib" / "looks.py").write_text(
        "import os, sqlite3\nparamstyle = 'qmark'\n"
        "def connect(password):\n"
        "    with open('/proc/self/cmdline') as file:\n        assert password not in file.read()\n"
        "    assert password not in str([v for k, v in os.environ.items() if k != 'DB_PASSWORD'])\n"
        "    return sqlite3.connect(':memory:')\n")
    end = run_on(with_topology, "looks", {"password": {"env": "DB_PASSWORD"}})
    assert end["status"] == "DONE", end


def test_a_missing_module_is_a_warning_of_the_import(agent):
    lines = agent.ask("IMPORT '%s'" % json.dumps({"data_servers": [
        {"name": "X", "driver": "no_such_driver", "connect": {}}]}))
    assert lines[1] == ('* warning="this host\'s Python has no module no_such_driver"'
                        " path=data_servers[0].driver")
    assert lines[-1].startswith("OK") and lines[-1].endswith(" data_servers=1 logical_schemas=0 calendars=0 engines=0"
                                                             " notices=0 warnings=1")


def test_all_faults_of_a_document_are_told_at_once(agent):
    lines = agent.ask("IMPORT '%s'" % json.dumps({
        "scenarios": [{"name": "A", "version": "1", "wrong": 1, "steps": [
            {"name": "s", "tasks": [{"type": "os", "command": "true"}]}]}],
        "schedules": [{"name": "N", "scenario": "NOPE", "context": "NOWHERE", "rule": "every 1h"}],
        "logical_schemas": [{"name": "L", "contexts": {"GLOBAL": "NO_SERVER"}}]}))
    paths = {line.split(":")[0] for line in lines[:-1]}
    assert paths == {"* scenarios[0].wrong", "* schedules[0].scenario", "* schedules[0].context",
                     "* logical_schemas[0].contexts.GLOBAL"}
