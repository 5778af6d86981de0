"""edit: a scenario in the editor of the user."""
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile

from .colours import is_terminal
from .documents import Rehearsal
from .errors import ClientError, ENDED_BADLY, USAGE, WELL, reason_of
from .imports import list_repository, read_document
from .login import connect
from .screen import ask_line
from .shown import show_acknowledgement, tell
from .tables import printable
from .words import as_typed, quote


def edit_scenario(options, arguments, words):
    """edit SCENARIO [VERSION] -> exit status. Raises ClientError, OSError of stdout."""
    name, version = as_typed(arguments[0]), as_typed((arguments[1:] + ["-1"])[0])
    with connect(options) as connection:
        scenario = export_scenario(connection, name, version, words)
        latest = export_scenario(connection, name, "-1", words)
    before = json.dumps({"scenarios": [scenario]}, indent=2, ensure_ascii=False) + "\n"
    handle, path = tempfile.mkstemp(".json", "agentcli-")       # of mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(before)
    try:
        edit_and_import(options, path, before, (scenario, latest), words)
    except ClientError as error:
        raise ClientError(error.status, "%s; what was edited is in %s" % (error, printable(path)))
    os.unlink(path)
    return WELL


def edit_and_import(options, path, before, scenarios, words):
    """Has the file edited and imports it. `scenarios` are the one that is edited and the latest of
    its name. Raises ClientError, OSError of stdout."""
    text = edit_until_well(options, path, before, words)
    if is_same(text, before):
        tell("unchanged: nothing is imported")
    else:
        if "REPLACE" not in options.own:
            text = with_new_version(text, *scenarios)
        import_text(options, text, words + ["-REPLACE"] * ("REPLACE" in options.own))


def export_scenario(connection, name, version, words):
    """A scenario as its definition. Raises ClientError."""
    request = ["EXPORT", quote(name), quote(version) if version != "-1" else version]
    text = "\n".join(connection.ask(" ".join(request + list_repository(words))))
    return json.loads(text)["scenarios"][0]


def edit_until_well(options, path, before, words):
    """Opens the editor until the agent would take what it leaves -> text. Raises ClientError, also
    where it is given up."""
    while True:
        run_editor(path)
        text = read_document(path)
        if is_same(text, before):
            return text
        with connect(options) as connection:
            rehearsal = Rehearsal(connection, text, words)
        rehearsal.tell(printable(path))
        if rehearsal.error is None:
            return text
        if not is_terminal(sys.stdin) or ask_line("Enter edits again, q gives up: ") in (None, "q"):
            raise ClientError(ENDED_BADLY, "nothing is imported")


def run_editor(path):
    """Waits for the user's editor. Raises ClientError."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    before = signal.signal(signal.SIGINT, lambda number, frame: None)       # it is the editor's
    try:
        status = subprocess.call(shlex.split(editor) + [path])
    except (OSError, ValueError) as error:
        raise ClientError(USAGE, "cannot run %s (VISUAL, EDITOR): %s" % (
            printable(editor), reason_of(error)))
    finally:
        signal.signal(signal.SIGINT, before)
    if status:
        raise ClientError(ENDED_BADLY, "%s ended with %d: nothing is imported"
                          % (printable(editor), status))


def is_same(text, before):
    """Whether a text has the same definitions as before."""
    try:
        return json.loads(text) == json.loads(before)
    except ValueError:
        return False


def with_new_version(text, scenario, latest):
    """A document whose scenario has a version of its own: the one that was typed, or else the one
    after the latest."""
    document = json.loads(text)
    for entry in document.get("scenarios", ()):
        if (entry["name"], entry["version"]) == (scenario["name"], scenario["version"]):
            entry["version"] = next_version(latest["version"])
    return json.dumps(document, ensure_ascii=False)


def next_version(version):
    """The version after one: 001 -> 002, 1.9 -> 1.10, a -> a.1."""
    match = re.fullmatch(r"(.*?)(\d+)", version)
    if not match:
        return version + ".1"
    return match.group(1) + str(int(match.group(2)) + 1).rjust(len(match.group(2)), "0")


def import_text(options, text, words):
    """Imports what was edited. Raises ClientError, OSError of stdout."""
    with connect(options) as connection:
        show_acknowledgement(connection.ask(" ".join(["IMPORT", quote(text)] + words)),
                             options.json)
