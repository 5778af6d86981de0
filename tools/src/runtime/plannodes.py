"""The nodes of a load plan that were reached: what is known of each, and what it does next.

What a composite node does is decided by find_decision(), of what its children are.
"""
import json

from typing import NamedTuple

from ..base.vocabulary import DONE, ERROR, RUNNING, STOPPED, WARNING

READY, PAUSED = "ready", "paused"       # in memory alone: before its begin; between two attempts
OPEN_NODES = (READY, RUNNING, PAUSED)
WELL = (DONE, WARNING)
HANDLER = -1            # the place of an exception among the children of its node


class Scope:
    """Variables as a branch of a plan sees them: its own go before those of the scope above."""

    def __init__(self, above, values, owner=None):
        self.above, self.own = above, values
        self.owner = owner              # the NodeState of the branch; None: the plan itself

    def all(self):
        """{name: value} of all that is seen."""
        return dict(self.above.all() if self.above else {}, **self.own)


class NodeState:
    """A node of a plan that was reached; of a for_each, one for each value."""
    __slots__ = ("plan", "place", "above", "index", "scope", "words", "run", "since", "attempt",
                 "tries", "status", "message", "child", "until", "due", "halt", "children",
                 "handler", "first", "next", "open", "errors", "cause", "warning", "items",
                 "choice", "is_passed", "is_reopened")

    def __init__(self, plan, place, above, index, scope, words=()):
        self.plan, self.place, self.above, self.index = plan, place, above, index
        self.scope = scope
        self.words = words              # of the loops around it: day=2015-01-07
        self.run, self.since, self.attempt, self.tries = 0, None, 0, 1
        self.status, self.message, self.child = None, "", None
        self.until = self.due = None    # monotonic seconds: of its time-out, of its next attempt
        self.halt = ""                  # why it is being ended
        self.children, self.handler = {}, None
        self.items, self.choice = None, None    # of a for_each its values; of a case its branch
        self.first = 0                  # of a serial: the child that RESTART -FROM begins with
        self.is_passed = self.is_reopened = False       # as of a NodeRow
        self.reset()

    def reset(self):
        """What is counted anew in each attempt."""
        self.next, self.open, self.errors = self.first, 0, 0
        self.cause = self.warning = ""

    @property
    def value(self):
        """The values of the loops around it, in words."""
        return " ".join(self.words)

    @property
    def is_branch(self):
        """Whether it has variables of its own: below a parallel or for_each."""
        return self.scope.owner is self

    @property
    def is_handling(self):
        """Whether its exception has begun in this attempt."""
        return self.handler is not None and self.handler.run > self.run

    @property
    def is_decided(self):
        """Whether it knows which children it has; a run has none."""
        kind = self.plan.kind
        return kind in ("serial", "parallel") or kind == "case" and self.choice is not None \
            or kind == "for_each" and self.items is not None

    def forget_scope(self):
        """What its branch has taken back does not count any more."""
        if self.is_branch:
            self.scope.own = {name: value for name, value in self.scope.own.items()
                              if is_loop_variable(self, name)}

    # -- its course --------------------------------------------------------------------

    def begin(self, run, attempt, is_anew):
        """An attempt begins; `is_anew`, or where its `restart` says so, nothing of an earlier one
        counts. A run waits for its session to be made."""
        self.run, self.attempt = run, attempt
        self.status = READY if self.plan.kind == "run" else RUNNING
        is_anew = is_anew or self.since is None \
            or self.plan.restart == "all" and not self.is_reopened
        if is_anew:
            self.since, self.first, self.child, self.children = run, 0, None, {}
            self.forget_scope()
        self.message, self.halt, self.is_passed, self.is_reopened = "", "", False, False
        self.choice = self.until = self.due = None
        self.reset()

    def begin_tries(self):
        """Its attempts are counted anew."""
        self.tries = 1

    def limit(self, begun):
        """The time-out of its attempt, which began then -> when that is."""
        self.until = begun + self.plan.timeout_s
        return self.until

    def end_in_time(self):
        """Its time-out has come: what it has under way is to end."""
        self.until, self.halt = None, "time-out of the node after %g s" % self.plan.timeout_s

    def learn(self, answer):
        """It knows the values of its loop, or the branch of its case."""
        self.open -= 1
        if self.plan.kind == "case":
            self.choice = answer
        else:
            self.items = answer

    def wait_for(self, child):
        """A run has its session; None: it could not be made."""
        self.status, self.child = RUNNING, child

    def count(self, count):
        """So many of what it waits for more, or fewer."""
        self.open += count

    def note_end(self, child):
        """A child has ended in this attempt."""
        if child.index == HANDLER:
            return
        if child.status in (ERROR, STOPPED):
            self.errors += 1
            self.cause = child.tell()
        elif child.status == WARNING:
            self.warning = child.tell()

    def pause(self, now):
        """An attempt has failed, another one is to follow."""
        self.halt, self.until = "", None
        self.tries += 1
        self.resume_pause(now + self.plan.retry_delay_s)

    def resume_pause(self, due):
        """Its next attempt is due then."""
        self.status, self.due = PAUSED, due

    def resume_choice(self):
        """A case goes on with the branch that has begun in its attempt."""
        self.choice = next((index for index, child in self.children.items()
                            if child.run > self.run), None)

    def handle(self, message):
        """Its last attempt has failed for this reason; its exception is to run."""
        self.halt, self.until, self.message = "", None, message

    def end(self, status, message):
        """It ends."""
        self.status, self.message, self.halt = status, message, ""
        self.until = self.due = None

    # -- what it is --------------------------------------------------------------------

    @property
    def is_open(self):
        """Whether it has begun, or is about to, and has not ended."""
        return self.status in OPEN_NODES

    @property
    def is_well(self):
        """Whether it ended well, or its failure was passed over."""
        return self.status in WELL or self.is_passed

    @property
    def label(self):
        """What tells it from others, for a message."""
        name = self.plan.name or (self.plan.kind == "run" and self.plan.body.scenario) or ""
        return " ".join(filter(None, (name, self.value))) or "node %s" % self.place

    def tell(self):
        """How it ended, for the message of the node above."""
        return "%s: %s" % (self.label, self.message or self.status)

    def below(self, index):
        """The PlanNode of a child, or None: it has none there."""
        body, kind = self.plan.body, self.plan.kind
        if index == HANDLER:
            return self.plan.exception
        if kind in ("serial", "parallel"):
            return body.nodes[index] if index < len(body.nodes) else None
        if kind == "case":
            nodes = [branch.node for branch in body.branches] + [body.otherwise]
            return nodes[index] if index < len(nodes) else None
        return body.node if kind == "for_each" else None


def make_child(node, index, plan):
    """The NodeState of a child that has not been reached before: a branch of a parallel or for_each
    has variables of its own."""
    child = NodeState(plan, child_place(node, index), node, index, node.scope, node.words)
    kind = node.plan.kind
    if index == HANDLER:
        node.handler = child
        return child
    node.children[index] = child
    if kind in ("parallel", "for_each"):
        own = {}
        if kind == "for_each":
            own = {node.plan.body.variable: node.items[index]}
            child.words += ("%s=%s" % (node.plan.body.variable, node.items[index]),)
        child.scope = Scope(node.scope, own, child)
    return child


def child_place(node, index):
    """The place of a child of a NodeState: 1.2 is the second one below the root."""
    word = str(index + 1)
    if index == HANDLER:
        word = "exception"
    elif node.plan.kind == "case" and index == len(node.plan.body.branches):
        word = "else"
    return "%s.%s" % (node.place, word)


def find_index(node, word):
    """The index of a child by the last word of its place."""
    if word == "exception":
        return HANDLER
    if word == "else":
        return len(node.plan.body.branches) if node.plan.kind == "case" else len(node.children)
    return int(word) - 1


def is_loop_variable(node, name):
    """Whether a variable of a branch is that of its for_each."""
    plan = node.above.plan
    return plan.kind == "for_each" and plan.body.variable == name


def tell_scope(node):
    """What a branch has taken back, as JSON, or None."""
    if not node.is_branch:
        return None
    own = {name: value for name, value in node.scope.own.items()
           if not is_loop_variable(node, name)}
    return json.dumps(own) if own else None


def line_of(node):
    """A node, and those above it."""
    while node is not None:
        yield node
        node = node.above


# -- what a composite node does next ----------------------------------------------------

class Decision(NamedTuple):
    """What a node does: begins the child of this index, or ends, or fails, if `status` is ERROR."""
    index: int = -1
    status: str = ""
    message: str = ""


def find_decision(node):
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
            return Decision(node.next) if node.open < (limit or count) else None
        node.next += 1
    if node.open:
        return None
    text = node.warning
    if node.errors:
        waiting = count - node.next - sum(
            index >= node.next and (child.is_well or child.run >= node.run)
            for index, child in node.children.items())
        text = "%d of %d failed%s, the last: %s" % (
            node.errors, count, ", %d did not begin" % waiting if waiting else "", node.cause)
    if node.errors > body.max_errors:
        return Decision(status=ERROR, message=text)
    return Decision(status=WARNING if text else DONE, message=text)


def is_enabled(node):
    """Whether the next child of a node is there, and not to be passed over."""
    plan = node.below(node.next)
    return plan is not None and plan.enabled


# -- of the rows of a repository ---------------------------------------------------------

def restore_nodes(plan, scope, rows, items):
    """{place: NodeState} of NodeRows in the order of their runs, those above first; `items` has
    the values of loops by their place. What the definition has no place for does not count."""
    newest, nodes = {row.place: row for row in rows if not row.is_void}, {}
    for place in sorted(newest, key=lambda place: place.count(".")):
        row = newest[place]
        node = _place_row(plan, scope, row, nodes)
        if node is None:
            continue
        nodes[place] = node
        node.run, node.since, node.first = row.run, row.since, row.first
        node.tries = row.tries if row.due is None else row.tries + 1
        node.attempt, node.status, node.message, node.child = (
            row.attempt, row.status, row.message, row.child)
        node.is_passed, node.is_reopened = row.is_passed, row.is_reopened
        node.items = items.get(place)
        node.reset()
        if node.is_branch and row.scope:
            node.scope.own.update(json.loads(row.scope))
    return nodes


def _place_row(plan, scope, row, nodes):
    """The NodeState of a NodeRow among those above it, or None."""
    if row.place == "1":
        return NodeState(plan, "1", None, 0, scope) if plan.kind == row.kind else None
    place, _, word = row.place.rpartition(".")
    above = nodes.get(place)
    if above is None or row.run < above.since:
        return None
    index = find_index(above, word)
    if above.plan.kind == "for_each" and index != HANDLER and (
            above.items is None or index >= len(above.items)):
        return None
    child = above.below(index)
    if child is None or child.kind != row.kind:
        return None
    return make_child(above, index, child)
