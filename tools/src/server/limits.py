"""Who may connect, how many at once, and how long each is waited for."""
import collections
import functools
import threading
from typing import NamedTuple, Optional

from ..base.vocabulary import (IDLE_S, LINE_S, MAX_BATCH, MAX_CONNECTIONS, MAX_LINE,
                               MAX_PER_ADDRESS, SEND_S, STRANGER_S)
from ..protocol.conversation import Conversation
from .incoming import Caller
from .peer import has_hung_up

NO_FILES = "the host lets the agent open no more files for connections (ulimit -n)"


class Patience(NamedTuple):
    """How long a connection is waited for, in seconds; None: for ever."""
    idle_s: Optional[float] = None      # until a line begins
    line_s: Optional[float] = None      # until it is whole
    send_s: Optional[float] = None      # until a piece of a reply is taken


class WireLimits(NamedTuple):
    """The limits on connections. Of the times None is the default: none for the agent's own user,
    who may leave his terminals open, and a fixed one for other users."""
    max_connections: int = MAX_CONNECTIONS
    max_line: int = MAX_LINE            # bytes
    max_per_address: int = MAX_PER_ADDRESS
    max_requests: int = MAX_BATCH       # of one connection, under way
    stranger_s: float = STRANGER_S      # for everything, until it is known who asks
    idle_s: Optional[float] = None
    line_s: Optional[float] = None
    send_s: Optional[float] = None

    def find_patience(self, client):
        """The Patience with a Client."""
        if client.role is None:
            return Patience(self.stranger_s, self.stranger_s, self.stranger_s)
        if is_of_owner(client):
            return Patience(self.idle_s, self.line_s, self.send_s)
        return Patience(self.idle_s or IDLE_S, self.line_s or LINE_S, self.send_s or SEND_S)


def read_limits(settings):
    """The WireLimits of the command line."""
    return WireLimits(settings.max_connections, settings.max_line, settings.max_per_address,
                      settings.max_requests, settings.stranger_s, settings.idle_s,
                      settings.line_s, settings.send_s)


def is_of_owner(client):
    """Whether a Client is known by the host's word alone: the user of the agent, and root."""
    return client.role is not None and not client.user


class OpenConnections:
    """The connections that are open, and whether one more may come in.

    Those of the agent's own user may be `max_connections`. All others together are nine tenths of
    that at most, and those of whom the agent does not know who they are a tenth; so neither keep
    the owner out, nor strangers a user who is known. Nobody gets a descriptor of the last ones
    that `file_limit` allows: the agent needs them itself.
    """

    def __init__(self, agent, limits, is_sealing, file_limit=None):
        self._agent, self.limits, self._is_sealing = agent, limits, is_sealing
        self._file_limit = file_limit
        max_files = file_limit and file_limit.kept_from     # maybe None, too
        most = limits.max_connections
        self._max_strangers = max(1, min(most, max_files or most) // 10)
        self._max_others = max(1, most - most // 10)
        self._callers = {}              # connection -> its Caller
        self._places = {}               # connection -> where it is from, of all but the owner's
        self._strangers = set()         # of these, those whom the agent did not know lately
        self._per_place = collections.Counter()
        self._lock = threading.Lock()   # guards these four

    def __len__(self):
        return len(self._callers)

    def find(self, connection):
        """The Caller of a connection."""
        return self._callers[connection]

    def list_all(self):
        """The connections that are open."""
        with self._lock:
            return list(self._callers)

    def admit(self, connection, peer):
        """Takes a connection in, or tells why not: the limit in words."""
        conversation = self.make_conversation(connection, peer)
        with self._lock:
            limit, reason = self._find_limit(connection, peer, conversation.client)
            if limit is None:
                self._callers[connection] = Caller(
                    connection, peer, conversation, self.limits,
                    is_fresh=self._is_sealing or not peer.is_private)
                self._note(connection, peer, conversation.client)
                return None
        self.count(limit)
        return reason

    def _find_limit(self, connection, peer, client):
        """The limit that keeps a connection out: its name and the words for it, or (None, None).
        What it is of the owner's counts for no limit of others."""
        most = self.limits.max_connections
        checks = [("connections", len(self._callers) - len(self._strangers), most)]
        if not is_of_owner(client):
            checks = [("connections", len(self._places), self._max_others),
                      ("per_address", self._per_place[_place_of(peer)],
                       self.limits.max_per_address)]
            if client.role is None:
                checks.append(("strangers", self._count_strangers(), self._max_strangers))
        for name, count, limit in checks:
            if count >= limit:
                where = " from this address" if name == "per_address" else ""
                return name, "%d connections%s are open, the limit" % (limit, where)
        # a new descriptor has the lowest number that is free
        if self._file_limit is not None and not self._file_limit.use(connection.fileno()):
            return "files", NO_FILES
        return None, None

    def _count_strangers(self):
        """How many they are; who has said who he is since is none any more."""
        if len(self._strangers) >= self._max_strangers:
            self._strangers = {connection for connection in self._strangers
                               if self._callers[connection].conversation.client.role is None}
        return len(self._strangers)

    def _note(self, connection, peer, client):
        """Counts a connection."""
        if is_of_owner(client):
            return
        place = self._places[connection] = _place_of(peer)
        self._per_place[place] += 1
        if client.role is None:
            self._strangers.add(connection)

    def forget(self, connection):
        """It is closed."""
        with self._lock:
            self._callers.pop(connection, None)
            self._strangers.discard(connection)
            place = self._places.pop(connection, None)
            if place is not None:
                self._per_place[place] -= 1
                if not self._per_place[place]:
                    del self._per_place[place]

    def make_conversation(self, connection, peer, has_left=None):
        """The Conversation with whoever is at the other end."""
        access = self._agent.access
        return Conversation(self._agent, access.identify(peer),
                            has_left or functools.partial(has_hung_up, connection), access)

    def count(self, limit):
        """A limit was reached once more."""
        self._agent.reached.count(limit)


def _place_of(peer):
    """What counts as one address: of this host, one user of it."""
    return peer.address, peer.uid
