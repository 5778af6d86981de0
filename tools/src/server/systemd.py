"""What systemd is told of the agent by the socket that it asks for it (sd_notify(3)).

Thread watchdog: where systemd has a watchdog, tells it that the agent lives; ends at
Notifier.close().
"""
import contextlib
import socket
import threading

from ..base.workers import Worker

SHARE = 3               # the watchdog is told so many times in the time that it waits


class Notifier:
    """Tells systemd how the agent is; without its environment nothing is told."""

    def __init__(self, environment):
        """Takes its variables out of the environment: they are for no task."""
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        environment.pop("WATCHDOG_PID", None)
        self._every_s, self._thread = None, None    # between two words to the watchdog
        self._is_over = threading.Event()
        if self._address and microseconds.isdigit() and int(microseconds):
            self._every_s = int(microseconds) / 1e6 / SHARE

    def ready(self, describe):
        """The agent listens. From now on the watchdog is told, and what describe() says: how
        the agent is in a few words; when that hangs, so does the agent."""
        self._tell("READY=1\nSTATUS=" + describe())
        if self._every_s is not None:
            self._thread = Worker(self._watch, "watchdog", describe)
            self._thread.start()

    def stopping(self):
        """It has begun to stop."""
        self._tell("STOPPING=1\nSTATUS=stopping")

    def close(self):
        """Ends the thread."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, describe):
        while not self._is_over.wait(self._every_s):
            with contextlib.suppress(MemoryError):      # it lives, and has another try before that
                self._tell("WATCHDOG=1\nSTATUS=" + describe())

    def _tell(self, text):
        if self._address:
            address = self._address
            with contextlib.suppress(OSError), \
                    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.setblocking(False)
                notify.connect("\0" + address[1:] if address.startswith("@") else address)
                notify.sendall(text.encode())
