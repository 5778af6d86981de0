"""References to variables in texts: found, replaced, and handed to a shell."""
import re

from ..base.vocabulary import MAX_TEXT, RESERVED_VARIABLES
from ..base.errors import TooLong

_REFERENCE = re.compile(r"\$\$(?=\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_SHELL_NAME = re.compile(r"(?<![\\$])\$([A-Za-z_][A-Za-z0-9_]*)")


def substitute(text, values):
    """`${name}` -> values[name], `$$` before a brace -> `$`; every other `$` stays. TooLong."""
    size = len(text) + sum(len(values[match.group(1)]) for match in _REFERENCE.finditer(text)
                           if match.group(1))
    if size > MAX_TEXT:
        raise TooLong("a text would have over %d characters with the values of its variables"
                      % MAX_TEXT)
    return _REFERENCE.sub(lambda match: values[match.group(1)] if match.group(1) else "$", text)


def list_references(text):
    """The names of the variables that a text has references to."""
    return [match.group(1) for match in _REFERENCE.finditer(text) if match.group(1)]


def shell_command(text):
    """A string command: `${name}` becomes `${VAR_name}`, so no value can become shell text."""
    return _REFERENCE.sub(lambda match: match.group() if not match.group(1) else
                          "${%s}" % environment_name(match.group(1)), text).replace("$${", "${")


def list_shell_names(command):
    """The names behind a bare `$` of a string command, which the shell replaces; without those
    that it sets itself, by `name=`, `for`, `read` or the like, and what stands in single quotes."""
    text = re.sub("'[^']*'", "", command)
    return [name for name in sorted(set(_SHELL_NAME.findall(text))) if not re.search(
        r"(?<![$\w])(?:%s=|(?:for|read|export|local|getopts)\b[^;&|\n]*\b%s\b)" % (name, name),
        command)]


def find_code_fault(code):
    """Why code of a program cannot be run: it has a reference,
    by which a value would become code. None when it has none."""
    names = [match.group(1) for match in _REFERENCE.finditer(code) if match.group(1)]
    if not names:
        return None
    return ("${%s} is not replaced in code, for a value must never become code: write "
            "os.environ[\"%s\"]"
            " (for a literal ${%s} write $${%s})" % (names[0], environment_name(names[0]), names[0],
                                                     names[0]))


def environment_name(name):
    """The environment variable that holds a variable."""
    return name if name in RESERVED_VARIABLES else "VAR_" + name


def strings_in(value, path=""):
    """Every (path, text) inside a JSON value."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings_in(item, "%s[%d]" % (path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings_in(item, "%s.%s" % (path, key))
