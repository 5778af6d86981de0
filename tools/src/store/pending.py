"""A write that is under way, for the one who waits for its commit."""
import threading

from ..base.program import log


class Pending:
    """One request to a writer: work(connection) -> value inside the shared transaction.

    `then(pending)` is called in the writer's thread after the commit, before `result` returns.
    """
    __slots__ = ("work", "deadline", "then", "is_single", "value", "error", "is_done", "listener",
                 "_lock")

    def __init__(self, work, deadline=None, then=None, is_single=False):
        self.work, self.deadline, self.then = work, deadline, then
        self.is_single = is_single      # writes by one statement, which needs no savepoint
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
