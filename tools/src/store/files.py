"""What lies beside a repository: copies before a migration, secrets, spools, the lock of a name."""
import contextlib
import fcntl
import glob
import json
import os
import sqlite3
import uuid

from ..base.errors import CannotStart, RepositoryError

NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs",
                        "lustre", "gpfs", "beegfs", "ncpfs", "fuse.sshfs", "fuse.glusterfs",
                        "fuse.s3fs", "fuse.rclone", "virtiofs", "webdav", "afpfs", "fuse.ceph")


def migrate(connection, path, kind, label, migrations):
    """Brings a file's schema to this agent's version in one transaction,
    after a copy. RepositoryError."""
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
        found = connection.execute("select kind from repository").fetchone()
        if found is None or found[0] != kind:
            raise RepositoryError("%s: is no %s repository" % (label, kind))
    if 0 < version < newest:
        _copy_beside(connection, path, version)
    if version < newest:
        connection.execute("begin immediate")
        if connection.execute("pragma user_version").fetchone()[0] == version:
            for script in migrations[version:]:
                for statement in filter(str.strip, script.split(";\n")):
                    connection.execute(statement)
            if version == 0:
                connection.execute("insert into repository(kind, uuid) values (?, ?)",
                                   (kind, str(uuid.uuid4())))
            connection.execute("pragma user_version=%d" % newest)
        connection.execute("commit")


def _copy_beside(connection, path, version):
    """The file as it is, before a migration: FILE.vN, or FILE.vN.2 after one that went back
    once."""
    names = ["%s.v%d" % (path, version)]
    names += ["%s.%d" % (names[0], number) for number in range(2, 100)]
    target = next(name for name in names if not os.path.exists(name))
    part = target + ".part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    make_private(part)
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
        if hasattr(connection, "backup"):
            connection.backup(copy)
        else:                           # Python 3.6
            connection.execute("begin")
            copy.executescript("\n".join(connection.iterdump()))
            connection.execute("rollback")
            copy.execute("pragma user_version=%d" % version)
    os.rename(part, target)


def make_folder(path):
    """Makes a folder with mode 0700 when it is not there; tells whether it did."""
    try:
        os.makedirs(path, 0o700)
        return True
    except FileExistsError:
        return False


def make_private(path):
    """Makes an empty file with mode 0600; FileExistsError when there is one."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


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


class SecretFiles:
    """Secrets that came with EXEC: files of mode 0600 beside the repository, never in it.

    A file has a name of its own, which the row of its session holds; before there were such names
    it was the session's number.
    """

    def __init__(self, path):
        self._path = path
        self._fresh = set()             # names of files whose session is not committed yet

    def _path_of(self, name):
        return "%s.secret.%s" % (self._path, name)

    def write(self, secrets):
        """On disk before the session that they are for -> the file's name. OSError: nothing
        stays."""
        name = uuid.uuid4().hex
        self._fresh.add(name)
        try:
            make_private(self._path_of(name))
            with open(self._path_of(name), "w", encoding="utf-8") as file:
                json.dump(secrets, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self.forget(name)
            raise
        return name

    def settle(self, name, is_used):
        """The request of a file was answered: its session's row has the name now, or nothing
        will."""
        if not is_used:
            self.forget(name)
        self._fresh.discard(name)

    def read(self, name):
        """The secrets of a file, by the names of their variables."""
        try:
            with open(self._path_of(name), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return {}

    def forget(self, name):
        """After the end of its session nothing of them is left."""
        self._fresh.discard(name)
        with contextlib.suppress(OSError):
            os.unlink(self._path_of(name))

    def list_names(self):
        """The names of all files that are not fresh."""
        start = len(self._path_of(""))
        found = {path[start:] for path in glob.glob(glob.escape(self._path_of("")) + "*")}
        return found - self._fresh


SPOOL_SCHEMA = ("""
create table log (position integer primary key, time text, stream text, line text);
create table omitted (id integer primary key, first integer, end integer);
create table state (
    id integer primary key,
    holder integer, holder_started text,        -- the minder, which writes here
    is_over integer not null default 0,
    rc integer, error text, captured blob       -- exit code, or why it could not start
);
insert into state(id) values (1)
""")


class Spool:
    """What a process of an adoptable session printed and how it ended: a small SQLite file that
    its minder writes, and that outlives the agent."""

    def __init__(self, path):
        self.path = path
        self._position, self._omitted = -1, None    # how far it was read; what was left out then

    def _connect(self):
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None,
                                     check_same_thread=False)
        connection.row_factory = sqlite3.Row
        return contextlib.closing(connection)

    def create(self):
        """Makes the file, mode 0600."""
        self.remove()
        make_private(self.path)
        with self._connect() as connection:
            connection.execute("pragma journal_mode=wal")
            for statement in SPOOL_SCHEMA.split(";\n"):
                connection.execute(statement)

    def note(self, **columns):
        """Sets columns of the state; on disk when it returns."""
        with self._connect() as connection:
            connection.execute("pragma synchronous=full")
            connection.execute("update state set %s" % ", ".join(name + "=?" for name in columns),
                               tuple(columns.values()))

    def store(self, rows, omitted, on_stored=lambda: None):
        """As Progress.add_log; on_stored() when it is done."""
        with self._connect() as connection:
            connection.execute("begin immediate")
            if omitted:
                connection.execute("delete from log where position>=? and position<?", omitted)
                connection.execute("replace into omitted values (1, ?, ?)", omitted)
            connection.executemany("replace into log values (?, ?, ?, ?)", rows)
            connection.execute("commit")
        on_stored()

    def state(self):
        """The row of the state."""
        with self._connect() as connection:
            return connection.execute("select * from state").fetchone()

    def read_new(self):
        """What came since it was read last -> (row of the state, rows of the log, the range now
        left out or None where that is as it was)."""
        before = self._omitted
        with self._connect() as connection:
            connection.execute("begin")
            state = connection.execute("select * from state").fetchone()
            omitted = connection.execute("select first, end from omitted").fetchone()
            self._omitted = omitted and tuple(omitted)
            is_other = self._omitted != before
            rows = connection.execute(
                "select * from log where position > ? or position = ? order by position",
                (self._position, self._omitted[0] if is_other else -1)).fetchall()
            connection.execute("rollback")
        self._position = max([self._position] + [row["position"] for row in rows])
        return state, [tuple(row) for row in rows], self._omitted if is_other else None

    def remove(self):
        """Deletes the file and what SQLite keeps beside it."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(OSError):
                os.unlink(self.path + suffix)


class NameLock:
    """The lock that makes this the one live agent of its name on its master.

    It is the kernel's (flock on a file beside the master), so a crash gives it back.
    """

    def __init__(self, master, name):
        self._path = "%s.%s.lock" % (os.path.realpath(master), name)
        self._name = name
        self._fd = None

    def take(self):
        """CannotStart says who holds it."""
        while self._fd is None:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(fd, 200).decode("utf-8", "replace").strip()
                os.close(fd)
                raise CannotStart("an agent named %s is running on this master: %s" % (
                    self._name, holder or "it is starting")) from None
            if self._is_the_file(fd):
                self._fd = fd
            else:                       # its holder removed it when it stopped
                os.close(fd)
        return self

    def _is_the_file(self, fd):
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        return False

    def note(self, text):
        """Who holds it, for a second one to tell."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def release(self):
        """Gives it back and leaves no file."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(self._fd)
            self._fd = None
