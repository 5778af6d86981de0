"""Section 9: what is kept of a task's output, and the end of a whole tree of processes."""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest

import agent
from agent import ERR, OUT, Capture, Clock, Command, Process, Tree
from conftest import is_alive, wait_for

UUID = str(uuid.uuid4())       # of this run alone: another one on this host must not end its processes
LIMIT = 64 * 1024
LEFT_OUT = re.compile(r"\.\.\. (\d+) lines \((\d+) bytes\) are left out here \.\.\.$")


# -- output of tasks -------------------------------------------------------------------

class Rows:
    """The log of one task as the table session_log would hold it."""

    def __init__(self, limit=LIMIT, is_captured=False):
        self.capture = Capture(limit, self.store, Clock(), is_captured)
        self.rows = {}                  # position -> row
        self.stores = 0

    def store(self, rows, omitted, then):
        self.stores += 1
        self.put(rows, omitted)
        then()

    def put(self, rows, omitted):
        if omitted:
            first, end = omitted
            self.rows = {p: row for p, row in self.rows.items() if not first <= p < end}
        for row in rows:
            self.rows[row[0]] = row

    def end(self):
        self.put(*self.capture.take(is_end=True))
        return self

    @property
    def in_order(self):
        return [self.rows[position] for position in sorted(self.rows)]

    @property
    def texts(self):
        return [text for _, _, _, text in self.in_order]

    @property
    def cost(self):
        return sum(len(text.encode()) for text in self.texts)


def printed(*chunks, limit=LIMIT, flush=False):
    """The texts that are kept of chunks of standard output."""
    rows = Rows(limit)
    for chunk in chunks:
        rows.capture.feed(OUT, chunk)
        if flush:
            rows.capture.flush()
    return rows.end().texts


def size_in_memory(thing):
    """Bytes of all that a Capture holds on to."""
    slots = [getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ())]
    inside = list(vars(thing).values()) if isinstance(thing, Capture) else slots
    if isinstance(thing, dict):
        inside = list(thing.values())
    elif isinstance(thing, (list, tuple)) or type(thing).__name__ == "deque":
        inside = list(thing)
    own = len(thing) if isinstance(thing, (bytes, bytearray)) else 0
    return own + sum(size_in_memory(each) for each in inside)


@pytest.mark.parametrize("chunks, texts", [
    ((b"one\ntwo\n",), ["one", "two"]),
    ((b"one\ntw", b"o\n"), ["one", "two"]),
    ((b"one\n\n\nfour\n",), ["one", "", "", "four"]),
    ((b"\n",), [""]),
    ((b"partial",), ["partial"]),
    ((b"one\npar", b"ti", b"al"), ["one", "partial"]),
    ((), []),
    ((b"a\tb  \n",), ["a\tb  "]),
    (("\u00e9\u20ac\U0001f600\n".encode(),), ["\u00e9\u20ac\U0001f600"]),
    (tuple(bytes([b]) for b in "\u20ac\n".encode()), ["\u20ac"]),
    ((b"cr\r\n",), ["cr\\x0d"]),
    ((b"\x1b[31mred\x1b[0m\x07\x08\0\n",), ["\\x1b[31mred\\x1b[0m\\x07\\x08\\x00"]),
    ((b"a\x7fb\x0bc\x0c\n",), ["a\\x7fb\\x0bc\\x0c"]),
    ((b"\xff\xfe ok \xc3(\n",), ["\\xff\\xfe ok \\xc3("]),
    ((b"\xed\xa0\x80\n",), ["\\xed\\xa0\\x80"]),           # a surrogate is no UTF-8
    ((b"cut \xe2\x82",), ["cut \\xe2\\x82"]),
    (("c1 \u0085\u009b2J\n".encode(),), ["c1 \\x85\\x9b2J"]),
])
@pytest.mark.parametrize("flush", [False, True])
def test_lines_and_what_is_shown_of_them(chunks, texts, flush):
    assert printed(*chunks, flush=flush) == texts


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b"])
def test_nothing_printed_becomes_a_second_line(separator):
    texts = printed(("a%sOK session=1\n" % separator).encode())
    assert len(texts) == 1 and "\n" not in texts[0]


def test_interleaved_streams_keep_their_lines_whole():
    rows = Rows()
    for stream, data in ((OUT, b"out 1\nou"), (ERR, b"err 1\ner"), (OUT, b"t 2\nout"),
                         (ERR, b"r 2\n"), (ERR, b"err 3"), (OUT, b" 3")):
        rows.capture.feed(stream, data)
    rows.end()
    for stream, name in ((OUT, "out"), (ERR, "err")):
        assert [text for _, _, s, text in rows.in_order if s == stream] == [
            "%s %d" % (name, n) for n in (1, 2, 3)]
    assert len({position for position, _, _, _ in rows.in_order}) == 6


@pytest.mark.parametrize("size", [16 * 1024, 16 * 1024 + 1, 100000])
@pytest.mark.parametrize("chunk", [1000, 16384, 65536])
def test_a_line_over_16_kib_is_split_and_none_of_it_lost(size, chunk):
    line = bytes(random.Random(size).choices(b"abcdefgh", k=size))
    data = b"before\n" + line + b"\nafter\n"
    texts = printed(*(data[i:i + chunk] for i in range(0, len(data), chunk)), limit=1 << 20)
    assert texts[0] == "before" and texts[-1] == "after"
    assert "".join(texts[1:-1]) == line.decode()
    assert max(map(len, texts)) <= 16 * 1024
    assert len(texts) == 3 or size > 16 * 1024


@pytest.mark.parametrize("chunk", [999, 16383, 65536])
@pytest.mark.parametrize("has_end", [True, False])
def test_a_split_line_keeps_its_characters_whole(chunk, has_end):
    line = "\u20ac\u00e9\U0001f600" * 9000
    data = ("x" + line + "\n" * has_end).encode()
    texts = printed(*(data[i:i + chunk] for i in range(0, len(data), chunk)), limit=1 << 20)
    assert ("".join(texts) == "x" + line) is True        # no diff of 81 KB
    assert max(len(text.encode()) for text in texts) <= 16 * 1024


def test_a_long_line_of_continuation_bytes_is_split_too():
    texts = printed(b"\x80" * 50000 + b"\n", limit=1 << 20)
    assert "".join(texts) == "\\x80" * 50000


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("chunk", [700, 65536])
def test_the_first_and_the_last_half_are_kept(flush, chunk):
    lines = ["line %06d of some output" % number for number in range(40000)]
    data = "".join(line + "\n" for line in lines).encode()
    texts = printed(*(data[i:i + chunk] for i in range(0, len(data), chunk)), flush=flush)
    at = next(index for index, text in enumerate(texts) if LEFT_OUT.match(text))
    head, tail = texts[:at], texts[at + 1:]
    assert head == lines[:len(head)] and tail == lines[len(lines) - len(tail):]
    count, size = map(int, LEFT_OUT.match(texts[at]).groups())
    assert count == len(lines) - len(head) - len(tail)
    assert size == sum(len(line) + 1 for line in lines[len(head):len(lines) - len(tail)])
    per_line = len(lines[0]) + agent.LINE_COST + 1
    for half in (head, tail):
        assert LIMIT / 2 * 0.5 < len(half) * per_line <= LIMIT / 2


def test_what_fits_is_kept_whole_and_nothing_is_said():
    lines = ["%05d" % number for number in range(600)]
    assert printed("".join(line + "\n" for line in lines).encode()) == lines


@pytest.mark.parametrize("kind", ["lines", "empty lines", "no line end", "long lines", "both"])
@pytest.mark.parametrize("flush", ["never", "often", "slow store"])
def test_the_cap_is_never_exceeded(kind, flush):
    rows, held = Rows(), []
    if flush == "slow store":
        rows.capture._store = lambda taken, omitted, then: held.append((taken, omitted, then))
    source = {"lines": b"some text of a line\n" * 2000, "empty lines": b"\n" * 40000,
              "no line end": b"x" * 65536, "long lines": (b"y" * 20000 + b"\n") * 3,
              "both": b"short\n" * 3000}[kind]
    for number in range(60):
        rows.capture.feed(ERR if kind == "both" and number % 2 else OUT, source)
        if flush != "never":
            rows.capture.flush()
        if held and number % 10 == 9:
            taken, omitted, then = held.pop()
            rows.put(taken, omitted)
            then()
        assert size_in_memory(rows.capture) <= LIMIT + 2 * agent.MAX_LOG_LINE
        assert rows.cost + len(rows.rows) * 20 <= LIMIT + 1000
    for taken, omitted, _ in held:
        rows.put(taken, omitted)
    rows.end()
    assert rows.cost <= LIMIT + 1000
    assert sum(bool(LEFT_OUT.match(text)) for text in rows.texts) == 1


@pytest.mark.parametrize("chunk", [4096, 65536])
def test_of_output_without_line_ends_the_first_and_the_last_are_kept_too(chunk):
    data = b"FIRST" + b"x" * 500000 + b"LAST"
    texts = printed(*(data[i:i + chunk] for i in range(0, len(data), chunk)))
    assert texts[0].startswith("FIRST") and texts[-1].endswith("LAST")


def test_the_count_of_what_is_left_out_grows_and_stands_once():
    rows = Rows()
    for number in range(3000):
        rows.capture.feed(OUT, b"%06d %s\n" % (number, b"x" * 90))
        if number % 100 == 0:
            rows.capture.flush()
            assert sum(bool(LEFT_OUT.match(text)) for text in rows.texts) <= 1
    rows.end()
    assert rows.texts[0].startswith("000000") and rows.texts[-1].startswith("002999")
    count = int(next(LEFT_OUT.match(text) for text in rows.texts if LEFT_OUT.match(text)).group(1))
    assert count + len(rows.rows) - 1 == 3000


def test_at_random_every_line_is_kept_once_or_counted():
    rng = random.Random(7)
    for _ in range(30):
        lines = ["%05d %s" % (number, "z" * rng.choice((0, 3, 80, 3000)))
                 for number in range(rng.randrange(1, 1500))]
        data, rows = "".join(line + "\n" for line in lines).encode(), Rows(rng.choice((4096, LIMIT)))
        while data:
            size = rng.choice((1, 100, 5000, 65536))
            rows.capture.feed(OUT, data[:size])
            data = data[size:]
            if rng.random() < 0.3:
                rows.capture.flush()
        texts = rows.end().texts
        found = [match for match in map(LEFT_OUT.match, texts) if match]
        kept = [text for text in texts if not LEFT_OUT.match(text)]
        assert len(found) <= 1
        left_out = int(found[0].group(1)) if found else 0
        assert len(kept) + left_out == len(lines)
        head = texts.index(found[0].group()) if found else len(kept)
        assert kept == lines[:head] + lines[head + left_out:]


def test_standard_output_alone_is_captured_for_a_variable():
    rows = Rows(is_captured=True)
    rows.capture.feed(OUT, b"a\nb")
    rows.capture.feed(ERR, b"not this\n")
    rows.capture.feed(OUT, b"\n")
    rows.end()
    assert rows.capture.captured == b"a\nb\n"
    for _ in range(100):
        rows.capture.feed(OUT, b"x" * 65536)
    assert len(rows.capture.captured) <= agent.MAX_VALUE + 65536 + 4


def test_one_store_at_a_time_and_nothing_twice():
    rows, held = Rows(), []
    rows.capture._store = lambda taken, omitted, then: held.append((taken, omitted, then))
    rows.capture.feed(OUT, b"one\n")
    rows.capture.flush()
    rows.capture.feed(OUT, b"two\n")
    rows.capture.flush()
    assert len(held) == 1 and [row[3] for row in held[0][0]] == ["one"]
    held[0][2]()
    rows.capture.flush()
    assert [row[3] for row in held[1][0]] == ["two"]
    held[1][2]()
    rows.capture.flush()
    assert len(held) == 2 and rows.capture.take(is_end=True) == ([], None)


# -- processes and their trees ---------------------------------------------------------

@pytest.fixture
def tasks(output):
    """Starts a command of the shell as a session's task does: tasks(text) -> (Process, Rows)."""
    made = []

    def start(command, session=1001, run=1, **keywords):
        rows = Rows()
        environment = dict(os.environ, **{agent.MARKER: agent.make_marker(UUID, session, run)})
        command = Command(["/bin/sh", "-c", command], environment, **keywords)
        process = Process(command, rows.capture, output, lambda: None).begun()
        made.append((process, rows))
        return process, rows
    yield start
    for process, _ in made:
        Tree([], {process.pid: process.started}).end(0.0)
        process.finish()


def noted(tmp_path, count):
    """Waits until `count` processes have noted their pids -> these."""
    path = tmp_path / "pids"

    def found():
        pids = path.read_text().split() if path.exists() else []
        return len(pids) >= count and [int(pid) for pid in pids]
    return wait_for(found, "%d pids" % count)


LONG = "echo $$ >> pids; while :; do sleep 0.1; done"
DEAF = "trap '' TERM HUP INT; " + LONG
CHILDREN = {
    "child": "sh -c '%s' & wait" % LONG,
    "deaf": "sh -c \"%s\" & wait" % DEAF.replace("$", "\\$"),
    "setsid": "setsid sh -c '%s' & wait" % LONG,
    "deaf setsid": "setsid sh -c \"%s\" & wait" % DEAF.replace("$", "\\$"),
    "double fork": "(setsid sh -c '%s' &) ; sleep 300" % LONG,
    "orphan": "(setsid sh -c '%s' &) ; exit 0" % LONG,
    "own group": "set -m; sh -c '%s' & wait" % LONG,
    "empty environment": "env -i sh -c '%s' & wait" % LONG,
    "empty environment, own session": "setsid env -i sh -c '%s' & wait" % LONG,
    "empty environment, orphan in the group": "(env -i sh -c '%s' &) ; exit 0" % LONG,
    "grandchildren": "env -i setsid sh -c 'setsid sh -c \"%s\" & wait' & wait"
                     % LONG.replace("$", "\\$"),
}


@pytest.mark.parametrize("kind", sorted(CHILDREN))
def test_a_tree_ends_whole(tasks, tmp_path, kind):
    process, _ = tasks(CHILDREN[kind], cwd=str(tmp_path))
    pids = noted(tmp_path, 1)
    if "exit 0" in CHILDREN[kind]:
        wait_for(lambda: process.rc == 0)
    tree = Tree(["%s/1001" % UUID], {process.pid: process.started})
    assert set(pids) <= set(tree.find())
    assert tree.end(0.3) == 0
    assert not any(map(is_alive, pids + [process.pid])) and tree.find() == {}


def test_sigterm_comes_first_and_time_is_given(tasks, tmp_path):
    process, rows = tasks("trap 'sleep 0.3; echo tidy; exit 3' TERM; %s" % LONG, cwd=str(tmp_path))
    noted(tmp_path, 1)
    assert Tree(["%s/1001" % UUID], {process.pid: process.started}).end(20) == 0
    process.finish()
    assert process.rc == 3
    assert rows.end().texts[-1] == "tidy"         # before it the shell may say what became of sleep


def test_what_forks_while_it_is_ended_ends_too(tasks, tmp_path):
    process, _ = tasks("trap '' TERM; while :; do (setsid sh -c 'trap \"\" TERM; echo $$ >> pids; "
                       "sleep 300' &); sleep 0.05; done", cwd=str(tmp_path))
    noted(tmp_path, 3)
    assert Tree(["%s/1001" % UUID], {process.pid: process.started}).end(0.3) == 0
    assert not any(map(is_alive, noted(tmp_path, 3)))


def test_other_sessions_and_the_agent_and_its_parents_are_spared(tasks, tmp_path):
    mine, _ = tasks("exec sleep 300", session=1001)
    other, _ = tasks("exec sleep 300", session=11001)
    other_run, _ = tasks("exec sleep 300", session=100)
    foreign = subprocess.Popen(["sleep", "300"])
    try:
        assert Tree(["%s/1001" % UUID]).end(2) == 0
        wait_for(lambda: mine.rc is not None)
        assert mine.rc == -signal.SIGTERM
        for process in (other, other_run, foreign):
            assert is_alive(process.pid)
    finally:
        foreign.kill()
        foreign.wait()


def test_never_itself_or_its_parents(tmp_path):
    """An agent that stands in the very tree it ends, marked like it, and leading its group."""
    code = """
import os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import agent
child = subprocess.Popen(["sleep", "300"])
while agent.read_marker(child.pid) is None:     # exec may be over before the kernel shows its environment
    time.sleep(0.01)
me, parent = os.getpid(), os.getppid()
roots = {pid: agent.start_time(pid) for pid in (me, parent)}
tree = agent.Tree([sys.argv[2]], roots)
assert set(tree.find()) == {child.pid}, (tree.find(), me, parent)
assert tree.end(5) == 0
assert child.wait() == -15
print("still here", agent.read_marker(me))
"""
    script = tmp_path / "agent_in_tree.py"
    script.write_text(code)
    top = os.path.dirname(agent.__file__)
    marker = agent.make_marker(UUID, 1001, 1)
    done = subprocess.run(["sh", "-c", '"$@"; echo and its parent', "sh", sys.executable, str(script),
                           top, "%s/1001" % UUID], env=dict(os.environ, **{agent.MARKER: marker}),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                          universal_newlines=True, start_new_session=True)
    assert done.stdout == "still here %s\nand its parent\n" % marker


def test_a_pid_that_another_process_has_now_is_no_member():
    foreign = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        tree = Tree(["%s/1001" % UUID], {foreign.pid: "1"})
        assert tree.find() == {} and tree.end(0.0) == 0
        assert is_alive(foreign.pid)
    finally:
        foreign.kill()
        foreign.wait()


def test_a_tree_of_nothing_ends_at_once():
    assert Tree([]).end() == 0


def test_the_marker_is_read_from_the_environment(tasks):
    process, _ = tasks("exec sleep 300", session=77001, run=12)
    wait_for(lambda: agent.read_marker(process.pid) == "%s/77001/12" % UUID)
    assert agent.session_of_marker(agent.read_marker(process.pid)) == "%s/77001" % UUID
    assert agent.read_marker(os.getpid()) is None
    assert agent.read_process(2 ** 22 + 1) is None and agent.start_time(2 ** 22 + 1) is None


def test_start_time_tells_processes_apart_and_zombies_are_none():
    process = subprocess.Popen(["sleep", "300"])
    started = agent.start_time(process.pid)
    assert started and started == agent.start_time(process.pid)
    process.kill()
    wait_for(lambda: agent.start_time(process.pid) is None, "the zombie to count as none")
    assert agent.read_process(process.pid) is None
    process.wait()


def test_a_process_is_a_session_leader_without_standard_input(tasks):
    process, rows = tasks("echo $$ $(ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat); cat")
    process.finish()
    wait_for(lambda: rows.rows)
    assert rows.end().texts == ["%d %d" % (process.pid, process.pid)] and process.rc == 0


def test_standard_input_is_fed_whole_and_need_not_be_read(tasks):
    text = "".join("line %d \u20ac\n" % number for number in range(50000))
    process, rows = tasks("wc -c; echo over", stdin=text)
    wait_for(lambda: process.rc is not None)
    process.finish()
    assert [t.strip() for t in rows.end().texts] == [str(len(text.encode())), "over"]
    process, rows = tasks("exec true", stdin=text)
    wait_for(lambda: process.rc is not None)
    assert process.rc == 0


def test_nothing_is_left_open_when_a_process_cannot_start(output):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(OSError):
            Process(Command(["/no/such/program"], {}, stdin="x"), Rows().capture, output, lambda: None).begun()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_start_that_is_abandoned_leaves_no_process(output, monkeypatch):
    """Popen hangs: whoever waits for it goes away, and what it starts in the end is ended."""
    is_in, is_over, ended, popen = threading.Event(), threading.Event(), threading.Event(), Process._start

    def hang(_, *arguments):
        is_in.set()
        is_over.wait(60)
        return popen(*arguments)
    monkeypatch.setattr(agent, "DRAIN_S", 0.05)
    monkeypatch.setattr(Process, "_start", hang)
    process = Process(Command(["sleep", "300"], {}), Rows().capture, output, ended.set)
    is_in.wait(60)
    assert not process.abandon() and not process.is_decided
    is_over.set()
    assert ended.wait(60) and process.rc == -signal.SIGKILL
    process = Process(Command(["sleep", "300"], {}), Rows().capture, output, lambda: None).begun()
    assert process.abandon()            # begun by now
    process.finish()
    assert process.rc == -signal.SIGKILL


@pytest.mark.skipif(not agent.HAS_DESCRIPTORS, reason="the system, or this Python, has no descriptors of processes")
def test_processes_need_no_thread_each(output):
    before = threading.active_count()
    processes = [Process(Command(["sleep", "300"], {}), Rows().capture, output, lambda: None).begun() for _ in range(20)]
    assert threading.active_count() <= before + 1               # the one that starts them
    for process in processes:
        assert process.abandon()
        process.finish()
        assert process.rc == -signal.SIGKILL


def test_what_a_process_leaves_running_does_not_hold_its_end(tasks, output):
    process, rows = tasks("echo before; sleep 1000 & echo $!")
    wait_for(lambda: process.rc is not None)
    process.finish()
    before, left = rows.end().texts
    assert before == "before" and is_alive(int(left))       # and holds the pipes


def test_the_end_of_what_was_read_for_long_enough_is_waited_for_no_more(tasks, monkeypatch):
    monkeypatch.setattr(agent, "DRAIN_S", 0.05)
    process, _ = tasks("sleep 1000 & exit 3")
    wait_for(process.is_complete, "its end")
    monkeypatch.setattr(agent, "DRAIN_S", 50.0)
    begun = time.monotonic()
    process.finish()
    assert process.rc == 3 and time.monotonic() < begun + 25


def test_a_program_that_is_gone_since_it_was_found_is_looked_for_again(output, tmp_path, monkeypatch):
    """Its standard input is fed, and its end waited for, by threads that were there before."""
    monkeypatch.setattr(agent, "ROOT_PROGRAM", str(tmp_path))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(shutil.which("cat"), str(tmp_path / folder / "copy"))
    environment = {"PATH": "%s:%s" % (tmp_path / "a", tmp_path / "b")}
    for path in ("a", "b"):
        rows, command = Rows(), Command(["copy"], environment, str(tmp_path), "text")
        process = Process(command, rows.capture, output, lambda: None).begun()
        wait_for(process.is_complete, "its end")
        assert process.rc == 0 and rows.end().texts == ["text"]
        assert output.starters.programs.find_near(command) == os.fsencode(str(tmp_path / path / "copy"))
        (tmp_path / path / "copy").unlink()


def test_a_program_that_is_busy_since_it_was_found_is_looked_for_again(output, tmp_path, monkeypatch):
    """As above, where the system alone can tell."""
    monkeypatch.setattr(agent, "ROOT_PROGRAM", str(tmp_path))
    shutil.copy(shutil.which("cat"), str(tmp_path / "copy"))
    command, rows = Command([str(tmp_path / "copy")], {}, str(tmp_path), "text"), Rows()
    output.starters.programs.open(command)
    writer, forget = open(str(tmp_path / "copy"), "r+b"), agent.Programs.forget

    def forget_and_end_writing(programs, command):
        forget(programs, command)
        writer.close()
    monkeypatch.setattr(agent.Programs, "forget", forget_and_end_writing)
    process = Process(command, rows.capture, output, lambda: None).begun()
    wait_for(process.is_complete, "its end")
    writer.close()                      # some kernels start it all the same
    assert process.rc == 0 and rows.end().texts == ["text"]


def test_a_program_that_is_no_more_cannot_start_though_a_shell_sets_its_limits(output, tmp_path, monkeypatch):
    monkeypatch.setattr(agent, "ROOT_PROGRAM", str(tmp_path))
    shutil.copy(shutil.which("true"), str(tmp_path / "copy"))
    command = Command([str(tmp_path / "copy")], {}, str(tmp_path), file_limit=100)
    process = Process(command, Rows().capture, output, lambda: None).begun()
    wait_for(process.is_complete, "its end")
    (tmp_path / "copy").unlink()
    with pytest.raises(FileNotFoundError):
        Process(command, Rows().capture, output, lambda: None).begun()


def test_a_pipe_of_each_task_is_closed_at_its_end(tasks):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        process, rows = tasks("echo out; echo err >&2")
        wait_for(lambda: process.rc is not None)
        process.finish()
        assert sorted(rows.end().texts) == ["err", "out"]
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before, "the pipes to be closed")
    wait_for(lambda: not [t for t in threading.enumerate() if t.name.startswith("wait ")])


@pytest.mark.parametrize("rc, text", [(0, "exit code 0"), (3, "exit code 3"),
                                      (-9, "ended by signal 9 (SIGKILL)"),
                                      (-200, "ended by signal 200")])
def test_exit_codes_in_words(rc, text):
    assert agent.exit_text(rc) == text


def test_identity_in_text_and_back():
    me = agent.own_identity("", UUID)
    assert agent.Identity.parse(str(me)) == me and me.pid == os.getpid()
    assert me.started == agent.start_time(os.getpid())
    assert agent.own_identity("a/b", UUID).host == "a_b"
    for text in (None, "", "a/b", "h/b/n/x/s/m"):
        assert agent.Identity.parse(text) is None
