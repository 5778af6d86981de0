"""Servers on free ports of 127.0.0.1, whose handlers a test makes; they keep every byte that they could read."""
import base64
import email
import email.policy
import socket
import socketserver
import ssl
import sys
import threading
import time
import traceback

from conftest import LIMIT_S, wait_for

SECRET = "s3cr3t"           # what nobody but the own origin may see


class Peer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A server on a free port of 127.0.0.1. `seen` is what its handler understood, `received` all that it read."""
    daemon_threads = allow_reuse_address = True
    block_on_close = False

    def __init__(self, handler, context=None, **options):
        super().__init__(("127.0.0.1", 0), handler)
        self.port, self.context, self.options = self.server_address[1], context, options
        self.seen, self.received, self.faults, self.answers = [], [], [], {}
        self._lock, self._open = threading.Lock(), 0
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def process_request(self, request, client_address):
        with self._lock:
            self._open += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open -= 1

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):      # a client that went away, or trusts nobody
            self.faults.append(traceback.format_exc())

    def text(self):
        """All that has come, once every connection is over."""
        wait_for(lambda: self._open == 0, "the ends of the connections")
        return b"".join(self.received).decode("latin-1")

    def close(self):
        self.shutdown()
        self.server_close()
        assert not self.faults, "".join(self.faults)


class Recorded(socketserver.BaseRequestHandler):
    """A connection whose bytes are kept; it speaks TLS from its first byte on where the client does."""

    def setup(self):
        self.request.settimeout(LIMIT_S)
        self.buffer = b""
        if self.server.context and not self.server.options.get("starttls"):
            if self.request.recv(1, socket.MSG_PEEK) == b"\x16":
                self.to_tls()

    def to_tls(self):
        self.request = self.server.context.wrap_socket(self.request, server_side=True)

    def finish(self):
        self.request.close()

    def line(self):
        """The next line with its end; what is left at the end of input."""
        while b"\n" not in self.buffer and self._more():
            pass
        line, end, self.buffer = self.buffer.partition(b"\n")
        return line + end

    def take(self, size):
        while len(self.buffer) < size and self._more():
            pass
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def _more(self):
        data = self.request.recv(1 << 16)
        self.server.received.append(data)
        self.buffer += data
        return data

    def say(self, *lines):
        self.request.sendall("".join(line + "\r\n" for line in lines).encode("latin-1"))


class Post(Recorded):
    """As much of SMTP as a client needs; nobody@... is refused. Options: `starttls` (offers it; "454": and has it
    not), `login` (wants one), `quit` (the answer to QUIT), `trickle` (an answer to EHLO that never ends)."""

    def handle(self):
        self.is_tls, self.sender, self.to = isinstance(self.request, ssl.SSLSocket), "", []
        self.say("220 test")
        while True:
            line = self.line().decode("latin-1").strip()
            word = line.upper().partition(" ")[0]
            if not word or not getattr(self, "on_" + word.lower(), self.other)(line):
                return

    def other(self, line):
        self.say("250 ok")
        return True

    def on_ehlo(self, line):
        options = self.server.options
        while options.get("trickle"):
            self.say("250-more")
            time.sleep(0.05)
        self.say("250-test", *(["250-STARTTLS"] if options.get("starttls") and not self.is_tls else []))
        self.say("250 AUTH PLAIN" if options.get("login") else "250 HELP")
        return True

    def on_starttls(self, line):
        if self.server.options["starttls"] == "454":
            return self.say("454 not now") or True
        self.say("220 go on")
        self.to_tls()
        self.is_tls = True
        return True

    def on_auth(self, line):
        is_right = base64.b64decode(line.split()[2]) == ("\0me\0" + SECRET).encode()
        self.say("235 welcome" if is_right else "535 no")
        return True

    def on_mail(self, line):
        self.sender, self.to = line[10:], []
        return self.other(line)

    def on_rcpt(self, line):
        if "nobody@" in line:
            self.say("550 unknown")
        else:
            self.to.append(line[8:].strip("<> "))
            self.say("250 ok")
        return True

    def on_data(self, line):
        self.say("354 go on")
        data = b""
        while not data.endswith(b"\r\n.\r\n"):
            data += self.line()
        message = email.message_from_bytes(data[:-3], policy=email.policy.default)
        self.server.seen.append((self.sender, self.to, message))
        return self.other(line)

    def on_quit(self, line):
        self.say(self.server.options.get("quit", "221 bye"))


class Hook(Recorded):
    """Takes what is posted by HTTP: `seen` has (path, headers, body). Options: `statuses`, of the answers in order, the
    last for all that follow; `location`, a header of them; `silent`: there is no answer."""

    def handle(self):
        request = self.line().decode("latin-1").split()
        headers = email.message_from_bytes(b"".join(iter(lambda: self.line().replace(b"\r", b""), b"\n")))
        body = self.take(int(headers.get("Content-Length", 0)))
        options = self.server.options
        self.server.seen.append((request[1], headers, body))
        if options.get("silent"):
            self._more()                # until the other end gives up
            return
        statuses = options.get("statuses", [200])
        place = [] if "location" not in options else ["Location: " + options["location"]]
        self.say("HTTP/1.1 %d x" % statuses[min(len(self.server.seen), len(statuses)) - 1], *place,
                 "Content-Length: 0", "Connection: close", "")
