"""The attached work repositories: made, found, attached, watched, detached.

Thread attach NAME: tries to attach a work repository once, and ends with that.
"""
import contextlib
import fcntl
import os
import threading

from ..base.vocabulary import DEFAULT_REPOSITORY, MAX_REPOSITORIES, WRITE_S
from ..base.errors import AgentError, Busy, CannotStart, Conflict, Exists, NotFound, RepositoryError
from ..base.program import log
from ..base.files import OF_ANOTHER
from ..store.files import network_file_system, tell_doors, whole_database
from ..store.locks import open_lock
from ..store.records import Attachment
from ..store.master import Master
from ..store.database import do_nothing
from ..store.work import WorkRepository


class Place:
    """An attached work repository: open, or why it is not."""

    def __init__(self, attachment):
        self.attachment = attachment
        self.repository = None
        self.trouble = "not attached yet"
        self.is_busy = False            # a thread takes care of it
        self.is_detaching = False       # nothing new is taken
        self.has_started = False        # schedules with the rule startup have fired
        self.is_told = False            # who else may write its folder
        self.loaded = None              # the repository of which they were read last
        self.version = None             # data_version last seen

    @property
    def reason(self):
        """Why it cannot be used now, or nothing."""
        return self.trouble if self.repository is None else self.repository.db.trouble


def make_repositories(master_path, clock):
    """Makes a master with the work repository WORKREP beside it; what is there is kept.

    Each appears whole under its name, and one process makes them: agent and --import may come
    at once. CannotStart when what is there is somebody else's.
    """
    work_path = os.path.join(os.path.dirname(os.path.abspath(master_path)), "workrep.db")
    lock_path = master_path + ".create.lock"
    lock = open_lock(lock_path, master_path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(master_path):
            return
        if os.path.exists(work_path):
            check_owner(work_path)
        else:
            with whole_database(work_path, "new") as new:
                WorkRepository(1, DEFAULT_REPOSITORY, new, clock).fill(clock).db.close()
        work = WorkRepository(1, DEFAULT_REPOSITORY, work_path, clock).open()
        work.db.close()
        with whole_database(master_path, "new") as new:
            master = Master(new, clock).open()
            master.attach_as(1, DEFAULT_REPOSITORY, work_path, work.db.uuid)
            master.db.close()
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock_path)
        os.close(lock)


def check_owner(path):
    """CannotStart when a file, or the link to it, that nobody has named is another user's."""
    for status in (os.lstat(path), os.stat(path)):
        if status.st_uid not in (os.geteuid(), 0):
            raise CannotStart(OF_ANOTHER % (path, status.st_uid))


def open_master(settings, clock):
    """The Master of these settings, made when that is wanted. CannotStart."""
    path = settings.master
    try:
        is_there = os.path.exists(path)
        if not is_there and not settings.is_creating:
            raise CannotStart("the master repository %s does not exist; --create makes it" % path)
        check_file_system(path, settings.is_insecure_fs)
        if not is_there:
            make_repositories(path, clock)
        master = Master(path, clock).open()
        tell_doors(master.db.label, path)
        return master
    except (OSError, AgentError) as error:
        raise CannotStart(str(error)) from None


def check_file_system(path, is_insecure_fs):
    """RepositoryError for a network file system, unless the user knows better."""
    kind = network_file_system(path)
    if kind and not is_insecure_fs:
        raise RepositoryError("%s is on a network file system (%s), where SQLite's locks cannot "
                              "be trusted; --insecure-fs says you know better" % (path, kind))


class Places:
    """The attached work repositories: finds, attaches, watches and lets go of them.

    `take_over(place)` is called with a repository that has come, or has changed under another
    program; `on_let_go(repository)` when one cannot be used any more.
    """

    def __init__(self, master, clock, inbox, is_insecure_fs, take_over, on_let_go):
        self._master, self._clock, self._is_insecure_fs = master, clock, is_insecure_fs
        self._inbox = inbox
        self._take_over, self._on_let_go = take_over, on_let_go
        self._places = {attachment.id: Place(attachment)
                        for attachment in master.list_attachments()}

    def find(self, repository):
        """The Place that holds this repository now, or None."""
        place = self._places.get(repository.id)
        return place if place is not None and place.repository is repository else None

    def list_all(self):
        """The attached repositories by id."""
        return [self._places[number] for number in sorted(self._places)]

    def _usable(self, place):
        if place.is_detaching:
            raise Conflict("work repository %s is being detached" % place.attachment.name)
        if place.repository is None:
            raise RepositoryError("work repository %s: %s" % (place.attachment.name, place.trouble)
                                  if place.attachment.name not in place.trouble else place.trouble)
        return place.repository

    def _named(self, name):
        """The Place of a name; of the lowest id when it is None. NotFound."""
        for place in self.list_all():
            if name in (None, place.attachment.name):
                return place
        raise NotFound("no work repository %s is attached" % (name or "at all"))

    def get(self, name):
        """The repository of a name; of the lowest id when it is None. NotFound, RepositoryError."""
        return self._usable(self._named(name))

    def of_session(self, session):
        """The repository that a session's number tells. NotFound, RepositoryError."""
        place = self._places.get(session % 1000)
        if place is None:
            raise NotFound("no session %d: no work repository of id %d is attached"
                           % (session, session % 1000))
        return self._usable(place)

    def with_scenario(self, name, version, repository=None):
        """The repository that is named or, without a name, the attached one of the lowest id that
        has a scenario. NotFound, RepositoryError."""
        places = [self._named(repository)] if repository else self.list_all()
        if len(places) == 1:
            return self._usable(places[0])
        for place in places:
            found = self._usable(place)
            if found.db.read(found.scenarios.has, name, version):
                return place.repository
        is_known = any(found.db.read(found.scenarios.has, name, "-1")
                       for found in map(self._usable, places))
        raise NotFound("no attached repository has %s"
                       % ("version %s of scenario %s" % (version, name) if is_known
                          else "a scenario " + name))

    def with_schedule(self, name, repository):
        """The repository that is named or, without a name, has this schedule."""
        if repository is not None:
            return self.get(repository)
        places = self.list_all()
        for place in places:
            found = self._usable(place)
            if len(places) == 1 or found.db.read(found.schedules.find, name) is not None:
                return found
        raise NotFound("no attached repository has a schedule %s" % name)

    def readable(self, name=None):
        """Yields the repositories, or the named one; at the end raises what could not be used."""
        trouble = None
        for place in self.list_all() if name is None else [self._named(name)]:
            try:
                yield self._usable(place)
            except RepositoryError as error:
                trouble = error
        if trouble:
            raise trouble

    def attach_all(self):
        """Attaches every repository, each in a thread of its own. One that cannot be opened or
        written goes on alone; one that is only large is waited for."""
        until = self._clock.monotonic() + WRITE_S
        places = list(self._places.values())
        for place, thread in [(place, self.in_background(place, self._attach)) for place in places]:
            while thread.is_alive() and (self._clock.monotonic() < until or not place.reason):
                thread.join(0.05)

    @staticmethod
    def in_background(place, function):
        """Takes care of a place in a thread of its own: function(place)."""
        place.is_busy = True

        def work():
            try:
                function(place)
            except AgentError as error:
                log.warning("%s: %s", place.attachment.name, error)
            except Exception:
                log.exception("work repository %s", place.attachment.name)
            finally:
                place.is_busy = False
        thread = threading.Thread(target=work, daemon=True, name="attach " + place.attachment.name)
        thread.start()
        return thread

    def _attach(self, place):
        """Opens a repository and takes over what this agent's name owns in it."""
        attachment = place.attachment
        try:
            if not os.path.exists(attachment.path):
                raise RepositoryError("work repository %s: %s does not exist"
                                      % (attachment.name, attachment.path))
            check_file_system(attachment.path, self._is_insecure_fs)
            repository = WorkRepository(attachment.id, attachment.name, attachment.path,
                                        self._clock, self._inbox)
            repository.open(attachment.uuid)
            self._tell_doors(place, repository)
            place.repository = repository
            self._take_over(place)
            place.trouble = ""
            log.info("work repository %s is attached", attachment.name)
        except RepositoryError as error:
            self._let_go(place, error.message)

    @staticmethod
    def _tell_doors(place, repository):
        """Warns once of a repository that others may replace or put files beside."""
        if not place.is_told:
            place.is_told = True
            tell_doors(repository.db.label, repository.path)

    def _let_go(self, place, reason):
        """A repository that cannot be used: its schedules stop, it is tried again."""
        repository, place.repository = place.repository, None
        if reason != place.trouble:
            log.warning("%s", reason)
        place.trouble, place.version = reason, None
        if repository:
            self._on_let_go(repository)
            repository.db.close(0.0)

    def look_after(self, place, clean):
        """Attaches it again, looks at its health, reads it again, or lets clean(repository)."""
        repository = place.repository
        if place.is_busy:
            return
        if repository and repository.db.is_gone:
            self._let_go(place, "%s: %s" % (repository.db.label, repository.db.trouble))
            repository = None
        if repository is None:
            self.in_background(place, self._attach)
            return
        repository.db.submit(do_nothing, within_s=1.0,
                             then=lambda pending: self._saw(place, repository, pending))
        if repository.db.trouble:
            return
        if repository.is_behind:
            self.in_background(place, self._take_over)
        elif clean:
            self.in_background(place, lambda _: clean(repository))

    @staticmethod
    def _saw(place, repository, pending):
        """Another program has written to the file: it is read again."""
        if pending.error is None and place.repository is repository:
            if place.version not in (None, repository.db.version):
                repository.is_behind = True
            place.version = repository.db.version

    def follow_master(self):
        """Another agent on this master may have attached or detached repositories."""
        attached = {attachment.id: attachment for attachment in self._master.list_attachments()}
        for number, attachment in attached.items():
            if number not in self._places:
                self._places[number] = Place(attachment)
        for number in set(self._places) - set(attached):
            repository = self._places[number].repository
            if repository is None or not repository.db.write(repository.views.has_open):
                self._let_go(self._places.pop(number), "detached")

    def attach(self, name, path, is_creating):
        """Attaches a work repository -> its id. Exists, NotFound, Conflict, RepositoryError."""
        path = os.path.join(os.path.dirname(self._master.path), path)
        attached = self._master.list_attachments()
        if name in (a.name for a in attached):
            raise Exists("a work repository %s is attached" % name)
        if any(os.path.exists(path) and os.path.exists(a.path) and os.path.samefile(a.path, path)
               for a in attached):
            raise Exists("%s is attached already" % path)
        check_file_system(path, self._is_insecure_fs)
        if is_creating:
            repository = self._create_work(name, path, attached)
        elif os.path.exists(path):
            repository = WorkRepository(None, name, path, self._clock,
                                        self._inbox).open()
        else:
            raise NotFound("%s does not exist; -CREATE makes it" % path)
        try:
            self._master.attach_as(repository.id, name, path, repository.db.uuid)
        except AgentError:
            repository.db.close()
            if is_creating:
                os.unlink(path)
            raise
        place = Place(Attachment(repository.id, name, path, repository.db.uuid))
        place.repository, place.trouble, place.has_started = repository, "", True
        self._tell_doors(place, repository)
        self._places[repository.id] = place
        self._take_over(place)
        return repository.id

    def _create_work(self, name, path, attached):
        used = [attachment.id for attachment in attached]
        number = next((n for n in range(1, MAX_REPOSITORIES + 1) if n not in used), None)
        if number is None:
            raise Busy("a master has at most %d work repositories" % MAX_REPOSITORIES)
        try:
            return WorkRepository.create(number, name, path, self._clock, self._inbox)
        except FileExistsError:
            raise Exists("%s exists; ATTACH it without -CREATE" % path) from None
        except OSError as error:
            raise RepositoryError("%s cannot be made: %s" % (path, error.strerror)) from None

    def detach(self, name):
        """Detaches a work repository. NotFound; Conflict while it has open sessions."""
        place = self._named(name)
        place.is_detaching = True
        try:
            # by the writer, so behind every session that was taken before
            if place.repository and place.repository.db.write(place.repository.views.has_open):
                raise Conflict("work repository %s has open sessions" % name)
            self._master.detach(place.attachment.id)
        except AgentError:
            place.is_detaching = False
            raise
        self._places.pop(place.attachment.id, None)
        repository = place.repository
        self._let_go(place, "detached")
        if repository:
            repository.db.close()

    def close(self):
        """Closes the repositories; what is waiting is written down first."""
        for place in self.list_all():
            if place.repository:
                place.repository.db.close()
