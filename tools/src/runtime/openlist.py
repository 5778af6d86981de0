"""The sessions that are open in an agent: those that run, those that wait, those of later."""
import threading


class OpenList:
    """What a SessionQueue knows of each of them, for those who look."""

    def __init__(self):
        self._changed = threading.Condition()   # guards all that follows
        self._outstanding = {}          # number that may begin -> (Ticket, repository, since when)
        self.later = Later()
        self._running = {}                      # number -> Session

    def find(self, number):
        """The running Session of a number, or None."""
        return self._running.get(number)

    def has(self, number, repository=None):
        """Whether a session is running (of this repository, if one is given) or outstanding."""
        with self._changed:
            if number in self._running:
                return repository in (None, self._running[number].repository)
            return number in self._outstanding or number in self.later

    def list_running(self):
        """The running Sessions."""
        with self._changed:
            return list(self._running.values())

    def list_waiting(self):
        """(The Tickets of what may begin, monotonic seconds of the oldest's arrival or None)."""
        with self._changed:
            waiting = list(self._outstanding.values())
        return [ticket for ticket, _, _ in waiting], waiting[0][2] if waiting else None

    def counts(self):
        """How many sessions there are: (running, outstanding), those of later among the last."""
        return len(self._running), len(self._outstanding) + len(self.later)


class Later(dict):
    """The sessions that wait for their start time: {number: repository}."""

    def put_off(self, number, repository):
        """Notes a session whose start time is to come; False when it was noted before."""
        is_new = self.get(number) is not repository
        self[number] = repository
        return is_new

    def is_put_off(self, number, repository):
        """Whether a session still waits for its start time."""
        return self.get(number) is repository
