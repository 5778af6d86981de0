"""What is to be done after commits, done by a thread of its own: a writer only puts it here.

Thread follow-ups: does what commits bring about; ends at Inbox.close().
"""
import queue
import threading

from ..base.program import log, tell_traceback
from ..base.workers import Worker


class Inbox:
    """Things to be done in their order, each a function and the Pending that it is called with."""

    def __init__(self):
        self._items, self._is_closed = queue.Queue(), False
        self._lock = threading.Lock()       # guards these two
        self._thread = Worker(self._run, name="follow-ups")
        self._thread.start()

    def put(self, function, pending):
        """Has function(pending) called soon. From any thread; waits for nothing. After close() it
        is called here, for a session that outlives the repositories has to be told, too."""
        with self._lock:
            if not self._is_closed:
                self._items.put((function, pending))
                return
        call_after_commit(function, pending)

    def close(self):
        """Ends the thread once everything that was put in before is done."""
        with self._lock:
            self._is_closed = True
            self._items.put((None, None))
        self._thread.join()

    def _run(self):
        while True:
            function, pending = self._items.get()
            if function is None:
                return
            call_after_commit(function, pending)


def call_after_commit(function, pending):
    """function(pending); a fault of it is logged: the commit stands, and others get their turn."""
    try:
        function(pending)
    except Exception as error:
        log.error("after a commit\n%s", tell_traceback(error))
