#!/usr/bin/env python3
"""Kills agent.py again and again under load, and counts what of its promises did not hold.

    python tools/torture.py [--rounds N] [--seconds S] [--seed N] [--folder PATH]
    python tools/torture.py --load SECONDS [--folder PATH]

A round: the agent is started, works under load for S seconds on average (0.7), and is killed with -9; in one of five
it is killed while it starts, too. The load: sessions of every `on_stale`, children, a limit, load plans of three levels
with loops, failures, attempts and exceptions, one of them in another, schedules `every 1s`, processes that leave their
group and ignore SIGTERM, EXEC with keys and for later, STOP, RESTART, and another program that locks the files and
commits to them. An owner asks, and by TLS (plainly where there is no openssl) an operator, one
who is narrowed, a monitor, and an administrator, who adds, changes and deletes users, holds and releases the agent, and
switches a schedule. After the last round all that is open has to end, and this is counted:

    amid plans          kills while a load plan ran
    acknowledged        requests whose OK was read: EXEC, RESTART, STOP, USERS, HOLD, RELEASE, SCHED ON and OFF, and
                        commits of the other program
    lost                what of these is not on disk; due times of schedules that nobody decided
    doubled             tasks that began more often than is recorded, or beside themselves; a second session for a key,
                        a due time, a parent's task, or an attempt of a plan's node; tasks of a plan's sessions that
                        ended well twice
    left alive          processes of sessions that have ended
    open for ever       sessions that do not end
    plans               those that have not ended as their definition says by how their sessions ended, or have ended
                        before these, or lack a node or a value
    faults              tracebacks, damaged files, starts and stops that failed, broken links of the audit's chain,
                        users who were let in to what is not theirs, or not to what is

Each 50 rounds a line tells how far it is. SIGINT and SIGTERM end it after the round, and what it has is counted.

Exit status: 0 all but the first three are 0, 1 otherwise: then the folder is kept, and each is told.

With --load nothing is killed: after as many seconds the agent's memory, descriptors, threads and -wal are shown as
they went.
"""
import argparse
import calendar
import collections
import contextlib
import functools
import glob
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT_S = 60            # for what takes a second on a quiet machine
SLOTS = 24
ENOUGH = 60             # sessions that run or wait: no more is asked for
SCHEDULES = {"EACH": "ONCE", "BESIDE": "AGAIN", "ALL": "LIMITED"}
SWITCHED = "SWITCHED"   # a schedule that is switched on and off
NARROWED = "NARROWED"
USERS = collections.OrderedDict((           # name: (role, its scenarios); the password of each is made of its name
    ("OPERATOR", ("operator", "")), (NARROWED, ("operator", "*KEPT,BAD")), ("MONITOR", ("monitor", "")),
    ("OFFICER", ("administrator", ""))))
ASKING = None, "OPERATOR", NARROWED         # users for whom a Client asks; None: the owner
LOOKS = ("PING", "SESSIONS -LIMIT=20", "SCENARIOS", "SCHED LIST", "SCHED WHY EACH -LIMIT=10", "METRICS", "EXPORT")
REFUSED = ("EXEC ONCE", "HOLD", "USERS LIST", "USERS DEL OFFICER", "SCHED OFF EACH", "SHUTDOWN -IMMEDIATE", "AUDIT")
COUNTS = "rounds", "amid plans", "acknowledged", "lost", "doubled", "left alive", "open for ever", "plans", "faults"
# what EXEC is asked for, as often as it stands here; a TREE that a kill leaves costs the next start two seconds
SCENARIOS = 4 * ("ONCE", "AGAIN", "KEPT", "LIMITED", "BAD", "CALLS_AGAIN", "CALLS_KEPT", "CALLS_LIMITED") + (
    "TREE", "PLAN", "PLAN", "PLAN_BAD", "PLAN_BAD")

# `python agent.py ...`, but from the byte-code in __pycache__: to compile it is most of what a start costs
BOOT = ("import importlib.machinery as m, sys; del sys.argv[0]; __file__ = sys.argv[0]; CODE_FD = None; "
        "sys.path[0] = __file__.rpartition('/')[0]; "
        "exec(m.SourceFileLoader('__main__', __file__).get_code('__main__'))")

# A task notes that it begins, and whether what it is alone for (its own run before, or its limit) still lives.
TASK = """if read p < at.%(alone)s && grep -qz "^AGENT_MARKER=" /proc/$p/environ; then
echo "beside $SESSION %(place)s" >> marks; fi 2>/dev/null
echo $$ > at.%(alone)s; echo "begin $SESSION %(place)s" >> marks; %(work)s"""
WORK = "echo from $SESSION; sleep $VAR_s"
OWN = "$SESSION.%s"

PLANS = {
    "PLAN": {"serial": [
        {"run": "AGAIN"},
        {"for_each": {"variable": "v", "in": ["1", "2", "3", "4"]}, "parallel": 3, "max_errors": 1, "attempts": 2,
         "do": {"serial": [
             {"run": "KEPT", "keywords": "v${v}"},
             {"parallel": [{"run": "AGAIN"}, {"run": "LIMITED"}, {"run": "BAD", "variables": {"rc": "0"}}]}]}},
        {"case": {"variable": "rc", "when": [{"operator": "=", "value": "0", "do": {"run": "ONCE"}}],
                  "else": {"run": "PLAN_BAD"}}}],
        "exception": {"run": "AGAIN"}},
    "PLAN_BAD": {
        "for_each": {"variable": "v", "in": ["0", "3", "0", "4", "0"]}, "parallel": 2, "max_errors": 1, "attempts": 2,
        "do": {"run": "BAD", "variables": {"rc": "${v}"}, "restart": "session"},
        "exception": {"run": "AGAIN"}, "on_exception": "ignore"}}
TREE = """(setsid sh -c 'trap "" TERM; sleep 301; sleep 302' > /dev/null 2>&1 &); trap '' TERM; sleep 303; sleep 304"""


# ---- the load --------------------------------------------------------------------------------------------------------

def make_steps(*steps):
    """Steps of a scenario; a step is a list of tasks: shell commands, or names of scenarios in a tuple."""
    rows = []
    for number, tasks in enumerate(steps):
        rows.append({"name": "s%d" % number, "tasks": []})
        for index, task in enumerate(tasks):
            place = "%d.%d" % (number, index)
            if isinstance(task, tuple):
                rows[-1]["tasks"].append({"type": "scenario", "name": task[0], "variables": {"s": "${s}"}})
            else:
                alone = "limit" if task.startswith("echo limited") else OWN % place
                rows[-1]["tasks"].append({"type": "os", "command": TASK % {
                    "alone": alone, "place": place, "work": task}})
    return rows


def make_document():
    """The scenarios and schedules of the load."""
    def scenario(name, steps, **fields):
        return dict({"name": name, "version": "1", "variables": {"s": "0.1", "rc": "1"}, "steps": steps}, **fields)
    once, limited = make_steps([WORK]), make_steps(["echo limited; sleep 0.05"])
    one_at_once = {"limit": 1, "on_limit": "wait"}
    scenarios = [
        scenario("ONCE", once),
        scenario("AGAIN", make_steps([WORK, WORK], [WORK]), on_stale="restart"),
        scenario("KEPT", make_steps([WORK, WORK]), on_stale="adopt"),
        scenario("LIMITED", limited, on_stale="restart", concurrency=one_at_once),
        scenario("BAD", make_steps(["exit $VAR_rc"])),
        scenario("TREE", make_steps([TREE]), timeout=2)]
    scenarios += [scenario("CALLS_" + name, make_steps([WORK, (name,)], [WORK]), on_stale="restart")
                  for name in ("AGAIN", "KEPT", "LIMITED")]
    scenarios += [{"name": name, "version": "1", "variables": {"s": "0.1", "rc": "1"}, "plan": plan}
                  for name, plan in PLANS.items()]
    every = [dict({"name": name, "scenario": scenario, "version": "-1", "context": "GLOBAL", "rule": "every 1s",
                       "timezone": "UTC"}, **options)
                 for (name, scenario), options in zip(sorted(SCHEDULES.items()), (
                     {"misfire": "all", "overlap": "skip"}, {"overlap": "parallel"}, {}))]
    return {"scenarios": scenarios, "schedules": every + [dict(every[0], name=SWITCHED, scenario="KEPT")]}


def make_certificate(folder):
    """The path of a certificate with its key, made by openssl; None: that is not there."""
    path = os.path.join(folder, "agent.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
               "-keyout", path + ".key", "-out", path]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return path


def password_of(user):
    """What a user says in AUTH."""
    return "the word of %s" % user


class Agent:
    """agent.py as a process with its repositories in a folder; its log is agent.log there."""

    def __init__(self, folder, program, python, is_plain):
        self.folder, self.process, self.port = folder, None, None
        program = shutil.copy(program, folder)      # that which is there now, whatever comes of it meanwhile
        self.work, self.master = (os.path.join(folder, name) for name in ("workrep.db", "master.db"))
        self.certificate = make_certificate(folder)
        self._command = [python] + ["-c", BOOT] * (not is_plain) + [
            program, "--port", "0", "--master", self.master, "--create", "--max-sessions", str(SLOTS)]
        if self.certificate:
            self._command += ["--tls-cert", self.certificate, "--tls-key", self.certificate + ".key"]

    def begin(self):
        """Starts it and waits for nothing."""
        self.port = None
        with open(os.path.join(self.folder, "agent.log"), "ab") as log:
            self._begun = log.tell()
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.folder)

    def start(self):
        """Starts it and waits until it is ready."""
        self.begin()

        def find_port():
            with open(os.path.join(self.folder, "agent.log"), "rb") as log:
                log.seek(self._begun)
                return re.search(br"ready on \S+:(\d+)", log.read()) or self.process.poll() is not None
        match = wait_for(find_port)
        if not match or match is True:
            raise Fault("the agent does not start")
        self.port = int(match.group(1))

    def kill(self):
        """kill -9."""
        self.port = None
        self.process.kill()
        self.process.wait()

    def stop(self):
        """In good order -> exit code, or None when it does not end."""
        self.process.send_signal(signal.SIGTERM)
        wait_for(lambda: self.process.poll() is not None)
        return self.process.poll()

    def converse(self, user=None, password=None):
        """A connection: ask(line) -> its lines; OSError when the agent is gone. A user comes by TLS where he can, and
        says who he is; Refused when that is not taken."""
        if self.port is None:
            raise OSError("there is no agent")
        connection = Connection(self.port, self.certificate if user else None)
        if user:
            try:
                line = connection.ask("AUTH %s '%s'" % (user, password or password_of(user)))[-1]
                if not line.startswith("OK"):
                    raise Refused("AUTH of %s: %s" % (user, line))
            except BaseException:
                connection.close()
                raise
        return connection

    def query(self, sql, *values):
        """Rows of the work repository, as another program reads them."""
        return self._query(self.work, sql, values)

    def query_master(self, sql, *values):
        """Rows of the master."""
        return self._query(self.master, sql, values)

    @staticmethod
    def _query(path, sql, values):
        with contextlib.closing(sqlite3.connect(path, timeout=LIMIT_S)) as connection:
            return connection.execute(sql, values).fetchall()


class Fault(Exception):
    """What ends the driving at once."""


class Refused(Exception):
    """A user was not let in."""


class Connection:
    """One connection to an agent; with the path of its certificate by TLS."""

    def __init__(self, port, certificate=None):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
        if certificate:
            context = ssl.create_default_context(cafile=certificate)
            try:
                self._socket = context.wrap_socket(self._socket, server_hostname="localhost")
            except BaseException:
                self._socket.close()
                raise
        self._file = self._socket.makefile("rb")

    def ask(self, line):
        """The lines of the reply."""
        self._socket.sendall(line.encode() + b"\n")
        lines = []
        while not lines or not re.match(r"(OK|ERR)\b", lines[-1]):
            line = self._file.readline()
            if not line.endswith(b"\n"):
                raise OSError("the agent is gone")
            lines.append(line.decode().rstrip("\n"))
        return lines

    def close(self):
        """Closes it."""
        self._file.close()
        self._socket.close()


def wait_for(condition, limit_s=LIMIT_S):
    """Polls until condition() is true -> its value; the last one when the time is up."""
    until = time.monotonic() + limit_s
    while True:
        value = condition()
        if value or time.monotonic() > until:
            return value
        time.sleep(0.02)


class Ledger:
    """What the driver knows: what was acknowledged, and what must come of it. Of any thread."""

    def __init__(self):
        self.acknowledged = 0
        self.sessions = set()           # acknowledged
        self.keys = collections.defaultdict(set)    # key -> sessions that were given for it
        self.stopped = set()            # of which STOP said so, not restarted since
        self.restarted = {}             # session -> when its newest acknowledged RESTART was asked for
        self.touched = set()            # RESTART was asked for, acknowledged or not
        self.notes = set()              # numbers of commits of the other program
        self.states = {}                # (what, name) -> the state that was acknowledged last; not while it is changed
        self.faults = []                # what was allowed that must not be, or refused


class Asker(threading.Thread):
    """Asks for something as a user (None: the owner) again and again; goes on at the next start of the agent."""

    def __init__(self, agent, user, ledger, moments, pause_s):
        super().__init__(daemon=True)
        self.is_over = False
        self._agent, self._user, self._ledger, self._moments = agent, user, ledger, moments
        self._pause_s, self._connection = pause_s, None

    def run(self):
        """Until is_over."""
        while not self.is_over:
            try:
                self._connection = self._connection or self._agent.converse(self._user)
                self._act()
            except Refused as error:
                self._ledger.faults.append(str(error))
                return
            except OSError:
                if self._connection:
                    self._connection.close()
                self._connection = None
                time.sleep(0.02)
            time.sleep(self._moments.random() * 2 * self._pause_s)
        if self._connection:
            self._connection.close()

    def _act(self):
        """Asks for one thing."""
        raise NotImplementedError

    def _must(self, line, wanted):
        """Asks, and notes a reply that does not begin as it must."""
        reply = self._connection.ask(line)[-1]
        if not re.match(wanted, reply):
            self._ledger.faults.append("%s asked %s: %s" % (self._user, line, reply))


class Monitor(Asker):
    """Looks, which is allowed, and asks for what is not."""

    def _act(self):
        if self._moments.random() < 0.5:
            self._must(self._moments.choice(LOOKS), "OK")
        else:
            self._must(self._moments.choice(REFUSED), "ERR DENIED")


class Officer(Asker):
    """An administrator: adds, changes and deletes users, holds and releases the agent, switches a schedule."""

    def __init__(self, *more):
        super().__init__(*more)
        self._count, self._is_held = 0, True        # it may have been, when the agent was killed

    def _act(self):
        moments = self._moments
        draw = 1.0 if self._is_held and moments.random() < 0.5 else moments.random()       # it is held for short times
        users = [name for (what, name), state in list(self._ledger.states.items())
                 if what == "role" and state and name not in USERS]
        if draw < 0.2 or not users:
            self._count += 1
            role = moments.choice(("monitor", "operator", "administrator"))
            self._change("USERS ADD u%d -ROLE=%s" % (self._count, role), "role", "u%d" % self._count, role)
        elif draw < 0.35:
            name, role = moments.choice(users), moments.choice(("monitor", "operator"))
            self._change("USERS SET %s -ROLE=%s -SCENARIOS=BAD" % (name, role), "role", name, role)
        elif draw < 0.5:
            name, password = moments.choice(users), "a word %06d" % moments.randrange(10 ** 6)
            self._change("USERS PASSWORD %s '%s'" % (name, password), "password", name, password)
        elif draw < 0.6:
            name = moments.choice(users)
            self._ledger.states.pop(("password", name), None)
            self._change("USERS DEL %s" % name, "role", name, None)
        elif draw < 0.7:
            self._prove()
        elif draw < 0.85:
            word = moments.choice(("ON", "OFF"))
            self._change("SCHED %s %s" % (word, SWITCHED), "switch", SWITCHED, word == "ON")
        else:
            self._is_held = not self._is_held
            self._change("HOLD torture" if self._is_held else "RELEASE", "hold", "AGENT", self._is_held)

    def _change(self, line, what, name, state):
        """Asks, and notes the state that it was told."""
        states = self._ledger.states
        states.pop((what, name), None)
        reply = self._connection.ask(line)[-1]
        if reply.startswith("OK"):
            self._ledger.acknowledged += 1
            states[what, name] = state
        elif not reply.startswith("ERR BUSY"):
            self._ledger.faults.append("%s asked %s: %s" % (self._user, line, reply))

    def _prove(self):
        """Somebody who got a password is let in by it, with his role."""
        states = self._ledger.states
        for (what, name), password in sorted(states.items(), key=str):
            if what == "password" and states.get(("role", name)) is not None:
                with contextlib.closing(self._agent.converse(name, password)) as connection:
                    line = connection.ask("AUTH %s '%s'" % (name, password))[-1]
                if not line.endswith("role=" + states["role", name]):
                    self._ledger.faults.append("%s is let in as: %s" % (name, line))
                return


class Client(Asker):
    """Asks for sessions, stops and restarts those of its own."""

    def __init__(self, *more):
        super().__init__(*more)
        self._sessions, self._count, self._key = [], 0, None

    def _act(self):
        draw = self._moments.random()
        if self._key or draw < 0.7:
            self._execute()
        elif self._sessions and draw < 0.9:
            self._ask_stop(self._moments.choice(self._sessions[-30:]))
        elif self._sessions:
            self._ask_restart(self._moments.choice(self._sessions[-60:]))

    def _is_enough(self):
        """Whether the agent has enough to do for now."""
        counts = re.findall(r" (?:running|queued)=(\d+)", self._connection.ask("PING")[-1])
        return sum(map(int, counts)) > ENOUGH

    def _execute(self):
        """EXEC; with a key it is asked again until there is an answer, over a kill of the agent, too."""
        key, moments, ledger = self._key, self._moments, self._ledger
        if key is None and self._is_enough():
            return
        if key is None:
            options = " s=%.2f" % (moments.random() ** 3 * 0.6)
            if moments.random() < 0.1:
                options += time.strftime(" -AT=%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + moments.randint(1, 3)))
            if moments.random() < 0.3:
                self._count += 1
                options += " -KEY=k%s.%d" % (self._user, self._count)
            if moments.random() < 0.2:
                options += " -PRIORITY=%d" % moments.randint(-2, 2)
            request = "EXEC %s%s" % (moments.choice(SCENARIOS), options)
        else:
            request = key
        self._key = request if "-KEY" in request else None
        line = self._connection.ask(request)[-1]
        match = re.match(r"OK session=(\d+)", line)
        self._key = None
        if self._user == NARROWED and line.startswith("OK") != bool(re.match(r"EXEC (\w*KEPT|BAD)\b", request)):
            ledger.faults.append("%s asked %s: %s" % (self._user, request, line))
        if match:
            session = int(match.group(1))
            ledger.acknowledged += 1
            ledger.sessions.add(session)
            if "-KEY" in request:
                ledger.keys[request].add(session)
                if moments.random() < 0.3:          # asked once more
                    self._key = request
            if session not in self._sessions:
                self._sessions.append(session)

    def _ask_stop(self, session):
        line = self._connection.ask("STOP %d%s" % (session, self._moments.choice(("", " -IMMEDIATE"))))[-1]
        if line.startswith("OK") and "status=STOPPED" in line:
            self._ledger.acknowledged += 1
            self._ledger.stopped.add(session)

    def _ask_restart(self, session):
        ledger, now = self._ledger, time.time()
        ledger.touched.add(session)
        was_stopped = session in ledger.stopped
        ledger.stopped.discard(session)
        line = self._connection.ask("RESTART %d rc=0" % session)[-1]
        if line.startswith("OK"):
            ledger.acknowledged += 1
            ledger.restarted[session] = now
        elif was_stopped:
            ledger.stopped.add(session)


class OtherProgram(threading.Thread):
    """Locks the repositories for up to 0.4 s and commits to them."""

    def __init__(self, agent, ledger, moments):
        super().__init__(daemon=True)
        self.is_over = False
        self._agent, self._ledger, self._moments = agent, ledger, moments

    def run(self):
        """Until is_over."""
        number = 0
        while not self.is_over:
            time.sleep(self._moments.random() * 0.6)
            number += 1
            path = self._moments.choice((self._agent.work, self._agent.master))
            with contextlib.suppress(sqlite3.OperationalError), \
                    contextlib.closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as connection:
                connection.execute("begin immediate")
                if path == self._agent.work:
                    connection.execute("create table if not exists torture(number integer primary key)")
                    connection.execute("insert into torture values (?)", (number,))
                time.sleep(self._moments.random() ** 2 * 0.4)
                connection.execute("commit")
                if path == self._agent.work:
                    self._ledger.acknowledged += 1
                    self._ledger.notes.add(number)


class Load:
    """All that asks something of an agent, while it is open."""

    def __init__(self, agent, ledger, seed, pause_s=0.03):
        self._threads = [kind(agent, user, ledger, random.Random("%s.%s" % (seed, user)), pause_s) for kind, user in
                         [(Client, user) for user in ASKING] + [(Monitor, "MONITOR"), (Officer, "OFFICER")]]
        self._threads.append(OtherProgram(agent, ledger, random.Random("%s.other" % seed)))

    def __enter__(self):
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_):
        for thread in self._threads:
            thread.is_over = True
        for thread in self._threads:
            thread.join()


# ---- what became of it -----------------------------------------------------------------------------------------------

def list_processes(uuid):
    """{pid: session} of the living processes of a repository's sessions."""
    processes, start = {}, ("AGENT_MARKER=%s/" % uuid).encode()
    for path in glob.glob("/proc/[0-9]*/environ"):
        with contextlib.suppress(OSError, ValueError):
            with open(path, "rb") as file:
                environment = b"\0" + file.read()
            place = environment.find(b"\0" + start)
            if place >= 0:
                processes[int(path.split("/")[2])] = int(environment[place + 1 + len(start):].split(b"/", 1)[0])
    return processes


def list_left_alive(agent, uuid):
    """[(pid, session)] of processes whose session has ended; what is just ending gets a second."""
    suspects, until = None, time.monotonic() + 1.0
    while suspects != set() and time.monotonic() < until:
        alive = list_processes(uuid)
        open_sessions = {row[0] for row in agent.query(
            "select id from session where status in ('WAITING', 'QUEUED', 'RUNNING')")}
        now = {(pid, session) for pid, session in alive.items() if session not in open_sessions}
        suspects = now if suspects is None else suspects & now
        if suspects:
            time.sleep(0.1)
    return sorted(suspects)


def list_open(agent):
    """The sessions that have not ended."""
    return [row[0] for row in agent.query("select id from session where status in ('WAITING', 'QUEUED', 'RUNNING')")]


def find_lost(agent, ledger):
    """What was acknowledged, or due, and is not on disk."""
    rows = {row[0]: row[1:] for row in agent.query("select id, status, ended from session")}
    lost = ["session %d" % session for session in ledger.sessions - set(rows)]
    lost += ["STOP of session %d" % session for session in ledger.stopped & set(rows)
             if rows[session][0] != "STOPPED"]
    lost += ["RESTART of session %d" % session for session, asked in ledger.restarted.items()
             if session in rows and rows[session][1] is not None and parse_time(rows[session][1]) < asked - 0.01]
    lost += ["commit %d of the other program" % number for number in ledger.notes - {
        row[0] for row in agent.query("select number from torture")}] if ledger.notes else []
    begun = read_marks(agent)["begin"]
    lost += ["what session %d did" % session for session, in agent.query(
        "select id from session where status='DONE' and scenario not like 'PLAN%'") if (session, "0.0") not in begun]
    return lost + find_lost_due(agent, rows)


def find_lost_states(agent, states):
    """What was acknowledged of users, the schedule that is switched, and the hold, and is otherwise on disk."""
    found = {("role", name): role for name, role in agent.query_master("select name, role from user")}
    found["switch", SWITCHED] = agent.query("select enabled from schedule where name=?", SWITCHED) == [(1,)]
    found["hold", "AGENT"] = agent.query_master("select 1 from agent where hold_since is not null") != []
    return ["%s of %s: %s, not %s" % (key + (found.get(key), state)) for key, state in sorted(states.items(), key=str)
            if key[0] != "password" and found.get(key) != state]


def find_lost_due(agent, sessions):
    """Due times without a decision between the first and the last of a schedule, sessions of them that are gone."""
    lost = []
    for schedule in SCHEDULES:
        before = None
        for due, last, session in agent.query(
                "select due, last_due, session from occurrence where schedule=? order by due", schedule):
            due, last = parse_time(due), parse_time(last)
            if before is not None and due != before + 1:
                lost.append("%s: due times between %d and %d" % (schedule, before, due))
            if session is not None and session not in sessions:
                lost.append("%s: session %d" % (schedule, session))
            before = last
    return lost


def parse_time(text):
    """Time of a repository -> epoch seconds."""
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) + float("0" + text[19:].rstrip("Z"))


def read_marks(agent):
    """{"begin" or "beside": Counter of (session, place)}: what the tasks have noted."""
    marks = collections.defaultdict(collections.Counter)
    with contextlib.suppress(FileNotFoundError):
        with open(os.path.join(agent.folder, "marks")) as file:
            for line in file:
                what, session, place = line.split()
                marks[what][int(session), place] += 1
    return marks


def find_doubled(agent, ledger):
    """What was done twice."""
    marks, recorded = read_marks(agent), {}
    for session, place, count in agent.query("select session, step || '.' || task, count(*) from session_task"
                                             " group by 1, 2"):
        recorded[session, place] = count
    doubled = ["task %s of session %d: begun %d times, recorded %d times" % (
        place, session, count, recorded.get((session, place), 0))
        for (session, place), count in marks["begin"].items() if count > recorded.get((session, place), 0)]
    doubled += ["task %s of session %d beside another" % (place, session) for session, place in marks["beside"]]
    doubled += ["%s: sessions %s" % (key, sorted(sessions)) for key, sessions in ledger.keys.items()
                if len(sessions) > 1]
    doubled += ["%d sessions of key %s" % (count, key) for key, count in agent.query(
        "select key, count(*) from session where key is not null group by key having count(*) > 1")]
    doubled += ["%d children of session %d" % (count, parent) for parent, count in agent.query(
        "select parent, count(*) from session where parent is not null and node is null group by parent"
        " having count(*) > 1")
        if parent not in ledger.touched]
    doubled += ["%d sessions of %s due %s" % (count, schedule, due) for schedule, due, count in agent.query(
        "select schedule, due, count(*) from session where schedule is not null group by schedule, due"
        " having count(*) > 1")]
    return doubled + find_doubled_nodes(agent)


# ---- load plans ------------------------------------------------------------------------------------------------------

WELL, ENDS = ("DONE", "WARNING"), ("DONE", "WARNING", "ERROR", "STOPPED")
PlanRow = collections.namedtuple("PlanRow", "run since tries status child")


def find_doubled_nodes(agent):
    """Attempts and sessions of plans that are there twice, and what is neither."""
    doubled = ["attempt %d of node %s of plan %d: %d times" % (attempt, place, session, count)
               for session, place, attempt, count in agent.query(
                   "select session, place, attempt, count(*) from plan_node group by 1, 2, 3 having count(*) > 1")]
    doubled += ["session %d is of %d nodes" % row for row in agent.query(
        "select child, count(distinct session || ' ' || place) from plan_node where child is not null group by child"
        " having count(distinct session || ' ' || place) > 1")]
    doubled += ["session %d of plan %d is of no node" % row for row in agent.query(
        "select id, parent from session s where node is not null and not exists"
        " (select 1 from plan_node n where n.session = s.parent and n.child = s.id)")]
    return doubled + ["task %d.%d of session %d of a plan has ended well %d times" % row for row in agent.query(
        "select step, task, t.session, count(*) from session_task t join session s on s.id = t.session"
        " where s.node is not null and t.status='DONE' group by 1, 2, 3 having count(*) > 1")]


def find_plan_faults(agent, touched=(), checked=()):
    """What of the plans that have ended, but `checked`, is not as their definition says -> ([what], their numbers). A
    RESTART was asked for those `touched`."""
    faults, plans = [], [row for row in agent.query(
        "select id, scenario, status from session where scenario like 'PLAN%%' and status in %s and begun is not null"
        % (ENDS,)) if row[0] not in checked]
    ends = dict(agent.query("select id, status from session where parent is not null")) if plans else {}
    for session, scenario, status in plans:
        rows = collections.defaultdict(list)
        for place, *row in agent.query("select place, run, since, tries, status, child from plan_node where session=?"
                                       " order by run", session):
            rows[place].append(PlanRow(*row))
        wrong = ["node %s is %s" % (place, each[-1].status) for place, each in rows.items()
                 if each[-1].status not in ENDS]
        wrong += ["session %s is %s" % row for row in agent.query(
            "select id, status from session where parent=? and status not in %s" % (ENDS,), session)]
        values = collections.defaultdict(list)
        for place, value in agent.query("select place, value from plan_value where session=? order by place, position",
                                        session):
            values[place].append(value)
        if status != "STOPPED":         # who has stopped it, has stopped it anywhere
            end = PlanCheck(rows, values, ends, wrong, session in touched).judge(PLANS[scenario], "1", 0)
            if end != status:
                wrong.append("ended %s, not %s" % (status, end))
        faults += ["%s %d: %s" % (scenario, session, text) for text in wrong]
    return faults, [row[0] for row in plans]


class PlanCheck:
    """Says of an ended plan how it had to end, from its definition and the ends of its sessions."""

    def __init__(self, rows, values, ends, wrong, is_touched):
        self._rows, self._values = rows, values         # {place: [PlanRow]}, {place: [text]}
        self._ends = ends               # {session: its status}
        self._wrong = wrong             # takes what is not so
        self._is_touched = is_touched   # a RESTART with other variables may have chosen otherwise

    def judge(self, node, place, since):
        """The state in which a node had to end; None: it was not reached, since its node above began."""
        rows = [row for row in self._rows[place] if row.run >= since]
        if not rows:
            return None
        row, attempts = rows[-1], node.get("attempts", 1)
        end = self._ends.get(row.child, "ERROR") if "run" in node else self._judge_below(node, place, row.since)
        if row.status == "STOPPED" and end not in WELL and self._is_stopped(place):
            return "STOPPED"            # by a STOP of the plan that a kill has cut short: the others have gone on
        # of this attempt: a RESTART begins another, and what handled the one before counts no more
        handled = self.judge(node["exception"], place + ".exception", row.run) if "exception" in node else None
        if row.tries > attempts or end not in WELL and row.tries < attempts:
            self._wrong.append("node %s was tried %d times" % (place, row.tries))
        if "exception" in node and (handled is None) != (end in WELL):
            self._wrong.append("node %s: %s, its exception %s" % (place, end, handled))
        if handled in WELL and node.get("on_exception") == "ignore":
            end = "WARNING"
        if row.status != end:
            self._wrong.append("node %s is %s, not %s" % (place, row.status, end))
        return end

    def _is_stopped(self, place):
        """Whether a session of a node, or below it, was stopped."""
        return any(self._ends.get(row.child) == "STOPPED" for inner, rows in self._rows.items()
                   if (inner + ".").startswith(place + ".") for row in rows)

    def _judge_below(self, node, place, since):
        """How what a node has below it makes it end."""
        if "case" in node:
            branches = [("%s.%d" % (place, index), branch["do"])
                        for index, branch in enumerate(node["case"]["when"], 1)]
            ends = {self._rows[inner][-1].run: self.judge(do, inner, since) for inner, do in branches + [
                (place + ".else", node["case"]["else"])] if self._rows[inner]}
            if len(ends) != 1 and not (ends and self._is_touched):
                self._wrong.append("node %s: %s" % (place, ends))
            return ends[max(ends)] if ends else None
        if "for_each" in node:
            values = node["for_each"]["in"]
            if self._values[place] != values:
                self._wrong.append("node %s has the values %s" % (place, self._values[place]))
            nodes, most = [node["do"]] * len(values), node["max_errors"]
        else:
            nodes, most = node.get("serial") or node["parallel"], node.get("max_errors", 0)
        ends = [self.judge(each, "%s.%d" % (place, index), since) for index, each in enumerate(nodes, 1)]
        bad = [index for index, end in enumerate(ends) if end and end not in WELL]
        errors = len(bad)
        if errors <= most and None in ends or "serial" in node and bad and any(ends[bad[0] + 1:]):
            self._wrong.append("node %s: %s" % (place, ends))
        return "ERROR" if errors > most else "WARNING" if errors or "WARNING" in ends else "DONE"


def find_faults(agent):
    """What the log and the files show of the agent's own faults."""
    with open(os.path.join(agent.folder, "agent.log"), encoding="utf-8", errors="replace") as log:
        faults = [line.strip() for line in log if re.search(r"Traceback|fault of the agent| ERROR keeper", line)]
    for path in (agent.work, agent.master):
        with contextlib.closing(sqlite3.connect(path, timeout=LIMIT_S)) as connection:
            for text, in connection.execute("pragma integrity_check").fetchall():
                if text != "ok":
                    faults.append("%s: %s" % (path, text))
    return faults


class Audit:
    """The chain of the audit, as far as it was seen: it only ever grows at its end, whatever was killed."""

    def __init__(self, path):
        self._path, self._end = path, (0, "")       # number and hash of the newest row

    def walk_on(self):
        """Follows the chain from there on -> what is wrong with it."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=LIMIT_S)) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("select * from audit where n>=? order by n", (self._end[0],)).fetchall()
        if self._end[0] and (not rows or rows.pop(0)["hash"] != self._end[1]):
            return ["the audit has lost row %d" % self._end[0]]
        for row in map(dict, rows):
            digest = row.pop("hash")
            text = json.dumps(row, sort_keys=True, separators=(",", ":"))
            if (row["n"] - 1, row["previous"]) != self._end or hashlib.sha256(text.encode()).hexdigest() != digest:
                return ["the audit is broken at row %d" % row["n"]]
            self._end = row["n"], digest
        return []


# ---- driving ---------------------------------------------------------------------------------------------------------

class Driver:
    """Rounds of load and kill in a folder of its own; `report` has what was counted, {count: [what]} or a number."""

    def __init__(self, folder, seed, seconds=0.7, program=os.path.join(TOP, "agent.py"), python=sys.executable,
                 is_plain=False):
        self.seed, self._seconds = seed, seconds
        self._moments = random.Random(seed)
        self.agent, self.ledger = Agent(folder, program, python, is_plain), Ledger()
        self.report = collections.OrderedDict((count, []) for count in COUNTS)
        self._uuid, self._is_last = None, False
        self._audit = Audit(self.agent.master)
        self._checked = set()           # plans that have ended as they had to
        self.report["amid plans"] = 0

    def prepare(self):
        """The first start, with all definitions."""
        agent = self.agent
        agent.start()
        self._uuid, = agent.query("select uuid from repository")[0]
        with contextlib.closing(agent.converse()) as connection:
            word = "'%s'" % json.dumps(make_document()).replace("'", "\\u0027")
            lines = ["IMPORT " + word]
            for user, (role, scenarios) in USERS.items():
                lines += ["USERS ADD %s -ROLE=%s -SCENARIOS=%s" % (user, role, scenarios),
                          "USERS PASSWORD %s '%s'" % (user, password_of(user))]
            for line in lines:
                reply = connection.ask(line)[-1]
                if not reply.startswith("OK"):
                    raise Fault("%s: %s" % (line.split()[0], reply))
        self.ledger.states.update({("role", user): role for user, (role, _) in USERS.items()})

    def end(self, *_):
        """The round that runs is the last (a handler of signals, too)."""
        self._is_last = True

    def run(self, rounds, tell=lambda line: None):
        """So many rounds, then the counting -> the report; `tell` gets a line each 50 rounds."""
        agent, report = self.agent, self.report
        try:
            self.prepare()
            with Load(agent, self.ledger, self.seed):
                for number in range(rounds):
                    self._round()
                    report["rounds"] = number + 1
                    if report["rounds"] % 50 == 0:
                        tell("round %d: %d acknowledged" % (number + 1, self.ledger.acknowledged))
                    if self._is_last:
                        break
            self._settle()
        except Fault as error:
            report["faults"].append(str(error))
        finally:
            if agent.process is not None and agent.process.poll() is None:
                agent.kill()
        report["acknowledged"] = self.ledger.acknowledged
        report["lost"] += find_lost(agent, self.ledger)
        report["doubled"] += find_doubled(agent, self.ledger)
        report["lost"] += find_lost_states(agent, self.ledger.states)
        report["plans"] += find_plan_faults(agent, self.ledger.touched)[0]
        report["faults"] += self.ledger.faults + find_faults(agent) + self._audit.walk_on()
        self._clear()
        return report

    def _round(self):
        """Load, kill, start; whether it is killed while it starts is a matter of chance."""
        agent, moments = self.agent, self._moments
        time.sleep(moments.random() * 2 * self._seconds)
        agent.kill()
        if moments.random() < 0.2:
            agent.begin()
            time.sleep(moments.random() * 0.8)
            agent.kill()
        self.report["faults"] += self._audit.walk_on()
        self.report["lost"] += find_lost_states(agent, dict(self.ledger.states))
        self._check_plans()
        agent.start()
        self._note_left_alive()

    def _check_plans(self):
        """What there is of plans now; those that were asked to go on are looked at again after the last round."""
        faults, sessions = find_plan_faults(self.agent, self.ledger.touched, self._checked)
        self.report["plans"] += faults
        self.report["doubled"] += find_doubled_nodes(self.agent)
        self._checked.update(sessions)
        self.report["amid plans"] += self.agent.query(
            "select 1 from session where scenario like 'PLAN%' and status='RUNNING'") != []

    def _note_left_alive(self):
        self.report["left alive"] += ["process %d of session %d" % process for process in
                                      list_left_alive(self.agent, self._uuid)]

    def _settle(self):
        """Nothing new comes: all ends, and the agent stops in good order."""
        agent, report = self.agent, self.report
        with contextlib.closing(agent.converse()) as connection:
            for line in ["RELEASE"] + ["SCHED OFF " + name for name in list(SCHEDULES) + [SWITCHED]]:
                connection.ask(line)
        self.ledger.states.update({("hold", "AGENT"): False, ("switch", SWITCHED): False})
        wait_for(lambda: not list_open(agent), 2 * LIMIT_S)
        report["open for ever"] += ["session %d" % session for session in list_open(agent)]
        code = agent.stop()
        if code != 0:
            report["faults"].append("the agent does not stop: exit code %s" % code)
        self._note_left_alive()

    def _clear(self):
        """Ends what was left alive."""
        for pid in list_processes(self._uuid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def measure(pid, work):
    """(resident MiB, descriptors, threads, MiB of the -wal) of an agent."""
    with open("/proc/%d/status" % pid) as file:
        fields = dict(line.split(":", 1) for line in file)
    wal = os.path.getsize(work + "-wal") if os.path.exists(work + "-wal") else 0
    return (int(fields["VmRSS"].split()[0]) / 1024, len(os.listdir("/proc/%d/fd" % pid)),
            int(fields["Threads"]), wal / 2 ** 20)


def run_load(folder, seconds):
    """Load without kills; prints twenty samples."""
    driver = Driver(folder, random.randrange(10 ** 6), is_plain=True)       # BOOT may compile, and keep that memory
    agent = driver.agent
    driver.prepare()
    print("%8s %9s %12s %8s %8s %9s" % ("seconds", "MiB", "descriptors", "threads", "wal MiB", "sessions"))
    begun = time.monotonic()
    try:
        with Load(agent, driver.ledger, driver.seed, pause_s=0.1):
            for number in range(1, 21):
                time.sleep(max(0.0, begun + number * seconds / 20 - time.monotonic()))
                count, = agent.query("select count(*) from session")[0]
                print("%8d %9.1f %12d %8d %8.1f %9d" % (
                    (time.monotonic() - begun,) + measure(agent.process.pid, agent.work) + (count,)), flush=True)
        driver._settle()
    finally:
        if agent.process.poll() is None:
            agent.kill()
        driver._clear()


def show(report):
    """The report as a table, and what stands behind each count."""
    for name, value in report.items():
        print("%-15s %d" % (name, value if isinstance(value, int) else len(value)))
        for text in value[:20] if isinstance(value, list) else ():
            print("    %s" % text)


def is_bad(report):
    """Whether something did not hold."""
    return any(isinstance(value, list) and value for value in report.values())


def main():
    """The command line -> exit status."""
    parser = argparse.ArgumentParser(description="Kills agent.py under load and counts what does not hold.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.7, help="of load a round, on average")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--load", type=float, metavar="SECONDS", help="load without kills, measured")
    parser.add_argument("--folder", help="where the repositories are made (a temporary folder)")
    settings = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="torture", dir=settings.folder)
    if settings.load:
        run_load(folder, settings.load)
        shutil.rmtree(folder)
        return 0
    seed = random.randrange(10 ** 6) if settings.seed is None else settings.seed
    print("seed %d in %s" % (seed, folder), flush=True)
    driver = Driver(folder, seed, settings.seconds)
    if driver.agent.certificate is None:
        print("without TLS: openssl makes no certificate here", flush=True)
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, driver.end)
    report = driver.run(settings.rounds, functools.partial(print, flush=True))
    show(report)
    if is_bad(report):
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
