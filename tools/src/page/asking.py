"""What a page asks of the agent, by the verbs of the protocol."""
import json
from typing import NamedTuple

from ..protocol.conversation import Conversation
from ..protocol.lines import FLUSH


class Response(NamedTuple):
    """The reply to a verb: its data lines, the fields of its last line, and what went wrong."""
    rows: list
    fields: dict
    code: str = ""          # of an error
    message: str = ""


class Asker:
    """Asks an agent for a Client, at one instant of its clock: so a page shows nothing that the
    protocol does not."""

    def __init__(self, agent, client):
        self.agent, self.client, self.now = agent, client, agent.clock.now()

    def ask(self, verb_name, *words, **options):
        """The Response to a verb with words, and options by their names in small letters, of which
        those that are None are left out. `choose` among them makes the list of data lines shorter,
        each as its text `* {...}`."""
        choose = options.pop("choose", list)
        quoted = [json.dumps(str(word)) for word in words]
        quoted += ["-%s=%s" % (name.upper(), json.dumps(str(value)))
                   for name, value in options.items() if value is not None]
        lines = self._list_lines(" ".join([verb_name, "-JSON"] + quoted))
        rows = [json.loads(line[2:]) for line in choose(lines[:-1])]
        if lines[-1].startswith("OK"):
            return Response(rows, json.loads(lines[-1][3:]))
        _, code, fields = lines[-1].split(" ", 2)
        return Response(rows, {}, code, json.loads(fields)["message"])

    def list_lines(self, verb_name):
        """The data lines of a verb's reply as they are, and its last line."""
        lines = self._list_lines(verb_name)
        return [line[2:] for line in lines[:-1]], lines[-1]

    def _list_lines(self, request):
        conversation = Conversation(self.agent, self.client, access=self.agent.access)
        return [line for line in conversation.begin(request.encode()).chunks()
                if line is not FLUSH]
