"""Due times as a plan sees them: estimated, held, outstanding."""
import itertools
from typing import NamedTuple, Optional

from ..base.vocabulary import MAX_QUEUE
from ..base.errors import NotFound, Unreadable
from ..timetable.timetable import find_jitter
from ..store.records import Hold
from .preview import NEVER_RELEASED

MAX_VISITS = 20000      # due times that a plan plays
NO_LIMIT = {"limit": MAX_QUEUE, "on_limit": "wait"}
OUTCOMES = STARTS, OVERLAPS, QUEUES, SKIPS, UNFIT = (
    "starts", "overlaps", "queues", "skipped", "never")


class Period(NamedTuple):
    """What a plan is played for; epoch seconds."""
    begin: float
    end: float
    now: float
    slots: int
    hold: Optional[Hold] = None         # of the agent


class Visit:
    """A due time in a plan, or a session that is open: what it wants, and what became of it."""
    __slots__ = ("name", "scenario", "due", "at", "duration", "is_known", "overlap", "priority",
                 "limit", "on_limit", "begin", "end", "outcome", "notes", "is_backlog", "is_held")

    def __init__(self, **fields):
        self.begin = self.end = self.outcome = None
        self.is_backlog = False         # as of a Span
        self.is_held = False            # it does not come: its hold has decided that
        self.notes = []
        for name, value in fields.items():
            setattr(self, name, value)

    @property
    def schedule(self):
        """What tells its schedule from all others: repository id, name (None: it has none)."""
        return self.scenario[0], self.name

    def skip(self, note):
        """It makes no session, and why."""
        self.outcome = SKIPS
        self.notes.append(note)

    def estimate(self, duration, timeout):
        """How long it takes: the median of past sessions, s, or None; and its time-out."""
        self.duration, self.is_known = duration or 0.0, duration is not None
        if duration is None:
            self.notes.append("no session of its scenario has ended well yet: taken as 0 s")
        elif timeout and duration > timeout:
            self.outcome, self.duration = UNFIT, timeout
            self.notes.append("takes %g s, its timeout is %g s" % (duration, timeout))
        return self


def visit_maker(repository, schedule, duration, timetable=None):
    """make(due) -> Visit of a schedule. `duration` of past sessions, s, or None."""
    # timeout and concurrency, when there is a due time at all
    bounds = []

    def make(due):
        if not bounds:
            try:
                _, scenario = repository.db.read(repository.scenarios.get_scenario,
                                                 schedule.scenario, schedule.version)
            except (NotFound, Unreadable):      # its due times will say so
                scenario = None
            bounds.extend((schedule.get("timeout") or (scenario and scenario.timeout),
                           scenario and scenario.concurrency or NO_LIMIT))
        timeout, concurrency = bounds
        visit = Visit(
            name=schedule.name, scenario=(repository.id, schedule.scenario), due=due,
            at=due + find_jitter(schedule.name, int(due), schedule.get("jitter"), timetable),
            overlap=schedule.get("overlap"), priority=schedule.get("priority"),
            limit=concurrency["limit"],
            on_limit=concurrency["on_limit"]).estimate(duration, timeout)
        if schedule.get("after"):
            visit.notes.append("after %s" % schedule.get("after"))
        return visit
    return make


def open_visit(repository, session, duration, now, release):
    """The Visit of an OpenSession: until when it runs, or from when on it may begin."""
    ticket = session.ticket
    planned = ticket.start_at or session.created
    visit = Visit(name=ticket.schedule, scenario=(repository.id, session.scenario),
                  due=session.due or planned, at=max(now, planned, release),
                  overlap="queue" if ticket.schedule and not ticket.is_parallel else "parallel",
                  priority=ticket.priority, limit=ticket.limit or MAX_QUEUE, on_limit="wait"
                  ).estimate(duration, session.timeout)
    if session.begun is not None:
        visit.begin = session.begun
        visit.end = max(now, visit.begin + visit.duration)
    return visit


def list_visits(make, timetable, begin, end):
    """Yields make(due) for each due time from begin to end."""
    due = timetable.next_after(int(-(-begin // 1)) - 1)
    while due is not None and due <= end:
        yield make(due)
        due = timetable.next_after(due)


def list_held(make, entry, begin, end, release, note):
    """list_visits of an Entry that is held until its release: what `misfire` makes of them then,
    and before them those that came due before the period and run at the release."""
    upto, spans = (NEVER_RELEASED, []) if release > end else entry.judge(release, entry.missed)
    runs = {span.first: span for span in spans if not span.reason}
    earlier = map(make, [due for due in runs if due < begin])
    for visit in itertools.chain(earlier, list_visits(make, entry.timetable, begin, end)):
        if entry.decided < visit.due <= upto:
            visit.notes.append(note)
            if visit.due in runs:
                visit.at, visit.outcome = release, visit.outcome or QUEUES
                visit.is_backlog = runs[visit.due].is_backlog
            else:
                visit.is_held, visit.outcome = True, None if release > end else SKIPS
        yield visit
