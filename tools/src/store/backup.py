"""A backup: whole copies of the repositories in a folder, with a manifest that tells what they are.

Each copy is its database at one instant, also while others write: it is made from within one
reading transaction. Until that is over, what was written since stays in the -wal.
"""
import contextlib
import errno
import json
import os
import sqlite3
import subprocess
import time
import urllib.parse
from typing import NamedTuple, Optional

from ..base.errors import Exists, RepositoryError
from ..base.files import make_private, name_beside, naming, open_new, remove_all, sync_folder
from ..base.program import alone_command
from .chain import list_ends
from .connections import tell_reason
from .files import connect_file

MANIFEST, FORMAT = "manifest.json", 1
STEP_PAGES, PAUSE_S = 1000, 0.002       # copied at a time, and between
CHUNK = 1 << 20         # bytes that are read at a time
CHECK_EVERY = 1000000   # steps of SQLite between two looks whether to go on


class BackupFile(NamedTuple):
    """A database in a backup, as the manifest tells it."""
    file: str               # its name in the folder
    kind: str               # master, work
    id: Optional[int]       # of a work repository, and its name
    name: Optional[str]
    uuid: str
    bytes: int
    sha256: str


@contextlib.contextmanager
def whole_folder(path):
    """The name of a new empty folder, mode 0700, that gets the name `path` when it is whole, and is
    on disk then. Exists, OSError."""
    if os.path.lexists(path):
        raise Exists("%s exists" % path)
    part = name_beside(path, "part")
    with naming(path):
        os.mkdir(part, 0o700)
    try:
        yield part
        sync_folder(os.path.join(part, MANIFEST))
        with naming(path):
            os.rename(part, path)
        sync_folder(path)
    except BaseException as error:
        remove_all(part)
        if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise Exists("%s exists" % path) from None
        raise


class Backup:
    """A folder that is being filled; check() is called again and again, and raises what ends it."""

    def __init__(self, folder, check):
        self.files = []                 # [BackupFile]
        self._folder, self._check = folder, check

    def add(self, database, file, number=None, name=None):
        """Copies a Database into the folder, and looks whether the copy is whole. RepositoryError
        names it."""
        target = os.path.join(self._folder, file)
        make_private(target)
        copy_database(database, target, self._check)
        fault = find_damage(target, self._check)
        if fault:
            raise RepositoryError("%s: its copy is damaged: %s" % (database.label, fault))
        sync_file(target)
        self.files.append(BackupFile(file, database.kind, number, name, database.uuid,
                                     os.path.getsize(target), find_hash(target, self._check)))

    def remove(self, entry):
        """Takes a BackupFile out again."""
        self.files.remove(entry)
        os.unlink(os.path.join(self._folder, entry.file))

    def read_master(self):
        """What the master has in the backup: ({uuid: (id, name)} of what is attached, the heads of
        the chains of its audit)."""
        entry = next(each for each in self.files if each.kind == "master")
        with closing_copy(os.path.join(self._folder, entry.file)) as connection:
            attached = {row[2]: (row[0], row[1]) for row in connection.execute(
                "select id, name, uuid from work_repository")}
            return attached, [{"agent": agent, "n": end.n, "hash": end.hash}
                              for agent, end in sorted(list_ends(connection).items())]

    def finish(self, **fields):
        """Writes the manifest: these fields, and the files."""
        fields.update(format=FORMAT, files=[entry._asdict() for entry in self.files])
        path = os.path.join(self._folder, MANIFEST)
        with open(open_new(path), "w", encoding="utf-8") as file:
            json.dump(fields, file, indent=1)
            file.flush()
            os.fsync(file.fileno())


def copy_database(database, target, check):
    """Copies a Database as it is at one instant into an empty file. RepositoryError."""
    if not hasattr(sqlite3.Connection, "backup") and sqlite3.sqlite_version_info < (3, 27):
        database.write(_copy_at_rest, database, target)
        return
    with database.reading(is_new=True) as source:
        try:
            if hasattr(source, "backup"):
                _copy_online(source, target, check)
            else:                       # Python 3.6
                _copy_by_vacuum(source, target, check)
        except sqlite3.Error as error:
            check()
            raise RepositoryError("%s cannot be copied to %s: %s" % (
                database.label, target, tell_reason(error))) from None


def _copy_online(source, target, check):
    """By the online backup. It begins anew when another connection has written, and so would never
    end: but not while the transaction of its own lasts."""
    def look(*_):
        check()
        time.sleep(PAUSE_S)
    with contextlib.closing(connect_file(target)) as duplicate:
        duplicate.execute("pragma synchronous=off")     # it is put on disk as a whole
        source.execute("begin")
        try:
            source.execute("select kind from repository").fetchone()
            source.backup(duplicate, pages=STEP_PAGES, progress=look)
        finally:
            source.execute("rollback")


def _copy_by_vacuum(source, target, check):
    source.execute("pragma query_only=off")             # which forbids it, though it only reads
    source.set_progress_handler(_stopper(check), CHECK_EVERY)
    try:
        source.execute("vacuum into ?", (target,))
    finally:
        source.set_progress_handler(None, 0)


def _copy_at_rest(connection, database, target):
    """For the writer, which has the file's lock and writes nothing meanwhile, where SQLite has no
    other way: another process copies the file, once all that was committed is in it. To open it
    here, and to close it, would give up SQLite's own locks."""
    with database.reading(is_new=True) as reader:
        _, length, count = reader.execute("pragma wal_checkpoint(passive)").fetchone()
    if length != count:
        raise RepositoryError("%s cannot be copied now: somebody reads an old state of it"
                              % database.label)
    process = subprocess.run(alone_command(_copy_file, database.path, target),
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
    if process.returncode:
        lines = process.stderr.decode("utf-8", "replace").strip().split("\n")
        raise RepositoryError("%s cannot be copied to %s: %s" % (database.label, target, lines[-1]))


def _copy_file(source, target):
    """In a process of its own, which knows nothing of this module."""
    import shutil
    shutil.copyfile(source, target)


def _stopper(check):
    """check() as SQLite asks while it works: whether to stop."""
    def must_stop():
        try:
            check()
        except Exception:
            return 1
        return 0
    return must_stop


@contextlib.contextmanager
def closing_copy(path):
    """A connection to a file that nobody writes; it makes nothing beside it."""
    uri = "file:%s?mode=ro&immutable=1" % urllib.parse.quote(os.fsencode(os.path.abspath(path)))
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def find_damage(path, check=lambda: None):
    """What is wrong with a database that nobody writes, or nothing."""
    with closing_copy(path) as connection:
        connection.set_progress_handler(_stopper(check), CHECK_EVERY)
        try:
            rows = connection.execute("pragma integrity_check(5)").fetchall()
        except sqlite3.Error as error:
            check()
            return tell_reason(error)
    texts = [row[0] for row in rows]
    return "" if texts == ["ok"] else "; ".join(texts)


def find_hash(path, check=lambda: None):
    """The SHA-256 of a file, in hexadecimal digits. OSError."""
    import hashlib                      # OpenSSL's, as files are large
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for data in iter(lambda: file.read(CHUNK), b""):
            digest.update(data)
            check()
    return digest.hexdigest()


def sync_file(path):
    """Puts a file that is closed on disk."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
