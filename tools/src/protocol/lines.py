"""The lines of replies: their fields and their order."""
from ..base.times import from_text, local_iso, to_local

FLUSH = object()        # in a reply: send now what there is

_TIMES = ("due", "last_due", "created", "begun", "ended", "decided", "imported")


def columns(row, names):
    """Fields of a row by the names of its columns; times in the agent's zone. Rows that are only
    shown come as the tables have them."""
    return [(name, to_local(row[name]) if name in _TIMES else row[name]) for name in names.split()]


def instant(when):
    """Epoch seconds, or None -> the value of a field."""
    return None if when is None else local_iso(when, "milliseconds")


def ticket_fields(ticket):
    """The OK fields of an acknowledged session."""
    fields = [("session", ticket.session), ("status", ticket.status)]
    return fields + [("duplicate", True)] if ticket.is_duplicate else fields


def session_fields(agent, row):
    """The line of a session."""
    duration = None
    if row["begun"]:
        end = from_text(row["ended"]) if row["ended"] else agent.clock.now()
        duration = round(max(0.0, end - from_text(row["begun"])), 3)
    return [("session", row["id"])] + columns(
        row, "scenario version context status name keywords schedule due created begun ended") + [
            ("duration", duration), ("message", row["message"])]


def end_fields(agent, row):
    """The OK fields of a session that has ended."""
    wanted = ("session", "status", "duration", "message")
    return [field for field in session_fields(agent, row) if field[0] in wanted]
