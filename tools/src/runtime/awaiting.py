"""How a session waits for one that it has started: without a thread meanwhile."""
from typing import Any, Callable, NamedTuple, Optional, Tuple

from .control import Interrupted


class Waiting(NamedTuple):
    """What a session waits for that needs no thread meanwhile."""
    is_over: Callable               # whether it can go on
    patience_s: Optional[float]     # after so many seconds it looks for itself
    children: Tuple[int, ...] = ()  # the sessions whose end it waits for
    engine_task: Any = None         # or the EngineTask
    is_deaf: bool = False           # stops and time-outs are not its business now


def await_child(children, control, parent, session):
    """A generator that waits for the end of a child -> (status, message): it yields a Waiting
    whenever its parent is to go on later, without a thread meanwhile. What ends the waiting ends
    the child."""
    with children.bell(session, control.wake) as bell:
        try:
            while True:
                row = bell.find_end()
                if row is not None:
                    return row["status"], row["message"]
                yield Waiting(lambda: bell.has_rung, bell.patience_s, (session,))
                control.wait(lambda: bell.has_rung, 0.0)
        except Interrupted as interrupt:
            children.stop(session, "its parent, session %d: %s" % (parent, interrupt.reason))
            raise
