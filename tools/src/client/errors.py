"""What ends the client, and with which exit status."""

WELL, ENDED_BADLY, USAGE, NO_CONNECTION, REFUSED, WAITED_OUT = 0, 1, 2, 3, 4, 5
INTERRUPTED, OUTPUT_LOST = 130, 141


class ClientError(Exception):
    """What ends the client with its text on stderr and this exit status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def reason_of(error):
    """The text of an OSError without its number."""
    return getattr(error, "strerror", None) or str(error)
