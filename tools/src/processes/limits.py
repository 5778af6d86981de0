"""How many files may be open: as the host has it for what the agent starts, more for itself."""
import resource

from ..base.program import log

IDLE_FILES = 64         # more than an agent has open that does nothing


class FileLimit:
    """The soft limit on open files, raised for the agent alone, and only when that becomes scarce:
    what it starts gets the limit that it was started with, which costs something from then on."""

    def __init__(self, own=0, connections=0):
        """`own` files it may need itself, and some for so many connections, as far as the host
        allows. The last of them, from the descriptor `kept_from` on (None: none), are kept back for
        what is no connection."""
        self.kept_from = self._raised = None
        self._raise_from = None         # a connection that has this descriptor raises the limit
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._soft == resource.RLIM_INFINITY:
            return
        descriptors = own + connections + connections // 10
        most = descriptors if self._hard == resource.RLIM_INFINITY else min(descriptors, self._hard)
        self._most = max(self._soft, most)
        if self._most < descriptors:
            log.warning("the host allows %d open files; the limits on connections and sessions may "
                        "need %d (ulimit -n)", self._most, descriptors)
        self.kept_from = self._most - min(own, self._most // 2)
        if self._soft < most:
            self._raise_from = self._soft - own
            if self._raise_from < IDLE_FILES:
                self.use(self._raise_from)

    def use(self, descriptor):
        """A connection has this descriptor -> whether it may keep it. The limit is raised before
        what else the agent needs becomes scarce."""
        if self._raise_from is not None and descriptor >= self._raise_from:
            self._raise_from, self._raised = None, self._most
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._most, self._hard))
        return self.kept_from is None or descriptor < self.kept_from

    @property
    def to_restore(self):
        """The limit that a process has to be given back, or None: it has it."""
        return None if self._raised is None else self._soft
