"""What SQLite keeps beside a file that is open: whether that is still what its connections use."""
import contextlib
import os
import stat

WAL_BYTES = 4 * 1024 * 1024     # what a -wal keeps when it begins anew
REST_S = 1.0            # after it was deleted: whoever did that may have more to do


class Beside:
    """The -wal and -shm of a file. Who deletes them parts the agent from all other programs: what
    it commits then is in files without a name, and gone with the agent.

    torn ──> part(): all of it is in the file itself ──> REST_S later: may_open() ──> note()
    """

    def __init__(self, path, clock):
        self.is_parted = False          # nothing is opened until may_open() and note()
        self._path, self._clock = path, clock
        self._inodes = None             # those that the connections use; None: not known
        self._seen = None               # size and time of the -wal at the last look
        self._parted = 0.0

    def _find(self):
        return [self._inode_of(ending) for ending in ("-wal", "-shm")]

    def _inode_of(self, ending):
        try:
            status = os.stat(self._path + ending)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def note(self):
        """A connection has been opened: it uses what is there now."""
        self._inodes, self.is_parted = self._find(), False

    def forget(self):
        """The connection that used them is closed: they may go."""
        self._inodes = None

    @property
    def is_torn(self):
        """Whether one of them was deleted, or another stands in its place."""
        return self._inodes is not None and self._find() != self._inodes

    def is_wasteful(self):
        """Whether the -wal is larger than it need be, and nobody has written since the last look:
        who read an old state for long has let it grow."""
        try:
            status = os.stat(self._path + "-wal")
        except OSError:
            return False
        before, self._seen = self._seen, (status.st_size, status.st_mtime_ns)
        return self._seen == before and status.st_size > WAL_BYTES

    def part(self):
        """The connections that used them are closed, or will be when they are not read with."""
        self.is_parted, self._parted = True, self._clock.monotonic()

    def may_open(self):
        """Whether the file can be opened anew."""
        return not self.is_parted or self._clock.monotonic() >= self._parted + REST_S


def follow_mode(path):
    """SQLite made the -wal and -shm as the file was: where that can be written again, so can these
    -> whether one of them could not. OSError."""
    is_changed = False
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path + ending)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() \
                    and not status.st_mode & stat.S_IWUSR and os.access(path, os.W_OK):
                os.chmod(path + ending, stat.S_IMODE(os.stat(path).st_mode))
                is_changed = True
    return is_changed


def put_in(connection):
    """Puts all that was committed into the file itself -> (is_safe: on disk there, is_done: and
    nobody reads what was before). sqlite3.Error."""
    is_busy, length, count = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
    return not is_busy or length == count >= 0, not is_busy
