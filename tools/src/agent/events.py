"""From what work repositories note to the events of notices."""
import contextlib
import functools

from ..base.patterns import is_any_match
from ..base.times import from_text, local_iso
from ..base.vocabulary import DEFAULT_PORT, HEARTBEAT_S
from ..definitions.notices import NOTICE_KINDS
from ..definitions.reader import Definitions
from ..store.endings import is_by_operator
from ..store.happenings import (drop_happenings, find_end, find_family, find_usual,
                                list_happenings, list_unnoted, note_all_ends, note_long,
                                read_last_lines)
from .letters import list_next, make_event

TAKEN_AT_ONCE = 200     # happenings
TAKING_S = 1.0          # of one repository at a look; then others have their turn, and the sending
LINED_EVENTS = 50       # of a message that have the last lines of their session
LONG_FACTOR = 2         # over so many times what is usual is long


class Events:
    """Takes what has happened to an agent's sessions and due times out of the work repositories,
    into the messages of the notices that want it. For one thread."""

    def __init__(self, name, stored, host, port, clock, is_over):
        """`name` of the agent; `stored`: its StoredNotices; is_over(): the agent ends."""
        self._name, self._stored, self._clock, self._is_over = name, stored, clock, is_over
        self.tell_commands = functools.partial(tell_command, host, port)
        self._seen = {}                 # repository id -> (how it was when looked at, until when)
        self._usual = {}                # repository id -> {(running session, begun): seconds}

    def list_notices(self):
        """The notices as they are read, without those that another program has spoilt. Each has
        `added` too. RepositoryError."""
        notices, is_ahead = [], False
        stored, now = self._stored.list_all(), self._clock.now()
        for document, added in stored:
            definitions = Definitions(is_stored=True)
            notice = definitions.read_notice(document)
            if not definitions.faults:
                # where the clock was set back, what is behind is not known: all is told
                notices.append(dict(notice, added=0.0 if added > now else added))
                is_ahead = is_ahead or added > now
        if is_ahead:
            self._stored.forget_added(now)
        return notices

    def look_at(self, repository, wants_long):
        """Takes the happenings of a work repository, and notes what takes long where a notice wants
        that. Nothing else is read while it has written nothing. RepositoryError."""
        now, count = self._clock.monotonic(), repository.db.latency.read()[-1]
        if wants_long:
            self._note_long(repository)
        mark = repository, count, wants_long
        before, until = self._seen.get(repository.id, (None, 0.0))
        if mark == before and now < until:
            return
        is_noting, rows = repository.db.read(list_happenings, self._name, TAKEN_AT_ONCE)
        if is_noting != wants_long:
            repository.db.write(note_all_ends, wants_long)
        end = self._clock.monotonic() + TAKING_S
        while rows:
            self._take(repository, rows)
            if self._is_over() or self._clock.monotonic() >= end:
                return                  # the next look, or start, goes on
            _, rows = repository.db.read(list_happenings, self._name, TAKEN_AT_ONCE)
        self._seen[repository.id] = mark, now + HEARTBEAT_S

    def _take(self, repository, rows):
        """Rows of happening -> events of the notices that want them; only then are they dropped.
        The notices are read behind the rows: one that was added before these is among them."""
        notices = self.list_notices()
        lined = {row["notice"]: row["count"] for row in self._stored.list_waiting()
                 if row["tried"] is None}
        happenings = [(row["id"], list(self._list_events(repository, row, notices, lined)))
                      for row in rows]
        happenings = [(number, events) for number, events in happenings if events]
        if happenings:
            self._stored.take(happenings)
        repository.db.write(drop_happenings, [row["n"] for row in rows])
        if happenings:
            self._stored.forget_taken([number for number, _ in happenings])

    def _list_events(self, repository, row, notices, lined):
        """Yields (notice, group_s, event) for each notice that wants a row of happening. `lined`
        counts the events of each."""
        kinds, event = self._find_kinds(repository, row, notices), {}
        for notice in notices:
            kind = next((kind for kind in NOTICE_KINDS if kind in kinds and kind in notice["on"]),
                        None)
            if kind is None or not is_any_match(notice["scenarios"], row["scenario"]) \
                    or is_before(row["time"], notice["added"]):
                continue
            lined[notice["name"]] = lined.get(notice["name"], 0) + 1
            if "lines" not in event and row["session"] and lined[notice["name"]] <= LINED_EVENTS:
                event["lines"] = repository.db.read(read_last_lines, row["session"])
            if "family" not in event:
                event["family"] = repository.db.read(find_family, row["session"])
            yield notice["name"], notice["group_s"], make_event(
                kind, row, kinds[kind], event.get("lines", []),
                self.tell_commands(list_next(kind, row, *event["family"])))

    def _find_kinds(self, repository, row, notices):
        """{kind: message}: what a row of happening is."""
        kind, message = row["kind"], row["message"]
        begun, ended, full, is_long = repository.db.read(find_end, row["session"])
        if kind == "late":
            return {"late": "begun %s" % local_iso(begun) if begun else ""}
        if kind in ("skipped", "failed", "long"):
            return {kind: message}
        if full.startswith(message):    # which session is the next attempt
            message = full
        kinds = {}
        if message.startswith("stale"):
            kinds["stale"] = message
        if kind == "ERROR" or kind == "STOPPED" and not is_by_operator(message):
            kinds[kind.lower()] = message
        if begun and ended and not is_long and any("long" in notice["on"] for notice in notices):
            usual = repository.db.read(find_usual, row["scenario"], begun)
            if usual is not None and ended - begun > LONG_FACTOR * usual:
                kinds["long"] = tell_long("took", ended - begun, usual)
        return kinds

    def _note_long(self, repository):
        """Notes what runs and takes long."""
        now, before = self._clock.now(), self._usual.get(repository.id, {})
        usual = self._usual[repository.id] = {}
        for session, scenario, begun in repository.db.read(list_unnoted, self._name):
            key = session, begun
            usual[key] = before[key] if key in before else repository.db.read(
                find_usual, scenario, begun)
            if usual[key] is not None and now - begun > LONG_FACTOR * usual[key]:
                repository.db.write(note_long, session,
                                    tell_long("runs for", now - begun, usual[key]), now)


def is_before(text, added):
    """Whether a happening's time, UTC text or None (just now), is before a notice was added."""
    with contextlib.suppress(ValueError, TypeError):
        return text is not None and from_text(text) < added
    return False


def tell_long(word, seconds, usual_s):
    """How long it takes, and what is usual."""
    return "%s %.3g s, over twice the usual %.3g s" % (word, seconds, usual_s)


def tell_command(host, port, words):
    """Command lines of the client that ask this agent."""
    where = "" if host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::") else " --host " + host
    where += "" if port in (DEFAULT_PORT, 0) else " --port %d" % port
    return ", then ".join("agentcli.py%s %s" % (where, each) for each in words)
