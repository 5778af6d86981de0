"""A period played against the limits: what would overlap, queue, be skipped, never fit."""
import collections
import functools
import heapq
import itertools

from ..base.vocabulary import MAX_QUEUE
from ..base.times import local_iso
from .entry import Entry, Missed, ON_HOLD
from .preview import find_release, list_earliest
from .visits import (MAX_VISITS, OVERLAPS, QUEUES, SKIPS, STARTS, UNFIT, list_held, list_visits,
                     open_visit, visit_maker)


class Forecast:
    """What a plan is made of: due times, and for a period that is to come what is open now,
    and which conditions are met."""

    def __init__(self, agent, period):
        self._agent, self._period = agent, period
        self._is_past = period.begin < period.now       # played from an empty start
        self._begin = min(period.begin, period.now)
        self._followers, self._open = [], []

    def list_streams(self, repository, schedules):
        """Yields the Visits of one of the StoredSchedules of a repository after the other; what is
        open is taken up last."""
        with repository.db.reading() as connection:
            durations = repository.views.get_durations(connection)
            opened = [] if self._is_past else repository.views.list_open(connection, self._agent)
            met = [] if self._is_past else repository.schedules.list_met(connection)
        conditions, releases = collections.defaultdict(dict), {}
        for schedule, kind, name, ended in met:
            conditions[schedule][kind, repository.id, name] = ended
        for stored in schedules:
            schedule = stored.schedule
            if schedule.agent != self._agent:
                continue
            release, note = find_release(self._period.hold, stored.hold)
            if stored.hold:
                releases[schedule.name] = release
            if stored.timetable is not None and schedule.enabled:
                yield self._list_visits(
                    repository, stored, durations.get(schedule.scenario),
                    conditions.get(schedule.name, {}), release, note)
        release, _ = find_release(self._period.hold)
        self._open += [open_visit(repository, session, durations.get(session.scenario),
                                  self._begin, releases.get(session.ticket.schedule, release))
                       for session in opened]

    def _list_visits(self, repository, stored, duration, met, release, note):
        """The Visits of a schedule, in order; what it runs after is kept in mind."""
        schedule, begin, end = stored.schedule, self._period.begin, self._period.end
        if not self._is_past:
            if begin == self._begin:    # what jitter delays is still to come
                begin -= schedule.get("jitter")
            begin = max(begin, stored.decided + 0.001)
        make = visit_maker(repository, schedule, duration, stored.timetable)
        if schedule.get("after"):
            self._followers.append(Follower(repository, schedule, make, met, release))
        visits = list_visits(make, stored.timetable, begin, end)
        if note:
            visits = list_held(make, Entry(repository, stored, Missed(release, *ON_HOLD)),
                               begin, end, release, note)
        waiting = None if self._is_past else stored.waiting
        return itertools.chain([make(waiting)] if waiting else [], visits)

    def play(self, streams):
        """Plays what list_streams has given of all repositories, as Schedules.plan says."""
        begin, end = self._period.begin, self._period.end
        visits = list(list_earliest(streams, MAX_VISITS + 1, lambda visit: visit.due))
        if len(visits) > MAX_VISITS:
            end = max(begin, visits.pop().due)
        plan = Plan(self._period.slots, self._followers, self._begin)
        plan.take_up(self._open)
        visits = plan.play(sorted(visits, key=lambda visit: visit.at), end)
        return end, [visit for visit in visits
                     if visit.due >= begin or visit.begin is None or visit.begin >= begin]


class Follower:
    """A schedule with `after` in a plan: what it waits for, and its due time that waits. make(due)
    -> Visit, when it has no due times of its own. `met` is {(kind, repository id, name): when}."""

    def __init__(self, repository, schedule, make, met=(), release=0.0):
        self.schedule = repository.id, schedule.name
        self.conditions = {(kind, repository.id, name): within_s
                           for kind, name, within_s in schedule.list_conditions()}
        self.release = release          # until then it is held
        self.make = None if schedule.rule else make
        self._met, self._waiting = dict(met), None

    def wait(self, visit):
        """A due time waits from now on; the one before it does no more."""
        if self._waiting:
            self._waiting.skip("what it runs after had not ended well by the next due time")
        self._waiting = visit

    def meet(self, key, now):
        """A session of this key has ended well."""
        self._met[key] = now

    def take(self, now):
        """[the Visit that may begin since all is met], or []."""
        if now < self.release or not (self.make or self._waiting) or not all(
                key in self._met and now - self._met[key] <= (within_s or now)
                for key, within_s in self.conditions.items()):
            return []
        visit, self._waiting, self._met = self._waiting or self.make(now), None, {}
        return [visit]


class Plan:
    """Plays sessions against the slots of the agent and the limits of schedules and scenarios."""

    def __init__(self, slots, followers=(), begin=0.0):
        self._free, self._now = slots, begin
        self._followers = {follower.schedule: follower for follower in followers}
        self._awaiting = collections.defaultdict(list)      # condition -> Followers
        self._made = []                 # visits of followers that have no due times
        # heap of (when, order, what to do then -> visits that come by it)
        self._events = []
        # heaps of (-priority, order, Visit); gate -> what waits for it
        self._ready, self._aside = [], {}
        self._busy = collections.Counter()      # gate -> how many run in it
        self._open = collections.Counter()      # scenario -> its sessions, those that wait too
        self._of = {}                   # schedule -> ({order: Visit} that run, and that wait)
        self._order = itertools.count()         # that of arrival
        for follower in followers:
            self._call_at(max(begin, follower.release), self._take, follower)
            for condition in follower.conditions:
                self._awaiting[condition].append(follower)

    def take_up(self, visits):
        """Sessions that are open when the play begins, in the order of their creation."""
        for visit in visits:
            self._open[visit.scenario] += 1
            self._of.setdefault(visit.schedule, ({}, {}))
            if visit.begin is not None:
                self._occupy(next(self._order), visit)
            elif visit.at <= self._now:
                self._wait(visit)
            else:
                order = next(self._order)
                self._of[visit.schedule][1][order] = visit
                self._call_at(visit.at, self._come_up, order, visit)
        self._begin(self._now)

    def play(self, visits, end):
        """Visits in the order of their times -> these and those of followers,
        with what becomes of them."""
        for at, together in itertools.groupby(visits, key=lambda visit: max(visit.at, self._now)):
            self._advance(at)
            self._arrive_all([visit for each in together if not each.is_held
                              for visit in self._come_due(each, at)], at)
        self._advance(end)
        # what is still to come would hold the plan, and be held by it
        self._events.clear()
        visits = sorted(visits + self._made, key=lambda visit: visit.at) if self._made else visits
        for visit in visits:
            if visit.begin is None and visit.end is None and visit.outcome != SKIPS:
                visit.outcome = UNFIT
                visit.notes.append("has not begun by the end of the period")
        return visits

    def _call_at(self, when, function, *arguments):
        heapq.heappush(self._events,
                       (when, next(self._order), functools.partial(function, *arguments)))

    def _advance(self, now):
        while self._events and self._events[0][0] <= now:
            when, following = self._events[0][0], []
            while self._events and self._events[0][0] == when:
                following += heapq.heappop(self._events)[-1](when)
            self._arrive_all(following, when)

    def _come_due(self, visit, now):
        """What comes with a due time: it, unless that waits for the end of others."""
        follower = self._followers.get(visit.schedule)
        if follower is None:
            return [visit]
        follower.wait(visit)
        return self._take(follower, now)

    def _come_up(self, order, visit, now):
        """The start time of an open session has come, or the release of what holds it."""
        if self._of[visit.schedule][1].pop(order, None):
            self._wait(visit)
        return []

    def _take(self, follower, now):
        visits = follower.take(now)
        if follower.make:
            self._made += visits
        return visits

    def _end(self, order, visit, now):
        """A visit has ended -> what comes by that."""
        if order not in self._of[visit.schedule][0]:        # it was replaced
            return []
        self._leave(order, visit)
        if visit.outcome == UNFIT or len(self._made) >= MAX_VISITS:
            return []
        met = [(follower, key) for key in (("schedule",) + visit.schedule,
                                           ("scenario",) + visit.scenario)
               for follower in self._awaiting.get(key, ())]
        for follower, key in met:
            follower.meet(key, now)
        return [visit for follower, _ in met for visit in self._take(follower, now)]

    def _arrive_all(self, visits, now):
        for visit in visits:
            self._arrive(visit, now)
        self._begin(now)
        for visit in visits:
            if visit.begin is None and visit.outcome is None:
                full = self._find_full(visit)
                visit.notes.append("waits for " + (
                    "a free slot" if self._free <= 0 else "the limit of its scenario"
                    if full and full[0] == "scenario" else "the end of the one before"))

    def _arrive(self, visit, now):
        running, waiting = self._of.setdefault(visit.schedule, ({}, {}))
        before = next(itertools.chain(running.values(), waiting.values()), None)
        replaced = len(running) + len(waiting) if visit.overlap == "stop" else 0
        if visit.overlap == "skip" and before or visit.overlap == "queue" and waiting \
                and not visit.is_backlog:
            other = next(iter((waiting or running).values()))
            visit.skip("the one due %s %s" % (local_iso(other.due),
                                              "waits already" if waiting else "still runs"))
        elif self._open[visit.scenario] - replaced >= visit.limit and visit.on_limit != "wait":
            visit.skip("the limit of its scenario, %d" % visit.limit)
        else:
            if replaced:
                self._replace(visit, running, waiting, now)
            elif running:
                visit.outcome = visit.outcome or OVERLAPS
                visit.notes.append("the one due %s still runs" % local_iso(before.due))
            self._open[visit.scenario] += 1
            self._wait(visit)

    def _wait(self, visit):
        order = next(self._order)
        self._of[visit.schedule][1][order] = visit
        heapq.heappush(self._ready, (-visit.priority, order, visit))

    def _replace(self, visit, running, waiting, now):
        for other in itertools.chain(running.values(), waiting.values()):
            other.outcome, other.end = OVERLAPS, now
            other.notes.append("stopped by the one due %s" % local_iso(visit.due))
        for order in list(running):
            self._leave(order, running[order])
        self._open[visit.scenario] -= len(waiting)
        waiting.clear()

    @staticmethod
    def _gates(visit):
        """As of a Ticket."""
        own = [(("schedule",) + visit.schedule, MAX_QUEUE if visit.overlap == "parallel" else 1)]
        return own * bool(visit.name) + [(("scenario",) + visit.scenario, visit.limit)]

    def _find_full(self, visit):
        return next((gate for gate, limit in self._gates(visit) if self._busy[gate] >= limit), None)

    def _leave(self, order, visit):
        del self._of[visit.schedule][0][order]
        self._free += 1
        self._open[visit.scenario] -= 1
        for gate, _ in self._gates(visit):
            self._busy[gate] -= 1
            self._let_in(gate)

    def _let_in(self, gate):
        """The first of those that wait for a gate may look again."""
        if self._aside.get(gate):
            heapq.heappush(self._ready, heapq.heappop(self._aside[gate]))

    def _begin(self, now):
        """Begins what may: the highest priority first, then in the order of arrival."""
        while self._free > 0 and self._ready:
            entry = heapq.heappop(self._ready)
            _, order, visit = entry
            waiting = self._of[visit.schedule][1]
            full = self._find_full(visit)
            if full or order not in waiting:    # it was replaced
                if order in waiting:
                    heapq.heappush(self._aside.setdefault(full, []), entry)
                for gate, limit in self._gates(visit):      # its turn is that of the next
                    if self._busy[gate] < limit:
                        self._let_in(gate)
                continue
            visit.begin, visit.end = now, now + visit.duration
            self._occupy(order, waiting.pop(order))
            visit.outcome = visit.outcome or (STARTS if now == visit.at else QUEUES)
            if now > visit.at:
                visit.notes.append("waits %.3g s" % (now - visit.at))

    def _occupy(self, order, visit):
        self._of[visit.schedule][0][order] = visit
        self._free -= 1
        for gate, _ in self._gates(visit):
            self._busy[gate] += 1
        self._call_at(visit.end, self._end, order, visit)
