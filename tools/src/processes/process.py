"""One process of a task, from its start to its exit code.

Where the system has descriptors of processes, the thread `output` sees that one has ended; else

Thread wait PID: waits for the exit of one process of a task; ends with it.
Thread feed PID: writes one process's standard input, and ends with it.
These are there before their process is, so that none starts that nobody waits for.
"""
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple, Optional

from ..base.vocabulary import DRAIN_S, ERR, KILL_S, OUT, TRY_S
from ..base.encoding import to_bytes
from ..base.workers import Worker
from .alive import start_time
from .tree import signal_group
from .stages import HAS_UMASK, staged


def has_process_descriptors():
    """Whether the system has descriptors of processes, and this Python knows them (3.9, Linux 5.3).
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


LIVES_LOOKS = 2         # a process lives when `output` has looked at it so often
HAS_DESCRIPTORS = has_process_descriptors()
IS_UTF8 = sys.getfilesystemencoding() == "utf-8"


class Command(NamedTuple):
    """What a process is started with."""
    words: list                     # program and arguments
    environment: dict
    cwd: Optional[str] = None
    stdin: Optional[str] = None     # text for its standard input
    pass_fds: tuple = ()            # descriptors that it has too
    is_captured: bool = False       # its standard output is for a variable
    file_limit: Optional[int] = None    # on open files, the soft one, where the agent has another
    umask: Optional[int] = None     # where the agent has another
    user: Optional[list] = None     # uid, gid and groups, where the agent has others

    @property
    def is_near(self):
        """Whether what its start opens hangs only where everything does; the rest is opened by the
        process itself where that is another user's (stages)."""
        return self.user is not None or \
            self.cwd is None and self.words[0] in ("/bin/sh", sys.executable)


class Process:
    """A started process: in an OS session of its own, its output going to a capture."""

    def __init__(self, command, capture, output, notify, on_begun=lambda: None, is_here=True):
        """Starts it, here or, where that may hang, in another thread: begun() says what came of
        that. `on_begun()` is called when that thread knows it; `notify()` when it has ended and its
        output is read, or DRAIN_S later. Not `is_here`: the calling thread may end before it.
        OSError, and nothing of it is left, where there is no thread: `is_passing`."""
        self.pid = self.rc = self._started = None
        self.capture = capture
        self.is_over = False            # what its pipes still bring is thrown away
        self._notify, self._on_begun = notify, on_begun
        self._open_pipes, self._is_read = 2, threading.Event()
        self._popen = self._error = None
        self._lock, self._is_decided = threading.Lock(), threading.Event()
        self._has_begun = self._is_abandoned = False
        self._looks, self._on_life = 0, None
        self._drain_until, self._is_complete = None, False
        self._has_ended = threading.Event()
        try:                            # a process that nobody waits for is worse than none
            if command.stdin is not None:
                self._start_thread("feed", self._feed, command.stdin.encode())
            if not HAS_DESCRIPTORS:
                self._start_thread("wait", self._wait)
            if not (is_here and self._begin_here(command, output)):
                output.starters.run(lambda: self._begin_elsewhere(command, output))
        except OSError:
            self._is_decided.set()
            raise

    @staticmethod
    def _start_thread(name, work, *arguments):
        """OSError: the host gives no further one."""
        thread = Worker(work, name, *arguments)
        try:
            thread.start()
        except RuntimeError:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        return thread

    # -- its start ---------------------------------------------------------------------

    def _begin_here(self, command, output):
        """Starts it, if that hangs only where everything does -> whether it is decided. What was
        there a moment ago, and is no more, is looked for again elsewhere."""
        programs = output.starters.programs
        program = to_bytes(command.words[0]) if command.is_near else programs.find_near(command)
        if program is None:
            return False
        self._begin(command, output, lambda: program)
        is_gone = not command.is_near and self._popen is None \
            and isinstance(self._error, OSError) and not is_passing(self._error)
        if is_gone:
            programs.forget(command)
            self._error = None
        else:
            self._is_decided.set()
        return not is_gone

    def _begin_elsewhere(self, command, output):
        """For a thread of Starters."""
        self._begin(command, output, lambda: output.starters.programs.open(command))
        self._is_decided.set()
        self._on_begun()

    def _begin(self, command, output, find_program):
        """Starts it; who calls this decides so what begun() says. The thread that does so has to
        live until somebody has waited for the exit: what is left behind counts as an orphan
        (reap_orphans)."""
        try:
            self._begin_unless_abandoned(command, output, find_program)
        except BaseException as error:
            self._error = error

    def _begin_unless_abandoned(self, command, output, find_program):
        """OSError, and whatever Popen raises. When it is abandoned meanwhile, it is killed."""
        program = find_program()
        if self._is_abandoned:
            return
        with open_pipes() as (pipes, ends), staged(command, program) as (command, program):
            self._popen = popen = self._start(command, program, output.null, ends)
            self.pid = popen.pid
            try:
                if HAS_DESCRIPTORS:
                    pipes[os.pidfd_open(self.pid)] = None
                else:
                    self._started = start_time(self.pid) or ""
                output.add(self, pipes)
            except BaseException as error:
                os.killpg(self.pid, signal.SIGKILL)
                popen.wait()
                if isinstance(error, OSError):      # of the agent's own, not of the command
                    raise OSError(error.errno, error.strerror) from None
                raise
        with self._lock:
            self._has_begun = True
            if self._is_abandoned:
                signal_group(self.pid, signal.SIGKILL)

    def _name_thread(self, name):
        threading.current_thread().name = "%s %d" % (name, self.pid)

    @staticmethod
    def _start(command, program, null, ends):
        """A Popen of a Command; `program` is the file that it starts, or None: Popen finds that."""
        environment = command.environment
        if not IS_UTF8:                 # or Popen does it
            environment = {to_bytes(name): to_bytes(text) for name, text in environment.items()}
        keywords = {"umask": command.umask} if HAS_UMASK and command.umask is not None else {}
        return subprocess.Popen(
            [to_bytes(word) for word in command.words], executable=program,
            cwd=command.cwd and to_bytes(command.cwd), env=environment,
            stdin=null if command.stdin is None else subprocess.PIPE, stdout=ends[0],
            stderr=ends[1], start_new_session=True, pass_fds=command.pass_fds, bufsize=0,
            **keywords)

    # -- its threads, and `output` -----------------------------------------------------

    def exited(self):
        """It has ended: its exit code is asked for, and its session told."""
        with self._lock:
            self._started = self._started or ""     # from now on its number may be another's
        self.rc = self._popen.wait()
        self._drain_until = time.monotonic() + DRAIN_S
        self._has_ended.set()
        self._complete_if(self._open_pipes == 0)

    def let_go(self):
        """`output` ends before it: a thread waits for it, which is left behind."""
        with contextlib.suppress(OSError):
            self._start_thread("wait", self._wait)

    def _wait(self):
        self._is_decided.wait()
        if self._popen is None:
            return
        self._name_thread("wait")
        while not self._has_ended.is_set():
            try:
                self.exited()
            except MemoryError:         # nobody else waits for it
                time.sleep(TRY_S)

    def _feed(self, data):
        self._is_decided.wait()
        if self._popen is None:
            return
        self._name_thread("feed")
        with contextlib.suppress(OSError):      # a process need not read its standard input
            with self._popen.stdin as pipe:
                rest = memoryview(data)
                while rest:             # a pipe may take a part
                    rest = rest[pipe.write(rest):]

    # -- for who has it started --------------------------------------------------------

    @property
    def is_decided(self):
        """Whether it is known if it could start."""
        return self._is_decided.is_set()

    def begun(self):
        """Waits until that is known -> itself. What Popen raises: OSError, ValueError."""
        self._is_decided.wait()
        error, self._error = self._error, None
        if error is None:
            return self
        try:
            raise error
        finally:
            del error                   # leads to all that its thread had

    def abandon(self):
        """Nobody waits for its start any more: it is killed, or not started when it can be ->
        whether that is over, or something hangs."""
        with self._lock:
            self._is_abandoned = True
            if self._has_begun and self.rc is None:
                signal_group(self.pid, signal.SIGKILL)
        return self._is_decided.wait(DRAIN_S)

    def call_if_it_lives(self, function):
        """Has function(this) called, by the thread `output`, when it lives on for a while."""
        self._on_life = function

    def look(self):
        """The thread `output` looks at it now and then."""
        self._complete_if(self._drain_until is not None and time.monotonic() >= self._drain_until)
        self._looks += 1
        if self._looks >= LIVES_LOOKS and self._on_life is not None and self.rc is None:
            on_life, self._on_life = self._on_life, None
            on_life(self)

    def pipe_ended(self):
        """One of its pipes is at its end."""
        self._open_pipes -= 1
        if self._open_pipes == 0:
            self._is_read.set()
            self._complete_if(self.rc is not None)

    def _complete_if(self, is_over):
        """Tells its session once that it is over."""
        with self._lock:
            is_new, self._is_complete = is_over and not self._is_complete, \
                self._is_complete or is_over
        if is_new:
            self._notify()

    @property
    def started(self):
        """When it started, in the kernel's words; nothing where that was asked too late."""
        with self._lock:
            if self._started is None:
                with contextlib.suppress(OSError):
                    self._started = start_time(self.pid) or ""
            return self._started or ""

    def has_exited(self):
        """Whether it has ended."""
        return self.rc is not None

    def is_complete(self):
        """Whether nothing more comes of it: neither its exit code nor any output."""
        return self._is_complete

    def finish(self, timeout_s=KILL_S):
        """Waits for the exit code and the rest of the output.

        What the process left running keeps its pipes; what it prints later is thrown away.
        """
        self._has_ended.wait(timeout_s)
        if not self._is_complete:
            self._is_read.wait(DRAIN_S)
        self.is_over = True


@contextlib.contextmanager
def open_pipes():
    """({descriptor: OUT or ERR} of pipes to read from, which do not block; [their ends to write
    to]). Those are closed behind it; what is still in the dict is closed after an error. OSError.
    """
    pipes, ends = {}, []
    try:
        for stream in (OUT, ERR):
            pipe, end = os.pipe()
            pipes[pipe] = stream
            ends.append(end)
            os.set_blocking(pipe, False)
        yield pipes, ends
    except BaseException:
        for pipe in pipes:
            os.close(pipe)
        raise
    finally:
        for end in ends:
            os.close(end)


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
