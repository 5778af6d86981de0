"""The verbs as commands, and the command line that names one."""
import argparse
import re
from typing import Callable, NamedTuple

from ..base.vocabulary import DEFAULT_PORT
from ..base.forms import (AS_DOCUMENT, AS_FIELDS, AS_LOG, AS_RECORD, AS_ROWS, AS_TEXT, VERB_FORMS,
                          list_parts)
from .words import as_typed, quote, render_option
from .shown import (show_acknowledgement, show_document, show_listing, show_log, show_record,
                    show_text)

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_OPTION = re.compile(r"-([A-Z][A-Z_]+)(?:=(.*))?", re.DOTALL)


class Command(NamedTuple):
    """One row of the command table."""
    name: str               # the verb in lower case; `sched add` is one
    arguments: str          # as usage shows them; [] may be left out
    # [(name in the protocol, its value as shown, what it means)]; a flag shows none
    options: list
    show: Callable          # (Reply, is_json)
    help: str


SHOWS = {AS_FIELDS: show_acknowledgement, AS_ROWS: show_listing, AS_RECORD: show_record,
         AS_TEXT: show_text, AS_DOCUMENT: show_document, AS_LOG: show_log}
NO_COMMANDS = ("QUIT",)             # they mean something on a connection that lasts
# the client's own words stand for these: --json, --wait; and --host is where the agent is
NO_OPTIONS = ("-JSON", "-HOST", "-SYNC")
CRONTAB_OPTIONS = ("CRONTAB", "SYSTEM", "DRY_RUN")        # the client's own
OWN_OPTIONS = {
    "EXEC": [("WAIT", "", "reply when the session has ended")],
    "IMPORT": [("CRONTAB", "", "the files are crontabs"),
               ("SYSTEM", "yes|no", "whether each line of the crontab names a user")]}
OWN_ARGUMENTS = {"IMPORT": "FILE..."}
OWN_HELP = {
    "EXEC": "start a session of a scenario; with --wait the exit status is the session's",
    "WAIT": "wait for the end of a session; its exit status",
    "CLEAN": "clean stale sessions now; -HOST=id: those of a host that is gone",
    "SCHED ADD": "add a schedule, effective at once; VERSION -1 is the latest",
    "IMPORT": "import definitions documents, or crontabs; - is standard input; ends at the first "
              "that is refused; --dry-run imports nothing, and shows what crontabs become",
}


def make_command(form):
    """The Command of a verb, from its VerbForm."""
    options = [(part.name[1:], part.shown, offer(part.meaning)) for part in list_parts(form)
               if part.name.startswith("-") and part.name not in NO_OPTIONS]
    return Command(form.name.lower(), OWN_ARGUMENTS.get(form.name, form.usage),
                   options + OWN_OPTIONS.get(form.name, []), SHOWS[form.reply],
                   OWN_HELP.get(form.name) or offer(form.help))


def offer(text):
    """A text of the protocol, with its options as the client offers them."""
    return re.sub("-[A-Z_]{2,}", lambda match: "-" + match.group().lower().replace("_", "-"), text)


COMMANDS = [make_command(form) for form in VERB_FORMS if form.name not in NO_COMMANDS]


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
    add("port", metavar="PORT", help="its port (%d)" % DEFAULT_PORT, type=port_number)
    add("json", action="store_true", help="JSON objects, one a line")


def make_parser():
    """The parser of everything but the arguments of a command,
    which may stand between its options."""
    parser = argparse.ArgumentParser(prog="agentcli.py", description="The client of agent.py.",
                                     allow_abbrev=False)
    add_common(parser, host="127.0.0.1", port=DEFAULT_PORT, json=False)
    places = {"": add_subparsers(parser)}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group not in places:
            places[group] = add_subparsers(places[""].add_parser(group, help="%ss: %s %s -h" % (
                {"sched": "schedule"}.get(group, group), parser.prog, group), allow_abbrev=False))
        usage = " ".join([parser.prog, command.name] + command.arguments.split() + ["[options]"])
        sub = places[group].add_parser(name, help=command.help, description=command.help,
                                       usage=usage, allow_abbrev=False)
        for key, shown, meaning in command.options:
            keywords = ({"metavar": shown.upper()} if shown
                        else {"action": "store_const", "const": True})
            keywords["help"] = meaning.replace("%", "%%")
            sub.add_argument("--" + key.lower().replace("_", "-"), dest="-" + key,
                             default=argparse.SUPPRESS, **keywords)
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
    options = {name[1:]: value for name, value in vars(parsed).items() if name.startswith("-")}
    if options.pop("WAIT", None):
        options["SYNC"] = True
    if "SYSTEM" in options and "CRONTAB" not in options:
        parsed.parser.error("--system is for --crontab")
    parsed.crontab = {} if "CRONTAB" not in options else {
        name: options.pop(name) for name in CRONTAB_OPTIONS if name in options}
    if parsed.crontab.get("SYSTEM", "yes") not in ("yes", "no"):
        parsed.parser.error("--system takes yes or no")
    request = [render_option(name, None if value is True else value)
               for name, value in options.items()]
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
