"""What SQL may reach of the files of this host, where --root bounds them."""
import contextlib
import os

from ..base.controls import one_line
from ..base.files import find_fault_beside
from .roots import find_path
from .task import TaskError

# sqlite3.h: what an authorizer is asked for, and two of its answers
PRAGMA, ATTACH, CREATE_VTABLE, FUNCTION = 19, 24, 29, 31
ALLOW, DENY = 0, 1
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
SUPER_BYTES = 1 << 13       # of the end of a journal; SQLite takes names of 512 bytes, or 4096
# that load code or reach files
PRAGMAS = ("temp_store_directory", "data_store_directory")
FUNCTIONS = ("load_extension", "fts3_tokenizer", "readfile", "writefile", "edit")
# modules of virtual tables that keep their data in the database itself
MODULES = ("fts3", "fts4", "fts5", "fts5vocab", "fts3tokenize", "fts4aux", "rtree", "rtree_i32",
           "geopoly")


class SqlGuard:
    """Keeps one connection of SQLite in a Root; for a process without other threads."""

    def __init__(self, root, path):
        self.refusal = None             # the TaskError for what SQLite was asked for last
        self._root, self._path = root, path
        self._before = list_open()
        self._check(path)

    def watch(self, connection):
        """Has SQLite ask from now on."""
        connection.set_authorizer(self._authorize)

    def _check(self, path):
        """TaskError. SQLite may be built to take `file:` for the begin of a URI."""
        if path.lower().startswith("file:"):
            raise TaskError("%s: with --root a database is named by its path" % path)
        if path not in ("", ":memory:"):
            self._root.check(path)
            fault = find_fault_beside(path)
            if fault:
                raise TaskError(fault)
            name = find_super_journal(os.path.realpath(path) + "-journal")
            if name is not None:
                self._root.check(name)

    def check_open(self):
        """TaskError when a file that was opened meanwhile lies out of the folder."""
        for _, path in list_open() - self._before:
            if path.startswith("/") and os.path.exists(path) and not self._root.has(path):
                raise self._root.refusal(self._path)

    def _authorize(self, action, first, second, *_):
        """The answer to SQLite, which is asked once for each thing that a statement does."""
        try:
            if action == ATTACH:
                if first is None:
                    raise TaskError("attach: with --root a database is named by a literal")
                self._check(first)
            elif action == PRAGMA and first.lower() in PRAGMAS \
                    or action == FUNCTION and second.lower() in FUNCTIONS \
                    or action == CREATE_VTABLE and second.lower() not in MODULES:
                raise TaskError("%s is not there with --root" % one_line(
                    first if action == PRAGMA else second))
        except TaskError as error:
            self.refusal = error
            return DENY
        return ALLOW


def find_super_journal(path):
    """The file that the end of a journal names as that of a transaction over several databases, or
    None (sqlite.org/fileformat.html, 3; pager.c, readSuperJournal). Who opens the database of such
    a journal deletes that file."""
    try:
        with open(path, "rb") as journal:
            size = journal.seek(0, os.SEEK_END)
            journal.seek(max(0, size - SUPER_BYTES))
            end = journal.read()
    except OSError:
        return None
    length = int.from_bytes(end[-16:-12], "big")
    if end[-8:] != JOURNAL_MAGIC or not 0 < length <= len(end) - 16:
        return None
    return os.fsdecode(end[-16 - length:-16])


def list_open():
    """{(number, path)} of this process's open files."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return {(int(name), find_path(int(name))) for name in os.listdir(folder)}
    return set()
