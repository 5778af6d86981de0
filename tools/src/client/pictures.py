"""Replies as people read them best: times from now, a session as a tree, due times folded."""
import json
import sys

from ..base.times import find_instant
from ..base.vocabulary import DONE
from .colours import DIM, draw_length, has_blocks, has_colours, is_terminal, paint, paint_state
from .instants import show_duration
from .nodes import fold_nodes
from .shown import put, put_record, show_listing, show_record, tell_none
from .tables import (find_width, printable, put_safe, put_table, to_reader, to_reader_from_now)

LONGEST, LEAST = 24, 8      # columns of the longest bar of a tree, with room and without
BESIDE = 22             # columns of state, duration and gaps
# fields of a session that its tree has, or that follow from others
IN_TREE = ("session", "scenario", "version", "status", "message", "duration")
FOLDED_S = 900.0        # due times of a schedule that follow one another so soon are one line
MIN_FOLDED = 3          # so many of them at least
ASKED = 1000            # due times that are asked for, where nobody says how many


def show_sessions(reply, is_json):
    """Sessions; on a terminal their times are told from now."""
    show_listing(reply, is_json,
                 show_cell=to_reader_from_now if is_terminal(sys.stdout) else to_reader)


class Branch:
    """One line of a tree: a session, an attempt of a step or of a task, a node."""

    def __init__(self, depth, name, row, now):
        """`now` is the agent's: the end of what has not ended."""
        attempt = row.get("attempt") or 1
        self.name = "  " * depth + printable(name) + (" (attempt %d)" % attempt) * (attempt > 1)
        self.depth, self.state, self.message = depth, row["status"], row["message"]
        begun, ended = find_instant(row["begun"]), find_instant(row["ended"])
        self.took_s = None if begun is None else max(0.0, (ended or now or begun) - begun)


def make_tree(rows):
    """The rows of STATUS as branches, in their order: [Branch]."""
    session = rows[0]
    begun = find_instant(session["begun"])
    now = None if begun is None else begun + (session["duration"] or 0.0)
    branches = [Branch(0, "session %s  %s %s" % (session["session"], session["scenario"],
                                                 session["version"]), session, now)]
    for row, depth, name in fold_nodes([row for row in rows if "node" in row]):
        row = row or {"status": DONE, "message": "", "begun": None, "ended": None}
        branches.append(Branch(depth, name, dict(row, attempt=1), now))     # its name tells it
    for row in rows[1:]:
        if "step" in row:
            branches.append(Branch(1, "%d %s" % (row["step"], row["name"]), row, now))
        elif "task" in row:
            branches.append(Branch(2, " ".join(filter(None, (row["task"], row["type"],
                                                             row["name"]))), row, now))
    return branches


def put_tree(branches):
    """Writes a tree: names, states, durations and bars, and below them what there is to say."""
    is_coloured, blocks = has_colours(sys.stdout), has_blocks(sys.stdout)
    wide = max(len(branch.name) for branch in branches)
    width = (find_width() or 100) - BESIDE
    wide = min(wide, max(10, width - LEAST))
    longest_s = max([branch.took_s or 0.0 for branch in branches]) or 1.0
    room = min(LONGEST, max(LEAST, width - wide))
    for place, branch in enumerate(branches):
        name = branch.name if len(branch.name) <= wide else branch.name[:wide - 1] + "~"
        took = "" if branch.took_s is None else show_duration(branch.took_s)
        bar = "" if branch.took_s is None else draw_length(branch.took_s / longest_s, room, blocks)
        put_safe("  ".join((name.ljust(wide), paint_state(branch.state.ljust(7), is_coloured),
                            took.rjust(9), bar)).rstrip())
        if branch.message and not branch.message.endswith(tuple(list_said(branches[place:]))):
            put_safe(paint("  " * (branch.depth + 1) + printable(branch.message), DIM,
                           is_coloured))


def list_said(branches):
    """The messages of those that hang on the first of some branches."""
    for branch in branches[1:]:
        if branch.depth <= branches[0].depth:
            return
        if branch.message:
            yield branch.message


def show_status(reply, is_json):
    """A session as a tree of its steps and their tasks, or of the nodes of its plan, with bars for
    how long they took; then what else is known of it, and its variables."""
    if is_json:
        show_record(reply, is_json)
        return
    rows = [json.loads(line) for line in list(reply)]
    put_tree(make_tree(rows))
    put("")
    put_record({name: to_reader(value) if find_instant(value) else value
                for name, value in rows[0].items() if name not in IN_TREE})
    others = {}
    for row in rows[1:]:
        others.setdefault(next(iter(row)), []).append(row)
    for kind in (name for name in others if name not in ("step", "task", "node")):
        put("")
        put_table(others[kind])


def fold(rows, is_cut):
    """Coming due times, in order: those of one schedule that follow one another soon, and with the
    same to say of them, are one row with the last of them (`until`) and how many there are.
    `is_cut`: there are more of them than these."""
    runs, newest = [], {}
    for row in rows:
        key = (row["schedule"], row.get("repository"), row["note"])
        due, run = find_instant(row["due"]), newest.get(key)
        if run and due is not None and due - find_instant(run[-1]["due"]) <= FOLDED_S:
            run.append(row)
        else:
            newest[key] = [row]
            runs.append(newest[key])
    last = rows[-1]["due"] if is_cut and rows else None
    return [row for run in runs for row in fold_run(run, last)]


def fold_run(run, last):
    """Due times of one schedule as rows. Those that go on up to `last`, where the listing was cut,
    have no known end."""
    if len(run) < MIN_FOLDED:
        return run
    goes_on = last is not None and (find_instant(last) - find_instant(run[-1]["due"]) <= FOLDED_S)
    return [dict({"schedule": run[0]["schedule"], "due": run[0]["due"],
                  "until": None if goes_on else run[-1]["due"],
                  "times": "%d%s" % (len(run), " or more" * goes_on)}, **run[0])]


def show_coming(reply, is_json):
    """Coming due times; for people those that repeat soon are one line."""
    if is_json:
        show_listing(reply, is_json)
        return
    rows = [json.loads(line) for line in list(reply)]
    rows = sorted(fold(rows, len(rows) == ASKED), key=lambda row: find_instant(row["due"]) or 0.0)
    if rows:
        put_table(rows)
    elif reply.trouble is None:
        tell_none()
