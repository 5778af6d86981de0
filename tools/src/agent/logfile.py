"""The file of --log: made 0600, rotated at a size, opened anew when that is asked for."""
import contextlib
import os
import stat

from ..base.errors import CannotStart

KEPT_FILES = 5          # FILE.1, the newest, to FILE.5


class LogFile:
    """A file that lines are added to; for one thread, but for reopen()."""

    def __init__(self, path, max_bytes):
        """CannotStart: it cannot be opened."""
        self.path, self._max_bytes = os.path.abspath(path), max_bytes
        self._is_outdated = False       # the path may lead to another file by now
        try:
            self._descriptor, self._size = self._open()
        except OSError as error:
            raise CannotStart("--log %s cannot be opened: %s" % (path, error.strerror)) from None

    def _open(self):
        """(A descriptor of the file, its size)."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
                             | os.O_NONBLOCK, 0o600)        # of a pipe: nobody is waited for
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            os.set_blocking(descriptor, True)
        return descriptor, status.st_size

    def reopen(self):
        """The next write opens it anew, as after another program has renamed it. From any thread;
        waits for nothing."""
        self._is_outdated = True

    def refresh(self):
        """Opens it anew, if that was asked for. OSError: it goes on with the old one."""
        if self._is_outdated:
            self._is_outdated = False
            self._use(*self._open())

    def write(self, data):
        """Adds bytes -> how many of them. OSError."""
        with contextlib.suppress(OSError):
            self.refresh()
        if self._size and self._size + len(data) > self._max_bytes:
            with contextlib.suppress(OSError):      # it grows on
                self._rotate()
        size = os.write(self._descriptor, data)
        self._size += size
        return size

    def _rotate(self):
        """FILE becomes FILE.1, that becomes FILE.2, and so on; the oldest goes. OSError."""
        names = [self.path] + ["%s.%d" % (self.path, count) for count in range(1, KEPT_FILES + 1)]
        for older, newer in zip(reversed(names), reversed(names[:-1])):
            with contextlib.suppress(FileNotFoundError):
                os.rename(newer, older)
        self._use(*self._open())

    def _use(self, descriptor, size):
        before, self._descriptor, self._size = self._descriptor, descriptor, size
        os.close(before)

    def close(self):
        """Gives the descriptor back."""
        os.close(self._descriptor)


class Terminal:
    """Standard error, as a place for lines."""

    def __init__(self, descriptor):
        self._descriptor = descriptor

    def reopen(self):
        """It stays what it is."""

    def refresh(self):
        """As reopen()."""

    def write(self, data):
        """Writes bytes -> how many of them. OSError."""
        return os.write(self._descriptor, data)

    def close(self):
        """It is the caller's."""
