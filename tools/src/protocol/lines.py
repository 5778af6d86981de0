"""The lines of replies, filled by the table of their fields."""
from typing import NamedTuple

from ..base.replies import (END_LINE, FLAG_KEY, SECOND_KEY, SESSION_LINE, TICKET_LINE, TIME_KEY)
from ..base.times import from_text, local_iso, to_local

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
    return fill(TICKET_LINE, {"session": ticket.session, "status": ticket.status}, **more)


def session_fields(agent, row, line=SESSION_LINE):
    """The line of a session, from its row."""
    duration = None
    if row["begun"]:
        end = from_text(row["ended"]) if row["ended"] else agent.clock.now()
        duration = round(max(0.0, end - from_text(row["begun"])), 3)
    return fill(line, row, session=row["id"], duration=duration)


def end_fields(agent, row):
    """The OK fields of a session that has ended."""
    return session_fields(agent, row, END_LINE)
