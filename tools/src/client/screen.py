"""What stands on stderr beside the output: lines that stay, and on a terminal some that live."""
import contextlib
import os
import signal
import sys

from ..base.controls import show_controls
from .colours import has_blocks, has_colours, has_controls


class Screen:
    """Lines on stderr. Those of draw() are replaced by the next ones; on what is no terminal they
    are not shown at all."""

    def __init__(self):
        self.is_live = has_controls(sys.stderr)
        self.is_coloured = has_colours(sys.stderr)
        self.has_blocks = has_blocks(sys.stderr)
        self._shown = []

    @property
    def width(self):
        """Columns that a line may have."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
        return 80

    def tell(self, line):
        """Writes a line that stays; its texts are printable."""
        self.clear()
        self._write(line + "\n")

    def draw(self, lines):
        """Shows lines instead of those before; whoever has colours in them has cut them."""
        if self.is_live and lines != self._shown:
            self.clear()
            self._write("\n".join(lines))
            self._shown = lines

    def clear(self):
        """Takes the living lines away, so that something else can be written."""
        if self._shown:
            up = "\x1b[%dA" % (len(self._shown) - 1) if len(self._shown) > 1 else ""
            self._write("\r%s\x1b[J" % up)
            self._shown = []

    @staticmethod
    def _write(text):
        with contextlib.suppress(OSError, AttributeError):      # it is closed
            sys.stderr.flush()
            sys.stderr.buffer.write(text.encode(sys.stderr.encoding or "ascii", "backslashreplace"))
            sys.stderr.buffer.flush()


class Interrupts:
    """Ctrl-C as something to ask for, so that it comes between two requests; a second one before
    that ends the client."""

    def __init__(self):
        self._has_come, self._before = False, None

    def __enter__(self):
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number, frame):
        if self._has_come:
            raise KeyboardInterrupt
        self._has_come = True

    def take(self):
        """Whether Ctrl-C was typed since the last look."""
        has_come, self._has_come = self._has_come, False
        return has_come


def ask_line(question):
    """What is typed behind a question on stderr, without blanks and in small letters; None: Ctrl-C
    or the end of input."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write(show_controls(question))
        sys.stderr.flush()
        line = sys.stdin.readline()
        return line.strip().lower() if line else None
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return None
    finally:
        signal.signal(signal.SIGINT, before)
