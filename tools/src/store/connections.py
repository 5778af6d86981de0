"""Connections to one SQLite file: one that writes, those that read, and whether it is the same."""
import collections
import contextlib
import os
import sqlite3
import threading

from ..base.errors import RepositoryError, RepositoryGone
from ..base.files import find_fault_beside
from ..base.program import log
from .beside import WAL_BYTES, Beside, follow_mode, put_in
from .files import connect_file

READERS = 8             # idle reading connections kept a file
READER_CACHE = "cache_size=-256"        # KiB each, for the host has the file's pages, too
READ_S = 5.0            # how long a closing waits for who reads
# sqlite3 cannot decode what SQLite says of a schema that is spoilt
SPOILT_ERRORS = sqlite3.Error, UnicodeDecodeError
TORN = "another program has deleted the -wal or -shm beside it"


class Connections:
    """All connections to a file. The writing one is used by one thread at a time; a reader belongs
    to whoever reads with it.

    `is_gone` says that the path leads to another file by now, `gone_reason` how, unless that is
    `is_replaceable`: then the new one is used.
    """

    def __init__(self, path, label, is_replaceable, clock):
        self.path, self.label = path, label
        self.uuid = None                # of the repository, once it was opened
        self.is_gone, self.gone_reason = False, ""
        self.spoilt_reason = ""         # why it is no database any more, or nothing
        self.count = 0                  # writing connections that there have been
        self._is_replaceable = is_replaceable
        self._inode = None
        self._beside = Beside(path, clock)
        self._readers = collections.deque()         # that nobody reads with now
        self._reading, self._is_closing = 0, False
        self._read = threading.Condition()          # for these two
        self._writer = None

    def _connect(self):
        fault = find_fault_beside(self.path)
        if fault:
            raise RepositoryError("%s: %s" % (self.label, fault))
        return connect_file(self.path, timeout_s=0)

    def _connect_with(self, *pragmas):
        connection = self._connect()
        try:
            for pragma in pragmas:
                connection.execute("pragma " + pragma)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def get_writer(self):
        """The writing connection, opened when there is none and the file is the one known."""
        self._check_file()
        self._check_beside()
        if self._writer is None:
            if follow_mode(self.path):
                self.drop_readers()
            self._writer = self._connect_with("synchronous=full", "fullfsync=on",
                                              "journal_size_limit=%d" % WAL_BYTES)
            self.count += 1
            if self.uuid is not None:
                if read_uuid(self._writer) != self.uuid:
                    self._lose("the file was replaced by another repository")
                self._writer.execute("pragma journal_mode=wal")
                self._beside.note()
        return self._writer

    def note_uuid(self):
        """The file is open for the first time: from now on only the repository of this UUID is
        taken for it."""
        self.uuid = read_uuid(self._writer)
        self._beside.note()

    @property
    def is_torn(self):
        """Whether what SQLite keeps beside the file is not what its connections use."""
        return self._beside.is_torn

    def secure(self):
        """Whether what was committed is where the next start finds it: should the -wal have been
        deleted meanwhile, it is put into the file itself."""
        if not self.is_torn:
            return True
        try:
            if self._writer.in_transaction:
                self._writer.execute("rollback")
            return put_in(self._writer)[0]
        except sqlite3.Error:
            return False

    def cut_wal(self):
        """Cuts a -wal that is large for nothing, unless somebody reads or writes: that waits for
        none of them. For the writer, between two transactions."""
        if self._beside.is_wasteful() and self._writer is not None and not self.is_torn:
            with contextlib.suppress(sqlite3.Error):        # the next look's turn
                put_in(self._writer)

    def _check_beside(self):
        """When the -wal or -shm was deleted: closes all that use it, once the file has all that
        was in it, and lets nobody in before that is over. RepositoryError until then."""
        if self.is_torn:
            if not put_in(self._writer)[1]:
                raise RepositoryError(TORN)
            self._beside.part()
            self.drop_writer()
        if self._beside.is_parted:
            self.drop_readers()         # those that read now are closed when that is over
            if self._reading or not self._beside.may_open():
                raise RepositoryError(TORN)

    def _find_inode(self):
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise RepositoryError("%s: %s: %s" % (self.label, self.path, error.strerror)) from None
        return status.st_dev, status.st_ino

    def _check_file(self):
        """Notes the file's inode at first; later, that the path still leads to the same."""
        inode = self._find_inode()
        if self._inode not in (None, inode):
            if not self._is_replaceable:
                self._lose("the file was replaced by another")
            self.drop_writer()
            self.drop_readers()
        self._inode = inode

    def check_place(self):
        """RepositoryGone when the path leads to another file by now, where that is the end of it.
        """
        if not self._is_replaceable:
            with contextlib.suppress(RepositoryError):
                self._check_file()
            if self.is_gone:
                raise RepositoryGone("%s: %s" % (self.label, self.gone_reason))

    def _lose(self, reason):
        self.is_gone, self.gone_reason = True, reason
        raise RepositoryGone("%s: %s" % (self.label, reason))

    @contextlib.contextmanager
    def reading(self, is_new=False):
        """A connection to read with, one for this reading alone where `is_new`; nobody else uses it
        meanwhile. RepositoryError."""
        if self.is_gone:
            raise RepositoryGone("%s: %s" % (self.label, self.gone_reason))
        with self._read:
            if self._is_closing:
                raise RepositoryGone("%s: is closed" % self.label)
            if self._beside.is_parted:
                raise RepositoryError("%s cannot be read: %s" % (self.label, TORN))
            self._reading += 1
        connection = None
        try:
            if self._inode not in (None, self._find_inode()):
                if not self._is_replaceable:        # nobody may write for long
                    self._lose("the file was replaced by another")
                self.drop_readers()
            connection = None if is_new else self._find_idle()
            if connection is None:
                if self.is_torn:        # a new one would not see what is in the -wal
                    raise RepositoryError("%s cannot be read: %s" % (self.label, TORN))
                connection = self._connect_with("busy_timeout=2000", "query_only=on",
                                                "wal_autocheckpoint=0", READER_CACHE)
            yield connection
        except SPOILT_ERRORS as error:
            if connection:
                connection.close()
                connection = None
            raise RepositoryError("%s cannot be read: %s"
                                  % (self.label, tell_reason(error))) from None
        finally:
            if connection:
                if len(self._readers) < READERS and not (
                        is_new or self.is_gone or self._is_closing or self._beside.is_parted):
                    self._readers.append(connection)
                else:
                    connection.close()
            with self._read:
                self._reading -= 1
                self._read.notify_all()

    def _find_idle(self):
        """A connection that nobody reads with, or None."""
        with contextlib.suppress(IndexError):
            return self._readers.pop()

    def probe(self):
        """Reads the file as one that opens it now: what other connections remember of it is no
        proof. RepositoryError."""
        try:
            with self.reading(is_new=True) as connection:
                read_uuid(connection)
        except RepositoryError as error:
            is_spoilt = isinstance(error.__context__, (
                sqlite3.DatabaseError, UnicodeDecodeError)) and not isinstance(
                error.__context__, sqlite3.OperationalError)
            if is_spoilt and not self.spoilt_reason:
                log.warning("%s", error)
            self.spoilt_reason = tell_reason(error.__context__) if is_spoilt else ""
            raise
        if self.spoilt_reason:
            log.info("%s can be read again", self.label)
        self.spoilt_reason = ""

    def drop_writer(self):
        """Closes the writing connection, if there is one."""
        connection, self._writer = self._writer, None
        self._beside.forget()           # the last connection takes them along
        if connection:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def drop_readers(self):
        """Closes the connections that nobody reads with now."""
        while True:
            try:
                self._readers.pop().close()
            except IndexError:
                return

    def close(self):
        """Closes them, the writing one last: it takes the -wal along. Who reads now is waited for,
        READ_S seconds at most; what is read with longer is closed when that is over."""
        with self._read:
            if not self._is_closing:
                self._is_closing = True
                self._read.wait_for(lambda: not self._reading, READ_S)
        self.drop_readers()
        self.drop_writer()


def read_uuid(connection):
    """The UUID of a repository file."""
    return connection.execute("select uuid from repository").fetchone()[0]


def is_locked(error):
    """Whether another program holds the file's lock."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def tell_reason(error):
    """A database or system error in the words of a message."""
    if isinstance(error, UnicodeDecodeError) or isinstance(error, sqlite3.Error) and not str(error):
        return "its schema is malformed"        # of Python 3.6 such an error says nothing
    return getattr(error, "strerror", None) or getattr(error, "message", None) or str(error) \
        or type(error).__name__
