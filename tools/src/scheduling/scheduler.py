"""What is due now, and the seconds until something is due again.

Thread scheduler: calls Scheduler.tick(); ends at Agent.stop().
"""
import sched
import threading

from ..base.vocabulary import EXCLUDED_S, MISFIRE, STEP_S
from ..base.program import log
from .entry import AWAY, DOWN, Missed, ON_HOLD

FIRST = 0, ""           # before the key of every Entry, for what comes up at one instant


class Scheduler:
    """Decides the due times of schedules as they come, by the standard library's sched.

    The life of an Entry, from its row until another takes its place:

        put() ----> ARMED: `due` is the instant at which it is to be looked at, and an event of
                      |    sched waits for it; without due times it rests for ever
                      |    tick(): that instant has come
                      v
                   held? ---yes--> RESTS: neither `due` nor `asked`; the release of the agent or
                      | no         of its repository arms it again, that of its own hold puts
                      |            another in its place
                      v
                   judge(): which due times have come, and what becomes of each: Spans
                      |    none that is to be written: straight to decided()
                      v
                   ASKED: `asked` is up to where; decide(entry, upto, spans) hands them to its
                      |    repository, which makes sessions and occurrences in one transaction
                      v
                   decided(entry, upto): written; `decided` moves on, and it is ARMED again

    put() is called by Schedules: when a repository is read, after a change of the row, at the end
    of a hold. What has no due times, a rule `startup` or `after` alone, is decided by Schedules.

    A repository that cannot be written leaves it ASKED until it can; where a DETACH refuses the
    decision and then fails, another Entry takes its place. What came due while the agent was down
    or held, the clock was stepped, or a repository was slow, is Missed: for all entries at once or
    for one of them; judge() gets the one that reaches further. What comes up at one instant does so
    by the id of its repository, then by name. Nothing is cancelled by search: an event whose entry
    was replaced or armed anew is recognised when it comes up.

    `decide` is handed down, since only who holds the repositories can write; so is
    `on_step(seconds)`, told when the clock of the day has stepped.
    """

    def __init__(self, clock, decide, on_step=lambda seconds: None):
        self._clock, self._decide, self._on_step = clock, decide, on_step
        self._events = sched.scheduler(clock.now, lambda seconds: None)
        self._entries = {}                      # key -> Entry
        self._changed = threading.Condition()
        self._is_stopping = self._is_held = False
        self._is_woken = False
        self._sleeps_until = float("inf")       # what comes before then wakes it
        self._ahead = None              # the clock of the day before the steady one, seconds
        self._missed = Missed(0.0, *DOWN)       # by all
        self._outdated = 0                      # events whose entry was replaced
        self._calls = self._kept_calls = 0      # events of call_at; so many at the last cleaning
        self._look, self._no_words = self._come_up, {}      # the same objects for all events

    # -- what it knows -----------------------------------------------------------------

    def put(self, entry):
        """Takes a schedule in, or in place of the one of its key, at once."""
        with self._changed:
            before = self._entries.get(entry.key)
            if before is not None and before.repository is entry.repository \
                    and before.revision > entry.revision:
                return                  # of two changes at once, the later was quicker
            self._drop(entry.key)
            self._entries[entry.key] = entry
            self._arm(entry)

    def remove(self, key):
        """Forgets the schedule of a key (repository id, name), if there is one."""
        with self._changed:
            self._drop(key)

    def _drop(self, key):
        before = self._entries.pop(key, None)
        self._outdated += before is not None and before.due is not None

    def find(self, key):
        """The Entry of a key, or None."""
        return self._entries.get(key)

    def list_entries(self, repository_id):
        """The Entries of a repository."""
        with self._changed:
            entries = list(self._entries.values())
        return [entry for entry in entries if entry.repository.id == repository_id]

    def call_at(self, when, function, is_wanted=lambda: True):
        """Calls function() in the scheduler's thread at a time (epoch seconds). It may be forgotten
        when it is not wanted any more."""
        with self._changed:
            self._events.enterabs(when, FIRST, self._call, (function, is_wanted))
            self._calls += 1
            self._wake(when)

    def _call(self, function, _):
        with self._changed:
            self._calls -= 1
        function()

    def decided(self, entry, upto, was_slow=False):
        """Due times are decided and written: arms the next. What came due while a slow repository
        was waited for was missed."""
        with self._changed:
            entry.settle(upto, Missed(self._clock.now(), *AWAY) if was_slow else None)
            if self._entries.get(entry.key) is entry:
                self._arm(entry)

    def hold(self, is_held):
        """Held, nothing is decided; the release decides what was due meanwhile."""
        with self._changed:
            if self._is_held and not is_held:
                self._missed = Missed(self._clock.now(), *ON_HOLD)
                self._arm_resting(list(self._entries.values()))
            self._is_held = is_held

    def release(self, repository_id):
        """The hold of a repository is over: what was due meanwhile is decided."""
        entries = self.list_entries(repository_id)
        with self._changed:
            for entry in entries:
                entry.miss(Missed(self._clock.now(), *ON_HOLD))
            self._arm_resting([entry for entry in entries
                               if self._entries.get(entry.key) is entry])

    def _arm_resting(self, entries):
        for entry in entries:
            if entry.due is None and entry.asked is None:
                self._arm(entry)

    def _arm(self, entry):
        due = entry.arm()
        if due is not None:
            self._events.enterabs(due, entry.key, self._look, (entry, due), self._no_words)
            self._wake(due)

    # -- time --------------------------------------------------------------------------

    def tick(self):
        """Does everything that is due; seconds until the next, or None."""
        self._watch_clock()
        if self._outdated > len(self._entries) + 1000 \
                or self._calls > 2 * self._kept_calls + max(1000, len(self._entries) // 10):
            self._forget_outdated()     # which looks at all events
        return self._events.run(blocking=False)

    def _watch_clock(self):
        """Notices that the clock of the day has gone otherwise than the steady one."""
        before = self._clock.monotonic()
        now = self._clock.now()
        after = self._clock.monotonic()
        if after - before > STEP_S / 2:         # interrupted between the two: says nothing
            return
        step = 0.0 if self._ahead is None else now - after - self._ahead
        self._ahead = now - after
        if abs(step) < STEP_S:
            return
        with self._changed:
            if step > 0:
                self._missed = Missed(now, MISFIRE, "the clock stepped forward by %.1f s" % step)
            else:                               # what is due from now on is not missed
                self._missed = self._missed._replace(until=min(self._missed.until, now))
                for entry in self._entries.values():
                    entry.step_back(now)
        self._on_step(step)

    def _forget_outdated(self):
        """Makes the queue of events anew without those whose entry was replaced, or whose call
        nobody wants any more."""
        with self._changed:
            events, self._events = (self._events.queue,
                                    sched.scheduler(self._clock.now, lambda _: None))
            self._outdated = self._calls = 0
            for event in events:
                is_call = event.action is not self._look
                if event.argument[1]() if is_call else self._is_current(*event.argument):
                    self._events.enterabs(*event[:2], *event[-3:])
                    self._calls += is_call
            self._kept_calls = self._calls

    def _is_current(self, entry, due):
        return entry.due == due and self._entries.get(entry.key) is entry

    def _come_up(self, entry, due):
        """The event of an Entry has come up: it is judged, if it is still this one."""
        with self._changed:
            if not self._is_current(entry, due):
                self._outdated -= 1
                return
            if self._is_stopping:
                return
            entry.come_up()
            if self._is_held or entry.is_held or entry.asked is not None:
                return                  # decided at the release, armed when it is written
            entry.ask()
        self._judge(entry)

    def _judge(self, entry):
        """Hands on what becomes of what has come by now -> up to where."""
        with self._changed:
            missed = max(self._missed, entry.missed)
        now = self._clock.now()
        upto, spans = entry.judge(now, missed)
        if all(span.reason for span in spans):
            entry.keep_quiet(now + EXCLUDED_S)
        entry.ask(upto)
        if spans:
            self._decide(entry, upto, spans)
        else:
            self.decided(entry, upto)
        return upto

    def decide_now(self, key):
        """Decides what has come by now, before another entry takes the place of this one: up to
        where. What is held is not decided: None."""
        with self._changed:
            entry = self._entries.get(key)
            if entry is None or entry.is_held or self._is_held or self._is_stopping:
                return None
            if entry.asked is not None or entry.timetable is None:
                return self._clock.now() if entry.asked is None else entry.asked
            self._outdated += entry.due is not None
            entry.come_up()
            entry.ask()
        return self._judge(entry)

    def run(self):
        """The scheduler's thread: until stop()."""
        while not self._is_stopping:
            try:
                seconds = self.tick()
            except Exception:           # one action's fault; its event is gone, the others stay
                log.exception("scheduler")
                continue
            with self._changed:
                # at most a second, so that a step of the clock is noticed in time
                seconds = 1.0 if seconds is None else max(0.0, min(seconds, 1.0))
                if not self._is_woken and not self._is_stopping:
                    self._sleeps_until = self._clock.now() + seconds
                    self._changed.wait(seconds)
                    self._sleeps_until = float("inf")
                self._is_woken = False

    def _wake(self, when):
        if when < self._sleeps_until and not self._is_woken:
            self._is_woken = True
            self._changed.notify_all()

    def stop(self):
        """Ends run(); nothing more is decided."""
        with self._changed:
            self._is_stopping = True
            self._wake(0.0)
