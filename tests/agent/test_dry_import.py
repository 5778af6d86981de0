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
    *lines, last = inside.ask("IMPORT '%s' -DRY_RUN" % text)
    assert lines[:2] == ["* kind=calendar name=HOLIDAYS version= change=new", "* kind=scenario name=A version=1 change=new"]
    assert lines[2].startswith("* kind=schedule name=S version= change=new next=2099-01-01T") and len(lines) == 3
    assert last.startswith("OK scenarios=1 schedules=1 ") and last.endswith(" warnings=0 dry_run=yes")
    assert inside.ask("EXPORT") == before and inside.rows("SCHED LIST") == inside.rows("CALENDAR LIST") == []
    *lines, last = inside.ask("IMPORT '%s'" % text)
    assert last.startswith("OK scenarios=1 schedules=1 ") and not [line for line in lines if " next=" in line]
    assert inside.ask("IMPORT '%s' -DRY_RUN" % text)[-1].startswith("OK scenarios=0 schedules=0 ")
    exported = json.loads("".join(part[2:] for part in inside.ask("EXPORT A")[:-1]))
    assert exported["scenarios"] == document()["scenarios"]         # with its description


def test_next_due_times(inside):
    for fields, due in (({"exclude_dates": "HOLIDAYS", "rule": "yearly on 01-01,12-31 at 12:00", "from": "2099-01-01"}, "2099-12-31"),
                        ({"enabled": False}, ""), ({"rule": "boot", "timezone": ""}, ""), ({"rule": "startup"}, "")):
        rows = inside.rows("IMPORT '%s' -DRY_RUN" % json.dumps(document(**fields)))
        assert [row["next"][:10] for row in rows if row["kind"] == "schedule"] == [due]
    assert inside.err("IMPORT '%s' -DRY_RUN" % json.dumps(document(rule="daily"))) == "BAD_REQUEST"
    warned = inside.ask("IMPORT '%s' -DRY_RUN" % json.dumps(document(rule="cron */90 * * * *")))
    assert warned[-2].startswith("* warning=") and warned[-2].endswith(" path=schedules[0].rule")
