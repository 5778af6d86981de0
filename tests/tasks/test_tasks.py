"""Section 10 on a real agent: each task type's good, bad and stopped course (CSV: test_csv.py; files:
test_task_io.py; network: test_network.py)."""
import gc
import sqlite3
import time

import pytest

import agent as program
from conftest import is_alive, wait_for
from support.outside import change, foreign_lock, query
from support.tasks import (STYLES, Run, add, begin, run, sql, stop, task_faults,
                           with_databases)     # noqa: F401 (a fixture)

FOR_EVER = ("with recursive c(n) as (select 1 union all select n + 1 from c where n < 1000000000000)"
            " select count(*) from c")


def script(text, **fields):
    return dict({"type": "sql", "schema": "DWH", "script": text}, **fields)


# -- python ----------------------------------------------------------------------------

def test_python_code(with_databases, tmp_path):
    code = ("import os, sys\n"
            "print(sys.argv[1:], os.environ['VAR_v'], os.environ['EXTRA'], os.environ['SESSION'])\n"
            "print(os.getcwd())\n"
            "sys.stderr.write('to err: \u00e9 ' + __name__ + '\\n')")
    done = run(with_databases, {"type": "python", "code": code, "args": ["${v}", "two words"], "cwd": str(tmp_path),
                        "env": {"EXTRA": "x${v}", "PYTHONIOENCODING": "utf-8"}}, variables={"v": "a'b"})
    assert done.status == "DONE" and done.tasks[0]["rc"] == "0"
    assert "[\"a'b\", 'two words'] a'b xa'b %s" % done.session in done.texts
    assert str(tmp_path) in done.texts and "to err: \u00e9 __main__" in done.texts


def test_python_code_is_not_in_the_arguments(with_databases):
    done = run(with_databases, {"type": "python", "code": "print(open('/proc/self/cmdline').read().count('sesame'))"})
    assert done.texts == ["0"]


def test_python_file_capture_and_exit_code(with_databases, tmp_path):
    (tmp_path / "job.py").write_text("import sys\nprint('got', sys.argv[1])\nprint('second')\nsys.exit(int(sys.argv[2]))")
    task = {"type": "python", "file": str(tmp_path / "job.py"), "args": ["x", "0"], "capture": "v"}
    done = run(with_databases, task, variables={"v": ""})
    assert (done.status, done.values["v"]) == ("DONE", "got x\nsecond")
    done = run(with_databases, dict(task, args=["x", "7"]), variables={"v": "before"})
    assert (done.status, done.tasks[0]["rc"], done.values["v"]) == ("ERROR", "7", "before")
    assert "exit code 7" in done.message


@pytest.mark.parametrize("fields, text", [
    ({"code": "raise ValueError('oh no')"}, "ValueError: oh no"),
    ({"code": "if True print"}, "SyntaxError: "),
    ({"file": "/no/such/file.py"}, "/no/such/file.py"),
])
def test_python_that_fails(with_databases, fields, text):
    done = run(with_databases, dict(fields, type="python"))
    assert done.status == "ERROR" and any(text in line for line in done.texts), done.texts


def test_python_stopped_with_its_children(with_databases):
    session = begin(with_databases, {"type": "python", "code": "import subprocess, time, os\nprint(os.getpid(), flush=True)\n"
                             "p = subprocess.Popen(['sleep', '300'])\nprint(p.pid, flush=True)\np.wait()"})
    pids = wait_for(lambda: len(with_databases.log_texts(session)) == 2 and with_databases.log_texts(session), "two pids")
    stop(with_databases, session)
    assert not any(is_alive(int(pid)) for pid in pids)


def test_python_time_out(with_databases):
    done = run(with_databases, {"type": "python", "code": "import time\ntime.sleep(300)", "timeout": 0.5})
    assert done.status == "ERROR" and "time-out of the task" in done.message


# -- sql -------------------------------------------------------------------------------

def test_sql_rows_and_binds(with_databases):
    done = run(with_databases,
               sql("create table binds (name text, number integer)"),
               sql("insert into binds values (:v, 1), (:v || ':v', 2), (':v', 3)"),
               sql("update binds set number = number + 10 where name = :v"),
               sql("select * from binds"), sql("delete from binds where number > :n"),
               variables={"v": "x'); drop table binds; --", "n": "10"})
    assert done.status == "DONE", done.message
    assert [task["rows"] for task in done.tasks] == ["0", "3", "1", "3", "1"]
    assert query(with_databases.dwh, "select name, number from binds") == [
        ("x'); drop table binds; --:v", 2), (":v", 3)]


def test_script_with_semicolons_everywhere(with_databases):
    done = run(with_databases, script("""
        -- a comment; with a semicolon and a :name
        create table mess (text text, other text);
        create table mess_log (text text);
        create trigger mess_insert after insert on mess begin
            insert into mess_log values (new.text || ';');
            insert into mess_log values ('two; ' || case when 1 then 'x' else 'y' end);
        end;
        /* a block; of comment 'with a quote
           :and :names */
        insert into mess values ('it''s; :v', :v), ("semi;colon", :v);
        ;; -- nothing
        insert into mess values ('last' /* ; */, '-- none; ')  -- without an end
        """.replace('"semi;colon"', "'semi;colon'")), variables={"v": "1;2"})
    assert done.status == "DONE", done.message
    assert done.tasks[0]["rows"] == "3"
    assert query(with_databases.dwh, "select * from mess") == [
        ("it's; :v", "1;2"), ("semi;colon", "1;2"), ("last", "-- none; ")]
    assert query(with_databases.dwh, "select count(*) from mess_log") == [(6,)]


@pytest.mark.parametrize("text", ["-- only; a comment", "/* only */", " ;; ; "])
def test_script_that_says_nothing(with_databases, text):
    assert run(with_databases, script(text)).status == "DONE"


def test_a_failing_statement_leaves_nothing(with_databases):
    change(with_databases.dwh, "create table one (n integer primary key)")
    done = run(with_databases, script("insert into one values (1); create table half (n); insert into one values (1)"))
    assert done.status == "ERROR" and "UNIQUE" in done.message
    assert query(with_databases.dwh, "select * from one") == []
    assert query(with_databases.dwh, "select 1 from sqlite_master where name = 'half'") == []
    done = run(with_databases, sql("insert into one values (2)"), sql("insert into nowhere values (1)"))
    assert done.status == "ERROR" and "no such table" in done.message
    assert query(with_databases.dwh, "select * from one") == [(2,)]         # a transaction a task


FAILING = {
    "unique": sql("insert into one values (1)"),
    "unique of a script": script("insert into one values (2); insert into one values (1)"),
    "unique of a select": script("insert into one values (2); insert into one select 1 union all select 1"),
    "overflow": script("insert into one values (2); insert into one select abs(-9223372036854775808)"),
    "raise": script("create trigger no before insert on one begin select raise(abort, 'no'); end;"
                    "insert into one values (2)"),
    "raise that rolls back": script("create trigger no before insert on one begin select raise(rollback, 'no'); end;"
                                    "insert into one values (2)"),
    "raise that keeps": script("create trigger no before insert on one begin select raise(fail, 'no'); end;"
                               "insert into one values (2)"),
    "vacuum": sql("vacuum"),
    "two statements": sql("select 1; select 2"),
    "an insert for ever": script("insert into one values (2); insert into one " + FOR_EVER, timeout=0.3),
    "a select for ever": sql(FOR_EVER, timeout=0.3),
    "a select of rows for ever": sql(FOR_EVER.replace("count(*)", "n"), timeout=0.3),
    "a select after an insert": script("insert into one values (2); " + FOR_EVER, timeout=0.3),
    "a refresh for ever": {"type": "refresh", "schema": "DWH", "variable": "v", "query": FOR_EVER, "timeout": 0.3},
    "a refresh that fails": {"type": "refresh", "schema": "DWH", "variable": "v",
                             "query": "select abs(-9223372036854775808)"},
    "a refresh of too much": {"type": "refresh", "schema": "DWH", "variable": "v",
                              "query": "select hex(zeroblob(90000)) union all select n from one"},
    "a refresh that writes": {"type": "refresh", "schema": "DWH", "variable": "v", "query": "insert into one values (2)"},
}


@pytest.fixture
def one_table(inside):
    """An agent with a schema DWH whose table `one` holds 1 -> the path. Nothing is collected as garbage meanwhile:
    nobody waits for that."""
    path = inside.folder / "dwh.db"
    change(path, "create table one (n integer primary key)")
    change(path, "insert into one values (1)")
    inside.import_document({"data_servers": [{"name": "DWH_FILE", "driver": "sqlite3", "database": str(path)}],
                            "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "DWH_FILE"}}]})
    gc.disable()
    yield path
    gc.enable()


def is_free(path):
    """Whether nobody holds a lock of the file, and table `one` is as it was."""
    with foreign_lock(path, "exclusive") as other:
        return other.execute("select n from one").fetchall() == [(1,)]


@pytest.mark.parametrize("task", list(FAILING.values()), ids=list(FAILING))
def test_a_failed_task_has_no_lock_left(inside, one_table, task):
    """Whatever still refers to what failed: its handler writes to the same file."""
    handler = sql("create table if not exists err (x)", timeout=30)
    steps = [{"name": "load", "on_error": "handle", "tasks": [task]}, {"name": "handle", "tasks": [handler]}]
    done = run(inside, steps=steps, variables={"v": ""})
    assert [row["status"] for row in done.tasks] == ["ERROR", "DONE"], done.tasks
    assert is_free(one_table) and query(one_table, "select * from err") == []


@pytest.mark.parametrize("task", [FAILING["an insert for ever"], FAILING["a select of rows for ever"],
                                  FAILING["a select after an insert"], FAILING["a refresh for ever"]])
def test_a_stopped_task_has_no_lock_left(inside, one_table, task):
    stop(inside, begin(inside, dict(task, timeout=600), variables={"v": ""}))
    assert is_free(one_table)


@pytest.mark.parametrize("text", ["insert into own values (1); commit; insert into nowhere values (2)",
                                  "insert into own values (1); rollback; insert into nowhere values (2)",
                                  "begin; insert into own values (1); end",
                                  "insert into own values (1); commit"])
def test_the_transaction_is_the_tasks_own(with_databases, text):
    change(with_databases.dwh, "create table if not exists own (n integer)")
    done = run(with_databases, script(text))
    assert done.status == "ERROR", done.message
    assert query(with_databases.dwh, "select * from own") == []
    done = run(with_databases, script("insert into own values (1); savepoint a; delete from own; rollback to a; release a;"
                              "delete from own"))
    assert done.status == "DONE", done.message


def test_two_statements_are_no_statement(with_databases):
    done = run(with_databases, sql("select 1; select 2"))
    assert done.status == "ERROR" and "one statement" in done.message


def test_sql_that_is_wrong(with_databases):
    done = run(with_databases, sql("selekt 1"))
    assert done.status == "ERROR" and 'near "selekt": syntax error' in done.message
    with_databases.import_document({"data_servers": [{"name": "NOWHERE", "driver": "sqlite3", "database": "/no/where/x.db"}],
                            "logical_schemas": [{"name": "NOWHERE", "contexts": {"GLOBAL": "NOWHERE"}}]})
    done = run(with_databases, sql("select 1", schema="NOWHERE"))
    assert done.status == "ERROR" and "NOWHERE" in done.message and "unable to open" in done.message


def test_a_long_statement_is_stopped_and_rolled_back(with_databases):
    change(with_databases.dwh, "create table long (n integer)")
    session = begin(with_databases, script("insert into long values (1); insert into long " + FOR_EVER))
    time.sleep(0.3)
    done = stop(with_databases, session)
    assert done.tasks[0]["status"] == "STOPPED"
    assert query(with_databases.dwh, "select * from long") == []


def test_a_long_statement_times_out_and_is_rolled_back(with_databases):
    change(with_databases.dwh, "create table longer (n integer)")
    done = run(with_databases, script("insert into longer values (1); insert into longer " + FOR_EVER, timeout=0.5))
    assert done.status == "ERROR" and "time-out of the task after 0.5 s" in done.message
    assert query(with_databases.dwh, "select * from longer") == []


@pytest.mark.parametrize("kind", ["sql", "refresh", "unload_csv"])
def test_a_locked_data_server_is_waited_for_or_given_up(with_databases, tmp_path, kind):
    change(with_databases.dwh, "create table if not exists locked (n integer)")
    task = {"sql": sql("insert into locked values (1)"),
            "refresh": {"type": "refresh", "schema": "DWH", "variable": "v", "query": "select count(*) from locked"},
            "unload_csv": {"type": "unload_csv", "schema": "DWH", "query": "select * from locked",
                           "file": str(tmp_path / "out.csv")}}[kind]
    holder = sqlite3.connect(str(with_databases.dwh), isolation_level=None)
    try:
        holder.execute("begin exclusive")
        session = begin(with_databases, task, variables={"v": ""})
        time.sleep(1)
        assert with_databases.status(session)["status"] == "RUNNING", with_databases.status(session)
        stop(with_databases, session)
        session = begin(with_databases, task, variables={"v": ""})
        time.sleep(0.5)
        holder.execute("rollback")
    finally:
        holder.close()
    assert with_databases.wait_status(session, "DONE", "ERROR")["status"] == "DONE", with_databases.status(session)


def test_a_reader_delays_the_commit_only(with_databases):
    change(with_databases.dwh, "create table reads (n integer)")
    holder = sqlite3.connect(str(with_databases.dwh), isolation_level=None)
    try:
        holder.execute("begin")
        holder.execute("select * from reads").fetchall()        # a with_databases lock
        session = begin(with_databases, sql("insert into reads values (1)"))
        time.sleep(1)
        assert with_databases.status(session)["status"] == "RUNNING", with_databases.status(session)
        stopped = begin(with_databases, sql("insert into reads values (2)"))
        stop(with_databases, stopped)
        holder.execute("rollback")
    finally:
        holder.close()
    assert with_databases.wait_status(session, "DONE", "ERROR")["status"] == "DONE", with_databases.status(session)
    assert query(with_databases.dwh, "select * from reads") == [(1,)]


@pytest.mark.parametrize("style", STYLES)
def test_other_drivers(with_databases, tmp_path, style):
    schema = "FAKE_" + style.upper()
    (tmp_path / "in.csv").write_text("a,b\n1,x\n2,e%s\nbad\n")
    done = run(with_databases,
               sql("create table t (a integer, b text)", schema=schema),
               script("insert into t values (:n::integer, 'a:v % ; ''?'' %s %%'); insert into t values (:n + 1, :v || :v);"
                      "update t set b = b || '!' where b like 'x%' and a % 2 = :n + 1 - 1 - :n", schema=schema),
               {"type": "load_csv", "file": str(tmp_path / "in.csv"), "schema": schema, "table": "t",
                "types": {"a": "integer"}, "max_errors": 1, "error_table": "bad"},
               {"type": "refresh", "schema": schema, "variable": "v",
                "query": "select group_concat(b, '|') from t where a >= :n"},
               {"type": "unload_csv", "schema": schema, "query": "select a, b from t where b <> :w order by a, b",
                "file": str(tmp_path / "out.csv")},
               variables={"v": "x%s", "n": "7", "w": "x"})
    assert done.status == "WARNING", (done.message, done.tasks, done.texts)
    assert [task["rows"] for task in done.tasks][2:] == ["2", "1", "3"]
    rows = query(with_databases.dwh.parent / (style + ".db"), "select a, b from t order by a")
    assert rows == [(1, "x"), (2, "e%s"), (7, "a:v % ; '?' %s %%"), (8, "x%sx%s!")]
    assert done.values["v"] == "a:v % ; '?' %s %%|x%sx%s!"
    assert query(with_databases.dwh.parent / (style + ".db"), "select line, text from bad") == [(4, "bad")]
    assert (tmp_path / "out.csv").read_text().splitlines() == ["a,b", "2,e%s", "7,a:v % ; '?' %s %%", "8,x%sx%s!"]
    traced = [line for line in with_databases.trace.read_text().splitlines() if line.startswith(style)]
    assert any("::integer" in line for line in traced)


def test_another_driver_rolls_back_and_is_ended(with_databases):
    path = with_databases.dwh.parent / "qmark.db"
    change(path, "create table if not exists u (n integer primary key)")
    done = run(with_databases, script("insert into u values (1); insert into u values (1)", schema="FAKE_QMARK"))
    assert done.status == "ERROR" and "UNIQUE" in done.message and query(path, "select * from u") == []
    session = begin(with_databases, script("insert into u values (1); insert into u " + FOR_EVER, schema="FAKE_QMARK"))
    time.sleep(0.5)
    stop(with_databases, session)
    assert query(path, "select * from u") == []


# -- set, refresh, evaluate ------------------------------------------------------------

@pytest.mark.parametrize("text, names, sent", [
    ("select [a:b], t.[c:d] from t where n = :n", ["n"], "select [a:b], t.[c:d] from t where n = %s"),
    ('select "a:b", `c:d` from t', [], None), ("select a[:n], (b)[:n:2], array[:n]", ["n"] * 3, "select a[%s], (b)[%s:2], array[%s]"),
    (r"create trigger t for each row begin \:new.id = :n; end", ["n"],
     "create trigger t for each row begin :new.id = %s; end"),
    ("begin x(::new.id, ::old.id, :n); end", ["n"], "begin x(:new.id, :old.id, %s); end"),
    ("select :n::int, a::text, (b)::int, 'x'::date, c[1]::int", ["n"],
     "select %s::int, a::text, (b)::int, 'x'::date, c[1]::int"),
    (r"select '\:a ::b', 1 -- \:c ::d", [], None)])
def test_colons_and_quoted_names(text, names, sent):
    """`:name` binds; a quoted name is a name, `\\:` or `::` writes a colon, and `::` of an expression casts it."""
    assert program.DatabaseTask.names_in(text) == names
    values = dict.fromkeys(names, "7")
    assert program.bind(text, values, "format") == (sent or text, ["7"] * len(names))
    named = (sent or text).replace("%s", ":n")
    assert program.bind(text, values, "named") == (named, values)


def test_a_name_in_brackets_on_sqlite(with_databases):
    done = run(with_databases, script('create table odd ([a:b] text, "c:d" text); insert into odd ([a:b]) values (:v)'),
               {"type": "refresh", "schema": "DWH", "variable": "v", "query": "select [a:b] || 'y' from odd"},
               variables={"v": "x"})
    assert (done.status, done.values) == ("DONE", {"v": "xy"}), done.message
    assert task_faults(with_databases, sql("select :new.id")) == {
        "statement": r"no variable is named new (for a literal :new write \:new)"}


def test_bytes_are_no_value(with_databases):
    refresh = {"type": "refresh", "variable": "v", "schema": "DWH", "query": "select x'00ff41' as photo, 1"}
    done = run(with_databases, refresh, variables={"v": "kept"})
    assert done.status == "ERROR" and 'column "photo" has bytes' in done.message and "hex(" in done.message
    assert done.values == {"v": "kept"}
    assert run(with_databases, dict(refresh, query="select hex(x'00ff41')"), variables={"v": ""}).values["v"] == "00FF41"


def test_numbers_beyond_what_floats_hold_are_no_numbers(with_databases):
    """1e999 and 1e998 are both infinite for Python, and not equal."""
    done = run(with_databases, {"type": "evaluate", "variable": "v", "operator": "=", "value": "1e998"}, variables={"v": "1e999"})
    assert done.tasks[0]["message"].startswith("false")


def test_set_and_refresh(with_databases):
    change(with_databases.dwh, "create table source (n integer, text text)")
    change(with_databases.dwh, "insert into source values (1, 'one'), (2, null), (3, 'a''b')")

    def refresh(sql_text):
        return {"type": "refresh", "variable": "b", "schema": "DWH", "query": sql_text}
    done = run(with_databases, {"type": "set", "variable": "a", "value": "${a}+${SCENARIO} $x $${a}"},
               refresh("select text, n from source where n >= :n order by n"), variables={"a": "1", "b": "", "n": "3"})
    assert done.status == "DONE", done.message
    assert done.values["a"].startswith("1+T") and done.values["a"].endswith(" $x ${a}")
    assert done.values["b"] == "a'b" and done.tasks[1]["rows"] == "1"
    assert run(with_databases, refresh("select null"), variables={"b": "x"}).values["b"] == ""
    done = run(with_databases, refresh("select 1 from source where 0"), variables={"b": "kept"})
    assert done.status == "ERROR" and "no row" in done.message and done.values["b"] == "kept"
    done = run(with_databases, refresh("select nothing"), variables={"b": "kept"})
    assert done.status == "ERROR" and "nothing" in done.message


def test_a_long_refresh_is_stopped(with_databases):
    session = begin(with_databases, {"type": "refresh", "variable": "b", "schema": "DWH", "query": FOR_EVER},
                    variables={"b": ""})
    time.sleep(0.3)
    stop(with_databases, session)


TRUE = [("9", "<", "10"), ("10", ">", "9"), ("1.0", "=", 1), ("1e3", "=", "1000"), ("-5", "<=", -5), ("a", "<", "b"),
        ("10", "<", "9a"), ("x", "!=", "y"), ("7", ">=", "6.5"), ("b", "in", ["a", "b"]), ("2.0", "in", [1, 2]),
        ("b", "in", "a, b,c"), ("2015-01-31", "matches", r"^\d{4}-\d\d-31$"), ("abc", "matches", "B|b"),
        ("10", "in", "5,10.0"), ("9007199254740993", ">", "9007199254740992"), ("", "=", ""), ("v", "=", "${v}")]
FALSE = [("10", "<", "9"), ("1", "!=", "1.0"), ("a", "=", "A"), ("b", "in", ["a"]), ("d", "in", "a,b"), ("", "in", "a"),
         ("x", "matches", "^y"), ("1_0", "=", "10"), ("nan", "=", "1"), ("9007199254740993", "=", "9007199254740992")]


def test_evaluate(with_databases):
    """Each comparison is a step of one scenario; a wrong outcome goes to FAIL."""
    cases = [(case, True) for case in TRUE] + [(case, False) for case in FALSE]
    steps = []
    for index, ((left, operator, right), is_true) in enumerate(cases):
        then = "s%d" % (index + 1) if index + 1 < len(cases) else "END"
        steps.append({"name": "s%d" % index, "on_ok": then if is_true else "FAIL",
                      "on_false": "FAIL" if is_true else then, "tasks": [
                          {"type": "set", "variable": "v", "value": left},
                          {"type": "evaluate", "variable": "v", "operator": operator, "value": right}]})
    done = run(with_databases, steps=steps, variables={"v": ""})
    assert done.status == "DONE", (done.message, cases[len(done.tasks) // 2 - 1])
    assert {task["status"] for task in done.tasks} == {"DONE"}


def test_evaluate_false_is_no_error_and_skips_the_rest_of_the_step(with_databases):
    steps = [{"name": "check", "on_false": "other", "tasks": [
        {"type": "evaluate", "variable": "v", "operator": ">", "value": "1"},
        {"type": "os", "command": "echo never"}]},
        {"name": "between", "tasks": [{"type": "os", "command": "echo never"}]},
        {"name": "other", "tasks": [{"type": "os", "command": "echo other"}]}]
    done = run(with_databases, steps=steps, variables={"v": "1"})
    assert (done.status, done.texts) == ("DONE", ["other"]) and "false" in done.tasks[0]["message"]
    steps[0].pop("on_false")                # the step below
    done = run(with_databases, steps=steps, variables={"v": "1"})
    assert (done.status, done.texts) == ("DONE", ["never", "other"])


def test_evaluate_by_an_expression_that_is_none(with_databases):
    done = run(with_databases, {"type": "evaluate", "variable": "v", "operator": "matches", "value": "${v}"}, variables={"v": "("})
    assert done.status == "ERROR" and "no regular expression" in done.message


# -- sleep, wait_file ------------------------------------------------------------------

def test_sleep(with_databases):
    done = run(with_databases, {"type": "sleep", "seconds": "${v}"}, variables={"v": "0.3s"})
    assert done.status == "DONE" and float(done.end["duration"]) >= 0.3
    done = run(with_databases, {"type": "sleep", "seconds": "${v}"}, variables={"v": "long"})
    assert done.status == "ERROR" and "is not a number with s, m, h or d" in done.message
    stop(with_databases, begin(with_databases, {"type": "sleep", "seconds": "1d"}))
    done = run(with_databases, {"type": "sleep", "seconds": 100, "timeout": 0.3})
    assert done.status == "ERROR" and "time-out" in done.message


def test_wait_file(with_databases, tmp_path):
    pattern = str(tmp_path / "${v}*.csv")
    session = begin(with_databases, {"type": "wait_file", "path": pattern, "count": 2, "stable_s": 0.2}, variables={"v": "in"})
    (tmp_path / "in1.csv").write_text("x")
    (tmp_path / "other.csv").write_text("x")
    (tmp_path / "in_folder.csv").mkdir()
    time.sleep(0.8)
    assert with_databases.status(session)["status"] == "RUNNING"
    (tmp_path / "in2.csv").write_text("")
    with_databases.wait_status(session, "DONE")
    assert Run(with_databases, session).tasks[0]["rows"] == "2"


def test_wait_file_while_it_grows(with_databases, tmp_path):
    for attempt in range(9):
        path, gaps = tmp_path / ("big%d" % attempt), []
        session = begin(with_databases, {"type": "wait_file", "path": str(path), "stable_s": 1.5})
        with open(str(path), "wb", 0) as file:
            for _ in range(25):
                file.write(b"x")
                written = time.monotonic()
                time.sleep(0.1)
                status = with_databases.status(session)["status"]
                gaps.append(time.monotonic() - written)
        if max(gaps) < 1:           # otherwise the machine was too slow to be sure
            break
    assert status == "RUNNING"
    with_databases.wait_status(session, "DONE")


def test_wait_file_until_it_is_gone_stopped_and_timed_out(with_databases, tmp_path):
    path = tmp_path / "lock"
    path.write_text("")
    task = {"type": "wait_file", "path": str(path), "absent": True, "stable_s": 0}
    session = begin(with_databases, task)
    assert with_databases.status(session)["status"] == "RUNNING"
    stop(with_databases, begin(with_databases, task))
    done = run(with_databases, dict(task, timeout=0.3))
    assert done.status == "ERROR" and "time-out" in done.message
    path.unlink()
    with_databases.wait_status(session, "DONE")


# -- scenario --------------------------------------------------------------------------

def child_of(agent, session):
    return next((row for row in agent.rows("SESSIONS") if row["name"] == "child of %s" % session), None)


def test_scenario(with_databases):
    child = add(with_databases, {"type": "os", "command": "echo child ${a} $CONTEXT; exit ${b}"}, variables={"a": "x", "b": "0"})
    task = {"type": "scenario", "name": child, "variables": {"a": "from ${v}"}}
    done = run(with_databases, task, variables={"v": "above"})
    assert done.status == "DONE", done.message
    row = child_of(with_databases, done.session)
    assert row["session"] in done.tasks[0]["message"]
    assert with_databases.log_texts(row["session"]) == ["child from above GLOBAL"]
    done = run(with_databases, dict(task, variables={"b": 3}), variables={"v": ""})
    assert done.status == "ERROR" and "exit code 3" in done.message and child_of(with_databases, done.session)["status"] == "ERROR"
    for fields, reason in [({"name": "NOWHERE"}, "NOWHERE"), ({"version": "9"}, "9"), ({"variables": {"zz": "1"}}, "zz"),
                           ({"context": "NOWHERE"}, "NOWHERE")]:
        done = run(with_databases, dict(task, **fields), variables={"v": ""})
        assert done.status == "ERROR" and reason in done.message, done.message


def test_scenario_in_another_context_and_not_waited_for(with_databases):
    with_databases.import_document({"contexts": ["CHILD"]})
    child = add(with_databases, {"type": "os", "command": "echo in $CONTEXT; sleep 0.3"})
    done = run(with_databases, {"type": "scenario", "name": child, "context": "CHILD", "wait": False})
    row = child_of(with_databases, done.session)
    assert done.status == "DONE" and row["status"] in ("QUEUED", "RUNNING", "DONE")
    with_databases.wait_status(row["session"], "DONE")
    assert with_databases.log_texts(row["session"]) == ["in CHILD"]


def test_a_stop_and_a_time_out_go_down(with_databases):
    grandchild = add(with_databases, {"type": "os", "command": "echo $$; exec sleep 300"})
    child = add(with_databases, {"type": "scenario", "name": grandchild})
    session = begin(with_databases, {"type": "scenario", "name": child})
    row = wait_for(lambda: child_of(with_databases, session), "the child")
    last = wait_for(lambda: child_of(with_databases, row["session"]), "the grandchild")["session"]
    pid = int(wait_for(lambda: with_databases.log_texts(last), "its pid")[0])
    stop(with_databases, session)
    for number in (row["session"], last):
        with_databases.wait_status(number, "STOPPED")
    assert not is_alive(pid)
    done = run(with_databases, {"type": "scenario", "name": grandchild, "timeout": 2})
    assert done.status == "ERROR" and "time-out" in done.message
    with_databases.wait_status(child_of(with_databases, done.session)["session"], "STOPPED")


def test_a_cycle_is_refused(with_databases):
    def calls(name, other):
        return {"name": name, "version": "1", "steps": [{"name": "m", "tasks": [{"type": "scenario", "name": other}]}]}
    with_databases.import_document({"scenarios": [calls("CYCLE_A", "CYCLE_B"), calls("CYCLE_B", "CYCLE_A"),
                                          calls("CYCLE_C", "CYCLE_C")]})
    end = with_databases.ok("EXEC CYCLE_A -SYNC")
    assert end["status"] == "ERROR" and "CYCLE_A > CYCLE_B > CYCLE_A" in end["message"]
    end = with_databases.ok('EXEC CYCLE_C -SYNC -NAME="child of 999999999001"')
    assert end["status"] == "ERROR" and "would start itself" in end["message"]


def test_children_of_one_slot(make_agent):
    agent = make_agent("--max-sessions", "1").start()
    child = add(agent, {"type": "os", "command": "echo child"})
    middle = add(agent, {"type": "scenario", "name": child})
    sessions = [agent.ok("EXEC %s" % add(agent, {"type": "scenario", "name": middle}))["session"] for _ in range(3)]
    for session in sessions:
        assert agent.wait_status(session, "DONE", "ERROR")["status"] == "DONE"


# -- faults at import ------------------------------------------------------------------

@pytest.mark.parametrize("task, path, reason", [
    ({"type": "python"}, "", "must have one of"),
    ({"type": "python", "code": "x", "file": "y"}, "", "must have one of"),
    ({"type": "python", "code": "x", "args": "y"}, "args", "must be a list"),
    ({"type": "python", "code": "x", "env": {"A=": "y"}}, "env", "without ="),
    ({"type": "python", "code": "x", "capture": "zz"}, "capture", "no variable is named zz"),
    ({"type": "python", "code": "${zz}"}, "code", 'write os.environ["VAR_zz"]'),
    ({"type": "python", "code": "x", "command": "y"}, "command", "unknown field"),
    ({"type": "sql", "statement": "x"}, "schema", "missing"),
    ({"type": "sql", "schema": "DWH"}, "", "must have one of"),
    ({"type": "sql", "schema": "DWH", "statement": "x", "script": "y"}, "", "must have one of"),
    ({"type": "sql", "schema": "DWH", "statement": "select :zz, ':no', 1::int"}, "statement", "no variable is named zz"),
    ({"type": "sql", "schema": "NONE", "statement": "select 1"}, "schema", "no logical schema NONE"),
    ({"type": "set", "variable": "zz", "value": "x"}, "variable", "no variable is named zz"),
    ({"type": "set", "variable": "SESSION", "value": "x"}, "variable", "agent's own"),
    ({"type": "set", "variable": "v"}, "value", "missing"),
    ({"type": "refresh", "variable": "v", "schema": "DWH"}, "query", "missing"),
    ({"type": "refresh", "variable": "v", "schema": "DWH", "query": "select :zz"}, "query", "no variable is named zz"),
    ({"type": "evaluate", "variable": "v", "operator": "==", "value": "x"}, "operator", "must be ="),
    ({"type": "evaluate", "variable": "v", "operator": "=", "value": {}}, "value", "must be text"),
    ({"type": "evaluate", "variable": "v", "operator": "<", "value": ["1"]}, "value", "list"),
    ({"type": "evaluate", "variable": "v", "operator": "matches", "value": "("}, "value", "regular expression"),
    ({"type": "scenario"}, "name", "missing"),
    ({"type": "scenario", "name": "X", "variables": {"SESSION": "1"}}, "variables.SESSION", "agent's own"),
    ({"type": "scenario", "name": "X", "wait": "yes"}, "wait", "true or false"),
    ({"type": "sleep", "seconds": -1}, "seconds", "must be seconds"),
    ({"type": "sleep", "seconds": "${zz}"}, "seconds", "no variable is named zz"),
    ({"type": "wait_file", "path": ""}, "path", "must not be empty"),
    ({"type": "wait_file", "path": "x", "count": 0}, "count", "whole number"),
    ({"type": "copy", "from": "x"}, "to", "missing"),
    ({"type": "move", "from": "x", "to": "y", "overwrite": 1}, "overwrite", "true or false"),
    ({"type": "delete"}, "path", "missing"),
    ({"type": "mkdir", "path": 7}, "path", "must be text"),
    ({"type": "zip", "to": "y"}, "from", "missing"),
    ({"type": "unzip", "from": "x", "to": "y", "max_bytes": 0}, "max_bytes", "whole number"),
    ({"type": "load_csv", "file": "x", "schema": "DWH"}, "table", "missing"),
    ({"type": "load_csv", "file": "x", "schema": "DWH", "table": "t", "mode": "merge"}, "mode", "must be append"),
    ({"type": "load_csv", "file": "x", "schema": "DWH", "table": "t", "types": {"a": "date"}}, "types", "integer"),
    ({"type": "load_csv", "file": "x", "schema": "DWH", "table": "t", "encoding": "utf-99"}, "encoding", "encoding"),
    ({"type": "load_csv", "file": "x", "schema": "DWH", "table": "t", "delimiter": ";;"}, "delimiter", "one character"),
    ({"type": "load_csv", "file": "x", "schema": "DWH", "table": "t", "header": False}, "columns", "missing"),
    ({"type": "load_csv", "file": "x", "schema": "DWH", "table": "t", "columns": ["a"], "types": {"b": "text"}}, "types", "b is none"),
    ({"type": "unload_csv", "schema": "DWH", "query": "select :zz", "file": "x"}, "query", "no variable is named zz"),
    ({"type": "unload_csv", "schema": "DWH", "query": "select 1"}, "file", "missing"),
    ({"type": "http", "url": "ftp://x"}, "url", "must begin"),
    ({"type": "http", "url": "http://x", "expect": [20]}, "expect[0]", "whole number"),
    ({"type": "http", "url": "http://x", "headers": ["a"]}, "headers", "must be an object"),
    ({"type": "mail", "to": [], "subject": "s"}, "to", "at least 1"),
    ({"type": "mail", "to": ["a@b"]}, "subject", "missing"),
    ({"type": "teleport"}, "type", "must be one of"),
])
def test_faults_at_import(with_databases, task, path, reason):
    found = task_faults(with_databases, task)
    assert any(reason in text for place, text in found.items()
               if place == path or not path), found


# -- LOG -FOLLOW -----------------------------------------------------------------------

def test_log_follow(with_databases):
    session = begin(with_databases, {"type": "python", "code": "import os, time\nfor i in range(4):\n print(i, flush=True)\n"
                             " while not os.path.exists('follow%d' % i):\n  time.sleep(0.05)"})
    with with_databases.connect() as client:
        client.send("LOG %s -FOLLOW" % session)
        for text in "0123":
            line = client.line()
            assert line.endswith(" out " + text), line
            assert with_databases.status(session)["status"] == "RUNNING"
            (with_databases.folder / ("follow" + text)).touch()
        assert client.line().startswith("OK")
    assert with_databases.status(session)["status"] == "DONE"
    assert len(with_databases.ask("LOG %s -FOLLOW" % session)) == 5     # of one that has ended


def test_log_follow_ends_with_the_agent_and_costs_nothing_when_left(make_agent):
    agent = make_agent().start()
    session = begin(agent, {"type": "os", "command": "echo begun; sleep 300"})
    left, stays = agent.connect(), agent.connect()
    for client in (left, stays):
        client.send("LOG %s -FOLLOW" % session)
        assert client.line().endswith(" out begun")
    left.close()
    assert agent.ok("PING")["running"] == "1"
    agent.ok("SHUTDOWN -IMMEDIATE")
    assert stays.line().split(" ")[0] in ("OK", "ERR", "")
    stays.close()
    assert agent.wait() == 0
