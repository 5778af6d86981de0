"""Processes that have lost their parent: they become this one's children, and are reaped.

Without that they would go to process 1, out of sight; and where this is process 1, in a container,
what has ended would stay in the process table for ever.
"""
import contextlib
import os
import sys

from ..base.program import call_c_library

HAS_ORPHANS = sys.platform.startswith("linux")
PR_SET_CHILD_SUBREAPER = 36         # prctl(2)
WNOTHREAD = 0x20000000              # wait(2): of the thread that asks


def take_orphans():
    """From now on what loses its parent below this process becomes the main thread's child, whose
    part it is to reap_orphans(). At the end of this process it goes on to the next above. Nothing
    is done where prctl is out of reach."""
    if HAS_ORPHANS:
        call_c_library("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans():
    """Takes the orphans that have ended out of the process table; for the main thread alone. What
    other threads have started is not touched: each waits for its own (Process)."""
    if HAS_ORPHANS:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG | WNOTHREAD)[0]:
                pass
