"""The schedules of all repositories: loaded, changed, fired, listed."""
import contextlib
import gc

from ..base.vocabulary import WRITE_S
from ..base.errors import (BadRequest, CalendarError, Changed, Conflict, NotFound, RepositoryError,
                           RepositoryGone)
from ..base.program import log
from ..base.times import from_text, to_text
from ..base.words import shorten
from ..timetable.days import MOVING_FIELDS, _share
from ..store.records import Origin, Span, hold_of
from .entry import AWAY, CHANGED, DOWN, Entry, ON_HOLD, Policy, in_text
from .scheduler import Scheduler
from .preview import list_ahead, list_coming, list_earliest, list_holds, list_notes
from .forecast import Forecast

CHANGE_TRIES = 20       # of a change that others come before


@contextlib.contextmanager
def uncollected():
    """Makes many objects that stay: they are not searched for garbage meanwhile, nor later."""
    gc.disable()
    try:
        yield
    finally:
        if hasattr(gc, "freeze"):       # Python 3.7
            gc.freeze()
        gc.enable()


class Schedules:
    """The schedules of an agent's name: what the repositories hold, and what the scheduler fires.

    `take_made(repository, Made)` takes the session of a due time, and those that it replaces.
    """

    def __init__(self, name, places, master, clock, queue, agent_is_held, take_made):
        self._name, self._places, self._master, self._clock = name, places, master, clock
        self._queue, self._agent_is_held = queue, agent_is_held
        self._take_made = take_made
        self._started = clock.now()
        # key of what this start fires and has not yet -> as ON_HOLD
        self._startups = {}
        self._calendars = master.calendars()
        self.scheduler = Scheduler(clock, self._decide, self._stepped)

    def forget(self, repository):
        """A repository is let go: its schedules do not fire until it is back."""
        for entry in self.scheduler.list_entries(repository.id):
            self.scheduler.remove(entry.key)

    def _entry(self, repository, row, now, why=None):
        """The Entry of a row. `why` due times since its last decision were missed; None:
        nothing was away."""
        since, decided, hold, trouble = now, now, None, ""
        try:
            decided = from_text(row["decided"])
            for moment in (row["hold_since"], row["hold_until"], row["waiting"]):
                if moment:
                    from_text(moment)
        except ValueError:
            trouble = "a time in its row is none; SCHED SET or RELEASE writes it anew"
        if not trouble:
            hold = hold_of(row)
        before = self.scheduler.find((repository.id, row["name"]))
        if before is not None and before.hold and not hold:
            why = ON_HOLD
        elif why is None and before is not None:
            since, why = before.since, before.why
        elif why is None:       # new here: what came due while that was written is not missed
            since, why = decided if now - decided < WRITE_S else now, DOWN
        timetable, policy = None, Policy("skip", None, 0)
        try:
            if trouble:
                raise CalendarError(trouble)
            schedule = repository.schedules.read(row)
            policy = _share(Policy(schedule.get("misfire"), schedule.get("grace"),
                                   schedule.get("jitter")))
            if schedule.enabled and schedule.rule:
                timetable = schedule.timetable(self._calendars)
        except (CalendarError, Conflict) as error:
            message = "does not fire: %s" % error
            log.warning("schedule %s %s", row["name"], message)
            repository.db.submit(repository.ledger.note_failed, row["name"],
                                 to_text(int(now) + 0.5), message, to_text(now))  # at no due time
        return Entry(repository, row["name"], row["revision"], timetable, policy, hold, decided,
                     since, why)

    def load(self, place):
        """Reads the schedules of this agent's name and arms what is new or has changed."""
        repository, now = place.repository, self._clock.now()
        why = DOWN if not place.has_started else None if place.loaded is repository else AWAY
        gone, changed = {entry.name: entry
                         for entry in self.scheduler.list_entries(repository.id)}, []
        for name, *state in repository.db.read(repository.schedules.list_revisions, self._name):
            entry = gone.pop(name, None)
            if entry is None or entry.repository is not repository \
                    or [entry.revision, entry.hold and entry.hold.since] != state:
                changed.append(name)
        if changed:
            for schedule in repository.db.read(repository.schedules.list_stray):
                repository.db.write(repository.schedules.put_conditions, schedule)
            with contextlib.suppress(RepositoryError):      # another agent may have added some
                self.read_calendars()
        with uncollected():
            for row in repository.read_schedules(changed):
                self._put(self._entry(repository, row, now, why), not place.has_started)
        for entry in gone.values():
            self._remove(entry.key)
        newest = max((entry.decided for entry in self.scheduler.list_entries(repository.id)),
                     default=now)
        for note in list_ahead(newest, self._clock.now()) if not place.has_started else ():
            log.warning("schedules of repository %s: %s", repository.name, note)
        place.has_started, place.loaded = True, repository
        self.fire_startups()
        self.decide_after(repository)

    def keep_held(self, repository):
        """Before the sessions of a repository are queued: those of held schedules do not begin."""
        for name, _, held_since in repository.db.read(repository.schedules.list_revisions,
                                                      self._name):
            if held_since:
                self._queue.hold_schedule((repository.id, name), True)

    def _remove(self, key):
        self.scheduler.remove(key)
        self._queue.hold_schedule(key, False)       # what it started goes on

    def _put(self, entry, is_start=False):
        self._queue.hold_schedule(entry.key, entry.hold is not None)
        before = self.scheduler.find(entry.key)
        self.scheduler.put(entry)
        if entry.hold and entry.hold.until and not (before and before.hold == entry.hold):
            self.scheduler.call_at(from_text(entry.hold.until), lambda: self._hold_over(entry))
        if is_start and entry.timetable and entry.timetable.rule.kind == "startup":
            self._startups[entry.key] = "", ""

    def fire_startups(self):
        """Decides what a start of the agent fires; what is held then, at the release."""
        for key in list(self._startups):
            entry = self.scheduler.find(key)
            if entry and (entry.hold or self._agent_is_held()):
                self._startups[key] = ON_HOLD
                continue
            reason, text = self._startups.pop(key)
            if entry:           # the clock may have been ahead of it, or a change since
                due, (misfire, grace, _) = max(self._started, entry.decided + 0.001), entry.policy
                is_over = misfire == "skip" or grace is not None and self._clock.now() - due > grace
                self._decide(entry, due, [Span(due, due, 1, reason if is_over else "", text)])

    def refresh(self, repository, name):
        """Makes a change of a schedule effective at once."""
        row = repository.db.read(repository.schedules.find, name)
        if row is None or row["agent"] != self._name:
            self._remove((repository.id, name))
        else:
            self._put(self._entry(repository, row, self._clock.now()))
            self.fire_startups()
            if '"after"' in row["options"]:
                self.decide_after(repository)

    def read_calendars(self):
        """Takes over what has changed in the calendars.
        What has come by now is decided by the old ones, unless it is held."""
        before, self._calendars = self._calendars, self._master.calendars()
        changed = [name for name in set(before) | set(self._calendars)
                   if before.get(name) != self._calendars.get(name)]
        now = self._clock.now()
        places = [place for place in self._places.list_all() if place.repository] if changed else ()
        for repository in [place.repository for place in places]:
            with contextlib.suppress(RepositoryError):      # it is read when it comes back
                names = {user for name in changed
                         for user in repository.db.read(repository.schedules.list_users, name)}
                for row in repository.read_schedules(sorted(names)):
                    if row["agent"] == self._name:
                        upto = self.scheduler.decide_now((repository.id, row["name"]))
                        entry = self._entry(repository, row, now)
                        entry.decided = max(entry.decided, upto or 0.0)
                        self._put(entry)

    # -- decisions ---------------------------------------------------------------------

    def _decide(self, entry, upto, spans):
        """Hands due times to the repository; the next is armed when they are written."""
        repository, began = entry.repository, self._clock.monotonic()
        upto_text, failures = to_text(upto), repository.db.failures
        spans = [in_text(span) for span in spans]

        def then(pending):
            self._take(repository, pending)
            if not isinstance(pending.error, RepositoryError):
                # a paused agent fails at nothing
                is_long = self._clock.monotonic() - began > WRITE_S
                self.scheduler.decided(entry, upto, is_long and repository.db.failures > failures)
        repository.db.submit(repository.decisions.decide, entry.name, entry.revision, upto_text,
                             spans, to_text(self._clock.now()), self._agent_is_held(), then=then)

    def _take(self, repository, pending):
        """Sessions that a decision has made are queued, those that they replace are stopped."""
        if isinstance(pending.error, Changed):
            repository.is_behind = True         # what is in memory is read again
        elif pending.error is not None and not isinstance(pending.error, RepositoryGone):
            log.error("schedules of repository %s: %s", repository.name, pending.error)
        for made in pending.value or ():
            self._take_made(repository, made)

    def decide_after(self, repository):
        """Decides the schedules whose conditions are met, unless the agent is held."""
        if not self._agent_is_held():
            repository.db.submit(repository.decisions.decide_after, self._name,
                                 to_text(self._clock.now()), False,
                                 then=lambda pending: self._take(repository, pending))

    def released(self):
        """The hold of the agent is over: what it held back is decided."""
        self.fire_startups()
        for place in self._places.list_all():
            if place.repository:
                self.decide_after(place.repository)

    def _stepped(self, seconds):
        """The clock has stepped: that stands in the log and in every ledger."""
        message = "the clock stepped %s by %.1f s: %s" % (
            ("forward", seconds, "what was due between counts as missed") if seconds > 0 else
            ("back", -seconds, "what was due in that time does not fire again"))
        log.warning("%s", message)
        now = to_text(self._clock.now())
        for place in self._places.list_all():
            if place.repository:
                place.repository.db.submit(place.repository.ledger.note_step, message, now)

    # -- changes -----------------------------------------------------------------------

    def add(self, schedule, repository):
        """Adds a schedule, effective at once. Exists, NotFound, BadRequest, Conflict."""
        self._check(schedule)
        found = self._places.get(repository) if repository else \
            self._places.with_scenario(schedule.scenario, schedule.version)
        found.db.write(found.schedules.add, schedule, to_text(self._clock.now()))
        self.refresh(found, schedule.name)

    def set(self, name, repository, changes):
        """Changes a schedule, effective at once; changes(Schedule) -> Schedule. As add()."""
        found = self._places.with_schedule(name, repository)
        for is_last in [False] * (CHANGE_TRIES - 1) + [True]:
            row, now = found.db.read(found.schedules.get, name), to_text(self._clock.now())
            before = found.schedules.read(row)
            schedule = changes(before)
            if schedule == before._replace(enabled=False):      # whatever else is wrong with it
                method = found.schedules.put
            else:
                method = found.schedules.set
                self._check(schedule, is_moved=schedule.timing != before.timing)
            try:
                found.db.write(method, schedule, now, self.find_origin(found, row, now))
                break
            except Changed:             # by another client, or by a due time that has come
                if is_last:
                    raise
        self.refresh(found, name)

    def find_origins(self, repository, schedules, now):
        """{name: Origin} of those of these Schedules that are there."""
        rows = [repository.db.read(repository.schedules.find, schedule.name)
                for schedule in schedules]
        return {row["name"]: self.find_origin(repository, row, now) for row in rows if row}

    def find_origin(self, repository, row, now):
        """The Origin of a change of this row: with what had come by now (UTC text) and was not
        decided, held or delayed by jitter."""
        entry, spans = self.scheduler.find((repository.id, row["name"])), ()
        if entry is not None and entry.timetable is not None and entry.repository is repository:
            spans = tuple(in_text(span) for span in entry.list_skipped(
                *(int(from_text(moment) // 1) for moment in (row["decided"], now)), why=CHANGED))
        return Origin(row["revision"], row["decided"], spans)

    def _check(self, schedule, is_moved=True):
        faults = schedule.list_faults()
        if faults:
            field, reason = faults[0]
            told = reason if reason.startswith(field + " ") else "%s: %s" % (field, reason)
            raise BadRequest(told, faults if len(faults) > 1 else ())
        if not set(schedule.list_calendars()) <= set(self._calendars):
            self.read_calendars()           # another agent may have added it
        unknown = [name for name in schedule.list_calendars() if name not in self._calendars]
        if unknown:
            raise NotFound("no calendar %s" % unknown[0])
        if schedule.context not in self._master.list_contexts():
            raise NotFound("no context %s" % schedule.context)
        timetable = schedule.timetable(self._calendars)
        if is_moved and schedule.enabled and timetable.rule.kind != "startup" \
                and timetable.next_after(int(self._clock.now())) is None:
            within = [name for name in schedule.options if name in MOVING_FIELDS]
            raise BadRequest("the rule %s never fires any more%s" % (
                shorten(schedule.rule), " within its " + ", ".join(within) if within else ""))

    def delete(self, name, repository):
        """Deletes a schedule; what it started goes on. NotFound, Conflict."""
        found = self._places.with_schedule(name, repository)
        found.db.write(found.schedules.delete, name)
        self.refresh(found, name)

    def hold(self, name, hold, repository=None):
        """Holds one schedule, or releases it (None). NotFound."""
        found = self._places.with_schedule(name, repository)
        found.db.write(found.schedules.hold, name, hold)
        self.refresh(found, name)

    def _hold_over(self, entry):
        """A schedule's hold has come to its end, if it is still this one."""
        now, found = self.scheduler.find(entry.key), entry.repository
        if now is not None and now.hold == entry.hold:
            def then(pending):
                if pending.error is None:
                    self.refresh(found, entry.name)
            found.db.submit(found.schedules.hold, entry.name, None, then=then)

    def put_calendar(self, name, dates, is_new):
        """Adds a calendar or sets its dates, effective at once. Exists, NotFound."""
        self._master.put_calendar(name, dates, is_new)
        self.read_calendars()

    def delete_calendar(self, name):
        """Deletes a calendar. NotFound; Conflict while a schedule names it."""
        for repository in self._places.readable():
            for user in repository.db.read(repository.schedules.list_users, name):
                raise Conflict("schedule %s in repository %s uses calendar %s"
                               % (user, repository.name, name))
        self._master.delete_calendar(name)
        self.read_calendars()

    def update(self):
        """Reads the schedules and calendars again -> how many schedules are loaded."""
        self.read_calendars()
        for repository in self._places.readable():
            place = self._places.find(repository)
            if place:
                self.load(place)
        return sum(len(self.scheduler.list_entries(place.attachment.id))
                   for place in self._places.list_all())

    # -- what is to come, and what was -------------------------------------------------

    def list_all(self, repository=None, name=None):
        """Yields (repository, row, next due time or None) of schedules."""
        troubles = []
        for found, row in self._read_all(repository, troubles,
                                         lambda found: found.list_schedules(name)):
            yield found, row, self._next_due(found, row)
        if troubles:
            raise troubles[0]

    def get(self, name, repository):
        """[(repository, row, next due time or None)] of a schedule: each repository has its own.
        NotFound; without a name nothing."""
        found = []
        try:
            for schedule in self.list_all(repository, name) if name is not None else ():
                found.append(schedule)
        except RepositoryError:
            if not found:
                raise
        if name is not None and not found:
            raise NotFound("no schedule %s" % name)
        return found

    def _read_all(self, repository, troubles, read):
        """Yields (repository, item) for each of read(repository); why another could not be read is
        told in `troubles`, for the end."""
        try:
            for found in self._places.readable(repository):
                try:
                    for item in read(found):
                        yield found, item
                except RepositoryError as error:
                    troubles.append(error)
        except RepositoryError as error:
            troubles.append(error)

    def _next_due(self, repository, row):
        timetable = self._timetable(repository, row) if row["enabled"] else None
        return timetable and timetable.next_after(self._undecided(row))

    def _undecided(self, row, begin=0.0):
        """From where on due times can still come: now, or later when the clock was ahead once."""
        now = decided = self._clock.now()
        with contextlib.suppress(ValueError):       # another program has written it
            decided = from_text(row["decided"])
        return int(max(begin or now, decided if decided > now else 0.0) // 1)

    def _timetable(self, repository, row):
        """The Timetable of a row, that of its entry when it has one; None when it can have none."""
        entry = self.scheduler.find((repository.id, row["name"]))
        if entry is not None and entry.timetable is not None and entry.revision == row["revision"] \
                and entry.repository is repository:
            return entry.timetable
        try:
            return repository.schedules.read(row).timetable(self._calendars)
        except (CalendarError, Conflict) as error:
            log.warning("schedule %s: %s", row["name"], error)
            return None

    def preview(self, name, repository, begin, end, count, with_excluded=False):
        """Yields (due, schedule, repository, note) of coming due times, in order; nothing fires."""
        self.get(name, repository)
        troubles = []

        def streams():
            for found, row in self._read_all(repository, troubles,
                                             lambda found: found.list_schedules(name)):
                timetable = self._timetable(found, row) if name or row["enabled"] else None
                if timetable is not None:
                    yield list_coming(timetable, self._undecided(row, begin), end, with_excluded,
                                      (row["name"], found.id, found))
        for due, name, _, found, before, excluded, timetable in list_earliest(
                streams(), count, lambda coming: coming[:3]):
            if excluded is not None:
                yield due, name, found, "excluded (%s): %s" % excluded
                continue
            with found.db.reading() as connection:
                row = found.schedules.get(connection, name)
                if due > self._clock.now() and found.ledger.is_recorded(connection, name,
                                                                        to_text(due)):
                    continue            # it has fired, by a clock that was ahead
            notes = list_notes(found.schedules.read(row), timetable, due, before)
            notes += list_holds(hold_of(row))
            if before == self._undecided(row):
                notes += list_ahead(before, self._clock.now())
            yield due, name, found, "; ".join(notes)
        if troubles:
            raise troubles[0]

    def plan(self, period, repository, troubles):
        """Plays a Period -> (the instant up to which, [Visit] in the order of their times). What
        could not be read is told in `troubles`."""
        forecast = Forecast(self._name, period, self._timetable)
        return forecast.play(visits for _, visits in self._read_all(
            repository, troubles, forecast.list_streams))

    def list_occurrences(self, name, repository, limit):
        """(repository, row) of occurrences, newest first."""
        troubles = []
        rows = list(self._read_all(repository, troubles,
                                   lambda found: found.db.read(found.ledger.list_occurrences,
                                                               name, limit)))
        if not any(row["schedule"] == name for _, row in rows):
            self.get(name, repository)
        yield from sorted(rows, key=lambda found: found[1]["due"], reverse=True)[:limit]
        if troubles:
            raise troubles[0]
