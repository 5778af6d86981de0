"""Load plans that would come to start themselves, by what an import knows."""
import collections

from ..base.errors import Unreadable


class Circles:
    """Looks for circles among the scenarios of a repository, where no variable decides what starts;
    `find(name, version)` gives their rows, as that of Scenarios."""

    def __init__(self, scenarios, find):
        self._scenarios, self._find = scenarios, find

    def list(self, starts):
        """Yields a circle with a plan of each group of scenario versions that lead to one another:
        [((name, version), path of what starts the next), ..., (its begin again, nothing)]. Then
        those that lead to another version of a plan. `starts` are where the looking begins."""
        graph, plans = self._make_graph(starts)
        groups = group_places(graph)
        covered = set()                    # groups
        for place in plans:
            way = [] if groups[place] in covered else find_way_back(graph, groups, place)
            if way:
                covered.add(groups[place])
                yield way
        versions = collections.Counter(name for name, _ in graph)
        for place in plans:
            way = groups[place] not in covered and versions[place[0]] > 1 and find_way(
                graph, place, lambda other, place=place: other[0] == place[0])
            if way:
                yield way

    def _make_graph(self, starts):
        """({place: {place that it starts and waits for: path of that}}, the places of plans): all
        that can be reached. A place is (name, version)."""
        graph, plans, to_follow = collections.OrderedDict(), [], list(starts)[::-1]
        while to_follow:
            place = to_follow.pop()
            if place in graph:
                continue
            graph[place] = collections.OrderedDict()
            scenario = self._parse(place)
            if scenario is not None and scenario.plan:
                plans.append(place)
            for path, name, version in scenario.list_waited() if scenario else ():
                row = self._find(name, version)
                if row:
                    graph[place].setdefault((name, row["version"]), path)
            to_follow += graph[place]
        return graph, plans

    def _parse(self, place):
        row = self._find(*place)
        try:
            return row and self._scenarios.parse(row["definition"], row["body"])
        except Unreadable:              # it starts nothing
            return None


def group_places(graph):
    """{place: group}: in a group each place leads to each other. In time that grows as the graph
    (Kosaraju's way: the places as their looking ended, then from the last of them back)."""
    order, visited = [], set()
    before = {place: [] for place in graph}
    for start in graph:
        behind = [] if start in visited else [(start, iter(graph[start]))]
        visited.add(start)
        while behind:
            place, following = behind[-1][0], next(behind[-1][1], None)
            if following is None:
                order.append(place)
                behind.pop()
                continue
            before[following].append(place)
            if following not in visited:
                visited.add(following)
                behind.append((following, iter(graph[following])))
    groups = {}
    for start in order[::-1]:
        to_follow = [start]
        while to_follow:
            place = to_follow.pop()
            if place not in groups:
                groups[place] = start
                to_follow += before[place]
    return groups


def find_way_back(graph, groups, start):
    """The shortest way from a place to itself, as find_way()."""
    return find_way(graph, start, lambda place: place == start,
                    lambda place: groups[place] == groups[start])


def find_way(graph, start, is_end, is_near=lambda _: True):
    """The shortest way from a place to an end, over such as are near, as [(place, path), ..., (the
    end, nothing)]; empty: there is none."""
    ways, to_follow = {}, collections.deque([start])    # place -> (the one before it, path)
    while to_follow:
        place = to_follow.popleft()
        for following, path in graph[place].items():
            if following in ways or not is_near(following):
                continue
            ways[following] = place, path
            if is_end(following):
                way = [(following, None)]
                while len(way) == 1 or way[-1][0] != start:
                    way.append(ways[way[-1][0]])
                return way[::-1]
            to_follow.append(following)
    return []
