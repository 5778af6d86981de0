"""The ledger of due times: what was decided of each, with the session it started."""
import json

from ..base.vocabulary import (ALL_SCHEDULES, ERROR, FAILED, LIMIT, MISFIRE, OUTSTANDING, OVERLAP,
                               SKIPPED, STARTED, STOPPED)
from ..base.errors import AgentError, Busy, Conflict
from ..base.program import log
from ..base.times import from_text, to_text
from .records import SessionRequest, Span


class OccurrenceTables:
    """The ledger of due times, and the sessions that they make; a part of WorkRepository."""

    def list_occurrences(self, name, limit):
        """Rows of occurrences, newest first; of all schedules when no name is given."""
        newest = "select * from (select * from occurrence %s order by due desc limit ?1)"
        rows = newest % "" if name is None else "%s union all %s" % (
            newest % "where schedule=?2", newest % "where schedule=''")
        with self.db.reading() as connection:
            return connection.execute(
                "select o.*, s.status as status, s.begun, s.start_at, s.attempt,"
                " s.message as outcome from (%s) o left join session s on s.id = o.session"
                " order by o.due desc, o.schedule limit ?1" % rows,
                (limit, name)[:1 if name is None else 2]).fetchall()

    def decide(self, connection, name, revision, upto, spans, now, is_held):
        """Decides due times of a schedule, all up to `upto`: sessions and occurrences in one
        transaction -> [(Ticket, sessions that it replaces)].

        Nothing is decided twice, nor for a schedule that has changed since it was read.
        """
        row = self.find_schedule(connection, name)
        if row is None or row["revision"] != revision or not row["enabled"]:
            self.is_behind = True       # what is in memory is read again
            return []
        connection.execute("update schedule set decided=max(decided, ?) where name=?", (upto, name))
        made = []
        for span in spans:
            if span.last <= row["decided"]:
                continue
            if span.reason:
                self._skip(connection, name, span, now)
            else:
                made += self._come_due(connection, row, span, now, is_held)
        return made

    def _come_due(self, connection, row, span, now, is_held):
        """A due time has come: it runs, or waits for what `after` names."""
        name, schedule = row["name"], self.schedule_of(row)
        if self.is_recorded(connection, name, span.first):     # fired before the clock stepped back
            return []
        if not schedule.get("after") and not row["waiting"]:
            return self._start(connection, schedule, span, now, is_held)
        waiting = self.find_schedule(connection, name)["waiting"]
        if waiting:
            self._skip(connection, name, Span(
                waiting, waiting, 1, MISFIRE,
                "what it runs after had not ended well by the next due time"), now)
        is_met = self._take_conditions(connection, schedule, now)
        connection.execute("update schedule set waiting=? where name=?",
                           (None if is_met else span.first, name))
        return self._start(connection, schedule, span, now, is_held) if is_met else []

    def _take_conditions(self, connection, schedule, now):
        """Whether all of `after` have ended well since this was last true; then it begins anew."""
        met = {tuple(row[:2]): row[2] for row in connection.execute(
            "select kind, name, met from schedule_condition where schedule=?", (schedule.name,))}
        for kind, name, within_s in schedule.list_conditions():
            ended = met.get((kind, name))
            if ended is None or within_s and from_text(ended) < from_text(now) - within_s:
                return False
        connection.execute("update schedule_condition set met=null where schedule=?",
                           (schedule.name,))
        return True

    def meet_conditions(self, connection, row, now):
        """A session of this row has ended well; whether a schedule has waited for that. A schedule
        does not for what its own session starts: it would never end."""
        above = [parent["schedule"]
                 for parent in self.list_above(connection, row["name"], row["id"])
                 if parent["schedule"]]
        return sum(connection.execute(
            "update schedule_condition set met=? where kind=? and name=? and schedule not in (%s)"
            % ",".join("?" * len(above)), [now, kind, row[kind]] + above).rowcount
                   for kind in ("schedule", "scenario") if row[kind]) > 0

    def decide_after(self, connection, agent, now, is_held):
        """Decides the schedules of an agent whose conditions are met, as decide()."""
        made = []
        for row in connection.execute(
                "select * from schedule where agent=? and enabled and hold_since is null and"
                " (rule='' or waiting is not null) and name in (select schedule from"
                " schedule_condition where met is not null)", (agent,)).fetchall():
            try:
                schedule = self.schedule_of(row)
                is_met = self._take_conditions(connection, schedule, now)
            except (ValueError, Conflict) as error:     # costs the others nothing
                log.warning("schedule %s: %s", row["name"], error)
                continue
            if not is_met:
                continue
            due = row["waiting"] or now
            while self.is_recorded(connection, schedule.name, due):    # twice in a millisecond
                due = to_text(from_text(due) + 0.001)
            connection.execute("update schedule set waiting=null, decided=max(decided, ?)"
                               " where name=?",
                               (due, schedule.name))
            told = "after %s" % schedule.get("after") if schedule.get("after") else ""
            made += self._start(connection, schedule, Span(due, due, 1, "", told), now, is_held)
        return made

    def _start(self, connection, schedule, span, now, is_held):
        """Makes the session of a due time, as far as `overlap` lets it -> [(Ticket, replaced)]."""
        overlap, name = schedule.get("overlap"), schedule.name
        rows = connection.execute("select id, status from session where schedule=? and status in"
                                  " ('WAITING', 'QUEUED', 'RUNNING')", (name,)).fetchall()
        in_the_way = [row for row in rows if overlap == "skip"
                      or overlap == "queue" and row["status"] in OUTSTANDING
                      and not span.is_backlog]
        if in_the_way:
            return self._skip(connection, name, Span(
                span.first, span.last, 1, OVERLAP,
                "session %d of it is %s" % tuple(in_the_way[0])), now)
        replaced = [row["id"] for row in rows] if overlap == "stop" else []
        for session in replaced:
            self._change(connection, session, STOPPED, is_only_outstanding=True, ended=now,
                         message="stopped before it began: the next due time had come")
        request = SessionRequest(
            schedule.scenario, schedule.agent, schedule.version, schedule.context,
            schedule.variables,
            schedule.get("session_name"), schedule.get("keywords"), schedule.get("priority"),
            timeout=schedule.get("timeout"), start_at=span.planned, schedule=name, due=span.first,
            is_held=is_held, is_parallel=overlap == "parallel", replaces=tuple(replaced))
        try:
            ticket = self.add_session(connection, request, now)
        except Busy as error:
            return self._skip(connection, name,
                              Span(span.first, span.last, 1, LIMIT, error.message), now)
        except AgentError as error:
            return self.note_failed(connection, name, span.first, error.message, now)
        self._record(connection, name, span, STARTED, ticket.session, now)
        retry = None
        if ticket.status == ERROR:      # the limit of its scenario
            retry = self.retry(connection, self.get_session(connection, ticket.session), now)
        return [(ticket, replaced)] + ([(retry, [])] if retry else [])

    def retry(self, connection, row, now):
        """After a session ended in ERROR: the next run of the whole, when its schedule has attempts
        left -> Ticket, or None."""
        schedule = (row["schedule"]
                    and self._readable(self.find_schedule(connection, row["schedule"])))
        if not schedule or row["attempt"] >= schedule.get("attempts") or connection.execute(
                "select 1 from session where schedule=? and id>? and due=?",
                (schedule.name, row["id"], row["due"])).fetchone():
            return None
        scenario = self.parsed_of(connection, row)
        start_at = to_text(from_text(now) + schedule.get("retry_delay"))
        variables = json.dumps(dict(scenario.variables, **json.loads(row["given"])))
        session = connection.execute(
            "insert into session(id, agent, scenario, version, definition, context, status, name,"
            " keywords, priority, level, timeout, created, start_at, variables, given, schedule,"
            " due, attempt, is_parallel) select (select (last_session + 1) * 1000 + id from"
            " repository),"
            " agent, scenario, version, definition, context, 'WAITING', name, keywords, priority,"
            " level, timeout, ?, ?, ?, given, schedule, due, attempt + 1, is_parallel from session"
            " where id=?", (now, start_at, variables, row["id"])).lastrowid
        told = "attempt %d of %d" % (row["attempt"] + 1, schedule.get("attempts"))
        connection.execute("update session set message=message || ? where id=?",
                           ("; %s is session %d" % (told, session), row["id"]))
        connection.execute("update occurrence set session=?, message=? where session=?",
                           (session, "%s, before it session %d" % (told, row["id"]), row["id"]))
        return self.ticket(connection, self.get_session(connection, session))

    @staticmethod
    def is_recorded(connection, name, due):
        """Whether a due time (UTC text) stands in the ledger, as the first of its row."""
        return connection.execute("select 1 from occurrence where schedule=? and due=?",
                                  (name, due)).fetchone() is not None

    @staticmethod
    def _newest_occurrence(connection, name, upto):
        return connection.execute("select * from occurrence where schedule=? and due<=?"
                                  " order by due desc limit 1", (name, upto)).fetchone()

    @staticmethod
    def _record(connection, name, span, decision, session, now):
        connection.execute(
            "insert into occurrence(schedule, due, last_due, count, decision, reason, session,"
            " decided, message) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (name, span.first, span.last, span.count, decision, span.reason, session, now,
             span.message))

    def _skip(self, connection, name, span, now, decision=SKIPPED):
        """Consecutive due times that are skipped, or fail, for one reason are one row."""
        # one that waited may be older
        row = self._newest_occurrence(connection, name, span.first)
        if row is not None and (row["decision"], row["reason"]) == (decision, span.reason) and (
                decision == SKIPPED or row["message"] == span.message) and not connection.execute(
                    "select 1 from schedule where name=? and waiting>? and waiting<?",
                    (name, row["last_due"], span.first)).fetchone():
            connection.execute(
                "update occurrence set last_due=max(last_due, ?), count=count+?, decided=?,"
                " message=? where schedule=? and due=?",
                (span.last, span.count, now, span.message, name, row["due"]))
        else:
            self._record(connection, name, span, decision, None, now)
        return []

    def note_failed(self, connection, name, due, message, now):
        """A due time could not make its session, and why."""
        return self._skip(connection, name, Span(due, due, 1, "", message), now, FAILED)

    def note_step(self, connection, message, now):
        """A step of the clock stands in the ledger too."""
        connection.execute("insert or ignore into occurrence(schedule, due, last_due, count,"
                           " decision, reason, decided, message)"
                           " values (?, ?, ?, 0, 'skipped', 'misfire', ?, ?)",
                           (ALL_SCHEDULES, now, now, now, message))
