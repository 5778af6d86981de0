"""Sessions that wait without a thread, and what has them go on: on a host that has no thread, or no memory."""
import queue
import threading
import time

import pytest

import agent as program
from conftest import wait_for
from support.queues import QueuedSession, WellRepository


class Called:
    """A session that waits in a Parking or a queue; the test says for what."""
    number, is_begun = 1001, True

    def __init__(self, is_apart=False, is_ready=False):
        self.is_apart, self.has_parked, self._is_ready = is_apart, False, is_ready

    def is_ready(self):
        return self._is_ready


class Refusals:
    """In place of Worker: threads that the host does not give, with how many it was asked for."""

    def __init__(self, error):
        self.error, self.times, self.askers = error, [], []

    def __call__(self, *_):
        self.times.append(time.monotonic())
        self.askers.append(threading.current_thread())
        if self.error is not None:
            raise self.error
        return self

    def try_start(self):
        return False


@pytest.mark.parametrize("error", [None, MemoryError()], ids=["no thread", "no memory"])
def test_who_may_go_on_waits_a_moment_for_a_thread_and_is_not_lost(monkeypatch, error):
    refusals, gone_on = Refusals(error), queue.Queue()
    parking = program.Parking(program.Clock(), gone_on.put, None)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(program, "Worker", refusals)
            sessions = [Called(is_apart=True, is_ready=True) for _ in range(3)]
            for session in sessions:
                parking.put(session, None)
            wait_for(lambda: len(refusals.times) >= 9, "three tries for each")
            assert refusals.times[8] - refusals.times[0] >= program.TRY_S
        assert {gone_on.get(timeout=60) for _ in sessions} == set(sessions)
    finally:
        parking.close()


def test_a_thread_without_memory_for_it_is_one_that_the_host_does_not_give(monkeypatch):
    def start(_):
        raise MemoryError()
    monkeypatch.setattr(threading.Thread, "start", start)
    assert not program.Worker(print, "worker").try_start()


class Course(QueuedSession):
    """It waits in its slot once, and is over when it has been called."""

    def __init__(self, ticket, repository):
        super().__init__(ticket, repository)
        self.turns, self.go = 0, threading.Event()

    def run(self):
        self.turns += 1
        if self.ticket.is_child:        # one that keeps its thread
            self.go.wait(60)
        return self.turns > 1


@pytest.fixture
def open_queue():
    """Makes SessionQueues of so many slots."""
    made = []

    def make(slots):
        made.append(program.SessionQueue(slots, Course, lambda: False, program.Clock()))
        return made[-1]
    yield make
    for each in made:
        each.close()
        each.join()


def queue_up(queue, number, is_child=False):
    queue.add(program.Ticket(number, "QUEUED", "AGENT", is_child=is_child), WellRepository)


def begin_turn(queue, number, is_child=False):
    """Has a session begin -> the Course, in its first wait."""
    queue_up(queue, number, is_child)
    wait_for(lambda: queue.find(number) and queue.find(number).turns == 1, "its begin")
    session = queue.find(number)
    if not is_child:
        wait_for(lambda: session.has_parked, "it to wait")
    return session


def test_who_wakes_a_session_starts_no_thread(open_queue, monkeypatch):
    """It may be the writer of a repository: that must not wait, nor end, by it."""
    queue, refusals = open_queue(3), Refusals(MemoryError())
    first, second = begin_turn(queue, 1), begin_turn(queue, 2, is_child=True)
    monkeypatch.setattr(program, "SlotThread", refusals)
    first.parking.call(first)
    assert threading.current_thread() not in refusals.askers
    second.go.set()
    wait_for(lambda: first.turns == 2, "it to go on")


def test_who_begins_while_there_is_no_memory_for_a_further_thread_is_not_lost(open_queue, monkeypatch):
    queue = open_queue(3)
    first = begin_turn(queue, 1)
    queue.hold(True)
    queue_up(queue, 2)
    queue_up(queue, 3)
    monkeypatch.setattr(program, "SlotThread", Refusals(MemoryError()))
    queue.hold(False)
    for number in (2, 3):
        wait_for(lambda: queue.find(number) and queue.find(number).has_parked, "its turn")
    first.parking.call(first)
    wait_for(lambda: first.turns == 2, "the first to go on")


def test_a_thread_outlives_what_goes_wrong_when_its_session_is_to_wait(open_queue, monkeypatch, caplog):
    """It has started processes, whose exit codes would be lost with it; and nobody replaces it."""
    def park(*_):
        raise MemoryError()
    queue = open_queue(2)
    with monkeypatch.context() as patch:
        patch.setattr(Course, "park", park)
        queue_up(queue, 1)
        wait_for(lambda: "MemoryError" in caplog.text, "its fault to be told")
    begin_turn(queue, 2)


def test_a_queue_that_is_over_lets_go_on_who_was_called_before(open_queue, monkeypatch):
    """As whose commit has failed with the end of its repository: that is told."""
    queue = open_queue(3)
    first, second = begin_turn(queue, 1), begin_turn(queue, 2, is_child=True)
    monkeypatch.setattr(program, "SlotThread", Refusals(MemoryError()))
    first.parking.call(first)
    queue.close()
    joining = threading.Thread(target=queue.join)
    joining.start()
    wait_for(lambda: queue._slots._is_joining, "the end of the queue to be waited for")
    assert first.turns == 1
    second.go.set()
    joining.join(60)
    assert first.turns == 2


def test_sessions_that_keep_their_threads_slow_the_others_down_once(open_queue, monkeypatch):
    """Not at each turn of each of them."""
    sleep, stalls = program.SlotThreads._sleep, []

    def count(threads, timeout_s=-1):
        is_called = sleep(threads, timeout_s)
        stalls.extend([timeout_s] if timeout_s > 0 and not is_called else [])
        return is_called
    monkeypatch.setattr(program, "STALL_S", 0.3)
    monkeypatch.setattr(program.SlotThreads, "_sleep", count)
    queue = open_queue(60)
    keepers = [begin_turn(queue, number, is_child=True) for number in (1, 2)]
    for number in range(3, 43):
        queue_up(queue, number)
    wait_for(lambda: all(queue.find(number) and queue.find(number).has_parked for number in range(3, 43)), "all to begin")
    assert len(stalls) < 20
    for keeper in keepers:
        keeper.go.set()
