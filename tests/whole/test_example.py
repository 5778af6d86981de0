"""The weather example of sqlite_repos/examples, as it is delivered, in a real agent."""
import csv
import json
import sqlite3
from collections import defaultdict
from contextlib import closing

import pytest

from conftest import TOP

pytestmark = pytest.mark.once

EXAMPLES = TOP / "sqlite_repos" / "examples"
CONTEXTS = {"GLOBAL": "mart.db", "PROD": "mart-prod.db"}


@pytest.fixture
def out(agent, tmp_path):
    """The folder that the imported example writes to, in place of /tmp/weather."""
    folder = tmp_path / "weather"
    text = (EXAMPLES / "weather.json").read_text(encoding="utf-8")
    document = json.loads(text.replace("/tmp/weather", str(folder)))
    assert agent.import_document(document)
    return folder


@pytest.fixture
def days():
    """The rows of the data."""
    with open(str(EXAMPLES / "seattle-weather.csv"), newline="") as file:
        return list(csv.DictReader(file))


def run_example(agent, scenario, context="GLOBAL", folder=EXAMPLES, **variables):
    """The fields of a session that has ended."""
    words = " ".join('%s=%s' % (name, json.dumps(str(value)))
                     for name, value in dict(variables, folder=folder).items())
    return agent.ok("EXEC %s -1 %s %s -SYNC" % (scenario, context, words))


def broken(tmp_path, line, old, new):
    """A folder with a copy of the data in which a line, counted from 1, is changed."""
    lines = (EXAMPLES / "seattle-weather.csv").read_text().splitlines(True)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    folder = tmp_path / "broken"
    folder.mkdir(exist_ok=True)
    (folder / "seattle-weather.csv").write_text("".join(lines))
    return folder


def by_month(days):
    """The monthly table in Python: month -> rows."""
    months = defaultdict(list)
    for row in days:
        months[row["date"][:7]].append({name: float(row[name]) for name in
                                        ("precipitation", "temp_max", "temp_min")})
    return months


def mean(rows, name):
    return sum(row[name] for row in rows) / len(rows)


@pytest.mark.parametrize("context", CONTEXTS)
def test_weather(agent, out, days, context):
    for _ in range(2):
        assert run_example(agent, "WEATHER", context, out=out)["status"] == "DONE"
    for year in range(2012, 2016):
        lines = (out / ("%d.csv" % year)).read_text().splitlines()
        assert len(lines) - 1 == sum(row["date"].startswith(str(year)) for row in days)
    months = by_month(days)
    with open(str(out / "monthly-means.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["month"] for row in rows] == sorted(months)
    for row in rows:
        assert int(row["days"]) == len(months[row["month"]])
        for name in ("temp_max", "temp_min", "precipitation"):
            assert float(row[name]) == pytest.approx(mean(months[row["month"]], name), abs=0.051)


def test_weather_names_the_broken_line(agent, out, tmp_path):
    folder = broken(tmp_path, 17, ",", ";")
    ended = run_example(agent, "WEATHER", folder=folder, out=out)
    assert ended["status"] == "ERROR" and "step check" in ended["message"]
    texts = agent.log_texts(ended["session"])
    assert "seattle-weather.csv, line 17: 5 fields, not 6" in texts
    assert any("then RESTART %s" % ended["session"] in text for text in texts)


def check_mart(out, context, days, warm):
    """The database and the report of a context against Python's figures."""
    months = by_month(days)
    with closing(sqlite3.connect(str(out / CONTEXTS[context]))) as mart:
        stored = mart.execute("select * from weather order by date").fetchall()
        monthly = mart.execute("select * from monthly order by month").fetchall()
    assert stored == [(row["date"], float(row["precipitation"]), float(row["temp_max"]),
                       float(row["temp_min"]), float(row["wind"]), row["weather"]) for row in days]
    assert [row[0] for row in monthly] == sorted(months) and len(monthly) == 48
    for month, count, temp_max, temp_min, precipitation, warm_days in monthly:
        rows = months[month]
        assert (count, warm_days) == (len(rows), sum(row["temp_max"] >= warm for row in rows))
        assert temp_max == pytest.approx(mean(rows, "temp_max"), abs=0.051)
        assert temp_min == pytest.approx(mean(rows, "temp_min"), abs=0.051)
        assert precipitation == pytest.approx(sum(row["precipitation"] for row in rows), abs=0.051)
    with open(str(out / ("mart-%s.csv" % context)), newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["month", "days", "temp_max", "temp_min", "precipitation", "warm_days"]
    assert lines == [[str(value) for value in row] for row in monthly]


def test_mart_twice_in_both_contexts(agent, out, days):
    assert agent.rows("CONTEXTS") == [{"context": "GLOBAL", "schemas": "WEATHER:WEATHER_DB"},
                                      {"context": "PROD", "schemas": "WEATHER:WEATHER_DB_PROD"}]
    for context, warm in (("GLOBAL", 25), ("PROD", 30)):
        for _ in range(2):
            ended = run_example(agent, "WEATHER_MART", context, warm=warm)
            assert (ended["status"], ended["message"]) == ("DONE", "")
        check_mart(out, context, days, warm)
        values = {row["variable"]: row["value"] for row in
                  agent.rows("STATUS %s" % ended["session"]) if "variable" in row}
        assert [values[name] for name in ("days", "gaps", "months")] == [str(len(days)), "0", "48"]
        assert agent.log_texts(ended["session"]) == [
            "WEATHER_MART in %s: 48 months of %d days in %s/mart-%s.csv; warmest: %s"
            % (context, len(days), out, context, values["warmest"])]
    check_mart(out, "GLOBAL", days, 25)         # PROD touched nothing of it
    months = by_month(days)
    warmest = max(months, key=lambda month: mean(months[month], "temp_max"))
    assert values["warmest"].startswith(warmest)


@pytest.mark.parametrize("old, new, reason", [
    (",", ",wet", "line 17: precipitation: \"wet2.5\" is no real"),
    (",", ";", "line 17: 5 columns, not 6"),
])
def test_mart_names_the_broken_line_and_goes_on_once_it_is_mended(agent, out, days, tmp_path, old, new,
                                                                  reason):
    assert run_example(agent, "WEATHER_MART", "PROD")["status"] == "DONE"
    folder = broken(tmp_path, 17, old, new)
    ended = run_example(agent, "WEATHER_MART", "PROD", folder=folder)
    session = ended["session"]
    assert ended["status"] == "ERROR"
    assert ended["message"].startswith("step load: task 1: " + reason), ended
    steps = [row["name"] for row in agent.rows("STATUS %s" % session) if "step" in row]
    assert steps == ["prepare", "load", "alert"]
    assert any("mend %s/seattle-weather.csv, then RESTART %s" % (folder, session) in text
               for text in agent.log_texts(session))
    check_mart(out, "PROD", days, 25)           # nothing of the broken file was loaded

    (folder / "seattle-weather.csv").write_bytes((EXAMPLES / "seattle-weather.csv").read_bytes())
    agent.ok("RESTART %s" % session)
    assert agent.ok("WAIT %s" % session)["status"] == "DONE"
    steps = [row["name"] for row in agent.rows("STATUS %s" % session) if "step" in row]
    assert steps == ["prepare", "load", "alert", "load", "check", "aggregate", "report"]
    check_mart(out, "PROD", days, 25)


@pytest.mark.parametrize("line, told", [(None, "(at least 1462)"), (40, "gaps '1'")])
def test_mart_alerts_when_the_check_is_false(agent, out, tmp_path, line, told):
    variables = {"at_least": 1462}
    if line:
        lines = (EXAMPLES / "seattle-weather.csv").read_text().splitlines(True)
        del lines[line - 1]
        (tmp_path / "seattle-weather.csv").write_text("".join(lines))
        variables = {"folder": tmp_path}
    ended = run_example(agent, "WEATHER_MART", **variables)
    assert ended["status"] == "ERROR"
    assert any(told in text for text in agent.log_texts(ended["session"]))
    assert not (out / "mart-GLOBAL.csv").exists()


def nodes_of(agent, session):
    """{name or value of a node: its status}."""
    return {row["name"] or row["value"]: row["status"] for row in agent.rows("STATUS %s" % session) if "node" in row}


def test_years_side_by_side_then_the_report(agent, out, days):
    for context, warm in (("GLOBAL", 25), ("PROD", 30)):
        for _ in range(2):
            ended = run_example(agent, "WEATHER_YEARS", context, warm=warm)
            assert (ended["status"], ended["message"]) == ("DONE", "")
        check_mart(out, context, days, warm)
    session = ended["session"]
    assert nodes_of(agent, session) == dict.fromkeys(
        ["", "stage", "years", "report"] + ["year=%d" % year for year in range(2012, 2016)], "DONE")
    assert {row["variable"]: row["value"] for row in agent.rows("STATUS %s" % session) if "variable" in row}["months"] == "48"
    children = agent.rows("SESSIONS -PARENT=%s" % session)[::-1]
    assert [row["scenario"] for row in children] == ["WEATHER_STAGE"] + ["WEATHER_YEAR"] * 4 + ["WEATHER_REPORT"]
    assert [row["keywords"] for row in children[1:5]] == ["year=%d" % year for year in range(2012, 2016)]
    assert {row["context"] for row in children} == {"PROD"}
    # side by side: the last of them began before the first one had ended
    assert max(row["begun"] for row in children[1:5]) < min(row["ended"] for row in children[1:5])
    title, = agent.log_texts(children[5]["session"])
    assert title.startswith("PROD: 48 months in %s/mart-PROD.csv; warmest: 2015-07" % out)


def test_years_alert_and_go_on_once_the_file_is_mended(agent, out, days, tmp_path):
    folder = broken(tmp_path, 17, ",", ",wet")
    session = run_example(agent, "WEATHER_YEARS", "PROD", folder=folder)["session"]
    assert agent.status(session)["status"] == "ERROR" and "bad row 1" in agent.status(session)["message"]
    assert nodes_of(agent, session) == {"": "ERROR", "stage": "ERROR", "alert": "DONE"}
    alert, = agent.rows("SESSIONS -PARENT=%s -SCENARIO=WEATHER_ALERT" % session)
    assert agent.log_texts(alert["session"]) == [
        "plan %s (context PROD) failed, nothing is reported" % session,
        "read STATUS %s, mend %s/seattle-weather.csv, then RESTART %s -FROM=stage" % (session, folder, session)]
    mend(folder)
    agent.ok("RESTART %s" % session)            # the stage has failed: it is where it goes on
    assert agent.ok("WAIT %s" % session)["status"] == "DONE"
    check_mart(out, "PROD", days, 25)
    # a day that is missing shows in its year alone; two years are too many
    lines = (EXAMPLES / "seattle-weather.csv").read_text().splitlines(True)
    (folder / "seattle-weather.csv").write_text("".join(line for line in lines if line[:10] != "2013-05-05"))
    ended = run_example(agent, "WEATHER_YEARS", "PROD", folder=folder)
    assert ended["status"] == "WARNING" and nodes_of(agent, ended["session"])["year=2013"] == "ERROR"
    (folder / "seattle-weather.csv").write_text("".join(line for line in lines if line[4:10] != "-05-05"))
    session = run_example(agent, "WEATHER_YEARS", "PROD", folder=folder)["session"]
    assert agent.status(session)["status"] == "ERROR" and nodes_of(agent, session)["alert"] == "DONE"
    mend(folder)
    agent.ok("RESTART %s -FROM=stage" % session)
    assert agent.ok("WAIT %s" % session)["status"] == "DONE"
    check_mart(out, "PROD", days, 25)


def mend(folder):
    """Puts the data into a folder as they are."""
    (folder / "seattle-weather.csv").write_bytes((EXAMPLES / "seattle-weather.csv").read_bytes())
