"""One process of a task, from its start to its exit code.

Thread wait PID: waits for the exit of one process of a task, and ends with it.
Thread feed PID: writes one process's standard input, and ends with it.
Both are there before their process is, so that none starts that nobody waits for.
"""
import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from typing import NamedTuple, Optional

from ..base.vocabulary import DRAIN_S, ERR, KILL_S, OUT, TRY_S
from ..store.pending import Worker
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
        """Starts it; OSError when that fails, and nothing of it is left: `is_passing` tells whether
        to try again. `notify()` is called when it has ended."""
        self.rc, self.capture = None, capture
        self.is_over = False            # what its pipes still bring is thrown away
        self._notify = notify
        self._open_pipes, self._is_read = 2, threading.Event()
        self._popen, self._is_decided = None, threading.Event()
        try:                            # a process that nobody waits for is worse than none
            self._waiter = self._start_thread("wait", self._wait)
            if command.stdin is not None:
                self._start_thread("feed", self._feed, command.stdin.encode())
            self._popen = self._start(command)
        finally:
            self._is_decided.set()
        self.pid = self._popen.pid
        try:
            self.started = start_time(self.pid) or ""
            output.add(self, {self._popen.stdout: OUT, self._popen.stderr: ERR})
        except BaseException as error:
            os.killpg(self.pid, signal.SIGKILL)
            if isinstance(error, OSError):      # of the agent's own, not of the command
                raise OSError(error.errno, error.strerror) from None
            raise

    def _start_thread(self, name, work, *arguments):
        """Starts a thread that waits until it is known whether there is a process. OSError."""
        thread = Worker(self._run, name, name, work, *arguments)
        try:
            thread.start()
        except RuntimeError:            # the host gives no further one
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        return thread

    def _run(self, name, work, *arguments):
        self._is_decided.wait()
        if self._popen is not None:
            threading.current_thread().name = "%s %d" % (name, self._popen.pid)
            work(*arguments)

    @staticmethod
    def _start(command):
        return subprocess.Popen(
            [to_bytes(word) for word in command.words], cwd=command.cwd and to_bytes(command.cwd),
            env={to_bytes(name): to_bytes(text) for name, text in command.environment.items()},
            stdin=subprocess.DEVNULL if command.stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            pass_fds=command.pass_fds)

    def _feed(self, data):
        with contextlib.suppress(OSError):      # a process need not read its standard input
            with self._popen.stdin as pipe:
                pipe.write(data)

    def _wait(self):
        while self.rc is None:
            try:
                self.rc = self._popen.wait()
            except MemoryError:         # nobody else waits for it
                time.sleep(TRY_S)
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


def is_passing(error):
    """Whether a process could not start for want of something that the host gives again: threads,
    processes, memory, descriptors. What is wrong with the command itself names a file."""
    if isinstance(error, MemoryError):
        return True
    return getattr(error, "filename", None) is None and getattr(error, "errno", None) in (
        errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


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
