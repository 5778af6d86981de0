"""The lines of replies, filled by the table of their fields."""
from typing import NamedTuple

from ..base.replies import (END_LINE, FLAG_KEY, NUMBER_KEY, SECOND_KEY, SECONDS_KEY, SESSION_LINE,
                            TEXT_KEY, TICKET_LINE)
from ..base.times import from_text, local_iso, to_local
from .narrow import find_parent

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
    return [(name, values[name] if kind in _AS_THEY_ARE else _as_shown(kind, values[name]))
            for name, kind, _, is_optional in line.keys if not is_optional or name in values]


_AS_THEY_ARE = frozenset((TEXT_KEY, NUMBER_KEY, SECONDS_KEY))


def _as_shown(kind, value):
    if value is None:
        return None
    if kind == FLAG_KEY:
        return bool(value)
    if kind == SECOND_KEY:
        return local_iso(value)
    return to_local(value) if isinstance(value, str) else local_iso(value, "milliseconds")


def ticket_fields(ticket):
    """The OK fields of an acknowledged session."""
    more = {"duplicate": True} if ticket.is_duplicate else {}
    return fill_ticket(TICKET_LINE, ticket, **more)


def fill_ticket(line, ticket, **more):
    """`fill` of a line that tells of a Ticket, and what it waits for, where that is known."""
    wait = ticket.wait
    words = {} if wait is None else {
        "start_at": ticket.start_at, "waits_for": wait.word, "message": wait.text}
    more.update([(name, value) for name, value in words.items() if value])
    return fill(line, more, session=ticket.session, status=ticket.status)


def session_fields(agent, row, client, parents, **more):
    """The line of a session for a Client, from its row and what it waits for; `parents`: as
    find_parent() takes it."""
    wait = agent.waits.of_row(row, client.scenarios)
    return fill(SESSION_LINE, row, session=row["id"], duration=find_duration(agent, row),
                parent=find_parent(agent, client, parents, row["parent"]), waits_for=wait.word,
                message="; ".join(filter(None, (row["message"], wait.text))), **more)


def find_duration(agent, row):
    """How long the newest start of a session took, or takes so far; None: it has not begun."""
    if not row["begun"]:
        return None
    end = from_text(row["ended"]) if row["ended"] else agent.clock.now()
    return round(max(0.0, end - from_text(row["begun"])), 3)


def end_fields(agent, row):
    """The OK fields of a session that has ended."""
    return fill(END_LINE, row, session=row["id"], duration=find_duration(agent, row))
