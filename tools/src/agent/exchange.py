"""Definitions in and out: import with all its checks, and export."""
import json

from ..base.errors import BadRequest, Exists, RepositoryError
from ..definitions.model import schedule_document
from ..definitions.reader import Definitions, faulty


def import_into(master, repository, text, agent, now, is_replacing, list_forgotten=None):
    """One transaction in the master, one in the work repository -> (Document, (scenarios,
    schedules) made or changed). BadRequest and Exists carry all the faults. `list_forgotten` as of
    put_schedule."""
    definitions = Definitions()
    document = definitions.collect(text)

    def work(connection):
        return repository.import_document(connection, document, agent, now, is_replacing,
                                          list_forgotten)

    def rehearse(connection):
        work(connection)
        raise _Rehearsed
    faults = definitions.faults + master.topology_faults(document)
    try:                                        # every fault is found before anything is written
        repository.db.write(rehearse)
    except _Rehearsed:
        pass
    except BadRequest as error:
        faults += error.faults
    except Exists as error:
        error.faults += faults
        raise
    if faults:
        raise faulty(faults)
    master.put_topology(document)
    try:
        return document, repository.db.write(work)
    except RepositoryError as error:
        if document.has_topology:
            raise RepositoryError("%s; the master has its part, the same IMPORT completes it"
                                  % error) from None
        raise


class _Rehearsed(Exception):
    """An import was tried and taken back."""


def export_from(master, repository, name, version):
    """The definitions of a repository, or of a scenario or one version of it, as a document."""
    with repository.db.reading() as connection:
        if name is not None:
            latest = repository.get_version(connection, name, version or "-1")["version"]
            version = latest if version == "-1" else version
        scenarios = repository.list_scenarios(connection, name, version)
    schedules = [repository.schedule_of(row) for row in repository.list_schedules()]
    document = {"scenarios": [json.loads(row["body"]) for row in scenarios],
                "schedules": [schedule_document(schedule) for schedule in schedules
                              if name is None or schedule.scenario == name]}
    if name is None:
        document.update(master.topology())
    return {key: value for key, value in document.items() if value}
