"""Sessions of a work repository: added, begun, recorded, ended, restarted."""
import contextlib
import glob
import json
import os

from ..base.vocabulary import (ADOPT, DONE, ENDED, ERROR, MIN_SECRET, OUTSTANDING, QUEUED,
                               RESTARTABLE, RUNNING, STOPPED, TRANSITIONS, WAITING, WARNING)
from ..base.errors import BadRequest, Busy, Conflict, RepositoryError
from ..base.times import from_text
from ..base.words import shorten
from ..definitions.model import Schedule, canonical
from .files import Spool
from .records import Aftermath, Ticket


class SessionTables:
    """Sessions from their acknowledgement to their end; a part of WorkRepository."""

    def _check_variables(self, connection, request):
        row = self.get_version(connection, request.scenario, request.version)
        scenario = self.parsed(row["definition"], row["body"])
        self._check_given(scenario, request.variables)
        if isinstance(request, Schedule) and scenario.secrets:
            wanted = [name for name, source in scenario.secrets.items()
                      if name in request.variables or not source]
            if wanted:
                raise BadRequest("%s: is secret, a schedule cannot give it" % wanted[0])
        return row, scenario

    @staticmethod
    def _check_given(scenario, variables):
        for name, value in variables.items():
            if name not in scenario.variables and name not in scenario.secrets:
                raise BadRequest("%s: scenario %s %s has no variable of that name"
                                 % (name, scenario.name, scenario.version))
            if name in scenario.secrets and len(value) < MIN_SECRET:
                raise BadRequest("%s: a secret has at least %d characters" % (name, MIN_SECRET))

    def _split_secrets(self, scenario, variables):
        """(plain variables, secrets that came with the request). BadRequest when one is missing."""
        secrets = {name: variables[name] for name in scenario.secrets if name in variables}
        for name, source in scenario.secrets.items():
            if not source and name not in secrets:
                raise BadRequest("%s: the secret must be given" % name)
        return {name: variables[name] for name in variables if name not in secrets}, secrets

    def _checked_version(self, connection, request):
        """_check_variables for the flood: asks the file again only when something has changed."""
        at = self.db.version, self.db.failures, self._imports
        if at != self._versions_at:
            self._versions, self._versions_at = {}, at
        key = request.scenario, request.version
        found = self._versions.get(key)
        if found is None or request.variables:
            found = self._versions[key] = self._check_variables(connection, request)
        return found

    def add_session(self, connection, request, now):
        """Makes a session -> Ticket. NotFound, BadRequest, Conflict for another use of its key."""
        if request.key is not None:
            found = self._find_by_key(connection, request)
            if found is not None:
                return self.ticket(connection, found)._replace(is_duplicate=True)
        row, scenario = self._checked_version(connection, request)
        plain, secrets = request.variables, {}
        if scenario.secrets:
            plain, secrets = self._split_secrets(scenario, request.variables)
        for name, value in plain.items():
            if any(hidden in value for hidden in request.hidden):
                raise BadRequest("%s: would store a secret; declare it secret in scenario %s"
                                 % (name, scenario.name))
        if plain:
            variables, given = json.dumps(dict(scenario.variables, **plain)), canonical(plain)
        else:
            variables, given = self._text_of_defaults(scenario), "{}"
        timeout = scenario.timeout if request.timeout is None else request.timeout
        is_waiting = request.is_held or request.start_at is not None and request.start_at > now
        status, message = WAITING if is_waiting else QUEUED, ""
        if scenario.concurrency:
            status, message = self._limited(connection, scenario, status, request.replaces)
        session = connection.execute(
            "insert into session(id, agent, scenario, version, definition, context, status, name,"
            " keywords, priority, level, timeout, created, start_at, ended, message, variables,"
            " given, key, schedule, due, is_parallel)"
            " values ((select (last_session + 1) * 1000 + id from repository),"
            " ?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (request.agent, scenario.name, scenario.version, row["definition"],
             request.context, status, request.name, request.keywords, request.priority,
             request.level, timeout, now, request.start_at, now if status == ERROR else None,
             message, variables, given, request.key, request.schedule, request.due,
             request.is_parallel)).lastrowid
        if secrets:
            self.secrets.write(session, secrets)
        ticket = Ticket(session, status, request.agent, request.priority, request.start_at,
                        request.schedule, is_parallel=request.is_parallel)
        return self._with_limit(ticket, scenario, request.start_at or now)

    def _find_by_key(self, connection, request):
        """The row of the session that this key has made, or None.
        Conflict for another use of it."""
        row = connection.execute("select * from session where key=?", (request.key,)).fetchone()
        if row is None:
            return None
        scenario = self.parsed_of(connection, row)
        hidden = scenario.secrets if scenario else ()
        plain = {name: value for name, value in request.variables.items() if name not in hidden}
        if row["scenario"] != request.scenario or row["given"] != canonical(plain):
            raise Conflict("key %s was used for session %d with another scenario or other variables"
                           % (shorten(request.key), row["id"]))
        return row

    def _text_of_defaults(self, scenario):
        """The JSON of a scenario's variables, kept with the parsed scenario that it is of."""
        if self._defaults[0] is not scenario:
            self._defaults = scenario, json.dumps(scenario.variables)
        return self._defaults[1]

    @staticmethod
    def _limited(connection, scenario, status, replaces):
        """What the limit of its scenario makes of a new session: (status, message). Busy."""
        limit, on_limit = scenario.concurrency["limit"], scenario.concurrency["on_limit"]
        is_full = connection.execute(
            "select count(*) from (select 1 from session where scenario=? and status in"
            " ('WAITING', 'QUEUED', 'RUNNING') and id not in (%s) limit ?)"
            % ",".join("?" * len(replaces)),
            (scenario.name,) + tuple(replaces) + (limit,)).fetchone()[0] >= limit
        text = "%d sessions of scenario %s are open, its limit" % (limit, scenario.name)
        if is_full and on_limit == "skip":
            raise Busy(text)
        if is_full and on_limit == "error":
            return ERROR, text
        return (WAITING if is_full else status), ""

    @staticmethod
    def _with_limit(ticket, scenario, since):
        if not scenario or not scenario.concurrency:
            return ticket
        wait = scenario.concurrency["max_wait"]
        return ticket._replace(scenario=scenario.name, limit=scenario.concurrency["limit"],
                               wait_until=wait and from_text(since) + wait)

    def ticket(self, connection, row):
        """A row of session -> Ticket."""
        scenario = self.parsed_of(connection, row)
        return self._with_limit(
            Ticket(row["id"], row["status"], row["agent"], row["priority"], row["start_at"],
                   row["schedule"], is_parallel=bool(row["is_parallel"])),
            scenario, row["start_at"] or row["created"])

    def parsed_of(self, connection, row):
        """The Scenario of a row of session."""
        return self.parsed(row["definition"], self.get_body(connection, row["definition"]))

    def forget_strays(self):
        """Secrets and spools of sessions that have ended, or never were: left by a crash."""
        beside = glob.glob(glob.escape(self.path) + ".secret.*") \
            + glob.glob(glob.escape(self.path) + ".spool.*")
        for path in beside:
            number = path[len(self.path):].split(".")[2]
            with self.db.reading() as connection:
                row = self.find_session(connection, int(number)) if number.isdigit() else None
            if row is None or row["status"] in ENDED:
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def list_outstanding(self, connection, agent):
        """Tickets of what an agent has acknowledged and not begun, in order of arrival."""
        return [self.ticket(connection, row) for row in connection.execute(
            "select * from session where agent=? and status in ('WAITING', 'QUEUED') order by id",
            (agent,)).fetchall()]

    def _change(self, connection, session, status, is_only_outstanding=False, **columns):
        """The one place where the state of a session changes; False when it may not."""
        columns["status"] = status
        sql = "update session set %s where id=? and status in (%s)" % (
            ", ".join("%s=?" % name for name in columns),
            ", ".join("'%s'" % state for state in TRANSITIONS[status]
                      if not is_only_outstanding or state in OUTSTANDING))
        return connection.execute(sql, tuple(columns.values()) + (session,)).rowcount == 1

    def set_waiting(self, connection, agent, is_held, now):
        """A hold makes what is QUEUED wait; its release queues what waited only for it."""
        state, where = (WAITING, "status='QUEUED'") if is_held else (
            QUEUED, "status='WAITING' and (start_at is null or start_at <= '%s')" % now)
        rows = connection.execute("select id from session where agent=? and status in ('WAITING',"
                                  " 'QUEUED') and " + where, (agent,)).fetchall()
        for row in rows:
            self._change(connection, row["id"], state)

    def set_queued(self, connection, session):
        """A session whose start time has come; one that has ended meanwhile stays so."""
        self._change(connection, session, QUEUED, is_only_outstanding=True)

    def reopen(self, connection, session, variables, from_step, now, is_held):
        """RESTART -> Ticket; NotFound, Conflict, BadRequest."""
        row = self.get_session(connection, session)
        if row["status"] not in RESTARTABLE:
            raise Conflict("session %d is %s; only one that ended in ERROR or STOPPED is restarted"
                           % (session, row["status"]))
        scenario = self.parsed(row["definition"], self.get_body(connection, row["definition"]))
        self._check_given(scenario, variables)
        variables, secrets = self._split_secrets(scenario, variables)
        values = dict(json.loads(row["variables"]), **variables)
        columns = {"variables": json.dumps(values), "ended": None, "message": ""}
        if row["begun"] is None:
            columns["start_at"] = None      # it begins now; of one that has begun it is its DUE
        if from_step is not None:
            columns.update(restart_step=scenario.step_index(from_step), restart_task=0)
        if secrets:
            self.secrets.write(session, secrets)
        self._change(connection, session, QUEUED, **columns)
        if is_held:
            self._change(connection, session, WAITING)
        return self.ticket(connection, self.get_session(connection, session))

    # -- sessions: running -------------------------------------------------------------

    def begin_session(self, connection, session, identity, is_late, now, scenario=None):
        """QUEUED or WAITING -> RUNNING, or Conflict when it is neither any more.

        RepositoryError: sessions of other agents fill the scenario's limit.
        """
        if scenario and scenario.concurrency:
            running = connection.execute(
                "select count(*) from session where scenario=? and status='RUNNING' and id<>?",
                (scenario.name, session)).fetchone()[0]
            if running >= scenario.concurrency["limit"]:
                raise RepositoryError("%d sessions of scenario %s run, its limit"
                                      % (running, scenario.name))
        if not self._change(connection, session, RUNNING, begun=now, ran_by=identity):
            raise Conflict("session %d is not outstanding" % session)
        if is_late:
            connection.execute("update occurrence set decision='late' where session=?"
                               " and decision='started'", (session,))

    def end_session(self, connection, session, status, message, level, now):
        """Ends a session; one that ended well keeps what its level says -> Aftermath."""
        row = self.get_session(connection, session)
        if not self._change(connection, session, status, ended=now, message=message):
            return Aftermath()          # was no more open
        if status not in (DONE, WARNING):
            return Aftermath(self.retry(connection, row, now) if status == ERROR else None)
        if level < 5:
            connection.execute("delete from session_log where session=?", (session,))
        if level < 3:
            connection.execute("delete from session_task where session=?", (session,))
            connection.execute("delete from session_step where session=?", (session,))
        return Aftermath(is_awaited=self.meet_conditions(connection, row, now))

    @staticmethod
    def begin_step(connection, session, run, step, name, attempt, now):
        """The attempt of a step begins."""
        connection.execute("insert into session_step(session, run, step, name, attempt, status,"
                           " begun) values (?, ?, ?, ?, ?, 'RUNNING', ?)",
                           (session, run, step, name, attempt, now))

    @staticmethod
    def end_step(connection, session, run, status, message, now):
        """The attempt of a step ends."""
        connection.execute("update session_step set status=?, message=?, ended=? where session=?"
                           " and run=?", (status, message, now, session, run))

    @staticmethod
    def begin_task(connection, session, run, step_run, step, task, name, kind, attempt, now):
        """A task begins: on disk before its process starts."""
        connection.execute(
            "insert into session_task(session, run, step_run, step, task, name, type, attempt,"
            " status, begun) values (?, ?, ?, ?, ?, ?, ?, ?, 'RUNNING', ?)",
            (session, run, step_run, step, task, name, kind, attempt, now))

    @staticmethod
    def started_task(connection, session, run, pid, pid_started):
        """A task's process has started."""
        connection.execute("update session_task set pid=?, pid_started=? where session=? and run=?",
                           (pid, pid_started, session, run))

    @staticmethod
    def end_task(connection, session, run, status, rc, rows, message, now):
        """A task ends."""
        connection.execute(
            "update session_task set status=?, rc=?, row_count=?, message=?, ended=?"
            " where session=? and run=?", (status, rc, rows, message, now, session, run))

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

    def list_running(self, connection, agent):
        """Rows of an agent's sessions that the repository shows as running."""
        return connection.execute("select * from session where agent=? and status='RUNNING'",
                                  (agent,)).fetchall()

    def close_stale(self, connection, row, now):
        """Ends a stale session in ERROR, or queues it again as its on_stale says -> [Ticket], its
        own and that of the next attempt.

        The guard on `ran_by` leaves alone what was begun anew meanwhile.
        """
        session = row["id"]
        if not connection.execute("select 1 from session where id=? and status='RUNNING' and"
                                  " ran_by is ?", (session, row["ran_by"])).fetchone():
            return []
        interrupted = connection.execute(
            "select step, task from session_task where session=? and status='RUNNING'"
            " order by run desc limit 1", (session,)).fetchone()
        if interrupted:
            self.set_restart(connection, session, *interrupted)
        message = "stale: the agent that ran it is gone"
        for table in ("session_task", "session_step"):
            connection.execute("update %s set status='ERROR', message=?, ended=? where session=?"
                               " and status='RUNNING'" % table, (message, now, session))
        scenario = self.parsed(row["definition"], self.get_body(connection, row["definition"]))
        if scenario and scenario.on_stale == "restart":     # None: this version cannot read it
            self._change(connection, session, QUEUED, message=message + "; it goes on")
        else:
            self._change(connection, session, ERROR, ended=now, message=message)
        row = self.get_session(connection, session)
        retry = self.retry(connection, row, now) if scenario and row["status"] == ERROR else None
        return [self.ticket(connection, row)] + ([retry] if retry else [])

    def list_interrupted(self, session):
        """(step row, task row) of what ran when the agent was lost, or None."""
        with self.db.reading() as connection:
            task = connection.execute("select * from session_task where session=? and"
                                      " status='RUNNING' order by run desc limit 1",
                                      (session,)).fetchone()
            step = task and connection.execute(
                "select * from session_step where session=? and run=?",
                (session, task["step_run"])).fetchone()
        return (step, task) if step else None

    def find_adoptable(self, row, is_alive):
        """The Ticket of a stale session whose process can be taken up again, or None.

        is_alive(pid, start time) tells whether the holder still lives.
        """
        with self.db.reading() as connection:
            scenario = self.parsed_of(connection, row)
            ticket = self.ticket(connection, row)
        found = scenario and scenario.on_stale == ADOPT and self.list_interrupted(row["id"])
        if not found or not os.path.exists(self.spool_path(row["id"], found[1]["run"])):
            return None
        state = Spool(self.spool_path(row["id"], found[1]["run"])).state()
        lives = state["holder"] is not None and is_alive(state["holder"], state["holder_started"])
        return ticket._replace(is_adopted=True) if lives or state["is_over"] else None

    def adopt_session(self, connection, session, before, identity):
        """A running session changes the agent that runs it, or Conflict."""
        if connection.execute("update session set ran_by=? where id=? and status='RUNNING' and"
                              " ran_by is ?", (identity, session, before)).rowcount != 1:
            raise Conflict("session %d is not as it was" % session)

    def spool_path(self, session, task_run):
        """Where the holder of a task's process writes."""
        return "%s.spool.%d.%d" % (self.path, session, task_run)

    def fail_waiting(self, connection, session, message, now):
        """A session that has waited too long for its scenario's limit ends in ERROR -> Aftermath,
        or None when it is not outstanding."""
        row = self.find_session(connection, session)
        if row is None or row["status"] not in OUTSTANDING:
            return None
        self._change(connection, session, ERROR, ended=now, message=message)
        return Aftermath(self.retry(connection, row, now))

    def stop_outstanding(self, connection, session, now):
        """A session that has not begun ends in STOPPED; False when it is not outstanding."""
        row = self.get_session(connection, session)
        return row["status"] in OUTSTANDING and self._change(
            connection, session, STOPPED, ended=now, message="stopped before it began")
