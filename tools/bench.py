#!/usr/bin/env python3
"""Measures agent.py beside what the same machine can do without it, in the same minutes.

    python tools/bench.py [--quick] [--only NAME ...] [--json FILE] [--compare FILE] [--folder PATH]

A row of the table: the agent's figure, that of the limit, and the ratio of the two with its minimum, median and
maximum over three rounds. Agent and limit are measured in turns, since a disk or a neighbour changes from minute to
minute; both are shown as of the round with the median ratio. Rates (`/s`) are better when the ratio is high, all else
when it is low. --quick takes small sizes and few rows, under 20 s; the whole takes about three minutes. --json writes
the table for programs, --compare shows beside it what an older one had.

The limits:

    sessions        processes started and waited for by Popen in 8 threads; for `set` acknowledgements, pipelined
    first byte      one row committed, then a process started and its first byte read
    OKs             rows committed one at a time by one connection (WAL, synchronous=FULL)
    PING            a bare socketserver that sends a line back
    idle memory     a bare Python that serves a socket and has a database open
    sleepers        a bare Python that holds as many processes by Popen
    schedules       a loop that reads the same rows and their JSON
    import          json.loads of the document, and executemany of its parts
    due to begun    two rows committed one at a time: what a due time takes
    load_csv        csv.reader and executemany on the same file
    growth          the same agent with an empty repository
    PURGE           EXEC while nothing is purged
"""
import argparse
import contextlib
import csv
import glob
import json
import math
import os
import platform
import re
import selectors
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tools"))
from agentcli import ClientError, Connection        # noqa: E402

ROUNDS = 3
SLOTS = 8
FULL = {"sessions": 1200, "sets": 6000, "bytes": 150, "seconds": 0.7, "pings": 2000, "sleepers": 1000,
        "schedules": 100000, "due_s": 7, "rows": 300000, "past": 1000000, "purged": 500000}
QUICK = {"sessions": 160, "sets": 600, "bytes": 20, "seconds": 0.2, "pings": 300, "sleepers": 50,
         "schedules": 3000, "due_s": 3, "rows": 30000, "past": 20000, "purged": 10000}

ECHO = """import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    def handle(self):
        for line in self.rfile:
            self.request.sendall(line)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
BARE = """import json, socketserver, sqlite3, sys, threading
connection = sqlite3.connect(sys.argv[1])
connection.execute("create table if not exists t (a)")
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), socketserver.StreamRequestHandler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
HOLDER = """import subprocess, sys
held = [subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(int(sys.argv[1]))]
print("held", flush=True)
sys.stdin.read()
for each in held:
    each.kill()
    each.wait()
"""


class Trouble(Exception):
    """What keeps something from being measured, in words."""


# -- what is started -------------------------------------------------------------------------------------------------

class Agent:
    """An agent.py with repositories of its own, below a folder."""

    def __init__(self, folder, *options):
        self.master = os.path.join(folder, "master.db")
        self.work = os.path.join(folder, "workrep.db")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(TOP, "agent.py"), "--port", "0", "--master", self.master, "--create",
             "--max-queue", "10000000"] + list(options), stderr=subprocess.PIPE)
        lines, found = [], None
        for line in self.process.stderr:
            lines.append(line.decode("utf-8", "replace"))
            found = re.search(rb"ready on \S+:(\d+)", line)
            if found:
                break
        self.ready_s = time.monotonic() - begun
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        if not found:
            raise Trouble("the agent did not start:\n%s" % "".join(lines))
        self.port = int(found.group(1))
        self.client = connect(self.port)

    def ask(self, request):
        """(data lines, fields of the OK) of a request."""
        reply = self.client.ask(request)
        return list(reply), reply.fields

    def bring_in(self, document):
        """Imports a document of definitions."""
        self.ask("IMPORT " + json.dumps(json.dumps(document)))

    def wait_idle(self):
        """Waits until nothing runs and nothing is outstanding."""
        while True:
            fields = self.ask("PING")[1]
            if int(fields["running"]) == int(fields["queued"]) == 0:
                return
            time.sleep(0.01)

    def close(self):
        """Ends it at once."""
        self.process.kill()
        self.process.wait()
        with self.client:
            pass


def connect(port):
    """A Connection of the client to a port of this host."""
    return Connection(argparse.Namespace(host="127.0.0.1", port=int(port), unix=None, tls=False, tls_ca=None, tls_cert=None))


class Bench:
    """A folder for what is measured, the sizes, and the table."""

    def __init__(self, folder, sizes):
        self.folder, self.sizes, self.table = folder, sizes, []

    @contextlib.contextmanager
    def agent(self, *options, keeps=False):
        """An Agent with new repositories; those that were there, where it keeps them."""
        folder = os.path.join(self.folder, "agent")
        if not keeps:
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder)
        agent = Agent(folder, *options)
        try:
            yield agent
        finally:
            agent.close()

    def add(self, name, unit, aim, pairs):
        """Adds a row of [(figure, limit)], a pair for each round."""
        pairs = sorted(pairs, key=lambda pair: pair[0] / pair[1])
        figure, limit = pairs[len(pairs) // 2]
        ratios = [agents / bare for agents, bare in pairs]
        self.table.append({"name": name, "unit": unit, "figure": figure, "limit": limit, "aim": aim, "ratio": {
            "min": ratios[0], "median": figure / limit, "max": ratios[-1]}})
        print("%-34s %10s %10s %-6s %7.2f  (%.2f .. %.2f)%s" % (
            name, short(figure), short(limit), unit, figure / limit, ratios[0], ratios[-1],
            "  aim %s" % aim if aim else ""), flush=True)


def short(number):
    """A number with three digits that count."""
    return "%.0f" % number if number >= 100 or number == 0 else "%.*f" % (2 - int(math.floor(math.log10(number))), number)


def scenario(name, *tasks, **fields):
    """A scenario of one step."""
    return dict({"name": name, "version": "1", "steps": [{"name": "only", "tasks": list(tasks)}]}, **fields)


TASKS = {"scenarios": [
    scenario("TRUE", {"type": "os", "command": ["true"]}), scenario("SLEEP", {"type": "os", "command": ["sleep", "600"]}),
    scenario("SET", {"type": "set", "variable": "x", "value": "1"}, variables={"x": "0"}),
    scenario("BYTE", {"type": "os", "command": ["sh", "-c", "echo > $VAR_fifo"]}, variables={"fifo": ""})]}


# -- limits ----------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def committing(folder):
    """A function that commits one row."""
    with contextlib.closing(sqlite3.connect(os.path.join(folder, "limit.db"), isolation_level=None)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        connection.execute("create table if not exists t (a integer primary key, b text)")
        yield lambda: connection.execute("insert into t(b) values (?)", ("x" * 100,))


def commits_per_s(folder, seconds):
    """Single-row commits a second of one connection."""
    with committing(folder) as commit:
        begun, count = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            commit()
            count += 1
        return count / (time.monotonic() - begun)


def processes_per_s(count):
    """Processes a second that are started and waited for in as many threads as the agent has slots."""
    def work():
        for _ in range(count // SLOTS):
            subprocess.Popen(["true"], stdin=subprocess.DEVNULL).wait()
    threads = [threading.Thread(target=work) for _ in range(SLOTS)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (time.monotonic() - begun)


@contextlib.contextmanager
def bare_python(program, *arguments):
    """A Python that runs a program -> (its process, its first line)."""
    process = subprocess.Popen([sys.executable, "-c", program] + list(arguments), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    try:
        yield process, process.stdout.readline().decode().strip()
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5 if program is HOLDER else 0)
        process.kill()
        process.wait()
        process.stdout.close()


def memory_mb(process, field="VmRSS"):
    """Memory of a process, MiB (Linux)."""
    with open("/proc/%d/status" % process.pid) as file:
        return int(re.search(field + r":\s*(\d+)", file.read()).group(1)) / 1024


# -- requests --------------------------------------------------------------------------------------------------------

def flood(port, count, window, line, seconds):
    """Replies a second on `count` connections, each with `window` requests under way. All replies are one line."""
    selector = selectors.DefaultSelector()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ)
            connection.sendall(line * window)
        begun, replies = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            for key, _ in selector.select():
                data = key.fileobj.recv(65536)
                if not data or b"ERR" in data:
                    raise Trouble("%s was answered: %r" % (line, data))
                done = data.count(b"\n")
                replies += done
                if done:
                    key.fileobj.sendall(line * done)
        taken = time.monotonic() - begun
        selector.close()
        return replies / taken


def times_of(count, work):
    """Seconds that each of `count` calls takes, in order of size."""
    times = []
    for _ in range(count):
        begun = time.monotonic()
        work()
        times.append(time.monotonic() - begun)
    return sorted(times)


def measure_okays(bench):
    """Durable OKs to EXEC, while nothing runs."""
    seconds = bench.sizes["seconds"]
    rows = (("OKs, 1 connection", 1, 1, 0.6), ("OKs, 8 connections", 8, 1, 1.5), ("OKs, 64 connections", 64, 1, 1.8),
            ("OKs, 8 connections, pipelined", 8, 16, None))
    pairs = {row[0]: [] for row in rows}
    for _ in range(ROUNDS):
        with bench.agent() as agent:
            agent.ask("HOLD bench")
            for name, count, window, _ in rows:
                before = commits_per_s(bench.folder, seconds / 2)
                rate = flood(agent.port, count, window, b"EXEC HELLO\n", seconds)
                pairs[name].append((rate, (before + commits_per_s(bench.folder, seconds / 2)) / 2))
    for name, _, _, aim in rows:
        bench.add(name, "/s", aim, pairs[name])


def measure_ping(bench):
    """PING, one after the other on one connection."""
    count = bench.sizes["pings"]
    with bench.agent() as agent, bare_python(ECHO) as (_, port), connect(port) as echo:
        def ping(connection):
            connection.ask("PING")
            connection.read_line()
        pairs = [(1e6 * times_of(count, lambda: ping(agent.client))[count // 2],
                  1e6 * times_of(count, lambda: ping(echo))[count // 2]) for _ in range(ROUNDS)]
    bench.add("PING", "us", 1.3, pairs)


# -- sessions --------------------------------------------------------------------------------------------------------

def sessions_per_s(agent, name, count):
    """(sessions a second from the first OK to the record of the last end, OKs a second) of so many EXEC."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", agent.port)) as connection, connection.makefile("rb") as file:
        connection.sendall(b"EXEC %s\n" % name.encode() * count)
        for _ in range(count):
            line = file.readline()
            if not line.startswith(b"OK"):
                raise Trouble("EXEC %s: %r" % (name, line))
    answered = time.monotonic()
    agent.wait_idle()
    return count / (time.monotonic() - begun), count / (answered - begun)


def measure_sessions(bench):
    """Sessions of a process that does nothing, and of a task that needs none."""
    processes, sets = [], []
    with bench.agent("--max-sessions", str(SLOTS)) as agent:
        agent.bring_in(TASKS)
        sessions_per_s(agent, "TRUE", SLOTS)
        for _ in range(ROUNDS):
            limit = processes_per_s(bench.sizes["sessions"])
            processes.append((sessions_per_s(agent, "TRUE", bench.sizes["sessions"])[0], limit))
            sets.append(sessions_per_s(agent, "SET", bench.sizes["sets"]))
    bench.add("sessions of [\"true\"], 8 at once", "/s", 0.6, processes)
    bench.add("sessions of a set task", "/s", 0.4, sets)


def measure_first_byte(bench):
    """EXEC until the process has written its first byte, one at a time."""
    fifo, count = os.path.join(bench.folder, "fifo"), bench.sizes["bytes"]
    os.mkfifo(fifo)
    descriptor = os.open(fifo, os.O_RDWR)

    def bare():
        commit()
        process = subprocess.Popen(["sh", "-c", "echo > $VAR_fifo"], env=dict(os.environ, VAR_fifo=fifo),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.read(descriptor, 1)
        started.append(process)

    def through_agent():
        agent.ask("EXEC BYTE fifo=%s" % fifo)
        os.read(descriptor, 1)
    middle, late = [], []
    with bench.agent() as agent, committing(bench.folder) as commit:
        agent.bring_in(TASKS)
        for _ in range(ROUNDS):
            started = []
            limit = times_of(count, bare)
            for process in started:
                process.communicate()
            agent.wait_idle()
            times = times_of(count, through_agent)
            middle.append((1e3 * times[count // 2], 1e3 * limit[count // 2]))
            late.append((1e3 * times[count * 99 // 100], 1e3 * limit[count // 2]))
    os.close(descriptor)
    bench.add("EXEC to first byte", "ms", 1.8, middle)
    bench.add("... 99th percentile", "ms", 3.3, late)


def measure_memory(bench):
    """An idle agent, and one whose sessions all sleep."""
    idle, asleep, threads = [], [], []
    count = bench.sizes["sleepers"]
    for _ in range(ROUNDS):
        with bench.agent("--max-sessions", str(count)) as agent, bare_python(
                BARE, os.path.join(bench.folder, "bare.db")) as (bare, _):
            time.sleep(0.5)
            idle.append((memory_mb(agent.process), memory_mb(bare)))
            agent.bring_in(TASKS)
            sessions = agent.client
            for _ in range(count):
                list(sessions.ask("EXEC SLEEP"))
            while int(agent.ask("PING")[1]["running"]) < count:
                time.sleep(0.05)
            time.sleep(1)
            with bare_python(HOLDER, str(count)) as (holder, _):
                asleep.append((memory_mb(agent.process), memory_mb(holder)))
            threads.append((len(os.listdir("/proc/%d/task" % agent.process.pid)), count))
            sleepers = []               # ended here: the agent looks through all processes for each
            for path in glob.glob("/proc/%d/task/*/children" % agent.process.pid):
                with open(path) as file:
                    sleepers += map(int, file.read().split())
            agent.process.kill()
            for pid in sleepers:
                os.kill(pid, signal.SIGKILL)
    bench.add("idle memory", "MiB", 1.3, idle)
    bench.add("memory, %d sessions of sleep" % count, "MiB", None, asleep)
    bench.add("threads, for each of them", "", 0.1, threads)


# -- schedules and definitions ---------------------------------------------------------------------------------------

def write_schedules(path, count):
    """A document of so many schedules, each with a rule of its own and none due soon, and what they start."""
    hour = time.gmtime(time.time() + 12 * 3600).tm_hour
    rules = ("daily at %(h)02d:%(m)02d:%(s)02d", "cron %(m)d %(h)d %(d)d * *", "monthly on %(d)d,last at %(h)02d:%(m)02d",
             "yearly on 0%(y)d-%(d)02d at %(h)02d:%(m)02d:%(s)02d", "weekly on sun at %(h)02d:%(m)02d:%(s)02d")
    schedules = [{"name": "S%06d" % i, "scenario": "SET", "timezone": "UTC", "rule": rules[i % len(rules)] % {
        "h": hour, "m": i // 5 % 60, "s": i // 300 % 60, "d": 1 + i // 18000 % 28, "y": 1 + i % 9}} for i in range(count)]
    with open(path, "w") as file:
        json.dump(dict(TASKS, schedules=schedules), file)


def bare_import(path, database):
    """Seconds that json.loads and executemany take."""
    begun = time.monotonic()
    with open(path) as file:
        schedules = json.loads(file.read())["schedules"]
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("drop table if exists t")
        connection.execute("create table t (name text primary key, scenario, timezone, rule, body)")
        connection.executemany("insert into t values (?, ?, ?, ?, ?)", (
            (each["name"], each["scenario"], each["timezone"], each["rule"], json.dumps(each)) for each in schedules))
        connection.commit()
    return time.monotonic() - begun


def bare_read(path):
    """Seconds that a bare loop takes to read the schedules."""
    begun = time.monotonic()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for row in connection.execute("select * from schedule order by name"):
            json.loads(row[8])
    return time.monotonic() - begun


def measure_due(bench, agent):
    """From a due time to the record that its session has begun, while all the others are loaded."""
    middle, late = [], []
    for turn in range(ROUNDS):
        limit = 2e3 / commits_per_s(bench.folder, bench.sizes["seconds"])
        names = ["E%d%d" % (turn, number) for number in range(5)]
        for name in names:
            agent.ask('SCHED ADD %s SET -1 GLOBAL "every 1s"' % name)
        time.sleep(bench.sizes["due_s"])
        for name in names:
            agent.ask("SCHED DEL " + name)
        with contextlib.closing(sqlite3.connect(agent.work)) as connection:
            delays = sorted(row[0] * 86400000.0 for row in connection.execute(
                "select julianday(begun) - julianday(due) from session where schedule in (%s) and begun is not null"
                % ",".join("?" * len(names)), names))
        middle.append((delays[len(delays) // 2], limit))
        late.append((delays[len(delays) * 99 // 100], limit))
    bench.add("due to begun", "ms", None, middle)
    bench.add("... 99th percentile", "ms", None, late)


def measure_schedules(bench):
    """Import, start and due times of many schedules."""
    imports, starts, memory = [], [], []
    count, document = bench.sizes["schedules"], os.path.join(bench.folder, "schedules.json")
    folder = os.path.join(bench.folder, "agent")
    write_schedules(document, count)
    for turn in range(ROUNDS):
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        limit = bare_import(document, os.path.join(bench.folder, "bare.db"))
        begun = time.monotonic()
        subprocess.check_call([sys.executable, os.path.join(TOP, "agent.py"), "--master", os.path.join(
            folder, "master.db"), "--create", "--import", document], stdout=subprocess.DEVNULL)
        imports.append((time.monotonic() - begun, limit))
        limit = bare_read(os.path.join(folder, "workrep.db"))
        with bench.agent(keeps=True) as agent, bare_python(BARE, os.path.join(bench.folder, "bare.db")) as (bare, _):
            starts.append((agent.ready_s, limit))
            memory.append((memory_mb(agent.process, "VmHWM"), memory_mb(bare, "VmHWM")))
            if turn == ROUNDS - 1:
                bench.add("%d definitions by --import" % count, "s", None, imports)
                bench.add("%d schedules, until ready" % count, "s", None, starts)
                bench.add("... memory at its peak", "MiB", None, memory)
                measure_due(bench, agent)


# -- files -----------------------------------------------------------------------------------------------------------

def bare_load(path, database):
    """Seconds that csv.reader and executemany take."""
    begun = time.monotonic()
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection, \
            open(path, newline="", encoding="utf-8") as file:
        connection.execute("begin")
        connection.execute("drop table if exists bare")
        connection.execute("create table bare (day text, low real, high real, wind real, number integer, word text)")
        reader = csv.reader(file)
        next(reader)
        connection.executemany("insert into bare values (?, ?, ?, ?, ?, ?)", reader)
        connection.execute("commit")
    return time.monotonic() - begun


def measure_csv(bench):
    """load_csv, its helper's start included."""
    path, database = os.path.join(bench.folder, "rows.csv"), os.path.join(bench.folder, "data.db")
    rows, words = bench.sizes["rows"], ("rain", "sun", "fog", "snow", "drizzle")
    with open(path, "w", encoding="utf-8") as file:
        file.write("day,low,high,wind,number,word\n")
        for i in range(rows):
            file.write("2012-%02d-%02d,%.1f,%.1f,%.2f,%d,%s\n" % (
                i % 12 + 1, i % 28 + 1, i % 199 / 10 - 5, i % 307 / 10, i % 997 / 100, i, words[i % 5]))
    pairs = []
    with bench.agent() as agent:
        agent.bring_in({
            "data_servers": [{"name": "BENCH_DB", "driver": "sqlite3", "database": database}],
            "logical_schemas": [{"name": "BENCH", "contexts": {"GLOBAL": "BENCH_DB"}}],
            "scenarios": [scenario("LOAD", {
                "type": "load_csv", "file": path, "schema": "BENCH", "table": "loaded", "mode": "create",
                "types": {"low": "real", "high": "real", "wind": "real", "number": "integer"}}),
                scenario("CLEAR", {"type": "sql", "schema": "BENCH", "statement": "drop table if exists loaded"})]})
        for _ in range(ROUNDS):
            limit = bare_load(path, database)
            agent.ask("EXEC CLEAR -SYNC")
            begun = time.monotonic()
            _, fields = agent.ask("EXEC LOAD -SYNC")
            if fields["status"] != "DONE":
                raise Trouble("load_csv ended %(status)s: %(message)s" % fields)
            pairs.append((rows / (time.monotonic() - begun), rows / limit))
    bench.add("load_csv", "rows/s", 0.8, pairs)


# -- growth ----------------------------------------------------------------------------------------------------------

def fill(path, count):
    """Copies the one session that a repository has until there are so many, with its step and task."""
    def columns(table, *changed):
        names = [row[1] for row in connection.execute("pragma table_info(%s)" % table)]
        return ", ".join(names), ", ".join("n.i * 1000 + 1" if name in changed else name for name in names)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute("select name, sql from sqlite_master where type='trigger'").fetchall()
        for name, _ in triggers:        # one runs with each row
            connection.execute("drop trigger " + name)
        for table, key in (("session", "id"), ("session_step", "session"), ("session_task", "session")):
            names, values = columns(table, key)
            connection.execute(
                "with recursive n(i) as (select 2 union all select i + 1 from n where i < %d)"
                " insert into %s(%s) select %s from n, %s where %s=1001" % (count, table, names, values, table, key))
        for _, sql in triggers:
            connection.execute(sql)
        connection.execute("update repository set last_session=%d" % count)
        connection.commit()


def measure_growth(bench):
    """What requests and a start cost with many past sessions; and EXEC beside a PURGE of half of them."""
    count, seconds = bench.sizes["past"], bench.sizes["seconds"] / 2
    folders = [os.path.join(bench.folder, name) for name in ("small", "large")]
    rows = {name: [] for name in ("start", "acknowledge", "SESSIONS", "STATUS", "SCHED NEXT")}
    for folder in folders:
        os.mkdir(folder)
        agent = Agent(folder)
        agent.bring_in(dict(TASKS, schedules=[{"name": "D", "scenario": "SET", "rule": "daily at 02:00"}]))
        agent.ask("EXEC SET -SYNC")
        agent.ask("SHUTDOWN")
        agent.process.wait()
        agent.close()
    fill(os.path.join(folders[1], "workrep.db"), count)
    for _ in range(ROUNDS):
        pair = [Agent(folder) for folder in folders]
        rows["start"].append([1e3 * agent.ready_s for agent in reversed(pair)])
        for name, request in (("SESSIONS", "SESSIONS -LIMIT=50"), ("STATUS", "STATUS 1001"), ("SCHED NEXT", "SCHED NEXT D")):
            rows[name].append([1e6 * times_of(100, lambda: agent.ask(request))[50] for agent in reversed(pair)])
        for agent in pair:
            agent.ask("HOLD bench")
        rows["acknowledge"].append([1e6 / flood(agent.port, 1, 1, b"EXEC SET\n", seconds) for agent in reversed(pair)])
        for agent in pair:
            agent.ask("SHUTDOWN")
            agent.process.wait()
            agent.close()
    for name, pairs in rows.items():
        bench.add("%s, %d past sessions" % (name, count), "ms" if name == "start" else "us", None, pairs)
    measure_purge(bench, folders[1])


def measure_purge(bench, folder):
    """The 99th percentile of EXEC while half of the sessions are purged."""
    agent, pairs, is_over = Agent(folder), [], threading.Event()
    with connect(agent.port) as other:
        agent.ask("HOLD bench")
        before = times_of(500, lambda: list(other.ask("EXEC SET")))[495]

        def purge():
            agent.ask("PURGE -KEEP=%d" % (bench.sizes["past"] - bench.sizes["purged"]))
            is_over.set()
        thread = threading.Thread(target=purge)
        thread.start()
        times = []
        while not is_over.is_set() or len(times) < 100:
            times += times_of(10, lambda: list(other.ask("EXEC SET")))
        thread.join()
        times.sort()
        pairs.append((1e3 * times[len(times) * 99 // 100], 1e3 * before))
    bench.add("EXEC beside PURGE of %d, p99" % bench.sizes["purged"], "ms", None, pairs)
    agent.close()


MEASURES = {"sessions": measure_sessions, "byte": measure_first_byte, "okays": measure_okays, "ping": measure_ping,
            "memory": measure_memory, "schedules": measure_schedules, "csv": measure_csv, "growth": measure_growth}


def print_comparison(table, path):
    """Beside each ratio that of an older run."""
    with open(path) as file:
        before = {name: row["ratio"]["median"] for name, row in with_whole_names(json.load(file)["rows"])}
    print("\n%-50s %8s %8s" % ("ratios", "before", "now"))
    for name, row in with_whole_names(table):
        print("%-50s %8s %8.2f" % (name, "%.2f" % before[name] if name in before else "-", row["ratio"]["median"]))


def with_whole_names(rows):
    """Yields (name, row); the name of a row that begins with ... goes on with that of the row before."""
    main = ""
    for row in rows:
        main = main if row["name"].startswith("...") else row["name"]
        yield main if main == row["name"] else main + row["name"][3:], row


def main():
    """The command line -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--only", nargs="+", choices=sorted(MEASURES), help="these alone")
    parser.add_argument("--json", metavar="FILE", help="write the table for programs")
    parser.add_argument("--compare", metavar="FILE", help="show what an older --json had")
    parser.add_argument("--folder", help="where the files are made (default: the system's temporary folder)")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench-", dir=options.folder)
    bench = Bench(folder, QUICK if options.quick else FULL)
    machine = "%s, Python %s, SQLite %s, %d cores, %s" % (
        platform.platform(), platform.python_version(), sqlite3.sqlite_version, os.cpu_count(), time.strftime("%Y-%m-%d"))
    print("%s\n%-34s %10s %10s %-6s %7s" % (machine, "", "agent", "limit", "unit", "ratio"))
    try:
        for name, measure in MEASURES.items():
            if name in (options.only or MEASURES):
                measure(bench)
    except (Trouble, ClientError) as error:
        print("bench: %s" % error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": machine, "rows": bench.table}, file, indent=1)
    if options.compare:
        print_comparison(bench.table, options.compare)
    return 0


if __name__ == "__main__":
    sys.exit(main())
