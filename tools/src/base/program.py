"""What this program is: its version, its own file, its code and its own log."""
import functools
import logging
import marshal
import os
import subprocess
import sys
import tempfile
import traceback

VERSION = "1.0.0"

log = logging.getLogger("agent")

# Python code that runs this program from an open file with its byte-code; the command line behind
# it is that file's descriptor, the path of the program, and its arguments. The working folder,
# which `-c` would search for modules, is none of them.
BOOT = ("import sys;sys.path[:1]==['']and sys.path.pop(0);import marshal,os;"
        "CODE_FD=int(sys.argv[1]);__file__=sys.argv[2];del sys.argv[:2];"
        "exec(marshal.loads(os.pread(CODE_FD,os.fstat(CODE_FD).st_size,0)))")


def program_path():
    """The absolute path of this program's own file."""
    return os.path.abspath(__file__)


@functools.lru_cache(maxsize=None)
def open_code():
    """A descriptor of a file without a name that has the byte-code of this program: helpers and
    minders start from it fast, and from the code that the agent began with."""
    code = globals().get("CODE_FD")
    if code is not None:
        os.set_inheritable(code, False)
        return code
    with tempfile.TemporaryFile() as file:
        file.write(marshal.dumps(_find_code()))
        file.flush()
        return os.dup(file.fileno())


def _find_code():
    """The code of the whole program: that which runs, or compiled anew when it was imported."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is globals():
            return frame.f_code
        frame = frame.f_back
    with open(program_path(), "rb") as source:
        return compile(source.read(), source.name, "exec", dont_inherit=True)


def program_command(*flags):
    """The words that run this program again, with these flags of Python; its arguments go behind
    them. The process must have the descriptor of open_code()."""
    return [sys.executable] + list(flags) + ["-c", BOOT, str(open_code()), program_path()]


def start_over_lean():
    """Starts over as the same process from byte-code: Python keeps all that it needed to compile a
    main program until that ends, some 25 MB. Returns where that is done, or cannot be."""
    if "CODE_FD" in globals() or not sys.executable:
        return
    try:
        flags = subprocess._args_from_interpreter_flags()
        command = program_command(*flags) + sys.argv[1:]
        os.set_inheritable(open_code(), True)
        os.execv(sys.executable, command)
    except OSError as error:
        log.warning("memory for the compiling is kept: %s", error)


class Told:
    """What was told last of each key: what goes on for long is told once."""

    def __init__(self):
        self._texts = {}

    def is_new(self, key, text):
        """Whether a text is to be told. No text: it is over."""
        before = self._texts.pop(key, "")
        if text:
            self._texts[key] = text
        return text not in ("", before)


def tell_traceback(error):
    """An exception with the lines of code that led to it."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
