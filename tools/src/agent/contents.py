"""What --doctor finds in the rows of a work repository, and in the files that belong to them."""
import collections
import contextlib
import functools
import os
import re
import shutil

from ..base.vocabulary import ADOPT, DEFAULT_CONTEXT
from ..base.errors import AgentError, NotFound, RepositoryError, Unreadable
from ..base.files import own_users, remove_own
from ..definitions.model import has_module
from ..definitions.references import _REFERENCE
from ..store.checkup import look_at, read_running
from ..store.parts import PartNotes
from ..store.records import read_last
from ..store.scenarios import Scenarios
from ..store.schedules import PAGE, StoredSchedules
from ..store.secrets import SecretFiles
from ..store.sessions import Sessions
from ..store.spool import Spools, read_state
from ..store.whereabouts import find_spot, read_whereabouts
from ..processes.alive import Identity, has_ended, lives
from .finding import Finding

FRESH_S = 60.0          # a file beside may be younger than the row that will name it
NAMED_AT_ONCE = 5       # sessions or files that a line names
_FIRST_WORD = re.compile(r"\s*(/[\w./+-]+)(?=\s|$)")


class WorkContents:
    """The rows of one work repository; `facts` are those of its master, `me` is the Identity of
    this process."""

    def __init__(self, attachment, facts, me, clock):
        self._path, self._name = attachment.path, attachment.name
        self._facts, self._me, self._clock = facts, me, clock
        self._scenarios = Scenarios(self._name)
        self._sessions = Sessions(self._name, self._scenarios)
        self._schedules = StoredSchedules(self._name, self._scenarios, None)

    def list(self):
        """Yields the Findings. RepositoryError."""
        place = look_at(self._path, read_whereabouts, find_spot(self._path, *self._me.home),
                        self._clock.now())
        if place.is_copy:       # its sessions, and what lies beside it, may be another's
            yield Finding(self._path, "is held, and not cleaned: " + place.hold.reason,
                          "RELEASE -REPO=%s, if it is the file to go on with; if not, put that "
                          "there" % self._name)
        else:
            yield from self._list_stale()
            yield from self._list_strays()
        yield from look_at(self._path, self._list_definitions)

    def _find(self, kind, name, fault, remedy):
        return Finding("%s, %s %s" % (self._path, kind, name), fault, remedy)

    # -- sessions ----------------------------------------------------------------------

    def _list_stale(self):
        """Sessions that are shown as running, though nothing runs them."""
        stale = collections.defaultdict(list)       # (agent, host that it ran on) -> sessions
        for row in look_at(self._path, read_running):
            host = self._find_host(row)
            if host is not None and not look_at(self._path, self._is_handed_over, row):
                stale[row["agent"], host].append(row["id"])
        running = {row["name"] for row in self._facts.agents
                   if not row["stopped"] and self._is_over(row["identity"]) is False}
        for (agent, host), sessions in sorted(stale.items()):
            fault = "shown as running, and nothing on this host runs them"
            if host != self._me.host:
                yield self._find("sessions", _name_some(sessions), "%s: host %s did" % (
                    fault, host), "if that host is gone, CLEAN -HOST=%s" % host)
            else:
                remedy = "CLEAN" if agent in running else "start the agent %s: it ends what " \
                    "they have left running, then closes them" % agent
                yield self._find("sessions", _name_some(sessions), fault, remedy)

    def _find_host(self, row):
        """The host that ran a session which is shown as running, or None: it runs, or may."""
        runner = Identity.parse(row["ran_by"])
        if runner is None:
            return self._me.host
        if runner.host == self._me.host and not self._is_over(row["ran_by"]):
            return None
        return runner.host

    def _is_over(self, identity):
        """Whether the process of an Identity's text has ended; None: that is not known."""
        runner = Identity.parse(identity)
        try:
            return True if runner is None else has_ended(runner, self._me)
        except OSError:
            return None

    def _is_handed_over(self, connection, row):
        """Whether the next start can take a session up again."""
        with contextlib.suppress(Unreadable):
            scenario = self._sessions.get_scenario(connection, row)
            if scenario.plan is not None:
                return True
            if scenario.on_stale == ADOPT:
                return any(self._is_adoptable(path) for path, session
                           in Spools(self._path).list_all() if session == row["id"])
        return False

    @staticmethod
    def _is_adoptable(path):
        with contextlib.suppress(RepositoryError):
            state = look_at(path, read_state)
            return bool(state["is_over"]) or state["holder"] is not None and lives(
                state["holder"], state["holder_started"])
        return False

    # -- files beside ------------------------------------------------------------------

    def _list_strays(self):
        """Files of sessions that have ended, or never were."""
        secrets, spools, notes = (SecretFiles(self._path), Spools(self._path),
                                  PartNotes(self._path))
        names = secrets.list_names()
        numbered = spools.list_all() + notes.list_all()
        names, paths = look_at(self._path, self._sessions.list_strays, names, numbered)
        noted = {path for path, _ in notes.list_all()}
        for path in sorted(paths):
            cure = functools.partial(notes.clear, path) if path in noted else functools.partial(
                remove_own, path, own_users(self._path))
            yield from self._tell_stray(path, cure)
        for name in sorted(names):
            yield from self._tell_stray("%s.secret.%s" % (self._path, name),
                                        functools.partial(secrets.forget, name))

    def _tell_stray(self, path, forget):
        def cure():
            forget()
            return "deleted"
        with contextlib.suppress(OSError):
            if self._clock.now() - os.lstat(path).st_mtime > FRESH_S:
                yield Finding(path, "belongs to no session that is open",
                              "the next start deletes it, or --repair", cure)

    # -- definitions -------------------------------------------------------------------

    def _list_definitions(self, connection):
        """The Findings of schedules, and of the scenarios that they and EXEC start."""
        newest, findings = {}, []
        for row in self._scenarios.list_versions(connection):
            newest[row["name"]] = row["version"]
        startable, after = dict.fromkeys(newest.items()), ""
        while True:
            rows = self._schedules.list_page(connection, None, after)
            for row in rows:
                findings += self._judge_schedule(connection, row)
                if row["enabled"] and row["version"] != "-1":
                    startable[row["scenario"], row["version"]] = None
            if len(rows) < PAGE:
                break
            after = rows[-1]["name"]
        for name, version in startable:
            findings += self._judge_scenario(connection, name, version)
        return findings

    def _judge_schedule(self, connection, row):
        """The Findings of a row of schedule; of one that is off none but that it is spoilt."""
        stored = self._schedules.read(row, self._facts.calendars, last=read_last(row))
        schedule, mend = stored.schedule, "mend it by SCHED SET or IMPORT, or SCHED OFF"
        if stored.trouble:
            return [self._find("schedule", schedule.name, "cannot fire: " + stored.trouble, mend)]
        faults = []
        if schedule.agent not in [agent["name"] for agent in self._facts.agents]:
            faults.append("belongs to agent %s, which has never run on this master"
                          % schedule.agent)
        if schedule.context not in self._facts.contexts:
            faults.append("no context %s" % schedule.context)
        try:
            self._schedules.check_conditions(connection, schedule)
            scenario = self._scenarios.get_scenario(connection, schedule.scenario,
                                                    schedule.version)[1]
            scenario.check_schedule(schedule.variables)
            faults += self._list_server_faults(scenario, schedule.context)
        except Unreadable:
            pass                        # is told of the scenario
        except (AgentError, ValueError) as error:
            faults.append("cannot start: %s" % error)
        if stored.firing is not None and stored.last is None and \
                stored.timetable.rule.is_by_clock and \
                stored.timetable.next_after(max(stored.decided, 0)) is None:
            faults.append("its rule '%s' never fires" % schedule.rule)
        return [self._find("schedule", schedule.name, fault, mend)
                for fault in faults if schedule.enabled]

    def _judge_scenario(self, connection, name, version):
        """The Findings of a scenario version: what its tasks need and this host lacks."""
        try:
            scenario = self._scenarios.get_scenario(connection, name, version)[1]
        except NotFound:
            return []                   # is told of the schedule
        except Unreadable as error:
            return [self._find("scenario", "%s %s" % (name, version), error.message,
                               "IMPORT it again")]
        faults = self._list_plan_faults(connection, scenario)
        for step in scenario.steps:
            for place, task in enumerate(step.tasks, 1):
                faults += [("%s/%d" % (step.name, place), fault)
                           for fault in self._list_task_faults(connection, task)]
        return [self._find("scenario", "%s %s" % (name, version), "%s: %s" % fault,
                           "put it there, or IMPORT the scenario mended") for fault in faults]

    def _list_plan_faults(self, connection, scenario):
        """[(path, what is missing)] of the nodes of a plan."""
        faults = []
        for path, name, version in scenario.list_children() if scenario.plan else ():
            if not self._scenarios.has(connection, name, version):
                faults.append((path, "no scenario %s %s" % (name, version)))
        for path, schema in scenario.list_loop_schemas():
            if schema not in self._facts.schemas:
                faults.append((path, "no logical schema %s" % schema))
            faults += [(path, fault) for fault in self._list_schema_faults(schema)]
        return faults

    def _list_task_faults(self, connection, task):
        """What a task needs and does not have, where no variable decides it."""
        fields, faults = task.fields, []
        schema = fields.get("schema")
        if schema is not None and schema not in self._facts.schemas:
            faults.append("no logical schema %s" % schema)
        if task.type == "mail":
            faults += self._list_missing("MAIL")
        if task.type == "scenario" and not self._scenarios.has(
                connection, fields["name"], fields["version"]):
            faults.append("no scenario %s %s" % (fields["name"], fields["version"]))
        if task.type in ("os", "python"):
            faults += list_program_faults(fields)
        return faults + self._list_schema_faults(schema)

    def _list_schema_faults(self, schema):
        """Of the data servers behind a logical schema in all contexts, those that are missing."""
        servers = set(self._facts.schemas.get(schema, {}).values())
        return [fault for name in sorted(servers) for fault in self._list_missing(name)]

    def _list_missing(self, name):
        server = self._facts.servers.get(name)
        if server is None:
            return ["no data server %s" % name]
        if server["driver"] not in ("sqlite3", "smtp") and not has_module(server["driver"]):
            return ["data server %s: this host's Python has no module %s" % (
                name, server["driver"])]
        if server["driver"] == "sqlite3" and not os.path.exists(server["database"]):
            return ["data server %s: %s does not exist" % (name, server["database"])]
        return []

    def _list_server_faults(self, scenario, context):
        """Of the logical schemas of a Scenario those without a data server in a context."""
        schemas = [task.fields["schema"] for step in scenario.steps for task in step.tasks
                   if "schema" in task.fields]
        schemas += [schema for _, schema in scenario.list_loop_schemas()]
        return ["logical schema %s has no data server in context %s" % (schema, context)
                for schema in dict.fromkeys(schemas) if schema in self._facts.schemas
                and not {context, DEFAULT_CONTEXT}.intersection(self._facts.schemas[schema])]


def list_program_faults(fields):
    """Of the fields of an `os` or `python` task: its folder and its program, where they are missing
    and neither a variable nor the agent's own working folder decides them."""
    folder, command = fields.get("cwd") or "", fields.get("command")
    if os.path.isabs(folder) and not _has_reference(folder) and not os.path.isdir(folder):
        return ["there is no folder %s" % folder]
    if isinstance(command, str):
        first = _FIRST_WORD.match(command)
        return _judge_program(first.group(1)) if first else []
    word = command[0] if command else fields.get("file")
    if not word or _has_reference(word) or _has_reference(folder):
        return []
    if "/" in word or not command:
        path = os.path.join(folder, word)
        if not os.path.isabs(path):
            return []                   # below where the agent was started
        return _judge_program(path, os.X_OK if command else os.R_OK)
    search = (fields.get("env") or {}).get("PATH", os.environ.get("PATH", os.defpath))
    if _has_reference(search) or shutil.which(word, path=search):
        return []
    return ["program %s is not in PATH" % word]


def _judge_program(path, way=os.X_OK):
    if os.path.isfile(path) and os.access(path, way):
        return []
    return ["%s %s" % (path, "cannot be run or read by this user" if os.path.exists(path)
                       else "does not exist")]


def _has_reference(text):
    return any(match.group(1) for match in _REFERENCE.finditer(text))


def _name_some(sessions):
    """Numbers in one line, the first of many."""
    names = ",".join(map(str, sorted(sessions)[:NAMED_AT_ONCE]))
    return names + (" and %d more" % (len(sessions) - NAMED_AT_ONCE)
                    if len(sessions) > NAMED_AT_ONCE else "")
