"""The agent's own log, which stops nothing: whoever logs hands a line over and goes on.

Thread log: writes the lines; ends at LogWriter.close(), or with the program when nobody reads.
"""
import logging
import os
import threading

from ..base.controls import show_controls

MAX_LINES = 10000       # that wait for a reader
CLOSE_S = 2.0           # how long the end of the program waits for one


class LogWriter(logging.Handler):
    """Writes lines to a descriptor; without one (None) there is no log.

    What cannot be written is dropped and counted, and how much that was is told as soon as
    something can be written again.
    """

    def __init__(self, descriptor):
        super().__init__()
        self.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
        self._descriptor = descriptor
        self._changed = threading.Condition()   # guards all that follows
        self._lines, self._lost = [], 0         # that wait; that could not be written
        self._is_cut = self._is_failing = False     # the last line ends in its middle; was lost
        self._is_closing = descriptor is None
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def lost_count(self):
        """How many lines could not be written, and were not told of yet."""
        return self._lost

    def emit(self, record):
        """Hands over an entry."""
        try:
            self.say(self.format(record))
        except Exception:           # as logging.Handler wants it
            self.handleError(record)

    def say(self, line):
        """Hands over a line without its end; waits for nothing."""
        with self._changed:
            if len(self._lines) >= MAX_LINES or self._is_closing:
                self._lost += 1
            else:
                self._lines.append(line)
                self._changed.notify()

    def close(self):
        """Writes what there is, as far as somebody reads it."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(CLOSE_S)
        super().close()

    def _run(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closing
                                       or self._lost and not self._is_failing)
                if self._is_closing and not self._lines:
                    return
                lines, self._lines = self._lines, []
            for line in lines or [None]:
                self._write(line)

    def _write(self, line):
        """Writes a line, or None: only how many were lost."""
        with self._changed:
            lost = self._lost
        texts = [] if line is None else [line]
        if lost:
            texts.insert(0, "%d lines of the log could not be written" % lost)
        data = "\n".join(([""] if self._is_cut else []) + texts + [""])
        data = data.encode("utf-8", "backslashreplace")
        try:
            while data:
                size = os.write(self._descriptor, data)
                self._is_cut, data = not data[:size].endswith(b"\n"), data[size:]
            self._is_failing = False
        except OSError:
            self._is_failing = True
        with self._changed:
            if not self._is_failing:
                self._lost -= lost
            elif line is not None:
                self._lost += 1


class LineFormatter(logging.Formatter):
    """An entry of the log is one line without control characters, whatever stands in a path or a
    name; only a traceback has more lines, which are indented."""

    def format(self, record):
        """The text of an entry."""
        text = super().format(record)
        has_lines = record.exc_info or "\n" in str(record.msg)
        lines = text.split("\n") if has_lines else [text]
        return "\n  ".join(show_controls(line) for line in lines)
