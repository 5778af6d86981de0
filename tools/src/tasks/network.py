"""What speaks to other hosts: the type http, and what mail shares with it."""
import contextlib
import re
import signal
import sys
import time
import urllib.parse
from typing import NamedTuple, Optional

from ..base.vocabulary import DONE, MAX_VALUE
from ..base.controls import one_line
from ..definitions.kinds import FILLED, Field, TEXT, VARIABLE_NAME, between, list_of
from .answers import decoded, final_answers, pieces_of, to_utf8
from .roots import Root
from .task import ENVIRONMENT, HelperTask, TaskError, as_value, needed, task_type

SILENCE_S = 60              # the other end may be silent for so long
ANSWER_S = 600              # from the first request to the head of the answer, by all redirects
CONTENT_S = 86400           # for what follows the head
MAX_REDIRECTS = 10

DEFAULT_PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"[\w.-]{1,253}|\[[0-9A-Fa-f:.]+(%\w+)?\]")
BAD_HOST = ("has no valid host and port (a user and password before the host have / ? # @ % "
            "as %2F %3F %23 %40 %25)")
REDIRECTS = (301, 302, 303, 307, 308)
CONTENT_HEADERS = ("content-", "digest", "last-modified", "transfer-encoding")  # begin like this


def import_ssl():
    """The module ssl. TaskError where this host's Python has none."""
    try:
        import ssl
    except ImportError:
        raise TaskError("this host's Python has no TLS (no module ssl)") from None
    return ssl


def tls_context():
    """Verifies the certificate and its name, by the authorities that this host trusts."""
    return import_ssl().create_default_context()


@contextlib.contextmanager
def time_limit(seconds, place):
    """Ends what takes longer, also where every byte is in time. TaskError.

    For a helper: a signal comes to the main thread alone. An outer limit counts on afterwards.
    """
    def ring(*_):
        raise TaskError("%s: took over %s s" % (place, seconds))
    before = signal.signal(signal.SIGALRM, ring)
    outer_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, outer_s)


@contextlib.contextmanager
def failures_at(place):
    """Makes a TaskError that names the place of what the network or the other end did wrong."""
    import http.client
    import urllib.error
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise TaskError("%s: %s" % (place, one_line(reason)[:300])) from None


class Url(NamedTuple):
    """A url of HTTP, taken apart and checked, so that whoever reads it is led to the same place."""
    scheme: str
    host: str                       # lower case; an IPv6 address in brackets
    port: int
    path: str
    query: str
    login: str                      # user:password; empty when there is none

    @property
    def origin(self):
        """What headers, body and login are given for: scheme, host and port."""
        is_default = self.port == DEFAULT_PORTS[self.scheme]
        return "%s://%s%s" % (self.scheme, self.host, "" if is_default else ":%d" % self.port)

    @property
    def address(self):
        """What is asked for: all but the login."""
        return self.origin + self.path + ("?" + self.query if self.query else "")

    @property
    def label(self):
        """For messages: a query may hold a secret as well as a login."""
        return self.origin + self.path


def parse_url(text, base=""):
    """A url, or what one on the page `base` says -> Url. ValueError, which repeats nothing of it:
    a password may stand anywhere."""
    if re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError("has a blank or a control character")
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(base, text))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(BAD_HOST) from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("must begin with http:// or https://")
    host = "[%s]" % host if ":" in host else host
    if not HOST.fullmatch(host):
        raise ValueError(BAD_HOST)
    return Url(parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port,
               parts.path or "/", parts.query,
               urllib.parse.unquote(parts.netloc.rpartition("@")[0]))


class HttpRequest(NamedTuple):
    """One request on the way to the answer."""
    url: Url
    method: str
    headers: dict
    body: Optional[bytes]
    start: Url                      # the url of the definition
    is_home: bool = True            # no other origin than that of `start` was asked so far
    is_secret: bool = False         # the path of `start` may be a secret, too

    @property
    def place(self):
        """For messages: of a redirect, which is a stranger's text, the origin alone."""
        label = self.start.origin if self.is_secret else self.start.label
        return label if self.url == self.start else "%s, redirected to %s" % (
            label, self.url.origin)


def first_request(order):
    """The request that a definition asks for; a login in its url becomes a header. TaskError."""
    try:
        url = parse_url(order["url"])
    except ValueError as error:
        raise TaskError("the url %s" % error) from None
    headers = {name: _check_header(name, text) for name, text in order["headers"].items()}
    if url.login and "authorization" not in map(str.lower, headers):
        import base64
        login = url.login if ":" in url.login else url.login + ":"
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    body = None if order["body"] is None else order["body"].encode()
    return HttpRequest(url, order["method"].upper(), headers, body, url,
                       is_secret=order.get("is_secret", False))


def _check_header(name, text):
    """http.client would refuse it too, and repeat a value that may be secret."""
    if re.search("[\r\n\0]", text) or any(ord(c) > 255 for c in text):
        raise TaskError("the header %s has a line end, or a character that is not Latin-1"
                        % one_line(name))
    return text


def redirected(request, status, location):
    """The request that a redirect asks for (RFC 9110, 15.4). TaskError when it is not followed.

    What the definition gave goes to its own origin alone: once the way has left that, nothing
    is sent but method and url, also where the way leads back.
    """
    url = _redirect_url(request, status, location)
    method, headers, body = request.method, request.headers, request.body
    if status == 303 or status in (301, 302) and method == "POST":
        method = "HEAD" if method == "HEAD" else "GET"
        headers, body = {name: text for name, text in headers.items()
                         if not name.lower().startswith(CONTENT_HEADERS)}, None
    is_home = request.is_home and url.origin == request.url.origin
    if not is_home:
        if body:
            raise TaskError("%s: status %d asks for the body at %s, another origin, where it is "
                            "not sent" % (request.place, status, url.origin))
        headers, body = {}, None
    return HttpRequest(url, method, headers, body, request.start, is_home, request.is_secret)


def _redirect_url(request, status, location):
    """The Url of a Location; a login in it is not taken. TaskError."""
    import string
    location = urllib.parse.quote(location.strip(), string.punctuation, "latin-1")
    try:
        return parse_url(location, request.url.address)._replace(login="")
    except ValueError as error:
        raise TaskError("%s: the redirect of status %d is not followed: its url %s"
                        % (request.place, status, error)) from None


@task_type("http")
class HttpTask(HelperTask):
    """A request of HTTP or HTTPS, certificates verified."""

    fields = {
        "url": needed("begins with http:// or https://"),
        "method": Field(FILLED, default="GET", meaning="method of the request"),
        "headers": Field(ENVIRONMENT, default={}, meaning="headers of the request"),
        "body": Field(TEXT, meaning="what is sent (nothing)"),
        "expect": Field(list_of(between(100, 599)), default=[200],
                        meaning="statuses that mean DONE; all others mean ERROR"),
        "save": Field(FILLED, meaning="a file that takes the answer"),
        "capture": Field(VARIABLE_NAME, meaning="takes the answer"),
        "attempts": Field(between(1, 1000), default=1,
                          meaning="how often it is tried, a second apart"),
    }

    @staticmethod
    def judge(fields):
        """[(field, reason)] of what is wrong with a url that begins with no reference."""
        if fields["url"] and not fields["url"].lower().startswith(("http://", "https://", "${")):
            yield "url", "must begin with http:// or https://"

    @classmethod
    def work(cls, order):
        """Asks, in the helper, in attempts a second apart -> fields of a TaskResult. TaskError."""
        first = first_request(order)
        if order["save"]:               # before anything is sent
            Root(order.get("root")).check_entry(order["save"])
        for attempt in range(order["attempts"]):
            if attempt:
                time.sleep(1)
            try:
                return cls._attempt(order, first)
            except TaskError as error:
                reason = error
                print(one_line(error), file=sys.stderr)
        raise reason

    @classmethod
    def _attempt(cls, order, first):
        with time_limit(order.get("limit_s", ANSWER_S), first.place):
            request, response = cls._answer(first, order["expect"])
        content_s = order.get("limit_s", CONTENT_S)
        with response, failures_at(request.place), time_limit(content_s, request.place):
            return cls._take(order, request.place, response)

    @classmethod
    def _answer(cls, request, expect):
        """Follows redirects, but those that are expected -> (the last request, its response)."""
        opener, requests = cls._opener(), set()
        while True:
            response = cls._send(opener, request)
            location = response.headers.get("Location")
            if response.status in expect or response.status not in REDIRECTS or not location:
                return request, response
            response.close()
            requests.add((request.method, request.url))
            request = redirected(request, response.status, location)
            if (request.method, request.url) in requests:
                raise TaskError("%s: redirected in a circle" % request.place)
            if len(requests) > MAX_REDIRECTS:
                raise TaskError("%s: over %d redirects" % (request.place, MAX_REDIRECTS))

    @staticmethod
    def _opener():
        """urllib's handlers for HTTP and the proxies of the environment: none that follows a
        redirect, and none for file:, ftp: and data:."""
        import urllib.request
        handlers = [urllib.request.ProxyHandler(), urllib.request.UnknownHandler(),
                    final_answers(urllib.request.HTTPHandler)()]
        if hasattr(urllib.request, "HTTPSHandler"):     # else _send tells that TLS is missing
            handlers.append(final_answers(urllib.request.HTTPSHandler)(context=tls_context()))
        opener = urllib.request.OpenerDirector()
        for handler in handlers:
            opener.add_handler(handler)
        return opener

    @staticmethod
    def _send(opener, request):
        import urllib.request
        if request.url.scheme == "https":
            import_ssl()
        with failures_at(request.place):
            return opener.open(
                urllib.request.Request(request.url.address, request.body, request.headers,
                                       method=request.method), timeout=SILENCE_S)

    @staticmethod
    def _take(order, place, response):
        """What an answer gives: its status as `rc`, its body in a file or a variable, or both ->
        fields of a TaskResult. TaskError."""
        if response.status not in order["expect"]:
            raise TaskError("%s: status %d, expected %s" % (
                place, response.status, order.get("expected") or ", ".join(
                    str(code) for code in order["expect"])))
        values, body, what = {}, b"", "%s: the answer has" % place
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(Root(order.get("root")).written(
                order["save"], note=order["note"])) if order["save"] else None
            is_read = order["save"] or order["capture"]
            pieces = decoded(response, place, order["save"]) if is_read else pieces_of(response)
            for piece in pieces:
                if file:
                    file.write(piece)
                if order["capture"]:
                    body += piece
                    if len(body) > 4 * MAX_VALUE:        # too long in any charset
                        as_value(body, what)
            if getattr(response, "length", None):       # http.client does not tell
                raise TaskError("%s: the answer ended early, %d bytes are missing"
                                % (place, response.length))
            if order["capture"]:
                values[order["capture"]] = as_value(to_utf8(body, response.headers), what)
        return {"status": DONE, "rc": response.status, "values": values}
