"""A connection as its server sees it: the lines that come in, bounded, and the replies it owes."""
import functools
import socket
import time

from ..base.vocabulary import MAX_IMPORT_LINE, MIN_LINE
from ..base.errors import BadRequest, TooLong
from ..protocol.lines import FLUSH

WIRE_PIECE = 65536      # bytes that are taken or given at once


class Outwaited(OSError):
    """A client has let the agent wait for too long; `limit` is the name of what it has reached."""

    def __init__(self, limit):
        super().__init__(limit)
        self.limit = limit


def receive(channel, limit, limit_s, begun):
    """What comes in next, within so many seconds (None: for ever) after an instant of the steady
    clock; nothing: that was all. Outwaited, with the name of this limit; OSError."""
    left_s = None if limit_s is None else begun + limit_s - time.monotonic()
    if left_s is not None and left_s <= 0:
        raise Outwaited(limit)
    if channel.gettimeout() != left_s:
        channel.settimeout(left_s)
    try:
        return channel.recv(WIRE_PIECE)
    except socket.timeout:
        raise Outwaited(limit) from None


def send_whole(channel, data, piece_s):
    """Sends data, each WIRE_PIECE of it within so many seconds (None: for ever). Outwaited;
    OSError."""
    if channel.gettimeout() != piece_s:
        channel.settimeout(piece_s)
    try:
        for begin in range(0, len(data), WIRE_PIECE):
            channel.sendall(data[begin:begin + WIRE_PIECE])
    except socket.timeout:
        raise Outwaited("send") from None


class Lines:
    """The lines that come in by a channel, bounded, and what of them is here already.
    find_patience() gives the Patience with which they are waited for."""

    def __init__(self, channel, find_patience):
        self._channel, self._find_patience = channel, find_patience
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
        if size > MIN_LINE:             # no limit is less
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
        """Waits for the next line -> take(); None is the end of the input. Outwaited."""
        begun, is_amid = time.monotonic(), bool(self._data)
        while True:
            line = self.take(find_limit)
            if line is not None or self.is_over:
                return line
            if self._data and not is_amid:
                begun, is_amid = time.monotonic(), True
            patience = self._find_patience()
            limit, limit_s = ("line", patience.line_s) if is_amid else ("idle", patience.idle_s)
            self.feed(receive(self._channel, limit, limit_s, begun))


class Caller:
    """One connection: its Conversation, its Lines, and the replies that it is still to get.

    Its `channel` is what its thread reads and writes: the connection, or what seals it by TLS.
    While it `is_fresh` nothing has come in, and the first byte is to be looked at before it is
    taken: it may be one of TLS.
    """

    def __init__(self, connection, peer, conversation, limits, is_fresh):
        self.connection = self.channel = connection
        self.peer, self.conversation, self._limits = peer, conversation, limits
        self.is_fresh = is_fresh
        self.lines = Lines(connection, functools.partial(_find_patience, limits, conversation))
        self.replies, self.unsent = [], b""     # unsent: of the replies before these
        self.page_line = None           # with which it has asked for a page
        self.since = time.monotonic()   # the front has waited for it

    @property
    def patience(self):
        """How long it is waited for."""
        return _find_patience(self._limits, self.conversation)

    @property
    def stranger_s(self):
        """Within how many seconds it must be known who asks, and by what."""
        return self._limits.stranger_s

    def recognise(self, channel, peer, conversation):
        """Now it is known better who asks, and by which channel."""
        self.channel, self.peer, self.conversation = channel, peer, conversation
        self.lines = Lines(channel, functools.partial(_find_patience, self._limits, conversation))
        self.is_fresh = False

    def settle(self):
        """Its first byte is one of plain lines."""
        self.is_fresh = False

    def note_time(self):
        """The front waits from now on."""
        self.since = time.monotonic()

    def find_overdue(self):
        """The name of the limit by which the front has waited too long for it, or None."""
        patience = self.patience
        limit, limit_s = ("line", patience.line_s) if self.lines.size else ("idle", patience.idle_s)
        is_over = limit_s is not None and time.monotonic() > self.since + limit_s
        return limit if is_over and not self.replies else None

    def refuse(self, error):
        """Nothing more is taken in, as no thread goes on with it: what was to wait is refused with
        this error, a line that is none with its own."""
        if self.page_line is not None:
            self.replies.append(self.conversation.refuse(error))
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

    def takes_page(self, line):
        """Whether a line asks for a page: the connection is for that alone by now."""
        if not self.conversation.asks_page(line):
            return False
        self.page_line = line
        return True

    def keep(self, unsent):
        """Notes what could not be sent yet of replies."""
        self.unsent = unsent

    def find_limit(self, start):
        """How many bytes a line that starts like this may have."""
        is_import = start.upper().split()[:1] == [b"IMPORT"]
        return MAX_IMPORT_LINE if is_import and self.conversation.is_administrator \
            else self._limits.max_line


def _find_patience(limits, conversation):
    """How long whoever asks is waited for: he may have said meanwhile who he is."""
    return limits.find_patience(conversation.client)


def encode(lines):
    """Lines of text -> bytes with their ends; what is FLUSH is none."""
    text = "".join(line + "\n" for line in lines if line is not FLUSH)
    return text.encode("utf-8", "backslashreplace")
