"""Instants and durations of the agent, as people read them."""
import time

from ..base.times import Clock

LONG_AGO_S = 14 * 86400         # what is further away is shown as a date


def show_instant(instant):
    """Epoch seconds as the reader's local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(instant))


def show_relative(instant, now=None):
    """How long ago, or in how long: `3 min ago`, `in 2 h`; a date where that is far away."""
    away_s = instant - (Clock().now() if now is None else now)
    if abs(away_s) >= LONG_AGO_S:
        return time.strftime("%Y-%m-%d", time.localtime(instant))
    seconds = int(abs(away_s) + 0.5)
    if seconds == 0:
        return "now"
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length_s or unit == "s" or length_s == 60 <= seconds:
            text = "%d %s" % (seconds // length_s, unit)
            break
    return "in " + text if away_s > 0 else text + " ago"


def show_duration(seconds):
    """Seconds in the two units that matter: `0.3 s`, `42 s`, `12 m 05 s`, `3 h 12 m`, `2 d 3 h`."""
    if seconds < 10:
        return "%.1f s" % seconds
    whole = int(seconds + 0.5)
    if whole < 60:
        return "%d s" % whole
    if whole < 3600:
        return "%d m %02d s" % divmod(whole, 60)
    if whole < 86400:
        return "%d h %02d m" % divmod(whole // 60, 60)
    return "%d d %d h" % divmod(whole // 3600, 24)
