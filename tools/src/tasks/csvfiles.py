"""CSV files into tables and out of queries: load_csv and unload_csv."""
import codecs
import csv
import functools
import itertools
import math
import os
import re
import sys

from ..base.vocabulary import DONE, WARNING
from ..base.controls import show_bytes, show_controls
from ..base.words import shorten
from ..definitions.kinds import (BOOLEAN, FILLED, Field, Kind, TEXT, _refuse, between, choice,
                                 list_of)
from .files import check_source
from .roots import Root
from .task import TaskError, needed, task_type, to_number
from .data import BINARY, DatabaseTask, ROWS_AT_ONCE, SCHEMA, each_row, refuse_binary


def quote_name_alone(name):
    """An SQL name of a column, dots and all."""
    return '"%s"' % name.replace('"', '""')


def quote_name(name):
    """An SQL name that may hold anything, `schema.table` being two."""
    return ".".join(map(quote_name_alone, name.split(".")))


def placeholders(target, count):
    """The parameters of an insert, whose values come as a sequence."""
    if target.style in ("numeric", "named") and not target.is_sqlite:
        return ", ".join(":%d" % (index + 1) for index in range(count))
    return ", ".join(["%s" if target.style in ("format", "pyformat") else "?"] * count)


def is_storable(number):
    """Whether a whole number is one that a database takes."""
    return -1 << 63 <= number < 1 << 63


def to_integer(text):
    """A whole number that a database takes. ValueError."""
    value = to_number(int, text)
    if not is_storable(value):
        raise ValueError
    return value


CSV_TYPES = {"integer": to_integer, "real": functools.partial(to_number, float), "text": str}


def _check_delimiter(value):
    return value if isinstance(value, str) and len(value) == 1 else _refuse("must be one character")


def _check_encoding(value):
    try:
        return codecs.lookup(TEXT.check(value)).name
    except LookupError:
        raise ValueError("must be an encoding that Python knows, such as utf-8") from None


def _check_types(value):
    if not isinstance(value, dict) or not all(
            isinstance(kind, str) and kind in CSV_TYPES for kind in value.values()):
        raise ValueError("must be an object of columns and integer, real or text")
    return value


# what the first bytes of a file tell of its encoding, the longest first
_MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
          (codecs.BOM_UTF8, "utf-8"))
_LINE_END = re.compile("\r\n|[\r\n]")
_SEPARATOR = re.compile(r"sep=(.)\r?\n?")      # a first line of Excel's: the delimiter, and no data


def guess_encoding(path):
    """Words on the encoding that a file's first bytes look like, or nothing. OSError."""
    if not os.path.isfile(path):        # a pipe gives its bytes but once
        return ""
    with open(path, "rb") as file:
        begin = file.read(4)
    for mark, name in _MARKS:
        if begin.startswith(mark):
            return "; the file looks like %s" % name
    zeros = [byte == 0 for byte in begin]
    name = {(False, True, False, True): "utf-16-le",
            (True, False, True, False): "utf-16-be"}.get(tuple(zeros))
    return "; the file looks like %s" % name if name else ""


def check_encoding(path, encoding):
    """TaskError where bytes that text never begins with say that a file is not in this encoding."""
    guess = guess_encoding(path) if encoding in ("utf-8", "ascii") else ""
    if "utf-16" in guess or "utf-32" in guess:
        raise TaskError("%s is no %s%s" % (path, encoding, guess))


DELIMITER = Field(Kind(_check_delimiter, _refuse, "one character"), default=",",
                  meaning="what stands between two columns")
ENCODING = Field(Kind(_check_encoding, _refuse, "a name that Python knows"), default="utf-8",
                 meaning="encoding of the file")


class BadRows:
    """Bad rows of a CSV file: counted, and kept in an error table when there is one."""

    def __init__(self, target, table, most):
        self.count, self._first = 0, ""
        self._target, self._table, self._most = target, table, most
        if table:
            target.connection.cursor().execute(
                "create table if not exists %s (line integer, reason text, text text)"
                % quote_name(table))

    def tell(self, good, path):
        """How many there were beside the good ones, and what was wrong with the first; or
        nothing."""
        if not self.count:
            return ""
        return "%d bad %s of %d in %s, first %s" % (
            self.count, "row" if self.count == 1 else "rows", good + self.count, path, self._first)

    def add(self, line, reason, row):
        """TaskError when there are more than may be."""
        self.count += 1
        self._first = self._first or "line %d: %s" % (line, reason)
        text = show_bytes(",".join(row))
        print("line %d: %s: %s" % (line, reason, show_controls(text[:200])), file=sys.stderr)
        if self.count > self._most:
            raise TaskError("line %d: %s (bad row %d, at most %d are allowed); nothing was loaded"
                            % (line, reason, self.count, self._most))
        if self._table:
            self._target.connection.cursor().execute(
                "insert into %s values (%s)" % (quote_name(self._table),
                                                placeholders(self._target, 3)),
                (line, reason, text))


@task_type("load_csv")
class LoadCsvTask(DatabaseTask):
    """Loads a CSV file into a table, all or nothing, in constant memory."""

    is_heavy = True
    fields = {
        "file": needed("the file"), "schema": SCHEMA, "table": needed("the table"),
        "mode": Field(choice("append", "replace", "create"), default="append",
                      meaning="append adds to the table; replace empties it first; create makes it "
                      "when it is not there, then adds"),
        "header": Field(BOOLEAN, default=True,
                        meaning="whether the first line has the names of the columns"),
        "columns": Field(list_of(FILLED), meaning="names of the columns (those of the header)"),
        "types": Field(Kind(_check_types, _refuse, "an object: column to integer, real or text"),
                       default={}, meaning="types of columns (text)"),
        "delimiter": DELIMITER, "encoding": ENCODING,
        "max_errors": Field(between(0, 10 ** 9), default=0,
                            meaning="so many bad rows are passed over; one more fails the task"),
        "error_table": Field(FILLED, meaning="a table that takes the bad rows: line, reason, text"),
    }

    @staticmethod
    def judge(fields):
        """[(field, reason)] of what is wrong between its fields."""
        if fields["header"] is False and fields["columns"] is None:
            yield "columns", "missing, and there is no header"
        columns = set(fields["columns"] or ())
        for name in fields["types"] or ():
            if columns and name not in columns:
                yield "types", "%s is none of the columns" % name

    @classmethod
    def on(cls, target, order):
        """Reads, checks and inserts in pieces, one transaction. A table without a schema of its own
        is in the physical schema."""
        schema, table = order["server"]["physical_schema"], order["table"]
        order["table"] = "%s.%s" % (schema, table) if schema and "." not in table else table
        root = Root(order.get("root"))
        root.check(order["file"])
        check_source(order["file"], may_be_pipe=True)
        check_encoding(order["file"], order["encoding"])
        with open(order["file"], newline="", errors="surrogateescape",      # a BOM is no text
                  encoding=("utf-8-sig" if order["encoding"] == "utf-8"
                            else order["encoding"])) as file:
            root.check_open(file, order["file"])
            try:
                return cls._load(file, target, order)
            except UnicodeError as error:       # where surrogateescape has no answer
                raise TaskError("%s is no %s (%s)%s" % (order["file"], order["encoding"], error,
                                                        guess_encoding(order["file"]))) from None

    @classmethod
    def _load(cls, file, target, order):
        """From an open file into the table -> fields of a result. TaskError, UnicodeError."""
        target.begin()
        rows, bad = CsvRows(file, order), BadRows(target, order["error_table"], order["max_errors"])
        names = cls._columns(rows, order, target)
        insert = "insert into %s (%s) values (%s)" % (
            quote_name(order["table"]), ", ".join(quote_name_alone(name) for name in names),
            placeholders(target, len(names)))
        cursor, count = target.connection.cursor(), 0
        for piece in rows.fitting(names, order["types"], bad):
            cursor.executemany(insert, piece)
            count += len(piece)
        target.commit()
        return {"status": WARNING if bad.count else DONE, "rows": count,
                "message": bad.tell(count, order["file"])}

    @staticmethod
    def _columns(rows, order, target):
        """The names of the columns; the table is made or emptied."""
        header = rows.read_header() if order["header"] else None
        names = order["columns"] or header
        check_names(names, target.is_sqlite, "`columns`" if order["columns"] else "the header")
        unknown = sorted(set(order["types"]) - set(names))
        if unknown:
            raise TaskError("types: %s has no column %s" % (order["file"], unknown[0]))
        cursor = target.connection.cursor()
        if order["mode"] == "create":
            cursor.execute("create table if not exists %s (%s)" % (
                quote_name(order["table"]), ", ".join("%s %s" % (
                    quote_name_alone(name), order["types"].get(name, "text")) for name in names)))
        if order["mode"] == "replace":
            cursor.execute("delete from %s" % quote_name(order["table"]))
        return names


class CsvRows:
    """The rows of a CSV file as RFC 4180 has them, and the lines where they stand."""

    def __init__(self, file, order):
        self._path, self._encoding = order["file"], order["encoding"]
        first, self._before = file.readline(), 0    # lines that the reader does not see
        delimiter, separator = order["delimiter"], _SEPARATOR.fullmatch(first)
        if separator:
            delimiter, self._before, first = separator.group(1), 1, file.readline()
        self._reader = csv.reader(itertools.chain([first] if first else [], file),
                                  delimiter=delimiter, strict=True)

    def _tell(self, error):
        """Why what begins at a line is no row."""
        if "unexpected end of data" not in str(error):
            return str(error)
        return "a quote is not closed: all from here to line %d is one row" % (
            self._reader.line_num + self._before)

    def read_header(self):
        """The fields of the first row. TaskError."""
        try:
            header = next(self._reader, None)
        except csv.Error as error:
            raise TaskError("line %d: %s" % (1 + self._before, self._tell(error))) from None
        if header is None:
            raise TaskError("%s is empty, it has no header" % self._path)
        if any("\udc80" <= char <= "\udcff" for char in "".join(header)):
            raise TaskError("line %d: the header has bytes that %s does not have%s" % (
                1 + self._before, self._encoding, guess_encoding(self._path)))
        return header

    def fitting(self, names, types, bad):
        """Yields lists of the rows that fit; the others go to `bad`."""
        reader, error = self._reader, None
        converters = [(index, CSV_TYPES[types[name]], types[name])
                      for index, name in enumerate(names) if types.get(name, "text") != "text"]
        rows = [None]
        while rows or error:
            rows, error, line = [], None, reader.line_num + self._before
            try:
                rows.extend(itertools.islice(reader, ROWS_AT_ONCE))     # up to a bad one
            except csv.Error as caught:
                error = caught
            values = convert_all(rows, converters, len(names))
            if values is None:
                values = list(self._sort_out(rows, line, converters, names, bad))
            if error:
                bad.add(line + sum(map(count_lines, rows)) + 1, self._tell(error), [])
            if values:
                yield values

    @staticmethod
    def _sort_out(rows, line, converters, names, bad):
        """Yields the rows that fit, of those behind a line; the others go to `bad`."""
        for row in rows:
            line += count_lines(row)
            values = row[:]
            reason = convert(values, converters, names)
            if not reason:
                yield values
            elif row:                   # a blank line is none
                bad.add(line, reason, row)


def count_lines(row):
    """How many lines of a file a row takes."""
    return 1 + len(_LINE_END.findall("\0".join(row)))


def convert_all(rows, converters, count):
    """The rows with their numbers, a column at a time, or None: not all of them fit."""
    if not rows:
        return rows
    texts = "".join(itertools.chain.from_iterable(rows))
    if set(map(len, rows)) - {count} or "\0" in texts:
        return None
    columns = list(zip(*rows))
    try:
        texts.encode()
        for index, _, name in converters:
            columns[index] = convert_column(columns[index], name)
    except ValueError:
        return None
    return list(zip(*columns)) if converters else rows


def convert_column(texts, name):
    """The texts of a column as integer or real, None for nothing at all. ValueError: not all are
    such, or it takes a closer look."""
    kind = int if name == "integer" else float
    values = [kind(text) if text else None for text in texts] if "" in texts \
        else list(map(kind, texts))
    numbers = [value for value in values if value is not None] or [0]
    if "_" in "".join(texts) or not (
            is_storable(min(numbers)) and is_storable(max(numbers)) if kind is int
            else math.isfinite(sum(numbers))):
        raise ValueError
    return values


def check_names(names, is_sqlite, what):
    """TaskError for names of columns that a table cannot have. SQLite takes `a` and `A` for one."""
    places, hint = {}, "" if what == "`columns`" else ": give other names in `columns`"
    for place, name in enumerate(names, 1):
        if not name:
            raise TaskError("column %d of %s has no name%s" % (place, what, hint))
        before = places.setdefault(name.lower() if is_sqlite else name, place)
        if before != place:
            raise TaskError("columns %d and %d of %s have the same name, %s%s" % (
                before, place, what, shorten(name), hint))


def convert(row, converters, names):
    """Makes numbers of a row's columns -> why that fails, or nothing. Nothing at all is null."""
    if len(row) != len(names):
        return "%d columns, not %d" % (len(row), len(names))
    text = "".join(row)
    if "\0" in text:                # csv refuses it itself before Python 3.11
        return "line contains NUL"
    try:
        text.encode()
        for index, kind, wording in converters:
            row[index] = kind(row[index]) if row[index] else None
    except UnicodeEncodeError:
        return "bytes that the encoding does not have"
    except ValueError:
        return "%s: %s is no %s" % (names[index], shorten(row[index]), wording)
    return None


LINE_ENDS = {"crlf": "\r\n", "lf": "\n"}


@task_type("unload_csv")
class UnloadCsvTask(DatabaseTask):
    """Writes the rows of a query to a CSV file."""

    is_heavy = True
    fields = {
        "schema": SCHEMA, "query": needed("what to write"), "file": needed("the file"),
        "header": Field(BOOLEAN, default=True,
                        meaning="whether to write a first line with the names of the columns"),
        "delimiter": DELIMITER, "encoding": ENCODING,
        "newline": Field(choice("crlf", "lf"), default="crlf",
                         meaning="what ends a line: crlf is RFC 4180's, lf suits awk"),
    }
    sql = ("query",)

    @staticmethod
    def on(target, order):
        """Writes the rows of a query to a file, a piece at a time -> fields of a TaskResult."""
        target.begin("deferred")
        cursor, rows = target.run(order["query"], order["values"]), 0
        if cursor.description is None:
            raise TaskError("the query gives no rows")
        with Root(order.get("root")).written(order["file"], "w", newline="", note=order["note"],
                                             encoding=order["encoding"]) as file:
            writer = csv.writer(file, delimiter=order["delimiter"],
                                lineterminator=LINE_ENDS[order["newline"]])
            names = [column[0] for column in cursor.description]
            if order["header"]:
                writer.writerow(names)
            every = each_row(target, cursor)
            for piece in iter(lambda: list(itertools.islice(every, ROWS_AT_ONCE)), []):
                if not BINARY.isdisjoint(map(type, itertools.chain.from_iterable(piece))):
                    refuse_binary(names, piece)
                writer.writerows(piece)
                rows += len(piece)
        return {"status": DONE, "rows": rows}
