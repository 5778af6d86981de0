"""Opening the master repository, and making what is not there yet."""
import contextlib
import fcntl
import os

from ..base.vocabulary import DEFAULT_REPOSITORY
from ..base.errors import AgentError, CannotStart, RepositoryError
from ..base.files import OF_ANOTHER
from ..store.files import network_file_system, tell_doors, whole_database
from ..store.locks import open_lock
from ..store.master import Master
from ..store.restore import check_restored
from ..store.work import WorkRepository


def make_repositories(master_path, clock):
    """Makes a master with the work repository WORKREP beside it; what is there is kept.

    Each appears whole under its name, and one process makes them: agent and --import may come
    at once. CannotStart when what is there is somebody else's.
    """
    work_path = os.path.join(os.path.dirname(os.path.abspath(master_path)), "workrep.db")
    lock_path = master_path + ".create.lock"
    lock = open_lock(lock_path, master_path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(master_path):
            return
        if os.path.exists(work_path):
            check_owner(work_path)
        else:
            with whole_database(work_path, "new") as new:
                WorkRepository(1, DEFAULT_REPOSITORY, new, clock).fill(clock).db.close()
        work = WorkRepository(1, DEFAULT_REPOSITORY, work_path, clock).open()
        work.db.close()
        with whole_database(master_path, "new") as new:
            master = Master(new, clock).open()
            master.attach_as(1, DEFAULT_REPOSITORY, work_path, work.db.uuid)
            master.db.close()
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock_path)
        os.close(lock)


def check_owner(path):
    """CannotStart when a file, or the link to it, that nobody has named is another user's."""
    for status in (os.lstat(path), os.stat(path)):
        if status.st_uid not in (os.geteuid(), 0):
            raise CannotStart(OF_ANOTHER % (path, status.st_uid))


def open_master(settings, clock):
    """The Master of these settings, made when that is wanted. CannotStart."""
    path = settings.master
    check_restored(path)
    try:
        is_there = os.path.exists(path)
        if not is_there and not settings.is_creating:
            raise CannotStart("the master repository %s does not exist; --create makes it" % path)
        check_file_system(path, settings.is_insecure_fs)
        if not is_there:
            make_repositories(path, clock)
        master = Master(path, clock).open()
        tell_doors(master.db.label, path)
        return master
    except (OSError, AgentError) as error:
        raise CannotStart(str(error)) from None


def check_file_system(path, is_insecure_fs):
    """RepositoryError for a network file system, unless the user knows better."""
    kind = network_file_system(path)
    if kind and not is_insecure_fs:
        raise RepositoryError("%s is on a network file system (%s), where SQLite's locks cannot "
                              "be trusted; --insecure-fs says you know better" % (path, kind))


def open_work(attachment, clock, inbox, is_insecure_fs, is_creating=False, home=None):
    """Opens the work repository of an Attachment, whose id and uuid may be None: those of the
    file; or makes it, with OSError. `home` as of WorkRepository. RepositoryError."""
    number, name, path, expected_uuid = attachment
    check_file_system(path, is_insecure_fs)
    if is_creating:
        return WorkRepository.create(number, name, path, clock, inbox, home)
    if not os.path.exists(path):
        raise RepositoryError("work repository %s: %s does not exist" % (name, path))
    return WorkRepository(number, name, path, clock, inbox, home).open(expected_uuid)
