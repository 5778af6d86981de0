"""The one door to SQLite: a file with its writer and its readers."""
import time

from ..base.vocabulary import WRITE_S
from ..base.errors import AgentError, RepositoryError, RepositoryGone
from .connections import Connections, SPOILT_ERRORS, is_locked, tell_reason
from .files import migrate
from .pending import Pending, atomic
from .writer import RETRY_S, Writer

OPEN_S = 1.0            # how long an opening waits for another program


class Database:
    """The one door to a SQLite file.

    Writes go through one thread, which runs what is waiting in one transaction, each so that it
    changes all or nothing, and answers after the commit; it may have to run it again. Readers have
    connections of their own and never wait for it.
    What follows a commit (`on_done`) is for the Inbox.
    """

    def __init__(self, path, kind, label, migrations, clock, is_replaceable=False, inbox=None):
        self.path, self.kind, self.label = path, kind, label
        self._migrations, self._clock, self._inbox = migrations, clock, inbox
        self._connections = Connections(path, label, is_replaceable, clock)
        self._writer = Writer(self._connections, clock)

    @property
    def trouble(self):
        """Why the file cannot be used now, in words, or nothing."""
        connections = self._connections
        return connections.gone_reason or self._writer.trouble or connections.spoilt_reason

    @property
    def is_read_only(self):
        """Whether that is so since the file is read-only."""
        return self._writer.is_read_only

    @property
    def is_gone(self):
        """Whether the path leads to another file by now: what belonged to this one can never be
        written."""
        return self._connections.is_gone

    @property
    def is_torn(self):
        """Whether another program has deleted the -wal or -shm that it uses: the next write, or
        look, sees to that."""
        return self._connections.is_torn

    @property
    def uuid(self):
        """The UUID of the repository; None before it was opened."""
        return self._connections.uuid

    @property
    def version(self):
        """Of the data, as the writer saw it last: it changes when others have written."""
        return self._writer.version

    @property
    def latency(self):
        """A Histogram of how many seconds commits took, with all their tries."""
        return self._writer.latency

    @property
    def failures(self):
        """How many commits have failed."""
        return self._writer.failures

    def open(self):
        """Connects, migrates, and starts the writer; RepositoryError says what is wrong."""
        until = self._clock.monotonic() + OPEN_S
        while not self._try_open(self._clock.monotonic() >= until):
            time.sleep(RETRY_S)
        try:
            self._writer.start()
        except RepositoryError:
            self._connections.close()
            raise
        return self

    def _try_open(self, is_last):
        """Whether the file is open now; another program may just be closing or making it."""
        connections = self._connections
        try:
            migrate(connections.get_writer(), self.path, self.kind, self.label, self._migrations)
            connections.note_uuid()
            return True
        except AgentError:
            connections.drop_writer()
            raise
        except SPOILT_ERRORS + (OSError,) as error:
            connections.drop_writer()
            if is_locked(error) and not is_last:
                return False
            raise RepositoryError("%s: %s" % (self.label, tell_reason(error))) from None

    def reading(self, is_new=False):
        """A connection to read with, as a context, one for this reading alone where `is_new`;
        nobody else uses it meanwhile. RepositoryError."""
        return self._connections.reading(is_new)

    def read(self, method, *arguments):
        """method(connection, *arguments) of a store with a reading connection. RepositoryError."""
        with self.reading() as connection:
            return method(connection, *arguments)

    def read_version(self, within_s=WRITE_S):
        """`version` as the writer sees it now: it changes when another program has written."""
        self.write(do_nothing, within_s=within_s)
        return self.version

    def probe(self):
        """Looks whether the file is still a database, to one who opens it now: `trouble` says it.
        RepositoryError."""
        self._connections.probe()

    def submit(self, method, *arguments, within_s=None, on_done=None):
        """Hands method(connection, *arguments) of a store to the writer and returns a Pending.

        What cannot be written `within_s` seconds is withdrawn and fails; without it, it is
        tried until it can be, or the database is closed. The method itself says whether it is
        `lazy` or `atomic`. on_done(pending) is for the Inbox once it is done, well or badly.
        """
        deadline = None if within_s is None else self._clock.monotonic() + within_s
        pending = Pending(method, arguments, deadline, on_done, self._inbox)
        if not self._writer.put(pending):
            pending.finish(error=RepositoryGone("%s: %s" % (self.label,
                                                            self.trouble or "is closed")))
        return pending

    def write(self, method, *arguments, within_s=WRITE_S):
        """submit, and wait for the commit."""
        return self.submit(method, *arguments, within_s=within_s).result()

    def close(self, within_s=10.0):
        """Writes down what is waiting, ends the writer, checkpoints. What is left fails."""
        self._writer.close(within_s)
        self._connections.close()


@atomic
def execute(connection, statement, values):
    """One statement, for the writer -> how many rows it has changed."""
    return connection.execute(statement, values).rowcount


def do_nothing(connection):
    """For the writer, to look at the file: fails where it can only be read, which SQLite tells at a
    statement that would write alone."""
    connection.execute("update repository set kind=kind where 0")
