"""The page of a session: how it stands, its steps and tasks, its tree, its log."""
import re

from ..base.controls import show_controls
from ..base.errors import AgentError
from ..base.times import to_local
from ..base.vocabulary import ENDED, ERR, OUT, OUTSTANDING, RUNNING
from ..store.records import LogFilter
from .drawing import draw_attempt, find_bounds
from .instants import make_time, show_duration
from .markup import (Markup, join_markup, link_session, make_facts, make_note, make_state,
                     make_table, markup)
from .now import link_schedule, name_session, tell_trouble
from .requests import HttpError
from .view import PagePart, View

LOG_LINES_SHOWN = 500   # the newest, where the address says nothing
MAX_LOG_LINES = 5000    # of one page
LINES_READ = 250      # lines, each up to 16 KiB
LINE_SHOWN = 1000       # characters of one
ATTEMPTS_SHOWN, NODES_SHOWN = 300, 500
CHILDREN_SHOWN = 100
_CURSOR = re.compile("([0-9]{1,18})[.](-?[0-9]{1,18})")


def show_session(asker, request, number):
    """The View of a session. HttpError: there is none."""
    answer = asker.ask("STATUS", number, choose=choose_lines)
    if not answer.rows:
        raise HttpError(404 if answer.code in ("NOT_FOUND", "BAD_REQUEST") else 503,
                        answer.message)
    session, attempts = answer.rows[0], answer.rows[1:]
    steps = [row for row in attempts if "step" in row or "task" in row]
    nodes = [row for row in attempts if "node" in row]
    variables = [row for row in attempts if "variable" in row]
    parts = [PagePart("facts", "What it is", make_facts(list_facts(session, asker.now)))]
    if nodes:
        parts.append(PagePart("plan", "Plan", join_markup([
            make_note("Of its many nodes those are shown that are not DONE, and the first.")
            if len(nodes) == NODES_SHOWN else "", draw_nodes(nodes, asker.now)])))
    if steps or not nodes:
        parts.append(PagePart("steps", "Steps", join_markup([
            make_note("Only the newest attempts are shown.") if len(steps) == ATTEMPTS_SHOWN
            else "", draw_steps(session, steps, asker.now)])))
    children = make_children_part(asker, number)
    if children is not None:
        parts.append(children)
    lines, log_part = make_log_part(asker, request, session)
    parts.append(log_part)
    if variables:
        parts.append(PagePart("variables", "Variables", make_facts(
            (row["variable"], row["value"] or "\u2013") for row in variables)))
    parts.append(PagePart("commands", "What to type", draw_commands(session)))
    return View("%s %s" % (session["scenario"], number),
                markup('%s <span class="dim">%s</span> %s', session["scenario"],
                       session["version"], make_state(session["status"])),
                parts, "session", lines)


def choose_lines(lines):
    """The lines of STATUS that a page has room for: of very many attempts the newest, of very many
    nodes those that are not DONE and the uppermost."""
    attempts = [line for line in lines[1:] if line.startswith(('* {"step"', '* {"task"'))]
    nodes = [line for line in lines[1:] if line.startswith('* {"node"')]
    others = [line for line in lines[1:] if line.startswith('* {"variable"')]
    if len(nodes) > NODES_SHOWN:
        ranked = sorted(range(len(nodes)), key=lambda index: (
            '"status": "DONE"' in nodes[index],
            nodes[index].partition(",")[0].count("."), index))[:NODES_SHOWN]
        nodes = [nodes[index] for index in sorted(ranked)]
    return lines[:1] + attempts[-ATTEMPTS_SHOWN:] + nodes + others


def list_facts(row, now):
    """What is said of a session: [(name, value)]."""
    return [
        ("Why", row["message"] and markup('<span class="why">%s</span>', row["message"])),
        ("Session", row["session"]), ("Name", row["name"]), ("Keywords", row["keywords"]),
        ("Context", row["context"]),
        ("Schedule", row["schedule"] and link_schedule(row["schedule"])),
        ("Due", make_time(row["due"], now)), ("May begin", make_time(row["start_at"], now)),
        ("Acknowledged", make_time(row["created"], now)), ("Began", make_time(row["begun"], now)),
        ("Ended", make_time(row["ended"], now)), ("Took", show_duration(row["duration"])),
        ("Waits for", row["waits_for"]),
        ("Part of", row["parent"] and link_session(row["parent"])),
        ("Asked for by", row.get("by"))]


def draw_steps(session, rows, now):
    """The attempts of steps with their tasks, each with its place in the time of the session."""
    if not rows:
        return make_note("No step of it is recorded." if session["status"] in ENDED
                         else "It has not begun.", "empty")
    spans = list(filter(None, (find_bounds(row, now) for row in rows)))
    begin = min(span[0] for span in spans) if spans else now
    end = max([span[1] for span in spans] + [begin])
    lines = []
    for row in rows:
        is_step = "step" in row
        span = find_bounds(row, now)
        again = " \u00b7 attempt %d" % row["attempt"] if (row["attempt"] or 1) > 1 else ""
        name = markup("<b>%s %s</b>%s", row["step"], row["name"], again) if is_step else markup(
            '<span class="task">%s %s <span class="dim">%s%s</span></span>', row["task"],
            row["type"], row["name"], again)
        figures = [] if is_step else [
            "rc %s" % row["rc"] if row["rc"] is not None else "",
            "%s rows" % row["rows"] if row["rows"] is not None else ""]
        lines.append((
            make_state(row["status"]),
            markup('%s%s%s', name, markup(' <span class="dim">%s</span>', " \u00b7 ".join(
                filter(None, figures))) if any(figures) else "",
                markup('<div class="why">%s</div>', row["message"]) if row["message"] else ""),
            draw_attempt(row, begin, end, now), make_time(row["begun"], now),
            show_duration(span[1] - span[0]) if span else ""))
    return make_table("Steps and tasks", [
        ("State", ""), ("Step, task", "grow"), ("When", "drawn"), ("Began", "wide-only"),
        ("Took", "end")], lines)


def draw_nodes(rows, now):
    """The nodes of a load plan that were reached, as a tree by their dotted places."""
    items = []
    for row in rows:
        place = str(row["node"])
        depth = min(place.count(".") + place.count("/"), 12)
        span = find_bounds(row, now)
        again = " \u00b7 attempt %d" % row["attempt"] if (row.get("attempt") or 1) > 1 else ""
        words = " ".join(str(word) for word in (row.get("kind"), row.get("value")) if word)
        items.append(markup(
            '<li class="d%s">%s <span class="grow"><b>%s</b> %s <span class="dim">%s%s</span> %s%s'
            '</span><span class="end">%s</span></li>', depth, make_state(row["status"]), place,
            row.get("name"), words, again, link_session(row.get("session")),
            markup('<div class="why">%s</div>', row["message"]) if row.get("message") else "",
            show_duration(span[1] - span[0]) if span else ""))
    return markup('<ul class="tree">%s</ul>', join_markup(items))


def make_children_part(asker, number):
    """The sessions that it has started, or None: it has none."""
    answer = asker.ask("SESSIONS", parent=number, limit=CHILDREN_SHOWN + 1)
    if not answer.rows and not answer.code:
        return None
    rows = answer.rows[:CHILDREN_SHOWN]
    table = make_table("Its sessions", [
        ("State", ""), ("Session", "grow"), ("Began", ""), ("Took", "end")], [
        (make_state(row["status"]), name_session(row), make_time(row["begun"], asker.now),
         show_duration(row["duration"])) for row in rows])
    count = "%d+" % len(rows) if len(answer.rows) > len(rows) else str(len(rows))
    return PagePart("children", "Its sessions", join_markup([table, tell_trouble(answer)]), count)


def draw_commands(row):
    """What an operator may type next, as this page changes nothing."""
    number, status = row["session"], row["status"]
    commands = {RUNNING: ["log %d --follow", "stop %d", "stop %d --immediate"]}.get(
        status, ["status %d", "stop %d"] if status in OUTSTANDING else
        ["restart %d"] if status in ("ERROR", "STOPPED") else ["status %d", "log %d"])
    return markup('<pre class="commands">%s</pre>', join_markup(
        ("agentcli.py " + command % number for command in commands), Markup("\n")))


# -- the log -------------------------------------------------------------------------------


def make_log_part(asker, request, session):
    """(what one that follows needs to know, the PagePart) of a session's log. HttpError."""
    number, query = session["session"], request.query
    content, faults = read_log(asker, number, query), []
    if "fault" in content:
        faults.append(make_note(content["fault"]))
    is_over = session["status"] in ENDED
    content["is_over"] = is_over
    chosen = query.get("stream", "")
    streams = join_markup(markup(
        '<option value="%s"%s>%s</option>', value, markup(" selected") if value == chosen else "",
        text) for value, text in (("", "both"), (OUT, "output"), (ERR, "errors")))
    form = markup(
        '<form class="filters" method="get" action="#log" aria-label="Log">'
        '<label>Stream<select name="stream">%s</select></label>'
        '<label>Step<input name="step" value="%s" autocomplete="off" spellcheck="false"></label>'
        '<label>Newest lines<input name="tail" inputmode="numeric" value="%s" size="6"></label>'
        '<div class="buttons"><button>Show</button>%s</div></form>', streams,
        query.get("step", ""), query.get("tail", str(LOG_LINES_SHOWN)),
        "" if is_over else markup('<label class="check" id="follow" hidden>'
                                  '<input type="checkbox" checked> Follow</label>'))
    body = markup('%s%s<ol id="lines" class="log" tabindex="0" aria-label="Log" data-after="%s">%s'
                  "</ol>%s", form, join_markup(faults), content["after"], content["html"],
                  make_note("Nothing was printed." if is_over else "Nothing is printed yet.",
                            "empty no-lines"))
    return content, PagePart("log", "Log", body)


def read_log(asker, number, query):
    """Lines of a session's log that the address asks for: {"html", "after"}, and "fault" where one
    of its words is wrong; `after` is the place behind the last of them, from which an open page
    goes on."""
    agent, faults = asker.agent, []
    stream = query.get("stream") or None
    if stream not in (None, OUT, ERR):
        faults.append("stream: must be out or err")
        stream = None
    tail = query.get("tail") or str(LOG_LINES_SHOWN)
    if not re.fullmatch("[0-9]{1,9}", tail):
        faults.append("tail: must be a number of lines")
        tail = str(LOG_LINES_SHOWN)
    filters = LogFilter(query.get("step") or None, stream, None, min(int(tail), MAX_LOG_LINES))
    cursor = _CURSOR.fullmatch(query.get("after", ""))
    after, lines = (0, -1), []
    try:
        repository = agent.places.of_session(number)
        after = tuple(map(int, cursor.groups())) if cursor else repository.db.read(
            repository.views.find_log_start, number, filters)
        if not cursor and after > (0, -1):
            faults.append("Only the newest lines are here; agentcli.py log %d has them all."
                          % number)
        for _ in range(MAX_LOG_LINES // LINES_READ):
            rows = repository.db.read(repository.views.list_log, number, filters, after,
                                      LINES_READ)
            lines += [draw_line(row) for row in rows if row["line"] is not None]
            after = (rows[-1]["task_run"], rows[-1]["position"]) if rows else after
            if len(rows) < LINES_READ:
                break
    except AgentError as error:
        faults.append(error.message)
    content = {"html": join_markup(lines), "after": "%d.%d" % after}
    return dict(content, fault="; ".join(faults)) if faults else content


def draw_line(row):
    """A line of the log; of a long one its begin."""
    moment, text = to_local(row["time"]), row["line"]
    rest = markup('<span class="dim"> and %s more characters</span>', len(text) - LINE_SHOWN) \
        if len(text) > LINE_SHOWN else ""
    return markup('<li class="%s"><time datetime="%s">%s</time><span class="from">%s/%s</span>'
                  "<span class=\"stream\">%s</span><code>%s%s</code></li>", "l-" + row["stream"],
                  moment, moment[11:19], row["step"], row["task"], row["stream"],
                  show_controls(text[:LINE_SHOWN]), rest)
