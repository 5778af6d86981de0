"""What tests need of the audit."""
import subprocess
import sys

from conftest import AGENT, BOOT, LIMIT_S


class Notes:
    """In place of an agent: nothing of it is there but an audit, which keeps what is noted."""

    def __init__(self):
        self.audit = self.access = self
        self.noted = []

    def has(self, user):
        return user == "alice"

    def note(self, client, verb, about, outcome):
        self.noted.append((verb, about, outcome))


def verify(master, *options):
    """python agent.py --verify-audit -> (exit code, lines of output, text on standard error)."""
    done = subprocess.run([sys.executable, "-c", BOOT, str(AGENT), "--verify-audit", "--master", str(master)]
                          + list(options),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=LIMIT_S)
    return done.returncode, done.stdout.splitlines(), done.stderr
