"""What the process of an adoptable task leaves for whoever takes it up: a small file of its own."""
import contextlib
import os
import sqlite3

from ..base.vocabulary import ERR
from ..base.errors import RepositoryError, RepositoryGone
from ..base.files import (BESIDE_DATABASE, find_fault, find_fault_beside, is_own,
                          list_beginning, mtime_ns, own_users, sync_folder, unforeseen)
from ..base.program import Told, log
from .files import connect_file, list_numbered, remove_database, whole_database

SPOOL_SCHEMA = ("""
create table log (position integer primary key, time text, stream text, line text);
create table omitted (id integer primary key, first integer, end integer);
create table state (
    id integer primary key,
    holder integer, holder_started text,        -- the minder, which writes here
    is_over integer not null default 0,
    rc integer, error text, captured blob,      -- exit code, or why it could not start
    pid integer, pid_started text               -- the task's own process
);
insert into state(id) values (1)
""")
SPOOL_LOCK_S = 1.0      # how long one try waits for the other of agent and minder


def noted_processes(state):
    """{pid: start time} of what is noted in a row of the state: the minder, and the task's own
    process, of which an agent before this one noted nothing."""
    names = ["holder"] + ["pid"] * ("pid" in state.keys())
    return {state[name]: state[name + "_started"] for name in names if state[name]}


class Spool:
    """What a process of an adoptable session printed and how it ended: a small SQLite file that
    its minder writes, and that outlives the agent.

    RepositoryError says that it cannot be read or written now, as when the disk is full;
    RepositoryGone that it never will be: it was deleted, or is spoilt.
    """

    def __init__(self, path):
        self.path = path
        self._position, self._omitted = -1, None    # how far it was read; what was left out then

    @contextlib.contextmanager
    def _connected(self):
        try:
            with contextlib.closing(connect_file(self.path, SPOOL_LOCK_S)) as connection:
                yield connection
        except (sqlite3.Error, MemoryError) as error:
            kind = RepositoryGone if self._is_lost(error) else RepositoryError
            raise kind("%s cannot be read: %s" % (self.path, error)) from None

    def _is_lost(self, error):
        if isinstance(error, sqlite3.OperationalError):
            return not os.path.lexists(self.path) or "no such " in str(error)
        return isinstance(error, sqlite3.Error)

    def create(self):
        """Makes the file, mode 0600, which appears whole -> itself. RepositoryError."""
        try:
            with whole_database(self.path, "new") as new:
                with contextlib.closing(connect_file(new)) as connection:
                    connection.execute("begin")
                    for statement in SPOOL_SCHEMA.split(";\n"):
                        connection.execute(statement)
                    connection.execute("commit")
                    connection.execute("pragma journal_mode=wal")
            sync_folder(self.path)
        except (OSError, sqlite3.Error) as error:
            raise RepositoryError("%s cannot be made: %s" % (
                self.path, getattr(error, "strerror", None) or error)) from None
        return self

    def note(self, **columns):
        """Sets columns of the state; on disk when it returns."""
        with self._connected() as connection:
            connection.execute("pragma synchronous=full")
            connection.execute("update state set %s" % ", ".join(name + "=?" for name in columns),
                               tuple(columns.values()))

    def store(self, rows, omitted):
        """As Progress.add_log."""
        with self._connected() as connection:
            connection.execute("begin immediate")
            if omitted:
                connection.execute("delete from log where position>=? and position<?", omitted)
                connection.execute("replace into omitted values (1, ?, ?)", omitted)
            connection.executemany("replace into log values (?, ?, ?, ?)", rows)
            connection.execute("commit")

    def state(self):
        """The row of what the minder has noted of itself and of its process."""
        with self._connected() as connection:
            return read_state(connection)

    def read_new(self):
        """What came since it was read last -> (row of the state, rows of the log, the range now
        left out or None where that is as it was)."""
        before = self._omitted
        with self._connected() as connection:
            connection.execute("begin")
            state = read_state(connection)
            omitted = connection.execute("select first, end from omitted").fetchone()
            omitted = omitted and tuple(omitted)
            is_other = omitted != before
            rows = connection.execute(
                "select * from log where position > ? or position = ? order by position",
                (self._position, omitted[0] if is_other else -1)).fetchall()
            connection.execute("rollback")
        self._omitted = omitted
        self._position = max([self._position] + [row["position"] for row in rows])
        return state, [tuple(row) for row in rows], self._omitted if is_other else None

    def remove(self):
        """Deletes the file and what SQLite keeps beside it."""
        remove_database(self.path)


def read_state(connection):
    """The row of the state, with the `last_error` of what is over: the last line of its standard
    error that is not blank, or None. sqlite3.Error."""
    row = connection.execute(
        "select *, case when is_over then ("
        "   select line from log where stream=? and trim(line, ' ' || char(9))<>''"
        "   and position not in (select first from omitted) order by position desc limit 1)"
        " end as last_error from state", (ERR,)).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("it has no state")
    return row


class Spools:
    """The Spools beside a repository: FILE.spool.SESSION.RUN.UNFORESEEN; without its last part it
    is of an agent before these names."""

    def __init__(self, path):
        self._path, self._told = path, Told()

    def _path_of(self, session, task_run):
        return "%s.spool.%d.%d" % (self._path, session, task_run)

    def _list_paths(self, session, task_run):
        whole = self._path_of(session, task_run)
        return [path for path in list_beginning(whole)
                if (path == whole or path.startswith(whole + "."))
                and not path.endswith(BESIDE_DATABASE)]

    def make(self, session, task_run):
        """A new Spool for the minder of a task's process. RepositoryError."""
        for path in self._list_paths(session, task_run):        # older than a copy put back
            if is_own(path, own_users(self._path)):
                Spool(path).remove()
        return Spool("%s.%s" % (self._path_of(session, task_run), unforeseen())).create()

    def find(self, session, task_run):
        """The Spool of a task's process, or None; what is not ours is told and not taken."""
        owners = own_users(self._path)
        for path in sorted(self._list_paths(session, task_run), key=mtime_ns, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                fault = find_fault(path, os.lstat(path), owners) or find_fault_beside(path)
                if not fault:
                    return Spool(path)
                if self._told.is_new(path, fault):
                    log.warning("session %d: what its process wrote is not taken: %s", session,
                                fault)
        return None

    def find_state(self, session, task_run):
        """The row of the state of a Spool, or None when there is none, or a spoilt one.
        RepositoryError: it cannot be read now."""
        spool = self.find(session, task_run)
        try:
            return spool and spool.state()
        except RepositoryGone as error:
            if self._told.is_new(spool.path, error.message):
                log.warning("%s", error)
            return None

    def list_all(self):
        """[(path, session)] of all that are ours, and of what a crash has left half made."""
        owners, (folder, name) = own_users(self._path), os.path.split(self._path)
        return [each for beginning in ("", ".") for each in list_numbered(
            os.path.join(folder, beginning + name + ".spool."), owners)]
