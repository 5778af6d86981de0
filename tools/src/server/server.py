"""The port: who comes in, and by what he is served.

Thread server: accepts connections; ends at Server.close().
Thread client N: serves one connection; ends with it, or at Server.close().
"""
import contextlib
import os
import socket
import socketserver
import threading
import time

from ..base.errors import CannotStart
from ..base.clients import Peer, name_user
from ..base.controls import show_controls
from ..base.program import log
from ..base.workers import Worker
from .front import NO_THREAD, Front
from .handler import Handler
from .limits import NO_FILES, OpenConnections, is_of_owner
from .pages import PageDoor
from .peer import find_peer_uid, is_loopback, plain_address
from .port import SHARING, claim_port
from .unix import UnixDoor

END_LOOK_S = 2.0            # between two looks whether it is to end, where closing does not wake it
KEEP_ALIVE_S = 60           # of silence, after which another host is asked whether it is there


def find_address(host):
    """The numeric address of --host. CannotStart."""
    try:
        # as bytes: for a text Python would load the tables of IDNA
        name = host.encode("ascii" if max(host, default="") < "\x80" else "idna")
        return socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise CannotStart("--host %s: %s" % (host, error.strerror)) from None
    except UnicodeError:
        raise CannotStart("--host %s is no name of a host" % host) from None


def check_reach(settings, address):
    """Whether other hosts can reach this address, so that there has to be a user. CannotStart:
    they could, and what has to be there for that is not."""
    if is_loopback(address):
        return False
    if settings.tls_cert is None and not settings.is_insecure:
        raise CannotStart("--host %s is no loopback address: give --tls-cert (and --tls-key), as "
                          "passwords would be sent in the clear; --insecure serves it without"
                          % settings.host)
    return not settings.is_insecure



class Server(socketserver.ThreadingTCPServer):
    """Listens on the agent's port. It is bound early, so that a taken port is told before anything
    is touched, and listens last. The connections are served by the Front, or a thread each.

    Who is at the other end is asked when a connection is accepted. `certificates` is None where
    there is no TLS.
    """
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, agent, host, port, limits, file_limit=None, certificates=None):
        self._agent, self.limits, self.certificates = agent, limits, certificates
        self._connections = OpenConnections(agent, limits, certificates is not None, file_limit)
        # its owners: uid -> name, asked once, as a directory of users may be slow
        self._owners = {uid: name_user(uid) for uid in (0, os.getuid())}
        self.pages = PageDoor(agent)
        self._thread = self._claim = self._door = None      # the door: a UnixDoor
        self._front = Front(self._serve_alone, self.shutdown_request, limits, self.count)
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
    def host(self):
        """The address that it listens on."""
        return self.server_address[0]

    @property
    def port(self):
        """The number of its port, also where that was left to the system."""
        return self.server_address[1]

    @property
    def connection_count(self):
        """How many connections are open."""
        return len(self._connections)

    def open_door(self, path, mode):
        """Has it listen on a UNIX socket, too. CannotStart: it is closed then."""
        try:
            self._door = UnixDoor(path, mode)
        except CannotStart:
            self.close(0.0)
            raise

    def tell_doors(self):
        """What it serves beside its port, as fields for the line that tells of its begin."""
        return ((" tls=yes" if self.certificates else "")
                + (" unix=%s" % show_controls(self._door.path) if self._door else ""))

    def reread(self):
        """Has the certificates read again, soon. For a signal's handler."""
        if self.certificates is not None:
            self.certificates.reread()

    def listen(self):
        """Serves from now on, in a thread of its own."""
        if self.certificates is not None:
            self.certificates.start()
        self._front.start()
        self.server_activate()
        self._agent.connections = lambda: self.connection_count
        self._thread = threading.Thread(target=self.serve_forever, args=(END_LOOK_S,),
                                        name="server", daemon=True)
        self._thread.start()
        if self._door is not None:
            self._door.listen(self.take_in)

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
                self.count("files")
                _say_busy(connection, NO_FILES)
                connection.close()
                is_answered = True
            self._spare = os.open(os.devnull, os.O_RDONLY)
        return is_answered

    def verify_request(self, request, client_address):
        address = plain_address(client_address[0])
        is_near, uid, name = is_loopback(address), None, ""
        if is_near:
            uid = find_peer_uid(request)
            name = self._owners.get(uid) or "uid %s" % ("unknown" if uid is None else uid)
        else:
            _keep_alive(request)
        # without TLS only --insecure listens there
        return self._admit(request, Peer(uid, name, address,
                                         is_near or self.certificates is None))

    def _admit(self, connection, peer):
        """Takes a connection in -> whether that was done; one too many is told so."""
        reason = self._connections.admit(connection, peer)
        if reason is not None:
            _say_busy(connection, reason)
        return reason is None

    def take_in(self, connection, peer):
        """Serves a connection that came by another door. What goes wrong costs that one alone, as
        with those of the port."""
        try:
            if self._admit(connection, peer):
                self.process_request(connection, None)
                return
        except Exception:               # no memory, maybe
            self.handle_error(connection, None)
        self.shutdown_request(connection)

    def process_request(self, request, client_address):
        caller = self.find_caller(request)
        with contextlib.suppress(OSError):      # a UNIX socket has no such option
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        if is_of_owner(caller.conversation.client):
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
        try:
            Worker(self.process_request_thread, "client %d" % caller.connection.fileno(),
                   caller.connection, None).start()
        except RuntimeError:
            self.count("threads")
            raise

    def find_caller(self, connection):
        """The Caller of a connection."""
        return self._connections.find(connection)

    def make_conversation(self, connection, peer, has_left):
        """The Conversation with a Peer of whom more is known by now."""
        return self._connections.make_conversation(connection, peer, has_left)

    def count(self, limit):
        """A limit was reached once more."""
        self._connections.count(limit)

    def shutdown_request(self, request):
        self._connections.forget(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        log.exception("connection")

    def close(self, within_s=5.0):
        """Ends the connections once the requests under way have their reply."""
        if self._thread:
            with contextlib.suppress(OSError):      # wakes its thread, where the system does so
                self.socket.shutdown(socket.SHUT_RDWR)
            self.shutdown()
            self._thread.join()
        if self._door is not None:
            self._door.close()
        if self.certificates is not None:
            self.certificates.close()
        self.server_close()
        if self._claim:
            self._claim.close()
        until = time.monotonic() + within_s
        for how in (socket.SHUT_RD, socket.SHUT_RDWR):
            for connection in self._connections.list_all():
                with contextlib.suppress(OSError):
                    connection.shutdown(how)
            while len(self._connections) and time.monotonic() < until:
                time.sleep(0.005)
            until += within_s
        self._front.close()

    def server_close(self):
        super().server_close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _keep_alive(connection):
    """Has the kernel notice when another host is gone."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_S)


def _say_busy(connection, reason):
    """Tells a connection that it is one too many."""
    with contextlib.suppress(OSError):
        connection.settimeout(0.0)
        connection.sendall(("ERR BUSY %s\n" % reason).encode())
        connection.recv(65536)          # unread, what it has sent would cut the answer
