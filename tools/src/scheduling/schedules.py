"""The schedules of an agent's name in all repositories: loaded, armed, fired."""
import collections
import contextlib
import gc

from ..base.vocabulary import WRITE_S
from ..base.errors import Changed, RepositoryError, RepositoryGone
from ..base.program import log, own_boot
from ..store.admission import schedule_gate
from ..store.records import Span
from .entry import AWAY, DOWN, Entry, Missed, ON_HOLD
from .scheduler import Scheduler
from .preview import list_ahead

MANY_SCHEDULES = 1000   # whose objects are worth setting aside


@contextlib.contextmanager
def uncollected(count, loaded_count=0):
    """Makes the objects of so many schedules, which stay: if they are many, and not few beside
    those that are loaded already, they are not searched for garbage meanwhile, nor later. What was
    set aside so before is searched once more: it may have become garbage. That holds up all
    threads, a third of a second for 100,000 schedules."""
    if count < max(MANY_SCHEDULES, loaded_count // 2):
        yield
        return
    if hasattr(gc, "freeze"):           # Python 3.7
        gc.unfreeze()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if hasattr(gc, "freeze"):
            gc.freeze()
        gc.enable()


class Schedules:
    """What the repositories hold of an agent's schedules, kept in its Scheduler, and what that
    decides, handed to them.

    `take_made(repository, Made)` takes the session of a due time, and those that it replaces.
    """

    def __init__(self, name, places, master, clock, session_queue, agent_is_held, take_made):
        self.name = name
        self._places, self._master, self._clock = places, master, clock
        self._queue, self._agent_is_held = session_queue, agent_is_held
        self._take_made = take_made
        self._started = clock.now()
        # key of what this start fires and has not yet -> (reason, text) of what is missed by then
        self._startups = {}
        self.calendars = master.calendars()     # name -> dates; replaced, never changed
        self.scheduler = Scheduler(clock, self._decide, self._stepped)

    # -- loading -----------------------------------------------------------------------

    def forget(self, repository):
        """A repository is let go: its schedules do not fire until it is back."""
        for entry in self.scheduler.list_entries(repository.id):
            self.scheduler.remove(entry.key)

    def find(self, repository, name):
        """The Entry of a schedule of this repository as it is now, or None."""
        entry = self.scheduler.find((repository.id, name))
        return entry if entry is not None and entry.repository is repository else None

    def _make_entry(self, repository, row, now, away=None, model=None):
        """The Entry of a row. `away`: what was Missed since its last decision; None: nothing was
        away. `model`: as Entry has it. What it does not fire for is told."""
        stored = repository.schedules.read(row, self.calendars, model and model.timetable)
        if stored.trouble and stored.schedule.enabled:
            message = "does not fire: %s" % stored.trouble
            log.warning("schedule %s %s", row["name"], message)
            repository.db.submit(repository.ledger.note_failed, row["name"],
                                 int(now) + 0.5, message, now)      # at no due time
        before = self.scheduler.find((repository.id, row["name"]))
        return Entry(repository, stored, self._find_missed(stored, before, now, away), model)

    @staticmethod
    def _find_missed(stored, before, now, away):
        """What a new Entry has Missed, `before` being the one in whose place it comes, or None."""
        if before is not None and before.hold and not stored.hold:
            return Missed(now, *ON_HOLD)
        if away is not None:
            return away
        if before is not None:
            return before.missed
        # new here: what came due while that was written is not missed
        return Missed(stored.decided if now - stored.decided < WRITE_S else now, *DOWN)

    def load(self, place):
        """Reads the schedules of this agent's name and arms what is new or has changed."""
        repository, now = place.get_usable(), self._clock.now()
        why = DOWN if not place.has_started else None if place.loaded is repository else AWAY
        gone, changed = {entry.name: entry
                         for entry in self.scheduler.list_entries(repository.id)}, []
        loaded_count = len(gone)
        for name, revision, held_since in repository.db.read(
                repository.schedules.list_revisions, self.name):
            entry = gone.pop(name, None)
            if entry is None or entry.repository is not repository or entry.asked is not None \
                    or entry.revision != revision \
                    or (entry.hold and entry.hold.since) != held_since:
                changed.append(name)
        if changed:
            for schedule in repository.db.read(repository.schedules.list_stray):
                repository.db.write(repository.schedules.put_conditions, schedule)
            with contextlib.suppress(RepositoryError):      # another agent may have added some
                self.read_calendars()
        with uncollected(len(changed), loaded_count):
            away, calendars = why and Missed(now, *why), None
            for row in repository.read_schedules(changed):
                if calendars is not self.calendars:
                    calendars, models = self.calendars, collections.defaultdict(dict)
                alike = models[row["timezone"], row["options"]]     # by rule
                entry = self._make_entry(repository, row, now, away, alike.get(row["rule"]))
                if entry.timetable is not None:
                    alike[row["rule"]] = entry
                self._put(entry, not place.has_started)
        for entry in gone.values():
            self._remove(entry.key)
        if not place.has_started:
            newest = max((entry.decided for entry in self.scheduler.list_entries(repository.id)),
                         default=now)
            for note in list_ahead(newest, self._clock.now()):
                log.warning("schedules of repository %s: %s", repository.name, note)
        place.note_loaded(repository)
        self.fire_startups()
        self.decide_after(repository)

    def keep_held(self, repository):
        """Before the sessions of a repository are queued: those of held schedules do not begin."""
        for name in repository.db.read(repository.schedules.list_held, self.name):
            self._queue.hold_gate(schedule_gate(repository.id, name), True)

    def _remove(self, key):
        self.scheduler.remove(key)
        self._queue.hold_gate(schedule_gate(*key), False)       # what it started goes on

    def _put(self, entry, is_start=False):
        """Takes an Entry in; `is_start`: its rule may be that of a start of the agent."""
        self._queue.hold_gate(schedule_gate(*entry.key), entry.hold is not None)
        before = self.scheduler.find(entry.key) if entry.hold else None
        self.scheduler.put(entry)
        if entry.hold and entry.hold.until and not (before and before.hold == entry.hold):
            self.scheduler.call_at(entry.hold.until, lambda: self._hold_over(entry))
        kind = entry.timetable.rule.kind if entry.timetable else None
        is_new_boot = kind == "boot" and entry.boot != own_boot()
        if is_start and (kind == "startup" or is_new_boot and entry.boot is not None):
            self._startups[entry.key] = "", ""
        elif is_new_boot and entry.key not in self._startups:
            entry.repository.db.submit(entry.repository.decisions.note_boot, entry.name, own_boot())

    def refresh(self, repository, name):
        """Makes a change of a schedule effective at once."""
        row = repository.db.read(repository.schedules.find, name)
        if row is None or row["agent"] != self.name:
            self._remove((repository.id, name))
        else:
            self._put(self._make_entry(repository, row, self._clock.now()))
            self.fire_startups()
            if '"after"' in row["options"]:
                self.decide_after(repository)

    def read_calendars(self):
        """Takes over what has changed in the calendars.
        What has come by now is decided by the old ones, unless it is held."""
        before, self.calendars = self.calendars, self._master.calendars()
        changed = [name for name in set(before) | set(self.calendars)
                   if before.get(name) != self.calendars.get(name)]
        now = self._clock.now()
        for repository in self._places.list_open() if changed else ():
            with contextlib.suppress(RepositoryError):      # it is read when it comes back
                names = {user for name in changed
                         for user in repository.db.read(repository.schedules.list_users, name)}
                for row in repository.read_schedules(sorted(names)):
                    if row["agent"] == self.name:
                        upto = self.scheduler.decide_now((repository.id, row["name"]))
                        entry = self._make_entry(repository, row, now)
                        entry.settle(upto or 0.0)
                        self._put(entry)

    def update(self):
        """Reads the schedules and calendars again -> how many schedules are loaded."""
        self.read_calendars()
        for repository in self._places.readable():
            place = self._places.find(repository)
            if place:
                self.load(place)
        return sum(len(self.scheduler.list_entries(place.attachment.id))
                   for place in self._places.list_all())

    # -- firing ---------------------------------------------------------------------

    def _decide(self, entry, upto, spans, boot=None):
        """Hands due times to the repository; the next is armed when they are written. `boot`: the
        one that they are due for."""
        repository, began = entry.repository, self._clock.monotonic()
        failures = repository.db.failures

        def follow(pending):
            self._take(repository, pending)
            if boot is not None and isinstance(pending.error, Changed):
                self._startups.setdefault(entry.key, ("", ""))      # once it is read again
            if not isinstance(pending.error, RepositoryError):
                # a paused agent fails at nothing
                is_long = self._clock.monotonic() - began > WRITE_S
                self.scheduler.decided(entry, upto, is_long and repository.db.failures > failures)
        repository.db.submit(repository.decisions.decide, entry.name, entry.revision, upto,
                             spans, self._clock.now(), self._is_held(repository), boot,
                             on_done=follow)

    def _take(self, repository, pending):
        """Sessions that a decision has made are queued, those that they replace are stopped."""
        if isinstance(pending.error, Changed):
            repository.set_behind()             # what is in memory is read again
        elif pending.error is not None and not isinstance(pending.error, RepositoryGone):
            log.error("schedules of repository %s: %s", repository.name, pending.error)
        for decision in pending.value or ():
            self._take_made(repository, decision)

    def fire_startups(self):
        """Decides what a start of the agent fires; what is held then, at the release."""
        for key in list(self._startups):
            entry = self.scheduler.find(key)
            if entry and (entry.is_held or self._agent_is_held()):
                self._startups[key] = ON_HOLD
                continue
            reason, text = self._startups.pop(key)
            if entry:           # the clock may have been ahead of it, or a change since
                due, (misfire, grace, _) = max(self._started, entry.decided + 0.001), entry.policy
                is_over = misfire == "skip" or grace is not None and self._clock.now() - due > grace
                is_boot = entry.timetable is not None and entry.timetable.rule.kind == "boot"
                self._decide(entry, due, [Span(due, due, 1, reason if is_over else "", text)],
                             own_boot() if is_boot else None)

    def decide_after(self, repository):
        """Decides the schedules whose conditions are met, unless the agent or the repository is
        held."""
        if not self._is_held(repository):
            repository.db.submit(repository.decisions.decide_after, self.name,
                                 self._clock.now(), False,
                                 on_done=lambda pending: self._take(repository, pending))

    def released(self):
        """The hold of the agent is over: what it held back is decided."""
        self.fire_startups()
        for repository in self._places.list_open():
            self.decide_after(repository)

    def released_in(self, repository):
        """The hold of a repository is over: what it held back is decided."""
        self.scheduler.release(repository.id)
        self.fire_startups()
        self.decide_after(repository)

    def _is_held(self, repository):
        return repository.hold is not None or self._agent_is_held()

    def _stepped(self, seconds):
        """The clock has stepped: that stands in the log and in every ledger."""
        message = "the clock stepped %s by %.1f s: %s" % (
            ("forward", seconds, "what was due between counts as missed") if seconds > 0 else
            ("back", -seconds, "what was due in that time does not fire again"))
        log.warning("%s", message)
        now = self._clock.now()
        for repository in self._places.list_open():
            repository.db.submit(repository.ledger.note_step, message, now)

    def _hold_over(self, entry):
        """A schedule's hold has come to its end, if it is still this one."""
        current, repository = self.scheduler.find(entry.key), entry.repository
        if current is not None and current.hold == entry.hold:
            def follow(pending):
                if pending.error is None:
                    self.refresh(repository, entry.name)
            repository.db.submit(repository.schedules.hold, entry.name, None, on_done=follow)
