"""What a load plan has to record, on its way to the repository, with the sessions of its runs."""
from ..base.vocabulary import RESERVED_VARIABLES, TRY_S
from ..base.controls import one_line
from ..base.errors import Changed, RepositoryError, RepositoryGone
from ..store.plans import NodeBegin, NodeEnd, NodeNote, VariablesNote
from .awaiting import Waiting
from .planrequests import PlanRequests

CHANGES_AT_ONCE = 50    # in a transaction, so that other requests have their turn
SOON_S = 0.05           # so long a thread waits for a commit itself


class PlanRecords:
    """Hands changes to the writer, those of runs with their requests; wake() is called once they
    are written."""

    def __init__(self, row, scenario, journal, around, wake):
        self._requests = PlanRequests(row, scenario, journal, around)
        self._hidden, self._journal, self._around = scenario.secrets, journal, around
        self._repository, self._wake = journal.repository, wake

    def record(self, starts, waits_for):
        """Records changes [(change, the NodeState of a run that begins by it, or None)]: a
        generator of Waitings, then -> [(NodeState, its result as of Plans.record, or the AgentError
        why it has no session)]. Conflict, RepositoryError."""
        waits_for, chunks, begun = tuple(waits_for), [], []
        self._requests.forget()
        try:
            for place in range(0, len(starts), CHANGES_AT_ONCE):
                chunks.append((yield from self._submit(starts[place:place + CHANGES_AT_ONCE],
                                                       waits_for)))
            while chunks:
                pending, pairs = chunks[0]
                while not pending.wait(SOON_S):
                    yield Waiting(lambda: chunks[0][0].is_done, None, waits_for, is_deaf=True)
                try:
                    results = pending.result()
                except Changed:         # a scenario was replaced at the same time
                    self._requests.forget()
                    self._requests.close(pairs, None)
                    chunks[0] = yield from self._submit(
                        [(strip(change), node) for change, node in pairs], waits_for)
                    continue
                self._requests.close(pairs, results)
                del chunks[0]
                begun += [(node, result or self._requests.take_fault(node))
                          for (_, node), result in zip(pairs, results) if node is not None]
        except Exception:
            for _, pairs in chunks:     # what was put aside is nobody's
                self._requests.close(pairs, None)
            raise
        return begun

    def _submit(self, pairs, waits_for):
        """Hands changes over, as soon as what they need can be read: a generator of Waitings, then
        -> (Pending, the pairs as they are written)."""
        prepared = []
        while len(prepared) < len(pairs):
            change, node = pairs[len(prepared)]
            try:
                prepared.append((self.mask(change) if node is None
                                 else self._requests.prepare(node, change), node))
            except RepositoryGone:
                self._requests.close(prepared, None)
                raise
            except RepositoryError:
                yield Waiting(lambda: False, TRY_S, waits_for, is_deaf=True)
        pending = self._repository.db.submit(
            self._repository.plans.record, self._journal.session, self._around.identity,
            [change for change, _ in prepared], self._around.clock.now(),
            on_done=lambda _: self._wake())
        return pending, prepared

    def mask(self, change):
        """A change without secrets, and on one line."""
        if isinstance(change, (NodeEnd, NodeNote)):
            return change._replace(message=one_line(self._journal.mask(change.message)))
        if isinstance(change, VariablesNote):
            return VariablesNote({name: value for name, value in change.values.items()
                                  if name not in RESERVED_VARIABLES and name not in self._hidden})
        return change


def strip(change):
    """A change that is to be prepared anew."""
    if isinstance(change, NodeBegin):
        return change._replace(request=None, former=None)
    return change
