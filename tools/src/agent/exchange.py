"""Definitions in and out: import with all its checks, and export."""
import math
from typing import List, NamedTuple

from ..base.errors import BadRequest, Changed, Exists, RepositoryError, Unreadable
from ..base.patterns import is_any_match
from ..base.vocabulary import SAME
from ..definitions.model import Document, schedule_document
from ..definitions.reader import Definitions, faulty
from ..store.imports import Rehearsed
from ..store.records import Change
from ..store.scenarios import load_body

IMPORT_TRIES = 20       # of a document whose schedules come due meanwhile


class Imported(NamedTuple):
    """What came of an import."""
    document: Document
    changes: List[Change]       # a definition each
    warnings: List[tuple]       # (path, reason): what is allowed but looks wrong

    def count(self, kind):
        """How many definitions of a kind were new or have changed."""
        return sum(change.kind == kind and change.change != SAME for change in self.changes)


def import_into(master, repository, text, agent, now, is_replacing, changes=None, is_dry=False,
                tell_forbidden=None):
    """One transaction in the master, one in the work repository -> Imported; `is_dry`: as if,
    nothing is written. BadRequest and Exists carry all the faults.

    `changes`: the ScheduleChanges of the agent that is running, if one is. `tell_forbidden`: as of
    Definitions.
    """
    definitions = Definitions(tell_forbidden=tell_forbidden)
    document = definitions.collect(text)
    faults = definitions.faults + master.topology_faults(document)
    arguments = document, agent, now, is_replacing
    changed = warnings = None
    if is_dry or faults or document.has_topology:
        try:                                    # every fault is found before anything is written
            repository.db.write(repository.imports.rehearse, *arguments)
        except Rehearsed as rehearsed:
            changed, warnings = rehearsed.result
        except BadRequest as error:
            faults += error.faults
        except Exists as error:
            error.faults += faults
            raise
    if faults:
        raise faulty(faults)
    if is_dry:
        return Imported(document, master.rehearse_topology(document) + changed,
                        document.list_warnings() + warnings)
    topology = master.put_topology(document)
    try:
        changed, warnings = _write(repository, changes, arguments)
        return Imported(document, topology + changed, document.list_warnings() + warnings)
    except RepositoryError as error:
        if document.has_topology:
            raise RepositoryError("%s; the master has its part, the same IMPORT completes it"
                                  % error) from None
        raise


def _write(repository, changes, arguments):
    """Puts a document in."""
    if changes is None:
        return repository.db.write(repository.imports.put, *arguments, None)
    with changes.turn(repository):
        return _write_beside(repository, changes, arguments)


def _write_beside(repository, changes, arguments):
    """_write() beside due times: anew when one of its schedules' has come before."""
    document, _, now, _ = arguments
    for is_last in [False] * (IMPORT_TRIES - 1) + [True]:
        origins = changes.find_origins(repository, document.schedules, now)
        try:
            return repository.db.write(repository.imports.put, *arguments, origins)
        except Changed:
            if is_last:
                raise


def list_dues(document, calendars, now):
    """{schedule: when it would be due next, or None} of a document, its own calendars being among
    those; `now` is epoch seconds."""
    calendars = dict(calendars, **{each["name"]: each["dates"] for each in document.calendars})

    def find_next(schedule):
        is_by_clock = schedule.rule and schedule.enabled is not False
        return schedule.timetable(calendars).next_after(math.floor(now)) if is_by_clock else None
    return {schedule.name: find_next(schedule) for schedule in document.schedules}


def export_from(master, repository, name, version, patterns=()):
    """The definitions of a repository, or of a scenario or one version of it, as a document; with
    patterns the scenarios that one of them fits, their schedules, and nothing else."""
    with repository.db.reading() as connection:
        if name is not None:
            latest = repository.scenarios.get(connection, name, version or "-1")["version"]
            version = latest if version == "-1" else version
        scenarios = repository.scenarios.list_versions(connection, name, version)
    schedules = [repository.schedules.read_definition(row) for row in repository.list_schedules()]
    def is_wanted(scenario):
        return name in (None, scenario) and (not patterns or is_any_match(patterns, scenario))
    document = {"scenarios": [_read_body(row) for row in scenarios if is_wanted(row["name"])],
                "schedules": [schedule_document(schedule) for schedule in schedules
                              if is_wanted(schedule.scenario)]}
    if name is None and not patterns:
        document.update(master.topology())
    return {key: value for key, value in document.items() if value}


def _read_body(row):
    """The stored definition of a scenario version. Unreadable says of which."""
    try:
        return load_body(row["body"])
    except Unreadable as error:
        raise Unreadable("scenario %s %s: %s" % (row["name"], row["version"],
                                                 error.message)) from None


class Exchange:
    """What goes into the repositories of a running agent and comes out."""

    def __init__(self, agent):
        self._agent = agent

    def import_document(self, text, repository, is_replacing, is_dry=False):
        """Imports a definitions document, or does as if -> Imported."""
        agent = self._agent
        target = agent.places.get(repository)
        imported = import_into(agent.master, target, text, agent.name, agent.clock.now(),
                               is_replacing, agent.changes, is_dry, agent.bounds.tell_forbidden)
        if is_dry:
            return imported
        document = imported.document
        agent.desk.read_contexts()
        if document.calendars or document.schedules:
            agent.schedules.read_calendars()
        for schedule in document.schedules:
            agent.schedules.refresh(target, schedule.name)
        return imported

    def list_dues(self, document):
        """{schedule: when it would be due next, or None} of a document."""
        return list_dues(document, self._agent.master.calendars(), self._agent.clock.now())

    def export(self, repository, name, version, patterns=()):
        """The definitions of a repository, of a scenario, or of one version, as a document: of
        scenarios that one of the patterns fits, if there are any."""
        places = self._agent.places
        source = places.get(repository) if name is None else \
            places.with_scenario(name, version or "-1", repository)
        return export_from(self._agent.master, source, name, version, patterns)

    def drop_scenario(self, name, version, repository):
        """Deletes a scenario version. NotFound, Conflict."""
        owner = self._agent.places.with_scenario(name, version, repository)
        owner.db.write(owner.scenarios.drop, name, version)
