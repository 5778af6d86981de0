"""The minder: agent.py in the role that keeps an adoptable task alive beside the agent."""
import json
import os
import sys

from ..base.vocabulary import EXIT_OK
from ..base.times import Clock
from ..store.spool import Spool
from .tree import start_time
from .output import Capture, Output
from .process import Command, Process, start_error


def run_minder(path):
    """agent.py in the role of a minder: runs one process, its output and exit code going to the
    spool at `path`, whether the agent lives or not -> exit code."""
    command, limit, secrets = json.loads(sys.stdin.read())
    command, spool, output = Command(*command), Spool(path), Output()
    spool.note(holder=os.getpid(), holder_started=start_time(os.getpid()))
    capture = Capture(limit, spool.store, Clock(), command.is_captured, secrets)
    try:
        process = Process(command, capture, output, lambda: None)
    except (OSError, ValueError) as error:
        spool.note(is_over=1, error=start_error(error))
        return EXIT_OK
    process.finish(timeout_s=None)
    output.forget(capture)
    spool.store(*capture.take(is_end=True))
    spool.note(is_over=1, rc=process.rc, captured=capture.captured)
    output.close()
    return EXIT_OK
