"""LOG: which lines of a session it gives, what its OK says, and what a follower is told when the agent goes."""
import json

import pytest

from conftest import wait_for
from support.asker import Asker
from support.tasks import add_steps, step


@pytest.fixture(scope="module")
def with_lines(shared_inside):
    """A session of two steps: `one` prints a b c, b as an error, `two` d e f."""
    name = add_steps(shared_inside, step("one", "echo a", "echo b >&2", "echo c"), step("two", "echo d; echo e; echo f"))
    return shared_inside.ok("EXEC %s -SYNC" % name)["session"]


def texts(lines):
    """What was printed, of the lines of a reply that is OK and says how the session stands."""
    assert lines[-1] == "OK status=DONE", lines
    return "".join(line.rpartition(" ")[2] for line in lines[:-1])


@pytest.mark.parametrize("options, expected", [
    ("", "abcdef"), ("-TAIL=2", "ef"), ("-TAIL=0", ""), ("-TAIL=6", "abcdef"), ("-TAIL=99", "abcdef"),
    ("-STEP=one", "abc"), ("-STEP=two -TAIL=1", "f"), ("-STEP=one -TAIL=2", "bc"), ("-STREAM=err", "b"),
    ("-STREAM=out", "acdef"), ("-STREAM=OUT -STEP=one -TAIL=1", "c"), ("-STREAM=err -STEP=two", ""),
    ("-STREAM=out -TAIL=4", "cdef"), ("-SINCE=1h -TAIL=1", "f"), ("-SINCE=+1h -TAIL=3", "")])
def test_which_lines(shared_inside, with_lines, options, expected):
    assert texts(shared_inside.ask("LOG %s %s" % (with_lines, options))) == expected
    assert texts(shared_inside.ask("LOG %s %s -FOLLOW" % (with_lines, options))) == expected


def test_as_json(shared_inside, with_lines):
    *lines, last = shared_inside.ask("LOG %s -STREAM=err -TAIL=5 -JSON" % with_lines)
    assert [json.loads(line[2:])["text"] for line in lines] == ["b"] and json.loads(last[3:]) == {"status": "DONE"}


@pytest.mark.parametrize("options, word", [
    ("-STREAM=both", '"-STREAM=both"'), ("-TAIL=-1", '"-TAIL=-1"'), ("-TAIL", '"-TAIL"'), ("-STEP", '"-STEP"')])
def test_what_is_wrong_is_named(shared_inside, with_lines, options, word):
    message = shared_inside.ask("LOG %s %s" % (with_lines, options))[-1]
    assert message.startswith("ERR BAD_REQUEST") and word in message


def test_a_step_that_there_is_not(shared_inside, with_lines):
    assert shared_inside.ask("LOG %s -STEP=three" % with_lines)[-1].startswith("ERR NOT_FOUND")
    assert shared_inside.err("LOG %s -STEP=three -FOLLOW" % with_lines) == "NOT_FOUND"


def begin_printing(agent, *words):
    """A session that has printed these words, and goes on until there is a file `go`, when it prints `over`."""
    agent.import_os("P", "; ".join("echo " + word for word in words)
                    + "; until [ -e %s ]; do sleep 0.05; done; echo over" % (agent.folder / "go"))
    session = agent.ok("EXEC P")["session"]
    wait_for(lambda: agent.log_texts(session) == list(words), "the lines")
    return session


def test_a_tail_is_followed(inside):
    session = begin_printing(inside, "a", "b", "c")
    assert inside.ask("LOG %s -TAIL=1" % session)[-1] == "OK status=RUNNING"
    followers = [Asker(inside, "LOG %s -FOLLOW -TAIL=%d" % (session, tail)) for tail in (2, 0)]
    wait_for(lambda: followers[0].has(" c"), "the tail")
    (inside.folder / "go").touch()
    assert followers[0].finish().texts() == ["b", "c", "over"] and followers[1].finish().texts() == ["over"]
    assert all(follower.lines[-1] == "OK status=DONE" for follower in followers)


def test_who_follows_what_goes_on_without_the_agent_is_told_that(inside):
    session = begin_printing(inside, "a")
    askers = [Asker(inside, line % session) for line in ("LOG %s -FOLLOW", "WAIT %s", "LOG %s -FOLLOW -STREAM=err")]
    wait_for(lambda: askers[0].has(" a"), "the line")
    askers.append(Asker(inside, "EXEC HELLO -AT=1h -SYNC"))
    wait_for(lambda: askers[-1].has("session="), "the session")
    inside.agent.watch.close()
    for asker in askers:
        assert asker.finish().lines[-1].startswith("ERR STOPPING session="), asker.lines
    assert inside.status(session)["status"] == "RUNNING"
    (inside.folder / "go").touch()
    inside.wait_status(session, "DONE")
