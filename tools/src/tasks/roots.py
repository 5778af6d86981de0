"""The folder that the files of tasks must lie in, by --root.

What counts is where a path leads, links and `..` followed. A link may change between the look and
the opening: so a file that is read is looked at once more when it is open, by its descriptor, and
before a byte of it is read; and so is the folder in which something is made, replaced or deleted,
which is done from within that folder. That is for a process without other threads. A hard link is
the file itself: nobody can tell that it has another name.
"""
import contextlib
import fcntl
import glob
import os

from ..base.files import naming, written_beside
from .task import TaskError

F_GETPATH = 50          # of macOS, sys/fcntl.h: the path of a descriptor
PATH_BYTES = 1024       # that it takes
FOLDER_FLAGS = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)


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
        with self._opened_above(path) as (above, name), contextlib.ExitStack() as stack:
            before = stack.enter_context(_working_in(above))
            file = stack.enter_context(written_beside(name, mode, **keywords))
            stack.enter_context(_working_in(before))    # in the meantime
            yield file

    @contextlib.contextmanager
    def standing_at(self, path):
        """The name of what is changed at a path; this process works where that stands meanwhile:
        other paths have to be `settled`. TaskError."""
        if not self.folder:
            yield path
            return
        with self._opened_above(path) as (above, name), _working_in(above), naming(path):
            yield name

    @contextlib.contextmanager
    def standing_in(self, path):
        """The name of a folder that is changed itself, as by standing_at()."""
        with self._opened_above(os.path.join(path, "-")) as (folder, _), _working_in(folder):
            yield path if folder is None else "."

    def settled(self, path):
        """A path that leads to the same from wherever this process works."""
        return os.path.join(os.getcwd(), path) if self.folder else path

    def replace(self, path, target):
        """os.replace() in the folder. TaskError."""
        if not self.folder:
            os.replace(path, target)
            return
        with self._opened_above(path) as (source, old), \
                self._opened_above(target) as (above, new), naming(target):
            os.replace(old, new, src_dir_fd=source, dst_dir_fd=above)

    def make_folders(self, path):
        """Makes a folder, and those above it, where they are missing. TaskError."""
        if not self.folder:
            os.makedirs(path, exist_ok=True)
        elif os.path.isdir(path):
            self.check(path)
        else:
            self.check_entry(path)
            above = os.path.dirname(path.rstrip("/"))
            if above:
                self.make_folders(above)
            with self.standing_at(path) as name:
                os.makedirs(name, exist_ok=True)        # somebody else may make it just now

    @contextlib.contextmanager
    def _opened_above(self, path):
        """(A descriptor of the folder that a path stands in, its name there); without a folder of
        tasks (None, the path). TaskError."""
        if not self.folder:
            yield None, path
            return
        self.check_entry(path)
        above, name = os.path.split(path.rstrip("/"))
        descriptor = os.open(above or ".", FOLDER_FLAGS)
        try:
            if not self.has(find_path(descriptor)):
                raise self.refusal(path)
            yield descriptor, name
        finally:
            os.close(descriptor)


ANYWHERE = Root()


@contextlib.contextmanager
def _working_in(folder):
    """This process works in a folder, by its descriptor (None: where it is) -> a descriptor, or
    None, of where it was."""
    if folder is None:
        yield None
        return
    before = os.open(".", FOLDER_FLAGS)
    try:
        os.fchdir(folder)
        yield before
    finally:
        os.fchdir(before)
        os.close(before)


def find_path(descriptor):
    """Where an open file lies, as the kernel tells; empty where that does not."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/fd/%d" % descriptor)
    with contextlib.suppress(OSError):
        return os.fsdecode(fcntl.fcntl(descriptor, F_GETPATH, bytes(PATH_BYTES)).rstrip(b"\0"))
    return ""
