"""What other sessions, clients and tasks may see: topology, ends of sessions, logs, children."""
import contextlib
import heapq
import itertools
import threading

from ..base.vocabulary import ENDED
from ..base.errors import (AgentError, Conflict, RepositoryError, RepositoryGone, Stopping,
                           WaitTimeout)
from ..tasks.task import TaskError

LOOK_S = 2.0            # between two looks whether a client is still there
READERS_AT_ONCE = 2     # of those who follow logs of a repository
LOG_PAGE = 500          # lines of a log that are read at once


class Topology:
    """What stands behind a logical schema; where its secrets are to be read is told in it."""

    def __init__(self, master):
        self._master = master

    def data_server(self, schema, context):
        """{name, driver, database, connect, physical_schema} of a schema. TaskError."""
        row = self._master.find_physical(schema, context)
        if row is None:
            raise TaskError("logical schema %s has no data server in context %s"
                            % (schema, context))
        server, physical = row
        return dict(self._get(server), physical_schema=physical)

    def mail_server(self):
        """The data server MAIL. TaskError."""
        server = self._get("MAIL")
        if server["driver"] != "smtp":
            raise TaskError("the data server MAIL has the driver %s, not smtp" % server["driver"])
        return server

    def engine(self, name):
        """{name, driver, options, spool, contexts} of an engine. TaskError."""
        engine = self._master.find_engine(name)
        if engine is None:
            raise TaskError("no engine %s" % name)
        return engine

    def _get(self, name):
        """A data server as stored. TaskError."""
        server = self._master.find_data_server(name)
        if server is None:
            raise TaskError("no data server %s" % name)
        return server


class Bell:
    """Wakes one who waits for what becomes of a session, by whoever knows that something has.

    on_ring() is called at each ringing, by the thread that rings.
    """

    def __init__(self, number, repository, on_ring=lambda: None):
        self.number, self.repository = number, repository
        self._on_ring, self._event, self._may_have_ended = on_ring, threading.Event(), True
        self._lock = threading.Lock()           # for these two

    def ring(self, may_have_ended=True):
        """Something is new: maybe the end of the session, else lines of its log."""
        with self._lock:
            self._may_have_ended = self._may_have_ended or may_have_ended
            self._event.set()
        self._on_ring()

    @property
    def has_rung(self):
        """Whether it has rung since the last look at the session."""
        return self._event.is_set()

    @property
    def patience_s(self):
        """How long to wait for it at most: the session is looked at again when it could not be
        read. None: until it rings."""
        return LOOK_S if self._may_have_ended else None

    def wait(self, timeout_s):
        """Waits until it rings, so many seconds at most."""
        self._event.wait(timeout_s)

    def find_end(self):
        """The row of the session when it has ended, else None. Nothing is read while nothing says
        that it may have. NotFound, RepositoryGone."""
        with self._lock:
            self._event.clear()
            may_have_ended, self._may_have_ended = self._may_have_ended, False
        if not may_have_ended:
            return None
        try:
            row = self.repository.db.read(self.repository.sessions.get, self.number)
        except RepositoryGone:
            raise
        except RepositoryError:         # it cannot be read now: the waiting goes on
            with self._lock:
                self._may_have_ended = True
            return None
        return row if row["status"] in ENDED else None


class Watch:
    """Waits for the ends of sessions and follows their logs, for those who ask: each waits for his
    Bell, and reads nothing until it rings."""

    def __init__(self, places, clock):
        self._places, self._clock = places, clock
        self._bells = {}                # session -> [Bell]
        self._lock = threading.Lock()
        self._is_over = False           # the agent has stopped
        self._turns = {}                # repository id -> Semaphore of those who read logs there

    # -- bells -------------------------------------------------------------------------

    @contextlib.contextmanager
    def bell(self, number, on_ring=lambda: None):
        """A Bell of a session, while somebody waits for it. NotFound, RepositoryError."""
        bell = Bell(number, self._places.of_session(number), on_ring)
        with self._lock:
            self._bells.setdefault(number, []).append(bell)
        try:
            yield bell
        finally:
            with self._lock:
                self._bells[number].remove(bell)
                if not self._bells[number]:
                    del self._bells[number]

    def close(self):
        """Who waits for what is outstanding has its answer now."""
        self._is_over = True
        with self._lock:
            numbers = list(self._bells)
        for number in numbers:
            self.ended(number)

    def ended(self, number, may_have_ended=True):
        """A session has ended, or will not: whoever waits for that looks again."""
        with self._lock:
            bells = list(self._bells.get(number, ()))
        for bell in bells:
            bell.ring(may_have_ended)

    def logged(self, number):
        """New lines of a session's log are on disk."""
        self.ended(number, may_have_ended=False)

    def look(self, repository):
        """Another program has written to a repository: what is waited for may have ended there, or
        have new lines. RepositoryError."""
        with self._lock:
            numbers = [number for number, bells in self._bells.items()
                       if bells[0].repository is repository]
        if numbers:
            ended = repository.db.read(repository.sessions.list_ended, numbers)
            for number in numbers:
                self.ended(number, number in ended)

    def let_go(self, repository):
        """A repository is used no more: who waits for a session of it is told that."""
        with self._lock:
            bells = [bell for bells in self._bells.values() for bell in bells
                     if bell.repository is repository]
        for bell in bells:
            bell.ring()

    # -- sessions ----------------------------------------------------------------------

    def wait(self, number, timeout_s=None, has_left=lambda: False):
        """Waits for the end of a session -> its row. WaitTimeout, Stopping, NotFound.

        has_left() tells that nobody waits for the answer any more.
        """
        until = None if timeout_s is None else self._clock.monotonic() + timeout_s
        with self.bell(number) as bell:
            while True:
                row = bell.find_end()
                if row is not None:
                    return row
                if self._is_over:
                    raise gone_before(number)
                wait_s = LOOK_S if until is None else min(LOOK_S, until - self._clock.monotonic())
                if has_left():
                    raise WaitTimeout("session=%d goes on, nobody waits for it here" % number)
                if wait_s <= 0:
                    raise WaitTimeout("session=%d has not ended in %g s" % (number, timeout_s))
                bell.wait(wait_s)

    def list_sessions(self, filters, repository, limit, below_of=None):
        """Yields rows of sessions, newest first, a page at a time: nothing stays open between.
        `below_of`: {repository id: number} of those of which only lower numbers are listed."""
        def pages(source):
            below, size = (below_of or {}).get(source.id, 1 << 62), min(limit, 500)
            while below:
                try:
                    rows = source.db.read(source.views.list_sessions, filters, below, size)
                except RepositoryError as error:            # just now: the others go on
                    troubles.append(error)
                    return
                yield from rows
                below = rows[-1]["id"] if len(rows) == size else None
        troubles, streams = [], []
        try:
            for source in self._places.readable(repository):
                streams.append(pages(source))
        except (Conflict, RepositoryError) as error:        # it may be being detached
            troubles.append(error)
        yield from itertools.islice(heapq.merge(*streams, reverse=True, key=lambda row:
                                                (row["created"], row["id"])), limit)
        if troubles:
            raise troubles[0]

    def list_log(self, number, filters, is_following=False, has_left=lambda: False):
        """Yields the rows of a session's log that a LogFilter names, a page at a time; following,
        None when there are no more yet, until the session ends -> its state before the last were
        read. NotFound, Stopping."""
        with self.bell(number) as bell:
            repository = bell.repository
            turns = self._turns.setdefault(repository.id, threading.Semaphore(READERS_AT_ONCE))
            row = repository.db.read(repository.sessions.get, number)
            after = repository.db.read(repository.views.find_log_start, number, filters)
            while True:
                # asked before the rows are read
                is_over, row = self._is_over, bell.find_end() or row
                rows = [None] * LOG_PAGE
                while len(rows) == LOG_PAGE:
                    with turns:     # one line wakes all who follow it, and others want their turn
                        rows = repository.db.read(repository.views.list_log, number, filters,
                                                  after, LOG_PAGE)
                    yield from (line for line in rows if line["line"] is not None)
                    if rows:
                        after = rows[-1]["task_run"], rows[-1]["position"]
                if not is_following or has_left() or row["status"] in ENDED:
                    return row["status"]
                if is_over:
                    raise gone_before(number)
                yield None
                while not (bell.has_rung or has_left()):
                    bell.wait(LOOK_S)
                    if bell.patience_s is not None:
                        break


def gone_before(number):
    """What is raised for one who waits for the end of a session that goes on without the agent."""
    return Stopping("session=%d the agent has stopped before its end" % number)


class Children:
    """Sessions that sessions start."""

    def __init__(self, agent):
        self._agent = agent

    def start(self, request, repository):
        """Starts one in the repository of its parent -> its number."""
        self._agent.desk.check_context(request.context)
        above = repository.db.read(repository.sessions.list_above, request.parent)
        line = [row["scenario"] for row in above]
        if request.scenario in line:
            raise TaskError("scenario %s would start itself: %s"
                            % (request.scenario, " > ".join(line[::-1] + [request.scenario])))
        # or what has a higher priority would go before what its parent, which has begun, waits for
        request = request._replace(agent=self._agent.name, priority=above[0]["priority"])
        return self._agent.desk.submit(request, repository).result().session

    def bell(self, number, on_ring):
        """The Bell of a child, while it is waited for."""
        return self._agent.watch.bell(number, on_ring)

    def stop(self, number, by):
        """Ends a child at once, if it has not ended; `by` says who does, and why."""
        with contextlib.suppress(AgentError):
            self._agent.desk.stop(number, True, by)
