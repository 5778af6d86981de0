"""The verbs as commands, and the command line that names one."""
import argparse
import re
from typing import Callable, NamedTuple

from .words import as_typed, quote, render_option
from .shown import (show_acknowledgement, show_document, show_listing, show_log, show_record,
                    show_text)

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_OPTION = re.compile(r"-([A-Z][A-Z_]+)(?:=(.*))?", re.DOTALL)


class Command(NamedTuple):
    """One row of the command table."""
    name: str               # the verb in lower case; `sched add` is one
    arguments: str          # as usage shows them; [] may be left out
    options: str            # as the protocol names them; a flag has no `=value`
    show: Callable          # (Reply, is_json)
    help: str


CRONTAB_OPTIONS = ("CRONTAB", "SYSTEM", "DRY_RUN")        # the client's own
SCHEDULE_FIELDS = (
    "AGENT=name TIMEZONE=zone ENABLED=yes|no FROM=time TO=time HOURS=08:00-18:00 "
    "EXCLUDE_WEEKDAYS=sat,sun "
    "EXCLUDE_MONTHDAYS=1,last EXCLUDE_DATES=a,b..c,calendar REPEAT_EVERY=s REPEAT_COUNT=n "
    "REPEAT_FOR=s "
    "GAP=run|skip FOLD=first|both JITTER=s AFTER=a,b/2h,scenario:c NAME=text KEYWORDS=a,b "
    "PRIORITY=n "
    "ATTEMPTS=n RETRY_DELAY=s TIMEOUT=s OVERLAP=queue|skip|parallel|stop MISFIRE=once|all|skip "
    "GRACE=s REPO=name")
COMMANDS = [Command(*row) for row in (
    ("ping", "", "", show_acknowledgement, "how the agent is"),
    ("exec", "SCENARIO [VERSION] [CONTEXT] [VARIABLE=value ...]",
     "REPO=name NAME=text KEYWORDS=a,b AT=time KEY=token "
     "PRIORITY=n LEVEL=n TIMEOUT=s AGENT=name WAIT", show_acknowledgement,
     "start a session of a scenario; with --wait the exit status is the session's"),
    ("stop", "SESSION", "IMMEDIATE", show_acknowledgement,
     "stop a session after the task now running, or at once"),
    ("restart", "SESSION [VARIABLE=value ...]", "FROM=step", show_acknowledgement,
     "go on with a session that ended in ERROR or STOPPED"),
    ("wait", "SESSION", "TIMEOUT=s", show_acknowledgement,
     "wait for the end of a session; its exit status"),
    ("sessions", "", "STATUS=a,b SCENARIO=name SCHEDULE=name REPO=name KEYWORD=word SINCE=time "
                     "LIMIT=n", show_listing,
     "list sessions, newest first"),
    ("status", "SESSION", "", show_record, "a session with its steps, tasks and variables"),
    ("log", "SESSION", "FOLLOW", show_log,
     "what the tasks of a session printed; --follow as they print it"),
    ("sched list", "", "REPO=name", show_listing, "list the schedules"),
    ("sched show", "NAME", "REPO=name", show_record, "one schedule with its variables and hold"),
    ("sched add", "NAME SCENARIO VERSION CONTEXT [RULE] [VARIABLE=value ...]", SCHEDULE_FIELDS,
     show_acknowledgement,
     "add a schedule; VERSION -1 is the latest"),
    ("sched set", "NAME [VARIABLE=value ...]",
     "SCENARIO=name VERSION=version CONTEXT=name RULE=rule "
     + SCHEDULE_FIELDS, show_acknowledgement, "change a schedule"),
    ("sched del", "NAME", "REPO=name", show_acknowledgement, "delete a schedule"),
    ("sched on", "NAME", "REPO=name", show_acknowledgement, "enable a schedule"),
    ("sched off", "NAME", "REPO=name", show_acknowledgement, "disable a schedule"),
    ("sched next", "[NAME]", "COUNT=n FROM=time TO=time ALL REPO=name", show_listing,
     "coming due times, with --all what is excluded too; nothing fires"),
    ("sched plan", "", "FROM=time TO=time ALL REPO=name", show_listing,
     "play a period: what would overlap, queue, be skipped, never fit"),
    ("sched why", "[NAME]", "LIMIT=n REPO=name", show_listing,
     "what became of the due times, newest first"),
    ("sched update", "", "", show_acknowledgement,
     "read the schedules from the repositories again"),
    ("calendar list", "", "", show_listing, "list the calendars that exclude_dates can name"),
    ("calendar add", "NAME DATES", "", show_acknowledgement,
     "add a calendar: 2026-12-25,2026-12-27..2026-12-31"),
    ("calendar set", "NAME DATES", "", show_acknowledgement, "give a calendar other dates"),
    ("calendar del", "NAME", "", show_acknowledgement, "delete a calendar that no schedule names"),
    ("hold", "[REASON]", "SCHEDULE=name REPO=name UNTIL=time", show_acknowledgement,
     "begin nothing new, or nothing of one schedule"),
    ("release", "", "SCHEDULE=name REPO=name", show_acknowledgement, "end a hold"),
    ("clean", "", "", show_acknowledgement,
     "clean stale sessions now; -HOST=id: those of a host that is gone"),
    ("purge", "", "DAYS=n KEEP=n", show_acknowledgement,
     "delete ended sessions that are old, or beyond the newest"),
    ("scenarios", "", "REPO=name", show_listing, "list the scenario versions"),
    ("import", "FILE...", "REPO=name REPLACE CRONTAB SYSTEM=yes|no DRY_RUN", show_acknowledgement,
     "import definitions documents, or crontabs; - is standard input; ends at the first that is "
     "refused; --dry-run "
     "shows what crontabs become, and asks the agent, where there is one, which lines it would "
     "refuse"),
    ("export", "[SCENARIO] [VERSION]", "REPO=name", show_document,
     "give definitions back as a document"),
    ("drop", "SCENARIO VERSION", "REPO=name", show_acknowledgement, "delete a scenario version"),
    ("repos", "", "", show_listing, "list the attached work repositories"),
    ("attach", "NAME PATH", "CREATE", show_acknowledgement,
     "attach a work repository; a relative PATH counts from the master's folder"),
    ("detach", "NAME", "", show_acknowledgement, "detach a work repository; its file stays"),
    ("contexts", "", "", show_listing, "list the contexts"),
    ("metrics", "", "", show_text, "figures in Prometheus' text format"),
    ("shutdown", "", "IMMEDIATE MAX_WAIT=s LEAVE", show_acknowledgement,
     "stop the agent: running sessions may end, or are stopped"),
    ("help", "[VERB] [SECOND]", "", show_text, "the agent's own help on its verbs"),
)]


def port_number(text):
    """The value of --port. Raises ArgumentTypeError."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError("must be a number from 1 to 65535, not %s" % ascii(text))
    return int(text)


def add_common(parser, **defaults):
    """The options that every command has, before and behind its name."""
    def add(name, **keywords):
        parser.add_argument("--" + name, default=defaults.get(name, argparse.SUPPRESS), **keywords)
    add("host", metavar="HOST", help="where the agent is (127.0.0.1)")
    add("port", metavar="PORT", help="its port (20910)", type=port_number)
    add("json", action="store_true", help="JSON objects, one a line")


def make_parser():
    """The parser of everything but the arguments of a command,
    which may stand between its options."""
    parser = argparse.ArgumentParser(prog="agentcli.py", description="The client of agent.py.",
                                     allow_abbrev=False)
    add_common(parser, host="127.0.0.1", port=20910, json=False)
    places = {"": add_subparsers(parser)}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group not in places:
            places[group] = add_subparsers(places[""].add_parser(group, help="%ss: %s %s -h" % (
                {"sched": "schedule"}.get(group, group), parser.prog, group), allow_abbrev=False))
        usage = " ".join([parser.prog, command.name] + command.arguments.split() + ["[options]"])
        sub = places[group].add_parser(name, help=command.help, description=command.help,
                                       usage=usage,
                                       allow_abbrev=False)
        for option in command.options.split():
            key, equals, value = option.partition("=")
            keywords = {"metavar": value.upper()} if equals else {"action": "store_const",
                                                                  "const": True}
            sub.add_argument("--" + key.lower().replace("_", "-"), dest="-" + key,
                             default=argparse.SUPPRESS,
                             **keywords)
        add_common(sub)
        sub.set_defaults(command=command, parser=sub)
    return parser


def add_subparsers(parser):
    """Makes a parser demand a command."""
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="missing")
    subparsers.required = True          # an argument of add_subparsers() from 3.7 on
    return subparsers


def parse_command_line(words):
    """The words of a command line -> (Namespace with host, port, json and command, arguments, the
    options and variables as words of a request). Wrong ones end the client with a message and
    status 2."""
    end = words.index("--") if "--" in words else len(words)
    before, literal = [with_dashes(word) for word in words[:end]], words[end + 1:]
    raw = [match for match in map(_OPTION.fullmatch, before) if match]
    parsed, others = make_parser().parse_known_args([word for word in before
                                                     if not _OPTION.fullmatch(word)])
    unknown = [word for word in others if re.fullmatch(r"-[^\d\s]\S*", word)]
    if unknown:
        # no value is repeated
        parsed.parser.error("unknown option %s" % unknown[0].partition("=")[0])
    form = re.findall(r"\[.*?\]|\S+", parsed.command.arguments)
    is_variable = _VARIABLE.fullmatch if any("=" in name for name in form) else lambda word: None
    arguments = [word for word in others if not is_variable(word)] + literal
    check_arguments(parsed.parser, [name for name in form if "=" not in name], arguments)
    found = {name[1:]: value for name, value in vars(parsed).items() if name.startswith("-")}
    if found.pop("WAIT", None):
        found["SYNC"] = True
    parsed.crontab = {name: found.pop(name) for name in CRONTAB_OPTIONS if name in found}
    if parsed.crontab and "CRONTAB" not in parsed.crontab:
        parsed.parser.error("--system and --dry-run are for --crontab")
    if parsed.crontab.get("SYSTEM", "yes") not in ("yes", "no"):
        parsed.parser.error("--system takes yes or no")
    request = [render_option(name, None if value is True else value)
               for name, value in found.items()]
    request += [render_option(*match.groups()) for match in raw]
    request += ["%s=%s" % (match.group(1), quote(as_typed(match.group(2))))
                for match in map(is_variable, others) if match]
    return parsed, arguments, request


def with_dashes(word):
    """A word of the command line; an option written with _, as fields of definitions are,
    as it is offered."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if re.fullmatch("--[a-z_-]+", name) else word


def check_arguments(parser, form, arguments):
    """Whether there are too few or too many of them; `form` is their names,
    [] for what may be left out."""
    required = [name for name in form if not name.startswith("[")]
    if len(arguments) < len(required):
        parser.error("%s is missing" % required[len(arguments)])
    if len(arguments) > len(form) and not any(name.endswith("...") for name in form):
        name, equals, _ = arguments[len(form)].partition("=")
        parser.error("%s is one too many" % ascii(name + (equals and "=...")))
