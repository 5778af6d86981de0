"""What this program is: its version, its own file and its own log."""
import logging
import os
import traceback

VERSION = "1.0.0"

log = logging.getLogger("agent")


def program_path():
    """The absolute path of this program's own file, which starts helpers and minders."""
    return os.path.abspath(__file__)


def tell_traceback(error):
    """An exception with the lines of code that led to it."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
