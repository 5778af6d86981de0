"""A session as the queue and the desk know it: it begins, waits without a thread, and ends."""
import collections
import contextlib
import weakref

from ..base.vocabulary import ERROR, LATE_S
from ..base.errors import AgentError, Conflict, NotFound, RepositoryError, Unreadable
from ..base.program import log, tell_traceback
from ..base.times import from_text
from ..base.controls import one_line
from .control import Control, Interrupted, Left
from .course import Course, Outcome, TaskPlace
from .journal import Journal
from .plancourse import PlanCourse


class Session:
    """One execution of a scenario, as the queue and the desk know it.

    stop() and leave() may come from any thread at any moment; run() by one at a time.
    """

    def __init__(self, ticket, repository, around):
        self.number, self.ticket, self.repository = ticket.session, ticket, repository
        self._around = around
        reference = weakref.ref(self)   # its Control must not keep it

        def call():
            session = reference()
            if session is not None:
                session._call()
        self._control = Control(around.clock, "%s/%d" % (repository.mark, self.number), call,
                                around.looks)
        self._parking = self._going = self._waiting = self._outcome = None
        self._children, self._has_lent = (), False
        self._news = collections.deque()        # for a plan: its children that may have ended
        self._journal = Journal(repository, self.number, ticket.scenario, around.clock,
                                around.on_log)

    @property
    def is_begun(self):
        """Whether it is on disk that it has begun."""
        return self._journal.has_begun

    def stop(self, mode, message):
        """Asks it to stop, NORMAL after the task now running, or IMMEDIATE; the message says who
        does, and by what."""
        self._control.stop(mode, message)

    def leave(self, is_engine_alone=False):
        """Lets the process that it waits for, or starts next, go on without the agent, if it can
        be adopted; or that alone which is on an engine."""
        self._control.leave(is_engine_alone)

    def mask(self, text):
        """A text without its secrets."""
        return self._journal.mask(text)

    # -- going on without a thread -----------------------------------------------------

    def park(self, parking):
        """Waits in a Parking, after run() has said so."""
        self._parking = parking
        self._has_lent = self._has_lent or self.lends_slot
        parking.put(self, self._control.find_limit(self._waiting))

    @property
    def has_parked(self):
        """Whether it has ever waited so."""
        return self._parking is not None

    @property
    def children(self):
        """The numbers of the sessions whose end it waits for; None: for none. A plan that has begun
        always waits for some, though there may be none at the moment."""
        waiting = self._waiting
        if waiting is not None and not waiting.has_slot:
            self._children = waiting.children
        elif not (self.ticket.is_plan and self.is_begun):
            return None
        return self._children

    @property
    def engine_wait(self):
        """(word, text) of what its task on an engine does or waits for, or None."""
        waiting = self._waiting
        return waiting and waiting.engine_task and waiting.engine_task.tell_wait()

    @property
    def has_slot(self):
        """Whether it needs a slot now: what it waits for elsewhere, if anything, needs none."""
        return self.children is None

    @property
    def lends_slot(self):
        """Whether, while it waits, another may have its slot."""
        waiting = self._waiting
        return waiting is not None and not (self.ticket.is_plan or waiting.has_slot)

    @property
    def is_apart(self):
        """Whether it goes on whatever the limits, so no slot's thread may be there for it."""
        return self._has_lent or self.ticket.is_plan or self.ticket.is_adopted

    def is_ready(self):
        """Whether what it waits for is over, or something ends the waiting."""
        waiting = self._waiting         # None: another thread has gone on with it
        return waiting is not None and (
            waiting.is_over() or not waiting.is_deaf and self._control.is_due
            or waiting.is_between and self._control.has_stop)

    def note_child(self, number):
        """Of a plan: this child may have ended; None: any of them may."""
        if self.ticket.is_plan:
            self._news.append(number)
            self._control.wake()

    def _call(self):
        if self._parking is not None:
            self._parking.call(self)

    def run(self):
        """Runs it -> True: it is over, and record_end() is to follow; or False: it is to park, and
        run() to be called again then. RepositoryError: not begun, it stays outstanding."""
        if self._going is None:
            self._going = self._go()
        self._waiting = None            # while it goes on
        self._waiting = next(self._going, None)
        return self._waiting is None

    def _go(self):
        """A generator of the Waitings of its course. RepositoryError, as run()."""
        try:
            course, place = self._resume()
            self._outcome = yield from self._run_course(course, place)
        except (Conflict, NotFound):        # stopped or purged since it was queued
            if self.is_begun:
                raise
        except Unreadable as error:
            self._end_unread(error.message)
        except Left:
            self._leave_off()
        except RepositoryError as error:
            if not self.is_begun:
                raise
            self._lose(error)

    def record_end(self, on_recorded):
        """Has its end recorded, and waits for nothing: on_recorded(pending) is called when that is
        over, with the Pending for follow_end(), or None where there is nothing to record."""
        if self._outcome is None:
            on_recorded(None)
            return
        try:
            self._journal.note_end(self.repository.endings.end, self._outcome.status,
                                   message=self._outcome.message)
            self._journal.hand_over(on_recorded)
        except Exception as error:          # as when memory is short
            log.error("the end of session %d is not recorded\n%s", self.number,
                      self.mask(tell_traceback(error)))
            self.repository.set_behind()    # it is queued again, or closed by the cleaning
            on_recorded(None)

    def follow_end(self, pending):
        """What follows from the record of its end. RepositoryError: it has not even begun, and
        stays outstanding."""
        try:
            ending = pending.result()
        except RepositoryError as error:
            if not self.is_begun:
                raise
            self._lose(error)
            return
        except (Conflict, NotFound):
            if self.is_begun:
                raise
            return
        if ending is None:                  # it was no more open
            self._around.on_loss(self.number)
        else:
            self._around.on_end(self.repository, ending)

    def _lose(self, error):
        log.error("session %d ended in memory alone, its end is not recorded: %s", self.number,
                  error)
        self._around.on_loss(self.number)

    def _resume(self):
        """Reads it, and notes that this agent runs it -> (Course, TaskPlace). Conflict, NotFound:
        it is not as its ticket says any more. Unreadable. RepositoryError: not now."""
        repository, identity = self.repository, self._around.identity
        row, scenario, runs, attempts = repository.db.read(repository.views.get_resume,
                                                           self.number)
        self._journal.count_from(runs)
        if scenario.plan is None:
            course = Course(row, scenario, attempts, self._control, self._journal, self._around)
        else:
            course = PlanCourse(row, scenario, self._control, self._journal, self._around,
                                self._news)
        if not self.ticket.is_adopted:
            self._journal.note(repository.sessions.begin, identity, self._is_late(row),
                               self._journal.now(), scenario)
            return course, TaskPlace(row["restart_step"] or 0, row["restart_task"] or 0)
        repository.db.write(repository.sessions.adopt, self.number, row["ran_by"], identity)
        self._journal.set_begun()
        if scenario.plan is not None:
            return course, None
        step, task = repository.db.read(repository.progress.find_interrupted, self.number)
        log.warning("session %d is adopted", self.number)
        since = tuple(from_text(each["begun"]) for each in (row, step, task))
        return course, TaskPlace(task["step"], task["task"], step["run"], task["run"], since)

    def _is_late(self, row):
        """Whether it begins later than planned, and is neither restarted nor another attempt."""
        planned = row["due"] and (row["start_at"] or row["due"])
        return bool(planned) and row["begun"] is None and row["attempt"] == 1 \
            and self._around.clock.now() - from_text(planned) > LATE_S

    def _run_course(self, course, place):
        """Runs what there is to run -> Outcome. Left, RepositoryError."""
        try:
            return (yield from course.run(place))
        except (Left, RepositoryError):
            raise
        except Interrupted as error:
            return self._end_interrupted(error)
        except Exception as error:          # a fault of the agent's own
            if isinstance(error, (AgentError, MemoryError)) and not self.is_begun:
                raise
            log.error("session %d\n%s", self.number, self.mask(tell_traceback(error)))
            return self._end_interrupted(Interrupted(
                "session", ERROR, "fault of the agent: %s" % one_line(error)))

    def _end_interrupted(self, interrupt):
        """No process stays behind -> Outcome."""
        self._control.sweep_last(interrupt)
        return Outcome(interrupt.status, interrupt.message)

    def _leave_off(self):
        log.info("session %d is left to the next start", self.number)
        with contextlib.suppress(RepositoryError):      # its spool has what is not recorded
            self._journal.flush()

    def _end_unread(self, reason):
        """Ends it before it begins: its definition cannot be read. RepositoryError."""
        repository = self.repository
        ending = repository.db.write(repository.endings.end_outstanding, self.number, ERROR,
                                     one_line(reason), self._journal.now())
        if ending is not None:
            self._around.on_end(repository, ending)
