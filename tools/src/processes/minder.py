"""The minder: agent.py in the role that keeps an adoptable task alive beside the agent."""
import json
import os
import queue
import sys
import time

from ..base.vocabulary import EXIT_OK, TRY_S
from ..base.errors import RepositoryError, RepositoryGone
from ..base.times import Clock
from ..store.spool import Spool
from .alive import start_time
from .output import Capture, Output
from .process import Command, Process, is_passing, start_error


def run_minder(path):
    """agent.py in the role of a minder: runs one process, its output and exit code going to the
    spool at `path`, whether the agent lives or not -> exit code.

    What cannot be written now is tried until it can be; the process goes on meanwhile. Where the
    spool is gone nobody reads it any more, and the agent, if there is one, ends the process.
    """
    command, limit, secrets = json.loads(sys.stdin.read())
    command, spool, output = Command(*command), Spool(path), Output()
    # has (rows, omitted, on_stored) that the output thread hands over, and None at the exit
    news = queue.Queue()
    write(spool.note, holder=os.getpid(), holder_started=start_time(os.getpid()))
    capture = Capture(limit, lambda *rows: news.put(rows), Clock(), command.is_captured, secrets)
    try:
        process = start_at_last(command, capture, output, lambda: news.put(None))
    except (OSError, ValueError) as error:
        write(spool.note, is_over=1, error=start_error(error))
        return EXIT_OK
    write(spool.note, pid=process.pid, pid_started=process.started)
    store_all(spool, iter(news.get, None))
    process.finish(timeout_s=None)
    output.forget(capture)
    store_all(spool, [news.get() for _ in range(news.qsize())])
    write(spool.store, *capture.take(is_end=True))
    write(spool.note, is_over=1, rc=process.rc, captured=capture.captured)
    output.close()
    return EXIT_OK


def start_at_last(command, capture, output, notify):
    """The Process of a Command, as soon as the host has what it takes. OSError, ValueError."""
    while True:
        try:
            return Process(command, capture, output, notify).begun()
        except (OSError, MemoryError) as error:
            if not is_passing(error):
                raise
        time.sleep(TRY_S)


def store_all(spool, news):
    """Writes rows down as they come: (rows, omitted, on_stored)."""
    for rows, omitted, on_stored in news:
        write(spool.store, rows, omitted)
        on_stored()


def write(method, *arguments, **columns):
    """Has a Spool write, as soon as it can."""
    while True:
        try:
            method(*arguments, **columns)
            return
        except RepositoryGone:
            return
        except RepositoryError:
            time.sleep(TRY_S)
