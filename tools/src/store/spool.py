"""What the process of an adoptable task leaves for whoever takes it up: a small file of its own."""
import contextlib
import glob
import os
import sqlite3

from ..base.errors import RepositoryError
from ..base.files import (BESIDE_DATABASE, find_fault, find_fault_beside, is_own, make_private,
                          mtime_ns, own_users, unforeseen)
from ..base.program import log
from .files import connect_file, list_numbered, remove_database

SPOOL_SCHEMA = ("""
create table log (position integer primary key, time text, stream text, line text);
create table omitted (id integer primary key, first integer, end integer);
create table state (
    id integer primary key,
    holder integer, holder_started text,        -- the minder, which writes here
    is_over integer not null default 0,
    rc integer, error text, captured blob       -- exit code, or why it could not start
);
insert into state(id) values (1)
""")


class Spool:
    """What a process of an adoptable session printed and how it ended: a small SQLite file that
    its minder writes, and that outlives the agent."""

    def __init__(self, path):
        self.path = path
        self._position, self._omitted = -1, None    # how far it was read; what was left out then

    def _connect(self):
        return contextlib.closing(connect_file(self.path))

    def create(self):
        """Makes the file, mode 0600 -> itself. RepositoryError."""
        try:
            make_private(self.path)
            with self._connect() as connection:
                connection.execute("pragma journal_mode=wal")
                for statement in SPOOL_SCHEMA.split(";\n"):
                    connection.execute(statement)
        except (OSError, sqlite3.Error) as error:
            raise RepositoryError("%s cannot be made: %s" % (
                self.path, getattr(error, "strerror", None) or error)) from None
        return self

    def note(self, **columns):
        """Sets columns of the state; on disk when it returns."""
        with self._connect() as connection:
            connection.execute("pragma synchronous=full")
            connection.execute("update state set %s" % ", ".join(name + "=?" for name in columns),
                               tuple(columns.values()))

    def store(self, rows, omitted, on_stored=lambda: None):
        """As Progress.add_log; on_stored() when it is done."""
        with self._connect() as connection:
            connection.execute("begin immediate")
            if omitted:
                connection.execute("delete from log where position>=? and position<?", omitted)
                connection.execute("replace into omitted values (1, ?, ?)", omitted)
            connection.executemany("replace into log values (?, ?, ?, ?)", rows)
            connection.execute("commit")
        on_stored()

    def state(self):
        """The row of what the minder has noted of itself and of its process."""
        with self._connect() as connection:
            return connection.execute("select * from state").fetchone()

    def read_new(self):
        """What came since it was read last -> (row of the state, rows of the log, the range now
        left out or None where that is as it was)."""
        before = self._omitted
        with self._connect() as connection:
            connection.execute("begin")
            state = connection.execute("select * from state").fetchone()
            omitted = connection.execute("select first, end from omitted").fetchone()
            self._omitted = omitted and tuple(omitted)
            is_other = self._omitted != before
            rows = connection.execute(
                "select * from log where position > ? or position = ? order by position",
                (self._position, self._omitted[0] if is_other else -1)).fetchall()
            connection.execute("rollback")
        self._position = max([self._position] + [row["position"] for row in rows])
        return state, [tuple(row) for row in rows], self._omitted if is_other else None

    def remove(self):
        """Deletes the file and what SQLite keeps beside it."""
        remove_database(self.path)


class Spools:
    """The Spools beside a repository: FILE.spool.SESSION.RUN.UNFORESEEN; without its last part it
    is of an agent before these names."""

    def __init__(self, path):
        self._path = path

    def _path_of(self, session, task_run):
        return "%s.spool.%d.%d" % (self._path, session, task_run)

    def _list_paths(self, session, task_run):
        # no glob: Python keeps each pattern that it has compiled
        folder, name = os.path.split(self._path_of(session, task_run))
        try:
            names = os.listdir(folder or ".")
        except OSError:                 # gone, with all that was in it
            return []
        return [os.path.join(folder, each) for each in names
                if (each == name or each.startswith(name + "."))
                and not each.endswith(BESIDE_DATABASE)]

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
                log.warning("session %d: what its process wrote is not taken: %s", session, fault)
        return None

    def find_state(self, session, task_run):
        """The row of the state of a Spool, or None when there is none that can be read."""
        spool = self.find(session, task_run)
        try:
            return spool and spool.state()
        except sqlite3.Error as error:
            log.warning("%s cannot be read: %s", spool.path, error)
            return None

    def list_all(self):
        """[(path, session)] of all that are ours."""
        return list_numbered(self._path + ".spool.", own_users(self._path))
