"""The UNIX socket that the agent listens on, too, and who is at its other end.

Thread unix: accepts its connections; ends at UnixDoor.close().
"""
import contextlib
import errno
import os
import re
import select
import socket
import stat
import struct
import sys

from ..base.errors import CannotStart
from ..base.clients import Peer, name_user
from ..base.program import log
from ..base.workers import Worker
from .peer import choose_uid
from .port import claim_name

UNIX = "unix"               # the address of who comes by it
PEER = struct.Struct("3i")          # struct ucred: pid, uid, gid (unix(7))
MAC_PEER = struct.Struct("2Ih")     # struct xucred begins so: version, uid, groups (sys/ucred.h)
MAC_PEER_SIZE = 76


def find_unix_uid(connection):
    """The uid of who is at the other end of a UNIX socket, as it was when he connected; None where
    this host does not tell. Never raises."""
    try:
        if sys.platform == "darwin":
            # SOL_LOCAL, LOCAL_PEERCRED (sys/un.h)
            credentials = connection.getsockopt(0, 1, MAC_PEER_SIZE)
            return MAC_PEER.unpack_from(credentials)[1]
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
        return choose_uid([(PEER.unpack(credentials)[1], 1)])
    except (OSError, AttributeError, struct.error):
        return None


def find_unix_peer(connection):
    """The Peer at the other end of a UNIX socket."""
    uid = find_unix_uid(connection)
    return Peer(uid, "uid unknown" if uid is None else name_user(uid), UNIX)


def read_mode(text):
    """The mode that an octal number says, or None."""
    return int(text, 8) if re.fullmatch("0?[0-7]{3}", text) else None


class UnixDoor:
    """A UNIX socket. Its file is made early, so that what is wrong is told before anything is
    touched; it listens last, and the file goes with it. CannotStart."""

    def __init__(self, path, mode=0o600):
        self.path, self._is_closing = path, False
        self._socket, self._claim = socket.socket(socket.AF_UNIX), None
        self._thread = self._take_in = self._place = None
        try:
            self._take(mode)
        except OSError as error:
            self.close()
            raise CannotStart("--unix %s: %s" % (path, error.strerror or error)) from None
        except CannotStart:
            self.close()
            raise

    def _take(self, mode):
        """Makes its file, in place of that of an agent that is gone. OSError, CannotStart."""
        folder, name = os.path.split(os.path.abspath(self.path))
        status = os.stat(folder)
        self._claim = claim_name("\0agent.py:unix:%d:%d:%s" % (status.st_dev, status.st_ino,
                                                               name[-50:]))
        remove_stale(self.path)
        before = os.umask(0o777 & ~mode)        # so it never has another mode
        try:
            self._socket.bind(self.path)
        finally:
            os.umask(before)
        status = os.lstat(self.path)
        self._place = status.st_dev, status.st_ino

    def listen(self, take_in):
        """Hands the connections to take_in(connection, Peer), in a thread of its own."""
        self._take_in = take_in
        self._socket.listen(128)
        self._socket.setblocking(False)
        self._thread = Worker(self._run, name="unix")
        self._thread.start()

    def _run(self):
        """Thread unix."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not self._is_closing:
            poll.poll(1000)                     # where closing does not wake it
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                if not self._is_closing:
                    log.debug("the UNIX socket: %s", error)
                    poll.poll(50)               # no file is free, or it is closed
                continue
            connection.setblocking(True)
            self._take_in(connection, find_unix_peer(connection))

    def close(self):
        """Nobody is let in any more; the file goes, unless it is another by now."""
        self._is_closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._socket.close()
        if self._place is not None:
            with contextlib.suppress(OSError):
                status = os.lstat(self.path)
                if (status.st_dev, status.st_ino) == self._place:
                    os.unlink(self.path)
        if self._claim is not None:
            self._claim.close()


def remove_stale(path):
    """Makes room for a UNIX socket: removes one that is ours and on which nobody listens.
    CannotStart: there is something else; OSError."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise CannotStart("--unix %s: there is a file already, which is no socket" % path)
    if status.st_uid != os.geteuid():
        raise CannotStart("--unix %s: there is a socket of another user (uid %d)"
                          % (path, status.st_uid))
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        if caller.connect_ex(path) != errno.ECONNREFUSED:
            raise CannotStart("--unix %s: another program listens there" % path)
    os.unlink(path)
