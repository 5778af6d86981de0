"""Sessions played on a clock of its own, by the decisions that the ledger and the queue make."""
import collections
import functools
import heapq
import itertools

from ..base.times import local_iso
from ..store.admission import Admission, are_met, find_overlap, weigh_limit
from .visits import MAX_VISITS, UNFIT


class Follower:
    """A schedule with `after` in a plan: what it waits for, and its due time that waits. make(due)
    -> Visit, when it has no due times of its own. `met` is {(kind, repository id, name): when};
    until `release` it is held."""

    def __init__(self, repository, schedule, make, met=(), release=0.0):
        self.schedule = repository.id, schedule.name
        self.conditions = [((kind, repository.id, name), within_s)
                           for kind, name, within_s in schedule.list_conditions()]
        self.release = release
        self.make = None if schedule.rule else make
        self._met, self._waiting = dict(met), None

    def wait(self, visit):
        """A due time waits from now on; the one before it does no more."""
        if self._waiting:
            self._waiting.skip("what it runs after had not ended well by the next due time")
        self._waiting = visit

    def meet(self, condition, now):
        """A session of this condition has ended well."""
        self._met[condition] = now

    def take(self, now):
        """[the Visit that may begin since all is met], or []."""
        if now < self.release or not (self.make or self._waiting) \
                or not are_met(self.conditions, self._met, now):
            return []
        visit, self._waiting, self._met = self._waiting or self.make(now), None, {}
        return [visit]


class Play:
    """Visits from their due time to their end, as the agent's slots, the limits of schedules and
    scenarios, and holds let them.

    `holds` are [(gate of a schedule, or None for all, Hold)]; `followers` those in whose turn a
    Visit comes that has to wait for the end of others.
    """

    def __init__(self, slots, begin=0.0, followers=(), holds=()):
        self._admission, self._now = Admission(slots), begin
        self._order = itertools.count()
        # heap of (when, order, what to do then -> Visits that come by it)
        self._events = []
        self._followers = {follower.schedule: follower for follower in followers}
        self._awaiting = collections.defaultdict(list)      # condition -> Followers
        self._stopping = []             # Visits that are stopped at this instant
        self._made = []                 # Visits of Followers that have no due times
        self._count = collections.Counter()     # scenario -> its open sessions
        # schedule -> the Visits of it that run, and that wait, in the order of their coming
        self._running = collections.defaultdict(dict)
        self._waiting = collections.defaultdict(dict)
        for gate, hold in holds:
            self._hold(gate, hold)
        for follower in sorted(followers, key=lambda follower: follower.schedule):
            self._call_at(max(begin, follower.release), self._take, follower)
            for condition, _ in follower.conditions:
                self._awaiting[condition].append(follower)

    def _hold(self, gate, hold):
        """Holds a gate, or all, from the time on that a Hold says, until its release."""
        def change(is_held, _):
            if gate is None:
                self._admission.hold(is_held)
            else:
                self._admission.hold_gate(gate, is_held)
            return []
        if hold.since <= self._now:
            change(True, None)
        else:
            self._call_at(hold.since, change, True)
        if hold.until is not None:
            self._call_at(max(self._now, hold.until), change, False)

    def take_up(self, visits):
        """Sessions that are open when the play begins, in the order of their arrival."""
        for visit in visits:
            self._count[visit.scenario] += 1
            if visit.begin is not None:
                self._admission.occupy(visit, visit.list_gates(), visit.is_plan)
                self._occupy(visit)
                continue
            self._waiting[visit.schedule][visit] = None
            if visit.at > self._now:
                self._call_at(visit.at, self._come_up, visit)
            else:
                self._admission.add(visit, visit.priority, visit.list_gates(),
                                    is_free=visit.is_plan)
        self._begin(self._now)

    def run(self, visits, end):
        """Visits in the order of their times -> these and those of Followers,
        with what becomes of them."""
        within = (visit for visit in visits if visit.at <= end)
        for at, together in itertools.groupby(within, key=lambda visit: max(visit.at, self._now)):
            self._advance(at)
            self._arrive_all((visit for each in together if not each.is_held
                              for visit in self._come_due(each, at)), at)
        self._advance(end)
        self._events.clear()            # what is still to come would hold the play, and be held
        visits = sorted(visits + self._made, key=lambda visit: visit.turn) if self._made else visits
        for visit in visits:
            visit.close()
        return visits

    def _call_at(self, when, function, *arguments):
        heapq.heappush(self._events,
                       (when, next(self._order), functools.partial(function, *arguments)))

    def _advance(self, now):
        """Lets happen what happens until then."""
        while self._events and self._events[0][0] <= now:
            when = self._events[0][0]
            self._arrive_all(self._happen(when), when)

    def _happen(self, when):
        """Yields the Visits that come by what happens at an instant, one thing after the other."""
        while self._events and self._events[0][0] == when:
            yield from heapq.heappop(self._events)[-1](when)

    def _come_due(self, visit, now):
        """What comes with a due time: it, unless that waits for the end of others."""
        follower = self._followers.get(visit.schedule)
        if follower is None:
            return [visit]
        follower.wait(visit)
        return self._take(follower, now)

    def _come_up(self, visit, _):
        """The start time of an open session has come, if that was not replaced."""
        if visit in self._waiting[visit.schedule]:
            self._admission.add(visit, visit.priority, visit.list_gates(), is_free=visit.is_plan)
        return []

    def _take(self, follower, now):
        visits = follower.take(now)
        if follower.make:
            self._made += visits
        return visits

    def _end(self, visit, now):
        """A visit has ended -> what comes by that."""
        if visit in self._stopping or visit not in self._running[visit.schedule]:
            return []                   # it was replaced
        self._leave(visit)
        if visit.outcome == UNFIT or len(self._made) >= MAX_VISITS:
            return []
        followers = {}
        for condition in (("schedule",) + visit.schedule, ("scenario",) + visit.scenario):
            for follower in self._awaiting.get(condition, ()):
                follower.meet(condition, now)
                followers[follower.schedule] = follower
        return [other for schedule in sorted(followers)
                for other in self._take(followers[schedule], now)]

    def _arrive_all(self, visits, now):
        """Visits become sessions, as they come; then begins what may."""
        arrived = []
        for visit in visits:
            self._arrive(visit, now)
            arrived.append(visit)
        for visit in self._stopping:
            self._leave(visit)
        self._stopping = []
        self._begin(now)
        for visit in arrived:
            if visit.begin is None and visit.outcome is None:
                closed = self._admission.find_closed(visit.list_gates())
                visit.note("waits for " + (
                    "a free slot" if not self._admission.has_room_for(visit) else
                    "the limit of its scenario" if closed and closed[0][0] == "scenario" else
                    "the end of the one before"))

    def _arrive(self, visit, now):
        """What becomes of a due time: as Decisions and Arrivals decide it."""
        running, waiting = self._running[visit.schedule], self._waiting[visit.schedule]
        other, replaced = find_overlap(visit.overlap, itertools.chain(
            zip(running, itertools.repeat(True)), zip(waiting, itertools.repeat(False))),
            visit.is_backlog)
        count = self._count[visit.scenario] - len(replaced)
        if other is not None:
            visit.skip("the one due %s %s" % (local_iso(other.due), "still runs"
                                              if other in running else "waits already"))
        elif weigh_limit(visit.limit, visit.on_limit, count) not in ("", "wait"):
            visit.skip("the limit of its scenario, %d" % visit.limit)
        else:
            if running and not replaced:
                visit.overlap_with(next(iter(running)))
            for other in replaced:
                self._replace(other, visit, now)
            self._count[visit.scenario] += 1
            waiting[visit] = None
            self._admission.add(visit, visit.priority, visit.list_gates(), is_free=visit.is_plan)

    def _replace(self, visit, following, now):
        """A visit is stopped for the next due time of its schedule; one that runs is over when all
        that come at this instant have come."""
        if visit in self._stopping:
            return
        visit.replace(following, now)
        if visit in self._running[visit.schedule]:
            self._stopping.append(visit)
        else:
            del self._waiting[visit.schedule][visit]
            self._admission.discard(visit)
            self._count[visit.scenario] -= 1

    def _leave(self, visit):
        del self._running[visit.schedule][visit]
        self._count[visit.scenario] -= 1
        self._admission.leave(visit)

    def _begin(self, now):
        """Begins what may."""
        while True:
            visit = self._admission.take_free() or self._admission.take()
            if visit is None:
                return
            del self._waiting[visit.schedule][visit]
            visit.start(now)
            self._occupy(visit)

    def _occupy(self, visit):
        self._running[visit.schedule][visit] = None
        self._call_at(visit.end, self._end, visit)
