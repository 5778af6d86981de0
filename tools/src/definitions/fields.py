"""The fields of every definition, as tables, and the checks that belong to one field alone."""
from ..base.vocabulary import ADOPT, DEFAULT_CONTEXT
from ..base.words import NAME, check_name
from ..timetable.days import DAY
from .kinds import (BOOLEAN, FILLED, Field, JOINED, Kind, LABEL, NAMED, PRIORITY, SECONDS, TEXT,
                    TIMEOUT, VALUES, WHOLE_SECONDS, _check_positive_seconds, _check_value,
                    _check_variable, _check_whole_seconds, _of_type, _refuse, check_each, choice,
                    number)


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
    fields = {"limit": number(1, 100000).check, "on_limit": choice("wait", "error", "skip").check,
              "max_wait": _check_positive_seconds}
    if not isinstance(value, dict) or "limit" not in value:
        raise ValueError("must be an object with limit, and on_limit or max_wait")

    def unknown(_):
        raise ValueError("unknown field")
    items = check_each([("." + name, fields.get(name, unknown), item)
                        for name, item in value.items()])
    return dict({"on_limit": "wait", "max_wait": None}, **dict(zip(value, items)))


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
            raise ValueError("unknown field; there are %s" % ", ".join(MAIL_FIELDS))
        if name == "tls" and not isinstance(connect[name], dict):
            choice(*MAIL_TLS).check(connect[name])
    check_each([("." + name, check, name) for name in connect])


# filled by the floor of tasks: type -> its class (fields, run)
TASK_TYPES = {}

TASK_FIELDS = {
    "type": Field(TEXT, required=True),
    "name": Field(NAMED),
    "timeout": Field(TIMEOUT),
}
STEP_FIELDS = {
    "name": Field(NAMED, required=True),
    "tasks": Field(_of_type((list,), "must be a list"), required=True),
    "attempts": Field(number(1, 1000), default=1),
    "retry_delay": Field(SECONDS, default=0),
    "retry_factor": Field(number(1, 100, (int, float)), default=1),
    "timeout": Field(TIMEOUT),
    "on_ok": Field(NAMED),
    "on_error": Field(NAMED),
    "on_false": Field(NAMED),
}
SCENARIO_FIELDS = {
    "name": Field(NAMED, required=True),
    "version": Field(NAMED, required=True),
    "variables": Field(Kind(_check_declared, _refuse), default={}),
    "concurrency": Field(Kind(_check_concurrency, _refuse)),
    "timeout": Field(TIMEOUT),
    "max_steps": Field(number(1, 1000000), default=10000),
    "on_stale": Field(choice("error", "restart", ADOPT), default="error"),
    "on_error": Field(NAMED),
    "steps": Field(_of_type((list,), "must be a list"), required=True),
}
SCHEDULE_FIELDS = {
    "name": Field(NAMED, required=True),
    "agent": Field(NAMED),
    "scenario": Field(NAMED, required=True),
    "version": Field(Kind(lambda value: value if value == "-1" else check_name(value),
                          lambda text: text if text == "-1" else check_name(text)), default="-1"),
    "context": Field(NAMED, default=DEFAULT_CONTEXT),
    "rule": Field(TEXT, default=""),
    "timezone": Field(TEXT, default=""),
    "enabled": Field(BOOLEAN, default=True),
    "variables": Field(VALUES, default={}),
    # those below may be missing: Schedule.options
    "from": Field(TEXT),
    "to": Field(TEXT),
    "hours": Field(TEXT),
    "exclude_weekdays": Field(JOINED),
    "exclude_monthdays": Field(JOINED),
    "exclude_dates": Field(JOINED),
    "repeat_every": Field(WHOLE_SECONDS),
    "repeat_count": Field(number(1, 1000000)),
    "repeat_for": Field(WHOLE_SECONDS),
    "gap": Field(choice("run", "skip"), default="run"),
    "fold": Field(choice("first", "both"), default="first"),
    "jitter": Field(Kind(_check_jitter, _check_jitter), default=0),
    "after": Field(JOINED),
    "session_name": Field(LABEL, default=""),
    "keywords": Field(JOINED, default=""),
    "priority": Field(PRIORITY, default=0),
    "attempts": Field(number(1, 1000), default=1),
    "retry_delay": Field(SECONDS, default=0),
    "timeout": Field(TIMEOUT),
    "overlap": Field(choice("queue", "skip", "parallel", "stop"), default="queue"),
    "misfire": Field(choice("once", "skip", "all"), default="once"),
    "grace": Field(TIMEOUT),
}

CALENDAR_FIELDS = {
    "name": Field(NAMED, required=True),
    "dates": Field(JOINED, required=True),
}
DATA_SERVER_FIELDS = {
    "name": Field(NAMED, required=True),
    "driver": Field(NAMED, required=True),
    "database": Field(FILLED),
    "connect": Field(Kind(_check_connect, _refuse), default={}),
}
MAIL_TLS = ("none", "starttls", "ssl")
MAIL_FIELDS = ("host", "port", "sender", "user", "password", "tls")     # of connect
LOGICAL_SCHEMA_FIELDS = {
    "name": Field(NAMED, required=True),
    "contexts": Field(Kind(_check_schema_contexts, _refuse), required=True),
}
DOCUMENT_FIELDS = ("scenarios", "schedules", "contexts", "data_servers", "logical_schemas",
                   "calendars")
