"""What a process is before it is the program that a task wants: limit, umask and user are set then.

Between fork and exec nothing of Python may run, as there are threads. So what subprocess cannot do
there is done by a stage: a process that changes itself, and then becomes the program. A shell does
it in half a millisecond. It takes a Python where the user changes: that one gets nothing of the
task but its marker before it has become the task's user, for a variable such as LD_PRELOAD would
be obeyed as root.
"""
import contextlib
import os
import re
import sys
import tempfile

from ..base.encoding import to_bytes
from ..base.program import alone_command
from ..base.vocabulary import MARKER

HAS_UMASK = sys.version_info >= (3, 9)      # of subprocess


@contextlib.contextmanager
def staged(command, program):
    """(the Command to start for this one, its `program` or None: that has to be found)."""
    if command.user is not None:
        with tempfile.TemporaryFile() as file:
            file.write(b"\0".join(to_bytes("%s=%s" % item)
                                  for item in command.environment.items()))
            file.flush()
            yield as_user(command, file.fileno()), None
        return
    umask = None if HAS_UMASK else command.umask
    if program is not None and (command.file_limit is not None or umask is not None):
        words, program = staged_words(command.words, command.environment, command.file_limit,
                                      umask), None
        command = command._replace(words=words)
    yield command, program


def as_user(command, fd):
    """The Command whose process becomes the user of this one and then what it says; `fd` is a file
    with its environment."""
    words = alone_command(
        exec_alone, _tell(command.file_limit, "%d"), _tell(command.umask, "%o"),
        ",".join(map(str, command.user)), to_bytes(command.cwd or "").hex(), str(fd))
    environment = dict(os.environ)
    if MARKER in command.environment:
        environment[MARKER] = command.environment[MARKER]
    return command._replace(words=words + command.words, environment=environment, cwd=None,
                            pass_fds=tuple(command.pass_fds) + (fd,))


def staged_words(words, environment, file_limit, umask):
    """The words that start a program with this soft limit on open files and this umask, None for
    those that it has anyway. Some shells drop variables whose names are none of theirs."""
    if not all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in environment):
        return alone_command(exec_alone, _tell(file_limit, "%d"), _tell(umask, "%o"), "", "",
                             "") + words
    script = _tell(umask, "umask %o; ") + _tell(file_limit, "ulimit -Sn %d; ")
    return ["/bin/sh", "-c", script + 'exec "$@"', "sh"] + words


def _tell(number, form):
    return "" if number is None else form % number


def exec_alone(file_limit, umask, user, cwd, fd, *words):
    """In a process by itself: becomes a program with this soft limit on open files, umask (octal),
    user (uid, gid and groups), and working folder (hexadecimal digits), each of which may be empty;
    with a user the environment is what stands in the file `fd`."""
    import os
    import resource
    import stat
    import sys
    import _signal          # signal itself takes longer
    try:
        if file_limit:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(file_limit), hard))
        if umask:
            os.umask(int(umask, 8))
        environment = os.environb
        if user:
            uid, gid, *groups = map(int, user.split(","))
            data = os.pread(int(fd), os.fstat(int(fd)).st_size, 0)
            environment = dict(item.split(b"=", 1) for item in data.split(b"\0") if item)
            os.close(int(fd))
            for stream in range(3):         # or /dev/stdout cannot be opened
                if stat.S_ISFIFO(os.fstat(stream).st_mode):
                    os.fchown(stream, uid, -1)
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
        for name in ("SIGPIPE", "SIGXFSZ"):         # which Python ignores
            if hasattr(_signal, name):
                _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
        if cwd:
            os.chdir(bytes.fromhex(cwd))
        os.execvpe(os.fsencode(words[0]), [os.fsencode(word) for word in words], environment)
    except (OSError, ValueError) as error:
        sys.stderr.write("cannot start: %s: %s\n" % (
            getattr(error, "strerror", None) or error,
            os.fsdecode(getattr(error, "filename", None) or words[0])))
        sys.stderr.flush()
    os._exit(127)
