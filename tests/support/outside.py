"""Other programs at the repositories' files."""
import contextlib
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys

READ_LOCKS = 123, 5     # bytes of a -shm file, and how many: who reads locks one (sqlite.org/walformat.html)


# -- other programs --------------------------------------------------------------------

@contextlib.contextmanager
def foreign_lock(path, how="immediate"):
    """Another connection holds the file's write lock."""
    connection = sqlite3.connect(str(path), isolation_level=None, timeout=30, check_same_thread=False)
    try:
        connection.execute("begin " + how)
        yield connection
        if connection.in_transaction:
            connection.execute("rollback")
    finally:
        connection.close()


@contextlib.contextmanager
def slow_to_read(path):
    """Who reads a repository has to wait, some ten seconds at most: its reading locks are taken. The file must be
    open already, and this process must have no connection to it."""
    with open(str(path) + "-shm", "r+b") as index:
        begin, count = READ_LOCKS
        fcntl.lockf(index, fcntl.LOCK_EX, count, begin)
        yield                           # closing gives the locks back


def query(path, sql, *values):
    """Rows that another program reads."""
    with contextlib.closing(sqlite3.connect(str(path), timeout=30)) as connection:
        return connection.execute(sql, values).fetchall()


def change(path, *statements):
    """Another program writes: statements, or (statement, values)."""
    with contextlib.closing(sqlite3.connect(str(path), timeout=30)) as connection:
        for statement in statements:
            connection.execute(*((statement,) if isinstance(statement, str) else statement))
        connection.commit()


def move_repository(path, target):
    """Moves a repository with what lies beside it."""
    for name in ("-wal", "-shm", ""):
        if os.path.exists(str(path) + name):
            os.rename(str(path) + name, str(target) + name)


def copy_repository(path, target):
    """A copy as `sqlite3 path '.backup target'` makes it."""
    code = ("import sqlite3, sys; a = sqlite3.connect(sys.argv[1], timeout=30);"
            "a.execute('pragma wal_checkpoint(truncate)').fetchall(); a.close()")
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    shutil.copy(str(path), str(target))


def no_wal_of(path):
    """Whether nobody has this SQLite file open, and who had it has closed it well."""
    return not path.with_name(path.name + "-wal").exists()


def list_secrets(agent):
    """The secret files beside its repository."""
    return sorted(agent.folder.glob("*.secret.*"))


def spoil_schema(path):
    """What SQLite says of it from now on is no UTF-8."""
    change(path, "pragma writable_schema=on",
           "update sqlite_master set name=cast(x'ff' as text), sql='x' where name='commit_mark'")


def damage(path, *tables):
    """Writes nonsense over the first page of these tables of a repository that another process has open."""
    connection = sqlite3.connect(str(path), timeout=30)
    with contextlib.closing(connection):
        connection.execute("pragma wal_checkpoint(truncate)")
        size, = connection.execute("pragma page_size").fetchone()
        roots = [connection.execute("select rootpage from sqlite_master where name=?", (table,)).fetchone()[0]
                 for table in tables]
    with open(str(path), "r+b") as file:
        for root in roots:
            file.seek((root - 1) * size)
            file.write(b"\xa5" * size)
