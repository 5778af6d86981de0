"""Work repositories that are attached and detached beside all else: one owner each, its file opened once."""
import functools
import sys
import threading

import pytest

import agent as program
from support.outside import no_wal_of

ROUNDS = 300


def owners():
    """The names of the threads that own repositories."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("repository "))


def in_thread(function):
    """-> (thread, list for what it returns or raises)."""
    got = []

    def work():
        try:
            got.append(function())
        except Exception as error:
            got.append(error)
    thread = threading.Thread(target=work)
    thread.start()
    return thread, got


def test_nobody_is_told_nonsense_beside_attach_and_detach(agent):
    agent.ok("ATTACH two two.db -CREATE")
    agent.ok("DETACH two")
    is_over, bad, counts = threading.Event(), [], []

    def keep_asking(*requests):
        with agent.connect() as client:
            asked = 0
            while not is_over.is_set():
                last = client.ask(requests[asked % len(requests)])[-1]
                asked += 1
                # what asks the repository may meet it on its way out; nothing else may be said
                if not last.startswith("OK") and not (last.startswith("ERR CONFLICT work repository two is being detached")
                                                      or last.startswith("ERR REPOSITORY work repository two: ")):
                    bad.append(last)
            counts.append(asked)
    threads = [in_thread(functools.partial(keep_asking, *requests))
               for requests in (["PING"], ["PING"], ["PING", "METRICS"], ["PING", "REPOS", "SESSIONS -LIMIT=1"])]
    for _ in range(ROUNDS):
        assert agent.ok("ATTACH two two.db") == {"repository": "two", "id": "2"}
        agent.ok("DETACH two")
        assert no_wal_of(agent.folder / "two.db")
    is_over.set()
    for thread, got in threads:
        thread.join()
        assert got == [None]
    assert not bad, bad[:5]
    assert len(counts) == 4 and min(counts) > 10
    assert agent.ok("PING")["repositories"] == "1/1"


def test_ping_is_answered_between_any_two_steps_of_attach_and_detach(inside):
    """Threads change as often as they can."""
    inside.ok("ATTACH two two.db -CREATE")
    is_over, bad = threading.Event(), []

    def keep_asking():
        while not is_over.is_set():
            try:
                program.ping(inside.agent)
                list(program.metrics(inside.agent))
            except Exception as error:
                bad.append(repr(error))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [in_thread(keep_asking) for _ in range(3)]
        for _ in range(30):
            inside.ok("DETACH two")
            inside.ok("ATTACH two two.db")
    finally:
        is_over.set()
        for thread, _ in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not bad, bad[:5]


@pytest.fixture
def opened_paths(monkeypatch):
    """The paths of the work repositories that are opened, as it happens."""
    paths, open_it = [], program.WorkRepository.open

    def note(repository, *arguments):
        paths.append(repository.path)
        return open_it(repository, *arguments)
    monkeypatch.setattr(program.WorkRepository, "open", note)
    return paths


def test_the_keeper_that_comes_amid_an_attach_opens_no_second_writer(inside, opened_paths, monkeypatch):
    """It reads in the master what ATTACH has written there but not yet taken into the agent."""
    agent, keepers = inside.agent, []
    attach_as = agent.master.attach_as

    def attach_and_meet(*arguments):
        attach_as(*arguments)
        keepers.append(in_thread(lambda: [agent.keeper.keep() for _ in range(2)]))
        keepers[-1][0].join(2)
    monkeypatch.setattr(program, "HEARTBEAT_S", 0.0)
    monkeypatch.setattr(agent.master, "attach_as", attach_and_meet)
    inside.ok("ATTACH two two.db -CREATE")
    (thread, got), = keepers
    thread.join()
    assert got == [[None, None]]
    agent.places.follow_master()
    path = inside.folder / "two.db"
    assert [str(path)] == [one for one in opened_paths if one.endswith("two.db")]
    assert owners().count("repository two") == 1
    inside.ok("DETACH two")
    assert no_wal_of(path) and "repository two" not in owners()


def test_a_detach_that_comes_amid_the_attaching_waits_for_it(inside, monkeypatch):
    inside.ok("ATTACH two two.db -CREATE")
    inside.ok("DETACH two")
    path, agent = inside.folder / "two.db", inside.agent
    has_come, may_go = threading.Event(), threading.Event()
    load = agent.schedules.load

    def load_slowly(place):
        has_come.set()
        assert may_go.wait(60)
        load(place)
    monkeypatch.setattr(agent.schedules, "load", load_slowly)
    attaching = in_thread(lambda: agent.places.attach("two", "two.db", False))
    assert has_come.wait(60)
    detaching = in_thread(lambda: agent.places.detach("two"))
    detaching[0].join(0.5)
    assert detaching[0].is_alive()
    may_go.set()
    for thread, _ in (attaching, detaching):
        thread.join(60)
    # it may have been detached by the time that ATTACH looks at what it has attached
    assert detaching[1] == [None] and (attaching[1] == [2] or isinstance(attaching[1][0], program.AgentError))
    assert no_wal_of(path) and "repository two" not in owners()
    assert inside.err("DETACH two") == "NOT_FOUND"


def test_of_many_who_detach_one_does_it(inside):
    for _ in range(10):
        inside.ok("ATTACH two two.db" + ("" if (inside.folder / "two.db").exists() else " -CREATE"))
        both = [in_thread(lambda: inside.agent.places.detach("two")) for _ in range(4)]
        for thread, _ in both:
            thread.join(60)
        ends = [got[0] for _, got in both]
        assert sorted(type(end).__name__ for end in ends) == ["NoneType"] + ["NotFound"] * 3


def test_a_detach_that_the_master_refuses_leaves_all_as_it_was(inside, monkeypatch):
    inside.ok("ATTACH two two.db -CREATE")
    agent = inside.agent
    repository = agent.places.get("two")

    def refuse(number):
        raise program.RepositoryError("master repository: database is locked")
    with monkeypatch.context() as patch:
        patch.setattr(agent.master, "detach", refuse)
        assert inside.ask("DETACH two") == ["ERR REPOSITORY master repository: database is locked"]
    assert agent.places.get("two") is repository
    assert inside.rows("REPOS")[1]["status"] == "ATTACHED"
    inside.ok("DETACH two")


def test_what_another_agent_detaches_ends_here_when_its_sessions_have(inside):
    inside.ok("ATTACH two two.db -CREATE")
    agent = inside.agent
    session = inside.ok("EXEC HELLO -REPO=two -AT=2099-01-01")["session"]
    agent.master.detach(2)
    agent.places.follow_master()
    assert inside.status(session)["status"] == "WAITING"
    inside.ok("STOP %s" % session)
    agent.places.follow_master()
    assert inside.err("STATUS %s" % session) == "NOT_FOUND"
    assert no_wal_of(inside.folder / "two.db") and "repository two" not in owners()
