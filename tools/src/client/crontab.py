"""A crontab, and what becomes of its lines as scenarios and schedules; asks nobody."""
import os
import re
from typing import NamedTuple

# other words that begin with @ are cron's own
CRON_WORDS = {"@reboot": "startup", "@every_minute": "every 1m", "@every_second": "every 1s"}
# what a command is not named after: a guard with its arguments, and what only leads to the program
SEPARATORS = frozenset("; | & ( ) if then elif else fi while do done".split())
GUARDS = frozenset("test [ [[ cd command which type for . source export set umask sleep echo true "
                   ": exit".split())
LEADERS = frozenset("exec nice ionice nohup env time timeout chronic setsid run-parts sh bash dash "
                    "ksh zsh perl php python python2 python3 ruby".split())
_SYSTEM_CRONTAB = re.compile("/etc/crontab|.*/cron[.]d/[^/]+")
# where cron keeps those of users
_OF_USER = re.compile("/var/(?:spool/)?cron/(?:crontabs/|tabs/)?([^/]+)")
# a - before an entry, as SUSE has it, only means: do not log
_ENTRY = re.compile(r"-?(@\S+|\S+(?:\s+\S+){4})\s+(.*)", re.ASCII)
_SETTING = re.compile(r"""(["']?)([^\s"'=]+)\1\s*=\s*(?:(["'])((?:(?!\3).)*)\3\s*|([^"'].*)?)""",
                      re.ASCII)
BLANKS = " \t\n\r\f\v"
_BEFORE_INPUT = re.compile(r"((?:\\.|[^%])*)%?(.*)")
_SHELL_WORD = re.compile(r"""[;|&()]|(?:"[^"]*"|'[^']*'|[^\s;|&()"'])+""")
# an option, redirection, number, assignment, text
_NO_PROGRAM = re.compile(r"[-<>]|\d+(?:[<>]|[smhd]?$)|\w+=|.*\s")


class Line(NamedTuple):
    """A line of a crontab."""
    number: int
    text: str


class Entry(NamedTuple):
    """What becomes of one that is carried over."""
    line: Line
    scenario: dict
    schedule: dict


class Crontab:
    """What becomes of a crontab: `entries` are carried over, `notes` [(Line, reason)] say what is
    not, or not quite; of `left_out` lines nothing is carried over."""

    def __init__(self, name, user, home, owner):
        """`owner` is whose it is, None where every line names a user;
        only what is of `user` can be carried over."""
        self.name, self._user, self._owner = name, user, owner
        self.entries, self.notes, self.left_out = [], [], 0
        self._settings = {"SHELL": "/bin/sh", "HOME": home, "LOGNAME": user, "USER": user}
        self._names = {}        # name that is taken -> number of the last that was made of it

    def read(self, data):
        """Takes in its bytes -> itself."""
        for number, raw in enumerate(data.split(b"\n"), 1):
            line = Line(number,
                        raw.decode("utf-8-sig", "backslashreplace").lstrip(" \t").rstrip("\r"))
            if line.text and not line.text.startswith("#"):
                try:
                    self._take(line, raw)
                except ValueError as error:
                    self.leave_out(line, str(error))
        return self

    def leave_out(self, line, reason):
        """Notes a line that is not carried over."""
        self.notes.append((line, reason))
        self.left_out += 1

    def refuse(self, reasons):
        """Leaves out entries: {their place among them: reason}."""
        for place, reason in reasons.items():
            self.leave_out(self.entries[place].line, reason)
        self.entries = [entry for place, entry in enumerate(self.entries) if place not in reasons]

    def find_user_field(self, is_user):
        """Where most entries of a user's crontab begin with a user, as those of a system's do: the
        first (Line, user), or None. `is_user`(word) knows the users."""
        words = [(entry.line, _ENTRY.fullmatch(entry.line.text).group(2).split(None, 1))
                 for entry in self.entries]
        with_user = [(line, rest[0]) for line, rest in words
                 if len(rest) > 1 and is_user(re.split("[:/]", rest[0])[0])]
        return with_user[0] if self._owner is not None and 2 * len(with_user) > len(words) else None

    def document(self):
        """The definitions of what is carried over; a scenario and its schedule have the same
        place."""
        return {"scenarios": [entry.scenario for entry in self.entries],
                "schedules": [entry.schedule for entry in self.entries]}

    def _take(self, line, raw):
        if raw.decode("utf-8", "ignore").encode() != raw:
            raise ValueError("is not UTF-8")
        setting = _SETTING.fullmatch(line.text)
        if setting:
            self._set(line, setting.group(2),
                      setting.group(4) or (setting.group(5) or "").rstrip(BLANKS))
        else:
            self._add(line)

    def _set(self, line, name, value):
        """A setting holds for the entries below it."""
        if name == "RANDOM_DELAY" and not re.fullmatch("[0-9]{0,4}", value):
            raise ValueError("must be whole minutes")
        if name == "MAILTO" and value:
            self.notes.append((line, "nothing is mailed; what a command prints is kept in "
                               "its session's log"))
        if name not in ("LOGNAME", "USER"):             # cron lets nobody change these
            self._settings[name] = value

    def _add(self, line):
        match = _ENTRY.fullmatch(line.text)
        when, rest = match.groups() if match else ("", "")
        owner, text = ((re.split("[ \t]+", rest, maxsplit=1) + [""])[:2] if self._owner is None
                       else (self._owner, rest))
        command, data = split_input(text)
        if not command.strip():
            raise ValueError("is no entry: five fields or an @ word, %sa command"
                             % ("a user, " if self._owner is None else ""))
        if owner != self._user:
            raise ValueError("is of user %s, and the agent does not change users" % owner)
        if re.match(r"[*]|-[nqs]+\s", command):
            raise ValueError("has a sixth field, or options, before its command")
        schedule, name = self._schedule(when), self._unique_name(program_of(command))
        steps = [{"name": "main", "tasks": [self._task(command, data)]}]
        self.entries.append(Entry(line, {"name": name, "version": "001", "steps": steps},
                                  dict({"name": name, "scenario": name}, **schedule)))

    def _task(self, command, data):
        shell = self._settings["SHELL"]
        task = {"type": "os",
                "command": (literal(command) if shell == "/bin/sh"
                            else [literal(word) for word in (shell, "-c", command)]),
                "cwd": literal(self._settings["HOME"]),
                "env": {name: literal(value) for name, value in self._settings.items()}}
        return dict(task, stdin=literal(data)) if data else task

    def _schedule(self, when):
        """As cron does: an entry waits for nothing, and what was missed is gone."""
        # FreeBSD: counted from the end of the one before
        seconds = re.fullmatch("@([0-9]+)", when)
        schedule = {"version": "001",
                    "rule": "every %ss" % seconds.group(1) if seconds else cron_rule(when),
                    "keywords": "cron", "overlap": "skip" if seconds else "parallel"}
        if when != "@reboot":
            schedule["misfire"] = "skip"
        if self._settings.get("CRON_TZ"):
            schedule["timezone"] = self._settings["CRON_TZ"]
        if self._settings.get("RANDOM_DELAY") and when != "@reboot":
            schedule["jitter"] = 60 * int(self._settings["RANDOM_DELAY"])
        return schedule

    def _unique_name(self, program):
        """Repeated names are numbered in order: imported again with --replace,
        no earlier entry stays behind."""
        name = plain = ".".join(dict.fromkeys((self.name, program)))
        while name in self._names:
            self._names[plain] += 1
            name = "%s-%d" % (plain, self._names[plain])
        self._names[name] = 1
        return name


def make_crontab(path, is_system, user, home):
    """The Crontab for a path that is not read yet; `is_system` None: as the path tells."""
    path = os.path.abspath(path) if path != "-" else "CRON"
    if is_system is None:
        is_system = bool(_SYSTEM_CRONTAB.fullmatch(path))
    of_user = _OF_USER.fullmatch(path)
    owner = None if is_system else of_user.group(1) if of_user else user
    return Crontab(to_name(path) or "CRON", user, home, owner)


def cron_rule(when):
    """Five fields, or an @ word, of cron as a rule of the agent, which checks it.
    Raises ValueError."""
    if "~" in when:
        raise ValueError("a random time (~) cannot be carried over")
    return CRON_WORDS.get(when) or "cron " + " ".join(when.split())


def split_input(text):
    """A command of cron -> (command, its standard input): behind the first % stands input, and each
    further % is a new line; \\% is a %."""
    command, data = _BEFORE_INPUT.fullmatch(text).groups()
    data = re.sub(r"\\?%", lambda match: "\n" if match.group() == "%" else "%", data)
    return command.replace("\\%", "%"), data + "\n" * (data[-1:] not in ("", "\n"))


def literal(text):
    """A text that the agent takes for nothing but this text."""
    return text.replace("${", "$${")


def program_of(command):
    """What a command goes by: `test -x /opt/a || nice /opt/b.sh 1` -> b.sh."""
    is_guard, names = False, []
    for word in _SHELL_WORD.findall(re.sub(r"\$\([^()]*\)|`[^`]*`", "", command)):
        bare = word.replace('"', "").replace("'", "")
        if word in SEPARATORS:
            is_guard = False
        elif not is_guard and not _NO_PROGRAM.match(bare):
            names.append(to_name(bare))
            is_guard = bool(GUARDS.intersection((bare, names[-1])))
            if names[-1] and not is_guard and names[-1] not in LEADERS:
                return names[-1]
    return next(filter(None, names), "command")


def to_name(path):
    """The last part of a path as (part of) a name of the agent's, or nothing."""
    return re.sub("[^A-Za-z0-9_.-]+", "_", path.rpartition("/")[2]).strip("_.-")[:50]
