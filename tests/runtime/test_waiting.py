"""Sessions that wait without a thread: none is forgotten, none holds up another, and nothing of them stays."""
import gc
import threading
import time
import weakref

import pytest

import agent as program
from conftest import wait_for
from support.queues import QueuedSession, WellRepository

pytestmark = pytest.mark.once


class Waiter(QueuedSession):
    """A session that waits and goes on as often as it is told."""

    def __init__(self, number, turns=1, is_apart=False, until=None, work=lambda: None):
        super().__init__(program.Ticket(number, "QUEUED", "AGENT"))
        self.is_apart, self.turns, self.until, self.work = is_apart, turns, until, work
        self.runs, self.is_inside = 0, 0

    def run(self):
        self.is_inside += 1
        assert self.is_inside == 1
        self.work()
        self.runs += 1
        self.is_inside -= 1
        return self.runs > self.turns

    def park(self, parking):
        super().park(parking, self.until)


@pytest.fixture
def make_queue():
    queues = []

    def make(slots, sessions):
        by_number = {session.number: session for session in sessions}
        queue = program.SessionQueue(slots, lambda ticket, _: by_number[ticket.session], lambda: False, program.Clock())
        queues.append(queue)
        for session in sessions:
            queue.add(session.ticket, WellRepository)
        return queue
    yield make
    for queue in queues:
        queue.close()
        queue.join()


@pytest.mark.parametrize("is_apart", [False, True], ids=["in its slot", "apart"])
def test_whoever_is_called_goes_on_once_for_each_call(make_queue, is_apart):
    sessions = [Waiter(number, 20, is_apart) for number in range(1, 9)]
    queue = make_queue(3, sessions)

    def call(session):
        while session.runs <= session.turns:
            runs = session.runs
            if session.runs:
                session.parking.call(session)
            wait_for(lambda: session.runs > runs or not session.runs)
    callers = [threading.Thread(target=call, args=(session,)) for session in sessions]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert queue.wait_idle(60) and [session.runs for session in sessions] == [21] * 8


def test_what_keeps_threads_holds_up_no_other_session(make_queue):
    is_over = threading.Event()
    kept = [Waiter(number, 0, work=lambda: is_over.wait(60)) for number in range(1, 6)]
    others = [Waiter(number, 1, until=0.0) for number in range(6, 9)]
    queue = make_queue(8, kept + others)
    wait_for(lambda: queue.counts() == (5, 0), "the others to end")
    assert [session.runs for session in others] == [2] * 3
    is_over.set()
    assert queue.wait_idle(60)


def test_sessions_that_wait_for_a_long_time_at_most_leave_nothing(make_queue):
    """Their time is noted, and over long before."""
    far = time.monotonic() + 100000
    sessions = [Waiter(number, 1, until=far) for number in range(1, 301)]
    references, queue = [weakref.ref(session) for session in sessions], make_queue(4, sessions)
    for number in range(1, 301):
        wait_for(lambda: queue.find(number) is not None and queue.find(number).runs == 1)
        session = queue.find(number)
        session.parking.call(session)
    session = None
    assert queue.wait_idle(60)
    assert len(queue._parking._times) <= program.FEW_TIMES + 10
    queue._make = None
    del sessions
    gc.collect()
    assert sum(reference() is not None for reference in references) <= program.FEW_TIMES + 10


def test_a_sleep_and_a_retry_delay_take_a_slot_and_no_thread(make_inside):
    inside = make_inside("--max-sessions", "40").start()
    inside.import_document({"scenarios": [
        {"name": "NAP", "version": "1", "steps": [{"name": "s", "tasks": [{"type": "sleep", "seconds": 3000}]}]},
        {"name": "AGAIN", "version": "1", "steps": [{"name": "s", "attempts": 2, "retry_delay": 3000, "tasks": [
            {"type": "os", "command": "exit 1"}]}]}]})
    before = threading.active_count()
    sessions = [inside.ok("EXEC " + name)["session"] for name in ["NAP", "AGAIN"] * 20]
    wait_for(lambda: all(inside.rows("STATUS " + session)[-1].get("status") in ("RUNNING", "ERROR") and
                         len(inside.rows("STATUS " + session)) > 1 for session in sessions), "all to wait")
    waiting = inside.ok("EXEC NAP")["session"]
    assert inside.ok("PING")["running"] == "40" and inside.status(waiting)["status"] == "QUEUED"
    assert threading.active_count() - before <= 20
    for session in sessions:
        inside.ok("STOP %s -IMMEDIATE" % session)
    inside.wait_status(waiting, "RUNNING")
