"""The options of schedules on real agents: what each does, how it is refused, cleared, carried away and kept."""
import json
import sqlite3
import time
from datetime import date, timedelta

import pytest

from agent import find_jitter
from conftest import ahead, is_alive, local, sessions_of, wait_for, why
from support.ledger import check_complete, import_schedules, rule_at, seconds_of, wait_decided

pytestmark = pytest.mark.once

SCENARIOS = {
    "J": "echo $VAR_v $DUE", "K": "true", "R_FIRST": "true", "R_NEVER": "true", "BAD": "exit 3",
    "SLOW": "sleep 1000",
    "GATED": "until [ -e go ]; do sleep 0.05; done",
    "THIRD": "echo $VAR_v >> tries; [ $(wc -l < tries) -ge 3 ]",
    "PARENT": "(setsid sh -c 'echo $$ > child.new; mv child.new child.$SESSION; exec sleep 1000' &);"
              " echo $$ > shell.new; mv shell.new shell.$SESSION; sleep 1000 & wait"}


def import_scenarios(agent, *names):
    """Imports these SCENARIOS, each with a variable v, and TICK, which costs little."""
    def scenario(name, task):
        return {"name": name, "version": "1", "variables": {"v": "1"}, "steps": [{"name": "a", "tasks": [task]}]}
    agent.import_document({"scenarios": [scenario(name, {"type": "os", "command": SCENARIOS[name]}) for name in names]
                           + [scenario("TICK", {"type": "set", "variable": "v", "value": "2"})]})


def utc(instant, form="%Y-%m-%dT%H:%M:%SZ"):
    return time.strftime(form, time.gmtime(instant))


def import_ahead(agent, define, ahead_s=3):
    """Imports the schedules define(T), T being a whole second that then is still to come -> T."""
    return ahead(lambda due: import_schedules(agent, define(due), "J"), ahead_s)[0]


def wait_sessions(agent, name, count, *statuses):
    """Waits for so many sessions of a schedule, all in one of these states -> the sessions."""
    def found():
        rows = sessions_of(agent, name)
        return len(rows) >= count and all(row["status"] in (statuses or ("DONE",)) for row in rows) and rows
    return wait_for(found, "%d sessions of %s" % (count, name))


def exported(agent, name=None):
    """The document of EXPORT, or one schedule of it."""
    document = json.loads("\n".join(line[2:] for line in agent.ask("EXPORT")[:-1]))
    return document if name is None else [s for s in document["schedules"] if s["name"] == name][0]


def show_options(agent, name):
    """The first line of SCHED SHOW, and its options."""
    rows = agent.rows("SCHED SHOW %s" % name)
    return rows[0], {row["option"]: row["value"] for row in rows if "option" in row}


EVERY = {"rule": "every 1s", "overlap": "parallel", "scenario": "TICK"}


def define_effects(due):
    """What the effects below are seen by: schedules that are due at or around an instant.

    Excluded are today and tomorrow, so that midnight may come.
    """
    day, following = (date(1970, 1, 1) + timedelta(days=due // 86400 + n) for n in (0, 1))
    once = {"rule": rule_at(due)}
    thrice = dict(once, repeat_every="1s", repeat_count=2)
    return {
        "TICK": EVERY, "QUIET": {"rule": "daily at 00:00", "enabled": False},
        "REPEAT": dict(thrice, overlap="parallel"),
        "REPEAT_FOR": dict(once, repeat_every=2, repeat_for=3, overlap="parallel"),
        "FROM": dict(EVERY, **{"from": utc(due + 1)}),
        "TO": dict(EVERY, **{"from": utc(due), "to": utc(due + 1)}),
        "HOURS": dict(EVERY, hours=utc(due + 1, "%H:%M:%S-") + utc(due + 2, "%H:%M:%S")),
        "WEEKDAYS": dict(EVERY, exclude_weekdays=[day.strftime("%a").lower(), following.strftime("%a").lower()]),
        "MONTHDAYS": dict(EVERY, exclude_monthdays=[day.day, following.day]),
        "DATES": dict(EVERY, exclude_dates="%s..%s" % (day, following)),
        "CALENDAR": dict(EVERY, exclude_dates=["2020-01-01", "NOW"]),
        "JITTER2": dict(once, jitter=3),
        "NAMED": dict(once, session_name="the nightly one", keywords=["a", "b"], variables={"v": "mine"}),
        "TIMEOUT": dict(once, scenario="SLOW", timeout=1),
        "THIRD": dict(once, scenario="THIRD", attempts=3, retry_delay=1, variables={"v": "again"}),
        "TWICE": dict(once, scenario="BAD", attempts=2),
        "SKIP": dict(thrice, scenario="GATED", overlap="skip"),
        "QUEUE": dict(thrice, scenario="GATED"),
        "PARALLEL": dict(thrice, scenario="GATED", overlap="parallel"),
        "STOP": dict(once, repeat_every="2s", repeat_count=1, scenario="PARENT", overlap="stop"),
        "LIMITED": dict(thrice, scenario="LIMITED", overlap="parallel"),
        "RULED": {"rule": "every 1s", "after": "scenario:R_FIRST",
                  "hours": utc(due - 60, "%H:%M:%S-") + utc(due, "%H:%M:%S")},
        "R_OFF": dict(once, after="scenario:R_NEVER"), "R_RULE": dict(once, after="scenario:R_NEVER"),
        "R_AFTER": dict(once, after="scenario:R_NEVER"),
    }


JITTER = 2      # seconds by which JITTER2 is to be late


@pytest.fixture(scope="module")
def with_effects(make):
    """One agent for the tests that neither stop nor hold it; `effects` is when its schedules were due.

    JITTER2 gets a name for which the hash gives 2 seconds. `other` is another agent of the master.
    """
    made = make("shared", "--max-sessions", "30", env={"TZ": "UTC"})
    import_scenarios(made, *SCENARIOS)
    made.import_document({
        "calendars": [{"name": "NOW", "dates": ["2020-01-02", "2021-01-01..2099-12-31"]}],
        "scenarios": [{"name": "LIMITED", "version": "1", "concurrency": {"limit": 1, "on_limit": "skip"},
                       "steps": [{"name": "a", "tasks": [{"type": "os", "command": SCENARIOS["GATED"]}]}]}]})

    def define(due):
        schedules = define_effects(due)
        made.jittered = next(name for name in map("JITTER_{}".format, range(1000))
                             if find_jitter(name, due, 3) == JITTER)
        schedules[made.jittered] = schedules.pop("JITTER2")
        return schedules
    made.effects = import_ahead(made, define)
    made.other = make("shared", "--name", "OTHER", env={"TZ": "UTC"})
    made.ok("CALENDAR ADD OTHERS 2020-01-01..2099-12-31")
    made.other.ok("SCHED ADD OTHERS J -1 GLOBAL 'every 1s' -EXCLUDE_DATES=OTHERS")
    made.ok("CALENDAR ADD THEIRS 2020-01-01")
    made.ok("SCHED ADD THEIRS J -1 GLOBAL 'every 1s' -AGENT=OTHER -EXCLUDE_DATES=THEIRS")
    made.changed = time.time()
    made.ok("CALENDAR SET OTHERS 2020-01-01")
    return made


@pytest.fixture(scope="module")
def quiet(shared_inside):
    """An agent on which nothing is due by itself; its time passes when the test says so."""
    import_scenarios(shared_inside, *SCENARIOS)
    shared_inside.import_document({"calendars": [{"name": "NOW", "dates": ["2020-01-02", "2021-01-01..2099-12-31"]}]})
    import_schedules(shared_inside, {name: {"rule": "daily at 00:00", "enabled": False} for name in ("TICK", "QUIET")},
                     "J")
    return shared_inside


MISSED = {"TICK": EVERY, "ALL": dict(EVERY, misfire="all"), "SKIP": dict(EVERY, misfire="skip"),
          "FEW": dict(EVERY, misfire="all", grace=2)}


@pytest.fixture(scope="module")
def absent(make):
    """{reason: an agent that misses due times for it from `since` on}: those of each second, and the one, `due`, of
    the schedules `old` and `young`; `locker` holds the lock of the one for which it is `repository`."""
    agents = {reason: make(reason, "--max-sessions", "20") for reason in ("misfire", "hold", "repository")}
    for agent in agents.values():
        import_scenarios(agent, "J")
        import_schedules(agent, MISSED, "J")
    for agent in agents.values():
        wait_for(lambda: why(agent, "TICK"), "a first due time")
    down, held, locked = agents.values()
    locked.locker = sqlite3.connect(str(locked.work), timeout=30, isolation_level=None)

    def leave(due):
        if locked.locker.in_transaction:        # it came too late to miss the instant of before
            locked.locker.execute("commit")
            down.start()
            held.ok("RELEASE")
        for agent in agents.values():
            agent.due, agent.old, agent.young = due, "OLD%d" % due, "YOUNG%d" % due
            import_schedules(agent, {agent.old: {"rule": rule_at(due), "grace": 1},
                                     agent.young: {"rule": rule_at(due), "grace": "1h"}}, "J")
        locked.locker.execute("begin immediate")
        down.kill()
        held.ok("HOLD")
        locked.since = time.time()
    ahead(leave)
    yield agents
    locked.locker.close()


def find_zones(instant):
    """TZ of two systems made for a test, both at UTC for one half of the year: at an instant the one
    goes an hour ahead, the other goes back by a minute that it was ahead."""
    ahead, back = time.gmtime(instant), time.gmtime(instant + 60)
    half_a_year = (ahead.tm_yday + 180) % 365
    return ("AAA0BBB-1,%d/%s,%d/0" % (ahead.tm_yday - 1, time.strftime("%H:%M:%S", ahead), half_a_year),
            "AAA0BBB-0:01,%d/0,%d/%s" % (half_a_year, back.tm_yday - 1, time.strftime("%H:%M:%S", back)))


@pytest.fixture(scope="module")
def zones(make):
    """[instant, an agent of a system whose clock skips an hour then, another's repeats a minute]"""
    def start(change):
        agents = [make("%s%d" % (name, change), env={"TZ": zone})
                  for name, zone in zip(("gap", "fold"), find_zones(change))]
        for agent, seconds in zip(agents, (change + 1800, change + 2)):
            import_scenarios(agent, "J")
            agent.ok("SCHED ADD TICK TICK -1 GLOBAL 'every 1s' -OVERLAP=parallel")
            # a time that does not exist; one of which the first pass was a minute ago
            for name, option in (("DEFAULT", ""), ("OTHER", "-GAP=skip -FOLD=both")):
                agent.ok("SCHED ADD %s J -1 GLOBAL 'daily at %s' %s" % (name, utc(seconds, "%H:%M:%S"), option))
        return agents
    change, agents = ahead(start, 5)
    return [change] + agents


@pytest.fixture(scope="module", autouse=True)
def begun_early(zones, with_effects, absent):
    """What needs time begins before the first test, and comes about while others run."""


# -- the way of each option ------------------------------------------------------------

# option of ADD and SET: (its text, what a document has for it, what else it needs)
OPTIONS = {
    "FROM": ("2020-01-01", "2020-01-01", ""),
    "TO": ("2099-12-31T12:00", "2099-12-31T12:00", ""),
    "HOURS": ("22:00-06:00", "22:00-06:00", ""),
    "EXCLUDE_WEEKDAYS": ("sat,sun", "sat,sun", ""),
    "EXCLUDE_MONTHDAYS": ("1,last", "1,last", ""),
    "EXCLUDE_DATES": ("2026-12-24..2026-12-26,NOW", "2026-12-24..2026-12-26,NOW", ""),
    "REPEAT_EVERY": ("10m", 600, "-REPEAT_COUNT=3"),
    "REPEAT_COUNT": ("3", 3, "-REPEAT_EVERY=600"),
    "REPEAT_FOR": ("1h", 3600, "-REPEAT_EVERY=600"),
    "GAP": ("SKIP", "skip", ""),
    "FOLD": ("both", "both", ""),
    "JITTER": ("30s", 30, ""),
    "AFTER": ("QUIET/2h,scenario:R_NEVER", "QUIET/2h,scenario:R_NEVER", ""),
    "NAME": ("'the \"nightly\" one'", "the \"nightly\" one", ""),
    "KEYWORDS": ("a,b", "a,b", ""),
    "PRIORITY": ("-5", -5, ""),
    "ATTEMPTS": ("3", 3, ""),
    "RETRY_DELAY": ("1m", 60, ""),
    "TIMEOUT": ("1.5h", 5400, ""),
    "OVERLAP": ("parallel", "parallel", ""),
    "MISFIRE": ("all", "all", ""),
    "GRACE": ("2d", 172800, ""),
}


def field_of(option):
    return "session_name" if option == "NAME" else option.lower()


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_an_option_is_given_shown_exported_and_cleared(quiet, option):
    text, value, others = OPTIONS[option]
    name = "W_" + option
    quiet.ok("SCHED ADD %s J -1 GLOBAL 'daily at 23:00' v=2 -TIMEZONE=UTC" % name)
    bare = exported(quiet, name)
    quiet.ok("SCHED SET %s -%s=%s %s" % (name, option, text, others))
    full = exported(quiet, name)
    assert full[field_of(option)] == value
    assert {key: full[key] for key in bare} == bare and len(full) == len(bare) + 1 + bool(others)
    told = show_options(quiet, name)[1][option]
    assert (told if isinstance(value, str) else float(told)) == value
    before = quiet.ask("SCHED SHOW %s" % name)
    quiet.import_document({"schedules": [full]})           # as it was exported: nothing changes
    assert quiet.ask("SCHED SHOW %s" % name) == before and exported(quiet, name) == full
    cleared = [option] + [others[1:].split("=")[0]] * bool(others)
    quiet.ok("SCHED SET %s %s" % (name, " ".join("-%s=" % word for word in cleared)))
    assert exported(quiet, name) == bare and show_options(quiet, name)[1] == {}
    quiet.ok("SCHED DEL %s" % name)
    quiet.ok("SCHED ADD %s J -1 GLOBAL 'daily at 23:00' v=2 -TIMEZONE=UTC -%s=%s %s"
              % (name, option, text, others))
    assert exported(quiet, name) == full                   # ADD and SET come to the same
    quiet.ok("SCHED DEL %s" % name)


def test_every_option_of_the_verbs_is_tried_here(quiet):
    """HELP lists what ADD takes; beside those above it is what a schedule always has."""
    usage = quiet.ask("HELP SCHED ADD")[0]
    named = {word[2:].split("=")[0] for word in usage.split(" ") if word.startswith("[-")}
    assert named == set(OPTIONS) | {"AGENT", "TIMEZONE", "ENABLED", "REPO"}


def test_what_a_schedule_always_has_is_cleared_too(quiet):
    quiet.ok("SCHED ADD C1 J -1 GLOBAL 'daily at 02:00'")
    bare = exported(quiet, "C1")
    quiet.ok("SCHED SET C1 -AGENT=OTHER -TIMEZONE=UTC -ENABLED=no")
    assert exported(quiet, "C1") == dict(bare, agent="OTHER", timezone="UTC", enabled=False)
    quiet.ok("SCHED SET C1 -AGENT= -TIMEZONE= -ENABLED=yes")
    assert exported(quiet, "C1") == bare
    quiet.ok("SCHED DEL C1")


@pytest.mark.parametrize("options, told", [
    ("-FROM=yesterday", "BAD_REQUEST from: *yesterday*"),
    ("-FROM=2026-13-01", "BAD_REQUEST from: *2026-13-01*"),
    ("-TO=never", "BAD_REQUEST to: *never*"),
    ("-FROM=2027-01-02 -TO=2027-01-01", "BAD_REQUEST to: *2027-01-01*before from*"),
    ("-TO=2020-01-01", "BAD_REQUEST *never fires any more*"),
    ("-HOURS=8-18", "BAD_REQUEST hours: *HH:MM*"),
    ("-HOURS=25:00-26:00", "BAD_REQUEST hours: *25:00*"),
    ("-HOURS=08:00", "BAD_REQUEST hours: *HH:MM-HH:MM*"),
    ("-EXCLUDE_WEEKDAYS=funday", "BAD_REQUEST exclude_weekdays: *funday*"),
    ("-EXCLUDE_WEEKDAYS=mon,tue,wed,thu,fri,sat,sun", "BAD_REQUEST *never fires any more*"),
    ("-EXCLUDE_MONTHDAYS=32", "BAD_REQUEST exclude_monthdays: *32*"),
    ("-EXCLUDE_DATES=2026-02-30", "BAD_REQUEST exclude_dates: *2026-02-30*"),
    ("-EXCLUDE_DATES=2026-12-31..2026-12-24", "BAD_REQUEST exclude_dates: *before it begins*"),
    ("-EXCLUDE_DATES=NO_SUCH", "NOT_FOUND no calendar NO_SUCH"),
    ("-REPEAT_EVERY=10m", "BAD_REQUEST *repeat_every*repeat_count or repeat_for*"),
    ("-REPEAT_COUNT=3", "BAD_REQUEST *repeat_every*"),
    ("-REPEAT_FOR=1h", "BAD_REQUEST *repeat_every*"),
    ("-REPEAT_EVERY=often -REPEAT_COUNT=3", "BAD_REQUEST *-REPEAT_EVERY=often*90s*"),
    ("-REPEAT_EVERY=10m -REPEAT_COUNT=0", "BAD_REQUEST *-REPEAT_COUNT=0*1*"),
    ("-REPEAT_EVERY=10m -REPEAT_FOR=x", "BAD_REQUEST *-REPEAT_FOR=x*"),
    ("-RULE='every 1s' -REPEAT_EVERY=1s -REPEAT_FOR=1d", "BAD_REQUEST *repeat_every*overlap*"),
    ("-GAP=maybe", "BAD_REQUEST *-GAP=maybe*run or skip*"),
    ("-FOLD=maybe", "BAD_REQUEST *-FOLD=maybe*first or both*"),
    ("-JITTER=2d", "BAD_REQUEST *-JITTER=2d*one day*"),
    ("-JITTER=-5", "BAD_REQUEST *-JITTER=-5*"),
    ("-AFTER=NO_SUCH", "NOT_FOUND no schedule NO_SUCH *"),
    ("-AFTER=J", "NOT_FOUND no schedule J *; a scenario is written scenario:J"),
    ("-AFTER=scenario:NO_SUCH", "NOT_FOUND no scenario NO_SUCH *"),
    ("-AFTER=table:J", "BAD_REQUEST after: *table:J*"),
    ("-AFTER=R1", "BAD_REQUEST after: *itself*"),
    ("-AFTER=TICK,TICK/2h", "BAD_REQUEST after: TICK stands twice"),
    ("-AFTER=TICK/", "BAD_REQUEST after: *duration*"),
    ("-AFTER=TICK/0", "BAD_REQUEST after: *TICK/0*"),
    ("-NAME=" + 1001 * "x", "BAD_REQUEST *-NAME=xxx*1000*"),
    ("-PRIORITY=high", "BAD_REQUEST *-PRIORITY=high*whole number*"),
    ("-PRIORITY=1000001", "BAD_REQUEST *-PRIORITY=1000001*1000000*"),
    ("-ATTEMPTS=0", "BAD_REQUEST *-ATTEMPTS=0*1 to 1000*"),
    ("-ATTEMPTS=1001", "BAD_REQUEST *-ATTEMPTS=1001*1 to 1000*"),
    ("-RETRY_DELAY=soon", "BAD_REQUEST *-RETRY_DELAY=soon*duration*"),
    ("-TIMEOUT=0", "BAD_REQUEST *-TIMEOUT=0*more than 0*"),
    ("-OVERLAP=maybe", "BAD_REQUEST *-OVERLAP=maybe*queue or skip or parallel or stop*"),
    ("-MISFIRE=maybe", "BAD_REQUEST *-MISFIRE=maybe*once or skip or all*"),
    ("-GRACE=0", "BAD_REQUEST *-GRACE=0*more than 0*"),
    ("-GRACE", "BAD_REQUEST *-GRACE*"),
    ("-RULE= -AFTER=TICK -JITTER=5", "BAD_REQUEST jitter: is for due times by the clock*"),
    ("-RULE= -AFTER=TICK -HOURS=08:00-10:00", "BAD_REQUEST hours: is for due times by the clock*"),
    ("-RULE=startup -REPEAT_EVERY=5m", "BAD_REQUEST repeat_every: is for due times by the clock*"),
    ("-RULE=", "BAD_REQUEST *rule*"),
])
def test_a_refusal_names_the_option_and_changes_nothing(quiet, options, told):
    if not [row for row in quiet.rows("SCHED LIST") if row["name"] == "R1"]:
        quiet.ok("SCHED ADD R1 J -1 GLOBAL 'daily at 02:00' -MISFIRE=all")
    before = exported(quiet)["schedules"]
    quiet.send("SCHED SET R1 " + options)
    quiet.expect("ERR " + told)
    if "-RULE" not in options and "R1" not in options:
        quiet.send("SCHED ADD R2 J -1 GLOBAL 'daily at 02:00' " + options)
        quiet.expect("ERR " + told)
    assert exported(quiet)["schedules"] == before


def test_import_tells_the_faults_of_all_options_at_once(quiet):
    wrong = {"from": "x", "to": 5, "hours": "8-18", "exclude_weekdays": "funday", "exclude_monthdays": [32],
             "exclude_dates": ["2026-02-30"], "repeat_every": "often", "repeat_count": 0, "repeat_for": 1.5,
             "gap": "GAP", "fold": "", "jitter": 86401, "after": "a b", "session_name": 5, "keywords": 1.5,
             "priority": "5", "attempts": True, "retry_delay": -1, "timeout": 0, "overlap": "Queue",
             "misfire": None, "grace": "0s"}
    lines = quiet.ask("IMPORT '%s'" % json.dumps({"schedules": [
        dict(wrong, name="I1", scenario="J", rule="daily at 02:00", name_="x")]}))
    assert lines[-1].startswith("ERR BAD_REQUEST"), lines
    told = {line[2:].split(": ")[0] for line in lines[:-1]}
    assert told >= {"schedules[0]." + name for name in list(wrong) + ["name_"]}, lines
    assert not [row for row in quiet.rows("SCHED LIST") if row["name"] == "I1"]


def test_options_go_through_export_import_and_every_kind_of_restart(make_agent):
    agent, other = make_agent(folder="one").start(), make_agent(folder="two").start()
    for one in (agent, other):
        import_scenarios(one, "J", "R_NEVER")
    agent.ok("CALENDAR ADD NOW 2020-01-02,2021-01-01..2021-12-31")
    agent.ok("SCHED ADD QUIET J -1 GLOBAL 'daily at 01:00'")
    for option, (text, _, others) in OPTIONS.items():
        agent.ok("SCHED ADD W_%s J -1 GLOBAL 'daily at 23:00' -TIMEZONE=UTC -%s=%s %s"
                 % (option, option, text, others))
    agent.ok("SCHED ADD ALL J -1 GLOBAL 'daily at 23:00' v=2 -TIMEZONE=UTC -REPEAT_EVERY=10m " + " ".join(
        "-%s=%s" % (option, text) for option, (text, _, _) in OPTIONS.items() if option != "REPEAT_EVERY"))
    document = exported(agent)
    assert set(map(field_of, OPTIONS)) <= set(exported(agent, "ALL"))
    coming = agent.ask("SCHED NEXT -FROM=2026-12-01 -COUNT=300 -ALL")
    other.import_document(document)
    assert exported(other) == document
    assert other.ask("SCHED NEXT -FROM=2026-12-01 -COUNT=300 -ALL") == coming
    agent.stop()
    other.kill()
    for one in (agent, other):
        one.start()
        assert exported(one) == document
        assert one.ask("SCHED NEXT -FROM=2026-12-01 -COUNT=300 -ALL") == coming
        assert one.stop() == 0


# -- when it is due --------------------------------------------------------------------

def dues_of(agent, name):
    """The due times of a schedule's sessions, in seconds after `effects`; those before it are left out."""
    found = [seconds_of(row["due"]) - agent.effects for row in sessions_of(agent, name)]
    return [due for due in found if due >= 0]


@pytest.mark.parametrize("name, expected", [
    ("REPEAT", [0, 1, 2]), ("REPEAT_FOR", [0, 2]), ("FROM", [1, 2, 3, 4]), ("TO", [0, 1]), ("HOURS", [1, 2]),
    ("WEEKDAYS", []), ("MONTHDAYS", []), ("DATES", []), ("CALENDAR", [])])
def test_windows_and_repetitions(with_effects, name, expected):
    wait_decided(with_effects, "TICK", with_effects.effects + 5)
    assert [due for due in dues_of(with_effects, name) if due <= 4] == expected
    rows = [row for row in why(with_effects, name) if seconds_of(row["due"]) < with_effects.effects + 5]
    if name not in ("REPEAT", "REPEAT_FOR"):    # a `from` in the future: what is before is excluded, too
        assert (rows[0]["decision"], rows[0]["reason"], rows[0]["session"]) == ("skipped", "window", "")
        assert "outside its window" in rows[0]["message"], rows[0]
        check_complete(rows)
    else:
        assert {row["reason"] for row in rows} == {""}
    assert len([row for row in rows if row["session"]]) == len(expected)


def test_what_is_excluded_now_is_told_for_the_days_to_come(with_effects):
    """SCHED NEXT has no time of the excluded days, with -ALL those alone."""
    for name, word in (("WEEKDAYS", "excluded day"), ("MONTHDAYS", "excluded day"), ("DATES", "excluded day")):
        begin = utc(with_effects.effects // 86400 * 86400)
        end = utc(with_effects.effects // 86400 * 86400 + 2 * 86400 - 1)
        assert with_effects.rows("SCHED NEXT %s -FROM=%s -TO=%s" % (name, begin, end)) == []
        rows = with_effects.rows("SCHED NEXT %s -FROM=%s -TO=%s -ALL -COUNT=3" % (name, begin, end))
        assert len(rows) == 3 and all(word in row["note"] and "window" in row["note"] for row in rows)


def test_jitter_delays_the_beginning_and_not_the_due_time(with_effects):
    row, = wait_sessions(with_effects, with_effects.jittered, 1)
    assert seconds_of(row["due"]) == with_effects.effects
    assert seconds_of(row["begun"]) >= with_effects.effects + JITTER
    assert with_effects.log_texts(row["session"]) == ["1 " + row["due"]]
    found, = why(with_effects, with_effects.jittered)
    assert found["due"] == row["due"] and found["decision"] in ("started", "late")
    note = with_effects.rows("SCHED NEXT %s -FROM=%s -COUNT=1" % (
        with_effects.jittered, utc(with_effects.effects - 1)))[0]["note"]
    assert note.startswith("jitter %d s: runs at " % JITTER)
    assert seconds_of(note.split()[-1]) == with_effects.effects + JITTER


# -- the sessions ----------------------------------------------------------------------

def test_name_keywords_and_variables_are_those_of_the_session(with_effects):
    row, = wait_sessions(with_effects, "NAMED", 1)
    assert (row["name"], row["keywords"]) == ("the nightly one", "a,b")
    assert [r["session"] for r in with_effects.rows("SESSIONS -KEYWORD=b")] == [row["session"]]
    assert with_effects.log_texts(row["session"])[0].split()[0] == "mine"


def test_timeout_ends_the_session(with_effects):
    row, = wait_sessions(with_effects, "TIMEOUT", 1, "ERROR")
    assert "time" in row["message"] and float(row["duration"]) >= 1


def test_attempts_are_new_sessions_until_one_ends_well(with_effects):
    rows = wait_for(lambda: len(sessions_of(with_effects, "THIRD")) == 3 and wait_sessions(
        with_effects, "THIRD", 3, "ERROR", "DONE"))
    assert [row["status"] for row in rows] == ["ERROR", "ERROR", "DONE"]
    assert {seconds_of(row["due"]) for row in rows} == {with_effects.effects}
    for before, row in zip(rows, rows[1:]):                 # retry_delay
        assert seconds_of(row["begun"]) >= seconds_of(before["ended"]) + 1
        assert row["created"] == before["ended"]
        assert before["message"].endswith("is session " + row["session"]), before
    assert (with_effects.folder / "tries").read_text().split() == ["again"] * 3
    found, = why(with_effects, "THIRD")
    assert (found["session"], found["status"], found["count"]) == (rows[2]["session"], "DONE", "1")
    assert "attempt 3 of 3" in found["message"] and rows[1]["session"] in found["message"]


def test_attempts_come_to_an_end(with_effects):
    rows = wait_sessions(with_effects, "TWICE", 2, "ERROR")
    wait_decided(with_effects, "TICK", seconds_of(rows[1]["ended"]) + 1)
    assert len(sessions_of(with_effects, "TWICE")) == 2
    found, = why(with_effects, "TWICE")
    assert (found["session"], found["status"]) == (rows[1]["session"], "ERROR")
    assert "is session" not in rows[1]["message"]
    with_effects.ok("RESTART %s" % rows[0]["session"])            # makes no third when it fails again
    with_effects.wait_status(rows[0]["session"], "ERROR")
    with_effects.ok("RESTART %s" % rows[1]["session"])
    with_effects.wait_status(rows[1]["session"], "ERROR")
    assert len(sessions_of(with_effects, "TWICE")) == 2


def test_overlap(with_effects):
    """Three due times a second apart, the sessions of which are gated; then the gate opens."""
    wait_decided(with_effects, "TICK", with_effects.effects + 4)
    wait_for(lambda: len(with_effects.rows("SESSIONS -SCENARIO=GATED -STATUS=RUNNING")) == 5, "those to run that may")
    wait_for(lambda: with_effects.rows("SESSIONS -SCENARIO=LIMITED -STATUS=RUNNING"), "the first of the limited ones to run")
    states = {name: [(row["decision"], row["reason"], row["count"], row["status"]) for row in why(with_effects, name)]
              for name in ("SKIP", "QUEUE", "PARALLEL", "LIMITED")}
    begun = ("started", "", "1", "RUNNING")
    for name, rows in states.items():       # begun over a second after it was due, on a slow machine
        states[name] = [row if row[0] != "late" else ("started",) + row[1:] for row in rows]
    assert states == {
        "SKIP": [begun, ("skipped", "overlap", "2", "")],
        "QUEUE": [begun, ("started", "", "1", "QUEUED"), ("skipped", "overlap", "1", "")],
        "PARALLEL": [begun] * 3, "LIMITED": [begun, ("skipped", "limit", "2", "")]}
    told = why(with_effects, "SKIP")[-1]["message"]
    assert "2 due times skipped" in told and sessions_of(with_effects, "SKIP")[0]["session"] in told
    assert "LIMITED" in why(with_effects, "LIMITED")[-1]["message"]
    (with_effects.folder / "go").touch()
    assert len(wait_sessions(with_effects, "SKIP", 1)) == 1
    rows = wait_sessions(with_effects, "QUEUE", 2)
    assert len(rows) == 2 and seconds_of(rows[1]["begun"]) >= seconds_of(rows[0]["ended"])
    assert why(with_effects, "QUEUE")[1]["decision"] == "late"
    assert len(wait_sessions(with_effects, "PARALLEL", 3)) == 3


def test_overlap_stop_ends_the_old_session_with_its_children(with_effects):
    wait_decided(with_effects, "TICK", with_effects.effects + 4)
    old, new = sessions_of(with_effects, "STOP")
    with_effects.wait_status(old["session"], "STOPPED")
    assert "next due time" in with_effects.status(old["session"])["message"]

    def pids(session):
        paths = [with_effects.folder / ("%s.%s" % (what, session)) for what in ("child", "shell")]
        wait_for(lambda: all(path.exists() for path in paths), "the processes of session %s" % session)
        return [int(path.read_text()) for path in paths]
    assert not any(map(is_alive, pids(old["session"])))
    with_effects.wait_status(new["session"], "RUNNING")
    assert all(map(is_alive, pids(new["session"])))
    assert seconds_of(with_effects.status(new["session"])["begun"]) >= seconds_of(with_effects.status(old["session"])["ended"])
    assert with_effects.ok("STOP %s -IMMEDIATE" % new["session"])["status"] == "STOPPED"
    assert not any(map(is_alive, pids(new["session"])))
    assert [row["session"] for row in why(with_effects, "STOP")] == [old["session"], new["session"]]


def test_priority_decides_who_leaves_the_queue_first(make_inside, monkeypatch):
    agent = make_inside("--max-sessions", "1").start()
    monkeypatch.chdir(str(agent.folder))        # where its tasks work
    import_scenarios(agent, "J", "K", "GATED")
    for name, priority in (("LOW", -5), ("NORMAL", 0), ("HIGH", 5)):
        agent.ok("SCHED ADD %s J -1 GLOBAL -AFTER=scenario:K -PRIORITY=%d" % (name, priority))
    agent.ok("HOLD")
    agent.ok("EXEC K -PRIORITY=20")
    gated = agent.ok("EXEC GATED -PRIORITY=10")["session"]
    agent.ok("RELEASE")
    for name in ("LOW", "NORMAL", "HIGH"):
        wait_for(lambda: sessions_of(agent, name))
    assert agent.status(gated)["status"] == "RUNNING"
    (agent.folder / "go").touch()
    begun = [wait_sessions(agent, name, 1)[0]["begun"] for name in ("HIGH", "NORMAL", "LOW")]
    assert begun == sorted(begun)


def test_attempts_over_a_crash_and_stop(make_agent):
    """A session that a crash left counts as an attempt; one that was stopped is not tried again."""
    agent = make_agent("--max-sessions", "9").start()
    import_scenarios(agent, "K", "SLOW", "BAD")
    for name, scenario, options in (("STALE", "SLOW", "-ATTEMPTS=2"), ("STOPPED", "SLOW", "-ATTEMPTS=3"),
                                    ("LATER", "BAD", "-ATTEMPTS=2 -RETRY_DELAY=1h"),
                                    ("WAITS", "BAD", "-ATTEMPTS=3 -RETRY_DELAY=1s")):
        agent.ok("SCHED ADD %s %s -1 GLOBAL -AFTER=scenario:K %s" % (name, scenario, options))
    agent.ok("EXEC K -SYNC")
    for name in ("STALE", "STOPPED"):
        wait_sessions(agent, name, 1, "RUNNING")
    stopped = sessions_of(agent, "STOPPED")[0]["session"]
    assert agent.ok("STOP %s -IMMEDIATE" % stopped)["status"] == "STOPPED"
    waiting = wait_sessions(agent, "LATER", 2, "ERROR", "WAITING")[1]["session"]
    wait_sessions(agent, "WAITS", 2, "ERROR", "WAITING", "QUEUED", "RUNNING")
    agent.kill()
    agent.start()
    first, second = wait_for(lambda: len(sessions_of(agent, "STALE")) == 2 and sessions_of(agent, "STALE"))
    assert (first["status"], "stale" in first["message"]) == ("ERROR", True)
    assert first["message"].endswith("attempt 2 of 2 is session " + second["session"])
    agent.wait_status(second["session"], "RUNNING")
    assert [row["session"] for row in why(agent, "STALE")] == [second["session"]]
    assert agent.status(waiting)["status"] == "WAITING"
    assert agent.ok("STOP %s" % waiting)["status"] == "STOPPED"
    wait_sessions(agent, "WAITS", 3, "ERROR")
    agent.kill()
    agent.start()
    rows = wait_sessions(agent, "STALE", 2, "ERROR")        # no third
    assert "stale" in rows[1]["message"] and len(rows) == 2
    assert [len(sessions_of(agent, name)) for name in ("STOPPED", "LATER", "WAITS")] == [1, 2, 3]
    assert agent.rows("SESSIONS -STATUS=WAITING,QUEUED,RUNNING") == []
    assert agent.stop() == 0


# -- what was missed -------------------------------------------------------------------

def test_what_was_missed_follows_misfire_and_grace(absent):
    """The agent down, the agent held, the repository locked by another program: each with its reason."""
    locked = absent["repository"]
    # for so long that what comes due behind the lock counts as missed, and that OLD is too old
    time.sleep(max(0.0, locked.since + 6.2 - time.time(),
                   max(agent.due for agent in absent.values()) + 2.5 - time.time()))
    locked.locker.execute("commit")
    absent["misfire"].start()
    absent["hold"].ok("RELEASE")
    ended = time.time()
    for reason, agent in absent.items():
        for name in ("TICK", "ALL", "SKIP", "FEW"):
            wait_decided(agent, name, ended + 1)
        found = {name: check_complete(why(agent, name)) for name in ("TICK", "ALL", "SKIP", "FEW")}
        counts = {}
        for name, rows in found.items():
            skipped = [row for row in rows if not row["session"]]
            assert [(row["decision"], row["reason"]) for row in skipped] in ([], [("skipped", reason)]), skipped
            assert all(seconds_of(row["last_due"]) <= ended for row in skipped)
            counts[name] = sum(int(row["count"]) for row in skipped)
        # none of them, the newest alone, those of the last two seconds, at most a hundred
        assert counts["SKIP"] >= counts["TICK"] >= counts["FEW"] > 0 and counts["SKIP"] > counts["FEW"]
        assert counts["ALL"] == 0 or counts["SKIP"] > 98, counts
        if agent is not locked:
            row, = why(agent, agent.old)
            assert (row["decision"], row["reason"], seconds_of(row["due"])) == ("skipped", reason, agent.due)
            row, = wait_sessions(agent, agent.young, 1)
            assert seconds_of(row["due"]) == agent.due and why(agent, agent.young)[0]["decision"] == "late"


# -- the clock of the zone -------------------------------------------------------------

def test_gap_and_fold_as_they_come(zones):
    change, gap, fold = zones
    for agent, due, name, reason in ((gap, change, "OTHER", "gap"), (fold, change + 2, "DEFAULT", "fold")):
        wait_decided(agent, "TICK", due + 1)
        other = "DEFAULT" if name == "OTHER" else "OTHER"
        row, = wait_sessions(agent, other, 1)
        assert seconds_of(row["due"]) == due
        wait_for(lambda: why(agent, name), "the %s" % reason)
        row, = why(agent, name)
        assert (row["decision"], row["reason"], seconds_of(row["due"])) == ("skipped", reason, due)
        assert sessions_of(agent, name) == []
        check_complete(why(agent, "TICK"))
        begin = utc(change - 1)
        assert "(%s)" % reason in agent.rows("SCHED NEXT %s -FROM=%s -COUNT=1 -ALL" % (name, begin))[0]["note"]
        note = agent.rows("SCHED NEXT %s -FROM=%s -COUNT=1" % (other, begin))[0]["note"]
        assert ("does not exist" if reason == "gap" else "second of two") in note


# -- after -----------------------------------------------------------------------------

def conditions(agent, name):
    """{what a schedule runs after: whether it is met}"""
    return {row["after"]: row["met"] != "" for row in agent.rows("SCHED SHOW %s" % name) if "after" in row}


def test_after_waits_for_all_and_begins_anew(quiet):
    for name in ("C_FIRST", "C_OTHER", "C_BAD"):
        quiet.import_os(name, "exit 1" if name == "C_BAD" else "true")
    for name, after in (("CH_A", "scenario:C_FIRST"), ("CH_B", "CH_A,scenario:C_OTHER"),
                        ("CH_BAD", "scenario:C_BAD"), ("CANARY", "scenario:C_OTHER")):
        quiet.ok("SCHED ADD %s J -1 GLOBAL -AFTER=%s" % (name, after))
    row = show_options(quiet, "CH_B")[0]
    assert (row["rule"], row["next"]) == ("", "")
    assert quiet.rows("SCHED NEXT CH_B") == []
    for count in (1, 2):
        assert quiet.ok("EXEC C_FIRST -SYNC")["status"] == "DONE"
        assert len(wait_sessions(quiet, "CH_A", count)) == count
        wait_for(lambda: conditions(quiet, "CH_B")["CH_A"], "the end of CH_A to count")
        assert conditions(quiet, "CH_B") == {"CH_A": True, "C_OTHER": False}
    before = quiet.now() - 0.001            # the tables have milliseconds
    quiet.ok("EXEC C_OTHER -SYNC")
    row, = wait_sessions(quiet, "CH_B", 1)
    assert before <= seconds_of(row["due"]) <= quiet.now()
    found, = why(quiet, "CH_B")
    assert found["session"] == row["session"] and "after CH_A,scenario:C_OTHER" in found["message"]
    assert conditions(quiet, "CH_B") == {"CH_A": False, "C_OTHER": False}
    quiet.ok("EXEC C_BAD -SYNC")
    quiet.ok("EXEC C_OTHER -SYNC")
    wait_sessions(quiet, "CANARY", 2)      # it is decided together with CH_B
    assert len(sessions_of(quiet, "CH_B")) == 1 and sessions_of(quiet, "CH_BAD") == []
    assert conditions(quiet, "CH_B") == {"CH_A": False, "C_OTHER": True}
    quiet.ok("EXEC C_FIRST -SYNC")
    assert len(wait_sessions(quiet, "CH_B", 2)) == 2


def test_a_schedule_does_not_run_after_what_its_own_session_starts(quiet):
    quiet.import_os("LOOP_BASE", "true")
    quiet.import_document({"scenarios": [
        {"name": name, "version": "1", "steps": [{"name": "a", "tasks": [{"type": "scenario", "name": below}]}]}
        for name, below in (("LOOP_MIDDLE", "LOOP_BASE"), ("LOOP_TOP", "LOOP_MIDDLE"))]})
    quiet.ok("SCHED ADD LOOP LOOP_TOP -1 GLOBAL -AFTER=scenario:LOOP_BASE")
    quiet.ok("SCHED ADD LOOP_CANARY J -1 GLOBAL -AFTER=scenario:LOOP_BASE -OVERLAP=parallel")
    quiet.ok("EXEC LOOP_BASE -SYNC")
    wait_for(lambda: [row["status"] for row in sessions_of(quiet, "LOOP")] == ["DONE"], "the session after it")
    wait_sessions(quiet, "LOOP_CANARY", 2)     # the one below it counts for others
    assert conditions(quiet, "LOOP") == {"LOOP_BASE": False}
    quiet.ok("EXEC LOOP_BASE -SYNC")
    wait_sessions(quiet, "LOOP_CANARY", 4)
    assert len(sessions_of(quiet, "LOOP")) == 2
    for name in ("LOOP", "LOOP_CANARY"):
        quiet.ok("SCHED DEL %s" % name)


def test_after_with_a_period_lets_what_is_older_not_count(quiet):
    for name in ("P_OLD", "P_NEW"):
        quiet.import_os(name, "true")
    quiet.ok("SCHED ADD PERIOD J -1 GLOBAL -AFTER=scenario:P_OLD/100s,scenario:P_NEW")
    quiet.ok("SCHED ADD P_CANARY J -1 GLOBAL -AFTER=scenario:P_NEW")
    quiet.ok("EXEC P_OLD -SYNC")
    quiet.let_pass(101)
    quiet.ok("EXEC P_NEW -SYNC")
    wait_sessions(quiet, "P_CANARY", 1)
    assert sessions_of(quiet, "PERIOD") == []
    quiet.ok("EXEC P_OLD -SYNC")
    assert len(wait_sessions(quiet, "PERIOD", 1)) == 1


def waiting(agent, name):
    """The due time of a schedule that waits for what it runs after, or None."""
    rows = [row["waiting"] for row in agent.rows("SCHED SHOW %s" % name) if "waiting" in row]
    return seconds_of(rows[0]) if rows else None


def test_after_with_a_rule_fires_for_the_due_time_that_waited(with_effects):
    """Due in each of some seconds, then the window closes: the last one waits, the others were missed."""
    due = with_effects.effects
    wait_for(lambda: [row for row in why(with_effects, "RULED") if row["reason"] == "window"])
    assert waiting(with_effects, "RULED") == due and sessions_of(with_effects, "RULED") == []
    missed = why(with_effects, "RULED")[0]
    assert missed["reason"] == "misfire" and "had not ended well" in missed["message"]
    assert "waits for scenario:R_FIRST" in with_effects.rows("SCHED NEXT RULED -COUNT=1")[0]["note"]
    with_effects.ok("EXEC R_FIRST -SYNC")
    row, = wait_sessions(with_effects, "RULED", 1)
    assert seconds_of(row["due"]) == due and waiting(with_effects, "RULED") is None
    assert with_effects.log_texts(row["session"]) == ["1 " + row["due"]]
    rows = check_complete(why(with_effects, "RULED"))
    assert [row["reason"] for row in rows] == ["misfire", "", "window"]
    assert int(rows[0]["count"]) == due - int(seconds_of(rows[0]["due"]))


def test_a_due_time_that_waits_when_its_schedule_is_changed_is_told(with_effects):
    names = ("R_OFF", "R_RULE", "R_AFTER")
    for name, change in zip(names, ("OFF R_OFF", "SET R_RULE -RULE='daily at 02:00'", "SET R_AFTER -AFTER=")):
        wait_for(lambda: waiting(with_effects, name) == with_effects.effects, "%s to wait" % name)
        assert why(with_effects, name) == []
        with_effects.ok("SCHED " + change)
        row, = why(with_effects, name)
        assert (row["decision"], row["reason"], seconds_of(row["due"])) == ("skipped", "misfire", with_effects.effects)
        assert "changed" in row["message"] and waiting(with_effects, name) is None
    with_effects.ok("EXEC R_NEVER -SYNC")
    for name in names:
        with_effects.ok("SCHED ON " + name)
        assert waiting(with_effects, name) is None and len(why(with_effects, name)) == 1
        with_effects.ok("SCHED DEL " + name)


def test_what_others_run_after_stays(quiet):
    quiet.import_os("D_FIRST", "true")
    quiet.ok("SCHED ADD D_A J -1 GLOBAL -AFTER=scenario:D_FIRST")
    quiet.ok("SCHED ADD D_B K -1 GLOBAL -AFTER=D_A")
    quiet.send("SCHED DEL D_A")
    quiet.expect("ERR CONFLICT schedule D_B runs after it")
    quiet.send("DROP D_FIRST 1")
    quiet.expect("ERR CONFLICT *D_A*")
    quiet.import_os("D_FIRST", "true", version="2")
    quiet.ok("DROP D_FIRST 1")             # there still is one
    assert quiet.err("DROP D_FIRST 2") == "CONFLICT"
    quiet.ok("SCHED DEL D_B")
    quiet.ok("SCHED DEL D_A")
    quiet.ok("DROP D_FIRST 2")


def test_no_schedule_waits_for_itself_by_way_of_others(quiet):
    for name in ("L_ONE", "L_TWO"):
        quiet.import_os(name, "true")
    quiet.ok("SCHED ADD L_A J -1 GLOBAL -AFTER=scenario:L_ONE")
    quiet.ok("SCHED ADD L_B J -1 GLOBAL -AFTER=L_A")
    quiet.ok("SCHED ADD L_C L_TWO -1 GLOBAL -AFTER=L_B")
    before = exported(quiet)["schedules"]
    for request in ("SCHED SET L_A -AFTER=scenario:L_ONE,L_C", "SCHED SET L_A -AFTER=scenario:L_TWO",
                    "SCHED SET L_A -AFTER=L_C -RULE='daily at 02:00'",
                    "SCHED SET L_A -SCENARIO=L_ONE", "SCHED ADD L_D L_ONE -1 GLOBAL -AFTER=L_C",
                    "SCHED ADD L_E L_TWO -1 GLOBAL -AFTER=scenario:L_TWO"):
        assert quiet.ask(request)[-1].startswith("ERR CONFLICT"), request
        assert "would wait for itself" in quiet.ask(request)[-1]
    lines = quiet.ask("IMPORT '%s'" % json.dumps({"schedules": [
        {"name": "L_X", "scenario": "J", "after": "L_Y"}, {"name": "L_Y", "scenario": "J", "after": "L_X"}]}))
    assert lines[0].startswith("* schedules[0].after: ") and lines[-1].startswith("ERR BAD_REQUEST"), lines
    assert exported(quiet)["schedules"] == before
    # with a rule it is due by that, and others start the scenario too: no circle that turns by itself
    quiet.ok("SCHED SET L_A -AFTER=scenario:L_TWO -RULE='daily at 02:00'")
    assert quiet.ask("SCHED SET L_A -RULE=")[-1].startswith("ERR CONFLICT")
    quiet.ok("SCHED SET L_A -AFTER=")
    for name in ("L_C", "L_B", "L_A"):
        quiet.ok("SCHED DEL " + name)


def test_after_a_crash_between_what_has_ended_still_counts(make_agent):
    """Killed at the moment the first ends; and while due times wait for it."""
    agent = make_agent().start()
    import_scenarios(agent, "J", "K", "R_FIRST")
    agent.ok("SCHED ADD NEXT J -1 GLOBAL -AFTER=scenario:K -OVERLAP=parallel")
    agent.ok("SCHED ADD LAST J -1 GLOBAL -AFTER=NEXT -OVERLAP=parallel")
    due = import_ahead(agent, lambda due: {
        "WAITS": {"rule": rule_at(due), "after": "scenario:R_FIRST"},
        "EVERY": {"rule": "every 1s", "after": "scenario:K", "overlap": "parallel"}})
    for count in (1, 2):
        if count == 2:      # EVERY then has decided nothing since it fired, and waits
            wait_for(lambda: waiting(agent, "WAITS") == due and waiting(agent, "EVERY"))
        agent.ok("EXEC K -SYNC")
        if count == 2:
            fired = len([row for row in why(agent, "EVERY") if row["session"]])
            wait_for(lambda: waiting(agent, "EVERY"))
        agent.kill()
        if count == 2:
            time.sleep(1.2)
        agent.start()
        wait_for(lambda: len(sessions_of(agent, "NEXT")) >= count)
        wait_sessions(agent, "NEXT", count, "DONE", "ERROR")
    assert fired and len(sessions_of(agent, "NEXT")) == 2
    ends = [row["status"] for row in sessions_of(agent, "NEXT")]    # ERROR: a crash left it stale
    assert len(wait_sessions(agent, "LAST", ends.count("DONE"), "DONE", "ERROR")) == ends.count("DONE")
    assert waiting(agent, "WAITS") == due and sessions_of(agent, "WAITS") == why(agent, "WAITS") == []
    agent.ok("EXEC R_FIRST -SYNC")
    row, = wait_sessions(agent, "WAITS", 1)
    assert seconds_of(row["due"]) == due
    wait_for(lambda: waiting(agent, "EVERY"))
    agent.ok("EXEC K -SYNC")
    wait_for(lambda: len([row for row in why(agent, "EVERY") if row["session"]]) > fired)
    agent.ok("SCHED OFF EVERY")
    check_complete(why(agent, "EVERY"))
    assert agent.stop() == 0


# -- hold ------------------------------------------------------------------------------

def test_a_hold_is_shown_with_reason_and_until_over_restarts(make_agent):
    agent = make_agent().start()
    import_scenarios(agent, "J")
    for name in ("A", "B", "C"):
        agent.ok("SCHED ADD %s J -1 GLOBAL 'every 1s' -OVERLAP=parallel" % name)
    agent.ok("HOLD 'a disk is full' -SCHEDULE=A -UNTIL=2099-01-01T00:00Z")
    agent.ok("HOLD -SCHEDULE=B")
    agent.ok("HOLD 'back-up of \"all\"' -UNTIL=2098-01-01T00:00Z")

    def check():
        row = agent.ok("PING")
        assert (row["hold"], row["hold_reason"]) == ("yes", 'back-up of "all"') and row["hold_by"]
        assert seconds_of(row["hold_until"]) == 4039372800
        rows = {row["name"]: row for row in agent.rows("SCHED LIST")}
        assert [rows[name]["hold"] for name in "ABC"] == ["yes", "yes", "no"]
        assert rows["A"]["hold_reason"] == "a disk is full" and rows["B"]["hold_reason"] == ""
        assert seconds_of(rows["A"]["hold_until"]) == 4070908800 and rows["B"]["hold_until"] == ""
        assert "hold_reason" not in rows["C"]
        held = agent.rows("SCHED SHOW A")[-1]
        assert (held["reason"], held["until"]) == ("a disk is full", rows["A"]["hold_until"]) and held["by"]
        return row["hold_by"]
    by = check()
    agent.kill()
    agent.start()
    assert check() == by

    def hold(until):
        agent.ask("HOLD soon -SCHEDULE=B -UNTIL=%s" % utc(until))
        agent.ask("HOLD 'the same moment' -UNTIL=%s" % utc(until))
        return agent.ok("PING")
    until, row = ahead(hold)
    assert row["hold_reason"] == "the same moment"
    agent.stop()
    agent.start()
    wait_for(lambda: agent.ok("PING")["hold"] == "no", "the hold of the agent to end")
    wait_for(lambda: show_options(agent, "B")[0]["hold"] == "no", "the hold of B to end")
    assert time.time() >= until
    assert set(agent.ok("PING")) & {"hold_reason", "hold_by", "hold_until"} == set()
    assert "hold_reason" not in show_options(agent, "B")[0]
    assert show_options(agent, "A")[0]["hold_reason"] == "a disk is full"
    agent.ok("RELEASE -SCHEDULE=A")
    assert "hold_reason" not in show_options(agent, "A")[0]
    for name in "AB":
        row = wait_for(lambda: [row for row in why(agent, name) if row["reason"]])[0]
        assert (row["decision"], row["reason"]) == ("skipped", "hold") and "held" in row["message"]
    assert agent.stop() == 0


# -- calendars -------------------------------------------------------------------------

def test_calendar_verbs(quiet):
    quiet.send("CALENDAR ADD BANK 2026-12-25,2026-12-27..2026-12-31")
    quiet.expect("OK calendar=BANK")
    assert {"calendar": "BANK", "dates": "2026-12-25,2026-12-27..2026-12-31"} in quiet.rows("CALENDAR LIST")
    assert quiet.err("CALENDAR ADD BANK 2026-12-25") == "EXISTS"
    quiet.send("CALENDAR SET NO_SUCH 2026-12-25")
    quiet.expect("ERR NOT_FOUND no calendar NO_SUCH")
    quiet.send("CALENDAR DEL NO_SUCH")
    quiet.expect("ERR NOT_FOUND no calendar NO_SUCH")
    for dates in ("2026-02-30", "christmas", "''", "2026-12-31..2026-12-24", "2026-12-25..", "NOW"):
        assert quiet.err("CALENDAR ADD OTHER " + dates) == "BAD_REQUEST", dates
    for name in ("2026", "a,b", "''"):
        assert quiet.err("CALENDAR ADD %s 2026-12-25" % name) == "BAD_REQUEST", name
    quiet.ok("SCHED ADD CAL J -1 GLOBAL 'daily at 12:00' -TIMEZONE=UTC -EXCLUDE_DATES=2026-12-24,BANK")
    quiet.send("CALENDAR DEL BANK")
    quiet.expect("ERR CONFLICT schedule CAL in repository WORKREP uses calendar BANK")

    def coming():
        return [row["due"][:10] for row in quiet.rows("SCHED NEXT CAL -FROM=2026-12-23T13:00Z -COUNT=2")]
    assert coming() == ["2026-12-26", "2027-01-01"]
    quiet.ok("CALENDAR SET BANK 2026-12-26")
    assert coming() == ["2026-12-25", "2026-12-27"]
    assert [c for c in exported(quiet)["calendars"] if c["name"] == "BANK"] == [
        {"name": "BANK", "dates": ["2026-12-26"]}]
    quiet.import_document({"calendars": [{"name": "BANK", "dates": "2026-12-25"}]})
    assert coming() == ["2026-12-26", "2026-12-27"]
    quiet.ok("SCHED SET CAL -EXCLUDE_DATES=2026-12-24")
    quiet.ok("CALENDAR DEL BANK")
    assert "BANK" not in {row["calendar"] for row in quiet.rows("CALENDAR LIST")}
    assert quiet.err("SCHED SET CAL -EXCLUDE_DATES=BANK") == "NOT_FOUND"
    quiet.ok("SCHED DEL CAL")


def test_a_calendar_is_effective_at_once_and_the_past_is_not_fired(quiet):
    always = "2020-01-01..2099-12-31"
    quiet.ok("CALENDAR ADD LATELY " + always)
    quiet.ok("CALENDAR ADD LATE " + always)        # a part of a name is no use of it
    quiet.ok("SCHED ADD LATELY J -1 GLOBAL 'every 1s' -OVERLAP=parallel -MISFIRE=all -EXCLUDE_DATES=LATELY")
    quiet.let_pass(2)
    assert why(quiet, "LATELY")[0]["reason"] == "window" and sessions_of(quiet, "LATELY") == []
    before = quiet.now()
    quiet.ok("CALENDAR SET LATELY 2020-01-01")
    after = quiet.now()
    quiet.let_pass(1)
    first = sessions_of(quiet, "LATELY")[0]
    assert before - 1 < seconds_of(first["due"]) < after + 2.5, first
    quiet.ok("CALENDAR SET LATELY " + always)
    count, begun = len(sessions_of(quiet, "LATELY")), quiet.now()
    quiet.let_pass(3)
    rows = sessions_of(quiet, "LATELY")
    assert len(rows) - count <= 1 and seconds_of(rows[-1]["due"]) <= begun
    quiet.ok("CALENDAR DEL LATE")
    quiet.ok("SCHED DEL LATELY")
    quiet.ok("CALENDAR DEL LATELY")


def test_a_broken_repository_keeps_nobody_from_the_calendars(make_inside):
    agent = make_inside().start()
    agent.ok("ATTACH SECOND second.db -CREATE")
    agent.stop()
    (agent.folder / "second.db").rename(agent.folder / "away.db")
    agent.start()
    assert agent.ok("PING")["repositories"] == "1/2"
    agent.ok("CALENDAR ADD HOLIDAYS 2026-12-25")
    agent.ok("CALENDAR SET HOLIDAYS 2026-12-26")
    agent.ok("SCHED ADD S HELLO -1 GLOBAL 'daily at 02:00' -REPO=WORKREP -EXCLUDE_DATES=HOLIDAYS")
    last = agent.ask("CALENDAR DEL HOLIDAYS")[-1]       # what cannot be read may use it
    assert last.startswith("ERR CONFLICT") or last.startswith("ERR REPOSITORY"), last


def test_schedules_of_one_name_in_two_repositories_are_told_apart(make_inside):
    agent = make_inside().start()
    agent.ok("ATTACH SECOND second.db -CREATE")
    for repository, rule in (("WORKREP", "daily at 02:00"), ("SECOND", "startup")):
        agent.ok("SCHED ADD S HELLO -1 GLOBAL '%s' -TIMEZONE=UTC -REPO=%s" % (rule, repository))
    assert [row["repository"] for row in agent.rows("SCHED LIST")] == ["WORKREP", "SECOND"]
    assert [row["repository"] for row in agent.rows("SCHED NEXT S -COUNT=3")] == ["WORKREP"] * 3
    agent.stop()
    agent.start()
    rows = wait_for(lambda: agent.rows("SCHED WHY S"), "the start to be decided")
    assert [row["repository"] for row in rows] == ["SECOND"]
    planned = agent.rows("SCHED PLAN -ALL -TO=%s" % utc(time.time() + 2 * 86400))
    assert {row["repository"] for row in planned} == {"WORKREP"}
    agent.ok("SCHED DEL S -REPO=SECOND")
    assert agent.rows("SCHED WHY S -REPO=WORKREP") == [] != agent.rows("SCHED WHY S -REPO=SECOND")
    wait_sessions(agent, "S", 1)
    agent.ok("DETACH SECOND")
    assert list(agent.rows("SCHED NEXT S -COUNT=1")[0]) == ["schedule", "due", "note"]


def test_another_agent_of_the_master_follows_the_calendars(with_effects):
    """Its schedule was excluded by a calendar until `shared` changed it, which it has heard by now."""
    rows = wait_for(lambda: sessions_of(with_effects, "OTHERS"), "the other agent to fire")
    assert seconds_of(rows[0]["due"]) >= with_effects.changed
    wait_for(lambda: sessions_of(with_effects, "THEIRS"))     # it was added together with its calendar
    assert "failed" not in {row["decision"] for row in why(with_effects, "THEIRS")}
    with_effects.ok("CALENDAR SET OTHERS 2020-01-01..2099-12-31")
    with_effects.other.ok("SCHED UPDATE")                     # at once
    begun = time.time()
    wait_decided(with_effects, "TICK", begun + 1)
    assert seconds_of(sessions_of(with_effects, "OTHERS")[-1]["due"]) <= begun
    with_effects.other.ok("CALENDAR ADD NEWEST 2026-12-25")
    with_effects.ok("SCHED ADD NEWEST J -1 GLOBAL 'daily at 12:00' -TIMEZONE=UTC -EXCLUDE_DATES=NEWEST")
    assert with_effects.rows("SCHED NEXT NEWEST -FROM=2026-12-24T13:00Z -COUNT=1")[0]["due"][:10] == "2026-12-26"
    assert with_effects.other.err("CALENDAR DEL NEWEST") == "CONFLICT"


# -- why it does not run now -----------------------------------------------------------

def test_why_ends_with_what_stands_in_the_way_now(make_inside):
    agent = make_inside().start()
    import_scenarios(agent, "J", "K", "BAD")
    agent.ok("SCHED ADD NIGHT J -1 GLOBAL 'daily at 02:00'")
    agent.ok("SCHED ADD FIRST BAD -1 GLOBAL startup")
    agent.ok("SCHED ADD NEXT J -1 GLOBAL -AFTER=FIRST,scenario:K")

    def note(name):
        return agent.ok("SCHED WHY %s" % name).get("note", "")
    assert note("NIGHT").startswith("next due ")
    assert note("NEXT") == "waits for scenario K; waits for schedule FIRST"
    for name, rule, words in (("FIRST", "startup", "fires at each start of the agent"),
                              ("BOOT", "boot", "fires at the agent's first start after the host's next boot")):
        if name != "FIRST":
            agent.ok("SCHED ADD %s J -1 GLOBAL '%s'" % (name, rule))
        assert note(name) == words
        agent.ok("SCHED OFF " + name)
        assert note(name) == "disabled"
        agent.ok(("SCHED ON " if name == "FIRST" else "SCHED DEL ") + name)
    ahead(lambda instant: agent.ask("SCHED ADD PAST J -1 GLOBAL 'at %s'" % local(instant)))
    wait_for(lambda: why(agent, "PAST"), "its only due time")
    assert note("PAST") == "no due time lies ahead"
    agent.ok("SCHED OFF NIGHT")
    assert note("NIGHT").startswith("disabled")
    agent.ok("SCHED ON NIGHT")
    assert agent.ok("HOLD 'disk full' -SCHEDULE=NIGHT -UNTIL=2098-01-01") == {"schedule": "NIGHT", "hold": "yes"}
    assert "held since " in note("NIGHT") and "until 2098-01-01" in note("NIGHT") and "disk full" in note("NIGHT")
    assert "disk full" in agent.rows("SCHED NEXT NIGHT -COUNT=1")[0]["note"]
    assert agent.ok("HOLD 'back-up'") == {"agent": "AGENT", "hold": "yes"}
    assert "back-up" in note("FIRST") and "the release" in note("FIRST")
    assert agent.ok("RELEASE") == {"agent": "AGENT", "hold": "no"}
    assert agent.ok("RELEASE -SCHEDULE=NIGHT") == {"schedule": "NIGHT", "hold": "no"}
    agent.stop()
    agent.start()
    row = wait_for(lambda: [row for row in why(agent, "FIRST") if row["status"] == "ERROR"], "the end of FIRST")[0]
    assert row["message"].startswith("session %s, it is ERROR (step a" % row["session"])
    assert ", whose newest session %s is ERROR" % row["session"] in note("NEXT")
    agent.ok("SCHED DEL NEXT")
    agent.ok("SCHED DEL FIRST")
    assert len(why(agent, "FIRST")) == 1 and note("FIRST") == ""
    assert agent.ask("SCHED WHY")[-1] == "OK"


@pytest.mark.parametrize("hold", ["HOLD", "HOLD -SCHEDULE=SKIPPED;HOLD -SCHEDULE=ONCE"])
def test_a_start_that_was_held_is_decided_by_misfire(make_inside, hold):
    agent = make_inside().start()
    import_scenarios(agent, "J")
    agent.ok("SCHED ADD SKIPPED J -1 GLOBAL startup -MISFIRE=skip")
    agent.ok("SCHED ADD ONCE J -1 GLOBAL startup")
    for line in hold.split(";"):
        agent.ok(line)
    agent.stop()
    agent.start()
    assert why(agent, "SKIPPED") == why(agent, "ONCE") == []
    for line in hold.split(";"):
        agent.ok(line.replace("HOLD", "RELEASE"))
    skipped, = wait_for(lambda: why(agent, "SKIPPED"), "what was skipped")
    once, = wait_for(lambda: why(agent, "ONCE"), "what runs")
    assert (skipped["decision"], skipped["reason"], skipped["session"]) == ("skipped", "hold", "")
    assert once["session"] and "held at that time" in once["message"]
    agent.stop()
    agent.start()
    wait_for(lambda: len(why(agent, "SKIPPED")) == 2, "a start that is not held fires all the same")
    assert why(agent, "SKIPPED")[-1]["session"]


def test_what_another_program_writes_into_after_is_waited_for(with_effects):
    for name in ("F_OLD", "F_NEW"):
        with_effects.import_os(name, "true")
    with_effects.ok("SCHED ADD F J -1 GLOBAL -AFTER=scenario:F_OLD")
    with sqlite3.connect(str(with_effects.work), timeout=30) as other:
        other.execute("update schedule set options=replace(options, 'F_OLD', 'F_NEW') where name='F'")
    other.close()
    wait_for(lambda: conditions(with_effects, "F") == {"F_NEW": False}, "the change to be noticed")
    with_effects.ok("EXEC F_OLD -SYNC")
    with_effects.ok("EXEC F_NEW -SYNC")
    assert "after scenario:F_NEW" in wait_for(lambda: why(with_effects, "F"), "the session after it")[0]["message"]
    assert len(why(with_effects, "F")) == 1
    with_effects.ok("SCHED DEL F")


def test_an_import_counts_what_it_changes(quiet):
    document = {"schedules": [dict(name="I_%d" % number, scenario="J", version="-1", context="GLOBAL",
                                   rule="daily at 02:00") for number in (1, 2)]}
    assert quiet.import_document(document)["schedules"] == "2"
    document["schedules"][0]["rule"] = "daily at 03:00"
    assert quiet.import_document(document)["schedules"] == "1"
    assert quiet.import_document(document)["schedules"] == "0"


def test_how_late_a_session_began_is_told(make_inside, monkeypatch):
    agent = make_inside("--max-sessions", "1").start()
    import_scenarios(agent, "J", "GATED")
    monkeypatch.chdir(str(agent.folder))        # where its tasks work
    agent.ok("EXEC GATED")
    due = int(agent.now()) + 60
    import_schedules(agent, {"LATE": {"rule": rule_at(due)}}, "J")
    agent.let_pass_until(due)
    assert why(agent, "LATE")
    agent.let_pass_until(due + 2.6)
    (agent.folder / "go").touch()
    row, = wait_for(lambda: [row for row in why(agent, "LATE") if row["status"] == "DONE"], "its end")
    begun = agent.status(row["session"])["begun"]
    assert row["decision"] == "late" and row["message"] == (
        "session %s began %.0f s late, it had waited for a free slot, a limit or the one before it, it is DONE"
        % (row["session"], seconds_of(begun) - due))
