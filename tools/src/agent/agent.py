"""The agent: its life cycle, and what it can do in domain words."""
import contextlib
import functools
import os
import select
import signal
from typing import NamedTuple

from ..base.vocabulary import (IMMEDIATE, KILL_S, SESSIONS_PER_CORE, STOP_S, TERM_S, WAKE,
                               WRITE_S)
from ..base.errors import CannotStart
from ..base.program import log
from ..base.times import Clock
from ..store.endings import tell_stop
from ..base.workers import Worker
from ..processes.alive import own_identity
from ..processes.looks import Looks
from ..processes.limits import FileLimit
from ..processes.orphans import reap_orphans
from ..processes.output import Output
from ..processes.remains import clear_notes
from ..runtime.bounds import make_bounds
from ..runtime.engines import Engines
from ..runtime.session import Session
from ..runtime.execution import Surroundings
from ..runtime.slots import SessionQueue
from ..scheduling.changes import ScheduleChanges
from ..scheduling.listing import ScheduleListing
from ..scheduling.schedules import Schedules
from .access import Access
from .audit import Audit
from .opening import open_master, open_work
from .place import Care
from .places import Places
from .holds import RepositoryHolds
from .housekeeping import Cleaner, Keeper
from .leftovers import spend_folders
from .waits import Waits
from .watch import Children, Topology, Watch
from .desk import Desk
from .families import Families
from .reached import Reached
from .inbox import Inbox
from .notices import Notices
from .exchange import Exchange


# byte that a signal wakes the main thread with -> its name; others say nothing
STOPS = {bytes([number]): signal.Signals(number).name
         for number in (signal.SIGTERM, signal.SIGINT)}
REAP_S = 2.0            # between two looks for orphans that have ended
HANGUP = bytes([signal.SIGHUP])
SIGNALS_AT_ONCE = 4096             # bytes of signals that are read at once


def split_stop(data):
    """(The first of these bytes that ends the main thread's wait, of STOPS or WAKE, or None; those
    behind it)."""
    for place in range(len(data)):
        word = data[place:place + 1]
        if word in STOPS or word == WAKE:
            return word, data[place + 1:]
    return None, b""


class StopRequest(NamedTuple):
    """Who wants the agent to stop, and how long running sessions may take."""
    by: str                             # who, and by what
    is_immediate: bool
    max_wait_s: float
    asked: float                        # monotonic seconds

    def tell_end(self, now):
        """Why what runs then is stopped, or None: it may go on."""
        if self.is_immediate:
            return tell_stop("at once", self.by)
        if now < self.asked + self.max_wait_s:
            return None
        return tell_stop("", "%s: it had not ended in %g s" % (self.by, self.max_wait_s))


class Agent:
    """The agent in domain words, for any thread; it knows no sockets.

    Start, cleaning and firing touch only sessions and schedules of its own name.
    """

    def __init__(self, settings, clock=None, file_limit=None, umask=None):
        """`umask`: of the processes of tasks, None: the agent's own. CannotStart."""
        self.settings, self.name = settings, settings.name
        self.bounds = make_bounds(settings, umask)
        self._file_limit = file_limit or FileLimit()
        self.clock = clock or Clock()
        self.hold = None
        self.is_stopping = False
        self.connections, self.reached = lambda: 0, Reached()       # the first set by the server
        self.master = self.places = self.watch = self.schedules = self.queue = self.keeper = None
        self.desk = self.changes = self.listing = self.repository_holds = self.audit = None
        self.access, self.waits, self.families = (
            Access(settings, self.clock), Waits(self), Families(self))
        self.exchange = Exchange(self)
        self.started = self.clock.monotonic()        # of its steady clock
        self._cleaner = self._output = self._inbox = self.notices = self.engines = None
        self._threads = []
        self._stop_request = None
        self._is_leaving = False                # what can be adopted goes on without the agent
        self._wake_main = lambda: None

    # -- life cycle --------------------------------------------------------------------

    def start(self, host, port, needs_user=False):
        """Connects, takes over what its name owns in every repository, computes the schedule.
        CannotStart."""
        settings, clock = self.settings, self.clock
        self.master = open_master(settings, clock)
        self.access.open(self.master)
        if needs_user and not self.access.has_users():
            raise CannotStart("--host %s: there is no user, so nobody could do anything; start on "
                              "loopback and USERS ADD one (--insecure starts without)" % host)
        identity = own_identity(settings.host_id, self.master.db.uuid)
        self.master.register(self.name, host, port, str(identity), self.clock.now())
        self.hold = self.master.find_hold(self.name)
        self.audit = Audit(self.master, self.name, clock)
        self.desk = Desk(self)
        self._output = Output()
        self.engines = Engines(clock, self.bounds, settings)
        around = Surroundings(clock, str(identity), self._output, settings.max_output,
                              self.desk.ended, lambda number: self.watch.ended(number),
                              Topology(self.master), Children(self),
                              lambda number: self.watch.logged(number), self._file_limit,
                              self.bounds.surround(os.environ), Looks(self.bounds.users),
                              self.bounds, self.families, self.engines)
        self.queue = SessionQueue(
            settings.max_sessions or SESSIONS_PER_CORE * (os.cpu_count() or 1),
            lambda ticket, repository: Session(ticket, repository, around),
            self.desk.is_flooded, clock)
        self._cleaner = Cleaner(self.name, identity, self.queue, clock, self.desk.ended,
                                self.bounds)
        self._inbox = Inbox()
        self.repository_holds = RepositoryHolds(self, self._clean)
        self.places = Places(self.master, Care(
            functools.partial(open_work, clock=clock, inbox=self._inbox,
                              is_insecure_fs=settings.is_insecure_fs, home=identity.home),
            self._take_over, self._let_go, self._clean, settings.clean_every_s, clock))
        self.watch = Watch(self.places, clock)
        self.schedules = Schedules(self.name, self.places, self.master, clock, self.queue,
                                   lambda: self.hold is not None, self.desk.take_made)
        self.changes = ScheduleChanges(self.schedules, self.places, self.master, clock)
        self.listing = ScheduleListing(self.schedules, self.places, clock)
        self.keeper = Keeper(self, self._cleaner)
        self.notices = Notices(self, host, port, self._file_limit)
        self._apply_hold()
        self.places.attach_all()
        for name, target in (("scheduler", self.schedules.scheduler.run),
                             ("keeper", self.keeper.run), ("notices", self.notices.run)):
            thread = Worker(target, name)
            thread.start()
            self._threads.append(thread)
        self.audit.note_own("AGENT START")

    def _take_over(self, place):
        """Cleans stale sessions, queues outstanding ones, reads the schedules: in this order."""
        repository = place.repository
        self.repository_holds.look(repository)
        self._clean(repository)
        numbers = repository.db.read(repository.sessions.list_outstanding, self.name)
        self.schedules.keep_held(repository)
        for ticket in repository.read_tickets(
                [number for number in numbers if not self.queue.has(number, repository)]):
            if not self.queue.has(ticket.session, repository):
                self.desk.queue_ticket(repository, ticket)
        self.schedules.load(place)
        self.repository_holds.settle(repository)
        self.families.look(repository)
        spend_folders(repository, self.name, Topology(self.master), self.engines)

    def _clean(self, repository):
        if not repository.is_copy:      # what lies beside it may be another's
            self._cleaner.clean(repository)
            clear_notes(repository.parts, repository.forget_strays(), self.bounds.discard)

    def _let_go(self, repository):
        self.schedules.forget(repository)
        self.queue.forget(repository)
        self.watch.let_go(repository)

    def request_stop(self, by, is_immediate=False, max_wait_s=STOP_S, is_leaving=False):
        """Asks the main thread to stop the agent in good order; a later request may hurry it. `by`
        says who does, and by what."""
        self.is_stopping = True
        self._is_leaving = self._is_leaving or is_leaving
        self._stop_request = StopRequest(by, is_immediate, max_wait_s, self.clock.monotonic())
        self._wake_main()

    def run_until_stopped(self, wake_fd, wake, on_hangup=lambda: None, on_stopping=lambda: None):
        """The main thread's wait: until a byte in the pipe says signal or SHUTDOWN, then stops.

        One of STOPS while sessions end ends them at once. Other signals stop nothing; at SIGHUP
        on_hangup() is called. Orphans are reaped now and then: to be woken by each process that
        ends would cost every session.
        """
        self._wake_main = wake
        word, rest, poll = None, b"", select.poll()
        poll.register(wake_fd, select.POLLIN)
        while word is None:
            reap_orphans()
            if not poll.poll(REAP_S * 1000):
                continue
            data = os.read(wake_fd, SIGNALS_AT_ONCE)
            if HANGUP in data:
                on_hangup()
            word, rest = split_stop(data)
        if word in STOPS:
            self.audit.note_own("SIGNAL", STOPS[word])
        if self._stop_request is None:
            self.request_stop(STOPS.get(word, ""))
        on_stopping()
        log.info("stopping, %d sessions are running", self.queue.counts()[0])
        self.schedules.scheduler.stop()
        self.queue.close()
        self.families.leave()
        os.set_blocking(wake_fd, False)
        reason = None
        if self._is_leaving or not self._stop_request.is_immediate:
            for session in self.queue.list_running():
                session.leave(is_engine_alone=not self._is_leaving)
        while reason is None and not self.queue.wait_idle(0.1):
            reap_orphans()
            reason = self._stop_request.tell_end(self.clock.monotonic())
            with contextlib.suppress(BlockingIOError):
                rest += os.read(wake_fd, SIGNALS_AT_ONCE)
            second, rest = split_stop(rest)
            if second in STOPS:
                self.audit.note_own("SIGNAL", STOPS[second])
                reason = tell_stop("at once", "%s, after %s" % (STOPS[second],
                                                                self._stop_request.by))
        self._stop_sessions(reason)
        self.watch.close()
        self.notices.stop()

    def _stop_sessions(self, reason):
        self.families.cut()
        for session in self.queue.list_running():
            session.stop(IMMEDIATE, reason)
        self.queue.wait_idle(TERM_S + KILL_S + WRITE_S)

    def close(self):
        """Ends the threads, writes everything down, closes the repositories."""
        if self.watch:
            self.watch.close()
        if self.schedules and not self.is_stopping:     # it could not start
            self.schedules.scheduler.stop()
            self.queue.close()
            self._stop_sessions(tell_stop("at once", "the end of the agent"))
        for part in filter(None, (self.keeper, self.notices)):
            part.stop()
        for thread in self._threads:
            thread.join()
        if self.places:
            self.engines.close()
            self.places.close()         # what is still recorded by a session ends here
            self._inbox.close()
        if self.queue:
            self.queue.join()
        if self._output:
            self._output.close()
        self.access.close()
        if self.master:
            self.master.heartbeat(self.name, self.clock.now(), is_stopped=True)
        if self.audit:                  # should the master be locked, both wait together
            self.audit.note_own("AGENT STOP")
            self.audit.close()
        if self.master:
            self.master.db.close()

    # -- hold --------------------------------------------------------------------------

    def _apply_hold(self):
        is_held = self.hold is not None
        self.queue.hold(is_held)
        self.schedules.scheduler.hold(is_held)
        if is_held and self.hold.until:
            hold = self.hold
            self.schedules.scheduler.call_at(hold.until, lambda: self._hold_over(hold))

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
            self.audit.note_own("RELEASE")
            self._change_hold(None)

    def _change_hold(self, hold):
        self.hold = hold
        for repository in self.places.list_open():
            if hold is not None or repository.hold is None:
                repository.db.submit(repository.sessions.set_waiting, self.name, hold is not None,
                                     self.clock.now())
        self._apply_hold()
        if hold is None:
            self.schedules.released()
