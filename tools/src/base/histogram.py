"""Counts of what took how long, for METRICS."""
import bisect


class Histogram:
    """How many values were at most each of `bounds` (ascending), and their sum. One thread at a
    time adds, any reads."""

    def __init__(self, bounds):
        self.bounds, self.sum = bounds, 0.0
        self._counts = [0] * (len(bounds) + 1)      # the last: of what is above all bounds

    def add(self, value):
        """Counts a value."""
        self.sum += value
        self._counts[bisect.bisect_left(self.bounds, value)] += 1

    def read(self):
        """How many were at most each of the bounds, and how many there were in all."""
        counts = list(self._counts)
        return [sum(counts[:index + 1]) for index in range(len(counts))]
