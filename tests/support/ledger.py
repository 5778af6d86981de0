"""Schedules and their ledgers: every due time once."""
import time
from datetime import datetime

from agent import make_timetable
from conftest import sessions_of, wait_for, why


# -- schedules ---------------------------------------------------------------------------

def rule_at(instant):
    """The rule that is due in one second of each day of UTC."""
    return time.strftime("cron %S %M %H * * *", time.gmtime(instant))


def import_schedules(agent, schedules, scenario):
    """Schedules in UTC of a scenario: {name: fields}."""
    agent.import_document({"schedules": [dict({"scenario": scenario, "timezone": "UTC"}, name=name, **fields)
                                         for name, fields in schedules.items()]})


# -- the ledger ------------------------------------------------------------------------

def wait_decided(agent, name, instant):
    """Waits until a schedule has decided what is due up to an instant."""
    wait_for(lambda: [row for row in agent.rows("SCHED WHY %s -LIMIT=1" % name)
                      if seconds_of(row["last_due"]) >= instant], "%s to be decided" % name)


def seconds_of(text):
    """A time of a reply -> epoch seconds."""
    moment = datetime.strptime(text[:19] + text[-6:].replace(":", ""), "%Y-%m-%dT%H:%M:%S%z")
    return moment.timestamp() + float("0" + text[19:-6])


def check_complete(rows, rule="every 1s", zone="", since=None):
    """Every due time from the first after `since` (None: of the rows) to the last stands in these rows of SCHED WHY,
    oldest first, exactly once; with one session, or with why it has none -> rows."""
    timetable, upto = make_timetable(rule, zone), since
    for row in rows:
        first, last = int(seconds_of(row["due"])), int(seconds_of(row["last_due"]))
        assert timetable.count(first - 1, last) == int(row["count"]), row
        assert upto is None or timetable.next_after(upto) == first, (upto, row)
        upto = last
        assert (row["decision"] in ("started", "late")) == (row["session"] != ""), row
        assert not row["session"] or row["count"] == "1", row
    sessions = [row["session"] for row in rows if row["session"]]
    assert len(set(sessions)) == len(sessions)
    return rows


def check_ledger(agent, name, rule="every 1s", since=None):
    """check_complete of a schedule whose zone is UTC, none of it failed; and it has just the sessions that stand
    there -> rows."""
    rows = check_complete(why(agent, name), rule, "UTC", since)
    for row in rows:
        assert row["decision"] != "failed" and (row["session"] != "") == (row["reason"] == ""), row
    upto = rows[-1]["last_due"] if rows else None
    dues = {row["session"]: row["due"] for row in sessions_of(agent, name)
            if upto is None or seconds_of(row["due"]) <= seconds_of(upto)}     # later ones came after the ledger was read
    assert dues == {row["session"]: row["due"] for row in rows if row["session"]}, name
    assert len(set(dues.values())) == len(dues), name
    return rows
