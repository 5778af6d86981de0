"""A period played against the limits: what would overlap, queue, be skipped, never fit."""
import collections
import itertools

from ..store.admission import schedule_gate
from .entry import Entry, Missed, ON_HOLD
from .play import Follower, Play
from .preview import find_release, list_earliest
from .visits import MAX_VISITS, list_held, list_visits, open_visit, visit_maker


class Forecast:
    """What a plan is made of: due times, and for a period that is to come what is open now,
    and which conditions are met."""

    def __init__(self, agent, period):
        self._agent, self._period = agent, period
        self._is_past = period.begin < period.now       # played from an empty start
        self._begin = min(period.begin, period.now)
        self._followers, self._open = [], []
        self._holds = [(None, period.hold)] if period.hold else []      # [(gate, Hold)]

    def list_streams(self, repository, schedules):
        """Yields the Visits of one of the StoredSchedules of a repository after the other; what is
        open is taken up last."""
        with repository.db.reading() as connection:
            durations = repository.views.get_durations(connection)
            opened = [] if self._is_past else repository.views.list_open(connection, self._agent)
            met = [] if self._is_past else repository.schedules.list_met(connection)
        conditions = collections.defaultdict(dict)
        for name, kind, other, ended in met:
            conditions[name][kind, repository.id, other] = ended
        for stored in schedules:
            schedule = stored.schedule
            if schedule.agent != self._agent:
                continue
            self._holds += [(schedule_gate(repository.id, schedule.name), hold)
                            for hold in (stored.hold, repository.hold) if hold]
            if stored.timetable is not None and schedule.enabled:
                yield self._list_visits(repository, stored, durations.get(schedule.scenario),
                                        conditions.get(schedule.name, {}))
        self._open += [open_visit(repository, session, durations.get(session.ticket.scenario),
                                  self._begin) for session in opened]

    def _list_visits(self, repository, stored, duration, met):
        """The Visits of a schedule, in order; what it runs after is kept in mind."""
        schedule, begin, end = stored.schedule, self._period.begin, self._period.end
        release, note = find_release(self._period.hold, stored.hold, repository.hold)
        if not self._is_past:
            if begin == self._begin:    # what jitter delays is still to come
                begin -= schedule.get("jitter")
            begin = max(begin, stored.decided + 0.001)
        make = visit_maker(repository, schedule, duration, stored.timetable)
        if schedule.get("after"):
            self._followers.append(Follower(repository, schedule, make, met, release))
        visits = list_visits(make, stored.timetable, begin, end)
        if note and stored.firing is not None:
            visits = list_held(make, Entry(repository, stored, Missed(release, *ON_HOLD)),
                               begin, end, release, note)
        waiting = None if self._is_past else stored.waiting
        return itertools.chain([make(waiting)] if waiting else [], visits)

    def play(self, streams):
        """Plays what list_streams has given of all repositories, as ScheduleListing.plan says."""
        begin, end = self._period.begin, self._period.end
        visits = list(list_earliest(streams, MAX_VISITS + 1, lambda visit: visit.due))
        if len(visits) > MAX_VISITS:
            end = max(begin, visits.pop().due)
        play = Play(self._period.slots, self._begin, self._followers, self._holds)
        play.take_up(self._open)
        visits = play.run(sorted(visits, key=lambda visit: visit.turn), end)
        return end, [visit for visit in visits
                     if visit.due >= begin or visit.begin is None or visit.begin >= begin]
