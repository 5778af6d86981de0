"""Schedules without threads, the clock in the test's hand: one Entry, or a Site, which is the schedules of an agent
with real repositories; and a Reference that looks at every second."""
import bisect
import collections
import itertools
import sqlite3
from contextlib import closing

import agent
from agent import (DONE, DOWN, Entry, Hold, Missed, Schedule, StoredSchedule, find_jitter, from_text, make_timetable,
                   to_text)
from support.clock import NOON, FakeClock

HOUR, DAY = 3600, 86400
Owner = collections.namedtuple("Owner", "id hold")
HELD = Hold("", "me", NOON, None)


def brief(span):
    """A due time that is to run, or (first, last, count, reason) of those that are not; seconds after noon."""
    if not span.reason:
        assert (span.first, span.count) == (span.last, 1)
        return span.first - NOON
    return span.first - NOON, span.last - NOON, span.count, span.reason


def make_entry(rule, decided=0, since=0, why=DOWN, misfire="once", grace=None, jitter=0, name="S", revision=1,
               hold=None, repository=1, zone="UTC", **options):
    """An Entry; times in seconds after noon, options of the window by keyword (from_ for from)."""
    options = {key.rstrip("_"): value for key, value in options.items()}
    timetable = make_timetable(rule, zone, options) if rule is not None else None
    policy = {"misfire": misfire, "grace": grace, "jitter": jitter}
    schedule = Schedule(name, "AGENT", "J", "-1", "GLOBAL", rule or "", zone, True, {}, policy)
    stored = StoredSchedule(schedule, revision, NOON + decided, None, hold, timetable)
    return Entry(Owner(repository, None), stored, Missed(NOON + since, *why))


def late(due, jitter, name="S"):
    return find_jitter(name, NOON + due, jitter)


def find_late(low, high, jitter=600, step=1000):
    """A due time (a multiple of `step`) of S whose jitter lies in low..high."""
    return next(due for due in range(step - NOON % step, 10 ** 6, step) if low <= late(due, jitter) <= high)


class Reference:
    """Every second of some hours after noon, and what a slow and simple judge would make of it."""

    def __init__(self, rng, length=4000):
        self.step = rng.choice((1, 7, 10, 60, 61, 300))
        self.rule, self.options, checks = "every %ds" % self.step, {}, []
        if rng.random() < 0.4:
            low, high = sorted(rng.sample(range(0, 60), 2))
            inside = rng.random() < 0.5     # over midnight when not
            self.options["hours"] = "12:%02d-12:%02d" % ((low, high) if inside else (high, low))
            checks.append(lambda s: (low * 60 <= s <= high * 60) if inside else (s >= high * 60 or s <= low * 60))
        if rng.random() < 0.3:
            begin = rng.randrange(0, 2000)
            self.options["from_"] = to_text(NOON + begin)[:19]
            checks.append(lambda s: s >= begin)
        self.first = begin if "from_" in self.options else 0
        if rng.random() < 0.3:
            end = self.first + rng.randrange(1, 3000)
            self.options["to"] = to_text(NOON + end)[:19]
            checks.append(lambda s: s <= end)
        self.last = end if "to" in self.options else length
        anchor = self.first if "from_" in self.options else -NOON
        bare = [s for s in range(-100, length + 1) if (s - anchor) % self.step == 0]
        self.due = [s for s in bare if all(check(s) for check in checks)]
        self.excluded = sorted(set(bare).difference(self.due).difference(range(self.last + 1, length + 1)))

    def judge(self, decided, since, now, misfire, grace, jitter):
        """(upto, spans) as judged() gives them."""
        def plan(due):
            following = next((s for s in self.due if s > due), due + jitter + 1)
            return due + late(due, min(jitter, following - due - 1))
        due = [s for s in self.due if s > decided]
        missed = list(itertools.takewhile(lambda s: plan(s) <= min(since, now), due))
        runs, spans, cursor = [], [], int(decided // 1)
        if missed and misfire == "once" and (grace is None or now - plan(missed[-1]) <= grace):
            runs = missed[-1:]
        if missed and misfire == "all":
            runs = [s for s in missed if now - s <= (DAY if grace is None else grace) + jitter][-100:]
        skipped = missed[:missed.index(runs[0])] if runs else missed
        if skipped:
            spans.append((skipped[0], skipped[-1], len(skipped), "misfire"))
        if missed:
            spans += self.list_excluded(cursor, missed[-1])
            cursor = missed[-1]
        spans = sorted(spans + runs, key=lambda span: span if isinstance(span, int) else span[0])
        coming = collections.deque(s for s in due if s > cursor)
        while coming and plan(coming[0]) <= now:
            spans += self.list_excluded(cursor, coming[0]) + [coming[0]]
            cursor = coming.popleft()
        until = min(list(coming)[:1] + [int(now // 1) + 1])
        excluded = self.list_excluded(cursor, until)
        return excluded[-1][1] if excluded else cursor, spans + excluded

    def list_excluded(self, after, before):
        """What is excluded in between; that is told as one, whatever is due in between."""
        found = self.excluded[bisect.bisect_right(self.excluded, after):bisect.bisect_left(self.excluded, before)]
        return [(found[0], found[-1], len(found), "window")] if found else []


# -- what a repository decides ---------------------------------------------------------

def text(seconds):
    """Seconds after noon -> time of the tables."""
    return to_text(NOON + seconds)


def make_scenario(name="J", version="1", **fields):
    task = {"type": "os", "command": "true"}
    return dict({"name": name, "version": version, "variables": {"day": "x", "n": "1"},
                 "steps": [{"name": "a", "tasks": [task]}]}, **fields)


# -- both together: Schedules, with repositories and without threads of its own --------

class Direct:
    """An Inbox whose things are done at once: a Site has no threads of its own."""

    @staticmethod
    def put(function, pending):
        function(pending)


class Site:
    """The schedules of an agent, its repositories real, over starts and crashes. Nothing runs by itself: sessions end
    when the test says so, time goes on when it does. Times are seconds after noon."""
    inbox = Direct()

    def __init__(self, folder):
        self.clock, self.hold, self.is_running = FakeClock(), False, False
        self.path = str(folder / "master.db")
        agent.make_repositories(self.path, agent.Clock())
        self.tickets, self.replaced = [], []
        self.start()

    def start(self):
        """A start of the agent."""
        self.master = agent.Master(self.path, agent.Clock()).open()
        self.queue = self.make_queue()
        clock = agent.Clock()
        self.places = agent.Places(self.master, agent.Care(
            lambda attachment: agent.open_work(attachment, clock, self.inbox, True),
            lambda place: self.schedules.load(place), lambda repository: self.schedules.forget(repository), None, 60.0,
            clock))
        self.schedules = agent.Schedules("AGENT", self.places, self.master, self.clock, self.queue, lambda: self.hold,
                                         lambda repository, made: self.take(made))
        self.changes = agent.ScheduleChanges(self.schedules, self.places, self.master, self.clock)
        self.listing = agent.ScheduleListing(self.schedules, self.places, self.clock)
        self.scheduler = self.schedules.scheduler
        self.scheduler.hold(self.hold)
        self.is_running = True
        self.attach()

    def take(self, made):
        """What a due time has made."""
        self.replaced.extend([ending.session for ending in made.endings] + list(made.replaced))
        if made.ticket is not None:
            self.tickets.extend(made.ticket.ending.tickets if made.ticket.ending else [made.ticket])

    def make_queue(self):
        """Nothing begins there."""
        queue = agent.SessionQueue(4, None, lambda: False, self.clock)
        queue.hold(True)
        return queue

    def attach(self):
        place, = self.places.list_all()
        place.attach()
        self.repository = place.repository
        self.tick()

    def detach(self):
        """The repository is lost, as with its disk; attach() brings it back."""
        place, = self.places.list_all()
        place.let_go("gone")

    def stop(self, within_s=10.0):
        """What was decided is written, or with 0 is not, where another program holds the file's lock."""
        if self.is_running:
            self.is_running = False
            self.scheduler.stop()
            self.queue.join()
            self.repository.db.close(within_s)
            self.master.db.close()

    def settle(self):
        """Waits until all is written that was handed over."""
        self.repository.db.write(lambda connection: None)

    def tick(self):
        """Decides what is due, and what comes up by that."""
        left = 0
        while True:
            before, left = left, self.scheduler.tick()
            self.settle()
            if left == before and left != 0:
                return left

    def at(self, seconds):
        self.clock.move(NOON + seconds - self.clock.time)
        return self.tick()

    def add(self, name="S", rule="every 10s", enabled=True, **options):
        options = {key.rstrip("_"): value for key, value in options.items()}
        self.changes.add(Schedule(name, "AGENT", "HELLO", "-1", "GLOBAL", rule, "UTC", enabled, {}, options), None)
        self.settle()

    def set(self, name="S", **changes):
        own = {key: value for key, value in changes.items() if key in Schedule._fields}
        options = {key.rstrip("_"): value for key, value in changes.items() if key not in own}
        self.changes.set(name, None, lambda schedule: schedule._replace(
            options=dict(schedule.options, **options), **own))
        self.settle()

    def hold_agent(self, is_held):
        self.hold = is_held
        self.scheduler.hold(is_held)
        if not is_held:
            self.schedules.released()
        self.settle()

    def hold_one(self, is_held, name="S", until=None):
        self.changes.hold(name, Hold("", "me", self.clock.time, until and NOON + until) if is_held else None)
        self.settle()

    def end(self, session, status=DONE):
        """A session runs, in no time."""
        def work(connection):
            self.repository.sessions.begin(connection, session, "me", False, self.clock.time)
            return self.repository.endings.end(connection, session, status, "", self.clock.time)
        ending = self.repository.db.write(work)
        self.tickets.extend(ending.tickets)
        if ending.is_awaited:
            self.schedules.decide_after(self.repository)
        self.settle()

    def outstanding(self, name=None):
        """The sessions that have not begun."""
        with self.repository.db.reading() as connection:
            numbers = self.repository.sessions.list_outstanding(connection, "AGENT")
            return [ticket.session for ticket in self.repository.sessions.list_tickets(connection, numbers)
                    if name in (None, ticket.schedule)]

    def of(self, name="S", is_brief=True):
        """Occurrences, oldest first, as brief() has them: (reason told in words of decision when there is none)."""
        rows = [row for row in reversed(self.repository.db.read(self.repository.ledger.list_occurrences, name, 10000)) if row["schedule"] == name]
        if not is_brief:
            return rows
        return [from_text(row["due"]) - NOON if row["session"] else (
            from_text(row["due"]) - NOON, from_text(row["last_due"]) - NOON, row["count"],
            row["reason"] or row["decision"]) for row in rows]

    def row(self, name="S"):
        with self.repository.db.reading() as connection:
            return self.repository.schedules.get(connection, name)

    def sql(self, *statements):
        with closing(sqlite3.connect(self.repository.path, timeout=30, isolation_level=None)) as other:
            for statement in statements:
                other.execute(statement)

    def lock(self):
        """Another program holds the lock of the file until the connection is closed."""
        other = sqlite3.connect(self.repository.path, timeout=30, isolation_level=None)
        other.execute("begin immediate")
        return closing(other)

    @property
    def event_count(self):
        return len(self.scheduler._events.queue)
