"""The fields of every definition, as tables, and the checks that belong to one field alone."""
from ..base.vocabulary import ADOPT, DEFAULT_CONTEXT
from ..base.forms import SCHEDULE_MEANINGS
from ..base.words import NAME, check_name, tell_near
from ..timetable.days import DAY
from .kinds import (BOOLEAN, FILLED, Field, JOINED, Kind, LABEL, NAMED, PRIORITY, SECONDS, TEXT,
                    TIMEOUT, VALUES, WHOLE_SECONDS, _check_value, _check_variable,
                    _check_whole_seconds, _of_type, _refuse, between, check_each, choice)


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
    "engine": Field(NAMED, meaning="the engine that its os and python tasks run on (this host)"),
    "steps": Field(_of_type((list,), "a list"),
                   meaning="its steps, at least one; a session begins with the first"),
    "plan": Field(_of_type((dict,), "an object"),
                  meaning="or, instead of steps, a load plan: a node"),
}
# of them, those that say something of steps alone
OF_STEPS = ("steps", "max_steps", "on_error", "engine")
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
                   "calendars", "notices", "engines")
