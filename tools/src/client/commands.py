"""The verbs as commands, and the command line that names one."""
import argparse
import re
import shutil
import textwrap

from ..base.controls import Parser
from ..base.vocabulary import DEFAULT_PORT, VERSION
from ..base.form import AS_DOCUMENT, AS_FIELDS, AS_LOG, AS_RECORD, AS_ROWS, AS_TEXT
from ..base.forms import VERB_FORMS, list_parts
from .words import as_typed, quote, render_option
from .command import Choice, Command, own
from .settings import DEFAULT_HOST, parse_port
from .spelling import OTHER_NAMES, spell
from .pictures import show_coming, show_sessions, show_status
from .shown import (show_acknowledgement, show_document, show_listing, show_log, show_record,
                    show_text)

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_OPTION = re.compile(r"-([A-Z][A-Z_]+)(?:=(.*))?", re.DOTALL)
_NO_COMMAND = re.compile(r"argument COMMAND: invalid choice: (.*?) \(choose from .*", re.DOTALL)
SHOWS = {AS_FIELDS: show_acknowledgement, AS_ROWS: show_listing, AS_RECORD: show_record,
         AS_TEXT: show_text, AS_DOCUMENT: show_document, AS_LOG: show_log}
OWN_SHOWS = {"SESSIONS": show_sessions, "STATUS": show_status, "SCHED NEXT": show_coming}
NO_COMMANDS = ("QUIT", "AUTH")      # they mean something on a connection that lasts
NO_OPTIONS = ("-JSON", "-SYNC")     # the client's own words stand for these: --json, --wait
CRONTAB_OPTIONS = ("CRONTAB", "SYSTEM", "PRUNE")        # the client's own
FOLLOW = own("FOLLOW", "show its steps and what it prints until it has ended; its exit status")
OWN_OPTIONS = {
    "EXEC": [Choice("SYNC", "", "reply when the session has ended"), FOLLOW],
    "RESTART": [FOLLOW],
    "WAIT": [FOLLOW],
    "SCHED WHY": [own("DECISION", "only what became one of started, late, skipped, failed", "a,b")],
    "SHUTDOWN": [own("WAIT", "stay until the agent is gone")],
    "IMPORT": [Choice("CRONTAB", "", "the files are crontabs"),
               Choice("SYSTEM", "yes|no", "whether each line of the crontab names a user"),
               Choice("PRUNE", "", "delete the schedules that the crontab no longer has")]}
OWN_ARGUMENTS = {"IMPORT": "FILE...", "USERS PASSWORD": "NAME"}
OWN_MEANINGS = {"USERS PASSWORD": [("NAME", "name of the user")],
                "IMPORT": [("FILE", "a definitions document, or a crontab; - is standard input")]}
ABOUT = """\
The client of agent.py: asks an agent, and shows what it says. What a command takes is told by
agentcli.py COMMAND -h."""
EXAMPLES = """\
for example:
  agentcli.py ping                         is it there, is it well?
  agentcli.py exec HELLO --follow          run something, and watch it
  agentcli.py sessions --status ERROR      what failed
  agentcli.py log 1001 --tail 20           why
  agentcli.py sched next                   what comes
  agentcli.py sched why NIGHTLY            why did it not run?
  agentcli.py top                          a live screen"""
VARIABLE_MEANING = ("VARIABLE=value", "a value for a variable of the scenario")
OWN_HELP = {
    "EXEC": "start a session of a scenario; with --wait or --follow the exit status is the "
            "session's",
    "WAIT": "wait for the end of a session; its exit status",
    "SCHED ADD": "add a schedule, effective at once; VERSION -1 is the latest",
    "IMPORT": "import definitions documents, or crontabs; ends at the first that is refused; with "
              "--dry-run nothing is written: it shows what crontabs become, and when it is due",
}


class CommandParser(Parser):
    """One that does not list all commands where a word is none of them."""

    def error(self, message):
        """Says what is wrong, and exits."""
        super().error(_NO_COMMAND.sub(r"\1 is no command; %s -h lists them" % self.prog, message))


def make_command(form):
    """The Command of a verb, from its VerbForm."""
    parts = list_parts(form)
    options = [Choice(part.name[1:], part.shown, spell(part.meaning), part.is_field)
               for part in parts if part.name.startswith("-") and part.name not in NO_OPTIONS]
    meanings = [(part.name, spell(part.meaning)) for part in parts if part.name[0] != "-"]
    if "[VARIABLE=" in form.usage:
        meanings.append(VARIABLE_MEANING)
    return Command(form.name.lower(), OWN_ARGUMENTS.get(form.name, form.usage),
                   OWN_MEANINGS.get(form.name, meanings),
                   options + OWN_OPTIONS.get(form.name, []),
                   OWN_SHOWS.get(form.name) or SHOWS[form.reply],
                   OWN_HELP.get(form.name) or spell(form.help), form.reply in (AS_ROWS, AS_RECORD),
                   form.reply == AS_ROWS)


def list_verb_commands():
    """The commands of the verbs: [Command]."""
    return [make_command(form) for form in VERB_FORMS if form.name not in NO_COMMANDS]


def port_number(text):
    """The value of --port. Raises ArgumentTypeError."""
    try:
        return parse_port(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error))


def add_common(parser, **defaults):
    """The options that every command has, before and behind its name."""
    def add(name, **keywords):
        default = None if defaults else argparse.SUPPRESS
        parser.add_argument("--" + name, default=defaults.get(name, default), **keywords)
    add("host", metavar="HOST", help="where the agent is, or its name in ~/.agentcli (AGENT_HOST, "
        "else %s)" % DEFAULT_HOST)
    add("port", metavar="PORT", help="its port (AGENT_PORT, else %d)" % DEFAULT_PORT,
        type=port_number)
    add("unix", metavar="PATH", help="its UNIX socket, instead of host and port")
    add("tls", action="store_true", help="connect by TLS, and verify who answers")
    add("tls-ca", dest="tls_ca", metavar="FILE",
        help="authorities for --tls (PEM; else those that this host trusts)")
    add("tls-cert", dest="tls_cert", metavar="FILE",
        help="certificate that says which user you are (PEM)")
    add("tls-key", dest="tls_key", metavar="FILE",
        help="its key (else in the file of --tls-cert)")
    add("user", metavar="NAME", help="the user of the agent that you are; the password is asked "
        "for")
    add("password-file", metavar="FILE", help="its first line is the password of --user; nobody "
        "else may read it")
    add("json", action="store_true", help="JSON objects, one a line")


def make_parser(commands):
    """The parser of everything but the arguments of a command,
    which may stand between its options."""
    parser = CommandParser(prog="agentcli.py", usage="%(prog)s [OPTION ...] COMMAND ...",
                           description=ABOUT, epilog=EXAMPLES, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version="agentcli.py " + VERSION)
    add_common(parser, json=False)
    places = {"": add_subparsers(parser)}
    parser.set_defaults(commands=commands)
    for command in commands:
        group, _, name = command.name.rpartition(" ")
        if group not in places:
            places[group] = add_subparsers(places[""].add_parser(group, help="%s: %s %s -h" % (
                {"sched": "schedules"}.get(group, group.rstrip("s") + "s"), parser.prog, group),
                allow_abbrev=False))
        usage = " ".join([parser.prog, command.name] + command.arguments.split() + ["[options]"])
        sub = places[group].add_parser(
            name, help=command.help, description=describe(command), usage=usage,
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        for choice in command.options:
            add_choice(sub, choice)
        if command.name == "users password":
            sub.add_argument("--new-password-file", metavar="FILE", help="its first line is the "
                             "new password, which is asked for otherwise")
        add_common(sub)
        sub.set_defaults(command=command, parser=sub)
    return parser


def add_choice(parser, choice):
    """Adds one option of a command to its parser."""
    shown = choice.shown.upper() if choice.shown.isalpha() else choice.shown
    keywords = ({"metavar": shown} if shown
                else {"action": "store_const", "const": True})
    if choice.has_default:
        keywords.update(nargs="?", const="")
    names = filter(None, (choice.short, choice.offered))
    parser.add_argument(*names, dest="-" + choice.name, default=argparse.SUPPRESS,
                        help=choice.meaning.replace("%", "%%"), **keywords)


def describe(command):
    """What a command does, and what its arguments mean."""
    # as argparse does it; a terminal that does not know its size has none, before 3.8
    width = (shutil.get_terminal_size().columns or 80) - 2
    texts = [textwrap.fill(command.help, width)]
    if command.meanings:
        texts.append("\n".join(["arguments:"] + [
            textwrap.fill(meaning, width, initial_indent="  " + name.ljust(22),
                          subsequent_indent=" " * 24) for name, meaning in command.meanings]))
    if any(choice.has_default for choice in command.options):
        texts.append(textwrap.fill("An option that sets a field of the schedule makes it default "
                                   "again when it stands without a value.", width))
    return "\n\n".join(texts)


def add_subparsers(parser):
    """Makes a parser demand a command."""
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="missing", prog=parser.prog)
    subparsers.required = True          # an argument of add_subparsers() from 3.7 on
    return subparsers


def parse_command_line(words, commands):
    """The words of a command line that names one of these commands -> (Namespace with host, port,
    json, command and `own`, arguments, the options and variables as words of a request). Wrong
    ones end the client with a message and status 2."""
    end = words.index("--") if "--" in words else len(words)
    before, literal = join_distances(map(with_dashes, words[:end])), words[end + 1:]
    raw = [match for match in map(_OPTION.fullmatch, before) if match]
    parsed, others = make_parser(commands).parse_known_args([word for word in before
                                                     if not _OPTION.fullmatch(word)])
    unknown = [word for word in others if re.fullmatch(r"-[^\d\s]\S*", word)]
    if unknown:
        # no value is repeated
        name = unknown[0].partition("=")[0]
        other = OTHER_NAMES.get(name[1:].upper())
        parsed.parser.error("unknown option %s%s" % (name, other and "; here it is " + other or ""))
    form = re.findall(r"\[.*?\]|\S+", parsed.command.arguments)
    is_variable = _VARIABLE.fullmatch if any("=" in name for name in form) else lambda word: None
    arguments = [word for word in others if not is_variable(word)] + literal
    if parsed.command.name == "users password" and len(arguments) > 1:
        parsed.parser.error("the new password is asked for, or read with --new-password-file: on a "
                            "command line others could read it")
    check_arguments(parsed.parser, [name for name in form if "=" not in name], arguments)
    options = {name[1:]: value for name, value in vars(parsed).items() if name.startswith("-")}
    if parsed.password_file is not None and parsed.user is None:
        parsed.parser.error("--password-file is for --user")
    parsed.own = {choice.name: options.pop(choice.name) for choice in parsed.command.options
                  if choice.is_own and choice.name in options}
    parsed.crontab = {name: options.pop(name) for name in CRONTAB_OPTIONS if name in options}
    if parsed.crontab and "CRONTAB" not in parsed.crontab:
        parsed.parser.error("--system and --prune are for --crontab")
    if parsed.crontab and options.pop("DRY_RUN", None):
        parsed.crontab["DRY_RUN"] = True
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


def join_distances(words):
    """Words of the command line, a distance such as -1h behind an option joined to that."""
    joined = []
    for word in words:
        is_distance = re.fullmatch(r"-[0-9.]+[smhd]", word.lower())
        if is_distance and joined and re.fullmatch("--[a-z-]+", joined[-1]):
            joined[-1] += "=" + word
        else:
            joined.append(word)
    return joined


def check_arguments(parser, form, arguments):
    """Whether there are too few or too many of them; `form` is their names,
    [] for what may be left out."""
    required = [name for name in form if not name.startswith("[")]
    if len(arguments) < len(required):
        parser.error("%s is missing" % required[len(arguments)])
    if len(arguments) > len(form) and not any(name.strip("]").endswith("...") for name in form):
        name, equals, _ = arguments[len(form)].partition("=")
        hint = "; a rule stands in quotes: \"daily at 02:00\"" if "[RULE]" in form else ""
        parser.error("%s is one too many%s" % (ascii(name + (equals and "=...")), hint))
