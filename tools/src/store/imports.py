"""A document of definitions put into a work repository, all of it or nothing."""

from ..base.errors import AgentError, Exists, Unreadable
from ..definitions.reader import faulty


class Imports:
    """Scenarios and schedules of documents."""

    def __init__(self, scenarios, schedules):
        self._scenarios, self._schedules = scenarios, schedules

    def put(self, connection, document, agent, now, is_replacing=False, origins=None):
        """Puts scenarios and schedules in -> (scenarios, schedules) that were made or changed.

        `origins` has the Origin of each schedule of the document that is there by its name; None
        where nobody has looked. BadRequest or Exists with all faults, and Changed: nothing stays.
        """
        conflicts, faults, scenarios, schedules = [], [], 0, 0
        for index, scenario in enumerate(document.scenarios):
            if scenario is None:
                continue
            is_new = self._scenarios.put(connection, scenario, now, is_replacing)
            if is_new is None:
                conflicts.append(("scenarios[%d]" % index, "%s %s exists with another definition; "
                                  "give it a new version, or replace it with -REPLACE (from a "
                                  "shell --replace)" % (scenario.name, scenario.version)))
            scenarios += bool(is_new)
        for index, schedule in enumerate(document.schedules):
            wrong = self._list_faults(connection, schedule) if schedule else []
            faults += [("schedules[%d].%s" % (index, field), reason) for field, reason in wrong]
            if schedule and not any(field == "scenario" for field, _ in wrong):
                origin = (origins or {}).get(schedule.name)
                schedules += self._schedules.put(
                    connection, schedule._replace(agent=schedule.agent or agent), now, origin)
        for index, schedule in enumerate(document.schedules):
            try:
                if schedule is not None:
                    self._schedules.check_conditions(connection, schedule)
            except AgentError as error:
                faults.append(("schedules[%d].after" % index, error.message))
        if conflicts:
            raise Exists("nothing was imported: %s: %s" % conflicts[0], conflicts + faults)
        if faults:
            raise faulty(faults)
        return scenarios, schedules

    def rehearse(self, connection, *arguments):
        """`put` that is taken back: raises Rehearsed when it would go well, else as `put`."""
        raise Rehearsed(self.put(connection, *arguments))

    def _list_faults(self, connection, schedule):
        """[(field, reason)] of what the scenario of a schedule does not take."""
        name, version = schedule.scenario, schedule.version
        row = self._scenarios.find(connection, name, version)
        if row is None:
            return [("scenario", self._scenarios.tell_missing(connection, name, version))]
        try:
            known = self._scenarios.parse(row["definition"], row["body"])
        except Unreadable as error:
            return [("scenario", error.message)]
        faults = [("variables." + given, "scenario %s %s has no variable of that name"
                   % (name, row["version"])) for given in schedule.variables
                  if given not in known.variables and given not in known.secrets]
        return faults + [("variables." + secret, "is secret, a schedule cannot give it")
                         for secret, source in known.secrets.items()
                         if secret in schedule.variables or not source]


class Rehearsed(Exception):
    """An import was tried, and taken back; `counts` is what it would have given."""

    def __init__(self, counts):
        super().__init__()
        self.counts = counts
