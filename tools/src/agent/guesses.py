"""Wrong passwords: what they cost those who give them, and in which thread they are found out.

Thread passwords: compares and hashes them one at a time; ends at PasswordDesk.close().
"""
import collections
import queue
import threading

from ..base.errors import Busy, Stopping
from ..base.hashes import hash_password, is_password
from ..base.program import log
from ..base.workers import Worker
from ..store.pending import Pending

FREE_FAILURES = 4       # wrong passwords that cost nothing
MAX_DELAY_S = 30.0      # the longest time until a source may try again
FORGET_S = 900.0        # so long after the last one wrong passwords are forgotten
MAX_REMEMBERED = 1000   # users, and sources, of whom they are remembered: those of the newest
MAX_WAITING = 64        # passwords that wait to be compared or hashed
MAX_WAITING_OF_ONE = 8  # of these, of one source
NO_MEMORY = "the host lacks the memory to hash a password"


class Guesses:
    """Counts wrong passwords by source (address and OS user) and by user.

    A source that has given one has to wait before its next, the longer the more it, or all sources
    together for that user, have given. One that has given none waits for nothing: so nobody can
    lock out a user who comes from elsewhere.
    """

    def __init__(self, clock):
        self._clock, self._lock = clock, threading.Lock()
        self._of_sources = collections.OrderedDict()    # source -> (how many, when the last)
        self._of_users = collections.OrderedDict()      # name -> the same

    def check(self, source, name):
        """Busy: this source has to wait."""
        now = self._clock.monotonic()
        with self._lock:
            count, last = self._look(self._of_sources, source, now)
            if count:
                most = max(count, self._look(self._of_users, name, now)[0])
                wait_s = last + find_delay(most) - now
                if wait_s > 0:
                    raise Busy("too many wrong passwords; try again in %d s" % (wait_s + 1))

    def note(self, source, name):
        """A source has given a wrong password for a user, or for a name that none has."""
        now = self._clock.monotonic()
        with self._lock:
            for counts, key in ((self._of_sources, source), (self._of_users, name)):
                counts[key] = self._look(counts, key, now)[0] + 1, now
                counts.move_to_end(key)
                if len(counts) > MAX_REMEMBERED:
                    counts.popitem(last=False)

    @staticmethod
    def _look(counts, key, now):
        count, last = counts.get(key, (0, now))
        return (0, now) if now - last > FORGET_S else (count, last)


def find_delay(count):
    """How long a source waits after so many wrong passwords: 1 s, twice that, up to
    MAX_DELAY_S."""
    return min(MAX_DELAY_S, 2.0 ** min(count - FREE_FAILURES - 1, 10)) \
        if count > FREE_FAILURES else 0.0


class PasswordDesk:
    """Compares and hashes passwords in one thread, which is all that guessing can keep busy."""

    def __init__(self):
        self._waiting, self._lock = queue.Queue(), threading.Lock()
        self._counts = collections.Counter()    # source -> of it wait, or are at it, so many
        self._thread = None
        self._is_closed = False

    def is_right(self, source, password, stored):
        """Whether a password is that of a stored text; what cannot be compared is not. Busy."""
        return self._ask(source, compare, password, stored)

    def make_hash(self, source, password):
        """A password -> the text to be stored. Busy."""
        return self._ask(source, make_hash, password)

    def _ask(self, source, method, *arguments):
        """Has the thread do it, and waits for that."""
        pending = Pending(method, arguments)
        with self._lock:
            if self._is_closed:
                raise Stopping("the agent is stopping and compares no passwords")
            if sum(self._counts.values()) >= MAX_WAITING \
                    or self._counts[source] >= MAX_WAITING_OF_ONE:
                raise Busy("too many passwords wait to be compared; try again")
            if self._thread is None:
                thread = Worker(self._run, name="passwords")
                if not thread.try_start():
                    raise Busy("the host has no thread to compare passwords")
                self._thread = thread
            self._counts[source] += 1
            self._waiting.put(pending)
        try:
            return pending.result()
        finally:
            with self._lock:
                self._counts[source] -= 1
                if not self._counts[source]:
                    del self._counts[source]

    def _run(self):
        """Thread passwords."""
        while True:
            pending = self._waiting.get()
            if pending is None:
                return
            pending.perform()

    def close(self):
        """Ends the thread after all that was put in."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            self._waiting.put(None)
        if thread is not None:
            thread.join()


def compare(password, stored):
    """is_password(), and no where this host cannot tell, which the log says."""
    try:
        return is_password(password, stored)
    except ValueError as error:
        log.warning("%s; USERS SET -RESET gives another one", error)
        return False
    except MemoryError:
        raise Busy(NO_MEMORY) from None


def make_hash(password):
    """hash_password(). Busy: the host lacks the memory."""
    try:
        return hash_password(password)
    except (ValueError, MemoryError):
        raise Busy(NO_MEMORY) from None
