"""The notices of a master: their definitions, and what waits to be sent of each."""
import contextlib
import json
import os

from ..base.errors import NotFound
from ..base.times import find_time, to_text

MAX_EVENTS = 1000       # of one message; further ones are counted alone

NOTICE_TABLES = """
create table notice (
    name text primary key,
    definition text not null,           -- JSON, as it was imported
    added text not null                 -- what happened before is not told
);
create table notice_message (           -- one that waits
    id text primary key,                -- in its Message-ID, its Idempotency-Key
    notice text not null, agent text not null,
    opened text not null,               -- when its first event came
    due text not null,                  -- when it is sent, or tried again
    tried text,                         -- when it was tried first; null: it takes further events
    tries integer not null default 0,
    count integer not null default 0,   -- of its events
    fault text not null default ''      -- why the last try failed
);
create index notice_message_of on notice_message(notice, agent);
create table notice_event (
    message text not null, n integer not null,
    event text not null,                -- JSON
    primary key (message, n)
) without rowid;
create table notice_taken (             -- a happening that its work repository has still
    id text primary key
) without rowid;
create table notice_state (             -- how it went last
    notice text not null, agent text not null,
    last text, message text not null default '',
    primary key (notice, agent)
) without rowid;
"""


def read_definition(name, text):
    """A definition as documents have it, or None: another program has spoilt it."""
    with contextlib.suppress(ValueError, TypeError):
        definition = json.loads(text)
        if isinstance(definition, dict) and definition.get("name") == name:
            return definition
    return None


def read_event(text):
    """An event, or None: another program has spoilt it."""
    with contextlib.suppress(ValueError, TypeError):
        return json.loads(text)
    return None


def list_documents(connection):
    """[definition] of the notices by name, as documents have them."""
    return list(filter(None, [read_definition(name, text) for name, text in connection.execute(
        "select name, definition from notice order by name")]))


def put_notice(connection, document, now):
    """Adds a notice, or gives it another definition."""
    text = json.dumps(document)
    if not connection.execute("update notice set definition=? where name=?",
                              (text, document["name"])).rowcount:
        connection.execute("insert into notice(name, definition, added) values (?, ?, ?)",
                           (document["name"], text, to_text(now)))


class StoredNotices:
    """The notices of a master, for one agent of it. Every method waits for its commit, and raises
    RepositoryError."""

    def __init__(self, database, agent, clock):
        self._db, self._agent, self._clock = database, agent, clock

    def list_all(self):
        """[(definition as a document has it, when it was added)] by name."""
        with self._db.reading() as connection:
            rows = connection.execute("select name, definition, added from notice order by name"
                                      ).fetchall()
        definitions = [(read_definition(name, text), find_time(added) or 0.0)
                       for name, text, added in rows]
        return [pair for pair in definitions if pair[0] is not None]

    def forget_added(self, now):
        """The clock was set back: of those that were added later than now it is not known what
        happened before."""
        self._db.write(self._forget_added, to_text(now))

    @staticmethod
    def _forget_added(connection, now):
        connection.execute("update notice set added=? where added>?", (to_text(0.0), now))

    def delete(self, name):
        """Deletes a notice and what waits of it. NotFound."""
        self._db.write(self._delete, name)

    @staticmethod
    def _delete(connection, name):
        if not connection.execute("delete from notice where name=?", (name,)).rowcount:
            raise NotFound("no notice %s" % name)
        connection.execute("delete from notice_event where message in"
                           " (select id from notice_message where notice=?)", (name,))
        for table in ("notice_message", "notice_state"):
            connection.execute("delete from %s where notice=?" % table, (name,))

    # -- what happens ------------------------------------------------------------------

    def take(self, happenings):
        """[(id of a happening, [(notice, group_s, event)])] -> into the messages that take events;
        what was taken before is not again."""
        self._db.write(self._take, happenings, self._clock.now())

    def _take(self, connection, happenings, now):
        for happening, events in happenings:
            if connection.execute("insert or ignore into notice_taken values (?)",
                                  (happening,)).rowcount:
                for name, group_s, event in events:
                    self._add_event(connection, name, group_s, event, now)

    def _add_event(self, connection, name, group_s, event, now):
        """One more event of a notice, unless that was deleted meanwhile."""
        if not connection.execute("select 1 from notice where name=?", (name,)).fetchone():
            return
        row = connection.execute("select id, count from notice_message where notice=? and agent=?"
                                 " and tried is null", (name, self._agent)).fetchone()
        number, count = row or (os.urandom(16).hex(), 0)
        if row is None:
            connection.execute("insert into notice_message(id, notice, agent, opened, due) values"
                               " (?, ?, ?, ?, ?)", (number, name, self._agent, to_text(now),
                                                    to_text(now + group_s)))
        if count < MAX_EVENTS:
            connection.execute("insert into notice_event values (?, ?, ?)",
                               (number, count, json.dumps(event)))
        connection.execute("update notice_message set count=count+1 where id=?", (number,))

    def forget_taken(self, happenings):
        """Their work repository has them no longer."""
        self._db.write(self._forget_taken, happenings)

    @staticmethod
    def _forget_taken(connection, happenings):
        connection.executemany("delete from notice_taken where id=?", [(id,) for id in happenings])

    # -- what waits --------------------------------------------------------------------

    def list_waiting(self):
        """The rows of messages that wait, of each notice in their order, times as epoch seconds."""
        with self._db.reading() as connection:
            rows = connection.execute("select * from notice_message where agent=?"
                                      " order by notice, tried is null, opened", (self._agent,)
                                      ).fetchall()
        return [dict(row, due=find_time(row["due"]) or 0.0, tried=find_time(row["tried"]))
                for row in rows]

    def begin(self, message, now):
        """A message is tried: it takes no further events -> (how many it had, its events)."""
        return self._db.write(self._begin, message, to_text(now))

    @staticmethod
    def _begin(connection, message, now):
        # a first try that is ahead was before the clock was set back
        connection.execute("update notice_message set tried=min(coalesce(tried, ?1), ?1)"
                           " where id=?2", (now, message))
        row = connection.execute("select count from notice_message where id=?",
                                 (message,)).fetchone()
        events = connection.execute("select event from notice_event where message=? order by n",
                                    (message,)).fetchall()
        return row[0] if row else 0, [read_event(text) for text, in events]

    def put_off(self, message, due, fault):
        """A try has failed; it is tried again."""
        self._db.write(self._put_off, message, to_text(due), fault)

    @staticmethod
    def _put_off(connection, message, due, fault):
        connection.execute("update notice_message set due=?, fault=?, tries=tries+1 where id=?",
                           (due, fault, message))

    def settle(self, message, name, text, sent=None):
        """A message was sent, or is given up: what is to be said of that."""
        self._db.write(self._settle, message, name, text, sent and to_text(sent))

    def _settle(self, connection, message, name, text, sent):
        connection.execute("delete from notice_event where message=?", (message,))
        if connection.execute("delete from notice_message where id=?", (message,)).rowcount:
            connection.execute("insert or ignore into notice_state(notice, agent) values (?, ?)",
                               (name, self._agent))
            connection.execute("update notice_state set message=?, last=coalesce(?, last) where"
                               " notice=? and agent=?", (text, sent, name, self._agent))

    def list_states(self):
        """{notice: (when it was sent last or None, what is to be said of that)}."""
        with self._db.reading() as connection:
            return {name: (find_time(last), text) for name, last, text in connection.execute(
                "select notice, last, message from notice_state where agent=?", (self._agent,))}
