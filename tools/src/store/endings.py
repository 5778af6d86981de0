"""The end of a session, whoever ends it: one update, and all that follows from it."""
import json
import re

from ..base.vocabulary import ERROR, OUTSTANDING, QUEUED, RESTARTABLE, STOPPED
from ..base.errors import Unreadable
from ..base.times import from_text, to_text
from .records import Ending


def tell_stop(when, by):
    """The message of a session that was stopped: when ("at once", "before it began", or "": in good
    order), and by whom, with what."""
    return "stopped %s by %s" % (when, by) if when else "stopped by %s" % by


def by_schedule(name):
    """Who stops what the next due time of a schedule replaces."""
    return "its schedule %s: the next due time had come (overlap=stop)" % name


def is_by_operator(message):
    """Whether the message of a session that was stopped says that a client's STOP did it."""
    return re.search(r"^stopped .*by .*\(STOP( -IMMEDIATE)?\)", message) is not None


class Endings:
    """How sessions end, and what their end brings about."""

    def __init__(self, sessions, progress, schedules):
        self._sessions, self._progress, self._schedules = sessions, progress, schedules

    def end(self, connection, session, status, message, now, states=None):
        """Ends a session, if it is in one of these states (None: those from which it may) ->
        Ending, or None when it is not. One that ended well keeps what its level says."""
        row = self._sessions.get(connection, session)
        if not self._sessions.change(connection, session, status, states, ended=to_text(now),
                                     message=message):
            return None
        ending = self._tell(connection, row, status, message, now)
        if status in RESTARTABLE:       # of a plan that has lost its course
            connection.execute(
                "update plan_node set status=?, message=?, ended=?, due=null where session=?"
                " and status='RUNNING'", (status, message, to_text(now), session))
        if status == ERROR:
            retry = self._retry(connection, row, now)
            return ending._replace(tickets=(retry,)) if retry else ending
        if status == STOPPED:
            return ending
        if row["level"] < 5:
            connection.execute("delete from session_log where session=?", (session,))
        if row["level"] < 3:
            connection.execute("delete from session_task where session=?", (session,))
            connection.execute("delete from session_step where session=?", (session,))
            connection.execute("delete from plan_node where session=?", (session,))
            connection.execute("delete from plan_value where session=?", (session,))
        return ending._replace(is_awaited=self._meet_conditions(connection, row, now))

    @staticmethod
    def _tell(connection, row, status, message, now):
        """The Ending of a row of session, of which nothing follows."""
        begun, late_s = row["begun"] and from_text(row["begun"]), None
        is_planned = row["due"] and row["schedule"] and row["attempt"] == 1
        if begun and is_planned and not connection.execute(
                "select 1 from session_step where session=? and begun<? limit 1",
                (row["id"], row["begun"])).fetchone():
            late_s = max(0.0, begun - from_text(row["due"]))
        return Ending(row["id"], status, secret_file=row["secret_file"] or "", late_s=late_s,
                      scenario=row["scenario"], duration_s=begun and max(0.0, now - begun),
                      message=message, parent=row["parent"])

    def end_outstanding(self, connection, session, status, message, now):
        """`end` of a session that has not begun."""
        return self.end(connection, session, status, message, now, OUTSTANDING)

    def close_stale(self, connection, row, now):
        """Ends a stale session in ERROR, or queues it again as its on_stale says -> Ending, or None
        for what was begun anew since its row was read."""
        session = row["id"]
        if not connection.execute("select 1 from session where id=? and status='RUNNING' and"
                                  " ran_by is ?", (session, row["ran_by"])).fetchone():
            return None
        interrupted = connection.execute(
            "select step, task, run from session_task where session=? and status='RUNNING'"
            " order by run desc limit 1", (session,)).fetchone()
        if interrupted:
            self._progress.set_restart(connection, session, *interrupted)
        message = "stale: the agent that ran it is gone"
        for table in ("session_task", "session_step"):
            connection.execute("update %s set status='ERROR', message=?, ended=? where session=?"
                               " and status='RUNNING'" % table, (message, to_text(now), session))
        try:
            on_stale = self._sessions.get_scenario(connection, row).on_stale
        except Unreadable as error:
            on_stale, message = "error", "%s; %s" % (message, error.message)
        if on_stale != "restart":
            return self.end(connection, session, ERROR, message, now)
        self._sessions.change(connection, session, QUEUED, message=message + "; it goes on")
        return Ending(session, QUEUED, (self._sessions.make_ticket(
            connection, self._sessions.get(connection, session)),))

    def _retry(self, connection, row, now):
        """After a session ended in ERROR: the next run of the whole, when its schedule has attempts
        left, and it can be read -> Ticket, or None."""
        schedule = row["schedule"] and self._schedules.find_definition(
            self._schedules.find(connection, row["schedule"]))
        if not schedule or row["attempt"] >= schedule.get("attempts") or connection.execute(
                "select 1 from session where schedule=? and id>? and due=?",
                (schedule.name, row["id"], row["due"])).fetchone():
            return None
        try:
            scenario = self._sessions.get_scenario(connection, row)
        except Unreadable:
            return None
        start_at = to_text(now + schedule.get("retry_delay"))
        variables = json.dumps(dict(scenario.variables, **json.loads(row["given"])))
        session = connection.execute(
            "insert into session(id, agent, scenario, version, definition, context, status, name,"
            " keywords, priority, level, timeout, created, start_at, variables, given, schedule,"
            " due, attempt, is_parallel) select (select (last_session + 1) * 1000 + id from"
            " repository),"
            " agent, scenario, version, definition, context, 'WAITING', name, keywords, priority,"
            " level, timeout, ?, ?, ?, given, schedule, due, attempt + 1, is_parallel from session"
            " where id=?", (to_text(now), start_at, variables, row["id"])).lastrowid
        self._sessions.put_keywords(connection, session, row["keywords"])
        count = "attempt %d of %d" % (row["attempt"] + 1, schedule.get("attempts"))
        connection.execute("update session set message=message || ? where id=?",
                           ("; %s is session %d" % (count, session), row["id"]))
        connection.execute("update occurrence set session=?, message=? where session=?",
                           (session, "%s, before it session %d" % (count, row["id"]), row["id"]))
        return self._sessions.make_ticket(connection, self._sessions.get(connection, session))

    def _meet_conditions(self, connection, row, now):
        """A session of this row has ended well; whether a schedule has waited for that. A schedule
        does not for what its own session starts: it would never end."""
        above = [parent["schedule"]
                 for parent in self._sessions.list_above(connection, row["parent"])
                 if parent["schedule"]]
        return sum(connection.execute(
            "update schedule_condition set met=? where kind=? and name=? and schedule not in (%s)"
            % ",".join("?" * len(above)), [to_text(now), kind, row[kind]] + above).rowcount
                   for kind in ("schedule", "scenario") if row[kind]) > 0
