"""CSV files into tables and out of queries: load_csv and unload_csv."""
import codecs
import csv
import functools
import itertools
import sys

from ..base.vocabulary import DONE, WARNING
from ..base.words import shorten
from ..definitions.kinds import (BOOLEAN, FILLED, Field, Kind, TEXT, _refuse, between, choice,
                                 list_of)
from ..base.files import written_beside
from .task import TaskError, check_regular, needed, task_type, to_number
from .data import DatabaseTask, SCHEMA, each_row


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


def to_integer(text):
    """A whole number that a database takes. ValueError."""
    value = to_number(int, text)
    if not -1 << 63 <= value < 1 << 63:
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
    if not isinstance(value, dict) or any(kind not in CSV_TYPES for kind in value.values()):
        raise ValueError("must be an object of columns and integer, real or text")
    return value


DELIMITER = Field(Kind(_check_delimiter, _refuse, "one character"), default=",",
                  meaning="what stands between two columns")
ENCODING = Field(Kind(_check_encoding, _refuse, "a name that Python knows"), default="utf-8",
                 meaning="encoding of the file")


class BadRows:
    """Bad rows of a CSV file: counted, and kept in an error table when there is one."""

    def __init__(self, target, table, most):
        self.count, self._target, self._table, self._most = 0, target, table, most
        if table:
            target.connection.cursor().execute(
                "create table if not exists %s (line integer, reason text, text text)"
                % quote_name(table))

    def add(self, line, reason, row):
        """TaskError when there are more than may be."""
        self.count += 1
        text = ",".join(row).encode("utf-8", "backslashreplace").decode()
        print("line %d: %s: %s" % (line, reason, text[:200]), file=sys.stderr)
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
    def on(cls, target, given):
        """Reads, checks and inserts in pieces, one transaction. A table without a schema of its own
        is in the physical schema."""
        schema, table = given["server"]["physical_schema"], given["table"]
        check_regular(given["file"], may_be_pipe=True)
        given["table"] = "%s.%s" % (schema, table) if schema and "." not in table else table
        with open(given["file"], newline="", errors="surrogateescape",      # a BOM is no text
                  encoding=("utf-8-sig" if given["encoding"] == "utf-8"
                            else given["encoding"])) as file:
            target.begin()
            reader = csv.reader(file, delimiter=given["delimiter"])
            names = cls._columns(reader, given, target)
            bad = BadRows(target, given["error_table"], given["max_errors"])
            insert = "insert into %s (%s) values (%s)" % (
                quote_name(given["table"]), ", ".join(quote_name_alone(name) for name in names),
                placeholders(target, len(names)))
            cursor, rows = target.connection.cursor(), 0
            fitting = cls._fitting(reader, names, given["types"], bad)
            for piece in iter(lambda: list(itertools.islice(fitting, 1000)), []):
                cursor.executemany(insert, piece)
                rows += len(piece)
            target.commit()
        message = "%d bad rows" % bad.count if bad.count else ""
        return {"status": WARNING if bad.count else DONE, "rows": rows, "message": message}

    @staticmethod
    def _columns(reader, given, target):
        """The names of the columns; the table is made or emptied."""
        names = next(reader, None) if given["header"] else given["columns"]
        if given["header"] and names is None:
            raise TaskError("%s is empty, it has no header" % given["file"])
        names = given["columns"] or names
        unknown = sorted(set(given["types"]) - set(names))
        if unknown:
            raise TaskError("types: %s has no column %s" % (given["file"], unknown[0]))
        cursor = target.connection.cursor()
        if given["mode"] == "create":
            cursor.execute("create table if not exists %s (%s)" % (
                quote_name(given["table"]), ", ".join("%s %s" % (
                    quote_name_alone(name), given["types"].get(name, "text")) for name in names)))
        if given["mode"] == "replace":
            cursor.execute("delete from %s" % quote_name(given["table"]))
        return names

    @staticmethod
    def _fitting(reader, names, types, bad):
        """Yields the rows that fit; the others go to `bad`."""
        converters = [(index, CSV_TYPES[types[name]], types[name])
                      for index, name in enumerate(names) if types.get(name, "text") != "text"]
        while True:
            try:
                for row in reader:
                    values = row[:]
                    reason = convert(values, converters, names)
                    if not reason:
                        yield values
                    elif row:           # a blank line is none
                        bad.add(reader.line_num, reason, row)
                return
            except csv.Error as error:
                bad.add(reader.line_num, str(error), [])


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


@task_type("unload_csv")
class UnloadCsvTask(DatabaseTask):
    """Writes the rows of a query to a CSV file."""

    is_heavy = True
    fields = {
        "schema": SCHEMA, "query": needed("what to write"), "file": needed("the file"),
        "header": Field(BOOLEAN, default=True,
                        meaning="whether to write a first line with the names of the columns"),
        "delimiter": DELIMITER, "encoding": ENCODING,
    }
    sql = ("query",)

    @staticmethod
    def on(target, given):
        """A piece of rows at a time."""
        target.begin("deferred")
        cursor = target.run(given["query"], given["values"])
        if cursor.description is None:
            raise TaskError("the query gives no rows")
        with written_beside(given["file"], "w", newline="", encoding=given["encoding"]) as file:
            writer = csv.writer(file, delimiter=given["delimiter"])
            if given["header"]:
                writer.writerow([column[0] for column in cursor.description])
            counter = itertools.count()
            writer.writerows(row for row, _ in zip(each_row(target, cursor), counter))
        return {"status": DONE, "rows": next(counter)}
