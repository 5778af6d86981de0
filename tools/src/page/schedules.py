"""The page of schedules: their rules, what comes next, and what became of their due times."""
import re

from .instants import make_time, shorten_times
from .markup import (join_markup, link_session, make_link, make_note, make_state, make_table,
                     markup)
from .now import link_schedule, make_address, make_coming_part, tell_trouble
from .view import PagePart, View

SCHEDULES_SHOWN = 200   # on one page
DUES_SHOWN = 30
OCCURRENCES_SHOWN = 100
_FIRST = re.compile("[0-9]{1,8}")       # of a page's schedules


def show_schedules(asker, request):
    """The View of all schedules, or of the one that the address names."""
    name, text = request.query.get("schedule", "").strip(), request.query.get("text", "").strip()
    return View("Schedules", "Schedules", [
        make_schedule_part(asker, name, text, request.query.get("page", "")),
        make_occurrence_part(asker, name), make_due_part(asker, name)], "schedules")


def make_schedule_part(asker, name, text, page):
    """The schedules, a page of them."""
    answer = asker.ask("SCHED SHOW", name) if name else asker.ask("SCHED LIST")
    rows = [row for row in answer.rows if "rule" in row and (
        name or text.lower() in ("%(name)s %(scenario)s %(rule)s" % row).lower())]
    first = int(page) if _FIRST.fullmatch(page) else 0
    shown = rows[first:first + SCHEDULES_SHOWN]
    heads = [("Schedule", "grow"), ("Rule", ""), ("Next", ""), ("Last", ""), ("", "end")]
    table = make_table("Schedules", heads, [draw_schedule(row, asker.now) for row in shown])
    form = markup('<form class="filters" action="/schedules" method="get" role="search" '
                  'aria-label="Schedules"><label>Text<input name="text" value="%s" '
                  'placeholder="in name, scenario, rule" autocomplete="off" spellcheck="false">'
                  '</label><div class="buttons"><button>Show</button>%s</div></form>', text,
                  make_link("/schedules", "All", "button quiet") if name or text else "")
    query = {"text": text} if text else {}
    ways = [("Before", first - SCHEDULES_SHOWN)] if first else []
    ways += [("Further", first + SCHEDULES_SHOWN)] if len(rows) > first + SCHEDULES_SHOWN else []
    links = [make_link(make_address(query, "/schedules", "", page=max(0, start)), way, "button")
             for way, start in ways]
    facts = make_details(answer.rows, asker.now) if name else ""
    body = table if shown else make_note("No schedule%s." % (" is like that" if name or text
                                                             else " yet"), "empty")
    return PagePart("schedules", "Schedule %s" % name if name else "Schedules", join_markup(
        [form, body, facts, tell_trouble(answer),
         markup('<nav class="pages" aria-label="Pages of schedules">%s</nav>', join_markup(links))
         if links else ""]), "" if name else str(len(rows) or ""))


def draw_schedule(row, now):
    """The cells of a schedule."""
    states = [make_state("off")] if not row["enabled"] else []
    states += [make_state("held")] if row["hold"] else []
    held = row.get("hold_reason") or row["hold"] and "held"
    return (
        markup('%s<div class="dim">%s %s%s</div>%s', link_schedule(
            row["name"], markup("<b>%s</b>", row["name"])), row["scenario"],
            "" if row["version"] == "-1" else row["version"],
            "" if row["context"] == "GLOBAL" else " in " + row["context"],
            markup('<div class="why">%s</div>', held) if held else ""),
        markup('%s<div class="dim">%s</div>', row["rule"] or "after others", row["timezone"]),
        markup('%s<div class="dim">%s</div>', make_time(row["next"], now),
               make_time(row["next"], now, is_distance=True)) if row["next"] else "\u2013",
        markup('%s %s<div class="dim">%s</div>', make_state(row["last_status"]),
               link_session(row["last_session"]),
               make_time(row["last"], now)) if row["last_session"] else "\u2013",
        join_markup(states, " "))


def make_details(rows, now):
    """What SCHED SHOW says beside the schedule's own line."""
    items = []
    for row in rows:
        if "option" in row:
            items.append("%(option)s = %(value)s" % row)
        elif "variable" in row:
            items.append("%(variable)s = %(value)s" % row)
        elif "after" in row:
            items.append("after %s %s: %s" % (row["kind"], row["after"],
                                              "has ended well" if row["met"] else "not yet"))
        elif "waiting" in row:
            items.append("the due time %s waits for what it runs after" % row["waiting"])
        elif "held" in row:
            items.append("held by %s since %s%s%s" % (
                row["by"], row["held"], " until %s" % row["until"] if row["until"] else "",
                ": " + row["reason"] if row["reason"] else ""))
    return markup('<ul class="plain">%s</ul>', join_markup(
        markup("<li>%s</li>", shorten_times(item, now)) for item in items)) if items else ""


def make_due_part(asker, name):
    """Times that will fire."""
    if not name:
        return make_coming_part(asker, DUES_SHOWN, "top")
    answer = asker.ask("SCHED NEXT", name, count=DUES_SHOWN)
    rows = [(make_time(row["due"], asker.now), make_time(row["due"], asker.now, is_distance=True),
             shorten_times(row["note"], asker.now)) for row in answer.rows]
    table = make_table("Next due times", [("Due", ""), ("", ""), ("Note", "grow")], rows) \
        if rows else make_note("Nothing is due.", "empty")
    return PagePart("next", "Next due times", join_markup([table, tell_trouble(answer)]))


def make_occurrence_part(asker, name):
    """What became of due times, and what stands in the way now."""
    answer = asker.ask("SCHED WHY", *([name] if name else []), limit=OCCURRENCES_SHOWN)
    rows = []
    for row in answer.rows:
        span = make_time(row["due"], asker.now)
        if row["count"] > 1:
            span = markup('%s<div class="dim">%s times until %s</div>', span, row["count"],
                          make_time(row["last_due"], asker.now))
        rows.append((make_state(row["decision"]), span, row["schedule"] or "the clock",
                     make_link("/session/%d" % row["session"], row["message"])
                     if row["session"] else row["message"]))
    table = make_table("Due times and what became of them", [
        ("Decision", ""), ("Due", ""), ("Schedule", ""), ("Why", "grow")], rows) \
        if rows else make_note("No due time has come yet.", "empty")
    note = make_note(shorten_times(answer.fields["note"], asker.now)) \
        if answer.fields.get("note") else ""
    return PagePart("why", "What became of due times", join_markup(
        [note, table, tell_trouble(answer)]))
