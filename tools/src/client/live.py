"""Connections of two kinds: one waits for a reply, one takes it in as it comes."""
import socket

from .connection import Connection
from .errors import ClientError, NO_CONNECTION, reason_of

ANSWER_S = 30       # an agent that hangs is to be noticed by what asks it again and again
PIECE = 65536       # bytes that are taken in at once


class LiveConnection(Connection):
    """One whose replies are taken in line by line, without waiting for their end."""
    _pending = b""

    def begin(self, request):
        """Sends a request. Raises ClientError."""
        try:
            self._socket.settimeout(ANSWER_S)
            self._socket.sendall(request.encode() + b"\n")
        except OSError as error:
            raise ClientError(NO_CONNECTION, "lost the agent at %s: %s"
                              % (self.place, reason_of(error)))

    def poll(self, wait_s):
        """The whole lines that come within so many seconds, at most: [text]. ClientError."""
        try:
            self._socket.settimeout(wait_s)
            data = self._socket.recv(PIECE)
        except socket.timeout:
            return []
        except OSError as error:
            raise ClientError(NO_CONNECTION, "lost the agent at %s: %s"
                              % (self.place, reason_of(error)))
        if not data:
            raise ClientError(NO_CONNECTION, "lost the agent at %s" % self.place)
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]
