"""Engines in a document: their fields, which task runs on which, and what it cannot have then."""
import re
import shutil

from ..base.vocabulary import LOCAL
from ..base.words import check_name, tell_near
from .kinds import FILLED, Field, Kind, NAMED, TEXT, _refuse, check_each, check_items, choice
from .references import _REFERENCE

SLURM, COMMAND = "slurm", "command"
# templates of the driver `command` -> the names of which each has one, at least
TEMPLATES = {"submit": ("SCRIPT",), "find": ("MARKER",), "state": (), "cancel": ("ID", "MARKER"),
             "output": ()}
TEMPLATE_NAMES = ("MARKER", "ID", "SCRIPT")
_OPTION = re.compile("[a-z][a-z0-9-]*")
# of sbatch: the agent's own, and what would make another kind of job of it
OWN_OPTIONS = ("job-name", "output", "error", "input", "open-mode", "parsable", "wrap", "array",
               "export", "export-file", "get-user-env", "requeue", "no-requeue", "wait",
               "test-only", "clusters", "cluster-constraint", "help", "usage", "version")
# fields of a task that an engine cannot give it
LOCAL_FIELDS = ("stdin", "nice", "umask")
_ENVIRONMENT_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def _check_spool(value):
    FILLED.check(value)
    if not value.startswith("/") or any(ord(char) < 32 for char in value):
        raise ValueError("must be the absolute path of a folder, without control characters")
    return value


def _check_engine_contexts(value):
    if not isinstance(value, dict):
        raise ValueError("must be an object of contexts and engines")
    check_each([("." + context, check_name, context) for context in value]
               + [("." + context, NAMED.check, target) for context, target in value.items()])
    return value


def _check_options(value):
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


ENGINE_FIELDS = {
    "name": Field(NAMED, required=True, meaning="its name, which tasks use; not LOCAL"),
    "driver": Field(choice(SLURM, COMMAND), required=True,
                    meaning="slurm, or command: what is in options is called"),
    "options": Field(Kind(_check_options, _refuse, "an object"), default={},
                     meaning="of slurm: options of sbatch; of command: its templates"),
    "spool": Field(Kind(_check_spool, _refuse, "a folder"), required=True,
                   meaning="a folder that this host and the engine's have under the same path, "
                   "made with mode 0700 when it is missing"),
    "contexts": Field(Kind(_check_engine_contexts, _refuse,
                           "an object: context to LOCAL or to another engine"), default={},
                      meaning="where its tasks run instead in a context: LOCAL, this host, or "
                      "another engine"),
}
ENGINE_FIELD = Field(NAMED, meaning="the engine that it runs on, or LOCAL: this host (the "
                     "scenario's engine, else this host)")


def check_engine(fields):
    """The options of an engine's driver. InnerFaults, with paths below the engine."""
    check = _check_slurm if fields["driver"] == SLURM else _check_templates
    parts = [(".name", _check_no_local, fields["name"])] if fields["name"] else []
    if fields["driver"] and fields["options"] is not None:
        parts += [(".options" + place, function, value)
                  for place, function, value in check(fields["options"])]
    check_each(parts)


def _check_no_local(name):
    if name == LOCAL:
        raise ValueError("LOCAL is this host, which is no engine")


def _check_slurm(options):
    """[(place, check, value)] of options of sbatch."""
    def check(item):
        name, value = item
        if not _OPTION.fullmatch(name):
            raise ValueError("is no long option of sbatch, such as partition")
        if name in OWN_OPTIONS:
            raise ValueError("is the agent's own to give")
        if value is not True and (isinstance(value, bool) or not isinstance(value, (str, int))):
            raise ValueError("must be text, a whole number, or true for an option without a value")
        TEXT.check(str(value))
    return [("." + name, check, (name, value)) for name, value in options.items()]


def _check_templates(options):
    """[(place, check, value)] of templates."""
    def unknown(name):
        raise ValueError("unknown field" + tell_near(name, TEMPLATES))

    def missing(_):
        raise ValueError("missing")
    parts = [("." + name, unknown, name) for name in options if name not in TEMPLATES]
    for name, needs in TEMPLATES.items():
        if name in options:
            parts.append(("." + name, lambda value, needs=needs: _check_template(value, needs),
                          options[name]))
        elif name != "output":
            parts.append(("." + name, missing, name))
    return parts


def _check_template(value, needs):
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of a program and its arguments")
    check_items(FILLED.check, value)
    names = {match.group(1) for word in value for match in _REFERENCE.finditer(word)} - {None}
    for name in sorted(names.difference(TEMPLATE_NAMES)):
        raise ValueError("${%s} is not known here; there are %s" % (
            name, ", ".join("${%s}" % each for each in TEMPLATE_NAMES)))
    if needs and not names.intersection(needs):
        raise ValueError("must have %s" % " or ".join("${%s}" % each for each in needs))


def is_remote(engine):
    """Whether the engine that a task names is one: not this host."""
    return engine not in (None, LOCAL)


def settle_engines(engine, steps):
    """Gives each task of these steps {field: value} that can run on an engine that of its
    scenario, where it names none -> [(place, reason)] of what cannot be there."""
    faults = []
    for index, step in enumerate(steps):
        for number, task in enumerate(step["tasks"]):
            if task is None or "engine" not in task.fields:
                continue
            task.fields["engine"] = task.fields["engine"] or engine
            if is_remote(task.fields["engine"]):
                faults += [(".steps[%d].tasks[%d].%s" % (index, number, name), reason)
                           for name, reason in _list_local(task.fields)]
    return faults


def _list_local(fields):
    """[(field, reason)] of what a task on an engine cannot have."""
    for name in LOCAL_FIELDS:
        if fields.get(name) is not None:
            yield name, "is for a task on this host; this one runs on engine %s" % fields["engine"]
    for name in fields["env"] or ():
        if not _ENVIRONMENT_NAME.fullmatch(name):
            yield "env.%s" % name, "is no name that a shell can hand to a task on an engine"


def list_task_engines(path, scenario):
    """[(path, engine)] that a scenario and its tasks name, where that is no word for this host."""
    own = scenario.document.get("engine")
    if is_remote(own):
        yield path + ".engine", own
    for index, step in enumerate(scenario.steps):
        for number, task in enumerate(step.tasks):
            engine = task.fields.get("engine")
            if is_remote(engine) and engine != own:
                yield "%s.steps[%d].tasks[%d].engine" % (path, index, number), engine


def list_missing(engine):
    """The programs that an engine's driver calls and this host does not have."""
    programs = ["sbatch", "squeue", "scontrol", "scancel"] if engine["driver"] == SLURM else \
        sorted({template[0] for template in engine["options"].values()})
    return [program for program in programs if "${" not in program and not shutil.which(program)]
