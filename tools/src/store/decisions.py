"""What is decided of due times, and the sessions that are made by it."""

from ..base.vocabulary import LIMIT, OVERLAP, RUNNING, STARTED, STOPPED
from ..base.errors import AgentError, Busy, Changed, Conflict
from ..base.program import log
from ..base.times import from_text, to_text
from .admission import are_met, find_overlap
from .endings import by_schedule, tell_stop
from .pending import lazy
from .records import Made, SessionRequest, Span


class Decisions:
    """Due times that have come, and conditions that are met."""

    def __init__(self, schedules, arrivals, endings, ledger):
        self._schedules, self._arrivals = schedules, arrivals
        self._endings, self._ledger = endings, ledger

    def decide(self, connection, name, revision, upto, spans, now, is_held, boot=None):
        """Decides due times of a schedule, all up to `upto`: sessions and occurrences in one
        transaction -> [Made]. Nothing is decided twice; `boot` is the one that its rule fires for.

        Changed: the schedule is another than when it was read; RepositoryGone: the repository is
        being detached. Then nothing of this is decided.
        """
        self._arrivals.check_door()
        row = self._schedules.find(connection, name)
        if row is None or row["revision"] != revision or not row["enabled"]:
            raise Changed("schedule %s has changed since it was read" % name)
        if boot is not None and row["boot"] == boot:
            return []
        connection.execute("update schedule set decided=max(decided, ?), boot=coalesce(?, boot)"
                           " where name=?", (to_text(upto), boot, name))
        decisions = []
        for span in spans:
            if to_text(span.last) <= row["decided"]:
                continue
            if span.reason:
                self._ledger.skip(connection, name, span, now)
            else:
                decisions += self._come_due(connection, row, span, now, is_held)
        return decisions

    @staticmethod
    def note_boot(connection, name, boot):
        """The rule `boot` of a schedule does not fire for this boot of the host."""
        connection.execute("update schedule set boot=? where name=?", (boot, name))

    def _come_due(self, connection, row, span, now, is_held):
        """A due time has come: it runs, or waits for what `after` names."""
        name, schedule = row["name"], self._schedules.read_definition(row)
        if self._ledger.is_recorded(connection, name, span.first):
            return []                   # fired before the clock stepped back
        if not schedule.get("after") and not row["waiting"]:
            return self._start(connection, schedule, span, now, is_held)
        self._schedules.skip_waiting(connection, self._schedules.find(connection, name), now,
                                     "what it runs after had not ended well by the next due time")
        is_met = self._take_conditions(connection, schedule, now)
        connection.execute("update schedule set waiting=? where name=?",
                           (None if is_met else to_text(span.first), name))
        return self._start(connection, schedule, span, now, is_held) if is_met else []

    def _take_conditions(self, connection, schedule, now):
        """Whether all of `after` have ended well since this was last true; then it begins anew."""
        met = {(kind, name): ended for kind, name, ended
               in self._schedules.list_conditions(connection, schedule.name)}
        if not are_met([((kind, name), within_s) for kind, name, within_s
                        in schedule.list_conditions()], met, now):
            return False
        connection.execute("update schedule_condition set met=null where schedule=?",
                           (schedule.name,))
        return True

    @lazy
    def decide_after(self, connection, agent, now, is_held):
        """Decides the schedules of an agent whose conditions are met, as decide()."""
        self._arrivals.check_door()
        decisions = []
        for row in connection.execute(
                "select * from schedule where agent=? and enabled and hold_since is null and"
                " (rule='' or waiting is not null) and name in (select schedule from"
                " schedule_condition where met is not null) order by name", (agent,)).fetchall():
            try:
                schedule = self._schedules.read_definition(row)
                due = from_text(row["waiting"]) if row["waiting"] else now
                is_met = self._take_conditions(connection, schedule, now)
            except (ValueError, Conflict) as error:     # costs the others nothing
                log.warning("schedule %s: %s", row["name"], error)
                continue
            if not is_met:
                continue
            while self._ledger.is_recorded(connection, schedule.name, due):
                due += 0.001            # twice in a millisecond
            connection.execute("update schedule set waiting=null, decided=max(decided, ?)"
                               " where name=?", (to_text(due), schedule.name))
            reason = "after %s" % schedule.get("after") if schedule.get("after") else ""
            decisions += self._start(connection, schedule, Span(due, due, 1, "", reason), now,
                                     is_held)
        return decisions

    def _start(self, connection, schedule, span, now, is_held):
        """Makes the session of a due time, as far as `overlap` lets it -> [Made]."""
        overlap, name = schedule.get("overlap"), schedule.name
        rows = connection.execute(
            "select id, status from session where schedule=? and status in"
            " ('WAITING', 'QUEUED', 'RUNNING') order by id", (name,)).fetchall()
        in_the_way, replaced = find_overlap(
            overlap, [(row, row["status"] == RUNNING) for row in rows], span.is_backlog)
        if in_the_way:
            self._ledger.skip(connection, name, Span(
                span.first, span.last, 1, OVERLAP,
                "session %d of it is %s" % tuple(in_the_way)), now)
            return []
        replaced = [row["id"] for row in replaced]
        message = tell_stop("before it began", by_schedule(name))
        endings = [self._endings.end_outstanding(connection, session, STOPPED, message, now)
                   for session in replaced]
        request = SessionRequest(
            schedule.scenario, schedule.agent, schedule.version, schedule.context,
            schedule.variables, schedule.get("session_name"), schedule.get("keywords"),
            schedule.get("priority"), timeout=schedule.get("timeout"), start_at=span.planned,
            schedule=name, due=span.first, is_held=is_held, is_parallel=overlap == "parallel",
            replaces=tuple(replaced))
        try:
            ticket = self._arrivals.insert(connection, request, now)
        except Busy as error:
            self._ledger.skip(connection, name, Span(span.first, span.last, 1, LIMIT,
                                                     error.message), now)
            ticket = None
        except AgentError as error:
            self._ledger.note_failed(connection, name, span.first, error.message, now)
            ticket = None
        else:
            self._ledger.record(connection, name, span, STARTED, ticket.session, now)
            if ticket.excess:           # now that its occurrence can take the next attempt
                ticket = self._arrivals.end_excess(connection, ticket, now)
        return [Made(ticket, tuple(filter(None, endings)), tuple(
            session for session, ending in zip(replaced, endings) if ending is None))]
