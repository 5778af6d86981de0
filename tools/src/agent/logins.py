"""Logins by password that went well lately, for those who say theirs with every request."""
import collections
import os
import threading

from ..base.digests import sha256

REMEMBER_S = 300.0      # for so long no password is compared again
MAX_LOGINS = 1000       # that are remembered: the newest


class Logins:
    """Remembers who a source was by a user and a password: under a keyed hash, so that memory has
    no password. That the user has changed since is for who asks to see, by the Client's stamp."""

    def __init__(self, clock):
        self._clock, self._secret = clock, os.urandom(32)
        self._clients = collections.OrderedDict()       # hash -> (Client, until when)
        self._lock = threading.Lock()

    def _make_key(self, source, name, password):
        text = repr((source, name, password))
        return sha256(self._secret + text.encode("utf-8", "surrogatepass")).digest()

    def find(self, source, name, password):
        """The Client that a source was by these words, or None."""
        key = self._make_key(source, name, password)
        with self._lock:
            client, until = self._clients.get(key, (None, 0.0))
            return client if self._clock.monotonic() < until else None

    def keep(self, source, name, password, client):
        """Remembers that a source is this Client by these words."""
        key = self._make_key(source, name, password)
        with self._lock:
            self._clients[key] = client, self._clock.monotonic() + REMEMBER_S
            self._clients.move_to_end(key)
            if len(self._clients) > MAX_LOGINS:
                self._clients.popitem(last=False)
