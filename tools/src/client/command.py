"""What a command of the client is, and what an option of one."""
from typing import Callable, NamedTuple, Optional

from .spelling import spell_option


class Command(NamedTuple):
    """One row of the command table."""
    name: str               # the verb in lower case; `sched add` is one
    arguments: str          # as usage shows them; [] may be left out
    meanings: list          # [(argument, what it means)]
    options: list           # [Choice]
    show: Optional[Callable]        # (Reply, is_json); None: it is the client's own
    help: str
    is_listing: bool = False        # its reply is asked for as JSON
    is_table: bool = False          # of a listing: its rows are all alike
    # of the client's own: (options, arguments, words of requests) -> exit status
    perform: Optional[Callable] = None


class Choice(NamedTuple):
    """One option of a command."""
    name: str               # in the protocol, without its dash
    shown: str              # its value; nothing for a flag
    meaning: str
    has_default: bool = False       # without a value it makes a field default again
    is_own: bool = False            # it is for the client, not for the agent
    short: str = ""                 # the same in one letter, as -o

    @property
    def offered(self):
        """The option as it is typed."""
        return spell_option("-" + self.name)


def own(name, meaning, shown="", short=""):
    """An option that is for the client."""
    return Choice(name, shown, meaning, is_own=True, short=short)
