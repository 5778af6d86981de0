"""How a session comes to be: EXEC, schedules and tasks, with all that is checked of them."""
import json

from ..base.vocabulary import ERROR, QUEUED, WAITING
from ..base.errors import BadRequest, Busy, Changed, Conflict, RepositoryGone
from ..base.patterns import is_any_match
from ..base.times import from_text, to_text
from ..base.words import mask_all, shorten
from ..definitions.model import canonical
from .admission import weigh_limit
from .pending import atomic, repeated
from .records import Ticket

KEPT_VERSIONS = 100     # rows of scenario versions that are not asked for again


class Arrivals:
    """Sessions that are asked for, by EXEC, a schedule or a task."""

    def __init__(self, database, scenarios, sessions, endings):
        self._database, self._scenarios = database, scenarios
        self._sessions, self._endings = sessions, endings
        self._defaults = None, ""       # (Scenario, JSON of its variables) used last
        self._versions = {}     # (name, version) -> row, as of _versions_at
        self._versions_at = None
        self._is_closed = False         # the repository is about to be detached

    def close_door(self, connection):
        """For DETACH, by the writer: whether no agent has an open session here. Then none comes
        after this until open_door()."""
        self._is_closed = connection.execute(
            "select 1 from session where status in ('WAITING', 'QUEUED', 'RUNNING')"
            " limit 1").fetchone() is None
        return self._is_closed

    def open_door(self):
        """Sessions may come again -> whether they might not before."""
        was_closed, self._is_closed = self._is_closed, False
        return was_closed

    def check_door(self):
        """RepositoryGone while sessions may not come."""
        if self._is_closed:
            raise RepositoryGone("%s: is being detached" % self._database.label)

    @atomic
    @repeated
    def add(self, connection, request, now):
        """Makes a session -> Ticket. NotFound, BadRequest, Unreadable, Conflict for another use of
        its key, Busy at a limit. One that its scenario's limit lets not even wait has ended:
        `ending`.

        It is the insert that can go wrong: what follows it is without conditions.
        """
        ticket = self.insert(connection, request, now)
        return self.end_excess(connection, ticket, now) if ticket.excess else ticket

    def end_excess(self, connection, ticket, now):
        """The Ticket of a session that the limit of its scenario ends at once."""
        ending = self._endings.end(connection, ticket.session, ERROR, ticket.excess, now)
        return ticket._replace(status=ERROR, ending=ending)

    def insert(self, connection, request, now):
        """The first half of `add`: what is in excess is still to end."""
        self.check_door()
        if request.key is not None:
            earlier = self._find_by_key(connection, request)
            if earlier is not None:
                return self._sessions.make_ticket(connection, earlier)._replace(is_duplicate=True)
        row, scenario = self._find_version(connection, request)
        plain, secrets = request.variables, {}
        if scenario.secrets:
            plain, secrets = scenario.split_secrets(request.variables)
        if secrets and not request.secret_file:
            raise Changed("scenario %s was replaced at the same time; try again" % scenario.name)
        for name, value in plain.items():
            if mask_all(value, request.hidden) != value:
                raise BadRequest("%s: would store a secret; declare it secret in scenario %s"
                                 % (name, scenario.name))
        if plain:
            variables, plain_text = json.dumps(dict(scenario.variables, **plain)), canonical(plain)
        else:
            variables, plain_text = self._text_of_defaults(scenario), "{}"
        step = None if request.from_step is None else scenario.step_index(request.from_step)
        timeout = scenario.timeout if request.timeout is None else request.timeout
        is_waiting = request.is_held or request.start_at is not None and request.start_at > now
        status, excess = WAITING if is_waiting else QUEUED, ""
        if scenario.concurrency:
            status, excess = self._limited(connection, scenario, status, request.replaces)
        start_at = request.start_at and to_text(request.start_at)
        session = connection.execute(
            "insert into session(id, agent, scenario, version, definition, context, status, name,"
            " keywords, priority, level, timeout, created, start_at, variables, given, key,"
            " schedule, due, is_parallel, parent, secret_file, restart_step, asked_by, node)"
            " values ((select (last_session + 1) * 1000 + id from repository),"
            " ?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (request.agent, scenario.name, scenario.version, row["definition"],
             request.context, status, request.name, request.keywords, request.priority,
             request.level, timeout, to_text(now), start_at, variables, plain_text, request.key,
             request.schedule, request.due and to_text(request.due), request.is_parallel,
             request.parent, request.secret_file if secrets else None, step, request.asked_by,
             request.node)).lastrowid
        if request.keywords:
            self._sessions.put_keywords(connection, session, request.keywords)
        if request.parent_run is not None:
            connection.execute("update session_task set child=? where session=? and run=?",
                               (session, request.parent, request.parent_run))
        ticket = Ticket(session, status, request.agent, request.priority,
                        start_at and from_text(start_at), request.schedule, scenario=scenario.name,
                        is_parallel=request.is_parallel, excess=excess, has_secrets=bool(secrets),
                        is_child=request.parent is not None)
        return self._sessions.with_limit(ticket, scenario, request.start_at or now)

    def _find_by_key(self, connection, request):
        """The row of the session that this key has made, or None.
        Conflict for another use of it."""
        row = connection.execute("select * from session where key=?", (request.key,)).fetchone()
        if row is None:
            return None
        hidden = self._sessions.get_scenario(connection, row).secrets
        plain = {name: value for name, value in request.variables.items() if name not in hidden}
        if row["scenario"] != request.scenario or row["given"] != canonical(plain):
            is_seen = not request.patterns or is_any_match(request.patterns, row["scenario"])
            raise Conflict("key %s was used for %s with another scenario or other variables" % (
                shorten(request.key), "session %d" % row["id"] if is_seen else "a session"))
        return row

    def _text_of_defaults(self, scenario):
        """The JSON of a scenario's variables, kept with the parsed scenario that it is of."""
        if self._defaults[0] is not scenario:
            self._defaults = scenario, json.dumps(scenario.variables)
        return self._defaults[1]

    @staticmethod
    def _limited(connection, scenario, status, replaces):
        """What the limit of its scenario makes of a new session: (status, why it is to end at once,
        or nothing). Busy."""
        limit = scenario.concurrency["limit"]
        count = connection.execute(
            "select count(*) from (select 1 from session where scenario=? and status in"
            " ('WAITING', 'QUEUED', 'RUNNING') and id not in (%s) limit ?)"
            % ",".join("?" * len(replaces)),
            (scenario.name,) + tuple(replaces) + (limit,)).fetchone()[0]
        outcome = weigh_limit(limit, scenario.concurrency["on_limit"], count)
        text = "scenario %s is at its limit of open sessions: %d" % (scenario.name, limit)
        if outcome == "skip":
            raise Busy(text)
        return WAITING if outcome else status, text if outcome == "error" else ""

    def _find_version(self, connection, request):
        """(row, Scenario) of what is asked for, its variables checked: for the flood, the file is
        asked again only when something has changed."""
        at = self._database.version, self._database.failures, self._scenarios.changes
        if at != self._versions_at or len(self._versions) > KEPT_VERSIONS:
            self._versions, self._versions_at = {}, at
        key = request.scenario, request.version
        row = self._versions.get(key)
        if row is None:
            row = self._versions[key] = self._scenarios.get(connection, *key)
        scenario = self._scenarios.parse(row["definition"], row["body"])
        scenario.check_variables(request.variables)
        return row, scenario
