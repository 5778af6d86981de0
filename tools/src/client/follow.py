"""A session as it goes on: its output as it comes, its steps, how long they take."""
import sys

from ..base.times import Clock, find_instant
from ..base.vocabulary import ENDED, RESTARTABLE
from .colours import DIM, draw_bar, is_terminal, paint, paint_state
from .connection import as_text
from .errors import ClientError, ENDED_BADLY, INTERRUPTED, NO_CONNECTION, REFUSED, USAGE, WELL
from .history import History, ask_rows, read_history
from .instants import show_duration
from .live import ANSWER_S, LiveConnection
from .login import connect
from .nodes import is_told, is_under_way, name_node
from .screen import Interrupts, Screen, ask_line
from .shown import parse_log_line, put_json, render_fields, tell
from .spelling import spell
from .tables import printable, put_safe
from .words import parse_fields

POLL_S = 0.25       # between two looks at Ctrl-C, and two pictures
LOOK_S = 1.0        # between two questions how the session is
REST = 20           # times as long as the last of them took, of a plan with very many nodes
LIVING = 10         # lines that live, at most
BAR = 20            # columns of a bar
QUESTION = ("session %s: l leaves it running, s stops it now, t stops it after its task, "
            "Enter follows on: ")


def follow_session(options, session, after=None):
    """Follows a session to its end -> exit status. `after`: the last line of its log that was there
    already, and is not shown again. Raises ClientError, OSError of stdout."""
    with Interrupts() as interrupts, connect(options) as asker, \
            connect(options, LiveConnection) as stream:
        follower = Follower(asker, stream, str(session), options.json)
        try:
            return follower.run(interrupts, after)
        except ClientError as error:
            follower.screen.clear()
            if error.status != NO_CONNECTION:
                raise
            raise ClientError(NO_CONNECTION, "%s; session %s goes on, if the agent does: wait %s "
                              "--follow follows it again" % (error, session, session))
        finally:
            follower.screen.clear()


class Follower:
    """One session that is followed, and what is known of it by now; the nodes of a plan are told as
    steps are."""

    def __init__(self, asker, stream, session, is_json):
        self.screen = Screen()
        self._asker, self._log, self._session, self._is_json = asker, stream, session, is_json
        self._clock = Clock()
        self._row, self._steps = {}, []     # as the last look has them, and when that was
        self._looked_at, self._look_s = None, LOOK_S
        self._told = {}             # an attempt of a step or of a node -> its state, as told
        self._history, self._end = History(), None
        self._place = None                  # where the last line of output is from

    def run(self, interrupts, after=None):
        """Shows all until the session has ended -> exit status."""
        self._look()
        if self.screen.is_live:
            self._history = read_history(self._asker, self._row["scenario"], ANSWER_S)
        since = " -SINCE=" + after.split(" ", 1)[0] if after else ""
        self._log.begin("LOG %s -FOLLOW%s" % (self._session, since))
        while self._end is None:
            for line in self._log.poll(POLL_S):
                if after is None or not line.startswith("* "):
                    self._take(line)
                elif line[2:] == after:
                    after = None
            if interrupts.take():
                self._interrupt()
            if self._end is None and (
                    self._clock.monotonic() - self._looked_at >= self._look_s):
                self._look()
            self.screen.draw(self._list_living())
        self._look_at_end()
        self._tell_end()
        return ENDED_BADLY if self._row["status"] in RESTARTABLE else WELL

    def _take(self, line):
        """One line of the reply to LOG."""
        first, _, rest = line.partition(" ")
        if first == "*":
            entry = parse_log_line(rest)
            if (entry["step"], entry["task"]) != self._place:
                self._place = entry["step"], entry["task"]
                self._look()
            self._put(entry)
        elif first == "OK":
            self._end = parse_fields(rest)
        else:
            code, _, message = as_text(line)[len("ERR "):].partition(" ")
            if code == "STOPPING":
                raise ClientError(NO_CONNECTION, "the agent stops")
            raise ClientError(REFUSED, "ERR %s %s" % (code, spell(message)))

    def _put(self, entry):
        """A line that a task has printed: to where it has printed it."""
        if self._is_json:
            self._make_room(sys.stdout)
            put_json(entry)
        elif entry["stream"] == "err":
            self.screen.tell(entry["text"])
        else:
            self._make_room(sys.stdout)
            put_safe(entry["text"], is_flushed=True)

    def _make_room(self, stream):
        """Takes the living lines away, where others come between them."""
        if is_terminal(stream):
            self.screen.clear()

    def _look(self):
        """Asks how the session is, and tells what has changed."""
        asked_at = self._clock.monotonic()
        rows = ask_rows(self._asker, "STATUS " + self._session, ANSWER_S)
        before, self._row = self._row, rows[0]
        self._looked_at = self._clock.monotonic()
        self._look_s = max(LOOK_S, REST * (self._looked_at - asked_at))
        self._steps = [row for row in rows if "step" in row or "node" in row and is_told(row)]
        if self._row["status"] in ("WAITING", "QUEUED") and self._row["message"] and (
                before.get("message") != self._row["message"]):
            self._tell("session %s" % self._session, self._row["status"], self._row["message"])
        for number, step in enumerate(self._steps):
            place = (step["node"], step["attempt"]) if "node" in step else number
            if self._told.get(place) != step["status"]:
                self._told[place] = step["status"]
                took = "" if step["status"] not in ENDED else "after " + show_duration(
                    self._elapsed(step))
                self._tell(name_step(step), step["status"], took, step["message"])

    def _look_at_end(self):
        """The last look; an agent that has gone meanwhile has told the state before."""
        try:
            self._look()
        except ClientError as error:
            if error.status != NO_CONNECTION:
                raise
            self._row = dict(self._row, status=self._end["status"])

    def _tell(self, what, state, *others):
        """A line that stays: what is in which state."""
        texts = [paint(printable(what), DIM, self.screen.is_coloured),
                 paint_state(state, self.screen.is_coloured)]
        self.screen.tell("  ".join(texts + [printable(text) for text in others if text]))

    def _elapsed(self, row):
        """How long a session or an attempt of a step has taken, by the agent's clock."""
        begun, ended = find_instant(row["begun"]), find_instant(row["ended"])
        if begun is None:
            return 0.0
        if ended is None:       # now, by the agent's clock
            session_begun = find_instant(self._row["begun"]) or begun
            ended = (session_begun + (self._row["duration"] or 0.0)
                     + self._clock.monotonic() - self._looked_at)
        return max(0.0, ended - begun)

    def _list_living(self):
        """The lines that live: the steps that run, and the session."""
        rows = [(name_step(step), step, self._history.steps_s.get(step["name"]))
                for step in self._steps if ("node" not in step and step["status"] == "RUNNING"
                                            or "node" in step and is_under_way(step))]
        more = len(rows) - LIVING
        del rows[LIVING:]
        rows.append(("session " + self._session, self._row, self._history.session_s))
        wide = max(len(name) for name, _, _ in rows)
        lines = [self._render(name.ljust(wide), row, usual_s) for name, row, usual_s in rows]
        return lines if more <= 0 else lines[:-1] + ["and %d more" % more] + lines[-1:]

    def _render(self, name, row, usual_s):
        """One line that lives: name, state, elapsed, and what is usual as a bar."""
        elapsed_s = self._elapsed(row)
        parts = [row["status"], show_duration(elapsed_s) if row["begun"] else ""]
        if usual_s and row["status"] == "RUNNING":
            left_s = usual_s - elapsed_s
            parts += [draw_bar(elapsed_s / usual_s, BAR, self.screen.has_blocks),
                      "about %s to go" % show_duration(left_s) if left_s > 0
                      else "%s over the usual" % show_duration(-left_s)]
        text = ("  ".join([name] + [part for part in parts if part]))[:self.screen.width]
        return text[:len(name) + 2] + paint_state(text[len(name) + 2:], self.screen.is_coloured)

    def _tell_end(self):
        """The line below all others."""
        if self._is_json:
            put_json({name: self._row[name] for name in
                      ("session", "status", "duration", "message")})
        self._tell("session %s" % self._session, self._row["status"],
                   "after " + show_duration(self._elapsed(self._row)), self._row["message"])

    def _interrupt(self):
        """Ctrl-C: asks what is to become of the session, where there is somebody to ask."""
        self.screen.clear()
        if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
            self._leave()
        while True:
            answer = ask_line(QUESTION % self._session)
            if answer in (None, "l", "leave"):
                self._leave()
            if answer in ("s", "stop", "t"):
                self._stop(" -IMMEDIATE" if answer != "t" else "")
            if answer in ("", "g", "s", "stop", "t"):
                return

    def _stop(self, how):
        """Stops the session; its end is waited for. That it has ended by itself is no matter."""
        try:
            list(self._asker.ask("STOP %s%s" % (self._session, how), ANSWER_S))
        except ClientError as error:
            if error.status != REFUSED:
                raise
            self.screen.tell(str(error))

    def _leave(self):
        """Ends the client, not the session."""
        raise ClientError(INTERRUPTED, "session %s goes on: wait %s --follow follows it again"
                          % (self._session, self._session))


def name_step(step):
    """What an attempt of a step, or a node, is called."""
    if "node" in step:
        return name_node(step)
    attempt = " (attempt %d)" % step["attempt"] if step["attempt"] > 1 else ""
    return "step %d %s%s" % (step["step"], step["name"], attempt)


def find_last_line(options, session):
    """The last line of what a session has printed so far; None: nothing. Raises ClientError."""
    with connect(options) as connection:
        lines = list(connection.ask("LOG %s -TAIL=1" % session, ANSWER_S))
    return lines[-1] if lines else None


def follow_command(options, arguments, words):
    """exec, restart or wait with --follow -> exit status. Raises ClientError, OSError of stdout."""
    name, words = options.command.name, [word for word in words if word != "-SYNC"]
    if name == "wait":
        if words:
            raise ClientError(USAGE, "wait --follow takes no time: Ctrl-C ends it")
        return follow_session(options, arguments[0])
    after = find_last_line(options, arguments[0]) if name == "restart" else None
    return follow_session(options, acknowledge(options, " ".join(
        [name.upper()] + arguments + words)), after)


def acknowledge(options, request):
    """Sends a request that makes a session, or opens one again, and tells its number on stderr ->
    that number. Raises ClientError."""
    with connect(options) as connection:
        reply = connection.ask(request)
        list(reply)
    if options.json:
        put_json(reply.fields)
    else:
        tell(render_fields(reply.fields))
    return reply.fields["session"]
