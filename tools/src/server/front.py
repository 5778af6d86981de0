"""The connections that have asked for nothing yet but EXEC and PING, all in one thread.

A thread for each would be woken twice a request: when it comes, and after its commit. Here what
comes together is begun together, and answered together. Nothing here may wait, for anybody: what
could, goes on in a thread of its own, and its connection stays there.

Thread front: serves them; ends at Front.close().
"""
import collections
import functools
import os
import selectors
import socket

from ..base.vocabulary import MAX_BATCH
from ..base.errors import BadRequest, Busy, TooLong
from ..base.program import log
from ..base.workers import Worker
from .incoming import encode

NO_THREAD = "the host has no thread for a further connection"
TURN = 64               # lines of one connection until another has its turn
INTAKE = 65536           # bytes that are taken at once; a longer line is for a thread of its own


class Front:
    """Serves Callers whose requests wait for a commit alone, or for nothing."""

    def __init__(self, serve_alone, end):
        self._serve_alone, self._end = serve_alone, end     # of a Caller; of its connection
        self._selector = selectors.DefaultSelector()
        self._callers, self._watched = set(), set()     # all, and those of whom more is read
        self._woken = collections.deque()       # Callers that are new, or for whom there is news
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._is_asleep = self._is_closing = False
        self._thread = Worker(self._run, name="front")

    def start(self):
        """Serves from now on. RuntimeError: the host has no thread for it."""
        self._thread.start()

    def add(self, caller):
        """Takes a Caller in. From any thread."""
        self._callers.add(caller)
        self._wake(caller)

    def close(self):
        """Ends the thread, and the connections that are still here."""
        if self._is_closing:
            return
        self._is_closing = True
        self._wake(None)
        if self._thread.is_alive():
            self._thread.join()
        for caller in list(self._callers):
            self._leave(caller)
            self._end(caller.connection)
        self._selector.close()
        os.close(self._wake_out)
        os.close(self._wake_in)

    def _wake(self, caller):
        """There is news for a Caller. From any thread; waits for nothing."""
        self._woken.append(caller)
        if self._is_asleep:
            self._is_asleep = False
            os.write(self._wake_in, b".")       # of few at a time: the pipe is never full

    def _run(self):
        """Sleeps until something has come in, or there is news for somebody. Who gives news while
        it does not sleep need not wake it: it looks once more before."""
        while not self._is_closing:
            self._is_asleep = True
            ready = self._selector.select(0 if self._woken else None)
            self._is_asleep = False
            for key, _ in ready:
                if key.data is None:
                    os.read(self._wake_out, 4096)
                else:
                    self._guard(self._read, key.data)
            for _ in range(len(self._woken)):
                caller = self._woken.popleft()
                if caller in self._callers:
                    self._guard(self._go_on, caller)

    def _guard(self, work, caller):
        """work(caller); what goes wrong costs this connection alone."""
        try:
            work(caller)
        except Exception:
            log.exception("connection")
            self._drop(caller)

    def _read(self, caller):
        """Takes what has come in."""
        try:
            data = caller.connection.recv(INTAKE, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:                 # it is gone; what it has asked for goes on
            data = b""
        caller.lines.feed(data)
        self._go_on(caller)

    def _go_on(self, caller):
        """Begins what is here, answers what can be answered, and watches for more."""
        if not self._begin(caller) or not self._answer(caller):
            return                      # it is no more here
        lines, is_last = caller.lines, caller.conversation.is_over
        is_free = len(caller.replies) < MAX_BATCH and not is_last
        if is_free and lines.has_next:
            self._woken.append(caller)  # after the others
        elif not caller.replies and (lines.is_over or is_last):
            self._drop(caller)
        else:
            self._watch(caller, is_free and not lines.is_over)

    def _begin(self, caller):
        """Begins what has come in, in its order -> whether the connection is still here."""
        conversation, lines, replies = caller.conversation, caller.lines, caller.replies
        for _ in range(min(TURN, MAX_BATCH - len(replies))):
            if conversation.is_over:
                break
            try:
                line = lines.take(caller.find_limit)
            except (TooLong, BadRequest):       # the thread meets it, too
                return self._give_away(caller)
            if line is None:
                return lines.size <= INTAKE or self._give_away(caller)
            reply = conversation.begin(line)
            if reply is not None:
                replies.append(reply)
                if conversation.is_over or not reply.is_quick:
                    return self._give_away(caller)
                reply.start()
        return True

    def _answer(self, caller):
        """Sends the replies, if none of them waits for its commit; else the last of these wakes it.
        Whether the connection is still here."""
        for reply in reversed(caller.replies):
            if not reply.is_ready:
                reply.call_when_ready(functools.partial(self._wake, caller))
                return True
        data = encode(line for reply in caller.replies for line in reply.chunks())
        del caller.replies[:]
        try:
            sent = caller.connection.send(data, socket.MSG_DONTWAIT) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._drop(caller)
        if sent == len(data):
            return True
        caller.keep(data[sent:])        # the client does not read
        return self._give_away(caller)

    def _watch(self, caller, is_watched):
        """Whether more is read of it: not while many of its requests are under way."""
        if is_watched and caller not in self._watched:
            self._selector.register(caller.connection, selectors.EVENT_READ, caller)
            self._watched.add(caller)
        elif not is_watched and caller in self._watched:
            self._watched.discard(caller)
            self._selector.unregister(caller.connection)

    def _leave(self, caller):
        self._callers.discard(caller)
        self._watch(caller, False)

    def _drop(self, caller):
        """Ends a connection: False, it is no more here."""
        if caller in self._callers:
            self._leave(caller)
            self._end(caller.connection)
        return False

    def _give_away(self, caller):
        """A thread of its own goes on with a connection -> whether it is still here: the host has
        no thread, and what may have to wait is refused."""
        self._leave(caller)
        try:
            self._serve_alone(caller)
        except RuntimeError:
            if caller.unsent:
                self._end(caller.connection)
                return False
            caller.refuse(Busy(NO_THREAD))
            self._callers.add(caller)
            return True
        return False
