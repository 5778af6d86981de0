"""completion: what may stand next on the command line, for bash and zsh."""
import argparse
import json
import os
import re
import signal
import sys

from ..base.controls import Parser
from ..base.vocabulary import STATES
from .commands import add_common
from .errors import ClientError, NO_CONNECTION, USAGE, WELL
from .login import connect
from .settings import complete_place
from .tables import put_safe

SHELLS = {"bash": r"""_agentcli() {
    local IFS=$'\n'
    COMPREPLY=($("${COMP_WORDS[0]/#\~/$HOME}" completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" \
        2>/dev/null))
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _agentcli PROGRAM
""", "zsh": r"""#compdef PROGRAM
_agentcli() {
    local -a found
    found=("${(@f)$("${words[1]}" completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ ${#found} == 1 && ${found[1]} == *= ]]; then compadd -S '' -a found
    elif [[ -n ${found[1]} ]]; then compadd -a found; else _files; fi
}
compdef _agentcli PROGRAM
"""}
QUICK_S = 1.0           # how long an agent may take to name what it has
# argument, or value of an option -> (request, field of its rows)
ASKED_NAMES = {"SCENARIO": ("SCENARIOS -JSON", "scenario"), "SESSION": ("SESSIONS -LIMIT=20 -JSON",
                                                                       "session"),
               "SCHEDULE": ("SCHED LIST -JSON", "name"), "CONTEXT": ("CONTEXTS -JSON", "context"),
               "REPO": ("REPOS -JSON", "repository"), "VERSION": ("SCENARIOS -JSON", "version"),
               "CALENDAR": ("CALENDAR LIST -JSON", "calendar"), "PARENT": (
                   "SESSIONS -LIMIT=20 -JSON", "session"),
               "NOTICE": ("NOTICE LIST -JSON", "name")}
# command -> of what its NAME is the name
NAMES_OF = {"sched": "SCHEDULE", "calendar": "CALENDAR", "detach": "REPO", "notice": "NOTICE"}


def print_completion(options, arguments, words):
    """completion bash|zsh prints a script; that asks for `completion words -- WORD...`, which may
    stand in place of the last -> exit status. Raises ClientError, OSError of stdout."""
    kind = arguments[0]
    if kind in SHELLS and len(arguments) == 1:
        program = os.path.basename(sys.argv[0] or "agentcli.py")
        put_safe(SHELLS[kind].replace("PROGRAM", program).rstrip("\n"))
    elif kind == "words":
        for word in list_completions(options, arguments[1:] or [""]):
            put_safe(word)
    else:
        raise ClientError(USAGE, "completion takes bash or zsh")
    return WELL


def list_completions(options, words):
    """What may stand in place of the last of some words, which begins so: [word]."""
    *before, current = words
    options = with_place(options, before)
    commands = {command.name: command for command in options.commands}
    plain, previous = drop_options(before, commands)
    name = next((name for name in (" ".join(plain[:2]), plain[0] if plain else "")
                 if name in commands), None)
    if name is None:
        group = " ".join(plain) + " " * bool(plain)
        found_names = {each[len(group):].split()[0] for each in commands if each.startswith(group)}
        candidates = sorted(found_names) + list(list_common()) * (not plain)
    elif previous:
        candidates = list_values(options, commands[name], previous)
    elif current.startswith("-"):
        candidates = [choice.offered for choice in commands[name].options] + list(list_common())
    else:
        candidates = list_arguments(options, commands[name], plain[len(name.split()):])
    return [word for word in candidates if word.startswith(current)]


def with_place(options, words):
    """The options, with the agent that some words of a command line name."""
    parser = Parser(add_help=False, allow_abbrev=False)
    add_common(parser)
    try:
        places, _ = parser.parse_known_args(words)
    except SystemExit:                  # of a value that is none
        return options
    return argparse.Namespace(**dict(vars(options), **vars(places)))


def list_common():
    """The options that every command has: {name: its value as it is shown, nothing for a flag}."""
    parser = Parser(add_help=False)
    add_common(parser)
    return {action.option_strings[0]: action.metavar or "" for action in parser._actions}


def drop_options(words, commands):
    """Words without options and their values -> (the others, the option that waits for its value
    or None)."""
    takes = list_common()
    for command in commands.values():
        for choice in command.options:
            takes[choice.offered] = takes.get(choice.offered) or choice.shown
    plain, waiting = [], None
    for word in words:
        if waiting is not None:
            waiting = None
        elif takes.get(word):
            waiting = word
        elif not word.startswith("-"):
            plain.append(word)
    return plain, waiting


def list_values(options, command, offered):
    """What an option of a command may have as its value: [text]."""
    for choice in command.options:
        if choice.offered == offered:
            if choice.name == "STATUS":
                return list(STATES)
            return (ask_names(options, choice.name)
                    or choice.shown.split("|") * ("|" in choice.shown))
    return []


def list_arguments(options, command, before):
    """What an argument of a command may be, behind some others: [text]."""
    names = re.findall(r"[A-Z]+", re.sub(r"\[?VARIABLE=.*?(\]|$)", "", command.arguments))
    candidates = []
    if len(before) < len(names):
        name = names[len(before)]
        candidates = ask_names(options, NAMES_OF.get(command.name.split()[0], name)
                               if name == "NAME" else name)
        if name == "VERSION":           # of the scenario before it
            candidates = [row["version"] for row in ask_quickly(options, "SCENARIOS -JSON")
                          if row["scenario"] == before[-1]]
    if "VARIABLE=" in command.arguments and before and names[:1] == ["SCENARIO"]:
        candidates += [name + "=" for row in ask_quickly(options, "SCENARIOS -JSON")
                       if row["scenario"] == before[0]
                       for name in row["variables"].split(",") if name]
    if command.name == "completion":
        candidates = sorted(SHELLS)
    return sorted(set(candidates))


def ask_names(options, kind):
    """What the agent has of a kind: [text]; nothing where no agent answers soon."""
    if kind not in ASKED_NAMES:
        return []
    request, field = ASKED_NAMES[kind]
    return sorted({str(row[field]) for row in ask_quickly(options, request)})


def ask_quickly(options, request):
    """The JSON objects of a reply; nothing where no agent answers soon, or a password would have to
    be typed."""
    try:
        options = complete_place(options)
    except ClientError:
        return []
    if options.user is not None and options.password_file is None:
        return []

    def give_up(number, frame):
        raise ClientError(NO_CONNECTION, "no answer")
    before = signal.signal(signal.SIGALRM, give_up)     # a name server may be slow, too
    signal.setitimer(signal.ITIMER_REAL, QUICK_S)
    try:
        with connect(options) as connection:
            return [json.loads(line) for line in list(
                connection.ask(request, QUICK_S, is_lenient=True))]
    except (ClientError, ValueError):
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
