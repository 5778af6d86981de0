"""How a notice is sent: the order for the process that does it, of each type.

Mail and HTTP are the tasks of these names in a helper; a command gets the JSON on its standard
input, in a process that ends it when its time is over, also when the agent is gone by then.
"""
import json

from ..base.encoding import utf8_environment
from ..base.program import alone_command, open_code, program_command
from ..base.vocabulary import DONE, WARNING
from ..processes.process import Command

SENDING_S = 120         # that the sending of a notice may take
# answers that lead elsewhere, and do not take along what was posted
_LEAD_AWAY = [301, 302, 303]


class Letter:
    """A notice on its way: its id, what it says as JSON, and as a mail."""

    def __init__(self, number, document, subject, body):
        self.id, self.json = number, json.dumps(document)
        self.subject, self.body = subject, body


def send_letter(way, letter, errand, environment, server):
    """Has an Errand send a Letter as its `send` says, whose secrets are read -> what is to be said
    of that, or nothing. `server`: the data server MAIL, None: there is none. ValueError says why it
    could not be sent."""
    environment = utf8_environment(environment)
    if way["type"] == "os":
        words = way["command"]
        words = ["/bin/sh", "-c", words] if isinstance(words, str) else words

        def make_command(fd):
            return Command(alone_command(command_alone, str(fd), str(SENDING_S)) + words,
                           environment, pass_fds=(fd,))
        result = errand.run(make_command, letter.json)
    else:
        order = _mail_order(way, letter, server) if way["type"] == "mail" else \
            _http_order(way, letter)

        def make_command(fd):
            return Command(program_command("-u", "-s") + ["--task", str(fd)], environment,
                           pass_fds=(fd, open_code()))
        result = errand.run(make_command, json.dumps(order))
    message = result.get("message", "")
    if result["status"] not in (DONE, WARNING):
        raise ValueError(message or "it failed")
    if result.get("rc") in _LEAD_AWAY and way["type"] == "http":
        raise ValueError("status %d leads elsewhere, where the notice would not be posted; give "
                         "the url of that" % result["rc"])
    return message


def _mail_order(way, letter, server):
    """The order of a mail, whose text is ASCII on its way, whatever is said."""
    is_plain = all(character < "\x80" for character in letter.body)
    return {"type": "mail", "to": way["to"], "subject": letter.subject, "body": letter.body,
            "cte": None if is_plain else "quoted-printable", "attach": [], "server": server,
            "id": letter.id, "limit_s": SENDING_S}


def _http_order(way, letter):
    headers = dict({"User-Agent": "agent.py"}, **way["headers"])
    headers.update({"Content-Type": "application/json", "Idempotency-Key": letter.id})
    return {"type": "http", "url": way["url"], "method": "POST", "headers": headers,
            "body": letter.json, "is_secret": way["is_secret"],
            "expect": list(range(200, 300)) + _LEAD_AWAY,
            "expected": "200 to 299", "save": None, "capture": None, "attempts": 1,
            "limit_s": SENDING_S}


def command_alone(fd, limit_s, *words):
    """In a process by itself: runs a command with this one's standard input, ends it and its
    process group when its time is over. What came of it goes to `fd` as JSON."""
    import json
    import os
    import signal
    import subprocess
    import tempfile
    status, message = "ERROR", ""
    try:
        with tempfile.TemporaryFile() as errors:
            popen = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors)
            try:
                popen.wait(float(limit_s))
                if popen.returncode:
                    errors.seek(0, os.SEEK_END)
                    errors.seek(max(0, errors.tell() - 300))
                    lines = errors.read().decode("utf-8", "replace").strip().split("\n")
                    message = "exit code %d" % popen.returncode + (lines[-1] and ": " + lines[-1])
                else:
                    status = "DONE"
            except subprocess.TimeoutExpired:
                message = "took over %s s" % limit_s
    except (OSError, ValueError) as error:
        message = "cannot start: %s: %s" % (getattr(error, "strerror", None) or error, words[0])
    with open(int(fd), "w") as file:
        json.dump({"status": status, "message": message}, file)
    if message.startswith("took"):
        os.killpg(0, signal.SIGKILL)
