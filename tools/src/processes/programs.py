"""What the start of a process opens: a mount that hangs stops the thread alone that looks."""
import contextlib
import os
import stat
import time

from ..base.encoding import to_bytes

NEAR_S = 1.0            # how long what was found counts as found
MAX_NEAR = 1000         # programs of which that is known
ROOT_PROGRAM = "/bin/sh"        # where it lies nothing hangs but together with everything


class Programs:
    """Finds programs, and knows for a moment those that are near: on the device of ROOT_PROGRAM, so
    that their start hangs only where everything does. They need no second look, and no other
    thread."""

    def __init__(self):
        self._near = {}                 # what asks for it -> (file, monotonic seconds)

    def find_near(self, command):
        """The file of a Command's program that was found a moment ago, is near, and can be started
        still: what sets its limits before would tell otherwise too late. Or None."""
        path, until = self._near.get(_tell_wish(command), (None, 0.0))
        if time.monotonic() < until and os.access(_file_of(command, path), os.X_OK):
            return path
        return None

    def forget(self, command):
        """That is no more so."""
        self._near.pop(_tell_wish(command), None)

    def open(self, command):
        """open_program(), noted."""
        path, is_binary = _look_for(command)
        if is_binary and _is_near(_file_of(command, path)) \
                and _is_near(to_bytes(command.cwd or "/")):
            if len(self._near) >= MAX_NEAR:
                self._near = {}
            self._near[_tell_wish(command)] = path, time.monotonic() + NEAR_S
        return path


def _file_of(command, path):
    return os.path.join(to_bytes(command.cwd or ""), path)


def _tell_wish(command):
    return command.words[0], command.environment.get("PATH"), command.cwd


def _is_near(path):
    with contextlib.suppress(OSError):
        return os.stat(path).st_dev == os.stat(ROOT_PROGRAM).st_dev
    return False


def open_program(command):
    """Opens what the start of a Command opens: its folder, program and interpreter of a script ->
    the program's file, or None: the system cannot start that.

    Where they are on a mount that hangs, the caller's thread hangs here. In Popen all threads
    would: its child has the lock of Python until it has its program (vfork)."""
    return _look_for(command)[0]


def _look_for(command):
    """What open_program() gives, and whether that is no script."""
    folder, program = to_bytes(command.cwd or ""), to_bytes(command.words[0])
    os.stat(folder or b".")
    places = [b""] if b"/" in program else to_bytes(
        command.environment.get("PATH", os.defpath)).split(b":")
    for place in places:
        path = place + b"/" + program if place else program
        file = os.path.join(folder, path) if folder else path
        if not os.access(file, os.F_OK):
            continue
        with contextlib.suppress(OSError):
            head = _read_head(file)
            if head.startswith(b"#!"):
                _read_head(os.path.join(folder, (head[2:].split() or [b""])[0]))
            is_program = b"/" in path and head.startswith((b"#!", b"\x7fELF")) \
                and os.access(file, os.X_OK)
            return (path, not head.startswith(b"#!")) if is_program else (None, False)
    return None, False


def _read_head(path):
    """The first line of a file, or what of it a script's may have. OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):     # to open a pipe would wait for its writer
        return b""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 256).split(b"\n")[0]
    finally:
        os.close(descriptor)
