"""The forms of all requests, as data: words, kinds, roles, help, and what their replies are."""
import re
from typing import NamedTuple, Optional

from .vocabulary import ADMINISTRATOR, MONITOR, OPERATOR

# what the data lines of a reply are
AS_FIELDS = "fields"        # there are none, or they are fields as those of the OK
AS_ROWS = "rows"            # rows of a table; JSON objects with -JSON
AS_RECORD = "record"        # likewise, and the first is what the others belong to
AS_TEXT = "text"
AS_DOCUMENT = "document"    # one JSON document over many lines
AS_LOG = "log"              # TIME STEP/TASK out|err TEXT

# what fields of an OK hold, where that is no text; a number that is not known is empty
NUMBER_FIELDS = frozenset("session duration uptime running queued id cleaned purged scenarios "
                          "schedules slots due starts overlaps queues skipped never".split())
FLAG_FIELDS = frozenset("hold duplicate enabled".split())      # yes or no


class Form(NamedTuple):
    """One verb. Its words are those behind the name, as HELP shows them: arguments, then options;
    [] may be left out."""
    name: str               # SCHED ADD is one, by its first two words
    words: str
    role: Optional[str]     # None: everybody
    help: str
    reply: str = AS_FIELDS
    kinds: dict = {}        # word -> its kind, where that is not the one of KIND_WORDS

    @property
    def text(self):
        """The whole request."""
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


# the usual kinds of words: what a kind means is protocol/table's to say
KIND_WORDS = {
    "AGENT": "name", "AT": "time", "CONTEXT": "name", "COUNT": "count", "DAYS": "days",
    "DOCUMENT": "text", "FROM": "time", "HOST": "label", "KEEP": "amount", "KEY": "token",
    "KEYWORD": "label", "KEYWORDS": "label", "LEVEL": "level", "LIMIT": "limit",
    "MAX_WAIT": "seconds", "NAME": "name", "PATH": "token", "PRIORITY": "priority",
    "REASON": "label", "REPO": "name", "RULE": "text", "SCENARIO": "name", "SCHEDULE": "name",
    "SECOND": "text", "SESSION": "session", "SINCE": "time", "STATUS": "states",
    "SYNC": "seconds", "TIMEOUT": "timeout", "TO": "end", "UNTIL": "end", "VERB": "text",
    "VERSION": "version",
}

# the options of SCHED ADD and SET that are fields of a schedule -> a value as HELP shows it
SCHEDULE_OPTIONS = {
    "-AGENT": "name", "-TIMEZONE": "zone", "-ENABLED": "yes|no", "-FROM": "time", "-TO": "time",
    "-HOURS": "08:00-18:00", "-EXCLUDE_WEEKDAYS": "sat,sun", "-EXCLUDE_MONTHDAYS": "1,last",
    "-EXCLUDE_DATES": "a,b..c,calendar", "-REPEAT_EVERY": "s", "-REPEAT_COUNT": "n",
    "-REPEAT_FOR": "s", "-GAP": "run|skip", "-FOLD": "first|both", "-JITTER": "s",
    "-AFTER": "a,b/2h,scenario:c", "-NAME": "text", "-KEYWORDS": "a,b", "-PRIORITY": "n",
    "-ATTEMPTS": "n", "-RETRY_DELAY": "s", "-TIMEOUT": "s",
    "-OVERLAP": "queue|skip|parallel|stop", "-MISFIRE": "once|all|skip", "-GRACE": "s",
}


def schedule_field(option):
    """The field of a schedule that an option sets. NAME is the sessions' name, for which a
    definition needs another word."""
    return "session_name" if option == "-NAME" else option[1:].lower()


_SCHEDULE_WORDS = " ".join("[%s=%s]" % item for item in SCHEDULE_OPTIONS.items())
_SCHEDULE_KINDS = {option: "field " + schedule_field(option) for option in SCHEDULE_OPTIONS}
_CALENDAR_KINDS = {"NAME": "calendar", "DATES": "dates"}

VERB_FORMS = (
    Form("PING", "", MONITOR, "how the agent is; never waits for a repository"),
    Form("EXEC", "SCENARIO [VERSION] [CONTEXT] [VARIABLE=value ...] [-REPO=name] [-NAME=text] "
         "[-KEYWORDS=a,b] [-AT=time] [-KEY=token] [-PRIORITY=n] [-LEVEL=n] [-TIMEOUT=s] "
         "[-AGENT=name] [-SYNC[=s]]", OPERATOR,
         "start a session of a scenario; OK means that it is on disk",
         kinds={"-NAME": "label"}),
    Form("STOP", "SESSION [-IMMEDIATE]", OPERATOR,
         "stop a session after the task now running, or at once"),
    Form("RESTART", "SESSION [VARIABLE=value ...] [-FROM=step]", OPERATOR,
         "go on with a session that ended in ERROR or STOPPED", kinds={"-FROM": "name"}),
    Form("CLEAN", "[-HOST=id]", OPERATOR, "clean stale sessions now"),
    Form("HOLD", "[REASON] [-SCHEDULE=name] [-REPO=name] [-UNTIL=time]", OPERATOR,
         "begin nothing new, or nothing of one schedule, until RELEASE"),
    Form("RELEASE", "[-SCHEDULE=name] [-REPO=name]", OPERATOR, "end a hold"),
    Form("SHUTDOWN", "[-IMMEDIATE] [-MAX_WAIT=s] [-LEAVE]", ADMINISTRATOR,
         "stop the agent: running sessions may end, are stopped, or are left to the next start"),
    Form("SESSIONS", "[-STATUS=a,b] [-SCENARIO=name] [-SCHEDULE=name] [-REPO=name] "
         "[-KEYWORD=word] [-SINCE=time] [-LIMIT=n] [-JSON]", MONITOR,
         "list sessions, newest first", AS_ROWS),
    Form("STATUS", "SESSION [-JSON]", MONITOR, "a session with its steps, tasks and variables",
         AS_RECORD),
    Form("LOG", "SESSION [-FOLLOW]", MONITOR,
         "what the tasks of a session printed; -FOLLOW as they print it", AS_LOG),
    Form("WAIT", "SESSION [-TIMEOUT=s]", MONITOR, "wait for the end of a session",
         kinds={"-TIMEOUT": "seconds"}),
    Form("SCENARIOS", "[-REPO=name] [-JSON]", MONITOR, "list the scenario versions", AS_ROWS),
    Form("REPOS", "[-JSON]", MONITOR, "list the attached work repositories", AS_ROWS),
    Form("CONTEXTS", "[-JSON]", MONITOR,
         "list the contexts, and what stands behind logical schemas in them", AS_ROWS),
    Form("IMPORT", "DOCUMENT [-REPO=name] [-REPLACE]", ADMINISTRATOR,
         "import a definitions document, quoted as one word"),
    Form("EXPORT", "[SCENARIO] [VERSION] [-REPO=name]", MONITOR,
         "give definitions back, as lines of JSON", AS_DOCUMENT),
    Form("DROP", "SCENARIO VERSION [-REPO=name]", ADMINISTRATOR, "delete a scenario version"),
    Form("ATTACH", "NAME PATH [-CREATE]", ADMINISTRATOR,
         "attach a work repository; a relative path counts from the master's folder"),
    Form("DETACH", "NAME", ADMINISTRATOR, "detach a work repository; its file stays"),
    Form("PURGE", "[-DAYS=n] [-KEEP=n]", ADMINISTRATOR,
         "delete ended sessions older than DAYS, and beyond the newest KEEP"),
    Form("METRICS", "", MONITOR, "figures in Prometheus' text format", AS_TEXT),
    Form("HELP", "[VERB] [SECOND]", None, "the verbs, or one of them", AS_TEXT),
    Form("QUIT", "", None, "end the connection"),
    Form("SCHED LIST", "[-REPO=name] [-JSON]", MONITOR, "list the schedules", AS_ROWS),
    Form("SCHED SHOW", "NAME [-REPO=name] [-JSON]", MONITOR,
         "one schedule with its variables and hold", AS_RECORD),
    Form("SCHED ADD", "NAME SCENARIO VERSION CONTEXT [RULE] [VARIABLE=value ...] %s [-REPO=name]"
         % _SCHEDULE_WORDS, ADMINISTRATOR, "add a schedule, effective at once",
         kinds=_SCHEDULE_KINDS),
    Form("SCHED SET", "NAME [VARIABLE=value ...] %s [-SCENARIO=name] [-VERSION=version] "
         "[-CONTEXT=name] [-RULE=rule] [-REPO=name]" % _SCHEDULE_WORDS, ADMINISTRATOR,
         "change a schedule, effective at once; its past is not fired", kinds=_SCHEDULE_KINDS),
    Form("SCHED DEL", "NAME [-REPO=name]", ADMINISTRATOR,
         "delete a schedule; what it decided is kept until purged"),
    Form("SCHED ON", "NAME [-REPO=name]", ADMINISTRATOR, "enable a schedule"),
    Form("SCHED OFF", "NAME [-REPO=name]", ADMINISTRATOR, "disable a schedule"),
    Form("SCHED NEXT", "[NAME] [-COUNT=n] [-FROM=time] [-TO=time] [-ALL] [-REPO=name] [-JSON]",
         MONITOR, "coming due times, in order; nothing fires", AS_ROWS),
    Form("SCHED WHY", "[NAME] [-LIMIT=n] [-REPO=name] [-JSON]", MONITOR,
         "what became of the due times, newest first", AS_ROWS),
    Form("SCHED PLAN", "[-FROM=time] [-TO=time] [-ALL] [-REPO=name] [-JSON]", MONITOR,
         "play a period (default: a day) against the limits and the median durations of past "
         "sessions: what would overlap, queue, be skipped, never fit", AS_ROWS),
    Form("SCHED UPDATE", "", ADMINISTRATOR, "read the schedules from the repositories again"),
    Form("CALENDAR LIST", "[-JSON]", MONITOR, "list the calendars that exclude_dates can name",
         AS_ROWS),
    Form("CALENDAR ADD", "NAME DATES", ADMINISTRATOR,
         "add a calendar: dates and ranges a..b between commas", kinds=_CALENDAR_KINDS),
    Form("CALENDAR SET", "NAME DATES", ADMINISTRATOR,
         "give a calendar other dates, effective at once", kinds=_CALENDAR_KINDS),
    Form("CALENDAR DEL", "NAME", ADMINISTRATOR, "delete a calendar that no schedule names",
         kinds={"NAME": "calendar"}),
)
_WORD = re.compile(r"(\[?)(-?)([A-Z_]+)(\[?)(?:=([^] ]+))?")


def list_parts(form):
    """The arguments and options of a form, in order: [Part]; VARIABLE=value is neither."""
    parts = []
    for bracket, dash, word, inner_bracket, shown in _WORD.findall(form.words):
        if word != "VARIABLE":
            is_flag = dash and not shown
            kind = None if is_flag else form.kinds.get(dash + word) or KIND_WORDS[word]
            parts.append(Part(dash + word, kind, shown, not bracket, bool(inner_bracket)))
    return parts
