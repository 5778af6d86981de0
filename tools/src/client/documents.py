"""check, diff: a definitions document against the rules of the agent and against what it has."""
import difflib
import json
import sys

from .colours import CYAN, GREEN, RED, YELLOW, has_colours, paint
from .errors import ClientError, ENDED_BADLY, REFUSED, USAGE, WELL
from .imports import list_repository, read_document
from .login import connect
from .shown import complain, put_json
from .spelling import spell
from .tables import printable, put_safe
from .words import _FIELD, parse_fields, quote

# the lists of a document, and what one of their entries is
KINDS = {"scenarios": "scenario", "schedules": "schedule", "contexts": "context",
         "data_servers": "data_server", "logical_schemas": "logical_schema",
         "calendars": "calendar", "engines": "engine", "notices": "notice"}
ONLY_THERE = "only there"
ONLY_THERE_SHOWN = 5    # names of a kind
CHANGE_COLOURS = {"new": GREEN, "changed": YELLOW, ONLY_THERE: CYAN}
MARK_COLOURS = {"+": GREEN, "-": RED, "@": CYAN}


class Rehearsal:
    """What an IMPORT -DRY_RUN -REPLACE says of a document: `changes` (fields of each definition),
    `warnings` and `faults` [(place, what is wrong)]; `error`: why it would be refused, or None."""

    def __init__(self, connection, text, words):
        """Asks. Raises ClientError, where it is not the document that is refused."""
        self.changes, self.warnings, self.faults, self.error = [], [], [], None
        reply = connection.ask(" ".join(["IMPORT", quote(text), "-DRY_RUN", "-REPLACE"] + words))
        try:
            for line in reply:
                self._take(line)
        except ClientError as error:
            if error.status != REFUSED or not self.faults and not str(error).startswith(
                    ("ERR BAD_REQUEST", "ERR EXISTS", "ERR CONFLICT", "ERR TOO_LONG")):
                raise
            self.error = error

    def _take(self, line):
        """One data line of the reply."""
        fields = parse_fields(line) if _FIELD.match(line) else None
        if fields is None:
            place, _, reason = line.partition(": ")
            if reason.startswith("warning: "):
                self.warnings.append((place, reason[len("warning: "):]))
            else:
                self.faults.append((place, spell(reason)))
        elif "warning" in fields:
            self.warnings.append((fields["path"], spell(fields["warning"])))
        else:
            self.changes.append(fields)

    def tell(self, name):
        """Says on stderr what is wrong with the document of this name, or looks wrong."""
        for place, reason in self.warnings:
            complain("%s: %s: warning: %s" % (name, place, reason))
        for place, reason in self.faults:
            complain("%s: %s: %s" % (name, place, reason))
        if self.error is not None and not self.faults:
            complain("%s: %s" % (name, self.error))


def name_of(path):
    """A file as it is told of."""
    return "standard input" if path == "-" else printable(path)


def check_documents(options, paths, words):
    """check FILE...: whether the agent would take the documents -> exit status. ClientError."""
    texts, is_bad = [(path, read_document(path)) for path in paths], False
    with connect(options) as connection:
        for path, text in texts:
            rehearsal = Rehearsal(connection, text, words)
            is_bad = is_bad or rehearsal.error is not None
            if options.json:
                put_json({"file": path, "ok": rehearsal.error is None,
                          "faults": as_objects(rehearsal.faults),
                          "warnings": as_objects(rehearsal.warnings)})
                continue
            rehearsal.tell(name_of(path))
            count = len(rehearsal.faults) or (rehearsal.error is not None)
            put_safe("%s: %s" % (name_of(path), "faults: %d" % count if count else
                                 "definitions: %d, warnings: %d" % (
                                     len(rehearsal.changes), len(rehearsal.warnings))))
    return ENDED_BADLY if is_bad else WELL


def as_objects(pairs):
    """[(place, reason)] as JSON objects."""
    return [{"path": place, "reason": reason} for place, reason in pairs]


def list_definitions(document):
    """The definitions of a document: {(kind, name, version): definition}; the version of what has
    none is empty."""
    definitions = {}
    for plural, kind in KINDS.items():
        for entry in document.get(plural, ()):
            fields = entry if isinstance(entry, dict) else {"name": entry}
            version = fields.get("version", "") if kind == "scenario" else ""
            definitions[kind, fields.get("name", ""), version] = entry
    return definitions


def diff_document(options, paths, words):
    """diff FILE: a document against what the agent has -> exit status: 1 where an import would
    change something. Raises ClientError."""
    path, text = paths[0], read_document(paths[0])
    with connect(options) as connection:
        rehearsal = Rehearsal(connection, text, words)
        if rehearsal.error is not None:
            rehearsal.tell(name_of(path))
            raise ClientError(USAGE, "%s is not compared: the agent would refuse it"
                              % name_of(path))
        exported = list(connection.ask(" ".join(["EXPORT"] + list_repository(words))))
    ours, theirs = (list_definitions(json.loads(each)) for each in (text, "\n".join(exported)))
    rows = [{"change": change["change"], "kind": change["kind"], "name": change["name"],
             "version": change.get("version") or ""} for change in rehearsal.changes]
    rows += [dict(zip(("change", "kind", "name", "version"), (ONLY_THERE,) + key))
             for key in theirs if key not in ours]
    is_coloured = has_colours(sys.stdout)
    for row in rows:
        key = row["kind"], row["name"], row["version"]
        lines = compare(theirs.get(key), ours.get(key)) if row["change"] == "changed" else []
        if options.json:
            put_json(dict(row, diff=lines))
        elif row["change"] not in ("same", ONLY_THERE):
            put_safe("%s  %s" % (paint(row["change"], CHANGE_COLOURS[row["change"]], is_coloured),
                                 " ".join(map(printable, filter(None, key)))))
            for line in lines:
                colour = MARK_COLOURS.get(line[:1])
                put_safe("    " + paint(printable(line), colour, is_coloured and colour))
    if not options.json:
        show_only_there([row for row in rows if row["change"] == ONLY_THERE], is_coloured)
    return ENDED_BADLY if any(row["change"] in ("new", "changed") for row in rows) else WELL


def show_only_there(rows, is_coloured):
    """A line for each kind of what the agent has beside a document; of many the first few."""
    for kind in KINDS.values():
        names = [" ".join(filter(None, (row["name"], row["version"])))
                 for row in rows if row["kind"] == kind]
        more = len(names) - ONLY_THERE_SHOWN
        if names:
            put_safe("%s  %s %s%s" % (
                paint(ONLY_THERE, CHANGE_COLOURS[ONLY_THERE], is_coloured), kind,
                printable(", ".join(names[:ONLY_THERE_SHOWN])),
                " and %d more" % more if more > 0 else ""))


def compare(theirs, ours):
    """The lines that differ between what the agent has and what the document says, as a unified
    diff of their JSON."""
    texts = [json.dumps(each, indent=1, sort_keys=True, ensure_ascii=False).split("\n")
             for each in (theirs, ours)]
    return list(difflib.unified_diff(*texts, lineterm="", n=2))[2:]
