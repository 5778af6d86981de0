"""Load plans that would come to start themselves, by what an import knows."""
from ..base.errors import Unreadable


class Circles:
    """Looks for circles among the scenarios of a repository, where no variable decides what starts;
    `find(name, version)` gives their rows, as that of Scenarios."""

    def __init__(self, scenarios, find):
        self._scenarios, self._find = scenarios, find

    def list(self, starts):
        """Yields the circles that begin at some scenario versions, or further on, each a list of
        [(name, version), path of what starts the next]. Each version is looked at once."""
        visited = set()
        for start in starts:
            way = [[start, ""]]                 # the versions from the start on, where it stands
            behind = [iter(self._list_starts(start))] if start not in visited else []
            visited.add(start)
            while behind:
                path, place = next(behind[-1], (None, None))
                if place is None:
                    behind.pop()
                    way.pop()
                    continue
                way[-1][1] = path
                places = [each[0] for each in way] if place in visited else []
                if place in places:
                    yield [tuple(each) for each in way[places.index(place):]]
                elif place not in visited:
                    visited.add(place)
                    way.append([place, ""])
                    behind.append(iter(self._list_starts(place)))

    def _list_starts(self, place):
        """[(path, (name, version))] of what a scenario version starts and waits for."""
        row = self._find(*place)
        try:
            scenario = row and self._scenarios.parse(row["definition"], row["body"])
        except Unreadable:              # it starts nothing
            scenario = None
        rows = [(path, name, self._find(name, version))
                for path, name, version in (scenario.list_waited() if scenario else ())]
        return [(path, (name, row["version"])) for path, name, row in rows if row]
