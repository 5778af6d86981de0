"""Due times as a plan sees them: estimated, held, outstanding, and what became of each."""
import itertools
from typing import NamedTuple, Optional

from ..base.errors import NotFound, Unreadable
from ..base.times import local_iso
from ..timetable.timetable import find_jitter
from ..store.admission import list_gates
from ..store.records import Hold
from .preview import NEVER_RELEASED

MAX_VISITS = 20000      # due times that a plan plays
NO_LIMIT = {"limit": None, "on_limit": "wait"}
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
                 "limit", "on_limit", "begin", "end", "outcome", "notes", "is_backlog", "is_held",
                 "event", "is_plan")

    def __init__(self, **fields):
        self.begin = self.end = self.outcome = None
        self.is_plan = False            # takes no slot
        self.event = 0.0               # when its Entry comes up, if before it
        self.is_backlog = False         # as of a Span
        self.is_held = False            # it does not come: its hold has decided that
        self.notes = []
        for name, value in fields.items():
            setattr(self, name, value)

    @property
    def schedule(self):
        """What tells its schedule from all others: repository id, name (None: it has none)."""
        return self.scenario[0], self.name

    def list_gates(self):
        """The gates that it has to pass, as those of a Ticket."""
        return list_gates(self.scenario[0], self.name, self.overlap == "parallel",
                          self.scenario[1], self.limit)

    # -- what becomes of it ------------------------------------------------------------

    def note(self, text):
        """Adds a sentence to what SCHED PLAN says of it."""
        self.notes.append(text)

    def skip(self, note):
        """It makes no session; `note` says why."""
        self.outcome = SKIPS
        self.notes.append(note)

    @property
    def turn(self):
        """What comes at one instant comes in this order, as in the Scheduler."""
        return self.at, self.event or self.at, self.schedule

    def hold_back(self, note, release, run, event):
        """It lies within a hold, which decides it: `run` is what that lets run for it, a Span, or
        None; then it comes at the release, else never (release None: not in the period)."""
        self.notes.append(note)
        if run is not None:
            self.at, self.outcome, self.is_backlog = release, self.outcome or QUEUES, run.is_backlog
            self.event = event
        else:
            self.is_held, self.outcome = True, None if release is None else SKIPS

    def overlap_with(self, other):
        """A session of its schedule still runs when it comes."""
        self.outcome = self.outcome or OVERLAPS
        self.notes.append("the one due %s still runs" % local_iso(other.due))

    def replace(self, following, now):
        """It ends now, for the next due time of its schedule."""
        self.outcome, self.end = OVERLAPS, now
        self.notes.append("stopped by the one due %s" % local_iso(following.due))

    def start(self, now):
        """It begins now (epoch seconds), and ends after its usual duration."""
        self.begin, self.end = now, now + self.duration
        self.outcome = self.outcome or (STARTS if now == self.at else QUEUES)
        if now > self.at:
            self.notes.append("waits %.3g s" % (now - self.at))

    def close(self):
        """The play is over."""
        if self.begin is None and self.end is None and self.outcome != SKIPS:
            self.outcome = UNFIT
            self.notes.append("has not begun by the end of the period")

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
    # timeout, concurrency, and whether it is a plan, when there is a due time at all
    bounds = []

    def make(due):
        """The Visit of a due time."""
        if not bounds:
            try:
                _, scenario = repository.db.read(repository.scenarios.get_scenario,
                                                 schedule.scenario, schedule.version)
            except (NotFound, Unreadable):      # its due times will say so
                scenario = None
            bounds.extend((schedule.get("timeout") or (scenario and scenario.timeout),
                           scenario and scenario.concurrency or NO_LIMIT,
                           scenario is not None and scenario.plan is not None))
        timeout, concurrency, is_plan = bounds
        visit = Visit(
            name=schedule.name, scenario=(repository.id, schedule.scenario), due=due,
            at=due + find_jitter(schedule.name, int(due), schedule.get("jitter"), timetable),
            overlap=schedule.get("overlap"), priority=schedule.get("priority"),
            limit=concurrency["limit"], is_plan=is_plan,
            on_limit=concurrency["on_limit"]).estimate(duration, timeout)
        if schedule.get("after"):
            visit.notes.append("after %s" % schedule.get("after"))
        return visit
    return make


def open_visit(repository, session, duration, now):
    """The Visit of an OpenSession: until when it runs, or from when on it may begin."""
    ticket = session.ticket
    planned = ticket.start_at or session.created
    visit = Visit(name=ticket.schedule, scenario=(repository.id, ticket.scenario),
                  due=session.due or planned, at=max(now, planned),
                  overlap="queue" if ticket.schedule and not ticket.is_parallel else "parallel",
                  is_plan=ticket.is_plan,
                  priority=ticket.priority, limit=ticket.limit, on_limit="wait", begin=session.begun
                  ).estimate(duration, session.timeout)
    if session.begun is not None:
        visit.end = max(now, session.begun + visit.duration)
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
    earlier, event = map(make, [due for due in runs if due < begin]), entry.find_event()
    for visit in itertools.chain(earlier, list_visits(make, entry.timetable, begin, end)):
        if entry.decided < visit.due <= upto:
            visit.hold_back(note, None if release > end else release, runs.get(visit.due),
                            event)
        yield visit
