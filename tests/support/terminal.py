"""The client on a terminal of its own: what is typed there, and what it shows."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

from conftest import LIMIT_S
from support.client import PATH

_SEQUENCE = re.compile(r"\x1b(?:\[([?>=]?)([0-9;]*)([A-Za-z`@])|[()][A-Za-z0-9]|[=>78MDEc])")


class Terminal:
    """A client whose stdin, stdout and stderr are one terminal."""

    def __init__(self, port, *words, rows=24, columns=80, env=None, out=None):
        self._ours, theirs = pty.openpty()
        self.rows, self.columns = rows, columns
        self.resize(rows, columns, is_told=False)
        environment = dict(dict(os.environ, TERM="linux", PYTHONIOENCODING="utf-8"), **(env or {}))
        for name in ("LINES", "COLUMNS", "NO_COLOR"):
            if name not in (env or {}):
                environment.pop(name, None)

        def begin():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen([sys.executable, PATH, "--port", str(port)] + list(words), stdin=theirs,
                                        stdout=theirs if out is None else out, stderr=theirs, env=environment,
                                        preexec_fn=begin)
        os.close(theirs)
        self.text = ""

    def resize(self, rows, columns, is_told=True):
        """Gives the window another size; the client is told, as a terminal does."""
        self.rows, self.columns = rows, columns
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if is_told:
            self.process.send_signal(signal.SIGWINCH)

    def type(self, text):
        os.write(self._ours, text.encode())

    def read(self, wait_s=0.1):
        """Takes in what has come; whether that was the end."""
        if not select.select([self._ours], [], [], wait_s)[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:             # the client has ended
            return True
        self.text += data.decode("utf-8", "replace")
        return not data

    def wait_text(self, pattern, begin=0):
        """Waits until something matches in what was written so far -> the match."""
        return self._wait(lambda: re.search(pattern, self.text[begin:]), pattern)

    def wait_screen(self, pattern):
        """Waits until something matches in what stands on the screen -> the match."""
        return self._wait(lambda: re.search(pattern, "\n".join(self.screen())), pattern)

    def _wait(self, find, pattern):
        until = time.monotonic() + LIMIT_S
        while True:
            match = find()
            if match:
                return match
            assert time.monotonic() < until, (pattern, self.text[-3000:], self.screen())
            if self.read():
                assert find(), (pattern, self.text[-3000:])

    def end(self):
        """Reads to the end -> exit status."""
        until = time.monotonic() + LIMIT_S
        while not self.read():
            assert time.monotonic() < until, (self.text[-3000:], self.screen())
        return self.process.wait(LIMIT_S)

    def close(self):
        """Whatever the test left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def screen(self):
        """The lines that stand on the screen now."""
        return Picture(self.rows, self.columns).take(self.text)


class Picture:
    """What a terminal of TERM=linux makes of what is written to it, as far as the client needs."""

    def __init__(self, rows, columns):
        self._rows, self._columns = rows, columns
        self._cells = [[" "] * columns for _ in range(rows)]
        self._row = self._column = 0
        self._top, self._bottom = 0, rows - 1           # of what scrolls

    def take(self, text):
        """Draws a text -> the lines, without the blanks at their ends."""
        place = 0
        while place < len(text):
            match = _SEQUENCE.match(text, place)
            if match:
                if match.group() == "\x1bM":
                    if self._row == self._top:
                        self._shift(self._bottom, self._top)
                    else:
                        self._row = max(0, self._row - 1)
                self._obey(*match.groups())
                place = match.end()
                continue
            self._put(text[place])
            place += 1
        return ["".join(line).rstrip() for line in self._cells]

    def _put(self, char):
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._down()
        elif char == "\b":
            self._column = max(0, self._column - 1)
        elif char >= " ":
            if self._column >= self._columns:
                self._column = 0
                self._down()
            self._cells[self._row][self._column] = char
            self._column += 1

    def _down(self):
        if self._row == self._bottom:
            self._shift(self._top, self._bottom)
        elif self._row < self._rows - 1:
            self._row += 1

    def _shift(self, removed, added):
        """A line goes, and an empty one comes elsewhere."""
        self._cells.pop(removed)
        self._cells.insert(added, [" "] * self._columns)

    def _obey(self, mark, numbers, letter):
        if letter is None or mark:
            return
        values = [int(number or 0) for number in (numbers or "").split(";")]
        count = values[0] or 1
        if letter in "Hf":
            self._row = min(count, self._rows) - 1
            self._column = min((values + [1])[1] or 1, self._columns) - 1
        elif letter in "ABCDGd`":
            row, column = {"A": (self._row - count, self._column), "B": (self._row + count, self._column),
                           "C": (self._row, self._column + count), "D": (self._row, self._column - count),
                           "G": (self._row, count - 1), "`": (self._row, count - 1), "d": (count - 1, self._column)}[letter]
            self._row, self._column = min(max(row, 0), self._rows - 1), min(max(column, 0), self._columns - 1)
        elif letter in "JK":
            self._erase(letter, values[0])
        elif letter in "X@P":
            line = self._cells[self._row]
            if letter == "X":
                line[self._column:self._column + count] = [" "] * len(line[self._column:self._column + count])
            elif letter == "@":
                line[self._column:] = ([" "] * count + line[self._column:])[:self._columns - self._column]
            else:
                line[self._column:] = (line[self._column + count:] + [" "] * count)[:self._columns - self._column]
        elif letter in "LM":
            for _ in range(count):
                self._shift(*((self._bottom, self._row) if letter == "L" else (self._row, self._bottom)))
        elif letter == "r":
            self._top, self._bottom = (values[0] or 1) - 1, min((values + [self._rows])[1] or self._rows, self._rows) - 1
            self._row = self._column = 0

    def _erase(self, letter, how):
        line, blank = self._cells[self._row], [" "] * self._columns
        if how == 2:
            line[:] = blank
        elif how == 1:
            line[:self._column + 1] = blank[:self._column + 1]
        else:
            line[self._column:] = blank[self._column:]
        if letter == "J":
            rows = {0: range(self._row + 1, self._rows), 1: range(self._row), 2: range(self._rows)}[how]
            for row in rows:
                self._cells[row] = list(blank)
