"""Repository files as a whole: made, migrated after a copy, told of when others may write there."""
import contextlib
import itertools
import os
import sqlite3
import urllib.parse

from ..base.errors import RepositoryError
from ..base.files import (BESIDE_DATABASE, is_own, list_beginning, list_doors, make_private,
                          name_beside, naming, own_users, remove_own)
from ..base.program import log

NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs",
                        "lustre", "gpfs", "beegfs", "ncpfs", "fuse.sshfs", "fuse.glusterfs",
                        "fuse.s3fs", "fuse.rclone", "virtiofs", "webdav", "afpfs", "fuse.ceph")


def migrate(connection, path, kind, label, migrations, is_kept=True):
    """Brings a file's schema to this agent's version in one transaction, after a copy, unless what
    it was is not to be kept. RepositoryError."""
    newest = len(migrations)
    version = connection.execute("pragma user_version").fetchone()[0]
    tables = connection.execute("select count(*) from sqlite_master").fetchone()[0]
    if version > newest:
        raise RepositoryError("%s: the file has schema version %d, this agent knows up to %d: "
                              "use a newer agent.py" % (label, version, newest))
    if version == 0 and tables:
        raise RepositoryError("%s: a SQLite file, but no repository" % label)
    connection.execute("pragma journal_mode=wal")       # a file refused stays as it is
    if version:
        row = connection.execute("select kind from repository").fetchone()
        if row is None or row[0] != kind:
            raise RepositoryError("%s: is no %s repository" % (label, kind))
    if is_kept and 0 < version < newest:
        _copy_beside(connection, path, version)
    if version < newest:
        connection.execute("begin immediate")
        if connection.execute("pragma user_version").fetchone()[0] == version:
            for script in migrations[version:]:
                for statement in filter(str.strip, script.split(";\n")):
                    connection.execute(statement)
            if version == 0:
                connection.execute("insert into repository(kind, uuid) values (?, ?)",
                                   (kind, make_uuid()))
            connection.execute("pragma user_version=%d" % newest)
        connection.execute("commit")


def make_uuid():
    """A random UUID, version 4 of RFC 9562; the module uuid would stay in memory for this alone."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) % 4]
    return "-".join((digits[:8], digits[8:12], "4" + digits[13:16], variant + digits[17:20],
                     digits[20:]))


def _copy_beside(connection, path, version):
    """The file as it is, before a migration: FILE.vN, or FILE.vN.2 after one that went back
    once."""
    first = "%s.v%d" % (path, version)
    names = itertools.chain([first], ("%s.%d" % (first, number) for number in itertools.count(2)))
    target = next(name for name in names if not os.path.lexists(name))
    remove_own(target + ".part", own_users(path))       # of an older agent that a crash cut short
    with whole_database(target, "part") as part, \
            contextlib.closing(connect_file(part)) as duplicate:
        if hasattr(connection, "backup"):
            connection.backup(duplicate)
        else:                           # Python 3.6
            connection.execute("begin")
            duplicate.executescript("\n".join(connection.iterdump()))
            connection.execute("rollback")
            duplicate.execute("pragma user_version=%d" % version)


def connect_file(path, timeout_s=30):
    """A connection to a SQLite file that is there; it makes none."""
    uri = "file:%s?mode=rw" % urllib.parse.quote(os.fsencode(os.path.abspath(path)))
    connection = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None,
                                 check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def remove_database(path):
    """Deletes a SQLite file and what is kept beside it."""
    for suffix in ("",) + BESIDE_DATABASE:
        with contextlib.suppress(OSError):
            os.unlink(path + suffix)


@contextlib.contextmanager
def whole_database(path, ending):
    """The name of a new empty file, mode 0600, that gets the name `path` when it is whole."""
    new = name_beside(path, ending)
    with naming(path):
        make_private(new)
    try:
        yield new
        with naming(path):
            os.rename(new, path)
    except BaseException:
        remove_database(new)
        raise


def list_numbered(prefix, owners):
    """[(path, session)] of the files PREFIX SESSION.ANYTHING that belong to one of these users."""
    files = [(path, path[len(prefix):].partition(".")[0])
             for path in list_beginning(prefix)]
    return [(path, int(session)) for path, session in files
            if session.isdigit() and is_own(path, owners)]


def tell_doors(label, path):
    """Warns, in one line, of a repository that others may replace or put files beside."""
    doors = list_doors(path)
    if doors:
        log.warning("%s: other users can replace %s or put files beside it: %s",
                    label, path, "; ".join(doors))


def network_file_system(path):
    """The type of the network file system that holds `path`, or None (Linux: mountinfo)."""
    folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    best, kind = "", None
    with contextlib.suppress(OSError):
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields, _, tail = line.partition(" - ")
                point = fields.split()[4].encode().decode("unicode_escape")
                if (folder + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
                    best, kind = point, tail.split()[0]
    return kind if kind in NETWORK_FILE_SYSTEMS else None
