"""How often each limit on connections was reached."""
import threading

# name in METRICS -> what was reached
CONNECTION_LIMITS = {
    "connections": "--max-connections", "strangers": "a tenth of it, for who is not known",
    "per_address": "--max-per-address", "files": "the host's open files",
    "threads": "the host's threads", "requests": "--max-requests", "line_bytes": "--max-line",
    "idle": "--idle-timeout", "line": "--line-timeout", "send": "--send-timeout",
    "handshake": "--stranger-timeout, of TLS",
}


class Reached:
    """Counts them, from any thread."""

    def __init__(self):
        self._counts, self._lock = dict.fromkeys(CONNECTION_LIMITS, 0), threading.Lock()

    def count(self, limit):
        """One of CONNECTION_LIMITS was reached once more."""
        with self._lock:
            self._counts[limit] += 1

    def list_counts(self):
        """[(its name, how often)]."""
        return list(self._counts.items())
