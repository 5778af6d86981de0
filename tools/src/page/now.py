"""The first page: what runs, what waits, what ran, what comes, and what did not run."""
import collections
import re
from urllib.parse import urlencode

from ..base.errors import AgentError
from ..base.times import find_instant, to_local
from ..base.vocabulary import ENDED, ERROR, OUTSTANDING, RUNNING, STATES, STOPPED
from ..agent.waits import tell_hold
from ..protocol.lines import session_fields
from ..protocol.table import KINDS
from ..scheduling.preview import explain
from ..store.records import SessionFilter
from .drawing import draw_sessions
from .instants import make_time, shorten_times, show_clock, show_duration
from .markup import join_markup, make_link, make_note, make_state, make_table, markup
from .view import PagePart, View

PAGE_ROWS = 100         # sessions of a page
OPEN_ROWS_SHOWN = 50    # that run, and that wait
COMING_ASKED, COMING_SHOWN = 200, 12
LATELY_S = 86400.0      # how far back failures and due times that did not run are told
TROUBLES_SHOWN = 12
HOLDS_SHOWN = 20
FAILED_STATES = (ERROR, STOPPED)
# what the filter offers beside the states themselves
STATE_GROUPS = collections.OrderedDict([
    ("failed", FAILED_STATES), ("open", OUTSTANDING + (RUNNING,)), ("ended", tuple(ENDED))])
_BELOW = re.compile("[0-9]{1,18}")
FILTERS = ("status", "scenario", "schedule", "since", "text")


def show_now(asker, request):
    """The View of what is going on, with the sessions that the address asks for."""
    session_part = make_session_part(asker, request.query)
    return View("Now", "Now", [
        make_open_part(asker, "running", "Running", RUNNING),
        make_open_part(asker, "waiting", "Waiting", ",".join(OUTSTANDING)),
        session_part, make_failed_part(asker), make_trouble_part(asker), make_coming_part(asker),
        make_hold_part(asker), make_repository_part(asker)])


def tell_trouble(answer):
    """Why an Response is not whole, as a sentence of its own, or nothing."""
    return make_note("%s: %s" % (answer.code, answer.message), "trouble") if answer.code else ""


# -- sessions ------------------------------------------------------------------------------


def name_session(row):
    """A session in its cell: its scenario, which leads to it, and by what it is told apart."""
    more = [row["name"] and "\u201c%s\u201d" % row["name"], row["keywords"],
            row["schedule"] and "by " + row["schedule"]]
    return markup('<a href="/session/%s"><b>%s</b> <span class="dim">%s</span></a>'
                  '<div class="dim"><span class="number">%s</span> %s</div>', row["session"],
                  row["scenario"], row["version"], row["session"],
                  " \u00b7 ".join(filter(None, more)))


def make_open_part(asker, name, heading, states):
    """The sessions that are in one of some states, which none has ended in."""
    answer = asker.ask("SESSIONS", status=states, limit=OPEN_ROWS_SHOWN + 1)
    rows = answer.rows[:OPEN_ROWS_SHOWN]
    is_running = states == RUNNING
    heads = [("State", ""), ("Session", "grow"), ("Since" if is_running else "When", "end")]
    body = make_table(heading, heads, [
        (make_state(row["status"]),
         markup("%s%s", name_session(row), markup('<div class="why">%s</div>', row["message"])
                if row["message"] else ""),
         markup("%s<div class=\"dim\">%s</div>",
                show_duration(row["duration"]) if is_running else
                make_time(row["start_at"] or row["created"], asker.now, is_distance=True),
                make_time(row["begun"] if is_running else row["start_at"] or row["created"],
                          asker.now)))
        for row in rows]) if rows else make_note(
            "Nothing runs." if is_running else "Nothing waits.", "empty")
    count = "%d+" % len(rows) if len(answer.rows) > len(rows) else len(rows) or ""
    return PagePart(name, heading, join_markup([body, tell_trouble(answer)]), str(count))


class SessionList:
    """The sessions that an address asks for, a page of them."""

    def __init__(self, asker, query):
        self.query = {name: query[name].strip() for name in FILTERS if query.get(name, "").strip()}
        self.rows, self.faults, self.next_page = [], [], ""
        below = self._read_page(query.get("page", ""))
        filters = self._read_filters(asker)
        rows = []
        try:
            for row in asker.agent.watch.list_sessions(filters, None, PAGE_ROWS + 1, below):
                rows.append(row)
        except AgentError as error:     # a repository cannot be read: the others can
            self.faults.append("%s: %s" % (error.code, error.message))
        parents = {}
        self.rows = [dict(session_fields(asker.agent, row, asker.client, parents))
                     for row in rows[:PAGE_ROWS]]
        if len(rows) > PAGE_ROWS:
            for row in self.rows:
                below[row["session"] % 1000] = row["session"]
            self.next_page = ".".join(str(number) for _, number in sorted(below.items()))

    def _read_page(self, text):
        """Under which numbers the sessions of a page are: {repository id: number}."""
        words = text.split(".") if text else []
        if not all(_BELOW.fullmatch(word) for word in words):
            self.faults.append("page: is none; these are the newest")
            return {}
        return {int(word) % 1000: int(word) for word in words}

    def _read_filters(self, asker):
        """The SessionFilter of the address; what is wrong with it is one of the faults."""
        values = {}
        readers = {
            "status": lambda text: STATE_GROUPS.get(text) or tuple(KINDS["states"].parse(text)),
            "since": lambda text: KINDS["past"].parse_at(text, asker.now),
            "scenario": KINDS["name"].parse, "schedule": KINDS["name"].parse}
        for name, read in readers.items():
            try:
                if name in self.query:
                    values[name] = read(self.query[name])
            except (ValueError, OverflowError) as error:
                self.faults.append("%s: %s" % (name, error))
        return SessionFilter(
            values.get("status", ()), values.get("scenario"), values.get("schedule"), None,
            values.get("since"), None, asker.client.scenarios, self.query.get("text"))


def make_session_part(asker, query):
    """What ran, newest first: the filters, a timeline, a table, and what leads to older ones."""
    listing = SessionList(asker, query)
    heads = [("State", ""), ("Session", "grow"), ("Began", ""), ("Took", "end")]
    rows = [(make_state(row["status"]),
             markup("%s%s", name_session(row), markup('<div class="why">%s</div>', row["message"])
                    if row["message"] else ""),
             make_time(row["begun"] or row["start_at"] or row["created"], asker.now),
             show_duration(row["duration"])) for row in listing.rows]
    links = [make_link(make_address(listing.query), "Newest", "button")] \
        if query.get("page") else []
    links += [make_link(make_address(listing.query, page=listing.next_page), "Older", "button")] \
        if listing.next_page else []
    return PagePart("sessions", "Sessions", join_markup(
        [make_filter_form(listing)] + [make_note(fault, "trouble") for fault in listing.faults]
        + [draw_sessions(listing.rows, asker.now),
           make_table("Sessions, newest first", heads, rows) if rows else make_note(
               "No session is like that." if listing.query else "No session yet.", "empty"),
           markup('<nav class="pages" aria-label="Pages of sessions">%s</nav>', join_markup(links))
           if links else ""]), "", "below")


def make_address(query, path="/", part="#sessions", **more):
    """The address of a page with these filters."""
    pairs = list(query.items()) + list(more.items())
    return path + ("?" + urlencode(pairs) if pairs else "") + part


def link_schedule(name, text=None):
    """A link to the page of a schedule."""
    return make_link(make_address({"schedule": name}, "/schedules", ""), text or name)


def make_filter_form(listing):
    """The filters, as a form that works by the address alone."""
    chosen = listing.query.get("status", "")
    options = join_markup(markup('<option value="%s"%s>%s</option>', value,
                                 markup(" selected") if value == chosen else "", text)
                          for value, text in [("", "any state")] + [
                              (name, name) for name in STATE_GROUPS] + [
                              (state, state) for state in STATES]
                          + [(chosen, chosen)] * (chosen not in ("",) + tuple(STATE_GROUPS)
                                                  + tuple(STATES)))
    fields = [markup('<label>State<select name="status">%s</select></label>', options)]
    for name, label, hint in (("scenario", "Scenario", "LOAD_WEATHER"), ("since", "Since", "-1d"),
                              ("text", "Text", "in names and messages")):
        fields.append(markup('<label>%s<input name="%s" value="%s" placeholder="%s" '
                             'autocomplete="off" spellcheck="false"></label>', label, name,
                             listing.query.get(name, ""), hint))
    if "schedule" in listing.query:
        fields.append(markup('<label>Schedule<input name="schedule" value="%s"></label>',
                             listing.query["schedule"]))
    clear = make_link("/#sessions", "Clear", "button quiet") if listing.query else ""
    return markup('<form class="filters" action="/#sessions" method="get" role="search" '
                  'aria-label="Sessions">%s<div class="buttons"><button>Show</button>%s</div>'
                  "</form>", join_markup(fields), clear)


# -- beside them ---------------------------------------------------------------------------


def make_list(rows):
    """[(what, beside it, below it)] as a list."""
    return markup('<ul class="list">%s</ul>', join_markup(
        markup('<li><div class="row"><div class="grow">%s</div><div class="end">%s</div></div>%s'
               "</li>", what, beside, markup('<div class="why">%s</div>', below) if below else "")
        for what, beside, below in rows))


def make_failed_part(asker):
    """What has failed since yesterday."""
    answer = asker.ask("SESSIONS", status=",".join(FAILED_STATES), limit=TROUBLES_SHOWN)
    rows = [(markup("%s %s", make_state(row["status"]),
                    make_link("/session/%d" % row["session"], row["scenario"])),
             make_time(row["ended"], asker.now, is_distance=True), row["message"])
            for row in answer.rows if (find_instant(row["ended"]) or 0.0) > asker.now - LATELY_S]
    return PagePart("failed", "Failed in the last 24 hours", join_markup(
        [make_list(rows) if rows else make_note("Nothing.", "empty"), tell_trouble(answer)]),
        str(len(rows) or ""), "side")


def make_trouble_part(asker):
    """Due times since yesterday that did not run, or not in time."""
    rows, faults = [], []
    try:
        for repository, row in asker.agent.listing.seen_by(asker.client).list_occurrences(
                None, None, TROUBLES_SHOWN, (asker.now - LATELY_S, None), has_begun=False):
            rows.append(occurrence_row(row, asker.now))
    except AgentError as error:
        faults.append(make_note("%s: %s" % (error.code, error.message), "trouble"))
    return PagePart("why", "Did not run, or late", join_markup(
        [make_list(rows) if rows else make_note(
            "Every due time of the last 24 hours ran (of very many the newest were looked at).",
            "empty")] + faults),
        str(len(rows) or ""), "side")


def occurrence_row(row, now):
    """An occurrence as an item of make_list()."""
    decision = make_state(row["decision"])
    name = link_schedule(row["schedule"]) if row["schedule"] else "the clock"
    return (markup("%s %s", decision, name),
            make_time(to_local(row["last_due"]), now, is_distance=True), explain(row))


def make_coming_part(asker, shown=COMING_SHOWN, area="side"):
    """The next due times, those of a schedule on one line."""
    answer = asker.ask("SCHED NEXT", count=COMING_ASKED)
    schedules = collections.OrderedDict()
    for row in answer.rows:
        schedules.setdefault((row["schedule"], row.get("repository")), []).append(row)
    rows = []
    for (name, _), dues in list(schedules.items())[:shown]:
        last = find_instant(dues[-1]["due"])
        more = "and %d more until %s" % (len(dues) - 1, show_clock(last, asker.now)) \
            if len(dues) > 1 else ""
        rows.append((link_schedule(name),
                     markup("%s <span class=\"dim\">%s</span>",
                            make_time(dues[0]["due"], asker.now),
                            make_time(dues[0]["due"], asker.now, is_distance=True)),
                     shorten_times("; ".join(filter(None, (dues[0]["note"], more))), asker.now)))
    return PagePart("next", "Comes next", join_markup(
        [make_list(rows) if rows else make_note("Nothing is due.", "empty"),
         tell_trouble(answer)]), "", area)


def make_hold_part(asker):
    """What is held: the schedules; the agent and its repositories say so themselves."""
    agent, rows = asker.agent, []
    for repository in agent.places.list_open() if not asker.client.is_narrowed else ():
        if repository.hold is not None:
            rows.append(("repository " + repository.name, "", tell_hold(repository.hold,
                                                                       asker.now)))
        rows += [("schedule " + entry.name, "", tell_hold(entry.hold, asker.now))
                 for entry in agent.schedules.scheduler.list_entries(repository.id)
                 if entry.hold is not None]
    if agent.hold is not None:
        rows.insert(0, ("the agent", "", tell_hold(agent.hold, asker.now)))
    body = make_list(rows[:HOLDS_SHOWN]) if rows else make_note("Nothing is held.", "empty")
    return PagePart("holds", "Holds", body, str(len(rows) or ""), "side")


def make_repository_part(asker):
    """The work repositories and how they are."""
    answer = asker.ask("REPOS")
    rows = [(row["repository"], make_state(row["status"]), row["message"]) for row in answer.rows]
    return PagePart("repositories", "Repositories", join_markup(
        [make_list(rows), tell_trouble(answer)]), "", "side")
