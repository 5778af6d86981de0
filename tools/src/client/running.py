"""run: a bare command as a session."""
import json
import os
import re
import shlex

from ..base.vocabulary import RESTARTABLE
from .crontab import quote_literal, mark, stem_of
from .errors import ENDED_BADLY, WELL
from .follow import acknowledge, follow_session
from .imports import list_repository
from .login import connect
from .shown import show_acknowledgement
from .words import as_typed, quote

RUN_PREFIX = "RUN."         # of the names of the scenarios that commands become
_OF_SHELL = re.compile(r"[\s;|&<>()$`*?~]")


def run_command(options, arguments, words):
    """run -- COMMAND...: imports a scenario that is named after the command, and starts it where
    the client was called -> exit status. Raises ClientError, OSError of stdout."""
    scenario = make_scenario([as_typed(word) for word in arguments])
    document = json.dumps({"scenarios": [scenario]})
    with connect(options) as connection:
        list(connection.ask(" ".join(["IMPORT", quote(document)] + list_repository(words))))
    request = ["EXEC", quote(scenario["name"]), "001", "FOLDER=" + quote(as_typed(os.getcwd())),
               "SEARCH=" + quote(as_typed(os.environ.get("PATH", os.defpath)))] + words
    if "FOLLOW" in options.own:
        return follow_session(options, acknowledge(options, " ".join(request)))
    with connect(options) as connection:
        reply = connection.ask(" ".join(request + ["-SYNC"] * ("WAIT" in options.own)))
        show_acknowledgement(reply, options.json)
    return ENDED_BADLY if reply.fields.get("status") in RESTARTABLE else WELL


def make_scenario(command):
    """A command as a scenario: its words, or one word that only a shell understands. The same
    command is the same scenario, wherever it is called. It lives through a restart of the agent."""
    is_shell = len(command) == 1 and _OF_SHELL.search(command[0]) is not None
    text = command[0] if is_shell else " ".join(map(shlex.quote, command))
    stem = stem_of(text, "shell" if is_shell else "")
    if "_" in text and stem == "_".join(text.split()):      # a b and a_b are not the same
        stem = mark(stem, text)
    task = {"type": "os", "cwd": "${FOLDER}", "env": {"PATH": "${SEARCH}"},
            "command": quote_literal(text) if is_shell else [quote_literal(word)
                                                             for word in command]}
    return {"name": RUN_PREFIX + stem, "version": "001", "on_stale": "adopt",
            "description": text, "variables": {"FOLDER": "", "SEARCH": ""},
            "steps": [{"name": "main", "tasks": [task]}]}
