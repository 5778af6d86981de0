"""The users of the agents of a master: their rows, and how these change."""
import os
from typing import NamedTuple, Optional, Tuple

from ..base.errors import Conflict, Exists, NotFound
from ..base.times import find_time, to_text
from ..base.vocabulary import ADMINISTRATOR, ROLES


class User(NamedTuple):
    """One who may ask the agents of a master."""
    name: str
    role: str
    scenarios: Tuple[str, ...]      # patterns of those that are there for him; (): all
    os_user: Optional[str]          # who is this user by the host's word
    password: str                   # how it was hashed, and the hash
    until: Optional[float]          # until when the password lets in, to set another; None: always
    stamp: str                      # another one with every password
    created: float
    changed: float

    @property
    def is_full(self):
        """Whether he may do everything."""
        return self.role == ADMINISTRATOR and not self.scenarios


def read_user(row):
    """A row -> User, or None: another program has spoilt it, so nobody is let in by it."""
    texts = [row[column] for column in ("name", "role", "scenarios", "password", "stamp")]
    texts.append(row["os_user"] or "")
    if row["role"] not in ROLES or not all(isinstance(text, str) for text in texts):
        return None
    until = None if row["one_time_until"] is None else find_time(row["one_time_until"]) or 0.0
    return User(row["name"], row["role"], tuple(filter(None, row["scenarios"].split(","))),
                row["os_user"], row["password"], until, row["stamp"],
                find_time(row["created"]) or 0.0, find_time(row["changed"]) or 0.0)


class Users:
    """The table of users. With `needs_administrator` the last one who may do everything stays."""

    @staticmethod
    def list_all(connection):
        """[User] by name, without those whom another program has spoilt."""
        rows = connection.execute("select * from user order by name").fetchall()
        return list(filter(None, map(read_user, rows)))

    def _get(self, connection, name):
        """The User of a name, or NotFound."""
        for user in self.list_all(connection):
            if user.name == name:
                return user
        raise NotFound("no user %s" % name)

    @staticmethod
    def _check_os_user(connection, name, os_user):
        row = os_user and connection.execute("select name from user where os_user=? and name<>?",
                                             (os_user, name)).fetchone()
        if row:
            raise Exists("the OS user %s is user %s already" % (os_user, row[0]))

    def add(self, connection, user):
        """Adds a User. Exists."""
        if connection.execute("select 1 from user where name=?", (user.name,)).fetchone():
            raise Exists("a user %s exists; USERS SET changes it" % user.name)
        self._check_os_user(connection, user.name, user.os_user)
        connection.execute(
            "insert into user(name, role, scenarios, os_user, password, one_time_until, stamp,"
            " created, changed) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (user.name, user.role, ",".join(user.scenarios), user.os_user, user.password,
             user.until and to_text(user.until), user.stamp, to_text(user.created),
             to_text(user.changed)))

    def set(self, connection, name, changes, password, needs_administrator, now):
        """Changes fields of a User, and his password where it is one and not None: (how it is
        stored, until when it lets in). NotFound, Exists, Conflict."""
        before = self._get(connection, name)
        after = before._replace(**changes)
        self._check_os_user(connection, name, after.os_user)
        if needs_administrator and not after.is_full:
            self._check_last(connection, before)
        connection.execute(
            "update user set role=?, scenarios=?, os_user=?, changed=? where name=?",
            (after.role, ",".join(after.scenarios), after.os_user, to_text(now), name))
        if password is not None:
            self.put_password(connection, name, password[0], password[1], now)

    def put_password(self, connection, name, password, until, now, known_by=""):
        """Gives a User another password -> its stamp. NotFound; Conflict: it is not the one any
        more by whose stamp who asks is known, or that was for one use, and is over."""
        user = self._get(connection, name)
        if known_by and (user.stamp != known_by or user.until is not None and user.until <= now):
            raise Conflict("the password with which you came is valid no more")
        stamp = os.urandom(8).hex()
        connection.execute(
            "update user set password=?, one_time_until=?, stamp=?, changed=? where name=?",
            (password, until and to_text(until), stamp, to_text(now), name))
        return stamp

    def delete(self, connection, name, needs_administrator):
        """Deletes a User. NotFound, Conflict."""
        user = self._get(connection, name)
        if needs_administrator:
            self._check_last(connection, user)
        connection.execute("delete from user where name=?", (name,))

    def _check_last(self, connection, user):
        """Conflict: nobody but this user may do everything."""
        if user.is_full and not any(other.is_full for other in self.list_all(connection)
                                    if other.name != user.name):
            raise Conflict("user %s is the last administrator, and with --no-owner nobody else "
                           "could let anybody in" % user.name)
