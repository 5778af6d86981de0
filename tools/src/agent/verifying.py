"""--verify-audit: whether the chains of the audit are whole; beside a running agent, too."""
import os
from typing import List, NamedTuple

from ..base.errors import CannotStart, RepositoryError
from ..store.chain import check_chains
from ..store.connections import Connections


class Verdict(NamedTuple):
    """What a look through the audit has shown, in lines, and whether all is whole."""
    lines: List[str]
    is_whole: bool


def verify_audit(path, clock, head=None):
    """Looks through all chains of the master at this path, and whether one of them has a row of the
    hash `head`, if that is given -> Verdict. Nothing is written. CannotStart."""
    connections = Connections(os.path.abspath(path), "master repository", False, clock)
    try:
        with connections.reading(is_new=True) as connection:
            states = list(check_chains(connection, head))
    except RepositoryError as error:
        raise CannotStart(error.message) from None
    lines = ["chain %s: %d rows, head %s, %s" % (
        state.agent, state.count, state.head,
        "broken: " + state.fault if state.fault else "whole") for state in states]
    is_whole = not any(state.fault for state in states)
    if not lines:
        lines.append("no audit: no agent has written one here yet")
    if head is not None and not any(state.has_noted for state in states):
        is_whole = False
        lines.append("no row has the hash %s: the end of a chain was cut off, or a purge has taken "
                     "that row" % head)
    return Verdict(lines, is_whole)
