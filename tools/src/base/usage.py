"""What agent.py --help says beside the options: first steps, and which options belong together."""
import argparse

from .controls import Parser

HELP_ABOUT = """\
Runs jobs, starts them on time, and keeps a record of both: one file, nothing to install. Without
options it makes its repositories beside itself, and serves this host's user on 127.0.0.1:20910."""
HELP_END = """\
first steps:
  python agent.py                       the agent; it says when it is ready
  nc localhost 20910                    another terminal: EXEC HELLO, LOG 1001, HELP, QUIT
  python agent.py --import first.json   your own scenarios and schedules
  python agent.py --manual              the manual; --manual start, --manual troubleshooting

Exit status: 0 stopped as asked, or done; 1 it cannot start, or something was found or refused,
and it says what; 2 wrong usage."""
# title -> names of options without their dashes; each option stands in one
OPTION_GROUPS = (
    ("the agent and its repositories", "name master create host-id keep-days clean-every "
     "insecure-fs engine-look engine-patience"),
    ("where it listens", "host port unix unix-mode tls-cert tls-key tls-client-ca "
     "page-host"),
    ("who may, and what", "no-owner allow-types root run-as as-root insecure"),
    ("how much", "max-sessions max-queue max-output max-line max-connections max-per-address "
     "max-requests stranger-timeout idle-timeout line-timeout send-timeout"),
    ("its log, and starting at boot", "log log-size log-format service"),
    ("instead of an agent: definitions", "import repo replace"),
    ("instead of an agent: looking after its files", "doctor repair restore verify-audit head"),
    ("instead of an agent: words", "help version manual"))


def make_option_parser():
    """(The parser of argparse without options but --help, {name of an option: its group})."""
    parser = Parser(prog="agent.py", usage="%(prog)s [OPTION ...]", description=HELP_ABOUT,
                    epilog=HELP_END, formatter_class=argparse.RawDescriptionHelpFormatter,
                    add_help=False)
    groups = {}
    for title, names in OPTION_GROUPS:
        group = parser.add_argument_group(title)
        groups.update(("--" + name, group) for name in names.split())
    groups["--help"].add_argument("-h", "--help", action="help",
                                  help="print these options and exit")
    return parser, groups
