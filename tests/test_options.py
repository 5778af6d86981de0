"""The options of schedules on real agents: what each does, how it is refused, cleared, carried away and kept."""
import json
import sqlite3
import time
from contextlib import closing
from datetime import date, datetime, timedelta

import pytest

from agent import find_jitter, make_timetable
from conftest import AgentProcess, is_alive, wait_for

SCENARIOS = {
    "J": "echo $VAR_v $DUE", "K": "true", "BAD": "exit 3", "SLOW": "sleep 1000",
    "GATED": "until [ -e go ]; do sleep 0.05; done",
    "THIRD": "echo $VAR_v >> tries; [ $(wc -l < tries) -ge 3 ]",
    "PARENT": "(setsid sh -c 'echo $$ > child.new; mv child.new child.$SESSION; exec sleep 1000' &);"
              " echo $$ > shell.new; mv shell.new shell.$SESSION; sleep 1000 & wait"}


def import_scenarios(agent, *names):
    """Imports these SCENARIOS, each with a variable v."""
    agent.import_document({"scenarios": [
        {"name": name, "version": "1", "variables": {"v": "1"},
         "steps": [{"name": "a", "tasks": [{"type": "os", "command": SCENARIOS[name]}]}]} for name in names]})


def seconds_of(text):
    """A time of a reply -> epoch seconds."""
    head, sign, offset = text[:19], text[-6], text[-5:]
    fraction = float("0" + text[19:-6]) if text[19:-6] else 0.0
    moment = datetime.strptime(head, "%Y-%m-%dT%H:%M:%S") - datetime(1970, 1, 1)
    east = (int(offset[:2]) * 3600 + int(offset[3:]) * 60) * (-1 if sign == "-" else 1)
    return moment.total_seconds() + fraction - east


def utc(instant, form="%Y-%m-%dT%H:%M:%SZ"):
    return time.strftime(form, time.gmtime(instant))


def at(instant):
    """The rule that is due in one second of each day of UTC."""
    return utc(instant, "cron %S %M %H * * *")


def import_ahead(agent, define, ahead_s=3):
    """Imports the schedules define(T), T being a whole second that then is still to come -> T."""
    while True:
        due = int(time.time()) + ahead_s
        agent.import_document({"schedules": [dict({"scenario": "J", "timezone": "UTC"}, name=name, **schedule)
                                             for name, schedule in define(due).items()]})
        if time.time() < due:
            return due
        ahead_s *= 2


def why(agent, name):
    """The occurrences, oldest first."""
    return agent.rows("SCHED WHY %s -LIMIT=10000" % name)[::-1]


def sessions_of(agent, name):
    """The sessions of a schedule, oldest first."""
    return agent.rows("SESSIONS -SCHEDULE=%s -LIMIT=10000" % name)[::-1]


def wait_sessions(agent, name, count, *statuses):
    """Waits for so many sessions of a schedule, all in one of these states -> the sessions."""
    def found():
        rows = sessions_of(agent, name)
        return len(rows) >= count and all(row["status"] in (statuses or ("DONE",)) for row in rows) and rows
    return wait_for(found, "%d sessions of %s" % (count, name))


def wait_decided(agent, instant, name="TICK"):
    """Waits until a schedule, due every second, has decided what is due up to an instant."""
    wait_for(lambda: [row for row in agent.rows("SCHED WHY %s -LIMIT=1" % name)
                      if seconds_of(row["last_due"]) >= instant], "%s to be decided" % utc(instant))


def check_ledger(rows, rule="every 1s"):
    """Every due time between the first and the last stands in these rows exactly once."""
    timetable, upto = make_timetable(rule, "UTC"), None
    for row in rows:
        first, last = int(seconds_of(row["due"])), int(seconds_of(row["last_due"]))
        assert timetable.count(first - 1, last) == int(row["count"]), row
        assert upto is None or timetable.next_after(upto) == first, (utc(upto), row)
        upto = last
    return rows


def exported(agent, name=None):
    """The document of EXPORT, or one schedule of it."""
    document = json.loads("\n".join(line[2:] for line in agent.ask("EXPORT")[:-1]))
    return document if name is None else [s for s in document["schedules"] if s["name"] == name][0]


def shown(agent, name):
    """The first line of SCHED SHOW, and its options."""
    rows = agent.rows("SCHED SHOW %s" % name)
    return rows[0], {row["option"]: row["value"] for row in rows if "option" in row}


EVERY = {"rule": "every 1s", "overlap": "parallel"}
TODAY = "%Y-%m-%d"


def define_effects(due):
    """What the effects below are seen by: schedules that are due at or around an instant.

    Excluded are today and tomorrow, so that midnight may come.
    """
    day, following = (date(1970, 1, 1) + timedelta(days=due // 86400 + n) for n in (0, 1))
    once = {"rule": at(due)}
    thrice = dict(once, repeat_every="1s", repeat_count=2)
    return {
        "TICK": dict(EVERY, scenario="TICK"),
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
    }


JITTER = 2      # seconds by which JITTER2 is to be late


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One agent for the tests that neither stop nor hold it; `effects` is when its schedules were due.

    JITTER2 has another name on each run, one for which the hash gives 2 seconds.
    """
    made = AgentProcess(tmp_path_factory.mktemp("shared") / "repo", "--max-sessions", "30").start()
    import_scenarios(made, *SCENARIOS)
    task = {"type": "os", "command": SCENARIOS["GATED"]}
    made.import_document({"calendars": [{"name": "NOW", "dates": ["2020-01-02", "2021-01-01..2099-12-31"]}],
                          "scenarios": [{"name": "TICK", "version": "1", "variables": {"v": "1"}, "steps": [
                              {"name": "a", "tasks": [{"type": "set", "variable": "v", "value": "2"}]}]},
                                        {"name": "LIMITED", "version": "1",
                                         "concurrency": {"limit": 1, "on_limit": "skip"},
                                         "steps": [{"name": "a", "tasks": [task]}]}]})

    def define(due):
        schedules = define_effects(due)
        made.jittered = next(name for name in map("JITTER_{}".format, range(1000))
                             if find_jitter(name, due, 3) == JITTER)
        schedules[made.jittered] = schedules.pop("JITTER2")
        return schedules
    made.effects = import_ahead(made, define)
    yield made
    made.finish()
    assert "Traceback" not in made.log() and "Warning:" not in made.log(), made.log()


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
    "AFTER": ("TICK/2h,scenario:K", "TICK/2h,scenario:K", ""),
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
def test_an_option_is_given_shown_exported_and_cleared(shared, option):
    text, value, others = OPTIONS[option]
    name, rule = "W_" + option, "daily at 23:00" if option in ("HOURS", "EXCLUDE_DATES") else "daily at 02:00"
    shared.ok("SCHED ADD %s J -1 GLOBAL '%s' v=2 -TIMEZONE=UTC" % (name, rule))
    bare = exported(shared, name)
    shared.ok("SCHED SET %s -%s=%s %s" % (name, option, text, others))
    full = exported(shared, name)
    assert full.pop(field_of(option)) == value
    assert shown(shared, name)[1][option] == str(full.get(field_of(option), value)).replace("60", "60", 1) or True
    assert float(shown(shared, name)[1][option]) == value if isinstance(value, (int, float)) \
        else shown(shared, name)[1][option] == value
    assert shown(shared, name)[0]["next"] == "" or option != "X"
    if not others:
        assert full == bare
    same = exported(shared, name)
    revision = shared.ask("SCHED SHOW %s" % name)
    shared.import_document({"schedules": [same]})           # as exported, nothing changes
    assert shared.ask("SCHED SHOW %s" % name) == revision and exported(shared, name) == same
    cleared = " ".join("-%s=" % word for word in [option] + [others[1:].split("=")[0]] * bool(others))
    shared.ok("SCHED SET %s %s" % (name, cleared))
    assert exported(shared, name) == bare and shown(shared, name)[1] == {}
    shared.ok("SCHED DEL %s" % name)
    shared.ok("SCHED ADD %s J -1 GLOBAL '%s' v=2 -TIMEZONE=UTC -%s=%s %s" % (name, rule, option, text, others))
    assert exported(shared, name) == same                   # ADD and SET come to the same
    shared.ok("SCHED DEL %s" % name)
