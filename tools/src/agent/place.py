"""An attached work repository and its owner.

Thread repository NAME: the owner; opens the repository, takes it over, looks at it, cleans it and
closes it. Ends with Place.end() or a Place.detach() that succeeds.
"""
import concurrent.futures
import contextlib
import enum
import queue
import threading
from typing import Callable, NamedTuple, Optional

from ..base.vocabulary import ATTACH_S, GLANCE_S
from ..base.errors import AgentError, Busy, Conflict, RepositoryError, Stopping
from ..base.program import log
from ..base.controls import one_line
from ..store.files import tell_doors
from ..base.workers import Worker
from ..store.work import WorkRepository


class State(enum.Enum):
    """What its owner does with a work repository."""
    AWAY = "away"                   # cannot be used: tries it again from time to time
    ATTACHING = "attaching"         # opens it, reads what is outstanding and the schedules
    ATTACHED = "attached"
    DETACHING = "detaching"         # nothing new is taken
    DETACHED = "detached"           # has ended


class Standing(NamedTuple):
    """How it is with a work repository. Replaced as a whole, by its owner alone."""
    state: State
    repository: Optional[WorkRepository]    # open; None: it cannot be used now
    reason: str                             # why not


class Care(NamedTuple):
    """What the owner of a work repository does with it."""
    open: Callable          # open(attachment) -> the open WorkRepository; RepositoryError
    take_over: Callable     # take_over(place): it has come, or another program has changed it
    let_go: Callable        # let_go(repository): it cannot be used any more
    clean: Callable         # clean(repository), every `clean_every_s` seconds of `clock`
    clean_every_s: float
    clock: object


class Place:
    """An attached work repository: open, or why it is not.

    Its owner leads it from state to state; others read, or ask the owner and wait.

        away <──> attaching ──> attached ──> detaching ──> detached
          ^                      │    ^          │
          └── gone, or replaced ─┘    └──────────┘ open sessions
    """

    def __init__(self, attachment, care, repository=None):
        """`repository`: what ATTACH has opened already; its rule `startup` fires nothing."""
        self.attachment = attachment
        self.has_started = repository is not None   # schedules with the rule startup have fired
        self.loaded = None                  # the repository of which they were read last
        self._care = care
        self._standing = Standing(State.ATTACHING, repository, "not attached yet")
        self._version = None                # data_version last seen
        self._is_told = False               # who else may write its folder
        self._is_ending = False
        self._clean_due = 0.0
        self._asking = threading.Lock()     # for the next two
        self._asked = queue.Queue()         # functions for the owner
        self._has_ended = False             # it takes no more of them
        self._settled = threading.Event()   # after the first attaching, well or badly
        self._fault = ""                    # what its owner cannot do, until it can
        self._owner = None                  # its thread, once there is one
        self._starting = threading.Lock()   # for that

    # -- what others read --------------------------------------------------------------

    @property
    def state(self):
        """What its owner does with it now."""
        return self._standing.state

    @property
    def repository(self):
        """The open WorkRepository, or None. It may change from one reading to the next."""
        return self._standing.repository

    @property
    def reason(self):
        """Why it cannot be used now, or nothing."""
        _, repository, reason = self._standing
        return reason if repository is None else repository.db.trouble or self._fault

    def get_usable(self):
        """The open WorkRepository. Conflict while it is being detached, RepositoryError."""
        state, repository, reason = self._standing
        name = self.attachment.name
        if state == State.DETACHING:
            raise Conflict("work repository %s is being detached" % name)
        if repository is None:
            raise RepositoryError(reason if name in reason
                                  else "work repository %s: %s" % (name, reason))
        return repository

    def note_loaded(self, repository):
        """Its schedules have been read, those with the rule startup included."""
        self.has_started, self.loaded = True, repository

    # -- what others ask of the owner --------------------------------------------------

    def start(self):
        """Starts the owner, if there is none. Busy: the host has no thread for it now."""
        with self._starting:
            if self._owner is not None or self._is_ending:
                return
            owner = Worker(self._run, name="repository " + self.attachment.name)
            try:
                owner.start()
            except RuntimeError as error:
                self.let_go(str(error))
                self._settled.set()
                raise Busy("no further thread can be started for work repository %s"
                           % self.attachment.name) from None
            self._owner = owner

    def wait_settled(self, timeout_s=None):
        """Whether the first attaching is over, well or badly."""
        return self._settled.wait(timeout_s)

    def detach(self, leave):
        """Has the owner let go of it and end; leave() takes it out of the master and the places.
        Conflict while it has open sessions; Stopping; what leave() raises: then it stays."""
        if self._owner is None:
            raise RepositoryError(self.reason)
        answer = concurrent.futures.Future()

        def ask():
            try:
                self._detach(leave)
                answer.set_result(None)
            except Exception as error:
                answer.set_exception(error)
        self._ask(ask)
        answer.result()
        self._owner.join()

    def _ask(self, function):
        with self._asking:
            if self._has_ended:
                raise Stopping("work repository %s is closed" % self.attachment.name)
            self._asked.put(function)

    def end(self):
        """Closes the repository, what is waiting is written down first, and ends the owner."""
        self._is_ending = True
        with contextlib.suppress(Stopping):
            self._ask(lambda: None)
        repository = self.repository
        if repository:
            repository.db.close()       # also ends what the owner waits for
        if self._owner is not None:
            self._owner.join()

    # -- the owner ---------------------------------------------------------------------

    def _run(self):
        """Attaches, then does what is asked, or every ATTACH_S seconds looks, until the end."""
        self._carefully(self.attach)
        self._settled.set()
        while not self._is_ending and self.state != State.DETACHED:
            self._carefully(self._wait_asked())
        with self._asking:
            self._has_ended = True
        while not self._asked.empty():  # whoever asked too late has an answer
            self._carefully(self._asked.get())
        repository = self.repository
        if repository:                  # it came when the end had
            repository.db.close()

    def _wait_asked(self):
        """What is asked next, or look() when it is time for that or something is wrong beside it.
        """
        for _ in range(int(ATTACH_S / GLANCE_S)):
            with contextlib.suppress(queue.Empty):
                return self._asked.get(timeout=GLANCE_S)
            repository = self.repository
            if repository and repository.db.is_torn:
                break
        return self.look

    def _carefully(self, function):
        """What fails is told, once, and it is DEGRADED until that has gone well."""
        fault = ""
        try:
            function()
        except AgentError as error:
            fault = error.message
            if fault != self._fault:
                log.warning("%s: %s", self.attachment.name, fault)
        except Exception as error:
            fault = "it cannot be looked after: %s: %s" % (type(error).__name__, one_line(error))
            if fault != self._fault:
                log.exception("work repository %s", self.attachment.name)
        if self._fault and not fault:
            log.info("work repository %s is looked after again", self.attachment.name)
        self._fault = fault

    def attach(self):
        """Opens the repository and takes over what this agent's name owns in it, or is AWAY."""
        _, repository, reason = self._standing
        self._standing = Standing(State.ATTACHING, repository, reason)
        try:
            repository = repository or self._care.open(self.attachment)
            self._standing = Standing(State.ATTACHING, repository, "")
            if not self._is_told:       # once
                self._is_told = True
                tell_doors(repository.db.label, repository.path)
            self._take_over(repository)
            log.info("work repository %s is attached", self.attachment.name)
        except RepositoryError as error:
            if repository is not None and repository.db.is_read_only:
                return                  # look() takes it over when it can be written
            if not self._is_ending:
                self.let_go(error.message)

    def _take_over(self, repository):
        """Reads what is outstanding and the schedules; if it fails, it stays to be done."""
        if self._is_ending:
            return
        repository.set_behind(False)
        try:
            self._version = repository.db.read_version()    # what comes later is seen
            self._care.take_over(self)
        except Exception:
            repository.set_behind()
            raise
        self._standing = Standing(State.ATTACHED, repository, "")

    def let_go(self, reason):
        """The repository cannot be used: its schedules stop. One that is AWAY is tried again."""
        _, repository, before = self._standing
        if reason != before:
            log.warning("%s", reason)
        self._standing, self._version = Standing(State.AWAY, None, reason), None
        if repository:
            self._care.let_go(repository)
            repository.db.close(0.0)

    def look(self):
        """Attaches it again, looks at its health, reads it again, or cleans it."""
        repository = self.repository
        if repository and repository.db.is_gone:
            self.let_go("%s: %s" % (repository.db.label, repository.db.trouble))
            repository = None
        if repository is None:
            self.attach()
            return
        with contextlib.suppress(RepositoryError):          # then it has trouble, and says it
            repository.db.probe()
            version = repository.db.read_version(within_s=1.0)
            if version != self._version:                    # another program has written
                repository.set_behind()
        if repository.db.trouble:
            return
        if repository.is_behind:
            self._take_over(repository)
        elif self._care.clock.monotonic() >= self._clean_due:
            self._care.clean(repository)
            self._clean_due = self._care.clock.monotonic() + self._care.clean_every_s

    def _detach(self, leave):
        """Nothing is let go of before leave() has gone well."""
        if self._is_ending:
            raise Stopping("the agent is stopping and detaches nothing")
        before, repository = self._standing, self._standing.repository
        self._standing = before._replace(state=State.DETACHING)
        try:
            # by the writer, so behind every session that was taken before; none comes after
            if repository and not repository.db.write(repository.arrivals.close_door):
                raise Conflict("work repository %s has open sessions" % self.attachment.name)
            leave()
        except Exception:
            self._standing = before
            if repository and repository.arrivals.open_door():
                repository.set_behind()     # due times may have come to a closed door
            raise
        self._standing = Standing(State.DETACHED, None, "detached")
        log.info("work repository %s is detached", self.attachment.name)
        if repository:
            self._care.let_go(repository)
            repository.db.close()
