"""Threads that start processes: what hangs on a mount hangs one of them, and the others go on.

Thread starter N: starts one process after the other; ends at Starters.close(). The processes that
it has started count as orphans when it ends before them (`reap_orphans`), so it stays.
"""
import errno
import itertools
import os
import queue
import threading

from ..base.workers import Worker
from .programs import Programs


class Starters:
    """As many threads as were ever busy at once."""

    def __init__(self):
        self.programs = Programs()      # that they have found
        self._jobs, self._numbers = queue.Queue(), itertools.count(1)
        self._lock = threading.Lock()   # for the next two
        self._free, self._is_closing = 0, False     # how many have nothing to do

    def run(self, job):
        """Has job() called soon. OSError: there is no thread for it."""
        with self._lock:
            if self._free:
                self._free -= 1
                self._jobs.put(job)
                return
            thread = Worker(self._serve, "starter %d" % next(self._numbers), job)
            if not thread.try_start():
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _serve(self, job):
        while job is not None:
            job()
            del job                     # or it would keep what it had until the next
            with self._lock:
                if self._is_closing:
                    return
                self._free += 1
            job = self._jobs.get()

    def close(self):
        """Ends the threads; one that hangs is left behind."""
        with self._lock:
            self._is_closing = True
            for _ in range(self._free):
                self._jobs.put(None)
