"""What is to be done after commits, done by a thread of its own: a writer only puts it here.

Thread follow-ups: does what commits bring about; ends at Inbox.close().
"""
import queue

from ..base.program import log, tell_traceback
from ..store.pending import Worker


class Inbox:
    """Things to be done in their order, each a function and the Pending that it is called with."""

    def __init__(self):
        self._items = queue.Queue()
        self._thread = Worker(self._run, name="follow-ups")
        self._thread.start()

    def put(self, function, pending):
        """Has function(pending) called soon. From any thread; waits for nothing."""
        self._items.put((function, pending))

    def close(self):
        """Ends the thread once everything that was put in before is done."""
        self._items.put((None, None))
        self._thread.join()

    def _run(self):
        while True:
            function, pending = self._items.get()
            if function is None:
                return
            try:
                function(pending)
            except Exception as error:      # the commit stands, and the others get their turn
                log.error("after a commit\n%s", tell_traceback(error))
