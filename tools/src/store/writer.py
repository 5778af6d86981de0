"""The one writer of a file: what is waiting shares a transaction, and is answered after the commit.

Thread writer NAME: writes to one repository file; ends when its Database is closed and drained.
"""
import collections
import random
import re
import sqlite3
import threading
import time

from ..base.vocabulary import MAX_BATCH
from ..base.errors import RepositoryError, RepositoryGone
from ..base.histogram import Histogram
from ..base.program import log
from ..base.times import to_text
from .connections import TORN, is_locked, tell_reason
from ..base.workers import Worker

LAZY_S = 0.05           # how long a record that nobody waits for may wait for company
GATHER_S = 0.001        # how long a commit waits for those that asked together last time
DOUBT_S = 60.0          # between two tellings of commits that only seem to fail
RETRY_S = 0.02          # between tries while another program holds the file's lock
LATENCY_BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)     # seconds, for METRICS
_WRONG_SQL = re.compile("no such |has no column|syntax error|not decode")   # one request's fault


class Writer:
    """A thread that runs what is waiting in one transaction: first without savepoints; when a
    request among others fails amid its changes, all of it once more, with a savepoint each.

    `trouble` says in words why the file cannot be written now, or is empty; `failures` counts the
    commits that failed; `version` is of the data: it changes when others have written.
    """

    def __init__(self, connections, clock):
        self.trouble, self.is_read_only = "", False
        self.failures, self.version = 0, None
        self.latency = Histogram(LATENCY_BOUNDS)    # of commits, with all the tries that they took
        self._connections, self._label, self._clock = connections, connections.label, clock
        self._lock = threading.Lock()       # guards the queue and what tells of it
        self._ready = threading.Condition(self._lock)
        self._queue = collections.deque()
        self._urgent = 0                # whether somebody waits for what is in the queue
        self._wanted = 1                # requests in the queue that wake the writer
        self._company, self._answered = 1, 0.0
        self._closing = None            # monotonic seconds until which a closing may take
        self._writer_id, self._mark = random.getrandbits(60), 0
        self._locked_since, self._tell_at = None, 0.0
        self._thread = Worker(self._run, name="writer " + self._label)

    def start(self):
        """Begins to write. RepositoryError: the host has no thread for it."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise RepositoryError("%s: %s" % (self._label, error)) from None

    def put(self, pending):
        """Takes a Pending in; False when nothing is written any more."""
        with self._lock:
            if self._connections.is_gone or self._closing is not None:
                return False
            self._queue.append(pending)
            if not pending.is_lazy:
                self._urgent += 1
            if len(self._queue) == 1 or (not pending.is_lazy and len(self._queue) >= self._wanted):
                self._ready.notify()
        return True

    def close(self, within_s):
        """Writes down what is waiting, checkpoints, and ends. What is left then fails."""
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
            begun = self._clock.monotonic()
            self._complete(batch)
            self.latency.add(self._clock.monotonic() - begun)
        self._connections.close()

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
                self._connections.drop_writer()
                self._connections.drop_readers()
                with self._ready:
                    batch += self._take_now(len(self._queue))
                return self._fail(batch, error)
            except Exception as error:  # whatever it is: who waits for it must have an answer
                batch = self._not_written(batch, error)
                continue
            self._trouble_over()
            # who is answered now asks again at once, maybe: one commit for all beats two
            askers = sum(pending.is_repeated for pending in batch)
            self._company = askers and askers + len(self._queue)
            for pending, (value, error) in zip(batch, outcomes):
                pending.finish(value, error)
            self._answered = self._clock.monotonic()
            self._connections.cut_wal()         # a look at its size, mostly
            return None

    def _commit(self, batch):
        """One transaction for the whole batch -> [(value, error)]."""
        connection = self._connections.get_writer()
        try:
            outcomes = self._run_all(connection, batch, False)
        except HalfDone as half:
            if len(batch) == 1:         # all of it is undone
                return [(None, half.error)]
            outcomes = self._run_all(connection, batch, True)
        if not connection.in_transaction:
            return outcomes
        try:
            connection.execute("commit")
        except sqlite3.Error as error:
            if not self._read_back(error):
                raise
            self._tell_doubt(error)
        self._secure()
        return outcomes

    def _run_all(self, connection, batch, has_savepoints):
        """Runs the requests of a batch in a transaction, which is still to be committed, unless
        they have changed nothing -> [(value, error)]. HalfDone, without savepoints."""
        connection.execute("begin immediate")
        before = connection.total_changes
        self.version = data_version(connection), self._connections.count
        try:
            outcomes = [run_request(connection, pending, has_savepoints) for pending in batch]
            if connection.total_changes == before:
                connection.execute("rollback")
            else:
                self._set_mark(connection)
            return outcomes
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise

    def _secure(self):
        """Waits until what was committed outlives the agent. RepositoryError when it is closing,
        RepositoryGone."""
        while not self._connections.secure():
            self._connections.check_place()
            error = RepositoryError(TORN)
            self._note(error)
            if self._is_overdue():
                raise error
            self._expire_queue(error)
            time.sleep(RETRY_S * 10)

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
        while True:
            if self._connections.secure():
                self._connections.drop_writer()
            try:
                row = self._connections.get_writer().execute(
                    "select mark from commit_mark where writer=?", (self._writer_id,)).fetchone()
                return row is not None and row[0] == self._mark
            except RepositoryGone:      # nobody will ever tell
                raise
            except (sqlite3.Error, RepositoryError):
                self._note(error)
                if self._is_overdue():
                    return False
                self._expire_queue(error)
                time.sleep(RETRY_S * 10)

    def _tell_doubt(self, error):
        """Tells of a commit that is on disk, whatever was said; now and then, if that goes on."""
        now = self._clock.monotonic()
        if now >= self._tell_at:
            log.warning("%s: a commit failed (%s), but is on disk", self._label, error)
            self._tell_at = now + DOUBT_S

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
                   RepositoryError("%s cannot be written: %s" % (self._label, tell_reason(error))))
        return [pending for pending in batch if not pending.is_done]

    def _not_written(self, batch, error):
        """Notes the trouble and fails what is overdue; the rest, and what came, is tried again."""
        self._note(error)
        self.failures += 1
        if not is_locked(error) and self._connections.secure():
            self._connections.drop_writer()
        rest = self._fail_overdue(batch, error)
        if rest:
            time.sleep(RETRY_S if is_locked(error) else RETRY_S * 5)
        with self._ready:
            rest += self._take_now(max(0, MAX_BATCH - len(rest)))
        return rest

    def _is_overdue(self):
        return self._closing is not None and self._clock.monotonic() >= self._closing

    def _fail(self, batch, error):
        for pending in batch:
            pending.finish(error=error)

    def _note(self, error):
        """Notes in `trouble` why a commit has failed: a lock that others hold only after a
        second."""
        reason = tell_reason(error)
        if is_locked(error):
            now = self._clock.monotonic()
            self._locked_since = self._locked_since or now
            if now - self._locked_since < 1.0:
                return
            reason = "another program holds its lock"
        if not self.trouble:
            log.warning("%s cannot be written: %s", self._label, reason)
        self.trouble = reason
        self.is_read_only = "readonly" in reason

    def _trouble_over(self):
        self._locked_since = None
        if self.trouble:
            log.info("%s can be written again", self._label)
            self.trouble, self.is_read_only = "", False


def data_version(connection):
    """A number that changes when another program commits to the file."""
    return connection.execute("pragma data_version").fetchone()[0]


class HalfDone(Exception):
    """A request has failed by this error amid its changes, and they cannot be undone alone."""

    def __init__(self, error):
        super().__init__()
        self.error = error


def run_request(connection, pending, has_savepoint):
    """Runs a request so that it changes all or nothing -> (value, error). An error of the file,
    not of the request, is raised. HalfDone, where it should have had a savepoint."""
    is_guarded, before = has_savepoint and not pending.is_atomic, connection.total_changes
    if is_guarded:
        connection.execute("savepoint request")
    try:
        outcome = pending.method(connection, *pending.arguments), None
    except sqlite3.Error as error:
        if type(error) is sqlite3.DatabaseError or isinstance(error, sqlite3.OperationalError) \
                and not _WRONG_SQL.search(str(error)):
            raise                       # the file, not the request: nothing of the batch stays
        outcome = None, error
    except MemoryError:                 # the host, not the request
        raise
    except Exception as error:
        outcome = None, error
    if is_guarded:
        if outcome[1] is not None:
            connection.execute("rollback to request")
        connection.execute("release request")
    elif outcome[1] is not None and not pending.is_atomic and connection.total_changes != before:
        raise HalfDone(outcome[1])
    return outcome
