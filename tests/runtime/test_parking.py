"""Sessions that wait without a thread, and what has them go on: on a host that has no thread, or no memory."""
import queue
import threading
import time

import pytest

import agent as program
from conftest import wait_for


class Waiter:
    """A session that waits in a Parking or a queue; the test says for what."""
    number, is_begun = 1001, True

    def __init__(self, is_apart=False, is_ready=False):
        self.is_apart, self.has_parked, self._is_ready = is_apart, False, is_ready

    def is_ready(self):
        return self._is_ready


class Refusals:
    """In place of Worker: threads that the host does not give, with how many it was asked for."""

    def __init__(self, error):
        self.error, self.times = error, []

    def __call__(self, *_):
        self.times.append(time.monotonic())
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
            sessions = [Waiter(is_apart=True, is_ready=True) for _ in range(3)]
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
