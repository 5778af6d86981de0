"""How a session waits for what takes long: without a thread meanwhile."""
from typing import Any, Callable, NamedTuple, Optional, Tuple

from .control import Interrupted


class Waiting(NamedTuple):
    """What a session waits for that needs no thread meanwhile."""
    is_over: Callable               # whether it can go on
    patience_s: Optional[float]     # after so many seconds it looks for itself
    children: Tuple[int, ...] = ()  # the sessions whose end it waits for
    engine_task: Any = None         # or the EngineTask
    is_deaf: bool = False           # stops and time-outs are not its business now
    has_slot: bool = False          # its slot is no other's meanwhile
    is_between: bool = False        # a normal stop ends it, too


def await_in_slot(control, is_over, timeout_s=None, is_between=False):
    """A generator, Control.wait() without a thread: it yields a Waiting until is_over(), or for so
    many seconds. control.wake() has it look again. Interrupted, after all processes are ended."""
    begun = control.now()
    control.wait(is_over, 0.0, is_between)
    while not is_over():
        left_s = timeout_s and timeout_s - (control.now() - begun)
        if timeout_s is not None and left_s <= 0:
            return
        yield Waiting(is_over, left_s, has_slot=True, is_between=is_between)
        control.wait(is_over, 0.0, is_between)


def await_deaf(is_over):
    """The same for what comes soon in any case: no stop and no time-out ends it."""
    while not is_over():
        yield Waiting(is_over, None, is_deaf=True, has_slot=True)


def await_flush(control, journal):
    """A generator, Journal.flush() without a thread."""
    pending, follow_up = journal.begin_flush()
    pending.call_when_done(control.wake)
    yield from await_deaf(lambda: pending.is_done)
    pending.result()
    follow_up(pending)


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
