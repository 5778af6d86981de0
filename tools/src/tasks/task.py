"""What all task types share: their table, results, texts, and work done in a helper process."""
import contextlib
import json
import math
import sys
import tempfile
from typing import NamedTuple, Optional

from ..base.vocabulary import ERROR, EXIT_OK, MAX_VALUE
from ..base.encoding import utf8_environment
from ..base.program import open_code, program_command
from ..base.controls import one_line
from ..base.words import SHORT, render_value, shorten
from ..definitions.kinds import FILLED, Field, Kind, TEXT, VARIABLE_NAME, _refuse
from ..definitions.fields import TASK_TYPES
from ..definitions.references import substitute
from ..processes.process import Command


class TaskResult(NamedTuple):
    """How a task ended: status, exit code, rows touched, why, and variables it set."""
    status: str
    rc: Optional[int] = None
    rows: Optional[int] = None
    message: str = ""
    values: dict = {}
    is_false: bool = False          # of an evaluate: the step goes to its on_false


class TaskError(Exception):
    """A task failed for a reason that it can tell."""


def task_type(name):
    """Puts a class into the table of task types.

    A class has `fields` (name -> Field) and `run(fields, execution)` -> TaskResult, or a generator
    of it. The execution gives `values` (variables and the agent's own), `environment()`,
    `mask(text)`, the `exit` of its newest process, and what waits and is ended by stop and
    time-outs: `call(function, interrupt)`, and the generators `process(command)`, `wait(seconds)`
    and `wait_child(session)`, which take no thread meanwhile. One whose process may outlive the
    agent has `resume`, too, which goes on by `adopt()`.
    """
    def register(cls):
        cls.name = name
        TASK_TYPES[name] = cls
        return cls
    return register


def _check_environment(value):
    if not isinstance(value, dict):
        raise ValueError("must be an object of names and text")
    for name, text in value.items():
        if not TEXT.check(name) or "=" in name or not isinstance(text, str):
            raise ValueError("%s: must be a name without = and a text" % shorten(str(name)))
        TEXT.check(text)
    return value


ENVIRONMENT = Kind(_check_environment, _refuse, "an object of names and text")


def needed(meaning):
    """A Field of a text that must be there."""
    return Field(FILLED, required=True, meaning=meaning)


CWD = Field(FILLED, meaning="working folder of the process (the agent's own)")
ENV = Field(ENVIRONMENT, default={}, meaning="further environment variables")
CAPTURE = Field(VARIABLE_NAME, meaning="takes what the process prints on standard output, without "
                "its last line end")


def substitute_all(value, values):
    """substitute in every text of a JSON value."""
    if isinstance(value, str):
        return substitute(value, values)
    if isinstance(value, list):
        return [substitute_all(item, values) for item in value]
    if isinstance(value, dict):
        return {key: substitute_all(item, values) for key, item in value.items()}
    return value


def as_value(data, what):
    """Bytes as the value of a variable. TaskError when it takes no more than their beginning."""
    if len(data) > MAX_VALUE:
        raise TaskError("%s over %d bytes, more than a variable takes" % (what, MAX_VALUE))
    return data.decode("utf-8", "replace").replace("\0", "")


def to_number(kind, text):
    """A text as an int or float. ValueError for what Python alone takes for one."""
    value = kind(text)
    if "_" in text or isinstance(value, float) and not math.isfinite(value):
        raise ValueError                # nan, inf, and 1e999, which would be equal to 1e998
    return value


def as_number(text):
    """A text as a number where it is one, else None."""
    for kind in (int, float):           # whole numbers of any length are exact
        with contextlib.suppress(ValueError):
            return to_number(kind, text)
    return None


def tell_value(value, execution):
    """A value, or a list of them, for a message: without secrets, on one line, cut."""
    if isinstance(value, list):
        return ", ".join(tell_value(item, execution) for item in value)
    text = execution.mask(str(value))       # before it is cut: half a secret is none that is known
    return render_value(text if len(text) <= SHORT else text[:SHORT] + "...") or '""'


def ask_process(execution, make_words, environment, stdin=None, pass_fds=()):
    """A generator, as process() is: runs a process to its end -> (exit code, what it wrote to the
    descriptor fd, bytes). make_words(fd) are the words that start it. TaskError."""
    with tempfile.TemporaryFile() as result:
        fd = result.fileno()
        rc = yield from execution.process(Command(make_words(fd), environment, stdin=stdin,
                                                  pass_fds=(fd,) + pass_fds))
        result.seek(0)
        return rc, result.read()


class HelperTask:
    """A task whose work is done by agent.py in another role, in a process that can be ended.

    `prepare(fields, execution)` gives what the helper needs as JSON; `work(order)`, in the
    helper, does it, prints what the log is to have, and returns the fields of a TaskResult.
    Where that is all there is to a task type, helper_task makes it of the function.
    """

    def run(self, fields, execution):
        """Has the work done by the helper -> TaskResult."""
        return TaskResult(**(yield from self.ask(fields, execution)))

    def ask(self, fields, execution):
        """The same -> what the helper gives, as a dict."""
        order = dict(self.prepare(fields, execution), type=self.name, root=execution.bounds.root)
        return (yield from self._outcome(order, execution))

    def _outcome(self, order, execution):
        """Hands over to the helper -> the fields of its result."""
        with execution.noting_parts() as note:
            _, data = yield from ask_process(
                execution, lambda fd: program_command("-u", "-s") + ["--task", str(fd)],
                utf8_environment(execution.environment()), json.dumps(dict(order, note=note)),
                (note, open_code()))
        if not data:
            raise TaskError("its helper process ended early: %s" % execution.exit.text)
        return json.loads(data.decode())

    def prepare(self, fields, execution):
        """All texts with their references replaced."""
        return substitute_all(fields, execution.values)


def helper_task(name, fields):
    """Puts a function work(order) into the table of task types, as a HelperTask."""
    def register(work):
        task_type(name)(type(name, (HelperTask,), {"fields": fields, "work": staticmethod(work)}))
        return work
    return register


def find_helper(name):
    """The class of a helper's work, by its name: of a task type, or of the agent's own."""
    if name in TASK_TYPES:
        return TASK_TYPES[name]
    classes = [HelperTask]
    for each in classes:                # it grows as they are looked at
        classes += each.__subclasses__()
    return next(each for each in classes if getattr(each, "name", None) == name)


def run_helper(fd):
    """agent.py in the role of a helper: does one task, whose result goes to a file -> exit code."""
    order = json.loads(sys.stdin.read())
    try:
        result = find_helper(order["type"]).work(order)
    except TaskError as error:
        result = {"status": ERROR, "message": str(error)}
    except Exception as error:          # what the task met: a line, no traceback
        name = "" if isinstance(error, OSError) else type(error).__name__ + ": "
        result = {"status": ERROR, "message": one_line("%s%s" % (name, error))}
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(result, file)
    return EXIT_OK
