"""A crontab, and what becomes of its lines as scenarios and schedules; asks nobody."""
import os
import re
import zlib
from typing import NamedTuple

from .mailto import list_addresses, list_notices, notice_name

PREFIX = "CRON."            # of the names of all that comes from crontabs
# other words that begin with @ are cron's own
CRON_WORDS = {"@reboot": "boot", "@every_minute": "every 1m", "@every_second": "every 1s"}
# what a command is not named after: a guard with its arguments, and what only leads to the program
SEPARATORS = frozenset("; | & ( ) if then elif else fi while do done".split())
GUARDS = frozenset("test [ [[ cd command which type for . source export set umask sleep echo true "
                   ": exit".split())
LEADERS = frozenset("exec flock nice ionice nohup env time timeout chronic setsid run-parts sh "
                    "bash dash ksh zsh perl php python python2 python3 ruby".split())
MAX_STEM = 50               # characters of a command that are a name as they stand
_CRON_D = re.compile(".*/cron[.]d/([^/]+)")
# where cron keeps those of users
_OF_USER = re.compile("/var/(?:spool/)?cron/(?:crontabs/|tabs/)?([^/]+)")
# a - before an entry, as SUSE has it, only means: do not log
_ENTRY = re.compile(r"-?(@\S+|\S+(?:\s+\S+){4})\s+(.*)", re.ASCII)
_SETTING = re.compile(r"""(["']?)([^\s"'=]+)\1\s*=\s*(?:(["'])((?:(?!\3).)*)\3\s*|([^"'].*)?)""",
                      re.ASCII)
BLANKS = " \t\n\r\f\v"
_BEFORE_INPUT = re.compile(r"((?:\\.|[^%])*)%?(.*)")
_SHELL_WORD = re.compile(r"""[;|&()]|(?:"[^"]*"|'[^']*'|[^\s;|&()"'])+""")
# a command of plain words is its own name
_PLAIN_COMMAND = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]*(?: +[A-Za-z0-9_.-]+)*")
# a sixth field where a command is expected; a small word, such as mon, may be a program
_VALUE = "(?:[0-9]+|sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_SIXTH = re.compile("(?![a-z]+$)(?:[*?]|{0}(?:-{0})?)(?:/[0-9]+)?(?:[,#]{0}(?:-{0})?)*"
                    .format("(?i:%s)" % _VALUE))
_OF_ANACRON = re.compile(r"(?:@\S+|[0-9]+)\s+[0-9]+\s+[A-Za-z][\w.-]+\s+\S.*", re.ASCII)
# a comment that is an entry, or the heading above entries
_LIKE_ENTRY = re.compile(r"-?@[a-z]+\s|(?:[*0-9][-*/,0-9A-Za-z]*\s+){3}"
                         r"(?:[-*/,0-9A-Za-z#?]+\s+){2}\S|m\S*\s+h\S*\s+d\S*\s+m\S*\s+d")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_CONDITION = re.compile(r"(?:cd\s+\S+\s*(?:;|&&)\s*)?(?:\[\[?|test|command\s+-v|which|type|pgrep|"
                        r"grep\s+-\w*q\w*)\s")
_FLOCK = re.compile(r"\bflock\s+((?:-\S+\s+(?:[0-9.]+\s+)?)+)")
_NO_WAITING = re.compile(r"(?:^|\s)(?:-[a-z]*[nw]|--(?:nb|nonblock|timeout|wait)\b)")
_OTHER_CODE = re.compile(r"(?:^|\s)(?:-[a-z]*E|--conflict)")
# an option, redirection, number, assignment, text
_NO_PROGRAM = re.compile(r"[-<>]|\d+(?:[<>]|[smhd]?$)|\w+=|.*\s")


class Line(NamedTuple):
    """A line of a crontab."""
    number: int
    text: str


class Entry(NamedTuple):
    """What becomes of one that is carried over."""
    line: Line
    stem: str               # what its command is called; its name too, unless others have the same
    name: str
    description: str        # the comment above it
    task: dict
    timing: dict            # the schedule, without its names

    @property
    def scenario(self):
        """Its scenario, as a definition."""
        description = {"description": self.description} if self.description else {}
        return dict({"name": self.name, "version": "001"}, **dict(
            description, steps=[{"name": "main", "tasks": [self.task]}]))

    @property
    def schedule(self):
        """Its schedule, as a definition."""
        return dict({"name": self.name, "scenario": self.name}, **self.timing)

    @property
    def when(self):
        """(rule, zone): what tells it from another entry of the same command."""
        return self.timing["rule"], self.timing.get("timezone", "")


class Crontab:
    """What becomes of a crontab: `entries` are carried over, `notes` [(Line, reason)] say what is
    not, or not quite; of `left_out` lines nothing is carried over."""

    def __init__(self, name, user, home, owner, keywords):
        """`owner` is whose it is, None where every line names a user;
        only what is of `user` can be carried over. `keywords` are those of all its schedules."""
        self.name, self.keywords, self._user, self._owner = name, keywords, user, owner
        self.entries, self.notes, self.left_out = [], [], 0
        self._has_notices = True            # unless the agent takes none
        self._settings = {"SHELL": "/bin/sh", "HOME": home, "LOGNAME": user, "USER": user}
        self._comment = []

    def read(self, data):
        """Takes in the bytes of its file -> itself; lines that cannot be taken stand in `notes`."""
        for number, raw in enumerate(data.split(b"\n"), 1):
            text = raw.decode("utf-8-sig", "backslashreplace").lstrip(" \t").rstrip("\r")
            if text.startswith("#"):
                self._add_comment(text.strip("# \t").replace("\0", ""))
                continue
            if text:
                try:
                    self._take(Line(number, text), raw)
                except ValueError as error:
                    self.leave_out(Line(number, text), str(error))
            self._comment = []
        name_entries([self], {})
        return self

    def note(self, line, reason):
        """Notes what is to be said of a line."""
        self.notes.append((line, reason))

    def leave_out(self, line, reason):
        """Notes a line that is not carried over."""
        self.note(line, reason)
        self.left_out += 1

    def refuse(self, reasons):
        """Leaves out entries: {their place among them: reason}."""
        for place, reason in reasons.items():
            self.leave_out(self.entries[place].line, reason)
        self.entries = [entry for place, entry in enumerate(self.entries) if place not in reasons]

    def refuse_notices(self, reason):
        """MAILTO becomes nothing, for this reason."""
        self._has_notices = False
        self.notes = [(line, "no mail is sent: " + reason if line.text.startswith("MAILTO")
                       else text) for line, text in self.notes]

    def list_notices(self):
        """The notices that its MAILTO become, as definitions."""
        return list_notices(self.keywords, self.entries) if self._has_notices else []

    def rename(self, names):
        """Gives the entries other names, in their order; `names` is an iterator."""
        self.entries = [entry._replace(name=next(names)) for entry in self.entries]

    def find_user_field(self, is_user):
        """Where most entries of a user's crontab begin with a user, as those of a system's do: the
        first (Line, user), or None. `is_user`(word) knows the users."""
        with_user = [(line, word) for line, word in self.list_first_words()
                     if is_user(re.split("[:/]", word)[0])]
        is_most = self._owner is not None and 2 * len(with_user) > len(self.entries)
        return with_user[0] if is_most else None

    def list_first_words(self):
        """[(Line, word)]: what stands behind the time of entries, where more follows."""
        words = [(entry.line, _ENTRY.fullmatch(entry.line.text).group(2).split(None, 1))
                 for entry in self.entries]
        return [(line, rest[0]) for line, rest in words if len(rest) > 1]

    @property
    def search_path(self):
        """Where its commands are looked for, as the last setting has it, or None."""
        return self._settings.get("PATH")

    def document(self):
        """The definitions of what is carried over; a scenario and its schedule have the same
        place."""
        notices = self.list_notices()
        return dict({"scenarios": [entry.scenario for entry in self.entries],
                     "schedules": [entry.schedule for entry in self.entries]},
                    **({"notices": notices} if notices else {}))

    def _add_comment(self, text):
        if _LIKE_ENTRY.match(text):
            self._comment = []              # it is of another entry, or of none
        elif re.search(r"\w", text):
            self._comment.append(text)

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
        if name == "MAILTO" and list_addresses(value):
            self.note(line, "a mail is sent when a command fails, not when it prints (that is in "
                      "its session's log), by the notice " + notice_name(self.keywords, value))
        if name not in ("LOGNAME", "USER"):             # cron lets nobody change these
            self._settings[name] = value

    def _add(self, line):
        """Takes in an entry. ValueError says why it cannot be carried over."""
        if _OF_ANACRON.fullmatch(line.text):
            raise ValueError("is of an anacrontab: period, delay, name, command; write an entry of "
                             "cron, such as @monthly and the command")
        match = _ENTRY.fullmatch(line.text)
        when, rest = match.groups() if match else ("", "")
        check_first_word(rest)
        owner, text = ((re.split("[ \t]+", rest, maxsplit=1) + [""])[:2] if self._owner is None
                       else (self._owner, rest))
        command, data = split_input(text)
        if not command.strip():
            raise ValueError("is no entry: five fields or an @ word, %sa command"
                             % ("a user, " if self._owner is None else ""))
        if owner != self._user:
            raise ValueError("is of user %s, and the agent does not change users" % owner)
        check_first_word(command)
        stem = PREFIX + stem_of(command.strip(), data)
        self.entries.append(Entry(line, stem, stem, "\n".join(self._comment),
                                  self._task(command, data), self._schedule(when)))
        for reason in list_false_failures(command):
            self.note(line, reason)

    def _task(self, command, data):
        shell = self._settings["SHELL"]
        task = {"type": "os",
                "command": (quote_literal(command) if shell == "/bin/sh"
                            else [quote_literal(word) for word in (shell, "-c", command)]),
                "cwd": quote_literal(self._settings["HOME"]),
                "env": {name: quote_literal(value) for name, value in self._settings.items()}}
        return dict(task, stdin=quote_literal(data)) if data else task

    def _schedule(self, when):
        """As cron does: an entry waits for nothing, and what was missed is gone."""
        # FreeBSD: counted from the end of the one before
        seconds = re.fullmatch("@([0-9]+)", when)
        schedule = {"version": "001",
                    "rule": "every %ss" % seconds.group(1) if seconds else cron_rule(when),
                    "keywords": self.keywords, "overlap": "skip" if seconds else "parallel"}
        if when != "@reboot":
            schedule["misfire"] = "skip"
        if self._settings.get("CRON_TZ"):
            schedule["timezone"] = self._settings["CRON_TZ"]
        if self._settings.get("RANDOM_DELAY") and when != "@reboot":
            schedule["jitter"] = 60 * int(self._settings["RANDOM_DELAY"])
        return schedule


def name_entries(crontabs, schedules):
    """Names the entries of crontabs that are imported together. `schedules` are those that
    the agent has: {name: (rule, zone)}.

    A name is that of the command, which nothing around it changes. Among entries of one command
    each keeps the name that its time has in the agent; then the first has the plain name, and
    others get a mark of their time.
    """
    entries = [entry for crontab in crontabs for entry in crontab.entries]
    names, used, numbers = [None] * len(entries), set(), {}

    def give(place, name):
        names[place] = name
        used.add(name)
    for place, entry in enumerate(entries):
        for name in (entry.stem, mark(entry.stem, *entry.when)):
            if names[place] is None and schedules.get(name) == entry.when and name not in used:
                give(place, name)
    for place, entry in enumerate(entries):
        if names[place] is None:
            name = entry.stem if entry.stem not in used else mark(entry.stem, *entry.when)
            plain = name
            while name in used:             # the same line twice
                numbers[plain] = numbers.get(plain, 1) + 1
                name = "%s-%d" % (plain, numbers[plain])
            give(place, name)
    names = iter(names)
    for crontab in crontabs:
        crontab.rename(names)


def make_crontab(path, is_system, user, home):
    """The Crontab for a path that is not read yet; `is_system` None: as the path tells.

    A user has one crontab, whatever the file is called, and so has a system, but that each file of
    a cron.d is one of its own: by these keywords its schedules are found again.
    """
    path = os.path.abspath(path) if path != "-" else ""
    of_user, in_cron_d = _OF_USER.fullmatch(path), _CRON_D.fullmatch(path)
    if is_system is None:
        is_system = path == "/etc/crontab" or in_cron_d is not None
    owner = None if is_system else of_user.group(1) if of_user else user
    keywords = ["cron"] + ["system"] * is_system
    if is_system and in_cron_d:
        keywords.append(to_name(in_cron_d.group(1)))
    return Crontab(to_name(path) or "standard input", user, home, owner, ",".join(keywords))


def cron_rule(when):
    """Five fields, or an @ word, of cron as a rule of the agent, which checks it.
    Raises ValueError."""
    if "~" in when:
        raise ValueError("a random time (~) cannot be carried over")
    return CRON_WORDS.get(when) or "cron " + " ".join(when.split())


def check_first_word(command):
    """Whether a command begins as one does. Raises ValueError."""
    word = command.split(None, 1)[0] if command.strip() else ""
    if _SIXTH.fullmatch(word):
        raise ValueError("has a sixth field, %s, before its command; cron has five" % word)
    if re.match(r"[*]|-[nqs]+\s", command):
        raise ValueError("has a sixth field, or options, before its command")


def list_false_failures(command):
    """[what is to be said] of a command whose exit code is not 0 where nothing has failed."""
    bare = _QUOTED.sub("Q", command)
    flock, reasons = _FLOCK.search(bare), []
    if flock and _NO_WAITING.search(flock.group(1)) and not _OTHER_CODE.search(flock.group(1)):
        reasons.append("while another has its lock, its session ends in ERROR; with flock -E 0 it "
                       "ends well")
    is_whole = ";" not in re.sub(r"\bif\b.*\bfi\b", "", bare)     # else something behind decides
    if _CONDITION.match(bare) and "&&" in bare and "||" not in bare and is_whole:
        reasons.append("where its condition is not met, its session ends in ERROR; as 'if "
                       "condition; then command; fi' it ends well")
    return reasons


def split_input(text):
    """A command of cron -> (command, its standard input): behind the first % stands input, and each
    further % is a new line; \\% is a %."""
    command, data = _BEFORE_INPUT.fullmatch(text).groups()
    data = re.sub(r"\\?%", lambda match: "\n" if match.group() == "%" else "%", data)
    return command.replace("\\%", "%"), data + "\n" * (data[-1:] not in ("", "\n"))


def quote_literal(text):
    """A text that the agent takes for nothing but this text."""
    return text.replace("${", "$${")


def stem_of(command, data):
    """What a command is called: plain words as they stand; any other is called after its program,
    with a mark of the command and its standard input."""
    if _PLAIN_COMMAND.fullmatch(command) and len(command) <= MAX_STEM and not data:
        return "_".join(command.split())
    return mark(program_of(command), command, data)


def mark(name, *texts):
    """A name with six digits that follow from some texts."""
    return "%s-%06x" % (name, zlib.crc32("\0".join(texts).encode()) & 0xffffff)


def program_of(command):
    """What a command goes by: `test -x /opt/a || nice /opt/b.sh 1` -> b.sh."""
    is_guard, is_lock, names = False, False, []
    for word in _SHELL_WORD.findall(re.sub(r"\$\([^()]*\)|`[^`]*`", "", command)):
        bare = word.replace('"', "").replace("'", "")
        if word in SEPARATORS:
            is_guard = False
        elif is_lock and not _NO_PROGRAM.match(bare):
            is_lock = False                 # the file that flock locks
        elif not is_guard and not _NO_PROGRAM.match(bare):
            names.append(to_name(bare))
            is_guard = bool(GUARDS.intersection((bare, names[-1])))
            is_lock = names[-1] == "flock"
            if names[-1] and not is_guard and names[-1] not in LEADERS:
                return names[-1]
    return next(filter(None, names), "command")


def to_name(path):
    """The last part of a path as (part of) a name of the agent's, or nothing."""
    return re.sub("[^A-Za-z0-9_.-]+", "_", path.rpartition("/")[2]).strip("_.-")[:50]
