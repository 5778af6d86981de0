"""A page as its parts, whatever it shows: drawn whole, or told one by one to one that is open."""
from typing import Any, NamedTuple

from .markup import join_markup, markup


class PagePart(NamedTuple):
    """A part of a page under a heading of its own."""
    name: str               # in its address: #name
    heading: str
    body: Any               # Markup
    count: str = ""         # beside the heading
    area: str = "top"       # or `side`, beside the others where there is room, or `below`


class View(NamedTuple):
    """What a page shows."""
    title: str
    heading: Any            # Markup, or text
    parts: list
    place: str = "now"      # which of the links to the main pages leads here
    log: Any = None         # of a session: {"html", "after", "is_over"}


def draw_part(part):
    """The inside of a part."""
    count = markup(' <span class="count">%s</span>', part.count) if part.count else ""
    return markup('<h2 id="h-%s">%s%s</h2>%s', part.name, part.heading, count, part.body)


def draw_parts(parts, area):
    """The parts that stand in an area."""
    return join_markup(markup('<section id="%s" aria-labelledby="h-%s" data-part>%s</section>',
                              part.name, part.name, draw_part(part))
                       for part in parts if part.area == area)
