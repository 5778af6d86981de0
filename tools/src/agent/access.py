"""Who may ask the agent: its owner, and the users of the master."""
import contextlib
import os
import pwd
import random
import threading

from ..base.clients import Client
from ..base.errors import (AuthError, BadRequest, CannotStart, Conflict, Denied, Exists,
                           NotFound)
from ..base.hashes import make_unusable_hash
from ..base.vocabulary import ADMINISTRATOR, MAX_NAME
from ..store.users import User, Users
from .guesses import Guesses, PasswordDesk
from .logins import Logins
from .token import HOST_TELLS, TOKEN_NAME, OwnerToken

ONE_TIME_S = 86400.0    # within which a password for one use has to be used
# of its characters: none that is taken for another
CHARACTERS = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
WRONG = "the user or the password is wrong"


class Access:
    """Tells who is at the other end of a connection, and what he may do.

    The users are in memory, so that no request waits for the master. `revision` changes with them:
    who has looked at one before looks again when it does.
    """

    def __init__(self, settings, clock):
        self.revision = 0
        self._has_owner, self._clock = not settings.has_no_owner, clock
        self._settings, self._token = settings, None    # the token where the host does not tell
        self._owners = {0, os.getuid()}
        self._master, self._store = None, Users()
        self._users, self._os_users = {}, {}    # name -> User, uid -> User
        self._uids = {}                         # OS user -> uid; None: there was none
        self._lock = threading.Lock()           # held by who reads them anew
        self._guesses, self._desk = Guesses(clock), PasswordDesk()
        self._logins = Logins(clock)
        self._nobody = ""               # the hash of a user that there is not, once it is needed

    # -- the users ---------------------------------------------------------------------

    def open(self, master):
        """Reads the users for the first time. RepositoryError; CannotStart: nobody could do
        anything."""
        self._master = master
        self.read()
        if not self._has_owner and not any(user.is_full for user in self._users.values()):
            raise CannotStart("--no-owner: there is no user who is an administrator of everything; "
                              "start without it and USERS ADD one")
        if self._has_owner and not HOST_TELLS:
            self._token = OwnerToken(self._settings.master, self._settings.name)

    def read(self):
        """Takes the users over as they are in the master now. RepositoryError."""
        with self._lock:
            users = {user.name: user for user in self._master.db.read(self._store.list_all)}
            os_users = {}
            for user in users.values():
                uid = self._find_uid(user.os_user) if user.os_user else None
                if uid is not None:
                    os_users.setdefault(uid, user)
            if (users, os_users) != (self._users, self._os_users):
                self._users, self._os_users = users, os_users
                self.revision += 1      # last: who sees it sees them
        if any(user.password for user in users.values()):
            self._nobody_hash()     # loads what compares passwords while the host has the means

    def _nobody_hash(self):
        if not self._nobody:
            self._nobody = make_unusable_hash()
        return self._nobody

    def _find_uid(self, name):
        """find_uid(), asked once, as a directory of users may be slow."""
        if self._uids.get(name) is None:
            self._uids[name] = find_uid(name)
        return self._uids[name]

    def _forget_uid(self, name):
        self._uids.pop(name, None)

    def has_users(self):
        """Whether there is any user."""
        return bool(self._users)

    def has(self, name):
        """Whether there is a user of this name."""
        return name in self._users

    def list_users(self):
        """The Users by name."""
        return [user for _, user in sorted(self._users.items())]

    def close(self):
        """No password is compared any more."""
        if self._token is not None:
            self._token.close()
        self._desk.close()

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


    @property
    def has_token(self):
        """Whether the owner is known by a token alone, as the host does not tell who it is."""
        return self._token is not None

    # -- passwords ---------------------------------------------------------------------

    def log_in(self, peer, name, password):
        """The Client that one is who says so, with a password. AuthError, Busy, Denied."""
        check_private(peer)
        if name == TOKEN_NAME and self._token is not None and self._token.is_right(password):
            return Client(ADMINISTRATOR, "owner by token", peer=peer)
        source = find_source(peer)
        self._guesses.check(source, name[:MAX_NAME])
        user, nobody = self._users.get(name), self._nobody_hash()
        is_right = self._desk.is_right(source, password, user.password if user else nobody)
        # by now it may be another, or over
        if is_right and user is not None and (user.until is None
                                              or user.until > self._clock.now()):
            client = self.renew(self._make_client(user, peer, user.stamp))
            if client.role is not None:
                return client
        self._guesses.note(source, name[:MAX_NAME])
        raise AuthError(WRONG)

    def log_in_again(self, peer, name, password):
        """log_in() for one who says so with each request: a login that went well lately is
        remembered. Whoever has guessed waits all the same. AuthError, Busy, Denied."""
        if name == TOKEN_NAME:
            return self.log_in(peer, name, password)
        check_private(peer)
        source = find_source(peer)
        self._guesses.check(source, name[:MAX_NAME])
        known_client = self._logins.find(source, name, password)
        if known_client is not None:
            client = self.renew(known_client._replace(peer=peer))
            if client.role is not None:
                return client
        client = self.log_in(peer, name, password)
        if client.stamp:
            self._logins.keep(source, name, password, client)
        return client

    def add(self, client, name, role, scenarios, os_user):
        """Adds a user -> his password for one use. Exists, BadRequest, Busy."""
        check_os_user(os_user)
        if name in self._users:
            raise Exists("a user %s exists; USERS SET changes it" % name)
        password, stored, now = self._make_password(client)
        self._forget_uid(os_user)
        self._write(self._store.add, User(name, role, scenarios, os_user or None, stored,
                                          now + ONE_TIME_S, os.urandom(8).hex(), now, now))
        return password

    def set(self, client, name, changes, is_reset):
        """Changes fields of a user -> his new password for one use, with `is_reset`, else None.
        NotFound, Exists, Conflict, BadRequest, Busy."""
        check_os_user(changes.get("os_user"))
        if name not in self._users:
            raise NotFound("no user %s" % name)
        password, stored, now = self._make_password(client) if is_reset \
            else (None, None, self._clock.now())
        self._forget_uid(changes.get("os_user"))
        self._write(self._store.set, name, changes,
                    None if stored is None else (stored, now + ONE_TIME_S),
                    not self._has_owner, now)
        return password

    def _make_password(self, client):
        """(A password for one use, as it is stored, now), for one who may have it sent. Denied,
        Busy."""
        check_private(client.peer)
        drawn = [random.SystemRandom().choice(CHARACTERS) for _ in range(20)]
        password = "-".join("".join(drawn[start:start + 5]) for start in range(0, 20, 5))
        return password, self._desk.make_hash(find_source(client.peer), password), \
            self._clock.now()

    def put_password(self, client, name, password):
        """Gives a user another password -> who asks, as he is then. NotFound, Denied, Busy;
        AuthError: he came with one that is valid no more."""
        check_private(client.peer)
        is_self = bool(client.user) and client.user == name
        if not is_self and not client.is_administrator:
            raise Denied("the password of another is for an administrator to change")
        if name not in self._users:
            raise NotFound("no user %s" % name)
        source = find_source(client.peer)
        if client.is_temporary and self._desk.is_right(source, password,
                                                       self._users[name].password):
            raise BadRequest("the new password is the one that was for one use")
        stored, now = self._desk.make_hash(source, password), self._clock.now()
        try:
            stamp = self._write(self._store.put_password, name, stored, None, now,
                                client.stamp if is_self else "")
        except Conflict as error:
            raise AuthError(error.message) from None
        return self.renew(client._replace(stamp=stamp) if is_self and client.stamp else client)

    def delete(self, name):
        """Deletes a user. NotFound, Conflict."""
        self._write(self._store.delete, name, not self._has_owner)

    def _write(self, method, *arguments):
        """method of the store, and what it changes takes effect -> its value."""
        value = self._master.db.write(method, *arguments)
        self.read()
        return value


def find_source(peer):
    """Where a Peer comes from, for who counts his wrong passwords: an OS user of this host, or an
    address; of IPv6 the half that a provider gives to one, who may have every address of it."""
    address = peer.address
    if ":" in address:
        import ipaddress                # seldom
        with contextlib.suppress(ValueError):
            address = ipaddress.IPv6Address(address.partition("%")[0]).exploded[:19]
    return address, peer.uid


def check_private(peer):
    """Denied: others could read the password on its way."""
    if not peer.is_private:
        raise Denied("a password is taken and told over TLS, on loopback and by the UNIX socket "
                     "alone")


def check_os_user(name):
    """BadRequest: this host knows no OS user of this name."""
    if name and find_uid(name) is None:
        raise BadRequest("-OS_USER: this host has no user %s" % name)


def find_uid(name):
    """The uid of an OS user, by name or as a number, or None: this host knows no such user."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return int(name) if name.isdigit() and len(name) < 11 else None
