"""The port: connections, bounded lines, and replies as fast as they are taken.

Thread server: accepts connections; ends at Server.close().
Thread client N: serves one connection; ends with it, or at Server.close().
"""
import contextlib
import functools
import itertools
import os
import socket
import socketserver
import threading
import time

from ..base.vocabulary import ADMINISTRATOR, LINGER, LINGER_S, MAX_BATCH, MAX_IMPORT_LINE
from ..base.errors import BadRequest, CannotStart, TooLong
from ..base.clients import Client, Peer
from ..base.program import log
from ..protocol.lines import FLUSH
from ..protocol.conversation import Conversation
from ..base.workers import Worker
from .front import NO_THREAD, Front
from .incoming import Caller, encode
from .peer import find_peer_uid, has_hung_up, is_loopback, name_user
from .port import SHARING, claim_port

END_LOOK_S = 2.0            # between two looks whether it is to end, where closing does not wake it
NO_FILES = "the host lets the agent open no more files for connections (ulimit -n)"


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


def notify_systemd(address):
    """Tells systemd that the agent is ready, where it asks for that by the address of a socket
    (sd_notify(3))."""
    if address:
        with contextlib.suppress(OSError), \
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.sendall(b"READY=1")


class Handler(socketserver.BaseRequestHandler):
    """One connection, in its thread."""

    def handle(self):
        with contextlib.suppress(OSError):          # the client went away
            self._converse(self.server.find_caller(self.request))

    def _converse(self, caller):
        """Answers request after request until one side ends it. Replies that wait for a commit are
        gathered as long as further requests are there already, so they share it."""
        self.request.settimeout(None)   # the front waits for nothing, its thread does
        conversation, lines, replies, rest = caller.conversation, caller.lines, [], LINGER
        fresh = caller.replies          # which the front has not sent, or not even begun
        if caller.unsent:
            self.request.sendall(caller.unsent)
        while fresh or not conversation.is_over:
            if replies and not (fresh or lines.has_next and len(replies) < MAX_BATCH):
                self._send(replies)     # the client waits for them
                replies = []
            try:
                if fresh:
                    reply = fresh.pop(0)
                else:
                    line = lines.read(caller.find_limit)
                    if line is None:
                        break
                    reply = conversation.begin(line)
            except (TooLong, BadRequest) as error:
                # most of a long line
                reply, rest = conversation.refuse(error), MAX_IMPORT_LINE
            if reply is not None:
                reply.start()
                replies.append(reply)
                if not reply.is_under_way:
                    self._send(replies)
                    replies = []
        self._send(replies)
        self._linger(rest)

    def _send(self, replies):
        """Sends replies in their order. All that are under way are waited for first, so that a
        client that has gone costs no session its place in the queue."""
        waited = [list(reply.chunks()) for reply in replies if reply.is_under_way]
        last = [reply.chunks() for reply in replies if not reply.is_under_way]
        parts, size = [], 0
        for chunk in itertools.chain.from_iterable(waited + last):
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


class Server(socketserver.ThreadingTCPServer):
    """Listens on the agent's port. It is bound early, so that a taken port is told before anything
    is touched, and listens last. The connections are served by the Front, or a thread each.

    Who is at the other end is asked when a connection is accepted. Those whom the agent does not
    know have a tenth of `max_connections` for themselves, and count against nobody else's. Nobody
    gets a descriptor of the last ones that `file_limit` allows: the agent needs them itself.
    """
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, agent, host, port, max_connections, max_line, file_limit=None):
        self._agent, self.max_line, self._file_limit = agent, max_line, file_limit
        max_files = file_limit and file_limit.kept_from     # maybe None, too
        self._max_owners = max_connections
        self._max_strangers = max(1, min(max_connections, max_files or max_connections) // 10)
        self._connections = {}              # connection -> its Caller
        self._strangers = set()             # those of nobody that the agent knows
        self._lock = threading.Lock()       # guards these two
        # whom it serves: uid -> name, asked once, as a directory of users may be slow
        self._owners = {uid: name_user(uid) for uid in (0, os.getuid())}
        self._thread = self._claim = None
        self._front = Front(self._serve_alone, self.shutdown_request)
        self._spare = os.open(os.devnull, os.O_RDONLY)      # for an answer when none is free
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler, bind_and_activate=False)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, SHARING, 1)
            self.server_bind()
            self._claim = claim_port(host, self.port)
        except OSError as error:
            self.server_close()
            self._front.close()
            raise CannotStart("port %d of %s cannot be taken: %s"
                              % (port, host, error.strerror)) from None

    @property
    def port(self):
        """The number of its port, also where that was left to the system."""
        return self.server_address[1]

    @property
    def connection_count(self):
        """How many connections are open."""
        return len(self._connections)

    def listen(self):
        """Serves from now on, in a thread of its own."""
        self._front.start()
        self.server_activate()
        self._agent.connections = lambda: self.connection_count
        self._thread = threading.Thread(target=self.serve_forever, args=(END_LOOK_S,),
                                        name="server", daemon=True)
        self._thread.start()

    # -- who comes in ------------------------------------------------------------------

    def get_request(self):
        try:
            return super().get_request()
        except OSError:                 # no file descriptor is free
            if not self._turn_away():
                time.sleep(0.05)        # do not spin
            raise

    def _turn_away(self):
        """Answers a connection that there is no descriptor for, by way of the spare one; whether
        that was possible."""
        is_answered = False
        with contextlib.suppress(OSError):      # another thread was faster, or nobody is there
            if self._spare is not None:
                os.close(self._spare)
                self._spare = None
                connection, _ = self.socket.accept()
                _say_busy(connection, NO_FILES)
                connection.close()
                is_answered = True
            self._spare = os.open(os.devnull, os.O_RDONLY)
        return is_answered

    def verify_request(self, request, client_address):
        uid = find_peer_uid(request)
        with self._lock:
            reason = self._find_limit(request, self._is_owner(uid))
            if reason is None:
                self._connections[request] = Caller(
                    request, self._make_conversation(request, uid, client_address[0]),
                    self.max_line)
                if not self._is_owner(uid):
                    self._strangers.add(request)
                return True
        _say_busy(request, reason)
        return False

    def _find_limit(self, request, is_owner):
        """The limit that keeps a connection out, in words, or None."""
        count, limit = len(self._strangers), self._max_strangers
        if is_owner:
            count, limit = len(self._connections) - count, self._max_owners
        if count >= limit:
            return "%d connections are open, the limit" % limit
        # a new descriptor has the lowest number that is free
        if self._file_limit is not None and not self._file_limit.use(request.fileno()):
            return NO_FILES
        return None

    def _is_owner(self, uid):
        return uid in self._owners

    def process_request(self, request, client_address):
        caller = self.find_caller(request)
        with contextlib.suppress(OSError):
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        if caller.conversation.is_administrator:
            request.setblocking(False)
            self._front.add(caller)
            return
        try:
            self._serve_alone(caller)
        except RuntimeError:
            _say_busy(request, NO_THREAD)
            self.shutdown_request(request)

    def _serve_alone(self, caller):
        """A thread of its own goes on with a connection. RuntimeError: the host has none."""
        Worker(self.process_request_thread, "client %d" % caller.connection.fileno(),
               caller.connection, None).start()

    def find_caller(self, connection):
        """The Caller of a connection."""
        return self._connections[connection]

    def shutdown_request(self, request):
        with self._lock:
            self._connections.pop(request, None)
            self._strangers.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        log.exception("connection")

    def _make_conversation(self, connection, uid, address):
        """The Conversation of a connection from an address, by the kernel's word on its other end.
        """
        name = self._owners.get(uid) or "uid %s" % ("unknown" if uid is None else uid)
        role = ADMINISTRATOR if self._is_owner(uid) else None
        return Conversation(self._agent, Client(role, name, peer=Peer(uid, name, address)),
                            functools.partial(has_hung_up, connection))

    def close(self, within_s=5.0):
        """Ends the connections once the requests under way have their reply."""
        if self._thread:
            with contextlib.suppress(OSError):      # wakes its thread, where the system does so
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
        self._front.close()

    def server_close(self):
        super().server_close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _say_busy(connection, reason):
    """Tells a connection that it is one too many."""
    with contextlib.suppress(OSError):
        connection.settimeout(0.0)
        connection.sendall(("ERR BUSY %s\n" % reason).encode())
        connection.recv(65536)          # unread, what it has sent would cut the answer
