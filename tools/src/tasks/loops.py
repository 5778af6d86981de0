"""The values of a for_each that lie outside the agent: those of a query, and names of files."""
from ..base.vocabulary import MAX_TEXT, MAX_VALUE
from ..base.words import shorten
from .data import DatabaseTask, each_row, refuse_binary
from .files import find_paths
from .roots import Root
from .task import HelperTask, TaskError

MAX_LOOP = 100000       # values of a for_each


def check_loop(values):
    """Texts as the values of a for_each. TaskError: there are too many, or they are too large."""
    result, size = [], 0
    for value in values:
        size += len(value)
        if len(result) == MAX_LOOP:
            raise TaskError("there are over %d values" % MAX_LOOP)
        if len(value) > MAX_VALUE:
            raise TaskError("a value has over %d characters" % MAX_VALUE)
        if size > MAX_TEXT:
            raise TaskError("the values together have over %d characters" % MAX_TEXT)
        result.append(value)
    return result


class QueryValues(DatabaseTask):
    """The first column of all rows of a query, as text."""

    name = "values of a query"
    sql = ("query",)

    @staticmethod
    def on(target, order):
        """-> {"items": [text]}."""
        target.begin("deferred")
        cursor = target.run(order["query"], order["values"])
        if cursor.description is None:
            raise TaskError("the query gives no rows")
        name = cursor.description[0][0]

        def texts():
            for row in each_row(target, cursor):
                refuse_binary([name], [row[:1]])
                yield "" if row[0] is None else str(row[0]).replace("\0", "")
        return {"items": check_loop(texts())}


class FileValues(HelperTask):
    """The paths that a pattern matches, in their order; there may be none."""

    name = "values of files"

    @staticmethod
    def work(order):
        """-> {"items": [path]}."""
        Root(order["root"]).check_pattern(order["files"])
        paths = find_paths(order["files"])
        for path in paths:
            try:
                path.encode("utf-8")
            except UnicodeEncodeError:
                raise TaskError("the name of %s is not UTF-8" % shorten(ascii(path))) from None
        return {"items": check_loop(paths)}


def list_values(task, fields, execution):
    """The values that a QueryValues or FileValues finds. TaskError, Interrupted."""
    answer = execution.complete(task.ask(fields, execution))
    if "items" not in answer:
        raise TaskError(answer["message"])
    return answer["items"]
