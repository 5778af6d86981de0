"""The queue of sessions and the slots that run them.

Thread slot N: runs one session after the other, each until it is over or waits for what needs no
thread; ends at SessionQueue.join().
"""
import collections
import functools
import threading
import time

from ..base.vocabulary import TRY_S, YIELD_S
from ..base.program import Told, log, tell_traceback
from ..store.admission import Admission
from ..base.workers import SlotThread
from .delays import Delays
from .openlist import OpenList
from .parking import Parking

MAX_ENDING = 256        # sessions more than slots whose end is on its way: then none begins
ACTIVE = 1              # threads that run sessions, as long as none is kept for STALL_S: more would
STALL_S = 0.01          # only wait for each other, as Python lets one go on at a time


class SessionQueue(OpenList):
    """Outstanding sessions in the order that their Admission gives, and the slots that run them."""

    def __init__(self, slots, make, is_flooded, clock):
        self.slots = slots                      # how many sessions at once
        super().__init__()                      # its lock guards all that follows
        self._make = make                       # make(ticket, repository) -> Session
        self._is_flooded = is_flooded           # whether many requests wait for their OK
        self._admission = Admission(slots)      # of numbers: who begins next
        self._clock = clock
        self._again = {}                # number -> Ticket that came before its slot was free
        self._slots = SlotThreads(slots, self._serve, self._changed)
        self._is_closing = False
        self.delays = Delays()          # of sessions that could not begin
        self._resumed = collections.deque()     # of _running, that are to go on in their slots
        self._ending = 0                # of how many of these the end is still to be recorded
        self._max_ending = slots + MAX_ENDING   # all that ran may be of one locked repository
        self._parking = Parking(clock, self._go_on, self._resume)

    def add(self, ticket, repository):
        """Queues a session once; whether a slot is free for it."""
        with self._changed:
            self.later.pop(ticket.session, None)
            running = self._running.get(ticket.session)
            if running and running.repository is not repository:
                repository.set_behind()     # of a file since replaced: when that has ended
            elif running:
                self._again[ticket.session] = ticket
            if self._is_closing or running or ticket.session in self._outstanding:
                return True
            self._outstanding[ticket.session] = ticket, repository, self._clock.monotonic()
            self._admission.add(ticket.session, ticket.priority, ticket.gates(repository),
                                ticket.is_child, ticket.is_plan)
            is_free = self._admission.has_room_for(ticket.session)
            if is_free:                 # otherwise a thread looks for itself when it can
                self._call_thread()
        return is_free

    def start_threads(self):
        """Starts the threads that the host could not give before; nobody else tries meanwhile, for
        each try may take its time."""
        with self._changed:
            self._slots.try_again()
            self._call_thread()

    def _call_thread(self):
        """There may be something for a thread of the slots."""
        self._begin_plans()
        if self._has_due():
            self._slots.call()

    def _begin_plans(self):
        """Begins the plans that may: they take no slot, and no thread but while they go on."""
        while not self._is_closing:
            number = self._admission.take_free()
            if number is None:
                return
            session = self._make_taken(number)
            if session is not None:
                self._parking.begin(session)

    def adopt(self, ticket, repository):
        """A session whose process lives on goes on at once, whatever the limits."""
        with self._changed:
            if self._is_closing or ticket.session in self._running:     # it may have just been left
                return
            session = self._running[ticket.session] = self._make(ticket, repository)
            self._admission.occupy(ticket.session, ticket.gates(repository), ticket.is_plan)
            self._parking.begin(session)

    def hold_gate(self, gate, is_held):
        """Held, no session passes a gate: that of a schedule, or of a repository."""
        with self._changed:
            if self._admission.hold_gate(gate, is_held):
                self._call_thread()

    def find_obstacle(self, number):
        """What keeps an outstanding session from beginning: an Obstacle, or None."""
        with self._changed:
            return self._admission.find_obstacle(number)

    def discard(self, number):
        """A session that will not begin."""
        self.delays.forget(number)
        with self._changed:
            self._outstanding.pop(number, None)
            self._admission.discard(number)
            self.later.pop(number, None)

    def forget(self, repository):
        """What is queued of a repository that was let go is read anew when it comes back."""
        with self._changed:
            owners = dict(self.later)
            owners.update((number, owner) for number, (_, owner, _) in self._outstanding.items())
            for number in [number for number, owner in owners.items() if owner is repository]:
                self.discard(number)

    def hold(self, is_held):
        """Held, nothing begins."""
        with self._changed:
            self._admission.hold(is_held)
            if not is_held:
                self._call_thread()

    def wait_idle(self, timeout_s):
        """Waits until nothing runs; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)

    def close(self):
        """Begins nothing more; running sessions end by themselves."""
        with self._changed:
            self._is_closing = True

    def join(self):
        """Waits for the threads of the slots."""
        self._parking.close()
        self._slots.join()

    def _serve(self):
        """The thread of a slot: one session after the other."""
        while True:
            try:
                with self._changed:
                    session = self._slots.take_turn(self._find_due, self._has_due)
            except Exception as error:  # as when memory is short: the thread stays for others
                log.error("a session cannot begin\n%s", tell_traceback(error))
                time.sleep(TRY_S)
                continue
            if session is None:
                return
            if not session.has_parked:
                give_way(lambda: self._is_flooded() and not self._is_closing)
            try:
                self._run(session)
            except Exception as error:  # likewise; its processes' ends are this thread's to tell
                log.error("session %d\n%s", session.number, tell_traceback(error))
            finally:
                with self._changed:
                    self._slots.end_turn()

    def _run(self, session):
        """Runs a session, until it is over or waits. When it is over its slot is another's, also
        while its end is still to be recorded."""
        if self.delays.run(session, session.run) is False:
            self._lend_slot(session, 1)
            session.park(self._parking)
            return
        with self._changed:     # so its end is written before the begin of who waits for its place
            self.leave(session)
            session.record_end(functools.partial(self.end, session))

    def end(self, session, pending):
        """The end of a session is on disk, or nothing is to be recorded: nothing is to come."""
        try:
            if pending is not None:
                self.delays.run(session, functools.partial(session.follow_end, pending))
        finally:
            with self._changed:
                if self._running.get(session.number) is session:
                    self._forget(session)

    def _forget(self, session):
        """Nothing is to come of a session: another may end, and it may run once more."""
        del self._running[session.number]
        self._ending -= 1
        if not self._running:
            self._changed.notify_all()
        if self._ending == self._max_ending - 1:
            self._call_thread()
        if self.delays.find(session.number):    # only now: who runs is not read again
            session.repository.set_behind()
        again = self._again.pop(session.number, None)
        if again:
            self.add(again, session.repository)

    def _lend_slot(self, session, count):
        """The slot of a session that waits for a child serves another: 1, then -1."""
        if session.lends_slot:
            with self._changed:
                self._admission.lend(count)
                self._call_thread()

    def _go_on(self, session):
        """A session that has parked goes on in this thread, whatever the limits."""
        self._lend_slot(session, -1)
        self._run(session)

    def _resume(self, session):
        """A session that has parked goes on in its slot, by the next thread that is free. It may be
        the writer of its repository that calls this."""
        with self._changed:
            self._resumed.append(session)
            self._slots.wake()

    def _has_due(self):
        """Whether there is something to run in a slot."""
        return bool(self._resumed) or not self._is_closing and self._admission.has_room \
            and self._ending < self._max_ending and self._admission.count_ready() > 0

    def _find_due(self):
        """The Session that is to run now, or None."""
        if self._resumed:
            return self._resumed.popleft()
        return None if self._is_closing else self.take_next()

    def take_next(self):
        """The Session that runs from now on, or None: nothing may begin.

        What a repository in trouble holds back is read from it again when it has recovered.
        """
        with self._changed:
            while True:
                number = self._admission.take() if self._ending < self._max_ending else None
                if number is None:
                    return None
                session = self._make_taken(number)
                if session is not None:
                    return session

    def _make_taken(self, number):
        """The Session that runs from now on of one that was let in, or None: its repository is in
        trouble."""
        ticket, repository, _ = self._outstanding.pop(number)
        try:
            if not (repository.db.trouble or repository.hold):
                self._running[number] = self._make(ticket, repository)
                return self._running[number]
        finally:
            if number not in self._running:
                repository.set_behind()
                self._admission.leave(number)
        return None

    def leave(self, session):
        """The slot of a session and its gates are free."""
        with self._changed:
            self._ending += 1
            # the thread of a slot looks for itself what it can run next
            if self._admission.leave(session.number) or session.is_apart:
                self._call_thread()


class SlotThreads:
    """The threads of the slots: as many as are needed, and as the host has to give.

    ACTIVE of them are active. When there is something to run beside, one more stands guard: where
    no turn begins for STALL_S the others are kept by something, so they count no more until their
    turn is over. All but join() is for who holds the lock, once.
    """

    def __init__(self, most, work, lock):
        self._most, self._work, self._threads, self._lock = most, work, [], lock
        self._is_short, self._told = False, Told()
        self._busy, self._turns = 0, 0          # threads that run a session; begun since the start
        self._active = set()            # of the busy threads those that are not kept
        self._sleepers = []             # a lock for each that sleeps, which wakes it
        self._is_guarded = self._is_joining = False

    def call(self):
        """There may be something to run: a thread looks for it, a new one if all are busy."""
        self._grow()
        self.wake()

    def wake(self):
        """The same, for whoever must neither wait for a thread to start, nor fail by that."""
        if self._sleepers and (len(self._active) < ACTIVE or not self._is_guarded):
            self._sleepers.pop().release()

    def _grow(self):
        """One thread more than are busy. Where the host has no more to give, those that are there
        go on."""
        while not self._is_short and len(self._threads) < min(self._most, self._busy + 1):
            thread = start_thread(self._work, "slot %d" % (len(self._threads) + 1), self._told)
            self._is_short = thread is None
            if thread is not None:
                self._threads.append(thread)

    def _sleep(self, timeout_s=-1):
        """Until one calls, who wakes the one that has slept least, or for so many seconds; whether
        it was called. To wake them in turn costs more: what it needs is still near."""
        bell = threading.Lock()
        bell.acquire()
        self._sleepers.append(bell)
        self._lock.release()
        try:
            bell.acquire(timeout=timeout_s)
        finally:
            self._lock.acquire()
            is_called = bell not in self._sleepers
            if not is_called:
                self._sleepers.remove(bell)
        return is_called

    def try_again(self):
        """The host may have some by now. Until that is said it is not asked once more, as each try
        may take its time."""
        self._is_short = False

    def take_turn(self, find, has_any):
        """Waits until find() gives something to run -> that; None: no thread is needed any more.
        has_any() says whether it would."""
        while True:
            session = find() if len(self._active) < ACTIVE else None
            if session is not None:
                self._active.add(threading.current_thread())
                self._busy += 1
                self._turns += 1
                self._grow()
                if has_any():
                    self.wake()
                return session
            if self._is_joining:
                return None
            if has_any() and not self._is_guarded:
                self._stand_guard()
            else:
                self._sleep()

    def _stand_guard(self):
        """Waits for STALL_S, and sees then whether the active threads are kept by something."""
        turns = self._turns
        self._is_guarded = True
        try:
            is_called = self._sleep(STALL_S)
        finally:
            self._is_guarded = False
        if not is_called and turns == self._turns:
            self._active.clear()

    def end_turn(self):
        """What take_turn() gave to this thread has been run."""
        self._active.discard(threading.current_thread())
        self._busy -= 1

    def join(self):
        """Waits for their end."""
        with self._lock:
            self._is_joining = True
            while self._sleepers:
                self._sleepers.pop().release()
        for thread in self._threads:
            thread.join()


def start_thread(work, name, troubles):
    """A SlotThread that has started, or None: the host has none to give, or no memory for it.
    `troubles`, a Told, has that said once."""
    try:
        thread = SlotThread(work, name)
        is_started = thread.try_start()
    except MemoryError:
        is_started = False
    if troubles.is_new("threads", "" if is_started else "none"):
        log.error("no further thread can be started for sessions")
    return thread if is_started else None


def give_way(is_flooded):
    """Acknowledging goes before beginning: a flood of requests is answered first."""
    for _ in range(int(YIELD_S / 0.01)):
        if not is_flooded():
            return
        time.sleep(0.01)
