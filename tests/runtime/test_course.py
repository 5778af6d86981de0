"""The parts of a session in the test's own process: what stops it, what it records, its course; at any moment."""
import contextlib
import json
import os
import queue
import random
import threading
import time

import pytest

import agent as program
from conftest import is_alive, wait_for
from support.clock import FakeClock
from support.outside import foreign_lock
from support.tasks import step

pytestmark = pytest.mark.once


@pytest.fixture
def repository(tmp_path):
    inbox = program.Inbox()
    repository = program.WorkRepository.create(1, "WORKREP", str(tmp_path / "work.db"), program.Clock(), inbox)
    yield repository
    repository.db.close()
    inbox.close()


class Ends:
    """Surroundings of sessions without an agent, and what is told of their ends."""

    def __init__(self):
        self.output, self.endings, self.losses = program.Output(), [], []
        self.around = program.Surroundings(
            program.Clock(), "here", self.output, 100000, lambda _, ending: self.endings.append(ending),
            self.losses.append, None, None, lambda number: None, program.FileLimit(), dict(os.environ),
            program.Looks())


@pytest.fixture
def ends():
    ends = Ends()
    yield ends
    ends.output.close()


def ask(repository, *steps, **fields):
    """Imports a scenario of these steps and asks for a session of it -> its Ticket."""
    scenario = dict({"name": "S", "version": "1", "steps": list(steps)}, **fields)
    document = program.Definitions().read(json.dumps({"scenarios": [scenario]}))
    repository.db.write(repository.imports.put, document, "AGENT", 1795824000.0, True)
    return repository.db.write(repository.arrivals.add, program.SessionRequest("S", "AGENT"),
                               1795824000.0)


class OwnThread:
    """In place of a Parking: the session goes on in the thread that has run it before."""

    def __init__(self):
        self._called, self._until = threading.Event(), None

    def put(self, session, until):
        self._until = until

    def call(self, session):
        self._called.set()

    def wait(self, session):
        if not session.is_ready():
            self._called.wait(60 if self._until is None else max(0.0, self._until - time.monotonic()))
        self._called.clear()


def complete(session):
    """Runs a session to its end, and that to its record."""
    parking = OwnThread()
    while not session.run():
        session.park(parking)
        parking.wait(session)
    ends = queue.Queue()
    session.record_end(ends.put)
    pending = ends.get(timeout=60)
    if pending is not None:
        session.follow_end(pending)


@contextlib.contextmanager
def running(session):
    """Completes a session in a thread, and waits for that."""
    thread = threading.Thread(target=complete, args=(session,))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def rows(repository, sql, *values):
    with repository.db.reading() as connection:
        return [tuple(row) for row in connection.execute(sql, values)]


def status_of(repository, ticket):
    return rows(repository, "select status from session where id=?", ticket.session)[0][0]


def spool_names(repository):
    folder, name = os.path.split(repository.path)
    return [each for each in os.listdir(folder) if each.startswith(name + ".spool.")]


# -- control -----------------------------------------------------------------------------------------------------------

def test_a_normal_stop_does_not_take_an_immediate_one_back():
    control = program.Control(FakeClock(), "uuid/1")
    control.check_stop(is_between=True)
    control.stop(program.NORMAL, "gently")
    assert control.has_stop
    control.check_stop()
    with pytest.raises(program.Interrupted, match="gently"):
        control.check_stop(is_between=True)
    control.stop(program.IMMEDIATE, "now")
    control.stop(program.NORMAL, "gently")
    with pytest.raises(program.Interrupted, match="now") as caught:
        control.check_stop()
    assert (caught.value.scope, caught.value.status) == ("session", "STOPPED")


def test_of_several_time_outs_the_outermost_tells_how_far_it_reaches():
    clock = FakeClock()
    control = program.Control(clock, "uuid/1")
    with control.deadline(50, "session"), control.deadline(20, "step"):
        with control.deadline(10, "task"), control.deadline(None, "nothing"):
            control.interrupt_if_asked()
            for later, scope in ((10, "task"), (10, "step"), (30, "session")):
                clock.move(later)
                with pytest.raises(program.Interrupted, match="time-out of the %s" % scope) as caught:
                    control.wait(lambda: False)
                assert (caught.value.scope, caught.value.status) == (scope, "ERROR")
    control.interrupt_if_asked()            # none is left behind


def test_what_is_over_is_not_interrupted_and_leaving_ends_a_wait():
    control = program.Control(program.Clock(), "uuid/1")
    control.stop(program.IMMEDIATE, "stopped")
    control.wait(lambda: True)
    control = program.Control(program.Clock(), "uuid/1")
    thread = threading.Thread(target=control.wait, args=(lambda: control.is_leaving,))
    thread.start()
    control.leave()
    thread.join(60)
    assert not thread.is_alive()


# -- journal -----------------------------------------------------------------------------------------------------------

def test_what_is_noted_while_the_repository_is_locked_is_kept_in_its_order(repository):
    ticket = ask(repository, step("a", "true"))
    journal, progress = program.Journal(repository, ticket.session, "S", program.Clock()), repository.progress
    journal.set_begun()
    with foreign_lock(repository.path) as other:
        run = journal.note_begin(progress.begin_step, 0, "a", 1)
        journal.flush_later()
        journal.note(progress.set_variables, {"v": "1"})
        journal.note_end(progress.end_step, run, "DONE", message="two\nlines")
        thread = threading.Thread(target=journal.flush)
        thread.start()
        wait_for(lambda: repository.db.failures > 2, "tries to write")
        assert thread.is_alive() and rows(repository, "select * from session_step") == []
        other.execute("rollback")
    thread.join(60)
    assert rows(repository, "select run, status, message from session_step") == [(run, "DONE", "two lines")]
    assert rows(repository, "select variables from session") == [('{"v": "1"}',)]
    journal.count_from(7)
    assert journal.note_begin(progress.begin_step, 1, "b", 1) == 8


def test_a_secret_is_masked_with_each_of_its_lines(repository):
    journal = program.Journal(repository, 1001, "S", program.Clock())
    journal.hide("first line\nabc\nfirst line and more")
    assert journal.mask("first line and more, abc, first line") == "***, abc, ***"


# -- course ------------------------------------------------------------------------------------------------------------

def test_a_failure_that_an_attempt_made_good_does_not_tell_the_end(repository, ends, tmp_path):
    once = str(tmp_path / "once")
    ticket = ask(repository, step("a", "[ -e %s ] || { touch %s; exit 3; }" % (once, once), attempts=2),
                 step("b", "true", on_ok="FAIL"))
    complete(program.Session(ticket, repository, ends.around))
    assert rows(repository, "select status, message from session") == [("ERROR", "step b ends in FAIL")]


def test_a_secret_file_that_cannot_be_read_ends_the_session_in_error(repository, ends):
    secret = repository.secrets.write({"key": "top-secret"})
    document = program.Definitions().read(json.dumps({"scenarios": [{
        "name": "S", "version": "1", "variables": {"key": {"secret": True}}, "steps": [step("a", "true")]}]}))
    repository.db.write(repository.imports.put, document, "AGENT", 1795824000.0, True)
    ticket = repository.db.write(
        repository.arrivals.add, program.SessionRequest("S", "AGENT", variables={"key": "top-secret"},
                                                        secret_file=secret), 1795824000.0)
    with open(repository.path + ".secret." + secret, "w") as file:
        file.write("{")
    complete(program.Session(ticket, repository, ends.around))
    assert [ending.status for ending in ends.endings] == ["ERROR"] and status_of(repository, ticket) == "ERROR"
    assert rows(repository, "select * from session_step") == []


def test_a_stop_before_a_minder_starts_leaves_no_spool(repository, ends):
    ticket = ask(repository, step("a", "true"))
    control = program.Control(program.Clock(), "%s/%d" % (repository.db.uuid, ticket.session))
    journal = program.Journal(repository, ticket.session, "S", program.Clock())
    execution = program.Execution(1, {}, control, journal, ends.around, True)
    control.stop(program.IMMEDIATE, "stopped")
    with pytest.raises(program.Interrupted):
        execution.complete(execution.process(program.Command(["true"], {}), is_adoptable=True))
    assert spool_names(repository) == [] and execution.close() == ([], None)


@pytest.mark.parametrize("on_stale", ["error", "adopt"])
def test_a_stop_at_any_moment_ends_all_that_was_begun(repository, ends, tmp_path, on_stale):
    dice = random.Random(1)
    for turn in range(12):
        pids = tmp_path / ("pids%d" % turn)
        ticket = ask(repository, step("a", "echo $$ >> %s; sleep 0.03" % pids, "false", attempts=2, retry_delay=0.05,
                                      on_error="b"),
                     step("b", "echo $$ >> %s; exec sleep 0.1" % pids, "true"), on_stale=on_stale)
        session = program.Session(ticket, repository, ends.around)
        is_gentle = turn % 3 == 0
        with running(session):
            timer = threading.Timer(dice.uniform(0, 0.5), session.stop,
                                    (program.NORMAL if is_gentle else program.IMMEDIATE, "stopped"))
            timer.start()
        timer.join()
        assert status_of(repository, ticket) in ("WARNING", "STOPPED")
        assert not [pid for pid in (pids.read_text().split() if pids.exists() else ()) if is_alive(int(pid))]
        assert spool_names(repository) == []
    for table in ("session_step", "session_task"):
        assert rows(repository, "select * from %s where status='RUNNING'" % table) == []
    assert {"STOPPED"} <= {ending.status for ending in ends.endings} and len(ends.endings) == 12
    assert ends.losses == []


def test_what_is_left_at_any_moment_is_adopted_and_nothing_is_done_twice(repository, ends, tmp_path):
    dice = random.Random(2)
    is_adopted = set()
    for turn in range(8):
        marks = tmp_path / ("marks%d" % turn)
        ticket = ask(repository, step("a", "echo one | tee -a %s; sleep 0.1" % marks, "echo two | tee -a %s" % marks),
                     step("b", "sleep 0.1; echo three | tee -a %s" % marks), on_stale="adopt")
        session = program.Session(ticket, repository, ends.around)
        with running(session):
            timer = threading.Timer(dice.uniform(0, 0.8), session.leave)
            timer.start()
        timer.join()
        status = status_of(repository, ticket)
        is_adopted.add(status == "RUNNING")
        if status == "RUNNING":
            row = repository.db.read(repository.sessions.get, ticket.session)
            again = repository.find_adoptable(row, lambda pid, started: program.start_time(pid) == started)
            assert again.is_adopted
            complete(program.Session(again, repository, ends.around))
        assert status_of(repository, ticket) == "DONE"
        assert marks.read_text().split() == ["one", "two", "three"]
        log = rows(repository, "select line from session_log where session=? order by task_run, position",
                   ticket.session)
        assert [line for line, in log] == ["one", "two", "three"]
        assert rows(repository, "select attempt from session_task where session=? order by run", ticket.session) == \
            [(1,), (1,), (1,)]
        assert spool_names(repository) == []
    assert True in is_adopted and len(ends.endings) == 8


# -- what it costs -----------------------------------------------------------------------------------------------------

def commits(repository):
    return rows(repository, "select sum(mark) from commit_mark")[0][0]


@pytest.mark.parametrize("tasks, waited, most", [
    (["true"], 1, 3), (["true", "true"], 2, 5), ([{"type": "set", "variable": "v", "value": "1"}] * 3, 0, 1)])
def test_a_session_waits_for_a_commit_before_each_process_and_for_no_other(repository, ends, monkeypatch, tasks, waited,
                                                                           most):
    ticket = ask(repository, step("a", *tasks), variables={"v": "0"})
    flush, flushes, before = program.Journal.begin_flush, [], commits(repository)

    def begin_flush(journal):
        flushes.append(flush(journal))
        return flushes[-1]
    monkeypatch.setattr(program.Journal, "begin_flush", begin_flush)
    complete(program.Session(ticket, repository, ends.around))
    assert status_of(repository, ticket) == "DONE" and len(flushes) == waited
    assert waited < commits(repository) - before <= most


def test_an_exec_takes_few_statements(repository):
    ask(repository, step("a", "true"))
    connection, statements = repository.db._connections.get_writer(), []
    connection.set_trace_callback(lambda statement: statement.startswith("--") or statements.append(statement))
    repository.db.write(repository.arrivals.add, program.SessionRequest("S", "AGENT"), 1795824000.0)
    connection.set_trace_callback(None)
    assert any("insert into session" in statement for statement in statements) and len(statements) <= 7, statements
