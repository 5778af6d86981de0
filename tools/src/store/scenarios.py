"""Scenario versions of a work repository, and their definitions."""
import json

from ..base.vocabulary import ALTERED, NEW, SAME
from ..base.digests import sha256
from ..base.errors import Conflict, NotFound, Unreadable
from ..base.times import to_text
from ..base.words import version_key
from ..definitions.model import canonical
from ..definitions.reader import parse_scenario

# JSON text as bytes: where they are no UTF-8, that is the trouble of this one definition
BODY = "cast(d.body as blob) as body"
KEPT_BODIES = 512 * 1024        # bytes of definitions that are kept parsed, twice that at most


class Scenarios:
    """Scenario versions and their definitions; `name` is that of the repository."""

    def __init__(self, name):
        # of scenarios by this agent: what was read before may be out of date
        self.changes = 0
        self._name = name
        # definition id -> (body, Scenario), of those used last, and of those before them
        self._parsed, self._parsed_before = {}, {}
        self._size = 0          # bytes of the bodies in _parsed

    def find(self, connection, name, version):
        """The row of a scenario version (-1: the latest), or None."""
        query = ("select s.name, s.version, s.definition, %s from scenario s"
                 " join definition d on d.id = s.definition where s.name=?" % BODY)
        if version == "-1":
            return connection.execute(
                query + " order by s.version_key desc, s.version desc limit 1",
                (name,)).fetchone()
        return connection.execute(query + " and s.version=?", (name, version)).fetchone()

    def get(self, connection, name, version):
        """The row that find() gives, or NotFound."""
        row = self.find(connection, name, version)
        if row is None:
            raise NotFound("%s in repository %s" % (self.tell_missing(connection, name, version),
                                                    self._name))
        return row

    def tell_missing(self, connection, name, version):
        """In words, what is not there: the scenario, or this version of it."""
        if self.find(connection, name, "-1"):
            return "scenario %s has no version %s" % (name, version)
        return "no scenario %s" % name

    def list_alike(self, connection, name):
        """Names but this one that are at most one letter longer or shorter: the first hundred that
        begin or end as it does, for a writer has no time to compare with all."""
        return [alike for alike, in connection.execute(
            "select distinct name from scenario where name != ?"
            " and length(name) between ? and ? and (substr(name, 1, 1) = ? or substr(name, -1) = ?)"
            " limit 100", (name, len(name) - 1, len(name) + 1, name[:1], name[-1:]))]

    def get_scenario(self, connection, name, version):
        """(row, Scenario) of a version (-1: the latest). NotFound, Unreadable."""
        row = self.get(connection, name, version)
        return row, self.parse(row["definition"], row["body"])

    def parse(self, definition, body):
        """The Scenario of a definition, by its id and its body. Unreadable.

        After a rollback or a purge an id may get another text.
        """
        parsed = self._parsed.get(definition)
        if parsed is not None and parsed[0] == body:
            return parsed[1]
        parsed = self._parsed_before.get(definition)
        if parsed is None or parsed[0] != body:
            try:
                parsed = body, parse_scenario(load_body(body))
            except ValueError as error:
                raise Unreadable("the stored definition %d cannot be read: %s"
                                 % (definition, error)) from None
        if self._size > KEPT_BODIES:    # any thread may come here: nothing is changed in two steps
            self._parsed, self._parsed_before, self._size = {}, self._parsed, 0
        self._parsed[definition] = parsed
        self._size += len(body)
        return parsed[1]

    def parse_stored(self, connection, definition):
        """The Scenario of a definition, by its id alone. Unreadable."""
        return self.parse(definition, self.get_body(connection, definition))

    def find_secrets(self, connection, name, version):
        """The names of the secret variables of a version (-1: the latest); none when there is none.
        Unreadable."""
        row = self.find(connection, name, version)
        return () if row is None else tuple(self.parse(row["definition"], row["body"]).secrets)

    def has(self, connection, name, version):
        """Whether the repository has this scenario version."""
        return self.find(connection, name, version) is not None

    @staticmethod
    def get_body(connection, definition):
        """The body of a definition. Unreadable when another program has deleted it."""
        row = connection.execute("select %s from definition d where id=?" % BODY,
                                 (definition,)).fetchone()
        if row is None:
            raise Unreadable("the stored definition %d is gone" % definition)
        return row["body"]

    def list_versions(self, connection, name=None, version=None):
        """Rows of scenario versions with their body, in natural order."""
        where, values = "", []
        for column, value in (("s.name", name), ("s.version", version)):
            if value is not None:
                where += " and %s=?" % column
                values.append(value)
        return connection.execute(
            "select s.*, %s from scenario s join definition d on d.id = s.definition where 1%s"
            " order by s.name, s.version_key, s.version" % (BODY, where), values).fetchall()

    def put(self, connection, scenario, now, is_replacing):
        """Puts a version in -> new, same, changed (also when it is mended since it could not be
        read), or None where another one is that is not to be replaced. Sessions that share a
        definition have it mended, too."""
        self.changes += 1
        body = json.dumps(scenario.document)
        digest = sha256(canonical(scenario.document).encode()).hexdigest()
        row = connection.execute(
            "select d.id, d.digest, %s from scenario s join definition d on d.id = s.definition"
            " where s.name=? and s.version=?" % BODY, (scenario.name, scenario.version)).fetchone()
        if row and row["digest"] == digest and self._is_readable(row):
            return SAME
        if row and row["digest"] != digest and not is_replacing:
            return None
        connection.execute("insert into definition(digest, body) values (?, ?)"
                           " on conflict(digest) do update set body=excluded.body", (digest, body))
        definition = connection.execute("select id from definition where digest=?",
                                        (digest,)).fetchone()[0]
        connection.execute("replace into scenario values (?, ?, ?, ?, ?)",
                           (scenario.name, scenario.version, version_key(scenario.version),
                            definition, to_text(now)))
        return ALTERED if row else NEW

    def _is_readable(self, row):
        try:
            self.parse(row["id"], row["body"])
        except Unreadable:
            return False
        return True

    def drop(self, connection, name, version):
        """Deletes a version; NotFound, or Conflict while a schedule names it."""
        self.changes += 1
        row = self.get(connection, name, version)
        is_last = connection.execute("select count(*) from scenario where name=?",
                                     (name,)).fetchone()[0] == 1
        for schedule in connection.execute("select name, version from schedule where scenario=?",
                                           (name,)):
            if schedule["version"] == row["version"] or schedule["version"] == "-1" and is_last:
                raise Conflict("schedule %s names scenario %s %s"
                               % (schedule["name"], name, row["version"]))
        waiting = connection.execute("select schedule from schedule_condition where kind='scenario'"
                                     " and name=?", (name,)).fetchone()
        if waiting and is_last:
            raise Conflict("schedule %s runs after scenario %s" % (waiting[0], name))
        connection.execute("delete from scenario where name=? and version=?",
                           (name, row["version"]))
        self.forget_unused(connection)

    def forget_unused(self, connection):
        """Deletes the definitions that no version and no session has any more."""
        connection.execute("delete from definition where id not in"
                           " (select definition from scenario)"
                           " and id not in (select definition from session)")


def load_body(body):
    """The body of a definition -> the object. Unreadable when another program has spoilt it."""
    try:
        return json.loads(body)
    except RecursionError:
        reason = "is nested too deeply"
    except ValueError as error:
        reason = error
    raise Unreadable("a stored definition is not JSON: %s" % reason)
