"""Words of requests and fields of replies, as the client writes and reads them."""
import json
import os
import re

from ..base.forms import FLAG_FIELDS, NUMBER_FIELDS

_BARE = re.compile(r"[A-Za-z0-9_.:/,+@%#-]+")
_FIELD = re.compile(r'([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|[^ ]*)')


def quote(text):
    """A text as (part of) a word of a request that the agent takes for nothing but this text."""
    return text if _BARE.fullmatch(text) and text[0] != "-" else json.dumps(text)


def render_option(name, value=None):
    """An option as a word; `value` is None for a flag."""
    return "-" + name if value is None else "-%s=%s" % (name, quote(as_typed(value)))


def as_typed(text):
    """An argument of the command line as its bytes are in UTF-8, whatever the locale says."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def parse_fields(text):
    """`session=1001 message="x y"` -> {"session": 1001, "message": "x y"};
    a number that is not there is None."""
    fields = {}
    for name, value in _FIELD.findall(text):
        value = json.loads(value) if value.startswith('"') else value
        if name in NUMBER_FIELDS and re.fullmatch(r"-?\d*\.?\d*", value):
            value = None if value == "" else float(value) if "." in value else int(value)
        elif name in FLAG_FIELDS and value in ("yes", "no"):
            value = value == "yes"
        fields[name] = value
    return fields
