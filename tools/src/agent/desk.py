"""Where sessions are asked for: EXEC, STOP, RESTART, and what follows the end of each."""
import contextlib
import threading
import time

from ..base.vocabulary import (ENDED, FLOOD_S, IMMEDIATE, KILL_S, NORMAL, NOT_ENDED, OUTSTANDING,
                               RUNNING, STOPPED, TERM_S, WAITING, WRITE_S, YIELD_REQUESTS, ERROR)
from ..base.errors import Busy, Changed, Conflict, NotFound, Stopping, WaitTimeout
from ..base.program import log
from ..store.endings import by_schedule, tell_stop
from .tally import Tally

TRIES = 3               # an EXEC whose scenario is replaced at the same time is tried anew


class Acknowledgement:
    """An EXEC on its way to its commit: `request` is what is asked for, with its secrets put
    aside."""

    def __init__(self, desk, repository, request):
        self._desk, self._repository, self._asked = desk, repository, request
        self._try()

    def _try(self):
        self.request = self._desk.prepare(self._repository, self._asked)
        self.pending = self._desk.write_down(self._repository, self.request)

    @property
    def is_ready(self):
        """Whether result() has nothing to wait for."""
        return self.pending.is_done

    def call_when_ready(self, function):
        """As Pending.call_when_done()."""
        self.pending.call_when_done(function)

    def result(self):
        """Waits for the commit and queues the session -> its Ticket. What the writer refuses."""
        for _ in range(TRIES - 1):
            try:
                return self._desk.acknowledge(self._repository, self)
            except Changed:
                self._try()
        return self._desk.acknowledge(self._repository, self)


class Desk:
    """Takes what is asked of sessions, for any thread, and follows each of them up."""

    def __init__(self, agent):
        self.tally = Tally()
        self._agent, self._clock = agent, agent.clock
        self._contexts = frozenset(agent.master.list_contexts())    # also while the master is away
        self._lock = threading.Lock()
        self._requests = 0              # EXECs that wait for their commit
        self._flooded = -FLOOD_S        # when there were many at once (monotonic seconds)

    def is_flooded(self):
        """Whether many requests wait for their OK."""
        return self._clock.monotonic() - self._flooded < FLOOD_S

    # -- EXEC --------------------------------------------------------------------------

    def _check_accepting(self):
        agent = self._agent
        if agent.is_stopping:
            raise Stopping("the agent is stopping and begins nothing new")
        if agent.queue.counts()[1] + self._requests >= agent.settings.max_queue:
            raise Busy("%d sessions are outstanding, the limit" % agent.settings.max_queue)

    def execute(self, request, repository=None):
        """Hands an EXEC to its repository -> Acknowledgement."""
        self._check_accepting()         # before anything is looked up
        self.check_context(request.context)
        return Acknowledgement(self, self._agent.places.with_scenario(
            request.scenario, request.version, repository), request)

    def may_look(self, context, repository):
        """Whether execute() of a request may have to read from a file whose it is, and what this
        context is."""
        return context not in self._contexts \
            or repository is None and not self._agent.places.is_single

    def read_contexts(self):
        """Takes over the contexts that there are now."""
        self._contexts = frozenset(self._agent.master.list_contexts())

    def check_context(self, name):
        """NotFound when there is no context of this name."""
        if name not in self._contexts:
            self.read_contexts()
            if name not in self._contexts:
                raise NotFound("no context %s" % name)

    def submit(self, request, repository):
        """`execute` when the repository is known."""
        self._check_accepting()
        return Acknowledgement(self, repository, request)

    def prepare(self, repository, request):
        """What has to be done for a request before it is written. RepositoryError."""
        if self.is_held(repository):
            request = request._replace(is_held=True)
        if request.variables:
            request = request._replace(secret_file=self._put_aside(
                repository, request.variables, repository.scenarios.find_secrets,
                request.scenario, request.version))
        return request

    def is_held(self, repository):
        """Whether a session that is made now has to wait for a release."""
        return self._agent.hold is not None or repository.hold is not None

    @staticmethod
    def _put_aside(repository, variables, find_secrets, *place):
        """Writes the secrets among variables to a file -> its name, or None. RepositoryError."""
        names = repository.db.read(find_secrets, *place)
        secrets = {name: variables[name] for name in names if name in variables}
        return repository.secrets.write(secrets) if secrets else None

    def write_down(self, repository, request):
        """Hands a request to the writer -> Pending of a Ticket."""
        with self._lock:
            self._requests += 1
            if self._requests >= YIELD_REQUESTS:
                self._flooded = self._clock.monotonic()
        return repository.db.submit(repository.arrivals.add, request, self._clock.now(),
                                    within_s=WRITE_S)

    def acknowledge(self, repository, acknowledgement):
        """Waits for the commit of a request and queues its session -> its Ticket."""
        ticket, secret_file = None, acknowledgement.request.secret_file
        try:
            ticket = acknowledgement.pending.result()
            if ticket.ending is not None:
                self.ended(repository, ticket.ending)
            elif not ticket.is_duplicate and ticket.agent == self._agent.name \
                    and ticket.status in OUTSTANDING:
                self.queue_ticket(repository, ticket)
        finally:
            with self._lock:
                self._requests -= 1
            if secret_file:
                is_used = ticket is not None and ticket.has_secrets and ticket.ending is None
                repository.secrets.settle(secret_file, is_used)
        return self._with_wait(ticket, acknowledgement.request.patterns)

    def _with_wait(self, ticket, patterns):
        """A Ticket with what it says of its waiting, where it has to."""
        return ticket._replace(wait=self._agent.waits.of_ticket(ticket, patterns)) \
            if ticket.status == WAITING else ticket

    def queue_ticket(self, repository, ticket):
        """Queues a session now, or when its start time comes."""
        self._queue_ticket(repository, ticket)
        if self._agent.places.find(repository) is None:     # let go: read anew when it is back
            self._agent.queue.forget(repository)

    def _queue_ticket(self, repository, ticket):
        """Does so, whether or not the repository is still there."""
        agent, scheduler = self._agent, self._agent.schedules.scheduler
        if ticket.start_at is not None and ticket.start_at > self._clock.now():
            # otherwise it was only read again
            if agent.queue.later.put_off(ticket.session, repository):
                scheduler.call_at(ticket.start_at, lambda: self._start_time(repository, ticket),
                                  lambda: agent.queue.later.is_put_off(ticket.session, repository))
            return
        is_free = agent.queue.add(ticket, repository)
        if ticket.wait_until is not None:
            scheduler.call_at(ticket.wait_until, lambda: self._waited(repository, ticket),
                              lambda: agent.queue.has(ticket.session))
        if not is_free and ticket.status == WAITING and not self.is_held(repository):
            repository.db.submit(repository.sessions.set_queued, ticket.session)

    def _start_time(self, repository, ticket):
        """The start time of a session has come, if it still waits for it."""
        if self._agent.queue.later.is_put_off(ticket.session, repository):
            self.queue_ticket(repository, ticket._replace(start_at=None))

    def _waited(self, repository, ticket):
        """The max_wait of a session's scenario is over; a hold stops that clock."""
        if self.is_held(repository):
            self._agent.schedules.scheduler.call_at(self._clock.now() + 1.0,
                                                    lambda: self._waited(repository, ticket))
        elif not self._agent.queue.find(ticket.session):
            def follow(pending):
                if pending.value:
                    self.ended(repository, pending.value)
            repository.db.submit(repository.endings.end_outstanding, ticket.session, ERROR,
                                 "waited max_wait for the limit of its scenario", self._clock.now(),
                                 on_done=follow)

    # -- ends --------------------------------------------------------------------------

    def ended(self, repository, ending):
        """All that follows the end of a session once it is on disk, whoever has ended it."""
        if ending.status in ENDED:
            self._agent.queue.discard(ending.session)
            if ending.secret_file:
                repository.secrets.forget(ending.secret_file)
            self.tally.add(ending)
            tell_ending(ending)
            self._agent.watch.ended(ending.session)
            self._agent.families.ended(ending)
        for ticket in ending.tickets:
            self.queue_ticket(repository, ticket)
        if ending.is_awaited:
            self._agent.schedules.decide_after(repository)

    def take_made(self, repository, decision):
        """Takes what a due time has made: its session, and the ends of those that it replaces.
        Waits for nothing."""
        for ending in decision.endings:
            self.ended(repository, ending)
        for number in decision.replaced:
            session = self._agent.queue.find(number)
            if session is not None and session.repository is repository:
                session.stop(IMMEDIATE, tell_stop("at once", by_schedule(session.ticket.schedule)))
        if decision.ticket is not None and decision.ticket.ending is not None:
            self.ended(repository, decision.ticket.ending)
        elif decision.ticket is not None:
            self.queue_ticket(repository, decision.ticket)

    # -- STOP and RESTART --------------------------------------------------------------

    def _get_own(self, number):
        """The repository of a session that this agent may stop or restart. NotFound, Conflict."""
        repository = self._agent.places.of_session(number)
        row = repository.db.read(repository.sessions.get, number)
        if row["agent"] != self._agent.name:
            raise Conflict("session %d belongs to agent %s" % (number, row["agent"]))
        return repository

    def stop(self, number, is_immediate, by):
        """Stops a session -> (its status then, what is left of it or nothing); an immediate stop
        is waited for. `by` says who does, and by what. Conflict."""
        repository = self._get_own(number)
        for _ in range(100):            # it may begin or end between two looks
            session = self._agent.queue.find(number)
            if session is not None and session.repository is repository and session.is_begun:
                session.stop(IMMEDIATE if is_immediate else NORMAL,
                             tell_stop("at once" if is_immediate else "", by))
                if not is_immediate:
                    return RUNNING, ""
                with contextlib.suppress(WaitTimeout):
                    row = self._agent.watch.wait(number, TERM_S + KILL_S + WRITE_S)
                    return row["status"], row["message"] if NOT_ENDED in row["message"] else ""
                return RUNNING, ""
            ending = repository.db.write(repository.endings.end_outstanding, number, STOPPED,
                                         tell_stop("before it began", by), self._clock.now())
            if ending is not None:
                self.ended(repository, ending)
                return STOPPED, ""
            if session is None:
                break
            time.sleep(0.02)
        status = repository.db.read(repository.sessions.get, number)["status"]
        if status == RUNNING:
            raise Conflict("session %d is shown as running, but nothing runs it here; %s mends "
                           "that" % (number, "RELEASE -REPO=" + repository.name
                                     if repository.is_copy else "CLEAN"))
        raise Conflict("session %d has ended: %s" % (number, status))

    def restart(self, request):
        """Re-opens a session that ended badly, by a RestartRequest -> Ticket. Conflict, NotFound,
        BadRequest."""
        self._check_accepting()
        repository = self._get_own(request.session)
        for remaining in reversed(range(TRIES)):
            try:
                ticket = self._reopen(repository, request)
                break
            except Changed:
                if not remaining:
                    raise
        if ticket.spent_file:
            repository.secrets.forget(ticket.spent_file)
        self.queue_ticket(repository, ticket)
        return self._with_wait(ticket, request.patterns)

    def _reopen(self, repository, request):
        """Writes a RestartRequest down -> Ticket. What the writer refuses."""
        secret_file = ticket = None
        if request.variables:
            secret_file = self._put_aside(repository, request.variables,
                                          repository.restarts.find_secrets, request)
        try:
            ticket = repository.db.write(repository.restarts.reopen, request._replace(
                secret_file=secret_file, is_held=self.is_held(repository)))
        finally:
            if secret_file:
                repository.secrets.settle(secret_file, ticket is not None and ticket.has_secrets)
        return ticket


def tell_ending(ending):
    """The line of the log for the end of a session."""
    duration_s = ending.duration_s and round(ending.duration_s, 3)
    took = "" if duration_s is None else " after %g s" % duration_s
    reason = ": " + ending.message if ending.message else ""
    log.info("session %d of %s ends %s%s%s", ending.session, ending.scenario, ending.status, took,
             reason, extra={"fields": {
                 "session": ending.session, "scenario": ending.scenario, "event": "end",
                 "status": ending.status, "duration": duration_s}})
