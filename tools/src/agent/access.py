"""Who may ask the agent: its owner, and the users of the master."""
import os
import pwd
import threading

from ..base.clients import Client
from ..base.errors import CannotStart
from ..base.vocabulary import ADMINISTRATOR
from ..store.users import Users


class Access:
    """Tells who is at the other end of a connection, and what he may do.

    The users are in memory, so that no request waits for the master. `revision` changes with them:
    who has looked at one before looks again when it does.
    """

    def __init__(self, settings, clock):
        self.revision = 0
        self._has_owner, self._clock = not settings.has_no_owner, clock
        self._owners = {0, os.getuid()}
        self._master, self._store = None, Users()
        self._users, self._os_users = {}, {}    # name -> User, uid -> User
        self._lock = threading.Lock()           # held by who reads them anew

    # -- the users ---------------------------------------------------------------------

    def open(self, master):
        """Reads the users for the first time. RepositoryError; CannotStart: nobody could do
        anything."""
        self._master = master
        self.read()
        if not self._has_owner and not any(user.is_full for user in self._users.values()):
            raise CannotStart("--no-owner: there is no user who is an administrator of everything; "
                              "start without it and USERS ADD one")

    def read(self):
        """Takes the users over as they are in the master now. RepositoryError."""
        with self._lock:
            users = {user.name: user for user in self._master.db.read(self._store.list_all)}
            os_users = {}
            for user in users.values():
                uid = find_uid(user.os_user) if user.os_user else None
                if uid is not None:
                    os_users.setdefault(uid, user)
            if (users, os_users) != (self._users, self._os_users):
                self._users, self._os_users = users, os_users
                self.revision += 1      # last: who sees it sees them

    def look(self):
        """Another agent may have changed the users: from time to time. RepositoryError."""
        self.read()

    def has_users(self):
        """Whether there is any user."""
        return bool(self._users)

    def list_users(self):
        """The Users by name."""
        return [user for _, user in sorted(self._users.items())]

    # -- who is it ---------------------------------------------------------------------

    def is_owner(self, peer):
        """Whether a Peer may do everything without more: the agent's own OS user, or root."""
        return self._has_owner and peer.is_private and peer.uid in self._owners

    def identify(self, peer):
        """The Client that a Peer is by the host's word, or by his certificate."""
        if self.is_owner(peer):
            return Client(ADMINISTRATOR, peer.os_user, peer=peer)
        user = self._os_users.get(peer.uid) if peer.is_private and peer.uid is not None else None
        if user is None and peer.certificate:
            user = self._users.get(peer.certificate)
        return self._make_client(user, peer) if user else Client(None, peer.os_user, peer=peer)

    @staticmethod
    def _make_client(user, peer, stamp=""):
        return Client(user.role, user.name, user.name, peer, user.scenarios, stamp,
                      bool(stamp) and user.until is not None)

    def renew(self, client):
        """A Client as it is now. One who is known by a password that is valid no more is nobody: he
        does not become again who he was before."""
        if client.stamp:
            user = self._users.get(client.user)
            if user is not None and user.stamp == client.stamp:
                return self._make_client(user, client.peer, client.stamp)
            return client._replace(role=None, scenarios=(), is_temporary=False)
        is_owner = client.role == ADMINISTRATOR and not client.user
        return client if is_owner else self.identify(client.peer)


def find_uid(name):
    """The uid of an OS user, by name or as a number, or None: this host knows no such user."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return int(name) if name.isdigit() and len(name) < 11 else None
