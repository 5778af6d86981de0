"""What goes into the store and comes out of it, as values.

Times are epoch seconds, durations seconds; the store alone knows them as text."""
from typing import Any, NamedTuple, Optional, Tuple

from ..base.vocabulary import DEFAULT_CONTEXT, MAX_QUEUE
from ..base.errors import Conflict
from ..base.times import find_time, to_text
from ..definitions.model import Schedule
from .admission import list_gates, repository_gate


class Attachment(NamedTuple):
    """A work repository as the master knows it."""
    id: int
    name: str
    path: str       # absolute
    uuid: Optional[str]


class Hold(NamedTuple):
    """Why nothing new begins, who said so, since when, and until when if ever."""
    reason: str
    by: str
    since: float
    until: Optional[float]


def read_hold(row):
    """The Hold of a row of agent, schedule or repository, or None. A time of it that another
    program has spoilt is as none: it has always been, or never ends."""
    return Hold(row["hold_reason"], row["hold_by"], find_time(row["hold_since"]) or 0.0,
                find_time(row["hold_until"])) if row["hold_since"] else None


def hold_columns(hold):
    """The four columns that keep a Hold, or its release (None)."""
    return (None,) * 4 if hold is None else (
        hold.reason, hold.by, to_text(hold.since), hold.until and to_text(hold.until))


class Change(NamedTuple):
    """What an import makes of one definition of its document."""
    kind: str               # scenario, schedule, context, data_server, logical_schema, calendar
    name: str
    version: Optional[str]  # of a scenario
    change: str             # new, changed, same


class SessionRequest(NamedTuple):
    """What EXEC or a schedule asks for."""
    scenario: str
    agent: str
    version: str = "-1"
    context: str = DEFAULT_CONTEXT
    variables: dict = {}
    name: str = ""
    keywords: str = ""
    priority: int = 0
    level: int = 5
    timeout: Optional[float] = None
    start_at: Optional[float] = None
    key: Optional[str] = None
    schedule: Optional[str] = None
    due: Optional[float] = None
    is_held: bool = False
    hidden: Tuple[str, ...] = ()        # values that must not be stored
    asked_by: str = ""                  # who asks for it, where that is a client
    patterns: Tuple[str, ...] = ()      # of the scenarios that are there for him; (): all
    is_parallel: bool = False           # beside others of its schedule
    replaces: Tuple[int, ...] = ()      # sessions that end for it
    parent: Optional[int] = None        # the session whose task asks for it
    parent_run: Optional[int] = None    # the run of that task
    node: Optional[int] = None          # where that is a plan: the run of its node
    secret_file: Optional[str] = None   # where the secrets among the variables lie: of SecretFiles
    from_step: Optional[str] = None     # the step with which it begins


class RestartRequest(NamedTuple):
    """What RESTART asks for."""
    session: int
    variables: dict = {}
    from_step: Optional[str] = None     # where it goes on, instead of at what failed
    is_skipping: bool = False           # behind what failed
    is_redefining: bool = False         # with the definition that its version has now
    secret_file: Optional[str] = None   # as of a SessionRequest
    is_held: bool = False
    patterns: Tuple[str, ...] = ()      # of the scenarios that are there for who asks; (): all
    plan: Optional[int] = None          # the plan that asks for it, of a child of its own


class Ticket(NamedTuple):
    """An acknowledged session, as the queue needs it."""
    session: int
    status: str
    agent: str
    priority: int = 0
    start_at: Optional[float] = None
    schedule: Optional[str] = None
    is_duplicate: bool = False
    scenario: str = ""
    limit: Optional[int] = None         # sessions of the scenario at once
    wait_until: Optional[float] = None  # until when it may wait for that
    is_adopted: bool = False            # its process lives on, or its exit code was noted
    is_parallel: bool = False
    excess: str = ""                    # why the limit of its scenario ends it at once
    ending: Any = None                  # its Ending, when that has been so
    spent_file: str = ""                # of SecretFiles: what a RESTART had before and replaces
    has_secrets: bool = False           # the secret file of its request is its own now
    is_child: bool = False              # a session has asked for it, and may wait for its end
    is_plan: bool = False               # it takes no slot
    note: str = ""                      # what is to be said of its RESTART
    wait: Any = None                    # the Wait of one that is WAITING, for who has asked

    def gates(self, repository):
        """The gates that its session has to pass in a repository, as list_gates() makes them."""
        return [(repository_gate(repository.id), MAX_QUEUE)] + list_gates(
            repository.id, self.schedule, self.is_parallel, self.scenario, self.limit)


class OpenSession(NamedTuple):
    """A session that runs or is outstanding, as a plan begins with it."""
    ticket: Ticket
    created: float
    begun: Optional[float]              # None: it is outstanding
    due: Optional[float]                # of its schedule
    timeout: Optional[float]


class Ending(NamedTuple):
    """The end of a session, and what that brings about."""
    session: int
    status: str                         # QUEUED: it does not end, but goes on
    tickets: Tuple[Ticket, ...] = ()    # to be queued: the next attempt of its schedule, or itself
    is_awaited: bool = False            # a schedule runs after it
    secret_file: str = ""               # of SecretFiles: not needed any more
    scenario: str = ""
    duration_s: Optional[float] = None  # None: it has not begun
    message: str = ""
    late_s: Optional[float] = None      # from its due time to its begin; None: it had none, or
                                        # it is not its first start
    parent: Optional[int] = None        # the session that has asked for it


class Made(NamedTuple):
    """What a due time has made."""
    ticket: Optional[Ticket]            # None: its scenario's limit, or an error, let it make none
    endings: Tuple[Ending, ...] = ()    # of outstanding sessions that it replaces
    replaced: Tuple[int, ...] = ()      # running sessions that are to be stopped for it


class SessionFilter(NamedTuple):
    """Which sessions a listing shows."""
    statuses: Tuple[str, ...] = ()
    scenario: Optional[str] = None
    schedule: Optional[str] = None
    keyword: Optional[str] = None
    since: Optional[float] = None
    parent: Optional[int] = None        # the session whose task has started them
    patterns: Tuple[str, ...] = ()      # of scenarios; (): of all
    text: Optional[str] = None          # in its names, keywords or message, of the newest MANY


class LogFilter(NamedTuple):
    """Which lines of a session's log are read."""
    step: Optional[str] = None
    stream: Optional[str] = None
    since: Optional[float] = None
    tail: Optional[int] = None          # so many of the newest, and what comes after them


class PurgeFilter(NamedTuple):
    """Which of the ended sessions are purged: with both times and numbers, those that both name."""
    before: Optional[float] = None      # that ended before
    keep: Optional[int] = None          # that are not among the newest so many of these
    statuses: Tuple[str, ...] = ()
    scenario: Optional[str] = None
    patterns: Tuple[str, ...] = ()      # of scenarios; (): of all


class Origin(NamedTuple):
    """What a change of a schedule was made from, to tell whether that still stands."""
    revision: int
    decided: Optional[float]            # None: another program has spoilt it
    spans: Tuple[Any, ...] = ()         # Spans of what had come by then and was not decided


class Span(NamedTuple):
    """Due times of a schedule that share a decision."""
    first: float
    last: float
    count: int
    reason: str             # why they are skipped; empty: the one is to run
    message: str = ""
    planned: Optional[float] = None     # when it was to run, if later than due (jitter)
    is_backlog: bool = False        # one of many that were missed: waits, however many wait already


class Last(NamedTuple):
    """The newest due time of a schedule that made a session."""
    due: Optional[float]                # None: another program has spoilt it
    session: int                        # of several attempts, the newest
    status: Optional[str]               # of that; None: another program has deleted it


def read_last(row):
    """The Last of a row of a listing of schedules, or None."""
    if row["last_session"] is None:
        return None
    return Last(find_time(row["last"]), row["last_session"], row["last_status"])


class StoredSchedule(NamedTuple):
    """A schedule as its repository has it: what fires, LIST, NEXT, WHY and PLAN look at."""
    schedule: Schedule
    revision: int                       # tells that it has changed
    decided: float                      # due times up to here have their decision
    waiting: Optional[float]            # the due time that waits for what `after` names
    hold: Optional[Hold]
    timetable: Any                      # a Timetable; None: it cannot fire
    # why it cannot: another program has spoilt its row, or what it names is not there any more
    trouble: str = ""
    is_spoilt: bool = False             # so that its variables and options cannot be told
    last: Optional[Last] = None         # in a listing, where there is one
    boot: Optional[str] = None          # that its rule `boot` knows; None: it is noted when read

    @property
    def firing(self):
        """The Timetable by which it fires; None when it is off, or runs after others alone."""
        return self.timetable if self.schedule.enabled and self.schedule.rule else None

    def check(self):
        """Conflict when its row is spoilt."""
        if self.is_spoilt:
            raise Conflict(self.trouble)
        return self
