"""Locks that the kernel holds on files beside a master: the one live agent of a name."""
import contextlib
import fcntl
import os

from ..base.errors import CannotStart, RepositoryError
from ..base.files import open_new, open_own, own_users


def open_lock(path, master):
    """A descriptor of a file to lock beside a master, made when it is not there. CannotStart."""
    while True:
        try:
            return open_new(path)
        except FileExistsError:
            pass
        try:
            return open_own(path, os.O_RDWR, own_users(master))
        except FileNotFoundError:       # its holder has just removed it
            continue
        except RepositoryError as error:
            raise CannotStart(error.message) from None


class NameLock:
    """The lock that makes this the one live agent of its name on its master.

    It is the kernel's (flock on a file beside the master), so a crash gives it back.
    """

    def __init__(self, master, name):
        self._master = os.path.realpath(master)
        self._path = "%s.%s.lock" % (self._master, name)
        self._name = name
        self._fd = None

    def take(self):
        """CannotStart says who holds it, or that the file is not ours."""
        while self._fd is None:
            fd = open_lock(self._path, self._master)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(fd, 200).decode("utf-8", "replace").strip()
                os.close(fd)
                raise CannotStart("an agent named %s is running on this master: %s" % (
                    self._name, holder or "it is starting")) from None
            if self._is_the_file(fd):
                self._fd = fd
            else:                       # its holder removed it when it stopped
                os.close(fd)
        return self

    def _is_the_file(self, fd):
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(fd), os.lstat(self._path))
        return False

    def note(self, text):
        """Who holds it, for a second one to tell."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def release(self):
        """Gives it back and leaves no file."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(self._fd)
            self._fd = None
