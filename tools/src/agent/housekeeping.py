"""What is done from time to time: cleaning, the heartbeat, purging.

Thread keeper: does what is due of it; ends at Keeper.stop().
"""
import collections
import contextlib
import threading

from ..base.vocabulary import ATTACH_S, HEARTBEAT_S, RUNNING
from ..base.errors import AgentError, RepositoryError
from ..base.program import log
from ..processes.tree import Identity, Tree, start_time


class Cleaner:
    """Finds stale sessions by fact, ends what they left running, and closes or queues them."""

    def __init__(self, name, identity, session_queue, clock, on_closed):
        self._name, self._identity, self._queue, self._clock = name, identity, session_queue, clock
        self._on_closed = on_closed     # on_closed(repository, Ending) after the commit
        self._reported = set()          # sessions of other hosts
        self._locks = collections.defaultdict(threading.Lock)       # repository id -> one at a time

    def clean(self, repository, host=None):
        """Ends what stale sessions left running, then closes or queues them -> how many."""
        # a second one would end what the first has begun anew
        with self._locks[repository.id]:
            rows = repository.db.read(repository.sessions.list_running, self._name)
            stale = [row for row in rows if self._is_stale(repository, row, host)
                     and not self._adopt(repository, row)]
            if not stale:
                return 0
            survivors = Tree("%s/%d" % (repository.db.uuid, row["id"]) for row in stale).end()
            if survivors:
                log.error("%d processes of stale sessions cannot be ended", survivors)
            endings = repository.db.write(repository.endings.close_all_stale, stale,
                                          self._clock.now())
            for ending in endings:
                log.warning("session %d was stale: now %s", ending.session, ending.status)
                self._on_closed(repository, ending)
            return len(endings)

    def _adopt(self, repository, row):
        """Takes up a session whose process lived on, or ended with its exit code noted."""
        runner, me = Identity.parse(row["ran_by"]), self._identity
        is_here = runner is not None and (runner.host, runner.boot) == (me.host, me.boot)
        ticket = repository.find_adoptable(
            row, lambda pid, started: is_here and start_time(pid) == started)
        if ticket is not None:
            self._queue.adopt(ticket, repository)
        return ticket is not None

    def _is_stale(self, repository, row, gone_host):
        """Whether nothing runs a session that its repository shows as running: by fact."""
        runner, me = Identity.parse(row["ran_by"]), self._identity
        if runner is None:
            return True
        if runner == me:
            if self._queue.has(row["id"]):
                return False
            # it may have ended since it was read
            now = repository.db.read(repository.sessions.find, row["id"])
            return now is not None and now["status"] == RUNNING and now["ran_by"] == row["ran_by"]
        if runner.host != me.host:
            if runner.host == gone_host:
                return True
            return self._report(row, "runs on another host, %s; CLEAN -HOST= closes those "
                                "of a host that is gone" % runner.host)
        if runner.boot != me.boot:
            return True
        if runner.pid_ns == me.pid_ns:      # a copy of the master has another lock: ask the kernel
            return start_time(runner.pid) != runner.started
        if runner.master == me.master:      # a container before this one: this agent has its lock
            return True
        return self._report(row, "runs in another pid namespace of this host")

    def _report(self, row, text):
        if row["id"] not in self._reported:
            self._reported.add(row["id"])
            log.warning("session %d %s: left alone", row["id"], text)
        return False


class Keeper:
    """Housekeeping: does what is due of the heartbeat, what the master has anew, and purging."""

    def __init__(self, agent, cleaner):
        self._agent, self._cleaner = agent, cleaner
        self._due = {}                  # what -> monotonic seconds
        self._is_over = threading.Event()

    def run(self):
        """The keeper's thread: until stop()."""
        while not self._is_over.wait(ATTACH_S):
            try:
                self.keep()
            except AgentError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("keeper")

    def stop(self):
        """Ends run()."""
        self._is_over.set()

    def keep(self):
        """Does what is due now."""
        agent, settings = self._agent, self._agent.settings
        if self._is_due("heartbeat", HEARTBEAT_S):
            agent.master.heartbeat(agent.name, agent.clock.now())
            agent.schedules.read_calendars()
            agent.places.follow_master()
        if self._is_due("purge", 3600.0):
            for repository in agent.places.list_open():
                if not repository.db.trouble:
                    with contextlib.suppress(RepositoryError):      # the next hour's turn
                        self._purge(repository, settings.keep_days, None)

    def _is_due(self, what, every_s):
        now = self._agent.clock.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def clean(self, host=None):
        """Cleans stale sessions everywhere -> how many; `host` closes those of a host gone."""
        return sum(self._cleaner.clean(repository, host)
                   for repository in self._agent.places.readable())

    def purge(self, days, keep):
        """Deletes ended sessions, their log and old occurrences -> how many sessions."""
        return sum(self._purge(repository, days, keep)
                   for repository in self._agent.places.readable())

    def _purge(self, repository, days, keep):
        before = None if days is None else self._agent.clock.now() - days * 86400
        # some at a time, until there are no more
        return sum(iter(lambda: repository.db.write(repository.views.purge, before, keep), 0))
