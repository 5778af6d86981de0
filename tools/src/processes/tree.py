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
MAX_LISTINGS = 20       # of the process table in one sweep, while there is somebody new
SWEEP_S = 0.02          # between two sweeps while something is found
QUIET_S = 0.05          # between two sweeps that find nothing: then it is the end
MINDER_S = 2.0          # how long a minder may take to write the end of its process down


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


def _read_of(pid, name):
    """What /proc says of a process, or None when it is gone or says nothing to this user. OSError:
    it cannot be asked now."""
    try:
        with open("/proc/%d/%s" % (pid, name), "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


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


def make_marker(repository_uuid, session, task_run):
    """The marker of one attempt of a task."""
    return "%s/%d/%d" % (repository_uuid, session, task_run)


def session_of_marker(marker):
    """A marker -> `uuid/session`."""
    return marker.rpartition("/")[0]


def own_line():
    """This process and its parents: never ended."""
    line, entry = {0, 1, os.getpid()}, read_process(os.getpid())
    while entry is not None and entry.parent not in line:
        line.add(entry.parent)
        entry = read_process(entry.parent)
    return line


class Tree:
    """All processes that one or more sessions started, found by what they cannot all give away.

    Those are: child of a member, process group or OS session that a member led, the marker in
    the environment. Found members are remembered, so that what leaves is followed. A number may
    become another process's: start time, and below a leader that is gone the owner, or that it is
    the agent's child by now (take_orphans), say whose it is. A minder gets no signal: it ends by
    itself once its process has ended, whose last words it writes down.
    """

    def __init__(self, sessions, roots=None, minders=None):
        self._sessions = frozenset(sessions)        # `uuid/session`
        self._known = dict(roots or {})             # pid -> start time; a root leads an OS session
        self._minders = dict(minders or {})         # likewise
        self._known.update(self._minders)
        self._alone_since = None                    # monotonic: when nothing but minders was left

    def find(self, signal_number=None):
        """{pid: ProcessEntry} of the members that live now. Each is sent this signal as soon as it
        is found: what forks and ends must not be gone before.

        The process table is listed until it has nobody new, and the newest are looked at first. So
        a chain in which each link forks and ends is in each listing, and is met while it lives.
        """
        spared, entries, members = own_line(), {}, {}          # entries: None for what is gone
        for _ in range(MAX_LISTINGS):
            new = [pid for pid in list_pids() if pid not in entries and pid not in spared]
            if not new:
                break
            for pid in reversed(new):
                entry = entries[pid] = read_process(pid)
                if entry and (self._known.get(pid) == entry.started or self._is_marked(pid)):
                    members[pid] = entry
                    self._send(entry, signal_number)
            self._join(entries, spared, members, signal_number)
        self._known.update((pid, entry.started) for pid, entry in members.items())
        return members

    def _is_marked(self, pid):
        marker = read_marker(pid)
        return marker is not None and session_of_marker(marker) in self._sessions

    def _join(self, entries, spared, members, signal_number):
        """Adds to the members whoever belongs to one of them, and sends him the signal."""
        gone = {pid for pid in self._known if entries.get(pid) is None and pid not in spared}
        joined = True
        while joined:
            # an OS session whose leader is gone keeps its number while somebody is in it
            ours = {entry.os_session for entry in members.values()
                    if entry.os_session in members
                    or entries.get(entry.os_session) is None and entry.os_session not in spared}
            joined = [entry for pid, entry in entries.items() if entry and pid not in members and (
                entry.parent in members or entry.group in members or entry.os_session in ours
                or entry.os_session in gone and (
                    read_owner(pid) == os.geteuid() or entry.parent == os.getpid()))]
            for entry in joined:
                members[entry.pid] = entry
                self._send(entry, signal_number)

    def _send(self, entry, signal_number):
        if self._minders.get(entry.pid) != entry.started:
            send(entry, signal_number)

    def _list_due(self, living):
        """Of the pids in {pid: start time} those that are to be ended now: a minder not before
        minders alone were left for MINDER_S."""
        others = [pid for pid, started in living.items() if self._minders.get(pid) != started]
        if others or not living:
            self._alone_since = None
            return others
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        return list(living) if now - self._alone_since >= MINDER_S else []

    def end(self, grace_s=TERM_S):
        """SIGTERM, after `grace_s` SIGKILL, until two sweeps QUIET_S apart find nothing -> how many
        live on. What is to be killed is frozen first, until a sweep finds nobody new.

        What lives KILL_S later (in an uninterruptible call of the kernel) cannot be ended.
        """
        if not HAS_PROC:
            return self._end_groups(grace_s)
        begun, empty, sent = time.monotonic(), 0, {}        # pid -> (start time, signal)
        while True:
            passed_s = time.monotonic() - begun
            is_kill = passed_s >= grace_s
            try:
                members = self.find(signal.SIGSTOP if is_kill else None)
            except (OSError, MemoryError):      # it cannot be looked now: nothing is over
                time.sleep(QUIET_S)
                begun = max(begun, time.monotonic() - grace_s)
                continue
            due = self._list_due({pid: entry.started for pid, entry in members.items()})
            sent, before = {pid: (members[pid].started, is_kill) for pid in due}, sent
            new = [pid for pid in due if sent[pid] != before.get(pid)]
            empty = 0 if members else empty + 1
            if empty == 2 or passed_s > grace_s + KILL_S:
                return len(members)
            if is_kill and not new:
                for pid in sorted(due, reverse=True):       # a leader's end may thaw its group
                    send(members[pid], signal.SIGKILL)
            elif not is_kill:
                for pid in sorted(new):         # a shell first: it tells of others
                    send(members[pid], signal.SIGTERM)
            time.sleep(SWEEP_S if members else QUIET_S)

    def _end_groups(self, grace_s):
        """`end` where there is no /proc: the groups that are known by their leaders."""
        begun, terminated = time.monotonic(), set()
        while True:
            passed_s = time.monotonic() - begun
            # the leader is the one that is known, or gone
            groups = {pid: started for pid, started in self._known.items()
                      if start_time(pid) in (None, started) and signal_group(pid, 0)}
            if not groups or passed_s > grace_s + KILL_S:
                return len(groups)
            for pid in self._list_due(groups):
                if passed_s >= grace_s:
                    signal_group(pid, signal.SIGKILL)
                elif pid not in terminated:
                    terminated.add(pid)
                    signal_group(pid, signal.SIGTERM)
            time.sleep(SWEEP_S)


def send(entry, signal_number):
    """Sends a signal (None: none) to a process, if it is still the one of this ProcessEntry."""
    if signal_number is not None:
        with contextlib.suppress(OSError):
            now = read_process(entry.pid)
            if now is not None and now.started == entry.started:
                os.kill(entry.pid, signal_number)


def signal_group(leader, signal_number):
    """Sends a signal to a process group, 0 to ask for it alone -> whether it has a member."""
    try:
        os.killpg(leader, signal_number)
        return True
    except OSError:
        return False


def follow_group(leader, started):
    """What is left of the group that a process of this start time has led -> {pid: start time}, to
    be found again when its number may be another's."""
    if not signal_group(leader, 0):
        return {}
    if not HAS_PROC or start_time(leader) == started:
        return {leader: started}
    return {pid: entry.started for pid, entry in Tree([], {leader: started}).find().items()}
