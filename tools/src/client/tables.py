"""Tables that fit the terminal."""
import os
import sys

from ..base.controls import show_controls
from ..base.times import Clock, find_instant
from .colours import has_colours, paint_state
from .instants import show_instant, show_relative

# left out of a table that has both columns of FROM_TO: what they say follows from those
FROM_TO, LEFT_OUT = {"begun", "duration"}, {"created", "ended"}
# of a table that is too wide: what goes first where it says what is usual, and then whatever it
# says; text is cut to no less than MIN_CELL; then the columns of LAST_SPARED go
USUAL = {"enabled": True, "hold": False, "context": "GLOBAL", "version": "-1", "count": 1}
SPARED = ("repository", "agent", "context", "version", "timezone", "keywords", "last",
          "last_session", "last_status")
LAST_SPARED = ("keywords", "parent", "decided", "start_at", "schedule", "last_due", "name",
               "duration", "end", "waits_for", "message", "note", "count", "due")
MIN_CELL = 8
NEAR_S = 300 * 86400.0          # a month and a day tell, in which year
PAINTED = ("status", "last_status", "decision", "outcome")


def printable(value):
    """A value for people, on one line and without control characters."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return show_controls(str(value)).replace("\t", "\\t")


def to_reader(value):
    """A cell of a table: a time of the agent as the reader's local time, to the second."""
    instant = find_instant(value)
    return printable(value) if instant is None else show_instant(instant)


def to_reader_from_now(value):
    """A cell of a table: a time of the agent as how far away it is."""
    instant = find_instant(value)
    return printable(value) if instant is None else show_relative(instant)


class Column:
    """One column of a table: a name and its values, as they are shown."""

    def __init__(self, name, values, show_cell=to_reader):
        """`show_cell` is a callable: value -> what stands in its cell."""
        self.name = name
        self.cells = [name.upper()] + [show_cell(value) for value in values]
        present = [value for value in values if value not in (None, "")]
        self.is_empty = not present
        self.is_usual = name in USUAL and all(value == USUAL[name] for value in present)
        self.is_number = all(type(value) in (int, float) for value in present)
        instants = [find_instant(value) for value in present]
        self.is_time = any(instant is not None for instant in instants)
        now = Clock().now()
        self._is_near = all(abs((instant or now) - now) < NEAR_S for instant in instants)
        self.width = max(map(len, self.cells))

    @property
    def can_shrink(self):
        """Whether its cells may be cut, once more."""
        return not (self.is_number or self.is_time) and self.width > MIN_CELL

    def shorten(self):
        """Leaves out of times what goes without saying: seconds that are all 00, and the year,
        where all are near."""
        times = [cell for cell in self.cells[1:] if cell]
        if not self.is_time or any(len(cell) != 19 for cell in times):
            return
        end = -3 if all(cell.endswith(":00") for cell in times) else None
        begin = 5 if self._is_near else 0
        self.cells[1:] = [cell[begin:end] for cell in self.cells[1:]]
        self.width = max(map(len, self.cells))

    def render(self, is_coloured=False):
        """Its cells, all of one width; what is cut ends in ~."""
        cells = [cell if len(cell) <= self.width else cell[:self.width - 1] + "~"
                 for cell in self.cells]
        cells = [cell.rjust(self.width) if self.is_number else cell.ljust(self.width)
                 for cell in cells]
        return [paint_state(cell, is_coloured and self.name in PAINTED) for cell in cells]


def find_width():
    """How wide tables may be: as COLUMNS says, or the terminal; None: there is neither. COLUMNS
    with LINES is what readline sets, unasked, for all that a program with it starts."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and "LINES" not in os.environ:
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):       # it is none
        return None


def fit(columns, width):
    """Columns that fit a width (None: any): times are shortened, some columns are left out, never
    the first, the widest texts are cut, and what is left of the last is shown as far as it goes."""
    def is_wide():
        return width is not None and sum(column.width + 2 for column in columns) - 2 > width
    for column in columns if is_wide() else ():
        column.shorten()
    spare = [column for column in columns[1:]
             if column.is_usual or column.cells[1:] == columns[0].cells[1:]]
    spare += find_columns(columns, SPARED, spare)
    while is_wide() and spare:
        columns.remove(spare.pop(0))
    while is_wide() and any(column.can_shrink for column in columns):
        widest = max((column for column in columns if column.can_shrink),
                     key=lambda column: column.width)
        widest.width -= 1
    spare = find_columns(columns, LAST_SPARED, ())
    while is_wide() and spare:
        columns.remove(spare.pop(0))
    while is_wide() and len(columns) > 1:
        del columns[-1]
    while is_wide() and columns[0].width > 1:
        columns[0].width -= 1
    give_back(columns, width)
    return columns


def find_columns(columns, names, others):
    """The columns of these names, in the order of the names, but the first and `others`."""
    return [column for name in names for column in columns[1:]
            if column.name == name and column not in others]


def give_back(columns, width):
    """Cut texts get what room is left."""
    room = 0 if width is None else width - sum(column.width + 2 for column in columns) + 2
    for column in columns:
        lacking = max(map(len, column.cells)) - column.width
        if lacking > 0 and room > 0:
            column.width += min(lacking, room)
            room -= min(lacking, room)


def make_table(rows, width, is_coloured=False, show_cell=to_reader):
    """Rows (dicts) as aligned columns that fit a width: [line]; numbers stand on the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    left_out = LEFT_OUT if FROM_TO.issubset(names) else ()
    columns = [Column(name, [row.get(name) for row in rows], show_cell)
               for name in names if name not in left_out]
    columns = fit([column for column in columns if not column.is_empty], width)
    return ["  ".join(cells).rstrip()
            for cells in zip(*(column.render(is_coloured) for column in columns))]


def is_too_wide(rows):
    """Whether rows lack something as a table on this terminal."""
    width = find_width()
    return width is not None and len(make_table(rows, None)[0]) > width


def put_table(rows, show_cell=to_reader):
    """Writes rows as a table; states are coloured where that is wanted."""
    for line in make_table(rows, find_width(), has_colours(sys.stdout), show_cell):
        put_safe(line)


def put_safe(line, is_flushed=False):
    """Writes a line whose texts are printable to stdout; what its encoding lacks is shown as
    \\xNN. Raises OSError."""
    if sys.stdout is not None:
        sys.stdout.buffer.write(
            (line + "\n").encode(sys.stdout.encoding or "ascii", "backslashreplace"))
        if is_flushed:
            sys.stdout.buffer.flush()
