"""The commands that are the client's own: no verb stands behind them."""
from .command import Choice, Command, own
from .completion import print_completion
from .documents import check_documents, diff_document
from .editing import edit_scenario
from .report import write_report
from .running import run_command
from .top import show_top

REPOSITORY = Choice("REPO", "name", "work repository (the one of the lowest id)")
DOCUMENT_MEANING = [("FILE", "a definitions document; - is standard input")]
OWN_COMMANDS = [
    Command("check", "FILE...", DOCUMENT_MEANING, [REPOSITORY], None,
            "have the agent check definitions documents, as an import would; nothing is written; "
            "exit status 1 where something is wrong", perform=check_documents),
    Command("diff", "FILE", DOCUMENT_MEANING, [REPOSITORY], None,
            "what an import of a definitions document would change, as a diff of JSON, and what "
            "the agent has beside it; exit status 1 where it would change something",
            perform=diff_document),
    Command("edit", "SCENARIO [VERSION]", [
        ("SCENARIO", "name of the scenario"), ("VERSION", "its version; -1, or nothing, is the "
                                               "latest")],
            [REPOSITORY, own("REPLACE", "import it under the same version")], None,
            "edit a scenario in VISUAL or EDITOR, and import it under the version after the latest",
            perform=edit_scenario),
    Command("run", "COMMAND...", [
        ("COMMAND", "behind --: a program and its arguments, or one word for the shell")],
            [own("FOLLOW", "show what it prints until it has ended; its exit status"),
             own("WAIT", "reply when it has ended; its exit status"), REPOSITORY,
             Choice("NAME", "text", "a name for the session, which listings show"),
             Choice("TIMEOUT", "s", "the session is ended after so long")], None,
            "start a bare command as a session, in the folder of the caller; it is logged, and "
            "goes on when the caller has gone", perform=run_command),
    Command("top", "", [], [
        own("EVERY", "seconds between two pictures (2)", "s"),
        own("PLAIN", "pages of text one after the other, as where there is no terminal"),
        own("COUNT", "so many pages of text, and no more", "n")], None,
            "a live screen: what runs, waits, has failed, comes next and is held; keys follow a "
            "log, stop, restart, hold, release", perform=show_top),
    Command("report", "", [], [
        own("OUTPUT", "the file; - is standard output. An earlier report there is replaced", "file",
            "-o"),
        own("SINCE", "from when on (1d): yesterday, 'yesterday 22:00', 12h, 2026-12-01", "time"),
        own("UNTIL", "until when (now)", "time")], None,
            "write one HTML file about a period: a timeline of all sessions, how long they took, "
            "failures with the end of their logs, what did not run and why, what comes next",
            perform=write_report),
    Command("completion", "SHELL [WORD...]", [
        ("SHELL", "bash or zsh"), ("WORD", "for the script's own use")], [], None,
            "print a script that completes commands, options and names; eval "
            "\"$(agentcli.py completion bash)\" takes it", perform=print_completion),
]
