"""What is read of sessions: listings, history, logs, durations, and what is purged."""
import contextlib

from ..base.errors import Unreadable
from ..base.times import find_time, from_text, to_text
from ..base.vocabulary import RUNNING
from .records import OpenSession
from .sessions import BY_ARRIVAL


class Views:
    """Sessions as they are looked at, and how they are purged."""

    def __init__(self, scenarios, sessions):
        self._scenarios, self._sessions = scenarios, sessions

    @staticmethod
    def list_sessions(connection, filters, below, limit):
        """Rows of at most `limit` sessions with a number under `below`, newest first."""
        where, values = ["id < ?"], [below]
        if filters.statuses:
            where.append("status in (%s)" % ", ".join("?" * len(filters.statuses)))
            values.extend(filters.statuses)
        for column, value in (("scenario", filters.scenario), ("schedule", filters.schedule)):
            if value is not None:
                where.append(column + "=?")
                values.append(value)
        if filters.since is not None:
            where.append("created >= ?")
            values.append(to_text(filters.since))
        if filters.keyword is not None:
            where.append("instr(',' || keywords || ',', ',' || ? || ',')")
            values.append(filters.keyword)
        return connection.execute("select * from session where %s order by id desc limit ?"
                                  % " and ".join(where), values + [limit]).fetchall()

    def get_history(self, connection, session):
        """(session row, step rows, task rows, names of secrets) of one moment; NotFound,
        RepositoryError."""
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
                    self._secret_names(connection, row))
        finally:
            connection.execute("rollback")

    def _secret_names(self, connection, row):
        with contextlib.suppress(Unreadable):       # what is secret was never stored
            return tuple(self._sessions.get_scenario(connection, row).secrets)
        return ()

    @staticmethod
    def get_durations(connection):
        """{scenario: seconds}, of its newest sessions that ended well."""
        durations = {}
        for scenario, begun, ended in connection.execute(
                "select scenario, begun, ended from session where status in ('DONE', 'WARNING') and"
                " begun is not null order by id desc limit 20000"):
            found = durations.setdefault(scenario, [])
            if len(found) < 100:
                found.append(max(0.0, from_text(ended) - from_text(begun)))
        return {scenario: sorted(found)[len(found) // 2] for scenario, found in durations.items()}

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
        """What a run needs: (session row, Scenario, runs so far, {step: (attempts so far,
        status)}), the status being that of the newest attempt."""
        row = self._sessions.get(connection, session)
        scenario = self._sessions.get_scenario(connection, row)
        if row["begun"] is None:
            return row, scenario, 0, {}
        attempts = {step: (attempt, status) for step, attempt, status in connection.execute(
            "select step, max(attempt), status from session_step where session=? group by step",
            (session,))}
        runs = connection.execute(
            "select max(ifnull((select max(run) from session_step where session=?1), 0),"
            " ifnull((select max(run) from session_task where session=?1), 0))",
            (session,)).fetchone()[0]
        return row, scenario, runs, attempts

    @staticmethod
    def list_log(connection, session, after, limit):
        """At most `limit` log rows with the names of step and task, after (task_run, position)."""
        return connection.execute(
            "select l.task_run, l.position, l.time, l.stream, l.line, s.name as step,"
            " case t.name when '' then t.task + 1 else t.name end as task"
            " from session_log l join session_task t on t.session = l.session"
            " and t.run = l.task_run join session_step s on s.session = t.session"
            " and s.run = t.step_run where l.session=? and (l.task_run, l.position) > (?, ?)"
            " order by l.task_run, l.position limit ?",
            (session,) + after + (limit,)).fetchall()

    @staticmethod
    def has_open(connection):
        """Whether any agent has an open session here."""
        return connection.execute("select 1 from session where status in ('WAITING', 'QUEUED',"
                                  " 'RUNNING') limit 1").fetchone() is not None

    def purge(self, connection, before, keep, limit=200):
        """Deletes at most `limit` sessions that ended before then or beyond the newest `keep`.

        Returns how many; 0 means that nothing is left to purge.
        """
        where, values = ["ended is not null",
                         "status in ('DONE', 'WARNING', 'ERROR', 'STOPPED')"], []
        if before is not None:
            where.append("ended < ?")
            values.append(to_text(before))
        if keep is not None:
            where.append("id <= ifnull((select id from session where ended is not null"
                         " order by id desc limit 1 offset ?), -1)")
            values.append(keep)
        ids = [row[0] for row in connection.execute(
            "select id from session where %s limit ?" % " and ".join(where), values + [limit])]
        for session in ids:
            for table in ("session_log", "session_task", "session_step", "occurrence"):
                connection.execute("delete from %s where session=?" % table, (session,))
            connection.execute("delete from session where id=?", (session,))
        if before is not None and len(ids) < limit:
            connection.execute("delete from occurrence where session is null and last_due < ?",
                               (to_text(before),))
        if ids:
            self._scenarios.forget_unused(connection)
        return len(ids)
