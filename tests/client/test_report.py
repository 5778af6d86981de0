"""report: one HTML file of a period, from what an agent says: whole, closed to what is outside, safe, bounded."""
import html.parser
import os
import re
import stat
import sys
import time

import pytest

from conftest import TOP, wait_for, why

sys.path.insert(0, str(TOP / "tools"))

import agentcli     # noqa: E402
from support.browser import Browser, find_browser
from support.client import objects, run_client
from support.terminal import Terminal

pytestmark = pytest.mark.once

HOSTILE = "</pre></style><script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;"
NOW = 1795903200.0      # 2026-11-28T22:00:00Z
VOID = {"meta", "br"}


class Reader(html.parser.HTMLParser):
    """Takes a document apart: elements, ids, texts by section; fails where elements do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts, self.part = [], [], {}, "header"
        assert text.startswith("<!doctype html>\n")
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, pairs):
        assert len(dict(pairs)) == len(pairs), pairs
        self.elements.append((name, dict(pairs)))
        if name == "section":
            self.part = dict(pairs)["aria-labelledby"]
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name, (name, self.getpos())

    def handle_data(self, text):
        if self.open and self.open[-1] != "style":
            self.texts[self.part] = self.texts.get(self.part, "") + text.replace("\u00a0", " ")

    def list_of(self, element):
        return [pairs for name, pairs in self.elements if name == element]


def check_document(text):
    """What holds for each report -> its Reader."""
    reader = Reader(text)
    names = {name for name, _ in reader.elements}
    assert names <= set("html head meta title style body header main nav footer section h1 h2 h3 p a dl dt dd div span b ul li svg "
                        "rect path figure figcaption table caption thead tbody tr th td article pre code br".split()), names
    ids = [pairs["id"] for _, pairs in reader.elements if "id" in pairs]
    assert len(set(ids)) == len(ids)
    for _, pairs in reader.elements:
        assert not {"src", "srcset", "data", "action", "background"}.intersection(pairs) and not [
            name for name in pairs if name.startswith("on")], pairs
        if "href" in pairs:
            assert pairs["href"].startswith("#") and pairs["href"][1:] in ids
        assert set(re.findall("[a-z]+(?=[(])", pairs.get("style", ""))) == set()
        if pairs.get("aria-labelledby"):
            assert pairs["aria-labelledby"] in ids
    style = re.search("<style>(.*?)</style>", text, re.S).group(1)
    assert not re.search(r"url\(|@import|expression", style) and "@media print" in style and "prefers-color-scheme: dark" in style
    assert [pairs["content"] for pairs in reader.list_of("meta") if "http-equiv" in pairs] == [
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]
    headings = [int(name[1]) for name, _ in reader.elements if name in ("h1", "h2", "h3")]
    assert headings[0] == 1 and headings.count(1) == 1 and all(after <= before + 1 for before, after in zip(headings, headings[1:]))
    assert all(pairs.get("role") == "img" and pairs.get("aria-label") for pairs in reader.list_of("svg"))
    assert all(pairs.get("scope") in ("col", "row") for pairs in reader.list_of("th"))
    assert len(reader.list_of("table")) == len(reader.list_of("caption")) == len(reader.list_of("thead"))
    assert reader.list_of("html") == [{"lang": "en"}] and not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    return reader


def test_a_night(agent, tmp_path):
    """What ran, what failed and how its log ends, what did not run and why, what comes next."""
    hostile = HOSTILE.replace("'", "'\\''")
    agent.import_document({"scenarios": [
        {"name": "GOOD", "version": "1", "steps": [{"name": "s", "tasks": [{"type": "os", "command": ["true"]}]}]},
        {"name": "BAD", "version": "1", "steps": [{"name": "s", "tasks": [
            {"type": "os", "command": "echo first; printf '%%s\\n' '%s' >&2; exit 3" % hostile}]}]},
        {"name": "SLOW", "version": "1", "steps": [{"name": "s", "tasks": [{"type": "os", "command": ["sleep", "60"]}]}]}],
        "schedules": [{"name": "TOO_OFTEN", "scenario": "SLOW", "rule": "every 1s", "overlap": "skip"},
                      {"name": "NIGHTLY", "scenario": "GOOD", "rule": "daily at 02:00"},
                      {"name": "REST", "scenario": "GOOD", "rule": "daily at 03:00", "enabled": False},
                      {"name": "HELD", "scenario": "GOOD", "rule": "daily at 04:00"}]})
    agent.ok("HOLD \"moves <b>\" -SCHEDULE=HELD")
    agent.ok("EXEC GOOD -NAME=\"%s\" -SYNC" % HOSTILE.replace('"', '\\"'))
    bad = agent.ok("EXEC BAD -SYNC")["session"]
    agent.ok("EXEC BAD -SYNC")
    wait_for(lambda: [row for row in why(agent, "TOO_OFTEN") if row["decision"] == "skipped"], "a due time that is skipped")
    path = tmp_path / "night.html"
    fields = dict(pair.split("=") for pair in run_client(agent.port, "report", "-o", str(path), "--since", "yesterday").out.split())
    text = path.read_text(encoding="utf-8")
    assert fields == {"file": str(path), "bytes": str(path.stat().st_size), "sessions": "4", "failed": "2"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and sorted(os.listdir(str(tmp_path))) == ["night.html", "repo"]
    texts = check_document(text).texts
    assert re.search(r"2 of 4 sessions ended in ERROR or STOPPED[.] \d+ due times? did not run", texts["header"])
    assert [name in texts["timeline"] for name in ("GOOD", "BAD", "SLOW", "2 sessions, 2 ERROR", "1 session, 1 RUNNING")] == [True] * 5
    failed = texts["failures"]
    assert "ERROR BAD 2 times" in failed and "Before that %s; the first at" % bad in failed and "agentcli.py restart " in failed
    assert re.search(r"\d\d:\d\d:\d\d +first\n\d\d:\d\d:\d\d err ", failed) and "err " + HOSTILE + "\n" in failed
    assert re.search(r"TOO_OFTEN\d+skippedoverlap.*is RUNNING", texts["omissions"], re.S)
    assert "HELDhelddaily at 04:00" in texts["omissions"] and "moves <b>" in texts["omissions"]
    assert "RESTdisableddaily at 03:00" in texts["omissions"]
    assert re.search(r"\d+SLOWRUNNING", texts["next"]) and re.search(r"NIGHTLY\w{3} \d\d \w{3} 02:00:00daily at 02:00", texts["next"])
    assert "BADlongest" in texts["durations"] and re.search(r"BAD2 *2", texts["scenarios"])
    # to standard output it is the same, but for the time at which it was made
    again = run_client(agent.port, "report", "--since", "yesterday").out
    assert check_document(again).texts["failures"] == failed


def test_in_a_browser(tmp_path):
    """What hostile texts hold becomes no element, nothing is asked for, nothing is complained of, and a phone shows it whole."""
    if find_browser() is None:
        pytest.skip("no Chromium on this host")
    path = tmp_path / "night.html"
    path.write_text("<!doctype html>\n" + agentcli.make_document(make_findings(3000), "here", "test"), encoding="utf-8")
    with Browser() as tab:
        for width, is_dark in ((1280, False), (390, True)):
            tab.show(width, 800, is_dark)
            tab.go(path.as_uri())
            assert tab.run("document.documentElement.scrollWidth") <= width
            assert tab.run("[document.querySelectorAll('section').length, document.querySelectorAll('script, img').length]") == [6, 0]
            assert tab.run("document.querySelector('.failure pre').innerText").count(HOSTILE) > 1
            paper = tab.run("getComputedStyle(document.body).backgroundColor")
            assert (int(re.findall("[0-9]+", paper)[0]) < 60) == is_dark
        assert tab.console == [] and set(tab.requests) == {path.as_uri()}


def test_what_was_begun_before_it_belongs_to_it(agent):
    agent.import_os("LONG", "sleep 1")
    agent.import_os("SHORT", "true")
    agent.ok("EXEC SHORT -SYNC")
    session = agent.ok("EXEC LONG")["session"]
    agent.wait_status(session, "RUNNING")
    time.sleep(0.1)
    begin = agentcli.to_text(time.time())
    agent.ok("WAIT %s" % session)
    after = agentcli.to_text(time.time())
    agent.ok("EXEC SHORT -SYNC")
    for words, names in ((("--since", begin), {"LONG", "SHORT"}), (("--since", begin, "--until", after), {"LONG"}),
                         (("--since", "today", "--until", after), {"LONG", "SHORT"})):
        texts = check_document(run_client(agent.port, "report", *words).out).texts
        assert {name for name in ("LONG", "SHORT") if name in texts["scenarios"]} == names, words


def test_a_monitor_has_the_report_of_what_he_may_see(agent, tmp_path):
    for name in ("HIS", "THEIRS"):
        agent.import_os(name, "exit 3")
        agent.ok("EXEC %s -SYNC" % name)
        agent.ok("SCHED ADD N%s %s -1 GLOBAL 'daily at 02:00'" % (name, name))
    agent.ok("USERS ADD eve -ROLE=monitor -SCENARIOS=HIS")
    agent.ok("USERS PASSWORD eve 'a long enough one'")
    secret = tmp_path / "secret"
    secret.write_text("a long enough one\n")
    secret.chmod(0o600)
    result = run_client(agent.port, "report", "--user", "eve", "--password-file", str(secret))
    assert result.status == 0 and "THEIRS" not in result.out, result
    texts = check_document(result.out).texts
    assert "1 of 1 session ended" in texts["header"] and "ERROR HIS" in texts["failures"] and "NHIS" in texts["next"]


def test_a_repository_that_has_gone(agent, tmp_path, capfd):
    """What is known of the others is told; the exit status says that something is missing. So it is with listings."""
    agent.ok("ATTACH SECOND '%s' -CREATE" % (tmp_path / "second.db"))
    agent.ok("EXEC HELLO -SYNC")
    agent.ok("SCHED ADD NIGHT HELLO -1 GLOBAL 'daily at 02:00' -REPO=WORKREP")
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / ("second.db" + suffix)).rename(tmp_path / ("gone.db" + suffix))
    wait_for(lambda: agent.ok("PING")["repositories"] == "1/2", "the agent to see it")
    result = run_client(agent.port, "report", "-o", str(tmp_path / "r.html"))
    assert result.status == 4 and "ERR REPOSITORY work repository SECOND" in result.err and "sessions=1" in result.out
    texts = check_document((tmp_path / "r.html").read_text(encoding="utf-8")).texts
    assert "missing in this report: ERR REPOSITORY work repository SECOND" in texts["header"]
    assert "HELLO" in texts["timeline"] and "NIGHT" in texts["next"]
    for words, name in ((("sessions",), "HELLO"), (("scenarios",), "HELLO"), (("sched", "list"), "NIGHT"), (("sched", "next"), "NIGHT"),
                        (("sched", "next", "--count", "3"), "NIGHT"), (("sessions", "--json"), "HELLO")):
        status = agentcli.main(["--port", str(agent.port)] + list(words))
        out, err = capfd.readouterr()
        assert status == 4 and name in out and "ERR REPOSITORY work repository SECOND" in err, (words, out, err)
    assert agentcli.main(["--port", str(agent.port), "top", "--count", "1"]) == 0
    assert re.search("repositories 1/2.*NIGHT", capfd.readouterr().out, re.S)
    assert run_client(agent.port, "exec", "HELLO", "--follow").status == 0
    assert "HELLO" in run_client(agent.port, "completion", "words", "--", "exec", "").out
    for suffix in ("", "-wal", "-shm"):         # its end does not wait for it
        (tmp_path / ("gone.db" + suffix)).rename(tmp_path / ("second.db" + suffix))
    wait_for(lambda: agent.ok("PING")["repositories"] == "2/2", "the agent to see it")


def test_an_agent_that_has_done_nothing(agent, tmp_path):
    result = objects(run_client(agent.port, "report", "--json", "-o", str(tmp_path / "r.html")))
    assert (result[0]["sessions"], result[0]["failed"]) == (0, 0)
    texts = check_document((tmp_path / "r.html").read_text(encoding="utf-8")).texts
    assert "No session ran." in texts["header"] and "Nothing ran." in texts["timeline"]
    assert "Each due time made its session." in texts["omissions"] and "No schedule has a due time ahead." in texts["next"]


def test_where_it_is_written(shared, tmp_path):
    def report(*words, status=0):
        result = run_client(shared.port, "report", *words)
        assert (result.status, bool(result.err)) == (status, status != 0), result
        return result.err
    path, other, link = tmp_path / "r.html", tmp_path / "letter.txt", tmp_path / "link.html"
    report("-o", str(path))
    path.chmod(0o644)
    before = path.stat().st_ino
    link.symlink_to(path)
    report("--output", str(link))
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o644 and path.stat().st_ino != before
    other.write_text("Dear all")
    assert "is there, and is no report: it stays as it is" in report("-o", str(other), status=2)
    assert other.read_text() == "Dear all"
    other.write_text("")
    report("-o", str(other))
    assert "is no file; -o - is standard output" in report("-o", str(tmp_path), status=2)
    assert "No such file or directory" in report("-o", str(tmp_path / "none" / "r.html"), status=2)
    assert "--until must lie after --since" in report("--since", "+1h", status=2)
    assert "--until must lie after --since" in report("--since", "1h", "--until", "2h", status=2)
    for word in ("soon", "2026-02-31", "25:00", "12", "1x"):
        assert "--since takes a time" in report("--since", word, status=2), word
    assert sorted(os.listdir(str(tmp_path))) == ["letter.txt", "link.html", "r.html"]
    assert run_client(1, "report", "-o", str(path)).status == 3 and path.stat().st_size
    with Terminal(shared.port, "report") as terminal:
        assert terminal.end() == 2 and "-o FILE says where to" in terminal.text


@pytest.fixture
def zurich(monkeypatch):
    """The reader's zone."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("text, is_end, instant", [
    ("now", False, "2026-11-28T22:00:00"), ("today", False, "2026-11-27T23:00:00"), ("yesterday", False, "2026-11-26T23:00:00"),
    ("Yesterday 22:30", False, "2026-11-27T21:30:00"), ("22:00", False, "2026-11-28T21:00:00"), ("23:30", False, "2026-11-27T22:30:00"),
    ("tomorrow", True, "2026-11-28T23:00:00"), ("12h", False, "2026-11-28T10:00:00"), ("-90m", False, "2026-11-28T20:30:00"),
    ("+1.5h", True, "2026-11-28T23:30:00"), ("2026-07-01", False, "2026-06-30T22:00:00"), ("2026-07-01", True, "2026-07-01T21:59:59.999"),
    ("2026-10-25", True, "2026-10-25T22:59:59.999"), ("2026-07-01 06:00", True, "2026-07-01T04:00:00"),
    ("2026-07-01T06:00:01.5Z", False, "2026-07-01T06:00:01.5"), ("2026-07-01T06:00-0330", False, "2026-07-01T09:30:00"),
    ("2026-12-31T00:00+05:30", False, "2026-12-30T18:30:00"),
    # as the agent takes them: in a gap the instant after it, in a fold the first
    ("2026-03-29T02:30", False, "2026-03-29T01:00:00"), ("2026-10-25T02:30", False, "2026-10-25T00:30:00"),
    ("2026-03-29T02:30Z", False, "2026-03-29T02:30:00"), ("2026-10-25T01:30Z", True, "2026-10-25T01:30:00")])
def test_times_of_the_period(zurich, text, is_end, instant):
    expected = agentcli.find_instant(instant + "+00:00")
    assert agentcli.read_instant("--since", text, NOW, is_end) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("length_s", [1, 65, 600, 7000, 86400, 3 * 86400, 40 * 86400, 900 * 86400])
def test_ticks_are_round_and_few(zurich, length_s):
    begin = NOW - 217 * 86400 - 12345
    ticks = agentcli.Axis(begin, begin + length_s).list_ticks()
    assert length_s < 60 or 2 <= len(ticks) <= 10
    assert all(begin <= instant <= begin + length_s for instant, _ in ticks) and len(set(ticks)) == len(ticks)


def make_findings(count, **fields):
    """Findings of a day with so many sessions of a hundred scenarios; one in fifty fails, in fifty ways."""
    sessions = []
    for number in range(count):
        begun, name = NOW - 86400 + 86400.0 * number / count, "S%02d" % (number * 7 % 100) if number % 3 else "BUSY<%d>" % (number % 2)
        status = "DONE" if number % 50 else ("ERROR", "STOPPED", "WARNING")[number // 50 % 3]
        is_open = begun + 30 > NOW
        sessions.append(agentcli.Past(number * 1000 + 1, name, "RUNNING" if is_open else status, begun, None if is_open else begun + 30,
                                      30.0 + number % 90, "" if status == "DONE" else "code %d: %s" % (number // 50 % 50, HOSTILE)))
    failures = agentcli.group_failures(sessions)
    most = agentcli.MOST_FAILURES
    line = {"time": "2026-11-28T21:52:00.100+00:00", "step": "s", "task": "1", "stream": "err", "text": "x\t" + HOSTILE * 50}
    return agentcli.Findings(**dict({
        "ping": {"agent": "A", "version": "1", "hold": True, "hold_reason": HOSTILE}, "period": agentcli.Period(NOW - 86400, NOW, NOW),
        "sessions": sessions, "outstanding": [], "failures": [failure._replace(log=[line] * 14) for failure in failures[:most]],
        "further_failures": len(failures[most:]), "omissions": [
            agentcli.Omission("S%d" % number, "skipped", "hold", HOSTILE, 2, NOW - 60, NOW) for number in range(100)],
        "late": 1, "schedules": [{"name": "N%d" % number, "next": "2026-11-29T02:00:00+00:00", "rule": "daily at 02:00", "hold": False,
                                  "enabled": True, "last_status": None} for number in range(1000)], "is_cut": True, "troubles": ["ERR REPOSITORY " + HOSTILE]}, **fields))


def test_a_hundred_thousand_sessions():
    """It stays small, says what it leaves out, and each failure that is not shown is still counted."""
    findings = make_findings(100000)
    text = "<!doctype html>\n" + agentcli.make_document(findings, "here", "test")
    assert len(text) < 2000000
    texts = check_document(text).texts
    assert re.search(r"more sessions than this report takes in: those before \w{3} \d\d Nov \d\d:\d\d:\d\d are left out", texts["header"])
    assert "100,000 sessions ended" in texts["header"] and "200 due times did not run. 1 due time ran late." in texts["header"]
    assert "The agent is held: " + HOSTILE in texts["header"]
    assert re.search(r"6\d more scenarios are left out here", texts["timeline"])
    assert "%d more kinds of failures are left out here" % findings.further_failures in texts["failures"]
    assert "40 more rows are left out here" in texts["omissions"] and "940 more schedules are left out here" in texts["next"]
    assert "more scenarios are left out here" in texts["durations"]
    assert "BUSY<0>" in texts["scenarios"] and "S99" in texts["scenarios"]


def test_overlapping_sessions_stand_in_rows():
    axis = agentcli.Axis(0.0, 100.0)

    def past(number, begun, ended):
        return agentcli.Past(number, "S", "DONE", begun, ended, None if ended is None else ended - begun, "")
    marks, rows = agentcli.draw_marks(axis, [past(1, 0, 50), past(2, 10, 20), past(3, 20, 60), past(4, 55, None)], {2: "failure-1"})
    assert rows == 2 and [float(re.search(' y="([^"]+)"', mark).group(1)) // agentcli.ROW for mark in marks] == [0, 1, 1, 0]
    assert [re.search('x="(.*?)" width="(.*?)"', mark).groups() for mark in marks] == [
        ("0.0", "500.0"), ("100.0", "100.0"), ("200.0", "400.0"), ("550.0", "450.0")]
    assert [mark.startswith('<a href="#failure-1">') for mark in marks] == [False, True, False, False]
    _, rows = agentcli.draw_marks(axis, [past(number, number, 90) for number in range(9)], {})
    assert rows == agentcli.MOST_ROWS
    columns = agentcli.draw_columns(axis, [past(1, 0, 50), past(2, 10, 20)._replace(status="ERROR"), past(3, 80, None)])
    assert [re.search('class="mark (.*?)"', mark).group(1) for mark in columns] == ["done", "error", "done", "done"]
    assert [re.search('x="(.*?)"', mark).group(1) for mark in columns] == ["0.0", "100.0", "202.5", "800.0"]
