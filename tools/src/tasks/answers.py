"""What an answer of HTTP holds: past what only announces it, without codings, in a charset."""

from ..base.controls import one_line
from .task import TaskError

PIECE = 1 << 16             # bytes that are taken at a time
GZIP_TYPES = ("application/gzip", "application/x-gzip", "application/x-compressed-tar")
GZIP_NAMES = (".gz", ".tgz", ".svgz")
GZIP_MAGIC = b"\x1f"


def final_answers(handler):
    """A handler of urllib whose answers are final: http.client takes one of RFC 9110, 15.2, such
    as 103, for the answer itself."""
    import http.client

    class FinalResponse(http.client.HTTPResponse):
        """The answer that follows those that only announce it."""

        def begin(self):
            super().begin()
            while 100 < self.status < 200 and self.status != 101:
                self.headers = None         # or it would not read on
                super().begin()

    class FinalHandler(handler):
        """Opens connections whose answers are these."""

        def do_open(self, http_class, request, **keywords):
            connection = type("Connection", (http_class,), {"response_class": FinalResponse})
            return super().do_open(connection, request, **keywords)
    return FinalHandler


def pieces_of(response):
    """The content of an answer as it comes, some of it at a time."""
    return iter(lambda: response.read(PIECE), b"")


def decoded(response, place, save):
    """The content of an answer, some of it at a time, without its content codings (RFC 9110, 8.4).
    TaskError for one that is not known.

    A .gz that is fetched to be kept stays one: many servers tell as a coding what the file is.
    """
    headers = response.headers
    codings = ", ".join(headers.get_all("Content-Encoding", [])).lower().split(",")
    is_gz = headers.get_content_type() in GZIP_TYPES or (save or "").lower().endswith(GZIP_NAMES)
    pieces = pieces_of(response)
    for coding in reversed([coding.strip() for coding in codings]):
        if coding == "deflate" or coding in ("gzip", "x-gzip") and not is_gz:
            pieces = unpacked(pieces, place)
        elif coding not in ("", "identity", "gzip", "x-gzip"):
            raise TaskError("%s: the answer has the content coding %s, which is not known here"
                            % (place, one_line(coding)[:40]))
    return pieces


def unpacked(pieces, place):
    """What is packed by gzip or deflate, some of it at a time. TaskError."""
    import zlib
    unpacker, is_first = None, True
    try:
        for data in pieces:
            while data:
                if unpacker is None and not (is_first or data[:1] == GZIP_MAGIC):
                    break                   # what stands behind the last member is none
                if unpacker is None:        # some servers leave out the head of deflate
                    has_head = data[:1] == GZIP_MAGIC or data[0] & 15 == 8 and data[0] < 128
                    unpacker, is_first = zlib.decompressobj(47 if has_head else -15), False
                yield unpacker.decompress(data, PIECE)
                data = unpacker.unconsumed_tail
                if unpacker.eof:            # another member may follow
                    data, unpacker = unpacker.unused_data, None
        while unpacker is not None and not unpacker.eof:
            rest = unpacker.decompress(b"", PIECE)
            if not rest:
                raise TaskError("%s: the answer ended early: the end of what is packed is missing"
                                % place)
            yield rest
    except zlib.error as error:
        raise TaskError("%s: the answer cannot be unpacked: %s" % (place, error)) from None


def to_utf8(data, headers):
    """Text in the charset that an answer tells, as UTF-8."""
    charset = headers.get_content_charset() or "utf-8"
    try:
        return data.decode(charset, "replace").encode("utf-8", "replace")
    except LookupError:             # nobody knows it
        return data
