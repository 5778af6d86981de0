"""What --doctor finds."""
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """One thing that is wrong: where, what, and what to do about it."""
    place: str
    fault: str
    remedy: str
    cure: Any = None        # for --repair: does it -> what that was, in words. AgentError, OSError

    def __str__(self):
        return "%s: %s; %s" % (self.place, self.fault.rstrip(" .;"), self.remedy)
