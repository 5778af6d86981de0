"""A load plan under way, as a tree in memory: what has been reached of it, and what is to do next.

Pure: no clock, no thread, no file. What has happened is told to it (a session has ended, values
have been taken down, a time has come, the plan is to stop); advance() then says what follows, as
NodeBegin, NodeEnd and so on, which are rows of the repository. A tree that is made again of these
rows goes on where they end: so a crash between any two of them loses and doubles nothing.

A node begins once an attempt. What a composite node reached in an attempt has a higher `run` than
the attempt itself; what is left of an earlier one, and still counts, has a lower one, but none
under its `since`.
"""
import collections
import heapq
import itertools
import json

from ..base.vocabulary import DONE, ERROR, RUNNING, STOPPED, WARNING
from ..store.plans import NodeBegin, NodeEnd, NodeNote, ScopeNote, ValuesNote, VariablesNote

MAX_OPEN = 1000         # nodes of a plan that are open at once; a composite may always have one
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


class PlanTree:
    """The nodes of a plan that were reached, and what follows from what happens to them.

    `values` are the plan's variables. Times are monotonic seconds.
    """

    def __init__(self, plan, values, last_run=0):
        self._plan, self._run = plan, last_run
        self.scope = Scope(None, values)
        self.root, self.halt = None, None       # `halt`: the plan is ended, as (status, message)
        self._now = 0.0
        self._todo, self._ready, self._starved = (collections.deque() for _ in range(3))
        self._changes, self._stops, self._questions = [], [], []
        self._children = {}             # number of a session -> the NodeState that waits for it
        self._attempts = {}             # place -> how many there were
        self._open = 0
        self._times, self._order = [], itertools.count()   # heap of (when, order, node, its run)

    # -- what there is -----------------------------------------------------------------

    @property
    def is_over(self):
        """Whether nothing is open, and nothing is to come."""
        return self.root is None or not self.root.is_open

    @property
    def waits_for(self):
        """The numbers of the sessions whose end it waits for."""
        return list(self._children)

    @property
    def has_questions(self):
        """Whether values or branches are to be found out."""
        return bool(self._questions)

    def find(self, number):
        """The NodeState that waits for the end of a session."""
        return self._children[number]

    def tell_halt(self, node):
        """Why a node is being ended, in words."""
        return self.halt[1] if self.halt is not None else next(
            each.halt for each in line_of(node) if each.halt)

    def find_time(self):
        """When a time-out or an attempt is due next, or None."""
        while self._times and not self._is_timed(*self._times[0][2:]):
            heapq.heappop(self._times)
        return self._times[0][0] if self._times else None

    @staticmethod
    def _is_timed(node, run):
        return node.run == run and (node.status == PAUSED or node.until is not None)

    # -- what happens ------------------------------------------------------------------

    def begin(self, now):
        """The plan begins; or a RESTART goes on where it failed; or an open one goes on."""
        self._now = now
        if self.root is None:
            if self._plan.enabled:
                self.root = NodeState(self._plan, "1", None, 0, self.scope)
                self._start(self.root, True)
        elif not self.root.is_open and not self.root.is_well:
            self.root.tries = 1
            self._start(self.root, False)

    def end_child(self, number, status, message, values, is_cut, now):
        """A session has ended. `values` are its variables; `is_cut`: SHUTDOWN has ended it."""
        self._now = now
        node = self._children.pop(number, None)
        if node is None:
            return
        message = "session %d: %s%s" % (number, status, message and ": " + message)
        if status in WELL:
            fault = self._take_back(node, values, number)
            if fault:
                self._settle(node, ERROR, fault)
            else:
                self._end(node, status, message if status == WARNING else "")
        elif is_cut and status == STOPPED and not self._find_halt(node):
            self._start(node, False)
        else:
            self._settle(node, status, message)

    def take(self, node, items, now):
        """The values of a for_each have been taken down, or which branch of a case fits."""
        self._now = now
        if node.status == RUNNING:
            node.open -= 1
            if node.plan.kind == "case":
                node.choice = items
            else:
                node.items = items
                self._changes.append(ValuesNote(node.place, items))
            self._todo.append(node)

    def fail(self, node, message, now):
        """What a node needs cannot be had: its values, the session that it is to start."""
        self._now = now
        if node.plan.kind == "run":
            node.status = RUNNING
        else:
            node.open -= 1
        self._settle(node, ERROR, message)

    def begun(self, node, number, now):
        """A run has its session, whose end it waits for."""
        self._now = now
        node.status, node.child = RUNNING, number
        self._children[number] = node
        if self._find_halt(node):
            self._stops.append(node)

    def stop(self, status, message, now):
        """The plan ends so: nothing begins any more, what runs is to be stopped."""
        self._now = now
        self.halt = status, message
        if self.root is not None and self.root.is_open:
            self._halt_below(self.root)

    def call(self, now):
        """The times that have come by now."""
        self._now = now
        while self._times and self._times[0][0] <= now:
            when, _, node, run = heapq.heappop(self._times)
            if not self._is_timed(node, run):
                continue
            if node.status == PAUSED:
                self._start(node, False)
            elif node.until is not None and node.until <= when:
                node.until = None
                node.halt = "time-out of the node after %g s" % node.plan.timeout_s
                self._halt_below(node)

    # -- what follows ------------------------------------------------------------------

    def advance(self):
        """What follows -> (what to record, in its order; NodeStates of runs that are to begin, of
        those whose session is to be stopped, of those that ask for their values or branch)."""
        while self._todo or self._starved and self._open < MAX_OPEN:
            node = self._todo.popleft() if self._todo else self._starved.popleft()
            self._look(node)
        ready = [node for node in self._ready if node.status == READY]
        self._ready.clear()
        answer = self._changes, ready, self._stops, self._questions
        self._changes, self._stops, self._questions = [], [], []
        return answer

    def row_of(self, node):
        """The NodeBegin of its newest attempt."""
        return NodeBegin(node.run, node.place, node.since, node.first, node.plan.kind,
                         node.plan.name or "", node.value, node.attempt, node.tries,
                         tell_scope(node))

    def _find_halt(self, node):
        """Whether a node is being ended, itself or with one above."""
        return self.halt is not None or any(each.halt for each in line_of(node))

    def _start(self, node, is_anew):
        """An attempt of a node begins; `is_anew`: nothing of an earlier one counts."""
        plan = node.plan
        self._run += 1
        node.run, node.attempt = self._run, self._attempts.get(node.place, 0) + 1
        self._attempts[node.place] = node.attempt
        if not node.is_open:
            self._count(node, 1)
        node.status, node.message, node.halt, node.is_passed = RUNNING, "", "", False
        is_all, node.is_reopened = plan.restart == "all" and not node.is_reopened, False
        if is_anew or node.since is None or is_all:
            node.since, node.first, node.child, node.children = node.run, 0, None, {}
            for name in [name for name in node.scope.own if node.scope.owner is node]:
                if not is_loop_variable(node, name):
                    del node.scope.own[name]
        node.reset()
        node.choice = node.until = node.due = None
        if plan.timeout_s is not None:
            node.until = self._now + plan.timeout_s
            heapq.heappush(self._times, (node.until, next(self._order), node, node.run))
        if plan.kind == "run":
            node.status = READY
            self._ready.append(node)
            return
        self._changes.append(self.row_of(node))
        self._todo.append(node)
        if plan.kind == "case" or plan.kind == "for_each" and node.items is None:
            node.open += 1
            self._questions.append(node)

    def _count(self, node, count):
        """A node becomes open, or has ended."""
        self._open += count
        if node.above is not None:
            node.above.open += count

    def _begin_child(self, node, index):
        """Begins a child, for the first time or again; one that is not enabled is passed over ->
        whether it has begun."""
        plan = node.below(index)
        if plan is None or not plan.enabled:
            return False
        child = node.handler if index == HANDLER else node.children.get(index)
        if child is None:
            child = self._make(node, index, plan)
        child.tries = 1
        self._start(child, index == HANDLER or child.status is None)
        return True

    @staticmethod
    def _make(node, index, plan):
        """The NodeState of a child that has not been reached before."""
        child = NodeState(plan, child_place(node, index), node, index, node.scope, node.words)
        kind = node.plan.kind
        if kind in ("parallel", "for_each") and index != HANDLER:
            own = {}
            if kind == "for_each":
                own = {node.plan.body.variable: node.items[index]}
                child.words += ("%s=%s" % (node.plan.body.variable, node.items[index]),)
            child.scope = Scope(node.scope, own, child)
        if index == HANDLER:
            node.handler = child
        else:
            node.children[index] = child
        return child

    # -- the kinds ---------------------------------------------------------------------

    def _look(self, node):
        """What a composite node does next."""
        if node.status != RUNNING:
            return
        if self._children.get(node.child) is node:
            return
        if self._find_halt(node):
            if not node.open:
                self._settle(node, STOPPED, "")
        elif node.handler is not None and node.handler.run > node.run:
            if not node.handler.is_open:
                self._end_handled(node, node.handler)
        elif node.plan.kind == "serial":
            self._look_serial(node)
        elif node.plan.kind == "case":
            self._look_case(node)
        elif node.plan.kind != "run" and not (node.plan.kind == "for_each" and node.items is None):
            self._look_parallel(node)

    def _look_serial(self, node):
        count = len(node.plan.body.nodes)
        while node.next < count:
            child = node.children.get(node.next)
            if child is not None and child.is_open:
                return
            if child is not None and child.is_well:
                self._note_warning(node, child)
            elif child is not None and child.run > node.run:
                self._settle(node, ERROR, child.tell())
                return
            elif self._begin_child(node, node.next):
                return
            node.next += 1
        self._end(node, WARNING if node.warning else DONE, node.warning)

    def _look_case(self, node):
        if node.choice is None:
            return
        child = node.children.get(node.choice)
        if child is not None and child.is_open:
            return
        if child is not None and child.is_well:
            self._note_warning(node, child)
        elif child is not None and child.run > node.run:
            self._settle(node, ERROR, child.tell())
            return
        elif self._begin_child(node, node.choice):
            return
        self._end(node, WARNING if node.warning else DONE, node.warning)

    def _look_parallel(self, node):
        body = node.plan.body
        is_loop = node.plan.kind == "for_each"
        count = len(node.items if is_loop else body.nodes)
        limit = (body.parallel if is_loop else body.limit) or count
        while node.next < count and node.open < limit and node.errors <= body.max_errors:
            if self._open >= MAX_OPEN and node.open:
                self._starved.append(node)
                return
            child = node.children.get(node.next)
            if child is not None and child.is_well:
                self._note_warning(node, child)
            elif child is None or child.run < node.run:
                self._begin_child(node, node.next)
            node.next += 1
        if node.open or node.next < count and node.errors <= body.max_errors:
            return
        if node.errors:
            node.cause = "%d of %d failed, the last: %s" % (node.errors, count, node.cause)
        if node.errors > body.max_errors:
            self._settle(node, ERROR, node.cause)
        else:
            text = node.cause or node.warning
            self._end(node, WARNING if text else DONE, text)

    @staticmethod
    def _note_warning(node, child):
        if child.status != DONE:
            node.warning = child.tell()

    # -- ends --------------------------------------------------------------------------

    def _settle(self, node, status, message):
        """An attempt of a node has failed, or was ended: another one follows, or its exception, or
        it ends."""
        above = node.above
        if self.halt is not None or above is not None and self._find_halt(above):
            self._end(node, status, message)
            return
        if node.halt:                   # its own time-out
            status, message, node.halt = ERROR, node.halt, ""
        node.until = None
        if node.tries < node.plan.attempts:
            node.tries += 1
            node.status, delay_s = PAUSED, node.plan.retry_delay_s
            node.due = self._now + delay_s
            text = "%s; attempt %d of %d follows" % (message, node.tries, node.plan.attempts)
            self._changes.append(NodeEnd(node.run, status, text, delay_s))
            heapq.heappush(self._times, (node.due, next(self._order), node, node.run))
            return
        handler = node.plan.exception
        if handler is not None and handler.enabled:
            node.message = message
            self._changes.append(NodeNote(node.run, message))
            self._begin_child(node, HANDLER)
            return
        if handler is not None and node.plan.on_exception == "ignore":
            status = WARNING
        self._end(node, status, message)

    def _end_handled(self, node, handler):
        """The exception of a node is over."""
        if not handler.is_well:
            self._end(node, ERROR, "%s; its exception failed, too: %s" % (node.message,
                                                                          handler.tell()))
        else:
            self._end(node, WARNING if node.plan.on_exception == "ignore" else ERROR, node.message)

    def _end(self, node, status, message):
        """A node ends."""
        was_reached = node.status != READY
        node.status, node.message, node.until, node.due = status, message, None, None
        if was_reached:
            self._changes.append(NodeEnd(node.run, status, message, None))
        self._count(node, -1)
        above = node.above
        if above is None:
            return
        if status in (ERROR, STOPPED) and node.index != HANDLER:
            above.errors += 1
            above.cause = node.tell()
        elif status == WARNING and node.index != HANDLER:
            above.warning = node.tell()
        self._todo.append(above)

    def _take_back(self, node, values, number):
        """Takes the `returns` of a run -> why that cannot be, or nothing."""
        returns = node.plan.body.returns
        if not returns:
            return ""
        missing = [source for source in returns if source not in values]
        if missing:
            return "session %d has no variable %s to be taken back" % (number, missing[0])
        scope = node.scope
        scope.own.update((target, values[source]) for source, target in returns.items())
        if scope.owner is None:
            self._changes.append(VariablesNote(dict(scope.own)))
        else:
            self._changes.append(ScopeNote(scope.owner.run, tell_scope(scope.owner)))
        return ""

    def _halt_below(self, node):
        """What is open of a node ends: sessions are stopped, what waits does not begin."""
        to_end = [node]
        while to_end:
            each = to_end.pop()
            if each.status in (READY, PAUSED):
                if each is not node or self.halt is not None:
                    self._end(each, STOPPED, each.message)
                else:
                    self._settle(each, STOPPED, each.message)
            elif each.status == RUNNING:
                if self._children.get(each.child) is each:
                    self._stops.append(each)
                elif each.plan.kind in ("case", "for_each") and each.open:
                    self._stops.append(each)
                self._todo.append(each)
                to_end += each.children.values()
                if each.handler is not None:
                    to_end.append(each.handler)


    # -- rows of the repository --------------------------------------------------------

    def restore(self, rows, items, shift_s):
        """Makes the tree of NodeRows, in the order of their runs, and {place: values of a
        for_each}. Their times and so many seconds are monotonic ones. What the definition has no
        place for does not count."""
        self._attempts.update((row.place, row.attempt) for row in rows)
        newest = {row.place: row for row in rows if not row.is_void}
        states = {}
        for place in sorted(newest, key=lambda place: place.count(".")):
            row = newest[place]
            node = self._place(row, states)
            if node is not None:
                states[place] = node
                node.run, node.since, node.first, node.attempt, node.tries = (
                    row.run, row.since, row.first, row.attempt, row.tries)
                node.status, node.message, node.child = row.status, row.message, row.child
                node.is_passed, node.is_reopened = row.is_passed, row.is_reopened
                node.items = items.get(place)
                if node.scope.owner is node and row.scope:
                    node.scope.own.update(json.loads(row.scope))
        self.root = states.get("1")
        for place, node in states.items():
            self._resume(node, newest[place], shift_s)

    def _place(self, row, states):
        """The NodeState of a NodeRow in its tree, or None."""
        if row.place == "1":
            is_same = self._plan.kind == row.kind
            return NodeState(self._plan, "1", None, 0, self.scope) if is_same else None
        place, _, word = row.place.rpartition(".")
        above = states.get(place)
        if above is None or row.run < above.since:
            return None
        index = find_index(above, word)
        if above.plan.kind == "for_each" and index != HANDLER and (
                above.items is None or index >= len(above.items)):
            return None
        plan = above.below(index)
        if plan is None or plan.kind != row.kind:
            return None
        return self._make(above, index, plan)

    def _resume(self, node, row, shift_s):
        """What a node of a tree that was restored counts, and waits for."""
        above, plan = node.above, node.plan
        if row.due is not None:
            node.status, node.due = PAUSED, row.due + shift_s
            heapq.heappush(self._times, (node.due, next(self._order), node, node.run))
        if node.is_open:
            self._count(node, 1)
        elif above is not None and node.run > above.run and not node.is_well \
                and node.index != HANDLER:
            above.errors += 1
            above.cause = node.tell()
        if node.status != RUNNING:
            return
        if node.handler is not None and node.handler.run > node.run:
            self._todo.append(node)
            return
        if plan.timeout_s is not None:
            node.until = row.begun + shift_s + plan.timeout_s
            heapq.heappush(self._times, (node.until, next(self._order), node, node.run))
        if plan.kind == "run":
            self._children[node.child] = node
            return
        self._todo.append(node)
        node.next = node.first
        if plan.kind == "case":
            node.choice = next((index for index, child in node.children.items()
                                if child.run > node.run), None)
        if plan.kind == "case" and node.choice is None \
                or plan.kind == "for_each" and node.items is None:
            node.open += 1
            self._questions.append(node)


def is_loop_variable(node, name):
    """Whether a variable of a branch is that of its for_each."""
    plan = node.above.plan
    return plan.kind == "for_each" and plan.body.variable == name


def tell_scope(node):
    """What a branch has taken back, as JSON, or None."""
    if node.scope.owner is not node:
        return None
    own = {name: value for name, value in node.scope.own.items()
           if not is_loop_variable(node, name)}
    return json.dumps(own) if own else None


def line_of(node):
    """A node, and those above it."""
    while node is not None:
        yield node
        node = node.above
