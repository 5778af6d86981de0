"""What is counted from the start of the agent on, for METRICS."""
import collections
import threading

from ..base.vocabulary import ENDED
from ..base.histogram import Histogram

DURATION_BOUNDS = (0.1, 1, 10, 60, 300, 1800, 7200, 43200)      # seconds
LATENESS_BOUNDS = (0.01, 0.1, 1, 10, 60, 600, 3600)
MAX_COUNTED = 500       # scenarios that are told apart; further ones are counted together, as ""


class Tally:
    """Sessions that have ended, by scenario; for any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self.totals = dict.fromkeys(ENDED, 0)       # of states
        self._ended = collections.Counter()         # of (scenario, status)
        self._durations = {}                        # scenario -> Histogram
        self.lateness = Histogram(LATENESS_BOUNDS)  # of scheduled sessions: from due to begun

    def add(self, ending):
        """Counts an Ending that is on disk."""
        with self._lock:
            scenario = ending.scenario
            if scenario not in self._durations and len(self._durations) >= MAX_COUNTED:
                scenario = ""
            durations = self._durations.setdefault(scenario, Histogram(DURATION_BOUNDS))
            self.totals[ending.status] += 1
            self._ended[scenario, ending.status] += 1
            if ending.duration_s is not None:
                durations.add(ending.duration_s)
            if ending.late_s is not None:
                self.lateness.add(ending.late_s)

    def list_ended(self):
        """[(scenario, status, how many sessions)] in order."""
        with self._lock:
            return [key + (count,) for key, count in sorted(self._ended.items())]

    def list_durations(self):
        """[(scenario, Histogram of how long its sessions took)] in order."""
        with self._lock:
            return sorted(self._durations.items(), key=lambda item: item[0])
