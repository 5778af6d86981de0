"""The options of the agent's command line, as data."""
from typing import Any, NamedTuple, Optional, Tuple

from .vocabulary import (CLEAN_S, DEFAULT_NAME, DEFAULT_PORT, ENGINE_LOOK_S, IDLE_S, KEEP_DAYS,
                         LINE_S, MAX_BATCH, MAX_CONNECTIONS, MAX_IMPORT_LINE, MAX_LINE, MAX_OUTPUT,
                         MAX_PER_ADDRESS, MAX_QUEUE, MIN_LINE, SEND_S, SESSIONS_PER_CORE,
                         STRANGER_S)


class CommandOption(NamedTuple):
    """One option: it takes no value when none is `shown`."""
    name: str
    shown: str              # its value as --help shows it
    meaning: str
    default: Any = None
    limits: Optional[Tuple[int, int]] = None    # its value is a whole number from .. to; else text
    count: str = ""         # + for one value or more, * for any number, ? for one or none
    choices: Optional[Tuple[str, ...]] = None
    attribute: str = ""     # its name in the settings, where that is another
    is_path: bool = False

    @property
    def help_text(self):
        """What it means, with its default."""
        return self.meaning + (" (default %s)" % self.default if self.default else "")

    @property
    def words(self):
        """The option and its value as they are written on the command line."""
        if self.count == "?":
            return "%s [%s]" % (self.name, self.shown)
        more = " ..." if self.count else ""
        return (self.name + " " + self.shown + more).strip()

    def find_value(self, settings):
        """Its value in the settings, the namespace of argparse."""
        return getattr(settings, self.attribute or self.name[2:].replace("-", "_"))


COMMAND_OPTIONS = (
    CommandOption("--name", "NAME", "name of the agent; sessions and schedules belong to one",
                  DEFAULT_NAME),
    CommandOption("--host", "HOST", "address to listen on; other than loopback it needs a user "
                  "and --tls-cert", "127.0.0.1"),
    CommandOption("--port", "PORT", "port to listen on, 0 for any that is free", DEFAULT_PORT,
                  (0, 65535)),
    CommandOption("--unix", "PATH", "listen on a UNIX socket, too", is_path=True),
    CommandOption("--unix-mode", "MODE", "mode of its file, octal", "0600"),
    CommandOption("--tls-cert", "FILE", "serve TLS, too, with this certificate and those that it "
                  "needs (PEM); read again at SIGHUP", is_path=True),
    CommandOption("--tls-key", "FILE", "its key (default: in the file of --tls-cert)",
                  is_path=True),
    CommandOption("--tls-client-ca", "FILE", "authorities (PEM) whose certificates say which user "
                  "a client is", is_path=True),
    CommandOption("--insecure", "", "serve an address that is not loopback without a user, and "
                  "without TLS", attribute="is_insecure"),
    CommandOption("--page-host", "NAMES", "names, with commas, by which browsers may ask for the "
                  "operator page, beside --host and those of loopback"),
    CommandOption("--master", "PATH", "master repository (default sqlite_repos/master.db beside "
                  "agent.py, made when it does not exist)", is_path=True),
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
    CommandOption("--max-per-address", "N", "connections from one address at once, those of the "
                  "agent's own OS user aside; one more is BUSY", MAX_PER_ADDRESS, (1, 100000)),
    CommandOption("--max-requests", "N", "requests of one connection under way; further ones are "
                  "read later", MAX_BATCH, (1, 100000)),
    CommandOption("--stranger-timeout", "SECONDS", "how long a client is waited for until it is "
                  "known who it is", int(STRANGER_S), (1, 86400), attribute="stranger_s"),
    CommandOption("--idle-timeout", "SECONDS", "how long a connection may be silent (default %d; "
                  "of the agent's own OS user: for ever)" % IDLE_S, limits=(1, 10 ** 8),
                  attribute="idle_s"),
    CommandOption("--line-timeout", "SECONDS", "how long a line may take from its first byte on "
                  "(default %d; of the agent's own OS user: for ever)" % LINE_S,
                  limits=(1, 10 ** 8), attribute="line_s"),
    CommandOption("--send-timeout", "SECONDS", "how long 64 KiB of a reply may take (default %d; "
                  "of the agent's own OS user: for ever)" % SEND_S, limits=(1, 10 ** 8),
                  attribute="send_s"),
    CommandOption("--max-line", "BYTES", "bytes of a request; a longer one is TOO_LONG", MAX_LINE,
                  (MIN_LINE, MAX_IMPORT_LINE)),
    CommandOption("--max-output", "BYTES", "bytes kept of what a task prints", MAX_OUTPUT,
                  (1024, 1 << 30)),
    CommandOption("--keep-days", "DAYS", "how long ended sessions are kept", KEEP_DAYS,
                  (1, 100000)),
    CommandOption("--clean-every", "SECONDS", "between two looks for stale sessions", int(CLEAN_S),
                  (1, 86400), attribute="clean_every_s"),
    CommandOption("--engine-look", "SECONDS", "between two looks at the tasks of an engine",
                  int(ENGINE_LOOK_S), (1, 3600), attribute="engine_look_s"),
    CommandOption("--engine-patience", "SECONDS", "how long tasks wait for an engine that does not "
                  "answer, until they end in ERROR (default for ever)", limits=(1, 10 ** 8),
                  attribute="engine_patience_s"),
    CommandOption("--host-id", "ID", "identity of this host, by which stale sessions are told "
                  "(default /etc/machine-id, else its name)", ""),
    CommandOption("--no-owner", "", "ask the agent's own OS user and root to AUTH, as everybody; "
                  "there has to be a user who is an administrator", attribute="has_no_owner"),
    CommandOption("--allow-types", "TYPES", "types of tasks that may run, with commas (default "
                  "all)"),
    CommandOption("--root", "DIR", "folder that the files of tasks must lie in; needs "
                  "--allow-types without os and python", is_path=True),
    CommandOption("--run-as", "USER", "user as whom all processes of tasks run; for an agent that "
                  "root starts"),
    CommandOption("--as-root", "", "let an agent of root without --run-as listen on an address "
                  "that is not loopback", attribute="is_root_wanted"),
    CommandOption("--insecure-fs", "", "allow repositories on a network file system",
                  attribute="is_insecure_fs"),
    CommandOption("--log", "FILE", "write the log there instead of to stderr; SIGHUP opens it anew",
                  is_path=True),
    CommandOption("--log-size", "BYTES", "at this size FILE becomes FILE.1, and so on to FILE.5",
                  10 * 1024 * 1024, (1024, 1 << 40)),
    CommandOption("--log-format", "text|json", "lines of text, or JSON objects", "text",
                  choices=("text", "json")),
    CommandOption("--service", "system|user", "print a systemd unit that runs the agent with these "
                  "options, for this host or this user, and exit", count="?",
                  choices=("system", "user")),
    CommandOption("--doctor", "", "look at the repositories, also beside a running agent, tell "
                  "what is wrong and what to do, and exit", attribute="is_doctor"),
    CommandOption("--repair", "", "let --doctor mend what is safe to mend; no agent may run on "
                  "the master", attribute="is_repairing"),
    CommandOption("--restore", "FOLDER", "put a backup in the place of the master and its work "
                  "repositories, where no agent runs, and exit", attribute="backup"),
    CommandOption("--verify-audit", "", "look whether the chains of the audit are whole, also "
                  "beside a running agent, and exit", attribute="is_verifying"),
    CommandOption("--head", "HASH", "a hash that --verify-audit has to find in a chain: the head "
                  "that was noted elsewhere"),
    CommandOption("--manual", "TOPIC", "print the manual, or one topic of it, and exit",
                  count="*"),
    CommandOption("--version", "", "print the version and exit"),
    CommandOption("--help", "", "print these options and exit"),
)
