"""Tasks on one agent: scenarios of one step, run, begun and stopped."""
import itertools
import json

import pytest

from conftest import AgentProcess, program, wait_for

NUMBERS = itertools.count(1)

# a DB-API module over sqlite3 that takes its own parameter style and no other
FAKE = '''
import os, re, sqlite3
Error = sqlite3.Error
apilevel, threadsafety, paramstyle = "2.0", 1, %r
PART = re.compile(r"%%%%|%%\\((\\w+)\\)s|%%s|%%|:(\\d+)|::\\w+|'[^']*'")

def translate(sql, parameters):
    with open(os.environ["FAKE_TRACE"], "a") as file:
        file.write(paramstyle + " " + sql.replace("\\n", " ") + "\\n")
    is_percent = paramstyle in ("format", "pyformat")
    def put(match):
        text = match.group()
        if text.startswith("::"):                   # a cast, which SQLite does not know
            return ""
        if text.startswith("'"):
            if is_percent and "%%" in text.replace("%%%%", ""):
                raise Error("unescaped percent sign")
            return text.replace("%%%%", "%%") if is_percent else text
        if match.group(2):
            if paramstyle not in ("numeric", "named"):
                raise Error("no numbers here")
            return "?" + match.group(2)
        if not is_percent:
            return text
        if text == "%%%%":
            return "%%"
        if match.group(1):
            if paramstyle != "pyformat":
                raise Error("no names here")
            return ":" + match.group(1)
        if text == "%%s":
            return "?"
        raise Error("unescaped percent sign")
    if paramstyle != "qmark" and "?" in re.sub("'[^']*'", "", sql):
        raise Error("question marks are no parameters here")
    if isinstance(parameters, dict) and paramstyle not in ("pyformat", "named"):
        raise Error("a sequence is wanted")
    if paramstyle == "named" and isinstance(parameters, dict):
        wanted = set(re.findall(r"(?<!:):([a-z_]\\w*)", re.sub("'[^']*'", "", sql)))
        if wanted != set(parameters):
            raise Error("wanted %%s, got %%s" %% (wanted, set(parameters)))
    return PART.sub(put, sql)

class Cursor:
    def __init__(self, cursor):
        self._cursor = cursor
    def execute(self, sql, parameters=()):
        self._cursor.execute(translate(sql, parameters), parameters)
    def executemany(self, sql, rows):
        self._cursor.executemany(translate(sql, ()), rows)
    def __getattr__(self, name):
        if name not in ("fetchone", "fetchall", "fetchmany", "description", "rowcount", "close"):
            raise AttributeError(name)
        return getattr(self._cursor, name)

class Connection:
    def __init__(self, path):
        self._connection = sqlite3.connect(path)
    def cursor(self):
        return Cursor(self._connection.cursor())
    def commit(self):
        self._connection.commit()
    def rollback(self):
        self._connection.rollback()
    def close(self):
        self._connection.close()

def connect(path, password=None):
    if password not in (None, "open sesame"):
        raise Error("wrong password")
    return Connection(path)
'''

STYLES = ("qmark", "format", "pyformat", "numeric", "named")


@pytest.fixture(scope="module")
def with_databases(tmp_path_factory):
    """One agent for all, with a SQLite data server DWH and the fake ones; each test has names of its own."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "lib").mkdir()
    for style in STYLES:
        (folder / "lib" / ("fake_%s.py" % style)).write_text(FAKE % style)
    made = AgentProcess(folder / "repo", env={
        "PYTHONPATH": str(folder / "lib"), "FAKE_TRACE": str(folder / "trace"),
        "no_proxy": "*", "http_proxy": "", "HTTP_PROXY": ""}).start()
    made.dwh, made.trace = folder / "dwh.db", folder / "trace"
    made.import_document({
        "data_servers": [{"name": "DWH_FILE", "driver": "sqlite3", "database": str(made.dwh)}] + [
            {"name": style.upper(), "driver": "fake_" + style, "connect": {"path": str(folder / (style + ".db"))}}
            for style in STYLES],
        "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "DWH_FILE"}}] + [
            {"name": "FAKE_" + style.upper(), "contexts": {"GLOBAL": style.upper()}} for style in STYLES]})
    yield made
    made.finish()
    assert "Traceback" not in made.log() and "Warning:" not in made.log(), made.log()


class Run:
    """A session that ran some tasks in one step."""

    def __init__(self, agent, number, end=None):
        rows = agent.rows("STATUS %s" % number)
        self.session, self.end = number, end or rows[0]
        self.status, self.message = self.end["status"], self.end["message"]
        self.tasks = [row for row in rows if "task" in row]
        self.values = {row["variable"]: row["value"] for row in rows if "variable" in row}
        self.texts = agent.log_texts(number)


def os_task(command="true", **fields):
    return dict({"type": "os", "command": command}, **fields)


def sql(statement, schema="DWH", **fields):
    return dict({"type": "sql", "schema": schema, "statement": statement}, **fields)


def step(name, *commands, **fields):
    """A step of os tasks: strings, lists, or objects of the task's fields."""
    tasks = [dict({"type": "os"}, **command) if isinstance(command, dict) else os_task(command)
             for command in commands]
    return dict({"name": name, "tasks": tasks}, **fields)


def add_steps(agent, *steps, **fields):
    """Imports a scenario of steps -> its name."""
    name = "T%d" % next(NUMBERS)
    agent.import_document({"scenarios": [dict({"name": name, "version": "1", "steps": list(steps)}, **fields)]})
    return name


def add(agent, *tasks, **fields):
    """Imports a scenario of one step -> its name."""
    return add_steps(agent, {"name": "main", "tasks": list(tasks)}, **fields)


def import_secret(agent, name, command, password=None, **fields):
    """Scenario NAME 1, whose secret `password` must be given, unless it has a source."""
    agent.import_os(name, command, variables={"password": dict({"secret": True}, **password or {})}, **fields)


def import_faults(agent, document):
    """The {path: reason} that an import is refused with."""
    lines = agent.ask("IMPORT '%s'" % json.dumps(document).replace("'", "\\u0027"))
    assert lines[-1].startswith("ERR BAD_REQUEST"), lines
    return dict(line[2:].split(": ", 1) for line in lines[:-1])


def task_faults(agent, task):
    """The {path within the task: reason} that an import is refused with."""
    document = {"scenarios": [{"name": "FAULTY", "version": "1", "variables": {"v": ""},
                               "steps": [{"name": "main", "tasks": [task]}]}]}
    lines = agent.ask("IMPORT '%s'" % json.dumps(document).replace("'", "\\u0027"))
    assert lines[-1].startswith("ERR BAD_REQUEST"), lines
    prefix = "scenarios[0].steps[0].tasks[0]"
    return {path[len(prefix):].lstrip("."): reason for path, reason in
            (line[2:].split(": ", 1) for line in lines[:-1] if line[2:].startswith(prefix))}


def run(agent, *tasks, options="", **fields):
    """Runs tasks to their end -> Run."""
    end = agent.ok("EXEC %s -SYNC %s" % (add(agent, *tasks, **fields), options))
    return Run(agent, end["session"], end)


def work_of(kind, **fields):
    """What a task's helper does, here -> the fields of its result. TaskError, OSError."""
    task_type = program.TASK_TYPES[kind]
    given = {name: field.default for name, field in task_type.fields.items()}
    return task_type.work(dict(given, type=kind, note=None, **fields))


def begin(agent, *tasks, **fields):
    """Starts tasks and waits until the first runs -> session."""
    session = agent.ok("EXEC %s" % add(agent, *tasks, **fields))["session"]
    wait_for(lambda: any("task" in row for row in agent.rows("STATUS %s" % session)), "the task to begin")
    return session


def stop(agent, session):
    """STOP -IMMEDIATE, of what would go on for longer than any test may take -> Run."""
    agent.ok("STOP %s -IMMEDIATE" % session)
    agent.wait_status(session, "STOPPED")
    return Run(agent, session)
