#!/usr/bin/env python3
r"""The client of agent.py: its verbs as commands. One file, only the standard library, Python 3.6
and newer.

    python agentcli.py [--host HOST] [--port PORT] [--json] COMMAND ...
    python agentcli.py exec HELLO who=you --name "a first try" --wait
    python agentcli.py sched add NIGHT HELLO -1 GLOBAL "daily at 02:00"
    crontab -l | python agentcli.py import --crontab - --dry-run
    python agentcli.py run --follow -- make -C /srv/site
    python agentcli.py top

Options stand before or behind the other words. One in the protocol's own form, -NAME[=value] in
capitals, is handed on as it is, so that a newer agent's are within reach; what follows `--` is
neither option nor variable.

Where the agent is: --host and --port, else AGENT_HOST and AGENT_PORT, else 127.0.0.1 and 20910; or
--unix; or ~/.agentcli does, by its name for an agent (--host NAME). With --tls its certificate is
verified, by the authorities of --tls-ca or those of the host; --tls-cert and --tls-key are a
certificate that says who you are.
Who you are there: --user; the password is asked for, or read with --password-file from a file that
nobody else may read.

Listings are tables (no column that is empty throughout; times are the reader's, to the second; on a
terminal no wider than that);
with --json each data line is one JSON object on a line of its own, and the fields of the agent's OK
are the last one. Without, they are a table below the listing. That there is nothing to list is said
on a terminal alone.

`import --crontab` makes a scenario and a schedule of each entry of a user's or (--system yes; the
default for /etc/crontab and what lies in a cron.d) a system's crontab. Lines that cannot be carried
over are told and left out, and counted (left_out); the exit status is 0. The names follow from the
commands, so that the same crontab again, from whatever file, changes nothing; where settings have
changed, --replace takes the new ones, and what the crontab no longer has is told, or deleted with
--prune. --dry-run shows a line for each entry and ends as the import would: it asks the agent what
it would refuse, which changes nothing; without an agent it says that the rules are not checked.

`exec`, `restart`, `wait` and `run` with --follow show a session as it goes on: what its tasks print
to standard output there, all else on stderr. `check`, `diff`, `edit`, `run`, `top` and `completion`
are the client's own commands. `status` is a tree, `sched next` folds due times that repeat soon,
`sessions` tells times from now on a terminal; states are coloured there unless NO_COLOR says no.

Exit status: 0 all is well, and the session that was waited for or followed has not ended badly; 1
it ended in ERROR or STOPPED, or check found faults, or diff differences; 2 usage; 3 no connection,
or it was lost; 4 refused by the agent, whose ERR is on stderr; 5 the waiting timed out; 130 Ctrl-C;
141 nobody reads the output.

This file is built: tools/build.py joins the modules of tools/src/client, which are what people
change. Sections, each using only those above it:

    base/errors         What can go wrong, one class for each code that a user is told.
    base/times          The clock, instants as text, and the one parser of durations.
    client/colours      What a terminal adds to words: colours and bars; https://no-color.org.
    base/replies        The lines of replies, as data: their fields in order, and what each holds,
                        in which unit.
    base/form           What a form of a request is: its words, their kinds and meanings, its role,
                        and its reply.
    base/vocabulary     The words and limits of the contract, as data: states, transitions, roles,
                        sizes, times.
    base/audit_forms    The form of AUDIT, and the lines of the audit in replies, as data.
    base/backup_forms   The form of BACKUP.
    base/notice_forms   The forms of NOTICE, and the lines of its replies, as data.
    base/user_forms     The forms of the requests about users, and the lines of their replies.
    base/forms          The forms of all requests, as data: words, kinds, roles, help, and the lines
                        of their replies.
    client/words        Words of requests and fields of replies, as the client writes and reads
                        them.
    client/history      How long sessions of a scenario and their steps take, from those that ended
                        well.
    client/instants     Instants and durations of the agent, as people read them.
    client/nodes        The nodes of a load plan, as STATUS has them: what they are called, which of
                        them say something.
    base/controls       What may drive a terminal, imitate a reply or turn a text around, shown as
                        what it is.
    client/errors       What ends the client, and with which exit status.
    client/spelling     The words of the protocol as the client spells them: options, verbs, and the
                        agent's texts.
    client/tables       Tables that fit the terminal.
    client/shown        What is shown of a reply: tables, records, text, or JSON.
    client/pictures     Replies as people read them best: times from now, a session as a tree, due
                        times folded.
    client/board        What top shows: how an agent is now, and that as a page of any size.
    client/coming       sched next and sched why as people ask them: what comes of each schedule,
                        what did not start.
    client/command      What a command of the client is, and what an option of one.
    client/settings     Where the agent is, and as whom it is asked: options, the environment, and
                        ~/.agentcli.
    client/commands     The verbs as commands, and the command line that names one.
    client/place        Where the agent is: its port or UNIX socket, by TLS or not.
    client/connection   One connection to an agent, and a reply as it comes.
    client/login        Who the client says that it is: a user's password, from a file or the
                        terminal alone.
    client/completion   completion: what may stand next on the command line, for bash and zsh.
    client/mailto       MAILTO of a crontab: notices by mail of what fails.
    client/crontab      A crontab, and what becomes of its lines as scenarios and schedules; asks
                        nobody.
    client/findings     What a report is made of: what an agent says of the sessions and due times
                        of a period.
    client/markup       HTML and SVG that are put together from parts: what is not markup is
                        escaped.
    client/marks        The pictures of a report: sessions along a time axis, and how long they
                        took.
    client/document     The document of a report: its parts, in the order in which somebody who was
                        called reads them.
    client/imports      Documents and crontabs handed to the agent, and what is told of them.
    client/documents    check, diff: a definitions document against the rules of the agent and
                        against what it has.
    client/screen       What stands on stderr beside the output: lines that stay, and on a terminal
                        some that live.
    client/editing      edit: a scenario in the editor of the user.
    client/live         Connections of two kinds: one waits for a reply, one takes it in as it
                        comes.
    client/follow       A session as it goes on: its output as it comes, its steps, how long they
                        take.
    client/leaving      shutdown --wait: until the agent is gone.
    client/period       The period of a report: instants as people write them, in the reader's zone.
    client/report       report: a period of an agent as one HTML document, which needs nothing
                        beside it.
    client/running      run: a bare command as a session.
    client/topscreen    The live screen of top: what is shown, what keys do. Its module curses is
                        handed in.
    client/top          top: a live screen of an agent, or plain pages where there is no terminal
                        for one.
    client/own          The commands that are the client's own: no verb stands behind them.
    client/main         One command: the request, its reply, the exit status.
"""
import sys
# The folder of this file is searched first. A csv.py of the user's there must not stand for that of
# Python. Where CODE_FD is there (base/program.py), this was done already.
if vars(sys.modules["__main__"]) is globals() and "CODE_FD" not in globals() \
        and not getattr(sys.flags, "safe_path", sys.flags.isolated):
    del sys.path[0]
import argparse
import collections
import configparser
import contextlib
import difflib
import functools
import getpass
import html
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
import zlib
from calendar import timegm
from datetime import datetime, timezone
from typing import Callable, NamedTuple, Optional


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
    return "%s.%03dZ" % (_second_to_text(whole), thousandths)


@functools.lru_cache(maxsize=64)        # of the second that it is, many are asked for
def _second_to_text(whole):
    return "%04d-%02d-%02dT%02d:%02d:%02d" % time.gmtime(whole)[:6]


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


# a time as replies have it; with Z, as the tables have it
INSTANT = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})"
                     r"([.][0-9]+)?(?:Z|([+-])([0-9]{2}):([0-9]{2}))")


def find_instant(value):
    """A time of a reply -> epoch seconds; None: it is no time."""
    match = isinstance(value, str) and INSTANT.fullmatch(value)
    if not match:
        return None
    *fields, fraction, sign, hours, minutes = match.groups()
    offset_s = (int(hours or 0) * 60 + int(minutes or 0)) * 60 * (-1 if sign == "-" else 1)
    return timegm([int(field) for field in fields]) - offset_s + float(fraction or 0)


def parse_duration(text, is_whole=False):
    """`90`, `90s`, `1.5m`, `2h`, `1d` -> seconds; with `is_whole` an int of at most 9 digits before
    its unit, without a fraction. CalendarError."""
    match = _DURATION.fullmatch(text)
    if not match or len(text) > 15 or is_whole and not re.fullmatch("[0-9]{1,9}", match.group(1)):
        raise CalendarError("duration '%s' is not a %s with s, m, h or d, like 90s, 15m, 2h, 1d"
                            % (text[:60], "whole number" if is_whole else "number"))
    return (int if is_whole else float)(match.group(1)) * _UNITS_S[match.group(2)]


# ======================================================================================
# client/colours.py
# What a terminal adds to words: colours and bars; https://no-color.org.
# ======================================================================================

RED, GREEN, YELLOW, MAGENTA, CYAN, DIM, BOLD = "31", "32", "33", "35", "36", "2", "1"
# a state, or what was decided of a due time -> its colour; the word is always there
STATE_COLOURS = {
    "RUNNING": CYAN, "DONE": GREEN, "WARNING": YELLOW, "ERROR": RED, "STOPPED": MAGENTA,
    "WAITING": DIM, "QUEUED": DIM, "failed": RED, "skipped": YELLOW, "late": YELLOW,
    "started": GREEN, "never": RED, "queues": YELLOW, "READY": GREEN, "DEGRADED": RED,
    "STANDBY": YELLOW, "TROUBLE": RED}
STATE_WORD = re.compile(r"\b(?:%s)\b" % "|".join(STATE_COLOURS))


def is_terminal(stream):
    """Whether people read a stream as it comes; None is a stream that is closed."""
    return stream is not None and not stream.closed and stream.isatty()


def has_controls(stream):
    """Whether a stream is a terminal that can move its cursor."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") != "dumb"


def has_colours(stream):
    """Whether to colour what is written to a stream."""
    return has_controls(stream) and not os.environ.get("NO_COLOR")


def paint(text, colour, is_coloured=True):
    """A text in a colour."""
    return "\x1b[%sm%s\x1b[0m" % (colour, text) if is_coloured else text


def paint_state(text, is_coloured):
    """A text with the state that it begins with coloured."""
    match = is_coloured and STATE_WORD.match(text)
    if not match:
        return text
    word = match.group()
    return paint(word, STATE_COLOURS[word]) + text[len(word):]


def has_blocks(stream):
    """Whether the encoding of a stream has what smooth bars are made of."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def draw_bar(share, width, blocks):
    """A bar that is filled up to a share, 0 to 1; with `blocks` it is smooth."""
    filled = int(min(max(share, 0.0), 1.0) * width + 0.5)
    return ("\u2588" * filled + "\u2591" * (width - filled) if blocks
            else "#" * filled + "-" * (width - filled))


def draw_length(share, width, blocks):
    """A bar as long as a share of a width, at least its shortest part."""
    return ("\u2588" if blocks else "#") * max(1, int(min(max(share, 0.0), 1.0) * width + 0.5))


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
REPOSITORY_HOLD_LINE = ReplyLine("the work repository (with -REPO alone)", (_REPOSITORY, _HOLD))
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
             "repository; one that has: children, engine"), _MESSAGE,
    text_key("by", "in STATUS: who has asked for it by EXEC; empty: a schedule or a task", True)))
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
NODE_LINE = ReplyLine("of a load plan, a node that was reached, in the order of the plan", (
    text_key("node", "its place in the plan: 1.2 is the second one below the first"),
    text_key("name", "name of the node, if it has one"),
    text_key("kind", "run, serial, parallel, case or for_each"),
    text_key("value", "of what is in a for_each, variable and value: day=2015-01-07"),
    _ATTEMPT, _STATUS, number_key("session", "of a run, the newest session that it has started"),
    _BEGUN, _ENDED, _MESSAGE))
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
    text_key("message", "what is wrong with it, or who holds it and why")))
CONTEXT_LINE = ReplyLine("a context", (
    text_key("context", "name of the context"),
    text_key("schemas", "SCHEMA:SERVER or SCHEMA:SERVER.PHYSICAL, between commas")))
CHANGE_LINE = ReplyLine("a definition of the document", (
    text_key("kind", "scenario, schedule, context, data_server, logical_schema, calendar or "
             "notice"),
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
AT_TIME, FOR_SLOT, FOR_CHILDREN, FOR_ENGINE = "time", "slot", "children", "engine"
LOCAL = "LOCAL"                     # instead of an engine: this host
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
MAX_PER_ADDRESS = 50                # connections from one address, those of the owner aside
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
STRANGER_S = 30.0       # how long one whom the agent does not know is waited for
IDLE_S = 3600.0         # how long a user's connection may be silent
LINE_S = 60.0           # how long a line of a user may take
SEND_S = 300.0          # how long a user may take for a piece of a reply
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
ENGINE_LOOK_S = 3.0     # between two looks at the tasks of an engine
ENGINE_CALL_S = 30.0    # that a command of an engine, or a look into its spool, may take
BELIEF_S = 86400.0      # a clock that is further ahead than before is believed after so long

# what an import makes of a definition
NEW, ALTERED, SAME = "new", "changed", "same"

EXIT_OK, EXIT_CANNOT_START, EXIT_USAGE = 0, 1, 2


# ======================================================================================
# base/audit_forms.py
# The form of AUDIT, and the lines of the audit in replies, as data.
# ======================================================================================

AUDIT_LINE = ReplyLine("a row of the audit", (
    time_key("time", "when it was; of several, when the last was"),
    text_key("agent", "name of the agent whose chain it stands in"),
    number_key("n", "its number in the chain"),
    text_key("user", "who asked: user of the agent; empty: its owner, or nobody that it knows"),
    text_key("os_user", "user of the host at the other end, or that agent.py ran as"),
    text_key("address", "where he asked from; empty: no connection, but agent.py itself"),
    text_key("verb", "what was asked for"),
    text_key("object", "what it was about: number of the session, name of the schedule"),
    text_key("outcome", "OK, or the code of the error"),
    number_key("count", "how often, of a refusal that came again and again"),
    text_key("hash", "SHA-256 of the row, which the next one carries")))
AUDIT_END_LINE = ReplyLine("the end of this agent's chain", (
    text_key("head", "hash of its newest row, for --verify-audit --head"),))
AUDIT_PURGED_LINE = ReplyLine("with -AUDIT, what was purged", (
    number_key("purged", "rows of the audit that were deleted"),
    ReplyKey("dry_run", FLAG_KEY, "yes: nothing was deleted, it is only counted", True)))

AUDIT_FORMS = (
    Form("AUDIT", "[-SINCE=time] [-WHO=name] [-VERB=verb] [-LIMIT=n] [-JSON]", ADMINISTRATOR,
         "who changed what, and who was refused, newest first", AS_ROWS, oks=(AUDIT_END_LINE,),
         lines=(AUDIT_LINE,), kinds={"-WHO": "label"},
         meanings={"-SINCE": "only what was from then on",
                   "-WHO": "only what this user asked for, or this user of the host",
                   "-VERB": "only this verb; SCHED stands for all that begin so"}),
)


# ======================================================================================
# base/backup_forms.py
# The form of BACKUP.
# ======================================================================================

BACKUP_LINE = ReplyLine("the backup", (
    text_key("folder", "its folder"),
    number_key("files", "databases in it: the master and the work repositories"),
    number_key("bytes", "how large they are together")))
BACKUP_FORMS = (
    Form("BACKUP", "FOLDER", ADMINISTRATOR,
         "copy the master and every work repository into a new folder, whole and checked; a "
         "relative path counts from the master's folder", oks=(BACKUP_LINE,),
         kinds={"FOLDER": "token"}, meanings={"FOLDER": "the folder, which must not exist"}),)


# ======================================================================================
# base/notice_forms.py
# The forms of NOTICE, and the lines of its replies, as data.
# ======================================================================================

NOTICE_LINE = ReplyLine("a notice", (
    text_key("name", "name of the notice"),
    text_key("on", "what it tells of, between commas"),
    text_key("scenarios", "patterns of the scenarios that it tells of, between commas"),
    text_key("type", "how it is sent: mail, http or os"),
    number_key("waiting", "events of this agent's that are not sent yet"),
    time_key("last", "when this agent has sent it last"),
    text_key("message", "why it could not be sent, and when it is tried again or was given up")))
NOTICE_TEST_LINE = ReplyLine("the notice", (
    text_key("notice", "name of the notice"), text_key("status", "DONE or ERROR"),
    text_key("message", "why it could not be sent")))
NOTICE_NAME_LINE = ReplyLine("the notice", (text_key("notice", "name of the notice"),))

_NOTICE_MEANINGS = {"NAME": "name of the notice"}
NOTICE_FORMS = (
    Form("NOTICE LIST", "[-JSON]", MONITOR, "list the notices, and what waits to be sent of each",
         AS_ROWS, lines=(NOTICE_LINE,)),
    Form("NOTICE TEST", "NAME", ADMINISTRATOR, "send a notice that says it is a test, and wait for "
         "what comes of that", oks=(NOTICE_TEST_LINE,), meanings=_NOTICE_MEANINGS),
    Form("NOTICE DEL", "NAME", ADMINISTRATOR, "delete a notice, and what waits of it",
         oks=(NOTICE_NAME_LINE,), meanings=_NOTICE_MEANINGS),
)


# ======================================================================================
# base/user_forms.py
# The forms of the requests about users, and the lines of their replies.
# ======================================================================================

_USER = text_key("user", "name of the user")
_ROLE = text_key("role", "monitor, operator or administrator")
_PATTERNS = "names of the scenarios that are there for him, between commas; * stands for any " \
    "text, ? for one character"
USER_LINE = ReplyLine("a user", (
    _USER, _ROLE, text_key("scenarios", _PATTERNS + "; empty: all"),
    text_key("os_user", "the OS user of this host who needs no password; empty: there is none"),
    text_key("password", "own; once: for one use; expired: that was not used in time"),
    time_key("until", "until when the one for one use lets in"),
    time_key("created", "when the user was added"), time_key("changed", "when he was changed")))
USER_NAME_LINE = ReplyLine("the user", (_USER,))
USER_PASSWORD_LINE = ReplyLine("the user", (
    _USER, text_key("password", "his password for one use within a day, which nobody tells again",
                    True)))
KNOWN_LINE = ReplyLine("who you are now", (
    _USER, _ROLE, text_key("note", "that the password was for one use", True)))

_KINDS = {"NAME": "user", "USER": "text", "PASSWORD": "secret", "NEW": "password",
          "-ROLE": "role", "-SCENARIOS": "patterns", "-OS_USER": "os_user"}
_MEANINGS = {
    "NAME": "name of the user", "USER": "name of the user", "PASSWORD": "his password",
    "NEW": "the new password", "-ROLE": "what he may do: each may do what those before may",
    "-SCENARIOS": _PATTERNS + " (all); with nothing behind the = all",
    "-OS_USER": "the OS user of this host, by name or number, who is this user without a "
                "password; with nothing behind the = nobody",
    "-RESET": "give him a new password for one use within a day"}
_ROLES = "monitor|operator|administrator"


def _make_form(name, words, role, text, **more):
    """A Form with the kinds and meanings of its words."""
    names = re.findall("-?[A-Z_]+", words)
    kinds, meanings = ({word: table[word] for word in names if word in table}
                       for table in (_KINDS, _MEANINGS))
    return Form(name, words, role, text, kinds=kinds, meanings=meanings, **more)


USER_FORMS = (
    _make_form("AUTH", "USER PASSWORD", None, "say who you are; from then on the connection is "
               "that user's", oks=(KNOWN_LINE,)),
    _make_form("USERS LIST", "[-JSON]", ADMINISTRATOR, "list the users", reply=AS_ROWS,
               lines=(USER_LINE,)),
    _make_form("USERS ADD", "NAME [-ROLE=%s] [-SCENARIOS=a*,b] [-OS_USER=name]" % _ROLES,
               ADMINISTRATOR, "add a user, who gets a password for one use; -ROLE must be given",
               oks=(USER_PASSWORD_LINE,)),
    _make_form("USERS SET", "NAME [-ROLE=%s] [-SCENARIOS=a*,b] [-OS_USER=name] [-RESET]" % _ROLES,
               ADMINISTRATOR, "change a user, effective at once", oks=(USER_PASSWORD_LINE,)),
    _make_form("USERS PASSWORD", "NAME NEW", MONITOR, "give a user another password: yourself, or "
               "as an administrator anybody", oks=(USER_NAME_LINE,)),
    _make_form("USERS DEL", "NAME", ADMINISTRATOR, "delete a user", oks=(USER_NAME_LINE,)),
)


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
         meanings={"-FROM": "go on at this step, from its first task; of a plan, at this node",
                   "-SKIP": "go on behind the task, or the nodes, that failed; the session ends in "
                            "WARNING at best",
                   "-REDEFINE": "go on with the definition that its scenario version has now, "
                                "at the first task of the step"}),
    Form("CLEAN", "[-HOST=id]", OPERATOR, "clean stale sessions now", oks=(CLEANED_LINE,),
         meanings={"-HOST": "those of this host too, which is gone for good"}),
    Form("HOLD", "[REASON] [-SCHEDULE=name] [-REPO=name] [-UNTIL=time]", OPERATOR,
         "begin nothing new, or nothing of one schedule or repository, until RELEASE",
         oks=(AGENT_HOLD_LINE, SCHEDULE_HOLD_LINE, REPOSITORY_HOLD_LINE),
         meanings={"REASON": "why, for those who look; quote it when it has spaces",
                   "-SCHEDULE": "hold this schedule (the whole agent)",
                   "-REPO": "work repository of the schedule; alone: hold this repository",
                   "-UNTIL": "when the hold ends by itself (never); a date alone: at its end"}),
    Form("RELEASE", "[-SCHEDULE=name] [-REPO=name]", OPERATOR, "end a hold",
         oks=(AGENT_HOLD_LINE, SCHEDULE_HOLD_LINE, REPOSITORY_HOLD_LINE),
         meanings={"-SCHEDULE": "release this schedule (the whole agent)",
                   "-REPO": "work repository of the schedule; alone: release this repository, "
                            "which says of a copy that it goes on here"}),
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
                   "-PARENT": "only those that a task, or the plan, of this session has started",
                   "-SINCE": "only those acknowledged from then on"}),
    Form("STATUS", "SESSION [-JSON]", MONITOR, "a session with its steps, tasks and variables",
         AS_RECORD, lines=(SESSION_LINE, STEP_LINE, TASK_LINE, NODE_LINE, VARIABLE_LINE)),
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
    Form("PURGE", "[-DAYS=n] [-KEEP=n] [-STATUS=a,b] [-SCENARIO=name] [-AUDIT] [-DRY_RUN]",
         ADMINISTRATOR, "delete ended sessions older than DAYS, and beyond the newest KEEP",
         oks=(PURGED_LINE, AUDIT_PURGED_LINE),
         kinds={"-STATUS": "ends"},
         meanings={"-DAYS": "only those that ended more than so many days ago",
                   "-KEEP": "only those that are not among the newest so many of a repository, of "
                            "those that the other options name",
                   "-STATUS": "only those that ended in one of these states",
                   "-SCENARIO": "only those of this scenario",
                   "-AUDIT": "not sessions, but the rows of the audit older than DAYS",
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
    Form("SCHED ON", "NAME [-REPO=name]", OPERATOR, "enable a schedule",
         oks=(ENABLED_LINE,), meanings=_SCHEDULE_PLACE),
    Form("SCHED OFF", "NAME [-REPO=name]", OPERATOR, "disable a schedule",
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
) + USER_FORMS + AUDIT_FORMS + BACKUP_FORMS + NOTICE_FORMS


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
# client/words.py
# Words of requests and fields of replies, as the client writes and reads them.
# ======================================================================================

_BARE = re.compile(r"[A-Za-z0-9_.:/,+@%#-]+")
_FIELD = re.compile(r'([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|[^ ]*)')


def quote(text):
    """A text as (part of) a word of a request that the agent takes for nothing but this text."""
    return text if _BARE.fullmatch(text) and text[0] != "-" else json.dumps(text)


def render_option(name, value=None):
    """An option as a word; `value` is None for a flag."""
    return "-" + name if value is None else "-%s=%s" % (name, quote(as_typed(value)))


def as_typed(text):
    """An argument of the command line as its bytes are in UTF-8, whatever the locale says."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def parse_fields(text):
    """`session=1001 message="x y"` -> {"session": 1001, "message": "x y"};
    a number that is not there is None."""
    fields = {}
    for name, value in _FIELD.findall(text):
        value = json.loads(value) if value.startswith('"') else value
        if name in NUMBER_FIELDS and re.fullmatch(r"-?\d*\.?\d*", value):
            value = None if value == "" else float(value) if "." in value else int(value)
        elif name in FLAG_FIELDS and value in ("yes", "no"):
            value = value == "yes"
        fields[name] = value
    return fields


# ======================================================================================
# client/history.py
# How long sessions of a scenario and their steps take, from those that ended well.
# ======================================================================================

PAST_SESSIONS = 10


def median(values):
    """The median of numbers; None: there are none."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None


def ask_rows(connection, request, limit_s, is_lenient=False):
    """The JSON objects that a request is answered with; `is_lenient`: of a repository that cannot
    be read there are none. Raises ClientError."""
    reply = connection.ask(request + " -JSON", limit_s, is_lenient)
    return [json.loads(line) for line in list(reply)]


class History:
    """What is usual: `session_s` and, by the name of a step, `steps_s`; None and nothing where
    there was no session that ended well."""

    def __init__(self, session_s=None, steps_s=None):
        self.session_s, self.steps_s = session_s, steps_s or {}


def read_history(connection, scenario, limit_s):
    """The History of a scenario. Raises ClientError."""
    rows = ask_rows(connection, "SESSIONS -SCENARIO=%s -STATUS=DONE,WARNING -LIMIT=%d"
                    % (quote(scenario), PAST_SESSIONS), limit_s, is_lenient=True)
    steps = {}
    for row in rows:
        parts = ask_rows(connection, "STATUS %d" % row["session"], limit_s)
        if any("node" in part for part in parts):       # a plan has no steps, and may be large
            break
        for step in parts:
            begun, ended = find_instant(step.get("begun")), find_instant(step.get("ended"))
            if "step" in step and begun is not None and ended is not None:
                steps.setdefault(step["name"], []).append(ended - begun)
    return History(median([row["duration"] for row in rows if row["duration"] is not None]),
                   {name: median(values) for name, values in steps.items()})


# ======================================================================================
# client/instants.py
# Instants and durations of the agent, as people read them.
# ======================================================================================

LONG_AGO_S = 14 * 86400         # what is further away is shown as a date


def show_instant(instant):
    """Epoch seconds as the reader's local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(instant))


def show_relative(instant, now=None):
    """How long ago, or in how long: `3 min ago`, `in 2 h`; a date where that is far away."""
    away_s = instant - (Clock().now() if now is None else now)
    if abs(away_s) >= LONG_AGO_S:
        return time.strftime("%Y-%m-%d", time.localtime(instant))
    seconds = int(abs(away_s) + 0.5)
    if seconds == 0:
        return "now"
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length_s or unit == "s" or length_s == 60 <= seconds:
            text = "%d %s" % (seconds // length_s, unit)
            break
    return "in " + text if away_s > 0 else text + " ago"


def show_duration(seconds):
    """Seconds in the two units that matter: `0.3 s`, `42 s`, `12 m 05 s`, `3 h 12 m`, `2 d 3 h`."""
    if seconds < 10:
        return "%.1f s" % seconds
    whole = int(seconds + 0.5)
    if whole < 60:
        return "%d s" % whole
    if whole < 3600:
        return "%d m %02d s" % divmod(whole, 60)
    if whole < 86400:
        return "%d h %02d m" % divmod(whole // 60, 60)
    return "%d d %d h" % divmod(whole // 3600, 24)


# ======================================================================================
# client/nodes.py
# The nodes of a load plan, as STATUS has them: what they are called, which of them say something.
# ======================================================================================

MANY, FEW = 8, 3        # nodes in a row that ended well: more than so many are told by so few


def name_node(row, above=None):
    """What a node is called; `above` is the row of the one around it, whose loops go without
    saying."""
    value = row["value"]
    if above and above["value"] and value.startswith(above["value"]):
        value = value[len(above["value"]):].lstrip()
    attempt = "(attempt %d)" % row["attempt"] if row["attempt"] > 1 else ""
    session = "session %d" % row["session"] if row["session"] else ""
    return " ".join(filter(None, (row["node"], row["name"], row["kind"], value, session, attempt)))


def is_under_way(row):
    """Whether a node is shown while it lasts: a run, for the others last as long as what is below.
    """
    return row["kind"] == "run" and row["status"] == RUNNING


def is_told(row):
    """Whether it is told how a node goes on: a run, one that has a name, one that ended badly."""
    return row["kind"] == "run" or row["name"] or row["status"] not in (RUNNING, DONE, WARNING)


def find_above(place):
    """The place of the node around another one; the root's is empty."""
    return place.rpartition(".")[0]


def list_above(place):
    """Yields the places of all nodes around another one."""
    while place:
        place = find_above(place)
        yield place


def fold_nodes(rows):
    """The rows of nodes, in the order of the plan, as [(row, its depth, its name)]. Of many in
    succession that ended well, with all below them, a few are there, and None for the others."""
    by_place = collections.OrderedDict((row["node"], row) for row in rows)
    loud, children = set(), collections.OrderedDict()   # what is not DONE, and what is around it
    for place, row in by_place.items():
        children.setdefault(find_above(place), []).append(place)
        if row["status"] != DONE:
            loud.update([place], list_above(place))
    folded = {}                                             # place -> how many are told there
    for places in children.values():
        for is_loud, run in itertools.groupby(places, loud.__contains__):
            run = list(run)
            if not is_loud and len(run) > MANY:
                folded.update(dict.fromkeys(run[FEW + 1:], 0))
                folded[run[FEW]] = len(run) - FEW
    lines = []
    for place, row in by_place.items():
        depth = place.count(".") + 1
        if folded.get(place):
            lines.append((None, depth, "... %d more" % folded[place]))
        elif place not in folded and not any(each in folded for each in list_above(place)):
            lines.append((row, depth, name_node(row, by_place.get(find_above(place)))))
    return lines


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
# client/errors.py
# What ends the client, and with which exit status.
# ======================================================================================

WELL, ENDED_BADLY, USAGE, NO_CONNECTION, REFUSED, WAITED_OUT = 0, 1, 2, 3, 4, 5
INTERRUPTED, OUTPUT_LOST = 130, 141


class ClientError(Exception):
    """What ends the client with its text on stderr and this exit status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def reason_of(error):
    """The text of an OSError without its number."""
    return getattr(error, "strerror", None) or str(error)


# ======================================================================================
# client/spelling.py
# The words of the protocol as the client spells them: options, verbs, and the agent's texts.
# ======================================================================================

# options that have another name here: --host is where the agent is
OTHER_NAMES = {"-HOST": "--of-host", "-SYNC": "--wait"}
# behind these stands a name, which may look like a verb
NOUNS = frozenset("agent calendar context of repository scenario schedule schema server session "
                  "step task variable".split())
_OPTIONS = frozenset(part.name for form in VERB_FORMS for part in list_parts(form)
                     if part.name.startswith("-"))
_VERBS = sorted((form.name for form in VERB_FORMS), key=len, reverse=True)
# a quoted text; an option; a verb
_SPELLED = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![\w-])-[A-Z][A-Z_]+|(?<![\w.=-])(?:%s)(?![\w.=-])'
                   % "|".join(_VERBS))
# how one says who he is, over the port and here
_LOGIN = "AUTH USER PASSWORD", "--user NAME"
_FROM_A_SHELL = re.compile(r"-[A-Z_]+ \(from a shell (--[a-z-]+)\)")


def spell_option(name):
    """An option of the protocol as the client has it: -MAX_WAIT is --max-wait."""
    return OTHER_NAMES.get(name) or "-" + name.lower().replace("_", "-")


def spell(text):
    """A text of the protocol, or of the agent, with the options and verbs of the client. What is
    quoted, and what is a name, stays as it is."""
    def spell_word(match):
        word = match.group()
        if word.startswith('"'):
            return re.sub('^"(-[A-Z_]+)', lambda option: '"' + spell_known(option.group(1)), word)
        if word.startswith("-"):
            return spell_known(word)
        before = match.string[:match.start()].split()[-1:]
        return word if NOUNS.intersection(before) else word.lower()
    return _SPELLED.sub(spell_word, _FROM_A_SHELL.sub(r"\1", text.replace(*_LOGIN)))


def spell_known(word):
    """An option of the protocol as the client has it, any other word as it is."""
    return spell_option(word) if word in _OPTIONS else word


# ======================================================================================
# client/tables.py
# Tables that fit the terminal.
# ======================================================================================

# left out of a table that has both columns of FROM_TO: what they say follows from those
FROM_TO, LEFT_OUT = {"begun", "duration"}, {"created", "ended"}
# of a table that is too wide: what goes first where it says what is usual, and then whatever it
# says; text is cut to no less than MIN_CELL; then the columns of LAST_SPARED go
USUAL = {"enabled": True, "hold": False, "context": "GLOBAL", "version": "-1", "count": 1}
SPARED = ("repository", "agent", "context", "version", "timezone", "keywords", "last",
          "last_session", "last_status")
LAST_SPARED = ("keywords", "parent", "decided", "start_at", "schedule", "last_due", "name",
               "duration", "end", "waits_for", "message", "note", "count", "due")
MIN_CELL = 8
NEAR_S = 300 * 86400.0          # a month and a day tell, in which year
PAINTED = ("status", "last_status", "decision", "outcome")


def printable(value):
    """A value for people, on one line and without control characters."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return show_controls(str(value)).replace("\t", "\\t")


def to_reader(value):
    """A cell of a table: a time of the agent as the reader's local time, to the second."""
    instant = find_instant(value)
    return printable(value) if instant is None else show_instant(instant)


def to_reader_from_now(value):
    """A cell of a table: a time of the agent as how far away it is."""
    instant = find_instant(value)
    return printable(value) if instant is None else show_relative(instant)


class Column:
    """One column of a table: a name and its values, as they are shown."""

    def __init__(self, name, values, show_cell=to_reader):
        """`show_cell` is a callable: value -> what stands in its cell."""
        self.name = name
        self.cells = [name.upper()] + [show_cell(value) for value in values]
        present = [value for value in values if value not in (None, "")]
        self.is_empty = not present
        self.is_usual = name in USUAL and all(value == USUAL[name] for value in present)
        self.is_number = all(type(value) in (int, float) for value in present)
        instants = [find_instant(value) for value in present]
        self.is_time = any(instant is not None for instant in instants)
        now = Clock().now()
        self._is_near = all(abs((instant or now) - now) < NEAR_S for instant in instants)
        self.width = max(map(len, self.cells))

    @property
    def can_shrink(self):
        """Whether its cells may be cut, once more."""
        return not (self.is_number or self.is_time) and self.width > MIN_CELL

    def shorten(self):
        """Leaves out of times what goes without saying: seconds that are all 00, and the year,
        where all are near."""
        times = [cell for cell in self.cells[1:] if cell]
        if not self.is_time or any(len(cell) != 19 for cell in times):
            return
        end = -3 if all(cell.endswith(":00") for cell in times) else None
        begin = 5 if self._is_near else 0
        self.cells[1:] = [cell[begin:end] for cell in self.cells[1:]]
        self.width = max(map(len, self.cells))

    def render(self, is_coloured=False):
        """Its cells, all of one width; what is cut ends in ~."""
        cells = [cell if len(cell) <= self.width else cell[:self.width - 1] + "~"
                 for cell in self.cells]
        cells = [cell.rjust(self.width) if self.is_number else cell.ljust(self.width)
                 for cell in cells]
        return [paint_state(cell, is_coloured and self.name in PAINTED) for cell in cells]


def find_width():
    """How wide tables may be: as COLUMNS says, or the terminal; None: there is neither. COLUMNS
    with LINES is what readline sets, unasked, for all that a program with it starts."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and "LINES" not in os.environ:
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):       # it is none
        return None


def fit(columns, width):
    """Columns that fit a width (None: any): times are shortened, some columns are left out, never
    the first, the widest texts are cut, and what is left of the last is shown as far as it goes."""
    def is_wide():
        return width is not None and sum(column.width + 2 for column in columns) - 2 > width
    for column in columns if is_wide() else ():
        column.shorten()
    spare = [column for column in columns[1:]
             if column.is_usual or column.cells[1:] == columns[0].cells[1:]]
    spare += find_columns(columns, SPARED, spare)
    while is_wide() and spare:
        columns.remove(spare.pop(0))
    while is_wide() and any(column.can_shrink for column in columns):
        widest = max((column for column in columns if column.can_shrink),
                     key=lambda column: column.width)
        widest.width -= 1
    spare = find_columns(columns, LAST_SPARED, ())
    while is_wide() and spare:
        columns.remove(spare.pop(0))
    while is_wide() and len(columns) > 1:
        del columns[-1]
    while is_wide() and columns[0].width > 1:
        columns[0].width -= 1
    give_back(columns, width)
    return columns


def find_columns(columns, names, others):
    """The columns of these names, in the order of the names, but the first and `others`."""
    return [column for name in names for column in columns[1:]
            if column.name == name and column not in others]


def give_back(columns, width):
    """Cut texts get what room is left."""
    room = 0 if width is None else width - sum(column.width + 2 for column in columns) + 2
    for column in columns:
        lacking = max(map(len, column.cells)) - column.width
        if lacking > 0 and room > 0:
            column.width += min(lacking, room)
            room -= min(lacking, room)


def make_table(rows, width, is_coloured=False, show_cell=to_reader):
    """Rows (dicts) as aligned columns that fit a width: [line]; numbers stand on the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    left_out = LEFT_OUT if FROM_TO.issubset(names) else ()
    columns = [Column(name, [row.get(name) for row in rows], show_cell)
               for name in names if name not in left_out]
    columns = fit([column for column in columns if not column.is_empty], width)
    return ["  ".join(cells).rstrip()
            for cells in zip(*(column.render(is_coloured) for column in columns))]


def is_too_wide(rows):
    """Whether rows lack something as a table on this terminal."""
    width = find_width()
    return width is not None and len(make_table(rows, None)[0]) > width


def put_table(rows, show_cell=to_reader):
    """Writes rows as a table; states are coloured where that is wanted."""
    for line in make_table(rows, find_width(), has_colours(sys.stdout), show_cell):
        put_safe(line)


def put_safe(line, is_flushed=False):
    """Writes a line whose texts are printable to stdout; what its encoding lacks is shown as
    \\xNN. Raises OSError."""
    if sys.stdout is not None:
        sys.stdout.buffer.write(
            (line + "\n").encode(sys.stdout.encoding or "ascii", "backslashreplace"))
        if is_flushed:
            sys.stdout.buffer.flush()


# ======================================================================================
# client/shown.py
# What is shown of a reply: tables, records, text, or JSON.
# ======================================================================================

def put(line, is_flushed=False):
    """Writes a line to stdout with what is hidden in it shown. Raises OSError."""
    put_safe(show_controls(line), is_flushed)


def tell(message):
    """Writes a line to stderr, if that can be."""
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            print(show_controls(str(message)), file=sys.stderr)


def complain(message):
    """Tells what has gone wrong."""
    tell("agentcli: %s" % message)


def put_json(value):
    """Writes a value as one line of JSON."""
    put(json.dumps(value), is_flushed=True)


def render_fields(fields):
    """What the agent acknowledged, on one line, without the fields that are empty. A note has the
    client's own words."""
    if fields.get("note"):
        fields = dict(fields, note=spell(fields["note"]))
    shown = [(name, printable(value)) for name, value in fields.items() if value not in (None, "")]
    return " ".join("%s=%s" % (
        name, json.dumps(text, ensure_ascii=False) if " " in text or text[:1] == '"' else text)
                    for name, text in shown) or "OK"


def put_fields(fields):
    """Writes what the agent acknowledged."""
    put(render_fields(fields), is_flushed=True)


def put_record(row):
    """Writes a row as a line a field, without those that are empty."""
    shown = [(name, printable(value)) for name, value in row.items() if value not in (None, "")]
    width = max([len(name) for name, _ in shown] or [0])
    for name, text in shown:
        put("%s  %s" % (name.ljust(width), text))


def show_acknowledgement(reply, is_json, origin=""):
    """A reply of fields. Data lines that are no fields are the faults that stand before an ERR;
    `origin`: in what."""
    write, fault = put_json if is_json else put_fields, None
    try:
        for line in reply:
            if _FIELD.match(line):
                write(parse_fields(line))
            else:
                complain(origin + spell(line))
                fault = fault or spell(line)
    except ClientError as error:    # it repeats the first fault
        text = str(error)
        raise ClientError(error.status, text[:-len(": " + fault)]
                          if fault and text.endswith(": " + fault) else text)
    write(reply.fields)


def read_kinds(reply):
    """The rows of a reply of JSON objects, told apart by their first key: {key: rows}; the fields
    of the OK are under None."""
    kinds = {}
    for row in [json.loads(line) for line in list(reply)]:
        kinds.setdefault(next(iter(row), ""), []).append(row)
    if reply.fields:
        kinds[None] = [reply.fields]
    return kinds


def tell_none():
    """Says on a terminal that there is nothing to list."""
    if is_terminal(sys.stdout):
        tell("none")


def show_listing(reply, is_json, is_record=False, show_cell=to_reader):
    """A reply of JSON objects: a table for each kind of row; a record's first is no table. The
    fields of the OK are one more."""
    if is_json:
        show_text(reply)
        if reply.fields:
            put_json(reply.fields)
        return
    kinds = read_kinds(reply)
    if not kinds and reply.trouble is None:
        tell_none()
    for number, (kind, rows) in enumerate(kinds.items()):
        if number:
            put("")
        if kind is None and is_too_wide(rows):
            put_record({name: to_reader(value) for name, value in rows[0].items()})
            continue
        if not is_record or number:
            put_table(rows, show_cell)
            continue
        for index, row in enumerate(rows):
            if index:
                put("")
            put_record(row)


def show_record(reply, is_json):
    """A reply of JSON objects, of which the first is what was asked for and the others belong to
    it."""
    show_listing(reply, is_json, is_record=True)


def show_text(reply, is_json=False):
    """Prints the data lines of a reply as they are, or each as JSON."""
    for line in reply:
        put(json.dumps({"line": line}) if is_json else line)


def show_document(reply, is_json):
    """A reply that is a JSON document over many lines; with --json it is one line."""
    if is_json:
        put_json(json.loads("\n".join(reply)))
    else:
        show_text(reply)


def parse_log_line(line):
    """A line of a log, `TIME STEP/TASK out|err TEXT`, as its parts."""
    when, place, stream, text = (line.split(" ", 3) + [""] * 3)[:4]
    step, _, task = place.partition("/")
    return {"time": when, "step": step, "task": task, "stream": stream, "text": text}


def show_log(reply, is_json):
    """A reply of lines of a log."""
    for line in reply:
        put(json.dumps(parse_log_line(line)) if is_json else line, is_flushed=True)


# ======================================================================================
# client/pictures.py
# Replies as people read them best: times from now, a session as a tree, due times folded.
# ======================================================================================

LONGEST, LEAST = 24, 8      # columns of the longest bar of a tree, with room and without
BESIDE = 22             # columns of state, duration and gaps
# fields of a session that its tree has, or that follow from others
IN_TREE = ("session", "scenario", "version", "status", "message", "duration")
FOLDED_S = 900.0        # due times of a schedule that follow one another so soon are one line
MIN_FOLDED = 3          # so many of them at least
ASKED = 1000            # due times that are asked for, where nobody says how many


def show_sessions(reply, is_json):
    """Sessions; on a terminal their times are told from now."""
    show_listing(reply, is_json,
                 show_cell=to_reader_from_now if is_terminal(sys.stdout) else to_reader)


class Branch:
    """One line of a tree: a session, an attempt of a step or of a task, a node."""

    def __init__(self, depth, name, row, now):
        """`now` is the agent's: the end of what has not ended."""
        attempt = row.get("attempt") or 1
        self.name = "  " * depth + printable(name) + (" (attempt %d)" % attempt) * (attempt > 1)
        self.depth, self.state, self.message = depth, row["status"], row["message"]
        begun, ended = find_instant(row["begun"]), find_instant(row["ended"])
        self.took_s = None if begun is None else max(0.0, (ended or now or begun) - begun)


def make_tree(rows):
    """The rows of STATUS as branches, in their order: [Branch]."""
    session = rows[0]
    begun = find_instant(session["begun"])
    now = None if begun is None else begun + (session["duration"] or 0.0)
    branches = [Branch(0, "session %s  %s %s" % (session["session"], session["scenario"],
                                                 session["version"]), session, now)]
    for row, depth, name in fold_nodes([row for row in rows if "node" in row]):
        row = row or {"status": DONE, "message": "", "begun": None, "ended": None}
        branches.append(Branch(depth, name, dict(row, attempt=1), now))     # its name tells it
    for row in rows[1:]:
        if "step" in row:
            branches.append(Branch(1, "%d %s" % (row["step"], row["name"]), row, now))
        elif "task" in row:
            branches.append(Branch(2, " ".join(filter(None, (row["task"], row["type"],
                                                             row["name"]))), row, now))
    return branches


def put_tree(branches):
    """Writes a tree: names, states, durations and bars, and below them what there is to say."""
    is_coloured, blocks = has_colours(sys.stdout), has_blocks(sys.stdout)
    wide = max(len(branch.name) for branch in branches)
    width = (find_width() or 100) - BESIDE
    wide = min(wide, max(10, width - LEAST))
    longest_s = max([branch.took_s or 0.0 for branch in branches]) or 1.0
    room = min(LONGEST, max(LEAST, width - wide))
    for place, branch in enumerate(branches):
        name = branch.name if len(branch.name) <= wide else branch.name[:wide - 1] + "~"
        took = "" if branch.took_s is None else show_duration(branch.took_s)
        bar = "" if branch.took_s is None else draw_length(branch.took_s / longest_s, room, blocks)
        put_safe("  ".join((name.ljust(wide), paint_state(branch.state.ljust(7), is_coloured),
                            took.rjust(9), bar)).rstrip())
        if branch.message and not branch.message.endswith(tuple(list_said(branches[place:]))):
            put_safe(paint("  " * (branch.depth + 1) + printable(branch.message), DIM,
                           is_coloured))


def list_said(branches):
    """The messages of those that hang on the first of some branches."""
    for branch in branches[1:]:
        if branch.depth <= branches[0].depth:
            return
        if branch.message:
            yield branch.message


def show_status(reply, is_json):
    """A session as a tree of its steps and their tasks, or of the nodes of its plan, with bars for
    how long they took; then what else is known of it, and its variables."""
    if is_json:
        show_record(reply, is_json)
        return
    rows = [json.loads(line) for line in list(reply)]
    put_tree(make_tree(rows))
    put("")
    put_record({name: to_reader(value) if find_instant(value) else value
                for name, value in rows[0].items() if name not in IN_TREE})
    others = {}
    for row in rows[1:]:
        others.setdefault(next(iter(row)), []).append(row)
    for kind in (name for name in others if name not in ("step", "task", "node")):
        put("")
        put_table(others[kind])


def fold(rows, is_cut):
    """Coming due times, in order: those of one schedule that follow one another soon, and with the
    same to say of them, are one row with the last of them (`until`) and how many there are.
    `is_cut`: there are more of them than these."""
    runs, newest = [], {}
    for row in rows:
        key = (row["schedule"], row.get("repository"), row["note"])
        due, run = find_instant(row["due"]), newest.get(key)
        if run and due is not None and due - find_instant(run[-1]["due"]) <= FOLDED_S:
            run.append(row)
        else:
            newest[key] = [row]
            runs.append(newest[key])
    last = rows[-1]["due"] if is_cut and rows else None
    return [row for run in runs for row in fold_run(run, last)]


def fold_run(run, last):
    """Due times of one schedule as rows. Those that go on up to `last`, where the listing was cut,
    have no known end."""
    if len(run) < MIN_FOLDED:
        return run
    goes_on = last is not None and (find_instant(last) - find_instant(run[-1]["due"]) <= FOLDED_S)
    return [dict({"schedule": run[0]["schedule"], "due": run[0]["due"],
                  "until": None if goes_on else run[-1]["due"],
                  "times": "%d%s" % (len(run), " or more" * goes_on)}, **run[0])]


def show_coming(reply, is_json):
    """Coming due times; for people those that repeat soon are one line."""
    if is_json:
        show_listing(reply, is_json)
        return
    rows = [json.loads(line) for line in list(reply)]
    rows = sorted(fold(rows, len(rows) == ASKED), key=lambda row: find_instant(row["due"]) or 0.0)
    if rows:
        put_table(rows)
    elif reply.trouble is None:
        tell_none()


# ======================================================================================
# client/board.py
# What top shows: how an agent is now, and that as a page of any size.
# ======================================================================================

QUICK_ANSWER_S = 5.0    # an agent that is silent for longer is lost
MOST = 100              # rows of a part that are asked for
COMING = 300            # due times, before they are folded
USUAL_BAR = 10          # columns
HISTORY_S = 60.0        # how long the usual durations are believed


class Section(NamedTuple):
    """A part of the page: its title, how many there are, and its rows."""
    title: str
    count: str
    keys: list              # of the rows: ("session", 1001, ...), ("schedule", "NIGHT", ...)
    rows: list              # [{column: value}]


class PageLine(NamedTuple):
    """A line of the page; `key` is that of its row, None of others."""
    text: str
    is_heading: bool
    key: tuple = None


class Board:
    """The agent as it was a moment ago. Nothing is kept but what sessions usually take."""

    def __init__(self, has_bars):
        self.ping, self.parts = {}, []
        self._has_blocks, self._clock = has_bars, Clock()
        self._usual, self._believed_to = {}, 0.0

    def read(self, connection):
        """Asks the agent anew. Raises ClientError."""
        if self._clock.monotonic() > self._believed_to:
            self._usual, self._believed_to = {}, self._clock.monotonic() + HISTORY_S
        reply = connection.ask("PING -JSON", QUICK_ANSWER_S)
        list(reply)
        self.ping = reply.fields
        schedules = ask_for(connection, "SCHED LIST")
        self.parts = [
            self._make_running(connection),
            self._make_sessions("QUEUE", ask_for(connection, "SESSIONS -STATUS=WAITING,QUEUED "
                                                 "-LIMIT=%d" % MOST)[::-1], "start_at"),
            self._make_sessions("FAILED", ask_for(connection, "SESSIONS -STATUS=ERROR,STOPPED "
                                                  "-LIMIT=%d" % MOST), "ended"),
            make_coming(ask_for(connection, "SCHED NEXT -COUNT=%d" % COMING)),
            make_holds([row for row in schedules if row["hold"]])]

    @property
    def is_held(self):
        """Whether the whole agent is held."""
        return self.ping.get("hold") is True

    def _make_running(self, connection):
        """What runs, against what is usual."""
        sessions = ask_for(connection, "SESSIONS -STATUS=RUNNING -LIMIT=%d" % MOST)
        rows = []
        for row, depth in nest(sessions):
            usual_s = self._find_usual(connection, row["scenario"])
            took_s = row["duration"] or 0.0
            bar = draw_bar(took_s / usual_s, USUAL_BAR, self._has_blocks) if usual_s else ""
            rest = "" if not usual_s else (
                "%s over" % show_duration(took_s - usual_s) if took_s > usual_s
                else "%s to go" % show_duration(usual_s - took_s))
            rows.append({"session": row["session"], "scenario": "  " * depth + row["scenario"],
                         "name": row["name"], "took": show_duration(took_s), "bar": bar,
                         "left": rest, "message": row["message"]})
        return make_section("RUNNING", "session", rows)

    def _find_usual(self, connection, scenario):
        """The median duration of past sessions; None: there is none."""
        if scenario not in self._usual:
            rows = ask_for(connection, "SESSIONS -SCENARIO=%s -STATUS=DONE,WARNING -LIMIT=%d"
                           % (quote(scenario), PAST_SESSIONS))
            self._usual[scenario] = median(
                [row["duration"] for row in rows if row["duration"] is not None])
        return self._usual[scenario]

    @staticmethod
    def _make_sessions(title, sessions, when):
        rows = [{"session": row["session"], "scenario": row["scenario"], "name": row["name"],
                 "of": "of %d" % row["parent"] if row["parent"] else "", "status": row["status"],
                 "when": tell_when(row[when]), "message": row["message"]}
                for row in sessions]
        return make_section(title, "session", rows)

    def make_head(self):
        """The lines above all parts."""
        ping = self.ping
        lines = ["%s %s  %s  up %s  running %s  queued %s  repositories %s  %s" % (
            ping["agent"], ping["version"], ping["status"], show_duration(ping["uptime"]),
            ping["running"], ping["queued"], ping["repositories"],
            show_instant(self._clock.now())[11:])]
        if self.is_held:
            until = tell_when(ping.get("hold_until"))
            lines.append("HELD%s%s%s" % (
                " by %s" % ping["hold_by"] if ping.get("hold_by") else "",
                " until %s" % until if until else "",
                ": %s" % ping["hold_reason"] if ping.get("hold_reason") else ""))
        return [printable(line) for line in lines]

    def list_keys(self):
        """The keys of all rows, in their order."""
        return [key for part in self.parts for key in part.keys]

    def make_page(self, height, width, chosen=None):
        """The page without its head, in so many lines: [PageLine]. The row of the chosen key is
        among them."""
        parts = [part for part in self.parts if part.rows or part.title == "RUNNING"]
        shares = share_lines([len(part.rows) for part in parts], height - len(parts))
        lines = []
        for part, share in zip(parts, shares):
            more = "" if share >= len(part.rows) else "  (%d of them here)" % share
            lines.append(PageLine(("%s %s%s" % (part.title, part.count, more)).rstrip(), True))
            texts = make_table(part.rows, width - 2)[1:] if part.rows else []
            begin = 0
            if chosen in part.keys:
                begin = max(0, part.keys.index(chosen) - share + 1)
            lines += [PageLine("  " + text, False, key) for key, text in
                      list(zip(part.keys, texts))[begin:begin + share]]
        return [line._replace(text=line.text[:width]) for line in lines[:max(0, height)]]


def ask_for(connection, request):
    """The JSON objects of a reply; PING tells that a repository is missing. Raises ClientError."""
    reply = connection.ask(request + " -JSON", QUICK_ANSWER_S, is_lenient=True)
    return [json.loads(line) for line in list(reply)]


def make_section(title, kind, rows):
    """A Section whose rows have what they are in a column of this name."""
    count = "%d%s" % (len(rows), " or more" if len(rows) == MOST else "")
    names = [row[kind] for row in rows]
    keys = [(kind, name) if kind == "session" else (kind, name, title, names[:place].count(name))
            for place, name in enumerate(names)]        # a session is in one section at a time
    return Section(title, count, keys, rows)


def nest(sessions):
    """Sessions, the newest first, as [(row, how deep)]: each with those that it has started below
    it, the oldest of them first."""
    numbers = {row["session"] for row in sessions}
    children = {}
    for row in sessions:
        if row["parent"] in numbers:
            children.setdefault(row["parent"], []).append(row)
    rows = []
    to_follow = [(row, 0) for row in sessions[::-1] if row["parent"] not in numbers]
    while to_follow:
        row, depth = to_follow.pop()
        rows.append((row, depth))
        to_follow += [(child, depth + 1) for child in children.get(row["session"], ())]
    return rows


def tell_when(value):
    """A time of the agent as how far away it is, or nothing."""
    instant = find_instant(value)
    return "" if instant is None else show_relative(instant)


def make_coming(due):
    """The coming due times as a part."""
    rows = []
    for row in fold(due, len(due) == COMING):
        times = row.get("times", "").replace(" or more", "+")
        rows.append({"schedule": row["schedule"], "when": tell_when(row["due"]),
                     "due": show_instant(find_instant(row["due"]))[5:],
                     "times": "x " + times if times else "", "note": row["note"]})
    return make_section("NEXT", "schedule", rows)._replace(count="")


def make_holds(schedules):
    """The schedules that are held as a part."""
    rows = [{"schedule": row["name"], "until": tell_when(row.get("hold_until")),
             "message": row.get("hold_reason") or ""} for row in schedules]
    return make_section("HELD SCHEDULES", "schedule", rows)


def share_lines(wanted_lines, room):
    """How many lines each part gets, one after the other in turn, until all have what they want or
    there is no room: [count]."""
    shares = [0] * len(wanted_lines)
    while room > 0 and shares != wanted_lines:
        for place, wish in enumerate(wanted_lines):
            if room > 0 and shares[place] < wish:
                shares[place] += 1
                room -= 1
    return shares


# ======================================================================================
# client/coming.py
# sched next and sched why as people ask them: what comes of each schedule, what did not start.
# ======================================================================================

LINES = 10              # lines of coming due times
DECISIONS = ("started", "late", "skipped", "failed")
MOST_OCCURRENCES = 1000000      # that are looked through
USUAL_LIMIT = 50                # of these so many are shown


def show_next(connection, arguments, words):
    """Asks for coming due times, and shows ten lines of them: first the next of each schedule, in
    their order. Raises ClientError, OSError of stdout."""
    troubles = []
    rows = ask_json(connection, ["SCHED NEXT"] + arguments + words + ["-COUNT=%d" % ASKED],
                    troubles)
    lines = fold(rows, len(rows) == ASKED)
    names = {name_row(row) for row in lines}
    if len(rows) == ASKED and len(names) < LINES and not arguments + words:
        # those that are due so seldom that a thousand due times of others come first
        lines += [{"schedule": row["name"], "due": row["next"], "note": ""}
                  for row in ask_json(connection, ["SCHED LIST"], troubles)
                  if row["next"] and row["enabled"] and row["name"] not in
                  {name for name, _ in names}]
    lines = choose_lines(lines)
    if lines:
        put_table(lines)
    elif not troubles:
        tell_none()
    if troubles:
        raise troubles[0]


def name_row(row):
    """Which schedule a row of coming due times is of."""
    return row["schedule"], row.get("repository")


def choose_lines(rows):
    """Ten rows of coming due times: the next of each schedule before further ones."""
    turns, ordered = {}, []
    for row in sorted(rows, key=find_due):
        turns[name_row(row)] = turns.get(name_row(row), 0) + 1
        ordered.append((turns[name_row(row)], find_due(row), row))
    ordered.sort(key=lambda place: place[:2])
    return sorted((row for _, _, row in ordered[:LINES]), key=find_due)


def find_due(row):
    """When a row is due; epoch seconds."""
    return find_instant(row["due"]) or 0.0


def ask_json(connection, words, troubles):
    """The JSON objects that a request is answered with. That a repository could not be read goes
    into `troubles`. Raises ClientError."""
    reply = connection.ask(" ".join(words + ["-JSON"]), is_lenient=True)
    rows = [json.loads(line) for line in reply]
    troubles += [reply.trouble] * (reply.trouble is not None)
    return rows


class Sifted:
    """A reply of occurrences without those that were decided otherwise; newest first."""

    def __init__(self, reply, decisions, limit):
        self._reply, self._decisions, self._limit = reply, decisions, limit
        self.count = 0

    def __iter__(self):
        for line in self._reply:
            if json.loads(line)["decision"] in self._decisions and self.count < self._limit:
                self.count += 1
                yield line

    @property
    def fields(self):
        """Those of the OK."""
        return self._reply.fields

    @property
    def trouble(self):
        """What could not be read, or None."""
        return self._reply.trouble


def sift_why(connection, arguments, words, decisions):
    """Asks what became of due times -> what is like a Reply: only what became one of these words
    between commas. Raises ClientError."""
    wishes = decisions.lower().split(",")
    unknown = [wish for wish in wishes if wish not in DECISIONS]
    if unknown:
        raise ClientError(USAGE, "--decision takes %s, several between commas"
                          % ", ".join(DECISIONS))
    limit, others = USUAL_LIMIT, []
    for word in words:
        name, _, value = word.partition("=")
        if name.upper() == "-LIMIT" and value.isdigit():
            limit = int(value)
        else:
            others.append(word)
    request = ["SCHED WHY"] + arguments + others + ["-LIMIT=%d" % MOST_OCCURRENCES, "-JSON"]
    return Sifted(connection.ask(" ".join(request), is_lenient=True), wishes, limit)


# ======================================================================================
# client/command.py
# What a command of the client is, and what an option of one.
# ======================================================================================

class Command(NamedTuple):
    """One row of the command table."""
    name: str               # the verb in lower case; `sched add` is one
    arguments: str          # as usage shows them; [] may be left out
    meanings: list          # [(argument, what it means)]
    options: list           # [Choice]
    show: Optional[Callable]        # (Reply, is_json); None: it is the client's own
    help: str
    is_listing: bool = False        # its reply is asked for as JSON
    is_table: bool = False          # of a listing: its rows are all alike
    # of the client's own: (options, arguments, words of requests) -> exit status
    perform: Optional[Callable] = None


class Choice(NamedTuple):
    """One option of a command."""
    name: str               # in the protocol, without its dash
    shown: str              # its value; nothing for a flag
    meaning: str
    has_default: bool = False       # without a value it makes a field default again
    is_own: bool = False            # it is for the client, not for the agent
    short: str = ""                 # the same in one letter, as -o

    @property
    def offered(self):
        """The option as it is typed."""
        return spell_option("-" + self.name)


def own(name, meaning, shown="", short=""):
    """An option that is for the client."""
    return Choice(name, shown, meaning, is_own=True, short=short)


# ======================================================================================
# client/settings.py
# Where the agent is, and as whom it is asked: options, the environment, and ~/.agentcli.
# ======================================================================================

DEFAULT_HOST = "127.0.0.1"
DEFAULT_SECTION = "default"     # for who names no agent
SETTINGS = ("host", "port", "unix", "tls", "tls-ca", "tls-cert", "tls-key", "user",
            "password-file")
PATHS = ("unix", "tls-ca", "tls-cert", "tls-key", "password-file")


def settings_path():
    """The file with what the client is to know of agents."""
    return os.path.join(os.path.expanduser("~"), ".agentcli")


def parse_port(text, source=""):
    """The number of a port. ValueError."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError("must be a number from 1 to 65535, not %s%s" % (ascii(text), source))
    return int(text)


def complete_place(options):
    """The options of a command line with what they leave out: a new Namespace. --host, else
    AGENT_HOST, names a section of ~/.agentcli or a host; an option wins over the section, that over
    AGENT_PORT. Raises ClientError."""
    name = options.host or os.environ.get("AGENT_HOST") or None
    section = read_sections(settings_path()).get(name or DEFAULT_SECTION)
    values = dict(section or {})
    host = values.pop("host", DEFAULT_HOST) if section is not None or name is None else name
    port = find_port(options, values.pop("port", None), name or DEFAULT_SECTION)
    if options.unix:                    # the section's host is not where it goes
        values = {key: values[key] for key in ("user", "password-file") if key in values}
    elif options.port:
        values.pop("unix", None)
    typed = {key: value for key, value in vars(options).items() if value not in (None, False)}
    values = {key.replace("-", "_"): value for key, value in values.items()}
    return argparse.Namespace(**dict(vars(options), **dict(values, **dict(
        typed, host=host, port=port))))


def find_port(options, text, name):
    """The port of --port, or that of a section (its text or None), or AGENT_PORT's. ClientError."""
    source = " (%s [%s])" % (settings_path(), name)
    if text is None:
        text, source = os.environ.get("AGENT_PORT") or str(DEFAULT_PORT), " (AGENT_PORT)"
    try:
        return options.port or parse_port(text, source)
    except ValueError as error:
        raise ClientError(USAGE, "the port %s" % error)


def read_sections(path):
    """The sections of a file: {name: {setting: value}}; none where there is no file. Raises
    ClientError: others may write it, or something in it is wrong."""
    parser = configparser.ConfigParser(default_section="", interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ClientError(USAGE, "others can change %s, which says whom to trust: chmod "
                                  "go-w" % path)
            parser.read_file(file)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(USAGE, "cannot read %s: %s" % (path, reason_of(error)))
    except configparser.Error as error:
        raise ClientError(USAGE, "%s: %s" % (path, " ".join(str(error).split())))
    return {name: _read_section(path, name, parser) for name in parser.sections()}


def _read_section(path, name, parser):
    """The settings of one section. Raises ClientError."""
    values = dict(parser[name])
    for key in values:
        if key not in SETTINGS:
            raise ClientError(USAGE, "%s [%s]: there is no setting %s; there are %s" % (
                path, name, ascii(key), " ".join(SETTINGS)))
    if "tls" in values:
        try:
            values["tls"] = parser[name].getboolean("tls")
        except ValueError:
            raise ClientError(USAGE, "%s [%s]: tls must be yes or no" % (path, name))
    for key in PATHS:
        if key in values:
            values[key] = os.path.expanduser(values[key])
    return values


# ======================================================================================
# client/commands.py
# The verbs as commands, and the command line that names one.
# ======================================================================================

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_OPTION = re.compile(r"-([A-Z][A-Z_]+)(?:=(.*))?", re.DOTALL)
_NO_COMMAND = re.compile(r"argument COMMAND: invalid choice: (.*?) \(choose from .*", re.DOTALL)
SHOWS = {AS_FIELDS: show_acknowledgement, AS_ROWS: show_listing, AS_RECORD: show_record,
         AS_TEXT: show_text, AS_DOCUMENT: show_document, AS_LOG: show_log}
OWN_SHOWS = {"SESSIONS": show_sessions, "STATUS": show_status, "SCHED NEXT": show_coming}
NO_COMMANDS = ("QUIT", "AUTH")      # they mean something on a connection that lasts
NO_OPTIONS = ("-JSON", "-SYNC")     # the client's own words stand for these: --json, --wait
CRONTAB_OPTIONS = ("CRONTAB", "SYSTEM", "PRUNE")        # the client's own
FOLLOW = own("FOLLOW", "show its steps and what it prints until it has ended; its exit status")
OWN_OPTIONS = {
    "EXEC": [Choice("SYNC", "", "reply when the session has ended"), FOLLOW],
    "RESTART": [FOLLOW],
    "WAIT": [FOLLOW],
    "SCHED WHY": [own("DECISION", "only what became one of started, late, skipped, failed", "a,b")],
    "SHUTDOWN": [own("WAIT", "stay until the agent is gone")],
    "IMPORT": [Choice("CRONTAB", "", "the files are crontabs"),
               Choice("SYSTEM", "yes|no", "whether each line of the crontab names a user"),
               Choice("PRUNE", "", "delete the schedules that the crontab no longer has")]}
OWN_ARGUMENTS = {"IMPORT": "FILE...", "USERS PASSWORD": "NAME"}
OWN_MEANINGS = {"USERS PASSWORD": [("NAME", "name of the user")],
                "IMPORT": [("FILE", "a definitions document, or a crontab; - is standard input")]}
ABOUT = """\
The client of agent.py: asks an agent, and shows what it says. What a command takes is told by
agentcli.py COMMAND -h."""
EXAMPLES = """\
for example:
  agentcli.py ping                         is it there, is it well?
  agentcli.py exec HELLO --follow          run something, and watch it
  agentcli.py sessions --status ERROR      what failed
  agentcli.py log 1001 --tail 20           why
  agentcli.py sched next                   what comes
  agentcli.py sched why NIGHTLY            why did it not run?
  agentcli.py top                          a live screen"""
VARIABLE_MEANING = ("VARIABLE=value", "a value for a variable of the scenario")
OWN_HELP = {
    "EXEC": "start a session of a scenario; with --wait or --follow the exit status is the "
            "session's",
    "WAIT": "wait for the end of a session; its exit status",
    "SCHED ADD": "add a schedule, effective at once; VERSION -1 is the latest",
    "IMPORT": "import definitions documents, or crontabs; ends at the first that is refused; with "
              "--dry-run nothing is written: it shows what crontabs become, and when it is due",
}


class CommandParser(Parser):
    """One that does not list all commands where a word is none of them."""

    def error(self, message):
        """Says what is wrong, and exits."""
        super().error(_NO_COMMAND.sub(r"\1 is no command; %s -h lists them" % self.prog, message))


def make_command(form):
    """The Command of a verb, from its VerbForm."""
    parts = list_parts(form)
    options = [Choice(part.name[1:], part.shown, spell(part.meaning), part.is_field)
               for part in parts if part.name.startswith("-") and part.name not in NO_OPTIONS]
    meanings = [(part.name, spell(part.meaning)) for part in parts if part.name[0] != "-"]
    if "[VARIABLE=" in form.usage:
        meanings.append(VARIABLE_MEANING)
    return Command(form.name.lower(), OWN_ARGUMENTS.get(form.name, form.usage),
                   OWN_MEANINGS.get(form.name, meanings),
                   options + OWN_OPTIONS.get(form.name, []),
                   OWN_SHOWS.get(form.name) or SHOWS[form.reply],
                   OWN_HELP.get(form.name) or spell(form.help), form.reply in (AS_ROWS, AS_RECORD),
                   form.reply == AS_ROWS)


def list_verb_commands():
    """The commands of the verbs: [Command]."""
    return [make_command(form) for form in VERB_FORMS if form.name not in NO_COMMANDS]


def port_number(text):
    """The value of --port. Raises ArgumentTypeError."""
    try:
        return parse_port(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error))


def add_common(parser, **defaults):
    """The options that every command has, before and behind its name."""
    def add(name, **keywords):
        default = None if defaults else argparse.SUPPRESS
        parser.add_argument("--" + name, default=defaults.get(name, default), **keywords)
    add("host", metavar="HOST", help="where the agent is, or its name in ~/.agentcli (AGENT_HOST, "
        "else %s)" % DEFAULT_HOST)
    add("port", metavar="PORT", help="its port (AGENT_PORT, else %d)" % DEFAULT_PORT,
        type=port_number)
    add("unix", metavar="PATH", help="its UNIX socket, instead of host and port")
    add("tls", action="store_true", help="connect by TLS, and verify who answers")
    add("tls-ca", dest="tls_ca", metavar="FILE",
        help="authorities for --tls (PEM; else those that this host trusts)")
    add("tls-cert", dest="tls_cert", metavar="FILE",
        help="certificate that says which user you are (PEM)")
    add("tls-key", dest="tls_key", metavar="FILE",
        help="its key (else in the file of --tls-cert)")
    add("user", metavar="NAME", help="the user of the agent that you are; the password is asked "
        "for")
    add("password-file", metavar="FILE", help="its first line is the password of --user; nobody "
        "else may read it")
    add("json", action="store_true", help="JSON objects, one a line")


def make_parser(commands):
    """The parser of everything but the arguments of a command,
    which may stand between its options."""
    parser = CommandParser(prog="agentcli.py", usage="%(prog)s [OPTION ...] COMMAND ...",
                           description=ABOUT, epilog=EXAMPLES, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version="agentcli.py " + VERSION)
    add_common(parser, json=False)
    places = {"": add_subparsers(parser)}
    parser.set_defaults(commands=commands)
    for command in commands:
        group, _, name = command.name.rpartition(" ")
        if group not in places:
            places[group] = add_subparsers(places[""].add_parser(group, help="%s: %s %s -h" % (
                {"sched": "schedules"}.get(group, group.rstrip("s") + "s"), parser.prog, group),
                allow_abbrev=False))
        usage = " ".join([parser.prog, command.name] + command.arguments.split() + ["[options]"])
        sub = places[group].add_parser(
            name, help=command.help, description=describe(command), usage=usage,
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        for choice in command.options:
            add_choice(sub, choice)
        if command.name == "users password":
            sub.add_argument("--new-password-file", metavar="FILE", help="its first line is the "
                             "new password, which is asked for otherwise")
        add_common(sub)
        sub.set_defaults(command=command, parser=sub)
    return parser


def add_choice(parser, choice):
    """Adds one option of a command to its parser."""
    shown = choice.shown.upper() if choice.shown.isalpha() else choice.shown
    keywords = ({"metavar": shown} if shown
                else {"action": "store_const", "const": True})
    if choice.has_default:
        keywords.update(nargs="?", const="")
    names = filter(None, (choice.short, choice.offered))
    parser.add_argument(*names, dest="-" + choice.name, default=argparse.SUPPRESS,
                        help=choice.meaning.replace("%", "%%"), **keywords)


def describe(command):
    """What a command does, and what its arguments mean."""
    # as argparse does it; a terminal that does not know its size has none, before 3.8
    width = (shutil.get_terminal_size().columns or 80) - 2
    texts = [textwrap.fill(command.help, width)]
    if command.meanings:
        texts.append("\n".join(["arguments:"] + [
            textwrap.fill(meaning, width, initial_indent="  " + name.ljust(22),
                          subsequent_indent=" " * 24) for name, meaning in command.meanings]))
    if any(choice.has_default for choice in command.options):
        texts.append(textwrap.fill("An option that sets a field of the schedule makes it default "
                                   "again when it stands without a value.", width))
    return "\n\n".join(texts)


def add_subparsers(parser):
    """Makes a parser demand a command."""
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="missing", prog=parser.prog)
    subparsers.required = True          # an argument of add_subparsers() from 3.7 on
    return subparsers


def parse_command_line(words, commands):
    """The words of a command line that names one of these commands -> (Namespace with host, port,
    json, command and `own`, arguments, the options and variables as words of a request). Wrong
    ones end the client with a message and status 2."""
    end = words.index("--") if "--" in words else len(words)
    before, literal = join_distances(map(with_dashes, words[:end])), words[end + 1:]
    raw = [match for match in map(_OPTION.fullmatch, before) if match]
    parsed, others = make_parser(commands).parse_known_args([word for word in before
                                                     if not _OPTION.fullmatch(word)])
    unknown = [word for word in others if re.fullmatch(r"-[^\d\s]\S*", word)]
    if unknown:
        # no value is repeated
        name = unknown[0].partition("=")[0]
        other = OTHER_NAMES.get(name[1:].upper())
        parsed.parser.error("unknown option %s%s" % (name, other and "; here it is " + other or ""))
    form = re.findall(r"\[.*?\]|\S+", parsed.command.arguments)
    is_variable = _VARIABLE.fullmatch if any("=" in name for name in form) else lambda word: None
    arguments = [word for word in others if not is_variable(word)] + literal
    if parsed.command.name == "users password" and len(arguments) > 1:
        parsed.parser.error("the new password is asked for, or read with --new-password-file: on a "
                            "command line others could read it")
    check_arguments(parsed.parser, [name for name in form if "=" not in name], arguments)
    options = {name[1:]: value for name, value in vars(parsed).items() if name.startswith("-")}
    if parsed.password_file is not None and parsed.user is None:
        parsed.parser.error("--password-file is for --user")
    parsed.own = {choice.name: options.pop(choice.name) for choice in parsed.command.options
                  if choice.is_own and choice.name in options}
    parsed.crontab = {name: options.pop(name) for name in CRONTAB_OPTIONS if name in options}
    if parsed.crontab and "CRONTAB" not in parsed.crontab:
        parsed.parser.error("--system and --prune are for --crontab")
    if parsed.crontab and options.pop("DRY_RUN", None):
        parsed.crontab["DRY_RUN"] = True
    if parsed.crontab.get("SYSTEM", "yes") not in ("yes", "no"):
        parsed.parser.error("--system takes yes or no")
    request = [render_option(name, None if value is True else value)
               for name, value in options.items()]
    request += [render_option(*match.groups()) for match in raw]
    request += ["%s=%s" % (match.group(1), quote(as_typed(match.group(2))))
                for match in map(is_variable, others) if match]
    return parsed, arguments, request


def with_dashes(word):
    """A word of the command line; an option written with _, as fields of definitions are,
    as it is offered."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if re.fullmatch("--[a-z_-]+", name) else word


def join_distances(words):
    """Words of the command line, a distance such as -1h behind an option joined to that."""
    joined = []
    for word in words:
        is_distance = re.fullmatch(r"-[0-9.]+[smhd]", word.lower())
        if is_distance and joined and re.fullmatch("--[a-z-]+", joined[-1]):
            joined[-1] += "=" + word
        else:
            joined.append(word)
    return joined


def check_arguments(parser, form, arguments):
    """Whether there are too few or too many of them; `form` is their names,
    [] for what may be left out."""
    required = [name for name in form if not name.startswith("[")]
    if len(arguments) < len(required):
        parser.error("%s is missing" % required[len(arguments)])
    if len(arguments) > len(form) and not any(name.strip("]").endswith("...") for name in form):
        name, equals, _ = arguments[len(form)].partition("=")
        hint = "; a rule stands in quotes: \"daily at 02:00\"" if "[RULE]" in form else ""
        parser.error("%s is one too many%s" % (ascii(name + (equals and "=...")), hint))


# ======================================================================================
# client/place.py
# Where the agent is: its port or UNIX socket, by TLS or not.
# ======================================================================================

CONNECT_S = 10


def open_socket(options):
    """(A socket that is connected to the agent of these options, what to call that place).
    ClientError."""
    place = options.unix or "%s:%d" % (options.host, options.port)
    context = make_context(options)
    try:
        if options.unix:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(CONNECT_S)
            connection.connect(options.unix)
        else:
            connection = socket.create_connection((options.host, options.port), CONNECT_S)
    except (OSError, ValueError) as error:              # a name that is none is a ValueError
        hint = "; does the agent run? another port is --port or AGENT_PORT" \
            if isinstance(error, ConnectionRefusedError) and not options.unix else ""
        raise ClientError(NO_CONNECTION, "cannot connect to %s: %s%s" % (place, reason_of(error),
                                                                         hint))
    if context is not None:
        try:
            connection = context.wrap_socket(connection, server_hostname=options.host)
        except (OSError, ValueError) as error:          # CertificateError was one before 3.7
            connection.close()
            raise ClientError(NO_CONNECTION, "cannot connect to %s by TLS: %s"
                              % (place, _tell_tls(error)))
    return connection, place


def make_context(options):
    """What verifies the agent by TLS, of module ssl; None: no TLS is wanted. ClientError."""
    if not (options.tls or options.tls_ca or options.tls_cert):
        return None
    if options.unix:
        raise ClientError(USAGE, "--unix goes without --tls: nobody else reads there")
    try:
        import ssl
    except ImportError:
        raise ClientError(USAGE, "--tls: this Python has no TLS (no module ssl)")
    path = options.tls_ca
    try:
        context = ssl.create_default_context(cafile=path)
        if options.tls_cert:
            path = options.tls_cert
            context.load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:                            # SSLError is one
        raise ClientError(USAGE, "%s: %s" % (path, reason_of(error)))
    return context


def _tell_tls(error):
    """Why TLS has failed, and what to do."""
    reason = getattr(error, "verify_message", None)
    if getattr(error, "reason", None) == "CERTIFICATE_VERIFY_FAILED":
        return ("its certificate is not valid here: %s (--tls-ca FILE names the authority that has "
                "signed it)" % (reason or reason_of(error)))
    if getattr(error, "reason", None) in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "what answers there speaks no TLS"
    return reason_of(error)


# ======================================================================================
# client/connection.py
# One connection to an agent, and a reply as it comes.
# ======================================================================================

class Connection:
    """One connection to an agent. Raises ClientError when there is none, or when it is lost."""

    def __init__(self, options):
        self._socket, self.place = open_socket(options)
        self._file = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends it."""
        self._file.close()
        self._socket.close()

    def ask(self, request, limit_s=None, is_lenient=False):
        """Sends a request -> Reply. The agent may be silent for `limit_s` seconds; None: for ever.
        `is_lenient`: a repository that cannot be read is told in `trouble` of the Reply, not
        raised, for what is known of the others counts all the same."""
        self._socket.settimeout(limit_s)
        try:
            self._socket.sendall(request.encode() + b"\n")
        except OSError:
            pass        # what refuses a request before its end has said why: that is read now
        return Reply(self, is_lenient)

    def read_line(self):
        """The next line without its end."""
        try:
            line = self._file.readline()
        except OSError as error:
            raise ClientError(NO_CONNECTION, "lost the agent at %s: %s"
                              % (self.place, reason_of(error)))
        if not line.endswith(b"\n"):
            raise ClientError(NO_CONNECTION, "lost the agent at %s before its reply was complete"
                              % self.place)
        return line.decode("utf-8", "replace").rstrip("\r\n")


class Reply:
    """Iterates over the data lines of one reply as they come; `fields` are those of its OK, and
    `count` says how many lines there were, afterwards; so does `trouble` what was not read.

    Raises ClientError for an ERR and for what no agent says.
    """

    def __init__(self, connection, is_lenient=False):
        self._connection, self._is_lenient = connection, is_lenient
        self.fields, self.count, self.trouble = {}, 0, None

    def __iter__(self):
        while True:
            line = self._connection.read_line()
            first, _, rest = line.partition(" ")
            if first == "*":
                self.count += 1
                yield rest
            elif first == "OK":
                self.fields = json.loads(rest) if rest.startswith("{") else parse_fields(rest)
                return
            elif first == "ERR":
                code, _, message = as_text(line)[len("ERR "):].partition(" ")
                error = ClientError(WAITED_OUT if code == "TIMEOUT" else REFUSED,
                                    "ERR %s %s" % (code, spell(message)))
                if self._is_lenient and code == "REPOSITORY":
                    self.trouble = error
                    return
                raise error
            else:
                raise ClientError(NO_CONNECTION, "what answers at %s is no agent"
                                  % self._connection.place)


def as_text(line):
    """An ERR line, that of a request with -JSON as without."""
    code, _, rest = line[4:].partition(" ")
    if not rest.startswith("{"):
        return line
    fields = json.loads(rest)
    session = "session=%d " % fields["session"] if "session" in fields else ""
    return "ERR %s %s%s" % (code, session, fields["message"])


# ======================================================================================
# client/login.py
# Who the client says that it is: a user's password, from a file or the terminal alone.
# ======================================================================================

MAX_PASSWORD_FILE = 4096        # bytes of it that are read


def connect(options, kind=Connection):
    """A connection of this kind to the agent, as the user whom the options name. Raises
    ClientError."""
    options = complete_place(options)
    if options.user is None:
        return kind(options)
    # before: the agent does not wait long for one whom it does not know
    password = get_password(options.password_file, "password of %s: " % ascii(options.user)[1:-1])
    connection = kind(options)
    try:
        reply = connection.ask("AUTH %s %s" % (quote(as_typed(options.user)),
                                               quote(as_typed(password))))
        list(reply)
    except ClientError:
        connection.close()
        raise
    if "note" in reply.fields and options.command.name != "users password":
        complain(spell(reply.fields["note"]))
    return connection


@functools.lru_cache(maxsize=None)
def get_password(path, prompt):
    """The first line of a file that nobody else can read, or without a path what is typed at the
    terminal, once for all connections. Raises ClientError."""
    return read_password(path) if path is not None else ask_password(prompt)


def ask_new_password(path, name):
    """The new password of a user, typed twice where it does not come from a file. Raises
    ClientError."""
    prompt = "new password of %s: " % ascii(name)[1:-1]
    password = get_password(path, prompt)
    if path is None and password != get_password(None, "the same again: "):
        raise ClientError(USAGE, "these were two passwords; nothing was changed")
    return password


def read_password(path):
    """The first line of a file. Raises ClientError when others may read it too."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ClientError(USAGE, "others can read %s, or change it: chmod 600 makes it "
                                  "yours alone" % ascii(path))
            if status.st_uid not in (os.geteuid(), 0):
                raise ClientError(USAGE, "%s belongs to another user" % ascii(path))
            line = file.readline(MAX_PASSWORD_FILE)
        password = line.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ClientError(USAGE, "cannot read %s: %s" % (ascii(path), reason_of(error)))
    except UnicodeDecodeError:
        raise ClientError(USAGE, "%s is not UTF-8" % ascii(path))
    if not password:
        raise ClientError(USAGE, "the first line of %s is empty: no password" % ascii(path))
    return password


def ask_password(prompt):
    """What is typed at the terminal, which does not show it. Raises ClientError where there is
    none."""
    try:
        if not has_terminal():          # it would be shown
            raise EOFError
        return getpass.getpass(prompt)
    except (EOFError, OSError):
        raise ClientError(USAGE, "there is no terminal to ask for the password; --password-file "
                          "FILE reads it (--new-password-file a new one)")


def has_terminal():
    """Whether there is one at which getpass asks."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        return True
    except OSError:
        return sys.stdin is not None and sys.stdin.isatty()


# ======================================================================================
# client/completion.py
# completion: what may stand next on the command line, for bash and zsh.
# ======================================================================================

SHELLS = {"bash": r"""_agentcli() {
    local IFS=$'\n'
    COMPREPLY=($("${COMP_WORDS[0]/#\~/$HOME}" completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" \
        2>/dev/null))
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _agentcli PROGRAM
""", "zsh": r"""#compdef PROGRAM
_agentcli() {
    local -a found
    found=("${(@f)$("${words[1]}" completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ ${#found} == 1 && ${found[1]} == *= ]]; then compadd -S '' -a found
    elif [[ -n ${found[1]} ]]; then compadd -a found; else _files; fi
}
compdef _agentcli PROGRAM
"""}
QUICK_S = 1.0           # how long an agent may take to name what it has
# argument, or value of an option -> (request, field of its rows)
ASKED_NAMES = {"SCENARIO": ("SCENARIOS -JSON", "scenario"), "SESSION": ("SESSIONS -LIMIT=20 -JSON",
                                                                       "session"),
               "SCHEDULE": ("SCHED LIST -JSON", "name"), "CONTEXT": ("CONTEXTS -JSON", "context"),
               "REPO": ("REPOS -JSON", "repository"), "VERSION": ("SCENARIOS -JSON", "version"),
               "CALENDAR": ("CALENDAR LIST -JSON", "calendar"), "PARENT": (
                   "SESSIONS -LIMIT=20 -JSON", "session"),
               "NOTICE": ("NOTICE LIST -JSON", "name")}
# command -> of what its NAME is the name
NAMES_OF = {"sched": "SCHEDULE", "calendar": "CALENDAR", "detach": "REPO", "notice": "NOTICE"}


def print_completion(options, arguments, words):
    """completion bash|zsh prints a script; that asks for `completion words -- WORD...`, which may
    stand in place of the last -> exit status. Raises ClientError, OSError of stdout."""
    kind = arguments[0]
    if kind in SHELLS and len(arguments) == 1:
        program = os.path.basename(sys.argv[0] or "agentcli.py")
        put_safe(SHELLS[kind].replace("PROGRAM", program).rstrip("\n"))
    elif kind == "words":
        for word in list_completions(options, arguments[1:] or [""]):
            put_safe(word)
    else:
        raise ClientError(USAGE, "completion takes bash or zsh")
    return WELL


def list_completions(options, words):
    """What may stand in place of the last of some words, which begins so: [word]."""
    *before, current = words
    options = with_place(options, before)
    commands = {command.name: command for command in options.commands}
    plain, previous = drop_options(before, commands)
    name = next((name for name in (" ".join(plain[:2]), plain[0] if plain else "")
                 if name in commands), None)
    if name is None:
        group = " ".join(plain) + " " * bool(plain)
        found_names = {each[len(group):].split()[0] for each in commands if each.startswith(group)}
        candidates = sorted(found_names) + list(list_common()) * (not plain)
    elif previous:
        candidates = list_values(options, commands[name], previous)
    elif current.startswith("-"):
        candidates = [choice.offered for choice in commands[name].options] + list(list_common())
    else:
        candidates = list_arguments(options, commands[name], plain[len(name.split()):])
    return [word for word in candidates if word.startswith(current)]


def with_place(options, words):
    """The options, with the agent that some words of a command line name."""
    parser = Parser(add_help=False, allow_abbrev=False)
    add_common(parser)
    try:
        places, _ = parser.parse_known_args(words)
    except SystemExit:                  # of a value that is none
        return options
    return argparse.Namespace(**dict(vars(options), **vars(places)))


def list_common():
    """The options that every command has: {name: its value as it is shown, nothing for a flag}."""
    parser = Parser(add_help=False)
    add_common(parser)
    return {action.option_strings[0]: action.metavar or "" for action in parser._actions}


def drop_options(words, commands):
    """Words without options and their values -> (the others, the option that waits for its value
    or None)."""
    takes = list_common()
    for command in commands.values():
        for choice in command.options:
            takes[choice.offered] = takes.get(choice.offered) or choice.shown
    plain, waiting = [], None
    for word in words:
        if waiting is not None:
            waiting = None
        elif takes.get(word):
            waiting = word
        elif not word.startswith("-"):
            plain.append(word)
    return plain, waiting


def list_values(options, command, offered):
    """What an option of a command may have as its value: [text]."""
    for choice in command.options:
        if choice.offered == offered:
            if choice.name == "STATUS":
                return list(STATES)
            return (ask_names(options, choice.name)
                    or choice.shown.split("|") * ("|" in choice.shown))
    return []


def list_arguments(options, command, before):
    """What an argument of a command may be, behind some others: [text]."""
    names = re.findall(r"[A-Z]+", re.sub(r"\[?VARIABLE=.*?(\]|$)", "", command.arguments))
    candidates = []
    if len(before) < len(names):
        name = names[len(before)]
        candidates = ask_names(options, NAMES_OF.get(command.name.split()[0], name)
                               if name == "NAME" else name)
        if name == "VERSION":           # of the scenario before it
            candidates = [row["version"] for row in ask_quickly(options, "SCENARIOS -JSON")
                          if row["scenario"] == before[-1]]
    if "VARIABLE=" in command.arguments and before and names[:1] == ["SCENARIO"]:
        candidates += [name + "=" for row in ask_quickly(options, "SCENARIOS -JSON")
                       if row["scenario"] == before[0]
                       for name in row["variables"].split(",") if name]
    if command.name == "completion":
        candidates = sorted(SHELLS)
    return sorted(set(candidates))


def ask_names(options, kind):
    """What the agent has of a kind: [text]; nothing where no agent answers soon."""
    if kind not in ASKED_NAMES:
        return []
    request, field = ASKED_NAMES[kind]
    return sorted({str(row[field]) for row in ask_quickly(options, request)})


def ask_quickly(options, request):
    """The JSON objects of a reply; nothing where no agent answers soon, or a password would have to
    be typed."""
    try:
        options = complete_place(options)
    except ClientError:
        return []
    if options.user is not None and options.password_file is None:
        return []

    def give_up(number, frame):
        raise ClientError(NO_CONNECTION, "no answer")
    before = signal.signal(signal.SIGALRM, give_up)     # a name server may be slow, too
    signal.setitimer(signal.ITIMER_REAL, QUICK_S)
    try:
        with connect(options) as connection:
            return [json.loads(line) for line in list(
                connection.ask(request, QUICK_S, is_lenient=True))]
    except (ClientError, ValueError):
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ======================================================================================
# client/mailto.py
# MAILTO of a crontab: notices by mail of what fails.
# ======================================================================================

NOTICE_PREFIX = "CRON.MAILTO."


def notice_prefix(keywords):
    """What the names of all notices of a crontab begin with, by the keywords of its schedules."""
    return NOTICE_PREFIX + keywords.replace(",", "-").replace(".", "_") + "."


def notice_name(keywords, value):
    """The name of the notice for a value of MAILTO; all but plain users are told apart by a mark.
    """
    name = re.sub("[^A-Za-z0-9_-]+", "_", value).strip("_")[:50]
    return notice_prefix(keywords) + (name if name == value else "%s-%06x" % (
        name, zlib.crc32(value.encode("utf-8", "replace")) & 0xffffff))


def list_addresses(value):
    """The addresses of a value of MAILTO."""
    return list(filter(None, re.split(r"[,\s]+", value)))


def list_notices(keywords, entries):
    """The notices of the entries of a crontab, as definitions: one for each value of MAILTO that
    names somebody, of the scenarios below it."""
    by_value = {}
    for entry in entries:
        value = entry.task["env"].get("MAILTO", "")
        if list_addresses(value):
            by_value.setdefault(value, []).append(entry.name)
    return [{"name": notice_name(keywords, value), "scenarios": sorted(set(names)),
             "send": {"type": "mail", "to": list_addresses(value)}}
            for value, names in sorted(by_value.items())]


# ======================================================================================
# client/crontab.py
# A crontab, and what becomes of its lines as scenarios and schedules; asks nobody.
# ======================================================================================

PREFIX = "CRON."            # of the names of all that comes from crontabs
# other words that begin with @ are cron's own
CRON_WORDS = {"@reboot": "boot", "@every_minute": "every 1m", "@every_second": "every 1s"}
# what a command is not named after: a guard with its arguments, and what only leads to the program
SEPARATORS = frozenset("; | & ( ) if then elif else fi while do done".split())
GUARDS = frozenset("test [ [[ cd command which type for . source export set umask sleep echo true "
                   ": exit".split())
LEADERS = frozenset("exec flock nice ionice nohup env time timeout chronic setsid run-parts sh "
                    "bash dash ksh zsh perl php python python2 python3 ruby".split())
MAX_STEM = 50               # characters of a command that are a name as they stand
_CRON_D = re.compile(".*/cron[.]d/([^/]+)")
# where cron keeps those of users
_OF_USER = re.compile("/var/(?:spool/)?cron/(?:crontabs/|tabs/)?([^/]+)")
# a - before an entry, as SUSE has it, only means: do not log
_ENTRY = re.compile(r"-?(@\S+|\S+(?:\s+\S+){4})\s+(.*)", re.ASCII)
_SETTING = re.compile(r"""(["']?)([^\s"'=]+)\1\s*=\s*(?:(["'])((?:(?!\3).)*)\3\s*|([^"'].*)?)""",
                      re.ASCII)
BLANKS = " \t\n\r\f\v"
_BEFORE_INPUT = re.compile(r"((?:\\.|[^%])*)%?(.*)")
_SHELL_WORD = re.compile(r"""[;|&()]|(?:"[^"]*"|'[^']*'|[^\s;|&()"'])+""")
# a command of plain words is its own name
_PLAIN_COMMAND = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]*(?: +[A-Za-z0-9_.-]+)*")
# a sixth field where a command is expected; a small word, such as mon, may be a program
_VALUE = "(?:[0-9]+|sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_SIXTH = re.compile("(?![a-z]+$)(?:[*?]|{0}(?:-{0})?)(?:/[0-9]+)?(?:[,#]{0}(?:-{0})?)*"
                    .format("(?i:%s)" % _VALUE))
_OF_ANACRON = re.compile(r"(?:@\S+|[0-9]+)\s+[0-9]+\s+[A-Za-z][\w.-]+\s+\S.*", re.ASCII)
# a comment that is an entry, or the heading above entries
_LIKE_ENTRY = re.compile(r"-?@[a-z]+\s|(?:[*0-9][-*/,0-9A-Za-z]*\s+){3}"
                         r"(?:[-*/,0-9A-Za-z#?]+\s+){2}\S|m\S*\s+h\S*\s+d\S*\s+m\S*\s+d")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_CONDITION = re.compile(r"(?:cd\s+\S+\s*(?:;|&&)\s*)?(?:\[\[?|test|command\s+-v|which|type|pgrep|"
                        r"grep\s+-\w*q\w*)\s")
_FLOCK = re.compile(r"\bflock\s+((?:-\S+\s+(?:[0-9.]+\s+)?)+)")
_NO_WAITING = re.compile(r"(?:^|\s)(?:-[a-z]*[nw]|--(?:nb|nonblock|timeout|wait)\b)")
_OTHER_CODE = re.compile(r"(?:^|\s)(?:-[a-z]*E|--conflict)")
# an option, redirection, number, assignment, text
_NO_PROGRAM = re.compile(r"[-<>]|\d+(?:[<>]|[smhd]?$)|\w+=|.*\s")


class Line(NamedTuple):
    """A line of a crontab."""
    number: int
    text: str


class Entry(NamedTuple):
    """What becomes of one that is carried over."""
    line: Line
    stem: str               # what its command is called; its name too, unless others have the same
    name: str
    description: str        # the comment above it
    task: dict
    timing: dict            # the schedule, without its names

    @property
    def scenario(self):
        """Its scenario, as a definition."""
        description = {"description": self.description} if self.description else {}
        return dict({"name": self.name, "version": "001"}, **dict(
            description, steps=[{"name": "main", "tasks": [self.task]}]))

    @property
    def schedule(self):
        """Its schedule, as a definition."""
        return dict({"name": self.name, "scenario": self.name}, **self.timing)

    @property
    def when(self):
        """(rule, zone): what tells it from another entry of the same command."""
        return self.timing["rule"], self.timing.get("timezone", "")


class Crontab:
    """What becomes of a crontab: `entries` are carried over, `notes` [(Line, reason)] say what is
    not, or not quite; of `left_out` lines nothing is carried over."""

    def __init__(self, name, user, home, owner, keywords):
        """`owner` is whose it is, None where every line names a user;
        only what is of `user` can be carried over. `keywords` are those of all its schedules."""
        self.name, self.keywords, self._user, self._owner = name, keywords, user, owner
        self.entries, self.notes, self.left_out = [], [], 0
        self._has_notices = True            # unless the agent takes none
        self._settings = {"SHELL": "/bin/sh", "HOME": home, "LOGNAME": user, "USER": user}
        self._comment = []

    def read(self, data):
        """Takes in the bytes of its file -> itself; lines that cannot be taken stand in `notes`."""
        for number, raw in enumerate(data.split(b"\n"), 1):
            text = raw.decode("utf-8-sig", "backslashreplace").lstrip(" \t").rstrip("\r")
            if text.startswith("#"):
                self._add_comment(text.strip("# \t").replace("\0", ""))
                continue
            if text:
                try:
                    self._take(Line(number, text), raw)
                except ValueError as error:
                    self.leave_out(Line(number, text), str(error))
            self._comment = []
        name_entries([self], {})
        return self

    def note(self, line, reason):
        """Notes what is to be said of a line."""
        self.notes.append((line, reason))

    def leave_out(self, line, reason):
        """Notes a line that is not carried over."""
        self.note(line, reason)
        self.left_out += 1

    def refuse(self, reasons):
        """Leaves out entries: {their place among them: reason}."""
        for place, reason in reasons.items():
            self.leave_out(self.entries[place].line, reason)
        self.entries = [entry for place, entry in enumerate(self.entries) if place not in reasons]

    def refuse_notices(self, reason):
        """MAILTO becomes nothing, for this reason."""
        self._has_notices = False
        self.notes = [(line, "no mail is sent: " + reason if line.text.startswith("MAILTO")
                       else text) for line, text in self.notes]

    def list_notices(self):
        """The notices that its MAILTO become, as definitions."""
        return list_notices(self.keywords, self.entries) if self._has_notices else []

    def rename(self, names):
        """Gives the entries other names, in their order; `names` is an iterator."""
        self.entries = [entry._replace(name=next(names)) for entry in self.entries]

    def find_user_field(self, is_user):
        """Where most entries of a user's crontab begin with a user, as those of a system's do: the
        first (Line, user), or None. `is_user`(word) knows the users."""
        with_user = [(line, word) for line, word in self.list_first_words()
                     if is_user(re.split("[:/]", word)[0])]
        is_most = self._owner is not None and 2 * len(with_user) > len(self.entries)
        return with_user[0] if is_most else None

    def list_first_words(self):
        """[(Line, word)]: what stands behind the time of entries, where more follows."""
        words = [(entry.line, _ENTRY.fullmatch(entry.line.text).group(2).split(None, 1))
                 for entry in self.entries]
        return [(line, rest[0]) for line, rest in words if len(rest) > 1]

    @property
    def search_path(self):
        """Where its commands are looked for, as the last setting has it, or None."""
        return self._settings.get("PATH")

    def document(self):
        """The definitions of what is carried over; a scenario and its schedule have the same
        place."""
        notices = self.list_notices()
        return dict({"scenarios": [entry.scenario for entry in self.entries],
                     "schedules": [entry.schedule for entry in self.entries]},
                    **({"notices": notices} if notices else {}))

    def _add_comment(self, text):
        if _LIKE_ENTRY.match(text):
            self._comment = []              # it is of another entry, or of none
        elif re.search(r"\w", text):
            self._comment.append(text)

    def _take(self, line, raw):
        if raw.decode("utf-8", "ignore").encode() != raw:
            raise ValueError("is not UTF-8")
        setting = _SETTING.fullmatch(line.text)
        if setting:
            self._set(line, setting.group(2),
                      setting.group(4) or (setting.group(5) or "").rstrip(BLANKS))
        else:
            self._add(line)

    def _set(self, line, name, value):
        """A setting holds for the entries below it."""
        if name == "RANDOM_DELAY" and not re.fullmatch("[0-9]{0,4}", value):
            raise ValueError("must be whole minutes")
        if name == "MAILTO" and list_addresses(value):
            self.note(line, "a mail is sent when a command fails, not when it prints (that is in "
                      "its session's log), by the notice " + notice_name(self.keywords, value))
        if name not in ("LOGNAME", "USER"):             # cron lets nobody change these
            self._settings[name] = value

    def _add(self, line):
        """Takes in an entry. ValueError says why it cannot be carried over."""
        if _OF_ANACRON.fullmatch(line.text):
            raise ValueError("is of an anacrontab: period, delay, name, command; write an entry of "
                             "cron, such as @monthly and the command")
        match = _ENTRY.fullmatch(line.text)
        when, rest = match.groups() if match else ("", "")
        check_first_word(rest)
        owner, text = ((re.split("[ \t]+", rest, maxsplit=1) + [""])[:2] if self._owner is None
                       else (self._owner, rest))
        command, data = split_input(text)
        if not command.strip():
            raise ValueError("is no entry: five fields or an @ word, %sa command"
                             % ("a user, " if self._owner is None else ""))
        if owner != self._user:
            raise ValueError("is of user %s, and the agent does not change users" % owner)
        check_first_word(command)
        stem = PREFIX + stem_of(command.strip(), data)
        self.entries.append(Entry(line, stem, stem, "\n".join(self._comment),
                                  self._task(command, data), self._schedule(when)))
        for reason in list_false_failures(command):
            self.note(line, reason)

    def _task(self, command, data):
        shell = self._settings["SHELL"]
        task = {"type": "os",
                "command": (quote_literal(command) if shell == "/bin/sh"
                            else [quote_literal(word) for word in (shell, "-c", command)]),
                "cwd": quote_literal(self._settings["HOME"]),
                "env": {name: quote_literal(value) for name, value in self._settings.items()}}
        return dict(task, stdin=quote_literal(data)) if data else task

    def _schedule(self, when):
        """As cron does: an entry waits for nothing, and what was missed is gone."""
        # FreeBSD: counted from the end of the one before
        seconds = re.fullmatch("@([0-9]+)", when)
        schedule = {"version": "001",
                    "rule": "every %ss" % seconds.group(1) if seconds else cron_rule(when),
                    "keywords": self.keywords, "overlap": "skip" if seconds else "parallel"}
        if when != "@reboot":
            schedule["misfire"] = "skip"
        if self._settings.get("CRON_TZ"):
            schedule["timezone"] = self._settings["CRON_TZ"]
        if self._settings.get("RANDOM_DELAY") and when != "@reboot":
            schedule["jitter"] = 60 * int(self._settings["RANDOM_DELAY"])
        return schedule


def name_entries(crontabs, schedules):
    """Names the entries of crontabs that are imported together. `schedules` are those that
    the agent has: {name: (rule, zone)}.

    A name is that of the command, which nothing around it changes. Among entries of one command
    each keeps the name that its time has in the agent; then the first has the plain name, and
    others get a mark of their time.
    """
    entries = [entry for crontab in crontabs for entry in crontab.entries]
    names, used, numbers = [None] * len(entries), set(), {}

    def give(place, name):
        names[place] = name
        used.add(name)
    for place, entry in enumerate(entries):
        for name in (entry.stem, mark(entry.stem, *entry.when)):
            if names[place] is None and schedules.get(name) == entry.when and name not in used:
                give(place, name)
    for place, entry in enumerate(entries):
        if names[place] is None:
            name = entry.stem if entry.stem not in used else mark(entry.stem, *entry.when)
            plain = name
            while name in used:             # the same line twice
                numbers[plain] = numbers.get(plain, 1) + 1
                name = "%s-%d" % (plain, numbers[plain])
            give(place, name)
    names = iter(names)
    for crontab in crontabs:
        crontab.rename(names)


def make_crontab(path, is_system, user, home):
    """The Crontab for a path that is not read yet; `is_system` None: as the path tells.

    A user has one crontab, whatever the file is called, and so has a system, but that each file of
    a cron.d is one of its own: by these keywords its schedules are found again.
    """
    path = os.path.abspath(path) if path != "-" else ""
    of_user, in_cron_d = _OF_USER.fullmatch(path), _CRON_D.fullmatch(path)
    if is_system is None:
        is_system = path == "/etc/crontab" or in_cron_d is not None
    owner = None if is_system else of_user.group(1) if of_user else user
    keywords = ["cron"] + ["system"] * is_system
    if is_system and in_cron_d:
        keywords.append(to_name(in_cron_d.group(1)))
    return Crontab(to_name(path) or "standard input", user, home, owner, ",".join(keywords))


def cron_rule(when):
    """Five fields, or an @ word, of cron as a rule of the agent, which checks it.
    Raises ValueError."""
    if "~" in when:
        raise ValueError("a random time (~) cannot be carried over")
    return CRON_WORDS.get(when) or "cron " + " ".join(when.split())


def check_first_word(command):
    """Whether a command begins as one does. Raises ValueError."""
    word = command.split(None, 1)[0] if command.strip() else ""
    if _SIXTH.fullmatch(word):
        raise ValueError("has a sixth field, %s, before its command; cron has five" % word)
    if re.match(r"[*]|-[nqs]+\s", command):
        raise ValueError("has a sixth field, or options, before its command")


def list_false_failures(command):
    """[what is to be said] of a command whose exit code is not 0 where nothing has failed."""
    bare = _QUOTED.sub("Q", command)
    flock, reasons = _FLOCK.search(bare), []
    if flock and _NO_WAITING.search(flock.group(1)) and not _OTHER_CODE.search(flock.group(1)):
        reasons.append("while another has its lock, its session ends in ERROR; with flock -E 0 it "
                       "ends well")
    is_whole = ";" not in re.sub(r"\bif\b.*\bfi\b", "", bare)     # else something behind decides
    if _CONDITION.match(bare) and "&&" in bare and "||" not in bare and is_whole:
        reasons.append("where its condition is not met, its session ends in ERROR; as 'if "
                       "condition; then command; fi' it ends well")
    return reasons


def split_input(text):
    """A command of cron -> (command, its standard input): behind the first % stands input, and each
    further % is a new line; \\% is a %."""
    command, data = _BEFORE_INPUT.fullmatch(text).groups()
    data = re.sub(r"\\?%", lambda match: "\n" if match.group() == "%" else "%", data)
    return command.replace("\\%", "%"), data + "\n" * (data[-1:] not in ("", "\n"))


def quote_literal(text):
    """A text that the agent takes for nothing but this text."""
    return text.replace("${", "$${")


def stem_of(command, data):
    """What a command is called: plain words as they stand; any other is called after its program,
    with a mark of the command and its standard input."""
    if _PLAIN_COMMAND.fullmatch(command) and len(command) <= MAX_STEM and not data:
        return "_".join(command.split())
    return mark(program_of(command), command, data)


def mark(name, *texts):
    """A name with six digits that follow from some texts."""
    return "%s-%06x" % (name, zlib.crc32("\0".join(texts).encode()) & 0xffffff)


def program_of(command):
    """What a command goes by: `test -x /opt/a || nice /opt/b.sh 1` -> b.sh."""
    is_guard, is_lock, names = False, False, []
    for word in _SHELL_WORD.findall(re.sub(r"\$\([^()]*\)|`[^`]*`", "", command)):
        bare = word.replace('"', "").replace("'", "")
        if word in SEPARATORS:
            is_guard = False
        elif is_lock and not _NO_PROGRAM.match(bare):
            is_lock = False                 # the file that flock locks
        elif not is_guard and not _NO_PROGRAM.match(bare):
            names.append(to_name(bare))
            is_guard = bool(GUARDS.intersection((bare, names[-1])))
            is_lock = names[-1] == "flock"
            if names[-1] and not is_guard and names[-1] not in LEADERS:
                return names[-1]
    return next(filter(None, names), "command")


def to_name(path):
    """The last part of a path as (part of) a name of the agent's, or nothing."""
    return re.sub("[^A-Za-z0-9_.-]+", "_", path.rpartition("/")[2]).strip("_.-")[:50]


# ======================================================================================
# client/findings.py
# What a report is made of: what an agent says of the sessions and due times of a period.
# ======================================================================================

MOST_SESSIONS = 200000      # of a period; the newest
MOST_LISTED = 1000000       # rows that an agent gives
MOST_FAILURES = 40          # kinds of failures whose logs are shown
MOST_LOG_LINES = 14
EARLIER_S = 86400.0         # what was acknowledged so long before the period may have run in it
LONG_EARLIER_S = 30 * EARLIER_S         # what ended badly, likewise
ENDED_BADLY_STATES = ("ERROR", "STOPPED", "WARNING")        # the worst first
OPEN_STATES = ("RUNNING", "QUEUED", "WAITING")


class Period(NamedTuple):
    """Which time a report is about, in epoch seconds; `now` is when it was asked for."""
    begin: float
    end: float
    now: float


class Past(NamedTuple):
    """One session: it began, ran and ended; `begun` is when it ended where it never began."""
    number: int
    scenario: str
    status: str
    begun: float
    ended: float            # None: it has not
    took_s: float           # None: it never began
    message: str


class Failure(NamedTuple):
    """Sessions of a scenario that ended alike, newest first, and how the log of the newest ends."""
    scenario: str
    status: str
    message: str
    sessions: list          # [Past]
    log: list               # [{"time", "step", "task", "stream", "text"}]


class Omission(NamedTuple):
    """Due times of a schedule that made no session, for one reason."""
    schedule: str
    decision: str
    reason: str
    message: str            # of the newest
    count: int
    first: float
    last: float


class Findings(NamedTuple):
    """All of it."""
    ping: dict
    period: Period
    sessions: list          # [Past], oldest first
    outstanding: list       # rows of sessions that have not ended, oldest first
    failures: list          # [Failure], the worst and newest first
    further_failures: int   # kinds that are not among them
    omissions: list         # [Omission], by schedule
    late: int               # due times that ran late
    schedules: list         # rows of SCHED LIST
    is_cut: bool            # there were more sessions than are here
    troubles: list          # [text]: repositories that could not be read


class Asker:
    """Asks an agent for rows; repositories that cannot be read are noted in `troubles`."""

    def __init__(self, connection):
        self._connection, self.troubles = connection, {}

    def list_rows(self, request):
        """Yields the JSON objects of a reply as they come. Raises ClientError."""
        reply = self._connection.ask(request + " -JSON", is_lenient=True)
        for line in reply:
            yield json.loads(line)
        if reply.trouble is not None:
            self.troubles[str(reply.trouble)] = reply.trouble

    def ping(self):
        """How the agent is. Raises ClientError."""
        reply = self._connection.ask("PING -JSON")
        list(reply)
        return reply.fields


def find_out(asker, period):
    """The Findings of a Period. Raises ClientError."""
    ping = asker.ping()
    sessions, is_cut = list_sessions(asker, period)
    failures = group_failures(sessions)
    omissions, late = list_omissions(asker, period)
    outstanding = list(asker.list_rows("SESSIONS -STATUS=%s -LIMIT=1000" % ",".join(OPEN_STATES)))
    schedules = list(asker.list_rows("SCHED LIST"))
    shown = [failure._replace(log=read_log_end(asker, failure.sessions[0].number))
             for failure in failures[:MOST_FAILURES]]
    return Findings(ping, period, sessions, outstanding[::-1], shown,
                    len(failures[MOST_FAILURES:]), omissions, late, schedules, is_cut,
                    list(asker.troubles))


def list_sessions(asker, period):
    """The sessions that ran or ended in a period: ([Past], whether there were more). What was
    acknowledged before it is found, too, where it is a day old at most, has ended badly or not at
    all."""
    sessions, is_cut = {}, False
    for options in ("-SINCE=%s" % to_text(period.begin - EARLIER_S), "-STATUS=RUNNING",
                    "-STATUS=%s -SINCE=%s" % (",".join(ENDED_BADLY_STATES),
                                              to_text(period.begin - LONG_EARLIER_S))):
        for row in asker.list_rows("SESSIONS %s -LIMIT=%d" % (options, MOST_LISTED)):
            past = make_past(row)
            if past is None or past.begun > period.end or (
                    past.ended is not None and past.ended < period.begin):
                continue
            is_cut = is_cut or len(sessions) == MOST_SESSIONS
            if not is_cut:
                sessions[past.number] = past
    return sorted(sessions.values(), key=lambda past: (past.begun, past.number)), is_cut


def make_past(row):
    """The Past of a row of SESSIONS; None: it has not begun."""
    begun, ended = find_instant(row["begun"]), find_instant(row["ended"])
    if begun is None and ended is None:
        return None
    return Past(row["session"], row["scenario"], row["status"], ended if begun is None else begun,
                ended, None if begun is None else row["duration"], row["message"])


def group_failures(sessions):
    """What ended badly, those that ended alike together: [Failure] without logs."""
    groups = {}
    for past in sessions:
        if past.status in ENDED_BADLY_STATES:
            groups.setdefault((past.scenario, past.status, past.message), []).append(past)
    failures = [Failure(*key, sessions=group[::-1], log=[]) for key, group in groups.items()]
    return sorted(failures, key=lambda failure: (ENDED_BADLY_STATES.index(failure.status),
                                                 -failure.sessions[0].begun))


def read_log_end(asker, number):
    """The last lines of the log of a session; none where it is gone. Raises ClientError."""
    try:
        return list(asker.list_rows("LOG %d -TAIL=%d" % (number, MOST_LOG_LINES)))
    except ClientError as error:
        if error.status != REFUSED:
            raise
        return []


def list_omissions(asker, period):
    """What did not run in a period: ([Omission], how many due times ran late)."""
    groups, late = {}, 0
    for row in asker.list_rows("SCHED WHY -SINCE=%s -LIMIT=%d"
                         % (to_text(period.begin), MOST_LISTED)):
        due = find_instant(row["due"])
        if due is None or due > period.end:
            continue
        late += row["decision"] == "late"
        if row["decision"] in ("skipped", "failed"):
            key = (row["schedule"], row.get("repository"), row["decision"], row["reason"])
            last = find_instant(row["last_due"]) or due
            newer = groups.get(key) or Omission(row["schedule"], row["decision"], row["reason"],
                                                row["message"], 0, due, last)
            groups[key] = newer._replace(count=newer.count + (row["count"] or 1),
                                         first=min(due, newer.first), last=max(last, newer.last))
    return sorted(groups.values(), key=lambda omission: (omission.schedule, omission.first)), late


# ======================================================================================
# client/markup.py
# HTML and SVG that are put together from parts: what is not markup is escaped.
# ======================================================================================

class Markup(str):
    """A text that is HTML as it stands."""


def to_markup(part):
    """A part of a document: a text, a number or Markup, as Markup. What is hidden in a text is
    shown."""
    return part if isinstance(part, Markup) else Markup(html.escape(printable(part)))


def tag(element, *parts, **attributes):
    """An element with its contents. Attributes are written with _ for -, and class_ for class; one
    that is None is left out."""
    words = [element] + ['%s="%s"' % (name.rstrip("_").replace("_", "-"), to_markup(value))
                         for name, value in attributes.items() if value is not None]
    return Markup("<%s>%s</%s>" % (" ".join(words), "".join(map(to_markup, parts)), element))


def make_rows_table(caption, headings, rows):
    """A table whose columns have headings, {heading: its class}; the first cell of a row names
    it, and a column that is empty throughout is left out. Roles are said, since a narrow screen
    shows a row as a block."""
    used = [place for place in range(len(headings)) if any(cells[place] for cells in rows)]
    names, kinds = ([values[place] for place in used]
                    for values in (list(headings), list(headings.values())))
    head = tag("tr", *(tag("th", name, scope="col", class_=kind, role="columnheader")
                       for name, kind in zip(names, kinds)), role="row")
    body = []
    for cells in rows:
        first, *others = [cells[place] for place in used]
        body.append(tag("tr", tag("th", first, scope="row", class_=kinds[0], role="rowheader"), *(
            tag("td", cell, class_=kind, role="cell", data_label=name)
            for cell, name, kind in zip(others, names[1:], kinds[1:])), role="row"))
    return tag("div", tag("table", tag("caption", caption), tag("thead", head, role="rowgroup"),
                          tag("tbody", *body, role="rowgroup"), role="table"),
               class_="wide", role="region", aria_label=caption, tabindex="0")


# ======================================================================================
# client/marks.py
# The pictures of a report: sessions along a time axis, and how long they took.
# ======================================================================================

WIDE = 1000                 # units of a picture's width, whatever the screen makes of them
LEAST_WIDTH = 2.0           # of a mark, so that it is seen
ROW = 18                    # units of height of a row of sessions
MOST_ROWS = 5               # that sessions of a scenario at the same time take
MOST_MARKS = 150            # of a scenario, one a session; more sessions are drawn by columns
COLUMN = 2.5                # width of one of those
MOST_TICKS = 9
CHART = 64                  # height of a picture of durations
MOST_POINTS = 200           # of such a picture; of more, the longest of each column
# state -> share of a row's height: what is worse is taller, too
HEIGHTS = {"DONE": 0.4, "RUNNING": 0.4, "WARNING": 0.66, "STOPPED": 1.0, "ERROR": 1.0}
WORST_FIRST = ("ERROR", "STOPPED", "WARNING", "RUNNING", "DONE")
STEPS_S = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
STEPS_D = (1, 2, 7, 14, 30, 90, 365)


class Axis(NamedTuple):
    """The time that a picture shows, in epoch seconds."""
    begin: float
    end: float

    def place(self, instant):
        """Where an instant stands, 0 to WIDE."""
        share = (instant - self.begin) / max(1.0, self.end - self.begin)
        return WIDE * min(1.0, max(0.0, share))

    def list_ticks(self):
        """[(instant, label)]: round local times, some five to nine of them."""
        length_s = max(1.0, self.end - self.begin)
        step_s = next((step for step in STEPS_S if length_s / step <= MOST_TICKS), None)
        year, month, day = time.localtime(self.begin)[:3]
        if step_s is None:
            step_d = next((step for step in STEPS_D if length_s / 86400 / step <= MOST_TICKS),
                          STEPS_D[-1])
            instants = (time.mktime((year, month, day + number * step_d, 0, 0, 0, 0, 0, -1))
                        for number in range(int(length_s / 86400 / step_d) + 2))
        else:
            midnight = time.mktime((year, month, day, 0, 0, 0, 0, 0, -1))
            instants = (midnight + number * step_s for number in range(
                int((self.begin - midnight) / step_s), int((self.end - midnight) / step_s) + 1))
        is_long = length_s > 300 * 86400
        return [(instant, show_year(instant) if is_long else show_tick(instant))
                for instant in instants
                if self.begin <= instant <= self.end]


def show_year(instant):
    """A day of a picture that shows years."""
    return time.strftime("%d %b %Y", time.localtime(instant))


def show_tick(instant):
    """A round time in a few characters; midnight is its day."""
    local = time.localtime(instant)
    if local[3:6] == (0, 0, 0):
        return time.strftime("%a %d %b", local)
    return time.strftime("%H:%M:%S" if local[5] else "%H:%M", local)


def show_moment(instant):
    """An instant with its day of the week."""
    return time.strftime("%a %d %b %H:%M:%S", time.localtime(instant))


def show_length(seconds):
    """A duration; less than a second in thousandths."""
    return "%d ms" % (1000 * seconds) if seconds < 0.95 else show_duration(seconds)


def make_picture(height, label, *parts, **attributes):
    """An SVG that is as wide as there is room."""
    return tag("svg", *parts, viewBox="0 0 %d %d" % (WIDE, height), preserveAspectRatio="none",
               style="height:%dpx" % height, role="img", aria_label=label, **attributes)


def make_ruler(axis):
    """The labels of the ticks, above or below the pictures; screen readers have them in each
    table."""
    labels = []
    for number, (instant, label) in enumerate(axis.list_ticks()):
        share = axis.place(instant) / WIDE
        kind = "tick%s%s%s" % (" even" * (number % 2), " first" * (share < 0.04),
                               " last" * (share > 0.96))
        labels.append(tag("span", label, style="left:%.2f%%" % (100 * share), class_=kind))
    return tag("div", *labels, class_="ruler", aria_hidden="true")


def make_grid(axis, height):
    """The lines of the ticks, as one path."""
    path = "".join("M%.1f 0V%d" % (axis.place(instant), height)
                   for instant, _ in axis.list_ticks())
    return tag("path", d=path, class_="grid") if path else Markup("")


def draw_lane(axis, scenario, sessions, links):
    """The sessions of a scenario, oldest first, as marks along the axis. `links`: {number of a
    session: the id of what says more of it}."""
    label = "%s: %s" % (scenario, tell_counts(sessions))
    if len(sessions) > MOST_MARKS:
        marks, rows = draw_columns(axis, sessions), 1
    else:
        marks, rows = draw_marks(axis, sessions, links)
    return make_picture(ROW * rows, label, make_grid(axis, ROW * rows), *marks)


def tell_counts(sessions):
    """How many sessions there are, and of those how many in which state but DONE."""
    states = [past.status for past in sessions]
    others = ["%s\u00a0%s" % (format(states.count(state), ","), state)
              for state in WORST_FIRST[:-1] if state in states]
    return ", ".join([tell_number(len(states), "session")] + others)


def tell_number(count, noun):
    """`1 session`, `1,200 sessions`."""
    return "%s %s%s" % (format(count, ","), noun, "s" * (count != 1))


def draw_marks(axis, sessions, links):
    """A mark for each session; those that overlap stand in rows -> ([Markup], rows)."""
    marks, ends = [], []
    for past in sessions:
        ended = axis.end if past.ended is None else past.ended
        row = next((row for row, end in enumerate(ends) if end <= past.begun), len(ends))
        if row == MOST_ROWS:
            row = ends.index(min(ends))
        ends[row:row + 1] = [ended]
        took = "" if past.took_s is None else ", " + show_length(past.took_s)
        title = "%d %s, %s%s%s" % (past.number, past.status, show_moment(past.begun), took,
                                   ": " + past.message if past.message else "")
        drawn = draw_mark(axis, past.begun, ended, past.status, title[:200], row)
        if past.number in links:
            drawn = tag("a", drawn, href="#" + links[past.number])
        marks.append(drawn)
    return marks, max(1, len(ends))


def draw_mark(axis, begun, ended, status, title, row=0):
    """What stands for sessions of a state, from one instant to another."""
    place = min(axis.place(begun), WIDE - LEAST_WIDTH)
    width = max(LEAST_WIDTH, axis.place(ended) - place)
    height = HEIGHTS.get(status, 0.4) * (ROW - 2)
    return tag("rect", tag("title", title), x="%.1f" % place, width="%.1f" % width,
               y="%.1f" % (row * ROW + (ROW - height) / 2), height="%.1f" % height,
               class_="mark " + status.lower())


def draw_columns(axis, sessions):
    """Many sessions: each column of the picture has the worst state that was in its time, and
    columns of one state are one mark -> [Markup]."""
    columns = int(WIDE / COLUMN)
    changes = {state: [0] * (columns + 1) for state in WORST_FIRST}
    for past in sessions:
        steps = changes.get(past.status, changes["DONE"])
        first = min(columns - 1, int(axis.place(past.begun) / COLUMN))
        last = columns - 1 if past.ended is None else min(
            columns - 1, int(axis.place(past.ended) / COLUMN))
        steps[first] += 1
        steps[last + 1] -= 1
    worst, running = [], dict.fromkeys(WORST_FIRST, 0)
    for column in range(columns):
        for state in WORST_FIRST:
            running[state] += changes[state][column]
        worst.append(next((state for state in WORST_FIRST if running[state]), None))
    marks, begin = [], 0
    for column in range(1, columns + 1):
        if column == columns or worst[column] != worst[begin]:
            if worst[begin]:
                first, last = (axis.begin + (axis.end - axis.begin) * place / columns
                               for place in (begin, column))
                marks.append(draw_mark(axis, first, last, worst[begin], "%s to %s: %s at worst" % (
                    show_moment(first), show_moment(last), worst[begin])))
            begin = column
    return marks


def draw_durations(axis, scenario, sessions):
    """How long the sessions of a scenario took, as points along the axis, with a line at what is
    usual."""
    timed = [past for past in sessions if past.took_s is not None and past.ended is not None]
    longest_s = max(past.took_s for past in timed) or 0.001
    usual_s = median([past.took_s for past in timed if past.status == "DONE"])
    points = {}
    for past in thin_out(axis, timed):
        points.setdefault(past.status, []).append("M%.1f %.1fh.1" % (
            axis.place(past.begun), CHART - 5 - (CHART - 10) * past.took_s / longest_s))
    paths = [tag("path", d="".join(points[state]), class_="points " + state.lower())
             for state in reversed(WORST_FIRST) if state in points]
    if usual_s is not None:
        height = CHART - 5 - (CHART - 10) * usual_s / longest_s
        paths.insert(0, tag("path", d="M0 %.1fH%d" % (height, WIDE), class_="usual"))
    label = "Durations of %s: %d sessions, longest %s%s" % (
        scenario, len(timed), show_length(longest_s),
        "" if usual_s is None else ", usually %s" % show_length(usual_s))
    return make_picture(CHART, label, make_grid(axis, CHART), *paths)


def thin_out(axis, sessions):
    """Of many sessions the longest of each column and state."""
    if len(sessions) <= MOST_POINTS:
        return sessions
    longest = {}
    for past in sessions:
        key = int(axis.place(past.begun) / WIDE * MOST_POINTS), past.status
        if key not in longest or longest[key].took_s < past.took_s:
            longest[key] = past
    return list(longest.values())


def find_quantile(values, share):
    """The value that a share of some sorted numbers does not exceed."""
    return values[min(len(values) - 1, int(share * len(values)))]


def make_legend():
    """What the marks mean."""
    words = {"done": "DONE", "warning": "WARNING", "error": "ERROR", "stopped": "STOPPED",
             "running": "RUNNING"}
    keys = [tag("li", tag("span", "", class_="key " + kind), word)
            for kind, word in words.items()]
    return tag("ul", *keys, class_="legend", aria_label="What the marks mean")


# ======================================================================================
# client/document.py
# The document of a report: its parts, in the order in which somebody who was called reads them.
# ======================================================================================

REPORT_CSS = r""":root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1d2125; --soft: #5c656e; --line: #e2e4e6; --grid: #e9ebec;
  --done: #5f9c8f; --warning: #c58a12; --error: #c23b30; --stopped: #8257b8; --running: #3f7fc1;
  --warning-ink: #855b00; --link: #2b62a3;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #15181b; --card: #1c2024; --ink: #e4e7ea; --soft: #9aa4ad; --line: #30363c; --grid: #282d32;
  --done: #5fa596; --warning: #d9a441; --error: #ee6a5f; --stopped: #ab86de; --running: #69a4e0;
  --warning-ink: #e0b35e; --link: #86b6ee;
} }
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 70rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: 1.6rem; line-height: 1.25; font-weight: 600; margin: 0; }
h2 { font-size: 1.15rem; font-weight: 600; margin: 2.8rem 0 .4rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 0; }
p { margin: .3rem 0; }
a { color: var(--link); }
.soft, caption, .facts, .type { color: var(--soft); }
.verdict { font-size: 1.1rem; margin: .7rem 0 0; }
.notice { border-left: 4px solid var(--warning); padding: .35rem .8rem; background: var(--card); margin: .8rem 0; }
nav { margin: 1rem 0 0; }
nav a { display: inline-block; margin-right: 1.1rem; padding: .2rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(6.5rem, 1fr)); gap: .6rem; margin: 1.2rem 0 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .55rem .8rem; }
.tiles dt { font-size: .78rem; color: var(--soft); letter-spacing: .02em; }
.tiles dd { margin: 0; font-size: 1.45rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tiles .error dd { color: var(--error); }
.tiles .warning dd { color: var(--warning-ink); }
.tiles .stopped dd { color: var(--stopped); }
.state { font-weight: 600; white-space: nowrap; }
.state.error, .state.failed { color: var(--error); }
.state.stopped { color: var(--stopped); }
.state.warning, .state.skipped { color: var(--warning-ink); }
.state.running { color: var(--running); }
svg { display: block; width: 100%; }
.mark.done, .key.done { fill: var(--done); background: var(--done); }
.mark.warning, .key.warning { fill: var(--warning); background: var(--warning); }
.mark.error, .key.error { fill: var(--error); background: var(--error); }
.mark.stopped, .key.stopped { fill: var(--stopped); background: var(--stopped); }
.mark.running, .key.running { fill: var(--running); background: var(--running); fill-opacity: .75; }
.grid { stroke: var(--grid); fill: none; vector-effect: non-scaling-stroke; }
.usual { stroke: var(--soft); fill: none; stroke-dasharray: 4 4; vector-effect: non-scaling-stroke; }
.points { fill: none; stroke-width: 5; stroke-linecap: round; vector-effect: non-scaling-stroke; }
.points.done { stroke: var(--done); }
.points.warning { stroke: var(--warning); }
.points.error { stroke: var(--error); }
.points.stopped { stroke: var(--stopped); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: .5rem 0; font-size: .85rem; color: var(--soft); }
.key { display: inline-block; width: 1.1em; margin-right: .4em; border-radius: 1px; vertical-align: middle; height: .4em; }
.key.warning { height: .65em; }
.key.error, .key.stopped { height: .95em; }
.lanes, .charts { margin: .6rem 0 0; }
.lane, .ruler-row { display: grid; grid-template-columns: 15rem 1fr; gap: 0 1rem; align-items: center; }
.lane { border-top: 1px solid var(--line); padding: .3rem 0; }
.who b { font-weight: 500; display: block; line-height: 1.3; }
.who span { font-size: .8rem; color: var(--soft); }
.ruler { position: relative; height: 1.4rem; font-size: .75rem; color: var(--soft); grid-column: 2; }
.tick { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.tick.first { transform: none; }
.tick.last { transform: translateX(-100%); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: .9rem; }
figure { margin: 0; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem .3rem; }
.chart figcaption { font-size: .8rem; color: var(--soft); margin-bottom: .4rem; }
.chart figcaption b { font-weight: 500; color: var(--ink); display: block; font-size: .9rem; }
.span { display: flex; justify-content: space-between; font-size: .72rem; color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; padding: .2rem 0 .5rem; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; font-weight: 400; border-top: 1px solid var(--line); }
thead th { font-size: .78rem; color: var(--soft); border-top: 0; white-space: nowrap; }
tbody th { font-weight: 500; min-width: 8rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.time { font-variant-numeric: tabular-nums; white-space: nowrap; }
.word { white-space: nowrap; }
.says { min-width: 12rem; }
.rule { min-width: 9rem; }
.wide + .wide { margin-top: 1.2rem; }
.failure { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--error); border-radius: 4px 8px 8px 4px; padding: .7rem 1rem; margin: .8rem 0; }
.failure.stopped { border-left-color: var(--stopped); }
.failure.warning { border-left-color: var(--warning); }
.failure:target { outline: 2px solid var(--running); }
pre, code { font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: .6rem 0 .4rem; padding: .6rem .8rem; background: var(--paper); border: 1px solid var(--line); border-radius: 6px; white-space: pre-wrap; }
pre .err { color: var(--error); }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .8rem; font-size: .85rem; color: var(--soft); }
@media (max-width: 44rem) {
  body { padding: 1.2rem 1rem 3rem; }
  h1 { font-size: 1.3rem; }
  .lane, .ruler-row { grid-template-columns: 1fr; }
  .ruler { grid-column: 1; }
  .who { display: flex; flex-wrap: wrap; gap: 0 .6rem; align-items: baseline; margin-bottom: .2rem; }
  .tick.even { display: none; }
  table, caption, tbody, tr, tbody th, td { display: block; width: auto; text-align: left; border: 0; padding: 0; min-width: 0; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr { border-top: 1px solid var(--line); padding: .5rem 0; }
  .number { text-align: left; }
  .time { white-space: normal; }
  td:empty { display: none; }
  td::before { content: attr(data-label) ": "; color: var(--soft); }
  .time br { display: none; }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #ffffff; --card: #ffffff; --ink: #000000; --soft: #444444; --line: #cccccc; --grid: #e4e4e4;
    --done: #5f9c8f; --warning: #c58a12; --error: #c23b30; --stopped: #8257b8; --running: #3f7fc1;
    --warning-ink: #6b4900; --link: #000000;
  }
  @page { margin: 14mm 12mm; }
  body { font-size: 9.5pt; padding: 0; max-width: none; }
  nav { display: none; }
  a { text-decoration: none; }
  p { break-inside: avoid; }
  .wide { overflow: visible; }
  thead { display: table-header-group; }
  tr, .lane, .chart, .failure, .tiles, .legend, pre { break-inside: avoid; }
  h2, h2 + p, h3, caption { break-after: avoid; }
  th, td { padding-right: .5rem; }
  tbody th { min-width: 10rem; }
  .mark, .key { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .lane, .ruler-row { grid-template-columns: 12rem 1fr; }
  .ruler { grid-column: 2; }
  .tiles { grid-template-columns: repeat(7, 1fr); }
  .tiles div { padding: .4rem .5rem; }
  .charts { display: block; }
  .chart { display: inline-block; width: 48%; margin: 0 1% .6rem 0; }
}
"""
# what of each part is shown; the rest is counted
MOST_LANES, MOST_CHARTS, MOST_ROWS_SHOWN, MOST_NUMBERS = 40, 36, 60, 6
MOST_TEXT = 400             # characters of a line of a log, or of a message
LEAST_POINTS = 2            # sessions from which on there is a picture of durations
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
SECTIONS = (("timeline", "Timeline"), ("failures", "What failed"),
            ("omissions", "What did not run"), ("next", "What comes next"),
            ("durations", "Durations"), ("scenarios", "By scenario"))

# what a table says in columns of its own: `2 due times skipped: `
_COUNTED = re.compile("[0-9]+ due times? [a-z]+: ")


class Document:
    """The document of Findings, part by part."""

    def __init__(self, findings):
        self._findings = findings
        period, sessions = findings.period, findings.sessions
        begin = min([period.end - 60] + [max(period.begin, past.begun) for past in sessions[:1]])
        # a period that nothing filled is shown from its begin; one of years from its first session
        is_long = begin - period.begin > 0.5 * (period.end - period.begin)
        self._axis = Axis(begin if is_long and sessions else period.begin, period.end)
        self._groups = {}
        for past in sessions:
            self._groups.setdefault(past.scenario, []).append(past)
        self._names = sorted(self._groups, key=lambda name: (not self._has_failed(name), name))
        self._links = {past.number: "failure-%d" % place
                       for place, failure in enumerate(findings.failures, 1)
                       for past in failure.sessions}

    def _has_failed(self, name):
        return any(past.status in ("ERROR", "STOPPED") for past in self._groups[name])

    def make(self, place, made_by):
        """All of it; `place` is where the agent is, `made_by` what has asked it."""
        findings, period = self._findings, self._findings.period
        title = "%s, %s" % (findings.ping["agent"], tell_period(period.begin, period.end))
        parts = {"timeline": self._make_timeline, "failures": self._make_failures,
                 "omissions": self._make_omissions, "next": self._make_next,
                 "durations": self._make_durations, "scenarios": self._make_scenarios}
        sections = [tag("section", tag("h2", name, id=part), *parts[part](), aria_labelledby=part)
                    for part, name in SECTIONS]
        links = [Markup(tag("a", name, href="#" + part) + "\n") for part, name in SECTIONS]
        zone = time.strftime("%Z (UTC%z)", time.localtime(period.end))
        body = tag("body", tag("header", tag("h1", title), *self._make_summary(),
                               tag("nav", *links, aria_label="Parts of this report")),
                   tag("main", *sections),
                   tag("footer", tag("p", "Made %s by %s from the agent %s %s at %s. All times are "
                                     "%s." % (show_instant(period.now), made_by,
                                              findings.ping["agent"], findings.ping["version"],
                                              place, zone))))
        head = Markup('<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, '
                      'initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
                      '<meta http-equiv="Content-Security-Policy" content="%s">\n' % POLICY)
        style = tag("style", Markup("\n" + REPORT_CSS))
        return tag("html", tag("head", head, tag("title", title), style), body, lang="en") + "\n"

    def _make_summary(self):
        """What a reader wants to know first."""
        findings = self._findings
        states = [past.status for past in findings.sessions]
        bad = states.count("ERROR") + states.count("STOPPED")
        omitted = sum(omission.count for omission in findings.omissions)
        if not states:
            verdict = "No session ran."
        elif bad:
            verdict = "%s of %s ended in ERROR or STOPPED." % (
                format(bad, ","), tell_number(len(states), "session"))
        else:
            verdict = "None of %s ended in ERROR or STOPPED." % tell_number(len(states), "session")
        if omitted:
            verdict += " %s did not run." % tell_number(omitted, "due time")
        if findings.late:
            verdict += " %s ran late." % tell_number(findings.late, "due time")
        yield tag("p", verdict, class_="verdict")
        if findings.ping.get("hold") is True:
            yield tag("p", "The agent is held%s: nothing new begins." % tell_hold(findings.ping),
                      class_="notice")
        for trouble in findings.troubles:
            yield tag("p", "What is in one work repository is missing in this report: ", cut(
                trouble), class_="notice")
        if findings.is_cut:
            yield tag("p", "There were more sessions than this report takes in: those before %s "
                      "are left out." % show_moment(findings.sessions[0].begun), class_="notice")
        tiles = [("Sessions", len(states), "")]
        tiles += [(state, states.count(state), state.lower() if state in states else "")
                  for state in ("DONE", "WARNING", "ERROR", "STOPPED")]
        tiles += [("Running now", sum(row["status"] == "RUNNING" for row in findings.outstanding),
                   ""), ("Did not run", omitted, "warning" if omitted else "")]
        yield tag("dl", *(tag("div", tag("dt", name), tag("dd", format(count, ",")),
                              class_=kind or None) for name, count, kind in tiles), class_="tiles")

    def _make_timeline(self):
        """A lane for each scenario."""
        if not self._names:
            yield tag("p", "Nothing ran.", class_="soft")
            return
        yield tag("p", "Each mark is a session, from its begin to its end; the worse it ended, the "
                  "taller. Where there are too many, a mark is a stretch of time and its worst "
                  "end.", class_="soft")
        yield make_legend()
        ruler = tag("div", make_ruler(self._axis), class_="ruler-row")
        lanes = [tag("div", tag("div", tag("b", cut(name)), tag("span", tell_counts(
            self._groups[name])), class_="who"), draw_lane(
                self._axis, name, self._groups[name], self._links), class_="lane")
                 for name in self._names[:MOST_LANES]]
        yield tag("div", ruler, *lanes, class_="lanes")
        yield from tell_rest(len(self._names), MOST_LANES, "scenario")

    def _make_failures(self):
        """Each kind of failure with the end of its log."""
        findings = self._findings
        if not findings.failures:
            yield tag("p", "Nothing: no session ended in ERROR, STOPPED or WARNING.",
                      class_="soft")
        for number, failure in enumerate(findings.failures, 1):
            yield make_failure(number, failure)
        yield from tell_rest(MOST_FAILURES + findings.further_failures, MOST_FAILURES,
                             "kind of failure", "kinds of failures")

    def _make_omissions(self):
        """Due times that made no session, and schedules that have none now."""
        omissions = self._findings.omissions
        if omissions:
            rows = [(omission.schedule or "(the clock)", format(omission.count, ","),
                     make_state(omission.decision),
                     omission.reason, tell_range(omission), cut(_COUNTED.sub("", omission.message)))
                    for omission in omissions[:MOST_ROWS_SHOWN]]
            yield make_rows_table("Due times that made no session, and why", {
                "Schedule": None, "Times": "number", "Became": "word", "Reason": "word",
                "Due": "time", "In words, of the newest": "says"}, rows)
            yield from tell_rest(len(omissions), MOST_ROWS_SHOWN, "row")
        else:
            yield tag("p", "Each due time made its session.", class_="soft")
        silent = [row for row in self._findings.schedules if row["hold"] or not row["enabled"]]
        if silent:
            rows = [(row["name"], "held" if row["hold"] else "disabled", cut(row["rule"]),
                     cut(tell_hold(row).strip(" :"))) for row in silent[:MOST_ROWS_SHOWN]]
            yield make_rows_table("Schedules that fire nothing now", {
                "Schedule": None, "State": None, "Rule": "rule", "Why": "says"}, rows)
            yield from tell_rest(len(silent), MOST_ROWS_SHOWN, "schedule")

    def _make_next(self):
        """What has not ended, and the next due time of each schedule."""
        outstanding = self._findings.outstanding
        if outstanding:
            rows = [(str(row["session"]), cut(row["scenario"]), make_state(row["status"]),
                     show_instant(find_instant(row["begun"] or row["start_at"] or row["created"])),
                     cut(row["message"])) for row in outstanding[:MOST_ROWS_SHOWN]]
            yield make_rows_table("Sessions that have not ended", {
                "Session": None, "Scenario": None, "State": None, "Since, or from": "time",
                "Why": "says"}, rows)
            yield from tell_rest(len(outstanding), MOST_ROWS_SHOWN, "session")
        coming = [row for row in self._findings.schedules if row["next"]]
        coming.sort(key=lambda row: (find_instant(row["next"]) or 0.0, row["name"]))
        if coming:
            rows = [(cut(row["name"]), show_moment(find_instant(row["next"])), cut(row["rule"]),
                     make_state(row["last_status"] or "")) for row in coming[:MOST_ROWS_SHOWN]]
            yield make_rows_table("The next due time of each schedule", {
                "Schedule": None, "Next": "time", "Rule": "rule", "Ended last": None}, rows)
            yield from tell_rest(len(coming), MOST_ROWS_SHOWN, "schedule")
        else:
            yield tag("p", "No schedule has a due time ahead.", class_="soft")

    def _make_durations(self):
        """A small picture for each scenario that ran more than once."""
        names = [name for name in self._names if LEAST_POINTS <= sum(
            past.took_s is not None and past.ended is not None for past in self._groups[name])]
        if not names:
            yield tag("p", "No scenario ran twice.", class_="soft")
            return
        yield tag("p", "Each point is a session; the dashed line is the median of those that ended "
                  "DONE. The top of a picture is its longest session.", class_="soft")
        ends = [tag("span", show_day(instant)) for instant in (self._axis.begin, self._axis.end)]
        charts = []
        for name in names[:MOST_CHARTS]:
            timed = self._list_timed(name)
            usual_s = median([past.took_s for past in timed if past.status == "DONE"])
            said = "longest %s%s" % (show_length(max(past.took_s for past in timed)),
                                     "" if usual_s is None else
                                     ", usually %s" % show_length(usual_s))
            charts.append(tag("figure", tag("figcaption", tag("b", cut(name)), said),
                              draw_durations(self._axis, name, self._groups[name]),
                              tag("div", *ends, class_="span"), class_="chart"))
        yield tag("div", *charts, class_="charts")
        yield from tell_rest(len(names), MOST_CHARTS, "scenario")

    def _list_timed(self, name):
        return [past for past in self._groups[name]
                if past.took_s is not None and past.ended is not None]

    def _make_scenarios(self):
        """The figures behind the pictures, as a table."""
        rows = []
        for name in self._names[:4 * MOST_ROWS_SHOWN]:
            states = [past.status for past in self._groups[name]]
            times = sorted(past.took_s for past in self._list_timed(name))
            figures = [show_length(value) for value in (
                find_quantile(times, 0.5), find_quantile(times, 0.95), times[-1])] if times else [
                    "", "", ""]
            rows.append([cut(name), format(len(states), ",")] + [
                format(states.count(state), ",") if state in states else "" for state in (
                    "DONE", "WARNING", "ERROR", "STOPPED")] + figures + [
                        show_moment(self._groups[name][-1].begun)])
        if rows:
            headings = dict({"Scenario": None}, **dict.fromkeys(
                ("Sessions", "DONE", "WARNING", "ERROR", "STOPPED", "Median", "95 of 100",
                 "Longest"), "number"))
            yield make_rows_table("Sessions and durations of each scenario",
                                  dict(headings, **{"Newest": "time"}), rows)
            yield from tell_rest(len(self._names), 4 * MOST_ROWS_SHOWN, "scenario")
        else:
            yield tag("p", "Nothing ran.", class_="soft")


def make_document(findings, place, made_by):
    """Findings as HTML, without its first line."""
    return Document(findings).make(place, made_by)


def make_failure(number, failure):
    """Sessions that ended alike: what they say, which they are, the end of the newest's log, and
    what to type next."""
    newest, count = failure.sessions[0], len(failure.sessions)
    took = "" if newest.took_s is None else ", after %s" % show_length(newest.took_s)
    facts = "Session %d, begun %s%s." % (newest.number, show_moment(newest.begun), took)
    if count > 1:
        others = ", ".join(str(past.number) for past in failure.sessions[1:MOST_NUMBERS])
        facts += " Before that %s%s; the first at %s." % (
            others, " and %d more" % (count - MOST_NUMBERS) if count > MOST_NUMBERS else "",
            show_moment(failure.sessions[-1].begun))
    heading = [make_state(failure.status), " ", cut(failure.scenario)]
    if count > 1:
        heading.append(tag("span", " %d times" % count, class_="soft"))
    name = "failure-%d" % number
    parts = [tag("h3", *heading, id=name + "-name"),
             tag("p", cut(failure.message) or "No message."), tag("p", facts, class_="facts")]
    if failure.log:
        parts.append(tag("pre", *map(make_log_line, failure.log[-MOST_LOG_LINES:]),
                         aria_label="How the log of session %d ends" % newest.number))
    else:
        parts.append(tag("p", "Nothing was printed.", class_="soft"))
    words = ["status", "log"] + ["restart"] * (failure.status in ("ERROR", "STOPPED"))
    parts.append(tag("p", "Next: ", *(Markup(tag("code", "agentcli.py %s %d" % (
        word, newest.number)) + " \u00a0 ") for word in words), class_="facts"))
    return tag("article", *parts, id=name, class_="failure " + failure.status.lower(),
               aria_labelledby=name + "-name")


def make_state(state):
    """A state, or what became of a due time, in its colour."""
    return tag("span", state, class_="state " + state.lower()) if state else ""


def make_log_line(line):
    """A line of a log; what came from standard error says so."""
    instant, text = find_instant(line["time"]), cut(line["text"].replace("\t", "    "))
    when = "" if instant is None else show_instant(instant)[11:]
    is_error = line["stream"] == "err"
    return Markup(tag("span", when, " err " if is_error else "     ", class_="type")
                  + tag("span", text, class_="err" if is_error else None) + "\n")


def tell_range(omission):
    """The first due time, and the last where there are several."""
    first = show_moment(omission.first)
    if omission.last <= omission.first:
        return first
    return Markup("%s <br>to %s" % (first, show_moment(omission.last)))


def tell_hold(row):
    """Who holds something, until when and why, as far as it is known."""
    until = find_instant(row.get("hold_until"))
    return "%s%s%s" % (" by %s" % row["hold_by"] if row.get("hold_by") else "",
                       "" if until is None else " until %s" % show_instant(until),
                       ": %s" % row["hold_reason"] if row.get("hold_reason") else "")


def tell_rest(count, shown, noun, nouns=None):
    """Says how many of something are left out, where that is so."""
    if count > shown:
        rest = count - shown
        yield tag("p", "%s more %s left out here." % (format(rest, ","), "%s is" % noun if rest == 1
                                                      else "%s are" % (nouns or noun + "s")),
                  class_="soft")


def cut(text):
    """A text that is not longer than people read."""
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT - 2] + " \u2026"


def tell_period(begin, end):
    """Two instants; the second without its day where that is the same."""
    days = [time.localtime(instant)[:3] for instant in (begin, end)]
    return "%s to %s" % (show_day(begin), show_day(end) if days[0] != days[1] else
                         time.strftime("%H:%M", time.localtime(end)))


def show_day(instant):
    """An instant to the minute, with its day and year."""
    return time.strftime("%a %d %b %Y %H:%M", time.localtime(instant))


# ======================================================================================
# client/imports.py
# Documents and crontabs handed to the agent, and what is told of them.
# ======================================================================================

# words of a shell that are no programs
BUILTINS = GUARDS | SEPARATORS | frozenset(
    "alias bg break case continue eval false fg function getopts hash jobs kill let local printf "
    "pwd read readonly return select set shift times trap ulimit unalias unset until wait".split())
# a fault of a document: place, field, reason
_FAULT = re.compile(r"(?:scenarios|schedules)\[(\d+)\](?:\S*\.)?(\S*): (.*)")


def read_bytes(path):
    """What is in a file, or - for standard input. Raises ClientError."""
    try:
        if path == "-":
            return sys.stdin.buffer.read() if sys.stdin else b""
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ClientError(USAGE, "cannot read %s: %s" % (ascii(path), reason_of(error)))


def read_document(path):
    """The text of a file to import. Raises ClientError."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ClientError(USAGE, "%s is not UTF-8" % ascii(path))


def get_user():
    """Who the client's user is."""
    import pwd          # not on every platform, and only a crontab asks
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def is_only_user(name):
    """Whether a user of this host has a name, and no program has it too."""
    import pwd
    try:
        return bool(pwd.getpwnam(name)) and not shutil.which(name)
    except KeyError:
        return False


def is_command(word, search_path):
    """Whether a word can begin a command here, or is none that could be a user."""
    paths = os.pathsep.join(filter(None, (search_path, os.environ.get("PATH"), os.defpath)))
    return (word in BUILTINS or not re.fullmatch("[a-z_][a-z0-9_-]*[$]?", word)
            or shutil.which(word, path=paths) is not None)


def import_documents(options, paths, words):
    """Imports definitions documents, one after the other -> exit status.
    Raises ClientError, OSError of stdout."""
    texts = [read_document(path) for path in paths]
    with connect(options) as connection:
        for path, text in zip(paths, texts):
            origin = "standard input: " if path == "-" else printable(path) + ": "
            reply = connection.ask(" ".join(["IMPORT", quote(text)] + words))
            try:
                show_acknowledgement(reply, options.json, origin)
            except ClientError as error:
                if error.status == REFUSED and not text.lstrip().startswith("{"):
                    complain(origin + "a document begins with {; crontabs are imported "
                             "with --crontab")
                raise ClientError(error.status,
                                  origin + str(error) if error.status == REFUSED else error)
    return WELL


def import_crontabs(options, paths, words):
    """Imports crontabs, or shows what they become -> exit status. Raises ClientError,
    OSError of stdout."""
    is_system = {"yes": True, "no": False}.get(options.crontab.get("SYSTEM"))
    user, home = get_user(), os.path.expanduser("~")
    crontabs = [make_crontab(path, is_system, user, home).read(read_bytes(path)) for path in paths]
    if is_system is None:
        check_user_fields(crontabs)
        for crontab in crontabs:
            doubt_users(crontab)
    name_entries(crontabs, {})
    if "DRY_RUN" in options.crontab:
        try:
            coming = rehearse(options, crontabs, words)
        finally:
            for crontab in crontabs:
                tell_notes(crontab)
        show_entries(crontabs, coming, options.json)
    else:
        with connect(options) as connection:
            send_all(connection, options, crontabs, words)
    for crontab in crontabs:
        tell_left_out(crontab)
    return WELL


def send_all(connection, options, crontabs, words):
    """Imports crontabs, tells what is not carried over, and what they no longer have. Raises
    ClientError, OSError of stdout."""
    rows = list_known(connection, words)
    name_entries(crontabs, {row["name"]: (row["rule"], row["timezone"]) for row in rows})
    names = list_names(crontabs)
    for crontab in crontabs:
        try:
            fields = send_crontab(connection, crontab, words)
        finally:
            tell_notes(crontab)
        (put_json if options.json else put_fields)(dict(fields, left_out=crontab.left_out))
    tell_gone(connection, crontabs, names, words, "PRUNE" in options.crontab)


def show_entries(crontabs, coming, is_json):
    """A line for each entry: what its line becomes, and when it is due next."""
    rows = [dict({"crontab": crontab.name} if len(crontabs) > 1 else {}, line=entry.line.number,
                 name=entry.name, rule=entry.timing["rule"], next=coming.get(entry.name))
            for crontab in crontabs for entry in crontab.entries]
    if is_json:
        for row in rows:
            put_json(row)
    elif rows:
        put_table(rows)


def doubt_users(crontab):
    """Notes entries whose command begins with what is no program here: it may be a user."""
    for line, word in crontab.list_first_words():
        if not is_command(word.partition(":")[0], crontab.search_path):
            crontab.note(line, "%s is no program of this host; if it is a user, as before the "
                         "commands of a system's crontab, say --system yes" % printable(word))


def check_user_fields(crontabs):
    """Whether a system's crontab would pass for a user's, and its users for programs.
    Raises ClientError."""
    for crontab in crontabs:
        line, user = crontab.find_user_field(is_only_user) or (None, None)
        if line:
            raise ClientError(USAGE, "%s:%d: %s is a user of this host, as before the commands "
                              "of a system's crontab: say --system yes, or --system no if it is "
                              "a program: %s" % (crontab.name, line.number, printable(user),
                                                 printable(line.text)))


def rehearse(options, crontabs, words):
    """Leaves out the entries that the agent would refuse, and tells what the crontabs no longer
    have -> {name: its next due time}; says so where no agent can tell. Raises ClientError where all
    would be refused."""
    coming = {}
    try:
        with connect(options) as connection:
            rows = list_known(connection, words)
            name_entries(crontabs, {row["name"]: (row["rule"], row["timezone"]) for row in rows})
            names = list_names(crontabs)
            for crontab in crontabs:
                send_crontab(connection, crontab, words + ["-DRY_RUN"], coming)
            tell_gone(connection, crontabs, names, words, is_pruning=False)
    except ClientError as error:
        if error.status != NO_CONNECTION:
            raise
        complain("the rules are not checked, which the agent does at the import: %s" % error)
    return coming


def send_crontab(connection, crontab, words, coming=None):
    """Imports the entries, without those that the agent finds faulty -> the fields of its OK. What
    it says of coming due times goes into `coming`. Raises ClientError."""
    while True:
        document = json.dumps(crontab.document())
        reply = connection.ask(" ".join(["IMPORT", quote(document)] + words))
        faults, warnings, notice_faults = {}, [], False
        try:
            for line in reply:
                fields = parse_fields(line) if _FIELD.match(line) else {}
                if "warning" in fields:
                    line = "%s: warning: %s" % (fields["path"], fields["warning"])
                if line.startswith("notices["):
                    crontab.refuse_notices(line.partition(": ")[2])
                    notice_faults = True
                match = _FAULT.fullmatch(line)
                if match:
                    place, field, reason = match.groups()
                    if reason.startswith("warning: "):
                        warnings.append((int(place), reason[len("warning: "):]))
                        continue
                    reason = reason if reason.startswith(field) else "%s %s" % (field, reason)
                    faults.setdefault(int(place), spell(reason))
                elif fields.get("next") and coming is not None:
                    coming[fields["name"]] = fields["next"]
            for place, reason in warnings:
                crontab.note(crontab.entries[place].line, spell(reason))
            return {name: reply.fields[name] for name in ("scenarios", "schedules")}
        except ClientError as error:
            if not (faults or notice_faults):
                raise
            crontab.refuse(faults)
            if str(error).startswith("ERR EXISTS "):
                raise ClientError(REFUSED, "ERR EXISTS nothing was imported; --replace takes "
                                  "the lines as they are now")


def tell_notes(crontab):
    """Says what of a crontab is not carried over."""
    for line, reason in sorted(crontab.notes):
        complain("%s:%d: %s: %s" % (crontab.name, line.number, reason, printable(line.text)))


def tell_left_out(crontab):
    """Says, below all else about a crontab, that something is missing."""
    if crontab.left_out:
        complain("%s: lines left out: %d; carried over: %d"
                 % (crontab.name, crontab.left_out, len(crontab.entries)))


def list_repository(words):
    """Of the options of an IMPORT those that say in which repository."""
    return [word for word in words if word.startswith("-REPO=")]


def list_names(crontabs):
    """The names of all their entries."""
    return {entry.name for crontab in crontabs for entry in crontab.entries}


def list_known(connection, words):
    """The rows of the schedules that come from crontabs. Raises ClientError."""
    request = " ".join(["SCHED LIST -JSON"] + list_repository(words))
    return [row for row in map(json.loads, connection.ask(request))
            if row["name"] == row["scenario"] and row["name"].startswith(PREFIX)]


def tell_gone_notices(connection, crontabs, is_pruning):
    """Says which notices of MAILTO an earlier state of these crontabs has left, or deletes them.
    Raises ClientError."""
    rows = [json.loads(line) for line in connection.ask("NOTICE LIST -JSON")]
    for crontab in crontabs:
        names = {notice["name"] for notice in crontab.list_notices()}
        for name in [row["name"] for row in rows]:
            if name.startswith(notice_prefix(crontab.keywords)) and name not in names:
                if is_pruning:
                    list(connection.ask("NOTICE DEL " + name))
                complain("%s: notice %s stands for no MAILTO%s" % (
                    crontab.name, name, ": deleted" if is_pruning else
                    ", and mails as before: --prune deletes it"))


def tell_gone(connection, crontabs, names, words, is_pruning):
    """Says which schedules and notices an earlier state of these crontabs has left, or deletes
    them. Raises ClientError."""
    tell_gone_notices(connection, crontabs, is_pruning)
    where = list_repository(words)
    for row in list_known(connection, words):
        name = row["name"]
        if name in names:
            continue
        shown = map(json.loads, connection.ask(" ".join(["SCHED SHOW -JSON", name] + where)))
        keywords = [row["value"] for row in shown if row.get("option") == "KEYWORDS"]
        for crontab in crontabs:
            if keywords == [crontab.keywords]:
                for request in ["SCHED DEL " + name, "DROP %s 001" % name] if is_pruning else ():
                    list(connection.ask(" ".join([request] + where)))
                complain("%s: schedule %s stands for none of the lines%s" % (
                    crontab.name, name, ": deleted" if is_pruning else
                    ", and fires as before: --prune deletes it"))
                break


# ======================================================================================
# client/documents.py
# check, diff: a definitions document against the rules of the agent and against what it has.
# ======================================================================================

# the lists of a document, and what one of their entries is
KINDS = {"scenarios": "scenario", "schedules": "schedule", "contexts": "context",
         "data_servers": "data_server", "logical_schemas": "logical_schema",
         "calendars": "calendar", "engines": "engine", "notices": "notice"}
ONLY_THERE = "only there"
ONLY_THERE_SHOWN = 5    # names of a kind
CHANGE_COLOURS = {"new": GREEN, "changed": YELLOW, ONLY_THERE: CYAN}
MARK_COLOURS = {"+": GREEN, "-": RED, "@": CYAN}


class Rehearsal:
    """What an IMPORT -DRY_RUN -REPLACE says of a document: `changes` (fields of each definition),
    `warnings` and `faults` [(place, what is wrong)]; `error`: why it would be refused, or None."""

    def __init__(self, connection, text, words):
        """Asks. Raises ClientError, where it is not the document that is refused."""
        self.changes, self.warnings, self.faults, self.error = [], [], [], None
        reply = connection.ask(" ".join(["IMPORT", quote(text), "-DRY_RUN", "-REPLACE"] + words))
        try:
            for line in reply:
                self._take(line)
        except ClientError as error:
            if error.status != REFUSED or not self.faults and not str(error).startswith(
                    ("ERR BAD_REQUEST", "ERR EXISTS", "ERR CONFLICT", "ERR TOO_LONG")):
                raise
            self.error = error

    def _take(self, line):
        """One data line of the reply."""
        fields = parse_fields(line) if _FIELD.match(line) else None
        if fields is None:
            place, _, reason = line.partition(": ")
            if reason.startswith("warning: "):
                self.warnings.append((place, reason[len("warning: "):]))
            else:
                self.faults.append((place, spell(reason)))
        elif "warning" in fields:
            self.warnings.append((fields["path"], spell(fields["warning"])))
        else:
            self.changes.append(fields)

    def tell(self, name):
        """Says on stderr what is wrong with the document of this name, or looks wrong."""
        for place, reason in self.warnings:
            complain("%s: %s: warning: %s" % (name, place, reason))
        for place, reason in self.faults:
            complain("%s: %s: %s" % (name, place, reason))
        if self.error is not None and not self.faults:
            complain("%s: %s" % (name, self.error))


def name_of(path):
    """A file as it is told of."""
    return "standard input" if path == "-" else printable(path)


def check_documents(options, paths, words):
    """check FILE...: whether the agent would take the documents -> exit status. ClientError."""
    texts, is_bad = [(path, read_document(path)) for path in paths], False
    with connect(options) as connection:
        for path, text in texts:
            rehearsal = Rehearsal(connection, text, words)
            is_bad = is_bad or rehearsal.error is not None
            if options.json:
                put_json({"file": path, "ok": rehearsal.error is None,
                          "faults": as_objects(rehearsal.faults),
                          "warnings": as_objects(rehearsal.warnings)})
                continue
            rehearsal.tell(name_of(path))
            count = len(rehearsal.faults) or (rehearsal.error is not None)
            put_safe("%s: %s" % (name_of(path), "faults: %d" % count if count else
                                 "definitions: %d, warnings: %d" % (
                                     len(rehearsal.changes), len(rehearsal.warnings))))
    return ENDED_BADLY if is_bad else WELL


def as_objects(pairs):
    """[(place, reason)] as JSON objects."""
    return [{"path": place, "reason": reason} for place, reason in pairs]


def list_definitions(document):
    """The definitions of a document: {(kind, name, version): definition}; the version of what has
    none is empty."""
    definitions = {}
    for plural, kind in KINDS.items():
        for entry in document.get(plural, ()):
            fields = entry if isinstance(entry, dict) else {"name": entry}
            version = fields.get("version", "") if kind == "scenario" else ""
            definitions[kind, fields.get("name", ""), version] = entry
    return definitions


def diff_document(options, paths, words):
    """diff FILE: a document against what the agent has -> exit status: 1 where an import would
    change something. Raises ClientError."""
    path, text = paths[0], read_document(paths[0])
    with connect(options) as connection:
        rehearsal = Rehearsal(connection, text, words)
        if rehearsal.error is not None:
            rehearsal.tell(name_of(path))
            raise ClientError(USAGE, "%s is not compared: the agent would refuse it"
                              % name_of(path))
        exported = list(connection.ask(" ".join(["EXPORT"] + list_repository(words))))
    ours, theirs = (list_definitions(json.loads(each)) for each in (text, "\n".join(exported)))
    rows = [{"change": change["change"], "kind": change["kind"], "name": change["name"],
             "version": change.get("version") or ""} for change in rehearsal.changes]
    rows += [dict(zip(("change", "kind", "name", "version"), (ONLY_THERE,) + key))
             for key in theirs if key not in ours]
    is_coloured = has_colours(sys.stdout)
    for row in rows:
        key = row["kind"], row["name"], row["version"]
        lines = compare(theirs.get(key), ours.get(key)) if row["change"] == "changed" else []
        if options.json:
            put_json(dict(row, diff=lines))
        elif row["change"] not in ("same", ONLY_THERE):
            put_safe("%s  %s" % (paint(row["change"], CHANGE_COLOURS[row["change"]], is_coloured),
                                 " ".join(map(printable, filter(None, key)))))
            for line in lines:
                colour = MARK_COLOURS.get(line[:1])
                put_safe("    " + paint(printable(line), colour, is_coloured and colour))
    if not options.json:
        show_only_there([row for row in rows if row["change"] == ONLY_THERE], is_coloured)
    return ENDED_BADLY if any(row["change"] in ("new", "changed") for row in rows) else WELL


def show_only_there(rows, is_coloured):
    """A line for each kind of what the agent has beside a document; of many the first few."""
    for kind in KINDS.values():
        names = [" ".join(filter(None, (row["name"], row["version"])))
                 for row in rows if row["kind"] == kind]
        more = len(names) - ONLY_THERE_SHOWN
        if names:
            put_safe("%s  %s %s%s" % (
                paint(ONLY_THERE, CHANGE_COLOURS[ONLY_THERE], is_coloured), kind,
                printable(", ".join(names[:ONLY_THERE_SHOWN])),
                " and %d more" % more if more > 0 else ""))


def compare(theirs, ours):
    """The lines that differ between what the agent has and what the document says, as a unified
    diff of their JSON."""
    texts = [json.dumps(each, indent=1, sort_keys=True, ensure_ascii=False).split("\n")
             for each in (theirs, ours)]
    return list(difflib.unified_diff(*texts, lineterm="", n=2))[2:]


# ======================================================================================
# client/screen.py
# What stands on stderr beside the output: lines that stay, and on a terminal some that live.
# ======================================================================================

class Screen:
    """Lines on stderr. Those of draw() are replaced by the next ones; on what is no terminal they
    are not shown at all."""

    def __init__(self):
        self.is_live = has_controls(sys.stderr)
        self.is_coloured = has_colours(sys.stderr)
        self.has_blocks = has_blocks(sys.stderr)
        self._shown = []

    @property
    def width(self):
        """Columns that a line may have."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
        return 80

    def tell(self, line):
        """Writes a line that stays; its texts are printable."""
        self.clear()
        self._write(line + "\n")

    def draw(self, lines):
        """Shows lines instead of those before; whoever has colours in them has cut them."""
        if self.is_live and lines != self._shown:
            self.clear()
            self._write("\n".join(lines))
            self._shown = lines

    def clear(self):
        """Takes the living lines away, so that something else can be written."""
        if self._shown:
            up = "\x1b[%dA" % (len(self._shown) - 1) if len(self._shown) > 1 else ""
            self._write("\r%s\x1b[J" % up)
            self._shown = []

    @staticmethod
    def _write(text):
        with contextlib.suppress(OSError, AttributeError):      # it is closed
            sys.stderr.flush()
            sys.stderr.buffer.write(text.encode(sys.stderr.encoding or "ascii", "backslashreplace"))
            sys.stderr.buffer.flush()


class Interrupts:
    """Ctrl-C as something to ask for, so that it comes between two requests; a second one before
    that ends the client."""

    def __init__(self):
        self._has_come, self._before = False, None

    def __enter__(self):
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number, frame):
        if self._has_come:
            raise KeyboardInterrupt
        self._has_come = True

    def take(self):
        """Whether Ctrl-C was typed since the last look."""
        has_come, self._has_come = self._has_come, False
        return has_come


def ask_line(question):
    """What is typed behind a question on stderr, without blanks and in small letters; None: Ctrl-C
    or the end of input."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write(show_controls(question))
        sys.stderr.flush()
        line = sys.stdin.readline()
        return line.strip().lower() if line else None
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return None
    finally:
        signal.signal(signal.SIGINT, before)


# ======================================================================================
# client/editing.py
# edit: a scenario in the editor of the user.
# ======================================================================================

def edit_scenario(options, arguments, words):
    """edit SCENARIO [VERSION] -> exit status. Raises ClientError, OSError of stdout."""
    name, version = as_typed(arguments[0]), as_typed((arguments[1:] + ["-1"])[0])
    with connect(options) as connection:
        scenario = export_scenario(connection, name, version, words)
        latest = export_scenario(connection, name, "-1", words)
    before = json.dumps({"scenarios": [scenario]}, indent=2, ensure_ascii=False) + "\n"
    handle, path = tempfile.mkstemp(".json", "agentcli-")       # of mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(before)
    try:
        edit_and_import(options, path, before, (scenario, latest), words)
    except ClientError as error:
        raise ClientError(error.status, "%s; what was edited is in %s" % (error, printable(path)))
    os.unlink(path)
    return WELL


def edit_and_import(options, path, before, scenarios, words):
    """Has the file edited and imports it. `scenarios` are the one that is edited and the latest of
    its name. Raises ClientError, OSError of stdout."""
    text = edit_until_well(options, path, before, words)
    if is_same(text, before):
        tell("unchanged: nothing is imported")
    else:
        if "REPLACE" not in options.own:
            text = with_new_version(text, *scenarios)
        import_text(options, text, words + ["-REPLACE"] * ("REPLACE" in options.own))


def export_scenario(connection, name, version, words):
    """A scenario as its definition. Raises ClientError."""
    request = ["EXPORT", quote(name), quote(version) if version != "-1" else version]
    text = "\n".join(connection.ask(" ".join(request + list_repository(words))))
    return json.loads(text)["scenarios"][0]


def edit_until_well(options, path, before, words):
    """Opens the editor until the agent would take what it leaves -> text. Raises ClientError, also
    where it is given up."""
    while True:
        run_editor(path)
        text = read_document(path)
        if is_same(text, before):
            return text
        with connect(options) as connection:
            rehearsal = Rehearsal(connection, text, words)
        rehearsal.tell(printable(path))
        if rehearsal.error is None:
            return text
        if not is_terminal(sys.stdin) or ask_line("Enter edits again, q gives up: ") in (None, "q"):
            raise ClientError(ENDED_BADLY, "nothing is imported")


def run_editor(path):
    """Waits for the user's editor. Raises ClientError."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    before = signal.signal(signal.SIGINT, lambda number, frame: None)       # it is the editor's
    try:
        status = subprocess.call(shlex.split(editor) + [path])
    except (OSError, ValueError) as error:
        raise ClientError(USAGE, "cannot run %s (VISUAL, EDITOR): %s" % (
            printable(editor), reason_of(error)))
    finally:
        signal.signal(signal.SIGINT, before)
    if status:
        raise ClientError(ENDED_BADLY, "%s ended with %d: nothing is imported"
                          % (printable(editor), status))


def is_same(text, before):
    """Whether a text has the same definitions as before."""
    try:
        return json.loads(text) == json.loads(before)
    except ValueError:
        return False


def with_new_version(text, scenario, latest):
    """A document whose scenario has a version of its own: the one that was typed, or else the one
    after the latest."""
    document = json.loads(text)
    for entry in document.get("scenarios", ()):
        if (entry["name"], entry["version"]) == (scenario["name"], scenario["version"]):
            entry["version"] = next_version(latest["version"])
    return json.dumps(document, ensure_ascii=False)


def next_version(version):
    """The version after one: 001 -> 002, 1.9 -> 1.10, a -> a.1."""
    match = re.fullmatch(r"(.*?)(\d+)", version)
    if not match:
        return version + ".1"
    return match.group(1) + str(int(match.group(2)) + 1).rjust(len(match.group(2)), "0")


def import_text(options, text, words):
    """Imports what was edited. Raises ClientError, OSError of stdout."""
    with connect(options) as connection:
        show_acknowledgement(connection.ask(" ".join(["IMPORT", quote(text)] + words)),
                             options.json)


# ======================================================================================
# client/live.py
# Connections of two kinds: one waits for a reply, one takes it in as it comes.
# ======================================================================================

ANSWER_S = 30       # an agent that hangs is to be noticed by what asks it again and again
PIECE = 65536       # bytes that are taken in at once


class LiveConnection(Connection):
    """One whose replies are taken in line by line, without waiting for their end."""
    _pending = b""

    def begin(self, request):
        """Sends a request. Raises ClientError."""
        try:
            self._socket.settimeout(ANSWER_S)
            self._socket.sendall(request.encode() + b"\n")
        except OSError as error:
            raise ClientError(NO_CONNECTION, "lost the agent at %s: %s"
                              % (self.place, reason_of(error)))

    def poll(self, wait_s):
        """The whole lines that come within so many seconds, at most: [text]. ClientError."""
        try:
            self._socket.settimeout(wait_s)
            data = self._socket.recv(PIECE)
        except socket.timeout:
            return []
        except OSError as error:
            raise ClientError(NO_CONNECTION, "lost the agent at %s: %s"
                              % (self.place, reason_of(error)))
        if not data:
            raise ClientError(NO_CONNECTION, "lost the agent at %s" % self.place)
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]


# ======================================================================================
# client/follow.py
# A session as it goes on: its output as it comes, its steps, how long they take.
# ======================================================================================

POLL_S = 0.25       # between two looks at Ctrl-C, and two pictures
LOOK_S = 1.0        # between two questions how the session is
REST = 20           # times as long as the last of them took, of a plan with very many nodes
LIVING = 10         # lines that live, at most
BAR = 20            # columns of a bar
QUESTION = ("session %s: l leaves it running, s stops it now, t stops it after its task, "
            "Enter follows on: ")


def follow_session(options, session, after=None):
    """Follows a session to its end -> exit status. `after`: the last line of its log that was there
    already, and is not shown again. Raises ClientError, OSError of stdout."""
    with Interrupts() as interrupts, connect(options) as asker, \
            connect(options, LiveConnection) as stream:
        follower = Follower(asker, stream, str(session), options.json)
        try:
            return follower.run(interrupts, after)
        except ClientError as error:
            follower.screen.clear()
            if error.status != NO_CONNECTION:
                raise
            raise ClientError(NO_CONNECTION, "%s; session %s goes on, if the agent does: wait %s "
                              "--follow follows it again" % (error, session, session))
        finally:
            follower.screen.clear()


class Follower:
    """One session that is followed, and what is known of it by now; the nodes of a plan are told as
    steps are."""

    def __init__(self, asker, stream, session, is_json):
        self.screen = Screen()
        self._asker, self._log, self._session, self._is_json = asker, stream, session, is_json
        self._clock = Clock()
        self._row, self._steps = {}, []     # as the last look has them, and when that was
        self._looked_at, self._look_s = None, LOOK_S
        self._told = {}             # an attempt of a step or of a node -> its state, as told
        self._history, self._end = History(), None
        self._place = None                  # where the last line of output is from

    def run(self, interrupts, after=None):
        """Shows all until the session has ended -> exit status."""
        self._look()
        if self.screen.is_live:
            self._history = read_history(self._asker, self._row["scenario"], ANSWER_S)
        since = " -SINCE=" + after.split(" ", 1)[0] if after else ""
        self._log.begin("LOG %s -FOLLOW%s" % (self._session, since))
        while self._end is None:
            for line in self._log.poll(POLL_S):
                if after is None or not line.startswith("* "):
                    self._take(line)
                elif line[2:] == after:
                    after = None
            if interrupts.take():
                self._interrupt()
            if self._end is None and (
                    self._clock.monotonic() - self._looked_at >= self._look_s):
                self._look()
            self.screen.draw(self._list_living())
        self._look_at_end()
        self._tell_end()
        return ENDED_BADLY if self._row["status"] in RESTARTABLE else WELL

    def _take(self, line):
        """One line of the reply to LOG."""
        first, _, rest = line.partition(" ")
        if first == "*":
            entry = parse_log_line(rest)
            if (entry["step"], entry["task"]) != self._place:
                self._place = entry["step"], entry["task"]
                self._look()
            self._put(entry)
        elif first == "OK":
            self._end = parse_fields(rest)
        else:
            code, _, message = as_text(line)[len("ERR "):].partition(" ")
            if code == "STOPPING":
                raise ClientError(NO_CONNECTION, "the agent stops")
            raise ClientError(REFUSED, "ERR %s %s" % (code, spell(message)))

    def _put(self, entry):
        """A line that a task has printed: to where it has printed it."""
        if self._is_json:
            self._make_room(sys.stdout)
            put_json(entry)
        elif entry["stream"] == "err":
            self.screen.tell(entry["text"])
        else:
            self._make_room(sys.stdout)
            put_safe(entry["text"], is_flushed=True)

    def _make_room(self, stream):
        """Takes the living lines away, where others come between them."""
        if is_terminal(stream):
            self.screen.clear()

    def _look(self):
        """Asks how the session is, and tells what has changed."""
        asked_at = self._clock.monotonic()
        rows = ask_rows(self._asker, "STATUS " + self._session, ANSWER_S)
        before, self._row = self._row, rows[0]
        self._looked_at = self._clock.monotonic()
        self._look_s = max(LOOK_S, REST * (self._looked_at - asked_at))
        self._steps = [row for row in rows if "step" in row or "node" in row and is_told(row)]
        if self._row["status"] in ("WAITING", "QUEUED") and self._row["message"] and (
                before.get("message") != self._row["message"]):
            self._tell("session %s" % self._session, self._row["status"], self._row["message"])
        for number, step in enumerate(self._steps):
            place = (step["node"], step["attempt"]) if "node" in step else number
            if self._told.get(place) != step["status"]:
                self._told[place] = step["status"]
                took = "" if step["status"] not in ENDED else "after " + show_duration(
                    self._elapsed(step))
                self._tell(name_step(step), step["status"], took, step["message"])

    def _look_at_end(self):
        """The last look; an agent that has gone meanwhile has told the state before."""
        try:
            self._look()
        except ClientError as error:
            if error.status != NO_CONNECTION:
                raise
            self._row = dict(self._row, status=self._end["status"])

    def _tell(self, what, state, *others):
        """A line that stays: what is in which state."""
        texts = [paint(printable(what), DIM, self.screen.is_coloured),
                 paint_state(state, self.screen.is_coloured)]
        self.screen.tell("  ".join(texts + [printable(text) for text in others if text]))

    def _elapsed(self, row):
        """How long a session or an attempt of a step has taken, by the agent's clock."""
        begun, ended = find_instant(row["begun"]), find_instant(row["ended"])
        if begun is None:
            return 0.0
        if ended is None:       # now, by the agent's clock
            session_begun = find_instant(self._row["begun"]) or begun
            ended = (session_begun + (self._row["duration"] or 0.0)
                     + self._clock.monotonic() - self._looked_at)
        return max(0.0, ended - begun)

    def _list_living(self):
        """The lines that live: the steps that run, and the session."""
        rows = [(name_step(step), step, self._history.steps_s.get(step["name"]))
                for step in self._steps if ("node" not in step and step["status"] == "RUNNING"
                                            or "node" in step and is_under_way(step))]
        more = len(rows) - LIVING
        del rows[LIVING:]
        rows.append(("session " + self._session, self._row, self._history.session_s))
        wide = max(len(name) for name, _, _ in rows)
        lines = [self._render(name.ljust(wide), row, usual_s) for name, row, usual_s in rows]
        return lines if more <= 0 else lines[:-1] + ["and %d more" % more] + lines[-1:]

    def _render(self, name, row, usual_s):
        """One line that lives: name, state, elapsed, and what is usual as a bar."""
        elapsed_s = self._elapsed(row)
        parts = [row["status"], show_duration(elapsed_s) if row["begun"] else ""]
        if usual_s and row["status"] == "RUNNING":
            left_s = usual_s - elapsed_s
            parts += [draw_bar(elapsed_s / usual_s, BAR, self.screen.has_blocks),
                      "about %s to go" % show_duration(left_s) if left_s > 0
                      else "%s over the usual" % show_duration(-left_s)]
        text = ("  ".join([name] + [part for part in parts if part]))[:self.screen.width]
        return text[:len(name) + 2] + paint_state(text[len(name) + 2:], self.screen.is_coloured)

    def _tell_end(self):
        """The line below all others."""
        if self._is_json:
            put_json({name: self._row[name] for name in
                      ("session", "status", "duration", "message")})
        self._tell("session %s" % self._session, self._row["status"],
                   "after " + show_duration(self._elapsed(self._row)), self._row["message"])

    def _interrupt(self):
        """Ctrl-C: asks what is to become of the session, where there is somebody to ask."""
        self.screen.clear()
        if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
            self._leave()
        while True:
            answer = ask_line(QUESTION % self._session)
            if answer in (None, "l", "leave"):
                self._leave()
            if answer in ("s", "stop", "t"):
                self._stop(" -IMMEDIATE" if answer != "t" else "")
            if answer in ("", "g", "s", "stop", "t"):
                return

    def _stop(self, how):
        """Stops the session; its end is waited for. That it has ended by itself is no matter."""
        try:
            list(self._asker.ask("STOP %s%s" % (self._session, how), ANSWER_S))
        except ClientError as error:
            if error.status != REFUSED:
                raise
            self.screen.tell(str(error))

    def _leave(self):
        """Ends the client, not the session."""
        raise ClientError(INTERRUPTED, "session %s goes on: wait %s --follow follows it again"
                          % (self._session, self._session))


def name_step(step):
    """What an attempt of a step, or a node, is called."""
    if "node" in step:
        return name_node(step)
    attempt = " (attempt %d)" % step["attempt"] if step["attempt"] > 1 else ""
    return "step %d %s%s" % (step["step"], step["name"], attempt)


def find_last_line(options, session):
    """The last line of what a session has printed so far; None: nothing. Raises ClientError."""
    with connect(options) as connection:
        lines = list(connection.ask("LOG %s -TAIL=1" % session, ANSWER_S))
    return lines[-1] if lines else None


def follow_command(options, arguments, words):
    """exec, restart or wait with --follow -> exit status. Raises ClientError, OSError of stdout."""
    name, words = options.command.name, [word for word in words if word != "-SYNC"]
    if name == "wait":
        if words:
            raise ClientError(USAGE, "wait --follow takes no time: Ctrl-C ends it")
        return follow_session(options, arguments[0])
    after = find_last_line(options, arguments[0]) if name == "restart" else None
    return follow_session(options, acknowledge(options, " ".join(
        [name.upper()] + arguments + words)), after)


def acknowledge(options, request):
    """Sends a request that makes a session, or opens one again, and tells its number on stderr ->
    that number. Raises ClientError."""
    with connect(options) as connection:
        reply = connection.ask(request)
        list(reply)
    if options.json:
        put_json(reply.fields)
    else:
        tell(render_fields(reply.fields))
    return reply.fields["session"]


# ======================================================================================
# client/leaving.py
# shutdown --wait: until the agent is gone.
# ======================================================================================

PAUSE_S = 0.2


def wait_until_gone(connection, options):
    """Returns when the agent that was asked to stop has closed its connection, and its port answers
    no more or another agent has it. Raises ClientError."""
    try:
        while True:
            connection.read_line()
    except ClientError:
        pass                            # it has closed it
    while True:
        try:
            with connect(options) as other:
                reply = other.ask("PING", ANSWER_S)
                list(reply)
                if reply.fields.get("status") != "STOPPING":
                    return
        except ClientError as error:
            if error.status == NO_CONNECTION:
                return
        time.sleep(PAUSE_S)


# ======================================================================================
# client/period.py
# The period of a report: instants as people write them, in the reader's zone.
# ======================================================================================

_DAY_NAMES = {"yesterday": -1, "today": 0, "tomorrow": 1}
_DAY_NAME = re.compile(r"(yesterday|today|tomorrow)(?: +([0-9:]+))?")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?")
_AWAY = re.compile(r"([+-]?)([0-9.]+[smhd]?)")
_ISO = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ t]([0-9:]+)(\.[0-9]+)?)?"
                  r"(z|[+-][0-9]{2}:?[0-9]{2})?")


def read_instant(name, text, now, is_end=False):
    """A time in a form of requests, local to the reader, -> epoch seconds; a clock time is the last
    one, a distance without a sign lies in the past, a date alone is its begin, with `is_end` its
    end. `name` is the option that has it. Raises ClientError."""
    try:
        return _read(text.strip().lower(), now, is_end)
    except (CalendarError, ValueError, OverflowError):
        raise ClientError(USAGE, "%s takes a time: 2026-12-01, 2026-12-01T02:00, 02:00, now, "
                          "yesterday, 'yesterday 22:00', or a distance like 12h" % name)


def _read(word, now, is_end):
    """The instant of a word. CalendarError, ValueError, OverflowError."""
    named, away, date = (form.fullmatch(word) for form in (_DAY_NAME, _AWAY, _ISO))
    if word == "now":
        return now
    if named:
        return _find_local(now, named.group(2) or "00:00", _DAY_NAMES[named.group(1)])
    if _CLOCK.fullmatch(word):
        instant = _find_local(now, word)
        return instant if instant <= now else _find_local(now, word, -1)
    if away and (away.group(1) or word[-1].isalpha()):
        length_s = parse_duration(away.group(2))
        return now + length_s if away.group(1) == "+" else now - length_s
    return _read_iso(date, is_end)


def _read_iso(match, is_end):
    """The instant of a date, with or without time of day and offset. ValueError."""
    if not match:
        raise ValueError
    day, clock, fraction, offset = match.groups()
    date = time.strptime(day, "%Y-%m-%d")[:3]
    if clock is None and offset is None:
        return _place(date, "00:00", 1) - 0.001 if is_end else _place(date, "00:00")
    if offset:
        east = offset.replace("z", "+0000").replace(":", "")
        seconds = (int(east[1:3]) * 60 + int(east[3:])) * 60
        instant = _read_wall(date, clock or "00:00") - (-seconds if east[0] == "-" else seconds)
    else:
        instant = _place(date, clock or "00:00")
    return instant + float(fraction or 0)


def _find_local(now, clock, days=0):
    """The instant of a clock time on the local day of `now`, or so many days later. ValueError."""
    return _place(time.localtime(now)[:3], clock, days)


def _read_wall(date, clock, days=0):
    """A clock time on a day, or so many days later, as if it were UTC. ValueError."""
    text = clock if clock.count(":") == 2 else clock + ":00"
    return timegm((date[0], date[1], date[2] + days) + time.strptime(text, "%H:%M:%S")[3:6])


def _place(date, clock, days=0):
    """The instant of a local clock time: in a fold the first, in a gap the one after it.
    ValueError."""
    wall = _read_wall(date, clock, days)
    early, late = sorted(wall - time.localtime(wall + away_s).tm_gmtoff
                         for away_s in (-86400, 86400))
    for instant in (early, late):
        if timegm(time.localtime(instant)) == wall:
            return float(instant)
    while late - early > 1:             # between them the clock was put on
        middle = (early + late) // 2
        if timegm(time.localtime(middle)) < wall:
            early = middle
        else:
            late = middle
    return float(late)


# ======================================================================================
# client/report.py
# report: a period of an agent as one HTML document, which needs nothing beside it.
# ======================================================================================

DEFAULT_SINCE = "1d"
REPORT_MARK = b"<!doctype html>\n<!-- a report of agentcli.py"


def write_report(options, arguments, words):
    """report -o FILE: asks the agent, and writes what it says as HTML -> exit status. Raises
    ClientError, OSError of stdout."""
    now = Clock().now()
    period = Period(read_instant("--since", options.own.get("SINCE", DEFAULT_SINCE), now),
                    min(now, read_instant("--until", options.own.get("UNTIL", "now"), now, True)),
                    now)
    if period.end <= period.begin:
        raise ClientError(USAGE, "--until must lie after --since, and --since in the past")
    path = options.own.get("OUTPUT", "-")
    check_target(path)
    with connect(options) as connection:
        asker = Asker(connection)
        findings = find_out(asker, period)
        place = connection.place
    made_by = "agentcli.py %s" % VERSION
    data = REPORT_MARK + (" %s -->\n" % VERSION).encode() + make_document(
        findings, place, made_by).encode("utf-8", "backslashreplace")
    if path == "-":
        sys.stdout.buffer.write(data)
    else:
        replace_file(path, data)
        (put_json if options.json else put_fields)({
            "file": path, "bytes": len(data), "sessions": len(findings.sessions),
            "failed": sum(past.status in ("ERROR", "STOPPED") for past in findings.sessions)})
    for trouble in asker.troubles.values():
        raise trouble                   # it is told in the report, too
    return WELL


def check_target(path):
    """Whether a report may be written there: a new file, or one that is a report. Raises
    ClientError."""
    if path == "-":
        if is_terminal(sys.stdout):
            raise ClientError(USAGE, "-o FILE says where to; without, it goes to standard output, "
                              "which is a terminal")
        return
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ClientError(USAGE, "%s is no file; -o - is standard output" % ascii(path))
        with open(path, "rb") as file:
            if file.read(len(REPORT_MARK)) not in (REPORT_MARK, b""):
                raise ClientError(USAGE, "%s is there, and is no report: it stays as it is"
                                  % ascii(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ClientError(USAGE, "%s: %s" % (ascii(path), reason_of(error)))


def replace_file(path, data):
    """Writes a file under another name beside it, and gives it its name then: it is never half
    there. One that was there keeps its mode, a new one is for its owner alone. Raises
    ClientError."""
    target = os.path.realpath(path)
    try:
        handle, beside = tempfile.mkstemp(".tmp", ".report-", os.path.dirname(target))
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if os.path.exists(target):
                os.chmod(beside, stat.S_IMODE(os.stat(target).st_mode))
            os.replace(beside, target)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise ClientError(USAGE, "cannot write %s: %s" % (ascii(path), reason_of(error)))


# ======================================================================================
# client/running.py
# run: a bare command as a session.
# ======================================================================================

RUN_PREFIX = "RUN."         # of the names of the scenarios that commands become
_OF_SHELL = re.compile(r"[\s;|&<>()$`*?~]")


def run_command(options, arguments, words):
    """run -- COMMAND...: imports a scenario that is named after the command, and starts it where
    the client was called -> exit status. Raises ClientError, OSError of stdout."""
    scenario = make_scenario([as_typed(word) for word in arguments])
    document = json.dumps({"scenarios": [scenario]})
    with connect(options) as connection:
        list(connection.ask(" ".join(["IMPORT", quote(document)] + list_repository(words))))
    request = ["EXEC", quote(scenario["name"]), "001", "FOLDER=" + quote(as_typed(os.getcwd())),
               "SEARCH=" + quote(as_typed(os.environ.get("PATH", os.defpath)))] + words
    if "FOLLOW" in options.own:
        return follow_session(options, acknowledge(options, " ".join(request)))
    with connect(options) as connection:
        reply = connection.ask(" ".join(request + ["-SYNC"] * ("WAIT" in options.own)))
        show_acknowledgement(reply, options.json)
    return ENDED_BADLY if reply.fields.get("status") in RESTARTABLE else WELL


def make_scenario(command):
    """A command as a scenario: its words, or one word that only a shell understands. The same
    command is the same scenario, wherever it is called. It lives through a restart of the agent."""
    is_shell = len(command) == 1 and _OF_SHELL.search(command[0]) is not None
    text = command[0] if is_shell else " ".join(map(shlex.quote, command))
    stem = stem_of(text, "shell" if is_shell else "")
    if "_" in text and stem == "_".join(text.split()):      # a b and a_b are not the same
        stem = mark(stem, text)
    task = {"type": "os", "cwd": "${FOLDER}", "env": {"PATH": "${SEARCH}"},
            "command": quote_literal(text) if is_shell else [quote_literal(word)
                                                             for word in command]}
    return {"name": RUN_PREFIX + stem, "version": "001", "on_stale": "adopt",
            "description": text, "variables": {"FOLDER": "", "SEARCH": ""},
            "steps": [{"name": "main", "tasks": [task]}]}


# ======================================================================================
# client/topscreen.py
# The live screen of top: what is shown, what keys do. Its module curses is handed in.
# ======================================================================================

KEPT_LINES = 5000       # of a log that is looked at
TAKEN_S = 0.2           # between two looks at the keyboard while a log is followed
KEYS = "arrows choose  Enter log  s stop  r restart  h hold  u release  H U all  q quit"
LOG_KEYS = "arrows, PgUp, PgDn, End scroll  q back"


class TopScreen:
    """The whole screen: a board, the row that is chosen, and what was said last."""

    def __init__(self, curses_module, window, options, every_s):
        self._curses, self._window, self._options = curses_module, window, options
        self._every_s, self._clock = every_s, Clock()
        self._board, self._connection = Board(has_blocks(sys.stdout)), None
        self._chosen, self._place, self._is_missing = None, 0, False
        self._said, self._trouble = "", ""
        self._read_at = None
        self._colours = self._make_colours()
        try:
            curses_module.curs_set(0)
        except curses_module.error:
            pass                        # it always has one

    def _make_colours(self):
        """{colour of a state: attribute of curses}."""
        curses_module = self._curses
        if not has_colours(sys.stdout) or not curses_module.has_colors():
            return {}
        curses_module.use_default_colors()
        colours = {DIM: curses_module.A_DIM}
        for number, (colour, code) in enumerate((
                (RED, curses_module.COLOR_RED), (GREEN, curses_module.COLOR_GREEN),
                (YELLOW, curses_module.COLOR_YELLOW), (MAGENTA, curses_module.COLOR_MAGENTA),
                (CYAN, curses_module.COLOR_CYAN)), 1):
            curses_module.init_pair(number, code, -1)
            colours[colour] = curses_module.color_pair(number)
        return colours

    def run(self):
        """Shows the board and obeys keys, until q."""
        while True:
            now = self._clock.monotonic()
            if self._read_at is None or now - self._read_at >= self._every_s:
                self._read()
            self._draw()
            wait_s = max(0.05, self._every_s - (self._clock.monotonic() - self._read_at))
            self._window.timeout(int(wait_s * 1000))
            if not self._obey(self._window.getch()):
                return

    def _read(self):
        """Asks the agent anew; where it does not answer, that is said, and tried again."""
        try:
            if self._connection is None:
                self._connection = connect(self._options)
            self._board.read(self._connection)
            self._trouble = ""
        except ClientError as error:
            self._trouble = str(error)
            self._let_go()
        self._read_at = self._clock.monotonic()
        self._choose(self._board.list_keys())

    def _choose(self, keys):
        """Keeps what is chosen, also where it is missing once, on its way from one section to
        another; then what has its place."""
        if self._chosen in keys:
            self._place, self._is_missing = keys.index(self._chosen), False
        elif self._chosen is None or self._is_missing:
            self._chosen = keys[min(self._place, len(keys) - 1)] if keys else None
        else:
            self._is_missing = True

    def _let_go(self):
        """Closes the connection; the next question makes another."""
        if self._connection is not None:
            self._connection.__exit__()
            self._connection = None

    # -- what is shown --

    def _draw(self):
        """Draws the page as large as the window is now."""
        height, width = self._window.getmaxyx()
        self._window.erase()
        head = self._board.make_head() if self._board.ping else []
        if self._trouble:
            head.insert(0, self._trouble)
        for place, line in enumerate(head):
            self._put(place, line, self._curses.A_BOLD)
        page = self._board.make_page(height - len(head) - 2, width - 1, self._chosen)
        for place, line in enumerate(page, len(head)):
            text, style = line.text, self._curses.A_BOLD if line.is_heading else 0
            if line.key is not None and line.key == self._chosen:
                text, style = (">" + text[1:]).ljust(width - 1), self._curses.A_REVERSE
            self._put(place, text, style)
        self._put(height - 2, self._said)
        self._put(height - 1, KEYS, self._curses.A_DIM)
        self._window.refresh()

    def _put(self, place, text, style=0):
        """Writes one line, as far as the window goes; the states in it are coloured."""
        height, width = self._window.getmaxyx()
        if not 0 <= place < height:
            return
        encoding = sys.stdout.encoding or "ascii"
        text = show_controls(text.replace("\t", " ")).encode(
            encoding, "backslashreplace").decode(encoding)
        try:
            self._window.addnstr(place, 0, text, width - 1, style)
            for match in STATE_WORD.finditer(text[:width - 1]):
                colour = self._colours.get(STATE_COLOURS[match.group()])
                if colour is not None and style != self._curses.A_REVERSE:
                    self._window.chgat(place, match.start(), len(match.group()), colour | style)
        except self._curses.error:
            pass                        # the window has shrunk meanwhile

    # -- what keys do --

    def _obey(self, key):
        """Does what a key means; whether to go on."""
        self._said = self._said if key == -1 else ""
        if key in (ord("q"), ord("Q")):
            return False
        if key in (self._curses.KEY_DOWN, ord("j"), self._curses.KEY_UP, ord("k")):
            self._move(1 if key in (self._curses.KEY_DOWN, ord("j")) else -1)
        elif key in (10, 13, self._curses.KEY_ENTER, ord("f"), ord("l")):
            self._follow()
        elif key in map(ord, "srhuHU"):
            self._act(chr(key))
        elif key == ord(" "):
            self._read_at = None
        return True

    def _move(self, step):
        keys = self._board.list_keys()
        if keys:
            place = keys.index(self._chosen) if self._chosen in keys else self._place
            self._chosen = keys[min(max(place + step, 0), len(keys) - 1)]

    def _act(self, letter):
        """Asks whether to stop, restart, hold or release, and does it."""
        kind, name = (self._chosen or ("", ""))[:2]
        if letter in "sr" and kind != "session":
            self._said = "a session is to be chosen for that"
            return
        of_all = letter in "HU" or kind != "schedule"
        where, what = ("", "the agent") if of_all else (" -SCHEDULE=" + quote(name),
                                                        "schedule " + name)
        if letter == "s":
            answer = self._ask("stop session %s: t after its task, n now, any other key: not "
                               % name)
            request = {"t": "STOP %s" % name, "n": "STOP %s -IMMEDIATE" % name}.get(answer)
        else:
            what = "session %s" % name if letter == "r" else what
            verb = {"r": "restart", "h": "hold", "u": "release"}[letter.lower()]
            answer = self._ask("%s %s: y, any other key: not " % (verb, what))
            request = (verb.upper() + (" %s" % name if letter == "r" else where)
                       if answer == "y" else None)
        self._said = "" if request is None else self._send(request)
        self._read_at = None

    def _ask(self, question):
        """The key that is typed behind a question."""
        height, _ = self._window.getmaxyx()
        self._window.move(max(0, height - 2), 0)
        self._window.clrtoeol()
        self._put(height - 2, question, self._curses.A_BOLD)
        self._window.refresh()
        self._window.timeout(-1)
        key = self._window.getch()
        return chr(key) if 0 < key < 128 else ""

    def _send(self, request):
        """Sends a request -> what the agent says."""
        try:
            if self._connection is None:
                self._connection = connect(self._options)
            reply = self._connection.ask(request, QUICK_ANSWER_S)
            list(reply)
            return "%s: %s" % (spell(request), render_fields(reply.fields))
        except ClientError as error:
            if error.status == NO_CONNECTION:
                self._let_go()
            return str(error)

    def _follow(self):
        """Shows the log of the chosen session as it grows, until q."""
        kind, name = (self._chosen or ("", ""))[:2]
        if kind != "session":
            self._said = "a session is to be chosen for that"
            return
        try:
            with connect(self._options, LiveConnection) as stream:
                LogScreen(self._curses, self._window, self._put, name).run(stream)
        except ClientError as error:
            self._said = str(error)
        self._read_at = None


class LogScreen:
    """The log of a session, with its end in sight until somebody scrolls."""

    def __init__(self, curses_module, window, put_line, session):
        """`put_line` is a callable: (place, text, style)."""
        self._curses, self._window, self._put = curses_module, window, put_line
        self._session, self._above = session, 0         # lines below the last one that is shown
        self._lines, self._end = collections.deque(maxlen=KEPT_LINES), ""

    def run(self, stream):
        """Shows what comes and obeys keys, until q or Esc. Raises ClientError."""
        stream.begin("LOG %s -FOLLOW -TAIL=%d" % (self._session, KEPT_LINES))
        self._window.timeout(0)
        while True:
            if not self._end:
                for line in stream.poll(TAKEN_S):
                    self._take(line)
            else:
                self._window.timeout(int(TAKEN_S * 1000))
            self._draw()
            key = self._window.getch()
            if key in (ord("q"), ord("Q"), 27, self._curses.KEY_LEFT):
                return
            self._scroll(key)

    def _take(self, line):
        first, _, rest = line.partition(" ")
        if first == "*":
            self._lines.append(rest)
            self._above += 1 if self._above else 0
        elif first == "OK":
            self._end = "session %s has ended: %s" % (self._session, rest.partition("=")[2])
        else:
            self._end = as_text(line)

    def _scroll(self, key):
        """Moves in the lines; the end comes into sight again with End, or by scrolling to it."""
        page = max(1, self._window.getmaxyx()[0] - 3)
        steps = {self._curses.KEY_UP: 1, self._curses.KEY_DOWN: -1, self._curses.KEY_PPAGE: page,
                 self._curses.KEY_NPAGE: -page, self._curses.KEY_HOME: KEPT_LINES,
                 self._curses.KEY_END: -2 * KEPT_LINES}
        most = max(0, len(self._lines) - page)
        self._above = min(max(0, self._above + steps.get(key, 0)), most)

    def _draw(self):
        """Draws the lines in sight."""
        height, _ = self._window.getmaxyx()
        self._window.erase()
        self._put(0, "session %s" % self._session, self._curses.A_BOLD)
        shown = list(self._lines)[:len(self._lines) - self._above][-max(1, height - 3):]
        for place, line in enumerate(shown, 1):
            when, _, text = line.partition(" ")
            self._put(place, "%s %s" % (when[11:19], text))
        self._put(height - 2, self._end or ("below are %d lines" % self._above
                                            if self._above else ""), self._curses.A_BOLD)
        self._put(height - 1, LOG_KEYS, self._curses.A_DIM)
        self._window.refresh()


# ======================================================================================
# client/top.py
# top: a live screen of an agent, or plain pages where there is no terminal for one.
# ======================================================================================

EVERY_S = 2.0
PLAIN_HEIGHT, PLAIN_WIDTH = 60, 100     # of a page, where there is no terminal


def show_top(options, arguments, words):
    """top -> exit status. Raises ClientError, OSError of stdout."""
    every_s, pages = read_number(options, "EVERY", EVERY_S), read_number(options, "COUNT", None)
    screen = None if "PLAIN" in options.own or pages is not None else find_curses()
    try:
        with connect(options):          # whoever cannot connect at all is told so as ever
            pass
        if screen is None:
            show_pages(options, every_s, pages)
        else:
            os.environ.setdefault("ESCDELAY", "50")         # ms: Esc is a key here
            screen.wrapper(lambda window: TopScreen(screen, window, options, every_s).run())
    except KeyboardInterrupt:
        pass                            # as q
    return WELL


def read_number(options, name, default):
    """The value of an option that takes a number. Raises ClientError."""
    text = options.own.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = 0.0
    if value is not None and not 0.1 <= value <= 86400:
        raise ClientError(USAGE, "--%s takes a number from 0.1 on" % name.lower())
    return value


def find_curses():
    """The module curses; None: this is no terminal for it, or this Python lacks it."""
    if not (has_controls(sys.stdout) and has_controls(sys.stdin)):
        return None
    try:
        import curses
    except ImportError:
        return None
    try:
        curses.setupterm()
    except curses.error:                # nothing is known of this terminal
        return None
    return curses


def show_pages(options, every_s, pages):
    """Writes a page of text every so many seconds, so many of them or for ever."""
    board, number = Board(has_blocks(sys.stdout)), 0
    while pages is None or number < pages:
        if number:
            time.sleep(every_s)
            put_safe("")
        with connect(options) as connection:
            board.read(connection)
        width = find_width() or PLAIN_WIDTH
        for line in board.make_head():
            put_safe(line[:width])
        for line in board.make_page(PLAIN_HEIGHT, width):
            put_safe(line.text, is_flushed=True)
        number += 1


# ======================================================================================
# client/own.py
# The commands that are the client's own: no verb stands behind them.
# ======================================================================================

REPOSITORY = Choice("REPO", "name", "work repository (the one of the lowest id)")
DOCUMENT_MEANING = [("FILE", "a definitions document; - is standard input")]
OWN_COMMANDS = [
    Command("check", "FILE...", DOCUMENT_MEANING, [REPOSITORY], None,
            "have the agent check definitions documents, as an import would; nothing is written; "
            "exit status 1 where something is wrong", perform=check_documents),
    Command("diff", "FILE", DOCUMENT_MEANING, [REPOSITORY], None,
            "what an import of a definitions document would change, as a diff of JSON, and what "
            "the agent has beside it; exit status 1 where it would change something",
            perform=diff_document),
    Command("edit", "SCENARIO [VERSION]", [
        ("SCENARIO", "name of the scenario"), ("VERSION", "its version; -1, or nothing, is the "
                                               "latest")],
            [REPOSITORY, own("REPLACE", "import it under the same version")], None,
            "edit a scenario in VISUAL or EDITOR, and import it under the version after the latest",
            perform=edit_scenario),
    Command("run", "COMMAND...", [
        ("COMMAND", "behind --: a program and its arguments, or one word for the shell")],
            [own("FOLLOW", "show what it prints until it has ended; its exit status"),
             own("WAIT", "reply when it has ended; its exit status"), REPOSITORY,
             Choice("NAME", "text", "a name for the session, which listings show"),
             Choice("TIMEOUT", "s", "the session is ended after so long")], None,
            "start a bare command as a session, in the folder of the caller; it is logged, and "
            "goes on when the caller has gone", perform=run_command),
    Command("top", "", [], [
        own("EVERY", "seconds between two pictures (2)", "s"),
        own("PLAIN", "pages of text one after the other, as where there is no terminal"),
        own("COUNT", "so many pages of text, and no more", "n")], None,
            "a live screen: what runs, waits, has failed, comes next and is held; keys follow a "
            "log, stop, restart, hold, release", perform=show_top),
    Command("report", "", [], [
        own("OUTPUT", "the file; - is standard output. An earlier report there is replaced", "file",
            "-o"),
        own("SINCE", "from when on (1d): yesterday, 'yesterday 22:00', 12h, 2026-12-01", "time"),
        own("UNTIL", "until when (now)", "time")], None,
            "write one HTML file about a period: a timeline of all sessions, how long they took, "
            "failures with the end of their logs, what did not run and why, what comes next",
            perform=write_report),
    Command("completion", "SHELL [WORD...]", [
        ("SHELL", "bash or zsh"), ("WORD", "for the script's own use")], [], None,
            "print a script that completes commands, options and names; eval "
            "\"$(agentcli.py completion bash)\" takes it", perform=print_completion),
]


# ======================================================================================
# client/main.py
# One command: the request, its reply, the exit status.
# ======================================================================================

# an agent that hangs is to be noticed; other verbs may take as long as they want
PING_S = 30
COMMANDS = list_verb_commands() + OWN_COMMANDS


def perform(options, arguments, words):
    """Asks the agent for what is wanted and shows its reply -> exit status.
    Raises ClientError, OSError of stdout."""
    command = options.command
    if command.perform:
        return command.perform(options, arguments, words)
    if options.crontab:
        return import_crontabs(options, arguments, words)
    if command.name == "import":
        return import_documents(options, arguments, words)
    if command.name == "users password":
        arguments = arguments + [ask_new_password(options.new_password_file, arguments[0])]
    arguments = [quote(as_typed(argument)) for argument in arguments]
    if "FOLLOW" in options.own:
        return follow_command(options, arguments, words)
    if command.show is show_coming and not options.json and not has_option(words, "-COUNT"):
        with connect(options) as connection:
            show_next(connection, arguments, words)
        return WELL
    request = command.name.upper().split() + arguments + words + ["-JSON"] * command.is_listing
    with connect(options) as connection:
        if "DECISION" in options.own:
            reply = sift_why(connection, arguments, words, options.own["DECISION"])
        else:
            reply = connection.ask(" ".join(request), PING_S if command.name == "ping" else None,
                                   is_lenient=command.is_table)
        command.show(reply, options.json)
        if reply.trouble is not None:
            raise reply.trouble         # what is known stands above
        if reply.count == USUAL_LIMIT and is_terminal(sys.stdout) and not options.json and not (
                has_option(words, "-LIMIT")):
            tell_limit(command)
        if command.name == "shutdown" and "WAIT" in options.own:
            wait_until_gone(connection, options)
    is_bad = command.name in ("exec", "wait", "notice test") \
        and reply.fields.get("status") in RESTARTABLE
    return ENDED_BADLY if is_bad else WELL


def tell_limit(command):
    """Says on a terminal that a listing may go on, where its length is the usual limit."""
    if any(choice.name == "LIMIT" for choice in command.options):
        tell("the newest %d; --limit shows more" % USUAL_LIMIT)


def has_option(words, name):
    """Whether an option stands among words of a request."""
    return any(word.partition("=")[0].upper() == name for word in words)


def main(words=None):
    """The client -> exit status."""
    try:
        status = perform(*parse_command_line(
            sys.argv[1:] if words is None else words, COMMANDS))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except ClientError as error:
        complain(error)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:            # of stdout: those of the connection are ClientErrors
        if not isinstance(error, BrokenPipeError):
            complain("cannot write: %s" % reason_of(error))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)    # the interpreter's last flush succeeds
        return OUTPUT_LOST


if __name__ == "__main__":
    sys.exit(main())
