"""The agent: its life cycle, and what it can do in domain words."""
import contextlib
import functools
import heapq
import itertools
import os
import signal
import threading
import time

from ..base.vocabulary import (ENDED, ERROR, FLOOD_S, IMMEDIATE, KILL_S, NORMAL, OUTSTANDING,
                               RUNNING, SESSIONS_PER_CORE, STOPPED, STOP_S, TERM_S, WAITING, WAKE,
                               WRITE_S, YIELD_REQUESTS)
from ..base.errors import Busy, Conflict, NotFound, RepositoryError, Stopping, WaitTimeout
from ..base.program import log
from ..base.times import Clock, from_text, to_text
from ..processes.tree import own_identity
from ..processes.output import Output
from ..runtime.execution import Surroundings
from ..runtime.session import Session
from ..runtime.slots import SessionQueue
from ..scheduling.schedules import Schedules
from .places import Places, open_master
from .housekeeping import Cleaner, Keeper
from .watch import Children, Topology, Watch
from .exchange import export_from, import_into


class Agent:
    """The agent in domain words, for any thread; it knows no sockets.

    Start, cleaning and firing touch only sessions and schedules of its own name.
    """

    def __init__(self, settings, clock=None):
        self.settings, self.name = settings, settings.name
        self.clock = clock or Clock()
        self.hold = None
        self.is_stopping = False
        self.ended_counts = dict.fromkeys(ENDED, 0)
        self.connections = lambda: 0            # set by the server
        self.master = self.places = self.watch = self.schedules = self.queue = self.keeper = None
        self.started = self.clock.monotonic()        # of its steady clock
        self._cleaner = self._output = None
        self._contexts = ()                     # those known so far, also while the master is away
        self._lock = threading.Lock()
        self._requests = 0                      # EXECs that wait for their commit
        self._flooded = -FLOOD_S                # when there were many at once (monotonic seconds)
        self._threads = []
        self._stop_request = None
        self._is_leaving = False                # what can be adopted goes on without the agent
        self._wake_main = lambda: None

    # -- life cycle --------------------------------------------------------------------

    def start(self, host, port):
        """Connects, takes over what its name owns in every repository, computes the schedule."""
        settings, clock = self.settings, self.clock
        self.master = open_master(settings, clock)
        identity = own_identity(settings.host_id, self.master.db.uuid)
        self.master.register(self.name, host, port, str(identity), self._now())
        self.hold = self.master.find_hold(self.name)
        self._contexts = frozenset(self.master.list_contexts())
        self._output = Output()
        around = Surroundings(clock, str(identity), self._output, settings.max_output,
                              self._session_ended, self._follow_up, Topology(self.master),
                              Children(self))
        self.queue = SessionQueue(
            settings.max_sessions or SESSIONS_PER_CORE * (os.cpu_count() or 1),
            lambda ticket, repository: Session(ticket, repository, around),
            lambda: self.clock.monotonic() - self._flooded < FLOOD_S)
        self._cleaner = Cleaner(self.name, identity, self.queue, clock, self._closed_stale)
        self.places = Places(self.master, clock, settings.is_insecure_fs, self._take_over,
                             self._let_go)
        self.watch = Watch(self.places, clock)
        self.schedules = Schedules(self.name, self.places, self.master, clock, self.queue,
                                   lambda: self.hold is not None, self._queue_ticket,
                                   self._end_replaced)
        self.keeper = Keeper(self, self._cleaner)
        self._apply_hold()
        self.places.attach_all()
        self._threads = [threading.Thread(target=target, name=name, daemon=True) for name, target in
                         (("scheduler", self.schedules.scheduler.run), ("keeper", self.keeper.run))]
        for thread in self._threads:
            thread.start()

    def _take_over(self, place):
        """Cleans stale sessions, queues outstanding ones, reads the schedules: in this order."""
        repository = place.repository
        repository.is_behind = False
        try:
            # what comes later is seen
            place.version = repository.db.write(lambda connection: repository.db.version)
            self._cleaner.clean(repository)
            repository.forget_strays()
            with repository.db.reading() as connection:
                tickets = repository.list_outstanding(connection, self.name)
            self.schedules.keep_held(repository)
            for ticket in tickets:
                if not self.queue.has(ticket.session):
                    self._queue_ticket(repository, ticket)
            self.schedules.load(place)
        except Exception:
            repository.is_behind = True
            raise

    def _let_go(self, repository):
        self.schedules.forget(repository)
        self.queue.forget(repository)

    def _closed_stale(self, repository, ticket):
        if ticket.status in OUTSTANDING:
            self._queue_ticket(repository, ticket)
        else:
            self._ended_unbegun(repository, ticket.session, ticket.status)

    def request_stop(self, is_immediate=False, max_wait_s=STOP_S, is_leaving=False):
        """Asks the main thread to stop the agent in good order; a later request may hurry it."""
        self.is_stopping = True
        self._is_leaving = self._is_leaving or is_leaving
        self._stop_request = is_immediate, self.clock.monotonic() + max_wait_s
        self._wake_main()

    def run_until_stopped(self, wake_fd, wake):
        """The main thread's wait: until a byte in the pipe says signal or SHUTDOWN, then stops.

        A signal while sessions end ends them at once. That of a hang-up says nothing.
        """
        self._wake_main = wake
        hang_up = bytes([signal.SIGHUP])
        while os.read(wake_fd, 1) == hang_up:
            pass
        if self._stop_request is None:
            self.request_stop()
        log.info("stopping, %d sessions are running", self.queue.counts()[0])
        self.schedules.scheduler.stop()
        self.queue.close()
        os.set_blocking(wake_fd, False)
        is_signalled = False
        if self._is_leaving:
            for session in self.queue.list_running():
                session.leave()
        while not is_signalled and not self.queue.wait_idle(0.1):
            with contextlib.suppress(BlockingIOError):
                is_signalled = os.read(wake_fd, 1) not in (hang_up, WAKE)
            is_immediate, until = self._stop_request
            is_signalled = is_signalled or is_immediate or self.clock.monotonic() >= until
        self._stop_sessions()
        self.watch.close()

    def _stop_sessions(self):
        for session in self.queue.list_running():
            session.stop(IMMEDIATE)
        self.queue.wait_idle(TERM_S + KILL_S + WRITE_S)

    def close(self):
        """Ends the threads, writes everything down, closes the repositories."""
        if self.watch:
            self.watch.close()
        if self.schedules and not self.is_stopping:     # it could not start
            self.schedules.scheduler.stop()
            self.queue.close()
            self._stop_sessions()
        if self.keeper:
            self.keeper.stop()
        for thread in self._threads:
            thread.join()
        if self.places:
            self.places.close()         # what is still recorded by a session ends here
        if self.queue:
            self.queue.join()
        if self._output:
            self._output.close()
        if self.master:
            self.master.heartbeat(self.name, self._now(), is_stopped=True)
            self.master.db.close()

    def _now(self):
        return to_text(self.clock.now())

    # -- sessions ----------------------------------------------------------------------

    def _check_accepting(self):
        if self.is_stopping:
            raise Stopping("the agent is stopping and begins nothing new")
        if self.queue.counts()[1] + self._requests >= self.settings.max_queue:
            raise Busy("%d sessions are outstanding, the limit" % self.settings.max_queue)

    def execute(self, request, repository=None):
        """Hands an EXEC to its repository -> Pending of a Ticket, done when it is on disk."""
        self._check_accepting()         # before anything is looked up
        self.check_context(request.context)
        return self.submit(request, self.places.with_scenario(request.scenario, request.version,
                                                              repository))

    def check_context(self, name):
        """NotFound when there is no context of this name."""
        if name not in self._contexts:
            self._contexts = frozenset(self.master.list_contexts())
            if name not in self._contexts:
                raise NotFound("no context %s" % name)

    def submit(self, request, found):
        """`execute` when the repository is known."""
        self._check_accepting()
        if self.hold is not None:
            request = request._replace(is_held=True)
        now = self._now()
        with self._lock:
            self._requests += 1
            if self._requests >= YIELD_REQUESTS:
                self._flooded = self.clock.monotonic()
        return found.db.submit(lambda connection: found.add_session(connection, request, now),
                               WRITE_S, lambda pending: self._acknowledged(found, pending),
                               is_single=True)

    def _acknowledged(self, repository, pending):
        ticket = pending.value
        try:
            if pending.error is None and not ticket.is_duplicate and ticket.agent == self.name \
                    and ticket.status in OUTSTANDING:
                self._queue_ticket(repository, ticket)
        finally:
            with self._lock:
                self._requests -= 1

    def _queue_ticket(self, repository, ticket):
        """Queues a session now, or when its start time comes."""
        if self.places.find(repository) is None:
            return                      # let go meanwhile: read anew when it is back
        if ticket.start_at is not None and from_text(ticket.start_at) > self.clock.now():
            # otherwise it was only read again
            if self.queue.put_off(ticket.session, repository):
                self.schedules.scheduler.call_at(from_text(ticket.start_at),
                                                 lambda: self._start_time(repository, ticket))
            return
        if ticket.wait_until is not None:
            self.schedules.scheduler.call_at(ticket.wait_until,
                                             lambda: self._waited(repository, ticket))
        if not self.queue.add(ticket, repository) and ticket.status == WAITING and not self.hold:
            repository.db.submit(lambda connection: repository.set_queued(
                connection, ticket.session), is_lazy=True)

    def _start_time(self, repository, ticket):
        """The start time of a session has come, if it still waits for it."""
        if self.queue.is_put_off(ticket.session, repository):
            self._queue_ticket(repository, ticket._replace(start_at=None))

    def _waited(self, repository, ticket):
        """The max_wait of a session's scenario is over; a hold stops that clock."""
        if self.hold is not None:
            self.schedules.scheduler.call_at(self.clock.now() + 1.0,
                                             lambda: self._waited(repository, ticket))
        elif not self.queue.find(ticket.session):
            def then(pending):
                if pending.value:
                    self._ended_unbegun(repository, ticket.session, ERROR)
                    self._follow_up(repository, pending.value)
            repository.db.submit(lambda connection: repository.fail_waiting(
                connection, ticket.session, "waited max_wait for the limit of its scenario",
                self._now()), then=then)

    def _follow_up(self, repository, aftermath):
        """What the end of a session brings about: its next attempt, schedules that run after it."""
        if aftermath.retry:
            self._queue_ticket(repository, aftermath.retry)
        if aftermath.is_awaited:
            self.schedules.decide_after(repository)

    def _end_replaced(self, repository, numbers):
        """Stops sessions in favour of the next due time of their schedule; waits for nothing."""
        for number in numbers:
            session = self.queue.find(number)
            if session is not None and session.repository is repository:
                session.stop(IMMEDIATE, "stopped: the next due time of its schedule had come")
            elif self.queue.has(number):            # on disk it is STOPPED already
                self._ended_unbegun(repository, number, STOPPED)

    def _ended_unbegun(self, repository, number, status):
        """A session has ended on disk that nothing runs here."""
        self.queue.discard(number)
        repository.secrets.forget(number)
        self._session_ended(number, status)

    def _session_ended(self, number, status):
        if status in self.ended_counts:
            self.ended_counts[status] += 1
        self.watch.ended(number)

    def _get_own(self, number):
        """The repository of a session that this agent may stop or restart. NotFound, Conflict."""
        repository = self.places.of_session(number)
        with repository.db.reading() as connection:
            row = repository.get_session(connection, number)
        if row["agent"] != self.name:
            raise Conflict("session %d belongs to agent %s" % (number, row["agent"]))
        return repository

    def stop_session(self, number, is_immediate):
        """Stops a session -> its status then; an immediate stop is waited for. Conflict."""
        repository = self._get_own(number)
        for _ in range(100):            # it may begin or end between two looks
            session = self.queue.find(number)
            if session is not None and session.repository is repository and session.is_begun:
                session.stop(IMMEDIATE if is_immediate else NORMAL)
                if not is_immediate:
                    return RUNNING
                with contextlib.suppress(WaitTimeout):
                    return self.watch.wait(number, TERM_S + KILL_S + WRITE_S)["status"]
                return RUNNING
            if repository.db.write(lambda connection: repository.stop_outstanding(
                    connection, number, self._now())):
                self._ended_unbegun(repository, number, STOPPED)
                return STOPPED
            if session is None:
                break
            time.sleep(0.02)
        with repository.db.reading() as connection:
            status = repository.get_session(connection, number)["status"]
        if status == RUNNING:
            raise Conflict("session %d is shown as running, but nothing runs it here; CLEAN mends "
                           "that" % number)
        raise Conflict("session %d has ended: %s" % (number, status))

    def restart(self, number, variables, from_step):
        """Re-opens a session that ended badly -> Ticket. Conflict, NotFound, BadRequest."""
        self._check_accepting()
        repository = self._get_own(number)
        ticket = repository.db.write(lambda connection: repository.reopen(
            connection, number, variables, from_step, self._now(), self.hold is not None))
        self._queue_ticket(repository, ticket)
        return ticket

    def list_sessions(self, filters, repository, limit):
        """Yields rows of sessions, newest first, a page at a time: nothing stays open between."""
        def pages(found):
            below, size = 1 << 62, min(limit, 500)
            while below:
                rows = found.list_sessions(filters, below, size)
                yield from rows
                below = rows[-1]["id"] if len(rows) == size else None
        trouble, streams = None, []
        try:
            for found in self.places.readable(repository):
                streams.append(pages(found))
        except RepositoryError as error:
            trouble = error
        yield from itertools.islice(heapq.merge(*streams, reverse=True, key=lambda row:
                                                (row["created"], row["id"])), limit)
        if trouble:
            raise trouble

    # -- definitions -------------------------------------------------------------------

    def import_document(self, text, repository, is_replacing):
        """Imports a definitions document -> (Document, (scenarios, schedules) made or changed)."""
        found = self.places.get(repository)
        now = self._now()
        document, counts = import_into(self.master, found, text, self.name, now, is_replacing,
                                       self.schedules.forgotten(found, now))
        self._contexts = frozenset(self.master.list_contexts())
        if document.calendars or document.schedules:
            self.schedules.read_calendars()
        for schedule in document.schedules:
            self.schedules.refresh(found, schedule.name)
        return document, counts

    def export(self, repository, name, version):
        """The definitions of a repository, of a scenario, or of one version, as a document."""
        found = self.places.get(repository) if name is None else \
            self.places.with_scenario(name, version or "-1", repository)
        return export_from(self.master, found, name, version)

    def drop_scenario(self, name, version, repository):
        """Deletes a scenario version. NotFound, Conflict."""
        found = self.places.with_scenario(name, version, repository)
        found.db.write(lambda connection: found.drop_scenario(connection, name, version))

    # -- hold --------------------------------------------------------------------------

    def _apply_hold(self):
        is_held = self.hold is not None
        self.queue.hold(is_held)
        self.schedules.scheduler.hold(is_held)
        if is_held and self.hold.until:
            hold = self.hold
            self.schedules.scheduler.call_at(from_text(hold.until), lambda: self._hold_over(hold))

    def set_hold(self, hold):
        """Begins nothing new until the release (None), which decides what was due meanwhile; kept
        over restarts."""
        self.master.set_hold(self.name, hold, WRITE_S).result()
        self._change_hold(hold)

    def _hold_over(self, hold):
        """The end of a hold has come, if it is still this one;
        a locked master delays its record."""
        if self.hold is hold:
            self.master.set_hold(self.name, None)
            self._change_hold(None)

    def _change_hold(self, hold):
        self.hold = hold
        for place in self.places.list_all():
            repository = place.repository
            if repository:
                repository.db.submit(functools.partial(
                    repository.set_waiting, agent=self.name, is_held=hold is not None,
                    now=self._now()))
        self._apply_hold()
        if hold is None:
            self.schedules.released()
