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

from ..base.vocabulary import ERROR, RUNNING, STOPPED, WARNING
from ..store.plans import NodeBegin, NodeEnd, NodeNote, ScopeNote, ValuesNote, VariablesNote
from .plannodes import (HANDLER, NodeState, PAUSED, READY, Scope, WELL, find_decision, line_of,
                        make_child, restore_nodes, tell_scope)
from .plantimes import NodeTimes

MAX_OPEN = 1000         # nodes of a plan that are open at once; a composite may always have one


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
        self._times = NodeTimes()

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
        return self._times.find_next()

    # -- what happens ------------------------------------------------------------------

    def begin(self, now):
        """The plan begins; or a RESTART goes on where it failed; or an open one goes on."""
        self._now = now
        if self.root is None:
            if self._plan.enabled:
                self.root = NodeState(self._plan, "1", None, 0, self.scope)
                self._start(self.root, True)
        elif not self.root.is_open and not self.root.is_well:
            self.root.begin_tries()
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
            node.learn(items)
            if node.plan.kind == "for_each":
                self._changes.append(ValuesNote(node.place, items))
            self._todo.append(node)

    def fail(self, node, message, now):
        """What a node needs cannot be had: its values, the session that it is to start."""
        self._now = now
        if node.plan.kind == "run":
            node.wait_for(node.child)
        else:
            node.count(-1)
        self._settle(node, ERROR, message)

    def begun(self, node, number, now):
        """A run has its session, whose end it waits for."""
        self._now = now
        node.wait_for(number)
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
        for node in self._times.take(now):
            if node.status == PAUSED:
                self._start(node, False)
            else:
                node.end_in_time()
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
        attempt = self._attempts[node.place] = self._attempts.get(node.place, 0) + 1
        if not node.is_open:
            self._count(node, 1)
        node.begin(self._run, attempt, is_anew)
        if plan.timeout_s is not None:
            self._times.put(node.limit(self._now), node)
        if plan.kind == "run":
            self._ready.append(node)
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
        """Goes on with what its rows tell, as restore_nodes() takes them; their times and so many
        seconds are monotonic ones."""
        self._attempts.update((row.place, row.attempt) for row in rows)
        newest = {row.place: row for row in rows}
        nodes = restore_nodes(self._plan, self.scope, rows, items)
        self.root = nodes.get("1")
        for place, node in nodes.items():
            self._resume(node, newest[place], shift_s)

    def _resume(self, node, row, shift_s):
        """What a node of a tree that was restored counts, and waits for."""
        above, plan = node.above, node.plan
        if row.due is not None:
            node.resume_pause(row.due + shift_s)
            self._times.put(node.due, node)
        if node.is_open:
            self._count(node, 1)
        elif above is not None and node.run > above.run and not node.is_well:
            above.note_end(node)
        if node.status != RUNNING:
            return
        if node.is_handling:
            self._todo.append(node)
            return
        if plan.timeout_s is not None:
            self._times.put(node.limit(row.begun + shift_s), node)
        if plan.kind == "run":
            self._children[node.child] = node
            return
        self._todo.append(node)
        if plan.kind == "case":
            node.resume_choice()
        if not node.is_decided:
            self._question(node)
