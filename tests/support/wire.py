"""Bytes to an agent, as any program may send them."""
import re
import socket
import threading


def converse(running, data, is_ended=True):
    """All that comes back until the agent closes, for these bytes; with `is_ended`, and the end of input."""
    with running.connect() as client:
        client.send_raw(data)
        if is_ended:
            client.socket.shutdown(socket.SHUT_WR)
        received = b""
        while True:
            part = client.socket.recv(65536)
            if not part:
                return received.decode().splitlines()
            received += part


def codes(lines):
    """The last lines of replies: OK, or ERR and its code."""
    return [" ".join(line.split()[:2]) if line.startswith("ERR") else line.split()[0]
            for line in lines if re.match(r"(OK|ERR)\b", line)]


def client_threads():
    """The threads of this process that serve a connection each."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("client ")]
