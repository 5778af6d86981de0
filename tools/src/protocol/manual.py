"""The manual: prose, with what follows from the program's tables put in between."""
import json
import re
from typing import Any, NamedTuple

from ..base.vocabulary import (BELIEF_S, CLEAN_S, DONE, ENGINE_CALL_S, ENGINE_LOOK_S, ERROR,
                               EXCLUDED_S, HEARTBEAT_S, IDLE_S,
                               KEEP_DAYS, KILL_S, LATE_S, LINE_S, LINGER_S, MAX_BATCH,
                               MAX_CONNECTIONS, MAX_EXPRESSION, MAX_IMPORT_LINE, MAX_LINE,
                               MAX_LIST, MAX_LOG_LINE, MAX_MISSED, MAX_NAME, MAX_OUTPUT,
                               MAX_PER_ADDRESS, MAX_QUEUE, MAX_REPOSITORIES, MAX_TEXT, MAX_VALUE,
                               MIN_SECRET, MISSED_S, QUEUED, RUNNING, SEARCH_S, SEND_S,
                               SESSIONS_PER_CORE, STEP_S, STOPPED, STOP_S, STRANGER_S, TERM_S,
                               TRANSITIONS, TRY_S, WAITING, WARNING, WRITE_S, YIELD_S)
from ..base.errors import (AuthError, BadRequest, Busy, Conflict, Denied, Exists, Internal,
                           NotFound, RepositoryError, Stopping, TooLong, UnknownVerb, WaitTimeout)
from ..base.form import AS_FIELDS, AS_RECORD, AS_ROWS
from ..base.forms import VERB_FORMS, list_parts
from ..base.hashes import MAX_PASSWORD, MIN_PASSWORD
from ..base.options import COMMAND_OPTIONS
from ..base.replies import TEXT_KEY
from ..base.words import shorten
from ..definitions.fields import (CALENDAR_FIELDS, CONCURRENCY_FIELDS, DATA_SERVER_FIELDS,
                                  LOGICAL_SCHEMA_FIELDS, MAIL_FIELDS, SCENARIO_FIELDS,
                                  SCHEDULE_FIELDS, STEP_FIELDS, TASK_FIELDS, TASK_TYPES)
from ..definitions.notices import NOTICE_FIELDS, SEND_FIELDS
from ..store.happenings import EVENT_LINES
from ..store.notices import MAX_EVENTS
from ..definitions.plan import MAX_DEPTH, MAX_VALUES
from ..runtime.plansteps import MAX_OPEN
from ..definitions.plan_fields import (CASE_FIELDS, EACH_FIELDS, KIND_FIELDS, NODE_FIELDS,
                                       when_fields)
from ..definitions.engines import ENGINE_FIELDS
from ..tasks.mail import MAIL_S
from ..tasks.network import ANSWER_S, CONTENT_S, MAX_REDIRECTS, SILENCE_S
from ..tasks.notify import SENDING_S
from ..scheduling.visits import MAX_VISITS
from ..agent.access import ONE_TIME_S
from ..agent.guesses import FORGET_S, MAX_DELAY_S, MAX_WAITING
from ..agent.logins import REMEMBER_S
from ..agent.audit import MAX_ACTS, MAX_KINDS, MAX_KINDS_EACH
from ..agent.events import LINED_EVENTS
from ..agent.letters import TOLD_EVENTS
from ..agent.notices import FIRST_RETRY_S, GIVE_UP_S
from .table import find_kind

WIDTH = 100

MANUAL_START = ""  # embedded: manual/start.md
MANUAL_EXAMPLE = ""  # embedded: manual/example.md
MANUAL_SESSIONS = ""  # embedded: manual/sessions.md
MANUAL_DEFINITIONS = ""  # embedded: manual/definitions.md
MANUAL_PLANS = ""  # embedded: manual/plans.md
MANUAL_TASKS = ""  # embedded: manual/tasks.md
MANUAL_ENGINES = ""  # embedded: manual/engines.md
MANUAL_SCHEDULES = ""  # embedded: manual/schedules.md
MANUAL_PROTOCOL = ""  # embedded: manual/protocol.md
MANUAL_VERBS = ""  # embedded: manual/verbs.md
MANUAL_CONNECTIONS = ""  # embedded: manual/connections.md
MANUAL_USERS = ""  # embedded: manual/users.md
MANUAL_PAGE = ""  # embedded: manual/page.md
MANUAL_CLIENT = ""  # embedded: manual/client.md
MANUAL_CRONTAB = ""  # embedded: manual/crontab.md
MANUAL_OPTIONS = ""  # embedded: manual/options.md
MANUAL_OPERATING = ""  # embedded: manual/operating.md
MANUAL_BACKUP = ""  # embedded: manual/backup.md
MANUAL_HOST = ""  # embedded: manual/host.md
MANUAL_NOTICES = ""  # embedded: manual/notices.md
MANUAL_AUDIT = ""  # embedded: manual/audit.md
MANUAL_LIMITS = ""  # embedded: manual/limits.md
MANUAL_GUARANTEES = ""  # embedded: manual/guarantees.md
MANUAL_TROUBLES = ""  # embedded: manual/troubleshooting.md
MANUAL_CHANGES = ""  # embedded: manual/changes.md
MANUAL_FILES = (MANUAL_START, MANUAL_EXAMPLE, MANUAL_SESSIONS, MANUAL_DEFINITIONS, MANUAL_PLANS,
                MANUAL_TASKS, MANUAL_ENGINES, MANUAL_SCHEDULES, MANUAL_PROTOCOL, MANUAL_VERBS,
                MANUAL_USERS, MANUAL_CONNECTIONS, MANUAL_PAGE, MANUAL_CLIENT, MANUAL_CRONTAB,
                MANUAL_OPTIONS, MANUAL_OPERATING, MANUAL_BACKUP, MANUAL_HOST, MANUAL_NOTICES,
                MANUAL_AUDIT, MANUAL_LIMITS, MANUAL_GUARANTEES, MANUAL_TROUBLES, MANUAL_CHANGES)

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
    Limit("MAX_VALUES", MAX_VALUES, "", "values of a `for_each`"),
    Limit("MAX_DEPTH", MAX_DEPTH, "", "nodes of a plan inside one another"),
    Limit("MAX_OPEN", MAX_OPEN, "", "nodes of a plan that are open at once"),
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
    Limit("ENGINE_LOOK_S", ENGINE_LOOK_S, "seconds", "between two looks at the tasks of an engine "
          "(`--engine-look`)"),
    Limit("ENGINE_CALL_S", ENGINE_CALL_S, "seconds", "that a command of an engine, or a look into "
          "its spool, may take"),
    Limit("BELIEF_S", BELIEF_S, "seconds", "that a clock which has jumped further ahead has to "
          "stand before the agent purges by it"),
    Limit("HEARTBEAT_S", HEARTBEAT_S, "seconds", "between two looks at what others have changed"),
    Limit("STRANGER_S", STRANGER_S, "seconds", "that a client who is not known is waited for "
          "(`--stranger-timeout`)"),
    Limit("MAX_BATCH", MAX_BATCH, "", "requests of one connection under way (`--max-requests`)"),
    Limit("MAX_PER_ADDRESS", MAX_PER_ADDRESS, "", "connections of one address, those of the "
          "agent's own user aside (`--max-per-address`)"),
    Limit("IDLE_S", IDLE_S, "seconds", "that a user's connection may be silent "
          "(`--idle-timeout`)"),
    Limit("LINE_S", LINE_S, "seconds", "that a line of a user may take (`--line-timeout`)"),
    Limit("SEND_S", SEND_S, "seconds", "that a user may take for 64 KiB of a reply "
          "(`--send-timeout`)"),
    Limit("MIN_PASSWORD", MIN_PASSWORD, "characters", "of a password, at least"),
    Limit("MAX_PASSWORD", MAX_PASSWORD, "characters", "of a password"),
    Limit("ONE_TIME_S", ONE_TIME_S, "seconds", "that a password for one use lets in"),
    Limit("MAX_DELAY_S", MAX_DELAY_S, "seconds", "that an address waits, at most, after wrong "
          "passwords"),
    Limit("REMEMBER_S", REMEMBER_S, "seconds", "that a login to the operator page is remembered"),
    Limit("FORGET_S", FORGET_S, "seconds", "after which wrong passwords are forgotten"),
    Limit("MAX_WAITING", MAX_WAITING, "", "passwords that wait to be compared; one more is BUSY"),
    Limit("LINGER_S", LINGER_S, "seconds", "that is read on, and thrown away, before a connection "
          "is closed"),
    Limit("SILENCE_S", SILENCE_S, "seconds", "that a server of `http` or `mail` may be silent"),
    Limit("ANSWER_S", ANSWER_S, "seconds", "until the answer of `http` begins"),
    Limit("CONTENT_S", CONTENT_S, "seconds", "that the content of `http` may take"),
    Limit("MAX_REDIRECTS", MAX_REDIRECTS, "", "redirects of `http`"),
    Limit("MAIL_S", MAIL_S, "seconds", "that a mail may take"),
    Limit("MAX_ACTS", MAX_ACTS, "", "rows of the audit that wait for the master"),
    Limit("MAX_KINDS", MAX_KINDS, "", "different refusals that the audit tells apart in a minute"),
    Limit("MAX_KINDS_EACH", MAX_KINDS_EACH, "", "of them of one user and address"),
    Limit("MAX_EVENTS", MAX_EVENTS, "", "events of a message of a notice; more are counted"),
    Limit("LINED_EVENTS", LINED_EVENTS, "", "of them that have the last lines of their session"),
    Limit("TOLD_EVENTS", TOLD_EVENTS, "", "of them that a mail tells in full"),
    Limit("EVENT_LINES", EVENT_LINES, "", "last lines of a session in an event"),
    Limit("SENDING_S", SENDING_S, "seconds", "that the sending of a notice may take"),
    Limit("FIRST_RETRY_S", FIRST_RETRY_S, "seconds", "until a notice that failed is tried again"),
    Limit("GIVE_UP_S", GIVE_UP_S, "seconds", "for which it is tried again"),
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
FIELD_TABLES = dict({
    "scenario": SCENARIO_FIELDS, "step": STEP_FIELDS, "concurrency": CONCURRENCY_FIELDS,
    "schedule": SCHEDULE_FIELDS, "task": TASK_FIELDS, "data_server": DATA_SERVER_FIELDS,
    "logical_schema": LOGICAL_SCHEMA_FIELDS, "calendar": CALENDAR_FIELDS,
    "notice": NOTICE_FIELDS, "send mail": SEND_FIELDS["mail"], "send http": SEND_FIELDS["http"],
    "send os": SEND_FIELDS["os"], "node": NODE_FIELDS, "case": CASE_FIELDS,
    "branch": when_fields(), "for_each": EACH_FIELDS, "engine": ENGINE_FIELDS,
}, **{"node " + kind: fields for kind, fields in KIND_FIELDS.items()})


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
