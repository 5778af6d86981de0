"""How long sessions of a scenario and their steps take, from those that ended well."""
import json

from ..base.times import find_instant
from .words import quote

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
