"""The folder that the files of tasks must lie in, by --root.

What counts is where a path leads, links and `..` followed. A link may change between the look and
the opening: so what is read or written is looked at once more when it is open, by its descriptor,
before a byte of it is. A hard link is the file itself: nobody can tell that it has another name.
"""
import contextlib
import fcntl
import glob
import os

from ..base.files import written_beside
from .task import TaskError

F_GETPATH = 50          # of macOS, sys/fcntl.h: the path of a descriptor
PATH_BYTES = 1024       # that it takes


class Root:
    """The folder, by its real path; without one, files may lie anywhere."""

    def __init__(self, folder=""):
        self.folder = folder

    def has(self, real):
        """Whether a real path is the folder, or in it."""
        return not self.folder or (real + "/").startswith(self.folder.rstrip("/") + "/")

    def refusal(self, path):
        """The TaskError for a path that leads out of the folder."""
        return TaskError("%s leads out of %s, where --root has the files of tasks"
                         % (path, self.folder))

    def check(self, path):
        """TaskError for a path that leads out of the folder."""
        if self.folder and not self.has(os.path.realpath(path)):
            raise self.refusal(path)

    def check_entry(self, path):
        """TaskError for a path that does not stand in the folder, be it a link that leads anywhere.
        """
        above, name = os.path.split(path.rstrip("/"))
        if self.folder and (name in ("", ".", "..")
                            or not self.has(os.path.realpath(above or "."))):
            raise self.refusal(path)

    def check_pattern(self, pattern):
        """TaskError for a path or a pattern that looks for something out of the folder."""
        if not self.folder:
            return
        above = os.path.dirname(pattern.rstrip("/"))
        while glob.has_magic(above):
            above = os.path.dirname(above)
        if not self.has(os.path.realpath(above or ".")) \
                or ".." in pattern[len(above):].split("/"):
            raise self.refusal(pattern)

    def check_open(self, file, path):
        """TaskError when what was opened under a path lies out of the folder."""
        if self.folder and not self.has(find_path(file.fileno())):
            raise self.refusal(path)

    @contextlib.contextmanager
    def written(self, path, mode="wb", **keywords):
        """written_beside() in the folder. TaskError."""
        self.check_entry(path)
        with written_beside(path, mode, **keywords) as file:
            self.check_open(file, path)
            yield file


ANYWHERE = Root()


def find_path(descriptor):
    """Where an open file lies, as the kernel tells; empty where that does not."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/fd/%d" % descriptor)
    with contextlib.suppress(OSError):
        return os.fsdecode(fcntl.fcntl(descriptor, F_GETPATH, bytes(PATH_BYTES)).rstrip(b"\0"))
    return ""
