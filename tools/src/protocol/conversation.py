"""The requests of one connection in order, and their replies; knows no sockets."""
import functools
import json
import os
import re

from ..base.vocabulary import ROLES
from ..base.errors import AgentError, AuthError, BadRequest, Denied, Internal
from ..base.program import log, tell_traceback
from ..base.controls import one_line, show_controls
from ..base.words import (_CONTROL, is_about_password, list_hidden, mask_all, render_fields,
                          split_words)
from ..agent.audit import DONE_WELL
from ..agent.desk import Acknowledgement
from .table import check_request, find_verb, wants_json
from .audit_verbs import is_look, note_outcome
from .lines import FLUSH, TextLine, ticket_fields
from .narrow import check_rows, check_words
from .user_verbs import Introduction

_PAGE_LINE = re.compile(rb"GET [!-~]+ HTTP/1\.[01]")
_HTTP_LINE = re.compile("[ \t]HTTP/[0-9][0-9.]*$", re.I)       # a request of HTTP ends so

CONNECT = "CONNECT"     # what the audit calls a connection that may not ask for anything
_JSON_WORD = re.compile("(?:^|[ \t])-JSON(?=[ \t\r]|$)", re.I)
_SESSION_BEFORE = re.compile("(?:session=([0-9]+) )?(.*)", re.S)       # what a message begins with


class Conversation:
    """One connection's requests in order; it knows no sockets.

    `begin` reads a request, `Reply.start` begins it, `Reply.chunks` finishes it: an EXEC is under
    way to its commit while the next request of the same connection is already read. With an Access
    a change of the users reaches it at once; without one the Client stays as he is, until AUTH.
    """

    def __init__(self, agent, client, has_left=lambda: False, access=None):
        self._agent, self._client, self._has_left = agent, client, has_left
        self._access, self._revision = access, access and access.revision
        self._is_first = True
        self.is_over = False

    def begin(self, data):
        """Bytes of a line -> Reply, or None for a blank one.

        A first line that is no well-formed request ends the conversation, and so does any line of
        HTTP: a browser, or whatever else was led here, has nothing of the rest carried out.
        """
        text, words, row, request = "", [], None, None
        if self._access is not None and self._revision != self._access.revision:
            self._renew()
        try:
            text = self._decode(data)
            self.is_over = _HTTP_LINE.search(text.rstrip(" \t")[-40:]) is not None
            words = split_words(text)
            if not words:
                return None
            row, rest = find_verb(words)
            if self.is_over:
                raise BadRequest("a line of HTTP; this port speaks the agent's own protocol, which "
                                 "HELP tells")
            request = self._check(row, rest)
            self._is_first = False
            self.is_over = row.name == "QUIT"
            self._check_role(row)
            if self._client.scenarios:
                check_words(self._agent, request)
        except Exception as error:
            self.is_over = self.is_over or self._is_first
            self._is_first = False
            # where it cannot be split into words, the text has to tell
            is_json = wants_json(words) if words else _JSON_WORD.search(text) is not None
            return Reply(error, is_json, words,
                         on_outcome=row and self._noter(row, self._client, request))
        if row.is_quick is not None:
            return Reply(functools.partial(row.run, self._agent, request), request.is_json, words,
                         row.is_pipelined, row.is_quick(self._agent, request),
                         on_outcome=self._noter_of_change(row, request))
        look_again = functools.partial(self._look_again, row, request) \
            if is_look(row) else None
        return Reply(functools.partial(self._carry_out, row, request), request.is_json, words,
                     row.is_pipelined, False, look_again, self._noter_of_change(row, request))

    def asks_page(self, data):
        """Whether the bytes of a line are the first, and ask for a page by HTTP: they are for who
        answers that, and nothing behind them is a request."""
        if not self._is_first or _PAGE_LINE.fullmatch(data) is None:
            return False
        self._is_first, self.is_over = False, True
        return True

    def _noter(self, row, client, request):
        """What tells the audit the outcome of a request."""
        return functools.partial(note_outcome, self._agent, row, client, request)

    def _noter_of_change(self, row, request):
        """As _noter(); None for what only looks, once it is known that it may."""
        return None if is_look(row) else self._noter(row, request.client, request)

    def _renew(self):
        """The users have changed, so this may be another one."""
        self._revision = self._access.revision
        self._client = self._access.renew(self._client)

    def _carry_out(self, row, request):
        """What the verb's function gives. It may change who asks from now on."""
        if request.client.is_narrowed:
            check_rows(self._agent, request)
        outcome = row.run(self._agent, request)
        if isinstance(outcome, Introduction):
            self._client = outcome.client
            return outcome.fields
        return outcome

    def _look_again(self, row, request):
        """Before a further line of a reply that may have taken long: AuthError, Denied, when who
        asks may not see it any more."""
        if self._access is not None and self._revision != self._access.revision:
            self._renew()
        if self._client is request.client:
            return
        try:
            self._check_role(row)
            if self._client.scenarios != request.client.scenarios:
                raise Denied("what is there for you has changed: ask again")
        except AgentError as error:
            note_outcome(self._agent, row, self._client, request, error.code)
            raise

    def _check(self, row, words):
        """The words behind a verb -> Request. Who may not ask is told that before what is wrong."""
        try:
            return check_request(row, words, self._client, self._has_left,
                                 lambda: self._agent.clock.now())
        except BadRequest:
            self._check_role(row)
            raise

    def _decode(self, data):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise BadRequest("the line is not UTF-8") from None
        if "\0" in text:
            raise BadRequest("the line has a NUL")
        if self._is_first and _CONTROL.search(text):
            raise BadRequest("the first line has control characters")
        return text

    def refuse(self, error, data=b""):
        """A Reply for what is no request, or for the bytes of a line that is not to be read; the
        connection ends with it."""
        self.is_over = True
        if isinstance(error, AuthError):        # whatever it was to be
            self._agent.audit.note(self._client, CONNECT, "", error.code)
        return Reply(error, _JSON_WORD.search(data.decode("utf-8", "replace")) is not None)

    @property
    def client(self):
        """Who asks."""
        return self._client

    @property
    def is_administrator(self):
        """Whether it may do everything."""
        return self._client.is_administrator

    @property
    def is_known(self):
        """Whether the agent knows who it is."""
        return self._client.role is not None

    def _check_role(self, row):
        """AuthError, Denied: who asks may not ask for this verb."""
        if row.role is None:
            return
        role = self._client.role
        if self._client.is_temporary and row.name != "USERS PASSWORD":
            raise Denied("your password is for one use: USERS PASSWORD %s NEW sets yours"
                         % self._client.user)
        if role is None:
            raise AuthError("say who you are: AUTH USER PASSWORD")
        if ROLES.index(role) < ROLES.index(row.role):
            raise Denied("%s is for the role %s" % (row.name, row.role))


class Reply:
    """The reply to one request, as it comes. It `is_quick` when nobody has to be waited for, but
    for a commit."""

    def __init__(self, outcome, is_json=False, words=(), is_pipelined=False, is_quick=True,
                 look_again=None, on_outcome=None):
        self._on_outcome = on_outcome       # on_outcome(DONE_WELL or a code), once that is known
        self._outcome, self._is_json, self._words = _bare(outcome), is_json, words
        self._look_again = look_again   # look_again() raises why no further line may be told
        self._is_to_start, self.is_quick = is_pipelined, is_quick

    def start(self):
        """Begins what the next request need not wait for: an EXEC goes to its repository."""
        if self._is_to_start:
            self._is_to_start = False
            try:
                self._outcome = self._outcome()
            except Exception as error:
                self._outcome = _bare(error)

    @property
    def is_under_way(self):
        """Whether, begun, it waits for a commit alone: other requests of its connection can be
        begun meanwhile."""
        return isinstance(self._outcome, Acknowledgement)

    @property
    def is_ready(self):
        """Whether the commit that it waits for is over, if there is one."""
        return not isinstance(self._outcome, Acknowledgement) or self._outcome.is_ready

    def call_when_ready(self, function):
        """Has function() called once it is ready, by any thread, maybe twice; it must wait for
        nothing."""
        self._outcome.call_when_ready(function)

    def _note(self, outcome):
        on_outcome, self._on_outcome = self._on_outcome, None
        if on_outcome is not None:
            on_outcome(outcome)

    def chunks(self):
        """Yields lines of text without their ends, and FLUSH; the last begins with OK or ERR."""
        self.start()
        if isinstance(self._outcome, Exception):
            yield from self._tell(self._outcome)
            return
        try:
            fields = yield from self._data()
            yield "OK " + self._render(fields or ()) if fields or self._is_json else "OK"
        except Exception as error:
            yield from self._tell(error)

    def _tell(self, error):
        """Yields the lines of an error, without what no error may repeat."""
        hidden = list_hidden(self._words)
        if not isinstance(error, AgentError):
            error = internal(error, hidden)
        elif is_about_password(self._words):
            hidden = []                 # they tell such words by their numbers
        self._note(error.code)
        faults = [(mask_all(one_line(path), hidden), mask_all(one_line(reason), hidden))
                  for path, reason in error.faults]
        message = one_line(error.message)
        masked = mask_all(message, hidden)
        if masked != message:
            masked += "; *** may belong to the value before it, which is quoted when it has spaces"
        if not self._is_json:
            for fault in faults:
                yield "* %s: %s" % fault
            yield "ERR %s %s" % (error.code, masked)
            return
        session, text = _SESSION_BEFORE.fullmatch(masked).groups()
        fields = {"message": text}
        if session:
            fields["session"] = int(session)
        if faults:
            fields["faults"] = [{"path": path, "reason": reason} for path, reason in faults]
        yield "ERR %s %s" % (error.code, json.dumps(fields))

    def _render(self, fields):
        return json.dumps(dict(fields)) if self._is_json else render_fields(fields)

    def _data(self):
        """Yields the data lines of the outcome, and FLUSH where the client waits; returns the
        fields of the OK line, or None. Raises what goes wrong."""
        outcome = self._outcome
        if self.is_under_way:
            return ticket_fields(outcome.result())
        if callable(outcome):
            outcome = outcome()
        if self._look_again:
            self._look_again()
        if isinstance(outcome, (list, tuple)) or outcome is None:
            self._note(DONE_WELL)
            return outcome
        while True:
            try:
                line, is_over = next(outcome), False
            except StopIteration as stop:
                line, is_over = stop.value, True
            if self._look_again:
                self._look_again()
            self._note(DONE_WELL)           # a change has been made before its first line
            if is_over:
                return line
            if line is FLUSH:
                yield FLUSH
            elif isinstance(line, TextLine):
                text = self._render(line.fields) if self._is_json else show_controls(line.text)
                yield "* " + text if text else "*"
            else:
                yield "* " + self._render(line)


def _bare(outcome):
    """An outcome; of an error without the frames behind it, which would hold its Reply."""
    if isinstance(outcome, AgentError):
        outcome.__context__ = None
        outcome.with_traceback(None)
    return outcome


def internal(error, hidden):
    """What nobody expected: logged with an id that the user is told,
    without the texts in `hidden`."""
    name = os.urandom(4).hex()
    log.error("fault %s\n%s", name, mask_all(tell_traceback(error), hidden))
    return Internal("fault %s of the agent, told in its log" % name)
