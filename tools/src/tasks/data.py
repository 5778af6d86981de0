"""Statements on data servers: sql and refresh."""
import contextlib
import importlib
import os
import sqlite3
import time
from typing import Any, NamedTuple

from ..base.vocabulary import DONE, MAX_VALUE
from ..base.words import shorten
from ..definitions.kinds import FILLED, Field, NAMED, VARIABLE_NAME
from ..base.files import find_fault_beside, open_new
from .guards import SqlGuard
from .roots import Root
from .statements import bind, check_statement, list_bound, split_script
from .task import HelperTask, TaskError, needed, task_type

ROWS_AT_ONCE = 500             # rows


class Target(NamedTuple):
    """An open connection to a data server, and what its module wants to know."""
    connection: Any
    style: str              # of parameters
    is_sqlite: bool
    given_up: list          # holds something when nobody waits for it any more
    cursors: list           # the one of the newest statement
    guard: Any = None       # the SqlGuard, where one is wanted

    def run(self, text, values):
        """Executes one statement with the values of its :names -> its cursor."""
        cursor = self.connection.cursor()
        self.cursors[:] = [cursor]
        self.patiently(lambda: cursor.execute(*bind(text, values, self.style)))
        return cursor

    def patiently(self, function):
        """function(), again while a lock of SQLite is in its way, for as long as it takes."""
        while True:
            try:
                return function()
            except sqlite3.OperationalError as error:
                if str(error) != "database is locked" or not self.is_sqlite or self.given_up:
                    raise
                time.sleep(0.05)

    def begin(self, how="immediate"):
        """Begins the one transaction of a task, which DB-API has begun already; a `deferred` one is
        for a query, and nobody commits it: what that would change is not kept."""
        if self.is_sqlite:
            self.patiently(lambda: self.connection.execute("begin " + how))
        if self.guard:                      # a deferred one has opened nothing yet
            self.patiently(lambda: self.connection.execute("pragma schema_version").fetchone())
            self.guard.check_open()

    def commit(self):
        """Ends it."""
        self.patiently(self.connection.commit)

    def close(self):
        """Ends what is not committed. Not the connection's close alone: a statement that failed
        keeps its lock under Python 3.11 until its cursor, which the exception leads to, is gone."""
        for end in [cursor.close for cursor in self.cursors] + [self.connection.rollback]:
            with contextlib.suppress(Exception):    # of a driver that minds: closing follows
                end()
        self.connection.close()

    def interrupt(self):
        """From another thread: ends the statement under way, and the waiting for a lock."""
        self.given_up.append(True)
        with contextlib.suppress(sqlite3.ProgrammingError):     # it is closed by now
            self.connection.interrupt()


@contextlib.contextmanager
def open_target(server, root=""):
    """The Target of a data server {driver, database, connect}; what it has not committed when it is
    closed is not kept. `root`: the folder that SQLite's files must lie in. TaskError."""
    is_sqlite, arguments = server["driver"] == "sqlite3", server["connect"]
    guard = SqlGuard(Root(root), server["database"]) if is_sqlite and root else None
    if is_sqlite:
        arguments = {"database": server["database"], "timeout": 0.2, "isolation_level": None,
                     "check_same_thread": False}
        fault = find_fault_beside(server["database"])
        if fault:
            raise TaskError("data server %s: %s" % (server["name"], fault))
    try:
        module = importlib.import_module(server["driver"])
    except ImportError:
        raise TaskError("data server %s: this host's Python has no module %s"
                        % (server["name"], server["driver"])) from None
    try:
        connection = module.connect(**arguments)
    except sqlite3.Error as error:
        raise TaskError("data server %s: %s: %s"
                        % (server["name"], server["database"], error)) from None
    if root and not is_sqlite and isinstance(connection, sqlite3.Connection):
        raise TaskError("data server %s: with --root the driver of SQLite is sqlite3"
                        % server["name"])
    with contextlib.closing(Target(connection, "named" if is_sqlite else module.paramstyle,
                                   is_sqlite, [], [], guard)) as target:
        if guard:
            guard.watch(connection)
        try:
            yield target
        except sqlite3.DatabaseError:
            if guard and guard.refusal:
                raise guard.refusal from None
            raise


def make_missing(path, umask):
    """Makes a database file that is not there, with the mode that a process of a task would give
    it; the agent's own umask is another."""
    if umask is not None and path != ":memory:":
        with contextlib.suppress(OSError):      # SQLite tells what is wrong
            descriptor = open_new(path)
            os.fchmod(descriptor, 0o666 & ~umask)
            os.close(descriptor)


def each_row(target, cursor):
    """Yields the rows of a query, no more than ROWS_AT_ONCE held at a time; of SQLite, which
    has them at hand, one."""
    if target.is_sqlite:
        yield from cursor
        return
    for piece in iter(lambda: list(cursor.fetchmany(ROWS_AT_ONCE)), []):
        yield from piece


BINARY = {bytes, bytearray, memoryview}     # what drivers give for bytes


def refuse_binary(names, rows):
    """TaskError for bytes in rows of these columns, which are no text: Python's b'...' is none."""
    for row in rows:
        for name, value in zip(names, row):
            if type(value) in BINARY:
                raise TaskError("column %s has bytes, which are no text: write hex(...) or "
                                "cast(... as text) in the query" % shorten(name))


def count_rows(target, statement, values):
    """Runs a statement -> how many rows it changed or gave."""
    before = target.connection.total_changes if target.is_sqlite else 0
    cursor = target.run(statement, values)
    rows = sum(1 for _ in each_row(target, cursor)) if cursor.description else 0
    if cursor.description or not target.is_sqlite:
        return rows or max(0, cursor.rowcount)
    if target.connection.total_changes == before:
        # rowcount of Python before 3.7 knows nothing of `with ... insert`, or a comment
        return 0
    return target.connection.execute("select changes()").fetchone()[0]


SCHEMA = Field(NAMED, required=True, meaning="the logical schema")


class DatabaseTask(HelperTask):
    """A task on a data server: SQLite in this process, where a stop interrupts the statement;
    other drivers, what weighs, and all where tasks are kept from files, in a helper, which is
    ended. `sql` names the fields that bind variables; in the others references are replaced."""

    sql = ()
    is_heavy = False
    names_in = staticmethod(list_bound)

    def _outcome(self, order, execution):
        """Runs `on(target, order)` here or in the helper."""
        if self.is_heavy or order["server"]["driver"] != "sqlite3" or execution.bounds.is_apart:
            return (yield from super()._outcome(order, execution))
        targets = []                        # the one, once it is open: that may block, too

        def work():
            make_missing(order["server"]["database"], execution.bounds.umask)
            with open_target(order["server"]) as target:
                targets.append(target)
                return self.on(target, order)
        try:
            return execution.call(work, lambda: [target.interrupt() for target in targets])
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise TaskError(str(error)) from None

    def prepare(self, fields, execution):
        """The data server of the session's context, and the values to bind."""
        bound = {name: fields[name] for name in self.sql}
        order = super().prepare(dict(fields, **dict.fromkeys(bound)), execution)
        return dict(order, server=execution.data_server(fields["schema"]), values=execution.values,
                    **bound)

    @classmethod
    def work(cls, order):
        """Does it in the helper, with a connection of its own -> fields of a TaskResult."""
        with open_target(order["server"], order.get("root")) as target:
            return cls.on(target, order)


@task_type("sql")
class SqlTask(DatabaseTask):
    """A statement or a script, in one transaction; `:name` binds variables."""

    fields = {
        "schema": SCHEMA,
        "statement": Field(FILLED, meaning="one statement; give either this or script"),
        "script": Field(FILLED, meaning="several statements, with ; between them"),
    }
    one_of = ("statement", "script")
    sql = ("statement", "script")

    @staticmethod
    def on(target, order):
        """Executes all statements or none -> fields of a TaskResult, with the rows."""
        statements = list(split_script(order["script"], target.is_sqlite)) if order["script"] else \
            [order["statement"]]
        for statement in statements:
            check_statement(statement, target.is_sqlite)
        target.begin()
        rows = sum(count_rows(target, statement, order["values"]) for statement in statements)
        target.commit()
        return {"status": DONE, "rows": rows}


@task_type("refresh")
class RefreshTask(DatabaseTask):
    """Takes a variable's value from a query."""

    fields = {
        "variable": Field(VARIABLE_NAME, required=True, meaning="the variable that is set"),
        "schema": SCHEMA,
        "query": needed("its first column of the first row is the value"),
    }
    sql = ("query",)

    @staticmethod
    def on(target, order):
        """First column of the first row, as text."""
        target.begin("deferred")
        cursor = target.run(order["query"], order["values"])
        row = cursor.fetchone()
        if row is None:
            raise TaskError("the query gives no row")
        value = row[0]
        if not isinstance(value, (str, bytes)):
            value = "" if value is None else str(value)
        if len(value) > MAX_VALUE:          # before anything is made of it
            raise TaskError("%s: the value has over %d bytes, more than a variable takes"
                            % (order["variable"], MAX_VALUE))
        refuse_binary([cursor.description[0][0]], [row[:1]])
        value = str(value).replace("\0", "")
        return {"status": DONE, "rows": 1, "values": {order["variable"]: value}}
