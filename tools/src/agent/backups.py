"""BACKUP: the master and all that is attached to it."""
import os

from ..base.vocabulary import VERSION
from ..base.errors import NotFound, RepositoryError, Stopping
from ..base.times import to_text
from ..store.backup import Backup, whole_folder


def back_up(agent, folder):
    """Makes a backup in a new folder; a relative one counts from the master's -> (its path,
    [BackupFile]). Exists; RepositoryError, Stopping: nothing is left of it.

    The master comes last, so that it has all that the others name; what was attached meanwhile
    comes behind it.
    """
    def check():
        if agent.is_stopping:
            raise Stopping("the agent is stopping and makes no backup")

    def add_work(place):
        number, name = place.attachment[:2]
        backup.add(place.get_usable().db, "%d-%s.db" % (number, name), number, name)
    path = os.path.abspath(os.path.join(os.path.dirname(agent.master.path), folder))
    check()
    try:
        with whole_folder(path) as part:
            backup = Backup(part, check)
            for place in agent.places.list_all():
                add_work(place)
            backup.add(agent.master.db, "master.db")
            attached, heads = backup.read_master()
            for entry in backup.files[:-1]:
                if entry.uuid not in attached:
                    backup.remove(entry)
            for identity in set(attached).difference(entry.uuid for entry in backup.files):
                add_work(_get_place(agent, *attached[identity]))
            backup.finish(agent=agent.name, version=VERSION, created=to_text(agent.clock.now()),
                          master=agent.master.path, audit=heads)
    except OSError as error:
        raise RepositoryError("the backup %s cannot be made: %s" % (path, error.strerror)) from None
    return path, backup.files


def _get_place(agent, number, name):
    """The Place of what the master names. NotFound: it was detached since."""
    place = agent.places.find_by_id(number)
    if place is None or place.attachment.name != name:
        raise NotFound("work repository %s was detached meanwhile" % name)
    return place
