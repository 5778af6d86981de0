"""No threads, no memory, for a while: all goes on when that is over, and no process is without its session."""
import errno
import threading

import pytest

import agent as program
from agent import Capture, Command, Output, Process, RepositoryError, Worker
from conftest import wait_for
from support.outside import query
from support.queues import QueuedSession, WellRepository


class Scarce:
    """A host that gives no further thread while `is_over` is false."""

    def __init__(self, monkeypatch):
        self.is_over, self.refusals = True, 0
        before = threading.Thread.start

        def start(thread):
            if not self.is_over:
                self.refusals += 1
                raise RuntimeError("can't start new thread")
            before(thread)
        monkeypatch.setattr(threading.Thread, "start", start)

    def __enter__(self):
        self.is_over = False
        return self

    def __exit__(self, *_):
        self.is_over = True


@pytest.fixture
def scarce(monkeypatch):
    return Scarce(monkeypatch)


def list_marks(inside):
    path = inside.folder / "marks"
    return path.read_text().split() if path.exists() else []


def test_what_was_acknowledged_runs_when_there_are_threads_again(inside, scarce):
    inside.import_os("S", "echo $SESSION >> %s" % (inside.folder / "marks"))
    inside.import_os("A", "echo $SESSION >> %s" % (inside.folder / "marks"), on_stale="adopt")
    with scarce:
        sessions = [inside.ok("EXEC " + name)["session"] for name in "SASA"]
        wait_for(lambda: scarce.refusals > 5, "further tries")
        assert {inside.status(session)["status"] for session in sessions} == {"QUEUED"}
    assert [inside.ok("WAIT " + session)["status"] for session in sessions] == ["DONE"] * 4
    assert sorted(list_marks(inside)) == sorted(sessions)
    assert inside.log().count("no further thread can be started for sessions") == 1


@pytest.mark.parametrize("task", [
    {"type": "os", "command": "cat >> marks; echo $SESSION >> marks", "stdin": "in\n"},
    {"type": "sql", "schema": "S", "statement": "insert into t values (1)"}], ids=["os", "sql"])
def test_a_session_under_way_waits_for_a_thread_and_has_no_process_without_one(inside, scarce, task, monkeypatch):
    monkeypatch.chdir(str(inside.folder))
    inside.import_document({
        "data_servers": [{"name": "D", "driver": "sqlite3", "database": str(inside.folder / "d.db")}],
        "logical_schemas": [{"name": "S", "contexts": {"GLOBAL": "D"}}],
        "scenarios": [{"name": "W", "version": "1", "steps": [{"name": "s", "tasks": [
            {"type": "sql", "schema": "S", "statement": "create table t(x)"},
            {"type": "wait_file", "path": str(inside.folder / "go"), "stable_s": 0}, task]}]}]})
    inside.ok("EXEC W")
    wait_for(lambda: any(row.get("type") == "wait_file" for row in inside.rows("STATUS 1001")), "the task before")
    with scarce:
        (inside.folder / "go").touch()
        wait_for(lambda: "session 1001 waits: " in inside.log(), "the task to wait")
        assert inside.status(1001)["status"] == "RUNNING" and list_marks(inside) == []
    assert inside.ok("WAIT 1001")["status"] == "DONE"
    if task["type"] == "os":
        assert list_marks(inside) == ["in", "1001"]
    else:
        assert query(inside.folder / "d.db", "select x from t") == [(1,)]


def test_a_stop_ends_the_waiting_for_a_thread(inside, scarce):
    inside.import_document({"scenarios": [{"name": "W", "version": "1", "steps": [{"name": "s", "tasks": [
        {"type": "wait_file", "path": str(inside.folder / "go"), "stable_s": 0},
        {"type": "os", "command": "true", "stdin": "a thread has to write it"}]}]}]})
    inside.ok("EXEC W")
    inside.wait_status(1001, "RUNNING")
    with scarce:
        (inside.folder / "go").touch()
        wait_for(lambda: "session 1001 waits: " in inside.log(), "the task to wait")
        assert inside.ok("STOP 1001 -IMMEDIATE")["status"] == "STOPPED"


def test_sessions_that_wait_for_a_thread_keep_none_from_the_stop_of_another(inside, scarce):
    inside.import_os("NAP", "exec sleep 300")
    inside.import_document({"scenarios": [{"name": "W", "version": "1", "steps": [{"name": "s", "tasks": [
        {"type": "wait_file", "path": str(inside.folder / "go"), "stable_s": 0},
        {"type": "os", "command": "true", "stdin": "a thread has to write it"}]}]}]})
    nap, *sessions = [inside.ok("EXEC " + name)["session"] for name in ["NAP"] + ["W"] * 6]
    for session in sessions:
        wait_for(lambda: any(row.get("type") == "wait_file" for row in inside.rows("STATUS " + session)), "its wait")
    inside.wait_status(nap, "RUNNING")
    with scarce:
        (inside.folder / "go").touch()
        wait_for(lambda: inside.log().count(" waits: ") == 6, "them to wait for a thread")
        assert inside.ok("STOP %s -IMMEDIATE" % nap)["status"] == "STOPPED"
    assert [inside.ok("WAIT " + session)["status"] for session in sessions] == ["DONE"] * 6


def test_a_repository_without_an_owner_is_degraded_until_it_has_one(make_inside, scarce):
    inside = make_inside().start()
    (place,) = inside.agent.places.list_all()
    place.end()
    with scarce:
        again = program.Place(place.attachment, place._care)
        with pytest.raises(program.Busy):
            again.start()
        assert again.wait_settled(0) and "thread" in again.reason and again.repository is None
        with pytest.raises(RepositoryError):
            again.detach(lambda: None)
    again.start()
    wait_for(lambda: not again.reason, "the repository to be attached")
    again.start()                       # has one
    again.end()


def test_a_writer_without_a_thread_opens_no_repository(tmp_path, scarce):
    path = str(tmp_path / "w.db")
    program.make_private(path)
    with scarce, pytest.raises(RepositoryError, match="thread"):
        program.WorkRepository(1, "W", path, program.Clock()).open()
    program.WorkRepository(1, "W", path, program.Clock()).open().db.close()


def test_an_adopted_session_without_a_thread_goes_on_when_there_is_one(scarce):
    """It counts as running meanwhile: nobody begins it once more."""
    class Adopted(QueuedSession):
        is_apart, has_run = True, False

        def run(self):
            self.has_run = True
            return True
    queue = program.SessionQueue(1, Adopted, lambda: False, program.Clock())
    ticket = program.Ticket(1001, "RUNNING", "AGENT", 0, None, None, scenario="S", is_parallel=False)
    with scarce:
        queue.adopt(ticket, WellRepository)
        wait_for(lambda: scarce.refusals > 2, "further tries")
        assert queue.counts() == (1, 0)
        session = queue.find(1001)
    wait_for(lambda: queue.counts() == (0, 0), "the session to end")
    assert session.has_run
    queue.close()
    queue.join()


def test_a_thread_that_never_begins_is_not_waited_for(monkeypatch):
    """It had no memory for its first steps: Python's own start() waits for ever."""
    monkeypatch.setattr(program, "BEGIN_S", 0.05)
    done = threading.Event()
    worker = Worker(done.set, "worker")
    monkeypatch.setattr(worker, "_bootstrap", lambda: None)
    with pytest.raises(RuntimeError):
        worker.start()
    worker.run()                        # it comes too late
    assert not done.is_set()
    Worker(done.set, "worker").start()
    assert done.wait(60)


def test_a_process_that_cannot_be_looked_after_is_ended(monkeypatch):
    output = Output()
    try:
        for name, error in (("add", MemoryError()), ("add", OSError(errno.EMFILE, "too many", "/proc"))):
            monkeypatch.setattr(output, name, lambda process, pipes, error=error: raise_it(process, error))
            with pytest.raises((MemoryError, OSError)) as caught:
                Process(Command(["sleep", "60"], {}), Capture(100, None, program.Clock()), output, lambda: None).begun()
            assert program.is_passing(caught.value)
            wait_for(lambda: not program.start_time(STARTED[-1]), "it to be gone")
    finally:
        monkeypatch.undo()
        output.close()


@pytest.mark.skipif(not program.HAS_DESCRIPTORS, reason="a thread waits for each process")
def test_an_end_that_there_is_no_memory_to_ask_for_is_asked_for_again(monkeypatch):
    output, failures, wait = Output(), [], program.subprocess.Popen.wait

    def wait_badly(popen, *arguments):
        if not failures:
            failures.append(popen)
            raise MemoryError()
        return wait(popen, *arguments)
    monkeypatch.setattr(program.subprocess.Popen, "wait", wait_badly)
    try:
        process = Process(Command(["false"], {}), Capture(100, None, program.Clock()), output, lambda: None).begun()
        wait_for(process.is_complete, "its end")
        assert process.rc == 1 and failures
    finally:
        output.close()


STARTED = []


def raise_it(process, error):
    STARTED.append(process.pid)
    raise error


def test_of_errors_at_a_start_those_of_the_host_pass_and_those_of_the_command_stay():
    assert program.is_passing(OSError(errno.EAGAIN, "again")) and program.is_passing(MemoryError())
    assert not program.is_passing(OSError(errno.ENOMEM, "memory", "/bin/true"))
    assert not program.is_passing(OSError(errno.ENOENT, "none")) and not program.is_passing(ValueError())


def test_a_session_that_could_not_begin_is_tried_again(inside, monkeypatch):
    inside.import_os("S", "echo $SESSION >> %s" % (inside.folder / "marks"))
    failures = []
    before = program.Views.get_resume

    def get_resume(views, connection, session):
        if len(failures) < 2:
            failures.append(session)
            raise MemoryError()
        return before(views, connection, session)
    monkeypatch.setattr(program.Views, "get_resume", get_resume)
    assert inside.ok("EXEC S -SYNC")["status"] == "DONE"
    assert list_marks(inside) == ["1001"] and failures == [1001, 1001]
    assert inside.log().count("session 1001 does not begin yet: ") == 1
    inside._handler.lines.clear()       # where no memory was left is told with its place


def test_a_write_that_had_no_memory_is_written_all_the_same(inside):
    (repository,) = inside.agent.places.list_open()
    tries = []

    def write(connection):
        tries.append(1)
        if len(tries) < 3:
            raise MemoryError()
        return "written"
    assert repository.db.write(write) == "written" and len(tries) == 3
    assert repository.db.trouble == "" and "MemoryError" in inside.log()


def test_what_fails_for_one_task_costs_the_output_of_the_others_nothing():
    output, rows = Output(), []
    try:
        def feed(stream, data):
            raise MemoryError()
        bad = Capture(10000, lambda *_: None, program.Clock())
        bad.feed = feed
        good = Capture(10000, lambda new, omitted, on_stored: rows.extend(new), program.Clock())
        for capture in (bad, good):
            process = Process(Command(["echo", "text"], {}), capture, output, lambda: None).begun()
            wait_for(lambda: process.rc is not None, "its end")
            process.finish()
        rows.extend(good.take(is_end=True)[0])
        assert [row[3] for row in rows] == ["text"]
    finally:
        output.close()
