"""Secrets that came with EXEC or RESTART: files beside a repository, never in it."""
import contextlib
import fcntl
import json
import os

from ..base.errors import RepositoryError
from ..base.files import (list_beginning, open_new, open_own, own_users, remove_own, sync_folder,
                          unforeseen)
from ..base.program import log


class SecretFiles:
    """Files of mode 0600, FILE.secret.UNFORESEEN, whose name the row of their session holds; of an
    agent before there were such names it is FILE.secret.SESSION.

    Other agents may have the repository, too. So a file whose session is not committed yet is
    locked (flock): whoever sweeps leaves it, and a crash gives it free.
    """

    def __init__(self, path):
        self._path = path
        self._fresh = {}                # name of a file that is not committed yet: its descriptor

    def _path_of(self, name):
        return "%s.secret.%s" % (self._path, name)

    def write(self, secrets):
        """On disk before the session that they are for -> the file's name. RepositoryError: nothing
        stays."""
        name, fd = unforeseen(), None
        try:
            fd = self._fresh[name] = open_new(self._path_of(name))
            fcntl.flock(fd, fcntl.LOCK_EX)
            with open(fd, "w", encoding="utf-8", closefd=False) as file:
                json.dump(secrets, file)
            os.fsync(fd)
            sync_folder(self._path_of(name))
        except OSError as error:
            self.settle(name, False)
            raise RepositoryError("the secret cannot be kept beside %s: %s"
                                  % (self._path, error.strerror)) from None
        if os.fstat(fd).st_nlink:
            return name
        self.settle(name, False)        # another agent swept before it was locked
        return self.write(secrets)

    def settle(self, name, is_used):
        """The request of a file was answered: its session's row has the name now, or nothing
        will."""
        if not is_used:
            self.forget(name)
        fd = self._fresh.pop(name, None)
        if fd is not None:
            os.close(fd)

    def read(self, name):
        """The secrets of a file, by the names of their variables; what is not ours is told and not
        taken."""
        try:
            fd = open_own(self._path_of(name), os.O_RDONLY, own_users(self._path), mask=0o077)
            with open(fd, encoding="utf-8") as file:
                return dict(json.load(file))
        except FileNotFoundError:
            return {}
        except (RepositoryError, OSError, ValueError, TypeError) as error:
            log.warning("a secret is not taken: %s", error)
            return {}

    def forget(self, name):
        """After the end of its session nothing of them is left."""
        remove_own(self._path_of(name), own_users(self._path))

    def list_names(self):
        """The names of all files."""
        start = len(self._path_of(""))
        return {path[start:] for path in list_beginning(self._path_of(""))}

    @contextlib.contextmanager
    def settled(self, names):
        """Those of some files that no agent is about to commit; nobody can begin to before the
        end of the `with`."""
        locked, owners = set(), own_users(self._path)
        with contextlib.ExitStack() as files:
            for name in names:
                with contextlib.suppress(RepositoryError, OSError):
                    fd = open_own(self._path_of(name), os.O_RDONLY, owners)
                    files.callback(os.close, fd)
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    locked.add(name)
            yield locked
