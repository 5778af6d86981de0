"""What a terminal adds to words: colours and bars; https://no-color.org."""
import os
import re

RED, GREEN, YELLOW, MAGENTA, CYAN, DIM, BOLD = "31", "32", "33", "35", "36", "2", "1"
# a state, or what was decided of a due time -> its colour; the word is always there
STATE_COLOURS = {
    "RUNNING": CYAN, "DONE": GREEN, "WARNING": YELLOW, "ERROR": RED, "STOPPED": MAGENTA,
    "WAITING": DIM, "QUEUED": DIM, "failed": RED, "skipped": YELLOW, "late": YELLOW,
    "started": GREEN, "never": RED, "queues": YELLOW, "READY": GREEN, "DEGRADED": RED,
    "STANDBY": YELLOW, "TROUBLE": RED}
STATE_WORD = re.compile(r"\b(?:%s)\b" % "|".join(STATE_COLOURS))


def is_terminal(stream):
    """Whether people read a stream as it comes; None is a stream that is closed."""
    return stream is not None and not stream.closed and stream.isatty()


def has_controls(stream):
    """Whether a stream is a terminal that can move its cursor."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") != "dumb"


def has_colours(stream):
    """Whether to colour what is written to a stream."""
    return has_controls(stream) and not os.environ.get("NO_COLOR")


def paint(text, colour, is_coloured=True):
    """A text in a colour."""
    return "\x1b[%sm%s\x1b[0m" % (colour, text) if is_coloured else text


def paint_state(text, is_coloured):
    """A text with the state that it begins with coloured."""
    match = is_coloured and STATE_WORD.match(text)
    if not match:
        return text
    word = match.group()
    return paint(word, STATE_COLOURS[word]) + text[len(word):]


def has_blocks(stream):
    """Whether the encoding of a stream has what smooth bars are made of."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def draw_bar(share, width, blocks):
    """A bar that is filled up to a share, 0 to 1; with `blocks` it is smooth."""
    filled = int(min(max(share, 0.0), 1.0) * width + 0.5)
    return ("\u2588" * filled + "\u2591" * (width - filled) if blocks
            else "#" * filled + "-" * (width - filled))


def draw_length(share, width, blocks):
    """A bar as long as a share of a width, at least its shortest part."""
    return ("\u2588" if blocks else "#") * max(1, int(min(max(share, 0.0), 1.0) * width + 0.5))
