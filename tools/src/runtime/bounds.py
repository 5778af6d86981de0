"""What tasks may do on this host, as the options of the agent say: types, files, and as whom."""
import os
import sys
from typing import NamedTuple, Optional

from ..base.errors import CannotStart
from ..base.files import remove_all
from ..base.program import log, program_path
from ..base.words import shorten, tell_near
from ..definitions.fields import TASK_TYPES
from ..processes.users import TaskUser, find_user
from ..tasks.roots import Root
from ..tasks.task import TaskError
from .sources import read_regular

UNBOUNDED = ("os", "python")        # types that no folder can bound
OWN_UMASK = 0o077                   # of the agent: what it makes is nobody else's


class Bounds(NamedTuple):
    """The bounds of an agent's tasks."""
    types: Optional[tuple] = None       # that may run; None: all
    root: str = ""                      # real path of the folder that files lie in; empty: anywhere
    user: Optional[TaskUser] = None     # as whom; None: as the agent
    umask: Optional[int] = None         # of their processes; None: the agent's

    @property
    def users(self):
        """The numbers of the users whose processes may be those of tasks."""
        return {os.geteuid()} | ({self.user.numbers[0]} if self.user else set())

    @property
    def is_apart(self):
        """Whether SQLite runs in a process of the task's own, as all else does."""
        return self.user is not None or self.root != ""

    def tell_forbidden(self, name):
        """Why a task of this type may not run, or nothing."""
        if self.types is None or name in self.types:
            return ""
        return "tasks of this type (%s) may not run here: --allow-types has %s" % (
            name, ", ".join(self.types))

    def check_type(self, name):
        """TaskError for a type that may not run."""
        reason = self.tell_forbidden(name)
        if reason:
            raise TaskError(reason)

    def surround(self, environment):
        """The agent's environment as tasks get it."""
        return dict(environment) if self.user is None else self.user.surround(environment)

    def bounded(self, command):
        """A Command of a task within these bounds."""
        return command._replace(umask=self.umask, user=self.user and self.user.numbers)

    def read(self, path, size):
        """The first bytes of a file that a definition names, as far as its tasks may read it.
        ValueError."""
        root = Root(self.root)
        try:
            if self.user is None:
                return read_regular(path, size, root)
            root.check(path)
        except TaskError as error:
            raise ValueError(str(error)) from None
        return self.user.read(path, size)

    def discard(self, path):
        """remove_all() of what a task has written, as it might do itself."""
        (remove_all if self.user is None else self.user.discard)(path)


def read_types(text):
    """The task types of --allow-types, None for all. ValueError."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TASK_TYPES:
            raise ValueError("--allow-types: %s is no type of a task; there are %s%s" % (
                shorten(name), ", ".join(sorted(TASK_TYPES)), tell_near(name, TASK_TYPES)))
    return tuple(sorted(set(names)))


def check_bounds(settings):
    """ValueError for options of the command line that do not go together."""
    types = read_types(settings.allow_types)
    if settings.root is not None and (types is None or not set(types).isdisjoint(UNBOUNDED)):
        raise ValueError("--root needs --allow-types without %s: their processes reach any file"
                         % " and ".join(UNBOUNDED))


def make_bounds(settings, umask=None):
    """The Bounds of these settings. CannotStart."""
    return Bounds(read_types(settings.allow_types),
                  "" if settings.root is None else find_root(settings.root, settings.master),
                  None if settings.run_as is None else find_user(settings.run_as), umask)


def find_root(folder, master):
    """The real path of the folder of --root. CannotStart: there is none, or tasks could change in
    it what the agent itself is made of."""
    real = os.path.realpath(folder)
    if not os.path.isdir(real):
        raise CannotStart("--root %s: there is no such folder" % folder)
    for path in [program_path(), master, sys.executable, sys.prefix] + list(filter(None, sys.path)):
        # a link there may be replaced, wherever it leads
        if any(Root(real).has(os.path.realpath(each)) for each in (path, os.path.dirname(path))):
            raise CannotStart("--root %s: %s is in it, which tasks could change; name a folder "
                              "that has data alone" % (folder, path))
    return real


def check_address(settings, is_loopback_alone):
    """CannotStart where tasks run as root, and others than this host's users may reach the agent.
    """
    if has_root_tasks(settings) and not is_loopback_alone and not settings.is_root_wanted:
        raise CannotStart("--host %s: an agent of root, whose tasks run as root, serves loopback "
                          "alone; --run-as USER runs them as another user, --as-root says you know "
                          "better" % settings.host)


def tell_user(settings):
    """Tells, at a start, that tasks run as root."""
    if has_root_tasks(settings):
        log.warning("tasks run as root: start the agent as another user, or with --run-as USER")


def has_root_tasks(settings):
    """Whether the processes of tasks are root's."""
    return os.geteuid() == 0 and settings.run_as is None
