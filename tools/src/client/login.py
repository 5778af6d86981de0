"""Who the client says that it is: a user's password, from a file or the terminal alone."""
import functools
import getpass
import os
import stat
import sys

from .connection import Connection
from .settings import complete_place
from .errors import ClientError, USAGE, reason_of
from .shown import complain
from .spelling import spell
from .words import as_typed, quote

MAX_PASSWORD_FILE = 4096        # bytes of it that are read


def connect(options, kind=Connection):
    """A connection of this kind to the agent, as the user whom the options name. Raises
    ClientError."""
    options = complete_place(options)
    if options.user is None:
        return kind(options)
    # before: the agent does not wait long for one whom it does not know
    password = get_password(options.password_file, "password of %s: " % ascii(options.user)[1:-1])
    connection = kind(options)
    try:
        reply = connection.ask("AUTH %s %s" % (quote(as_typed(options.user)),
                                               quote(as_typed(password))))
        list(reply)
    except ClientError:
        connection.close()
        raise
    if "note" in reply.fields and options.command.name != "users password":
        complain(spell(reply.fields["note"]))
    return connection


@functools.lru_cache(maxsize=None)
def get_password(path, prompt):
    """The first line of a file that nobody else can read, or without a path what is typed at the
    terminal, once for all connections. Raises ClientError."""
    return read_password(path) if path is not None else ask_password(prompt)


def ask_new_password(path, name):
    """The new password of a user, typed twice where it does not come from a file. Raises
    ClientError."""
    prompt = "new password of %s: " % ascii(name)[1:-1]
    password = get_password(path, prompt)
    if path is None and password != get_password(None, "the same again: "):
        raise ClientError(USAGE, "these were two passwords; nothing was changed")
    return password


def read_password(path):
    """The first line of a file. Raises ClientError when others may read it too."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ClientError(USAGE, "others can read %s, or change it: chmod 600 makes it "
                                  "yours alone" % ascii(path))
            if status.st_uid not in (os.geteuid(), 0):
                raise ClientError(USAGE, "%s belongs to another user" % ascii(path))
            line = file.readline(MAX_PASSWORD_FILE)
        password = line.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ClientError(USAGE, "cannot read %s: %s" % (ascii(path), reason_of(error)))
    except UnicodeDecodeError:
        raise ClientError(USAGE, "%s is not UTF-8" % ascii(path))
    if not password:
        raise ClientError(USAGE, "the first line of %s is empty: no password" % ascii(path))
    return password


def ask_password(prompt):
    """What is typed at the terminal, which does not show it. Raises ClientError where there is
    none."""
    try:
        if not has_terminal():          # it would be shown
            raise EOFError
        return getpass.getpass(prompt)
    except (EOFError, OSError):
        raise ClientError(USAGE, "there is no terminal to ask for the password; --password-file "
                          "FILE reads it (--new-password-file a new one)")


def has_terminal():
    """Whether there is one at which getpass asks."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        return True
    except OSError:
        return sys.stdin is not None and sys.stdin.isatty()
