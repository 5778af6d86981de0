"""Who may come to be, and who may begin: the ledger, the queue and SCHED PLAN decide it here.

Pure: no clock, no table, no thread.
"""
import heapq
import itertools
from typing import NamedTuple, Optional

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


def repository_gate(repository_id):
    """The gate that all sessions of a repository share."""
    return "repository", repository_id


def list_gates(repository_id, schedule, is_parallel, scenario, limit):
    """[(gate that a session shares with others, how many of them run at once)]: that of its
    scenario, and that of its schedule, where it has one. Who knows no limit counts for those that
    do."""
    gates = [(("scenario", repository_id, scenario), limit or MAX_QUEUE)]
    if schedule:
        gates.insert(0, (schedule_gate(repository_id, schedule), MAX_QUEUE if is_parallel else 1))
    return gates


class Obstacle(NamedTuple):
    """What keeps one that waits from beginning."""
    gate: Optional[tuple]       # None: no slot is free, or nothing may begin
    limit: int                  # how many run there at once
    keys: tuple                 # those that do


class Admission:
    """Who waits for a slot, and who begins next: of those that may the highest priority, of these
    the children of sessions that have begun, then the first that came.

    What runs takes a slot, and a place at each of its gates. Whoever finds a gate full or held
    waits aside for it, and the first there is looked at again when it has a place: so an end costs
    the same however many wait. A key tells one that waits or runs from all others. One that is
    free takes no slot, as a load plan.
    """

    def __init__(self, slots):
        self.slots = slots              # how many run at once
        self._is_held = False           # nothing begins
        self._order = itertools.count()         # of arrival
        # key -> its entry (-priority, whether it is no child, order, key, gates)
        self._waiting = {}
        self._running = {}              # key -> gates
        self._ready = []                # heap of entries; those that wait no more are passed over
        self._ready_free = []           # the same of those that are free
        self._free = set()              # keys that are free
        self._aside = {}                # gate -> {limit: heap of the entries that wait for it}
        self._places = {}               # gate -> [key that runs there]
        self._held = set()              # gates that are held

    @property
    def has_room(self):
        """Whether a slot is free, and nothing is held."""
        return not self._is_held and len(self._running) < self.slots

    def has_room_for(self, key):
        """Whether nothing but its gates keeps a key from beginning."""
        return not self._is_held if key in self._free else self.has_room

    def count_ready(self):
        """How many are to be looked at when there is room."""
        return len(self._ready)

    def add(self, key, priority, gates, is_child=False, is_free=False):
        """A key waits from now on: a higher priority first, then children, then in the order of
        arrival."""
        if is_free:
            self._free.add(key)
        entry = self._waiting[key] = -priority, not is_child, next(self._order), key, gates
        self._push(entry)

    def _push(self, entry):
        """An entry is to be looked at."""
        heapq.heappush(self._ready_free if entry[-2] in self._free else self._ready, entry)

    def discard(self, key):
        """It will not begin, if it waits."""
        if self._waiting.pop(key, None) is not None:
            self._free.discard(key)

    def take(self):
        """The key of the one that runs from now on in a slot, or None: nobody may begin."""
        while self._ready and self.has_room:
            key = self._take_first(self._ready)
            if key is not None:
                return key
        return None

    def take_free(self):
        """The key of one that is free and runs from now on, or None."""
        while self._ready_free and not self._is_held:
            key = self._take_first(self._ready_free)
            if key is not None:
                return key
        return None

    def _take_first(self, ready):
        """Looks at the first of a heap -> its key, which runs from now on, or None."""
        entry = heapq.heappop(ready)
        key, gates = entry[-2:]
        is_waiting = self._waiting.get(key) is entry
        closed = self.find_closed(gates) if is_waiting else None
        if is_waiting and closed is None:
            del self._waiting[key]
            self.occupy(key, gates, key in self._free)
        elif closed is not None:
            gate, limit = closed
            heapq.heappush(self._aside.setdefault(gate, {}).setdefault(limit, []), entry)
        self._look_again(gates)     # the places that it has left are the next's
        return key if is_waiting and closed is None else None

    def occupy(self, key, gates, is_free=False):
        """It runs from now on, whatever the limits."""
        self._running[key] = gates
        if is_free:
            self._free.add(key)
            self.slots += 1
        for gate, _ in gates:
            self._places.setdefault(gate, []).append(key)

    def leave(self, key):
        """It runs no more -> whether another may begin by that, but for the slot itself."""
        gates = self._running.pop(key)
        if key in self._free:
            self._free.discard(key)
            self.slots -= 1
        for gate, _ in gates:
            self._places[gate].remove(key)
            if not self._places[gate]:
                del self._places[gate]
        return self._look_again(gates)

    def find_closed(self, gates):
        """The first of [(gate, limit)] that is full or held, or None."""
        return next((pair for pair in gates if not self._is_open(*pair)), None)

    def find_obstacle(self, key):
        """What keeps one that waits from beginning: an Obstacle, or None."""
        entry = self._waiting.get(key)
        if entry is None:
            return None
        closed = self.find_closed(entry[-1])
        if closed is not None:
            return Obstacle(*closed, keys=tuple(self._places.get(closed[0], ())))
        return None if self.has_room_for(key) else Obstacle(None, self.slots, tuple(self._running))

    def _is_open(self, gate, limit):
        return gate not in self._held and len(self._places.get(gate, ())) < limit

    def _look_again(self, gates):
        """The first of those that wait for a place at these gates is looked at again, where there
        is one -> whether anybody is."""
        count = len(self._ready) + len(self._ready_free)
        for gate, _ in gates:
            heaps = self._aside.get(gate, {})
            for limit in [limit for limit in heaps if self._is_open(gate, limit)]:
                self._push(heapq.heappop(heaps[limit]))
                if not heaps[limit]:
                    del heaps[limit]
            if not heaps:
                self._aside.pop(gate, None)
        return len(self._ready) + len(self._ready_free) > count

    def hold(self, is_held):
        """Held, has_room is false and take() gives None."""
        self._is_held = is_held

    def hold_gate(self, gate, is_held):
        """Held, nobody passes this gate -> whether another may begin by its release."""
        if is_held:
            self._held.add(gate)
            return False
        if gate not in self._held:
            return False
        self._held.discard(gate)
        return self._look_again([(gate, None)])

    def lend(self, count):
        """So many slots more, or with a number below 0 less."""
        self.slots += count
