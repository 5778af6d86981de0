"""HTML and SVG that are put together from parts: what is not markup is escaped."""
import html

from .tables import printable


class Markup(str):
    """A text that is HTML as it stands."""


def to_markup(part):
    """A part of a document: a text, a number or Markup, as Markup. What is hidden in a text is
    shown."""
    return part if isinstance(part, Markup) else Markup(html.escape(printable(part)))


def tag(element, *parts, **attributes):
    """An element with its contents. Attributes are written with _ for -, and class_ for class; one
    that is None is left out."""
    words = [element] + ['%s="%s"' % (name.rstrip("_").replace("_", "-"), to_markup(value))
                         for name, value in attributes.items() if value is not None]
    return Markup("<%s>%s</%s>" % (" ".join(words), "".join(map(to_markup, parts)), element))


def make_rows_table(caption, headings, rows):
    """A table whose columns have headings, {heading: its class}; the first cell of a row names
    it, and a column that is empty throughout is left out. Roles are said, since a narrow screen
    shows a row as a block."""
    used = [place for place in range(len(headings)) if any(cells[place] for cells in rows)]
    names, kinds = ([values[place] for place in used]
                    for values in (list(headings), list(headings.values())))
    head = tag("tr", *(tag("th", name, scope="col", class_=kind, role="columnheader")
                       for name, kind in zip(names, kinds)), role="row")
    body = []
    for cells in rows:
        first, *others = [cells[place] for place in used]
        body.append(tag("tr", tag("th", first, scope="row", class_=kinds[0], role="rowheader"), *(
            tag("td", cell, class_=kind, role="cell", data_label=name)
            for cell, name, kind in zip(others, names[1:], kinds[1:])), role="row"))
    return tag("div", tag("table", tag("caption", caption), tag("thead", head, role="rowgroup"),
                          tag("tbody", *body, role="rowgroup"), role="table"),
               class_="wide", role="region", aria_label=caption, tabindex="0")
