"""The front: one thread for all connections that ask for EXEC and PING alone."""
import contextlib
import socket
import struct
import threading

import pytest

import agent as program
from conftest import wait_for

LIMIT_S = 60


@pytest.fixture
def server(inside):
    server = program.Server(inside.agent, "127.0.0.1", 0, 300, 65536)
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
    wait_for(lambda: sum(inside.agent.desk.ended_counts.values()) == 20, "the sessions")


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
