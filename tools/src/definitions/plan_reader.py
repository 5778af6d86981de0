"""From the JSON of a load plan to its nodes, with every fault and its path."""
from ..base.words import tell_near
from .fields import TASK_TYPES
from .objects import ObjectReader
from .plan import (Branch, CASE, CaseBody, DatesSource, EachBody, FOR_EACH, FilesSource, MAX_DEPTH,
                   NODE_KINDS, PARALLEL, ParallelBody, PlanNode, QuerySource, RUN, RunBody, SERIAL,
                   SerialBody, ValuesSource, DAY_S, expand)
from .plan_fields import CASE_FIELDS, EACH_FIELDS, KIND_FIELDS, NODE_FIELDS, when_fields
from .references import list_references, strings_in

_SOURCES = ("in", "from", "query", "files")


class PlanReader(ObjectReader):
    """Reads the plan of a scenario that has these secrets, which are names. `comparisons` are
    [(path, fields)] that a task type judges, all at once; `tell_forbidden` is as of Definitions."""

    def __init__(self, secrets, tell_forbidden):
        super().__init__()
        self.comparisons = []
        self._tell_forbidden = tell_forbidden
        self._secrets = frozenset(secrets)
        self._names = {}            # of nodes -> path
        self._readers = {RUN: self._run, SERIAL: self._serial, PARALLEL: self._parallel,
                         CASE: self._case, FOR_EACH: self._each}

    def read(self, path, value, variables):
        """The PlanNode of a JSON object whose texts may use these variables, or of what can be read
        of it: `faults` has the reasons."""
        return self._node(path, value, variables, 1)

    def _node(self, path, value, variables, depth):
        """A node and all below it; `depth` counts it and those around it."""
        if depth > MAX_DEPTH:
            self._fault(path, "more than %d nodes lie inside one another" % MAX_DEPTH)
            return None
        kind = self._kind(path, value)
        if kind is None:
            return None
        fields = self._object(path, value, dict(NODE_FIELDS, **KIND_FIELDS[kind]))
        self._note_name(path, fields["name"])
        body = self._readers[kind](path, fields, variables, depth + 1)
        exception = None
        if fields["exception"] is not None:
            exception = self._node(path + ".exception", fields["exception"], variables, depth + 1)
        elif "on_exception" in value:
            self._fault(path + ".on_exception", "is for a node with an exception")
        return PlanNode(kind, fields["name"], fields["enabled"], fields["timeout"],
                        fields["attempts"], fields["retry_delay"], exception,
                        fields["on_exception"], fields.get("restart"), body)

    def _kind(self, path, value):
        """The kind of a node, or None: then the fault is noted."""
        if not isinstance(value, dict):
            self._fault(path, "must be an object: a node of the plan")
            return None
        kinds = [kind for kind in NODE_KINDS if kind in value]
        if FOR_EACH in kinds and PARALLEL in kinds:     # there it says how many
            kinds.remove(PARALLEL)
        if len(kinds) == 1:
            return kinds[0]
        names = dict(NODE_FIELDS)
        for own in KIND_FIELDS.values():
            names.update(own)
        for name in value:
            if name not in names:
                self._fault("%s.%s" % (path, name), "unknown field" + tell_near(name, names))
        self._fault(path, "has %s; a node has one of %s" % (
            " and ".join(kinds) or "no kind", ", ".join(NODE_KINDS)))
        return None

    def _note_name(self, path, name):
        if name and name in self._names:
            self._fault(path + ".name", "is that of %s, too; a name stands once in a plan"
                        % self._names[name])
        elif name:
            self._names[name] = path

    # -- kinds -------------------------------------------------------------------------

    def _run(self, path, fields, variables, _):
        """The RunBody; what it shows and what it takes back must not be secret."""
        names = ("run", "version", "context", "variables", "keywords")
        for place, text in strings_in({name: fields[name] for name in names}, path):
            self._text(place, text, variables,
                       is_shown=not place.startswith(path + ".variables."))
        takers = {}
        for name, taker in (fields["returns"] or {}).items():
            self._taker("%s.returns.%s" % (path, name), taker, variables)
            if taker in takers:
                self._fault("%s.returns.%s" % (path, name), "%s takes the value of %s already"
                            % (taker, takers[taker]))
            takers.setdefault(taker, name)
        return RunBody(fields["run"], fields["version"], fields["context"], fields["variables"],
                       fields["keywords"], fields["priority"], fields["returns"])

    def _taker(self, path, name, variables):
        """A variable of the plan that takes a value."""
        if variables is not None and name not in variables:
            self._fault(path, "no variable is named %s%s" % (name, tell_near(name, variables)))
        elif name in self._secrets:
            self._fault(path, "a secret takes no value")

    def _nodes(self, path, values, variables, depth):
        """The nodes of a list; it must have one."""
        if values == []:
            self._fault(path, "must have at least one node")
        return tuple([self._node("%s[%d]" % (path, index), value, variables, depth)
                      for index, value in enumerate(values or ())])

    def _serial(self, path, fields, variables, depth):
        return SerialBody(self._nodes(path + ".serial", fields["serial"], variables, depth))

    def _parallel(self, path, fields, variables, depth):
        nodes = self._nodes(path + ".parallel", fields["parallel"], variables, depth)
        return ParallelBody(nodes, fields["limit"] or len(nodes), fields["max_errors"])

    def _case(self, path, fields, variables, depth):
        """The CaseBody, or None of what is no object."""
        path += ".case"
        if fields["case"] is None:
            return None
        fields = self._object(path, fields["case"], CASE_FIELDS)
        if fields["variable"] and variables is not None and fields["variable"] not in variables:
            self._fault(path + ".variable", "no variable is named %s%s" % (
                fields["variable"], tell_near(fields["variable"], variables)))
        if fields["when"] == []:
            self._fault(path + ".when", "must have at least one branch")
        branches = [self._branch("%s.when[%d]" % (path, index), value, variables, depth)
                    for index, value in enumerate(fields["when"] or ())]
        otherwise = None
        if fields["else"] is not None:
            otherwise = self._node(path + ".else", fields["else"], variables, depth)
        return CaseBody(fields["variable"], tuple(branches), otherwise)

    def _branch(self, path, value, variables, depth):
        """The Branch; how it compares is judged as in an evaluate task."""
        fields = self._object(path, value, when_fields())
        for inner, text in strings_in({"value": fields["value"]}, path):
            self._text(inner, text, variables, is_shown=False)
        for name, reason in TASK_TYPES["evaluate"].judge(fields):
            self._fault("%s.%s" % (path, name), reason)
        self.comparisons.append((path, fields))
        node = None
        if fields["do"] is not None:
            node = self._node(path + ".do", fields["do"], variables, depth)
        return Branch(fields["operator"], fields["value"], node)

    def _each(self, path, fields, variables, depth):
        """The EachBody; the texts of its node may use its variable, too."""
        inner, do = path + ".for_each", fields["do"]
        each = self._object(inner, fields["for_each"], EACH_FIELDS) \
            if fields["for_each"] is not None else dict.fromkeys(EACH_FIELDS)
        name = each["variable"]
        if name in self._secrets:
            self._fault(inner + ".variable", "a secret takes no value")
        source = None
        if fields["for_each"] is not None:
            source = self._source(inner, each, fields["for_each"], variables)
        if do is not None:              # a variable that is none is no fault of what uses it
            do = self._node(path + ".do", do, variables and name and variables | {name}, depth)
        return EachBody(name, source, fields["parallel"], fields["max_errors"], do)

    # -- values of a loop --------------------------------------------------------------

    def _source(self, path, fields, document, variables):
        """Where a for_each has its values from, or None: then the faults are noted."""
        kinds = [name for name in _SOURCES if name in document]
        if not kinds and "schema" in document:
            kinds = ["query"]
        if not kinds and ("to" in document or "step" in document):
            kinds = ["from"]
        if len(kinds) != 1:
            self._fault(path, "has %s; its values come from one of %s" % (
                " and ".join(kinds) or "no values", ", ".join(_SOURCES)))
            return None
        kind = kinds[0]
        belong = {"from": ("from", "to", "step"), "query": ("schema", "query")}.get(kind, kinds)
        for name in fields:
            if name in document and name not in belong and name != "variable":
                self._fault("%s.%s" % (path, name), "does not go with %s" % kind)
            elif name in belong and name not in document and name != "step":
                self._fault("%s.%s" % (path, name), "missing")
        for inner, text in strings_in({name: fields[name] for name in belong if name != "query"},
                                      path):
            self._text(inner, text, variables, is_shown=True)
        if kind == "query":
            self._query(path + ".query", fields["query"], variables)
        if kind == "in":
            return None if fields["in"] is None else ValuesSource(tuple(fields["in"]))
        if kind == "files":
            return FilesSource(fields["files"])
        if kind == "query":
            return QuerySource(fields["schema"], fields["query"])
        source = DatesSource(fields["from"], fields["to"], fields["step"] or DAY_S)
        if source.first and source.last and not list_references(source.first + source.last):
            self._try(path, expand, source)
        return source

    def _query(self, path, text, variables):
        """A query is what a refresh task runs, too."""
        reason = self._tell_forbidden("refresh")
        if reason:
            self._fault(path, reason)
        if text and variables is not None:
            self._bound(path, TASK_TYPES["refresh"].names_in(text), variables)

    # -- texts -------------------------------------------------------------------------

    def _text(self, path, text, variables, is_shown):
        """A text with references; one that is shown must have none to a secret."""
        if variables is not None:
            self._references(path, text, variables)
        if is_shown:
            for name in self._secrets.intersection(list_references(text)):
                self._fault(path, "%s is secret, and this is shown to all who look" % name)
