"""Looking at a repository file as it lies there, whoever uses it: nothing is written or made."""
import contextlib
import os
import re
import sqlite3
import urllib.parse
from typing import NamedTuple, Optional

from ..base.errors import RepositoryError
from ..base.times import find_time
from .connections import SPOILT_ERRORS, tell_reason
from .files import connect_file

FAULTS_TOLD = 100       # of what the check of a file's pages finds
# what a new index mends: the tables themselves are whole
_INDEX_FAULT = re.compile("missing from index|wrong # of entries in index|entry in index")


class Head(NamedTuple):
    """What a file says that it is."""
    version: int                        # of its schema
    is_empty: bool                      # it has no table
    kind: Optional[str] = None          # None: it is no repository
    uuid: Optional[str] = None
    id: Optional[int] = None            # of a work repository, which has one


class MasterFacts(NamedTuple):
    """What work repositories have to do with, as a master has it."""
    agents: list                        # rows
    contexts: set                       # names
    calendars: dict                     # name -> dates
    servers: dict                       # name -> row
    schemas: dict                       # logical schema -> {context: name of a data server}


def look_at(path, view, *arguments):
    """view(connection, *arguments) with a connection that only reads. RepositoryError.

    SQLite makes a -wal and -shm beside a file that nobody has open, also to read it. So such a
    one is read as what nobody changes; should somebody begin to meanwhile, it is read again, as
    one among others.
    """
    try:
        before = _tell_state(path)
        if not before[0]:
            try:
                value = _look(path, "&immutable=1", view, arguments)
            except SPOILT_ERRORS:
                if _tell_state(path) == before:
                    raise
            else:
                if _tell_state(path) == before:
                    return value
        return _look(path, "", view, arguments)
    except SPOILT_ERRORS + (OSError,) as error:
        raise RepositoryError(tell_reason(error)) from None


def _tell_state(path):
    """(Whether somebody uses the file, or has left it so; what changes with each change)."""
    has_wal = False
    with contextlib.suppress(OSError):
        has_wal = os.stat(path + "-wal").st_size > 0 or os.path.exists(path + "-shm")
    status = os.stat(path)
    return has_wal, status.st_ino, status.st_size, status.st_mtime_ns


def _look(path, how, view, arguments):
    uri = "file:%s?mode=ro%s" % (urllib.parse.quote(os.fsencode(os.path.abspath(path))), how)
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None,
                                            timeout=5)) as connection:
        connection.row_factory = sqlite3.Row
        connection.text_factory = _read_text
        connection.execute("pragma query_only=on")
        return view(connection, *arguments)


def _read_text(data):
    """Text as another program may have written it."""
    return data.decode("utf-8", "replace")


def read_head(connection):
    """The Head of a file."""
    version = connection.execute("pragma user_version").fetchone()[0]
    tables = {row[0] for row in connection.execute("select name from sqlite_master")}
    row = connection.execute("select * from repository").fetchone() \
        if "repository" in tables else None
    if row is None:
        return Head(version, not tables)
    return Head(version, False, row["kind"], row["uuid"], dict(row).get("id"))


def list_damage(connection):
    """(What is wrong with the pages of a file, in SQLite's words; whether a new index mends it
    all)."""
    try:
        rows = [row[0] for row in connection.execute("pragma integrity_check(%d)" % FAULTS_TOLD)]
    except SPOILT_ERRORS as error:
        return [tell_reason(error)], False
    lines = [line for row in rows for line in row.split("\n")
             if line != "ok" and not line.startswith("***")]
    return lines, all(map(_INDEX_FAULT.search, lines))


def count_orphans(connection):
    """{(table, table that its rows name and that lacks them): how many rows}."""
    counts = {}
    for row in connection.execute("pragma foreign_key_check"):
        counts[row[0], row[2]] = counts.get((row[0], row[2]), 0) + 1
    return counts


def find_newest(connection, kind):
    """When the newest row was written (epoch seconds), or None."""
    queries = ["select max(time) from commit_mark"]
    queries += ["select max(heartbeat) from agent"] if kind == "master" else [
        "select max(created) from session",
        "select max(ended) from session where status in ('DONE', 'WARNING', 'ERROR', 'STOPPED')"]
    texts = [connection.execute(query).fetchone()[0] for query in queries]
    return max((each for each in map(find_time, texts) if each is not None), default=None)


def read_attachments(connection):
    """The rows of the attached work repositories by id."""
    return connection.execute("select id, name, path, uuid from work_repository"
                              " order by id").fetchall()


def read_agents(connection):
    """The rows of the agents that have run on a master."""
    return connection.execute("select name, identity, stopped from agent").fetchall()


def read_facts(connection):
    """The MasterFacts."""
    schemas = {}
    for name, context, server in connection.execute(
            "select name, context, data_server from logical_schema"):
        schemas.setdefault(name, {})[context] = server
    return MasterFacts(
        read_agents(connection),
        {row[0] for row in connection.execute("select name from context")},
        dict(map(tuple, connection.execute("select name, dates from calendar"))),
        {row["name"]: row for row in connection.execute("select * from data_server")}, schemas)


def read_running(connection):
    """The rows of all sessions that a work repository shows as running."""
    return connection.execute("select * from session where status='RUNNING'").fetchall()


def count_log_bytes(connection):
    """What the log of all sessions has, about."""
    return connection.execute("select total(length(line)) from session_log").fetchone()[0]


def count_all(connection):
    """(How many sessions, scenario versions and schedules there are)."""
    return tuple(connection.execute("select count(*) from " + table).fetchone()[0]
                 for table in ("session", "scenario", "schedule"))


def put_in_wal(path):
    """Puts what stands in the -wal into the file itself; when nobody else has it open, the -wal
    goes. RepositoryError."""
    with _changing(path) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")


def make_indices(path):
    """Makes all indices of a file anew. RepositoryError."""
    with _changing(path) as connection:
        connection.execute("pragma synchronous=full")
        connection.execute("reindex")


@contextlib.contextmanager
def _changing(path):
    try:
        with contextlib.closing(connect_file(path)) as connection:
            yield connection
    except SPOILT_ERRORS as error:
        raise RepositoryError(tell_reason(error)) from None
