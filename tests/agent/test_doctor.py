"""--doctor: each thing that can be wrong with repositories is one line that says what to do, and --repair mends what is
safe to mend. Nothing is made beside what is healthy, and no agent is disturbed."""
import os
import pathlib
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import closing

import pytest

from conftest import AGENT, LIMIT_S, AgentInside, program, wait_for
from support.adoptable import UNTIL_GO, adoptable, spools
from support.outside import change, query, spoil_schema

NOW = time.time()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user's files need root")
OWN_IDENTITY = "update session set status='RUNNING', ended=null, ran_by='%s' where id=1001"


class Place:
    """Repositories of which no agent runs."""

    def __init__(self, folder):
        self.folder, self.master, self.work = folder, folder / "master.db", folder / "workrep.db"

    def consult(self, *options, clock=None, **sizes):
        """(The lines of --doctor, its exit code)."""
        settings = program.parse_arguments(("--doctor", "--master", str(self.master)) + options)
        lines, code = program.consult(settings, clock or program.Clock(), program.Sizes(**sizes))
        assert not any("\n" in line for line in lines)
        assert code == (0 if lines[-1].startswith("healthy: ") else 1)
        return lines, code

    def finding(self, *options, **keywords):
        """The one line that is found."""
        lines, code = self.consult(*options, **keywords)
        assert (len(lines), code) == (1, 1), lines
        return lines[0]

    def check_healthy(self):
        lines, code = self.consult()
        assert code == 0 and re.match("healthy: .*/master.db; work repositories: 1, sessions: 1, ", lines[0]), lines

    def repaired(self):
        """What --repair says it did; after it all is well."""
        lines, code = self.consult("--repair")
        assert code == 0 and lines[-1].startswith("healthy: "), lines
        assert all(line.startswith("repaired: ") for line in lines[:-1])
        return lines[:-1]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Repositories in which something has run, stopped in good order."""
    running = AgentInside(tmp_path_factory.mktemp("model")).start()
    running.import_document({
        "contexts": ["DEV"], "calendars": [{"name": "FEASTS", "dates": ["2026-12-25"]}],
        "data_servers": [{"name": "DB", "driver": "sqlite3", "database": str(running.work)}],
        "logical_schemas": [{"name": "L", "contexts": {"GLOBAL": "DB"}}],
        "scenarios": [{"name": "S", "version": "1", "steps": [{"name": "s", "tasks": [
            {"type": "sql", "schema": "L", "statement": "select 1"}, {"type": "os", "command": ["true"]},
            {"type": "os", "command": "/bin/sh -c true"}]}]}],
        "schedules": [{"name": "NIGHT", "scenario": "S", "rule": "daily at 02:00", "timezone": "UTC",
                       "exclude_dates": ["FEASTS"]}]})
    running.ok("EXEC HELLO -SYNC")
    running.finish()
    os.chmod(str(running.folder), 0o700)
    return running.folder


@pytest.fixture
def rest(model, tmp_path):
    """A copy of it, which goes on in its own right."""
    shutil.copytree(str(model), str(tmp_path / "rest"))
    place = Place(tmp_path / "rest")
    change(place.work, "update repository set host=null, boot=null, device=null, inode=null")
    return place


def times_of_files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def run_doctor(place, *options):
    """python agent.py --doctor as a user runs it."""
    return subprocess.run([sys.executable, str(AGENT), "--master", str(place.master)] + list(options),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=LIMIT_S)


def age(path, seconds):
    os.utime(str(path), (time.time() - seconds,) * 2)


# -- as a whole --------------------------------------------------------------------------

def test_the_command(rest):
    before = times_of_files(rest.folder)
    done = run_doctor(rest, "--doctor")
    assert (done.returncode, done.stderr) == (0, "") and re.fullmatch("healthy: .*\n", done.stdout), done
    assert times_of_files(rest.folder) == before
    os.chmod(str(rest.work), 0o644)
    done = run_doctor(rest, "--doctor")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (1, "", 1), done
    done = run_doctor(rest, "--doctor", "--repair")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 2), done
    done = run_doctor(rest, "--repair")
    assert done.returncode == 2 and done.stderr.endswith("--repair goes with --doctor\n")


def test_what_is_healthy_stays_as_it_is(rest):
    before = times_of_files(rest.folder)
    rest.check_healthy()
    assert rest.repaired() == [] and times_of_files(rest.folder) == before


def test_beside_a_running_agent_it_looks_and_repairs_nothing(agent):
    place, number = Place(agent.folder), agent.ok("EXEC HELLO -SYNC")["session"]
    assert place.consult()[1] == 0
    assert agent.status(number)["status"] == "DONE" and agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    os.chmod(str(place.work), 0o640)
    lines, code = place.consult("--repair")
    assert code == 1 and re.fullmatch(
        r".*/master.db: nothing is repaired: an agent named AGENT is running on this master: pid \d+ .*; "
        "SHUTDOWN that agent first", lines[0])
    assert stat.S_IMODE(place.work.stat().st_mode) == 0o640 and "mode 0640" in "".join(lines[1:])
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"


# -- files ---------------------------------------------------------------------------------

def tear_page(path):
    """Another program has written over pages of a file that do not have its schema."""
    size = os.path.getsize(str(path))
    with open(str(path), "r+b") as file:
        file.seek(size * 3 // 4 // 4096 * 4096)
        file.write(b"\xa5" * 8192)


def make_folder_there(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["master", "work"])
@pytest.mark.parametrize("spoil, expected", [
    (lambda path: path.unlink(), "does not exist; put a backup there"),
    (make_folder_there, "is no regular file; "),
    (lambda path: path.write_bytes(b""), "is empty; put a backup"),
    (lambda path: path.write_bytes(b"no database\n" * 1000), "cannot be read: file is not a database; put a backup"),
    (lambda path: path.write_bytes(path.read_bytes()[:4096 * 3]), "cannot be read: |is damaged: "),
    (tear_page, "is damaged: "),
    (spoil_schema, "cannot be read: its schema is malformed; put a backup"),
    (lambda path: change(path, "pragma user_version=999"), "has schema version 999, and this agent.py knows up to "),
    (lambda path: change(path, "update repository set kind='other'"), "is a other repository, not a "),
    (lambda path: change(path, "drop table repository"), "a SQLite file, but no repository; "),
    (lambda path: change(path, "pragma user_version=1"), "has schema version 1, .* start the agent, which ")])
def test_a_file_that_is_none(rest, name, spoil, expected):
    path = getattr(rest, name)
    spoil(path)
    lines, code = rest.consult()
    assert code == 1 and re.match(".*/%s: (%s)" % (re.escape(path.name), expected), lines[0]), lines
    assert len(lines) == 1 or name == "master", lines
    rest.consult("--repair")


@pytest.fixture
def outside(rest):
    """A copy of its folder where no other pytest closes a folder above it meanwhile."""
    folder = pathlib.Path(tempfile.mkdtemp())
    shutil.copytree(str(rest.folder), str(folder / "rest"))
    yield folder / "rest"
    shutil.rmtree(str(folder))


@needs_root
def test_a_file_that_this_user_may_not_read(rest, outside):
    """In a child that is another user by the time it looks."""
    code = ("import os, sys; sys.path.insert(0, sys.argv[1]); import agent\n"
            "agent.network_file_system('/'); agent.own_identity('', '')\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "s = agent.parse_arguments(['--doctor', '--master', sys.argv[2]])\n"
            "lines, code = agent.consult(s, agent.Clock()); print('\\n'.join(lines)); sys.exit(code)")
    master = outside / rest.master.name

    def look():
        done = subprocess.run([sys.executable, "-c", code, str(AGENT.parent), str(master)], cwd="/",
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=LIMIT_S)
        assert (done.returncode, done.stderr) == (1, ""), done
        return done.stdout.splitlines()
    assert re.fullmatch(".*: cannot be looked at: Permission denied; .*", look()[0])
    for folder in (outside, outside.parent):
        os.chmod(str(folder), 0o711)
    assert re.fullmatch(r".*: this user \(uid 65534\) may not read it; run as its owner \(uid 0\)", look()[0])
    os.chmod(str(master), 0o644)
    assert re.match(r".*: belongs to uid 0, not to this user \(uid 65534\); run agent.py as that user", look()[0])


def test_an_index_that_is_damaged_is_made_anew(rest):
    with closing(sqlite3.connect(str(rest.work), isolation_level=None)) as connection:
        connection.execute("pragma writable_schema=on")
        connection.execute("update sqlite_master set sql='create index session_created on session(status)'"
                           " where name='session_created'")
    assert re.fullmatch(".*/workrep.db: the indices are damaged: .*; --repair makes them anew", rest.finding())
    assert len(rest.repaired()) == 1


@pytest.mark.parametrize("statement, expected", [
    ("update work_repository set uuid='x'", "carries another UUID than the one attached as WORKREP; "),
    ("update work_repository set id=7", "is a work repository of id 1, and attached as 7; "),
    ("insert into work_repository values (2, 'AGAIN', 'workrep.db', null)",
     "is attached twice, as WORKREP and AGAIN; ")])
def test_an_attachment_that_does_not_fit(rest, statement, expected):
    change(rest.master, statement)
    assert "/workrep.db: " + expected in rest.finding()


def test_a_master_without_work(rest):
    change(rest.master, "delete from work_repository")
    assert rest.finding().endswith("/master.db: no work repository is attached; ATTACH one")


def test_rows_that_name_what_is_gone(rest):
    change(rest.work, "delete from definition where id=(select definition from session)")
    lines, _ = rest.consult()
    assert any(": 1 rows of session name a definition that is not there; " in line for line in lines)
    assert any(", scenario HELLO 001: no " in line or "rows of scenario name" in line for line in lines)


def test_modes(rest):
    os.chmod(str(rest.work), 0o664)
    os.chmod(str(rest.master), 0o604)
    os.chmod(str(rest.folder), 0o770)
    lines, _ = rest.consult()
    assert len([line for line in lines if "may be written by others; chmod go-w %s" % rest.folder in line]) == 2
    assert [re.search(r"(\w+.db): is open to other users \(mode (\d+)\); chmod 600", line).groups()
            for line in lines if "is open" in line] == [("master.db", "0604"), ("workrep.db", "0664")]
    os.chmod(str(rest.folder), 0o700)
    assert len(rest.repaired()) == 2
    assert [stat.S_IMODE(path.stat().st_mode) for path in (rest.master, rest.work)] == [0o600] * 2


def test_what_somebody_has_put_beside(rest):
    os.symlink("/dev/null", str(rest.work) + "-journal")
    assert re.fullmatch(".*-journal is a symbolic link, so it is not used; delete it", rest.finding())


def test_a_wal_that_a_crash_has_left(rest):
    code = ("import sqlite3, sys, os; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "c.execute(\"update session set message='after'\"); os._exit(0)")
    subprocess.check_call([sys.executable, "-c", code, str(rest.work)])
    assert re.search(r"workrep.db: no agent runs, and a -wal of \d+ bytes is beside it; ", rest.finding())
    assert [line.rpartition(": ")[2] for line in rest.repaired()] == ["its -wal is put in"]
    assert set(times_of_files(rest.folder)) == {"master.db", "workrep.db"}
    assert query(rest.work, "select message from session") == [("after",)]


def test_sizes(rest, inside):
    assert re.search(r"workrep.db: keeps \d+ MiB of what sessions have printed; PURGE", rest.finding(log=1))
    lines, _ = rest.consult(free=1 << 60)
    assert len(lines) == 2 and all(": there is no room for a copy; make room" in line for line in lines)
    inside.ok("EXEC HELLO -SYNC")
    lines, _ = Place(inside.folder).consult(wal=1)
    assert lines and all(re.search(r"the -wal beside it has \d+ MiB; end the program that reads", line)
                         for line in lines)


def test_a_clock_that_is_behind_what_was_written(rest):
    lines, _ = rest.consult(clock=program.Clock())
    assert lines[0].startswith("healthy")

    class LateClock(program.Clock):
        def now(self):
            return super().now() - 86400
    lines, _ = rest.consult(clock=LateClock())
    assert [re.search(r"(\w+)\.db: its newest row is of \S+, and this host's clock is behind that; set the clock", line)
            .group(1) for line in lines] == ["master", "workrep"]


def test_a_network_file_system(rest, monkeypatch):
    with open("/proc/self/mountinfo") as mounts:
        kinds = tuple(line.partition(" - ")[2].split()[0] for line in mounts)
    monkeypatch.setattr(program, "NETWORK_FILE_SYSTEMS", kinds)       # as if those of this host were such
    lines, _ = rest.consult()
    assert len(lines) == 2 and all(re.search(r"is on a network file system \(\w+\), where .*; move it", line)
                                   for line in lines)
    assert rest.consult("--insecure-fs")[1] == 0


def test_files_of_ended_sessions_and_of_a_crash(rest):
    half = rest.folder / ".out.csv.0123456789abcdef.part"
    files = {rest.folder / "workrep.db.secret.0123456789abcdef": "{}",
             rest.folder / "workrep.db.spool.1001.1.0123456789abcdef": "",
             rest.folder / "workrep.db.parts.1001.0123456789abcdef": '"%s"' % half,
             rest.folder / ".workrep.db.0123456789abcdef.new": "", half: "half"}
    for path, text in files.items():
        path.write_text(text)
        os.chmod(str(path), 0o600)
    rest.check_healthy()                # they may be of a request that is under way
    for path in files:
        age(path, 3600)
    lines, _ = rest.consult()
    assert len(lines) == 3 and all(line.endswith(
        ": belongs to no session that is open; the next start deletes it, or --repair") for line in lines)
    for path in files:
        age(path, 100000)
    assert len(rest.repaired()) == 4
    assert set(times_of_files(rest.folder)) == {"master.db", "workrep.db"}


def test_what_a_held_copy_has_beside_it_is_left_alone(rest):
    """It may be another's: what was running or outstanding there the copy does not know."""
    me = program.own_identity("", "uuid")
    change(rest.work, ("update repository set host=?, boot=?, device='1', inode='1'", me.home), OWN_IDENTITY % "")
    secret = rest.folder / "workrep.db.secret.0123456789abcdef"
    secret.write_text("{}")
    age(secret, 100000)
    line = rest.finding("--repair")
    assert line.startswith("%s: is held, and not cleaned: copy: it is not the file that was used last" % rest.work)
    assert line.endswith("; RELEASE -REPO=WORKREP, if it is the file to go on with; if not, put that there")
    assert secret.exists()
    change(rest.work, "update repository set restored='2026-01-02T00:00:00.000Z', restored_from='/b'")
    assert "restored from /b; RELEASE -REPO=WORKREP" in rest.finding("--repair") and secret.exists()


def test_only_what_was_repaired_is_in_the_audit(rest):
    repairs = "select count(*) from audit where verb='REPAIR'"
    before = query(rest.master, repairs)
    assert run_doctor(rest, "--doctor", "--repair").returncode == 0
    assert query(rest.master, repairs) == before == [(0,)]
    os.chmod(str(rest.work), 0o640)
    assert run_doctor(rest, "--doctor", "--repair").returncode == 0
    assert query(rest.master, repairs) == [(1,)]


# -- rows ----------------------------------------------------------------------------------

def test_sessions_that_nothing_runs(rest):
    me = program.own_identity("", "uuid")
    stale = "sessions 1001: shown as running, and nothing on this host runs them"
    for identity in ("", me._replace(boot="before"), me._replace(started="1")):
        change(rest.work, OWN_IDENTITY % str(identity))
        assert rest.finding().endswith(stale + "; start the agent AGENT: it ends what they have left running, then "
                                       "closes them")
        assert rest.consult("--repair")[1] == 1         # that is the next start's
    change(rest.work, OWN_IDENTITY % str(me))
    rest.check_healthy()
    change(rest.work, OWN_IDENTITY % str(me._replace(pid_ns="1")))
    rest.check_healthy()
    change(rest.work, OWN_IDENTITY % str(me._replace(host="elsewhere")))
    assert rest.finding().endswith(stale + ": host elsewhere did; if that host is gone, CLEAN -HOST=elsewhere")
    change(rest.master, "update agent set stopped=null, identity='%s'" % str(me))
    change(rest.work, OWN_IDENTITY % "")
    assert rest.finding().endswith(stale + "; CLEAN")


def test_a_session_that_is_handed_over_is_not_stale(make_agent):
    agent = make_agent().start()
    adoptable(agent, UNTIL_GO)
    number = agent.ok("EXEC A")["session"]
    agent.wait_status(number, "RUNNING")
    wait_for(lambda: query(agent.work, "select pid from session_task where pid not null"), "its process")
    agent.kill()
    assert spools(agent)
    place = Place(agent.folder)
    lines, _ = place.consult()
    assert lines and all("no agent runs, and a -wal" in line for line in lines), lines
    agent.start()
    (agent.folder / "go").touch()
    agent.wait_status(number, "DONE")


SCHEDULE = {"agent": "AGENT", "scenario": "HELLO", "version": "-1", "context": "GLOBAL", "timezone": "UTC",
            "rule": "daily at 02:00"}


@pytest.mark.parametrize("statement, expected", [
    ("update schedule set scenario='GONE'", "cannot start: no scenario GONE"),
    ("update schedule set version='7'", "cannot start: scenario S has no version 7"),
    ("update schedule set context='GONE'", "no context GONE"),
    ("update schedule set agent='OTHER'", "belongs to agent OTHER, which has never run on this master"),
    ("update schedule set options='{\"exclude_dates\": \"GONE\"}'", "cannot fire: .*GONE"),
    ("update schedule set options='{'", "cannot fire: options"),
    ("update schedule set rule='at 2001-01-01 00:00'", "its rule 'at 2001-01-01 00:00' never fires"),
    ("update schedule set rule='cron 0 0 30 2 *'", "cannot fire: "),
    ("update schedule set variables='{\"x\": \"1\"}'", "cannot start: x: scenario S 1 has no variable"),
    ("update schedule set options='{\"after\": \"GONE\"}'", "cannot start: no schedule GONE"),
    ("update schedule set decided='x'", "cannot fire: a time in its row is none")])
def test_schedules(rest, statement, expected):
    change(rest.work, statement)
    assert re.search("/workrep.db, schedule NIGHT: %s.*; mend it by SCHED SET or IMPORT, or SCHED OFF$" % expected,
                     rest.finding())
    if "cannot fire" not in expected:
        change(rest.work, "update schedule set enabled=0")
        rest.check_healthy()


def test_a_rule_that_has_fired_its_once_is_well(rest):
    change(rest.work, "update schedule set rule='at 2001-01-01 00:00'",
           ("insert into occurrence values ('NIGHT', ?1, ?1, 1, 'started', '', 1001, ?1, '')",
            ("2001-01-01T00:00:00.000Z",)))
    rest.check_healthy()


def with_task(place, variables=None, **task):
    """Scenario S gets one task, as another program would write it."""
    body = {"name": "S", "version": "1", "variables": variables or {}, "steps": [{"name": "s", "tasks": [task]}]}
    change(place.work, ("update definition set body=? where id=(select definition from scenario where name='S')",
                        (program.json.dumps(body),)))


@pytest.mark.parametrize("task, expected", [
    (dict(type="os", command=["no-such-program", "x"]), "program no-such-program is not in PATH"),
    (dict(type="os", command=["true"], env={"PATH": "/nowhere"}), "program true is not in PATH"),
    (dict(type="os", command=["/nowhere/x"]), "/nowhere/x does not exist"),
    (dict(type="os", command=["./x"], cwd="/usr"), "/usr/./x does not exist"),
    (dict(type="os", command="/nowhere/x.sh --a | cat"), "/nowhere/x.sh does not exist"),
    (dict(type="os", command=["/etc/passwd"]), "/etc/passwd cannot be run or read by this user"),
    (dict(type="os", command="true", cwd="/nowhere"), "there is no folder /nowhere"),
    (dict(type="python", file="/nowhere/x.py"), "/nowhere/x.py does not exist"),
    (dict(type="sql", schema="NONE", statement="select 1"), "no logical schema NONE"),
    (dict(type="mail", to=["a@b.c"], subject="s", body="b"), "no data server MAIL"),
    (dict(type="scenario", name="NONE"), "no scenario NONE -1"),
    (dict(type="none"), "the stored definition 2 cannot be read: ")])
def test_scenarios(rest, task, expected):
    with_task(rest, **task)
    line = rest.finding()
    assert re.search(r"/workrep.db, scenario S 1: (s/1: )?%s.*; .*IMPORT" % re.escape(expected), line), line


@pytest.mark.parametrize("task", [
    dict(type="os", command=["${p}"]), dict(type="os", command="no-such-program"), dict(type="os", command=["./x"]),
    dict(type="os", command=["true"], cwd="${d}"), dict(type="python", file="x.py"), dict(type="python", code="1")])
def test_what_only_the_session_decides_is_no_finding(rest, task):
    with_task(rest, variables={"p": "true", "d": "/"}, **task)
    rest.check_healthy()


@pytest.mark.parametrize("statement, expected", [
    ("update data_server set driver='no_such_module'", "scenario S 1: s/1: data server DB: this host's Python has no"),
    ("update data_server set database='/nowhere/x.db'", "scenario S 1: s/1: data server DB: /nowhere/x.db does not"),
    ("update logical_schema set context='DEV'", "schedule NIGHT: logical schema L has no data server in context "),
    ("delete from data_server", "scenario S 1: s/1: no data server DB"),
    ("delete from context where name='DEV'", "")])
def test_data_servers(rest, statement, expected):
    change(rest.master, statement)
    lines, code = rest.consult()
    assert code == bool(expected) and any(expected in line for line in lines), lines
    change(rest.master, "update logical_schema set context='NONE'")
    assert any("logical schema L names context NONE, which is not there; IMPORT the context" in line
               for line in rest.consult()[0]) or "delete" in statement
