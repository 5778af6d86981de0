"""The operator page at the port: the headers of a request, who asks, and the answer."""
import base64
import threading
import time

from ..base.errors import AuthError, BadRequest, Busy, Denied, Stopping, TooLong
from ..page.page import Page
from ..page.requests import (HEAD_S, HttpError, MAX_HEAD, answer_error, check_origin, read_headers,
                             read_request)
from ..protocol.audit_verbs import note_page
from .incoming import Outwaited, receive

PAGES_AT_ONCE = 4       # that are drawn; further ones wait
TURN_S = 10.0           # so long at most
NOT_PRIVATE = ("this page is for the agent's own user on this host, and for those whom it knows by "
               "their OS user; everybody else asks by TLS (https)")
TEMPORARY = "your password is for one use: set yours by USERS PASSWORD first"
CHALLENGE = ("WWW-Authenticate", 'Basic realm="agent", charset="UTF-8"')


class PageDoor:
    """Answers requests for the operator page, one a connection."""

    def __init__(self, agent):
        self._agent, self._page = agent, Page(agent)
        self._turns = threading.BoundedSemaphore(PAGES_AT_ONCE)

    def answer(self, caller):
        """Reads the headers of a Caller who has asked for a page -> the bytes of the answer.
        OSError: the client is gone."""
        try:
            answer = self._find_answer(caller)
        except HttpError as error:
            answer = answer_error(error)
        return answer.encode(self._agent.clock.now())

    def _find_answer(self, caller):
        """The HttpAnswer. Nothing is drawn for one who is not known, or whom another site has
        led here. HttpError."""
        request = read_request(caller.page_line, _read_head_lines(caller))
        if not caller.peer.is_private:
            note_page(self._agent, caller.conversation.client, AuthError.code)
            raise HttpError(403, NOT_PRIVATE)
        check_origin(request.headers, list_page_names(self._agent.settings))
        client = self._identify(caller, request.headers.get("authorization"))
        if not self._turns.acquire(timeout=TURN_S):
            raise HttpError(503, "too many pages are asked for at once", ("Retry-After", "10"))
        try:
            return self._page.answer(request, client)
        finally:
            self._turns.release()

    def _identify(self, caller, words):
        """The Client who asks: as the host or a certificate tells, or by the words of a header: by
        TLS alone, where the host does tell. HttpError."""
        client = caller.conversation.client
        takes_words = caller.channel is not caller.connection or self._agent.access.has_token
        if takes_words and words is not None:
            client = self._log_in(client, words)
        if client.role is None:
            note_page(self._agent, client, AuthError.code)
            raise HttpError(401, "say who you are", CHALLENGE) if takes_words \
                else HttpError(403, NOT_PRIVATE)
        if client.is_temporary:
            note_page(self._agent, client, Denied.code)
            raise HttpError(403, TEMPORARY)
        return client

    def _log_in(self, client, words):
        """The Client by a user and a password. HttpError."""
        name, password = read_basic(words)
        try:
            return self._agent.access.log_in_again(client.peer, name, password)
        except AuthError as error:
            note_page(self._agent, client, error.code, name)
            raise HttpError(401, error.message, CHALLENGE) from None
        except Busy as error:
            note_page(self._agent, client, error.code, name)
            raise HttpError(429, error.message, ("Retry-After", "30")) from None
        except (Denied, Stopping) as error:
            raise HttpError(403 if isinstance(error, Denied) else 503, error.message) from None


def list_page_names(settings):
    """The names, beside those of loopback, by which the page may be asked for, in small letters."""
    names = [settings.host] + (settings.page_host or "").split(",")
    return frozenset(name.strip().strip("[]").rstrip(".").lower() for name in names
                     if name.strip())


def read_basic(words):
    """The value of a header Authorization -> user, password. HttpError."""
    scheme, _, code = words.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError("another scheme")
        name, colon, password = base64.b64decode(code.strip(), validate=True).decode(
            "utf-8").partition(":")
        if not colon:
            raise ValueError("no colon")
    except ValueError:                  # binascii.Error, UnicodeError
        raise HttpError(401, "this is no Basic authorization", CHALLENGE) from None
    return name, password


def _read_head_lines(caller):
    """The lines of the headers behind a request's first line. HttpError; OSError: the client is
    gone."""
    lines, begun, header_lines = caller.lines, time.monotonic(), []
    size = MAX_HEAD - len(caller.page_line)
    try:
        while True:
            line = lines.take(lambda start: max(0, size))
            if line == b"":
                return header_lines
            if line is not None:
                read_headers((line,))   # what is none is not waited for to its end
                header_lines.append(line)
                size -= len(line) + 2
            elif lines.is_over:
                raise HttpError(400, "the request ends amid its headers")
            else:
                lines.feed(receive(caller.channel, "headers", HEAD_S, begun))
            if size < 0:
                raise TooLong("")
    except TooLong:
        raise HttpError(431, "a request has at most %d bytes of headers" % MAX_HEAD) from None
    except BadRequest:
        raise HttpError(400, "the request ends amid its headers") from None
    except Outwaited:
        raise HttpError(408, "the headers did not come within %g s" % HEAD_S) from None
