"""Section 12 without a thread, the clock in the test's hand: holds, steps of the clock, events."""
import collections
import random

import pytest

import agent
from agent import DOWN, EXCLUDED_S, Scheduler, Span
from support.clock import FakeClock
from support.site import DAY, HELD, HOUR, NOON, Reference, brief, find_late, late, make_entry


# -- the scheduler ---------------------------------------------------------------------

class Decisions:
    """A Scheduler and what it decided: [(name, brief)], each written down at once."""

    def __init__(self, is_prompt=True):
        self.clock, self.made, self.steps, self.is_prompt = FakeClock(), [], [], is_prompt
        self.scheduler = Scheduler(self.clock, self._decide, self.steps.append)

    def _decide(self, entry, upto, spans):
        self.made += [(entry.name, brief(span)) for span in spans]
        if self.is_prompt:
            self.scheduler.decided(entry, upto)

    def put(self, rule, name="S", **keywords):
        """Puts an Entry in, loaded now; times in seconds after noon."""
        keywords.setdefault("decided", self.clock.time - NOON)
        keywords.setdefault("since", self.clock.time - NOON)
        entry = make_entry(rule, name=name, **keywords)
        self.scheduler.put(entry)
        return entry

    def at(self, seconds):
        """Moves the clock to so many seconds after noon -> (what was decided, what tick said)."""
        self.clock.move(NOON + seconds - self.clock.time)
        return self.tick()

    def tick(self):
        before = len(self.made)
        left = self.scheduler.tick()
        return self.made[before:], left

    def of(self, name="S"):
        return [made for who, made in self.made if who == name]

    @property
    def event_count(self):
        return len(self.scheduler._events)


@pytest.fixture
def decisions():
    return Decisions()


def test_nothing_known_nothing_to_wait_for(decisions):
    assert decisions.scheduler.tick() is None


def test_tick_gives_the_seconds_until_the_next(decisions):
    decisions.put("every 90s")
    assert decisions.at(0) == ([], 90)
    assert decisions.at(60.5) == ([], 29.5)
    assert decisions.at(89.999)[0] == []
    assert decisions.at(90) == ([("S", 90)], 90)
    assert decisions.at(180.25) == ([("S", 180)], 89.75)


def test_each_due_time_once(decisions):
    decisions.put("every 1s")
    for tenth in range(0, 100):
        decisions.at(tenth / 10)
    assert decisions.of() == list(range(1, 10))


def test_many_schedules_in_the_order_of_their_due_times(decisions):
    for name, rule in (("C", "daily at 12:00:03"), ("A", "daily at 12:00:01"), ("B", "every 2s")):
        decisions.put(rule, name)
    assert decisions.at(0)[1] == 1
    for second in (1, 2, 3, 4):
        decisions.at(second)
    assert decisions.made == [("A", 1), ("B", 2), ("C", 3), ("B", 4)]


def test_many_due_at_once_are_all_decided_in_one_tick(decisions):
    for number in range(200):
        decisions.put("daily at 12:00:05", "S%03d" % number)
    made, left = decisions.at(5)
    assert sorted(name for name, _ in made) == ["S%03d" % n for n in range(200)]
    assert left == 86400


def test_same_name_in_two_repositories_are_two(decisions):
    one, two = decisions.put("every 1s", repository=1), decisions.put("every 1s", repository=2)
    assert one.key != two.key and len(decisions.at(1)[0]) == 2
    assert decisions.scheduler.list_entries(1) == [one]
    decisions.scheduler.remove(one.key)
    assert len(decisions.at(2)[0]) == 1 and decisions.scheduler.find(one.key) is None


def test_one_event_a_schedule(decisions):
    """However far time goes, no schedule piles up events, and none is decided twice."""
    decisions.put("every 1s")
    assert decisions.event_count == 1
    for second in (1, 5, 5, 5, 60):
        decisions.at(second)
        assert decisions.event_count == 1
    assert decisions.of() == list(range(1, 61))


def test_a_late_tick_merges_nothing(decisions):
    """As after SIGSTOP, or on a machine that is slow: the agent was there, each due time is decided."""
    decisions.put("every 1s")
    decisions.at(2000)
    assert decisions.of() == list(range(1, 2001)) and decisions.event_count == 1


def test_missed_at_the_start(decisions):
    decisions.put("every 10s", decided=-95)
    made, left = decisions.at(3)
    assert made == [("S", (-90, -10, 9, "misfire")), ("S", 0)] and left == 7


def test_missed_at_the_start_and_due_before_the_first_tick(decisions):
    decisions.put("every 10s", decided=-15)
    assert decisions.at(25)[0] == [("S", (-10, -10, 1, "misfire")), ("S", 0), ("S", 10), ("S", 20)]


def test_an_at_of_the_past_that_is_decided_never_comes_up(decisions):
    decisions.put("at 2026-06-01 11:00")
    assert decisions.at(100) == ([], None)


def test_an_at_missed_while_down_comes_up_once(decisions):
    decisions.put("at 2026-06-01 11:00", decided=-7200)
    assert decisions.at(0) == ([("S", -3600)], None)
    assert decisions.at(100000)[0] == []


def test_startup_never_comes_up_by_time(decisions):
    decisions.put("startup", decided=-7200)
    assert decisions.at(100000) == ([], None)


def test_a_change_is_recognised_when_the_event_comes_up(decisions):
    decisions.put("every 10s")
    decisions.put("every 15s", revision=2)
    for second in (10, 15, 20, 30):
        decisions.at(second)
    assert decisions.of() == [15, 30]


def test_a_change_to_the_same_due_time_fires_once(decisions):
    decisions.put("every 10s")
    decisions.put("daily at 12:00:10", revision=2)
    assert len(decisions.at(10)[0]) == 1


def test_removed_and_without_timetable_fire_no_more(decisions):
    entry = decisions.put("every 10s")
    decisions.scheduler.remove(entry.key)
    off = decisions.put(None, "OFF")
    assert decisions.at(100) == ([], None) and off.due is None
    assert decisions.scheduler.list_entries(1) == [off]
    decisions.scheduler.remove((1, "NO_SUCH"))


def test_removed_and_put_in_again(decisions):
    entry = decisions.put("every 10s")
    decisions.scheduler.remove(entry.key)
    decisions.put("every 10s", revision=2)
    assert len(decisions.at(10)[0]) == 1


def test_the_next_is_armed_only_when_the_last_is_written():
    decisions = Decisions(is_prompt=False)
    entry = decisions.put("every 10s")
    assert decisions.at(10)[0] == [("S", 10)]
    assert decisions.at(40)[0] == []
    decisions.scheduler.decided(entry, NOON + 10)
    assert decisions.at(41)[0] == [("S", 20), ("S", 30), ("S", 40)]


def test_what_came_due_while_a_slow_repository_was_waited_for_was_missed():
    decisions = Decisions(is_prompt=False)
    entry = decisions.put("every 10s")
    decisions.at(10)
    decisions.at(45)
    decisions.scheduler.decided(entry, NOON + 10, was_slow=True)
    assert decisions.at(55)[0] == [("S", (20, 30, 2, "repository")), ("S", 40), ("S", 50)]
    decisions.scheduler.decided(entry, NOON + 50)
    assert decisions.at(65)[0] == [("S", 60)]


def test_what_was_decided_for_an_entry_since_replaced_arms_nothing():
    decisions = Decisions(is_prompt=False)
    old = decisions.put("every 10s")
    decisions.at(10)
    decisions.put("every 30s", revision=2)
    decisions.scheduler.decided(old, NOON + 10)
    assert decisions.at(20)[0] + decisions.at(30)[0] == [("S", 30)]


def test_held_nothing_is_decided_and_the_release_decides_the_rest_once(decisions):
    decisions.put("every 10s")
    decisions.put("every 1h", "LATER")
    decisions.scheduler.hold(True)
    for second in (10, 20, 35):
        assert decisions.at(second)[0] == []
    decisions.scheduler.hold(False)
    assert decisions.at(45)[0] == [("S", (10, 20, 2, "hold")), ("S", 30), ("S", 40)]
    assert decisions.at(50)[0] == [("S", 50)]
    decisions.at(3600)
    assert decisions.of("LATER") == [3600]


@pytest.mark.parametrize("misfire, made", [
    ("skip", [(10, 30, 3, "hold"), 40]), ("all", [10, 20, 30, 40]), ("once", [(10, 20, 2, "hold"), 30, 40])])
def test_a_release_follows_misfire(decisions, misfire, made):
    decisions.put("every 10s", misfire=misfire)
    decisions.scheduler.hold(True)
    decisions.at(35)
    decisions.scheduler.hold(False)
    decisions.at(40)
    assert decisions.of() == made


def test_a_release_of_what_was_not_held_says_nothing(decisions):
    decisions.put("every 10s", misfire="skip")
    decisions.clock.move(25)
    decisions.scheduler.hold(False)
    decisions.tick()
    assert decisions.of() == [10, 20]


def test_held_and_released_before_anything_is_due(decisions):
    decisions.put("every 10s")
    decisions.scheduler.hold(True)
    decisions.scheduler.hold(False)
    assert decisions.at(10)[0] == [("S", 10)] and decisions.event_count == 1


def test_held_twice_and_released_twice(decisions):
    decisions.put("every 10s")
    for is_held in (True, True, False, False):
        decisions.scheduler.hold(is_held)
        decisions.at(decisions.clock.time - NOON + 10)
    assert decisions.of() == [(10, 10, 1, "hold"), 20, 30, 40] and decisions.event_count == 1


def test_what_was_missed_before_a_hold_is_told_as_held(decisions):
    decisions.put("every 10s", decided=-35)
    decisions.scheduler.hold(True)
    decisions.at(25)
    decisions.scheduler.hold(False)
    assert decisions.at(26)[0] == [("S", (-30, 10, 5, "hold")), ("S", 20)]


def test_a_release_while_a_decision_is_written(decisions):
    """It is not asked for again before that."""
    decisions.is_prompt = False
    entry = decisions.put("every 10s")
    decisions.at(10)
    decisions.scheduler.hold(True)
    decisions.at(35)
    decisions.scheduler.hold(False)
    assert decisions.at(36)[0] == [] and decisions.event_count == 0
    decisions.scheduler.decided(entry, NOON + 10)
    decisions.is_prompt = True
    decisions.at(40)
    assert decisions.of() == [10, (20, 20, 1, "hold"), 30, 40] and decisions.event_count == 1


def test_the_hold_of_one_schedule_leaves_the_others(decisions):
    held = decisions.put("every 10s", hold=HELD)
    decisions.put("every 10s", "OTHER")
    for second in (10, 20):
        assert [name for name, _ in decisions.at(second)[0]] == ["OTHER"]
    decisions.put("every 10s", decided=held.decided - NOON, why=agent.ON_HOLD)      # its release
    decisions.at(30)
    assert decisions.of() == [(10, 10, 1, "hold"), 20, 30] and decisions.of("OTHER") == [10, 20, 30]


def test_the_release_of_the_agent_leaves_the_hold_of_a_schedule(decisions):
    decisions.put("every 10s", hold=HELD)
    decisions.scheduler.hold(True)
    decisions.at(10)
    decisions.scheduler.hold(False)
    assert decisions.at(20)[0] == []


# -- steps of the clock

def test_a_clock_set_back_fires_nothing_again(decisions):
    decisions.put("every 10s")
    for second in (10, 20):
        decisions.at(second)
    decisions.clock.step(-121)
    made, left = decisions.at(-100)
    assert made == [] and left == 130 and decisions.steps == [-121]
    assert decisions.at(15)[0] == [] and decisions.at(29)[0] == []
    assert decisions.at(30)[0] == [("S", 30)] and len(decisions.steps) == 1


def test_a_clock_set_forward_counts_as_downtime(decisions):
    decisions.put("every 10s")
    decisions.at(1)
    decisions.clock.step(86400)
    assert decisions.at(86402)[0] == [("S", (10, 86390, 8639, "misfire")), ("S", 86400)]
    assert decisions.steps == [86400]
    assert decisions.at(86425)[0] == [("S", 86410), ("S", 86420)]


def test_the_words_of_a_step(decisions):
    entry, told = decisions.put("every 10s"), []
    decisions.tick()
    decisions.scheduler._decide = lambda entry, upto, spans: told.extend(spans)
    decisions.clock.step(60.25)
    decisions.tick()
    assert told[0] == Span(NOON + 10, NOON + 50, 5, "misfire", "the clock stepped forward by 60.2 s")
    assert entry.due is None


@pytest.mark.parametrize("step, is_noticed", [(0.49, False), (0.51, True), (-0.49, False), (-0.51, True)])
def test_how_small_a_step_is_noticed(decisions, step, is_noticed):
    decisions.tick()
    decisions.clock.step(step)
    decisions.at(decisions.clock.time - NOON + 1)
    assert [round(seconds, 6) for seconds in decisions.steps] == [step] * is_noticed


def test_a_clock_that_is_slewed_has_not_stepped(decisions):
    decisions.put("every 1s")
    for _ in range(100):
        decisions.clock.step(0.4)
        decisions.at(decisions.clock.time - NOON + 1)
    assert decisions.steps == [] and decisions.of() == list(range(1, 141))


def test_a_step_between_two_ticks_is_told_once(decisions):
    for step in (5, -5, 7200):
        decisions.tick()
        decisions.clock.step(step)
        for _ in range(3):
            decisions.at(decisions.clock.time - NOON + 1)
    assert decisions.steps == [5, -5, 7200]


def test_readings_that_were_interrupted_say_nothing(decisions):
    """A pause of the process between the reading of the two clocks is no step of one."""
    decisions.put("every 10s")
    decisions.tick()
    clock, now = decisions.clock, decisions.clock.now
    pauses = iter([30.0])

    def slow():
        value = now()
        clock.move(next(pauses, 0.0))
        return value
    clock.now = slow
    decisions.tick()
    clock.now = now
    decisions.at(45)
    assert decisions.steps == [] and decisions.of() == [10, 20, 30, 40]


def test_after_a_step_back_a_new_schedule_is_not_judged_as_missed(decisions):
    decisions.put("every 10s", "OLD")
    decisions.scheduler.hold(True)
    decisions.at(100)
    decisions.scheduler.hold(False)         # up to here all was missed
    decisions.at(100)
    decisions.clock.step(-50)
    decisions.put("every 10s", "NEW", misfire="skip")
    decisions.tick()
    decisions.at(95)
    assert decisions.of("NEW") == [60, 70, 80, 90]
    assert decisions.of("OLD") == [(10, 90, 9, "hold"), 100]
    decisions.at(110)
    assert decisions.of("OLD")[2:] == [110] and decisions.of("NEW")[4:] == [100, 110]


def test_after_a_step_back_what_was_loaded_before_it_is_not_judged_as_missed(decisions):
    decisions.at(100)
    decisions.put("every 10s", decided=0, misfire="skip")
    decisions.clock.step(-50)
    assert decisions.tick()[0] == [("S", (10, 50, 5, "misfire"))]
    decisions.at(75)
    assert decisions.of() == [(10, 50, 5, "misfire"), 60, 70]


def test_after_a_step_back_what_its_jitter_delays_is_not_judged_as_missed(decisions):
    """The clock is set to before its due time."""
    due = find_late(300, 500)
    decisions.at(due + 10)
    decisions.put("every 1000s", decided=due - 1, misfire="skip", jitter=600)
    decisions.tick()
    decisions.clock.step(-50)
    decisions.tick()
    decisions.at(due + late(due, 600))
    assert decisions.of() == [due]


def test_a_step_forward_while_held(decisions):
    decisions.put("every 10s")
    decisions.scheduler.hold(True)
    decisions.tick()
    decisions.clock.step(100)
    assert decisions.at(105)[0] == []
    decisions.scheduler.hold(False)
    assert decisions.at(115)[0] == [("S", (10, 90, 9, "hold")), ("S", 100), ("S", 110)]


def test_a_step_forward_over_a_jitter_still_to_come():
    decisions = Decisions()
    due = find_late(300, 500)
    planned = due + late(due, 600)
    decisions.put("every 1000s", decided=due - 1, since=due - 1, jitter=600)
    decisions.at(due + 1)
    decisions.clock.step(100)
    decisions.at(due + 102)
    assert decisions.of() == []
    decisions.at(planned)
    assert decisions.of() == [due]


# -- what the window excludes

def test_what_is_excluded_is_recorded_once_a_minute(decisions):
    decisions.put("every 1s", hours="13:00-14:00")
    for second in range(0, 201):
        decisions.at(second)
    spans = decisions.of()
    assert spans == [(1, 1, 1, "window"), (2, 61, 60, "window"), (62, 121, 60, "window"), (122, 181, 60, "window")]
    decisions.at(3601)
    assert decisions.of()[4:] == [(182, 3599, 3418, "window"), 3600, 3601]


def test_what_is_excluded_is_recorded_with_the_next_due_time(decisions):
    decisions.put("every 10s", hours="12:01-14:00")
    for second in range(0, 75):
        decisions.at(second)
    assert decisions.of() == [(10, 10, 1, "window"), (20, 50, 4, "window"), 60, 70]


def test_what_is_excluded_last_is_recorded_too(decisions):
    decisions.put("daily at 12:00", exclude_weekdays="wed,thu", to="2026-06-04")
    for day in (1, 2, 3, 4, 5, 50):
        decisions.at(day * DAY)
    assert decisions.of() == [1 * DAY, (2 * DAY, 2 * DAY, 1, "window"), (3 * DAY, 3 * DAY, 1, "window")]
    assert decisions.event_count == 0


def test_many_excluded_after_another_cost_no_event_each(decisions):
    decisions.put("every 1s", hours="13:00-14:00")
    assert [decisions.at(second)[1] for second in (0, 1, 2, 60)] == [1, 60, 59, 1]


# -- events

def test_replaced_entries_leave_no_events_behind(decisions):
    called = []
    decisions.put("every 1d", "OTHER")
    decisions.scheduler.call_at(NOON + 50, lambda: called.append(1))
    for revision in range(5000):
        decisions.put("every 1h", revision=revision)
        if revision % 100 == 0:
            decisions.tick()
            assert decisions.event_count < 1300
    assert decisions.at(60)[0] == [] and called == [1]
    assert decisions.at(DAY / 2)[0][-1] == ("OTHER", DAY / 2)
    assert decisions.of() == [hour * HOUR for hour in range(1, 13)] and decisions.event_count == 2


def test_removed_and_held_entries_leave_no_events_behind(decisions):
    for number in range(3000):
        entry = decisions.put("every 1h", "S%d" % (number % 7), revision=number, hold=HELD if number % 2 else None)
        if number % 3 == 0:
            decisions.scheduler.remove(entry.key)
        decisions.tick()
        assert decisions.event_count < 1300
    for _ in range(3000):
        decisions.scheduler.hold(True)
        decisions.scheduler.hold(False)
    assert decisions.event_count < 1300


def test_what_is_decided_ahead_of_its_event_leaves_none_behind(decisions):
    entry = decisions.put("every 1h")
    for number in range(3000):
        assert decisions.scheduler.decide_now(entry.key) == NOON
        decisions.put("every 1h")
        if number % 100 == 0:
            decisions.tick()
            assert decisions.event_count < 1300
    decisions.clock.move(HOUR)
    assert decisions.scheduler.decide_now(entry.key) == NOON + HOUR and decisions.of() == [HOUR]
    decisions.at(2 * HOUR)
    assert decisions.of() == [HOUR, 2 * HOUR] and decisions.event_count == 1
    assert decisions.scheduler.decide_now((1, "NO_SUCH")) is None
    decisions.scheduler.hold(True)
    decisions.clock.move(HOUR)
    assert decisions.scheduler.decide_now(entry.key) is None and len(decisions.of()) == 2


def test_call_at(decisions):
    called = []
    decisions.scheduler.call_at(NOON + 5, lambda: called.append(5))
    decisions.scheduler.call_at(NOON + 3, lambda: called.append(3))
    assert decisions.at(0)[1] == 3
    decisions.at(4)
    assert called == [3]
    decisions.at(60)
    assert called == [3, 5]


def test_calls_that_nobody_wants_any_more_are_forgotten(decisions):
    called, wanted = [], set(range(0, 5000, 10))
    for number in range(5000):
        decisions.scheduler.call_at(NOON + 50 + number, lambda number=number: called.append(number),
                                    lambda number=number: number in wanted)
        if number % 100 == 99:
            decisions.tick()
            assert decisions.event_count < 1101 + 2 * number / 10
    assert decisions.at(10000)[1] is None and set(called) >= wanted
    for number in range(3000):
        decisions.scheduler.call_at(NOON + 20000, lambda: called.append(-1), lambda: False)
        decisions.tick()
    assert decisions.event_count <= 2001
    decisions.at(30000)
    assert decisions.event_count == 0


def test_one_that_fails_costs_the_others_nothing():
    clock, made = FakeClock(), []

    def decide(entry, upto, spans):
        if entry.name == "BAD":
            raise RuntimeError("no")
        made.append(upto)
    scheduler = Scheduler(clock, decide)
    for name in ("BAD", "GOOD"):
        scheduler.put(make_entry("every 10s", name=name))
    clock.move(10)
    for _ in range(2):
        try:
            scheduler.tick()
        except RuntimeError:
            pass
    assert made == [NOON + 10]


def test_stopped_nothing_more_is_decided(decisions):
    decisions.put("every 10s")
    decisions.scheduler.stop()
    assert decisions.at(100)[0] == []
    decisions.scheduler.run()           # returns at once


class Story:
    """A schedule through holds, changes, steps of the clock, slow writing, crashes and starts, at random.

    What stands in for the repository keeps what a real one does: up to where all is decided, and rows.
    """

    def __init__(self, rng):
        self.rng, self.clock, self.reference = rng, FakeClock(), Reference(rng)
        self.decided, self.rows, self.pending = 0, [], []
        self.is_held, self.hold, self.revision, self.is_slow = False, None, 1, False
        self.policy = "once", None, rng.choice((0, 0, 4, 90))
        self.steps = 0
        self.start()

    def start(self):
        """A start of the agent."""
        self.scheduler = Scheduler(self.clock, self.decide)
        self.scheduler.hold(self.is_held)
        self.pending, self.is_slow = [], False
        self.put(self.clock.time - NOON, DOWN)

    def put(self, since, why):
        misfire, grace, jitter = self.policy
        self.scheduler.put(make_entry(self.reference.rule, self.decided, since, why, misfire, grace, jitter,
                                      revision=self.revision, hold=self.hold, **self.reference.options))

    def decide(self, entry, upto, spans):
        self.pending.append((entry, upto, spans))
        if not self.is_slow:
            self.write()

    def write(self, is_told=True):
        """What is pending gets into the file, and the scheduler hears of it unless the agent has gone."""
        for entry, upto, spans in self.pending:
            if entry.revision == self.revision:
                self.rows += [brief(span) for span in spans if span.last - NOON > self.decided]
                self.decided = max(self.decided, upto - NOON)
            if is_told:
                self.scheduler.decided(entry, upto, self.rng.random() < 0.5)
        self.pending = []

    def go_on(self):
        """One thing happens, and time goes on."""
        rng = self.rng
        what = rng.choice(("hold", "release", "hold one", "release one", "set", "slow", "prompt", "start", "kill", "step",
                           "nothing", "nothing", "nothing", "nothing"))
        if what in ("hold", "release"):
            self.is_held = what == "hold"
            self.scheduler.hold(self.is_held)
        elif what in ("hold one", "release one"):
            self.write()                # in the same file, in turn
            was_held, self.hold = self.hold, HELD if what == "hold one" else None
            self.put(self.clock.time - NOON, agent.ON_HOLD if was_held else DOWN)
        elif what == "set":
            self.write()
            before = self.scheduler.find((1, "S"))
            self.policy = rng.choice(("once", "skip", "all")), rng.choice((None, 0, 20, 500)), self.policy[2]
            self.revision += 1
            self.put(before.missed.until - NOON, before.missed[1:])
        elif what in ("slow", "prompt"):
            self.is_slow = what == "slow"
            if not self.is_slow:
                self.write()
        elif what in ("start", "kill"):
            if what == "start" or rng.random() < 0.5:       # a kill comes before the commit or after it
                self.write(is_told=False)
            self.clock.move(rng.choice((0, 1, 100)))
            self.start()
        elif what == "step" and self.steps < 4:
            self.steps += 1
            self.clock.step(rng.choice((-200, -20, -0.7, 0.7, 20, 200)))
        self.clock.move(rng.choice((0.1, 0.9, 1, 3, 17, 70)))
        self.scheduler.tick()

    def finish(self):
        self.write()
        self.is_slow, self.is_held = False, False
        self.scheduler.hold(False)
        self.hold = None
        self.put(self.clock.time - NOON, DOWN)
        for _ in range(3):
            self.clock.move(EXCLUDED_S)
            self.scheduler.tick()

    def check(self):
        """Every due time of the rule is decided, and stands in one row."""
        found, reference = collections.Counter(), self.reference
        for row in self.rows:
            if isinstance(row, int):
                found[row] += 1
                assert row in set(reference.due)
            else:
                first, last, count, reason = row
                kind = reference.excluded if reason == "window" else reference.due
                inside = [s for s in kind if first <= s <= last]
                assert (first, last, count) == (inside[0], inside[-1], len(inside)), row
                found.update(inside)
        now, jitter = self.clock.time - NOON, self.policy[2]
        assert now < 4000
        expected = {s for s in reference.due + reference.excluded if 0 < s <= self.decided}
        assert found == dict.fromkeys(expected, 1)
        left = [s for s in reference.due if self.decided < s < now]
        assert not left or left[0] + late(left[0], jitter) > now
        assert not left or left[0] - now < jitter
        assert not [s for s in reference.excluded if self.decided < s < min(left + [now - EXCLUDED_S - 1])]
        assert len(self.scheduler._events) < 200


@pytest.mark.parametrize("seed", range(60))
def test_at_random_no_due_time_is_lost_or_doubled(seed):
    story = Story(random.Random(seed))
    for _ in range(60):
        story.go_on()
    story.finish()
    story.check()
