"""The watch over the tasks of an engine: it submits, looks, reads what they print, and cancels.

Thread engine NAME: does all that for one engine, one call after the other, so that five hundred
tasks cost one look every few seconds; ends when there is no task, or at Engines.close().
"""
import json
import os
import threading

from ..base.program import log
from ..base.vocabulary import ENGINE_CALL_S, KILL_S, MARKER
from ..base.workers import Worker
from ..processes.calls import Calls, NoAnswer
from ..tasks.engines import make_driver
from ..tasks.spooling import EngineSpool
from .engine_asking import Asking
from .engine_looking import Looking
from .engine_submitting import Submitting, WRITE_AT_ONCE
from .engine_task import EngineEnd, THERE, UNKNOWN, UNSURE


class Engines:
    """The watches of an agent's engines: one for each definition that has tasks."""

    def __init__(self, clock, bounds, settings):
        self._clock, self._bounds, self._settings = clock, bounds, settings
        # what a command starts that goes on by itself is none of the agent's processes
        self._environment = {name: text for name, text in bounds.surround(os.environ).items()
                             if name != MARKER}
        self._lock = threading.Lock()
        self._watches = {}              # JSON of a definition -> EngineWatch

    def watch(self, engine):
        """The EngineWatch of an engine's definition."""
        key = json.dumps(engine, sort_keys=True)
        with self._lock:
            if key not in self._watches:
                self._watches[key] = EngineWatch(
                    engine, self._clock, self._make_calls, self._settings.engine_look_s,
                    self._settings.engine_patience_s)
            return self._watches[key]

    def _make_calls(self):
        return Calls(self._environment, self._bounds, ENGINE_CALL_S)

    def close(self):
        """Ends the watches; what they are just asking is not waited for very long."""
        with self._lock:
            watches = list(self._watches.values())
        for each in watches:
            each.stop()
        for each in watches:
            each.join()


class EngineWatch:
    """All tasks of one engine, and its thread. Whatever fails for want of an answer is tried again
    at the next look."""

    def __init__(self, engine, clock, make_calls, look_s, patience_s):
        """`patience_s`: how long tasks wait for an answer; None: for ever."""
        self._look_s, self._patience_s = look_s, patience_s
        self._asking = Asking(engine["name"], clock)
        driver = make_driver(engine, make_calls().call)
        self._spool = EngineSpool(engine["spool"], make_calls().call)
        self._submitting = Submitting(self._asking, driver, self._spool)
        self._looking = Looking(self._asking, driver, self._spool)
        self._look_due = 0.0                    # monotonic
        self._changed = threading.Condition()   # guards all that follows
        self._tasks, self._spent = [], []       # [EngineTask], [(folder, on_removed)]
        self._thread, self._has_news, self._is_closing = None, False, False

    @property
    def name(self):
        """That of the engine."""
        return self._asking.name

    # -- for any thread ----------------------------------------------------------------

    def folder_of(self, marker):
        """The folder of a task in the spool."""
        return self._spool.folder_of(marker)

    def post(self, task):
        """Takes a task over. RuntimeError: the host has no thread for it."""
        with self._changed:
            self._ensure_thread()
            self._tasks.append(task)

    def spend(self, folder, on_removed):
        """A folder of the spool is to be deleted; on_removed() then. Where the host has no thread
        for it that is done with the next task."""
        with self._changed:
            self._spent.append((folder, on_removed))
            try:
                self._ensure_thread()
            except RuntimeError as error:
                self._asking.tell("thread", "%s stays for now: %s" % (folder, error))

    def _ensure_thread(self):
        """RuntimeError: the host has none to give."""
        if self._thread is None and not self._is_closing:
            thread = Worker(self._run, name="engine " + self.name)
            self._thread = thread       # it waits for the lock until all is in place
            try:
                thread.start()
            except RuntimeError:
                self._thread = None
                raise
        self._has_news = True
        self._changed.notify()

    def wake(self):
        """Something has changed that it is to see soon."""
        with self._changed:
            self._has_news = True
            self._changed.notify()

    def stop(self):
        """Has the thread end."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()

    def join(self):
        """Waits for that, but not for a call that hangs."""
        thread = self._thread
        if thread is not None:
            thread.join(KILL_S)

    # -- its thread --------------------------------------------------------------------

    def _run(self):
        while self._wait():
            try:
                self.turn()
            except Exception:           # a fault of the agent's own, or memory is short
                log.exception("engine %s", self.name)
                with self._changed:
                    self._changed.wait(self._look_s)

    def _wait(self):
        """Waits until there is something to do; whether the thread is to go on."""
        with self._changed:
            wait_s = self._look_due - self._asking.now()
            if wait_s > 0 and not (self._has_news or self._is_closing):
                self._changed.wait(wait_s)
            self._has_news = False
            is_over = self._is_closing or not (self._tasks or self._spent)
            if is_over:
                self._thread = None
            return not is_over

    def turn(self):
        """Does all that is due now."""
        with self._changed:
            tasks = list(self._tasks)
        is_unfinished = self._submitting.hand_over(
            tasks, max(self._look_due, self._asking.now() + self._look_s))
        self._submitting.cancel(tasks)
        if self._asking.now() >= self._look_due:
            has_more = self._looking.see(tasks, self._asking.now() + self._look_s)
            self._clear()
            self._look_due = self._asking.now() + (0.0 if has_more else self._look_s)
            is_unfinished = has_more or is_unfinished
        self._give_up(tasks)
        with self._changed:
            self._tasks = [task for task in self._tasks if not task.is_over]
            self._has_news = self._has_news or is_unfinished

    def _give_up(self, tasks):
        """Those for which there was no answer longer than may be end."""
        for task in tasks:
            if not task.is_over and task.has_waited(self._patience_s, self._asking.now()):
                text = "engine %s has not answered for %g s: %s" % (
                    self.name, self._patience_s, task.silence)
                is_there = task.phase in (UNSURE, THERE)
                task.finish(EngineEnd(error="%s: %s" % (UNKNOWN, text) if is_there else text,
                                      is_given_up=is_there))

    def _clear(self):
        """Deletes the folders of what is over."""
        with self._changed:
            spent = self._spent[:WRITE_AT_ONCE]
        if not spent:
            return
        try:
            self._spool.clear(remove=[folder for folder, _ in spent])
        except NoAnswer as error:
            self._asking.tell("clear", "what is over is not deleted yet: %s" % error)
            return
        for _, on_removed in spent:
            on_removed()
        with self._changed:
            self._spent = [each for each in self._spent if each not in spent]
