"""Another user of this host at the port of an agent."""
import os
import re
import subprocess

from conftest import LIMIT_S, Dialogue

NOBODY = 65534
# bash speaks, as another user cannot read every Python
RELAY = "exec 3<>/dev/tcp/127.0.0.1/%d || exit 1; cat <&3 & cat >&3; wait"


def become_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


class OtherUser(Dialogue):
    """One connection of the OS user 65534, line by line. Root alone can make one."""

    def __init__(self, port):
        self._process = subprocess.Popen(["bash", "-c", RELAY % port], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         cwd="/", preexec_fn=become_nobody)

    def ask(self, line):
        """The lines of the reply to a request."""
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        lines = []
        while not lines or not re.match(r"(OK|ERR)\b", lines[-1]):
            text = self._process.stdout.readline().decode()
            assert text, "the connection was closed after %r" % lines
            lines.append(text.rstrip("\n"))
        return lines

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()        # the bash; its cats end with the connection and the pipe
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(LIMIT_S)
