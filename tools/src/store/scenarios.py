"""Scenario versions of a work repository, and the import of a document."""
import hashlib
import json

from ..base.errors import AgentError, Conflict, Exists, NotFound
from ..base.words import version_key
from ..definitions.model import canonical
from ..definitions.reader import faulty, parse_scenario


class ScenarioTables:
    """Scenarios and their definitions; a part of WorkRepository."""

    def find_version(self, connection, name, version):
        """The row of a scenario version (-1: the latest), or None."""
        query = ("select s.name, s.version, s.definition, d.body from scenario s"
                 " join definition d on d.id = s.definition where s.name=?")
        if version == "-1":
            return connection.execute(
                query + " order by s.version_key desc, s.version desc limit 1",
                (name,)).fetchone()
        return connection.execute(query + " and s.version=?", (name, version)).fetchone()

    def get_version(self, connection, name, version):
        """find_version, or NotFound."""
        row = self.find_version(connection, name, version)
        if row is None:
            raise NotFound("%s in repository %s" % (self._tell_missing(connection, name, version),
                                                    self.name))
        return row

    def _tell_missing(self, connection, name, version):
        if self.find_version(connection, name, "-1"):
            return "scenario %s has no version %s" % (name, version)
        return "no scenario %s" % name

    def parsed(self, definition, body):
        """The Scenario of a definition; after a rollback or purge its id may get another body."""
        found = self._parsed.get(definition)
        if found is None or found[0] != body:
            found = self._parsed[definition] = body, parse_scenario(json.loads(body))
        return found[1]

    def find_parsed(self, name, version):
        """The Scenario of a version (-1: the latest), or None; RepositoryError."""
        with self.db.reading() as connection:
            row = self.find_version(connection, name, version)
        return row and self.parsed(row["definition"], row["body"])

    def has_scenario(self, name, version):
        """Whether the repository has this scenario version; RepositoryError."""
        with self.db.reading() as connection:
            return self.find_version(connection, name, version) is not None

    def list_scenarios(self, connection, name=None, version=None):
        """Rows of scenario versions with their body, in natural order."""
        where, values = "", []
        for column, value in (("s.name", name), ("s.version", version)):
            if value is not None:
                where += " and %s=?" % column
                values.append(value)
        return connection.execute(
            "select s.*, d.body from scenario s join definition d on d.id = s.definition"
            " where 1" + where + " order by s.name, s.version_key, s.version", values).fetchall()

    def import_document(self, connection, document, agent, now, is_replacing=False,
                        list_forgotten=None):
        """Puts scenarios and schedules in (put_schedule); BadRequest or Exists with faults, nothing
        half done.

        Returns the counts (scenarios, schedules) that were made or changed.
        """
        conflicts, faults, count, changed = [], [], 0, 0
        for index, scenario in enumerate(document.scenarios):
            if scenario is None:
                continue
            made = self._import_scenario(connection, scenario, now, is_replacing)
            if made is None:
                conflicts.append(("scenarios[%d]" % index, "%s %s exists with another definition; "
                                  "give it a new version, or replace it with -REPLACE (from a "
                                  "shell --replace)"
                                  % (scenario.name, scenario.version)))
            count += bool(made)
        for index, schedule in enumerate(document.schedules):
            if schedule is None:
                continue
            row = self.find_version(connection, schedule.scenario, schedule.version)
            if row is None:
                faults.append(("schedules[%d].scenario" % index, self._tell_missing(
                    connection, schedule.scenario, schedule.version)))
                continue
            known = self.parsed(row["definition"], row["body"])
            faults += [("schedules[%d].variables.%s" % (index, name),
                        "scenario %s %s has no variable of that name"
                        % (schedule.scenario, row["version"]))
                       for name in schedule.variables
                       if name not in known.variables and name not in known.secrets]
            faults += [("schedules[%d].variables.%s" % (index, name),
                        "is secret, a schedule cannot "
                        "give it") for name, source in known.secrets.items()
                       if name in schedule.variables or not source]
            changed += self.put_schedule(connection,
                                         schedule._replace(agent=schedule.agent or agent),
                                         now, list_forgotten)
        for index, schedule in enumerate(document.schedules):
            try:
                if schedule is not None:
                    self.check_conditions(connection, schedule)
            except AgentError as error:
                faults.append(("schedules[%d].after" % index, error.message))
        if conflicts:
            raise Exists("nothing was imported: %s: %s" % conflicts[0], conflicts + faults)
        if faults:
            raise faulty(faults)
        return count, changed

    def _import_scenario(self, connection, scenario, now, is_replacing):
        """True when made, False when it was there, None when another one is."""
        self._imports += 1
        body = json.dumps(scenario.document)
        digest = hashlib.sha256(canonical(scenario.document).encode()).hexdigest()
        row = connection.execute(
            "select d.digest from scenario s join definition d on d.id = s.definition"
            " where s.name=? and s.version=?", (scenario.name, scenario.version)).fetchone()
        if row and row["digest"] == digest:
            return False
        if row and not is_replacing:
            return None
        connection.execute("insert or ignore into definition(digest, body) values (?, ?)",
                           (digest, body))
        definition = connection.execute("select id from definition where digest=?",
                                        (digest,)).fetchone()[0]
        connection.execute("replace into scenario values (?, ?, ?, ?, ?)",
                           (scenario.name, scenario.version, version_key(scenario.version),
                            definition, now))
        return True

    def drop_scenario(self, connection, name, version):
        """Deletes a version; NotFound, or Conflict while a schedule names it."""
        self._imports += 1
        row = self.get_version(connection, name, version)
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
        self._forget_definitions(connection)

    def _forget_definitions(self, connection):
        connection.execute("delete from definition where id not in"
                           " (select definition from scenario)"
                           " and id not in (select definition from session)")
