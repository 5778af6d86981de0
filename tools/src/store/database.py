"""The one door to SQLite: readers, and one writer that lets waiting requests share a commit.

Thread writer NAME: writes to one repository file; ends when its Database is closed and drained.
"""
import collections
import contextlib
import os
import random
import re
import sqlite3
import threading
import time
import urllib.parse

from ..base.vocabulary import MAX_BATCH, WRITE_S
from ..base.errors import AgentError, RepositoryError, RepositoryGone
from ..base.program import log
from ..base.times import to_text
from .files import migrate
from .pending import Pending, atomic

LAZY_S = 0.05           # how long a record that nobody waits for may wait for company
GATHER_S = 0.001        # how long a commit waits for those that asked together last time
OPEN_S = 1.0            # how long an opening waits for another program
RETRY_S = 0.02          # between tries while another program holds the file's lock
READERS = 8             # idle reading connections kept a file
_WRONG_SQL = re.compile("no such |has no column|syntax error|not decode")   # one request's fault


class Database:
    """The one door to a SQLite file.

    Writes go through one thread, which runs what is waiting in one transaction, a savepoint
    each, and answers after the commit. Readers have connections of their own and never wait
    for it. `trouble` says in words why the file cannot be used now, or is empty.
    """

    def __init__(self, path, kind, label, migrations, clock, is_replaceable=False, inbox=None):
        self.path, self.kind, self.label, self._inbox = path, kind, label, inbox
        self.trouble = ""
        self.is_read_only = False
        self.is_gone = False
        self.uuid = None
        self._migrations, self._clock, self._is_replaceable = migrations, clock, is_replaceable
        self._inode = None
        self._readers = collections.deque()
        self._writer = None
        self._ready = threading.Condition()
        self._queue = collections.deque()
        self._urgent = 0
        self._wanted = 1                # requests in the queue that wake the writer
        self._company, self._answered = 1, 0.0
        self._closing = None            # monotonic seconds until which a closing may take
        self.version = None             # of the data: changes when others have written
        self._connections = 0
        self.failures = 0
        self._writer_id, self._mark = random.getrandbits(60), 0
        self._locked_since = None
        self._thread = threading.Thread(target=self._run, name="writer " + label, daemon=True)

    # -- opening -----------------------------------------------------------------------

    def open(self):
        """Connects, migrates, and starts the writer; RepositoryError says what is wrong."""
        until = self._clock.monotonic() + OPEN_S
        while not self._try_open(self._clock.monotonic() >= until):
            time.sleep(RETRY_S)
        self._thread.start()
        return self

    def _try_open(self, is_last):
        """Whether the file is open now; another program may just be closing or making it."""
        try:
            migrate(self._connect_writer(), self.path, self.kind, self.label, self._migrations)
            self.uuid = self._read_uuid(self._writer)
            return True
        except AgentError:
            self._drop_writer()
            raise
        except (sqlite3.Error, OSError) as error:
            self._drop_writer()
            if _is_locked(error) and not is_last:
                return False
            raise RepositoryError("%s: %s" % (self.label, _reason(error))) from None

    def _connect(self):
        uri = "file:%s?mode=rw" % urllib.parse.quote(os.path.abspath(self.path))
        connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None,
                                     check_same_thread=False)
        connection.row_factory = sqlite3.Row
        return connection

    def _connect_with(self, *pragmas):
        connection = self._connect()
        try:
            for pragma in pragmas:
                connection.execute("pragma " + pragma)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _connect_writer(self):
        """The writing connection, opened when there is none and the file is the one known."""
        self._check_file()
        if self._writer is None:
            self._writer = self._connect_with("synchronous=full", "fullfsync=on")
            self._connections += 1
            if self.uuid is not None:
                if self._read_uuid(self._writer) != self.uuid:
                    self._lose("the file was replaced by another repository")
                self._writer.execute("pragma journal_mode=wal")
        return self._writer

    def _read_uuid(self, connection):
        return connection.execute("select uuid from repository").fetchone()[0]

    def _find_inode(self):
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise RepositoryError("%s: %s: %s" % (self.label, self.path, error.strerror)) from None
        return status.st_dev, status.st_ino

    def _check_file(self):
        """Notes the file's inode at first; later, that the path still leads to the same."""
        inode = self._find_inode()
        if self._inode not in (None, inode):
            if not self._is_replaceable:
                self._lose("the file was replaced by another")
            self._drop_writer()
            self._drop_readers()
        self._inode = inode

    def _lose(self, reason):
        self.is_gone, self.trouble = True, reason
        raise RepositoryGone("%s: %s" % (self.label, reason))

    # -- reading -----------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self):
        """A connection to read with; nobody else uses it meanwhile. RepositoryError."""
        if self.is_gone:
            raise RepositoryGone("%s: %s" % (self.label, self.trouble))
        connection = None
        try:
            if self._inode not in (None, self._find_inode()):
                if not self._is_replaceable:
                    raise RepositoryError("%s: the file was replaced by another" % self.label)
                self._drop_readers()
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._connect_with("busy_timeout=2000", "query_only=on",
                                                "wal_autocheckpoint=0")
            yield connection
        except sqlite3.Error as error:
            if connection:
                connection.close()
                connection = None
            raise RepositoryError("%s cannot be read: %s" % (self.label, _reason(error))) from None
        finally:
            if connection:
                if len(self._readers) < READERS and not self.is_gone and not self._closing:
                    self._readers.append(connection)
                else:
                    connection.close()

    def read(self, method, *arguments):
        """method(connection, *arguments) of a store with a reading connection. RepositoryError."""
        with self.reading() as connection:
            return method(connection, *arguments)

    def read_version(self, within_s=WRITE_S):
        """`version` as the writer sees it now: it changes when another program has written."""
        self.write(do_nothing, within_s=within_s)
        return self.version

    # -- writing -----------------------------------------------------------------------

    def submit(self, method, *arguments, within_s=None, then=None):
        """Hands method(connection, *arguments) of a store to the writer and returns a Pending.

        What cannot be written `within_s` seconds is withdrawn and fails; without it, it is
        tried until it can be, or the database is closed. The method itself says whether it is
        `lazy` or `atomic`. then(pending) is for the Inbox once it is done, well or badly.
        """
        deadline = None if within_s is None else self._clock.monotonic() + within_s
        pending = Pending(method, arguments, deadline, then, self._inbox)
        with self._ready:
            if not self.is_gone and self._closing is None:
                self._queue.append(pending)
                if not pending.is_lazy:
                    self._urgent += 1
                if len(self._queue) == 1 or (not pending.is_lazy
                                             and len(self._queue) >= self._wanted):
                    self._ready.notify()
                return pending
        pending.finish(error=RepositoryGone("%s: %s" % (self.label, self.trouble or "is closed")))
        return pending

    def write(self, method, *arguments, within_s=WRITE_S):
        """submit, and wait for the commit."""
        return self.submit(method, *arguments, within_s=within_s).result()

    def close(self, within_s=10.0):
        """Writes down what is waiting, ends the writer, checkpoints. What is left fails."""
        with self._ready:
            self._closing = self._clock.monotonic() + within_s
            self._ready.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self):
        while True:
            batch = self._take()
            if not batch:
                break
            self._complete(batch)
        self._drop_readers()
        self._drop_writer()

    def _take(self):
        """Waits for requests; an empty list means that the database is closing."""
        with self._ready:
            while not self._queue and self._closing is None:
                self._ready.wait()
            if self._closing is None:
                if not self._urgent:
                    self._ready.wait(LAZY_S)
                elif len(self._queue) < self._company and \
                        self._clock.monotonic() < self._answered + GATHER_S:
                    self._wanted = self._company
                    self._ready.wait(GATHER_S)
                    self._wanted = 1
            return self._take_now(MAX_BATCH)

    def _take_now(self, most):
        batch = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        self._urgent = len(self._queue) and 1
        return batch

    def _complete(self, batch):
        """Commits a batch however often it takes; every request of it is finished."""
        while batch:
            try:
                outcomes = self._commit(batch)
            except RepositoryGone as error:
                self._drop_writer()
                self._drop_readers()
                with self._ready:
                    batch += self._take_now(len(self._queue))
                return self._fail(batch, error)
            except (sqlite3.Error, RepositoryError, OSError) as error:
                batch = self._not_written(batch, error)
                continue
            self._trouble_over()
            # those answered now may ask again at once: one commit for all beats two
            self._company = len(batch) + len(self._queue)
            for pending, (value, error) in zip(batch, outcomes):
                pending.finish(value, error)
            self._answered = self._clock.monotonic()
            return None

    def _commit(self, batch):
        """One transaction for the whole batch -> [(value, error)]."""
        connection = self._connect_writer()
        connection.execute("begin immediate")
        before = connection.total_changes
        self.version = data_version(connection), self._connections
        try:
            outcomes = [self._savepoint(connection, pending) for pending in batch]
            if connection.total_changes == before:
                connection.execute("rollback")
                return outcomes
            self._set_mark(connection)
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        try:
            connection.execute("commit")
        except sqlite3.Error as error:
            if not self._read_back(error):
                raise
        return outcomes

    @staticmethod
    def _savepoint(connection, pending):
        if not pending.is_atomic:
            connection.execute("savepoint request")
        try:
            outcome = pending.method(connection, *pending.arguments), None
        except sqlite3.Error as error:
            if type(error) is sqlite3.DatabaseError or isinstance(error, sqlite3.OperationalError) \
                    and not _WRONG_SQL.search(str(error)):
                raise                       # the file, not the request: nothing of the batch stays
            outcome = None, error
        except Exception as error:
            outcome = None, error
        if not pending.is_atomic:
            if outcome[1] is not None:
                connection.execute("rollback to request")
            connection.execute("release request")
        return outcome

    def _set_mark(self, connection):
        """What tells after a failed commit whether it is on disk: a row a writer,
        the newest kept."""
        if self._mark == 0:
            connection.execute("delete from commit_mark where writer not in"
                               " (select writer from commit_mark order by time desc limit 30)")
        self._mark += 1
        connection.execute("replace into commit_mark(writer, mark, time) values (?, ?, ?)",
                           (self._writer_id, self._mark, to_text(self._clock.now())))

    def _read_back(self, error):
        """After a commit that failed: whether it is on disk after all, as often as it takes."""
        log.warning("%s: a commit failed (%s), reading it back", self.label, error)
        while True:
            self._drop_writer()
            try:
                row = self._connect_writer().execute(
                    "select mark from commit_mark where writer=?", (self._writer_id,)).fetchone()
                return row is not None and row[0] == self._mark
            except (sqlite3.Error, RepositoryError):
                if self._is_overdue():
                    return False
                self._expire_queue(error)
                time.sleep(RETRY_S * 10)

    def _expire_queue(self, error):
        """Fails what is overdue in the queue while the writer is busy with an older matter."""
        with self._ready:
            waiting = list(self._queue)
        self._fail_overdue(waiting, error)
        with self._ready:
            self._queue = collections.deque(p for p in self._queue if not p.is_done)

    def _fail_overdue(self, batch, error):
        """Fails what can wait no longer -> the rest."""
        now = self._clock.monotonic()
        self._fail([p for p in batch if self._is_overdue() or p.deadline and p.deadline <= now],
                   RepositoryError("%s cannot be written: %s" % (self.label, _reason(error))))
        return [pending for pending in batch if not pending.is_done]

    def _not_written(self, batch, error):
        """Notes the trouble and fails what is overdue; the rest, and what came, is tried again."""
        self._note(error)
        self.failures += 1
        if not _is_locked(error):
            self._drop_writer()
        rest = self._fail_overdue(batch, error)
        if rest:
            time.sleep(RETRY_S if _is_locked(error) else RETRY_S * 5)
        with self._ready:
            rest += self._take_now(max(0, MAX_BATCH - len(rest)))
        return rest

    def _is_overdue(self):
        return self._closing is not None and self._clock.monotonic() >= self._closing

    def _fail(self, batch, error):
        for pending in batch:
            pending.finish(error=error)

    def _note(self, error):
        reason = _reason(error)
        if _is_locked(error):
            now = self._clock.monotonic()
            self._locked_since = self._locked_since or now
            if now - self._locked_since < 1.0:
                return
            reason = "another program holds its lock"
        if not self.trouble:
            log.warning("%s cannot be written: %s", self.label, reason)
        self.trouble = reason
        self.is_read_only = "readonly" in reason

    def _trouble_over(self):
        self._locked_since = None
        if self.trouble:
            log.info("%s can be written again", self.label)
            self.trouble, self.is_read_only = "", False

    def _drop_writer(self):
        connection, self._writer = self._writer, None
        if connection:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _drop_readers(self):
        while True:
            try:
                self._readers.pop().close()
            except IndexError:
                return


@atomic
def execute(connection, statement, values):
    """One statement, for the writer -> how many rows it has changed."""
    return connection.execute(statement, values).rowcount


def do_nothing(connection):
    """For the writer, to look at the file."""


def _is_locked(error):
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _reason(error):
    """A database or system error in the words of a message."""
    return getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)


def data_version(connection):
    """A number that changes when another program commits to the file."""
    return connection.execute("pragma data_version").fetchone()[0]
