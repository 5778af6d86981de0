"""Notes of what a task is writing beside its target: so it goes when the process was killed."""
import contextlib
import json
import os
import re

from ..base.errors import RepositoryError
from ..base.files import make_private, open_own, own_users, remove_all, remove_own, unforeseen
from ..base.program import log
from .files import list_numbered

NOTE_BYTES = 1 << 16        # that are read of a note: more than any path takes in JSON
PART = re.compile(r"\.[^/]*\.[0-9a-f]{16}\.part", re.S)      # what part_beside names


class PartNotes:
    """The notes beside a repository: FILE.parts.SESSION.UNFORESEEN, mode 0600, one for each task
    in a helper that is under way. What is in it is that of part_beside."""

    def __init__(self, path):
        self._path = path

    def make(self, session):
        """A new note for a task of a session -> its path. RepositoryError."""
        path = "%s.parts.%d.%s" % (self._path, session, unforeseen())
        try:
            make_private(path)
        except OSError as error:
            raise RepositoryError("%s cannot be made: %s" % (path, error.strerror)) from None
        return path

    def clear(self, path, discard=remove_all):
        """Deletes what a note tells of, by discard(path), where that is still there, and the note.
        """
        owners = own_users(self._path)
        try:
            with open(open_own(path, os.O_RDONLY, owners, mask=0o077), "rb") as file:
                text = file.read(NOTE_BYTES).decode("ascii")
        except FileNotFoundError:
            return
        except (RepositoryError, OSError, ValueError) as error:
            log.warning("a note of what a task was writing is not taken: %s", error)
            return
        with contextlib.suppress(ValueError):       # empty, or cut short: nothing was made yet
            part = json.loads(text)
            if isinstance(part, str) and PART.fullmatch(os.path.basename(part)):
                discard(part)
        remove_own(path, owners)

    def list_all(self):
        """[(path, session)] of all that are ours."""
        return list_numbered(self._path + ".parts.", own_users(self._path))
