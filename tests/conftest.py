"""What the tests share: real agents as processes of their own on a free port, spoken to over TCP.

A transcript reads `agent.send("PING")` and `agent.expect("OK agent=AGENT *")`; `*` stands for any text.
"""
import fnmatch
import functools
import importlib.machinery
import json
import logging
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

AGENT = TOP / "agent.py"
LIMIT_S = 60            # generous: the machine may be slow and noisy

# `python FILE ...`, but that the byte-code of __pycache__ is taken where it is the file's, as an import takes it: to
# compile agent.py is most of what its start costs. CODE_FD says that it need not start over to be lean.
BOOT = ("import importlib.machinery as m, sys; del sys.argv[0]; __file__ = sys.argv[0]; CODE_FD = None; "
        "sys.path[0] = __file__.rpartition('/')[0]; "
        "exec(m.SourceFileLoader('__main__', __file__).get_code('__main__'))")


def keep_byte_code():
    """Lets Python put the byte-code of agent.py into __pycache__, also under PYTHONDONTWRITEBYTECODE."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        importlib.machinery.SourceFileLoader("agent", str(AGENT)).get_code("agent")
    finally:
        sys.dont_write_bytecode = before


keep_byte_code()
import agent as program         # noqa: E402 (with its byte-code)


def wait_for(condition, what="the condition", limit_s=LIMIT_S):
    """Polls, quickly at first, until condition() is true and returns its value."""
    until, pause_s = time.monotonic() + limit_s, 0.01
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, "timed out waiting for %s" % what
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, 0.1)


def why(agent, name):
    """The occurrences, oldest first."""
    return agent.rows("SCHED WHY %s -LIMIT=10000" % name)[::-1]


def sessions_of(agent, name):
    """The sessions of a schedule, oldest first."""
    return agent.rows("SESSIONS -SCHEDULE=%s -LIMIT=10000" % name)[::-1]


def ahead(request, ahead_s=2):
    """request(instant), again with a later one until it has come back before its whole second: the machine may be
    slow. -> (instant, what it gave)"""
    while True:
        instant = int(time.time()) + ahead_s
        value = request(instant)
        if time.time() < instant:
            return instant, value
        ahead_s *= 2


def local(instant):
    """A whole second in a form of requests, in local time."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(instant))


@functools.lru_cache(None)
def turn_s():
    """Processor time of one turn of an empty loop here."""
    found = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(200000):
            pass
        found.append((time.process_time() - begun) / 200000)
    return max(found)


def turns_of(work):
    """(its value, its cost in turns of an empty loop): as much as it does, however fast the machine is."""
    turn_s()
    begun = time.process_time()
    value = work()
    return value, (time.process_time() - begun) / turn_s()


def is_alive(pid):
    """Whether a process exists and is no zombie."""
    try:
        text = pathlib.Path("/proc/%d/stat" % pid).read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def resident_mb(pid):
    """VmRSS of a process in MB."""
    text = pathlib.Path("/proc/%d/status" % pid).read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) / 1024.0


def fields_of(line):
    """`OK a=1 b="x y"` -> {"a": "1", "b": "x y"}."""
    found = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)', line)
    return {key: json.loads(value) if value.startswith('"') else value for key, value in found}


class Dialogue:
    """What tests ask of an agent, whatever way ask(line) has to it -> the lines of the reply."""

    def ok(self, line):
        """The fields of the OK line; fails on ERR."""
        last = self.ask(line)[-1]
        assert last.startswith("OK"), "%s -> %s" % (line, last)
        return fields_of(last)

    def rows(self, line):
        """The data lines of a reply as dicts of their fields."""
        lines = self.ask(line)
        assert lines[-1].startswith("OK"), lines
        return [fields_of(row) for row in lines[:-1]]

    def err(self, line):
        """The code of the ERR line; fails on OK."""
        last = self.ask(line)[-1]
        assert last.startswith("ERR "), "%s -> %s" % (line, last)
        return last.split()[1]

    def import_document(self, document, options=""):
        """IMPORT of a dict."""
        return self.ok("IMPORT '%s' %s" % (json.dumps(document).replace("'", "\\u0027"), options))

    def import_os(self, name, *commands, **scenario):
        """Imports scenario NAME 1 with a step of os tasks; further fields by keyword."""
        steps = [{"name": "main", "tasks": [{"type": "os", "command": c} for c in commands]}]
        return self.import_document({"scenarios": [dict({"name": name, "version": "1",
                                                         "steps": steps}, **scenario)]})

    def status(self, session):
        """The fields of a session's own line."""
        return self.rows("STATUS %s" % session)[0]

    def wait_status(self, session, *statuses):
        """Waits until a session has one of these states -> its fields."""
        def found():
            row = self.status(session)
            return row["status"] in statuses and row
        return wait_for(found, "session %s to be %s" % (session, statuses))

    def log_texts(self, session):
        """What the tasks of a session printed, without time and place."""
        return [line.split(" ", 4)[4] if line.count(" ") >= 4 else ""
                for line in self.ask("LOG %s" % session)[:-1]]


class Client(Dialogue):
    """One connection, line by line."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
        self._file = self.socket.makefile("rb")

    def send_raw(self, data):
        self.socket.sendall(data)

    def send(self, line):
        self.send_raw(line.encode() + b"\n")

    def line(self):
        """The next line without its end; empty at the end of input."""
        return self._file.readline().decode().rstrip("\n")

    def reply(self):
        """All lines of the next reply; the last begins with OK or ERR."""
        lines = []
        while True:
            line = self._file.readline().decode()
            assert line, "the connection was closed after %r" % lines
            lines.append(line.rstrip("\n"))
            if re.match(r"(OK|ERR)\b", line):
                return lines

    def ask(self, line):
        """send and reply."""
        self.send(line)
        return self.reply()

    def expect(self, *patterns):
        """The next reply's lines match these patterns, one each."""
        return check_lines(self.reply(), patterns)

    def close(self):
        self._file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def check_lines(lines, patterns):
    """These lines match these patterns, one each -> the lines."""
    assert len(lines) == len(patterns) and all(
        fnmatch.fnmatchcase(line, escape(pattern)) for line, pattern in zip(lines, patterns)), \
        "expected %r, got %r" % (patterns, lines)
    return lines


def escape(pattern):
    """Only `*` is special in a pattern."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


class AgentProcess(Dialogue):
    """An agent as a user runs it: python agent.py ..., in a folder of the test's own. Started with BOOT, unless it
    is to be `plain`; by the words of `launcher`, where there are any."""

    def __init__(self, folder, *options, python=sys.executable, port=0, env=None, is_default=False, plain=False,
                 launcher=()):
        self.folder = pathlib.Path(folder)
        self.master = self.folder / "master.db"
        self.work = self.folder / "workrep.db"
        self.options, self.python, self._port, self.env = list(options), python, port, env
        if not is_default:
            self.options += ["--master", str(self.master), "--create"]
        self.process = self.client = self.port = None
        self.script, self._is_plain, self._launcher = AGENT, plain, list(launcher)
        self.log_path = self.folder / "agent.log"

    def start(self, is_ready=True):
        """Starts it and waits until it says that it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        begun = self.log_path.stat().st_size if self.log_path.exists() else 0
        is_plain = self._is_plain or self.script != AGENT
        command = self._launcher + [self.python] + ["-X", "dev", "-W", "error"] * (sys.version_info >= (3, 7)) + \
            ["-c", BOOT] * (not is_plain) + [str(self.script), "--port", str(self._port)] + self.options
        environment = dict(os.environ, **(self.env or {}))
        with open(str(self.log_path), "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment, cwd=str(self.folder))
        if is_ready:
            def ready():
                assert self.process.poll() is None, self.log()
                return re.search(r"ready on \S+:(\d+)", self.log()[begun:])
            self.port = int(wait_for(ready, "the agent to be ready").group(1))
            self.client = Client(self.port)
        return self

    def log(self):
        """All that the agent said on stderr so far: a thread of its own writes it, soon."""
        text = None
        while text != self.log_path.read_bytes():
            text = self.log_path.read_bytes()
            time.sleep(0.05)
        return text.decode("utf-8", "replace")

    def connect(self):
        """Another connection."""
        return Client(self.port)

    def send(self, line):
        self.client.send(line)

    def expect(self, *patterns):
        return self.client.expect(*patterns)

    def ask(self, line):
        """The lines of the reply to a request."""
        return self.client.ask(line)

    def kill(self):
        """kill -9, at once."""
        self.process.kill()
        self.process.wait()
        self._close()

    def stop(self, sig=signal.SIGTERM):
        """Stops it by a signal -> exit code."""
        self.process.send_signal(sig)
        return self.wait()

    def wait(self):
        """Waits for its exit -> exit code."""
        code = self.process.wait(LIMIT_S)
        self._close()
        return code

    def _close(self):
        if self.client:
            self.client.close()
            self.client = None

    def finish(self):
        """Whatever the test left."""
        if self.process and self.process.poll() is None:
            if self.client:
                try:
                    # at its limit it may not have noticed yet that a connection has gone
                    wait_for(lambda: self.connect().ask("SHUTDOWN -IMMEDIATE")[-1] == "OK", "a place among the connections")
                    self.process.wait(LIMIT_S)
                except (OSError, AssertionError, subprocess.TimeoutExpired):
                    pass
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        self._close()


class AgentInside(Dialogue):
    """An agent in the test's own process, and one conversation with it: no socket, no start of Python. The test need
    not wait for a time to come: let_pass()."""

    def __init__(self, folder, *options):
        from support.clock import HurriedClock
        self.folder, self.options, self.clock = pathlib.Path(folder), options, HurriedClock()
        self.master, self.work = self.folder / "master.db", self.folder / "workrep.db"
        self.agent = self._conversation = None
        self._replies = []              # to what was sent
        self._handler = Recorder()
        program.log.addHandler(self._handler)

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = program.parse_arguments(("--master", str(self.master), "--create") + self.options)
        self.agent = program.Agent(settings, self.clock)
        self.agent.start("127.0.0.1", 0)
        self._conversation = program.Conversation(self.agent, program.Client(program.ADMINISTRATOR, "test"))
        return self

    def ask(self, line):
        """The lines of the reply to a request."""
        return [text for text in self._conversation.begin(line.encode()).chunks() if text is not program.FLUSH]

    def send(self, line):
        self._replies.append(self.ask(line))

    def expect(self, *patterns):
        """The next reply's lines match these patterns, one each."""
        return check_lines(self._replies.pop(0), patterns)

    def now(self):
        """Seconds since 1970, by the clock of the agent."""
        return self.clock.now()

    def let_pass(self, seconds):
        """So many seconds are over, also while it is stopped. What comes due in them has come up and is written,
        unless it is held."""
        self.clock.passed += seconds
        if self.agent is not None:
            for session in self.agent.queue.list_running():
                session._control.wake()
            self._settle()

    def _settle(self):
        """Waits until what is due by now has come up and is written."""
        scheduler, has_come, now = self.agent.schedules.scheduler, threading.Event(), self.now()

        def is_settled():
            return all(entry.asked is None and (entry.due is None or entry.due > now)
                       for repository in self.agent.places.list_open()
                       for entry in scheduler.list_entries(repository.id))
        scheduler.call_at(now, has_come.set)
        scheduler.call_at(0.0, lambda: None)        # it sleeps until a time that may be over
        assert has_come.wait(LIMIT_S)
        wait_for(is_settled, "what is due to be decided")

    def let_pass_until(self, instant):
        self.let_pass(max(0.0, instant - self.now()))

    def log(self):
        """All that the agent has told so far."""
        return "\n".join(self._handler.lines)

    def stop(self):
        """Ends what runs, leaves what is outstanding, as SHUTDOWN -IMMEDIATE does."""
        if self.agent is not None:
            self.agent.close()
            self.agent = None

    def finish(self):
        """Whatever the test left."""
        self.stop()
        program.log.removeHandler(self._handler)


class Recorder(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Starts AgentProcesses that last until the last test of this file: make("folder", "--name", "A")."""
    made, top = [], tmp_path_factory.mktemp("agents")

    def start(folder, *options, **keywords):
        made.append(AgentProcess(top / folder, *options, **keywords))
        return made[-1].start()
    yield start
    for agent in made:
        agent.finish()
    for agent in made:
        assert "Traceback" not in agent.log() and "Warning:" not in agent.log(), agent.log()


@pytest.fixture(scope="module")
def shared(make):
    """One running agent for the tests of a file that leave nothing behind."""
    return make("shared")


@pytest.fixture
def make_agent(tmp_path):
    """Makes AgentProcesses, not yet started: make_agent("--max-sessions", "1", folder="a")."""
    made = []

    def make(*options, folder="repo", **keywords):
        made.append(AgentProcess(tmp_path / folder, *options, **keywords))
        return made[-1]
    yield make
    for agent in made:
        agent.finish()
        log = agent.log() if agent.log_path.exists() else ""
        assert "Traceback" not in log and "Warning:" not in log, log


@pytest.fixture
def agent(make_agent):
    """A running agent with fresh repositories."""
    return make_agent().start()


@pytest.fixture(scope="module")
def shared_inside(tmp_path_factory):
    """One running agent in the tests' own process for those of a file that leave nothing behind."""
    running = AgentInside(tmp_path_factory.mktemp("inside")).start()
    yield running
    running.finish()
    assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def make_inside(tmp_path):
    """Makes AgentInsides, not yet started: make_inside("--max-sessions", "1", folder="a")."""
    made = []

    def make(*options, folder=""):
        made.append(AgentInside(tmp_path / folder, *options))
        return made[-1]
    yield make
    for agent in made:
        agent.finish()
        assert "Traceback" not in agent.log(), agent.log()


@pytest.fixture
def quick_hashes(monkeypatch):
    """Passwords are hashed as ever, in a hundredth of the time."""
    monkeypatch.setattr(program, "PBKDF2_ROUNDS", 1000)
    monkeypatch.setattr(program, "SCRYPT_COST", 1 << 8)


@pytest.fixture
def inside(make_inside):
    """A running agent in the test's own process, with fresh repositories."""
    return make_inside().start()


@pytest.fixture
def output():
    """The output thread of an agent."""
    made = program.Output()
    yield made
    made.close()


@pytest.fixture
def site(tmp_path):
    """The schedules of an agent without threads, the clock in the test's hand."""
    from support.site import Site
    made = Site(tmp_path)
    yield made
    made.stop()
