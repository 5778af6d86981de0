"""Time in the test's hand."""
import agent

NOON = 1780315200               # 2026-06-01T12:00:00Z, a Monday


class FakeClock:
    """A clock that stands still until the test moves it; step() moves the time of day alone."""

    def __init__(self, now=NOON):
        self.time, self.steady = float(now), 5000.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.steady

    def move(self, seconds):
        self.time += seconds
        self.steady += seconds

    def step(self, seconds):
        self.time += seconds


class HurriedClock(agent.Clock):
    """The system's clock, on which a test lets time pass at once: processes and threads go on meanwhile."""

    def __init__(self):
        self.passed = 0.0               # seconds, of both clocks: none has stepped

    def now(self):
        return super().now() + self.passed

    def monotonic(self):
        return super().monotonic() + self.passed
