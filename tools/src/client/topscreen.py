"""The live screen of top: what is shown, what keys do. Its module curses is handed in."""
import collections
import sys

from ..base.controls import show_controls
from ..base.times import Clock
from .board import Board, QUICK_ANSWER_S
from .colours import (CYAN, DIM, GREEN, MAGENTA, RED, STATE_COLOURS, YELLOW, STATE_WORD, has_blocks,
                      has_colours)
from .connection import as_text
from .errors import ClientError, NO_CONNECTION
from .live import LiveConnection
from .login import connect
from .shown import render_fields
from .spelling import spell
from .words import quote

KEPT_LINES = 5000       # of a log that is looked at
TAKEN_S = 0.2           # between two looks at the keyboard while a log is followed
KEYS = "arrows choose  Enter log  s stop  r restart  h hold  u release  H U all  q quit"
LOG_KEYS = "arrows, PgUp, PgDn, End scroll  q back"


class TopScreen:
    """The whole screen: a board, the row that is chosen, and what was said last."""

    def __init__(self, curses_module, window, options, every_s):
        self._curses, self._window, self._options = curses_module, window, options
        self._every_s, self._clock = every_s, Clock()
        self._board, self._connection = Board(has_blocks(sys.stdout)), None
        self._chosen, self._place, self._is_missing = None, 0, False
        self._said, self._trouble = "", ""
        self._read_at = None
        self._colours = self._make_colours()
        try:
            curses_module.curs_set(0)
        except curses_module.error:
            pass                        # it always has one

    def _make_colours(self):
        """{colour of a state: attribute of curses}."""
        curses_module = self._curses
        if not has_colours(sys.stdout) or not curses_module.has_colors():
            return {}
        curses_module.use_default_colors()
        colours = {DIM: curses_module.A_DIM}
        for number, (colour, code) in enumerate((
                (RED, curses_module.COLOR_RED), (GREEN, curses_module.COLOR_GREEN),
                (YELLOW, curses_module.COLOR_YELLOW), (MAGENTA, curses_module.COLOR_MAGENTA),
                (CYAN, curses_module.COLOR_CYAN)), 1):
            curses_module.init_pair(number, code, -1)
            colours[colour] = curses_module.color_pair(number)
        return colours

    def run(self):
        """Shows the board and obeys keys, until q."""
        while True:
            now = self._clock.monotonic()
            if self._read_at is None or now - self._read_at >= self._every_s:
                self._read()
            self._draw()
            wait_s = max(0.05, self._every_s - (self._clock.monotonic() - self._read_at))
            self._window.timeout(int(wait_s * 1000))
            if not self._obey(self._window.getch()):
                return

    def _read(self):
        """Asks the agent anew; where it does not answer, that is said, and tried again."""
        try:
            if self._connection is None:
                self._connection = connect(self._options)
            self._board.read(self._connection)
            self._trouble = ""
        except ClientError as error:
            self._trouble = str(error)
            self._let_go()
        self._read_at = self._clock.monotonic()
        self._choose(self._board.list_keys())

    def _choose(self, keys):
        """Keeps what is chosen, also where it is missing once, on its way from one section to
        another; then what has its place."""
        if self._chosen in keys:
            self._place, self._is_missing = keys.index(self._chosen), False
        elif self._chosen is None or self._is_missing:
            self._chosen = keys[min(self._place, len(keys) - 1)] if keys else None
        else:
            self._is_missing = True

    def _let_go(self):
        """Closes the connection; the next question makes another."""
        if self._connection is not None:
            self._connection.__exit__()
            self._connection = None

    # -- what is shown --

    def _draw(self):
        """Draws the page as large as the window is now."""
        height, width = self._window.getmaxyx()
        self._window.erase()
        head = self._board.make_head() if self._board.ping else []
        if self._trouble:
            head.insert(0, self._trouble)
        for place, line in enumerate(head):
            self._put(place, line, self._curses.A_BOLD)
        page = self._board.make_page(height - len(head) - 2, width - 1, self._chosen)
        for place, line in enumerate(page, len(head)):
            text, style = line.text, self._curses.A_BOLD if line.is_heading else 0
            if line.key is not None and line.key == self._chosen:
                text, style = (">" + text[1:]).ljust(width - 1), self._curses.A_REVERSE
            self._put(place, text, style)
        self._put(height - 2, self._said)
        self._put(height - 1, KEYS, self._curses.A_DIM)
        self._window.refresh()

    def _put(self, place, text, style=0):
        """Writes one line, as far as the window goes; the states in it are coloured."""
        height, width = self._window.getmaxyx()
        if not 0 <= place < height:
            return
        encoding = sys.stdout.encoding or "ascii"
        text = show_controls(text.replace("\t", " ")).encode(
            encoding, "backslashreplace").decode(encoding)
        try:
            self._window.addnstr(place, 0, text, width - 1, style)
            for match in STATE_WORD.finditer(text[:width - 1]):
                colour = self._colours.get(STATE_COLOURS[match.group()])
                if colour is not None and style != self._curses.A_REVERSE:
                    self._window.chgat(place, match.start(), len(match.group()), colour | style)
        except self._curses.error:
            pass                        # the window has shrunk meanwhile

    # -- what keys do --

    def _obey(self, key):
        """Does what a key means; whether to go on."""
        self._said = self._said if key == -1 else ""
        if key in (ord("q"), ord("Q")):
            return False
        if key in (self._curses.KEY_DOWN, ord("j"), self._curses.KEY_UP, ord("k")):
            self._move(1 if key in (self._curses.KEY_DOWN, ord("j")) else -1)
        elif key in (10, 13, self._curses.KEY_ENTER, ord("f"), ord("l")):
            self._follow()
        elif key in map(ord, "srhuHU"):
            self._act(chr(key))
        elif key == ord(" "):
            self._read_at = None
        return True

    def _move(self, step):
        keys = self._board.list_keys()
        if keys:
            place = keys.index(self._chosen) if self._chosen in keys else self._place
            self._chosen = keys[min(max(place + step, 0), len(keys) - 1)]

    def _act(self, letter):
        """Asks whether to stop, restart, hold or release, and does it."""
        kind, name = (self._chosen or ("", ""))[:2]
        if letter in "sr" and kind != "session":
            self._said = "a session is to be chosen for that"
            return
        of_all = letter in "HU" or kind != "schedule"
        where, what = ("", "the agent") if of_all else (" -SCHEDULE=" + quote(name),
                                                        "schedule " + name)
        if letter == "s":
            answer = self._ask("stop session %s: t after its task, n now, any other key: not "
                               % name)
            request = {"t": "STOP %s" % name, "n": "STOP %s -IMMEDIATE" % name}.get(answer)
        else:
            what = "session %s" % name if letter == "r" else what
            verb = {"r": "restart", "h": "hold", "u": "release"}[letter.lower()]
            answer = self._ask("%s %s: y, any other key: not " % (verb, what))
            request = (verb.upper() + (" %s" % name if letter == "r" else where)
                       if answer == "y" else None)
        self._said = "" if request is None else self._send(request)
        self._read_at = None

    def _ask(self, question):
        """The key that is typed behind a question."""
        height, _ = self._window.getmaxyx()
        self._window.move(max(0, height - 2), 0)
        self._window.clrtoeol()
        self._put(height - 2, question, self._curses.A_BOLD)
        self._window.refresh()
        self._window.timeout(-1)
        key = self._window.getch()
        return chr(key) if 0 < key < 128 else ""

    def _send(self, request):
        """Sends a request -> what the agent says."""
        try:
            if self._connection is None:
                self._connection = connect(self._options)
            reply = self._connection.ask(request, QUICK_ANSWER_S)
            list(reply)
            return "%s: %s" % (spell(request), render_fields(reply.fields))
        except ClientError as error:
            if error.status == NO_CONNECTION:
                self._let_go()
            return str(error)

    def _follow(self):
        """Shows the log of the chosen session as it grows, until q."""
        kind, name = (self._chosen or ("", ""))[:2]
        if kind != "session":
            self._said = "a session is to be chosen for that"
            return
        try:
            with connect(self._options, LiveConnection) as stream:
                LogScreen(self._curses, self._window, self._put, name).run(stream)
        except ClientError as error:
            self._said = str(error)
        self._read_at = None


class LogScreen:
    """The log of a session, with its end in sight until somebody scrolls."""

    def __init__(self, curses_module, window, put_line, session):
        """`put_line` is a callable: (place, text, style)."""
        self._curses, self._window, self._put = curses_module, window, put_line
        self._session, self._above = session, 0         # lines below the last one that is shown
        self._lines, self._end = collections.deque(maxlen=KEPT_LINES), ""

    def run(self, stream):
        """Shows what comes and obeys keys, until q or Esc. Raises ClientError."""
        stream.begin("LOG %s -FOLLOW -TAIL=%d" % (self._session, KEPT_LINES))
        self._window.timeout(0)
        while True:
            if not self._end:
                for line in stream.poll(TAKEN_S):
                    self._take(line)
            else:
                self._window.timeout(int(TAKEN_S * 1000))
            self._draw()
            key = self._window.getch()
            if key in (ord("q"), ord("Q"), 27, self._curses.KEY_LEFT):
                return
            self._scroll(key)

    def _take(self, line):
        first, _, rest = line.partition(" ")
        if first == "*":
            self._lines.append(rest)
            self._above += 1 if self._above else 0
        elif first == "OK":
            self._end = "session %s has ended: %s" % (self._session, rest.partition("=")[2])
        else:
            self._end = as_text(line)

    def _scroll(self, key):
        """Moves in the lines; the end comes into sight again with End, or by scrolling to it."""
        page = max(1, self._window.getmaxyx()[0] - 3)
        steps = {self._curses.KEY_UP: 1, self._curses.KEY_DOWN: -1, self._curses.KEY_PPAGE: page,
                 self._curses.KEY_NPAGE: -page, self._curses.KEY_HOME: KEPT_LINES,
                 self._curses.KEY_END: -2 * KEPT_LINES}
        most = max(0, len(self._lines) - page)
        self._above = min(max(0, self._above + steps.get(key, 0)), most)

    def _draw(self):
        """Draws the lines in sight."""
        height, _ = self._window.getmaxyx()
        self._window.erase()
        self._put(0, "session %s" % self._session, self._curses.A_BOLD)
        shown = list(self._lines)[:len(self._lines) - self._above][-max(1, height - 3):]
        for place, line in enumerate(shown, 1):
            when, _, text = line.partition(" ")
            self._put(place, "%s %s" % (when[11:19], text))
        self._put(height - 2, self._end or ("below are %d lines" % self._above
                                            if self._above else ""), self._curses.A_BOLD)
        self._put(height - 1, LOG_KEYS, self._curses.A_DIM)
        self._window.refresh()
