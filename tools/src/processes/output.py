"""What the processes of tasks print: read, cut into lines, masked, limited, captured.

Thread output: reads the pipes of all tasks; ends at Output.close().
"""
import collections
import contextlib
import os
import select
import threading
import time

from ..base.vocabulary import ERR, MAX_LOG_LINE, MAX_VALUE, OUT
from ..base.controls import show_controls
from ..base.program import log
from ..base.times import to_text
from ..base.words import mask_all
from ..base.workers import Worker
from .starters import Starters

LINE_COST = 40          # bytes that a row of the log takes beside its text
NOISY_PIPES, NOISY_S = 2, 0.001     # as many pipes with something at once are read with a pause
PIPE_BYTES = 65536      # read at once
FLUSH_S = 0.05          # between two looks at whose output is to be written down
TAIL_ROWS_S = 2000      # rows a second that a last half may take while it still changes
TAIL_S = 5.0            # but it is written down at least so often
LAST_ERROR = 200        # characters of the last line of a standard error in a message


def visible(data):
    """Bytes of a line -> text in which nothing can imitate a reply or drive a terminal."""
    return show_controls(data.decode("utf-8", "backslashreplace"))


def cut_error(text):
    """The last line of a standard error, as a message has it."""
    text = text.strip()
    return text if len(text) <= LAST_ERROR else text[:LAST_ERROR] + "..."


def _piece_end(line, start):
    """Where a piece of a line that is too long ends: not inside a character."""
    end = start + MAX_LOG_LINE
    while end > start + MAX_LOG_LINE - 4 and line[end] & 0xC0 == 0x80:
        end -= 1
    return end


class _Block:
    """Whole lines of one stream, read at one time; `data` is None once it is written down."""
    __slots__ = ("position", "time", "stream", "data", "cost", "lines", "size")

    def __init__(self, position, when, stream, data):
        self.position, self.time, self.stream, self.data = position, when, stream, data
        self.size, self.lines = len(data), max(1, data.count(b"\n"))
        self.cost = self.size + LINE_COST * self.lines

    def split(self, end):
        """The block of its first bytes, which it gives up."""
        first = _Block(self.position, self.time, self.stream, self.data[:end])
        self.__init__(self.position + end, self.time, self.stream, self.data[end:])
        return first

    def rows(self):
        """The lines as rows of the log: (position, time, stream, text)."""
        position = self.position
        for line in self.data[:-1 if self.data.endswith(b"\n") else None].split(b"\n"):
            start = 0
            while len(line) - start > MAX_LOG_LINE:
                end = _piece_end(line, start)
                yield position + start, self.time, self.stream, visible(line[start:end])
                start = end
            yield position + start, self.time, self.stream, visible(line[start:])
            position += len(line) + 1


class Capture:
    """The output of one task: its first and its last half of `limit` bytes, and a count between.

    The output thread feeds it; `store(rows, omitted, on_stored)` writes rows down and calls
    `on_stored()` when that is done. Memory stays within the limit whatever comes.
    """

    def __init__(self, limit, store, clock, is_captured=False, secrets=()):
        self._half = max(1, limit // 2)
        self._store, self._clock = store, clock
        self._secrets = [secret.encode() for secret in secrets]     # the longest first
        # the beginning of standard output
        self.captured = bytearray() if is_captured else None
        self._lock = threading.Lock()
        self._carry = {}                    # stream -> bytes of a line that has no end yet
        self._last_error = b""              # the newest whole line of standard error
        self._position = 0
        self._head_left = self._half
        self._head_end = None               # where the head ends, once it is full
        self._waiting = []                  # blocks of the head not yet written down
        self._tail = collections.deque()
        self._tail_cost = 0
        self._bytes_after = self._lines_after = 0       # that came after the head
        self._has_left_out = False          # since the last rows were taken
        self._is_storing = False
        self._store_at = 0.0                # not before, on the clock that never steps

    def feed(self, stream, data):
        """Takes what a task printed; no data means the end of the stream."""
        with self._lock:
            if stream == OUT and self.captured is not None and \
                    len(self.captured) <= MAX_VALUE:
                self.captured += data
            carry = self._carry.pop(stream, b"")
            whole = carry + data if carry else data
            whole = mask_all(whole, self._secrets)      # lines are whole here, so are secrets
            cut = whole.rfind(b"\n") + 1 if data else len(whole)
            self._add(stream, whole[:cut])
            overlap = len(self._secrets[0]) if self._secrets else 0    # may be the half of one
            while len(whole) - cut - overlap > MAX_LOG_LINE:
                start, cut = cut, _piece_end(whole, cut)
                self._add(stream, whole[start:cut])
            if cut < len(whole):
                self._carry[stream] = whole[cut:]

    def _add(self, stream, data):
        """Takes whole lines in: to be written, as long as the first half of the limit lasts, then
        into the tail, of which the oldest are left out."""
        if not data:
            return
        if stream == ERR:
            self._last_error = data.rstrip().rpartition(b"\n")[2] or self._last_error
        block = _Block(self._position, to_text(self._clock.now()), stream, data)
        self._position += len(data) + (not data.endswith(b"\n"))
        if block.cost <= self._head_left:
            self._head_left -= block.cost
            self._waiting.append(block)
            return
        if self._head_end is None:
            self._fill_head(block)
        self._tail.append(block)
        self._bytes_after += block.size
        self._lines_after += block.lines
        self._tail_cost += block.cost
        while self._tail_cost > self._half:
            self._leave_out()

    @property
    def last_error(self):
        """The last line of standard error that is not blank, without secrets, as text."""
        with self._lock:
            return cut_error(visible(self._carry.get(ERR, b"").strip() or self._last_error))

    def _fill_head(self, block):
        """The block in which the head becomes full gives it the lines that still fit."""
        end = block.data.rfind(b"\n", 0, int(self._head_left * block.size / block.cost)) + 1
        if end:
            self._waiting.append(block.split(end))
        self._head_left, self._head_end = 0, block.position

    def _leave_out(self):
        """The tail gives up lines at its beginning, or its first block where no line can be
        kept."""
        block, excess, end = self._tail[0], self._tail_cost - self._half, 0
        if block.data is not None and excess < block.cost:
            end = block.data.find(b"\n", int(excess * block.size / block.cost)) + 1
        self._tail_cost -= block.cost
        if 0 < end < block.size:
            block.split(end)
            self._tail_cost += block.cost
        else:
            self._tail.popleft()
        self._has_left_out = True

    def take(self, is_end=False):
        """Rows to be written down and the range of positions to be left out, or None."""
        if is_end:
            for stream in (OUT, ERR):
                self.feed(stream, b"")
        with self._lock:
            blocks, self._waiting = self._waiting, []
            blocks += [block for block in self._tail if block.data is not None]
            rows = [row for block in blocks for row in block.rows()]
            for block in blocks:
                block.data = None
            omitted = None
            if self._has_left_out:
                self._has_left_out = False
                end = self._tail[0].position if self._tail else self._position
                omitted = self._head_end, end
                rows.append((self._head_end, to_text(self._clock.now()), ERR,
                             "... %d lines (%d bytes) are left out here ..." % (
                                 self._lines_after - sum(block.lines for block in self._tail),
                                 self._bytes_after - sum(block.size for block in self._tail))))
            return rows, omitted

    def go_on(self, position, size):
        """Goes on at a position, behind rows that took so many bytes: what is fed was printed after
        them."""
        self._position, self._head_left = position, max(0, self._half - size)

    def tell_place(self):
        """(position of the next row, {stream: bytes of a line that has no end yet})."""
        with self._lock:
            return self._position, {stream: len(data) for stream, data in self._carry.items()}

    def flush(self):
        """Hands what is new to the store, unless the last rows are still on their way."""
        now = self._clock.monotonic()
        if self._is_storing or now < self._store_at:
            return
        rows, omitted = self.take()
        if rows or omitted:
            self._is_storing = True
            if omitted:         # what prints without end must not keep the writer busy with it
                self._store_at = now + min(TAIL_S, len(rows) / TAIL_ROWS_S)
            self._store(rows, omitted, self._stored)

    def _stored(self):
        self._is_storing = False


class Output:
    """The one thread that reads the pipes of all tasks, and sees them end; and the Starters of
    their processes. `null` is a descriptor of what is empty."""

    def __init__(self):
        self.starters = Starters()
        self.null = os.open(os.devnull, os.O_RDWR)
        self._watchlist = Watchlist()
        self._lock = threading.Lock()
        self._new = collections.deque()
        self._processes = {}            # Capture -> Process, of those whose output is kept
        self._is_closing = False
        wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        self._watchlist.add(wake_out, None, None)
        self._thread = Worker(self._run, name="output")
        self._thread.start()

    def add(self, process, pipes):
        """Reads pipes {descriptor: stream} of a process, which do not block, into its capture and
        closes each at its end. Of stream None is the descriptor of the process itself, which can be
        read once it has ended."""
        with self._lock:
            is_asleep = not self._processes         # so that it does not look now and then
            if not process.is_over:
                self._processes[process.capture] = process
        if self._watchlist.is_shared:
            with contextlib.suppress(OSError):      # the thread tries until it can
                self._register(process, pipes)
        if pipes:
            self._new.append((process, pipes))
        if pipes or is_asleep:
            self._wake()

    def forget(self, capture):
        """Stores no more of a capture; what its pipes still bring is read and thrown away."""
        with self._lock:
            self._processes.pop(capture, None)

    def close(self):
        """Ends the threads; pipes that are still open are closed."""
        self.starters.close()
        self._is_closing = True
        self._wake()
        self._thread.join()
        for process in self._watchlist.close():
            process.let_go()
        os.close(self._wake_in)
        os.close(self.null)

    def _wake(self):
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_in, b"w")

    def _run(self):
        """The thread of Output: reads what pipes have, and has it written down every FLUSH_S
        seconds; a fault, as when memory is short, ends it for nobody."""
        flush_at, is_told = 0.0, False
        while not self._is_closing:
            timeout = None if not self._processes else max(0.0, flush_at - time.monotonic())
            try:
                count, ended = 0, []
                for pipe, process, stream, is_last in self._watchlist.wait(timeout):
                    if process is None:
                        os.read(pipe, 4096)
                        self._register_new()
                    elif stream is None:
                        ended.append((pipe, process))
                    else:
                        count += self._take(pipe, process, stream, is_last)
                for pipe, process in ended:         # behind the last that it has written
                    process.exited()
                    self._watchlist.drop(pipe)
                if count > NOISY_PIPES:
                    time.sleep(NOISY_S)     # tasks that print without end leave others their turn
                if time.monotonic() >= flush_at:
                    flush_at = time.monotonic() + FLUSH_S
                    self._flush()
            except Exception:
                if not is_told:
                    is_told = True
                    log.exception("output of tasks")
                time.sleep(FLUSH_S)
                self._wake()            # what is new may not be registered yet

    def _register_new(self):
        """Takes in what is new; what cannot be taken in now stays."""
        while self._new:
            self._register(*self._new[0])
            self._new.popleft()

    def _register(self, process, pipes):
        """Takes pipes in, and out of the dict. OSError."""
        while pipes:
            pipe, stream = next(iter(pipes.items()))
            self._watchlist.add(pipe, process, stream)
            del pipes[pipe]

    def _take(self, pipe, process, stream, is_last):
        """Reads from a pipe that has something, `is_last` to its end -> whether there was any of
        it; what has come to its end is closed."""
        count, data = 0, b"."
        while data and (is_last or not count):
            try:
                data = os.read(pipe, PIPE_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if data and not process.is_over:
                process.capture.feed(stream, data)
            count += bool(data)
        if not data:
            self._watchlist.drop(pipe)
            process.pipe_ended()
        return count > 0

    def _flush(self):
        with self._lock:            # forget() waits for what is under way
            for capture, process in self._processes.items():
                capture.flush()
                process.look()


class Watchlist:
    """Descriptors that have something to be read, now or later. It is for one thread; where it
    `is_shared` others may add to it while that one waits."""

    def __init__(self):
        self.is_shared = hasattr(select, "epoll")
        self._poll = select.epoll() if self.is_shared else select.poll()
        self._entries = {}              # descriptor -> (itself, process, stream)

    def add(self, descriptor, process, stream):
        """One of a process, unless it is here. OSError."""
        if descriptor in self._entries:
            return
        self._entries[descriptor] = descriptor, process, stream     # first: it may be read at once
        try:
            self._poll.register(descriptor, select.POLLIN)
        except Exception:
            del self._entries[descriptor]
            raise

    def drop(self, descriptor):
        """Closes one."""
        self._poll.unregister(descriptor)
        del self._entries[descriptor]
        os.close(descriptor)

    def wait(self, timeout_s):
        """[(descriptor, process, stream, whether what it has is the last)] of those that have
        something, within so many seconds, None: any time."""
        if timeout_s is not None and not self.is_shared:
            timeout_s *= 1000
        return [self._entries[descriptor] + (events & select.POLLHUP != 0,)
                for descriptor, events in self._poll.poll(timeout_s)]

    def close(self):
        """Closes all -> the processes whose end is still to come."""
        processes = [process for _, process, stream in self._entries.values()
                     if stream is None and process is not None]
        for descriptor in self._entries:
            os.close(descriptor)
        if self.is_shared:
            self._poll.close()
        return processes
