"""What is read of sessions: listings, history, logs, durations, and what is purged."""
import contextlib
import re

from ..base.errors import Unreadable
from ..base.vocabulary import BELIEF_S, ENDED, OPEN, RUNNING, STATES
from ..base.times import find_time, from_text, to_text
from .plans import list_nodes
from .records import OpenSession
from .seen import seen_condition
from .sessions import BY_ARRIVAL

OPEN_ROWS = " and status in ('WAITING', 'QUEUED', 'RUNNING')"
ENDED_ROWS = " and status in ('DONE', 'WARNING', 'ERROR', 'STOPPED')"
HAS_KEYWORD = "exists (select 1 from session_keyword where keyword=? and session=id) and "
LOG_LINES = ("from session_log l cross join session_task t on t.session = l.session and t.run ="
             " l.task_run cross join session_step s on s.session = t.session and s.run = t.step_run"
             " where l.session=?")
# a child of a plan goes with that, and that when all below it have ended
IS_WHOLE = ("(node is null or not exists (select 1 from session above where above.id ="
            " session.parent)) and not exists (with recursive below(id, status) as (select id,"
            " status from session child where child.parent = session.id and child.node not null"
            " union all select child.id, child.status from session child join below on child.parent"
            " = below.id where child.node not null) select 1 from below where status in"
            " ('WAITING', 'QUEUED', 'RUNNING'))")
MANY = 100000           # sessions that are looked through for the oldest, or for a text
HAS_TEXT = (r" and (session.scenario like ? escape '\' or session.name like ? escape '\'"
            r" or session.keywords like ? escape '\' or session.schedule like ? escape '\'"
            r" or session.message like ? escape '\')")


def find_last_number(connection):
    """The highest number of a session, or 0."""
    return connection.execute("select max(id) from session").fetchone()[0] or 0


def make_pattern(text):
    """What LIKE takes for a text anywhere in another; capitals of ASCII do not count."""
    return "%" + re.sub(r"([%_\\])", r"\\\1", text) + "%"


class Views:
    """Sessions as they are looked at, and how they are purged."""

    def __init__(self, scenarios, sessions):
        self._scenarios, self._sessions = scenarios, sessions

    def list_sessions(self, connection, filters, below, limit):
        """Rows of at most `limit` sessions with a number under `below`, newest first.

        Each state is looked up on its own: so an index gives its newest rows, however many there
        are.
        """
        since = filters.since and to_text(filters.since)
        above = self._find_oldest(connection, since) if since else 0
        if above is None:
            return []
        if filters.text is not None:
            above = max(above, find_last_number(connection) - MANY * 1000)
        where, values = [], [filters.keyword] if filters.keyword is not None else []
        values += [above, below - 1]
        for column, value in (("parent=?", filters.parent), ("scenario=?", filters.scenario),
                              ("schedule=?", filters.schedule), ("created >= ?", since)):
            if value is not None:
                where.append(" and " + column)
                values.append(value)
        if filters.text is not None:
            where.append(HAS_TEXT)
            values += 5 * [make_pattern(filters.text)]
        where.append(seen_condition(connection, "scenario", filters.patterns))
        parts = ["select * from (select session.* from %s%s order by %s desc limit ?)"
                 % (source, "".join(where), order)
                 for source, order in self._list_sources(filters)]
        return connection.execute(
            " union all ".join(parts) + " order by id desc limit ?",
            (values + [limit]) * len(parts) + [limit]).fetchall()

    @staticmethod
    def _list_sources(filters):
        """[(tables by the index that serves best, with what is to be true of their rows; order)],
        together all that is wanted. Their values are the keyword, if any, and the numbers."""
        has_keyword = filters.keyword is not None
        by_id = "where id between ? and ?"
        if filters.parent is not None:          # one has few children, whatever else is wanted
            by_id = "session indexed by session_parent where %sid between ? and ?%s" % (
                HAS_KEYWORD * has_keyword, " and status in (%s)" % ",".join(
                    "'%s'" % status for status in filters.statuses) * bool(filters.statuses))
            return [(by_id, "id")]
        if has_keyword:
            ended = ("session_keyword k cross join session on id = k.session"
                     " where k.keyword=? and k.session between ? and ?")
        elif filters.schedule is not None:
            ended = "session " + by_id
        else:
            ended = "session indexed by session_%s %s" % (
                "ended" if filters.scenario is None else "scenario", by_id)
        order = "k.session" if has_keyword else "id"
        if not filters.statuses and (has_keyword or filters.scenario is None):
            return [(ended if has_keyword else "session " + by_id, order)]
        running = "session indexed by session_open " + by_id
        if has_keyword:
            running = running.replace("where ", "where " + HAS_KEYWORD, 1)
        # an index of some rows serves where its own condition stands in the query, word by word
        return [(running + OPEN_ROWS + " and status='%s'" % state, "id") if state in OPEN else
                (ended + ENDED_ROWS + " and status='%s'" % state, order)
                for state in filters.statuses or STATES]

    @staticmethod
    def _find_oldest(connection, since):
        """A number under which no session was created since then (UTC text), or None when none
        was. A clock may have stepped, so numbers are no order of time; of very many it is 0."""
        oldest, count = connection.execute(
            "select min(id), count(*) from (select id from session where created >= ? limit ?)",
            (since, MANY + 1)).fetchone()
        return oldest if count <= MANY else 0

    def get_history(self, connection, session):
        """(session row, step rows, task rows, rows of a plan's nodes, names of secrets) of one
        moment; NotFound, RepositoryError."""
        connection.execute("begin")
        try:
            row = self._sessions.get(connection, session)
            return (row,
                    connection.execute(
                        "select * from session_step where session=? order by run",
                        (session,)).fetchall(),
                    connection.execute(
                        "select * from session_task where session=? order by run",
                        (session,)).fetchall(),
                    list_nodes(connection, session),
                    self._secret_names(connection, row))
        finally:
            connection.execute("rollback")

    def _secret_names(self, connection, row):
        with contextlib.suppress(Unreadable):       # what is secret was never stored
            return tuple(self._sessions.get_scenario(connection, row).secrets)
        return ()

    @staticmethod
    def get_durations(connection):
        """list_durations()."""
        return list_durations(connection)

    def list_open(self, connection, agent):
        """[OpenSession] of an agent's sessions that run or are outstanding, in order of
        arrival."""
        return [OpenSession(
            self._sessions.make_ticket(connection, row), from_text(row["created"]),
            from_text(row["begun"]) if row["status"] == RUNNING else None, find_time(row["due"]),
            row["timeout"]) for row in connection.execute(
                "select * from session where agent=? and status in ('WAITING', 'QUEUED',"
                " 'RUNNING')" + BY_ARRIVAL, (agent,)).fetchall()]

    def get_resume(self, connection, session):
        """What a run needs: (session row, Scenario, runs so far, {step's name: (attempts so far,
        status)}), the status being that of the newest attempt."""
        row = self._sessions.get(connection, session)
        scenario = self._sessions.get_scenario(connection, row)
        if row["begun"] is None:
            return row, scenario, 0, {}
        attempts = {step: (attempt, status) for step, attempt, status in connection.execute(
            "select name, max(attempt), status from session_step where session=? group by name"
            " order by max(run)", (session,))}
        runs = connection.execute(
            "select max(ifnull((select max(run) from session_step where session=?1), 0),"
            " ifnull((select max(run) from session_task where session=?1), 0))",
            (session,)).fetchone()[0]
        return row, scenario, runs, attempts

    @staticmethod
    def _wanted_lines(filters):
        """The condition of the lines that a LogFilter names, and its values."""
        parts = [(column, value) for column, value in (
            ("s.name=?", filters.step), ("l.stream=?", filters.stream),
            ("l.time>=?", filters.since and to_text(filters.since))) if value is not None]
        return " and ".join([column for column, _ in parts] or ["1"]), [value for _, value in parts]

    def list_log(self, connection, session, filters, after, limit):
        """At most `limit` log rows with the names of step and task, after (task_run, position). Of
        those that a LogFilter does not name the line is None: a reader goes on behind them."""
        condition, values = self._wanted_lines(filters)
        return connection.execute(
            "select l.task_run, l.position, l.time, l.stream, case when %s then l.line end as line,"
            " s.name as step, case t.name when '' then t.task + 1 else t.name end as task %s"
            " and (l.task_run, l.position) > (?, ?) order by l.task_run, l.position limit ?"
            % (condition, LOG_LINES), values + [session] + list(after) + [limit]).fetchall()

    def find_log_start(self, connection, session, filters):
        """Behind which (task_run, position) the lines begin that are wanted. NotFound: there is no
        such step."""
        if filters.step is not None:
            self._check_step(connection, session, filters.step)
        if filters.tail is None:
            return 0, -1
        condition, values = self._wanted_lines(filters)
        newest = connection.execute(
            "select l.task_run, l.position %s and %s order by l.task_run desc, l.position desc"
            " limit 1 offset ?" % (LOG_LINES, condition),
            [session] + values + [filters.tail]).fetchone()
        return tuple(newest) if newest else (0, -1)

    def _check_step(self, connection, session, name):
        """NotFound when a session has no step of this name and never had."""
        if not connection.execute("select 1 from session_step where session=? and name=?",
                                  (session, name)).fetchone():
            row = self._sessions.get(connection, session)
            with contextlib.suppress(Unreadable):
                self._sessions.get_scenario(connection, row).step_index(name)

    @staticmethod
    def weigh_clock(connection, now):
        """Whether a purge that nobody asked for may believe the clock -> (that, by how many seconds
        it is seen for the first time to be ahead, or None). One that is more than a day ahead of
        the last look, or was never looked at, has to stand for a day."""
        looked, begin = map(find_time, connection.execute(
            "select purge_looked, purge_from from repository").fetchone())
        jump = None
        if looked is None or now > looked + BELIEF_S:
            jump, begin = None if looked is None else now - looked, now + BELIEF_S
        elif begin is not None and not begin - 2 * BELIEF_S <= now < begin:
            begin = None                # it has stood, or was set back
        connection.execute("update repository set purge_looked=?, purge_from=?",
                           (to_text(now), begin and to_text(begin)))
        return begin is None, jump

    @staticmethod
    def _where_purged(connection, filters, is_by_time=False):
        """The text and values of a condition on the ended sessions that a PurgeFilter may name."""
        # by its time an old session is found at once, by its status among all that have ended
        where = "ended is not null and %sstatus in (%s) and %s" % (
            "+" if is_by_time else "", ",".join(
                "'%s'" % status for status in filters.statuses or ENDED), IS_WHOLE)
        where += seen_condition(connection, "scenario", filters.patterns)
        return (where, []) if filters.scenario is None else (where + " and scenario=?",
                                                             [filters.scenario])

    def find_newest_purged(self, connection, filters):
        """The number up to which `keep` lets sessions go, -1 for none; None where it says nothing.
        """
        if filters.keep is None:
            return None
        where, values = self._where_purged(connection, filters)
        row = connection.execute("select id from session where %s order by id desc limit 1"
                                 " offset ?" % where, values + [filters.keep]).fetchone()
        return row[0] if row else -1

    def _select_purged(self, connection, columns, filters, newest):
        """The text of a query of what is to be purged, and its values."""
        where, values = self._where_purged(connection, filters, filters.before is not None)
        if newest is not None:
            where += " and id <= ?"
            values.append(newest)
        if filters.before is not None:
            where += " and created < ? and ended < ?"
            values += 2 * [to_text(filters.before)]
        return "select %s from session where %s" % (columns, where), values

    def count_purged(self, connection, filters):
        """How many sessions a purge would delete."""
        newest = self.find_newest_purged(connection, filters)
        query, values = self._select_purged(connection, "id", filters, newest)
        return connection.execute(
            "with recursive family(id) as (%s union select child.id from session child join family"
            " on child.parent = family.id where child.node not null) select count(*) from family"
            % query, values).fetchone()[0]

    def purge(self, connection, filters, newest, limit=200):
        """Deletes at most `limit` sessions that a PurgeFilter names, none after `newest` (None: all
        the same). Where it names those of every state and scenario, old due times that made no
        session go, too.

        Returns how many; 0 means that nothing is left to purge.
        """
        query, values = self._select_purged(connection, "id, keywords", filters, newest)
        rows = connection.execute(query + " limit ?", values + [limit]).fetchall()
        rows = list_family(connection, rows, limit)
        for session, keywords in rows:
            for table in ("session_log", "session_task", "session_step", "occurrence",
                          "plan_node", "plan_value"):
                connection.execute("delete from %s where session=?" % table, (session,))
            self._sessions.drop_keywords(connection, session, keywords)
            connection.execute("delete from session where id=?", (session,))
        is_of_all = not (filters.statuses or filters.patterns) and filters.scenario is None
        if filters.before is not None and is_of_all and len(rows) < limit:
            connection.execute("delete from occurrence where session is null and last_due < ?",
                               (to_text(filters.before),))
        if rows:
            self._scenarios.forget_unused(connection)
        return len(rows)


def list_family(connection, rows, limit):
    """Rows (id, keywords) of sessions that are purged -> these and their plans' children, those
    before them; at most `limit`: of what then stays, its parents stay, too."""
    family, to_look = [], [(row, False) for row in rows[::-1]]
    while to_look and len(family) < limit:
        row, is_last = to_look.pop()        # `is_last`: all below it are in the family
        if is_last:
            family.append(row)
            continue
        to_look.append((row, True))
        to_look += [(child, False) for child in connection.execute(
            "select id, keywords from session where parent=? and node not null limit ?",
            (row[0], limit)).fetchall()]
    return family


def list_durations(connection):
    """{scenario: seconds}, of its newest sessions that ended well."""
    durations = {}

    def add(rows):
        for scenario, begun, ended in rows:
            newest = durations.setdefault(scenario, [])
            if len(newest) < 100:
                newest.append(max(0.0, from_text(ended) - from_text(begun)))
    query = ("select scenario, begun, ended from session where status in ('DONE', 'WARNING')"
             " and begun is not null %s order by id desc limit %d")
    add(connection.execute(query % ("", 20000)))
    # a plan is older than all the children that it had
    for name, in connection.execute("select distinct name from scenario").fetchall():
        if name not in durations:
            add(connection.execute(query % ("and scenario=?", 100), (name,)).fetchall())
    return {scenario: sorted(newest)[len(newest) // 2]
            for scenario, newest in durations.items()}
