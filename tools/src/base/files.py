"""Files that are made, opened and replaced where others may write: under names and checks of ours.

In a folder that others may write, a name that can be foreseen may be a link to a file of ours, or a
file that somebody wants us to take for ours. So what is made beside a file has a name that nobody
can foresee; where another process must find it, what is found is checked.
"""
import contextlib
import errno
import json
import os
import shutil
import stat

from .errors import RepositoryError

BESIDE_DATABASE = ("-wal", "-shm", "-journal")      # what SQLite keeps beside a file
OF_ANOTHER = ("%s belongs to another user (uid %d), so it is not used: delete it if nobody needs "
              "it, or chown it if it is yours")
MOVE_IT = "move the repository to a folder of your own"
NAME_KEPT = 100         # bytes of a file's name in that of one beside it: no system takes fewer


def unforeseen():
    """16 hexadecimal digits that nobody can foresee."""
    return os.urandom(8).hex()


def name_beside(path, ending):
    """A new name in the folder of `path`: .NAME.UNFORESEEN.ENDING, where a long NAME is cut."""
    folder, name = os.path.split(path)
    name = os.fsencode(name)[:NAME_KEPT].decode("utf-8", "ignore").encode()    # cuts no character
    return os.path.join(folder, ".%s.%s.%s" % (os.fsdecode(name), unforeseen(), ending))


def list_beginning(prefix):
    """The paths that begin with `prefix` and lie in its folder; none when that is gone. Of the
    others there, which may be many, nothing is kept meanwhile."""
    folder, beginning = os.path.split(prefix)
    try:
        with os.scandir(folder or ".") as entries:
            return [os.path.join(folder, entry.name) for entry in entries
                    if entry.name.startswith(beginning)]
    except OSError:
        return []


def open_new(path, mode=0o600):
    """A descriptor of a file that it makes, never through a link. FileExistsError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)


def make_private(path):
    """Makes an empty file with mode 0600; FileExistsError when there is one."""
    os.close(open_new(path))


def make_folder(path):
    """Makes a folder, and those missing above it, with mode 0700; tells whether it was missing."""
    above = os.path.dirname(path)
    if above and not os.path.exists(above):
        make_folder(above)              # makedirs of Python 3.7 gives these another mode
    try:
        os.mkdir(path, 0o700)
        return True
    except FileExistsError:
        return False


def own_users(path):
    """Whose files beside a repository are taken for ours: those of this process's user, of root,
    and of the repository's owner, who can do with it what he likes anyway."""
    users = {os.geteuid(), 0}
    with contextlib.suppress(OSError):
        users.add(os.stat(path).st_uid)
    return users


def find_fault(path, status, owners=None, mask=0):
    """Why a file of this status is not to be taken for ours, and what to do; or None.

    `owners`: the users whose it may be, None for any. `mask`: bits that its mode must not have.
    """
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
        return "%s is %s, so it is not used: delete it" % (path, kind)
    if owners is not None and status.st_uid not in owners:
        return OF_ANOTHER % (path, status.st_uid)
    if status.st_nlink > 1 and list_doors(path):
        return "%s has another name, too (a hard link), so it is not used: delete one of " \
               "the names" % path
    if status.st_mode & mask:
        return "%s is open to other users (mode %04o), so it is not used: delete it" % (
            path, stat.S_IMODE(status.st_mode))
    return None


def find_fault_beside(path):
    """find_fault for what SQLite keeps beside a file; or None.

    SQLite takes a -wal or -journal that it finds for its own, and before 3.31 follows links there.
    Whoever may write the file itself may have made one.
    """
    try:
        is_shared = os.stat(path).st_mode & 0o022
    except OSError:
        return None                     # the opening tells what is wrong
    real, owners = os.path.realpath(path), None if is_shared else own_users(path)
    for suffix in BESIDE_DATABASE:
        with contextlib.suppress(FileNotFoundError):
            fault = find_fault(real + suffix, os.lstat(real + suffix), owners)
            if fault:
                return fault
    return None


def open_own(path, flags, owners, mask=0):
    """A descriptor of a file that is there and is ours. RepositoryError (find_fault), OSError."""
    try:        # a pipe that somebody has put there must not make us wait
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        fault = find_fault(path, os.lstat(path), owners, mask)
        if fault:
            raise RepositoryError(fault) from None
        raise
    fault = find_fault(path, os.fstat(fd), owners, mask)
    if fault:
        os.close(fd)
        raise RepositoryError(fault)
    return fd


def is_own(path, owners):
    """Whether there is a regular file of one of these users."""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        return stat.S_ISREG(status.st_mode) and status.st_uid in owners
    return False


def remove_own(path, owners):
    """Deletes a regular file of one of these users; what is somebody else's stays."""
    if is_own(path, owners):
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def naming(path):
    """An OSError of a name that was made up is one of the name that the user knows."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


@contextlib.contextmanager
def part_beside(path, note=None):
    """A name beside `path`: what is made there takes that place at the end, or is gone.

    `note`: the descriptor of a file that tells this name, for whoever has to do it when this
    process is killed. It takes no place of a device, pipe or socket: FileExistsError.
    """
    with contextlib.suppress(FileNotFoundError):
        present = os.stat(path).st_mode
        if not stat.S_ISREG(present) and not stat.S_ISDIR(present):
            raise FileExistsError(errno.EEXIST, "is no regular file", path)
    part = name_beside(path, "part")
    if note is not None:
        os.ftruncate(note, 0)
        os.pwrite(note, json.dumps(os.path.abspath(part)).encode(), 0)
    try:
        yield part
        with naming(path):
            os.replace(part, path)
    except BaseException:
        remove_all(part)
        raise
    if note is not None:
        os.ftruncate(note, 0)


@contextlib.contextmanager
def written_beside(path, mode="wb", access=0o666, note=None, **keywords):
    """A file that appears under its name when it is whole, and not at all otherwise. `access` is
    its mode, less the umask; `note` as of part_beside."""
    with part_beside(path, note) as part:
        with naming(path):
            file = open(part, mode, opener=lambda name, _: open_new(name, access), **keywords)
        with file:
            yield file


def remove_all(path):
    """Deletes a file, or a folder with all that is in it, as far as it can be."""
    if os.path.islink(path) or not os.path.isdir(path):
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    for folder, names, _ in os.walk(path):
        for each in [folder] + [os.path.join(folder, name) for name in names]:
            if not os.path.islink(each):
                with contextlib.suppress(OSError):
                    os.chmod(each, 0o700)       # from one that is read-only nothing can be deleted
    shutil.rmtree(path, ignore_errors=True)


def list_doors(path):
    """Where users other than this process's, and root, may replace a file or put one beside it:
    [what is wrong, and the command that mends it], the nearest first."""
    doors = [_find_door(path, False)] if os.path.exists(path) else []
    for start in (os.path.abspath(path), os.path.realpath(path)):
        above = start
        while above != os.path.dirname(above):
            above = os.path.dirname(above)
            doors.append(_find_door(above, above != os.path.dirname(start)))
    return list(dict.fromkeys(door for door in doors if door))


def _find_door(path, is_above):
    """list_doors for one file or folder; in a folder above, a sticky bit protects what is ours."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        if status.st_uid not in (os.geteuid(), 0):
            return "%s belongs to uid %d (%s, or run as that user)" % (path, status.st_uid, MOVE_IT)
        is_sticky = status.st_mode & stat.S_ISVTX
        if status.st_mode & 0o022 and not (is_above and is_sticky):
            return "%s may be written by others (chmod go-w %s%s)" % (
                path, path, "; if it is there for all, " + MOVE_IT if is_sticky else "")
    return None


def mtime_ns(path):
    """When a file was written last: nanoseconds since the epoch, 0 when it is gone."""
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return 0


def sync_folder(path):
    """Puts on disk that a file has its name."""
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):      # some systems cannot
            os.fsync(fd)
    finally:
        os.close(fd)
