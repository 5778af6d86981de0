"""HTML that is put together from templates: what is put in is escaped, and once."""
import re

from ..base.controls import show_controls

# as html.escape() has them; that module keeps the names of all characters, 0.3 MB, in memory
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
_HOLE = re.compile("{{([a-z_]+)}}")


class Markup(str):
    """A text that is HTML already."""
    __slots__ = ()


def to_markup(value):
    """A value as HTML shows it: nothing for None, what is hidden in a text as it is in replies."""
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else show_controls(str(value)).translate(_ESCAPES))


def markup(template, *values):
    """A template of the program's own with a value for each of its %s."""
    return Markup(template % tuple(map(to_markup, values)))


def join_markup(parts, joint=""):
    """Several values one after the other."""
    return Markup(to_markup(joint).join(map(to_markup, parts)))


def fill_template(template, values):
    """A template of the program's own with values for its {{name}}; each is looked at once, so what
    is put in cannot have holes itself."""
    return Markup(_HOLE.sub(lambda match: to_markup(values[match.group(1)]), template))


def make_table(name, heads, rows):
    """A table: its name for who cannot see it, [(heading, its class)], and rows of cells. Its roles
    are told, as on a phone its rows are no rows to the eye."""
    head = join_markup(markup('<th role="columnheader" scope="col" class="%s">%s</th>', kind, text)
                       for text, kind in heads)
    body = join_markup(markup('<tr role="row">%s</tr>', join_markup(
        markup('<td role="cell" class="%s">%s</td>', kind, cell)
        for (_, kind), cell in zip(heads, row))) for row in rows)
    return markup('<table role="table"><caption class="unseen">%s</caption>'
                  '<thead role="rowgroup"><tr role="row">%s</tr></thead>'
                  '<tbody role="rowgroup">%s</tbody></table>', name, head, body)


def make_facts(pairs):
    """Names and values, without those that have none."""
    return markup('<dl class="facts">%s</dl>', join_markup(
        markup("<div><dt>%s</dt><dd>%s</dd></div>", name, value)
        for name, value in pairs if value not in (None, "")))


def make_note(text, kind="note"):
    """A sentence that stands by itself; of the kind `empty`, `note` or `trouble`."""
    return markup('<p class="%s">%s</p>', kind, text)


def make_state(state):
    """The state of a session, step, repository or schedule, by colour and in words."""
    return markup('<span class="state s-%s">%s</span>', str(state).lower(), state) if state else ""


def make_link(path, text, css=""):
    """A link to a page of this agent."""
    return markup('<a href="%s"%s>%s</a>', path,
                  markup(' class="%s"', css) if css else "", text)


def link_session(number):
    """A link to the page of a session."""
    return make_link("/session/%d" % number, number, "number") if number else ""
