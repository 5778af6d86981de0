"""The queue of sessions and the slots that run them.

Thread slot N: runs one session after the other; ends at SessionQueue.close().
Thread adopted N: runs session N, whose process outlived an agent; ends with it.
"""
import collections
import contextlib
import heapq
import itertools
import threading
import time

from ..base.vocabulary import YIELD_S
from ..base.errors import RepositoryError
from ..base.program import log, tell_traceback


class SessionQueue:
    """Outstanding sessions in the order they begin, and the slots that run them.

    A session shares gates with others (its schedule, its scenario's limit): while one is full,
    it waits aside.
    """

    def __init__(self, slots, make, is_flooded):
        self.slots = self._slots = slots        # how many sessions at once; and with those lent
        self._make = make                       # make(ticket, repository) -> Session
        self._is_flooded = is_flooded           # whether many requests wait for their OK
        self._changed = threading.Condition()
        self._ready = []                        # heap of (-priority, order, ticket, repository)
        self._order = itertools.count()
        self._outstanding = set()               # numbers that may begin
        self._later = {}                        # number that waits for its start time -> repository
        self._running = {}                      # number -> Session
        # number -> Ticket that came before its slot was free
        self._again = {}
        self._gates = collections.Counter()     # gate -> how many run in it
        self._aside = {}                        # gate -> entries that wait for it
        self._held = set()                      # gates of schedules that are held
        self._threads, self._adopted = [], []
        self._is_held = self._is_closing = False

    def add(self, ticket, repository):
        """Queues a session once; whether a slot is free for it."""
        with self._changed:
            self._later.pop(ticket.session, None)
            running = self._running.get(ticket.session)
            if running and running.repository is not repository:
                repository.is_behind = True     # of a file since replaced: when that has ended
            elif running:
                self._again[ticket.session] = ticket
            if self._is_closing or running or ticket.session in self._outstanding:
                return True
            self._outstanding.add(ticket.session)
            heapq.heappush(self._ready, (-ticket.priority, next(self._order), ticket, repository))
            is_free = not self._is_held and len(self._running) < self._slots
            if is_free:                 # otherwise a thread looks for itself when it can
                self._ensure_thread()
                self._changed.notify()
        return is_free

    def _ensure_thread(self):
        """A thread for each session that runs or may begin, as far as there are slots."""
        while len(self._threads) < min(self._slots, len(self._running) + len(self._ready)):
            thread = threading.Thread(target=self._serve, daemon=True,
                                      name="slot %d" % (len(self._threads) + 1))
            try:
                thread.start()
            except RuntimeError:        # the host has none to give: those that are there go on
                log.error("no further thread can be started for sessions")
                break
            self._threads.append(thread)
        if self._ready and not self._threads:
            for _, _, ticket, repository in self._ready:
                repository.is_behind = True     # read again, and tried again
                self._outstanding.discard(ticket.session)
            self._ready = []

    def adopt(self, ticket, repository):
        """A session whose process lives on goes on at once, whatever the limits."""
        with self._changed:
            if self._is_closing or ticket.session in self._running:     # it may have just been left
                return
            thread = threading.Thread(target=self._run, args=(self._begin(ticket, repository),),
                                      daemon=True, name="adopted %d" % ticket.session)
            self._adopted.append(thread)
            thread.start()

    def hold_schedule(self, key, is_held):
        """Held, no session of a schedule (repository id, name) begins."""
        with self._changed:
            gate = ("schedule",) + key
            if is_held:
                self._held.add(gate)
            elif gate in self._held:
                self._held.discard(gate)
                self._open(gate)
                self._ensure_thread()
                self._changed.notify_all()

    def _open(self, gate):
        """What waited aside for a gate tries again."""
        for entry in self._aside.pop(gate, ()):
            heapq.heappush(self._ready, entry)

    def put_off(self, number, repository):
        """Notes a session whose start time is to come; False when it was noted before."""
        is_new = self._later.get(number) is not repository
        self._later[number] = repository
        return is_new

    def is_put_off(self, number, repository):
        """Whether a session still waits for its start time."""
        return self._later.get(number) is repository

    def discard(self, number):
        """A session that will not begin."""
        with self._changed:
            self._outstanding.discard(number)
            self._later.pop(number, None)

    def forget(self, repository):
        """What is queued of a repository that was let go is read anew when it comes back."""
        with self._changed:
            for number in [n for n, found in list(self._later.items()) if found is repository]:
                self._later.pop(number, None)
            for entries in [self._ready] + list(self._aside.values()):
                self._outstanding.difference_update(
                    entry[2].session for entry in entries if entry[3] is repository)
                entries[:] = [entry for entry in entries if entry[3] is not repository]
            heapq.heapify(self._ready)

    def find(self, number):
        """The running Session of a number, or None."""
        return self._running.get(number)

    def has(self, number):
        """Whether a session is running or outstanding here."""
        with self._changed:
            return number in self._running or number in self._outstanding or number in self._later

    def list_running(self):
        """The running Sessions."""
        with self._changed:
            return list(self._running.values())

    def counts(self):
        """(running, outstanding)"""
        return len(self._running), len(self._outstanding) + len(self._later)

    def hold(self, is_held):
        """Held, nothing begins."""
        with self._changed:
            self._is_held = is_held
            if not is_held:
                self._ensure_thread()
            self._changed.notify_all()

    @contextlib.contextmanager
    def lent_slot(self):
        """While a session waits for its child, its slot serves another."""
        with self._changed:
            self._slots += 1
            self._ensure_thread()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._slots -= 1

    def wait_idle(self, timeout_s):
        """Waits until nothing runs; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)

    def close(self):
        """Begins nothing more; running sessions end by themselves."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def join(self):
        """Waits for the threads of the slots."""
        for thread in self._threads + self._adopted:
            thread.join()

    def _serve(self):
        while True:
            session = self._take()
            if session is None:
                return
            self._give_way()
            self._run(session)

    def _run(self, session):
        try:
            session.run()
        except RepositoryError as error:
            log.warning("session %d does not begin yet: %s", session.number, error)
            session.repository.is_behind = True
        except Exception as error:
            log.error("session %d\n%s", session.number, session.mask(tell_traceback(error)))
        self._finished(session)

    def _give_way(self):
        """Acknowledging goes before beginning: a flood of requests is answered first."""
        for _ in range(int(YIELD_S / 0.01)):
            if not self._is_flooded() or self._is_closing:
                return
            time.sleep(0.01)

    def _take(self):
        with self._changed:
            while not self._is_closing:
                is_full = len(self._running) >= self._slots     # a lent slot was taken back
                session = None if self._is_held or is_full else self._pop()
                if session:
                    return session
                self._changed.wait()
        return None

    def _pop(self):
        """The next Session that may begin, or None.

        What its schedule holds back waits aside; what a repository in trouble holds back is
        read from it again when it has recovered.
        """
        while self._ready:
            entry = heapq.heappop(self._ready)
            _, _, ticket, repository = entry
            if ticket.session not in self._outstanding:
                continue
            if repository.db.trouble:
                repository.is_behind = True
                self._outstanding.discard(ticket.session)
                continue
            full = next((gate for gate, limit in ticket.gates(repository)
                         if self._gates[gate] >= limit or gate in self._held), None)
            if full:                    # a held schedule is one as well
                self._aside.setdefault(full, []).append(entry)
                continue
            self._outstanding.discard(ticket.session)
            return self._begin(ticket, repository)
        return None

    def _begin(self, ticket, repository):
        """The Session that runs from now on."""
        self._gates.update(gate for gate, _ in ticket.gates(repository))
        session = self._running[ticket.session] = self._make(ticket, repository)
        return session

    def _finished(self, session):
        with self._changed:
            self._running.pop(session.number, None)
            # the thread of a slot looks for itself what it can run next
            is_for_others = not self._running or session.ticket.is_adopted
            for gate, _ in session.ticket.gates(session.repository):
                self._gates[gate] -= 1
                if not self._gates[gate]:
                    del self._gates[gate]
                if gate not in self._held:
                    is_for_others = is_for_others or gate in self._aside
                    self._open(gate)
            if is_for_others:
                self._changed.notify_all()
            again = self._again.pop(session.number, None)
            if again:
                self.add(again, session.repository)
