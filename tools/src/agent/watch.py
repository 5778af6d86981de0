"""What other sessions, clients and tasks may see: topology, ends of sessions, logs, children."""
import contextlib
import heapq
import itertools
import threading
import time

from ..base.vocabulary import ENDED, FOLLOW_S
from ..base.errors import AgentError, RepositoryError, RepositoryGone, Stopping, WaitTimeout
from ..tasks.task import TaskError


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

    def _get(self, name):
        server = self._master.find_data_server(name)
        if server is None:
            raise TaskError("no data server %s" % name)
        return server


class Watch:
    """Waits for the ends of sessions and follows their logs, for those who ask."""

    def __init__(self, places, clock):
        self._places, self._clock = places, clock
        self._events = {}               # session -> [Event] of those who wait for its end
        self._lock = threading.Lock()
        self._is_over = False           # the agent has stopped

    def close(self):
        """Who waits for what is outstanding has its answer now."""
        self._is_over = True
        with self._lock:
            numbers = list(self._events)
        for number in numbers:
            self.ended(number)

    def ended(self, number):
        """A session has ended, or will not: whoever waits for that looks again."""
        with self._lock:
            events = list(self._events.get(number, ()))
        for event in events:
            event.set()

    def wait(self, number, timeout_s=None, has_left=lambda: False):
        """Waits for the end of a session -> its row. WaitTimeout, Stopping, NotFound.

        has_left() tells that nobody waits for the answer any more.
        """
        repository = self._places.of_session(number)
        until = None if timeout_s is None else self._clock.monotonic() + timeout_s
        event = threading.Event()
        with self._lock:
            self._events.setdefault(number, []).append(event)
        try:
            while True:
                row = self._find_end(repository, number)
                if row is not None:
                    return row
                if self._is_over:
                    raise Stopping("session=%d the agent has stopped before its end" % number)
                wait_s = 2.0 if until is None else min(2.0, until - self._clock.monotonic())
                if has_left():
                    raise WaitTimeout("session=%d goes on, nobody waits for it here" % number)
                if wait_s <= 0:
                    raise WaitTimeout("session=%d has not ended in %g s" % (number, timeout_s))
                event.wait(wait_s)
                event.clear()
        finally:
            with self._lock:
                self._events[number].remove(event)
                if not self._events[number]:
                    del self._events[number]

    def list_sessions(self, filters, repository, limit):
        """Yields rows of sessions, newest first, a page at a time: nothing stays open between."""
        def pages(source):
            below, size = 1 << 62, min(limit, 500)
            while below:
                rows = source.db.read(source.views.list_sessions, filters, below, size)
                yield from rows
                below = rows[-1]["id"] if len(rows) == size else None
        trouble, streams = None, []
        try:
            for source in self._places.readable(repository):
                streams.append(pages(source))
        except RepositoryError as error:
            trouble = error
        yield from itertools.islice(heapq.merge(*streams, reverse=True, key=lambda row:
                                                (row["created"], row["id"])), limit)
        if trouble:
            raise trouble

    def find_end(self, number):
        """The row of a session that has ended, or None. NotFound, RepositoryError."""
        return self._find_end(self._places.of_session(number), number)

    @staticmethod
    def _find_end(repository, number):
        try:
            row = repository.db.read(repository.sessions.get, number)
        except RepositoryGone:
            raise
        except RepositoryError:
            return None                 # it cannot be read now: the waiting goes on
        return row if row["status"] in ENDED else None

    def list_log(self, number, is_following=False, has_left=lambda: False):
        """Yields the rows of a session's log, a page at a time; following, None when there are no
        more yet, until the session ends."""
        repository, after = self._places.of_session(number), (0, -1)
        repository.db.read(repository.sessions.get, number)
        while True:
            is_over = not is_following or self._is_over or has_left() \
                or self.find_end(number) is not None        # asked before the rows are read
            rows = repository.db.read(repository.views.list_log, number, after, 500)
            yield from rows
            if rows:
                after = rows[-1]["task_run"], rows[-1]["position"]
            elif is_over:
                return
            else:
                yield None
                time.sleep(FOLLOW_S)


class Children:
    """Sessions that sessions start."""

    def __init__(self, agent):
        self._agent = agent

    def start(self, request, repository):
        """Starts one in the repository of its parent -> its number."""
        self._agent.desk.check_context(request.context)
        line = self._line(repository, request.parent)
        if request.scenario in line:
            raise TaskError("scenario %s would start itself: %s"
                            % (request.scenario, " > ".join(line[::-1] + [request.scenario])))
        request = request._replace(agent=self._agent.name)
        return self._agent.desk.submit(request, repository).result().session

    @staticmethod
    def _line(repository, parent):
        """The scenarios above a child, its parent's first."""
        rows = repository.db.read(repository.sessions.list_above, parent)
        return [row["scenario"] for row in rows]

    def find_end(self, number):
        """The row of a child that has ended, or None."""
        return self._agent.watch.find_end(number)

    def stop(self, number):
        """Ends a child at once, if it has not ended."""
        with contextlib.suppress(AgentError):
            self._agent.desk.stop(number, True)

    def lent_slot(self):
        """While it is waited for, the parent's slot serves another."""
        return self._agent.queue.lent_slot()
