"""The holds of work repositories: HOLD -REPO, and those of copies."""
import collections
import threading

from ..base.program import log
from ..store.admission import repository_gate
from ..store.whereabouts import put_repository_hold, release_repository
from .waits import tell_hold


class RepositoryHolds:
    """Makes the hold that a work repository's file tells effective, and its end.

    Whoever changes it there has it followed here; other agents on the same file follow when they
    see that it was written.
    """

    def __init__(self, agent, clean):
        """clean(repository): what a copy has missed by its release."""
        self._agent, self._clean = agent, clean
        self._held = {}                 # repository id -> the Hold that is effective
        self._locks = collections.defaultdict(threading.Lock)       # id -> one change at a time

    def set(self, name, hold):
        """Holds the repository of a name, or releases it (None), whatever holds it. NotFound,
        RepositoryError."""
        repository = self._agent.places.get(name)
        if hold is not None:
            repository.db.write(put_repository_hold, hold)
        else:
            repository.db.write(release_repository, repository.find_spot())
        self._follow(repository, is_cleaning=hold is None)

    def _follow(self, repository, is_cleaning=False):
        """Its hold was changed in the file."""
        try:
            self.look(repository)
            if is_cleaning:
                self._clean(repository)
            self.settle(repository)
        except Exception:
            repository.set_behind()     # its owner does all that again
            raise

    def look(self, repository):
        """Reads its hold anew: where there is one, nothing begins from now on. RepositoryError."""
        agent = self._agent
        with self._locks[repository.id]:
            repository.look_around()
            hold, before = repository.hold, self._held.get(repository.id)
            if hold is None:
                return
            self._held[repository.id] = hold
            agent.queue.hold_gate(repository_gate(repository.id), True)
            repository.db.submit(repository.sessions.set_waiting, agent.name, True,
                                 agent.clock.now())
        if hold != before:
            log.warning("repository %s is %s", repository.name, tell_hold(hold, agent.clock.now()))
            if hold.until is not None:
                agent.schedules.scheduler.call_at(hold.until,
                                                  lambda: self._hold_over(repository, hold))

    def settle(self, repository):
        """Where it is not held any more: what was held back may begin, and is decided."""
        agent = self._agent
        with self._locks[repository.id]:
            if repository.hold is not None:
                return
            agent.queue.hold_gate(repository_gate(repository.id), False)
            if self._held.pop(repository.id, None) is None:
                return
            if agent.hold is None:
                repository.db.submit(repository.sessions.set_waiting, agent.name, False,
                                     agent.clock.now())
        log.info("repository %s is released", repository.name)
        agent.schedules.released_in(repository)

    def _hold_over(self, repository, hold):
        """The end of a hold has come, if it is still this one; a locked file delays its record."""
        if repository.hold == hold:
            def follow(pending):
                if pending.error is None:
                    self._agent.audit.note_own("RELEASE", "-REPO=" + repository.name)
                    self._follow(repository)
            repository.db.submit(put_repository_hold, None, on_done=follow)
