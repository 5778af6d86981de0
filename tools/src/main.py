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

from .base.vocabulary import EXIT_CANNOT_START, EXIT_OK, EXIT_USAGE, WAKE
from .base.options import COMMAND_OPTIONS
from .base.errors import AgentError, CannotStart, NotFound
from .base.program import VERSION, log, program_path, start_over_lean
from .base.times import Clock, local_iso
from .base.words import check_name
from .base.files import make_folder
from .store.files import tell_doors
from .store.locks import NameLock
from .store.work import WorkRepository
from .processes.process import start_error
from .processes.minder import run_minder
from .tasks.task import run_helper
from .agent.opening import open_master
from .agent.agent import Agent
from .agent.exchange import import_into
from .agent.figures import ping
from .protocol.manual import make_manual
from .server.server import Server, check_host, notify_systemd


def parse_arguments(arguments):
    """The command line -> argparse's namespace, the settings; exits 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="agent.py", description="A job-execution and scheduling agent in one file.")
    for option in COMMAND_OPTIONS:
        _add_option(parser, option)
    parser.add_argument("--task", type=int, help=argparse.SUPPRESS)     # the role of a helper
    parser.add_argument("--hold", dest="spool", help=argparse.SUPPRESS)         # of a minder
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


def _add_option(parser, option):
    """Adds a CommandOption; argparse has --help itself."""
    keywords = {"help": option.told}
    if option.attribute:
        keywords["dest"] = option.attribute
    if option.name == "--help":
        return
    if option.name == "--version":
        keywords.update(action="version", version="agent.py " + VERSION)
    elif not option.shown:
        keywords["action"] = "store_true"
    else:
        keywords.update(metavar=option.shown, default=option.default,
                        type=_between(*option.limits) if option.limits else str)
        if option.count:
            keywords["nargs"] = option.count
    parser.add_argument(option.name, **keywords)


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
        attachments = [attachment for attachment in master.list_attachments()
                       if settings.repo in (None, attachment.name)]
        if not attachments:
            raise NotFound("no work repository %s is attached" % (settings.repo or "at all"))
        number, name, work_path, expected = attachments[0]
        repository = WorkRepository(number, name, work_path, clock).open(expected)
        tell_doors(repository.db.label, work_path)
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


def print_manual(topic):
    """--manual: exit code 0, or 2 for a topic that there is not."""
    try:
        text = make_manual(topic)
    except NotFound as error:
        _say(error.message)
        return EXIT_USAGE
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:             # whoever reads it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return EXIT_OK


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
        print("%s version=%s repositories=%s" % (ready, VERSION, ping(agent)["repositories"]),
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
    if settings.manual is not None:
        return print_manual(" ".join(settings.manual))
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
    except (OSError, MemoryError, RuntimeError) as error:      # RuntimeError: no thread
        return _say(start_error(error))


if __name__ == "__main__":
    start_over_lean()
    sys.exit(main())
