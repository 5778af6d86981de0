"""What a session records as it goes: steps, tasks, output, variables."""
import json

from ..base.times import to_text
from .pending import lazy


class Progress:
    """Rows below a session. All take the session's number behind the connection."""

    @staticmethod
    def begin_step(connection, session, run, step, name, attempt, now):
        """The attempt of a step begins; `run` counts the attempts of all steps in the session."""
        connection.execute("insert into session_step(session, run, step, name, attempt, status,"
                           " begun) values (?, ?, ?, ?, ?, 'RUNNING', ?)",
                           (session, run, step, name, attempt, to_text(now)))

    @staticmethod
    def end_step(connection, session, run, status, message, now):
        """The attempt `run` of a step ends with a status and a message."""
        connection.execute("update session_step set status=?, message=?, ended=? where session=?"
                           " and run=?", (status, message, to_text(now), session, run))

    @staticmethod
    def begin_task(connection, session, run, step_run, step, task, name, kind, attempt, now):
        """A task begins: on disk before its process starts."""
        connection.execute(
            "insert into session_task(session, run, step_run, step, task, name, type, attempt,"
            " status, begun) values (?, ?, ?, ?, ?, ?, ?, ?, 'RUNNING', ?)",
            (session, run, step_run, step, task, name, kind, attempt, to_text(now)))

    @staticmethod
    def note_process(connection, session, run, pid, pid_started):
        """A task's process has started: its id, and its start time as the kernel tells it."""
        connection.execute("update session_task set pid=?, pid_started=? where session=? and run=?",
                           (pid, pid_started, session, run))

    @staticmethod
    def end_task(connection, session, run, status, rc, rows, former, message, now):
        """The attempt `run` of a task ends; `rc` and `rows` are None where it has none. `former`
        has {variable: its value before}, as JSON, of those that it has changed, or None. What it
        has started and could not end stays its own, for a RESTART."""
        connection.execute(
            "update session_task set status=?1, rc=?, row_count=?, former=?, message=?, ended=?,"
            " child=(select id from session where id=child and ?1 in ('ERROR', 'STOPPED')"
            " and status in ('WAITING', 'QUEUED', 'RUNNING')) where session=? and run=?",
            (status, rc, rows, former, message, to_text(now), session, run))

    @staticmethod
    def take_child(connection, session, run):
        """The session that a task has started before a crash cut its run short -> its number: it is
        this run's now. None: it has started none, or that is purged."""
        row = connection.execute(
            "select old.run, old.child from session_task new join session_task old on"
            " old.session=new.session and old.step=new.step and old.task=new.task"
            " and old.run<new.run join session on session.id=old.child"
            " where new.session=? and new.run=? order by old.run desc limit 1",
            (session, run)).fetchone()
        if row is None:
            return None
        connection.executemany("update session_task set child=? where session=? and run=?",
                               [(None, session, row["run"]), (row["child"], session, run)])
        return row["child"]

    @staticmethod
    def set_restart(connection, session, step, task, run):
        """Where a RESTART of the session goes on: the run of this task, None if it has not
        begun."""
        connection.execute("update session set restart_step=?, restart_task=?, restart_run=?"
                           " where id=?", (step, task, run, session))

    @staticmethod
    def set_variables(connection, session, values):
        """The values of a session's variables as they stand."""
        connection.execute("update session set variables=? where id=?",
                           (json.dumps(values), session))

    @staticmethod
    def add_log(connection, session, task_run, lines, omitted=None):
        """Lines [(position, time, stream, text)]; `omitted` is the range (first, end) left out."""
        if omitted:
            connection.execute("delete from session_log where session=? and task_run=?"
                               " and position>=? and position<?", (session, task_run) + omitted)
        connection.executemany("replace into session_log values (?, ?, ?, ?, ?, ?)",
                               [(session, task_run) + line for line in lines])

    @staticmethod
    def find_interrupted(connection, session):
        """(step row, task row) of what ran when the agent was lost, or None."""
        task = connection.execute("select * from session_task where session=? and"
                                  " status='RUNNING' order by run desc limit 1",
                                  (session,)).fetchone()
        step = task and connection.execute("select * from session_step where session=? and run=?",
                                           (session, task["step_run"])).fetchone()
        return (step, task) if step else None

    @staticmethod
    def record(connection, session, records):
        """What a session has noted, [(method, arguments)], in order -> what the last one gives."""
        value = None
        for method, arguments in records:
            value = method(connection, session, *arguments)
        return value

    @lazy
    def record_later(self, connection, session, records):
        """`record`, for which nobody waits."""
        self.record(connection, session, records)

    @lazy
    def note_process_later(self, connection, session, run, pid, pid_started):
        """`note_process`, for which nobody waits."""
        self.note_process(connection, session, run, pid, pid_started)

    @lazy
    def add_log_later(self, connection, session, task_run, lines, omitted):
        """`add_log`, for which nobody waits."""
        self.add_log(connection, session, task_run, lines, omitted)
