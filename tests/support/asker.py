"""Requests whose replies come while the test goes on."""
import threading

from conftest import LIMIT_S, program


class Asker(threading.Thread):
    """One request, its reply as it comes."""

    def __init__(self, running, line):
        super().__init__(daemon=True)
        self.lines = []
        self._conversation = program.Conversation(running.agent, program.Client(program.ADMINISTRATOR, "test"))
        self._line = line
        self.start()

    def run(self):
        for text in self._conversation.begin(self._line.encode()).chunks():
            self.lines.append(text)

    def has(self, text):
        return any(text in line for line in self.lines if isinstance(line, str))

    def is_ok(self):
        return self.lines[-1].split()[0] == "OK"

    def finish(self):
        """Waits for the end of its reply -> itself."""
        self.join(LIMIT_S)
        assert not self.is_alive(), self.lines
        return self

    def texts(self):
        return [line.split(" ", 4)[4] for line in self.lines[:-1] if isinstance(line, str)]
