"""The systemd unit that runs the agent on this host."""
import os
import re
import sys

from ..base.clients import find_user_name
from ..base.options import COMMAND_OPTIONS
from ..base.program import program_path

# what tasks seldom need (systemd.exec(5)); the first keeps sudo from them, and the unit says so
HARDENED = ("NoNewPrivileges", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
            "ProtectControlGroups", "ProtectClock", "ProtectHostname", "RestrictRealtime",
            "RestrictSUIDSGID", "LockPersonality")
SUDO = "# tasks that call sudo need NoNewPrivileges=no and RestrictSUIDSGID=no"
USER = "user"
# options that do not belong to an agent that serves
NOT_OF_SERVICE = ("--import", "--repo", "--replace", "--service", "--doctor", "--repair",
                  "--restore", "--verify-audit", "--head", "--manual", "--version", "--help")

UNIT = """# {where}
# {commands}
[Unit]
Description=agent {name} (agent.py)
{after}
[Service]
Type=notify
ExecStart={words}
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=60
Restart=on-failure
RestartSec=5
# SHUTDOWN and stop let running sessions end for 60 s
TimeoutStopSec=90
# all that a task has left is ended with the agent; for sessions of on_stale=adopt, which are to go
# on without it, write process
KillMode=mixed
{limits}
[Install]
WantedBy={target}
"""


def list_unit_words(settings):
    """The command line that gives these settings: [(word, whether it is a path)]."""
    words = []
    for option in COMMAND_OPTIONS:
        value = None if option.name in NOT_OF_SERVICE else option.find_value(settings)
        if value not in (None, False, option.default):
            words += [(option.name, False)] + ([(str(value), option.is_path)] * bool(option.shown))
    return words


def make_unit(kind, name, arguments):
    """The unit of the system, or of a user, for an agent with this command line: text."""
    words = [sys.executable, program_path()] + [
        os.path.abspath(word) if is_path else word for word, is_path in arguments]
    unit = "agent-%s.service" % name
    if kind == USER:
        where = "~/.config/systemd/user/" + unit
        commands = ("systemctl --user daemon-reload; systemctl --user enable --now %s; loginctl "
                    "enable-linger" % unit)
        limits, after, target = "", "", "default.target"
    else:
        where = "/etc/systemd/system/" + unit
        commands = "systemctl daemon-reload; systemctl enable --now " + unit
        limits = "User=%s\n%s\n" % (find_user_name(os.geteuid()) or os.geteuid(), SUDO)
        limits += "".join("%s=yes\n" % word for word in HARDENED)
        after = "After=local-fs.target network-online.target\nWants=network-online.target\n"
        target = "multi-user.target"
    return UNIT.format(where=where, commands=commands, name=name, after=after, limits=limits,
                       words=" ".join(map(quote_for_unit, words)), target=target)


def quote_for_unit(word):
    """A word of ExecStart= (systemd.service(5), "Command lines")."""
    word = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch("[A-Za-z0-9_./:@%$+=,-]+", word):
        return word
    return '"%s"' % word.replace("\\", "\\\\").replace('"', '\\"')
