"""The nodes of load plans as they were reached: where they change, with their sessions."""
import json
from typing import Any, NamedTuple, Optional, Tuple

from ..base.vocabulary import OPEN, RESTARTABLE, RUNNING
from ..base.errors import AgentError, BadRequest, Changed, Conflict, RepositoryError, Unreadable
from ..base.times import find_time, to_text

VOID, PASSED, REOPENED = "void", "passed", "reopened"   # what a RESTART makes of a row


class NodeBegin(NamedTuple):
    """An attempt of a node begins; that of a run together with its session."""
    run: int                        # counts the attempts of all nodes of the session
    place: str                      # in the plan: 1.2 is the second one below the root
    since: int                      # rows below it with a lower run do not count
    first: int                      # of a serial: the child that it begins with
    kind: str
    name: str
    value: str                      # the values of the loops around it: day=2015-01-07
    attempt: int                    # all that there were, from 1
    tries: int                      # the same, since it was begun from above, or by a RESTART
    scope: Optional[str] = None     # JSON of what the branch has taken back
    request: Any = None             # of a run: the SessionRequest of its session
    former: Any = None              # and the RestartRequest of one that goes on instead


class NodeEnd(NamedTuple):
    """An attempt of a node has ended; another one follows after so many seconds, or none (None)."""
    run: int
    status: str
    message: str
    delay_s: Optional[float]


class NodeNote(NamedTuple):
    """What is to be said of a node that has not ended: its attempt failed, its exception begins."""
    run: int
    message: str


class ScopeNote(NamedTuple):
    """What a branch has taken back, as JSON."""
    run: int
    scope: Optional[str]


class ValuesNote(NamedTuple):
    """The values of a for_each are taken down."""
    place: str
    values: Tuple[str, ...]


class VariablesNote(NamedTuple):
    """The variables of the plan itself as they stand."""
    values: dict


class NodeRow(NamedTuple):
    """The newest attempt of a node, as a PlanTree is made of; times are epoch seconds."""
    run: int
    place: str
    since: int
    first: int
    kind: str
    attempt: int
    tries: int
    status: str
    message: str
    child: Optional[int]
    begun: float
    due: Optional[float]
    scope: Optional[str]
    is_passed: bool                 # its failure is passed over
    is_reopened: bool               # what is below it decides what of it begins again
    is_void: bool                   # only its attempt counts


class Plans:
    """The rows of plan_node and plan_value. Nobody else changes them, RESTART and PURGE aside."""

    def __init__(self, sessions, arrivals, restarts):
        self._sessions, self._arrivals, self._restarts = sessions, arrivals, restarts
        self._methods = {NodeBegin: self._begin, NodeEnd: self._end, NodeNote: self._note,
                         ScopeNote: self._set_scope, ValuesNote: self._put_values,
                         VariablesNote: self._set_variables}

    # -- changes -----------------------------------------------------------------------

    def record(self, connection, session, identity, changes, now):
        """Records what has become of a plan that this agent runs -> for each change a result: of a
        run that begins its Ticket, or the AgentError why it has no session; the number of a session
        that goes on, or has ended well, without its doing. Conflict: it runs there no more."""
        row = self._sessions.get(connection, session)
        if row["status"] != RUNNING or row["ran_by"] != identity:
            raise Conflict("session %d is not run by this agent any more" % session)
        return self.apply(connection, session, changes, now)

    def apply(self, connection, session, changes, now):
        """`record` in the transaction of another one of the session's own records."""
        return [self._methods[type(change)](connection, session, change, now)
                for change in changes]

    def _begin(self, connection, session, change, now):
        """A row, and of a run its session -> what record() says of it."""
        child = result = None
        if change.request is not None:
            try:
                child, result = self._start(connection, session, change, now)
            except AgentError as error:
                if isinstance(error, Changed) or isinstance(error, RepositoryError) \
                        and not isinstance(error, Unreadable):
                    raise
                child, result = change.former and change.former.session, error
        connection.execute(
            "insert into plan_node(session, run, place, since, first, kind, name, value, attempt,"
            " tries, status, begun, child, scope) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'RUNNING',"
            " ?, ?, ?)", (session,) + change[:9] + (to_text(now), child, change.scope))
        return result

    def _start(self, connection, session, change, now):
        """Makes the session of a run, or has the one that it had go on -> (its number, its Ticket,
        or the number where there is nothing to queue). AgentError."""
        former = change.former and self._sessions.find(connection, change.former.session)
        if former is not None:
            connection.execute("update session set node=? where id=?", (change.run, former["id"]))
            if former["status"] in RESTARTABLE:
                return former["id"], self._restarts.reopen(connection, change.former)
            # an operator's RESTART has had it go on, maybe to its end
            return former["id"], former["id"]
        line = [row["scenario"] for row in self._sessions.list_above(connection, session)]
        if change.request.scenario in line:
            raise BadRequest("scenario %s would start itself: %s" % (
                change.request.scenario, " > ".join(line[::-1] + [change.request.scenario])))
        ticket = self._arrivals.add(connection, change.request, now)
        return ticket.session, ticket

    @staticmethod
    def _end(connection, session, change, now):
        due = None if change.delay_s is None else to_text(now + change.delay_s)
        connection.execute("update plan_node set status=?, message=?, ended=?, due=? where"
                           " session=? and run=?", (change.status, change.message, to_text(now),
                                                    due, session, change.run))

    @staticmethod
    def _note(connection, session, change, _):
        connection.execute("update plan_node set message=? where session=? and run=?",
                           (change.message, session, change.run))

    @staticmethod
    def _set_scope(connection, session, change, _):
        connection.execute("update plan_node set scope=? where session=? and run=?",
                           (change.scope, session, change.run))

    @staticmethod
    def _put_values(connection, session, change, _):
        connection.execute("delete from plan_value where session=? and place=?",
                           (session, change.place))     # there may have been more of them before
        connection.executemany("insert into plan_value values (?, ?, ?, ?)", [
            (session, change.place, position, value)
            for position, value in enumerate(change.values)])

    @staticmethod
    def _set_variables(connection, session, change, _):
        connection.execute("update session set variables=? where id=?",
                           (json.dumps(change.values), session))

    def note_cut(self, connection, sessions):
        """SHUTDOWN ends these sessions: those of them that are children of plans are begun again
        with their plan."""
        for number in sessions:
            row = self._sessions.find(connection, number)
            if row is not None and row["node"] is not None and row["status"] == RUNNING:
                connection.execute("update plan_node set is_cut=1 where session=? and run=?",
                                   (row["parent"], row["node"]))

    # -- what there is -----------------------------------------------------------------

    @staticmethod
    def list_rows(connection, session):
        """([NodeRow of the newest attempt of each node, in the order of their runs], {place:
        (value, ...) of a for_each}) of a plan."""
        rows = [NodeRow(row["run"], row["place"], row["since"], row["first"], row["kind"],
                        row["attempt"], row["tries"],
                        "ERROR" if row["mark"] == REOPENED else row["status"], row["message"],
                        row["child"], find_time(row["begun"]) or 0.0, find_time(row["due"]),
                        row["scope"], row["mark"] == PASSED, row["mark"] == REOPENED,
                        row["mark"] == VOID)
                for row in connection.execute(
                    "select *, max(run) from plan_node where session=? group by place"
                    " order by run", (session,))]
        values = {}
        for place, value in connection.execute("select place, value from plan_value where session=?"
                                               " order by place, position", (session,)):
            values.setdefault(place, []).append(value)
        return rows, values

    @staticmethod
    def find_last_run(connection, session):
        """The highest number of a run that a plan has used."""
        return connection.execute("select ifnull(max(run), 0) from plan_node where session=?",
                                  (session,)).fetchone()[0]

    @staticmethod
    def list_children(connection, session, numbers):
        """[(number, status, message, JSON of its variables, whether SHUTDOWN has ended it)] of
        those of these sessions of a plan that have ended, and [numbers of those that are gone]."""
        ended, gone = [], []
        for number in numbers:
            row = connection.execute(
                "select s.status, s.message, s.variables, n.is_cut from session s left join"
                " plan_node n on n.session=? and n.run=s.node where s.id=?",
                (session, number)).fetchone()
            if row is None:
                gone.append(number)
            elif row["status"] not in OPEN:
                ended.append((number,) + tuple(row))
        return ended, gone


def list_nodes(connection, session):
    """Rows of the newest attempts of a plan's nodes, in the order of the plan."""
    rows = connection.execute("select *, max(run) from plan_node where session=? group by place",
                              (session,)).fetchall()
    return sorted(list_valid(rows), key=lambda row: [
        int(word) if word.isdigit() else float("inf") for word in row["place"].split(".")])


def list_valid(rows):
    """Those of rows of newest attempts that count: what was reached before their node began anew
    does not, nor what a RESTART has made void."""
    since, valid = {"": 0}, []
    for row in sorted(rows, key=lambda row: row["place"].count(".")):
        above = row["place"].rpartition(".")[0]
        if row["mark"] != VOID and above in since and row["run"] >= since[above]:
            since[row["place"]] = row["since"]
            valid.append(row)
    return valid
