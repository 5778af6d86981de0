"""Work repositories that are attached and detached beside all else: one owner each, its file opened once."""
import functools
import os
import sys
import threading

import pytest

import agent as program
from conftest import wait_for
from support.outside import no_wal_of, query

pytestmark = pytest.mark.once

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
        attachment = attach_as(*arguments)
        keepers.append(in_thread(lambda: [agent.keeper.keep() for _ in range(2)]))
        keepers[-1][0].join(2)
        return attachment
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


# -- what meets in the worst order -----------------------------------------------------

def amid(monkeypatch, owner, name, before=None, after=None):
    """Calls before() ahead of each call of a method, after() behind it."""
    method = getattr(owner, name)

    def meet(*arguments, **keywords):
        if before:
            before()
        value = method(*arguments, **keywords)
        if after:
            after()
        return value
    monkeypatch.setattr(owner, name, meet)


def barrier(monkeypatch, owner, name):
    """The next call of a method stops ahead of it -> (event: it has come, event: it may go on)."""
    has_come, may_go = threading.Event(), threading.Event()

    def stop():
        has_come.set()
        assert may_go.wait(60)
    amid(monkeypatch, owner, name, before=stop)
    return has_come, may_go


def end_of(thread, got, limit_s=30):
    """What a thread of in_thread() came to."""
    thread.join(limit_s)
    assert not thread.is_alive()
    return got[0]


def request_of(inside, **fields):
    return program.SessionRequest("HELLO", inside.agent.name, "-1", "GLOBAL", {}, **fields)


def open_sessions(path):
    return [row[0] for row in query(path, "select id from session where status in ('WAITING', 'QUEUED', 'RUNNING')")]


@pytest.mark.parametrize("is_refused", [False, True])
def test_no_session_is_acknowledged_while_its_repository_is_taken_out(inside, monkeypatch, is_refused):
    """EXEC had looked the repository up before the DETACH, and is written after the look for open sessions."""
    inside.ok("ATTACH two two.db -CREATE")
    agent, ends = inside.agent, []
    repository = agent.places.get("two")
    old = inside.ok("EXEC HELLO -REPO=two -SYNC")["session"]

    def execute():
        for ask in (lambda: agent.desk.submit(request_of(inside), repository).result(),
                    lambda: repository.db.write(repository.restarts.reopen, program.RestartRequest(int(old)))):
            try:
                ends.append(ask())
            except program.AgentError as error:
                ends.append(error)
        if is_refused:
            raise program.RepositoryError("master repository: database is locked")
    amid(monkeypatch, agent.master, "detach", before=execute)
    assert inside.ask("DETACH two")[-1].startswith("ERR REPOSITORY" if is_refused else "OK")
    assert [type(end) for end in ends] == [program.RepositoryGone] * 2, ends
    assert str(ends[0]) == "work repository two: is being detached"
    assert open_sessions(inside.folder / "two.db") == []
    if is_refused:                      # all is as it was
        assert inside.ok("EXEC HELLO -REPO=two -SYNC")["status"] == "DONE"
    else:
        assert no_wal_of(inside.folder / "two.db")


def test_a_due_time_amid_a_detach_that_is_refused_fires_after_it(inside, monkeypatch):
    inside.ok("ATTACH two two.db -CREATE")
    agent = inside.agent
    repository = agent.places.get("two")
    decided = threading.Event()
    amid(monkeypatch, repository.decisions, "decide", before=decided.set)
    inside.ok('SCHED ADD soon HELLO -1 GLOBAL "every 1s" -REPO=two')
    inside.ok("EXEC HELLO -REPO=two -SYNC")

    def wait_for_due(_):
        decided.clear()
        assert decided.wait(60)         # a due time has come to the closed door
        raise program.RepositoryError("master repository: database is locked")
    while True:                         # until no session is open as DETACH looks
        with monkeypatch.context() as patch:
            patch.setattr(agent.master, "detach", wait_for_due)
            if inside.err("DETACH two") == "REPOSITORY":
                break
    count = len(inside.rows("SESSIONS -SCHEDULE=soon"))
    wait_for(lambda: len(inside.rows("SESSIONS -SCHEDULE=soon")) > count, "the schedule to go on")
    assert not query(inside.folder / "two.db", "select * from occurrence where decision = 'failed'")
    inside.ok("SCHED OFF soon -REPO=two")


def test_a_detach_that_comes_as_the_owner_ends_has_an_answer(inside, monkeypatch):
    """The owner is busy with a cleaning; SHUTDOWN does not wait for the DETACH that waits for it."""
    inside.ok("ATTACH two two.db -CREATE")
    agent = inside.agent
    place = agent.places._named("two")
    has_come, may_go = barrier(monkeypatch, place, "look")
    place._asked.put(place.look)
    assert has_come.wait(60)
    detaching = in_thread(lambda: agent.places.detach("two"))
    wait_for(lambda: place._asked.qsize() == 1, "the DETACH to be asked")
    closing = in_thread(agent.places.close)
    wait_for(lambda: place._is_ending, "the closing")
    may_go.set()
    assert isinstance(end_of(*detaching), program.Stopping)
    assert end_of(*closing) is None
    assert isinstance(end_of(*in_thread(lambda: agent.places.detach("two"))), program.Stopping)
    assert owners() == [] and [row[0] for row in query(inside.master, "select name from work_repository")] \
        == ["WORKREP", "two"]


def test_an_attach_that_the_closing_overtakes_attaches_nothing(inside, monkeypatch):
    inside.ok("ATTACH two two.db -CREATE")
    inside.ok("DETACH two")
    agent = inside.agent
    has_come, may_go = barrier(monkeypatch, program, "check_file_system")
    attaching = in_thread(lambda: agent.places.attach("two", "two.db", False))
    assert has_come.wait(60)
    agent.places.close()
    may_go.set()
    assert isinstance(end_of(*attaching), program.Stopping)
    assert owners() == [] and no_wal_of(inside.folder / "two.db")
    assert query(inside.master, "select name from work_repository") == [("WORKREP",)]


def test_what_is_attached_and_locked_meanwhile_is_attached(inside, monkeypatch):
    """An ERR would say that it is not; REPOS says what is the matter with it."""
    agent = inside.agent

    def refuse(place):
        raise program.RepositoryError("work repository two cannot be written: another program holds its lock")
    with monkeypatch.context() as patch:
        patch.setattr(agent.schedules, "load", refuse)
        assert inside.ok("ATTACH two two.db -CREATE") == {"repository": "two", "id": "2"}
    assert "holds its lock" in inside.rows("REPOS")[1]["message"]
    wait_for(lambda: inside.rows("REPOS")[1]["status"] == "ATTACHED", "it to be tried again")
    inside.ok("DETACH two")


def test_what_another_agent_puts_in_the_place_of_one_is_followed(inside):
    """The same number, another file: DETACH and ATTACH between two looks at the master."""
    inside.ok("ATTACH three three.db -CREATE")
    uuid = inside.agent.places.get("three").db.uuid
    inside.ok("DETACH three")
    inside.ok("ATTACH two two.db -CREATE")
    agent = inside.agent
    agent.master.detach(2)
    agent.master.attach_as(2, "three", str(inside.folder / "three.db"), uuid)
    agent.places.follow_master()
    assert [row["repository"] for row in inside.rows("REPOS")] == ["WORKREP", "three"]
    wait_for(lambda: inside.rows("REPOS")[1]["status"] == "ATTACHED", "it to be open")
    assert inside.ok("EXEC HELLO -REPO=three -SYNC")["status"] == "DONE"
    assert no_wal_of(inside.folder / "two.db") and owners() == ["repository WORKREP", "repository three"]


def test_one_detached_elsewhere_that_is_still_open_here_is_not_attached_beside_itself(inside, opened_paths):
    inside.ok("ATTACH two two.db -CREATE")
    agent = inside.agent
    session = inside.ok("EXEC HELLO -REPO=two -AT=2099-01-01")["session"]
    agent.master.detach(2)
    agent.places.follow_master()
    os.link(str(inside.folder / "two.db"), str(inside.folder / "other.db"))
    for request in ("two two.db", "again two.db", "again ./two.db", "again other.db"):
        assert inside.err("ATTACH %s" % request) == "EXISTS"
    assert opened_paths.count(str(inside.folder / "two.db")) == 1 and owners().count("repository two") == 1
    assert inside.ok("ATTACH three three.db -CREATE")["id"] == "3"
    inside.ok("STOP %s" % session)
    agent.places.follow_master()
    assert no_wal_of(inside.folder / "two.db") and "repository two" not in owners()
    assert inside.ok("ATTACH two two.db")["id"] == "2"


def test_a_host_without_threads_attaches_nothing(inside, monkeypatch):
    inside.ok("ATTACH two two.db -CREATE")
    inside.ok("DETACH two")
    agent, start = inside.agent, threading.Thread.start

    def refuse(thread):
        if thread.name == "repository two":
            raise RuntimeError("can't start new thread")
        start(thread)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert inside.err("ATTACH two two.db") == "BUSY"
        assert no_wal_of(inside.folder / "two.db") and len(inside.rows("REPOS")) == 1
        agent.master.attach_as(2, "two", str(inside.folder / "two.db"), None)
        with pytest.raises(program.Busy):
            agent.places.follow_master()
    assert len(inside.rows("REPOS")) == 1
    agent.places.follow_master()
    inside.ok("DETACH two")


def test_what_can_be_read_is_read_beside_a_detach(inside, monkeypatch):
    inside.ok("ATTACH two two.db -CREATE")
    session = inside.ok("EXEC HELLO -REPO=two -SYNC")["session"]
    replies = []

    def ask():
        replies.append(inside.ask("SESSIONS"))
        raise program.RepositoryError("master repository: database is locked")
    amid(monkeypatch, inside.agent.master, "detach", before=ask)
    assert inside.err("DETACH WORKREP") == "REPOSITORY"
    assert [line.split()[:2] for line in replies[0]] == [["*", "session=" + session], ["ERR", "CONFLICT"]]


def test_a_session_queued_as_its_repository_is_lost_begins_when_it_is_back(make_inside, monkeypatch):
    """It was put into the queue just after all that the queue had of that repository was taken out of it."""
    inside = make_inside("--max-sessions", "1").start()
    agent = inside.agent
    inside.import_os("BUSY", "sleep 600")
    inside.ok("ATTACH two two.db -CREATE")
    busy = inside.ok("EXEC BUSY -REPO=WORKREP")["session"]
    place = agent.places._named("two")
    repository = place.repository
    with monkeypatch.context() as patch:
        amid(patch, agent.queue, "add", before=lambda: place.let_go("the file was replaced by another"))
        session = agent.desk.submit(request_of(inside), repository).result().session
    place._asked.put(place.look)              # attaches it again
    wait_for(lambda: place.state == program.State.ATTACHED, "it to be back")
    inside.ok("STOP %s -IMMEDIATE" % busy)
    assert inside.ok("WAIT %d -TIMEOUT=60" % session)["status"] == "DONE"
