"""IMPORT -DRY_RUN: everything is checked and told, nothing is written."""
import json


def document(**schedule):
    """A scenario with a description, and a schedule of it."""
    return {"scenarios": [{"name": "A", "version": "1", "description": "What it is for",
                           "steps": [{"name": "s", "tasks": [{"type": "os", "command": "true"}]}]}],
            "schedules": [dict({"name": "S", "scenario": "A", "rule": "at 2099-01-01 12:00", "timezone": "UTC"}, **schedule)],
            "calendars": [{"name": "HOLIDAYS", "dates": "2099-01-01"}]}


def test_it_answers_as_the_import_and_writes_nothing(inside):
    before = inside.ask("EXPORT")
    text = json.dumps(document())
    line, last = inside.ask("IMPORT '%s' -DRY_RUN" % text)
    assert line.startswith("* kind=schedule name=S version= ") and " next=2099-01-01T" in line
    assert last == "OK scenarios=1 schedules=1 dry_run=yes"
    assert inside.ask("EXPORT") == before and inside.rows("SCHED LIST") == inside.rows("CALENDAR LIST") == []
    assert inside.ok("IMPORT '%s'" % text) == {"scenarios": "1", "schedules": "1"}
    assert inside.ask("IMPORT '%s' -DRY_RUN" % text)[-1] == "OK scenarios=0 schedules=0 dry_run=yes"
    exported = json.loads("".join(part[2:] for part in inside.ask("EXPORT A")[:-1]))
    assert exported["scenarios"] == document()["scenarios"]         # with its description


def test_next_due_times(inside):
    for fields, due in (({"exclude_dates": "HOLIDAYS", "rule": "yearly on 01-01,12-31 at 12:00", "from": "2099-01-01"}, "2099-12-31"),
                        ({"enabled": False}, ""), ({"rule": "boot", "timezone": ""}, ""), ({"rule": "startup"}, "")):
        row, = inside.rows("IMPORT '%s' -DRY_RUN" % json.dumps(document(**fields)))
        assert row["next"][:10] == due
    assert inside.err("IMPORT '%s' -DRY_RUN" % json.dumps(document(rule="daily"))) == "BAD_REQUEST"
    warned = inside.ask("IMPORT '%s' -DRY_RUN" % json.dumps(document(rule="cron */90 * * * *")))
    assert "* schedules[0].rule: warning: '*/90' is minute 0 of each hour" in warned[1]
