"""Asking an engine, or its spool: what comes of no answer."""
from ..base.program import Told, log
from ..processes.calls import NoAnswer

SPOOL, SUBMIT, ENGINE = "spool", "submit", "engine"     # what may not answer


class Asking:
    """Asks on behalf of EngineTasks, for the thread of one engine: those wait for which there was
    no answer, and are told so; it is in the log once."""

    def __init__(self, name, clock):
        self.name = name                # of the engine
        self.is_away = False            # it did not answer when it was asked last
        self._clock, self._told = clock, Told()

    def now(self):
        """Monotonic seconds."""
        return self._clock.monotonic()

    def attempt(self, kind, tasks, work, *arguments):
        """work(*arguments) of a kind for these tasks -> (its value, True), or (None, False) when
        there is no answer: they wait."""
        try:
            value = work(*arguments)
        except NoAnswer as error:
            self.fall_silent(kind, tasks, str(error))
            return None, False
        for task in tasks:
            task.note_answer(kind)
        if kind != SPOOL:
            self.is_away = False
        self._told.is_new(kind, "")
        return value, True

    def fall_silent(self, kind, tasks, text):
        """There was no answer for these tasks."""
        for task in tasks:
            task.fall_silent(kind, text, self._clock.now(), self.now())
        if kind != SPOOL:
            self.is_away = True
        self.tell(kind, "does not answer: " + text)

    def tell(self, key, text):
        """Says something in the log, if it has not just been said."""
        if self._told.is_new(key, text):
            log.warning("engine %s %s", self.name, text)
