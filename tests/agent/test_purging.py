"""PURGE: which of the past sessions it deletes, and that it can say so first."""
import pytest

from support.outside import query
from support.tasks import add_steps, step


@pytest.fixture
def past(inside):
    """{name: number} of past sessions, the oldest first: of A good ones a1, a2 and a bad one a3, of B b1, b2."""
    bad = add_steps(inside, step("s", "exit $VAR_code"), variables={"code": "0"})
    numbers = {name: inside.ok("EXEC %s -SYNC %s" % (scenario, words))["session"] for name, scenario, words in (
        ("a1", bad, ""), ("b1", "HELLO", ""), ("a2", bad, ""), ("a3", bad, "code=1"), ("b2", "HELLO", ""))}
    inside.let_pass(3600)
    return dict(numbers, A=bad, waiting=inside.ok("EXEC HELLO -AT=1d")["session"])


def left(agent, past):
    """The names of those that are there, between spaces."""
    numbers = {row["session"] for row in agent.rows("SESSIONS")}
    return " ".join(name for name, number in past.items() if number in numbers)


@pytest.mark.parametrize("options, expected", [
    ("-KEEP=2", "a3 b2 waiting"), ("-DAYS=0.01", "waiting"), ("-DAYS=1", "a1 b1 a2 a3 b2 waiting"),
    ("-KEEP=0 -SCENARIO=HELLO", "a1 a2 a3 waiting"), ("-KEEP=1 -SCENARIO=HELLO", "a1 a2 a3 b2 waiting"),
    ("-KEEP=1 -SCENARIO=%(A)s", "b1 a3 b2 waiting"), ("-KEEP=1 -SCENARIO=%(A)s -STATUS=DONE", "b1 a2 a3 b2 waiting"),
    ("-DAYS=0.01 -STATUS=ERROR", "a1 b1 a2 b2 waiting"), ("-KEEP=1 -STATUS=done,error", "b2 waiting"),
    ("-DAYS=0.01 -KEEP=4", "b1 a2 a3 b2 waiting"), ("-DAYS=1 -KEEP=0", "a1 b1 a2 a3 b2 waiting"),
    ("-DAYS=0 -SCENARIO=NONE", "a1 b1 a2 a3 b2 waiting")])
def test_what_is_deleted_and_that_it_can_be_counted_first(inside, past, options, expected):
    options, everything = options % past, left(inside, past)
    counted = inside.ok("PURGE %s -DRY_RUN" % options)
    assert counted["dry_run"] == "yes" and left(inside, past) == everything
    purged = inside.ok("PURGE " + options)
    assert purged == {"purged": counted["purged"]} and left(inside, past) == expected
    assert int(purged["purged"]) == len(everything.split()) - len(expected.split())


@pytest.mark.parametrize("options, words", [
    ("", "-DAYS=n or -KEEP=n is missing"), ("-STATUS=DONE", "-DAYS=n or -KEEP=n is missing"),
    ("-SCENARIO=HELLO -DRY_RUN", "-DAYS=n or -KEEP=n is missing"), ("-JSON", "-DAYS=n or -KEEP=n is missing"),
    ("-DAYS=1 -STATUS=RUNNING", "RUNNING"), ("-KEEP=1 -STATUS=DONE,WAITING", "WAITING")])
def test_what_is_refused(inside, options, words):
    message = inside.ask("PURGE " + options)[-1]
    assert message.startswith("ERR BAD_REQUEST") and words in message


def test_only_a_purge_of_everything_deletes_what_made_no_session(inside):
    inside.ok("SCHED ADD S HELLO -1 GLOBAL 'every 1m' -ENABLED=no -OVERLAP=skip")
    query_all = "select count(*) from occurrence"
    repository = inside.agent.places.get(None)
    repository.db.write(repository.ledger.note_failed, "S", 1000.0, "in vain", 1000.0)
    for options in ("-DAYS=1 -STATUS=DONE", "-DAYS=1 -SCENARIO=HELLO", "-DAYS=1 -DRY_RUN", "-KEEP=0"):
        inside.ok("PURGE " + options)
        assert query(inside.work, query_all) == [(1,)]
    inside.ok("PURGE -DAYS=1")
    assert query(inside.work, query_all) == [(0,)]
