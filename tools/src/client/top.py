"""top: a live screen of an agent, or plain pages where there is no terminal for one."""
import os
import sys
import time

from .board import Board
from .colours import has_blocks, has_controls
from .errors import ClientError, USAGE, WELL
from .login import connect
from .tables import find_width, put_safe
from .topscreen import TopScreen

EVERY_S = 2.0
PLAIN_HEIGHT, PLAIN_WIDTH = 60, 100     # of a page, where there is no terminal


def show_top(options, arguments, words):
    """top -> exit status. Raises ClientError, OSError of stdout."""
    every_s, pages = read_number(options, "EVERY", EVERY_S), read_number(options, "COUNT", None)
    screen = None if "PLAIN" in options.own or pages is not None else find_curses()
    try:
        with connect(options):          # whoever cannot connect at all is told so as ever
            pass
        if screen is None:
            show_pages(options, every_s, pages)
        else:
            os.environ.setdefault("ESCDELAY", "50")         # ms: Esc is a key here
            screen.wrapper(lambda window: TopScreen(screen, window, options, every_s).run())
    except KeyboardInterrupt:
        pass                            # as q
    return WELL


def read_number(options, name, default):
    """The value of an option that takes a number. Raises ClientError."""
    text = options.own.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = 0.0
    if value is not None and not 0.1 <= value <= 86400:
        raise ClientError(USAGE, "--%s takes a number from 0.1 on" % name.lower())
    return value


def find_curses():
    """The module curses; None: this is no terminal for it, or this Python lacks it."""
    if not (has_controls(sys.stdout) and has_controls(sys.stdin)):
        return None
    try:
        import curses
    except ImportError:
        return None
    try:
        curses.setupterm()
    except curses.error:                # nothing is known of this terminal
        return None
    return curses


def show_pages(options, every_s, pages):
    """Writes a page of text every so many seconds, so many of them or for ever."""
    board, number = Board(has_blocks(sys.stdout)), 0
    while pages is None or number < pages:
        if number:
            time.sleep(every_s)
            put_safe("")
        with connect(options) as connection:
            board.read(connection)
        width = find_width() or PLAIN_WIDTH
        for line in board.make_head():
            put_safe(line[:width])
        for line in board.make_page(PLAIN_HEIGHT, width):
            put_safe(line.text, is_flushed=True)
        number += 1
