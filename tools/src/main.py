"""The command line, signals, and the order of start and stop.

Thread MainThread: waits for a signal or SHUTDOWN, then stops the others in order.
"""
import argparse
import contextlib
import errno
import gc
import os
import signal
import sys

from .base.vocabulary import (EXIT_CANNOT_START, EXIT_OK, EXIT_USAGE, SESSIONS_PER_CORE, VERSION,
                              WAKE)
from .base.options import COMMAND_OPTIONS
from .base.errors import AgentError, CannotStart, NotFound
from .base.usage import make_option_parser
from .base.program import (keep_standard_descriptors, log, program_path, share_heaps,
                           start_over_lean)
from .base.times import Clock, local_iso
from .base.words import check_name
from .base.files import make_folder
from .store.files import tell_doors
from .store.locks import NameLock
from .store.restore import Restore
from .store.work import WorkRepository
from .processes.process import start_error
from .processes.limits import FileLimit
from .processes.minder import run_minder
from .processes.orphans import take_orphans
from .tasks.task import run_helper
from .runtime.bounds import Bounds, OWN_UMASK, check_address, check_bounds, read_types, tell_user
from .agent.opening import open_master
from .agent.agent import Agent
from .agent.audit import DONE_WELL, note_deed, note_offline
from .agent.doctor import REPAIRED, consult
from .agent.exchange import import_into
from .agent.figures import ping
from .agent.logwriter import log_to_file, start_logging
from .agent.service import list_unit_words, make_unit
from .agent.verifying import verify_audit
from .base.controls import show_controls
from .protocol.manual import make_manual
from .server.limits import read_limits
from .server.peer import is_loopback
from .server.server import Server, check_reach, find_address
from .server.systemd import Notifier
from .server.tls import Certificates
from .server.unix import read_mode

# which subprocess gives back to every process that it starts
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


def parse_arguments(arguments):
    """The command line -> argparse's namespace, the settings; exits 2 when it is wrong."""
    parser, groups = make_option_parser()
    for option in COMMAND_OPTIONS:
        _add_option(groups.get(option.name, parser), option)
    parser.add_argument("--task", type=int, help=argparse.SUPPRESS)     # the role of a helper
    parser.add_argument("--hold", dest="spool", help=argparse.SUPPRESS)         # of a minder
    settings = parser.parse_args(arguments)
    try:
        check_name(settings.name)
    except ValueError as error:
        parser.error("--name %s" % error)
    try:
        check_bounds(settings)
    except ValueError as error:
        parser.error(str(error))
    if settings.tls_cert is None and (settings.tls_key or settings.tls_client_ca):
        parser.error("--tls-key and --tls-client-ca go with --tls-cert")
    if read_mode(settings.unix_mode) is None:
        parser.error("--unix-mode takes an octal mode such as 0660")
    if settings.master is None:
        if settings.is_creating:
            parser.error("--create goes with --master")
        beside = os.path.dirname(program_path())
        settings.master = os.path.join(beside, "sqlite_repos", "master.db")
        settings.is_creating = True
    return settings


def _add_option(parser, option):
    """Adds a CommandOption to a parser, or a group of one; --help is there."""
    keywords = {"help": option.help_text}
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
        if option.count == "?":
            keywords["const"] = option.choices[0]
        if option.choices:
            keywords["choices"] = option.choices
    parser.add_argument(option.name, **keywords)


def _between(low, high):
    def whole_number(text):
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError("must be from %d to %d" % (low, high))
        return value
    whole_number.__name__ = "whole number"
    return whole_number


def import_files(settings, clock, writer):
    """--import: exit code 0, or 1 with the faults on stderr; takes no lock. CannotStart."""
    gc.disable()            # to look through all that was read, again and again, takes a fifth
    if settings.is_creating:
        make_folder(os.path.dirname(os.path.abspath(settings.master)))
    master = open_master(settings, clock)
    with contextlib.closing(master.db):
        is_done = all(_import_file(master, path, settings, clock, writer)
                      for path in settings.files)
    reason = _print()
    if reason is not None:
        writer.say(tell_failure("what was imported could not be told: %s" % os.strerror(reason)))
    return EXIT_OK if is_done else EXIT_CANNOT_START


def _import_file(master, path, settings, clock, writer):
    """Imports one file, and tells what came of it -> whether it was imported."""
    def tell(text):
        writer.say(tell_failure("%s: %s" % (path, text)))

    def note(outcome):
        note_offline(master, settings.name, "IMPORT",
                     "-REPO=" + settings.repo if settings.repo else "", outcome, clock.now())
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
            imported = import_into(master, repository, text, settings.name, clock.now(),
                                   settings.replace, tell_forbidden=Bounds(
                                       read_types(settings.allow_types)).tell_forbidden)
    except AgentError as error:
        for fault in error.faults:
            tell("%s: %s" % fault)
        tell(error.message)
        note(error.code)
    except (OSError, UnicodeDecodeError) as error:
        tell(getattr(error, "strerror", None) or "is not UTF-8")
    else:
        for place, reason in imported.warnings:
            tell("%s: warning: %s" % (place, reason))
        note(DONE_WELL)
        _print("%s: %d scenarios and %d schedules imported\n" % (
            show_controls(path), imported.count("scenario"), imported.count("schedule")))
        return True
    return False


def tell_audit(settings, clock):
    """--verify-audit: exit code 0, or 1 where a chain is broken. CannotStart."""
    verdict = verify_audit(settings.master, clock, settings.head)
    reason = _print("".join(show_controls(line) + "\n" for line in verdict.lines))
    if reason not in (None, errno.EPIPE):
        return _complain("it cannot be told: %s" % os.strerror(reason), EXIT_CANNOT_START)
    return EXIT_OK if verdict.is_whole else EXIT_CANNOT_START


def print_manual(topic):
    """--manual: exit code 0, or 2 for a topic that there is not, or 1 for a full disk."""
    try:
        text = make_manual(topic)
    except NotFound as error:
        return _complain(error.message, EXIT_USAGE)
    reason = _print(text)
    if reason in (None, errno.EPIPE):       # whoever reads it may have read enough
        return EXIT_OK
    return _complain("the manual cannot be written: %s" % os.strerror(reason), EXIT_CANNOT_START)


def print_unit(settings):
    """--service: exit code 0, or 1 for a full disk."""
    reason = _print(make_unit(settings.service, settings.name, list_unit_words(settings)))
    return EXIT_OK if reason in (None, errno.EPIPE) else _complain(
        "the unit cannot be written: %s" % os.strerror(reason), EXIT_CANNOT_START)


def look_after(settings, clock):
    """--doctor: exit code 0 when nothing was found, else 1, or 2 for wrong usage."""
    if not settings.is_doctor:
        return _complain("--repair goes with --doctor", EXIT_USAGE)
    lines, code = consult(settings, clock)
    if any(line.startswith(REPAIRED) for line in lines):
        with contextlib.suppress(AgentError):       # where nothing can be written, that is found
            note_deed("REPAIR", settings, clock)
    reason = _print("".join(line + "\n" for line in lines))
    return code if reason in (None, errno.EPIPE) else _complain(
        "what was found cannot be written: %s" % os.strerror(reason), EXIT_CANNOT_START)


def _complain(text, code):
    """Tells on stderr what is wrong, as far as that can be -> this exit code."""
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            print(tell_failure(text), file=sys.stderr)
    return code


def tell_failure(text):
    """The line that says why the program ends, or what it has not done."""
    return "agent.py: %s" % show_controls(text)


def _print(text=""):
    """Prints a text, and what could not be printed before -> the errno of what keeps it from
    that, or None. It stops nothing."""
    try:
        if sys.stdout is not None:
            sys.stdout.write(text)
            sys.stdout.flush()
    except OSError as error:
        return error.errno
    return None


def settle_streams():
    """What cannot be printed is given up, so that the end of the interpreter does not fail."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def serve(settings, clock, writer, own, umask):
    """Runs an agent to its end -> exit code. `own`: the writer of the log, where that is not
    stderr; `umask`: of the processes of tasks. CannotStart."""
    share_heaps()
    file_limit = FileLimit(4 * (settings.max_sessions or SESSIONS_PER_CORE * (os.cpu_count() or 1))
                           + 200, settings.max_connections)
    address = find_address(settings.host)
    needs_user = check_reach(settings, address)
    check_address(settings, is_loopback(address))
    certificates = None
    if settings.tls_cert is not None:
        certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca,
                                    clock)
    folder = os.path.dirname(os.path.abspath(settings.master))
    if not os.path.exists(settings.master) and not settings.is_creating:
        raise CannotStart("the master repository %s does not exist; --create makes it"
                          % settings.master)
    is_new_folder = make_folder(folder)
    lock = NameLock(settings.master, settings.name).take()
    try:
        agent = Agent(settings, clock, file_limit, umask)
        server = Server(agent, address, settings.port, read_limits(settings), file_limit,
                        certificates)
        lock.note("pid %d on %s:%d since %s" % (
            os.getpid(), address, server.port, local_iso(clock.now())))
        if settings.unix is not None:
            server.open_door(settings.unix, read_mode(settings.unix_mode))
            tell_doors("--unix", settings.unix)
        run_to_end(agent, server, needs_user, writer, own)
        log.info("stopped")
    finally:
        lock.release()
        if is_new_folder:
            with contextlib.suppress(OSError):      # only when nothing was put into it
                os.rmdir(folder)
    return EXIT_OK


def run_to_end(agent, server, needs_user, writer, own):
    """Starts the agent, listens, and waits until it is to stop. `own`: the writer of the log, where
    that is not stderr."""
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)

    def wake():
        with contextlib.suppress(BlockingIOError):
            os.write(wake_in, WAKE)
    def read_again():
        if own is not None:
            own.reopen()
        server.reread()
    # a handler in Python would not run when the signal comes just before a blocking read
    signal.set_wakeup_fd(wake_in)
    before = {number: signal.signal(number, lambda *_: None)
              for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    take_orphans()
    notifier = Notifier(os.environ)
    try:
        agent.start(server.host, server.port, needs_user)
        server.listen()
        tell_user(agent.settings)
        ready = "agent %s ready on %s:%d version=%s repositories=%s%s" % (
            agent.name, server.host, server.port, VERSION, ping(agent)["repositories"],
            server.tell_doors())
        writer.say(ready)
        if own is not None:
            log.info(ready)
        notifier.ready(lambda: tell_status(agent))
        agent.run_until_stopped(wake_out, wake, read_again, notifier.stopping)
    finally:
        server.close()
        agent.close()
        notifier.close()
        for number, handler in before.items():      # no signal cuts the closing short
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(wake_out)
        os.close(wake_in)


def tell_status(agent):
    """How the agent is, as `systemctl status` shows it."""
    return "%(status)s: %(running)d running, %(queued)d outstanding" % ping(agent)


def restore_signals():
    """What is ignored or blocked here would be so in every process of a task (exec keeps it).

    SIGCHLD gets its default: while it is ignored, exit codes are lost. What else was ignored by
    whoever started the agent (nohup, a shell's trap) still does nothing to it, by a handler.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in set(range(1, signal.NSIG)).difference(PYTHON_IGNORES):
        with contextlib.suppress(ValueError, OSError):      # there is no such signal
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD
                              else lambda *_: None)


def main(arguments=None, clock=None):
    """The command line -> exit code."""
    try:
        settings, clock = parse_arguments(arguments), clock or Clock()
    except OSError as error:            # of printing: before 3.9 argparse lets it through
        return EXIT_OK if error.errno == errno.EPIPE else _complain(
            "cannot write: %s" % error.strerror, EXIT_CANNOT_START)
    if settings.service is not None:
        return print_unit(settings)
    if settings.manual is not None:
        return print_manual(" ".join(settings.manual))
    if settings.task is not None:
        return run_helper(settings.task)
    if settings.spool is not None:
        return run_minder(settings.spool)
    if settings.is_doctor or settings.is_repairing:
        return look_after(settings, clock)
    writer = start_logging()
    try:
        umask = os.umask(OWN_UMASK)
        if settings.is_verifying:
            return tell_audit(settings, clock)
        if settings.files:
            return import_files(settings, clock, writer)
        if settings.backup is not None:
            Restore(settings.backup, settings.master, clock,
                    lambda line: _print(show_controls(line) + "\n")).run()
            note_deed("RESTORE", settings, clock)
            return EXIT_OK
        restore_signals()
        with log_to_file(settings, writer) as own:
            return serve(settings, clock, writer, own, umask)
    except AgentError as error:
        writer.say(tell_failure(error.message))
    except (OSError, MemoryError, RuntimeError) as error:      # RuntimeError: no thread
        writer.say(tell_failure(start_error(error)))
    finally:
        writer.close()
    return EXIT_CANNOT_START


if __name__ == "__main__":
    keep_standard_descriptors()
    start_over_lean()
    try:
        sys.exit(main())
    finally:
        settle_streams()
