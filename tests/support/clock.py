"""Time in the test's hand."""
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
