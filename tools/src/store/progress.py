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
    def end_task(connection, session, run, status, rc, rows, message, now):
        """The attempt `run` of a task ends; `rc` and `rows` are None where it has none."""
        connection.execute(
            "update session_task set status=?, rc=?, row_count=?, message=?, ended=?"
            " where session=? and run=?", (status, rc, rows, message, to_text(now), session, run))

    @staticmethod
    def set_restart(connection, session, step, task):
        """Where a RESTART of the session goes on."""
        connection.execute("update session set restart_step=?, restart_task=? where id=?",
                           (step, task, session))

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
    def add_log_later(self, connection, session, task_run, lines, omitted):
        """`add_log`, for which nobody waits."""
        self.add_log(connection, session, task_run, lines, omitted)
