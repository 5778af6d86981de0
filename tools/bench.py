#!/usr/bin/env python3
"""Measures agent.py against limits taken in the same run, on the disk of the folder given.

    python tools/bench.py [--folder PATH] [--seconds N]

Every figure is a ratio to what the host itself can do just then, measured in turns with it, since a disk or a
neighbour changes from minute to minute:

    acknowledge     durable OKs to EXEC a second on 8 connections, each waiting for its OK before the next
                    request, to single-row commits a second of one SQLite connection (WAL, FULL)
    ... running     the same while the acknowledged sessions run
    ... pipelined   the same with 16 requests under way on each connection
    PING            median and 99th percentile, milliseconds, with 300 idle connections and 50 half-sent lines
"""
import argparse
import contextlib
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


@contextlib.contextmanager
def running_agent(folder):
    """The port of an agent with new repositories in a folder."""
    master = os.path.join(folder, "agent", "master.db")
    process = subprocess.Popen([sys.executable, os.path.join(TOP, "agent.py"), "--port", "0", "--master", master,
                                "--create", "--max-queue", "10000000"], stderr=subprocess.PIPE)
    try:
        for line in process.stderr:
            found = re.search(rb"ready on \S+:(\d+)", line)
            if found:
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield int(found.group(1))
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


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", help="where the files are made (default: the system's temporary folder)")
    parser.add_argument("--seconds", type=float, default=4, help="length of a measurement (default %(default)s)")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench-", dir=options.folder)
    try:
        measure_acknowledging(folder, options.seconds)
        measure_ping(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
