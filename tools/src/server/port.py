"""Whose the port is, from before the agent begins anything until it listens."""
import errno
import os
import re
import socket
import struct
import sys

from ..base.program import log

IS_LINUX = sys.platform.startswith("linux")
# What lets a port be taken although ends of old connections to it are kept for a minute. With
# SO_REUSEADDR Linux lets any user bind it a second time until one listens; with SO_REUSEPORT only
# the same user, and old ends that had it too are no hindrance (net/ipv4/inet_connection_sock.c,
# inet_bind_conflict). Elsewhere SO_REUSEADDR allows no second one.
SHARING = socket.SO_REUSEPORT if IS_LINUX else socket.SO_REUSEADDR
ALL_ADDRESSES = ("0.0.0.0", "::")
_CREDENTIALS = struct.Struct("3i")          # struct ucred: pid, uid, gid (unix(7))


def claim_name(name):
    """A socket that no second program of this user, or root, can have while this one has the
    abstract name; None elsewhere, and where a stranger has it. OSError: there is another."""
    if not IS_LINUX:
        return None
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(name)
        claim.listen(128)               # so that others can ask whose it is
        return claim
    except OSError as error:
        claim.close()
        if error.errno != errno.EADDRINUSE or find_name_owner(name) in (os.getuid(), 0):
            raise
    log.warning("another user has taken the name by which agents of one user know each other")
    return None


def claim_port(host, port):
    """claim_name for a port, which one user could share. OSError: there is another agent."""
    claim = claim_name("\0agent.py:%s:%d" % (host, port))
    if claim is not None and has_overlap(host, port):
        claim.close()
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    if claim is None and IS_LINUX:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            if probe.connect_ex((host, port)) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    return claim


def has_overlap(host, port):
    """Whether another agent of this user has the port by an address that is one of these, or has
    all: the kernel lets one user share it."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
            others = re.findall(r" @agent\.py:(\S+):%d$" % port, table.read(), re.M)
    except OSError:
        return False
    return any(find_name_owner("\0agent.py:%s:%d" % (other, port)) in (os.getuid(), 0)
               for other in set(others) - {host}
               if other in ALL_ADDRESSES or host in ALL_ADDRESSES)


def find_name_owner(name):
    """The uid of the process that listens on an abstract UNIX socket; None when nobody does, or he
    lets nobody ask."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(name)
            credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED,
                                            _CREDENTIALS.size)
        except OSError:
            return None
    return _CREDENTIALS.unpack(credentials)[1]
