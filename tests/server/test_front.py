"""The front: one thread for all connections that ask for EXEC and PING alone."""
import contextlib
import gc
import os
import socket
import struct
import sys
import threading
import time

import pytest

import agent as program
from conftest import wait_for

pytestmark = pytest.mark.once

LIMIT_S = 60


@pytest.fixture
def server(inside):
    server = program.Server(inside.agent, "127.0.0.1", 0, program.WireLimits(300))
    server.listen()
    yield server
    server.close()
    assert not threads_of_clients() and not server.connection_count
    assert not any(thread.name == "front" for thread in threading.enumerate())


@pytest.fixture
def port(server):
    """The port of a Server of `inside`."""
    return server.port


@contextlib.contextmanager
def calling(port):
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as connection:
        with connection.makefile("rb") as replies:
            yield connection, replies


def threads_of_clients():
    return [thread for thread in threading.enumerate() if thread.name.startswith("client ")]


def ask_one(caller, line):
    connection, replies = caller
    connection.sendall(line)
    return replies.readline()


def number_of(line):
    assert line.startswith(b"OK session="), line
    return int(line.split()[1].partition(b"=")[2])


def test_who_asks_for_exec_and_ping_alone_costs_no_thread(inside, port):
    inside.ok("HOLD")
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(calling(port)) for _ in range(50)]
        numbers = [number_of(ask_one(caller, b"EXEC HELLO -PRIORITY=3\n")) for caller in callers]
        assert sorted(set(numbers)) == numbers
        for caller in callers:
            assert ask_one(caller, b"PING\n").startswith(b"OK agent=")
            assert ask_one(caller, b"EXEC NOPE\n").startswith(b"ERR NOT_FOUND")
        assert threading.active_count() == before
        assert ask_one(callers[7], b"STATUS %d\n" % numbers[7]).startswith(b"* session=%d " % numbers[7])
        assert len(threads_of_clients()) == 1
        assert callers[7][1].readline().startswith(b"* variable=")
        assert callers[7][1].readline() == b"OK\n"
        assert ask_one(callers[7], b"PING\n").startswith(b"OK agent=")


@pytest.mark.parametrize("line", [b"EXEC HELLO a=1\n", b"EXEC HELLO -SYNC\n", b"EXEC HELLO -1 NOPE\n", b"SESSIONS\n"])
def test_what_may_have_to_wait_has_a_thread(inside, port, line):
    with calling(port) as caller:
        assert ask_one(caller, b"PING\n").startswith(b"OK") and not threads_of_clients()
        assert ask_one(caller, line).startswith((b"OK", b"ERR", b"*"))
        assert len(threads_of_clients()) == 1


def test_with_several_repositories_exec_looks_where_its_scenario_is_in_a_thread(inside, port, tmp_path):
    inside.ok("ATTACH SECOND %s -CREATE" % (tmp_path / "second.db"))
    with calling(port) as caller:
        number_of(ask_one(caller, b"EXEC HELLO -REPO=WORKREP\n"))
        assert not threads_of_clients()
        number_of(ask_one(caller, b"EXEC HELLO\n"))
        assert len(threads_of_clients()) == 1


def test_replies_come_in_the_order_of_the_requests(inside, port):
    inside.ok("HOLD")
    with calling(port) as (connection, replies):
        connection.sendall(b"\n" + b"EXEC HELLO\n" * 700 + b"PING\nexec hello -x\n" + b"EXEC HELLO\n" * 700 + b"SESSIONS -LIMIT=1\n")
        connection.shutdown(socket.SHUT_WR)
        lines = replies.read().splitlines()
    numbers = [number_of(line) for line in lines[:700] + lines[702:1402]]
    assert numbers == sorted(set(numbers)) and lines[700].startswith(b"OK agent=")
    assert lines[701].startswith(b"ERR BAD_REQUEST") and lines[1402].startswith(b"* session=%d " % numbers[-1])
    assert lines[1403:] == [b"OK"]


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_what_a_client_that_goes_has_asked_for_is_done(inside, port, how):
    with calling(port) as (connection, replies):
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(b"EXEC HELLO\n" * 20 + b"EXEC HEL" * (how == "half"))
        number_of(replies.readline())
        if how == "half":
            connection.shutdown(socket.SHUT_WR)
            assert replies.read().splitlines()[-1].startswith(b"ERR BAD_REQUEST the last line has no end")
    wait_for(lambda: sum(inside.agent.desk.tally.totals.values()) == 20, "the sessions")


def test_who_does_not_read_holds_nobody_up(server, port):
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with calling(port) as (greedy, replies), calling(port) as caller:
        count, sender = 60000, threading.Thread(target=lambda: greedy.sendall(b"PING\n" * count))
        sender.start()
        wait_for(threads_of_clients, "a thread that waits for him")
        assert ask_one(caller, b"PING\n").startswith(b"OK agent=")
        for _ in range(count):
            assert replies.readline().startswith(b"OK agent=")
        sender.join()


def test_without_a_thread_to_give_what_may_wait_is_refused(inside, port, monkeypatch):
    def start(worker):
        raise RuntimeError("can't start new thread")
    with calling(port) as (connection, replies), calling(port) as other:
        monkeypatch.setattr(program.Worker, "start", start)
        connection.sendall(b"EXEC HELLO\nSTATUS 1001\nEXEC HELLO\n")
        first, second = replies.readline(), replies.readline()
        assert number_of(first) == 1001 and second.startswith(b"ERR BUSY the host has no thread")
        assert replies.read() == b""
        assert ask_one(other, b"PING\n").startswith(b"OK agent=")
        monkeypatch.undo()
    assert inside.ok("WAIT 1001")["status"] == "DONE"
    assert len(inside.ask("SESSIONS")) == 2


def test_what_comes_in_together_is_begun_together(inside):
    """All that is here is taken in before anything of it is begun: nothing on the way to a shared commit waits."""
    inside.ok("HOLD")
    statements = []
    inside.agent.places.list_open()[0].db._connections.get_writer().set_trace_callback(
        lambda statement: statements.append(statement))
    front = program.Front(None, socket.socket.close, program.WireLimits(), None)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(LIMIT_S)      # no other thread has a turn but while this one waits
    try:
        clients = []
        for _ in range(40):
            client, connection = socket.socketpair()
            clients.append(client)
            client.sendall(b"EXEC HELLO\n")
            conversation = program.Conversation(inside.agent, program.Client(program.ADMINISTRATOR, "test"))
            front.add(program.Caller(connection, program.Peer(), conversation, program.WireLimits(), False))
        for _ in range(3):              # they are watched, are begun, and are answered
            front._serve()
    finally:
        sys.setswitchinterval(interval)
    wait_for(lambda: inside.agent.queue.counts()[1] == 40 or front._serve(), "the replies")
    assert len({number_of(client.recv(1000)) for client in clients}) == 40
    assert statements.count("commit") == 1, statements
    front.close()
    for client in clients:
        client.close()


def test_a_line_that_comes_in_pieces(inside, port):
    with calling(port) as (connection, replies):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"EXEC  HELLO\r\nPI":
            connection.sendall(bytes([byte]))
        number_of(replies.readline())
        connection.sendall(b"NG\nIMPORT '" + b" " * 300000)
        assert replies.readline().startswith(b"OK agent=")
        connection.sendall(b"'\n")
        assert replies.readline().startswith(b"* document: Expecting value")


def test_a_line_that_is_too_long(inside, port):
    with calling(port) as (connection, replies):
        connection.sendall(b"PING\nPING " + b"x" * 70000)
        assert replies.readline().startswith(b"OK agent=")
        assert replies.readline().startswith(b"ERR TOO_LONG")
        assert replies.read() == b""


def test_a_fault_costs_its_connection_alone(inside, port, monkeypatch):
    begin = program.Conversation.begin

    def fail(conversation, line):
        if line == b"PING -BOOM":
            raise ValueError("boom")
        return begin(conversation, line)
    monkeypatch.setattr(program.Conversation, "begin", fail)
    with calling(port) as (connection, replies), calling(port) as other:
        connection.sendall(b"PING -BOOM\n")
        assert replies.read() == b""
        assert ask_one(other, b"PING\n").startswith(b"OK agent=")
    wait_for(lambda: "boom" in inside.log(), "the log")
    inside._handler.lines.clear()


def test_a_steady_stream_is_answered_as_it_commits(inside, port, monkeypatch):
    """A commit takes 30 ms, and a request comes each 10 ms: one is always under way."""
    inside.ok("HOLD")
    commit = program.Writer._commit

    def slowly(writer, batch):
        time.sleep(0.03)
        return commit(writer, batch)
    monkeypatch.setattr(program.Writer, "_commit", slowly)
    with calling(port) as (connection, replies):
        connection.setblocking(False)
        count, received = 0, b""
        while not received:
            assert count < 300, "300 were sent, and none answered"
            connection.sendall(b"EXEC HELLO\n")
            count += 1
            time.sleep(0.01)
            with contextlib.suppress(BlockingIOError):
                received = connection.recv(65536)
        number_of(received)


@pytest.mark.parametrize("line", [b"\n", b"PING\n"])
def test_what_a_client_sends_ahead_is_left_with_it(server, port, line):
    with calling(port) as (greedy, _), calling(port) as caller:
        def drain():
            with contextlib.suppress(OSError):
                while greedy.recv(1 << 20):
                    pass

        def send():
            with contextlib.suppress(OSError):
                greedy.sendall(line * 400000)
        threads = [threading.Thread(target=drain), threading.Thread(target=send)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            assert ask_one(caller, b"PING\n").startswith(b"OK agent=")
            assert max(each.lines.size for each in list(server._front._callers)) <= 2 * 65536
            assert len(server._front._woken) < 10
            time.sleep(0.01)
        greedy.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def test_no_memory_ends_not_the_front(inside, server, port, monkeypatch):
    def fail(*_):
        raise MemoryError
    with calling(port) as caller:
        select = server._front._selector.select
        errors = [MemoryError(), MemoryError()]

        def select_later(timeout=None):
            if errors:
                raise errors.pop()
            return select(timeout)
        monkeypatch.setattr(server._front._selector, "select", select_later)
        monkeypatch.setattr(program.log, "exception", fail)     # and none to tell it
        for _ in range(3):
            assert ask_one(caller, b"PING\n").startswith(b"OK agent=")
        assert not errors and server._front._thread.is_alive()


@pytest.mark.parametrize("cause", ["begin", "register"])
def test_what_is_under_way_when_a_connection_fails_takes_its_course(inside, server, port, monkeypatch, cause):
    def fail(conversation, line):
        if line == b"PING -BOOM":
            raise MemoryError
        return begin(conversation, line)

    def refuse(*_):
        raise OSError(28, "No space left on device")
    begin, commit, go = program.Conversation.begin, program.Writer._commit, threading.Event()

    def late(writer, batch):
        assert go.wait(LIMIT_S)
        return commit(writer, batch)
    monkeypatch.setattr(program.Writer, "_commit", late)
    if cause == "begin":
        monkeypatch.setattr(program.Conversation, "begin", fail)
    with calling(port) as (connection, replies):
        if cause == "register":
            wait_for(lambda: server._front._watched, "the connection to be watched")
            monkeypatch.setattr(server._front._selector, "register", refuse)
            connection.sendall(b"EXEC HELLO\n" * 5 + b"\n" * 70)        # more than a turn: watched once more behind it
            go.set()
            lines = replies.read().splitlines()
            assert len(lines) in (0, 5)
        else:
            connection.sendall(b"EXEC HELLO\n" * 5 + b"PING -BOOM\n")
            wait_for(lambda: server._front._lost, "the fault")
            go.set()
            assert replies.read() == b""
    wait_for(lambda: sum(inside.agent.desk.tally.totals.values()) == 5, "the sessions")
    assert inside.agent.desk._requests == 0
    monkeypatch.undo()
    inside._handler.lines.clear()


def test_a_thread_that_does_not_begin_holds_nobody_else_up(inside, port, monkeypatch):
    """For each of two requests it takes two seconds to see that."""
    start, tried = threading.Thread.start, []

    def never(thread):
        if not thread.name.startswith(("client ", "slot ")):
            start(thread)
        tried.append(thread.name)
    with calling(port) as stuck, calling(port) as second, calling(port) as other:
        for caller in (stuck, second, other):
            assert ask_one(caller, b"PING\n").startswith(b"OK agent=")
        monkeypatch.setattr(threading.Thread, "start", never)
        stuck[0].sendall(b"STATUS 1001\n")
        second[0].sendall(b"STATUS 1001\n")
        wait_for(lambda: tried, "the thread")
        for _ in range(5):
            assert ask_one(other, b"PING\n").startswith(b"OK agent=")
        assert len(tried) == 1
        assert stuck[1].readline().startswith(b"ERR BUSY the host has no thread")
        assert second[1].readline().startswith(b"ERR BUSY the host has no thread")
        del tried[:]
        other[0].sendall(b"EXEC HELLO\n" * 4)
        for _ in range(4):
            number_of(other[1].readline())
        assert len(tried) <= 2, tried               # the keeper may have tried once more
        monkeypatch.undo()
    assert inside.ok("WAIT 1001")["status"] == inside.ok("WAIT 4001")["status"] == "DONE"
    inside._handler.lines.clear()


@pytest.mark.parametrize("line, answer", [(b"FOO BAR\n", b"ERR UNKNOWN_VERB"), (b"PING " + b"x" * 70000, b"ERR TOO_LONG"),
                                          (b"QUIT\n", b"OK"), (b"STATUS 1\nPING\n", b"ERR BUSY")])
def test_without_a_thread_each_request_has_one_reply(inside, port, monkeypatch, line, answer):
    def start(worker):
        raise RuntimeError("can't start new thread")
    with calling(port) as (connection, replies):
        monkeypatch.setattr(program.Worker, "start", start)
        connection.sendall(line)
        lines = replies.read().splitlines()
        monkeypatch.undo()
    assert len(lines) == 1 and lines[0].startswith(answer)


def test_a_late_ring_reaches_no_foreign_file(tmp_path):
    waker = program.Waker()
    waker.ring()
    waker.hear()
    waker.close()
    with open(str(tmp_path / "file"), "w+b") as file, open(str(tmp_path / "other"), "w+b") as other:
        waker.ring()
        assert os.fstat(file.fileno()).st_size == os.fstat(other.fileno()).st_size == 0


@pytest.mark.parametrize("lines", [b"PING\n", b"EXEC HELLO\n", b"EXEC NOPE\n", b"PING\nFOO\n", b"EXEC HELLO -START=x\n"])
def test_a_connection_leaves_nothing_to_collect(inside, server, port, lines):
    inside.ok("HOLD")
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with calling(port) as (connection, replies):
                connection.sendall(lines)
                for _ in range(lines.count(b"\n")):
                    replies.readline()
            wait_for(lambda: not server.connection_count, "its end")
        with calling(port) as caller:
            ask_one(caller, b"PING\n")
            assert len([each for each in gc.get_objects() if type(each) is program.Caller]) <= 2
    finally:
        gc.enable()


def test_without_a_thread_no_reply_is_broken_off_and_followed_by_another(server, port, monkeypatch):
    """The client reads again just when it is seen that there is no thread to wait for him."""
    blocked, go = threading.Event(), threading.Event()

    def start(worker):
        blocked.set()
        assert go.wait(LIMIT_S)
        raise RuntimeError("can't start new thread")
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with calling(port) as (greedy, _), calling(port) as other:
        assert ask_one(other, b"PING\n").startswith(b"OK agent=")
        monkeypatch.setattr(program.Worker, "start", start)

        def send():
            with contextlib.suppress(OSError):
                greedy.sendall(b"PING\n" * 60000)
        sender, received = threading.Thread(target=send), b""
        sender.start()
        assert blocked.wait(LIMIT_S)
        greedy.settimeout(0.3)
        for _ in range(2):              # all there is before, and what comes behind
            with contextlib.suppress(OSError):
                while True:
                    data = greedy.recv(65536)
                    received += data
                    if not data:
                        break
            go.set()
        wait_for(lambda: server.connection_count == 1, "its end")
        sender.join()
        assert b"BUSY" not in received and received.count(b"OK agent=") > 10
        assert ask_one(other, b"PING\n").startswith(b"OK agent=")
        monkeypatch.undo()
