"""One command: the request, its reply, the exit status."""
import os
import sys

from ..base.vocabulary import RESTARTABLE
from .errors import ClientError, ENDED_BADLY, INTERRUPTED, OUTPUT_LOST, WELL, reason_of
from .words import as_typed, quote
from .login import ask_new_password, connect
from .pictures import ASKED, show_coming, show_next
from .shown import complain
from .commands import list_verb_commands, parse_command_line
from .follow import follow_command
from .leaving import wait_until_gone
from .own import OWN_COMMANDS
from .imports import import_crontabs, import_documents

# an agent that hangs is to be noticed; other verbs may take as long as they want
PING_S = 30
COMMANDS = list_verb_commands() + OWN_COMMANDS


def perform(options, arguments, words):
    """Asks the agent for what is wanted and shows its reply -> exit status.
    Raises ClientError, OSError of stdout."""
    command = options.command
    if command.perform:
        return command.perform(options, arguments, words)
    if options.crontab:
        return import_crontabs(options, arguments, words)
    if command.name == "import":
        return import_documents(options, arguments, words)
    if command.name == "users password":
        arguments = arguments + [ask_new_password(options.new_password_file, arguments[0])]
    arguments = [quote(as_typed(argument)) for argument in arguments]
    if "FOLLOW" in options.own:
        return follow_command(options, arguments, words)
    if command.show is show_coming and not options.json and not has_option(words, "-COUNT"):
        words, command = words + ["-COUNT=%d" % ASKED], command._replace(show=show_next)
    request = command.name.upper().split() + arguments + words + ["-JSON"] * command.is_listing
    with connect(options) as connection:
        reply = connection.ask(" ".join(request), PING_S if command.name == "ping" else None)
        command.show(reply, options.json)
        if command.name == "shutdown" and "WAIT" in options.own:
            wait_until_gone(connection, options)
    is_bad = command.name in ("exec", "wait", "notice test") \
        and reply.fields.get("status") in RESTARTABLE
    return ENDED_BADLY if is_bad else WELL


def has_option(words, name):
    """Whether an option stands among words of a request."""
    return any(word.partition("=")[0].upper() == name for word in words)


def main(words=None):
    """The client -> exit status."""
    try:
        status = perform(*parse_command_line(
            sys.argv[1:] if words is None else words, COMMANDS))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except ClientError as error:
        complain(error)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:            # of stdout: those of the connection are ClientErrors
        if not isinstance(error, BrokenPipeError):
            complain("cannot write: %s" % reason_of(error))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)    # the interpreter's last flush succeeds
        return OUTPUT_LOST


if __name__ == "__main__":
    sys.exit(main())
