"""The attached work repositories: found, attached and detached."""
import contextlib
import functools
import os
import threading

from ..base.vocabulary import MAX_REPOSITORIES, TERM_S, WRITE_S
from ..base.errors import (AgentError, Busy, Conflict, Exists, NotFound, RepositoryError,
                           Stopping)
from ..store.records import Attachment
from .place import Place


class Places:
    """The attached work repositories: finds, attaches and lets go of them.

    The set of them is replaced, never changed: who reads it needs no lock. Who replaces it holds
    `_changing`, from the look at what is attached until that is so no more, or is attached.
    """

    def __init__(self, master, care):
        """`care`: the Care that the owners take of each."""
        self._master, self._care = master, care
        self._changing = threading.Lock()
        self._entering = threading.Lock()   # held while a place comes into the set, or none may
        self._is_closed = False             # none comes any more
        self._places = {}                   # id -> Place, by id
        self._put(*[Place(attachment, care) for attachment in master.list_attachments()])

    def find(self, repository):
        """The Place that holds this repository now, or None."""
        place = self._places.get(repository.id)
        return place if place is not None and place.repository is repository else None

    def find_by_id(self, number):
        """The Place of a work repository's id, or None."""
        return self._places.get(number)

    def list_all(self):
        """The attached repositories by id."""
        return list(self._places.values())

    @property
    def is_single(self):
        """Whether one work repository is attached."""
        return len(self._places) == 1

    def list_open(self):
        """The repositories that are open now, by id."""
        return [repository for repository in (place.repository for place in self.list_all())
                if repository is not None]

    def _named(self, name):
        """The Place of a name; of the lowest id when it is None. NotFound."""
        for place in self.list_all():
            if name in (None, place.attachment.name):
                return place
        raise NotFound("no work repository %s is attached" % (name or "at all"))

    def get(self, name):
        """The repository of a name; of the lowest id when it is None. NotFound, RepositoryError."""
        return self._named(name).get_usable()

    def of_session(self, session):
        """The repository that a session's number tells. NotFound, RepositoryError."""
        place = self._places.get(session % 1000)
        if place is None:
            raise NotFound("no session %d: no work repository of id %d is attached"
                           % (session, session % 1000))
        return place.get_usable()

    def with_scenario(self, name, version, repository=None):
        """The repository that is named or, without a name, the attached one of the lowest id that
        has a scenario. NotFound, RepositoryError."""
        places = [self._named(repository)] if repository else self.list_all()
        if len(places) == 1:            # nothing is read
            return places[0].get_usable()
        for place in places:
            candidate = place.get_usable()
            if candidate.db.read(candidate.scenarios.has, name, version):
                return candidate
        is_known = any(candidate.db.read(candidate.scenarios.has, name, "-1")
                       for candidate in map(Place.get_usable, places))
        raise NotFound("no attached repository has %s"
                       % ("version %s of scenario %s" % (version, name) if is_known
                          else "a scenario " + name))

    def with_schedule(self, name, repository):
        """The repository that is named or, without a name, has this schedule."""
        if repository is not None:
            return self.get(repository)
        places = self.list_all()
        for place in places:
            candidate = place.get_usable()
            if len(places) == 1 or candidate.db.read(candidate.schedules.find, name) is not None:
                return candidate
        raise NotFound("no attached repository has a schedule %s" % name)

    def readable(self, name=None):
        """Yields the repositories, or the named one; at the end raises what could not be used."""
        trouble = None
        for place in self.list_all() if name is None else [self._named(name)]:
            try:
                yield place.get_usable()
            except (Conflict, RepositoryError) as error:
                trouble = error
        if trouble:
            raise trouble

    # -- the set of them ---------------------------------------------------------------

    def attach_all(self):
        """Starts the owner of every repository. One that cannot be opened or written goes on
        alone; one that is only large is waited for."""
        until = self._care.clock.monotonic() + WRITE_S
        self.start_all()
        for place in self.list_all():
            while not place.wait_settled(0.05) \
                    and (self._care.clock.monotonic() < until or not place.reason):
                pass

    def start_all(self):
        """Starts the owners that are not there yet."""
        for place in self.list_all():
            with contextlib.suppress(Busy):         # the next time
                place.start()

    def _put(self, *added, without=()):
        """Another set: with these places, without those of these ids."""
        places = {number: place for number, place in self._places.items() if number not in without}
        places.update((place.attachment.id, place) for place in added)
        self._places = dict(sorted(places.items()))

    def _enter(self, place):
        """Takes a place into the set and starts its owner. Busy, Stopping: then it is not there."""
        if self._is_closed:
            raise Stopping("the agent is stopping and attaches nothing")
        self._put(place)                # first: its owner looks for it there
        try:
            place.start()
        except Busy:
            self._put(without={place.attachment.id})
            raise

    def follow_master(self):
        """Another agent on this master may have attached or detached repositories, also another
        one in place of one. AgentError: the first trouble, after all that could be done."""
        if not self._changing.acquire(blocking=False):
            return                      # the next time
        trouble = None
        try:
            attached = {attachment.id: attachment for attachment in self._master.list_attachments()}
            for number, place in list(self._places.items()):
                if attached.get(number) != place.attachment:
                    try:
                        place.detach(functools.partial(self._put, without={number}))
                    except Conflict:    # when its sessions have ended
                        pass
                    except AgentError as error:
                        trouble = trouble or error
            for number in set(attached) - set(self._places):
                with self._entering:
                    self._enter(Place(attached[number], self._care))
        finally:
            self._changing.release()
        if trouble:
            raise trouble

    def attach(self, name, path, is_creating):
        """Attaches a work repository -> its id, also when it cannot be used by then.

        Exists, NotFound, Busy, Conflict, Stopping, RepositoryError: it is not attached.
        """
        path = os.path.join(os.path.dirname(self._master.path), path)
        with self._changing:
            attached = self._list_attached()
            if name in (a.name for a in attached):
                raise Exists("a work repository %s is attached" % name)
            if any(os.path.exists(path) and os.path.exists(a.path)
                   and os.path.samefile(a.path, path) for a in attached):
                raise Exists("%s is attached already" % path)
            if is_creating:
                repository = self._create_work(name, path, attached)
            elif os.path.exists(path):
                repository = self._care.open(Attachment(None, name, path, None))
            else:
                raise NotFound("%s does not exist; -CREATE makes it" % path)
            try:
                if repository.db.uuid in (a.uuid for a in attached):
                    raise Conflict("%s is a copy of a work repository that is attached: both would "
                                   "run the same sessions" % path)
                place = self._take_in(repository, name, path)
            except AgentError:
                repository.db.close()
                if is_creating:
                    os.unlink(path)
                raise
        place.wait_settled()
        return place.attachment.id

    def _list_attached(self):
        """The Attachments in the master, and those that are gone from there but still open here."""
        attached = self._master.list_attachments()
        numbers = [attachment.id for attachment in attached]
        return attached + [place.attachment for place in self.list_all()
                           if place.attachment.id not in numbers]

    def _take_in(self, repository, name, path):
        """Notes an open repository in the master and takes it into the set -> its Place."""
        with self._entering:
            if self._is_closed:
                raise Stopping("the agent is stopping and attaches nothing")
            if repository.id in self._places:
                raise Exists("a work repository of id %d is attached" % repository.id)
            place = Place(self._master.attach_as(repository.id, name, path, repository.db.uuid),
                          self._care, repository)
            try:
                self._enter(place)
            except AgentError:
                self._master.detach(repository.id)
                raise
        return place

    def _create_work(self, name, path, attached):
        """Makes a work repository of the lowest free id -> it, open. Busy, Exists,
        RepositoryError."""
        used = [attachment.id for attachment in attached]
        number = next((n for n in range(1, MAX_REPOSITORIES + 1) if n not in used), None)
        if number is None:
            raise Busy("a master has at most %d work repositories" % MAX_REPOSITORIES)
        try:
            return self._care.open(Attachment(number, name, path, None), is_creating=True)
        except FileExistsError:
            raise Exists("%s exists; ATTACH it without -CREATE" % path) from None
        except OSError as error:
            raise RepositoryError("%s cannot be made: %s" % (path, error.strerror)) from None

    def detach(self, name):
        """Detaches a work repository. NotFound; Conflict while it has open sessions."""
        def leave():
            self._master.detach(place.attachment.id)
            self._put(without={place.attachment.id})
        with self._changing:
            place = self._named(name)
            place.detach(leave)

    def close(self):
        """Closes the repositories and ends their owners; what is waiting is written down first."""
        # who attaches or detaches now may wait long for a locked file: that ends with the file
        has_waited = self._changing.acquire(timeout=TERM_S)
        try:
            with self._entering:
                self._is_closed = True
            for place in self.list_all():
                place.end()
        finally:
            if has_waited:
                self._changing.release()
