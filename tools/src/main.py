"""The command line, signals, and the order of start and stop.

Thread MainThread: waits for a signal or SHUTDOWN, then stops the others in order.
"""
import argparse
import contextlib
import logging
import os
import resource
import signal
import sys

from .base.vocabulary import (CLEAN_S, DEFAULT_NAME, DEFAULT_PORT, EXIT_CANNOT_START, EXIT_OK,
                              KEEP_DAYS, MAX_CONNECTIONS, MAX_IMPORT_LINE, MAX_LINE, MAX_OUTPUT,
                              MAX_QUEUE, MIN_LINE, SESSIONS_PER_CORE, WAKE)
from .base.errors import AgentError, CannotStart, NotFound
from .base.program import VERSION, log, program_path, start_over_lean
from .base.times import Clock, local_iso
from .base.words import check_name
from .store.files import NameLock, make_folder
from .store.work import WorkRepository
from .processes.process import start_error
from .processes.minder import run_minder
from .tasks.task import run_helper
from .agent.places import open_master
from .agent.agent import Agent
from .agent.exchange import import_into
from .agent.figures import ping
from .server.server import Server, check_host, notify_systemd


def parse_arguments(arguments):
    """The command line -> argparse's namespace, the settings; exits 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="agent.py", description="A job-execution and scheduling agent in one file.")
    add = parser.add_argument
    add("--name", default=DEFAULT_NAME, help="name of the agent (default %(default)s)")
    add("--host", default="127.0.0.1", help="loopback address to listen on (default %(default)s)")
    add("--port", type=_between(0, 65535), default=DEFAULT_PORT,
        help="port to listen on, 0 for any (default %(default)s)")
    add("--master", metavar="PATH", help="master repository (default sqlite_repos/master.db beside "
        "agent.py, made when it does not exist)")
    add("--create", dest="is_creating", action="store_true",
        help="make the master of --master when it does not exist")
    add("--import", dest="files", metavar="FILE", nargs="+",
        help="import definitions, also beside a running agent, and exit")
    add("--repo", metavar="NAME", help="work repository for --import (default: of the lowest id)")
    add("--replace", action="store_true", help="let --import replace scenario versions")
    add("--max-sessions", type=_between(1, 10000), metavar="N",
        help="sessions at once (default %d per core)" % SESSIONS_PER_CORE)
    add("--max-queue", type=_between(1, 10 ** 9), default=MAX_QUEUE, metavar="N",
        help="outstanding sessions (default %(default)s)")
    add("--max-connections", type=_between(1, 100000), default=MAX_CONNECTIONS, metavar="N",
        help="connections at once (default %(default)s)")
    add("--max-line", type=_between(MIN_LINE, MAX_IMPORT_LINE), default=MAX_LINE, metavar="BYTES",
        help="bytes of a request (default %(default)s)")
    add("--max-output", type=_between(1024, 1 << 30), default=MAX_OUTPUT, metavar="BYTES",
        help="output kept of a task (default %(default)s)")
    add("--keep-days", type=_between(1, 100000), default=KEEP_DAYS, metavar="DAYS",
        help="how long ended sessions are kept (default %(default)s)")
    add("--clean-every", dest="clean_every_s", type=_between(1, 86400), default=int(CLEAN_S),
        metavar="SECONDS", help="between two looks for stale sessions (default %(default)s)")
    add("--host-id", default="", metavar="ID", help="identity of this host (default: the system's)")
    add("--insecure-fs", dest="is_insecure_fs", action="store_true",
        help="allow repositories on a network file system")
    add("--task", type=int, help=argparse.SUPPRESS)     # the role of a helper, for the agent itself
    add("--hold", dest="spool", help=argparse.SUPPRESS)         # the role of a minder, likewise
    add("--version", action="version", version="agent.py " + VERSION)
    settings = parser.parse_args(arguments)
    try:
        check_name(settings.name)
    except ValueError as error:
        parser.error("--name %s" % error)
    if settings.master is None:
        if settings.is_creating:
            parser.error("--create goes with --master")
        beside = os.path.dirname(program_path())
        settings.master = os.path.join(beside, "sqlite_repos", "master.db")
        settings.is_creating = True
    return settings


def _between(low, high):
    def whole_number(text):
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError("must be from %d to %d" % (low, high))
        return value
    whole_number.__name__ = "whole number"
    return whole_number


def start_logging():
    """The agent's own log: stderr, a line an entry; a broken stderr stops nothing."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.raiseExceptions = False


def import_files(settings, clock):
    """--import: exit code 0, or 1 with the faults on stderr; takes no lock. CannotStart."""
    if settings.is_creating:
        make_folder(os.path.dirname(os.path.abspath(settings.master)))
    master = open_master(settings, clock)
    with contextlib.closing(master.db):
        is_done = all(_import_file(master, path, settings, clock) for path in settings.files)
    return EXIT_OK if is_done else EXIT_CANNOT_START


def _import_file(master, path, settings, clock):
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        attachments = [found for found in master.list_attachments()
                       if settings.repo in (None, found.name)]
        if not attachments:
            raise NotFound("no work repository %s is attached" % (settings.repo or "at all"))
        number, name, work_path, expected = attachments[0]
        repository = WorkRepository(number, name, work_path, clock).open(expected)
        with contextlib.closing(repository.db):
            document, counts = import_into(master, repository, text, settings.name,
                                           clock.now(), settings.replace)
    except AgentError as error:
        for place, reason in error.faults:
            _say("%s: %s: %s" % (path, place, reason))
        _say("%s: %s" % (path, error.message))
    except (OSError, UnicodeDecodeError) as error:
        _say("%s: %s" % (path, getattr(error, "strerror", None) or "is not UTF-8"))
    else:
        for place, reason in document.list_warnings():
            _say("%s: %s: %s" % (path, place, reason))
        print("%s: %d scenarios and %d schedules imported" % ((path,) + counts))
        return True
    return False


def _say(text):
    print("agent.py: %s" % text, file=sys.stderr)
    return EXIT_CANNOT_START


def serve(settings, clock):
    """Runs an agent to its end -> exit code. CannotStart."""
    address = check_host(settings.host)
    folder = os.path.dirname(os.path.abspath(settings.master))
    if not os.path.exists(settings.master) and not settings.is_creating:
        raise CannotStart("the master repository %s does not exist; --create makes it"
                          % settings.master)
    is_new_folder = make_folder(folder)
    lock = NameLock(settings.master, settings.name).take()
    try:
        agent = Agent(settings, clock)
        server = Server(agent, address, settings.port, settings.max_connections, settings.max_line)
        lock.note("pid %d on %s:%d since %s" % (
            os.getpid(), address, server.port, local_iso(clock.now())))
        run_to_end(agent, server, address)
        log.info("stopped")
    finally:
        lock.release()
        if is_new_folder:
            with contextlib.suppress(OSError):      # only when nothing was put into it
                os.rmdir(folder)
    return EXIT_OK


def run_to_end(agent, server, address):
    """Starts the agent, listens, and waits until it is to stop."""
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)

    def wake():
        with contextlib.suppress(BlockingIOError):
            os.write(wake_in, WAKE)
    # a handler in Python would not run when the signal comes just before a blocking read
    signal.set_wakeup_fd(wake_in)
    before = {number: signal.signal(number, lambda *_: None)
              for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        agent.start(address, server.port)
        server.listen()
        ready = "agent %s ready on %s:%d" % (agent.name, address, server.port)
        print("%s version=%s repositories=%s" % (ready, VERSION, dict(ping(agent))["repositories"]),
              file=sys.stderr, flush=True)
        notify_systemd()
        agent.run_until_stopped(wake_out, wake)
    finally:
        server.close()
        agent.close()
        for number, handler in before.items():      # no signal cuts the closing short
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(wake_out)
        os.close(wake_in)


def raise_file_limit(settings):
    """Files and sockets that its own limits may need, as far as the host allows."""
    wanted = settings.max_connections + 4 * (settings.max_sessions or 64) + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        log.warning("the host allows %d open files; the limits on connections and sessions may "
                    "need %d (ulimit -n)", most, wanted)


def main(arguments=None, clock=None):
    """The command line -> exit code."""
    settings, clock = parse_arguments(arguments), clock or Clock()
    if settings.task is not None:
        return run_helper(settings.task)
    start_logging()
    if settings.spool is not None:
        return run_minder(settings.spool)
    try:
        if settings.files:
            return import_files(settings, clock)
        raise_file_limit(settings)
        return serve(settings, clock)
    except AgentError as error:
        return _say(error.message)
    except OSError as error:
        return _say(start_error(error))


if __name__ == "__main__":
    start_over_lean()
    sys.exit(main())
