"""Requests for the operator page, as browsers make them."""
import base64
import socket

from conftest import LIMIT_S

# what Chromium 156 sends when an address is typed, but for its first line and Host; recorded
TYPED = ("Connection: keep-alive\r\n"
         "sec-ch-ua: \"Not:A-Brand\";v=\"8\", \"Chromium\";v=\"156\"\r\nsec-ch-ua-mobile: ?0\r\n"
         "sec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n"
         "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 "
         "Safari/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
         "image/apng,*/*;q=0.8\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\n"
         "Sec-Fetch-Dest: document\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n")


class Reply:
    """An answer by HTTP, taken apart: it has to be whole."""

    def __init__(self, data):
        head, separator, self.body = data.partition(b"\r\n\r\n")
        assert separator and head.startswith(b"HTTP/1.1 "), data[:200]
        first, *lines = head.decode("ascii").split("\r\n")
        self.status = int(first.split()[1])
        pairs = [line.split(": ", 1) for line in lines]
        self.headers = {name.lower(): value for name, value in pairs}
        assert len(self.headers) == len(pairs) and int(self.headers["content-length"]) == len(self.body), head

    @property
    def text(self):
        return self.body.decode("utf-8")


def browse(port, path="/", host="localhost", headers="", connection=None):
    """The Reply to a GET as a browser sends it; over a connection of its own, or one that is handed in."""
    head = "GET %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n" % (path, host, headers, "" if "ec-Fetch" in headers else TYPED)
    return Reply(exchange(port, head.encode("latin-1"), connection))


def exchange(port, data, connection=None):
    """All that comes back for these bytes, until the agent closes."""
    with connection or socket.create_connection(("127.0.0.1", port), LIMIT_S) as client:
        client.sendall(data)
        received = b""
        while True:
            part = client.recv(65536)
            if not part:
                return received
            received += part


def basic(name, password):
    """The header of a login."""
    return "Authorization: Basic %s\r\n" % base64.b64encode(("%s:%s" % (name, password)).encode()).decode()
