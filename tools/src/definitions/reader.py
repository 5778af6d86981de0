"""From the JSON of a document to its definitions, with every fault and its path."""
import collections
import json

from ..base.vocabulary import END, FAIL, RESERVED_VARIABLES
from ..base.errors import BadRequest
from ..base.words import check_name, tell_near
from .kinds import _refuse, check_calendar_name, check_dates
from .fields import (CALENDAR_FIELDS, DATA_SERVER_FIELDS, DOCUMENT_FIELDS, LOGICAL_SCHEMA_FIELDS,
                     OF_STEPS, SCENARIO_FIELDS, SCHEDULE_FIELDS, STEP_FIELDS, TASK_FIELDS,
                     TASK_TYPES, _check_mail_connect)
from .objects import ObjectReader
from .plan_reader import PlanReader
from .engines import ENGINE_FIELDS, check_engine, settle_engines
from .references import _REFERENCE, find_code_fault, strings_in
from .notices import NoticeReader
from .model import Document, Scenario, Step, Task, make_schedule

MAX_DIGITS = 1000       # of a whole number: what Python takes to read one grows as their square


def parse_json(text):
    """JSON text -> its value; BadRequest, too, where a field stands twice in an object."""
    def pairs(items):
        result = dict(items)
        if len(result) < len(items):
            counts = collections.Counter(key for key, _ in items)
            _refuse("field %s stands twice" % next(key for key in counts if counts[key] > 1))
        return result

    def whole(word):
        return int(word) if len(word) <= MAX_DIGITS else _refuse(
            "a number has over %d digits" % MAX_DIGITS)
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_int=whole, parse_constant=lambda
                          word: _refuse("%s is not JSON" % word))
    except RecursionError:
        reason = "is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise BadRequest("the definitions are not JSON: %s" % reason, [("document", reason)])


class Definitions(ObjectReader):
    """Reads a definitions document and collects every fault of it as (path, reason).

    What is `is_stored` was imported by an earlier version, too: what that took and this one refuses
    for safety's sake is told when it runs. `tell_forbidden(type)` says why tasks of a type may not
    run where it is imported, or nothing.
    """

    def __init__(self, is_stored=False, tell_forbidden=None):
        super().__init__()
        self._tell_forbidden = tell_forbidden or (lambda name: "")
        self._is_stored = is_stored
        self._costly = collections.OrderedDict()    # type -> [(path, fields)] for its judge_all

    def read(self, text):
        """JSON text -> Document; BadRequest carries all the faults."""
        document = self.collect(text)
        if self.faults:
            raise faulty(self.faults)
        return document

    def collect(self, text):
        """JSON text -> Document, None standing for what is faulty; `faults` has the reasons."""
        document = parse_json(text.lstrip("\ufeff"))     # a byte order mark
        if not isinstance(document, dict):
            raise BadRequest("the definitions must be one JSON object",
                             [("document", "must be an object")])
        lists = {}
        for key, value in document.items():
            if key not in DOCUMENT_FIELDS:
                self._fault(key, "unknown field" + tell_near(key, DOCUMENT_FIELDS))
            elif not isinstance(value, list):
                self._fault(key, "must be a list")
            else:
                lists[key] = value
        contexts = [self._try("contexts[%d]" % index, check_name, name)
                    for index, name in enumerate(lists.get("contexts", []))]
        scenarios = [self._scenario("scenarios[%d]" % index, value)
                     for index, value in enumerate(lists.get("scenarios", []))]
        schedules = [self._schedule("schedules[%d]" % index, value)
                     for index, value in enumerate(lists.get("schedules", []))]
        servers = [self._data_server("data_servers[%d]" % index, value)
                   for index, value in enumerate(lists.get("data_servers", []))]
        schemas = [self._object("logical_schemas[%d]" % index, value, LOGICAL_SCHEMA_FIELDS)
                   for index, value in enumerate(lists.get("logical_schemas", []))]
        calendars = [self._calendar("calendars[%d]" % index, value)
                     for index, value in enumerate(lists.get("calendars", []))]
        notices = [self.read_notice(value, "notices[%d]" % index)
                   for index, value in enumerate(lists.get("notices", []))]
        engines = [self._object("engines[%d]" % index, value, ENGINE_FIELDS)
                   for index, value in enumerate(lists.get("engines", []))]
        for index, engine in enumerate(engines):
            self._try("engines[%d]" % index, check_engine, engine)
        self._repeated("scenarios", [s and (s.name, s.version) for s in scenarios])
        for key, items in (("data_servers", servers), ("logical_schemas", schemas),
                           ("calendars", calendars), ("notices", notices), ("engines", engines)):
            self._repeated(key, [item["name"] for item in items])
        self._repeated("schedules", [s and s.name for s in schedules])
        self._judge_costly()
        return Document(scenarios, schedules, contexts, servers, schemas, calendars, notices,
                        engines)

    def read_notice(self, value, path="notice"):
        """The values of a notice by name; its faults are noted."""
        return NoticeReader(self._object, self._fault, self._tell_forbidden).read(path, value)

    def _judge_costly(self):
        """Notes faults that cost a process to find: one for all tasks of a type."""
        for kind, tasks in self._costly.items():
            faults = TASK_TYPES[kind].judge_all([fields for _, fields in tasks])
            for place, (name, reason) in sorted(faults.items()):
                self._fault("%s.%s" % (tasks[place][0], name), reason)

    def _calendar(self, path, value):
        fields = self._object(path, value, CALENDAR_FIELDS)
        for name, check in (("name", check_calendar_name), ("dates", check_dates)):
            if fields[name] is not None:
                self._try("%s.%s" % (path, name), check, fields[name])
        return fields

    def _data_server(self, path, value):
        fields = self._object(path, value, DATA_SERVER_FIELDS)
        if fields["driver"] == "sqlite3" and not fields["database"]:
            self._fault(path + ".database", "missing")
        if fields["driver"] not in (None, "sqlite3") and fields["database"]:
            self._fault(path + ".database", "is for the driver sqlite3; others take connect")
        if fields["driver"] == "smtp":
            self._try(path + ".connect", _check_mail_connect, fields["connect"] or {})
        return fields

    def _repeated(self, path, keys):
        earlier = set()
        for index, key in enumerate(keys):
            if key and key in earlier:
                self._fault("%s[%d]" % (path, index), "stands here a second time")
            earlier.add(key)

    def _scenario(self, path, value):
        """The Scenario of a JSON object, or None: then its faults are noted."""
        before = len(self.faults)
        fields = self._object(path, value, SCENARIO_FIELDS)
        if fields["version"] == "-1":
            self._fault(path + ".version", "-1 means the latest; a scenario needs its own")
        variables = None if fields["variables"] is None else \
            set(fields["variables"]) | set(RESERVED_VARIABLES)
        steps = [self._step("%s.steps[%d]" % (path, index), step, variables)
                 for index, step in enumerate(fields["steps"] or ())]
        plan = self._plan(path, fields, value, variables)
        names = [step["name"] for step in steps]
        self._repeated(path + ".steps", names)
        self._targets(path, fields, steps, set(names))
        for place, reason in settle_engines(fields["engine"], steps):
            self._fault(path + place, reason)
        if len(self.faults) > before:
            return None
        plain, secrets = {}, {}
        for name, item in fields["variables"].items():
            if isinstance(item, dict):
                secrets[name] = {key: item[key] for key in item if key != "secret"}
            else:
                plain[name] = item
        scenario = Scenario(fields["name"], fields["version"], plain, fields["timeout"],
                            fields["max_steps"], fields["on_stale"],
                            tuple(settle_targets(fields["on_error"], steps)), value, secrets,
                            fields["concurrency"], plan)
        self._secrets(path, scenario)
        return scenario if len(self.faults) == before else None

    def _plan(self, path, fields, value, variables):
        """The PlanNode of a scenario that has a plan, else None. Faults are noted: of a plan, and
        of a scenario that has not one of steps and plan."""
        if fields["steps"] == []:
            self._fault(path + ".steps", "must have at least one step")
        if not isinstance(value, dict) or "plan" not in value:
            if isinstance(value, dict) and "steps" not in value:
                self._fault(path + ".steps", "missing")
            return None
        for name in OF_STEPS:
            if name in value and name in SCENARIO_FIELDS:
                self._fault("%s.%s" % (path, name), "does not go with a plan")
        fields["on_error"] = None
        if fields["plan"] is None:
            return None
        secrets = [name for name, item in (fields["variables"] or {}).items()
                   if isinstance(item, dict)]
        reader = PlanReader(secrets, self._tell_forbidden)
        node = reader.read(path + ".plan", fields["plan"], variables)
        self.faults += reader.faults
        self._costly.setdefault("evaluate", []).extend(reader.comparisons)
        return node

    def _secrets(self, path, scenario):
        """What would show a secret: an argument of a process, a variable that is stored."""
        for index, step in enumerate(scenario.steps):
            for number, task in enumerate(step.tasks):
                place = "%s.steps[%d].tasks[%d]" % (path, index, number)
                for name in ("command", "args"):
                    if isinstance(task.fields.get(name), list):
                        for inner, text in strings_in(task.fields[name], "%s.%s" % (place, name)):
                            used = {m.group(1) for m in _REFERENCE.finditer(text)}
                            if used & set(scenario.secrets):
                                self._fault(inner, "a secret in an argument is seen by every "
                                            "user of the host; read it from the environment")
                for name in ("variable", "capture"):
                    if task.type != "evaluate" and task.fields.get(name) in scenario.secrets:
                        self._fault("%s.%s" % (place, name), "a secret is not set by a task")

    def _targets(self, path, fields, steps, names):
        places = [(path + ".on_error", fields["on_error"])]
        for index, step in enumerate(steps):
            for key in ("on_ok", "on_error", "on_false"):
                places.append(("%s.steps[%d].%s" % (path, index, key), step[key]))
            if step["name"] in (END, FAIL):
                self._fault("%s.steps[%d].name" % (path, index), "END and FAIL are targets")
        for place, target in places:
            if target and target not in (END, FAIL) and target not in names:
                self._fault(place, "no step is named %s%s" % (target, tell_near(target, names)))

    def _step(self, path, value, variables):
        fields = self._object(path, value, STEP_FIELDS)
        if fields["tasks"] == []:
            self._fault(path + ".tasks", "must have at least one task")
        fields["tasks"] = tuple(self._task("%s.tasks[%d]" % (path, index), task, variables)
                                for index, task in enumerate(fields["tasks"] or ()))
        return fields

    def _task(self, path, value, variables):
        """The Task of a JSON object; its faults are noted. `variables`: the names that it may use,
        None when those of the scenario are faulty. None when nothing can be made of it."""
        kind = value.get("type") if isinstance(value, dict) else None
        is_known = isinstance(kind, str) and kind in TASK_TYPES
        own = TASK_TYPES[kind].fields if is_known else {}
        if isinstance(value, dict) and not is_known:    # what else it may have is not known
            value = {name: value[name] for name in TASK_FIELDS if name in value}
        fields = self._object(path, value, dict(TASK_FIELDS, **own))
        if fields["type"] is not None and not is_known:
            self._fault(path + ".type", "must be one of %s%s" % (
                ", ".join(sorted(TASK_TYPES)), tell_near(kind, TASK_TYPES)
                if isinstance(kind, str) else ""))
        if is_known and self._tell_forbidden(kind):
            self._fault(path + ".type", self._tell_forbidden(kind))
        if not is_known or variables is None:       # without variables no reference can be judged
            return None
        bound, literal = (getattr(TASK_TYPES[kind], name, ()) for name in ("sql", "literal"))
        for place, text in strings_in({name: fields[name] for name in own
                                       if name not in bound + literal}, path):
            self._references(place, text, variables)
        for name in literal if not self._is_stored else ():
            reason = find_code_fault(fields[name] or "")
            if reason:
                self._fault("%s.%s" % (path, name), reason)
        for name in bound:
            self._bound("%s.%s" % (path, name), TASK_TYPES[kind].names_in(fields[name] or ""),
                        variables)
        for name in ("capture", "variable"):
            if fields.get(name) and fields[name] not in variables.difference(RESERVED_VARIABLES):
                self._fault("%s.%s" % (path, name), "no variable is named %s%s" % (
                    fields[name], tell_near(fields[name], variables)))
        either = getattr(TASK_TYPES[kind], "one_of", None)
        if either and sum(fields[name] is not None for name in either) != 1:
            self._fault(path, "must have one of %s" % " and ".join(either))
        for name, reason in getattr(TASK_TYPES[kind], "judge", lambda _: ())(fields):
            self._fault("%s.%s" % (path, name), reason)
        if hasattr(TASK_TYPES[kind], "judge_all"):
            self._costly.setdefault(kind, []).append((path, fields))
        return Task(kind, fields["name"], fields["timeout"], {name: fields[name] for name in own})

    def _schedule(self, path, value):
        before = len(self.faults)
        fields = self._object(path, value, SCHEDULE_FIELDS)
        schedule = make_schedule(fields)
        if isinstance(value, dict) and fields["rule"] is not None:
            for name, reason in schedule.list_faults():
                self._fault("%s.%s" % (path, name), reason)
        if len(self.faults) > before:
            return None
        return schedule if "enabled" in value else schedule._replace(enabled=None)


def settle_targets(on_error, steps):
    """Yields the Steps of these fields, their targets settled: below, END, FAIL, or the handler
    that the scenario names."""
    for index, step in enumerate(steps):
        below = steps[index + 1]["name"] if index + 1 < len(steps) else END
        handler = on_error if on_error and on_error != step["name"] else FAIL
        yield Step(**dict(step, on_ok=step["on_ok"] or below, on_false=step["on_false"] or below,
                          on_error=step["on_error"] or handler))


def faulty(faults):
    """The BadRequest for a document with these faults."""
    count = len(faults)
    return BadRequest("the definitions have %d fault%s, nothing was imported: %s: %s"
                      % ((count, "" if count == 1 else "s") + tuple(faults[0])), faults)


def parse_scenario(document):
    """A stored definition -> Scenario. It was checked when it was imported, but by another version,
    or another program has changed it since: ValueError says what is wrong."""
    definitions = Definitions(is_stored=True)
    scenario = definitions._scenario("scenario", document)
    if scenario is None:
        raise ValueError("%s: %s" % definitions.faults[0])
    return scenario
