"""A seeded generator of what clients may send: requests of every form that there is, whole or damaged, and definitions
documents with every type of task and every field, whole or mutated. The same seed makes the same."""
import contextlib
import copy
import json
import os
import random
import re

from conftest import program

NAMES = ["HELLO", "S", "T", "CAL", "L", "DB", "GLOBAL", "DEV", "WORKREP", "AGENT", "main", "NONE", "x" * 128]
# what no field is meant to have, and some that one is
HOSTILE = ["", " ", "0", "1", "-1", "+1", "00", "1.5", "1e308", "-1e308", "nan", "inf", "NaN", "0x10", "1_000",
           "9" * 19,
           "9" * 400, "9" * 5000, "٣", "\u00e9", "\U0001f600", "\u202e", "\ufeff", "\x7f", "\t", "\r", "\x1b[2J",
           "a,b", ",,,", "../../etc/passwd", ":memory:", "file:x?mode=rw", "%s%n", "{0}", "${who}", "${SESSION", "$${",
           "$(id)", "`id`", ";", "'", '"', "\\", "\\u0000", "--", "-", "=", "a=b", "-JSON", "null", "true",
           "yes", "NO", "[]",
           "{}", "x" * 129, "x" * 5000, "END", "FAIL", "startup", "UTC", "Europe/Zurich",
           "Etc/../UTC", "/etc/localtime",
           "drop table session;--", "(" * 600, "(a+)+$", "[", "*", "?", "OK", "ERR INTERNAL", "GET / HTTP/1.1", "a\nb"]
JSON_VALUES = [None, True, False, 0, 1, -1, 1.5, 1e308, 10 ** 30, -10 ** 400, float("nan"), float("inf"), [], {}, [[]],
               {"a": None}, {"": ""}, [None], "", "\0", "\ud800", {"secret": True}, {"secret": True, "env": "HOME"},
               {"secret": 1}, {"limit": 1}, {"limit": 0}, {"env": "X"}, {"file": "/nowhere"}]
# a word of a kind of protocol/table.py that is right
KINDS = {
    "session": ["1001", "2001", "3001", "999999999999999"], "name": NAMES, "version": ["-1", "1", "001", "2", "x.y"],
    "states": ["DONE", "done,ERROR", "WAITING"], "ends": ["DONE,ERROR"], "stream": ["out", "err"], "calendar": ["CAL"],
    "dates": ["2026-12-25", "2026-12-25..2027-01-02", "0001-01-01..9998-12-31", "2024-02-29"],
    "text": ["a text", "HELLO"],
    "label": ["a label", "a,b"], "token": ["workrep.db", "a.db", "key"], "priority": ["0", "-5", "1000"],
    "amount": ["0", "10"], "count": ["1", "100", "1000", "100001"], "days": ["0", "0.5", "100000"], "level": ["0", "5"],
    "limit": ["1", "50", "1000000"], "user": ["alice", "bob", "NOBODY"], "os_user": ["", "4000001", "4000002"],
    "role": ["monitor", "operator", "administrator"], "patterns": ["", "*", "S,T", "A?*,x*"],
    "secret": ["correct horse", "x"], "password": ["correct horse", "a battery"]}
SECONDS = ["0", "0.01", "1s", "90s", "15m", "2h", "1d", "999999999", "1000000001", "9999999d"]
# of a task or schedule: what a field may be, where its name alone tells
FIELDS = {
    "command": ["true", ["true", "${v}"], ["/bin/sh", "-c", "exit 3"]], "env": [{"A": "b"}], "ok_codes": [[0, 3]],
    "warning_codes": [[4]], "args": [["a", "${v}"]], "variables": [{"v": "1"}], "columns": [["a", "b"]],
    "umask": ["027"],
    "types": [{"a": "integer", "b": "real"}], "delimiter": [";", "\t"], "encoding": ["utf-8", "latin-1"],
    "nice": [1],
    "to": [["a@b.c"], "/nowhere/to"], "from": ["/nowhere/from", "2026-06-01", "2026-06-01T02:00"],
    "schema": ["L"],
    "headers": [{"A": "b"}], "expect": [[200, 404]], "url": ["http://127.0.0.1:9/", "https://a.b/c?d=${v}"],
    "attach": [["/nowhere"]],
    "variable": ["v"], "capture": ["v"], "operator": ["=", "<", "in", "matches"],
    "value": ["1", 1, ["a", "b"], "^a+$"],
    "name": ["S", "HELLO"], "version": ["-1", "1"], "mode": ["append", "replace"], "newline": ["lf"],
    "seconds": [0, "1s"],
    "scenario": ["S", "HELLO"], "context": ["GLOBAL", "DEV"],
    "timezone": ["UTC", "Europe/Zurich", "America/St_Johns"],
    "hours": ["08:00-18:00", "22:00-06:00", "02:30-02:30"], "exclude_weekdays": ["sat,sun", ["mon"]],
    "exclude_monthdays": ["1,15,last", [31]], "exclude_dates": ["CAL", "2026-12-25..2027-01-02"],
    "gap": ["run", "skip"],
    "repeat_every": ["1s", "90s", 3600], "repeat_count": [1, 1000000], "repeat_for": ["1h", "40d"],
    "fold": ["first", "both"],
    "jitter": ["10m", 86400], "after": ["T", "scenario:S/2h", ["T", "scenario:S"]],
    "overlap": ["skip", "stop"],
    "misfire": ["all", "once"], "enabled": [True, False], "attempts": [1, 3], "keywords": ["a,b"], "agent": ["AGENT"]}
WRONG = 0.15            # how much of the words is what no field is meant to have


class Fuzz:
    """What clients send, by a seed. No word leads to a file outside the folder of the master that could be made."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def pick(self, values):
        """One of these, and none that another has: what is made may be mutated."""
        value = values[self.rng.randrange(len(values))]
        return copy.deepcopy(value) if isinstance(value, (list, dict)) else value

    def chance(self, share):
        return self.rng.random() < share

    # -- words ---------------------------------------------------------------------------

    def number(self, low, high):
        """A whole number of a range, seldom the next one outside."""
        return self.rng.randrange(low, high + 1) if self.chance(0.96) else self.pick([low - 1, high + 1])

    def time(self):
        """A time as requests take it, or nearly."""
        year = self.pick([1, 1969, 2026, 2026, 2027, 9998, 9999])
        day = "%04d-%02d-%02d" % (year, self.number(1, 12), self.number(1, 28))
        clock = "%02d:%02d" % (self.number(0, 23), self.number(0, 59))
        return self.pick([
            day, "%sT%s" % (day, clock),
            "%sT%s:%02d%s" % (day, clock, self.number(0, 59), self.pick(["", "Z", "+14:00", "-23:59"])),
            "now", "today", "tomorrow", "yesterday " + clock, "tomorrow " + clock, clock,
            self.pick(["+", "-", ""]) + self.pick(SECONDS),
            "%s:%02d" % (clock, self.number(0, 59))])

    def time_word(self):
        """The same as a word of a request."""
        return json.dumps(self.time()).encode()

    def part_of_cron(self, low, high):
        """A field of a rule cron."""
        first, last = sorted([self.number(low, high), self.number(low, high)])
        return self.pick(["*", "*", str(first), "%d-%d" % (first, last), "*/%d" % (first + 1), "%d,%d" % (first, last),
                          "%d-%d/%d" % (first, last, self.number(1, 9))])

    def rule(self):
        """A rule of a schedule, or nearly."""
        clock, cron = "%02d:%02d" % (self.number(0, 23), self.number(0, 59)), self.part_of_cron
        return self.pick([
            "startup", "boot", "at 2026-%02d-%02d %s" % (self.number(1, 12), self.number(1, 31), clock),
            "every " + self.pick(SECONDS[2:7]), "hourly at " + clock, "daily at " + clock, "daily at %s,03:33" % clock,
            "weekly on %s at %s" % (self.pick(["mon", "mon,wed", "sun", "x"]), clock),
            "monthly on %s at %s" % (self.pick(["1", "31", "last", "last fri", "fourth mon", "1,15,last", "0"]), clock),
            "yearly on %02d-%02d at %s" % (self.number(1, 12), self.number(1, 31), clock),
            "cron " + " ".join([cron(0, 59), cron(0, 23), cron(1, 31), cron(1, 12),
                                self.pick(["*", "5L", "5#2", "mon-fri", "0", "7"])]),
            "cron " + " ".join([cron(0, 59), cron(0, 59), cron(0, 23), self.pick(["L", "*", "29"]), "2", "*"]),
            self.pick(["@daily", "cron @hourly", "cron", "every", "", "at " + self.time()])])

    def word(self, part):
        """A value for an argument or option of a form."""
        kind = part.kind or ""
        if self.chance(WRONG):
            return self.pick(HOSTILE)
        if part.name == "DOCUMENT":
            return self.document_text(is_harmless=True)
        if part.name.strip("-") == "RULE" or kind == "field rule":
            return self.rule()
        if kind.startswith("field "):
            value = self.field(kind[6:])
            return value if isinstance(value, str) else json.dumps(value)
        if kind in ("time", "end", "past"):
            return self.time()
        if kind in ("seconds", "timeout"):
            return self.pick(SECONDS)
        return self.pick(KINDS.get(kind, HOSTILE))

    def quote(self, text):
        """A word as it is written: bare, in either quotes, or in parts."""
        is_bare = text and not re.search("[\\s\"']", text)
        how = self.rng.randrange(4)
        if how == 0 and is_bare:
            return text
        if how == 1 and "'" not in text:
            return "'%s'" % text
        if how == 2 and is_bare and len(text) > 1:
            middle = self.rng.randrange(1, len(text))
            return text[:middle] + json.dumps(text[middle:])
        return json.dumps(text, ensure_ascii=self.chance(0.5))

    # -- requests ------------------------------------------------------------------------

    def request(self, forms=program.VERB_FORMS):
        """A request, bytes without their LF. It waits for nothing for long: LOG has no -FOLLOW, and WAIT a timeout."""
        form = self.pick(forms)
        words = []
        for part in program.list_parts(form):
            if not self.chance(0.95 if part.is_required else 0.25) or part.name == "-FOLLOW":
                continue
            if not part.name.startswith("-"):
                words.append(self.quote(self.word(part)))
            elif part.kind is None:
                words.append(part.name)
            elif part.name != "-SYNC" and not (form.name == "WAIT" and part.name == "-TIMEOUT"):
                words.append("%s=%s" % (self.pick([part.name, part.name.lower()]), self.quote(self.word(part))))
        if "[VARIABLE=" in form.words and self.chance(0.3):
            words.append("%s=%s" % (self.pick(["who", "v", "SESSION", "_"]), self.quote(self.pick(HOSTILE))))
        if self.chance(0.15):
            words.append("-JSON")
        if self.chance(0.1):
            words.insert(self.rng.randrange(len(words) + 1), self.quote(self.pick(HOSTILE)))
        if self.chance(0.1):
            self.rng.shuffle(words)
        words += {"WAIT": ["-TIMEOUT=0.01"], "EXEC": ["-SYNC=0.01"][:self.chance(0.2)]}.get(form.name, [])
        line = self.pick([" ", " ", "\t", "  "]).join([form.name] + words).replace("\n", "")
        line = line.encode("utf-8", "surrogatepass")
        return self.damage(line) if self.chance(0.15) and form.name not in ("WAIT", "LOG", "EXEC") else line

    def damage(self, line):
        """Some bytes of a line are others, or gone; none is a slash that was not there."""
        line = bytearray(line)
        for _ in range(self.rng.randrange(1, 5)):
            place = self.rng.randrange(len(line) + 1)
            line[place:place + self.rng.randrange(3)] = bytes([self.pick(b"\"'\\=-{}[],:\0\r\x01\xff\xc3\xed \t9")])
        return bytes(line)

    # -- definitions ---------------------------------------------------------------------

    def field(self, name, kind=None):
        """A value of a field, one that its kind takes where that is known."""
        if name == "rule":
            return self.rule()
        for values in (FIELDS.get(name, []), ["1", 1, "/nowhere/x", "90s", True, ["1"], {}])[self.chance(0.02):]:
            values = [value for value in values if kind is None or is_taken(kind, value)]
            if values:
                return self.pick(values)
        return self.pick(JSON_VALUES)

    def fields(self, table, share=0.3, **known):
        """An object with the fields of a table that are needed, and this share of the others."""
        chosen = {name: self.field(name, field.kind) for name, field in table.items()
                  if field.required and name not in known or self.chance(share)}
        return dict(chosen, **known)

    def task(self, kinds):
        kind = self.pick(sorted(kinds))
        task = self.fields(kinds[kind].fields, type=kind)
        choices = getattr(kinds[kind], "one_of", ())
        for other in choices[1:] if choices else ():
            task.pop(other, None)
            task.setdefault(choices[0], "1")
        if task.get("operator") != "in" and isinstance(task.get("value"), list):
            task["value"] = "1"
        return task

    def document(self, is_harmless=False):
        """A definitions document as it may be. `is_harmless`: whatever runs of it does nothing."""
        kinds = {name: kind for name, kind in program.TASK_TYPES.items()
                 if not is_harmless or name in ("set", "evaluate")}

        def scenario(name):
            names = ["main", "next", "last"][:self.rng.randrange(1, 4)]
            steps = [self.fields(program.STEP_FIELDS, 0.1, name=each, tasks=[
                self.task(kinds) for _ in range(self.rng.randrange(1, 3))]) for each in names]
            for step in steps:
                for target in ("on_ok", "on_error", "on_false"):
                    step.pop(target, None)
                    if self.chance(0.3):
                        step[target] = self.pick(names + ["END", "FAIL"])
            concurrency = {"concurrency": {"limit": 2, "on_limit": "skip"}} if self.chance(0.2) else {}
            return dict(name=name, version="%d.%d" % (self.rng.randrange(9), self.rng.randrange(99)), steps=steps,
                        variables={"v": "1", "s": self.pick(["x", {"secret": True}])}, **concurrency)
        document = {
            "contexts": ["DEV"], "calendars": [{"name": "CAL", "dates": [self.pick(KINDS["dates"])]}],
            "data_servers": [{"name": "DB", "driver": "sqlite3", "database": "/nowhere/x.db"},
                             {"name": "MAIL", "driver": "smtp",
                              "connect": {"host": "127.0.0.1", "port": 9, "tls": "none"}}],
            "logical_schemas": [{"name": "L", "contexts": {"GLOBAL": "DB", "DEV": "DB.X"}}],
            "scenarios": [scenario("S"), scenario("T")],
            "schedules": [self.fields(program.SCHEDULE_FIELDS, 0.15, name=self.pick(["A", "T", "U"]), scenario="S",
                                      rule=self.rule())
                          for _ in range(self.rng.randrange(3))]}
        return {part: value for part, value in document.items() if self.chance(0.97)}

    def mutate(self, value):
        """A JSON value with something in it that is otherwise."""
        places = list(self._places(value))
        if not places:
            return self.pick(JSON_VALUES)
        holder, key = places[self.rng.randrange(len(places))]
        how = self.rng.randrange(9)
        if how == 0:
            del holder[key]
        elif how == 1:
            holder[key] = self.pick(JSON_VALUES)
        elif how == 2:
            holder[key] = self.pick(HOSTILE)
        elif how == 3:
            holder[key] = [holder[key]]
        elif how == 4:
            holder[key] = {"a": holder[key]}
        elif how == 5 and isinstance(holder, dict):
            holder[self.pick(NAMES + HOSTILE[:40])] = holder.pop(key)
        elif how == 6:
            other, place = places[self.rng.randrange(len(places))]
            with contextlib.suppress(RecursionError):
                holder[key] = copy.deepcopy(other[place])
        elif how == 7 and isinstance(holder, list):
            holder += holder[:1] * self.pick([1, 2, 100])
        else:
            holder[key] = nested(self.pick([3, 50, 400]), self.pick(["list", "object"]))
        return value

    @staticmethod
    def _places(value):
        """(list or object, index or name) of all that is in a JSON value, however deep."""
        holders = [value]
        for holder in holders:
            if isinstance(holder, (list, dict)):
                for key in range(len(holder)) if isinstance(holder, list) else list(holder):
                    yield holder, key
                    holders.append(holder[key])

    def document_text(self, is_harmless=False):
        """The text of a document, mutated on each of its levels: as a value, and as text."""
        document = self.document(is_harmless)
        if self.chance(0.6):
            for _ in range(self.pick([1, 1, 2, 5])):
                document = self.mutate(document)
        try:
            text = json.dumps(document)
        except RecursionError:          # nested in what was nested
            text = "[" * 2000
        if self.chance(0.2):
            place = self.rng.randrange(len(text) + 1)
            text = text[:place] + self.pick(BOMBS + list('{}[],:"\\0-eE.') + HOSTILE) \
                + text[place + self.rng.randrange(3):]
        return text


def is_taken(kind, value):
    try:
        kind.check(value)
        return True
    except ValueError:
        return False


def nested(depth, kind):
    """A JSON value of this depth."""
    value = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


BOMBS = ["[" * 100000, '{"a":' * 100000, "[" * 900 + "]" * 900, "1" * 5000, "1e999999999", "-" * 1000,
         "NaN", "Infinity", '"\\ud800"',
         '"\\ud800\\udc00"', '{"a":1,"a":2}', '"name":"S","name":"T",', " " * 100000, '"' + "x" * 200000 + '"',
         "\ufeff", "tru", "/**/"]
SEED, ROUNDS = (int(os.environ.get(name, default)) for name, default in (("FUZZ_SEED", "1"), ("FUZZ_ROUNDS", "1")))
SEEDS = range(SEED, SEED + ROUNDS)
