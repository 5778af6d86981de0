"""Calls of other programs for the agent itself: each a process of its own with a limit in time."""
import contextlib
import os
import signal
import subprocess
import tempfile
from typing import NamedTuple

from ..base.encoding import to_bytes
from .process import Command, start_error
from .programs import open_program
from .stages import HAS_UMASK, staged
from .tree import signal_group

MAX_ANSWER = 16 << 20       # bytes that are taken of what a program prints
LEAVE_S = 1.0               # how long the end of one that was killed is waited for


class NoAnswer(Exception):
    """A program has not answered: it could not be started, took too long, or says so itself."""


class Answer(NamedTuple):
    """What a program that has ended printed."""
    rc: int
    out: bytes
    err: str


class Calls:
    """Calls, one after the other, for one thread. One that cannot even be killed, as on a mount
    that hangs, is left behind, and there is no other as long as it is there."""

    def __init__(self, environment, bounds, limit_s):
        """Within the Bounds of tasks; each may take so many seconds."""
        self._environment, self._bounds, self._limit_s = environment, bounds, limit_s
        self._hanging = None            # the Popen that was left behind

    def call(self, words, choose=lambda environment: environment, data=b""):
        """Runs a program to its end -> Answer; what it has started itself is not waited for.
        choose(environment) gives that of the call; `data` is its standard input. NoAnswer."""
        if self._hanging is not None and self._hanging.poll() is None:
            raise NoAnswer("an earlier call, process %d, cannot be ended" % self._hanging.pid)
        self._hanging = None
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, \
                tempfile.TemporaryFile() as err:
            stdin.write(data)
            stdin.seek(0)
            try:
                process = _start(self._bounds.bounded(Command(words, choose(self._environment),
                                                              cwd="/")), (stdin, out, err))
            except (OSError, ValueError, MemoryError) as error:
                raise NoAnswer(start_error(error)) from None
            rc = self._await_end(process, words[0])
            return Answer(rc, _read_back(out, words[0]),
                          _read_back(err, words[0]).decode("utf-8", "replace").strip())

    def _await_end(self, process, name):
        """The exit code of a Popen. NoAnswer after so long: it is killed with its group."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(self._limit_s)
        signal_group(process.pid, signal.SIGKILL)
        try:
            process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._hanging = process
        raise NoAnswer("%s took over %g s" % (os.path.basename(name), self._limit_s))


def _start(command, streams):
    """A Popen of a Command with these files as its standard streams. OSError, ValueError."""
    program = open_program(command)
    with staged(command, program) as (command, program):
        keywords = {"umask": command.umask} if HAS_UMASK and command.umask is not None else {}
        return subprocess.Popen(
            [to_bytes(word) for word in command.words], executable=program,
            cwd=command.cwd and to_bytes(command.cwd),
            env={to_bytes(name): to_bytes(text) for name, text in command.environment.items()},
            stdin=streams[0], stdout=streams[1], stderr=streams[2], start_new_session=True,
            pass_fds=command.pass_fds, **keywords)


def _read_back(file, name):
    file.seek(0)
    data = file.read(MAX_ANSWER + 1)
    if len(data) > MAX_ANSWER:
        raise NoAnswer("%s printed over %d bytes" % (os.path.basename(name), MAX_ANSWER))
    return data
