"""What a form of a request is: its words, their kinds and meanings, its role, and its reply."""
import re
from typing import NamedTuple, Optional

from .replies import NOTHING

# what the data lines of a reply are
AS_FIELDS = "fields"        # there are none, or they are fields as those of the OK
AS_ROWS = "rows"            # rows of a table; JSON objects with -JSON
AS_RECORD = "record"        # likewise, and the first is what the others belong to
AS_TEXT = "text"
AS_DOCUMENT = "document"    # one JSON document over many lines
AS_LOG = "log"              # TIME STEP/TASK out|err TEXT


class Form(NamedTuple):
    """One verb. Its words are those behind the name, as HELP shows them: arguments, then options;
    [] may be left out."""
    name: str               # SCHED ADD is one, by its first two words
    words: str
    role: Optional[str]     # None: everybody
    help: str
    reply: str = AS_FIELDS
    oks: tuple = (NOTHING,)     # the ReplyLines that its OK may be
    lines: tuple = ()           # those of its data lines, where they are fields
    kinds: dict = {}        # word -> its kind, where that is not the one of KIND_WORDS
    meanings: dict = {}     # word -> what it means, where WORD_MEANINGS does not say it
    # whether later requests of its connection are begun while it waits for its commit
    is_pipelined: bool = False

    @property
    def text(self):
        """The whole request: the verb and its words, as HELP shows it."""
        return ("%s %s" % (self.name, self.words)).strip()

    @property
    def usage(self):
        """The words without the options."""
        return re.split(r" ?\[-", self.words)[0]


class Part(NamedTuple):
    """One argument or option of a form; an option's name begins with its dash."""
    name: str
    kind: Optional[str]     # None: a flag, which has no value
    shown: str              # a value as HELP shows it; nothing for an argument or a flag
    is_required: bool
    is_value_optional: bool
    meaning: str

    @property
    def is_field(self):
        """Whether it sets a field of a schedule."""
        return self.kind is not None and self.kind.startswith("field ")


# the usual kinds of words: what a kind means is protocol/table's to say
KIND_WORDS = {
    "AGENT": "name", "AT": "time", "CONTEXT": "name", "COUNT": "count", "DAYS": "days",
    "DOCUMENT": "text", "DUE": "past", "FROM": "time", "HOST": "label", "KEEP": "amount",
    "KEY": "token", "KEYWORD": "label", "KEYWORDS": "label", "LEVEL": "level", "LIMIT": "limit",
    "MAX_WAIT": "seconds", "NAME": "name", "PARENT": "session", "PATH": "token",
    "PRIORITY": "priority", "REASON": "label", "REPO": "name", "RULE": "text", "SCENARIO": "name",
    "SCHEDULE": "name", "SECOND": "text", "SESSION": "session", "SINCE": "past",
    "STATUS": "states", "STEP": "name", "STREAM": "stream", "SYNC": "seconds", "TAIL": "amount",
    "TIMEOUT": "timeout", "TO": "end", "UNTIL": "end", "VERB": "text", "VERSION": "version",
}

# what words mean, where the form does not say it
WORD_MEANINGS = {
    "CONTEXT": "context, GLOBAL if left out",
    "DATES": "dates and ranges, between commas: 2026-12-25,2026-12-27..2027-01-03",
    "NAME": "name of the schedule",
    "SCENARIO": "name of the scenario",
    "SESSION": "number of the session",
    "VERSION": "version of the scenario; -1 is the latest",
    "-JSON": "each data line is a JSON object",
    "-LIMIT": "how many lines at most (50)",
}
