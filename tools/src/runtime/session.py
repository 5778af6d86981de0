"""The course of a session: steps, tasks, attempts, stop, restart, and what is recorded of them."""
import contextlib
import json
import os
import threading

from ..base.vocabulary import (ADOPT, DONE, END, ERROR, FAIL, IMMEDIATE, LATE_S, MAX_BATCH,
                               MIN_SECRET, NORMAL, RESERVED_VARIABLES, STOPPED, WARNING)
from ..base.errors import AgentError, Conflict, NotFound, RepositoryError, Unreadable
from ..base.program import log, tell_traceback
from ..base.times import from_text, to_local, to_text
from ..base.words import mask_all, one_line
from ..definitions.fields import TASK_TYPES
from ..processes.tree import Tree, _signal
from ..tasks.task import TaskError, TaskResult
from .execution import Execution, Interrupted, Left, read_secret


class Session:
    """One execution of a scenario, in the thread of a slot.

    What is to be recorded is collected in `_records` and goes to the repository in one
    transaction, at the latest before the next task begins: a task's process starts only
    after the commit that says so.
    """

    def __init__(self, ticket, repository, around):
        self.number, self.ticket, self.repository = ticket.session, ticket, repository
        self.around = around
        self._progress = repository.progress
        self._changed = threading.Condition()
        self._stop = None               # None, NORMAL, IMMEDIATE
        self._stop_message = ""
        self._deadlines = []            # [(monotonic, scope, seconds)]
        self._records = []
        self._row = self._scenario = None
        self._values = {}
        self._run = 0                   # number of the newest step or task run
        self._attempts = {}             # step -> (attempts so far, how the newest ended before)
        self.roots = {}                 # pid -> start time, of processes whose group lives on
        self._is_false = False          # an evaluate of the step said so
        self._told_false = None         # what the newest one compared
        self._failure = None            # (step, task, message) that decides the session's end
        self._is_warned = False
        self.secrets = ()               # what must not be stored or shown, the longest first
        self._resumed = None            # (step row, task row) of an adopted session's process
        # the process that it waits for, or starts next, goes on alone
        self.is_leaving = False
        self.is_begun = False           # on disk
        self.spent = []                 # spools whose content is recorded with the next commit

    @property
    def is_adoptable(self):
        """Whether its processes outlive the agent."""
        return self._scenario is not None and self._scenario.on_stale == ADOPT

    def leave(self):
        """Lets the process that it waits for, or starts next, go on without the agent."""
        self.is_leaving = self.is_adoptable

    def stop(self, mode, message="stopped"):
        """Asks it to stop; from any thread. An immediate stop is not taken back by a normal."""
        with self._changed:
            if self._stop != IMMEDIATE:
                self._stop, self._stop_message = mode, message
            self._changed.notify_all()

    # -- the course of a session -------------------------------------------------------

    def run(self):
        """Runs it to its end. RepositoryError: not begun, it stays outstanding."""
        try:
            self._row, self._scenario, self._run, self._attempts = \
                self.repository.db.read(self.repository.views.get_resume, self.number)
            self._values = dict(json.loads(self._row["variables"]), **self._own_values())
            self._adopt() if self.ticket.is_adopted else self._begin()
            self.is_begun = True
            unread = self._read_secrets()
        except (Conflict, NotFound):        # stopped or purged since it was queued
            return
        except Unreadable as error:
            return self._end_unread(error.message)
        try:
            with self._deadline(self._row["timeout"], "session"):
                status, message = (ERROR, unread) if unread else self._steps()
        except Interrupted as interrupt:
            if self._stop != NORMAL:
                self._sweep(interrupt)
            status, message = interrupt.status, interrupt.message
        except Left:
            log.info("session %d is left to the next start", self.number)
            return self.flush()
        except RepositoryError as error:
            return self._report_loss(error)
        except Exception as error:          # a fault of the agent's own
            log.error("session %d\n%s", self.number, self.mask(tell_traceback(error)))
            status, message = ERROR, "fault of the agent: %s" % one_line(error)
        self._end(status, message)

    def _own_values(self):
        due = self._row["due"] or self._row["start_at"] or self._row["created"]
        return {"SESSION": str(self.number), "SCENARIO": self._row["scenario"],
                "CONTEXT": self._row["context"], "DUE": to_local(due)}

    def _begin(self):
        row, now = self._row, self.around.clock.now()
        planned = row["due"] and (row["start_at"] or row["due"])
        # neither restarted nor another attempt
        is_first = row["begun"] is None and row["attempt"] == 1
        is_late = is_first and planned is not None and now - from_text(planned) > LATE_S
        self.repository.db.write(self.repository.sessions.begin, self.number, self.around.identity,
                                 is_late, to_text(now), self._scenario, within_s=2.0)

    def _adopt(self):
        repository = self.repository
        repository.db.write(repository.sessions.adopt, self.number, self._row["ran_by"],
                            self.around.identity)
        self._resumed = repository.db.read(repository.progress.find_interrupted, self.number)
        log.warning("session %d is adopted", self.number)

    def _read_secrets(self):
        """Takes the values of secret variables -> why that fails, or nothing."""
        given = {}
        if self._scenario.secrets:
            given = self.repository.secrets.read(self._row["secret_file"] or str(self.number))
        for name, source in self._scenario.secrets.items():
            try:
                value = given[name] if name in given else read_secret(source)
            except (OSError, ValueError, KeyError) as error:
                return "secret %s: %s" % (name, getattr(error, "strerror", None) or error)
            if len(value) < MIN_SECRET:
                return "secret %s: has under %d characters" % (name, MIN_SECRET)
            self._values[name] = value
            self.hide(value)
        return None

    def hide(self, value):
        """From now on a value, and each line of it, is shown nowhere."""
        lines = {line for line in value.split("\n") if len(line) >= MIN_SECRET}
        self.secrets = tuple(sorted(lines.union(self.secrets), key=len, reverse=True))

    def mask(self, text):
        """A text without secrets."""
        return mask_all(text, self.secrets)

    def _end(self, status, message):
        self.note(self.repository.endings.end, status, self._told(message), self._now())
        try:
            ending = self.flush()
        except RepositoryError as error:
            return self._report_loss(error)
        if ending is None:              # it was no more open
            self.around.on_loss(self.number)
        else:
            self.around.on_end(self.repository, ending)

    def _end_unread(self, reason):
        """It cannot begin: its definition cannot be read."""
        repository = self.repository
        ending = repository.db.write(repository.endings.end_outstanding, self.number, ERROR,
                                     one_line(reason), self._now())
        if ending is not None:
            self.around.on_end(repository, ending)

    def _told(self, message):
        return one_line(self.mask(message))

    def _report_loss(self, error):
        log.error("session %d ended in memory alone, its end is not recorded: %s",
                  self.number, error)
        self.around.on_loss(self.number)

    def _steps(self):
        """Runs step after step -> (status, message) of the session."""
        index, task = self._row["restart_step"] or 0, self._row["restart_task"] or 0
        if self._resumed:
            index, task = self._resumed[1]["step"], self._resumed[1]["task"]
        for _ in range(self._scenario.max_steps):
            self._stop_between(index, task)
            step = self._scenario.steps[index]
            self._is_false = False
            is_ok = self._step(index, step, task)
            target = step.on_false if self._is_false else step.on_ok if is_ok else step.on_error
            if self._stop == IMMEDIATE:
                self.interrupt_if_asked()
            self._is_warned = self._is_warned or not is_ok
            if target == END:
                return (WARNING if self._is_warned or self._was_warned() else DONE), ""
            if target == FAIL:
                told = self._told_false or "step %s ends in FAIL" % step.name
                return ERROR, self._failure[2] if self._failure else told
            index, task = self._scenario.step_index(target), 0
        return ERROR, "more than max_steps (%d) steps" % self._scenario.max_steps

    def _was_warned(self):
        """Whether before a RESTART a step ended badly, and has not been run again since."""
        return any(status in (WARNING, ERROR) for _, status in self._attempts.values())

    def _stop_between(self, step, task):
        """A normal stop takes effect here; a RESTART goes on at this place."""
        if self._stop:
            self.note(self._progress.set_restart, step, task)
            self.interrupt_if_asked(is_between=True)

    def _step(self, index, step, first_task):
        """Runs the attempts of a step -> whether it ended well."""
        delay = step.retry_delay
        for attempt in range(step.attempts):
            if attempt:
                self._pause(delay)
                delay = min(delay * step.retry_factor, 1e9)
            failure = self._attempt(index, step, first_task if attempt == 0 else 0)
            if failure is None:
                return True
            task, message = failure
            if self._failure is None or step.on_ok != FAIL:     # not that of a mere handler
                self._failure = index, task, "step %s: %s" % (step.name, message)
                self.note(self._progress.set_restart, index, task)
            if attempt + 1 < step.attempts or step.on_error != FAIL:
                self.interrupt_if_asked(is_between=True)
        return False

    def _attempt(self, index, step, first_task):
        """Runs the tasks of a step once -> None, or (task, message) of the failure."""
        attempt = self._attempts.get(index, (0, None))[0] + (not self._resumed)
        self._attempts[index] = attempt, None
        run = self._begin_run(self._resumed and self._resumed[0], self._progress.begin_step,
                              index, step.name, attempt)
        interrupt = None
        try:
            with self._deadline(step.timeout, "step"):
                status, failure = self._tasks(index, step, first_task, run, attempt)
        except Interrupted as error:
            interrupt, status, failure = error, error.status, (self._at, error.message)
        self.note(self._progress.end_step, run, status, self._told(failure[1] if failure else ""),
                  self._now())
        if interrupt and interrupt.scope != "step":
            raise interrupt
        return failure

    def _begin_run(self, resumed, method, *arguments):
        """The number of a run that begins, or goes on when its row is given as `resumed`."""
        if resumed:
            return resumed["run"]
        self._run += 1
        self.note(method, self._run, *arguments, self._now())
        return self._run

    def _tasks(self, index, step, first_task, step_run, attempt):
        status = DONE
        for number in range(first_task, len(step.tasks)):
            self._at = number
            if number > first_task:
                self._stop_between(index, number)
            result = self._task(index, number, step.tasks[number], step_run, attempt)
            if result.status == ERROR:
                return ERROR, (number, "task %d: %s" % (number + 1, result.message))
            if result.status == WARNING:
                status, self._is_warned = WARNING, True
            if result.is_false:
                self._is_false = True
                self._told_false = "step %s: %s" % (step.name, result.message)
                break
        return status, None

    def _task(self, index, number, task, step_run, attempt):
        """Runs one task and notes how it ended -> TaskResult."""
        resumed, self._resumed = self._resumed, None
        run = self._begin_run(resumed and resumed[1], self._progress.begin_task, step_run, index,
                              number, task.name or "", task.type, attempt)
        interrupt, kind = None, TASK_TYPES[task.type]()
        if not resumed and not (getattr(kind, "is_instant", False)
                                and len(self._records) < MAX_BATCH):
            self.flush()
        execution = Execution(self, run, self._values)
        try:
            with self._deadline(task.timeout, "task"):
                result = (kind.resume if resumed else kind.run)(task.fields, execution)
        except (TaskError, AgentError) as error:
            result = TaskResult(ERROR, execution.rc, message=str(error))
        except OSError as error:
            result = TaskResult(ERROR, execution.rc, message="%s: %s" % (error.strerror,
                                                                         error.filename))
        except Interrupted as error:
            interrupt = error
            result = TaskResult(error.status, execution.rc, message=error.message)
        execution.close()
        self._values.update((name, self.mask(value)) for name, value in result.values.items())
        self.note(self._progress.add_log, run, *execution.rest)
        self.note(self._progress.end_task, run, result.status, result.rc, result.rows,
                   self._told(result.message), self._now())
        if result.values:
            self.note(self._progress.set_variables, self._variables())
        if interrupt and interrupt.scope != "task":
            self.note(self._progress.set_restart, index, number)
            raise interrupt
        return result

    def _variables(self):
        return {name: value for name, value in self._values.items()
                if name not in RESERVED_VARIABLES and name not in self._scenario.secrets}

    # -- records -----------------------------------------------------------------------

    def _now(self):
        return to_text(self.around.clock.now())

    def note(self, method, *arguments):
        """Adds method(connection, session, ...) to what goes to the repository next."""
        self._records.append((method, arguments))

    def flush(self, is_waiting=True):
        """Hands over what was noted; waits for the commit unless told otherwise -> what the last of
        it gave back."""
        records, self._records = self._records, []
        progress, submit = self.repository.progress, self.repository.db.submit
        if not is_waiting:
            submit(progress.record_later, self.number, records)
            return None
        pending = submit(progress.record, self.number, records)
        value = pending.result()
        while self.spent:
            self.spent.pop().remove()
        return value

    # -- waiting, stop and time-outs ---------------------------------------------------

    @contextlib.contextmanager
    def _deadline(self, seconds, scope):
        if seconds is None:
            yield
            return
        self._deadlines.append((self.around.clock.monotonic() + seconds, scope, seconds))
        try:
            yield
        finally:
            self._deadlines.pop()

    def interrupt_if_asked(self, is_between=False):
        """Raises Interrupted for an immediate stop (between tasks for any) or a deadline."""
        if self._stop == IMMEDIATE or self._stop and is_between:
            raise Interrupted("session", STOPPED, self._stop_message)
        now = self.around.clock.monotonic()
        for deadline, scope, seconds in self._deadlines:        # the outermost first
            if deadline <= now:
                raise Interrupted(scope, ERROR, "time-out of the %s after %g s" % (scope, seconds))

    def wait(self, is_over, timeout_s=None, is_between=False):
        """Waits until is_over(), or the time is up; Interrupted after all processes are ended.

        Between tasks a normal stop ends it too.
        """
        until = None if timeout_s is None else self.around.clock.monotonic() + timeout_s
        try:
            with self._changed:
                while not is_over():
                    self.interrupt_if_asked(is_between)
                    now = self.around.clock.monotonic()
                    if until is not None and now >= until:
                        return
                    limits = [deadline for deadline, _, _ in self._deadlines]
                    limits += [] if until is None else [until]
                    self._changed.wait(max(0.0, min(limits) - now) if limits else None)
        except Interrupted as interrupt:
            if self.roots:
                self._sweep(interrupt)
            raise

    def _sweep(self, interrupt):
        """Ends every process of the session; says how many could not be ended."""
        left = Tree(["%s/%d" % (self.repository.db.uuid, self.number)], self.roots).end()
        if left:
            interrupt.message += "; %d of its processes cannot be ended" % left

    def wake(self):
        """Makes wait() look again."""
        with self._changed:
            self._changed.notify_all()

    def _pause(self, seconds):
        """The delay before a retry; any stop ends it."""
        self.flush(is_waiting=False)
        self.wait(lambda: False, seconds, is_between=True)

    def process_ended(self):
        """Its group stays the session's to end while there is something left of it, and no longer:
        the pid may then become another's."""
        self.roots = {pid: started for pid, started in self.roots.items()
                      if _signal(os.killpg, pid, 0)}
