"""Section 6: the one door to a SQLite file, with real files, foreign programs and full disks."""
import contextlib
import os
import pathlib
import resource
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import uuid

import pytest

import agent
from conftest import LIMIT_S, TOP, wait_for
from support.outside import foreign_lock, move_repository, spoil_schema

TABLES = """
create table repository (kind text primary key, uuid text not null);
create table commit_mark (writer integer primary key, mark integer not null, time text not null);
create table note (id integer primary key, text text not null unique);
"""


class Shelf:
    """A folder with repository files of the test's own kind, closed at the end."""

    def __init__(self, folder):
        self.path = folder / "shelf.db"
        self._opened = []

    def open(self, *migrations, **keywords):
        if not self.path.exists():
            agent.make_private(str(self.path))
        keywords.setdefault("kind", "shelf")
        made = agent.Database(
            str(self.path), label="shelf", migrations=migrations or (TABLES,), clock=agent.Clock(),
            **keywords)
        self._opened.append(made)
        return made.open()

    def close(self):
        for database in self._opened:
            database.close(0.0)

    def texts(self):
        """What another program reads."""
        with contextlib.closing(sqlite3.connect(str(self.path), timeout=20)) as connection:
            return [row[0] for row in connection.execute("select text from note order by id")]


@pytest.fixture
def shelf(tmp_path):
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.close()


@pytest.fixture
def db(shelf):
    return shelf.open()


def adding(text):
    """Work that adds a note -> its id."""
    return lambda connection: connection.execute("insert into note(text) values (?)",
                                                 (text,)).lastrowid


def adding_later(text):
    """`adding` for which nobody waits."""
    return agent.lazy(adding(text))


def count_commits(path):
    """Commits in the -wal file: its frames that carry a database size (sqlite.org/fileformat2)."""
    data = pathlib.Path(str(path) + "-wal").read_bytes()
    page_size, salt, count = struct.unpack(">I", data[8:12])[0], data[16:24], 0
    for at in range(32, len(data) - 24 - page_size + 1, 24 + page_size):
        frame = data[at:at + 24]
        count += frame[8:16] == salt and frame[4:8] != b"\0\0\0\0"
    return count


def error_of(pending):
    with pytest.raises(agent.AgentError) as caught:
        pending.result()
    return caught.value


# -- opening ---------------------------------------------------------------------------

def test_a_new_file_is_private_and_in_wal_mode(shelf, db):
    db.write(adding("a"))
    for name in ("", "-wal", "-shm"):
        mode = stat.S_IMODE(os.stat(str(shelf.path) + name).st_mode)
        assert mode == 0o600, (name, oct(mode))
    db.close()
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as connection:
        assert connection.execute("pragma journal_mode").fetchone()[0] == "wal"
        assert connection.execute("pragma user_version").fetchone()[0] == 1


def test_a_folder_is_private(tmp_path):
    folder = tmp_path / "a"
    assert agent.make_folder(str(folder)) is True
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert agent.make_folder(str(folder)) is False


def test_the_writer_syncs_in_full(db):
    def settings(connection):
        return [connection.execute("pragma " + name).fetchone()[0]
                for name in ("synchronous", "journal_mode", "locking_mode", "query_only")]
    assert db.write(settings) == [2, "wal", "normal", 0]


def test_close_checkpoints_and_leaves_nothing_beside(shelf, db):
    for number in range(20):
        db.write(adding(str(number)))
    with db.reading() as connection:
        connection.execute("select count(*) from note").fetchone()
    db.close()
    assert [path.name for path in shelf.path.parent.iterdir()] == ["shelf.db"]
    assert len(shelf.texts()) == 20


def test_close_leaves_the_wal_to_another_program_that_has_the_file_open(shelf, db):
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as other:
        db.write(adding("a"))
        assert other.execute("select text from note").fetchall() == [("a",)]
        db.close()
        assert other.execute("select text from note").fetchall() == [("a",)]
    assert shelf.texts() == ["a"]


def test_a_missing_file_is_not_made(shelf, tmp_path):
    with pytest.raises(agent.RepositoryError, match="shelf"):
        agent.Database(str(tmp_path / "none.db"), "shelf", "shelf", (TABLES,), agent.Clock()).open()
    assert not (tmp_path / "none.db").exists()


def test_a_newer_schema_is_refused_and_left_as_it_is(shelf):
    shelf.open().close()
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as connection:
        connection.execute("pragma user_version=7")
    before = shelf.path.read_bytes()
    with pytest.raises(agent.RepositoryError, match="version 7.*up to 1.*newer agent.py"):
        shelf.open()
    assert shelf.path.read_bytes() == before


def test_a_foreign_sqlite_file_is_refused_and_left_as_it_is(shelf):
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as connection:
        connection.execute("create table mine (a)")
        connection.commit()
    with pytest.raises(agent.RepositoryError, match="no repository"):
        shelf.open()
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as connection:
        assert connection.execute("select name from sqlite_master").fetchall() == [("mine",)]
        assert connection.execute("pragma user_version").fetchone() == (0,)


def test_a_repository_of_another_kind_is_refused(shelf):
    shelf.open().close()
    with pytest.raises(agent.RepositoryError, match="is no work repository"):
        shelf.open(kind="work")


@pytest.mark.parametrize("content", [b"this is no database, " * 500, b"SQLite format 3\0" + b"x" * 9000])
def test_a_corrupt_file_is_refused_and_left_as_it_is(shelf, content):
    shelf.path.write_bytes(content)
    with pytest.raises(agent.RepositoryError):
        shelf.open()
    assert shelf.path.read_bytes() == content


def test_tables_it_does_not_know_are_left_alone(shelf):
    shelf.open().close()
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as connection:
        connection.execute("create table mine as select 1 as a")
        connection.commit()
    second = "alter table note add column more text;\n"
    shelf.open(TABLES, second).close()
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as connection:
        assert connection.execute("select a from mine").fetchall() == [(1,)]


def test_uuids_are_of_version_4_and_no_two_are_alike():
    texts = {agent.make_uuid() for _ in range(200)}
    assert len(texts) == 200
    for text in texts:
        assert str(uuid.UUID(text)) == text
        assert uuid.UUID(text).version == 4 and uuid.UUID(text).variant == uuid.RFC_4122
    assert {text[19] for text in texts} == set("89ab")


def test_a_migration_copies_the_file_first_and_keeps_its_uuid(shelf):
    first = shelf.open()
    first.write(adding("kept"))
    first.close()
    second = shelf.open(TABLES, "alter table note add column more text;\n"
                                "update note set more='new' || text;\n")
    assert second.uuid == first.uuid
    with second.reading() as connection:
        assert tuple(connection.execute("select text, more from note").fetchone()) == ("kept", "newkept")
    copy = pathlib.Path(str(shelf.path) + ".v1")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with contextlib.closing(sqlite3.connect(str(copy))) as connection:
        assert connection.execute("pragma user_version").fetchone() == (1,)
        assert connection.execute("select * from note").fetchall() == [(1, "kept")]


def test_a_migration_that_fails_changes_nothing(shelf):
    first = shelf.open()
    first.write(adding("kept"))
    first.close()
    with pytest.raises(agent.RepositoryError):
        shelf.open(TABLES, "alter table note add column more text;\ninsert into nowhere values (1);\n")
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as connection:
        assert connection.execute("pragma user_version").fetchone() == (1,)
        assert connection.execute("select * from note").fetchall() == [(1, "kept")]
    assert shelf.open(TABLES, "alter table note add column more text;\n").uuid == first.uuid


# -- the shared commit -----------------------------------------------------------------

def test_requests_that_come_together_share_a_commit(shelf, db):
    before = count_commits(shelf.path)
    with foreign_lock(shelf.path):
        waiting = [db.submit(adding("n%d" % number)) for number in range(300)]
    ids = [pending.result() for pending in waiting]
    assert ids == list(range(1, 301))
    assert shelf.texts() == ["n%d" % number for number in range(300)]
    assert count_commits(shelf.path) - before <= 4


def test_requests_of_many_threads_are_each_written_once(shelf, db):
    before, answers = count_commits(shelf.path), []

    def client(name):
        for number in range(40):
            answers.append(db.write(adding("%s %d" % (name, number))))
    threads = [threading.Thread(target=client, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert sorted(answers) == list(range(1, 321))
    texts = shelf.texts()
    assert len(set(texts)) == 320
    assert count_commits(shelf.path) - before <= 320
    for name in "abcdefgh":         # in the order of each client
        assert [text for text in texts if text[0] == name] == \
            ["%s %d" % (name, number) for number in range(40)]


def test_what_is_answered_is_seen_by_others(shelf, db):
    for number in range(20):
        db.write(adding(str(number)))
        assert shelf.texts()[-1] == str(number)


def test_what_only_reads_makes_no_commit(shelf, db):
    db.write(adding("a"))
    before = count_commits(shelf.path)
    for _ in range(5):
        assert db.write(lambda c: c.execute("select count(*) from note").fetchone()[0]) == 1
    assert count_commits(shelf.path) == before


def refuse(connection):
    connection.execute("insert into note(text) values ('half done')")
    raise agent.Conflict("no")


def clash(connection):
    connection.execute("insert into note(text) values ('half done')")
    connection.execute("insert into note(text) values ('first')")


def overflow(connection):
    connection.execute("insert into note(text) values ('half done')")
    connection.execute("insert into note(id, text) values (?, 'x')", (1 << 70,))


def misspell(connection):
    connection.execute("insert into note(text) values ('half done')")
    connection.execute("insert into no_such_table values (1)")


def read_what_is_no_text(connection):
    connection.execute("insert into note(text) values (cast(x'ff' as text))")
    connection.execute("select text from note order by id desc").fetchone()


@pytest.mark.parametrize("bad, error", [
    (refuse, agent.Conflict), (clash, sqlite3.IntegrityError), (overflow, OverflowError),
    (misspell, sqlite3.OperationalError), (lambda connection: 1 // 0, ZeroDivisionError),
    (read_what_is_no_text, sqlite3.OperationalError)])
def test_a_bad_request_does_not_spoil_its_neighbours(shelf, db, bad, error):
    db.write(adding("first"))
    with foreign_lock(shelf.path):
        before = db.submit(adding("before"))
        spoiled = db.submit(bad)
        after = db.submit(adding("after"))
    assert before.result() and after.result()
    with pytest.raises(error):
        spoiled.result()
    assert shelf.texts() == ["first", "before", "after"]
    assert not db.trouble


@pytest.mark.parametrize("bad, savepoints, runs", [
    (adding("alone"), 0, 1), (lambda connection: 1 // 0, 0, 1), (refuse, 3, 2),
    (agent.atomic(lambda connection: misspell(connection)), 0, 1)])
def test_savepoints_are_made_only_once_a_request_has_failed_amid_its_changes(shelf, db, bad, savepoints, runs):
    counted, statements = [], []

    def count(connection):
        counted.append(connection.in_transaction)
    db._connections.get_writer().set_trace_callback(lambda statement: statements.append(statement))
    with foreign_lock(shelf.path):
        waiting = [db.submit(count), db.submit(bad), db.submit(adding("after"))]
    waiting[2].result()
    assert len([text for text in statements if text.startswith("savepoint")]) == savepoints, statements
    assert len([text for text in statements if text.startswith("release")]) == savepoints
    assert counted == [True] * runs and shelf.texts()[-1] == "after"


def test_a_request_alone_needs_no_savepoint_whatever_comes_of_it(shelf, db):
    statements = []
    db._connections.get_writer().set_trace_callback(lambda statement: statements.append(statement))
    assert isinstance(error_of(db.submit(refuse)), agent.Conflict)
    assert [text for text in statements if not text.startswith("--")] == [
        "begin immediate", "pragma data_version", "insert into note(text) values ('half done')", "rollback"]
    assert db.write(adding("after")) and shelf.texts() == ["after"]


def test_what_follows_a_commit_is_done_in_order_by_a_thread_of_its_own(shelf):
    """What fails there takes nothing back and keeps none from its turn."""
    inbox, seen = agent.Inbox(), []

    def fail(pending):
        raise ValueError("callback")
    db = shelf.open(inbox=inbox)
    for text in ("a", "b"):
        db.submit(adding(text), on_done=fail)
        db.submit(adding(text * 2), on_done=lambda pending: seen.append(
            (pending.value, len(shelf.texts()), threading.current_thread().name)))
    assert db.write(adding("c")) == 5
    inbox.close()
    assert [(value, name) for value, _, name in seen] == [(2, "follow-ups"), (4, "follow-ups")]
    assert all(count >= value for value, count, _ in seen)      # they are on disk by then


def test_what_outlives_the_thread_of_follow_ups_is_told_all_the_same(shelf):
    inbox, seen = agent.Inbox(), []
    db = shelf.open(inbox=inbox)
    db.close()
    inbox.close()
    db.submit(adding("late"), on_done=lambda pending: seen.append(type(pending.error)))
    assert seen == [agent.RepositoryGone]


def test_lazy_requests_are_written_too(shelf, db):
    for number in range(30):
        db.submit(adding_later(str(number)))
        time.sleep(0.003)
    wait_for(lambda: len(shelf.texts()) == 30, "the lazy requests")
    assert shelf.texts() == [str(number) for number in range(30)]


def test_order_is_kept_with_lazy_ones_between(shelf, db):
    waiting = [db.submit((adding if number % 3 else adding_later)(str(number))) for number in range(60)]
    for pending in waiting:
        pending.result()
    assert shelf.texts() == [str(number) for number in range(60)]


# -- foreign locks ---------------------------------------------------------------------

def test_under_a_foreign_lock_some_fail_in_time_and_the_others_are_written_later(shelf, db):
    with foreign_lock(shelf.path):
        patient = [db.submit(adding("patient %d" % number)) for number in range(3)]
        begun = time.monotonic()
        hasty = [db.submit(adding("hasty %d" % number), within_s=0.3) for number in range(3)]
        for pending in hasty:
            assert "locked" in error_of(pending).message
        assert time.monotonic() - begun >= 0.3
        assert not any(pending.is_done for pending in patient)
        wait_for(lambda: db.trouble, "the trouble to be told")
        assert db.trouble == "another program holds its lock"
    assert [pending.result() for pending in patient] == [1, 2, 3]
    assert shelf.texts() == ["patient 0", "patient 1", "patient 2"]
    assert not db.trouble


def test_a_short_foreign_lock_costs_nobody_anything(shelf, db):
    with foreign_lock(shelf.path):
        waiting = [db.submit(adding(str(number)), within_s=30) for number in range(5)]
        time.sleep(0.3)
    assert [pending.result() for pending in waiting] == [1, 2, 3, 4, 5]


def test_requests_that_come_during_a_lock_do_not_wait_behind_it_for_their_time(shelf, db):
    with foreign_lock(shelf.path):
        patient = db.submit(adding("patient"))
        time.sleep(0.2)
        hasty = db.submit(adding("hasty"), within_s=0.2)
        error_of(hasty)
        assert not patient.is_done
    patient.result()
    assert shelf.texts() == ["patient"]


@pytest.mark.parametrize("how", ["immediate", "exclusive"])
def test_readers_wait_for_neither_a_foreign_lock_nor_the_writer(shelf, db, how):
    db.write(adding("a"))
    is_inside, may_go = threading.Event(), threading.Event()

    def slow(connection):
        connection.execute("insert into note(text) values ('b')")
        is_inside.set()
        may_go.wait(LIMIT_S)

    def count():
        with db.reading() as connection:
            return connection.execute("select count(*) from note").fetchone()[0]
    with foreign_lock(shelf.path, how) as other:
        other.execute("insert into note(text) values ('foreign')")
        assert count() == 1
    pending = db.submit(slow)
    assert is_inside.wait(LIMIT_S)
    assert count() == 1
    may_go.set()
    pending.result()
    assert count() == 2


def test_one_locked_file_delays_no_other(tmp_path):
    shelves = []
    for name in "ab":
        (tmp_path / name).mkdir()
        shelves.append(Shelf(tmp_path / name))
    try:
        first, second = [shelf.open() for shelf in shelves]
        with foreign_lock(shelves[0].path):
            waiting = first.submit(adding("a"))
            assert second.write(adding("b")) == 1
            assert not waiting.is_done
        assert waiting.result() == 1
    finally:
        for shelf in shelves:
            shelf.close()


# -- readers ---------------------------------------------------------------------------

def test_readers_cannot_write_and_do_not_checkpoint(db):
    with db.reading() as connection:
        assert connection.execute("pragma query_only").fetchone()[0] == 1
        assert connection.execute("pragma wal_autocheckpoint").fetchone()[0] == 0
    with pytest.raises(agent.RepositoryError):
        with db.reading() as connection:
            connection.execute("insert into note(text) values ('x')")
    with db.reading() as connection:
        assert connection.execute("select count(*) from note").fetchone()[0] == 0


def test_many_readers_at_once(db):
    db.write(adding("a"))
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            connection = stack.enter_context(db.reading())
            assert connection.execute("select count(*) from note").fetchone()[0] == 1
    db.close()


# -- disk full -------------------------------------------------------------------------

LIMITED = """
import resource, sqlite3, sys, threading
sys.path.insert(0, %(top)r)
import agent
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def adding(text):
    return lambda c: c.execute("insert into note(text) values (?)", (text,)).lastrowid
db = agent.Database(sys.argv[1], "shelf", "shelf", (%(tables)r,), agent.Clock()).open()
for number in range(3):
    db.write(adding("small %%d" %% number))
limit(32768 * 8)
patient = db.submit(adding("patient " + "x" * 400000))
first = patient.is_done
hasty = db.submit(adding("hasty " + "x" * 400000), within_s=0.5)
try:
    hasty.result()
    print("hasty: written")
except agent.RepositoryError as error:
    print("hasty:", error.code, "cannot be written" in error.message)
print("trouble:", bool(db.trouble), "patient:", first, patient.is_done)
with db.reading() as connection:
    print("rows:", connection.execute("select count(*) from note").fetchone()[0])
limit(resource.RLIM_INFINITY)
print("patient:", patient.result(), "trouble:", repr(db.trouble))
db.close()
"""


def test_a_full_disk_fails_what_has_a_limit_and_keeps_the_rest(shelf, tmp_path):
    shelf.open().close()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED % {"top": str(TOP), "tables": TABLES}),
         str(shelf.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S,
        universal_newlines=True)
    assert done.stdout.splitlines() == [
        "hasty: REPOSITORY True", "trouble: True patient: False False", "rows: 3",
        "patient: 4 trouble: ''"], done.stdout + done.stderr
    assert [text[:8] for text in shelf.texts()] == ["small 0", "small 1", "small 2", "patient "]
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as connection:
        assert connection.execute("pragma integrity_check").fetchone()[0] == "ok"


class FailingCommit(sqlite3.Connection):
    """SQLite with a disk that fails when a commit is synced: what of it was written is unknown."""
    fails = []      # how the next commits fail: "before" it reached the disk, or "after"

    def execute(self, sql, *arguments):
        how = self.fails.pop(0) if sql == "commit" and self.fails else None
        if how == "before":
            super().execute("rollback")
        cursor = super().execute(sql, *arguments) if how != "before" else None
        if how:
            raise sqlite3.OperationalError("disk I/O error")
        return cursor


def connect_failing(path, timeout_s=0):
    """connect_file whose connections are Failing ones."""
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, factory=FailingCommit,
                                 check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


@pytest.mark.parametrize("fails", [["before"], ["after"], ["before", "after"], ["before"] * 3,
                                   ["after", "after"]])
def test_a_commit_of_unknown_outcome_is_read_back_and_never_doubled(shelf, fails, monkeypatch):
    monkeypatch.setattr(agent, "connect_file", connect_failing)
    db = shelf.open()
    db.write(adding("first"))
    with foreign_lock(shelf.path):
        waiting = [db.submit(lambda c, n=number: c.execute(
            "insert into note(text) select 'again ' || count(*) from note").lastrowid)
            for number in range(10)]
        FailingCommit.fails[:] = fails
    try:
        assert [pending.result() for pending in waiting] == list(range(2, 12))
        assert shelf.texts() == ["first"] + ["again %d" % number for number in range(1, 11)]
        db.write(adding("last"))
    finally:
        FailingCommit.fails[:] = []
    assert shelf.texts()[-1] == "last" and len(shelf.texts()) == 12


@pytest.mark.parametrize("how, lines", [("before", ["cannot be written: disk I/O error", "can be written again"]),
                                        ("after", ["a commit failed (disk I/O error), but is on disk"])])
def test_commits_that_fail_are_told_once(shelf, how, lines, monkeypatch, caplog):
    """A line when it begins, and one when it is over, however often it is tried."""
    monkeypatch.setattr(agent, "connect_file", connect_failing)
    caplog.set_level("INFO", "agent")
    db = shelf.open()
    try:
        FailingCommit.fails[:] = [how] * 5
        for number in range(6):
            db.write(adding("text %d" % number), within_s=None)
    finally:
        FailingCommit.fails[:] = []
    assert shelf.texts() == ["text %d" % number for number in range(6)]
    assert len(caplog.records) == len(lines)
    assert all(record.getMessage().endswith(line) for record, line in zip(caplog.records, lines))


@pytest.mark.parametrize("is_torn", [False, True])
def test_a_file_replaced_while_its_commit_fails_keeps_nobody_waiting(shelf, monkeypatch, is_torn):
    """Whether that is on disk nobody will ever know: the -wal is the other file's, too."""
    monkeypatch.setattr(agent, "connect_file", connect_failing)
    db = shelf.open()
    db.write(adding("first"))

    def replace(connection):
        connection.execute("insert into note(text) values ('second')")
        shelf.path.rename(shelf.path.with_name("away.db"))
        Shelf(shelf.path.parent).open().close()
        if is_torn:
            monkeypatch.setattr(agent.Connections, "is_torn", True)
            monkeypatch.setattr(agent, "put_in", lambda connection: (False, False))
        else:
            FailingCommit.fails[:] = ["after"] * 3
    pending, results = db.submit(replace), []
    waiter = threading.Thread(target=lambda: results.append(pytest.raises(agent.RepositoryGone, pending.result)))
    waiter.start()
    try:
        waiter.join(20)
        assert results, "nobody is told"
        assert db.is_gone
    finally:
        FailingCommit.fails[:] = []


# -- files that move -------------------------------------------------------------------

def test_a_file_moved_away_and_back(shelf, db, tmp_path):
    db.write(adding("a"))
    away = tmp_path / "away.db"
    move_repository(shelf.path, away)
    assert "No such file" in error_of(db.submit(adding("hasty"), within_s=0.2)).message
    patient = db.submit(adding("patient"))
    with pytest.raises(agent.RepositoryError):
        with db.reading():
            pass
    assert "No such file" in db.trouble and not patient.is_done
    assert not shelf.path.exists(), "it was made anew"
    move_repository(away, shelf.path)
    assert patient.result() == 2
    assert shelf.texts() == ["a", "patient"]
    assert not db.trouble and not db.is_gone


def test_a_file_replaced_by_a_copy_is_gone_and_not_written_to(shelf, db, tmp_path):
    db.write(adding("a"))
    copy = tmp_path / "copy.db"
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    shutil.copy(str(shelf.path), str(copy))
    with foreign_lock(shelf.path):
        waiting = db.submit(adding("waiting"))
        os.rename(str(copy), str(shelf.path))
        assert isinstance(error_of(waiting), agent.RepositoryGone)
    assert db.is_gone and "replaced" in db.trouble
    for request in (db.submit(adding("later")), db.submit(adding("later"), within_s=0.1)):
        assert isinstance(error_of(request), agent.RepositoryGone)
    with pytest.raises(agent.RepositoryError):
        with db.reading():
            pass
    db.close()
    for name in ("-wal", "-shm"):
        with contextlib.suppress(OSError):
            os.unlink(str(shelf.path) + name)
    assert shelf.texts() == ["a"]


def test_a_replaceable_file_is_opened_anew(shelf, tmp_path):
    db = shelf.open(is_replaceable=True)
    db.write(adding("a"))
    db.close()
    copy = tmp_path / "copy.db"
    shutil.copy(str(shelf.path), str(copy))
    db = shelf.open(is_replaceable=True)
    with db.reading() as connection:
        connection.execute("select count(*) from note").fetchone()
    os.rename(str(copy), str(shelf.path))
    assert db.write(adding("b")) == 2
    with db.reading() as connection:
        assert connection.execute("select count(*) from note").fetchone()[0] == 2
    db.close()
    assert shelf.texts() == ["a", "b"]


def test_a_replaceable_file_of_another_uuid_is_gone(shelf, tmp_path):
    (tmp_path / "other").mkdir()
    other = Shelf(tmp_path / "other")
    other.open().close()
    db = shelf.open(is_replaceable=True)
    db.write(adding("a"))
    os.rename(str(other.path), str(shelf.path))
    for name in ("-wal", "-shm"):
        os.unlink(str(shelf.path) + name)
    assert isinstance(error_of(db.submit(adding("b"))), agent.RepositoryGone)
    db.close()
    assert shelf.texts() == []


# -- closing ---------------------------------------------------------------------------

def test_close_writes_down_what_is_waiting(shelf, db):
    waiting = [db.submit((adding if number % 2 else adding_later)(str(number))) for number in range(1200)]
    db.close()
    assert all(pending.is_done for pending in waiting)
    assert [pending.result() for pending in waiting] == list(range(1, 1201))
    assert len(shelf.texts()) == 1200


def test_close_waits_for_a_foreign_lock_as_long_as_it_may(shelf, db):
    with foreign_lock(shelf.path):
        waiting = db.submit(adding("a"))
        closing = threading.Thread(target=db.close, args=(LIMIT_S,))
        closing.start()
        time.sleep(0.3)
        assert closing.is_alive() and not waiting.is_done
    closing.join(LIMIT_S)
    assert not closing.is_alive()
    assert waiting.result() == 1 and shelf.texts() == ["a"]


def test_close_fails_what_cannot_be_written_in_time(shelf, db):
    with foreign_lock(shelf.path):
        waiting = [db.submit(adding(str(number))) for number in range(700)]
        db.close(0.3)
        for pending in waiting:
            assert error_of(pending).code == "REPOSITORY"
    assert shelf.texts() == []


def test_after_close_nothing_is_taken_and_closing_again_is_harmless(shelf, db):
    db.close()
    assert isinstance(error_of(db.submit(adding("a"))), agent.RepositoryGone)
    db.close()
    assert shelf.texts() == []


def test_a_fault_tells_where_it_came_from_and_holds_nothing(db):
    def faulty(connection):
        raise KeyError("nobody expected that")
    pending = db.submit(faulty)
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            pending.result()
        assert "in faulty" in agent.tell_traceback(caught.value)
    assert pending.error.__traceback__ is None and pending.error.__context__ is None


# -- a crash ---------------------------------------------------------------------------

def test_what_a_killed_writer_acknowledged_is_there(shelf):
    shelf.open().close()
    code = ("import sys; sys.path.insert(0, %r); import agent\n"
            "db = agent.Database(sys.argv[1], 'shelf', 'shelf', (%r,), agent.Clock()).open()\n"
            "for n in range(100000):\n"
            "    db.write(lambda c: c.execute('insert into note(text) values (?)', (str(n),)))\n"
            "    print(n, flush=True)\n" % (str(TOP), TABLES))
    for _ in range(3):
        with contextlib.closing(sqlite3.connect(str(shelf.path))) as connection:
            connection.execute("delete from note")
            connection.commit()
        process = subprocess.Popen([sys.executable, "-c", code, str(shelf.path)],
                                   stdout=subprocess.PIPE)
        with process.stdout:
            for _ in range(40):
                line = process.stdout.readline()
                assert line
            process.kill()
            told = [int(line)] + [int(text) for text in process.stdout.read().split(b"\n")[:-1]]
        process.wait()
        texts = shelf.texts()
        assert texts[:told[-1] + 1] == [str(number) for number in range(told[-1] + 1)]
        assert len(texts) <= told[-1] + 2
    shelf.open().write(adding("goes on"))


def test_limits_of_the_environment_are_those_the_tests_expect():
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY


# -- the size of the -wal --------------------------------------------------------------

def test_a_large_wal_is_cut_once_nobody_uses_it_and_no_sooner(shelf, db):
    wal = pathlib.Path(str(shelf.path) + "-wal")
    db.write(adding("a"))
    with contextlib.closing(sqlite3.connect(str(shelf.path))) as other:
        other.execute("begin")
        other.execute("select * from note").fetchall()          # a snapshot that is kept
        for number in range(6):
            db.write(adding("%d" % number * 1000000))
        large = wal.stat().st_size
        assert large > 6 * 1000000
        for _ in range(3):                                      # as the looks of an agent that is idle
            db.read_version()
        assert wal.stat().st_size == large and not db.trouble
    for _ in range(2):
        db.read_version()
    assert wal.stat().st_size == 0 and len(shelf.texts()) == 7
    db.write(adding("b"))
    before = wal.stat().st_size
    for _ in range(3):
        db.read_version()
    assert wal.stat().st_size == before > 0                     # a small one stays


def test_many_other_files_in_its_folder_cost_no_memory(tmp_path):
    path = str(tmp_path / "work.db")
    for number in range(3000):
        (tmp_path / ("report.%d.2026-11-28.csv" % number)).touch()
    for ending in ("spool.1001.2.ab", "spool.1001.2", "spool.1001.21", "spool.1001.2.ab-wal", "secret.k"):
        (tmp_path / ("work.db." + ending)).touch()
    tracemalloc.start()
    try:
        assert sorted(os.path.basename(each) for each, _ in agent.Spools(path).list_all()) == [
            "work.db.spool.1001.2", "work.db.spool.1001.2.ab", "work.db.spool.1001.2.ab-wal", "work.db.spool.1001.21"]
        assert agent.Spools(path).find(1001, 2) is not None and agent.Spools(path).find(1001, 3) is None
        assert agent.SecretFiles(path).list_names() == {"k"}
        assert tracemalloc.get_traced_memory()[1] < 60000       # 3000 names are 240,000 bytes and more
    finally:
        tracemalloc.stop()
    assert agent.list_beginning(str(tmp_path / "gone" / "x")) == []


def test_a_schema_of_which_sqlite_cannot_tell_in_utf8(inside):
    """It is told as any damage is."""
    inside.stop()
    spoil_schema(inside.work)
    inside.start()
    assert inside.ok("PING")["status"] == "DEGRADED"
    assert inside.rows("REPOS")[0]["message"] == "work repository WORKREP: its schema is malformed"
    inside.stop()
    spoil_schema(inside.master)
    with pytest.raises(agent.CannotStart, match="^master repository: its schema is malformed$"):
        inside.start()
