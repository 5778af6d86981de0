"""Where the file of a work repository lies, whether it is a copy there, and its hold.

A file notes the host and the place at which it was used last. One that is elsewhere now is a copy:
what it has of running and outstanding sessions may be another's by now.
"""
import os
from typing import NamedTuple, Optional

from ..base.errors import RepositoryError
from ..base.times import find_time
from .pending import atomic
from .records import Hold, hold_columns, read_hold

BY_AGENT, BY_RESTORE = "the agent", "--restore"     # who holds a copy


class Spot(NamedTuple):
    """A place at which a file may be used."""
    host: str
    boot: str       # of the host, and the pid namespace: with another one device numbers may change
    device: str
    inode: str


class Whereabouts(NamedTuple):
    """What a work repository's file tells of itself."""
    hold: Optional[Hold] = None     # nothing begins in it
    is_copy: bool = False           # nothing in it is cleaned either
    incarnation: str = ""           # part of the markers of its processes, since it was restored
    is_moved: bool = False          # its Spot is still to be noted


def find_spot(path, host, boot):
    """The Spot of a file. RepositoryError."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise RepositoryError("%s: %s" % (path, error.strerror)) from None
    return Spot(host, boot, str(status.st_dev), str(status.st_ino))


def tell_move(noted, spot):
    """Why a file that was used last at one Spot is a copy at another, or nothing.

    A device may have another number after a boot, or in another container: so the number alone
    says nothing then.
    """
    if noted.host != spot.host:
        return "it was used last on host %s, and this is host %s" % (noted.host, spot.host)
    if noted.inode != spot.inode:
        return "it is not the file that was used last (inode %s, not %s)" % (
            spot.inode, noted.inode)
    if noted.device != spot.device and noted.boot == spot.boot:
        return "it was used last on another file system (device %s, not %s)" % (
            noted.device, spot.device)
    return ""


def read_whereabouts(connection, spot, now):
    """The Whereabouts of a file at its Spot, or None where that does not matter; `now` is since
    when a copy is held."""
    row = connection.execute("select * from repository").fetchone()
    hold, noted = read_hold(row), Spot(*[row[name] for name in Spot._fields])
    if row["restored"] is not None:
        hold = Hold("restored from %s" % row["restored_from"], BY_RESTORE,
                    find_time(row["restored"]) or 0.0, None)
        return Whereabouts(hold, True, row["incarnation"])
    is_noted = noted.inode is not None
    reason = tell_move(noted, spot) if spot and is_noted else ""
    if reason:
        return Whereabouts(Hold("copy: " + reason, BY_AGENT, now, None), True, row["incarnation"])
    return Whereabouts(hold, False, row["incarnation"], spot is not None and noted != spot)


@atomic
def note_spot(connection, spot):
    """The file is used at this Spot from now on."""
    connection.execute("update repository set host=?, boot=?, device=?, inode=?", spot)


@atomic
def put_repository_hold(connection, hold):
    """Keeps a hold of the repository, or its end (None); a copy stays held."""
    connection.execute("update repository set hold_reason=?, hold_by=?, hold_since=?,"
                       " hold_until=?", hold_columns(hold))


@atomic
def release_repository(connection, spot):
    """Ends whatever holds the repository: if it was a copy, it is the one that goes on."""
    connection.execute(
        "update repository set hold_reason=null, hold_by=null, hold_since=null, hold_until=null,"
        " restored=null, restored_from=null, host=?, boot=?, device=?, inode=?", spot)


def find_id(connection):
    """The id that the file carries, or None: it is new."""
    return connection.execute("select id from repository").fetchone()[0]


def claim_id(connection, number):
    """The id that the file carries; a new file takes this one."""
    connection.execute("update repository set id=? where id is null", (number,))
    return find_id(connection)
