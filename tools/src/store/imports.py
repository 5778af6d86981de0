"""A document of definitions put into a work repository, all of it or nothing."""
import contextlib
import functools

from ..base.vocabulary import NEW
from ..base.errors import AgentError, Exists, Unreadable
from ..base.words import tell_near
from ..definitions.plan import list_runs, list_strangers
from ..definitions.reader import faulty
from .circles import Circles
from .records import Change


class Imports:
    """Scenarios and schedules of documents."""

    def __init__(self, scenarios, schedules):
        self._scenarios, self._schedules = scenarios, schedules

    def put(self, connection, document, agent, now, is_replacing=False, origins=None):
        """Puts scenarios and schedules in -> (the Changes, [(path, warning)]).

        `origins` has the Origin of each schedule of the document that is there by its name; None
        where nobody has looked. BadRequest or Exists with all faults, and Changed: nothing stays.
        """
        conflicts, faults, changes, warnings, imported = [], [], [], [], {}
        for index, scenario in enumerate(document.scenarios):
            if scenario is None:
                continue
            change = self._scenarios.put(connection, scenario, now, is_replacing)
            if change is None:
                conflicts.append(("scenarios[%d]" % index, "%s %s exists with another definition; "
                                  "give it a new version, or replace it with -REPLACE (from a "
                                  "shell --replace)" % (scenario.name, scenario.version)))
            else:
                imported[scenario.name, scenario.version] = scenario
            changes.append(Change("scenario", scenario.name, scenario.version, change))
        find = functools.lru_cache(maxsize=16)(functools.partial(self._scenarios.find, connection))
        faults += self._list_circles(document, find)
        for index, schedule in enumerate(document.schedules):
            wrong = self._list_faults(connection, schedule, imported, find) if schedule else []
            faults += [("schedules[%d].%s" % (index, field), reason) for field, reason in wrong]
            if schedule and not any(field == "scenario" for field, _ in wrong):
                change = self._schedules.put(
                    connection, schedule._replace(agent=schedule.agent or agent), now,
                    (origins or {}).get(schedule.name))
                changes.append(Change("schedule", schedule.name, None, change))
                if schedule.enabled is None and change != NEW and not self._schedules.get(
                        connection, schedule.name)["enabled"]:
                    warnings.append(("schedules[%d].enabled" % index, "stays switched off, for "
                                     "the document does not say; SCHED ON %s switches it on"
                                     % schedule.name))
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
        return changes, (warnings + self._list_nobodies(connection, document)
                         + self._list_strangers(document, find))

    def _list_circles(self, document, find):
        """[(path, reason)] of plans that would start themselves, now that all of a document is put
        in: the path is that of what starts the next of them in this document."""
        places = {(scenario.name, scenario.version): "scenarios[%d]." % index
                  for index, scenario in enumerate(document.scenarios) if scenario}
        faults = []
        for circle in Circles(self._scenarios, find).list(places):
            names = ["%s %s" % place for place, _ in circle]
            for index, (place, path) in enumerate(circle[:-1]):
                if place in places:
                    way = names if names[0] != names[-1] else names[index:-1] + names[:index + 1]
                    way = " > ".join(shorten_way(way))
                    faults.append((places[place] + path, "a plan cannot start itself: " + way))
                    break
        return faults

    def _list_nobodies(self, connection, document):
        """[(path, warning)] of scenarios that tasks name and nobody has."""
        return [(path, self._tell_missing(connection, name, version))
                for path, name, version in document.list_children()
                if self._scenarios.find(connection, name, version) is None]

    def _list_strangers(self, document, find):
        """[(path, warning)] of variables that runs of plans name and their scenarios lack."""
        runs = [("scenarios[%d].%s" % (index, path), body)
                for index, scenario in enumerate(document.scenarios) if scenario and scenario.plan
                for path, body in list_runs(scenario.plan)]
        warnings = []
        for path, body in runs:
            row = find(body.scenario, body.version)     # one that a variable names is not there
            with contextlib.suppress(Unreadable):
                child = row and self._scenarios.parse(row["definition"], row["body"])
                warnings += [("%s.%s" % (path, place), reason)
                             for place, reason in (list_strangers(child, body) if child else ())]
        return warnings

    def _tell_missing(self, connection, name, version):
        """In words, what is not there: this version, or the scenario, and then which name is near.
        """
        missing = self._scenarios.tell_missing(connection, name, version)
        if self._scenarios.find(connection, name, "-1"):
            return missing
        return missing + tell_near(name, self._scenarios.list_alike(connection, name))

    def rehearse(self, connection, *arguments):
        """`put` that is taken back: raises Rehearsed with its result when it would go well, else
        as `put`."""
        raise Rehearsed(self.put(connection, *arguments))

    def _list_faults(self, connection, schedule, imported, find):
        """[(field, reason)] of what the scenario of a schedule does not take: one of `imported`,
        {(name, version): Scenario}, or of the repository, where find(name, version) gives its row.
        """
        name, version = schedule.scenario, schedule.version
        row = find(name, version)
        if row is None:
            return [("scenario", self._tell_missing(connection, name, version))]
        try:
            scenario = imported.get((name, row["version"])) or \
                self._scenarios.parse(row["definition"], row["body"])
        except Unreadable as error:
            return [("scenario", error.message)]
        faults = [("variables." + variable, "scenario %s %s has no variable of that name"
                   % (name, row["version"])) for variable in schedule.variables
                  if variable not in scenario.variables and variable not in scenario.secrets]
        return faults + [("variables." + secret, "is secret, a schedule cannot give it")
                         for secret, source in scenario.secrets.items()
                         if secret in schedule.variables or not source]


def shorten_way(names):
    """The names of a long way with its middle left out."""
    return names if len(names) <= 9 else names[:4] + ["..."] + names[-4:]


class Rehearsed(AgentError):
    """An import was tried, and taken back; `result` is what it would give."""

    def __init__(self, result):
        super().__init__("the import was taken back")
        self.result = result
