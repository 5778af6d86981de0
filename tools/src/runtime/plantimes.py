"""When nodes of a load plan are due: their time-outs, and their next attempts."""
import heapq
import itertools

from .plannodes import PAUSED


class NodeTimes:
    """When time-outs of nodes and their next attempts are due; what was due of an attempt is not,
    once that has ended."""

    def __init__(self):
        self._heap, self._order = [], itertools.count()    # (when, order, node, its run)

    def put(self, when, node):
        """A NodeState is due then, by its `until` or its `due`."""
        heapq.heappush(self._heap, (when, next(self._order), node, node.run))

    def find_next(self):
        """When something is due next, or None."""
        while self._heap and not self._is_due(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now):
        """Yields the NodeStates that are due by now."""
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            if self._is_due(*entry):
                yield entry[2]

    @staticmethod
    def _is_due(when, _, node, run):
        return node.run == run and when == (node.due if node.status == PAUSED else node.until)
