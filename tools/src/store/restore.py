"""--restore: puts a backup where nothing runs, as a timeline of its own.

Nothing is touched before all is verified and made ready beside its place. From then on a file
beside the master keeps agents from starting, until all is in its place: a restore that was cut
short is begun anew.
"""
import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import time
from typing import NamedTuple

from ..base.vocabulary import ERROR, OPEN
from ..base.errors import CannotStart, RepositoryError
from ..base.files import (BESIDE_DATABASE, find_fault_beside, list_beginning, make_folder,
                          make_private, name_beside, open_own, own_users, sync_folder, unforeseen)
from ..base.times import to_text
from .backup import (FORMAT, MANIFEST, BackupFile, closing_copy, find_damage, find_hash,
                     sync_file)
from .connections import tell_reason
from .files import connect_file, migrate, remove_database
from .locks import open_lock
from .master import MASTER_MIGRATIONS
from .progress import Progress
from .sessions import Sessions
from .work import WORK_MIGRATIONS

MILLION = 1000          # the numbers of sessions go on at the next million, which is n * 1000
RESTORED = "restored"   # the message of the sessions that were open
# bytes of a SQLite file that every connection to it locks (sqlite.org/lockingv3.html)
SHARED_FIRST, SHARED_SIZE = 0x40000002, 510
UNDER_WAY = ("a restore of %s has not come to its end: run --restore again, or delete %s to go on "
             "with what is there")


class Piece(NamedTuple):
    """A database of a backup, and where it goes."""
    entry: BackupFile
    path: str               # its place
    new: str                # where it is made ready


def note_of(master):
    """The file beside a master that is there while a restore is under way."""
    return os.path.realpath(master) + ".restoring"


def check_restored(master):
    """CannotStart while the restore of a master is under way, or was cut short."""
    if os.path.lexists(note_of(master)):
        raise CannotStart(UNDER_WAY % (master, note_of(master)))


class Restore:
    """One restore: all of a backup, into the place of a master and of its work repositories.

    tell(line) says what it replaces, before it does.
    """

    def __init__(self, folder, master, clock, tell):
        self._folder, self._master = folder, os.path.realpath(master)
        self._clock, self._tell = clock, tell
        self._columns = []              # [(path of a work repository as the master has it, UUID)]
        self._is_touching = False       # it has to come to its end

    def run(self):
        """Does it. CannotStart: nothing was touched, or it is to be done again, as is said."""
        try:
            manifest, entries = read_backup(self._folder)
            make_folder(os.path.dirname(self._master))
            with self._alone():
                pieces = self._list_pieces(manifest, entries)
                try:
                    for piece in pieces:
                        self._make_ready(piece)
                    self._put_in_place(pieces)
                finally:
                    for piece in pieces:
                        remove_database(piece.new)
        except (RepositoryError, sqlite3.Error, OSError) as error:
            place = getattr(error, "filename", None)
            raise CannotStart("%s cannot be restored: %s%s" % (
                self._folder, "%s: " % place if place else "", tell_reason(error))) from None
        except KeyboardInterrupt:
            raise CannotStart("the restore of %s was interrupted" % self._folder) from None
        for piece in pieces:
            if piece.entry.kind == "work":
                self._tell("work repository %s is held: RELEASE -REPO=%s has it go on"
                           % (piece.entry.name, piece.entry.name))

    @contextlib.contextmanager
    def _alone(self):
        """No agent runs on the master, and none starts; should this be cut short from the moment on
        where something was touched, none before it was done again. CannotStart."""
        path = note_of(self._master)
        was_cut_short, self._is_touching = os.path.lexists(path), True
        lock = open_lock(path, self._master)
        try:
            _take(lock, "another --restore is under way on %s" % self._master)
            self._is_touching = was_cut_short
            for other in list_beginning(self._master + "."):
                if other.endswith(".lock"):
                    _check_lock(other, self._master)
            yield
            self._is_touching = False
        finally:
            if not self._is_touching:
                os.unlink(path)
                sync_folder(path)
            os.close(lock)

    def _list_pieces(self, manifest, entries):
        """[Piece] of all files, the master last. A place outside the master's folder is used again
        when the master gets its own place back; else what was there comes beside the master.
        CannotStart: one of the places is in use."""
        master = next(entry for entry in entries if entry.kind == "master")
        with closing_copy(self._find_copy(master)) as connection:
            paths = {row["uuid"]: row["path"]
                     for row in connection.execute("select uuid, path from work_repository")}
        is_its_own = os.path.realpath(manifest.get("master", "")) == self._master
        pieces, self._columns = [], []
        for entry in sorted(entries, key=lambda each: each.kind, reverse=True):
            path = self._master
            if entry.kind == "work":
                if entry.uuid not in paths:
                    raise CannotStart("%s: its master does not know %s"
                                      % (self._folder, entry.file))
                column = paths.pop(entry.uuid)
                if os.path.isabs(column) and not is_its_own:
                    column = os.path.basename(entry.file)
                self._columns.append((column, entry.uuid))
                path = os.path.realpath(os.path.join(os.path.dirname(self._master), column))
            _check_unused(path)
            pieces.append(Piece(entry, path, name_beside(path, "new")))
        if paths:
            raise CannotStart("%s lacks a work repository that its master has" % self._folder)
        return pieces

    def _find_copy(self, entry):
        return os.path.join(self._folder, os.path.basename(entry.file))

    def _make_ready(self, piece):
        """Makes the file of a Piece beside its place, with all that is to change in it."""
        entry, now = piece.entry, self._clock.now()
        make_folder(os.path.dirname(piece.path))
        make_private(piece.new)
        shutil.copyfile(self._find_copy(entry), piece.new)
        is_work = entry.kind == "work"
        with contextlib.closing(connect_file(piece.new)) as connection:
            migrate(connection, piece.new, entry.kind, entry.file,
                    WORK_MIGRATIONS if is_work else MASTER_MIGRATIONS, is_kept=False)
            connection.execute("begin immediate")
            if is_work:
                start_anew(connection, os.path.abspath(self._folder), now)
            else:
                connection.executemany("update work_repository set path=? where uuid=?",
                                       self._columns)
            connection.execute("commit")
            connection.execute("pragma wal_checkpoint(truncate)").fetchone()
        sync_file(piece.new)

    def _put_in_place(self, pieces):
        """Says what is replaced, then does so; what was there keeps lying beside it."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.now()))
        places = []
        for piece in pieces:
            former = _find_free("%s.before-restore-%s" % (piece.path, stamp))
            places.append((piece, former))
            self._tell("%s is replaced; it is kept as %s" % (piece.path, former)
                       if os.path.lexists(piece.path) else "%s is made" % piece.path)
        self._is_touching = True
        for piece, former in places:
            put_in_place(piece.new, piece.path, former)
            sync_folder(piece.path)


def read_backup(folder):
    """(manifest, [BackupFile]) of a backup, all of it verified. CannotStart, OSError."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        if manifest["format"] > FORMAT:
            raise CannotStart("%s: the backup has format %s, this agent knows up to %d: use a newer"
                              " agent.py" % (path, manifest["format"], FORMAT))
        entries = [BackupFile(**entry) for entry in manifest["files"]]
    except (ValueError, TypeError, KeyError, LookupError):
        raise CannotStart("%s is no manifest of a backup" % path) from None
    for entry in entries:
        file = os.path.join(folder, os.path.basename(entry.file))
        if os.path.getsize(file) != entry.bytes or find_hash(file) != entry.sha256:
            raise CannotStart("%s is not as it was when the backup was made" % file)
        fault = find_damage(file)
        if fault:
            raise CannotStart("%s is damaged: %s" % (file, fault))
    if [entry.kind for entry in entries].count("master") != 1:
        raise CannotStart("%s names no master" % path)
    return manifest, entries


def _take(fd, message):
    """Locks a file, or CannotStart."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CannotStart(message) from None


def _check_lock(path, master):
    """CannotStart when the agent of this lock runs."""
    with contextlib.suppress(FileNotFoundError):        # it has just stopped
        fd = open_own(path, os.O_RDWR, own_users(master))
        try:
            holder = os.read(fd, 200).decode("utf-8", "replace").strip()
            _take(fd, "an agent runs on %s: %s" % (master, holder or path))
        finally:
            os.close(fd)


def _check_unused(path):
    """CannotStart when another program has a database open, also an agent of another master."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDWR)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, SHARED_SIZE, SHARED_FIRST)
        except OSError:
            raise CannotStart("%s is open in another program: end that first" % path) from None
        finally:
            os.close(fd)


def start_anew(connection, folder, now):
    """Makes a work repository a timeline of its own: another incarnation, no session open, numbers
    behind all that the former one may have given, and held."""
    marks = ",".join("?" * len(OPEN))
    for row in connection.execute("select id from session where status in (%s)" % marks,
                                  OPEN).fetchall():
        interrupted = connection.execute(
            "select step, task, run from session_task where session=? and status='RUNNING'"
            " order by run desc limit 1", (row["id"],)).fetchone()
        if interrupted:
            Progress.set_restart(connection, row["id"], *interrupted)
        for table in ("session_task", "session_step", "plan_node"):
            connection.execute("update %s set status=?, message=?, ended=? where session=? and"
                               " status='RUNNING'" % table,
                               (ERROR, RESTORED, to_text(now), row["id"]))
        Sessions.change(connection, row["id"], ERROR, ended=to_text(now), message=RESTORED,
                        secret_file=None)
    # what is on an engine, and its folder there, is of who was backed up
    connection.execute("update session_task set engine_folder=null where engine_folder not null")
    connection.execute(
        "update repository set incarnation=?, restored=?, restored_from=?, host=null, boot=null,"
        " device=null, inode=null, last_session=(last_session / %d + 1) * %d - 1"
        % (MILLION, MILLION), (unforeseen(), to_text(now), folder))


def _find_free(path):
    """The path, or PATH.2 and so on: what is not there yet."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = "%s.%d" % (path, number)
    return free


def put_in_place(new, path, former):
    """Gives a file that is ready its place. What is there gets the name `former`, with what
    SQLite has beside it, so that at no time one file's log lies beside another file."""
    if os.path.lexists(path):
        _settle(path)
        if any(os.path.lexists(path + ending) for ending in BESIDE_DATABASE):
            os.rename(path, former)
        else:
            with contextlib.suppress(OSError):      # some file systems know no second name
                os.link(path, former)
            if not os.path.lexists(former):
                os.rename(path, former)
    for ending in BESIDE_DATABASE:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + ending, former + ending)
    os.rename(new, path)


def _settle(path):
    """Has SQLite put the log beside a database into it, where it can."""
    if find_fault_beside(path) is None:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(connect_file(path)) as old:
            old.execute("pragma wal_checkpoint(truncate)").fetchone()
