"""Names of files are UTF-8, whatever the locale says: what a process needs for it."""
import contextlib
import functools
import locale
import os
import sys

UTF8_LOCALES = ("C.UTF-8", "C.utf8", "en_US.UTF-8", "en_US.utf8", "UTF-8")
LOCALE_BEFORE = "AGENT_LC_ALL"          # in the environment: LC_ALL as it was


def to_bytes(text):
    """Text for the system, whatever the locale of the agent (Python 3.6 takes C's for ASCII)."""
    return text.encode("utf-8", "surrogateescape")


def utf8_flags():
    """Flags of Python; before 3.7 it takes the locale's word, so see utf8_environment."""
    return ["-X", "utf8"] if sys.version_info >= (3, 7) else []


@functools.lru_cache(maxsize=None)
def find_utf8_locale():
    """A locale of UTF-8 that this host has, or None."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in UTF8_LOCALES:
            with contextlib.suppress(locale.Error):
                return locale.setlocale(locale.LC_CTYPE, name)
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return None


def utf8_environment(environment):
    """The environment that a process of this program is started with, for this one."""
    name = None if utf8_flags() else find_utf8_locale()
    if name is None:
        return environment
    return dict(environment, LC_ALL=name, **{LOCALE_BEFORE: environment.get("LC_ALL", "")})


def locale_for_python(environment):
    """The environment for a Python of the user's, which takes the locale C for UTF-8, as it does by
    itself from 3.7 on."""
    name = None if utf8_flags() else find_utf8_locale()
    words = [environment.get(each) for each in ("LC_ALL", "LC_CTYPE", "LANG")]
    if name is None or next(filter(None, words), "C") not in ("C", "POSIX"):
        return environment
    return dict(environment, **{"LC_ALL" if words[0] else "LC_CTYPE": name})


def restore_environment():
    """Undoes utf8_environment, when Python has taken notice: what a task starts, and the modules
    of data servers, have the locale that the agent was started with."""
    before = os.environ.pop(LOCALE_BEFORE, None)
    if before:
        os.environ["LC_ALL"] = before
    elif before is not None:
        os.environ.pop("LC_ALL", None)
