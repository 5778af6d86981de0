"""A load plan under way, as a tree in memory: what has been reached of it, and what is to do next.

Pure: no clock, no thread, no file. What has happened is told to it (a session has ended, values
have been taken down, a time has come, the plan is to stop); advance() then says what follows, as
NodeBegin, NodeEnd and so on, which are rows of the repository. A tree that is made again of these
rows goes on where they end: so a crash between any two of them loses and doubles nothing.

A node begins once an attempt. What a composite node reached in an attempt has a higher `run` than
the attempt itself; what is left of an earlier one, and still counts, has a lower one, but none
under its `since`.
"""
from ..base.vocabulary import ERROR, RUNNING, STOPPED, WARNING
from ..store.plans import ValuesNote
from .plannodes import NodeState, PAUSED, WELL, line_of, restore_nodes
from .plansteps import PlanSteps


class PlanTree(PlanSteps):
    """The nodes of a plan that were reached, and what follows from what happens to them.

    `values` are the plan's variables. Times are monotonic seconds.
    """

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
    def has_ready(self):
        """Whether runs wait for room."""
        return bool(self._ready)

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
        """A session has ended. `values` are its variables, None where one has a secret of the plan;
        `is_cut`: SHUTDOWN has ended it."""
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
