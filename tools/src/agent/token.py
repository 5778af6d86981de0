"""How the agent's own OS user is known where the host does not tell who is at the other end."""
import contextlib
import os
import sys

from ..base.digests import is_same_secret
from ..base.errors import CannotStart
from ..base.files import open_new, own_users, remove_own

TOKEN_NAME = "-"        # AUTH - TOKEN: no user has this name
HOST_TELLS = sys.platform.startswith("linux")


class OwnerToken:
    """A text in a file beside the master, new with each start, which only the agent's own OS user
    and root can read: whoever knows it is one of them. The file goes with the agent.
    CannotStart."""

    def __init__(self, master, name):
        self.path, self._text = "%s.%s.token" % (master, name), os.urandom(32).hex()
        self._owners = own_users(master)
        remove_own(self.path, self._owners)
        try:
            with contextlib.closing(os.fdopen(open_new(self.path), "w")) as file:
                file.write(self._text + "\n")
        except OSError as error:
            raise CannotStart("the token %s, by which the agent's own OS user is known on this "
                              "host, cannot be written: %s" % (self.path, error.strerror)) from None

    def is_right(self, text):
        """Whether it is this one, compared in constant time."""
        return is_same_secret(self._text.encode(), text.encode("utf-8", "surrogatepass"))

    def close(self):
        """Removes the file."""
        remove_own(self.path, self._owners)
