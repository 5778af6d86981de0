"""The verb AUDIT, the purge of the audit, and what the audit notes of requests."""
from ..base.audit_forms import AUDIT_END_LINE, AUDIT_LINE, AUDIT_PURGED_LINE
from ..base.errors import AuthError, BadRequest, Denied
from ..base.vocabulary import ADMINISTRATOR, MONITOR, OPERATOR
from ..base.words import capitals
from ..store.chain import AuditFilter
from ..agent.audit import DONE_WELL
from .table import verb
from .lines import fill

PAGE_VERB = "GET"            # what the audit calls a request for the operator page
AUDIT_WAIT_S = 1.0           # that AUDIT waits for what is on its way
# verbs for operators and administrators that change nothing when they go well, or say so elsewhere
# (a session has its by=); and verbs of other roles that change something
NO_CHANGES = frozenset(("EXEC", "AUDIT", "USERS LIST", "NOTICE LIST"))
MORE_CHANGES = frozenset(("USERS PASSWORD",))
# flags with which a request changes nothing, or has its own row
_UNNOTED_FLAGS = ("-DRY_RUN", "-AUDIT")
# what a request is about, beside its first argument: options, and how they are told
_OBJECT_OPTIONS = (("-SCHEDULE", "%s"), ("-SCENARIO", "%s"), ("-HOST", "%s"),
                   ("-REPO", "-REPO=%s"))
_NAMES = frozenset(("SESSION", "NAME", "SCENARIO"))      # first arguments that are no values


@verb("AUDIT")
def _audit(agent, request):
    """The rows, and the end of this agent's chain before they were read."""
    agent.audit.flush(AUDIT_WAIT_S)
    head = agent.audit.chain.find_end().hash
    filters = AuditFilter(request["-SINCE"], request["-WHO"],
                          capitals(" ".join(request["-VERB"].split()))
                          if "-VERB" in request else None)
    for row in agent.audit.chain.list_rows(filters, request["-LIMIT"] or 50):
        yield fill(AUDIT_LINE, row)
    return fill(AUDIT_END_LINE, {"head": head})


def purge_audit(agent, request):
    """PURGE -AUDIT: the rows of this agent's chain that are older -> the fields of the OK."""
    for option in ("-KEEP", "-STATUS", "-SCENARIO"):
        if option in request:
            raise BadRequest("%s does not go with -AUDIT, which takes -DAYS" % option)
    if request["-DAYS"] is None:
        raise BadRequest("-DAYS=n is missing: say how old a row has to be")
    before = agent.clock.now() - request["-DAYS"] * 86400
    if "-DRY_RUN" in request:
        return fill(AUDIT_PURGED_LINE, {"purged": agent.audit.chain.count_older(before)},
                    dry_run=True)
    return fill(AUDIT_PURGED_LINE, {"purged": agent.audit.purge(request.client, before)})


def is_look(row):
    """Whether a verb only looks, so that nothing is noted of it once it is known who may."""
    return row.role == MONITOR and row.name not in MORE_CHANGES


def note_outcome(agent, row, client, request, outcome):
    """Has the audit note what came of a request, where it is for it: a change that went well or
    not, and whatever somebody may not do. `outcome` is DONE_WELL or a code; there is no `request`
    where its words were wrong, or nobody looked at them."""
    if outcome not in (AuthError.code, Denied.code):
        is_change = row.name in MORE_CHANGES or row.role in (OPERATOR, ADMINISTRATOR)
        if not is_change or outcome == DONE_WELL and (
                row.name in NO_CHANGES or any(flag in row.options and flag in request
                                              for flag in _UNNOTED_FLAGS)):
            return
    agent.audit.note(client, row.name, "" if request is None else _tell_object(agent, row, request),
                     outcome)


def note_page(agent, client, outcome, user=""):
    """Has the audit note that a page was refused, or a login for one under the name of a user."""
    agent.audit.note(client, "AUTH" if user else PAGE_VERB, user if agent.access.has(user) else "",
                     outcome)


def _tell_object(agent, row, request):
    """What a request is about, without a value: by its names of things alone."""
    if row.name in ("AUTH", "USERS PASSWORD"):      # a password may stand in the user's place
        name = request["USER" if row.name == "AUTH" else "NAME"]
        return name if agent.access.has(name) else ""
    names = [name for name, _ in row.arguments]
    words = [str(request[name]) for name in names[:1] if name in _NAMES and name in request]
    if names[1:2] == ["VERSION"] and "VERSION" in request:
        words.append(request["VERSION"])
    words += [shape % request[name] for name, shape in _OBJECT_OPTIONS
              if name in row.options and name in request]
    return " ".join(words)
