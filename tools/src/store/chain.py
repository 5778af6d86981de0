"""The audit in the master: a chain of rows for each agent, each with the hash of the one before."""
import itertools
import json
import re
from typing import NamedTuple, Optional

from ..base.digests import sha256
from ..base.times import to_text

# what the hash of a row covers, by the names of the columns
COVERED = ("agent", "n", "time", "user", "os_user", "address", "verb", "object", "outcome", "count",
           "previous")
MAX_WORDS = 400         # characters of a column of text; the rest is cut off
AUDIT_PAGE = 500        # rows that are read at once
PURGED_AT_ONCE = 10000  # rows that one transaction deletes
PURGE_AUDIT = "PURGE"   # verb of the row that a purge of the audit leaves
_PURGED = re.compile("-AUDIT ([0-9]{1,18}) ([0-9a-f]{64})")     # its object


class Act(NamedTuple):
    """What somebody did, or was refused: never with a value."""
    user: str               # user of the agent; nothing: its owner, or nobody that it knows
    os_user: str
    address: str            # nothing: no connection, but the agent itself or its command line
    verb: str
    object: str             # what it was done to: the name of a schedule, the number of a session
    outcome: str            # OK, or the code of the error


class Happening(NamedTuple):
    """A row that is to be written."""
    time: float             # epoch seconds; of several, of the last
    act: Act
    count: int = 1          # how often


class AuditFilter(NamedTuple):
    """What AUDIT lists; None: whatever it is."""
    since: Optional[float] = None       # epoch seconds
    who: Optional[str] = None           # user, or OS user
    verb: Optional[str] = None          # SCHED stands for all that begin so


class Link(NamedTuple):
    """A row of a chain: its number and its hash. Of a chain without rows: (0, "")."""
    n: int
    hash: str


def hash_row(row):
    """The SHA-256 of a row (its columns by name), over canonical JSON: the columns of COVERED, keys
    in order, ASCII, no spaces."""
    text = json.dumps({name: row[name] for name in COVERED}, sort_keys=True, default=repr,
                      separators=(",", ":"))
    return sha256(text.encode("ascii")).hexdigest()


class Chain:
    """The chain of one agent's name. Who appends reads its end and writes in one transaction: two
    processes cannot fork it."""

    def __init__(self, master, agent):
        self._db, self._agent = master.db, agent

    def append(self, happenings):
        """Writes some Happenings in their order. RepositoryError: also where it is the audit alone
        that is damaged. That is looked at first, for it would fail what others have written."""
        self._db.read(self._check_end)
        self._db.write(self._append, happenings)

    def _append(self, connection, happenings):
        """For the writer: within its transaction nobody else appends."""
        link = self._find_end(connection)
        for happening in happenings:
            row = {"agent": self._agent, "n": link.n + 1, "time": to_text(happening.time),
                   "count": happening.count, "previous": link.hash}
            row.update((name, _as_column(text))
                       for name, text in happening.act._asdict().items())
            link = Link(row["n"], hash_row(row))
            connection.execute("insert into audit(%s, hash) values (%s?)"
                               % (", ".join(COVERED), "?, " * len(COVERED)),
                               [row[name] for name in COVERED] + [link.hash])

    def _find_end(self, connection):
        row = connection.execute("select n, hash from audit where agent=? order by n desc limit 1",
                                 (self._agent,)).fetchone()
        return Link(*row) if row else Link(0, "")

    def _check_end(self, connection):
        """Reads where rows are put in."""
        self._find_end(connection)
        connection.execute("select time from audit indexed by audit_time order by time desc"
                           " limit 1").fetchone()

    def find_end(self):
        """The newest row, as a Link. RepositoryError."""
        return self._db.read(self._find_end)

    def list_rows(self, filters, limit):
        """Yields the rows that an AuditFilter names, of all agents, newest first, a page at a time:
        nothing stays open between."""
        key = ("~", "", 0)
        while limit > 0:
            rows = self._db.read(_list_page, filters, key, min(limit, AUDIT_PAGE))
            yield from rows
            limit = limit - len(rows) if len(rows) == AUDIT_PAGE else 0
            key = tuple(rows[-1][name] for name in ("time", "agent", "n")) if rows else key

    def count_older(self, before):
        """How many rows, from the first on, are older than this instant. RepositoryError."""
        return self._db.read(self._find_older, before)[0]

    def _find_older(self, connection, before):
        """(how many rows, number of the last of them or None)."""
        younger = connection.execute("select n from audit where agent=? and time>=? order by n"
                                     " limit 1", (self._agent, to_text(before))).fetchone()
        return tuple(connection.execute(
            "select count(*), max(n) from audit where agent=? and n<?",
            (self._agent, younger[0] if younger else 1 << 62)).fetchone())

    def purge(self, before, happening):
        """Deletes the rows older than this instant -> how many. The row that tells of it is written
        first: its object names the last row that goes, and its hash. RepositoryError."""
        count, last = self._db.read(self._find_older, before)
        self._db.write(self._announce, last, happening)
        if last is not None:
            while self._db.write(self._delete, last):
                pass
        return count

    def _announce(self, connection, last, happening):
        """Writes the row of a purge up to the row of this number."""
        row = connection.execute("select hash from audit where agent=? and n=?",
                                 (self._agent, last)).fetchone()
        words = "-AUDIT" + (" %d %s" % (last, row[0]) if row else "")
        self._append(connection, [happening._replace(act=happening.act._replace(
            verb=PURGE_AUDIT, object=words))])

    def _delete(self, connection, last):
        """Deletes the oldest rows up to this number, some of them -> how many."""
        return connection.execute(
            "delete from audit where agent=? and n in (select n from audit where agent=? and n<=?"
            " order by n limit ?)", (self._agent, self._agent, last, PURGED_AT_ONCE)).rowcount


def _as_column(text):
    """A text that the table can hold, whatever the host or a client calls things."""
    return text[:MAX_WORDS].encode("utf-8", "backslashreplace").decode("utf-8")


def _list_page(connection, filters, key, limit):
    """The rows before this key (time, agent, n) in the order of AUDIT."""
    where, values = ["(time, agent, n) < (?, ?, ?)"], list(key)
    if filters.since is not None:
        where.append("time >= ?")
        values.append(to_text(filters.since))
    if filters.who is not None:
        where.append("(user = ? or os_user = ?)")
        values += [filters.who, filters.who]
    if filters.verb is not None:
        where.append("(verb = ? or substr(verb, 1, length(?) + 1) = ? || ' ')")
        values += [filters.verb] * 3
    return connection.execute("select * from audit where %s order by time desc, agent desc, n desc"
                              " limit ?" % " and ".join(where), values + [limit]).fetchall()


def list_ends(connection):
    """{agent: Link} of the newest rows of all chains."""
    rows = connection.execute(
        "select agent, n, hash from audit natural join"
        " (select agent, max(n) as n from audit group by agent)").fetchall()
    return {agent: Link(n, text) for agent, n, text in rows}


class ChainState(NamedTuple):
    """What a look through a chain has shown."""
    agent: str
    count: int              # rows that follow each other, up to what is wrong
    head: str               # hash of the last of them
    fault: str              # what is wrong, and with which row; nothing: it is whole
    has_noted: bool        # whether a row has the hash that was noted elsewhere


def check_chains(connection, noted=None):
    """Yields the ChainState of each chain; `noted`: a hash that one of them may have."""
    if connection.execute("select 1 from sqlite_master where name='audit'").fetchone() is None:
        return
    before = connection.text_factory
    connection.text_factory = lambda data: data.decode("utf-8", "replace")   # it may be no UTF-8
    try:
        rows = connection.execute("select * from audit order by agent, n")
        for agent, group in itertools.groupby(rows, key=lambda row: row["agent"]):
            walk = _Walk(noted)
            for row in group:
                walk.take(row)
            yield ChainState(agent, walk.count, walk.end.hash, walk.find_fault(), walk.has_noted)
    finally:
        connection.text_factory = before


class _Walk:
    """A way through one chain, from its oldest row on."""

    def __init__(self, noted):
        self.count, self.end, self.has_noted = 0, None, False
        self._noted, self._fault = noted, ""
        self._first = None          # Link of the row before the first one that is there
        self._purged = []           # [Link] of the last rows that were purged

    def take(self, row):
        """The next row."""
        if self._first is None:
            self._first = self.end = _link_before(row)
        is_intact = hash_row(row) == row["hash"]
        purged = is_intact and row["verb"] == PURGE_AUDIT and _PURGED.fullmatch(str(row["object"]))
        if purged:
            self._purged.append(Link(int(purged.group(1)), purged.group(2)))
        self._fault = self._fault or self._find_fault_of(row) or (
            "" if is_intact else "row %s is not as it was written" % row["n"])
        if not self._fault:
            self.count, self.end = self.count + 1, Link(row["n"], row["hash"])
            self.has_noted = self.has_noted or row["hash"] == self._noted

    def _find_fault_of(self, row):
        """What is wrong with the place of a row, in words, or nothing."""
        if row["n"] != self.end.n + 1:
            return "row %d is missing" % (self.end.n + 1)
        return "" if row["previous"] == self.end.hash else \
            "row %d does not follow row %d" % (row["n"], self.end.n)

    def find_fault(self):
        """What is wrong with the chain first, or nothing. A purge may have taken its begin."""
        first = self._first
        if first != Link(0, "") and not any(
                first.n < last.n or first == last for last in self._purged):
            return "row %d is missing, and no purge took it" % first.n if first.n > 0 else \
                "row 1 does not begin the chain"
        return self._fault


def _link_before(row):
    """The Link of the row that stands, or stood, before this one."""
    is_number = isinstance(row["n"], int)
    return Link(row["n"] - 1 if is_number else 0, row["previous"])
