"""The document of a report: its parts, in the order in which somebody who was called reads them."""
import re
import time

from ..base.times import find_instant
from .findings import MOST_FAILURES, MOST_LOG_LINES
from .history import median
from .instants import show_instant
from .markup import Markup, make_rows_table, tag
from .marks import (Axis, draw_durations, draw_lane, find_quantile, make_legend, make_ruler,
                    show_length, show_moment, tell_counts, tell_number)

REPORT_CSS = ""  # embedded: report.css
# what of each part is shown; the rest is counted
MOST_LANES, MOST_CHARTS, MOST_ROWS_SHOWN, MOST_NUMBERS = 40, 36, 60, 6
MOST_TEXT = 400             # characters of a line of a log, or of a message
LEAST_POINTS = 2            # sessions from which on there is a picture of durations
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
SECTIONS = (("timeline", "Timeline"), ("failures", "What failed"),
            ("omissions", "What did not run"), ("next", "What comes next"),
            ("durations", "Durations"), ("scenarios", "By scenario"))

# what a table says in columns of its own: `2 due times skipped: `
_COUNTED = re.compile("[0-9]+ due times? [a-z]+: ")


class Document:
    """The document of Findings, part by part."""

    def __init__(self, findings):
        self._findings = findings
        period, sessions = findings.period, findings.sessions
        begin = min([period.end - 60] + [max(period.begin, past.begun) for past in sessions[:1]])
        # a period that nothing filled is shown from its begin; one of years from its first session
        is_long = begin - period.begin > 0.5 * (period.end - period.begin)
        self._axis = Axis(begin if is_long and sessions else period.begin, period.end)
        self._groups = {}
        for past in sessions:
            self._groups.setdefault(past.scenario, []).append(past)
        self._names = sorted(self._groups, key=lambda name: (not self._has_failed(name), name))
        self._links = {past.number: "failure-%d" % place
                       for place, failure in enumerate(findings.failures, 1)
                       for past in failure.sessions}

    def _has_failed(self, name):
        return any(past.status in ("ERROR", "STOPPED") for past in self._groups[name])

    def make(self, place, made_by):
        """All of it; `place` is where the agent is, `made_by` what has asked it."""
        findings, period = self._findings, self._findings.period
        title = "%s, %s" % (findings.ping["agent"], tell_period(period.begin, period.end))
        parts = {"timeline": self._make_timeline, "failures": self._make_failures,
                 "omissions": self._make_omissions, "next": self._make_next,
                 "durations": self._make_durations, "scenarios": self._make_scenarios}
        sections = [tag("section", tag("h2", name, id=part), *parts[part](), aria_labelledby=part)
                    for part, name in SECTIONS]
        links = [Markup(tag("a", name, href="#" + part) + "\n") for part, name in SECTIONS]
        zone = time.strftime("%Z (UTC%z)", time.localtime(period.end))
        body = tag("body", tag("header", tag("h1", title), *self._make_summary(),
                               tag("nav", *links, aria_label="Parts of this report")),
                   tag("main", *sections),
                   tag("footer", tag("p", "Made %s by %s from the agent %s %s at %s. All times are "
                                     "%s." % (show_instant(period.now), made_by,
                                              findings.ping["agent"], findings.ping["version"],
                                              place, zone))))
        head = Markup('<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, '
                      'initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
                      '<meta http-equiv="Content-Security-Policy" content="%s">\n' % POLICY)
        style = tag("style", Markup("\n" + REPORT_CSS))
        return tag("html", tag("head", head, tag("title", title), style), body, lang="en") + "\n"

    def _make_summary(self):
        """What a reader wants to know first."""
        findings = self._findings
        states = [past.status for past in findings.sessions]
        bad = states.count("ERROR") + states.count("STOPPED")
        omitted = sum(omission.count for omission in findings.omissions)
        if not states:
            verdict = "No session ran."
        elif bad:
            verdict = "%s of %s ended in ERROR or STOPPED." % (
                format(bad, ","), tell_number(len(states), "session"))
        else:
            verdict = "None of %s ended in ERROR or STOPPED." % tell_number(len(states), "session")
        if omitted:
            verdict += " %s did not run." % tell_number(omitted, "due time")
        if findings.late:
            verdict += " %s ran late." % tell_number(findings.late, "due time")
        yield tag("p", verdict, class_="verdict")
        if findings.ping.get("hold") is True:
            yield tag("p", "The agent is held%s: nothing new begins." % tell_hold(findings.ping),
                      class_="notice")
        for trouble in findings.troubles:
            yield tag("p", "What is in one work repository is missing in this report: ", cut(
                trouble), class_="notice")
        if findings.is_cut:
            yield tag("p", "There were more sessions than this report takes in: those before %s "
                      "are left out." % show_moment(findings.sessions[0].begun), class_="notice")
        tiles = [("Sessions", len(states), "")]
        tiles += [(state, states.count(state), state.lower() if state in states else "")
                  for state in ("DONE", "WARNING", "ERROR", "STOPPED")]
        tiles += [("Running now", sum(row["status"] == "RUNNING" for row in findings.outstanding),
                   ""), ("Did not run", omitted, "warning" if omitted else "")]
        yield tag("dl", *(tag("div", tag("dt", name), tag("dd", format(count, ",")),
                              class_=kind or None) for name, count, kind in tiles), class_="tiles")

    def _make_timeline(self):
        """A lane for each scenario."""
        if not self._names:
            yield tag("p", "Nothing ran.", class_="soft")
            return
        yield tag("p", "Each mark is a session, from its begin to its end; the worse it ended, the "
                  "taller. Where there are too many, a mark is a stretch of time and its worst "
                  "end.", class_="soft")
        yield make_legend()
        ruler = tag("div", make_ruler(self._axis), class_="ruler-row")
        lanes = [tag("div", tag("div", tag("b", cut(name)), tag("span", tell_counts(
            self._groups[name])), class_="who"), draw_lane(
                self._axis, name, self._groups[name], self._links), class_="lane")
                 for name in self._names[:MOST_LANES]]
        yield tag("div", ruler, *lanes, class_="lanes")
        yield from tell_rest(len(self._names), MOST_LANES, "scenario")

    def _make_failures(self):
        """Each kind of failure with the end of its log."""
        findings = self._findings
        if not findings.failures:
            yield tag("p", "Nothing: no session ended in ERROR, STOPPED or WARNING.",
                      class_="soft")
        for number, failure in enumerate(findings.failures, 1):
            yield make_failure(number, failure)
        yield from tell_rest(MOST_FAILURES + findings.further_failures, MOST_FAILURES,
                             "kind of failure", "kinds of failures")

    def _make_omissions(self):
        """Due times that made no session, and schedules that have none now."""
        omissions = self._findings.omissions
        if omissions:
            rows = [(omission.schedule or "(the clock)", format(omission.count, ","),
                     make_state(omission.decision),
                     omission.reason, tell_range(omission), cut(_COUNTED.sub("", omission.message)))
                    for omission in omissions[:MOST_ROWS_SHOWN]]
            yield make_rows_table("Due times that made no session, and why", {
                "Schedule": None, "Times": "number", "Became": "word", "Reason": "word",
                "Due": "time", "In words, of the newest": "says"}, rows)
            yield from tell_rest(len(omissions), MOST_ROWS_SHOWN, "row")
        else:
            yield tag("p", "Each due time made its session.", class_="soft")
        silent = [row for row in self._findings.schedules if row["hold"] or not row["enabled"]]
        if silent:
            rows = [(row["name"], "held" if row["hold"] else "disabled", cut(row["rule"]),
                     cut(tell_hold(row).strip(" :"))) for row in silent[:MOST_ROWS_SHOWN]]
            yield make_rows_table("Schedules that fire nothing now", {
                "Schedule": None, "State": None, "Rule": "rule", "Why": "says"}, rows)
            yield from tell_rest(len(silent), MOST_ROWS_SHOWN, "schedule")

    def _make_next(self):
        """What has not ended, and the next due time of each schedule."""
        outstanding = self._findings.outstanding
        if outstanding:
            rows = [(str(row["session"]), cut(row["scenario"]), make_state(row["status"]),
                     show_instant(find_instant(row["begun"] or row["start_at"] or row["created"])),
                     cut(row["message"])) for row in outstanding[:MOST_ROWS_SHOWN]]
            yield make_rows_table("Sessions that have not ended", {
                "Session": None, "Scenario": None, "State": None, "Since, or from": "time",
                "Why": "says"}, rows)
            yield from tell_rest(len(outstanding), MOST_ROWS_SHOWN, "session")
        coming = [row for row in self._findings.schedules if row["next"]]
        coming.sort(key=lambda row: (find_instant(row["next"]) or 0.0, row["name"]))
        if coming:
            rows = [(cut(row["name"]), show_moment(find_instant(row["next"])), cut(row["rule"]),
                     make_state(row["last_status"] or "")) for row in coming[:MOST_ROWS_SHOWN]]
            yield make_rows_table("The next due time of each schedule", {
                "Schedule": None, "Next": "time", "Rule": "rule", "Ended last": None}, rows)
            yield from tell_rest(len(coming), MOST_ROWS_SHOWN, "schedule")
        else:
            yield tag("p", "No schedule has a due time ahead.", class_="soft")

    def _make_durations(self):
        """A small picture for each scenario that ran more than once."""
        names = [name for name in self._names if LEAST_POINTS <= sum(
            past.took_s is not None and past.ended is not None for past in self._groups[name])]
        if not names:
            yield tag("p", "No scenario ran twice.", class_="soft")
            return
        yield tag("p", "Each point is a session; the dashed line is the median of those that ended "
                  "DONE. The top of a picture is its longest session.", class_="soft")
        ends = [tag("span", show_day(instant)) for instant in (self._axis.begin, self._axis.end)]
        charts = []
        for name in names[:MOST_CHARTS]:
            timed = self._list_timed(name)
            usual_s = median([past.took_s for past in timed if past.status == "DONE"])
            said = "longest %s%s" % (show_length(max(past.took_s for past in timed)),
                                     "" if usual_s is None else
                                     ", usually %s" % show_length(usual_s))
            charts.append(tag("figure", tag("figcaption", tag("b", cut(name)), said),
                              draw_durations(self._axis, name, self._groups[name]),
                              tag("div", *ends, class_="span"), class_="chart"))
        yield tag("div", *charts, class_="charts")
        yield from tell_rest(len(names), MOST_CHARTS, "scenario")

    def _list_timed(self, name):
        return [past for past in self._groups[name]
                if past.took_s is not None and past.ended is not None]

    def _make_scenarios(self):
        """The figures behind the pictures, as a table."""
        rows = []
        for name in self._names[:4 * MOST_ROWS_SHOWN]:
            states = [past.status for past in self._groups[name]]
            times = sorted(past.took_s for past in self._list_timed(name))
            figures = [show_length(value) for value in (
                find_quantile(times, 0.5), find_quantile(times, 0.95), times[-1])] if times else [
                    "", "", ""]
            rows.append([cut(name), format(len(states), ",")] + [
                format(states.count(state), ",") if state in states else "" for state in (
                    "DONE", "WARNING", "ERROR", "STOPPED")] + figures + [
                        show_moment(self._groups[name][-1].begun)])
        if rows:
            headings = dict({"Scenario": None}, **dict.fromkeys(
                ("Sessions", "DONE", "WARNING", "ERROR", "STOPPED", "Median", "95 of 100",
                 "Longest"), "number"))
            yield make_rows_table("Sessions and durations of each scenario",
                                  dict(headings, **{"Newest": "time"}), rows)
            yield from tell_rest(len(self._names), 4 * MOST_ROWS_SHOWN, "scenario")
        else:
            yield tag("p", "Nothing ran.", class_="soft")


def make_document(findings, place, made_by):
    """Findings as HTML, without its first line."""
    return Document(findings).make(place, made_by)


def make_failure(number, failure):
    """Sessions that ended alike: what they say, which they are, the end of the newest's log, and
    what to type next."""
    newest, count = failure.sessions[0], len(failure.sessions)
    took = "" if newest.took_s is None else ", after %s" % show_length(newest.took_s)
    facts = "Session %d, begun %s%s." % (newest.number, show_moment(newest.begun), took)
    if count > 1:
        others = ", ".join(str(past.number) for past in failure.sessions[1:MOST_NUMBERS])
        facts += " Before that %s%s; the first at %s." % (
            others, " and %d more" % (count - MOST_NUMBERS) if count > MOST_NUMBERS else "",
            show_moment(failure.sessions[-1].begun))
    heading = [make_state(failure.status), " ", cut(failure.scenario)]
    if count > 1:
        heading.append(tag("span", " %d times" % count, class_="soft"))
    name = "failure-%d" % number
    parts = [tag("h3", *heading, id=name + "-name"),
             tag("p", cut(failure.message) or "No message."), tag("p", facts, class_="facts")]
    if failure.log:
        parts.append(tag("pre", *map(make_log_line, failure.log[-MOST_LOG_LINES:]),
                         aria_label="How the log of session %d ends" % newest.number))
    else:
        parts.append(tag("p", "Nothing was printed.", class_="soft"))
    words = ["status", "log"] + ["restart"] * (failure.status in ("ERROR", "STOPPED"))
    parts.append(tag("p", "Next: ", *(Markup(tag("code", "agentcli.py %s %d" % (
        word, newest.number)) + " \u00a0 ") for word in words), class_="facts"))
    return tag("article", *parts, id=name, class_="failure " + failure.status.lower(),
               aria_labelledby=name + "-name")


def make_state(state):
    """A state, or what became of a due time, in its colour."""
    return tag("span", state, class_="state " + state.lower()) if state else ""


def make_log_line(line):
    """A line of a log; what came from standard error says so."""
    instant, text = find_instant(line["time"]), cut(line["text"].replace("\t", "    "))
    when = "" if instant is None else show_instant(instant)[11:]
    is_error = line["stream"] == "err"
    return Markup(tag("span", when, " err " if is_error else "     ", class_="type")
                  + tag("span", text, class_="err" if is_error else None) + "\n")


def tell_range(omission):
    """The first due time, and the last where there are several."""
    first = show_moment(omission.first)
    if omission.last <= omission.first:
        return first
    return Markup("%s <br>to %s" % (first, show_moment(omission.last)))


def tell_hold(row):
    """Who holds something, until when and why, as far as it is known."""
    until = find_instant(row.get("hold_until"))
    return "%s%s%s" % (" by %s" % row["hold_by"] if row.get("hold_by") else "",
                       "" if until is None else " until %s" % show_instant(until),
                       ": %s" % row["hold_reason"] if row.get("hold_reason") else "")


def tell_rest(count, shown, noun, nouns=None):
    """Says how many of something are left out, where that is so."""
    if count > shown:
        rest = count - shown
        yield tag("p", "%s more %s left out here." % (format(rest, ","), "%s is" % noun if rest == 1
                                                      else "%s are" % (nouns or noun + "s")),
                  class_="soft")


def cut(text):
    """A text that is not longer than people read."""
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT - 2] + " \u2026"


def tell_period(begin, end):
    """Two instants; the second without its day where that is the same."""
    days = [time.localtime(instant)[:3] for instant in (begin, end)]
    return "%s to %s" % (show_day(begin), show_day(end) if days[0] != days[1] else
                         time.strftime("%H:%M", time.localtime(end)))


def show_day(instant):
    """An instant to the minute, with its day and year."""
    return time.strftime("%a %d %b %Y %H:%M", time.localtime(instant))
