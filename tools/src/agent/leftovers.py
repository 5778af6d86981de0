"""Folders in the spools of engines whose tasks have ended, and that a crash has left there."""
import functools

from ..base.program import log
from ..tasks.task import TaskError


def spend_folders(repository, agent, topology, engines):
    """Has those of an agent's sessions deleted, by and by. RepositoryError."""
    if repository.is_copy:              # they may be another's
        return
    runs = repository.engine_runs
    for name, folder in repository.db.read(runs.list_spent, agent):
        try:
            watch = engines.watch(topology.engine(name))
        except TaskError as error:
            log.warning("%s stays: %s", folder, error)
            continue
        watch.spend(folder, functools.partial(repository.db.submit, runs.forget_folder, folder))
