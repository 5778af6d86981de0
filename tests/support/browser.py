"""A headless Chromium, driven over its DevTools port (chromedevtools.github.io/devtools-protocol) by a WebSocket of our
own (RFC 6455): one tab, its requests, its console, and pictures of it. It uses nothing of the tests, so that
tools/shots.py can use it, too."""
import base64
import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")
BROWSER_S = 60          # generous: the machine may be slow
OPTIONS = ("--headless=new", "--remote-debugging-port=0", "--remote-allow-origins=*", "--disable-gpu",
           "--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--disable-sync",
           "--disable-component-update", "--disable-extensions", "--disable-default-apps", "--mute-audio",
           "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb", "--lang=en-US",
           "--font-render-hinting=none", "--password-store=basic")


def find_browser():
    """The path of a Chromium of this host, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Socket:
    """A WebSocket as a client speaks it: texts, whole."""

    def __init__(self, port, path):
        self._socket = socket.create_connection(("127.0.0.1", port), BROWSER_S)
        self._file = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(("GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % (path, port, key)).encode())
        head = self._file.readline()
        assert b" 101 " in head, head
        while self._file.readline().strip():
            pass

    def send(self, text):
        data, mask = text.encode(), os.urandom(4)
        size = bytes([0x80 | len(data)]) if len(data) < 126 else \
            b"\xfe" + len(data).to_bytes(2, "big") if len(data) < 65536 else b"\xff" + len(data).to_bytes(8, "big")
        self._socket.sendall(b"\x81" + size + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))

    def receive(self):
        """The next text."""
        text = b""
        while True:
            first, second = self._read(2)
            size = second & 0x7f
            if size > 125:
                size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
            data = self._read(size)
            if first & 0x0f in (0, 1):
                text += data
                if first & 0x80:
                    return text.decode()
            assert first & 0x0f != 8, "the browser has closed the connection"

    def _read(self, size):
        data = self._file.read(size)
        assert len(data) == size, "the browser has gone"
        return data

    def close(self):
        self._file.close()
        self._socket.close()


class Browser:
    """One tab of a Chromium of its own, with a profile that is thrown away. `requests` are the addresses that it has
    asked for, `answers` what came: address -> status; `console` what it has complained of. `user`: (uid, gid) of the OS
    user that it runs as."""

    def __init__(self, *options, user=None):
        self._profile = tempfile.mkdtemp(prefix="browser")
        if user:
            os.chown(self._profile, *user)
        options += ("--no-sandbox",) * (os.getuid() == 0)

        def become():
            if user:
                os.setgroups([])
                os.setgid(user[1])
                os.setuid(user[0])
        self._process = subprocess.Popen(
            [find_browser(), *OPTIONS, *options, "--user-data-dir=" + self._profile, "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=become, cwd="/", env=dict(os.environ, HOME=self._profile, TZ="UTC", LC_ALL="C.UTF-8"))
        self._number, self._events = 0, collections.deque()
        self.requests, self.answers, self.console = [], {}, []
        try:
            self._socket = self._attach()
        except BaseException:
            self.close()
            raise
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(domain + ".enable")

    def _attach(self):
        """The Socket of its first tab."""
        path, until = pathlib.Path(self._profile) / "DevToolsActivePort", time.monotonic() + BROWSER_S
        while True:
            assert self._process.poll() is None and time.monotonic() < until, "the browser does not start"
            with contextlib.suppress(OSError, ValueError, IndexError):
                port = int(path.read_text().split()[0])
                with socket.create_connection(("127.0.0.1", port), BROWSER_S) as client:
                    client.sendall(b"GET /json/list HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    text = b""
                    while b"\r\n\r\n" not in text or b"]" not in text.partition(b"\r\n\r\n")[2]:
                        part = client.recv(65536)
                        if not part:
                            break
                        text += part
                tabs = [tab for tab in json.loads(text.partition(b"\r\n\r\n")[2].decode()) if tab["type"] == "page"]
                return Socket(port, "/" + tabs[0]["webSocketDebuggerUrl"].split("/", 3)[3])
            time.sleep(0.05)

    def ask(self, method, **words):
        """The result of a command of DevTools."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": words}))
        while True:
            message = json.loads(self._socket.receive())
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, message):
        """An event."""
        name, words = message.get("method"), message.get("params", {})
        if name == "Network.requestWillBeSent":
            self.requests.append(words["request"]["url"])
        elif name == "Network.responseReceived":
            self.answers[words["response"]["url"]] = words["response"]["status"]
        elif name == "Log.entryAdded" and words["entry"]["level"] in ("warning", "error"):
            self.console.append("%(level)s: %(text)s" % words["entry"])
        elif name == "Runtime.consoleAPICalled" and words["type"] in ("warning", "error", "assert"):
            self.console.append("%s: %s" % (words["type"], words["args"]))
        elif name == "Runtime.exceptionThrown":
            self.console.append("exception: %s" % words["exceptionDetails"])
        self._events.append(name)

    def run(self, script):
        """The value of an expression in the page."""
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def go(self, address):
        """Opens an address, and waits until it is loaded."""
        self._events.clear()
        error = self.ask("Page.navigate", url=address).get("errorText")
        assert not error, error
        self.wait_for(lambda: "Page.loadEventFired" in self._events, address + " to be loaded")

    def wait_for(self, condition, what, limit_s=BROWSER_S):
        """Waits until condition() is true -> its value."""
        until = time.monotonic() + limit_s
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < until, "timed out waiting for %s" % what
            self.run("1")               # what has happened is told with its answer
            time.sleep(0.02)

    def wait_true(self, script):
        """Waits until an expression in the page is true -> its value."""
        return self.wait_for(lambda: self.run(script), script)

    def show(self, width, height, is_dark=False, scale=1):
        """The size of its window, and which colours its user wants."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                 mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"}])

    def press(self, key, code=None, text=""):
        """Presses a key."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, text=text if kind == "keyDown" else "",
                     windowsVirtualKeyCode={"Tab": 9, "Enter": 13, " ": 32}.get(key, 0))

    def picture(self, path, is_whole=True):
        """Writes a PNG of the page."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=is_whole)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        """Ends it, and what it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if hasattr(self, "_socket"):
            self._socket.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
