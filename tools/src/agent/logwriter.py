"""The agent's own log, which stops nothing: whoever logs hands a line over and goes on.

Thread log: writes the lines; ends at LogWriter.close(), or with the program when nobody reads.
"""
import contextlib
import json
import logging
import sys
import threading
import time

from ..base.controls import show_controls
from ..base.program import log
from ..base.times import local_iso
from .logfile import LogFile, Terminal

MAX_LINES = 10000       # that wait for a reader
CLOSE_S = 2.0           # how long the end of the program waits for one
LINES_AT_ONCE = 100
COMPANY_S = 0.02        # how long a line waits for others


class LogWriter(logging.Handler):
    """Writes lines to a LogFile or a Terminal; without one (None) there is no log.

    What cannot be written is dropped and counted, and how much that was is told as soon as
    something can be written again.
    """

    def __init__(self, place, formatter=None):
        super().__init__()
        self.setFormatter(formatter or LineFormatter("%(asctime)s %(levelname)s %(message)s"))
        self._place = place
        self._changed = threading.Condition()   # guards all that follows
        self._lines, self._lost = [], 0         # that wait; that could not be written
        self._is_cut = self._is_failing = False     # the last line ends in its middle; was lost
        self._is_closing, self._is_called = place is None, False
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

    def reopen(self):
        """Has the place opened anew, also when there is nothing to write."""
        self._place.reopen()
        with self._changed:
            self._is_called = True
            self._changed.notify()

    def close(self):
        """Writes what there is, as far as somebody reads it."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(CLOSE_S)
        super().close()

    def _run(self):
        """The thread: writes what there is, until there is nothing more and it is to end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closing or self._is_called
                                       or self._lost and not self._is_failing)
                is_urgent = self._is_closing or self._is_called
            if not is_urgent:
                time.sleep(COMPANY_S)       # what comes meanwhile is written together
            with self._changed:
                if self._is_closing and not self._lines:
                    return
                lines, self._lines = self._lines, []
                is_called, self._is_called = self._is_called, False
            if is_called:
                with contextlib.suppress(OSError):
                    self._place.refresh()
            for first in range(0, max(1, len(lines)), LINES_AT_ONCE):
                self._write(lines[first:first + LINES_AT_ONCE])

    def _write(self, lines):
        """Writes lines; none: only how many were lost."""
        with self._changed:
            lost = self._lost
        texts = ([self.formatter.tell_loss(lost)] if lost else []) + lines
        if not texts:
            return
        parts = [(text + "\n").encode("utf-8", "backslashreplace") for text in texts]
        if self._is_cut:
            parts[0] = b"\n" + parts[0]
        data = b"".join(parts)
        try:
            while data:
                size = self._place.write(data)
                self._is_cut, data = not data[:size].endswith(b"\n"), data[size:]
            self._is_failing = False
        except OSError:
            self._is_failing = True
        count, size = 0, len(data)      # of parts that are not, or not all, written
        while size > 0:
            count, size = count + 1, size - len(parts[-1 - count])
        with self._changed:
            if lost and count < len(parts):
                self._lost -= lost
            self._lost += min(count, len(lines))


class LineFormatter(logging.Formatter):
    """An entry of the log is one line without control characters, whatever stands in a path or a
    name; only a traceback has more lines, which are indented."""

    def format(self, record):
        """The text of an entry."""
        text = super().format(record)
        has_lines = record.exc_info or "\n" in str(record.msg)
        lines = text.split("\n") if has_lines else [text]
        return "\n  ".join(show_controls(line) for line in lines)

    @staticmethod
    def tell_loss(count):
        """The line that says how many lines were lost."""
        return "%d lines of the log could not be written" % count


class ObjectFormatter(logging.Formatter):
    """An entry of the log is a JSON object on one line: time, level and message; of the begin and
    the end of a session also what they are about; traceback, where there is one."""

    def format(self, record):
        """The text of an entry."""
        fields = {"time": local_iso(record.created, "milliseconds"),
                  "level": record.levelname.lower(), "message": record.getMessage()}
        fields.update(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)

    @staticmethod
    def tell_loss(count):
        """The line that says how many lines were lost."""
        return json.dumps({"level": "error", "lost": count,
                           "message": LineFormatter.tell_loss(count)})


def start_logging():
    """The agent's own log, on stderr -> its LogWriter."""
    writer = LogWriter(None if sys.stderr is None else Terminal(sys.stderr.fileno()))
    log.addHandler(writer)
    log.setLevel(logging.INFO)
    return writer


@contextlib.contextmanager
def log_to_file(settings, writer):
    """Within it the log goes where --log says, as --log-format says -> its LogWriter, or None. The
    writer of stderr then gets what is for who has started the agent alone. CannotStart."""
    if settings.log_format == "json":
        writer.setFormatter(ObjectFormatter())
    if settings.log is None:
        yield None
        return
    file = LogFile(settings.log, settings.log_size)
    own = LogWriter(file, writer.formatter)
    log.addHandler(own)
    log.removeHandler(writer)
    try:
        yield own
    finally:
        log.addHandler(writer)
        log.removeHandler(own)
        own.close()
        file.close()
