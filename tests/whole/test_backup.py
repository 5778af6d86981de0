"""BACKUP while all goes on, --restore where nothing runs, and copies that are held until it is said that they go on."""
import contextlib
import glob
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

import agent as program
from conftest import AGENT, LIMIT_S, wait_for
from support.engines import LOOK_S, batch, begin_there, engines, exec_sync, wait_there      # noqa: F401 (fixtures)
from support.outside import change, query

pytestmark = pytest.mark.once

# a run of --restore that is killed at a certain step: of put_in_place(), counted over all files
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import agent
step, name = int(sys.argv[4]), sys.argv[5]
real = getattr(os, name)
def counted(*arguments):
    global step
    step -= 1
    if step < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
setattr(os, name, counted)
agent.Restore(sys.argv[2], sys.argv[3], agent.Clock(), lambda line: None).run()
"""


def restore(folder, master):
    """What --restore says of a backup, in the test's own process."""
    lines = []
    program.Restore(str(folder), str(master), program.Clock(), lines.append).run()
    return lines


def run_restore(agent, folder):
    """python agent.py --restore -> the ended process."""
    return subprocess.run([sys.executable, str(AGENT), "--master", str(agent.master), "--restore", str(folder)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=LIMIT_S)


def why_not_restored(folder, master):
    """Why a backup is not restored."""
    with pytest.raises(program.CannotStart) as caught:
        restore(folder, master)
    return caught.value.message


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def import_sleeper(agent):
    """A scenario whose session runs until it is stopped."""
    agent.import_os("NAP", "echo $$ > %s; sleep 1000" % (agent.folder / "pid"))


def fill_up(path, megabytes):
    """Makes a repository large, by rows of a table that the agent does not know."""
    change(path, "create table filler (n integer primary key, data blob)", (
        "with recursive c(n) as (select 1 union all select n + 1 from c where n < ?)"
        " insert into filler select n, randomblob(1000000) from c", (megabytes,)))


def parts_in(folder):
    """What an unfinished backup or restore would leave there."""
    return [name for name in os.listdir(str(folder)) if name.endswith((".part", ".new", ".restoring"))]


# -- BACKUP ----------------------------------------------------------------------------

def test_a_backup_has_all_repositories_and_tells_what_they_are(inside):
    inside.ok("ATTACH two two.db -CREATE")
    inside.ok("EXEC HELLO -SYNC")
    done = inside.ok("BACKUP kept")
    folder = inside.folder / "kept"
    manifest = manifest_of(folder)
    assert done["folder"] == str(folder) and done["files"] == "3"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["1-WORKREP.db", "2-two.db", "manifest.json", "master.db"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert (manifest["format"], manifest["version"], manifest["agent"]) == (1, program.VERSION, "AGENT")
    assert [head["agent"] for head in manifest["audit"]] == ["AGENT"] and abs(program.from_text(manifest["created"]) - inside.now()) < LIMIT_S
    assert [(entry["file"], entry["kind"], entry["id"], entry["name"]) for entry in manifest["files"]] == [
        ("1-WORKREP.db", "work", 1, "WORKREP"), ("2-two.db", "work", 2, "two"), ("master.db", "master", None, None)]
    assert sum(entry["bytes"] for entry in manifest["files"]) == int(done["bytes"])
    for entry in manifest["files"]:
        path = folder / entry["file"]
        assert (path.stat().st_size, program.find_hash(str(path))) == (entry["bytes"], entry["sha256"])
        assert query(path, "select uuid from repository") == [(entry["uuid"],)]
    assert query(folder / "1-WORKREP.db", "select id, status from session") == [(1001, "DONE")]
    assert inside.ask("BACKUP kept") == ["ERR EXISTS %s exists" % folder]
    assert inside.err("BACKUP no/kept") == "REPOSITORY" and not parts_in(inside.folder)
    assert inside.ok("PING")["status"] == "READY"


def test_a_backup_has_the_audit_up_to_its_begin_and_tells_its_head(inside):
    inside.ok("HOLD why")
    inside.ok("RELEASE")
    inside.ok("BACKUP kept")
    release, = inside.rows("AUDIT -VERB=RELEASE")
    folder = inside.folder / "kept"
    assert manifest_of(folder)["audit"] == [{"agent": "AGENT", "n": 3, "hash": release["hash"]}]
    assert program.verify_audit(str(folder / "master.db"), program.Clock(), release["hash"]).is_whole


def ways():
    """The ways to copy a database that this Python and SQLite have, with what makes each the one that is taken."""
    return ["online"] * hasattr(sqlite3.Connection, "backup") + ["vacuum", "rest"]


@pytest.fixture(params=ways())
def way(request, monkeypatch):
    """BACKUP copies by one of the ways, as on a host that has no better one."""
    real = program._copy_by_vacuum

    def copy_database(database, target, check):
        if request.param == "rest":
            database.write(program._copy_at_rest, database, target)
            return
        with database.reading(is_new=True) as source:
            (program._copy_online if request.param == "online" else real)(source, target, check)
    monkeypatch.setattr(program, "copy_database", copy_database)
    return request.param


def test_a_backup_ends_and_is_whole_while_sessions_run_and_others_write(inside, way):
    """Each way copies what was there at one instant: of two rows that are written together, both or none."""
    fill_up(inside.work, 2)
    change(inside.work, "create table pair (n integer primary key, other integer)")
    repository = inside.agent.places.list_open()[0]
    is_over, counts = threading.Event(), [0]

    def put(connection, number):
        connection.execute("insert into pair values (?, 0)", (number,))
        connection.execute("update pair set other=n where n=?", (number,))

    def keep_writing():
        while not is_over.is_set():
            counts[0] += 1
            repository.db.submit(put, counts[0], within_s=None).result()
    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        wait_for(lambda: counts[0] > 10, "it to be written")
        for number in range(2):
            assert inside.ok("EXEC HELLO -SYNC")["status"] == "DONE"
            inside.ok("BACKUP kept%d" % number)
    finally:
        is_over.set()
        writer.join()
    copy = inside.folder / "kept1" / "1-WORKREP.db"
    assert query(copy, "select count(*) from pair where other <> n") == [(0,)]
    assert query(copy, "select count(*) > 10, max(n) = count(*) from pair") == [(1, 1)]
    assert query(copy, "select id, status from session order by id") == [(1001, "DONE"), (2001, "DONE")]
    assert query(copy, "pragma integrity_check") == [("ok",)] and not parts_in(inside.folder)


def test_a_repository_that_cannot_be_read_makes_the_backup_fail_by_name(inside):
    inside.ok("ATTACH two two.db -CREATE")
    os.rename(str(inside.folder / "two.db"), str(inside.folder / "away.db"))
    last = inside.ask("BACKUP kept")[-1]
    assert last.startswith("ERR REPOSITORY work repository two"), last
    assert not (inside.folder / "kept").exists() and not parts_in(inside.folder)
    os.rename(str(inside.folder / "away.db"), str(inside.folder / "two.db"))
    wait_for(lambda: inside.ask("BACKUP kept")[-1].startswith("OK"), "the repository to be back")


def test_a_page_that_is_damaged_makes_the_backup_fail_by_name(make_inside):
    inside = make_inside().start()
    fill_up(inside.work, 1)
    inside.stop()
    root, size = query(inside.work, "select rootpage, (select page_size from pragma_page_size) from sqlite_master"
                                    " where name='filler'")[0]
    with open(str(inside.work), "r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    inside.start()
    last = inside.ask("BACKUP kept")[-1]
    assert last.startswith("ERR REPOSITORY work repository WORKREP"), last
    assert not (inside.folder / "kept").exists() and not parts_in(inside.folder)


def test_a_stop_of_the_agent_ends_a_backup_that_is_under_way(inside, monkeypatch):
    real = program.find_damage

    def stop_before(path, check):
        inside.agent.is_stopping = True
        return real(path, check)
    monkeypatch.setattr(program, "find_damage", stop_before)
    assert inside.err("BACKUP kept") == "STOPPING" and inside.err("BACKUP kept") == "STOPPING"
    inside.agent.is_stopping = False
    assert not (inside.folder / "kept").exists() and not parts_in(inside.folder)


def test_a_kill_in_the_middle_leaves_no_backup_under_its_name(agent):
    fill_up(agent.work, 12)
    agent.send("BACKUP kept")
    wait_for(lambda: glob.glob(str(agent.folder / ".kept.*.part" / "*.db")), "it to be under way")
    agent.kill()
    if not (agent.folder / "kept").exists():        # else it was quick, and is whole
        agent.start()
        agent.ok("BACKUP kept")
    assert program.read_backup(str(agent.folder / "kept"))[1]


# -- --restore -------------------------------------------------------------------------

def test_a_restore_is_a_timeline_of_its_own(make_inside):
    inside = make_inside().start()
    import_sleeper(inside)
    running, later = inside.ok("EXEC NAP")["session"], inside.ok("EXEC HELLO -AT=2099-01-01")["session"]
    inside.wait_status(running, "RUNNING")
    wait_for((inside.folder / "pid").exists, "its process")
    mark = inside.agent.places.list_open()[0].mark
    inside.ok("BACKUP kept")
    ended = inside.ok("EXEC HELLO -SYNC")["session"]
    inside.stop()
    lines = restore(inside.folder / "kept", inside.master)
    assert lines[0].startswith("%s is replaced; it is kept as %s.before-restore-" % (inside.work, inside.work))
    assert lines[1].startswith("%s is replaced; it is kept as " % inside.master)
    assert lines[2:] == ["work repository WORKREP is held: RELEASE -REPO=WORKREP has it go on"]
    kept, = glob.glob(str(inside.work) + ".before-restore-*")
    assert query(kept, "select max(id) from session") == [(int(ended),)]
    inside.start()
    for session in (running, later):
        row = inside.status(session)
        assert (row["status"], row["message"]) == ("ERROR", "restored")
    assert inside.rows("STATUS %s" % running)[2]["status"] == "ERROR"
    assert inside.err("STATUS %s" % ended) == "NOT_FOUND"
    made = inside.ok("EXEC HELLO")
    assert (made["session"], made["status"], made["waits_for"]) == ("1000001", "WAITING", "hold")
    assert "held by --restore since " in made["message"] and str(inside.folder / "kept") in made["message"]
    assert "WORKREP is held by --restore" in inside.log() and "restored from" in inside.rows("REPOS")[0]["message"]
    inside.stop()
    inside.start()
    assert inside.status(1000001)["status"] == "WAITING", "the hold stays over a restart"
    repository, = inside.agent.places.list_open()
    assert repository.mark.startswith(mark + ".") and len(repository.mark) == len(mark) + 17
    assert inside.ok("RELEASE -REPO=WORKREP") == {"repository": "WORKREP", "hold": "no"}
    inside.wait_status(1000001, "DONE")
    assert inside.ok("RESTART %s" % later)["status"] == "QUEUED"
    inside.wait_status(later, "DONE")
    inside.stop()
    inside.start()
    assert inside.ok("EXEC HELLO -SYNC")["session"] == "1001001" and "message" in inside.rows("REPOS")[0]
    assert inside.agent.places.list_open()[0].mark == repository.mark


def test_processes_of_a_restored_repository_bear_its_incarnation(make_inside):
    inside = make_inside().start()
    inside.import_os("SAYS", "echo $AGENT_MARKER")
    inside.ok("BACKUP kept")
    inside.stop()
    restore(inside.folder / "kept", inside.master)
    inside.start()
    inside.ok("RELEASE -REPO=WORKREP")
    session = inside.ok("EXEC SAYS -SYNC")["session"]
    mark = inside.agent.places.list_open()[0].mark
    assert mark.count(".") == 1 and inside.log_texts(session)[0].startswith("%s/%s/" % (mark, session))


def test_two_restores_of_one_backup_have_incarnations_of_their_own(make_inside):
    inside = make_inside().start()
    inside.ok("BACKUP kept")
    inside.stop()
    marks = set()
    for _ in range(2):
        restore(inside.folder / "kept", inside.master)
        marks |= set(query(inside.work, "select incarnation from repository"))
    assert len(marks) == 2 and len(glob.glob(str(inside.work) + ".before-restore-*")) == 2


def test_a_restore_to_another_place_leaves_the_original_alone(make_inside, tmp_path):
    """A path outside the master's folder is used again only by the master that it was backed up with."""
    inside = make_inside(folder="first").start()
    (tmp_path / "far").mkdir()
    inside.ok("ATTACH far %s -CREATE" % (tmp_path / "far" / "far.db"))
    inside.ok("ATTACH near near.db -CREATE")
    inside.ok("BACKUP %s" % (tmp_path / "kept"))
    before = query(tmp_path / "far" / "far.db", "select uuid, restored from repository")
    other = make_inside(folder="other")
    lines = restore(tmp_path / "kept", other.master)
    assert sorted(lines[:4]) == sorted("%s is made" % (other.folder / name) for name in (
        "2-far.db", "master.db", "near.db", "workrep.db"))
    other.start()
    assert {row["repository"]: row["path"] for row in other.rows("REPOS")} == {
        "WORKREP": str(other.work), "far": str(other.folder / "2-far.db"), "near": str(other.folder / "near.db")}
    assert other.ok("PING")["repositories"] == "3/3"
    assert query(tmp_path / "far" / "far.db", "select uuid, restored from repository") == before
    assert inside.ok("EXEC HELLO -SYNC -REPO=far")["status"] == "DONE"
    other.stop()
    inside.stop()
    assert "%s is replaced" % (tmp_path / "far" / "far.db") in "\n".join(restore(tmp_path / "kept", inside.master))


def test_a_restore_leaves_what_is_on_an_engine_alone(engines, batch, make_inside, tmp_path):
    """The agent that was backed up may go on: its folders in the spool are none of the restored one's."""
    session = begin_there(engines, {"type": "os", "command": "until [ -e %s/go ]; do sleep 0.05; done; echo over" % tmp_path})
    wait_there(engines, session)
    engines.ok("BACKUP %s" % (tmp_path / "kept"))
    other = make_inside(folder="other")
    restore(tmp_path / "kept", other.master)
    other.start()
    other.ok("RELEASE -REPO=WORKREP")
    other.stop()
    other.start()
    other.agent.settings.engine_look_s = LOOK_S
    folder, = batch.spool.iterdir()
    assert exec_sync(other, {"type": "os", "command": "true"})["status"] == "DONE"
    wait_for(lambda: len(list(batch.spool.iterdir())) < 2, "what is its own to be deleted")
    assert folder.exists()
    (tmp_path / "go").touch()
    assert engines.ok("WAIT %s" % session)["status"] == "DONE" and engines.log_texts(session) == ["over"]


def test_what_is_not_as_it_was_is_not_restored(make_inside):
    inside = make_inside().start()
    inside.ok("BACKUP kept")
    inside.stop()
    folder, before = inside.folder / "kept", query(inside.work, "select * from repository")
    copy = folder / "1-WORKREP.db"
    whole, manifest = copy.read_bytes(), (folder / "manifest.json").read_text()
    copy.write_bytes(whole[:-1] + b"!")
    assert why_not_restored(folder, inside.master) == "%s is not as it was when the backup was made" % copy
    copy.unlink()
    assert str(copy) in why_not_restored(folder, inside.master)
    copy.write_bytes(whole)
    (folder / "manifest.json").write_text(manifest.replace('"format": 1', '"format": 2'))
    assert "use a newer agent.py" in why_not_restored(folder, inside.master)
    (folder / "manifest.json").write_text("{}")
    assert "is no manifest" in why_not_restored(folder, inside.master)
    (folder / "manifest.json").unlink()
    assert "manifest.json" in why_not_restored(folder, inside.master)
    assert query(inside.work, "select * from repository") == before and not parts_in(inside.folder)
    inside.start()
    assert inside.ok("EXEC HELLO -SYNC")["status"] == "DONE"


def test_nothing_is_restored_where_an_agent_runs(make_agent):
    agent = make_agent("--name", "SECOND").start()
    agent.ok("ATTACH two two.db -CREATE")
    agent.ok("BACKUP kept")
    done = run_restore(agent, "kept")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    done = run_restore(agent, agent.folder / "kept")
    assert done.returncode == 1 and "an agent runs on %s: pid %d" % (agent.master, agent.process.pid) in done.stderr
    assert not parts_in(agent.folder) and agent.ok("EXEC HELLO -SYNC -REPO=two")["status"] == "DONE"
    assert agent.stop() == 0
    with contextlib.closing(sqlite3.connect(str(agent.folder / "two.db"))) as other:
        other.execute("select * from repository").fetchall()
        done = run_restore(agent, agent.folder / "kept")
        assert done.returncode == 1 and "two.db is open in another program" in done.stderr
    assert not parts_in(agent.folder)
    done = run_restore(agent, agent.folder / "kept")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count(" is replaced") == 3
    agent.start()
    assert agent.ok("EXEC HELLO")["session"] == "1000001"


@pytest.mark.parametrize("name, steps", [("rename", (0, 3, 7)), ("link", (0, 1)), ("unlink", (0,))])
def test_a_restore_that_was_killed_is_done_again(make_inside, name, steps):
    inside = make_inside().start()
    inside.ok("BACKUP kept")
    lost = inside.ok("EXEC HELLO -SYNC")["session"]
    inside.stop()
    for step in steps:
        process = subprocess.run([sys.executable, "-c", KILLED, str(AGENT.parent), str(inside.folder / "kept"),
                                  str(inside.master), str(step), name], timeout=LIMIT_S)
        if process.returncode == 0:                     # it had no such step any more
            continue
        assert process.returncode == -signal.SIGKILL
        with pytest.raises(program.CannotStart, match="has not come to its end"):
            inside.start()
        inside.agent = None
        restore(inside.folder / "kept", inside.master)
        assert not (inside.folder / "master.db.restoring").exists()
        kept = glob.glob(str(inside.work) + ".before-restore-*")
        assert (int(lost),) in [row for path in kept for row in query(path, "select max(id) from session")]
        inside.start()
        assert inside.err("STATUS %s" % lost) == "NOT_FOUND"
        assert inside.ok("EXEC HELLO")["waits_for"] == "hold"
        inside.stop()


def test_what_sqlite_has_beside_a_file_never_comes_to_lie_beside_another(tmp_path):
    """Where its log cannot be put into the old file, as it is not trusted, they are kept together."""
    path, new, kept = (str(tmp_path / name) for name in ("a.db", "new.db", "a.db.before"))
    (tmp_path / "a.db").write_bytes(b"old")
    (tmp_path / "a.db-wal").symlink_to(tmp_path / "a.db")
    (tmp_path / "new.db").write_bytes(b"new")
    program.put_in_place(new, path, kept)
    assert {name.name: name.read_bytes() for name in tmp_path.iterdir()} == {
        "a.db": b"new", "a.db.before": b"old", "a.db.before-wal": b"new"}


def test_a_backup_of_an_older_version_is_restored(make_inside):
    inside = make_inside().start()
    inside.ok("BACKUP kept")
    inside.stop()
    folder = inside.folder / "kept"
    older, = [place for place, text in enumerate(program.WORK_MIGRATIONS) if "add column incarnation" in text]
    os.unlink(str(folder / "1-WORKREP.db"))
    program.make_private(str(folder / "1-WORKREP.db"))
    database = program.Database(str(folder / "1-WORKREP.db"), "work", "older", program.WORK_MIGRATIONS[:older],
                                program.Clock())
    database.open().close()
    uuid = query(inside.work, "select uuid from repository")[0][0]
    change(folder / "1-WORKREP.db", ("update repository set id=1, uuid=?", (uuid,)))
    manifest = manifest_of(folder)
    manifest["files"][0].update(bytes=(folder / "1-WORKREP.db").stat().st_size,
                                sha256=program.find_hash(str(folder / "1-WORKREP.db")))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    restore(folder, inside.master)
    assert not glob.glob(str(inside.folder / "*.v*"))
    inside.start()
    assert "restored from" in inside.rows("REPOS")[0]["message"]
