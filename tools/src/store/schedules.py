"""Schedules of a work repository, their holds and what they run after."""
import collections
import contextlib
import json

from ..base.vocabulary import ALTERED, MISFIRE, NEW, SAME
from ..base.errors import CalendarError, Changed, Conflict, Exists, NotFound
from ..base.program import own_boot
from ..base.times import find_time, to_text
from ..definitions.model import Schedule, read_stored
from .records import Origin, Span, StoredSchedule, hold_columns, read_hold

PAGE = 500              # rows that are read at once
_ROW_TIMES = ("waiting", "hold_since", "hold_until")        # beside that up to where it is decided


def _words(row):
    """The fields of a Schedule that every row has, but its variables: its first columns."""
    return row[:7] + (bool(row[7]),)


def _read_values(row, column):
    """The variables or options of a row. Conflict: another program has spoilt them."""
    text = row[column]
    return {} if text == "{}" else read_stored(column, text)


def _dump(values):
    """The text of variables or options, as _read_values reads it."""
    return json.dumps(values) if values else "{}"


def _leads_back(connection, schedule):
    """Whether it runs after its own sessions, by way of others.

    With a rule a scenario leads nowhere: others start it as well, and its own session of the
    last due time may be what the next waits for.
    """
    names, to_follow = set(), [schedule.name]
    while to_follow:
        for kind, name in connection.execute(
                "select c.kind, c.name from schedule_condition c join schedule s on"
                " s.name=c.schedule where s.name=? and (s.rule='' or c.kind='schedule')",
                (to_follow.pop(),)).fetchall():
            if name == (schedule.name if kind == "schedule" else schedule.scenario):
                return True
            rows = connection.execute(
                "select name from schedule where name=?" if kind == "schedule" else
                "select distinct s.name from schedule_condition c join schedule s on"
                " s.name=c.schedule where s.rule='' and s.scenario=?", (name,)).fetchall()
            new = {row[0] for row in rows} - names
            names |= new
            to_follow += new
    return False


class StoredSchedules:
    """Schedules, their holds and what they run after; `name` is that of the repository."""

    def __init__(self, name, scenarios, ledger):
        self._name, self._scenarios, self._ledger = name, scenarios, ledger

    def put(self, connection, schedule, now, origin=None):
        """Adds a schedule or sets it to a new definition, its ledger and hold stay -> new,
        changed or same. Where that does not say `enabled`, it stays as it is, and is on when new.

        The same again changes nothing. New times, or ON, begin now: what had come by the old ones
        and was not decided is that of the Origin. `after` that changes, or is enabled, looks at
        what ends from now on. Changed: the row is not that of the Origin any more.
        """
        row = self.find(connection, schedule.name)
        if origin and (row is None or origin[:2] != self.make_origin(row)[:2]):
            raise Changed("schedule %s was changed at the same time; try again" % schedule.name)
        if schedule.enabled is None:
            schedule = schedule._replace(enabled=row is None or bool(row["enabled"]))
        before, moment = self.find_definition(row), to_text(now)
        if before == schedule:
            return SAME
        connection.execute("update repository set last_revision = last_revision + 1")
        revision = connection.execute("select last_revision from repository").fetchone()[0]
        is_moved = before is None or before.timing != schedule.timing
        waiting = row and row["waiting"]
        if waiting and (is_moved or not schedule.get("after")):
            self.skip_waiting(connection, row, now, "the schedule was changed before what it ran"
                              " after had ended well")
            waiting = None
        if is_moved:
            for span in origin.spans if origin else ():
                self._ledger.skip(connection, schedule.name, span, now)
            self._ledger.begin_anew(connection, schedule.name, now)
        values = schedule[1:8] + (
            _dump(schedule.variables), _dump(schedule.options), revision,
            moment if is_moved else row["decided"], waiting,
            own_boot() if is_moved else row["boot"], schedule.name)
        if row is None:
            connection.execute(
                "insert into schedule(agent, scenario, version, context, rule, timezone, enabled,"
                " variables, options, revision, decided, waiting, boot, name, created)"
                " values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", values + (moment,))
        else:
            connection.execute(
                "update schedule set agent=?, scenario=?, version=?, context=?, rule=?, timezone=?,"
                " enabled=?, variables=?, options=?, revision=?, decided=?, waiting=?, boot=?"
                " where name=?", values)
        if before is None or before.get("after") != schedule.get("after") or not before.enabled:
            self.put_conditions(connection, schedule)
        return ALTERED if row else NEW

    @staticmethod
    def make_origin(row):
        """The Origin of a change that is made from this row."""
        return Origin(row["revision"], find_time(row["decided"]))

    def skip_waiting(self, connection, row, now, message):
        """The due time of a row that waits for what `after` names does so in vain, and why."""
        waiting = find_time(row["waiting"])
        if waiting is not None:
            self._ledger.skip(connection, row["name"],
                              Span(waiting, waiting, 1, MISFIRE, message), now)

    @staticmethod
    def put_conditions(connection, schedule):
        """What its `after` names is waited for from now on."""
        connection.execute("delete from schedule_condition where schedule=?", (schedule.name,))
        connection.executemany("insert into schedule_condition(schedule, kind, name)"
                               " values (?, ?, ?)",
                               [(schedule.name,) + condition[:2]
                                for condition in schedule.list_conditions()])

    def check_conditions(self, connection, schedule):
        """What `after` names must be there (NotFound), and must not wait for it (Conflict)."""
        conditions = schedule.list_conditions()
        for condition in conditions:
            query = "select 1 from %s where name=? limit 1"
            if connection.execute(query % condition.kind, (condition.name,)).fetchone() is None:
                is_scenario = connection.execute(query % "scenario", (condition.name,)).fetchone()
                raise NotFound("no %s %s in repository %s, after which it is to run%s" % (
                    condition.kind, condition.name, self._name,
                    is_scenario and "; a scenario is written scenario:%s" % condition.name or ""))
        if conditions and _leads_back(connection, schedule):
            raise Conflict("schedule %s would wait for itself by way of its after" % schedule.name)

    def add(self, connection, schedule, now):
        """Exists, NotFound (scenario, after), BadRequest (variable), Unreadable."""
        if self.find(connection, schedule.name) is not None:
            raise Exists("a schedule %s exists in repository %s" % (schedule.name, self._name))
        self.set(connection, schedule, now, None)

    def set(self, connection, schedule, now, origin):
        """`put` of one whose scenario and conditions are checked. NotFound, BadRequest,
        Conflict."""
        _, scenario = self._scenarios.get_scenario(connection, schedule.scenario, schedule.version)
        scenario.check_schedule(schedule.variables)
        self.put(connection, schedule, now, origin)
        self.check_conditions(connection, schedule)

    def delete(self, connection, name):
        """Deletes a schedule; its occurrences stay until they are purged. Conflict."""
        self.get(connection, name)
        waiting = connection.execute("select schedule from schedule_condition where kind='schedule'"
                                     " and name=?", (name,)).fetchone()
        if waiting:
            raise Conflict("schedule %s runs after it" % waiting[0])
        connection.execute("delete from schedule where name=?", (name,))
        connection.execute("delete from schedule_condition where schedule=?", (name,))

    def hold(self, connection, name, hold):
        """Keeps a hold of a schedule, or its release (None)."""
        self.get(connection, name)
        connection.execute("update schedule set hold_reason=?, hold_by=?, hold_since=?,"
                           " hold_until=? where name=?", hold_columns(hold) + (name,))

    def find(self, connection, name):
        """The row of a schedule, or None."""
        return connection.execute("select * from schedule where name=?", (name,)).fetchone()

    def get(self, connection, name):
        """The row of a schedule, or NotFound."""
        row = self.find(connection, name)
        if row is None:
            raise NotFound("no schedule %s in repository %s" % (name, self._name))
        return row

    @staticmethod
    def read_definition(row):
        """A row -> Schedule. Conflict: another program has spoilt it."""
        return Schedule(*_words(row), _read_values(row, "variables"), _read_values(row, "options"))

    def find_definition(self, row):
        """`read_definition`, or None for what another program has spoilt, or is none."""
        with contextlib.suppress(Conflict):
            return row and self.read_definition(row)

    def read(self, row, calendars, timetable=None, last=None):
        """A row -> StoredSchedule, with its Last: what is wrong with it stands in its trouble.
        `timetable` is that of its rule, timezone, options and these calendars, where it is known.
        """
        trouble, is_spoilt = "", False
        decided = find_time(row["decided"])
        if decided is None or None in [find_time(row[name]) for name in _ROW_TIMES if row[name]]:
            trouble = "a time in its row is none; SCHED SET or RELEASE writes it anew"
        try:
            schedule = self.read_definition(row)
        except Conflict as error:
            schedule, is_spoilt = Schedule(*_words(row), variables={}), True
            trouble = trouble or error.message
        try:
            if not trouble and timetable is None:
                timetable = schedule.timetable(calendars)
        except CalendarError as error:
            trouble = str(error)
        return StoredSchedule(
            schedule, row["revision"], decided or 0.0, find_time(row["waiting"]), read_hold(row),
            None if trouble else timetable, trouble, is_spoilt, last, row["boot"])

    @staticmethod
    def list_page(connection, name, after):
        """At most PAGE rows of schedules by name, those behind `after`, or the one of a name, with
        the newest due time that made a session: `last`, `last_session`, `last_status`."""
        return connection.execute(
            "select s.*, o.due as last, o.session as last_session, r.status as last_status"
            " from schedule s left join occurrence o on o.schedule = s.name and o.due ="
            " (select due from occurrence where schedule = s.name and session is not null"
            " order by due desc limit 1) left join session r on r.id = o.session"
            " where s.%s order by s.name limit ?" % ("name > ?" if name is None else "name=?"),
            (after if name is None else name, PAGE)).fetchall()

    @staticmethod
    def list_revisions(connection, agent):
        """[(name, revision, since when it is held or None)] of an agent's schedules."""
        return [(name, revision, since and (find_time(since) or 0.0))
                for name, revision, since in connection.execute(
                    "select name, revision, hold_since from schedule where agent=?", (agent,))]

    @staticmethod
    def list_held(connection, agent):
        """The names of an agent's schedules that are held."""
        return [name for name, in connection.execute(
            "select name from schedule where agent=? and hold_since is not null", (agent,))]

    @staticmethod
    def list_named(connection, names):
        """The rows of these schedules, at most PAGE."""
        return connection.execute("select * from schedule where name in (%s)"
                                  % ",".join("?" * len(names)), names).fetchall()

    @staticmethod
    def list_conditions(connection, schedule):
        """[(kind, name, when it was met or None)] of a schedule's `after`."""
        return [(kind, name, find_time(met)) for kind, name, met in connection.execute(
            "select kind, name, met from schedule_condition where schedule=?", (schedule,))]

    def list_stray(self, connection):
        """The Schedules whose `after` another program has written: it is not waited for yet."""
        conditions = collections.defaultdict(set)
        for schedule, *condition in connection.execute("select schedule, kind, name from"
                                                       " schedule_condition"):
            conditions[schedule].add(tuple(condition))
        rows = connection.execute(
            "select * from schedule where instr(options, '\"after\"') or name in"
            " (select schedule from schedule_condition)").fetchall()
        stray = []
        for schedule in filter(None, map(self.find_definition, rows)):
            with contextlib.suppress(ValueError):       # spoilt: it does not fire
                if conditions[schedule.name] != {condition[:2]
                                                 for condition in schedule.list_conditions()}:
                    stray.append(schedule)
        return stray

    @staticmethod
    def list_met(connection):
        """[(schedule, kind, name, when)] of the conditions that are met."""
        rows = [(schedule, kind, name, find_time(met)) for schedule, kind, name, met
                in connection.execute("select * from schedule_condition where met is not null")]
        return [row for row in rows if row[-1] is not None]

    def list_users(self, connection, calendar):
        """The names of the schedules that a calendar excludes dates from."""
        rows = connection.execute("select * from schedule where instr(options, ?)",
                                  (calendar,)).fetchall()
        schedules = filter(None, map(self.find_definition, rows))
        return [schedule.name for schedule in schedules if calendar in schedule.list_calendars()]
