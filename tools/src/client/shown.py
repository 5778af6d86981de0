"""What is shown of a reply: tables, records, text, or JSON."""
import contextlib
import json
import sys

from ..base.controls import show_controls
from .colours import is_terminal
from .words import _FIELD, parse_fields
from .errors import ClientError
from .spelling import spell
from .tables import is_too_wide, printable, put_safe, put_table, to_reader


def put(line, is_flushed=False):
    """Writes a line to stdout with what is hidden in it shown. Raises OSError."""
    put_safe(show_controls(line), is_flushed)


def tell(message):
    """Writes a line to stderr, if that can be."""
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            print(show_controls(str(message)), file=sys.stderr)


def complain(message):
    """Tells what has gone wrong."""
    tell("agentcli: %s" % message)


def put_json(value):
    """Writes a value as one line of JSON."""
    put(json.dumps(value), is_flushed=True)


def render_fields(fields):
    """What the agent acknowledged, on one line, without the fields that are empty. A note has the
    client's own words."""
    if fields.get("note"):
        fields = dict(fields, note=spell(fields["note"]))
    shown = [(name, printable(value)) for name, value in fields.items() if value not in (None, "")]
    return " ".join("%s=%s" % (
        name, json.dumps(text, ensure_ascii=False) if " " in text or text[:1] == '"' else text)
                    for name, text in shown) or "OK"


def put_fields(fields):
    """Writes what the agent acknowledged."""
    put(render_fields(fields), is_flushed=True)


def put_record(row):
    """Writes a row as a line a field, without those that are empty."""
    shown = [(name, printable(value)) for name, value in row.items() if value not in (None, "")]
    width = max([len(name) for name, _ in shown] or [0])
    for name, text in shown:
        put("%s  %s" % (name.ljust(width), text))


def show_acknowledgement(reply, is_json, origin=""):
    """A reply of fields. Data lines that are no fields are the faults that stand before an ERR;
    `origin`: in what."""
    write, fault = put_json if is_json else put_fields, None
    try:
        for line in reply:
            if _FIELD.match(line):
                write(parse_fields(line))
            else:
                complain(origin + spell(line))
                fault = fault or spell(line)
    except ClientError as error:    # it repeats the first fault
        text = str(error)
        raise ClientError(error.status, text[:-len(": " + fault)]
                          if fault and text.endswith(": " + fault) else text)
    write(reply.fields)


def read_kinds(reply):
    """The rows of a reply of JSON objects, told apart by their first key: {key: rows}; the fields
    of the OK are under None."""
    kinds = {}
    for row in [json.loads(line) for line in list(reply)]:
        kinds.setdefault(next(iter(row), ""), []).append(row)
    if reply.fields:
        kinds[None] = [reply.fields]
    return kinds


def tell_none():
    """Says on a terminal that there is nothing to list."""
    if is_terminal(sys.stdout):
        tell("none")


def show_listing(reply, is_json, is_record=False, show_cell=to_reader):
    """A reply of JSON objects: a table for each kind of row; a record's first is no table. The
    fields of the OK are one more."""
    if is_json:
        show_text(reply)
        if reply.fields:
            put_json(reply.fields)
        return
    kinds = read_kinds(reply)
    if not kinds and reply.trouble is None:
        tell_none()
    for number, (kind, rows) in enumerate(kinds.items()):
        if number:
            put("")
        if kind is None and is_too_wide(rows):
            put_record({name: to_reader(value) for name, value in rows[0].items()})
            continue
        if not is_record or number:
            put_table(rows, show_cell)
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


def parse_log_line(line):
    """A line of a log, `TIME STEP/TASK out|err TEXT`, as its parts."""
    when, place, stream, text = (line.split(" ", 3) + [""] * 3)[:4]
    step, _, task = place.partition("/")
    return {"time": when, "step": step, "task": task, "stream": stream, "text": text}


def show_log(reply, is_json):
    """A reply of lines of a log."""
    for line in reply:
        put(json.dumps(parse_log_line(line)) if is_json else line, is_flushed=True)
