"""A task on an engine: how far it has come, for its session and for who watches it there."""
import base64
import threading
import time
from typing import NamedTuple, Optional

from ..base.vocabulary import ERR, FOR_ENGINE, OUT, QUEUED, RUNNING
from ..tasks.engines import HAS_ENDED, JobState, IS_LOST, as_signal
from ..tasks.spooling import make_files

UNKNOWN = "outcome unknown"
LOOKS = 2               # so many say the same before it is believed: a file system may lag behind

FRESH, SUBMITTABLE, UNSURE, THERE = "fresh", "ready", "unsure", "there"


class EngineEnd(NamedTuple):
    """How a task on an engine has ended."""
    rc: Optional[int] = None            # a signal is negative
    words: str = ""                     # what the engine says of it
    error: str = ""                     # why it has no exit code that counts
    captured: bytes = b""               # the beginning of its standard output
    tail: bytes = b""                   # the end of its standard error
    is_given_up: bool = False           # nobody has waited for its end


class EngineTask:
    """One run of a task on an engine.

      fresh ──> ready ──> there ──> its EngineEnd
                  │  ^      ^
                  v  │      │       a submission without an answer is looked for by the marker;
                unsure ─────┘       it is made again when nobody has it and it has not begun

    Its watch alone leads it; the session that it is of reads, and calls cancel(). `records` keep on
    disk what has to outlive the agent, `on_news()` is called when something is new.
    """

    def __init__(self, marker, folder, order, records, capture, is_captured, on_news, home, engine):
        self.marker, self.folder, self.records = marker, folder, records
        self.engine = engine                # its name
        self.phase, self.id, self.state = FRESH, None, JobState(IS_LOST)
        self.end = None
        self.is_cancelled = self.is_cancel_sent = False
        self._silences = {}                 # what does not answer -> in which words
        self._silent_since, self._silent_clock = None, 0.0      # monotonic, of day
        self._order, self._home = order, home
        self._capture, self._is_captured, self._on_news = capture, is_captured, on_news
        self._read = {OUT: 0, ERR: 0}       # bytes of its output that were taken
        self._is_stored = threading.Event()     # no rows of its log are on their way
        self._is_stored.set()
        self._looks = 0                     # one after the other that gave nothing
        self._lock = threading.Lock()

    def take_up(self, row):
        """It was under way when an agent was lost: as the row of session_task has it."""
        if row["engine_id"] or row["engine_submitted"]:
            self.phase, self.id = (THERE if row["engine_id"] else UNSURE), row["engine_id"]

    def skip(self, out, err):
        """So many bytes of its output are in the log already."""
        self._read = {OUT: out, ERR: err}

    # -- for its session ---------------------------------------------------------------

    @property
    def is_over(self):
        """Whether nothing of it is left on the engine, or nobody waits for that any more."""
        return self.end is not None

    def cancel(self):
        """It is no more wanted: the engine is to end it."""
        self.is_cancelled = True

    def tell_wait(self):
        """(word, text) of what it waits for, as SESSIONS shows it."""
        engine = self.engine
        if self.silence:
            return FOR_ENGINE, "engine %s has not answered since %s: %s" % (
                engine, time.strftime("%H:%M:%S", time.localtime(self._silent_clock)),
                self.silence)
        name = " as %s" % self.id if self.id else ""
        if self.is_cancelled:
            return FOR_ENGINE, "is being cancelled on engine %s%s" % (engine, name)
        if self.phase == THERE and self.state.word == RUNNING:
            return "", "runs on engine %s%s" % (engine, name)
        if self.phase == THERE and self.state.word == QUEUED:
            return FOR_ENGINE, "is queued on engine %s%s" % (engine, name)
        return FOR_ENGINE, "is being handed to engine %s" % engine

    # -- for its watch -----------------------------------------------------------------

    @property
    def silence(self):
        """What does not answer for it, in words, or nothing."""
        return "; ".join(sorted(set(self._silences.values())))

    def fall_silent(self, kind, text, now, steady):
        """One of `engine`, `submit` and `spool` did not answer for it. `now` is epoch seconds,
        `steady` monotonic ones."""
        if self._silent_since is None:
            self._silent_since, self._silent_clock = steady, now
        self._silences = dict(self._silences, **{kind: text})

    def note_answer(self, kind):
        """It did."""
        self._silences = {key: text for key, text in self._silences.items() if key != kind}
        if not self._silences:
            self._silent_since = None

    def is_silent(self, kind):
        """Whether it did not answer when it was asked last."""
        return kind in self._silences

    def note_state(self, state):
        """The engine says so of it."""
        self.state = state
        if state.word in (QUEUED, RUNNING):
            self._looks = 0

    def has_waited(self, patience_s, steady):
        """Whether the engine has not answered for so long."""
        return patience_s is not None and self._silent_since is not None \
            and steady - self._silent_since >= patience_s

    def make_files(self):
        """{name: text} for its folder."""
        return make_files(self._order, self.folder, self._home)

    def move(self, phase, engine_id=None):
        """It has come so far."""
        self.phase, self.id, self._looks = phase, engine_id or self.id, 0

    def sent_cancel(self, is_sent=True):
        """The engine was told to cancel it; False: it is to be told again."""
        self.is_cancel_sent = is_sent

    def finish(self, end):
        """It is over. No second end counts."""
        with self._lock:
            if self.end is not None:
                return
            self.end = end
        self._on_news()

    def is_settled(self):
        """Counts a look that gave nothing of it -> whether that is to be believed."""
        self._looks += 1
        return self._looks >= LOOKS

    # -- its output --------------------------------------------------------------------

    def make_order(self, is_last, timeout_s=0.0):
        """What a look into the spool is to read of it; None where rows are still on their way when
        they had so long."""
        return {"folder": self.folder, "out": self._read[OUT], "err": self._read[ERR],
                "is_last": is_last, "is_captured": self._is_captured
                } if self._is_stored.wait(timeout_s) else None

    def take_output(self, report):
        """Hands over what was read of it -> whether there was any."""
        has_any = False
        for stream, name in ((OUT, "out"), (ERR, "err")):
            data = base64.b64decode(report.get(name, ""))
            if data:
                self._read[stream] += len(data)
                self._capture.feed(stream, data)
                has_any = True
        if has_any:
            self._store()
        return has_any

    def _store(self):
        rows, omitted = self._capture.take()
        if not (rows or omitted):
            return
        position, carried = self._capture.tell_place()
        self._is_stored.clear()
        self.records.log(rows, omitted, [self._read[OUT] - carried.get(OUT, 0),
                                         self._read[ERR] - carried.get(ERR, 0), position],
                         self._is_stored.set)

    def say(self, data):
        """What the engine itself has printed of it goes to its log."""
        if data.strip():
            self._capture.feed(ERR, data if data.endswith(b"\n") else data + b"\n")

    # -- its end -----------------------------------------------------------------------

    def find_end(self, report, final):
        """The EngineEnd that follows from a report of the spool and the last state."""
        engine = self.engine
        captured, tail = (base64.b64decode(report.get(name, "")) for name in ("captured", "tail"))
        rc = report.get("end")
        if rc is not None:
            words = "" if final.is_plain or not final.text or rc == 0 else "%s on engine %s" % (
                final.text, engine)
            return EngineEnd(rc, words, "", captured, tail)
        if final.word == HAS_ENDED and (final.rc is not None or not final.is_plain):
            text = "%s on engine %s" % (final.text, engine) if final.text else ""
            return EngineEnd(final.rc, text, "" if final.is_plain else text, captured, tail)
        return EngineEnd(None, "", "%s: engine %s knows nothing of it, and its script has noted "
                         "no exit code" % (UNKNOWN, engine), captured, tail)


def as_exit(rc, codes):
    """The exit code that a shell has noted, as one of a process: over 128 it was a signal, unless
    the task itself names it."""
    return rc if rc in codes else as_signal(rc)
