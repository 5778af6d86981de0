"""How tasks get to an engine, and how they are cancelled there."""
from ..base.errors import AgentError
from ..tasks.engines import Refused
from .engine_asking import ENGINE, SPOOL, SUBMIT
from .engine_task import EngineEnd, FRESH, SUBMITTABLE, THERE, UNSURE

WRITE_AT_ONCE = 200     # tasks whose files are written by one process


class Submitting:
    """Writes the files of new tasks, submits them, and has those cancelled that are no more wanted;
    for the thread of one engine."""

    def __init__(self, asking, driver, spool):
        self._asking, self._driver, self._spool = asking, driver, spool

    def hand_over(self, tasks, until):
        """Submits what is new, until then (monotonic seconds) -> whether there is more to do."""
        for task in tasks:
            if task.is_cancelled and task.phase in (FRESH, SUBMITTABLE):
                task.finish(EngineEnd(error="it was not submitted"))
        new = [task for task in tasks if task.phase == FRESH and not task.is_over]
        for start in range(0, len(new), WRITE_AT_ONCE):
            self._write(new[start:start + WRITE_AT_ONCE])
        ready = [task for task in tasks if task.phase == SUBMITTABLE and not task.is_over]
        while ready and not self._asking.is_away:
            self._submit(ready.pop(0))
            if self._asking.now() >= until:
                break
        if self._asking.is_away and ready:      # a look tells when it is back
            self._asking.fall_silent(ENGINE, ready, "; ".join(sorted(
                {task.silence for task in tasks} - {""})) or "it is away")
        return bool(ready) and not self._asking.is_away

    def _write(self, tasks):
        """Makes the folders of tasks, and notes that they are about to be submitted."""
        faults, is_answered = self._asking.attempt(SPOOL, tasks, self._spool.write, {
            task.marker: task.make_files() for task in tasks})
        if not is_answered:
            return
        for task in tasks:
            if faults[task.marker]:
                task.finish(EngineEnd(error="spool of engine %s: %s" % (
                    self._asking.name, faults[task.marker])))
        for task, pending in [(task, task.records.submit()) for task in tasks if not task.is_over]:
            try:
                pending.result()
                task.move(SUBMITTABLE)
            except AgentError as error:         # its repository cannot be written now
                self._asking.tell(task.marker, "%s waits: %s" % (task.marker, error.message))

    def _submit(self, task):
        """Submits a task; until it has an id it is not known whether it is there."""
        task.move(UNSURE)
        engine_id, _ = self._asking.attempt(SUBMIT, [task], self._get_id, task)
        if engine_id:
            task.note_answer(ENGINE)
            task.move(THERE, engine_id)
            task.records.take_id(engine_id)

    def _get_id(self, task):
        """The id of a task that is submitted, or None: it was refused. NoAnswer."""
        try:
            return self._driver.submit(task.folder + "/script", task.marker)
        except Refused as error:
            task.finish(EngineEnd(error="engine %s refuses it: %s" % (self._asking.name, error)))
            return None

    def cancel(self, tasks):
        """Has the engine cancel what is no more wanted."""
        tasks = [task for task in tasks if task.is_cancelled and task.phase == THERE
                 and not task.is_over and not task.is_cancel_sent]
        if tasks:
            refused, is_answered = self._asking.attempt(ENGINE, tasks, self._driver.cancel,
                                                        [task.id for task in tasks])
            for task in tasks:          # one that could not be told is told again
                task.sent_cancel(is_answered and task.id not in refused)
