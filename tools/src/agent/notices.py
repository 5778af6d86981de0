"""The notices of an agent: what has gone wrong is taken from the repositories, and sent.

Thread notices: takes events, and has sent what is due; ends at Notices.stop().
Thread notice NAME: sends one message of a notice by a process, and ends with it.
"""
import os
import re
import threading

from ..base.controls import one_line
from ..base.errors import AgentError, Busy, NotFound, RepositoryError
from ..base.program import Told, log, tell_traceback
from ..base.times import local_iso
from ..base.vocabulary import DONE, ERROR
from ..base.workers import Worker
from ..processes.errand import Errand
from ..runtime.sources import read_secret, resolve_server
from ..store.notices import StoredNotices
from ..tasks.notify import SENDING_S, send_letter
from ..tasks.task import TaskError
from .events import Events
from .letters import make_letter, make_test_event

NOTICE_LOOK_S = 0.5     # between two looks at what there is
FIRST_RETRY_S, LAST_RETRY_S = 15.0, 3600.0      # until a message is tried again, doubled each time
GIVE_UP_S = 86400.0     # from its first try on,
LEAST_TRIES = 5         # but not before so many: the agent may have been away
SENT_AT_ONCE = 16       # messages, and tests beside them
CLOSE_SENDING_S = 1.0   # that the end of the agent waits for what is being sent


class Notices:
    """Takes what has happened out of the work repositories into messages in the master, and sends
    each when it is due. Nothing waits for it but its own threads and NOTICE TEST."""

    def __init__(self, agent, host, port, file_limit):
        self._agent, self._clock, self._file_limit = agent, agent.clock, file_limit
        self.stored = StoredNotices(agent.master.db, agent.name, agent.clock)
        self._is_over = threading.Event()
        self._events = Events(agent.name, self.stored, host, port, agent.clock,
                              self._is_over.is_set)
        self._idle = threading.Condition()      # for the next three
        self._sending = {}              # id of a message -> Errand
        self._is_sending = set()        # notices that a thread sends
        self._outcomes = {}             # id of a message -> what its try came to: to be written
        self.counts = {DONE: 0, ERROR: 0}       # tries, for METRICS
        self.waiting = 0                # events, for METRICS
        self._told = Told()

    def run(self):
        """The thread: until stop()."""
        while not self._is_over.wait(NOTICE_LOOK_S):
            self._carefully("notices", self.look)

    def stop(self):
        """Ends run(); what is being sent has a moment, and is sent again at the next start."""
        self._is_over.set()
        with self._idle:
            self._idle.wait_for(lambda: not (self._sending or self._is_sending), CLOSE_SENDING_S)
            errands = list(self._sending.values())
        for errand in errands:
            errand.stop()
        with self._idle:                # what came of it is noted, too
            self._idle.wait_for(lambda: not self._is_sending, CLOSE_SENDING_S)

    def _carefully(self, what, method, *arguments):
        """What fails costs that alone, and is told once."""
        text = ""
        try:
            method(*arguments)
        except RepositoryError:         # told by whose it is; the next look tries again
            pass
        except AgentError as error:
            text = error.message
        except Exception as error:
            text = tell_traceback(error)
        if self._told.is_new(what, text):
            log.error("%s: %s", what, text)

    def look(self):
        """Takes what has happened, and has sent what is due."""
        if self._agent.master.db.is_gone:
            return
        notices = self._events.list_notices()
        wants_long = any("long" in notice["on"] for notice in notices)
        for repository in self._agent.places.list_open():
            # one that has trouble says it, and what happened waits in it
            if not repository.is_copy and not repository.db.trouble:
                self._carefully("notices of " + repository.name, self._events.look_at,
                                repository, wants_long)
        self._send_due({notice["name"]: notice for notice in notices})

    # -- sending -----------------------------------------------------------------------

    def _send_due(self, notices):
        """Begins to send the messages whose time has come, of each notice one at a time."""
        now, tried = self._clock.now(), set()
        rows = self.stored.list_waiting()
        self.waiting = sum(row["count"] for row in rows)
        for row in rows:
            notice = notices.get(row["notice"])
            if notice is None or row["notice"] in tried:
                continue
            tried.add(row["notice"])    # further ones of it wait, and take events
            longest_s = max(LAST_RETRY_S, notice["group_s"])
            is_due = not now < row["due"] <= now + longest_s    # further: the clock was set back
            with self._idle:
                is_free = row["notice"] not in self._is_sending \
                    and len(self._is_sending) < SENT_AT_ONCE and not self._is_over.is_set()
                if not (is_due and is_free):
                    continue
                self._is_sending.add(row["notice"])
            worker = Worker(self._send_one, "notice " + row["notice"], notice, row)
            if not worker.try_start():
                self._end_sending(row["notice"])

    def _send_one(self, notice, row):
        """Thread notice NAME."""
        try:
            self._carefully("notice " + notice["name"], self._try_one, notice, row)
        finally:
            self._end_sending(notice["name"])

    def _end_sending(self, name):
        with self._idle:
            self._is_sending.discard(name)
            self._idle.notify_all()

    def _try_one(self, notice, row):
        """Sends a message, and notes what came of it. RepositoryError: while the master cannot be
        written nothing is sent again, only what came of it is noted later."""
        number = row["id"]
        if number not in self._outcomes:
            outcome = self._send_message(notice, row)
            if outcome is None:
                return
            self._outcomes[number] = outcome
        method, arguments = self._outcomes[number]
        method(number, *arguments)
        del self._outcomes[number]

    def _send_message(self, notice, row):
        """Sends a message -> (method of the StoredNotices, arguments) that notes what came of it,
        or None: the next start tries it again. RepositoryError."""
        name, count, letter = notice["name"], row["count"], None
        count, events = self.stored.begin(row["id"], self._clock.now())
        if not events:                  # deleted meanwhile
            return self.stored.settle, (name, "")
        try:
            letter = make_letter(self._agent.name, name, row["id"], events, count)
        except (KeyError, TypeError, ValueError) as error:
            status, message = ERROR, "its events are spoilt: %s" % one_line(error)
        else:
            status, message = self._send(notice["send"], letter)
        if self._is_over.is_set() and status == ERROR:
            return None
        with self._idle:
            self.counts[status] += 1
        if status == DONE:
            log.info("notice %s is sent: %d events", name, count)
            return self.stored.settle, (name, message, self._clock.now())
        return self._judge_failure(name, row, count, message)

    def _judge_failure(self, name, row, count, message):
        """What is noted of a try that failed: it is tried again, or given up."""
        now = self._clock.now()
        first = now if row["tried"] is None or row["tried"] > now else row["tried"]
        is_late = now >= first + GIVE_UP_S
        if is_late and row["tries"] + 1 >= LEAST_TRIES:
            text = "given up at %s after %d tries, %d events: %s" % (
                local_iso(now), row["tries"] + 1, count, message)
            log.error("notice %s: %s", name, text)
            return self.stored.settle, (name, text)
        if not row["tries"]:
            log.warning("notice %s cannot be sent, and is tried again for 24 h: %s", name, message)
        delay_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(row["tries"], 20))
        due = now + delay_s
        return self.stored.put_off, (due if is_late else min(due, first + GIVE_UP_S), message)

    def _send(self, way, letter):
        """Sends a Letter -> (DONE or ERROR, what is to be said of it)."""
        bounds, errand = self._agent.bounds, Errand(self._bound, SENDING_S)
        with self._idle:
            self._sending[letter.id] = errand
        try:
            reason = bounds.tell_forbidden(way["type"])
            if reason:
                raise ValueError(reason)
            way = resolve_way(way, bounds.read)
            server = self._find_mail_server() if way["type"] == "mail" else None
            return DONE, one_line(send_letter(way, letter, errand, bounds.surround(os.environ),
                                              server))
        except (ValueError, TaskError, OSError, AgentError) as error:
            return ERROR, one_line(error)
        finally:
            with self._idle:
                self._sending.pop(letter.id, None)
                self._idle.notify_all()

    def _bound(self, command):
        return self._agent.bounds.bounded(command._replace(
            file_limit=self._file_limit.to_restore))

    def _find_mail_server(self):
        """The data server MAIL with its secrets, or None: there is none. ValueError."""
        server = self._agent.master.find_data_server("MAIL")
        if server is None:
            return None
        if server["driver"] != "smtp":
            raise ValueError("the data server MAIL has the driver %s, not smtp" % server["driver"])
        return resolve_server(server, self._agent.bounds.read)

    # -- what is asked for -------------------------------------------------------------

    def list_rows(self):
        """Yields (notice, events that wait, when it was sent last, what is to be said) by name."""
        waiting, states = self.stored.list_waiting(), self.stored.list_states()
        for notice in self._events.list_notices():
            rows = [row for row in waiting if row["notice"] == notice["name"]]
            last, message = states.get(notice["name"], (None, ""))
            failing = next((row for row in rows if row["fault"]), None)
            if failing is not None:
                message = "tried %d times, next at %s: %s" % (
                    failing["tries"], local_iso(failing["due"]), failing["fault"])
            yield notice, sum(row["count"] for row in rows), last, message

    def test(self, name, by):
        """Sends a notice that says it is a test, and waits for that -> (DONE or ERROR, message).
        NotFound, Busy."""
        notice = next((each for each in self._events.list_notices() if each["name"] == name), None)
        if notice is None:
            raise NotFound("no notice %s" % name)
        if len(self._sending) >= 2 * SENT_AT_ONCE or self._is_over.is_set():
            raise Busy("too many notices are being sent; try again")
        event = make_test_event(by, self._clock.now(), self._events.tell_commands(["notice list"]))
        letter = make_letter(self._agent.name, name, os.urandom(16).hex(), [event], 1)
        return self._send(notice["send"], letter)

    def delete(self, name):
        """Deletes a notice and what waits of it. NotFound."""
        self.stored.delete(name)


def resolve_way(way, read):
    """How a notice is sent, with its secrets read; `read` as of read_secret. ValueError."""
    def resolve(value):
        return re.sub("[\r\n\0]", "", read_secret(value, read)) if isinstance(value, dict) \
            else value
    if way["type"] != "http":
        return way
    return dict(way, url=resolve(way["url"]), is_secret=isinstance(way["url"], dict), headers={
        name: resolve(value) for name, value in way["headers"].items()})
