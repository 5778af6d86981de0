"""A schedule in memory: what is decided, what comes next, and what of its past may still run."""
from typing import NamedTuple, Optional

from ..base.vocabulary import HELD, LOST, MAX_BATCH, MAX_MISSED, MISFIRE, MISSED_S
from ..base.times import to_text
from ..timetable.days import _find_first
from ..timetable.timetable import find_jitter
from ..store.records import Span

DOWN = MISFIRE, "the agent was down"
AWAY = LOST, "the repository could not be used"
ON_HOLD = HELD, "held at that time"
CHANGED = MISFIRE, "the schedule was changed before it ran"


def in_text(span):
    """A Span as the tables have it."""
    return span._replace(first=to_text(span.first), last=to_text(span.last),
                         planned=span.planned and to_text(span.planned))


class Policy(NamedTuple):
    """What a schedule wants for due times that were missed, and how it spreads its starts."""
    misfire: str
    grace: Optional[float]
    jitter: int


class Entry:
    """One schedule in memory. It is replaced, never changed, when its row changes."""
    __slots__ = ("repository", "name", "revision", "timetable", "policy", "hold", "decided",
                 "since",
                 "why", "due", "quiet", "asked")

    def __init__(self, repository, name, revision, timetable, policy, hold, decided, since,
                 why=DOWN):
        self.repository, self.name, self.revision = repository, name, revision
        self.timetable = timetable      # None: never fires by itself
        self.policy, self.hold = policy, hold       # Policy, and a Hold or None
        self.decided = decided          # epoch seconds: due times up to here have their decision
        self.since, self.why = since, why           # due times up to here were missed, and why
        self.due = None                 # the instant that is armed
        self.quiet = 0.0                # until then what is excluded is not recorded
        self.asked = None               # up to where it is being decided: not written yet

    @property
    def key(self):
        """What tells it from all others of the agent."""
        return self.repository.id, self.name

    def judge(self, now, since, why):
        """What becomes of the due times whose time has come: (instant, [Span] up to it).

        Those up to `since` (epoch seconds) were missed, `why` being (reason, text).
        """
        cursor = int(self.decided // 1)
        newest, spans = self._find_missed(cursor, min(since, now)), []
        if newest is not None:
            cursor, spans = self._judge_missed(cursor, newest, now, why)
        due = self.timetable.next_after(cursor)
        while due is not None and self.plan(due) <= now and len(spans) < MAX_BATCH:
            spans += self._excluded(cursor, due)
            spans.append(self._run(due))
            cursor, due = due, self.timetable.next_after(due)
        excluded = self._excluded(cursor, min(self._limit(due), int(now // 1) + 1))
        return excluded[-1].last if excluded else cursor, spans + excluded

    def _find_missed(self, cursor, since):
        """The newest due time that was to run by `since`, as all before it were, or None."""
        newest = self.timetable.last_until(cursor, int(since // 1))
        if newest is not None and self.plan(newest) > since:
            newest = self.timetable.last_until(cursor, newest - 1)
        return newest

    def _judge_missed(self, cursor, newest, now, why):
        """The part of judge() for what was missed after `cursor`, up to `newest`."""
        runs = self._list_runs(cursor, newest, now)
        before = runs[0] if runs else newest + 1
        spans = [span._replace(message="; ".join(filter(None, (why[1], span.message))),
                               is_backlog=self.policy.misfire == "all")
                 for span in map(self._run, runs)]
        spans += self.list_skipped(cursor, before - 1, why) + self._excluded(cursor, newest)
        return newest, sorted(spans, key=lambda span: span.first)

    def list_skipped(self, after, until, why):
        """The due times of a stretch as one Span that says why they are skipped,
        or none: [Span]."""
        count = self.timetable.count(after, until)
        return [Span(self.timetable.next_after(after), self.timetable.last_until(after, until),
                     count, *why)] if count else []

    def _list_runs(self, cursor, newest, now):
        """Those of the missed due times that `misfire` lets run;
        grace begins when they were planned."""
        misfire, grace, jitter = self.policy
        if misfire == "skip":
            return []
        if misfire == "once":
            return [newest] if grace is None or now - self.plan(newest) <= grace else []
        patience_s = (MISSED_S if grace is None else grace) + jitter
        oldest = max(cursor, int(-((patience_s - now) // 1)) - 1)
        if newest <= oldest:
            return []
        after = oldest if self.timetable.count(oldest, newest) <= MAX_MISSED else _find_first(
            oldest, newest, lambda instant: self.timetable.count(instant, newest) <= MAX_MISSED)
        runs = [self.timetable.next_after(after)]
        while runs[-1] < newest:
            runs.append(self.timetable.next_after(runs[-1]))
        return runs

    def _excluded(self, after, before):
        if self.timetable.next_excluded(after, before) is None:
            return []
        return [Span(*found) for found in self.timetable.excluded_spans(after, before - 1)]

    def _limit(self, due):
        """Before which nothing else is due than `due`; at the end of the rule this is None."""
        return self.timetable.last + 1 if due is None else due

    def _run(self, due):
        return Span(due, due, 1, "", "; ".join(self.timetable.notes(due)),
                    self.plan(due) if self.policy.jitter else None)

    def plan(self, due):
        """When a due time is to run."""
        jitter = self.policy.jitter
        return due + find_jitter(self.name, due, jitter, self.timetable) if jitter else due

    def find_event(self):
        """When it is to be looked at next, or None."""
        if self.timetable is None:
            return None
        cursor = int(self.decided // 1)
        due = self.timetable.next_after(cursor)
        excluded = self.timetable.next_excluded(cursor, self._limit(due))
        events = [] if due is None else [self.plan(due)]
        return min(events if excluded is None else events + [max(excluded, self.quiet)],
                   default=None)
