#!/usr/bin/env python3
"""Measures agent.py against limits taken in the same run, on the disk of the folder given.

    python tools/bench.py [--folder PATH] [--seconds N] [--only NAME]

Every figure is a ratio to what the host itself can do just then, measured in turns with it, since a disk or a
neighbour changes from minute to minute:

    acknowledge     durable OKs to EXEC a second on 8 connections, each waiting for its OK before the next
                    request, to single-row commits a second of one SQLite connection (WAL, FULL)
    ... running     the same while the acknowledged sessions run
    ... pipelined   the same with 16 requests under way on each connection
    PING            median and 99th percentile, milliseconds, with 300 idle connections and 50 half-sent lines
    load_csv        rows a second of a session that loads a file, its helper's start included, to a bare loop of
                    csv.reader and executemany on the same file; unload_csv the same, to csv.writer
    ... memory      of the helper process at its peak, while it loads a file of 200 MB
    schedules       with 100,000 of them, all different: the start until ready, to a bare loop that reads the same rows,
                    also when each has options (hours, jitter, a variable, ..); memory, and processor time while
                    nothing is due; SCHED ADD, SET, OFF, DEL, and how long after its due time a session is on disk as
                    begun, both to the time of two single-row commits (a due time takes two: decided, begun); and when
                    the last of 1,000 due in one second has begun
    task output     lines a second of a session whose command prints 300,000 lines as fast as it can (most of which is
                    left out), and of one that prints 10,000 a second (all kept), to the same with `> file`
"""
import argparse
import contextlib
import csv
import json
import multiprocessing
import os
import re
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
CONNECTIONS = 8
ROUNDS = 3
ROWS = 500000
BIG_MB = 200
SCHEDULES = 100000
LINES = 300000
PACED_LINES = 20000
TABLE = "(day text, low real, high real, wind real, number integer, word text)"
TYPES = {"low": "real", "high": "real", "wind": "real", "number": "integer"}
PRINT = "awk 'BEGIN { for (i = 1; i <= %d; i++) print \"line\", i, \"of what a task has to say\" }'" % LINES
PACE = """import time
begun = time.monotonic()
for i in range(%d // 100):
    print("\\n".join("line %%d of what a task has to say" %% (i * 100 + j) for j in range(100)), flush=True)
    time.sleep(max(0, begun + (i + 1) / 100 - time.monotonic()))
""" % PACED_LINES


def commits_per_s(folder, seconds):
    """Single-row commits a second of one connection, WAL and synchronous=FULL."""
    path = os.path.join(folder, "limit.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        connection.execute("create table if not exists t (a integer primary key, b text)")
        begun, count = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            connection.execute("insert into t(b) values (?)", ("x" * 100,))
            count += 1
        return count / (time.monotonic() - begun)


def start_agent(folder, *options):
    """(process, port) of an agent with its repositories in a folder, which its processes have as BENCH_FOLDER."""
    master = os.path.join(folder, "agent", "master.db")
    process = subprocess.Popen([sys.executable, os.path.join(TOP, "agent.py"), "--port", "0", "--master", master,
                                "--create", "--max-queue", "10000000"] + list(options),
                               stderr=subprocess.PIPE, env=dict(os.environ, BENCH_FOLDER=folder))
    for line in process.stderr:
        found = re.search(rb"ready on \S+:(\d+)", line)
        if found:
            break
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return process, int(found.group(1))


@contextlib.contextmanager
def running_agent(folder, *options):
    """The port of an agent with new repositories, gone afterwards."""
    process, port = start_agent(folder, *options)
    try:
        yield port
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(os.path.join(folder, "agent"))


def ask(connection, line):
    """One request whose reply is a single line."""
    connection.sendall(line + b"\n")
    reply = connection.recv(4096)
    assert reply.startswith(b"OK"), reply
    return reply


def flood(port, window, until, counts):
    """EXECs on one connection, `window` under way; counts what was acknowledged."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        count = under_way = 0
        while time.monotonic() < until:
            connection.sendall(b"EXEC HELLO\n" * (window - under_way))
            reply = connection.recv(65536)
            assert b"ERR" not in reply, reply
            done = reply.count(b"\n")
            under_way, count = window - done, count + done
        counts.append(count)


def flood_all(port, window, seconds, result):
    """The client process: all connections, a thread each."""
    counts, until = [], time.monotonic() + seconds
    threads = [threading.Thread(target=flood, args=(port, window, until, counts)) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.put(sum(counts) / seconds)


def acknowledged_per_s(folder, window, seconds, is_held):
    """OKs a second on a new agent."""
    with running_agent(folder) as port:
        if is_held:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                ask(connection, b"HOLD bench")
        result = multiprocessing.Queue()
        client = multiprocessing.Process(target=flood_all, args=(port, window, seconds, result))
        client.start()
        rate = result.get()
        client.join()
        return rate


def measure_acknowledging(folder, seconds):
    """Prints the ratio of each way to send requests, in turns with the limit."""
    for name, window, is_held in (("acknowledge", 1, True), ("acknowledge, running", 1, False),
                                  ("acknowledge, pipelined", 16, True)):
        pairs = []
        for _ in range(ROUNDS):
            before = commits_per_s(folder, seconds / 2)
            rate = acknowledged_per_s(folder, window, seconds, is_held)
            limit = (before + commits_per_s(folder, seconds / 2)) / 2
            pairs.append((rate / limit, rate, limit))
        ratio, rate, limit = sorted(pairs)[ROUNDS // 2]
        print("%-24s %6.2f x the limit (%.0f/s to %.0f/s; rounds %s)" % (
            name, ratio, rate, limit, " ".join("%.2f" % pair[0] for pair in pairs)))


def measure_ping(folder):
    """Prints how long PING takes while many connections are open."""
    with running_agent(folder) as port, contextlib.ExitStack() as stack:
        for number in range(350):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            if number >= 300:
                connection.sendall(b"EXEC HEL")
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        times = []
        for _ in range(500):
            begun = time.monotonic()
            ask(connection, b"PING")
            times.append((time.monotonic() - begun) * 1000)
            time.sleep(0.002)
        times.sort()
        print("%-24s %6.2f ms median, %.2f ms 99th percentile, %.2f ms at most" % (
            "PING, 350 connections", times[250], times[494], times[-1]))


# -- tasks ---------------------------------------------------------------------------------

def write_rows(path, rows):
    """A CSV file with a header, six columns, and so many rows."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("day,low,high,wind,number,word\n")
        for i in range(rows):
            file.write("2012-%02d-%02d,%.1f,%.1f,%.2f,%d,%s\n" % (
                i % 12 + 1, i % 28 + 1, i % 199 / 10 - 5, i % 307 / 10, i % 997 / 100, i,
                ("rain", "sun", "fog", "snow", "drizzle")[i % 5]))


def bare_load(path, database):
    """Seconds that csv.reader and executemany take."""
    begun = time.monotonic()
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection, \
            open(path, newline="", encoding="utf-8") as file:
        connection.execute("begin")
        connection.execute("drop table if exists bare")
        connection.execute("create table bare " + TABLE)
        reader = csv.reader(file)
        next(reader)
        connection.executemany("insert into bare values (?, ?, ?, ?, ?, ?)", reader)
        connection.execute("commit")
    return time.monotonic() - begun


def bare_unload(path, database):
    """Seconds that csv.writer takes."""
    begun = time.monotonic()
    with contextlib.closing(sqlite3.connect(database)) as connection, \
            open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(connection.execute("select * from bare"))
    return time.monotonic() - begun


def import_tasks(connection, folder):
    """A scenario for each measure."""
    def scenario(name, *tasks):
        return {"name": name, "version": "1", "steps": [{"name": "only", "tasks": list(tasks)}]}
    database = os.path.join(folder, "data.db")

    def load(file):
        return {"type": "load_csv", "file": os.path.join(folder, file), "schema": "BENCH", "table": "loaded",
                "mode": "create", "types": TYPES}
    document = {
        "data_servers": [{"name": "BENCH_DB", "driver": "sqlite3", "database": database}],
        "logical_schemas": [{"name": "BENCH", "contexts": {"GLOBAL": "BENCH_DB"}}],
        "scenarios": [
            scenario("LOAD", load("rows.csv")), scenario("BIG", load("big.csv")),
            scenario("CLEAR", {"type": "sql", "schema": "BENCH", "statement": "drop table if exists loaded"}),
            scenario("UNLOAD", {"type": "unload_csv", "schema": "BENCH", "query": "select * from bare",
                                "file": os.path.join(folder, "unloaded.csv")}),
            scenario("PRINT", {"type": "os", "command": PRINT}),
            scenario("PRINT_FILE", {"type": "os", "command": "%s > '%s'" % (PRINT, os.path.join(folder, "lines"))}),
            scenario("PACE", {"type": "os", "command": [sys.executable, "-c", PACE]}),
            scenario("PACE_FILE", {"type": "os", "command": ["/bin/sh", "-c", '"$@" > "$0"',
                                                             os.path.join(folder, "lines"), sys.executable, "-c", PACE]}),
        ]}
    ask(connection, b"IMPORT '" + json.dumps(document).replace("'", "\\u0027").encode() + b"'")
    return database


def run_session(connection, scenario):
    """Seconds from a request to the end of its session."""
    begun = time.monotonic()
    connection.sendall(b"EXEC %s -SYNC\n" % scenario.encode())
    reply = b""
    while b"OK" not in reply and b"ERR" not in reply or not reply.endswith(b"\n"):
        reply += connection.recv(4096)
    assert b"status=DONE" in reply, reply
    return time.monotonic() - begun


def print_ratio(name, amount, unit, measure, limit):
    """Prints amount a second of measure() to limit(), both seconds, in turns."""
    pairs = []
    for _ in range(ROUNDS):
        bare = limit()
        taken = measure()
        pairs.append((bare / taken, amount / taken, amount / bare))
    ratio, rate, limit_rate = sorted(pairs)[ROUNDS // 2]
    print("%-24s %6.2f x the limit (%.0f %s/s to %.0f/s; rounds %s)" % (
        name, ratio, rate, unit, limit_rate, " ".join("%.2f" % pair[0] for pair in pairs)))


def watch_memory(folder, is_over, peaks):
    """Notes the peak memory, MB, of the helper processes of the agent (Linux)."""
    own = ("BENCH_FOLDER=%s" % folder).encode()
    while not is_over.wait(0.02):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, AttributeError):
                with open("/proc/%s/cmdline" % pid, "rb") as words, open("/proc/%s/environ" % pid, "rb") as names:
                    if b"--task" not in words.read().split(b"\0") or own not in names.read().split(b"\0"):
                        continue
                with open("/proc/%s/status" % pid) as file:
                    peaks.append(int(re.search(r"VmHWM:\s*(\d+)", file.read()).group(1)) / 1024)


def measure_memory(folder, connection):
    """Prints the peak memory of loading a large file."""
    path = os.path.join(folder, "big.csv")
    size = os.path.getsize(os.path.join(folder, "rows.csv"))
    write_rows(path, ROWS * BIG_MB * 1000000 // size)
    is_over, peaks = threading.Event(), []
    watcher = threading.Thread(target=watch_memory, args=(folder, is_over, peaks))
    watcher.start()
    seconds = run_session(connection, "BIG")
    is_over.set()
    watcher.join()
    print("%-24s %6.1f MB at most, a file of %.0f MB in %.1f s" % (
        "load_csv, memory", max(peaks), os.path.getsize(path) / 1e6, seconds))


def measure_csv(folder):
    """Prints what loading and unloading cost, against bare loops."""
    path, unloaded = os.path.join(folder, "rows.csv"), os.path.join(folder, "bare.csv")
    write_rows(path, ROWS)
    with running_agent(folder) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        database = import_tasks(connection, folder)

        def clear_and_bare():
            run_session(connection, "CLEAR")
            return bare_load(path, database)
        print_ratio("load_csv", ROWS, "rows", lambda: run_session(connection, "LOAD"), clear_and_bare)
        print_ratio("unload_csv", ROWS, "rows", lambda: run_session(connection, "UNLOAD"),
                    lambda: bare_unload(unloaded, database))
        if os.path.isdir("/proc/self"):
            run_session(connection, "CLEAR")
            measure_memory(folder, connection)


def measure_output(folder):
    """Prints what it costs to log what a task prints, against a file: at its own speed, most of it left out, and
    paced, all of it kept."""
    for name, lines, scenario, options in (
            ("task output", LINES, "PRINT", ()),
            ("task output, 10,000/s", PACED_LINES, "PACE", ("--max-output", "100000000"))):
        with running_agent(folder, *options) as port, \
                socket.create_connection(("127.0.0.1", port)) as connection:
            import_tasks(connection, folder)
            print_ratio(name, lines, "lines", lambda: run_session(connection, scenario),
                        lambda: run_session(connection, scenario + "_FILE"))


# -- schedules -----------------------------------------------------------------------------

def write_schedules(path, has_options=False):
    """A document with SCHEDULES schedules, each with a rule of its own, none due soon, and a quick scenario."""
    far = time.gmtime(time.time() + 12 * 3600).tm_hour
    zones = ("UTC", "Europe/Zurich", "America/New_York", "") if sys.version_info >= (3, 9) else ("UTC", "")
    rules = ("daily at %(h)02d:%(m)02d:%(s)02d", "cron %(m)d %(h)d %(d)d * *", "monthly on %(d)d,last at %(h)02d:%(m)02d",
             "yearly on 0%(y)d-%(d)02d at %(h)02d:%(m)02d:%(s)02d", "weekly on sun at %(h)02d:%(m)02d:%(s)02d")
    schedules = [{"name": "S%06d" % i, "scenario": "QUICK", "timezone": zones[i % len(zones)], "rule": rules[
        i % len(rules)] % {"h": far, "m": i // 5 % 60, "s": i // 300 % 60, "d": 1 + i // 18000 % 28, "y": 1 + i % 9}}
        for i in range(SCHEDULES)]
    for i in range(0, SCHEDULES, 1 if has_options else 10):
        schedules[i]["exclude_weekdays"] = "sat"
        if has_options:
            schedules[i].update(hours="%02d:00-%02d:00" % (i % 7, 18 + i % 5), jitter=i % 3000, priority=i % 10,
                                variables={"x": "value %d" % i}, rule="daily at %02d:%02d:%02d" % (
                                    i // 3600 % 24, i // 60 % 60, i % 60))
    task = {"type": "set", "variable": "x", "value": "1"}
    scenario = {"name": "QUICK", "version": "001", "variables": {"x": "0"}, "steps": [{"name": "a", "tasks": [task]}]}
    with open(path, "w") as file:
        json.dump({"scenarios": [scenario], "schedules": schedules}, file)


def bare_read(path):
    """Seconds that a bare loop takes to read the schedules."""
    begun = time.monotonic()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for row in connection.execute("select * from schedule order by name"):
            json.loads(row[8])
    return time.monotonic() - begun


def processor_s(pid):
    """Seconds of processor time that a process has taken (Linux)."""
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid):
    """Memory of a process at its peak (Linux)."""
    with open("/proc/%d/status" % pid) as file:
        return int(re.search(r"VmHWM:\s*(\d+)", file.read()).group(1)) / 1024


def begun_delays_ms(path, prefix):
    """Milliseconds from due to begun of the sessions of some schedules, in order."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return sorted(row[0] * 86400000.0 for row in connection.execute(
            "select julianday(begun) - julianday(due) from session where schedule like ?", (prefix + "%",)))


def measure_changes(connection, commit_ms):
    """Prints how long changes take, against two commits."""
    for name, request in (("SCHED ADD", b'SCHED ADD N%d QUICK -1 GLOBAL "daily at 02:00" -TIMEZONE=UTC'),
                          ("SCHED SET", b'SCHED SET N%d -RULE="daily at 03:00"'), ("SCHED OFF", b"SCHED OFF N%d"),
                          ("SCHED DEL", b"SCHED DEL N%d")):
        times = []
        for number in range(300):
            begun = time.monotonic()
            ask(connection, request % number)
            times.append((time.monotonic() - begun) * 1000)
        times.sort()
        print("%-24s %6.2f x a commit (%.2f ms median, %.2f ms 99th percentile)" % (
            name, times[150] / commit_ms, times[150], times[296]))


def measure_firing(connection, path, commit_ms):
    """Prints how long after its due time a session has begun."""
    for number in range(3):
        ask(connection, b'SCHED ADD E%d QUICK -1 GLOBAL "every 1s"' % number)
    time.sleep(40)
    for number in range(3):
        ask(connection, b"SCHED DEL E%d" % number)
    delays = begun_delays_ms(path, "E")
    print("%-24s %6.2f x two commits (%.1f ms median, %.1f ms 99th percentile, of %d)" % (
        "due to begun", delays[len(delays) // 2] / commit_ms / 2, delays[len(delays) // 2],
        delays[len(delays) * 99 // 100], len(delays)))
    due = int(time.time()) + 10
    for number in range(1000):
        ask(connection, time.strftime('SCHED ADD B%d QUICK -1 GLOBAL "at %%Y-%%m-%%d %%H:%%M:%%S" -TIMEZONE=UTC'
                                      % number, time.gmtime(due)).encode())
    time.sleep(max(0, due - time.time()) + 5)
    delays = begun_delays_ms(path, "B")
    print("%-24s %6d ms after it the last of %d has begun, %d ms median" % (
        "1,000 due in one second", delays[-1], len(delays), delays[500]))


def start_with_schedules(folder, name, has_options=False):
    """As start_agent, with an import of many schedules before it; prints what both cost."""
    document, path = os.path.join(folder, "schedules.json"), os.path.join(folder, "agent", "workrep.db")
    write_schedules(document, has_options)
    os.mkdir(os.path.join(folder, "agent"))
    master = os.path.join(folder, "agent", "master.db")
    begun = time.monotonic()
    subprocess.check_call([sys.executable, os.path.join(TOP, "agent.py"), "--master", master, "--create", "--import",
                           document], stdout=subprocess.DEVNULL)
    print("%-24s %6.1f s for %d schedules" % ("--import" + name, time.monotonic() - begun, SCHEDULES))
    bare, begun = bare_read(path), time.monotonic()
    process, port = start_agent(folder)
    ready = time.monotonic() - begun
    memory = "%.0f MB" % memory_mb(process.pid) if os.path.isdir("/proc/self") else "?"
    print("%-24s %6.1f x a bare read of the rows (%.2f s to %.2f s; memory %s)" % (
        "start, 100,000" + name, ready / bare, ready, bare, memory))
    return process, port


def measure_schedules(folder):
    """Prints what many schedules cost."""
    path = os.path.join(folder, "agent", "workrep.db")
    process, _ = start_with_schedules(folder, ", options", has_options=True)
    process.kill()
    process.wait()
    shutil.rmtree(os.path.join(folder, "agent"))
    process, port = start_with_schedules(folder, "")
    try:
        if os.path.isdir("/proc/self"):
            time.sleep(1)
            before = processor_s(process.pid)
            time.sleep(10)
            print("%-24s %6.3f s of processor time in 10 s" % (
                "nothing due", processor_s(process.pid) - before))
        commit_ms = 1000 / commits_per_s(folder, 2)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            measure_changes(connection, commit_ms)
            measure_firing(connection, path, commit_ms)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(os.path.join(folder, "agent"))


MEASURES = {"acknowledge": measure_acknowledging, "ping": measure_ping, "csv": measure_csv, "output": measure_output,
            "schedules": measure_schedules}


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", help="where the files are made (default: the system's temporary folder)")
    parser.add_argument("--seconds", type=float, default=4, help="length of a measurement (default %(default)s)")
    parser.add_argument("--only", choices=sorted(MEASURES), help="one of the measurements")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench-", dir=options.folder)
    try:
        for name, measure in MEASURES.items():
            if options.only in (None, name):
                measure(folder, options.seconds) if name == "acknowledge" else measure(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
