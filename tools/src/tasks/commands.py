"""Commands, code and the small types: os, set, sleep, wait_file, python, scenario."""
import os
import re
import sys
import tempfile

from ..base.encoding import locale_for_python, to_bytes
from ..base.vocabulary import DONE, ERROR, WARNING
from ..base.program import alone_command
from ..definitions.kinds import (BOOLEAN, FILLED, Field, Kind, NAMED, SECONDS, TEXT, VALUES,
                                 VARIABLE_NAME, _check_seconds, _refuse, between, check_items,
                                 list_of)
from ..definitions.engines import ENGINE_FIELD
from ..definitions.fields import SCHEDULE_FIELDS
from ..definitions.references import _REFERENCE, find_code_fault, shell_command, substitute
from ..processes.process import Command, exit_text
from .roots import Root
from .spooling import EngineOrder
from .task import (CAPTURE, CWD, ENV, TaskError, TaskResult, as_value, ask_process, needed,
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
                       meaning="umask of the process (what the agent was started with)"),
        "engine": ENGINE_FIELD,
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
        return self.result(fields, (yield from execution.adopt()), execution)

    def order(self, fields, values):
        """What is to run on an engine, with the environment that `env` says -> EngineOrder."""
        return EngineOrder(self._words(fields, values), substitute_all(fields["env"], values), {},
                           substitute_all(fields["cwd"], values))

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
        surroundings = substitute_all(
            {name: fields.get(name) for name in ("env", "cwd", "stdin")}, execution.values)
        rc = yield from execution.process(Command(
            words, dict(self._surround(execution.environment()), **surroundings["env"]),
            surroundings["cwd"], surroundings["stdin"], pass_fds,
            is_captured=fields["capture"] is not None), is_adoptable=True)
        return self.result(fields, rc, execution)

    @staticmethod
    def _surround(environment):
        """The environment of its processes, but for what `env` says."""
        return environment

    @staticmethod
    def result(fields, rc, execution):
        """What an exit code, and what was printed, make of the task."""
        values = {}
        if fields["capture"]:
            text = as_value(execution.exit.captured, "%s, but it printed" % exit_text(rc))
            values[fields["capture"]] = text[:-1] if text.endswith("\n") else text
        if rc in fields.get("ok_codes", [0]):
            return TaskResult(DONE, rc, values=values)
        if rc in fields.get("warning_codes", ()):
            return TaskResult(WARNING, rc, message=execution.exit.text, values=values)
        return TaskResult(ERROR, rc, message=execution.exit.text)


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
        yield from execution.wait(seconds)
        return TaskResult(DONE)


def wait_alone(fd, pattern, count, stable_s, is_absent, root=""):
    """In a process by itself, since a glob may take for ever: waits until `count` files are there
    that did not change for `stable_s`, or until none is there; writes how many to `fd`, or `out`
    for a path that leads out of a folder `root`. Paths are in hexadecimal digits, for names are
    bytes, whatever the locale."""
    import glob
    import os
    import stat
    import time
    pattern, before, since = bytes.fromhex(pattern), None, 0
    count, stable_s, is_absent = int(count), float(stable_s), is_absent == "True"
    root, above = bytes.fromhex(root), os.path.dirname(pattern.rstrip(b"/"))
    while glob.has_magic(above):
        above = os.path.dirname(above)

    def leads_out(path):
        return root and not (os.path.realpath(path) + b"/").startswith(root.rstrip(b"/") + b"/")
    while True:
        states = [b"out"]
        if leads_out(above or b".") or root and b".." in pattern[len(above):].split(b"/"):
            break
        # a plain path that is there is meant, whatever it has of a pattern
        paths = [pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True)
        if any(map(leads_out, paths)):
            break
        states = []
        for path in sorted(paths):
            try:
                status = os.stat(path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                # what changes as long as a file is written, of its full size or not
                states.append((path, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        if not is_absent and len(states) < count:
            before = None
        elif states != before:
            before, since = states, time.monotonic()
        if is_absent and not paths or not is_absent and before and \
                time.monotonic() - since >= stable_s:
            break
        time.sleep(min(0.5, max(0.05, stable_s / 4)))
    with open(int(fd), "wb") as file:
        file.write(b"out" if states == [b"out"] else b"%d" % len(states))


@task_type("wait_file")
class WaitFileTask:
    """Waits until files are there and have not changed for a while, or until none is there."""

    fields = {
        "path": needed("a file, or a pattern with * ? [...] or **"),
        "count": Field(between(1, 1000000), default=1, meaning="so many files have to be there"),
        "stable_s": Field(SECONDS, default=1, meaning="and their size and time of change must have "
                          "stood still for so long"),
        "absent": Field(BOOLEAN, default=False, meaning="true: wait until none is there"),
    }

    def run(self, fields, execution):
        """Without a time-out it waits for ever."""
        pattern = to_bytes(substitute(fields["path"], execution.values)).hex()
        root = to_bytes(execution.bounds.root).hex()
        waited = [str(fields[name]) for name in ("count", "stable_s", "absent")]
        _, data = yield from ask_process(
            execution, lambda fd: alone_command(wait_alone, str(fd), pattern, *waited, root),
            dict(os.environ))
        if not data:
            raise TaskError("the process that waits ended early: %s" % execution.exit.text)
        if data == b"out":
            raise Root(execution.bounds.root).refusal(substitute(fields["path"], execution.values))
        return TaskResult(DONE, rows=None if fields["absent"] else int(data.decode()))


# neither the working folder, which `-c` searches first, nor the user's site has modules for it
PYTHON_FLAGS = ["-u", "-s"]
PYTHON_BOOT = ("import sys;sys.path[:1]==['']and sys.path.pop(0);import os;"
               "exec(compile(open(int(sys.argv.pop(1)),encoding='utf-8').read(),'<task>','exec'))")


@task_type("python")
class PythonTask(OsTask):
    """Python code or a file of it, in an interpreter process of its own."""

    fields = {
        "code": Field(FILLED, meaning="the code itself; give either this or file"),
        "file": Field(FILLED, meaning="a file with the code"),
        "args": Field(list_of(TEXT), default=[], meaning="what is in sys.argv behind the program"),
        "cwd": CWD, "env": ENV, "capture": CAPTURE, "engine": ENGINE_FIELD,
    }
    one_of = ("code", "file")
    literal = ("code",)                 # in which nothing is replaced

    def run(self, fields, execution):
        """The exit code decides, as with `os`. The code is read from a file, not an argument."""
        code = self._code(fields)
        if code is None:
            return (yield from self._process(
                fields, execution, self._python_words(fields, execution.values)))
        with tempfile.TemporaryFile() as source:
            source.write(code.encode())
            source.seek(0)
            fd = source.fileno()
            return (yield from self._process(
                fields, execution, self._python_words(fields, execution.values, fd), (fd,)))

    def order(self, fields, values):
        """As of `os`; the code is read from descriptor 3."""
        code = self._code(fields)
        return EngineOrder(self._python_words(fields, values, 3),
                           substitute_all(fields["env"], values), {},
                           substitute_all(fields["cwd"], values), code, is_python=True)

    @staticmethod
    def _code(fields):
        """The code itself, None where it is a file of its own. TaskError."""
        if fields["file"]:
            return None
        reason = find_code_fault(fields["code"])
        if reason:                      # an earlier version took it
            raise TaskError("code: %s" % reason)
        return substitute(fields["code"], {})

    @staticmethod
    def _python_words(fields, values, fd=None):
        """The words that start it; its code comes from this descriptor."""
        program = [substitute(fields["file"], values)] if fields["file"] else \
            ["-c", PYTHON_BOOT, str(fd)]
        return [sys.executable] + PYTHON_FLAGS + program + substitute_all(fields["args"], values)

    @staticmethod
    def _surround(environment):
        return locale_for_python(environment)


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
