"""The port: connections, bounded lines, and replies as fast as they are taken.

Thread server: accepts connections; ends at Server.close().
Thread client N: serves one connection; ends with it, or at Server.close().
Thread rest N: sends what a client was too slow to take; ends with its connection.
"""
import collections
import contextlib
import functools
import itertools
import os
import socket
import socketserver
import sys
import threading
import time

from ..base.vocabulary import (ADMINISTRATOR, LINGER, LINGER_S, MAX_BATCH, MAX_IMPORT_LINE,
                               MIN_LINE, STRANGER_S)
from ..base.errors import BadRequest, CannotStart, TooLong
from ..base.program import log
from ..protocol.lines import FLUSH
from ..protocol.conversation import Conversation
from .peer import find_peer_uid, has_left, is_loopback


def check_host(host):
    """Until there are users and TLS only loopback is served: CannotStart for all else."""
    try:
        address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise CannotStart("--host %s: %s" % (host, error.strerror)) from None
    if not is_loopback(address):
        raise CannotStart("--host %s is no loopback address; this version serves loopback only"
                          % host)
    return address


def notify_systemd():
    """Tells systemd that the agent is ready, where it asks for that (sd_notify(3))."""
    address = os.environ.pop("NOTIFY_SOCKET", None)
    if address:
        with contextlib.suppress(OSError), \
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.sendall(b"READY=1")


def claim_port(host, port):
    """A socket that no second agent can have while this one has bound the port but does not listen
    yet (Linux lets both bind then); None elsewhere. OSError."""
    if not sys.platform.startswith("linux"):
        return None
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind("\0agent.py:%s:%d" % (host, port))
    except OSError:
        claim.close()
        raise
    return claim


class Handler(socketserver.StreamRequestHandler):
    """One connection, in its thread."""
    disable_nagle_algorithm = True

    def handle(self):
        with contextlib.suppress(OSError):          # the client went away
            self._converse(self.server.conversation(self.request))

    def _read_line(self, conversation):
        """The next line without its end, or None at the end of input; of one that is too long no
        more is read. TooLong, BadRequest."""
        line = self.rfile.readline(MIN_LINE)
        if not line:
            return None
        limit = self.server.max_line
        if not line.endswith(b"\n"):
            if line[:16].upper().split()[:1] == [b"IMPORT"] and conversation.is_administrator:
                limit = MAX_IMPORT_LINE
            line += self.rfile.readline(limit + 1 - len(line))
            if line.endswith(b"\r"):                # may be of the end
                line += self.rfile.readline(1)
        text = line[:-2] if line.endswith(b"\r\n") else line[:-1] if line.endswith(b"\n") else line
        if len(text) > limit:
            raise TooLong("a line has at most %d bytes" % limit)
        if text is line:
            raise BadRequest("the last line has no end (LF), so it may be cut short: it was not "
                             "carried out")
        return text

    def _converse(self, conversation):
        acknowledgements, rest = Acknowledgements(self.request), LINGER
        while not conversation.is_over:
            try:
                line = self._read_line(conversation)
                if line is None:
                    break
                reply = conversation.begin(line)
            except (TooLong, BadRequest) as error:
                reply, rest = conversation.refuse(error), MAX_IMPORT_LINE   # most of a long line
            if reply is not None and reply.pending:
                acknowledgements.add(reply)
            elif reply is not None:
                acknowledgements.drain()
                self._send(reply)
        acknowledgements.drain()
        self._linger(rest)

    def _send(self, reply):
        parts, size = [], 0
        for chunk in reply.chunks():
            if chunk is not FLUSH:
                parts.append(chunk)
                size += len(chunk)
            if chunk is FLUSH or size > 65536:
                self.request.sendall(encode(parts))
                parts, size = [], 0
        self.request.sendall(encode(parts))

    def _linger(self, most):
        """What the client has still sent is read and thrown away, so that the close does not cut
        the reply: `most` bytes for LINGER_S at most."""
        until, size = time.monotonic() + LINGER_S, 0
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)
            while size < most and time.monotonic() < until:
                self.request.settimeout(max(0.01, until - time.monotonic()))
                data = self.request.recv(65536)
                if not data:
                    return
                size += len(data)


def encode(lines):
    """Lines of text -> bytes with their ends."""
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace") if lines else b""


class Acknowledgements:
    """The replies of one connection that wait for their commit, sent in their order.

    The writer sends them after the commit without waiting (a client that does not read gets a
    thread of its own), so that the thread of the connection can read on meanwhile.
    """

    def __init__(self, connection):
        self._connection = connection
        self._waiting = collections.deque()
        self._changed = threading.Condition()
        self._is_sending = False

    def add(self, reply):
        """Sends a reply when it is complete and those before it are sent."""
        with self._changed:
            self._waiting.append(reply)
        reply.pending.listener = self.advance
        self.advance()
        if len(self._waiting) >= MAX_BATCH:
            self.drain()

    def drain(self):
        """Waits until all are sent."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._is_sending)

    def advance(self):
        """Sends what is complete, without waiting."""
        while True:
            with self._changed:
                if self._is_sending:
                    return
                done = list(itertools.takewhile(lambda reply: reply.pending.is_done,
                                                self._waiting))
                if not done:
                    self._changed.notify_all()
                    return
                for _ in done:
                    self._waiting.popleft()
                self._is_sending = True
            rest = self._send(encode([line for reply in done for line in reply.chunks()]))
            if rest:
                threading.Thread(target=self._send_rest, args=(rest,), daemon=True,
                                 name="rest %d" % self._connection.fileno()).start()
                return
            self._is_sending = False

    def _send(self, data):
        try:
            return data[self._connection.send(data, socket.MSG_DONTWAIT):]
        except BlockingIOError:
            return data
        except OSError:                 # the client went away
            return b""

    def _send_rest(self, data):
        with contextlib.suppress(OSError):
            self._connection.sendall(data)
        self._is_sending = False
        self.advance()


class Server(socketserver.ThreadingTCPServer):
    """Listens on the agent's port, a thread a connection. It is bound early, so that a taken port
    is told before anything is touched, and listens last."""
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, agent, host, port, max_connections, max_line):
        self._agent, self.max_line = agent, max_line
        self._max_connections = max_connections
        self._connections = set()
        self._strangers = set()             # those of nobody that the agent knows: a tenth
        self._lock = threading.Lock()
        self._thread = self._claim = None
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler, bind_and_activate=False)
        try:
            self.server_bind()
            self._claim = claim_port(host, self.port)
        except OSError as error:
            self.server_close()
            raise CannotStart("port %d of %s cannot be taken: %s"
                              % (port, host, error.strerror)) from None

    @property
    def port(self):
        """The port it has."""
        return self.server_address[1]

    def listen(self):
        """Serves from now on, in a thread of its own."""
        self.server_activate()
        self._agent.connections = lambda: len(self._connections)
        self._thread = threading.Thread(target=self.serve_forever, name="server", daemon=True)
        self._thread.start()

    def get_request(self):
        try:
            return super().get_request()
        except OSError:                 # no file descriptor is free: do not spin
            time.sleep(0.05)
            raise

    def verify_request(self, request, client_address):
        with self._lock:
            if len(self._connections) < self._max_connections:
                self._connections.add(request)
                return True
        self._say_busy(request, self._max_connections)
        return False

    def process_request_thread(self, request, client_address):
        threading.current_thread().name = "client %d" % request.fileno()
        super().process_request_thread(request, client_address)

    def shutdown_request(self, request):
        with self._lock:
            self._connections.discard(request)
            self._strangers.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        log.exception("connection")

    @staticmethod
    def _say_busy(connection, limit):
        with contextlib.suppress(OSError):
            connection.settimeout(0.0)
            connection.sendall(b"ERR BUSY %d connections are open, the limit\n" % limit)

    def conversation(self, connection):
        """The Conversation of a connection, by the kernel's word on its other end: asked before
        a byte of it is read, in its own thread, as /proc takes some 10 ms where netlink is not."""
        uid = find_peer_uid(connection)
        if uid is not None and uid in (0, os.getuid()):
            return Conversation(self._agent, ADMINISTRATOR, "uid %d" % uid,
                                functools.partial(has_left, connection))
        connection.settimeout(STRANGER_S)
        limit = max(1, self._max_connections // 10)
        with self._lock:
            self._strangers.add(connection)
            is_one_too_many = len(self._strangers) > limit
        conversation = Conversation(self._agent, None, "uid %s" % ("unknown" if uid is None
                                                                   else uid))
        if is_one_too_many:
            self._say_busy(connection, limit)
            conversation.is_over = True
        return conversation

    def close(self, within_s=5.0):
        """Ends the connections once the requests under way have their reply."""
        if self._thread:
            with contextlib.suppress(OSError):      # wakes its thread, which looks twice a second
                self.socket.shutdown(socket.SHUT_RDWR)
            self.shutdown()
            self._thread.join()
        self.server_close()
        if self._claim:
            self._claim.close()
        until = time.monotonic() + within_s
        for how in (socket.SHUT_RD, socket.SHUT_RDWR):
            with self._lock:
                connections = list(self._connections)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(how)
            while self._connections and time.monotonic() < until:
                time.sleep(0.005)
            until += within_s
