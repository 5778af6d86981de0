"""load_csv and unload_csv on a real agent: what is loaded, what is refused, and what it costs."""
import contextlib
import csv
import itertools
import os
import sqlite3
import threading
import time

import pytest

from conftest import LIMIT_S, wait_for
from support.outside import change, query
from support.tasks import Run, begin, run, stop, with_databases     # noqa: F401 (a fixture)

NUMBERS = itertools.count(1)
MAX_KIB = 60 * 1024


class Load(Run):
    """A load_csv of some bytes into a table of its own, or one that is there."""

    def __init__(self, agent, folder, data, table=None, **fields):
        self.table = table or "t%d" % next(NUMBERS)
        path = folder / "in.csv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
        task = dict({"type": "load_csv", "file": str(path), "schema": "DWH", "table": self.table, "mode": "create"},
                    **fields)
        done = run(agent, task)
        self.__dict__.update(done.__dict__)
        self.task, self.path = done.tasks[0], path
        self.dwh = agent.dwh

    @property
    def rows(self):
        return query(self.dwh, 'select * from "%s" order by rowid' % self.table)


@pytest.fixture
def load(with_databases, tmp_path):
    return lambda data, **fields: Load(with_databases, tmp_path, data, **fields)


def exists(agent, table):
    return bool(query(agent.dwh, "select 1 from sqlite_master where name = ?", table))


# -- what is loaded --------------------------------------------------------------------

def test_create_from_the_header(load):
    done = load('id,"a name",note\n1,"x ""y"", z",\n2,"two\nlines",\u00e9\n\n')
    assert (done.status, done.task["rows"]) == ("DONE", "2"), done.message
    assert done.rows == [("1", 'x "y", z', ""), ("2", "two\nlines", "\u00e9")]


def test_append_replace_and_what_they_need(load, with_databases):
    first = load("a,b\n1,2\n")
    assert load("b,a\n3,4\n", table=first.table, mode="append").rows == [("1", "2"), ("4", "3")]
    assert load("a,b\n5,6\n", table=first.table, mode="create").rows[2:] == [("5", "6")]
    done = load("a,b\n7,8\n", table=first.table, mode="replace")
    assert done.rows == [("7", "8")] and done.task["rows"] == "1"
    done = load("a,b\n9,10,11\n", table=first.table, mode="replace")
    assert done.status == "ERROR" and done.rows == [("7", "8")]
    for mode in ("append", "replace"):
        done = load("a\n1\n", mode=mode)
        assert done.status == "ERROR" and "no such table" in done.message and not exists(with_databases, done.table)
    done = load("a,zz\n1,2\n", table=first.table, mode="append")
    assert done.status == "ERROR" and "zz" in done.message


def test_columns_with_and_without_a_header(load):
    done = load("1;x\n2;y\n", header=False, columns=["n", "t"], types={"n": "integer"}, delimiter=";")
    assert done.rows == [(1, "x"), (2, "y")]
    done = load("what,ever\n1,x\n", columns=["n", "t"])
    assert done.rows == [("1", "x")]


def test_types_and_empty_is_null(load):
    done = load("i,r,t\n-12,1.5e3,007\n,,\n9223372036854775807,-0.5,x\n", types={"i": "integer", "r": "real", "t": "text"})
    assert done.status == "DONE", done.message
    assert done.rows == [(-12, 1500.0, "007"), (None, None, ""), (9223372036854775807, -0.5, "x")]


@pytest.mark.parametrize("kind, texts", [
    ("integer", ["x", "1.5", "1_000", "9223372036854775808", "0x10", "1" * 5000]),
    ("real", ["1,5", "x", "1_0.0", "nan", "inf", "1e999", "-1e999"])])
def test_a_value_that_does_not_fit_its_type_is_a_bad_row(load, with_databases, kind, texts):
    data = "a,b\n1,2\n" + "".join('3,"%s"\n' % text for text in texts) + "4,5\n"
    done = load(data, types={"a": "integer", "b": kind}, max_errors=len(texts), error_table="bad_" + kind)
    assert (done.status, len(done.rows)) == ("WARNING", 2), (done.message, done.rows)
    found = query(with_databases.dwh, "select line, reason from bad_%s order by line" % kind)
    assert [line for line, _ in found] == list(range(3, 3 + len(texts))), found
    assert all("b: " in reason for _, reason in found), found
    done = load(data, types={"a": "integer", "b": kind})
    assert done.status == "ERROR" and "line 3" in done.message and "b: " in done.message


@pytest.mark.parametrize("encoding, data", [
    ("utf-8", "a,b\n\u00e9,x\n".encode("utf-8")), ("utf-8", "\ufeffa,b\n\u00e9,x\n".encode("utf-8")),
    ("utf-8", '\ufeff"a",b\r\n\u00e9,x\r\n'.encode("utf-8")), ("latin-1", "a,b\n\u00e9,x\n".encode("latin-1")),
    ("utf-16", "a,b\n\u00e9,x\n".encode("utf-16")), ("cp1252", "a,b\n\u00e9,x".encode("cp1252"))])
def test_encodings(load, encoding, data):
    done = load(data, encoding=encoding)
    assert done.status == "DONE", done.message
    assert query(done.dwh, "select a, b from %s" % done.table) == [("\u00e9", "x")]


def test_a_byte_order_mark_without_a_header(load):
    assert load(b"\xef\xbb\xbf1,x\n", header=False, columns=["n", "t"], types={"n": "integer"}).rows == [(1, "x")]


def test_names_that_need_quotes(load, with_databases):
    done = load('a b,"c""d",select\n1,2,3\n', table="odd name")
    assert done.status == "DONE" and done.rows == [("1", "2", "3")], done.message
    done = load("a\n1\n", table='x"; drop table "odd name"; --')
    assert exists(with_databases, "odd name")


# -- bad rows --------------------------------------------------------------------------

BAD = b"a,b\n1,one\n2\n3,x,y\n\xff,5\nfour,4\n\n5,\xfe\n6,six\n"


def test_bad_rows_with_an_error_table(load, with_databases):
    done = load(BAD, types={"a": "integer"}, max_errors=5, error_table="bad rows")
    assert (done.status, done.task["rows"]) == ("WARNING", "2") and "5 bad rows" in done.task["message"]
    assert done.rows == [(1, "one"), (6, "six")]
    found = query(with_databases.dwh, 'select line, reason, text from "bad rows" order by line')
    assert [(line, text) for line, _, text in found] == [
        (3, "2"), (4, "3,x,y"), (5, "\\xff,5"), (6, "four,4"), (8, "5,\\xfe")]
    assert ["1 columns" in found[0][1], "3 columns" in found[1][1], "bytes" in found[2][1],
            'a: "four" is no integer' in found[3][1], "bytes" in found[4][1]] == [True] * 5, found
    assert any('line 6: a: "four" is no integer' in text for text in done.texts)
    assert any(text.endswith(r": 5,\xfe") for text in done.texts), done.texts


def test_beyond_max_errors_nothing_is_loaded(load, with_databases):
    done = load(BAD, types={"a": "integer"}, max_errors=4, error_table="never")
    assert done.status == "ERROR" and "line 8" in done.message and "nothing was loaded" in done.message
    assert not exists(with_databases, done.table) and not exists(with_databases, "never")


def test_line_numbers_after_many_lines_and_lines_in_quotes(load, with_databases):
    rows = ["a,b"] + ['%d,"two\nlines"' % n for n in range(3000)] + ["bad"] + ["1,x"] * 3000 + ["x,1,2"]
    done = load("\n".join(rows), max_errors=2, error_table="lines")
    assert (done.status, done.task["rows"]) == ("WARNING", "6000"), done.message
    assert query(with_databases.dwh, "select line from lines") == [(6002,), (9003,)]


def test_bad_rows_anywhere_among_many_leave_the_others_in_their_order(load, with_databases):
    rows = ['%d,"two\r\nlines"' % n if n % 3 else "%d,%d" % (n, n) for n in range(2000)]
    bad = {3: "x,1", 499: '7,"a"b', 500: "1_0,x", 501: "1", 999: "%d,big" % (1 << 63), 1700: ""}
    rows = [bad.get(n, row) for n, row in enumerate(rows)]
    lines = [2 + sum(row.count("\n") + 1 for row in rows[:n]) for n in sorted(bad) if bad[n]]
    done = load("id,note\r\n" + "\r\n".join(rows), types={"id": "integer"}, max_errors=9, error_table="anywhere")
    assert query(with_databases.dwh, "select line from anywhere order by line") == [(line,) for line in lines]
    assert [number for number, _ in done.rows] == [n for n in range(2000) if n not in bad]


@pytest.mark.parametrize("data, rows, line", [
    ('id,note\n1,"first\n2,second\n3,third\n', [], 2),                 # never closed
    ('id,note\n0,x\n\n1,"first\n2,second\n', [("0", "x")], 4),
    ('id,note\n1,"a"b\n2,c\n', [("2", "c")], 2), ('id,note\n1,"a" ,\n2,c\n', [("2", "c")], 2),
    ('sep=,\nid,note\n1,"a"b\n2,c\n', [("2", "c")], 3)])
def test_quotes_as_rfc_4180_has_them(load, data, rows, line):
    done = load(data, max_errors=1)
    assert (done.status, done.rows) == ("WARNING", rows), done.message
    assert "1 bad row of %d in " % (len(rows) + 1) in done.task["message"]
    assert ", first line %d: " % line in done.task["message"]
    done = load(data)
    assert done.status == "ERROR" and "line %d: " % line in done.message


def test_quotes_inside_a_field_are_text(load):
    assert load('id,note\n1,5" pipe\n2,"a ""b"""\n').rows == [("1", '5" pipe'), ("2", 'a "b"')]


@pytest.mark.parametrize("first", ["sep=;\n", "sep=;\r\n", "\ufeffsep=;\n"])
def test_the_first_line_of_excel_gives_the_delimiter(load, first):
    done = load(first + "a;b\n1;2,5\n")
    assert done.rows == [("1", "2,5")] and done.tasks[0]["rows"] == "1"
    assert load(first + "1;2\n", header=False, columns=["a", "b"]).rows == [("1", "2")]
    assert load("sep=x1,b\n1,2\n").rows == [("1", "2")]           # a name like another


def test_a_utf_16_file_without_a_header_read_as_utf_8(load):
    done = load("1,2\n".encode("utf-16"), header=False, columns=["a", "b"])
    assert done.status == "ERROR" and "looks like utf-16" in done.message


def test_nul_bytes_and_fields_beyond_what_csv_takes(load, with_databases):
    data = b"a,b\n1,x\n2,\0\n3," + b"y" * 200000 + b"\n4,z\n"
    done = load(data, max_errors=2, error_table="nul")
    assert done.status == "WARNING", done.message
    assert done.rows == [("1", "x"), ("4", "z")]
    assert [line for line, in query(with_databases.dwh, "select line from nul order by line")] == [3, 4]
    assert load(data, max_errors=1).status == "ERROR"


@pytest.mark.parametrize("data, fields, reason", [
    (b"", {}, "is empty"), (b"a,b\n", {"types": {"c": "text"}}, "no column c"),
    (b"a,b,a\n1,2,3\n", {}, "columns 1 and 3 of the header have the same name"),
    (b"a,b,A\n1,2,3\n", {"mode": "append"}, "columns 1 and 3 of the header have the same name"),
    (b"h1,h2,\n1,2,\n", {}, "column 3 of the header has no name: give other names in `columns`"),
    (b"h1,h2,,,\n1,2,,,\n", {}, "column 3 of the header has no name"),
    (b"1,2\n", {"header": False, "columns": ["a", "A"]}, "columns 1 and 2 of `columns` have the same name"),
    (b'a,"b\n1,2\n', {}, "line 1: a quote is not closed: all from here to line 2 is one row"),
    (b'sep=;\n"a"b;c\n1;2\n', {}, "line 2: "),
    (b"caf\xe9,b\n1,2\n", {}, "line 1: the header has bytes that utf-8 does not have"),
    ("a,b\n1,2\n".encode("utf-16"), {}, "the file looks like utf-16"),
    ("a,b\n1,2\n".encode("utf-16-le"), {}, "the file looks like utf-16-le"),
    (b"\xef\xbb\xbfa,b\n1,2\n", {"encoding": "utf-16"}, "the file looks like utf-8"),
    (b"a,b\n\xff\n", {"encoding": "utf-16"}, "BOM")])
def test_files_that_cannot_be_loaded(load, with_databases, data, fields, reason):
    done = load(data, **fields)
    assert done.status == "ERROR" and reason in done.message and not exists(with_databases, done.table), done.message


def test_a_file_that_is_not_there(with_databases):
    done = run(with_databases, {"type": "load_csv", "file": "/no/such.csv", "schema": "DWH", "table": "t"})
    assert done.status == "ERROR" and "/no/such.csv" in done.message


def test_a_header_alone_and_an_empty_file_without_one(load):
    assert (load("a,b\n").status, load("a,b\n").rows) == ("DONE", [])
    assert load("", header=False, columns=["a"]).rows == []


# -- memory, cost, stop ---------------------------------------------------------------

@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of over 120 MB, about twice what a process may have."""
    path = tmp_path_factory.mktemp("large") / "large.csv"
    line = '%d,2015-01-01,"some text, quoted",' + "z" * 1000 + ",1.5\n"
    with open(str(path), "w", newline="") as file:
        file.write("id,day,text,more,value\n")
        for start in range(0, 120000, 1000):
            file.write("".join(line % number for number in range(start, start + 1000)))
    assert path.stat().st_size > 1.9 * MAX_KIB * 1024
    yield path
    path.unlink()


def helper_of(agent, word="--task"):
    """The pid of a helper process of the agent, or None."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/cmdline" % name, "rb") as file:
                    words = file.read().split(b"\0")
                with open("/proc/%s/stat" % name) as file:
                    parent = file.read().rsplit(")", 1)[1].split()[1]
            except OSError:
                continue
            if word.encode() in words and parent == str(agent.process.pid):
                return int(name)
    return None


class Peak:
    """The most memory that the agent's helper had, KiB."""

    def __init__(self, agent):
        self.kib, self._agent, self._over = 0, agent, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self):
        pid = None
        while not self._over.wait(0.05):
            pid = pid or helper_of(self._agent)
            try:
                with open("/proc/%s/status" % pid) as file:
                    found = [line for line in file if line.startswith("VmHWM")]
                self.kib = max([self.kib] + [int(line.split()[1]) for line in found])
            except OSError:
                pid = None

    def end(self):
        self._over.set()
        self._thread.join()
        return self.kib


def test_constant_memory(with_databases, large, tmp_path):
    peak = Peak(with_databases)
    try:
        done = run(with_databases, {"type": "load_csv", "file": str(large), "schema": "DWH", "table": "large", "mode": "create",
                            "types": {"id": "integer", "value": "real"}},
                   {"type": "unload_csv", "schema": "DWH", "query": "select * from large", "file": str(tmp_path / "out.csv")})
    finally:
        kib = peak.end()
    assert done.status == "DONE", done.message
    assert [task["rows"] for task in done.tasks] == ["120000", "120000"]
    assert 1000 < kib < MAX_KIB, kib
    assert abs((tmp_path / "out.csv").stat().st_size - large.stat().st_size) < 1e6
    (tmp_path / "out.csv").unlink()
    change(with_databases.dwh, "drop table large")


def test_a_stopped_load_leaves_nothing(with_databases, tmp_path):
    """Of a pipe that never ends."""
    pipe, fed = tmp_path / "pipe.csv", []
    os.mkfifo(str(pipe))

    def feed():
        with contextlib.suppress(BrokenPipeError):
            with open(str(pipe), "wb", 0) as file:
                file.write(b"id,text\n")
                while True:
                    file.write(b"1,some text\n" * 1000)
                    fed.append(1000)
    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    session = begin(with_databases, {"type": "load_csv", "file": str(pipe), "schema": "DWH", "table": "stopped",
                             "mode": "create"})
    wait_for(lambda: helper_of(with_databases), "the helper")
    wait_for(lambda: sum(fed) > 50000, "many rows to be loaded")
    done = stop(with_databases, session)
    feeder.join(LIMIT_S)
    assert not feeder.is_alive() and helper_of(with_databases) is None
    assert done.status == "STOPPED" and not exists(with_databases, "stopped")


def used_s(agent):
    """Processor time of the agent and of its helpers that have ended."""
    with open("/proc/%d/stat" % agent.process.pid) as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")


def test_cost_beside_a_bare_loop(with_databases, tmp_path):
    path = tmp_path / "rows.csv"
    with open(str(path), "w", newline="") as file:
        file.write("id,day,value,text\n")
        for number in range(200000):
            file.write("%d,2015-01-01,%d.5,some text\n" % (number, number))
    begun = time.process_time()
    connection = sqlite3.connect(str(tmp_path / "bare.db"))
    connection.execute("create table bare (id integer, day text, value real, text text)")
    with open(str(path), newline="") as file:
        reader = csv.reader(file)
        next(reader)
        connection.executemany("insert into bare values (?, ?, ?, ?)", reader)
    connection.commit()
    connection.close()
    bare_s, before_s = time.process_time() - begun, used_s(with_databases)
    done = run(with_databases, {"type": "load_csv", "file": str(path), "schema": "DWH", "table": "fast", "mode": "create",
                        "types": {"id": "integer", "value": "real"}})
    assert done.status == "DONE" and done.tasks[0]["rows"] == "200000"
    assert used_s(with_databases) - before_s < bare_s * 4 + 1, (used_s(with_databases) - before_s, bare_s)  # 1 s: the helper's start


# -- unload_csv ------------------------------------------------------------------------

def unload(agent, sql, path, **fields):
    variables = fields.pop("variables", {})
    return run(agent, dict({"type": "unload_csv", "schema": "DWH", "query": sql, "file": str(path)}, **fields),
               variables=variables)


def test_unload(with_databases, tmp_path):
    path = tmp_path / "${v}.csv"
    done = unload(with_databases, "select 1 as one, 'a,\"b\"' as \"x y\", null as empty, :v as v, 'two' || char(10) || 'lines' as l",
                  path, variables={"v": "caf\u00e9"})
    assert (done.status, done.tasks[0]["rows"]) == ("DONE", "1"), done.message
    with open(str(tmp_path / "caf\u00e9.csv"), newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["one", "x y", "empty", "v", "l"],
                                          ["1", 'a,"b"', "", "caf\u00e9", "two\nlines"]]
    done = unload(with_databases, "select 1, :v", tmp_path / "l1.csv", header=False, delimiter=";", encoding="latin-1",
                  variables={"v": "caf\u00e9"})
    assert (tmp_path / "l1.csv").read_bytes().rstrip() == b"1;caf\xe9"
    assert not list(tmp_path.glob("*.part"))


def test_unload_with_the_line_ends_that_are_wanted(with_databases, tmp_path):
    for fields, end in (({}, b"\r\n"), ({"newline": "crlf"}, b"\r\n"), ({"newline": "lf"}, b"\n")):
        unload(with_databases, "select 1 as n, 2 as m", tmp_path / "out.csv", **fields)
        assert (tmp_path / "out.csv").read_bytes() == b"n,m" + end + b"1,2" + end


@pytest.mark.parametrize("sql, fields, reason", [
    ("select nothing", {}, "nothing"), ("select * from nowhere", {}, "nowhere"), ("create table unwanted (a)", {}, "no rows"),
    ("select 1 union all select abs(-9223372036854775807 - 1)", {}, "overflow"),
    ("select char(8364)", {"encoding": "latin-1"}, "latin-1"),
    ("select 1 as n, x'00ff41' as photo", {}, "column \"photo\" has bytes, which are no text: write hex(...)")])
def test_a_failing_unload_leaves_the_old_file(with_databases, tmp_path, sql, fields, reason):
    (tmp_path / "out.csv").write_text("old")
    done = unload(with_databases, sql, tmp_path / "out.csv", **fields)
    assert done.status == "ERROR" and reason in done.message, done.message
    assert (tmp_path / "out.csv").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    assert not exists(with_databases, "unwanted")


def test_unload_into_no_folder(with_databases, tmp_path):
    done = unload(with_databases, "select 1", tmp_path / "none" / "out.csv")
    assert done.status == "ERROR" and "none/out.csv" in done.message


def test_a_stopped_unload_leaves_the_old_file(with_databases, tmp_path):
    (tmp_path / "out.csv").write_text("old")
    session = begin(with_databases, {"type": "unload_csv", "schema": "DWH", "file": str(tmp_path / "out.csv"), "query":
                             "with recursive c(n) as (select 1 union all select n + 1 from c) select n from c"})
    wait_for(lambda: helper_of(with_databases), "the helper")
    time.sleep(0.3)
    stop(with_databases, session)
    assert (tmp_path / "out.csv").read_text() == "old"
