"""Sessions of a work repository, one by one: their rows, their states, their tickets."""
import functools

from ..base.vocabulary import ENDED, OUTSTANDING, QUEUED, RUNNING, TRANSITIONS, WAITING
from ..base.errors import Conflict, LimitFilled, NotFound, Unreadable
from ..base.patterns import is_any_match
from ..base.times import from_text, to_text
from .pending import lazy
from .records import Ticket

# a session arrives when it is made, or at its start time
BY_ARRIVAL = " order by max(created, ifnull(start_at, created)), id"


class Sessions:
    """The rows of sessions, and the one place where their state changes."""

    def __init__(self, name, scenarios):
        self._name, self._scenarios = name, scenarios

    @staticmethod
    def find(connection, session):
        """The row of a session, or None."""
        return connection.execute("select * from session where id=?", (session,)).fetchone()

    def get(self, connection, session, patterns=()):
        """The row of a session, or NotFound; with patterns, of one whose scenario is as one says.
        """
        row = self.find(connection, session)
        if row is None or patterns and not is_any_match(patterns, row["scenario"]):
            raise NotFound("no session %d in repository %s" % (session, self._name))
        return row

    @staticmethod
    def list_ended(connection, sessions):
        """The numbers of those among these sessions that have ended."""
        ended = set()
        for first in range(0, len(sessions), 500):
            page = sessions[first:first + 500]
            ended.update(row[0] for row in connection.execute(
                "select id from session where id in (%s) and status in"
                " ('DONE', 'WARNING', 'ERROR', 'STOPPED')" % ",".join("?" * len(page)), page))
        return ended

    def list_above(self, connection, parent):
        """The rows of the sessions that led to one whose parent is this (None: to one that has
        none), the parent's first."""
        rows = []
        while parent is not None:
            row = self.find(connection, parent)
            if row is None:             # purged
                break
            rows.append(row)
            parent = row["parent"]
        return rows

    def get_scenario(self, connection, row):
        """The Scenario of a row of session. Unreadable."""
        return self._scenarios.parse_stored(connection, row["definition"])

    def make_ticket(self, connection, row):
        """A row of session -> Ticket. That its definition cannot be read is told when it begins."""
        try:
            scenario = self.get_scenario(connection, row)
        except Unreadable:
            scenario = None
        start_at = row["start_at"] and from_text(row["start_at"])
        return self.with_limit(
            Ticket(row["id"], row["status"], row["agent"], row["priority"], start_at,
                   row["schedule"], scenario=row["scenario"],
                   is_parallel=bool(row["is_parallel"]), is_child=row["parent"] is not None),
            scenario, start_at or from_text(row["created"]))

    @staticmethod
    def with_limit(ticket, scenario, since):
        """A Ticket with the limit of its Scenario (or None), for which it waits since then."""
        if scenario and scenario.plan is not None:
            ticket = ticket._replace(is_plan=True)
        if not scenario or not scenario.concurrency:
            return ticket
        wait = scenario.concurrency["max_wait"]
        return ticket._replace(limit=scenario.concurrency["limit"],
                               wait_until=wait and since + wait)

    @staticmethod
    def put_keywords(connection, session, keywords):
        """Makes a new session known by its keywords, words between commas."""
        connection.executemany("insert or ignore into session_keyword values (?, ?)",
                               [(word, session) for word in keywords.split(",") if word])

    @staticmethod
    def drop_keywords(connection, session, keywords):
        """Forgets what put_keywords has made."""
        connection.executemany("delete from session_keyword where keyword=? and session=?",
                               [(word, session) for word in keywords.split(",") if word])

    def list_strays(self, connection, names, spools):
        """Of names of secret files and [(path, session)] of spools and notes, those that no open
        session needs."""
        open_files = {row[0] or str(row[1]) for row in connection.execute(
            "select secret_file, id from session where status in ('WAITING', 'QUEUED', 'RUNNING')")}
        rows = [(path, self.find(connection, session)) for path, session in spools]
        return (set(names) - open_files,
                [path for path, row in rows if row is None or row["status"] in ENDED])

    @staticmethod
    def list_outstanding(connection, agent):
        """The numbers of what an agent has acknowledged and not begun, in order of arrival."""
        return [row[0] for row in connection.execute(
            "select id from session where agent=? and status in ('WAITING', 'QUEUED')"
            + BY_ARRIVAL, (agent,))]

    def list_tickets(self, connection, numbers):
        """Tickets of those of these sessions that are still outstanding, in this order."""
        rows = map(functools.partial(self.find, connection), numbers)
        return [self.make_ticket(connection, row) for row in rows
                if row is not None and row["status"] in OUTSTANDING]

    @staticmethod
    def list_running(connection, agent):
        """Rows of an agent's sessions that the repository shows as running."""
        return connection.execute("select * from session where agent=? and status='RUNNING'",
                                  (agent,)).fetchall()

    @staticmethod
    def change(connection, session, status, states=None, **columns):
        """The one place where the state of a session changes: only from those that TRANSITIONS
        names, and of these only from `states`; False when it is in none of them."""
        columns["status"] = status
        return connection.execute(_tell_change(status, states, tuple(columns)),
                                  tuple(columns.values()) + (session,)).rowcount == 1

    def set_waiting(self, connection, agent, is_held, now):
        """A hold makes what is QUEUED wait; its release queues what waited only for it."""
        state, where = (WAITING, "status='QUEUED'") if is_held else (
            QUEUED, "status='WAITING' and (start_at is null or start_at <= '%s')" % to_text(now))
        rows = connection.execute("select id from session where agent=? and status in ('WAITING',"
                                  " 'QUEUED') and " + where, (agent,)).fetchall()
        for row in rows:
            self.change(connection, row["id"], state)

    @lazy
    def set_queued(self, connection, session):
        """A session whose start time has come; one that has ended meanwhile stays so."""
        self.change(connection, session, QUEUED, OUTSTANDING)

    def begin(self, connection, session, identity, is_late, now, scenario=None):
        """QUEUED or WAITING -> RUNNING, or Conflict when it is neither any more.

        LimitFilled: sessions of other agents fill the scenario's limit.
        """
        if scenario and scenario.concurrency:
            running = connection.execute(
                "select count(*) from session where scenario=? and status='RUNNING' and id<>?",
                (scenario.name, session)).fetchone()[0]
            if running >= scenario.concurrency["limit"]:
                raise LimitFilled("limit %d of %s: %d sessions run, of other agents too"
                                  % (scenario.concurrency["limit"], scenario.name, running))
        if not self.change(connection, session, RUNNING, begun=to_text(now), ran_by=identity,
                           is_rewound=False):
            raise Conflict("session %d is not outstanding" % session)
        if is_late:
            connection.execute("update occurrence set decision='late' where session=?"
                               " and decision='started'", (session,))

    @staticmethod
    def adopt(connection, session, before, identity):
        """A running session changes the agent that runs it, or Conflict. Of the children of a plan
        those that SHUTDOWN was about to end, and did not, are as any; but not while an engine is
        still to end their task."""
        if connection.execute("update session set ran_by=? where id=? and status='RUNNING' and"
                              " ran_by is ?", (identity, session, before)).rowcount != 1:
            raise Conflict("session %d is not as it was" % session)
        connection.execute(
            "update plan_node set is_cut=0 where session=? and is_cut and not exists (select 1 from"
            " session where id=child and status='STOPPED') and not exists (select 1 from"
            " session_task t where t.session=plan_node.child and t.status='RUNNING' and"
            " engine_stop not null)", (session,))


@functools.lru_cache(maxsize=64)
def _tell_change(status, states, names):
    """The statement of Sessions.change(), which is made once of the few that there are."""
    return "update session set %s where id=? and status in (%s)" % (
        ", ".join("%s=?" % name for name in names),
        ", ".join("'%s'" % state for state in TRANSITIONS[status]
                  if states is None or state in states))
