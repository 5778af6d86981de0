"""--doctor: what is wrong with the repositories as they lie there, and what to do about it.

It reads, and makes nothing. What is safe to mend has a cure, for --repair.
"""
import contextlib
import functools
import os
import shutil
import stat
from typing import NamedTuple

from ..base.vocabulary import EXIT_CANNOT_START, EXIT_OK
from ..base.controls import show_controls
from ..base.errors import AgentError, CannotStart, RepositoryError
from ..base.files import (BESIDE_DATABASE, find_fault_beside, is_own, list_beginning, list_doors,
                          own_users, remove_own)
from ..base.times import local_iso
from ..store.beside import WAL_BYTES
from ..store.checkup import (count_all, count_log_bytes, count_orphans, find_newest, list_damage,
                             look_at, make_indices, put_in_wal, read_agents, read_attachments,
                             read_facts, read_head)
from ..store.files import network_file_system
from ..store.locks import NameLock
from ..store.master import MASTER_MIGRATIONS
from ..store.records import Attachment
from ..store.work import WORK_MIGRATIONS
from ..processes.alive import Identity, has_ended, own_identity
from .contents import WorkContents
from .finding import Finding

OLD_S = 86400           # a file beside that is being made is no older
AHEAD_S = 5.0           # by which a row may be ahead of the clock
MIB = 1024 * 1024
REPAIRED = "repaired: "         # a line that tells what --repair did begins so
BACKUP = "put a backup in its place, or save what `sqlite3 FILE .recover` can still read"


class Sizes(NamedTuple):
    """From how many bytes on something is told."""
    wal: int = 16 * WAL_BYTES           # of a file that an agent has open
    log: int = 4096 * MIB               # of all that is kept of what sessions printed
    free: int = 64 * MIB                # beside a copy of the file


class Doctor:
    """Looks at a master and all that is attached to it; each look is one at the present."""

    def __init__(self, settings, clock, sizes=Sizes()):
        self._settings, self._clock, self._sizes = settings, clock, sizes
        self._path = os.path.abspath(settings.master)
        self._counts = []               # of each work repository: sessions, scenarios, schedules
        self._facts = self._me = None
        self._names = {settings.name}   # of agents that may run here
        self._is_used = True            # as far as is known, an agent may run

    def examine(self):
        """Yields the Findings."""
        self._counts, self._facts, self._me = [], None, None
        yield from self._examine_file(self._path, "master", len(MASTER_MIGRATIONS),
                                      self._examine_master)

    def tell_health(self):
        """What was looked at, in one line, when nothing was found."""
        return "healthy: %s; work repositories: %d, sessions: %d, scenario versions: %d, " \
            "schedules: %d" % ((self._path, len(self._counts)) + tuple(
                sum(column) for column in zip(*self._counts or [(0, 0, 0)])))

    # -- the files ---------------------------------------------------------------------

    def _examine_file(self, path, kind, newest, examine):
        """What is wrong with a file; examine(path, head) yields what is with its rows."""
        fault = find_file_fault(path)
        if fault:
            yield Finding(path, *fault)
            return
        yield from self._examine_place(path)
        try:
            head = look_at(path, read_head)
            damage, is_index = look_at(path, list_damage)
        except RepositoryError as error:
            yield Finding(path, "cannot be read: %s" % error.message, BACKUP)
            return
        fault = find_head_fault(head, kind, newest)
        if fault:
            yield Finding(path, *fault)
        if damage:
            fault = "%s%s" % (damage[0], " (and %d more)" % (len(damage) - 1) if damage[1:] else "")
            yield Finding(path, "the indices are damaged: " + fault, "--repair makes them anew",
                          functools.partial(_reindex, path)) if is_index else Finding(
                path, "is damaged: " + fault, BACKUP)
        if head.kind != kind:
            return
        try:
            if kind == "master":        # as long as that cannot be told, it may be so
                self._look_for_agents(head.uuid)
            yield from self._examine_sizes(path)
            if head.version == newest and (is_index or not damage):
                yield from self._examine_rows(path, kind)
                yield from examine(path, head)
            if kind == "master":
                yield from self._examine_attached()
        except RepositoryError as error:
            if not damage:
                yield Finding(path, "cannot be read: %s" % error.message, BACKUP)

    def _examine_place(self, path):
        """Who may write or read a file and what lies beside it, and where it lies."""
        owner = os.stat(path).st_uid
        if owner != os.geteuid():
            yield Finding(path, "belongs to uid %d, not to this user (uid %d)" % (
                owner, os.geteuid()), "run agent.py as that user, or chown all its files")
        else:
            for door in list_doors(path):
                if not door.startswith(path + " "):
                    fault, _, remedy = door.partition(" (")
                    yield Finding(path, "other users can replace it: " + fault, remedy[:-1])
        for each in [path] + [path + ending for ending in BESIDE_DATABASE]:
            with contextlib.suppress(OSError):
                mode = os.lstat(each).st_mode
                if stat.S_ISREG(mode) and mode & 0o077:
                    yield Finding(each, "is open to other users (mode %04o)" % stat.S_IMODE(mode),
                                  "chmod 600, or --repair", functools.partial(_close, each))
        fault = find_fault_beside(path)
        if fault:
            yield Finding(path, fault.rpartition(":")[0], fault.rpartition(": ")[2])
        kind = network_file_system(path)
        if kind and not self._settings.is_insecure_fs:
            yield Finding(path, "is on a network file system (%s), where SQLite's locks cannot be "
                          "trusted" % kind, "move it to a disk of this host")

    def _examine_sizes(self, path):
        """Room, and what takes it; files that are left beside."""
        free, size = shutil.disk_usage(os.path.dirname(path)).free, os.stat(path).st_size
        if free < self._sizes.free + size:
            yield Finding(path, "its disk has %d MiB free, and the file has %d: there is no room "
                          "for a copy" % (free // MIB, size // MIB), "make room, or PURGE")
        with contextlib.suppress(OSError):
            wal = os.stat(path + "-wal").st_size
            if self._is_used and wal > self._sizes.wal:
                yield Finding(path, "the -wal beside it has %d MiB" % (wal // MIB), "end the "
                              "program that reads from the file for so long (fuser tells which)")
            elif not self._is_used:
                yield Finding(path, "no agent runs, and a -wal of %d bytes is beside it" % wal,
                              "start the agent, or --repair puts it in; if another program has "
                              "the file open, end that", functools.partial(_put_in, path))
        folder, name = os.path.split(path)
        for each in list_beginning(os.path.join(folder, ".%s." % name)):
            with contextlib.suppress(OSError):
                if self._clock.now() - os.lstat(each).st_mtime > OLD_S:
                    yield Finding(each, "was being made over a day ago, and left by a crash",
                                  "delete it, or --repair", _cure_of(each, path))

    def _examine_rows(self, path, kind):
        for (table, named), count in sorted(look_at(path, count_orphans).items()):
            yield Finding(path, "%d rows of %s name a %s that is not there" % (count, table, named),
                          "import what is missing, or DROP or PURGE what names it")
        newest = look_at(path, find_newest, kind)
        if newest is not None and newest > self._clock.now() + AHEAD_S:
            yield Finding(path, "its newest row is of %s, and this host's clock is behind that"
                          % local_iso(newest), "set the clock; if it is right, one was wrong "
                          "before, and what comes due until then does not fire")

    # -- the master and what is attached -----------------------------------------------

    def _look_for_agents(self, master_uuid):
        """Who runs on the master, or may."""
        self._me = own_identity(self._settings.host_id, master_uuid)
        agents = look_at(self._path, read_agents)
        self._names.update(row["name"] for row in agents)
        self._is_used = any(not row["stopped"] and self._may_live(row["identity"])
                            for row in agents)

    def _may_live(self, identity):
        runner = Identity.parse(identity)
        if runner is None:
            return False
        try:
            return not has_ended(runner, self._me)
        except OSError:
            return True

    def _examine_master(self, path, _):
        self._facts = look_at(path, read_facts)
        for server in self._facts.servers.values():
            for schema, contexts in self._facts.schemas.items():
                unknown = sorted(set(contexts) - self._facts.contexts)
                if server["name"] in contexts.values() and unknown:
                    yield Finding(path, "logical schema %s names context %s, which is not there"
                                  % (schema, unknown[0]), "IMPORT the context")

    def _examine_attached(self):
        """What is attached to the master, one by one."""
        paths = {}
        rows = look_at(self._path, read_attachments)
        if not rows:
            yield Finding(self._path, "no work repository is attached", "ATTACH one")
        for row in rows:
            attachment = Attachment(row["id"], row["name"], os.path.join(
                os.path.dirname(self._path), row["path"]), row["uuid"])
            real = os.path.realpath(attachment.path)
            if real in paths:
                yield Finding(attachment.path, "is attached twice, as %s and %s"
                              % (paths[real], attachment.name), "DETACH one of them")
                continue
            paths[real] = attachment.name
            yield from self._examine_file(attachment.path, "work", len(WORK_MIGRATIONS),
                                          functools.partial(self._examine_work, attachment))

    def _examine_work(self, attachment, path, head):
        """The rows of a work repository."""
        if attachment.uuid not in (None, head.uuid):
            yield Finding(path, "carries another UUID than the one attached as %s"
                          % attachment.name, "put the right file there, or DETACH and ATTACH it")
        if head.id not in (None, attachment.id):
            yield Finding(path, "is a work repository of id %d, and attached as %d" % (
                head.id, attachment.id), "put the right file there, or DETACH and ATTACH it")
        self._counts.append(look_at(path, count_all))
        size = look_at(path, count_log_bytes)
        if size > self._sizes.log:
            yield Finding(path, "keeps %d MiB of what sessions have printed" % (size // MIB),
                          "PURGE, a smaller --keep-days or --max-output, or EXEC -LEVEL=3")
        if self._facts is not None:
            yield from WorkContents(attachment, self._facts, self._me, self._clock).list()

    # -- repair ------------------------------------------------------------------------

    def repair(self):
        """Does what is safe, while no agent can start on the master -> (what that was, Findings:
        what kept it from that)."""
        list(self.examine())            # the names of agents
        locks = [path[len(self._path) + 1:-len(".lock")]
                 for path in list_beginning(os.path.realpath(self._path) + ".")
                 if path.endswith(".lock")]
        names = self._names.union(name for name in locks if name != "create")
        with contextlib.ExitStack() as held:
            try:
                for name in sorted(names):
                    held.callback(NameLock(self._path, name).take().release)
            except (CannotStart, OSError) as error:
                text = error.message if isinstance(error, AgentError) else \
                    "its lock cannot be taken: %s" % error.strerror
                return [], [Finding(self._path, "nothing is repaired: " + text,
                                    "SHUTDOWN that agent first")]
            return self._cure()

    def _cure(self):
        reports, faults = [], []
        for finding in list(self.examine()):
            if finding.cure is not None:
                try:
                    reports.append("%s%s: %s" % (REPAIRED, finding.place, finding.cure()))
                except (AgentError, OSError) as error:
                    faults.append(Finding(finding.place, "cannot be repaired: %s" % (
                        getattr(error, "message", None) or error.strerror), finding.remedy))
        return reports, faults


def consult(settings, clock, sizes=Sizes()):
    """--doctor -> (lines to print, exit code)."""
    doctor, reports, faults = Doctor(settings, clock, sizes), [], []
    if settings.is_repairing:
        reports, faults = doctor.repair()
    findings = faults + list(doctor.examine())
    lines = reports + ([str(finding) for finding in findings] or [doctor.tell_health()])
    return list(map(show_controls, lines)), EXIT_CANNOT_START if findings else EXIT_OK


def find_file_fault(path):
    """(Why a path leads to no file that SQLite could read, what to do), or None."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "does not exist", "put a backup there; a master that is new is made by --create"
    except OSError as error:
        return "cannot be looked at: %s" % error.strerror, "mend its path, or run as its owner"
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file", "put the repository there"
    if not status.st_size:
        return "is empty", "put a backup in its place; delete it if it never was one"
    if not os.access(path, os.R_OK):
        return "this user (uid %d) may not read it" % os.geteuid(), \
            "run as its owner (uid %d)" % status.st_uid
    return None


def find_head_fault(head, kind, newest):
    """(Why a file of this Head is not the one expected, what to do), or None."""
    if head.kind is None:
        return "a SQLite file, but no repository", "put the right file there"
    if head.kind != kind:
        return "is a %s repository, not a %s one" % (head.kind, kind), "put the right file there"
    if head.version > newest:
        return "has schema version %d, and this agent.py knows up to %d" % (
            head.version, newest), "use a newer agent.py"
    if head.version < newest:
        return "has schema version %d, and this agent.py %d: its rows are not looked at" % (
            head.version, newest), "start the agent, which brings it up to date (after a copy)"
    return None


def _close(path):
    os.chmod(path, 0o600)
    return "mode 0600"


def _put_in(path):
    put_in_wal(path)
    return "its -wal is put in"


def _reindex(path):
    make_indices(path)
    return "its indices are made anew"


def _cure_of(path, repository):
    """The cure for a file that a crash has left, where it is ours, or None."""
    owners = own_users(repository)

    def delete():
        remove_own(path, owners)
        return "deleted"
    return delete if is_own(path, owners) else None
