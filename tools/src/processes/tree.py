"""Who is alive: processes, their marker, and the tree of a task that ends as a whole."""
import contextlib
import os
import re
import signal
import time
from typing import NamedTuple

from ..base.vocabulary import KILL_S, MARKER, TERM_S
from ..base.program import answer_of, own_boot

HAS_PROC = os.path.exists("/proc/self/stat")


class Identity(NamedTuple):
    """Which process on which host: enough to tell later whether it still lives."""
    host: str           # host id
    boot: str           # changes with every boot
    pid_ns: str         # pid namespace, empty where there is none
    pid: int
    started: str        # start time of the process in the kernel's words
    master: str         # UUID of the agent's master repository

    def __str__(self):
        return "/".join(str(part) for part in self)

    @classmethod
    def parse(cls, text):
        """The text of the tables -> Identity, or None when it is none."""
        parts = (text or "").split("/")
        is_identity = len(parts) == 6 and parts[3].isdigit()
        return cls(*parts)._replace(pid=int(parts[3])) if is_identity else None


def _first_line(path):
    with contextlib.suppress(OSError):
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    return ""


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
    """The ProcessEntry of a live pid from /proc, or None when there is none."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            text = file.read()
    except OSError:
        return None
    state, *fields = text[text.rindex(b")") + 2:].decode().split()
    if state in "ZX":
        return None
    return ProcessEntry(pid, int(fields[0]), int(fields[1]), int(fields[2]), fields[18])


def start_time(pid):
    """When a live process started, in the kernel's words, or None."""
    if HAS_PROC:
        entry = read_process(pid)
        return entry and entry.started
    return "_".join(answer_of("ps", "-o", "lstart=", "-p", str(pid)).split()) or None


def list_processes():
    """{pid: ProcessEntry} of all live processes; empty where /proc is missing."""
    if not HAS_PROC:
        return {}
    entries = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {entry.pid: entry for entry in entries if entry}


def read_marker(pid):
    """The marker in a process's environment, as text, or None."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            environment = b"\0" + file.read()
    except OSError:
        return None
    start = environment.find(b"\0" + MARKER.encode() + b"=")
    if start < 0:
        return None
    return environment[start + len(MARKER) + 2:].split(b"\0", 1)[0].decode("ascii", "replace")


def make_marker(repository_uuid, session, task_run):
    """The marker of one attempt of a task."""
    return "%s/%d/%d" % (repository_uuid, session, task_run)


def session_of_marker(marker):
    """A marker -> `uuid/session`."""
    return marker.rpartition("/")[0]


def own_line(processes):
    """This process and its parents: never ended."""
    line, pid = {os.getpid(), 0, 1}, os.getpid()
    while pid in processes and processes[pid].parent not in line:
        pid = processes[pid].parent
        line.add(pid)
    return line


class Tree:
    """All processes that one or more sessions started, found by what they cannot all give away.

    Those are: child of a member, process group or OS session that a member led, the marker in
    the environment. Found members are remembered, so that what leaves is followed.
    """

    def __init__(self, sessions, roots=None):
        self._sessions = frozenset(sessions)        # `uuid/session`
        self._known = dict(roots or {})             # pid -> start time

    def find(self):
        """{pid: ProcessEntry} of the members that live now."""
        processes = list_processes()
        spared = own_line(processes)
        members = {pid: entry for pid, entry in processes.items() if pid not in spared
                   and (self._known.get(pid) == entry.started or self._is_marked(pid))}
        # a pid that another process has now leads nothing of ours
        leaders = {pid for pid, started in self._known.items()
                   if pid not in processes or processes[pid].started == started}
        grown = True
        while grown:
            leaders.update(members)
            joined = {pid: entry for pid, entry in processes.items()
                      if pid not in members and pid not in spared
                      and (entry.parent in members or entry.group in leaders
                           or entry.os_session in leaders)}
            members.update(joined)
            grown = bool(joined)
        self._known.update((pid, entry.started) for pid, entry in members.items())
        return members

    def _is_marked(self, pid):
        marker = read_marker(pid)
        return marker is not None and session_of_marker(marker) in self._sessions

    def send(self, signal_number):
        """Signals every member that lives; how many there were."""
        if not HAS_PROC:
            return sum(_signal(os.killpg, root, signal_number) for root in self._known)
        members = self.find()
        for pid in members:
            _signal(os.kill, pid, signal_number)
        return len(members)

    def end(self, grace_s=TERM_S):
        """SIGTERM, after `grace_s` SIGKILL, sweeping until nothing is found -> how many live on.

        What lives KILL_S later (in an uninterruptible call of the kernel) cannot be ended.
        """
        self.send(signal.SIGTERM)
        begun, empty = time.monotonic(), 0
        while True:
            is_kill = time.monotonic() - begun >= grace_s
            count = self.send(signal.SIGKILL if is_kill else 0)
            empty = 0 if count else empty + 1
            if empty == 2 or time.monotonic() - begun > grace_s + KILL_S:
                return count
            time.sleep(0.02 if count else 0.005)


def has_group(leader):
    """Whether a process group has a member that lives."""
    return _signal(os.killpg, leader, 0) == 1


def _signal(send, target, signal_number):
    """Sends a signal by os.kill or os.killpg -> 1, or 0 where nothing takes it."""
    try:
        send(target, signal_number)
        return 1
    except OSError:
        return 0
