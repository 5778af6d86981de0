"""Looks at the tasks of an engine: what they print, and how they end."""
import base64
import functools

from ..base.program import log
from ..base.vocabulary import QUEUED, RUNNING
from ..tasks.engines import HAS_ENDED, JobState, IS_LOST
from .engine_asking import ENGINE, SPOOL
from .engine_task import EngineEnd, SUBMITTABLE, THERE, UNSURE

STORE_S = 1.0           # how long what was read may take to get on disk, before more is read
AGAIN = 10              # so many looks after the last one a cancellation is sent again


class Looking:
    """Asks the engine for the state of all tasks, then its spool, and ends what is over; for the
    thread of one engine."""

    def __init__(self, asking, driver, spool):
        self._asking, self._driver, self._spool = asking, driver, spool
        self._count = 0

    def see(self, tasks, until):
        """One look at all that may be there -> whether there is more to do at once. `until`,
        monotonic seconds, it may go on to read."""
        self._count += 1
        tasks = [task for task in tasks if task.phase in (UNSURE, THERE) and not task.is_over]
        self._find([task for task in tasks if task.phase == UNSURE])
        there = [task for task in tasks if task.phase == THERE]
        states, is_answered = self._asking.attempt(
            ENGINE, there, self._driver.states, [task.id for task in there]) if there else ({}, 0)
        for task in there if is_answered else ():
            task.note_state(states.get(task.id, JobState(IS_LOST)))
            if self._count % AGAIN == 0:
                task.sent_cancel(False)
        has_more = self._read(tasks, there if is_answered else [], until)
        return has_more or any(task.phase == SUBMITTABLE for task in tasks)

    def _find(self, tasks):
        """Those of which it is not known whether they were submitted."""
        jobs, is_answered = self._asking.attempt(ENGINE, tasks, self._driver.find, [
            task.marker for task in tasks]) if tasks else ({}, False)
        for task in tasks if is_answered else ():
            if jobs.get(task.marker):
                log.info("engine %s has %s as %s", self._asking.name, task.marker,
                         jobs[task.marker][0])
                task.move(THERE, jobs[task.marker][0])
                task.records.take_id(task.id)

    def _read(self, tasks, asked, until):
        """Looks into the spool, again while there is more to read and time, and judges each task ->
        whether there is still more. `asked` are those of which the engine has told the state."""
        wait_s = 0.0
        while tasks and self._asking.now() < until:
            orders = [(task, task.make_order(
                task in asked and task.state.word in (HAS_ENDED, IS_LOST), wait_s))
                      for task in tasks]
            orders = [(task, order) for task, order in orders if order is not None]
            reports, is_answered = self._asking.attempt(
                SPOOL, [task for task, _ in orders], self._spool.read,
                [order for _, order in orders]) if orders else ([], True)
            if not is_answered:
                return False
            tasks, wait_s = [], STORE_S
            for (task, _), report in zip(orders, reports):
                task.take_output(report)
                if report.get("has_more"):
                    tasks.append(task)
                else:
                    self._judge(task, report, task in asked)
        return bool(tasks)

    def _judge(self, task, report, is_asked):
        """What follows from a report on one task: it goes on, or is over."""
        end, state = report.get("end"), task.state
        if task.phase == UNSURE and end is None:
            self._judge_unsure(task, report)
            return
        is_alive = state.word in (QUEUED, RUNNING)
        if end is not None:
            # a signal: the engine may tell soon why it was sent
            is_over = end <= 128 or not (is_asked and is_alive) or task.is_cancelled \
                or task.is_settled()
        elif not is_asked or is_alive:
            is_over = False
        else:
            is_over = task.is_cancelled or task.is_settled()
        if is_over:
            self._end(task, report)

    def _judge_unsure(self, task, report):
        """Nobody has it by its marker: that is believed at the second look. It is submitted again
        when its files are there as they were and it has not begun."""
        if task.is_silent(ENGINE) or not task.is_settled():
            return
        if report.get("is_gone") or report.get("has_begun"):
            self._end(task, report)
        elif task.is_cancelled:
            claimed, _ = self._asking.attempt(SPOOL, [task], functools.partial(
                self._spool.clear, claim=[task.folder]))
            if claimed:                 # should it still come, it does nothing
                task.finish(EngineEnd(error="it was not submitted"))
        else:
            log.info("engine %s does not have %s: it is submitted again", self._asking.name,
                     task.marker)
            task.move(SUBMITTABLE)

    def _end(self, task, report):
        """A task is over: asks for what the engine knows of its end."""
        final, end = task.state, report.get("end")
        if task.id and final.word == IS_LOST and end is None:
            jobs, is_answered = self._asking.attempt(ENGINE, [task], self._driver.find,
                                                     [task.marker])
            others = [job for job in (jobs or {}).get(task.marker, []) if job != task.id]
            if others:                  # what a cut submission had made before
                task.move(THERE, others[0])
                task.records.take_id(others[0])
            if others or not is_answered:
                return
        if task.id and final.word == HAS_ENDED and end != 0:
            final, is_answered = self._asking.attempt(ENGINE, [task], self._driver.end_of, task.id,
                                                      final)
            if not is_answered:
                return
        task.say(base64.b64decode(report.get("engine", "")))
        if task.id and not self._asking.is_away:        # or it is done without
            output, _ = self._asking.attempt(ENGINE, [task], self._driver.output, task.id)
            task.say(output or b"")
        task.finish(task.find_end(report, final))
