"""Links and files that somebody else has planted beside ours, in a folder that he may write: nothing is written through
them, and nothing of his is taken for ours."""
import contextlib
import http.server
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import zipfile

import pytest

import agent as module
from conftest import AGENT, LIMIT_S, is_alive, wait_for
from support.adoptable import UNTIL_GO, adoptable, pid_of, spools
from support.outside import list_secrets
from support.tasks import import_secret
from support.waiting import go

pytestmark = pytest.mark.once

STRANGER = 4242         # a user who is not the agent's
PRECIOUS = "root's own\n"
VALUE = "s3cr3t-Pa55"
OPEN_FOLDERS = [0o1777, 0o775]


class OpenFolder:
    """A folder that others may write, a file of root's outside of it, and what the stranger does."""

    def __init__(self, top, mode):
        self.folder, self.victim = top / "repo", top / "victim"
        self.folder.mkdir()
        self.folder.chmod(mode)
        self.victim.write_text(PRECIOUS)
        self.victim.chmod(0o600)

    def give(self, path):
        """A file or link of the stranger's."""
        try:
            os.lchown(str(path), STRANGER, STRANGER)
        except OSError as error:
            pytest.skip("files cannot be given to another user here: %s" % error)
        return path

    def link(self, name, to=None):
        """A symbolic link, to the victim."""
        path = self.folder / name
        path.symlink_to(to or self.victim)
        return self.give(path)

    def file(self, name, text="", mode=0o666):
        """A file of the stranger's."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return self.give(path)

    def check(self):
        """Nothing has come to the victim."""
        assert self.victim.read_text() == PRECIOUS
        assert stat.S_IMODE(self.victim.stat().st_mode) == 0o600


def needs_root():
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another user")


@pytest.fixture(params=OPEN_FOLDERS, ids=oct)
def open_folder(tmp_path, request):
    needs_root()
    found = OpenFolder(tmp_path, request.param)
    yield found
    found.check()


@pytest.fixture
def sticky(tmp_path):
    """A Site, of one kind."""
    needs_root()
    found = OpenFolder(tmp_path, OPEN_FOLDERS[0])
    yield found
    found.check()


def refused(agent, path, what):
    """The agent does not start, and its one line names the path and what to do."""
    agent.start(is_ready=False)
    assert agent.process.wait(LIMIT_S) == 1
    line = agent.log().strip().split("\n")[-1]
    assert line.startswith("agent.py: ") and str(path) in line and what in line and "delete" in line, line


# -- names -----------------------------------------------------------------------------

def test_a_name_cannot_be_foreseen_and_fits():
    names = {module.name_beside("/a/b.csv", "part") for _ in range(100)}
    assert len(names) == 100
    assert all(re.match(r"/a/\.b\.csv\.[0-9a-f]{16}\.part$", name) for name in names)
    assert re.match(r"\.b\.[0-9a-f]{16}\.part$", module.name_beside("b", "part"))
    for long in ("x" * 255, "\u00e9" * 127, "a" + "\u20ac" * 84):
        name = module.name_beside(long, "part")
        assert len(os.fsencode(name)) <= 143 and "\ufffd" not in name
        os.fsencode(name).decode("utf-8")       # no character is cut
        assert name.startswith("." + long[:30])


def test_a_long_name_is_written(tmp_path):
    for name in ("x" * 255, "\u00e9" * 127):
        with module.written_beside(str(tmp_path / name)) as file:
            file.write(b"whole")
        assert (tmp_path / name).read_bytes() == b"whole"
        (tmp_path / name).unlink()
    assert os.listdir(str(tmp_path)) == []


def test_a_file_has_the_mode_of_the_umask_and_what_failed_leaves_none(tmp_path):
    before = os.umask(0o027)
    try:
        with module.written_beside(str(tmp_path / "a")) as file:
            assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o640]
            file.write(b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    (tmp_path / "b").mkdir()
    for path, error, mode in (("a", ZeroDivisionError, {}), ("b", IsADirectoryError, {}), ("none/c", OSError, {}),
                              ("a", LookupError, {"mode": "w", "encoding": "none"})):
        with pytest.raises(error) as caught:
            with module.written_beside(str(tmp_path / path), **mode) as file:
                file.write(b"2")
                assert path != "a" or 1 // 0
        if isinstance(caught.value, OSError):       # told of the name that the user knows
            assert caught.value.filename == str(tmp_path / path) and ".part" not in str(caught.value)
    assert sorted(os.listdir(str(tmp_path))) == ["a", "b"] and (tmp_path / "a").read_bytes() == b"1"


def test_folders_and_files_are_private_whatever_the_umask(make_agent, tmp_path):
    before = os.umask(0)
    try:
        assert module.make_folder(str(tmp_path / "a" / "b" / "c")) is True
        agent = make_agent(folder="a/b/c").start()
        adoptable(agent, "echo $$ > pid; %s" % UNTIL_GO, variables={"key": {"secret": True}})
        agent.ok("EXEC A key=%s" % VALUE)
        pid_of(agent)
    finally:
        os.umask(before)
    for name in ("a", "a/b", "a/b/c"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
    made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in agent.folder.iterdir()
            if path.name not in ("agent.log", "pid")}
    assert {"master.db", "master.db-wal", "workrep.db-shm", "master.db.AGENT.lock"} <= set(made)
    assert sum(".secret." in name for name in made) == 1 and sum(".spool." in name for name in made) >= 1
    assert set(made.values()) == {0o600}, made
    go(agent)
    assert agent.ok("WAIT 1001")["status"] == "DONE"
    assert not [name for name in os.listdir(str(agent.folder)) if ".secret." in name or ".spool." in name]


# -- files of tasks --------------------------------------------------------------------

class Page(http.server.BaseHTTPRequestHandler):
    """Answers every GET with one page."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *_):
        pass


@pytest.fixture
def page():
    """The url of a server."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield "http://127.0.0.1:%d/" % server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_task_writes_through_a_link_beside_its_target(open_folder, make_agent, page):
    source, out = open_folder.folder.parent / "source", open_folder.folder / "out"
    source.mkdir()
    for name in ("copied", "moved", "member"):
        (source / name).write_text(name)
    with zipfile.ZipFile(str(source / "a.zip"), "w") as archive:
        archive.writestr("member", "member")
    out.mkdir()
    os.chmod(str(out), stat.S_IMODE(open_folder.folder.stat().st_mode))
    targets = ("copied", "a.zip", "rows.csv", "page", "member")
    for name in targets:
        open_folder.link("out/%s.part" % name)
    agent = make_agent().start()
    to = lambda name: str(out / name)      # noqa: E731
    agent.import_document({
        "data_servers": [{"name": "D", "driver": "sqlite3", "database": str(source / "d.db")}],
        "logical_schemas": [{"name": "D", "contexts": {"GLOBAL": "D"}}],
        "scenarios": [{"name": "S", "version": "1", "steps": [{"name": "s", "tasks": [
            {"type": "copy", "from": str(source / "copied"), "to": to("copied")},
            {"type": "zip", "from": str(source / "member"), "to": to("a.zip")},
            {"type": "unzip", "from": str(source / "a.zip"), "to": str(out)},
            {"type": "unload_csv", "schema": "D", "query": "select 1 as a", "file": to("rows.csv")},
            {"type": "http", "url": page, "save": to("page")}]}]}]})
    end = agent.ok("EXEC S -SYNC")
    assert end["status"] == "DONE", end
    assert (out / "copied").read_text() == "copied" and (out / "member").read_text() == "member"
    assert (out / "rows.csv").read_text().split() == ["a", "1"] and (out / "page").read_text() == "page"
    assert zipfile.ZipFile(str(out / "a.zip")).namelist() == ["member"]
    for name in targets:
        assert (out / name).lstat().st_uid == 0 and not (out / name).is_symlink()
        assert (out / (name + ".part")).is_symlink()
    assert len(os.listdir(str(out))) == 2 * len(targets)


def test_a_move_between_file_systems_and_a_folder(open_folder):
    other = "/dev/shm"
    if not os.path.isdir(other) or os.stat(other).st_dev == os.stat(str(open_folder.folder)).st_dev:
        pytest.skip("there is no second file system")
    source = os.path.join(other, "planted-%d" % os.getpid())
    os.makedirs(source + "/inner")
    try:
        for name in ("file", "inner/deep"):
            with open(os.path.join(source, name), "w") as file:
                file.write(name)
        os.chmod(source + "/file", 0o640)
        os.utime(source + "/file", (1000, 2000))
        for name in ("file", "inner"):
            open_folder.link(name + ".part")
            module.move_one(os.path.join(source, name), str(open_folder.folder / name))
        assert os.listdir(source) == []
    finally:
        shutil.rmtree(source)
    moved = (open_folder.folder / "file").lstat()
    assert (moved.st_mode, moved.st_mtime, moved.st_uid) == (stat.S_IFREG | 0o640, 2000, 0)
    assert (open_folder.folder / "inner" / "deep").read_text() == "inner/deep"
    assert sorted(os.listdir(str(open_folder.folder))) == ["file", "file.part", "inner", "inner.part"]


def test_a_folder_is_copied_whole_or_not_at_all(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "one").write_text("1")
    os.mkfifo(str(tmp_path / "a" / "pipe"))
    with pytest.raises(module.TaskError):
        module.copy_one(str(tmp_path / "a"), str(tmp_path / "b"))
    assert os.listdir(str(tmp_path)) == ["a"]
    with pytest.raises(module.TaskError):
        module.copy_one(str(tmp_path / "a" / "pipe"), str(tmp_path / "b"))
    (tmp_path / "a" / "pipe").unlink()
    module.copy_one(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b" / "deep" / "one").read_text() == "1"
    with pytest.raises(FileExistsError) as caught:
        module.copy_one(str(tmp_path / "a"), str(tmp_path / "b"))
    assert caught.value.filename == str(tmp_path / "b")
    assert sorted(os.listdir(str(tmp_path))) == ["a", "b"]


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_data_server_does_not_take_what_is_planted_beside_it(sticky, make_agent, suffix):
    path = sticky.folder / "d.db"
    with contextlib.closing(sqlite3.connect(str(path))) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table t(a)")
    sticky.link("d.db" + suffix)
    agent = make_agent(folder="own").start()
    agent.import_document({
        "data_servers": [{"name": "D", "driver": "sqlite3", "database": str(path)}],
        "logical_schemas": [{"name": "D", "contexts": {"GLOBAL": "D"}}],
        "scenarios": [{"name": "S", "version": "1", "steps": [{"name": "s", "tasks": [
            {"type": "sql", "schema": "D", "statement": "insert into t values (1)"}]}]}]})
    end = agent.ok("EXEC S -SYNC")
    assert end["status"] == "ERROR" and "d.db%s is a symbolic link" % suffix in end["message"], end


# -- locks -----------------------------------------------------------------------------

def test_a_lock_file_that_is_a_link(open_folder, make_agent):
    agent = make_agent()
    path = open_folder.link("master.db.AGENT.lock")
    refused(agent, path, "is a symbolic link")
    path.unlink()
    agent.start()


def test_a_lock_file_that_is_a_link_to_nothing_makes_nothing(sticky, make_agent):
    nothing = sticky.folder.parent / "nothing"
    for name in ("master.db.AGENT.lock", "master.db.create.lock"):
        path = sticky.link(name, nothing)
        refused(make_agent(), path, "is a symbolic link")
        assert not nothing.exists() and path.is_symlink()
        path.unlink()


def test_a_lock_file_of_a_stranger(open_folder, make_agent):
    for name in ("master.db.AGENT.lock", "master.db.create.lock"):
        path = open_folder.file(name, "his")
        refused(make_agent(), path, "belongs to another user (uid %d)" % STRANGER)
        assert path.read_text() == "his"
        path.unlink()


def test_a_lock_file_that_is_a_second_name_or_a_pipe(sticky, make_agent):
    path = sticky.folder / "master.db.AGENT.lock"
    os.link(str(sticky.victim), str(path))
    refused(make_agent(), path, "a hard link")
    path.unlink()
    os.mkfifo(str(path))
    refused(make_agent(), path, "no regular file")
    path.unlink()
    make_agent().start()


def test_a_lock_file_that_a_crash_left_is_taken(make_agent):
    agent = make_agent().start()
    agent.kill()
    assert (agent.folder / "master.db.AGENT.lock").exists()
    agent.start()


# -- repositories ----------------------------------------------------------------------

def planted_repository(open_folder, text):
    """Bytes of a work repository whose HELLO prints a text."""
    path = str(open_folder.folder.parent / "his.db")
    repository = module.WorkRepository.create(1, "WORKREP", path, module.Clock())
    document = module.Definitions().read(json.dumps({"scenarios": [{"name": "HELLO", "version": "999", "steps": [
        {"name": "s", "tasks": [{"type": "os", "command": "echo " + text}]}]}]}))
    repository.db.write(repository.imports.put, document, "AGENT", 0.0)
    repository.db.close()
    with open(path, "rb") as file:
        return file.read()


def test_a_work_repository_that_is_there_before_the_first_start(open_folder, make_agent):
    data = planted_repository(open_folder, "owned")
    path = open_folder.folder / "workrep.db"
    path.write_bytes(data)
    open_folder.give(path)
    refused(make_agent(), path, "belongs to another user")
    assert path.read_bytes() == data and not (open_folder.folder / "master.db").exists()
    path.unlink()
    open_folder.link("workrep.db", open_folder.folder.parent / "his.db")
    refused(make_agent(), path, "belongs to another user")
    path.unlink()
    path.symlink_to(open_folder.folder.parent / "his.db")       # one of our own is meant
    assert "999" in json.dumps(make_agent().start().rows("SCENARIOS"))


def test_new_repositories_whatever_stands_at_the_names_of_before(sticky):
    for name in ("workrep.db", "master.db"):
        sticky.link("%s.new%d" % (name, os.getpid()))
    module.make_repositories(str(sticky.folder / "master.db"), module.Clock())
    assert sorted(name for name in os.listdir(str(sticky.folder)) if ".new" not in name) == ["master.db", "workrep.db"]
    for name in ("workrep.db", "master.db"):
        assert (sticky.folder / name).lstat().st_uid == 0


def test_attach_create_makes_no_file_of_a_link(open_folder, make_agent):
    agent = make_agent().start()
    open_folder.link("two.db", open_folder.folder.parent / "nothing")
    assert agent.err("ATTACH two two.db -CREATE") == "EXISTS"
    assert not (open_folder.folder.parent / "nothing").exists()
    open_folder.link("three.db-wal")
    assert "three.db-wal is a symbolic link" in agent.ask("ATTACH three three.db -CREATE")[-1]
    assert not (open_folder.folder / "three.db").exists()
    (open_folder.folder / "three.db-wal").unlink()
    agent.ok("ATTACH three three.db -CREATE")


def test_a_wal_of_a_stranger_is_not_taken_for_ours(open_folder, make_agent):
    agent = make_agent().start()
    assert agent.stop() == 0
    copy = str(open_folder.folder.parent / "copy.db")
    shutil.copy(str(agent.work), copy)
    with contextlib.closing(sqlite3.connect(copy)) as his:
        his.execute("update scenario set name='OWNED'")
        his.commit()
        shutil.copy(copy + "-wal", str(agent.work) + "-wal")
    wal = open_folder.give(open_folder.folder / "workrep.db-wal")
    agent.start()
    assert agent.ok("PING")["status"] == "DEGRADED"
    assert "%s belongs to another user (uid %d)" % (wal, STRANGER) in agent.log()
    wal.unlink()
    wait_for(lambda: agent.ok("PING")["status"] == "READY", "the repository to be attached")
    assert {row["scenario"] for row in agent.rows("SCENARIOS")} == {"HELLO"}


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_links_where_sqlite_keeps_its_files(sticky, make_agent, suffix):
    agent = make_agent().start()
    agent.stop()
    path = sticky.link("workrep.db" + suffix)
    agent.start()
    assert agent.ok("PING")["status"] == "DEGRADED"
    assert "%s is a symbolic link" % path in agent.log()
    path.unlink()
    wait_for(lambda: agent.ok("PING")["status"] == "READY", "the repository to be attached")
    agent.stop()
    refused(agent, sticky.link("master.db" + suffix), "is a symbolic link")


def test_a_second_name_where_sqlite_keeps_its_files(sticky, make_agent):
    agent = make_agent().start()
    agent.stop()
    os.link(str(sticky.victim), str(sticky.folder / "master.db-wal"))
    refused(agent, sticky.folder / "master.db-wal", "a hard link")


def test_the_owner_of_a_repository_may_keep_files_beside_it(sticky, make_agent):
    """Root's agent on a user's files; SQLite gives what it makes beside them to their owner."""
    agent = make_agent().start()
    agent.kill()
    for path in sticky.folder.glob("*.db*"):
        sticky.give(path)
    agent.start()
    assert agent.ok("PING")["status"] == "READY"
    assert agent.work.with_name("workrep.db-wal").stat().st_uid == STRANGER


def test_the_copy_before_a_migration_whatever_is_planted(sticky):
    path = str(sticky.folder / "work.db")
    module.make_private(path)
    module.Database(path, "work", "old", module.WORK_MIGRATIONS[:1], module.Clock()).open().close()
    sticky.link("work.db.v1")
    (sticky.folder / "work.db.v1.2.part").mkdir()
    sticky.link("work.db.v1.2.part-journal")
    module.Database(path, "work", "new", module.WORK_MIGRATIONS, module.Clock()).open().close()
    copy = sticky.folder / "work.db.v1.2"
    assert stat.S_IMODE(copy.lstat().st_mode) == 0o600 and copy.lstat().st_uid == 0
    assert sorted(os.listdir(str(sticky.folder))) == [
        "work.db", "work.db.v1", "work.db.v1.2", "work.db.v1.2.part", "work.db.v1.2.part-journal"]


# -- secrets ---------------------------------------------------------------------------

IS_VALUE = "test \"${password}\" = %s" % VALUE

def test_a_secret_is_not_written_where_it_was_foreseen(open_folder, make_agent):
    agent = make_agent().start()
    import_secret(agent, "S", "%s; %s" % (UNTIL_GO, IS_VALUE))
    planted = [open_folder.link("workrep.db.secret.1001"), open_folder.file("workrep.db.secret.2001", "his")]
    for number in (1001, 2001):
        agent.ok("EXEC S password=%s" % VALUE)
        agent.wait_status(number, "RUNNING")
        ours, = [path for path in list_secrets(agent) if path not in planted]
        assert re.match(r"workrep\.db\.secret\.[0-9a-f]{16}$", ours.name)
        assert (ours.stat().st_uid, stat.S_IMODE(ours.stat().st_mode)) == (0, 0o600)
        go(agent)
        assert agent.ok("WAIT %d" % number)["status"] == "DONE"
        (agent.folder / "go").unlink()
    wait_for(lambda: list_secrets(agent) == planted, "the secrets to be gone")
    assert planted[1].read_text() == "his" and VALUE not in agent.log()


def held_session(agent, **fields):
    """A session that waits for a release -> the path of its secret."""
    import_secret(agent, "S", IS_VALUE, **fields)
    agent.ok("HOLD")
    agent.ok("EXEC S password=%s" % VALUE)
    ours, = list_secrets(agent)
    return ours


def test_a_secret_of_a_stranger_is_not_taken(open_folder, make_agent):
    agent = make_agent().start()
    ours = held_session(agent)
    his = open_folder.file("workrep.db.secret." + "f" * 16, '{"password": "another"}', 0o600)
    old = open_folder.file("workrep.db.secret.1001", '{"password": "another"}', 0o600)
    agent.ok("RELEASE")
    assert agent.ok("WAIT 1001")["status"] == "DONE"
    wait_for(lambda: not ours.exists(), "the secret to be gone")
    assert his.exists() and old.exists()


@pytest.mark.parametrize("how, what", [("link", "is a symbolic link"), ("his", "belongs to another user"),
                                       ("open", "is open to other users"), ("second", "a hard link")])
def test_what_is_no_private_file_of_ours_is_no_secret(sticky, make_agent, how, what):
    agent = make_agent().start()
    ours = held_session(agent)
    text = ours.read_text()
    elsewhere = sticky.folder.parent / "elsewhere"
    os.rename(str(ours), str(elsewhere))
    if how == "link":
        sticky.link(ours.name, elsewhere)
    elif how == "his":
        sticky.file(ours.name, text, 0o600)
    elif how == "open":
        ours.write_text(text)
        ours.chmod(0o640)
    else:
        os.link(str(elsewhere), str(ours))
    agent.ok("RELEASE")
    end = agent.ok("WAIT 1001")
    assert end["status"] == "ERROR" and end["message"].startswith("secret password: "), end
    assert agent.log().count("secret is not taken: ") == 1 and what in agent.log()
    assert elsewhere.read_text() == text


def test_a_secret_of_an_older_agent_is_taken_and_forgotten(make_agent):
    agent = make_agent("--clean-every", "1").start()
    ours = held_session(agent)
    agent.stop()
    os.rename(str(ours), str(agent.work) + ".secret.1001")
    with contextlib.closing(sqlite3.connect(str(agent.work))) as older:
        older.execute("update session set secret_file=null")
        older.commit()
    agent.start()
    assert len(list_secrets(agent)) == 1
    agent.ok("RELEASE")
    assert agent.ok("WAIT 1001")["status"] == "DONE"
    wait_for(lambda: not list_secrets(agent), "the secret to be gone")


def test_a_secret_that_was_not_committed_goes_to_no_other_session(make_agent):
    agent = make_agent("--clean-every", "1", env={"THE_SECRET": VALUE}).start()
    import_secret(agent, "S", IS_VALUE, {"env": "THE_SECRET"})
    agent.ok("HOLD")
    created = agent.folder / "workrep.db.secret.0123456789abcdef"
    module.make_private(str(created))
    created.write_text('{"password": "of another"}')
    agent.ok("EXEC S")
    agent.ok("RELEASE")
    assert agent.ok("WAIT 1001")["status"] == "DONE"
    module.make_private(str(agent.folder / "workrep.db.secret.fedcba9876543210"))
    wait_for(lambda: not list_secrets(agent), "what was left to be deleted while the agent runs")


def test_no_other_agent_sweeps_a_secret_that_is_about_to_be_committed(inside):
    """Two agents have one repository: what one has on disk and not yet in a row, the other leaves."""
    repository, = inside.agent.places.list_open()
    other = module.SecretFiles(str(inside.work))
    name = other.write({"password": VALUE})
    repository.forget_strays()
    assert [path.name for path in list_secrets(inside)] == ["workrep.db.secret." + name]
    other.settle(name, True)                            # as if it were committed; no row has it
    repository.forget_strays()
    assert list_secrets(inside) == []


def test_a_secret_that_is_swept_before_it_is_locked_is_written_again(inside, monkeypatch):
    repository, = inside.agent.places.list_open()
    lock, names = module.fcntl.flock, []

    def sweep_first(fd, how):
        if not names:
            names.extend(path.name for path in list_secrets(inside))
            os.unlink(str(inside.folder / names[0]))
        lock(fd, how)
    monkeypatch.setattr(module.fcntl, "flock", sweep_first)
    name = repository.secrets.write({"password": VALUE})
    assert repository.secrets.read(name) == {"password": VALUE}
    assert [path.name for path in list_secrets(inside)] == ["workrep.db.secret." + name] != names
    repository.secrets.settle(name, False)
    assert list_secrets(inside) == []


def test_restart_replaces_the_secret(make_agent):
    agent = make_agent().start()
    import_secret(agent, "S", "%s; %s" % (UNTIL_GO, IS_VALUE))
    agent.ok("EXEC S password=wrong-one")
    agent.wait_status(1001, "RUNNING")
    before, = list_secrets(agent)
    text = before.read_text()
    go(agent)
    assert agent.ok("WAIT 1001")["status"] == "ERROR"
    wait_for(lambda: not list_secrets(agent), "the secret to be gone")
    (agent.folder / "go").unlink()
    module.make_private(str(before))            # as a crash between the end and its deletion leaves it
    before.write_text(text)
    os.utime(str(before), (4e9, 4e9))
    agent.ok("RESTART 1001 password=%s" % VALUE)
    agent.wait_status(1001, "RUNNING")
    wait_for(lambda: len(list_secrets(agent)) == 1 and before not in list_secrets(agent), "the old secret to be gone")
    agent.kill()                                # what is left belongs to a session that is open
    agent.start()
    assert agent.status(1001)["status"] == "ERROR" and list_secrets(agent) == []
    go(agent)
    agent.ok("RESTART 1001 password=%s" % VALUE)
    assert agent.ok("WAIT 1001")["status"] == "DONE"


def test_where_a_secret_cannot_be_kept_there_is_no_session(make_agent, tmp_path):
    agent = make_agent().start()
    name = "w" * 235 + ".db"            # with the name of a secret behind it, too long for a file
    agent.ok("ATTACH long %s -CREATE" % name)
    agent.import_document({"scenarios": [{"name": "L", "version": "1", "variables": {"key": {"secret": True}}, "steps": [
        {"name": "s", "tasks": [{"type": "os", "command": "true"}]}]}]}, "-REPO=long")
    last = agent.ask("EXEC L key=%s -REPO=long" % VALUE)[-1]
    assert last.startswith("ERR REPOSITORY ") and "secret cannot be kept" in last and VALUE not in last
    assert agent.rows("SESSIONS") == []


# -- spools ----------------------------------------------------------------------------

def test_a_spool_is_not_made_where_it_was_foreseen(sticky, make_agent):
    agent = make_agent().start()
    adoptable(agent, "echo done")
    (sticky.folder / "workrep.db.spool.1001.2").mkdir()
    sticky.link("workrep.db.spool.2001.2")
    sticky.link("workrep.db.spool.2001.2-wal")
    for number in (1001, 2001):
        assert agent.ok("EXEC A -SYNC")["status"] == "DONE"
        assert agent.log_texts(number) == ["done"]
    assert len(spools(agent)) == 3


def interrupted(agent):
    """An adoptable session whose agent and processes were killed -> the path of its spool."""
    adoptable(agent, "echo $$ > pid; sleep 300")
    agent.ok("EXEC A")
    pid = pid_of(agent)
    with open("/proc/%d/stat" % pid) as file:
        holder = int(file.read().rpartition(")")[2].split()[1])
    agent.kill()
    os.kill(holder, 9)
    wait_for(lambda: not is_alive(holder), "the holder to end")
    path, = [path for path in spools(agent) if not path.name.endswith(("-wal", "-shm"))]
    return path


@pytest.mark.parametrize("is_link", [False, True])
def test_a_spool_of_a_stranger_is_not_taken(open_folder, make_agent, is_link):
    agent = make_agent().start()
    ours = interrupted(agent)
    for path in spools(agent):
        path.unlink()
    his = module.Spool(str(open_folder.folder.parent / "his"))
    his.create()
    his.note(is_over=1, rc=0)
    for name in (ours.name[:-16] + "f" * 16, "workrep.db.spool.1001.2"):
        if is_link:
            open_folder.link(name, his.path)
        else:
            shutil.copy(his.path, str(open_folder.folder / name))
            open_folder.give(open_folder.folder / name)
    agent.start()
    end = agent.ok("WAIT 1001")
    assert end["status"] == "ERROR" and "stale" in end["message"]
    assert agent.log().count("what its process wrote is not taken: ") == 2
    assert his.state()["rc"] == 0
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"


def test_a_spoilt_spool_costs_its_session_alone(make_agent):
    agent = make_agent().start()
    ours = interrupted(agent)
    for path in spools(agent):
        path.unlink()
    module.make_private(str(ours))
    ours.write_text("no database, but long enough to be taken for one" * 100)
    agent.start()
    assert "stale" in agent.ok("WAIT 1001")["message"]
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert "%s cannot be read" % ours in agent.log()


def test_a_spool_of_an_older_agent_is_taken(make_agent):
    agent = make_agent().start()
    adoptable(agent, "echo $$ > pid; %s; echo done" % UNTIL_GO)
    agent.ok("EXEC A")
    pid_of(agent)
    agent.kill()
    path, = [path for path in spools(agent) if not path.name.endswith(("-wal", "-shm"))]
    go(agent)

    def is_over():
        state = module.Spool(str(path)).state()
        return state["is_over"] and not is_alive(state["holder"])
    wait_for(is_over, "the holder to end")
    os.rename(str(path), str(agent.work) + ".spool.1001.2")
    agent.start()
    assert agent.ok("WAIT 1001")["status"] == "DONE"
    assert agent.log_texts(1001) == ["done"]
    assert spools(agent) == []


# -- who may write the folder ----------------------------------------------------------

def warnings(text):
    return [line for line in text.split("\n") if " WARNING " in line and "other users" in line]


def test_a_private_folder_is_not_told(make_agent):
    agent = make_agent().start()
    assert warnings(agent.log()) == []


def test_an_open_folder_is_told_once_for_each_repository(open_folder, make_agent):
    agent = make_agent("--clean-every", "1").start()
    found = warnings(agent.log())
    assert len(found) == 2 and "master repository: " in found[0] and "work repository WORKREP: " in found[1], found
    assert all("chmod go-w %s" % open_folder.folder in line for line in found), found
    is_sticky = bool(open_folder.folder.stat().st_mode & stat.S_ISVTX)
    assert all(("move the repository" in line) is is_sticky for line in found), found
    agent.ok("ATTACH two two.db -CREATE")
    assert len(warnings(agent.log())) == 3
    os.rename(str(agent.work), str(agent.work) + ".away")       # it comes back, and is not told again
    wait_for(lambda: agent.ok("PING")["status"] == "DEGRADED", "the agent to see it")
    os.rename(str(agent.work) + ".away", str(agent.work))
    wait_for(lambda: agent.ok("PING")["status"] == "READY", "the repository to be attached")
    assert len(warnings(agent.log())) == 3
    agent.stop()
    open_folder.folder.chmod(0o755)
    begun = len(agent.log())
    agent.start()
    assert warnings(agent.log()[begun:]) == []


def test_folders_above_count_unless_they_are_sticky(sticky, make_agent, tmp_path):
    above = tmp_path / "above"
    agent = make_agent(folder="above/repo").start()
    agent.stop()
    for mode, is_told in ((0o777, True), (0o1777, False), (0o755, False)):
        above.chmod(mode)
        begun = len(agent.log())
        agent.start()
        agent.stop()
        found = warnings(agent.log()[begun:])
        assert len(found) == 2 * is_told, (oct(mode), found)
        assert all("%s may be written by others (chmod go-w %s)" % (above, above) in line for line in found)
    sticky.give(above)
    begun = len(agent.log())
    agent.start()
    assert all("%s belongs to uid %d" % (above, STRANGER) in line for line in warnings(agent.log()[begun:]))
    assert len(warnings(agent.log()[begun:])) == 2


def test_a_repository_that_others_may_write_is_told(sticky, make_agent):
    agent = make_agent(folder="own").start()
    agent.stop()
    agent.work.chmod(0o660)
    sticky.give(agent.master)
    begun = len(agent.log())
    agent.start()
    found = warnings(agent.log()[begun:])
    assert len(found) == 2
    assert "%s belongs to uid %d" % (agent.master, STRANGER) in found[0]
    assert "chmod go-w %s" % agent.work in found[1]


def test_import_tells_it_on_stderr(open_folder):
    path = open_folder.folder.parent / "a.json"
    path.write_text(json.dumps({"scenarios": []}))
    done = subprocess.run([sys.executable, str(AGENT), "--master", str(open_folder.folder / "master.db"), "--create", "--import",
                           str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0, done.stderr
    assert len(warnings(done.stderr)) == 2 and str(open_folder.folder) in done.stderr
