"""Who is at the other end of a loopback connection, as the kernel knows it."""
import errno
import os
import re
import select
import socket
import struct
import sys

# linux/netlink.h, linux/sock_diag.h
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1
# The device of a look-up, always 1 (net/flow.h): without it the kernel misses clients bound to it
# by SO_BINDTODEVICE.
LOOPBACK_IFINDEX = 1
# ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING (net/tcp_states.h). Not SYN_SENT:
# that is a newcomer with the port of a client that is gone.
CONNECTED_STATES = frozenset((1, 4, 5, 8, 9, 11))
# linux/highuid.h: how a user namespace shows every user that it does not map
OVERFLOW_UID = 65534
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
MAPPED_PREFIX = bytes(10) + b"\xff\xff"
# state (hex), uid, inode: net/ipv4/tcp_ipv4.c
PROC_ROW = r"^ *\d+: (?:%s) (\w\w) \S+ \S+ \S+ +(\d+) +\d+ (\d+) "


def shorten_address(packed):
    """The 4 bytes of an IPv4-mapped address; other packed addresses as they are."""
    return packed[12:] if len(packed) == 16 and packed.startswith(MAPPED_PREFIX) else packed


def find_packed_loopback(address):
    """The 4 or 16 bytes (network order) of a numeric loopback address, IPv4-mapped as IPv4;
    None for all else."""
    try:
        packed = shorten_address(socket.inet_pton(
            socket.AF_INET6 if ":" in address else socket.AF_INET, address))
    except (OSError, ValueError):
        return None
    return (packed if packed[0] == 127 and len(packed) == 4 or packed == bytes(15) + b"\x01"
            else None)


def is_loopback(address):
    """Is this numeric address in 127.0.0.0/8, ::1 or ::ffff:127.0.0.0/104? A name (localhost) is
    not."""
    return find_packed_loopback(address) is not None


def find_peer_uid(connection):
    """The uid of the OS user who owns the client's end of an accepted loopback TCP connection; None
    when in doubt: not loopback, the client has closed, the kernel cannot tell, not Linux. Never
    raises, keeps nothing open.

    The address that accept() gave proves nothing: the client may have reset, and its port be
    another user's by now, with the first one's bytes still to be read here. So a second, equal
    answer must still show our own end, by inode: until then nobody else could be connected to it.
    The inode also tells this network namespace from others.
    """
    try:
        return ask_peer_uid(connection)
    except (OSError, ValueError, struct.error):
        return None


def ask_peer_uid(connection):
    """`find_peer_uid`, which raises what keeps the kernel from being asked: OSError, ValueError,
    struct.error."""
    if (not sys.platform.startswith("linux")
            or connection.family not in (socket.AF_INET, socket.AF_INET6)):
        return None
    client, own = [(find_packed_loopback(name[0]), name[1])
                   for name in (connection.getpeername(), connection.getsockname())]
    if client[0] is None or own[0] is None:
        return None
    inode = os.fstat(connection.fileno()).st_ino
    for list_owners in (list_owners_by_netlink, list_owners_by_proc):
        owners = list_owners(client, own)
        # otherwise this source does not see our sockets
        if [owner[1] for owner in owners[1]] == [inode]:
            return choose_uid(owners[0]) if list_owners(client, own) == owners else None
    return None


def choose_uid(owners):
    """The uid of the one (uid, inode) in a list; None when there are more or fewer,
    or nobody holds that socket."""
    if len(owners) != 1 or owners[0][1] == 0:
        return None
    uid = owners[0][0]
    if uid == OVERFLOW_UID:         # a real one only where all users are mapped
        with open("/proc/self/uid_map") as uid_map:
            return uid if uid_map.read().split() == ["0", "0", "4294967295"] else None
    return uid


def list_owners_by_netlink(client, own):
    """Whom the kernel shows at the client's end and at ours, each (packed address, port):
    two lists of (uid, inode).

    Both empty where netlink is refused or lacks tcp_diag (the kernel says ENOENT then, as for an
    end not found). OSError when no descriptor is free. A socket for each call: no stale answers,
    no lock; it costs 10 us.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
            return ask_netlink(netlink, client, own), ask_netlink(netlink, own, client)
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) in NO_DESCRIPTOR:
            raise
        return [], []


def ask_netlink(netlink, local, remote):
    """Ask for the one TCP socket with these ends, by struct inet_diag_req_v2 (linux/inet_diag.h).
    Raises OSError."""
    family = socket.AF_INET if len(local[0]) == 4 else socket.AF_INET6
    request = (struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
               + struct.pack("!HH16s16s", local[1], remote[1], local[0], remote[0])
               # INET_DIAG_NOCOOKIE, twice
               + struct.pack("=IQ", LOOPBACK_IFINDEX, 0xFFFFFFFFFFFFFFFF))
    header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST,
                         local[1], 0)
    netlink.sendto(header + request, (0, 0))
    # the kernel has answered within sendto()
    reply, sender = netlink.recvfrom(8192, socket.MSG_DONTWAIT)
    return read_diag_reply(reply, local, remote) if sender[0] == 0 else []


def read_diag_reply(reply, local, remote):
    """[(uid, inode)] of a struct inet_diag_msg about exactly these ends, else []:
    the kernel may offer a listener."""
    length, kind, _, sequence, _ = struct.unpack_from("=IHHII", reply)
    if (kind, sequence) != (SOCK_DIAG_BY_FAMILY, local[1]) or not 88 <= length <= len(reply):
        return []
    family, state, *ports_and_addresses = struct.unpack_from("!BBxxHH16s16s", reply, 16)
    ports, addresses = ports_and_addresses[:2], ports_and_addresses[2:]
    addresses = [address[:4] if family == socket.AF_INET else shorten_address(address)
                 for address in addresses]
    uid, inode = struct.unpack_from("=II", reply, 80)
    return ([(uid, inode if state in CONNECTED_STATES else 0)]
            if list(zip(addresses, ports)) == [local, remote] else [])


def list_owners_by_proc(client, own):
    """The same from /proc/net/tcp and tcp6, in some 10 ms. Raises OSError when they cannot be read.

    One reading is no proof: the kernel may note the inode before,
    and the uid (0) after the client closed its socket.
    """
    text = ""
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(path):            # there is no tcp6 without IPv6
            with open(path, encoding="ascii") as table:
                text += table.read()
    return tuple(sorted({(int(uid), int(inode) if int(state, 16) in CONNECTED_STATES else 0)
                         for state, uid, inode in re.findall(PROC_ROW % ends, text, re.MULTILINE)})
                 for ends in (format_proc_ends(client, own), format_proc_ends(own, client)))


def format_proc_ends(local, remote):
    """A pattern of these ends in /proc/net/tcp or tcp6,
    where addresses are words in the host's byte order."""
    prefixes = (b"", MAPPED_PREFIX) if len(local[0]) == 4 else (b"",)
    return "|".join(
        " ".join("".join("%08X" % word for word, in struct.iter_unpack("=I", prefix + address))
                 + ":%04X" % port for address, port in (local, remote))
        for prefix in prefixes)


def plain_address(address):
    """A numeric address as people write it: an IPv4-mapped one as IPv4."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def has_hung_up(connection):
    """Whether a client has closed its end for good; half-closed, it still waits for its reply.

    Only Linux can tell, of this host's own clients: the kernel shows nobody at that end then.
    """
    before = connection.gettimeout()
    connection.settimeout(0.0)
    try:
        if connection.recv(1, socket.MSG_PEEK):
            return False
        if connection.family == socket.AF_UNIX:
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            return any(events & select.POLLHUP for _, events in poll.poll(0))
        if not sys.platform.startswith("linux") or not is_loopback(connection.getpeername()[0]):
            return False
        return ask_peer_uid(connection) is None
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno not in NO_DESCRIPTOR
    finally:
        connection.settimeout(before)
