"""The fields of the nodes of a load plan, as tables."""
from .fields import TASK_TYPES
from .kinds import (BOOLEAN, FILLED, Field, JOINED, Kind, NAMED, PRIORITY, SECONDS, TEXT, TIMEOUT,
                    VALUES, VARIABLE_NAME, WHOLE_SECONDS, _check_value, _check_variable, _of_type,
                    _refuse, between, check_each, check_items, choice)
from ..base.words import check_name
from .plan import (ALL_AGAIN, CASE, FAILED_TASK, FOR_EACH, IGNORE, LATEST, MAX_VALUES, NEW_SESSION,
                   ONLY_FAILED, PARALLEL, RAISE, RUN, SERIAL, check_date, check_version)
from .references import list_references


def _referring(check, accepts):
    """A text that is checked by itself, unless it has references: then when it has its values."""
    return Kind(lambda value: TEXT.check(value) if isinstance(value, str) and list_references(value)
                else check(value), _refuse, accepts + ", or text with references")


def _check_returns(value):
    """Variables of the scenario by name -> variables of the plan. ValueError."""
    if not isinstance(value, dict):
        raise ValueError("must be an object: variable of the scenario to variable of the plan")
    check_each([("." + name, _check_variable, name) for name in value]
               + [("." + name, _check_variable, item) for name, item in value.items()])
    return value


def _check_in(value):
    if not isinstance(value, list):
        raise ValueError("must be a list of values")
    if len(value) > MAX_VALUES:
        raise ValueError("has %d values; there may be %d" % (len(value), MAX_VALUES))
    return check_items(_check_value, value)


def _check_step(value):
    return WHOLE_SECONDS.check(value) or _refuse("must be more than 0 seconds")


_LIST, _OBJECT = _of_type((list,), "a list"), _of_type((dict,), "an object")
_NODE_NAME = _referring(check_name, "a name")
_VERSION = _referring(check_version, "a name, -1")
_LOOP_DATE = _referring(check_date, "a date")
_MAX_ERRORS = Field(between(0, MAX_VALUES), default=0, meaning="after more errors than so many "
                    "nothing more begins and the node fails; up to them it ends in WARNING")
_RESTART_BELOW = Field(choice(ONLY_FAILED, ALL_AGAIN), default=ONLY_FAILED, meaning="what RESTART "
                       "runs again of it: what failed and what was not reached, or all")

# of a node of any kind
NODE_FIELDS = {
    "name": Field(NAMED, meaning="its name, once in the plan"),
    "enabled": Field(BOOLEAN, default=True, meaning="false: it is passed over"),
    "timeout": Field(TIMEOUT, meaning="an attempt ends in ERROR after so long, and the sessions "
                     "below it that run are stopped"),
    "attempts": Field(between(1, 1000), default=1, meaning="how often it is tried"),
    "retry_delay": Field(SECONDS, default=0, meaning="pause before the next attempt"),
    "exception": Field(_OBJECT, meaning="a node that is run once when the last attempt failed"),
    "on_exception": Field(choice(RAISE, IGNORE), default=RAISE, meaning="how the node ends when "
                          "its exception ended well: in ERROR, or in WARNING"),
}
# kind -> its own, the one that makes it of that kind the first
KIND_FIELDS = {
    RUN: {
        "run": Field(_NODE_NAME, required=True, meaning="the scenario that it starts a session of"),
        "version": Field(_VERSION, default=LATEST,
                         meaning="version of the scenario; -1 is the latest at the time"),
        "context": Field(_NODE_NAME, meaning="context of the session (that of the plan)"),
        "variables": Field(VALUES, default={}, meaning="values for variables of that scenario; "
                           "they win over those of the plan"),
        "keywords": Field(JOINED, default="", meaning="keywords of the session"),
        "priority": Field(PRIORITY, meaning="a higher one leaves the queue first (the plan's)"),
        "returns": Field(Kind(_check_returns, _refuse, "an object: variable to variable"),
                         default={}, meaning="variables of the scenario, each with the variable of "
                         "the plan that takes its value when the session ended well"),
        "restart": Field(choice(FAILED_TASK, NEW_SESSION), default=FAILED_TASK, meaning="what "
                         "RESTART makes of a session that failed: it goes on at the task that "
                         "failed, or there is a new one"),
    },
    SERIAL: {
        "serial": Field(_LIST, required=True, meaning="nodes, one after the other; one that fails "
                        "is the last"),
        "restart": _RESTART_BELOW,
    },
    PARALLEL: {
        "parallel": Field(_LIST, required=True, meaning="nodes at the same time"),
        "limit": Field(between(1, MAX_VALUES), meaning="how many of them at most (all)"),
        "max_errors": _MAX_ERRORS,
        "restart": _RESTART_BELOW,
    },
    CASE: {
        "case": Field(_OBJECT, required=True, meaning="the first branch that fits, see below"),
    },
    FOR_EACH: {
        "for_each": Field(_OBJECT, required=True, meaning="a variable and its values, see below"),
        "do": Field(_OBJECT, required=True, meaning="the node that is run for each value"),
        "parallel": Field(between(1, MAX_VALUES), default=1,
                          meaning="how many values at the same time at most"),
        "max_errors": _MAX_ERRORS,
        "restart": _RESTART_BELOW,
    },
}
CASE_FIELDS = {
    "variable": Field(VARIABLE_NAME, required=True, meaning="the variable that is compared"),
    "when": Field(_LIST, required=True, meaning="branches, at least one, see below"),
    "else": Field(_OBJECT, meaning="the node that is run when no branch fits (none: DONE)"),
}
EACH_FIELDS = {
    "variable": Field(VARIABLE_NAME, required=True, meaning="takes each value in turn; it need not "
                      "be a variable of the plan"),
    "in": Field(Kind(_check_in, _refuse, "a list of at most %d values" % MAX_VALUES),
                meaning="the values"),
    "from": Field(_LOOP_DATE, meaning="or dates: the first"),
    "to": Field(_LOOP_DATE, meaning="the last, if the step meets it"),
    "step": Field(Kind(_check_step, _refuse, "a duration of whole seconds above 0"), default=None,
                  meaning="from one to the next (1d)"),
    "schema": Field(_NODE_NAME, meaning="or the first column of a query: where it runs"),
    "query": Field(FILLED, meaning="the query, with the variables as :name"),
    "files": Field(FILLED, meaning="or the files of a pattern, by their names"),
}


def when_fields():
    """The fields of a branch of a case, which compares as an evaluate task does."""
    compared = TASK_TYPES["evaluate"].fields
    return {"operator": compared["operator"], "value": compared["value"],
            "do": Field(_OBJECT, required=True, meaning="the node that is run when it fits")}
