"""One connection in a thread of its own, by plain lines or TLS, to its end."""
import contextlib
import itertools
import socket
import socketserver
import time

from ..base.vocabulary import LINGER, LINGER_S, MAX_IMPORT_LINE
from ..base.errors import AuthError, BadRequest, TooLong
from ..protocol.lines import FLUSH
from .incoming import WIRE_PIECE, Outwaited, encode, send_whole
from .tls import TLS_BYTE

NEEDS_TLS = ("lines that are not sealed are served on loopback and the UNIX socket alone: connect "
             "by TLS")


class Handler(socketserver.BaseRequestHandler):
    """One connection, in its thread."""

    def handle(self):
        caller = self.server.find_caller(self.request)
        try:
            if caller.is_fresh and not self._greet(caller):
                return
            if caller.page_line is None:
                self._converse(caller)
            if caller.page_line is not None:
                self._answer_page(caller)
        except Outwaited as error:
            self.server.count(error.limit)
        except OSError:                             # the client went away
            pass

    def _greet(self, caller):
        """Looks at the first byte: TLS, or plain lines -> whether to go on. Outwaited, OSError."""
        self.request.settimeout(caller.patience.idle_s)
        try:
            first = self.request.recv(1, socket.MSG_PEEK)
        except socket.timeout:
            raise Outwaited("idle") from None
        if first == TLS_BYTE and self.server.certificates is not None:
            sealed = self.server.certificates.seal(self.request, caller.stranger_s)
            peer = caller.peer._replace(is_private=True, certificate=sealed.certificate)
            caller.recognise(sealed, peer, self.server.make_conversation(
                self.request, peer, sealed.has_hung_up))
            return True
        caller.settle()
        if caller.peer.is_private:
            return True
        line = b""
        with contextlib.suppress(TooLong, BadRequest):
            line = caller.lines.read(caller.find_limit) or b""
        if caller.takes_page(line):
            self._answer_page(caller)
            return False
        self._send(caller, [caller.conversation.refuse(AuthError(NEEDS_TLS), line)])
        self._linger(caller, LINGER)
        return False

    def _converse(self, caller):
        """Answers request after request until one side ends it. Replies that wait for a commit are
        gathered as long as further requests are there already, so they share it."""
        conversation, lines, replies, rest = caller.conversation, caller.lines, [], LINGER
        fresh = caller.replies          # which the front has not sent, or not even begun
        if caller.unsent:
            send_whole(caller.channel, caller.unsent, caller.patience.send_s)
        while fresh or not conversation.is_over:
            if replies and not (fresh or lines.has_next and not self._is_full(replies)):
                self._send(caller, replies)     # the client waits for them
                replies = []
            try:
                if fresh:
                    reply = fresh.pop(0)
                else:
                    line = lines.read(caller.find_limit)
                    if line is None:
                        break
                    if caller.takes_page(line):
                        return
                    reply = conversation.begin(line)
            except (TooLong, BadRequest) as error:
                # most of a long line
                reply, rest = conversation.refuse(error), MAX_IMPORT_LINE
                if isinstance(error, TooLong):
                    self.server.count("line_bytes")
            if reply is not None:
                reply.start()
                replies.append(reply)
                if not reply.is_under_way:
                    self._send(caller, replies)
                    replies = []
        self._send(caller, replies)
        self._linger(caller, rest)

    def _answer_page(self, caller):
        """Answers the one request by HTTP that a connection is for, once its headers are here."""
        data = self.server.pages.answer(caller)
        send_whole(caller.channel, data, caller.patience.send_s)
        self._linger(caller, LINGER)

    def _is_full(self, replies):
        """Whether as many requests are under way as may be."""
        is_full = len(replies) >= self.server.limits.max_requests
        if is_full:
            self.server.count("requests")
        return is_full

    @staticmethod
    def _send(caller, replies):
        """Sends replies in their order. All that are under way are waited for first, so that a
        client that has gone costs no session its place in the queue."""
        waited = [list(reply.chunks()) for reply in replies if reply.is_under_way]
        last = [reply.chunks() for reply in replies if not reply.is_under_way]
        parts, size = [], 0
        for chunk in itertools.chain.from_iterable(waited + last):
            if chunk is not FLUSH:
                parts.append(chunk)
                size += len(chunk)
            if chunk is FLUSH or size > WIRE_PIECE:
                send_whole(caller.channel, encode(parts), caller.patience.send_s)
                parts, size = [], 0
        send_whole(caller.channel, encode(parts), caller.patience.send_s)

    def _linger(self, caller, most):
        """What the client has still sent is read and thrown away, so that the close does not cut
        the reply: `most` bytes for LINGER_S at most."""
        until, size = time.monotonic() + LINGER_S, 0
        with contextlib.suppress(OSError):
            caller.channel.shutdown(socket.SHUT_WR)
            while size < most and time.monotonic() < until:
                self.request.settimeout(max(0.01, until - time.monotonic()))
                data = self.request.recv(WIRE_PIECE)
                if not data:
                    return
                size += len(data)
