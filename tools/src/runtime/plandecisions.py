"""What a composite node of a load plan does next: one pure function of what its children are."""
from typing import NamedTuple

from ..base.vocabulary import DONE, ERROR, WARNING


class Decision(NamedTuple):
    """What a node does: begins the child of this index, or ends, or fails, if `status` is ERROR."""
    index: int = -1
    status: str = ""
    message: str = ""


def decide(node):
    """The Decision of a composite node that is open and knows its values or its branch, or None: it
    waits for its children. `next` of the node is moved past what is over."""
    kind = node.plan.kind
    if kind == "case":
        node.next = max(node.next, node.choice)
        return decide_serial(node, node.choice + 1)
    if kind == "serial":
        return decide_serial(node, len(node.plan.body.nodes))
    return decide_parallel(node)


def decide_serial(node, count):
    """Of a serial of so many children; a case is one of the branch that it has chosen."""
    while node.next < count:
        child = node.children.get(node.next)
        if child is None or not child.is_open and not child.is_well and child.run < node.run:
            if is_enabled(node):
                return Decision(node.next)
        elif child.is_open:
            return None
        elif not child.is_well:         # in this attempt
            return Decision(status=ERROR, message=child.tell())
        elif child.status != DONE:
            node.warning = child.tell()
        node.next += 1
    return Decision(status=WARNING if node.warning else DONE, message=node.warning)


def decide_parallel(node):
    """Of a parallel or for_each: as many children at once as it may have, until they are all over,
    or too many have failed."""
    body, is_loop = node.plan.body, node.plan.kind == "for_each"
    count = len(node.items if is_loop else body.nodes)
    limit = body.parallel if is_loop else body.limit
    while node.next < count and node.errors <= body.max_errors:
        child = node.children.get(node.next)
        if child is not None and child.is_well:
            if child.status != DONE:
                node.warning = child.tell()
        elif (child is None or child.run < node.run) and is_enabled(node):
            if node.open < (limit or count):
                return Decision(node.next)
            return None
        node.next += 1
    if node.open:
        return None
    text = node.warning
    if node.errors:
        text = "%d of %d failed, the last: %s" % (node.errors, count, node.cause)
    if node.errors > body.max_errors:
        return Decision(status=ERROR, message=text)
    return Decision(status=WARNING if text else DONE, message=text)


def is_enabled(node):
    """Whether the next child of a node is there, and not to be passed over."""
    plan = node.below(node.next)
    return plan is not None and plan.enabled
