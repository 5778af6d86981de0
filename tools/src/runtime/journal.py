"""What a session has to record: collected, masked, and handed to its repository in order."""

from ..base.vocabulary import MAX_BATCH, MIN_SECRET
from ..base.controls import one_line
from ..base.program import log
from ..base.words import mask_all

BEGUN_WITHIN_S = 2.0           # so long a session waits for the record of its begin


class Journal:
    """The records of one session on their way to its repository.

    What is noted goes there in one transaction, at the latest before the next task begins: so
    `begun` is on disk before a process starts. While the repository cannot be written, its writer
    keeps what it was handed, and flush() waits; a session that has not begun waits some seconds and
    fails. All but add_log() is for the session's own thread. on_log(session) is called when lines
    of its log are on disk. `has_begun` tells that the session has begun on disk.
    """

    def __init__(self, repository, session, scenario, clock, on_log=lambda session: None):
        self.repository, self.session, self.has_begun = repository, session, False
        self._scenario = scenario       # its name
        self.secrets = ()               # what must not be stored or shown, the longest first
        self._clock, self._on_log = clock, on_log
        self._progress = repository.progress
        self._run = 0                   # number of the newest step or task run
        self._records = []              # [(method, arguments)] not handed over yet
        self._spent = []                # Spools whose content is recorded with the next commit

    # -- records -----------------------------------------------------------------------

    def now(self):
        """The time of day, epoch seconds."""
        return self._clock.now()

    def set_begun(self):
        """It is on disk that the session has begun."""
        if not self.has_begun:
            self.has_begun = True
            log.info("session %d of %s begins", self.session, self._scenario, extra={"fields": {
                "session": self.session, "scenario": self._scenario, "event": "begin"}})

    def count_from(self, run):
        """The next run is the one after this: those up to it are on disk."""
        self._run = run

    def note(self, method, *arguments):
        """Adds method(connection, session, *arguments) to what goes to the repository next."""
        self._records.append((method, arguments))

    def note_begin(self, method, *arguments):
        """Notes that a step or task begins, by method(connection, session, run, ..., now) -> the
        number of its run, which counts both in the session."""
        self._run += 1
        self.note(method, self._run, *arguments, self.now())
        return self._run

    def note_end(self, method, *arguments, message):
        """Notes an end, by method(connection, session, *arguments, message, now). The message is
        put on one line, without secrets."""
        self.note(method, *arguments, one_line(self.mask(message)), self.now())

    @property
    def is_full(self):
        """Whether what was noted is enough for a transaction."""
        return len(self._records) >= MAX_BATCH

    def flush(self):
        """Hands over what was noted and waits for the commit. RepositoryError: the repository was
        closed, or is gone; or the session cannot begin now. What its begin refuses."""
        pending, follow_up = self.begin_flush()
        pending.result()
        follow_up(pending)

    def begin_flush(self):
        """The first half of flush(): (the Pending of the commit, what is to be called with it
        then)."""
        follow_up = self._follow_up()
        return self._submit(self._progress.record), follow_up

    def hand_over(self, on_done):
        """Hands over the last of what was noted; on_done(pending) is called, by the Inbox, once it
        is on disk, or never can be. The value is what the last of it gave."""
        follow_up = self._follow_up()

        def follow(pending):
            if pending.error is None:
                follow_up(pending)
            on_done(pending)
        self._submit(self._progress.record, follow)

    def flush_later(self):
        """Hands over what was noted; nobody waits for its commit, unless the session begins by it.
        As flush()."""
        if self.has_begun:
            self._submit(self._progress.record_later, self._logged if self._has_log else None)
        else:
            self.flush()

    def _follow_up(self):
        """What the commit of all that was noted brings about, as a function of its Pending."""
        has_log = self._has_log
        spent, self._spent = self._spent, []

        def follow(_):
            self.set_begun()
            if has_log:
                self._logged(_)
            for spool in spent:
                spool.remove()
        return follow

    @property
    def _has_log(self):
        return any(method == self._progress.add_log for method, _ in self._records)

    def _logged(self, _):
        self._on_log(self.session)

    def _submit(self, method, on_done=None):
        records, self._records = self._records, []
        return self.repository.db.submit(method, self.session, records, on_done=on_done,
                                         within_s=None if self.has_begun else BEGUN_WITHIN_S)

    def add_log(self, run, rows, omitted, on_stored):
        """Hands over rows of the log past what was noted; on_stored() once they are on disk, or
        never can be. From any thread."""
        def follow(pending):
            on_stored()
            self._logged(pending)
        self.repository.db.submit(self._progress.add_log_later, self.session, run, rows, omitted,
                                  on_done=follow)

    def note_life(self, run, pid, pid_started):
        """Has a process of a run recorded, soon. From any thread."""
        self.repository.db.submit(self._progress.note_process_later, self.session, run, pid,
                                  pid_started)

    def share(self):
        """Another Journal of the session, which has begun, for another thread."""
        other = Journal(self.repository, self.session, self._scenario, self._clock, self._on_log)
        other.has_begun, other.secrets = True, self.secrets
        return other

    def add_engine_log(self, run, rows, omitted, reading, on_stored):
        """As add_log, of a task on an engine, with how much of its output was read."""
        def follow(pending):
            on_stored()
            self._logged(pending)
        self.repository.db.submit(self.repository.engine_runs.add_log, self.session, run, rows,
                                  omitted, reading, on_done=follow)

    # -- spools ------------------------------------------------------------------------

    def make_spool(self, run):
        """A new Spool for a run's minder. RepositoryError."""
        return self.repository.spools.make(self.session, run)

    def find_spool(self, run):
        """The Spool that a run's minder has, or None."""
        return self.repository.spools.find(self.session, run)

    def spend(self, spool):
        """All of a spool is handed over or noted: it goes when that is on disk."""
        self._spent.append(spool)

    # -- secrets -----------------------------------------------------------------------

    def hide(self, value):
        """From now on a value, and each line of it, is shown nowhere."""
        lines = {line for line in value.split("\n") if len(line) >= MIN_SECRET}
        self.secrets = tuple(sorted(lines.union(self.secrets), key=len, reverse=True))

    def mask(self, text):
        """A text with *** in place of the secrets of the session."""
        return mask_all(text, self.secrets)
