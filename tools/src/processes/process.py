"""One process of a task, from its start to its exit code.

Thread wait PID: waits for the exit of one process of a task, and ends with it.
Thread feed PID: writes one process's standard input, and ends with it.
"""
import contextlib
import os
import signal
import subprocess
import threading
from typing import NamedTuple, Optional

from ..base.vocabulary import DRAIN_S, ERR, KILL_S, OUT
from .tree import start_time


class Command(NamedTuple):
    """What a process is started with."""
    words: list                     # program and arguments
    environment: dict
    cwd: Optional[str] = None
    stdin: Optional[str] = None     # text for its standard input
    pass_fds: tuple = ()            # descriptors that it has too
    is_captured: bool = False       # its standard output is for a variable


class Process:
    """A started process: in an OS session of its own, its output going to a capture."""

    def __init__(self, command, capture, output, notify):
        """Starts it; OSError when that fails. `notify()` is called when it has ended."""
        self.rc, self.capture = None, capture
        self.is_over = False            # what its pipes still bring is thrown away
        self._notify = notify
        self._open_pipes, self._is_read = 2, threading.Event()
        self._popen = subprocess.Popen(
            [to_bytes(word) for word in command.words], cwd=command.cwd and to_bytes(command.cwd),
            env={to_bytes(name): to_bytes(text) for name, text in command.environment.items()},
            stdin=subprocess.DEVNULL if command.stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            pass_fds=command.pass_fds)
        self.pid = self._popen.pid
        self.started = start_time(self.pid) or ""
        output.add(self, {self._popen.stdout: OUT, self._popen.stderr: ERR})
        self._waiter = threading.Thread(target=self._wait, name="wait %d" % self.pid, daemon=True)
        self._waiter.start()
        if command.stdin is not None:
            threading.Thread(target=self._feed, args=(command.stdin.encode(),),
                             name="feed %d" % self.pid, daemon=True).start()

    def _feed(self, data):
        with contextlib.suppress(OSError):      # a process need not read its standard input
            with self._popen.stdin as pipe:
                pipe.write(data)

    def _wait(self):
        self.rc = self._popen.wait()
        self._notify()

    def pipe_ended(self):
        """One of its pipes is at its end."""
        self._open_pipes -= 1
        if self._open_pipes == 0:
            self._is_read.set()

    def finish(self, timeout_s=KILL_S):
        """Waits for the exit code and the rest of the output.

        What the process left running keeps its pipes; what it prints later is thrown away.
        """
        self._waiter.join(timeout_s)
        self._is_read.wait(DRAIN_S)
        self.is_over = True


def to_bytes(text):
    """Text for the system, whatever the locale of the agent (Python 3.6 takes C's for ASCII)."""
    return text.encode("utf-8", "surrogateescape")


def start_error(error):
    """Why a process cannot start, in the system's words."""
    name, number = getattr(error, "filename", None), getattr(error, "errno", None)
    return "cannot start: %s%s" % (      # strerror of Python 3.6 has the name too
        os.strerror(number) if number else error, ": %s" % os.fsdecode(name) if name else "")


def exit_text(rc):
    """An exit code in words; a negative one is a signal."""
    if rc >= 0:
        return "exit code %d" % rc
    try:
        return "ended by signal %d (%s)" % (-rc, signal.Signals(-rc).name)
    except ValueError:
        return "ended by signal %d" % -rc
