"""How a task waits: for what the host cannot give now, for a time, for a call that may block."""
from ..base.controls import one_line
from ..base.program import log
from ..base.vocabulary import TRY_S
from .awaiting import await_in_slot


class TaskWaits:
    """The waiting of one task, which its session's Control ends."""

    def __init__(self, control, journal):
        self._control, self._journal = control, journal
        self._is_told = False           # that it waits for what cannot be done now

    def wait(self, seconds):
        """A generator that waits without a thread; an immediate stop and time-outs end it."""
        yield from await_in_slot(self._control, lambda: False, seconds)

    def call(self, function, interrupt=None):
        """Control.call: function() where the session can be interrupted meanwhile -> its value."""
        return self._control.call(function, interrupt, lambda: self._tell("no thread to give"))

    def complete(self, steps):
        """Runs a generator that waits without a thread, in this one -> its value."""
        while True:
            try:
                waiting = next(steps)
            except StopIteration as stop:
                return stop.value
            self._control.linger(waiting)

    def _once_it_can(self, work, can_pass):
        """A generator that waits without a thread: work(), tried again while what it raises is
        passing -> its value. What else it raises; Interrupted."""
        while True:
            try:
                return work()
            except Exception as error:
                if not can_pass(error):
                    raise
                self._tell(error)
            yield from await_in_slot(self._control, lambda: False, TRY_S)

    def _tell(self, error):
        """Says in the log, once, what it waits for."""
        if not self._is_told:
            self._is_told = True
            log.warning("session %d waits: %s", self._journal.session,
                        self._journal.mask(one_line(error)))
