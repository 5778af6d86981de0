"""What is recorded of the runs of tasks that are on an engine."""
import json

from ..base.times import to_text
from .pending import lazy
from .progress import Progress

ENGINE_TABLES = """
create table engine (
    name text primary key,
    driver text not null,               -- slurm, command
    options text not null,              -- JSON: options of sbatch, or the templates of command
    spool text not null,                -- a folder that the hosts of the engine have, too
    contexts text not null              -- JSON: context to LOCAL, or to another engine
);
"""
ENGINE_COLUMNS = """
-- the engine that a task runs on; null: this host. Its folder in the spool, until that is gone
alter table session_task add column engine text;
alter table session_task add column engine_folder text;
-- since when it may be there, and the id that the engine gave it
alter table session_task add column engine_submitted text;
alter table session_task add column engine_id text;
-- JSON: how much of its output is in the log; why it is cancelled
alter table session_task add column engine_read text;
alter table session_task add column engine_stop text;
create index session_task_folder on session_task(engine_folder) where engine_folder is not null;
"""


class EngineRuns:
    """The columns engine, engine_... of session_task. All take the session's number behind the
    connection.

    noted ──> submitted: from then on it may be there ──> its id ──> ended ──> forgotten
    """

    @staticmethod
    def note(connection, session, run, engine, folder):
        """A run is for an engine, with this folder in its spool: before anything is there."""
        connection.execute("update session_task set engine=?, engine_folder=? where session=? and"
                           " run=?", (engine, folder, session, run))

    @staticmethod
    def submit(connection, session, run, now):
        """A run is about to be submitted."""
        connection.execute("update session_task set engine_submitted=? where session=? and run=?",
                           (to_text(now), session, run))

    @staticmethod
    def take_id(connection, session, run, engine_id):
        """The engine has given it this id."""
        connection.execute("update session_task set engine_id=? where session=? and run=?",
                           (engine_id, session, run))

    @staticmethod
    def stop(connection, session, run, scope, status, reason):
        """It is to be cancelled: `scope`, `status` and `reason` of what interrupts it."""
        connection.execute("update session_task set engine_stop=? where session=? and run=?",
                           (json.dumps([scope, status, reason]), session, run))

    @lazy
    def add_log(self, connection, session, run, rows, omitted, reading):
        """Rows of its log, and how much of its output was read with them: [out, err] bytes and
        the position of the next row."""
        Progress.add_log(connection, session, run, rows, omitted)
        connection.execute("update session_task set engine_read=? where session=? and run=?",
                           (json.dumps(reading), session, run))

    @staticmethod
    def get(connection, session, run):
        """The row of a run, and the `log_size` that its log has taken so far."""
        return connection.execute(
            "select *, (select coalesce(sum(length(line) + 40), 0) from session_log where"
            " session=?1 and task_run=?2) as log_size from session_task where session=?1"
            " and run=?2",
            (session, run)).fetchone()

    @staticmethod
    def forget_folder(connection, folder):
        """The folder of a run is gone."""
        connection.execute("update session_task set engine_folder=null where engine_folder=?",
                           (folder,))

    @staticmethod
    def list_spent(connection, agent):
        """[(engine, folder)] of runs that have ended, in sessions of an agent."""
        return [tuple(row) for row in connection.execute(
            "select t.engine, t.engine_folder from session_task t join session s on"
            " s.id = t.session where t.engine_folder is not null and t.status <> 'RUNNING'"
            " and s.agent=?", (agent,))]
