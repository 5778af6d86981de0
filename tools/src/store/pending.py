"""A write that is under way, for the one who waits for its commit."""
import threading

from ..base.program import log


def atomic(method):
    """Says of a writing method that it changes by one statement alone, so it needs no savepoint."""
    method.is_atomic = True
    return method


def lazy(method):
    """Says of a writing method that nobody waits for it, so it may wait for company."""
    method.is_lazy = True
    return method


class Pending:
    """One request to a writer: method(connection, *arguments) inside the shared transaction.

    `then(pending)` is called in the writer's thread after the commit, before `result` returns.
    """
    __slots__ = ("method", "arguments", "deadline", "then", "is_atomic", "is_lazy", "value",
                 "error", "is_done", "listener", "_lock")

    def __init__(self, method, arguments=(), deadline=None, then=None):
        self.method, self.arguments, self.deadline, self.then = method, arguments, deadline, then
        self.is_atomic = getattr(method, "is_atomic", False)
        self.is_lazy = getattr(method, "is_lazy", False)
        self.listener = None            # called without arguments once its batch is answered
        self.value = self.error = None
        self.is_done = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def finish(self, value=None, error=None):
        """Done, well or badly: called once, by the writer."""
        self.value, self.error, self.is_done = value, error, True
        if self.then:
            try:
                self.then(self)
            except Exception:               # the commit stands whatever a callback does
                log.exception("after a commit")
        self._lock.release()

    def result(self):
        """The value once it is on disk; raises what the work or the commit raised."""
        with self._lock:
            pass
        if self.error is not None:
            raise self.error
        return self.value
