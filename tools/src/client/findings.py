"""What a report is made of: what an agent says of the sessions and due times of a period."""
import json
from typing import NamedTuple

from ..base.times import find_instant, to_text
from .errors import ClientError, REFUSED

MOST_SESSIONS = 200000      # of a period; the newest
MOST_LISTED = 1000000       # rows that an agent gives
MOST_FAILURES = 40          # kinds of failures whose logs are shown
MOST_LOG_LINES = 14
EARLIER_S = 86400.0         # what was acknowledged so long before the period may have run in it
LONG_EARLIER_S = 30 * EARLIER_S         # what ended badly, likewise
ENDED_BADLY_STATES = ("ERROR", "STOPPED", "WARNING")        # the worst first
OPEN_STATES = ("RUNNING", "QUEUED", "WAITING")


class Period(NamedTuple):
    """Which time a report is about, in epoch seconds; `now` is when it was asked for."""
    begin: float
    end: float
    now: float


class Past(NamedTuple):
    """One session: it began, ran and ended; `begun` is when it ended where it never began."""
    number: int
    scenario: str
    status: str
    begun: float
    ended: float            # None: it has not
    took_s: float           # None: it never began
    message: str


class Failure(NamedTuple):
    """Sessions of a scenario that ended alike, newest first, and how the log of the newest ends."""
    scenario: str
    status: str
    message: str
    sessions: list          # [Past]
    log: list               # [{"time", "step", "task", "stream", "text"}]


class Omission(NamedTuple):
    """Due times of a schedule that made no session, for one reason."""
    schedule: str
    decision: str
    reason: str
    message: str            # of the newest
    count: int
    first: float
    last: float


class Findings(NamedTuple):
    """All of it."""
    ping: dict
    period: Period
    sessions: list          # [Past], oldest first
    outstanding: list       # rows of sessions that have not ended, oldest first
    failures: list          # [Failure], the worst and newest first
    further_failures: int   # kinds that are not among them
    omissions: list         # [Omission], by schedule
    late: int               # due times that ran late
    schedules: list         # rows of SCHED LIST
    is_cut: bool            # there were more sessions than are here
    troubles: list          # [text]: repositories that could not be read


class Asker:
    """Asks an agent for rows; repositories that cannot be read are noted in `troubles`."""

    def __init__(self, connection):
        self._connection, self.troubles = connection, {}

    def list_rows(self, request):
        """Yields the JSON objects of a reply as they come. Raises ClientError."""
        reply = self._connection.ask(request + " -JSON", is_lenient=True)
        for line in reply:
            yield json.loads(line)
        if reply.trouble is not None:
            self.troubles[str(reply.trouble)] = reply.trouble

    def ping(self):
        """How the agent is. Raises ClientError."""
        reply = self._connection.ask("PING -JSON")
        list(reply)
        return reply.fields


def find_out(asker, period):
    """The Findings of a Period. Raises ClientError."""
    ping = asker.ping()
    sessions, is_cut = list_sessions(asker, period)
    failures = group_failures(sessions)
    omissions, late = list_omissions(asker, period)
    outstanding = list(asker.list_rows("SESSIONS -STATUS=%s -LIMIT=1000" % ",".join(OPEN_STATES)))
    schedules = list(asker.list_rows("SCHED LIST"))
    shown = [failure._replace(log=read_log_end(asker, failure.sessions[0].number))
             for failure in failures[:MOST_FAILURES]]
    return Findings(ping, period, sessions, outstanding[::-1], shown,
                    len(failures[MOST_FAILURES:]), omissions, late, schedules, is_cut,
                    list(asker.troubles))


def list_sessions(asker, period):
    """The sessions that ran or ended in a period: ([Past], whether there were more). What was
    acknowledged before it is found, too, where it is a day old at most, has ended badly or not at
    all."""
    sessions, is_cut = {}, False
    for options in ("-SINCE=%s" % to_text(period.begin - EARLIER_S), "-STATUS=RUNNING",
                    "-STATUS=%s -SINCE=%s" % (",".join(ENDED_BADLY_STATES),
                                              to_text(period.begin - LONG_EARLIER_S))):
        for row in asker.list_rows("SESSIONS %s -LIMIT=%d" % (options, MOST_LISTED)):
            past = make_past(row)
            if past is None or past.begun > period.end or (
                    past.ended is not None and past.ended < period.begin):
                continue
            is_cut = is_cut or len(sessions) == MOST_SESSIONS
            if not is_cut:
                sessions[past.number] = past
    return sorted(sessions.values(), key=lambda past: (past.begun, past.number)), is_cut


def make_past(row):
    """The Past of a row of SESSIONS; None: it has not begun."""
    begun, ended = find_instant(row["begun"]), find_instant(row["ended"])
    if begun is None and ended is None:
        return None
    return Past(row["session"], row["scenario"], row["status"], ended if begun is None else begun,
                ended, None if begun is None else row["duration"], row["message"])


def group_failures(sessions):
    """What ended badly, those that ended alike together: [Failure] without logs."""
    groups = {}
    for past in sessions:
        if past.status in ENDED_BADLY_STATES:
            groups.setdefault((past.scenario, past.status, past.message), []).append(past)
    failures = [Failure(*key, sessions=group[::-1], log=[]) for key, group in groups.items()]
    return sorted(failures, key=lambda failure: (ENDED_BADLY_STATES.index(failure.status),
                                                 -failure.sessions[0].begun))


def read_log_end(asker, number):
    """The last lines of the log of a session; none where it is gone. Raises ClientError."""
    try:
        return list(asker.list_rows("LOG %d -TAIL=%d" % (number, MOST_LOG_LINES)))
    except ClientError as error:
        if error.status != REFUSED:
            raise
        return []


def list_omissions(asker, period):
    """What did not run in a period: ([Omission], how many due times ran late)."""
    groups, late = {}, 0
    for row in asker.list_rows("SCHED WHY -SINCE=%s -LIMIT=%d"
                         % (to_text(period.begin), MOST_LISTED)):
        due = find_instant(row["due"])
        if due is None or due > period.end:
            continue
        late += row["decision"] == "late"
        if row["decision"] in ("skipped", "failed"):
            key = (row["schedule"], row.get("repository"), row["decision"], row["reason"])
            last = find_instant(row["last_due"]) or due
            newer = groups.get(key) or Omission(row["schedule"], row["decision"], row["reason"],
                                                row["message"], 0, due, last)
            groups[key] = newer._replace(count=newer.count + (row["count"] or 1),
                                         first=min(due, newer.first), last=max(last, newer.last))
    return sorted(groups.values(), key=lambda omission: (omission.schedule, omission.first)), late
