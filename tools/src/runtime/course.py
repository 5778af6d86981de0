"""The course of a session, from its ticket to its end: steps, attempts, tasks.

The thread of a slot calls Session.run(). Down to the task all of it are generators: while a task
waits for a commit, a process, a delay or a child, run() is over, and is called again, by any
thread, when that has come.

    its row and definition are read         unreadable: it ends in ERROR, never begun
      |                                     stopped or purged since it was queued: nothing to do
    `begun` is noted, or `adopted`          cannot be now: RepositoryError, it stays outstanding
      |
    Course.run(): secrets, then the steps, each to where the Outcome of the one before leads
      |
      +-- step: its attempts, with a pause between, until one ends well
      |     +-- attempt: noted as begun; its tasks, one after the other
      |           +-- task: noted as begun, and all that was noted is committed, with the first
      |               that the session has begun; then its process starts; its output is handed
      |               over as it comes; its end and its variables are noted
      |
    its end is noted and handed over        the slot is free for the next
      |
    it is committed                         the repository is gone: told in the log alone
      |
    on_end(): what follows an end           the next attempt of its schedule, those who wait for it

What comes from outside goes up this tree as an exception:

    Interrupted         a stop or a time-out: up to the task, step or session that it names. What
                        was under way is ended and noted, with the place where a RESTART goes on.
    Left                SHUTDOWN -LEAVE while a process runs that can be adopted: to the top. The
                        session stays RUNNING on disk, and the next start adopts it: it goes on
                        at the task that was under way, whose runs it continues.
    RepositoryError     nothing can be recorded any more: to the top.
    any other           a fault of the agent's own: the session ends in ERROR.

What is ordinary comes back as an Outcome, from task to attempt to step to session.
"""
import functools
import json
from types import GeneratorType
from typing import NamedTuple, Optional, Tuple

from ..base.vocabulary import ADOPT, DONE, END, ERROR, FAIL, RESERVED_VARIABLES, WARNING
from ..base.errors import AgentError
from ..base.times import to_local
from ..definitions.engines import is_remote
from ..definitions.fields import TASK_TYPES
from ..definitions.kinds import check_size
from ..tasks.task import TaskError, TaskResult, tell_value
from .awaiting import await_flush, await_in_slot
from .control import Interrupted
from .engine_execution import EngineExecution, find_engine, note_engine
from .execution import Execution
from .sources import take_secrets

SEEN_S = 5.0            # a time-out that has come while no agent was there is that much later

class TaskPlace(NamedTuple):
    """A task of the course: the places of its step and of itself, from 0. The runs are given where
    an adopted session goes on with what a lost agent has begun, that of the task also of a place
    where a RESTART goes on."""
    step: int
    task: int = 0
    step_run: Optional[int] = None
    task_run: Optional[int] = None
    since: Tuple[float, ...] = ()   # of what was adopted: when the session, step and task began


class Outcome(NamedTuple):
    """How a task, an attempt, a step or a session ended."""
    status: str                     # DONE, WARNING, ERROR or STOPPED
    message: str = ""               # why, where it is ERROR, STOPPED or false
    place: Optional[TaskPlace] = None   # the task that decided it
    is_false: bool = False          # an evaluate said so: the step goes to its on_false
    warning: str = ""               # of a task that ended in WARNING, whatever came of the rest


class Course:
    """What a session does between its begin and its end."""

    def __init__(self, row, scenario, attempts, control, journal, around):
        self._scenario, self._timeout_s = scenario, row["timeout"]
        self._secret_file, self._has_skipped = row["secret_file"], bool(row["has_skipped"])
        self._control, self._journal, self._around = control, journal, around
        self._progress = journal.repository.progress
        self._values = dict(json.loads(row["variables"]), **own_values(row))
        # by the names of steps: another definition has them in other places
        self._attempts = {step: count for step, (count, _) in attempts.items()}
        # those that ended badly before a RESTART, and were not run again since
        self._bad_steps = dict.fromkeys(step for step, (_, status) in attempts.items()
                                        if status in (WARNING, ERROR))

    def run(self, place):
        """Runs it from a place on -> Outcome. Interrupted, Left, RepositoryError."""
        with self._deadline(self._timeout_s, "session", place):
            try:
                self._values.update(take_secrets(self._scenario, self._secret_file, self._control,
                                                 self._journal, self._around))
            except ValueError as error:
                return Outcome(ERROR, str(error))
            return (yield from self._steps(place))

    def _deadline(self, seconds, scope, place):
        """Control.deadline; of what was adopted it counts from its begin, but what has ended
        meanwhile is seen first."""
        spent_s = 0.0
        if place.since and seconds is not None:
            begun = place.since[("session", "step", "task").index(scope)]
            spent_s = max(0.0, min(self._around.clock.now() - begun, seconds - SEEN_S))
        return self._control.deadline(seconds, scope, spent_s)

    # -- steps -------------------------------------------------------------------------

    def _steps(self, place):
        """Runs step after step, from a place on -> Outcome of the session."""
        # of the newest failure, of the newest evaluate, of what makes WARNING of DONE
        cause = falsehood = warning = ""
        for _ in range(self._scenario.max_steps):
            self._stop_between(place)
            step = self._scenario.steps[place.step]
            # a mere handler: not its failure decides, but the one that led to it
            is_handler = step.on_ok == FAIL and cause != ""
            if place.task < len(step.tasks):
                outcome = yield from self._step(place, step, is_handler)
                self._stop_behind(place, step, outcome)
            else:                       # a RESTART goes on behind its last task
                outcome = Outcome(DONE)
            text = "step %s: %s" % (step.name, outcome.message)
            if outcome.is_false:
                falsehood = text
            elif outcome.status == ERROR and not is_handler:
                cause = text
            if outcome.status == ERROR:
                warning = text
            elif outcome.warning:
                warning = "step %s: %s" % (step.name, outcome.warning)
            target = target_after(step, outcome)
            if target == END:
                warning = warning or self._tell_skip()
                return Outcome(WARNING if warning else DONE, warning)
            if target == FAIL:
                return Outcome(ERROR, cause or falsehood or "step %s ends in FAIL" % step.name)
            place = TaskPlace(self._scenario.step_index(target))
        return Outcome(ERROR, "more than max_steps (%d) steps" % self._scenario.max_steps)

    def _tell_skip(self):
        """On what failed before a RESTART and was not run again, or nothing."""
        if self._bad_steps:
            return "step %s: it ended badly before the restart" % list(self._bad_steps)[-1]
        return "what had failed was skipped at the restart" if self._has_skipped else ""

    def _stop_between(self, place):
        """A normal stop takes effect here; a RESTART goes on at this place."""
        if self._control.has_stop:
            self._note_restart(place)
            self._control.check_stop(is_between=True)

    def _stop_behind(self, place, step, outcome):
        """An immediate stop takes effect here, too. A RESTART goes on behind a step that ended
        well, unless that leads to FAIL, and asks again what was false."""
        try:
            self._control.check_stop()
        except Interrupted:
            if outcome.status != ERROR and target_after(step, outcome) != FAIL:
                self._note_restart(TaskPlace(
                    place.step, outcome.place.task if outcome.is_false else len(step.tasks)))
            raise

    def _note_restart(self, place):
        self._journal.note(self._progress.set_restart, place.step, place.task, place.task_run)

    def _step(self, place, step, is_handler):
        """Runs the attempts of a step, the first from a place on -> Outcome of the last, with the
        newest warning of any. The failure of a mere handler moves no RESTART."""
        delay, warning = step.retry_delay, ""
        for remaining in reversed(range(step.attempts)):
            outcome = yield from self._attempt(place, step)
            warning = outcome.warning or warning
            if outcome.status != ERROR:
                break
            if not is_handler:
                self._note_restart(outcome.place)
            if remaining or step.on_error != FAIL:
                self._control.interrupt_if_asked(is_between=True)
            if remaining:
                yield from self._pause(delay)
                delay = min(delay * step.retry_factor, 1e9)
                place = TaskPlace(place.step)
        return outcome._replace(warning=warning)

    def _pause(self, seconds):
        """A generator: the delay before a retry; any stop ends it."""
        self._journal.flush_later()
        yield from await_in_slot(self._control, lambda: False, seconds, is_between=True)

    def _attempt(self, place, step):
        """Runs the tasks of a step once, from a place on, and notes how that ended -> Outcome."""
        attempt, run = self._attempts.get(step.name, 0), place.step_run
        if run is None:
            attempt += 1
            run = self._journal.note_begin(self._progress.begin_step, place.step, step.name,
                                           attempt)
        self._attempts[step.name] = attempt
        self._bad_steps.pop(step.name, None)
        end = functools.partial(self._journal.note_end, self._progress.end_step, run)
        try:
            with self._deadline(step.timeout, "step", place):
                outcome = yield from self._tasks(place, step, run, attempt)
        except Interrupted as interrupt:
            end(interrupt.status, message=interrupt.message)
            raise
        end(outcome.status, message=outcome.message if outcome.status == ERROR else outcome.warning)
        return outcome

    # -- tasks -------------------------------------------------------------------------

    def _tasks(self, place, step, run, attempt):
        """Runs the tasks of a step, from a place on, until one fails or is false -> Outcome of
        the attempt."""
        outcome, warning = Outcome(DONE), ""
        for index in range(place.task, len(step.tasks)):
            if index > place.task:
                place = TaskPlace(place.step, index)
                self._stop_between(place)
            outcome = yield from self._task(place, step.tasks[index], run, attempt)
            warning = outcome.warning or warning
            if outcome.status == ERROR or outcome.is_false:
                break
        if warning and outcome.status == DONE:
            outcome = outcome._replace(status=WARNING)
        return outcome._replace(warning=warning)

    def _task(self, place, task, step_run, attempt):
        """Runs one task, and notes how it ended -> Outcome. Interrupted: of the session."""
        run, engine = place.task_run, None
        if run is None:
            engine = find_engine(task.fields, self._values["CONTEXT"], self._around)
            run = yield from self._begin_task(place, task, step_run, attempt, engine)
        execution = (EngineExecution if is_remote(task.fields.get("engine")) else Execution)(
            run, self._values, self._control, self._journal, self._around,
            self._scenario.on_stale == ADOPT)
        execution.set_place(engine, self._scenario.secrets)
        result, interrupt = yield from self._work(task, execution, place)
        self._end_task(run, result, *execution.close())
        place = place._replace(task_run=run)
        if interrupt is not None and interrupt.scope != "task":
            self._note_restart(place)
            if interrupt.scope == "session":
                try:
                    raise interrupt
                finally:                # or it would hold itself, by way of this frame
                    interrupt = None
            return Outcome(ERROR, interrupt.message, place)
        message = result.message
        if result.status in (ERROR, WARNING):
            message = "task %d: %s" % (place.task + 1, message)
        return Outcome(result.status, message, place, result.is_false,
                       message if result.status == WARNING else "")

    def _begin_task(self, place, task, step_run, attempt, engine):
        """A generator: notes that a task begins -> the number of its run. That is on disk then,
        unless the task starts no process and can share the commit of the next. RepositoryError."""
        run = self._journal.note_begin(self._progress.begin_task, step_run, place.step, place.task,
                                       task.name or "", task.type, attempt)
        if engine is not None and engine.definition is not None:
            note_engine(self._journal, run, engine.definition, self._around.engines)
        is_instant = getattr(TASK_TYPES[task.type], "is_instant", False)
        if not is_instant or self._journal.is_full:
            yield from await_flush(self._control, self._journal)
        return run

    def _work(self, task, execution, place):
        """Has a task's type do what it does -> (TaskResult, the Interrupted that ended it or
        None). Left."""
        kind, is_resumed = TASK_TYPES[task.type](), place.task_run is not None
        try:
            if not is_resumed:          # then it runs already
                self._around.bounds.check_type(task.type)
            with self._deadline(task.timeout, "task", place):
                result = execution.work(kind, task.fields, is_resumed)
                if isinstance(result, GeneratorType):
                    result = yield from result
                return with_values_told(bounded(result), execution), None
        except Interrupted as interrupt:
            return TaskResult(interrupt.status, execution.exit.rc,
                              message=interrupt.message), interrupt
        except (TaskError, AgentError) as error:
            message = str(error)
        except OSError as error:
            message = "%s: %s" % (error.strerror, error.filename)
        return TaskResult(ERROR, execution.exit.rc, message=message), None

    def _end_task(self, run, result, rows, omitted):
        """Notes the end of a task with the last of its log, and what it gave variables."""
        journal, progress = self._journal, self._progress
        values = {name: journal.mask(value) for name, value in result.values.items()}
        former = {name: self._values[name] for name, value in values.items()
                  if self._values[name] != value and name not in self._scenario.secrets}
        self._values.update(values)
        if rows or omitted:
            journal.note(progress.add_log, run, rows, omitted)
        journal.note_end(progress.end_task, run, result.status, result.rc, result.rows,
                         json.dumps(former) if former else None, message=result.message)
        if result.values:
            journal.note(progress.set_variables, {
                name: value for name, value in self._values.items()
                if name not in RESERVED_VARIABLES and name not in self._scenario.secrets})


def bounded(result):
    """A TaskResult, or one of ERROR where a value is more than a variable takes."""
    for name, value in result.values.items():
        try:
            check_size(value)
        except ValueError as error:
            return result._replace(status=ERROR, message="%s: the value %s" % (name, error),
                                   values={})
    return result


def with_values_told(result, execution):
    """A TaskResult that says what it gave variables, where it says nothing else."""
    if result.message or result.status == ERROR:
        return result
    return result._replace(message=", ".join(
        "%s = %s" % (name, tell_value(value, execution)) for name, value in result.values.items()))


def own_values(row):
    """The RESERVED_VARIABLES of a row of session."""
    due = row["due"] or row["start_at"] or row["created"]
    return {"SESSION": str(row["id"]), "SCENARIO": row["scenario"], "CONTEXT": row["context"],
            "DUE": to_local(due)}


def target_after(step, outcome):
    """Where a Step leads when it has ended so: the name of a step, END or FAIL."""
    if outcome.is_false:
        return step.on_false
    return step.on_error if outcome.status == ERROR else step.on_ok
