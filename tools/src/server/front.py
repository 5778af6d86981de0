"""The connections that have asked for nothing yet but EXEC and PING, all in one thread.

A thread for each would be woken twice a request: when it comes, and after its commit. Here what
comes together is begun together, and answered together. Nothing here may wait, for anybody: what
could, goes on in a thread of its own, and its connection stays there.

Thread front: serves them; ends at Front.close().
Thread usher: starts the threads of those that need one, which may take its time; ends likewise.
"""
import collections
import contextlib
import functools
import os
import queue
import selectors
import socket
import threading
import time

from ..base.errors import BadRequest, Busy, TooLong
from ..base.program import log
from ..base.workers import Worker
from .incoming import encode
from .tls import TLS_BYTE

NO_THREAD = "the host has no thread for a further connection"
TURN = 64               # lines of one connection until another has its turn
INTAKE = 65536          # bytes that are taken at once; a longer line is for a thread of its own
PATROL_S = 0.5          # between two looks for who is waited for too long


class Front:
    """Serves Callers whose requests wait for a commit alone, or for nothing. count(limit) is told
    of each WireLimit that is reached."""

    def __init__(self, serve_alone, end, limits, count):
        self._end = end                         # of a connection
        self._max_requests, self._count = limits.max_requests, count
        self._is_timed = not (limits.idle_s is limits.line_s is None)
        self._next_patrol = 0.0
        self._usher, self._waker = Usher(serve_alone, self.add), Waker()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker.descriptor, selectors.EVENT_READ)
        # all, those of whom more is read, and those whose client is gone
        self._callers, self._watched, self._lost = set(), set(), set()
        self._woken = collections.deque()       # Callers that are new, or for whom there is news
        self._is_asleep = self._is_closing = False
        self._thread = Worker(self._run, name="front")

    def start(self):
        """Serves from now on. RuntimeError: the host has no thread for it."""
        self._usher.start()
        self._thread.start()

    def add(self, caller):
        """Takes a Caller in, also once more. From any thread."""
        self._callers.add(caller)
        self._wake(caller)

    def close(self):
        """Ends the threads, and the connections that are still here."""
        if self._is_closing:
            return
        self._usher.close()
        self._is_closing = True
        self._wake(None)
        if self._thread.is_alive():
            self._thread.join()
        for caller in list(self._callers):
            self._leave(caller)
            self._end(caller.connection)
        self._selector.close()
        self._waker.close()

    def _wake(self, caller):
        """There is news for a Caller. From any thread; waits for nothing."""
        self._woken.append(caller)
        if self._is_asleep:
            self._is_asleep = False
            self._waker.ring()

    def _run(self):
        """Whatever goes wrong, as when memory is short: the thread stays for others."""
        while not self._is_closing:
            try:
                self._serve()
            except Exception:
                with contextlib.suppress(Exception):
                    log.exception("connections")
                time.sleep(0.1)

    def _serve(self):
        """Sleeps until something has come in, or there is news for somebody; each has one turn. Who
        gives news while it does not sleep need not wake it: it looks once more before."""
        if self._is_timed and time.monotonic() >= self._next_patrol:
            self._patrol()
        self._is_asleep = True
        ready = self._selector.select(0 if self._woken else PATROL_S if self._is_timed else None)
        self._is_asleep = False
        for key, _ in ready:
            if key.data is None:
                self._waker.hear()
            else:
                self._guard(self._read, key.data)
        for caller in dict.fromkeys([self._woken.popleft() for _ in range(len(self._woken))]):
            if caller in self._callers:
                self._guard(self._go_on, caller)

    def _patrol(self):
        """Ends the connections that are waited for too long."""
        self._next_patrol = time.monotonic() + PATROL_S
        for caller in list(self._watched):
            limit = caller.find_overdue()
            if limit is not None:
                self._count(limit)
                self._drop(caller)

    def _guard(self, work, caller):
        """work(caller); what goes wrong costs this connection alone."""
        try:
            work(caller)
        except Exception:
            with contextlib.suppress(Exception):
                log.exception("connection")
            self._lose(caller)

    def _read(self, caller):
        """Takes what has come in. What begins as TLS is for a thread."""
        try:
            if caller.is_fresh:
                if caller.connection.recv(1, socket.MSG_PEEK) == TLS_BYTE:
                    self._give_away(caller)
                    return
                caller.settle()
            data = caller.connection.recv(INTAKE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:                 # it is gone; what it has asked for goes on
            data = b""
        if self._is_timed and not caller.lines.size:
            caller.note_time()
        caller.lines.feed(data)
        self._woken.append(caller)

    def _go_on(self, caller):
        """Begins what is here, answers what can be answered, and watches for more."""
        if caller in self._lost:
            self._settle(caller)
            return
        if caller.unsent:               # no thread waits for a client that does not read
            self._lose(caller)
            return
        lines = caller.lines
        if lines.size and not self._begin(caller) or not self._answer(caller):
            return                      # it is no more here, or lost
        is_last = caller.conversation.is_over
        is_free = len(caller.replies) < self._max_requests and not is_last
        if not is_free and not is_last:
            self._count("requests")
        if is_free and lines.has_next:
            self._watch(caller, False)  # nothing more is taken in before that
            self._woken.append(caller)  # after the others
        elif not caller.replies and (lines.is_over or is_last):
            self._drop(caller)
        else:
            self._watch(caller, is_free and not lines.is_over)

    def _begin(self, caller):
        """Begins what has come in, in its order -> whether the connection is still here."""
        conversation, lines, replies = caller.conversation, caller.lines, caller.replies
        for _ in range(min(TURN, self._max_requests - len(replies))):
            if conversation.is_over or not lines.size:
                break
            try:
                line = lines.take(caller.find_limit)
            except (TooLong, BadRequest):       # the thread meets it, too
                return self._give_away(caller)
            if line is None:
                return lines.size <= INTAKE or self._give_away(caller)
            if caller.takes_page(line):
                return self._give_away(caller)
            reply = conversation.begin(line)
            if self._is_timed:
                caller.note_time()
            if reply is not None:
                replies.append(reply)
                if conversation.is_over or not reply.is_quick:
                    return self._give_away(caller)
                reply.start()
        return True

    def _answer(self, caller):
        """Sends the replies up to the first that waits for its commit; the last that does has it
        called again. Whether the connection is still here, and not lost."""
        lines = []
        while caller.replies and caller.replies[0].is_ready:
            lines += caller.replies.pop(0).chunks()
        if lines and not self._send(caller, encode(lines)):
            return False
        for reply in reversed(caller.replies):
            if not reply.is_ready:
                reply.call_when_ready(functools.partial(self._wake, caller))
                return True
        if caller.replies:              # they are ready by now
            self._woken.append(caller)
        return True

    def _send(self, caller, data):
        """Sends what the client takes now; the rest is for a thread. Whether that was all."""
        try:
            sent = caller.connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._lose(caller)
        if sent < len(data):
            caller.keep(data[sent:])    # the client does not read
            return self._give_away(caller)
        return True

    def _watch(self, caller, is_watched):
        """Whether more is read of it: not while much of it is under way."""
        if is_watched and caller not in self._watched:
            self._selector.register(caller.connection, selectors.EVENT_READ, caller)
            self._watched.add(caller)
        elif not is_watched and caller in self._watched:
            self._watched.discard(caller)
            self._selector.unregister(caller.connection)

    def _leave(self, caller):
        self._watch(caller, False)
        self._callers.discard(caller)
        self._lost.discard(caller)

    def _drop(self, caller):
        """Ends a connection, of which nothing is under way."""
        if caller in self._callers:
            self._leave(caller)
            self._end(caller.connection)

    def _give_away(self, caller):
        """A thread of its own goes on with a connection: False, it is no more here."""
        self._leave(caller)
        self._usher.take(caller)
        return False

    def _lose(self, caller):
        """The client is gone, or nothing can be done for it: False. What it has asked for takes its
        course all the same."""
        if caller in self._callers:
            self._watch(caller, False)
            self._lost.add(caller)
            self._settle(caller)
        return False

    def _settle(self, caller):
        """Ends a lost connection, once all that is under way has its place in the queue."""
        while caller.replies:
            if not caller.replies[0].is_ready:
                caller.replies[0].call_when_ready(functools.partial(self._wake, caller))
                return
            for _ in caller.replies.pop(0).chunks():
                pass                    # nobody reads it
        self._drop(caller)


class Usher:
    """Has a thread go on with a Caller, or gives it back: the host has none, and what may have to
    wait is refused."""

    def __init__(self, serve_alone, give_back):
        self._serve_alone, self._give_back = serve_alone, give_back
        self._waiting = queue.Queue()
        self._thread = Worker(self._run, name="usher")

    def start(self):
        """From now on. RuntimeError: the host has no thread for it."""
        self._thread.start()

    def take(self, caller):
        """Has a thread go on with it, soon."""
        self._waiting.put(caller)

    def close(self):
        """Ends the thread after all that was put in."""
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self):
        """Thread usher."""
        while True:
            caller = self._waiting.get()
            if caller is None:
                return
            try:
                self._serve_alone(caller)
            except Exception as error:          # RuntimeError, MemoryError
                if not isinstance(error, RuntimeError):
                    with contextlib.suppress(Exception):
                        log.exception("connection")
                caller.refuse(Busy(NO_THREAD))
                self._give_back(caller)


class Waker:
    """Wakes one that waits for a descriptor, which nobody else can have before the last ring."""

    def __init__(self):
        self.descriptor, self._button = os.pipe()
        os.set_blocking(self._button, False)
        self._lock, self._is_closed = threading.Lock(), False

    def ring(self):
        """From any thread; nothing after close()."""
        with self._lock:
            if not self._is_closed:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._button, b".")

    def hear(self):
        """After a ring."""
        os.read(self.descriptor, 4096)

    def close(self):
        """Gives the descriptors back."""
        with self._lock:
            self._is_closed = True
            os.close(self._button)
            os.close(self.descriptor)
