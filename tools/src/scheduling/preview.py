"""What is told of a schedule: why, what stands in its way, and what comes."""
import heapq
import itertools

from ..base.vocabulary import (ALL_SCHEDULES, ERROR, LATE, LATE_S, MISFIRE, OVERLAP, STARTED,
                               STEP_S, STOPPED)
from ..base.times import from_text, local_iso
from ..timetable.timetable import find_jitter
from ..store.records import SessionFilter

# rule -> when it fires, where no due time can be told
WITHOUT_DUE = {"startup": "fires at each start of the agent",
               "boot": "fires at the agent's first start after the host's next boot"}


def explain(row):
    """An occurrence in the words of a person."""
    count = "1 due time" if row["count"] == 1 else "%d due times" % row["count"]
    reason = {OVERLAP: "one session of it is enough at a time", MISFIRE: "missed",
              "gap": "that local time did not exist", "fold": "that local time came a second time",
              "window": "outside its window"}.get(row["reason"], "")
    text = ": ".join(part for part in (reason, row["message"]) if part) or row["reason"]
    if row["schedule"] == ALL_SCHEDULES:
        return row["message"]
    if row["decision"] in (STARTED, LATE):
        begun = "session %d" % row["session"]
        if row["decision"] == LATE:
            late_s = (row["begun"]
                      and from_text(row["begun"]) - from_text(row["start_at"] or row["due"]))
            # neither purged nor run again
            is_known = late_s and late_s > LATE_S and row["attempt"] == 1
            begun += " began %.0f s late" % late_s if is_known else " began late"
            text = text or "it had waited for a free slot, a limit or the one before it"
        state = row["status"] and "it is %s" % row["status"]
        if row["outcome"] and row["status"] in (ERROR, STOPPED):
            state += " (%s)" % row["outcome"]
        return ", ".join(part for part in (begun, text, state) if part)
    return "%s %s: %s" % (count, row["decision"], text)


def list_state(repository, stored, due, hold, patterns=()):
    """What stands in the way of a schedule now, and when it is due next; `hold` is that of the
    agent. Sessions are told whose scenarios one of the patterns fits, if there are any."""
    schedule = stored.schedule
    notes = [] if schedule.enabled else ["disabled"]
    notes += ["%s; what comes due is decided at the release" % held
              for held in list_holds(hold, stored.hold, repository.hold)]
    conditions = repository.db.read(repository.schedules.list_conditions, schedule.name)
    for kind, name, met in conditions:
        if not met:
            newest = repository.db.read(repository.views.list_sessions,
                                        SessionFilter(patterns=patterns, **{kind: name}),
                                        1 << 62, 1)
            notes.append("waits for %s %s%s" % (kind, name, "".join(
                ", whose newest session %d is %s" % (last["id"], last["status"])
                for last in newest)))
    if due:
        notes.append("next due %s" % local_iso(due))
    elif schedule.enabled and not conditions:
        notes.append(WITHOUT_DUE.get(schedule.rule.strip().lower(), "no due time lies ahead"))
    return notes


def list_earliest(streams, count, key):
    """The first `count` items of many ordered streams, in order;
    keeps no more streams than that."""
    heads = ((next(stream, None), stream) for stream in streams)
    earliest = heapq.nsmallest(count, (head for head in heads if head[0] is not None),
                               key=lambda head: key(head[0]))
    streams = (itertools.chain([first], rest) for first, rest in earliest)
    return itertools.islice(heapq.merge(*streams, key=key), count)


def list_coming(timetable, begin, end, with_excluded, words):
    """Yields (due, *words, the due time before, None, timetable) of the due times after `begin`,
    for ever or up to `end`; for what is excluded (reason, text) stands in place of None."""
    def list_excluded(after, until):
        for instant, *excluded in timetable.iter_excluded(after, until) if with_excluded else ():
            yield (instant,) + words + (after, tuple(excluded), timetable)
    before, due = int(begin // 1), timetable.next_after(int(begin // 1))
    while due is not None and (end is None or due <= end):
        yield from list_excluded(before, due - 1)
        yield (due,) + words + (before, None, timetable)
        before, due = due, timetable.next_after(due)
    if end is not None:
        yield from list_excluded(before, int(end // 1))


def list_notes(schedule, timetable, due, before):
    """What is to be said of a due time, and of those since the one `before` it."""
    notes = [] if schedule.enabled else ["disabled"]
    notes += timetable.notes(due)
    if timetable.next_excluded(before, due) is not None:
        notes += ["%d excluded before (%s)" % (count, text)
                  for _, _, count, _, text in timetable.excluded_spans(before, due - 1)]
    if schedule.get("after"):
        notes.append("waits for %s" % schedule.get("after"))
    if schedule.get("jitter"):
        late = find_jitter(schedule.name, due, schedule.get("jitter"), timetable)
        notes.append("jitter %d s: runs at %s" % (late, local_iso(due + late)))
    return notes


def list_ahead(decided, now):
    """What is to be said when due times are decided that have not come yet."""
    return [] if decided <= now + STEP_S else [
        "the clock was ahead: nothing is due before %s; SCHED OFF and SCHED ON begin anew"
        % local_iso(decided)]


NEVER_RELEASED = float("inf")


def find_release(*holds):
    """(when the last of these holds ends, NEVER_RELEASED if it does not, and its words);
    0 without any."""
    release, hold = max(((hold.until or NEVER_RELEASED, hold) for hold in holds if hold),
                        key=lambda pair: pair[0], default=(0.0, None))
    return release, hold and "held since %s%s%s" % (
        local_iso(hold.since), " until %s" % local_iso(release) if hold.until else "",
        hold.reason and ": " + hold.reason)


def list_holds(*holds):
    """[The words of find_release], or none."""
    return list(filter(None, find_release(*holds)[1:]))
