"""What may take for ever, or weigh on the agent, and what ends it: a time-out, a stop, a limit."""
import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import threading

import pytest

import agent as program
from conftest import is_alive, wait_for
from support.outside import change, query
from support.tasks import add, begin, task_faults, run, stop

SLOW = "^(a+)+$", "a" * 40 + "!"        # an expression, and where it is searched for ever
# of under 1,000 characters, which take seconds to compile
LONG_TO_COMPILE = ["(?i)" + "[ -\U000effff]" * 198, "(?i)" + "[ -\uffff]" * 198]


def matches(expression, variable="v"):
    return {"type": "evaluate", "variable": variable, "operator": "matches", "value": expression}


def define(agent, **servers):
    """Imports data servers of SQLite: NAME=path, the logical schema NAME being that."""
    agent.import_document({
        "data_servers": [{"name": name, "driver": "sqlite3", "database": str(path)} for name, path in servers.items()],
        "logical_schemas": [{"name": name, "contexts": {"GLOBAL": name}} for name in servers]})


# -- expressions -----------------------------------------------------------------------

def test_a_search_that_takes_for_ever_ends_with_its_session(inside):
    """The agent goes on meanwhile: this test runs in its process."""
    done = run(inside, matches(SLOW[0]), variables={"v": SLOW[1]}, timeout=0.5)
    assert done.status == "ERROR" and "time-out of the session" in done.message
    session = begin(inside, matches(SLOW[0]), variables={"v": SLOW[1]})
    assert inside.ok("PING")["running"] == "1"
    assert stop(inside, session).tasks[0]["status"] == "STOPPED"


def test_a_search_that_takes_for_ever_ends_by_itself(inside):
    done = run(inside, matches(SLOW[0]), variables={"v": SLOW[1]}, timeout=60)
    assert done.status == "ERROR" and "was not searched to the end: takes over 5 s" in done.message


def test_a_search_that_takes_for_ever_delays_no_start(make_agent):
    agent = make_agent().start()
    session = begin(agent, matches(SLOW[0]), variables={"v": SLOW[1]}, on_stale="restart")
    agent.kill()
    agent.start()
    agent.wait_status(session, "RUNNING")
    assert agent.ok("PING")["status"] == "READY"
    agent.ok("STOP %s -IMMEDIATE" % session)
    agent.wait_status(session, "STOPPED")
    assert agent.stop() == 0


@pytest.mark.parametrize("expression, reason", [
    ("a{9999999999}", "repetition number"), ("(" * 500 + ")" * 500, "nested too deeply"), ("(", "unterminated"),
    ("(" * 3000 + ")" * 3000, "has over 1000 characters"), ("a" * 1001, "has over 1000 characters")])
def test_an_expression_that_is_none(inside, expression, reason):
    """Found at the import; where a value makes it one, when it runs."""
    if sys.version_info >= (3, 12) and "deeply" in reason:
        expression, reason = "a{9999999999}", "repetition number"      # it has no trouble with brackets
    told = task_faults(inside, dict(matches(expression)))
    assert "must be a regular expression" in told["value"] and reason in told["value"]
    done = run(inside, matches("${v}"), variables={"v": expression})
    assert done.status == "ERROR" and "no regular expression" in done.message and reason in done.message


def test_expressions_are_compiled_by_one_process(inside):
    """All of a document, each once; and none without an expression."""
    before = resource_children()
    steps = [{"name": "s%d" % index, "tasks": [matches("^a%d$" % (index % 7)), matches("${v}")]} for index in range(20)]
    add(inside, steps=steps, variables={"v": ""})
    assert resource_children() > before
    plain = [dict(matches("("), operator="="), dict(matches("(,)"), operator="in"), matches("${v}(")]
    before = resource_children()
    name = add(inside, *plain, variables={"v": ""})
    inside.ok("EXPORT %s" % name)
    assert run(inside, *plain[:2], variables={"v": "("}).status == "DONE"
    assert resource_children() == before


def resource_children():
    """Processor time of the processes that ended."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


@pytest.mark.parametrize("expression", LONG_TO_COMPILE)
def test_the_compiling_is_ended_too(expression):
    """With a shorter limit than the agent's, and some more of them: a fast machine takes seconds for the first."""
    assert len(expression) < program.MAX_EXPRESSION
    expressions = ["a"] + [expression + "%d" % number for number in range(40)]
    process = subprocess.run(program.alone_command(program.search_alone, "1", "1"), stdout=subprocess.PIPE,
                             input=program.json.dumps([expressions, None]).encode())
    assert process.returncode == -signal.SIGALRM and process.stdout.startswith(b"null\n")
    results = program._read_results(process.stdout, process.returncode)
    assert results[-1] == "takes over 5 s" and set(results[:-1]) == {None}


# -- files -----------------------------------------------------------------------------

@pytest.fixture
def maze(tmp_path):
    """A pattern for which a glob goes round and round."""
    folder = tmp_path / "maze"
    folder.mkdir()
    for name in "abc":
        (folder / name).symlink_to(".")
    return str(folder / "**" / "no")


@contextlib.contextmanager
def hanging(path, text="open sesame"):
    """A file that whoever opens it has to wait for, for 45 seconds (fcntl(2), leases): like a mount that hangs."""
    path.write_text(text)
    path.chmod(0o755)
    code = ("import fcntl, os, signal, sys\n"
            "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
            "fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
            "print('held', flush=True)\nsys.stdin.read()")
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if holder.stdout.readline() != b"held\n":
            pytest.skip("no leases on this file system")
        yield path
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()


def test_a_glob_that_takes_for_ever_is_ended(inside, maze):
    task = {"type": "wait_file", "path": maze}
    done = run(inside, task, timeout=0.5)
    assert done.status == "ERROR" and "time-out of the session" in done.message
    session = begin(inside, dict(task, absent=True))
    pid = wait_for(lambda: query(inside.work, "select pid from session_task where session=?", session)[0][0],
                   "its process")
    stop(inside, session)
    assert not is_alive(pid)


def test_a_file_that_appears_is_waited_for_in_another_process(inside, tmp_path):
    path = tmp_path / "\u00e9t\u00e9"
    session = begin(inside, {"type": "wait_file", "path": str(path), "stable_s": 0})
    path.write_text("")
    inside.wait_status(session, "DONE")


SECRET = {"p": {"secret": True, "file": None}}


def test_a_secret_of_no_regular_file(inside, tmp_path):
    os.mkfifo(str(tmp_path / "pipe"))
    (tmp_path / "large").write_text("x" * 70000)
    (tmp_path / "full").write_text("x" * 65536 + "\n")
    (tmp_path / "bytes").write_bytes(b"\xff" * 9)
    for name, reason in [(str(tmp_path / "pipe"), "is no regular file"), ("/dev/zero", "is no regular file"),
                         (str(tmp_path), "is no regular file"), (str(tmp_path / "large"), "has over 65536 bytes"),
                         (str(tmp_path / "bytes"), "is not UTF-8")]:
        done = run(inside, {"type": "os", "command": "true"}, variables={"p": {"secret": True, "file": name}})
        assert (done.status, done.message.startswith("secret p: ")) == ("ERROR", True) and reason in done.message
    done = run(inside, {"type": "os", "command": 'echo ${#VAR_p}'},
               variables={"p": {"secret": True, "file": str(tmp_path / "full")}})
    assert done.status == "DONE", done.message


def test_a_secret_on_a_mount_that_hangs(inside, tmp_path):
    """Its reading is left behind; also that of a data server."""
    with hanging(tmp_path / "file") as path:
        name = add(inside, {"type": "os", "command": "true"}, variables={"p": {"secret": True, "file": str(path)}})
        end = inside.ok("EXEC %s -SYNC -TIMEOUT=0.3" % name)
        assert end["status"] == "ERROR" and "time-out of the session after 0.3 s" in end["message"]
        session = inside.ok("EXEC %s" % name)["session"]
        inside.wait_status(session, "RUNNING")
        inside.ok("STOP %s -IMMEDIATE" % session)
        inside.wait_status(session, "STOPPED")
        inside.import_document({"data_servers": [{"name": "MAIL", "driver": "smtp", "connect": {
            "host": "127.0.0.1", "password": {"file": str(path)}}}]})
        done = run(inside, {"type": "mail", "to": ["a@b"], "subject": "s", "timeout": 0.3})
        assert done.status == "ERROR" and "time-out of the task" in done.message
        inside.ok("EXEC %s" % name)
        inside.stop()                   # ends too


@pytest.mark.parametrize("kind", ["program", "interpreter", "path"])
def test_a_program_on_a_mount_that_hangs(inside, tmp_path, kind):
    """The agent goes on meanwhile, whose process this is; and when the mount is back, nothing is started."""
    ran, script = tmp_path / "ran", tmp_path / "script"
    with hanging(tmp_path / "file", "#!/bin/sh\necho ran > %s\n" % ran) as path:
        script.write_text("#!%s\n" % path)
        script.chmod(0o755)
        task = {"type": "os", "command": [{"program": str(path), "interpreter": str(script), "path": "file"}[kind]],
                "env": {"PATH": str(tmp_path)}}
        done = run(inside, task, timeout=0.3)
        assert done.status == "ERROR" and "time-out of the session after 0.3 s" in done.message
        assert done.message.endswith("what was under way cannot be ended")
        session = begin(inside, task)
        assert inside.ok("PING")["running"] == "1"
        if kind == "path":
            assert stop(inside, session).tasks[0]["status"] == "STOPPED"
        inside.stop()                   # ends, too
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("wait")],
             "what was left behind to end")
    assert not ran.exists()


class Hurried(program.Clock):
    """A clock on which four seconds go by at each look at what is interrupted."""
    ahead = 0

    def monotonic(self):
        return super().monotonic() + self.ahead

    def interrupt(self):
        self.ahead += 4


def test_what_cannot_be_interrupted_is_left_behind():
    """SQL on a mount that hangs."""
    clock, is_over = Hurried(), threading.Event()
    control = program.Control(clock, "uuid/1001")
    control.stop(program.IMMEDIATE, "stopped")
    with pytest.raises(program.Interrupted) as caught:
        control.call(lambda: is_over.wait(60), clock.interrupt)
    assert clock.ahead > program.KILL_S and caught.value.message == "stopped; what was under way cannot be ended"
    assert program.NOT_ENDED in caught.value.message        # by which the reply to STOP says it
    with pytest.raises(program.Interrupted) as caught:
        control.call(lambda: is_over.wait(60), is_over.set)
    assert caught.value.message == "stopped"
    assert program.Control(clock, "uuid/1001").call(lambda: 7) == 7


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_files_that_are_none(inside, tmp_path, kind):
    """Refused, where they are read to their end or would be replaced; what waits for a pipe can be stopped."""
    path = str(tmp_path / "pipe") if kind == "pipe" else "/dev/zero"
    if kind == "pipe":
        os.mkfifo(path)
    change(tmp_path / "x.db", "create table t (a)")
    define(inside, X=tmp_path / "x.db")
    inside.import_document({"data_servers": [{"name": "MAIL", "driver": "smtp", "connect": {"host": "127.0.0.1"}}]})
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "file").write_text("x")
    tasks = [
        {"type": "copy", "from": path, "to": str(tmp_path / "b")},
        {"type": "zip", "from": path, "to": str(tmp_path / "b")},
        {"type": "unzip", "from": path, "to": str(tmp_path / "b")},
        {"type": "mail", "to": ["a@b"], "subject": "s", "attach": [path]},
        {"type": "copy", "from": str(tmp_path / "file"), "to": path},
        {"type": "unload_csv", "schema": "X", "query": "select 1", "file": path}]
    if kind == "pipe":
        os.mkfifo(str(folder / "pipe"))
        tasks += [{"type": "zip", "from": str(folder), "to": str(tmp_path / "b")},
                  {"type": "copy", "from": str(folder), "to": str(tmp_path / "b")}]
    else:
        tasks += [{"type": "load_csv", "file": path, "schema": "X", "table": "t"}]
    steps = [{"name": "s%d" % place, "tasks": [task], "on_error": "s%d" % (place + 1)}
             for place, task in enumerate(tasks)]
    steps += [{"name": "s%d" % len(tasks), "tasks": [{"type": "set", "variable": "v", "value": "x"}]}]
    done = run(inside, steps=steps, variables={"v": ""}, timeout=60)
    assert done.status == "WARNING", done.message
    for task, row in zip(tasks, done.tasks):
        assert row["status"] == "ERROR", row
        assert any(words in row["message"] for words in (
            "no regular file", "named pipe", "is a device", "there is no file to pack")), row
    assert not (tmp_path / "b").exists() and os.path.exists(path)


def test_a_task_that_waits_for_a_pipe_is_stopped(inside, tmp_path):
    os.mkfifo(str(tmp_path / "pipe"))
    change(tmp_path / "x.db", "create table t (a)")
    define(inside, X=tmp_path / "x.db")
    for task in [{"type": "load_csv", "file": str(tmp_path / "pipe"), "schema": "X", "table": "t"},
                 {"type": "python", "file": str(tmp_path / "pipe")}]:
        done = run(inside, task, timeout=1)
        assert done.status == "ERROR" and "time-out of the session" in done.message


# -- size ------------------------------------------------------------------------------

FITS, EXCEEDS = "x" * 65534 + "\u00e9", "x" * 65535 + "\u00e9"      # bytes are counted, not characters


@pytest.mark.parametrize("give", [
    lambda text, path: {"type": "os", "command": ["cat", path], "capture": "v"},
    lambda text, path: {"type": "python", "code": "print(open(%r, encoding='utf-8').read(), end='')" % path,
                        "capture": "v", "env": {"PYTHONIOENCODING": "utf-8"}},
    lambda text, path: {"type": "set", "variable": "v", "value": text},
    lambda text, path: {"type": "set", "variable": "v", "value": "${w}" * 2 + text[60000:]},
    lambda text, path: {"type": "refresh", "variable": "v", "schema": "X", "query": "select '%s'" % text}],
    ids=["os", "python", "set", "set from others", "refresh"])
def test_how_much_a_variable_takes(inside, tmp_path, give):
    define(inside, X=tmp_path / "x.db")
    for text in (FITS, EXCEEDS):
        (tmp_path / "value").write_bytes(text.encode())
        done = run(inside, give(text, str(tmp_path / "value")), variables={"v": "", "w": "x" * 30000})
        if text == FITS:
            assert (done.status, done.values["v"]) == ("DONE", text), done.message[:200]
        else:
            assert done.status == "ERROR" and "65536 bytes" in done.message and done.values["v"] == ""


def test_a_value_of_a_hundred_million_bytes(inside, tmp_path):
    define(inside, X=tmp_path / "x.db")
    for query_text in ("select hex(zeroblob(60000000))", "select zeroblob(120000000)"):
        done = run(inside, {"type": "refresh", "variable": "v", "schema": "X", "query": query_text}, variables={"v": ""})
        assert done.status == "ERROR" and "65536 bytes" in done.message and done.values["v"] == ""
    assert max(map(len, inside.ask("STATUS %s" % done.session))) < 1000


def test_what_a_task_held_is_gone_with_it(inside, tmp_path):
    """Without a garbage collection."""
    define(inside, X=tmp_path / "x.db")
    task = {"type": "refresh", "variable": "v", "schema": "X", "query": "select hex(zeroblob(20000000))"}
    gc.collect()
    gc.disable()
    try:
        before = resident_kib()
        assert run(inside, task, variables={"v": ""}).status == "ERROR"
        assert wait_for(lambda: resident_kib() - before < 20000, "its 40 MB to be gone", 10)
    finally:
        gc.enable()


def resident_kib():
    """What this process has in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


def test_texts_that_values_would_make_enormous(inside):
    done = run(inside, {"type": "set", "variable": "v", "value": "${w}" * 1000},
               {"type": "os", "command": "true", "stdin": "${w}" * 1000}, variables={"v": "", "w": "x" * 65000})
    assert done.status == "ERROR" and "characters with the values of its variables" in done.message


def test_values_that_are_given(make_inside, tmp_path):
    """By EXEC, RESTART, definitions and schedules."""
    inside = make_inside("--max-line", "1000000").start()
    name = add(inside, {"type": "os", "command": "exit $VAR_w"}, variables={"v": "", "w": "1"})
    end = inside.ok("EXEC %s v=%s -SYNC" % (name, FITS))
    for request in ("EXEC %s" % name, "RESTART %s" % end["session"],
                    'SCHED ADD S %s 1 GLOBAL "daily at 02:00"' % name):
        last = inside.ask("%s v=%s" % (request, EXCEEDS))[-1]
        assert last.startswith("ERR BAD_REQUEST v: has over 65536 bytes"), last[:200]
        assert inside.ask("%s v=%s" % (request, FITS))[-1].startswith("OK"), request
    assert inside.ask("SCHED SET S v=%s" % EXCEEDS)[-1].startswith("ERR BAD_REQUEST")
    lines = inside.ask("IMPORT '%s'" % program.json.dumps({
        "scenarios": [{"name": "A", "version": "1", "variables": {"v": EXCEEDS}, "steps": [{"name": "s", "tasks": [
            {"type": "scenario", "name": "B", "variables": {"v": EXCEEDS}}]}]}],
        "schedules": [{"name": "T", "scenario": name, "rule": "daily at 02:00", "variables": {"v": EXCEEDS}}]}))
    assert sorted(line.split(":")[0] for line in lines if "has over 65536 bytes" in line and line[0] == "*") == [
        "* scenarios[0].steps[0].tasks[0].variables.v", "* scenarios[0].variables.v", "* schedules[0].variables.v"]


def test_the_rows_of_a_select_are_counted_one_by_one(inside, tmp_path):
    """Not held: 30,000 of 20 KB."""
    define(inside, X=tmp_path / "x.db")
    many = ("with recursive c(n) as (select 1 union all select n + 1 from c where n < 30000) "
            "select n, hex(zeroblob(10000)) from c")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = run(inside, {"type": "sql", "schema": "X", "statement": many}, {"type": "sql", "schema": "X", "script": many})
    assert [task["rows"] for task in done.tasks] == ["30000", "30000"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50000
