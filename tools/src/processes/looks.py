"""Looks at the process table, shared by all who want one at the same time.

A session that is stopped looks for what it has started, and reads of each process who it is. When
all sessions are stopped at once they would read all of it for each of them: so whoever waits while
another looks is served by the look that follows, together with all who wait then.
"""
import os
import threading

from .alive import list_pids, own_line, read_marker, read_owner, read_process, session_of_marker

MAX_LISTINGS = 20       # of the process table in one look, while there is somebody new


class Looks:
    """Finds the members of trees; no two looks at the same time. `users`: the numbers of those
    whose processes they may be, where nothing else tells: this one's, unless others are named."""

    def __init__(self, users=()):
        self.users = frozenset(users or [os.geteuid()])
        self._changed = threading.Condition()   # guards all that follows
        self._is_looking = False
        self._searches = []                     # that wait for the next look

    def find(self, search):
        """Fills the `members` of a Search: {pid: ProcessEntry} of those that live now. OSError."""
        with self._changed:
            self._searches.append(search)
            while not search.is_over and self._is_looking:
                self._changed.wait(1.0)     # who was to wake it may have had no memory to
            searches, is_served = self._searches, search.is_over
            if not is_served:               # then it looks for all who wait
                self._searches, self._is_looking = [], True
        if not is_served:
            is_done = False
            try:
                look(searches)
                is_done = True
            finally:
                with self._changed:
                    for each in searches:
                        each.end(is_done)
                    self._is_looking = False
                    self._changed.notify_all()
        if not search.is_done:              # who looked for it was told why
            raise OSError("the process table cannot be read now")
        return search.members


class Search:
    """What one tree looks for, and has found."""

    def __init__(self, sessions, roots, on_found, users):
        self.sessions = sessions            # `uuid/session`
        self.users = users                  # as of Looks
        self.roots = roots                  # pid -> start time: members if they are these still
        self.members = {}                   # pid -> ProcessEntry
        self.is_done = self.is_over = False     # over: done, or failed
        self._on_found = on_found           # on_found(entry), at once

    def end(self, is_done):
        """The look is over: all were found, or it has failed."""
        self.is_done, self.is_over = is_done, True

    def add(self, entry):
        """A member, unless it is one already -> whether it is new."""
        if entry.pid in self.members:
            return False
        self.members[entry.pid] = entry
        self._on_found(entry)
        return True


def look(searches):
    """One look for all of these.

    The process table is listed until it has nobody new, and the newest are looked at first. So a
    chain in which each link forks and ends is in each listing, and is met while it lives.
    """
    listing, by_session, by_pid = Listing(), {}, {}
    for search in searches:
        for session in search.sessions:
            by_session.setdefault(session, []).append(search)
        for pid in search.roots:
            by_pid.setdefault(pid, []).append(search)
    for _ in range(MAX_LISTINGS):
        new = listing.list_new()
        if not new:
            break
        for pid in new:
            entry = listing.add(pid)
            if entry is None:
                continue
            for search in by_pid.get(pid, ()):
                if search.roots[pid] == entry.started:
                    search.add(entry)
            marker = read_marker(pid)
            for search in by_session.get(session_of_marker(marker), ()) if marker else ():
                search.add(entry)
        for search in searches:
            listing.join(search)


class Listing:
    """The process table as far as it was read, and who belongs to whom in it."""

    def __init__(self):
        self._spared = own_line()
        self._entries = {}                                  # None for what is gone
        self._children, self._groups, self._os_sessions = {}, {}, {}    # number -> [entry]

    def list_new(self):
        """The pids that were not looked at yet, the newest first."""
        return [pid for pid in reversed(list_pids())
                if pid not in self._entries and pid not in self._spared]

    def add(self, pid):
        """Reads a process -> its entry, or None: it is gone."""
        entry = self._entries[pid] = read_process(pid)
        if entry is not None:
            self._children.setdefault(entry.parent, []).append(entry)
            self._groups.setdefault(entry.group, []).append(entry)
            self._os_sessions.setdefault(entry.os_session, []).append(entry)
        return entry

    def _is_gone(self, pid):
        return self._entries.get(pid) is None and pid not in self._spared

    def join(self, search):
        """Adds to the members of a search whoever belongs to one of them."""
        members = search.members
        fresh = list(members.values())
        for leader in filter(self._is_gone, search.roots):
            fresh += [entry for entry in self._os_sessions.get(leader, ()) if (
                read_owner(entry.pid) in search.users or entry.parent == os.getpid())
                and search.add(entry)]
        while fresh:
            member = fresh.pop()
            number = member.os_session
            near = self._children.get(member.pid, []) + self._groups.get(member.pid, [])
            # an OS session whose leader is gone keeps its number while somebody is in it
            if number in members or self._is_gone(number):
                near = near + self._os_sessions.get(number, [])
            fresh += filter(search.add, near)
