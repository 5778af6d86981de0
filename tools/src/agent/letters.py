"""What a notice says: its events as JSON, and as a mail that can be read."""
import collections

from ..base.controls import show_controls
from ..base.times import local_iso, to_local
from ..tasks.notify import Letter

TOLD_EVENTS = 20        # of a mail with all that is known of them
LISTED_EVENTS = 200     # of a mail that have a line

_EVENT_WORDS = {"error": "ended in ERROR", "stopped": "was STOPPED", "failed": "could not start",
          "late": "began late", "skipped": "did not run", "long": "takes long",
          "stale": "was interrupted by a crash", "test": "is a test"}


def make_event(kind, row, message, lines, commands):
    """An event of JSON of a row of happening; `commands` is what to type next."""
    return {"kind": kind, "scenario": row["scenario"], "session": row["session"],
            "schedule": row["schedule"], "due": row["due"] and to_local(row["due"]),
            "message": message, "lines": lines,
            "next": commands}


def list_next(kind, row, parent, is_plan):
    """The words of the client that tell more of a row of happening, or mend it. A load plan prints
    nothing itself; what a session has started is mended by that one, its `parent`."""
    session = row["session"]
    if session is None or kind == "late":
        return ["sched why %s" % row["schedule"]]
    if kind in ("error", "stopped"):
        return ["status %d" % session if is_plan else "log %d" % session,
                "status %d" % parent if parent else "restart %d" % session]
    if kind == "long":
        return ["%s %d --follow" % ("wait" if is_plan else "log", session), "stop %d" % session]
    return ["status %d" % session]


def make_letter(agent, name, number, events, count):
    """The Letter of a notice; `count`: of all events, of which not all may be there."""
    missing = count - len(events)
    if missing > 0:
        events[-1] = dict(events[-1], message="%s (and %d more, which are not listed)" % (
            events[-1]["message"], missing))
    document = {"agent": agent, "notice": name, "id": number, "events": events}
    return Letter(number, document, _tell_subject(agent, events, count),
                  _tell_body(agent, name, events, count))


def _tell_subject(agent, events, count):
    first = events[0]
    what = "session %d of %s" % (first["session"], first["scenario"]) if first["session"] \
        else "schedule %s" % first["schedule"] if first["schedule"] else "a notice"
    if count == 1:
        return "[%s] %s %s" % (agent, what, _EVENT_WORDS[first["kind"]])
    kinds = collections.Counter(event["kind"] for event in events)
    return "[%s] %d events: %s" % (agent, count, ", ".join(
        "%d %s" % (number, kind) for kind, number in kinds.most_common()))


def _tell_body(agent, name, events, count):
    """The text of a mail: some events with all that is known, a line for others, and how many more
    there are."""
    parts = [_tell_event(event) for event in events[:TOLD_EVENTS]]
    listed = events[TOLD_EVENTS:LISTED_EVENTS]
    if listed:
        parts.append("\n".join(["More:"] + [_list_event(event) for event in listed]))
    more = count - min(len(events), LISTED_EVENTS)
    if more:
        parts.append("And %d more." % more)
    parts.append("-- \nNotice %s of agent %s. agentcli.py notice list" % (name, agent))
    return "\n\n".join(parts) + "\n"


def _list_event(event):
    about = ["session %d" % event["session"]] if event["session"] else []
    about += ["schedule %s" % event["schedule"]] if event["schedule"] else []
    return show_controls("%s %s: %s" % (event["kind"], " ".join([event["scenario"]] + about),
                                        event["message"]))


def _tell_event(event):
    """All that is known of an event."""
    fields = [("scenario", event["scenario"]), ("session", event["session"]),
              ("schedule", event["schedule"]), ("due", event["due"]),
              ("message", event["message"])]
    lines = ["%s %s" % (event["scenario"] or "This", _EVENT_WORDS[event["kind"]])]
    lines += ["  %-9s %s" % (name + ":", show_controls(str(value)))
              for name, value in fields if value not in (None, "")]
    if event["lines"]:
        lines += ["  its last lines:"] + ["    | " + show_controls(line)
                                          for line in event["lines"]]
    return "\n".join(lines + ["  next:     " + event["next"]])


def make_test_event(by, now, command):
    """The one event of a NOTICE TEST."""
    return {"kind": "test", "scenario": "", "session": None, "schedule": None,
            "due": local_iso(now),
            "message": "a test, asked for by %s; nothing has gone wrong" % by,
            "lines": [], "next": command}
