"""Who may come to be, and who may begin: the ledger, the queue and SCHED PLAN decide it here.

Pure: no clock, no table, no thread.
"""
import collections
import heapq
import itertools

from ..base.vocabulary import MAX_QUEUE


def find_overlap(overlap, sessions, is_backlog=False):
    """What a due time does while sessions of its schedule are open -> (the one for which it makes
    none, or None; those that end for it).

    `sessions` yields (session, whether it has begun), the oldest first. `is_backlog`: one of many
    that were missed, which waits however many wait already.
    """
    if overlap == "stop":
        return None, [session for session, _ in sessions]
    if overlap == "skip":
        return next((session for session, _ in sessions), None), []
    if overlap == "queue" and not is_backlog:
        return next((session for session, is_begun in sessions if not is_begun), None), []
    return None, []


def weigh_limit(limit, on_limit, count):
    """What the limit of its scenario makes of a new session, while so many of it are open: nothing
    (""), or its `on_limit`: wait, error, skip. A limit of None is none."""
    return "" if limit is None or count < limit else on_limit


def are_met(conditions, met, now):
    """Whether all of [(condition, how many seconds it counts or None)] are met; `met` has when each
    was last, epoch seconds."""
    return all(met.get(condition) is not None
               and (not within_s or met[condition] >= now - within_s)
               for condition, within_s in conditions)


def schedule_gate(repository_id, name):
    """The gate that the sessions of a schedule share."""
    return "schedule", repository_id, name


def list_gates(repository_id, schedule, is_parallel, scenario, limit):
    """[(gate that a session shares with others, how many of them run at once)]: that of its
    scenario, and that of its schedule, where it has one. Who knows no limit counts for those that
    do."""
    gates = [(("scenario", repository_id, scenario), limit or MAX_QUEUE)]
    if schedule:
        gates.insert(0, (schedule_gate(repository_id, schedule), MAX_QUEUE if is_parallel else 1))
    return gates


class Admission:
    """Who waits for a slot, and who begins next: of those that may the highest priority, then the
    first that came.

    What runs takes a slot, and a place at each of its gates. Whoever finds a gate full or held
    waits aside for it, and the first there is looked at again when it has a place: so an end costs
    the same however many wait. A key tells one that waits or runs from all others.
    """

    def __init__(self, slots):
        self.slots = slots              # how many run at once
        self._is_held = False           # nothing begins
        self._order = itertools.count()         # of arrival
        # key -> its entry (-priority, order, key, gates)
        self._waiting = {}
        self._running = {}              # key -> gates
        self._ready = []                # heap of entries; those that wait no more are passed over
        self._aside = {}                # gate -> {limit: heap of the entries that wait for it}
        self._places = collections.Counter()    # gate -> how many run there
        self._held = set()              # gates that are held

    @property
    def has_room(self):
        """Whether a slot is free, and nothing is held."""
        return not self._is_held and len(self._running) < self.slots

    def count_ready(self):
        """How many are to be looked at when there is room."""
        return len(self._ready)

    def add(self, key, priority, gates):
        """A key waits from now on: a higher priority first, then in the order of arrival."""
        entry = self._waiting[key] = -priority, next(self._order), key, gates
        heapq.heappush(self._ready, entry)

    def discard(self, key):
        """It will not begin, if it waits."""
        self._waiting.pop(key, None)

    def take(self):
        """The key of the one that runs from now on, or None: nobody may begin."""
        while self._ready and self.has_room:
            entry = heapq.heappop(self._ready)
            _, _, key, gates = entry
            is_waiting = self._waiting.get(key) is entry
            closed = self.find_closed(gates) if is_waiting else None
            if is_waiting and closed is None:
                del self._waiting[key]
                self.occupy(key, gates)
            elif closed is not None:
                gate, limit = closed
                heapq.heappush(self._aside.setdefault(gate, {}).setdefault(limit, []), entry)
            self._look_again(gates)     # the places that it has left are the next's
            if is_waiting and closed is None:
                return key
        return None

    def occupy(self, key, gates):
        """It runs from now on, whatever the limits."""
        self._running[key] = gates
        self._places.update(gate for gate, _ in gates)

    def leave(self, key):
        """It runs no more -> whether another may begin by that, but for the slot itself."""
        gates = self._running.pop(key)
        self._places.subtract(gate for gate, _ in gates)
        for gate, _ in gates:
            if not self._places[gate]:
                del self._places[gate]
        return self._look_again(gates)

    def find_closed(self, gates):
        """The first of [(gate, limit)] that is full or held, or None."""
        return next((pair for pair in gates if not self._is_open(*pair)), None)

    def _is_open(self, gate, limit):
        return self._places[gate] < limit and gate not in self._held

    def _look_again(self, gates):
        """The first of those that wait for a place at these gates is looked at again, where there
        is one -> whether anybody is."""
        count = len(self._ready)
        for gate, _ in gates:
            heaps = self._aside.get(gate, {})
            for limit in [limit for limit in heaps if self._is_open(gate, limit)]:
                heapq.heappush(self._ready, heapq.heappop(heaps[limit]))
                if not heaps[limit]:
                    del heaps[limit]
            if not heaps:
                self._aside.pop(gate, None)
        return len(self._ready) > count

    def hold(self, is_held):
        """Held, has_room is false and take() gives None."""
        self._is_held = is_held

    def hold_gate(self, gate, is_held):
        """Held, nobody passes this gate -> whether another may begin by its release."""
        if is_held:
            self._held.add(gate)
            return False
        self._held.discard(gate)
        return self._look_again([(gate, None)])

    def lend(self, count):
        """So many slots more, or with a number below 0 less."""
        self.slots += count
