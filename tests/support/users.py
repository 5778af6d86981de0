"""Those who ask an agent in the test's own process: by a password, or by the host's word."""
import itertools

from conftest import Dialogue, program

UIDS = itertools.count(3000000)         # of OS users that this host does not have


class Guest(Dialogue):
    """One more conversation with an AgentInside, of a Peer whom the agent may know."""

    def __init__(self, running, uid=None, **peer):
        peer.setdefault("address", "127.0.0.1")
        place = program.Peer(uid, "uid %s" % uid, **peer)
        self.conversation = program.Conversation(running.agent, running.agent.access.identify(place),
                                                 access=running.agent.access)

    def ask(self, line):
        """The lines of the reply to a request."""
        reply = self.conversation.begin(line.encode())
        return [text for text in reply.chunks() if text is not program.FLUSH] if reply else []

    def code(self, line):
        """OK, or the code of the error."""
        last = self.ask(line)[-1].split()
        return last[1] if last[0] == "ERR" else last[0]

    def log_in(self, name, password):
        """AUTH -> itself."""
        self.ok('AUTH %s "%s"' % (name, password))
        return self


def add_guest(running, role, scenarios="", name=None):
    """Adds a user who is let in as an OS user -> his Guest."""
    uid = next(UIDS)
    running.ok("USERS ADD %s -ROLE=%s -SCENARIOS=%s -OS_USER=%d" % (name or "guest%d" % uid, role, scenarios, uid))
    return Guest(running, uid)


def add_user(running, name, role, password="correct horse", **peer):
    """Adds a user with a password of his own -> his Guest, who has said it."""
    running.ok("USERS ADD %s -ROLE=%s" % (name, role))
    running.ok('USERS PASSWORD %s "%s"' % (name, password))
    return Guest(running, **peer).log_in(name, password)
