"""What is shown of a reply: tables, records, text, or JSON."""
import calendar
import contextlib
import json
import os
import re
import sys
import time

from ..base.controls import show_controls
from .words import _FIELD, parse_fields
from .spelling import spell

# left out of a table that has both columns of FROM_TO: what they say follows from those, and lines
# stay short
FROM_TO, LEFT_OUT = {"begun", "duration"}, {"created", "ended"}
# of a table that is too wide: what goes first where it says what is usual, and then whatever it
# says; text is cut to no less than this
USUAL = {"enabled": True, "hold": False, "context": "GLOBAL", "version": "-1"}
SPARED = ("repository", "agent", "context", "version", "timezone", "keywords", "last",
          "last_session", "last_status")
MIN_CELL = 8
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?([+-])(\d\d):(\d\d)")


def put(line, is_flushed=False):
    """Writes a line to stdout; what its encoding lacks is shown as \\xNN. Raises OSError."""
    if sys.stdout is not None:
        sys.stdout.buffer.write(
            (show_controls(line) + "\n").encode(sys.stdout.encoding or "ascii", "backslashreplace"))
        if is_flushed:
            sys.stdout.buffer.flush()


def complain(message):
    """Writes a line to stderr, if that can be."""
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            print("agentcli: %s" % show_controls(str(message)), file=sys.stderr)


def put_json(value):
    """Writes a value as one line of JSON."""
    put(json.dumps(value), is_flushed=True)


def printable(value):
    """A value for people, on one line and without control characters."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return show_controls(str(value)).replace("\t", "\\t")


def put_fields(fields):
    """Writes what the agent acknowledged on one line, without the fields that are empty. A note
    has the client's own words."""
    if fields.get("note"):
        fields = dict(fields, note=spell(fields["note"]))
    shown = [(name, printable(value)) for name, value in fields.items() if value not in (None, "")]
    put(" ".join("%s=%s" % (
        name, json.dumps(text, ensure_ascii=False) if " " in text or text[:1] == '"' else text)
                 for name, text in shown) or "OK", is_flushed=True)


def to_reader(value):
    """A cell of a table: a time of the agent as the reader's local time, to the second."""
    match = isinstance(value, str) and _TIME.fullmatch(value)
    if not match:
        return printable(value)
    text, sign, hours, minutes = match.groups()
    offset_s = (int(hours) * 60 + int(minutes)) * 60 * (-1 if sign == "-" else 1)
    instant = calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) - offset_s
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(instant))


class Column:
    """One column of a table: a name and its values, as they are shown."""

    def __init__(self, name, values):
        self.name = name
        self.cells = [name.upper()] + [to_reader(value) for value in values]
        present = [value for value in values if value not in (None, "")]
        self.is_empty = not present
        self.is_usual = name in USUAL and all(value == USUAL[name] for value in present)
        self.is_number = all(type(value) in (int, float) for value in present)
        self.is_time = any(_TIME.fullmatch(str(value)) for value in present)
        self.width = max(map(len, self.cells))

    @property
    def can_shrink(self):
        """Whether its cells may be cut, once more."""
        return not (self.is_number or self.is_time) and self.width > MIN_CELL

    def render(self):
        """Its cells, all of one width; what is cut ends in ~."""
        cells = [cell if len(cell) <= self.width else cell[:self.width - 1] + "~"
                 for cell in self.cells]
        return [cell.rjust(self.width) if self.is_number else cell.ljust(self.width)
                for cell in cells]


def find_width():
    """How wide tables may be: as COLUMNS says, or the terminal; None: there is neither. COLUMNS
    with LINES is what readline sets, unasked, for all that a program with it starts."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and "LINES" not in os.environ:
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):       # it is none
        return None


def fit(columns, width):
    """Columns that fit a width (None: any) as far as they can: some are left out, never the first,
    then the widest texts are cut."""
    def is_wide():
        return width is not None and sum(column.width + 2 for column in columns) - 2 > width
    spare = [column for column in columns[1:]
             if column.is_usual or column.cells[1:] == columns[0].cells[1:]]
    spare += [column for name in SPARED for column in columns[1:]
              if column.name == name and column not in spare]
    while is_wide() and spare:
        columns.remove(spare.pop(0))
    while is_wide() and any(column.can_shrink for column in columns):
        widest = max((column for column in columns if column.can_shrink),
                     key=lambda column: column.width)
        widest.width -= 1
    return columns


def put_table(rows):
    """Writes rows (dicts) as aligned columns that fit the terminal; numbers stand on the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    left_out = LEFT_OUT if FROM_TO.issubset(names) else ()
    columns = [Column(name, [row.get(name) for row in rows])
               for name in names if name not in left_out]
    columns = fit([column for column in columns if not column.is_empty], find_width())
    for cells in zip(*(column.render() for column in columns)):
        put("  ".join(cells).rstrip())


def put_record(row):
    """Writes a row as a line a field, without those that are empty."""
    shown = [(name, printable(value)) for name, value in row.items() if value not in (None, "")]
    width = max([len(name) for name, _ in shown] or [0])
    for name, text in shown:
        put("%s  %s" % (name.ljust(width), text))


def show_acknowledgement(reply, is_json, origin=""):
    """A reply of fields. Data lines that are no fields are the faults that stand before an ERR;
    `origin`: in what."""
    write = put_json if is_json else put_fields
    for line in reply:
        if _FIELD.match(line):
            write(parse_fields(line))
        else:
            complain(origin + spell(line))
    write(reply.fields)


def show_listing(reply, is_json, is_record=False):
    """A reply of JSON objects: a table for each kind of row, told by its first key; a record's
    first is no table. The fields of the OK are one more."""
    if is_json:
        show_text(reply)
        if reply.fields:
            put_json(reply.fields)
        return
    kinds = {}
    for row in [json.loads(line) for line in list(reply)]:
        kinds.setdefault(next(iter(row), ""), []).append(row)
    if reply.fields:
        kinds[None] = [reply.fields]
    if not kinds and sys.stderr is not None and sys.stdout is not None and sys.stdout.isatty():
        with contextlib.suppress(OSError):
            print("none", file=sys.stderr)
    for number, rows in enumerate(kinds.values()):
        if number:
            put("")
        if not is_record or number:
            put_table(rows)
            continue
        for index, row in enumerate(rows):
            if index:
                put("")
            put_record(row)


def show_record(reply, is_json):
    """A reply of JSON objects, of which the first is what was asked for and the others belong to
    it."""
    show_listing(reply, is_json, is_record=True)


def show_text(reply, is_json=False):
    """Prints the data lines of a reply as they are, or each as JSON."""
    for line in reply:
        put(json.dumps({"line": line}) if is_json else line)


def show_document(reply, is_json):
    """A reply that is a JSON document over many lines; with --json it is one line."""
    if is_json:
        put_json(json.loads("\n".join(reply)))
    else:
        show_text(reply)


def show_log(reply, is_json):
    """A reply of lines `TIME STEP/TASK out|err TEXT`."""
    for line in reply:
        if is_json:
            when, place, stream, text = (line.split(" ", 3) + [""] * 3)[:4]
            step, _, task = place.partition("/")
            line = json.dumps({"time": when, "step": step, "task": task, "stream": stream,
                               "text": text})
        put(line, is_flushed=True)
