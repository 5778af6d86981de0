"""What is read of sessions: listings, history, logs, durations, and what is purged."""
import re

from ..base.errors import NotFound
from ..base.times import from_text


class SessionViews:
    """Sessions as they are looked at; a part of WorkRepository."""

    def find_session(self, connection, session):
        """The row of a session, or None."""
        return connection.execute("select * from session where id=?", (session,)).fetchone()

    def get_session(self, connection, session):
        """The row of a session, or NotFound."""
        row = self.find_session(connection, session)
        if row is None:
            raise NotFound("no session %d in repository %s" % (session, self.name))
        return row

    def list_above(self, connection, name, below=1 << 62):
        """The rows of the sessions that led to one of this name, `child of N`,
        its parent's first."""
        rows = []
        while re.fullmatch("child of [0-9]{1,18}", name or ""):
            row = self.find_session(connection, int(name[9:]))
            if row is None or row["id"] >= below:       # a name that a user gave
                break
            rows.append(row)
            name, below = row["name"], row["id"]
        return rows

    @staticmethod
    def get_body(connection, definition):
        """The JSON text of a definition."""
        return connection.execute("select body from definition where id=?",
                                  (definition,)).fetchone()[0]

    def list_sessions(self, filters, below, limit):
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
            values.append(filters.since)
        if filters.keyword is not None:
            where.append("instr(',' || keywords || ',', ',' || ? || ',')")
            values.append(filters.keyword)
        with self.db.reading() as connection:
            return connection.execute("select * from session where %s order by id desc limit ?"
                                      % " and ".join(where), values + [limit]).fetchall()

    def session_history(self, session):
        """(session row, step rows, task rows, names of secrets) of one moment; NotFound,
        RepositoryError."""
        with self.db.reading() as connection:
            connection.execute("begin")
            try:
                row = self.get_session(connection, session)
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
        scenario = self.parsed_of(connection, row)      # None: this version cannot read it
        return tuple(scenario.secrets) if scenario else ()

    @staticmethod
    def median_durations(connection):
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
        """[(row, Ticket)] of an agent's sessions that run or are outstanding,
        in order of creation."""
        return [(row, self.ticket(connection, row)) for row in connection.execute(
            "select * from session where agent=? and status in ('WAITING', 'QUEUED', 'RUNNING')"
            " order by id", (agent,)).fetchall()]

    def session_resume(self, session):
        """What a run needs: (session row, Scenario, runs so far, {step: (attempts so far,
        status)}), the status being that of the newest attempt."""
        with self.db.reading() as connection:
            row = self.get_session(connection, session)
            scenario = self.parsed(row["definition"], self.get_body(connection, row["definition"]))
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

    def list_log(self, session, after, limit):
        """At most `limit` log rows with the names of step and task, after (task_run, position)."""
        with self.db.reading() as connection:
            return connection.execute(
                "select l.task_run, l.position, l.time, l.stream, l.line, s.name as step,"
                " case t.name when '' then t.task + 1 else t.name end as task"
                " from session_log l join session_task t on t.session = l.session"
                " and t.run = l.task_run join session_step s on s.session = t.session"
                " and s.run = t.step_run where l.session=? and (l.task_run, l.position) > (?, ?)"
                " order by l.task_run, l.position limit ?",
                (session,) + after + (limit,)).fetchall()

    def has_open(self, connection):
        """Whether any agent has an open session here."""
        return connection.execute("select 1 from session where status in ('WAITING', 'QUEUED',"
                                  " 'RUNNING') limit 1").fetchone() is not None

    def purge(self, connection, before, keep, limit=200):
        """Deletes at most `limit` sessions that ended before (UTC text) or beyond the newest
        `keep`.

        Returns how many; 0 means that nothing is left to purge.
        """
        where, values = ["ended is not null",
                         "status in ('DONE', 'WARNING', 'ERROR', 'STOPPED')"], []
        if before is not None:
            where.append("ended < ?")
            values.append(before)
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
                               (before,))
        if ids:
            self._forget_definitions(connection)
        return len(ids)
