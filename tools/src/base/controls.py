"""What may drive a terminal, imitate a reply or turn a text around, shown as what it is."""
import argparse
import re

# control characters but the tab, what ends lines for some readers or turns their direction, and
# what in a name is no UTF-8
_HIDDEN = re.compile(
    "[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NO_UTF8 = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile("[\t\n\v\f\r]+")


def show_controls(text):
    r"""A text on one line, with what is hidden in it as \xNN, each of its bytes."""
    return _HIDDEN.sub(_show, text)


def show_bytes(text):
    r"""A text as UTF-8 can have it: what in it is none as \xNN, each of its bytes."""
    return _NO_UTF8.sub(_show, text)


def _show(match):
    char = match.group()
    if char < "\u0100":
        return "\\x%02x" % ord(char)
    # U+DC80 to U+DCFF are bytes of a name that is no UTF-8
    how = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join("\\x%02x" % byte for byte in char.encode("utf-8", how))


def one_line(text):
    """A message as it may stand in a reply or table: its lines side by side, nothing hidden, cut.
    """
    return show_controls(_BLANKS.sub(" ", str(text)).strip())[:1000]


class Parser(argparse.ArgumentParser):
    """One whose errors show what is hidden in the words that they name: a shell may have found them
    in a folder."""

    def error(self, message):
        """Says what is wrong, and exits."""
        super().error(show_controls(message))
