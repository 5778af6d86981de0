"""Scenarios, schedules and documents as values that are checked already."""
import functools
import importlib.util
import json
from typing import List, NamedTuple, Optional, Tuple

from ..base.errors import BadRequest, Conflict, NotFound
from ..base.vocabulary import END, FAIL, MIN_SECRET
from ..base.times import parse_duration
from ..base.words import check_name, shorten
from ..timetable.days import MOVING_FIELDS, find_zone
from ..timetable.rules import list_surprises, parse_rule
from ..timetable.timetable import make_timetable
from .engines import list_missing, list_task_engines
from .kinds import VALUES, check_size
from .fields import SCHEDULE_FIELDS, TASK_TYPES
from .plan import FOR_EACH, PlanNode, QuerySource, is_empty, list_runs, walk_plan
from .references import list_references, list_shell_names


class Task(NamedTuple):
    """One task of a step: `fields` are those of its type."""
    type: str
    name: Optional[str]
    timeout: Optional[float]
    fields: dict


class Step(NamedTuple):
    """One step: its targets are names of steps, END or FAIL."""
    name: str
    tasks: Tuple[Task, ...]
    attempts: int
    retry_delay: float
    retry_factor: float
    timeout: Optional[float]
    on_ok: str
    on_error: str
    on_false: str


class Scenario(NamedTuple):
    """A parsed scenario version; `document` is its definition as it was given."""
    name: str
    version: str
    variables: dict
    timeout: Optional[float]
    max_steps: int
    on_stale: str
    steps: Tuple[Step, ...]
    document: dict
    secrets: dict           # name -> {}, {"env": name} or {"file": path}: never in `variables`
    concurrency: Optional[dict]
    plan: Optional[PlanNode] = None     # None: it has steps

    def check_variables(self, variables):
        """BadRequest when values are given for variables that it does not have, that are too large,
        or that no secret can be."""
        for name, value in variables.items():
            if name not in self.variables and name not in self.secrets:
                raise BadRequest("%s: scenario %s %s has no variable of that name"
                                 % (name, self.name, self.version))
            try:
                check_size(value)
            except ValueError as error:
                raise BadRequest("%s: %s" % (name, error)) from None
            if name in self.secrets and len(value) < MIN_SECRET:
                raise BadRequest("%s: a secret has at least %d characters" % (name, MIN_SECRET))

    def check_schedule(self, variables):
        """`check_variables` for a schedule, which can give no secret."""
        self.check_variables(variables)
        for name, source in self.secrets.items():
            if name in variables or not source:
                raise BadRequest("%s: is secret, a schedule cannot give it" % name)

    def split_secrets(self, variables):
        """Variables that are given -> (plain ones, secrets). BadRequest when a secret is
        missing."""
        for name, source in self.secrets.items():
            if not source and name not in variables:
                raise BadRequest("%s: the secret must be given" % name)
        return ({name: value for name, value in variables.items() if name not in self.secrets},
                {name: value for name, value in variables.items() if name in self.secrets})

    def list_warnings(self):
        """[(path, reason)] of steps that nothing leads to, of those that handle an error and that
        success falls into, and of variables that the shell would look for as its own."""
        if self.plan is not None:
            yield from self._list_plan_warnings()
            return
        texts = self.document["steps"]
        reached, to_follow = set(), [0]
        while to_follow:
            index = to_follow.pop()
            if index not in reached:
                reached.add(index)
                to_follow += self._list_behind(self.steps[index])
        for index, step in enumerate(self.steps):
            path, others = "steps[%d]" % index, self.steps[:index - 1] + self.steps[index:]
            if index not in reached:
                yield path, "nothing leads to step %s" % step.name
            elif index and index - 1 in reached and "on_ok" not in texts[index - 1] and (
                    step.on_ok == FAIL or step.name in [each.on_error for each in others]):
                yield path, ("step %s is for a failure%s, but the success of step %s leads to it, "
                             "too: give that an on_ok" % (
                                 step.name, " and ends in FAIL" if step.on_ok == FAIL else "",
                                 self.steps[index - 1].name))
            yield from self._list_shell_warnings(path, step)

    def _list_shell_warnings(self, path, step):
        """Of the string commands of a step that have `$name` instead of `${name}`."""
        for index, task in enumerate(step.tasks):
            if task.type != "os" or not isinstance(task.fields["command"], str):
                continue
            names = [name for name in list_shell_names(task.fields["command"])
                     if (name in self.variables or name in self.secrets)
                     and name not in task.fields["env"]]
            if names:
                yield "%s.tasks[%d].command" % (path, index), (
                    "%s: a variable of the shell, which is empty; the scenario's is %s" % (
                        ", ".join("$" + name for name in names),
                        ", ".join("${%s}" % name for name in names)))

    def _list_plan_warnings(self):
        if "on_stale" in self.document:
            yield "on_stale", ("does not apply to a plan: a crash leaves it open, and the sessions "
                               "that it has started follow their own")
        for path, node in walk_plan(self.plan):
            if node.kind == FOR_EACH and is_empty(node.body.source):
                yield path + ".for_each", "there is no value"

    def _list_behind(self, step):
        """The places of the steps that may come after a step."""
        targets = {step.on_ok, step.on_error}
        if any(task.type == "evaluate" for task in step.tasks):
            targets.add(step.on_false)
        return [self.step_index(name) for name in targets if name not in (END, FAIL)]

    def list_children(self):
        """[(path, scenario, version)] that its tasks or its plan start, where no variable decides
        it."""
        if self.plan is not None:
            return [(path + ".run", run.scenario, run.version)
                    for path, run in list_runs(self.plan)
                    if not list_references(run.scenario + run.version)]
        return self._list_started(lambda fields: True)

    def list_waited(self):
        """`list_children` without those that a task does not wait for."""
        return self.list_children() if self.plan else self._list_started(
            lambda fields: fields["wait"])

    def _list_started(self, is_meant):
        return [("steps[%d].tasks[%d].name" % (number, place), task.fields["name"],
                 task.fields["version"]) for number, step in enumerate(self.steps)
                for place, task in enumerate(step.tasks)
                if task.type == "scenario" and is_meant(task.fields)]

    def list_loop_schemas(self):
        """[(path, logical schema)] of the queries of its plan, where no variable decides it."""
        return [(path + ".for_each.schema", node.body.source.schema)
                for path, node in (walk_plan(self.plan) if self.plan else ())
                if node.kind == FOR_EACH and isinstance(node.body.source, QuerySource)
                and not list_references(node.body.source.schema)]

    def step_index(self, name):
        """The place of a step, from 0; NotFound when the scenario has none of that name."""
        for index, step in enumerate(self.steps):
            if step.name == name:
                return index
        raise NotFound("scenario %s %s has no step %s" % (self.name, self.version, name))


class Condition(NamedTuple):
    """A part of `after`: the good end of a session of a schedule or scenario."""
    kind: str                       # schedule, scenario
    name: str
    within_s: Optional[int]         # how long it counts


def parse_after(text):
    """`A,B/2h,scenario:C` -> [Condition]. ValueError."""
    conditions, names = [], set()
    if text and not text.strip(","):
        raise ValueError("'%s' names nothing; write schedules, like A,B" % text)
    for item in filter(None, text.split(",")):
        name, slash, period = item.partition("/")
        kind, colon, rest = name.partition(":")
        if colon and kind not in ("schedule", "scenario"):
            raise ValueError("'%s' is neither a schedule, like A, nor a scenario, like scenario:A, "
                             "with a period if it is to count no longer, like A/2h" % item)
        condition = Condition(kind if colon else "schedule", check_name(rest if colon else name),
                              parse_duration(period.lower(), is_whole=True) if slash else None)
        if condition.within_s == 0:
            raise ValueError("'%s': the period is 1s at least" % item)
        if condition[:2] in names:
            raise ValueError("%s stands twice" % condition.name)
        names.add(condition[:2])
        conditions.append(condition)
    return conditions


class Schedule(NamedTuple):
    """A checked schedule."""
    name: str
    agent: Optional[str]
    scenario: str
    version: str
    context: str
    rule: str                       # empty: by `after` alone
    timezone: str
    enabled: Optional[bool]         # None: a document does not say
    variables: dict
    options: dict = {}              # the other SCHEDULE_FIELDS, those that are not default

    def get(self, name):
        """The value of one of the options."""
        return self.options.get(name, SCHEDULE_FIELDS[name].default)

    @property
    def timing(self):
        """What its due times follow from."""
        return self.rule, self.timezone, self.enabled, {
            name: value for name, value in self.options.items() if name in MOVING_FIELDS}

    def list_conditions(self):
        """The Conditions of `after`, as a list. ValueError."""
        return parse_after(self.get("after") or "")

    def list_calendars(self):
        """The names of calendars in exclude_dates."""
        dates = self.get("exclude_dates") or ""
        return [item for item in dates.split(",") if item and not item[0].isdigit()]

    def timetable(self, calendars):
        """Its Timetable, with these calendars {name: dates}. CalendarError."""
        return make_timetable(self.rule or "startup", self.timezone, self.options, calendars)

    def list_faults(self):
        """[(field, reason)] of what cannot be, apart from names that must exist."""
        faults, calendars = [], dict.fromkeys(self.list_calendars(), "")

        def attempt(field, check, *arguments):
            try:
                check(*arguments)
            except ValueError as error:
                head, _, rest = str(error).partition(": ")
                faults.append((head, rest) if head in MOVING_FIELDS else (field, str(error)))
        if self.rule:
            attempt("rule", parse_rule, self.rule)
        elif not self.get("after"):
            faults.append(("rule", "missing"))
        if self.timezone:
            attempt("timezone", find_zone, self.timezone)
        zone = "" if any(field == "timezone" for field, _ in faults) else self.timezone
        for field in self.options:
            if field in MOVING_FIELDS and not field.startswith("repeat"):
                attempt(field, make_timetable, "daily at 00:00", zone,
                        {field: self.options[field]}, calendars)
        attempt("after", self._check_after)
        if not faults and not parse_rule(self.rule or "startup").is_by_clock:
            faults = [(name, "is for due times by the clock, like 'daily at 02:00'; there are none "
                       "without a rule, with 'startup' and 'boot'") for name in self.options
                      if name in MOVING_FIELDS or name == "jitter"]
        if not faults:
            attempt("repeat_every", self.timetable, calendars)
        return faults

    def _check_after(self):
        if ("schedule", self.name) in [condition[:2] for condition in self.list_conditions()]:
            raise ValueError("a schedule cannot wait for itself")


class Document(NamedTuple):
    """A definitions document, checked."""
    scenarios: List[Scenario]
    schedules: List[Schedule]
    contexts: List[str]
    data_servers: List[dict]
    logical_schemas: List[dict]
    calendars: List[dict]
    notices: List[dict] = []
    engines: List[dict] = []

    @property
    def has_topology(self):
        """Whether it has a part for the master."""
        return bool(self.contexts or self.data_servers or self.logical_schemas or self.calendars
                    or self.notices or self.engines)

    def list_warnings(self):
        """[(path, reason)] of what is allowed but looks wrong, and of what this host lacks: it is
        the task's error if it still does then."""
        own = ("sqlite3", "smtp")
        warnings = [("data_servers[%d].driver" % index, "this host's Python has no module %s"
                     % server["driver"]) for index, server in enumerate(self.data_servers)
                    if server["driver"] not in own and not has_module(server["driver"])]
        warnings += [("engines[%d].driver" % index, "this host has no program %s" % program)
                     for index, engine in enumerate(self.engines)
                     for program in list_missing(engine)]
        for index, scenario in enumerate(self.scenarios):
            warnings += [("scenarios[%d].%s" % (index, place), reason)
                         for place, reason in scenario.list_warnings()]
        warnings += [("schedules[%d].rule" % index, reason)
                     for index, schedule in enumerate(self.schedules) if schedule
                     for reason in list_surprises(schedule.rule)]
        for path, task in self._list_tasks():
            warnings += [("%s.%s" % (path, place), reason)
                         for place, reason in getattr(TASK_TYPES[task.type], "warn", lambda _: ())(
                             task.fields)]
        return warnings

    def list_children(self):
        """[(path, scenario, version)] that its tasks and plans start, where no variable decides it.
        """
        return [("scenarios[%d].%s" % (index, path), name, version)
                for index, scenario in enumerate(self.scenarios) if scenario
                for path, name, version in scenario.list_children()]

    def list_schemas(self):
        """[(path, logical schema)] that its tasks and plans name."""
        return [(path + ".schema", task.fields["schema"]) for path, task in self._list_tasks()
                if "schema" in task.fields] + [
                    ("scenarios[%d].%s" % (index, path), schema)
                    for index, scenario in enumerate(self.scenarios) if scenario
                    for path, schema in scenario.list_loop_schemas()]

    def list_engines(self):
        """[(path, engine)] that its scenarios and their tasks name."""
        return [each for index, scenario in enumerate(self.scenarios) if scenario
                for each in list_task_engines("scenarios[%d]" % index, scenario)]

    def _list_tasks(self):
        """[(path, Task)] of its scenarios without faults."""
        return [("scenarios[%d].steps[%d].tasks[%d]" % (index, number, place), task)
                for index, scenario in enumerate(self.scenarios) if scenario
                for number, step in enumerate(scenario.steps)
                for place, task in enumerate(step.tasks)]


def has_module(name):
    """Whether this Python has a module."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def canonical(document):
    """The one JSON text of a document: equal definitions have equal text."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


# the fields of a schedule that are options, and their defaults
_OPTIONS = [(name, field.default) for name, field in SCHEDULE_FIELDS.items()
            if name not in Schedule._fields]


def make_schedule(fields):
    """The values of SCHEDULE_FIELDS by name -> Schedule."""
    return Schedule(*[fields[name] for name in Schedule._fields[:-1]], options={
        name: fields[name] for name, default in _OPTIONS
        if fields[name] not in (None, "", default)})


@functools.lru_cache(maxsize=8192)
def read_stored(column, text):
    """The variables or options of a schedule as a repository has them, one dict for all that have
    the same. Conflict: another program has spoilt them."""
    try:
        values = json.loads(text)
        if column == "variables":
            return VALUES.check(values)
        return {name: SCHEDULE_FIELDS[name].kind.check(value) for name, value in values.items()}
    except (ValueError, KeyError, AttributeError) as error:
        # no value of a variable
        excerpt = "" if column == "variables" else " %s" % shorten(text)
        raise Conflict("%s%s cannot be read: %s" % (column, excerpt, error)) from None


def schedule_document(schedule):
    """A schedule -> its JSON object, without what is default."""
    own = {name: value for name, value in zip(schedule._fields[:-1], schedule)
           if value != SCHEDULE_FIELDS[name].default}
    return dict(own, **schedule.options)
