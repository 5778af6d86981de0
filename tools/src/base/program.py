"""What this program is: its own file, its code and its own log."""
import contextlib
import errno
import functools
import logging
import marshal
import os
import subprocess
import sys
import tempfile
import traceback

from .encoding import find_utf8_locale, restore_environment, utf8_environment, utf8_flags

log = logging.getLogger("agent")

M_ARENA_MAX = -8        # mallopt(3)

# Python code that runs this program from an open file with its byte-code; the command line behind
# it is that file's descriptor, the path of the program, and its arguments. The working folder,
# which `-c` would search for modules, is none of them.
BOOT = ("import sys;sys.path[:1]==['']and sys.path.pop(0);import marshal,os;"
        "CODE_FD=int(sys.argv[1]);__file__=sys.argv[2];del sys.argv[:2];"
        "exec(marshal.loads(os.pread(CODE_FD,os.fstat(CODE_FD).st_size,0)))")

# Python code that runs one function, which imports what it needs; behind it are its byte-code, in
# hexadecimal digits, and its arguments
ALONE = ("import sys,marshal,types;"
         "types.FunctionType(marshal.loads(bytes.fromhex(sys.argv[1])),globals())(*sys.argv[2:])")


@functools.lru_cache(maxsize=None)
def own_boot():
    """What changes with every boot of the host, in a container too, or `unknown`."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return answer_of("sysctl", "-n", "kern.bootsessionuuid") or "unknown"


def answer_of(*command):
    """What a program of the host prints, or nothing."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              stdin=subprocess.DEVNULL, timeout=10).stdout.decode().strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def program_path():
    """The absolute path of this program's own file."""
    return os.path.abspath(__file__)


@functools.lru_cache(maxsize=None)
def open_code():
    """A descriptor of a file without a name that has the byte-code of this program: helpers and
    minders start from it fast, and from the code that the agent began with. It is for reading
    alone, as a helper may be another user's process."""
    code = globals().get("CODE_FD")
    if code is not None:
        os.set_inheritable(code, False)
        return code
    with tempfile.NamedTemporaryFile() as file:
        file.write(marshal.dumps(_find_code()))
        file.flush()
        descriptor = os.open(file.name, os.O_RDONLY | os.O_NOFOLLOW)
        if not os.path.samestat(os.fstat(descriptor), os.fstat(file.fileno())):
            raise OSError(errno.EPERM, "is another file now", file.name)
        return descriptor


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
    return ([sys.executable] + utf8_flags() + list(flags)
            + ["-c", BOOT, str(open_code()), program_path()])


def keep_standard_descriptors():
    """Opens those of 0, 1 and 2 that are closed, so that no other file gets their numbers: what is
    printed would go there."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def call_c_library(name, *arguments):
    """Calls a function of the C library with whole numbers, where that is in reach."""
    with contextlib.suppress(ImportError, OSError, AttributeError, MemoryError):
        import ctypes
        getattr(ctypes.CDLL(None), name)(*arguments)


def share_heaps():
    """Has all threads share two heaps: glibc would give each its own, where what is freed serves
    that thread alone, so that memory creeps. Before threads are started."""
    call_c_library("mallopt", M_ARENA_MAX, 2)


def alone_command(function, *arguments):
    """The words that run one function by itself, on texts, in a process that starts a few times
    faster than this program and needs no file of it. It knows nothing of its module, nor of the
    user's folders and settings for Python."""
    code = marshal.dumps(function.__code__).hex()
    return [sys.executable, "-I", "-S", "-c", ALONE, code] + list(arguments)


def start_over_lean():
    """Starts over as the same process from byte-code: Python keeps all that it needed to compile a
    main program until that ends, some 25 MB; and with names of files in UTF-8. Returns where that
    is done, or cannot be."""
    restore_environment()
    if "CODE_FD" in globals() or not sys.executable:
        return
    if not utf8_flags() and find_utf8_locale() is None:
        log.warning("this host has no locale of UTF-8, so names of files must be ASCII for this "
                    "Python (from 3.7 on they need not)")
    try:
        flags = subprocess._args_from_interpreter_flags()
        command = program_command(*flags) + sys.argv[1:]
        os.set_inheritable(open_code(), True)
        os.execve(sys.executable, command, utf8_environment(os.environ))
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
