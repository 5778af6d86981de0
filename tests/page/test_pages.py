"""What the pages show, without a socket: sessions, schedules, holds, troubles, logs, plans; and how much they cost."""
import html
import json
import re
import sqlite3

import pytest

from conftest import program, turns_of, wait_for
from support.users import add_guest

CLIENT = program.Client(program.ADMINISTRATOR, "test")
HOSTILE = "</script><b onclick=x>&\"'\u202e\x1b[2J"


@pytest.fixture
def draw(inside):
    """draw("/?status=DONE") -> the text of that page's HTML, or of one of its parts; it has to be there."""
    page = program.Page(inside.agent)

    def text_of(address, part=None, client=CLIENT, status=200):
        path, _, query = address.partition("?")
        try:
            answer = page.answer(program.PageRequest(path, program.read_query(query.encode()), {}), client)
        except program.HttpError as error:
            assert error.status == status, error.message
            return error.message
        assert answer.status == status, answer.body
        text = answer.body.decode()
        if part is None:
            return text
        return re.search('<section id="%s".*?</section>' % part, text, re.S).group()
    return text_of


def told(inside, address, client=CLIENT):
    """What `/api` tells of a page."""
    path, _, query = address.partition("?")
    request = program.PageRequest("/api" + path, program.read_query(query.encode()), {})
    return json.loads(program.Page(inside.agent).answer(request, client).body.decode())


def prose_of(text):
    """The text of HTML alone."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", text)).split())


def numbers_of(text):
    """The sessions that a table lists, in its order."""
    return [int(number) for number in re.findall('<a href="/session/([0-9]+)"><b>', text)]


def fill_sessions(inside, count, first=2):
    """Sessions up to this number that have ended, behind 1001, written by another program."""
    if first == 2:
        inside.ok("EXEC HELLO -SYNC")
    connection = sqlite3.connect(str(inside.work))
    with connection:
        connection.execute(
            "with recursive n(i) as (select ? union all select i + 1 from n where i <= ?) insert into session"
            " (id, agent, scenario, version, definition, context, status, name, created, begun, ended, message, variables,"
            " given) select i * 1000 + 1, agent, 'LOAD_' || (i % 20), version, definition, context, case when i % 50 = 0"
            " then 'ERROR' else 'DONE' end, 'run ' || i, strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || (? - i) || ' seconds'),"
            " strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || (? - i) || ' seconds'),"
            " strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || (? - i) || ' seconds', '+9 seconds'),"
            " case when i % 50 = 0 then '100% _wrong_ at ' || i else '' end, variables, given"
            " from session join n where session.id = 1001", (first, count) + 3 * (count + 5,))
        connection.execute("update repository set last_session=?", (count + 2,))
    connection.close()


def test_ten_thousand_sessions_are_paged_and_cost_little(inside, draw):
    """A page of them costs what one of a few hundred costs: nothing of it grows with their number."""
    fill_sessions(inside, 300)
    _, few = min((turns_of(lambda: draw("/")) for _ in range(3)), key=lambda pair: pair[1])
    fill_sessions(inside, 10000, 302)
    first, many = min((turns_of(lambda: draw("/")) for _ in range(3)), key=lambda pair: pair[1])
    assert many < 2 * few
    page = re.search('<section id="sessions".*', first, re.S).group()
    assert numbers_of(page) == [number * 1000 + 1 for number in range(10001, 9901, -1)]
    address, seen_numbers, pages = "/", [], 0
    while address:
        page = draw(html.unescape(address), "sessions")
        seen_numbers += numbers_of(page)
        pages += 1
        link = re.search('href="([^"]*)" class="button">Older', page)
        address = link and link.group(1).partition("#")[0]
    assert pages == 101 and len(seen_numbers) == len(set(seen_numbers)) == 10001
    assert seen_numbers == sorted(seen_numbers, reverse=True)


def test_filters(inside, draw):
    fill_sessions(inside, 200)
    assert len(numbers_of(draw("/", "sessions"))) == 100
    assert numbers_of(draw("/?status=failed", "sessions")) == [200001, 150001, 100001, 50001]
    assert numbers_of(draw("/?status=ERROR&scenario=LOAD_10", "sessions")) == [150001, 50001]
    assert numbers_of(draw("/?text=WRONG_+at+1", "sessions")) == [150001, 100001]
    assert numbers_of(draw("/?text=run+77", "sessions")) == [77001]
    assert numbers_of(draw("/?text=100%25+_", "sessions")) == [200001, 150001, 100001, 50001]
    assert numbers_of(draw("/?text=1_0", "sessions")) == numbers_of(draw("/?text=%25%25", "sessions")) == []
    assert len(numbers_of(draw("/?since=20s", "sessions"))) in range(15, 25)
    assert len(numbers_of(draw("/?since=today&status=open", "sessions"))) == 0
    for query, fault in (("status=NOPE", "status: "), ("since=x", "since: "), ("scenario=a/b", "scenario: "),
                         ("page=x", "page: "), ("page=1001.", "page: "), ("page=-1", "page: ")):
        assert fault in prose_of(draw("/?" + query, "sessions")), query
    page = draw("/?status=failed&text=%s&page=200001" % "%22%3E%3Cb%3E", "sessions")
    assert 'value="&quot;&gt;&lt;b&gt;"' in page and "<option value=\"failed\" selected>" in page
    assert 'href="/?status=failed&amp;text=%22%3E%3Cb%3E#sessions"' in page


def test_pages_of_several_repositories(inside, draw):
    inside.ok("ATTACH SECOND %s -CREATE" % (inside.folder / "second.db"))
    inside.ok("HOLD")
    inside.import_os("S", "true")
    inside.ok("IMPORT '%s' -REPO=SECOND" % json.dumps({"scenarios": [{"name": "T", "version": "1", "steps": [
        {"name": "s", "tasks": [{"type": "os", "command": "true"}]}]}]}))
    expected = []
    for number in range(75):
        expected = [int(inside.ok("EXEC T")["session"]), int(inside.ok("EXEC S")["session"])] + expected \
            if number % 2 else [int(inside.ok("EXEC S")["session"])] + expected
    first = draw("/", "sessions")
    link = html.unescape(re.search('href="([^"#]*)[^"]*" class="button">Older', first).group(1))
    both = numbers_of(first) + numbers_of(draw(link, "sessions"))
    assert sorted(both) == sorted(expected) and len(both) == 112 and len(numbers_of(first)) == 100
    assert "SECOND" in draw("/", "repositories") and "WORKREP" in draw("/", "repositories")


def test_what_runs_waits_and_is_held(inside, draw):
    inside.import_os("LONG", "sleep 1000", concurrency={"limit": 1})
    first = inside.ok("EXEC LONG -NAME='the first' -KEYWORDS=a,b")["session"]
    inside.wait_status(first, "RUNNING")
    inside.ok("EXEC LONG")
    inside.ok('EXEC HELLO -AT="+2h"')
    running, waiting = prose_of(draw("/", "running")), prose_of(draw("/", "waiting"))
    assert "LONG 1 %s \u201cthe first\u201d \u00b7 a,b" % first in running
    assert "limit 1 of LONG: session %s runs" % first in waiting and "in 1 h" in waiting
    assert "Nothing is held." in draw("/", "holds")
    inside.ok("SCHED ADD S HELLO 001 GLOBAL 'daily at 02:00'")
    inside.ok("HOLD 'no time' -SCHEDULE=S")
    inside.ok("HOLD 'maintenance' -UNTIL=+3h")
    inside.ok("HOLD 'a copy' -REPO=WORKREP")
    held = prose_of(draw("/", "holds"))
    for text in ("the agent held by test since", ": maintenance", "repository WORKREP held by", ": a copy", "schedule S held by",
                 ": no time"):
        assert text in held, held
    assert "Held. Nothing new begins until" in prose_of(draw("/")) and "maintenance" in prose_of(draw("/schedules"))
    assert "held by test" in prose_of(draw("/schedules?schedule=S", "schedules"))
    inside.ok("STOP %s -IMMEDIATE" % first)
    assert "LONG" in prose_of(draw("/", "failed"))


def test_what_did_not_run_and_why(inside, draw):
    inside.import_os("LONG", "sleep 1000")
    inside.ok("SCHED ADD S LONG 1 GLOBAL 'every 1h' -OVERLAP=skip")
    inside.let_pass(3 * 3600)
    wait_for(lambda: "skipped S" in prose_of(draw("/", "why")), "the due times to be decided")
    why = prose_of(draw("/", "why"))
    assert "one session of it is enough at a time" in why and "late S" in why
    became = prose_of(draw("/schedules", "why"))
    assert "late" in became and "skipped" in became
    assert "S" in prose_of(draw("/", "next")) and "more until" in prose_of(draw("/", "next"))
    assert prose_of(draw("/schedules?schedule=S", "next")).count("in ") >= 20
    assert draw("/schedules?schedule=NOPE", "schedules").count("no schedule NOPE") == 1
    for session in inside.rows("SESSIONS -STATUS=RUNNING"):
        inside.ok("STOP %s -IMMEDIATE" % session["session"])


def test_many_schedules_are_paged(inside, draw):
    document = {"schedules": [{"name": "S%03d" % number, "scenario": "HELLO", "rule": "daily at 02:00"}
                              for number in range(230)]}
    inside.import_document(document)
    page = draw("/schedules", "schedules")
    assert page.count("<tr") == 201 and "page=200" in page and "S000" in page
    page = draw("/schedules?page=200", "schedules")
    assert page.count("<tr") == 31 and "S229" in page and "page=0" in page
    assert draw("/schedules?text=s22", "schedules").count("<tr") == 11
    assert "No schedule is like that" in draw("/schedules?text=nope", "schedules")
    assert draw("/schedules?page=x", "schedules").count("<tr") == 201


@pytest.mark.parametrize("page", ["\u00b2", "\u0663", "-1", "x", "9" * 9])
def test_a_page_of_schedules_that_is_none(draw, page):
    assert "No schedule yet." in prose_of(draw("/schedules?page=" + page))


def test_a_session_with_its_steps_log_and_children(inside, draw):
    inside.import_document({"scenarios": [
        {"name": "CHILD", "version": "1", "steps": [{"name": "s", "tasks": [{"type": "os", "command": "true"}]}]},
        {"name": "ALL", "version": "1", "variables": {"day": HOSTILE.replace("\x1b", ""), "password": {"secret": True}},
         "steps": [{"name": "one", "tasks": [{"type": "os", "name": "say", "command": "printf '%s\\n' \"$VAR_day\"; echo bad >&2"},
                                             {"type": "scenario", "name": "CHILD"}]},
                   {"name": "two", "attempts": 2, "tasks": [{"type": "os", "command": "exit 3"}]}]}]})
    session = inside.ok("EXEC ALL password=hunter22 -SYNC")["session"]
    path = "/session/%s" % session
    steps = prose_of(draw(path, "steps"))
    assert "DONE 1 one" in steps and "ERROR 2 two \u00b7 attempt 2" in steps and "1.1 os say rc 0" in steps
    assert "exit code 3" in steps and "agentcli.py restart %s" % session in prose_of(draw(path, "commands"))
    assert "CHILD" in prose_of(draw(path, "children")) and "hunter22" not in draw(path)
    assert "password *** " in prose_of(draw(path, "variables")) + " "
    log = draw(path, "log")
    assert prose_of(log).count("one/say") == 2 and "&lt;/script&gt;&lt;b onclick=x&gt;" in log and "\u202e" not in draw(path)
    assert "bad" not in draw(path + "?stream=out", "log").partition("<ol")[2]
    assert prose_of(draw(path + "?stream=err&step=one", "log").partition("<ol")[2]).endswith("bad Nothing was printed.")
    assert "stream: must be out or err" in prose_of(draw(path + "?stream=x&tail=y", "log"))
    assert "no step nope" in prose_of(draw(path + "?step=nope", "log"))
    child = int(session) + 1000
    assert 'href="/session/%s"' % session in draw("/session/%d" % child, "facts")


def test_long_lines_of_a_log_cost_little(inside, draw):
    """A line may have 16 KiB: 5,000 such would take the memory of the agent."""
    inside.import_os("LONG", "head -c 16000 /dev/zero | tr '\\0' '<'; echo; echo short")
    session = inside.ok("EXEC LONG -SYNC")["session"]
    log = draw("/session/%s" % session, "log")
    assert log.count("&lt;") == 1000 and "short" in log and "and 15000 more characters" in prose_of(log)
    database = sqlite3.connect(str(inside.work))
    with database:
        database.execute(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000) insert into session_log"
            " (session, task_run, position, time, stream, line) select session, task_run, 99999 + i, time, stream, line"
            " from session_log, n where session=? and line='short'", (session,))
    database.close()
    log = draw("/session/%s?tail=5000" % session, "log")
    assert log.count("<li") == 4002 and log.count("&lt;") == 1000


def test_a_log_goes_on_where_it_was(inside, draw):
    inside.import_os("SEQ", "seq 1 900")
    session = inside.ok("EXEC SEQ -SYNC")["session"]
    path = "/session/%s" % session
    log = draw(path, "log")
    assert log.count("<li") == 500 and "agentcli.py log %s" % session in prose_of(log)
    assert draw(path + "?tail=10", "log").count("<li") == 10 and draw(path + "?tail=99999", "log").count("<li") == 900
    answer = told(inside, path + "?tail=10")
    assert answer["log"]["html"].count("<li") == 10 and answer["log"]["is_over"] and "log" in answer["parts"]
    more = told(inside, path + "?after=" + answer["log"]["after"])
    assert more["log"]["html"] == "" and more["log"]["after"] == answer["log"]["after"] and "log" not in more["parts"]
    task_run, position = answer["log"]["after"].split(".")
    more = told(inside, path + "?after=%s.%d" % (task_run, int(position) - 9))
    assert 1 <= more["log"]["html"].count("<li") <= 3
    for after in ("x", "1", "1.2.3", "9" * 19 + ".1", "-1.1"):
        assert told(inside, path + "?after=" + after)["log"]["html"].count("<li") == 500


def test_the_tree_of_a_load_plan():
    """Its lines come with load plans; what is not there yet is not missed."""
    rows = [{"node": place, "name": name, "kind": kind, "value": value, "attempt": 2, "status": status, "session": session,
             "begun": "2026-06-01T00:00:00.000+00:00", "ended": None, "message": message}
            for place, name, kind, value, status, session, message in (
                ("1", "all", "serial", "", "RUNNING", None, ""), ("1.1", "", "for_each", "", "DONE", None, ""),
                ("1.1.1", "", "run", "day=<b>", "ERROR", 2001, "exit code 3"))]
    tree = program.draw_nodes(rows, 1780272060.0)
    assert re.findall('<li class="(d[0-9]+)"', tree) == ["d0", "d1", "d2"] and "day=&lt;b&gt;" in tree
    assert 'href="/session/2001"' in tree and "exit code 3" in tree and "1 min 00 s" in tree
    lines = ["* {}"] + ['* {"node": "1.%d", "status": "%s"}' % (number, "ERROR" if number == 4000 else "DONE")
                        for number in range(5000)] + ['* {"variable": "x"}']
    chosen = program.choose_lines(lines)
    assert len(chosen) == program.NODES_SHOWN + 2 and lines[4001] in chosen and chosen[1] == lines[1]


def test_a_load_plan_as_it_runs(inside, draw):
    task = {"type": "os", "command": "[ $VAR_day != 2015-01-02 ]"}
    inside.import_document({"scenarios": [
        {"name": "FETCH", "version": "1", "variables": {"day": ""}, "steps": [{"name": "main", "tasks": [task]}]},
        {"name": "PLAN", "version": "1", "plan": {"for_each": {"variable": "day", "in": ["2015-01-01", "2015-01-02"]},
                                                  "do": {"run": "FETCH", "variables": {"day": "${day}"}}}}]})
    session = inside.ok("EXEC PLAN -SYNC")["session"]
    page = draw("/session/%s" % session)
    plan = re.search('<section id="plan".*?</section>', page, re.S).group()
    assert re.findall('<li class="(d[0-9]+)"', plan) == ["d0", "d1", "d1"]
    assert "DONE 1.1 run day=2015-01-01 2001" in prose_of(plan) and "ERROR 1.2 run day=2015-01-02 3001" in prose_of(plan)
    assert 'id="steps"' not in page and "FETCH" in prose_of(draw("/session/%s" % session, "children"))


def test_very_many_attempts(inside, draw):
    tasks = [{"type": "set", "variable": "n", "value": "1"}]
    inside.import_document({"scenarios": [{
        "name": "LOOP", "version": "1", "max_steps": 400, "variables": {"n": "0"}, "steps": [
            {"name": "a", "on_ok": "b", "tasks": tasks}, {"name": "b", "on_ok": "a", "tasks": tasks}]}]})
    session = inside.ok("EXEC LOOP -SYNC")["session"]
    steps = draw("/session/%s" % session, "steps")
    assert steps.count("<tr") == 301 and "Only the newest attempts" in steps
    assert "max_steps" in prose_of(draw("/session/%s" % session, "facts"))


def test_who_is_narrowed_sees_his_own_alone(inside, draw):
    inside.import_os("MINE", "true")
    inside.import_os("OTHER", "exit 3")
    for name in ("MINE", "OTHER"):
        inside.ok("SCHED ADD S_%s %s 1 GLOBAL 'daily at 02:00'" % (name, name))
        inside.ok("EXEC %s -SYNC" % name)
    inside.ok("HOLD -SCHEDULE=S_OTHER")
    client = add_guest(inside, "monitor", "MINE").conversation.client
    for path in ("/", "/schedules", "/session/1001", "/?scenario=OTHER", "/schedules?schedule=S_OTHER", "/?text=OTHER"):
        text = re.sub('value="(S_)?OTHER"', "", draw(path, client=client))
        assert "OTHER" not in text.replace("no schedule S_OTHER", "").replace("Schedule S_OTHER", ""), path
    assert "MINE" in draw("/", "sessions", client=client)
    draw("/session/2001", client=client, status=404)
    draw("/metrics", client=client, status=403)


def test_a_repository_that_cannot_be_read_costs_its_part_alone(inside, draw, monkeypatch):
    inside.ok("ATTACH SECOND %s -CREATE" % (inside.folder / "second.db"))
    session = inside.ok("EXEC HELLO -SYNC")["session"]
    own = program.Place.get_usable

    def get_usable(place):
        if place.attachment.name == "SECOND":
            raise program.RepositoryError("SECOND: its disk is away")
        return own(place)
    monkeypatch.setattr(program.Place, "get_usable", get_usable)
    for path, part in (("/", "sessions"), ("/", "running"), ("/", "failed"), ("/", "why"), ("/", "next"),
                       ("/schedules", "schedules"), ("/schedules", "why")):
        assert "REPOSITORY: SECOND: its disk is away" in prose_of(draw(path, part)), part
    assert "HELLO" in draw("/", "sessions") and "HELLO" in draw("/session/" + session)
    assert draw("/session/1002", status=503)


def test_a_fault_is_logged_and_told_by_its_id(inside, draw, monkeypatch):
    def fail(*_):
        raise KeyError("secret-of-it")
    monkeypatch.setattr(program, "show_schedules", fail)
    message = draw("/schedules", status=500)
    assert re.match("fault [0-9a-f]{8} of the agent", message) and "secret-of-it" in inside.log()
    inside._handler.lines.clear()               # the traceback was asked for


def test_metrics_are_those_of_the_verb(inside, draw):
    page = draw("/metrics")
    names = [line.split()[3] for line in inside.ask("METRICS") if line.startswith("* # TYPE")]
    assert re.findall("^# TYPE (\\S+)", page, re.M) == names and "* " not in page and page.endswith("\n")


def test_markup_escapes_once():
    template = program.markup("<b>%s</b>%s", HOSTILE, program.markup("<i>%s</i>", "&"))
    assert "<b>&lt;/script&gt;" in template and template.endswith("<i>&amp;</i>") and "\u202e" not in template
    assert program.fill_template("{{a}}{{b}}", {"a": "{{b}}<", "b": "x"}) == "{{b}}&lt;x"


def test_times():
    assert program.find_instant("2026-06-01T02:00:00.500+02:00") == program.find_instant("2026-06-01T00:00:00.500Z")
    assert program.find_instant("2026-06-01T00:00:00-01:30") == program.find_instant("2026-06-01T01:30:00Z")
    assert program.find_instant("") is program.find_instant("x") is None
    assert [program.show_duration(s) for s in (None, 0, 9.94, 59.4, 59.6, 61, 3600, 90000)] == [
        "", "0.0 s", "9.9 s", "59 s", "1 min 00 s", "1 min 01 s", "1 h 00 min", "1 d 1 h"]
    assert [program.show_distance(s) for s in (0.4, 5, -61, 7300, -90000)] == ["now", "in 5 s", "1 min ago", "in 2 h", "1 d ago"]
    assert program.show_http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"
