"""Timelines as SVG that fits every width: times are shares of it, nothing but bars stretches."""
import time

from ..base.times import find_instant
from .instants import show_clock, show_duration
from .markup import join_markup, markup

LANE, BAR = 38, 12      # pixels of a lane, and of the bars in it
AXIS = 22               # pixels of the times above the lanes
MAX_LANES = 12          # further scenarios share the last one
TICKS_S = (10, 30, 60, 300, 900, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 7 * 86400,
           28 * 86400)
MAX_TICKS = 5
LEAST_WIDTH = 0.35      # per cent of the width: what is shorter is seen all the same


def find_bounds(row, now):
    """(begin, end, whether it has ended) of a session or task that has begun, in epoch seconds;
    None of one that has not."""
    begin, end = find_instant(row["begun"]), find_instant(row["ended"])
    return None if begin is None else (begin, max(begin, now if end is None else end),
                                       end is not None)


def draw_sessions(rows, now):
    """The sessions of a listing by scenario, over the time in which they ran; nothing where none
    has begun."""
    spans = [(row, find_bounds(row, now)) for row in rows]
    spans = [(row, span) for row, span in spans if span is not None]
    if not spans:
        return ""
    begin, end = min(span[0] for _, span in spans), max(span[1] for _, span in spans)
    end = max(end, begin + 1.0)
    lanes = list(dict.fromkeys(row["scenario"] for row, _ in spans))
    names = lanes if len(lanes) <= MAX_LANES else lanes[:MAX_LANES - 1] + [
        "%d more scenarios" % (len(lanes) - MAX_LANES + 1)]
    parts = [_draw_ticks(begin, end, now, AXIS + LANE * len(names))]
    parts += [markup('<text class="lane" x="0" y="%s">%s</text>', AXIS + LANE * lane + 12, name)
              for lane, name in enumerate(names)]
    for row, span in reversed(spans):
        lane = min(lanes.index(row["scenario"]), len(names) - 1)
        parts.append(markup(
            '<a href="/session/%s" tabindex="-1"><title>%s</title>%s</a>', row["session"],
            "%s %s: %s, %s" % (row["scenario"], row["session"], row["status"],
                               show_duration(span[1] - span[0])),
            _draw_bar(row, span, begin, end, AXIS + LANE * lane + 17)))
    return markup(
        '<svg class="timeline" role="img" aria-label="%s" width="100%%" height="%s">%s</svg>',
        "When the %d sessions of this list ran, from %s to %s; the table tells the same" % (
            len(spans), show_clock(begin, now), show_clock(end, now)),
        AXIS + LANE * len(names), join_markup(parts))


def draw_attempt(row, begin, end, now):
    """The bar of one attempt of a step or task within the time of its session."""
    span = find_bounds(row, now)
    if span is None:
        return ""
    return markup('<svg class="bar" aria-hidden="true" width="100%%" height="%s">'
                  '<rect class="track" width="100%%" height="%s" rx="2"/>%s</svg>', BAR, BAR,
                  _draw_bar(row, span, begin, end, 0))


def _draw_bar(row, span, begin, end, top):
    """A bar of the time from begin to end."""
    scale = 100.0 / max(end - begin, 0.001)
    width = min(100.0, max(LEAST_WIDTH, (span[1] - span[0]) * scale))
    start = max(0.0, min((span[0] - begin) * scale, 100.0 - width))
    return markup('<rect class="b-%s" x="%s%%" y="%s" width="%s%%" height="%s" rx="2"/>',
                  row["status"].lower(), "%.3f" % start, top, "%.3f" % width, BAR)


def _draw_ticks(begin, end, now, height):
    """Lines at round times of day, with what they are."""
    step_s = next((step for step in TICKS_S if (end - begin) / step <= MAX_TICKS), TICKS_S[-1])
    offset_s = time.localtime(begin).tm_gmtoff
    tick, parts = (begin + offset_s) // step_s * step_s - offset_s + step_s, []
    while tick < end:
        share = 100.0 * (tick - begin) / (end - begin)
        if 4 < share < 94:
            parts.append(markup(
                '<line class="tick" x1="%s%%" x2="%s%%" y1="16" y2="%s"/>'
                '<text class="axis" x="%s%%" y="11" text-anchor="middle">%s</text>', "%.3f" % share,
                "%.3f" % share, height, "%.3f" % share, show_clock(tick, now, step_s < 60)))
        tick += step_s
    return join_markup(parts)
