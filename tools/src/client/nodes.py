"""The nodes of a load plan, as STATUS has them: what they are called, which of them say something.
"""
import collections
import itertools

from ..base.vocabulary import DONE, RUNNING, WARNING

MANY, FEW = 8, 3        # nodes in a row that ended well: more than so many are told by so few


def name_node(row, above=None):
    """What a node is called; `above` is the row of the one around it, whose loops go without
    saying."""
    value = row["value"]
    if above and above["value"] and value.startswith(above["value"]):
        value = value[len(above["value"]):].lstrip()
    attempt = "(attempt %d)" % row["attempt"] if row["attempt"] > 1 else ""
    session = "session %d" % row["session"] if row["session"] else ""
    return " ".join(filter(None, (row["node"], row["name"], row["kind"], value, session, attempt)))


def is_under_way(row):
    """Whether a node is shown while it lasts: a run, for the others last as long as what is below.
    """
    return row["kind"] == "run" and row["status"] == RUNNING


def is_told(row):
    """Whether it is told how a node goes on: a run, one that has a name, one that ended badly."""
    return row["kind"] == "run" or row["name"] or row["status"] not in (RUNNING, DONE, WARNING)


def find_above(place):
    """The place of the node around another one; the root's is empty."""
    return place.rpartition(".")[0]


def list_above(place):
    """Yields the places of all nodes around another one."""
    while place:
        place = find_above(place)
        yield place


def fold_nodes(rows):
    """The rows of nodes, in the order of the plan, as [(row, its depth, its name)]. Of many in
    succession that ended well, with all below them, a few are there, and None for the others."""
    by_place = collections.OrderedDict((row["node"], row) for row in rows)
    loud, children = set(), collections.OrderedDict()   # what is not DONE, and what is around it
    for place, row in by_place.items():
        children.setdefault(find_above(place), []).append(place)
        if row["status"] != DONE:
            loud.update([place], list_above(place))
    folded = {}                                             # place -> how many are told there
    for places in children.values():
        for is_loud, run in itertools.groupby(places, loud.__contains__):
            run = list(run)
            if not is_loud and len(run) > MANY:
                folded.update(dict.fromkeys(run[FEW + 1:], 0))
                folded[run[FEW]] = len(run) - FEW
    lines = []
    for place, row in by_place.items():
        depth = place.count(".") + 1
        if folded.get(place):
            lines.append((None, depth, "... %d more" % folded[place]))
        elif place not in folded and not any(each in folded for each in list_above(place)):
            lines.append((row, depth, name_node(row, by_place.get(find_above(place)))))
    return lines
