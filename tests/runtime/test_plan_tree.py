"""The tree of a load plan, without an agent: what follows from what, and that a tree made of its rows goes on as the
one that was lost."""
import collections
import itertools
import json
import random

import pytest

import agent as program

pytestmark = pytest.mark.once


def read_plan(node, **variables):
    """The PlanNode of a definition."""
    scenario = {"name": "P", "version": "1", "plan": node, "variables": variables}
    return program.parse_scenario(scenario).plan


class PlanShelf:
    """The rows that a plan has, and sessions that end as `fate` says: fate(place, attempt) -> status. The plan can be
    lost at any moment, and is made again of the rows."""

    def __init__(self, node, fate, variables=None):
        self.plan, self.fate = read_plan(node, **(variables or {})), fate
        self.variables, self.now = dict(variables or {}), 0.0
        self.rows, self.items = {}, {}
        self.sessions, self.numbers = {}, itertools.count(1)       # number -> (place, attempt, status)
        self.began = []                 # (place, attempt) of runs
        self.most = collections.Counter()       # place above -> most runs at once
        self.stopped = []
        self.tree = self.make()

    def make(self, is_restart=False):
        tree = program.PlanTree(self.plan, dict(self.variables), max(self.rows, default=0))
        newest = {}
        for row in sorted(self.rows.values()):
            newest[row.place] = row
        rows = sorted(newest.values())
        if is_restart:
            rows = [row._replace(status="STOPPED" if row.status == "RUNNING" else row.status, due=None) for row in rows]
        tree.restore(rows, dict(self.items), 0.0)
        tree.begin(self.now)
        return tree

    def lose(self):
        """The agent is gone; the next one finds what is on disk."""
        self.tree = self.make()

    def keep(self, change, number=None):
        """Writes a change down."""
        name = type(change).__name__
        if name == "NodeBegin":
            self.rows[change.run] = program.NodeRow(
                change.run, change.place, change.since, change.first, change.kind, change.attempt, change.tries,
                "RUNNING", "", number, self.now, None, change.scope, False, False, False)
        elif name == "NodeEnd":
            row = self.rows[change.run]
            due = None if change.delay_s is None else self.now + change.delay_s
            self.rows[change.run] = row._replace(status=change.status, message=change.message, due=due)
        elif name == "NodeNote":
            self.rows[change.run] = self.rows[change.run]._replace(message=change.message)
        elif name == "ScopeNote":
            self.rows[change.run] = self.rows[change.run]._replace(scope=change.scope)
        elif name == "ValuesNote":
            self.items[change.place] = change.values
        else:
            self.variables = change.values

    def carry_out(self):
        """Does what follows, as the course does."""
        while True:
            changes, ready, stops, questions = self.tree.advance()
            for change in changes:
                self.keep(change)
            for node in ready:
                number = next(self.numbers)
                self.keep(self.tree.row_of(node), number)
                self.sessions[number] = [node.place, node.attempt, "RUNNING"]
                self.began.append((node.place, node.attempt))
                self.tree.begun(node, number, self.now)
            for node in questions:
                source = getattr(node.plan.body, "source", None)
                self.tree.take(node, list(program.expand(source)) if source else self.choose(node), self.now)
            for node in stops:
                if node.child in self.sessions:
                    self.stopped.append(node.child)
                    self.sessions[node.child][2] = "STOPPED"
            if not (changes or ready or questions or stops):
                return
            if len(self.sessions) < 100:
                self.most |= collections.Counter(place.rpartition(".")[0] for place, _, status in self.sessions.values()
                                                 if status == "RUNNING")

    @staticmethod
    def choose(node):
        """The branch of a case of which one is `= x` for the x of its variable."""
        value = node.scope.all()[node.plan.body.variable]
        return next((index for index, branch in enumerate(node.plan.body.branches) if branch.value == value),
                    len(node.plan.body.branches))

    def end_one(self, pick=min):
        """The session that pick() says of those that run ends -> whether any did."""
        running = [number for number in self.tree.waits_for]
        if not running:
            due = self.tree.find_time()
            if due is None:
                return False
            self.now = due
            self.tree.call(due)
            return True
        number = pick(running, key=lambda number: (self.sessions[number][0], number))
        place, attempt, status = self.sessions[number]
        if status == "RUNNING":
            status = self.sessions[number][2] = self.fate(place, attempt)
        self.tree.end_child(number, status, "", {"v": "%s/%d" % (place, attempt)}, False, self.now)
        return True

    def run(self, lose=lambda: False, pick=min):
        """To its end -> {place: status} of the newest rows. It may be lost before what follows is written down, but
        not for ever, and after that."""
        for turn in itertools.count():
            if turn % 2 and lose():
                self.lose()
            self.carry_out()
            if self.tree.is_over:
                return self.states()
            if lose():
                self.lose()
                self.carry_out()
            assert self.end_one(pick)

    def states(self):
        states = {}
        for row in sorted(self.rows.values()):
            states[row.place] = row.status
        return states


def fate_of(**bad):
    """All ends well but places like p1_2 for 1.2: so many times badly."""
    counts = {place[1:].replace("_", "."): count for place, count in bad.items()}
    return lambda place, attempt: "ERROR" if attempt <= counts.get(place, 0) else "DONE"


RUN = {"run": "A"}


# -- what follows ------------------------------------------------------------------------

def test_a_tree_with_nothing_to_do():
    assert PlanShelf(dict(RUN, enabled=False), fate_of()).tree.is_over
    assert PlanShelf({"serial": [dict(RUN, enabled=False)]}, fate_of()).run() == {"1": "DONE"}
    assert PlanShelf({"for_each": {"variable": "v", "in": []}, "do": RUN}, fate_of()).run() == {"1": "DONE"}


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_a_limit(limit):
    shelf = PlanShelf({"for_each": {"variable": "v", "in": list("abcde")}, "parallel": limit, "do": RUN}, fate_of())
    shelf.run(pick=max)
    assert shelf.most["1"] == min(limit, 5) and len(shelf.began) == 5


def test_a_limit_where_some_are_passed_over():
    off = dict(RUN, enabled=False)
    shelf = PlanShelf({"parallel": [off, RUN, off, RUN, RUN, off], "limit": 2}, fate_of())
    assert shelf.run() == {"1": "DONE", "1.2": "DONE", "1.4": "DONE", "1.5": "DONE"} and shelf.most["1"] == 2


def test_attempts_are_counted_anew_from_above():
    """A run has two attempts, its serial two: four in all; at each of the serial's, what ended well stays."""
    shelf = PlanShelf({"serial": [RUN, dict(RUN, attempts=2)], "attempts": 2}, fate_of(p1_2=9))
    assert shelf.run() == {"1": "ERROR", "1.1": "DONE", "1.2": "ERROR"}
    assert shelf.began == [("1.1", 1), ("1.2", 1), ("1.2", 2), ("1.2", 3), ("1.2", 4)]


def test_all_again():
    shelf = PlanShelf({"serial": [RUN, RUN], "attempts": 2, "restart": "all"}, fate_of(p1_2=1))
    assert shelf.run()["1"] == "DONE"
    assert shelf.began == [("1.1", 1), ("1.2", 1), ("1.1", 2), ("1.2", 2)]


def test_an_exception_runs_once_and_last():
    shelf = PlanShelf(dict(RUN, attempts=2, exception=RUN, on_exception="ignore"), fate_of(p1=9))
    assert shelf.run() == {"1": "WARNING", "1.exception": "DONE"}
    assert shelf.began == [("1", 1), ("1", 2), ("1.exception", 1)]


def test_an_exception_of_an_exception():
    shelf = PlanShelf(dict(RUN, exception=dict(RUN, exception=RUN, on_exception="ignore"), on_exception="ignore"),
                  fate_of(p1=9, p1_exception=9))
    assert shelf.run() == {"1": "WARNING", "1.exception": "WARNING", "1.exception.exception": "DONE"}


def test_a_timeout_stops_what_is_open_below():
    shelf = PlanShelf({"parallel": [RUN, {"serial": [RUN, RUN]}, dict(RUN, attempts=2, retry_delay=500)], "timeout": 10,
                   "max_errors": 9}, fate_of(p1_3=1))
    shelf.carry_out()
    shelf.end_one(max)                  # 1.3 fails, and waits for its next attempt
    shelf.carry_out()
    assert shelf.tree.find_time() == 10
    shelf.now = 10.0
    shelf.tree.call(10.0)
    shelf.carry_out()
    assert len(shelf.stopped) == 2 and not shelf.tree.is_over
    assert shelf.run() == {"1": "ERROR", "1.1": "STOPPED", "1.2": "STOPPED", "1.2.1": "STOPPED", "1.3": "STOPPED"}


def test_what_is_stopped_begins_nothing():
    shelf = PlanShelf({"for_each": {"variable": "v", "in": list("abcd")}, "parallel": 2, "do": dict(RUN, exception=RUN)},
                  fate_of())
    shelf.carry_out()
    shelf.tree.stop("STOPPED", "by hand", 0.0)
    assert shelf.run() == {"1": "STOPPED", "1.1": "STOPPED", "1.2": "STOPPED"} and len(shelf.began) == 2


def test_what_branches_take_back_is_theirs():
    node = {"serial": [dict(RUN, returns={"v": "x"}), {"parallel": [dict(RUN, returns={"v": "x"}), RUN]}]}
    shelf = PlanShelf(node, fate_of(), {"x": "0"})
    shelf.run(lose=lambda: True)
    assert shelf.variables["x"] == "1.1/1"
    scopes = {row.place: row.scope for row in shelf.rows.values()}
    assert json.loads(scopes["1.2.1"]) == {"x": "1.2.1/1"} and scopes["1.2.2"] is scopes["1"] is None


def test_a_variable_that_is_not_there():
    shelf = PlanShelf(dict(RUN, returns={"other": "x"}), fate_of(), {"x": "0"})
    assert shelf.run() == {"1": "ERROR"}


def test_a_case_looks_again_at_each_attempt():
    node = {"serial": [{"case": {"variable": "x", "when": [{"operator": "=", "value": "a", "do": RUN}], "else": RUN},
                        "attempts": 2}]}
    shelf = PlanShelf(node, fate_of(p1_1_1=1), {"x": "a"})
    assert shelf.run(lose=lambda: True) == {"1": "DONE", "1.1": "DONE", "1.1.1": "DONE"}


def test_a_restart_of_what_ended_badly():
    shelf = PlanShelf({"parallel": [RUN, RUN, {"serial": [RUN, RUN], "restart": "all"}], "max_errors": 9},
                  fate_of(p1_2=1, p1_3_2=1))
    shelf.plan = shelf.plan._replace(body=shelf.plan.body._replace(max_errors=0))
    shelf.tree = shelf.make()
    assert shelf.run()["1"] == "ERROR"
    shelf.tree = shelf.make(is_restart=True)
    assert set(shelf.run().values()) == {"DONE"}
    assert collections.Counter(place for place, _ in shelf.began) == {"1.1": 1, "1.2": 2, "1.3.1": 2, "1.3.2": 2}


def test_many_at_once_are_bounded():
    """Also where each is composite, and holds up no other."""
    inner = {"parallel": [RUN, RUN]}
    shelf = PlanShelf({"for_each": {"variable": "v", "from": "2000-01-01", "to": "2003-05-31"}, "parallel": 100000,
                   "do": inner}, fate_of())
    shelf.carry_out()
    assert len(shelf.tree.waits_for) <= program.MAX_OPEN * 2
    states = shelf.run()
    assert len(states) == 1 + 3 * 1247 and set(states.values()) == {"DONE"}


# -- lost at any moment ------------------------------------------------------------------

def make_node(generator, depth=0):
    """A plan at random."""
    kind = generator.choice(["run", "run", "serial", "parallel", "for_each", "case"]) if depth < 3 else "run"
    node = {}
    if kind == "run":
        node["run"] = "A"
    elif kind in ("serial", "parallel"):
        node[kind] = [make_node(generator, depth + 1) for _ in range(generator.randint(1, 4))]
    elif kind == "for_each":
        node["for_each"] = {"variable": "v%d" % depth, "in": [str(n) for n in range(generator.randint(0, 4))]}
        node["do"] = make_node(generator, depth + 1)
    else:
        node["case"] = {"variable": "x", "when": [
            {"operator": "=", "value": value, "do": make_node(generator, depth + 1)} for value in "ab"]}
    if kind == "parallel":
        node["limit"] = generator.randint(1, 4)
    if kind == "for_each":
        node["parallel"] = generator.randint(1, 4)
    if kind in ("parallel", "for_each"):
        node["max_errors"] = generator.choice([0, 0, 1, 5])
    if kind not in ("run", "case"):
        node["restart"] = generator.choice(["failed", "all"])
    if generator.random() < 0.3:
        node["attempts"] = 2
        node["retry_delay"] = generator.choice([0, 60])
    if generator.random() < 0.2 and depth < 3:
        node["exception"] = make_node(generator, depth + 1)
        node["on_exception"] = generator.choice(["raise", "ignore"])
    if generator.random() < 0.1:
        node["enabled"] = False
    return node


def make_fate(seed):
    """A fate at random, the same for the same place and attempt."""
    return lambda place, attempt: random.Random("%s %s %d" % (seed, place, attempt)).choice(
        ["DONE", "DONE", "DONE", "WARNING", "ERROR", "STOPPED"])


@pytest.mark.parametrize("seed", range(60))
def test_lost_at_any_moment_it_does_the_same(seed):
    node = make_node(random.Random(seed))
    if node.get("enabled") is False:
        node["enabled"] = True
    whole = PlanShelf(node, make_fate(seed), {"x": "a"})
    expected = whole.run()
    generator = random.Random(seed)
    for chance in (0.3, 1.0):
        shelf = PlanShelf(node, make_fate(seed), {"x": "a"})
        assert shelf.run(lose=lambda: generator.random() < chance) == expected
        assert sorted(shelf.began) == sorted(whole.began) and "RUNNING" not in expected.values()
    if whole.tree.root.status in ("ERROR", "STOPPED"):     # and so does a RESTART of it
        whole.tree = whole.make(is_restart=True)
        again = whole.run()
        shelf.tree = shelf.make(is_restart=True)
        assert shelf.run(lose=lambda: generator.random() < 0.5) == again and sorted(shelf.began) == sorted(whole.began)


def test_a_run_that_waits_for_room_begins_once():
    """Its time-out comes twice before there is room for its session."""
    tree = program.PlanTree(read_plan({"run": "A", "timeout": 5, "attempts": 3}), {})
    tree.begin(0.0)
    for now in (5.0, 6.0, 11.0, 12.0):
        assert tree.advance(has_room=False)[1] == []
        tree.call(now)
    assert [node.attempt for node in tree.advance()[1]] == [3]
