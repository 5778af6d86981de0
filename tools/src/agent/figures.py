"""How the agent is, in figures: PING and METRICS."""
import collections

from ..base.vocabulary import RUNNING, VERSION


def ping(agent):
    """What PING says: its values by key, from memory alone."""
    running, queued = agent.queue.counts()
    places = agent.places.list_all()
    usable = len([place for place in places if not place.reason])
    hold = agent.hold
    values = {
        "agent": agent.name, "version": VERSION,
        "status": _find_status(agent, places, usable == len(places)),
        "uptime": round(agent.clock.monotonic() - agent.started, 1), "running": running,
        "queued": queued, "repositories": "%d/%d" % (usable, len(places)),
        "hold": hold is not None}
    if hold is not None:
        values.update(hold_reason=hold.reason, hold_by=hold.by, hold_until=hold.until)
    return values


def _find_status(agent, places, are_usable):
    if agent.is_stopping:
        return "STOPPING"
    for repository in [agent.master] + [place.repository for place in places]:
        if repository is not None and repository.db.is_read_only:
            return "STANDBY"
    return "READY" if are_usable and not agent.master.db.trouble else "DEGRADED"


def metrics(agent):
    """The lines of METRICS, from memory alone: Prometheus' text format 0.0.4
    (prometheus.io/docs/instrumenting/exposition_formats), each family with its HELP and TYPE."""
    running, outstanding = agent.queue.counts()
    tickets, since = agent.queue.list_waiting()
    now, tally = agent.clock.monotonic(), agent.desk.tally
    places = agent.places.list_all()
    yield from _gauge("info", "the agent", [({"agent": agent.name, "version": VERSION}, 1)])
    yield from _gauge("uptime_seconds", "since its start", round(now - agent.started, 1))
    yield from _gauge("hold", "1: nothing new begins", int(agent.hold is not None))
    yield from _gauge("connections", "that are open", agent.connections())
    yield from _family("limits_reached_total", "counter", "how often limits were reached", [
        ("", {"limit": limit}, count) for limit, count in agent.reached.list_counts()])
    yield from _gauge("sessions_running", "sessions that run", running)
    yield from _gauge("sessions_outstanding", "sessions that have not begun", outstanding)
    yield from _gauge("sessions", "open sessions by state; those outstanding by the state of "
                      "their acknowledgement", _count_open(agent, tickets))
    yield from _gauge("queue_length", "sessions that wait for a slot, a limit or a hold",
                      len(tickets))
    yield from _gauge("queue_head_age_seconds", "how long the oldest of them has waited",
                      round(now - since, 3) if tickets else 0)
    yield from _family("sessions_ended_total", "counter", "sessions that ended since the start", [
        ("", {"status": status}, count) for status, count in tally.totals.items()])
    yield from _family("scenario_sessions_ended_total", "counter", "the same by scenario", [
        ("", {"scenario": scenario, "status": status}, count)
        for scenario, status, count in tally.list_ended()])
    yield from _histograms("session_duration_seconds", "how long sessions took from their newest "
                           "begin to their end", [({"scenario": scenario}, histogram) for
                                                  scenario, histogram in tally.list_durations()])
    yield from _histograms("schedule_lateness_seconds", "from the due time of a session to its "
                           "begin", [({}, tally.lateness)])
    yield from _gauge("audit_rows_waiting", "rows of the audit that are not written yet",
                      agent.audit.count_waiting())
    yield from _tell_notices(agent.notices)
    yield from _gauge("repositories", "attached work repositories", len(places))
    yield from _gauge("repositories_usable", "those that can be used",
                      sum(not place.reason for place in places))
    yield from _gauge("repositories_held", "those in which nothing new begins", sum(
        repository.hold is not None for repository in agent.places.list_open()))
    yield from _gauge("repository_usable", "1: it can be used", [
        ({"repository": place.attachment.name}, int(not place.reason)) for place in places])
    pairs = [("master", agent.master)] + [
        (place.attachment.name, place.repository) for place in places]
    open_ones = [pair for pair in pairs if pair[1] is not None]     # each was looked at once
    yield from _gauge("repository_read_only", "1: it can only be read", [
        ({"repository": name}, int(repository.db.is_read_only))
        for name, repository in open_ones])
    yield from _histograms("commit_seconds", "how long commits took, with all their tries", [
        ({"repository": name}, repository.db.latency) for name, repository in open_ones])


def _tell_notices(notices):
    yield from _gauge("notice_events_waiting", "events of notices that are not sent yet",
                      notices.waiting)
    yield from _family("notices_total", "counter", "messages of notices that were sent, and tries "
                       "that failed", [("", {"status": status}, count)
                                       for status, count in notices.counts.items()])


def _count_open(agent, tickets):
    """[(labels, count)] of the open sessions by scenario and state."""
    counts = collections.Counter((ticket.scenario, ticket.status) for ticket in tickets)
    counts.update((session.ticket.scenario, RUNNING) for session in agent.queue.list_running())
    return [({"scenario": scenario, "status": status}, count)
            for (scenario, status), count in sorted(counts.items())]


def _gauge(name, text, values):
    """The lines of a gauge: of one value, or of [(labels, value)]."""
    rows = values if isinstance(values, list) else [({}, values)]
    return _family(name, "gauge", text, [("",) + row for row in rows])


def _histograms(name, text, histograms):
    """The lines of [(labels, Histogram)] that share a name."""
    rows = []
    for labels, histogram in histograms:
        counts = histogram.read()
        bounds = ["%g" % bound for bound in histogram.bounds] + ["+Inf"]
        rows += [("_bucket", dict(labels, le=bound), count)
                 for bound, count in zip(bounds, counts)]
        rows += [("_sum", labels, round(histogram.sum, 6)), ("_count", labels, counts[-1])]
    return _family(name, "histogram", text, rows)


def _family(name, kind, text, rows):
    """Yields the lines of one metric: [(end of its name, labels, value)]."""
    yield "# HELP agent_%s %s" % (name, text)
    yield "# TYPE agent_%s %s" % (name, kind)
    for end, labels, value in rows:
        shown = ",".join('%s="%s"' % (key, _escape(label)) for key, label in labels.items())
        yield "agent_%s%s%s %s" % (name, end, "{%s}" % shown if shown else "", value)


def _escape(label):
    """The value of a label, as the format wants it."""
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
