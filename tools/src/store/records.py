"""What goes into the store and comes out of it, as values."""
from typing import Any, NamedTuple, Optional, Tuple

from ..base.vocabulary import DEFAULT_CONTEXT, MAX_QUEUE


class Attachment(NamedTuple):
    """A work repository as the master knows it."""
    id: int
    name: str
    path: str       # absolute
    uuid: Optional[str]


class Hold(NamedTuple):
    """Why nothing new begins, who said so, since when, and until when (UTC text) if ever."""
    reason: str
    by: str
    since: str
    until: Optional[str]


def hold_of(row):
    """The Hold of a row of agent or schedule, or None."""
    return Hold(*(row["hold_" + name] for name in Hold._fields)) if row["hold_since"] else None


class SessionRequest(NamedTuple):
    """What EXEC or a schedule asks for; times are UTC text, durations seconds."""
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
    start_at: Optional[str] = None
    key: Optional[str] = None
    schedule: Optional[str] = None
    due: Optional[str] = None
    is_held: bool = False
    hidden: Tuple[str, ...] = ()        # values that must not be stored
    is_parallel: bool = False           # beside others of its schedule
    replaces: Tuple[int, ...] = ()      # sessions that end for it
    parent: Optional[int] = None        # the session whose task asks for it
    secret_file: Optional[str] = None   # where the secrets among the variables lie: of SecretFiles


class Ticket(NamedTuple):
    """An acknowledged session, as the queue needs it."""
    session: int
    status: str
    agent: str
    priority: int = 0
    start_at: Optional[str] = None
    schedule: Optional[str] = None
    is_duplicate: bool = False
    scenario: str = ""
    limit: Optional[int] = None         # sessions of the scenario at once
    wait_until: Optional[float] = None  # epoch seconds until which it may wait for that
    is_adopted: bool = False            # its process lives on, or its exit code was noted
    is_parallel: bool = False
    excess: str = ""                    # why the limit of its scenario ends it at once
    ending: Any = None                  # its Ending, when that has been so
    spent_file: str = ""                # of SecretFiles: what a RESTART had before and replaces
    has_secrets: bool = False           # the secret file of its request is its own now

    def gates(self, repository):
        """[(what it shares with others, how many of them at once)]."""
        gates = []
        if self.schedule:
            gates = [(("schedule", repository.id, self.schedule),
                      MAX_QUEUE if self.is_parallel else 1)]
        return gates + [(("scenario", repository.id, self.scenario), self.limit)] * bool(self.limit)


class Ending(NamedTuple):
    """The end of a session, and what that brings about."""
    session: int
    status: str                         # QUEUED: it does not end, but goes on
    tickets: Tuple[Ticket, ...] = ()    # to be queued: the next attempt of its schedule, or itself
    is_awaited: bool = False            # a schedule runs after it
    secret_file: str = ""               # of SecretFiles: not needed any more


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
    since: Optional[str] = None


class Origin(NamedTuple):
    """What a change of a schedule was made from, to tell whether that still stands."""
    revision: int
    decided: str                        # UTC text
    spans: Tuple[Any, ...] = ()         # Spans of what had come by then and was not decided


class Span(NamedTuple):
    """Due times of a schedule that share a decision; times are UTC text in the tables' sections,
    epoch seconds in the scheduler's."""
    first: Any
    last: Any
    count: int
    reason: str             # why they are skipped; empty: the one is to run
    message: str = ""
    planned: Any = None     # when it was to run, if later than due (jitter)
    is_backlog: bool = False        # one of many that were missed: waits, however many wait already
