"""Cleaning and taking over: one session's trouble costs that one alone, and a repository's trouble is told."""
import agent as program
from conftest import wait_for
from support.outside import change


def leave(inside, *sessions):
    """These sessions are shown as running, by an agent that is gone."""
    inside.agent.queue.hold(True)
    for session in sessions:
        inside.ok("EXEC HELLO")
        change(inside.work, "update session set status='RUNNING', ran_by=null where id=%d" % session)


def test_what_is_wrong_with_one_stale_session_costs_the_others_nothing(inside, monkeypatch):
    leave(inside, 1001, 2001, 3001)
    before = {name: getattr(owner, name) for owner, name in (
        (program.Cleaner, "_is_stale"), (program.Endings, "close_stale"))}
    is_bad = [True]

    def is_stale(cleaner, repository, row, host):
        if is_bad[0] and row["id"] == 1001:
            raise ValueError("row of 1001")
        return before["_is_stale"](cleaner, repository, row, host)

    def close_stale(endings, connection, row, now):
        if is_bad[0] and row["id"] == 2001:
            raise program.RepositoryError("closing of 2001")
        return before["close_stale"](endings, connection, row, now)
    monkeypatch.setattr(program.Cleaner, "_is_stale", is_stale)
    monkeypatch.setattr(program.Endings, "close_stale", close_stale)
    for _ in range(3):
        inside.ok("CLEAN")
    wait_for(lambda: inside.status(3001)["status"] == "ERROR", "the third to be closed")
    assert [inside.status(number)["status"] for number in (1001, 2001)] == ["RUNNING"] * 2
    lines = inside.log()
    assert (lines.count("ValueError: row of 1001"), lines.count("closing of 2001")) == (1, 1)
    assert inside.ok("PING")["status"] == "READY"
    is_bad[0] = False
    inside.ok("CLEAN")
    assert [inside.status(number)["status"] for number in (1001, 2001)] == ["ERROR"] * 2
    inside._handler.lines.clear()       # what nobody expected is told with its place


def test_a_repository_whose_take_over_fails_is_degraded_until_it_goes_well(inside, monkeypatch):
    is_bad, before = [True], program.Schedules.load

    def load(schedules, place):
        if is_bad[0]:
            raise ValueError("cannot be read")
        return before(schedules, place)
    monkeypatch.setattr(program.Schedules, "load", load)
    change(inside.work, "update session set status=status")         # another program has written: it is read again
    inside.agent.places.list_open()[0].set_behind()
    wait_for(lambda: inside.ok("PING")["status"] == "DEGRADED", "PING to say so")
    assert inside.ok("PING")["repositories"] == "0/1"
    assert "cannot be read" in inside.rows("REPOS")[0]["message"]
    assert inside.ok("EXEC HELLO -SYNC")["status"] == "DONE"        # what can be done is done
    is_bad[0] = False
    wait_for(lambda: inside.ok("PING")["status"] == "READY", "it to be over")
    assert inside.log().count("ValueError: cannot be read") == 1
    inside._handler.lines.clear()


def test_what_cannot_be_ended_keeps_its_session_alone_open(inside, monkeypatch):
    leave(inside, 1001, 2001)
    before = program.Tree.find
    monkeypatch.setattr(program, "KILL_S", 0.0)
    monkeypatch.setattr(program, "TERM_S", 0.0)
    is_bad = [True]

    def find(tree, signal_number=None):
        if is_bad[0] and any(session.endswith("/1001") for session in tree._sessions):
            return {0: program.ProcessEntry(2 ** 22 + 1, 1, 1, 1, "1")}
        return before(tree, signal_number)
    monkeypatch.setattr(program.Tree, "find", find)
    monkeypatch.setattr(program.Tree.end, "__defaults__", (0.0,))
    inside.ok("CLEAN")
    wait_for(lambda: inside.status(2001)["status"] == "ERROR", "the second to be closed")
    assert inside.status(1001)["status"] == "RUNNING"
    is_bad[0] = False
    inside.ok("CLEAN")
    assert inside.status(1001)["status"] == "ERROR"


def test_a_stop_says_what_it_cannot_end(inside, monkeypatch):
    inside.import_os("NAP", "sleep 300")
    inside.ok("EXEC NAP")
    wait_for(lambda: any("task" in row for row in inside.rows("STATUS 1001")), "the task to begin")
    before = program.Tree.find

    def find(tree, signal_number=None):
        return {**before(tree, signal_number), 0: program.ProcessEntry(2 ** 22 + 1, 1, 1, 1, "1")}

    def end(tree, grace_s=0.0):
        return before_end(tree, grace_s)
    before_end = program.Tree.end
    monkeypatch.setattr(program, "KILL_S", 0.5)
    monkeypatch.setattr(program.Tree, "find", find)
    monkeypatch.setattr(program.Tree, "end", end)
    row = inside.ok("STOP 1001 -IMMEDIATE")
    assert row["status"] == "STOPPED" and "1 of its processes cannot be ended" in row["note"]
    assert row["note"] == inside.status(1001)["message"]
