"""Sessions that wait for what takes long, a process or a child, without a thread.

Thread parking: has those go on that are called, or whose time is over; ends at Parking.close().
Thread parent N: runs sessions that go on whatever the limits, such as those whose child has ended,
each until it is over or waits again; ends when there was none for a second. N counts these threads.
"""
import collections
import heapq
import itertools
import threading
import time

from ..base.vocabulary import TRY_S
from ..base.program import log
from ..base.workers import Worker

SPARE_S = 1.0           # so long a thread waits for the next session that may go on
FEW_TIMES = 64          # so many times that are past may stay


class Parking:
    """Holds sessions that wait, until one is called or has waited as long as it may. Then
    go_on(session) has it go on, in a thread of its own; or, where its slot has one for it,
    resume(session)."""

    def __init__(self, clock, go_on, resume):
        self._clock, self._go_on, self._resume = clock, go_on, resume
        self._changed = threading.Condition()   # guards all that follows
        self._parked = {}               # session -> the number of its wait
        self._called = set()            # of these, those that may go on
        self._times = []                # heap of (monotonic seconds, number of a wait, session)
        self._numbers = itertools.count()
        self._threads = set()           # of those that go on; each takes itself out
        self._free = 0                  # how many of these wait for a session
        self._handed = collections.deque()      # sessions for them
        self._work = threading.Condition(self._changed)         # there are some
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="parking", daemon=True)
        self._thread.start()

    def begin(self, session):
        """Has a session go on that has not run yet."""
        with self._changed:
            self._parked[session] = next(self._numbers)
            self._called.add(session)
            self._changed.notify()

    def put(self, session, until):
        """A session waits from now on, until then at most (monotonic seconds, or None)."""
        self._hold(session, until)
        if session.is_ready():          # it may have been called before
            self.call(session)

    def _hold(self, session, until):
        """A session goes on when it is called, or at that time."""
        with self._changed:
            number = self._parked[session] = next(self._numbers)
            if until is not None:
                self._drop_past()
                heapq.heappush(self._times, (until, number, session))
                if self._times[0][1] == number:
                    self._changed.notify()

    def _drop_past(self):
        """Most that waits long is called long before: its time must not keep it in memory."""
        if len(self._times) > 2 * len(self._parked) + FEW_TIMES:
            self._times = [entry for entry in self._times if self._parked.get(entry[2]) == entry[1]]
            heapq.heapify(self._times)

    def call(self, session):
        """Has a session go on, if it waits."""
        with self._changed:
            if session not in self._parked or session in self._called:
                return
            if not session.is_apart or self._hand(session):
                del self._parked[session]
            else:
                self._called.add(session)
                self._changed.notify()
        if not session.is_apart:
            self._resume(session)

    def _hand(self, session):
        """Gives a session to a thread that waits for one -> whether there is one."""
        if self._free:
            self._free -= 1
            self._handed.append(session)
            self._work.notify()
            return True
        return False

    def close(self):
        """Ends the thread; who still waits does not go on."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
            self._work.notify_all()
        self._thread.join()
        for thread in list(self._threads):
            thread.join()

    def _start(self, session):
        """Has a session go on -> whether the host has a thread, and memory for it."""
        if not session.is_apart:
            self._resume(session)
            return True
        with self._changed:
            if self._hand(session):
                return True
        try:
            thread = Worker(self._serve, "parent %d" % next(self._numbers), session)
            self._threads.add(thread)   # first: close() waits for it
        except MemoryError:
            return False
        is_started = thread.try_start()
        if not is_started:
            self._threads.discard(thread)
        return is_started

    def _serve(self, session):
        """The thread of sessions that go on, one after the other."""
        while session is not None:
            self._go_on(session)
            session = self._wait_handed()
        self._threads.discard(threading.current_thread())

    def _wait_handed(self):
        """The session that a thread has go on next, or None: there was none for a while."""
        with self._changed:
            self._free += 1
            self._work.wait_for(lambda: self._handed or self._is_closing, SPARE_S)
            if self._handed:
                return self._handed.popleft()
            self._free -= 1
        return None

    def _run(self):
        """Thread parking; a fault, as when memory is short, ends it for nobody."""
        while not self._is_closing:
            try:
                for session in self._take():
                    if not self._start(session):
                        log.error("no thread can be started for session %d", session.number)
                        self._hold(session, self._clock.monotonic() + TRY_S)
            except Exception:
                log.exception("sessions that wait")
                time.sleep(TRY_S)

    def _take(self):
        """Waits for sessions that are to go on, and takes them out."""
        with self._changed:
            while not (self._called or self._is_closing):
                now = self._clock.monotonic()
                while self._times and self._times[0][0] <= now:
                    _, number, session = heapq.heappop(self._times)
                    if self._parked.get(session) == number:
                        self._called.add(session)
                if not self._called:
                    self._changed.wait(self._times[0][0] - now if self._times else None)
            ready, self._called = self._called, set()
            for session in ready:
                del self._parked[session]
        return ready
