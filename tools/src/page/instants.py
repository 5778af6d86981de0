"""Times as people read them: of the day, from now, and how long."""
import time

from ..base.times import INSTANT, find_instant
from .markup import markup

MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()


def show_duration(seconds):
    """Seconds in two units at most: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return "%.1f s" % seconds
    whole = int(seconds + 0.5)
    if whole < 60:
        return "%d s" % whole
    if whole < 3600:
        return "%d min %02d s" % divmod(whole, 60)
    if whole < 86400:
        return "%d h %02d min" % divmod(whole // 60, 60)
    return "%d d %d h" % divmod(whole // 3600, 24)


def show_distance(seconds):
    """How far away, in one unit: `in 5 min`, `3 h ago`."""
    size = abs(seconds)
    text = next(("%d %s" % (size // unit_s, unit) for unit, unit_s in
                 (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)) if size >= unit_s), "now")
    if text == "now":
        return text
    return "in " + text if seconds > 0 else text + " ago"


def show_clock(instant, now, with_seconds=True):
    """An instant in the agent's zone: the time of day, and the date where that is another."""
    moment, today = time.localtime(instant), time.localtime(now)
    text = time.strftime("%H:%M:%S" if with_seconds else "%H:%M", moment)
    if moment[:3] == today[:3]:
        return text
    if moment.tm_year != today.tm_year:
        return time.strftime("%Y-%m-%d %H:%M", moment)
    return "%s %d %s %s" % (DAYS[moment.tm_wday], moment.tm_mday, MONTHS[moment.tm_mon - 1],
                            text[:5])


def shorten_times(text, now):
    """A sentence in which times are told as the page tells them."""
    return INSTANT.sub(lambda match: show_clock(find_instant(match.group()), now), text)


def make_time(text, now, is_distance=False):
    """A time of a reply as HTML: of the day, or from now. What is no time stays as it is."""
    instant = find_instant(text)
    if instant is None:
        return text or ""
    clock, distance = show_clock(instant, now), show_distance(instant - now)
    return markup('<time datetime="%s" title="%s">%s</time>', text,
                  clock if is_distance else distance,
                  distance if is_distance else clock)
