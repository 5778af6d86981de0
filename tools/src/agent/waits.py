"""What a session waits for: in a word, and in words."""
import time
from typing import NamedTuple

from ..base.vocabulary import (AT_TIME, FOR_CHILDREN, FOR_SLOT, HELD, LIMIT, LOST, OUTSTANDING,
                               RUNNING)
from ..base.patterns import is_any_match
from ..base.times import find_time


class Wait(NamedTuple):
    """What a session waits for, as memory knows it; both empty: nothing that is known."""
    word: str               # time, hold, limit, slot, repository, children, engine
    text: str


NO_WAIT = Wait("", "")
MAX_NAMED = 4           # sessions that a message names


class Waits:
    """Tells what sessions of this agent wait for; of another's it knows the start time alone."""

    def __init__(self, agent):
        self._agent = agent

    def of_row(self, row, patterns=()):
        """The Wait of a row of session; it names no session but of scenarios that one of the
        patterns fits, if there are any."""
        if row["status"] in OUTSTANDING:
            return self._find(row["id"], row["agent"], find_time(row["start_at"]), row["schedule"],
                              patterns)
        session = self._agent.queue.find(row["id"]) if row["status"] == RUNNING else None
        children, on_engine = session and session.children, session and session.engine_wait
        if on_engine:
            return Wait(*on_engine)
        return NO_WAIT if children is None else Wait(FOR_CHILDREN, "waits for " + (
            "%d sessions" % len(children) if len(children) > 1 else
            "what is due next of its plan" if not children else "session %d" % children[0]
            if self._is_seen(children[0], patterns) else "a session that it began"))

    def of_ticket(self, ticket, patterns=()):
        """The Wait of a session that was just acknowledged; as of_row()."""
        return self._find(ticket.session, ticket.agent, ticket.start_at, ticket.schedule,
                          patterns) if ticket.status in OUTSTANDING else NO_WAIT

    def _is_seen(self, number, patterns):
        session = patterns and self._agent.queue.find(number)
        return not patterns or session and is_any_match(patterns, session.ticket.scenario)

    def _has_slot(self, number):
        session = self._agent.queue.find(number)
        return session is None or session.has_slot

    def _find(self, number, owner, start_at, schedule, patterns):
        """The Wait of one that has not begun; of several things that which will take longest, as
        far as that can be told."""
        agent, now = self._agent, self._agent.clock.now()
        if start_at is not None and start_at > now:
            return Wait(AT_TIME, "begins at %s" % tell_clock(start_at, now))
        if owner != agent.name:
            return Wait("", "it is for agent %s to begin it" % owner)
        place = agent.places.find_by_id(number % 1000)
        if place is not None and place.reason:
            return Wait(LOST, place.reason)
        if agent.hold is not None:
            return Wait(HELD, tell_hold(agent.hold, now))
        repository = place and place.repository
        if repository is not None and repository.hold is not None:
            return Wait(HELD, "repository %s is %s" % (repository.name,
                                                       tell_hold(repository.hold, now)))
        entry = schedule and repository and agent.schedules.find(repository, schedule)
        if entry and entry.hold is not None:
            return Wait(HELD, "schedule %s is %s" % (schedule, tell_hold(entry.hold, now)))
        if agent.is_stopping:
            return Wait("", "the agent is stopping: its next start begins it")
        return self._find_obstacle(number, patterns)

    def _find_obstacle(self, number, patterns):
        """The Wait for a place at a limit, or for a slot."""
        sessions = self._agent.queue
        obstacle = sessions.find_obstacle(number)
        if obstacle is None:
            return Wait(*sessions.delays.find(number) or NO_WAIT)
        if obstacle.gate is not None:
            kind, _, name = obstacle.gate
            name = "schedule " + name if kind == "schedule" else name
            return Wait(LIMIT, tell_limit(obstacle.limit, name, [
                key for key in obstacle.keys if self._is_seen(key, patterns)]))
        # those that wait for a child or an engine, have lent their slot
        running = [key for key in obstacle.keys if self._has_slot(key)]
        return Wait(FOR_SLOT, tell_limit(sessions.slots, "the agent", [
            key for key in running if self._is_seen(key, patterns)])) if running else NO_WAIT


def tell_limit(limit, name, numbers):
    """Which sessions fill a limit, in words: `limit 1 of LOAD: session 3001 runs`; of none that
    may be named the limit alone."""
    names = [str(number) for number in sorted(numbers)]
    if not names:
        return "limit %d of %s" % (limit, name)
    if len(names) > MAX_NAMED:
        names[MAX_NAMED - 1:] = ["%d more" % (len(names) - MAX_NAMED + 1)]
    return "limit %d of %s: session%s %s run%s" % (
        limit, name, "" if len(names) == 1 else "s", join_words(names),
        "s" if len(names) == 1 else "")


def join_words(words):
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def tell_hold(hold, now):
    """A Hold in words: `held by ops since 22:00: maintenance`."""
    text = "held by %s since %s" % (hold.by, tell_clock(hold.since, now))
    if hold.until is not None:
        text += " until %s" % tell_clock(hold.until, now)
    return text + (": " + hold.reason if hold.reason else "")


def tell_clock(instant, now):
    """An instant as people say it in the agent's zone: 22:00, and the date where that is another
    than that of now. Seconds are there when there are any."""
    moment, today = time.localtime(instant), time.localtime(now)
    text = time.strftime("%H:%M:%S" if moment.tm_sec else "%H:%M", moment)
    return text if moment[:3] == today[:3] else time.strftime("%Y-%m-%d ", moment) + text
