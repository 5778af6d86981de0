"""The verbs on schedules and calendars."""
import collections
import contextlib
import math

from ..base.errors import BadRequest, NotFound
from ..base.forms import schedule_field
from ..base.replies import (AFTER_LINE, CALENDAR_LINE, CALENDAR_NAME_LINE, COMING_LINE,
                            DELAYED_LINE, ENABLED_LINE, HELD_LINE, OCCURRENCE_LINE, OPTION_LINE,
                            OUTLOOK_LINE, PLANNED_LINE, SCHEDULE_LINE, SCHEDULE_NAME_LINE,
                            SCHEDULE_SET_LINE, UPDATED_LINE, VARIABLE_LINE, VISIT_LINE)
from ..timetable.days import DAY, FORMS
from ..timetable.rules import list_surprises
from ..definitions.fields import SCHEDULE_FIELDS
from ..definitions.model import make_schedule
from ..store.records import Last
from ..scheduling.preview import explain, list_state
from ..scheduling.visits import OUTCOMES, Period, STARTS
from .table import verb
from .lines import fill
from .narrow import is_condition_seen


def schedule_fields(repository, stored, due):
    """The values of the line of a StoredSchedule; `due`: its next due time, or None."""
    hold, last = stored.hold, stored.last or Last(None, None, None)
    more = {"hold_reason": hold.reason, "hold_until": hold.until} if hold else {}
    return fill(SCHEDULE_LINE, stored.schedule._asdict(), hold=hold is not None, next=due,
                last=last.due, last_session=last.session, last_status=last.status,
                repository=repository.name, **more)


@verb("SCHED LIST")
def _sched_list(agent, request):
    for schedule in agent.listing.seen_by(request.client).list_all(request["-REPO"]):
        yield schedule_fields(*schedule)


@verb("SCHED SHOW")
def _sched_show(agent, request):
    """The line of a schedule, then one for each of its options, variables and conditions, and what
    it waits for."""
    listing = agent.listing.seen_by(request.client)
    for repository, stored, due in listing.get(request["NAME"], request["-REPO"]):
        yield schedule_fields(repository, stored, due)
        schedule, hold = stored.check().schedule, stored.hold
        for option, value in schedule.options.items():
            yield fill(OPTION_LINE, {"option": option.replace("session_", "").upper(),
                                     "value": value})
        for variable, value in schedule.variables.items():
            yield fill(VARIABLE_LINE, {"variable": variable, "value": value})
        for kind, name, met in repository.db.read(
                repository.schedules.list_conditions, schedule.name):
            is_seen = is_condition_seen(repository, request.client, kind, name)
            yield fill(AFTER_LINE, {"after": name, "kind": kind, "met": met if is_seen else None})
        if stored.waiting is not None:
            yield fill(DELAYED_LINE, {"waiting": stored.waiting})
        if hold:
            yield fill(HELD_LINE, {"held": hold.since, "by": hold.by, "until": hold.until,
                                   "reason": hold.reason})


@verb("SCHED ADD")
def _sched_add(agent, request):
    if not request["RULE"] and "-AFTER" not in request:
        raise BadRequest("RULE is missing: write one like '%s', or give -AFTER=schedule"
                         % FORMS["daily"])
    fields = {name: request[name.upper()] for name in ("name", "scenario", "version", "context")}
    fields.update(rule=request["RULE"] or "", variables=request.variables)
    agent.changes.add(_schedule(agent, fields, _schedule_changes(request)), request["-REPO"])
    return _name_line(request)


def _name_line(request, rule="RULE"):
    """The OK of a change, with what is to be said of its rule."""
    notes = list_surprises(request[rule] or "")
    return fill(SCHEDULE_SET_LINE, {"schedule": request["NAME"]},
                **{"note": "; ".join(notes)} if notes else {})


def _schedule_changes(request):
    return {schedule_field(key): value
            for key, value in request.items() if key.startswith("-") and key != "-REPO"}


def _schedule(agent, *changes):
    """The Schedule of default fields and what changes them, one after the other."""
    fields = {key: field.default for key, field in SCHEDULE_FIELDS.items()}
    for fields_changed in changes:
        fields.update(fields_changed)
    return make_schedule(dict(fields, agent=fields["agent"] or agent.name))


@verb("SCHED SET")
def _sched_set(agent, request):
    changes = _schedule_changes(request)
    if not changes and not request.variables:
        raise BadRequest("nothing to change: give a field or a variable")

    def changed(schedule):
        return _schedule(agent, schedule.options, schedule._asdict(), changes,
                         {"variables": dict(schedule.variables, **request.variables)})
    agent.changes.set(request["NAME"], request["-REPO"], changed)
    return _name_line(request, "-RULE")


@verb("SCHED DEL")
def _sched_del(agent, request):
    agent.changes.delete(request["NAME"], request["-REPO"])
    return fill(SCHEDULE_NAME_LINE, {"schedule": request["NAME"]})


@verb("SCHED OFF")
@verb("SCHED ON")
def _sched_on_off(agent, request):
    is_on = request.verb == "SCHED ON"
    agent.changes.set(request["NAME"], request["-REPO"],
                      lambda schedule: schedule._replace(enabled=is_on))
    return fill(ENABLED_LINE, {"schedule": request["NAME"], "enabled": is_on})


@verb("SCHED NEXT")
def _sched_next(agent, request):
    _check_period(request, request.get("-FROM", agent.clock.now()), request.get("-TO", math.inf))
    for due, name, repository, note in agent.listing.seen_by(request.client).preview(
            request["NAME"], request["-REPO"], request["-FROM"], request["-TO"],
            request["-COUNT"] or 10, "-ALL" in request):
        yield fill(COMING_LINE, {"schedule": name, "due": due, "note": note},
                   **_origin(agent, repository.id))


def _origin(agent, number):
    """What tells schedules of one name apart, where several repositories are attached."""
    names = {place.attachment.id: place.attachment.name for place in agent.places.list_all()}
    return {"repository": names.get(number)} if len(names) > 1 else {}


def _check_period(request, begin, end):
    """BadRequest for a period in which nothing can lie."""
    if end <= begin:
        raise BadRequest("-TO must lie after -FROM" if "-FROM" in request
                         else "-TO lies in the past")


@verb("SCHED WHY")
def _sched_why(agent, request):
    """A line for each occurrence, and in the OK what stands in the way now."""
    if request.get("-DUE", math.inf) < math.floor(request.get("-SINCE", 0.0)):
        raise BadRequest("-DUE lies before -SINCE")
    client = request.client
    listing = agent.listing.seen_by(client)
    for repository, row in listing.list_occurrences(
            request["NAME"], request["-REPO"], request["-LIMIT"] or 50,
            (request.get("-SINCE", 0.0), request["-DUE"])):
        yield fill(OCCURRENCE_LINE, row, message=explain(row), **_origin(agent, repository.id))
    with contextlib.suppress(NotFound):         # deleted since
        notes = [note for schedule in listing.get(request["NAME"], request["-REPO"])
                 for note in list_state(*schedule, hold=agent.hold, patterns=client.scenarios)]
        return fill(OUTLOOK_LINE, {"note": "; ".join(notes)} if notes else {})


@verb("SCHED PLAN")
def _sched_plan(agent, request):
    """A line for each Visit of the period, 24 hours where none is named; without -ALL only for what
    does not begin."""
    now = agent.clock.now()
    begin = request.get("-FROM", now)
    period = Period(begin, request.get("-TO", begin + DAY), now, agent.queue.slots, agent.hold)
    _check_period(request, begin, period.end)
    troubles = []
    end, visits = agent.listing.seen_by(request.client).plan(period, request["-REPO"], troubles)
    for visit in visits:
        if visit.outcome != STARTS or "-ALL" in request:
            yield visit_fields(visit, **_origin(agent, visit.schedule[0]))
    if troubles:
        raise troubles[0]
    counts = collections.Counter(visit.outcome for visit in visits)
    sums = {outcome: counts[outcome] for outcome in OUTCOMES}
    return fill(PLANNED_LINE, dict(sums, to=end, slots=agent.queue.slots, due=len(visits)),
                **{"from": begin})


def visit_fields(visit, **origin):
    """The line of a due time in a plan."""
    return fill(VISIT_LINE, {
        "schedule": visit.name, "due": visit.due, "begin": visit.begin,
        "end": visit.begin and visit.end,
        "duration": round(visit.duration, 3) if visit.is_known else None,
        "outcome": visit.outcome, "note": "; ".join(visit.notes)}, **origin)


@verb("SCHED UPDATE")
def _sched_update(agent, request):
    return fill(UPDATED_LINE, {"schedules": agent.schedules.update()})


@verb("CALENDAR LIST")
def _calendar_list(agent, request):
    for name, dates in sorted(agent.master.calendars().items()):
        yield fill(CALENDAR_LINE, {"calendar": name, "dates": dates})


@verb("CALENDAR SET")
@verb("CALENDAR ADD")
def _calendar_put(agent, request):
    agent.changes.put_calendar(request["NAME"], request["DATES"], request.verb == "CALENDAR ADD")
    return fill(CALENDAR_NAME_LINE, {"calendar": request["NAME"]})


@verb("CALENDAR DEL")
def _calendar_del(agent, request):
    agent.changes.delete_calendar(request["NAME"])
    return fill(CALENDAR_NAME_LINE, {"calendar": request["NAME"]})
