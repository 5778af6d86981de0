"""Schedules of a work repository, their holds and what they run after."""
import collections
import contextlib
import functools
import json

from ..base.vocabulary import MISFIRE
from ..base.errors import Conflict, Exists, NotFound
from ..definitions.model import Schedule, read_stored
from .records import Span


class ScheduleTables:
    """Schedules and what they run after; a part of WorkRepository."""

    def put_schedule(self, connection, schedule, now, list_forgotten=None):
        """Adds a schedule or sets it to a new definition,
        its ledger and hold stay -> whether it did.

        The same again changes nothing. New times, or ON, begin now: what had come by the old ones
        and was not decided is list_forgotten(name, decided) -> [Span]. `after` that changes, or is
        enabled, looks at what ends from now on.
        """
        row = self.find_schedule(connection, schedule.name)
        before = self._readable(row)
        if before == schedule:
            return False
        connection.execute("update repository set last_revision = last_revision + 1")
        revision = connection.execute("select last_revision from repository").fetchone()[0]
        is_moved = before is None or before.timing != schedule.timing
        waiting = row and row["waiting"]
        if waiting and (is_moved or not schedule.get("after")):
            self._skip(connection, schedule.name, Span(
                waiting, waiting, 1, MISFIRE,
                "the schedule was changed before what it ran after had ended well"), now)
            waiting = None
        if is_moved:
            for span in (list_forgotten(schedule.name, row["decided"])
                         if row and list_forgotten else ()):
                self._skip(connection, schedule.name, span, now)
            self._begin_anew(connection, schedule.name, now)
        values = schedule[1:8] + (
            json.dumps(schedule.variables), json.dumps(schedule.options), revision,
            now if is_moved else row["decided"], waiting, schedule.name)
        if row is None:
            connection.execute(
                "insert into schedule(agent, scenario, version, context, rule, timezone, enabled,"
                " variables, options, revision, decided, waiting, name, created)"
                " values (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", values + (now,))
        else:
            connection.execute(
                "update schedule set agent=?, scenario=?, version=?, context=?, rule=?, timezone=?,"
                " enabled=?, variables=?, options=?, revision=?, decided=?, waiting=? where name=?",
                values)
        if before is None or before.get("after") != schedule.get("after") or not before.enabled:
            self._put_conditions(connection, schedule)
        return True

    @staticmethod
    def _begin_anew(connection, name, now):
        """Takes back what was skipped by a clock that was ahead; what has fired then stays. Of a
        long ledger only the newest rows can reach beyond now."""
        connection.execute("delete from occurrence where schedule=? and due>? and session is null",
                           (name, now))
        connection.execute("update occurrence set message=message || '; begun anew at ' || ?2 where"
                           " schedule=?1 and last_due>?2 and session is null and due in"
                           " (select due from"
                           " occurrence where schedule=?1 and due<=?2 order by due desc limit 50)",
                           (name, now))

    @staticmethod
    def _put_conditions(connection, schedule):
        connection.execute("delete from schedule_condition where schedule=?", (schedule.name,))
        connection.executemany("insert into schedule_condition(schedule, kind, name)"
                               " values (?, ?, ?)",
                               [(schedule.name,) + condition[:2]
                                for condition in schedule.list_conditions()])

    def check_conditions(self, connection, schedule):
        """What `after` names must be there (NotFound), and must not wait for it (Conflict)."""
        for condition in schedule.list_conditions():
            query = "select 1 from %s where name=? limit 1"
            if connection.execute(query % condition.kind, (condition.name,)).fetchone() is None:
                is_scenario = connection.execute(query % "scenario", (condition.name,)).fetchone()
                raise NotFound("no %s %s in repository %s, after which it is to run%s" % (
                    condition.kind, condition.name, self.name,
                    is_scenario and "; a scenario is written scenario:%s" % condition.name or ""))
        if self._leads_back(connection, schedule):
            raise Conflict("schedule %s would wait for itself by way of its after" % schedule.name)

    @staticmethod
    def _leads_back(connection, schedule):
        """Whether it runs after its own sessions, by way of others.

        With a rule a scenario leads nowhere: others start it as well, and its own session of the
        last due time may be what the next waits for.
        """
        seen, left = set(), [schedule.name]
        while left:
            for kind, name in connection.execute(
                    "select c.kind, c.name from schedule_condition c join schedule s on"
                    " s.name=c.schedule where s.name=? and (s.rule='' or c.kind='schedule')",
                    (left.pop(),)).fetchall():
                if name == (schedule.name if kind == "schedule" else schedule.scenario):
                    return True
                found = connection.execute(
                    "select name from schedule where name=?" if kind == "schedule" else
                    "select distinct s.name from schedule_condition c join schedule s on"
                    " s.name=c.schedule where s.rule='' and s.scenario=?", (name,)).fetchall()
                new = {row[0] for row in found} - seen
                seen |= new
                left += new
        return False

    def add_schedule(self, connection, schedule, now):
        """Exists, NotFound (scenario, after), BadRequest (variable)."""
        if self.find_schedule(connection, schedule.name) is not None:
            raise Exists("a schedule %s exists in repository %s" % (schedule.name, self.name))
        self._put_checked(connection, schedule, now)

    def set_schedule(self, connection, name, changes, now, list_forgotten=None):
        """Changes fields of a schedule: changes(Schedule) -> Schedule. As put_schedule."""
        before = self.schedule_of(self.get_schedule(connection, name))
        schedule = changes(before)
        if schedule == before._replace(enabled=False):      # whatever else is wrong with it
            self.put_schedule(connection, schedule, now, list_forgotten)
        else:
            self._put_checked(connection, schedule, now, list_forgotten)

    def _put_checked(self, connection, schedule, now, list_forgotten=None):
        self._check_variables(connection, schedule)
        self.put_schedule(connection, schedule, now, list_forgotten)
        self.check_conditions(connection, schedule)

    def delete_schedule(self, connection, name):
        """Deletes a schedule; its occurrences stay until they are purged. Conflict."""
        self.get_schedule(connection, name)
        waiting = connection.execute("select schedule from schedule_condition where kind='schedule'"
                                     " and name=?", (name,)).fetchone()
        if waiting:
            raise Conflict("schedule %s runs after it" % waiting[0])
        connection.execute("delete from schedule where name=?", (name,))
        connection.execute("delete from schedule_condition where schedule=?", (name,))

    def hold_schedule(self, connection, name, hold):
        """Keeps a hold of a schedule, or its release (None)."""
        self.get_schedule(connection, name)
        connection.execute("update schedule set hold_reason=?, hold_by=?, hold_since=?,"
                           " hold_until=? where name=?", tuple(hold or (None,) * 4) + (name,))

    def find_schedule(self, connection, name):
        """The row of a schedule, or None."""
        return connection.execute("select * from schedule where name=?", (name,)).fetchone()

    def get_schedule(self, connection, name):
        """The row of a schedule, or NotFound."""
        row = self.find_schedule(connection, name)
        if row is None:
            raise NotFound("no schedule %s in repository %s" % (name, self.name))
        return row

    @staticmethod
    def schedule_of(row):
        """A row -> Schedule. Conflict: another program has spoilt it."""
        return Schedule(row["name"], row["agent"], row["scenario"], row["version"], row["context"],
                        row["rule"], row["timezone"], bool(row["enabled"]),
                        *({} if row[name] == "{}" else read_stored(name, row[name])
                          for name in ("variables", "options")))

    def _readable(self, row):
        """schedule_of a row, or None for what cannot be read, or is none."""
        with contextlib.suppress(Conflict):
            return row and self.schedule_of(row)

    def list_schedules(self, name=None):
        """Yields rows of schedules by name, a page at a time, with `last`: the newest due time that
        made a session."""
        after = ""
        while True:
            with self.db.reading() as connection:
                rows = connection.execute(
                    "select s.*, (select due from occurrence o where o.schedule = s.name and"
                    " o.session is not null order by due desc limit 1) as last from schedule s"
                    " where %s order by name limit 500"
                    % ("name > ?" if name is None else "name=?"),
                    (after if name is None else name,)).fetchall()
            yield from rows
            if len(rows) < 500:
                return
            after = rows[-1]["name"]

    def list_revisions(self, agent):
        """Yields (name, revision, since when it is held) of an agent's schedules."""
        with self.db.reading() as connection:
            yield from connection.execute(
                "select name, revision, hold_since from schedule where agent=?", (agent,))

    def read_schedules(self, names):
        """Yields the rows of these schedules, a page at a time."""
        for start in range(0, len(names), 500):
            page = names[start:start + 500]
            with self.db.reading() as connection:
                rows = connection.execute("select * from schedule where name in (%s)"
                                          % ",".join("?" * len(page)), page).fetchall()
            yield from rows

    def list_conditions(self, schedule):
        """[(kind, name, when it was met or None)] of a schedule's `after`."""
        with self.db.reading() as connection:
            return [tuple(row) for row in connection.execute(
                "select kind, name, met from schedule_condition where schedule=?", (schedule,))]

    def mend_conditions(self):
        """What another program has written into `after` is waited for from now on.
        RepositoryError."""
        with self.db.reading() as connection:
            conditions = collections.defaultdict(set)
            for schedule, *condition in connection.execute("select schedule, kind, name from"
                                                           " schedule_condition"):
                conditions[schedule].add(tuple(condition))
            rows = connection.execute(
                "select * from schedule where instr(options, '\"after\"') or name in"
                " (select schedule from schedule_condition)").fetchall()
        for schedule in filter(None, map(self._readable, rows)):
            with contextlib.suppress(ValueError):       # spoilt: it does not fire
                if conditions[schedule.name] != {condition[:2]
                                                 for condition in schedule.list_conditions()}:
                    self.db.write(functools.partial(self._put_conditions, schedule=schedule))

    @staticmethod
    def list_met(connection):
        """[(schedule, kind, name, when)] of the conditions that are met."""
        return connection.execute("select schedule, kind, name, met from schedule_condition"
                                  " where met is not null").fetchall()

    def list_users(self, calendar):
        """The names of the schedules that a calendar excludes dates from."""
        with self.db.reading() as connection:
            rows = connection.execute("select * from schedule where instr(options, ?)",
                                      (calendar,)).fetchall()
        schedules = filter(None, map(self._readable, rows))
        return [schedule.name for schedule in schedules if calendar in schedule.list_calendars()]
