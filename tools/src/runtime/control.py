"""What reaches a session while it runs: a stop, time-outs, that it is left, ends of its processes.

A session waits by a Waiting, without a thread, or its thread in Control.wait(): both look at what
is here, so whatever reaches it takes effect at once.
Nothing of this is on disk.

Thread call N: one call for session N that may block, such as a statement of SQL or the reading of
a secret; ends with it. One that cannot be interrupted is left behind.
"""
import contextlib
import threading

from ..base.vocabulary import ERROR, IMMEDIATE, KILL_S, NORMAL, NOT_ENDED, STOPPED, TRY_S
from ..base.workers import Worker, is_lasting
from ..store.pending import Pending
from ..processes.tree import Tree, follow_group, signal_group
from ..processes.process import Process


class Interrupted(Exception):
    """A stop or a time-out ends what is under way.

    `scope` is how far that reaches: "task", "step" or "session"; `status` what it makes of what it
    ends: STOPPED, or ERROR for a time-out; `message` why, and what could not be ended.
    """

    def __init__(self, scope, status, reason):
        super().__init__(reason)
        self.scope, self.status, self.reason, self.message = scope, status, reason, reason


class Left(Exception):
    """A session is left to the next start of the agent: its process goes on without it."""


class Control:
    """A session's stop and time-outs, and the processes that end with them.

    on_change() is called after each stop(), leave() and wake().
    These three may be called from any thread at any moment, also before the session
    begins and after it ended. All else is for the session's own thread.
    """

    def __init__(self, clock, session, on_change=lambda: None, looks=None):
        self.is_leaving = False         # the process that it waits for, or starts next, goes on
        self.is_parting = False         # so does what is on an engine
        self._clock, self._on_change = clock, on_change
        self._session = session         # as the markers of its processes begin
        self._changed = threading.Condition()
        self._mode, self._message = None, ""    # of a stop: None, NORMAL or IMMEDIATE; why
        self._deadlines = []            # [(monotonic, scope, seconds given)], the outermost first
        self._roots = {}                # pid -> start time, of processes whose group lives on
        self._minders = {}              # those of them that are minders
        self._newest = None             # the Process begun last; it is none of the roots yet
        self._looks = looks             # Looks that all sessions share; without it, its own

    def share(self):
        """A Control of its own for another thread of the session; its end ends no other."""
        return Control(self._clock, self._session, looks=self._looks)

    # -- from any thread ---------------------------------------------------------------

    def stop(self, mode, message):
        """Asks for a stop, NORMAL: between two tasks, or IMMEDIATE, which no NORMAL takes back. The
        message is that of the session then."""
        with self._changed:
            if self._mode != IMMEDIATE:
                self._mode, self._message = mode, message
        self.wake()

    def leave(self, is_engine_alone=False):
        """A process that can be adopted, the one waited for or the next, goes on by itself; or that
        alone which is on an engine."""
        with self._changed:
            self.is_parting = True
            self.is_leaving = self.is_leaving or not is_engine_alone
        self.wake()

    def wake(self):
        """Makes wait() look again whether it is over."""
        with self._changed:
            self._changed.notify_all()
        self._on_change()

    # -- stop and time-outs ------------------------------------------------------------

    def now(self):
        """The steady clock, seconds."""
        return self._clock.monotonic()

    @property
    def has_stop(self):
        """Whether a stop was asked for, of either mode."""
        return self._mode is not None

    @contextlib.contextmanager
    def deadline(self, seconds, scope, spent_s=0.0):
        """What is done inside may take so many seconds (None: any time), of which some are spent;
        then it is interrupted, together with the whole task, step or session that `scope` names."""
        if seconds is None:
            yield
            return
        self._deadlines.append((self._clock.monotonic() + seconds - spent_s, scope, seconds))
        try:
            yield
        finally:
            self._deadlines.pop()

    def check_stop(self, is_between=False):
        """Raises Interrupted for an immediate stop; between two tasks for a normal one too."""
        if self._mode == IMMEDIATE or self._mode == NORMAL and is_between:
            raise Interrupted("session", STOPPED, self._message)

    def interrupt_if_asked(self, is_between=False):
        """`check_stop`, and Interrupted when a deadline has passed: of several, the outermost."""
        self.check_stop(is_between)
        now = self._clock.monotonic()
        for deadline, scope, seconds in self._deadlines:
            if deadline <= now:
                raise Interrupted(scope, ERROR, "time-out of the %s after %g s" % (scope, seconds))

    @property
    def is_due(self):
        """Whether something immediate ends what is under way."""
        now = self._clock.monotonic()
        return self._mode == IMMEDIATE or any(until <= now for until, _, _ in self._deadlines)

    def find_limit(self, waiting):
        """Until when a Waiting may last, monotonic seconds; None: for ever."""
        times = [] if waiting.is_deaf else [until for until, _, _ in self._deadlines]
        if waiting.patience_s is not None:
            times.append(self.now() + waiting.patience_s)
        return min(times) if times else None

    def linger(self, waiting):
        """Waits in this thread as a Waiting says, until something may have changed."""
        with self._changed:
            until = self.find_limit(waiting)
            if not waiting.is_over() and (waiting.is_deaf or not self.is_due):
                self._changed.wait(until if until is None else max(0.0, until - self.now()))

    def wait(self, is_over, timeout_s=None, is_between=False):
        """Waits until is_over(), or for so many seconds; Interrupted after all processes are ended.

        is_over() is asked at the start, after wake(), and when the time is up. It goes before a
        stop. Between tasks a normal stop ends the waiting too.
        """
        until = [] if timeout_s is None else [self._clock.monotonic() + timeout_s]
        try:
            with self._changed:
                while not is_over():
                    self.interrupt_if_asked(is_between)
                    now = self._clock.monotonic()
                    if until and now >= until[0]:
                        return
                    limits = until + [deadline for deadline, _, _ in self._deadlines]
                    self._changed.wait(max(0.0, min(limits) - now) if limits else None)
        except Interrupted as interrupt:
            if self._roots or self._newest:
                self.sweep(interrupt)
            raise

    def call(self, function, interrupt=None, on_no_thread=lambda: None):
        """Runs function() in a thread of its own -> its value. A stop or time-out ends the waiting:
        interrupt() is called until the function has ended; without one, or when that takes too
        long (a mount hangs), the thread is left behind."""
        call = Pending(function)

        def work():
            call.perform()
            self.wake()
        name = "call %s" % self._session.rpartition("/")[2]
        thread = Worker(work, name)
        while not thread.try_start():           # on_no_thread() is called at each try
            on_no_thread()
            self.wait(lambda: False, TRY_S)
            thread = Worker(work, name)
        try:
            self.wait(lambda: call.is_done)
        except Interrupted as error:
            until = self._clock.monotonic() + KILL_S
            while interrupt and not call.is_done and self._clock.monotonic() < until:
                interrupt()
                thread.join(0.05)
            if not call.is_done:
                error.message = "%s; what was under way %s" % (error.message, NOT_ENDED)
            raise
        thread.join(KILL_S)
        return call.result()

    # -- processes ---------------------------------------------------------------------

    def start(self, command, capture, output, is_minder=False):
        """A Process of the session, which has begun. What its begun() raises; Interrupted: where a
        mount hangs the start is left behind."""
        process = Process(command, capture, output, self.wake, self.wake, is_lasting())
        try:
            self.wait(lambda: process.is_decided)
        except Interrupted as error:
            if not process.abandon():
                error.message = "%s; what was under way %s" % (error.message, NOT_ENDED)
            raise
        process.begun()
        if is_minder:
            self.add_root(process.pid, process.started, is_minder)
        else:
            self._newest = process
        return process

    def add_root(self, pid, started, is_minder=False):
        """A process of the session: it leads a group. `started` is its start time."""
        self._roots[pid] = started
        if is_minder:
            self._minders[pid] = started

    def drop_ended_roots(self):
        """A group stays the session's to end while there is something left of it, and no longer:
        the pid may then become another's."""
        before, self._roots = self._roots, {}
        newest, self._newest = self._newest, None
        if newest is not None and signal_group(newest.pid, 0):
            before[newest.pid] = newest.started
        for pid, started in before.items():
            self._roots.update(follow_group(pid, started, self._looks))
        self._minders = {pid: started for pid, started in self._minders.items()
                         if pid in self._roots}

    @property
    def has_roots(self):
        """Whether there is something left of the processes of the session."""
        return bool(self._roots)

    def sweep(self, interrupt):
        """Ends every process of the session, whatever has become of it; the message of what made
        it so says how many cannot be ended."""
        if self._newest is not None:
            self.add_root(self._newest.pid, self._newest.started)
            self._newest = None
        count = Tree([self._session], self._roots, self._minders, self._looks).end()
        if count:
            interrupt.message = "%s; %d of its processes %s" % (interrupt.reason, count, NOT_ENDED)

    def sweep_last(self, interrupt):
        """`sweep` at the session's end; a normal stop spares what tasks that had ended left."""
        if interrupt.status == ERROR or self._mode == IMMEDIATE:
            self.sweep(interrupt)
