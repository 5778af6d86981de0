"""One command: the request, its reply, the exit status."""
import os
import sys

from ..base.vocabulary import RESTARTABLE
from .errors import ClientError, ENDED_BADLY, INTERRUPTED, OUTPUT_LOST, WELL, reason_of
from .words import as_typed, quote
from .login import ask_new_password, connect
from .pictures import show_coming
from .shown import complain, tell
from .colours import is_terminal
from .coming import USUAL_LIMIT, show_next, sift_why
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
        with connect(options) as connection:
            show_next(connection, arguments, words)
        return WELL
    request = command.name.upper().split() + arguments + words + ["-JSON"] * command.is_listing
    with connect(options) as connection:
        if "DECISION" in options.own:
            reply = sift_why(connection, arguments, words, options.own["DECISION"])
        else:
            reply = connection.ask(" ".join(request), PING_S if command.name == "ping" else None,
                                   is_lenient=command.is_table)
        command.show(reply, options.json)
        if reply.trouble is not None:
            raise reply.trouble         # what is known stands above
        if reply.count == USUAL_LIMIT and is_terminal(sys.stdout) and not options.json and not (
                has_option(words, "-LIMIT")):
            tell_limit(command)
        if command.name == "shutdown" and "WAIT" in options.own:
            wait_until_gone(connection, options)
    is_bad = command.name in ("exec", "wait", "notice test") \
        and reply.fields.get("status") in RESTARTABLE
    return ENDED_BADLY if is_bad else WELL


def tell_limit(command):
    """Says on a terminal that a listing may go on, where its length is the usual limit."""
    if any(choice.name == "LIMIT" for choice in command.options):
        tell("the newest %d; --limit shows more" % USUAL_LIMIT)


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
