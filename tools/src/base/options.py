"""The options of the agent's command line, as data."""
from typing import Any, NamedTuple, Optional, Tuple

from .vocabulary import (CLEAN_S, DEFAULT_NAME, DEFAULT_PORT, KEEP_DAYS, MAX_CONNECTIONS,
                         MAX_IMPORT_LINE, MAX_LINE, MAX_OUTPUT, MAX_QUEUE, MIN_LINE,
                         SESSIONS_PER_CORE)


class CommandOption(NamedTuple):
    """One option: it takes no value when none is `shown`."""
    name: str
    shown: str              # its value as --help shows it
    meaning: str
    default: Any = None
    limits: Optional[Tuple[int, int]] = None    # its value is a whole number from .. to; else text
    count: str = ""         # + for one value or more, * for any number; else one
    attribute: str = ""     # its name in the settings, where that is another

    @property
    def help_text(self):
        """What it means, with its default."""
        return self.meaning + (" (default %s)" % self.default if self.default else "")

    @property
    def words(self):
        """The option and its value as they are written on the command line."""
        more = " ..." if self.count else ""
        return (self.name + " " + self.shown + more).strip()


COMMAND_OPTIONS = (
    CommandOption("--name", "NAME", "name of the agent; sessions and schedules belong to one",
                  DEFAULT_NAME),
    CommandOption("--host", "HOST", "loopback address to listen on", "127.0.0.1"),
    CommandOption("--port", "PORT", "port to listen on, 0 for any that is free", DEFAULT_PORT,
                  (0, 65535)),
    CommandOption("--master", "PATH", "master repository (default sqlite_repos/master.db beside "
                  "agent.py, made when it does not exist)"),
    CommandOption("--create", "", "make the master of --master, and workrep.db beside it, when "
                  "they do not exist", attribute="is_creating"),
    CommandOption("--import", "FILE", "import definitions documents, also beside a running agent, "
                  "and exit", count="+", attribute="files"),
    CommandOption("--repo", "NAME", "work repository for --import (default: of the lowest id)"),
    CommandOption("--replace", "", "let --import replace scenario versions that differ"),
    CommandOption("--max-sessions", "N", "sessions that run at once (default %d per core)"
                  % SESSIONS_PER_CORE, limits=(1, 10000)),
    CommandOption("--max-queue", "N", "outstanding sessions; one more is BUSY", MAX_QUEUE,
                  (1, 10 ** 9)),
    CommandOption("--max-connections", "N", "connections at once; one more is BUSY",
                  MAX_CONNECTIONS, (1, 100000)),
    CommandOption("--max-line", "BYTES", "bytes of a request; a longer one is TOO_LONG", MAX_LINE,
                  (MIN_LINE, MAX_IMPORT_LINE)),
    CommandOption("--max-output", "BYTES", "bytes kept of what a task prints", MAX_OUTPUT,
                  (1024, 1 << 30)),
    CommandOption("--keep-days", "DAYS", "how long ended sessions are kept", KEEP_DAYS,
                  (1, 100000)),
    CommandOption("--clean-every", "SECONDS", "between two looks for stale sessions", int(CLEAN_S),
                  (1, 86400), attribute="clean_every_s"),
    CommandOption("--host-id", "ID", "identity of this host, by which stale sessions are told "
                  "(default /etc/machine-id, else its name)", ""),
    CommandOption("--insecure-fs", "", "allow repositories on a network file system",
                  attribute="is_insecure_fs"),
    CommandOption("--verify-audit", "", "look whether the chains of the audit are whole, also "
                  "beside a running agent, and exit", attribute="is_verifying"),
    CommandOption("--head", "HASH", "a hash that --verify-audit has to find in a chain: the head "
                  "that was noted elsewhere"),
    CommandOption("--manual", "TOPIC", "print the manual, or one topic of it, and exit",
                  count="*"),
    CommandOption("--version", "", "print the version and exit"),
    CommandOption("--help", "", "print these options and exit"),
)
