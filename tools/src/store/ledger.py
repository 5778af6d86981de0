"""The ledger of due times: what was decided of each, with the session it started."""

from ..base.vocabulary import ALL_SCHEDULES, FAILED, SKIPPED
from ..base.times import to_text
from .records import Span
from .seen import seen_condition

MANY_DUES = 10000       # that are looked through for those that did not run


class Ledger:
    """The due times of schedules, and what became of each."""

    @staticmethod
    def is_recorded(connection, name, due):
        """Whether a due time stands in the ledger, as the first of its row."""
        return connection.execute("select 1 from occurrence where schedule=? and due=?",
                                  (name, to_text(due))).fetchone() is not None

    @staticmethod
    def _find_newest(connection, name, upto):
        return connection.execute("select * from occurrence where schedule=? and due<=?"
                                  " order by due desc limit 1", (name, to_text(upto))).fetchone()

    @staticmethod
    def record(connection, name, span, decision, session, now):
        """Notes a decision on the due times of a Span, with the session that it made, or None."""
        connection.execute(
            "insert into occurrence(schedule, due, last_due, count, decision, reason, session,"
            " decided, message) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (name, to_text(span.first), to_text(span.last), span.count, decision, span.reason,
             session, to_text(now), span.message))

    def skip(self, connection, name, span, now, decision=SKIPPED):
        """Consecutive due times that are skipped, or fail, for one reason are one row."""
        # one that waited may be older
        row = self._find_newest(connection, name, span.first)
        if row is not None and (row["decision"], row["reason"]) == (decision, span.reason) and (
                decision == SKIPPED or row["message"] == span.message) and not connection.execute(
                    "select 1 from schedule where name=? and waiting>? and waiting<?",
                    (name, row["last_due"], to_text(span.first))).fetchone():
            connection.execute(
                "update occurrence set last_due=max(last_due, ?), count=count+?, decided=?,"
                " message=? where schedule=? and due=?",
                (to_text(span.last), span.count, to_text(now), span.message, name, row["due"]))
        else:
            self.record(connection, name, span, decision, None, now)

    def note_failed(self, connection, name, due, message, now):
        """A due time could not make its session, and why."""
        self.skip(connection, name, Span(due, due, 1, "", message), now, FAILED)

    @staticmethod
    def begin_anew(connection, name, now):
        """Takes back what was skipped by a clock that was ahead; what has fired then stays. Of a
        long ledger only the newest rows can reach beyond now."""
        now = to_text(now)
        connection.execute("delete from occurrence where schedule=? and due>? and session is null",
                           (name, now))
        connection.execute("update occurrence set message=message || '; begun anew at ' || ?2 where"
                           " schedule=?1 and last_due>?2 and session is null and due in"
                           " (select due from occurrence"
                           " where schedule=?1 and due<=?2 order by due desc limit 50)",
                           (name, now))

    @staticmethod
    def note_step(connection, message, now):
        """A step of the clock stands in the ledger too."""
        now = to_text(now)
        connection.execute("insert or ignore into occurrence(schedule, due, last_due, count,"
                           " decision, reason, decided, message)"
                           " values (?, ?, ?, 0, 'skipped', 'misfire', ?, ?)",
                           (ALL_SCHEDULES, now, now, now, message))

    @staticmethod
    def list_occurrences(connection, name, limit, since=0.0, due=None, patterns=(),
                         has_begun=True):
        """Rows of occurrences, newest first; of all schedules when no name is given. `since`: due
        from this instant on; `due`: at this one, to the second; `patterns`: of scenarios, to which
        both the schedule and the session have to belong, as far as they are there still; without
        `has_begun` those that began in time are left out, and only the newest MANY_DUES looked at.
        """
        newest = "select * from (select * from %s where %%s%%s order by due desc limit ?1)" % (
            "occurrence" if has_begun else "(select * from occurrence order by due desc"
            " limit %d) as occurrence" % MANY_DUES)
        within = " and last_due>='%s'" % to_text(since) if since else ""
        within += "" if has_begun else " and decision<>'started'"
        if due is not None:
            within += " and due<='%s' and last_due>='%s'" % (to_text(due + 0.999), to_text(due))
        where = seen_condition(connection, "scenario", patterns)
        if where:
            within += " and (schedule='' or coalesce((select 1%s from schedule where name =" \
                " occurrence.schedule), session is not null) and (session is null or exists" \
                " (select 1 from session where id = occurrence.session%s)))" % (where, where)
        rows = newest % ("1", within) if name is None else "%s union all %s" % (
            newest % ("schedule=?2", within), newest % ("schedule=''", within))
        return connection.execute(
            "select o.*, s.status as status, s.begun, s.start_at, s.attempt,"
            " s.message as outcome from (%s) o left join session s on s.id = o.session"
            " order by o.due desc, o.schedule limit ?1" % rows,
            (limit, name)[:1 if name is None else 2]).fetchall()
