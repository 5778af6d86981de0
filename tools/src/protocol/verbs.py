"""The verbs on sessions, definitions, repositories and the agent itself."""
import collections
import json

from ..base.vocabulary import DEFAULT_CONTEXT, MASK, STOP_S
from ..base.errors import BadRequest, Conflict, NotFound, Unreadable
from ..base.forms import VERB_FORMS, list_parts
from ..base.replies import (AGENT_HOLD_LINE, ATTACHED_LINE, CHANGE_LINE, CLEANED_LINE,
                            CONTEXT_LINE, IMPORTED_KINDS, IMPORTED_LINE, LOGGED_LINE, NODE_LINE,
                            PING_LINE,
                            PURGED_LINE, REPOSITORY_HOLD_LINE, REPOSITORY_LINE, SCENARIO_LINE,
                            SCHEDULE_HOLD_LINE, STATE_LINE, STEP_LINE, STOPPED_LINE, TASK_LINE,
                            VARIABLE_LINE, WARNING_LINE)
from ..base.times import to_local
from ..base.controls import one_line
from ..base.words import capitals, shorten
from ..store.records import (Hold, LogFilter, PurgeFilter, RestartRequest, SessionFilter,
                             SessionRequest)
from ..agent.figures import metrics, ping
from ..agent.waits import tell_hold
from .table import VERBS, list_help, verb
from .audit_verbs import purge_audit
from .lines import (FLUSH, TextLine, end_fields, fill, fill_ticket, session_fields,
                    ticket_fields)
from .narrow import find_parent


@verb("PING", is_quick=lambda agent, request: True)
def _ping(agent, request):
    return fill(PING_LINE, ping(agent))


def _is_exec_quick(agent, request):
    """Variables may be secrets, which are put aside in a file first."""
    return not request.variables and "-SYNC" not in request and not agent.desk.may_look(
        request["CONTEXT"] or DEFAULT_CONTEXT, request["-REPO"])


# what of an EXEC its SessionRequest has, where it is not left out
_EXEC_FIELDS = {
    "SCENARIO": "scenario", "VERSION": "version", "CONTEXT": "context", "-AGENT": "agent",
    "-NAME": "name", "-KEYWORDS": "keywords", "-PRIORITY": "priority", "-LEVEL": "level",
    "-TIMEOUT": "timeout", "-AT": "start_at", "-KEY": "key", "-FROM": "from_step"}


@verb("EXEC", is_quick=_is_exec_quick)
def _exec(agent, request):
    """Hands the EXEC to the desk: the reply comes at its commit, or with -SYNC at its end."""
    fields = {_EXEC_FIELDS[name]: value for name, value in request.items() if name in _EXEC_FIELDS}
    fields.setdefault("agent", agent.name)
    pending = agent.desk.execute(SessionRequest(
        variables=request.variables, asked_by=request.client.name,
        patterns=request.client.scenarios, **fields), request["-REPO"])
    if "-SYNC" not in request:
        return pending
    timeout_s = None if request["-SYNC"] is True else request["-SYNC"]
    return _exec_sync(agent, pending, timeout_s, request.has_left)


def _exec_sync(agent, pending, timeout_s, has_left):
    ticket = pending.result()
    yield ticket_fields(ticket)
    yield FLUSH
    return end_fields(agent, agent.watch.wait(ticket.session, timeout_s, has_left))


@verb("STOP")
def _stop(agent, request):
    is_immediate = "-IMMEDIATE" in request
    status, note = agent.desk.stop(request["SESSION"], is_immediate, "%s (STOP%s)" % (
        request.client.name, " -IMMEDIATE" * is_immediate))
    return fill(STOPPED_LINE, {"session": request["SESSION"], "status": status},
                **({"note": note} if note else {}))


@verb("RESTART")
def _restart(agent, request):
    if "-SKIP" in request and ("-FROM" in request or "-REDEFINE" in request):
        raise BadRequest("-SKIP says where it goes on, and so %s"
                         % ("does -FROM" if "-FROM" in request else
                            "does -REDEFINE: at a first task; name that of another step by -FROM"))
    ticket = agent.desk.restart(RestartRequest(
        request["SESSION"], request.variables, request["-FROM"], "-SKIP" in request,
        "-REDEFINE" in request, patterns=request.client.scenarios))
    return fill_ticket(STATE_LINE, ticket, **({"note": ticket.note} if ticket.note else {}))


@verb("CLEAN")
def _clean(agent, request):
    return fill(CLEANED_LINE, {"cleaned": agent.keeper.clean(request["-HOST"])})


@verb("HOLD")
def _hold(agent, request):
    now, until = agent.clock.now(), request["-UNTIL"]
    if until is not None and until <= now:
        raise BadRequest("-UNTIL lies in the past")
    hold = Hold(request["REASON"] or "", request.client.name, now, until)
    return _set_hold(agent, request, hold)


@verb("RELEASE")
def _release(agent, request):
    return _set_hold(agent, request, None)


def _set_hold(agent, request, hold):
    """Holds what the request names, or releases it (None): a schedule, a repository, all."""
    if "-SCHEDULE" in request:
        agent.changes.hold(request["-SCHEDULE"], hold, request["-REPO"])
        return fill(SCHEDULE_HOLD_LINE, {"schedule": request["-SCHEDULE"],
                                         "hold": hold is not None})
    if "-REPO" in request:
        agent.repository_holds.set(request["-REPO"], hold)
        return fill(REPOSITORY_HOLD_LINE, {"repository": request["-REPO"],
                                           "hold": hold is not None})
    agent.set_hold(hold)
    return fill(AGENT_HOLD_LINE, {"agent": agent.name, "hold": hold is not None})


@verb("SHUTDOWN")
def _shutdown(agent, request):
    is_immediate, is_leaving = "-IMMEDIATE" in request, "-LEAVE" in request
    words = ["SHUTDOWN"] + ["-IMMEDIATE"] * is_immediate + ["-LEAVE"] * is_leaving
    agent.request_stop("%s of %s" % (" ".join(words), request.client.name), is_immediate,
                       request.get("-MAX_WAIT", STOP_S), is_leaving)


@verb("SESSIONS")
def _sessions(agent, request):
    filters = SessionFilter(tuple(request["-STATUS"] or ()), request["-SCENARIO"],
                            request["-SCHEDULE"], request["-KEYWORD"],
                            request["-SINCE"], request["-PARENT"], request.client.scenarios)
    parents = {}
    if request["-PARENT"] is not None \
            and find_parent(agent, request.client, parents, request["-PARENT"]) is None:
        return
    for row in agent.watch.list_sessions(filters, request["-REPO"], request["-LIMIT"] or 50):
        yield session_fields(agent, row, request.client, parents)


@verb("STATUS")
def _status(agent, request):
    """The line of a session, those of its steps, each with its tasks, and its variables."""
    number = request["SESSION"]
    repository = agent.places.of_session(number)
    row, steps, tasks, nodes, secrets = repository.db.read(repository.views.get_history, number)
    yield session_fields(agent, row, request.client, {}, by=row["asked_by"])
    tasks_of = collections.defaultdict(list)        # run of a step -> those of it
    for task in tasks:
        tasks_of[task["step_run"]].append(task)
    for step in steps:
        yield fill(STEP_LINE, step, step=step["step"] + 1)
        for task in tasks_of[step["run"]]:
            yield fill(TASK_LINE, task, rows=task["row_count"],
                       task="%d.%d" % (task["step"] + 1, task["task"] + 1))
    children = {}
    for node in nodes:
        yield fill(NODE_LINE, node, node=node["place"],
                   session=find_parent(agent, request.client, children, node["child"]))
    values = dict(json.loads(row["variables"]), **dict.fromkeys(secrets, MASK))
    for name, value in values.items():
        yield fill(VARIABLE_LINE, {"variable": name, "value": value})


@verb("LOG")
def _log(agent, request):
    """The lines that are wanted, FLUSH when there are no more yet, and in the OK how it stands."""
    rows = agent.watch.list_log(
        request["SESSION"], LogFilter(request["-STEP"], request["-STREAM"], request["-SINCE"],
                                      request["-TAIL"]), "-FOLLOW" in request, request.has_left)
    while True:
        try:
            row = next(rows)
        except StopIteration as stop:
            return fill(LOGGED_LINE, {"status": stop.value})
        yield FLUSH if row is None else _log_line(
            to_local(row["time"]), row["step"], row["task"], row["stream"], row["line"])


def _log_line(*values):
    return TextLine("%s %s/%s %s %s" % values,
                    list(zip(("time", "step", "task", "stream", "text"), values)))


@verb("WAIT")
def _wait(agent, request):
    return end_fields(agent, agent.watch.wait(request["SESSION"], request["-TIMEOUT"],
                                              request.has_left))


@verb("SCENARIOS")
def _scenarios(agent, request):
    """A line for each version of a scenario; of one that cannot be read it says why."""
    for repository in agent.places.readable(request["-REPO"]):
        for row in repository.db.read(repository.scenarios.list_versions):
            if not request.client.sees(row["name"]):
                continue
            scenario, message = None, ""
            try:
                scenario = repository.scenarios.parse(row["definition"], row["body"])
            except Unreadable as error:
                message = error.message
            yield fill(SCENARIO_LINE, row, repository=repository.name, scenario=row["name"],
                       steps=scenario and len(scenario.steps), message=message,
                       variables=",".join(scenario.variables if scenario else ()))


@verb("REPOS")
def _repos(agent, request):
    for place in agent.places.list_all():
        (number, name, path, _), repository = place.attachment, place.repository
        hold = repository and repository.hold
        yield fill(REPOSITORY_LINE, {
            "repository": name, "id": number, "path": path,
            "status": "TROUBLE" if place.reason else "ATTACHED",
            "message": one_line(place.reason)
                       or (hold and tell_hold(hold, agent.clock.now())) or ""})


@verb("CONTEXTS")
def _contexts(agent, request):
    topology = agent.master.topology()
    for name in topology["contexts"]:
        yield fill(CONTEXT_LINE, {"context": name, "schemas": ",".join(
            "%s:%s" % (schema["name"], schema["contexts"][name])
            for schema in topology["logical_schemas"] if name in schema["contexts"])})


@verb("IMPORT")
def _import(agent, request):
    """A line for each definition of the document, then the warnings, then the counts."""
    is_dry = "-DRY_RUN" in request
    exchange = agent.exchange
    imported = exchange.import_document(request["DOCUMENT"], request["-REPO"],
                                        "-REPLACE" in request, is_dry)
    dues = exchange.list_dues(imported.document) if is_dry else {}
    for change in imported.changes:
        is_due = change.kind == "schedule" and change.name in dues
        yield fill(CHANGE_LINE, change._asdict(),
                   **{"next": dues[change.name]} if is_due else {})
    for path, reason in imported.warnings:
        yield fill(WARNING_LINE, {"warning": reason, "path": path})
    counts = {kind + "s": imported.count(kind) for kind in IMPORTED_KINDS}
    return fill(IMPORTED_LINE, counts, warnings=len(imported.warnings),
                **{"dry_run": True} if is_dry else {})


@verb("EXPORT")
def _export(agent, request):
    document = agent.exchange.export(request["-REPO"], request["SCENARIO"], request["VERSION"],
                                     request.client.scenarios)
    if request.is_json:
        return iter([TextLine("", list(document.items()))])
    return iter([TextLine(line, []) for line in json.dumps(document, indent=1).split("\n")])


@verb("DROP")
def _drop(agent, request):
    try:
        agent.exchange.drop_scenario(request["SCENARIO"], request["VERSION"], request["-REPO"])
    except Conflict:
        if not request.client.is_narrowed:
            raise
        # the schedule may be one that is not there for him
        raise Conflict("a schedule names scenario %s %s, or runs after it"
                       % (request["SCENARIO"], request["VERSION"])) from None


@verb("ATTACH")
def _attach(agent, request):
    number = agent.places.attach(request["NAME"], request["PATH"], "-CREATE" in request)
    return fill(ATTACHED_LINE, {"repository": request["NAME"], "id": number})


@verb("DETACH")
def _detach(agent, request):
    agent.places.detach(request["NAME"])


@verb("PURGE")
def _purge(agent, request):
    """Of sessions, or of the audit."""
    if "-AUDIT" in request:
        return purge_audit(agent, request)
    days, is_dry = request["-DAYS"], "-DRY_RUN" in request
    if days is None and "-KEEP" not in request:
        raise BadRequest("-DAYS=n or -KEEP=n is missing: say what to purge")
    filters = PurgeFilter(None if days is None else agent.clock.now() - days * 86400,
                          request["-KEEP"], tuple(request["-STATUS"] or ()), request["-SCENARIO"],
                          request.client.scenarios)
    return fill(PURGED_LINE, {"purged": agent.keeper.purge(filters, is_dry)},
                **{"dry_run": True} if is_dry else {})


@verb("METRICS")
def _metrics(agent, request):
    return (TextLine(line, [("line", line)]) for line in metrics(agent))


@verb("HELP")
def _help(agent, request):
    topic = " ".join(capitals(word) for word in (request["VERB"], request["SECOND"]) if word)
    lines = [TextLine(line, [("verb", name), ("form", VERBS[name].form),
                             ("help", VERBS[name].help)])
             for name, line in _HELP.items() if not topic or (name + " ").startswith(topic + " ")]
    if not lines:
        raise NotFound("%s is no verb" % shorten(topic))
    return iter(lines + (list_word_help(topic) if topic in VERBS else []))


def list_word_help(name):
    """What the words of a verb mean, a line each, and where more is told."""
    form = next(form for form in VERB_FORMS if form.name == name)
    words = [(part.name + ("=" + part.shown if part.shown else ""), part.meaning)
             for part in list_parts(form)]
    if "[VARIABLE=" in form.words:
        words.append(("VARIABLE=value", "a value for a variable of the scenario"))
    lines = [TextLine("  %s: %s" % (word, meaning),
                      [("verb", name), ("form", word), ("help", meaning)])
             for word, meaning in words]
    more = "python agent.py --manual %s tells more" % name
    return lines and lines + [TextLine("  " + more, [("verb", name), ("form", ""),
                                                     ("help", more)])]


@verb("QUIT")
def _quit(agent, request):
    return None


# here all functions are bound, or the import ends with what is missing
_HELP = list_help()
