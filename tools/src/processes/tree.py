"""The tree of a task's processes: found, and ended as a whole."""
import contextlib
import functools
import os
import signal
import time

from ..base.vocabulary import KILL_S, TERM_S
from .alive import HAS_PROC, read_process, start_time
from .looks import Looks, Search

SWEEP_S = 0.02          # between two sweeps while something is found
QUIET_S = 0.05          # between two sweeps that find nothing: then it is the end
MINDER_S = 2.0          # how long a minder may take to write the end of its process down


class Tree:
    """All processes that one or more sessions started, found by what they cannot all give away.

    Those are: child of a member, process group or OS session that a member led, the marker in
    the environment. Found members are remembered, so that what leaves is followed. A number may
    become another process's: start time, and below a leader that is gone the owner, or that it is
    the agent's child by now (take_orphans), say whose it is. A minder gets no signal: it ends by
    itself once its process has ended, whose last words it writes down.
    """

    def __init__(self, sessions, roots=None, minders=None, looks=None):
        self._looks = looks or Looks()
        self._sessions = frozenset(sessions)        # `uuid/session`
        self._known = dict(roots or {})             # pid -> start time; a root leads an OS session
        self._minders = dict(minders or {})         # likewise
        self._known.update(self._minders)
        self._alone_since = None                    # monotonic: when nothing but minders was left

    def find(self, signal_number=None):
        """{pid: ProcessEntry} of the members that live now. Each is sent this signal as soon as it
        is found: what forks and ends must not be gone before. OSError."""
        members = self._looks.find(Search(
            self._sessions, dict(self._known), functools.partial(self._send, signal_number),
            self._looks.users))
        self._known.update((pid, entry.started) for pid, entry in members.items())
        return members

    def _send(self, signal_number, entry):
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


def follow_group(leader, started, looks=None):
    """What is left of the group that a process of this start time has led -> {pid: start time}, to
    be found again when its number may be another's."""
    if not signal_group(leader, 0):
        return {}
    if not HAS_PROC or start_time(leader) == started:
        return {leader: started}
    return {pid: entry.started for pid, entry in Tree(
        [], {leader: started}, looks=looks).find().items()}
