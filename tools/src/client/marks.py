"""The pictures of a report: sessions along a time axis, and how long they took."""
import time
from typing import NamedTuple

from .history import median
from .instants import show_duration
from .markup import Markup, tag

WIDE = 1000                 # units of a picture's width, whatever the screen makes of them
LEAST_WIDTH = 2.0           # of a mark, so that it is seen
ROW = 18                    # units of height of a row of sessions
MOST_ROWS = 5               # that sessions of a scenario at the same time take
MOST_MARKS = 150            # of a scenario, one a session; more sessions are drawn by columns
COLUMN = 2.5                # width of one of those
MOST_TICKS = 9
CHART = 64                  # height of a picture of durations
MOST_POINTS = 200           # of such a picture; of more, the longest of each column
# state -> share of a row's height: what is worse is taller, too
HEIGHTS = {"DONE": 0.4, "RUNNING": 0.4, "WARNING": 0.66, "STOPPED": 1.0, "ERROR": 1.0}
WORST_FIRST = ("ERROR", "STOPPED", "WARNING", "RUNNING", "DONE")
STEPS_S = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
STEPS_D = (1, 2, 7, 14, 30, 90, 365)


class Axis(NamedTuple):
    """The time that a picture shows, in epoch seconds."""
    begin: float
    end: float

    def place(self, instant):
        """Where an instant stands, 0 to WIDE."""
        share = (instant - self.begin) / max(1.0, self.end - self.begin)
        return WIDE * min(1.0, max(0.0, share))

    def list_ticks(self):
        """[(instant, label)]: round local times, some five to nine of them."""
        length_s = max(1.0, self.end - self.begin)
        step_s = next((step for step in STEPS_S if length_s / step <= MOST_TICKS), None)
        year, month, day = time.localtime(self.begin)[:3]
        if step_s is None:
            step_d = next((step for step in STEPS_D if length_s / 86400 / step <= MOST_TICKS),
                          STEPS_D[-1])
            instants = (time.mktime((year, month, day + number * step_d, 0, 0, 0, 0, 0, -1))
                        for number in range(int(length_s / 86400 / step_d) + 2))
        else:
            midnight = time.mktime((year, month, day, 0, 0, 0, 0, 0, -1))
            instants = (midnight + number * step_s for number in range(
                int((self.begin - midnight) / step_s), int((self.end - midnight) / step_s) + 1))
        is_long = length_s > 300 * 86400
        return [(instant, show_year(instant) if is_long else show_tick(instant))
                for instant in instants
                if self.begin <= instant <= self.end]


def show_year(instant):
    """A day of a picture that shows years."""
    return time.strftime("%d %b %Y", time.localtime(instant))


def show_tick(instant):
    """A round time in a few characters; midnight is its day."""
    local = time.localtime(instant)
    if local[3:6] == (0, 0, 0):
        return time.strftime("%a %d %b", local)
    return time.strftime("%H:%M:%S" if local[5] else "%H:%M", local)


def show_moment(instant):
    """An instant with its day of the week."""
    return time.strftime("%a %d %b %H:%M:%S", time.localtime(instant))


def show_length(seconds):
    """A duration; less than a second in thousandths."""
    return "%d ms" % (1000 * seconds) if seconds < 0.95 else show_duration(seconds)


def make_picture(height, label, *parts, **attributes):
    """An SVG that is as wide as there is room."""
    return tag("svg", *parts, viewBox="0 0 %d %d" % (WIDE, height), preserveAspectRatio="none",
               style="height:%dpx" % height, role="img", aria_label=label, **attributes)


def make_ruler(axis):
    """The labels of the ticks, above or below the pictures; screen readers have them in each
    table."""
    labels = []
    for number, (instant, label) in enumerate(axis.list_ticks()):
        share = axis.place(instant) / WIDE
        kind = "tick%s%s%s" % (" even" * (number % 2), " first" * (share < 0.04),
                               " last" * (share > 0.96))
        labels.append(tag("span", label, style="left:%.2f%%" % (100 * share), class_=kind))
    return tag("div", *labels, class_="ruler", aria_hidden="true")


def make_grid(axis, height):
    """The lines of the ticks, as one path."""
    path = "".join("M%.1f 0V%d" % (axis.place(instant), height)
                   for instant, _ in axis.list_ticks())
    return tag("path", d=path, class_="grid") if path else Markup("")


def draw_lane(axis, scenario, sessions, links):
    """The sessions of a scenario, oldest first, as marks along the axis. `links`: {number of a
    session: the id of what says more of it}."""
    label = "%s: %s" % (scenario, tell_counts(sessions))
    if len(sessions) > MOST_MARKS:
        marks, rows = draw_columns(axis, sessions), 1
    else:
        marks, rows = draw_marks(axis, sessions, links)
    return make_picture(ROW * rows, label, make_grid(axis, ROW * rows), *marks)


def tell_counts(sessions):
    """How many sessions there are, and of those how many in which state but DONE."""
    states = [past.status for past in sessions]
    others = ["%s\u00a0%s" % (format(states.count(state), ","), state)
              for state in WORST_FIRST[:-1] if state in states]
    return ", ".join([tell_number(len(states), "session")] + others)


def tell_number(count, noun):
    """`1 session`, `1,200 sessions`."""
    return "%s %s%s" % (format(count, ","), noun, "s" * (count != 1))


def draw_marks(axis, sessions, links):
    """A mark for each session; those that overlap stand in rows -> ([Markup], rows)."""
    marks, ends = [], []
    for past in sessions:
        ended = axis.end if past.ended is None else past.ended
        row = next((row for row, end in enumerate(ends) if end <= past.begun), len(ends))
        if row == MOST_ROWS:
            row = ends.index(min(ends))
        ends[row:row + 1] = [ended]
        took = "" if past.took_s is None else ", " + show_length(past.took_s)
        title = "%d %s, %s%s%s" % (past.number, past.status, show_moment(past.begun), took,
                                   ": " + past.message if past.message else "")
        drawn = draw_mark(axis, past.begun, ended, past.status, title[:200], row)
        if past.number in links:
            drawn = tag("a", drawn, href="#" + links[past.number])
        marks.append(drawn)
    return marks, max(1, len(ends))


def draw_mark(axis, begun, ended, status, title, row=0):
    """What stands for sessions of a state, from one instant to another."""
    place = min(axis.place(begun), WIDE - LEAST_WIDTH)
    width = max(LEAST_WIDTH, axis.place(ended) - place)
    height = HEIGHTS.get(status, 0.4) * (ROW - 2)
    return tag("rect", tag("title", title), x="%.1f" % place, width="%.1f" % width,
               y="%.1f" % (row * ROW + (ROW - height) / 2), height="%.1f" % height,
               class_="mark " + status.lower())


def draw_columns(axis, sessions):
    """Many sessions: each column of the picture has the worst state that was in its time, and
    columns of one state are one mark -> [Markup]."""
    columns = int(WIDE / COLUMN)
    changes = {state: [0] * (columns + 1) for state in WORST_FIRST}
    for past in sessions:
        steps = changes.get(past.status, changes["DONE"])
        first = min(columns - 1, int(axis.place(past.begun) / COLUMN))
        last = columns - 1 if past.ended is None else min(
            columns - 1, int(axis.place(past.ended) / COLUMN))
        steps[first] += 1
        steps[last + 1] -= 1
    worst, running = [], dict.fromkeys(WORST_FIRST, 0)
    for column in range(columns):
        for state in WORST_FIRST:
            running[state] += changes[state][column]
        worst.append(next((state for state in WORST_FIRST if running[state]), None))
    marks, begin = [], 0
    for column in range(1, columns + 1):
        if column == columns or worst[column] != worst[begin]:
            if worst[begin]:
                first, last = (axis.begin + (axis.end - axis.begin) * place / columns
                               for place in (begin, column))
                marks.append(draw_mark(axis, first, last, worst[begin], "%s to %s: %s at worst" % (
                    show_moment(first), show_moment(last), worst[begin])))
            begin = column
    return marks


def draw_durations(axis, scenario, sessions):
    """How long the sessions of a scenario took, as points along the axis, with a line at what is
    usual."""
    timed = [past for past in sessions if past.took_s is not None and past.ended is not None]
    longest_s = max(past.took_s for past in timed) or 0.001
    usual_s = median([past.took_s for past in timed if past.status == "DONE"])
    points = {}
    for past in thin_out(axis, timed):
        points.setdefault(past.status, []).append("M%.1f %.1fh.1" % (
            axis.place(past.begun), CHART - 5 - (CHART - 10) * past.took_s / longest_s))
    paths = [tag("path", d="".join(points[state]), class_="points " + state.lower())
             for state in reversed(WORST_FIRST) if state in points]
    if usual_s is not None:
        height = CHART - 5 - (CHART - 10) * usual_s / longest_s
        paths.insert(0, tag("path", d="M0 %.1fH%d" % (height, WIDE), class_="usual"))
    label = "Durations of %s: %d sessions, longest %s%s" % (
        scenario, len(timed), show_length(longest_s),
        "" if usual_s is None else ", usually %s" % show_length(usual_s))
    return make_picture(CHART, label, make_grid(axis, CHART), *paths)


def thin_out(axis, sessions):
    """Of many sessions the longest of each column and state."""
    if len(sessions) <= MOST_POINTS:
        return sessions
    longest = {}
    for past in sessions:
        key = int(axis.place(past.begun) / WIDE * MOST_POINTS), past.status
        if key not in longest or longest[key].took_s < past.took_s:
            longest[key] = past
    return list(longest.values())


def find_quantile(values, share):
    """The value that a share of some sorted numbers does not exceed."""
    return values[min(len(values) - 1, int(share * len(values)))]


def make_legend():
    """What the marks mean."""
    words = {"done": "DONE", "warning": "WARNING", "error": "ERROR", "stopped": "STOPPED",
             "running": "RUNNING"}
    keys = [tag("li", tag("span", "", class_="key " + kind), word)
            for kind, word in words.items()]
    return tag("ul", *keys, class_="legend", aria_label="What the marks mean")
