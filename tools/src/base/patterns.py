"""Patterns of names: `*` stands for any text, `?` for one character, and nothing else does."""
import re

PATTERN = re.compile("[A-Za-z0-9_.*?-]+")


def check_patterns(text):
    """`LOAD_*,REPORT` -> the patterns in order, each once; nothing: (). ValueError."""
    patterns = []
    for pattern in text.split(",") if text else ():
        if not PATTERN.fullmatch(pattern):
            raise ValueError("must be names of scenarios between commas, in which * stands for any "
                             "text and ? for one character")
        if pattern not in patterns:
            patterns.append(pattern)
    return tuple(patterns)


def is_match(pattern, text):
    """Whether a whole text is as its pattern says.

    Of several `*` only the newest is ever tried anew: what stands before it has its earliest place,
    and no later one can make more possible. So the time grows as the product of both lengths at
    worst, which are those of names.
    """
    place = start = 0                   # in the pattern, in the text
    star, again = -1, 0                 # the newest `*`, and where the text goes on behind it
    while start < len(text):
        if place < len(pattern) and pattern[place] == "*":
            star, again = place, start
            place += 1
        elif place < len(pattern) and pattern[place] in ("?", text[start]):
            place, start = place + 1, start + 1
        elif star >= 0:                 # it stands for one character more
            again += 1
            place, start = star + 1, again
        else:
            return False
    return not pattern[place:].strip("*")


def is_any_match(patterns, text):
    """Whether a text is as one of some patterns says."""
    return any(is_match(pattern, text) for pattern in patterns)
