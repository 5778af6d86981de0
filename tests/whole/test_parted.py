"""A parent that a crash parts from its child takes it up again."""
import collections

from conftest import is_alive, wait_for
from support.adoptable import UNTIL_GO
from support.outside import query
from support.waiting import go

CHILDREN = {"AGAIN": "restart", "KEPT": "adopt", "LATER": "restart", "SOON": "restart", "BAD": "error"}
PARENTS = {"AGAIN": "restart", "KEPT": "restart", "LATER": "restart", "SOON": "error", "BAD": "error"}


def import_pairs(agent):
    """A child and its parent for each; LATER's parent goes on to it when the file `held` is there. A parent's `after`
    can only be reached with its child's end."""
    def scenario(name, on_stale, *tasks):
        return {"name": name, "version": "1", "on_stale": on_stale, "steps": [
            {"name": "main", "tasks": list(tasks)}]}

    def command(text):
        return {"type": "os", "command": text}
    wait = "until [ -e held ]; do sleep 0.05; done"
    agent.import_document({"scenarios": [
        scenario(name, on_stale, command("echo $$ > pid.%s; %s; echo %s >> over" % (name, UNTIL_GO, name)))
        for name, on_stale in CHILDREN.items()] + [
        scenario("CALLS_" + name, on_stale, command("echo %s >> begun; %s" % (name, wait if name == "LATER" else ":")),
                 {"type": "scenario", "name": name}, command("echo after %s >> over" % name))
        for name, on_stale in PARENTS.items()]})


def children_of(agent):
    """{scenario: its sessions that others have started}."""
    rows = collections.defaultdict(list)
    for session, scenario in query(agent.work, "select id, scenario from session where parent is not null order by id"):
        rows[scenario].append(session)
    return rows


def test_a_parent_takes_up_the_child_that_it_had(make_agent):
    agent = make_agent().start()
    import_pairs(agent)
    parents = {name: agent.ok("EXEC CALLS_" + name)["session"] for name in PARENTS}
    others = set(CHILDREN) - {"LATER"}
    wait_for(lambda: all((agent.folder / ("pid." + name)).exists() for name in others), "the children to begin")
    agent.ok("HOLD")                                    # so one child more is made that cannot begin
    (agent.folder / "held").touch()
    before = wait_for(lambda: len(children_of(agent)) == 5 and children_of(agent), "five children")
    kept = int((agent.folder / "pid.KEPT").read_text())
    agent.kill()
    assert is_alive(kept)
    agent.start()
    agent.ok("RELEASE")
    go(agent)
    for name in ("AGAIN", "KEPT", "LATER"):
        assert agent.wait_status(parents[name], "DONE", "ERROR")["status"] == "DONE"
    for name in ("SOON", "BAD"):                        # not restarted by itself, but an operator may
        assert "stale" in agent.wait_status(parents[name], "ERROR")["message"]
        agent.ok("RESTART %s" % parents[name])
        agent.wait_status(parents[name], "DONE")
    after = children_of(agent)
    assert len(after.pop("BAD")) == 2                   # the first has ended badly
    before.pop("BAD")
    assert after == before
    over = (agent.folder / "over").read_text().split("\n")
    assert all(over.count(name) == over.count("after " + name) == 1 for name in PARENTS), over


def test_a_child_that_is_left_by_a_shutdown_is_its_parents_still(make_agent):
    agent = make_agent().start()
    import_pairs(agent)
    parent = agent.ok("EXEC CALLS_KEPT")["session"]
    wait_for(lambda: (agent.folder / "pid.KEPT").exists(), "the child to begin")
    agent.ok("SHUTDOWN -LEAVE -MAX_WAIT=0")
    assert agent.wait() == 0
    assert agent.start().status(parent)["status"] == "STOPPED"
    agent.ok("RESTART %s" % parent)
    go(agent)
    agent.wait_status(parent, "DONE")
    assert len(children_of(agent)["KEPT"]) == 1
    assert (agent.folder / "over").read_text().split() == ["KEPT", "after", "KEPT"]


def test_each_attempt_and_each_round_of_a_loop_has_a_child_of_its_own(inside):
    """An end that was noted parts them for good; RESTART -FROM a step begins it anew."""
    inside.import_os("BAD", "exit 1")
    inside.import_document({"scenarios": [{"name": "P", "version": "1", "steps": [
        {"name": "s", "attempts": 2, "tasks": [{"type": "scenario", "name": "BAD"}]}]}]})
    session = inside.ok("EXEC P -SYNC")["session"]
    assert len(inside.rows("SESSIONS -SCENARIO=BAD")) == 2
    inside.ok("RESTART %s" % session)
    inside.ok("WAIT %s" % session)
    assert len(inside.rows("SESSIONS -SCENARIO=BAD")) == 4
    assert query(inside.work, "select count(*) from session_task where child is not null") == [(0,)]
