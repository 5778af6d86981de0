"""How a session that ended badly is opened again: RESTART, at which task, with which variables."""
import contextlib
import json

from ..base.vocabulary import OPEN, QUEUED, RESTARTABLE, WAITING
from ..base.errors import Changed, Conflict, NotFound, Unreadable
from .planrestarts import reopen_plan


class Restarts:
    """Sessions that go on by RESTART."""

    def __init__(self, arrivals, scenarios, sessions):
        self._arrivals, self._scenarios, self._sessions = arrivals, scenarios, sessions

    def find_secrets(self, connection, request):
        """The names of the secret variables of the definition with which a session is to go on.
        NotFound, Unreadable."""
        row = self._sessions.get(connection, request.session)
        if request.is_redefining:
            return self._scenarios.find_secrets(connection, row["scenario"], row["version"])
        return tuple(self._sessions.get_scenario(connection, row).secrets)

    def reopen(self, connection, request):
        """A RestartRequest -> Ticket; NotFound, Conflict, BadRequest, Unreadable. The secret file
        that the session had before is not needed any more when this is committed."""
        self._arrivals.check_door()
        row = self._sessions.get(connection, request.session)
        if row["status"] not in RESTARTABLE:
            raise Conflict("session %d is %s; only one that ended in ERROR or STOPPED is restarted"
                           % (request.session, row["status"]))
        self._check_family(connection, row, request)
        columns, scenario = self._take_definition(connection, row, request.is_redefining)
        scenario.check_variables(request.variables)
        plain, secrets = scenario.split_secrets(request.variables)
        if secrets and not request.secret_file:
            raise Changed("scenario %s was replaced at the same time; try again" % scenario.name)
        if scenario.plan is not None:
            place, run = reopen_plan(connection, row, scenario.plan,
                                     self._find_plan(connection, row), request), None
        else:
            place, run = self._find_place(connection, row, scenario, request)
        values = dict(self._rewind(connection, row, run, scenario), **plain)
        self._keep_former(connection, row, values)
        columns.update(place, variables=json.dumps(values), ended=None, message="", is_rewound=True)
        if row["begun"] is None:
            columns["start_at"] = None      # it begins now; of one that has begun it is its DUE
        if secrets:
            columns["secret_file"] = request.secret_file
        self._forget_children(connection, request.session, bool(place))
        self._sessions.change(connection, request.session, QUEUED, **columns)
        if request.is_held:
            self._sessions.change(connection, request.session, WAITING)
        ticket = self._sessions.make_ticket(
            connection, self._sessions.get(connection, request.session))._replace(
                note="" if request.is_redefining else self._tell_change(connection, row))
        return ticket._replace(has_secrets=True, spent_file=row["secret_file"] or "") \
            if secrets else ticket

    def _check_family(self, connection, row, request):
        """Conflict for what belongs to a plan that is open: that decides itself what runs again."""
        while row is not None and row["node"] is not None and row["parent"] != request.plan:
            row = self._sessions.find(connection, row["parent"])
            if row is not None and row["status"] in OPEN:
                raise Conflict("session %d belongs to the plan of session %d, which is %s; RESTART "
                               "that when it has ended" % (request.session, row["id"],
                                                           row["status"]))

    def _find_plan(self, connection, row):
        """The plan of the definition that a session had, or None."""
        with contextlib.suppress(Unreadable):
            return self._sessions.get_scenario(connection, row).plan
        return None

    # -- the definition ----------------------------------------------------------------

    def _take_definition(self, connection, row, is_redefining):
        """({column: value} of what changes with the definition, the Scenario with which a session
        goes on). NotFound, Unreadable."""
        if not is_redefining:
            return {}, self._sessions.get_scenario(connection, row)
        version, scenario = self._scenarios.get_scenario(connection, row["scenario"],
                                                         row["version"])
        columns = {"definition": version["definition"]}
        with contextlib.suppress(Unreadable):       # that may be why it is redefined
            if self._sessions.get_scenario(connection, row).timeout == row["timeout"]:
                columns["timeout"] = scenario.timeout
        return columns, scenario

    def _tell_change(self, connection, row):
        """In words, that the version of a session has another definition now; nothing when it has
        not, or is gone."""
        version = self._scenarios.find(connection, row["scenario"], row["version"])
        if version is None or version["definition"] == row["definition"]:
            return ""
        return "scenario %s %s was replaced; this session goes on with the definition that it was" \
            " made with, and with the new one by RESTART -REDEFINE" % (
                row["scenario"], row["version"])

    # -- where it goes on --------------------------------------------------------------

    def _find_place(self, connection, row, scenario, request):
        """({column: value} of a place other than the one noted, the run that began with the
        variables it needs, or None: as they are). NotFound, Conflict, Unreadable."""
        name, noted_task = request.from_step, row["restart_task"] or 0
        task, is_noted = 0, False
        if name is None:
            name = self._get_step_name(connection, row, scenario)
            task = 0 if request.is_redefining else noted_task
            is_noted = task == noted_task
        run, status = self._find_run(connection, row["id"], name, task)
        if request.is_skipping and (row["restart_run"] is None or status not in RESTARTABLE):
            raise Conflict("no task of session %d has failed to go on behind" % row["id"])
        is_to_come = row["restart_step"] is not None and row["restart_run"] is None
        if is_noted and (row["is_rewound"] or is_to_come):
            run = None
        if request.is_skipping:
            return {"restart_task": task + 1, "restart_run": None, "has_skipped": True}, run
        if request.from_step is None and not request.is_redefining:
            return {}, run
        try:
            place = scenario.step_index(name)
        except NotFound:
            if request.from_step is not None:
                raise
            raise Conflict("scenario %s %s has no step %s any more; -FROM names another"
                           % (scenario.name, scenario.version, name)) from None
        return {"restart_step": place, "restart_task": 0, "restart_run": None}, run

    def _get_step_name(self, connection, row, scenario):
        """The name of the step at which a session goes on. Unreadable."""
        if row["restart_step"] is None:
            return scenario.steps[0].name
        try:
            return self._sessions.get_scenario(connection, row).steps[row["restart_step"]].name
        except Unreadable:
            begun = connection.execute("select name from session_step where session=? and step=?"
                                       " order by run desc limit 1",
                                       (row["id"], row["restart_step"])).fetchone()
            if begun is None:
                raise
            return begun["name"]

    @staticmethod
    def _find_run(connection, session, step, task):
        """(newest run of a task, its status), or twice None. By the step's name, as its place is
        another in another definition."""
        return connection.execute(
            "select max(t.run), t.status from session_task t join session_step s"
            " on s.session=t.session and s.run=t.step_run where t.session=? and t.task=?"
            " and s.name=?", (session, task, step)).fetchone()

    @staticmethod
    def _forget_children(connection, session, is_all):
        """A RESTART takes up a child that a crash parted from its task, unless that has ended badly
        or it goes on elsewhere (`is_all`): then the task starts another."""
        connection.execute(
            "update session_task set child=null where session=? and child is not null"
            " and (? or exists (select 1 from session bad where bad.id=child and bad.status in"
            " ('ERROR', 'STOPPED')))", (session, is_all))

    # -- variables ---------------------------------------------------------------------

    @staticmethod
    def _rewind(connection, row, run, scenario):
        """The values of a Scenario's variables as they stood when a run began (None: as now)."""
        values = json.loads(row["variables"])
        if run is not None:
            for former, in connection.execute(
                    "select former from session_task where session=? and run>=? and former not null"
                    " order by run desc", (row["id"], run)):
                values.update(json.loads(former))
        return {name: values.get(name, default) for name, default in scenario.variables.items()}

    @staticmethod
    def _keep_former(connection, row, values):
        """Has the newest task know what RESTART changes of the variables, as if by itself."""
        former = {name: value for name, value in json.loads(row["variables"]).items()
                  if values.get(name) != value}
        task = connection.execute("select run, former from session_task where session=?"
                                  " order by run desc limit 1", (row["id"],)).fetchone()
        if former and task is not None:
            former.update(json.loads(task["former"] or "{}"))
            connection.execute("update session_task set former=? where session=? and run=?",
                               (json.dumps(former), row["id"], task["run"]))
