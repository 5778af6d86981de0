"""The agent's own log and what else it prints: full, gone or unread, it stops nothing; no control character gets there."""
import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import time

import pytest

import agent as program
from conftest import AGENT, LIMIT_S, TOP, Client, wait_for

pytestmark = pytest.mark.once


@pytest.fixture
def make_writer():
    """LogWriters of a descriptor."""
    writers = []

    def make(descriptor):
        writers.append(program.LogWriter(program.Terminal(descriptor)))
        return writers[-1]
    yield make
    for writer in writers:
        writer.close()


@pytest.fixture
def pipe():
    """(end to read from, end to write to), the latter as full as can be, without waiting."""
    out, into = os.pipe()
    fill_pipe(into)
    yield out, into
    for descriptor in (out, into):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def fill_pipe(descriptor):
    """Fills a pipe, in lines."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"." * 4095 + b"\n")
    os.set_blocking(descriptor, True)


def open_unread():
    """A pipe whose reader is gone."""
    out, into = os.pipe()
    os.close(out)
    return os.fdopen(into, "wb")


def read_until(descriptor, text):
    """What comes from a pipe until a text has come."""
    received = b""
    while text not in received:
        received += os.read(descriptor, 65536)
    return received.decode()


# -- the writer ------------------------------------------------------------------------

def test_who_logs_waits_for_no_reader(make_writer, pipe):
    """What is too much for the memory is counted, and told as soon as somebody reads."""
    out, into = pipe
    writer, most = make_writer(into), program.MAX_LINES
    begun = time.monotonic()
    for number in range(3 * most):
        writer.say("line %d" % number)
    assert time.monotonic() - begun < LIMIT_S
    text, lost, lines = "", 0, []
    while len(lines) + lost < 3 * most:
        text += os.read(out, 65536).decode()
        complete = text[:text.rindex("\n") + 1]
        lines = re.findall("^line ([0-9]+)$", complete, re.M)
        lost = sum(map(int, re.findall("^([0-9]+) lines of the log could not be written$", complete, re.M)))
    numbers = list(map(int, lines))
    assert len(lines) + lost == 3 * most and lost and most <= len(lines)
    assert numbers == sorted(set(numbers))              # in order, whatever is missing


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_what_a_full_disk_takes_from_the_log_is_counted(make_writer, tmp_path):
    descriptor = os.open("/dev/full", os.O_WRONLY)
    writer = make_writer(descriptor)
    for number in range(5):
        writer.say("lost %d" % number)
    wait_for(lambda: writer.lost_count == 5, "the lines to be lost")
    with open(str(tmp_path / "log"), "wb") as log:      # there is room again
        os.dup2(log.fileno(), descriptor)
    writer.say("room")
    writer.close()
    os.close(descriptor)
    assert (tmp_path / "log").read_text() == "5 lines of the log could not be written\nroom\n"


def test_the_end_does_not_wait_for_ever_for_a_reader(make_writer, pipe):
    writer = make_writer(pipe[1])
    writer.say("unread")
    begun = time.monotonic()
    writer.close()
    assert 1 < time.monotonic() - begun < LIMIT_S
    writer.say("after the end")
    read_until(pipe[0], b"unread\n")


@pytest.mark.parametrize("path, words", [
    ("a\nb", r"a\x0ab"), ("a\r\033[2Jb", r"a\x0d\x1b[2Jb"), ("a\x00\x7f\x9bb", r"a\x00\x7f\x9bb"),
    ("a\udcffb", r"a\xffb"), ("a\ud800b", r"a\xed\xa0\x80b"), ("a\u2028b", r"a\xe2\x80\xa8b")])
def test_an_entry_is_one_line_whatever_a_path_has(path, words):
    form = program.LineFormatter("%(levelname)s %(message)s")

    def shown(text, *arguments):
        return form.format(logging.LogRecord("agent", logging.WARNING, "", 0, text, arguments, None))
    assert shown("%s is gone", path) == "WARNING %s is gone" % words
    assert shown("%s is gone", OSError(2, "no", path)).isprintable()
    lines = shown("fault %s\n%s", path, "Traceback:\n  %s" % path).split("\n")      # a traceback has lines
    assert all(line.isprintable() for line in lines) and all(line.startswith("  ") for line in lines[1:])


# -- the program -----------------------------------------------------------------------

def begin_logging(folder, stderr):
    """An agent with this for its stderr (None: closed), once it answers -> (process, Client)."""
    process = subprocess.Popen([sys.executable, str(AGENT), "--port", "0", "--master", str(folder / "master.db"),
                                "--create"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                               preexec_fn=(lambda: os.close(2)) if stderr is None else None)

    def connect():
        assert process.poll() is None
        for lock in folder.glob("master.db.AGENT.lock"):
            port = re.search(r":(\d+) since", lock.read_text())
            with contextlib.suppress(OSError):
                return port and Client(int(port.group(1)))
    return process, wait_for(connect, "the agent to answer")


@pytest.mark.parametrize("kind", ["full", "gone", "unread", "closed"])
def test_a_stderr_that_takes_nothing_stops_nothing(tmp_path, kind):
    out, into = os.pipe()
    with contextlib.ExitStack() as ends:
        if kind == "gone":
            os.close(out)
        else:
            ends.callback(os.close, out)
        ends.callback(os.close, into)
        if kind == "unread":
            fill_pipe(into)
        elif kind == "full":
            into = os.open("/dev/full", os.O_WRONLY)
            ends.callback(os.close, into)
        process, client = begin_logging(tmp_path, None if kind == "closed" else into)
        ends.callback(process.wait)
        ends.callback(process.kill)
        ends.enter_context(client)
        client.import_document({"scenarios": [{"name": "H", "version": "1", "on_stale": "adopt", "steps": [
            {"name": "s", "tasks": [{"type": "os", "command": "echo here"}]}]}]})
        for _ in range(3):                          # each tells something
            (tmp_path / "none.db").write_text("no repository")
            assert client.err("ATTACH W %s" % (tmp_path / "none.db")) == "REPOSITORY"
        assert client.ok("EXEC H -SYNC")["status"] == "DONE"
        client.ok("SHUTDOWN")
        assert process.wait(LIMIT_S) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("target", ["/dev/full", ""])
def test_what_import_prints_is_its_least_matter(tmp_path, target):
    document = tmp_path / "d.json"
    document.write_text(json.dumps({"scenarios": [{"name": "H", "version": "1", "steps": [
        {"name": "s", "tasks": [{"type": "os", "command": "true"}]}]}]}))
    stream = open(target, "wb") if target else open_unread()
    with contextlib.closing(stream):
        done = subprocess.run([sys.executable, str(AGENT), "--master", str(tmp_path / "master.db"), "--create",
                               "--import", str(document)], stdout=stream, stderr=stream)
    assert done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["agent.py", "--help"], ["agent.py", "--version"], ["agent.py", "--manual"],
                                   ["tools/agentcli.py", "--help"], ["tools/agentcli.py", "ping"]])
def test_no_traceback_when_nothing_can_be_printed(words):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable] + words, cwd=str(TOP), stdout=full, stderr=subprocess.PIPE)
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr, done.stderr
        done = subprocess.run([sys.executable] + words, cwd=str(TOP), stdout=full, stderr=full)
    assert done.returncode in (0, 1, 3, 120, 141)
