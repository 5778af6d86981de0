"""A connection as its server sees it: the lines that come in, bounded, and the replies it owes."""
import time

from ..base.vocabulary import MAX_IMPORT_LINE, STRANGER_S
from ..base.errors import BadRequest, TooLong
from ..protocol.lines import FLUSH


class Lines:
    """The lines that come in by a connection, bounded, and what of them is here already.
    find_line_s() gives the seconds that the next line may take, None: as many as it wants."""

    def __init__(self, connection, find_line_s=lambda: None):
        self._connection, self._find_line_s, self._is_timed = connection, find_line_s, False
        self._data, self._searched = bytearray(), 0     # how much of it has no end of a line
        self.is_over = False            # nothing more comes in

    @property
    def has_next(self):
        """Whether a whole line is here, so that nobody has to be waited for."""
        return b"\n" in self._data

    @property
    def size(self):
        """How many bytes are here."""
        return len(self._data)

    def feed(self, data):
        """Adds what has come in; nothing: it was the last."""
        self.is_over = not data
        self._data += data

    def take(self, find_limit):
        """The next line without its end, or None: it is not all here. TooLong; BadRequest: the
        input has ended amid a line.

        find_limit(its first bytes) gives the most bytes that it may have; of one that is longer
        no more is read.
        """
        end = self._data.find(b"\n", self._searched)
        size = len(self._data) if end < 0 else end
        limit = find_limit(bytes(self._data[:16]))
        if size - self._data.endswith(b"\r", 0, size) > limit:
            raise TooLong("a line has at most %d bytes" % limit)
        if end < 0:
            self._searched = size
            if self.is_over and size:
                raise BadRequest("the last line has no end (LF), so it may be cut short: it was "
                                 "not carried out")
            return None
        line = bytes(self._data[:end])
        del self._data[:end + 1]
        self._searched = 0
        return line[:-1] if line.endswith(b"\r") else line

    def read(self, find_limit):
        """Waits for the next line -> take(); None is the end of the input."""
        line_s, begun = self._find_line_s(), time.monotonic()
        if line_s is None and self._is_timed:
            self._connection.settimeout(None)
        self._is_timed = line_s is not None
        while True:
            line = self.take(find_limit)
            if line is not None or self.is_over:
                break
            if line_s is not None:
                self._connection.settimeout(max(0.001, begun + line_s - time.monotonic()))
            self.feed(self._connection.recv(65536))
        if line_s is not None:
            self._connection.settimeout(line_s)
        return line


class Caller:
    """One connection: its Conversation, its Lines, and the replies that it is still to get."""

    def __init__(self, connection, conversation, max_line):
        self.connection, self.conversation, self._max_line = connection, conversation, max_line
        self.lines = Lines(connection, lambda: None if conversation.is_known else STRANGER_S)
        self.replies, self.unsent = [], b""     # unsent: of the replies before these

    def refuse(self, error):
        """Nothing more is taken in, as no thread goes on with it: what was to wait is refused with
        this error, a line that is none with its own."""
        if self.conversation.is_over:   # the last reply says why
            return
        if self.replies and not self.replies[-1].is_quick:
            self.replies.pop()
        else:
            try:
                self.lines.take(self.find_limit)
            except (TooLong, BadRequest) as fault:
                error = fault
        self.replies.append(self.conversation.refuse(error))

    def keep(self, unsent):
        """Notes what could not be sent yet of replies."""
        self.unsent = unsent

    def find_limit(self, start):
        """How many bytes a line that starts like this may have."""
        is_import = start.upper().split()[:1] == [b"IMPORT"]
        return MAX_IMPORT_LINE if is_import and self.conversation.is_administrator \
            else self._max_line


def encode(lines):
    """Lines of text -> bytes with their ends; what is FLUSH is none."""
    text = "".join(line + "\n" for line in lines if line is not FLUSH)
    return text.encode("utf-8", "backslashreplace")
