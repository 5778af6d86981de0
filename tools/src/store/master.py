"""The master repository: agents, what is attached, contexts, data servers, calendars, holds."""
import json
import os
import sqlite3

from ..base.vocabulary import ALTERED, DEFAULT_CONTEXT, LOCAL, NEW, SAME, VERSION, WRITE_S
from ..base.errors import Exists, NotFound
from ..base.times import to_text
from ..base.words import tell_near
from .database import Database, execute
from .engine_runs import ENGINE_TABLES
from .notices import NOTICE_TABLES, list_documents, put_notice
from .records import Attachment, Change, hold_columns, read_hold

MASTER_MIGRATIONS = ("""
create table repository (
    kind text primary key,              -- master
    uuid text not null
);
create table commit_mark (
    writer integer primary key, mark integer not null, time text not null
);
create table agent (
    name text primary key,
    host text not null, port integer not null, version text not null,
    identity text not null,             -- host id/boot id/pid namespace/pid/start time/master
    started text not null, heartbeat text not null, stopped text,
    hold_reason text, hold_by text, hold_since text, hold_until text
);
create table work_repository (
    id integer primary key,
    name text not null unique,
    path text not null,                 -- relative to the master's folder when below it
    uuid text
);
create table context (name text primary key);
insert into context(name) values ('GLOBAL');
""", """
create table data_server (
    name text primary key,
    driver text not null,               -- sqlite3, smtp, or a DB-API module
    database text,                      -- of sqlite3: the file
    connect text not null               -- JSON: arguments of connect(); secrets told by env or file
);
create table logical_schema (
    name text not null, context text not null,
    data_server text not null references data_server(name),
    physical_schema text not null default '',
    primary key (name, context)
);
""", """
create table calendar (
    name text primary key,
    dates text not null                 -- 2026-12-25,2026-12-27..2026-12-31
);
""", """
create table user (
    name text primary key,
    role text not null,                 -- monitor, operator, administrator
    scenarios text not null,            -- patterns between commas; empty: all
    os_user text unique,                -- who is this user without a password
    password text not null,             -- how it was hashed$parameters$salt$hash
    one_time_until text,                -- until when the password lets in, once; null: for ever
    stamp text not null,                -- another one with every password
    created text not null, changed text not null
);
""", """
create table audit (
    agent text not null, n integer not null,            -- 1, 2, ... for each agent
    time text not null,
    user text not null, os_user text not null, address text not null,
    verb text not null, object text not null, outcome text not null,
    count integer not null,
    previous text not null,             -- hash of the row before; nothing in row 1
    hash text not null,                 -- SHA-256 of the other columns as canonical JSON
    primary key (agent, n)
) without rowid;
create index audit_time on audit(time, agent, n);
""", NOTICE_TABLES, ENGINE_TABLES)


class Master:
    """The master repository of one agent."""

    def __init__(self, path, clock):
        self.path, self._clock = os.path.abspath(path), clock
        self.db = Database(self.path, "master", "master repository", MASTER_MIGRATIONS, clock,
                           is_replaceable=True)

    def open(self):
        """Opens the file; RepositoryError."""
        self.db.open()
        return self

    def _relative(self, path):
        folder = os.path.dirname(self.path)
        path = os.path.abspath(path)
        return os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path

    def register(self, name, host, port, identity, now):
        """Notes that the agent of this name is this process."""
        self.db.write(self._put_agent, name,
                      (host, port, VERSION, identity, to_text(now), to_text(now), name))

    @staticmethod
    def _put_agent(connection, name, values):
        connection.execute("insert or ignore into agent(name, host, port, version, identity,"
                           " started, heartbeat) values (?, '', 0, '', '', '', '')", (name,))
        connection.execute("update agent set host=?, port=?, version=?, identity=?, started=?,"
                           " heartbeat=?, stopped=null where name=?", values)

    def heartbeat(self, name, now, is_stopped=False):
        """Notes that the agent lives, or has stopped; does not wait for the commit."""
        return self.db.submit(execute, "update agent set heartbeat=?, stopped=? where name=?",
                              (to_text(now), to_text(now) if is_stopped else None, name),
                              within_s=WRITE_S)

    def list_attachments(self):
        """The attached work repositories by id."""
        with self.db.reading() as connection:
            rows = connection.execute("select * from work_repository order by id").fetchall()
        return [self._attachment_of(*row) for row in rows]

    def _attachment_of(self, number, name, path, repository_uuid):
        """The Attachment of a row of work_repository."""
        return Attachment(number, name, os.path.join(os.path.dirname(self.path), path),
                          repository_uuid)

    def attach_as(self, number, name, path, repository_uuid):
        """Notes a work repository that has its id -> its Attachment as it is listed from now on.
        Exists when the id or name is taken."""
        row = number, name, self._relative(path), repository_uuid
        try:
            self.db.write(execute, "insert into work_repository values (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise Exists("a work repository of id %d or name %s is attached"
                         % (number, name)) from None
        return self._attachment_of(*row)

    def detach(self, number):
        """Forgets a work repository; its file stays."""
        self.db.write(execute, "delete from work_repository where id=?", (number,))

    def list_contexts(self):
        """The names of the contexts."""
        with self.db.reading() as connection:
            return [row[0] for row in connection.execute("select name from context order by name")]

    def put_topology(self, document):
        """Contexts, data servers, logical schemas, calendars and notices of a document, in one
        transaction -> the Changes."""
        return self.db.write(self._put_topology, document, self._clock.now()) \
            if document.has_topology else []

    def rehearse_topology(self, document):
        """The Changes that put_topology would make now."""
        return self.db.read(self._list_changes, document) if document.has_topology else []

    def _list_changes(self, connection, document):
        """[Change] of the topology of a document: what is there already is the same."""
        before, after = self._topology(connection), {
            "contexts": document.contexts, "calendars": [
                dict(each, dates=each["dates"].split(",")) for each in document.calendars],
            "data_servers": [_without_nothing(server) for server in document.data_servers],
            "logical_schemas": document.logical_schemas,
            "notices": [notice["document"] for notice in document.notices],
            "engines": [_without_nothing(engine) for engine in document.engines]}
        changes = []
        for part in ("contexts", "data_servers", "logical_schemas", "calendars", "notices",
                     "engines"):
            there = {_name_of(each): each for each in before[part]}
            for each in after[part]:
                name = _name_of(each)
                change = NEW if name not in there else SAME if there[name] == each else ALTERED
                changes.append(Change(part[:-1], name, None, change))
        return changes

    def _put_topology(self, connection, document, now):
        """Writes the topology of a document -> [Change]."""
        changes = self._list_changes(connection, document)
        connection.executemany("insert or ignore into context(name) values (?)",
                               [(name,) for name in document.contexts])
        connection.executemany(
            "replace into data_server values (?, ?, ?, ?)",
            [(server["name"], server["driver"], server["database"],
              json.dumps(server["connect"])) for server in document.data_servers])
        for schema in document.logical_schemas:
            connection.execute("delete from logical_schema where name=?", (schema["name"],))
            connection.executemany(
                "insert into logical_schema values (?, ?, ?, ?)",
                [(schema["name"], context) + tuple((target + ".").split(".")[:2])
                 for context, target in schema["contexts"].items()])
        connection.executemany("replace into calendar values (?, ?)", [
            (calendar["name"], calendar["dates"]) for calendar in document.calendars])
        for notice in document.notices:
            put_notice(connection, notice["document"], now)
        connection.executemany("replace into engine values (?, ?, ?, ?, ?)", [
            (engine["name"], engine["driver"], json.dumps(engine["options"]), engine["spool"],
             json.dumps(engine["contexts"])) for engine in document.engines])
        return changes

    def topology_faults(self, document):
        """[(path, reason)] of what a document names that neither it nor the master has."""
        with self.db.reading() as connection:
            def names(table):
                return {row[0] for row in connection.execute("select name from " + table)}
            contexts = names("context") | set(document.contexts)
            servers = names("data_server") | {item["name"] for item in document.data_servers}
            schemas = names("logical_schema") | {item["name"] for item in document.logical_schemas}
            calendars = names("calendar") | {item["name"] for item in document.calendars}
            engines = names("engine") | {item["name"] for item in document.engines}
        faults = [("schedules[%d].context" % index, "no context %s" % schedule.context)
                  for index, schedule in enumerate(document.schedules)
                  if schedule and schedule.context not in contexts]
        faults += [("schedules[%d].exclude_dates" % index, "no calendar %s" % name)
                   for index, schedule in enumerate(document.schedules) if schedule
                   for name in schedule.list_calendars() if name not in calendars]
        faults += [(path, "no logical schema %s" % schema)
                   for path, schema in document.list_schemas() if schema not in schemas]
        for index, schema in enumerate(document.logical_schemas):
            for context, target in (schema["contexts"] or {}).items():
                path = "logical_schemas[%d].contexts.%s" % (index, context)
                if context not in contexts:
                    faults.append((path, "no context %s" % context))
                if target.split(".")[0] not in servers:
                    faults.append((path, "no data server %s" % target.split(".")[0]))
        return faults + _engine_faults(document, contexts, engines | {LOCAL})

    def find_data_server(self, name):
        """{name, driver, database, connect} as it was defined, or None."""
        with self.db.reading() as connection:
            row = connection.execute("select * from data_server where name=?", (name,)).fetchone()
        return row and dict(row, connect=json.loads(row["connect"]))

    def find_physical(self, schema, context):
        """(data server, physical schema) behind a logical schema, or None.

        A context without a word of its own about the schema takes GLOBAL's.
        """
        with self.db.reading() as connection:
            row = connection.execute(
                "select data_server, physical_schema from logical_schema where name=?"
                " and context in (?, ?) order by context=? desc limit 1",
                (schema, context, DEFAULT_CONTEXT, context)).fetchone()
        return row and tuple(row)

    def find_engine(self, name):
        """{name, driver, options, spool, contexts} as it was defined, or None."""
        with self.db.reading() as connection:
            row = connection.execute("select * from engine where name=?", (name,)).fetchone()
        return row and _read_engine(row)

    def topology(self):
        """Contexts, data servers, logical schemas, calendars and notices as a document has them."""
        return self.db.read(self._topology)

    @staticmethod
    def _topology(connection):
        """{part: [definition]} as a document has them."""
        servers = connection.execute("select * from data_server order by name").fetchall()
        rows = connection.execute("select * from logical_schema order by name, context").fetchall()
        schemas = {}
        for row in rows:
            target = (row["data_server"]
                      + ("." + row["physical_schema"]) * bool(row["physical_schema"]))
            schemas.setdefault(row["name"], {})[row["context"]] = target
        return {"calendars": [
                    {"name": name, "dates": dates.split(",")} for name, dates in
                    connection.execute("select name, dates from calendar order by name")],
                "contexts": [row[0] for row in connection.execute(
                    "select name from context order by name")],
                "data_servers": [_without_nothing(dict(row, connect=json.loads(row["connect"])))
                                 for row in servers],
                "logical_schemas": [{"name": name, "contexts": contexts}
                                    for name, contexts in schemas.items()],
                "notices": list_documents(connection),
                "engines": [_without_nothing(_read_engine(row)) for row in connection.execute(
                    "select * from engine order by name").fetchall()]}

    def calendars(self):
        """{name: dates} of the calendars."""
        with self.db.reading() as connection:
            return dict(map(tuple, connection.execute("select name, dates from calendar")))

    def put_calendar(self, name, dates, is_new):
        """Adds a calendar or sets its dates. Exists, NotFound."""
        self.db.write(self._put_calendar, name, dates, is_new)

    @staticmethod
    def _put_calendar(connection, name, dates, is_new):
        row = connection.execute("select 1 from calendar where name=?", (name,)).fetchone()
        if row and is_new:
            raise Exists("a calendar %s exists; CALENDAR SET changes it" % name)
        if not row and not is_new:
            raise NotFound("no calendar %s" % name)
        connection.execute("replace into calendar values (?, ?)", (name, dates))

    def delete_calendar(self, name):
        """Deletes a calendar. NotFound."""
        if not self.db.write(execute, "delete from calendar where name=?", (name,)):
            raise NotFound("no calendar %s" % name)

    def find_hold(self, name):
        """The hold of an agent, or None."""
        with self.db.reading() as connection:
            row = connection.execute("select hold_reason, hold_by, hold_since, hold_until"
                                     " from agent where name=?", (name,)).fetchone()
        return row and read_hold(row)

    def set_hold(self, name, hold, within_s=None):
        """Keeps a hold of an agent, or its release (None); does not wait for the commit."""
        return self.db.submit(
            execute,
            "update agent set hold_reason=?, hold_by=?, hold_since=?, hold_until=? where name=?",
            hold_columns(hold) + (name,), within_s=within_s)


def _engine_faults(document, contexts, engines):
    """[(path, reason)] of engines and contexts that a document names and nobody has."""
    faults = [(path, "no engine %s%s" % (name, tell_near(name, engines)))
              for path, name in document.list_engines() if name not in engines]
    for index, engine in enumerate(document.engines):
        for context, target in (engine["contexts"] or {}).items():
            path = "engines[%d].contexts.%s" % (index, context)
            if context not in contexts:
                faults.append((path, "no context %s" % context))
            if target not in engines:
                faults.append((path, "no engine %s" % target))
    return faults


def _read_engine(row):
    """The definition of a row of engine."""
    return dict(row, options=json.loads(row["options"]), contexts=json.loads(row["contexts"]))


def _without_nothing(fields):
    """A dict without what has no value."""
    return {key: value for key, value in fields.items() if value}


def _name_of(definition):
    """The name of a context, which is a text, or of another part of the topology."""
    return definition if isinstance(definition, str) else definition["name"]
