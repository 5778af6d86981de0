"""Commands, code and the small types: os, set, evaluate, sleep, wait_file, python, scenario."""
import contextlib
import glob
import os
import re
import stat
import sys
import tempfile

from ..base.vocabulary import DONE, ERROR, WARNING
from ..base.words import shorten
from ..definitions.kinds import (BOOLEAN, FILLED, Field, Kind, NAMED, SECONDS, TEXT, VALUES,
                                 VARIABLE_NAME, _check_seconds, _check_value, _refuse, between,
                                 check_items, choice, list_of)
from ..definitions.fields import SCHEDULE_FIELDS
from ..definitions.references import _REFERENCE, find_code_fault, shell_command, substitute
from ..processes.process import Command, exit_text
from .task import (CAPTURE, CWD, ENV, TaskError, TaskResult, as_number, as_value, needed,
                   substitute_all, task_type)


def _check_command(value):
    if isinstance(value, str) and value.strip():
        return TEXT.check(value)
    if isinstance(value, list) and value and value[0] != "":
        return check_items(TEXT.check, value)
    raise ValueError("must be a string for the shell, or a list of program and arguments")


def _check_umask(value):
    if not isinstance(value, str) or not re.fullmatch("[0-7]{3,4}", value):
        raise ValueError('must be octal digits in quotes, such as "027"')
    return value


_INTERPRETER = re.compile(r"(^|/)(\w*sh|python[0-9.]*|perl|ruby|node)$")
_PROGRAM_FLAG = re.compile("-[A-Za-z]*[ce]")       # the next argument is a program: -c, -lc, -e


@task_type("os")
class OsTask:
    """A command of the operating system: a string by the shell, a list without one."""

    fields = {
        "command": Field(Kind(_check_command, _refuse, "a text or a list of texts"), required=True,
                         meaning="a text is run by /bin/sh; a list is a program and its arguments, "
                         "without a shell"),
        "cwd": CWD,
        "env": ENV,
        "stdin": Field(TEXT, meaning="what the process reads on standard input (nothing)"),
        "ok_codes": Field(list_of(between(-64, 255)), default=[0],
                          meaning="exit codes that mean DONE"),
        "warning_codes": Field(list_of(between(-64, 255)), default=[],
                               meaning="exit codes that mean WARNING; all others mean ERROR"),
        "capture": CAPTURE,
        "nice": Field(between(-20, 19), meaning="added to the process's niceness"),
        "umask": Field(Kind(_check_umask, _check_umask, 'octal digits, such as "027"'),
                       meaning="umask of the process (the agent's own)"),
    }

    @staticmethod
    def warn(fields):
        """[(field, reason)] of what is allowed but looks wrong: a value that becomes a program."""
        command = fields.get("command")
        for index, word in enumerate(command[2:] if isinstance(command, list) else (), 2):
            if (_INTERPRETER.search(command[index - 2])
                    and _PROGRAM_FLAG.fullmatch(command[index - 1])
                    and any(match.group(1) for match in _REFERENCE.finditer(word))):
                yield "command[%d]" % index, (
                    "a value would become a part of this program: give it as an argument behind "
                    "it, or read it from the environment")

    def run(self, fields, execution):
        """Runs the command; its exit code decides."""
        return self._process(fields, execution, self._words(fields, execution.values))

    def resume(self, fields, execution):
        """Goes on with the process that a lost agent has started."""
        return self._result(fields, execution.adopt(), execution.captured)

    @staticmethod
    def _words(fields, values):
        command = fields["command"]
        words = ["/bin/sh", "-c", shell_command(command)] if isinstance(command, str) else \
            substitute_all(command, values)
        if fields["nice"] is None and fields["umask"] is None:
            return words
        umask = "" if fields["umask"] is None else "umask %s; " % fields["umask"]
        nice = "" if fields["nice"] is None else "nice -n %d " % fields["nice"]
        return ["/bin/sh", "-c", '%sexec %s"$@"' % (umask, nice), "sh"] + words

    def _process(self, fields, execution, words, pass_fds=()):
        given = substitute_all({name: fields.get(name) for name in ("env", "cwd", "stdin")},
                               execution.values)
        rc = execution.process(Command(
            words, dict(execution.environment(), **given["env"]), given["cwd"], given["stdin"],
            pass_fds, is_captured=fields["capture"] is not None), is_adoptable=True)
        return self._result(fields, rc, execution.captured)

    @staticmethod
    def _result(fields, rc, captured):
        """What an exit code, and what was printed, make of the task."""
        values = {}
        if fields["capture"]:
            text = as_value(captured, "%s, but it printed" % exit_text(rc))
            values[fields["capture"]] = text[:-1] if text.endswith("\n") else text
        if rc in fields.get("ok_codes", [0]):
            return TaskResult(DONE, rc, values=values)
        if rc in fields.get("warning_codes", ()):
            return TaskResult(WARNING, rc, message=exit_text(rc), values=values)
        return TaskResult(ERROR, rc, message=exit_text(rc))


@task_type("set")
class SetTask:
    """Gives a variable a value."""

    fields = {
        "variable": Field(VARIABLE_NAME, required=True, meaning="the variable that is set"),
        "value": Field(TEXT, required=True, meaning="its new value"),
    }
    is_instant = True                   # starts nothing: needs no commit of its own before

    def run(self, fields, execution):
        """The value may refer to other variables."""
        value = substitute(fields["value"], execution.values)
        return TaskResult(DONE, values={fields["variable"]: value})


OPERATORS = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}


def _check_compared(value):
    return check_items(_check_value, value) if isinstance(value, list) else _check_value(value)


@task_type("evaluate")
class EvaluateTask:
    """Compares a variable: false sends the step to its on_false and is no error."""

    fields = {
        "variable": Field(VARIABLE_NAME, required=True, meaning="the variable that is compared"),
        "operator": Field(choice(*(list(OPERATORS) + ["in", "matches"])), required=True,
                          meaning="how it is compared"),
        "value": Field(Kind(_check_compared, _refuse, "text or a number; a list for in"),
                       required=True, meaning="what it is compared with"),
    }

    @staticmethod
    def judge(fields):
        """[(field, reason)] of what is wrong between its fields."""
        value, operator = fields["value"], fields["operator"]
        if isinstance(value, list) and operator not in ("in", None):
            yield "value", "a list is for the operator in"
        if operator == "matches" and isinstance(value, str) and not _REFERENCE.search(value):
            try:
                re.compile(value)
            except re.error as error:
                yield "value", "must be a regular expression: %s" % error

    def run(self, fields, execution):
        """Numbers are compared as numbers when both sides are."""
        value, operator = execution.values[fields["variable"]], fields["operator"]
        right = substitute_all(fields["value"], execution.values)
        is_true = self._compare(value, operator, right)
        return TaskResult(DONE, message="" if is_true else "false: %s %s %s" % (
            fields["variable"], operator, right), is_false=not is_true)

    @staticmethod
    def _compare(value, operator, right):
        if operator == "matches":
            try:
                return re.search(right, value) is not None
            except re.error as error:
                raise TaskError("%s is no regular expression: %s"
                                % (shorten(right), error)) from None
        if operator == "in":
            items = (right if isinstance(right, list)
                     else [item.strip() for item in right.split(",")])
            return any(EvaluateTask._compare(value, "=", item) for item in items)
        numbers = as_number(value), as_number(right)
        return OPERATORS[operator](*(numbers if None not in numbers else (value, right)))


def _check_delay(value):
    """Seconds, or a text with references, which is checked when it is run."""
    is_template = isinstance(value, str) and _REFERENCE.search(value)
    return TEXT.check(value) if is_template else _check_seconds(value)


@task_type("sleep")
class SleepTask:
    """Waits a while."""

    fields = {"seconds": Field(Kind(_check_delay, _refuse, "a duration"), required=True,
                               meaning="how long")}

    def run(self, fields, execution):
        """A number, a duration, or a reference to one."""
        try:
            seconds = _check_seconds(substitute_all(fields["seconds"], execution.values))
        except ValueError as error:
            raise TaskError(str(error)) from None
        execution.wait(seconds)
        return TaskResult(DONE)


def file_size(path):
    """Bytes of a file, or None where there is none."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return status.st_size if stat.S_ISREG(status.st_mode) else None
    return None


@task_type("wait_file")
class WaitFileTask:
    """Waits until files are there and have not grown for a while, or until none is there."""

    fields = {
        "path": needed("a file, or a pattern with * ? [...] or **"),
        "count": Field(between(1, 1000000), default=1, meaning="so many files have to be there"),
        "stable_s": Field(SECONDS, default=1, meaning="and must not have changed their size for so "
                          "long"),
        "absent": Field(BOOLEAN, default=False, meaning="true: wait until none is there"),
    }

    def run(self, fields, execution):
        """Without a time-out it waits for ever."""
        pattern = substitute(fields["path"], execution.values)
        seen, since = None, None
        while True:
            paths = glob.glob(pattern, recursive=True)
            now = sorted(each for each in zip(paths, map(file_size, paths)) if each[1] is not None)
            if fields["absent"]:
                if not paths:
                    return TaskResult(DONE)
            elif len(now) < fields["count"]:
                seen = None
            elif now != seen:
                seen, since = now, execution.monotonic()
            if seen and execution.monotonic() - since >= fields["stable_s"]:
                return TaskResult(DONE, rows=len(now))
            execution.wait(min(0.5, max(0.05, fields["stable_s"] / 4)))


PYTHON_BOOT = ("import os,sys;"
               "exec(compile(open(int(sys.argv.pop(1)),encoding='utf-8').read(),'<task>','exec'))")


@task_type("python")
class PythonTask(OsTask):
    """Python code or a file of it, in an interpreter process of its own."""

    fields = {
        "code": Field(FILLED, meaning="the code itself; give either this or file"),
        "file": Field(FILLED, meaning="a file with the code"),
        "args": Field(list_of(TEXT), default=[], meaning="what is in sys.argv behind the program"),
        "cwd": CWD, "env": ENV, "capture": CAPTURE,
    }
    one_of = ("code", "file")
    literal = ("code",)                 # in which nothing is replaced

    def run(self, fields, execution):
        """The exit code decides, as with `os`. The code is read from a file, not an argument."""
        values = execution.values
        reason = find_code_fault(fields["code"] or "")
        if reason:                      # an earlier version took it
            raise TaskError("code: %s" % reason)
        words = [sys.executable, "-u"]
        args = substitute_all(fields["args"], values)
        if fields["file"]:
            return self._process(
                fields, execution, words + [substitute(fields["file"], values)] + args)
        with tempfile.TemporaryFile() as source:
            source.write(substitute(fields["code"], {}).encode())
            source.seek(0)
            fd = source.fileno()
            return self._process(fields, execution, words + ["-c", PYTHON_BOOT, str(fd)] + args,
                                 (fd,))


@task_type("scenario")
class ScenarioTask:
    """Starts a session of another scenario, and waits for it unless told otherwise."""

    fields = {
        "name": Field(NAMED, required=True, meaning="the scenario that is started"),
        "version": SCHEDULE_FIELDS["version"],
        "context": Field(NAMED, meaning="context of the new session (that of this one)"),
        "variables": Field(VALUES, default={}, meaning="values for variables of that scenario"),
        "wait": Field(BOOLEAN, default=True, meaning="false: go on without waiting for its end"),
    }

    def run(self, fields, execution):
        """A generator, as wait_child() is. A stop goes down to the child; its end decides."""
        number = execution.start_child(fields["name"], fields["version"], fields["context"],
                                       substitute_all(fields["variables"], execution.values))
        if not fields["wait"]:
            return TaskResult(DONE, message="session %d started" % number)
        status, message = yield from execution.wait_child(number)
        text = "session %d: %s%s" % (number, status, ": " + message if message else "")
        return TaskResult({DONE: DONE, WARNING: WARNING}.get(status, ERROR), message=text)
