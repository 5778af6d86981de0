"""HTTP as far as the operator page speaks it: a GET with its headers, and one answer."""
import re
import time
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from .instants import DAYS, MONTHS

MAX_HEAD = 16384        # bytes of the request's line and its headers
HEAD_S = 5.0            # within which they have to be here
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
           408: "Request Timeout", 429: "Too Many Requests",
           431: "Request Header Fields Too Large", 500: "Internal Server Error",
           503: "Service Unavailable"}
HTML_TYPE, JSON_TYPE, TEXT_TYPE = (
    "text/html; charset=utf-8", "application/json; charset=utf-8", "text/plain; charset=utf-8")
# nothing from elsewhere, nothing that a text could bring with it, nobody's frame
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
          " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
SAFE_HEADERS = (
    ("Content-Security-Policy", POLICY), ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"), ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Resource-Policy", "same-origin"))
NO_STORE = ("Cache-Control", "no-store")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0-\x08\n-\x1f\x7f]*?)[ \t]*")
_SINGLE = frozenset(("host", "authorization", "sec-fetch-site"))
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{0,5})?")
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]")


class HttpError(Exception):
    """Why a request is not answered with what it asks for."""

    def __init__(self, status, message, *headers):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


class PageRequest(NamedTuple):
    """A GET: what it asks for, with the filters of the address, and its headers by their names in
    small letters."""
    path: str
    query: dict
    headers: dict


class HttpAnswer(NamedTuple):
    """What a request is answered with."""
    status: int
    kind: str               # Content-Type
    body: bytes
    headers: tuple = (NO_STORE,)

    def encode(self, now):
        """Its bytes, at an instant in epoch seconds; the connection ends with it."""
        lines = ["HTTP/1.1 %d %s" % (self.status, REASONS[self.status]),
                 "Date: " + show_http_date(now), "Content-Type: " + self.kind,
                 "Content-Length: %d" % len(self.body), "Connection: close"]
        lines += ["%s: %s" % pair for pair in self.headers + SAFE_HEADERS]
        return "\r\n".join(lines + ["", ""]).encode("ascii", "replace") + self.body


def answer_error(error):
    """The HttpAnswer of an HttpError, in plain text."""
    return HttpAnswer(error.status, TEXT_TYPE, ("%d %s: %s\n" % (
        error.status, REASONS[error.status], error.message)).encode("utf-8", "backslashreplace"),
        (NO_STORE,) + error.headers)


def show_http_date(instant):
    """An instant as HTTP tells it (RFC 9110, 5.6.7)."""
    moment = time.gmtime(instant)
    return "%s, %02d %s %04d %02d:%02d:%02d GMT" % (
        DAYS[moment.tm_wday], moment.tm_mday, MONTHS[moment.tm_mon - 1], moment.tm_year,
        moment.tm_hour, moment.tm_min, moment.tm_sec)


def read_request(line, header_lines):
    """The line of a GET and those of its headers, all bytes -> PageRequest. HttpError."""
    target = line.split(b" ")[1]
    if not target.startswith(b"/"):
        raise HttpError(400, "the address of a page begins with /")
    path, _, query = target.partition(b"#")[0].partition(b"?")
    return PageRequest(_decode_part(path), read_query(query), read_headers(header_lines))


def read_query(query):
    """The filters of an address, bytes -> {name: value}; of a name that stands twice the last.
    HttpError."""
    pairs = [part.replace(b"+", b" ").partition(b"=") for part in query.split(b"&") if part]
    return {_decode_part(name): _decode_part(value) for name, _, value in pairs}


def _decode_part(data):
    """Bytes with %XX -> text. HttpError."""
    try:
        text = unquote_to_bytes(data).decode("utf-8")
    except UnicodeDecodeError:
        raise HttpError(400, "the address is not UTF-8") from None
    if "\0" in text:
        raise HttpError(400, "the address has a NUL")
    return text


def read_headers(lines):
    """Lines of headers, bytes -> {name in small letters: value}. HttpError."""
    headers = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise HttpError(400, "a header is not well-formed")
        name, value = match.group(1).decode("ascii").lower(), match.group(2).decode("latin-1")
        if name in headers and name in _SINGLE:
            raise HttpError(400, "the header %s stands twice" % name)
        headers.setdefault(name, value)
    return headers


def check_origin(headers, names):
    """HttpError: the request was not made for this agent by its name, but maybe by another site's
    page: of loopback, or among `names`, in small letters."""
    host = headers.get("host", "").lower()
    match = _HOST.fullmatch(host)
    name = match.group(1).rstrip(".") if match else ""
    if not match or not _LOOPBACK.fullmatch(name) and name.strip("[]") not in names:
        raise HttpError(403, "this agent does not go by the name of this address; use localhost, or"
                             " start it with --page-host NAME")
    if headers.get("sec-fetch-site", "").lower() == "cross-site":
        raise HttpError(403, "another site has led here; type the address yourself")
