"""A session as the queue and the desk know it: it begins, waits without a thread, and ends."""
import contextlib
import weakref

from ..base.vocabulary import ERROR, LATE_S
from ..base.errors import Conflict, NotFound, RepositoryError, Unreadable
from ..base.program import log, tell_traceback
from ..base.times import from_text
from ..base.controls import one_line
from .control import Control, Interrupted, Left
from .course import Course, Outcome, TaskPlace
from .journal import Journal


class Session:
    """One execution of a scenario, as the queue and the desk know it.

    stop() and leave() may come from any thread at any moment; run() by one at a time.
    """

    def __init__(self, ticket, repository, around):
        self.number, self.ticket, self.repository = ticket.session, ticket, repository
        self.is_begun = False           # on disk
        self._around = around
        reference = weakref.ref(self)   # its Control must not keep it

        def call():
            session = reference()
            if session is not None:
                session._call()
        self._control = Control(around.clock, "%s/%d" % (repository.db.uuid, self.number), call)
        self._parking = self._going = self._waiting = None
        self._journal = Journal(repository, self.number, around.clock, around.on_log)

    def stop(self, mode, message="stopped"):
        """Asks it to stop, NORMAL after the task now running, or IMMEDIATE."""
        self._control.stop(mode, message)

    def leave(self):
        """Lets the process that it waits for, or starts next, go on without the agent, if it can
        be adopted."""
        self._control.leave()

    def mask(self, text):
        """A text without its secrets."""
        return self._journal.mask(text)

    # -- going on without a thread -----------------------------------------------------

    def park(self, parking):
        """Waits in a Parking, after run() has said so."""
        self._parking = parking
        parking.put(self, self._control.find_limit(self._waiting.patience_s))

    @property
    def has_parked(self):
        """Whether it has ever waited so."""
        return self._parking is not None

    def is_ready(self):
        """Whether what it waits for is over, or something ends the waiting."""
        waiting = self._waiting         # None: another thread has gone on with it
        return waiting is not None and (waiting.is_over() or self._control.is_due)

    def _call(self):
        if self._parking is not None:
            self._parking.call(self)

    def run(self):
        """Runs it to its end -> True, or False: it is to park, and run() to be called again then.
        RepositoryError: not begun, it stays outstanding."""
        if self._going is None:
            self._going = self._go()
        self._waiting = next(self._going, None)
        return self._waiting is None

    def _go(self):
        """A generator of the Waitings of its course. RepositoryError, as run()."""
        try:
            course, place = self._begin()
        except (Conflict, NotFound):        # stopped or purged since it was queued
            return
        except Unreadable as error:
            self._end_unread(error.message)
            return
        self.is_begun = True
        try:
            outcome = yield from self._run_course(course, place)
            self._journal.note_end(self.repository.endings.end, outcome.status,
                                   message=outcome.message)
            ending = self._journal.flush()
        except Left:
            self._leave_off()
            return
        except RepositoryError as error:
            log.error("session %d ended in memory alone, its end is not recorded: %s",
                      self.number, error)
            ending = None
        if ending is None:                  # or it was no more open
            self._around.on_loss(self.number)
        else:
            self._around.on_end(self.repository, ending)

    def _begin(self):
        """Has it on disk that this agent runs it -> (Course, TaskPlace). Conflict, NotFound: it
        is not as its ticket says any more. Unreadable. RepositoryError: it cannot begin now."""
        repository, identity = self.repository, self._around.identity
        row, scenario, runs, attempts = repository.db.read(repository.views.get_resume,
                                                           self.number)
        self._journal.count_from(runs)
        course = Course(row, scenario, attempts, self._control, self._journal, self._around)
        if not self.ticket.is_adopted:
            repository.db.write(repository.sessions.begin, self.number, identity,
                                self._is_late(row), self._journal.now(), scenario, within_s=2.0)
            return course, TaskPlace(row["restart_step"] or 0, row["restart_task"] or 0)
        repository.db.write(repository.sessions.adopt, self.number, row["ran_by"], identity)
        step, task = repository.db.read(repository.progress.find_interrupted, self.number)
        log.warning("session %d is adopted", self.number)
        return course, TaskPlace(task["step"], task["task"], step["run"], task["run"])

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
