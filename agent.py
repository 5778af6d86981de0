#!/usr/bin/env python3
r"""agent.py: a job-execution and scheduling agent in one file, on the standard library alone.

It keeps scenarios, schedules and sessions in SQLite files (a master repository and the work
repositories attached to it), listens on a port for a line-based text protocol, runs what it
acknowledged, and can say afterwards what ran, what did not, and why.

    python agent.py --port 20910     then, elsewhere:     printf 'EXEC HELLO\n' | nc localhost 20910

This file is built: tools/build.py joins the modules of tools/src, which are what people change.
Sections, each using only those above it:

    base/vocabulary           The words and limits of the contract, as data: states, transitions,
                              roles, sizes, times.
    base/clients              Who is at the other end of a connection, and what he may do.
    base/controls             What may drive a terminal, imitate a reply or turn a text around,
                              shown as what it is.
    base/encoding             Names of files are UTF-8, whatever the locale says: what a process
                              needs for it.
    base/errors               What can go wrong, one class for each code that a user is told.
    base/files                Files that are made, opened and replaced where others may write: under
                              names and checks of ours.
    base/replies              The lines of replies, as data: their fields in order, and what each
                              holds, in which unit.
    base/form                 What a form of a request is: its words, their kinds and meanings, its
                              role, and its reply.
    base/forms                The forms of all requests, as data: words, kinds, roles, help, and the
                              lines of their replies.
    base/options              The options of the agent's command line, as data.
    base/program              What this program is: its own file, its code and its own log.
    base/times                The clock, instants as text, and the one parser of durations.
    base/words                Words of requests and replies: names, splitting, quoting, and what
                              makes a text one line.
    base/workers              Threads that begin, or are given up: nobody waits for ever for their
                              begin.
    timetable/days            Days and times of day as bit masks and lists, and the zones that place
                              them in time.
    timetable/rules           A rule of a schedule, from its text to days and times of day.
    timetable/windows         What restricts a rule: hours, dates, weekdays, and repetitions.
    timetable/firings         When a rule fires in its zone and window: next and count, by
                              arithmetic on local time.
    timetable/moments         A time as people write it, placed in a zone: the one parser of times.
    timetable/timetable       The due times of a rule in its window and zone: next, last, count, and
                              what is excluded.
    definitions/kinds         What a field of a definition may hold: each kind checks a JSON value
                              or the text of an option.
    definitions/fields        The fields of every definition, as tables, and the checks that belong
                              to one field alone.
    definitions/model         Scenarios, schedules and documents as values that are checked already.
    definitions/references    References to variables in texts: found, replaced, and handed to a
                              shell.
    definitions/reader        From the JSON of a document to its definitions, with every fault and
                              its path.
    store/admission           Who may come to be, and who may begin: the ledger, the queue and SCHED
                              PLAN decide it here.
    store/pending             What goes on in another thread, for who waits for it: a write, a call.
    store/records             What goes into the store and comes out of it, as values.
    store/arrivals            How a session comes to be: EXEC, schedules and tasks, with all that is
                              checked of them.
    store/beside              What SQLite keeps beside a file that is open: whether that is still
                              what its connections use.
    store/files               Repository files as a whole: made, migrated after a copy, told of when
                              others may write there.
    store/connections         Connections to one SQLite file: one that writes, those that read, and
                              whether it is the same.
    store/writer              The one writer of a file: what is waiting shares a transaction, and is
                              answered after the commit.
    store/database            The one door to SQLite: a file with its writer and its readers.
    store/endings             The end of a session, whoever ends it: one update, and all that
                              follows from it.
    store/decisions           What is decided of due times, and the sessions that are made by it.
    store/imports             A document of definitions put into a work repository, all of it or
                              nothing.
    store/ledger              The ledger of due times: what was decided of each, with the session it
                              started.
    store/locks               Locks that the kernel holds on files beside a master: the one live
                              agent of a name.
    store/master              The master repository: agents, what is attached, contexts, data
                              servers, calendars, holds.
    store/parts               Notes of what a task is writing beside its target: so it goes when the
                              process was killed.
    store/progress            What a session records as it goes: steps, tasks, output, variables.
    store/restarts            How a session that ended badly is opened again: RESTART, at which
                              task, with which variables.
    store/scenarios           Scenario versions of a work repository, and their definitions.
    store/schedules           Schedules of a work repository, their holds and what they run after.
    store/secrets             Secrets that came with EXEC or RESTART: files beside a repository,
                              never in it.
    store/sessions            Sessions of a work repository, one by one: their rows, their states,
                              their tickets.
    store/spool               What the process of an adoptable task leaves for whoever takes it up:
                              a small file of its own.
    store/views               What is read of sessions: listings, history, logs, durations, and what
                              is purged.
    store/work                A work repository: its tables, and all that is kept in them behind one
                              name.
    processes/alive           Who is alive: processes, and the marker of those that a task has
                              started.
    processes/limits          How many files may be open: as the host has it for what the agent
                              starts, more for itself.
    processes/looks           Looks at the process table, shared by all who want one at the same
                              time.
    processes/starters        Threads that start processes: what hangs on a mount hangs one of them,
                              and the others go on.
    processes/output          What the processes of tasks print: read, cut into lines, masked,
                              limited, captured.
    processes/tree            The tree of a task's processes: found, and ended as a whole.
    processes/process         One process of a task, from its start to its exit code.
    processes/minder          The minder: agent.py in the role that keeps an adoptable task alive
                              beside the agent.
    processes/orphans         Processes that have lost their parent: they become this one's
                              children, and are reaped.
    processes/remains         What a task was writing when its process was killed: deleted, by the
                              notes that were taken of it.
    tasks/task                What all task types share: their table, results, texts, and work done
                              in a helper process.
    tasks/answers             What an answer of HTTP holds: past what only announces it, without
                              codings, in a charset.
    tasks/files               Files copied, moved, deleted and made: copy, move, delete, mkdir.
    tasks/archives            Files packed and unpacked: zip and unzip.
    tasks/commands            Commands, code and the small types: os, set, sleep, wait_file, python,
                              scenario.
    tasks/statements          SQL taken apart: its statements and the variables it binds, in time
                              that grows as its length.
    tasks/data                Statements on data servers: sql and refresh.
    tasks/csvfiles            CSV files into tables and out of queries: load_csv and unload_csv.
    tasks/evaluate            The type evaluate: comparisons, and expressions searched where they
                              can be ended.
    tasks/network             What speaks to other hosts: the type http, and what mail shares with
                              it.
    tasks/mail                Mail by SMTP.
    runtime/control           What reaches a session while it runs: a stop, time-outs, that it is
                              left, ends of its processes.
    runtime/sources           Secrets that are read when they are needed, from the environment or
                              from files.
    runtime/execution         One task under way: how it reaches its process, its data servers, and
                              its session's values.
    runtime/course            The course of a session, from its ticket to its end: steps, attempts,
                              tasks.
    runtime/journal           What a session has to record: collected, masked, and handed to its
                              repository in order.
    runtime/parking           Sessions that wait for the end of a child, without a thread or a slot.
    runtime/session           A session as the queue and the desk know it: it begins, waits without
                              a thread, and ends.
    runtime/slots             The queue of sessions and the slots that run them.
    scheduling/entry          A schedule in memory: what is decided, what comes next, and what of
                              its past may still run.
    scheduling/changes        Changes of schedules and calendars, effective at once.
    scheduling/preview        What is told of a schedule: why, what stands in its way, and what
                              comes.
    scheduling/visits         Due times as a plan sees them: estimated, held, outstanding, and what
                              became of each.
    scheduling/play           Sessions played on a clock of its own, by the decisions that the
                              ledger and the queue make.
    scheduling/forecast       A period played against the limits: what would overlap, queue, be
                              skipped, never fit.
    scheduling/listing        What is shown of schedules: how they stand, what comes, what was, and
                              what a plan foresees.
    scheduling/scheduler      What is due now, and the seconds until something is due again.
    scheduling/schedules      The schedules of an agent's name in all repositories: loaded, armed,
                              fired.
    agent/opening             Opening the master repository, and making what is not there yet.
    agent/place               An attached work repository and its owner.
    agent/places              The attached work repositories: found, attached and detached.
    agent/housekeeping        What is done from time to time: cleaning, the heartbeat, purging.
    agent/waits               What a session waits for: in a word, and in words.
    agent/watch               What other sessions, clients and tasks may see: topology, ends of
                              sessions, logs, children.
    agent/desk                Where sessions are asked for: EXEC, STOP, RESTART, and what follows
                              the end of each.
    agent/inbox               What is to be done after commits, done by a thread of its own: a
                              writer only puts it here.
    agent/exchange            Definitions in and out: import with all its checks, and export.
    agent/agent               The agent: its life cycle, and what it can do in domain words.
    agent/figures             How the agent is, in figures: PING and METRICS.
    agent/logwriter           The agent's own log, which stops nothing: whoever logs hands a line
                              over and goes on.
    protocol/table            The verb table: a function for each form of a request, and the check
                              of one against it.
    protocol/lines            The lines of replies, filled by the table of their fields.
    protocol/conversation     The requests of one connection in order, and their replies; knows no
                              sockets.
    protocol/manual           The manual: prose, with what follows from the program's tables put in
                              between.
    protocol/schedule_verbs   The verbs on schedules and calendars.
    protocol/verbs            The verbs on sessions, definitions, repositories and the agent itself.
    server/incoming           A connection as its server sees it: the lines that come in, bounded,
                              and the replies it owes.
    server/front              The connections that have asked for nothing yet but EXEC and PING, all
                              in one thread.
    server/peer               Who is at the other end of a loopback connection, as the kernel knows
                              it.
    server/port               Whose the port is, from before the agent begins anything until it
                              listens.
    server/server             The port: connections, bounded lines, and replies as fast as they are
                              taken.
    main                      The command line, signals, and the order of start and stop.

Threads, and what ends each:

    writer NAME       writes to one repository file; ends when its Database is closed and drained.
    starter N         starts one process after the other; ends at Starters.close(). The processes
                      that
    output            reads the pipes of all tasks; ends at Output.close().
    wait PID          waits for the exit of one process of a task; ends with it.
    feed PID          writes one process's standard input, and ends with it.
    remains           deletes what one note tells of, and ends with that; a file system that does
                      not
    call N            one call for session N that may block, such as a statement of SQL or the
                      reading of
    parking           has those go on that are called, or whose time is over; ends at
                      Parking.close().
    parent N          runs session N, whose child has ended, until that is over or waits again.
    slot N            runs one session after the other; ends at SessionQueue.close().
    adopted N         runs session N, whose process outlived an agent; ends with it.
    scheduler         calls Scheduler.tick(); ends at Agent.stop().
    repository NAME   the owner; opens the repository, takes it over, looks at it, cleans it and
    keeper            does what is due of it; ends at Keeper.stop().
    follow-ups        does what commits bring about; ends at Inbox.close().
    log               writes the lines; ends at LogWriter.close(), or with the program when nobody
                      reads.
    front             serves them; ends at Front.close().
    usher             starts the threads of those that need one, which may take its time; ends
                      likewise.
    server            accepts connections; ends at Server.close().
    client N          serves one connection; ends with it, or at Server.close().
    MainThread        waits for a signal or SHUTDOWN, then stops the others in order.
"""
import sys
# The folder of this file is searched first. A csv.py of the user's there must not stand for that of
# Python. Where CODE_FD is there (base/program.py), this was done already.
if vars(sys.modules["__main__"]) is globals() and "CODE_FD" not in globals() \
        and not getattr(sys.flags, "safe_path", sys.flags.isolated):
    del sys.path[0]
import argparse
import bisect
import codecs
import collections
import concurrent.futures
import contextlib
import copy
import csv
import enum
import errno
import fcntl
import functools
import gc
import glob
import hashlib
import heapq
import importlib
import importlib.util
import itertools
import json
import locale
import logging
import marshal
import math
import os
import pwd
import queue
import random
import re
import resource
import sched
import selectors
import shutil
import signal
import socket
import socketserver
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
import uuid
import weakref
import zipfile
from bisect import bisect_left, bisect_right
from calendar import timegm
from datetime import date, datetime, timezone
from types import GeneratorType
from typing import Any, Callable, List, NamedTuple, Optional, Tuple, Union


# ======================================================================================
# base/vocabulary.py
# The words and limits of the contract, as data: states, transitions, roles, sizes, times.
# ======================================================================================

VERSION = "1.0.0"

DEFAULT_NAME = "AGENT"
DEFAULT_PORT = 20910
DEFAULT_CONTEXT = "GLOBAL"
DEFAULT_REPOSITORY = "WORKREP"

WAITING, QUEUED, RUNNING = "WAITING", "QUEUED", "RUNNING"
DONE, WARNING, ERROR, STOPPED = "DONE", "WARNING", "ERROR", "STOPPED"
OUTSTANDING = (WAITING, QUEUED)
OPEN = OUTSTANDING + (RUNNING,)
ENDED = (DONE, WARNING, ERROR, STOPPED)
STATES = OPEN + ENDED
RESTARTABLE = (ERROR, STOPPED)

# new state of a session -> the states it may come from
TRANSITIONS = {
    WAITING: (QUEUED,),                             # a hold
    QUEUED: (WAITING, RUNNING, ERROR, STOPPED),     # its time, on_stale=restart, RESTART
    RUNNING: OUTSTANDING,
    DONE: (RUNNING,),
    WARNING: (RUNNING,),
    ERROR: OPEN,
    STOPPED: OPEN,
}

STARTED, LATE, SKIPPED, FAILED = "started", "late", "skipped", "failed"     # of an occurrence
MISFIRE, HELD, LOST = "misfire", "hold", "repository"                       # reasons of one: it was
OVERLAP, LIMIT = "overlap", "limit"                                         # missed, or had no room
# what a session waits for, beside a hold, a limit and a repository
AT_TIME, FOR_SLOT, FOR_CHILDREN = "time", "slot", "children"
ALL_SCHEDULES = ""                  # in the ledger: what concerns all of them, a step of the clock
END, FAIL = "END", "FAIL"                                                   # targets of a step
WAKE = b"!"             # to the main thread: a request to stop; a signal's byte is its number
NORMAL, IMMEDIATE = "normal", "immediate"                                   # ways to stop
ADOPT = "adopt"                                                             # on_stale
OUT, ERR = "out", "err"                                                     # streams of a task

MONITOR, OPERATOR, ADMINISTRATOR = "monitor", "operator", "administrator"
ROLES = (MONITOR, OPERATOR, ADMINISTRATOR)          # each may do what those before it may

RESERVED_VARIABLES = ("SESSION", "SCENARIO", "CONTEXT", "DUE")
MARKER = "AGENT_MARKER"             # environment variable of every process of a task

MAX_NAME = 128                      # characters
MIN_LINE = 1024                     # bytes: the least that --max-line takes
MAX_LINE = 64 * 1024                # bytes of a request
MAX_IMPORT_LINE = 4 * 1024 * 1024   # bytes of an IMPORT by an administrator
MIN_SECRET = 4                      # characters; a shorter value cannot be masked sensibly
MASK = "***"
MAX_LOG_LINE = 16 * 1024            # bytes; a longer line of output is split
MAX_VALUE = 64 * 1024               # bytes of the value of a variable
MAX_TEXT = 16 * 1024 * 1024         # characters of a text of a task, its references replaced
MAX_EXPRESSION = 1000               # characters of a regular expression
MAX_OUTPUT = 1024 * 1024            # bytes kept of one task's output
MAX_CONNECTIONS = 1000
MAX_QUEUE = 100000                  # outstanding sessions of an agent
MAX_LIST = 1000000                  # rows of a listing
MAX_BATCH = 500                     # requests that share a commit
MAX_REPOSITORIES = 999
SESSIONS_PER_CORE = 4
KEEP_DAYS = 90

WRITE_S = 5.0           # a request that cannot be written for so long is refused
TERM_S = 2.0            # between SIGTERM and SIGKILL
SEARCH_S = 5           # that a regular expression may be compiled and searched
KILL_S = 10.0           # how long what got SIGKILL is waited for
NOT_ENDED = "cannot be ended"       # in the message of a session: processes, or a call
TRY_S = 0.2             # between two tries of what the host cannot give now
DRAIN_S = 0.5           # how long after its exit a task's pipes are read
LINGER, LINGER_S = 64 * 1024, 1.0       # bytes and seconds read of what follows the last request
STRANGER_S = 30.0       # how long one whom the agent does not know may be silent
STOP_S = 60.0           # default of SHUTDOWN -MAX_WAIT
LATE_S = 1.0            # begun so long after its due time is late
STEP_S = 0.5            # the clock of the day and the steady one differ by more: one has stepped
MAX_MISSED = 100        # sessions that misfire=all makes at most
MISSED_S = 86400.0      # and for no due time older than this, unless grace says so
EXCLUDED_S = 60.0       # between two records of what a schedule's window excludes
HEARTBEAT_S = 10.0
YIELD_S = 0.2           # how long a session's begin gives way to requests that wait for their OK
YIELD_REQUESTS = 3      # as many at once make it give way
FLOOD_S = 0.05          # and so long after they did
ATTACH_S = 2.0          # between tries to attach a repository, and looks at one's health
GLANCE_S = 0.5          # between glances at what SQLite keeps beside it
CLEAN_S = 60.0          # between two cleanings
BELIEF_S = 86400.0      # a clock that is further ahead than before is believed after so long

# what an import makes of a definition
NEW, ALTERED, SAME = "new", "changed", "same"

EXIT_OK, EXIT_CANNOT_START, EXIT_USAGE = 0, 1, 2


# ======================================================================================
# base/clients.py
# Who is at the other end of a connection, and what he may do.
# ======================================================================================

class Peer(NamedTuple):
    """Where a connection comes from, as the host knows it when it is accepted."""
    uid: Optional[int] = None       # of the user at the other end; None: the host does not know
    os_user: str = ""               # his name there, or `uid N`
    address: str = ""               # `127.0.0.1`; `unix`: by the UNIX socket
    is_private: bool = True         # nobody else can read it: loopback, UNIX socket, TLS
    certificate: str = ""           # common name of the client certificate that TLS has verified


class Client(NamedTuple):
    """Who asks: for the record, and for what he may do."""
    role: Optional[str] = None      # None: the agent does not know him
    name: str = ""                  # what records call him (by=)
    user: str = ""                  # the user of the agent that he is; "" the owner, or nobody
    peer: Peer = Peer()
    scenarios: Tuple[str, ...] = ()     # patterns of those that are there for him; (): all

    @property
    def is_administrator(self):
        """Whether he may do everything."""
        return self.role == ADMINISTRATOR


# ======================================================================================
# base/controls.py
# What may drive a terminal, imitate a reply or turn a text around, shown as what it is.
# ======================================================================================

# control characters but the tab, what ends lines for some readers or turns their direction, and
# what in a name is no UTF-8
_HIDDEN = re.compile(
    "[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NO_UTF8 = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile("[\t\n\v\f\r]+")


def show_controls(text):
    r"""A text on one line, with what is hidden in it as \xNN, each of its bytes."""
    return _HIDDEN.sub(_show, text)


def show_bytes(text):
    r"""A text as UTF-8 can have it: what in it is none as \xNN, each of its bytes."""
    return _NO_UTF8.sub(_show, text)


def _show(match):
    char = match.group()
    if char < "\u0100":
        return "\\x%02x" % ord(char)
    # U+DC80 to U+DCFF are bytes of a name that is no UTF-8
    how = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join("\\x%02x" % byte for byte in char.encode("utf-8", how))


def one_line(text):
    """A message as it may stand in a reply or table: its lines side by side, nothing hidden, cut.
    """
    return show_controls(_BLANKS.sub(" ", str(text)).strip())[:1000]


class Parser(argparse.ArgumentParser):
    """One whose errors show what is hidden in the words that they name: a shell may have found them
    in a folder."""

    def error(self, message):
        """Says what is wrong, and exits."""
        super().error(show_controls(message))


# ======================================================================================
# base/encoding.py
# Names of files are UTF-8, whatever the locale says: what a process needs for it.
# ======================================================================================

UTF8_LOCALES = ("C.UTF-8", "C.utf8", "en_US.UTF-8", "en_US.utf8", "UTF-8")
LOCALE_BEFORE = "AGENT_LC_ALL"          # in the environment: LC_ALL as it was


def utf8_flags():
    """Flags of Python; before 3.7 it takes the locale's word, so see utf8_environment."""
    return ["-X", "utf8"] if sys.version_info >= (3, 7) else []


@functools.lru_cache(maxsize=None)
def find_utf8_locale():
    """A locale of UTF-8 that this host has, or None."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in UTF8_LOCALES:
            with contextlib.suppress(locale.Error):
                return locale.setlocale(locale.LC_CTYPE, name)
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return None


def utf8_environment(environment):
    """The environment that a process of this program is started with, for this one."""
    name = None if utf8_flags() else find_utf8_locale()
    if name is None:
        return environment
    return dict(environment, LC_ALL=name, **{LOCALE_BEFORE: environment.get("LC_ALL", "")})


def locale_for_python(environment):
    """The environment for a Python of the user's, which takes the locale C for UTF-8, as it does by
    itself from 3.7 on."""
    name = None if utf8_flags() else find_utf8_locale()
    words = [environment.get(each) for each in ("LC_ALL", "LC_CTYPE", "LANG")]
    if name is None or next(filter(None, words), "C") not in ("C", "POSIX"):
        return environment
    return dict(environment, **{"LC_ALL" if words[0] else "LC_CTYPE": name})


def restore_environment():
    """Undoes utf8_environment, when Python has taken notice: what a task starts, and the modules
    of data servers, have the locale that the agent was started with."""
    before = os.environ.pop(LOCALE_BEFORE, None)
    if before:
        os.environ["LC_ALL"] = before
    elif before is not None:
        os.environ.pop("LC_ALL", None)


# ======================================================================================
# base/errors.py
# What can go wrong, one class for each code that a user is told.
# ======================================================================================

class AgentError(Exception):
    """What a user is told: a wire code, one line of plain text, and faults with their place."""
    code = "INTERNAL"

    def __init__(self, message, faults=()):
        super().__init__(message)
        self.message = " ".join(str(message).split())
        self.faults = list(faults)      # [(path, reason)]


class BadRequest(AgentError):
    """The request is not of the form that it must have; the message says where."""
    code = "BAD_REQUEST"


class UnknownVerb(AgentError):
    """The first word is no verb."""
    code = "UNKNOWN_VERB"


class NotFound(AgentError):
    """What the request names is not there."""
    code = "NOT_FOUND"


class Exists(AgentError):
    """What the request would make is there already."""
    code = "EXISTS"


class Conflict(AgentError):
    """It is not in a state for this."""
    code = "CONFLICT"


class AuthError(AgentError):
    """The agent does not know who is asking."""
    code = "AUTH"


class Denied(AgentError):
    """Who is asking may not do this."""
    code = "DENIED"


class Busy(AgentError):
    """A limit is reached."""
    code = "BUSY"


class Stopping(AgentError):
    """The agent is stopping and begins nothing new."""
    code = "STOPPING"


class RepositoryError(AgentError):
    """A repository cannot be read or written now."""
    code = "REPOSITORY"


class LimitFilled(RepositoryError):
    """Sessions of other agents fill a limit: who is to begin waits."""


class RepositoryGone(RepositoryError):
    """The file was replaced or detached: what belonged to it can never be written."""


class Unreadable(RepositoryError):
    """What is stored there cannot be read by this version: said of one definition."""


class Changed(Conflict):
    """What a change was made from is another by now: whoever made it looks again."""


class TooLong(AgentError):
    """A line is longer than the limit."""
    code = "TOO_LONG"


class WaitTimeout(AgentError):
    """The waiting, not the session, has timed out."""
    code = "TIMEOUT"


class Internal(AgentError):
    """A fault of the agent itself; the message names what finds it in the agent's log."""


class CannotStart(AgentError):
    """The agent cannot start: one line on stderr, exit code 1."""


class CalendarError(ValueError):
    """A rule or one of its options is wrong: says which part and what would be right."""


# ======================================================================================
# base/files.py
# Files that are made, opened and replaced where others may write: under names and checks of ours.
#
# In a folder that others may write, a name that can be foreseen may be a link to a file of ours, or a
# file that somebody wants us to take for ours. So what is made beside a file has a name that nobody
# can foresee; where another process must find it, what is found is checked.
# ======================================================================================

BESIDE_DATABASE = ("-wal", "-shm", "-journal")      # what SQLite keeps beside a file
OF_ANOTHER = ("%s belongs to another user (uid %d), so it is not used: delete it if nobody needs "
              "it, or chown it if it is yours")
MOVE_IT = "move the repository to a folder of your own"
NAME_KEPT = 100         # bytes of a file's name in that of one beside it: no system takes fewer


def unforeseen():
    """16 hexadecimal digits that nobody can foresee."""
    return os.urandom(8).hex()


def name_beside(path, ending):
    """A new name in the folder of `path`: .NAME.UNFORESEEN.ENDING, where a long NAME is cut."""
    folder, name = os.path.split(path)
    name = os.fsencode(name)[:NAME_KEPT].decode("utf-8", "ignore").encode()    # cuts no character
    return os.path.join(folder, ".%s.%s.%s" % (os.fsdecode(name), unforeseen(), ending))


def list_beginning(prefix):
    """The paths that begin with `prefix` and lie in its folder; none when that is gone. Of the
    others there, which may be many, nothing is kept meanwhile."""
    folder, beginning = os.path.split(prefix)
    try:
        with os.scandir(folder or ".") as entries:
            return [os.path.join(folder, entry.name) for entry in entries
                    if entry.name.startswith(beginning)]
    except OSError:
        return []


def open_new(path, mode=0o600):
    """A descriptor of a file that it makes, never through a link. FileExistsError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)


def make_private(path):
    """Makes an empty file with mode 0600; FileExistsError when there is one."""
    os.close(open_new(path))


def make_folder(path):
    """Makes a folder, and those missing above it, with mode 0700; tells whether it was missing."""
    above = os.path.dirname(path)
    if above and not os.path.exists(above):
        make_folder(above)              # makedirs of Python 3.7 gives these another mode
    try:
        os.mkdir(path, 0o700)
        return True
    except FileExistsError:
        return False


def own_users(path):
    """Whose files beside a repository are taken for ours: those of this process's user, of root,
    and of the repository's owner, who can do with it what he likes anyway."""
    users = {os.geteuid(), 0}
    with contextlib.suppress(OSError):
        users.add(os.stat(path).st_uid)
    return users


def find_fault(path, status, owners=None, mask=0):
    """Why a file of this status is not to be taken for ours, and what to do; or None.

    `owners`: the users whose it may be, None for any. `mask`: bits that its mode must not have.
    """
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
        return "%s is %s, so it is not used: delete it" % (path, kind)
    if owners is not None and status.st_uid not in owners:
        return OF_ANOTHER % (path, status.st_uid)
    if status.st_nlink > 1 and list_doors(path):
        return "%s has another name, too (a hard link), so it is not used: delete one of " \
               "the names" % path
    if status.st_mode & mask:
        return "%s is open to other users (mode %04o), so it is not used: delete it" % (
            path, stat.S_IMODE(status.st_mode))
    return None


def find_fault_beside(path):
    """find_fault for what SQLite keeps beside a file; or None.

    SQLite takes a -wal or -journal that it finds for its own, and before 3.31 follows links there.
    Whoever may write the file itself may have made one.
    """
    try:
        is_shared = os.stat(path).st_mode & 0o022
    except OSError:
        return None                     # the opening tells what is wrong
    real, owners = os.path.realpath(path), None if is_shared else own_users(path)
    for suffix in BESIDE_DATABASE:
        with contextlib.suppress(FileNotFoundError):
            fault = find_fault(real + suffix, os.lstat(real + suffix), owners)
            if fault:
                return fault
    return None


def open_own(path, flags, owners, mask=0):
    """A descriptor of a file that is there and is ours. RepositoryError (find_fault), OSError."""
    try:        # a pipe that somebody has put there must not make us wait
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        fault = find_fault(path, os.lstat(path), owners, mask)
        if fault:
            raise RepositoryError(fault) from None
        raise
    fault = find_fault(path, os.fstat(fd), owners, mask)
    if fault:
        os.close(fd)
        raise RepositoryError(fault)
    return fd


def is_own(path, owners):
    """Whether there is a regular file of one of these users."""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        return stat.S_ISREG(status.st_mode) and status.st_uid in owners
    return False


def remove_own(path, owners):
    """Deletes a regular file of one of these users; what is somebody else's stays."""
    if is_own(path, owners):
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def naming(path):
    """An OSError of a name that was made up is one of the name that the user knows."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


@contextlib.contextmanager
def part_beside(path, note=None):
    """A name beside `path`: what is made there takes that place at the end, or is gone.

    `note`: the descriptor of a file that tells this name, for whoever has to do it when this
    process is killed. It takes no place of a device, pipe or socket: FileExistsError.
    """
    with contextlib.suppress(FileNotFoundError):
        present = os.stat(path).st_mode
        if not stat.S_ISREG(present) and not stat.S_ISDIR(present):
            raise FileExistsError(errno.EEXIST, "is no regular file", path)
    part = name_beside(path, "part")
    if note is not None:
        os.ftruncate(note, 0)
        os.pwrite(note, json.dumps(os.path.abspath(part)).encode(), 0)
    try:
        yield part
        with naming(path):
            os.replace(part, path)
    except BaseException:
        remove_all(part)
        raise
    if note is not None:
        os.ftruncate(note, 0)


@contextlib.contextmanager
def written_beside(path, mode="wb", access=0o666, note=None, **keywords):
    """A file that appears under its name when it is whole, and not at all otherwise. `access` is
    its mode, less the umask; `note` as of part_beside."""
    with part_beside(path, note) as part:
        with naming(path):
            file = open(part, mode, opener=lambda name, _: open_new(name, access), **keywords)
        with file:
            yield file


def remove_all(path):
    """Deletes a file, or a folder with all that is in it, as far as it can be."""
    if os.path.islink(path) or not os.path.isdir(path):
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    for folder, names, _ in os.walk(path):
        for each in [folder] + [os.path.join(folder, name) for name in names]:
            if not os.path.islink(each):
                with contextlib.suppress(OSError):
                    os.chmod(each, 0o700)       # from one that is read-only nothing can be deleted
    shutil.rmtree(path, ignore_errors=True)


def list_doors(path):
    """Where users other than this process's, and root, may replace a file or put one beside it:
    [what is wrong, and the command that mends it], the nearest first."""
    doors = [_find_door(path, False)] if os.path.exists(path) else []
    for start in (os.path.abspath(path), os.path.realpath(path)):
        above = start
        while above != os.path.dirname(above):
            above = os.path.dirname(above)
            doors.append(_find_door(above, above != os.path.dirname(start)))
    return list(dict.fromkeys(door for door in doors if door))


def _find_door(path, is_above):
    """list_doors for one file or folder; in a folder above, a sticky bit protects what is ours."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        if status.st_uid not in (os.geteuid(), 0):
            return "%s belongs to uid %d (%s, or run as that user)" % (path, status.st_uid, MOVE_IT)
        is_sticky = status.st_mode & stat.S_ISVTX
        if status.st_mode & 0o022 and not (is_above and is_sticky):
            return "%s may be written by others (chmod go-w %s%s)" % (
                path, path, "; if it is there for all, " + MOVE_IT if is_sticky else "")
    return None


def mtime_ns(path):
    """When a file was written last: nanoseconds since the epoch, 0 when it is gone."""
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return 0


def sync_folder(path):
    """Puts on disk that a file has its name."""
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):      # some systems cannot
            os.fsync(fd)
    finally:
        os.close(fd)


# ======================================================================================
# base/replies.py
# The lines of replies, as data: their fields in order, and what each holds, in which unit.
# ======================================================================================

# what a field holds: text; a whole number; seconds; an instant to the millisecond; one to the
# second; yes or no. A value that is not there is empty.
TEXT_KEY, NUMBER_KEY, SECONDS_KEY = "text", "number", "seconds"
TIME_KEY, SECOND_KEY, FLAG_KEY = "time", "time to the second", "yes or no"


class ReplyKey(NamedTuple):
    """One field of a line."""
    name: str
    kind: str
    meaning: str
    is_optional: bool = False           # there only when there is something to say


class ReplyLine(NamedTuple):
    """A kind of line: what it tells of, and its fields in their order."""
    about: str
    keys: tuple = ()

    @property
    def form(self):
        """The line as the manual shows it."""
        return " ".join("[%s=]" % key.name if key.is_optional else key.name + "="
                        for key in self.keys)


def text_key(name, meaning, is_optional=False):
    """The ReplyKey of a field that holds text."""
    return ReplyKey(name, TEXT_KEY, meaning, is_optional)


def number_key(name, meaning, is_optional=False):
    """The ReplyKey of a field that holds a whole number."""
    return ReplyKey(name, NUMBER_KEY, meaning, is_optional)


def time_key(name, meaning, is_optional=False):
    """A field that holds an instant to the millisecond."""
    return ReplyKey(name, TIME_KEY, meaning, is_optional)


NOTHING = ReplyLine("")                 # an OK alone

_SESSION = number_key("session", "number of the session")
_STATUS = text_key("status", "its state")
_TOOK = ReplyKey("duration", SECONDS_KEY, "how long its newest start took, or takes so far")
_BEGUN = time_key("begun", "when it began")
_ENDED = time_key("ended", "when it ended")
_MESSAGE = text_key("message", "why it is so, in words")
_REPOSITORY = text_key("repository", "name of the work repository")
_NAME = text_key("schedule", "name of the schedule")
_ORIGIN = text_key("repository", "its work repository, where several are attached", True)
_HOLD = ReplyKey("hold", FLAG_KEY, "whether it is held")
_HOLD_REASON = text_key("hold_reason", "why it is held", True)
_HOLD_UNTIL = time_key("hold_until", "when the hold ends by itself", True)
_ATTEMPT = number_key("attempt", "which attempt this is, from 1")

PING_LINE = ReplyLine("the agent", (
    text_key("agent", "name of the agent"),
    text_key("version", "version of agent.py"),
    text_key("status", "READY; DEGRADED: a repository cannot be used; STANDBY: one can only be "
             "read; STOPPING"),
    ReplyKey("uptime", SECONDS_KEY, "since its start"),
    number_key("running", "sessions that run"),
    number_key("queued", "sessions that are outstanding: queued or waiting"),
    text_key("repositories", "how many can be used / how many are attached"),
    _HOLD, _HOLD_REASON, text_key("hold_by", "who holds it", True), _HOLD_UNTIL))
# of a session that was just acknowledged, and is WAITING
_WAIT = (time_key("start_at", "when it begins, of -AT", True),
         text_key("waits_for", "what it waits for: time, hold, limit, slot or repository", True),
         text_key("message", "the same in words", True))
TICKET_LINE = ReplyLine("the session that was made", (
    _SESSION, _STATUS,
    ReplyKey("duplicate", FLAG_KEY, "yes: -KEY had made this session before", True)) + _WAIT)
STATE_LINE = ReplyLine("the session", (
    _SESSION, _STATUS, text_key("note", "that its scenario version was replaced since", True)
    ) + _WAIT)
STOPPED_LINE = ReplyLine("the session", (
    _SESSION, _STATUS, text_key("note", "how many of its processes cannot be ended", True)))
END_LINE = ReplyLine("the session that has ended", (_SESSION, _STATUS, _TOOK, _MESSAGE))
LOGGED_LINE = ReplyLine("the session", (
    text_key("status", "its state; when it has ended, all lines stand before this"),))
CLEANED_LINE = ReplyLine("what was cleaned", (
    number_key("cleaned", "stale sessions that were closed or queued again"),))
AGENT_HOLD_LINE = ReplyLine("the agent", (text_key("agent", "name of the agent"), _HOLD))
SCHEDULE_HOLD_LINE = ReplyLine("the schedule (with -SCHEDULE)", (_NAME, _HOLD))
SESSION_LINE = ReplyLine("a session", (
    _SESSION,
    text_key("scenario", "name of its scenario"),
    text_key("version", "version of its scenario"),
    text_key("context", "its context"), _STATUS,
    text_key("name", "its own name, from -NAME or the schedule's session_name"),
    text_key("keywords", "its keywords, between commas"),
    text_key("schedule", "the schedule that started it; empty: none did"),
    time_key("due", "the due time of the schedule that it is for"),
    time_key("start_at", "when it may begin: of -AT, of a further attempt, or by jitter"),
    time_key("created", "when it was acknowledged"),
    time_key("begun", "when its newest start began"), _ENDED, _TOOK,
    number_key("parent", "the session whose task has started it"),
    text_key("waits_for", "what one that has not begun waits for: time, hold, limit, slot or "
             "repository; one that has: children"), _MESSAGE))
STEP_LINE = ReplyLine("an attempt of a step, in order", (
    number_key("step", "place of the step in the scenario, from 1"),
    text_key("name", "name of the step"), _ATTEMPT, _STATUS, _BEGUN, _ENDED, _MESSAGE))
TASK_LINE = ReplyLine("an attempt of a task, behind its step", (
    text_key("task", "place of the step, a dot, place of the task in it: 1.2"),
    text_key("type", "type of the task"),
    text_key("name", "name of the task, if it has one"), _ATTEMPT, _STATUS,
    number_key("rc", "exit code of its process (less than 0: ended by that signal), or status of "
               "HTTP"),
    number_key("rows", "rows, files or pieces that it dealt with"), _BEGUN, _ENDED, _MESSAGE))
VARIABLE_LINE = ReplyLine("a variable", (
    text_key("variable", "name of the variable"),
    text_key("value", "its value now; *** for a secret")))
SCENARIO_LINE = ReplyLine("a scenario version", (
    _REPOSITORY,
    text_key("scenario", "name of the scenario"),
    text_key("version", "its version"),
    number_key("steps", "how many steps it has"),
    text_key("variables", "names of its variables that are no secrets, between commas"),
    time_key("imported", "when it was imported"),
    text_key("message", "why it cannot be read by this version of agent.py; else empty")))
REPOSITORY_LINE = ReplyLine("a work repository", (
    _REPOSITORY,
    number_key("id", "its id, 1 to 999: the last three digits of its session numbers"),
    text_key("path", "its file"),
    text_key("status", "ATTACHED, or TROUBLE"),
    text_key("message", "what is wrong with it")))
CONTEXT_LINE = ReplyLine("a context", (
    text_key("context", "name of the context"),
    text_key("schemas", "SCHEMA:SERVER or SCHEMA:SERVER.PHYSICAL, between commas")))
CHANGE_LINE = ReplyLine("a definition of the document", (
    text_key("kind", "scenario, schedule, context, data_server, logical_schema or calendar"),
    text_key("name", "its name"), text_key("version", "of a scenario: its version"),
    text_key("change", "new, changed or same"),
    ReplyKey("next", SECOND_KEY, "with -DRY_RUN, of a schedule: its next due time", True)))
WARNING_LINE = ReplyLine("what is allowed but looks wrong", (
    text_key("warning", "what looks wrong"), text_key("path", "where in the document")))
# what an import counts; the last two there will be
IMPORTED_KINDS = ("scenario", "schedule", "context", "data_server", "logical_schema", "calendar",
                  "engine", "notice")
IMPORTED_LINE = ReplyLine("how many were new or have changed", tuple(
    number_key(kind + "s", kind.replace("_", " ") + "s") for kind in IMPORTED_KINDS) + (
        number_key("warnings", "lines with a warning"),
        ReplyKey("dry_run", FLAG_KEY, "yes: nothing was written", True)))
ATTACHED_LINE = ReplyLine("the work repository", (
    _REPOSITORY, number_key("id", "its id, 1 to 999")))
PURGED_LINE = ReplyLine("what was purged", (
    number_key("purged", "sessions that were deleted"),
    ReplyKey("dry_run", FLAG_KEY, "yes: nothing was deleted, it is only counted", True)))
SCHEDULE_LINE = ReplyLine("a schedule", (
    text_key("name", "name of the schedule"),
    text_key("agent", "the agent that it belongs to"),
    text_key("scenario", "the scenario that it starts"),
    text_key("version", "its version; -1: the latest"),
    text_key("context", "its context"),
    text_key("rule", "its rule; empty: by `after` alone"),
    text_key("timezone", "its time zone; empty: that of the agent's host"),
    ReplyKey("enabled", FLAG_KEY, "whether it has due times"), _HOLD,
    ReplyKey("next", SECOND_KEY, "its next due time"),
    time_key("last", "its newest due time that made a session"),
    number_key("last_session", "that session; of several attempts, the newest"),
    text_key("last_status", "state of that session"), _REPOSITORY,
    _HOLD_REASON, _HOLD_UNTIL))
OPTION_LINE = ReplyLine("a field that is not default", (
    text_key("option", "name of the option of SCHED SET, without its dash"),
    text_key("value", "its value")))
AFTER_LINE = ReplyLine("what its `after` names", (
    text_key("after", "name of the schedule or scenario"),
    text_key("kind", "schedule or scenario"),
    time_key("met", "when a session of it ended well, since the schedule fired")))
DELAYED_LINE = ReplyLine("a due time that waits for `after`", (
    time_key("waiting", "the due time"),))
HELD_LINE = ReplyLine("its hold", (
    time_key("held", "since when"), text_key("by", "who holds it"),
    time_key("until", "when it ends by itself"), text_key("reason", "why")))
SCHEDULE_NAME_LINE = ReplyLine("the schedule", (_NAME,))
SCHEDULE_SET_LINE = ReplyLine("the schedule", (
    _NAME, text_key("note", "what its rule means, where that may surprise", True)))
ENABLED_LINE = ReplyLine("the schedule", (
    _NAME, ReplyKey("enabled", FLAG_KEY, "whether it has due times from now on")))
COMING_LINE = ReplyLine("a due time", (
    _NAME, ReplyKey("due", SECOND_KEY, "the due time"),
    text_key("note", "what is special about it: hold, jitter, daylight saving, an exclusion"),
    _ORIGIN))
OCCURRENCE_LINE = ReplyLine("a due time, or several in a row that were skipped alike", (
    text_key("schedule", "name of the schedule; empty: the clock has stepped"),
    time_key("due", "the due time; of several, the first"),
    time_key("last_due", "of several, the last"),
    number_key("count", "how many due times"),
    text_key("decision", "started, late, skipped or failed"),
    text_key("reason", "of what did not start: overlap, misfire, gap, fold, hold, window, limit, "
             "repository"),
    number_key("session", "the session that it made; of several attempts, the newest"),
    text_key("status", "state of that session"),
    time_key("decided", "when that was decided"),
    text_key("message", "the same in a sentence"), _ORIGIN))
OUTLOOK_LINE = ReplyLine("what there is to say of the present", (
    text_key("note", "what stands in the way now, and the next due time", True),))
VISIT_LINE = ReplyLine("a due time that does not simply start", (
    _NAME, ReplyKey("due", SECOND_KEY, "the due time"),
    ReplyKey("begin", SECOND_KEY, "when its session would begin"),
    ReplyKey("end", SECOND_KEY, "when it would end"),
    ReplyKey("duration", SECONDS_KEY, "median of past sessions that ended well; empty: there is "
             "none"),
    text_key("outcome", "starts (with -ALL), overlaps, queues, skipped or never"),
    text_key("note", "why"), _ORIGIN))
PLANNED_LINE = ReplyLine("the period and its sums", (
    ReplyKey("from", SECOND_KEY, "begin of the period"),
    ReplyKey("to", SECOND_KEY, "its end; earlier than asked where there are too many due times"),
    number_key("slots", "sessions of this agent that run at once, at most"),
    number_key("due", "due times in the period"),
    number_key("starts", "that simply start"),
    number_key("overlaps", "that run beside, or in place of, an older session of their schedule"),
    number_key("queues", "that have to wait"),
    number_key("skipped", "that make no session"),
    number_key("never", "that do not begin in the period, or reach their timeout")))
UPDATED_LINE = ReplyLine("what was read", (number_key("schedules", "schedules of this agent"),))
CALENDAR_LINE = ReplyLine("a calendar", (
    text_key("calendar", "name of the calendar"),
    text_key("dates", "dates and ranges a..b, between commas")))
CALENDAR_NAME_LINE = ReplyLine("the calendar", (text_key("calendar", "name of the calendar"),))


# ======================================================================================
# base/form.py
# What a form of a request is: its words, their kinds and meanings, its role, and its reply.
# ======================================================================================

# what the data lines of a reply are
AS_FIELDS = "fields"        # there are none, or they are fields as those of the OK
AS_ROWS = "rows"            # rows of a table; JSON objects with -JSON
AS_RECORD = "record"        # likewise, and the first is what the others belong to
AS_TEXT = "text"
AS_DOCUMENT = "document"    # one JSON document over many lines
AS_LOG = "log"              # TIME STEP/TASK out|err TEXT


class Form(NamedTuple):
    """One verb. Its words are those behind the name, as HELP shows them: arguments, then options;
    [] may be left out."""
    name: str               # SCHED ADD is one, by its first two words
    words: str
    role: Optional[str]     # None: everybody
    help: str
    reply: str = AS_FIELDS
    oks: tuple = (NOTHING,)     # the ReplyLines that its OK may be
    lines: tuple = ()           # those of its data lines, where they are fields
    kinds: dict = {}        # word -> its kind, where that is not the one of KIND_WORDS
    meanings: dict = {}     # word -> what it means, where WORD_MEANINGS does not say it
    # whether later requests of its connection are begun while it waits for its commit
    is_pipelined: bool = False

    @property
    def text(self):
        """The whole request: the verb and its words, as HELP shows it."""
        return ("%s %s" % (self.name, self.words)).strip()

    @property
    def usage(self):
        """The words without the options."""
        return re.split(r" ?\[-", self.words)[0]


class Part(NamedTuple):
    """One argument or option of a form; an option's name begins with its dash."""
    name: str
    kind: Optional[str]     # None: a flag, which has no value
    shown: str              # a value as HELP shows it; nothing for an argument or a flag
    is_required: bool
    is_value_optional: bool
    meaning: str

    @property
    def is_field(self):
        """Whether it sets a field of a schedule."""
        return self.kind is not None and self.kind.startswith("field ")


# the usual kinds of words: what a kind means is protocol/table's to say
KIND_WORDS = {
    "AGENT": "name", "AT": "time", "CONTEXT": "name", "COUNT": "count", "DAYS": "days",
    "DOCUMENT": "text", "DUE": "past", "FROM": "time", "HOST": "label", "KEEP": "amount",
    "KEY": "token", "KEYWORD": "label", "KEYWORDS": "label", "LEVEL": "level", "LIMIT": "limit",
    "MAX_WAIT": "seconds", "NAME": "name", "PARENT": "session", "PATH": "token",
    "PRIORITY": "priority", "REASON": "label", "REPO": "name", "RULE": "text", "SCENARIO": "name",
    "SCHEDULE": "name", "SECOND": "text", "SESSION": "session", "SINCE": "past",
    "STATUS": "states", "STEP": "name", "STREAM": "stream", "SYNC": "seconds", "TAIL": "amount",
    "TIMEOUT": "timeout", "TO": "end", "UNTIL": "end", "VERB": "text", "VERSION": "version",
}

# what words mean, where the form does not say it
WORD_MEANINGS = {
    "CONTEXT": "context, GLOBAL if left out",
    "DATES": "dates and ranges, between commas: 2026-12-25,2026-12-27..2027-01-03",
    "NAME": "name of the schedule",
    "SCENARIO": "name of the scenario",
    "SESSION": "number of the session",
    "VERSION": "version of the scenario; -1 is the latest",
    "-JSON": "each data line is a JSON object",
    "-LIMIT": "how many lines at most (50)",
}


# ======================================================================================
# base/forms.py
# The forms of all requests, as data: words, kinds, roles, help, and the lines of their replies.
# ======================================================================================

# the options of SCHED ADD and SET that are fields of a schedule -> a value as HELP shows it, and
# what the field means
SCHEDULE_OPTIONS = {
    "-AGENT": ("name", "the agent that it belongs to (the one that takes the request)"),
    "-TIMEZONE": ("zone", "zone of its local times: UTC or an IANA name (the host's zone)"),
    "-ENABLED": ("yes|no", "a schedule that is not has no due times"),
    "-FROM": ("time", "first instant, in the schedule's zone; a date alone is its first second"),
    "-TO": ("time", "last instant; a date alone is its last second"),
    "-HOURS": (
        "08:00-18:00", "times of day, both ends in: 08:00-18:00; over midnight too: 22:00-06:00"),
    "-EXCLUDE_WEEKDAYS": ("sat,sun", "days of the week: sat,sun"),
    "-EXCLUDE_MONTHDAYS": ("1,last", "days of the month: 1,15,last"),
    "-EXCLUDE_DATES": ("a,b..c,calendar", "dates, ranges a..b, and names of calendars"),
    "-REPEAT_EVERY": ("s", "each firing is repeated after so long"),
    "-REPEAT_COUNT": ("n", "so many more times"),
    "-REPEAT_FOR": ("s", "for so long"),
    "-GAP": (
        "run|skip", "a local time that does not exist runs right after the gap, or is skipped"),
    "-FOLD": ("first|both", "a local time that exists twice runs the first time, or both times"),
    "-JITTER": ("s", "each start is delayed by at most so much, always by the same for the same "
                "due time"),
    "-AFTER": ("a,b/2h,scenario:c", "schedules (A) and scenarios (scenario:B) that have to end "
               "well first; A/2h counts for two hours"),
    "-NAME": ("text", "name of its sessions"),
    "-KEYWORDS": ("a,b", "keywords of its sessions"),
    "-PRIORITY": ("n", "priority of its sessions in the queue"),
    "-ATTEMPTS": ("n", "how often a session that ends in ERROR is made, in all"),
    "-RETRY_DELAY": ("s", "pause before the next of these sessions"),
    "-TIMEOUT": ("s", "timeout of its sessions (the scenario's)"),
    "-OVERLAP": (
        "queue|skip|parallel|stop", "what is done while a session of the same schedule is open"),
    "-MISFIRE": ("once|all|skip", "what is done about due times that were missed"),
    "-GRACE": ("s", "a missed due time older than this does not run"),
}


def schedule_field(option):
    """The field of a schedule that an option sets. NAME is the sessions' name, for which a
    definition needs another word."""
    return "session_name" if option == "-NAME" else option[1:].lower()


# field of a schedule -> what it means
SCHEDULE_MEANINGS = {schedule_field(option): meaning
                     for option, (_, meaning) in SCHEDULE_OPTIONS.items()}
_SCHEDULE_WORDS = " ".join("[%s=%s]" % (option, shown)
                           for option, (shown, _) in SCHEDULE_OPTIONS.items())
_SCHEDULE_KINDS = {option: "field " + schedule_field(option) for option in SCHEDULE_OPTIONS}
_SCHEDULE_PLACE = {"-REPO": "work repository of the schedule (of the lowest id that has it)"}
_CALENDAR_KINDS = {"NAME": "calendar", "DATES": "dates"}
_CALENDAR_NAME = {"NAME": "name of the calendar; it does not begin with a digit"}

VERB_FORMS = (
    Form("PING", "", MONITOR, "how the agent is; never waits for a repository", oks=(PING_LINE,)),
    Form("EXEC", "SCENARIO [VERSION] [CONTEXT] [VARIABLE=value ...] [-REPO=name] [-NAME=text] "
         "[-KEYWORDS=a,b] [-AT=time] [-KEY=token] [-PRIORITY=n] [-LEVEL=n] [-TIMEOUT=s] "
         "[-FROM=step] [-AGENT=name] [-SYNC[=s]]", OPERATOR,
         "start a session of a scenario; OK means that it is on disk",
         oks=(TICKET_LINE, END_LINE._replace(about="with -SYNC, the session that has ended")),
         lines=(TICKET_LINE._replace(about="with -SYNC, the session that was made, at once"),),
         kinds={"-NAME": "label", "-FROM": "name"}, is_pipelined=True,
         meanings={
             "VERSION": "its version; -1, or nothing, is the latest",
             "-REPO": "work repository (the one of the lowest id that has the scenario)",
             "-NAME": "a name for the session, which listings show",
             "-KEYWORDS": "words between commas, by which SESSIONS can list it",
             "-AT": "when it begins (at once); until then it is WAITING",
             "-KEY": "a word that makes a repeated request harmless: the same key again makes no "
                     "second session",
             "-PRIORITY": "a higher one leaves the queue first (0)",
             "-LEVEL": "what is kept of a session that ends well: below 3 its own row alone, below "
                       "5 its steps and tasks too, 5 their output as well (5)",
             "-TIMEOUT": "the session is ended after so long (the scenario's timeout)",
             "-FROM": "begin with this step (the first)",
             "-AGENT": "the agent that is to run it (the one that is asked)",
             "-SYNC": "reply when the session has ended; with a value wait at most so long"}),
    Form("STOP", "SESSION [-IMMEDIATE]", OPERATOR,
         "stop a session after the task now running, or at once", oks=(STOPPED_LINE,),
         meanings={"-IMMEDIATE": "end it now, with all its processes"}),
    Form("RESTART", "SESSION [VARIABLE=value ...] [-FROM=step] [-SKIP] [-REDEFINE]", OPERATOR,
         "go on with a session that ended in ERROR or STOPPED", oks=(STATE_LINE,),
         kinds={"-FROM": "name"},
         meanings={"-FROM": "go on at this step, from its first task",
                   "-SKIP": "go on behind the task that failed; the session ends in WARNING at "
                            "best",
                   "-REDEFINE": "go on with the definition that its scenario version has now, "
                                "at the first task of the step"}),
    Form("CLEAN", "[-HOST=id]", OPERATOR, "clean stale sessions now", oks=(CLEANED_LINE,),
         meanings={"-HOST": "those of this host too, which is gone for good"}),
    Form("HOLD", "[REASON] [-SCHEDULE=name] [-REPO=name] [-UNTIL=time]", OPERATOR,
         "begin nothing new, or nothing of one schedule, until RELEASE",
         oks=(AGENT_HOLD_LINE, SCHEDULE_HOLD_LINE),
         meanings={"REASON": "why, for those who look; quote it when it has spaces",
                   "-SCHEDULE": "hold this schedule (the whole agent)",
                   "-REPO": "work repository of the schedule",
                   "-UNTIL": "when the hold ends by itself (never); a date alone: at its end"}),
    Form("RELEASE", "[-SCHEDULE=name] [-REPO=name]", OPERATOR, "end a hold",
         oks=(AGENT_HOLD_LINE, SCHEDULE_HOLD_LINE),
         meanings={"-SCHEDULE": "release this schedule (the whole agent)",
                   "-REPO": "work repository of the schedule"}),
    Form("SHUTDOWN", "[-IMMEDIATE] [-MAX_WAIT=s] [-LEAVE]", ADMINISTRATOR,
         "stop the agent: running sessions may end, are stopped, or are left to the next start",
         meanings={"-IMMEDIATE": "stop what runs at once",
                   "-MAX_WAIT": "how long running sessions may take to end (60 s); then they are "
                                "stopped",
                   "-LEAVE": "sessions whose on_stale is adopt run on, for the next start"}),
    Form("SESSIONS", "[-STATUS=a,b] [-SCENARIO=name] [-SCHEDULE=name] [-REPO=name] "
         "[-KEYWORD=word] [-PARENT=session] [-SINCE=time] [-LIMIT=n] [-JSON]", MONITOR,
         "list sessions, newest first", AS_ROWS, lines=(SESSION_LINE,),
         meanings={"-STATUS": "only those in one of these states",
                   "-SCENARIO": "only those of this scenario",
                   "-SCHEDULE": "only those of this schedule",
                   "-REPO": "only those of this work repository",
                   "-KEYWORD": "only those with this keyword",
                   "-PARENT": "only those that a task of this session has started",
                   "-SINCE": "only those acknowledged from then on"}),
    Form("STATUS", "SESSION [-JSON]", MONITOR, "a session with its steps, tasks and variables",
         AS_RECORD, lines=(SESSION_LINE, STEP_LINE, TASK_LINE, VARIABLE_LINE)),
    Form("LOG", "SESSION [-FOLLOW] [-TAIL=n] [-STEP=name] [-STREAM=out|err] [-SINCE=time]",
         MONITOR, "what the tasks of a session printed; -FOLLOW as they print it", AS_LOG,
         oks=(LOGGED_LINE,),
         meanings={"-FOLLOW": "stay until the session has ended",
                   "-TAIL": "only the last so many lines, of those that the other options leave",
                   "-STEP": "only what this step printed",
                   "-STREAM": "only one of standard output and standard error",
                   "-SINCE": "only what was printed from then on"}),
    Form("WAIT", "SESSION [-TIMEOUT=s]", MONITOR, "wait for the end of a session",
         oks=(END_LINE,), kinds={"-TIMEOUT": "seconds"},
         meanings={"-TIMEOUT": "wait at most so long (for ever)"}),
    Form("SCENARIOS", "[-REPO=name] [-JSON]", MONITOR, "list the scenario versions", AS_ROWS,
         lines=(SCENARIO_LINE,), meanings={"-REPO": "only those of this work repository"}),
    Form("REPOS", "[-JSON]", MONITOR, "list the attached work repositories", AS_ROWS,
         lines=(REPOSITORY_LINE,)),
    Form("CONTEXTS", "[-JSON]", MONITOR,
         "list the contexts, and what stands behind logical schemas in them", AS_ROWS,
         lines=(CONTEXT_LINE,)),
    Form("IMPORT", "DOCUMENT [-REPO=name] [-REPLACE] [-DRY_RUN]", ADMINISTRATOR,
         "import a definitions document, quoted as one word", lines=(CHANGE_LINE, WARNING_LINE),
         oks=(IMPORTED_LINE,),
         meanings={"DOCUMENT": "the JSON text, in single quotes or as a JSON string",
                   "-REPO": "work repository (the one of the lowest id)",
                   "-REPLACE": "a scenario version that is there and differs is replaced",
                   "-DRY_RUN": "answer the same, and write nothing"}),
    Form("EXPORT", "[SCENARIO] [VERSION] [-REPO=name]", MONITOR,
         "give definitions back, as lines of JSON", AS_DOCUMENT,
         meanings={"SCENARIO": "only this scenario and its schedules (everything)",
                   "VERSION": "only this version; -1 is the latest (all)",
                   "-REPO": "work repository (the one of the lowest id)"}),
    Form("DROP", "SCENARIO VERSION [-REPO=name]", ADMINISTRATOR, "delete a scenario version",
         meanings={"VERSION": "its version",
                   "-REPO": "work repository (the one of the lowest id that has it)"}),
    Form("ATTACH", "NAME PATH [-CREATE]", ADMINISTRATOR,
         "attach a work repository; a relative path counts from the master's folder",
         oks=(ATTACHED_LINE,),
         meanings={"NAME": "name of the work repository here", "PATH": "its file",
                   "-CREATE": "make a new file"}),
    Form("DETACH", "NAME", ADMINISTRATOR, "detach a work repository; its file stays",
         meanings={"NAME": "name of the work repository"}),
    Form("PURGE", "[-DAYS=n] [-KEEP=n] [-STATUS=a,b] [-SCENARIO=name] [-DRY_RUN]", ADMINISTRATOR,
         "delete ended sessions older than DAYS, and beyond the newest KEEP", oks=(PURGED_LINE,),
         kinds={"-STATUS": "ends"},
         meanings={"-DAYS": "only those that ended more than so many days ago",
                   "-KEEP": "only those that are not among the newest so many of a repository, of "
                            "those that the other options name",
                   "-STATUS": "only those that ended in one of these states",
                   "-SCENARIO": "only those of this scenario",
                   "-DRY_RUN": "only count them"}),
    Form("METRICS", "", MONITOR, "figures in Prometheus' text format", AS_TEXT),
    Form("HELP", "[VERB] [SECOND]", None, "the verbs, or one of them", AS_TEXT,
         meanings={"VERB": "a verb (all)", "SECOND": "its second word, as in SCHED ADD"}),
    Form("QUIT", "", None, "end the connection"),
    Form("SCHED LIST", "[-REPO=name] [-JSON]", MONITOR, "list the schedules", AS_ROWS,
         lines=(SCHEDULE_LINE,), meanings={"-REPO": "only those of this work repository"}),
    Form("SCHED SHOW", "NAME [-REPO=name] [-JSON]", MONITOR,
         "one schedule with its variables and hold", AS_RECORD,
         lines=(SCHEDULE_LINE, OPTION_LINE, VARIABLE_LINE, AFTER_LINE, DELAYED_LINE, HELD_LINE),
         meanings={"-REPO": "work repository (every one that has such a schedule)"}),
    Form("SCHED ADD", "NAME SCENARIO VERSION CONTEXT [RULE] [VARIABLE=value ...] %s [-REPO=name]"
         % _SCHEDULE_WORDS, ADMINISTRATOR, "add a schedule, effective at once",
         oks=(SCHEDULE_SET_LINE,), kinds=_SCHEDULE_KINDS,
         meanings={"CONTEXT": "context, such as GLOBAL",
                   "RULE": "when it is due, quoted as one word; without it -AFTER is needed",
                   "-REPO": "work repository (the one of the lowest id that has the scenario)"}),
    Form("SCHED SET", "NAME [VARIABLE=value ...] %s [-SCENARIO=name] [-VERSION=version] "
         "[-CONTEXT=name] [-RULE=rule] [-REPO=name]" % _SCHEDULE_WORDS, ADMINISTRATOR,
         "change a schedule, effective at once; its past is not fired",
         oks=(SCHEDULE_SET_LINE,), kinds=_SCHEDULE_KINDS,
         meanings=dict(_SCHEDULE_PLACE, **{
             "-SCENARIO": "the scenario that it starts",
             "-VERSION": "version of the scenario; -1 is the latest",
             "-CONTEXT": "context of its sessions", "-RULE": "when it is due"})),
    Form("SCHED DEL", "NAME [-REPO=name]", ADMINISTRATOR,
         "delete a schedule; what it decided is kept until purged", oks=(SCHEDULE_NAME_LINE,),
         meanings=_SCHEDULE_PLACE),
    Form("SCHED ON", "NAME [-REPO=name]", ADMINISTRATOR, "enable a schedule",
         oks=(ENABLED_LINE,), meanings=_SCHEDULE_PLACE),
    Form("SCHED OFF", "NAME [-REPO=name]", ADMINISTRATOR, "disable a schedule",
         oks=(ENABLED_LINE,), meanings=_SCHEDULE_PLACE),
    Form("SCHED NEXT", "[NAME] [-COUNT=n] [-FROM=time] [-TO=time] [-ALL] [-REPO=name] [-JSON]",
         MONITOR, "coming due times, in order; nothing fires", AS_ROWS, lines=(COMING_LINE,),
         meanings={"NAME": "name of the schedule (all that are enabled)",
                   "-COUNT": "how many due times at most (10)",
                   "-FROM": "due times after this instant (now)",
                   "-TO": "due times up to this instant",
                   "-ALL": "show those that are excluded too, and why",
                   "-REPO": "only those of this work repository"}),
    Form("SCHED WHY", "[NAME] [-DUE=time] [-SINCE=time] [-LIMIT=n] [-REPO=name] [-JSON]", MONITOR,
         "what became of the due times, newest first", AS_ROWS, oks=(OUTLOOK_LINE,),
         lines=(OCCURRENCE_LINE,),
         meanings={"NAME": "name of the schedule (all)",
                   "-DUE": "only what was due then",
                   "-SINCE": "only what was due from then on",
                   "-REPO": "only those of this work repository"}),
    Form("SCHED PLAN", "[-FROM=time] [-TO=time] [-ALL] [-REPO=name] [-JSON]", MONITOR,
         "play a period (default: a day) against the limits and the median durations of past "
         "sessions: what would overlap, queue, be skipped, never fit", AS_ROWS,
         oks=(PLANNED_LINE,), lines=(VISIT_LINE,),
         meanings={"-FROM": "begin of the period, which belongs to it (now)",
                   "-TO": "end of the period (a day after its begin)",
                   "-ALL": "show what simply starts, too",
                   "-REPO": "play this work repository alone"}),
    Form("SCHED UPDATE", "", ADMINISTRATOR, "read the schedules from the repositories again",
         oks=(UPDATED_LINE,)),
    Form("CALENDAR LIST", "[-JSON]", MONITOR, "list the calendars that exclude_dates can name",
         AS_ROWS, lines=(CALENDAR_LINE,)),
    Form("CALENDAR ADD", "NAME DATES", ADMINISTRATOR,
         "add a calendar: dates and ranges a..b between commas", oks=(CALENDAR_NAME_LINE,),
         kinds=_CALENDAR_KINDS, meanings=_CALENDAR_NAME),
    Form("CALENDAR SET", "NAME DATES", ADMINISTRATOR,
         "give a calendar other dates, effective at once", oks=(CALENDAR_NAME_LINE,),
         kinds=_CALENDAR_KINDS, meanings=_CALENDAR_NAME),
    Form("CALENDAR DEL", "NAME", ADMINISTRATOR, "delete a calendar that no schedule names",
         oks=(CALENDAR_NAME_LINE,), kinds={"NAME": "calendar"}, meanings=_CALENDAR_NAME),
)


def _list_ok_names(*kinds):
    """The fields of these kinds that an OK line has, or a data line of one that is no listing."""
    return frozenset(key.name for form in VERB_FORMS
                     for line in form.oks + (form.lines if form.reply == AS_FIELDS else ())
                     for key in line.keys if key.kind in kinds)


# fields that are numbers, and yes or no; a number that is not known is empty
NUMBER_FIELDS, FLAG_FIELDS = _list_ok_names(NUMBER_KEY, SECONDS_KEY), _list_ok_names(FLAG_KEY)
_WORD = re.compile(r"(\[?)(-?)([A-Z_]+)(\[?)(?:=([^] ]+))?")


def list_parts(form):
    """The arguments and options of a form, in order: [Part]; VARIABLE=value is neither."""
    parts = []
    for bracket, dash, word, inner_bracket, shown in _WORD.findall(form.words):
        if word != "VARIABLE":
            is_flag = dash and not shown
            name = dash + word
            kind = None if is_flag else form.kinds.get(name) or KIND_WORDS[word]
            is_field = kind is not None and kind.startswith("field ")
            meaning = (SCHEDULE_OPTIONS[name][1] if is_field
                       else form.meanings.get(name) or WORD_MEANINGS[name])
            parts.append(Part(name, kind, shown, not bracket, bool(inner_bracket), meaning))
    return parts


# ======================================================================================
# base/options.py
# The options of the agent's command line, as data.
# ======================================================================================

class CommandOption(NamedTuple):
    """One option: it takes no value when none is `shown`."""
    name: str
    shown: str              # its value as --help shows it
    meaning: str
    default: Any = None
    limits: Optional[Tuple[int, int]] = None    # its value is a whole number from .. to; else text
    count: str = ""         # + for one value or more, * for any number; else one
    attribute: str = ""     # its name in the settings, where that is another

    @property
    def help_text(self):
        """What it means, with its default."""
        return self.meaning + (" (default %s)" % self.default if self.default else "")

    @property
    def words(self):
        """The option and its value as they are written on the command line."""
        more = " ..." if self.count else ""
        return (self.name + " " + self.shown + more).strip()


COMMAND_OPTIONS = (
    CommandOption("--name", "NAME", "name of the agent; sessions and schedules belong to one",
                  DEFAULT_NAME),
    CommandOption("--host", "HOST", "loopback address to listen on", "127.0.0.1"),
    CommandOption("--port", "PORT", "port to listen on, 0 for any that is free", DEFAULT_PORT,
                  (0, 65535)),
    CommandOption("--master", "PATH", "master repository (default sqlite_repos/master.db beside "
                  "agent.py, made when it does not exist)"),
    CommandOption("--create", "", "make the master of --master, and workrep.db beside it, when "
                  "they do not exist", attribute="is_creating"),
    CommandOption("--import", "FILE", "import definitions documents, also beside a running agent, "
                  "and exit", count="+", attribute="files"),
    CommandOption("--repo", "NAME", "work repository for --import (default: of the lowest id)"),
    CommandOption("--replace", "", "let --import replace scenario versions that differ"),
    CommandOption("--max-sessions", "N", "sessions that run at once (default %d per core)"
                  % SESSIONS_PER_CORE, limits=(1, 10000)),
    CommandOption("--max-queue", "N", "outstanding sessions; one more is BUSY", MAX_QUEUE,
                  (1, 10 ** 9)),
    CommandOption("--max-connections", "N", "connections at once; one more is BUSY",
                  MAX_CONNECTIONS, (1, 100000)),
    CommandOption("--max-line", "BYTES", "bytes of a request; a longer one is TOO_LONG", MAX_LINE,
                  (MIN_LINE, MAX_IMPORT_LINE)),
    CommandOption("--max-output", "BYTES", "bytes kept of what a task prints", MAX_OUTPUT,
                  (1024, 1 << 30)),
    CommandOption("--keep-days", "DAYS", "how long ended sessions are kept", KEEP_DAYS,
                  (1, 100000)),
    CommandOption("--clean-every", "SECONDS", "between two looks for stale sessions", int(CLEAN_S),
                  (1, 86400), attribute="clean_every_s"),
    CommandOption("--host-id", "ID", "identity of this host, by which stale sessions are told "
                  "(default /etc/machine-id, else its name)", ""),
    CommandOption("--insecure-fs", "", "allow repositories on a network file system",
                  attribute="is_insecure_fs"),
    CommandOption("--manual", "TOPIC", "print the manual, or one topic of it, and exit",
                  count="*"),
    CommandOption("--version", "", "print the version and exit"),
    CommandOption("--help", "", "print these options and exit"),
)


# ======================================================================================
# base/program.py
# What this program is: its own file, its code and its own log.
# ======================================================================================

log = logging.getLogger("agent")

M_ARENA_MAX = -8        # mallopt(3)

# Python code that runs this program from an open file with its byte-code; the command line behind
# it is that file's descriptor, the path of the program, and its arguments. The working folder,
# which `-c` would search for modules, is none of them.
BOOT = ("import sys;sys.path[:1]==['']and sys.path.pop(0);import marshal,os;"
        "CODE_FD=int(sys.argv[1]);__file__=sys.argv[2];del sys.argv[:2];"
        "exec(marshal.loads(os.pread(CODE_FD,os.fstat(CODE_FD).st_size,0)))")

# Python code that runs one function, which imports what it needs; behind it are its byte-code, in
# hexadecimal digits, and its arguments
ALONE = ("import sys,marshal,types;"
         "types.FunctionType(marshal.loads(bytes.fromhex(sys.argv[1])),globals())(*sys.argv[2:])")


@functools.lru_cache(maxsize=None)
def own_boot():
    """What changes with every boot of the host, in a container too, or `unknown`."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return answer_of("sysctl", "-n", "kern.bootsessionuuid") or "unknown"


def answer_of(*command):
    """What a program of the host prints, or nothing."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              stdin=subprocess.DEVNULL, timeout=10).stdout.decode().strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def program_path():
    """The absolute path of this program's own file."""
    return os.path.abspath(__file__)


@functools.lru_cache(maxsize=None)
def open_code():
    """A descriptor of a file without a name that has the byte-code of this program: helpers and
    minders start from it fast, and from the code that the agent began with."""
    code = globals().get("CODE_FD")
    if code is not None:
        os.set_inheritable(code, False)
        return code
    with tempfile.TemporaryFile() as file:
        file.write(marshal.dumps(_find_code()))
        file.flush()
        return os.dup(file.fileno())


def _find_code():
    """The code of the whole program: that which runs, or compiled anew when it was imported."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is globals():
            return frame.f_code
        frame = frame.f_back
    with open(program_path(), "rb") as source:
        return compile(source.read(), source.name, "exec", dont_inherit=True)


def program_command(*flags):
    """The words that run this program again, with these flags of Python; its arguments go behind
    them. The process must have the descriptor of open_code()."""
    return ([sys.executable] + utf8_flags() + list(flags)
            + ["-c", BOOT, str(open_code()), program_path()])


def keep_standard_descriptors():
    """Opens those of 0, 1 and 2 that are closed, so that no other file gets their numbers: what is
    printed would go there."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def call_c_library(name, *arguments):
    """Calls a function of the C library with whole numbers, where that is in reach."""
    with contextlib.suppress(ImportError, OSError, AttributeError, MemoryError):
        import ctypes
        getattr(ctypes.CDLL(None), name)(*arguments)


def share_heaps():
    """Has all threads share two heaps: glibc would give each its own, where what is freed serves
    that thread alone, so that memory creeps. Before threads are started."""
    call_c_library("mallopt", M_ARENA_MAX, 2)


def alone_command(function, *arguments):
    """The words that run one function by itself, on texts, in a process that starts a few times
    faster than this program and needs no file of it. It knows nothing of its module, nor of the
    user's folders and settings for Python."""
    code = marshal.dumps(function.__code__).hex()
    return [sys.executable, "-I", "-S", "-c", ALONE, code] + list(arguments)


def start_over_lean():
    """Starts over as the same process from byte-code: Python keeps all that it needed to compile a
    main program until that ends, some 25 MB; and with names of files in UTF-8. Returns where that
    is done, or cannot be."""
    restore_environment()
    if "CODE_FD" in globals() or not sys.executable:
        return
    if not utf8_flags() and find_utf8_locale() is None:
        log.warning("this host has no locale of UTF-8, so names of files must be ASCII for this "
                    "Python (from 3.7 on they need not)")
    try:
        flags = subprocess._args_from_interpreter_flags()
        command = program_command(*flags) + sys.argv[1:]
        os.set_inheritable(open_code(), True)
        os.execve(sys.executable, command, utf8_environment(os.environ))
    except OSError as error:
        log.warning("memory for the compiling is kept: %s", error)


class Told:
    """What was told last of each key: what goes on for long is told once."""

    def __init__(self):
        self._texts = {}

    def is_new(self, key, text):
        """Whether a text is to be told. No text: it is over."""
        before = self._texts.pop(key, "")
        if text:
            self._texts[key] = text
        return text not in ("", before)


def tell_traceback(error):
    """An exception with the lines of code that led to it."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


# ======================================================================================
# base/times.py
# The clock, instants as text, and the one parser of durations.
# ======================================================================================

class Clock:
    """The one place that reads the time: of day in epoch seconds, and one that never steps."""

    def now(self):
        """Seconds since 1970-01-01 UTC, as the system's clock has it."""
        return time.time()

    def monotonic(self):
        """Seconds that only ever go forward."""
        return time.monotonic()


def to_text(instant):
    """Epoch seconds -> UTC ISO 8601 text, 24 characters, as the tables hold it."""
    # 0.01 ms more than the float: from_text(text) must give the same text again
    whole, thousandths = divmod(int((instant * 1000 + 0.01) // 1), 1000)
    return "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ" % (time.gmtime(whole)[:6] + (thousandths,))


@functools.lru_cache(maxsize=1024)
def from_text(text):
    """UTC ISO 8601 text of the tables -> epoch seconds; of many equal ones the same float."""
    fields = (int(text[0:4]), int(text[5:7]), int(text[8:10]),
              int(text[11:13]), int(text[14:16]), int(text[17:19]))
    return timegm(fields) + int(text[20:23] or 0) / 1000.0      # as SQLite itself writes it: none


def as_stored(instant):
    """Epoch seconds as the tables will have them: to the millisecond."""
    return from_text(to_text(instant))


def find_time(text):
    """`from_text`, or None of what is none: another program has written it."""
    try:
        return from_text(text) if text else None
    except (ValueError, TypeError):
        return None


def to_local(text):
    """UTC text of the tables -> the agent's local time with its offset;
    what is none stays as it is."""
    try:
        return text and local_iso(from_text(text), "milliseconds")
    except ValueError:                  # another program has written it
        return text


def local_iso(instant, timespec="seconds"):
    """Epoch seconds -> ISO 8601 in the agent's zone with its offset."""
    moment = datetime.fromtimestamp(instant, timezone.utc).astimezone()
    return moment.isoformat(timespec=timespec)


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text, is_whole=False):
    """`90`, `90s`, `1.5m`, `2h`, `1d` -> seconds; with `is_whole` an int of at most 9 digits before
    its unit, without a fraction. CalendarError."""
    match = _DURATION.fullmatch(text)
    if not match or len(text) > 15 or is_whole and not re.fullmatch("[0-9]{1,9}", match.group(1)):
        raise CalendarError("duration '%s' is not a %s with s, m, h or d, like 90s, 15m, 2h, 1d"
                            % (text[:60], "whole number" if is_whole else "number"))
    return (int if is_whole else float)(match.group(1)) * _UNITS_S[match.group(2)]


# ======================================================================================
# base/words.py
# Words of requests and replies: names, splitting, quoting, and what makes a text one line.
# ======================================================================================

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_name(text):
    """A name of a scenario, schedule, repository or step, or ValueError."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        raise ValueError('must be a name, which is text: quote it, "%s"' % text)
    if not isinstance(text, str) or not NAME.fullmatch(text) or len(text) > MAX_NAME:
        raise ValueError("must be a name: letters, digits, _ . - (not first: . -), "
                         "at most %d characters" % MAX_NAME)
    return text


def tell_near(name, names):
    """Words on the one of some names (None among them is none) that is nearly this one, or
    nothing."""
    import difflib
    names = [other for other in names if other]
    near = difflib.get_close_matches(name, names, 1) if len(name) <= MAX_NAME else []
    return "; do you mean %s?" % near[0] if near else ""


def version_key(version):
    """A text that sorts versions in natural order: 9 < 10 < 10.1."""
    def padded(match):
        digits = match.group().lstrip("0")
        return "%03d%s" % (len(digits), digits)
    return re.sub(r"\d+", padded, version)


class Word(NamedTuple):
    """One word of a request: what it is, its name when it is an option or variable, its value."""
    kind: str                   # argument, option, variable
    name: str
    value: Optional[str]        # None: an option without =value

    @property
    def has_value(self):
        """Whether it holds what may be the value of a variable, by wrong quoting too."""
        return self.kind == "variable" or "=" in (self.value or "")


_PART = re.compile(r"""[^ \t"']+|"(?:[^"\\]|\\.)*"|'[^']*'""")
_SURROGATE = re.compile("[\ud800-\udfff]")


def split_words(line):
    """A request -> its words (section 4 of the contract); BadRequest names the word at fault."""
    if '"' not in line and "'" not in line:
        return [_classify(part, part) for part in line.replace("\t", " ").split(" ") if part]
    words, position = [], 0
    while position < len(line):
        if line[position] in " \t":
            position += 1
            continue
        try:
            word, after = _quoted_word(line, position)
        except ValueError as error:
            raise BadRequest("%s: %s" % (_tell_start(line[position:], words), error)) from None
        words.append(word)
        position = after
    return words


def _tell_start(text, words):
    """How an error names a word that cannot be read: by what stands before its first quote, if that
    cannot be a piece of a value."""
    bare = re.match("[^ \t\"']*", text).group()
    variable = VARIABLE.match(bare)
    if variable and bare[variable.end():variable.end() + 1] == "=":
        return "word %s" % shorten(variable.group() + "=...")
    is_safe = bare and not any(word.has_value for word in words) and bare.count("=") < 2
    return "word %s" % (shorten(bare + "...") if is_safe else len(words) + 1)


def tell_word(words, index, number, options=()):
    """How an error names words[index], the `number`-th of its request,
    whose verb has these options.

    A value of a variable is never shown, nor what wrong quoting or a dash too many may have made of
    one: an argument behind a value is told by its number.
    """
    word = words[index]
    if word.kind == "variable":
        return "word %s" % shorten(word.name + "=...")
    if word.kind == "option":
        is_safe = capitals(word.name) in options and not word.has_value
        return "word %s" % shorten(word.name if word.value is None else "%s=%s" % (
            word.name, word.value if is_safe else "..."))
    is_safe = not re.search("[={]", word.value) and not any(before.has_value
                                                            for before in words[:index])
    return "word %s" % (shorten(word.value) if is_safe else number)


def list_hidden(words):
    """The texts of a request that no error and no log may repeat, in each form that a message may
    give them, the longest first: values of variables, and what stands behind one and may belong to
    it."""
    hidden, is_behind = set(), False
    for word in words:
        is_behind = is_behind or word.has_value
        if word.has_value or is_behind and word.kind == "argument":
            value = word.value
            for text in (value, " ".join(value.split()), json.dumps(value)[1:-1]):
                hidden |= {text, text[:SHORT]}
    return sorted((text for text in hidden if len(text) >= MIN_SECRET), key=len, reverse=True)


FEW = 300               # texts to hide that are looked for one after the other


def mask_all(text, hidden):
    """A text, or bytes, with MASK in place of each of these, which come with the longest first and
    have MIN_SECRET characters at least."""
    mask = MASK if isinstance(text, str) else MASK.encode()
    if FEW < len(hidden) < len(text):
        return _mask_many(text, hidden, mask)
    for value in hidden:
        text = text.replace(value, mask)
    return text


def _mask_many(text, hidden, mask):
    """mask_all in time that grows as both, not as their product: one way through the text."""
    whole, sizes = set(hidden), {}      # beginning -> the lengths of those that begin so
    for value in hidden:
        lengths = sizes.setdefault(value[:MIN_SECRET], [])
        if len(value) not in lengths[-1:]:
            lengths.append(len(value))
    pieces, begin, position = [], 0, 0
    while position < len(text):
        for size in sizes.get(text[position:position + MIN_SECRET], ()):
            if text[position:position + size] in whole:
                pieces += [text[begin:position], mask]
                begin = position = position + size
                break
        else:
            position += 1
    return text[:0].join(pieces + [text[begin:]])


def _quoted_word(line, position):
    """The word that begins at `position`, and where the next may begin. ValueError."""
    start, text, bare, is_quoted, has_brace = position, [], None, False, False
    while position < len(line) and line[position] not in " \t":
        match = _PART.match(line, position)
        if not match:
            raise ValueError("the quote has no end")
        part, position = match.group(), match.end()
        if part[0] == '"':
            part, is_quoted = _json_string(part), True
        elif part[0] == "'":
            part, is_quoted = part[1:-1], True
        else:
            has_brace = has_brace or "{" in part
            bare = part if start == match.start() else bare
        text.append(part)
    if is_quoted and has_brace:
        raise ValueError("quote the document as one word")
    text = "".join(text)
    if "\0" in text or _SURROGATE.search(text):
        raise ValueError("U+0000 and lone surrogates are not taken")
    return _classify(bare or "", text), position


def _json_string(part):
    try:
        return json.loads(part)
    except ValueError:
        raise ValueError("not a JSON string") from None


def _classify(bare, text):
    """`bare` is what stands before the first quote: it alone makes an option or a variable."""
    head, equals, _ = bare.partition("=")
    if bare[:1] == "-" and bare[1:2].isalpha() and bare[1] < "\x80":
        if equals:
            return Word("option", head, text[len(head) + 1:])
        return Word("option", text, None)
    if equals and VARIABLE.fullmatch(head):
        return Word("variable", head, text[len(head) + 1:])
    return Word("argument", "", text)


_CAPITALS = {small: small - 32 for small in range(ord("a"), ord("z") + 1)}


def capitals(text):
    """ASCII letters in capitals and nothing else, so that no other letter passes for one of
    them."""
    return text.translate(_CAPITALS)


SHORT = 60              # characters of a user's text in a message


def shorten(text, limit=SHORT):
    """A text of a user for a message: on one line, ASCII, cut."""
    text = text if len(text) <= limit else text[:limit] + "..."
    return json.dumps(text)


_PLAIN = re.compile(r"[!#-&(-\[\]-~]*")


def render_value(value):
    """A value of a field: bare when it is printable ASCII without space, quote, backslash."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return str(value)
    text = value if isinstance(value, str) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def render_fields(fields):
    """[(key, value)] -> `key=value key=value`."""
    return " ".join(["%s=%s" % (key, render_value(value)) for key, value in fields])


_CONTROL = re.compile("[\0-\x08\x0a-\x1f\x7f-\x9f]")


# ======================================================================================
# base/workers.py
# Threads that begin, or are given up: nobody waits for ever for their begin.
# ======================================================================================

BEGIN_S = 2.0           # within which a thread begins, or never


class _Unawaited(threading.Event):
    """Of a Thread: who starts it does not wait here, where it may never come."""

    def wait(self, timeout=None):
        """Waits for nothing."""
        return True


class Worker(threading.Thread):
    """A thread that begins within BEGIN_S once start() has returned, or never.

    Python's own start() waits for ever for a thread that had no memory for its first steps.
    """

    def __init__(self, target, name, *arguments):
        super().__init__(target=target, args=arguments, name=name, daemon=True)
        self._started = _Unawaited()    # the one that start() of Thread waits for, 3.6 to 3.14
        self._decision = threading.Lock()       # for whether it has begun, or is given up
        self._begun, self._is_given_up = threading.Event(), False

    def start(self):
        """Starts it. RuntimeError: the host has no thread to give."""
        super().start()
        if not self._begun.wait(BEGIN_S):
            with self._decision:
                self._is_given_up = not self._begun.is_set()
        if self._is_given_up:
            raise RuntimeError("can't start new thread: no memory, or no time, to begin")

    def try_start(self):
        """Starts it -> whether the host has a thread to give."""
        try:
            self.start()
        except RuntimeError:
            return False
        return True

    def run(self):
        """Does its work, unless it was given up."""
        with self._decision:
            if not self._is_given_up:
                self._begun.set()
        if not self._is_given_up:
            super().run()


# ======================================================================================
# timetable/days.py
# Days and times of day as bit masks and lists, and the zones that place them in time.
# ======================================================================================

# Pure: rule, zone and window, after -> next. Instants are whole seconds since 1970-01-01 UTC.
#
# Local time is counted likewise, as if the wall clock were UTC ("local seconds"); a "day" is local
# seconds // 86400. A rule is a pattern of days (one bit mask a month) and an ordered list of times
# of day; both can be ranked, so next and count are arithmetic. A zone is cut into pieces of one
# offset, and in each the rule is looked up in local seconds: a gap is local time between two pieces
# that neither has, a fold is local time that both have.

DAY = 86400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
END_DAY = date(9998, 1, 1).toordinal() - EPOCH_ORDINAL  # datetime ends with the year 9999
LAST_INSTANT = END_DAY * DAY
CHUNK_BITS = 24             # pieces of a zone are found, and kept, for 194 days at a time
PROBE_S = 1 << 19           # six days: since 1970 no zone keeps an offset for less
# stretches tried for steps that the window leaves seldom: ten years of days at least
EVERY_TRIES = 4000
MAX_OVERLAP = 2000          # firings whose repetitions may overlap
MAX_SPANS = 50              # due times that are excluded, told one by one
MAX_SECONDS = 999999999     # of a duration in whole seconds

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# as in cron
WEEKDAY_NUMBERS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
MONTH_NUMBERS = {name: i + 1 for i, name in enumerate(
    "jan feb mar apr may jun jul aug sep oct nov dec".split())}
MONTH_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
ORDINALS = {"first": "#1", "second": "#2", "third": "#3", "fourth": "#4", "last": "l"}
MACROS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
          "@weekly": "0 0 * * 0",
          "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *"}
FORMS = {"startup": "startup", "boot": "boot", "at": "at 2026-12-01 02:00", "every": "every 15m",
         "hourly": "hourly at 05:00", "daily": "daily at 02:00,14:00",
         "weekly": "weekly on mon,wed at 02:00",
         "monthly": "monthly on 1,15,last at 02:00' or 'monthly on last fri at 18:00",
         "yearly": "yearly on 12-31 at 23:00", "cron": "cron 0 2 * * mon-fri"}
WINDOW_FIELDS = ("exclude_weekdays", "exclude_monthdays", "exclude_dates", "hours", "gap", "fold",
                 "repeat_every", "repeat_count", "repeat_for")
MOVING_FIELDS = frozenset(WINDOW_FIELDS + ("from", "to"))      # those that due times follow from


def _find_first(low, high, holds):
    """The first number in (low, high] for which `holds`; from it up to `high` it does for all."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@functools.lru_cache(maxsize=1024)
def _share(value):
    """The first of all equal values, so that many schedules keep one."""
    return value


class Zone:
    """Offsets of local time, found with `probe(instant) -> seconds east of UTC`.
    Threads may share one."""

    __slots__ = ("_probe", "_chunks")

    def __init__(self, probe):
        self._probe, self._chunks = probe, {}

    def get_piece(self, instant):
        """(start, end, offset, offset before start) of the stretch of one offset around `instant`.

        A start or end that is no change of offset lies two days off or more,
        and has the same offset before it.
        """
        pieces = self._chunks.get(instant >> CHUNK_BITS)
        if pieces is None:  # two threads may both look: what they find is equal
            pieces = self._chunks[instant >> CHUNK_BITS] = self._find_pieces(instant >> CHUNK_BITS)
        for piece in pieces:
            if instant < piece[1]:
                break
        return piece

    def _find_pieces(self, chunk):
        """The pieces of a stretch of 2 ** CHUNK_BITS seconds, with two days before and behind."""
        start, end = (chunk << CHUNK_BITS) - 2 * DAY, (chunk + 1 << CHUNK_BITS) + 2 * DAY
        before = offset = self._probe(start)
        pieces = []
        for low in range(start, end, PROBE_S):
            high = min(low + PROBE_S, end)
            while self._probe(high) != offset:
                low = _find_first(low, high, lambda instant: self._probe(instant) != offset)
                pieces.append((start, low, offset, before))
                start, before, offset = low, offset, self._probe(low)
        return tuple(pieces) + ((start, end, offset, before),)


def find_zone(name):
    """The zone called `name`: '' is the system's, 'UTC' needs nothing,
    others are IANA names (CalendarError)."""
    # tzset() shows in the names and the offset, and TZ tells zones apart that agree in both.
    return (_make_zone(name) if name
            else _make_zone("", os.environ.get("TZ"), time.tzname, time.timezone))


@functools.lru_cache(maxsize=1024)
def _make_zone(name, *_system):
    """find_zone by name; `_system` tells the system's zones apart. CalendarError."""
    if not name:
        return Zone(lambda instant: time.localtime(instant).tm_gmtoff)
    if name == "UTC":
        return Zone(lambda instant: 0)
    only = "only UTC and the system's zone (no timezone) are known"
    try:
        import zoneinfo
        info = zoneinfo.ZoneInfo(name)
    except ImportError:
        raise CalendarError("timezone '%s': the time-zone database needs Python 3.9 or newer, this "
                            "is %s; %s; TZ=Europe/Zurich python agent.py starts it in another"
                            % (name, sys.version.split()[0], only)) from None
    except (KeyError, ValueError, OSError, TypeError):
        right = "no such zone; write a name like Europe/Zurich, or UTC"
        if not zoneinfo.available_timezones():
            right = "this host has no time-zone data (tzdata); " + only
        raise CalendarError("timezone '%s': %s" % (name, right)) from None
    return Zone(
        lambda instant: int(datetime.fromtimestamp(instant, info).utcoffset().total_seconds()))


class Days(NamedTuple):
    """Which days of any month: bit n of a mask is the n-th, bit 0 the last day."""

    months: tuple    # a mask for each month, January first; 0 where no day of it is meant
    weekdays: int    # bits, Monday is bit 0
    nth: tuple       # pairs (n, weekday), Monday 0; n 0 is the last one of the month
    either: bool     # mask or week day is enough; else both must match

    def get_mask(self, month, weekday, length):
        """The bits of a month (0..11) of that length that begins on that week day."""
        chosen, week = self.months[month], _week_bits(self.weekdays, weekday)
        if not chosen:
            return 0
        chosen |= (chosen & 1) << length
        for n, day in self.nth:
            place = 1 + (day - weekday) % 7 + 7 * (n - 1 if n else 4)
            week |= 1 << (place if n or place <= length else place - 7)
        return (chosen | week if self.either else chosen & week) & ((2 << length) - 2)


def _week_bits(weekdays, first):
    """Bits 1..31 for the week days of a month that begins on the week day `first`."""
    return ((weekdays >> first | weekdays << 7 - first) & 127) * 0x10204081 << 1


@functools.lru_cache(maxsize=8192)
def _find_month(month):
    """(first day, its week day, length) of the month numbered year * 12 + month - 1."""
    first, following = (date(m // 12, m % 12 + 1, 1).toordinal() - EPOCH_ORDINAL
                        for m in (month, month + 1))
    return first, (first + 3) % 7, following - first


@functools.lru_cache(maxsize=1024)
def _is_possible(days, weekdays=0, monthdays=0):
    """Whether any day remains when these week days and days of the month (bits) are excluded.

    Exact: in the 400 years of the Gregorian cycle every month begins on each week day,
    a leap February too.
    """
    return any(days.get_mask(month, first, length) & ~(monthdays | (monthdays & 1) << length)
               & ~_week_bits(weekdays, first)
               for month, length in [(1, 28)] + list(enumerate(MONTH_LENGTHS))
               for first in range(7))


class DayTimes:
    """An ordered list of seconds of the day: each of `starts` plus each of `within`."""

    __slots__ = ("starts", "within", "size")

    def __init__(self, starts, within):
        self.starts, self.within, self.size = starts, within, len(starts) * len(within)

    def count_before(self, second):
        """How many come before this second of the day."""
        place = bisect_right(self.starts, second) - 1
        return (place * len(self.within) + bisect_left(self.within, second - self.starts[place])
                if place >= 0 else 0)

    def get_nth(self, n):
        """The n-th of these seconds of the day, from 0."""
        return self.starts[n // len(self.within)] + self.within[n % len(self.within)]


EVERY_DAY = Days(((1 << 32) - 2,) * 12, 127, (), False)
HOURS = tuple(range(0, DAY, 3600))
NEVER = DayTimes((), ())


# ======================================================================================
# timetable/rules.py
# A rule of a schedule, from its text to days and times of day.
# ======================================================================================

BY_STARTS = ("startup", "boot")     # kinds that a start of the agent fires


class Rule(NamedTuple):
    """A parsed rule, without zone and window."""

    kind: str                  # a key of FORMS
    days: Days = EVERY_DAY
    times: DayTimes = DayTimes((0,), (0,))
    # matches the local clock of each real hour: no gap to fill, both passes of a fold
    real: bool = False
    step: int = 0              # seconds, of `every`
    day: int = None            # of `at`

    @property
    def is_by_clock(self):
        """Whether it has due times by the clock."""
        return self.kind not in BY_STARTS


_COMMA, _ON_AT, _NUMBER = (re.compile(" ?, ?"), re.compile("(?:on (.+) )?at (.+)"),
                           re.compile("[0-9]{1,4}"))
_CLOCK = re.compile("([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_MINUTE = re.compile("([0-5]?[0-9]):([0-5][0-9])")
_LIKE_CRON = re.compile(r"[-0-9*/,]+(\s+[^\s:]+){4,5}")
# the fields of cron: name, first and last value
_CRON_FIELDS = (("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31),
                ("month", 1, 12), ("week day", 0, 6))
_EACH = {"second": "of each minute", "minute": "of each hour", "hour": "of each day",
         "day of month": "of each month", "month": "of each year", "week day": "alone"}
# what is incomplete in an item of a field of cron, and what would be right
_INCOMPLETE = ((re.compile("$"), "an item is empty; leave out the comma"),
               (re.compile("/"), "before / comes * or a range, like */5"),
               (re.compile("-"), "a range lacks its start; it is like 1-5"),
               (re.compile("[^/]*-(/|$)"), "a range lacks its end; it is like 1-5"),
               (re.compile("[^/]*/(?!0*[1-9][0-9]{0,5}$)"),
                "after / comes a step from 1 up, like */5"))


@functools.lru_cache(maxsize=8192)
def parse_rule(text):
    """The Rule written in `text`. CalendarError names the part that is wrong."""
    kind, _, rest = _COMMA.sub(",", " ".join(text.lower().split())).partition(" ")
    if kind.startswith("@") and not rest:
        kind, rest = "cron", kind
    try:
        if kind not in FORMS:
            if _LIKE_CRON.fullmatch(text.strip()):
                raise CalendarError("write 'cron %s'" % text.strip())
            raise CalendarError("'%s' is no kind of rule; one of: %s" % (kind, " ".join(FORMS)))
        return _parse_cron(rest) if kind == "cron" else _parse_words(sys.intern(kind), rest)
    except CalendarError as error:
        raise CalendarError("rule '%s': %s" % (text[:200], error)) from None


def _parse_words(kind, rest):
    """The Rule of a kind but cron, and what stands behind that word. CalendarError."""
    if kind in BY_STARTS and not rest:
        return Rule(kind, times=NEVER)
    if kind == "every" and rest[:1].isalpha():
        raise CalendarError("'%s' is no duration, like 15m; for days or times of day write "
                            "'%s' or '%s'" % (rest, FORMS["daily"], FORMS["weekly"]))
    if kind == "every" and rest:
        step = parse_duration(rest, is_whole=True)
        if not step:
            raise CalendarError("duration '%s' is below 1s" % rest)
        return Rule(kind, step=step)
    if kind == "at" and re.fullmatch("[^ t]+[ t][^ t]+", rest):
        day, clock = re.split("[ t]", rest)
        return Rule(kind, day=parse_day(day), days=_parse_yearly(day[5:]),
                    times=_parse_times(clock, parse_clock))
    match = _ON_AT.fullmatch(rest)
    parse_days = {"weekly": _parse_weekly, "monthly": _parse_monthly,
                  "yearly": _parse_yearly}.get(kind)
    if kind in BY_STARTS + ("every", "at") or not match or bool(match.group(1)) != bool(parse_days):
        raise CalendarError("write '%s'" % FORMS[kind])
    if kind == "hourly":
        return Rule(kind, times=_parse_times(match.group(2), _parse_minute, HOURS), real=True)
    days = parse_days(match.group(1)) if parse_days else EVERY_DAY
    return Rule(kind, days, _parse_times(match.group(2), parse_clock))


def _parse_times(text, parse, starts=(0,)):
    return DayTimes(starts, tuple(sorted({parse(item) for item in text.split(",")})))


def parse_clock(text):
    """The second of the day of `HH:MM[:SS]`."""
    match = _CLOCK.fullmatch(text)
    if not match:
        raise CalendarError("time '%s' is not HH:MM or HH:MM:SS, 00:00 to 23:59:59" % text)
    return int(match.group(1)) * 3600 + int(match.group(2)) * 60 + int(match.group(3) or 0)


def _parse_minute(text):
    match = _MINUTE.fullmatch(text)
    if not match:
        raise CalendarError("time '%s' is not minute:second of the hour, 00:00 to 59:59" % text)
    return int(match.group(1)) * 60 + int(match.group(2))


def parse_day(text):
    """Days since 1970-01-01 of `YYYY-MM-DD`."""
    try:
        year, month, day = re.fullmatch("([0-9]{4})-([0-9]{2})-([0-9]{2})", text).groups()
        return date(int(year), int(month), int(day)).toordinal() - EPOCH_ORDINAL
    except (AttributeError, ValueError):
        raise CalendarError("'%s' is not a date of the calendar, YYYY-MM-DD" % text) from None


@functools.lru_cache(maxsize=1024)
def _parse_weekly(text):
    return EVERY_DAY._replace(weekdays=_parse_weekdays(text))


@functools.lru_cache(maxsize=1024)
def _parse_monthly(text):
    plain, nth = [], []
    for item in text.split(","):
        ordinal, _, name = item.partition(" ")
        if name and ordinal in ORDINALS:
            nth.append(name + ORDINALS[ordinal])
        else:
            plain.append(item)
    return _parse_days(",".join(plain) or "*", "*", ",".join(nth) or "*", "last",
                       ", last or first to fourth or last with a week day, like 'first mon'")


@functools.lru_cache(maxsize=1024)
def _parse_yearly(text):
    months = [0] * 12
    for item in text.split(","):
        if not re.fullmatch("(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", item):
            raise CalendarError("day '%s' is not MM-DD, like 12-31" % item)
        month, day = int(item[:2]) - 1, int(item[3:])
        if day > MONTH_LENGTHS[month]:
            raise CalendarError("can never fire: no year has the day %s" % item)
        months[month] |= 1 << day
    return EVERY_DAY._replace(months=tuple(months))


def _parse_cron(rest):
    """The Rule of the fields of cron, or of a macro like @daily. CalendarError."""
    if rest == "@reboot":
        return Rule("boot", times=NEVER)
    if rest.startswith("@") and rest not in MACROS:
        raise CalendarError("'%s' is none of %s @reboot" % (rest, " ".join(MACROS)))
    fields = MACROS.get(rest, rest).split()
    if len(fields) not in (5, 6):
        raise CalendarError("%d fields; cron has 5 (minute hour day month weekday) "
                            "or 6 (second first)" % len(fields))
    second, minute, hour, day, month, weekday = fields if len(fields) == 6 else ["0"] + fields
    seconds, minutes = _parse_field("second", second, 0, 59), _parse_field("minute", minute, 0, 59)
    within = _share(tuple(60 * minute + second for minute in minutes for second in seconds))
    starts = _share(tuple(3600 * hour for hour in _parse_field("hour", hour, 0, 23)))
    days = _share(_parse_days(day, month, weekday))
    if not _is_possible(days):
        raise CalendarError("can never fire: no month of '%s' has a day '%s'" % (month, day))
    return Rule("cron", days, DayTimes(starts, within), hour.startswith("*"))


def list_surprises(text):
    """[what is to be said] of a rule, which is a good one: steps of cron that leave one value."""
    words = _COMMA.sub(",", " ".join(text.lower().split())).split(" ")
    fields = words[1:] if words[0] == "cron" else []
    if len(fields) not in (5, 6):
        return []
    return [_tell_step(name, low, item)
            for (name, low, high), field in zip(_CRON_FIELDS[-len(fields):], fields)
            for item in field.split(",") if _is_lone_step(item, low, high)]


def _is_lone_step(item, low, high):
    """Whether a step goes over several values and meets the first alone."""
    match = re.fullmatch(r"(?:\*|([0-9]+)-([0-9]+))/([0-9]+)", item)
    if not match:
        return False
    first, last = (int(match.group(1)), int(match.group(2))) if match.group(1) else (low, high)
    return first < last < first + int(match.group(3))


def _tell_step(name, low, item):
    first = re.match("[0-9]*", item).group() or low
    return "'%s' is %s %s %s: the step is larger than what it goes over" % (
        item, name, first, _EACH[name])


def _parse_days(day, month, weekday, last="L", hint=" or L"):
    """Days from the last three fields of cron; `last` is the word for the last day."""
    months, mask = (_parse_field("month", month, 1, 12, MONTH_NUMBERS),
                    _parse_monthdays(day, last, hint))
    nth, plain = set(), []
    for item in weekday.split(","):
        match = re.fullmatch("([^#]+)(?:#([1-5])|l)", item)
        if match:
            numbers = _parse_field("week day", match.group(1), 0, 7, WEEKDAY_NUMBERS)
            nth.update((int(match.group(2) or 0), (number - 1) % 7) for number in numbers)
        else:
            plain.append(item)
    return Days(tuple(mask if number in months else 0 for number in range(1, 13)),
                _parse_weekdays(",".join(plain), ", alone, with #1 to #5 or with L")
                if plain else 0,
                tuple(sorted(nth)), not day.startswith("*") and not weekday.startswith("*"))


def _parse_weekdays(text, hint=""):
    return sum({1 << (number - 1) % 7
                for number in _parse_field("week day", text, 0, 7, WEEKDAY_NUMBERS, hint)})


def _parse_monthdays(text, last="last", hint=" or last"):
    plain = [item for item in text.split(",") if item != last.lower()]
    for item in plain:
        if last.lower() in re.split("[-/]", item):
            raise CalendarError("day of month '%s': %s stands alone, in no range and without a step"
                                % (item, last))
    numbers = _parse_field("day of month", ",".join(plain), 1, 31, hint=hint) if plain else []
    return sum(1 << number for number in numbers) | (len(plain) <= text.count(","))


def _parse_field(what, text, low, high, names=(), hint=""):
    """The numbers, in order, of a list of `*`, `a`, `a-b`, each with `/step`;
    high 7 is Sunday once more."""
    def read(word):
        if word in names:
            return names[word]
        if word == "?":
            raise CalendarError("%s: '%s' is no part of '%s'; every one is *" % (what, word, text))
        if not _NUMBER.fullmatch(word) or not low <= int(word) <= high:
            raise CalendarError("%s '%s' is not %d-%d%s"
                                % (what, word, low, high, " ".join(["", *names]) + hint))
        return int(word)
    top, numbers = 6 if high == 7 else high, set()
    for item in text.split(","):
        for pattern, reason in _INCOMPLETE:
            if pattern.match(item):
                raise CalendarError("%s '%s': %s" % (what, item or text, reason))
        body, slash, step = item.partition("/")
        start, dash, right = body.partition("-")
        first = low if body == "*" else read(start)
        last = top if slash or body == "*" else first
        if dash:
            last = 7 if right == "sun" and first else read(right)
        if last < first:
            raise CalendarError("%s '%s': ranges do not wrap; write two, like %s-%s,%s-%s"
                                % (what, item, start, top, low, right))
        numbers.update(range(first, last + 1, int(step or 1)))
    return sorted(numbers)


# ======================================================================================
# timetable/windows.py
# What restricts a rule: hours, dates, weekdays, and repetitions.
# ======================================================================================

class Window(NamedTuple):
    """What the fields of a schedule take away or add, but for `from` and `to`."""

    weekdays: int              # excluded, bits, Monday is bit 0
    monthdays: int             # excluded, bits; bit 0 is the last day
    starts: tuple              # excluded stretches of days: their first ones ..
    ends: tuple                # .. and last ones, in order, apart from each other
    spans: tuple               # stretches of a day that `hours` leaves, first and last second
    gap: str
    fold: str
    every: int                 # repetition: seconds, and how many more times
    repeats: int

    def get_mask(self, days, month):
        """The bits of the days of that month (year * 12 + month - 1) that are not excluded."""
        first, weekday, length = _find_month(month)
        mask = days.get_mask(month % 12, weekday, length)
        if mask and (self.weekdays or self.monthdays):
            mask &= ~(self.monthdays | (self.monthdays & 1) << length
                      | _week_bits(self.weekdays, weekday))
        place = bisect_left(self.ends, first)
        while mask and place < len(self.starts) and self.starts[place] < first + length:
            low, high = (max(self.starts[place] - first, 0) + 1,
                         min(self.ends[place] - first, length) + 1)
            mask &= ~((2 << high) - (1 << low))
            place += 1
        return mask

    def next_day(self, days, day):
        """The first day from `day` on, or None.
        Tries months, no more than the 40 years that may lie between."""
        while day < END_DAY:
            when = date.fromordinal(day + EPOCH_ORDINAL)
            month = when.year * 12 + when.month - 1
            mask = self.get_mask(days, month) >> when.day << when.day
            if mask:
                return day - when.day + (mask & -mask).bit_length() - 1
            month += 1
            while not days.months[month % 12]:
                month += 1
            day = _find_month(month)[0]
            place = bisect_left(self.ends, day)
            if place < len(self.ends) and self.starts[place] <= day:
                day = self.ends[place] + 1
        return None

    def count_days(self, days, first, last):
        """How many days there are from `first` until before `last`."""
        low, high = (date.fromordinal(day + EPOCH_ORDINAL) for day in (first, last))
        start, end = low.year * 12 + low.month - 1, high.year * 12 + high.month - 1
        masks = [self.get_mask(days, month) for month in range(start, end)]
        masks.append(self.get_mask(days, end) & (1 << high.day) - 1)
        masks[0] = masks[0] >> low.day
        return sum(bin(mask).count("1") for mask in masks)

    def find_reason(self, local):
        """Why this local time is excluded, in words, or ''."""
        day, second = divmod(local, DAY)
        if not self.count_days(EVERY_DAY, day, day + 1):
            return "excluded day %s %s" % (WEEKDAYS[(day + 3) % 7],
                                           date.fromordinal(day + EPOCH_ORDINAL))
        return "" if any(low <= second <= high for low, high in self.spans) else "outside hours"


def format_clock(local):
    """`HH:MM`, with `:SS` unless 00, of local seconds or a second of the day."""
    text = "%02d:%02d:%02d" % (local // 3600 % 24, local // 60 % 60, local % 60)
    return text[:5] if text.endswith(":00") else text


def _join(value):
    items = (value if isinstance(value, (list, tuple))
             else str("" if value is None else value).split(","))
    return ",".join(str(item).strip() for item in items)


def _read(name, parse, text, default=0):
    try:
        return parse(text) if text else default
    except CalendarError as error:
        raise CalendarError("%s: %s" % (name, error)) from None


@functools.lru_cache(maxsize=1024)
def _parse_window(weekdays, monthdays, dates, hours, gap, fold, *repetition):
    """The Window of the texts of WINDOW_FIELDS, '' where there is none. Equal ones are shared."""
    for name, text, choices in (("gap", gap, ("run", "skip")), ("fold", fold, ("first", "both"))):
        if text not in choices + ("",):
            raise CalendarError("%s: '%s' is not %s or %s" % ((name, text) + choices))
    every, count, duration = (_read(name, _parse_whole, text.lower(), None)
                              for name, text in zip(WINDOW_FIELDS[6:], repetition))
    limits = [limit for limit in (count, duration if duration is None else duration // (every or 1))
              if limit is not None]
    if bool(every) != bool(limits):
        raise CalendarError("repeat_every (from 1s up) needs repeat_count or repeat_for, and they "
                            "need it")
    if limits and not min(limits):
        raise CalendarError("repeat_for is shorter than repeat_every: nothing would be repeated")
    return Window(_read("exclude_weekdays", _parse_weekdays, weekdays.lower()),
                  _read("exclude_monthdays", _parse_monthdays, monthdays.lower()),
                  *_read("exclude_dates", _parse_dates, dates, ((), ())),
                  _read("hours", _parse_hours, hours, ((0, DAY - 1),)),
                  gap or "run", fold or "first", every or 0, min(limits, default=0))


def _parse_whole(text):
    return parse_duration(text, is_whole=True)


def _parse_hours(text):
    low, dash, high = text.replace(" ", "").partition("-")
    if not dash:
        raise CalendarError("'%s' is not HH:MM-HH:MM, like 08:00-18:00" % text)
    low, high = parse_clock(low), DAY - 1 if high == "24:00" else parse_clock(high)
    return ((low, high),) if low <= high else ((0, high), (low, DAY - 1))


@functools.lru_cache(maxsize=256)
def _parse_dates(text):
    """(starts, ends) of the stretches of days in a list of dates and ranges `a..b`."""
    starts, ends, spans = [], [], []
    for item in filter(None, text.split(",")):
        if not item[0].isdigit():
            raise CalendarError("'%s' is neither a date YYYY-MM-DD, a range a..b, nor a calendar "
                                "that exists" % item)
        first, dots, last = item.partition("..")
        spans.append((parse_day(first.strip()), parse_day(last.strip() if dots else first)))
        if spans[-1][1] < spans[-1][0]:
            raise CalendarError("range '%s' ends before it begins" % item)
    for first, last in sorted(spans):
        if ends and first <= ends[-1] + 1:
            ends[-1] = max(ends[-1], last)
        else:
            starts.append(first)
            ends.append(last)
    return tuple(starts), tuple(ends)


# ======================================================================================
# timetable/firings.py
# When a rule fires in its zone and window: next and count, by arithmetic on local time.
# ======================================================================================

@functools.lru_cache(maxsize=64)
def _cut_times(starts, within, spans):
    seconds = tuple(second for second in (start + second for start in starts for second in within)
                    if any(low <= second <= high for low, high in spans))
    return DayTimes((0,), seconds) if seconds else NEVER


OPEN_WINDOW = _parse_window(*[""] * 9)
BARE_WINDOW = OPEN_WINDOW._replace(fold="both")


class Firings:
    """When a rule is due in a zone and a window, but for repetitions, from `first` to `last`.
    Immutable.

    Nothing is due before 1970 or after 9997. Dates and hours of the window are those of the local
    time that the rule names; for `every` and for repetitions, those of the instant. `anchor` is an
    instant at which `every` is due.
    """

    __slots__ = ("rule", "zone", "window", "times", "first", "last", "anchor")

    def __init__(self, rule, zone, window, first=0, last=LAST_INSTANT, anchor=None):
        self.rule, self.zone, self.window, self.first, self.last = rule, zone, window, first, last
        self.anchor, self.times = first if anchor is None else anchor, rule.times
        if rule.day is not None:  # the one date of `at` lies within, in any zone
            self.first, self.last = (max(first, (rule.day - 2) * DAY),
                                     min(last, (rule.day + 3) * DAY))
        if window not in (OPEN_WINDOW, BARE_WINDOW):
            self._narrow(rule, window)

    def _narrow(self, rule, window):
        """Leaves out times of day that the window never lets be. CalendarError."""
        if window.spans != OPEN_WINDOW.spans and not rule.step:
            times = _cut_times(rule.times.starts, rule.times.within, window.spans)
            if times.size < rule.times.size:        # many have one list with their rule
                self.times = times
        if not _is_possible(rule.days, window.weekdays, window.monthdays):
            self.times = NEVER
        span, per_day = (window.every * window.repeats,
                         DAY // rule.step + 1 if rule.step else self.times.size)
        if min(per_day * (span // DAY + 1), span) > MAX_OVERLAP:
            raise CalendarError("repetitions of over %d firings might overlap; repeat for less time"
                                % MAX_OVERLAP)

    def _next_firing(self, after):
        """The first firing after an instant, or None: piece by piece of the zone."""
        instant = max(after + 1, self.first)
        if not self.times.size:
            return None
        if self.rule.step:
            return self._next_step(self.anchor, self.rule.step, instant - 1, self.last)
        while instant <= self.last:
            start, end, offset, before = self.zone.get_piece(instant)
            local = self._next_local(self._begin_local(instant, start, offset, before))
            if local is None:
                return None
            if local < end + offset:
                # local time that a gap swallowed would be before start
                due = max(local - offset, start)
                return due if due <= self.last else None
            # Far off nothing in between can match: a fold sets the clock back by a day at most.
            instant = end if end - instant < 2 * DAY else max(end, local - offset - 2 * DAY)
        return None

    def _count_firings(self, after, until):
        """How many firings there are in (after, until]: piece by piece of the zone."""
        after, until, count = max(after, self.first - 1), min(until, self.last), 0
        if not self.times.size:
            return 0
        if self.rule.step:
            return self._count_steps(self.anchor, self.rule.step, after, until, until)
        instant = after + 1
        while instant <= until:
            start, end, offset, before = self.zone.get_piece(instant)
            end, local = min(end, until + 1), self._begin_local(instant, start, offset, before)
            if local < instant + offset:  # what the gap swallowed is due once, at its end
                count += min(self._count_local(local, instant + offset + 1), 1)
                local = instant + offset + 1
            count += self._count_local(local, end + offset)
            instant = end
        return count

    def _begin_local(self, instant, start, offset, before):
        """The local time from which on the rule is looked up at `instant`."""
        if not self.rule.real:
            if before < offset and instant == start and self.window.gap == "run":
                return start + before
            if before > offset and self.window.fold == "first":
                return max(instant + offset, start + before)
        return instant + offset

    def _find_missing(self, instant):
        """The first local time of the rule that a gap swallowed and for which `instant` is due,
        or None."""
        start, _, offset, before = self.zone.get_piece(instant)
        begin = self._begin_local(instant, start, offset, before)
        local = (self._next_local(begin)
                 if begin < start + offset and self.times.size and not self.rule.step else None)
        return local if local is not None and local < start + offset else None

    def _next_local(self, local):
        """The first local time of the rule from `local` on, as if the zone never changed,
        or None."""
        day, second = divmod(local, DAY)
        due_day = self.window.next_day(self.rule.days, day)
        if due_day == day:
            place = self.times.count_before(second)
            if place < self.times.size:
                return day * DAY + self.times.get_nth(place)
            due_day = self.window.next_day(self.rule.days, day + 1)
        return None if due_day is None else due_day * DAY + self.times.get_nth(0)

    def _count_local(self, low, high):
        """How many local times of the rule are in [low, high)."""
        def count_before(local):
            day, second = divmod(local, DAY)
            today = (self.times.count_before(second)
                     if second and count_days(days, day, day + 1) else 0)
            return today + (count_days(days, first, day) * self.times.size if first < day else 0)
        count_days, days, first = self.window.count_days, self.rule.days, low // DAY
        return count_before(high) - count_before(low) if low < high else 0

    # Steps are the instants anchor + k * step that the window leaves: `every`, and repetitions.

    def _next_step(self, anchor, step, after, until):
        """The first step in (after, until], or None: stretch by stretch that the window leaves."""
        instant, until = after + 1, min(until, self.last)
        for _ in range(EVERY_TRIES):
            instant += (anchor - instant) % step
            low, high = self._find_open(instant) if instant <= until else (None, 0)
            if low is None:
                break
            instant = low + (anchor - low) % step
            if instant <= high:
                return instant if instant <= until else None
        return None

    def _count_steps(self, anchor, step, after, *limits):
        count, until = 0, min(self.last, *limits)
        while after < until:
            low, high = self._find_open(after + 1)
            if low is None or low > until:
                break
            count += (min(high, until) - anchor) // step - (low - 1 - anchor) // step
            after = high
        return count

    def _find_open(self, instant):
        """(first, last) instant of the next stretch from `instant` on that the window leaves,
        or (None, None)."""
        if self.window[:5] == OPEN_WINDOW[:5]:
            return instant, self.last
        while instant <= self.last:
            _, end, offset, _ = self.zone.get_piece(instant)
            day = self.window.next_day(EVERY_DAY, (instant + offset) // DAY)
            if day is None:
                break
            midnight = day * DAY - offset
            for low, high in self.window.spans:
                if instant <= midnight + high and midnight + low < end:
                    return max(midnight + low, instant), min(midnight + high, end - 1, self.last)
            instant = min(end, midnight + DAY) if midnight + DAY > instant else end
        return None, None


# ======================================================================================
# timetable/moments.py
# A time as people write it, placed in a zone: the one parser of times.
# ======================================================================================

_MOMENT = re.compile(r"([0-9-]{10})(?:[ Tt]([0-9:]+)(\.[0-9]+)?)?"
                     r"([Zz]|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])?")
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
# what of a request is meant for a date, however wrong it is; a day by its name; a distance
_LIKE_DATE, _NAMED_DAY = re.compile("[0-9]{4}-"), re.compile("([a-z]+)(?: +([0-9:]+))?")
_CLOCK_TIME, _DISTANCE = re.compile("[0-9]+:[0-9:]+"), re.compile("([+-]?)([0-9.]+[smhd]?)")

_FIRST_DAY, _LAST_DAY = (date(year, 1, 1).toordinal() - EPOCH_ORDINAL for year in (2, 9999))


def parse_moment(text, zone, is_end=False, is_second=False):
    """An ISO 8601 date or time -> epoch seconds. CalendarError.

    Without Z or an offset it is local in `zone`: in a gap the instant after it, in a fold the
    first, or with `is_second` the second. A date alone is its first instant, with `is_end` its last
    millisecond. The first year and the last are taken as UTC: no zone reaches beyond.
    """
    match = _MOMENT.fullmatch(str(text))
    if not match:
        raise CalendarError("'%s' is not YYYY-MM-DD or YYYY-MM-DD HH:MM[:SS], with Z or +HH:MM if "
                            "not local" % text)
    day, clock, fraction, offset = match.groups()
    day, second, part = parse_day(day), parse_clock(clock or "00:00"), float(fraction or 0)
    if clock is None and is_end:
        second, part = DAY - 1, 0.999
    if offset:
        return day * DAY + second - _east(offset) + part
    if not _FIRST_DAY <= day < _LAST_DAY:
        return day * DAY + second + part
    return _place(day * DAY + second, zone, is_second) + part


def parse_request_time(text, zone, now, is_back=False, is_end=False):
    """A time of a request, `now` being epoch seconds -> epoch seconds. CalendarError.

    An ISO 8601 time as parse_moment takes it; `now`; `today`, `yesterday` and `tomorrow`, alone or
    with a clock time; a clock time: the next one, with `is_back` the last one; a distance with a
    sign or a unit, which with `is_back` and without a sign lies in the past.
    """
    word = text.lower()
    named, distance = _NAMED_DAY.fullmatch(word), _DISTANCE.fullmatch(word)
    if word == "now":
        return now
    if named and named.group(1) in _DAYS:
        return _find_clock_time(named.group(2) or "00:00", zone, now, _DAYS[named.group(1)])
    if _CLOCK_TIME.fullmatch(word):
        instant = _find_clock_time(word, zone, now)
        is_wrong_way = instant > now if is_back else instant <= now
        return _find_clock_time(word, zone, now, -1 if is_back else 1) if is_wrong_way else instant
    if distance and (distance.group(1) or word[-1].isalpha()):
        sign = distance.group(1) or "-+"[not is_back]
        return now + parse_duration(distance.group(2)) * (-1 if sign == "-" else 1)
    if _LIKE_DATE.match(word):
        return parse_moment(text, zone, is_end)
    raise CalendarError("must be a time: 2026-12-01, 2026-12-01T02:00, 02:00, now, today, "
                        "yesterday, tomorrow, 'tomorrow 02:00', or a distance like 10m or +1d")


def _find_clock_time(clock, zone, now, days=0):
    """The instant of a clock time on the day of `now`, or so many days later. CalendarError."""
    today = int(now + zone.get_piece(int(now // 1))[2]) // DAY
    return _place((today + days) * DAY + parse_clock(clock), zone, is_second=False)


def _east(offset):
    """Seconds east of UTC of Z, +05:30 or -0130."""
    if offset in "Zz":
        return 0
    seconds = int(offset[1:3]) * 3600 + int(offset[-2:]) * 60
    return -seconds if offset[0] == "-" else seconds


def _place(local, zone, is_second):
    """The instant of local seconds in a zone."""
    start, end, offset, _ = zone.get_piece(local - DAY)         # no zone is a day from UTC
    while local - offset >= end:
        start, end, offset, _ = zone.get_piece(end)
    again = local - zone.get_piece(end)[2]
    return again if is_second and again >= end else max(local - offset, start)


# ======================================================================================
# timetable/timetable.py
# The due times of a rule in its window and zone: next, last, count, and what is excluded.
# ======================================================================================

def make_timetable(rule, zone_name="", options=None, calendars=None):
    """The Timetable of a schedule. Raises CalendarError.

    rule: its text; zone_name: for find_zone; options: a mapping that may hold, among others, from,
    to and WINDOW_FIELDS; calendars: name -> dates (text or list), for exclude_dates.
    """
    zone = find_zone(zone_name)
    if not options or MOVING_FIELDS.isdisjoint(options):
        return _make_plain(rule, zone)
    texts = [_join(options[name]) if name in options else "" for name in WINDOW_FIELDS]
    if texts[2]:
        texts[2] = ",".join(_join((calendars or {}).get(item, item))
                            for item in texts[2].split(","))
    window = _parse_window(*texts)
    first = _read("from", lambda text: parse_moment(text, zone), options.get("from"), 0)
    last = _read("to", lambda text: parse_moment(text, zone, is_end=True, is_second=True),
                 options.get("to"), LAST_INSTANT)
    if last < first:
        raise CalendarError("to: '%s' is before from '%s'" % (options["to"], options["from"]))
    return Timetable(parse_rule(rule), zone, window, max(math.floor(first), 0),
                     max(-1, min(math.floor(last), LAST_INSTANT)))


@functools.lru_cache(maxsize=8192)
def _make_plain(rule, zone):
    """The Timetable without a window, one for all schedules that have it."""
    return Timetable(parse_rule(rule), zone, OPEN_WINDOW)


class Timetable(Firings):
    """When a schedule is due: the Firings of its rule, each with its repetitions. Immutable."""

    __slots__ = ("_known",)

    def __init__(self, rule, zone, window, first=0, last=LAST_INSTANT, anchor=None):
        super().__init__(rule, zone, window, first, last, anchor)
        self._known = (0, 0)        # an instant and its next due time

    def next_after(self, instant):
        """The first due time after `instant`, or None."""
        begin, due = self._known
        if begin <= instant < due:
            return due
        due = self._find_next(instant)
        if due is not None:
            self._known = instant, due
        return due

    def _find_next(self, instant):
        """next_after by looking: the next firing, or a repetition of one that began before."""
        after, span = (max(int(instant // 1), self.first - 1),
                       self.window.every * self.window.repeats)
        following = self._next_firing(after)
        firing = self._next_firing(after - span - 1) if span else following
        while firing is not None and firing <= after:
            again = self._next_step(firing, self.window.every, after, firing + span)
            if again is not None and (following is None or again < following):
                following = again
            firing = self._next_firing(firing)
        return following

    def count(self, after, until):
        """How many due times there are in (after, until]."""
        after, until = max(after, self.first - 1), min(until, self.last)
        every, span = self.window.every, self.window.every * self.window.repeats
        if not span:
            return self._count_firings(after, until)
        count, shared, reach = 0, set(), -1
        firing = self._next_firing(after - span - 1)
        while firing is not None and firing <= until:
            following = self._next_firing(firing)
            if firing > reach and (following is None or following > firing + span):
                count += (firing > after) + self._count_steps(firing, every, max(after, firing),
                                                              firing + span, until)
            else:  # overlapping repetitions: an instant that two of them share counts once
                again = firing
                while again is not None and again <= until:
                    shared.add(again)
                    again = self._next_step(firing, every, max(again, after), firing + span)
            firing, reach = following, max(reach, firing + span)
        return count + sum(instant > after for instant in shared)

    def last_until(self, after, until):
        """The newest due time in (after, until], or None. Found by halving with count()."""
        after, until = max(after, self.first - 1), min(until, self.last)
        low, width = until, 2 * DAY
        while not self.count(low, until):
            if low <= after:
                return None
            low, width = max(after, until - width), width * 8
        return _find_first(low, until, lambda instant: not self.count(instant, until))

    def notes(self, due):
        """Short texts about a due time for the preview:
        what the zone's changes of offset mean for it."""
        start, end, offset, before = self.zone.get_piece(due)
        local, missing = due + offset, self._find_missing(due)
        if self.rule.step:
            return []
        notes = [] if missing is None else ["after gap %s does not exist" % format_clock(missing)]
        if local < start + before:
            notes.append("second of two %s" % format_clock(local))
        elif local >= end + self.zone.get_piece(end)[2]:
            notes.append("first of two %s" % format_clock(local))
        return notes

    def excluded_between(self, after, until, limit=100):
        """[(instant, reason, text)] of at most `limit` due times in (after, until] that the rule
        alone would have.

        The reason is window, gap or fold. What the window takes from repetitions is not listed.
        """
        return list(itertools.islice(self.iter_excluded(after, until), limit))

    def iter_excluded(self, after, until):
        """excluded_between, one by one and without a limit."""
        bare = self._bare()
        for instant in self._iter_lost(bare, max(after, -1), min(until, bare.last)):
            yield (instant,) + self._find_loss(bare, instant)

    def next_excluded(self, after, before):
        """The first of excluded_between in (after, before), where no due time lies, or None."""
        is_open = self.window is OPEN_WINDOW or self.window[:7] == OPEN_WINDOW[:7]
        if is_open and self.first <= after:
            start, end, offset, earlier = self.zone.get_piece(after)
            if self.rule.step or before <= end and after >= start + max(0, earlier - offset):
                return None             # nothing is but in a fold
        instant = self._bare()._next_firing(max(after, -1))
        return instant if instant is not None and instant < before else None

    def excluded_spans(self, after, until):
        """excluded_between as [(first, last, count, reason, text)],
        those that follow each other as one.

        Many are told as few: after the first MAX_SPANS the rest is one,
        with the reason of its first.
        """
        spans, bare = [], self._bare()
        for instant, reason, text in self.excluded_between(after, until, MAX_SPANS):
            if spans and spans[-1][3] == reason:
                spans[-1] = spans[-1][:1] + (instant, spans[-1][2] + 1) + spans[-1][3:]
            else:
                spans.append((instant, instant, 1, reason, text))
        if sum(span[2] for span in spans) == MAX_SPANS:
            def count(after):
                return bare._count_firings(after, until) - self._count_firings(after, until)
            first, last, have, reason, text = spans.pop()
            have += count(last)
            spans.append((first, _find_first(last - 1, until, lambda instant: not count(instant)),
                          have, reason, text))
        return spans

    def _bare(self):
        """The rule alone."""
        return Timetable(self.rule, self.zone, BARE_WINDOW, anchor=self.anchor)

    def _iter_lost(self, bare, after, until):
        """Due times of `bare` in (after, until] that are none here; halves where both have some."""
        have = self._count_firings(after, until)
        if not have:
            instant = bare._next_firing(after)
            while instant is not None and instant <= until:
                yield instant
                instant = bare._next_firing(instant)
        elif have != bare._count_firings(after, until):
            yield from self._iter_lost(bare, after, (after + until) // 2)
            yield from self._iter_lost(bare, (after + until) // 2, until)

    def _find_loss(self, bare, instant):
        if not self.first <= instant <= self.last:
            return "window", "before from" if instant < self.first else "after to"
        local, missing = instant + self.zone.get_piece(instant)[2], bare._find_missing(instant)
        text = self.window.find_reason(local if missing is None else missing)
        if text:
            return "window", text
        if missing is not None:
            return "gap", "%s does not exist" % format_clock(missing)
        return "fold", "second of two %s" % format_clock(local)


def find_jitter(name, due, jitter_s, timetable=None):
    """Seconds 0..jitter_s by which a schedule's due time is delayed, never up to its next: a hash,
    the same on every host and start."""
    following = timetable.next_after(due) if timetable and jitter_s else None
    most = jitter_s if following is None else min(jitter_s, following - int(due) - 1)
    digest = hashlib.sha256(("%s@%d" % (name, due)).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % (most + 1)


# ======================================================================================
# definitions/kinds.py
# What a field of a definition may hold: each kind checks a JSON value or the text of an option.
# ======================================================================================

class Kind(NamedTuple):
    """What a field may hold: `check` takes a JSON value, `parse` the text of an option.

    Both give the value back in its normal form or raise ValueError with what would be right.
    """
    check: Callable
    parse: Callable
    accepts: str = ""          # what it takes, for the manual


class Field(NamedTuple):
    """One field of an object of a definitions document."""
    kind: Kind
    required: bool = False
    default: Any = None
    meaning: str = ""       # for the manual


def _of_type(types, wording, parse=None):
    def check(value):
        if isinstance(value, bool) and bool not in types or not isinstance(value, types):
            raise ValueError("must be " + wording)
        if isinstance(value, str) and ("\0" in value or _SURROGATE.search(value)):
            raise ValueError("U+0000 and lone surrogates are not taken")
        return value
    return Kind(check, parse or check, wording)


def between(low, high, types=(int,)):
    """A number within limits; as text too where it is an option."""
    wording = "%s from %s to %s" % (
        "a whole number" if types == (int,) else "a number", low, high)
    reason = "must be " + wording

    def check(value):
        if isinstance(value, bool) or not isinstance(value, types) or not low <= value <= high:
            raise ValueError(reason)
        return value

    def parse(text):
        fraction = "" if types == (int,) else r"(\.[0-9]{1,9})?"
        if not re.fullmatch("[+-]?[0-9]{1,15}" + fraction, text):
            raise ValueError(reason)
        return check(int(text) if types == (int,) else float(text))
    return Kind(check, parse, wording)


def choice(*values):
    """One of some words; an option takes them in any case."""
    wording = " or ".join(values)
    reason = "must be " + wording
    by_fold = {value.lower(): value for value in values}

    def parse(text):
        if text.lower() not in by_fold:
            raise ValueError(reason)
        return by_fold[text.lower()]

    def check(value):
        if value not in values:
            raise ValueError(reason)
        return value
    return Kind(check, parse, wording)


class InnerFaults(ValueError):
    """Faults inside a list or an object: `faults` are (path from there, reason)."""

    def __init__(self, faults):
        super().__init__(faults[0][1])
        self.faults = faults


def check_each(parts):
    """[(path, check, value)] -> the values as checked; InnerFaults tells all that are wrong."""
    values, faults = [], []
    for path, check, value in parts:
        try:
            values.append(check(value))
        except ValueError as error:
            faults.append((path, str(error)))
    if faults:
        raise InnerFaults(faults)
    return values


def check_items(check, values):
    """check_each over the items of a list."""
    return check_each([("[%d]" % index, check, value) for index, value in enumerate(values)])


def list_of(kind, at_least=0):
    """A JSON list of one kind; as an option, its parts between commas."""
    reason = "must be a list" + (" of at least %d" % at_least if at_least else "")

    def check(value):
        if not isinstance(value, list) or len(value) < at_least:
            raise ValueError(reason)
        return check_items(kind.check, value)

    def parse(text):
        parts = [part for part in text.split(",") if part]
        return [kind.parse(part) for part in parts] if len(parts) >= at_least else _refuse(reason)
    return Kind(check, parse, "a list, each part %s" % kind.accepts)


def _check_seconds(value):
    if isinstance(value, str):
        value = parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
        raise ValueError("must be seconds, or a duration such as 90s, 15m, 2h or 1d")
    return value


def _check_whole_seconds(value):
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("must be whole seconds, or a duration such as 90s, 15m, 2h or 1d")
    value = parse_duration(str(value).strip().lower(), is_whole=True)
    if value > MAX_SECONDS:
        raise ValueError("must be at most %d seconds" % MAX_SECONDS)
    return value


def _check_joined(value):
    """Words between commas, or a list of them -> words between commas."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise ValueError("must be words between commas, or a list of them")
    return _join(",".join(TEXT.check(str(item)) for item in items))


def _check_positive_seconds(value):
    value = _check_seconds(value)
    if not value > 0:
        raise ValueError("must be more than 0 seconds")
    return value


def _parse_boolean(text):
    if text.lower() not in ("yes", "no"):
        raise ValueError("must be yes or no")
    return text.lower() == "yes"


def _check_value(value):
    """The value of a variable: text, and numbers as their text."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("must be text or a number")
    return check_size(TEXT.check(value if isinstance(value, str) else json.dumps(value)))


def check_size(text):
    """The value of a variable, which has no more bytes than may be, or ValueError."""
    if len(text) > MAX_VALUE or len(text.encode("utf-8", "replace")) > MAX_VALUE:
        raise ValueError("has over %d bytes, more than a variable takes" % MAX_VALUE)
    return text


def _check_values(value):
    if not isinstance(value, dict):
        raise ValueError("must be an object of names and values")
    check_each([("." + name, lambda _, name=name: _check_variable(name), None) for name in value]
               + [("." + name, _check_value, item) for name, item in value.items()])
    return {name: _check_value(item) for name, item in value.items()}


def _check_variable(name):
    if not isinstance(name, str) or not VARIABLE.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError("must be a name of letters, digits and _, at most %d characters"
                         % MAX_NAME)
    if name in RESERVED_VARIABLES:
        raise ValueError("%s is the agent's own variable" % name)
    return name


def parse_time(text, is_end=False, now=0.0, is_back=False):
    """parse_request_time in the agent's zone, within the years that replies can show.
    ValueError."""
    try:
        instant = parse_request_time(text, find_zone(""), now, is_back, is_end)
        year = int(text[:4]) if text[4:5] == "-" else time.gmtime(instant).tm_year
    except (OverflowError, OSError):
        raise ValueError("is outside the years that this host can handle") from None
    if not 2 <= year <= 9998:           # no offset leads out of the years 1 to 9999
        raise ValueError("must lie in the years 2 to 9998")
    return instant


TEXT = _of_type((str,), "text")
FILLED = Kind(lambda value: TEXT.check(value) or _refuse("must not be empty"),
              lambda text: text or _refuse("must not be empty"), "text, not empty")
BOOLEAN = _of_type((bool,), "true or false", _parse_boolean)
NAMED = Kind(check_name, check_name, "a name")
SECONDS = Kind(_check_seconds, _check_seconds, "a duration")
TIMEOUT = Kind(_check_positive_seconds, _check_positive_seconds, "a duration above 0")
VALUES = Kind(_check_values, _check_values, "an object of variables and values")
VARIABLE_NAME = Kind(_check_variable, _check_variable, "a variable")
WHOLE_SECONDS = Kind(_check_whole_seconds, _check_whole_seconds, "a duration of whole seconds")
JOINED = Kind(_check_joined, _check_joined, "words between commas, or a list of them")
LABEL = Kind(lambda value: TEXT.check(value) if len(str(value)) <= 1000 else
             _refuse("must have at most 1000 characters"),
             lambda text: text if len(text) <= 1000 else _refuse("at most 1000 characters"),
             "text of at most 1000 characters")
PRIORITY = between(-1000000, 1000000)


def _refuse(reason):
    raise ValueError(reason)


def check_calendar_name(name):
    """The name of a calendar, which no date can be taken for, or ValueError."""
    if check_name(name)[0].isdigit():
        raise ValueError("the name of a calendar does not begin with a digit")
    return name


def check_dates(text):
    """The dates of a calendar, at least one, or ValueError."""
    text = _check_joined(text)
    if not _parse_dates(text)[0]:
        raise ValueError("must be dates such as 2026-12-25 or 2026-12-24..2026-12-31")
    return text


# ======================================================================================
# definitions/fields.py
# The fields of every definition, as tables, and the checks that belong to one field alone.
# ======================================================================================

def _check_jitter(value):
    value = _check_whole_seconds(value)
    if value > DAY:
        raise ValueError("must be at most one day")
    return value


def _check_declared(value):
    """Variables of a scenario: a default, or {"secret": true} with where it is read from."""
    if not isinstance(value, dict):
        raise ValueError("must be an object of names and values")

    def check(item):
        if not isinstance(item, dict):
            return _check_value(item)
        if item.get("secret") is not True or len(item) > 2 or not set(item) <= {
                "secret", "env", "file"} or not all(
                    isinstance(v, str) and v for k, v in item.items() if k != "secret"):
            raise ValueError('must be a value, {"secret": true}, or that with "env" or "file"')
        return item
    items = check_each([("." + name, _check_variable, name) for name in value]
                       + [("." + name, check, item) for name, item in value.items()])
    return dict(zip(value, items[len(value):]))


def _check_concurrency(value):
    """`concurrency` of a scenario with all its fields, defaults filled in. ValueError."""
    if not isinstance(value, dict) or "limit" not in value:
        raise ValueError("must be an object with limit, and on_limit or max_wait")

    def unknown(_):
        raise ValueError("unknown field")
    items = check_each([
        ("." + name, CONCURRENCY_FIELDS[name].kind.check if name in CONCURRENCY_FIELDS else unknown,
         item) for name, item in value.items()])
    defaults = {name: field.default for name, field in CONCURRENCY_FIELDS.items()}
    return dict(defaults, **dict(zip(value, items)))


def _check_schema_contexts(value):
    if not isinstance(value, dict) or not value:
        raise ValueError("must be an object of contexts and data servers")
    for context, target in value.items():
        check_name(context)
        if not isinstance(target, str) or not all(map(NAME.fullmatch, target.split(".", 1))):
            raise ValueError("%s: must be a data server, or data server and physical schema"
                             % context)
    return value


def _check_connect(value):
    """The arguments of a module's connect(); a secret one is told where it is to be read."""
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    for name, item in value.items():
        if isinstance(item, dict) and (len(item) != 1 or not set(item) <= {"env", "file"}
                                       or not isinstance(list(item.values())[0], str)):
            raise ValueError('%s: a secret must be {"env": name} or {"file": path}' % name)
        if isinstance(item, list):
            raise ValueError("%s: must be no list" % name)
    return value


def _check_mail_connect(connect):
    """What the task type mail takes of a data server; a secret is looked at when it is read."""
    def check(name):
        if name not in MAIL_FIELDS:
            raise ValueError("unknown field; there are %s%s" % (
                ", ".join(MAIL_FIELDS), tell_near(name, MAIL_FIELDS)))
        if name == "tls" and not isinstance(connect[name], dict):
            choice(*MAIL_TLS).check(connect[name])
    check_each([("." + name, check, name) for name in connect])


# filled by the floor of tasks: type -> its class (fields, run)
TASK_TYPES = {}

TASK_FIELDS = {
    "type": Field(TEXT, required=True, meaning="what kind of task it is"),
    "name": Field(NAMED, meaning="a name that logs and listings show"),
    "timeout": Field(TIMEOUT, meaning="the task ends in ERROR after so long"),
}
STEP_FIELDS = {
    "name": Field(NAMED, required=True, meaning="its name, once in the scenario; not END or FAIL"),
    "tasks": Field(_of_type((list,), "a list"), required=True,
                   meaning="its tasks, at least one, in their order"),
    "attempts": Field(between(1, 1000), default=1,
                      meaning="how often it is tried; each attempt begins with the first task"),
    "retry_delay": Field(SECONDS, default=0, meaning="pause before the next attempt"),
    "retry_factor": Field(between(1, 100, (int, float)), default=1,
                          meaning="each pause is the one before times this"),
    "timeout": Field(TIMEOUT, meaning="an attempt ends in ERROR after so long"),
    "on_ok": Field(NAMED, meaning="where to go when it ended well: a step, END or FAIL (the step "
                   "below; END after the last)"),
    "on_error": Field(NAMED, meaning="where to go when its last attempt failed (the scenario's "
                      "on_error, else FAIL)"),
    "on_false": Field(NAMED, meaning="where to go when an evaluate task was false (the step below; "
                      "END after the last)"),
}
SCENARIO_FIELDS = {
    "name": Field(NAMED, required=True, meaning="its name"),
    "version": Field(NAMED, required=True,
                     meaning="its version; the latest is the last in natural order: 9, 10, 10.1"),
    "description": Field(TEXT, default="", meaning="what it is for"),
    "variables": Field(Kind(_check_declared, _refuse,
                            "an object: name to default value, or to a secret"), default={},
                       meaning="all variables that its tasks may use"),
    "concurrency": Field(Kind(_check_concurrency, _refuse, "an object"),
                         meaning="how many of its sessions may run at once"),
    "timeout": Field(TIMEOUT, meaning="a session ends in ERROR after so long"),
    "max_steps": Field(between(1, 1000000), default=10000,
                       meaning="a session ends in ERROR after so many steps, as a loop without "
                       "end would"),
    "on_stale": Field(choice("error", "restart", ADOPT), default="error",
                      meaning="what becomes of a session that a crash of the agent interrupted"),
    "on_error": Field(NAMED, meaning="the step that a failure goes to, where the step itself has "
                      "no on_error (FAIL)"),
    "steps": Field(_of_type((list,), "a list"), required=True,
                   meaning="its steps, at least one; a session begins with the first"),
}
CONCURRENCY_FIELDS = {
    "limit": Field(between(1, 100000), required=True, meaning="how many sessions at once"),
    "on_limit": Field(choice("wait", "error", "skip"), default="wait",
                      meaning="what becomes of one more: it waits its turn, it ends in ERROR at "
                      "once, or there is none (EXEC answers BUSY)"),
    "max_wait": Field(TIMEOUT, meaning="one that waited so long ends in ERROR"),
}
SCHEDULE_FIELDS = {
    "name": Field(NAMED, required=True, meaning="its name, once in a work repository"),
    "agent": Field(NAMED, meaning=SCHEDULE_MEANINGS["agent"]),
    "scenario": Field(NAMED, required=True, meaning="the scenario that it starts"),
    "version": Field(Kind(lambda value: value if value == "-1" else check_name(value),
                          lambda text: text if text == "-1" else check_name(text),
                          "a name, or -1"), default="-1",
                     meaning="version of the scenario; -1 is the latest at the time"),
    "context": Field(NAMED, default=DEFAULT_CONTEXT, meaning="context of its sessions"),
    "rule": Field(TEXT, default="", meaning="when it is due; without one, by after alone"),
    "timezone": Field(TEXT, default="", meaning=SCHEDULE_MEANINGS["timezone"]),
    "enabled": Field(BOOLEAN, default=True, meaning=SCHEDULE_MEANINGS["enabled"]),
    "variables": Field(VALUES, default={}, meaning="values for variables of the scenario"),
    # those below may be missing: Schedule.options
    "from": Field(TEXT, meaning=SCHEDULE_MEANINGS["from"]),
    "to": Field(TEXT, meaning=SCHEDULE_MEANINGS["to"]),
    "hours": Field(TEXT, meaning=SCHEDULE_MEANINGS["hours"]),
    "exclude_weekdays": Field(JOINED, meaning=SCHEDULE_MEANINGS["exclude_weekdays"]),
    "exclude_monthdays": Field(JOINED, meaning=SCHEDULE_MEANINGS["exclude_monthdays"]),
    "exclude_dates": Field(JOINED, meaning=SCHEDULE_MEANINGS["exclude_dates"]),
    "repeat_every": Field(WHOLE_SECONDS, meaning=SCHEDULE_MEANINGS["repeat_every"]),
    "repeat_count": Field(between(1, 1000000), meaning=SCHEDULE_MEANINGS["repeat_count"]),
    "repeat_for": Field(WHOLE_SECONDS, meaning=SCHEDULE_MEANINGS["repeat_for"]),
    "gap": Field(choice("run", "skip"), default="run", meaning=SCHEDULE_MEANINGS["gap"]),
    "fold": Field(choice("first", "both"), default="first",
                  meaning=SCHEDULE_MEANINGS["fold"]),
    "jitter": Field(Kind(_check_jitter, _check_jitter, "a duration of at most one day"), default=0,
                    meaning=SCHEDULE_MEANINGS["jitter"]),
    "after": Field(JOINED, meaning=SCHEDULE_MEANINGS["after"]),
    "session_name": Field(LABEL, default="", meaning=SCHEDULE_MEANINGS["session_name"]),
    "keywords": Field(JOINED, default="", meaning=SCHEDULE_MEANINGS["keywords"]),
    "priority": Field(PRIORITY, default=0, meaning=SCHEDULE_MEANINGS["priority"]),
    "attempts": Field(between(1, 1000), default=1,
                      meaning=SCHEDULE_MEANINGS["attempts"]),
    "retry_delay": Field(SECONDS, default=0, meaning=SCHEDULE_MEANINGS["retry_delay"]),
    "timeout": Field(TIMEOUT, meaning=SCHEDULE_MEANINGS["timeout"]),
    "overlap": Field(choice("queue", "skip", "parallel", "stop"), default="queue",
                     meaning=SCHEDULE_MEANINGS["overlap"]),
    "misfire": Field(choice("once", "skip", "all"), default="once",
                     meaning=SCHEDULE_MEANINGS["misfire"]),
    "grace": Field(TIMEOUT, meaning=SCHEDULE_MEANINGS["grace"]),
}

CALENDAR_FIELDS = {
    "name": Field(NAMED, required=True, meaning="its name; it does not begin with a digit"),
    "dates": Field(JOINED, required=True,
                   meaning="dates and ranges: 2026-12-25,2026-12-27..2027-01-03"),
}
DATA_SERVER_FIELDS = {
    "name": Field(NAMED, required=True, meaning="its name; MAIL is the one for mail tasks"),
    "driver": Field(NAMED, required=True, meaning="sqlite3, smtp, or a DB-API module of this "
                    "host's Python, such as psycopg2 or oracledb"),
    "database": Field(FILLED, meaning="the file, for sqlite3 alone, which needs it"),
    "connect": Field(Kind(_check_connect, _refuse, "an object"), default={},
                     meaning="the arguments of the module's connect(); for smtp those below"),
}
MAIL_TLS = ("none", "starttls", "ssl")
# of connect -> what it means
MAIL_FIELDS = {
    "host": "the mail server (localhost)",
    "port": "its port (25 for none, 587 for starttls, 465 for ssl)",
    "sender": "address that mails come from (agent@HOST)",
    "user": "name for the login (no login)",
    "password": "password for the login",
    "tls": "none (default on loopback), starttls (default elsewhere) or ssl",
}
LOGICAL_SCHEMA_FIELDS = {
    "name": Field(NAMED, required=True, meaning="its name, which tasks use"),
    "contexts": Field(Kind(_check_schema_contexts, _refuse,
                           "an object: context to SERVER or SERVER.SCHEMA"), required=True,
                      meaning="what stands behind it in each context"),
}
DOCUMENT_FIELDS = ("scenarios", "schedules", "contexts", "data_servers", "logical_schemas",
                   "calendars")


# ======================================================================================
# definitions/model.py
# Scenarios, schedules and documents as values that are checked already.
# ======================================================================================

class Task(NamedTuple):
    """One task of a step: `fields` are those of its type."""
    type: str
    name: Optional[str]
    timeout: Optional[float]
    fields: dict


class Step(NamedTuple):
    """One step: its targets are names of steps, END or FAIL."""
    name: str
    tasks: Tuple[Task, ...]
    attempts: int
    retry_delay: float
    retry_factor: float
    timeout: Optional[float]
    on_ok: str
    on_error: str
    on_false: str


class Scenario(NamedTuple):
    """A parsed scenario version; `document` is its definition as it was given."""
    name: str
    version: str
    variables: dict
    timeout: Optional[float]
    max_steps: int
    on_stale: str
    steps: Tuple[Step, ...]
    document: dict
    secrets: dict           # name -> {}, {"env": name} or {"file": path}: never in `variables`
    concurrency: Optional[dict]

    def check_variables(self, variables):
        """BadRequest when values are given for variables that it does not have, that are too large,
        or that no secret can be."""
        for name, value in variables.items():
            if name not in self.variables and name not in self.secrets:
                raise BadRequest("%s: scenario %s %s has no variable of that name"
                                 % (name, self.name, self.version))
            try:
                check_size(value)
            except ValueError as error:
                raise BadRequest("%s: %s" % (name, error)) from None
            if name in self.secrets and len(value) < MIN_SECRET:
                raise BadRequest("%s: a secret has at least %d characters" % (name, MIN_SECRET))

    def check_schedule(self, variables):
        """`check_variables` for a schedule, which can give no secret."""
        self.check_variables(variables)
        for name, source in self.secrets.items():
            if name in variables or not source:
                raise BadRequest("%s: is secret, a schedule cannot give it" % name)

    def split_secrets(self, variables):
        """Variables that are given -> (plain ones, secrets). BadRequest when a secret is
        missing."""
        for name, source in self.secrets.items():
            if not source and name not in variables:
                raise BadRequest("%s: the secret must be given" % name)
        return ({name: value for name, value in variables.items() if name not in self.secrets},
                {name: value for name, value in variables.items() if name in self.secrets})

    def list_warnings(self):
        """[(path, reason)] of steps that nothing leads to, and of those that handle an error and
        that success falls into."""
        texts = self.document["steps"]
        reached, to_follow = set(), [0]
        while to_follow:
            index = to_follow.pop()
            if index not in reached:
                reached.add(index)
                to_follow += self._list_behind(self.steps[index])
        for index, step in enumerate(self.steps):
            path, others = "steps[%d]" % index, self.steps[:index - 1] + self.steps[index:]
            if index not in reached:
                yield path, "nothing leads to step %s" % step.name
            elif index and index - 1 in reached and "on_ok" not in texts[index - 1] and (
                    step.on_ok == FAIL or step.name in [each.on_error for each in others]):
                yield path, ("step %s is for a failure%s, but the success of step %s leads to it, "
                             "too: give that an on_ok" % (
                                 step.name, " and ends in FAIL" if step.on_ok == FAIL else "",
                                 self.steps[index - 1].name))

    def _list_behind(self, step):
        """The places of the steps that may come after a step."""
        targets = {step.on_ok, step.on_error}
        if any(task.type == "evaluate" for task in step.tasks):
            targets.add(step.on_false)
        return [self.step_index(name) for name in targets if name not in (END, FAIL)]

    def step_index(self, name):
        """The place of a step, from 0; NotFound when the scenario has none of that name."""
        for index, step in enumerate(self.steps):
            if step.name == name:
                return index
        raise NotFound("scenario %s %s has no step %s" % (self.name, self.version, name))


class Condition(NamedTuple):
    """A part of `after`: the good end of a session of a schedule or scenario."""
    kind: str                       # schedule, scenario
    name: str
    within_s: Optional[int]         # how long it counts


def parse_after(text):
    """`A,B/2h,scenario:C` -> [Condition]. ValueError."""
    conditions, names = [], set()
    if text and not text.strip(","):
        raise ValueError("'%s' names nothing; write schedules, like A,B" % text)
    for item in filter(None, text.split(",")):
        name, slash, period = item.partition("/")
        kind, colon, rest = name.partition(":")
        if colon and kind not in ("schedule", "scenario"):
            raise ValueError("'%s' is neither a schedule, like A, nor a scenario, like scenario:A, "
                             "with a period if it is to count no longer, like A/2h" % item)
        condition = Condition(kind if colon else "schedule", check_name(rest if colon else name),
                              parse_duration(period.lower(), is_whole=True) if slash else None)
        if condition.within_s == 0:
            raise ValueError("'%s': the period is 1s at least" % item)
        if condition[:2] in names:
            raise ValueError("%s stands twice" % condition.name)
        names.add(condition[:2])
        conditions.append(condition)
    return conditions


class Schedule(NamedTuple):
    """A checked schedule."""
    name: str
    agent: Optional[str]
    scenario: str
    version: str
    context: str
    rule: str                       # empty: by `after` alone
    timezone: str
    enabled: Optional[bool]         # None: a document does not say
    variables: dict
    options: dict = {}              # the other SCHEDULE_FIELDS, those that are not default

    def get(self, name):
        """The value of one of the options."""
        return self.options.get(name, SCHEDULE_FIELDS[name].default)

    @property
    def timing(self):
        """What its due times follow from."""
        return self.rule, self.timezone, self.enabled, {
            name: value for name, value in self.options.items() if name in MOVING_FIELDS}

    def list_conditions(self):
        """The Conditions of `after`, as a list. ValueError."""
        return parse_after(self.get("after") or "")

    def list_calendars(self):
        """The names of calendars in exclude_dates."""
        dates = self.get("exclude_dates") or ""
        return [item for item in dates.split(",") if item and not item[0].isdigit()]

    def timetable(self, calendars):
        """Its Timetable, with these calendars {name: dates}. CalendarError."""
        return make_timetable(self.rule or "startup", self.timezone, self.options, calendars)

    def list_faults(self):
        """[(field, reason)] of what cannot be, apart from names that must exist."""
        faults, calendars = [], dict.fromkeys(self.list_calendars(), "")

        def attempt(field, check, *arguments):
            try:
                check(*arguments)
            except ValueError as error:
                head, _, rest = str(error).partition(": ")
                faults.append((head, rest) if head in MOVING_FIELDS else (field, str(error)))
        if self.rule:
            attempt("rule", parse_rule, self.rule)
        elif not self.get("after"):
            faults.append(("rule", "missing"))
        if self.timezone:
            attempt("timezone", find_zone, self.timezone)
        zone = "" if any(field == "timezone" for field, _ in faults) else self.timezone
        for field in self.options:
            if field in MOVING_FIELDS and not field.startswith("repeat"):
                attempt(field, make_timetable, "daily at 00:00", zone,
                        {field: self.options[field]}, calendars)
        attempt("after", self._check_after)
        if not faults and not parse_rule(self.rule or "startup").is_by_clock:
            faults = [(name, "is for due times by the clock, like 'daily at 02:00'; there are none "
                       "without a rule, with 'startup' and 'boot'") for name in self.options
                      if name in MOVING_FIELDS or name == "jitter"]
        if not faults:
            attempt("repeat_every", self.timetable, calendars)
        return faults

    def _check_after(self):
        if ("schedule", self.name) in [condition[:2] for condition in self.list_conditions()]:
            raise ValueError("a schedule cannot wait for itself")


class Document(NamedTuple):
    """A definitions document, checked."""
    scenarios: List[Scenario]
    schedules: List[Schedule]
    contexts: List[str]
    data_servers: List[dict]
    logical_schemas: List[dict]
    calendars: List[dict]

    @property
    def has_topology(self):
        """Whether it has a part for the master."""
        return bool(self.contexts or self.data_servers or self.logical_schemas or self.calendars)

    def list_warnings(self):
        """[(path, reason)] of what is allowed but looks wrong, and of what this host lacks: it is
        the task's error if it still does then."""
        own = ("sqlite3", "smtp")
        warnings = [("data_servers[%d].driver" % index, "this host's Python has no module %s"
                     % server["driver"]) for index, server in enumerate(self.data_servers)
                    if server["driver"] not in own and not has_module(server["driver"])]
        for index, scenario in enumerate(self.scenarios):
            warnings += [("scenarios[%d].%s" % (index, place), reason)
                         for place, reason in scenario.list_warnings()]
        warnings += [("schedules[%d].rule" % index, reason)
                     for index, schedule in enumerate(self.schedules) if schedule
                     for reason in list_surprises(schedule.rule)]
        for path, task in self._list_tasks():
            warnings += [("%s.%s" % (path, place), reason)
                         for place, reason in getattr(TASK_TYPES[task.type], "warn", lambda _: ())(
                             task.fields)]
        return warnings

    def list_children(self):
        """[(path, scenario, version)] that its tasks start, where no variable decides it."""
        return [(path + ".name", task.fields["name"], task.fields["version"])
                for path, task in self._list_tasks() if task.type == "scenario"]

    def list_schemas(self):
        """[(path, logical schema)] that its tasks name."""
        return [(path + ".schema", task.fields["schema"]) for path, task in self._list_tasks()
                if "schema" in task.fields]

    def _list_tasks(self):
        """[(path, Task)] of its scenarios without faults."""
        return [("scenarios[%d].steps[%d].tasks[%d]" % (index, number, place), task)
                for index, scenario in enumerate(self.scenarios) if scenario
                for number, step in enumerate(scenario.steps)
                for place, task in enumerate(step.tasks)]


def has_module(name):
    """Whether this Python has a module."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def canonical(document):
    """The one JSON text of a document: equal definitions have equal text."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


# the fields of a schedule that are options, and their defaults
_OPTIONS = [(name, field.default) for name, field in SCHEDULE_FIELDS.items()
            if name not in Schedule._fields]


def make_schedule(fields):
    """The values of SCHEDULE_FIELDS by name -> Schedule."""
    return Schedule(*[fields[name] for name in Schedule._fields[:-1]], options={
        name: fields[name] for name, default in _OPTIONS
        if fields[name] not in (None, "", default)})


@functools.lru_cache(maxsize=8192)
def read_stored(column, text):
    """The variables or options of a schedule as a repository has them, one dict for all that have
    the same. Conflict: another program has spoilt them."""
    try:
        values = json.loads(text)
        if column == "variables":
            return VALUES.check(values)
        return {name: SCHEDULE_FIELDS[name].kind.check(value) for name, value in values.items()}
    except (ValueError, KeyError, AttributeError) as error:
        # no value of a variable
        excerpt = "" if column == "variables" else " %s" % shorten(text)
        raise Conflict("%s%s cannot be read: %s" % (column, excerpt, error)) from None


def schedule_document(schedule):
    """A schedule -> its JSON object, without what is default."""
    own = {name: value for name, value in zip(schedule._fields[:-1], schedule)
           if value != SCHEDULE_FIELDS[name].default}
    return dict(own, **schedule.options)


# ======================================================================================
# definitions/references.py
# References to variables in texts: found, replaced, and handed to a shell.
# ======================================================================================

_REFERENCE = re.compile(r"\$\$(?=\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def substitute(text, values):
    """`${name}` -> values[name], `$$` before a brace -> `$`; every other `$` stays. TooLong."""
    size = len(text) + sum(len(values[match.group(1)]) for match in _REFERENCE.finditer(text)
                           if match.group(1))
    if size > MAX_TEXT:
        raise TooLong("a text would have over %d characters with the values of its variables"
                      % MAX_TEXT)
    return _REFERENCE.sub(lambda match: values[match.group(1)] if match.group(1) else "$", text)


def shell_command(text):
    """A string command: `${name}` becomes `${VAR_name}`, so no value can become shell text."""
    return _REFERENCE.sub(lambda match: match.group() if not match.group(1) else
                          "${%s}" % environment_name(match.group(1)), text).replace("$${", "${")


def find_code_fault(code):
    """Why code of a program cannot be run: it has a reference,
    by which a value would become code. None when it has none."""
    names = [match.group(1) for match in _REFERENCE.finditer(code) if match.group(1)]
    if not names:
        return None
    return ("${%s} is not replaced in code, for a value must never become code: write "
            "os.environ[\"%s\"]"
            " (for a literal ${%s} write $${%s})" % (names[0], environment_name(names[0]), names[0],
                                                     names[0]))


def environment_name(name):
    """The environment variable that holds a variable."""
    return name if name in RESERVED_VARIABLES else "VAR_" + name


def strings_in(value, path=""):
    """Every (path, text) inside a JSON value."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings_in(item, "%s[%d]" % (path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings_in(item, "%s.%s" % (path, key))


# ======================================================================================
# definitions/reader.py
# From the JSON of a document to its definitions, with every fault and its path.
# ======================================================================================

MAX_DIGITS = 1000       # of a whole number: what Python takes to read one grows as their square


def parse_json(text):
    """JSON text -> its value; BadRequest, too, where a field stands twice in an object."""
    def pairs(items):
        result = dict(items)
        if len(result) < len(items):
            counts = collections.Counter(key for key, _ in items)
            _refuse("field %s stands twice" % next(key for key in counts if counts[key] > 1))
        return result

    def whole(word):
        return int(word) if len(word) <= MAX_DIGITS else _refuse(
            "a number has over %d digits" % MAX_DIGITS)
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_int=whole, parse_constant=lambda
                          word: _refuse("%s is not JSON" % word))
    except RecursionError:
        reason = "is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise BadRequest("the definitions are not JSON: %s" % reason, [("document", reason)])


class Definitions:
    """Reads a definitions document and collects every fault of it as (path, reason).

    What is `is_stored` was imported by an earlier version, too: what that took and this one refuses
    for safety's sake is told when it runs.
    """

    def __init__(self, is_stored=False):
        self.faults = []
        self._is_stored = is_stored
        self._costly = collections.OrderedDict()    # type -> [(path, fields)] for its judge_all

    def read(self, text):
        """JSON text -> Document; BadRequest carries all the faults."""
        document = self.collect(text)
        if self.faults:
            raise faulty(self.faults)
        return document

    def collect(self, text):
        """JSON text -> Document, None standing for what is faulty; `faults` has the reasons."""
        document = parse_json(text.lstrip("\ufeff"))     # a byte order mark
        if not isinstance(document, dict):
            raise BadRequest("the definitions must be one JSON object",
                             [("document", "must be an object")])
        lists = {}
        for key, value in document.items():
            if key not in DOCUMENT_FIELDS:
                self._fault(key, "unknown field" + tell_near(key, DOCUMENT_FIELDS))
            elif not isinstance(value, list):
                self._fault(key, "must be a list")
            else:
                lists[key] = value
        contexts = [self._try("contexts[%d]" % index, check_name, name)
                    for index, name in enumerate(lists.get("contexts", []))]
        scenarios = [self._scenario("scenarios[%d]" % index, value)
                     for index, value in enumerate(lists.get("scenarios", []))]
        schedules = [self._schedule("schedules[%d]" % index, value)
                     for index, value in enumerate(lists.get("schedules", []))]
        servers = [self._data_server("data_servers[%d]" % index, value)
                   for index, value in enumerate(lists.get("data_servers", []))]
        schemas = [self._object("logical_schemas[%d]" % index, value, LOGICAL_SCHEMA_FIELDS)
                   for index, value in enumerate(lists.get("logical_schemas", []))]
        calendars = [self._calendar("calendars[%d]" % index, value)
                     for index, value in enumerate(lists.get("calendars", []))]
        self._repeated("scenarios", [s and (s.name, s.version) for s in scenarios])
        for key, items in (("data_servers", servers), ("logical_schemas", schemas),
                           ("calendars", calendars)):
            self._repeated(key, [item["name"] for item in items])
        self._repeated("schedules", [s and s.name for s in schedules])
        self._judge_costly()
        return Document(scenarios, schedules, contexts, servers, schemas, calendars)

    def _judge_costly(self):
        """Notes faults that cost a process to find: one for all tasks of a type."""
        for kind, tasks in self._costly.items():
            faults = TASK_TYPES[kind].judge_all([fields for _, fields in tasks])
            for place, (name, reason) in sorted(faults.items()):
                self._fault("%s.%s" % (tasks[place][0], name), reason)

    def _calendar(self, path, value):
        fields = self._object(path, value, CALENDAR_FIELDS)
        for name, check in (("name", check_calendar_name), ("dates", check_dates)):
            if fields[name] is not None:
                self._try("%s.%s" % (path, name), check, fields[name])
        return fields

    def _data_server(self, path, value):
        fields = self._object(path, value, DATA_SERVER_FIELDS)
        if fields["driver"] == "sqlite3" and not fields["database"]:
            self._fault(path + ".database", "missing")
        if fields["driver"] not in (None, "sqlite3") and fields["database"]:
            self._fault(path + ".database", "is for the driver sqlite3; others take connect")
        if fields["driver"] == "smtp":
            self._try(path + ".connect", _check_mail_connect, fields["connect"] or {})
        return fields

    def _fault(self, path, reason):
        self.faults.append((path, reason))

    def _try(self, path, check, value):
        try:
            return check(value)
        except InnerFaults as error:
            self.faults.extend((path + inner, reason) for inner, reason in error.faults)
        except (ValueError, OverflowError) as error:
            self._fault(path, str(error))
        return None

    def _object(self, path, value, fields):
        """The values of an object by name, defaults filled in; faults are noted."""
        if not isinstance(value, dict):
            self._fault(path, "must be an object")
            value = None
        result = {}
        for name in value or ():
            if name not in fields:
                self._fault("%s.%s" % (path, name), "unknown field" + tell_near(name, fields))
        for name, field in fields.items():
            result[name] = field.default
            if value is None:
                continue
            if name in value:
                result[name] = self._try("%s.%s" % (path, name), field.kind.check, value[name])
            elif field.required:
                self._fault("%s.%s" % (path, name), "missing")
        return result

    def _repeated(self, path, keys):
        earlier = set()
        for index, key in enumerate(keys):
            if key and key in earlier:
                self._fault("%s[%d]" % (path, index), "stands here a second time")
            earlier.add(key)

    def _scenario(self, path, value):
        """The Scenario of a JSON object, or None: then its faults are noted."""
        before = len(self.faults)
        fields = self._object(path, value, SCENARIO_FIELDS)
        if fields["version"] == "-1":
            self._fault(path + ".version", "-1 means the latest; a scenario needs its own")
        variables = None if fields["variables"] is None else \
            set(fields["variables"]) | set(RESERVED_VARIABLES)
        steps = [self._step("%s.steps[%d]" % (path, index), step, variables)
                 for index, step in enumerate(fields["steps"] or ())]
        if fields["steps"] == []:
            self._fault(path + ".steps", "must have at least one step")
        names = [step["name"] for step in steps]
        self._repeated(path + ".steps", names)
        self._targets(path, fields, steps, set(names))
        if len(self.faults) > before:
            return None
        plain, secrets = {}, {}
        for name, item in fields["variables"].items():
            if isinstance(item, dict):
                secrets[name] = {key: item[key] for key in item if key != "secret"}
            else:
                plain[name] = item
        scenario = Scenario(fields["name"], fields["version"], plain, fields["timeout"],
                            fields["max_steps"], fields["on_stale"],
                            tuple(settle_targets(fields["on_error"], steps)), value, secrets,
                            fields["concurrency"])
        self._secrets(path, scenario)
        return scenario if len(self.faults) == before else None

    def _secrets(self, path, scenario):
        """What would show a secret: an argument of a process, a variable that is stored."""
        for index, step in enumerate(scenario.steps):
            for number, task in enumerate(step.tasks):
                place = "%s.steps[%d].tasks[%d]" % (path, index, number)
                for name in ("command", "args"):
                    if isinstance(task.fields.get(name), list):
                        for inner, text in strings_in(task.fields[name], "%s.%s" % (place, name)):
                            used = {m.group(1) for m in _REFERENCE.finditer(text)}
                            if used & set(scenario.secrets):
                                self._fault(inner, "a secret in an argument is seen by every "
                                            "user of the host; read it from the environment")
                for name in ("variable", "capture"):
                    if task.type != "evaluate" and task.fields.get(name) in scenario.secrets:
                        self._fault("%s.%s" % (place, name), "a secret is not set by a task")

    def _targets(self, path, fields, steps, names):
        places = [(path + ".on_error", fields["on_error"])]
        for index, step in enumerate(steps):
            for key in ("on_ok", "on_error", "on_false"):
                places.append(("%s.steps[%d].%s" % (path, index, key), step[key]))
            if step["name"] in (END, FAIL):
                self._fault("%s.steps[%d].name" % (path, index), "END and FAIL are targets")
        for place, target in places:
            if target and target not in (END, FAIL) and target not in names:
                self._fault(place, "no step is named %s%s" % (target, tell_near(target, names)))

    def _step(self, path, value, variables):
        fields = self._object(path, value, STEP_FIELDS)
        if fields["tasks"] == []:
            self._fault(path + ".tasks", "must have at least one task")
        fields["tasks"] = tuple(self._task("%s.tasks[%d]" % (path, index), task, variables)
                                for index, task in enumerate(fields["tasks"] or ()))
        return fields

    def _task(self, path, value, variables):
        """The Task of a JSON object; its faults are noted. `variables`: the names that it may use,
        None when those of the scenario are faulty. None when nothing can be made of it."""
        kind = value.get("type") if isinstance(value, dict) else None
        is_known = isinstance(kind, str) and kind in TASK_TYPES
        own = TASK_TYPES[kind].fields if is_known else {}
        if isinstance(value, dict) and not is_known:    # what else it may have is not known
            value = {name: value[name] for name in TASK_FIELDS if name in value}
        fields = self._object(path, value, dict(TASK_FIELDS, **own))
        if fields["type"] is not None and not is_known:
            self._fault(path + ".type", "must be one of %s%s" % (
                ", ".join(sorted(TASK_TYPES)), tell_near(kind, TASK_TYPES)
                if isinstance(kind, str) else ""))
        if not is_known or variables is None:       # without variables no reference can be judged
            return None
        bound, literal = (getattr(TASK_TYPES[kind], name, ()) for name in ("sql", "literal"))
        for place, text in strings_in({name: fields[name] for name in own
                                       if name not in bound + literal}, path):
            self._references(place, text, variables)
        for name in literal if not self._is_stored else ():
            reason = find_code_fault(fields[name] or "")
            if reason:
                self._fault("%s.%s" % (path, name), reason)
        for name in bound:
            for used in TASK_TYPES[kind].names_in(fields[name] or ""):
                if used not in variables:
                    self._fault("%s.%s" % (path, name), "no variable is named %s (for a literal "
                                ":%s write \\:%s)%s" % (used, used, used,
                                                          tell_near(used, variables)))
        for name in ("capture", "variable"):
            if fields.get(name) and fields[name] not in variables.difference(RESERVED_VARIABLES):
                self._fault("%s.%s" % (path, name), "no variable is named %s%s" % (
                    fields[name], tell_near(fields[name], variables)))
        either = getattr(TASK_TYPES[kind], "one_of", None)
        if either and sum(fields[name] is not None for name in either) != 1:
            self._fault(path, "must have one of %s" % " and ".join(either))
        for name, reason in getattr(TASK_TYPES[kind], "judge", lambda _: ())(fields):
            self._fault("%s.%s" % (path, name), reason)
        if hasattr(TASK_TYPES[kind], "judge_all"):
            self._costly.setdefault(kind, []).append((path, fields))
        return Task(kind, fields["name"], fields["timeout"], {name: fields[name] for name in own})

    def _references(self, path, text, variables):
        for match in _REFERENCE.finditer(text):
            name = match.group(1)
            if name and name not in variables:
                self._fault(path, "no variable is named %s (for a literal ${%s} write $${%s})%s"
                            % (name, name, name, tell_near(name, variables)))

    def _schedule(self, path, value):
        before = len(self.faults)
        fields = self._object(path, value, SCHEDULE_FIELDS)
        schedule = make_schedule(fields)
        if isinstance(value, dict) and fields["rule"] is not None:
            for name, reason in schedule.list_faults():
                self._fault("%s.%s" % (path, name), reason)
        if len(self.faults) > before:
            return None
        return schedule if "enabled" in value else schedule._replace(enabled=None)


def settle_targets(on_error, steps):
    """Yields the Steps of these fields, their targets settled: below, END, FAIL, or the handler
    that the scenario names."""
    for index, step in enumerate(steps):
        below = steps[index + 1]["name"] if index + 1 < len(steps) else END
        handler = on_error if on_error and on_error != step["name"] else FAIL
        yield Step(**dict(step, on_ok=step["on_ok"] or below, on_false=step["on_false"] or below,
                          on_error=step["on_error"] or handler))


def faulty(faults):
    """The BadRequest for a document with these faults."""
    count = len(faults)
    return BadRequest("the definitions have %d fault%s, nothing was imported: %s: %s"
                      % ((count, "" if count == 1 else "s") + tuple(faults[0])), faults)


def parse_scenario(document):
    """A stored definition -> Scenario. It was checked when it was imported, but by another version,
    or another program has changed it since: ValueError says what is wrong."""
    definitions = Definitions(is_stored=True)
    scenario = definitions._scenario("scenario", document)
    if scenario is None:
        raise ValueError("%s: %s" % definitions.faults[0])
    return scenario


# ======================================================================================
# store/admission.py
# Who may come to be, and who may begin: the ledger, the queue and SCHED PLAN decide it here.
#
# Pure: no clock, no table, no thread.
# ======================================================================================

def find_overlap(overlap, sessions, is_backlog=False):
    """What a due time does while sessions of its schedule are open -> (the one for which it makes
    none, or None; those that end for it).

    `sessions` yields (session, whether it has begun), the oldest first. `is_backlog`: one of many
    that were missed, which waits however many wait already.
    """
    if overlap == "stop":
        return None, [session for session, _ in sessions]
    if overlap == "skip":
        return next((session for session, _ in sessions), None), []
    if overlap == "queue" and not is_backlog:
        return next((session for session, is_begun in sessions if not is_begun), None), []
    return None, []


def weigh_limit(limit, on_limit, count):
    """What the limit of its scenario makes of a new session, while so many of it are open: nothing
    (""), or its `on_limit`: wait, error, skip. A limit of None is none."""
    return "" if limit is None or count < limit else on_limit


def are_met(conditions, met, now):
    """Whether all of [(condition, how many seconds it counts or None)] are met; `met` has when each
    was last, epoch seconds."""
    return all(met.get(condition) is not None
               and (not within_s or met[condition] >= now - within_s)
               for condition, within_s in conditions)


def schedule_gate(repository_id, name):
    """The gate that the sessions of a schedule share."""
    return "schedule", repository_id, name


def list_gates(repository_id, schedule, is_parallel, scenario, limit):
    """[(gate that a session shares with others, how many of them run at once)]: that of its
    scenario, and that of its schedule, where it has one. Who knows no limit counts for those that
    do."""
    gates = [(("scenario", repository_id, scenario), limit or MAX_QUEUE)]
    if schedule:
        gates.insert(0, (schedule_gate(repository_id, schedule), MAX_QUEUE if is_parallel else 1))
    return gates


class Obstacle(NamedTuple):
    """What keeps one that waits from beginning."""
    gate: Optional[tuple]       # None: no slot is free, or nothing may begin
    limit: int                  # how many run there at once
    keys: tuple                 # those that do


class Admission:
    """Who waits for a slot, and who begins next: of those that may the highest priority, of these
    the children of sessions that have begun, then the first that came.

    What runs takes a slot, and a place at each of its gates. Whoever finds a gate full or held
    waits aside for it, and the first there is looked at again when it has a place: so an end costs
    the same however many wait. A key tells one that waits or runs from all others.
    """

    def __init__(self, slots):
        self.slots = slots              # how many run at once
        self._is_held = False           # nothing begins
        self._order = itertools.count()         # of arrival
        # key -> its entry (-priority, whether it is no child, order, key, gates)
        self._waiting = {}
        self._running = {}              # key -> gates
        self._ready = []                # heap of entries; those that wait no more are passed over
        self._aside = {}                # gate -> {limit: heap of the entries that wait for it}
        self._places = {}               # gate -> [key that runs there]
        self._held = set()              # gates that are held

    @property
    def has_room(self):
        """Whether a slot is free, and nothing is held."""
        return not self._is_held and len(self._running) < self.slots

    def count_ready(self):
        """How many are to be looked at when there is room."""
        return len(self._ready)

    def add(self, key, priority, gates, is_child=False):
        """A key waits from now on: a higher priority first, then children, then in the order of
        arrival."""
        entry = self._waiting[key] = -priority, not is_child, next(self._order), key, gates
        heapq.heappush(self._ready, entry)

    def discard(self, key):
        """It will not begin, if it waits."""
        self._waiting.pop(key, None)

    def take(self):
        """The key of the one that runs from now on, or None: nobody may begin."""
        while self._ready and self.has_room:
            entry = heapq.heappop(self._ready)
            key, gates = entry[-2:]
            is_waiting = self._waiting.get(key) is entry
            closed = self.find_closed(gates) if is_waiting else None
            if is_waiting and closed is None:
                del self._waiting[key]
                self.occupy(key, gates)
            elif closed is not None:
                gate, limit = closed
                heapq.heappush(self._aside.setdefault(gate, {}).setdefault(limit, []), entry)
            self._look_again(gates)     # the places that it has left are the next's
            if is_waiting and closed is None:
                return key
        return None

    def occupy(self, key, gates):
        """It runs from now on, whatever the limits."""
        self._running[key] = gates
        for gate, _ in gates:
            self._places.setdefault(gate, []).append(key)

    def leave(self, key):
        """It runs no more -> whether another may begin by that, but for the slot itself."""
        gates = self._running.pop(key)
        for gate, _ in gates:
            self._places[gate].remove(key)
            if not self._places[gate]:
                del self._places[gate]
        return self._look_again(gates)

    def find_closed(self, gates):
        """The first of [(gate, limit)] that is full or held, or None."""
        return next((pair for pair in gates if not self._is_open(*pair)), None)

    def find_obstacle(self, key):
        """What keeps one that waits from beginning: an Obstacle, or None."""
        entry = self._waiting.get(key)
        if entry is None:
            return None
        closed = self.find_closed(entry[-1])
        if closed is not None:
            return Obstacle(*closed, keys=tuple(self._places.get(closed[0], ())))
        return None if self.has_room else Obstacle(None, self.slots, tuple(self._running))

    def _is_open(self, gate, limit):
        return gate not in self._held and len(self._places.get(gate, ())) < limit

    def _look_again(self, gates):
        """The first of those that wait for a place at these gates is looked at again, where there
        is one -> whether anybody is."""
        count = len(self._ready)
        for gate, _ in gates:
            heaps = self._aside.get(gate, {})
            for limit in [limit for limit in heaps if self._is_open(gate, limit)]:
                heapq.heappush(self._ready, heapq.heappop(heaps[limit]))
                if not heaps[limit]:
                    del heaps[limit]
            if not heaps:
                self._aside.pop(gate, None)
        return len(self._ready) > count

    def hold(self, is_held):
        """Held, has_room is false and take() gives None."""
        self._is_held = is_held

    def hold_gate(self, gate, is_held):
        """Held, nobody passes this gate -> whether another may begin by its release."""
        if is_held:
            self._held.add(gate)
            return False
        if gate not in self._held:
            return False
        self._held.discard(gate)
        return self._look_again([(gate, None)])

    def lend(self, count):
        """So many slots more, or with a number below 0 less."""
        self.slots += count


# ======================================================================================
# store/pending.py
# What goes on in another thread, for who waits for it: a write, a call.
# ======================================================================================

def atomic(method):
    """Says of a writing method that it changes by one statement alone, so it needs no savepoint."""
    method.is_atomic = True
    return method


def lazy(method):
    """Says of a writing method that nobody waits for it, so it may wait for company."""
    method.is_lazy = True
    return method


class Pending:
    """One request to a writer: method(connection, *arguments) inside the shared transaction; or to
    a thread that performs method(*arguments).

    Once it is done, on_done(pending) goes into the Inbox.
    """
    __slots__ = ("method", "arguments", "deadline", "is_atomic", "is_lazy", "value", "error",
                 "is_done", "_on_done", "_inbox", "_lock", "_on_finish")

    def __init__(self, method, arguments=(), deadline=None, on_done=None, inbox=None):
        self.method, self.arguments, self.deadline = method, arguments, deadline
        self._on_done, self._inbox = on_done, inbox
        self.is_atomic = getattr(method, "is_atomic", False)
        self.is_lazy = getattr(method, "is_lazy", False)
        self.value = self.error = None
        self.is_done, self._on_finish = False, None
        self._lock = threading.Lock()
        self._lock.acquire()

    def finish(self, value=None, error=None):
        """Done, well or badly: called once, by the other thread."""
        self.value, self.error, self.is_done = value, error and detach(error), True
        self._lock.release()
        if self._on_finish:
            self._on_finish()
        if self._on_done:
            self._inbox.put(self._on_done, self)

    def call_when_done(self, function):
        """Has function() called by the thread that finishes this, or now when it is done; maybe by
        both. It must wait for nothing."""
        self._on_finish = function
        if self.is_done:
            function()

    def perform(self):
        """For a thread that is no writer: does it."""
        try:
            value, error = self.method(*self.arguments), None
        except BaseException as raised:
            value, error = None, raised
        self.finish(value, error)
        del error                       # its frames lead here, and would keep each other

    def result(self):
        """The value once it is there, of a write on disk; raises what the work or the commit
        raised."""
        with self._lock:
            pass
        if self.error is not None:
            raise _renew(self.error)
        return self.value


class Elsewhere(Exception):
    """The traceback of an error that was raised in another thread, as text: its cause."""


def detach(error):
    """The error without the frames that it came through: they would hold the Pending, and so the
    error itself, until a full search for garbage. Those of a fault stay as text."""
    if not isinstance(error, AgentError) and error.__traceback__ is not None:
        with contextlib.suppress(MemoryError):
            error.__cause__ = Elsewhere("\n" + "".join(traceback.format_exception(
                type(error), error, error.__traceback__)))
    error.__context__ = None
    return error.with_traceback(None)


def _renew(error):
    """The same error for one who raises it: the frames that it comes through then are not those of
    what the Pending has."""
    try:
        new = copy.copy(error)
    except Exception:                   # of a module that knows no copies of its errors
        return error
    if type(new) is not type(error):
        return error
    new.__cause__ = error.__cause__
    return new


# ======================================================================================
# store/records.py
# What goes into the store and comes out of it, as values.
#
# Times are epoch seconds, durations seconds; the store alone knows them as text.
# ======================================================================================

class Attachment(NamedTuple):
    """A work repository as the master knows it."""
    id: int
    name: str
    path: str       # absolute
    uuid: Optional[str]


class Hold(NamedTuple):
    """Why nothing new begins, who said so, since when, and until when if ever."""
    reason: str
    by: str
    since: float
    until: Optional[float]


def read_hold(row):
    """The Hold of a row of agent or schedule, or None. A time of it that another program has
    spoilt is as none: it has always been, or never ends."""
    return Hold(row["hold_reason"], row["hold_by"], find_time(row["hold_since"]) or 0.0,
                find_time(row["hold_until"])) if row["hold_since"] else None


def hold_columns(hold):
    """The four columns that keep a Hold, or its release (None)."""
    return (None,) * 4 if hold is None else (
        hold.reason, hold.by, to_text(hold.since), hold.until and to_text(hold.until))


class Change(NamedTuple):
    """What an import makes of one definition of its document."""
    kind: str               # scenario, schedule, context, data_server, logical_schema, calendar
    name: str
    version: Optional[str]  # of a scenario
    change: str             # new, changed, same


class SessionRequest(NamedTuple):
    """What EXEC or a schedule asks for."""
    scenario: str
    agent: str
    version: str = "-1"
    context: str = DEFAULT_CONTEXT
    variables: dict = {}
    name: str = ""
    keywords: str = ""
    priority: int = 0
    level: int = 5
    timeout: Optional[float] = None
    start_at: Optional[float] = None
    key: Optional[str] = None
    schedule: Optional[str] = None
    due: Optional[float] = None
    is_held: bool = False
    hidden: Tuple[str, ...] = ()        # values that must not be stored
    is_parallel: bool = False           # beside others of its schedule
    replaces: Tuple[int, ...] = ()      # sessions that end for it
    parent: Optional[int] = None        # the session whose task asks for it
    parent_run: Optional[int] = None    # the run of that task
    secret_file: Optional[str] = None   # where the secrets among the variables lie: of SecretFiles
    from_step: Optional[str] = None     # the step with which it begins


class RestartRequest(NamedTuple):
    """What RESTART asks for."""
    session: int
    variables: dict = {}
    from_step: Optional[str] = None     # where it goes on, instead of at what failed
    is_skipping: bool = False           # behind what failed
    is_redefining: bool = False         # with the definition that its version has now
    secret_file: Optional[str] = None   # as of a SessionRequest
    is_held: bool = False


class Ticket(NamedTuple):
    """An acknowledged session, as the queue needs it."""
    session: int
    status: str
    agent: str
    priority: int = 0
    start_at: Optional[float] = None
    schedule: Optional[str] = None
    is_duplicate: bool = False
    scenario: str = ""
    limit: Optional[int] = None         # sessions of the scenario at once
    wait_until: Optional[float] = None  # until when it may wait for that
    is_adopted: bool = False            # its process lives on, or its exit code was noted
    is_parallel: bool = False
    excess: str = ""                    # why the limit of its scenario ends it at once
    ending: Any = None                  # its Ending, when that has been so
    spent_file: str = ""                # of SecretFiles: what a RESTART had before and replaces
    has_secrets: bool = False           # the secret file of its request is its own now
    is_child: bool = False              # a session has asked for it, and may wait for its end
    note: str = ""                      # what is to be said of its RESTART
    wait: Any = None                    # the Wait of one that is WAITING, for who has asked

    def gates(self, repository):
        """The gates that its session has to pass in a repository, as list_gates() makes them."""
        return list_gates(repository.id, self.schedule, self.is_parallel, self.scenario, self.limit)


class OpenSession(NamedTuple):
    """A session that runs or is outstanding, as a plan begins with it."""
    ticket: Ticket
    created: float
    begun: Optional[float]              # None: it is outstanding
    due: Optional[float]                # of its schedule
    timeout: Optional[float]


class Ending(NamedTuple):
    """The end of a session, and what that brings about."""
    session: int
    status: str                         # QUEUED: it does not end, but goes on
    tickets: Tuple[Ticket, ...] = ()    # to be queued: the next attempt of its schedule, or itself
    is_awaited: bool = False            # a schedule runs after it
    secret_file: str = ""               # of SecretFiles: not needed any more


class Made(NamedTuple):
    """What a due time has made."""
    ticket: Optional[Ticket]            # None: its scenario's limit, or an error, let it make none
    endings: Tuple[Ending, ...] = ()    # of outstanding sessions that it replaces
    replaced: Tuple[int, ...] = ()      # running sessions that are to be stopped for it


class SessionFilter(NamedTuple):
    """Which sessions a listing shows."""
    statuses: Tuple[str, ...] = ()
    scenario: Optional[str] = None
    schedule: Optional[str] = None
    keyword: Optional[str] = None
    since: Optional[float] = None
    parent: Optional[int] = None        # the session whose task has started them


class LogFilter(NamedTuple):
    """Which lines of a session's log are read."""
    step: Optional[str] = None
    stream: Optional[str] = None
    since: Optional[float] = None
    tail: Optional[int] = None          # so many of the newest, and what comes after them


class PurgeFilter(NamedTuple):
    """Which of the ended sessions are purged: with both times and numbers, those that both name."""
    before: Optional[float] = None      # that ended before
    keep: Optional[int] = None          # that are not among the newest so many of these
    statuses: Tuple[str, ...] = ()
    scenario: Optional[str] = None


class Origin(NamedTuple):
    """What a change of a schedule was made from, to tell whether that still stands."""
    revision: int
    decided: Optional[float]            # None: another program has spoilt it
    spans: Tuple[Any, ...] = ()         # Spans of what had come by then and was not decided


class Span(NamedTuple):
    """Due times of a schedule that share a decision."""
    first: float
    last: float
    count: int
    reason: str             # why they are skipped; empty: the one is to run
    message: str = ""
    planned: Optional[float] = None     # when it was to run, if later than due (jitter)
    is_backlog: bool = False        # one of many that were missed: waits, however many wait already


class Last(NamedTuple):
    """The newest due time of a schedule that made a session."""
    due: Optional[float]                # None: another program has spoilt it
    session: int                        # of several attempts, the newest
    status: Optional[str]               # of that; None: another program has deleted it


def read_last(row):
    """The Last of a row of a listing of schedules, or None."""
    if row["last_session"] is None:
        return None
    return Last(find_time(row["last"]), row["last_session"], row["last_status"])


class StoredSchedule(NamedTuple):
    """A schedule as its repository has it: what fires, LIST, NEXT, WHY and PLAN look at."""
    schedule: Schedule
    revision: int                       # tells that it has changed
    decided: float                      # due times up to here have their decision
    waiting: Optional[float]            # the due time that waits for what `after` names
    hold: Optional[Hold]
    timetable: Any                      # a Timetable; None: it cannot fire
    # why it cannot: another program has spoilt its row, or what it names is not there any more
    trouble: str = ""
    is_spoilt: bool = False             # so that its variables and options cannot be told
    last: Optional[Last] = None         # in a listing, where there is one
    boot: Optional[str] = None          # that its rule `boot` knows; None: it is noted when read

    @property
    def firing(self):
        """The Timetable by which it fires; None when it is off, or runs after others alone."""
        return self.timetable if self.schedule.enabled and self.schedule.rule else None

    def check(self):
        """Conflict when its row is spoilt."""
        if self.is_spoilt:
            raise Conflict(self.trouble)
        return self


# ======================================================================================
# store/arrivals.py
# How a session comes to be: EXEC, schedules and tasks, with all that is checked of them.
# ======================================================================================

KEPT_VERSIONS = 100     # rows of scenario versions that are not asked for again


class Arrivals:
    """Sessions that are asked for, by EXEC, a schedule or a task."""

    def __init__(self, database, scenarios, sessions, endings):
        self._database, self._scenarios = database, scenarios
        self._sessions, self._endings = sessions, endings
        self._defaults = None, ""       # (Scenario, JSON of its variables) used last
        self._versions = {}     # (name, version) -> row, as of _versions_at
        self._versions_at = None
        self._is_closed = False         # the repository is about to be detached

    def close_door(self, connection):
        """For DETACH, by the writer: whether no agent has an open session here. Then none comes
        after this until open_door()."""
        self._is_closed = connection.execute(
            "select 1 from session where status in ('WAITING', 'QUEUED', 'RUNNING')"
            " limit 1").fetchone() is None
        return self._is_closed

    def open_door(self):
        """Sessions may come again -> whether they might not before."""
        was_closed, self._is_closed = self._is_closed, False
        return was_closed

    def check_door(self):
        """RepositoryGone while sessions may not come."""
        if self._is_closed:
            raise RepositoryGone("%s: is being detached" % self._database.label)

    @atomic
    def add(self, connection, request, now):
        """Makes a session -> Ticket. NotFound, BadRequest, Unreadable, Conflict for another use of
        its key, Busy at a limit. One that its scenario's limit lets not even wait has ended:
        `ending`.

        It is the insert that can go wrong: what follows it is without conditions.
        """
        ticket = self.insert(connection, request, now)
        return self.end_excess(connection, ticket, now) if ticket.excess else ticket

    def end_excess(self, connection, ticket, now):
        """The Ticket of a session that the limit of its scenario ends at once."""
        ending = self._endings.end(connection, ticket.session, ERROR, ticket.excess, now)
        return ticket._replace(status=ERROR, ending=ending)

    def insert(self, connection, request, now):
        """The first half of `add`: what is in excess is still to end."""
        self.check_door()
        if request.key is not None:
            earlier = self._find_by_key(connection, request)
            if earlier is not None:
                return self._sessions.make_ticket(connection, earlier)._replace(is_duplicate=True)
        row, scenario = self._find_version(connection, request)
        plain, secrets = request.variables, {}
        if scenario.secrets:
            plain, secrets = scenario.split_secrets(request.variables)
        if secrets and not request.secret_file:
            raise Changed("scenario %s was replaced at the same time; try again" % scenario.name)
        for name, value in plain.items():
            if mask_all(value, request.hidden) != value:
                raise BadRequest("%s: would store a secret; declare it secret in scenario %s"
                                 % (name, scenario.name))
        if plain:
            variables, plain_text = json.dumps(dict(scenario.variables, **plain)), canonical(plain)
        else:
            variables, plain_text = self._text_of_defaults(scenario), "{}"
        step = None if request.from_step is None else scenario.step_index(request.from_step)
        timeout = scenario.timeout if request.timeout is None else request.timeout
        is_waiting = request.is_held or request.start_at is not None and request.start_at > now
        status, excess = WAITING if is_waiting else QUEUED, ""
        if scenario.concurrency:
            status, excess = self._limited(connection, scenario, status, request.replaces)
        start_at, due = (moment and to_text(moment) for moment in (request.start_at, request.due))
        session = connection.execute(
            "insert into session(id, agent, scenario, version, definition, context, status, name,"
            " keywords, priority, level, timeout, created, start_at, variables, given, key,"
            " schedule, due, is_parallel, parent, secret_file, restart_step)"
            " values ((select (last_session + 1) * 1000 + id from repository),"
            " ?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (request.agent, scenario.name, scenario.version, row["definition"],
             request.context, status, request.name, request.keywords, request.priority,
             request.level, timeout, to_text(now), start_at, variables, plain_text, request.key,
             request.schedule, due, request.is_parallel, request.parent,
             request.secret_file if secrets else None, step)).lastrowid
        if request.keywords:
            self._sessions.put_keywords(connection, session, request.keywords)
        if request.parent_run is not None:
            connection.execute("update session_task set child=? where session=? and run=?",
                               (session, request.parent, request.parent_run))
        ticket = Ticket(session, status, request.agent, request.priority, request.start_at,
                        request.schedule, scenario=scenario.name,
                        is_parallel=request.is_parallel, excess=excess, has_secrets=bool(secrets),
                        is_child=request.parent is not None)
        return self._sessions.with_limit(ticket, scenario, request.start_at or now)

    def _find_by_key(self, connection, request):
        """The row of the session that this key has made, or None.
        Conflict for another use of it."""
        row = connection.execute("select * from session where key=?", (request.key,)).fetchone()
        if row is None:
            return None
        hidden = self._sessions.get_scenario(connection, row).secrets
        plain = {name: value for name, value in request.variables.items() if name not in hidden}
        if row["scenario"] != request.scenario or row["given"] != canonical(plain):
            raise Conflict("key %s was used for session %d with another scenario or other variables"
                           % (shorten(request.key), row["id"]))
        return row

    def _text_of_defaults(self, scenario):
        """The JSON of a scenario's variables, kept with the parsed scenario that it is of."""
        if self._defaults[0] is not scenario:
            self._defaults = scenario, json.dumps(scenario.variables)
        return self._defaults[1]

    @staticmethod
    def _limited(connection, scenario, status, replaces):
        """What the limit of its scenario makes of a new session: (status, why it is to end at once,
        or nothing). Busy."""
        limit = scenario.concurrency["limit"]
        count = connection.execute(
            "select count(*) from (select 1 from session where scenario=? and status in"
            " ('WAITING', 'QUEUED', 'RUNNING') and id not in (%s) limit ?)"
            % ",".join("?" * len(replaces)),
            (scenario.name,) + tuple(replaces) + (limit,)).fetchone()[0]
        outcome = weigh_limit(limit, scenario.concurrency["on_limit"], count)
        text = "%d sessions of scenario %s are open, its limit" % (limit, scenario.name)
        if outcome == "skip":
            raise Busy(text)
        return WAITING if outcome else status, text if outcome == "error" else ""

    def _find_version(self, connection, request):
        """(row, Scenario) of what is asked for, its variables checked: for the flood, the file is
        asked again only when something has changed."""
        at = self._database.version, self._database.failures, self._scenarios.changes
        if at != self._versions_at or len(self._versions) > KEPT_VERSIONS:
            self._versions, self._versions_at = {}, at
        key = request.scenario, request.version
        row = self._versions.get(key)
        if row is None:
            row = self._versions[key] = self._scenarios.get(connection, *key)
        scenario = self._scenarios.parse(row["definition"], row["body"])
        scenario.check_variables(request.variables)
        return row, scenario


# ======================================================================================
# store/beside.py
# What SQLite keeps beside a file that is open: whether that is still what its connections use.
# ======================================================================================

WAL_BYTES = 4 * 1024 * 1024     # what a -wal keeps when it begins anew
REST_S = 1.0            # after it was deleted: whoever did that may have more to do


class Beside:
    """The -wal and -shm of a file. Who deletes them parts the agent from all other programs: what
    it commits then is in files without a name, and gone with the agent.

    torn ──> part(): all of it is in the file itself ──> REST_S later: may_open() ──> note()
    """

    def __init__(self, path, clock):
        self.is_parted = False          # nothing is opened until may_open() and note()
        self._path, self._clock = path, clock
        self._inodes = None             # those that the connections use; None: not known
        self._seen = None               # size and time of the -wal at the last look
        self._parted = 0.0

    def _find(self):
        return [self._inode_of(ending) for ending in ("-wal", "-shm")]

    def _inode_of(self, ending):
        try:
            status = os.stat(self._path + ending)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def note(self):
        """A connection has been opened: it uses what is there now."""
        self._inodes, self.is_parted = self._find(), False

    def forget(self):
        """The connection that used them is closed: they may go."""
        self._inodes = None

    @property
    def is_torn(self):
        """Whether one of them was deleted, or another stands in its place."""
        return self._inodes is not None and self._find() != self._inodes

    def is_wasteful(self):
        """Whether the -wal is larger than it need be, and nobody has written since the last look:
        who read an old state for long has let it grow."""
        try:
            status = os.stat(self._path + "-wal")
        except OSError:
            return False
        before, self._seen = self._seen, (status.st_size, status.st_mtime_ns)
        return self._seen == before and status.st_size > WAL_BYTES

    def part(self):
        """The connections that used them are closed, or will be when they are not read with."""
        self.is_parted, self._parted = True, self._clock.monotonic()

    def may_open(self):
        """Whether the file can be opened anew."""
        return not self.is_parted or self._clock.monotonic() >= self._parted + REST_S


def follow_mode(path):
    """SQLite made the -wal and -shm as the file was: where that can be written again, so can these
    -> whether one of them could not. OSError."""
    is_changed = False
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path + ending)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() \
                    and not status.st_mode & stat.S_IWUSR and os.access(path, os.W_OK):
                os.chmod(path + ending, stat.S_IMODE(os.stat(path).st_mode))
                is_changed = True
    return is_changed


def put_in(connection):
    """Puts all that was committed into the file itself -> (is_safe: on disk there, is_done: and
    nobody reads what was before). sqlite3.Error."""
    is_busy, length, count = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
    return not is_busy or length == count >= 0, not is_busy


# ======================================================================================
# store/files.py
# Repository files as a whole: made, migrated after a copy, told of when others may write there.
# ======================================================================================

NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs",
                        "lustre", "gpfs", "beegfs", "ncpfs", "fuse.sshfs", "fuse.glusterfs",
                        "fuse.s3fs", "fuse.rclone", "virtiofs", "webdav", "afpfs", "fuse.ceph")


def migrate(connection, path, kind, label, migrations):
    """Brings a file's schema to this agent's version in one transaction,
    after a copy. RepositoryError."""
    newest = len(migrations)
    version = connection.execute("pragma user_version").fetchone()[0]
    tables = connection.execute("select count(*) from sqlite_master").fetchone()[0]
    if version > newest:
        raise RepositoryError("%s: the file has schema version %d, this agent knows up to %d: "
                              "use a newer agent.py" % (label, version, newest))
    if version == 0 and tables:
        raise RepositoryError("%s: a SQLite file, but no repository" % label)
    connection.execute("pragma journal_mode=wal")       # a file refused stays as it is
    if version:
        row = connection.execute("select kind from repository").fetchone()
        if row is None or row[0] != kind:
            raise RepositoryError("%s: is no %s repository" % (label, kind))
    if 0 < version < newest:
        _copy_beside(connection, path, version)
    if version < newest:
        connection.execute("begin immediate")
        if connection.execute("pragma user_version").fetchone()[0] == version:
            for script in migrations[version:]:
                for statement in filter(str.strip, script.split(";\n")):
                    connection.execute(statement)
            if version == 0:
                connection.execute("insert into repository(kind, uuid) values (?, ?)",
                                   (kind, str(uuid.uuid4())))
            connection.execute("pragma user_version=%d" % newest)
        connection.execute("commit")


def _copy_beside(connection, path, version):
    """The file as it is, before a migration: FILE.vN, or FILE.vN.2 after one that went back
    once."""
    first = "%s.v%d" % (path, version)
    names = itertools.chain([first], ("%s.%d" % (first, number) for number in itertools.count(2)))
    target = next(name for name in names if not os.path.lexists(name))
    remove_own(target + ".part", own_users(path))       # of an older agent that a crash cut short
    with whole_database(target, "part") as part, \
            contextlib.closing(connect_file(part)) as duplicate:
        if hasattr(connection, "backup"):
            connection.backup(duplicate)
        else:                           # Python 3.6
            connection.execute("begin")
            duplicate.executescript("\n".join(connection.iterdump()))
            connection.execute("rollback")
            duplicate.execute("pragma user_version=%d" % version)


def connect_file(path, timeout_s=30):
    """A connection to a SQLite file that is there; it makes none."""
    uri = "file:%s?mode=rw" % urllib.parse.quote(os.fsencode(os.path.abspath(path)))
    connection = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None,
                                 check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def remove_database(path):
    """Deletes a SQLite file and what is kept beside it."""
    for suffix in ("",) + BESIDE_DATABASE:
        with contextlib.suppress(OSError):
            os.unlink(path + suffix)


@contextlib.contextmanager
def whole_database(path, ending):
    """The name of a new empty file, mode 0600, that gets the name `path` when it is whole."""
    new = name_beside(path, ending)
    with naming(path):
        make_private(new)
    try:
        yield new
        with naming(path):
            os.rename(new, path)
    except BaseException:
        remove_database(new)
        raise


def list_numbered(prefix, owners):
    """[(path, session)] of the files PREFIX SESSION.ANYTHING that belong to one of these users."""
    files = [(path, path[len(prefix):].partition(".")[0])
             for path in list_beginning(prefix)]
    return [(path, int(session)) for path, session in files
            if session.isdigit() and is_own(path, owners)]


def tell_doors(label, path):
    """Warns, in one line, of a repository that others may replace or put files beside."""
    doors = list_doors(path)
    if doors:
        log.warning("%s: other users can replace %s or put files beside it: %s",
                    label, path, "; ".join(doors))


def network_file_system(path):
    """The type of the network file system that holds `path`, or None (Linux: mountinfo)."""
    folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    best, kind = "", None
    with contextlib.suppress(OSError):
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields, _, tail = line.partition(" - ")
                point = fields.split()[4].encode().decode("unicode_escape")
                if (folder + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
                    best, kind = point, tail.split()[0]
    return kind if kind in NETWORK_FILE_SYSTEMS else None


# ======================================================================================
# store/connections.py
# Connections to one SQLite file: one that writes, those that read, and whether it is the same.
# ======================================================================================

READERS = 8             # idle reading connections kept a file
READER_CACHE = "cache_size=-256"        # KiB each, for the host has the file's pages, too
READ_S = 5.0            # how long a closing waits for who reads
TORN = "another program has deleted the -wal or -shm beside it"


class Connections:
    """All connections to a file. The writing one is used by one thread at a time; a reader belongs
    to whoever reads with it.

    `is_gone` says that the path leads to another file by now, `gone_reason` how, unless that is
    `is_replaceable`: then the new one is used.
    """

    def __init__(self, path, label, is_replaceable, clock):
        self.path, self.label = path, label
        self.uuid = None                # of the repository, once it was opened
        self.is_gone, self.gone_reason = False, ""
        self.spoilt_reason = ""         # why it is no database any more, or nothing
        self.count = 0                  # writing connections that there have been
        self._is_replaceable = is_replaceable
        self._inode = None
        self._beside = Beside(path, clock)
        self._readers = collections.deque()         # that nobody reads with now
        self._reading, self._is_closing = 0, False
        self._read = threading.Condition()          # for these two
        self._writer = None

    def _connect(self):
        fault = find_fault_beside(self.path)
        if fault:
            raise RepositoryError("%s: %s" % (self.label, fault))
        return connect_file(self.path, timeout_s=0)

    def _connect_with(self, *pragmas):
        connection = self._connect()
        try:
            for pragma in pragmas:
                connection.execute("pragma " + pragma)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def get_writer(self):
        """The writing connection, opened when there is none and the file is the one known."""
        self._check_file()
        self._check_beside()
        if self._writer is None:
            if follow_mode(self.path):
                self.drop_readers()
            self._writer = self._connect_with("synchronous=full", "fullfsync=on",
                                              "journal_size_limit=%d" % WAL_BYTES)
            self.count += 1
            if self.uuid is not None:
                if read_uuid(self._writer) != self.uuid:
                    self._lose("the file was replaced by another repository")
                self._writer.execute("pragma journal_mode=wal")
                self._beside.note()
        return self._writer

    def note_uuid(self):
        """The file is open for the first time: from now on only the repository of this UUID is
        taken for it."""
        self.uuid = read_uuid(self._writer)
        self._beside.note()

    @property
    def is_torn(self):
        """Whether what SQLite keeps beside the file is not what its connections use."""
        return self._beside.is_torn

    def secure(self):
        """Whether what was committed is where the next start finds it: should the -wal have been
        deleted meanwhile, it is put into the file itself."""
        if not self.is_torn:
            return True
        try:
            if self._writer.in_transaction:
                self._writer.execute("rollback")
            return put_in(self._writer)[0]
        except sqlite3.Error:
            return False

    def cut_wal(self):
        """Cuts a -wal that is large for nothing, unless somebody reads or writes: that waits for
        none of them. For the writer, between two transactions."""
        if self._beside.is_wasteful() and self._writer is not None and not self.is_torn:
            with contextlib.suppress(sqlite3.Error):        # the next look's turn
                put_in(self._writer)

    def _check_beside(self):
        """When the -wal or -shm was deleted: closes all that use it, once the file has all that
        was in it, and lets nobody in before that is over. RepositoryError until then."""
        if self.is_torn:
            if not put_in(self._writer)[1]:
                raise RepositoryError(TORN)
            self._beside.part()
            self.drop_writer()
        if self._beside.is_parted:
            self.drop_readers()         # those that read now are closed when that is over
            if self._reading or not self._beside.may_open():
                raise RepositoryError(TORN)

    def _find_inode(self):
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise RepositoryError("%s: %s: %s" % (self.label, self.path, error.strerror)) from None
        return status.st_dev, status.st_ino

    def _check_file(self):
        """Notes the file's inode at first; later, that the path still leads to the same."""
        inode = self._find_inode()
        if self._inode not in (None, inode):
            if not self._is_replaceable:
                self._lose("the file was replaced by another")
            self.drop_writer()
            self.drop_readers()
        self._inode = inode

    def check_place(self):
        """RepositoryGone when the path leads to another file by now, where that is the end of it.
        """
        if not self._is_replaceable:
            with contextlib.suppress(RepositoryError):
                self._check_file()
            if self.is_gone:
                raise RepositoryGone("%s: %s" % (self.label, self.gone_reason))

    def _lose(self, reason):
        self.is_gone, self.gone_reason = True, reason
        raise RepositoryGone("%s: %s" % (self.label, reason))

    @contextlib.contextmanager
    def reading(self, is_new=False):
        """A connection to read with, one for this reading alone where `is_new`; nobody else uses it
        meanwhile. RepositoryError."""
        if self.is_gone:
            raise RepositoryGone("%s: %s" % (self.label, self.gone_reason))
        with self._read:
            if self._is_closing:
                raise RepositoryGone("%s: is closed" % self.label)
            if self._beside.is_parted:
                raise RepositoryError("%s cannot be read: %s" % (self.label, TORN))
            self._reading += 1
        connection = None
        try:
            if self._inode not in (None, self._find_inode()):
                if not self._is_replaceable:
                    raise RepositoryError("%s: the file was replaced by another" % self.label)
                self.drop_readers()
            connection = None if is_new else self._find_idle()
            if connection is None:
                if self.is_torn:        # a new one would not see what is in the -wal
                    raise RepositoryError("%s cannot be read: %s" % (self.label, TORN))
                connection = self._connect_with("busy_timeout=2000", "query_only=on",
                                                "wal_autocheckpoint=0", READER_CACHE)
            yield connection
        except sqlite3.Error as error:
            if connection:
                connection.close()
                connection = None
            raise RepositoryError("%s cannot be read: %s"
                                  % (self.label, tell_reason(error))) from None
        finally:
            if connection:
                if len(self._readers) < READERS and not (
                        is_new or self.is_gone or self._is_closing or self._beside.is_parted):
                    self._readers.append(connection)
                else:
                    connection.close()
            with self._read:
                self._reading -= 1
                self._read.notify_all()

    def _find_idle(self):
        """A connection that nobody reads with, or None."""
        with contextlib.suppress(IndexError):
            return self._readers.pop()

    def probe(self):
        """Reads the file as one that opens it now: what other connections remember of it is no
        proof. RepositoryError."""
        try:
            with self.reading(is_new=True) as connection:
                read_uuid(connection)
        except RepositoryError as error:
            is_spoilt = isinstance(error.__context__, sqlite3.DatabaseError) and not isinstance(
                error.__context__, sqlite3.OperationalError)
            if is_spoilt and not self.spoilt_reason:
                log.warning("%s", error)
            self.spoilt_reason = tell_reason(error.__context__) if is_spoilt else ""
            raise
        if self.spoilt_reason:
            log.info("%s can be read again", self.label)
        self.spoilt_reason = ""

    def drop_writer(self):
        """Closes the writing connection, if there is one."""
        connection, self._writer = self._writer, None
        self._beside.forget()           # the last connection takes them along
        if connection:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def drop_readers(self):
        """Closes the connections that nobody reads with now."""
        while True:
            try:
                self._readers.pop().close()
            except IndexError:
                return

    def close(self):
        """Closes them, the writing one last: it takes the -wal along. Who reads now is waited for,
        READ_S seconds at most; what is read with longer is closed when that is over."""
        with self._read:
            if not self._is_closing:
                self._is_closing = True
                self._read.wait_for(lambda: not self._reading, READ_S)
        self.drop_readers()
        self.drop_writer()


def read_uuid(connection):
    """The UUID of a repository file."""
    return connection.execute("select uuid from repository").fetchone()[0]


def is_locked(error):
    """Whether another program holds the file's lock."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def tell_reason(error):
    """A database or system error in the words of a message."""
    return getattr(error, "strerror", None) or getattr(error, "message", None) or str(error) \
        or type(error).__name__


# ======================================================================================
# store/writer.py
# The one writer of a file: what is waiting shares a transaction, and is answered after the commit.
#
# Thread writer NAME: writes to one repository file; ends when its Database is closed and drained.
# ======================================================================================

LAZY_S = 0.05           # how long a record that nobody waits for may wait for company
GATHER_S = 0.001        # how long a commit waits for those that asked together last time
DOUBT_S = 60.0          # between two tellings of commits that only seem to fail
RETRY_S = 0.02          # between tries while another program holds the file's lock
_WRONG_SQL = re.compile("no such |has no column|syntax error|not decode")   # one request's fault


class Writer:
    """A thread that runs what is waiting in one transaction, a savepoint each.

    `trouble` says in words why the file cannot be written now, or is empty; `failures` counts the
    commits that failed; `version` is of the data: it changes when others have written.
    """

    def __init__(self, connections, clock):
        self.trouble, self.is_read_only = "", False
        self.failures, self.version = 0, None
        self._connections, self._label, self._clock = connections, connections.label, clock
        self._ready = threading.Condition()
        self._queue = collections.deque()
        self._urgent = 0                # whether somebody waits for what is in the queue
        self._wanted = 1                # requests in the queue that wake the writer
        self._company, self._answered = 1, 0.0
        self._closing = None            # monotonic seconds until which a closing may take
        self._writer_id, self._mark = random.getrandbits(60), 0
        self._locked_since, self._tell_at = None, 0.0
        self._thread = Worker(self._run, name="writer " + self._label)

    def start(self):
        """Begins to write. RepositoryError: the host has no thread for it."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise RepositoryError("%s: %s" % (self._label, error)) from None

    def put(self, pending):
        """Takes a Pending in; False when nothing is written any more."""
        with self._ready:
            if self._connections.is_gone or self._closing is not None:
                return False
            self._queue.append(pending)
            if not pending.is_lazy:
                self._urgent += 1
            if len(self._queue) == 1 or (not pending.is_lazy and len(self._queue) >= self._wanted):
                self._ready.notify()
        return True

    def close(self, within_s):
        """Writes down what is waiting, checkpoints, and ends. What is left then fails."""
        with self._ready:
            self._closing = self._clock.monotonic() + within_s
            self._ready.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self):
        while True:
            batch = self._take()
            if not batch:
                break
            self._complete(batch)
        self._connections.close()

    def _take(self):
        """Waits for requests; an empty list means that the database is closing."""
        with self._ready:
            while not self._queue and self._closing is None:
                self._ready.wait()
            if self._closing is None:
                if not self._urgent:
                    self._ready.wait(LAZY_S)
                elif len(self._queue) < self._company and \
                        self._clock.monotonic() < self._answered + GATHER_S:
                    self._wanted = self._company
                    self._ready.wait(GATHER_S)
                    self._wanted = 1
            return self._take_now(MAX_BATCH)

    def _take_now(self, most):
        batch = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        self._urgent = len(self._queue) and 1
        return batch

    def _complete(self, batch):
        """Commits a batch however often it takes; every request of it is finished."""
        while batch:
            try:
                outcomes = self._commit(batch)
            except RepositoryGone as error:
                self._connections.drop_writer()
                self._connections.drop_readers()
                with self._ready:
                    batch += self._take_now(len(self._queue))
                return self._fail(batch, error)
            except Exception as error:  # whatever it is: who waits for it must have an answer
                batch = self._not_written(batch, error)
                continue
            self._trouble_over()
            # those answered now may ask again at once: one commit for all beats two
            self._company = len(batch) + len(self._queue)
            for pending, (value, error) in zip(batch, outcomes):
                pending.finish(value, error)
            self._answered = self._clock.monotonic()
            self._connections.cut_wal()         # a look at its size, mostly
            return None

    def _commit(self, batch):
        """One transaction for the whole batch -> [(value, error)]."""
        connection = self._connections.get_writer()
        connection.execute("begin immediate")
        before = connection.total_changes
        self.version = data_version(connection), self._connections.count
        try:
            outcomes = [self._savepoint(connection, pending) for pending in batch]
            if connection.total_changes == before:
                connection.execute("rollback")
                return outcomes
            self._set_mark(connection)
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        try:
            connection.execute("commit")
        except sqlite3.Error as error:
            if not self._read_back(error):
                raise
            self._tell_doubt(error)
        self._secure()
        return outcomes

    def _secure(self):
        """Waits until what was committed outlives the agent. RepositoryError when it is closing,
        RepositoryGone."""
        while not self._connections.secure():
            self._connections.check_place()
            error = RepositoryError(TORN)
            self._note(error)
            if self._is_overdue():
                raise error
            self._expire_queue(error)
            time.sleep(RETRY_S * 10)

    @staticmethod
    def _savepoint(connection, pending):
        """Runs a request so that it changes all or nothing -> (value, error). An error of the file,
        not of the request, is raised."""
        if not pending.is_atomic:
            connection.execute("savepoint request")
        try:
            outcome = pending.method(connection, *pending.arguments), None
        except sqlite3.Error as error:
            if type(error) is sqlite3.DatabaseError or isinstance(error, sqlite3.OperationalError) \
                    and not _WRONG_SQL.search(str(error)):
                raise                       # the file, not the request: nothing of the batch stays
            outcome = None, error
        except MemoryError:                 # the host, not the request
            raise
        except Exception as error:
            outcome = None, error
        if not pending.is_atomic:
            if outcome[1] is not None:
                connection.execute("rollback to request")
            connection.execute("release request")
        return outcome

    def _set_mark(self, connection):
        """What tells after a failed commit whether it is on disk: a row a writer,
        the newest kept."""
        if self._mark == 0:
            connection.execute("delete from commit_mark where writer not in"
                               " (select writer from commit_mark order by time desc limit 30)")
        self._mark += 1
        connection.execute("replace into commit_mark(writer, mark, time) values (?, ?, ?)",
                           (self._writer_id, self._mark, to_text(self._clock.now())))

    def _read_back(self, error):
        """After a commit that failed: whether it is on disk after all, as often as it takes."""
        while True:
            if self._connections.secure():
                self._connections.drop_writer()
            try:
                row = self._connections.get_writer().execute(
                    "select mark from commit_mark where writer=?", (self._writer_id,)).fetchone()
                return row is not None and row[0] == self._mark
            except RepositoryGone:      # nobody will ever tell
                raise
            except (sqlite3.Error, RepositoryError):
                self._note(error)
                if self._is_overdue():
                    return False
                self._expire_queue(error)
                time.sleep(RETRY_S * 10)

    def _tell_doubt(self, error):
        """Tells of a commit that is on disk, whatever was said; now and then, if that goes on."""
        now = self._clock.monotonic()
        if now >= self._tell_at:
            log.warning("%s: a commit failed (%s), but is on disk", self._label, error)
            self._tell_at = now + DOUBT_S

    def _expire_queue(self, error):
        """Fails what is overdue in the queue while the writer is busy with an older matter."""
        with self._ready:
            waiting = list(self._queue)
        self._fail_overdue(waiting, error)
        with self._ready:
            self._queue = collections.deque(p for p in self._queue if not p.is_done)

    def _fail_overdue(self, batch, error):
        """Fails what can wait no longer -> the rest."""
        now = self._clock.monotonic()
        self._fail([p for p in batch if self._is_overdue() or p.deadline and p.deadline <= now],
                   RepositoryError("%s cannot be written: %s" % (self._label, tell_reason(error))))
        return [pending for pending in batch if not pending.is_done]

    def _not_written(self, batch, error):
        """Notes the trouble and fails what is overdue; the rest, and what came, is tried again."""
        self._note(error)
        self.failures += 1
        if not is_locked(error) and self._connections.secure():
            self._connections.drop_writer()
        rest = self._fail_overdue(batch, error)
        if rest:
            time.sleep(RETRY_S if is_locked(error) else RETRY_S * 5)
        with self._ready:
            rest += self._take_now(max(0, MAX_BATCH - len(rest)))
        return rest

    def _is_overdue(self):
        return self._closing is not None and self._clock.monotonic() >= self._closing

    def _fail(self, batch, error):
        for pending in batch:
            pending.finish(error=error)

    def _note(self, error):
        """Notes in `trouble` why a commit has failed: a lock that others hold only after a
        second."""
        reason = tell_reason(error)
        if is_locked(error):
            now = self._clock.monotonic()
            self._locked_since = self._locked_since or now
            if now - self._locked_since < 1.0:
                return
            reason = "another program holds its lock"
        if not self.trouble:
            log.warning("%s cannot be written: %s", self._label, reason)
        self.trouble = reason
        self.is_read_only = "readonly" in reason

    def _trouble_over(self):
        self._locked_since = None
        if self.trouble:
            log.info("%s can be written again", self._label)
            self.trouble, self.is_read_only = "", False


def data_version(connection):
    """A number that changes when another program commits to the file."""
    return connection.execute("pragma data_version").fetchone()[0]


# ======================================================================================
# store/database.py
# The one door to SQLite: a file with its writer and its readers.
# ======================================================================================

OPEN_S = 1.0            # how long an opening waits for another program


class Database:
    """The one door to a SQLite file.

    Writes go through one thread, which runs what is waiting in one transaction, a savepoint each,
    and answers after the commit. Readers have connections of their own and never wait for it.
    What follows a commit (`on_done`) is for the Inbox.
    """

    def __init__(self, path, kind, label, migrations, clock, is_replaceable=False, inbox=None):
        self.path, self.kind, self.label = path, kind, label
        self._migrations, self._clock, self._inbox = migrations, clock, inbox
        self._connections = Connections(path, label, is_replaceable, clock)
        self._writer = Writer(self._connections, clock)

    @property
    def trouble(self):
        """Why the file cannot be used now, in words, or nothing."""
        connections = self._connections
        return connections.gone_reason or self._writer.trouble or connections.spoilt_reason

    @property
    def is_read_only(self):
        """Whether that is so since the file is read-only."""
        return self._writer.is_read_only

    @property
    def is_gone(self):
        """Whether the path leads to another file by now: what belonged to this one can never be
        written."""
        return self._connections.is_gone

    @property
    def is_torn(self):
        """Whether another program has deleted the -wal or -shm that it uses: the next write, or
        look, sees to that."""
        return self._connections.is_torn

    @property
    def uuid(self):
        """The UUID of the repository; None before it was opened."""
        return self._connections.uuid

    @property
    def version(self):
        """Of the data, as the writer saw it last: it changes when others have written."""
        return self._writer.version

    @property
    def failures(self):
        """How many commits have failed."""
        return self._writer.failures

    def open(self):
        """Connects, migrates, and starts the writer; RepositoryError says what is wrong."""
        until = self._clock.monotonic() + OPEN_S
        while not self._try_open(self._clock.monotonic() >= until):
            time.sleep(RETRY_S)
        try:
            self._writer.start()
        except RepositoryError:
            self._connections.close()
            raise
        return self

    def _try_open(self, is_last):
        """Whether the file is open now; another program may just be closing or making it."""
        connections = self._connections
        try:
            migrate(connections.get_writer(), self.path, self.kind, self.label, self._migrations)
            connections.note_uuid()
            return True
        except AgentError:
            connections.drop_writer()
            raise
        except (sqlite3.Error, OSError) as error:
            connections.drop_writer()
            if is_locked(error) and not is_last:
                return False
            raise RepositoryError("%s: %s" % (self.label, tell_reason(error))) from None

    def reading(self):
        """A connection to read with, as a context; nobody else uses it meanwhile. RepositoryError.
        """
        return self._connections.reading()

    def read(self, method, *arguments):
        """method(connection, *arguments) of a store with a reading connection. RepositoryError."""
        with self.reading() as connection:
            return method(connection, *arguments)

    def read_version(self, within_s=WRITE_S):
        """`version` as the writer sees it now: it changes when another program has written."""
        self.write(do_nothing, within_s=within_s)
        return self.version

    def probe(self):
        """Looks whether the file is still a database, to one who opens it now: `trouble` says it.
        RepositoryError."""
        self._connections.probe()

    def submit(self, method, *arguments, within_s=None, on_done=None):
        """Hands method(connection, *arguments) of a store to the writer and returns a Pending.

        What cannot be written `within_s` seconds is withdrawn and fails; without it, it is
        tried until it can be, or the database is closed. The method itself says whether it is
        `lazy` or `atomic`. on_done(pending) is for the Inbox once it is done, well or badly.
        """
        deadline = None if within_s is None else self._clock.monotonic() + within_s
        pending = Pending(method, arguments, deadline, on_done, self._inbox)
        if not self._writer.put(pending):
            pending.finish(error=RepositoryGone("%s: %s" % (self.label,
                                                            self.trouble or "is closed")))
        return pending

    def write(self, method, *arguments, within_s=WRITE_S):
        """submit, and wait for the commit."""
        return self.submit(method, *arguments, within_s=within_s).result()

    def close(self, within_s=10.0):
        """Writes down what is waiting, ends the writer, checkpoints. What is left fails."""
        self._writer.close(within_s)
        self._connections.close()


@atomic
def execute(connection, statement, values):
    """One statement, for the writer -> how many rows it has changed."""
    return connection.execute(statement, values).rowcount


def do_nothing(connection):
    """For the writer, to look at the file: fails where it can only be read, which SQLite tells at a
    statement that would write alone."""
    connection.execute("update repository set kind=kind where 0")


# ======================================================================================
# store/endings.py
# The end of a session, whoever ends it: one update, and all that follows from it.
# ======================================================================================

def tell_stop(when, by):
    """The message of a session that was stopped: when ("at once", "before it began", or "": in good
    order), and by whom, with what."""
    return "stopped %s by %s" % (when, by) if when else "stopped by %s" % by


def by_schedule(name):
    """Who stops what the next due time of a schedule replaces."""
    return "its schedule %s: the next due time had come (overlap=stop)" % name


class Endings:
    """How sessions end, and what their end brings about."""

    def __init__(self, sessions, progress, schedules):
        self._sessions, self._progress, self._schedules = sessions, progress, schedules

    def end(self, connection, session, status, message, now, states=None):
        """Ends a session, if it is in one of these states (None: those from which it may) ->
        Ending, or None when it is not. One that ended well keeps what its level says."""
        row = self._sessions.get(connection, session)
        if not self._sessions.change(connection, session, status, states, ended=to_text(now),
                                     message=message):
            return None
        ending = Ending(session, status, secret_file=row["secret_file"] or "")
        if status == ERROR:
            retry = self._retry(connection, row, now)
            return ending._replace(tickets=(retry,)) if retry else ending
        if status == STOPPED:
            return ending
        if row["level"] < 5:
            connection.execute("delete from session_log where session=?", (session,))
        if row["level"] < 3:
            connection.execute("delete from session_task where session=?", (session,))
            connection.execute("delete from session_step where session=?", (session,))
        return ending._replace(is_awaited=self._meet_conditions(connection, row, now))

    def end_outstanding(self, connection, session, status, message, now):
        """`end` of a session that has not begun."""
        return self.end(connection, session, status, message, now, OUTSTANDING)

    def close_stale(self, connection, row, now):
        """Ends a stale session in ERROR, or queues it again as its on_stale says -> Ending, or None
        for what was begun anew since its row was read."""
        session = row["id"]
        if not connection.execute("select 1 from session where id=? and status='RUNNING' and"
                                  " ran_by is ?", (session, row["ran_by"])).fetchone():
            return None
        interrupted = connection.execute(
            "select step, task, run from session_task where session=? and status='RUNNING'"
            " order by run desc limit 1", (session,)).fetchone()
        if interrupted:
            self._progress.set_restart(connection, session, *interrupted)
        message = "stale: the agent that ran it is gone"
        for table in ("session_task", "session_step"):
            connection.execute("update %s set status='ERROR', message=?, ended=? where session=?"
                               " and status='RUNNING'" % table, (message, to_text(now), session))
        try:
            on_stale = self._sessions.get_scenario(connection, row).on_stale
        except Unreadable as error:
            on_stale, message = "error", "%s; %s" % (message, error.message)
        if on_stale != "restart":
            return self.end(connection, session, ERROR, message, now)
        self._sessions.change(connection, session, QUEUED, message=message + "; it goes on")
        return Ending(session, QUEUED, (self._sessions.make_ticket(
            connection, self._sessions.get(connection, session)),))

    def _retry(self, connection, row, now):
        """After a session ended in ERROR: the next run of the whole, when its schedule has attempts
        left, and it can be read -> Ticket, or None."""
        schedule = row["schedule"] and self._schedules.find_definition(
            self._schedules.find(connection, row["schedule"]))
        if not schedule or row["attempt"] >= schedule.get("attempts") or connection.execute(
                "select 1 from session where schedule=? and id>? and due=?",
                (schedule.name, row["id"], row["due"])).fetchone():
            return None
        try:
            scenario = self._sessions.get_scenario(connection, row)
        except Unreadable:
            return None
        start_at = to_text(now + schedule.get("retry_delay"))
        variables = json.dumps(dict(scenario.variables, **json.loads(row["given"])))
        session = connection.execute(
            "insert into session(id, agent, scenario, version, definition, context, status, name,"
            " keywords, priority, level, timeout, created, start_at, variables, given, schedule,"
            " due, attempt, is_parallel) select (select (last_session + 1) * 1000 + id from"
            " repository),"
            " agent, scenario, version, definition, context, 'WAITING', name, keywords, priority,"
            " level, timeout, ?, ?, ?, given, schedule, due, attempt + 1, is_parallel from session"
            " where id=?", (to_text(now), start_at, variables, row["id"])).lastrowid
        self._sessions.put_keywords(connection, session, row["keywords"])
        count = "attempt %d of %d" % (row["attempt"] + 1, schedule.get("attempts"))
        connection.execute("update session set message=message || ? where id=?",
                           ("; %s is session %d" % (count, session), row["id"]))
        connection.execute("update occurrence set session=?, message=? where session=?",
                           (session, "%s, before it session %d" % (count, row["id"]), row["id"]))
        return self._sessions.make_ticket(connection, self._sessions.get(connection, session))

    def _meet_conditions(self, connection, row, now):
        """A session of this row has ended well; whether a schedule has waited for that. A schedule
        does not for what its own session starts: it would never end."""
        above = [parent["schedule"]
                 for parent in self._sessions.list_above(connection, row["parent"])
                 if parent["schedule"]]
        return sum(connection.execute(
            "update schedule_condition set met=? where kind=? and name=? and schedule not in (%s)"
            % ",".join("?" * len(above)), [to_text(now), kind, row[kind]] + above).rowcount
                   for kind in ("schedule", "scenario") if row[kind]) > 0


# ======================================================================================
# store/decisions.py
# What is decided of due times, and the sessions that are made by it.
# ======================================================================================

class Decisions:
    """Due times that have come, and conditions that are met."""

    def __init__(self, schedules, arrivals, endings, ledger):
        self._schedules, self._arrivals = schedules, arrivals
        self._endings, self._ledger = endings, ledger

    def decide(self, connection, name, revision, upto, spans, now, is_held, boot=None):
        """Decides due times of a schedule, all up to `upto`: sessions and occurrences in one
        transaction -> [Made]. Nothing is decided twice; `boot` is the one that its rule fires for.

        Changed: the schedule is another than when it was read; RepositoryGone: the repository is
        being detached. Then nothing of this is decided.
        """
        self._arrivals.check_door()
        row = self._schedules.find(connection, name)
        if row is None or row["revision"] != revision or not row["enabled"]:
            raise Changed("schedule %s has changed since it was read" % name)
        if boot is not None and row["boot"] == boot:
            return []
        connection.execute("update schedule set decided=max(decided, ?), boot=coalesce(?, boot)"
                           " where name=?", (to_text(upto), boot, name))
        decisions = []
        for span in spans:
            if to_text(span.last) <= row["decided"]:
                continue
            if span.reason:
                self._ledger.skip(connection, name, span, now)
            else:
                decisions += self._come_due(connection, row, span, now, is_held)
        return decisions

    @staticmethod
    def note_boot(connection, name, boot):
        """The rule `boot` of a schedule does not fire for this boot of the host."""
        connection.execute("update schedule set boot=? where name=?", (boot, name))

    def _come_due(self, connection, row, span, now, is_held):
        """A due time has come: it runs, or waits for what `after` names."""
        name, schedule = row["name"], self._schedules.read_definition(row)
        if self._ledger.is_recorded(connection, name, span.first):
            return []                   # fired before the clock stepped back
        if not schedule.get("after") and not row["waiting"]:
            return self._start(connection, schedule, span, now, is_held)
        self._schedules.skip_waiting(connection, self._schedules.find(connection, name), now,
                                     "what it runs after had not ended well by the next due time")
        is_met = self._take_conditions(connection, schedule, now)
        connection.execute("update schedule set waiting=? where name=?",
                           (None if is_met else to_text(span.first), name))
        return self._start(connection, schedule, span, now, is_held) if is_met else []

    def _take_conditions(self, connection, schedule, now):
        """Whether all of `after` have ended well since this was last true; then it begins anew."""
        met = {(kind, name): ended for kind, name, ended
               in self._schedules.list_conditions(connection, schedule.name)}
        if not are_met([((kind, name), within_s) for kind, name, within_s
                        in schedule.list_conditions()], met, now):
            return False
        connection.execute("update schedule_condition set met=null where schedule=?",
                           (schedule.name,))
        return True

    @lazy
    def decide_after(self, connection, agent, now, is_held):
        """Decides the schedules of an agent whose conditions are met, as decide()."""
        self._arrivals.check_door()
        decisions = []
        for row in connection.execute(
                "select * from schedule where agent=? and enabled and hold_since is null and"
                " (rule='' or waiting is not null) and name in (select schedule from"
                " schedule_condition where met is not null) order by name", (agent,)).fetchall():
            try:
                schedule = self._schedules.read_definition(row)
                due = from_text(row["waiting"]) if row["waiting"] else now
                is_met = self._take_conditions(connection, schedule, now)
            except (ValueError, Conflict) as error:     # costs the others nothing
                log.warning("schedule %s: %s", row["name"], error)
                continue
            if not is_met:
                continue
            while self._ledger.is_recorded(connection, schedule.name, due):
                due += 0.001            # twice in a millisecond
            connection.execute("update schedule set waiting=null, decided=max(decided, ?)"
                               " where name=?", (to_text(due), schedule.name))
            reason = "after %s" % schedule.get("after") if schedule.get("after") else ""
            decisions += self._start(connection, schedule, Span(due, due, 1, "", reason), now,
                                     is_held)
        return decisions

    def _start(self, connection, schedule, span, now, is_held):
        """Makes the session of a due time, as far as `overlap` lets it -> [Made]."""
        overlap, name = schedule.get("overlap"), schedule.name
        rows = connection.execute(
            "select id, status from session where schedule=? and status in"
            " ('WAITING', 'QUEUED', 'RUNNING') order by id", (name,)).fetchall()
        in_the_way, replaced = find_overlap(
            overlap, [(row, row["status"] == RUNNING) for row in rows], span.is_backlog)
        if in_the_way:
            self._ledger.skip(connection, name, Span(
                span.first, span.last, 1, OVERLAP,
                "session %d of it is %s" % tuple(in_the_way)), now)
            return []
        replaced = [row["id"] for row in replaced]
        message = tell_stop("before it began", by_schedule(name))
        endings = [self._endings.end_outstanding(connection, session, STOPPED, message, now)
                   for session in replaced]
        request = SessionRequest(
            schedule.scenario, schedule.agent, schedule.version, schedule.context,
            schedule.variables, schedule.get("session_name"), schedule.get("keywords"),
            schedule.get("priority"), timeout=schedule.get("timeout"), start_at=span.planned,
            schedule=name, due=span.first, is_held=is_held, is_parallel=overlap == "parallel",
            replaces=tuple(replaced))
        try:
            ticket = self._arrivals.insert(connection, request, now)
        except Busy as error:
            self._ledger.skip(connection, name, Span(span.first, span.last, 1, LIMIT,
                                                     error.message), now)
            ticket = None
        except AgentError as error:
            self._ledger.note_failed(connection, name, span.first, error.message, now)
            ticket = None
        else:
            self._ledger.record(connection, name, span, STARTED, ticket.session, now)
            if ticket.excess:           # now that its occurrence can take the next attempt
                ticket = self._arrivals.end_excess(connection, ticket, now)
        return [Made(ticket, tuple(filter(None, endings)), tuple(
            session for session, ending in zip(replaced, endings) if ending is None))]


# ======================================================================================
# store/imports.py
# A document of definitions put into a work repository, all of it or nothing.
# ======================================================================================

class Imports:
    """Scenarios and schedules of documents."""

    def __init__(self, scenarios, schedules):
        self._scenarios, self._schedules = scenarios, schedules

    def put(self, connection, document, agent, now, is_replacing=False, origins=None):
        """Puts scenarios and schedules in -> (the Changes, [(path, warning)]).

        `origins` has the Origin of each schedule of the document that is there by its name; None
        where nobody has looked. BadRequest or Exists with all faults, and Changed: nothing stays.
        """
        conflicts, faults, changes, warnings, imported = [], [], [], [], {}
        for index, scenario in enumerate(document.scenarios):
            if scenario is None:
                continue
            change = self._scenarios.put(connection, scenario, now, is_replacing)
            if change is None:
                conflicts.append(("scenarios[%d]" % index, "%s %s exists with another definition; "
                                  "give it a new version, or replace it with -REPLACE (from a "
                                  "shell --replace)" % (scenario.name, scenario.version)))
            else:
                imported[scenario.name, scenario.version] = scenario
            changes.append(Change("scenario", scenario.name, scenario.version, change))
        find = functools.lru_cache(maxsize=16)(functools.partial(self._scenarios.find, connection))
        for index, schedule in enumerate(document.schedules):
            wrong = self._list_faults(connection, schedule, imported, find) if schedule else []
            faults += [("schedules[%d].%s" % (index, field), reason) for field, reason in wrong]
            if schedule and not any(field == "scenario" for field, _ in wrong):
                change = self._schedules.put(
                    connection, schedule._replace(agent=schedule.agent or agent), now,
                    (origins or {}).get(schedule.name))
                changes.append(Change("schedule", schedule.name, None, change))
                if schedule.enabled is None and change != NEW and not self._schedules.get(
                        connection, schedule.name)["enabled"]:
                    warnings.append(("schedules[%d].enabled" % index, "stays switched off, for "
                                     "the document does not say; SCHED ON %s switches it on"
                                     % schedule.name))
        for index, schedule in enumerate(document.schedules):
            try:
                if schedule is not None:
                    self._schedules.check_conditions(connection, schedule)
            except AgentError as error:
                faults.append(("schedules[%d].after" % index, error.message))
        if conflicts:
            raise Exists("nothing was imported: %s: %s" % conflicts[0], conflicts + faults)
        if faults:
            raise faulty(faults)
        return changes, warnings + self._list_nobodies(connection, document)

    def _list_nobodies(self, connection, document):
        """[(path, warning)] of scenarios that tasks name and nobody has."""
        return [(path, self._tell_missing(connection, name, version))
                for path, name, version in document.list_children()
                if self._scenarios.find(connection, name, version) is None]

    def _tell_missing(self, connection, name, version):
        """In words, what is not there: this version, or the scenario, and then which name is near.
        """
        missing = self._scenarios.tell_missing(connection, name, version)
        if self._scenarios.find(connection, name, "-1"):
            return missing
        return missing + tell_near(name, self._scenarios.list_alike(connection, name))

    def rehearse(self, connection, *arguments):
        """`put` that is taken back: raises Rehearsed with its result when it would go well, else
        as `put`."""
        raise Rehearsed(self.put(connection, *arguments))

    def _list_faults(self, connection, schedule, imported, find):
        """[(field, reason)] of what the scenario of a schedule does not take: one of `imported`,
        {(name, version): Scenario}, or of the repository, where find(name, version) gives its row.
        """
        name, version = schedule.scenario, schedule.version
        row = find(name, version)
        if row is None:
            return [("scenario", self._tell_missing(connection, name, version))]
        try:
            scenario = imported.get((name, row["version"])) or \
                self._scenarios.parse(row["definition"], row["body"])
        except Unreadable as error:
            return [("scenario", error.message)]
        faults = [("variables." + variable, "scenario %s %s has no variable of that name"
                   % (name, row["version"])) for variable in schedule.variables
                  if variable not in scenario.variables and variable not in scenario.secrets]
        return faults + [("variables." + secret, "is secret, a schedule cannot give it")
                         for secret, source in scenario.secrets.items()
                         if secret in schedule.variables or not source]


class Rehearsed(AgentError):
    """An import was tried, and taken back; `result` is what it would give."""

    def __init__(self, result):
        super().__init__("the import was taken back")
        self.result = result


# ======================================================================================
# store/ledger.py
# The ledger of due times: what was decided of each, with the session it started.
# ======================================================================================

class Ledger:
    """The due times of schedules, and what became of each."""

    @staticmethod
    def is_recorded(connection, name, due):
        """Whether a due time stands in the ledger, as the first of its row."""
        return connection.execute("select 1 from occurrence where schedule=? and due=?",
                                  (name, to_text(due))).fetchone() is not None

    @staticmethod
    def _find_newest(connection, name, upto):
        return connection.execute("select * from occurrence where schedule=? and due<=?"
                                  " order by due desc limit 1", (name, to_text(upto))).fetchone()

    @staticmethod
    def record(connection, name, span, decision, session, now):
        """Notes a decision on the due times of a Span, with the session that it made, or None."""
        connection.execute(
            "insert into occurrence(schedule, due, last_due, count, decision, reason, session,"
            " decided, message) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (name, to_text(span.first), to_text(span.last), span.count, decision, span.reason,
             session, to_text(now), span.message))

    def skip(self, connection, name, span, now, decision=SKIPPED):
        """Consecutive due times that are skipped, or fail, for one reason are one row."""
        # one that waited may be older
        row = self._find_newest(connection, name, span.first)
        if row is not None and (row["decision"], row["reason"]) == (decision, span.reason) and (
                decision == SKIPPED or row["message"] == span.message) and not connection.execute(
                    "select 1 from schedule where name=? and waiting>? and waiting<?",
                    (name, row["last_due"], to_text(span.first))).fetchone():
            connection.execute(
                "update occurrence set last_due=max(last_due, ?), count=count+?, decided=?,"
                " message=? where schedule=? and due=?",
                (to_text(span.last), span.count, to_text(now), span.message, name, row["due"]))
        else:
            self.record(connection, name, span, decision, None, now)

    def note_failed(self, connection, name, due, message, now):
        """A due time could not make its session, and why."""
        self.skip(connection, name, Span(due, due, 1, "", message), now, FAILED)

    @staticmethod
    def begin_anew(connection, name, now):
        """Takes back what was skipped by a clock that was ahead; what has fired then stays. Of a
        long ledger only the newest rows can reach beyond now."""
        now = to_text(now)
        connection.execute("delete from occurrence where schedule=? and due>? and session is null",
                           (name, now))
        connection.execute("update occurrence set message=message || '; begun anew at ' || ?2 where"
                           " schedule=?1 and last_due>?2 and session is null and due in"
                           " (select due from occurrence"
                           " where schedule=?1 and due<=?2 order by due desc limit 50)",
                           (name, now))

    @staticmethod
    def note_step(connection, message, now):
        """A step of the clock stands in the ledger too."""
        now = to_text(now)
        connection.execute("insert or ignore into occurrence(schedule, due, last_due, count,"
                           " decision, reason, decided, message)"
                           " values (?, ?, ?, 0, 'skipped', 'misfire', ?, ?)",
                           (ALL_SCHEDULES, now, now, now, message))

    @staticmethod
    def list_occurrences(connection, name, limit, since=0.0, due=None):
        """Rows of occurrences, newest first; of all schedules when no name is given. `since`: due
        from this instant on; `due`: at this one, to the second."""
        newest = "select * from (select * from occurrence where %s%s order by due desc limit ?1)"
        within = " and last_due>='%s'" % to_text(since) if since else ""
        if due is not None:
            within += " and due<='%s' and last_due>='%s'" % (to_text(due + 0.999), to_text(due))
        rows = newest % ("1", within) if name is None else "%s union all %s" % (
            newest % ("schedule=?2", within), newest % ("schedule=''", within))
        return connection.execute(
            "select o.*, s.status as status, s.begun, s.start_at, s.attempt,"
            " s.message as outcome from (%s) o left join session s on s.id = o.session"
            " order by o.due desc, o.schedule limit ?1" % rows,
            (limit, name)[:1 if name is None else 2]).fetchall()


# ======================================================================================
# store/locks.py
# Locks that the kernel holds on files beside a master: the one live agent of a name.
# ======================================================================================

def open_lock(path, master):
    """A descriptor of a file to lock beside a master, made when it is not there. CannotStart."""
    while True:
        try:
            return open_new(path)
        except FileExistsError:
            pass
        try:
            return open_own(path, os.O_RDWR, own_users(master))
        except FileNotFoundError:       # its holder has just removed it
            continue
        except RepositoryError as error:
            raise CannotStart(error.message) from None


class NameLock:
    """The lock that makes this the one live agent of its name on its master.

    It is the kernel's (flock on a file beside the master), so a crash gives it back.
    """

    def __init__(self, master, name):
        self._master = os.path.realpath(master)
        self._path = "%s.%s.lock" % (self._master, name)
        self._name = name
        self._fd = None

    def take(self):
        """CannotStart says who holds it, or that the file is not ours."""
        while self._fd is None:
            fd = open_lock(self._path, self._master)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(fd, 200).decode("utf-8", "replace").strip()
                os.close(fd)
                raise CannotStart("an agent named %s is running on this master: %s" % (
                    self._name, holder or "it is starting")) from None
            if self._is_the_file(fd):
                self._fd = fd
            else:                       # its holder removed it when it stopped
                os.close(fd)
        return self

    def _is_the_file(self, fd):
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(fd), os.lstat(self._path))
        return False

    def note(self, text):
        """Who holds it, for a second one to tell."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def release(self):
        """Gives it back and leaves no file."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(self._fd)
            self._fd = None


# ======================================================================================
# store/master.py
# The master repository: agents, what is attached, contexts, data servers, calendars, holds.
# ======================================================================================

MASTER_MIGRATIONS = ("""
create table repository (
    kind text primary key,              -- master
    uuid text not null
);
create table commit_mark (
    writer integer primary key, mark integer not null, time text not null
);
create table agent (
    name text primary key,
    host text not null, port integer not null, version text not null,
    identity text not null,             -- host id/boot id/pid namespace/pid/start time/master
    started text not null, heartbeat text not null, stopped text,
    hold_reason text, hold_by text, hold_since text, hold_until text
);
create table work_repository (
    id integer primary key,
    name text not null unique,
    path text not null,                 -- relative to the master's folder when below it
    uuid text
);
create table context (name text primary key);
insert into context(name) values ('GLOBAL');
""", """
create table data_server (
    name text primary key,
    driver text not null,               -- sqlite3, smtp, or a DB-API module
    database text,                      -- of sqlite3: the file
    connect text not null               -- JSON: arguments of connect(); secrets told by env or file
);
create table logical_schema (
    name text not null, context text not null,
    data_server text not null references data_server(name),
    physical_schema text not null default '',
    primary key (name, context)
);
""", """
create table calendar (
    name text primary key,
    dates text not null                 -- 2026-12-25,2026-12-27..2026-12-31
);
""")


class Master:
    """The master repository of one agent."""

    def __init__(self, path, clock):
        self.path = os.path.abspath(path)
        self.db = Database(self.path, "master", "master repository", MASTER_MIGRATIONS, clock,
                           is_replaceable=True)

    def open(self):
        """Opens the file; RepositoryError."""
        self.db.open()
        return self

    def _relative(self, path):
        folder = os.path.dirname(self.path)
        path = os.path.abspath(path)
        return os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path

    def register(self, name, host, port, identity, now):
        """Notes that the agent of this name is this process."""
        self.db.write(self._put_agent, name,
                      (host, port, VERSION, identity, to_text(now), to_text(now), name))

    @staticmethod
    def _put_agent(connection, name, values):
        connection.execute("insert or ignore into agent(name, host, port, version, identity,"
                           " started, heartbeat) values (?, '', 0, '', '', '', '')", (name,))
        connection.execute("update agent set host=?, port=?, version=?, identity=?, started=?,"
                           " heartbeat=?, stopped=null where name=?", values)

    def heartbeat(self, name, now, is_stopped=False):
        """Notes that the agent lives, or has stopped; does not wait for the commit."""
        return self.db.submit(execute, "update agent set heartbeat=?, stopped=? where name=?",
                              (to_text(now), to_text(now) if is_stopped else None, name),
                              within_s=WRITE_S)

    def list_attachments(self):
        """The attached work repositories by id."""
        with self.db.reading() as connection:
            rows = connection.execute("select * from work_repository order by id").fetchall()
        return [self._attachment_of(*row) for row in rows]

    def _attachment_of(self, number, name, path, repository_uuid):
        """The Attachment of a row of work_repository."""
        return Attachment(number, name, os.path.join(os.path.dirname(self.path), path),
                          repository_uuid)

    def attach_as(self, number, name, path, repository_uuid):
        """Notes a work repository that has its id -> its Attachment as it is listed from now on.
        Exists when the id or name is taken."""
        row = number, name, self._relative(path), repository_uuid
        try:
            self.db.write(execute, "insert into work_repository values (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise Exists("a work repository of id %d or name %s is attached"
                         % (number, name)) from None
        return self._attachment_of(*row)

    def detach(self, number):
        """Forgets a work repository; its file stays."""
        self.db.write(execute, "delete from work_repository where id=?", (number,))

    def list_contexts(self):
        """The names of the contexts."""
        with self.db.reading() as connection:
            return [row[0] for row in connection.execute("select name from context order by name")]

    def put_topology(self, document):
        """Contexts, data servers, logical schemas and calendars of a document, in one transaction
        -> the Changes."""
        return self.db.write(self._put_topology, document) if document.has_topology else []

    def rehearse_topology(self, document):
        """The Changes that put_topology would make now."""
        return self.db.read(self._list_changes, document) if document.has_topology else []

    def _list_changes(self, connection, document):
        """[Change] of the topology of a document: what is there already is the same."""
        before, after = self._topology(connection), {
            "contexts": document.contexts, "calendars": [
                dict(each, dates=each["dates"].split(",")) for each in document.calendars],
            "data_servers": [_without_nothing(server) for server in document.data_servers],
            "logical_schemas": document.logical_schemas}
        changes = []
        for part in ("contexts", "data_servers", "logical_schemas", "calendars"):
            there = {_name_of(each): each for each in before[part]}
            for each in after[part]:
                name = _name_of(each)
                change = NEW if name not in there else SAME if there[name] == each else ALTERED
                changes.append(Change(part[:-1], name, None, change))
        return changes

    def _put_topology(self, connection, document):
        """Writes the topology of a document -> [Change]."""
        changes = self._list_changes(connection, document)
        connection.executemany("insert or ignore into context(name) values (?)",
                               [(name,) for name in document.contexts])
        connection.executemany(
            "replace into data_server values (?, ?, ?, ?)",
            [(server["name"], server["driver"], server["database"],
              json.dumps(server["connect"])) for server in document.data_servers])
        for schema in document.logical_schemas:
            connection.execute("delete from logical_schema where name=?", (schema["name"],))
            connection.executemany(
                "insert into logical_schema values (?, ?, ?, ?)",
                [(schema["name"], context) + tuple((target + ".").split(".")[:2])
                 for context, target in schema["contexts"].items()])
        connection.executemany("replace into calendar values (?, ?)", [
            (calendar["name"], calendar["dates"]) for calendar in document.calendars])
        return changes

    def topology_faults(self, document):
        """[(path, reason)] of what a document names that neither it nor the master has."""
        with self.db.reading() as connection:
            def names(table):
                return {row[0] for row in connection.execute("select name from " + table)}
            contexts = names("context") | set(document.contexts)
            servers = names("data_server") | {item["name"] for item in document.data_servers}
            schemas = names("logical_schema") | {item["name"] for item in document.logical_schemas}
            calendars = names("calendar") | {item["name"] for item in document.calendars}
        faults = [("schedules[%d].context" % index, "no context %s" % schedule.context)
                  for index, schedule in enumerate(document.schedules)
                  if schedule and schedule.context not in contexts]
        faults += [("schedules[%d].exclude_dates" % index, "no calendar %s" % name)
                   for index, schedule in enumerate(document.schedules) if schedule
                   for name in schedule.list_calendars() if name not in calendars]
        faults += [(path, "no logical schema %s" % schema)
                   for path, schema in document.list_schemas() if schema not in schemas]
        for index, schema in enumerate(document.logical_schemas):
            for context, target in (schema["contexts"] or {}).items():
                path = "logical_schemas[%d].contexts.%s" % (index, context)
                if context not in contexts:
                    faults.append((path, "no context %s" % context))
                if target.split(".")[0] not in servers:
                    faults.append((path, "no data server %s" % target.split(".")[0]))
        return faults

    def find_data_server(self, name):
        """{name, driver, database, connect} as it was defined, or None."""
        with self.db.reading() as connection:
            row = connection.execute("select * from data_server where name=?", (name,)).fetchone()
        return row and dict(row, connect=json.loads(row["connect"]))

    def find_physical(self, schema, context):
        """(data server, physical schema) behind a logical schema, or None.

        A context without a word of its own about the schema takes GLOBAL's.
        """
        with self.db.reading() as connection:
            row = connection.execute(
                "select data_server, physical_schema from logical_schema where name=?"
                " and context in (?, ?) order by context=? desc limit 1",
                (schema, context, DEFAULT_CONTEXT, context)).fetchone()
        return row and tuple(row)

    def topology(self):
        """Contexts, data servers, logical schemas and calendars as a document has them."""
        return self.db.read(self._topology)

    @staticmethod
    def _topology(connection):
        """{part: [definition]} as a document has them."""
        servers = connection.execute("select * from data_server order by name").fetchall()
        rows = connection.execute("select * from logical_schema order by name, context").fetchall()
        schemas = {}
        for row in rows:
            target = (row["data_server"]
                      + ("." + row["physical_schema"]) * bool(row["physical_schema"]))
            schemas.setdefault(row["name"], {})[row["context"]] = target
        return {"calendars": [
                    {"name": name, "dates": dates.split(",")} for name, dates in
                    connection.execute("select name, dates from calendar order by name")],
                "contexts": [row[0] for row in connection.execute(
                    "select name from context order by name")],
                "data_servers": [_without_nothing(dict(row, connect=json.loads(row["connect"])))
                                 for row in servers],
                "logical_schemas": [{"name": name, "contexts": contexts}
                                    for name, contexts in schemas.items()]}

    def calendars(self):
        """{name: dates} of the calendars."""
        with self.db.reading() as connection:
            return dict(map(tuple, connection.execute("select name, dates from calendar")))

    def put_calendar(self, name, dates, is_new):
        """Adds a calendar or sets its dates. Exists, NotFound."""
        self.db.write(self._put_calendar, name, dates, is_new)

    @staticmethod
    def _put_calendar(connection, name, dates, is_new):
        row = connection.execute("select 1 from calendar where name=?", (name,)).fetchone()
        if row and is_new:
            raise Exists("a calendar %s exists; CALENDAR SET changes it" % name)
        if not row and not is_new:
            raise NotFound("no calendar %s" % name)
        connection.execute("replace into calendar values (?, ?)", (name, dates))

    def delete_calendar(self, name):
        """Deletes a calendar. NotFound."""
        if not self.db.write(execute, "delete from calendar where name=?", (name,)):
            raise NotFound("no calendar %s" % name)

    def find_hold(self, name):
        """The hold of an agent, or None."""
        with self.db.reading() as connection:
            row = connection.execute("select hold_reason, hold_by, hold_since, hold_until"
                                     " from agent where name=?", (name,)).fetchone()
        return row and read_hold(row)

    def set_hold(self, name, hold, within_s=None):
        """Keeps a hold of an agent, or its release (None); does not wait for the commit."""
        return self.db.submit(
            execute,
            "update agent set hold_reason=?, hold_by=?, hold_since=?, hold_until=? where name=?",
            hold_columns(hold) + (name,), within_s=within_s)


def _without_nothing(fields):
    """A dict without what has no value."""
    return {key: value for key, value in fields.items() if value}


def _name_of(definition):
    """The name of a context, which is a text, or of another part of the topology."""
    return definition if isinstance(definition, str) else definition["name"]


# ======================================================================================
# store/parts.py
# Notes of what a task is writing beside its target: so it goes when the process was killed.
# ======================================================================================

PART = re.compile(r"\.[^/]*\.[0-9a-f]{16}\.part", re.S)      # what part_beside names


class PartNotes:
    """The notes beside a repository: FILE.parts.SESSION.UNFORESEEN, mode 0600, one for each task
    in a helper that is under way. What is in it is that of part_beside."""

    def __init__(self, path):
        self._path = path

    def make(self, session):
        """A new note for a task of a session -> its path. RepositoryError."""
        path = "%s.parts.%d.%s" % (self._path, session, unforeseen())
        try:
            make_private(path)
        except OSError as error:
            raise RepositoryError("%s cannot be made: %s" % (path, error.strerror)) from None
        return path

    def clear(self, path):
        """Deletes what a note tells of, where that is still there, and the note."""
        owners = own_users(self._path)
        try:
            with open(open_own(path, os.O_RDONLY, owners, mask=0o077), "rb") as file:
                text = file.read().decode("ascii")
        except FileNotFoundError:
            return
        except (RepositoryError, OSError, ValueError) as error:
            log.warning("a note of what a task was writing is not taken: %s", error)
            return
        with contextlib.suppress(ValueError):       # empty, or cut short: nothing was made yet
            part = json.loads(text)
            if isinstance(part, str) and PART.fullmatch(os.path.basename(part)):
                remove_all(part)
        remove_own(path, owners)

    def list_all(self):
        """[(path, session)] of all that are ours."""
        return list_numbered(self._path + ".parts.", own_users(self._path))


# ======================================================================================
# store/progress.py
# What a session records as it goes: steps, tasks, output, variables.
# ======================================================================================

class Progress:
    """Rows below a session. All take the session's number behind the connection."""

    @staticmethod
    def begin_step(connection, session, run, step, name, attempt, now):
        """The attempt of a step begins; `run` counts the attempts of all steps in the session."""
        connection.execute("insert into session_step(session, run, step, name, attempt, status,"
                           " begun) values (?, ?, ?, ?, ?, 'RUNNING', ?)",
                           (session, run, step, name, attempt, to_text(now)))

    @staticmethod
    def end_step(connection, session, run, status, message, now):
        """The attempt `run` of a step ends with a status and a message."""
        connection.execute("update session_step set status=?, message=?, ended=? where session=?"
                           " and run=?", (status, message, to_text(now), session, run))

    @staticmethod
    def begin_task(connection, session, run, step_run, step, task, name, kind, attempt, now):
        """A task begins: on disk before its process starts."""
        connection.execute(
            "insert into session_task(session, run, step_run, step, task, name, type, attempt,"
            " status, begun) values (?, ?, ?, ?, ?, ?, ?, ?, 'RUNNING', ?)",
            (session, run, step_run, step, task, name, kind, attempt, to_text(now)))

    @staticmethod
    def note_process(connection, session, run, pid, pid_started):
        """A task's process has started: its id, and its start time as the kernel tells it."""
        connection.execute("update session_task set pid=?, pid_started=? where session=? and run=?",
                           (pid, pid_started, session, run))

    @staticmethod
    def end_task(connection, session, run, status, rc, rows, former, message, now):
        """The attempt `run` of a task ends; `rc` and `rows` are None where it has none. `former`
        has {variable: its value before}, as JSON, of those that it has changed, or None. What it
        has started and could not end stays its own, for a RESTART."""
        connection.execute(
            "update session_task set status=?1, rc=?, row_count=?, former=?, message=?, ended=?,"
            " child=(select id from session where id=child and ?1 in ('ERROR', 'STOPPED')"
            " and status in ('WAITING', 'QUEUED', 'RUNNING')) where session=? and run=?",
            (status, rc, rows, former, message, to_text(now), session, run))

    @staticmethod
    def take_child(connection, session, run):
        """The session that a task has started before a crash cut its run short -> its number: it is
        this run's now. None: it has started none, or that is purged."""
        row = connection.execute(
            "select old.run, old.child from session_task new join session_task old on"
            " old.session=new.session and old.step=new.step and old.task=new.task"
            " and old.run<new.run join session on session.id=old.child"
            " where new.session=? and new.run=? order by old.run desc limit 1",
            (session, run)).fetchone()
        if row is None:
            return None
        connection.executemany("update session_task set child=? where session=? and run=?",
                               [(None, session, row["run"]), (row["child"], session, run)])
        return row["child"]

    @staticmethod
    def set_restart(connection, session, step, task, run):
        """Where a RESTART of the session goes on: the run of this task, None if it has not
        begun."""
        connection.execute("update session set restart_step=?, restart_task=?, restart_run=?"
                           " where id=?", (step, task, run, session))

    @staticmethod
    def set_variables(connection, session, values):
        """The values of a session's variables as they stand."""
        connection.execute("update session set variables=? where id=?",
                           (json.dumps(values), session))

    @staticmethod
    def add_log(connection, session, task_run, lines, omitted=None):
        """Lines [(position, time, stream, text)]; `omitted` is the range (first, end) left out."""
        if omitted:
            connection.execute("delete from session_log where session=? and task_run=?"
                               " and position>=? and position<?", (session, task_run) + omitted)
        connection.executemany("replace into session_log values (?, ?, ?, ?, ?, ?)",
                               [(session, task_run) + line for line in lines])

    @staticmethod
    def find_interrupted(connection, session):
        """(step row, task row) of what ran when the agent was lost, or None."""
        task = connection.execute("select * from session_task where session=? and"
                                  " status='RUNNING' order by run desc limit 1",
                                  (session,)).fetchone()
        step = task and connection.execute("select * from session_step where session=? and run=?",
                                           (session, task["step_run"])).fetchone()
        return (step, task) if step else None

    @staticmethod
    def record(connection, session, records):
        """What a session has noted, [(method, arguments)], in order -> what the last one gives."""
        value = None
        for method, arguments in records:
            value = method(connection, session, *arguments)
        return value

    @lazy
    def record_later(self, connection, session, records):
        """`record`, for which nobody waits."""
        self.record(connection, session, records)

    @lazy
    def add_log_later(self, connection, session, task_run, lines, omitted):
        """`add_log`, for which nobody waits."""
        self.add_log(connection, session, task_run, lines, omitted)


# ======================================================================================
# store/restarts.py
# How a session that ended badly is opened again: RESTART, at which task, with which variables.
# ======================================================================================

class Restarts:
    """Sessions that go on by RESTART."""

    def __init__(self, arrivals, scenarios, sessions):
        self._arrivals, self._scenarios, self._sessions = arrivals, scenarios, sessions

    def find_secrets(self, connection, request):
        """The names of the secret variables of the definition with which a session is to go on.
        NotFound, Unreadable."""
        row = self._sessions.get(connection, request.session)
        if request.is_redefining:
            return self._scenarios.find_secrets(connection, row["scenario"], row["version"])
        return tuple(self._sessions.get_scenario(connection, row).secrets)

    def reopen(self, connection, request):
        """A RestartRequest -> Ticket; NotFound, Conflict, BadRequest, Unreadable. The secret file
        that the session had before is not needed any more when this is committed."""
        self._arrivals.check_door()
        row = self._sessions.get(connection, request.session)
        if row["status"] not in RESTARTABLE:
            raise Conflict("session %d is %s; only one that ended in ERROR or STOPPED is restarted"
                           % (request.session, row["status"]))
        columns, scenario = self._take_definition(connection, row, request.is_redefining)
        scenario.check_variables(request.variables)
        plain, secrets = scenario.split_secrets(request.variables)
        if secrets and not request.secret_file:
            raise Changed("scenario %s was replaced at the same time; try again" % scenario.name)
        place, run = self._find_place(connection, row, scenario, request)
        values = dict(self._rewind(connection, row, run, scenario), **plain)
        self._keep_former(connection, row, values)
        columns.update(place, variables=json.dumps(values), ended=None, message="", is_rewound=True)
        if row["begun"] is None:
            columns["start_at"] = None      # it begins now; of one that has begun it is its DUE
        if secrets:
            columns["secret_file"] = request.secret_file
        self._forget_children(connection, request.session, bool(place))
        self._sessions.change(connection, request.session, QUEUED, **columns)
        if request.is_held:
            self._sessions.change(connection, request.session, WAITING)
        ticket = self._sessions.make_ticket(
            connection, self._sessions.get(connection, request.session))._replace(
                note="" if request.is_redefining else self._tell_change(connection, row))
        return ticket._replace(has_secrets=True, spent_file=row["secret_file"] or "") \
            if secrets else ticket

    # -- the definition ----------------------------------------------------------------

    def _take_definition(self, connection, row, is_redefining):
        """({column: value} of what changes with the definition, the Scenario with which a session
        goes on). NotFound, Unreadable."""
        if not is_redefining:
            return {}, self._sessions.get_scenario(connection, row)
        version, scenario = self._scenarios.get_scenario(connection, row["scenario"],
                                                         row["version"])
        columns = {"definition": version["definition"]}
        with contextlib.suppress(Unreadable):       # that may be why it is redefined
            if self._sessions.get_scenario(connection, row).timeout == row["timeout"]:
                columns["timeout"] = scenario.timeout
        return columns, scenario

    def _tell_change(self, connection, row):
        """In words, that the version of a session has another definition now; nothing when it has
        not, or is gone."""
        version = self._scenarios.find(connection, row["scenario"], row["version"])
        if version is None or version["definition"] == row["definition"]:
            return ""
        return "scenario %s %s was replaced; this session goes on with the definition that it was" \
            " made with, and with the new one by RESTART -REDEFINE" % (
                row["scenario"], row["version"])

    # -- where it goes on --------------------------------------------------------------

    def _find_place(self, connection, row, scenario, request):
        """({column: value} of a place other than the one noted, the run that began with the
        variables it needs, or None: as they are). NotFound, Conflict, Unreadable."""
        name, noted_task = request.from_step, row["restart_task"] or 0
        task, is_noted = 0, False
        if name is None:
            name = self._get_step_name(connection, row, scenario)
            task = 0 if request.is_redefining else noted_task
            is_noted = task == noted_task
        run, status = self._find_run(connection, row["id"], name, task)
        if request.is_skipping and (row["restart_run"] is None or status not in RESTARTABLE):
            raise Conflict("no task of session %d has failed to go on behind" % row["id"])
        is_to_come = row["restart_step"] is not None and row["restart_run"] is None
        if is_noted and (row["is_rewound"] or is_to_come):
            run = None
        if request.is_skipping:
            return {"restart_task": task + 1, "restart_run": None, "has_skipped": True}, run
        if request.from_step is None and not request.is_redefining:
            return {}, run
        try:
            place = scenario.step_index(name)
        except NotFound:
            if request.from_step is not None:
                raise
            raise Conflict("scenario %s %s has no step %s any more; -FROM names another"
                           % (scenario.name, scenario.version, name)) from None
        return {"restart_step": place, "restart_task": 0, "restart_run": None}, run

    def _get_step_name(self, connection, row, scenario):
        """The name of the step at which a session goes on. Unreadable."""
        if row["restart_step"] is None:
            return scenario.steps[0].name
        try:
            return self._sessions.get_scenario(connection, row).steps[row["restart_step"]].name
        except Unreadable:
            begun = connection.execute("select name from session_step where session=? and step=?"
                                       " order by run desc limit 1",
                                       (row["id"], row["restart_step"])).fetchone()
            if begun is None:
                raise
            return begun["name"]

    @staticmethod
    def _find_run(connection, session, step, task):
        """(newest run of a task, its status), or twice None. By the step's name, as its place is
        another in another definition."""
        return connection.execute(
            "select max(t.run), t.status from session_task t join session_step s"
            " on s.session=t.session and s.run=t.step_run where t.session=? and t.task=?"
            " and s.name=?", (session, task, step)).fetchone()

    @staticmethod
    def _forget_children(connection, session, is_all):
        """A RESTART takes up a child that a crash parted from its task, unless that has ended badly
        or it goes on elsewhere (`is_all`): then the task starts another."""
        connection.execute(
            "update session_task set child=null where session=? and child is not null"
            " and (? or exists (select 1 from session bad where bad.id=child and bad.status in"
            " ('ERROR', 'STOPPED')))", (session, is_all))

    # -- variables ---------------------------------------------------------------------

    @staticmethod
    def _rewind(connection, row, run, scenario):
        """The values of a Scenario's variables as they stood when a run began (None: as now)."""
        values = json.loads(row["variables"])
        if run is not None:
            for former, in connection.execute(
                    "select former from session_task where session=? and run>=? and former not null"
                    " order by run desc", (row["id"], run)):
                values.update(json.loads(former))
        return {name: values.get(name, default) for name, default in scenario.variables.items()}

    @staticmethod
    def _keep_former(connection, row, values):
        """Has the newest task know what RESTART changes of the variables, as if by itself."""
        former = {name: value for name, value in json.loads(row["variables"]).items()
                  if values.get(name) != value}
        task = connection.execute("select run, former from session_task where session=?"
                                  " order by run desc limit 1", (row["id"],)).fetchone()
        if former and task is not None:
            former.update(json.loads(task["former"] or "{}"))
            connection.execute("update session_task set former=? where session=? and run=?",
                               (json.dumps(former), row["id"], task["run"]))


# ======================================================================================
# store/scenarios.py
# Scenario versions of a work repository, and their definitions.
# ======================================================================================

# JSON text as bytes: where they are no UTF-8, that is the trouble of this one definition
BODY = "cast(d.body as blob) as body"
KEPT_BODIES = 512 * 1024        # bytes of definitions that are kept parsed, twice that at most


class Scenarios:
    """Scenario versions and their definitions; `name` is that of the repository."""

    def __init__(self, name):
        # of scenarios by this agent: what was read before may be out of date
        self.changes = 0
        self._name = name
        # definition id -> (body, Scenario), of those used last, and of those before them
        self._parsed, self._parsed_before = {}, {}
        self._size = 0          # bytes of the bodies in _parsed

    def find(self, connection, name, version):
        """The row of a scenario version (-1: the latest), or None."""
        query = ("select s.name, s.version, s.definition, %s from scenario s"
                 " join definition d on d.id = s.definition where s.name=?" % BODY)
        if version == "-1":
            return connection.execute(
                query + " order by s.version_key desc, s.version desc limit 1",
                (name,)).fetchone()
        return connection.execute(query + " and s.version=?", (name, version)).fetchone()

    def get(self, connection, name, version):
        """The row that find() gives, or NotFound."""
        row = self.find(connection, name, version)
        if row is None:
            raise NotFound("%s in repository %s" % (self.tell_missing(connection, name, version),
                                                    self._name))
        return row

    def tell_missing(self, connection, name, version):
        """In words, what is not there: the scenario, or this version of it."""
        if self.find(connection, name, "-1"):
            return "scenario %s has no version %s" % (name, version)
        return "no scenario %s" % name

    def list_alike(self, connection, name):
        """Names but this one that are at most one letter longer or shorter: the first hundred that
        begin or end as it does, for a writer has no time to compare with all."""
        return [alike for alike, in connection.execute(
            "select distinct name from scenario where name != ?"
            " and length(name) between ? and ? and (substr(name, 1, 1) = ? or substr(name, -1) = ?)"
            " limit 100", (name, len(name) - 1, len(name) + 1, name[:1], name[-1:]))]

    def get_scenario(self, connection, name, version):
        """(row, Scenario) of a version (-1: the latest). NotFound, Unreadable."""
        row = self.get(connection, name, version)
        return row, self.parse(row["definition"], row["body"])

    def parse(self, definition, body):
        """The Scenario of a definition, by its id and its body. Unreadable.

        After a rollback or a purge an id may get another text.
        """
        parsed = self._parsed.get(definition)
        if parsed is not None and parsed[0] == body:
            return parsed[1]
        parsed = self._parsed_before.get(definition)
        if parsed is None or parsed[0] != body:
            try:
                parsed = body, parse_scenario(load_body(body))
            except ValueError as error:
                raise Unreadable("the stored definition %d cannot be read: %s"
                                 % (definition, error)) from None
        if self._size > KEPT_BODIES:    # any thread may come here: nothing is changed in two steps
            self._parsed, self._parsed_before, self._size = {}, self._parsed, 0
        self._parsed[definition] = parsed
        self._size += len(body)
        return parsed[1]

    def parse_stored(self, connection, definition):
        """The Scenario of a definition, by its id alone. Unreadable."""
        return self.parse(definition, self.get_body(connection, definition))

    def find_secrets(self, connection, name, version):
        """The names of the secret variables of a version (-1: the latest); none when there is none.
        Unreadable."""
        row = self.find(connection, name, version)
        return () if row is None else tuple(self.parse(row["definition"], row["body"]).secrets)

    def has(self, connection, name, version):
        """Whether the repository has this scenario version."""
        return self.find(connection, name, version) is not None

    @staticmethod
    def get_body(connection, definition):
        """The body of a definition. Unreadable when another program has deleted it."""
        row = connection.execute("select %s from definition d where id=?" % BODY,
                                 (definition,)).fetchone()
        if row is None:
            raise Unreadable("the stored definition %d is gone" % definition)
        return row["body"]

    def list_versions(self, connection, name=None, version=None):
        """Rows of scenario versions with their body, in natural order."""
        where, values = "", []
        for column, value in (("s.name", name), ("s.version", version)):
            if value is not None:
                where += " and %s=?" % column
                values.append(value)
        return connection.execute(
            "select s.*, %s from scenario s join definition d on d.id = s.definition where 1%s"
            " order by s.name, s.version_key, s.version" % (BODY, where), values).fetchall()

    def put(self, connection, scenario, now, is_replacing):
        """Puts a version in -> new, same, changed (also when it is mended since it could not be
        read), or None where another one is that is not to be replaced. Sessions that share a
        definition have it mended, too."""
        self.changes += 1
        body = json.dumps(scenario.document)
        digest = hashlib.sha256(canonical(scenario.document).encode()).hexdigest()
        row = connection.execute(
            "select d.id, d.digest, %s from scenario s join definition d on d.id = s.definition"
            " where s.name=? and s.version=?" % BODY, (scenario.name, scenario.version)).fetchone()
        if row and row["digest"] == digest and self._is_readable(row):
            return SAME
        if row and row["digest"] != digest and not is_replacing:
            return None
        connection.execute("insert into definition(digest, body) values (?, ?)"
                           " on conflict(digest) do update set body=excluded.body", (digest, body))
        definition = connection.execute("select id from definition where digest=?",
                                        (digest,)).fetchone()[0]
        connection.execute("replace into scenario values (?, ?, ?, ?, ?)",
                           (scenario.name, scenario.version, version_key(scenario.version),
                            definition, to_text(now)))
        return ALTERED if row else NEW

    def _is_readable(self, row):
        try:
            self.parse(row["id"], row["body"])
        except Unreadable:
            return False
        return True

    def drop(self, connection, name, version):
        """Deletes a version; NotFound, or Conflict while a schedule names it."""
        self.changes += 1
        row = self.get(connection, name, version)
        is_last = connection.execute("select count(*) from scenario where name=?",
                                     (name,)).fetchone()[0] == 1
        for schedule in connection.execute("select name, version from schedule where scenario=?",
                                           (name,)):
            if schedule["version"] == row["version"] or schedule["version"] == "-1" and is_last:
                raise Conflict("schedule %s names scenario %s %s"
                               % (schedule["name"], name, row["version"]))
        waiting = connection.execute("select schedule from schedule_condition where kind='scenario'"
                                     " and name=?", (name,)).fetchone()
        if waiting and is_last:
            raise Conflict("schedule %s runs after scenario %s" % (waiting[0], name))
        connection.execute("delete from scenario where name=? and version=?",
                           (name, row["version"]))
        self.forget_unused(connection)

    def forget_unused(self, connection):
        """Deletes the definitions that no version and no session has any more."""
        connection.execute("delete from definition where id not in"
                           " (select definition from scenario)"
                           " and id not in (select definition from session)")


def load_body(body):
    """The body of a definition -> the object. Unreadable when another program has spoilt it."""
    try:
        return json.loads(body)
    except RecursionError:
        reason = "is nested too deeply"
    except ValueError as error:
        reason = error
    raise Unreadable("a stored definition is not JSON: %s" % reason)


# ======================================================================================
# store/schedules.py
# Schedules of a work repository, their holds and what they run after.
# ======================================================================================

PAGE = 500              # rows that are read at once
_ROW_TIMES = ("waiting", "hold_since", "hold_until")        # beside that up to where it is decided


def _words(row):
    """The fields of a Schedule that every row has, but its variables: its first columns."""
    return row[:7] + (bool(row[7]),)


def _read_values(row, column):
    """The variables or options of a row. Conflict: another program has spoilt them."""
    text = row[column]
    return {} if text == "{}" else read_stored(column, text)


def _dump(values):
    """The text of variables or options, as _read_values reads it."""
    return json.dumps(values) if values else "{}"


def _leads_back(connection, schedule):
    """Whether it runs after its own sessions, by way of others.

    With a rule a scenario leads nowhere: others start it as well, and its own session of the
    last due time may be what the next waits for.
    """
    names, to_follow = set(), [schedule.name]
    while to_follow:
        for kind, name in connection.execute(
                "select c.kind, c.name from schedule_condition c join schedule s on"
                " s.name=c.schedule where s.name=? and (s.rule='' or c.kind='schedule')",
                (to_follow.pop(),)).fetchall():
            if name == (schedule.name if kind == "schedule" else schedule.scenario):
                return True
            rows = connection.execute(
                "select name from schedule where name=?" if kind == "schedule" else
                "select distinct s.name from schedule_condition c join schedule s on"
                " s.name=c.schedule where s.rule='' and s.scenario=?", (name,)).fetchall()
            new = {row[0] for row in rows} - names
            names |= new
            to_follow += new
    return False


class StoredSchedules:
    """Schedules, their holds and what they run after; `name` is that of the repository."""

    def __init__(self, name, scenarios, ledger):
        self._name, self._scenarios, self._ledger = name, scenarios, ledger

    def put(self, connection, schedule, now, origin=None):
        """Adds a schedule or sets it to a new definition, its ledger and hold stay -> new,
        changed or same. Where that does not say `enabled`, it stays as it is, and is on when new.

        The same again changes nothing. New times, or ON, begin now: what had come by the old ones
        and was not decided is that of the Origin. `after` that changes, or is enabled, looks at
        what ends from now on. Changed: the row is not that of the Origin any more.
        """
        row = self.find(connection, schedule.name)
        if origin and (row is None or origin[:2] != self.make_origin(row)[:2]):
            raise Changed("schedule %s was changed at the same time; try again" % schedule.name)
        if schedule.enabled is None:
            schedule = schedule._replace(enabled=row is None or bool(row["enabled"]))
        before, moment = self.find_definition(row), to_text(now)
        if before == schedule:
            return SAME
        connection.execute("update repository set last_revision = last_revision + 1")
        revision = connection.execute("select last_revision from repository").fetchone()[0]
        is_moved = before is None or before.timing != schedule.timing
        waiting = row and row["waiting"]
        if waiting and (is_moved or not schedule.get("after")):
            self.skip_waiting(connection, row, now, "the schedule was changed before what it ran"
                              " after had ended well")
            waiting = None
        if is_moved:
            for span in origin.spans if origin else ():
                self._ledger.skip(connection, schedule.name, span, now)
            self._ledger.begin_anew(connection, schedule.name, now)
        values = schedule[1:8] + (
            _dump(schedule.variables), _dump(schedule.options), revision,
            moment if is_moved else row["decided"], waiting,
            own_boot() if is_moved else row["boot"], schedule.name)
        if row is None:
            connection.execute(
                "insert into schedule(agent, scenario, version, context, rule, timezone, enabled,"
                " variables, options, revision, decided, waiting, boot, name, created)"
                " values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", values + (moment,))
        else:
            connection.execute(
                "update schedule set agent=?, scenario=?, version=?, context=?, rule=?, timezone=?,"
                " enabled=?, variables=?, options=?, revision=?, decided=?, waiting=?, boot=?"
                " where name=?", values)
        if before is None or before.get("after") != schedule.get("after") or not before.enabled:
            self.put_conditions(connection, schedule)
        return ALTERED if row else NEW

    @staticmethod
    def make_origin(row):
        """The Origin of a change that is made from this row."""
        return Origin(row["revision"], find_time(row["decided"]))

    def skip_waiting(self, connection, row, now, message):
        """The due time of a row that waits for what `after` names does so in vain, and why."""
        waiting = find_time(row["waiting"])
        if waiting is not None:
            self._ledger.skip(connection, row["name"],
                              Span(waiting, waiting, 1, MISFIRE, message), now)

    @staticmethod
    def put_conditions(connection, schedule):
        """What its `after` names is waited for from now on."""
        connection.execute("delete from schedule_condition where schedule=?", (schedule.name,))
        connection.executemany("insert into schedule_condition(schedule, kind, name)"
                               " values (?, ?, ?)",
                               [(schedule.name,) + condition[:2]
                                for condition in schedule.list_conditions()])

    def check_conditions(self, connection, schedule):
        """What `after` names must be there (NotFound), and must not wait for it (Conflict)."""
        conditions = schedule.list_conditions()
        for condition in conditions:
            query = "select 1 from %s where name=? limit 1"
            if connection.execute(query % condition.kind, (condition.name,)).fetchone() is None:
                is_scenario = connection.execute(query % "scenario", (condition.name,)).fetchone()
                raise NotFound("no %s %s in repository %s, after which it is to run%s" % (
                    condition.kind, condition.name, self._name,
                    is_scenario and "; a scenario is written scenario:%s" % condition.name or ""))
        if conditions and _leads_back(connection, schedule):
            raise Conflict("schedule %s would wait for itself by way of its after" % schedule.name)

    def add(self, connection, schedule, now):
        """Exists, NotFound (scenario, after), BadRequest (variable), Unreadable."""
        if self.find(connection, schedule.name) is not None:
            raise Exists("a schedule %s exists in repository %s" % (schedule.name, self._name))
        self.set(connection, schedule, now, None)

    def set(self, connection, schedule, now, origin):
        """`put` of one whose scenario and conditions are checked. NotFound, BadRequest,
        Conflict."""
        _, scenario = self._scenarios.get_scenario(connection, schedule.scenario, schedule.version)
        scenario.check_schedule(schedule.variables)
        self.put(connection, schedule, now, origin)
        self.check_conditions(connection, schedule)

    def delete(self, connection, name):
        """Deletes a schedule; its occurrences stay until they are purged. Conflict."""
        self.get(connection, name)
        waiting = connection.execute("select schedule from schedule_condition where kind='schedule'"
                                     " and name=?", (name,)).fetchone()
        if waiting:
            raise Conflict("schedule %s runs after it" % waiting[0])
        connection.execute("delete from schedule where name=?", (name,))
        connection.execute("delete from schedule_condition where schedule=?", (name,))

    def hold(self, connection, name, hold):
        """Keeps a hold of a schedule, or its release (None)."""
        self.get(connection, name)
        connection.execute("update schedule set hold_reason=?, hold_by=?, hold_since=?,"
                           " hold_until=? where name=?", hold_columns(hold) + (name,))

    def find(self, connection, name):
        """The row of a schedule, or None."""
        return connection.execute("select * from schedule where name=?", (name,)).fetchone()

    def get(self, connection, name):
        """The row of a schedule, or NotFound."""
        row = self.find(connection, name)
        if row is None:
            raise NotFound("no schedule %s in repository %s" % (name, self._name))
        return row

    @staticmethod
    def read_definition(row):
        """A row -> Schedule. Conflict: another program has spoilt it."""
        return Schedule(*_words(row), _read_values(row, "variables"), _read_values(row, "options"))

    def find_definition(self, row):
        """`read_definition`, or None for what another program has spoilt, or is none."""
        with contextlib.suppress(Conflict):
            return row and self.read_definition(row)

    def read(self, row, calendars, timetable=None, last=None):
        """A row -> StoredSchedule, with its Last: what is wrong with it stands in its trouble.
        `timetable` is that of its rule, timezone, options and these calendars, where it is known.
        """
        trouble, is_spoilt = "", False
        decided = find_time(row["decided"])
        if decided is None or None in [find_time(row[name]) for name in _ROW_TIMES if row[name]]:
            trouble = "a time in its row is none; SCHED SET or RELEASE writes it anew"
        try:
            schedule = self.read_definition(row)
        except Conflict as error:
            schedule, is_spoilt = Schedule(*_words(row), variables={}), True
            trouble = trouble or error.message
        try:
            if not trouble and timetable is None:
                timetable = schedule.timetable(calendars)
        except CalendarError as error:
            trouble = str(error)
        return StoredSchedule(
            schedule, row["revision"], decided or 0.0, find_time(row["waiting"]), read_hold(row),
            None if trouble else timetable, trouble, is_spoilt, last, row["boot"])

    @staticmethod
    def list_page(connection, name, after):
        """At most PAGE rows of schedules by name, those behind `after`, or the one of a name, with
        the newest due time that made a session: `last`, `last_session`, `last_status`."""
        return connection.execute(
            "select s.*, o.due as last, o.session as last_session, r.status as last_status"
            " from schedule s left join occurrence o on o.schedule = s.name and o.due ="
            " (select due from occurrence where schedule = s.name and session is not null"
            " order by due desc limit 1) left join session r on r.id = o.session"
            " where s.%s order by s.name limit ?" % ("name > ?" if name is None else "name=?"),
            (after if name is None else name, PAGE)).fetchall()

    @staticmethod
    def list_revisions(connection, agent):
        """[(name, revision, since when it is held or None)] of an agent's schedules."""
        return [(name, revision, since and (find_time(since) or 0.0))
                for name, revision, since in connection.execute(
                    "select name, revision, hold_since from schedule where agent=?", (agent,))]

    @staticmethod
    def list_held(connection, agent):
        """The names of an agent's schedules that are held."""
        return [name for name, in connection.execute(
            "select name from schedule where agent=? and hold_since is not null", (agent,))]

    @staticmethod
    def list_named(connection, names):
        """The rows of these schedules, at most PAGE."""
        return connection.execute("select * from schedule where name in (%s)"
                                  % ",".join("?" * len(names)), names).fetchall()

    @staticmethod
    def list_conditions(connection, schedule):
        """[(kind, name, when it was met or None)] of a schedule's `after`."""
        return [(kind, name, find_time(met)) for kind, name, met in connection.execute(
            "select kind, name, met from schedule_condition where schedule=?", (schedule,))]

    def list_stray(self, connection):
        """The Schedules whose `after` another program has written: it is not waited for yet."""
        conditions = collections.defaultdict(set)
        for schedule, *condition in connection.execute("select schedule, kind, name from"
                                                       " schedule_condition"):
            conditions[schedule].add(tuple(condition))
        rows = connection.execute(
            "select * from schedule where instr(options, '\"after\"') or name in"
            " (select schedule from schedule_condition)").fetchall()
        stray = []
        for schedule in filter(None, map(self.find_definition, rows)):
            with contextlib.suppress(ValueError):       # spoilt: it does not fire
                if conditions[schedule.name] != {condition[:2]
                                                 for condition in schedule.list_conditions()}:
                    stray.append(schedule)
        return stray

    @staticmethod
    def list_met(connection):
        """[(schedule, kind, name, when)] of the conditions that are met."""
        rows = [(schedule, kind, name, find_time(met)) for schedule, kind, name, met
                in connection.execute("select * from schedule_condition where met is not null")]
        return [row for row in rows if row[-1] is not None]

    def list_users(self, connection, calendar):
        """The names of the schedules that a calendar excludes dates from."""
        rows = connection.execute("select * from schedule where instr(options, ?)",
                                  (calendar,)).fetchall()
        schedules = filter(None, map(self.find_definition, rows))
        return [schedule.name for schedule in schedules if calendar in schedule.list_calendars()]


# ======================================================================================
# store/secrets.py
# Secrets that came with EXEC or RESTART: files beside a repository, never in it.
# ======================================================================================

class SecretFiles:
    """Files of mode 0600, FILE.secret.UNFORESEEN, whose name the row of their session holds; of an
    agent before there were such names it is FILE.secret.SESSION.

    Other agents may have the repository, too. So a file whose session is not committed yet is
    locked (flock): whoever sweeps leaves it, and a crash gives it free.
    """

    def __init__(self, path):
        self._path = path
        self._fresh = {}                # name of a file that is not committed yet: its descriptor

    def _path_of(self, name):
        return "%s.secret.%s" % (self._path, name)

    def write(self, secrets):
        """On disk before the session that they are for -> the file's name. RepositoryError: nothing
        stays."""
        name, fd = unforeseen(), None
        try:
            fd = self._fresh[name] = open_new(self._path_of(name))
            fcntl.flock(fd, fcntl.LOCK_EX)
            with open(fd, "w", encoding="utf-8", closefd=False) as file:
                json.dump(secrets, file)
            os.fsync(fd)
            sync_folder(self._path_of(name))
        except OSError as error:
            self.settle(name, False)
            raise RepositoryError("the secret cannot be kept beside %s: %s"
                                  % (self._path, error.strerror)) from None
        if os.fstat(fd).st_nlink:
            return name
        self.settle(name, False)        # another agent swept before it was locked
        return self.write(secrets)

    def settle(self, name, is_used):
        """The request of a file was answered: its session's row has the name now, or nothing
        will."""
        if not is_used:
            self.forget(name)
        fd = self._fresh.pop(name, None)
        if fd is not None:
            os.close(fd)

    def read(self, name):
        """The secrets of a file, by the names of their variables; what is not ours is told and not
        taken."""
        try:
            fd = open_own(self._path_of(name), os.O_RDONLY, own_users(self._path), mask=0o077)
            with open(fd, encoding="utf-8") as file:
                return dict(json.load(file))
        except FileNotFoundError:
            return {}
        except (RepositoryError, OSError, ValueError, TypeError) as error:
            log.warning("a secret is not taken: %s", error)
            return {}

    def forget(self, name):
        """After the end of its session nothing of them is left."""
        remove_own(self._path_of(name), own_users(self._path))

    def list_names(self):
        """The names of all files."""
        start = len(self._path_of(""))
        return {path[start:] for path in list_beginning(self._path_of(""))}

    @contextlib.contextmanager
    def settled(self, names):
        """Those of some files that no agent is about to commit; nobody can begin to before the
        end of the `with`."""
        locked, owners = set(), own_users(self._path)
        with contextlib.ExitStack() as files:
            for name in names:
                with contextlib.suppress(RepositoryError, OSError):
                    fd = open_own(self._path_of(name), os.O_RDONLY, owners)
                    files.callback(os.close, fd)
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    locked.add(name)
            yield locked


# ======================================================================================
# store/sessions.py
# Sessions of a work repository, one by one: their rows, their states, their tickets.
# ======================================================================================

# a session arrives when it is made, or at its start time
BY_ARRIVAL = " order by max(created, ifnull(start_at, created)), id"


class Sessions:
    """The rows of sessions, and the one place where their state changes."""

    def __init__(self, name, scenarios):
        self._name, self._scenarios = name, scenarios

    @staticmethod
    def find(connection, session):
        """The row of a session, or None."""
        return connection.execute("select * from session where id=?", (session,)).fetchone()

    def get(self, connection, session):
        """The row of a session, or NotFound."""
        row = self.find(connection, session)
        if row is None:
            raise NotFound("no session %d in repository %s" % (session, self._name))
        return row

    @staticmethod
    def list_ended(connection, sessions):
        """The numbers of those among these sessions that have ended."""
        ended = set()
        for first in range(0, len(sessions), 500):
            page = sessions[first:first + 500]
            ended.update(row[0] for row in connection.execute(
                "select id from session where id in (%s) and status in"
                " ('DONE', 'WARNING', 'ERROR', 'STOPPED')" % ",".join("?" * len(page)), page))
        return ended

    def list_above(self, connection, parent):
        """The rows of the sessions that led to one whose parent is this (None: to one that has
        none), the parent's first."""
        rows = []
        while parent is not None:
            row = self.find(connection, parent)
            if row is None:             # purged
                break
            rows.append(row)
            parent = row["parent"]
        return rows

    def get_scenario(self, connection, row):
        """The Scenario of a row of session. Unreadable."""
        return self._scenarios.parse_stored(connection, row["definition"])

    def make_ticket(self, connection, row):
        """A row of session -> Ticket. That its definition cannot be read is told when it begins."""
        try:
            scenario = self.get_scenario(connection, row)
        except Unreadable:
            scenario = None
        start_at = row["start_at"] and from_text(row["start_at"])
        return self.with_limit(
            Ticket(row["id"], row["status"], row["agent"], row["priority"], start_at,
                   row["schedule"], scenario=row["scenario"],
                   is_parallel=bool(row["is_parallel"]), is_child=row["parent"] is not None),
            scenario, start_at or from_text(row["created"]))

    @staticmethod
    def with_limit(ticket, scenario, since):
        """A Ticket with the limit of its Scenario (or None), for which it waits since then."""
        if not scenario or not scenario.concurrency:
            return ticket
        wait = scenario.concurrency["max_wait"]
        return ticket._replace(limit=scenario.concurrency["limit"],
                               wait_until=wait and since + wait)

    @staticmethod
    def put_keywords(connection, session, keywords):
        """Makes a new session known by its keywords, words between commas."""
        connection.executemany("insert or ignore into session_keyword values (?, ?)",
                               [(word, session) for word in keywords.split(",") if word])

    @staticmethod
    def drop_keywords(connection, session, keywords):
        """Forgets what put_keywords has made."""
        connection.executemany("delete from session_keyword where keyword=? and session=?",
                               [(word, session) for word in keywords.split(",") if word])

    def list_strays(self, connection, names, spools):
        """Of names of secret files and [(path, session)] of spools and notes, those that no open
        session needs."""
        open_files = {row[0] or str(row[1]) for row in connection.execute(
            "select secret_file, id from session where status in ('WAITING', 'QUEUED', 'RUNNING')")}
        rows = [(path, self.find(connection, session)) for path, session in spools]
        return (set(names) - open_files,
                [path for path, row in rows if row is None or row["status"] in ENDED])

    @staticmethod
    def list_outstanding(connection, agent):
        """The numbers of what an agent has acknowledged and not begun, in order of arrival."""
        return [row[0] for row in connection.execute(
            "select id from session where agent=? and status in ('WAITING', 'QUEUED')"
            + BY_ARRIVAL, (agent,))]

    def list_tickets(self, connection, numbers):
        """Tickets of those of these sessions that are still outstanding, in this order."""
        rows = map(functools.partial(self.find, connection), numbers)
        return [self.make_ticket(connection, row) for row in rows
                if row is not None and row["status"] in OUTSTANDING]

    @staticmethod
    def list_running(connection, agent):
        """Rows of an agent's sessions that the repository shows as running."""
        return connection.execute("select * from session where agent=? and status='RUNNING'",
                                  (agent,)).fetchall()

    @staticmethod
    def change(connection, session, status, states=None, **columns):
        """The one place where the state of a session changes: only from those that TRANSITIONS
        names, and of these only from `states`; False when it is in none of them."""
        columns["status"] = status
        sql = "update session set %s where id=? and status in (%s)" % (
            ", ".join("%s=?" % name for name in columns),
            ", ".join("'%s'" % state for state in TRANSITIONS[status]
                      if states is None or state in states))
        return connection.execute(sql, tuple(columns.values()) + (session,)).rowcount == 1

    def set_waiting(self, connection, agent, is_held, now):
        """A hold makes what is QUEUED wait; its release queues what waited only for it."""
        state, where = (WAITING, "status='QUEUED'") if is_held else (
            QUEUED, "status='WAITING' and (start_at is null or start_at <= '%s')" % to_text(now))
        rows = connection.execute("select id from session where agent=? and status in ('WAITING',"
                                  " 'QUEUED') and " + where, (agent,)).fetchall()
        for row in rows:
            self.change(connection, row["id"], state)

    @lazy
    def set_queued(self, connection, session):
        """A session whose start time has come; one that has ended meanwhile stays so."""
        self.change(connection, session, QUEUED, OUTSTANDING)

    def begin(self, connection, session, identity, is_late, now, scenario=None):
        """QUEUED or WAITING -> RUNNING, or Conflict when it is neither any more.

        LimitFilled: sessions of other agents fill the scenario's limit.
        """
        if scenario and scenario.concurrency:
            running = connection.execute(
                "select count(*) from session where scenario=? and status='RUNNING' and id<>?",
                (scenario.name, session)).fetchone()[0]
            if running >= scenario.concurrency["limit"]:
                raise LimitFilled("limit %d of %s: %d sessions run, of other agents too"
                                  % (scenario.concurrency["limit"], scenario.name, running))
        if not self.change(connection, session, RUNNING, begun=to_text(now), ran_by=identity,
                           is_rewound=False):
            raise Conflict("session %d is not outstanding" % session)
        if is_late:
            connection.execute("update occurrence set decision='late' where session=?"
                               " and decision='started'", (session,))

    @staticmethod
    def adopt(connection, session, before, identity):
        """A running session changes the agent that runs it, or Conflict."""
        if connection.execute("update session set ran_by=? where id=? and status='RUNNING' and"
                              " ran_by is ?", (identity, session, before)).rowcount != 1:
            raise Conflict("session %d is not as it was" % session)


# ======================================================================================
# store/spool.py
# What the process of an adoptable task leaves for whoever takes it up: a small file of its own.
# ======================================================================================

SPOOL_SCHEMA = ("""
create table log (position integer primary key, time text, stream text, line text);
create table omitted (id integer primary key, first integer, end integer);
create table state (
    id integer primary key,
    holder integer, holder_started text,        -- the minder, which writes here
    is_over integer not null default 0,
    rc integer, error text, captured blob,      -- exit code, or why it could not start
    pid integer, pid_started text               -- the task's own process
);
insert into state(id) values (1)
""")
SPOOL_LOCK_S = 1.0      # how long one try waits for the other of agent and minder


def noted_processes(state):
    """{pid: start time} of what is noted in a row of the state: the minder, and the task's own
    process, of which an agent before this one noted nothing."""
    names = ["holder"] + ["pid"] * ("pid" in state.keys())
    return {state[name]: state[name + "_started"] for name in names if state[name]}


class Spool:
    """What a process of an adoptable session printed and how it ended: a small SQLite file that
    its minder writes, and that outlives the agent.

    RepositoryError says that it cannot be read or written now, as when the disk is full;
    RepositoryGone that it never will be: it was deleted, or is spoilt.
    """

    def __init__(self, path):
        self.path = path
        self._position, self._omitted = -1, None    # how far it was read; what was left out then

    @contextlib.contextmanager
    def _connected(self):
        try:
            with contextlib.closing(connect_file(self.path, SPOOL_LOCK_S)) as connection:
                yield connection
        except (sqlite3.Error, MemoryError) as error:
            kind = RepositoryGone if self._is_lost(error) else RepositoryError
            raise kind("%s cannot be read: %s" % (self.path, error)) from None

    def _is_lost(self, error):
        if isinstance(error, sqlite3.OperationalError):
            return not os.path.lexists(self.path) or "no such " in str(error)
        return isinstance(error, sqlite3.Error)

    def create(self):
        """Makes the file, mode 0600, which appears whole -> itself. RepositoryError."""
        try:
            with whole_database(self.path, "new") as new:
                with contextlib.closing(connect_file(new)) as connection:
                    connection.execute("begin")
                    for statement in SPOOL_SCHEMA.split(";\n"):
                        connection.execute(statement)
                    connection.execute("commit")
                    connection.execute("pragma journal_mode=wal")
            sync_folder(self.path)
        except (OSError, sqlite3.Error) as error:
            raise RepositoryError("%s cannot be made: %s" % (
                self.path, getattr(error, "strerror", None) or error)) from None
        return self

    def note(self, **columns):
        """Sets columns of the state; on disk when it returns."""
        with self._connected() as connection:
            connection.execute("pragma synchronous=full")
            connection.execute("update state set %s" % ", ".join(name + "=?" for name in columns),
                               tuple(columns.values()))

    def store(self, rows, omitted):
        """As Progress.add_log."""
        with self._connected() as connection:
            connection.execute("begin immediate")
            if omitted:
                connection.execute("delete from log where position>=? and position<?", omitted)
                connection.execute("replace into omitted values (1, ?, ?)", omitted)
            connection.executemany("replace into log values (?, ?, ?, ?)", rows)
            connection.execute("commit")

    def state(self):
        """The row of what the minder has noted of itself and of its process."""
        with self._connected() as connection:
            return read_state(connection)

    def read_new(self):
        """What came since it was read last -> (row of the state, rows of the log, the range now
        left out or None where that is as it was)."""
        before = self._omitted
        with self._connected() as connection:
            connection.execute("begin")
            state = read_state(connection)
            omitted = connection.execute("select first, end from omitted").fetchone()
            omitted = omitted and tuple(omitted)
            is_other = omitted != before
            rows = connection.execute(
                "select * from log where position > ? or position = ? order by position",
                (self._position, omitted[0] if is_other else -1)).fetchall()
            connection.execute("rollback")
        self._omitted = omitted
        self._position = max([self._position] + [row["position"] for row in rows])
        return state, [tuple(row) for row in rows], self._omitted if is_other else None

    def remove(self):
        """Deletes the file and what SQLite keeps beside it."""
        remove_database(self.path)


def read_state(connection):
    """The row of the state, with the `last_error` of what is over: the last line of its standard
    error that is not blank, or None. sqlite3.Error."""
    row = connection.execute(
        "select *, case when is_over then ("
        "   select line from log where stream=? and trim(line, ' ' || char(9))<>''"
        "   and position not in (select first from omitted) order by position desc limit 1)"
        " end as last_error from state", (ERR,)).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("it has no state")
    return row


class Spools:
    """The Spools beside a repository: FILE.spool.SESSION.RUN.UNFORESEEN; without its last part it
    is of an agent before these names."""

    def __init__(self, path):
        self._path, self._told = path, Told()

    def _path_of(self, session, task_run):
        return "%s.spool.%d.%d" % (self._path, session, task_run)

    def _list_paths(self, session, task_run):
        whole = self._path_of(session, task_run)
        return [path for path in list_beginning(whole)
                if (path == whole or path.startswith(whole + "."))
                and not path.endswith(BESIDE_DATABASE)]

    def make(self, session, task_run):
        """A new Spool for the minder of a task's process. RepositoryError."""
        for path in self._list_paths(session, task_run):        # older than a copy put back
            if is_own(path, own_users(self._path)):
                Spool(path).remove()
        return Spool("%s.%s" % (self._path_of(session, task_run), unforeseen())).create()

    def find(self, session, task_run):
        """The Spool of a task's process, or None; what is not ours is told and not taken."""
        owners = own_users(self._path)
        for path in sorted(self._list_paths(session, task_run), key=mtime_ns, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                fault = find_fault(path, os.lstat(path), owners) or find_fault_beside(path)
                if not fault:
                    return Spool(path)
                if self._told.is_new(path, fault):
                    log.warning("session %d: what its process wrote is not taken: %s", session,
                                fault)
        return None

    def find_state(self, session, task_run):
        """The row of the state of a Spool, or None when there is none, or a spoilt one.
        RepositoryError: it cannot be read now."""
        spool = self.find(session, task_run)
        try:
            return spool and spool.state()
        except RepositoryGone as error:
            if self._told.is_new(spool.path, error.message):
                log.warning("%s", error)
            return None

    def list_all(self):
        """[(path, session)] of all that are ours, and of what a crash has left half made."""
        owners, (folder, name) = own_users(self._path), os.path.split(self._path)
        return [each for beginning in ("", ".") for each in list_numbered(
            os.path.join(folder, beginning + name + ".spool."), owners)]


# ======================================================================================
# store/views.py
# What is read of sessions: listings, history, logs, durations, and what is purged.
# ======================================================================================

OPEN_ROWS = " and status in ('WAITING', 'QUEUED', 'RUNNING')"
ENDED_ROWS = " and status in ('DONE', 'WARNING', 'ERROR', 'STOPPED')"
HAS_KEYWORD = "exists (select 1 from session_keyword where keyword=? and session=id) and "
LOG_LINES = ("from session_log l cross join session_task t on t.session = l.session and t.run ="
             " l.task_run cross join session_step s on s.session = t.session and s.run = t.step_run"
             " where l.session=?")
MANY = 100000           # sessions that are looked through for the oldest


class Views:
    """Sessions as they are looked at, and how they are purged."""

    def __init__(self, scenarios, sessions):
        self._scenarios, self._sessions = scenarios, sessions

    def list_sessions(self, connection, filters, below, limit):
        """Rows of at most `limit` sessions with a number under `below`, newest first.

        Each state is looked up on its own: so an index gives its newest rows, however many rows
        there are.
        """
        since = filters.since and to_text(filters.since)
        above = self._find_oldest(connection, since) if since else 0
        if above is None:
            return []
        where, values = [], [filters.keyword] if filters.keyword is not None else []
        values += [above, below - 1]
        for column, value in (("parent=?", filters.parent), ("scenario=?", filters.scenario),
                              ("schedule=?", filters.schedule), ("created >= ?", since)):
            if value is not None:
                where.append(" and " + column)
                values.append(value)
        parts = ["select * from (select session.* from %s%s order by %s desc limit ?)"
                 % (source, "".join(where), order)
                 for source, order in self._list_sources(filters)]
        return connection.execute(
            " union all ".join(parts) + " order by id desc limit ?",
            (values + [limit]) * len(parts) + [limit]).fetchall()

    @staticmethod
    def _list_sources(filters):
        """[(tables by the index that serves best, with what is to be true of their rows; order)],
        together all that is wanted. Their values are the keyword, if any, and the numbers."""
        has_keyword = filters.keyword is not None
        by_id = "where id between ? and ?"
        if filters.parent is not None:          # one has few children, whatever else is wanted
            by_id = "session indexed by session_parent where %sid between ? and ?%s" % (
                HAS_KEYWORD * has_keyword, " and status in (%s)" % ",".join(
                    "'%s'" % status for status in filters.statuses) * bool(filters.statuses))
            return [(by_id, "id")]
        if has_keyword:
            ended = ("session_keyword k cross join session on id = k.session"
                     " where k.keyword=? and k.session between ? and ?")
        elif filters.schedule is not None:
            ended = "session " + by_id
        else:
            ended = "session indexed by session_%s %s" % (
                "ended" if filters.scenario is None else "scenario", by_id)
        order = "k.session" if has_keyword else "id"
        if not filters.statuses and (has_keyword or filters.scenario is None):
            return [(ended if has_keyword else "session " + by_id, order)]
        running = "session indexed by session_open " + by_id
        if has_keyword:
            running = running.replace("where ", "where " + HAS_KEYWORD, 1)
        # an index of some rows serves where its own condition stands in the query, word by word
        return [(running + OPEN_ROWS + " and status='%s'" % state, "id") if state in OPEN else
                (ended + ENDED_ROWS + " and status='%s'" % state, order)
                for state in filters.statuses or STATES]

    @staticmethod
    def _find_oldest(connection, since):
        """A number under which no session was created since then (UTC text), or None when none
        was. A clock may have stepped, so numbers are no order of time; of very many it is 0."""
        oldest, count = connection.execute(
            "select min(id), count(*) from (select id from session where created >= ? limit ?)",
            (since, MANY + 1)).fetchone()
        return oldest if count <= MANY else 0

    def get_history(self, connection, session):
        """(session row, step rows, task rows, names of secrets) of one moment; NotFound,
        RepositoryError."""
        connection.execute("begin")
        try:
            row = self._sessions.get(connection, session)
            return (row,
                    connection.execute(
                        "select * from session_step where session=? order by run",
                        (session,)).fetchall(),
                    connection.execute(
                        "select * from session_task where session=? order by run",
                        (session,)).fetchall(),
                    self._secret_names(connection, row))
        finally:
            connection.execute("rollback")

    def _secret_names(self, connection, row):
        with contextlib.suppress(Unreadable):       # what is secret was never stored
            return tuple(self._sessions.get_scenario(connection, row).secrets)
        return ()

    @staticmethod
    def get_durations(connection):
        """{scenario: seconds}, of its newest sessions that ended well."""
        durations = {}
        for scenario, begun, ended in connection.execute(
                "select scenario, begun, ended from session where status in ('DONE', 'WARNING') and"
                " begun is not null order by id desc limit 20000"):
            newest = durations.setdefault(scenario, [])
            if len(newest) < 100:
                newest.append(max(0.0, from_text(ended) - from_text(begun)))
        return {scenario: sorted(newest)[len(newest) // 2]
                for scenario, newest in durations.items()}

    def list_open(self, connection, agent):
        """[OpenSession] of an agent's sessions that run or are outstanding, in order of
        arrival."""
        return [OpenSession(
            self._sessions.make_ticket(connection, row), from_text(row["created"]),
            from_text(row["begun"]) if row["status"] == RUNNING else None, find_time(row["due"]),
            row["timeout"]) for row in connection.execute(
                "select * from session where agent=? and status in ('WAITING', 'QUEUED',"
                " 'RUNNING')" + BY_ARRIVAL, (agent,)).fetchall()]

    def get_resume(self, connection, session):
        """What a run needs: (session row, Scenario, runs so far, {step's name: (attempts so far,
        status)}), the status being that of the newest attempt."""
        row = self._sessions.get(connection, session)
        scenario = self._sessions.get_scenario(connection, row)
        if row["begun"] is None:
            return row, scenario, 0, {}
        attempts = {step: (attempt, status) for step, attempt, status in connection.execute(
            "select name, max(attempt), status from session_step where session=? group by name"
            " order by max(run)", (session,))}
        runs = connection.execute(
            "select max(ifnull((select max(run) from session_step where session=?1), 0),"
            " ifnull((select max(run) from session_task where session=?1), 0))",
            (session,)).fetchone()[0]
        return row, scenario, runs, attempts

    @staticmethod
    def _wanted_lines(filters):
        """The condition of the lines that a LogFilter names, and its values."""
        parts = [(column, value) for column, value in (
            ("s.name=?", filters.step), ("l.stream=?", filters.stream),
            ("l.time>=?", filters.since and to_text(filters.since))) if value is not None]
        return " and ".join([column for column, _ in parts] or ["1"]), [value for _, value in parts]

    def list_log(self, connection, session, filters, after, limit):
        """At most `limit` log rows with the names of step and task, after (task_run, position). Of
        those that a LogFilter does not name the line is None: a reader goes on behind them."""
        condition, values = self._wanted_lines(filters)
        return connection.execute(
            "select l.task_run, l.position, l.time, l.stream, case when %s then l.line end as line,"
            " s.name as step, case t.name when '' then t.task + 1 else t.name end as task %s"
            " and (l.task_run, l.position) > (?, ?) order by l.task_run, l.position limit ?"
            % (condition, LOG_LINES), values + [session] + list(after) + [limit]).fetchall()

    def find_log_start(self, connection, session, filters):
        """Behind which (task_run, position) the lines begin that are wanted. NotFound: there is no
        such step."""
        if filters.step is not None:
            self._check_step(connection, session, filters.step)
        if filters.tail is None:
            return 0, -1
        condition, values = self._wanted_lines(filters)
        newest = connection.execute(
            "select l.task_run, l.position %s and %s order by l.task_run desc, l.position desc"
            " limit 1 offset ?" % (LOG_LINES, condition),
            [session] + values + [filters.tail]).fetchone()
        return tuple(newest) if newest else (0, -1)

    def _check_step(self, connection, session, name):
        """NotFound when a session has no step of this name and never had."""
        if not connection.execute("select 1 from session_step where session=? and name=?",
                                  (session, name)).fetchone():
            row = self._sessions.get(connection, session)
            with contextlib.suppress(Unreadable):
                self._sessions.get_scenario(connection, row).step_index(name)

    @staticmethod
    def weigh_clock(connection, now):
        """Whether a purge that nobody asked for may believe the clock -> (that, by how many seconds
        it is seen for the first time to be ahead, or None). One that is more than a day ahead of
        the last look, or was never looked at, has to stand for a day."""
        looked, begin = map(find_time, connection.execute(
            "select purge_looked, purge_from from repository").fetchone())
        jump = None
        if looked is None or now > looked + BELIEF_S:
            jump, begin = None if looked is None else now - looked, now + BELIEF_S
        elif begin is not None and not begin - 2 * BELIEF_S <= now < begin:
            begin = None                # it has stood, or was set back
        connection.execute("update repository set purge_looked=?, purge_from=?",
                           (to_text(now), begin and to_text(begin)))
        return begin is None, jump

    @staticmethod
    def _where_purged(filters, is_by_time=False):
        """The text and values of a condition on the ended sessions that a PurgeFilter may name."""
        # by its time an old session is found at once, by its status among all that have ended
        where = "ended is not null and %sstatus in (%s)" % ("+" if is_by_time else "", ",".join(
            "'%s'" % status for status in filters.statuses or ENDED))
        return (where, []) if filters.scenario is None else (where + " and scenario=?",
                                                             [filters.scenario])

    def find_newest_purged(self, connection, filters):
        """The number up to which `keep` lets sessions go, -1 for none; None where it says nothing.
        """
        if filters.keep is None:
            return None
        where, values = self._where_purged(filters)
        row = connection.execute("select id from session where %s order by id desc limit 1"
                                 " offset ?" % where, values + [filters.keep]).fetchone()
        return row[0] if row else -1

    def _select_purged(self, columns, filters, newest):
        """The text of a query of what is to be purged, and its values."""
        where, values = self._where_purged(filters, filters.before is not None)
        if newest is not None:
            where += " and id <= ?"
            values.append(newest)
        if filters.before is not None:
            where += " and created < ? and ended < ?"
            values += 2 * [to_text(filters.before)]
        return "select %s from session where %s" % (columns, where), values

    def count_purged(self, connection, filters):
        """How many sessions a purge would delete."""
        newest = self.find_newest_purged(connection, filters)
        query, values = self._select_purged("count(*)", filters, newest)
        return connection.execute(query, values).fetchone()[0]

    def purge(self, connection, filters, newest, limit=200):
        """Deletes at most `limit` sessions that a PurgeFilter names, none after `newest` (None: all
        the same). Where it names those of every state and scenario, old due times that made no
        session go, too.

        Returns how many; 0 means that nothing is left to purge.
        """
        query, values = self._select_purged("id, keywords", filters, newest)
        rows = connection.execute(query + " limit ?", values + [limit]).fetchall()
        for session, keywords in rows:
            for table in ("session_log", "session_task", "session_step", "occurrence"):
                connection.execute("delete from %s where session=?" % table, (session,))
            self._sessions.drop_keywords(connection, session, keywords)
            connection.execute("delete from session where id=?", (session,))
        is_of_all = not filters.statuses and filters.scenario is None
        if filters.before is not None and is_of_all and len(rows) < limit:
            connection.execute("delete from occurrence where session is null and last_due < ?",
                               (to_text(filters.before),))
        if rows:
            self._scenarios.forget_unused(connection)
        return len(rows)


# ======================================================================================
# store/work.py
# A work repository: its tables, and all that is kept in them behind one name.
# ======================================================================================

STRAYS = 100            # so many files are locked at a time

WORK_MIGRATIONS = ("""
create table repository (
    kind text primary key,              -- work
    uuid text not null,
    id integer,                         -- 1..999, the last three digits of its session numbers
    last_session integer not null default 0,
    last_revision integer not null default 0            -- of schedules
);
create table commit_mark (
    writer integer primary key, mark integer not null, time text not null
);
create table definition (
    id integer primary key,
    digest text not null unique,        -- sha256 of the body
    body text not null                  -- a scenario version as JSON; never changed
);
create table scenario (
    name text not null, version text not null,
    version_key text not null,          -- sorts in natural order
    definition integer not null references definition(id),
    imported text not null,
    primary key (name, version)
);
create table session (
    id integer primary key,             -- n * 1000 + id of the repository
    agent text not null,
    scenario text not null, version text not null,
    definition integer not null references definition(id),
    context text not null,
    status text not null,
    name text not null default '', keywords text not null default '',
    priority integer not null default 0, level integer not null default 5,
    timeout real,                       -- seconds
    created text not null, start_at text, begun text, ended text,
    message text not null default '',
    variables text not null,            -- JSON: values as they stand
    given text not null,                -- JSON: those that came with EXEC
    key text,                           -- of EXEC -KEY
    schedule text, due text,
    ran_by text,                        -- identity of the agent that runs or ran it
    restart_step integer, restart_task integer      -- where RESTART goes on, from 0
);
create trigger session_number after insert on session begin
    update repository set last_session = max(last_session, new.id / 1000); end;
create index session_open on session(agent, status)
    where status in ('WAITING', 'QUEUED', 'RUNNING');
create unique index session_key on session(key) where key is not null;
create index session_schedule on session(schedule, id) where schedule is not null;
create table session_step (
    session integer not null, run integer not null,     -- run counts in the session
    step integer not null, name text not null, attempt integer not null,
    status text not null, begun text not null, ended text, message text not null default '',
    primary key (session, run)
) without rowid;
create table session_task (
    session integer not null, run integer not null,
    step_run integer not null, step integer not null, task integer not null,
    name text not null, type text not null, attempt integer not null,
    status text not null, begun text not null, ended text,
    rc integer, row_count integer, message text not null default '',
    pid integer, pid_started text,
    primary key (session, run)
) without rowid;
create table session_log (
    session integer not null, task_run integer not null,
    position integer not null,          -- bytes printed by the task before this line
    time text not null, stream text not null, line text not null,
    primary key (session, task_run, position)
) without rowid;
create table schedule (
    name text primary key,
    agent text not null,
    scenario text not null, version text not null, context text not null,
    rule text not null, timezone text not null,
    enabled integer not null,
    variables text not null,            -- JSON
    created text not null,
    revision integer not null,          -- tells an entry in memory that it is out of date
    decided text not null,              -- due times up to here have their decision
    hold_reason text, hold_by text, hold_since text, hold_until text
);
create table occurrence (
    schedule text not null, due text not null,          -- of several, the first
    last_due text not null, count integer not null default 1,
    decision text not null,             -- started late skipped failed
    reason text not null default '',    -- overlap misfire gap fold hold window limit repository
    session integer, decided text not null, message text not null default '',
    primary key (schedule, due)
) without rowid;
create index occurrence_session on occurrence(session) where session is not null;
""", """
-- JSON: the fields that are not default
alter table schedule add column options text not null default '{}';
-- a due time that waits for what `after` names
alter table schedule add column waiting text;
-- of the attempts of its schedule
alter table session add column attempt integer not null default 1;
alter table session add column is_parallel integer not null default 0;
create table schedule_condition (                   -- what `after` names
    schedule text not null, kind text not null,     -- schedule, scenario
    name text not null,
    met text,                           -- when a session of it ended well since the schedule fired
    primary key (schedule, kind, name)
) without rowid;
create index condition_name on schedule_condition(kind, name);
create index occurrence_due on occurrence(due);
create index session_schedule_open on session(schedule)
    where schedule is not null and status in ('WAITING', 'QUEUED', 'RUNNING');
create trigger schedule_changed
    after update of agent, scenario, version, context, rule, timezone, enabled, variables, options
    on schedule when new.revision = old.revision begin  -- by another program
    update repository set last_revision = last_revision + 1; update schedule set
    revision = (select last_revision from repository),
    decided = max(decided, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) where name = new.name; end;
""", """
-- the session whose task has started it
alter table session add column parent integer;
-- where the secrets lie that came with EXEC
alter table session add column secret_file text;
-- what listings ask for
create index session_created on session(created);
create index session_ended on session(status)
    where status in ('DONE', 'WARNING', 'ERROR', 'STOPPED');
create index session_scenario on session(scenario, status)
    where status in ('DONE', 'WARNING', 'ERROR', 'STOPPED');
create table session_keyword (                      -- what stands between the commas of keywords
    keyword text not null, session integer not null,
    primary key (keyword, session)
) without rowid;
with recursive part(session, keyword, rest) as (
    select id, '', keywords || ',' from session where keywords <> ''
    union all select session, substr(rest, 1, instr(rest, ',') - 1),
        substr(rest, instr(rest, ',') + 1) from part where rest <> '')
    insert or ignore into session_keyword select keyword, session from part where keyword <> '';
""", """
-- the session that this task has started, until its own end is noted
alter table session_task add column child integer;
-- when a purge looked at the clock last, and from when on it believes that
alter table repository add column purge_looked text;
alter table repository add column purge_from text;
""", """
-- the boot of the host at which its rule `boot` has fired, or that it has not to fire for
alter table schedule add column boot text;
""", """
-- the run of the task at which RESTART goes on; null: it has not begun
alter table session add column restart_run integer;
-- RESTART has set its variables to those with which it goes on, and it has not begun since
alter table session add column is_rewound integer not null default 0;
-- RESTART -SKIP has passed over what failed: it ends in WARNING at best
alter table session add column has_skipped integer not null default 0;
-- JSON: variables that this task has changed, or a RESTART behind it, as they were before
alter table session_task add column former text;
update session set restart_run = (
    select max(run) from session_task t where t.session = session.id and t.step = restart_step
    and t.task = restart_task and t.status in ('ERROR', 'STOPPED')) where restart_step not null;
-- what a session has started
create index session_parent on session(parent) where parent is not null;
""")

HELLO = {"scenarios": [{
    "name": "HELLO", "version": "001", "variables": {"who": "world"},
    "steps": [{"name": "greet", "tasks": [
        {"type": "os", "command": 'echo "Hello, ${who}! This is session $SESSION."'}]}]}]}


class WorkRepository:
    """One attached work repository: its file, and a store for each of its parts. Every method of a
    store takes a connection first: a reading one by `db.read`, or the writer's by `db.write`."""

    def __init__(self, number, name, path, clock, inbox=None):
        self.id, self.name, self.path = number, name, path
        self.db = Database(path, "work", "work repository %s" % name, WORK_MIGRATIONS, clock,
                           inbox=inbox)
        self.secrets, self.spools, self.parts = SecretFiles(path), Spools(path), PartNotes(path)
        self.is_behind = False  # outstanding sessions and schedules must be read again
        self.scenarios, self.ledger, self.progress = Scenarios(name), Ledger(), Progress()
        self.sessions = Sessions(name, self.scenarios)
        self.views = Views(self.scenarios, self.sessions)
        self.schedules = StoredSchedules(name, self.scenarios, self.ledger)
        self.imports = Imports(self.scenarios, self.schedules)
        self.endings = Endings(self.sessions, self.progress, self.schedules)
        self.arrivals = Arrivals(self.db, self.scenarios, self.sessions, self.endings)
        self.restarts = Restarts(self.arrivals, self.scenarios, self.sessions)
        self.decisions = Decisions(self.schedules, self.arrivals, self.endings, self.ledger)

    @classmethod
    def create(cls, number, name, path, clock, inbox=None):
        """Makes a new file with the scenario HELLO and opens it."""
        make_private(path)
        try:
            return cls(number, name, path, clock, inbox).fill(clock)
        except AgentError:
            os.unlink(path)
            raise

    def fill(self, clock):
        """Opens a new empty file and puts the scenario HELLO into it -> itself."""
        repository = self.open()
        document = Definitions().read(json.dumps(HELLO))
        repository.db.write(repository.imports.put, document, DEFAULT_NAME, clock.now())
        return repository

    def open(self, expected_uuid=None):
        """Opens the file and checks that it is the one of this id; RepositoryError."""
        self.db.open()
        try:
            number = self.db.read(find_id)
            if number is None:
                number = self.db.write(claim_id, self.id)
            self.id = self.id or number         # ATTACH takes the id that the file has
            if number is None or number != self.id:
                raise RepositoryError("%s: the file is a work repository of id %s, not %s"
                                      % (self.db.label, number, self.id))
            if expected_uuid not in (None, self.db.uuid):
                raise RepositoryError("%s: the file carries another UUID than the one attached; "
                                      "DETACH and ATTACH it if that is meant" % self.db.label)
        except AgentError:
            self.db.close()
            raise
        return self

    def set_behind(self, is_behind=True):
        """Its owner reads the outstanding sessions and the schedules again, or has begun to."""
        self.is_behind = is_behind

    # -- a page at a time: nothing stays open between ----------------------------------

    def list_schedules(self, name=None):
        """Yields the rows of schedules by name, as Schedules.list_page gives them."""
        after = ""
        while True:
            rows = self.db.read(self.schedules.list_page, name, after)
            yield from rows
            if len(rows) < PAGE:
                return
            after = rows[-1]["name"]

    def read_tickets(self, numbers):
        """Yields the Tickets of those of these sessions that are outstanding, in this order."""
        for start in range(0, len(numbers), PAGE):
            yield from self.db.read(self.sessions.list_tickets, numbers[start:start + PAGE])

    def read_schedules(self, names):
        """Yields the rows of these schedules."""
        for start in range(0, len(names), PAGE):
            yield from self.db.read(self.schedules.list_named, names[start:start + PAGE])

    # -- files beside ------------------------------------------------------------------

    def find_adoptable(self, row, is_alive):
        """The Ticket of a stale session whose process can be taken up again, or None.
        RepositoryError: what its process wrote cannot be read now.

        is_alive(pid, start time) tells whether the minder still lives.
        """
        if self.db.read(self._get_on_stale, row) != ADOPT:
            return None
        interrupted = self.db.read(self.progress.find_interrupted, row["id"])
        state = interrupted and self.spools.find_state(row["id"], interrupted[1]["run"])
        if not state:
            return None
        has_minder = state["holder"] is not None and is_alive(state["holder"],
                                                              state["holder_started"])
        if not has_minder and not state["is_over"]:
            return None
        return self.db.read(self.sessions.make_ticket, row)._replace(is_adopted=True)

    def find_roots(self, session):
        """{pid: start time} of the processes that were noted of what a session has under way.
        RepositoryError."""
        interrupted = self.db.read(self.progress.find_interrupted, session)
        if not interrupted:
            return {}
        task = interrupted[1]
        state = self.spools.find_state(session, task["run"])
        roots = noted_processes(state) if state else {}
        if task["pid"]:
            roots[task["pid"]] = task["pid_started"]
        return roots

    def _get_on_stale(self, connection, row):
        try:
            return self.sessions.get_scenario(connection, row).on_stale
        except Unreadable:              # what its closing will say
            return "error"

    def forget_strays(self):
        """Deletes secrets and spools of sessions that have ended, or never were: left by a crash,
        or by a request that could not be written -> notes of such, which are the caller's."""
        names, spools, notes = (self.secrets.list_names(), self.spools.list_all(),
                                self.parts.list_all())
        if names or spools or notes:
            # by the writer, so behind what was being written when they were listed
            names, strays = self.db.write(self.sessions.list_strays, names, spools + notes)
            spools = [path for path, _ in spools if path in strays]
            notes = [path for path, _ in notes if path in strays]
        for path in spools:
            remove_own(path, own_users(self.path))
        names = sorted(names)
        for start in range(0, len(names), STRAYS):
            with self.secrets.settled(names[start:start + STRAYS]) as settled:
                # again, now that none of them can be committed meanwhile
                for name in self.db.write(self.sessions.list_strays, settled, ())[0]:
                    self.secrets.forget(name)
        return notes


def find_id(connection):
    """The id that the file carries, or None: it is new."""
    return connection.execute("select id from repository").fetchone()[0]


def claim_id(connection, number):
    """The id that the file carries; a new file takes this one."""
    connection.execute("update repository set id=? where id is null", (number,))
    return find_id(connection)


# ======================================================================================
# processes/alive.py
# Who is alive: processes, and the marker of those that a task has started.
# ======================================================================================

HAS_PROC = os.path.exists("/proc/self/stat")
PROC_BYTES = 65536      # read at once; what gives fewer is at its end


class Identity(NamedTuple):
    """Which process on which host: enough to tell later whether it still lives."""
    host: str           # host id
    boot: str           # changes with every boot
    pid_ns: str         # pid namespace, empty where there is none
    pid: int
    started: str        # start time of the process in the kernel's words
    master: str         # UUID of the agent's master repository

    def __str__(self):
        return "/".join(str(part) for part in self)

    @classmethod
    def parse(cls, text):
        """The text of the tables -> Identity, or None when it is none."""
        parts = (text or "").split("/")
        is_identity = len(parts) == 6 and parts[3].isdigit()
        return cls(*parts)._replace(pid=int(parts[3])) if is_identity else None


def _first_line(path):
    with contextlib.suppress(OSError):
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    return ""


def _read_of(pid, name):
    """What /proc says of a process, or None when it is gone or says nothing to this user. OSError:
    it cannot be asked now. A file object would ask the system nine times, not thrice."""
    try:
        descriptor = os.open("/proc/%d/%s" % (pid, name), os.O_RDONLY)
        try:
            parts = [os.read(descriptor, PROC_BYTES)]
            while len(parts[-1]) == PROC_BYTES:
                parts.append(os.read(descriptor, PROC_BYTES))
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return b"".join(parts)


def own_identity(host_id, master_uuid):
    """The Identity of this process; `host_id` overrides the host's own."""
    host = host_id or _first_line("/etc/machine-id") or os.uname().nodename
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    pid = os.getpid()
    return Identity(host.replace("/", "_"), own_boot(), namespace, pid,
                    start_time(pid) or "unknown", master_uuid)


class ProcessEntry(NamedTuple):
    """One line of the process table."""
    pid: int
    parent: int
    group: int
    os_session: int
    started: str        # clock ticks since the boot


def read_process(pid):
    """The ProcessEntry of a live pid from /proc, or None when there is none. OSError."""
    text = _read_of(pid, "stat")
    if text is None:
        return None
    state, *fields = text[text.rindex(b")") + 2:].decode().split()
    if state in "ZX":
        return None
    return ProcessEntry(pid, int(fields[0]), int(fields[1]), int(fields[2]), fields[18])


def start_time(pid):
    """When a live process started, in the kernel's words, or None. OSError: it cannot be asked."""
    if HAS_PROC:
        entry = read_process(pid)
        return entry and entry.started
    return "_".join(answer_of("ps", "-o", "lstart=", "-p", str(pid)).split()) or None


def lives(pid, started):
    """Whether the process of this start time lives; one that cannot be asked for now does."""
    try:
        return start_time(pid) == started
    except OSError:
        return True


def read_owner(pid):
    """The user that a process runs as, or None when there is none."""
    with contextlib.suppress(OSError):
        return os.stat("/proc/%d" % pid).st_uid
    return None


def list_pids():
    """The numbers in the process table, ascending; empty where /proc is missing."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) if HAS_PROC else []


def read_marker(pid):
    """The marker in a process's environment, as text, or None. OSError."""
    environment = b"\0" + (_read_of(pid, "environ") or b"")
    start = environment.find(b"\0" + MARKER.encode() + b"=")
    if start < 0:
        return None
    return environment[start + len(MARKER) + 2:].split(b"\0", 1)[0].decode("ascii", "replace")


def make_marker(repository_uuid, session, task_run):
    """The marker of one attempt of a task."""
    return "%s/%d/%d" % (repository_uuid, session, task_run)


def session_of_marker(marker):
    """A marker -> `uuid/session`."""
    return marker.rpartition("/")[0]


def own_line():
    """This process and its parents: never ended."""
    line, entry = {0, 1, os.getpid()}, read_process(os.getpid())
    while entry is not None and entry.parent not in line:
        line.add(entry.parent)
        entry = read_process(entry.parent)
    return line


# ======================================================================================
# processes/limits.py
# How many files may be open: as the host has it for what the agent starts, more for itself.
# ======================================================================================

IDLE_FILES = 64         # more than an agent has open that does nothing


class FileLimit:
    """The soft limit on open files, raised for the agent alone, and only when that becomes scarce:
    what it starts gets the limit that it was started with, which costs something from then on."""

    def __init__(self, own=0, connections=0):
        """`own` files it may need itself, and some for so many connections, as far as the host
        allows. The last of them, from the descriptor `kept_from` on (None: none), are kept back for
        what is no connection."""
        self.kept_from = self._raised = None
        self._raise_from = None         # a connection that has this descriptor raises the limit
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._soft == resource.RLIM_INFINITY:
            return
        descriptors = own + connections + connections // 10
        most = descriptors if self._hard == resource.RLIM_INFINITY else min(descriptors, self._hard)
        self._most = max(self._soft, most)
        if self._most < descriptors:
            log.warning("the host allows %d open files; the limits on connections and sessions may "
                        "need %d (ulimit -n)", self._most, descriptors)
        self.kept_from = self._most - min(own, self._most // 2)
        if self._soft < most:
            self._raise_from = self._soft - own
            if self._raise_from < IDLE_FILES:
                self.use(self._raise_from)

    def use(self, descriptor):
        """A connection has this descriptor -> whether it may keep it. The limit is raised before
        what else the agent needs becomes scarce."""
        if self._raise_from is not None and descriptor >= self._raise_from:
            self._raise_from, self._raised = None, self._most
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._most, self._hard))
        return self.kept_from is None or descriptor < self.kept_from

    @property
    def to_restore(self):
        """The limit that a process has to be given back, or None: it has it."""
        return None if self._raised is None else self._soft


def limited_words(words, environment, file_limit):
    """The words that start a program with this soft limit on open files.

    Between fork and exec nothing of Python may run, as there are threads; a shell does it in half a
    millisecond. Some shells drop variables whose names are none of theirs."""
    if all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in environment):
        return ["/bin/sh", "-c", 'ulimit -Sn "$0"; exec "$@"', str(file_limit)] + words
    return alone_command(exec_alone, str(file_limit)) + words


def exec_alone(file_limit, *words):
    """In a process by itself: becomes a program with this soft limit on open files."""
    import os
    import resource
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(file_limit), hard))
    os.execvp(words[0], words)


# ======================================================================================
# processes/looks.py
# Looks at the process table, shared by all who want one at the same time.
#
# A session that is stopped looks for what it has started, and reads of each process who it is. When
# all sessions are stopped at once they would read all of it for each of them: so whoever waits while
# another looks is served by the look that follows, together with all who wait then.
# ======================================================================================

MAX_LISTINGS = 20       # of the process table in one look, while there is somebody new


class Looks:
    """Finds the members of trees; no two looks at the same time."""

    def __init__(self):
        self._changed = threading.Condition()   # guards all that follows
        self._is_looking = False
        self._searches = []                     # that wait for the next look

    def find(self, search):
        """Fills the `members` of a Search: {pid: ProcessEntry} of those that live now. OSError."""
        with self._changed:
            self._searches.append(search)
            while not search.is_over and self._is_looking:
                self._changed.wait(1.0)     # who was to wake it may have had no memory to
            searches, is_served = self._searches, search.is_over
            if not is_served:               # then it looks for all who wait
                self._searches, self._is_looking = [], True
        if not is_served:
            is_done = False
            try:
                look(searches)
                is_done = True
            finally:
                with self._changed:
                    for each in searches:
                        each.end(is_done)
                    self._is_looking = False
                    self._changed.notify_all()
        if not search.is_done:              # who looked for it was told why
            raise OSError("the process table cannot be read now")
        return search.members


class Search:
    """What one tree looks for, and has found."""

    def __init__(self, sessions, roots, on_found):
        self.sessions = sessions            # `uuid/session`
        self.roots = roots                  # pid -> start time: members if they are these still
        self.members = {}                   # pid -> ProcessEntry
        self.is_done = self.is_over = False     # over: done, or failed
        self._on_found = on_found           # on_found(entry), at once

    def end(self, is_done):
        """The look is over: all were found, or it has failed."""
        self.is_done, self.is_over = is_done, True

    def add(self, entry):
        """A member, unless it is one already -> whether it is new."""
        if entry.pid in self.members:
            return False
        self.members[entry.pid] = entry
        self._on_found(entry)
        return True


def look(searches):
    """One look for all of these.

    The process table is listed until it has nobody new, and the newest are looked at first. So a
    chain in which each link forks and ends is in each listing, and is met while it lives.
    """
    listing, by_session, by_pid = Listing(), {}, {}
    for search in searches:
        for session in search.sessions:
            by_session.setdefault(session, []).append(search)
        for pid in search.roots:
            by_pid.setdefault(pid, []).append(search)
    for _ in range(MAX_LISTINGS):
        new = listing.list_new()
        if not new:
            break
        for pid in new:
            entry = listing.add(pid)
            if entry is None:
                continue
            for search in by_pid.get(pid, ()):
                if search.roots[pid] == entry.started:
                    search.add(entry)
            marker = read_marker(pid)
            for search in by_session.get(session_of_marker(marker), ()) if marker else ():
                search.add(entry)
        for search in searches:
            listing.join(search)


class Listing:
    """The process table as far as it was read, and who belongs to whom in it."""

    def __init__(self):
        self._spared = own_line()
        self._entries = {}                                  # None for what is gone
        self._children, self._groups, self._os_sessions = {}, {}, {}    # number -> [entry]

    def list_new(self):
        """The pids that were not looked at yet, the newest first."""
        return [pid for pid in reversed(list_pids())
                if pid not in self._entries and pid not in self._spared]

    def add(self, pid):
        """Reads a process -> its entry, or None: it is gone."""
        entry = self._entries[pid] = read_process(pid)
        if entry is not None:
            self._children.setdefault(entry.parent, []).append(entry)
            self._groups.setdefault(entry.group, []).append(entry)
            self._os_sessions.setdefault(entry.os_session, []).append(entry)
        return entry

    def _is_gone(self, pid):
        return self._entries.get(pid) is None and pid not in self._spared

    def join(self, search):
        """Adds to the members of a search whoever belongs to one of them."""
        members = search.members
        fresh = list(members.values())
        for leader in filter(self._is_gone, search.roots):
            fresh += [entry for entry in self._os_sessions.get(leader, ()) if (
                read_owner(entry.pid) == os.geteuid() or entry.parent == os.getpid())
                and search.add(entry)]
        while fresh:
            member = fresh.pop()
            number = member.os_session
            near = self._children.get(member.pid, []) + self._groups.get(member.pid, [])
            # an OS session whose leader is gone keeps its number while somebody is in it
            if number in members or self._is_gone(number):
                near = near + self._os_sessions.get(number, [])
            fresh += filter(search.add, near)


# ======================================================================================
# processes/starters.py
# Threads that start processes: what hangs on a mount hangs one of them, and the others go on.
#
# Thread starter N: starts one process after the other; ends at Starters.close(). The processes that
# it has started count as orphans when it ends before them (`reap_orphans`), so it stays.
# ======================================================================================

class Starters:
    """As many threads as were ever busy at once."""

    def __init__(self):
        self._jobs, self._numbers = queue.Queue(), itertools.count(1)
        self._lock = threading.Lock()   # for the next two
        self._free, self._is_closing = 0, False     # how many have nothing to do

    def run(self, job):
        """Has job() called soon. OSError: there is no thread for it."""
        with self._lock:
            if self._free:
                self._free -= 1
                self._jobs.put(job)
                return
            thread = Worker(self._serve, "starter %d" % next(self._numbers), job)
            if not thread.try_start():
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _serve(self, job):
        while job is not None:
            job()
            del job                     # or it would keep what it had until the next
            with self._lock:
                if self._is_closing:
                    return
                self._free += 1
            job = self._jobs.get()

    def close(self):
        """Ends the threads; one that hangs is left behind."""
        with self._lock:
            self._is_closing = True
            for _ in range(self._free):
                self._jobs.put(None)


# ======================================================================================
# processes/output.py
# What the processes of tasks print: read, cut into lines, masked, limited, captured.
#
# Thread output: reads the pipes of all tasks; ends at Output.close().
# ======================================================================================

LINE_COST = 40          # bytes that a row of the log takes beside its text
NOISY_PIPES, NOISY_S = 2, 0.001     # as many pipes with something at once are read with a pause
FLUSH_S = 0.05          # between two looks at whose output is to be written down
TAIL_ROWS_S = 2000      # rows a second that a last half may take while it still changes
TAIL_S = 5.0            # but it is written down at least so often
LAST_ERROR = 200        # characters of the last line of a standard error in a message


def visible(data):
    """Bytes of a line -> text in which nothing can imitate a reply or drive a terminal."""
    return show_controls(data.decode("utf-8", "backslashreplace"))


def cut_error(text):
    """The last line of a standard error, as a message has it."""
    text = text.strip()
    return text if len(text) <= LAST_ERROR else text[:LAST_ERROR] + "..."


def _piece_end(line, start):
    """Where a piece of a line that is too long ends: not inside a character."""
    end = start + MAX_LOG_LINE
    while end > start + MAX_LOG_LINE - 4 and line[end] & 0xC0 == 0x80:
        end -= 1
    return end


class _Block:
    """Whole lines of one stream, read at one time; `data` is None once it is written down."""
    __slots__ = ("position", "time", "stream", "data", "cost", "lines", "size")

    def __init__(self, position, when, stream, data):
        self.position, self.time, self.stream, self.data = position, when, stream, data
        self.size, self.lines = len(data), max(1, data.count(b"\n"))
        self.cost = self.size + LINE_COST * self.lines

    def split(self, end):
        """The block of its first bytes, which it gives up."""
        first = _Block(self.position, self.time, self.stream, self.data[:end])
        self.__init__(self.position + end, self.time, self.stream, self.data[end:])
        return first

    def rows(self):
        """The lines as rows of the log: (position, time, stream, text)."""
        position = self.position
        for line in self.data[:-1 if self.data.endswith(b"\n") else None].split(b"\n"):
            start = 0
            while len(line) - start > MAX_LOG_LINE:
                end = _piece_end(line, start)
                yield position + start, self.time, self.stream, visible(line[start:end])
                start = end
            yield position + start, self.time, self.stream, visible(line[start:])
            position += len(line) + 1


class Capture:
    """The output of one task: its first and its last half of `limit` bytes, and a count between.

    The output thread feeds it; `store(rows, omitted, on_stored)` writes rows down and calls
    `on_stored()` when that is done. Memory stays within the limit whatever comes.
    """

    def __init__(self, limit, store, clock, is_captured=False, secrets=()):
        self._half = max(1, limit // 2)
        self._store, self._clock = store, clock
        self._secrets = [secret.encode() for secret in secrets]     # the longest first
        # the beginning of standard output
        self.captured = bytearray() if is_captured else None
        self._lock = threading.Lock()
        self._carry = {}                    # stream -> bytes of a line that has no end yet
        self._last_error = b""              # the newest whole line of standard error
        self._position = 0
        self._head_left = self._half
        self._head_end = None               # where the head ends, once it is full
        self._waiting = []                  # blocks of the head not yet written down
        self._tail = collections.deque()
        self._tail_cost = 0
        self._bytes_after = self._lines_after = 0       # that came after the head
        self._has_left_out = False          # since the last rows were taken
        self._is_storing = False
        self._store_at = 0.0                # not before, on the clock that never steps

    def feed(self, stream, data):
        """Takes what a task printed; no data means the end of the stream."""
        with self._lock:
            if stream == OUT and self.captured is not None and \
                    len(self.captured) <= MAX_VALUE:
                self.captured += data
            carry = self._carry.pop(stream, b"")
            whole = carry + data if carry else data
            whole = mask_all(whole, self._secrets)      # lines are whole here, so are secrets
            cut = whole.rfind(b"\n") + 1 if data else len(whole)
            self._add(stream, whole[:cut])
            overlap = len(self._secrets[0]) if self._secrets else 0    # may be the half of one
            while len(whole) - cut - overlap > MAX_LOG_LINE:
                start, cut = cut, _piece_end(whole, cut)
                self._add(stream, whole[start:cut])
            if cut < len(whole):
                self._carry[stream] = whole[cut:]

    def _add(self, stream, data):
        """Takes whole lines in: to be written, as long as the first half of the limit lasts, then
        into the tail, of which the oldest are left out."""
        if not data:
            return
        if stream == ERR:
            self._last_error = data.rstrip().rpartition(b"\n")[2] or self._last_error
        block = _Block(self._position, to_text(self._clock.now()), stream, data)
        self._position += len(data) + (not data.endswith(b"\n"))
        if block.cost <= self._head_left:
            self._head_left -= block.cost
            self._waiting.append(block)
            return
        if self._head_end is None:
            self._fill_head(block)
        self._tail.append(block)
        self._bytes_after += block.size
        self._lines_after += block.lines
        self._tail_cost += block.cost
        while self._tail_cost > self._half:
            self._leave_out()

    @property
    def last_error(self):
        """The last line of standard error that is not blank, without secrets, as text."""
        with self._lock:
            return cut_error(visible(self._carry.get(ERR, b"").strip() or self._last_error))

    def _fill_head(self, block):
        """The block in which the head becomes full gives it the lines that still fit."""
        end = block.data.rfind(b"\n", 0, int(self._head_left * block.size / block.cost)) + 1
        if end:
            self._waiting.append(block.split(end))
        self._head_left, self._head_end = 0, block.position

    def _leave_out(self):
        """The tail gives up lines at its beginning, or its first block where no line can be
        kept."""
        block, excess, end = self._tail[0], self._tail_cost - self._half, 0
        if block.data is not None and excess < block.cost:
            end = block.data.find(b"\n", int(excess * block.size / block.cost)) + 1
        self._tail_cost -= block.cost
        if 0 < end < block.size:
            block.split(end)
            self._tail_cost += block.cost
        else:
            self._tail.popleft()
        self._has_left_out = True

    def take(self, is_end=False):
        """Rows to be written down and the range of positions to be left out, or None."""
        if is_end:
            for stream in (OUT, ERR):
                self.feed(stream, b"")
        with self._lock:
            blocks, self._waiting = self._waiting, []
            blocks += [block for block in self._tail if block.data is not None]
            rows = [row for block in blocks for row in block.rows()]
            for block in blocks:
                block.data = None
            omitted = None
            if self._has_left_out:
                self._has_left_out = False
                end = self._tail[0].position if self._tail else self._position
                omitted = self._head_end, end
                rows.append((self._head_end, to_text(self._clock.now()), ERR,
                             "... %d lines (%d bytes) are left out here ..." % (
                                 self._lines_after - sum(block.lines for block in self._tail),
                                 self._bytes_after - sum(block.size for block in self._tail))))
            return rows, omitted

    def flush(self):
        """Hands what is new to the store, unless the last rows are still on their way."""
        now = self._clock.monotonic()
        if self._is_storing or now < self._store_at:
            return
        rows, omitted = self.take()
        if rows or omitted:
            self._is_storing = True
            if omitted:         # what prints without end must not keep the writer busy with it
                self._store_at = now + min(TAIL_S, len(rows) / TAIL_ROWS_S)
            self._store(rows, omitted, self._stored)

    def _stored(self):
        self._is_storing = False


class Output:
    """The one thread that reads the pipes of all tasks, by selectors, and sees them end; and the
    Starters of their processes."""

    def __init__(self):
        self.starters = Starters()
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._new = collections.deque()
        self._captures = set()
        self._is_closing = False
        wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        self._selector.register(open(wake_out, "rb", 0), selectors.EVENT_READ, None)
        self._thread = Worker(self._run, name="output")
        self._thread.start()

    def add(self, process, pipes):
        """Reads pipes {file: stream} of a process into its capture and closes each at its end. Of
        stream None is the descriptor of the process itself, which can be read once it has ended."""
        with self._lock:
            self._new.append((process, pipes))
        self._wake()

    def forget(self, capture):
        """Stores no more of a capture; what its pipes still bring is read and thrown away."""
        with self._lock:
            self._captures.discard(capture)

    def close(self):
        """Ends the threads; pipes that are still open are closed."""
        self.starters.close()
        self._is_closing = True
        self._wake()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if key.data is not None and key.data[1] is None:
                key.data[0].let_go()
            key.fileobj.close()
        self._selector.close()
        os.close(self._wake_in)

    def _wake(self):
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_in, b"w")

    def _run(self):
        """The thread of Output: reads what pipes have, and has it written down every FLUSH_S
        seconds; a fault, as when memory is short, ends it for nobody."""
        flush_at, is_told = 0.0, False
        while not self._is_closing:
            timeout = None if not self._captures else max(0.0, flush_at - time.monotonic())
            try:
                count = 0
                for key, _ in self._selector.select(timeout):
                    if key.data is None:
                        os.read(key.fd, 4096)
                        self._register()
                    elif self._take(key.fileobj, *key.data):
                        count += 1
                if count > NOISY_PIPES:
                    time.sleep(NOISY_S)     # tasks that print without end leave others their turn
                if time.monotonic() >= flush_at:
                    flush_at = time.monotonic() + FLUSH_S
                    self._flush()
            except Exception:
                if not is_told:
                    is_told = True
                    log.exception("output of tasks")
                time.sleep(FLUSH_S)
                self._wake()            # what is new may not be registered yet

    def _register(self):
        """Takes in what is new; what cannot be taken in now stays."""
        while self._new:
            process, pipes = self._new[0]
            while pipes:
                pipe, stream = next(iter(pipes.items()))
                os.set_blocking(pipe.fileno(), False)
                self._selector.register(pipe, selectors.EVENT_READ, (process, stream))
                del pipes[pipe]
            with self._lock:
                if not process.is_over:
                    self._captures.add(process.capture)
                self._new.popleft()

    def _take(self, pipe, process, stream):
        """Reads from a pipe that has something -> whether there was any of it; what has come to its
        end is closed."""
        if stream is None:
            process.exited()
            data = b""
        else:
            try:
                data = os.read(pipe.fileno(), 65536)
            except BlockingIOError:
                return False
            except OSError:
                data = b""
        if data and not process.is_over:
            process.capture.feed(stream, data)
        elif not data:
            self._selector.unregister(pipe)
            pipe.close()
            if stream is not None:
                process.pipe_ended()
        return bool(data)

    def _flush(self):
        with self._lock:            # forget() waits for what is under way
            for capture in self._captures:
                capture.flush()


# ======================================================================================
# processes/tree.py
# The tree of a task's processes: found, and ended as a whole.
# ======================================================================================

SWEEP_S = 0.02          # between two sweeps while something is found
QUIET_S = 0.05          # between two sweeps that find nothing: then it is the end
MINDER_S = 2.0          # how long a minder may take to write the end of its process down


class Tree:
    """All processes that one or more sessions started, found by what they cannot all give away.

    Those are: child of a member, process group or OS session that a member led, the marker in
    the environment. Found members are remembered, so that what leaves is followed. A number may
    become another process's: start time, and below a leader that is gone the owner, or that it is
    the agent's child by now (take_orphans), say whose it is. A minder gets no signal: it ends by
    itself once its process has ended, whose last words it writes down.
    """

    def __init__(self, sessions, roots=None, minders=None, looks=None):
        self._looks = looks or Looks()
        self._sessions = frozenset(sessions)        # `uuid/session`
        self._known = dict(roots or {})             # pid -> start time; a root leads an OS session
        self._minders = dict(minders or {})         # likewise
        self._known.update(self._minders)
        self._alone_since = None                    # monotonic: when nothing but minders was left

    def find(self, signal_number=None):
        """{pid: ProcessEntry} of the members that live now. Each is sent this signal as soon as it
        is found: what forks and ends must not be gone before. OSError."""
        members = self._looks.find(Search(
            self._sessions, dict(self._known), functools.partial(self._send, signal_number)))
        self._known.update((pid, entry.started) for pid, entry in members.items())
        return members

    def _send(self, signal_number, entry):
        if self._minders.get(entry.pid) != entry.started:
            send(entry, signal_number)

    def _list_due(self, living):
        """Of the pids in {pid: start time} those that are to be ended now: a minder not before
        minders alone were left for MINDER_S."""
        others = [pid for pid, started in living.items() if self._minders.get(pid) != started]
        if others or not living:
            self._alone_since = None
            return others
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        return list(living) if now - self._alone_since >= MINDER_S else []

    def end(self, grace_s=TERM_S):
        """SIGTERM, after `grace_s` SIGKILL, until two sweeps QUIET_S apart find nothing -> how many
        live on. What is to be killed is frozen first, until a sweep finds nobody new.

        What lives KILL_S later (in an uninterruptible call of the kernel) cannot be ended.
        """
        if not HAS_PROC:
            return self._end_groups(grace_s)
        begun, empty, sent = time.monotonic(), 0, {}        # pid -> (start time, signal)
        while True:
            passed_s = time.monotonic() - begun
            is_kill = passed_s >= grace_s
            try:
                members = self.find(signal.SIGSTOP if is_kill else None)
            except (OSError, MemoryError):      # it cannot be looked now: nothing is over
                time.sleep(QUIET_S)
                begun = max(begun, time.monotonic() - grace_s)
                continue
            due = self._list_due({pid: entry.started for pid, entry in members.items()})
            sent, before = {pid: (members[pid].started, is_kill) for pid in due}, sent
            new = [pid for pid in due if sent[pid] != before.get(pid)]
            empty = 0 if members else empty + 1
            if empty == 2 or passed_s > grace_s + KILL_S:
                return len(members)
            if is_kill and not new:
                for pid in sorted(due, reverse=True):       # a leader's end may thaw its group
                    send(members[pid], signal.SIGKILL)
            elif not is_kill:
                for pid in sorted(new):         # a shell first: it tells of others
                    send(members[pid], signal.SIGTERM)
            time.sleep(SWEEP_S if members else QUIET_S)

    def _end_groups(self, grace_s):
        """`end` where there is no /proc: the groups that are known by their leaders."""
        begun, terminated = time.monotonic(), set()
        while True:
            passed_s = time.monotonic() - begun
            # the leader is the one that is known, or gone
            groups = {pid: started for pid, started in self._known.items()
                      if start_time(pid) in (None, started) and signal_group(pid, 0)}
            if not groups or passed_s > grace_s + KILL_S:
                return len(groups)
            for pid in self._list_due(groups):
                if passed_s >= grace_s:
                    signal_group(pid, signal.SIGKILL)
                elif pid not in terminated:
                    terminated.add(pid)
                    signal_group(pid, signal.SIGTERM)
            time.sleep(SWEEP_S)


def send(entry, signal_number):
    """Sends a signal (None: none) to a process, if it is still the one of this ProcessEntry."""
    if signal_number is not None:
        with contextlib.suppress(OSError):
            now = read_process(entry.pid)
            if now is not None and now.started == entry.started:
                os.kill(entry.pid, signal_number)


def signal_group(leader, signal_number):
    """Sends a signal to a process group, 0 to ask for it alone -> whether it has a member."""
    try:
        os.killpg(leader, signal_number)
        return True
    except OSError:
        return False


def follow_group(leader, started):
    """What is left of the group that a process of this start time has led -> {pid: start time}, to
    be found again when its number may be another's."""
    if not signal_group(leader, 0):
        return {}
    if not HAS_PROC or start_time(leader) == started:
        return {leader: started}
    return {pid: entry.started for pid, entry in Tree([], {leader: started}).find().items()}


# ======================================================================================
# processes/process.py
# One process of a task, from its start to its exit code.
#
# Where the system has descriptors of processes, the thread `output` sees that one has ended; else
#
# Thread wait PID: waits for the exit of one process of a task; ends with it.
# Thread feed PID: writes one process's standard input, and ends with it.
# These are there before their process is, so that none starts that nobody waits for.
# ======================================================================================

def has_process_descriptors():
    """Whether the system has descriptors of processes, and this Python knows them (3.9, Linux 5.3).
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


HAS_DESCRIPTORS = has_process_descriptors()
IS_UTF8 = sys.getfilesystemencoding() == "utf-8"


class Command(NamedTuple):
    """What a process is started with."""
    words: list                     # program and arguments
    environment: dict
    cwd: Optional[str] = None
    stdin: Optional[str] = None     # text for its standard input
    pass_fds: tuple = ()            # descriptors that it has too
    is_captured: bool = False       # its standard output is for a variable
    file_limit: Optional[int] = None    # on open files, the soft one, where the agent has another

    @property
    def is_near(self):
        """Whether what its start opens hangs only where everything does."""
        return self.cwd is None and self.words[0] in ("/bin/sh", sys.executable)


class Process:
    """A started process: in an OS session of its own, its output going to a capture."""

    def __init__(self, command, capture, output, notify, on_begun=lambda: None):
        """Starts it, here or, where that may hang, in another thread: begun() says what came of
        that. `on_begun()` is called when that thread knows it, `notify()` when it has ended.
        OSError, and nothing of it is left, where there is no thread: `is_passing`."""
        self.pid = self.started = self.rc = None
        self.capture = capture
        self.is_over = False            # what its pipes still bring is thrown away
        self._notify, self._on_begun = notify, on_begun
        self._open_pipes, self._is_read = 2, threading.Event()
        self._popen = self._error = None
        self._lock, self._is_decided = threading.Lock(), threading.Event()
        self._has_begun = self._is_abandoned = False
        self._has_ended = threading.Event()
        try:                            # a process that nobody waits for is worse than none
            if command.stdin is not None:
                self._start_thread("feed", self._feed, command.stdin.encode())
            if not HAS_DESCRIPTORS:
                self._start_thread("wait", self._wait)
            if not command.is_near:
                output.starters.run(lambda: self._begin_elsewhere(command, output))
        except OSError:
            self._is_decided.set()
            raise
        if command.is_near:
            self._begin(command, output)

    @staticmethod
    def _start_thread(name, work, *arguments):
        """OSError: the host gives no further one."""
        thread = Worker(work, name, *arguments)
        try:
            thread.start()
        except RuntimeError:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        return thread

    # -- its start ---------------------------------------------------------------------

    def _begin_elsewhere(self, command, output):
        """For a thread of Starters."""
        self._begin(command, output)
        self._on_begun()

    def _begin(self, command, output):
        """Starts it, and decides so what begun() says. The thread that does so has to live until
        somebody has waited for the exit: what is left behind counts as an orphan (reap_orphans)."""
        try:
            self._begin_unless_abandoned(command, output)
        except BaseException as error:
            self._error = error
        finally:
            self._is_decided.set()

    def _begin_unless_abandoned(self, command, output):
        """OSError, and whatever Popen raises. When it is abandoned meanwhile, it is killed."""
        program = to_bytes(command.words[0]) if command.is_near else open_program(command)
        if command.file_limit is not None and program is not None:
            command = command._replace(words=limited_words(
                command.words, command.environment, command.file_limit))
            program = None
        if self._is_abandoned:
            return
        self._popen = popen = self._start(command, program)
        self.pid = popen.pid
        try:
            self.started = start_time(self.pid) or ""
            streams = {popen.stdout: OUT, popen.stderr: ERR}
            if HAS_DESCRIPTORS:
                streams[open(os.pidfd_open(self.pid), "rb", 0)] = None
            output.add(self, streams)
        except BaseException as error:
            os.killpg(self.pid, signal.SIGKILL)
            popen.wait()
            if isinstance(error, OSError):      # of the agent's own, not of the command
                raise OSError(error.errno, error.strerror) from None
            raise
        with self._lock:
            self._has_begun = True
            if self._is_abandoned:
                signal_group(self.pid, signal.SIGKILL)

    def _name_thread(self, name):
        threading.current_thread().name = "%s %d" % (name, self.pid)

    @staticmethod
    def _start(command, program):
        """A Popen of a Command; `program` is the file that it starts, or None: Popen finds that."""
        environment = command.environment
        if not IS_UTF8:                 # or Popen does it
            environment = {to_bytes(name): to_bytes(text) for name, text in environment.items()}
        return subprocess.Popen(
            [to_bytes(word) for word in command.words], executable=program,
            cwd=command.cwd and to_bytes(command.cwd), env=environment,
            stdin=subprocess.DEVNULL if command.stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            pass_fds=command.pass_fds, bufsize=0)       # Output reads the descriptors

    # -- its threads, and `output` -----------------------------------------------------

    def exited(self):
        """It has ended: its exit code is asked for, and its session told."""
        self.rc = self._popen.wait()
        self._has_ended.set()
        self._notify()

    def let_go(self):
        """`output` ends before it: a thread waits for it, which is left behind."""
        with contextlib.suppress(OSError):
            self._start_thread("wait", self._wait)

    def _wait(self):
        self._is_decided.wait()
        if self._popen is None:
            return
        self._name_thread("wait")
        while not self._has_ended.is_set():
            try:
                self.exited()
            except MemoryError:         # nobody else waits for it
                time.sleep(TRY_S)

    def _feed(self, data):
        self._is_decided.wait()
        if self._popen is None:
            return
        self._name_thread("feed")
        with contextlib.suppress(OSError):      # a process need not read its standard input
            with self._popen.stdin as pipe:
                rest = memoryview(data)
                while rest:             # a pipe may take a part
                    rest = rest[pipe.write(rest):]

    # -- for who has it started --------------------------------------------------------

    @property
    def is_decided(self):
        """Whether it is known if it could start."""
        return self._is_decided.is_set()

    def begun(self):
        """Waits until that is known -> itself. What Popen raises: OSError, ValueError."""
        self._is_decided.wait()
        error, self._error = self._error, None
        if error is None:
            return self
        try:
            raise error
        finally:
            del error                   # leads to all that its thread had

    def abandon(self):
        """Nobody waits for its start any more: it is killed, or not started when it can be ->
        whether that is over, or something hangs."""
        with self._lock:
            self._is_abandoned = True
            if self._has_begun and self.rc is None:
                signal_group(self.pid, signal.SIGKILL)
        return self._is_decided.wait(DRAIN_S)

    def pipe_ended(self):
        """One of its pipes is at its end."""
        self._open_pipes -= 1
        if self._open_pipes == 0:
            self._is_read.set()

    def finish(self, timeout_s=KILL_S):
        """Waits for the exit code and the rest of the output.

        What the process left running keeps its pipes; what it prints later is thrown away.
        """
        self._has_ended.wait(timeout_s)
        self._is_read.wait(DRAIN_S)
        self.is_over = True


def open_program(command):
    """Opens what the start of a Command opens: its folder, program and interpreter of a script ->
    the program's file, or None: the system cannot start that.

    Where they are on a mount that hangs, the caller's thread hangs here. In Popen all threads
    would: its child has the lock of Python until it has its program (vfork)."""
    folder, program = to_bytes(command.cwd or ""), to_bytes(command.words[0])
    os.stat(folder or b".")
    places = [b""] if b"/" in program else to_bytes(
        command.environment.get("PATH", os.defpath)).split(b":")
    for place in places:
        path = place + b"/" + program if place else program
        file = os.path.join(folder, path) if folder else path
        if not os.access(file, os.F_OK):
            continue
        with contextlib.suppress(OSError):
            head = _read_head(file)
            if head.startswith(b"#!"):
                _read_head(os.path.join(folder, (head[2:].split() or [b""])[0]))
            return path if b"/" in path and head.startswith((b"#!", b"\x7fELF")) \
                and os.access(file, os.X_OK) else None
    return None


def _read_head(path):
    """The first line of a file, or what of it a script's may have. OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):     # to open a pipe would wait for its writer
        return b""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 256).split(b"\n")[0]
    finally:
        os.close(descriptor)


def to_bytes(text):
    """Text for the system, whatever the locale of the agent (Python 3.6 takes C's for ASCII)."""
    return text.encode("utf-8", "surrogateescape")


def is_passing(error):
    """Whether a process could not start for want of something that the host gives again: threads,
    processes, memory, descriptors. What is wrong with the command itself names a file."""
    if isinstance(error, MemoryError):
        return True
    return getattr(error, "filename", None) is None and getattr(error, "errno", None) in (
        errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def start_error(error):
    """Why a process cannot start, in the system's words."""
    name, number = getattr(error, "filename", None), getattr(error, "errno", None)
    return "cannot start: %s%s" % (      # strerror of Python 3.6 has the name too
        os.strerror(number) if number else error, ": %s" % os.fsdecode(name) if name else "")


def exit_text(rc):
    """An exit code in words; a negative one is a signal."""
    if rc >= 0:
        return "exit code %d" % rc
    try:
        return "ended by signal %d (%s)" % (-rc, signal.Signals(-rc).name)
    except ValueError:
        return "ended by signal %d" % -rc


# ======================================================================================
# processes/minder.py
# The minder: agent.py in the role that keeps an adoptable task alive beside the agent.
# ======================================================================================

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


# ======================================================================================
# processes/orphans.py
# Processes that have lost their parent: they become this one's children, and are reaped.
#
# Without that they would go to process 1, out of sight; and where this is process 1, in a container,
# what has ended would stay in the process table for ever.
# ======================================================================================

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


# ======================================================================================
# processes/remains.py
# What a task was writing when its process was killed: deleted, by the notes that were taken of it.
#
# Thread remains: deletes what one note tells of, and ends with that; a file system that does not
# answer keeps this thread alone.
# ======================================================================================

def clear_notes(notes, paths):
    """Deletes what these files of the PartNotes tell of; of what takes long the rest follows."""
    for path in paths:
        thread = threading.Thread(target=notes.clear, args=(path,), name="remains", daemon=True)
        thread.start()
        thread.join(KILL_S)
        if thread.is_alive():
            log.warning("what a task left half written is still being deleted, as %s says", path)


# ======================================================================================
# tasks/task.py
# What all task types share: their table, results, texts, and work done in a helper process.
# ======================================================================================

class TaskResult(NamedTuple):
    """How a task ended: status, exit code, rows touched, why, and variables it set."""
    status: str
    rc: Optional[int] = None
    rows: Optional[int] = None
    message: str = ""
    values: dict = {}
    is_false: bool = False          # of an evaluate: the step goes to its on_false


class TaskError(Exception):
    """A task failed for a reason that it can tell."""


def task_type(name):
    """Puts a class into the table of task types.

    A class has `fields` (name -> Field) and `run(fields, execution)` -> TaskResult. The
    execution gives `values` (variables and the agent's own), `environment()`, `mask(text)`,
    the `exit` of its newest process, and what waits and is ended by stop and time-outs:
    `process(command)`, `call(function, interrupt)`, `wait(seconds)`, `wait_child(session)`. One
    whose process may outlive the agent has `resume`, too, which goes on by `adopt()`.
    """
    def register(cls):
        cls.name = name
        TASK_TYPES[name] = cls
        return cls
    return register


def _check_environment(value):
    if not isinstance(value, dict):
        raise ValueError("must be an object of names and text")
    for name, text in value.items():
        if not TEXT.check(name) or "=" in name or not isinstance(text, str):
            raise ValueError("%s: must be a name without = and a text" % shorten(str(name)))
        TEXT.check(text)
    return value


ENVIRONMENT = Kind(_check_environment, _refuse, "an object of names and text")


def needed(meaning):
    """A Field of a text that must be there."""
    return Field(FILLED, required=True, meaning=meaning)


CWD = Field(FILLED, meaning="working folder of the process (the agent's own)")
ENV = Field(ENVIRONMENT, default={}, meaning="further environment variables")
CAPTURE = Field(VARIABLE_NAME, meaning="takes what the process prints on standard output, without "
                "its last line end")


def substitute_all(value, values):
    """substitute in every text of a JSON value."""
    if isinstance(value, str):
        return substitute(value, values)
    if isinstance(value, list):
        return [substitute_all(item, values) for item in value]
    if isinstance(value, dict):
        return {key: substitute_all(item, values) for key, item in value.items()}
    return value


def as_value(data, what):
    """Bytes as the value of a variable. TaskError when it takes no more than their beginning."""
    if len(data) > MAX_VALUE:
        raise TaskError("%s over %d bytes, more than a variable takes" % (what, MAX_VALUE))
    return data.decode("utf-8", "replace").replace("\0", "")


def to_number(kind, text):
    """A text as an int or float. ValueError for what Python alone takes for one."""
    value = kind(text)
    if "_" in text or isinstance(value, float) and not math.isfinite(value):
        raise ValueError                # nan, inf, and 1e999, which would be equal to 1e998
    return value


def as_number(text):
    """A text as a number where it is one, else None."""
    for kind in (int, float):           # whole numbers of any length are exact
        with contextlib.suppress(ValueError):
            return to_number(kind, text)
    return None


def tell_value(value, execution):
    """A value, or a list of them, for a message: without secrets, on one line, cut."""
    if isinstance(value, list):
        return ", ".join(tell_value(item, execution) for item in value)
    text = execution.mask(str(value))       # before it is cut: half a secret is none that is known
    return render_value(text if len(text) <= SHORT else text[:SHORT] + "...") or '""'


def ask_process(execution, make_words, environment, stdin=None, pass_fds=()):
    """Runs a process to its end -> (exit code, what it wrote to the descriptor fd, bytes).
    make_words(fd) are the words that start it. TaskError."""
    with tempfile.TemporaryFile() as result:
        fd = result.fileno()
        rc = execution.process(Command(make_words(fd), environment, stdin=stdin,
                                       pass_fds=(fd,) + pass_fds))
        result.seek(0)
        return rc, result.read()


class HelperTask:
    """A task whose work is done by agent.py in another role, in a process that can be ended.

    `prepare(fields, execution)` gives what the helper needs as JSON; `work(order)`, in the
    helper, does it, prints what the log is to have, and returns the fields of a TaskResult.
    Where that is all there is to a task type, helper_task makes it of the function.
    """

    def run(self, fields, execution):
        """Has the work done by the helper -> TaskResult."""
        order = dict(self.prepare(fields, execution), type=self.name)
        return TaskResult(**self._outcome(order, execution))

    def _outcome(self, order, execution):
        """Hands over to the helper -> the fields of its result."""
        with execution.noting_parts() as note:
            _, data = ask_process(
                execution, lambda fd: program_command("-u", "-s") + ["--task", str(fd)],
                utf8_environment(execution.environment()), json.dumps(dict(order, note=note)),
                (note, open_code()))
        if not data:
            raise TaskError("its helper process ended early: %s" % execution.exit.text)
        return json.loads(data.decode())

    def prepare(self, fields, execution):
        """All texts with their references replaced."""
        return substitute_all(fields, execution.values)


def helper_task(name, fields):
    """Puts a function work(order) into the table of task types, as a HelperTask."""
    def register(work):
        task_type(name)(type(name, (HelperTask,), {"fields": fields, "work": staticmethod(work)}))
        return work
    return register


def run_helper(fd):
    """agent.py in the role of a helper: does one task, whose result goes to a file -> exit code."""
    order = json.loads(sys.stdin.read())
    try:
        result = TASK_TYPES[order["type"]].work(order)
    except TaskError as error:
        result = {"status": ERROR, "message": str(error)}
    except Exception as error:          # what the task met: a line, no traceback
        name = "" if isinstance(error, OSError) else type(error).__name__ + ": "
        result = {"status": ERROR, "message": one_line("%s%s" % (name, error))}
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(result, file)
    return EXIT_OK


# ======================================================================================
# tasks/answers.py
# What an answer of HTTP holds: past what only announces it, without codings, in a charset.
# ======================================================================================

PIECE = 1 << 16             # bytes that are taken at a time
GZIP_TYPES = ("application/gzip", "application/x-gzip", "application/x-compressed-tar")
GZIP_NAMES = (".gz", ".tgz", ".svgz")
GZIP_MAGIC = b"\x1f"


def final_answers(handler):
    """A handler of urllib whose answers are final: http.client takes one of RFC 9110, 15.2, such
    as 103, for the answer itself."""
    import http.client

    class FinalResponse(http.client.HTTPResponse):
        """The answer that follows those that only announce it."""

        def begin(self):
            super().begin()
            while 100 < self.status < 200 and self.status != 101:
                self.headers = None         # or it would not read on
                super().begin()

    class FinalHandler(handler):
        """Opens connections whose answers are these."""

        def do_open(self, http_class, request, **keywords):
            connection = type("Connection", (http_class,), {"response_class": FinalResponse})
            return super().do_open(connection, request, **keywords)
    return FinalHandler


def pieces_of(response):
    """The content of an answer as it comes, some of it at a time."""
    return iter(lambda: response.read(PIECE), b"")


def decoded(response, place, save):
    """The content of an answer, some of it at a time, without its content codings (RFC 9110, 8.4).
    TaskError for one that is not known.

    A .gz that is fetched to be kept stays one: many servers tell as a coding what the file is.
    """
    headers = response.headers
    codings = ", ".join(headers.get_all("Content-Encoding", [])).lower().split(",")
    is_gz = headers.get_content_type() in GZIP_TYPES or (save or "").lower().endswith(GZIP_NAMES)
    pieces = pieces_of(response)
    for coding in reversed([coding.strip() for coding in codings]):
        if coding == "deflate" or coding in ("gzip", "x-gzip") and not is_gz:
            pieces = unpacked(pieces, place)
        elif coding not in ("", "identity", "gzip", "x-gzip"):
            raise TaskError("%s: the answer has the content coding %s, which is not known here"
                            % (place, one_line(coding)[:40]))
    return pieces


def unpacked(pieces, place):
    """What is packed by gzip or deflate, some of it at a time. TaskError."""
    import zlib
    unpacker, is_first = None, True
    try:
        for data in pieces:
            while data:
                if unpacker is None and not (is_first or data[:1] == GZIP_MAGIC):
                    break                   # what stands behind the last member is none
                if unpacker is None:        # some servers leave out the head of deflate
                    has_head = data[:1] == GZIP_MAGIC or data[0] & 15 == 8 and data[0] < 128
                    unpacker, is_first = zlib.decompressobj(47 if has_head else -15), False
                yield unpacker.decompress(data, PIECE)
                data = unpacker.unconsumed_tail
                if unpacker.eof:            # another member may follow
                    data, unpacker = unpacker.unused_data, None
        while unpacker is not None and not unpacker.eof:
            rest = unpacker.decompress(b"", PIECE)
            if not rest:
                raise TaskError("%s: the answer ended early: the end of what is packed is missing"
                                % place)
            yield rest
    except zlib.error as error:
        raise TaskError("%s: the answer cannot be unpacked: %s" % (place, error)) from None


def to_utf8(data, headers):
    """Text in the charset that an answer tells, as UTF-8."""
    charset = headers.get_content_charset() or "utf-8"
    try:
        return data.decode(charset, "replace").encode("utf-8", "replace")
    except LookupError:             # nobody knows it
        return data


# ======================================================================================
# tasks/files.py
# Files copied, moved, deleted and made: copy, move, delete, mkdir.
# ======================================================================================

SPECIAL_KINDS = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
                 (stat.S_ISBLK, "a device"), (stat.S_ISCHR, "a device"))


def find_paths(pattern):
    """What a pattern matches; a plain path that is there is that path, whatever it has of a
    pattern."""
    if os.path.lexists(pattern):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True))


def matching(pattern):
    """find_paths; TaskError when that is nothing."""
    paths = find_paths(pattern)
    if not paths:
        raise TaskError("no file matches %s" % pattern)
    return paths


def pattern_folder(pattern):
    """The folder that names count from: of a plain path that which it is in, of a pattern what
    stands before its first part with * ? or [."""
    if os.path.basename(pattern) == "..":
        return pattern
    parts = pattern.rstrip("/").split("/")[:-1]
    if not os.path.lexists(pattern):
        parts = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    return "/".join(parts) or ("/" if pattern.startswith("/") else ".")


def crosses_link(path, folder):
    """Whether a link below a folder is on the way to a path that was found from there."""
    above = os.path.dirname(path)
    while above not in ("", "/", folder):
        if os.path.islink(above):
            return True
        above = os.path.dirname(above)
    return False


def outermost(paths):
    """Those that are in none of the others: those go with them."""
    outer = []
    for path in sorted(paths, key=lambda path: path.split("/")):
        if not outer or not path.startswith(outer[-1].rstrip("/") + "/"):
            outer.append(path)
    return outer


def special_kind(status):
    """What a thing of this status is when it is neither file, folder nor link; or None."""
    return next((text for is_one, text in SPECIAL_KINDS if is_one(status.st_mode)), None)


def check_source(path, may_be_pipe=False):
    """TaskError for what has no end, or may never begin: a device, a socket, a pipe unless that may
    be. OSError."""
    status = os.stat(path)
    kind = special_kind(status)
    if kind and not (may_be_pipe and stat.S_ISFIFO(status.st_mode)):
        raise TaskError("%s is %s" % (path, kind))


def _open_at_once(path, flags):
    """A descriptor; a pipe that nobody writes does not make it wait."""
    try:
        return os.open(path, flags | os.O_NONBLOCK)
    except BlockingIOError:             # a lease on a file, which Samba takes: never of a pipe
        return os.open(path, flags)


def open_regular(path):
    """The file, for reading; TaskError for what is none, and might never be read to its end."""
    source = open(path, "rb", opener=_open_at_once)
    kind = special_kind(os.fstat(source.fileno()))
    if kind:
        source.close()
        raise TaskError("%s is %s" % (path, kind))
    return source


def is_folder(path):
    """Whether there is a folder, and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def destinations(pattern, to, overwrite, is_move=False):
    """[(from, to)]: into a folder when `to` is one, ends in a slash, or several files match.
    TaskError, before anything is written."""
    paths = matching(pattern)
    is_into = os.path.isdir(to) or to.endswith("/") or len(paths) > 1
    paths = outermost(paths) if is_move else paths
    pairs = [(path, os.path.join(to, os.path.basename(path.rstrip("/"))) if is_into else to)
             for path in paths]
    targets = set()
    for path, target in pairs:
        if target in targets:
            raise TaskError("several files would be written to %s" % target)
        targets.add(target)
        if os.path.lexists(target) and not overwrite:
            raise TaskError("%s exists" % target)
        if os.path.isdir(path) and os.path.realpath(target).startswith(
                os.path.realpath(path).rstrip("/") + "/"):
            raise TaskError("%s would be written into itself" % path)
    pairs = [(path if is_move else follow(path), target) for path, target in pairs]
    for path, target in pairs:
        check_target(path, target)
        if not is_move:
            check_kinds(path)
    if is_into:
        os.makedirs(to, exist_ok=True)
    return pairs


def follow(path):
    """Where a link to a folder leads; any other path as it is."""
    return os.path.realpath(path) if os.path.isdir(path) else path


def check_target(path, target):
    """TaskError when a file would take the place of a folder, or a folder of a file, or
    something of itself."""
    if not os.path.lexists(target):
        return
    with contextlib.suppress(OSError):          # of a link that leads nowhere
        if os.path.samefile(path, target) and not (os.path.islink(path)
                                                   and os.path.islink(target)):
            raise TaskError("%s would be written onto itself" % path)
    if is_folder(path) != is_folder(target):
        raise TaskError("%s is %s folder, and %s is %s" % (
            (path, "a", target, "none") if is_folder(path) else (path, "no", target, "one")))
    if is_folder(path):
        for name in os.listdir(path):
            check_target(os.path.join(path, name), os.path.join(target, name))


def check_kinds(path):
    """TaskError for a pipe, a socket or a device, also below a folder."""
    if is_folder(path):
        for name in os.listdir(path):
            if not os.path.islink(os.path.join(path, name)):
                check_kinds(os.path.join(path, name))
        return
    check_source(path)


def copy_one(path, target, note=None):
    """Copies a file, or a folder with all that is in it, by way of one beside the target. `note`
    as of part_beside."""
    if not is_folder(path):
        with open_regular(path) as source, \
                written_beside(target, access=0o600, note=note) as file:
            copy_content(source, file)
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    with part_beside(target, note) as part:
        copy_tree(path, part)


def copy_content(source, file):
    """What is in an open file, and its mode and times."""
    shutil.copyfileobj(source, file, 1 << 20)
    file.flush()
    # by the descriptor, which stays the file's; BSD and macOS have flags that need a name
    shutil.copystat(source.name, file.name if hasattr(os, "chflags") else file.fileno())


def copy_tree(path, target):
    """A new folder with all that another has; links stay links."""
    os.mkdir(target, 0o700)
    for name in os.listdir(path):
        each, to = os.path.join(path, name), os.path.join(target, name)
        if os.path.islink(each):
            copy_link(each, to)
        elif os.path.isdir(each):
            copy_tree(each, to)
        else:
            with open_regular(each) as source, open(to, "xb") as file:
                copy_content(source, file)
    shutil.copystat(path, target)


def copy_link(path, target):
    """A new link that leads where another does."""
    os.symlink(os.readlink(path), target)
    shutil.copystat(path, target, follow_symlinks=False)


def copy_inner(path, target, note):
    """copy_one for what is in a folder: a link stays one."""
    if not os.path.islink(path):
        copy_one(path, target, note)
        return
    with part_beside(target, note) as part:
        copy_link(path, part)


def move_one(path, target, note=None):
    """Moves a file or folder: at once in one file system, by a copy between two."""
    try:
        os.replace(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_inner(path, target, note)
        remove(path)


def merge(path, target, put, note):
    """Puts what is in a folder into another by put(from, to, note), folder by folder where both
    have one. What the other has alone stays."""
    for name in os.listdir(path):
        each, to = os.path.join(path, name), os.path.join(target, name)
        if is_folder(each) and is_folder(to):
            merge(each, to, put, note)
        else:
            put(each, to, note)
    if put is move_one:
        os.rmdir(path)


def remove(path):
    """Deletes a file, a link, or a folder with all that is in it."""
    if is_folder(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


FROM = needed("a file or folder, or a pattern with * ? [...] or **")
COPY_FIELDS = {
    "from": FROM,
    "to": needed("its new name, or the folder that it is put into"),
    "overwrite": Field(BOOLEAN, default=True, meaning="false: what is there already is an error"),
}


@helper_task("copy", COPY_FIELDS)
@helper_task("move", COPY_FIELDS)
def copy_or_move(order):
    """Copies or moves what a pattern matches."""
    is_move = order["type"] == "move"
    pairs = destinations(order["from"], order["to"], order["overwrite"], is_move)
    for path, target in pairs:
        if is_folder(path) and is_folder(target):
            merge(path, target, move_one if is_move else copy_inner, order["note"])
        else:
            (move_one if is_move else copy_one)(path, target, order["note"])
    return {"status": DONE, "rows": len(pairs)}


@helper_task("delete", {"path": needed("a file or folder, or a pattern with * ? [...] or **")})
def delete(order):
    """Deletes what a pattern matches; nothing to delete is no error."""
    pattern = order["path"]
    # behind a slash a link would be the folder that it leads to
    paths = outermost([path.rstrip("/") or path for path in find_paths(pattern)])
    if "**" in pattern:                 # which follows links
        paths = [path for path in paths if not crosses_link(path, pattern_folder(pattern))]
    for path in paths:
        remove(path)
    return {"status": DONE, "rows": len(paths)}


@helper_task("mkdir", {"path": needed("the folder")})
def make_folders(order):
    """Makes a folder and those above it; one that is there is no error."""
    os.makedirs(order["path"], exist_ok=True)
    return {"status": DONE}


# ======================================================================================
# tasks/archives.py
# Files packed and unpacked: zip and unzip.
# ======================================================================================

LEADS_NOWHERE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
IS_FOLDER = 0x10            # of the attributes that DOS gave files
# The field of Info-ZIP's extended timestamp (their extrafld.txt): its id, 5 bytes, bit 0 says that
# the time of change follows, in seconds since the epoch. The archive's own time is local, of 1980
# to 2107, and has even seconds.
STAMP = struct.Struct("<HHBl")
STAMP_ID = 0x5455
OLDEST = (1980, 1, 1, 0, 0, 0)
WINDOWS = (0, 6, 10, 14)    # create_system: FAT, HPFS, NTFS, VFAT


@helper_task("zip", {"from": FROM, "to": needed("the archive")})
def pack(order):
    """Packs what a pattern matches; names in the archive count from the pattern's folder."""
    folder, skipped = pattern_folder(order["from"]), []
    members = []
    for path in outermost(matching(order["from"])):
        below = Below(os.path.realpath(order["to"]), skipped)
        members += below.list(path, os.path.relpath(path, folder))
    for line in skipped:
        print("left out: " + show_controls(line), file=sys.stderr)
    if all(name.endswith("/") for _, name in members):
        raise TaskError("%s: there is no file to pack" % order["from"])
    with written_beside(order["to"], note=order["note"]) as file, \
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in members:
            _add(archive, path, name)
    return {"status": DONE, "rows": len(members),
            "message": "%d left out" % len(skipped) if skipped else ""}


class Below:
    """What there is to pack at a path: a folder and all below it, or a file. Links are followed.
    `skipped` takes lines about what cannot be packed."""

    def __init__(self, archive, skipped):
        self._archive, self._skipped = archive, skipped

    def list(self, path, name, above=()):
        """[(path, name in the archive)]; that of a folder ends in a slash. `above` is the way
        here, by which a circle of links is known."""
        try:
            status = os.stat(path)
        except OSError as error:
            if not os.path.islink(path) or error.errno not in LEADS_NOWHERE:
                raise
            return self._skip(path, "a link that leads nowhere")
        if not stat.S_ISDIR(status.st_mode):
            kind = special_kind(status)
            if kind:
                return self._skip(path, kind)
            return [] if os.path.realpath(path) == self._archive else [(path, name)]
        place = status.st_dev, status.st_ino
        if place in above:
            return self._skip(path, "a link to a folder that it is in")
        members = [] if os.path.normpath(name) == "." else [(path, name + "/")]
        for each in sorted(os.listdir(path)):
            members += self.list(os.path.join(path, each), os.path.join(name, each),
                                 above + (place,))
        return members

    def _skip(self, path, reason):
        self._skipped.append("%s is %s" % (path, reason))
        return []


def _add(archive, path, name):
    """Adds a file or a folder, with its mode and its time of change."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise TaskError("%s: a name that is not UTF-8 cannot be packed"
                        % show_bytes(name)) from None
    if name.endswith("/"):
        archive.writestr(_make_member(name, os.stat(path)), b"")
        return
    with open_regular(path) as source:
        status = os.fstat(source.fileno())
        member = _make_member(name, status)
        member.file_size, member.compress_type = status.st_size, zipfile.ZIP_DEFLATED
        with archive.open(member, "w") as file:
            shutil.copyfileobj(source, file, 1 << 20)


def _make_member(name, status):
    """The ZipInfo of a file or folder of this status."""
    moment = time.localtime(min(max(status.st_mtime, 0), 1 << 32))[:6]
    path = os.path.normpath(name)
    member = zipfile.ZipInfo(path + "/" if name.endswith("/") else path, max(moment, OLDEST))
    member.external_attr = status.st_mode << 16
    if stat.S_ISDIR(status.st_mode):
        member.external_attr |= IS_FOLDER
    with contextlib.suppress(struct.error):     # beyond 32 bits
        member.extra = STAMP.pack(STAMP_ID, 5, 1, math.floor(status.st_mtime))
    return member


@helper_task("unzip", {
    "from": needed("the archive"), "to": needed("the folder that it is unpacked into"),
    "max_bytes": Field(between(1, 1 << 50), default=1 << 40,
                       meaning="one that would become larger is not unpacked")})
def unpack(order):
    """Unpacks an archive; nothing when a name would leave the folder or it is too large: all names
    and sizes are checked before anything is written, and zipfile takes no more than a size says."""
    with open_regular(order["from"]) as source, zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        names = list_names(members)
        for member, name in zip(members, names):
            _check_member(member, name)
        if sum(member.file_size for member in members) > order["max_bytes"]:
            raise TaskError("%s would unpack to more than max_bytes (%d)"
                            % (order["from"], order["max_bytes"]))
        targets = list_targets(names, order["to"])
        _check_places(names, targets, order["to"])
        fresh = []                      # folders, whose mode and time come last
        for member, name, target in zip(members, names, targets):
            if name.endswith("/"):
                fresh += _make_folder(member, target)
            else:
                _extract(archive, member, target, order["note"])
        for target, member in reversed(fresh):
            _take_status(member, target)
    return {"status": DONE, "rows": len(members)}


def list_names(members):
    """The names of an archive's members, where a backslash of Windows is a slash. Programs there
    may say that they are Unix; but then no name has a slash."""
    is_windows = not any("/" in member.filename for member in members)
    return [member.filename.replace("\\", "/")
            if is_windows or member.create_system in WINDOWS else member.filename
            for member in members]


def _check_member(member, name):
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or parts[0][1:2] == ":":
        raise TaskError("%s would leave the target folder; nothing was unpacked" % shorten(name))
    if member.external_attr >> 28 == 0xA:
        raise TaskError("%s is a symbolic link; nothing was unpacked" % shorten(name))


def list_targets(names, folder):
    """Where members go. TaskError when a link would lead one out of the folder."""
    root, inside, targets = os.path.realpath(folder), set(), []
    for name in names:
        target = os.path.join(folder, *name.split("/"))
        above = os.path.dirname(target)         # of a folder, whose name ends in a slash: itself
        if above not in inside:                 # once for all that is in it: it takes long
            _check_inside(above, root, name)
            inside.add(above)
        if os.path.islink(target):
            _check_inside(target, root, name)
        targets.append(target)
    return targets


def _check_inside(path, root, name):
    real = os.path.realpath(path)
    if real != root and not real.startswith(root.rstrip("/") + "/"):
        raise TaskError("%s would leave the target folder by a link" % shorten(name))


def _check_places(names, targets, folder):
    """TaskError when a file would take the place of a folder, or a folder of a file; also of what
    is there."""
    folders = set()
    for name in names:
        above = os.path.dirname(name)
        while above and above not in folders:
            folders.add(above)
            above = os.path.dirname(above)
    for name, target in zip(names, targets):
        if not name.endswith("/") and (name in folders or is_folder(target)):
            raise TaskError("%s is a file, and there is a folder of this name; nothing was "
                            "unpacked" % shorten(name))
    for name in folders:
        target = os.path.join(folder, name)
        if os.path.lexists(target) and not os.path.isdir(target):
            raise TaskError("%s is a folder, and there is a file of this name; nothing was "
                            "unpacked" % shorten(name))


def _make_folder(member, target):
    """Makes the folder of a member -> [(its path, member)] when it was missing."""
    is_new = not os.path.isdir(target)
    os.makedirs(target, exist_ok=True)
    return [(target, member)] if is_new else []


def _extract(archive, member, target, note):
    """Unpacks a file, with its mode and its time of change."""
    above = os.path.dirname(target) or "."
    if not os.path.isdir(above):
        os.makedirs(above)
    with archive.open(member) as source, written_beside(target, note=note) as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        _take_status(member, file.fileno())


def _take_status(member, target):
    """Gives a file or folder the permission bits and the time that its member has."""
    mode = member.external_attr >> 16
    if mode:                            # else it was made where files have none
        os.chmod(target, mode & 0o777)
    moment = _find_time(member)
    if moment is not None:
        os.utime(target, (moment, moment))


def _find_time(member):
    """When a member was changed, epoch seconds; None when its archive does not say."""
    rest = member.extra
    while len(rest) >= 4:
        kind, size = struct.unpack("<HH", rest[:4])
        if kind == STAMP_ID and 5 <= size and len(rest) >= STAMP.size and rest[4] & 1:
            return STAMP.unpack(rest[:STAMP.size])[3]
        rest = rest[4 + size:]
    with contextlib.suppress(ValueError, OverflowError):
        if 0 not in member.date_time[:3]:
            return time.mktime(member.date_time + (0, 0, -1))
    return None


# ======================================================================================
# tasks/commands.py
# Commands, code and the small types: os, set, sleep, wait_file, python, scenario.
# ======================================================================================

def _check_command(value):
    if isinstance(value, str) and value.strip():
        return TEXT.check(value)
    if isinstance(value, list) and value and value[0] != "":
        return check_items(TEXT.check, value)
    raise ValueError("must be a string for the shell, or a list of program and arguments")


def _check_umask(value):
    if not isinstance(value, str) or not re.fullmatch("[0-7]{3,4}", value):
        raise ValueError('must be octal digits in quotes, such as "027"')
    return value


_INTERPRETER = re.compile(r"(^|/)(\w*sh|python[0-9.]*|perl|ruby|node)$")
_PROGRAM_FLAG = re.compile("-[A-Za-z]*[ce]")       # the next argument is a program: -c, -lc, -e


@task_type("os")
class OsTask:
    """A command of the operating system: a string by the shell, a list without one."""

    fields = {
        "command": Field(Kind(_check_command, _refuse, "a text or a list of texts"), required=True,
                         meaning="a text is run by /bin/sh; a list is a program and its arguments, "
                         "without a shell"),
        "cwd": CWD,
        "env": ENV,
        "stdin": Field(TEXT, meaning="what the process reads on standard input (nothing)"),
        "ok_codes": Field(list_of(between(-64, 255)), default=[0],
                          meaning="exit codes that mean DONE"),
        "warning_codes": Field(list_of(between(-64, 255)), default=[],
                               meaning="exit codes that mean WARNING; all others mean ERROR"),
        "capture": CAPTURE,
        "nice": Field(between(-20, 19), meaning="added to the process's niceness"),
        "umask": Field(Kind(_check_umask, _check_umask, 'octal digits, such as "027"'),
                       meaning="umask of the process (the agent's own)"),
    }

    @staticmethod
    def warn(fields):
        """[(field, reason)] of what is allowed but looks wrong: a value that becomes a program."""
        command = fields.get("command")
        for index, word in enumerate(command[2:] if isinstance(command, list) else (), 2):
            if (_INTERPRETER.search(command[index - 2])
                    and _PROGRAM_FLAG.fullmatch(command[index - 1])
                    and any(match.group(1) for match in _REFERENCE.finditer(word))):
                yield "command[%d]" % index, (
                    "a value would become a part of this program: give it as an argument behind "
                    "it, or read it from the environment")

    def run(self, fields, execution):
        """Runs the command; its exit code decides."""
        return self._process(fields, execution, self._words(fields, execution.values))

    def resume(self, fields, execution):
        """Goes on with the process that a lost agent has started."""
        return self._result(fields, execution.adopt(), execution)

    @staticmethod
    def _words(fields, values):
        command = fields["command"]
        words = ["/bin/sh", "-c", shell_command(command)] if isinstance(command, str) else \
            substitute_all(command, values)
        if fields["nice"] is None and fields["umask"] is None:
            return words
        umask = "" if fields["umask"] is None else "umask %s; " % fields["umask"]
        nice = "" if fields["nice"] is None else "nice -n %d " % fields["nice"]
        return ["/bin/sh", "-c", '%sexec %s"$@"' % (umask, nice), "sh"] + words

    def _process(self, fields, execution, words, pass_fds=()):
        surroundings = substitute_all(
            {name: fields.get(name) for name in ("env", "cwd", "stdin")}, execution.values)
        rc = execution.process(Command(
            words, dict(self._surround(execution.environment()), **surroundings["env"]),
            surroundings["cwd"], surroundings["stdin"], pass_fds,
            is_captured=fields["capture"] is not None), is_adoptable=True)
        return self._result(fields, rc, execution)

    @staticmethod
    def _surround(environment):
        """The environment of its processes, but for what `env` says."""
        return environment

    @staticmethod
    def _result(fields, rc, execution):
        """What an exit code, and what was printed, make of the task."""
        values = {}
        if fields["capture"]:
            text = as_value(execution.exit.captured, "%s, but it printed" % exit_text(rc))
            values[fields["capture"]] = text[:-1] if text.endswith("\n") else text
        if rc in fields.get("ok_codes", [0]):
            return TaskResult(DONE, rc, values=values)
        if rc in fields.get("warning_codes", ()):
            return TaskResult(WARNING, rc, message=execution.exit.text, values=values)
        return TaskResult(ERROR, rc, message=execution.exit.text)


@task_type("set")
class SetTask:
    """Gives a variable a value."""

    fields = {
        "variable": Field(VARIABLE_NAME, required=True, meaning="the variable that is set"),
        "value": Field(TEXT, required=True, meaning="its new value"),
    }
    is_instant = True                   # starts nothing: needs no commit of its own before

    def run(self, fields, execution):
        """The value may refer to other variables."""
        value = substitute(fields["value"], execution.values)
        return TaskResult(DONE, values={fields["variable"]: value})


def _check_delay(value):
    """Seconds, or a text with references, which is checked when it is run."""
    is_template = isinstance(value, str) and _REFERENCE.search(value)
    return TEXT.check(value) if is_template else _check_seconds(value)


@task_type("sleep")
class SleepTask:
    """Waits a while."""

    fields = {"seconds": Field(Kind(_check_delay, _refuse, "a duration"), required=True,
                               meaning="how long")}

    def run(self, fields, execution):
        """A number, a duration, or a reference to one."""
        try:
            seconds = _check_seconds(substitute_all(fields["seconds"], execution.values))
        except ValueError as error:
            raise TaskError(str(error)) from None
        execution.wait(seconds)
        return TaskResult(DONE)


def wait_alone(fd, pattern, count, stable_s, is_absent):
    """In a process by itself, since a glob may take for ever: waits until `count` files are there
    that did not change for `stable_s`, or until none is there; writes how many to `fd`. The path
    is in hexadecimal digits, for names are bytes, whatever the locale."""
    import glob
    import os
    import stat
    import time
    pattern, before, since = bytes.fromhex(pattern), None, 0
    count, stable_s, is_absent = int(count), float(stable_s), is_absent == "True"
    while True:
        # a plain path that is there is meant, whatever it has of a pattern
        paths = [pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True)
        states = []
        for path in sorted(paths):
            try:
                status = os.stat(path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                # what changes as long as a file is written, of its full size or not
                states.append((path, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        if not is_absent and len(states) < count:
            before = None
        elif states != before:
            before, since = states, time.monotonic()
        if is_absent and not paths or not is_absent and before and \
                time.monotonic() - since >= stable_s:
            break
        time.sleep(min(0.5, max(0.05, stable_s / 4)))
    with open(int(fd), "wb") as file:
        file.write(b"%d" % len(states))


@task_type("wait_file")
class WaitFileTask:
    """Waits until files are there and have not changed for a while, or until none is there."""

    fields = {
        "path": needed("a file, or a pattern with * ? [...] or **"),
        "count": Field(between(1, 1000000), default=1, meaning="so many files have to be there"),
        "stable_s": Field(SECONDS, default=1, meaning="and their size and time of change must have "
                          "stood still for so long"),
        "absent": Field(BOOLEAN, default=False, meaning="true: wait until none is there"),
    }

    def run(self, fields, execution):
        """Without a time-out it waits for ever."""
        pattern = to_bytes(substitute(fields["path"], execution.values)).hex()
        waited = [str(fields[name]) for name in ("count", "stable_s", "absent")]
        _, data = ask_process(
            execution, lambda fd: alone_command(wait_alone, str(fd), pattern, *waited),
            dict(os.environ))
        if not data:
            raise TaskError("the process that waits ended early: %s" % execution.exit.text)
        return TaskResult(DONE, rows=None if fields["absent"] else int(data.decode()))


# neither the working folder, which `-c` searches first, nor the user's site has modules for it
PYTHON_FLAGS = ["-u", "-s"]
PYTHON_BOOT = ("import sys;sys.path[:1]==['']and sys.path.pop(0);import os;"
               "exec(compile(open(int(sys.argv.pop(1)),encoding='utf-8').read(),'<task>','exec'))")


@task_type("python")
class PythonTask(OsTask):
    """Python code or a file of it, in an interpreter process of its own."""

    fields = {
        "code": Field(FILLED, meaning="the code itself; give either this or file"),
        "file": Field(FILLED, meaning="a file with the code"),
        "args": Field(list_of(TEXT), default=[], meaning="what is in sys.argv behind the program"),
        "cwd": CWD, "env": ENV, "capture": CAPTURE,
    }
    one_of = ("code", "file")
    literal = ("code",)                 # in which nothing is replaced

    def run(self, fields, execution):
        """The exit code decides, as with `os`. The code is read from a file, not an argument."""
        values = execution.values
        reason = find_code_fault(fields["code"] or "")
        if reason:                      # an earlier version took it
            raise TaskError("code: %s" % reason)
        words = [sys.executable] + PYTHON_FLAGS
        args = substitute_all(fields["args"], values)
        if fields["file"]:
            return self._process(
                fields, execution, words + [substitute(fields["file"], values)] + args)
        with tempfile.TemporaryFile() as source:
            source.write(substitute(fields["code"], {}).encode())
            source.seek(0)
            fd = source.fileno()
            return self._process(fields, execution, words + ["-c", PYTHON_BOOT, str(fd)] + args,
                                 (fd,))

    @staticmethod
    def _surround(environment):
        return locale_for_python(environment)


@task_type("scenario")
class ScenarioTask:
    """Starts a session of another scenario, and waits for it unless told otherwise."""

    fields = {
        "name": Field(NAMED, required=True, meaning="the scenario that is started"),
        "version": SCHEDULE_FIELDS["version"],
        "context": Field(NAMED, meaning="context of the new session (that of this one)"),
        "variables": Field(VALUES, default={}, meaning="values for variables of that scenario"),
        "wait": Field(BOOLEAN, default=True, meaning="false: go on without waiting for its end"),
    }

    def run(self, fields, execution):
        """A generator, as wait_child() is. A stop goes down to the child; its end decides."""
        number = execution.start_child(fields["name"], fields["version"], fields["context"],
                                       substitute_all(fields["variables"], execution.values))
        if not fields["wait"]:
            return TaskResult(DONE, message="session %d started" % number)
        status, message = yield from execution.wait_child(number)
        text = "session %d: %s%s" % (number, status, ": " + message if message else "")
        return TaskResult({DONE: DONE, WARNING: WARNING}.get(status, ERROR), message=text)


# ======================================================================================
# tasks/statements.py
# SQL taken apart: its statements and the variables it binds, in time that grows as its length.
# ======================================================================================

# a literal, quoted name, comment or cast is passed over; what is left may be `:name`, `;`, or
# `\:`, `::` for a colon: `::` behind an expression is a cast, `[` there is an index
_SQL_PART = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\[|--[^\n]*|/\*|\$\w*\$|\\:|::"""
                   r"""|:([A-Za-z_][A-Za-z0-9_]*)|;|\?|%""")
_BEHIND = re.compile(r"""[\w)\]"'`]""")      # an expression ends so
_TAG = re.compile(r"(?=(\$\w*\$))")
# of SQLite; it has statements inside, and ends with one that is `end` alone
_TRIGGER = re.compile(r"(explain\s+(query\s+plan\s+)?)?create\s+(temp(orary)?\s+)?trigger\b", re.I)
_OWN_TRANSACTION = re.compile(r"(commit|rollback(?!\s+(?:\w+\s+)?to\b)|start\s+transaction)\b",
                              re.I)
# of SQLite; elsewhere it may be a block of code
_OWN_BLOCK = re.compile(r"(begin|end)\b", re.I)


class SqlPart(NamedTuple):
    """A piece of SQL that is more than its characters, by its place: text[start:end]."""
    start: int
    end: int
    head: str               # all of it, but of a comment or what $ or [ quotes its beginning alone
    name: Optional[str]     # of `:name`
    is_colon: bool          # it stands for one


def list_sql_parts(text, has_brackets=False):
    """Yields the Parts. A comment without an end reaches to the end of the text, other quotes
    without one are none. [a name] is quoted, but behind an expression it is an index and may hold a
    variable; `has_brackets`: of SQLite, which has no index."""
    position, tags, last_bracket = 0, None, text.rfind("]")
    while True:
        match = _SQL_PART.search(text, position)
        if match is None:
            return
        head, start, position = match.group(), match.start(), match.end()
        is_behind = start > 0 and _BEHIND.match(text[start - 1]) is not None
        if head == "/*":
            end = text.find("*/", position)
            position = len(text) if end < 0 else end + 2
        elif head == "[":
            if is_behind and not has_brackets or last_bracket < position:
                continue
            position = text.find("]", position) + 1
        elif head[0] == "$":
            tags = _find_tags(text) if tags is None else tags
            end = bisect.bisect_left(tags[head], position)
            if end == len(tags[head]):      # its last $ may begin another
                position -= 1
                continue
            position = tags[head][end] + len(head)
        yield SqlPart(start, position, head, match.group(1),
                      head == "\\:" or head == "::" and not is_behind)


def _find_tags(text):
    """{`$tag$`: where it stands, in order}: to look for the end of each anew would take long."""
    places = {}
    for match in _TAG.finditer(text):
        places.setdefault(match.group(1), []).append(match.start())
    return places


def list_bound(text):
    """The variables that SQL binds, one for each time that it does."""
    return [part.name for part in list_sql_parts(text) if part.name]


def bare_sql(text):
    """SQL without its comments and what separates statements."""
    pieces, position = [], 0
    for part in list_sql_parts(text):
        if part.head[:2] in ("--", "/*"):
            pieces.append(text[position:part.start])
            position = part.end
    return " ".join(pieces + [text[position:]]).strip("; \t\r\n")


def split_script(text, is_sqlite):
    """Yields the statements of a script that say something. A trigger of SQLite is one, whatever is
    inside."""
    start = before = 0              # where the statement begins, and what stands before a ;
    is_trigger = False
    for part in list_sql_parts(text, is_sqlite):
        if part.head != ";":
            continue
        bare = bare_sql(text[before:part.start])
        if is_sqlite and before == start:
            is_trigger = bool(_TRIGGER.match(bare))
        before = part.end
        if is_trigger and bare.lower() != "end":
            continue
        if bare:
            yield text[start:part.end] if is_sqlite else text[start:part.start].strip()
        start, is_trigger = part.end, False
    if bare_sql(text[start:]):
        yield text[start:] if is_sqlite else text[start:].strip()


def bind(text, values, style):
    """SQL with `:name` and the values -> SQL and parameters of a DB-API parameter style."""
    by_name = {name: values[name] for name in list_bound(text)}
    pieces, order, position = [], [], 0
    for part in list_sql_parts(text):
        piece = text[part.start:part.end]
        if part.is_colon:
            piece = ":"
        elif part.name and style != "named":
            order.append(values[part.name])
            piece = {"qmark": "?", "format": "%s", "numeric": ":%d" % len(order),
                     "pyformat": "%%(%s)s" % part.name}[style]
        elif "format" in style:
            piece = piece.replace("%", "%%")
        pieces += [text[position:part.start], piece]
        position = part.end
    return "".join(pieces + [text[position:]]), by_name if style in ("named", "pyformat") else order


def check_statement(statement, is_sqlite):
    """TaskError for a statement that would begin or end the transaction, which is the task's."""
    text = bare_sql(statement)
    if _OWN_TRANSACTION.match(text) or is_sqlite and _OWN_BLOCK.match(text):
        raise TaskError("%s: the task is one transaction, which the agent begins and ends"
                        % shorten(text))


# ======================================================================================
# tasks/data.py
# Statements on data servers: sql and refresh.
# ======================================================================================

ROWS_AT_ONCE = 500             # rows


class Target(NamedTuple):
    """An open connection to a data server, and what its module wants to know."""
    connection: Any
    style: str              # of parameters
    is_sqlite: bool
    given_up: list          # holds something when nobody waits for it any more
    cursors: list           # the one of the newest statement

    def run(self, text, values):
        """Executes one statement with the values of its :names -> its cursor."""
        cursor = self.connection.cursor()
        self.cursors[:] = [cursor]
        self.patiently(lambda: cursor.execute(*bind(text, values, self.style)))
        return cursor

    def patiently(self, function):
        """function(), again while a lock of SQLite is in its way, for as long as it takes."""
        while True:
            try:
                return function()
            except sqlite3.OperationalError as error:
                if str(error) != "database is locked" or not self.is_sqlite or self.given_up:
                    raise
                time.sleep(0.05)

    def begin(self, how="immediate"):
        """Begins the one transaction of a task, which DB-API has begun already; a `deferred` one is
        for a query, and nobody commits it: what that would change is not kept."""
        if self.is_sqlite:
            self.patiently(lambda: self.connection.execute("begin " + how))

    def commit(self):
        """Ends it."""
        self.patiently(self.connection.commit)

    def close(self):
        """Ends what is not committed. Not the connection's close alone: a statement that failed
        keeps its lock under Python 3.11 until its cursor, which the exception leads to, is gone."""
        for end in [cursor.close for cursor in self.cursors] + [self.connection.rollback]:
            with contextlib.suppress(Exception):    # of a driver that minds: closing follows
                end()
        self.connection.close()

    def interrupt(self):
        """From another thread: ends the statement under way, and the waiting for a lock."""
        self.given_up.append(True)
        with contextlib.suppress(sqlite3.ProgrammingError):     # it is closed by now
            self.connection.interrupt()


@contextlib.contextmanager
def open_target(server):
    """The Target of a data server {driver, database, connect}; what it has not committed when it is
    closed is not kept. TaskError."""
    is_sqlite, arguments = server["driver"] == "sqlite3", server["connect"]
    if is_sqlite:
        arguments = {"database": server["database"], "timeout": 0.2, "isolation_level": None,
                     "check_same_thread": False}
        fault = find_fault_beside(server["database"])
        if fault:
            raise TaskError("data server %s: %s" % (server["name"], fault))
    try:
        module = importlib.import_module(server["driver"])
    except ImportError:
        raise TaskError("data server %s: this host's Python has no module %s"
                        % (server["name"], server["driver"])) from None
    try:
        connection = module.connect(**arguments)
    except sqlite3.Error as error:
        raise TaskError("data server %s: %s: %s"
                        % (server["name"], server["database"], error)) from None
    with contextlib.closing(Target(connection, "named" if is_sqlite else module.paramstyle,
                                   is_sqlite, [], [])) as target:
        yield target


def each_row(target, cursor):
    """Yields the rows of a query, no more than ROWS_AT_ONCE held at a time; of SQLite, which
    has them at hand, one."""
    if target.is_sqlite:
        yield from cursor
        return
    for piece in iter(lambda: list(cursor.fetchmany(ROWS_AT_ONCE)), []):
        yield from piece


BINARY = {bytes, bytearray, memoryview}     # what drivers give for bytes


def refuse_binary(names, rows):
    """TaskError for bytes in rows of these columns, which are no text: Python's b'...' is none."""
    for row in rows:
        for name, value in zip(names, row):
            if type(value) in BINARY:
                raise TaskError("column %s has bytes, which are no text: write hex(...) or "
                                "cast(... as text) in the query" % shorten(name))


def count_rows(target, statement, values):
    """Runs a statement -> how many rows it changed or gave."""
    before = target.connection.total_changes if target.is_sqlite else 0
    cursor = target.run(statement, values)
    rows = sum(1 for _ in each_row(target, cursor)) if cursor.description else 0
    if cursor.description or not target.is_sqlite:
        return rows or max(0, cursor.rowcount)
    if target.connection.total_changes == before:
        # rowcount of Python before 3.7 knows nothing of `with ... insert`, or a comment
        return 0
    return target.connection.execute("select changes()").fetchone()[0]


SCHEMA = Field(NAMED, required=True, meaning="the logical schema")


class DatabaseTask(HelperTask):
    """A task on a data server: SQLite in this process, where a stop interrupts the statement;
    other drivers, and what weighs, in a helper, which is ended. `sql` names the fields that bind
    variables; in the others references are replaced."""

    sql = ()
    is_heavy = False
    names_in = staticmethod(list_bound)

    def _outcome(self, order, execution):
        """Runs `on(target, order)` here or in the helper."""
        if self.is_heavy or order["server"]["driver"] != "sqlite3":
            return super()._outcome(order, execution)
        targets = []                        # the one, once it is open: that may block, too

        def work():
            with open_target(order["server"]) as target:
                targets.append(target)
                return self.on(target, order)
        try:
            return execution.call(work, lambda: [target.interrupt() for target in targets])
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise TaskError(str(error)) from None

    def prepare(self, fields, execution):
        """The data server of the session's context, and the values to bind."""
        bound = {name: fields[name] for name in self.sql}
        order = super().prepare(dict(fields, **dict.fromkeys(bound)), execution)
        return dict(order, server=execution.data_server(fields["schema"]), values=execution.values,
                    **bound)

    @classmethod
    def work(cls, order):
        """Does it in the helper, with a connection of its own -> fields of a TaskResult."""
        with open_target(order["server"]) as target:
            return cls.on(target, order)


@task_type("sql")
class SqlTask(DatabaseTask):
    """A statement or a script, in one transaction; `:name` binds variables."""

    fields = {
        "schema": SCHEMA,
        "statement": Field(FILLED, meaning="one statement; give either this or script"),
        "script": Field(FILLED, meaning="several statements, with ; between them"),
    }
    one_of = ("statement", "script")
    sql = ("statement", "script")

    @staticmethod
    def on(target, order):
        """Executes all statements or none -> fields of a TaskResult, with the rows."""
        statements = list(split_script(order["script"], target.is_sqlite)) if order["script"] else \
            [order["statement"]]
        for statement in statements:
            check_statement(statement, target.is_sqlite)
        target.begin()
        rows = sum(count_rows(target, statement, order["values"]) for statement in statements)
        target.commit()
        return {"status": DONE, "rows": rows}


@task_type("refresh")
class RefreshTask(DatabaseTask):
    """Takes a variable's value from a query."""

    fields = {
        "variable": Field(VARIABLE_NAME, required=True, meaning="the variable that is set"),
        "schema": SCHEMA,
        "query": needed("its first column of the first row is the value"),
    }
    sql = ("query",)

    @staticmethod
    def on(target, order):
        """First column of the first row, as text."""
        target.begin("deferred")
        cursor = target.run(order["query"], order["values"])
        row = cursor.fetchone()
        if row is None:
            raise TaskError("the query gives no row")
        value = row[0]
        if not isinstance(value, (str, bytes)):
            value = "" if value is None else str(value)
        if len(value) > MAX_VALUE:          # before anything is made of it
            raise TaskError("%s: the value has over %d bytes, more than a variable takes"
                            % (order["variable"], MAX_VALUE))
        refuse_binary([cursor.description[0][0]], [row[:1]])
        value = str(value).replace("\0", "")
        return {"status": DONE, "rows": 1, "values": {order["variable"]: value}}


# ======================================================================================
# tasks/csvfiles.py
# CSV files into tables and out of queries: load_csv and unload_csv.
# ======================================================================================

def quote_name_alone(name):
    """An SQL name of a column, dots and all."""
    return '"%s"' % name.replace('"', '""')


def quote_name(name):
    """An SQL name that may hold anything, `schema.table` being two."""
    return ".".join(map(quote_name_alone, name.split(".")))


def placeholders(target, count):
    """The parameters of an insert, whose values come as a sequence."""
    if target.style in ("numeric", "named") and not target.is_sqlite:
        return ", ".join(":%d" % (index + 1) for index in range(count))
    return ", ".join(["%s" if target.style in ("format", "pyformat") else "?"] * count)


def is_storable(number):
    """Whether a whole number is one that a database takes."""
    return -1 << 63 <= number < 1 << 63


def to_integer(text):
    """A whole number that a database takes. ValueError."""
    value = to_number(int, text)
    if not is_storable(value):
        raise ValueError
    return value


CSV_TYPES = {"integer": to_integer, "real": functools.partial(to_number, float), "text": str}


def _check_delimiter(value):
    return value if isinstance(value, str) and len(value) == 1 else _refuse("must be one character")


def _check_encoding(value):
    try:
        return codecs.lookup(TEXT.check(value)).name
    except LookupError:
        raise ValueError("must be an encoding that Python knows, such as utf-8") from None


def _check_types(value):
    if not isinstance(value, dict) or any(kind not in CSV_TYPES for kind in value.values()):
        raise ValueError("must be an object of columns and integer, real or text")
    return value


# what the first bytes of a file tell of its encoding, the longest first
_MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
          (codecs.BOM_UTF8, "utf-8"))
_LINE_END = re.compile("\r\n|[\r\n]")
_SEPARATOR = re.compile(r"sep=(.)\r?\n?")      # a first line of Excel's: the delimiter, and no data


def guess_encoding(path):
    """Words on the encoding that a file's first bytes look like, or nothing. OSError."""
    if not os.path.isfile(path):        # a pipe gives its bytes but once
        return ""
    with open(path, "rb") as file:
        begin = file.read(4)
    for mark, name in _MARKS:
        if begin.startswith(mark):
            return "; the file looks like %s" % name
    zeros = [byte == 0 for byte in begin]
    name = {(False, True, False, True): "utf-16-le",
            (True, False, True, False): "utf-16-be"}.get(tuple(zeros))
    return "; the file looks like %s" % name if name else ""


def check_encoding(path, encoding):
    """TaskError where bytes that text never begins with say that a file is not in this encoding."""
    guess = guess_encoding(path) if encoding in ("utf-8", "ascii") else ""
    if "utf-16" in guess or "utf-32" in guess:
        raise TaskError("%s is no %s%s" % (path, encoding, guess))


DELIMITER = Field(Kind(_check_delimiter, _refuse, "one character"), default=",",
                  meaning="what stands between two columns")
ENCODING = Field(Kind(_check_encoding, _refuse, "a name that Python knows"), default="utf-8",
                 meaning="encoding of the file")


class BadRows:
    """Bad rows of a CSV file: counted, and kept in an error table when there is one."""

    def __init__(self, target, table, most):
        self.count, self._first = 0, ""
        self._target, self._table, self._most = target, table, most
        if table:
            target.connection.cursor().execute(
                "create table if not exists %s (line integer, reason text, text text)"
                % quote_name(table))

    def tell(self, good, path):
        """How many there were beside the good ones, and what was wrong with the first; or
        nothing."""
        if not self.count:
            return ""
        return "%d bad %s of %d in %s, first %s" % (
            self.count, "row" if self.count == 1 else "rows", good + self.count, path, self._first)

    def add(self, line, reason, row):
        """TaskError when there are more than may be."""
        self.count += 1
        self._first = self._first or "line %d: %s" % (line, reason)
        text = show_bytes(",".join(row))
        print("line %d: %s: %s" % (line, reason, show_controls(text[:200])), file=sys.stderr)
        if self.count > self._most:
            raise TaskError("line %d: %s (bad row %d, at most %d are allowed); nothing was loaded"
                            % (line, reason, self.count, self._most))
        if self._table:
            self._target.connection.cursor().execute(
                "insert into %s values (%s)" % (quote_name(self._table),
                                                placeholders(self._target, 3)),
                (line, reason, text))


@task_type("load_csv")
class LoadCsvTask(DatabaseTask):
    """Loads a CSV file into a table, all or nothing, in constant memory."""

    is_heavy = True
    fields = {
        "file": needed("the file"), "schema": SCHEMA, "table": needed("the table"),
        "mode": Field(choice("append", "replace", "create"), default="append",
                      meaning="append adds to the table; replace empties it first; create makes it "
                      "when it is not there, then adds"),
        "header": Field(BOOLEAN, default=True,
                        meaning="whether the first line has the names of the columns"),
        "columns": Field(list_of(FILLED), meaning="names of the columns (those of the header)"),
        "types": Field(Kind(_check_types, _refuse, "an object: column to integer, real or text"),
                       default={}, meaning="types of columns (text)"),
        "delimiter": DELIMITER, "encoding": ENCODING,
        "max_errors": Field(between(0, 10 ** 9), default=0,
                            meaning="so many bad rows are passed over; one more fails the task"),
        "error_table": Field(FILLED, meaning="a table that takes the bad rows: line, reason, text"),
    }

    @staticmethod
    def judge(fields):
        """[(field, reason)] of what is wrong between its fields."""
        if fields["header"] is False and fields["columns"] is None:
            yield "columns", "missing, and there is no header"
        columns = set(fields["columns"] or ())
        for name in fields["types"] or ():
            if columns and name not in columns:
                yield "types", "%s is none of the columns" % name

    @classmethod
    def on(cls, target, order):
        """Reads, checks and inserts in pieces, one transaction. A table without a schema of its own
        is in the physical schema."""
        schema, table = order["server"]["physical_schema"], order["table"]
        order["table"] = "%s.%s" % (schema, table) if schema and "." not in table else table
        check_source(order["file"], may_be_pipe=True)
        check_encoding(order["file"], order["encoding"])
        with open(order["file"], newline="", errors="surrogateescape",      # a BOM is no text
                  encoding=("utf-8-sig" if order["encoding"] == "utf-8"
                            else order["encoding"])) as file:
            try:
                return cls._load(file, target, order)
            except UnicodeError as error:       # where surrogateescape has no answer
                raise TaskError("%s is no %s (%s)%s" % (order["file"], order["encoding"], error,
                                                        guess_encoding(order["file"]))) from None

    @classmethod
    def _load(cls, file, target, order):
        """From an open file into the table -> fields of a result. TaskError, UnicodeError."""
        target.begin()
        rows, bad = CsvRows(file, order), BadRows(target, order["error_table"], order["max_errors"])
        names = cls._columns(rows, order, target)
        insert = "insert into %s (%s) values (%s)" % (
            quote_name(order["table"]), ", ".join(quote_name_alone(name) for name in names),
            placeholders(target, len(names)))
        cursor, count = target.connection.cursor(), 0
        for piece in rows.fitting(names, order["types"], bad):
            cursor.executemany(insert, piece)
            count += len(piece)
        target.commit()
        return {"status": WARNING if bad.count else DONE, "rows": count,
                "message": bad.tell(count, order["file"])}

    @staticmethod
    def _columns(rows, order, target):
        """The names of the columns; the table is made or emptied."""
        header = rows.read_header() if order["header"] else None
        names = order["columns"] or header
        check_names(names, target.is_sqlite, "`columns`" if order["columns"] else "the header")
        unknown = sorted(set(order["types"]) - set(names))
        if unknown:
            raise TaskError("types: %s has no column %s" % (order["file"], unknown[0]))
        cursor = target.connection.cursor()
        if order["mode"] == "create":
            cursor.execute("create table if not exists %s (%s)" % (
                quote_name(order["table"]), ", ".join("%s %s" % (
                    quote_name_alone(name), order["types"].get(name, "text")) for name in names)))
        if order["mode"] == "replace":
            cursor.execute("delete from %s" % quote_name(order["table"]))
        return names


class CsvRows:
    """The rows of a CSV file as RFC 4180 has them, and the lines where they stand."""

    def __init__(self, file, order):
        self._path, self._encoding = order["file"], order["encoding"]
        first, self._before = file.readline(), 0    # lines that the reader does not see
        delimiter, separator = order["delimiter"], _SEPARATOR.fullmatch(first)
        if separator:
            delimiter, self._before, first = separator.group(1), 1, file.readline()
        self._reader = csv.reader(itertools.chain([first] if first else [], file),
                                  delimiter=delimiter, strict=True)

    def _tell(self, error):
        """Why what begins at a line is no row."""
        if "unexpected end of data" not in str(error):
            return str(error)
        return "a quote is not closed: all from here to line %d is one row" % (
            self._reader.line_num + self._before)

    def read_header(self):
        """The fields of the first row. TaskError."""
        try:
            header = next(self._reader, None)
        except csv.Error as error:
            raise TaskError("line %d: %s" % (1 + self._before, self._tell(error))) from None
        if header is None:
            raise TaskError("%s is empty, it has no header" % self._path)
        if any("\udc80" <= char <= "\udcff" for char in "".join(header)):
            raise TaskError("line %d: the header has bytes that %s does not have%s" % (
                1 + self._before, self._encoding, guess_encoding(self._path)))
        return header

    def fitting(self, names, types, bad):
        """Yields lists of the rows that fit; the others go to `bad`."""
        reader, error = self._reader, None
        converters = [(index, CSV_TYPES[types[name]], types[name])
                      for index, name in enumerate(names) if types.get(name, "text") != "text"]
        rows = [None]
        while rows or error:
            rows, error, line = [], None, reader.line_num + self._before
            try:
                rows.extend(itertools.islice(reader, ROWS_AT_ONCE))     # up to a bad one
            except csv.Error as caught:
                error = caught
            values = convert_all(rows, converters, len(names))
            if values is None:
                values = list(self._sort_out(rows, line, converters, names, bad))
            if error:
                bad.add(line + sum(map(count_lines, rows)) + 1, self._tell(error), [])
            if values:
                yield values

    @staticmethod
    def _sort_out(rows, line, converters, names, bad):
        """Yields the rows that fit, of those behind a line; the others go to `bad`."""
        for row in rows:
            line += count_lines(row)
            values = row[:]
            reason = convert(values, converters, names)
            if not reason:
                yield values
            elif row:                   # a blank line is none
                bad.add(line, reason, row)


def count_lines(row):
    """How many lines of a file a row takes."""
    return 1 + len(_LINE_END.findall("\0".join(row)))


def convert_all(rows, converters, count):
    """The rows with their numbers, a column at a time, or None: not all of them fit."""
    if not rows:
        return rows
    texts = "".join(itertools.chain.from_iterable(rows))
    if set(map(len, rows)) - {count} or "\0" in texts:
        return None
    columns = list(zip(*rows))
    try:
        texts.encode()
        for index, _, name in converters:
            columns[index] = convert_column(columns[index], name)
    except ValueError:
        return None
    return list(zip(*columns)) if converters else rows


def convert_column(texts, name):
    """The texts of a column as integer or real, None for nothing at all. ValueError: not all are
    such, or it takes a closer look."""
    kind = int if name == "integer" else float
    values = [kind(text) if text else None for text in texts] if "" in texts \
        else list(map(kind, texts))
    numbers = [value for value in values if value is not None] or [0]
    if "_" in "".join(texts) or not (
            is_storable(min(numbers)) and is_storable(max(numbers)) if kind is int
            else math.isfinite(sum(numbers))):
        raise ValueError
    return values


def check_names(names, is_sqlite, what):
    """TaskError for names of columns that a table cannot have. SQLite takes `a` and `A` for one."""
    places, hint = {}, "" if what == "`columns`" else ": give other names in `columns`"
    for place, name in enumerate(names, 1):
        if not name:
            raise TaskError("column %d of %s has no name%s" % (place, what, hint))
        before = places.setdefault(name.lower() if is_sqlite else name, place)
        if before != place:
            raise TaskError("columns %d and %d of %s have the same name, %s%s" % (
                before, place, what, shorten(name), hint))


def convert(row, converters, names):
    """Makes numbers of a row's columns -> why that fails, or nothing. Nothing at all is null."""
    if len(row) != len(names):
        return "%d columns, not %d" % (len(row), len(names))
    text = "".join(row)
    if "\0" in text:                # csv refuses it itself before Python 3.11
        return "line contains NUL"
    try:
        text.encode()
        for index, kind, wording in converters:
            row[index] = kind(row[index]) if row[index] else None
    except UnicodeEncodeError:
        return "bytes that the encoding does not have"
    except ValueError:
        return "%s: %s is no %s" % (names[index], shorten(row[index]), wording)
    return None


LINE_ENDS = {"crlf": "\r\n", "lf": "\n"}


@task_type("unload_csv")
class UnloadCsvTask(DatabaseTask):
    """Writes the rows of a query to a CSV file."""

    is_heavy = True
    fields = {
        "schema": SCHEMA, "query": needed("what to write"), "file": needed("the file"),
        "header": Field(BOOLEAN, default=True,
                        meaning="whether to write a first line with the names of the columns"),
        "delimiter": DELIMITER, "encoding": ENCODING,
        "newline": Field(choice("crlf", "lf"), default="crlf",
                         meaning="what ends a line: crlf is RFC 4180's, lf suits awk"),
    }
    sql = ("query",)

    @staticmethod
    def on(target, order):
        """Writes the rows of a query to a file, a piece at a time -> fields of a TaskResult."""
        target.begin("deferred")
        cursor, rows = target.run(order["query"], order["values"]), 0
        if cursor.description is None:
            raise TaskError("the query gives no rows")
        with written_beside(order["file"], "w", newline="", encoding=order["encoding"],
                            note=order["note"]) as file:
            writer = csv.writer(file, delimiter=order["delimiter"],
                                lineterminator=LINE_ENDS[order["newline"]])
            names = [column[0] for column in cursor.description]
            if order["header"]:
                writer.writerow(names)
            every = each_row(target, cursor)
            for piece in iter(lambda: list(itertools.islice(every, ROWS_AT_ONCE)), []):
                if not BINARY.isdisjoint(map(type, itertools.chain.from_iterable(piece))):
                    refuse_binary(names, piece)
                writer.writerows(piece)
                rows += len(piece)
        return {"status": DONE, "rows": rows}


# ======================================================================================
# tasks/evaluate.py
# The type evaluate: comparisons, and expressions searched where they can be ended.
#
# An expression of Python may take for ever to be searched, and long to be compiled, and lets nothing
# else of a process run meanwhile. So both are done in a process of their own, at an import too.
# ======================================================================================

OPERATORS = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}
TOO_LONG = "has over %d characters" % MAX_EXPRESSION
TOO_SLOW = "takes over %d s" % SEARCH_S


def search_alone(fd, limit_s):
    """In a process by itself: searches expressions in a text, which it reads as JSON. Writes a line
    of JSON for each to `fd`: whether it is there (null without a text), or what is wrong with it.
    It ends itself when all together take too long."""
    import json
    import re
    import signal
    import sys
    import warnings
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    warnings.simplefilter("ignore")
    expressions, text = json.loads(sys.stdin.buffer.read().decode())
    signal.alarm(int(limit_s))
    with open(int(fd), "wb", 0) as file:
        for expression in expressions:
            try:
                compiled = re.compile(expression)
                result = None if text is None else compiled.search(text) is not None
            except RecursionError:
                result = "is nested too deeply"
            except (re.error, OverflowError, MemoryError, ValueError) as error:
                result = str(error) or "takes too much memory"
            file.write(json.dumps(result).encode() + b"\n")


def _read_results(data, rc):
    """What search_alone wrote, a result for each expression that it came to; how it ended by a
    time-out is one, too."""
    results = [json.loads(line) for line in data.decode().split("\n")[:-1]]
    return results + [TOO_SLOW] if rc == -signal.SIGALRM else results


def find_expression_faults(expressions):
    """{expression: what is wrong with it} of those that cannot be compiled."""
    faults = {text: TOO_LONG for text in expressions if len(text) > MAX_EXPRESSION}
    short = [text for text in expressions if text not in faults]
    try:
        process = subprocess.run(
            alone_command(search_alone, "1", str(SEARCH_S)), stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
            input=json.dumps([short, None]).encode())
        results = _read_results(process.stdout, process.returncode)
        rest = "was not compiled: %s" % exit_text(process.returncode)
    except OSError as error:
        results, rest = [], start_error(error)
    results += [rest] * (len(short) - len(results))
    return dict(faults, **{text: reason for text, reason in zip(short, results) if reason})


def _check_compared(value):
    return check_items(_check_value, value) if isinstance(value, list) else _check_value(value)


@task_type("evaluate")
class EvaluateTask:
    """Compares a variable: false sends the step to its on_false and is no error."""

    fields = {
        "variable": Field(VARIABLE_NAME, required=True, meaning="the variable that is compared"),
        "operator": Field(choice(*(list(OPERATORS) + ["in", "matches"])), required=True,
                          meaning="how it is compared"),
        "value": Field(Kind(_check_compared, _refuse, "text or a number; a list for in"),
                       required=True, meaning="what it is compared with"),
    }

    @staticmethod
    def judge(fields):
        """[(field, reason)] of what is wrong between its fields."""
        if isinstance(fields["value"], list) and fields["operator"] not in ("in", None):
            yield "value", "a list is for the operator in"

    @staticmethod
    def judge_all(tasks):
        """{place in the list: (field, reason)} of fields of tasks whose expression is none."""
        expressions = {place: fields["value"] for place, fields in enumerate(tasks)
                       if fields["operator"] == "matches" and isinstance(fields["value"], str)
                       and not _REFERENCE.search(fields["value"])}
        if not expressions:             # no process
            return {}
        faults = find_expression_faults(list(dict.fromkeys(expressions.values())))
        return {place: ("value", "must be a regular expression: %s" % faults[expression])
                for place, expression in expressions.items() if expression in faults}

    def run(self, fields, execution):
        """Numbers are compared as numbers when both sides are."""
        value, operator = execution.values[fields["variable"]], fields["operator"]
        right = substitute_all(fields["value"], execution.values)
        is_true = self._search(value, right, execution) if operator == "matches" else \
            self._compare(value, operator, right)
        message = "" if is_true else "false: %s %s %s (%s is %s)" % (
            fields["variable"], operator, tell_value(right, execution), fields["variable"],
            tell_value(value, execution))
        return TaskResult(DONE, message=message, is_false=not is_true)

    @staticmethod
    def _search(value, expression, execution):
        """Whether an expression is somewhere in a value. TaskError."""
        if len(expression) > MAX_EXPRESSION:
            raise TaskError("%s is no regular expression: it %s" % (shorten(expression), TOO_LONG))
        rc, data = ask_process(
            execution, lambda fd: alone_command(search_alone, str(fd), str(SEARCH_S)),
            dict(os.environ), json.dumps([[expression], value]))
        for result in _read_results(data, rc):
            if isinstance(result, bool):
                return result
            raise TaskError("%s %s: %s" % (
                shorten(expression),
                "was not searched to the end" if result == TOO_SLOW else "is no regular expression",
                result))
        raise TaskError("the process that searches ended early: %s" % execution.exit.text)

    @staticmethod
    def _compare(value, operator, right):
        if operator == "in":
            items = (right if isinstance(right, list)
                     else [item.strip() for item in right.split(",")])
            return any(EvaluateTask._compare(value, "=", item) for item in items)
        numbers = as_number(value), as_number(right)
        return OPERATORS[operator](*(numbers if None not in numbers else (value, right)))


# ======================================================================================
# tasks/network.py
# What speaks to other hosts: the type http, and what mail shares with it.
# ======================================================================================

SILENCE_S = 60              # the other end may be silent for so long
ANSWER_S = 600              # from the first request to the head of the answer, by all redirects
CONTENT_S = 86400           # for what follows the head
MAX_REDIRECTS = 10

DEFAULT_PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"[\w.-]{1,253}|\[[0-9A-Fa-f:.]+(%\w+)?\]")
BAD_HOST = ("has no valid host and port (a user and password before the host have / ? # @ % "
            "as %2F %3F %23 %40 %25)")
REDIRECTS = (301, 302, 303, 307, 308)
CONTENT_HEADERS = ("content-", "digest", "last-modified", "transfer-encoding")  # begin like this


def import_ssl():
    """The module ssl. TaskError where this host's Python has none."""
    try:
        import ssl
    except ImportError:
        raise TaskError("this host's Python has no TLS (no module ssl)") from None
    return ssl


def tls_context():
    """Verifies the certificate and its name, by the authorities that this host trusts."""
    return import_ssl().create_default_context()


@contextlib.contextmanager
def time_limit(seconds, place):
    """Ends what takes longer, also where every byte is in time. TaskError.

    For a helper: a signal comes to the main thread alone. An outer limit counts on afterwards.
    """
    def ring(*_):
        raise TaskError("%s: took over %s s" % (place, seconds))
    before = signal.signal(signal.SIGALRM, ring)
    outer_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, outer_s)


@contextlib.contextmanager
def failures_at(place):
    """Makes a TaskError that names the place of what the network or the other end did wrong."""
    import http.client
    import urllib.error
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise TaskError("%s: %s" % (place, one_line(reason)[:300])) from None


class Url(NamedTuple):
    """A url of HTTP, taken apart and checked, so that whoever reads it is led to the same place."""
    scheme: str
    host: str                       # lower case; an IPv6 address in brackets
    port: int
    path: str
    query: str
    login: str                      # user:password; empty when there is none

    @property
    def origin(self):
        """What headers, body and login are given for: scheme, host and port."""
        is_default = self.port == DEFAULT_PORTS[self.scheme]
        return "%s://%s%s" % (self.scheme, self.host, "" if is_default else ":%d" % self.port)

    @property
    def address(self):
        """What is asked for: all but the login."""
        return self.origin + self.path + ("?" + self.query if self.query else "")

    @property
    def label(self):
        """For messages: a query may hold a secret as well as a login."""
        return self.origin + self.path


def parse_url(text, base=""):
    """A url, or what one on the page `base` says -> Url. ValueError, which repeats nothing of it:
    a password may stand anywhere."""
    if re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError("has a blank or a control character")
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(base, text))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(BAD_HOST) from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("must begin with http:// or https://")
    host = "[%s]" % host if ":" in host else host
    if not HOST.fullmatch(host):
        raise ValueError(BAD_HOST)
    return Url(parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port,
               parts.path or "/", parts.query,
               urllib.parse.unquote(parts.netloc.rpartition("@")[0]))


class HttpRequest(NamedTuple):
    """One request on the way to the answer."""
    url: Url
    method: str
    headers: dict
    body: Optional[bytes]
    start: Url                      # the url of the definition
    is_home: bool = True            # no other origin than that of `start` was asked so far

    @property
    def place(self):
        """For messages: of a redirect, which is a stranger's text, the origin alone."""
        if self.url == self.start:
            return self.start.label
        return "%s, redirected to %s" % (self.start.label, self.url.origin)


def first_request(order):
    """The request that a definition asks for; a login in its url becomes a header. TaskError."""
    try:
        url = parse_url(order["url"])
    except ValueError as error:
        raise TaskError("the url %s" % error) from None
    headers = {name: _check_header(name, text) for name, text in order["headers"].items()}
    if url.login and "authorization" not in map(str.lower, headers):
        import base64
        login = url.login if ":" in url.login else url.login + ":"
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    body = None if order["body"] is None else order["body"].encode()
    return HttpRequest(url, order["method"].upper(), headers, body, url)


def _check_header(name, text):
    """http.client would refuse it too, and repeat a value that may be secret."""
    if re.search("[\r\n\0]", text) or any(ord(c) > 255 for c in text):
        raise TaskError("the header %s has a line end, or a character that is not Latin-1"
                        % one_line(name))
    return text


def redirected(request, status, location):
    """The request that a redirect asks for (RFC 9110, 15.4). TaskError when it is not followed.

    What the definition gave goes to its own origin alone: once the way has left that, nothing
    is sent but method and url, also where the way leads back.
    """
    url = _redirect_url(request, status, location)
    method, headers, body = request.method, request.headers, request.body
    if status == 303 or status in (301, 302) and method == "POST":
        method = "HEAD" if method == "HEAD" else "GET"
        headers, body = {name: text for name, text in headers.items()
                         if not name.lower().startswith(CONTENT_HEADERS)}, None
    is_home = request.is_home and url.origin == request.url.origin
    if not is_home:
        if body:
            raise TaskError("%s: status %d asks for the body at %s, another origin, where it is "
                            "not sent" % (request.place, status, url.origin))
        headers, body = {}, None
    return HttpRequest(url, method, headers, body, request.start, is_home)


def _redirect_url(request, status, location):
    """The Url of a Location; a login in it is not taken. TaskError."""
    import string
    location = urllib.parse.quote(location.strip(), string.punctuation, "latin-1")
    try:
        return parse_url(location, request.url.address)._replace(login="")
    except ValueError as error:
        raise TaskError("%s: the redirect of status %d is not followed: its url %s"
                        % (request.place, status, error)) from None


@task_type("http")
class HttpTask(HelperTask):
    """A request of HTTP or HTTPS, certificates verified."""

    fields = {
        "url": needed("begins with http:// or https://"),
        "method": Field(FILLED, default="GET", meaning="method of the request"),
        "headers": Field(ENVIRONMENT, default={}, meaning="headers of the request"),
        "body": Field(TEXT, meaning="what is sent (nothing)"),
        "expect": Field(list_of(between(100, 599)), default=[200],
                        meaning="statuses that mean DONE; all others mean ERROR"),
        "save": Field(FILLED, meaning="a file that takes the answer"),
        "capture": Field(VARIABLE_NAME, meaning="takes the answer"),
        "attempts": Field(between(1, 1000), default=1,
                          meaning="how often it is tried, a second apart"),
    }

    @staticmethod
    def judge(fields):
        """[(field, reason)] of what is wrong with a url that begins with no reference."""
        if fields["url"] and not fields["url"].lower().startswith(("http://", "https://", "${")):
            yield "url", "must begin with http:// or https://"

    @classmethod
    def work(cls, order):
        """Asks, in the helper, in attempts a second apart -> fields of a TaskResult. TaskError."""
        first = first_request(order)
        for attempt in range(order["attempts"]):
            if attempt:
                time.sleep(1)
            try:
                return cls._attempt(order, first)
            except TaskError as error:
                reason = error
                print(one_line(error), file=sys.stderr)
        raise reason

    @classmethod
    def _attempt(cls, order, first):
        with time_limit(ANSWER_S, first.place):
            request, response = cls._answer(first, order["expect"])
        with response, failures_at(request.place), time_limit(CONTENT_S, request.place):
            return cls._take(order, request.place, response)

    @classmethod
    def _answer(cls, request, expect):
        """Follows redirects, but those that are expected -> (the last request, its response)."""
        opener, requests = cls._opener(), set()
        while True:
            response = cls._send(opener, request)
            location = response.headers.get("Location")
            if response.status in expect or response.status not in REDIRECTS or not location:
                return request, response
            response.close()
            requests.add((request.method, request.url))
            request = redirected(request, response.status, location)
            if (request.method, request.url) in requests:
                raise TaskError("%s: redirected in a circle" % request.place)
            if len(requests) > MAX_REDIRECTS:
                raise TaskError("%s: over %d redirects" % (request.place, MAX_REDIRECTS))

    @staticmethod
    def _opener():
        """urllib's handlers for HTTP and the proxies of the environment: none that follows a
        redirect, and none for file:, ftp: and data:."""
        import urllib.request
        handlers = [urllib.request.ProxyHandler(), urllib.request.UnknownHandler(),
                    final_answers(urllib.request.HTTPHandler)()]
        if hasattr(urllib.request, "HTTPSHandler"):     # else _send tells that TLS is missing
            handlers.append(final_answers(urllib.request.HTTPSHandler)(context=tls_context()))
        opener = urllib.request.OpenerDirector()
        for handler in handlers:
            opener.add_handler(handler)
        return opener

    @staticmethod
    def _send(opener, request):
        import urllib.request
        if request.url.scheme == "https":
            import_ssl()
        with failures_at(request.place):
            return opener.open(
                urllib.request.Request(request.url.address, request.body, request.headers,
                                       method=request.method), timeout=SILENCE_S)

    @staticmethod
    def _take(order, place, response):
        """What an answer gives: its status as `rc`, its body in a file or a variable, or both ->
        fields of a TaskResult. TaskError."""
        if response.status not in order["expect"]:
            raise TaskError("%s: status %d, expected %s" % (
                place, response.status, ", ".join(str(code) for code in order["expect"])))
        values, body, what = {}, b"", "%s: the answer has" % place
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(written_beside(order["save"], note=order["note"])) \
                if order["save"] else None
            is_read = order["save"] or order["capture"]
            pieces = decoded(response, place, order["save"]) if is_read else pieces_of(response)
            for piece in pieces:
                if file:
                    file.write(piece)
                if order["capture"]:
                    body += piece
                    if len(body) > 4 * MAX_VALUE:        # too long in any charset
                        as_value(body, what)
            if getattr(response, "length", None):       # http.client does not tell
                raise TaskError("%s: the answer ended early, %d bytes are missing"
                                % (place, response.length))
            if order["capture"]:
                values[order["capture"]] = as_value(to_utf8(body, response.headers), what)
        return {"status": DONE, "rc": response.status, "values": values}


# ======================================================================================
# tasks/mail.py
# Mail by SMTP.
# ======================================================================================

MAIL_S = 3600               # for a mail
# what mimetypes tells of how a file is packed
PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz",
          "compress": "application/x-compress"}


@task_type("mail")
class MailTask(HelperTask):
    """A mail by the server that the data server MAIL of the topology names."""

    fields = {
        "to": Field(list_of(FILLED, 1), required=True, meaning="the addresses"),
        "subject": needed("the subject"),
        "body": Field(TEXT, default="", meaning="the text"),
        "attach": Field(list_of(FILLED), default=[], meaning="files that are attached"),
    }

    def prepare(self, fields, execution):
        """The order, with the data server MAIL. TaskError."""
        return dict(super().prepare(fields, execution), server=execution.mail_server())

    @classmethod
    def work(cls, order):
        """Sends the mail, in the helper -> fields of a TaskResult. TaskError."""
        connect = order["server"]["connect"]
        message = cls._message(order, connect)
        host = connect.get("host", "localhost")
        tls = cls._tls(connect, host)
        port = int(connect.get("port") or {"none": 25, "starttls": 587, "ssl": 465}[tls])
        place = "mail by %s:%d" % (host, port)
        with failures_at(place), time_limit(MAIL_S, place):
            with contextlib.closing(cls._connect(host, port, tls)) as smtp:
                cls._login(smtp, connect)
                refused = smtp.send_message(message)
                cls._quit(smtp)
        return {"status": WARNING if refused else DONE,
                "message": "refused: %s" % ", ".join(refused) if refused else ""}

    @staticmethod
    def _tls(connect, host):
        """none, starttls or ssl. TaskError of a definition from before that was checked."""
        tls = connect.get("tls")
        if tls is None:
            return "none" if host in ("localhost", "127.0.0.1", "::1") else "starttls"
        if tls not in MAIL_TLS:
            raise TaskError("data server MAIL: connect.tls: must be %s" % " or ".join(MAIL_TLS))
        return tls

    @staticmethod
    def _connect(host, port, tls):
        """A connection, with the certificate verified before anything else where it is TLS."""
        import smtplib
        context = None if tls == "none" else tls_context()
        if tls == "ssl":
            return smtplib.SMTP_SSL(host, port, timeout=SILENCE_S, context=context)
        smtp = smtplib.SMTP(host, port, timeout=SILENCE_S)
        if tls == "starttls":
            smtp.starttls(context=context)
        return smtp

    @staticmethod
    def _login(smtp, connect):
        user, password = connect.get("user"), connect.get("password", "")
        if not user:
            return
        if any(ord(c) > 127 for c in "%s%s" % (user, password)):    # smtplib would tell which
            raise TaskError("data server MAIL: user and password must be ASCII")
        smtp.login(user, password)

    @staticmethod
    def _quit(smtp):
        """The mail is sent, whatever the server makes of QUIT."""
        with contextlib.suppress(OSError, TaskError), time_limit(SILENCE_S, "QUIT"):
            smtp.quit()

    @staticmethod
    def _message(order, connect):
        """The EmailMessage with its headers, text and files. TaskError, OSError."""
        import email.message
        import email.policy
        import email.utils
        # a header of an attached mail that is not ours to change is not folded anew
        message = email.message.EmailMessage(email.policy.default.clone(refold_source="none"))
        host = os.uname().nodename
        try:
            senders = read_addresses([connect.get("sender") or "agent@" + host])
            message["From"] = senders
            message["To"] = read_addresses(order["to"])
            message["Subject"] = " ".join(order["subject"].split())
            message["Date"] = email.utils.formatdate(localtime=True)
            message["Message-ID"] = email.utils.make_msgid(domain=senders[0].domain or host)
        except (ValueError, IndexError) as error:
            raise TaskError("a header of the mail: %s" % error) from None
        message.set_content(order["body"])
        for path in order["attach"]:
            attach(message, path)
        return message


def read_addresses(texts):
    """Address objects of texts, each of them one address, or several with commas between them;
    one with a comma in its name has no @ there. ValueError."""
    import email.headerregistry
    import email.utils
    addresses = []
    for text in map(str.strip, texts):
        if "\r" in text or "\n" in text:
            raise ValueError("an address has a line end")
        pairs = email.utils.getaddresses([text])
        if "<" in text and not all("@" in address for _, address in pairs):
            name, _, address = text.rpartition("<")
            pairs = [(name.strip().strip('"'), address.strip().rstrip(">"))]
        for name, address in pairs or [("", "")]:
            if not address or any(c in address for c in " \r\n<>"):
                raise ValueError("%r is no address" % text)
            user, domain = address.rsplit("@", 1) if "@" in address else (address, "")
            addresses.append(email.headerregistry.Address(name, user, domain))
    return addresses


def attach(message, path):
    """Adds a file to a mail: another mail as such, which RFC 2046 has unpacked, the rest as
    base64."""
    import email
    import mimetypes
    name = os.path.basename(path)
    kind, packing = mimetypes.guess_type(path)
    with open_regular(path) as file:
        data = file.read()
    if kind == "message/rfc822" and not packing:
        message.add_attachment(email.message_from_bytes(data, policy=message.policy),
                               filename=name)
        return
    if packing:
        kind = PACKED.get(packing)
    if not kind or kind.startswith(("message/", "multipart/")):
        kind = "application/octet-stream"
    group, _, subtype = kind.partition("/")
    message.add_attachment(data, maintype=group, subtype=subtype, filename=name)


# ======================================================================================
# runtime/control.py
# What reaches a session while it runs: a stop, time-outs, that it is left, ends of its processes.
#
# A session's own thread waits in Control.wait() alone, so whatever reaches it takes effect at once.
# Nothing of this is on disk.
#
# Thread call N: one call for session N that may block, such as a statement of SQL or the reading of
# a secret; ends with it. One that cannot be interrupted is left behind.
# ======================================================================================

class Interrupted(Exception):
    """A stop or a time-out ends what is under way.

    `scope` is how far that reaches: "task", "step" or "session"; `status` what it makes of what it
    ends: STOPPED, or ERROR for a time-out; `message` why, and what could not be ended.
    """

    def __init__(self, scope, status, reason):
        super().__init__(reason)
        self.scope, self.status, self.reason, self.message = scope, status, reason, reason


class Left(Exception):
    """A session is left to the next start of the agent: its process goes on without it."""


class Control:
    """A session's stop and time-outs, and the processes that end with them.

    on_change() is called after each stop(), leave() and wake().
    These three may be called from any thread at any moment, also before the session
    begins and after it ended. All else is for the session's own thread.
    """

    def __init__(self, clock, session, on_change=lambda: None, looks=None):
        self.is_leaving = False         # the process that it waits for, or starts next, goes on
        self._clock, self._on_change = clock, on_change
        self._session = session         # `uuid/number`, as the markers of its processes begin
        self._changed = threading.Condition()
        self._mode, self._message = None, ""    # of a stop: None, NORMAL or IMMEDIATE; why
        self._deadlines = []            # [(monotonic, scope, seconds given)], the outermost first
        self._roots = {}                # pid -> start time, of processes whose group lives on
        self._minders = {}              # those of them that are minders
        self._looks = looks             # Looks that all sessions share; without it, its own

    # -- from any thread ---------------------------------------------------------------

    def stop(self, mode, message):
        """Asks for a stop, NORMAL: between two tasks, or IMMEDIATE, which no NORMAL takes back. The
        message is that of the session then."""
        with self._changed:
            if self._mode != IMMEDIATE:
                self._mode, self._message = mode, message
        self.wake()

    def leave(self):
        """A process that can be adopted, the one waited for or the next, goes on by itself."""
        with self._changed:
            self.is_leaving = True
        self.wake()

    def wake(self):
        """Makes wait() look again whether it is over."""
        with self._changed:
            self._changed.notify_all()
        self._on_change()

    # -- stop and time-outs ------------------------------------------------------------

    @property
    def has_stop(self):
        """Whether a stop was asked for, of either mode."""
        return self._mode is not None

    @contextlib.contextmanager
    def deadline(self, seconds, scope):
        """What is done inside may take so many seconds (None: any time); then it is interrupted,
        together with the whole task, step or session that `scope` names."""
        if seconds is None:
            yield
            return
        self._deadlines.append((self._clock.monotonic() + seconds, scope, seconds))
        try:
            yield
        finally:
            self._deadlines.pop()

    def check_stop(self, is_between=False):
        """Raises Interrupted for an immediate stop; between two tasks for a normal one too."""
        if self._mode == IMMEDIATE or self._mode == NORMAL and is_between:
            raise Interrupted("session", STOPPED, self._message)

    def interrupt_if_asked(self, is_between=False):
        """`check_stop`, and Interrupted when a deadline has passed: of several, the outermost."""
        self.check_stop(is_between)
        now = self._clock.monotonic()
        for deadline, scope, seconds in self._deadlines:
            if deadline <= now:
                raise Interrupted(scope, ERROR, "time-out of the %s after %g s" % (scope, seconds))

    @property
    def is_due(self):
        """Whether something immediate ends what is under way."""
        now = self._clock.monotonic()
        return self._mode == IMMEDIATE or any(until <= now for until, _, _ in self._deadlines)

    def find_limit(self, timeout_s=None):
        """Until when it can wait, monotonic seconds: a deadline, or when so many seconds are over;
        None: for ever."""
        times = [until for until, _, _ in self._deadlines]
        if timeout_s is not None:
            times.append(self._clock.monotonic() + timeout_s)
        return min(times) if times else None

    def wait(self, is_over, timeout_s=None, is_between=False):
        """Waits until is_over(), or for so many seconds; Interrupted after all processes are ended.

        is_over() is asked at the start, after wake(), and when the time is up. It goes before a
        stop. Between tasks a normal stop ends the waiting too.
        """
        until = [] if timeout_s is None else [self._clock.monotonic() + timeout_s]
        try:
            with self._changed:
                while not is_over():
                    self.interrupt_if_asked(is_between)
                    now = self._clock.monotonic()
                    if until and now >= until[0]:
                        return
                    limits = until + [deadline for deadline, _, _ in self._deadlines]
                    self._changed.wait(max(0.0, min(limits) - now) if limits else None)
        except Interrupted as interrupt:
            if self._roots:
                self.sweep(interrupt)
            raise

    def call(self, function, interrupt=None, on_no_thread=lambda: None):
        """Runs function() in a thread of its own -> its value. A stop or time-out ends the waiting:
        interrupt() is called until the function has ended; without one, or when that takes too
        long (a mount hangs), the thread is left behind."""
        call = Pending(function)

        def work():
            call.perform()
            self.wake()
        name = "call %s" % self._session.rpartition("/")[2]
        thread = Worker(work, name)
        while not thread.try_start():           # on_no_thread() is called at each try
            on_no_thread()
            self.wait(lambda: False, TRY_S)
            thread = Worker(work, name)
        try:
            self.wait(lambda: call.is_done)
        except Interrupted as error:
            until = self._clock.monotonic() + KILL_S
            while interrupt and not call.is_done and self._clock.monotonic() < until:
                interrupt()
                thread.join(0.05)
            if not call.is_done:
                error.message = "%s; what was under way %s" % (error.message, NOT_ENDED)
            raise
        thread.join(KILL_S)
        return call.result()

    # -- processes ---------------------------------------------------------------------

    def start(self, command, capture, output, is_minder=False):
        """A Process of the session, which has begun. What its begun() raises; Interrupted: where a
        mount hangs the start is left behind."""
        process = Process(command, capture, output, self.wake, self.wake)
        try:
            self.wait(lambda: process.is_decided)
        except Interrupted as error:
            if not process.abandon():
                error.message = "%s; what was under way %s" % (error.message, NOT_ENDED)
            raise
        process.begun()
        self.add_root(process.pid, process.started, is_minder)
        return process

    def add_root(self, pid, started, is_minder=False):
        """A process of the session: it leads a group. `started` is its start time."""
        self._roots[pid] = started
        if is_minder:
            self._minders[pid] = started

    def drop_ended_roots(self):
        """A group stays the session's to end while there is something left of it, and no longer:
        the pid may then become another's."""
        before, self._roots = self._roots, {}
        for pid, started in before.items():
            self._roots.update(follow_group(pid, started))
        self._minders = {pid: started for pid, started in self._minders.items()
                         if pid in self._roots}

    def sweep(self, interrupt):
        """Ends every process of the session, whatever has become of it; the message of what made
        it so says how many cannot be ended."""
        count = Tree([self._session], self._roots, self._minders, self._looks).end()
        if count:
            interrupt.message = "%s; %d of its processes %s" % (interrupt.reason, count, NOT_ENDED)

    def sweep_last(self, interrupt):
        """`sweep` at the session's end; a normal stop spares what tasks that had ended left."""
        if interrupt.status == ERROR or self._mode == IMMEDIATE:
            self.sweep(interrupt)


# ======================================================================================
# runtime/sources.py
# Secrets that are read when they are needed, from the environment or from files.
# ======================================================================================

def read_secret(source):
    """The value that {"env": name} or {"file": path} tells. ValueError. A file may block, where it
    is on a mount that hangs: whoever reads one has to be able to leave it."""
    if "env" in source:
        if source["env"] not in os.environ:
            raise ValueError("the agent's environment has no %s" % source["env"])
        return check_size(os.environ[source["env"]])
    path = source["file"]
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):     # a pipe would make us wait, a device too
            raise ValueError("%s: is no regular file" % path)
        with open(path, "rb") as file:
            data = file.read(MAX_VALUE + 3)             # and line ends
    except OSError as error:
        raise ValueError("%s: %s" % (path, error.strerror)) from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("%s: is not UTF-8" % path) from None
    return check_size(text if len(data) == MAX_VALUE + 3 else text.rstrip("\n"))


def read_secrets(sources, values):
    """[(name, value)] of secret variables {name: source}, of which some came as
    {name: value}. ValueError says which cannot be had, and why."""
    result = []
    for name, source in sources.items():
        if name not in values and not source:
            raise ValueError("secret %s: must be given" % name)
        try:
            value = values[name] if name in values else read_secret(source)
        except ValueError as error:
            raise ValueError("secret %s: %s" % (name, error)) from None
        if len(value) < MIN_SECRET:
            raise ValueError("secret %s: has under %d characters" % (name, MIN_SECRET))
        result.append((name, value))
    return result


def is_blocking(source):
    """Whether reading what a secret is read from can block."""
    return "file" in source


def resolve_server(server):
    """A data server as it was defined -> the same with its secrets read, and a list of them as
    `secrets`. ValueError."""
    connect, secrets = dict(server["connect"]), []
    for key, source in server["connect"].items():
        if isinstance(source, dict):
            try:
                connect[key] = read_secret(source)
            except ValueError as error:
                raise ValueError("data server %s: %s: %s" % (server["name"], key, error)) from None
            secrets.append(connect[key])
    return dict(server, connect=connect, secrets=secrets)


# ======================================================================================
# runtime/execution.py
# One task under way: how it reaches its process, its data servers, and its session's values.
# ======================================================================================

def is_for_now(error):
    """Whether an error says that a file cannot be read or written now, but may be later."""
    return isinstance(error, RepositoryError) and not isinstance(error, RepositoryGone)


class Surroundings(NamedTuple):
    """What sessions need of their agent."""
    clock: Clock
    identity: str                   # text of the agent's Identity
    output: Output
    max_output: int                 # bytes kept of a task's output
    on_end: Callable                # on_end(repository, Ending), once that is on disk
    on_loss: Callable               # on_loss(session number): its end cannot be recorded
    topology: Any                   # the Topology: data_server(schema, context), mail_server()
    children: Any                   # the Children: start(request, repository), bell(session) ...
    on_log: Callable                # on_log(session number): new lines of its log are on disk
    file_limit: Any                 # the FileLimit of the agent
    environment: dict               # of the agent, as it was when it started
    looks: Any                      # the Looks of all sessions


class Waiting(NamedTuple):
    """What a session waits for that needs no thread meanwhile."""
    is_over: Callable               # whether it can go on
    patience_s: Optional[float]     # after so many seconds it looks for itself
    child: int                      # the session whose end it waits for


class Exit(NamedTuple):
    """How a process of a task has ended; nothing of it is known before."""
    rc: Optional[int] = None
    captured: Optional[bytes] = None    # the beginning of its standard output, where that is wanted
    last_error: str = ""            # the last line of its standard error

    @property
    def text(self):
        """In words: its exit code, and what it said last."""
        text = exit_text(self.rc)
        return "%s: %s" % (text, self.last_error) if self.last_error else text


class Execution:
    """What a task type sees of the session that runs it, for one run of a task.

    `values` are the session's variables and the agent's own; `exit` is that of its newest process;
    `mask(text)` puts *** in place of secrets.
    """

    def __init__(self, run, values, control, journal, around, is_adoptable):
        self.values = values
        self.exit, self.mask = Exit(), journal.mask
        self._run, self._control, self._journal, self._around = run, control, journal, around
        self._is_adoptable = is_adoptable       # whether the session's processes outlive the agent
        self._capture = None
        self._is_told = False           # that it waits for what cannot be done now

    def environment(self):
        """The agent's environment and the variables."""
        environment = dict(self._around.environment)
        environment.update((environment_name(name), value) for name, value in self.values.items())
        return environment

    # -- processes ---------------------------------------------------------------------

    def process(self, command, is_adoptable=False):
        """Runs a Command to its end -> exit code; TaskError when it cannot start. `is_adoptable`
        says that the task's type can take it up again by adopt()."""
        command.environment[MARKER] = make_marker(self._journal.repository.db.uuid,
                                                  self._journal.session, self._run)
        if is_adoptable and self._is_adoptable:
            return self._run_minded(command)
        process = self._start(command)
        try:
            self._control.wait(lambda: process.rc is not None)
        finally:
            process.finish()
            self._control.drop_ended_roots()
            self.exit = Exit(process.rc, self._capture.captured, self._capture.last_error)
        return process.rc

    def _start(self, command, is_minder=False):
        """Starts a process and notes it -> Process. TaskError, Interrupted."""
        control, journal, around = self._control, self._journal, self._around
        control.interrupt_if_asked()
        command = command._replace(file_limit=around.file_limit.to_restore)
        self._capture = Capture(around.max_output, functools.partial(journal.add_log, self._run),
                                around.clock, command.is_captured, journal.secrets)
        try:
            process = self._once_it_can(
                lambda: control.start(command, self._capture, around.output, is_minder),
                is_passing)
        except (OSError, ValueError) as error:
            raise TaskError(start_error(error)) from None
        journal.note(journal.repository.progress.note_process, self._run, process.pid,
                     process.started)
        journal.flush_later()
        return process

    def _once_it_can(self, work, can_pass):
        """work(), tried again while what it raises is passing -> its value. What else it raises;
        Interrupted."""
        while True:
            try:
                return work()
            except Exception as error:
                if not can_pass(error):
                    raise
                self._tell(error)
            self._control.wait(lambda: False, TRY_S)

    def _tell(self, error):
        """Says in the log, once, what it waits for."""
        if not self._is_told:
            self._is_told = True
            log.warning("session %d waits: %s", self._journal.session,
                        self._journal.mask(one_line(error)))

    def _run_minded(self, command):
        """As `process`, by way of a minder, so that it outlives the agent."""
        spool = self._once_it_can(lambda: self._journal.make_spool(self._run), is_for_now)
        order = json.dumps([command, self._around.max_output, self._journal.secrets])
        try:
            minder = self._start(command._replace(
                words=program_command("-s") + ["--hold", spool.path], cwd=None, stdin=order,
                pass_fds=command.pass_fds + (open_code(),), is_captured=False), is_minder=True)
        except (TaskError, Interrupted):
            spool.remove()              # nobody writes to it
            raise
        with contextlib.suppress(RepositoryError):
            # the minder does so too, but maybe not before the agent is gone
            spool.note(holder=minder.pid, holder_started=minder.started)
        return self._follow(spool, lambda: minder.rc is None)

    def adopt(self):
        """Goes on with the process of this task that a lost agent has started -> exit code.
        TaskError, Interrupted, Left."""
        spool = self._journal.find_spool(self._run)
        if spool is None:
            self._give_up("what its process wrote is gone")
        try:
            state = self._once_it_can(spool.state, is_for_now)
        except RepositoryGone as error:
            self._give_up("what its process wrote is gone: %s" % error)
        return self._follow(spool, lambda: lives(state["holder"], state["holder_started"]))

    def _follow(self, spool, is_alive):
        """Takes what the minder writes, until the end -> exit code. TaskError, Interrupted, Left.
        What cannot be followed any more is ended."""
        try:
            state = self._take_until_end(spool, is_alive)
        except Interrupted:
            with contextlib.suppress(RepositoryError):
                self._take_new(spool)
            self._journal.spend(spool)
            raise
        except RepositoryGone as error:
            self._give_up("what its process wrote is gone: %s" % error)
        finally:
            self._control.drop_ended_roots()
        self.exit = Exit(state["rc"], state["captured"], cut_error(state["last_error"] or ""))
        self._journal.spend(spool)
        if state["error"]:
            raise TaskError(state["error"])
        return self.exit.rc

    def _give_up(self, reason):
        """Ends what nobody follows any more: no other attempt runs beside it. Interrupted."""
        interrupt = Interrupted("task", ERROR, reason)
        self._control.sweep(interrupt)
        raise interrupt

    def _take_until_end(self, spool, is_alive):
        """Hands on what the minder writes, until it says the end or is gone -> its last state.
        Interrupted; Left, which goes before a stop: also when the time for stopping is over."""
        control, was_alive = self._control, True
        while True:
            try:
                state = self._take_new(spool)
            except RepositoryGone:
                raise
            except RepositoryError as error:
                self._tell(error)
                state = None            # it cannot be read now
            if state is not None and (state["is_over"] or not was_alive):
                break
            if control.is_leaving:
                raise Left()
            was_alive = is_alive()
            if state is None:
                control.wait(lambda: control.is_leaving, TRY_S)
            elif was_alive:
                control.wait(lambda: control.is_leaving or not is_alive(), 0.05)
        if not state["is_over"]:
            self._give_up("the process that held it is gone")
        return state

    def _take_new(self, spool):
        """Hands over what is new in a spool -> its state."""
        state, rows, omitted = spool.read_new()
        for pid, started in noted_processes(state).items():
            self._control.add_root(pid, started, pid == state["holder"])
        if rows or omitted:
            self._journal.note(self._journal.repository.progress.add_log, self._run, rows, omitted)
            self._journal.flush_later()
        return state

    def close(self):
        """Ends the capture -> (rows, omitted): what of the log was not handed over."""
        if self._capture is None:
            return [], None
        self._around.output.forget(self._capture)       # it stores no more by itself
        return self._capture.take(is_end=True)

    @contextlib.contextmanager
    def noting_parts(self):
        """A descriptor for the note of what the task's process writes beside its targets. What it
        has not put in place when this is over, killed maybe, is deleted."""
        notes = self._journal.repository.parts
        path = notes.make(self._journal.session)
        try:
            with open(path, "r+b") as note:
                yield note.fileno()
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.path.getsize(path):
                    clear_notes(notes, [path])
                else:
                    os.unlink(path)

    # -- waiting -----------------------------------------------------------------------

    def call(self, function, interrupt=None):
        """Control.call: function() where the session can be interrupted meanwhile -> its value."""
        return self._control.call(function, interrupt, lambda: self._tell("no thread to give"))

    def wait(self, seconds):
        """Waits; an immediate stop and time-outs end it."""
        self._control.wait(lambda: False, seconds)

    # -- topology and children ---------------------------------------------------------

    def data_server(self, schema):
        """The data server behind a logical schema in the session's context. TaskError."""
        return self._resolved(self._around.topology.data_server(schema, self.values["CONTEXT"]))

    def mail_server(self):
        """The data server MAIL. TaskError."""
        return self._resolved(self._around.topology.mail_server())

    def _resolved(self, server):
        """The same with its secrets, which are shown nowhere from now on."""
        sources = [source for source in server["connect"].values() if isinstance(source, dict)]
        try:
            resolved = self._control.call(functools.partial(resolve_server, server)) \
                if any(map(is_blocking, sources)) else resolve_server(server)
        except ValueError as error:
            raise TaskError(one_line(error)) from None
        for secret in resolved["secrets"]:
            self._journal.hide(secret)
        return resolved

    def start_child(self, name, version, context, variables):
        """Starts a session of another scenario of the repository, or takes up the one that this
        task had when a crash interrupted it -> its number."""
        journal = self._journal
        db, progress = journal.repository.db, journal.repository.progress
        child = db.submit(progress.take_child, journal.session, self._run).result()
        if child is not None:
            return child
        return self._around.children.start(
            SessionRequest(name, "", version, context or self.values["CONTEXT"], variables,
                           name="child of %d" % journal.session, parent=journal.session,
                           parent_run=self._run, hidden=journal.secrets), journal.repository)

    def wait_child(self, session):
        """A generator that waits for the end of a child -> (status, message): it yields a Waiting
        whenever the session is to go on later, without a thread meanwhile. What ends the waiting
        ends the child."""
        children, control = self._around.children, self._control
        with children.bell(session, control.wake) as bell:
            try:
                while True:
                    row = bell.find_end()
                    if row is not None:
                        return row["status"], row["message"]
                    yield Waiting(lambda: bell.has_rung, bell.patience_s, session)
                    control.wait(lambda: bell.has_rung, 0.0)
            except Interrupted as interrupt:
                children.stop(session, "its parent, session %d: %s"
                              % (self._journal.session, interrupt.reason))
                raise


# ======================================================================================
# runtime/course.py
# The course of a session, from its ticket to its end: steps, attempts, tasks.
#
# The thread of a slot calls Session.run(). Down to the task all of it are generators: while a task
# waits for a child, run() is over, and is called again, by any thread, when that has ended.
#
#     its row and definition are read         unreadable: it ends in ERROR, never begun
#       |                                     stopped or purged since it was queued: nothing to do
#     `begun` is noted, or `adopted`          cannot be now: RepositoryError, it stays outstanding
#       |
#     Course.run(): secrets, then the steps, each to where the Outcome of the one before leads
#       |
#       +-- step: its attempts, with a pause between, until one ends well
#       |     +-- attempt: noted as begun; its tasks, one after the other
#       |           +-- task: noted as begun, and all that was noted is committed, with the first
#       |               that the session has begun; then its process starts; its output is handed
#       |               over as it comes; its end and its variables are noted
#       |
#     its end is noted and handed over        the slot is free for the next
#       |
#     it is committed                         the repository is gone: told in the log alone
#       |
#     on_end(): what follows an end           the next attempt of its schedule, those who wait for it
#
# What comes from outside goes up this tree as an exception:
#
#     Interrupted         a stop or a time-out: up to the task, step or session that it names. What
#                         was under way is ended and noted, with the place where a RESTART goes on.
#     Left                SHUTDOWN -LEAVE while a process runs that can be adopted: to the top. The
#                         session stays RUNNING on disk, and the next start adopts it: it goes on
#                         at the task that was under way, whose runs it continues.
#     RepositoryError     nothing can be recorded any more: to the top.
#     any other           a fault of the agent's own: the session ends in ERROR.
#
# What is ordinary comes back as an Outcome, from task to attempt to step to session.
# ======================================================================================

class TaskPlace(NamedTuple):
    """A task of the course: the places of its step and of itself, from 0. The runs are given where
    an adopted session goes on with what a lost agent has begun, that of the task also of a place
    where a RESTART goes on."""
    step: int
    task: int = 0
    step_run: Optional[int] = None
    task_run: Optional[int] = None


class Outcome(NamedTuple):
    """How a task, an attempt, a step or a session ended."""
    status: str                     # DONE, WARNING, ERROR or STOPPED
    message: str = ""               # why, where it is ERROR, STOPPED or false
    place: Optional[TaskPlace] = None   # the task that decided it
    is_false: bool = False          # an evaluate said so: the step goes to its on_false
    warning: str = ""               # of a task that ended in WARNING, whatever came of the rest


class Course:
    """What a session does between its begin and its end."""

    def __init__(self, row, scenario, attempts, control, journal, around):
        self._scenario, self._timeout_s = scenario, row["timeout"]
        self._secret_file, self._has_skipped = row["secret_file"], bool(row["has_skipped"])
        self._control, self._journal, self._around = control, journal, around
        self._progress = journal.repository.progress
        self._values = dict(json.loads(row["variables"]), **own_values(row))
        # by the names of steps: another definition has them in other places
        self._attempts = {step: count for step, (count, _) in attempts.items()}
        # those that ended badly before a RESTART, and were not run again since
        self._bad_steps = dict.fromkeys(step for step, (_, status) in attempts.items()
                                        if status in (WARNING, ERROR))

    def run(self, place):
        """Runs it from a place on -> Outcome. Interrupted, Left, RepositoryError."""
        with self._control.deadline(self._timeout_s, "session"):
            try:
                self._take_secrets()
            except ValueError as error:
                return Outcome(ERROR, str(error))
            return (yield from self._steps(place))

    def _take_secrets(self):
        """Gives the secret variables their values. ValueError."""
        sources = self._scenario.secrets
        if not sources:
            return
        read = functools.partial(read_secrets, sources, self._journal.repository.secrets.read(
            self._secret_file or str(self._journal.session)))
        can_block = any(map(is_blocking, sources.values()))
        if can_block and not self._journal.has_begun:
            self._journal.flush()       # while it waits it is shown as running
        for name, value in self._control.call(read) if can_block else read():
            self._journal.hide(value)
            self._values[name] = value

    # -- steps -------------------------------------------------------------------------

    def _steps(self, place):
        """Runs step after step, from a place on -> Outcome of the session."""
        # of the newest failure, of the newest evaluate, of what makes WARNING of DONE
        cause = falsehood = warning = ""
        for _ in range(self._scenario.max_steps):
            self._stop_between(place)
            step = self._scenario.steps[place.step]
            # a mere handler: not its failure decides, but the one that led to it
            is_handler = step.on_ok == FAIL and cause != ""
            if place.task < len(step.tasks):
                outcome = yield from self._step(place, step, is_handler)
                self._stop_behind(place, step, outcome)
            else:                       # a RESTART goes on behind its last task
                outcome = Outcome(DONE)
            text = "step %s: %s" % (step.name, outcome.message)
            if outcome.is_false:
                falsehood = text
            elif outcome.status == ERROR and not is_handler:
                cause = text
            if outcome.status == ERROR:
                warning = text
            elif outcome.warning:
                warning = "step %s: %s" % (step.name, outcome.warning)
            target = target_after(step, outcome)
            if target == END:
                warning = warning or self._tell_skip()
                return Outcome(WARNING if warning else DONE, warning)
            if target == FAIL:
                return Outcome(ERROR, cause or falsehood or "step %s ends in FAIL" % step.name)
            place = TaskPlace(self._scenario.step_index(target))
        return Outcome(ERROR, "more than max_steps (%d) steps" % self._scenario.max_steps)

    def _tell_skip(self):
        """On what failed before a RESTART and was not run again, or nothing."""
        if self._bad_steps:
            return "step %s: it ended badly before the restart" % list(self._bad_steps)[-1]
        return "what had failed was skipped at the restart" if self._has_skipped else ""

    def _stop_between(self, place):
        """A normal stop takes effect here; a RESTART goes on at this place."""
        if self._control.has_stop:
            self._note_restart(place)
            self._control.check_stop(is_between=True)

    def _stop_behind(self, place, step, outcome):
        """An immediate stop takes effect here, too. A RESTART goes on behind a step that ended
        well, unless that leads to FAIL, and asks again what was false."""
        try:
            self._control.check_stop()
        except Interrupted:
            if outcome.status != ERROR and target_after(step, outcome) != FAIL:
                self._note_restart(TaskPlace(
                    place.step, outcome.place.task if outcome.is_false else len(step.tasks)))
            raise

    def _note_restart(self, place):
        self._journal.note(self._progress.set_restart, place.step, place.task, place.task_run)

    def _step(self, place, step, is_handler):
        """Runs the attempts of a step, the first from a place on -> Outcome of the last, with the
        newest warning of any. The failure of a mere handler moves no RESTART."""
        delay, warning = step.retry_delay, ""
        for remaining in reversed(range(step.attempts)):
            outcome = yield from self._attempt(place, step)
            warning = outcome.warning or warning
            if outcome.status != ERROR:
                break
            if not is_handler:
                self._note_restart(outcome.place)
            if remaining or step.on_error != FAIL:
                self._control.interrupt_if_asked(is_between=True)
            if remaining:
                self._pause(delay)
                delay = min(delay * step.retry_factor, 1e9)
                place = TaskPlace(place.step)
        return outcome._replace(warning=warning)

    def _pause(self, seconds):
        """The delay before a retry; any stop ends it."""
        self._journal.flush_later()
        self._control.wait(lambda: False, seconds, is_between=True)

    def _attempt(self, place, step):
        """Runs the tasks of a step once, from a place on, and notes how that ended -> Outcome."""
        attempt, run = self._attempts.get(step.name, 0), place.step_run
        if run is None:
            attempt += 1
            run = self._journal.note_begin(self._progress.begin_step, place.step, step.name,
                                           attempt)
        self._attempts[step.name] = attempt
        self._bad_steps.pop(step.name, None)
        end = functools.partial(self._journal.note_end, self._progress.end_step, run)
        try:
            with self._control.deadline(step.timeout, "step"):
                outcome = yield from self._tasks(place, step, run, attempt)
        except Interrupted as interrupt:
            end(interrupt.status, message=interrupt.message)
            raise
        end(outcome.status, message=outcome.message if outcome.status == ERROR else outcome.warning)
        return outcome

    # -- tasks -------------------------------------------------------------------------

    def _tasks(self, place, step, run, attempt):
        """Runs the tasks of a step, from a place on, until one fails or is false -> Outcome of
        the attempt."""
        outcome, warning = Outcome(DONE), ""
        for index in range(place.task, len(step.tasks)):
            if index > place.task:
                place = TaskPlace(place.step, index)
                self._stop_between(place)
            outcome = yield from self._task(place, step.tasks[index], run, attempt)
            warning = outcome.warning or warning
            if outcome.status == ERROR or outcome.is_false:
                break
        if warning and outcome.status == DONE:
            outcome = outcome._replace(status=WARNING)
        return outcome._replace(warning=warning)

    def _task(self, place, task, step_run, attempt):
        """Runs one task, and notes how it ended -> Outcome. Interrupted: of the session."""
        run = place.task_run
        if run is None:
            run = self._begin_task(place, task, step_run, attempt)
        execution = Execution(run, self._values, self._control, self._journal, self._around,
                              self._scenario.on_stale == ADOPT)
        result, interrupt = yield from self._work(task, execution,
                                                  is_resumed=place.task_run is not None)
        self._end_task(run, result, *execution.close())
        place = place._replace(task_run=run)
        if interrupt is not None and interrupt.scope != "task":
            self._note_restart(place)
            if interrupt.scope == "session":
                try:
                    raise interrupt
                finally:                # or it would hold itself, by way of this frame
                    interrupt = None
            return Outcome(ERROR, interrupt.message, place)
        message = result.message
        if result.status in (ERROR, WARNING):
            message = "task %d: %s" % (place.task + 1, message)
        return Outcome(result.status, message, place, result.is_false,
                       message if result.status == WARNING else "")

    def _begin_task(self, place, task, step_run, attempt):
        """Notes that a task begins -> the number of its run. That is on disk then, unless the task
        starts no process and can share the commit of the next. RepositoryError."""
        run = self._journal.note_begin(self._progress.begin_task, step_run, place.step, place.task,
                                       task.name or "", task.type, attempt)
        is_instant = getattr(TASK_TYPES[task.type], "is_instant", False)
        if not is_instant or self._journal.is_full:
            self._journal.flush()
        return run

    def _work(self, task, execution, is_resumed):
        """Has a task's type do what it does -> (TaskResult, the Interrupted that ended it or
        None). Left."""
        kind = TASK_TYPES[task.type]()
        work = kind.resume if is_resumed else kind.run
        try:
            with self._control.deadline(task.timeout, "task"):
                result = work(task.fields, execution)
                if isinstance(result, GeneratorType):
                    result = yield from result
                return with_values_told(bounded(result), execution), None
        except Interrupted as interrupt:
            return TaskResult(interrupt.status, execution.exit.rc,
                              message=interrupt.message), interrupt
        except (TaskError, AgentError) as error:
            message = str(error)
        except OSError as error:
            message = "%s: %s" % (error.strerror, error.filename)
        return TaskResult(ERROR, execution.exit.rc, message=message), None

    def _end_task(self, run, result, rows, omitted):
        """Notes the end of a task with the last of its log, and what it gave variables."""
        journal, progress = self._journal, self._progress
        values = {name: journal.mask(value) for name, value in result.values.items()}
        former = {name: self._values[name] for name, value in values.items()
                  if self._values[name] != value and name not in self._scenario.secrets}
        self._values.update(values)
        if rows or omitted:
            journal.note(progress.add_log, run, rows, omitted)
        journal.note_end(progress.end_task, run, result.status, result.rc, result.rows,
                         json.dumps(former) if former else None, message=result.message)
        if result.values:
            journal.note(progress.set_variables, {
                name: value for name, value in self._values.items()
                if name not in RESERVED_VARIABLES and name not in self._scenario.secrets})


def bounded(result):
    """A TaskResult, or one of ERROR where a value is more than a variable takes."""
    for name, value in result.values.items():
        try:
            check_size(value)
        except ValueError as error:
            return result._replace(status=ERROR, message="%s: the value %s" % (name, error),
                                   values={})
    return result


def with_values_told(result, execution):
    """A TaskResult that says what it gave variables, where it says nothing else."""
    if result.message or result.status == ERROR:
        return result
    return result._replace(message=", ".join(
        "%s = %s" % (name, tell_value(value, execution)) for name, value in result.values.items()))


def own_values(row):
    """The RESERVED_VARIABLES of a row of session."""
    due = row["due"] or row["start_at"] or row["created"]
    return {"SESSION": str(row["id"]), "SCENARIO": row["scenario"], "CONTEXT": row["context"],
            "DUE": to_local(due)}


def target_after(step, outcome):
    """Where a Step leads when it has ended so: the name of a step, END or FAIL."""
    if outcome.is_false:
        return step.on_false
    return step.on_error if outcome.status == ERROR else step.on_ok


# ======================================================================================
# runtime/journal.py
# What a session has to record: collected, masked, and handed to its repository in order.
# ======================================================================================

BEGUN_WITHIN_S = 2.0           # so long a session waits for the record of its begin


class Journal:
    """The records of one session on their way to its repository.

    What is noted goes there in one transaction, at the latest before the next task begins: so
    `begun` is on disk before a process starts. While the repository cannot be written, its writer
    keeps what it was handed, and flush() waits; a session that has not begun waits some seconds and
    fails. All but add_log() is for the session's own thread. on_log(session) is called when lines
    of its log are on disk. `has_begun` tells that the session has begun on disk.
    """

    def __init__(self, repository, session, clock, on_log=lambda session: None):
        self.repository, self.session, self.has_begun = repository, session, False
        self.secrets = ()               # what must not be stored or shown, the longest first
        self._clock, self._on_log = clock, on_log
        self._progress = repository.progress
        self._run = 0                   # number of the newest step or task run
        self._records = []              # [(method, arguments)] not handed over yet
        self._spent = []                # Spools whose content is recorded with the next commit

    # -- records -----------------------------------------------------------------------

    def now(self):
        """The time of day, epoch seconds."""
        return self._clock.now()

    def set_begun(self):
        """It is on disk that the session has begun."""
        self.has_begun = True

    def count_from(self, run):
        """The next run is the one after this: those up to it are on disk."""
        self._run = run

    def note(self, method, *arguments):
        """Adds method(connection, session, *arguments) to what goes to the repository next."""
        self._records.append((method, arguments))

    def note_begin(self, method, *arguments):
        """Notes that a step or task begins, by method(connection, session, run, ..., now) -> the
        number of its run, which counts both in the session."""
        self._run += 1
        self.note(method, self._run, *arguments, self.now())
        return self._run

    def note_end(self, method, *arguments, message):
        """Notes an end, by method(connection, session, *arguments, message, now). The message is
        put on one line, without secrets."""
        self.note(method, *arguments, one_line(self.mask(message)), self.now())

    @property
    def is_full(self):
        """Whether what was noted is enough for a transaction."""
        return len(self._records) >= MAX_BATCH

    def flush(self):
        """Hands over what was noted and waits for the commit. RepositoryError: the repository was
        closed, or is gone; or the session cannot begin now. What its begin refuses."""
        follow_up = self._follow_up()
        pending = self._submit(self._progress.record)
        pending.result()
        follow_up(pending)

    def hand_over(self, on_done):
        """Hands over the last of what was noted; on_done(pending) is called, by the Inbox, once it
        is on disk, or never can be. The value is what the last of it gave."""
        follow_up = self._follow_up()

        def follow(pending):
            if pending.error is None:
                follow_up(pending)
            on_done(pending)
        self._submit(self._progress.record, follow)

    def flush_later(self):
        """Hands over what was noted; nobody waits for its commit, unless the session begins by it.
        As flush()."""
        if self.has_begun:
            self._submit(self._progress.record_later, self._logged if self._has_log else None)
        else:
            self.flush()

    def _follow_up(self):
        """What the commit of all that was noted brings about, as a function of its Pending."""
        has_log = self._has_log
        spent, self._spent = self._spent, []

        def follow(_):
            self.set_begun()
            if has_log:
                self._logged(_)
            for spool in spent:
                spool.remove()
        return follow

    @property
    def _has_log(self):
        return any(method == self._progress.add_log for method, _ in self._records)

    def _logged(self, _):
        self._on_log(self.session)

    def _submit(self, method, on_done=None):
        records, self._records = self._records, []
        return self.repository.db.submit(method, self.session, records, on_done=on_done,
                                         within_s=None if self.has_begun else BEGUN_WITHIN_S)

    def add_log(self, run, rows, omitted, on_stored):
        """Hands over rows of the log past what was noted; on_stored() once they are on disk, or
        never can be. From any thread."""
        def follow(pending):
            on_stored()
            self._logged(pending)
        self.repository.db.submit(self._progress.add_log_later, self.session, run, rows, omitted,
                                  on_done=follow)

    # -- spools ------------------------------------------------------------------------

    def make_spool(self, run):
        """A new Spool for a run's minder. RepositoryError."""
        return self.repository.spools.make(self.session, run)

    def find_spool(self, run):
        """The Spool that a run's minder has, or None."""
        return self.repository.spools.find(self.session, run)

    def spend(self, spool):
        """All of a spool is handed over or noted: it goes when that is on disk."""
        self._spent.append(spool)

    # -- secrets -----------------------------------------------------------------------

    def hide(self, value):
        """From now on a value, and each line of it, is shown nowhere."""
        lines = {line for line in value.split("\n") if len(line) >= MIN_SECRET}
        self.secrets = tuple(sorted(lines.union(self.secrets), key=len, reverse=True))

    def mask(self, text):
        """A text with *** in place of the secrets of the session."""
        return mask_all(text, self.secrets)


# ======================================================================================
# runtime/parking.py
# Sessions that wait for the end of a child, without a thread or a slot.
#
# Thread parking: has those go on that are called, or whose time is over; ends at Parking.close().
# Thread parent N: runs session N, whose child has ended, until that is over or waits again.
# ======================================================================================

class Parking:
    """Holds sessions that wait, until one is called or has waited as long as it may. Then
    go_on(session) has it go on, in a thread of its own."""

    def __init__(self, clock, go_on):
        self._clock, self._go_on = clock, go_on
        self._changed = threading.Condition()   # guards all that follows
        self._parked = {}               # session -> the number of its wait
        self._called = set()            # of these, those that may go on
        self._times = []                # heap of (monotonic seconds, number of a wait, session)
        self._numbers = itertools.count()
        self._threads = set()           # of those that go on; each takes itself out
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="parking", daemon=True)
        self._thread.start()

    def put(self, session, until):
        """A session waits from now on, until then at most (monotonic seconds, or None)."""
        with self._changed:
            number = self._parked[session] = next(self._numbers)
            if until is not None:
                heapq.heappush(self._times, (until, number, session))
            self._changed.notify()
        if session.is_ready():          # it may have been called before
            self.call(session)

    def call(self, session):
        """Has a session go on, if it waits."""
        with self._changed:
            if session in self._parked:
                self._called.add(session)
                self._changed.notify()

    def close(self):
        """Ends the thread; who still waits does not go on."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        for thread in list(self._threads):
            thread.join()

    def _start(self, session):
        """Has a session go on -> whether the host has a thread to give."""
        thread = Worker(self._serve, "parent %d" % session.number, session)
        self._threads.add(thread)       # first: close() waits for it
        is_started = thread.try_start()
        if not is_started:
            self._threads.discard(thread)
        return is_started

    def _serve(self, session):
        """The thread of a session that goes on."""
        self._go_on(session)
        self._threads.discard(threading.current_thread())

    def _run(self):
        while not self._is_closing:
            for session in self._take():
                if not self._start(session):
                    log.error("no thread can be started for session %d", session.number)
                    self.put(session, self._clock.monotonic() + TRY_S)

    def _take(self):
        """Waits for sessions that are to go on, and takes them out."""
        with self._changed:
            while not (self._called or self._is_closing):
                now = self._clock.monotonic()
                while self._times and self._times[0][0] <= now:
                    _, number, session = heapq.heappop(self._times)
                    if self._parked.get(session) == number:
                        self._called.add(session)
                if not self._called:
                    self._changed.wait(self._times[0][0] - now if self._times else None)
            ready, self._called = self._called, set()
            for session in ready:
                del self._parked[session]
        return ready


# ======================================================================================
# runtime/session.py
# A session as the queue and the desk know it: it begins, waits without a thread, and ends.
# ======================================================================================

class Session:
    """One execution of a scenario, as the queue and the desk know it.

    stop() and leave() may come from any thread at any moment; run() by one at a time.
    """

    def __init__(self, ticket, repository, around):
        self.number, self.ticket, self.repository = ticket.session, ticket, repository
        self._around = around
        reference = weakref.ref(self)   # its Control must not keep it

        def call():
            session = reference()
            if session is not None:
                session._call()
        self._control = Control(around.clock, "%s/%d" % (repository.db.uuid, self.number), call,
                                around.looks)
        self._parking = self._going = self._waiting = self._outcome = None
        self._journal = Journal(repository, self.number, around.clock, around.on_log)

    @property
    def is_begun(self):
        """Whether it is on disk that it has begun."""
        return self._journal.has_begun

    def stop(self, mode, message):
        """Asks it to stop, NORMAL after the task now running, or IMMEDIATE; the message says who
        does, and by what."""
        self._control.stop(mode, message)

    def leave(self):
        """Lets the process that it waits for, or starts next, go on without the agent, if it can
        be adopted."""
        self._control.leave()

    def mask(self, text):
        """A text without its secrets."""
        return self._journal.mask(text)

    # -- going on without a thread -----------------------------------------------------

    def park(self, parking):
        """Waits in a Parking, after run() has said so."""
        self._parking = parking
        parking.put(self, self._control.find_limit(self._waiting.patience_s))

    @property
    def has_parked(self):
        """Whether it has ever waited so."""
        return self._parking is not None

    @property
    def child(self):
        """The number of the session whose end it waits for, or None."""
        waiting = self._waiting
        return waiting and waiting.child

    def is_ready(self):
        """Whether what it waits for is over, or something ends the waiting."""
        waiting = self._waiting         # None: another thread has gone on with it
        return waiting is not None and (waiting.is_over() or self._control.is_due)

    def _call(self):
        if self._parking is not None:
            self._parking.call(self)

    def run(self):
        """Runs it -> True: it is over, and record_end() is to follow; or False: it is to park, and
        run() to be called again then. RepositoryError: not begun, it stays outstanding."""
        if self._going is None:
            self._going = self._go()
        self._waiting = None            # while it goes on
        self._waiting = next(self._going, None)
        return self._waiting is None

    def _go(self):
        """A generator of the Waitings of its course. RepositoryError, as run()."""
        try:
            course, place = self._resume()
            self._outcome = yield from self._run_course(course, place)
        except (Conflict, NotFound):        # stopped or purged since it was queued
            if self.is_begun:
                raise
        except Unreadable as error:
            self._end_unread(error.message)
        except Left:
            self._leave_off()
        except RepositoryError as error:
            if not self.is_begun:
                raise
            self._lose(error)

    def record_end(self, on_recorded):
        """Has its end recorded, and waits for nothing: on_recorded(pending) is called when that is
        over, with the Pending for follow_end(), or None where there is nothing to record."""
        if self._outcome is None:
            on_recorded(None)
            return
        try:
            self._journal.note_end(self.repository.endings.end, self._outcome.status,
                                   message=self._outcome.message)
            self._journal.hand_over(on_recorded)
        except Exception as error:          # as when memory is short
            log.error("the end of session %d is not recorded\n%s", self.number,
                      self.mask(tell_traceback(error)))
            self.repository.set_behind()    # it is queued again, or closed by the cleaning
            on_recorded(None)

    def follow_end(self, pending):
        """What follows from the record of its end. RepositoryError: it has not even begun, and
        stays outstanding."""
        try:
            ending = pending.result()
        except RepositoryError as error:
            if not self.is_begun:
                raise
            self._lose(error)
            return
        except (Conflict, NotFound):
            if self.is_begun:
                raise
            return
        if ending is None:                  # it was no more open
            self._around.on_loss(self.number)
        else:
            self._around.on_end(self.repository, ending)

    def _lose(self, error):
        log.error("session %d ended in memory alone, its end is not recorded: %s", self.number,
                  error)
        self._around.on_loss(self.number)

    def _resume(self):
        """Reads it, and notes that this agent runs it -> (Course, TaskPlace). Conflict, NotFound:
        it is not as its ticket says any more. Unreadable. RepositoryError: not now."""
        repository, identity = self.repository, self._around.identity
        row, scenario, runs, attempts = repository.db.read(repository.views.get_resume,
                                                           self.number)
        self._journal.count_from(runs)
        course = Course(row, scenario, attempts, self._control, self._journal, self._around)
        if not self.ticket.is_adopted:
            self._journal.note(repository.sessions.begin, identity, self._is_late(row),
                               self._journal.now(), scenario)
            return course, TaskPlace(row["restart_step"] or 0, row["restart_task"] or 0)
        repository.db.write(repository.sessions.adopt, self.number, row["ran_by"], identity)
        self._journal.set_begun()
        step, task = repository.db.read(repository.progress.find_interrupted, self.number)
        log.warning("session %d is adopted", self.number)
        return course, TaskPlace(task["step"], task["task"], step["run"], task["run"])

    def _is_late(self, row):
        """Whether it begins later than planned, and is neither restarted nor another attempt."""
        planned = row["due"] and (row["start_at"] or row["due"])
        return bool(planned) and row["begun"] is None and row["attempt"] == 1 \
            and self._around.clock.now() - from_text(planned) > LATE_S

    def _run_course(self, course, place):
        """Runs what there is to run -> Outcome. Left, RepositoryError."""
        try:
            return (yield from course.run(place))
        except (Left, RepositoryError):
            raise
        except Interrupted as error:
            return self._end_interrupted(error)
        except Exception as error:          # a fault of the agent's own
            if isinstance(error, (AgentError, MemoryError)) and not self.is_begun:
                raise
            log.error("session %d\n%s", self.number, self.mask(tell_traceback(error)))
            return self._end_interrupted(Interrupted(
                "session", ERROR, "fault of the agent: %s" % one_line(error)))

    def _end_interrupted(self, interrupt):
        """No process stays behind -> Outcome."""
        self._control.sweep_last(interrupt)
        return Outcome(interrupt.status, interrupt.message)

    def _leave_off(self):
        log.info("session %d is left to the next start", self.number)
        with contextlib.suppress(RepositoryError):      # its spool has what is not recorded
            self._journal.flush()

    def _end_unread(self, reason):
        """Ends it before it begins: its definition cannot be read. RepositoryError."""
        repository = self.repository
        ending = repository.db.write(repository.endings.end_outstanding, self.number, ERROR,
                                     one_line(reason), self._journal.now())
        if ending is not None:
            self._around.on_end(repository, ending)


# ======================================================================================
# runtime/slots.py
# The queue of sessions and the slots that run them.
#
# Thread slot N: runs one session after the other; ends at SessionQueue.close().
# Thread adopted N: runs session N, whose process outlived an agent; ends with it.
# ======================================================================================

FAULT = "", "a fault of the agent, told in its log"
MAX_ENDING = 256        # sessions more than slots whose end is on its way: then none begins


class SessionQueue:
    """Outstanding sessions in the order that their Admission gives, and the slots that run them."""

    def __init__(self, slots, make, is_flooded, clock):
        self.slots = slots                      # how many sessions at once
        self._make = make                       # make(ticket, repository) -> Session
        self._is_flooded = is_flooded           # whether many requests wait for their OK
        self._changed = threading.Condition()   # guards all that follows
        self._admission = Admission(slots)      # of numbers: who begins next
        self._outstanding = {}                  # number that may begin -> (Ticket, repository)
        self.later = Later()
        self._running = {}                      # number -> Session
        self._again = {}                # number -> Ticket that came before its slot was free
        self._slots = SlotThreads(slots, self._serve)
        self._adopted, self._is_closing = [], False
        self.delays = Delays()          # of sessions that could not begin
        self._parked = 0                # how many of _running wait for one, without a thread
        self._ending = 0                # and of how many the end is still to be recorded
        self._max_ending = slots + MAX_ENDING   # all that ran may be of one locked repository
        self._parking = Parking(clock, self._go_on)

    def add(self, ticket, repository):
        """Queues a session once; whether a slot is free for it."""
        with self._changed:
            self.later.pop(ticket.session, None)
            running = self._running.get(ticket.session)
            if running and running.repository is not repository:
                repository.set_behind()     # of a file since replaced: when that has ended
            elif running:
                self._again[ticket.session] = ticket
            if self._is_closing or running or ticket.session in self._outstanding:
                return True
            self._outstanding[ticket.session] = ticket, repository
            self._admission.add(ticket.session, ticket.priority, ticket.gates(repository),
                                ticket.is_child)
            is_free = self._admission.has_room
            if is_free:                 # otherwise a thread looks for itself when it can
                self._ensure_thread()
                self._changed.notify()
        return is_free

    def start_threads(self):
        """Starts the threads that the host could not give before; nobody else tries meanwhile, for
        each try may take its time."""
        with self._changed:
            self._slots.try_again()
            self._ensure_thread()

    def _ensure_thread(self):
        """A thread for each session that runs or may begin, as far as there are slots."""
        sessions = 0 if self._is_closing else len(self._running) - self._parked - self._ending + \
            self._admission.count_ready()
        self._slots.grow(sessions)

    def adopt(self, ticket, repository):
        """A session whose process lives on goes on at once, whatever the limits. Busy: the
        host has no thread for it."""
        with self._changed:
            if self._is_closing or ticket.session in self._running:     # it may have just been left
                return
            session = self._make(ticket, repository)
            thread = Worker(self._run, "adopted %d" % ticket.session, session)
            self._running[ticket.session] = session
            self._admission.occupy(ticket.session, ticket.gates(repository))
            try:
                thread.start()
            except RuntimeError as error:
                del self._running[ticket.session]
                self._admission.leave(ticket.session)
                raise Busy(str(error)) from None
            self._adopted = [each for each in self._adopted if each.is_alive()] + [thread]

    def hold_schedule(self, key, is_held):
        """Held, no session of a schedule (repository id, name) begins."""
        with self._changed:
            if self._admission.hold_gate(schedule_gate(*key), is_held):
                self._ensure_thread()
                self._changed.notify_all()

    def find_obstacle(self, number):
        """What keeps an outstanding session from beginning: an Obstacle, or None."""
        with self._changed:
            return self._admission.find_obstacle(number)

    def discard(self, number):
        """A session that will not begin."""
        self.delays.forget(number)
        with self._changed:
            self._outstanding.pop(number, None)
            self._admission.discard(number)
            self.later.pop(number, None)

    def forget(self, repository):
        """What is queued of a repository that was let go is read anew when it comes back."""
        with self._changed:
            owners = dict(self.later)
            owners.update((number, owner) for number, (_, owner) in self._outstanding.items())
            for number in [number for number, owner in owners.items() if owner is repository]:
                self.discard(number)

    def find(self, number):
        """The running Session of a number, or None."""
        return self._running.get(number)

    def has(self, number, repository=None):
        """Whether a session is running (of this repository, if one is given) or outstanding."""
        with self._changed:
            if number in self._running:
                return repository in (None, self._running[number].repository)
            return number in self._outstanding or number in self.later

    def list_running(self):
        """The running Sessions."""
        with self._changed:
            return list(self._running.values())

    def counts(self):
        """How many sessions there are: (running, outstanding), those of later among the last."""
        return len(self._running), len(self._outstanding) + len(self.later)

    def hold(self, is_held):
        """Held, nothing begins."""
        with self._changed:
            self._admission.hold(is_held)
            if not is_held:
                self._ensure_thread()
            self._changed.notify_all()

    def wait_idle(self, timeout_s):
        """Waits until nothing runs; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)

    def close(self):
        """Begins nothing more; running sessions end by themselves."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def join(self):
        """Waits for the threads of the slots."""
        self._parking.close()
        self._slots.join()
        for thread in self._adopted:
            thread.join()

    def _serve(self):
        """The thread of a slot: one session after the other."""
        while True:
            try:
                session = self._take()
            except Exception as error:  # as when memory is short: the thread stays for others
                log.error("a session cannot begin\n%s", tell_traceback(error))
                with self._changed:
                    self._changed.wait(TRY_S)
                continue
            if session is None:
                return
            give_way(lambda: self._is_flooded() and not self._is_closing)
            self._run(session)

    def _run(self, session):
        """Runs a session, until it is over or waits for a child. Its slot is another's then, also
        while its end is still to be recorded."""
        if self.delays.run(session, session.run) is False:
            self._lend_slot(1)
            session.park(self._parking)
            return
        with self._changed:     # so its end is written before the begin of who waits for its place
            self.leave(session)
            session.record_end(functools.partial(self.end, session))

    def end(self, session, pending):
        """The end of a session is on disk, or nothing is to be recorded: nothing is to come."""
        try:
            if pending is not None:
                self.delays.run(session, functools.partial(session.follow_end, pending))
        finally:
            with self._changed:
                if self._running.get(session.number) is session:
                    self._forget(session)

    def _forget(self, session):
        del self._running[session.number]
        self._ending -= 1
        if not self._running or self._ending == self._max_ending - 1:
            self._changed.notify_all()
        if self.delays.find(session.number):    # only now: who runs is not read again
            session.repository.set_behind()
        again = self._again.pop(session.number, None)
        if again:
            self.add(again, session.repository)

    def _lend_slot(self, count):
        """The slot of a session that waits for its child serves another: 1, then -1."""
        with self._changed:
            self._parked += count
            self._admission.lend(count)
            self._ensure_thread()
            self._changed.notify()

    def _go_on(self, session):
        """A session that has parked goes on in this thread, whatever the limits."""
        self._lend_slot(-1)
        self._run(session)

    def _take(self):
        """The Session that the thread of a slot runs next; None when the queue is closing."""
        with self._changed:
            while not self._is_closing:
                session = self.take_next()
                if session:
                    if self._admission.has_room and self._admission.count_ready():
                        self._ensure_thread()       # what came up by that is another's
                        self._changed.notify()
                    return session
                self._changed.wait()
        return None

    def take_next(self):
        """The Session that runs from now on, or None: nothing may begin.

        What a repository in trouble holds back is read from it again when it has recovered.
        """
        with self._changed:
            while True:
                number = self._admission.take() if self._ending < self._max_ending else None
                if number is None:
                    return None
                ticket, repository = self._outstanding.pop(number)
                try:
                    if not repository.db.trouble:
                        self._running[number] = self._make(ticket, repository)
                        return self._running[number]
                finally:
                    if number not in self._running:
                        repository.set_behind()
                        self._admission.leave(number)

    def leave(self, session):
        """The slot of a session and its gates are free."""
        with self._changed:
            self._ending += 1
            # the thread of a slot looks for itself what it can run next
            if self._admission.leave(session.number) or session.ticket.is_adopted \
                    or session.has_parked:
                self._changed.notify_all()


class SlotThreads:
    """The threads of the slots: as many as are needed, and as the host has to give."""

    def __init__(self, most, work):
        self._most, self._work, self._threads = most, work, []
        self._is_short, self._told = False, Told()

    def grow(self, count):
        """So many can be used. Where the host has no more to give, those that are there go on."""
        while not self._is_short and len(self._threads) < min(self._most, count):
            thread = Worker(self._work, name="slot %d" % (len(self._threads) + 1))
            self._is_short = not has_started(thread, self._told)
            if not self._is_short:
                self._threads.append(thread)

    def try_again(self):
        """The host may have some by now. Until that is said it is not asked once more, as each try
        may take its time."""
        self._is_short = False

    def join(self):
        """Waits for their end."""
        for thread in self._threads:
            thread.join()


class Later(dict):
    """The sessions that wait for their start time: {number: repository}."""

    def put_off(self, number, repository):
        """Notes a session whose start time is to come; False when it was noted before."""
        is_new = self.get(number) is not repository
        self[number] = repository
        return is_new

    def is_put_off(self, number, repository):
        """Whether a session still waits for its start time."""
        return self.get(number) is repository


class Delays:
    """Keeps the trouble of one session from the thread that serves it, and in mind why those that
    could not begin did not: the queue has those read again."""

    def __init__(self):
        self._told = Told()
        self._reasons = {}              # number -> (word of what it waits for, text)

    def run(self, session, work):
        """work() of a session -> its value. One that cannot begin is read again from its
        repository, and tried again; one that began and has no end is found by the cleaning."""
        value = None
        try:
            value = work()
        except Exception as error:
            if not session.is_begun:        # noted first: memory may be too short to tell it
                self._reasons[session.number] = FAULT
            with contextlib.suppress(MemoryError):
                self._note(session, error)
        else:
            self._told.is_new(session.number, "")
        if session.is_begun:
            self.forget(session.number)
        return value

    def _note(self, session, error):
        """Why work of a session has failed: in the log, and why it could not begin."""
        is_told = False                     # for all of its repository
        if isinstance(error, RepositoryError):
            trouble, is_told = error.message, bool(session.repository.db.trouble)
            word = LIMIT if isinstance(error, LimitFilled) else LOST
            if not session.is_begun:
                self._reasons[session.number] = word, trouble
        else:
            trouble = session.mask(tell_traceback(error))
        if self._told.is_new(session.number, trouble) and not is_told:
            log.warning("session %d %s: %s", session.number, "is left to the cleaning"
                        if session.is_begun else "does not begin yet", trouble)

    def find(self, number):
        """(word, text) of a session that could not begin, or None."""
        return self._reasons.get(number)

    def forget(self, number):
        """A session has begun, or will not."""
        self._reasons.pop(number, None)


def has_started(thread, troubles):
    """Worker.try_start; `troubles`, a Told, has it said once that there is none."""
    is_started = thread.try_start()
    if troubles.is_new("threads", "" if is_started else "none"):
        log.error("no further thread can be started for sessions")
    return is_started


def give_way(is_flooded):
    """Acknowledging goes before beginning: a flood of requests is answered first."""
    for _ in range(int(YIELD_S / 0.01)):
        if not is_flooded():
            return
        time.sleep(0.01)


# ======================================================================================
# scheduling/entry.py
# A schedule in memory: what is decided, what comes next, and what of its past may still run.
# ======================================================================================

# why due times were missed: the reason that their occurrences get, and the words
DOWN = MISFIRE, "the agent was down"
AWAY = LOST, "the repository could not be used"
ON_HOLD = HELD, "held at that time"
CHANGED = MISFIRE, "the schedule was changed before it ran"


class Missed(NamedTuple):
    """The due times up to an instant (epoch seconds) were missed, and why."""
    until: float
    reason: str
    text: str


class Policy(NamedTuple):
    """What a schedule wants for due times that were missed, and how it spreads its starts."""
    misfire: str
    grace: Optional[float]
    jitter: int


class Entry:
    """One schedule in memory, made of its StoredSchedule; times are epoch seconds. When its row
    changes, another takes its place."""
    __slots__ = ("repository", "name", "key", "revision", "timetable", "policy", "hold", "decided",
                 "missed", "due", "quiet", "asked", "boot")

    def __init__(self, repository, stored, missed, model=None):
        """`model`: another with the same rule, zone and options, where there is one."""
        schedule = stored.schedule
        self.repository, self.name, self.revision = repository, schedule.name, stored.revision
        self.key = repository.id, self.name     # what tells it from all others of the agent
        self.timetable = stored.firing  # None: never fires by itself
        self.policy = model.policy if model else Policy(*map(schedule.get, Policy._fields))
        self.hold = stored.hold         # None: it is not held
        self.boot = _share(stored.boot)     # the one for which its rule `boot` need not fire
        self.decided = stored.decided   # due times up to here have their decision
        self.missed = missed            # those that were Missed
        self.due = None                 # the instant that is armed
        self.asked = None               # up to where it is being decided: not written yet
        self.quiet = 0.0                # until then what is excluded is not recorded

    # -- its life, as the Scheduler's docstring shows it -------------------------------

    def arm(self):
        """Waits for its next instant -> that, or None: there is none."""
        self.due = self.find_event()
        return self.due

    def come_up(self):
        """Its instant has come, or it is looked at before: it waits no more."""
        self.due = None

    def ask(self, upto=None):
        """It is being decided, up to an instant where that is known."""
        self.asked = self.decided if upto is None else upto

    def settle(self, upto, missed=None):
        """All up to an instant is decided and written; what came due meanwhile may be Missed."""
        self.decided, self.asked = max(self.decided, upto), None
        self.missed = missed or self.missed

    def keep_quiet(self, until):
        """Due times that are excluded are not recorded before then."""
        self.quiet = until

    def step_back(self, now):
        """The clock has: what is due from now on is not missed."""
        if self.missed.until > now:
            self.missed = self.missed._replace(until=now)

    # -- what becomes of its due times -------------------------------------------------

    def judge(self, now, missed):
        """What becomes of the due times whose time has come, up to now (epoch seconds): (the
        instant up to which all is decided, [Span])."""
        cursor = math.floor(self.decided)
        newest, spans = self._find_missed(cursor, min(missed.until, now)), []
        if newest is not None:
            cursor, spans = self._judge_missed(cursor, newest, now, missed)
        due = self.timetable.next_after(cursor)
        while due is not None and self.plan(due) <= now and len(spans) < MAX_BATCH:
            spans += self._excluded(cursor, due)
            spans.append(self._run(due))
            cursor, due = due, self.timetable.next_after(due)
        excluded = self._excluded(cursor, min(self._limit(due), math.floor(now) + 1))
        return excluded[-1].last if excluded else cursor, spans + excluded

    def _find_missed(self, cursor, until):
        """The newest due time that was to run by then, as all before it were, or None."""
        newest = self.timetable.last_until(cursor, math.floor(until))
        if newest is not None and self.plan(newest) > until:
            newest = self.timetable.last_until(cursor, newest - 1)
        return newest

    def _judge_missed(self, cursor, newest, now, missed):
        """The part of judge() for what was missed after `cursor`, up to `newest`."""
        runs = self._list_runs(cursor, newest, now)
        before = runs[0] if runs else newest + 1
        spans = [span._replace(message="; ".join(filter(None, (missed.text, span.message))),
                               is_backlog=self.policy.misfire == "all")
                 for span in map(self._run, runs)]
        spans += self.list_skipped(cursor, before - 1, *missed[1:])
        spans += self._excluded(cursor, newest)
        return newest, sorted(spans, key=lambda span: span.first)

    def list_skipped(self, after, until, reason, text):
        """The due times of a stretch as one Span that says why they are skipped,
        or none: [Span]."""
        count = self.timetable.count(after, until)
        return [Span(self.timetable.next_after(after), self.timetable.last_until(after, until),
                     count, reason, text)] if count else []

    def _list_runs(self, cursor, newest, now):
        """Those of the missed due times that `misfire` lets run;
        grace begins when they were planned."""
        misfire, grace, jitter = self.policy
        if misfire == "skip":
            return []
        if misfire == "once":
            return [newest] if grace is None or now - self.plan(newest) <= grace else []
        patience_s = (MISSED_S if grace is None else grace) + jitter
        oldest = max(cursor, math.ceil(now - patience_s) - 1)
        if newest <= oldest:
            return []
        after = oldest if self.timetable.count(oldest, newest) <= MAX_MISSED else _find_first(
            oldest, newest, lambda instant: self.timetable.count(instant, newest) <= MAX_MISSED)
        runs = [self.timetable.next_after(after)]
        while runs[-1] < newest:
            runs.append(self.timetable.next_after(runs[-1]))
        return runs

    def _excluded(self, after, before):
        """[Span] of the due times between the two that its window, a gap or a fold excludes."""
        if self.timetable.next_excluded(after, before) is None:
            return []
        return [Span(*excluded) for excluded in self.timetable.excluded_spans(after, before - 1)]

    def _limit(self, due):
        """Before which nothing else is due than `due`; at the end of the rule this is None."""
        return self.timetable.last + 1 if due is None else due

    def _run(self, due):
        return Span(due, due, 1, "", "; ".join(self.timetable.notes(due)),
                    self.plan(due) if self.policy.jitter else None)

    def plan(self, due):
        """When a due time is to run (epoch seconds): then, or after its share of `jitter`."""
        jitter = self.policy.jitter
        return due + find_jitter(self.name, due, jitter, self.timetable) if jitter else due

    def find_event(self):
        """When it is to be looked at next, or None."""
        if self.timetable is None:
            return None
        cursor = math.floor(self.decided)
        due = self.timetable.next_after(cursor)
        excluded = self.timetable.next_excluded(cursor, self._limit(due))
        event = None if due is None else self.plan(due)
        if excluded is None:
            return event
        record = max(excluded, self.quiet)
        return record if event is None else min(event, record)


# ======================================================================================
# scheduling/changes.py
# Changes of schedules and calendars, effective at once.
# ======================================================================================

CHANGE_TRIES = 20       # of a change that a due time or another agent comes before


class ScheduleChanges:
    """What clients change of schedules: checked here, written by their repository, taken up by
    Schedules."""

    def __init__(self, schedules, places, master, clock):
        self._schedules, self._places, self._master = schedules, places, master
        self._clock = clock
        self._turns = {}            # {id of a repository: the lock of turn()}

    def turn(self, repository):
        """The lock that is held by who changes schedules of this repository: he meets due times
        and other agents alone, and of two clients none comes first for ever."""
        return self._turns.setdefault(repository.id, threading.Lock())

    def add(self, schedule, repository):
        """Adds a schedule, effective at once. Exists, NotFound, BadRequest, Conflict."""
        self._check(schedule)
        owner = self._places.get(repository) if repository else \
            self._places.with_scenario(schedule.scenario, schedule.version)
        owner.db.write(owner.schedules.add, schedule, self._clock.now())
        self._schedules.refresh(owner, schedule.name)

    def set(self, name, repository, changes):
        """Changes a schedule, effective at once; changes(Schedule) -> Schedule. As add()."""
        owner = self._places.with_schedule(name, repository)
        with self.turn(owner):
            self._write(owner, name, changes)
        self._schedules.refresh(owner, name)

    def _write(self, owner, name, changes):
        """Writes set() down; anew when something else has come before."""
        for is_last in [False] * (CHANGE_TRIES - 1) + [True]:
            row, now = owner.db.read(owner.schedules.get, name), self._clock.now()
            before = owner.schedules.read_definition(row)
            schedule = changes(before)
            if schedule == before._replace(enabled=False):      # whatever else is wrong with it
                method = owner.schedules.put
            else:
                method = owner.schedules.set
                self._check(schedule, is_moved=schedule.timing != before.timing)
            try:
                owner.db.write(method, schedule, now, self.find_origin(owner, row, now))
                break
            except Changed:             # by another agent, or by a due time that has come
                if is_last:
                    raise

    def find_origins(self, repository, schedules, now):
        """{name: Origin} of those of these Schedules that are there."""
        rows = [repository.db.read(repository.schedules.find, schedule.name)
                for schedule in schedules]
        return {row["name"]: self.find_origin(repository, row, now) for row in rows if row}

    def find_origin(self, repository, row, now):
        """The Origin of a change of this row: with what had come by now and was not decided, held
        or delayed by jitter."""
        origin = repository.schedules.make_origin(row)
        entry = self._schedules.find(repository, row["name"])
        if entry is None or entry.timetable is None or origin.decided is None:
            return origin
        return origin._replace(spans=tuple(entry.list_skipped(
            math.floor(origin.decided), math.floor(as_stored(now)), *CHANGED)))

    def _check(self, schedule, is_moved=True):
        """BadRequest, NotFound: what is wrong of a schedule; `is_moved`: its due times are others
        than before."""
        faults = schedule.list_faults()
        if faults:
            field, reason = faults[0]
            message = reason if reason.startswith(field + " ") else "%s: %s" % (field, reason)
            raise BadRequest(message, faults if len(faults) > 1 else ())
        if not set(schedule.list_calendars()) <= set(self._schedules.calendars):
            self._schedules.read_calendars()        # another agent may have added it
        calendars = self._schedules.calendars
        unknown = [name for name in schedule.list_calendars() if name not in calendars]
        if unknown:
            raise NotFound("no calendar %s" % unknown[0])
        if schedule.context not in self._master.list_contexts():
            raise NotFound("no context %s" % schedule.context)
        timetable = schedule.timetable(calendars)
        if is_moved and schedule.enabled and timetable.rule.is_by_clock \
                and timetable.next_after(self._clock.now()) is None:
            within = [name for name in schedule.options if name in MOVING_FIELDS]
            raise BadRequest("the rule %s never fires any more%s" % (
                shorten(schedule.rule), " within its " + ", ".join(within) if within else ""))

    def delete(self, name, repository):
        """Deletes a schedule; what it started goes on. NotFound, Conflict."""
        owner = self._places.with_schedule(name, repository)
        owner.db.write(owner.schedules.delete, name)
        self._schedules.refresh(owner, name)

    def hold(self, name, hold, repository=None):
        """Holds one schedule, or releases it (None). NotFound."""
        owner = self._places.with_schedule(name, repository)
        owner.db.write(owner.schedules.hold, name, hold)
        self._schedules.refresh(owner, name)

    def put_calendar(self, name, dates, is_new):
        """Adds a calendar or sets its dates, effective at once. Exists, NotFound."""
        self._master.put_calendar(name, dates, is_new)
        self._schedules.read_calendars()

    def delete_calendar(self, name):
        """Deletes a calendar. NotFound; Conflict while a schedule names it."""
        for repository in self._places.readable():
            for user in repository.db.read(repository.schedules.list_users, name):
                raise Conflict("schedule %s in repository %s uses calendar %s"
                               % (user, repository.name, name))
        self._master.delete_calendar(name)
        self._schedules.read_calendars()


# ======================================================================================
# scheduling/preview.py
# What is told of a schedule: why, what stands in its way, and what comes.
# ======================================================================================

def explain(row):
    """An occurrence in the words of a person."""
    count = "1 due time" if row["count"] == 1 else "%d due times" % row["count"]
    reason = {OVERLAP: "one session of it is enough at a time", MISFIRE: "missed",
              "gap": "that local time did not exist", "fold": "that local time came a second time",
              "window": "outside its window"}.get(row["reason"], "")
    text = ": ".join(part for part in (reason, row["message"]) if part) or row["reason"]
    if row["schedule"] == ALL_SCHEDULES:
        return row["message"]
    if row["decision"] in (STARTED, LATE):
        begun = "session %d" % row["session"]
        if row["decision"] == LATE:
            late_s = (row["begun"]
                      and from_text(row["begun"]) - from_text(row["start_at"] or row["due"]))
            # neither purged nor run again
            is_known = late_s and late_s > LATE_S and row["attempt"] == 1
            begun += " began %.0f s late" % late_s if is_known else " began late"
            text = text or "it had waited for a free slot, a limit or the one before it"
        state = row["status"] and "it is %s" % row["status"]
        if row["outcome"] and row["status"] in (ERROR, STOPPED):
            state += " (%s)" % row["outcome"]
        return ", ".join(part for part in (begun, text, state) if part)
    return "%s %s: %s" % (count, row["decision"], text)


def list_state(repository, stored, due, hold):
    """What stands in the way of a schedule now, and when it is due next;
    `hold` is that of the agent."""
    notes = [] if stored.schedule.enabled else ["disabled"]
    notes += ["%s; what comes due is decided at the release" % held
              for held in list_holds(hold, stored.hold)]
    for kind, name, met in repository.db.read(
            repository.schedules.list_conditions, stored.schedule.name):
        if not met:
            newest = repository.db.read(repository.views.list_sessions,
                                        SessionFilter(**{kind: name}), 1 << 62, 1)
            notes.append("waits for %s %s%s" % (kind, name, "".join(
                ", whose newest session %d is %s" % (last["id"], last["status"])
                for last in newest)))
    return notes + (["next due %s" % local_iso(due)] if due else [])


def list_earliest(streams, count, key):
    """The first `count` items of many ordered streams, in order;
    keeps no more streams than that."""
    heads = ((next(stream, None), stream) for stream in streams)
    earliest = heapq.nsmallest(count, (head for head in heads if head[0] is not None),
                               key=lambda head: key(head[0]))
    streams = (itertools.chain([first], rest) for first, rest in earliest)
    return itertools.islice(heapq.merge(*streams, key=key), count)


def list_coming(timetable, begin, end, with_excluded, words):
    """Yields (due, *words, the due time before, None, timetable) of the due times after `begin`,
    for ever or up to `end`; for what is excluded (reason, text) stands in place of None."""
    def list_excluded(after, until):
        for instant, *excluded in timetable.iter_excluded(after, until) if with_excluded else ():
            yield (instant,) + words + (after, tuple(excluded), timetable)
    before, due = int(begin // 1), timetable.next_after(int(begin // 1))
    while due is not None and (end is None or due <= end):
        yield from list_excluded(before, due - 1)
        yield (due,) + words + (before, None, timetable)
        before, due = due, timetable.next_after(due)
    if end is not None:
        yield from list_excluded(before, int(end // 1))


def list_notes(schedule, timetable, due, before):
    """What is to be said of a due time, and of those since the one `before` it."""
    notes = [] if schedule.enabled else ["disabled"]
    notes += timetable.notes(due)
    if timetable.next_excluded(before, due) is not None:
        notes += ["%d excluded before (%s)" % (count, text)
                  for _, _, count, _, text in timetable.excluded_spans(before, due - 1)]
    if schedule.get("after"):
        notes.append("waits for %s" % schedule.get("after"))
    if schedule.get("jitter"):
        late = find_jitter(schedule.name, due, schedule.get("jitter"), timetable)
        notes.append("jitter %d s: runs at %s" % (late, local_iso(due + late)))
    return notes


def list_ahead(decided, now):
    """What is to be said when due times are decided that have not come yet."""
    return [] if decided <= now + STEP_S else [
        "the clock was ahead: nothing is due before %s; SCHED OFF and SCHED ON begin anew"
        % local_iso(decided)]


NEVER_RELEASED = float("inf")


def find_release(*holds):
    """(when the last of these holds ends, NEVER_RELEASED if it does not, and its words);
    0 without any."""
    release, hold = max(((hold.until or NEVER_RELEASED, hold) for hold in holds if hold),
                        key=lambda pair: pair[0], default=(0.0, None))
    return release, hold and "held since %s%s%s" % (
        local_iso(hold.since), " until %s" % local_iso(release) if hold.until else "",
        hold.reason and ": " + hold.reason)


def list_holds(*holds):
    """[The words of find_release], or none."""
    return list(filter(None, find_release(*holds)[1:]))


# ======================================================================================
# scheduling/visits.py
# Due times as a plan sees them: estimated, held, outstanding, and what became of each.
# ======================================================================================

MAX_VISITS = 20000      # due times that a plan plays
NO_LIMIT = {"limit": None, "on_limit": "wait"}
OUTCOMES = STARTS, OVERLAPS, QUEUES, SKIPS, UNFIT = (
    "starts", "overlaps", "queues", "skipped", "never")


class Period(NamedTuple):
    """What a plan is played for; epoch seconds."""
    begin: float
    end: float
    now: float
    slots: int
    hold: Optional[Hold] = None         # of the agent


class Visit:
    """A due time in a plan, or a session that is open: what it wants, and what became of it."""
    __slots__ = ("name", "scenario", "due", "at", "duration", "is_known", "overlap", "priority",
                 "limit", "on_limit", "begin", "end", "outcome", "notes", "is_backlog", "is_held",
                 "event")

    def __init__(self, **fields):
        self.begin = self.end = self.outcome = None
        self.event = 0.0               # when its Entry comes up, if before it
        self.is_backlog = False         # as of a Span
        self.is_held = False            # it does not come: its hold has decided that
        self.notes = []
        for name, value in fields.items():
            setattr(self, name, value)

    @property
    def schedule(self):
        """What tells its schedule from all others: repository id, name (None: it has none)."""
        return self.scenario[0], self.name

    def list_gates(self):
        """The gates that it has to pass, as those of a Ticket."""
        return list_gates(self.scenario[0], self.name, self.overlap == "parallel",
                          self.scenario[1], self.limit)

    # -- what becomes of it ------------------------------------------------------------

    def note(self, text):
        """Adds a sentence to what SCHED PLAN says of it."""
        self.notes.append(text)

    def skip(self, note):
        """It makes no session; `note` says why."""
        self.outcome = SKIPS
        self.notes.append(note)

    @property
    def turn(self):
        """What comes at one instant comes in this order, as in the Scheduler."""
        return self.at, self.event or self.at, self.schedule

    def hold_back(self, note, release, run, event):
        """It lies within a hold, which decides it: `run` is what that lets run for it, a Span, or
        None; then it comes at the release, else never (release None: not in the period)."""
        self.notes.append(note)
        if run is not None:
            self.at, self.outcome, self.is_backlog = release, self.outcome or QUEUES, run.is_backlog
            self.event = event
        else:
            self.is_held, self.outcome = True, None if release is None else SKIPS

    def overlap_with(self, other):
        """A session of its schedule still runs when it comes."""
        self.outcome = self.outcome or OVERLAPS
        self.notes.append("the one due %s still runs" % local_iso(other.due))

    def replace(self, following, now):
        """It ends now, for the next due time of its schedule."""
        self.outcome, self.end = OVERLAPS, now
        self.notes.append("stopped by the one due %s" % local_iso(following.due))

    def start(self, now):
        """It begins now (epoch seconds), and ends after its usual duration."""
        self.begin, self.end = now, now + self.duration
        self.outcome = self.outcome or (STARTS if now == self.at else QUEUES)
        if now > self.at:
            self.notes.append("waits %.3g s" % (now - self.at))

    def close(self):
        """The play is over."""
        if self.begin is None and self.end is None and self.outcome != SKIPS:
            self.outcome = UNFIT
            self.notes.append("has not begun by the end of the period")

    def estimate(self, duration, timeout):
        """How long it takes: the median of past sessions, s, or None; and its time-out."""
        self.duration, self.is_known = duration or 0.0, duration is not None
        if duration is None:
            self.notes.append("no session of its scenario has ended well yet: taken as 0 s")
        elif timeout and duration > timeout:
            self.outcome, self.duration = UNFIT, timeout
            self.notes.append("takes %g s, its timeout is %g s" % (duration, timeout))
        return self


def visit_maker(repository, schedule, duration, timetable=None):
    """make(due) -> Visit of a schedule. `duration` of past sessions, s, or None."""
    # timeout and concurrency, when there is a due time at all
    bounds = []

    def make(due):
        """The Visit of a due time."""
        if not bounds:
            try:
                _, scenario = repository.db.read(repository.scenarios.get_scenario,
                                                 schedule.scenario, schedule.version)
            except (NotFound, Unreadable):      # its due times will say so
                scenario = None
            bounds.extend((schedule.get("timeout") or (scenario and scenario.timeout),
                           scenario and scenario.concurrency or NO_LIMIT))
        timeout, concurrency = bounds
        visit = Visit(
            name=schedule.name, scenario=(repository.id, schedule.scenario), due=due,
            at=due + find_jitter(schedule.name, int(due), schedule.get("jitter"), timetable),
            overlap=schedule.get("overlap"), priority=schedule.get("priority"),
            limit=concurrency["limit"],
            on_limit=concurrency["on_limit"]).estimate(duration, timeout)
        if schedule.get("after"):
            visit.notes.append("after %s" % schedule.get("after"))
        return visit
    return make


def open_visit(repository, session, duration, now):
    """The Visit of an OpenSession: until when it runs, or from when on it may begin."""
    ticket = session.ticket
    planned = ticket.start_at or session.created
    visit = Visit(name=ticket.schedule, scenario=(repository.id, ticket.scenario),
                  due=session.due or planned, at=max(now, planned),
                  overlap="queue" if ticket.schedule and not ticket.is_parallel else "parallel",
                  priority=ticket.priority, limit=ticket.limit, on_limit="wait", begin=session.begun
                  ).estimate(duration, session.timeout)
    if session.begun is not None:
        visit.end = max(now, session.begun + visit.duration)
    return visit


def list_visits(make, timetable, begin, end):
    """Yields make(due) for each due time from begin to end."""
    due = timetable.next_after(int(-(-begin // 1)) - 1)
    while due is not None and due <= end:
        yield make(due)
        due = timetable.next_after(due)


def list_held(make, entry, begin, end, release, note):
    """list_visits of an Entry that is held until its release: what `misfire` makes of them then,
    and before them those that came due before the period and run at the release."""
    upto, spans = (NEVER_RELEASED, []) if release > end else entry.judge(release, entry.missed)
    runs = {span.first: span for span in spans if not span.reason}
    earlier = map(make, [due for due in runs if due < begin])
    for visit in itertools.chain(earlier, list_visits(make, entry.timetable, begin, end)):
        if entry.decided < visit.due <= upto:
            visit.hold_back(note, None if release > end else release, runs.get(visit.due),
                            entry.find_event())
        yield visit


# ======================================================================================
# scheduling/play.py
# Sessions played on a clock of its own, by the decisions that the ledger and the queue make.
# ======================================================================================

class Follower:
    """A schedule with `after` in a plan: what it waits for, and its due time that waits. make(due)
    -> Visit, when it has no due times of its own. `met` is {(kind, repository id, name): when};
    until `release` it is held."""

    def __init__(self, repository, schedule, make, met=(), release=0.0):
        self.schedule = repository.id, schedule.name
        self.conditions = [((kind, repository.id, name), within_s)
                           for kind, name, within_s in schedule.list_conditions()]
        self.release = release
        self.make = None if schedule.rule else make
        self._met, self._waiting = dict(met), None

    def wait(self, visit):
        """A due time waits from now on; the one before it does no more."""
        if self._waiting:
            self._waiting.skip("what it runs after had not ended well by the next due time")
        self._waiting = visit

    def meet(self, condition, now):
        """A session of this condition has ended well."""
        self._met[condition] = now

    def take(self, now):
        """[the Visit that may begin since all is met], or []."""
        if now < self.release or not (self.make or self._waiting) \
                or not are_met(self.conditions, self._met, now):
            return []
        visit, self._waiting, self._met = self._waiting or self.make(now), None, {}
        return [visit]


class Play:
    """Visits from their due time to their end, as the agent's slots, the limits of schedules and
    scenarios, and holds let them.

    `holds` are [(gate of a schedule, or None for all, Hold)]; `followers` those in whose turn a
    Visit comes that has to wait for the end of others.
    """

    def __init__(self, slots, begin=0.0, followers=(), holds=()):
        self._admission, self._now = Admission(slots), begin
        self._order = itertools.count()
        # heap of (when, order, what to do then -> Visits that come by it)
        self._events = []
        self._followers = {follower.schedule: follower for follower in followers}
        self._awaiting = collections.defaultdict(list)      # condition -> Followers
        self._stopping = []             # Visits that are stopped at this instant
        self._made = []                 # Visits of Followers that have no due times
        self._count = collections.Counter()     # scenario -> its open sessions
        # schedule -> the Visits of it that run, and that wait, in the order of their coming
        self._running = collections.defaultdict(dict)
        self._waiting = collections.defaultdict(dict)
        for gate, hold in holds:
            self._hold(gate, hold)
        for follower in sorted(followers, key=lambda follower: follower.schedule):
            self._call_at(max(begin, follower.release), self._take, follower)
            for condition, _ in follower.conditions:
                self._awaiting[condition].append(follower)

    def _hold(self, gate, hold):
        """Holds a gate, or all, from the time on that a Hold says, until its release."""
        def change(is_held, _):
            if gate is None:
                self._admission.hold(is_held)
            else:
                self._admission.hold_gate(gate, is_held)
            return []
        if hold.since <= self._now:
            change(True, None)
        else:
            self._call_at(hold.since, change, True)
        if hold.until is not None:
            self._call_at(max(self._now, hold.until), change, False)

    def take_up(self, visits):
        """Sessions that are open when the play begins, in the order of their arrival."""
        for visit in visits:
            self._count[visit.scenario] += 1
            if visit.begin is not None:
                self._admission.occupy(visit, visit.list_gates())
                self._occupy(visit)
                continue
            self._waiting[visit.schedule][visit] = None
            if visit.at > self._now:
                self._call_at(visit.at, self._come_up, visit)
            else:
                self._admission.add(visit, visit.priority, visit.list_gates())
        self._begin(self._now)

    def run(self, visits, end):
        """Visits in the order of their times -> these and those of Followers,
        with what becomes of them."""
        within = (visit for visit in visits if visit.at <= end)
        for at, together in itertools.groupby(within, key=lambda visit: max(visit.at, self._now)):
            self._advance(at)
            self._arrive_all((visit for each in together if not each.is_held
                              for visit in self._come_due(each, at)), at)
        self._advance(end)
        self._events.clear()            # what is still to come would hold the play, and be held
        visits = sorted(visits + self._made, key=lambda visit: visit.turn) if self._made else visits
        for visit in visits:
            visit.close()
        return visits

    def _call_at(self, when, function, *arguments):
        heapq.heappush(self._events,
                       (when, next(self._order), functools.partial(function, *arguments)))

    def _advance(self, now):
        """Lets happen what happens until then."""
        while self._events and self._events[0][0] <= now:
            when = self._events[0][0]
            self._arrive_all(self._happen(when), when)

    def _happen(self, when):
        """Yields the Visits that come by what happens at an instant, one thing after the other."""
        while self._events and self._events[0][0] == when:
            yield from heapq.heappop(self._events)[-1](when)

    def _come_due(self, visit, now):
        """What comes with a due time: it, unless that waits for the end of others."""
        follower = self._followers.get(visit.schedule)
        if follower is None:
            return [visit]
        follower.wait(visit)
        return self._take(follower, now)

    def _come_up(self, visit, _):
        """The start time of an open session has come, if that was not replaced."""
        if visit in self._waiting[visit.schedule]:
            self._admission.add(visit, visit.priority, visit.list_gates())
        return []

    def _take(self, follower, now):
        visits = follower.take(now)
        if follower.make:
            self._made += visits
        return visits

    def _end(self, visit, now):
        """A visit has ended -> what comes by that."""
        if visit in self._stopping or visit not in self._running[visit.schedule]:
            return []                   # it was replaced
        self._leave(visit)
        if visit.outcome == UNFIT or len(self._made) >= MAX_VISITS:
            return []
        followers = {}
        for condition in (("schedule",) + visit.schedule, ("scenario",) + visit.scenario):
            for follower in self._awaiting.get(condition, ()):
                follower.meet(condition, now)
                followers[follower.schedule] = follower
        return [other for schedule in sorted(followers)
                for other in self._take(followers[schedule], now)]

    def _arrive_all(self, visits, now):
        """Visits become sessions, as they come; then begins what may."""
        arrived = []
        for visit in visits:
            self._arrive(visit, now)
            arrived.append(visit)
        for visit in self._stopping:
            self._leave(visit)
        self._stopping = []
        self._begin(now)
        for visit in arrived:
            if visit.begin is None and visit.outcome is None:
                closed = self._admission.find_closed(visit.list_gates())
                visit.note("waits for " + (
                    "a free slot" if not self._admission.has_room else "the limit of its scenario"
                    if closed and closed[0][0] == "scenario" else "the end of the one before"))

    def _arrive(self, visit, now):
        """What becomes of a due time: as Decisions and Arrivals decide it."""
        running, waiting = self._running[visit.schedule], self._waiting[visit.schedule]
        other, replaced = find_overlap(visit.overlap, itertools.chain(
            zip(running, itertools.repeat(True)), zip(waiting, itertools.repeat(False))),
            visit.is_backlog)
        count = self._count[visit.scenario] - len(replaced)
        if other is not None:
            visit.skip("the one due %s %s" % (local_iso(other.due), "still runs"
                                              if other in running else "waits already"))
        elif weigh_limit(visit.limit, visit.on_limit, count) not in ("", "wait"):
            visit.skip("the limit of its scenario, %d" % visit.limit)
        else:
            if running and not replaced:
                visit.overlap_with(next(iter(running)))
            for other in replaced:
                self._replace(other, visit, now)
            self._count[visit.scenario] += 1
            waiting[visit] = None
            self._admission.add(visit, visit.priority, visit.list_gates())

    def _replace(self, visit, following, now):
        """A visit is stopped for the next due time of its schedule; one that runs is over when all
        that come at this instant have come."""
        if visit in self._stopping:
            return
        visit.replace(following, now)
        if visit in self._running[visit.schedule]:
            self._stopping.append(visit)
        else:
            del self._waiting[visit.schedule][visit]
            self._admission.discard(visit)
            self._count[visit.scenario] -= 1

    def _leave(self, visit):
        del self._running[visit.schedule][visit]
        self._count[visit.scenario] -= 1
        self._admission.leave(visit)

    def _begin(self, now):
        """Begins what may."""
        while True:
            visit = self._admission.take()
            if visit is None:
                return
            del self._waiting[visit.schedule][visit]
            visit.start(now)
            self._occupy(visit)

    def _occupy(self, visit):
        self._running[visit.schedule][visit] = None
        self._call_at(visit.end, self._end, visit)


# ======================================================================================
# scheduling/forecast.py
# A period played against the limits: what would overlap, queue, be skipped, never fit.
# ======================================================================================

class Forecast:
    """What a plan is made of: due times, and for a period that is to come what is open now,
    and which conditions are met."""

    def __init__(self, agent, period):
        self._agent, self._period = agent, period
        self._is_past = period.begin < period.now       # played from an empty start
        self._begin = min(period.begin, period.now)
        self._followers, self._open = [], []
        self._holds = [(None, period.hold)] if period.hold else []      # [(gate, Hold)]

    def list_streams(self, repository, schedules):
        """Yields the Visits of one of the StoredSchedules of a repository after the other; what is
        open is taken up last."""
        with repository.db.reading() as connection:
            durations = repository.views.get_durations(connection)
            opened = [] if self._is_past else repository.views.list_open(connection, self._agent)
            met = [] if self._is_past else repository.schedules.list_met(connection)
        conditions = collections.defaultdict(dict)
        for name, kind, other, ended in met:
            conditions[name][kind, repository.id, other] = ended
        for stored in schedules:
            schedule = stored.schedule
            if schedule.agent != self._agent:
                continue
            if stored.hold:
                self._holds.append((schedule_gate(repository.id, schedule.name), stored.hold))
            if stored.timetable is not None and schedule.enabled:
                yield self._list_visits(repository, stored, durations.get(schedule.scenario),
                                        conditions.get(schedule.name, {}))
        self._open += [open_visit(repository, session, durations.get(session.ticket.scenario),
                                  self._begin) for session in opened]

    def _list_visits(self, repository, stored, duration, met):
        """The Visits of a schedule, in order; what it runs after is kept in mind."""
        schedule, begin, end = stored.schedule, self._period.begin, self._period.end
        release, note = find_release(self._period.hold, stored.hold)
        if not self._is_past:
            if begin == self._begin:    # what jitter delays is still to come
                begin -= schedule.get("jitter")
            begin = max(begin, stored.decided + 0.001)
        make = visit_maker(repository, schedule, duration, stored.timetable)
        if schedule.get("after"):
            self._followers.append(Follower(repository, schedule, make, met, release))
        visits = list_visits(make, stored.timetable, begin, end)
        if note and stored.firing is not None:
            visits = list_held(make, Entry(repository, stored, Missed(release, *ON_HOLD)),
                               begin, end, release, note)
        waiting = None if self._is_past else stored.waiting
        return itertools.chain([make(waiting)] if waiting else [], visits)

    def play(self, streams):
        """Plays what list_streams has given of all repositories, as ScheduleListing.plan says."""
        begin, end = self._period.begin, self._period.end
        visits = list(list_earliest(streams, MAX_VISITS + 1, lambda visit: visit.due))
        if len(visits) > MAX_VISITS:
            end = max(begin, visits.pop().due)
        play = Play(self._period.slots, self._begin, self._followers, self._holds)
        play.take_up(self._open)
        visits = play.run(sorted(visits, key=lambda visit: visit.turn), end)
        return end, [visit for visit in visits
                     if visit.due >= begin or visit.begin is None or visit.begin >= begin]


# ======================================================================================
# scheduling/listing.py
# What is shown of schedules: how they stand, what comes, what was, and what a plan foresees.
# ======================================================================================

class ScheduleListing:
    """Looks at the schedules of all repositories, those of other agents too; nothing fires."""

    def __init__(self, schedules, places, clock):
        self._schedules, self._places, self._clock = schedules, places, clock

    def list_all(self, repository=None, name=None):
        """Yields (repository, StoredSchedule, next due time or None) of schedules."""
        troubles = []
        for owner, stored in self._read_all(repository, troubles, self._lister(name)):
            yield owner, stored, self._find_next(stored)
        if troubles:
            raise troubles[0]

    def get(self, name, repository):
        """[as list_all] of a schedule: each repository has its own. NotFound; without a name
        nothing."""
        schedules = []
        try:
            for schedule in self.list_all(repository, name) if name is not None else ():
                schedules.append(schedule)
        except RepositoryError:
            if not schedules:
                raise
        if name is not None and not schedules:
            raise NotFound("no schedule %s" % name)
        return schedules

    def _lister(self, name=None):
        """What gives the StoredSchedules of a repository by name, or the one of a name."""
        return lambda repository: (self._read(repository, row, read_last(row))
                                   for row in repository.list_schedules(name))

    def _read(self, repository, row, last=None):
        """A row -> StoredSchedule with its Last, and with the Timetable of its Entry."""
        entry = self._schedules.find(repository, row["name"])
        is_current = entry is not None and entry.revision == row["revision"]
        return repository.schedules.read(row, self._schedules.calendars,
                                         entry.timetable if is_current else None, last)

    def _read_all(self, repository, troubles, read):
        """Yields (repository, item) for each of read(repository); why another could not be read is
        told in `troubles`, for the end."""
        try:
            for owner in self._places.readable(repository):
                try:
                    for item in read(owner):
                        yield owner, item
                except RepositoryError as error:
                    troubles.append(error)
        except (Conflict, RepositoryError) as error:        # it may be being detached
            troubles.append(error)

    def _find_next(self, stored):
        timetable = stored.timetable if stored.schedule.enabled else None
        return timetable and timetable.next_after(self._find_undecided(stored))

    def _find_undecided(self, stored, begin=None):
        """From where on due times can still come: now, or later when the clock was ahead once."""
        now = self._clock.now()
        ahead = stored.decided if stored.decided > now else 0.0
        return int(max(now if begin is None else begin, ahead) // 1)

    def preview(self, name, repository, begin, end, count, with_excluded=False):
        """Yields (due, schedule, repository, note) of coming due times, in order; nothing fires."""
        self.get(name, repository)
        troubles = []

        def list_streams():
            for owner, stored in self._read_all(repository, troubles, self._lister(name)):
                if stored.timetable is not None and (name or stored.schedule.enabled):
                    yield list_coming(stored.timetable, self._find_undecided(stored, begin), end,
                                      with_excluded, (stored.schedule.name, owner.id, owner))
        for due, schedule, _, owner, before, excluded, timetable in list_earliest(
                list_streams(), count, lambda coming: coming[:3]):
            note = "excluded (%s): %s" % excluded if excluded is not None else \
                self._tell(owner, schedule, due, before, timetable)
            if note is not None:
                yield due, schedule, owner, note
        if troubles:
            raise troubles[0]

    def _tell(self, repository, name, due, before, timetable):
        """What is to be said of a due time, the one before it being `before`; None: it has fired
        already, by a clock that was ahead."""
        now = self._clock.now()
        with repository.db.reading() as connection:
            row = repository.schedules.get(connection, name)
            if due > now and repository.ledger.is_recorded(connection, name, due):
                return None
        stored = self._read(repository, row).check()
        notes = list_notes(stored.schedule, timetable, due, before) + list_holds(stored.hold)
        if before == self._find_undecided(stored):
            notes += list_ahead(before, now)
        return "; ".join(notes)

    def plan(self, period, repository, troubles):
        """Plays a Period -> (the instant up to which, [Visit] in the order of their times). What
        could not be read is told in `troubles`."""
        forecast = Forecast(self._schedules.name, period)
        return forecast.play(visits for _, visits in self._read_all(
            repository, troubles,
            lambda owner: forecast.list_streams(owner, self._lister()(owner))))

    def list_occurrences(self, name, repository, limit, period=(0.0, None)):
        """(repository, row) of occurrences, newest first: those of a period, which is the instant
        from which on they were due, and the one at which they were due (None: any)."""
        troubles = []
        rows = list(self._read_all(repository, troubles, lambda owner: owner.db.read(
            owner.ledger.list_occurrences, name, limit, *period)))
        if not any(row["schedule"] == name for _, row in rows):
            self.get(name, repository)
        yield from sorted(rows, key=lambda occurrence: occurrence[1]["due"], reverse=True)[:limit]
        if troubles:
            raise troubles[0]


# ======================================================================================
# scheduling/scheduler.py
# What is due now, and the seconds until something is due again.
#
# Thread scheduler: calls Scheduler.tick(); ends at Agent.stop().
# ======================================================================================

FIRST = 0, ""           # before the key of every Entry, for what comes up at one instant


class Scheduler:
    """Decides the due times of schedules as they come, by the standard library's sched.

    The life of an Entry, from its row until another takes its place:

        put() ----> ARMED: `due` is the instant at which it is to be looked at, and an event of
                      |    sched waits for it; without due times it rests for ever
                      |    tick(): that instant has come
                      v
                   held? ---yes--> RESTS: neither `due` nor `asked`; the release of the agent
                      | no         arms it again, that of its own hold puts another in its place
                      v
                   judge(): which due times have come, and what becomes of each: Spans
                      |    none that is to be written: straight to decided()
                      v
                   ASKED: `asked` is up to where; decide(entry, upto, spans) hands them to its
                      |    repository, which makes sessions and occurrences in one transaction
                      v
                   decided(entry, upto): written; `decided` moves on, and it is ARMED again

    put() is called by Schedules: when a repository is read, after a change of the row, at the end
    of a hold. What has no due times, a rule `startup` or `after` alone, is decided by Schedules.

    A repository that cannot be written leaves it ASKED until it can; where a DETACH refuses the
    decision and then fails, another Entry takes its place. What came due while the agent was down
    or held, the clock was stepped, or a repository was slow, is Missed: for all entries at once or
    for one of them; judge() gets the one that reaches further. What comes up at one instant does so
    by the id of its repository, then by name. Nothing is cancelled by search: an event whose entry
    was replaced or armed anew is recognised when it comes up.

    `decide` is handed down, since only who holds the repositories can write; so is
    `on_step(seconds)`, told when the clock of the day has stepped.
    """

    def __init__(self, clock, decide, on_step=lambda seconds: None):
        self._clock, self._decide, self._on_step = clock, decide, on_step
        self._events = sched.scheduler(clock.now, lambda seconds: None)
        self._entries = {}                      # key -> Entry
        self._changed = threading.Condition()
        self._is_stopping = self._is_held = False
        self._is_woken = False
        self._sleeps_until = float("inf")       # what comes before then wakes it
        self._ahead = None              # the clock of the day before the steady one, seconds
        self._missed = Missed(0.0, *DOWN)       # by all
        self._outdated = 0                      # events whose entry was replaced
        self._calls = self._kept_calls = 0      # events of call_at; so many at the last cleaning
        self._look, self._no_words = self._come_up, {}      # the same objects for all events

    # -- what it knows -----------------------------------------------------------------

    def put(self, entry):
        """Takes a schedule in, or in place of the one of its key, at once."""
        with self._changed:
            before = self._entries.get(entry.key)
            if before is not None and before.repository is entry.repository \
                    and before.revision > entry.revision:
                return                  # of two changes at once, the later was quicker
            self._drop(entry.key)
            self._entries[entry.key] = entry
            self._arm(entry)

    def remove(self, key):
        """Forgets the schedule of a key (repository id, name), if there is one."""
        with self._changed:
            self._drop(key)

    def _drop(self, key):
        before = self._entries.pop(key, None)
        self._outdated += before is not None and before.due is not None

    def find(self, key):
        """The Entry of a key, or None."""
        return self._entries.get(key)

    def list_entries(self, repository_id):
        """The Entries of a repository."""
        with self._changed:
            entries = list(self._entries.values())
        return [entry for entry in entries if entry.repository.id == repository_id]

    def call_at(self, when, function, is_wanted=lambda: True):
        """Calls function() in the scheduler's thread at a time (epoch seconds). It may be forgotten
        when it is not wanted any more."""
        with self._changed:
            self._events.enterabs(when, FIRST, self._call, (function, is_wanted))
            self._calls += 1
            self._wake(when)

    def _call(self, function, _):
        with self._changed:
            self._calls -= 1
        function()

    def decided(self, entry, upto, was_slow=False):
        """Due times are decided and written: arms the next. What came due while a slow repository
        was waited for was missed."""
        with self._changed:
            entry.settle(upto, Missed(self._clock.now(), *AWAY) if was_slow else None)
            if self._entries.get(entry.key) is entry:
                self._arm(entry)

    def hold(self, is_held):
        """Held, nothing is decided; the release decides what was due meanwhile."""
        with self._changed:
            if self._is_held and not is_held:
                self._missed = Missed(self._clock.now(), *ON_HOLD)
                for entry in list(self._entries.values()):
                    if entry.due is None and entry.asked is None:
                        self._arm(entry)
            self._is_held = is_held

    def _arm(self, entry):
        due = entry.arm()
        if due is not None:
            self._events.enterabs(due, entry.key, self._look, (entry, due), self._no_words)
            self._wake(due)

    # -- time --------------------------------------------------------------------------

    def tick(self):
        """Does everything that is due; seconds until the next, or None."""
        self._watch_clock()
        if self._outdated > len(self._entries) + 1000 \
                or self._calls > 2 * self._kept_calls + max(1000, len(self._entries) // 10):
            self._forget_outdated()     # which looks at all events
        return self._events.run(blocking=False)

    def _watch_clock(self):
        """Notices that the clock of the day has gone otherwise than the steady one."""
        before = self._clock.monotonic()
        now = self._clock.now()
        after = self._clock.monotonic()
        if after - before > STEP_S / 2:         # interrupted between the two: says nothing
            return
        step = 0.0 if self._ahead is None else now - after - self._ahead
        self._ahead = now - after
        if abs(step) < STEP_S:
            return
        with self._changed:
            if step > 0:
                self._missed = Missed(now, MISFIRE, "the clock stepped forward by %.1f s" % step)
            else:                               # what is due from now on is not missed
                self._missed = self._missed._replace(until=min(self._missed.until, now))
                for entry in self._entries.values():
                    entry.step_back(now)
        self._on_step(step)

    def _forget_outdated(self):
        """Makes the queue of events anew without those whose entry was replaced, or whose call
        nobody wants any more."""
        with self._changed:
            events, self._events = (self._events.queue,
                                    sched.scheduler(self._clock.now, lambda _: None))
            self._outdated = self._calls = 0
            for event in events:
                is_call = event.action is not self._look
                if event.argument[1]() if is_call else self._is_current(*event.argument):
                    self._events.enterabs(*event[:2], *event[-3:])
                    self._calls += is_call
            self._kept_calls = self._calls

    def _is_current(self, entry, due):
        return entry.due == due and self._entries.get(entry.key) is entry

    def _come_up(self, entry, due):
        """The event of an Entry has come up: it is judged, if it is still this one."""
        with self._changed:
            if not self._is_current(entry, due):
                self._outdated -= 1
                return
            if self._is_stopping:
                return
            entry.come_up()
            if self._is_held or entry.hold or entry.asked is not None:
                return                  # decided at the release, armed when it is written
            entry.ask()
        self._judge(entry)

    def _judge(self, entry):
        """Hands on what becomes of what has come by now -> up to where."""
        with self._changed:
            missed = max(self._missed, entry.missed)
        now = self._clock.now()
        upto, spans = entry.judge(now, missed)
        if all(span.reason for span in spans):
            entry.keep_quiet(now + EXCLUDED_S)
        entry.ask(upto)
        if spans:
            self._decide(entry, upto, spans)
        else:
            self.decided(entry, upto)
        return upto

    def decide_now(self, key):
        """Decides what has come by now, before another entry takes the place of this one: up to
        where. What is held is not decided: None."""
        with self._changed:
            entry = self._entries.get(key)
            if entry is None or entry.hold or self._is_held or self._is_stopping:
                return None
            if entry.asked is not None or entry.timetable is None:
                return self._clock.now() if entry.asked is None else entry.asked
            self._outdated += entry.due is not None
            entry.come_up()
            entry.ask()
        return self._judge(entry)

    def run(self):
        """The scheduler's thread: until stop()."""
        while not self._is_stopping:
            try:
                seconds = self.tick()
            except Exception:           # one action's fault; its event is gone, the others stay
                log.exception("scheduler")
                continue
            with self._changed:
                # at most a second, so that a step of the clock is noticed in time
                seconds = 1.0 if seconds is None else max(0.0, min(seconds, 1.0))
                if not self._is_woken and not self._is_stopping:
                    self._sleeps_until = self._clock.now() + seconds
                    self._changed.wait(seconds)
                    self._sleeps_until = float("inf")
                self._is_woken = False

    def _wake(self, when):
        if when < self._sleeps_until and not self._is_woken:
            self._is_woken = True
            self._changed.notify_all()

    def stop(self):
        """Ends run(); nothing more is decided."""
        with self._changed:
            self._is_stopping = True
            self._wake(0.0)


# ======================================================================================
# scheduling/schedules.py
# The schedules of an agent's name in all repositories: loaded, armed, fired.
# ======================================================================================

MANY_SCHEDULES = 1000   # whose objects are worth setting aside


@contextlib.contextmanager
def uncollected(count, loaded_count=0):
    """Makes the objects of so many schedules, which stay: if they are many, and not few beside
    those that are loaded already, they are not searched for garbage meanwhile, nor later. What was
    set aside so before is searched once more: it may have become garbage. That holds up all
    threads, a third of a second for 100,000 schedules."""
    if count < max(MANY_SCHEDULES, loaded_count // 2):
        yield
        return
    if hasattr(gc, "freeze"):           # Python 3.7
        gc.unfreeze()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if hasattr(gc, "freeze"):
            gc.freeze()
        gc.enable()


class Schedules:
    """What the repositories hold of an agent's schedules, kept in its Scheduler, and what that
    decides, handed to them.

    `take_made(repository, Made)` takes the session of a due time, and those that it replaces.
    """

    def __init__(self, name, places, master, clock, session_queue, agent_is_held, take_made):
        self.name = name
        self._places, self._master, self._clock = places, master, clock
        self._queue, self._agent_is_held = session_queue, agent_is_held
        self._take_made = take_made
        self._started = clock.now()
        # key of what this start fires and has not yet -> (reason, text) of what is missed by then
        self._startups = {}
        self.calendars = master.calendars()     # name -> dates; replaced, never changed
        self.scheduler = Scheduler(clock, self._decide, self._stepped)

    # -- loading -----------------------------------------------------------------------

    def forget(self, repository):
        """A repository is let go: its schedules do not fire until it is back."""
        for entry in self.scheduler.list_entries(repository.id):
            self.scheduler.remove(entry.key)

    def find(self, repository, name):
        """The Entry of a schedule of this repository as it is now, or None."""
        entry = self.scheduler.find((repository.id, name))
        return entry if entry is not None and entry.repository is repository else None

    def _make_entry(self, repository, row, now, away=None, model=None):
        """The Entry of a row. `away`: what was Missed since its last decision; None: nothing was
        away. `model`: as Entry has it. What it does not fire for is told."""
        stored = repository.schedules.read(row, self.calendars, model and model.timetable)
        if stored.trouble and stored.schedule.enabled:
            message = "does not fire: %s" % stored.trouble
            log.warning("schedule %s %s", row["name"], message)
            repository.db.submit(repository.ledger.note_failed, row["name"],
                                 int(now) + 0.5, message, now)      # at no due time
        before = self.scheduler.find((repository.id, row["name"]))
        return Entry(repository, stored, self._find_missed(stored, before, now, away), model)

    @staticmethod
    def _find_missed(stored, before, now, away):
        """What a new Entry has Missed, `before` being the one in whose place it comes, or None."""
        if before is not None and before.hold and not stored.hold:
            return Missed(now, *ON_HOLD)
        if away is not None:
            return away
        if before is not None:
            return before.missed
        # new here: what came due while that was written is not missed
        return Missed(stored.decided if now - stored.decided < WRITE_S else now, *DOWN)

    def load(self, place):
        """Reads the schedules of this agent's name and arms what is new or has changed."""
        repository, now = place.get_usable(), self._clock.now()
        why = DOWN if not place.has_started else None if place.loaded is repository else AWAY
        gone, changed = {entry.name: entry
                         for entry in self.scheduler.list_entries(repository.id)}, []
        loaded_count = len(gone)
        for name, revision, held_since in repository.db.read(
                repository.schedules.list_revisions, self.name):
            entry = gone.pop(name, None)
            if entry is None or entry.repository is not repository or entry.asked is not None \
                    or entry.revision != revision \
                    or (entry.hold and entry.hold.since) != held_since:
                changed.append(name)
        if changed:
            for schedule in repository.db.read(repository.schedules.list_stray):
                repository.db.write(repository.schedules.put_conditions, schedule)
            with contextlib.suppress(RepositoryError):      # another agent may have added some
                self.read_calendars()
        with uncollected(len(changed), loaded_count):
            away, calendars = why and Missed(now, *why), None
            for row in repository.read_schedules(changed):
                if calendars is not self.calendars:
                    calendars, models = self.calendars, collections.defaultdict(dict)
                alike = models[row["timezone"], row["options"]]     # by rule
                entry = self._make_entry(repository, row, now, away, alike.get(row["rule"]))
                if entry.timetable is not None:
                    alike[row["rule"]] = entry
                self._put(entry, not place.has_started)
        for entry in gone.values():
            self._remove(entry.key)
        if not place.has_started:
            newest = max((entry.decided for entry in self.scheduler.list_entries(repository.id)),
                         default=now)
            for note in list_ahead(newest, self._clock.now()):
                log.warning("schedules of repository %s: %s", repository.name, note)
        place.note_loaded(repository)
        self.fire_startups()
        self.decide_after(repository)

    def keep_held(self, repository):
        """Before the sessions of a repository are queued: those of held schedules do not begin."""
        for name in repository.db.read(repository.schedules.list_held, self.name):
            self._queue.hold_schedule((repository.id, name), True)

    def _remove(self, key):
        self.scheduler.remove(key)
        self._queue.hold_schedule(key, False)       # what it started goes on

    def _put(self, entry, is_start=False):
        """Takes an Entry in; `is_start`: its rule may be that of a start of the agent."""
        self._queue.hold_schedule(entry.key, entry.hold is not None)
        before = self.scheduler.find(entry.key) if entry.hold else None
        self.scheduler.put(entry)
        if entry.hold and entry.hold.until and not (before and before.hold == entry.hold):
            self.scheduler.call_at(entry.hold.until, lambda: self._hold_over(entry))
        kind = entry.timetable.rule.kind if entry.timetable else None
        is_new_boot = kind == "boot" and entry.boot != own_boot()
        if is_start and (kind == "startup" or is_new_boot and entry.boot is not None):
            self._startups[entry.key] = "", ""
        elif is_new_boot and entry.key not in self._startups:
            entry.repository.db.submit(entry.repository.decisions.note_boot, entry.name, own_boot())

    def refresh(self, repository, name):
        """Makes a change of a schedule effective at once."""
        row = repository.db.read(repository.schedules.find, name)
        if row is None or row["agent"] != self.name:
            self._remove((repository.id, name))
        else:
            self._put(self._make_entry(repository, row, self._clock.now()))
            self.fire_startups()
            if '"after"' in row["options"]:
                self.decide_after(repository)

    def read_calendars(self):
        """Takes over what has changed in the calendars.
        What has come by now is decided by the old ones, unless it is held."""
        before, self.calendars = self.calendars, self._master.calendars()
        changed = [name for name in set(before) | set(self.calendars)
                   if before.get(name) != self.calendars.get(name)]
        now = self._clock.now()
        for repository in self._places.list_open() if changed else ():
            with contextlib.suppress(RepositoryError):      # it is read when it comes back
                names = {user for name in changed
                         for user in repository.db.read(repository.schedules.list_users, name)}
                for row in repository.read_schedules(sorted(names)):
                    if row["agent"] == self.name:
                        upto = self.scheduler.decide_now((repository.id, row["name"]))
                        entry = self._make_entry(repository, row, now)
                        entry.settle(upto or 0.0)
                        self._put(entry)

    def update(self):
        """Reads the schedules and calendars again -> how many schedules are loaded."""
        self.read_calendars()
        for repository in self._places.readable():
            place = self._places.find(repository)
            if place:
                self.load(place)
        return sum(len(self.scheduler.list_entries(place.attachment.id))
                   for place in self._places.list_all())

    # -- firing ---------------------------------------------------------------------

    def _decide(self, entry, upto, spans, boot=None):
        """Hands due times to the repository; the next is armed when they are written. `boot`: the
        one that they are due for."""
        repository, began = entry.repository, self._clock.monotonic()
        failures = repository.db.failures

        def follow(pending):
            self._take(repository, pending)
            if boot is not None and isinstance(pending.error, Changed):
                self._startups.setdefault(entry.key, ("", ""))      # once it is read again
            if not isinstance(pending.error, RepositoryError):
                # a paused agent fails at nothing
                is_long = self._clock.monotonic() - began > WRITE_S
                self.scheduler.decided(entry, upto, is_long and repository.db.failures > failures)
        repository.db.submit(repository.decisions.decide, entry.name, entry.revision, upto,
                             spans, self._clock.now(), self._agent_is_held(), boot, on_done=follow)

    def _take(self, repository, pending):
        """Sessions that a decision has made are queued, those that they replace are stopped."""
        if isinstance(pending.error, Changed):
            repository.set_behind()             # what is in memory is read again
        elif pending.error is not None and not isinstance(pending.error, RepositoryGone):
            log.error("schedules of repository %s: %s", repository.name, pending.error)
        for decision in pending.value or ():
            self._take_made(repository, decision)

    def fire_startups(self):
        """Decides what a start of the agent fires; what is held then, at the release."""
        for key in list(self._startups):
            entry = self.scheduler.find(key)
            if entry and (entry.hold or self._agent_is_held()):
                self._startups[key] = ON_HOLD
                continue
            reason, text = self._startups.pop(key)
            if entry:           # the clock may have been ahead of it, or a change since
                due, (misfire, grace, _) = max(self._started, entry.decided + 0.001), entry.policy
                is_over = misfire == "skip" or grace is not None and self._clock.now() - due > grace
                is_boot = entry.timetable is not None and entry.timetable.rule.kind == "boot"
                self._decide(entry, due, [Span(due, due, 1, reason if is_over else "", text)],
                             own_boot() if is_boot else None)

    def decide_after(self, repository):
        """Decides the schedules whose conditions are met, unless the agent is held."""
        if not self._agent_is_held():
            repository.db.submit(repository.decisions.decide_after, self.name,
                                 self._clock.now(), False,
                                 on_done=lambda pending: self._take(repository, pending))

    def released(self):
        """The hold of the agent is over: what it held back is decided."""
        self.fire_startups()
        for repository in self._places.list_open():
            self.decide_after(repository)

    def _stepped(self, seconds):
        """The clock has stepped: that stands in the log and in every ledger."""
        message = "the clock stepped %s by %.1f s: %s" % (
            ("forward", seconds, "what was due between counts as missed") if seconds > 0 else
            ("back", -seconds, "what was due in that time does not fire again"))
        log.warning("%s", message)
        now = self._clock.now()
        for repository in self._places.list_open():
            repository.db.submit(repository.ledger.note_step, message, now)

    def _hold_over(self, entry):
        """A schedule's hold has come to its end, if it is still this one."""
        current, repository = self.scheduler.find(entry.key), entry.repository
        if current is not None and current.hold == entry.hold:
            def follow(pending):
                if pending.error is None:
                    self.refresh(repository, entry.name)
            repository.db.submit(repository.schedules.hold, entry.name, None, on_done=follow)


# ======================================================================================
# agent/opening.py
# Opening the master repository, and making what is not there yet.
# ======================================================================================

def make_repositories(master_path, clock):
    """Makes a master with the work repository WORKREP beside it; what is there is kept.

    Each appears whole under its name, and one process makes them: agent and --import may come
    at once. CannotStart when what is there is somebody else's.
    """
    work_path = os.path.join(os.path.dirname(os.path.abspath(master_path)), "workrep.db")
    lock_path = master_path + ".create.lock"
    lock = open_lock(lock_path, master_path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(master_path):
            return
        if os.path.exists(work_path):
            check_owner(work_path)
        else:
            with whole_database(work_path, "new") as new:
                WorkRepository(1, DEFAULT_REPOSITORY, new, clock).fill(clock).db.close()
        work = WorkRepository(1, DEFAULT_REPOSITORY, work_path, clock).open()
        work.db.close()
        with whole_database(master_path, "new") as new:
            master = Master(new, clock).open()
            master.attach_as(1, DEFAULT_REPOSITORY, work_path, work.db.uuid)
            master.db.close()
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock_path)
        os.close(lock)


def check_owner(path):
    """CannotStart when a file, or the link to it, that nobody has named is another user's."""
    for status in (os.lstat(path), os.stat(path)):
        if status.st_uid not in (os.geteuid(), 0):
            raise CannotStart(OF_ANOTHER % (path, status.st_uid))


def open_master(settings, clock):
    """The Master of these settings, made when that is wanted. CannotStart."""
    path = settings.master
    try:
        is_there = os.path.exists(path)
        if not is_there and not settings.is_creating:
            raise CannotStart("the master repository %s does not exist; --create makes it" % path)
        check_file_system(path, settings.is_insecure_fs)
        if not is_there:
            make_repositories(path, clock)
        master = Master(path, clock).open()
        tell_doors(master.db.label, path)
        return master
    except (OSError, AgentError) as error:
        raise CannotStart(str(error)) from None


def check_file_system(path, is_insecure_fs):
    """RepositoryError for a network file system, unless the user knows better."""
    kind = network_file_system(path)
    if kind and not is_insecure_fs:
        raise RepositoryError("%s is on a network file system (%s), where SQLite's locks cannot "
                              "be trusted; --insecure-fs says you know better" % (path, kind))


def open_work(attachment, clock, inbox, is_insecure_fs, is_creating=False):
    """Opens the work repository of an Attachment, whose id and uuid may be None: those of the
    file; or makes it, with OSError. RepositoryError."""
    number, name, path, expected_uuid = attachment
    check_file_system(path, is_insecure_fs)
    if is_creating:
        return WorkRepository.create(number, name, path, clock, inbox)
    if not os.path.exists(path):
        raise RepositoryError("work repository %s: %s does not exist" % (name, path))
    return WorkRepository(number, name, path, clock, inbox).open(expected_uuid)


# ======================================================================================
# agent/place.py
# An attached work repository and its owner.
#
# Thread repository NAME: the owner; opens the repository, takes it over, looks at it, cleans it and
# closes it. Ends with Place.end() or a Place.detach() that succeeds.
# ======================================================================================

class State(enum.Enum):
    """What its owner does with a work repository."""
    AWAY = "away"                   # cannot be used: tries it again from time to time
    ATTACHING = "attaching"         # opens it, reads what is outstanding and the schedules
    ATTACHED = "attached"
    DETACHING = "detaching"         # nothing new is taken
    DETACHED = "detached"           # has ended


class Standing(NamedTuple):
    """How it is with a work repository. Replaced as a whole, by its owner alone."""
    state: State
    repository: Optional[WorkRepository]    # open; None: it cannot be used now
    reason: str                             # why not


class Care(NamedTuple):
    """What the owner of a work repository does with it."""
    open: Callable          # open(attachment) -> the open WorkRepository; RepositoryError
    take_over: Callable     # take_over(place): it has come, or another program has changed it
    let_go: Callable        # let_go(repository): it cannot be used any more
    clean: Callable         # clean(repository), every `clean_every_s` seconds of `clock`
    clean_every_s: float
    clock: object


class Place:
    """An attached work repository: open, or why it is not.

    Its owner leads it from state to state; others read, or ask the owner and wait.

        away <──> attaching ──> attached ──> detaching ──> detached
          ^                      │    ^          │
          └── gone, or replaced ─┘    └──────────┘ open sessions
    """

    def __init__(self, attachment, care, repository=None):
        """`repository`: what ATTACH has opened already; its rule `startup` fires nothing."""
        self.attachment = attachment
        self.has_started = repository is not None   # schedules with the rule startup have fired
        self.loaded = None                  # the repository of which they were read last
        self._care = care
        self._standing = Standing(State.ATTACHING, repository, "not attached yet")
        self._version = None                # data_version last seen
        self._is_told = False               # who else may write its folder
        self._is_ending = False
        self._clean_due = 0.0
        self._asking = threading.Lock()     # for the next two
        self._asked = queue.Queue()         # functions for the owner
        self._has_ended = False             # it takes no more of them
        self._settled = threading.Event()   # after the first attaching, well or badly
        self._fault = ""                    # what its owner cannot do, until it can
        self._owner = None                  # its thread, once there is one
        self._starting = threading.Lock()   # for that

    # -- what others read --------------------------------------------------------------

    @property
    def state(self):
        """What its owner does with it now."""
        return self._standing.state

    @property
    def repository(self):
        """The open WorkRepository, or None. It may change from one reading to the next."""
        return self._standing.repository

    @property
    def reason(self):
        """Why it cannot be used now, or nothing."""
        _, repository, reason = self._standing
        return reason if repository is None else repository.db.trouble or self._fault

    def get_usable(self):
        """The open WorkRepository. Conflict while it is being detached, RepositoryError."""
        state, repository, reason = self._standing
        name = self.attachment.name
        if state == State.DETACHING:
            raise Conflict("work repository %s is being detached" % name)
        if repository is None:
            raise RepositoryError(reason if name in reason
                                  else "work repository %s: %s" % (name, reason))
        return repository

    def note_loaded(self, repository):
        """Its schedules have been read, those with the rule startup included."""
        self.has_started, self.loaded = True, repository

    # -- what others ask of the owner --------------------------------------------------

    def start(self):
        """Starts the owner, if there is none. Busy: the host has no thread for it now."""
        with self._starting:
            if self._owner is not None or self._is_ending:
                return
            owner = Worker(self._run, name="repository " + self.attachment.name)
            try:
                owner.start()
            except RuntimeError as error:
                self.let_go(str(error))
                self._settled.set()
                raise Busy("no further thread can be started for work repository %s"
                           % self.attachment.name) from None
            self._owner = owner

    def wait_settled(self, timeout_s=None):
        """Whether the first attaching is over, well or badly."""
        return self._settled.wait(timeout_s)

    def detach(self, leave):
        """Has the owner let go of it and end; leave() takes it out of the master and the places.
        Conflict while it has open sessions; Stopping; what leave() raises: then it stays."""
        if self._owner is None:
            raise RepositoryError(self.reason)
        answer = concurrent.futures.Future()

        def ask():
            try:
                self._detach(leave)
                answer.set_result(None)
            except Exception as error:
                answer.set_exception(error)
        self._ask(ask)
        answer.result()
        self._owner.join()

    def _ask(self, function):
        with self._asking:
            if self._has_ended:
                raise Stopping("work repository %s is closed" % self.attachment.name)
            self._asked.put(function)

    def end(self):
        """Closes the repository, what is waiting is written down first, and ends the owner."""
        self._is_ending = True
        with contextlib.suppress(Stopping):
            self._ask(lambda: None)
        repository = self.repository
        if repository:
            repository.db.close()       # also ends what the owner waits for
        if self._owner is not None:
            self._owner.join()

    # -- the owner ---------------------------------------------------------------------

    def _run(self):
        """Attaches, then does what is asked, or every ATTACH_S seconds looks, until the end."""
        self._carefully(self.attach)
        self._settled.set()
        while not self._is_ending and self.state != State.DETACHED:
            self._carefully(self._wait_asked())
        with self._asking:
            self._has_ended = True
        while not self._asked.empty():  # whoever asked too late has an answer
            self._carefully(self._asked.get())
        repository = self.repository
        if repository:                  # it came when the end had
            repository.db.close()

    def _wait_asked(self):
        """What is asked next, or look() when it is time for that or something is wrong beside it.
        """
        for _ in range(int(ATTACH_S / GLANCE_S)):
            with contextlib.suppress(queue.Empty):
                return self._asked.get(timeout=GLANCE_S)
            repository = self.repository
            if repository and repository.db.is_torn:
                break
        return self.look

    def _carefully(self, function):
        """What fails is told, once, and it is DEGRADED until that has gone well."""
        fault = ""
        try:
            function()
        except AgentError as error:
            fault = error.message
            if fault != self._fault:
                log.warning("%s: %s", self.attachment.name, fault)
        except Exception as error:
            fault = "it cannot be looked after: %s: %s" % (type(error).__name__, one_line(error))
            if fault != self._fault:
                log.exception("work repository %s", self.attachment.name)
        if self._fault and not fault:
            log.info("work repository %s is looked after again", self.attachment.name)
        self._fault = fault

    def attach(self):
        """Opens the repository and takes over what this agent's name owns in it, or is AWAY."""
        _, repository, reason = self._standing
        self._standing = Standing(State.ATTACHING, repository, reason)
        try:
            repository = repository or self._care.open(self.attachment)
            self._standing = Standing(State.ATTACHING, repository, "")
            if not self._is_told:       # once
                self._is_told = True
                tell_doors(repository.db.label, repository.path)
            self._take_over(repository)
            log.info("work repository %s is attached", self.attachment.name)
        except RepositoryError as error:
            if repository is not None and repository.db.is_read_only:
                return                  # look() takes it over when it can be written
            if not self._is_ending:
                self.let_go(error.message)

    def _take_over(self, repository):
        """Reads what is outstanding and the schedules; if it fails, it stays to be done."""
        if self._is_ending:
            return
        repository.set_behind(False)
        try:
            self._version = repository.db.read_version()    # what comes later is seen
            self._care.take_over(self)
        except Exception:
            repository.set_behind()
            raise
        self._standing = Standing(State.ATTACHED, repository, "")

    def let_go(self, reason):
        """The repository cannot be used: its schedules stop. One that is AWAY is tried again."""
        _, repository, before = self._standing
        if reason != before:
            log.warning("%s", reason)
        self._standing, self._version = Standing(State.AWAY, None, reason), None
        if repository:
            self._care.let_go(repository)
            repository.db.close(0.0)

    def look(self):
        """Attaches it again, looks at its health, reads it again, or cleans it."""
        repository = self.repository
        if repository and repository.db.is_gone:
            self.let_go("%s: %s" % (repository.db.label, repository.db.trouble))
            repository = None
        if repository is None:
            self.attach()
            return
        with contextlib.suppress(RepositoryError):          # then it has trouble, and says it
            repository.db.probe()
            version = repository.db.read_version(within_s=1.0)
            if version != self._version:                    # another program has written
                repository.set_behind()
        if repository.db.trouble:
            return
        if repository.is_behind:
            self._take_over(repository)
        elif self._care.clock.monotonic() >= self._clean_due:
            self._care.clean(repository)
            self._clean_due = self._care.clock.monotonic() + self._care.clean_every_s

    def _detach(self, leave):
        """Nothing is let go of before leave() has gone well."""
        if self._is_ending:
            raise Stopping("the agent is stopping and detaches nothing")
        before, repository = self._standing, self._standing.repository
        self._standing = before._replace(state=State.DETACHING)
        try:
            # by the writer, so behind every session that was taken before; none comes after
            if repository and not repository.db.write(repository.arrivals.close_door):
                raise Conflict("work repository %s has open sessions" % self.attachment.name)
            leave()
        except Exception:
            self._standing = before
            if repository and repository.arrivals.open_door():
                repository.set_behind()     # due times may have come to a closed door
            raise
        self._standing = Standing(State.DETACHED, None, "detached")
        log.info("work repository %s is detached", self.attachment.name)
        if repository:
            self._care.let_go(repository)
            repository.db.close()


# ======================================================================================
# agent/places.py
# The attached work repositories: found, attached and detached.
# ======================================================================================

class Places:
    """The attached work repositories: finds, attaches and lets go of them.

    The set of them is replaced, never changed: who reads it needs no lock. Who replaces it holds
    `_changing`, from the look at what is attached until that is so no more, or is attached.
    """

    def __init__(self, master, care):
        """`care`: the Care that the owners take of each."""
        self._master, self._care = master, care
        self._changing = threading.Lock()
        self._entering = threading.Lock()   # held while a place comes into the set, or none may
        self._is_closed = False             # none comes any more
        self._places = {}                   # id -> Place, by id
        self._put(*[Place(attachment, care) for attachment in master.list_attachments()])

    def find(self, repository):
        """The Place that holds this repository now, or None."""
        place = self._places.get(repository.id)
        return place if place is not None and place.repository is repository else None

    def find_by_id(self, number):
        """The Place of a work repository's id, or None."""
        return self._places.get(number)

    def list_all(self):
        """The attached repositories by id."""
        return list(self._places.values())

    @property
    def is_single(self):
        """Whether one work repository is attached."""
        return len(self._places) == 1

    def list_open(self):
        """The repositories that are open now, by id."""
        return [repository for repository in (place.repository for place in self.list_all())
                if repository is not None]

    def _named(self, name):
        """The Place of a name; of the lowest id when it is None. NotFound."""
        for place in self.list_all():
            if name in (None, place.attachment.name):
                return place
        raise NotFound("no work repository %s is attached" % (name or "at all"))

    def get(self, name):
        """The repository of a name; of the lowest id when it is None. NotFound, RepositoryError."""
        return self._named(name).get_usable()

    def of_session(self, session):
        """The repository that a session's number tells. NotFound, RepositoryError."""
        place = self._places.get(session % 1000)
        if place is None:
            raise NotFound("no session %d: no work repository of id %d is attached"
                           % (session, session % 1000))
        return place.get_usable()

    def with_scenario(self, name, version, repository=None):
        """The repository that is named or, without a name, the attached one of the lowest id that
        has a scenario. NotFound, RepositoryError."""
        places = [self._named(repository)] if repository else self.list_all()
        if len(places) == 1:            # nothing is read
            return places[0].get_usable()
        for place in places:
            candidate = place.get_usable()
            if candidate.db.read(candidate.scenarios.has, name, version):
                return candidate
        is_known = any(candidate.db.read(candidate.scenarios.has, name, "-1")
                       for candidate in map(Place.get_usable, places))
        raise NotFound("no attached repository has %s"
                       % ("version %s of scenario %s" % (version, name) if is_known
                          else "a scenario " + name))

    def with_schedule(self, name, repository):
        """The repository that is named or, without a name, has this schedule."""
        if repository is not None:
            return self.get(repository)
        places = self.list_all()
        for place in places:
            candidate = place.get_usable()
            if len(places) == 1 or candidate.db.read(candidate.schedules.find, name) is not None:
                return candidate
        raise NotFound("no attached repository has a schedule %s" % name)

    def readable(self, name=None):
        """Yields the repositories, or the named one; at the end raises what could not be used."""
        trouble = None
        for place in self.list_all() if name is None else [self._named(name)]:
            try:
                yield place.get_usable()
            except (Conflict, RepositoryError) as error:
                trouble = error
        if trouble:
            raise trouble

    # -- the set of them ---------------------------------------------------------------

    def attach_all(self):
        """Starts the owner of every repository. One that cannot be opened or written goes on
        alone; one that is only large is waited for."""
        until = self._care.clock.monotonic() + WRITE_S
        self.start_all()
        for place in self.list_all():
            while not place.wait_settled(0.05) \
                    and (self._care.clock.monotonic() < until or not place.reason):
                pass

    def start_all(self):
        """Starts the owners that are not there yet."""
        for place in self.list_all():
            with contextlib.suppress(Busy):         # the next time
                place.start()

    def _put(self, *added, without=()):
        """Another set: with these places, without those of these ids."""
        places = {number: place for number, place in self._places.items() if number not in without}
        places.update((place.attachment.id, place) for place in added)
        self._places = dict(sorted(places.items()))

    def _enter(self, place):
        """Takes a place into the set and starts its owner. Busy, Stopping: then it is not there."""
        if self._is_closed:
            raise Stopping("the agent is stopping and attaches nothing")
        self._put(place)                # first: its owner looks for it there
        try:
            place.start()
        except Busy:
            self._put(without={place.attachment.id})
            raise

    def follow_master(self):
        """Another agent on this master may have attached or detached repositories, also another
        one in place of one. AgentError: the first trouble, after all that could be done."""
        if not self._changing.acquire(blocking=False):
            return                      # the next time
        trouble = None
        try:
            attached = {attachment.id: attachment for attachment in self._master.list_attachments()}
            for number, place in list(self._places.items()):
                if attached.get(number) != place.attachment:
                    try:
                        place.detach(functools.partial(self._put, without={number}))
                    except Conflict:    # when its sessions have ended
                        pass
                    except AgentError as error:
                        trouble = trouble or error
            for number in set(attached) - set(self._places):
                with self._entering:
                    self._enter(Place(attached[number], self._care))
        finally:
            self._changing.release()
        if trouble:
            raise trouble

    def attach(self, name, path, is_creating):
        """Attaches a work repository -> its id, also when it cannot be used by then.

        Exists, NotFound, Busy, Conflict, Stopping, RepositoryError: it is not attached.
        """
        path = os.path.join(os.path.dirname(self._master.path), path)
        with self._changing:
            attached = self._list_attached()
            if name in (a.name for a in attached):
                raise Exists("a work repository %s is attached" % name)
            if any(os.path.exists(path) and os.path.exists(a.path)
                   and os.path.samefile(a.path, path) for a in attached):
                raise Exists("%s is attached already" % path)
            if is_creating:
                repository = self._create_work(name, path, attached)
            elif os.path.exists(path):
                repository = self._care.open(Attachment(None, name, path, None))
            else:
                raise NotFound("%s does not exist; -CREATE makes it" % path)
            try:
                place = self._take_in(repository, name, path)
            except AgentError:
                repository.db.close()
                if is_creating:
                    os.unlink(path)
                raise
        place.wait_settled()
        return place.attachment.id

    def _list_attached(self):
        """The Attachments in the master, and those that are gone from there but still open here."""
        attached = self._master.list_attachments()
        numbers = [attachment.id for attachment in attached]
        return attached + [place.attachment for place in self.list_all()
                           if place.attachment.id not in numbers]

    def _take_in(self, repository, name, path):
        """Notes an open repository in the master and takes it into the set -> its Place."""
        with self._entering:
            if self._is_closed:
                raise Stopping("the agent is stopping and attaches nothing")
            if repository.id in self._places:
                raise Exists("a work repository of id %d is attached" % repository.id)
            place = Place(self._master.attach_as(repository.id, name, path, repository.db.uuid),
                          self._care, repository)
            try:
                self._enter(place)
            except AgentError:
                self._master.detach(repository.id)
                raise
        return place

    def _create_work(self, name, path, attached):
        """Makes a work repository of the lowest free id -> it, open. Busy, Exists,
        RepositoryError."""
        used = [attachment.id for attachment in attached]
        number = next((n for n in range(1, MAX_REPOSITORIES + 1) if n not in used), None)
        if number is None:
            raise Busy("a master has at most %d work repositories" % MAX_REPOSITORIES)
        try:
            return self._care.open(Attachment(number, name, path, None), is_creating=True)
        except FileExistsError:
            raise Exists("%s exists; ATTACH it without -CREATE" % path) from None
        except OSError as error:
            raise RepositoryError("%s cannot be made: %s" % (path, error.strerror)) from None

    def detach(self, name):
        """Detaches a work repository. NotFound; Conflict while it has open sessions."""
        def leave():
            self._master.detach(place.attachment.id)
            self._put(without={place.attachment.id})
        with self._changing:
            place = self._named(name)
            place.detach(leave)

    def close(self):
        """Closes the repositories and ends their owners; what is waiting is written down first."""
        # who attaches or detaches now may wait long for a locked file: that ends with the file
        has_waited = self._changing.acquire(timeout=TERM_S)
        try:
            with self._entering:
                self._is_closed = True
            for place in self.list_all():
                place.end()
        finally:
            if has_waited:
                self._changing.release()


# ======================================================================================
# agent/housekeeping.py
# What is done from time to time: cleaning, the heartbeat, purging.
#
# Thread keeper: does what is due of it; ends at Keeper.stop().
# ======================================================================================

class Cleaner:
    """Finds stale sessions by fact, ends what they left running, deletes what they left half
    written, and closes or queues them."""

    def __init__(self, name, identity, session_queue, clock, on_closed):
        self._name, self._identity, self._queue, self._clock = name, identity, session_queue, clock
        self._on_closed = on_closed     # on_closed(repository, Ending) after the commit
        self._reported = set()          # sessions of other hosts
        self._told = Told()             # why sessions cannot be cleaned
        self._locks = collections.defaultdict(threading.Lock)       # repository id -> one at a time

    def clean(self, repository, host=None):
        """Ends what stale sessions left running, then closes or queues them -> how many. What is
        wrong with one of them costs that one alone: it is told, and looked at again."""
        # a second one would end what the first has begun anew
        with self._locks[repository.id]:
            rows = repository.db.read(repository.sessions.list_running, self._name)
            roots = {}                  # session -> {pid: start time} of what it has under way
            stale = [row for row in rows
                     if self._carefully(row, self._is_to_close, repository, row, host, roots)]
            if not stale:
                return 0
            stale = self._end_processes(repository, stale, roots)
            sessions = {row["id"] for row in stale}
            clear_notes(repository.parts, [path for path, session in repository.parts.list_all()
                                           if session in sessions])
            pendings = [(row, repository.db.submit(repository.endings.close_stale, row,
                                                   self._clock.now(), within_s=WRITE_S))
                        for row in stale]
            return sum(self._carefully(row, self._follow_up, repository, pending) or 0
                       for row, pending in pendings)

    def _carefully(self, row, work, *arguments):
        """work(*arguments) for a session's row, or None when it fails, which is told once."""
        value, text = None, ""
        try:
            value = work(*arguments)
        except AgentError as error:
            text = error.message
        except Exception as error:
            text = tell_traceback(error)
        if self._told.is_new((work.__name__, row["id"]), text):
            log.error("session %d cannot be cleaned: %s", row["id"], text)
        return value

    def _is_to_close(self, repository, row, host, roots):
        """Whether a row's session is stale, and is not taken up again; `roots` gets what it has
        under way, where that is known by its numbers."""
        if not self._is_stale(repository, row, host):
            return False
        runner, me = Identity.parse(row["ran_by"]), self._identity
        is_here = runner is not None and (runner.host, runner.boot, runner.pid_ns) == (
            me.host, me.boot, me.pid_ns)
        ticket = repository.find_adoptable(
            row, lambda pid, started: is_here and lives(pid, started))
        if ticket is not None:
            self._queue.adopt(ticket, repository)
            return False
        roots[row["id"]] = repository.find_roots(row["id"]) if is_here else {}
        return True

    @staticmethod
    def _end_processes(repository, rows, roots):
        """Ends what stale sessions left running -> the rows of those of which nothing is left."""
        def tree(rows):
            numbers = {}
            for row in rows:
                numbers.update(roots[row["id"]])
            return Tree(["%s/%d" % (repository.db.uuid, row["id"]) for row in rows], numbers)
        count = tree(rows).end()
        if not count:
            return rows
        log.error("%d processes of stale sessions cannot be ended", count)
        return [row for row in rows if not tree([row]).find()]

    def _follow_up(self, repository, pending):
        """Waits until a session is closed, or queued again -> whether it was stale still."""
        ending = pending.result()
        if ending is None:
            return False
        log.warning("session %d was stale: now %s", ending.session, ending.status)
        self._on_closed(repository, ending)
        return True

    def _is_stale(self, repository, row, gone_host):
        """Whether nothing runs a session that its repository shows as running: by fact."""
        runner, me = Identity.parse(row["ran_by"]), self._identity
        if runner is None:
            return True
        if runner == me:
            if self._queue.has(row["id"]):
                return False
            # it may have ended since it was read, and begun anew by a RESTART
            now = repository.db.read(repository.sessions.find, row["id"])
            return now is not None and now["status"] == RUNNING \
                and (now["ran_by"], now["begun"]) == (row["ran_by"], row["begun"])
        if runner.host != me.host:
            if runner.host == gone_host:
                return True
            return self._report(row, "runs on another host, %s; CLEAN -HOST= closes those "
                                "of a host that is gone" % runner.host)
        if runner.boot != me.boot:
            return True
        if runner.pid_ns == me.pid_ns:      # a copy of the master has another lock: ask the kernel
            return start_time(runner.pid) != runner.started
        if runner.master == me.master:      # a container before this one: this agent has its lock
            return True
        return self._report(row, "runs in another pid namespace of this host")

    def _report(self, row, text):
        if row["id"] not in self._reported:
            self._reported.add(row["id"])
            log.warning("session %d %s: left alone", row["id"], text)
        return False


class Keeper:
    """Housekeeping: does what is due of the heartbeat, what the master has anew, and purging."""

    def __init__(self, agent, cleaner):
        self._agent, self._cleaner = agent, cleaner
        self._due = {}                  # what -> monotonic seconds
        self._trouble = ""              # why the last heartbeat failed, in words
        self._is_over = threading.Event()

    def run(self):
        """The keeper's thread: until stop()."""
        while not self._is_over.wait(GLANCE_S):
            try:
                self.keep()
            except AgentError as error:
                if error.message != self._trouble:
                    log.warning("%s", error)
                self._trouble = error.message
            except Exception:
                log.exception("keeper")

    def stop(self):
        """Ends run()."""
        self._is_over.set()

    def keep(self):
        """Does what is due now."""
        agent, settings = self._agent, self._agent.settings
        if self._is_due("look", ATTACH_S):
            with contextlib.suppress(RepositoryError):      # it has trouble, and says it
                agent.master.db.probe()
        if agent.master.db.is_torn:
            agent.master.db.submit(do_nothing)          # its writer mends that
        agent.places.start_all()        # whatever had no thread
        agent.queue.start_threads()
        if self._is_due("heartbeat", HEARTBEAT_S):
            agent.master.heartbeat(agent.name, agent.clock.now())
            agent.schedules.read_calendars()
            agent.places.follow_master()
            self._trouble = ""
        if self._is_due("purge", 3600.0):
            for repository in agent.places.list_open():
                if not repository.db.trouble:
                    with contextlib.suppress(RepositoryError):      # the next hour's turn
                        self._purge_old(repository, settings.keep_days)

    def _is_due(self, what, every_s):
        now = self._agent.clock.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def clean(self, host=None):
        """Cleans stale sessions everywhere -> how many; `host` closes those of a host gone."""
        return sum(self._cleaner.clean(repository, host)
                   for repository in self._agent.places.readable())

    def purge(self, filters, is_dry=False):
        """Deletes the ended sessions that a PurgeFilter names, their log and old occurrences ->
        how many sessions; `is_dry`: how many it would."""
        return sum(repository.db.read(repository.views.count_purged, filters) if is_dry
                   else self._purge(repository, filters)
                   for repository in self._agent.places.readable())

    def _purge_old(self, repository, days):
        """What nobody asked for, so not on the word of a clock that may be wrong."""
        is_believed, jump_s = repository.db.write(repository.views.weigh_clock,
                                                  self._agent.clock.now())
        if jump_s is not None:
            log.warning("%s: the clock is %.1f days ahead of the last look at it: nothing is "
                        "purged before it has stood for a day",
                        repository.db.label, jump_s / 86400)
        if is_believed:
            count = self._purge(repository, PurgeFilter(
                self._agent.clock.now() - days * 86400))
            if count:
                log.info("%s: %d sessions older than %d days are purged",
                         repository.db.label, count, days)

    @staticmethod
    def _purge(repository, filters):
        newest = repository.db.read(repository.views.find_newest_purged, filters)
        # some at a time, until there are no more
        return sum(iter(lambda: repository.db.write(repository.views.purge, filters, newest), 0))


# ======================================================================================
# agent/waits.py
# What a session waits for: in a word, and in words.
# ======================================================================================

class Wait(NamedTuple):
    """What a session waits for, as memory knows it; both empty: nothing that is known."""
    word: str               # time, hold, limit, slot, repository, children
    text: str


NO_WAIT = Wait("", "")
MAX_NAMED = 4           # sessions that a message names


class Waits:
    """Tells what sessions of this agent wait for; of another's it knows the start time alone."""

    def __init__(self, agent):
        self._agent = agent

    def of_row(self, row):
        """The Wait of a row of session."""
        if row["status"] in OUTSTANDING:
            return self._find(row["id"], row["agent"], find_time(row["start_at"]), row["schedule"])
        child = self._find_child(row["id"]) if row["status"] == RUNNING else None
        return NO_WAIT if child is None else Wait(FOR_CHILDREN, "waits for session %d" % child)

    def of_ticket(self, ticket):
        """The Wait of a session that was just acknowledged."""
        return self._find(ticket.session, ticket.agent, ticket.start_at, ticket.schedule) \
            if ticket.status in OUTSTANDING else NO_WAIT

    def _find_child(self, number):
        session = self._agent.queue.find(number)
        return session and session.child

    def _find(self, number, owner, start_at, schedule):
        """The Wait of one that has not begun; of several things that which will take longest, as
        far as that can be told."""
        agent, now = self._agent, self._agent.clock.now()
        if start_at is not None and start_at > now:
            return Wait(AT_TIME, "begins at %s" % tell_clock(start_at, now))
        if owner != agent.name:
            return Wait("", "it is for agent %s to begin it" % owner)
        place = agent.places.find_by_id(number % 1000)
        if place is not None and place.reason:
            return Wait(LOST, place.reason)
        if agent.hold is not None:
            return Wait(HELD, tell_hold(agent.hold, now))
        entry = schedule and place and place.repository \
            and agent.schedules.find(place.repository, schedule)
        if entry and entry.hold is not None:
            return Wait(HELD, "schedule %s is %s" % (schedule, tell_hold(entry.hold, now)))
        if agent.is_stopping:
            return Wait("", "the agent is stopping: its next start begins it")
        return self._find_obstacle(number)

    def _find_obstacle(self, number):
        """The Wait for a place at a limit, or for a slot."""
        sessions = self._agent.queue
        obstacle = sessions.find_obstacle(number)
        if obstacle is None:
            return Wait(*sessions.delays.find(number) or NO_WAIT)
        if obstacle.gate is not None:
            kind, _, name = obstacle.gate
            name = "schedule " + name if kind == "schedule" else name
            return Wait(LIMIT, tell_limit(obstacle.limit, name, obstacle.keys))
        # those that wait for a child have lent their slot
        running = [key for key in obstacle.keys if self._find_child(key) is None]
        return Wait(FOR_SLOT, tell_limit(sessions.slots, "the agent", running)) \
            if running else NO_WAIT


def tell_limit(limit, name, numbers):
    """Which sessions fill a limit, in words: `limit 1 of LOAD: session 3001 runs`."""
    names = [str(number) for number in sorted(numbers)]
    if len(names) > MAX_NAMED:
        names[MAX_NAMED - 1:] = ["%d more" % (len(names) - MAX_NAMED + 1)]
    return "limit %d of %s: session%s %s run%s" % (
        limit, name, "" if len(names) == 1 else "s", join_words(names),
        "s" if len(names) == 1 else "")


def join_words(words):
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def tell_hold(hold, now):
    """A Hold in words: `held by ops since 22:00: maintenance`."""
    text = "held by %s since %s" % (hold.by, tell_clock(hold.since, now))
    if hold.until is not None:
        text += " until %s" % tell_clock(hold.until, now)
    return text + (": " + hold.reason if hold.reason else "")


def tell_clock(instant, now):
    """An instant as people say it in the agent's zone: 22:00, and the date where that is another
    than that of now. Seconds are there when there are any."""
    moment, today = time.localtime(instant), time.localtime(now)
    text = time.strftime("%H:%M:%S" if moment.tm_sec else "%H:%M", moment)
    return text if moment[:3] == today[:3] else time.strftime("%Y-%m-%d ", moment) + text


# ======================================================================================
# agent/watch.py
# What other sessions, clients and tasks may see: topology, ends of sessions, logs, children.
# ======================================================================================

LOOK_S = 2.0            # between two looks whether a client is still there
READERS_AT_ONCE = 2     # of those who follow logs of a repository
LOG_PAGE = 500          # lines of a log that are read at once


class Topology:
    """What stands behind a logical schema; where its secrets are to be read is told in it."""

    def __init__(self, master):
        self._master = master

    def data_server(self, schema, context):
        """{name, driver, database, connect, physical_schema} of a schema. TaskError."""
        row = self._master.find_physical(schema, context)
        if row is None:
            raise TaskError("logical schema %s has no data server in context %s"
                            % (schema, context))
        server, physical = row
        return dict(self._get(server), physical_schema=physical)

    def mail_server(self):
        """The data server MAIL. TaskError."""
        server = self._get("MAIL")
        if server["driver"] != "smtp":
            raise TaskError("the data server MAIL has the driver %s, not smtp" % server["driver"])
        return server

    def _get(self, name):
        """A data server as stored. TaskError."""
        server = self._master.find_data_server(name)
        if server is None:
            raise TaskError("no data server %s" % name)
        return server


class Bell:
    """Wakes one who waits for what becomes of a session, by whoever knows that something has.

    on_ring() is called at each ringing, by the thread that rings.
    """

    def __init__(self, number, repository, on_ring=lambda: None):
        self.number, self.repository = number, repository
        self._on_ring, self._event, self._may_have_ended = on_ring, threading.Event(), True
        self._lock = threading.Lock()           # for these two

    def ring(self, may_have_ended=True):
        """Something is new: maybe the end of the session, else lines of its log."""
        with self._lock:
            self._may_have_ended = self._may_have_ended or may_have_ended
            self._event.set()
        self._on_ring()

    @property
    def has_rung(self):
        """Whether it has rung since the last look at the session."""
        return self._event.is_set()

    @property
    def patience_s(self):
        """How long to wait for it at most: the session is looked at again when it could not be
        read. None: until it rings."""
        return LOOK_S if self._may_have_ended else None

    def wait(self, timeout_s):
        """Waits until it rings, so many seconds at most."""
        self._event.wait(timeout_s)

    def find_end(self):
        """The row of the session when it has ended, else None. Nothing is read while nothing says
        that it may have. NotFound, RepositoryGone."""
        with self._lock:
            self._event.clear()
            may_have_ended, self._may_have_ended = self._may_have_ended, False
        if not may_have_ended:
            return None
        try:
            row = self.repository.db.read(self.repository.sessions.get, self.number)
        except RepositoryGone:
            raise
        except RepositoryError:         # it cannot be read now: the waiting goes on
            with self._lock:
                self._may_have_ended = True
            return None
        return row if row["status"] in ENDED else None


class Watch:
    """Waits for the ends of sessions and follows their logs, for those who ask: each waits for his
    Bell, and reads nothing until it rings."""

    def __init__(self, places, clock):
        self._places, self._clock = places, clock
        self._bells = {}                # session -> [Bell]
        self._lock = threading.Lock()
        self._is_over = False           # the agent has stopped
        self._turns = {}                # repository id -> Semaphore of those who read logs there

    # -- bells -------------------------------------------------------------------------

    @contextlib.contextmanager
    def bell(self, number, on_ring=lambda: None):
        """A Bell of a session, while somebody waits for it. NotFound, RepositoryError."""
        bell = Bell(number, self._places.of_session(number), on_ring)
        with self._lock:
            self._bells.setdefault(number, []).append(bell)
        try:
            yield bell
        finally:
            with self._lock:
                self._bells[number].remove(bell)
                if not self._bells[number]:
                    del self._bells[number]

    def close(self):
        """Who waits for what is outstanding has its answer now."""
        self._is_over = True
        with self._lock:
            numbers = list(self._bells)
        for number in numbers:
            self.ended(number)

    def ended(self, number, may_have_ended=True):
        """A session has ended, or will not: whoever waits for that looks again."""
        with self._lock:
            bells = list(self._bells.get(number, ()))
        for bell in bells:
            bell.ring(may_have_ended)

    def logged(self, number):
        """New lines of a session's log are on disk."""
        self.ended(number, may_have_ended=False)

    def look(self, repository):
        """Another program has written to a repository: what is waited for may have ended there, or
        have new lines. RepositoryError."""
        with self._lock:
            numbers = [number for number, bells in self._bells.items()
                       if bells[0].repository is repository]
        if numbers:
            ended = repository.db.read(repository.sessions.list_ended, numbers)
            for number in numbers:
                self.ended(number, number in ended)

    def let_go(self, repository):
        """A repository is used no more: who waits for a session of it is told that."""
        with self._lock:
            bells = [bell for bells in self._bells.values() for bell in bells
                     if bell.repository is repository]
        for bell in bells:
            bell.ring()

    # -- sessions ----------------------------------------------------------------------

    def wait(self, number, timeout_s=None, has_left=lambda: False):
        """Waits for the end of a session -> its row. WaitTimeout, Stopping, NotFound.

        has_left() tells that nobody waits for the answer any more.
        """
        until = None if timeout_s is None else self._clock.monotonic() + timeout_s
        with self.bell(number) as bell:
            while True:
                row = bell.find_end()
                if row is not None:
                    return row
                if self._is_over:
                    raise gone_before(number)
                wait_s = LOOK_S if until is None else min(LOOK_S, until - self._clock.monotonic())
                if has_left():
                    raise WaitTimeout("session=%d goes on, nobody waits for it here" % number)
                if wait_s <= 0:
                    raise WaitTimeout("session=%d has not ended in %g s" % (number, timeout_s))
                bell.wait(wait_s)

    def list_sessions(self, filters, repository, limit):
        """Yields rows of sessions, newest first, a page at a time: nothing stays open between."""
        def pages(source):
            below, size = 1 << 62, min(limit, 500)
            while below:
                rows = source.db.read(source.views.list_sessions, filters, below, size)
                yield from rows
                below = rows[-1]["id"] if len(rows) == size else None
        trouble, streams = None, []
        try:
            for source in self._places.readable(repository):
                streams.append(pages(source))
        except (Conflict, RepositoryError) as error:        # it may be being detached
            trouble = error
        yield from itertools.islice(heapq.merge(*streams, reverse=True, key=lambda row:
                                                (row["created"], row["id"])), limit)
        if trouble:
            raise trouble

    def list_log(self, number, filters, is_following=False, has_left=lambda: False):
        """Yields the rows of a session's log that a LogFilter names, a page at a time; following,
        None when there are no more yet, until the session ends -> its state before the last were
        read. NotFound, Stopping."""
        with self.bell(number) as bell:
            repository = bell.repository
            turns = self._turns.setdefault(repository.id, threading.Semaphore(READERS_AT_ONCE))
            row = repository.db.read(repository.sessions.get, number)
            after = repository.db.read(repository.views.find_log_start, number, filters)
            while True:
                # asked before the rows are read
                is_over, row = self._is_over, bell.find_end() or row
                rows = [None] * LOG_PAGE
                while len(rows) == LOG_PAGE:
                    with turns:     # one line wakes all who follow it, and others want their turn
                        rows = repository.db.read(repository.views.list_log, number, filters,
                                                  after, LOG_PAGE)
                    yield from (line for line in rows if line["line"] is not None)
                    if rows:
                        after = rows[-1]["task_run"], rows[-1]["position"]
                if not is_following or has_left() or row["status"] in ENDED:
                    return row["status"]
                if is_over:
                    raise gone_before(number)
                yield None
                while not (bell.has_rung or has_left()):
                    bell.wait(LOOK_S)
                    if bell.patience_s is not None:
                        break


def gone_before(number):
    """What is raised for one who waits for the end of a session that goes on without the agent."""
    return Stopping("session=%d the agent has stopped before its end" % number)


class Children:
    """Sessions that sessions start."""

    def __init__(self, agent):
        self._agent = agent

    def start(self, request, repository):
        """Starts one in the repository of its parent -> its number."""
        self._agent.desk.check_context(request.context)
        above = repository.db.read(repository.sessions.list_above, request.parent)
        line = [row["scenario"] for row in above]
        if request.scenario in line:
            raise TaskError("scenario %s would start itself: %s"
                            % (request.scenario, " > ".join(line[::-1] + [request.scenario])))
        # or what has a higher priority would go before what its parent, which has begun, waits for
        request = request._replace(agent=self._agent.name, priority=above[0]["priority"])
        return self._agent.desk.submit(request, repository).result().session

    def bell(self, number, on_ring):
        """The Bell of a child, while it is waited for."""
        return self._agent.watch.bell(number, on_ring)

    def stop(self, number, by):
        """Ends a child at once, if it has not ended; `by` says who does, and why."""
        with contextlib.suppress(AgentError):
            self._agent.desk.stop(number, True, by)


# ======================================================================================
# agent/desk.py
# Where sessions are asked for: EXEC, STOP, RESTART, and what follows the end of each.
# ======================================================================================

TRIES = 3               # an EXEC whose scenario is replaced at the same time is tried anew


class Acknowledgement:
    """An EXEC on its way to its commit: `request` is what is asked for, with its secrets put
    aside."""

    def __init__(self, desk, repository, request):
        self._desk, self._repository, self._asked = desk, repository, request
        self._try()

    def _try(self):
        self.request = self._desk.prepare(self._repository, self._asked)
        self.pending = self._desk.write_down(self._repository, self.request)

    @property
    def is_ready(self):
        """Whether result() has nothing to wait for."""
        return self.pending.is_done

    def call_when_ready(self, function):
        """As Pending.call_when_done()."""
        self.pending.call_when_done(function)

    def result(self):
        """Waits for the commit and queues the session -> its Ticket. What the writer refuses."""
        for _ in range(TRIES - 1):
            try:
                return self._desk.acknowledge(self._repository, self)
            except Changed:
                self._try()
        return self._desk.acknowledge(self._repository, self)


class Desk:
    """Takes what is asked of sessions, for any thread, and follows each of them up."""

    def __init__(self, agent):
        self.ended_counts = dict.fromkeys(ENDED, 0)
        self._agent, self._clock = agent, agent.clock
        self._contexts = frozenset(agent.master.list_contexts())    # also while the master is away
        self._lock = threading.Lock()
        self._requests = 0              # EXECs that wait for their commit
        self._flooded = -FLOOD_S        # when there were many at once (monotonic seconds)

    def is_flooded(self):
        """Whether many requests wait for their OK."""
        return self._clock.monotonic() - self._flooded < FLOOD_S

    # -- EXEC --------------------------------------------------------------------------

    def _check_accepting(self):
        agent = self._agent
        if agent.is_stopping:
            raise Stopping("the agent is stopping and begins nothing new")
        if agent.queue.counts()[1] + self._requests >= agent.settings.max_queue:
            raise Busy("%d sessions are outstanding, the limit" % agent.settings.max_queue)

    def execute(self, request, repository=None):
        """Hands an EXEC to its repository -> Acknowledgement."""
        self._check_accepting()         # before anything is looked up
        self.check_context(request.context)
        return self.submit(request, self._agent.places.with_scenario(
            request.scenario, request.version, repository))

    def may_look(self, context, repository):
        """Whether execute() of a request may have to read from a file whose it is, and what this
        context is."""
        return context not in self._contexts \
            or repository is None and not self._agent.places.is_single

    def read_contexts(self):
        """Takes over the contexts that there are now."""
        self._contexts = frozenset(self._agent.master.list_contexts())

    def check_context(self, name):
        """NotFound when there is no context of this name."""
        if name not in self._contexts:
            self.read_contexts()
            if name not in self._contexts:
                raise NotFound("no context %s" % name)

    def submit(self, request, repository):
        """`execute` when the repository is known."""
        self._check_accepting()
        return Acknowledgement(self, repository, request)

    def prepare(self, repository, request):
        """What has to be done for a request before it is written. RepositoryError."""
        if self._agent.hold is not None:
            request = request._replace(is_held=True)
        if request.variables:
            request = request._replace(secret_file=self._put_aside(
                repository, request.variables, repository.scenarios.find_secrets,
                request.scenario, request.version))
        return request

    @staticmethod
    def _put_aside(repository, variables, find_secrets, *place):
        """Writes the secrets among variables to a file -> its name, or None. RepositoryError."""
        names = repository.db.read(find_secrets, *place)
        secrets = {name: variables[name] for name in names if name in variables}
        return repository.secrets.write(secrets) if secrets else None

    def write_down(self, repository, request):
        """Hands a request to the writer -> Pending of a Ticket."""
        with self._lock:
            self._requests += 1
            if self._requests >= YIELD_REQUESTS:
                self._flooded = self._clock.monotonic()
        return repository.db.submit(repository.arrivals.add, request, self._clock.now(),
                                    within_s=WRITE_S)

    def acknowledge(self, repository, acknowledgement):
        """Waits for the commit of a request and queues its session -> its Ticket."""
        ticket, secret_file = None, acknowledgement.request.secret_file
        try:
            ticket = acknowledgement.pending.result()
            if ticket.ending is not None:
                self.ended(repository, ticket.ending)
            elif not ticket.is_duplicate and ticket.agent == self._agent.name \
                    and ticket.status in OUTSTANDING:
                self.queue_ticket(repository, ticket)
        finally:
            with self._lock:
                self._requests -= 1
            if secret_file:
                is_used = ticket is not None and ticket.has_secrets and ticket.ending is None
                repository.secrets.settle(secret_file, is_used)
        return self._with_wait(ticket)

    def _with_wait(self, ticket):
        """A Ticket with what it says of its waiting, where it has to."""
        return ticket._replace(wait=self._agent.waits.of_ticket(ticket)) \
            if ticket.status == WAITING else ticket

    def queue_ticket(self, repository, ticket):
        """Queues a session now, or when its start time comes."""
        self._queue_ticket(repository, ticket)
        if self._agent.places.find(repository) is None:     # let go: read anew when it is back
            self._agent.queue.forget(repository)

    def _queue_ticket(self, repository, ticket):
        """Does so, whether or not the repository is still there."""
        agent, scheduler = self._agent, self._agent.schedules.scheduler
        if ticket.start_at is not None and ticket.start_at > self._clock.now():
            # otherwise it was only read again
            if agent.queue.later.put_off(ticket.session, repository):
                scheduler.call_at(ticket.start_at, lambda: self._start_time(repository, ticket),
                                  lambda: agent.queue.later.is_put_off(ticket.session, repository))
            return
        is_free = agent.queue.add(ticket, repository)
        if ticket.wait_until is not None:
            scheduler.call_at(ticket.wait_until, lambda: self._waited(repository, ticket),
                              lambda: agent.queue.has(ticket.session))
        if not is_free and ticket.status == WAITING and not agent.hold:
            repository.db.submit(repository.sessions.set_queued, ticket.session)

    def _start_time(self, repository, ticket):
        """The start time of a session has come, if it still waits for it."""
        if self._agent.queue.later.is_put_off(ticket.session, repository):
            self.queue_ticket(repository, ticket._replace(start_at=None))

    def _waited(self, repository, ticket):
        """The max_wait of a session's scenario is over; a hold stops that clock."""
        if self._agent.hold is not None:
            self._agent.schedules.scheduler.call_at(self._clock.now() + 1.0,
                                                    lambda: self._waited(repository, ticket))
        elif not self._agent.queue.find(ticket.session):
            def follow(pending):
                if pending.value:
                    self.ended(repository, pending.value)
            repository.db.submit(repository.endings.end_outstanding, ticket.session, ERROR,
                                 "waited max_wait for the limit of its scenario", self._clock.now(),
                                 on_done=follow)

    # -- ends --------------------------------------------------------------------------

    def ended(self, repository, ending):
        """All that follows the end of a session once it is on disk, whoever has ended it."""
        if ending.status in ENDED:
            self._agent.queue.discard(ending.session)
            if ending.secret_file:
                repository.secrets.forget(ending.secret_file)
            with self._lock:
                self.ended_counts[ending.status] += 1
            self._agent.watch.ended(ending.session)
        for ticket in ending.tickets:
            self.queue_ticket(repository, ticket)
        if ending.is_awaited:
            self._agent.schedules.decide_after(repository)

    def take_made(self, repository, decision):
        """Takes what a due time has made: its session, and the ends of those that it replaces.
        Waits for nothing."""
        for ending in decision.endings:
            self.ended(repository, ending)
        for number in decision.replaced:
            session = self._agent.queue.find(number)
            if session is not None and session.repository is repository:
                session.stop(IMMEDIATE, tell_stop("at once", by_schedule(session.ticket.schedule)))
        if decision.ticket is not None and decision.ticket.ending is not None:
            self.ended(repository, decision.ticket.ending)
        elif decision.ticket is not None:
            self.queue_ticket(repository, decision.ticket)

    # -- STOP and RESTART --------------------------------------------------------------

    def _get_own(self, number):
        """The repository of a session that this agent may stop or restart. NotFound, Conflict."""
        repository = self._agent.places.of_session(number)
        row = repository.db.read(repository.sessions.get, number)
        if row["agent"] != self._agent.name:
            raise Conflict("session %d belongs to agent %s" % (number, row["agent"]))
        return repository

    def stop(self, number, is_immediate, by):
        """Stops a session -> (its status then, what is left of it or nothing); an immediate stop
        is waited for. `by` says who does, and by what. Conflict."""
        repository = self._get_own(number)
        for _ in range(100):            # it may begin or end between two looks
            session = self._agent.queue.find(number)
            if session is not None and session.repository is repository and session.is_begun:
                session.stop(IMMEDIATE if is_immediate else NORMAL,
                             tell_stop("at once" if is_immediate else "", by))
                if not is_immediate:
                    return RUNNING, ""
                with contextlib.suppress(WaitTimeout):
                    row = self._agent.watch.wait(number, TERM_S + KILL_S + WRITE_S)
                    return row["status"], row["message"] if NOT_ENDED in row["message"] else ""
                return RUNNING, ""
            ending = repository.db.write(repository.endings.end_outstanding, number, STOPPED,
                                         tell_stop("before it began", by), self._clock.now())
            if ending is not None:
                self.ended(repository, ending)
                return STOPPED, ""
            if session is None:
                break
            time.sleep(0.02)
        status = repository.db.read(repository.sessions.get, number)["status"]
        if status == RUNNING:
            raise Conflict("session %d is shown as running, but nothing runs it here; CLEAN mends "
                           "that" % number)
        raise Conflict("session %d has ended: %s" % (number, status))

    def restart(self, request):
        """Re-opens a session that ended badly, by a RestartRequest -> Ticket. Conflict, NotFound,
        BadRequest."""
        self._check_accepting()
        repository = self._get_own(request.session)
        for remaining in reversed(range(TRIES)):
            try:
                ticket = self._reopen(repository, request)
                break
            except Changed:
                if not remaining:
                    raise
        if ticket.spent_file:
            repository.secrets.forget(ticket.spent_file)
        self.queue_ticket(repository, ticket)
        return self._with_wait(ticket)

    def _reopen(self, repository, request):
        """Writes a RestartRequest down -> Ticket. What the writer refuses."""
        secret_file = ticket = None
        if request.variables:
            secret_file = self._put_aside(repository, request.variables,
                                          repository.restarts.find_secrets, request)
        try:
            ticket = repository.db.write(repository.restarts.reopen, request._replace(
                secret_file=secret_file, is_held=self._agent.hold is not None))
        finally:
            if secret_file:
                repository.secrets.settle(secret_file, ticket is not None and ticket.has_secrets)
        return ticket


# ======================================================================================
# agent/inbox.py
# What is to be done after commits, done by a thread of its own: a writer only puts it here.
#
# Thread follow-ups: does what commits bring about; ends at Inbox.close().
# ======================================================================================

class Inbox:
    """Things to be done in their order, each a function and the Pending that it is called with."""

    def __init__(self):
        self._items, self._is_closed = queue.Queue(), False
        self._lock = threading.Lock()       # guards these two
        self._thread = Worker(self._run, name="follow-ups")
        self._thread.start()

    def put(self, function, pending):
        """Has function(pending) called soon. From any thread; waits for nothing. After close() it
        is called here, for a session that outlives the repositories has to be told, too."""
        with self._lock:
            if not self._is_closed:
                self._items.put((function, pending))
                return
        call_after_commit(function, pending)

    def close(self):
        """Ends the thread once everything that was put in before is done."""
        with self._lock:
            self._is_closed = True
            self._items.put((None, None))
        self._thread.join()

    def _run(self):
        while True:
            function, pending = self._items.get()
            if function is None:
                return
            call_after_commit(function, pending)


def call_after_commit(function, pending):
    """function(pending); a fault of it is logged: the commit stands, and others get their turn."""
    try:
        function(pending)
    except Exception as error:
        log.error("after a commit\n%s", tell_traceback(error))


# ======================================================================================
# agent/exchange.py
# Definitions in and out: import with all its checks, and export.
# ======================================================================================

IMPORT_TRIES = 20       # of a document whose schedules come due meanwhile


class Imported(NamedTuple):
    """What came of an import."""
    document: Document
    changes: List[Change]       # a definition each
    warnings: List[tuple]       # (path, reason): what is allowed but looks wrong

    def count(self, kind):
        """How many definitions of a kind were new or have changed."""
        return sum(change.kind == kind and change.change != SAME for change in self.changes)


def import_into(master, repository, text, agent, now, is_replacing, changes=None,
                is_dry=False):
    """One transaction in the master, one in the work repository -> Imported; `is_dry`: as if,
    nothing is written. BadRequest and Exists carry all the faults.

    `changes`: the ScheduleChanges of the agent that is running, if one is.
    """
    definitions = Definitions()
    document = definitions.collect(text)
    faults = definitions.faults + master.topology_faults(document)
    arguments = document, agent, now, is_replacing
    changed = warnings = None
    if is_dry or faults or document.has_topology:
        try:                                    # every fault is found before anything is written
            repository.db.write(repository.imports.rehearse, *arguments)
        except Rehearsed as rehearsed:
            changed, warnings = rehearsed.result
        except BadRequest as error:
            faults += error.faults
        except Exists as error:
            error.faults += faults
            raise
    if faults:
        raise faulty(faults)
    if is_dry:
        return Imported(document, master.rehearse_topology(document) + changed,
                        document.list_warnings() + warnings)
    topology = master.put_topology(document)
    try:
        changed, warnings = _write(repository, changes, arguments)
        return Imported(document, topology + changed, document.list_warnings() + warnings)
    except RepositoryError as error:
        if document.has_topology:
            raise RepositoryError("%s; the master has its part, the same IMPORT completes it"
                                  % error) from None
        raise


def _write(repository, changes, arguments):
    """Puts a document in."""
    if changes is None:
        return repository.db.write(repository.imports.put, *arguments, None)
    with changes.turn(repository):
        return _write_beside(repository, changes, arguments)


def _write_beside(repository, changes, arguments):
    """_write() beside due times: anew when one of its schedules' has come before."""
    document, _, now, _ = arguments
    for is_last in [False] * (IMPORT_TRIES - 1) + [True]:
        origins = changes.find_origins(repository, document.schedules, now)
        try:
            return repository.db.write(repository.imports.put, *arguments, origins)
        except Changed:
            if is_last:
                raise


def list_dues(document, calendars, now):
    """{schedule: when it would be due next, or None} of a document, its own calendars being among
    those; `now` is epoch seconds."""
    calendars = dict(calendars, **{each["name"]: each["dates"] for each in document.calendars})

    def find_next(schedule):
        is_by_clock = schedule.rule and schedule.enabled is not False
        return schedule.timetable(calendars).next_after(math.floor(now)) if is_by_clock else None
    return {schedule.name: find_next(schedule) for schedule in document.schedules}


def export_from(master, repository, name, version):
    """The definitions of a repository, or of a scenario or one version of it, as a document."""
    with repository.db.reading() as connection:
        if name is not None:
            latest = repository.scenarios.get(connection, name, version or "-1")["version"]
            version = latest if version == "-1" else version
        scenarios = repository.scenarios.list_versions(connection, name, version)
    schedules = [repository.schedules.read_definition(row) for row in repository.list_schedules()]
    document = {"scenarios": [_read_body(row) for row in scenarios],
                "schedules": [schedule_document(schedule) for schedule in schedules
                              if name is None or schedule.scenario == name]}
    if name is None:
        document.update(master.topology())
    return {key: value for key, value in document.items() if value}


def _read_body(row):
    """The stored definition of a scenario version. Unreadable says of which."""
    try:
        return load_body(row["body"])
    except Unreadable as error:
        raise Unreadable("scenario %s %s: %s" % (row["name"], row["version"],
                                                 error.message)) from None


# ======================================================================================
# agent/agent.py
# The agent: its life cycle, and what it can do in domain words.
# ======================================================================================

# byte that a signal wakes the main thread with -> its name; others say nothing
STOPS = {bytes([number]): signal.Signals(number).name
         for number in (signal.SIGTERM, signal.SIGINT)}
SIGNALS_AT_ONCE = 4096             # bytes of signals that are read at once: a child's end is one


def split_stop(data):
    """(The first of these bytes that ends the main thread's wait, of STOPS or WAKE, or None; those
    behind it)."""
    for place in range(len(data)):
        word = data[place:place + 1]
        if word in STOPS or word == WAKE:
            return word, data[place + 1:]
    return None, b""


class StopRequest(NamedTuple):
    """Who wants the agent to stop, and how long running sessions may take."""
    by: str                             # who, and by what
    is_immediate: bool
    max_wait_s: float
    asked: float                        # monotonic seconds

    def tell_end(self, now):
        """Why what runs then is stopped, or None: it may go on."""
        if self.is_immediate:
            return tell_stop("at once", self.by)
        if now < self.asked + self.max_wait_s:
            return None
        return tell_stop("", "%s: it had not ended in %g s" % (self.by, self.max_wait_s))


class Agent:
    """The agent in domain words, for any thread; it knows no sockets.

    Start, cleaning and firing touch only sessions and schedules of its own name.
    """

    def __init__(self, settings, clock=None, file_limit=None):
        self.settings, self.name = settings, settings.name
        self._file_limit = file_limit or FileLimit()
        self.clock = clock or Clock()
        self.hold = None
        self.is_stopping = False
        self.connections = lambda: 0            # set by the server
        self.master = self.places = self.watch = self.schedules = self.queue = self.keeper = None
        self.desk = self.changes = self.listing = None
        self.waits = Waits(self)
        self.started = self.clock.monotonic()        # of its steady clock
        self._cleaner = self._output = self._inbox = None
        self._threads = []
        self._stop_request = None
        self._is_leaving = False                # what can be adopted goes on without the agent
        self._wake_main = lambda: None

    # -- life cycle --------------------------------------------------------------------

    def start(self, host, port):
        """Connects, takes over what its name owns in every repository, computes the schedule."""
        settings, clock = self.settings, self.clock
        self.master = open_master(settings, clock)
        identity = own_identity(settings.host_id, self.master.db.uuid)
        self.master.register(self.name, host, port, str(identity), self.clock.now())
        self.hold = self.master.find_hold(self.name)
        self.desk = Desk(self)
        self._output = Output()
        around = Surroundings(clock, str(identity), self._output, settings.max_output,
                              self.desk.ended, lambda number: self.watch.ended(number),
                              Topology(self.master), Children(self),
                              lambda number: self.watch.logged(number), self._file_limit,
                              dict(os.environ), Looks())
        self.queue = SessionQueue(
            settings.max_sessions or SESSIONS_PER_CORE * (os.cpu_count() or 1),
            lambda ticket, repository: Session(ticket, repository, around),
            self.desk.is_flooded, clock)
        self._cleaner = Cleaner(self.name, identity, self.queue, clock, self.desk.ended)
        self._inbox = Inbox()
        self.places = Places(self.master, Care(
            functools.partial(open_work, clock=clock, inbox=self._inbox,
                              is_insecure_fs=settings.is_insecure_fs),
            self._take_over, self._let_go, self._clean, settings.clean_every_s, clock))
        self.watch = Watch(self.places, clock)
        self.schedules = Schedules(self.name, self.places, self.master, clock, self.queue,
                                   lambda: self.hold is not None, self.desk.take_made)
        self.changes = ScheduleChanges(self.schedules, self.places, self.master, clock)
        self.listing = ScheduleListing(self.schedules, self.places, clock)
        self.keeper = Keeper(self, self._cleaner)
        self._apply_hold()
        self.places.attach_all()
        for name, target in (("scheduler", self.schedules.scheduler.run),
                             ("keeper", self.keeper.run)):
            thread = Worker(target, name)
            thread.start()
            self._threads.append(thread)

    def _take_over(self, place):
        """Cleans stale sessions, queues outstanding ones, reads the schedules: in this order."""
        repository = place.repository
        self._clean(repository)
        numbers = repository.db.read(repository.sessions.list_outstanding, self.name)
        self.schedules.keep_held(repository)
        for ticket in repository.read_tickets(
                [number for number in numbers if not self.queue.has(number, repository)]):
            if not self.queue.has(ticket.session, repository):
                self.desk.queue_ticket(repository, ticket)
        self.schedules.load(place)
        self.watch.look(repository)

    def _clean(self, repository):
        self._cleaner.clean(repository)
        clear_notes(repository.parts, repository.forget_strays())

    def _let_go(self, repository):
        self.schedules.forget(repository)
        self.queue.forget(repository)
        self.watch.let_go(repository)

    def request_stop(self, by, is_immediate=False, max_wait_s=STOP_S, is_leaving=False):
        """Asks the main thread to stop the agent in good order; a later request may hurry it. `by`
        says who does, and by what."""
        self.is_stopping = True
        self._is_leaving = self._is_leaving or is_leaving
        self._stop_request = StopRequest(by, is_immediate, max_wait_s, self.clock.monotonic())
        self._wake_main()

    def run_until_stopped(self, wake_fd, wake):
        """The main thread's wait: until a byte in the pipe says signal or SHUTDOWN, then stops.

        One of STOPS while sessions end ends them at once. Other signals stop nothing; at SIGCHLD,
        and whenever it wakes, orphans are reaped.
        """
        self._wake_main = wake
        word, rest = None, b""
        while word is None:
            reap_orphans()
            word, rest = split_stop(os.read(wake_fd, SIGNALS_AT_ONCE))
        if self._stop_request is None:
            self.request_stop(STOPS.get(word, ""))
        log.info("stopping, %d sessions are running", self.queue.counts()[0])
        self.schedules.scheduler.stop()
        self.queue.close()
        os.set_blocking(wake_fd, False)
        reason = None
        if self._is_leaving:
            for session in self.queue.list_running():
                session.leave()
        while reason is None and not self.queue.wait_idle(0.1):
            reap_orphans()
            reason = self._stop_request.tell_end(self.clock.monotonic())
            with contextlib.suppress(BlockingIOError):
                rest += os.read(wake_fd, SIGNALS_AT_ONCE)
            second, rest = split_stop(rest)
            if second in STOPS:
                reason = tell_stop("at once", "%s, after %s" % (STOPS[second],
                                                                self._stop_request.by))
        self._stop_sessions(reason)
        self.watch.close()

    def _stop_sessions(self, reason):
        for session in self.queue.list_running():
            session.stop(IMMEDIATE, reason)
        self.queue.wait_idle(TERM_S + KILL_S + WRITE_S)

    def close(self):
        """Ends the threads, writes everything down, closes the repositories."""
        if self.watch:
            self.watch.close()
        if self.schedules and not self.is_stopping:     # it could not start
            self.schedules.scheduler.stop()
            self.queue.close()
            self._stop_sessions(tell_stop("at once", "the end of the agent"))
        if self.keeper:
            self.keeper.stop()
        for thread in self._threads:
            thread.join()
        if self.places:
            self.places.close()         # what is still recorded by a session ends here
            self._inbox.close()
        if self.queue:
            self.queue.join()
        if self._output:
            self._output.close()
        if self.master:
            self.master.heartbeat(self.name, self.clock.now(), is_stopped=True)
            self.master.db.close()

    # -- definitions -------------------------------------------------------------------

    def import_document(self, text, repository, is_replacing, is_dry=False):
        """Imports a definitions document, or does as if -> Imported."""
        target = self.places.get(repository)
        imported = import_into(self.master, target, text, self.name, self.clock.now(),
                               is_replacing, self.changes, is_dry)
        if is_dry:
            return imported
        document = imported.document
        self.desk.read_contexts()
        if document.calendars or document.schedules:
            self.schedules.read_calendars()
        for schedule in document.schedules:
            self.schedules.refresh(target, schedule.name)
        return imported

    def list_dues(self, document):
        """{schedule: when it would be due next, or None} of a document."""
        return list_dues(document, self.master.calendars(), self.clock.now())

    def export(self, repository, name, version):
        """The definitions of a repository, of a scenario, or of one version, as a document."""
        source = self.places.get(repository) if name is None else \
            self.places.with_scenario(name, version or "-1", repository)
        return export_from(self.master, source, name, version)

    def drop_scenario(self, name, version, repository):
        """Deletes a scenario version. NotFound, Conflict."""
        owner = self.places.with_scenario(name, version, repository)
        owner.db.write(owner.scenarios.drop, name, version)

    # -- hold --------------------------------------------------------------------------

    def _apply_hold(self):
        is_held = self.hold is not None
        self.queue.hold(is_held)
        self.schedules.scheduler.hold(is_held)
        if is_held and self.hold.until:
            hold = self.hold
            self.schedules.scheduler.call_at(hold.until, lambda: self._hold_over(hold))

    def set_hold(self, hold):
        """Begins nothing new until the release (None), which decides what was due meanwhile; kept
        over restarts."""
        self.master.set_hold(self.name, hold, WRITE_S).result()
        self._change_hold(hold)

    def _hold_over(self, hold):
        """The end of a hold has come, if it is still this one;
        a locked master delays its record."""
        if self.hold is hold:
            self.master.set_hold(self.name, None)
            self._change_hold(None)

    def _change_hold(self, hold):
        self.hold = hold
        for repository in self.places.list_open():
            repository.db.submit(repository.sessions.set_waiting, self.name, hold is not None,
                                 self.clock.now())
        self._apply_hold()
        if hold is None:
            self.schedules.released()


# ======================================================================================
# agent/figures.py
# How the agent is, in figures: PING and METRICS.
# ======================================================================================

def ping(agent):
    """What PING says: its values by key, from memory alone."""
    running, queued = agent.queue.counts()
    places = agent.places.list_all()
    usable = len([place for place in places if not place.reason])
    hold = agent.hold
    values = {
        "agent": agent.name, "version": VERSION,
        "status": _find_status(agent, places, usable == len(places)),
        "uptime": round(agent.clock.monotonic() - agent.started, 1), "running": running,
        "queued": queued, "repositories": "%d/%d" % (usable, len(places)),
        "hold": hold is not None}
    if hold is not None:
        values.update(hold_reason=hold.reason, hold_by=hold.by, hold_until=hold.until)
    return values


def _find_status(agent, places, are_usable):
    if agent.is_stopping:
        return "STOPPING"
    for repository in [agent.master] + [place.repository for place in places]:
        if repository is not None and repository.db.is_read_only:
            return "STANDBY"
    return "READY" if are_usable and not agent.master.db.trouble else "DEGRADED"


def metrics(agent):
    """Prometheus text lines, from memory alone."""
    running, queued = agent.queue.counts()
    places = agent.places.list_all()
    gauges = [("uptime_seconds", round(agent.clock.monotonic() - agent.started, 1)),
              ("sessions_running", running), ("sessions_outstanding", queued),
              ("connections", agent.connections()), ("repositories", len(places)),
              ("repositories_usable", sum(not place.reason for place in places)),
              ("hold", int(agent.hold is not None))]
    for name, value in gauges:
        yield "# TYPE agent_%s gauge" % name
        yield "agent_%s %s" % (name, value)
    yield "# TYPE agent_sessions_ended_total counter"
    for status, count in agent.desk.ended_counts.items():
        yield 'agent_sessions_ended_total{status="%s"} %d' % (status, count)


# ======================================================================================
# agent/logwriter.py
# The agent's own log, which stops nothing: whoever logs hands a line over and goes on.
#
# Thread log: writes the lines; ends at LogWriter.close(), or with the program when nobody reads.
# ======================================================================================

MAX_LINES = 10000       # that wait for a reader
CLOSE_S = 2.0           # how long the end of the program waits for one


class LogWriter(logging.Handler):
    """Writes lines to a descriptor; without one (None) there is no log.

    What cannot be written is dropped and counted, and how much that was is told as soon as
    something can be written again.
    """

    def __init__(self, descriptor):
        super().__init__()
        self.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
        self._descriptor = descriptor
        self._changed = threading.Condition()   # guards all that follows
        self._lines, self._lost = [], 0         # that wait; that could not be written
        self._is_cut = self._is_failing = False     # the last line ends in its middle; was lost
        self._is_closing = descriptor is None
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def lost_count(self):
        """How many lines could not be written, and were not told of yet."""
        return self._lost

    def emit(self, record):
        """Hands over an entry."""
        try:
            self.say(self.format(record))
        except Exception:           # as logging.Handler wants it
            self.handleError(record)

    def say(self, line):
        """Hands over a line without its end; waits for nothing."""
        with self._changed:
            if len(self._lines) >= MAX_LINES or self._is_closing:
                self._lost += 1
            else:
                self._lines.append(line)
                self._changed.notify()

    def close(self):
        """Writes what there is, as far as somebody reads it."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(CLOSE_S)
        super().close()

    def _run(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closing
                                       or self._lost and not self._is_failing)
                if self._is_closing and not self._lines:
                    return
                lines, self._lines = self._lines, []
            for line in lines or [None]:
                self._write(line)

    def _write(self, line):
        """Writes a line, or None: only how many were lost."""
        with self._changed:
            lost = self._lost
        texts = [] if line is None else [line]
        if lost:
            texts.insert(0, "%d lines of the log could not be written" % lost)
        data = "\n".join(([""] if self._is_cut else []) + texts + [""])
        data = data.encode("utf-8", "backslashreplace")
        try:
            while data:
                size = os.write(self._descriptor, data)
                self._is_cut, data = not data[:size].endswith(b"\n"), data[size:]
            self._is_failing = False
        except OSError:
            self._is_failing = True
        with self._changed:
            if not self._is_failing:
                self._lost -= lost
            elif line is not None:
                self._lost += 1


class LineFormatter(logging.Formatter):
    """An entry of the log is one line without control characters, whatever stands in a path or a
    name; only a traceback has more lines, which are indented."""

    def format(self, record):
        """The text of an entry."""
        text = super().format(record)
        has_lines = record.exc_info or "\n" in str(record.msg)
        lines = text.split("\n") if has_lines else [text]
        return "\n  ".join(show_controls(line) for line in lines)


# ======================================================================================
# protocol/table.py
# The verb table: a function for each form of a request, and the check of one against it.
# ======================================================================================

class TimeKind(NamedTuple):
    """The kind of a word for a time, which may count from the time of its request."""
    accepts: str            # what it takes, for the manual
    is_back: bool = False   # it looks back: a clock time is the last one, a distance is ago
    is_end: bool = False    # a range ends with it: a date alone is its last instant

    def parse_at(self, text, now):
        """A text of a request at `now` -> epoch seconds. ValueError."""
        return parse_time(text, self.is_end, now, self.is_back)


class Option(NamedTuple):
    """An option of a verb: its kind, and how HELP shows its value."""
    kind: Union[Kind, TimeKind, None]       # None: a flag
    shown: str
    is_value_optional: bool


class Verb(NamedTuple):
    """One row of the verb table."""
    name: str               # SCHED ADD is one, by its first two words
    form: str               # of a request, as HELP shows it
    role: Optional[str]     # None: everybody
    help: str
    arguments: list         # (name, Kind) in order
    required: int           # how many of them must be there
    options: dict           # `-NAME` -> Option
    run: Optional[Callable]  # (agent, Request) -> fields, a generator of data lines, or a Pending
    is_pipelined: bool      # as of its Form
    # is_quick(agent, Request): whether it is carried out without waiting for anything, but for the
    # commit of what is pipelined; None: it may always wait
    is_quick: Optional[Callable] = None


class Request(dict):
    """A checked request: its arguments and options by their names in the form of its verb, such as
    SESSION and -REPO; None for those left out. KeyError for what the form does not have: a fault of
    the program."""

    def __init__(self, row, client=Client(), has_left=lambda: False):
        super().__init__()
        self.verb, self.client = row.name, client       # who asks
        self.has_left = has_left                    # whether the one who asks has gone for good
        self.variables = {}
        self._known = row.options.keys() | {name for name, _ in row.arguments}

    def _check(self, name):
        if name not in self._known:
            raise KeyError("%s has no %s" % (self.verb, name))

    def __missing__(self, name):
        self._check(name)
        return None

    def __contains__(self, name):
        self._check(name)
        return super().__contains__(name)

    def get(self, name, default=None):
        """The value of an argument or option, or this when it was left out."""
        self._check(name)
        return super().get(name, default)

    @property
    def is_json(self):
        """Whether the lines of the reply are wanted as JSON."""
        return "-JSON" in self


NEWEST = "-1"

TOKEN = Kind(None, lambda text: text if 0 < len(text) <= 256 else _refuse(
    "must have 1 to 256 characters"), "1 to 256 characters")

# what the kinds of words in the forms of verbs take, besides `field NAME`: one of a schedule
KINDS = {
    "amount": between(0, 10 ** 9), "calendar": Kind(None, check_calendar_name, "a name"),
    "count": between(1, 100000), "dates": Kind(None, check_dates, "dates"),
    "days": between(0, 100000, (int, float)), "ends": list_of(choice(*ENDED), at_least=1),
    "end": TimeKind("a time; a date alone is its last instant", is_end=True), "label": LABEL,
    "level": between(0, 5), "limit": between(1, MAX_LIST), "name": NAMED, "priority": PRIORITY,
    "seconds": SECONDS, "session": between(1, 10 ** 15),
    "states": list_of(choice(*STATES), at_least=1), "stream": choice(OUT, ERR),
    "text": Kind(None, str, "text"),
    "past": TimeKind("a time, or how long ago", is_back=True), "time": TimeKind("a time"),
    "timeout": TIMEOUT, "token": TOKEN,
    "version": SCHEDULE_FIELDS["version"].kind,
}


def find_kind(word):
    """The Kind of a word for one, None for that of a flag. A field of a schedule is an option that
    without a value behind its = makes it the default again."""
    if word is None or not word.startswith("field "):
        return word and KINDS[word]
    field = SCHEDULE_FIELDS[word[6:]]
    return Kind(None, lambda text: (field.kind.parse(text) if text or field.kind is BOOLEAN
                                    else field.default), field.kind.accepts)


def make_row(form):
    """The row of a Form, to which no function is bound yet."""
    parts = list_parts(form)
    arguments = [part for part in parts if not part.name.startswith("-")]
    options = {part.name: Option(find_kind(part.kind), part.shown, part.is_value_optional)
               for part in parts if part not in arguments}
    options.setdefault("-JSON", Option(None, "", False))
    return Verb(form.name, form.text, form.role, form.help,
                [(part.name, find_kind(part.kind)) for part in arguments],
                len([part for part in arguments if part.is_required]), options, None,
                form.is_pipelined)


VERBS = {form.name: make_row(form) for form in VERB_FORMS}


def verb(name, is_quick=None):
    """Binds a function to the verb of this name. LookupError: it has one, or no form."""
    def register(function):
        row = VERBS[name]
        if row.run is not None:
            raise LookupError("the verb %s has two functions" % name)
        VERBS[name] = row._replace(run=function, is_quick=is_quick)
        return function
    return register


def list_help():
    """What HELP tells: {name: line}, when all are bound. LookupError: a verb has no function."""
    for row in VERBS.values():
        if row.run is None:
            raise LookupError("the verb %s has no function" % row.name)
    return {row.name: "%s: %s" % (row.form, row.help) for row in VERBS.values()}


def wants_json(words):
    """Whether -JSON stands among the words of a request, whatever is wrong with them."""
    return any(word.kind == "option" and capitals(word.name) == "-JSON" for word in words)


def find_verb(words):
    """The row of a request and the words behind its name. UnknownVerb, BadRequest."""
    first = capitals(words[0].value) if words[0].kind == "argument" else ""
    if first in VERBS and " " not in first:
        return VERBS[first], words[1:]
    subs = [name.split()[1] for name in VERBS if name.split()[0] == first and " " in name]
    if not subs:
        raise UnknownVerb("%s is no verb; HELP lists them"
                          % tell_word(words, 0, 1).replace("word ", "", 1))
    second = capitals(words[1].value) if len(words) > 1 and words[1].kind == "argument" else ""
    if second not in subs:
        raise BadRequest("%s takes one of %s" % (first, " ".join(subs)))
    return VERBS["%s %s" % (first, second)], words[2:]


def check_request(row, words, client=Client(), has_left=lambda: False, find_now=lambda: 0.0):
    """The words behind a verb -> Request; BadRequest names the word that is wrong. Times that are
    not absolute count from `find_now()`, epoch seconds."""
    request, missing = Request(row, client, has_left), list(row.arguments)
    for index, word in enumerate(words):
        place = ""
        try:
            if word.kind == "option":
                _take_option(row, word, request, find_now)
            elif word.kind == "variable":
                _take_variable(row, word, request)
            elif missing:
                name, kind = missing.pop(0)
                place = " for %s" % name
                request[name] = kind.parse(word.value)
            else:
                raise ValueError("one too many: %s" % row.form)
        except (ValueError, OverflowError) as error:
            subject = tell_word(words, index, len(row.name.split()) + index + 1, row.options)
            dashes = "; an option has one dash" if word.kind == "argument" \
                and word.value.startswith("--") else ""
            raise BadRequest("%s%s: %s%s" % (subject, place, error, dashes)) from None
    if len(missing) > len(row.arguments) - row.required:
        raise BadRequest("%s is missing: %s" % (missing[0][0], row.form))
    return request


def _take_variable(row, word, request):
    if "[VARIABLE=" not in row.form:
        raise ValueError("%s takes no variables" % row.name)
    if word.name in request.variables:
        raise ValueError("the variable stands twice")
    request.variables[word.name] = word.value


def _take_option(row, word, request, find_now):
    """Puts the value of an option into the Request: True when it has none. ValueError."""
    name = capitals(word.name)
    option = row.options.get(name)
    if option is None:
        raise ValueError("%s has no such option: %s" % (row.name, row.form))
    if name in request:
        raise ValueError("the option stands twice")
    if not option.shown and word.value is not None:
        raise ValueError("%s takes no value" % name)
    if option.shown and word.value is None and not option.is_value_optional:
        raise ValueError("must be %s=%s" % (name, option.shown))
    if word.value is None:
        request[name] = True
    elif isinstance(option.kind, TimeKind):
        request[name] = option.kind.parse_at(word.value, find_now())
    else:
        request[name] = option.kind.parse(word.value)


# ======================================================================================
# protocol/lines.py
# The lines of replies, filled by the table of their fields.
# ======================================================================================

FLUSH = object()        # in a reply: send now what there is


class TextLine(NamedTuple):
    """A data line that is no fields: its text, and the fields [(key, value)] that -JSON shows."""
    text: str
    fields: list


def fill(line, values, **more):
    """The fields of a ReplyLine in its order: [(key, value)].

    `values` is a dict or a row, of which only the line's keys count; `more` wins over it. Instants
    are UTC text of the tables or epoch seconds, and come out in the agent's zone. An optional
    field is left out where it has no entry; any other without one is a KeyError, a fault of the
    program."""
    values = dict(values, **more)
    return [(key.name, _as_shown(key.kind, values[key.name])) for key in line.keys
            if not key.is_optional or key.name in values]


def _as_shown(kind, value):
    if value is None:
        return None
    if kind == FLAG_KEY:
        return bool(value)
    if kind == SECOND_KEY:
        return local_iso(value)
    if kind == TIME_KEY:
        return to_local(value) if isinstance(value, str) else local_iso(value, "milliseconds")
    return value


def ticket_fields(ticket):
    """The OK fields of an acknowledged session."""
    more = {"duplicate": True} if ticket.is_duplicate else {}
    return fill_ticket(TICKET_LINE, ticket, **more)


def fill_ticket(line, ticket, **more):
    """`fill` of a line that tells of a Ticket, and what it waits for, where that is known."""
    values = {"session": ticket.session, "status": ticket.status}
    if ticket.wait is not None:
        words = dict(start_at=ticket.start_at, waits_for=ticket.wait.word,
                     message=ticket.wait.text)
        values.update((name, value) for name, value in words.items() if value)
    return fill(line, values, **more)


def session_fields(agent, row):
    """The line of a session, from its row and what it waits for."""
    wait = agent.waits.of_row(row)
    return fill(SESSION_LINE, row, session=row["id"], duration=find_duration(agent, row),
                waits_for=wait.word, message="; ".join(filter(None, (row["message"], wait.text))))


def find_duration(agent, row):
    """How long the newest start of a session took, or takes so far; None: it has not begun."""
    if not row["begun"]:
        return None
    end = from_text(row["ended"]) if row["ended"] else agent.clock.now()
    return round(max(0.0, end - from_text(row["begun"])), 3)


def end_fields(agent, row):
    """The OK fields of a session that has ended."""
    return fill(END_LINE, row, session=row["id"], duration=find_duration(agent, row))


# ======================================================================================
# protocol/conversation.py
# The requests of one connection in order, and their replies; knows no sockets.
# ======================================================================================

_HTTP_LINE = re.compile("[ \t]HTTP/[0-9][0-9.]*$", re.I)       # a request of HTTP ends so

_JSON_WORD = re.compile("(?:^|[ \t])-JSON(?=[ \t\r]|$)", re.I)
_SESSION_BEFORE = re.compile("(?:session=([0-9]+) )?(.*)", re.S)       # what a message begins with


class Conversation:
    """One connection's requests in order; it knows no sockets.

    `begin` reads a request, `Reply.start` begins it, `Reply.chunks` finishes it: an EXEC is under
    way to its commit while the next request of the same connection is already read.
    """

    def __init__(self, agent, client, has_left=lambda: False):
        self._agent, self._client, self._has_left = agent, client, has_left
        self._is_first = True
        self.is_over = False

    def begin(self, data):
        """Bytes of a line -> Reply, or None for a blank one.

        A first line that is no well-formed request ends the conversation, and so does any line of
        HTTP: a browser, or whatever else was led here, has nothing of the rest carried out.
        """
        text, words = "", []
        try:
            text = self._decode(data)
            self.is_over = _HTTP_LINE.search(text.rstrip(" \t")[-40:]) is not None
            words = split_words(text)
            if not words:
                return None
            row, rest = find_verb(words)
            if self.is_over:
                raise BadRequest("a line of HTTP; this port speaks the agent's own protocol, which "
                                 "HELP tells")
            request = self._check(row, rest)
            self._is_first = False
            self.is_over = row.name == "QUIT"
            self._check_role(row)
        except Exception as error:
            self.is_over = self.is_over or self._is_first
            self._is_first = False
            # where it cannot be split into words, the text has to tell
            is_json = wants_json(words) if words else _JSON_WORD.search(text) is not None
            return Reply(error, is_json, words)
        is_quick = row.is_quick is not None and row.is_quick(self._agent, request)
        return Reply(functools.partial(row.run, self._agent, request), request.is_json, words,
                     row.is_pipelined, is_quick)

    def _check(self, row, words):
        """The words behind a verb -> Request. Who may not ask is told that before what is wrong."""
        try:
            return check_request(row, words, self._client, self._has_left,
                                 lambda: self._agent.clock.now())
        except BadRequest:
            self._check_role(row)
            raise

    def _decode(self, data):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise BadRequest("the line is not UTF-8") from None
        if "\0" in text:
            raise BadRequest("the line has a NUL")
        if self._is_first and _CONTROL.search(text):
            raise BadRequest("the first line has control characters")
        return text

    def refuse(self, error):
        """A Reply for what is no request; the connection ends with it."""
        self.is_over = True
        return Reply(error)

    @property
    def is_administrator(self):
        """Whether it may do everything."""
        return self._client.is_administrator

    def _check_role(self, row):
        if row.role is None:
            return
        role = self._client.role
        if role is None:
            raise AuthError("only the operating-system user that runs the agent, and root, are "
                            "served; this version knows no other users")
        if ROLES.index(role) < ROLES.index(row.role):
            raise Denied("%s is for the role %s" % (row.name, row.role))


class Reply:
    """The reply to one request, as it comes. It `is_quick` when nobody has to be waited for, but
    for a commit."""

    def __init__(self, outcome, is_json=False, words=(), is_pipelined=False, is_quick=True):
        self._outcome, self._is_json, self._words = _bare(outcome), is_json, words
        self._is_to_start, self.is_quick = is_pipelined, is_quick

    def start(self):
        """Begins what the next request need not wait for: an EXEC goes to its repository."""
        if self._is_to_start:
            self._is_to_start = False
            try:
                self._outcome = self._outcome()
            except Exception as error:
                self._outcome = _bare(error)

    @property
    def is_under_way(self):
        """Whether, begun, it waits for a commit alone: other requests of its connection can be
        begun meanwhile."""
        return isinstance(self._outcome, Acknowledgement)

    @property
    def is_ready(self):
        """Whether the commit that it waits for is over, if there is one."""
        return not self.is_under_way or self._outcome.is_ready

    def call_when_ready(self, function):
        """Has function() called once it is ready, by any thread, maybe twice; it must wait for
        nothing."""
        self._outcome.call_when_ready(function)

    def chunks(self):
        """Yields lines of text without their ends, and FLUSH; the last begins with OK or ERR."""
        self.start()
        if isinstance(self._outcome, Exception):
            yield from self._tell(self._outcome)
            return
        try:
            fields = yield from self._data()
            yield "OK " + self._render(fields or ()) if fields or self._is_json else "OK"
        except Exception as error:
            yield from self._tell(error)

    def _tell(self, error):
        """Yields the lines of an error, without what no error may repeat."""
        hidden = list_hidden(self._words)
        if not isinstance(error, AgentError):
            error = internal(error, hidden)
        faults = [(mask_all(one_line(path), hidden), mask_all(one_line(reason), hidden))
                  for path, reason in error.faults]
        message = one_line(error.message)
        masked = mask_all(message, hidden)
        if masked != message:
            masked += "; *** may belong to the value before it, which is quoted when it has spaces"
        if not self._is_json:
            for fault in faults:
                yield "* %s: %s" % fault
            yield "ERR %s %s" % (error.code, masked)
            return
        session, text = _SESSION_BEFORE.fullmatch(masked).groups()
        fields = {"message": text}
        if session:
            fields["session"] = int(session)
        if faults:
            fields["faults"] = [{"path": path, "reason": reason} for path, reason in faults]
        yield "ERR %s %s" % (error.code, json.dumps(fields))

    def _render(self, fields):
        return json.dumps(dict(fields)) if self._is_json else render_fields(fields)

    def _data(self):
        """Yields the data lines of the outcome, and FLUSH where the client waits; returns the
        fields of the OK line, or None. Raises what goes wrong."""
        outcome = self._outcome
        if self.is_under_way:
            return ticket_fields(outcome.result())
        if callable(outcome):
            outcome = outcome()
        if isinstance(outcome, (list, tuple)) or outcome is None:
            return outcome
        while True:
            try:
                line = next(outcome)
            except StopIteration as stop:
                return stop.value
            if line is FLUSH:
                yield FLUSH
            elif isinstance(line, TextLine):
                text = self._render(line.fields) if self._is_json else show_controls(line.text)
                yield "* " + text if text else "*"
            else:
                yield "* " + self._render(line)


def _bare(outcome):
    """An outcome; of an error without the frames behind it, which would hold its Reply."""
    if isinstance(outcome, AgentError):
        outcome.__context__ = None
        outcome.with_traceback(None)
    return outcome


def internal(error, hidden):
    """What nobody expected: logged with an id that the user is told,
    without the texts in `hidden`."""
    name = uuid.uuid4().hex[:8]
    log.error("fault %s\n%s", name, mask_all(tell_traceback(error), hidden))
    return Internal("fault %s of the agent, told in its log" % name)


# ======================================================================================
# protocol/manual.py
# The manual: prose, with what follows from the program's tables put in between.
# ======================================================================================

WIDTH = 100

MANUAL_START = r"""# agent.py: the manual

agent.py runs jobs, starts them on time, and keeps a record of both. It is one file. It needs
Python 3.6 or newer and nothing else.

`python agent.py --manual` prints this manual. `python agent.py --manual TOPIC` prints one
topic:

<<topics>>

Each verb of the protocol is a topic too (`--manual EXEC`, `--manual SCHED ADD`), and so is each
type of task (`--manual load_csv`) and every other heading (`--manual secrets`).

## start: the first steps

Start the agent in a folder of your own:

    python agent.py

On its first start it makes `sqlite_repos/master.db` and `sqlite_repos/workrep.db` beside
itself. It says when it is ready, and stays in the foreground. Everything that it says of itself
goes to standard error.

Speak to it with any program that sends lines. A line is a request. The reply ends with a line
that begins with `OK` or `ERR`; the lines before it begin with `* `:

    $ nc localhost 20910
    EXEC HELLO
    OK session=1001 status=QUEUED
    LOG 1001
    * 2026-11-24T09:24:47.293+00:00 greet/1 out Hello, world! This is session 1001.
    OK status=DONE
    EXEC HELLO who="data people" -SYNC
    * session=2001 status=QUEUED
    OK session=2001 status=DONE duration=0.018 message=
    QUIT
    OK

The words of this example, which the whole manual uses:

- A **scenario** is a job that is defined: steps, and tasks in each step. It has a name and a
  version. `HELLO` is one; a new repository has it, to try.
- A **session** is one execution of a scenario. It has a number.
- A **schedule** starts a scenario on time.
- A **work repository** is a SQLite file with scenarios, schedules, sessions and what they
  printed. The **master repository** is another one: it knows the work repositories, and where
  data lies.
- A **context** chooses where data lies: `GLOBAL` if you say nothing.

A job of your own: write `first.json`,

    {"scenarios": [{
      "name": "FIRST", "version": "001",
      "variables": {"folder": "/tmp"},
      "steps": [
        {"name": "look", "tasks": [{"type": "os", "command": "ls -l \"${folder}\" | wc -l"}]},
        {"name": "tell", "tasks": [{"type": "os", "command": "date"}]}]}]}

import it, and run it:

    $ python agent.py --import first.json
    first.json: 1 scenarios and 0 schedules imported
    $ nc localhost 20910
    EXEC FIRST folder=/etc -SYNC
    SCHED ADD EVENING FIRST -1 GLOBAL "daily at 18:00" folder=/var
    SCHED NEXT EVENING -COUNT=2

The next topics: `definitions` and `tasks` for more jobs, `schedules` for more times, `client`
for a command line instead of `nc`, `operating` for an agent that stays.
"""
MANUAL_EXAMPLE = r"""
## example: weather, from a file to a report

The project has an example: `sqlite_repos/examples/weather.json`, and four years of daily
weather observations to it. Its files are named from the folder where the agent was started.
From elsewhere say `EXEC WEATHER folder=/path/of/sqlite_repos/examples`.

    $ python agent.py --import sqlite_repos/examples/weather.json
    sqlite_repos/examples/weather.json: 2 scenarios and 1 schedules imported

`WEATHER` uses the host's own tools: it checks the file, splits it by year, and computes monthly
means with `sort` and `awk`.

    EXEC WEATHER -SYNC
    * session=3001 status=QUEUED
    OK session=3001 status=DONE duration=0.27 message=
    LOG 3001
    ...
    * 2026-11-24T09:58:02.031+00:00 report/warmest out warmest month: 2015-07, 28.1 C by day
    OK status=DONE

`WEATHER_MART` is a small data mart. It loads the file into a table of SQLite, checks that there
are enough days and none is missing, aggregates by SQL, and writes a report. The contexts
`GLOBAL` and `PROD` have a database each, so one definition serves both. It may be run again at
any time.

    EXEC WEATHER_MART -SYNC
    EXEC WEATHER_MART -1 PROD warm=30 -SYNC
    * session=5001 status=QUEUED
    OK session=5001 status=DONE duration=0.679 message=
    $ head -n 3 /tmp/weather/mart-PROD.csv
    month,days,temp_max,temp_min,precipitation,warm_days
    2012-01,31,7.1,1.5,173.3,0
    2012-02,29,9.3,3.2,92.3,0

Now break a line of a copy. Nothing is loaded, the step `alert` says what is wrong, and the
session ends in `ERROR`:

    $ mkdir /tmp/broken
    $ sed '17s/,[0-9.]*/,wet/' sqlite_repos/examples/seattle-weather.csv \
        > /tmp/broken/seattle-weather.csv
    EXEC WEATHER_MART -1 PROD folder=/tmp/broken -SYNC
    * session=6001 status=QUEUED
    OK session=6001 status=ERROR duration=0.575 message="step load: task 1: line 17: precipitation:
      \"wet\" is no real (bad row 1, at most 0 are allowed); nothing was loaded"

Mend the file, and go on with the load:

    $ cp sqlite_repos/examples/seattle-weather.csv /tmp/broken
    RESTART 6001
    OK session=6001 status=QUEUED
    WAIT 6001
    OK session=6001 status=DONE duration=0.374 message=

Kill the agent with `kill -9` in the middle of anything, and start it again: `SESSIONS` tells
what became of what ran.
"""
MANUAL_SESSIONS = r"""
## sessions: one execution of a scenario

### Numbers

The number of a session is n * 1000 + id of its work repository: 1001, 2001, 3001 are the first
three of repository 1. So the number alone tells the repository. No number is given twice.

### States

<<states>>

`ERROR`, `STOPPED`, `WARNING` and `DONE` are the ends. A session that ended in `ERROR` or
`STOPPED` can be restarted. Steps and tasks of a session use the same words.

### From EXEC to the end

- `OK session=` is sent when the session is on disk.
- It is `WAITING` for its start time (`-AT`), for the limit of its scenario (`concurrency`), or
  for the end of a hold. Otherwise it is `QUEUED`. `waits_for` in `SESSIONS` and `STATUS` tells.
- The agent runs so many sessions at once: `--max-sessions`. Of the queued ones the highest
  `-PRIORITY` begins first; among equals those that a `scenario` task has started, then the one
  that came first. Such a child has the priority of its parent.
- While a session waits for a session that its `scenario` task has started, it gives its place
  to another one.
- It runs its steps in order. `definitions` tells how one leads to the next.
- `-FROM=STEP` has it begin with this step. After a crash or a stop it begins there again.
- A session keeps the definition that it was made with, also when the scenario is replaced.
- While requests wait for their OK, new sessions give way to them, for at most <<YIELD_S>>.

`duration` and `begun` of a session are those of its newest start. Its tasks run in the working
folder of the agent unless `cwd` says otherwise, with the agent's environment and the limits
(`ulimit`) that it was started with.

### Stopping

- `STOP N` lets the task that runs now end, and then stops. It answers at once. After the last
  task the session is simply `DONE`.
- `STOP N -IMMEDIATE` ends the task. It answers when the session has ended. Every process of the
  session gets SIGTERM, and SIGKILL after <<TERM_S>>; what they print meanwhile is in the log. The
  agent looks for more of them until it finds none. `note=` is there when some cannot be ended.
- A session that has not begun is `STOPPED` at once.
- The message says who stops it, and by what: `by root (STOP -IMMEDIATE)`, `by SHUTDOWN of root: it
  had not ended in 60 s`, `by SIGTERM, ...`, `by its schedule NIGHTLY: the next due time had come
  (overlap=stop)`, `by its parent, session 3001: ...`.
- A stop goes down to the sessions that a `scenario` task waits for.
- A timeout ends every process of the session, like an immediate stop.

### Restarting

`RESTART N` goes on with the same session: same number, same definition. Everything recorded of
it so far stays.

- It goes on at the last task that failed or was stopped. The attempts of that step count anew.
- A step whose `on_ok` is `FAIL` is there to tell of a failure; it is not the place to go on.
- `-FROM=STEP` goes on at this step instead, with its first task.
- `-SKIP` goes on behind the task that failed: with the next task, after the last one where the
  step's `on_ok` leads. The session then ends in `WARNING` at best. When no task has failed, it is
  `CONFLICT`.
- `-REDEFINE` takes the definition that the scenario's version has now, for when it was mended by
  `IMPORT -REPLACE`. The session goes on with the step of the same name, from its first task, or
  with that of `-FROM`. New variables have their defaults. When the version is gone, it is
  `NOT_FOUND`; when the step is gone, `CONFLICT`.
- Without `-REDEFINE` a `note=` says that the version has another definition now.
- Variables stand as they did when the task that failed last began: what a handler of the failure
  has set since is taken back. With `-FROM` and `-REDEFINE` they stand as when the first task of
  the step last began. What has not begun yet (after a normal `STOP`, or a step that was never
  reached) takes them as they are.
- Variables that are given with RESTART win.
- Secrets that came with EXEC have to be given again.

### After a crash

When an agent starts it finds what its predecessor left by fact, not by a timeout: it looks
whether the process that ran a session still lives. Processes of tasks that are left over are
ended first. Then the session's scenario decides, by `on_stale`:

- `error` (default): the session ends in `ERROR`, and its message says `stale`.
- `restart`: it is queued again and goes on with the task that was interrupted.
- `adopt`: its process lived on, kept by a small process of its own, or ended and left its exit
  code. The session goes on with it: its output, its exit code, and then the next task. This is
  for `os` and `python` tasks. Where nothing is left to take up, it is as `error`. While the disk
  is full, process and session wait for it. When that small process or its file is gone while the
  agent runs, the task's process is ended first, and then the task is in `ERROR`.

A session that another host runs is left alone, and the log says so. `CLEAN -HOST=ID` closes
those of a host that is gone for good. The agent also looks while it runs: every <<CLEAN_S>>
(`--clean-every`), and with `CLEAN` at once.

### Holding

`HOLD "reason"` lets nothing new begin: EXEC and RESTART are acknowledged and wait. What runs
goes on. `RELEASE` ends the hold, and so does the time given with `-UNTIL`. A hold stays over
restarts of the agent. What schedules have missed is decided at the release, by their `misfire`.
`HOLD -SCHEDULE=NAME` holds one schedule.

### Two requests, one session

When a reply was lost, nobody knows whether the session was made. With `-KEY=TOKEN` the request
can simply be sent again: the same key gives the session that it made before, `duplicate=yes`,
and makes none. With another scenario or other variables it is `CONFLICT`. Other options, such as
`-FROM`, are not compared, and neither are secrets. A key lasts until its session is purged.
"""
MANUAL_DEFINITIONS = r"""
## definitions: the document that is imported

Definitions are JSON. A document is one object; each of its parts is a list and may be left out:

    {"scenarios": [], "schedules": [], "contexts": [], "data_servers": [], "logical_schemas": [],
     "calendars": []}

`python agent.py --import FILE ...` imports documents, also while an agent runs. The verb
`IMPORT` does it over the port, and `EXPORT` gives a document back.

- Everything is checked first. All that is wrong is told at once, each with its path:
  `scenarios[0].steps[2].tasks[0].command: missing`. An unknown field is wrong, too. Then
  nothing of the document is imported.
- A scenario version is frozen. The same one again changes nothing. A different one of the same
  name and version is `EXISTS`, unless `-REPLACE` (`--replace`) is given.
- A schedule of the same name is set to what the document says, whatever `SCHED SET`, `ON` or
  `OFF` has made of it since. What became of its due times stays recorded.
- Contexts, data servers, logical schemas and calendars go to the master repository, the others
  to a work repository. These are two transactions. When only the second fails, `ERR REPOSITORY`
  says so, and the same import again completes it.
- What is allowed but looks wrong is told as a warning, and imported.

A **name** has at most <<MAX_NAME>>: letters, digits, `_`, `.` and `-`, not first `.` or `-`. A
**duration** is seconds, as a number, or a text such as `90s`, `15m`, `2h`, `1d`.

### A whole example

    {"scenarios": [{
      "name": "LOAD", "version": "001",
      "variables": {"day": "2015-01-01"},
      "timeout": 3600, "on_stale": "restart", "on_error": "alert",
      "steps": [
        {"name": "fetch", "attempts": 3, "retry_delay": 10, "timeout": 600,
         "tasks": [{"type": "os", "command": ["./fetch.sh", "${day}"], "cwd": "/srv/in"}]},
        {"name": "load", "on_ok": "END",
         "tasks": [{"type": "os", "command": "gunzip -c \"${day}.gz\" | ./load"}]},
        {"name": "alert", "on_ok": "FAIL",
         "tasks": [{"type": "os", "command": "echo \"$SCENARIO failed\" | mail ops"}]}]}],
     "schedules": [{"name": "LOADING", "scenario": "LOAD", "rule": "daily at 02:00"}]}

`sqlite_repos/examples/weather.json` of the project is a longer one.

### Fields of a scenario

<<fields scenario>>

### Fields of a step

<<fields step>>

### From step to step

A session begins with the first step. A step runs its tasks in order.

- A task that ends in `ERROR` ends the attempt. Then the step is tried again from its first
  task, as often as `attempts` says. Its first pause is `retry_delay`; each further one is
  longer by `retry_factor`.
- When an attempt ends well, the session goes to `on_ok`. Without `on_ok` that is **the step
  below**: the next one in the list. Behind the last step it is `END`.
- When the last attempt failed, the session goes to `on_error`. Without it, to the scenario's
  `on_error`; without that, to `FAIL`.
- When an `evaluate` task was false, the step ends there, without an error, and the session goes
  to `on_false`. Without `on_false` that is the step below, and behind the last step `END`.

`END` ends the session `DONE`, or `WARNING` when a step had failed on the way or a task ended in
`WARNING`. `FAIL` ends it in `ERROR`; its message is that of the step that failed.

A target may be an earlier step, so loops are possible. A loop without an end is ended by
`max_steps`. A step that tells of failures goes at the end of the list, with `"on_ok": "FAIL"`,
and the last step before it gets `"on_ok": "END"`, so that a success does not fall into it.

This loop runs three times:

    {"name": "COUNT", "version": "1", "variables": {"n": "0"}, "steps": [
      {"name": "again", "tasks": [{"type": "os", "command": "echo $((${n} + 1))", "capture": "n"}]},
      {"name": "enough", "on_ok": "END", "on_false": "again",
       "tasks": [{"type": "evaluate", "variable": "n", "operator": ">=", "value": "3"}]}]}

### Variables

A scenario declares its variables, each with a default value. EXEC, schedules and `scenario`
tasks may give others; the tasks `set`, `refresh`, `os`, `python` and `http` can change them.
Values are text. `STATUS` shows them. A value has at most <<MAX_VALUE>> of UTF-8, whoever gives it;
more is an error. A text of a task may become <<MAX_TEXT>> long by the values in it.

- `${name}` in a text of a task is the variable's value. `$$` before a brace is a dollar. Every
  other `$` stays as it is.
- In a **string command** of an `os` task, which the shell runs, `${name}` becomes
  `${VAR_name}`, and the shell reads that from the environment. So no value can become a
  command. Put it in double quotes, as always in a shell.
- In a **list command** `${name}` is replaced by the value, in that argument alone. Do not put
  it into a program that another program runs (`["sh", "-c", "... ${v}"]`): there a value could
  become a command. The import warns of it. Give it as an argument behind the program, or read
  it from the environment.
- In SQL write `:name`. It is a bind parameter, never text.
- In `code` of a `python` task write `os.environ["VAR_name"]`. `${name}` is refused there.
- Every process of a task has all variables in its environment, as `VAR_name`.
- The agent itself gives `SESSION` (the number), `SCENARIO`, `CONTEXT` and `DUE`, also as
  `${DUE}`. `DUE` is the time that was planned, not the time of day: a late run has to load the
  right day. A session without a schedule has its `-AT` there, or the time of EXEC.
- An unknown variable is an error at the import.
- Names have letters, digits and `_`, and do not begin with a digit.

### Secrets

    "variables": {"password": {"secret": true}, "token": {"secret": true, "env": "API_TOKEN"},
                  "key": {"secret": true, "file": "/etc/agent/key"}}

A secret is shown nowhere. It is `***` in logs (also where a task prints it), listings, messages
and errors. It is never stored in a repository.

- `{"secret": true}` has to be given with EXEC. Until the session has ended it lies in a file
  beside the repository that only the agent's user may read. RESTART has to give it again.
- With `"env"` it is read from the agent's environment, with `"file"` from a file, when the
  session begins. A last line end of the file does not belong to it. The file is a regular one.
- It has at least <<MIN_SECRET>>: what is shorter cannot be masked sensibly.
- It is refused in the arguments of a process, which every user of the host can see, and as a
  variable of a schedule. No task can set one.

### Concurrency

`"concurrency": {"limit": 1, "on_limit": "wait"}` bounds the sessions of one scenario. Its
fields:

<<fields concurrency>>

`max_wait` counts from EXEC, or from `-AT`. It does not count while the agent is held. A
schedule whose due time meets `skip` notes `skipped` with the reason `limit`.

### Topology

Tasks name a **logical schema**. In each **context** it stands for a **data server**: so one
scenario serves test and production. A context of its own that a schema does not mention takes
what `GLOBAL` has.

    {"contexts": ["GLOBAL", "PROD"],
     "data_servers": [
       {"name": "DWH_FILE", "driver": "sqlite3", "database": "/srv/dwh.db"},
       {"name": "ORA", "driver": "oracledb",
        "connect": {"user": "etl", "password": {"env": "ORA_PASSWORD"}, "dsn": "db1/sales"}},
       {"name": "MAIL", "driver": "smtp",
        "connect": {"host": "mail.example.org", "sender": "agent@example.org", "user": "agent",
                    "password": {"file": "/etc/agent/mail"}}}],
     "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "DWH_FILE", "PROD": "ORA.SALES"}}]}

`ORA.SALES` is the data server `ORA` and its **physical schema** `SALES`. That goes before the
table of `load_csv` when the table has none of its own. In SQL write it yourself. SQLite has
none.

A data server:

<<fields data_server>>

A value of `connect` that is secret is `{"env": NAME}` or `{"file": PATH}`. It is read when a
task needs it, and masked like any secret. A driver that this host's Python lacks is a warning
at the import, and an error of the task.

A logical schema:

<<fields logical_schema>>

`connect` of the driver `smtp`, for `mail` tasks:

<<mail>>

### Calendars

<<fields calendar>>

Schedules exclude the dates of a calendar by its name (`exclude_dates`). The verbs
`CALENDAR ADD`, `SET`, `DEL` and `LIST` do the same over the port. One that a schedule names
cannot be deleted.
"""
MANUAL_TASKS = r"""
## tasks: what steps do

A task is a JSON object with a `type`. Every type has these fields, and its own:

<<fields task>>

A task ends `DONE`, `WARNING` or `ERROR`. Every text of it may use `${name}` (topic
`variables`); in SQL it is `:name`.

Its message says why, in one line, without the values of secrets: an exit code has the last line
of standard error behind it, a false `evaluate` the value that it has compared, and what gave
variables values says which. The message of a session is that of the task that decided it; of
several that made it end in `WARNING`, the newest.

- Each process of a task has its own process group. What it prints goes to the session's log,
  line by line. A task ends with its process: what that leaves running on purpose stays, and
  what is printed by it later is thrown away.
- A process begins with the default action for every signal, none blocked, whatever the agent was
  started with. Modules are not searched in the agent's working folder, nor in the user's site.
- SQL on SQLite runs inside the agent, and a stop interrupts it. Other drivers, CSV, files,
  `wait_file`, `matches`, `http` and `mail` run in a process of their own each, which a stop ends.
- What nothing ends, such as the reading of a database or a secret on a mount whose server is gone,
  or one long comparison of SQLite (`like` with a pattern of thousands of characters), is left
  behind after <<KILL_S>>: the session ends, and its message and the reply to `STOP` say so.
- Only regular files are copied, packed, unpacked, attached and replaced: a device, named pipe or
  socket is an error. `load_csv` takes a named pipe, too.
- A file, or a copy of a folder, is written beside its target, as `.NAME.HEX.part`, and renamed
  when it is whole. HEX are 16 digits that nobody can foresee. When the task fails or is stopped,
  or its agent was killed and the session is cleaned, that is deleted. Only a power cut may leave
  one.
- Names of files are UTF-8, whatever the locale says. Python 3.6 needs a locale of UTF-8 for that,
  such as `C.UTF-8`; where the host has none, the agent says so at its start.
- A path that is there is meant as it is, also `report[1].csv`; else it is a pattern.

### os

Runs a command of the operating system. Its exit code decides.

<<task os>>

A text is run by `/bin/sh -c`. A list is run without a shell: program, then arguments. A code
below 0 means that the process was ended by that signal. See `variables` for `${name}` in
commands, and for how much `capture` takes.

### python

Runs Python code in an interpreter of its own, the same that runs the agent. Its exit code
decides. Modules of a program's own stand beside its `file`, or in folders that `PYTHONPATH` of
`env` names; those of the working folder and of the user's site (`~/.local`) are not found.

<<task python>>

### sql

Runs SQL on a data server, in one transaction: all of it or nothing.

<<task sql>>

Variables are bound as text. To compare with a number write `cast(:n as integer)`. Where a colon
is no variable write `\:` (`\:new.id`); `::` does the same, but behind an expression it stays the
cast of PostgreSQL. Literals, comments and quoted names (`"a:b"`, `[a:b]`) are left alone. The
statements that begin and end a transaction are the agent's; a task that has one is an error. On
SQLite a lock of another program is waited for, until the task's timeout. Rows that a statement
gives are counted, and not kept.

### set

Gives a variable a value.

<<task set>>

### refresh

Takes a variable's value from a query. No row is an error, bytes are one, too (write `hex(...)`);
null is empty text.

<<task refresh>>

### evaluate

Compares a variable. False is no error: the step ends, and goes to its `on_false`.

<<task evaluate>>

When both sides are numbers they are compared as numbers, else as text. `in` takes a JSON list,
or text with commas. `matches` searches with a regular expression of Python: write `^...$` for
the whole value. It has at most <<MAX_EXPRESSION>>, and may be searched for <<SEARCH_S>>; longer
is an error. One that Python cannot compile is a fault of the definition.

### scenario

Starts a session of another scenario, in the same work repository, and waits for its end.

<<task scenario>>

Its end decides: `DONE` and `WARNING` are those of the task, all else is `ERROR`. A stop of this
session stops that one. A session that goes on after a crash takes up the one that it had
started, whatever has become of that, and starts no second; a RESTART does, too, unless that one
has ended badly. A scenario that would start itself, over whatever others, is an error.

### sleep

Waits.

<<task sleep>>

### wait_file

Waits until files are there and complete, or until none is there. Without a timeout it waits for
ever. A file is complete when its size and its times of change have stood still for `stable_s`.

<<task wait_file>>

### copy

Copies a file, a folder, or all that matches a pattern. Nothing to copy is an error.

<<task copy>>

`to` is a folder when it is one, when it ends in a slash, or when several files match. A folder
that is there already is merged with the new one: its files are overwritten one by one, others
stay. A file where the other has a folder is an error, and so is a pipe, a socket or a device;
then nothing is copied. Links in a folder stay links; one that is named itself is followed.

### move

Moves likewise, also from one file system to another. A link is moved as such.

<<task move>>

### delete

Deletes a file, a folder with all in it, or all that matches a pattern. Nothing to delete is no
error. A link is deleted itself, and `**` goes through none.

<<task delete>>

### mkdir

Makes a folder, and those above it. One that is there is no error.

<<task mkdir>>

### zip

Packs a file, a folder, or all that matches a pattern. Names in the archive count from the
folder before the pattern's first `*`, `?` or `[`. Folders are members, too, and so keep their
modes. Nothing to pack, or empty folders alone, is an error.

<<task zip>>

Empty folders, permission bits and times are kept, and links are followed. Pipes, sockets, devices
and links that lead nowhere are left out: each is a line of the log, and their number is the
task's message.

### unzip

Unpacks an archive. One with names or links that would leave the folder is refused, before
anything is written; so is one with a file where there is a folder, or a folder where there is a
file.

<<task unzip>>

Permission bits (never setuid) and times are those of the archive. In one that was made on Windows
a backslash parts folders.

### load_csv

Loads a CSV file into a table: all of it or nothing.

<<task load_csv>>

Quotes are RFC 4180's: one that begins a field ends with it. A first line `sep=;` gives the
delimiter, as Excel has it. Columns need names, each its own.

A bad row has too few or too many columns, a value that does not fit its type, or a quote that is
not closed or closed too early. Up to `max_errors` they are passed over, and the task ends in
`WARNING`; one more, and it ends in `ERROR` and nothing is loaded. The message says how many
there were of how many, and where the first is. Bad rows are in the log; with `error_table` also
in that table, which is made when it is missing. A blank line is ignored. Nothing at all between
two delimiters is null in a number column, and empty text in a text column. Without a header
`columns` is needed.

### unload_csv

Writes the rows of a query to a CSV file.

<<task unload_csv>>

Null is empty text. Bytes are an error, for they are no text: write `hex(...)` in the query.

### http

Sends a request of HTTP or HTTPS. Its status decides.

<<task http>>

- Certificates and their names are always verified, by the authorities that this host trusts (or
  those of `SSL_CERT_FILE`).
- At most <<MAX_REDIRECTS>> redirects are followed, but none whose status is in `expect`, and
  none to anything but `http:` and `https:`. 303, and 301 and 302 of a POST, go on as GET.
- Headers, body and `user:password@` of the url (sent as Basic) go to their own scheme, host and
  port alone. A redirect elsewhere goes on without them, also when it leads back; one that asks
  for the body there is an error.
- Messages show no login and no query.
- The server may be silent for <<SILENCE_S>>. Its answer begins within <<ANSWER_S>> and ends
  within <<CONTENT_S>>.
- `capture` is read in the charset that `Content-Type` tells, else as UTF-8.
- Proxies are those of the environment (`https_proxy`).
- An answer with a `Content-Encoding` of gzip or deflate is unpacked; any other coding is an error
  when the answer is captured or saved. What is saved as `.gz`, or has that type, stays packed.

### mail

Sends a mail by the data server that is named `MAIL` (topic `topology`).

<<task mail>>

Each text of `to` is one address, such as `Doe, Jane <j@x.example>`, or several with commas
between them. An attached `.eml` is a mail in the mail.

Recipients that the server refuses are told, and the task ends in `WARNING`. With `starttls` and
`ssl` the server's certificate is verified before anything is sent; a server without TLS is an
error then. A mail may take <<MAIL_S>>.
"""
MANUAL_SCHEDULES = r"""
## schedules: starting on time

A schedule starts a scenario by itself. `SCHED ADD` makes one, and so does a document:

    SCHED ADD EARLY HELLO -1 GLOBAL "daily at 02:30" -ATTEMPTS=3
    {"schedules": [{"name": "EARLY", "scenario": "HELLO", "rule": "daily at 02:30",
                    "attempts": 3}]}

Local times are those of the host's zone. Another one is `-TIMEZONE=Europe/Zurich` (Python 3.9);
before that `TZ=Europe/Zurich python agent.py` starts the agent in it.

Each field is an option of `SCHED ADD` and `SCHED SET`, in capitals. An option without a value
(`-HOURS=`) makes the field default again. The schedule's field `session_name` is the option
`-NAME`.

### Fields of a schedule

<<fields schedule>>

### Rules

    startup                              at each start of the agent
    boot                                 once after each boot of the host
    at 2026-12-01 02:00                  once
    every 15m                            :00, :15, :30, :45; a bare number is seconds
    hourly at 05:00                      each hour, at minute:second
    daily at 02:00,14:00                 each day
    weekly on mon,wed at 02:00           days of the week
    monthly on 1,15,last at 02:00        days of the month
    monthly on last fri at 18:00         first, second, third, fourth or last of a week day
    yearly on 12-31 at 23:00             dates of the year
    cron 0 2 * * mon-fri                 minute, hour, day of month, month, day of week

Times are `HH:MM` or `HH:MM:SS`.

- `every` counts from midnight UTC, or from `from` where that is given. So a restart of the
  agent does not shift it. It is elapsed time, and knows no time zone.
- `cron` takes five fields, or six with seconds first: names, ranges, steps, lists, `@daily` and
  its kin, 0 and 7 for Sunday. `L` is the last day, `5#2` the second Friday, `5L` the last one.
  When both day of month and day of week are restricted, either of them is enough; where one
  begins with `*`, both have to match. A range does not wrap.
- `boot` fires at the agent's first start after a boot. A schedule that is added, or that a
  newer agent reads for the first time, waits for the next boot. In a container it is the host's
  boot that counts. It is what `@reboot` of a crontab means.
- A step that is larger than what it goes over leaves one value: `*/90` as the minute is minute
  0 of each hour. `SCHED ADD` and `SET`, and an import, say so in a `note` or a warning.
- A rule that can never be due is refused. `SCHED ADD` also refuses one that is over (`at` in
  the past); an import takes it, since documents are kept.

### Windows

`from`, `to`, `hours` and the `exclude_` fields take due times away. `repeat_every` adds more to
each: with `repeat_count` so many, with `repeat_for` for so long.

A rule's own times decide about `hours` and dates. What daylight saving moves keeps the date
that it was meant for. Repetitions and `every` go by their own instants.

`startup`, `boot`, and a schedule without a rule, have no due times by the clock: they take no
window, no repetition and no jitter.

### Daylight saving

A local time that does not exist is run at the first instant after the gap; with `gap=skip` it
is skipped. One that exists twice runs the first time; with `fold=both` both times. `every` is
not concerned. `hourly`, and cron whose hour field begins with `*`, go by the minutes of each
real hour. Several times that fall onto one instant are one. `SCHED NEXT` notes these dates:

    SCHED NEXT EARLY -FROM=2027-03-27 -COUNT=2
    * schedule=EARLY due=2027-03-27T01:30:00+00:00 note=
    * schedule=EARLY due=2027-03-28T01:00:00+00:00 note="after gap 02:30 does not exist"

Zones with a name need Python 3.9 and a time-zone database. Before that there are `UTC` and the
system's zone; `TZ=Europe/Zurich python agent.py` starts the agent in another.

### Once and only once

A due time fires once. Its session and the record of it are one transaction. Neither a crash nor
a clock that steps back makes a second one.

`late` means: begun over <<LATE_S>> after it was due.

### What was missed

A due time is **missed** when at that time

- the agent did not run (reason `misfire`),
- the agent or the schedule was held (`hold`),
- the repository could not be written (`repository`),
- or the clock stepped over it (`misfire`).

One that is only decided late, on a busy host, is not missed: it runs. `misfire` says what is
done:

- `once` (default): one session, for the newest one that was missed. With `grace` only when it
  is not older.
- `all`: a session for each, within `grace` (default <<MISSED_S>>), and at most for the
  <<MAX_MISSED>> newest. With `overlap=queue` they run one after the other.
- `skip`: none.

Those that are skipped are one row of the record: the first, the last, how many, and why. So are
those that a window excluded while the agent did not run.

A `startup` or `boot` under a hold fires at the release, unless `misfire` is `skip` or `grace`
is over.

### Overlap

What is done at a due time while a session of the same schedule is still open:

- `queue` (default): the new one waits for its end. When one waits already, the due time is
  skipped.
- `skip`: the due time is skipped.
- `parallel`: both run.
- `stop`: the old one is stopped at once, as `STOP -IMMEDIATE` does it.

### After others

`after=A,scenario:B/2h` waits for others. It names schedules of the same repository, and
scenarios, whoever started their sessions. A session counts that ended `DONE` or `WARNING` since
this schedule fired last; with `/2h` it counts for two hours. A session that the schedule's own
session has started, by a `scenario` task, does not count.

- Without a rule the schedule fires when all that it names have ended well.
- With a rule, each due time waits for that. When the next due time comes first, the one before
  it is skipped.
- A changed `after`, and that of a schedule that is enabled again, looks only at what ends from
  then on.
- What is named by an `after` cannot be deleted.

### Jitter

`jitter=300` delays each start by up to 300 seconds, so that many schedules of one rule do not
begin in the same second. The delay follows from the schedule's name and the due time: it is the
same at every start of the agent. It never reaches the next due time. `due` is the time without
it; `late` and `missed` count from the delayed time.

### Attempts

With `attempts`, a session that ends in `ERROR` is followed by another one, after `retry_delay`.
That is so after a crash, too, but not after a STOP. The record of the due time then shows the
newest session. A session that is to be tried again is a session of its schedule, so `overlap`
sees it.

### Changing a schedule

- A change works at once. What is past does not fire.
- A change of rule, zone or window, and `SCHED OFF`, skip what had come due and was held or
  delayed; it is recorded as `misfire` (not when `--import` made the change). Other changes
  leave that alone. From then on due times are counted anew; what has fired does not fire again.
- A schedule that is not enabled has no due times.
- `SCHED OFF` works whatever else is wrong with a schedule, unless another program has spoilt
  what is stored of it.
- `SCHED DEL` keeps the record until it is purged. The same name added again does not fire a due
  time twice.
- What another program changes in the tables is noticed within <<HEARTBEAT_S>>; `SCHED UPDATE`
  reads it at once.
- A schedule that cannot fire, because its zone or calendar is missing here, is recorded as
  `failed` at each start. The others fire.

### Asking why

Every due time of an enabled schedule is recorded with what was decided. `SCHED WHY` tells it,
newest first:

    SCHED WHY EARLY -LIMIT=2
    * schedule=EARLY due=2026-11-24T01:30:00.000+00:00 ... decision=late ... message="session 8001
      began 20921 s late, the agent was down, it is DONE"
    * schedule=EARLY due=2026-11-21T01:30:00.000+00:00 last_due=2026-11-23T01:30:00.000+00:00
      count=3 decision=skipped reason=misfire ... message="3 due times skipped: missed: the agent
      was down"
    OK note="next due 2026-11-25T01:30:00+00:00"

The note says what stands in the way now: a hold, `disabled`, or what `after` waits for.

- A due time that a window, a gap or a fold excludes is recorded when it passes, with the reason
  `window`, `gap` or `fold`. This is done at most once in <<EXCLUDED_S>>. Two things are not
  recorded: repetitions that a window takes away, and what would come behind `to`.
- A step of the clock by <<STEP_S>> or more is noticed within a second, and so is a time of
  sleep. It stands in the log, and in the record with no schedule's name.
- A host whose clock was far ahead for a while has decided due times that are still to come. The
  log says so at the next start, and `SCHED NEXT` too. `SCHED OFF` and `SCHED ON` begin anew.

### Looking ahead

`SCHED NEXT` lists what comes. Its notes tell of daylight saving, exclusions, jitter and holds.
With `-ALL` it lists what is excluded too, and why. Nothing fires by it.

`SCHED PLAN` plays a period, by default a day, against the agent's limits. It uses the median
duration of past sessions that ended well. It tells what would

- `overlaps`: run beside an older session of its schedule, or in its place,
- `queues`: have to wait,
- `skipped`: make no session,
- `never`: not begin in the period, or take longer than its timeout.

What it plays:

- The schedules of this agent, also those that run `after` others, and at most <<MAX_VISITS>>
  due times.
- What is open now takes part, without a line of its own. What runs ends after the median, or
  now when it has run longer. What is outstanding comes first, at its start time or release.
- What comes due within a hold is decided at the release as `misfire` says. Without a release in
  the period it is `never`, and the note says since when and why it is held.
- A `-FROM` that is to come: what is open now and what a hold lets go take part; what comes due
  until then does not. A `-FROM` in the past is played from an empty start.
- A due time that jitter leads out of the period is `never`: it does not begin within it.
- What comes due at one instant comes in the order in which the agent decides it: by the id of its
  repository, then by the name of its schedule.
- With `-REPO`, the sessions of other repositories take no place.
- `SCHED PLAN -FROM` begins with its instant; `SCHED NEXT -FROM` behind it.

Where several repositories are attached, the lines of `SCHED NEXT`, `WHY` and `PLAN` end with
`repository=`.
"""
MANUAL_PROTOCOL = r"""
## protocol: requests and replies

The agent listens on 127.0.0.1 and port 20910, TCP. A request is one line of UTF-8 that ends
with LF or CRLF. The agent says nothing before it is asked.

    request = VERB { argument | NAME=value | -OPTION[=value] }
    reply   = { "* " data line } ( "OK" [ fields ] | "ERR" CODE message )

Each reply ends with exactly one line that begins with `OK` or `ERR`. So a program reads until
that line, whatever the verb.

- Requests of a connection are answered in order. They may be sent without waiting for replies.
- End of input after a request still gets its reply. A last line without its LF may have been
  cut short: it is refused, and not carried out.
- A blank line is ignored.
- A client that sends a request and closes at once may be nobody by then (topic `identity`).
  Read the reply, or close only the sending side.

### Words

Words are split at spaces and tabs.

- A bare word is taken as it is, a backslash too.
- `"..."` is a JSON string: `\n`, `\"` and `\u00e9` work. `'...'` is taken as it is.
- What begins with `-` and a letter is an option, so `-1` is an argument. `NAME=` begins a
  variable. A word that begins with a quote is always an argument.
- Options and variables may stand anywhere behind the verb.
- Verbs, option names and codes may be in small letters. Names of scenarios, schedules and
  variables may not.

What is wrong is `BAD_REQUEST`, and the message names the word: too many or too few arguments,
an unknown option, one that stands twice, a value of the wrong kind, a variable that the
scenario does not have. It shows no value of a variable, which could be a secret, and no
argument behind one: such a word is told by its number, or as `***`.

### Values

- Fields are `key=value`. A value is a JSON string in ASCII, unless it has only printable ASCII
  without spaces, quotes and backslashes. Without a value it is `key=`.
- With `-JSON`, which every verb takes, each data line is a JSON object, and so are the fields of
  the last line: `OK {"session": 1001}`, `ERR CODE {"message": ..., "session": ..., "faults":
  [{"path": ..., "reason": ...}]}`. Numbers, true, false and null are such. A line of `LOG` has
  `time step task stream text`, of `METRICS` `line`, of `HELP` `verb form help`; `EXPORT` gives
  its document on one line. The word counts in a request that is wrong otherwise, too.
- **Times** in replies are ISO 8601 with an offset. In requests a time is one of these:
  - `2026-12-01T02:00`, `"2026-12-01 02:00:30"`, or with `Z` or an offset behind; without one in
    the agent's zone. A date alone is its first instant, and its last where a period ends.
  - `now`, `today`, `yesterday`, `tomorrow`: a day alone is its first instant, also where a period
    ends. With a clock time: `"tomorrow 02:00"`.
  - A clock time alone, `02:00` or `02:00:30`: the next one; the last one with an option that
    looks back (`-SINCE`, `-DUE`).
  - A distance, with a unit or a sign: `10m`, `1d`, `+90`, `-1h`. Without a sign it counts from
    now on; with an option that looks back it is ago.

  A local time that a change of the clock skips is the instant after it; of one that comes twice
  the first is meant. What is stored must not move: `-FROM` and `-TO` of `SCHED ADD` and `SET`,
  and definitions, take the first form alone.
- **Durations** are seconds, or `90s`, `15m`, `2h`, `1d`.
- **yes or no** is `yes` or `no`.

### Codes

<<codes>>

### Identity

The agent asks the kernel who owns the other end of a connection, before it reads a byte. Root
and the agent's own OS user may do everything. For everybody else every verb but HELP and QUIT
is `ERR AUTH`.

- A program that forwards connections as your user (`ssh -L`, `kubectl port-forward`) lends your
  identity to whoever uses it.
- Connections of those whom the agent does not know count against nobody else's. They may be as
  many as a tenth of `--max-connections` beside these, and each line of theirs may take
  <<STRANGER_S>>.
- Until the agent listens, its port is bound in such a way that no other user can listen on it.

### Closing

- A line over <<MAX_LINE>> (`--max-line`; <<MAX_IMPORT_LINE>> for `IMPORT`) gets `ERR TOO_LONG`,
  and the connection is closed.
- When the very first line of a connection is no request of the right form, it is answered and
  the connection is closed. So is any line that ends like one of HTTP (`HTTP/1.1`). What follows
  is not carried out. So a browser that is tricked into connecting can do nothing. Later lines
  that are wrong cost only themselves.
"""
MANUAL_VERBS = r"""
## verbs: each request and its reply

What stands in `[ ]` may be left out. In a reply, a field in `[ ]` is there only when there is
something to say.

### PING

<<verb PING>>

### EXEC

<<verb EXEC>>

Without `-SYNC` the OK is all. With it, the first line comes when the session is on disk and the
OK when it has ended, whatever its end. An `ERR` is never the session's own end: `ERR TIMEOUT`
says that the waiting is over, `ERR STOPPING` that the agent stops; both name the session. The
session goes on, also when the client goes away.

The reply of a session that is `WAITING` has `waits_for`, `message` and maybe `start_at`, as
`SESSIONS` shows them later.

`ERR REPOSITORY`: the session could not be written within <<WRITE_S>>, and was not made.
`ERR BUSY`: the queue or the scenario is full, and it was not made. `ERR NOT_FOUND`: there is no
such scenario, version, context, or step for `-FROM`. `-LEVEL` matters for
sessions that end `DONE` or `WARNING` alone: one that ended badly keeps everything.

### STOP

<<verb STOP>>

The message of the session says who stopped it: `stopped at once by root (STOP -IMMEDIATE)`. With
`-IMMEDIATE` it answers when the session has ended, else at once (topic `stopping`). One
that has ended is `CONFLICT`.

### RESTART

<<verb RESTART>>

The topic `restarting` tells where it goes on, and with which variables. A session that did not
end in ERROR or STOPPED is `CONFLICT`, a step that is not there `NOT_FOUND`. `-SKIP` goes neither
with `-FROM` nor with `-REDEFINE`.

### CLEAN

<<verb CLEAN>>

The topic `after a crash` tells what is stale.

### HOLD

<<verb HOLD>>

### RELEASE

<<verb RELEASE>>

### SHUTDOWN

<<verb SHUTDOWN>>

The OK comes at once. From then on EXEC and RESTART are `ERR STOPPING`. The agent has stopped
when its process has ended; its last line of log is `stopped`. What is outstanding stays so for
the next start. `SHUTDOWN` again, with other options, hurries one that is under way.

### SESSIONS

<<verb SESSIONS>>

`waits_for` and `message` say why a session has not begun:

    waits_for=time        begins at 05:00
    waits_for=hold        held by ops since 22:00: maintenance
    waits_for=limit       limit 1 of LOAD: session 3001 runs
    waits_for=slot        limit 4 of the agent: sessions 1001, 2001, 3001 and 4001 run
    waits_for=repository  what is wrong with it
    waits_for=children    waits for session 3002 (of one that runs)

What waits for the one before it of its schedule (`overlap`) waits for a limit, too. Times are those
of the agent's host; another day than today's is told with its date. Of a session of another
agent's name only its start time is known.

### STATUS

<<verb STATUS>>

Steps and tasks that were never reached have no line. Each attempt has one.

### LOG

<<verb LOG>>

Each data line is `TIME STEP/TASK out|err TEXT`: what a task printed, on standard output or
standard error. Tabs stay. Other control characters, and bytes that are not UTF-8, are shown as
`\xNN`. A line over <<MAX_LOG_LINE>> is split. Of a task that prints over <<MAX_OUTPUT>>
(`--max-output`) the first and the last half are kept, and a line between them says how much is
left out.

`-TAIL` counts the lines that `-STEP`, `-STREAM` and `-SINCE` leave; with `-FOLLOW` it begins with
those, and goes on with what comes. The OK says how the session stands: is it an end, nothing
comes after these lines. `-FOLLOW` ends with the session, or with `ERR STOPPING` when the agent
goes and the session does not: it goes on (`SHUTDOWN -LEAVE`), or is left to the next start.

### WAIT

<<verb WAIT>>

It answers as `EXEC -SYNC` does. `ERR TIMEOUT`: the session has not ended yet. `ERR STOPPING`: the
agent has gone before its end.

### SCENARIOS

<<verb SCENARIOS>>

### REPOS

<<verb REPOS>>

A repository in trouble is tried again and again, and comes back by itself.

### CONTEXTS

<<verb CONTEXTS>>

### IMPORT

<<verb IMPORT>>

    IMPORT '{"scenarios": [{"name": "A", "version": "1", "steps": [{"name": "s",
      "tasks": [{"type": "os", "command": "date"}]}]}]}'

(That is one line.) Faults stand before the ERR, a line each: `* PATH: REASON`. A line for each
definition, and then those of the warnings, stand before the OK. The topic `definitions` has the
rules.

### EXPORT

<<verb EXPORT>>

The data lines together are one JSON document. Without a scenario it has the topology and the
calendars, too.

### DROP

<<verb DROP>>

A version that a schedule names is `CONFLICT`. Sessions that were made with it keep it.

### ATTACH

<<verb ATTACH>>

A file keeps the id that it carries; one whose id is taken here is refused.

### DETACH

<<verb DETACH>>

With open sessions it is `CONFLICT`.

### PURGE

<<verb PURGE>>

One of `-DAYS` and `-KEEP` is needed. With both a session goes that neither keeps: it is older than
`-DAYS`, and not among the newest. `-KEEP` counts those that `-STATUS` and `-SCENARIO` name: `PURGE
-KEEP=10 -SCENARIO=LOAD -STATUS=DONE` leaves the ten newest good sessions of `LOAD`, and all that
are no good ones of it. With `-DAYS`, but without those two, old records of due times that made no
session go, too. The agent itself purges once an hour what
is older than `--keep-days` (<<KEEP_DAYS>> days), once its clock can be believed (see
`--manual operating`).

### METRICS

<<verb METRICS>>

Each data line is one of Prometheus' text format.

### HELP

<<verb HELP>>

### QUIT

<<verb QUIT>>

### SCHED LIST

<<verb SCHED LIST>>

### SCHED SHOW

<<verb SCHED SHOW>>

### SCHED ADD

<<verb SCHED ADD>>

### SCHED SET

<<verb SCHED SET>>

Variables that are not named keep their values.

### SCHED DEL

<<verb SCHED DEL>>

### SCHED ON

<<verb SCHED ON>>

### SCHED OFF

<<verb SCHED OFF>>

### SCHED NEXT

<<verb SCHED NEXT>>

### SCHED WHY

<<verb SCHED WHY>>

`SCHED WHY NIGHTLY -DUE=02:00` tells of the last 02:00. Several due times that were skipped alike
are one line, which is there for each of them.

### SCHED PLAN

<<verb SCHED PLAN>>

### SCHED UPDATE

<<verb SCHED UPDATE>>

### CALENDAR LIST

<<verb CALENDAR LIST>>

### CALENDAR ADD

<<verb CALENDAR ADD>>

### CALENDAR SET

<<verb CALENDAR SET>>

### CALENDAR DEL

<<verb CALENDAR DEL>>
"""
MANUAL_CLIENT = r"""
## client: the verbs as commands

`agentcli.py` is a file of its own, and needs nothing else either. It has each verb as a
command, in small letters:

    python agentcli.py ping
    python agentcli.py exec FIRST folder=/etc --name "a first try" --wait
    python agentcli.py sessions --status ERROR --limit 20
    python agentcli.py sched add EVENING FIRST -1 GLOBAL "daily at 18:00"
    python agentcli.py log 1001 --follow
    python agentcli.py import weather.json
    python agentcli.py run --follow -- make -C /srv/site
    python agentcli.py top

`python agentcli.py --help` lists the commands, `python agentcli.py exec --help` the arguments
and options of one.

- `--host` and `--port` say where the agent is; else the environment does, `AGENT_HOST` and
  `AGENT_PORT`; else it is 127.0.0.1 and 20910. So `clean --of-host ID` is `CLEAN -HOST=ID`.
- `--wait` of `exec` waits for the end of the session. When the session has to wait itself, its
  first line says for what.
- `--follow` of `exec`, `restart`, `wait` and `run` shows the session as it goes on. Standard output
  has what its tasks print to theirs, and nothing else; what they print to standard error, the steps
  and the end are on standard error. On a terminal the steps that run stand below, with a bar
  against the median of the last ten sessions that ended well. Ctrl-C asks there: leave it, stop it
  now, stop it after its task, go on; without a terminal it leaves the session and ends with 130.
  `restart --follow` shows what is printed from then on, the others the whole log. When the agent
  goes away the exit status is 3; `wait SESSION --follow` follows the session again.
- `shutdown --wait` ends when the agent is gone.
- `check FILE...` has the agent check documents, as `import --dry-run` does, also where a version
  that is there differs: faults with their places, exit status 1. `diff FILE` says what an import
  would change, as a diff of JSON, and what the agent has that the document lacks (`only there`,
  which is no difference); exit status 1 where it would change something. Both need an agent.
- `edit SCENARIO [VERSION]` opens a scenario in `VISUAL`, else `EDITOR`, else `vi`, in a file of
  mode 0600, has it checked, asks again on faults, and imports it under the version after the
  latest: 001, 002; 1.9, 1.10. Who types another version there gets that one; `--replace` keeps it.
- `run -- COMMAND...` starts a bare command as a session of a scenario that is named after it
  (`RUN.make_all`), in the folder and with the `PATH` of the caller. It is logged, lives through a
  restart of the agent (`on_stale` is `adopt`), and can be restarted when it failed. One word that
  only a shell understands goes to the shell: `run -- 'make | tee log'`. It needs the role of an
  administrator, as an import does.
- `top` is a live screen: what runs, waits, has failed, comes next and is held. Keys: arrows (or j,
  k) choose, Enter shows the log as it grows, s stops, r restarts, h holds the chosen schedule or
  else the agent, u releases, H and U mean the agent, q quits; each asks before it acts. It needs a
  terminal and the module `curses`; elsewhere, and with `--plain` or `--count n`, it writes a page
  of text every `--every` seconds (2).
- `completion bash` and `completion zsh` print a script: `eval "$(agentcli.py completion bash)"`. It
  completes commands, options, and what the agent has (scenarios, schedules, sessions), for which it
  waits a second at most.
- Times are handed on unread: `--since 1h`, `--since yesterday`, `--until 02:30`, `--at 10m`
  (topic `values`).
- An option of `sched add` or `sched set` without a value (`--hours`) makes the field default
  again.
- The agent's messages are shown with the options and commands as the client has them.
- Listings are tables; columns that are empty throughout are left out, and times are those of
  the reader. Fields of the OK line are a table below. When there is nothing to list, that is
  said on a terminal alone.
- On a terminal no table is wider than that: times lose seconds that are 00, and the year where
  all are near, columns go that say what is usual or always the same, long texts are cut, which a
  `~` tells, and then other columns go. `COLUMNS=60` does the same where there is no terminal.
- `sessions` tells times from now on a terminal: `3 min ago`, `in 2 h`. `status` is a tree of the
  session, its steps and their tasks, with bars for how long they took. `sched next` shows due times
  of a schedule that follow one another within 15 minutes as one line, with how many there are; it
  looks at the next 1,000 and shows ten lines. Nothing of this is so with `--json`.
- States have colours on a terminal. `NO_COLOR`, when it is set and not empty, and `TERM=dumb` mean
  none.
- With `--json` each data line is a JSON object on one line, and so are the fields of the OK
  line, as the last one.
- An option of a newer agent that the client does not know can be given in the protocol's own
  form: `-OPTION=value`. What stands behind `--` is neither option nor variable.
- `import` takes several files, and `-` for standard input. It ends at the first that is
  refused.

Its exit status:

    0    all is well; the session that was waited for or followed has not ended badly
    1    that session ended in ERROR or STOPPED; check found faults; diff found differences; edit
         was given up
    2    wrong usage, or a file that cannot be read
    3    no connection, or it was lost; the agent stopped while a session was followed
    4    refused by the agent: its ERR is on standard error
    5    the waiting timed out (`wait --timeout`); the session goes on
    130  Ctrl-C
    141  nobody reads the output
"""
MANUAL_CRONTAB = r"""
## crontab: coming from cron

    crontab -l | python agentcli.py import --crontab - --dry-run
    crontab -l | python agentcli.py import --crontab -

Each entry becomes a scenario with one `os` task, and a schedule. `--dry-run` shows a line for
each, with its name, its rule and its next due time, and imports nothing. It asks the agent
which lines it would refuse; without an agent it says that the rules are not checked.

What is carried over:

- the five fields, and `@daily` and its kin; `@reboot` becomes `boot`: once after each boot,
- the settings above an entry, such as `PATH=` and `SHELL=`; `CRON_TZ` (needs zones with a
  name); `RANDOM_DELAY` as `jitter`,
- the comment directly above an entry, as the `description` of its scenario,
- `%` as standard input,
- cron's ways: sessions may overlap, and what was missed is skipped.

What is not carried over is told on standard error, with its line, and counted as `left_out` in
the line on standard output: lines of another user, `~`, a sixth field, lines of an anacrontab,
a rule that the agent refuses. The exit status is 0 all the same. `MAILTO` sends no mail: what a
command prints is in `LOG`.

Told, too, are lines that are carried over but may surprise:

- `flock -n`, `[ -x PROGRAM ] && PROGRAM`: what cron did not mind is a session in ERROR. The
  message says how to write it.
- A first word that is no program of this host, and may be a user.

A system's crontab names a user in each line: `/etc/crontab` and files of a `cron.d` are taken
for such. For others say `--system yes`, or `no`; a file that could be either is refused.

### Names from a crontab

A name is `CRON.` and the command: `backup full` is `CRON.backup_full`. Of any but plain
words it is the program, with six digits that follow from the whole command: `/opt/load.sh
--all` is `CRON.load.sh-2d68e4`. So a line more, another time or other settings rename
nothing, and neither does another file: the same crontab by another way is the same
schedules. When one command stands there at several times, each keeps the name that it has
in the agent; new ones get digits that follow from their time.

Imported again, the same crontab changes nothing, and another time is taken over. When the
settings or the comment of a line have changed, `--replace` takes the new ones. A schedule whose
line is gone (another command is another line) is told, and fires as before; with `--prune` it
is deleted, with its scenario. A user has one crontab, and so has the system, whatever the file
is called; each file of a `cron.d` is one of its own.

### Moving over

The schedules are enabled at once. A line that is still in cron would run twice. So:

1. `HOLD "moving from cron"`
2. import the crontab
3. take the lines out of cron
4. `RELEASE`

What comes due between 1 and 4 is left to cron, and is not made up for. A due time between 3 and
4 runs in neither, so be quick. `SCHED WHY` lists it as skipped. The hold is the whole agent's:
other schedules run what they have missed at the release, as their `misfire` says.
"""
MANUAL_OPTIONS = r"""
## options: the command line of agent.py

<<options>>

Exit codes: 0 stopped as asked, or done; 1 it cannot start, or a document was refused (why is on
standard error); 2 wrong usage.

`--max-sessions` bounds what runs at once, whatever it needs. Sessions that wait for others do
not count.

`--name` tells agents apart that share a master. Each has its own sessions and schedules:
`EXEC -AGENT=NAME` and a schedule's `agent` leave them to that one, which sees them within 5 s.
One agent of a name runs on a master at a time; a second one ends with exit code 1 and says who
holds the name.

In a container, give `--host-id`: its host name changes with each start.
"""
MANUAL_OPERATING = r"""
## operating: an agent that stays

### Starting at boot

Under systemd, `/etc/systemd/system/agent.service`:

    [Unit]
    Description=agent.py

    [Service]
    Type=notify
    User=etl
    ExecStart=/usr/bin/python3 /opt/agent/agent.py
    KillMode=mixed
    TimeoutStopSec=90
    Restart=on-failure

    [Install]
    WantedBy=multi-user.target

With `KillMode=mixed` a stop of the unit asks the agent alone to stop. It lets running sessions
end, for <<STOP_S>>; `TimeoutStopSec` has to be longer. What is still there when the agent has
ended, is ended by systemd. For `SHUTDOWN -LEAVE` the unit needs `KillMode=process`. If the unit
has `RestrictAddressFamilies=`, it must include `AF_NETLINK`, or each connection costs tens of
milliseconds.

Without systemd, a line in the user's crontab:

    @reboot cd /opt/agent && exec python3 agent.py 2>> agent.log

### Its log

The agent's own log is a line an entry on standard error: repositories attached and lost,
sessions that were stale, schedules that cannot fire, steps of the clock, faults. What tasks
print is not in it, but in `LOG`. `ERR INTERNAL` names a fault; its id finds the traceback in
the log.

Nobody waits for its log: what cannot be written, as the disk is full or nobody reads, is dropped
and counted, and the log says how many lines that were as soon as it can. An entry is one line
without control characters (they are shown as `\xNN`); the lines of a traceback are indented.

### Looking

`PING` tells how it is, `METRICS` is for Prometheus, `SESSIONS -STATUS=ERROR` lists what failed,
`SCHED WHY` what did not run.

    status=READY       all is well
    status=DEGRADED    a repository cannot be used; it is tried again and again
    status=STANDBY     a repository can only be read
    status=STOPPING    SHUTDOWN, or a signal

### Stopping the agent

`SHUTDOWN`, SIGTERM and SIGINT stop it in good order:

1. Nothing new begins. EXEC and RESTART are `ERR STOPPING`.
2. Running sessions may end: for <<STOP_S>>, or as long as `-MAX_WAIT` says. Then they are
   stopped, and end `STOPPED`. A second signal, or `-IMMEDIATE`, stops them at once.
3. What is outstanding stays so, for the next start.
4. All is written down, and the files are closed.

It has stopped when its process has ended; its last line of log is `stopped`. Only then another
one may start. A closed terminal (SIGHUP) stops nothing.

### Backup

A copy by `cp` of a live repository may be broken. Let SQLite copy it, also while the agent
runs:

    sqlite3 sqlite_repos/master.db  ".backup /backup/master.db"
    sqlite3 sqlite_repos/workrep.db ".backup /backup/workrep.db"

Programs that follow SQLite files work as well. When the agent has stopped, `cp` is right; then
no `-wal` file is left.

To put copies back: stop the agent, see that no `-wal` and no `-shm` file is left beside the old
ones, put the copies in their place, and start it. Sessions that ran when the copy was made are
stale then.

### Moving to another host

1. `SHUTDOWN`, and wait for its end.
2. Copy `agent.py` and the folder `sqlite_repos`. Paths of work repositories in or below the
   master's folder move with it.
3. Start it there. Do not start the old one again.

Sessions that ran when the old host was lost are left alone by the new one: `CLEAN -HOST=ID`
closes them. The log tells the id.

### Upgrading

1. `SHUTDOWN`, and wait for its end. `SHUTDOWN -LEAVE` lets sessions run on whose `on_stale` is
   `adopt`; the others are waited for.
2. Copy the new `agent.py` over the old one.
3. Start it.

It brings the files to its own form, each in one transaction, and keeps a copy of each as it
was: `FILE.vN` beside it (`FILE.vN.2` when there is one already). An older agent refuses a newer
file: to go back, put the copies in place.

### Repositories

`ATTACH NAME PATH -CREATE` makes a further work repository, and `DETACH` lets one go. Two may
have scenarios of the same name: without `-REPO` the one of the lowest id is taken. Files are
made with mode 0600. On a network file system they are refused, unless `--insecure-fs` is given.

Beside a work repository `workrep.db` there may be:

- `workrep.db-wal` and `-shm`: SQLite's own, while it is open. Who reads for long lets the first
  grow; it is cut some seconds after that is over and nothing is written,
- `workrep.db.secret.HEX`: secrets of an open session,
- `workrep.db.parts.SESSION.HEX`: what a task is writing beside its target just now,
- `workrep.db.spool.SESSION.RUN.HEX`: what an `adopt` session has printed and is not recorded
  yet,
- `workrep.db.vN`: copies from upgrades,
- `.workrep.db.HEX.part` and `.new`: a file that is being made. One that is days old was left by
  a crash and may be deleted.

HEX are 16 digits that nobody can foresee. The name of a repository's file has under 230 bytes.

Keep repositories in a folder that no other user may write (`chmod go-w`). One that others may
replace, or put files beside, is told at the start.

They are plain SQLite files. Other programs may read them while the agent runs, and may have
tables of their own in them. Do not replace a file under a running agent; should it happen, the
agent opens the new one and says so in its log. Do not delete a `-wal` or `-shm` either: the
agent sees that within a second and is `DEGRADED`, writes what was in it into the file itself,
opens the file anew, and acknowledges nothing meanwhile.

### Keeping

Ended sessions are kept for <<KEEP_DAYS>> days (`--keep-days`), with all that they printed.
`PURGE` deletes earlier. `EXEC -LEVEL` keeps less of what ends well.

The agent deletes nothing by itself on the word of a clock that is suddenly more than <<BELIEF_S>>
ahead of when it last looked, or of the first time that it looks at a file: it waits until that
clock has stood for a day. So a wrong clock, or a long time without the agent, costs no history.
The log says so. `PURGE` believes the clock at once.
"""
MANUAL_LIMITS = r"""
## limits: how much, how long

<<limits>>

A connection too many is told `ERR BUSY` and closed. Some of the files that the host lets the
agent open (`ulimit -n`) are kept back for its own use, half of them at most: so where that limit
is low, fewer connections can be open. The agent raises its own soft limit when connections and
sessions need more than it was started with; tasks have the limit as it was then.

When a limit is reached the answer says so: `ERR BUSY`, `ERR TOO_LONG`, `ERR BAD_REQUEST`, or
the task's message.
"""
MANUAL_GUARANTEES = r"""
## guarantees: what you can rely on

- **Acknowledged is on disk.** `OK session=` is sent after the commit (WAL, `synchronous=FULL`).
  The session survives `kill -9` and a power cut. Requests that come together share a commit.
  What cannot be written within <<WRITE_S>> is `ERR REPOSITORY`, and was not made.
- **Nothing runs twice in silence.** That a task begins is on disk before its process starts.
  After a crash its leftovers are ended first, then `on_stale` decides.
- **A due time fires once**, and every due time has its record.
- **Stop means stop.** `STOP -IMMEDIATE`, a timeout and `SHUTDOWN -IMMEDIATE` leave no process
  of the session alive, also none that called `setsid` or ignores SIGTERM. They are found by
  child relation, process group, OS session and a marker in their environment (`AGENT_MARKER`),
  and looked for until there are none: what is to be killed is frozen first, and only when two
  sweeps find nothing it is over. Should some of them not end (in an uninterruptible call of the
  kernel), the reply and the session say how many. Whose a process is, its start time and owner
  say, for a number may be another's by now. Beyond that is what gave away both its parent and its
  environment, or changed its user: let the unit of systemd end that. Where there is no /proc
  (macOS), the process group is ended.
- **What a session leaves running goes on.** What a task that ended left on purpose (`nohup x &`)
  is ended neither by a stop of another session nor with the agent. On Linux it becomes the
  agent's child when its parent ends, and leaves no zombie: also in a container whose process 1 is
  the agent.
- **A host in trouble ends nothing.** When it has no further thread, process, memory or
  descriptor to give, tasks and sessions wait for them, and go on when they are there again.
- **A repository in trouble delays nothing else.** When it is locked, full or gone, running
  sessions go on. What they have to record is kept and written later. What has not begun waits.
  PING says `DEGRADED`, and it comes back by itself. A listing gives the lines of the others,
  then `ERR REPOSITORY`.
- **Secrets are shown nowhere**, and no value of a variable becomes a command, SQL or code.
- **Nobody else's file is taken for the agent's.** What it makes beside another file has a name
  that nobody can foresee, and is never written through a link. Locks, secrets, spools and
  SQLite's own files that are links, or belong to somebody else than the agent's user, root or
  the repository's owner, are not used: a line names the file and says what to do.
- **Nobody else is served** but root and the agent's own user.
- **Output is kept as it came**, by pipes: also what is printed to `/dev/stderr`. Nothing
  printed can imitate a reply or drive a terminal.
- **What is asked of the network has a limit in time.** TLS is verified, and no login goes to
  another place than the one that it was given for.
- **One bad client, session, schedule or repository costs the others nothing.**
"""
MANUAL_TROUBLES = r"""
## troubleshooting: what went wrong

**It does not start.** One line on standard error says why, and the exit code is 1.

    an agent named X is running on this master       stop that one, or give another --name
    port N of H cannot be taken                      another program has it: --port
    the master repository X does not exist           --create makes it
    the file has schema version N                    a newer agent.py made it: use that one
    no loopback address                              this version listens on loopback alone

**ERR AUTH.** You are not the agent's user: run the client as that user, or as root. A client
that closes at once is nobody: let it read the reply. In a container or a sandbox the agent may
not be able to ask the kernel.

**A session does not begin.** `STATUS N`: `waits_for` and `message` say for what it waits: for its
start time, a hold, a limit (of its scenario's `concurrency`, or of its schedule), a free place
(`--max-sessions`), or its repository.
A session of another agent's name (`-AGENT`) waits for that agent.

**A session failed.** `STATUS N` has the message of each step and task, `LOG N` what was
printed. Mend it, then `RESTART N`.

**A schedule did not run.** `SCHED WHY NAME`. Its OK line tells what stands in the way now. Is
it enabled? Does it belong to this agent (`SCHED SHOW NAME`)? `SCHED NEXT NAME -ALL` shows what
its window takes away.

**A command works in my shell, and not here.** A task has the agent's environment, not that of
your login: give `cwd`, `env`, and full paths. A string command is run by `/bin/sh`. In double
quotes of JSON a backslash is written twice.

**A variable is empty in a command.** Write `${day}`, with braces, or `$VAR_day`. `$day` is a
variable of the shell.

**A number compares wrong in SQL.** Variables are text: `cast(:n as integer)`.

**An error says `stale`.** The agent, or its host, stopped without warning while the session
ran. `RESTART` goes on with it. Its scenario's `on_stale` can say what is to be done the next
time.

**PING says DEGRADED.** `REPOS` tells which repository, and why. `DEGRADED` goes away by itself
when the file can be used again. Another program that holds a lock of SQLite for long is a usual
reason. A file that is no database any more to who opens it now is another: bring back a copy.
With `STANDBY` a file can be read and not written.

**The zone is not known.** Zones with a name need Python 3.9 and a time-zone database. Leave the
zone out, and start the agent with `TZ=Europe/Zurich`.

**ERR INTERNAL fault ID.** A fault of the agent. Its log has the ID and what led there.
"""
MANUAL_CHANGES = r"""
## changes: what is different, newest last

- 1.0.0: the agent, its repositories, life cycle, protocol, sessions, tasks, schedules, the client.
- A browser cannot be made to send a request any more: a first line of a wrong form, and any line
  of HTTP, closes the connection. No error repeats a value. `${name}` in the `code` of a `python`
  task is refused at import, as a value became code; an older definition that has it ends in
  ERROR and says what to write.
- `mail` over `"tls": "ssl"` verifies the server as `starttls` does: one with a certificate of its
  own making or of another name no longer gets the password. `http` sends headers, body and login
  to their own origin alone: a redirect elsewhere no longer carries them away.
- A process of an `adopt` session that `SHUTDOWN -LEAVE` meets in the moment of its start is
  adopted, too. A time-out that follows a normal `STOP` ends all processes of its session. A
  failure that a further attempt made good no longer passes for the cause of a later `FAIL`. A
  secret file that cannot be read ends its session at once.
- Files that a stranger has planted in a folder that he may write are neither written through nor
  taken for the agent's: what is made beside a file has a name that nobody can foresee, and what
  is found is checked. A repository in such a folder is told at the start. A file that a task
  writes no longer meets another `.part` of the user's.
- `SESSIONS` answers in milliseconds whatever has run before. An idle agent holds 26 MB instead of
  54. A stored definition that cannot be read costs its own sessions alone, and is told where it
  is asked for. A secret that cannot be kept beside the repository leaves no session behind, and
  one of a session that its limit ends at once no file.
- `SCHED PLAN` plays the decisions that the ledger and the queue make: what a release lets go
  keeps its turn, what is stopped for the next due time still counts for a limit at that instant,
  and what jitter leads out of the period is `never`. Due times of one instant are decided by the
  names of their schedules. Sessions of a version without a limit count for the limit of a later
  one. A time of a request that a change of the clock skips is the instant after it. A schedule
  that another program has spoilt is told once, and has no next due time.
- `python agent.py --manual [topic]` prints this manual. `agentcli.py COMMAND --help` says what
  each option means.
- Under Python 3.11 an `sql` or `refresh` task that failed could keep the lock of its SQLite file,
  so that the next one waited for ever; the lock goes with the task.
- `PING` beside `ATTACH` and `DETACH` is always answered, and a work repository is opened once:
  `DETACH` waits for what the agent is doing with it, its file is closed when it answers, and of
  two `DETACH` the second says `NOT_FOUND`. No `EXEC` is acknowledged in a repository that is just
  being detached. An `ATTACH` that says `OK` has attached it, one that says `ERR` has not. A
  repository that another agent puts in the place of one is followed; neither keeps a client
  waiting when the agent ends.
- No module of the working folder, or beside agent.py, stands for one of Python's any more, and
  exit codes are known also where SIGCHLD was ignored at the start. Python tasks no longer import
  from the user's site and, for `code`, from the working folder: name such folders in the task's
  `env`.
- CSV files are read as RFC 4180 has them: a quote that is never closed is a bad row, no good one.
  A first line `sep=;` gives the delimiter. Columns without a name, or with the same, are an error
  that names them. `unload_csv` has `newline`. Bytes are no value any more (`b'\x00'` was one).
- In SQL `[a:b]` is a name, and `\:` writes a colon.
- `IMPORT` answers with a line for each definition and with warnings, and has `-DRY_RUN`. What an
  operator has switched off stays off.
- Times of requests may count from now: `-SINCE=1h`, `-AT=10m`, `-UNTIL=02:30`, `"tomorrow 02:00"`.
  `SCHED WHY` has `-DUE` and `-SINCE`, `LOG` has `-SINCE`. A step of cron that leaves one value
  (`*/90`) is told.
- The client has help for each argument and option, `AGENT_HOST` and `AGENT_PORT`, `--version`,
  tables that fit the terminal, the agent's messages with its own options, and exit status 5 when
  a waiting timed out. `clean --of-host ID` is what `clean -HOST=ID` was, as `--host` is where the
  agent is.
- Schedules from a crontab have other names, which follow from the commands: a line more renames
  nothing. Import a crontab that is there already once with `--replace`, and delete what it tells
  of. Comments are kept, `--prune` deletes what is gone, `@reboot` is the new rule `boot`, and
  `--dry-run` is a line for each entry.
- Every verb takes `-JSON`, and the last line of its reply is JSON then, too: clients that read the
  fields of an `OK` behind `-JSON` read `OK {...}` now.
- What a task was writing when it was stopped or killed is deleted, by a note beside the
  repository. `copy` and `move` merge a folder into one that is there, and tell what cannot be
  before they begin. `delete` takes `**`. `wait_file` waits until a file's times stand still, too.
- `zip` keeps empty folders, permission bits and times, and no longer hangs at a pipe; names count
  from the folder before the first `*`. `unzip` gives bits and times back.
- `http` passes over answers that only announce one, such as 103; reads a capture in its charset;
  unpacks gzip and deflate. `mail` has a date and an id; an `.eml` is attached as a mail;
  `Doe, Jane <j@x.example>` is one address.
- Without a locale the agent knows names of files as with one, under Python 3.6 too.
- A parent that a crash parts from its child takes it up instead of starting a second. Nothing is
  purged on the word of a clock that has jumped ahead. A deleted `-wal` loses nothing and is
  `DEGRADED`. A repository that can only be read at the start is `STANDBY`. Memory stays flat while
  others commit.
- An expression that takes for ever, a pattern of `wait_file` on a mount that hangs, a pipe or a
  device where a file is expected, and SQL that nothing interrupts end with their task. A value of
  a variable has at most 64 KiB, whoever gives it. Rows are counted without being kept. Documents,
  SQL and crontabs are read in time that grows as their length.
- `STOP -IMMEDIATE` ends chains of processes that fork and end: what is found is frozen first, and
  it answers when two looks find nothing. No signal reaches a process that has another's number.
  What the host cannot give for a while (threads, memory, a full disk) makes sessions wait, and one
  session's trouble costs the cleaning that one alone.
- What a process of an `adopt` session prints after SIGTERM is in its log: the process that keeps it
  is no longer ended before it. A task whose program or working folder is on a mount that hangs ends
  with its time-out or by a stop, and nothing else waits for it. What loses its parent becomes the
  agent's child and is reaped, in a container without an init too. Tasks have the `ulimit -n` that
  the agent was started with.
- `EXEC -FROM=step` begins with a step. `RESTART` takes variables back to what they were when the
  task that failed began, so that a loop goes on with the round that failed and not with the next.
  It has `-SKIP`, and `-REDEFINE` for a definition that was mended, and says in `note=` that there
  is one. Work repositories get four columns.
- Messages say why: an exit code comes with the last line of standard error, a false `evaluate`
  with the value that was compared, `set`, `refresh` and `capture` with what they set, and a
  session that ends in `WARNING` with what was passed over.
- A `-wal` that a long reader has let grow is cut when that has left, also while nothing happens.
- `LOG` has `-TAIL`, `-STEP` and `-STREAM`, and its OK says `status=`. Who follows the log of a
  session that goes on without the agent is told `ERR STOPPING`, as one who waits for it.
- `PURGE` has `-STATUS`, `-SCENARIO` and `-DRY_RUN`. `PURGE -JSON`, without `-DAYS` or `-KEEP`,
  deleted every ended session; it is refused as `PURGE` alone is. `SCHED LIST` has `last_session=`
  and `last_status=`. A `-TO` that does not lie after `-FROM`, and a `-DUE` before `-SINCE`, are
  refused by `SCHED NEXT` and `SCHED WHY`, which found nothing.
- `unzip` of thousands of small files takes half the time.
- A session says what it waits for: `SESSIONS` and `STATUS` have `start_at=`, `parent=` and
  `waits_for=`, with the words in `message=`, and so has the reply of an `EXEC` or `RESTART` that
  makes it `WAITING`. `SESSIONS` has `-PARENT`. The message of one that was stopped says by whom and
  by what, where it said `stopped`; `by` of a hold is a name of the host, not `uid N`.
- Control characters, what turns the direction of a text, and bytes that are no UTF-8 are shown as
  `\xNN` wherever a path or a name gets to: the log, replies, messages, the client's output.
- A session with a start time that was stopped before leaves nothing in memory.
- A session waits for one commit before its first process, and its slot takes the next one while
  its end is written down. `--import` takes a third of the time, `load_csv` a fifth less. Threads
  share their heaps, so memory under load is a third less.
- `zip` keeps the modes of all folders, and counts them as members. Python tasks know file names
  and print text without a locale on Python 3.6, too, as later ones do.
- `SHUTDOWN -IMMEDIATE` amid many sessions: those that end at the same time look at the process
  table together. 1,000 sessions of `sleep` end in 2 seconds, not in minutes. No memory even to
  tell that there is none costs no slot.
- A connection costs no thread while it asks for `EXEC` without variables and `PING` alone: one
  thread serves all of those, so that requests of many clients share their commits. An idle agent
  is woken less often, and connections that read a repository hold 256 KiB of it each, not 2 MiB.
- An agent with 100,000 schedules is ready in two thirds of the processor time, with a quarter less
  memory, and `--import` of as many definitions takes half as long: schedules of equal rule, zone
  and options share what is computed of them. A few changed schedules among many no longer hold up
  all threads.
- Many other files in the folder of a repository cost no memory: the agent looks for its own there
  without a list of all.
- `PURGE -KEEP` of half a million sessions among a million takes 12 seconds, where it took longer
  with each: what is to go is looked for once. Where nothing is old enough, `PURGE -DAYS` and the
  agent's own purge find that out at once.
- A session that runs a process holds a third less memory: no buffers of its pipes beside the log.
- A repository file that another takes the place of in the moment when a commit fails no longer
  keeps those who wait for it waiting for ever.
- `agentcli.py exec --follow` (and `restart`, `wait`, `run`) shows steps and output as they come.
  New commands: `check`, `diff`, `edit`, `run --`, `completion`, `top`; `shutdown --wait`. `status`
  is a tree with bars, `sessions` tells times from now on a terminal, `sched next` folds what
  repeats soon, states have colours, and no table is wider than the terminal.
"""
MANUAL_FILES = (MANUAL_START, MANUAL_EXAMPLE, MANUAL_SESSIONS, MANUAL_DEFINITIONS, MANUAL_TASKS,
                MANUAL_SCHEDULES, MANUAL_PROTOCOL, MANUAL_VERBS, MANUAL_CLIENT, MANUAL_CRONTAB,
                MANUAL_OPTIONS, MANUAL_OPERATING, MANUAL_LIMITS, MANUAL_GUARANTEES,
                MANUAL_TROUBLES, MANUAL_CHANGES)

_PLACE = re.compile("<<([^<>\n]+)>>")
_HEADING = re.compile("^(##+) ([^:\n]+)(?:: .*)?$", re.M)


class Limit(NamedTuple):
    """A number that the manual tells: prose names it <<NAME>>."""
    name: str
    value: Any
    unit: str               # bytes, seconds, another plural noun, or nothing
    meaning: str


LIMITS = (
    Limit("SESSIONS_PER_CORE", SESSIONS_PER_CORE, "",
          "sessions at once for each core of the host (`--max-sessions`)"),
    Limit("MAX_QUEUE", MAX_QUEUE, "", "outstanding sessions of an agent (`--max-queue`)"),
    Limit("MAX_CONNECTIONS", MAX_CONNECTIONS, "",
          "connections of the agent's user and root at once (`--max-connections`)"),
    Limit("MAX_LINE", MAX_LINE, "bytes", "of a request (`--max-line`)"),
    Limit("MAX_IMPORT_LINE", MAX_IMPORT_LINE, "bytes", "of an IMPORT request"),
    Limit("MAX_NAME", MAX_NAME, "characters", "of a name"),
    Limit("MIN_SECRET", MIN_SECRET, "characters", "of a secret, at least"),
    Limit("MAX_VALUE", MAX_VALUE, "bytes", "of the value of a variable"),
    Limit("MAX_TEXT", MAX_TEXT, "characters", "of a text of a task with the values of variables"),
    Limit("MAX_EXPRESSION", MAX_EXPRESSION, "characters", "of a regular expression"),
    Limit("SEARCH_S", SEARCH_S, "seconds", "that a regular expression may be searched"),
    Limit("MAX_OUTPUT", MAX_OUTPUT, "bytes", "kept of what a task prints (`--max-output`)"),
    Limit("MAX_LOG_LINE", MAX_LOG_LINE, "bytes", "of a line of output; a longer one is split"),
    Limit("MAX_LIST", MAX_LIST, "", "lines of a listing, by `-LIMIT`"),
    Limit("MAX_REPOSITORIES", MAX_REPOSITORIES, "", "work repositories of a master"),
    Limit("KEEP_DAYS", KEEP_DAYS, "", "days that ended sessions are kept (`--keep-days`)"),
    Limit("MAX_MISSED", MAX_MISSED, "", "sessions that `misfire=all` makes at most"),
    Limit("MISSED_S", MISSED_S, "seconds", "how old a due time of `misfire=all` may be, unless "
          "`grace` says it"),
    Limit("MAX_VISITS", MAX_VISITS, "", "due times that SCHED PLAN plays"),
    Limit("WRITE_S", WRITE_S, "seconds", "in which a request has to be on disk"),
    Limit("TERM_S", TERM_S, "seconds", "between SIGTERM and SIGKILL"),
    Limit("KILL_S", KILL_S, "seconds", "that the end of a process is waited for, after SIGKILL"),
    Limit("TRY_S", TRY_S, "seconds", "between two tries of what the host cannot give now"),
    Limit("STOP_S", STOP_S, "seconds", "that SHUTDOWN lets sessions run on (`-MAX_WAIT`)"),
    Limit("YIELD_S", YIELD_S, "seconds", "that a session's begin gives way to requests"),
    Limit("LATE_S", LATE_S, "seconds", "after which a begin is late"),
    Limit("STEP_S", STEP_S, "seconds", "by which the clock has to jump to be told of"),
    Limit("EXCLUDED_S", EXCLUDED_S, "seconds", "between two records of what a window excludes"),
    Limit("CLEAN_S", CLEAN_S, "seconds", "between two looks for stale sessions (`--clean-every`)"),
    Limit("BELIEF_S", BELIEF_S, "seconds", "that a clock which has jumped further ahead has to "
          "stand before the agent purges by it"),
    Limit("HEARTBEAT_S", HEARTBEAT_S, "seconds", "between two looks at what others have changed"),
    Limit("STRANGER_S", STRANGER_S, "seconds", "that a line of a client who is not known may take"),
    Limit("LINGER_S", LINGER_S, "seconds", "that is read on, and thrown away, before a connection "
          "is closed"),
    Limit("SILENCE_S", SILENCE_S, "seconds", "that a server of `http` or `mail` may be silent"),
    Limit("ANSWER_S", ANSWER_S, "seconds", "until the answer of `http` begins"),
    Limit("CONTENT_S", CONTENT_S, "seconds", "that the content of `http` may take"),
    Limit("MAX_REDIRECTS", MAX_REDIRECTS, "", "redirects of `http`"),
    Limit("MAIL_S", MAIL_S, "seconds", "that a mail may take"),
)
STATE_MEANINGS = {
    WAITING: "waits for its start time, for a limit, or for the end of a hold",
    QUEUED: "waits for a free place of the agent",
    RUNNING: "its tasks run",
    DONE: "ended well",
    WARNING: "ended well, but a task warned, or a failure was passed over",
    ERROR: "ended badly",
    STOPPED: "was stopped",
}
CODES = (BadRequest, UnknownVerb, NotFound, Exists, Conflict, AuthError, Denied, Busy, Stopping,
         RepositoryError, TooLong, WaitTimeout, Internal)
FIELD_TABLES = {
    "scenario": SCENARIO_FIELDS, "step": STEP_FIELDS, "concurrency": CONCURRENCY_FIELDS,
    "schedule": SCHEDULE_FIELDS, "task": TASK_FIELDS, "data_server": DATA_SERVER_FIELDS,
    "logical_schema": LOGICAL_SCHEMA_FIELDS, "calendar": CALENDAR_FIELDS,
}


def make_manual(topic=""):
    """The manual as text, or one topic of it: what stands below a heading, in any case; `sessions`
    is a chapter and `SESSIONS` a verb. `SCHED` gives all whose name begins so. NotFound names the
    chapters."""
    text = "".join(MANUAL_FILES)
    title = " ".join(topic.split())
    if title:
        text = "\n".join(_find_parts(text, title))
    return _PLACE.sub(_fill_place, text)


def list_topics():
    """The chapters: [(name, what it is about)]."""
    chapters = re.findall("^## ([^:\n]+): (.*)$", "".join(MANUAL_FILES), re.M)
    return [(name, about) for name, about in chapters]


def _find_parts(text, title):
    """The parts of the manual with this heading; each ends before the next of its rank.
    NotFound."""
    headings = list(_HEADING.finditer(text))
    names, places = [heading.group(2) for heading in headings], []
    for fits in (lambda name: name == title, lambda name: name.lower() == title.lower(),
                 lambda name: name.lower().startswith(title.lower() + " ")):
        places = places or [place for place, name in enumerate(names) if fits(name)]
    if not places:
        raise NotFound("the manual has no topic %s; there are %s, each verb, and each type of task"
                       % (shorten(title), ", ".join(name for name, _ in list_topics())))
    for place in places:
        rank = len(headings[place].group(1))
        behind = [other.start() for other in headings[place + 1:] if len(other.group(1)) <= rank]
        yield text[headings[place].start():behind[0] if behind else len(text)].rstrip() + "\n"


def _fill_place(match):
    """What stands for <<a table>>, <<a table of something>>, or <<A_LIMIT>>."""
    table, _, name = match.group(1).partition(" ")
    makers = {"topics": _tell_topics, "states": _tell_states, "codes": _tell_codes,
              "options": _tell_options, "limits": _tell_limits, "mail": _tell_mail}
    if table in makers:
        return makers[table]()
    if table == "fields":
        return _tell_fields(FIELD_TABLES[name])
    if table == "task":
        return _tell_fields(TASK_TYPES[name].fields)
    if table == "verb":
        return _tell_verb(name)
    return next(_tell_amount(limit) for limit in LIMITS if limit.name == table)


def _wrap(text, first="", further=""):
    """A text in lines that begin with `first` and `further`; what is in backquotes stays whole."""
    import textwrap
    text = re.sub("`[^`]*`", lambda match: match.group().replace(" ", "\0"), text)
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=further,
                         break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def _items(texts):
    return "\n".join(_wrap(text, "- ", "  ") for text in texts)


def _capital(text):
    return text[:1].upper() + text[1:]


def _tell_topics():
    return _items("`%s`: %s" % topic for topic in list_topics())


def _tell_states():
    lines = []
    for state, meaning in STATE_MEANINGS.items():
        before = " or ".join("`%s`" % each for each in TRANSITIONS[state])
        lines.append("`%s`: %s. It comes after %s%s." % (
            state, meaning, before, ", or is the first" if state in (WAITING, QUEUED) else ""))
    return _items(lines)


def _tell_codes():
    return _items("`%s`: %s" % (kind.code, " ".join((kind.__doc__ or "").split()))
                  for kind in CODES)


def _tell_options():
    return _items("`%s`%s: %s." % (
        option.words, " (%d to %d)" % option.limits if option.limits else "", option.help_text)
        for option in COMMAND_OPTIONS)


def _tell_limits():
    return _items("%s: %s" % (_tell_amount(limit), limit.meaning) for limit in LIMITS)


def _tell_mail():
    return _items("`%s`: %s." % item for item in MAIL_FIELDS.items())


def _tell_amount(limit):
    """A number with its unit, as people say it."""
    if limit.unit == "bytes":
        for size, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if limit.value % size == 0:
                return "%d %s" % (limit.value // size, name)
    if limit.unit == "seconds":
        for size, name in ((86400, "day"), (3600, "hour")):
            if limit.value % size == 0:
                return "%d %s%s" % (limit.value // size, name, "s" * (limit.value > size))
        return "%g s" % limit.value
    return ("{:,} %s" % limit.unit).format(limit.value).strip()


def _tell_fields(fields):
    """The fields of an object of a definition."""
    return _items("`%s` (%s): %s." % (name, _tell_kind(field), field.meaning)
                  for name, field in fields.items())


def _tell_kind(field):
    """What a field takes, and what it is when it is left out."""
    notes = [field.kind.accepts]
    if field.required:
        notes.append("required")
    elif field.default not in (None, "", [], {}):
        notes.append("default %s" % json.dumps(field.default))
    return "; ".join(notes)


def _tell_verb(name):
    """The form of a verb, its words, and its reply."""
    form = next(form for form in VERB_FORMS if form.name == name)
    parts = [_wrap(form.text, "    ", "        "), _wrap(_capital(form.help) + ".")]
    words = [part for part in list_parts(form) if not part.is_field]
    if words:
        parts.append(_items(map(_tell_word, words)))
    if any(part.is_field for part in list_parts(form)):
        parts.append("The other options are fields of a schedule (topic `fields of a schedule`).")
    if form.reply in (AS_FIELDS, AS_ROWS, AS_RECORD):
        parts += [_tell_line("* ", line) for line in form.lines]
    parts += [_tell_line("OK ", line) for line in form.oks if line.keys]
    return "\n\n".join(parts)


def _tell_word(part):
    kind = find_kind(part.kind)
    shown = part.name + ("=" + part.shown if part.shown else "")
    return "`%s`%s: %s." % (shown, " (%s)" % kind.accepts if kind else "", part.meaning)


def _tell_line(begin, line):
    """A line of a reply and its fields."""
    head = "Reply, %s:" % line.about
    fields = _items("`%s`%s: %s." % (
        key.name, "" if key.kind == TEXT_KEY else " (%s)" % key.kind, key.meaning)
        for key in line.keys)
    return "\n\n".join([head, _wrap(begin + line.form, "    ", "        "), fields])


# ======================================================================================
# protocol/schedule_verbs.py
# The verbs on schedules and calendars.
# ======================================================================================

def schedule_fields(repository, stored, due):
    """The values of the line of a StoredSchedule; `due`: its next due time, or None."""
    hold, last = stored.hold, stored.last or Last(None, None, None)
    more = {"hold_reason": hold.reason, "hold_until": hold.until} if hold else {}
    return fill(SCHEDULE_LINE, stored.schedule._asdict(), hold=hold is not None, next=due,
                last=last.due, last_session=last.session, last_status=last.status,
                repository=repository.name, **more)


@verb("SCHED LIST")
def _sched_list(agent, request):
    for schedule in agent.listing.list_all(request["-REPO"]):
        yield schedule_fields(*schedule)


@verb("SCHED SHOW")
def _sched_show(agent, request):
    """The line of a schedule, then one for each of its options, variables and conditions, and what
    it waits for."""
    for repository, stored, due in agent.listing.get(request["NAME"], request["-REPO"]):
        yield schedule_fields(repository, stored, due)
        schedule, hold = stored.check().schedule, stored.hold
        for option, value in schedule.options.items():
            yield fill(OPTION_LINE, {"option": option.replace("session_", "").upper(),
                                     "value": value})
        for variable, value in schedule.variables.items():
            yield fill(VARIABLE_LINE, {"variable": variable, "value": value})
        for kind, name, met in repository.db.read(
                repository.schedules.list_conditions, schedule.name):
            yield fill(AFTER_LINE, {"after": name, "kind": kind, "met": met})
        if stored.waiting is not None:
            yield fill(DELAYED_LINE, {"waiting": stored.waiting})
        if hold:
            yield fill(HELD_LINE, {"held": hold.since, "by": hold.by, "until": hold.until,
                                   "reason": hold.reason})


@verb("SCHED ADD")
def _sched_add(agent, request):
    if not request["RULE"] and "-AFTER" not in request:
        raise BadRequest("RULE is missing: write one like '%s', or give -AFTER=schedule"
                         % FORMS["daily"])
    fields = {name: request[name.upper()] for name in ("name", "scenario", "version", "context")}
    fields.update(rule=request["RULE"] or "", variables=request.variables)
    agent.changes.add(_schedule(agent, fields, _schedule_changes(request)), request["-REPO"])
    return _name_line(request)


def _name_line(request, rule="RULE"):
    """The OK of a change, with what is to be said of its rule."""
    notes = list_surprises(request[rule] or "")
    return fill(SCHEDULE_SET_LINE, {"schedule": request["NAME"]},
                **{"note": "; ".join(notes)} if notes else {})


def _schedule_changes(request):
    return {schedule_field(key): value
            for key, value in request.items() if key.startswith("-") and key != "-REPO"}


def _schedule(agent, *changes):
    """The Schedule of default fields and what changes them, one after the other."""
    fields = {key: field.default for key, field in SCHEDULE_FIELDS.items()}
    for fields_changed in changes:
        fields.update(fields_changed)
    return make_schedule(dict(fields, agent=fields["agent"] or agent.name))


@verb("SCHED SET")
def _sched_set(agent, request):
    changes = _schedule_changes(request)
    if not changes and not request.variables:
        raise BadRequest("nothing to change: give a field or a variable")

    def changed(schedule):
        return _schedule(agent, schedule.options, schedule._asdict(), changes,
                         {"variables": dict(schedule.variables, **request.variables)})
    agent.changes.set(request["NAME"], request["-REPO"], changed)
    return _name_line(request, "-RULE")


@verb("SCHED DEL")
def _sched_del(agent, request):
    agent.changes.delete(request["NAME"], request["-REPO"])
    return fill(SCHEDULE_NAME_LINE, {"schedule": request["NAME"]})


@verb("SCHED OFF")
@verb("SCHED ON")
def _sched_on_off(agent, request):
    is_on = request.verb == "SCHED ON"
    agent.changes.set(request["NAME"], request["-REPO"],
                      lambda schedule: schedule._replace(enabled=is_on))
    return fill(ENABLED_LINE, {"schedule": request["NAME"], "enabled": is_on})


@verb("SCHED NEXT")
def _sched_next(agent, request):
    _check_period(request, request.get("-FROM", agent.clock.now()), request.get("-TO", math.inf))
    for due, name, repository, note in agent.listing.preview(
            request["NAME"], request["-REPO"], request["-FROM"], request["-TO"],
            request["-COUNT"] or 10, "-ALL" in request):
        yield fill(COMING_LINE, {"schedule": name, "due": due, "note": note},
                   **_origin(agent, repository.id))


def _origin(agent, number):
    """What tells schedules of one name apart, where several repositories are attached."""
    names = {place.attachment.id: place.attachment.name for place in agent.places.list_all()}
    return {"repository": names.get(number)} if len(names) > 1 else {}


def _check_period(request, begin, end):
    """BadRequest for a period in which nothing can lie."""
    if end <= begin:
        raise BadRequest("-TO must lie after -FROM" if "-FROM" in request
                         else "-TO lies in the past")


@verb("SCHED WHY")
def _sched_why(agent, request):
    """A line for each occurrence, and in the OK what stands in the way now."""
    if request.get("-DUE", math.inf) < math.floor(request.get("-SINCE", 0.0)):
        raise BadRequest("-DUE lies before -SINCE")
    for repository, row in agent.listing.list_occurrences(
            request["NAME"], request["-REPO"], request["-LIMIT"] or 50,
            (request.get("-SINCE", 0.0), request["-DUE"])):
        yield fill(OCCURRENCE_LINE, row, message=explain(row), **_origin(agent, repository.id))
    with contextlib.suppress(NotFound):         # deleted since
        notes = [note for schedule in agent.listing.get(request["NAME"], request["-REPO"])
                 for note in list_state(*schedule, hold=agent.hold)]
        return fill(OUTLOOK_LINE, {"note": "; ".join(notes)} if notes else {})


@verb("SCHED PLAN")
def _sched_plan(agent, request):
    """A line for each Visit of the period, 24 hours where none is named; without -ALL only for what
    does not begin."""
    now = agent.clock.now()
    begin = request.get("-FROM", now)
    period = Period(begin, request.get("-TO", begin + DAY), now, agent.queue.slots, agent.hold)
    _check_period(request, begin, period.end)
    troubles = []
    end, visits = agent.listing.plan(period, request["-REPO"], troubles)
    for visit in visits:
        if visit.outcome != STARTS or "-ALL" in request:
            yield visit_fields(visit, **_origin(agent, visit.schedule[0]))
    if troubles:
        raise troubles[0]
    counts = collections.Counter(visit.outcome for visit in visits)
    sums = {outcome: counts[outcome] for outcome in OUTCOMES}
    return fill(PLANNED_LINE, dict(sums, to=end, slots=agent.queue.slots, due=len(visits)),
                **{"from": begin})


def visit_fields(visit, **origin):
    """The line of a due time in a plan."""
    return fill(VISIT_LINE, {
        "schedule": visit.name, "due": visit.due, "begin": visit.begin,
        "end": visit.begin and visit.end,
        "duration": round(visit.duration, 3) if visit.is_known else None,
        "outcome": visit.outcome, "note": "; ".join(visit.notes)}, **origin)


@verb("SCHED UPDATE")
def _sched_update(agent, request):
    return fill(UPDATED_LINE, {"schedules": agent.schedules.update()})


@verb("CALENDAR LIST")
def _calendar_list(agent, request):
    for name, dates in sorted(agent.master.calendars().items()):
        yield fill(CALENDAR_LINE, {"calendar": name, "dates": dates})


@verb("CALENDAR SET")
@verb("CALENDAR ADD")
def _calendar_put(agent, request):
    agent.changes.put_calendar(request["NAME"], request["DATES"], request.verb == "CALENDAR ADD")
    return fill(CALENDAR_NAME_LINE, {"calendar": request["NAME"]})


@verb("CALENDAR DEL")
def _calendar_del(agent, request):
    agent.changes.delete_calendar(request["NAME"])
    return fill(CALENDAR_NAME_LINE, {"calendar": request["NAME"]})


# ======================================================================================
# protocol/verbs.py
# The verbs on sessions, definitions, repositories and the agent itself.
# ======================================================================================

@verb("PING", is_quick=lambda agent, request: True)
def _ping(agent, request):
    return fill(PING_LINE, ping(agent))


def _is_exec_quick(agent, request):
    """Variables may be secrets, which are put aside in a file first."""
    return not request.variables and "-SYNC" not in request and not agent.desk.may_look(
        request["CONTEXT"] or DEFAULT_CONTEXT, request["-REPO"])


@verb("EXEC", is_quick=_is_exec_quick)
def _exec(agent, request):
    """Hands the EXEC to the desk: the reply comes at its commit, or with -SYNC at its end."""
    session_request = SessionRequest(
        request["SCENARIO"], request["-AGENT"] or agent.name, request["VERSION"] or NEWEST,
        request["CONTEXT"] or DEFAULT_CONTEXT, request.variables, request["-NAME"] or "",
        request["-KEYWORDS"] or "", request["-PRIORITY"] or 0, request.get("-LEVEL", 5),
        request["-TIMEOUT"], request["-AT"], request["-KEY"], from_step=request["-FROM"])
    pending = agent.desk.execute(session_request, request["-REPO"])
    if "-SYNC" not in request:
        return pending
    timeout_s = None if request["-SYNC"] is True else request["-SYNC"]
    return _exec_sync(agent, pending, timeout_s, request.has_left)


def _exec_sync(agent, pending, timeout_s, has_left):
    ticket = pending.result()
    yield ticket_fields(ticket)
    yield FLUSH
    return end_fields(agent, agent.watch.wait(ticket.session, timeout_s, has_left))


@verb("STOP")
def _stop(agent, request):
    is_immediate = "-IMMEDIATE" in request
    status, note = agent.desk.stop(request["SESSION"], is_immediate, "%s (STOP%s)" % (
        request.client.name, " -IMMEDIATE" * is_immediate))
    return fill(STOPPED_LINE, {"session": request["SESSION"], "status": status},
                **({"note": note} if note else {}))


@verb("RESTART")
def _restart(agent, request):
    if "-SKIP" in request and ("-FROM" in request or "-REDEFINE" in request):
        raise BadRequest("-SKIP says where it goes on, and so %s"
                         % ("does -FROM" if "-FROM" in request else
                            "does -REDEFINE: at a first task; name that of another step by -FROM"))
    ticket = agent.desk.restart(RestartRequest(
        request["SESSION"], request.variables, request["-FROM"], "-SKIP" in request,
        "-REDEFINE" in request))
    return fill_ticket(STATE_LINE, ticket, **({"note": ticket.note} if ticket.note else {}))


@verb("CLEAN")
def _clean(agent, request):
    return fill(CLEANED_LINE, {"cleaned": agent.keeper.clean(request["-HOST"])})


@verb("HOLD")
def _hold(agent, request):
    now, until = agent.clock.now(), request["-UNTIL"]
    if until is not None and until <= now:
        raise BadRequest("-UNTIL lies in the past")
    hold = Hold(request["REASON"] or "", request.client.name, now, until)
    return _set_hold(agent, request, hold)


@verb("RELEASE")
def _release(agent, request):
    return _set_hold(agent, request, None)


def _set_hold(agent, request, hold):
    if "-SCHEDULE" in request:
        agent.changes.hold(request["-SCHEDULE"], hold, request["-REPO"])
        return fill(SCHEDULE_HOLD_LINE, {"schedule": request["-SCHEDULE"],
                                         "hold": hold is not None})
    agent.set_hold(hold)
    return fill(AGENT_HOLD_LINE, {"agent": agent.name, "hold": hold is not None})


@verb("SHUTDOWN")
def _shutdown(agent, request):
    is_immediate, is_leaving = "-IMMEDIATE" in request, "-LEAVE" in request
    words = ["SHUTDOWN"] + ["-IMMEDIATE"] * is_immediate + ["-LEAVE"] * is_leaving
    agent.request_stop("%s of %s" % (" ".join(words), request.client.name), is_immediate,
                       request.get("-MAX_WAIT", STOP_S), is_leaving)


@verb("SESSIONS")
def _sessions(agent, request):
    filters = SessionFilter(tuple(request["-STATUS"] or ()), request["-SCENARIO"],
                            request["-SCHEDULE"], request["-KEYWORD"],
                            request["-SINCE"], request["-PARENT"])
    for row in agent.watch.list_sessions(filters, request["-REPO"], request["-LIMIT"] or 50):
        yield session_fields(agent, row)


@verb("STATUS")
def _status(agent, request):
    """The line of a session, those of its steps, each with its tasks, and its variables."""
    number = request["SESSION"]
    repository = agent.places.of_session(number)
    row, steps, tasks, secrets = repository.db.read(repository.views.get_history, number)
    yield session_fields(agent, row)
    for step in steps:
        yield fill(STEP_LINE, step, step=step["step"] + 1)
        for task in tasks:
            if task["step_run"] == step["run"]:
                yield fill(TASK_LINE, task, rows=task["row_count"],
                           task="%d.%d" % (task["step"] + 1, task["task"] + 1))
    values = dict(json.loads(row["variables"]), **dict.fromkeys(secrets, MASK))
    for name, value in values.items():
        yield fill(VARIABLE_LINE, {"variable": name, "value": value})


@verb("LOG")
def _log(agent, request):
    """The lines that are wanted, FLUSH when there are no more yet, and in the OK how it stands."""
    rows = agent.watch.list_log(
        request["SESSION"], LogFilter(request["-STEP"], request["-STREAM"], request["-SINCE"],
                                      request["-TAIL"]), "-FOLLOW" in request, request.has_left)
    while True:
        try:
            row = next(rows)
        except StopIteration as stop:
            return fill(LOGGED_LINE, {"status": stop.value})
        yield FLUSH if row is None else _log_line(
            to_local(row["time"]), row["step"], row["task"], row["stream"], row["line"])


def _log_line(*values):
    return TextLine("%s %s/%s %s %s" % values,
                    list(zip(("time", "step", "task", "stream", "text"), values)))


@verb("WAIT")
def _wait(agent, request):
    return end_fields(agent, agent.watch.wait(request["SESSION"], request["-TIMEOUT"],
                                              request.has_left))


@verb("SCENARIOS")
def _scenarios(agent, request):
    """A line for each version of a scenario; of one that cannot be read it says why."""
    for repository in agent.places.readable(request["-REPO"]):
        for row in repository.db.read(repository.scenarios.list_versions):
            scenario, message = None, ""
            try:
                scenario = repository.scenarios.parse(row["definition"], row["body"])
            except Unreadable as error:
                message = error.message
            yield fill(SCENARIO_LINE, row, repository=repository.name, scenario=row["name"],
                       steps=scenario and len(scenario.steps), message=message,
                       variables=",".join(scenario.variables if scenario else ()))


@verb("REPOS")
def _repos(agent, request):
    for place in agent.places.list_all():
        number, name, path, _ = place.attachment
        yield fill(REPOSITORY_LINE, {
            "repository": name, "id": number, "path": path,
            "status": "TROUBLE" if place.reason else "ATTACHED",
            "message": one_line(place.reason)})


@verb("CONTEXTS")
def _contexts(agent, request):
    topology = agent.master.topology()
    for name in topology["contexts"]:
        yield fill(CONTEXT_LINE, {"context": name, "schemas": ",".join(
            "%s:%s" % (schema["name"], schema["contexts"][name])
            for schema in topology["logical_schemas"] if name in schema["contexts"])})


@verb("IMPORT")
def _import(agent, request):
    """A line for each definition of the document, then the warnings, then the counts."""
    is_dry = "-DRY_RUN" in request
    imported = agent.import_document(request["DOCUMENT"], request["-REPO"], "-REPLACE" in request,
                                     is_dry)
    dues = agent.list_dues(imported.document) if is_dry else {}
    for change in imported.changes:
        is_due = change.kind == "schedule" and change.name in dues
        yield fill(CHANGE_LINE, change._asdict(),
                   **{"next": dues[change.name]} if is_due else {})
    for path, reason in imported.warnings:
        yield fill(WARNING_LINE, {"warning": reason, "path": path})
    counts = {kind + "s": imported.count(kind) for kind in IMPORTED_KINDS}
    return fill(IMPORTED_LINE, counts, warnings=len(imported.warnings),
                **{"dry_run": True} if is_dry else {})


@verb("EXPORT")
def _export(agent, request):
    document = agent.export(request["-REPO"], request["SCENARIO"], request["VERSION"])
    if request.is_json:
        return iter([TextLine("", list(document.items()))])
    return iter([TextLine(line, []) for line in json.dumps(document, indent=1).split("\n")])


@verb("DROP")
def _drop(agent, request):
    agent.drop_scenario(request["SCENARIO"], request["VERSION"], request["-REPO"])


@verb("ATTACH")
def _attach(agent, request):
    number = agent.places.attach(request["NAME"], request["PATH"], "-CREATE" in request)
    return fill(ATTACHED_LINE, {"repository": request["NAME"], "id": number})


@verb("DETACH")
def _detach(agent, request):
    agent.places.detach(request["NAME"])


@verb("PURGE")
def _purge(agent, request):
    days, is_dry = request["-DAYS"], "-DRY_RUN" in request
    if days is None and "-KEEP" not in request:
        raise BadRequest("-DAYS=n or -KEEP=n is missing: say what to purge")
    filters = PurgeFilter(None if days is None else agent.clock.now() - days * 86400,
                          request["-KEEP"], tuple(request["-STATUS"] or ()), request["-SCENARIO"])
    return fill(PURGED_LINE, {"purged": agent.keeper.purge(filters, is_dry)},
                **{"dry_run": True} if is_dry else {})


@verb("METRICS")
def _metrics(agent, request):
    return (TextLine(line, [("line", line)]) for line in metrics(agent))


@verb("HELP")
def _help(agent, request):
    topic = " ".join(capitals(word) for word in (request["VERB"], request["SECOND"]) if word)
    lines = [TextLine(line, [("verb", name), ("form", VERBS[name].form),
                             ("help", VERBS[name].help)])
             for name, line in _HELP.items() if not topic or (name + " ").startswith(topic + " ")]
    if not lines:
        raise NotFound("%s is no verb" % shorten(topic))
    return iter(lines)


@verb("QUIT")
def _quit(agent, request):
    return None


# here all functions are bound, or the import ends with what is missing
_HELP = list_help()


# ======================================================================================
# server/incoming.py
# A connection as its server sees it: the lines that come in, bounded, and the replies it owes.
# ======================================================================================

class Lines:
    """The lines that come in by a connection, bounded, and what of them is here already. With
    `line_s` a line may take so many seconds."""

    def __init__(self, connection, line_s=None):
        self._connection, self._line_s = connection, line_s
        self._data, self._searched = bytearray(), 0     # how much of it has no end of a line
        self.is_over = False            # nothing more comes in

    @property
    def has_next(self):
        """Whether a whole line is here, so that nobody has to be waited for."""
        return b"\n" in self._data

    @property
    def size(self):
        """How many bytes are here."""
        return len(self._data)

    def feed(self, data):
        """Adds what has come in; nothing: it was the last."""
        self.is_over = not data
        self._data += data

    def take(self, find_limit):
        """The next line without its end, or None: it is not all here. TooLong; BadRequest: the
        input has ended amid a line.

        find_limit(its first bytes) gives the most bytes that it may have; of one that is longer
        no more is read.
        """
        end = self._data.find(b"\n", self._searched)
        size = len(self._data) if end < 0 else end
        limit = find_limit(bytes(self._data[:16]))
        if size - self._data.endswith(b"\r", 0, size) > limit:
            raise TooLong("a line has at most %d bytes" % limit)
        if end < 0:
            self._searched = size
            if self.is_over and size:
                raise BadRequest("the last line has no end (LF), so it may be cut short: it was "
                                 "not carried out")
            return None
        line = bytes(self._data[:end])
        del self._data[:end + 1]
        self._searched = 0
        return line[:-1] if line.endswith(b"\r") else line

    def read(self, find_limit):
        """Waits for the next line -> take(); None is the end of the input."""
        begun = time.monotonic()
        while True:
            line = self.take(find_limit)
            if line is not None or self.is_over:
                break
            if self._line_s is not None:
                self._connection.settimeout(max(0.001, begun + self._line_s - time.monotonic()))
            self.feed(self._connection.recv(65536))
        if self._line_s is not None:
            self._connection.settimeout(self._line_s)
        return line


class Caller:
    """One connection: its Conversation, its Lines, and the replies that it is still to get."""

    def __init__(self, connection, conversation, max_line):
        self.connection, self.conversation, self._max_line = connection, conversation, max_line
        self.lines = Lines(connection, None if conversation.is_administrator else STRANGER_S)
        self.replies, self.unsent = [], b""     # unsent: of the replies before these

    def refuse(self, error):
        """Nothing more is taken in, as no thread goes on with it: what was to wait is refused with
        this error, a line that is none with its own."""
        if self.conversation.is_over:   # the last reply says why
            return
        if self.replies and not self.replies[-1].is_quick:
            self.replies.pop()
        else:
            try:
                self.lines.take(self.find_limit)
            except (TooLong, BadRequest) as fault:
                error = fault
        self.replies.append(self.conversation.refuse(error))

    def keep(self, unsent):
        """Notes what could not be sent yet of replies."""
        self.unsent = unsent

    def find_limit(self, start):
        """How many bytes a line that starts like this may have."""
        is_import = start.upper().split()[:1] == [b"IMPORT"]
        return MAX_IMPORT_LINE if is_import and self.conversation.is_administrator \
            else self._max_line


def encode(lines):
    """Lines of text -> bytes with their ends; what is FLUSH is none."""
    text = "".join(line + "\n" for line in lines if line is not FLUSH)
    return text.encode("utf-8", "backslashreplace")


# ======================================================================================
# server/front.py
# The connections that have asked for nothing yet but EXEC and PING, all in one thread.
#
# A thread for each would be woken twice a request: when it comes, and after its commit. Here what
# comes together is begun together, and answered together. Nothing here may wait, for anybody: what
# could, goes on in a thread of its own, and its connection stays there.
#
# Thread front: serves them; ends at Front.close().
# Thread usher: starts the threads of those that need one, which may take its time; ends likewise.
# ======================================================================================

NO_THREAD = "the host has no thread for a further connection"
TURN = 64               # lines of one connection until another has its turn
INTAKE = 65536          # bytes that are taken at once; a longer line is for a thread of its own


class Front:
    """Serves Callers whose requests wait for a commit alone, or for nothing."""

    def __init__(self, serve_alone, end):
        self._end = end                         # of a connection
        self._usher, self._waker = Usher(serve_alone, self.add), Waker()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker.descriptor, selectors.EVENT_READ)
        # all, those of whom more is read, and those whose client is gone
        self._callers, self._watched, self._lost = set(), set(), set()
        self._woken = collections.deque()       # Callers that are new, or for whom there is news
        self._is_asleep = self._is_closing = False
        self._thread = Worker(self._run, name="front")

    def start(self):
        """Serves from now on. RuntimeError: the host has no thread for it."""
        self._usher.start()
        self._thread.start()

    def add(self, caller):
        """Takes a Caller in, also once more. From any thread."""
        self._callers.add(caller)
        self._wake(caller)

    def close(self):
        """Ends the threads, and the connections that are still here."""
        if self._is_closing:
            return
        self._usher.close()
        self._is_closing = True
        self._wake(None)
        if self._thread.is_alive():
            self._thread.join()
        for caller in list(self._callers):
            self._leave(caller)
            self._end(caller.connection)
        self._selector.close()
        self._waker.close()

    def _wake(self, caller):
        """There is news for a Caller. From any thread; waits for nothing."""
        self._woken.append(caller)
        if self._is_asleep:
            self._is_asleep = False
            self._waker.ring()

    def _run(self):
        """Whatever goes wrong, as when memory is short: the thread stays for others."""
        while not self._is_closing:
            try:
                self._serve()
            except Exception:
                with contextlib.suppress(Exception):
                    log.exception("connections")
                time.sleep(0.1)

    def _serve(self):
        """Sleeps until something has come in, or there is news for somebody; each has one turn. Who
        gives news while it does not sleep need not wake it: it looks once more before."""
        self._is_asleep = True
        ready = self._selector.select(0 if self._woken else None)
        self._is_asleep = False
        for key, _ in ready:
            if key.data is None:
                self._waker.hear()
            else:
                self._guard(self._read, key.data)
        for caller in dict.fromkeys([self._woken.popleft() for _ in range(len(self._woken))]):
            if caller in self._callers:
                self._guard(self._go_on, caller)

    def _guard(self, work, caller):
        """work(caller); what goes wrong costs this connection alone."""
        try:
            work(caller)
        except Exception:
            with contextlib.suppress(Exception):
                log.exception("connection")
            self._lose(caller)

    def _read(self, caller):
        """Takes what has come in."""
        try:
            data = caller.connection.recv(INTAKE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:                 # it is gone; what it has asked for goes on
            data = b""
        caller.lines.feed(data)
        self._go_on(caller)

    def _go_on(self, caller):
        """Begins what is here, answers what can be answered, and watches for more."""
        if caller in self._lost:
            self._settle(caller)
            return
        if caller.unsent:               # no thread waits for a client that does not read
            self._lose(caller)
            return
        if not self._begin(caller) or not self._answer(caller):
            return                      # it is no more here, or lost
        lines, is_last = caller.lines, caller.conversation.is_over
        is_free = len(caller.replies) < MAX_BATCH and not is_last
        if is_free and lines.has_next:
            self._watch(caller, False)  # nothing more is taken in before that
            self._woken.append(caller)  # after the others
        elif not caller.replies and (lines.is_over or is_last):
            self._drop(caller)
        else:
            self._watch(caller, is_free and not lines.is_over)

    def _begin(self, caller):
        """Begins what has come in, in its order -> whether the connection is still here."""
        conversation, lines, replies = caller.conversation, caller.lines, caller.replies
        for _ in range(min(TURN, MAX_BATCH - len(replies))):
            if conversation.is_over:
                break
            try:
                line = lines.take(caller.find_limit)
            except (TooLong, BadRequest):       # the thread meets it, too
                return self._give_away(caller)
            if line is None:
                return lines.size <= INTAKE or self._give_away(caller)
            reply = conversation.begin(line)
            if reply is not None:
                replies.append(reply)
                if conversation.is_over or not reply.is_quick:
                    return self._give_away(caller)
                reply.start()
        return True

    def _answer(self, caller):
        """Sends the replies up to the first that waits for its commit; the last that does has it
        called again. Whether the connection is still here, and not lost."""
        lines = []
        while caller.replies and caller.replies[0].is_ready:
            lines += caller.replies.pop(0).chunks()
        if not self._send(caller, encode(lines)):
            return False
        for reply in reversed(caller.replies):
            if not reply.is_ready:
                reply.call_when_ready(functools.partial(self._wake, caller))
                return True
        if caller.replies:              # they are ready by now
            self._woken.append(caller)
        return True

    def _send(self, caller, data):
        """Sends what the client takes now; the rest is for a thread. Whether that was all."""
        try:
            sent = caller.connection.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._lose(caller)
        if sent < len(data):
            caller.keep(data[sent:])    # the client does not read
            return self._give_away(caller)
        return True

    def _watch(self, caller, is_watched):
        """Whether more is read of it: not while much of it is under way."""
        if is_watched and caller not in self._watched:
            self._selector.register(caller.connection, selectors.EVENT_READ, caller)
            self._watched.add(caller)
        elif not is_watched and caller in self._watched:
            self._watched.discard(caller)
            self._selector.unregister(caller.connection)

    def _leave(self, caller):
        self._watch(caller, False)
        self._callers.discard(caller)
        self._lost.discard(caller)

    def _drop(self, caller):
        """Ends a connection, of which nothing is under way."""
        if caller in self._callers:
            self._leave(caller)
            self._end(caller.connection)

    def _give_away(self, caller):
        """A thread of its own goes on with a connection: False, it is no more here."""
        self._leave(caller)
        self._usher.take(caller)
        return False

    def _lose(self, caller):
        """The client is gone, or nothing can be done for it: False. What it has asked for takes its
        course all the same."""
        if caller in self._callers:
            self._watch(caller, False)
            self._lost.add(caller)
            self._settle(caller)
        return False

    def _settle(self, caller):
        """Ends a lost connection, once all that is under way has its place in the queue."""
        while caller.replies:
            if not caller.replies[0].is_ready:
                caller.replies[0].call_when_ready(functools.partial(self._wake, caller))
                return
            for _ in caller.replies.pop(0).chunks():
                pass                    # nobody reads it
        self._drop(caller)


class Usher:
    """Has a thread go on with a Caller, or gives it back: the host has none, and what may have to
    wait is refused."""

    def __init__(self, serve_alone, give_back):
        self._serve_alone, self._give_back = serve_alone, give_back
        self._waiting = queue.Queue()
        self._thread = Worker(self._run, name="usher")

    def start(self):
        """From now on. RuntimeError: the host has no thread for it."""
        self._thread.start()

    def take(self, caller):
        """Has a thread go on with it, soon."""
        self._waiting.put(caller)

    def close(self):
        """Ends the thread after all that was put in."""
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self):
        """Thread usher."""
        while True:
            caller = self._waiting.get()
            if caller is None:
                return
            try:
                self._serve_alone(caller)
            except Exception as error:          # RuntimeError, MemoryError
                if not isinstance(error, RuntimeError):
                    with contextlib.suppress(Exception):
                        log.exception("connection")
                caller.refuse(Busy(NO_THREAD))
                self._give_back(caller)


class Waker:
    """Wakes one that waits for a descriptor, which nobody else can have before the last ring."""

    def __init__(self):
        self.descriptor, self._button = os.pipe()
        os.set_blocking(self._button, False)
        self._lock, self._is_closed = threading.Lock(), False

    def ring(self):
        """From any thread; nothing after close()."""
        with self._lock:
            if not self._is_closed:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._button, b".")

    def hear(self):
        """After a ring."""
        os.read(self.descriptor, 4096)

    def close(self):
        """Gives the descriptors back."""
        with self._lock:
            self._is_closed = True
            os.close(self._button)
            os.close(self.descriptor)


# ======================================================================================
# server/peer.py
# Who is at the other end of a loopback connection, as the kernel knows it.
# ======================================================================================

# linux/netlink.h, linux/sock_diag.h
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1
# The device of a look-up, always 1 (net/flow.h): without it the kernel misses clients bound to it
# by SO_BINDTODEVICE.
LOOPBACK_IFINDEX = 1
# ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING (net/tcp_states.h). Not SYN_SENT:
# that is a newcomer with the port of a client that is gone.
CONNECTED_STATES = frozenset((1, 4, 5, 8, 9, 11))
# linux/highuid.h: how a user namespace shows every user that it does not map
OVERFLOW_UID = 65534
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
MAPPED_PREFIX = bytes(10) + b"\xff\xff"
# state (hex), uid, inode: net/ipv4/tcp_ipv4.c
PROC_ROW = r"^ *\d+: (?:%s) (\w\w) \S+ \S+ \S+ +(\d+) +\d+ (\d+) "


def shorten_address(packed):
    """The 4 bytes of an IPv4-mapped address; other packed addresses as they are."""
    return packed[12:] if len(packed) == 16 and packed.startswith(MAPPED_PREFIX) else packed


def find_packed_loopback(address):
    """The 4 or 16 bytes (network order) of a numeric loopback address, IPv4-mapped as IPv4;
    None for all else."""
    try:
        packed = shorten_address(socket.inet_pton(
            socket.AF_INET6 if ":" in address else socket.AF_INET, address))
    except (OSError, ValueError):
        return None
    return (packed if packed[0] == 127 and len(packed) == 4 or packed == bytes(15) + b"\x01"
            else None)


def is_loopback(address):
    """Is this numeric address in 127.0.0.0/8, ::1 or ::ffff:127.0.0.0/104? A name (localhost) is
    not."""
    return find_packed_loopback(address) is not None


def name_user(uid):
    """What the host calls a user, or `uid N`."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return "uid %d" % uid


def find_peer_uid(connection):
    """The uid of the OS user who owns the client's end of an accepted loopback TCP connection; None
    when in doubt: not loopback, the client has closed, the kernel cannot tell, not Linux. Never
    raises, keeps nothing open.

    The address that accept() gave proves nothing: the client may have reset, and its port be
    another user's by now, with the first one's bytes still to be read here. So a second, equal
    answer must still show our own end, by inode: until then nobody else could be connected to it.
    The inode also tells this network namespace from others.
    """
    try:
        return ask_peer_uid(connection)
    except (OSError, ValueError, struct.error):
        return None


def ask_peer_uid(connection):
    """`find_peer_uid`, which raises what keeps the kernel from being asked: OSError, ValueError,
    struct.error."""
    if (not sys.platform.startswith("linux")
            or connection.family not in (socket.AF_INET, socket.AF_INET6)):
        return None
    client, own = [(find_packed_loopback(name[0]), name[1])
                   for name in (connection.getpeername(), connection.getsockname())]
    if client[0] is None or own[0] is None:
        return None
    inode = os.fstat(connection.fileno()).st_ino
    for list_owners in (list_owners_by_netlink, list_owners_by_proc):
        owners = list_owners(client, own)
        # otherwise this source does not see our sockets
        if [owner[1] for owner in owners[1]] == [inode]:
            return choose_uid(owners[0]) if list_owners(client, own) == owners else None
    return None


def choose_uid(owners):
    """The uid of the one (uid, inode) in a list; None when there are more or fewer,
    or nobody holds that socket."""
    if len(owners) != 1 or owners[0][1] == 0:
        return None
    uid = owners[0][0]
    if uid == OVERFLOW_UID:         # a real one only where all users are mapped
        with open("/proc/self/uid_map") as uid_map:
            return uid if uid_map.read().split() == ["0", "0", "4294967295"] else None
    return uid


def list_owners_by_netlink(client, own):
    """Whom the kernel shows at the client's end and at ours, each (packed address, port):
    two lists of (uid, inode).

    Both empty where netlink is refused or lacks tcp_diag (the kernel says ENOENT then, as for an
    end not found). OSError when no descriptor is free. A socket for each call: no stale answers,
    no lock; it costs 10 us.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
            return ask_netlink(netlink, client, own), ask_netlink(netlink, own, client)
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) in NO_DESCRIPTOR:
            raise
        return [], []


def ask_netlink(netlink, local, remote):
    """Ask for the one TCP socket with these ends, by struct inet_diag_req_v2 (linux/inet_diag.h).
    Raises OSError."""
    family = socket.AF_INET if len(local[0]) == 4 else socket.AF_INET6
    request = (struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
               + struct.pack("!HH16s16s", local[1], remote[1], local[0], remote[0])
               # INET_DIAG_NOCOOKIE, twice
               + struct.pack("=IQ", LOOPBACK_IFINDEX, 0xFFFFFFFFFFFFFFFF))
    header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST,
                         local[1], 0)
    netlink.sendto(header + request, (0, 0))
    # the kernel has answered within sendto()
    reply, sender = netlink.recvfrom(8192, socket.MSG_DONTWAIT)
    return read_diag_reply(reply, local, remote) if sender[0] == 0 else []


def read_diag_reply(reply, local, remote):
    """[(uid, inode)] of a struct inet_diag_msg about exactly these ends, else []:
    the kernel may offer a listener."""
    length, kind, _, sequence, _ = struct.unpack_from("=IHHII", reply)
    if (kind, sequence) != (SOCK_DIAG_BY_FAMILY, local[1]) or not 88 <= length <= len(reply):
        return []
    family, state, *ports_and_addresses = struct.unpack_from("!BBxxHH16s16s", reply, 16)
    ports, addresses = ports_and_addresses[:2], ports_and_addresses[2:]
    addresses = [address[:4] if family == socket.AF_INET else shorten_address(address)
                 for address in addresses]
    uid, inode = struct.unpack_from("=II", reply, 80)
    return ([(uid, inode if state in CONNECTED_STATES else 0)]
            if list(zip(addresses, ports)) == [local, remote] else [])


def list_owners_by_proc(client, own):
    """The same from /proc/net/tcp and tcp6, in some 10 ms. Raises OSError when they cannot be read.

    One reading is no proof: the kernel may note the inode before,
    and the uid (0) after the client closed its socket.
    """
    text = ""
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(path):            # there is no tcp6 without IPv6
            with open(path, encoding="ascii") as table:
                text += table.read()
    return tuple(sorted({(int(uid), int(inode) if int(state, 16) in CONNECTED_STATES else 0)
                         for state, uid, inode in re.findall(PROC_ROW % ends, text, re.MULTILINE)})
                 for ends in (format_proc_ends(client, own), format_proc_ends(own, client)))


def format_proc_ends(local, remote):
    """A pattern of these ends in /proc/net/tcp or tcp6,
    where addresses are words in the host's byte order."""
    prefixes = (b"", MAPPED_PREFIX) if len(local[0]) == 4 else (b"",)
    return "|".join(
        " ".join("".join("%08X" % word for word, in struct.iter_unpack("=I", prefix + address))
                 + ":%04X" % port for address, port in (local, remote))
        for prefix in prefixes)


def has_hung_up(connection):
    """Whether a client has closed its end for good; half-closed, it still waits for its reply.

    Only Linux can tell: the kernel shows nobody at that end then.
    """
    try:
        if connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            return False
    except BlockingIOError:
        return False
    except OSError:
        return True
    try:
        return sys.platform.startswith("linux") and ask_peer_uid(connection) is None
    except OSError as error:
        return error.errno not in NO_DESCRIPTOR


# ======================================================================================
# server/port.py
# Whose the port is, from before the agent begins anything until it listens.
# ======================================================================================

IS_LINUX = sys.platform.startswith("linux")
# What lets a port be taken although ends of old connections to it are kept for a minute. With
# SO_REUSEADDR Linux lets any user bind it a second time until one listens; with SO_REUSEPORT only
# the same user, and old ends that had it too are no hindrance (net/ipv4/inet_connection_sock.c,
# inet_bind_conflict). Elsewhere SO_REUSEADDR allows no second one.
SHARING = socket.SO_REUSEPORT if IS_LINUX else socket.SO_REUSEADDR
_CREDENTIALS = struct.Struct("3i")          # struct ucred: pid, uid, gid (unix(7))


def claim_port(host, port):
    """A socket that no second agent of this user can have while this one has the port, which he
    could share; None elsewhere, and where a stranger has its name. OSError: there is another."""
    if not IS_LINUX:
        return None
    name, claim = "\0agent.py:%s:%d" % (host, port), socket.socket(socket.AF_UNIX)
    try:
        claim.bind(name)
        claim.listen(128)               # so that others can ask whose it is
        return claim
    except OSError as error:
        claim.close()
        if error.errno != errno.EADDRINUSE or find_name_owner(name) in (os.getuid(), 0):
            raise
    log.warning("another user has taken the name by which agents of one user know each other")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if probe.connect_ex((host, port)) == 0:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    return None


def find_name_owner(name):
    """The uid of the process that listens on an abstract UNIX socket; None when nobody does, or he
    lets nobody ask."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(name)
            credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED,
                                            _CREDENTIALS.size)
        except OSError:
            return None
    return _CREDENTIALS.unpack(credentials)[1]


# ======================================================================================
# server/server.py
# The port: connections, bounded lines, and replies as fast as they are taken.
#
# Thread server: accepts connections; ends at Server.close().
# Thread client N: serves one connection; ends with it, or at Server.close().
# ======================================================================================

END_LOOK_S = 2.0            # between two looks whether it is to end, where closing does not wake it
NO_FILES = "the host lets the agent open no more files for connections (ulimit -n)"


def check_host(host):
    """Until there are users and TLS only loopback is served: CannotStart for all else."""
    try:
        address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise CannotStart("--host %s: %s" % (host, error.strerror)) from None
    if not is_loopback(address):
        raise CannotStart("--host %s is no loopback address; this version serves loopback only"
                          % host)
    return address


def notify_systemd(address):
    """Tells systemd that the agent is ready, where it asks for that by the address of a socket
    (sd_notify(3))."""
    if address:
        with contextlib.suppress(OSError), \
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.sendall(b"READY=1")


class Handler(socketserver.BaseRequestHandler):
    """One connection, in its thread."""

    def handle(self):
        with contextlib.suppress(OSError):          # the client went away
            self._converse(self.server.find_caller(self.request))

    def _converse(self, caller):
        """Answers request after request until one side ends it. Replies that wait for a commit are
        gathered as long as further requests are there already, so they share it."""
        self.request.settimeout(None)   # the front waits for nothing, its thread does
        conversation, lines, replies, rest = caller.conversation, caller.lines, [], LINGER
        fresh = caller.replies          # which the front has not sent, or not even begun
        if caller.unsent:
            self.request.sendall(caller.unsent)
        while fresh or not conversation.is_over:
            if replies and not (fresh or lines.has_next and len(replies) < MAX_BATCH):
                self._send(replies)     # the client waits for them
                replies = []
            try:
                if fresh:
                    reply = fresh.pop(0)
                else:
                    line = lines.read(caller.find_limit)
                    if line is None:
                        break
                    reply = conversation.begin(line)
            except (TooLong, BadRequest) as error:
                # most of a long line
                reply, rest = conversation.refuse(error), MAX_IMPORT_LINE
            if reply is not None:
                reply.start()
                replies.append(reply)
                if not reply.is_under_way:
                    self._send(replies)
                    replies = []
        self._send(replies)
        self._linger(rest)

    def _send(self, replies):
        """Sends replies in their order. All that are under way are waited for first, so that a
        client that has gone costs no session its place in the queue."""
        waited = [list(reply.chunks()) for reply in replies if reply.is_under_way]
        last = [reply.chunks() for reply in replies if not reply.is_under_way]
        parts, size = [], 0
        for chunk in itertools.chain.from_iterable(waited + last):
            if chunk is not FLUSH:
                parts.append(chunk)
                size += len(chunk)
            if chunk is FLUSH or size > 65536:
                self.request.sendall(encode(parts))
                parts, size = [], 0
        self.request.sendall(encode(parts))

    def _linger(self, most):
        """What the client has still sent is read and thrown away, so that the close does not cut
        the reply: `most` bytes for LINGER_S at most."""
        until, size = time.monotonic() + LINGER_S, 0
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)
            while size < most and time.monotonic() < until:
                self.request.settimeout(max(0.01, until - time.monotonic()))
                data = self.request.recv(65536)
                if not data:
                    return
                size += len(data)


class Server(socketserver.ThreadingTCPServer):
    """Listens on the agent's port. It is bound early, so that a taken port is told before anything
    is touched, and listens last. The connections are served by the Front, or a thread each.

    Who is at the other end is asked when a connection is accepted. Those whom the agent does not
    know have a tenth of `max_connections` for themselves, and count against nobody else's. Nobody
    gets a descriptor of the last ones that `file_limit` allows: the agent needs them itself.
    """
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, agent, host, port, max_connections, max_line, file_limit=None):
        self._agent, self.max_line, self._file_limit = agent, max_line, file_limit
        max_files = file_limit and file_limit.kept_from     # maybe None, too
        self._max_owners = max_connections
        self._max_strangers = max(1, min(max_connections, max_files or max_connections) // 10)
        self._connections = {}              # connection -> its Caller
        self._strangers = set()             # those of nobody that the agent knows
        self._lock = threading.Lock()       # guards these two
        # whom it serves: uid -> name, asked once, as a directory of users may be slow
        self._owners = {uid: name_user(uid) for uid in (0, os.getuid())}
        self._thread = self._claim = None
        self._front = Front(self._serve_alone, self.shutdown_request)
        self._spare = os.open(os.devnull, os.O_RDONLY)      # for an answer when none is free
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler, bind_and_activate=False)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, SHARING, 1)
            self.server_bind()
            self._claim = claim_port(host, self.port)
        except OSError as error:
            self.server_close()
            self._front.close()
            raise CannotStart("port %d of %s cannot be taken: %s"
                              % (port, host, error.strerror)) from None

    @property
    def port(self):
        """The number of its port, also where that was left to the system."""
        return self.server_address[1]

    @property
    def connection_count(self):
        """How many connections are open."""
        return len(self._connections)

    def listen(self):
        """Serves from now on, in a thread of its own."""
        self._front.start()
        self.server_activate()
        self._agent.connections = lambda: self.connection_count
        self._thread = threading.Thread(target=self.serve_forever, args=(END_LOOK_S,),
                                        name="server", daemon=True)
        self._thread.start()

    # -- who comes in ------------------------------------------------------------------

    def get_request(self):
        try:
            return super().get_request()
        except OSError:                 # no file descriptor is free
            if not self._turn_away():
                time.sleep(0.05)        # do not spin
            raise

    def _turn_away(self):
        """Answers a connection that there is no descriptor for, by way of the spare one; whether
        that was possible."""
        is_answered = False
        with contextlib.suppress(OSError):      # another thread was faster, or nobody is there
            if self._spare is not None:
                os.close(self._spare)
                self._spare = None
                connection, _ = self.socket.accept()
                _say_busy(connection, NO_FILES)
                connection.close()
                is_answered = True
            self._spare = os.open(os.devnull, os.O_RDONLY)
        return is_answered

    def verify_request(self, request, client_address):
        uid = find_peer_uid(request)
        with self._lock:
            reason = self._find_limit(request, self._is_owner(uid))
            if reason is None:
                self._connections[request] = Caller(
                    request, self._make_conversation(request, uid), self.max_line)
                if not self._is_owner(uid):
                    self._strangers.add(request)
                return True
        _say_busy(request, reason)
        return False

    def _find_limit(self, request, is_owner):
        """The limit that keeps a connection out, in words, or None."""
        count, limit = len(self._strangers), self._max_strangers
        if is_owner:
            count, limit = len(self._connections) - count, self._max_owners
        if count >= limit:
            return "%d connections are open, the limit" % limit
        # a new descriptor has the lowest number that is free
        if self._file_limit is not None and not self._file_limit.use(request.fileno()):
            return NO_FILES
        return None

    def _is_owner(self, uid):
        return uid in self._owners

    def process_request(self, request, client_address):
        caller = self.find_caller(request)
        with contextlib.suppress(OSError):
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        if caller.conversation.is_administrator:
            request.setblocking(False)
            self._front.add(caller)
            return
        try:
            self._serve_alone(caller)
        except RuntimeError:
            _say_busy(request, NO_THREAD)
            self.shutdown_request(request)

    def _serve_alone(self, caller):
        """A thread of its own goes on with a connection. RuntimeError: the host has none."""
        Worker(self.process_request_thread, "client %d" % caller.connection.fileno(),
               caller.connection, None).start()

    def find_caller(self, connection):
        """The Caller of a connection."""
        return self._connections[connection]

    def shutdown_request(self, request):
        with self._lock:
            self._connections.pop(request, None)
            self._strangers.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        log.exception("connection")

    def _make_conversation(self, connection, uid):
        """The Conversation of a connection, by the kernel's word on its other end."""
        name = self._owners.get(uid) or "uid %s" % ("unknown" if uid is None else uid)
        role = ADMINISTRATOR if self._is_owner(uid) else None
        return Conversation(self._agent, Client(role, name, peer=Peer(uid, name)),
                            functools.partial(has_hung_up, connection))

    def close(self, within_s=5.0):
        """Ends the connections once the requests under way have their reply."""
        if self._thread:
            with contextlib.suppress(OSError):      # wakes its thread, where the system does so
                self.socket.shutdown(socket.SHUT_RDWR)
            self.shutdown()
            self._thread.join()
        self.server_close()
        if self._claim:
            self._claim.close()
        until = time.monotonic() + within_s
        for how in (socket.SHUT_RD, socket.SHUT_RDWR):
            with self._lock:
                connections = list(self._connections)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(how)
            while self._connections and time.monotonic() < until:
                time.sleep(0.005)
            until += within_s
        self._front.close()

    def server_close(self):
        super().server_close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _say_busy(connection, reason):
    """Tells a connection that it is one too many."""
    with contextlib.suppress(OSError):
        connection.settimeout(0.0)
        connection.sendall(("ERR BUSY %s\n" % reason).encode())
        connection.recv(65536)          # unread, what it has sent would cut the answer


# ======================================================================================
# main.py
# The command line, signals, and the order of start and stop.
#
# Thread MainThread: waits for a signal or SHUTDOWN, then stops the others in order.
# ======================================================================================

# which subprocess gives back to every process that it starts
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


def parse_arguments(arguments):
    """The command line -> argparse's namespace, the settings; exits 2 when it is wrong."""
    parser = Parser(
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
    """The agent's own log, on stderr -> its LogWriter."""
    writer = LogWriter(None if sys.stderr is None else sys.stderr.fileno())
    log.addHandler(writer)
    log.setLevel(logging.INFO)
    return writer


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
                                   settings.replace)
    except AgentError as error:
        for fault in error.faults:
            tell("%s: %s" % fault)
        tell(error.message)
    except (OSError, UnicodeDecodeError) as error:
        tell(getattr(error, "strerror", None) or "is not UTF-8")
    else:
        for place, reason in imported.warnings:
            tell("%s: warning: %s" % (place, reason))
        _print("%s: %d scenarios and %d schedules imported\n" % (
            show_controls(path), imported.count("scenario"), imported.count("schedule")))
        return True
    return False


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


def serve(settings, clock, writer):
    """Runs an agent to its end -> exit code. CannotStart."""
    share_heaps()
    file_limit = FileLimit(4 * (settings.max_sessions or SESSIONS_PER_CORE * (os.cpu_count() or 1))
                           + 200, settings.max_connections)
    address = check_host(settings.host)
    folder = os.path.dirname(os.path.abspath(settings.master))
    if not os.path.exists(settings.master) and not settings.is_creating:
        raise CannotStart("the master repository %s does not exist; --create makes it"
                          % settings.master)
    is_new_folder = make_folder(folder)
    lock = NameLock(settings.master, settings.name).take()
    try:
        agent = Agent(settings, clock, file_limit)
        server = Server(agent, address, settings.port, settings.max_connections, settings.max_line,
                        file_limit)
        lock.note("pid %d on %s:%d since %s" % (
            os.getpid(), address, server.port, local_iso(clock.now())))
        run_to_end(agent, server, address, writer)
        log.info("stopped")
    finally:
        lock.release()
        if is_new_folder:
            with contextlib.suppress(OSError):      # only when nothing was put into it
                os.rmdir(folder)
    return EXIT_OK


def run_to_end(agent, server, address, writer):
    """Starts the agent, listens, and waits until it is to stop."""
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)

    def wake():
        with contextlib.suppress(BlockingIOError):
            os.write(wake_in, WAKE)
    # a handler in Python would not run when the signal comes just before a blocking read
    signal.set_wakeup_fd(wake_in)
    before = {number: signal.signal(number, lambda *_: None)
              for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)}
    signal.siginterrupt(signal.SIGCHLD, False)      # it comes often, and cuts no call short
    take_orphans()
    notice = os.environ.pop("NOTIFY_SOCKET", None)      # for no task
    try:
        agent.start(address, server.port)
        server.listen()
        ready = "agent %s ready on %s:%d" % (agent.name, address, server.port)
        writer.say("%s version=%s repositories=%s" % (ready, VERSION,
                                                      ping(agent)["repositories"]))
        notify_systemd(notice)
        agent.run_until_stopped(wake_out, wake)
    finally:
        server.close()
        agent.close()
        for number, handler in before.items():      # no signal cuts the closing short
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(wake_out)
        os.close(wake_in)


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
    if settings.manual is not None:
        return print_manual(" ".join(settings.manual))
    if settings.task is not None:
        return run_helper(settings.task)
    if settings.spool is not None:
        return run_minder(settings.spool)
    writer = start_logging()
    try:
        if settings.files:
            return import_files(settings, clock, writer)
        restore_signals()
        return serve(settings, clock, writer)
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
