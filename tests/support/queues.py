"""Stand-ins for what a SessionQueue runs: sessions whose course the test decides."""


class WellRepository:
    """One that is well."""
    id, hold = 1, None

    class db:
        trouble = ""


class QueuedSession:
    """A session of a queue; what a test wants of it otherwise it says in a class of its own."""
    is_apart = lends_slot = has_parked = False
    is_begun = True

    def __init__(self, ticket, repository=WellRepository):
        self.number, self.ticket, self.repository = ticket.session, ticket, repository

    def is_ready(self):
        return False

    def park(self, parking, until=None):
        self.parking, self.has_parked = parking, True
        parking.put(self, until)

    def record_end(self, on_recorded):
        on_recorded(None)
