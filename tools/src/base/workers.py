"""Threads that begin, or are given up: nobody waits for ever for their begin."""
import threading

BEGIN_S = 2.0           # within which a thread begins, or never


class _Unawaited(threading.Event):
    """Of a Thread: who starts it does not wait here, where it may never come."""

    def wait(self, timeout=None):
        """Waits for nothing."""
        return True


class Worker(threading.Thread):
    """A thread that begins within BEGIN_S once start() has returned, or never.

    Python's own start() waits for ever for a thread that had no memory for its first steps.
    """

    def __init__(self, target, name, *arguments):
        super().__init__(target=target, args=arguments, name=name, daemon=True)
        self._started = _Unawaited()    # the one that start() of Thread waits for, 3.6 to 3.14
        self._decision = threading.Lock()       # for whether it has begun, or is given up
        self._begun, self._is_given_up = threading.Event(), False

    def start(self):
        """Starts it. RuntimeError: the host has no thread to give."""
        try:
            super().start()
        except MemoryError:
            raise RuntimeError("can't start new thread: no memory") from None
        if not self._begun.wait(BEGIN_S):
            with self._decision:
                self._is_given_up = not self._begun.is_set()
        if self._is_given_up:
            raise RuntimeError("can't start new thread: no memory, or no time, to begin")

    def try_start(self):
        """Starts it -> whether the host has a thread to give."""
        try:
            self.start()
        except RuntimeError:
            return False
        return True

    def run(self):
        """Does its work, unless it was given up."""
        with self._decision:
            if not self._is_given_up:
                self._begun.set()
        if not self._is_given_up:
            super().run()


class SlotThread(Worker):
    """A thread that outlives all processes that it starts. What loses the thread that has started
    it counts as an orphan."""


def is_lasting():
    """Whether the current thread is such a one."""
    return isinstance(threading.current_thread(), SlotThread)
