"""What top shows: how an agent is now, and that as a page of any size."""
import json
from typing import NamedTuple

from ..base.times import Clock, find_instant
from .colours import draw_bar
from .history import PAST_SESSIONS, median
from .instants import show_duration, show_instant, show_relative
from .pictures import fold
from .tables import make_table, printable
from .words import quote

QUICK_ANSWER_S = 5.0    # an agent that is silent for longer is lost
MOST = 100              # rows of a part that are asked for
COMING = 300            # due times, before they are folded
USUAL_BAR = 10          # columns
HISTORY_S = 60.0        # how long the usual durations are believed


class Section(NamedTuple):
    """A part of the page: its title, how many there are, and its rows."""
    title: str
    count: str
    keys: list              # of the rows: ("session", 1001, ...), ("schedule", "NIGHT", ...)
    rows: list              # [{column: value}]


class PageLine(NamedTuple):
    """A line of the page; `key` is that of its row, None of others."""
    text: str
    is_heading: bool
    key: tuple = None


class Board:
    """The agent as it was a moment ago. Nothing is kept but what sessions usually take."""

    def __init__(self, has_bars):
        self.ping, self.parts = {}, []
        self._has_blocks, self._clock = has_bars, Clock()
        self._usual, self._believed_to = {}, 0.0

    def read(self, connection):
        """Asks the agent anew. Raises ClientError."""
        if self._clock.monotonic() > self._believed_to:
            self._usual, self._believed_to = {}, self._clock.monotonic() + HISTORY_S
        reply = connection.ask("PING -JSON", QUICK_ANSWER_S)
        list(reply)
        self.ping = reply.fields
        schedules = ask_for(connection, "SCHED LIST")
        self.parts = [
            self._make_running(connection),
            self._make_sessions("QUEUE", ask_for(connection, "SESSIONS -STATUS=WAITING,QUEUED "
                                                 "-LIMIT=%d" % MOST)[::-1], "start_at"),
            self._make_sessions("FAILED", ask_for(connection, "SESSIONS -STATUS=ERROR,STOPPED "
                                                  "-LIMIT=%d" % MOST), "ended"),
            make_coming(ask_for(connection, "SCHED NEXT -COUNT=%d" % COMING)),
            make_holds([row for row in schedules if row["hold"]])]

    @property
    def is_held(self):
        """Whether the whole agent is held."""
        return self.ping.get("hold") is True

    def _make_running(self, connection):
        """What runs, against what is usual."""
        sessions = ask_for(connection, "SESSIONS -STATUS=RUNNING -LIMIT=%d" % MOST)
        rows = []
        for row, depth in nest(sessions):
            usual_s = self._find_usual(connection, row["scenario"])
            took_s = row["duration"] or 0.0
            bar = draw_bar(took_s / usual_s, USUAL_BAR, self._has_blocks) if usual_s else ""
            rest = "" if not usual_s else (
                "%s over" % show_duration(took_s - usual_s) if took_s > usual_s
                else "%s to go" % show_duration(usual_s - took_s))
            rows.append({"session": row["session"], "scenario": "  " * depth + row["scenario"],
                         "name": row["name"], "took": show_duration(took_s), "bar": bar,
                         "left": rest, "message": row["message"]})
        return make_section("RUNNING", "session", rows)

    def _find_usual(self, connection, scenario):
        """The median duration of past sessions; None: there is none."""
        if scenario not in self._usual:
            rows = ask_for(connection, "SESSIONS -SCENARIO=%s -STATUS=DONE,WARNING -LIMIT=%d"
                           % (quote(scenario), PAST_SESSIONS))
            self._usual[scenario] = median(
                [row["duration"] for row in rows if row["duration"] is not None])
        return self._usual[scenario]

    @staticmethod
    def _make_sessions(title, sessions, when):
        rows = [{"session": row["session"], "scenario": row["scenario"], "name": row["name"],
                 "of": "of %d" % row["parent"] if row["parent"] else "", "status": row["status"],
                 "when": tell_when(row[when]), "message": row["message"]}
                for row in sessions]
        return make_section(title, "session", rows)

    def make_head(self):
        """The lines above all parts."""
        ping = self.ping
        lines = ["%s %s  %s  up %s  running %s  queued %s  repositories %s  %s" % (
            ping["agent"], ping["version"], ping["status"], show_duration(ping["uptime"]),
            ping["running"], ping["queued"], ping["repositories"],
            show_instant(self._clock.now())[11:])]
        if self.is_held:
            until = tell_when(ping.get("hold_until"))
            lines.append("HELD%s%s%s" % (
                " by %s" % ping["hold_by"] if ping.get("hold_by") else "",
                " until %s" % until if until else "",
                ": %s" % ping["hold_reason"] if ping.get("hold_reason") else ""))
        return [printable(line) for line in lines]

    def list_keys(self):
        """The keys of all rows, in their order."""
        return [key for part in self.parts for key in part.keys]

    def make_page(self, height, width, chosen=None):
        """The page without its head, in so many lines: [PageLine]. The row of the chosen key is
        among them."""
        parts = [part for part in self.parts if part.rows or part.title == "RUNNING"]
        shares = share_lines([len(part.rows) for part in parts], height - len(parts))
        lines = []
        for part, share in zip(parts, shares):
            more = "" if share >= len(part.rows) else "  (%d of them here)" % share
            lines.append(PageLine(("%s %s%s" % (part.title, part.count, more)).rstrip(), True))
            texts = make_table(part.rows, width - 2)[1:] if part.rows else []
            begin = 0
            if chosen in part.keys:
                begin = max(0, part.keys.index(chosen) - share + 1)
            lines += [PageLine("  " + text, False, key) for key, text in
                      list(zip(part.keys, texts))[begin:begin + share]]
        return [line._replace(text=line.text[:width]) for line in lines[:max(0, height)]]


def ask_for(connection, request):
    """The JSON objects of a reply; PING tells that a repository is missing. Raises ClientError."""
    reply = connection.ask(request + " -JSON", QUICK_ANSWER_S, is_lenient=True)
    return [json.loads(line) for line in list(reply)]


def make_section(title, kind, rows):
    """A Section whose rows have what they are in a column of this name."""
    count = "%d%s" % (len(rows), " or more" if len(rows) == MOST else "")
    names = [row[kind] for row in rows]
    keys = [(kind, name) if kind == "session" else (kind, name, title, names[:place].count(name))
            for place, name in enumerate(names)]        # a session is in one section at a time
    return Section(title, count, keys, rows)


def nest(sessions):
    """Sessions, the newest first, as [(row, how deep)]: each with those that it has started below
    it, the oldest of them first."""
    numbers = {row["session"] for row in sessions}
    children = {}
    for row in sessions:
        if row["parent"] in numbers:
            children.setdefault(row["parent"], []).append(row)
    rows = []
    to_follow = [(row, 0) for row in sessions[::-1] if row["parent"] not in numbers]
    while to_follow:
        row, depth = to_follow.pop()
        rows.append((row, depth))
        to_follow += [(child, depth + 1) for child in children.get(row["session"], ())]
    return rows


def tell_when(value):
    """A time of the agent as how far away it is, or nothing."""
    instant = find_instant(value)
    return "" if instant is None else show_relative(instant)


def make_coming(due):
    """The coming due times as a part."""
    rows = []
    for row in fold(due, len(due) == COMING):
        times = row.get("times", "").replace(" or more", "+")
        rows.append({"schedule": row["schedule"], "when": tell_when(row["due"]),
                     "due": show_instant(find_instant(row["due"]))[5:],
                     "times": "x " + times if times else "", "note": row["note"]})
    return make_section("NEXT", "schedule", rows)._replace(count="")


def make_holds(schedules):
    """The schedules that are held as a part."""
    rows = [{"schedule": row["name"], "until": tell_when(row.get("hold_until")),
             "message": row.get("hold_reason") or ""} for row in schedules]
    return make_section("HELD SCHEDULES", "schedule", rows)


def share_lines(wanted_lines, room):
    """How many lines each part gets, one after the other in turn, until all have what they want or
    there is no room: [count]."""
    shares = [0] * len(wanted_lines)
    while room > 0 and shares != wanted_lines:
        for place, wish in enumerate(wanted_lines):
            if room > 0 and shares[place] < wish:
                shares[place] += 1
                room -= 1
    return shares
