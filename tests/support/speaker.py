"""Sends an agent whatever a generator makes, and looks at the form of each reply."""
import json
import re
import time

from conftest import program
from support.users import Guest

SLOW_S = 30             # generous: the machine may be slow, and no request of these has much to do
CODES = {kind.code for kind in program.CODES} - {"INTERNAL"}
AT_WORK = [form for form in program.VERB_FORMS if form.name not in ("SHUTDOWN", "QUIT", "DETACH")]


class Speaker:
    """Sends requests of a generator to an agent in this process, by conversations as somebody of a role."""

    def __init__(self, running, role):
        self._running, self._client = running, program.Client(role, "fuzz")
        self._conversation, self.counts, self.slowest = None, {}, (0.0, b"")

    def converse(self):
        """One more conversation."""
        return program.Conversation(self._running.agent, self._client)

    def say(self, line):
        """Sends a request and checks the form of its reply -> its code, or OK."""
        if self._conversation is None or self._conversation.is_over:
            self._conversation = self.converse()
            list(self._conversation.begin(b"HELP").chunks())        # what is wrong from then on costs only itself
        begun = time.monotonic()
        reply = self._conversation.begin(line)
        lines = [] if reply is None else [text for text in reply.chunks() if text is not program.FLUSH]
        self.slowest = max(self.slowest, (time.monotonic() - begun, line[:300]))
        code = self._check(line, lines)
        self.counts[code] = self.counts.get(code, 0) + 1
        return code

    def _check(self, line, lines):
        if not lines:
            return "BLANK"
        shown = (line[:3000], [text[:1000] for text in lines[-3:]], self._running.log()[-3000:])
        assert re.match("OK( |$)|ERR [A-Z_]+ ", lines[-1]), shown
        assert all(re.match(r"\*( |$)", text) for text in lines[:-1]), shown
        assert not any(re.search("[\n\r\0]", text) for text in lines), shown
        code = lines[-1].split()[1] if lines[-1].startswith("ERR") else "OK"
        assert code == "OK" or code in CODES, shown
        assert self.slowest[0] < SLOW_S, self.slowest
        if re.match("(OK|ERR [A-Z_]+) [{]", lines[-1]):
            json.loads(lines[-1].split(" ", 2 if code != "OK" else 1)[-1])
        return code


class UserSpeaker(Speaker):
    """The same as a user whom the host knows by an OS user, for whom something is not there: no reply has this text."""

    def __init__(self, running, uid, hidden):
        super().__init__(running, None)
        self._uid, self._hidden = uid, hidden

    def converse(self):
        return Guest(self._running, self._uid).conversation

    def _check(self, line, lines):
        assert self._hidden not in "\n".join(lines), (line[:3000], [text for text in lines if self._hidden in text][:3])
        return super()._check(line, lines)
