"""The lines of replies, as data: their fields in order, and what each holds, in which unit."""
from typing import NamedTuple

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
