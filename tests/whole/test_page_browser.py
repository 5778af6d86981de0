"""The operator page in a real browser: what it shows by itself, what it asks for, and who gets nothing."""
import os
import re

import pytest

from conftest import Client, program, wait_for
from support.browser import Browser, find_browser
from support.other_user import NOBODY
from support.sealed import authority, certificate, serve  # noqa: F401 (fixtures)
from support.waiting import go

pytestmark = [pytest.mark.once, pytest.mark.skipif(find_browser() is None, reason="needs a Chromium on this host")]

HOSTILE = "<img src=x onerror=alert(1)>\"'&<script>alert(2)</script>"


@pytest.fixture(scope="module")
def browsed(make):
    """A running agent with sessions of all kinds."""
    running = make("browsed-agent")
    waiting = "echo first; until [ -e %s ]; do sleep 0.05; done; echo last; echo bad >&2" % (running.folder / "go")
    running.import_document({"scenarios": [{"name": "LOAD", "version": "1", "steps": [{"name": "main", "tasks": [
        {"type": "os", "command": waiting}, {"type": "scenario", "name": "FINE"}]}]}]})
    running.import_os("BROKEN", "printf '<script>alert(3)</script>\\n' >&2; exit 3")
    running.import_os("FINE", "echo fine")
    running.import_document({"schedules": [{"name": "NIGHTLY", "scenario": "FINE", "rule": "daily at 02:00"}]})
    running.ok("EXEC BROKEN -SYNC -NAME='broken %s'" % HOSTILE.replace("'", ""))
    running.ok("EXEC FINE -SYNC -NAME=fine")
    return running


@pytest.fixture(scope="module")
def browser():
    with Browser() as tab:
        tab.show(1280, 900)
        # it asks again after a tenth of the time, for the test is not to wait
        tab.ask("Page.addScriptToEvaluateOnNewDocument",
                source="{ const own = setTimeout; window.setTimeout = (work, ms) => own(work, ms / 10); window.own = own }")
        yield tab


@pytest.fixture
def tab(browser, browsed):
    """A tab that has to have complained of nothing, and asked nobody but the agent."""
    del browser.requests[:], browser.console[:]
    browser.answers.clear()
    yield browser
    assert browser.console == []
    assert {re.match("https?://([^/]*)/|about:|data:", address).group(1) for address in browser.requests} <= {
        "localhost:%d" % browsed.port, None}
    assert browser.answers and set(browser.answers.values()) == {200}
    assert browser.run("document.cookie + localStorage.length") == "0"


def text_of(tab, part):
    return tab.run("(document.getElementById('%s') || {}).innerText" % part) or ""


def test_a_session_appears_and_its_log_follows(tab, browsed):
    page = "http://localhost:%d" % browsed.port
    tab.go(page + "/")
    assert "Nothing runs." in text_of(tab, "running") and "BROKEN" in text_of(tab, "failed")
    with Client(browsed.port) as client:
        session = client.ok("EXEC LOAD -NAME='by hand'")["session"]
    tab.wait_for(lambda: "by hand" in text_of(tab, "running"), "the session to appear")
    assert session in text_of(tab, "sessions") and "NIGHTLY" in text_of(tab, "next")
    tab.run("document.querySelector('#running a').click()")
    tab.wait_true("location.pathname == '/session/%s' && document.getElementById('lines') != null" % session)
    tab.wait_for(lambda: "first" in text_of(tab, "lines"), "its log")
    assert "last" not in text_of(tab, "lines")
    go(browsed)
    tab.wait_for(lambda: "last" in text_of(tab, "lines") and "bad" in text_of(tab, "lines"), "its log to follow")
    tab.wait_for(lambda: "DONE" in text_of(tab, "heading") and "DONE" in text_of(tab, "steps"), "its end to show")
    assert text_of(tab, "lines").count("first") == 1
    tab.wait_for(lambda: "FINE" in text_of(tab, "children"), "the session that it has begun to appear")
    assert tab.run("document.getElementById('children').previousElementSibling.id") == "steps"


def test_filters_work_by_the_address(tab, browsed):
    page = "http://localhost:%d" % browsed.port
    tab.go(page + "/")
    tab.run("document.querySelector('[name=status]').value = 'failed'; document.querySelector('.filters button').click()")
    tab.wait_true("location.search.includes('status=failed') && document.getElementById('sessions') != null")
    assert "BROKEN" in text_of(tab, "sessions") and "FINE" not in text_of(tab, "sessions")
    tab.go(page + "/?text=fine")
    assert "FINE" in text_of(tab, "sessions") and "BROKEN" not in text_of(tab, "sessions")
    assert tab.run("document.querySelector('[name=text]').value") == "fine"


def test_what_others_have_written_is_text(tab, browsed):
    """The page itself proves little, as nothing of it could run: so its tree is looked at."""
    page = "http://localhost:%d" % browsed.port
    for path in ("/", "/session/1001", "/schedules"):
        tab.go(page + path)
        assert tab.run("document.querySelectorAll('img, script:not([src]), [onerror]').length") == 0
        assert tab.run("document.scripts.length") == 1
    tab.go(page + "/session/1001")
    assert "<script>alert(3)</script>" in text_of(tab, "lines") and "onerror=alert(1)" in text_of(tab, "facts")


def test_by_keyboard_and_for_who_cannot_see_it(tab, browsed):
    tab.go("http://localhost:%d/" % browsed.port)
    tab.press("Tab")
    assert tab.run("document.activeElement.className") == "skip"
    tab.press("Enter", text="\r")
    tab.wait_true("document.activeElement.id == 'main'")
    tree = tab.ask("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    for role in ("banner", "navigation", "main", "contentinfo", "search", "table", "columnheader", "row", "heading",
                 "region", "status"):
        assert role in roles, role
    unnamed = [node for node in tree if not node["ignored"] and not node.get("name", {}).get("value") and
               node["role"]["value"] in ("link", "button", "textbox", "combobox", "checkbox", "table", "navigation",
                                         "region", "image", "img")]
    assert unnamed == []


def test_on_a_phone_nothing_is_cut_off(tab, browsed):
    for path in ("/", "/session/1001", "/schedules", "/schedules?schedule=NIGHTLY"):
        for is_dark in (False, True):
            tab.show(390, 844, is_dark)
            tab.go("http://localhost:%d%s" % (browsed.port, path))
            assert tab.run("document.documentElement.scrollWidth") == 390, path
            assert tab.run("Math.min(...[...document.querySelectorAll('td, li, p, h1, h2, dd')]"
                           ".map(each => innerWidth - each.getBoundingClientRect().right))") >= 0
            assert list_faint(tab) == [], (path, is_dark)
    tab.show(1280, 900)


# of every element with a text of its own: the contrast of that with what is behind it (WCAG 2.2, 1.4.3)
CONTRASTS = """
(() => {
  const channels = colour => colour.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = each => {
    for (; each; each = each.parentElement) {
      const colour = channels(getComputedStyle(each).backgroundColor);
      if (colour.length == 3 || colour[3] == 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.body.querySelectorAll("*")].filter(each => each.getClientRects().length &&
      [...each.childNodes].some(node => node.nodeType == 3 && node.textContent.trim())).map(each => {
    const style = getComputedStyle(each), isDrawn = each instanceof SVGElement;
    const one = light(channels(isDrawn ? style.fill : style.color)), other = light(behind(each));
    return [each.className.baseVal ?? each.className, each.textContent.slice(0, 30),
            (Math.max(one, other) + .05) / (Math.min(one, other) + .05)];
  }).filter(row => row[2] < 4.5);
})()
"""


def list_faint(tab):
    """The texts whose contrast is under 4.5."""
    return tab.run(CONTRASTS)


def test_without_javascript_it_is_whole(browsed):
    with Browser("--blink-settings=scriptEnabled=false") as tab:
        tab.show(1280, 900)
        page = "http://localhost:%d" % browsed.port
        for path, text in (("/", "BROKEN"), ("/session/1001", "alert(3)"), ("/schedules", "NIGHTLY")):
            tab.go(page + path)
            document = tab.ask("DOM.getDocument", depth=-1)["root"]
            shown = tab.ask("DOM.getOuterHTML", nodeId=document["nodeId"])["outerHTML"]
            assert text in shown and 'id="reload"' in shown and 'id="pause" type="button" class="quiet" hidden' in shown


def test_nothing_is_asked_for_while_it_is_paused(tab, browsed):
    tab.go("http://localhost:%d/" % browsed.port)
    asked = len(tab.requests)
    tab.wait_for(lambda: len(tab.requests) > asked, "it to ask by itself")
    tab.run("document.getElementById('pause').click()")
    assert tab.run("document.getElementById('live').textContent") == "paused"
    tab.run("new Promise(resume => own(resume, 100))")      # what was under way
    asked = len(tab.requests)
    tab.run("new Promise(resume => own(resume, 600))")      # three times the time after which it would ask
    assert len(tab.requests) == asked


def test_another_site_cannot_look_through_the_owners_browser(browsed):
    """Neither by a name of its own that leads to this host, nor by a request of its page."""
    port = browsed.port
    with Browser("--host-resolver-rules=MAP evil.example 127.0.0.1") as tab:
        tab.go("http://evil.example:%d/" % port)
        assert tab.answers["http://evil.example:%d/" % port] == 403 and "BROKEN" not in tab.run("document.body.innerText")
        tab.go("about:blank")
        for mode in ("no-cors", "cors"):
            assert tab.run("fetch('http://localhost:%d/api/', {mode: '%s'}).then(it => it.text(), () => 'refused')"
                           % (port, mode)) == "refused"
        assert set(tab.answers.values()) == {403}


def test_a_user_logs_in_by_tls(inside, serve, quick_hashes, monkeypatch):  # noqa: F811
    inside.import_os("LONG", "sleep 1000")
    inside.ok("USERS ADD bob -ROLE=monitor")
    inside.ok('USERS PASSWORD bob "correct horse"')
    monkeypatch.setattr(program, "find_peer_uid", lambda connection: NOBODY)
    address = "https://localhost:%d/" % serve().port
    with Browser("--ignore-certificate-errors") as tab:
        with pytest.raises(AssertionError, match="ERR_INVALID_AUTH_CREDENTIALS"):    # nobody answers its question
            tab.go(address)
        tab.answers.clear()
        tab.go(address.replace("//", "//bob:correct%20horse@"))
        inside.ok("EXEC LONG")
        tab.wait_for(lambda: "LONG" in text_of(tab, "running"), "the session to appear")
        assert set(tab.answers.values()) == {200}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_strangers_browser_gets_nothing(browsed):
    with Browser(user=(NOBODY, NOBODY)) as tab:
        for path in ("/", "/session/1001", "/metrics", "/api/"):
            tab.go("http://localhost:%d%s" % (browsed.port, path))
            text = tab.run("document.body.innerText")
            assert text.startswith("403 Forbidden") and "AGENT" not in text and "BROKEN" not in text
    wait_for(lambda: any(row["os_user"] == "uid %d" % NOBODY for row in browsed.rows("AUDIT -VERB=GET")),
             "the refusal to be in the audit")
