"""What follows in a load plan from what has happened: attempts of nodes begin, nodes end."""
import collections

from ..base.vocabulary import ERROR, RUNNING, STOPPED, WARNING
from ..store.plans import NodeBegin, NodeEnd, NodeNote, ScopeNote, VariablesNote
from .plannodes import (HANDLER, PAUSED, READY, Scope, find_decision, line_of, make_child,
                        tell_scope)
from .plantimes import NodeTimes

MAX_OPEN = 1000         # nodes of a plan that are open at once; a composite may always have one


class PlanSteps:
    """The half of a PlanTree that says what is to be recorded and done."""

    def __init__(self, plan, values, last_run=0):
        self._plan, self._run = plan, last_run
        self.scope = Scope(None, values)
        self.root, self.halt = None, None       # `halt`: the plan is ended, as (status, message)
        self._now = 0.0
        self._todo, self._starved = collections.deque(), collections.deque()
        self._ready = collections.OrderedDict()     # NodeStates, each once
        self._changes, self._stops, self._questions = [], [], []
        self._children = {}             # number of a session -> the NodeState that waits for it
        self._attempts = {}             # place -> how many there were
        self._open = 0
        self._times = NodeTimes()

    # -- what follows ------------------------------------------------------------------

    def advance(self, has_room=True):
        """What follows -> (what to record, in its order; NodeStates of runs that are to begin, of
        those whose session is to be stopped, of those that ask for their values or branch). Without
        room for more sessions no run begins."""
        while self._todo or self._starved and self._open < MAX_OPEN:
            node = self._todo.popleft() if self._todo else self._starved.popleft()
            self._look(node)
        ready = [node for node in self._ready if node.status == READY and has_room]
        if has_room:
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
        attempt = self._attempts[node.place] = self._attempts.get(node.place, 0) + 1
        if not node.is_open:
            self._count(node, 1)
        node.begin(self._run, attempt, is_anew)
        if plan.timeout_s is not None:
            self._times.put(node.limit(self._now), node)
        if plan.kind == "run":
            self._ready[node] = True
            return
        self._changes.append(self.row_of(node))
        self._todo.append(node)
        if not node.is_decided:
            self._question(node)

    def _question(self, node):
        """What a node needs to know is to be found out."""
        node.count(1)
        self._questions.append(node)

    def _count(self, node, count):
        """A node becomes open, or has ended."""
        self._open += count
        if node.above is not None:
            node.above.count(count)

    def _begin_child(self, node, index):
        """Begins a child, for the first time or again."""
        child = node.handler if index == HANDLER else node.children.get(index)
        if child is None:
            child = make_child(node, index, node.below(index))
        child.begin_tries()
        self._start(child, index == HANDLER or child.status is None)

    def _look(self, node):
        """What a node does next, once something has changed below it."""
        if node.status != RUNNING or self._children.get(node.child) is node:
            return
        if self._find_halt(node):
            if not node.open:
                self._settle(node, STOPPED, "")
        elif node.is_handling:
            if not node.handler.is_open:
                self._end_handled(node, node.handler)
        elif node.is_decided:
            self._decide(node)

    def _decide(self, node):
        """Does what a composite node decides, as long as it decides anything."""
        while True:
            decision = find_decision(node)
            if decision is None:
                return
            if decision.status == ERROR:
                self._settle(node, ERROR, decision.message)
                return
            if decision.status:
                self._end(node, decision.status, decision.message)
                return
            if self._open >= MAX_OPEN and node.open:
                self._starved.append(node)
                return
            self._begin_child(node, decision.index)

    # -- ends --------------------------------------------------------------------------

    def _settle(self, node, status, message):
        """An attempt of a node has failed, or was ended: another one follows, or its exception, or
        it ends."""
        above = node.above
        if self.halt is not None or above is not None and self._find_halt(above):
            self._end(node, status, message)
            return
        if node.halt:                   # its own time-out
            status, message = ERROR, node.halt
        if node.tries < node.plan.attempts:
            node.pause(self._now)
            text = "%s; attempt %d of %d follows" % (message, node.tries, node.plan.attempts)
            self._changes.append(NodeEnd(node.run, status, text, node.plan.retry_delay_s))
            self._times.put(node.due, node)
            return
        handler = node.plan.exception
        if handler is not None and handler.enabled:
            node.handle(message)
            self._changes.append(NodeNote(node.run, message))
            self._begin_child(node, HANDLER)
            return
        if node.plan.on_exception == "ignore":
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
        node.end(status, message)
        if was_reached:
            self._changes.append(NodeEnd(node.run, status, message, None))
        self._count(node, -1)
        above = node.above
        if above is None:
            return
        above.note_end(node)
        self._todo.append(above)

    def _take_back(self, node, values, number):
        """Takes the `returns` of a run -> why that cannot be, or nothing."""
        returns = node.plan.body.returns
        if not returns:
            return ""
        missing = [source for source in returns if source not in values]
        if missing:
            return "session %d has no variable %s to be taken back" % (number, missing[0])
        hidden = [source for source in returns if values[source] is None]
        if hidden:
            return "returns.%s: would store a secret of session %d" % (hidden[0], number)
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
