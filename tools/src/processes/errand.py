"""A process beside all sessions that is given something, and has a limit in time.

It writes what came of it, as JSON, to a file that has no name; its output is thrown away.
"""
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading

from .process import exit_text, start_error
from .stages import HAS_UMASK, staged

ABANDON_S = 1.0         # how long one that was killed is waited for


class Errand:
    """One such process, for the thread that runs it; stop() is for any other."""

    def __init__(self, put_in_bounds, limit_s):
        """`put_in_bounds(command)` gives a Command the user and the limits of tasks."""
        self._bind, self._limit_s = put_in_bounds, limit_s
        self._lock, self._popen, self._is_stopped = threading.Lock(), None, False

    def run(self, make_command, text):
        """Runs make_command(fd), a Command, with a text for its standard input, until it ends or
        its time is over -> what it wrote to the descriptor fd, a dict. ValueError says why there is
        nothing."""
        with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as order:
            order.write(text.encode())
            order.seek(0)
            command = self._bind(make_command(answer.fileno()))
            with staged(command, command.words[0]) as (command, _):
                rc = self._run(command, order)
            answer.seek(0)
            data = answer.read()
        try:
            return json.loads(data.decode())
        except ValueError:
            raise ValueError("its process ended early: %s" % exit_text(rc)) from None

    def _run(self, command, order):
        """The exit code of a Command. ValueError."""
        with self._lock:
            if self._is_stopped:
                raise ValueError("the agent was stopping")
            try:
                popen = self._popen = subprocess.Popen(
                    command.words, env=command.environment, cwd=command.cwd, stdin=order,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    pass_fds=command.pass_fds, start_new_session=True,
                    **({"umask": command.umask} if HAS_UMASK and command.umask is not None else {}))
            except OSError as error:
                raise ValueError(start_error(error)) from None
        try:
            return popen.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            self.stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                popen.wait(ABANDON_S)
            raise ValueError("took over %g s" % self._limit_s) from None
        finally:
            with self._lock:
                self._popen = None

    def stop(self):
        """Ends it now, or before it begins."""
        with self._lock:
            self._is_stopped = True
            if self._popen is not None:
                with contextlib.suppress(OSError):
                    os.killpg(self._popen.pid, signal.SIGKILL)
