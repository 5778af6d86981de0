"""Who is at the other end of a connection, and what he may do."""
import pwd
from typing import NamedTuple, Optional, Tuple

from .patterns import is_any_match
from .vocabulary import ADMINISTRATOR


class Peer(NamedTuple):
    """Where a connection comes from, as the host knows it when it is accepted."""
    uid: Optional[int] = None       # of the user at the other end; None: the host does not know
    os_user: str = ""               # his name there, or `uid N`
    address: str = ""               # `127.0.0.1`; `unix`: by the UNIX socket
    is_private: bool = True         # nobody else can read it: loopback, UNIX socket, TLS
    certificate: str = ""           # common name of the client certificate that TLS has verified


class Client(NamedTuple):
    """Who asks: for the record, and for what he may do."""
    role: Optional[str] = None      # None: the agent does not know him
    name: str = ""                  # what records call him (by=)
    user: str = ""                  # the user of the agent that he is; "" the owner, or nobody
    peer: Peer = Peer()
    scenarios: Tuple[str, ...] = ()     # patterns of those that are there for him; (): all
    stamp: str = ""         # of the password by which he is known; "" by none: the host says it
    is_temporary: bool = False          # that is for one use: to set another

    @property
    def is_administrator(self):
        """Whether he may do everything."""
        return self.role == ADMINISTRATOR and not self.scenarios and not self.is_temporary

    @property
    def is_narrowed(self):
        """Whether some scenarios are not there for him."""
        return bool(self.scenarios)

    def sees(self, scenario):
        """Whether a scenario of this name is there for him, if it is at all."""
        return not self.scenarios or is_any_match(self.scenarios, scenario)


def find_user_name(uid):
    """What the host calls a user, or None: it has no name for him."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return None


def name_user(uid):
    """What the host calls a user, or `uid N`."""
    return find_user_name(uid) or "uid %d" % uid
