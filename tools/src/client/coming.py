"""sched next and sched why as people ask them: what comes of each schedule, what did not start."""
import json

from ..base.times import find_instant
from .errors import ClientError, USAGE
from .pictures import ASKED, fold
from .shown import tell_none
from .tables import put_table

LINES = 10              # lines of coming due times
DECISIONS = ("started", "late", "skipped", "failed")
MOST_OCCURRENCES = 1000000      # that are looked through
USUAL_LIMIT = 50                # of these so many are shown


def show_next(connection, arguments, words):
    """Asks for coming due times, and shows ten lines of them: first the next of each schedule, in
    their order. Raises ClientError, OSError of stdout."""
    troubles = []
    rows = ask_json(connection, ["SCHED NEXT"] + arguments + words + ["-COUNT=%d" % ASKED],
                    troubles)
    lines = fold(rows, len(rows) == ASKED)
    names = {name_row(row) for row in lines}
    if len(rows) == ASKED and len(names) < LINES and not arguments + words:
        # those that are due so seldom that a thousand due times of others come first
        lines += [{"schedule": row["name"], "due": row["next"], "note": ""}
                  for row in ask_json(connection, ["SCHED LIST"], troubles)
                  if row["next"] and row["enabled"] and row["name"] not in
                  {name for name, _ in names}]
    lines = choose_lines(lines)
    if lines:
        put_table(lines)
    elif not troubles:
        tell_none()
    if troubles:
        raise troubles[0]


def name_row(row):
    """Which schedule a row of coming due times is of."""
    return row["schedule"], row.get("repository")


def choose_lines(rows):
    """Ten rows of coming due times: the next of each schedule before further ones."""
    turns, ordered = {}, []
    for row in sorted(rows, key=find_due):
        turns[name_row(row)] = turns.get(name_row(row), 0) + 1
        ordered.append((turns[name_row(row)], find_due(row), row))
    ordered.sort(key=lambda place: place[:2])
    return sorted((row for _, _, row in ordered[:LINES]), key=find_due)


def find_due(row):
    """When a row is due; epoch seconds."""
    return find_instant(row["due"]) or 0.0


def ask_json(connection, words, troubles):
    """The JSON objects that a request is answered with. That a repository could not be read goes
    into `troubles`. Raises ClientError."""
    reply = connection.ask(" ".join(words + ["-JSON"]), is_lenient=True)
    rows = [json.loads(line) for line in reply]
    troubles += [reply.trouble] * (reply.trouble is not None)
    return rows


class Sifted:
    """A reply of occurrences without those that were decided otherwise; newest first."""

    def __init__(self, reply, decisions, limit):
        self._reply, self._decisions, self._limit = reply, decisions, limit
        self.count = 0

    def __iter__(self):
        for line in self._reply:
            if json.loads(line)["decision"] in self._decisions and self.count < self._limit:
                self.count += 1
                yield line

    @property
    def fields(self):
        """Those of the OK."""
        return self._reply.fields

    @property
    def trouble(self):
        """What could not be read, or None."""
        return self._reply.trouble


def sift_why(connection, arguments, words, decisions):
    """Asks what became of due times -> what is like a Reply: only what became one of these words
    between commas. Raises ClientError."""
    wishes = decisions.lower().split(",")
    unknown = [wish for wish in wishes if wish not in DECISIONS]
    if unknown:
        raise ClientError(USAGE, "--decision takes %s, several between commas"
                          % ", ".join(DECISIONS))
    limit, others = USUAL_LIMIT, []
    for word in words:
        name, _, value = word.partition("=")
        if name.upper() == "-LIMIT" and value.isdigit():
            limit = int(value)
        else:
            others.append(word)
    request = ["SCHED WHY"] + arguments + others + ["-LIMIT=%d" % MOST_OCCURRENCES, "-JSON"]
    return Sifted(connection.ask(" ".join(request), is_lenient=True), wishes, limit)
