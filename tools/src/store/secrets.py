"""Secrets that came with EXEC or RESTART: files beside a repository, never in it."""
import glob
import json
import os

from ..base.errors import RepositoryError
from ..base.files import open_new, open_own, own_users, remove_own, sync_folder, unforeseen
from ..base.program import log


class SecretFiles:
    """Files of mode 0600, FILE.secret.UNFORESEEN, whose name the row of their session holds; of an
    agent before there were such names it is FILE.secret.SESSION."""

    def __init__(self, path):
        self._path = path
        self._fresh = set()             # names of files whose session is not committed yet

    def _path_of(self, name):
        return "%s.secret.%s" % (self._path, name)

    def write(self, secrets):
        """On disk before the session that they are for -> the file's name. RepositoryError: nothing
        stays."""
        name = unforeseen()
        self._fresh.add(name)
        path = self._path_of(name)
        try:
            with open(path, "w", encoding="utf-8", opener=lambda name, _: open_new(name)) as file:
                json.dump(secrets, file)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(path)
        except OSError as error:
            self.forget(name)
            raise RepositoryError("the secret cannot be kept beside %s: %s"
                                  % (self._path, error.strerror)) from None
        return name

    def settle(self, name, is_used):
        """The request of a file was answered: its session's row has the name now, or nothing
        will."""
        if not is_used:
            self.forget(name)
        self._fresh.discard(name)

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
        self._fresh.discard(name)

    def list_names(self):
        """The names of all files that are not fresh."""
        start = len(self._path_of(""))
        names = {path[start:] for path in glob.glob(glob.escape(self._path_of("")) + "*")}
        return names - self._fresh
