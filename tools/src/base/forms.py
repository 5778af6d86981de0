"""The forms of all requests, as data: words, kinds, roles, help, and the lines of their replies."""
import re

from .audit_forms import AUDIT_FORMS, AUDIT_PURGED_LINE
from .backup_forms import BACKUP_FORMS
from .form import (AS_DOCUMENT, AS_FIELDS, AS_LOG, AS_RECORD, AS_ROWS, AS_TEXT, Form, KIND_WORDS,
                   Part, WORD_MEANINGS)
from .replies import (AFTER_LINE, AGENT_HOLD_LINE, ATTACHED_LINE, CALENDAR_LINE, CALENDAR_NAME_LINE,
                      CHANGE_LINE, CLEANED_LINE, COMING_LINE, CONTEXT_LINE, DELAYED_LINE,
                      ENABLED_LINE, END_LINE, FLAG_KEY, HELD_LINE, IMPORTED_LINE, LOGGED_LINE,
                      NODE_LINE, NUMBER_KEY, OCCURRENCE_LINE, OPTION_LINE, OUTLOOK_LINE, PING_LINE,
                      PLANNED_LINE, PURGED_LINE, REPOSITORY_HOLD_LINE, REPOSITORY_LINE,
                      SCENARIO_LINE, SCHEDULE_HOLD_LINE, SCHEDULE_LINE, SCHEDULE_NAME_LINE,
                      SCHEDULE_SET_LINE, SECONDS_KEY, SESSION_LINE, STATE_LINE, STEP_LINE,
                      STOPPED_LINE, TASK_LINE, TICKET_LINE, UPDATED_LINE, VARIABLE_LINE,
                      VISIT_LINE, WARNING_LINE)
from .notice_forms import NOTICE_FORMS
from .user_forms import USER_FORMS
from .vocabulary import ADMINISTRATOR, MONITOR, OPERATOR

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
