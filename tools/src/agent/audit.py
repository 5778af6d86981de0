"""What was done, and what was refused, on its way to the audit in the master.

Thread audit: writes the rows; ends at Audit.close().
"""
import collections
import contextlib
import functools
import itertools
import os
import threading

from ..base.clients import name_user
from ..base.errors import AgentError, RepositoryError
from ..base.vocabulary import WRITE_S
from ..base.program import Told, log, tell_traceback
from ..base.workers import Worker
from ..store.chain import Act, Chain, Happening
from .opening import open_master

DONE_WELL = "OK"        # the outcome of what was done
MAX_ACTS = 10000        # rows that wait for the master; what is more is counted alone
REPEAT_S = 60.0         # for which what is refused again and again is one row
NOTE_S = 0.2          # how long a row waits for others
AUDIT_RETRY_S = 1.0  # between two tries while the master cannot be written
NOTED_AT_ONCE = 1000     # rows of one transaction
MAX_KINDS = 1000        # of refusals that are told apart at a time, in all
MAX_KINDS_EACH = 16     # of one who asks: then the object is not told any more
SEVERAL = "*"           # in place of what is not told


class Audit:
    """The audit of an agent: `note` is called by whoever has something done, and waits for nothing;
    one thread writes.

    A refusal that comes again and again is one row a minute, with a count. What cannot be written
    is kept, up to MAX_ACTS rows; what is more is counted, and one row tells how many.
    """

    def __init__(self, master, name, clock):
        self.chain, self._name = Chain(master, name), name
        self._clock = clock
        self._ready = threading.Condition()     # guards all that follows
        self._written = threading.Condition(self._ready)
        self._waiting = collections.deque()     # Happenings that are to be written
        self._repeats = collections.OrderedDict()       # Act -> _Repeat, the oldest first
        self._kinds = collections.Counter()     # (user, OS user, address) -> his in _repeats
        self._asked = self._answered = 0        # calls of flush(), and how many of them are over
        self._lost = 0                          # that there was no room for
        self._is_asleep = self._is_urgent = self._is_failing = self._is_closing = False
        self._told = Told()
        self._thread = Worker(self._run, name="audit")
        self._thread.start()

    # -- who has something to note -----------------------------------------------------

    def note(self, client, action, about, outcome):
        """Notes what a Client has had done to an object, or was refused."""
        peer = client.peer
        self._note(Act(client.user, peer.os_user, peer.address, action, about, outcome))

    def note_own(self, action, about=""):
        """Notes what the agent has done by itself."""
        self._note(own_act(action, about, DONE_WELL))

    def _note(self, act):
        now = self._clock.now()
        with self._ready:
            if act.outcome == DONE_WELL:
                self._put(Happening(now, act))
            else:
                self._note_refusal(act, now)
            if self._is_asleep:
                self._is_asleep = False
                self._ready.notify()

    def _put(self, happening):
        if len(self._waiting) >= MAX_ACTS:
            self._lost += 1
        else:
            self._waiting.append(happening)

    def _note_refusal(self, act, now):
        """A row at once, or one more of those that are told when their minute is over."""
        act = self._with_others(act)
        repeat = self._repeats.get(act)
        if repeat is not None:
            repeat.count, repeat.time = repeat.count + 1, now
            return
        self._repeats[act] = _Repeat(self._clock.monotonic() + REPEAT_S)
        self._kinds[act[:3]] += 1
        self._put(Happening(now, act))

    def _with_others(self, act):
        """The refusal as it is told: a flood of ever other names does not become a row each."""
        if act in self._repeats:
            return act
        if len(self._repeats) >= MAX_KINDS:
            return act._replace(user=SEVERAL, os_user=SEVERAL, address=SEVERAL, object=SEVERAL)
        return act._replace(object=SEVERAL) if self._kinds[act[:3]] >= MAX_KINDS_EACH else act

    def count_waiting(self):
        """How many rows are not on disk yet."""
        return len(self._waiting) + self._lost

    def purge(self, client, before):
        """Deletes the rows of this agent that are older than an instant -> how many; the row that
        tells of it is written with it. RepositoryError."""
        act = Act(client.user, client.peer.os_user, client.peer.address, "PURGE", "-AUDIT",
                  DONE_WELL)
        return self.chain.purge(before, Happening(self._clock.now(), act))

    def flush(self, within_s):
        """Waits until what was noted before is on disk, or cannot be written, so many seconds at
        most."""
        with self._ready:
            self._asked += 1
            number, self._is_urgent = self._asked, True
            self._ready.notify()
            self._written.wait_for(lambda: self._answered >= number, within_s)

    def close(self, within_s=WRITE_S + 1.0):
        """Writes what there is, as far as that can be done, tells where the chain ends, and ends
        the thread."""
        with self._ready:
            self._is_closing = self._is_urgent = True
            self._ready.notify()
        self._thread.join(within_s)
        if self._waiting:
            log.error("%d rows of the audit could not be written", len(self._waiting))
        with contextlib.suppress(AgentError):
            log.info("the audit of %s ends with row %d, %s", self._name, *self.chain.find_end())

    # -- the one who writes ------------------------------------------------------------

    def _run(self):
        """The thread: until close()."""
        pause_s = None
        while pause_s != 0.0:
            asked = self._wait(pause_s)
            try:
                pause_s = self.write_due()
            except Exception:           # no memory, maybe: the next look's turn
                log.exception("audit")
                pause_s = AUDIT_RETRY_S
            with self._ready:
                self._answered = asked
                self._written.notify_all()

    def _wait(self, pause_s):
        """Until something is noted, or so many seconds are over (None: for ever); then a little
        longer, for company -> how many calls of flush() are over with the next writing."""
        with self._ready:
            if not (self._waiting or self._is_urgent):
                self._is_asleep = True
                self._ready.wait_for(lambda: not self._is_asleep or self._is_urgent, pause_s)
                self._is_asleep = False
            self._ready.wait_for(lambda: self._is_urgent,
                                 AUDIT_RETRY_S if self._is_failing else NOTE_S)
            self._is_urgent = self._is_closing
            return self._asked

    def write_due(self):
        """Writes all that is due -> seconds until more is, None: until something is noted, 0.0: it
        is over."""
        while True:
            with self._ready:
                pause_s = 0.0 if self._is_closing else None
                pause_s = self._end_repeats() or pause_s
                count, lost = min(NOTED_AT_ONCE, len(self._waiting)), 0
                rows = list(itertools.islice(self._waiting, count))
                if count == len(self._waiting) and self._lost:
                    lost = self._lost
                    rows.append(Happening(self._clock.now(),
                                          own_act("AUDIT LOST", "", RepositoryError.code), lost))
            if not rows:
                return pause_s
            is_written = self._write(rows)
            with self._ready:
                self._is_failing = not is_written
                if is_written:
                    for _ in range(count):
                        self._waiting.popleft()
                    self._lost -= lost
            if not is_written:
                return pause_s

    def _write(self, rows):
        """Whether some rows could be written; the trouble is told once."""
        text = ""
        try:
            self.chain.append(rows)
        except AgentError as error:
            text = error.message
        except Exception as error:
            text = tell_traceback(error)
        if self._told.is_new("", text):
            log.error("the audit cannot be written: %s", text)
        return not text

    def _end_repeats(self):
        """Makes rows of the refusals that came again and again, once their minute is over, or all
        is -> seconds until the next is, or None."""
        now = self._clock.monotonic()
        while self._repeats:
            act, repeat = next(iter(self._repeats.items()))
            if now < repeat.until and not self._is_closing:
                return repeat.until - now
            del self._repeats[act]
            if repeat.count:
                self._put(Happening(repeat.time, act, repeat.count))
            if repeat.count and not self._is_closing:
                self._repeats[act] = _Repeat(now + REPEAT_S)
                continue
            self._kinds[act[:3]] -= 1
            if not self._kinds[act[:3]]:
                del self._kinds[act[:3]]
        return None


class _Repeat:
    """A refusal that was told, and those like it since."""
    __slots__ = ("until", "count", "time")

    def __init__(self, until):
        self.until = until              # monotonic seconds at which those are told
        self.count, self.time = 0, 0.0  # how many, and when the last came (epoch seconds)


@functools.lru_cache(maxsize=None)
def own_user():
    """The OS user that this process runs as, asked once: a directory of users may be slow."""
    return name_user(os.getuid())


def own_act(action, about, outcome):
    """What the agent, or its command line, does by itself."""
    return Act("", own_user(), "", action, about, outcome)


def note_offline(master, name, action, about, outcome, now):
    """Appends to the audit what the command line has done to a master, whether or not an agent
    runs; `outcome` is DONE_WELL or a code. What cannot be written is told in the log alone."""
    try:
        Chain(master, name).append([Happening(now, own_act(action, about, outcome))])
    except AgentError as error:
        log.error("the audit cannot be written: %s", error.message)


def note_deed(name, settings, clock):
    """Has the audit of a master know what the command line has done to it. AgentError."""
    master = open_master(settings, clock)
    with contextlib.closing(master.db):
        note_offline(master, settings.name, name, "", DONE_WELL, clock.now())
