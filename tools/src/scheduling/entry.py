"""A schedule in memory: what is decided, what comes next, and what of its past may still run."""
import math
from typing import NamedTuple, Optional

from ..base.vocabulary import HELD, LOST, MAX_BATCH, MAX_MISSED, MISFIRE, MISSED_S
from ..timetable.days import _find_first, _share
from ..timetable.timetable import find_jitter
from ..store.records import Span

# why due times were missed: the reason that their occurrences get, and the words
DOWN = MISFIRE, "the agent was down"
AWAY = LOST, "the repository could not be used"
ON_HOLD = HELD, "held at that time"
CHANGED = MISFIRE, "the schedule was changed before it ran"


class Missed(NamedTuple):
    """The due times up to an instant (epoch seconds) were missed, and why."""
    until: float
    reason: str
    text: str


class Policy(NamedTuple):
    """What a schedule wants for due times that were missed, and how it spreads its starts."""
    misfire: str
    grace: Optional[float]
    jitter: int


class Entry:
    """One schedule in memory, made of its StoredSchedule; times are epoch seconds. When its row
    changes, another takes its place."""
    __slots__ = ("repository", "name", "key", "revision", "timetable", "policy", "hold", "decided",
                 "missed", "due", "quiet", "asked", "boot")

    def __init__(self, repository, stored, missed, model=None):
        """`model`: another with the same rule, zone and options, where there is one."""
        schedule = stored.schedule
        self.repository, self.name, self.revision = repository, schedule.name, stored.revision
        self.key = repository.id, self.name     # what tells it from all others of the agent
        self.timetable = stored.firing  # None: never fires by itself
        self.policy = model.policy if model else Policy(*map(schedule.get, Policy._fields))
        self.hold = stored.hold         # None: it is not held
        self.boot = _share(stored.boot)     # the one for which its rule `boot` need not fire
        self.decided = stored.decided   # due times up to here have their decision
        self.missed = missed            # those that were Missed
        self.due = None                 # the instant that is armed
        self.asked = None               # up to where it is being decided: not written yet
        self.quiet = 0.0                # until then what is excluded is not recorded

    @property
    def is_held(self):
        """Whether its own hold, or that of its repository, keeps it from being decided."""
        return self.hold is not None or self.repository.hold is not None

    # -- its life, as the Scheduler's docstring shows it -------------------------------

    def arm(self):
        """Waits for its next instant -> that, or None: there is none."""
        self.due = self.find_event()
        return self.due

    def come_up(self):
        """Its instant has come, or it is looked at before: it waits no more."""
        self.due = None

    def ask(self, upto=None):
        """It is being decided, up to an instant where that is known."""
        self.asked = self.decided if upto is None else upto

    def settle(self, upto, missed=None):
        """All up to an instant is decided and written; what came due meanwhile may be Missed."""
        self.decided, self.asked = max(self.decided, upto), None
        self.missed = missed or self.missed

    def miss(self, missed):
        """What came due up to an instant was Missed."""
        self.missed = max(self.missed, missed)

    def keep_quiet(self, until):
        """Due times that are excluded are not recorded before then."""
        self.quiet = until

    def step_back(self, now):
        """The clock has: what is due from now on is not missed."""
        if self.missed.until > now:
            self.missed = self.missed._replace(until=now)

    # -- what becomes of its due times -------------------------------------------------

    def judge(self, now, missed):
        """What becomes of the due times whose time has come, up to now (epoch seconds): (the
        instant up to which all is decided, [Span])."""
        cursor = math.floor(self.decided)
        newest, spans = self._find_missed(cursor, min(missed.until, now)), []
        if newest is not None:
            cursor, spans = self._judge_missed(cursor, newest, now, missed)
        due = self.timetable.next_after(cursor)
        while due is not None and self.plan(due) <= now and len(spans) < MAX_BATCH:
            spans += self._excluded(cursor, due)
            spans.append(self._run(due))
            cursor, due = due, self.timetable.next_after(due)
        excluded = self._excluded(cursor, min(self._limit(due), math.floor(now) + 1))
        return excluded[-1].last if excluded else cursor, spans + excluded

    def _find_missed(self, cursor, until):
        """The newest due time that was to run by then, as all before it were, or None."""
        newest = self.timetable.last_until(cursor, math.floor(until))
        if newest is not None and self.plan(newest) > until:
            newest = self.timetable.last_until(cursor, newest - 1)
        return newest

    def _judge_missed(self, cursor, newest, now, missed):
        """The part of judge() for what was missed after `cursor`, up to `newest`."""
        runs = self._list_runs(cursor, newest, now)
        before = runs[0] if runs else newest + 1
        spans = [span._replace(message="; ".join(filter(None, (missed.text, span.message))),
                               is_backlog=self.policy.misfire == "all")
                 for span in map(self._run, runs)]
        spans += self.list_skipped(cursor, before - 1, *missed[1:])
        spans += self._excluded(cursor, newest)
        return newest, sorted(spans, key=lambda span: span.first)

    def list_skipped(self, after, until, reason, text):
        """The due times of a stretch as one Span that says why they are skipped,
        or none: [Span]."""
        count = self.timetable.count(after, until)
        return [Span(self.timetable.next_after(after), self.timetable.last_until(after, until),
                     count, reason, text)] if count else []

    def _list_runs(self, cursor, newest, now):
        """Those of the missed due times that `misfire` lets run;
        grace begins when they were planned."""
        misfire, grace, jitter = self.policy
        if misfire == "skip":
            return []
        if misfire == "once":
            return [newest] if grace is None or now - self.plan(newest) <= grace else []
        patience_s = (MISSED_S if grace is None else grace) + jitter
        oldest = max(cursor, math.ceil(now - patience_s) - 1)
        if newest <= oldest:
            return []
        after = oldest if self.timetable.count(oldest, newest) <= MAX_MISSED else _find_first(
            oldest, newest, lambda instant: self.timetable.count(instant, newest) <= MAX_MISSED)
        runs = [self.timetable.next_after(after)]
        while runs[-1] < newest:
            runs.append(self.timetable.next_after(runs[-1]))
        return runs

    def _excluded(self, after, before):
        """[Span] of the due times between the two that its window, a gap or a fold excludes."""
        if self.timetable.next_excluded(after, before) is None:
            return []
        return [Span(*excluded) for excluded in self.timetable.excluded_spans(after, before - 1)]

    def _limit(self, due):
        """Before which nothing else is due than `due`; at the end of the rule this is None."""
        return self.timetable.last + 1 if due is None else due

    def _run(self, due):
        return Span(due, due, 1, "", "; ".join(self.timetable.notes(due)),
                    self.plan(due) if self.policy.jitter else None)

    def plan(self, due):
        """When a due time is to run (epoch seconds): then, or after its share of `jitter`."""
        jitter = self.policy.jitter
        return due + find_jitter(self.name, due, jitter, self.timetable) if jitter else due

    def find_event(self):
        """When it is to be looked at next, or None."""
        if self.timetable is None:
            return None
        cursor = math.floor(self.decided)
        due = self.timetable.next_after(cursor)
        excluded = self.timetable.next_excluded(cursor, self._limit(due))
        event = None if due is None else self.plan(due)
        if excluded is None:
            return event
        record = max(excluded, self.quiet)
        return record if event is None else min(event, record)
