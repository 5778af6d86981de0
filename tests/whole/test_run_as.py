"""--run-as: tasks of root's agent run as another user, with nothing of root's; --as-root; the umask of both."""
import contextlib
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

import pytest

from conftest import AGENT, AgentProcess, is_alive, program, wait_for
from support import batch
from support.adoptable import UNTIL_GO
from support.engines import Batch, add_engine, engine_scenario
from support.peers import Hook, Peer
from support.tasks import add, begin, os_task, run, sql, stop

pytestmark = pytest.mark.once

USER, SYSTEM_PYTHON = "nobody", "/usr/bin/python3"


def find_python():
    """A Python that another user may start, of those that this test run or the host has; or None."""
    for python in (sys.executable, SYSTEM_PYTHON):
        def become():
            os.setgid(65534)
            os.setuid(pwd.getpwnam(USER).pw_uid)
        with contextlib.suppress(OSError, KeyError):
            if subprocess.call([python, "-c", "import sys, sqlite3; sys.exit(sys.version_info < (3, 6))"], preexec_fn=become,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/") == 0:
                return python
    return None


PYTHON = find_python() if os.geteuid() == 0 else None
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can run tasks as another user")
with_user = pytest.mark.skipif(PYTHON is None, reason="needs root, a user %s, and a Python that he may start" % USER)


def uid():
    return pwd.getpwnam(USER).pw_uid


@pytest.fixture(scope="module")
def lent():
    """A folder of the user's, whom pytest's own folders are closed to."""
    top = tempfile.mkdtemp(prefix="run-as-", dir="/tmp")
    os.chmod(top, 0o755)
    own = os.path.join(top, "own")
    os.mkdir(own)
    os.chown(own, uid(), -1)
    yield own
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def served(make, lent):
    """An agent of root's that runs tasks as the user; `lent` is the user's folder, `closed` one of root's alone."""
    agent = make("run-as", "--run-as", USER, python=PYTHON, env={"FROM_ROOT": "yes"})
    os.mkfifo(os.path.join(lent, "pipe"), 0o644)
    agent.lent, agent.closed = lent, str(agent.folder / "closed")
    os.mkdir(agent.closed, 0o700)
    with open(os.path.join(agent.closed, "text"), "w") as file:
        file.write("of root\n")
    agent.import_document({
        "data_servers": [{"name": "OWN", "driver": "sqlite3", "database": os.path.join(lent, "own.db")},
                         {"name": "CLOSED", "driver": "sqlite3", "database": os.path.join(agent.closed, "x.db")}],
        "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "OWN"}}, {"name": "SHUT", "contexts": {"GLOBAL": "CLOSED"}}]})
    return agent


WHO = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME"


def expected_who():
    entry = pwd.getpwnam(USER)
    groups = sorted(set(os.getgrouplist(USER, entry.pw_gid)))
    return [str(entry.pw_uid), str(entry.pw_gid), groups, "%s %s %s" % (entry.pw_dir, USER, USER)]


@with_user
@pytest.mark.parametrize("fields", [{}, {"on_stale": "adopt"}])
def test_processes_of_tasks_are_the_users(served, fields):
    session = run(served, os_task(WHO), **fields)
    texts = session.texts
    assert texts[:2] + [sorted(map(int, texts[2].split()))] + texts[3:] == expected_who()
    code = "import os; print(os.getresuid(), os.getresgid(), os.environ['VAR_v'], os.environ['HOME'], os.environ['FROM_ROOT'])"
    session = run(served, {"type": "python", "code": code}, os_task(["id", "-u"], cwd="/", env={"HOME": "/x", "a.b": "c"}),
                  os_task("echo $HOME; cat; echo seen > /dev/stdout; echo err > /dev/stderr", env={"HOME": "/x"}, stdin="read\n"),
                  variables={"v": "a value"}, **fields)
    numbers = pwd.getpwnam(USER)
    assert session.texts[0] == "%s %s a value %s yes" % (
        (numbers.pw_uid,) * 3, (numbers.pw_gid,) * 3, numbers.pw_dir)
    assert session.texts[1] == str(uid()) and sorted(session.texts[2:]) == ["/x", "err", "read", "seen"]


@with_user
def test_an_engine_is_called_as_the_user(served):
    own = pathlib.Path(served.lent)
    shutil.copy(batch.__file__, str(own / "batch.py"))
    engine = Batch(own, PYTHON, own / "batch.py")
    os.chown(str(engine.folder), uid(), -1)
    add_engine(served, engine, engine_scenario("THERE", os_task("id -u; umask; cat \"$D\"/*/secrets 2>&1 | head -1",
                                                                env={"D": str(engine.spool)})))
    end = served.ok("EXEC THERE -SYNC")
    assert end["status"] == "DONE", end
    assert served.log_texts(end["session"])[:2] == [str(uid()), "0022"]
    assert {path.stat().st_uid for path in (engine.spool, engine.jobs()[0])} == {uid()}


@with_user
def test_all_else_that_tasks_do_is_the_users_too(served):
    path = served.lent + "/"
    with open(path + "in.csv", "w") as file:
        file.write("a\n1\n")
    os.chmod(path + "in.csv", 0o644)
    session = run(served, sql("create table t (a)"), {"type": "copy", "from": path + "in.csv", "to": path + "copy"},
                  {"type": "mkdir", "path": path + "new"}, {"type": "zip", "from": path + "in.csv", "to": path + "zip"},
                  {"type": "load_csv", "schema": "DWH", "table": "t", "file": path + "in.csv"},
                  {"type": "unload_csv", "schema": "DWH", "query": "select * from t", "file": path + "unloaded"},
                  {"type": "refresh", "schema": "DWH", "query": "select a from t", "variable": "v"},
                  {"type": "evaluate", "variable": "v", "operator": "matches", "value": "^1$"}, variables={"v": ""})
    assert session.status == "DONE" and session.values == {"v": "1"}, session.message
    for name in ("own.db", "copy", "new", "zip", "unloaded"):
        assert os.stat(path + name).st_uid == uid(), name
    waiting = begin(served, {"type": "wait_file", "path": path + "never"})

    def owners():
        return [os.stat("/proc/" + pid).st_uid for pid in list_children(served.process.pid)]
    wait_for(lambda: owners() == [uid()], "the process that waits to be the user's")
    assert stop(served, waiting).status == "STOPPED"


def list_children(pid):
    """The pids of a process's children that still run, as text."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open("/proc/%s/stat" % name) as file:
                words = file.read().rpartition(")")[2].split()
            if words[1] == str(pid) and words[0] != "Z":
                found.append(name)
    return found


@with_user
@pytest.mark.parametrize("task, reason", [
    (os_task("cat CLOSED/text"), "Permission denied"),
    (os_task("true", cwd="CLOSED"), "cannot start: Permission denied: "),
    (os_task(["CLOSED/text"]), "cannot start: Permission denied: "),
    (os_task(["/no/such/program"]), "exit code 127: cannot start: No such file or directory: /no/such/program"),
    ({"type": "copy", "from": "CLOSED/text", "to": "LENT/stolen"}, "no file matches"),
    ({"type": "copy", "from": "/etc/hostname", "to": "CLOSED/new"}, "Permission denied"),
    ({"type": "delete", "path": "/etc/hostname"}, "denied"),
    (sql("create table t (a)", schema="SHUT"), "unable to open"),
    ({"type": "refresh", "schema": "SHUT", "query": "select 1 from sqlite_master", "variable": "v"}, "unable to open"),
    ({"type": "load_csv", "schema": "DWH", "table": "t", "file": "CLOSED/text"}, "Permission denied"),
    ({"type": "wait_file", "path": "CLOSED/text", "timeout": 1}, "time-out of the task"),
], ids=lambda value: value["type"] if isinstance(value, dict) else "")
def test_what_is_roots_alone_is_closed_to_tasks(served, task, reason):
    task = json.loads(json.dumps(task).replace("CLOSED", served.closed).replace("LENT", served.lent))
    session = run(served, task, variables={"v": ""})
    assert session.status == "ERROR" and reason in session.message, session.message
    assert os.listdir(served.closed) == ["text"] and os.path.exists("/etc/hostname")


@with_user
def test_a_file_of_a_secret_is_read_as_the_user(served):
    readable = os.path.join(served.lent, "secret")
    with open(readable, "w") as file:
        file.write("open sesame\n")
    for path, status in ((readable, "DONE"), (served.closed + "/text", "ERROR"), (served.lent, "ERROR"),
                         (served.lent + "/none", "ERROR")):
        session = run(served, os_task('test "$VAR_password" = "open sesame"'),
                      variables={"password": {"secret": True, "file": path}})
        assert session.status == status, session.message
    assert session.message == "secret password: %s: No such file or directory" % path


@with_user
@pytest.mark.parametrize("fields", [{}, {"on_stale": "adopt"}])
def test_no_process_of_roots_obeys_the_environment_of_a_task(served, fields):
    """The loader writes a file wherever it is told to: as root, if root's process were told."""
    log = tempfile.mkdtemp(dir=served.lent)
    os.chmod(log, 0o777)
    session = run(served, os_task(["/bin/true"], env={"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": log + "/ld"}), **fields)
    assert session.status == "DONE"
    owners = {os.stat(os.path.join(log, name)).st_uid for name in os.listdir(log)}
    if not owners:
        pytest.skip("this host's loader has no LD_DEBUG")
    assert owners == {uid()}


@with_user
def test_a_task_lives_through_a_crash_and_is_adopted(make_agent, lent):
    agent = make_agent("--run-as", USER, python=PYTHON).start()
    command = UNTIL_GO.replace("-e go", "-e %s/go" % lent) + "; id -u; exit 7"
    session = begin(agent, os_task("id -u; " + command, cwd="/"), on_stale="adopt")
    wait_for(lambda: agent.log_texts(session), "the first line")
    agent.kill()
    agent.start()
    open(os.path.join(lent, "go"), "w").close()
    row = agent.wait_status(session, "ERROR")
    assert "exit code 7" in row["message"] and agent.log_texts(session) == [str(uid())] * 2
    os.unlink(os.path.join(lent, "go"))


@with_user
def test_what_a_crash_leaves_of_the_users_is_ended(make_agent):
    """Also what has neither parent nor marker any more, by the OS session of its leader that is gone."""
    agent = make_agent("--run-as", USER, python=PYTHON).start()
    session = begin(agent, os_task("env -i /bin/sh -c 'echo $$; while :; do sleep 1; done' & wait; true", cwd="/"))
    pid = int(wait_for(lambda: agent.log_texts(session), "its pid")[0])
    leader = int(agent.folder.joinpath("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[3])
    agent.kill()
    os.kill(leader, signal.SIGKILL)
    wait_for(lambda: not is_alive(leader), "the end of the leader")
    assert is_alive(pid)
    agent.start()
    assert "stale" in agent.wait_status(session, "ERROR")["message"] and not is_alive(pid)


@with_user
def test_a_stop_ends_what_the_user_has_hidden(served):
    """In an OS session of its own, without its marker, and deaf to SIGTERM."""
    session = begin(served, os_task(
        "setsid env -i /bin/sh -c 'trap \"\" TERM; echo $$; exec 1>&- 2>&-; while :; do sleep 1; done' & wait", cwd="/"))
    pid = int(wait_for(lambda: served.log_texts(session), "its pid")[0])
    assert os.stat("/proc/%d" % pid).st_uid == uid()
    assert stop(served, session).status == "STOPPED"
    wait_for(lambda: not is_alive(pid), "the end of what it hid")


@with_user
def test_what_a_stopped_task_leaves_is_deleted_as_the_user(served):
    """The note of it is the user's to write: it can name nothing that he could not delete himself."""
    for folder, is_deleted in ((served.lent, True), (served.closed, False)):
        part = os.path.join(folder, ".x.0123456789abcdef.part")
        os.mkdir(part)
        os.chown(part, uid(), -1)
        session = begin(served, {"type": "load_csv", "schema": "DWH", "table": "t", "file": os.path.join(served.lent, "pipe")})     # waits for a writer
        note, = wait_for(lambda: list(served.folder.glob("*.parts.*")), "the note")
        note.write_text(json.dumps(part))
        assert stop(served, session).status == "STOPPED" and not note.exists()
        assert os.path.exists(part) is not is_deleted
    os.rmdir(part)
    assert "%s cannot be deleted as nobody: " % part in served.log()


@with_user
def test_no_process_of_the_users_can_write_what_roots_run(served):
    """The byte-code that helpers and minders start from."""
    session = begin(served, {"type": "load_csv", "schema": "DWH", "table": "t", "file": os.path.join(served.lent, "pipe")})
    pid, = wait_for(lambda: [pid for pid in list_children(served.process.pid) if os.stat("/proc/" + pid).st_uid == uid()],
                    "the helper")
    code = program.BOOT.encode()
    wait_for(lambda: code in pathlib.Path("/proc/%s/cmdline" % pid).read_bytes(), "it to be the helper")
    words = pathlib.Path("/proc/%s/cmdline" % pid).read_bytes().split(b"\0")
    number = words[words.index(code) + 1].decode()
    flags = re.search(r"flags:\s*(\d+)", pathlib.Path("/proc/%s/fdinfo/%s" % (pid, number)).read_text()).group(1)
    assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY
    assert stop(served, session).status == "STOPPED"


# -- at the start ----------------------------------------------------------------------

def start_refused(python, *options, launcher=(), folder="/"):
    """An agent that cannot start -> the line on stderr."""
    process = subprocess.run(list(launcher) + [python, str(AGENT), "--port", "0"] + list(options), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60, cwd=folder)
    lines = process.stderr.splitlines()
    assert (process.returncode, process.stdout, len(lines)) == (1, "", 1), lines
    return lines[0]


@as_root
def test_a_user_who_cannot_be_is_told_at_the_start(tmp_path):
    master = ["--master", str(tmp_path / "master.db"), "--create"]
    assert "--run-as no-such-user: this host has no such user" in start_refused(sys.executable, "--run-as", "no-such-user", *master)
    assert "--run-as root: that is root" in start_refused(sys.executable, "--run-as", "root", *master)
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    (shut / "python3").symlink_to(os.path.realpath(sys.executable))
    line = start_refused(str(shut / "python3"), "--run-as", USER, *master)
    assert "--run-as nobody: nobody cannot start this agent's Python, %s/python3, which their tasks need: " % shut in line
    assert list(tmp_path.iterdir()) == [shut]               # before anything was made


@with_user
def test_only_root_can_run_tasks_as_another_user(lent):
    become = "import os, sys; os.setgid(65534); os.setuid(%d); os.execv(sys.argv[1], sys.argv[1:])" % uid()
    copy = os.path.join(lent, "agent.py")
    shutil.copy(str(AGENT), copy)
    process = subprocess.run([sys.executable, "-c", become, PYTHON, copy, "--port", "0", "--run-as", USER], cwd="/",
                             stderr=subprocess.PIPE, universal_newlines=True)
    assert process.returncode == 1 and "only an agent that root has started" in process.stderr
    assert not os.path.exists(os.path.join(lent, "sqlite_repos"))


@as_root
def test_an_agent_whose_tasks_run_as_root_says_so_once(agent):
    assert len(re.findall("WARNING tasks run as root: start the agent as another user, or with --run-as USER",
                          agent.log())) == 1


@with_user
def test_an_agent_whose_tasks_run_as_another_user_does_not(served):
    assert "run as root" not in served.log()


# -- the umask -------------------------------------------------------------------------

def mode_of(path):
    return stat.S_IMODE(os.stat(str(path)).st_mode)


@pytest.mark.parametrize("is_apart", [False, pytest.param(True, marks=with_user)])
def test_the_agent_has_a_umask_of_its_own_and_tasks_that_of_its_start(make_agent, lent, is_apart):
    folder = tempfile.mkdtemp(dir=lent)
    os.chmod(folder, 0o777)
    options, python = (["--run-as", USER], PYTHON) if is_apart else ([], sys.executable)
    agent = AgentProcess(os.path.join(folder, "repositories"), *options, python=python,
                         launcher=["/bin/sh", "-c", 'umask 027; exec "$@"', "sh"]).start()
    try:
        with open("/proc/%d/status" % agent.process.pid) as file:
            assert re.search(r"^Umask:\s*0077$", file.read(), re.M)
        agent.import_document({
            "data_servers": [{"name": "D", "driver": "sqlite3", "database": folder + "/x.db"}],
            "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "D"}}]})
        tasks = [os_task("umask; echo > %s/os" % folder), os_task(["sh", "-c", "umask"], env={"a.b": "c"}, cwd="/"),
                 os_task("umask", umask="002"), {"type": "python", "code": "import os; print('%04o' % os.umask(0))"}]
        texts = ["0027", "0027", "0002", "0027"]
        assert run(agent, *tasks).texts == texts and run(agent, *tasks, on_stale="adopt").texts == texts
        session = run(agent, sql("create table t (a)"), {"type": "unload_csv", "schema": "DWH", "query": "select 1 as a",
                                                         "file": folder + "/csv"}, {"type": "mkdir", "path": folder + "/new"})
        assert session.status == "DONE", session.message
        assert [mode_of(os.path.join(folder, name)) for name in ("os", "x.db", "csv", "new")] == [0o640, 0o640, 0o640, 0o750]
        assert {mode_of(path) for path in agent.folder.iterdir() if path.name != "agent.log"} == {0o600}
    finally:
        agent.finish()


@with_user
def test_a_notice_is_sent_as_the_user(served):
    """The command of one, and the process that posts one, which cannot read what is of root alone."""
    peer, secret = Peer(Hook), {"file": os.path.join(served.closed, "text")}
    served.import_document({"notices": [
        {"name": "OS", "send": {"type": "os", "command": "(id -u; umask; cat) > %s/notice" % served.lent}},
        {"name": "HTTP", "send": {"type": "http", "url": "http://127.0.0.1:%d/" % peer.port}},
        {"name": "SECRET", "send": {"type": "http", "url": "http://127.0.0.1:%d/" % peer.port, "headers": {"X": secret}}}]})
    assert served.ok("NOTICE TEST OS")["status"] == served.ok("NOTICE TEST HTTP")["status"] == "DONE"
    who, umask, text = pathlib.Path(served.lent, "notice").read_text().split("\n")
    assert (who, umask) == (str(uid()), subprocess.check_output(["sh", "-c", "umask"]).decode().strip())
    assert json.loads(text)["notice"] == "OS"
    assert served.ok("NOTICE TEST SECRET")["status"] == "ERROR" and len(peer.seen) == 1
    peer.close()
