"""Changes of schedules and calendars, effective at once."""
import math
import threading

from ..base.errors import BadRequest, Changed, Conflict, NotFound
from ..base.times import as_stored
from ..base.words import shorten
from ..timetable.days import MOVING_FIELDS
from .entry import CHANGED

CHANGE_TRIES = 20       # of a change that a due time or another agent comes before


class ScheduleChanges:
    """What clients change of schedules: checked here, written by their repository, taken up by
    Schedules."""

    def __init__(self, schedules, places, master, clock):
        self._schedules, self._places, self._master = schedules, places, master
        self._clock = clock
        self._turns = {}            # {id of a repository: the lock of turn()}

    def turn(self, repository):
        """The lock that is held by who changes schedules of this repository: he meets due times
        and other agents alone, and of two clients none comes first for ever."""
        return self._turns.setdefault(repository.id, threading.Lock())

    def add(self, schedule, repository):
        """Adds a schedule, effective at once. Exists, NotFound, BadRequest, Conflict."""
        self._check(schedule)
        owner = self._places.get(repository) if repository else \
            self._places.with_scenario(schedule.scenario, schedule.version)
        owner.db.write(owner.schedules.add, schedule, self._clock.now())
        self._schedules.refresh(owner, schedule.name)

    def set(self, name, repository, changes):
        """Changes a schedule, effective at once; changes(Schedule) -> Schedule. As add()."""
        owner = self._places.with_schedule(name, repository)
        with self.turn(owner):
            self._write(owner, name, changes)
        self._schedules.refresh(owner, name)

    def _write(self, owner, name, changes):
        """Writes set() down; anew when something else has come before."""
        for is_last in [False] * (CHANGE_TRIES - 1) + [True]:
            row, now = owner.db.read(owner.schedules.get, name), self._clock.now()
            before = owner.schedules.read_definition(row)
            schedule = changes(before)
            if schedule == before._replace(enabled=False):      # whatever else is wrong with it
                method = owner.schedules.put
            else:
                method = owner.schedules.set
                self._check(schedule, is_moved=schedule.timing != before.timing)
            try:
                owner.db.write(method, schedule, now, self.find_origin(owner, row, now))
                break
            except Changed:             # by another agent, or by a due time that has come
                if is_last:
                    raise

    def find_origins(self, repository, schedules, now):
        """{name: Origin} of those of these Schedules that are there."""
        rows = [repository.db.read(repository.schedules.find, schedule.name)
                for schedule in schedules]
        return {row["name"]: self.find_origin(repository, row, now) for row in rows if row}

    def find_origin(self, repository, row, now):
        """The Origin of a change of this row: with what had come by now and was not decided, held
        or delayed by jitter."""
        origin = repository.schedules.make_origin(row)
        entry = self._schedules.find(repository, row["name"])
        if entry is None or entry.timetable is None or origin.decided is None:
            return origin
        return origin._replace(spans=tuple(entry.list_skipped(
            math.floor(origin.decided), math.floor(as_stored(now)), *CHANGED)))

    def _check(self, schedule, is_moved=True):
        """BadRequest, NotFound: what is wrong of a schedule; `is_moved`: its due times are others
        than before."""
        faults = schedule.list_faults()
        if faults:
            field, reason = faults[0]
            message = reason if reason.startswith(field + " ") else "%s: %s" % (field, reason)
            raise BadRequest(message, faults if len(faults) > 1 else ())
        if not set(schedule.list_calendars()) <= set(self._schedules.calendars):
            self._schedules.read_calendars()        # another agent may have added it
        calendars = self._schedules.calendars
        unknown = [name for name in schedule.list_calendars() if name not in calendars]
        if unknown:
            raise NotFound("no calendar %s" % unknown[0])
        if schedule.context not in self._master.list_contexts():
            raise NotFound("no context %s" % schedule.context)
        timetable = schedule.timetable(calendars)
        if is_moved and schedule.enabled and timetable.rule.is_by_clock \
                and timetable.next_after(self._clock.now()) is None:
            within = [name for name in schedule.options if name in MOVING_FIELDS]
            raise BadRequest("the rule %s never fires any more%s" % (
                shorten(schedule.rule), " within its " + ", ".join(within) if within else ""))

    def delete(self, name, repository):
        """Deletes a schedule; what it started goes on. NotFound, Conflict."""
        owner = self._places.with_schedule(name, repository)
        owner.db.write(owner.schedules.delete, name)
        self._schedules.refresh(owner, name)

    def hold(self, name, hold, repository=None):
        """Holds one schedule, or releases it (None). NotFound."""
        owner = self._places.with_schedule(name, repository)
        owner.db.write(owner.schedules.hold, name, hold)
        self._schedules.refresh(owner, name)

    def put_calendar(self, name, dates, is_new):
        """Adds a calendar or sets its dates, effective at once. Exists, NotFound."""
        self._master.put_calendar(name, dates, is_new)
        self._schedules.read_calendars()

    def delete_calendar(self, name):
        """Deletes a calendar. NotFound; Conflict while a schedule names it."""
        for repository in self._places.readable():
            for user in repository.db.read(repository.schedules.list_users, name):
                raise Conflict("schedule %s in repository %s uses calendar %s"
                               % (user, repository.name, name))
        self._master.delete_calendar(name)
        self._schedules.read_calendars()
