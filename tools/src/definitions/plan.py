"""Load plans as values: the tree of nodes, its strings with their values, the values of loops."""
from datetime import datetime, timedelta
import re
from typing import Any, NamedTuple, Optional, Tuple

from ..base.errors import TooLong
from ..base.words import check_name
from .kinds import check_size
from .references import list_references, substitute

RUN, SERIAL, PARALLEL, CASE, FOR_EACH = NODE_KINDS = (
    "run", "serial", "parallel", "case", "for_each")
ONLY_FAILED, ALL_AGAIN = "failed", "all"            # restart of a serial, parallel or for_each
FAILED_TASK, NEW_SESSION = "task", "session"        # restart of a run
RAISE, IGNORE = "raise", "ignore"                   # on_exception
MAX_VALUES = 100000                                 # of a for_each
MAX_DEPTH = 50                                      # nodes inside one another
LATEST = "-1"                                       # a version
DAY_S = 86400


class PlanNode(NamedTuple):
    """A node of a plan."""
    kind: str                       # one of NODE_KINDS
    name: Optional[str]
    enabled: bool
    timeout_s: Optional[float]
    attempts: int
    retry_delay_s: float
    exception: Optional[Any]        # a PlanNode
    on_exception: str               # RAISE, IGNORE
    restart: Optional[str]          # ONLY_FAILED, ALL_AGAIN, FAILED_TASK, NEW_SESSION; a case: None
    body: Any                       # RunBody, SerialBody, ParallelBody, CaseBody, EachBody


class RunBody(NamedTuple):
    """A session of a scenario. Its texts may have references until settle() has replaced them."""
    scenario: str
    version: str
    context: Optional[str]          # None: the plan's
    variables: dict
    keywords: str
    priority: Optional[int]         # None: the plan's
    returns: dict                   # variable of the scenario -> variable of the plan


class SerialBody(NamedTuple):
    """Nodes one after the other."""
    nodes: Tuple[PlanNode, ...]


class ParallelBody(NamedTuple):
    """Nodes at the same time, at most `limit` of them."""
    nodes: Tuple[PlanNode, ...]
    limit: int
    max_errors: int


class Branch(NamedTuple):
    """A branch of a case; `value` is a list for some operators."""
    operator: str
    value: Any
    node: PlanNode


class CaseBody(NamedTuple):
    """The first branch that fits, or `otherwise`, which may be None."""
    variable: str
    branches: Tuple[Branch, ...]
    otherwise: Optional[PlanNode]


class EachBody(NamedTuple):
    """A node for each of some values, at most `parallel` at the same time."""
    variable: str
    source: Any                     # ValuesSource, DatesSource, QuerySource, FilesSource
    parallel: int
    max_errors: int
    node: PlanNode


class ValuesSource(NamedTuple):
    """Values that the definition has."""
    values: Tuple[str, ...]


class DatesSource(NamedTuple):
    """Dates, or dates with a time of day, from one to another."""
    first: str
    last: str
    step_s: int


class QuerySource(NamedTuple):
    """The first column of what a query gives; its :names are bound, never replaced."""
    schema: str
    query: str


class FilesSource(NamedTuple):
    """The files of a pattern."""
    pattern: str


def list_below(node):
    """[(path from here, PlanNode)] of the nodes that a node has, its exception the last."""
    body = node.body
    if node.kind in (SERIAL, PARALLEL):
        below = [(".%s[%d]" % (node.kind, index), child) for index, child in enumerate(body.nodes)]
    elif node.kind == CASE:
        below = [(".case.when[%d].do" % index, branch.node)
                 for index, branch in enumerate(body.branches)]
        below += [(".case.else", body.otherwise)] if body.otherwise else []
    else:
        below = [(".do", body.node)] if node.kind == FOR_EACH else []
    return below + ([(".exception", node.exception)] if node.exception else [])


def walk_plan(node, path="plan"):
    """Yields (path, PlanNode) of a node and all below it, in the order of the definition."""
    yield path, node
    for inner, child in list_below(node):
        yield from walk_plan(child, path + inner)


def list_runs(node, path="plan"):
    """[(path, RunBody)] of the runs that are not switched off, by a node above neither."""
    if not node.enabled:
        return []
    runs = [(path, node.body)] if node.kind == RUN else []
    for inner, child in list_below(node):
        runs += list_runs(child, path + inner)
    return runs


# -- strings -----------------------------------------------------------------------------

def check_version(value):
    """A version, or -1 for the latest. ValueError."""
    return value if value == LATEST else check_name(value)


def settle(node, values):
    """A node with the values of variables in its own strings, not in those of the nodes below it.
    ValueError when a name becomes none, or a text grows too long."""
    body = node.body
    if node.kind == RUN:
        body = _settle_run(body, values)
    elif node.kind == CASE:
        body = body._replace(branches=tuple(
            branch._replace(value=[_fill(text, values, "value") for text in branch.value]
                            if isinstance(branch.value, list) else
                            _fill(branch.value, values, "value")) for branch in body.branches))
    elif node.kind == FOR_EACH:
        body = body._replace(source=_settle_source(body.source, values))
    return node._replace(body=body)


def _settle_run(body, values):
    return body._replace(
        scenario=_fill(body.scenario, values, "run", check_name),
        version=_fill(body.version, values, "version", check_version),
        context=body.context and _fill(body.context, values, "context", check_name),
        variables={name: _fill(text, values, "variables." + name, check_size)
                   for name, text in body.variables.items()},
        keywords=_fill(body.keywords, values, "keywords"))


def _settle_source(source, values):
    if isinstance(source, ValuesSource):
        return ValuesSource(tuple(_fill(text, values, "in", check_size) for text in source.values))
    if isinstance(source, DatesSource):
        return source._replace(first=_fill(source.first, values, "from", check_date),
                               last=_fill(source.last, values, "to", check_date))
    if isinstance(source, QuerySource):
        return source._replace(schema=_fill(source.schema, values, "schema", check_name))
    return source._replace(pattern=_fill(source.pattern, values, "files"))


def _fill(text, values, field, check=None):
    """A text of a field with its references replaced, checked where that may spoil it."""
    try:
        result = substitute(text, values)
        return check(result) if check else result
    except (TooLong, ValueError) as error:
        raise ValueError("%s: %s" % (field, error)) from None


# -- values of a loop --------------------------------------------------------------------

_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)"
                   r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?")


def check_date(text):
    """A date, perhaps with a time of day, or ValueError."""
    parse_date(text)
    return text


def parse_date(text):
    """ISO 8601 text -> (its datetime, whether it is a date alone). An offset is passed over: the
    time is the one that a clock on the wall shows. ValueError."""
    match = _DATE.fullmatch(text) if isinstance(text, str) else None
    try:
        if match:
            numbers = [int(part or 0) for part in match.groups()]
            return datetime(*numbers), match.group(4) is None
    except ValueError:                  # the 30th of February
        pass
    raise ValueError("must be a date such as 2015-01-31, or with a time of day, 2015-01-31T06:00")


def expand(source):
    """The values of a ValuesSource or DatesSource that settle() has been through, as a tuple.
    ValueError when they are too many."""
    return source.values if isinstance(source, ValuesSource) else tuple(list_dates(*source))


def is_empty(source):
    """Whether a source has no value, whatever the variables are."""
    if isinstance(source, ValuesSource):
        return not source.values
    return (isinstance(source, DatesSource) and not list_references(source.first + source.last)
            and not expand(source))


def list_dates(first, last, step_s):
    """Texts of the dates from one to another, both included; none when the last lies before the
    first. They are dates alone when the first is one and the step is in whole days, else have the
    time of day. A date alone as the last means all of that day. ValueError: over MAX_VALUES."""
    begin, is_date = parse_date(first)
    end, is_day = parse_date(last)
    is_date = is_date and step_s % DAY_S == 0
    span_s = int((end - begin).total_seconds()) + (DAY_S - 1 if is_day else 0)
    count = span_s // step_s + 1 if span_s >= 0 else 0
    if count > MAX_VALUES:
        raise ValueError("from %s to %s are %d values; there may be %d"
                         % (first, last, count, MAX_VALUES))
    moments = [begin + timedelta(seconds=step_s * index) for index in range(count)]
    return [moment.date().isoformat() if is_date else moment.isoformat() for moment in moments]


# -- variables of a child ----------------------------------------------------------------

def hand_down(child, body, values, secrets):
    """The variables that a run gives a session of the Scenario `child`: of all that are seen at the
    run (`values`, among them the plan's `secrets`, which are names) those that the child declares,
    and those that its RunBody names, which win; as the definition has it. A secret is
    given to secret ones alone. ValueError where the RunBody gives one to another."""
    handed = {name: value for name, value in values.items()
              if name in child.secrets or name in child.variables and name not in secrets}
    for name, text in body.variables.items():
        if name not in child.secrets and secrets.intersection(list_references(text)):
            raise ValueError("variables.%s: is given a secret, and is none in scenario %s"
                             % (name, child.name))
    return dict(handed, **_settle_run(body, values).variables)


def list_strangers(child, body):
    """[(path below the run, reason)] of the variables that a RunBody names and the Scenario `child`
    lacks, or does not give back."""
    missing = "scenario %s %s has no variable of that name" % (child.name, child.version)
    strangers = [("variables." + name, missing) for name in body.variables
                 if name not in child.variables and name not in child.secrets]
    return strangers + [
        ("returns." + name, "is secret, and is not taken back" if name in child.secrets
         else missing) for name in body.returns if name not in child.variables]
