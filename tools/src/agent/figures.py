"""How the agent is, in figures: PING and METRICS."""
from ..base.vocabulary import VERSION


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
    """Prometheus text lines, from memory alone."""
    running, queued = agent.queue.counts()
    places = agent.places.list_all()
    gauges = [("uptime_seconds", round(agent.clock.monotonic() - agent.started, 1)),
              ("sessions_running", running), ("sessions_outstanding", queued),
              ("connections", agent.connections()), ("repositories", len(places)),
              ("repositories_usable", sum(not place.reason for place in places)),
              ("hold", int(agent.hold is not None)),
              ("audit_rows_waiting", agent.audit.count_waiting())]
    for name, value in gauges:
        yield "# TYPE agent_%s gauge" % name
        yield "agent_%s %s" % (name, value)
    yield "# TYPE agent_sessions_ended_total counter"
    for status, count in agent.desk.ended_counts.items():
        yield 'agent_sessions_ended_total{status="%s"} %d' % (status, count)
