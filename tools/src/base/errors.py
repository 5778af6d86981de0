"""What can go wrong, one class for each code that a user is told."""


class AgentError(Exception):
    """What a user is told: a wire code, one line of plain text, and faults with their place."""
    code = "INTERNAL"

    def __init__(self, message, faults=()):
        super().__init__(message)
        self.message = " ".join(str(message).split())
        self.faults = list(faults)      # [(path, reason)]


class BadRequest(AgentError):
    """The request is not of the form that it must have; the message says where."""
    code = "BAD_REQUEST"


class UnknownVerb(AgentError):
    """The first word is no verb."""
    code = "UNKNOWN_VERB"


class NotFound(AgentError):
    """What the request names is not there."""
    code = "NOT_FOUND"


class Exists(AgentError):
    """What the request would make is there already."""
    code = "EXISTS"


class Conflict(AgentError):
    """It is not in a state for this."""
    code = "CONFLICT"


class AuthError(AgentError):
    """The agent does not know who is asking."""
    code = "AUTH"


class Denied(AgentError):
    """Who is asking may not do this."""
    code = "DENIED"


class Busy(AgentError):
    """A limit is reached."""
    code = "BUSY"


class Stopping(AgentError):
    """The agent is stopping and begins nothing new."""
    code = "STOPPING"


class RepositoryError(AgentError):
    """A repository cannot be read or written now."""
    code = "REPOSITORY"


class LimitFilled(RepositoryError):
    """Sessions of other agents fill a limit: who is to begin waits."""


class RepositoryGone(RepositoryError):
    """The file was replaced or detached: what belonged to it can never be written."""


class Unreadable(RepositoryError):
    """What is stored there cannot be read by this version: said of one definition."""


class Changed(Conflict):
    """What a change was made from is another by now: whoever made it looks again."""


class TooLong(AgentError):
    """A line is longer than the limit."""
    code = "TOO_LONG"


class WaitTimeout(AgentError):
    """The waiting, not the session, has timed out."""
    code = "TIMEOUT"


class Internal(AgentError):
    """A fault of the agent itself; the message names what finds it in the agent's log."""


class CannotStart(AgentError):
    """The agent cannot start: one line on stderr, exit code 1."""


class CalendarError(ValueError):
    """A rule or one of its options is wrong: says which part and what would be right."""
