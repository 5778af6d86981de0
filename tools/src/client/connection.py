"""One connection to an agent, and a reply as it comes."""
import json

from .errors import ClientError, NO_CONNECTION, REFUSED, WAITED_OUT, reason_of
from .place import open_socket
from .words import parse_fields
from .spelling import spell


class Connection:
    """One connection to an agent. Raises ClientError when there is none, or when it is lost."""

    def __init__(self, options):
        self._socket, self.place = open_socket(options)
        self._file = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends it."""
        self._file.close()
        self._socket.close()

    def ask(self, request, limit_s=None, is_lenient=False):
        """Sends a request -> Reply. The agent may be silent for `limit_s` seconds; None: for ever.
        `is_lenient`: a repository that cannot be read is told in `trouble` of the Reply, not
        raised, for what is known of the others counts all the same."""
        self._socket.settimeout(limit_s)
        try:
            self._socket.sendall(request.encode() + b"\n")
        except OSError:
            pass        # what refuses a request before its end has said why: that is read now
        return Reply(self, is_lenient)

    def read_line(self):
        """The next line without its end."""
        try:
            line = self._file.readline()
        except OSError as error:
            raise ClientError(NO_CONNECTION, "lost the agent at %s: %s"
                              % (self.place, reason_of(error)))
        if not line.endswith(b"\n"):
            raise ClientError(NO_CONNECTION, "lost the agent at %s before its reply was complete"
                              % self.place)
        return line.decode("utf-8", "replace").rstrip("\r\n")


class Reply:
    """Iterates over the data lines of one reply as they come; `fields` are those of its OK, and
    `count` says how many lines there were, afterwards; so does `trouble` what was not read.

    Raises ClientError for an ERR and for what no agent says.
    """

    def __init__(self, connection, is_lenient=False):
        self._connection, self._is_lenient = connection, is_lenient
        self.fields, self.count, self.trouble = {}, 0, None

    def __iter__(self):
        while True:
            line = self._connection.read_line()
            first, _, rest = line.partition(" ")
            if first == "*":
                self.count += 1
                yield rest
            elif first == "OK":
                self.fields = json.loads(rest) if rest.startswith("{") else parse_fields(rest)
                return
            elif first == "ERR":
                code, _, message = as_text(line)[len("ERR "):].partition(" ")
                error = ClientError(WAITED_OUT if code == "TIMEOUT" else REFUSED,
                                    "ERR %s %s" % (code, spell(message)))
                if self._is_lenient and code == "REPOSITORY":
                    self.trouble = error
                    return
                raise error
            else:
                raise ClientError(NO_CONNECTION, "what answers at %s is no agent"
                                  % self._connection.place)


def as_text(line):
    """An ERR line, that of a request with -JSON as without."""
    code, _, rest = line[4:].partition(" ")
    if not rest.startswith("{"):
        return line
    fields = json.loads(rest)
    session = "session=%d " % fields["session"] if "session" in fields else ""
    return "ERR %s %s%s" % (code, session, fields["message"])
