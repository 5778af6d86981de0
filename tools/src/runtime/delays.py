"""Sessions that could not begin, and what goes wrong while one is served."""
import contextlib

from ..base.vocabulary import LIMIT, LOST
from ..base.errors import LimitFilled, RepositoryError
from ..base.program import Told, log, tell_traceback

FAULT = "", "a fault of the agent, told in its log"


class Delays:
    """Keeps the trouble of one session from the thread that serves it, and in mind why those that
    could not begin did not: the queue has those read again."""

    def __init__(self):
        self._told = Told()
        self._reasons = {}              # number -> (word of what it waits for, text)

    def run(self, session, work):
        """work() of a session -> its value. One that cannot begin is read again from its
        repository, and tried again; one that began and has no end is found by the cleaning."""
        value = None
        try:
            value = work()
        except Exception as error:
            if not session.is_begun:        # noted first: memory may be too short to tell it
                self._reasons[session.number] = FAULT
            with contextlib.suppress(MemoryError):
                self._note(session, error)
        else:
            self._told.is_new(session.number, "")
        if session.is_begun:
            self.forget(session.number)
        return value

    def _note(self, session, error):
        """Why work of a session has failed: in the log, and why it could not begin."""
        is_told = False                     # for all of its repository
        if isinstance(error, RepositoryError):
            trouble, is_told = error.message, bool(session.repository.db.trouble)
            word = LIMIT if isinstance(error, LimitFilled) else LOST
            if not session.is_begun:
                self._reasons[session.number] = word, trouble
        else:
            trouble = session.mask(tell_traceback(error))
        if self._told.is_new(session.number, trouble) and not is_told:
            log.warning("session %d %s: %s", session.number, "is left to the cleaning"
                        if session.is_begun else "does not begin yet", trouble)

    def find(self, number):
        """(word, text) of a session that could not begin, or None."""
        return self._reasons.get(number)

    def forget(self, number):
        """A session has begun, or will not."""
        self._reasons.pop(number, None)
