"""What is done from time to time: cleaning, the heartbeat, purging.

Thread keeper: does what is due of it; ends at Keeper.stop().
"""
import collections
import contextlib
import threading

from ..base.vocabulary import ATTACH_S, GLANCE_S, HEARTBEAT_S, RUNNING, WRITE_S
from ..base.errors import AgentError, RepositoryError
from ..base.program import Told, log, tell_traceback
from ..processes.remains import clear_notes
from ..store.database import do_nothing
from ..store.records import PurgeFilter
from ..processes.alive import Identity, has_ended, lives
from ..processes.looks import Looks
from ..processes.tree import Tree


class Cleaner:
    """Finds stale sessions by fact, ends what they left running, deletes what they left half
    written, and closes or queues them."""

    def __init__(self, name, identity, session_queue, clock, on_closed, bounds):
        self._bounds = bounds           # the Bounds of tasks, whose processes and files these are
        self._name, self._identity, self._queue, self._clock = name, identity, session_queue, clock
        self._on_closed = on_closed     # on_closed(repository, Ending) after the commit
        self._reported = set()          # sessions of other hosts
        self._told = Told()             # why sessions cannot be cleaned
        self._locks = collections.defaultdict(threading.Lock)       # repository id -> one at a time

    def clean(self, repository, host=None):
        """Ends what stale sessions left running, then closes or queues them -> how many. What is
        wrong with one of them costs that one alone: it is told, and looked at again."""
        if repository.is_copy:          # what runs of it may be another's
            return 0
        # a second one would end what the first has begun anew
        with self._locks[repository.id]:
            rows = repository.db.read(repository.sessions.list_running, self._name)
            roots = {}                  # session -> {pid: start time} of what it has under way
            stale = [row for row in rows
                     if self._carefully(row, self._is_to_close, repository, row, host, roots)]
            if not stale:
                return 0
            stale = self._end_processes(repository, stale, roots)
            sessions = {row["id"] for row in stale}
            clear_notes(repository.parts, [path for path, session in repository.parts.list_all()
                                           if session in sessions], self._bounds.discard)
            pendings = [(row, repository.db.submit(repository.endings.close_stale, row,
                                                   self._clock.now(), within_s=WRITE_S))
                        for row in stale]
            return sum(self._carefully(row, self._follow_up, repository, pending) or 0
                       for row, pending in pendings)

    def _carefully(self, row, work, *arguments):
        """work(*arguments) for a session's row, or None when it fails, which is told once."""
        value, text = None, ""
        try:
            value = work(*arguments)
        except AgentError as error:
            text = error.message
        except Exception as error:
            text = tell_traceback(error)
        if self._told.is_new((work.__name__, row["id"]), text):
            log.error("session %d cannot be cleaned: %s", row["id"], text)
        return value

    def _is_to_close(self, repository, row, host, roots):
        """Whether a row's session is stale, and is not taken up again; `roots` gets what it has
        under way, where that is known by its numbers."""
        if not self._is_stale(repository, row, host):
            return False
        runner, me = Identity.parse(row["ran_by"]), self._identity
        is_here = runner is not None and (runner.host, runner.boot, runner.pid_ns) == (
            me.host, me.boot, me.pid_ns)
        ticket = repository.find_adoptable(
            row, lambda pid, started: is_here and lives(pid, started))
        if ticket is not None:
            self._queue.adopt(ticket, repository)
            return False
        roots[row["id"]] = repository.find_roots(row["id"]) if is_here else {}
        return True

    def _end_processes(self, repository, rows, roots):
        """Ends what stale sessions left running -> the rows of those of which nothing is left."""
        def tree(rows):
            numbers = {}
            for row in rows:
                numbers.update(roots[row["id"]])
            return Tree(["%s/%d" % (repository.mark, row["id"]) for row in rows], numbers,
                        looks=Looks(self._bounds.users))
        count = tree(rows).end()
        if not count:
            return rows
        log.error("%d processes of stale sessions cannot be ended", count)
        return [row for row in rows if not tree([row]).find()]

    def _follow_up(self, repository, pending):
        """Waits until a session is closed, or queued again -> whether it was stale still."""
        ending = pending.result()
        if ending is None:
            return False
        log.warning("session %d was stale: now %s", ending.session, ending.status)
        self._on_closed(repository, ending)
        return True

    def _is_stale(self, repository, row, gone_host):
        """Whether nothing runs a session that its repository shows as running: by fact."""
        runner, me = Identity.parse(row["ran_by"]), self._identity
        if runner is None:
            return True
        if runner == me:
            if self._queue.has(row["id"]):
                return False
            # it may have ended since it was read, and begun anew by a RESTART
            now = repository.db.read(repository.sessions.find, row["id"])
            return now is not None and now["status"] == RUNNING \
                and (now["ran_by"], now["begun"]) == (row["ran_by"], row["begun"])
        if runner.host != me.host:
            if runner.host == gone_host:
                return True
            return self._report(row, "runs on another host, %s; CLEAN -HOST= closes those "
                                "of a host that is gone" % runner.host)
        is_over = has_ended(runner, me)     # a copy of the master has another lock: ask the kernel
        if is_over is not None:
            return is_over
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
        self._trouble = ""              # why the last heartbeat failed, in words
        self._is_over = threading.Event()

    def run(self):
        """The keeper's thread: until stop()."""
        while not self._is_over.wait(GLANCE_S):
            try:
                self.keep()
            except AgentError as error:
                if error.message != self._trouble:
                    log.warning("%s", error)
                self._trouble = error.message
            except Exception:
                log.exception("keeper")

    def stop(self):
        """Ends run()."""
        self._is_over.set()

    def keep(self):
        """Does what is due now."""
        agent, settings = self._agent, self._agent.settings
        if self._is_due("look", ATTACH_S):
            with contextlib.suppress(RepositoryError):      # it has trouble, and says it
                agent.master.db.probe()
        if agent.master.db.is_torn:
            agent.master.db.submit(do_nothing)          # its writer mends that
        agent.places.start_all()        # whatever had no thread
        agent.queue.start_threads()
        if self._is_due("heartbeat", HEARTBEAT_S):
            agent.master.heartbeat(agent.name, agent.clock.now())
            agent.schedules.read_calendars()
            agent.access.read()         # another agent may have changed them
            agent.places.follow_master()
            self._trouble = ""
        if self._is_due("purge", 3600.0):
            for repository in agent.places.list_open():
                if not (repository.db.trouble or repository.is_copy):
                    with contextlib.suppress(RepositoryError):      # the next hour's turn
                        self._purge_old(repository, settings.keep_days)

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

    def purge(self, filters, is_dry=False):
        """Deletes the ended sessions that a PurgeFilter names, their log and old occurrences ->
        how many sessions; `is_dry`: how many it would."""
        return sum(repository.db.read(repository.views.count_purged, filters) if is_dry
                   else self._purge(repository, filters)
                   for repository in self._agent.places.readable())

    def _purge_old(self, repository, days):
        """What nobody asked for, so not on the word of a clock that may be wrong."""
        is_believed, jump_s = repository.db.write(repository.views.weigh_clock,
                                                  self._agent.clock.now())
        if jump_s is not None:
            log.warning("%s: the clock is %.1f days ahead of the last look at it: nothing is "
                        "purged before it has stood for a day",
                        repository.db.label, jump_s / 86400)
        if is_believed:
            count = self._purge(repository, PurgeFilter(
                self._agent.clock.now() - days * 86400))
            if count:
                self._agent.audit.note_own("PURGE", "-REPO=" + repository.name)
                log.info("%s: %d sessions older than %d days are purged",
                         repository.db.label, count, days)

    @staticmethod
    def _purge(repository, filters):
        newest = repository.db.read(repository.views.find_newest_purged, filters)
        # some at a time, until there are no more
        return sum(iter(lambda: repository.db.write(repository.views.purge, filters, newest), 0))
