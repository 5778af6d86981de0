"""Doors that stay shut: what a browser is led to send, values that no error may repeat, values that must not become code."""
import json
import re
import sqlite3

import pytest

import agent as program
from support.audit import Notes
from support.wire import codes, converse

pytestmark = pytest.mark.once

SECRET = "hunter2-is-it"

# What Chromium 156 sends for fetch("/", {method: METHOD, body: BODY}), recorded: after DNS rebinding the agent's port is
# the page's own origin, and any verb a method. BODY makes the two lines that speak of content.
BROWSER = ("{method} {path} HTTP/1.1\r\n"
           "Host: 127.0.0.1:20910\r\n"
           "Connection: keep-alive\r\n"
           "{length}"
           "sec-ch-ua-platform: \"Linux\"\r\n"
           "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 "
           "Safari/537.36\r\n"
           "sec-ch-ua: \"Not:A-Brand\";v=\"8\", \"Chromium\";v=\"156\"\r\n"
           "{type}"
           "sec-ch-ua-mobile: ?0\r\n"
           "Accept: */*\r\n"
           "Peer: http://rebound.example:20910\r\n"
           "Sec-Fetch-Site: same-origin\r\n"
           "Sec-Fetch-Mode: cors\r\n"
           "Sec-Fetch-Dest: empty\r\n"
           "Referer: http://rebound.example:20910/\r\n"
           "Accept-Encoding: gzip, deflate, br, zstd\r\n"
           "Accept-Language: en-US,en;q=0.9\r\n"
           "\r\n")


def browser_request(method, path="/", body=""):
    """The bytes of one request."""
    head = BROWSER.format(method=method, path=path, length="Content-Length: %d\r\n" % len(body) if body else "",
                          type="Content-Type: text/plain;charset=UTF-8\r\n" if body else "")
    return (head + body).encode()


@pytest.fixture(scope="module")
def with_password(make):
    """A running agent that nothing is done to."""
    running = make("doors")
    running.import_document({"scenarios": [{
        "name": "P", "version": "1", "variables": {"password": {"secret": True}, "day": ""},
        "steps": [{"name": "s", "tasks": [{"type": "os", "command": "true"}]}]}]})
    return running


def newest_session(running):
    """The newest session, or nothing: what changes when one is started."""
    return running.rows("SESSIONS -LIMIT=1")


# -- browsers --------------------------------------------------------------------------

VERBS = sorted({name.split()[0] for name in program.VERBS})


@pytest.mark.parametrize("body", ["", "EXEC HELLO\r\nEXEC HELLO -NAME=smuggled\nSHUTDOWN\n"])
@pytest.mark.parametrize("verb", VERBS + ["GET", "POST", "OPTIONS", "exec", "Purge"])
def test_nothing_of_a_browser_is_carried_out(with_password, verb, body):
    before = newest_session(with_password)
    for path in ("/", "/1001", "/?EXEC%20HELLO", "/HELLO"):
        data = browser_request(verb, path, body)
        lines = converse(with_password, data, is_ended=False)
        if verb == "GET":               # the operator page, and nothing behind it
            assert re.match("HTTP/1.1 (200|404) ", lines[0]) and not codes(lines), lines
        else:
            assert len(lines) == 1 and lines[0].startswith("ERR "), lines
        assert codes(converse(with_password, b"PING\n" + data + b"EXEC HELLO\n", is_ended=False))[1:] in (
            ["ERR BAD_REQUEST"], ["ERR UNKNOWN_VERB"])
    assert newest_session(with_password) == before
    assert with_password.ok("PING")["status"] == "READY"


@pytest.mark.parametrize("line", [
    "HELP / HTTP/1.1", "HELP HTTP/1.0", "HELP PING HTTP/2", "PING \t HTTP/1.1 \t", "SESSIONS http/1.1", "QUIT / HTTP/1.1",
    "EXEC HELLO 001 GLOBAL HTTP/1.1", "METRICS / HTTP/3", "CONTEXTS  HTTP/1.1", "SCHED LIST HTTP/1.1"])
def test_a_line_that_ends_as_http_closes_wherever_it_stands(with_password, line):
    for before in ("", "PING\n", "PING\n\n"):
        answers = codes(converse(with_password, (before + line + "\r\nEXEC HELLO\nPING\n").encode(), is_ended=False))
        assert answers == ["OK"] * bool(before) + ["ERR BAD_REQUEST"]


def test_http_elsewhere_in_a_line_is_text(with_password):
    assert codes(converse(with_password, b"PING\nHOLD 'HTTP/1.1 is held' -SCHEDULE=NOPE\nHOLD HTTP/1.1 -SCHEDULE=NOPE\n"
                          b"HOLD 'x HTTP/1.1'x -SCHEDULE=NOPE\nPING\n")) == ["OK"] + ["ERR NOT_FOUND"] * 3 + ["OK"]


@pytest.mark.parametrize("verb", sorted(set(program.VERBS) - {"SHUTDOWN"}))
def test_a_first_line_of_a_wrong_form_closes(with_password, verb):
    """Whatever the verb, and also where it is allowed no more than HELP and QUIT."""
    before = newest_session(with_password)
    for wrong in (" -NO_SUCH_OPTION", " 'open", ' "\\x"', " a b c d e f g", " x=1 x=1"):
        lines = converse(with_password, (verb + wrong + "\nEXEC HELLO\nPING\n").encode(), is_ended=False)
        assert len(codes(lines)) == 1 and codes(lines)[0].startswith("ERR "), lines
    for role in (None, "monitor"):
        conversation = program.Conversation(Notes(), program.Client(role))
        list(conversation.begin(verb.encode() + b" -NO_SUCH_OPTION").chunks())
        assert conversation.is_over


def test_what_follows_a_closed_line_does_not_cut_the_answer(with_password):
    lines = converse(with_password, b"HELP / HTTP/1.1\r\n" + b"x" * 60000, is_ended=False)
    assert codes(lines) == ["ERR BAD_REQUEST"]


# -- values in errors ------------------------------------------------------------------

WRONG = [
    "{0} password='{1}", '{0} password="{1}', '{0} password="{1}\\q"', '{0} password="{1}\\ud800"',
    "{0} password={1} password={1}", "{0} password={1} -NOPE", "{0} password={1} nope={1}", "{0} nope={1}",
    "{0} -password={1}", "{0} --password={1}", "{0} 'password={1}'", "{0} password= {1}", "{0} password=a {1}",
    "{0} password=a {1} {1} {1} {1} {1}", "{0} password='it's {1}'", "{0} password=x' '{1}", "{0} password=\"x\" {1}\"",
    "{0} -NAME='x password='{1}'", "{0} -NAME='x password=' {1} 'y", "{0} password={1}'", "{0} password={{\"{1}\"}}",
    "{0} password={1} -LEVEL=99", "{0} -LEVEL=99 password={1}", "{0} password={1} -REPO=NOPE", "{0} password='{1} -SYNC",
    "{0} password={1} -SYNC=x", "{0} day={1} -NAME='", "{0} password=ab{1}cd {{", "{0} password:={1}", "{0} PASSWORD={1}",
]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("start", [
    "EXEC P", "EXEC NOPE", "EXEC P 1 GLOBAL", "EXEC P 9", "RESTART 1001", "RESTART 1001 -FROM=s", "SCHED ADD S P 1 GLOBAL 'every 5m'",
    "SCHED ADD S NOPE 1 GLOBAL 'no rule'", "SCHED SET S", "SCHED SET NOPE -RULE='x'", "PING", "STOP 1", "HOLD -SCHEDULE=NOPE", "IMPORT"])
def test_no_error_repeats_a_value(with_password, start, wrong):
    line = wrong.format(start, SECRET)
    for before in ("", "PING\n"):
        answered = "\n".join(converse(with_password, (before + line + "\n").encode()))
        assert SECRET not in answered, answered
    assert SECRET not in with_password.log()


def test_no_fault_of_a_document_repeats_a_value(with_password):
    for variables in ({"password": [SECRET]}, {"password": {"secret": SECRET}}, {"password": {"secret": True, SECRET: 1}},
                      {"SESSION": SECRET}, {"a b": SECRET}, {"x": {"a": SECRET}}):
        task = {"type": "os", "command": "true"}
        document = {"scenarios": [{"name": "Q", "version": "1", "variables": variables,
                                   "steps": [{"name": "s", "tasks": [task]}]}],
                    "schedules": [{"name": "S", "scenario": "P", "rule": "every 5m", "variables": {"password": SECRET}}],
                    "data_servers": [{"name": "D", "driver": "smtp", "connect": {"password": [SECRET]}}]}
        for text in (json.dumps(document), json.dumps(document)[:-1], json.dumps(document)[:-40] + "\\q"):
            for quoted in ("'%s'" % text, "'%s" % text, text, '"%s"' % text, "'%s' x" % text, "x '%s'" % text):
                answered = "\n".join(with_password.ask("IMPORT " + quoted))
                assert "ERR " in answered and SECRET not in answered, answered


def test_what_was_hidden_is_told_where_it_may_be_a_slip(with_password):
    assert re.match(r"ERR NOT_FOUND scenario HELLO has no version \*\*\* in .*quoted when it has spaces",
                    with_password.ask("EXEC HELLO who=data people")[-1])
    assert with_password.ask("EXEC HELLO who=da 09")[-1].startswith("ERR NOT_FOUND scenario HELLO has no version 09 in ")


def test_an_unexpected_fault_is_logged_without_values(with_password, caplog):
    class Broken:
        """An agent whose every part fails with what it was asked."""
        name, audit = "A", Notes()

        def execute(self, request, repository):
            raise KeyError("%s and %r" % (request.variables, request))
    conversation = program.Conversation(Broken(), program.Client("administrator"))
    (line,) = conversation.begin(("EXEC P password=%s day='two %s'" % (SECRET, SECRET)).encode()).chunks()
    assert line.startswith("ERR INTERNAL fault ") and "execute" in caplog.text and SECRET not in caplog.text


# -- values in code --------------------------------------------------------------------

def python_document(code, version="1"):
    """A document with one scenario CODE whose one task has this code."""
    return {"scenarios": [{"name": "CODE", "version": version, "variables": {"v": "x"},
                           "steps": [{"name": "s", "tasks": [{"type": "python", "code": code}]}]}]}


def test_a_reference_in_code_is_refused_at_import(with_password, tmp_path):
    for code, name in (("print('${v}')", "VAR_v"), ("print('$${v} ${v}')", "VAR_v"), ("${SESSION}", "SESSION")):
        (fault, last) = with_password.ask("IMPORT '%s'" % json.dumps(python_document(code)).replace("'", "\\u0027"))
        assert fault.startswith("* scenarios[0].steps[0].tasks[0].code: ") and 'write os.environ["%s"]' % name in fault
        assert last.startswith("ERR BAD_REQUEST")


def test_a_value_reaches_code_as_text_alone(with_password, tmp_path):
    target = tmp_path / "made"
    with_password.import_document(python_document("import os\nprint(os.environ['VAR_v'])\nprint('$${v} $x $$')", "2"))
    value = "');open('%s','w');print('" % target
    session = with_password.ok("EXEC CODE 2 v=%s -SYNC" % json.dumps(value))["session"]
    assert with_password.log_texts(session) == [value, "${v} $x $$"]
    assert not target.exists()


def test_an_older_definition_is_told_when_it_runs(make_agent, tmp_path):
    running = make_agent().start()
    running.import_document(python_document("print('$${v}')"))
    running.stop()
    connection = sqlite3.connect(str(running.work))
    connection.execute("update definition set body = replace(body, '$${v}', '${v}')")
    connection.commit()
    connection.close()
    running.start()
    target = tmp_path / "made"
    end = running.ok("EXEC CODE v=%s -SYNC" % json.dumps("');open('%s','w');print('" % target))
    assert end["status"] == "ERROR" and 'write os.environ["VAR_v"]' in end["message"] and not target.exists()
    assert running.rows("SCENARIOS")[0]["scenario"] == "CODE"


@pytest.mark.parametrize("command, is_warned", [
    (["sh", "-c", "echo ${v}"], True), (["/bin/bash", "-lc", "echo ${v}"], True), (["env", "python3", "-c", "print(${v})"], True),
    (["perl", "-e", "${v}"], True), (["sh", "-c", 'echo "$1"', "sh", "${v}"], False), (["sh", "-c", "echo $${v}"], False),
    (["echo", "-c", "${v}"], False), ("echo ${v}", False)])
def test_a_list_that_makes_a_program_of_a_value_is_warned_of(with_password, command, is_warned):
    document = {"scenarios": [{"name": "LIST", "version": "1", "variables": {"v": ""},
                               "steps": [{"name": "s", "tasks": [{"type": "os", "command": command}]}]}]}
    lines = with_password.ask("IMPORT '%s' -REPLACE" % json.dumps(document).replace("'", "\\u0027"))
    assert lines[-1].startswith("OK") and any("would become a part of this program" in line for line in lines) == is_warned
