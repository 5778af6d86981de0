"""What goes on in another thread, for who waits for it: a write, a call."""
import contextlib
import copy
import threading
import traceback

from ..base.errors import AgentError


def atomic(method):
    """Says of a writing method that it changes by one statement alone, so it needs no savepoint."""
    method.is_atomic = True
    return method


def lazy(method):
    """Says of a writing method that nobody waits for it, so it may wait for company."""
    method.is_lazy = True
    return method


def repeated(method):
    """Says of a writing method that who waits for it may ask for the same at once again."""
    method.is_repeated = True
    return method


class Pending:
    """One request to a writer: method(connection, *arguments) inside the shared transaction; or to
    a thread that performs method(*arguments).

    Once it is done, on_done(pending) goes into the Inbox.
    """
    __slots__ = ("method", "arguments", "deadline", "is_atomic", "is_lazy", "is_repeated", "value",
                 "error", "is_done", "_on_done", "_inbox", "_lock", "_on_finish")

    def __init__(self, method, arguments=(), deadline=None, on_done=None, inbox=None):
        self.method, self.arguments, self.deadline = method, arguments, deadline
        self._on_done, self._inbox = on_done, inbox
        self.is_atomic = getattr(method, "is_atomic", False)
        self.is_lazy = getattr(method, "is_lazy", False)
        self.is_repeated = getattr(method, "is_repeated", False)
        self.value = self.error = None
        self.is_done, self._on_finish = False, None
        self._lock = threading.Lock()
        self._lock.acquire()

    def finish(self, value=None, error=None):
        """Done, well or badly: called once, by the other thread."""
        self.value, self.error, self.is_done = value, error and detach(error), True
        self._lock.release()
        if self._on_finish:
            self._on_finish()
        if self._on_done:
            self._inbox.put(self._on_done, self)

    def call_when_done(self, function):
        """Has function() called by the thread that finishes this, or now when it is done; maybe by
        both. It must wait for nothing."""
        self._on_finish = function
        if self.is_done:
            function()

    def perform(self):
        """For a thread that is no writer: does it."""
        try:
            value, error = self.method(*self.arguments), None
        except BaseException as raised:
            value, error = None, raised
        self.finish(value, error)
        del error                       # its frames lead here, and would keep each other

    def wait(self, timeout_s):
        """Waits so many seconds at most -> whether it is done."""
        if self._lock.acquire(timeout=timeout_s):
            self._lock.release()
        return self.is_done

    def result(self):
        """The value once it is there, of a write on disk; raises what the work or the commit
        raised."""
        with self._lock:
            pass
        if self.error is not None:
            raise _renew(self.error)
        return self.value


class Elsewhere(Exception):
    """The traceback of an error that was raised in another thread, as text: its cause."""


def detach(error):
    """The error without the frames that it came through: they would hold the Pending, and so the
    error itself, until a full search for garbage. Those of a fault stay as text."""
    if not isinstance(error, AgentError) and error.__traceback__ is not None:
        with contextlib.suppress(MemoryError):
            error.__cause__ = Elsewhere("\n" + "".join(traceback.format_exception(
                type(error), error, error.__traceback__)))
    error.__context__ = None
    return error.with_traceback(None)


def _renew(error):
    """The same error for one who raises it: the frames that it comes through then are not those of
    what the Pending has."""
    try:
        new = copy.copy(error)
    except Exception:                   # of a module that knows no copies of its errors
        return error
    if type(new) is not type(error):
        return error
    new.__cause__ = error.__cause__
    return new
