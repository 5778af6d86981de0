"""Rows of scenarios that are there for who asks, as a condition in SQL."""
from ..base.patterns import is_any_match

MAX_NAMES = 10000       # whose match is remembered in one look


def seen_condition(connection, column, patterns):
    """` and is_seen(COLUMN)` for a query on this connection, by the patterns of the scenarios that
    are there; nothing where all are. Until the connection is asked for others."""
    if not patterns:
        return ""
    matches = {}                        # name -> whether it is there: a listing has few

    def is_seen(name):
        if name not in matches:
            if len(matches) > MAX_NAMES:
                matches.clear()
            matches[name] = name is not None and is_any_match(patterns, name)
        return matches[name]
    connection.create_function("is_seen", 1, is_seen)
    return " and is_seen(%s)" % column
