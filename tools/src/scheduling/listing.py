"""What is shown of schedules: how they stand, what comes, what was, and what a plan foresees."""
from ..base.errors import Conflict, NotFound, RepositoryError
from ..base.patterns import is_any_match
from ..store.records import read_last
from .forecast import Forecast
from .preview import list_ahead, list_coming, list_earliest, list_holds, list_notes


class ScheduleListing:
    """Looks at the schedules of all repositories, those of other agents too; nothing fires. With
    patterns others are not there than those of the scenarios that one of them fits."""

    def __init__(self, schedules, places, clock, patterns=()):
        self._schedules, self._places, self._clock = schedules, places, clock
        self._patterns = patterns

    def seen_by(self, client):
        """The same for a Client: of the schedules that are there for him."""
        return ScheduleListing(self._schedules, self._places, self._clock, client.scenarios) \
            if client.is_narrowed else self

    def _sees(self, scenario):
        return not self._patterns or is_any_match(self._patterns, scenario)

    def list_all(self, repository=None, name=None):
        """Yields (repository, StoredSchedule, next due time or None) of schedules."""
        troubles = []
        for owner, stored in self._read_all(repository, troubles, self._lister(name)):
            yield owner, stored, self._find_next(stored)
        if troubles:
            raise troubles[0]

    def get(self, name, repository):
        """[as list_all] of a schedule: each repository has its own. NotFound; without a name
        nothing."""
        schedules = []
        try:
            for schedule in self.list_all(repository, name) if name is not None else ():
                schedules.append(schedule)
        except RepositoryError:
            if not schedules:
                raise
        if name is not None and not schedules:
            raise NotFound("no schedule %s" % name)
        return schedules

    def _lister(self, name=None, is_whole=False):
        """What gives the StoredSchedules of a repository by name, or the one of a name; `is_whole`:
        also those that are not there."""
        return lambda repository: (self._read(repository, row, read_last(row))
                                   for row in repository.list_schedules(name)
                                   if is_whole or self._sees(row["scenario"]))

    def _read(self, repository, row, last=None):
        """A row -> StoredSchedule with its Last, and with the Timetable of its Entry."""
        entry = self._schedules.find(repository, row["name"])
        is_current = entry is not None and entry.revision == row["revision"]
        return repository.schedules.read(row, self._schedules.calendars,
                                         entry.timetable if is_current else None, last)

    def _read_all(self, repository, troubles, read):
        """Yields (repository, item) for each of read(repository); why another could not be read is
        told in `troubles`, for the end."""
        try:
            for owner in self._places.readable(repository):
                try:
                    for item in read(owner):
                        yield owner, item
                except RepositoryError as error:
                    troubles.append(error)
        except (Conflict, RepositoryError) as error:        # it may be being detached
            troubles.append(error)

    def _find_next(self, stored):
        timetable = stored.timetable if stored.schedule.enabled else None
        return timetable and timetable.next_after(self._find_undecided(stored))

    def _find_undecided(self, stored, begin=None):
        """From where on due times can still come: now, or later when the clock was ahead once."""
        now = self._clock.now()
        ahead = stored.decided if stored.decided > now else 0.0
        return int(max(now if begin is None else begin, ahead) // 1)

    def preview(self, name, repository, begin, end, count, with_excluded=False):
        """Yields (due, schedule, repository, note) of coming due times, in order; nothing fires."""
        self.get(name, repository)
        troubles = []

        def list_streams():
            for owner, stored in self._read_all(repository, troubles, self._lister(name)):
                if stored.timetable is not None and (name or stored.schedule.enabled):
                    yield list_coming(stored.timetable, self._find_undecided(stored, begin), end,
                                      with_excluded, (stored.schedule.name, owner.id, owner))
        for due, schedule, _, owner, before, excluded, timetable in list_earliest(
                list_streams(), count, lambda coming: coming[:3]):
            note = "excluded (%s): %s" % excluded if excluded is not None else \
                self._tell(owner, schedule, due, before, timetable)
            if note is not None:
                yield due, schedule, owner, note
        if troubles:
            raise troubles[0]

    def _tell(self, repository, name, due, before, timetable):
        """What is to be said of a due time, the one before it being `before`; None: it has fired
        already, by a clock that was ahead."""
        now = self._clock.now()
        with repository.db.reading() as connection:
            row = repository.schedules.get(connection, name)
            if due > now and repository.ledger.is_recorded(connection, name, due):
                return None
        stored = self._read(repository, row).check()
        notes = list_notes(stored.schedule, timetable, due, before) + list_holds(
            stored.hold, repository.hold)
        if before == self._find_undecided(stored):
            notes += list_ahead(before, now)
        return "; ".join(notes)

    def plan(self, period, repository, troubles):
        """Plays a Period -> (the instant up to which, [Visit] in the order of their times). What
        could not be read is told in `troubles`. What is not there takes its slots all the same."""
        forecast = Forecast(self._schedules.name, period)
        end, visits = forecast.play(visits for _, visits in self._read_all(
            repository, troubles,
            lambda owner: forecast.list_streams(owner, self._lister(is_whole=True)(owner))))
        return end, [visit for visit in visits if self._sees(visit.scenario[1])]

    def list_occurrences(self, name, repository, limit, period=(0.0, None), has_begun=True):
        """(repository, row) of occurrences, newest first: those of a period, which is the instant
        from which on they were due, and the one at which they were due (None: any). Without
        `has_begun` those that began in time are left out."""
        troubles = []
        rows = list(self._read_all(repository, troubles, lambda owner: owner.db.read(
            owner.ledger.list_occurrences, name, limit, *period, self._patterns, has_begun)))
        if not any(row["schedule"] == name for _, row in rows):
            self.get(name, repository)
        yield from sorted(rows, key=lambda occurrence: occurrence[1]["due"], reverse=True)[:limit]
        if troubles:
            raise troubles[0]
