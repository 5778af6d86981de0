"""A write that is under way, for the one who waits for its commit."""
import threading


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

    Once it is done, on_done(pending) goes into the Inbox.
    """
    __slots__ = ("method", "arguments", "deadline", "is_atomic", "is_lazy", "value", "error",
                 "is_done", "_on_done", "_inbox", "_lock")

    def __init__(self, method, arguments=(), deadline=None, on_done=None, inbox=None):
        self.method, self.arguments, self.deadline = method, arguments, deadline
        self._on_done, self._inbox = on_done, inbox
        self.is_atomic = getattr(method, "is_atomic", False)
        self.is_lazy = getattr(method, "is_lazy", False)
        self.value = self.error = None
        self.is_done = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def finish(self, value=None, error=None):
        """Done, well or badly: called once, by the writer."""
        self.value, self.error, self.is_done = value, error, True
        self._lock.release()
        if self._on_done:
            self._inbox.put(self._on_done, self)

    def result(self):
        """The value once it is on disk; raises what the work or the commit raised."""
        with self._lock:
            pass
        if self.error is not None:
            raise self.error
        return self.value
