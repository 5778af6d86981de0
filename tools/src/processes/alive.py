"""Who is alive: processes, and the marker of those that a task has started."""
import contextlib
import os
import re
from typing import NamedTuple

from ..base.vocabulary import MARKER
from ..base.program import answer_of, own_boot

HAS_PROC = os.path.exists("/proc/self/stat")
PROC_BYTES = 65536      # read at once; what gives fewer is at its end


class Identity(NamedTuple):
    """Which process on which host: enough to tell later whether it still lives."""
    host: str           # host id
    boot: str           # changes with every boot
    pid_ns: str         # pid namespace, empty where there is none
    pid: int
    started: str        # start time of the process in the kernel's words
    master: str         # UUID of the agent's master repository

    @property
    def home(self):
        """(host id, what changes when its devices may be numbered anew): the boot, and in a
        container its start."""
        return self.host, "%s/%s" % (self.boot, self.pid_ns)

    def __str__(self):
        return "/".join(str(part) for part in self)

    @classmethod
    def parse(cls, text):
        """The text of the tables -> Identity, or None when it is none."""
        parts = (text or "").split("/")
        is_identity = len(parts) == 6 and parts[3].isdigit()
        return cls(*parts)._replace(pid=int(parts[3])) if is_identity else None


def has_ended(runner, me):
    """Whether the process of an Identity has ended, or None: one that this process cannot ask for,
    of another host or pid namespace. OSError: it cannot be asked for now."""
    if runner.host != me.host:
        return None
    if runner.boot != me.boot:
        return True
    return start_time(runner.pid) != runner.started if runner.pid_ns == me.pid_ns else None


def _first_line(path):
    with contextlib.suppress(OSError):
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    return ""


def _read_of(pid, name):
    """What /proc says of a process, or None when it is gone or says nothing to this user. OSError:
    it cannot be asked now. A file object would ask the system nine times, not thrice."""
    try:
        descriptor = os.open("/proc/%d/%s" % (pid, name), os.O_RDONLY)
        try:
            parts = [os.read(descriptor, PROC_BYTES)]
            while len(parts[-1]) == PROC_BYTES:
                parts.append(os.read(descriptor, PROC_BYTES))
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return b"".join(parts)


def own_identity(host_id, master_uuid):
    """The Identity of this process; `host_id` overrides the host's own."""
    host = host_id or _first_line("/etc/machine-id") or os.uname().nodename
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    pid = os.getpid()
    return Identity(host.replace("/", "_"), own_boot(), namespace, pid,
                    start_time(pid) or "unknown", master_uuid)


class ProcessEntry(NamedTuple):
    """One line of the process table."""
    pid: int
    parent: int
    group: int
    os_session: int
    started: str        # clock ticks since the boot


def read_process(pid):
    """The ProcessEntry of a live pid from /proc, or None when there is none. OSError."""
    text = _read_of(pid, "stat")
    if text is None:
        return None
    state, *fields = text[text.rindex(b")") + 2:].decode().split()
    if state in "ZX":
        return None
    return ProcessEntry(pid, int(fields[0]), int(fields[1]), int(fields[2]), fields[18])


def start_time(pid):
    """When a live process started, in the kernel's words, or None. OSError: it cannot be asked."""
    if HAS_PROC:
        entry = read_process(pid)
        return entry and entry.started
    return "_".join(answer_of("ps", "-o", "lstart=", "-p", str(pid)).split()) or None


def lives(pid, started):
    """Whether the process of this start time lives; one that cannot be asked for now does."""
    try:
        return start_time(pid) == started
    except OSError:
        return True


def read_owner(pid):
    """The user that a process runs as, or None when there is none."""
    with contextlib.suppress(OSError):
        return os.stat("/proc/%d" % pid).st_uid
    return None


def list_pids():
    """The numbers in the process table, ascending; empty where /proc is missing."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) if HAS_PROC else []


def read_marker(pid):
    """The marker in a process's environment, as text, or None. OSError."""
    environment = b"\0" + (_read_of(pid, "environ") or b"")
    start = environment.find(b"\0" + MARKER.encode() + b"=")
    if start < 0:
        return None
    return environment[start + len(MARKER) + 2:].split(b"\0", 1)[0].decode("ascii", "replace")


def make_marker(repository_mark, session, task_run):
    """The marker of one attempt of a task; the first word is `uuid`, of a repository that was
    restored `uuid.incarnation`."""
    return "%s/%d/%d" % (repository_mark, session, task_run)


def session_of_marker(marker):
    """A marker -> the part that all of a session share."""
    return marker.rpartition("/")[0]


def own_line():
    """This process and its parents: never ended."""
    line, entry = {0, 1, os.getpid()}, read_process(os.getpid())
    while entry is not None and entry.parent not in line:
        line.add(entry.parent)
        entry = read_process(entry.parent)
    return line
