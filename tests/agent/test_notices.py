"""Notices: what they tell of, what is sent, when, and what becomes of it when that fails."""
import json
import os
import pathlib
import re
import time

import pytest

import agent as program
from conftest import sessions_of, wait_for
from support.notices import add_notice, notice_row, read_messages, send_now, to_file, wait_events, wait_messages
from support.peers import Hook, Peer, Post
from support.plans import put_plan, run_plan
from support.users import Guest

pytestmark = pytest.mark.once

KEYS = ["kind", "scenario", "session", "schedule", "due", "message", "lines", "next"]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    """The thread looks as ever, ten times as often."""
    monkeypatch.setattr(program, "NOTICE_LOOK_S", 0.05)


@pytest.fixture
def peers():
    """peers(handler, **options) -> a Peer until the end of the test."""
    made = []

    def serve(handler, **options):
        made.append(Peer(handler, **options))
        return made[-1]
    yield serve
    for peer in made:
        peer.close()


def fail(agent, name="F"):
    """A session that ends in ERROR -> its number."""
    return agent.ok("EXEC %s -SYNC" % name)["session"]


def hook_url(peer, path="/hook"):
    return "http://127.0.0.1:%d%s" % (peer.port, path)


# -- what is sent ----------------------------------------------------------------------

def test_a_message_has_all_that_is_known(inside):
    inside.import_os("F", "echo one; echo two >&2; exit 3")
    add_notice(inside, to_file(inside))
    inside.ok("SCHED ADD S F 1 GLOBAL 'every 1h'")
    inside.let_pass(3600)
    send_now(inside, 1)
    message, = wait_messages(inside)
    session = sessions_of(inside, "S")[0]
    assert list(message) == ["agent", "notice", "id", "events"] and list(message["events"][0]) == KEYS
    assert (message["agent"], message["notice"]) == ("AGENT", "N")
    event = message["events"][0]
    assert event == {"kind": "error", "scenario": "F", "session": int(session["session"]), "schedule": "S",
                     "due": session["due"], "message": session["message"], "lines": ["one", "two"],
                     "next": "agentcli.py log %s, then agentcli.py restart %s" % ((session["session"],) * 2)}
    wait_for(lambda: notice_row(inside)["last"], "the time at which it was sent")
    assert (notice_row(inside)["waiting"], notice_row(inside)["message"]) == ("0", "")


def test_what_to_type_next_of_a_plan_and_of_what_it_runs(inside):
    put_plan(inside, {"serial": [{"run": "B"}]})
    add_notice(inside, to_file(inside))
    plan, lines = run_plan(inside, status="ERROR")
    send_now(inside, 2)
    events = {event["session"]: event["next"] for event in wait_messages(inside)[0]["events"]}
    child = lines["1.1"]["session"]
    assert events == {
        int(plan): "agentcli.py status %s, then agentcli.py restart %s" % (plan, plan),
        int(child): "agentcli.py log %s, then agentcli.py status %s" % (child, plan)}


def test_what_comes_meanwhile_is_in_one_message(inside):
    inside.import_os("F", "exit 1")
    add_notice(inside, to_file(inside), group_s=100)
    sessions = [fail(inside)]
    wait_events(inside, 1)
    inside.let_pass(90)
    sessions.append(fail(inside))
    wait_events(inside, 2)
    assert not read_messages(inside)
    inside.let_pass(11)
    message, = wait_messages(inside)
    assert [str(event["session"]) for event in message["events"]] == sessions
    fail(inside)
    send_now(inside, 1, after_s=101)
    assert wait_messages(inside, 2)[1]["id"] != message["id"]


def test_a_storm_is_one_message(inside, monkeypatch):
    monkeypatch.setattr(program, "MAX_EVENTS", 300)
    inside.import_document({"scenarios": [{"name": "F", "version": "1", "variables": {"v": ""}, "steps": [
        {"name": "a", "on_ok": "FAIL", "tasks": [{"type": "set", "variable": "v", "value": "1"}]}]}]})
    add_notice(inside, to_file(inside))
    for _ in range(500):
        inside.ok("EXEC F")
    send_now(inside, 500)
    message, = wait_messages(inside)
    assert len(message["events"]) == 300 and message["events"][-1]["message"].endswith(
        "(and 200 more, which are not listed)")
    wait_events(inside, 0)
    assert len(read_messages(inside)) == 1


def test_a_mail_of_a_storm_is_bounded():
    events = [dict(zip(KEYS, ("error", "F", number, None, None, "no", ["x" * 400] * 20, "next")))
              for number in range(1000)]
    letter = program.make_letter("AGENT", "N", "1", events, 5000)
    assert len(letter.body) < 400 * 20 * program.TOLD_EVENTS + 300 * program.LISTED_EVENTS
    assert "And 4800 more." in letter.body and letter.subject == "[AGENT] 5000 events: 1000 error"


def test_secrets_are_masked_as_in_the_log(inside):
    inside.import_os("F", 'echo "it is ${word}"; echo "${word}" >&2; exit 1', variables={"word": {"secret": True}})
    add_notice(inside, to_file(inside))
    inside.ok("EXEC F word=s3cr3tword -SYNC")
    send_now(inside, 1)
    event, = wait_messages(inside)[0]["events"]
    assert event["lines"] == ["it is ***", "***"] and "s3cr3tword" not in json.dumps(event)


# -- of what ---------------------------------------------------------------------------

def test_what_an_operator_stops_is_none(inside):
    inside.import_os("NAP", "sleep 1000")
    add_notice(inside, to_file(inside), group_s=50000)
    inside.ok("SCHED ADD S NAP 1 GLOBAL 'every 1h' -OVERLAP=stop")
    inside.let_pass(3600)
    first = sessions_of(inside, "S")[0]["session"]
    inside.wait_status(first, "RUNNING")
    inside.let_pass(3600)
    inside.wait_status(first, "STOPPED")
    inside.ok("STOP %s -IMMEDIATE" % inside.ok("EXEC NAP")["session"])
    inside.ok("STOP %s" % inside.ok("EXEC NAP -AT=1h")["session"])
    inside.ok("SCHED OFF S")
    inside.ok("STOP %s -IMMEDIATE" % sessions_of(inside, "S")[-1]["session"])
    send_now(inside, 1, after_s=50001)
    event, = wait_messages(inside)[0]["events"]
    assert (event["kind"], event["session"]) == ("stopped", int(first))


def test_a_timeout_is_an_error(inside):
    inside.import_os("NAP", "sleep 1000")
    add_notice(inside, to_file(inside))
    session = inside.ok("EXEC NAP -TIMEOUT=1")["session"]
    inside.wait_status(session, "ERROR")
    send_now(inside, 1)
    assert wait_messages(inside)[0]["events"][0]["kind"] == "error"


def test_due_times_that_made_no_session(inside):
    inside.import_os("NAP", "sleep 1000")
    add_notice(inside, to_file(inside), on=["skipped", "failed"], group_s=100000 // 2)
    inside.ok("SCHED ADD BUSY NAP 1 GLOBAL 'every 1m' -OVERLAP=skip")
    inside.let_pass(60)
    for _ in range(3):
        inside.let_pass(60)             # closely one after the other: one event
    wait_events(inside, 1)
    inside.ok("SCHED OFF BUSY")
    inside.import_os("GONE", "true")
    inside.ok("SCHED ADD LOST GONE 1 GLOBAL 'every 1h'")
    database = program.connect_file(str(inside.work), timeout_s=10)
    database.execute("delete from scenario where name='GONE'")
    database.close()
    inside.let_pass(3600)
    wait_events(inside, 2)
    inside.let_pass(3600)               # an hour later it is told again
    wait_events(inside, 3)
    inside.let_pass(50000)
    skipped, failed, again = wait_messages(inside)[0]["events"][:3]
    assert (skipped["kind"], skipped["schedule"], skipped["session"]) == ("skipped", "BUSY", None)
    assert skipped["message"].startswith("overlap: session ") and skipped["next"] == "agentcli.py sched why BUSY"
    assert (failed["kind"], failed["schedule"], failed["scenario"]) == ("failed", "LOST", "GONE")
    assert "GONE" in failed["message"] and again["due"] > failed["due"]
    inside.ok("STOP %s -IMMEDIATE" % sessions_of(inside, "BUSY")[0]["session"])


def test_what_begins_late(make_inside):
    inside = make_inside("--max-sessions", "1").start()
    inside.import_os("NAP", "sleep 1000")
    add_notice(inside, to_file(inside), on=["late"])
    first = inside.ok("EXEC NAP")["session"]
    inside.wait_status(first, "RUNNING")
    inside.import_os("QUICK", "true")
    inside.ok("SCHED ADD S QUICK 1 GLOBAL 'every 1h'")
    inside.let_pass(3600)
    inside.let_pass(20)
    inside.ok("STOP %s -IMMEDIATE" % first)
    send_now(inside, 1)
    event, = wait_messages(inside)[0]["events"]
    assert (event["kind"], event["schedule"]) == ("late", "S") and event["message"].startswith("begun 20")


def test_what_takes_long_is_told_once(inside):
    go = inside.folder / "go"
    inside.import_os("L", "until [ -e %s ]; do sleep 0.05; done" % go)
    add_notice(inside, to_file(inside), on=["long"], scenarios=["L*"])
    go.touch()
    for _ in range(4):
        inside.ok("EXEC L -SYNC")
    go.unlink()
    fourth = inside.ok("EXEC L")["session"]
    inside.wait_status(fourth, "RUNNING")
    inside.let_pass(100)                # four do not tell what is usual
    go.touch()
    inside.wait_status(fourth, "DONE")
    go.unlink()
    session = inside.ok("EXEC L")["session"]
    inside.wait_status(session, "RUNNING")
    send_now(inside, 1, after_s=1000)
    wait_messages(inside)
    go.touch()
    inside.wait_status(session, "DONE")
    inside.ok("EXEC HELLO -SYNC")
    event, = wait_messages(inside)[0]["events"]
    assert (event["kind"], event["session"]) == ("long", int(session)) and "over twice the usual" in event["message"]
    assert event["next"].startswith("agentcli.py log %s --follow" % session)
    inside.let_pass(120)
    wait_events(inside, 0)
    assert len(read_messages(inside)) == 1


def test_what_took_long_and_then_failed_is_told_once(inside):
    go = inside.folder / "go"
    inside.import_os("L", "until [ -e {0} ]; do sleep 0.05; done; exit $(cat {0})".format(go))
    add_notice(inside, to_file(inside), "LONG", on=["long"])
    add_notice(inside, to_file(inside))
    go.write_text("0")
    for _ in range(5):
        inside.ok("EXEC L -SYNC")
    go.unlink()
    session = inside.ok("EXEC L")["session"]
    inside.wait_status(session, "RUNNING")
    inside.let_pass(1000)
    wait_events(inside, 1, "LONG")
    (inside.folder / "next").write_text("1")
    (inside.folder / "next").rename(go)
    inside.wait_status(session, "ERROR")
    wait_events(inside, 1)              # both are told of one look
    assert notice_row(inside, "LONG")["waiting"] == "1"


def test_what_took_long_and_has_ended_before_anybody_looked(inside):
    inside.import_os("L", "true")
    for _ in range(5):
        inside.ok("EXEC L -SYNC")
    add_notice(inside, to_file(inside), on=["long"])
    repository, = inside.agent.places.list_open()
    wait_for(lambda: repository.db.read(program.list_happenings, "AGENT", 1)[0], "all ends to be noted")
    inside.import_os("L", "sleep 1.5", version="2")
    inside.ok("EXEC L -SYNC")
    wait_events(inside, 1)


def test_patterns_of_scenarios(inside):
    for name in ("LOAD_A", "LOAD_B", "REPORT"):
        inside.import_os(name, "exit 1")
    add_notice(inside, to_file(inside), scenarios=["LOAD_?", "X*"])
    for name in ("LOAD_A", "REPORT", "LOAD_B"):
        fail(inside, name)
    send_now(inside, 2)
    assert [event["scenario"] for event in wait_messages(inside)[0]["events"]] == ["LOAD_A", "LOAD_B"]


def test_what_was_before_a_notice_is_not_told(inside, monkeypatch):
    inside.import_os("F", "exit 1")
    inside.agent.notices.stop()         # whatever is noted stays where it is
    fail(inside)
    inside.let_pass(1)
    add_notice(inside, to_file(inside))
    inside.stop()
    inside.start()
    later = fail(inside)
    send_now(inside, 1)
    assert [str(event["session"]) for event in wait_messages(inside)[0]["events"]] == [later]


def test_a_failure_right_behind_the_import_is_told(inside, monkeypatch):
    """What is read of a repository before a notice was added is not judged by the notices of then."""
    inside.import_os("F", "exit 1")
    repository, = inside.agent.places.list_open()
    read, has_added = repository.db.read, []

    def read_later(method, *arguments):
        if method is program.list_happenings and not has_added:
            has_added.append("begun")   # between a look's begin, and its reading of what has happened
            add_notice(inside, to_file(inside))
            fail(inside)
            has_added.append("over")
        return read(method, *arguments)
    monkeypatch.setattr(repository.db, "read", read_later)
    repository.db.write(program.note_all_ends, False)       # something to look at
    wait_for(lambda: "over" in has_added, "the failure")
    send_now(inside, 1)
    assert len(wait_messages(inside)[0]["events"]) == 1


def test_a_clock_that_was_set_back_hides_nothing(inside):
    inside.import_os("F", "exit 1")
    inside.let_pass(86400)
    add_notice(inside, to_file(inside))
    inside.clock.passed -= 86400
    wait_for(lambda: inside.agent.notices.stored.list_all()[0][1] <= inside.now(), "the notice to know it")
    fail(inside)
    send_now(inside, 1)
    assert len(wait_messages(inside)[0]["events"]) == 1


def test_what_failed_right_behind_such_a_step_is_told(inside):
    """Between the step of the clock, and the first look behind it."""
    inside.import_os("F", "exit 1")
    inside.let_pass(86400)
    inside.agent.notices.stop()
    add_notice(inside, to_file(inside))
    inside.clock.passed -= 86400
    fail(inside)
    inside.let_pass(1)
    inside.stop()
    inside.start()
    send_now(inside, 1)
    assert len(wait_messages(inside)[0]["events"]) == 1


# -- how -------------------------------------------------------------------------------

def test_http_has_the_same_key_at_each_try(inside, peers):
    peer = peers(Hook, statuses=[500, 503, 204])
    inside.import_os("F", "exit 1")
    add_notice(inside, {"type": "http", "url": hook_url(peer, "/a?b=c"), "headers": {"X-Room": "night"}}, group_s=0)
    fail(inside)
    for count in (1, 2):
        wait_for(lambda: notice_row(inside)["message"].startswith("tried %d times" % count), "a try to fail")
        inside.let_pass(40)
    wait_for(lambda: notice_row(inside)["last"], "it to be sent")
    path, headers, body = peer.seen[0]
    assert path == "/a?b=c" and headers["X-Room"] == "night" and headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == json.loads(body.decode())["id"]
    assert [seen[2] for seen in peer.seen] == [body] * 3
    assert [seen[1]["Idempotency-Key"] for seen in peer.seen] == [headers["Idempotency-Key"]] * 3


@pytest.mark.parametrize("status", [302, 307])
def test_nothing_goes_to_another_origin(inside, peers, monkeypatch, status):
    monkeypatch.setenv("NOTICE_TOKEN", "t0ken-of-the-night")
    other = peers(Hook)
    peer = peers(Hook, statuses=[status], location=hook_url(other, "/elsewhere"))
    add_notice(inside, {"type": "http", "url": "http://me:pass@127.0.0.1:%d/" % peer.port,
                        "headers": {"X-Token": {"env": "NOTICE_TOKEN"}}})
    row = inside.ok("NOTICE TEST N")
    assert row["status"] == "ERROR" and str(status) in row["message"] and "pass" not in row["message"]
    assert peer.seen[0][1]["X-Token"] == "t0ken-of-the-night" and peer.seen[0][1]["Authorization"].startswith("Basic ")
    assert "t0ken" not in other.text() and "pass" not in other.text() and "a test" not in other.text()
    assert "t0ken" not in "\n".join(inside.ask("EXPORT") + inside.ask("NOTICE LIST"))


def mail_server(agent, peer):
    agent.import_document({"data_servers": [{"name": "MAIL", "driver": "smtp", "connect": {
        "host": "127.0.0.1", "port": peer.port, "sender": "agent@example.org"}}]})


def test_a_url_that_is_secret_is_not_told(inside, peers, monkeypatch):
    """Neither its path: of many services that is what lets in."""
    peer = peers(Hook, statuses=[500, 307], location="/t0ken-of-the-night/more")
    monkeypatch.setenv("NOTICE_URL", hook_url(peer, "/services/t0ken-of-the-night?t0ken=t0ken"))
    add_notice(inside, {"type": "http", "url": {"env": "NOTICE_URL"}})
    for status in ("500", "307"):
        row = inside.ok("NOTICE TEST N")
        assert row["status"] == "ERROR" and "127.0.0.1:%d" % peer.port in row["message"]
        assert "t0ken" not in row["message"], status
    assert "t0ken" not in inside.log()


@pytest.mark.parametrize("host", ["h" * 64, "a-b." * 15 + "org", "no_name here"])
def test_the_id_of_a_mail_stands_as_it_is(monkeypatch, host):
    """Whatever the host's name: Python 3.7 would encode a long one, which servers count as none."""
    monkeypatch.setattr(program.os, "uname", lambda: os.uname_result(("Linux", host, "", "", "")))
    order = {"to": ["a@example.org"], "subject": "x", "body": "y", "attach": [], "id": "f" * 32}
    data = program.MailTask._message(order, {"sender": "a@example.org"}).as_bytes()
    name = re.sub("[_ ]", "-", host)
    assert "\nMessage-ID: <%s@%s>\n" % ("f" * 32, name) in data.decode()


class SlowStart(Post):
    """Takes no mail at first."""

    def on_data(self, line):
        if not self.server.options["is_open"]:
            self.server.options["tries"].append(line)
            self.say("451 not now")
            return True
        return super().on_data(line)


def test_mail_can_be_read_and_has_the_same_id_at_each_try(inside, peers):
    options = {"is_open": True, "tries": []}
    post = peers(SlowStart, **options)
    mail_server(inside, post)
    inside.import_os("F", "echo 'no space left: \u00e9'; exit 3")
    add_notice(inside, {"type": "mail", "to": ["Ops <ops@example.org>", "root"]})
    assert inside.ok("NOTICE TEST N")["status"] == "DONE"
    sender, to, message = post.seen.pop()
    assert (sender, to) == ("<agent@example.org>", ["ops@example.org", "root"])
    post.options["is_open"] = False
    session = fail(inside)
    send_now(inside, 1)
    wait_for(lambda: notice_row(inside)["message"].startswith("tried 1 times"), "a try to fail")
    number = inside.agent.notices.stored.list_waiting()[0]["id"]
    post.options["is_open"] = True
    inside.let_pass(20)
    wait_for(lambda: post.seen, "the mail")
    _, _, message = post.seen[0]
    assert message["Message-ID"].startswith("<%s@" % number) and message["Auto-Submitted"] == "auto-generated"
    assert message["Subject"] == "[AGENT] session %s of F ended in ERROR" % session
    text = message.get_content()
    for part in ("session:  %s" % session, "| no space left: \u00e9", "agentcli.py log %s" % session, "exit code 3"):
        assert part in text, text
    assert all(len(line) < 900 and max(line + " ") < "\x7f" for line in post.text().replace("\r", "").split("\n"))


def test_without_a_server_the_host_sends(inside, monkeypatch):
    folder = inside.folder / "bin"
    folder.mkdir()
    script = folder / "sendmail"
    script.write_text("#!/bin/sh\necho \"$@\" > %s/words; cat > %s/mail\n" % (folder, folder))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % folder)
    add_notice(inside, {"type": "mail", "to": ["root"]})
    assert inside.ok("NOTICE TEST N") == {"notice": "N", "status": "DONE", "message": ""}
    assert (folder / "words").read_text() == "-i -- root\n"
    assert "Subject: [AGENT] a notice is a test\n" in (folder / "mail").read_text()
    script.write_text("#!/bin/sh\necho no queue; exit 75\n")
    assert inside.ok("NOTICE TEST N")["message"].endswith("ended with exit code 75: no queue")
    monkeypatch.setenv("PATH", str(folder / "none"))
    monkeypatch.setattr(program, "SENDMAIL_PATH", "")
    if not any((pathlib.Path(path) / "sendmail").exists() for path in ("/usr/sbin", "/usr/lib", "/usr/local/sbin")):
        assert "no program sendmail" in inside.ok("NOTICE TEST N")["message"]


def test_a_command_that_fails_or_takes_too_long(inside, monkeypatch):
    monkeypatch.setattr(program, "SENDING_S", 1)
    for command, message in (("echo no way >&2; exit 4", "exit code 4: no way"), (["/no/such"], "/no/such"),
                             ("sleep 1000", "took over 1 s")):
        add_notice(inside, {"type": "os", "command": command})
        row = inside.ok("NOTICE TEST N")
        assert row["status"] == "ERROR" and message in row["message"]


# -- when it cannot be sent ------------------------------------------------------------

def test_it_is_given_up_after_a_day(inside):
    inside.import_os("F", "exit 1")
    add_notice(inside, to_file(inside, before="echo x >> %s && false" % (inside.folder / "tries")), group_s=0)
    fail(inside)
    wait_for(lambda: "tried 1 times" in notice_row(inside)["message"], "a try to fail")
    fail(inside)                        # waits in a message of its own
    wait_events(inside, 2)
    for count in range(2, 6):
        inside.let_pass(86400 // 4 + 1 if count == 5 else 86400 // 4 - 1)
        wait_for(lambda: "tried %d times" % count in notice_row(inside)["message"]
                 or count == 5 and notice_row(inside)["message"].startswith("given up"), "try %d" % count)
    wait_for(lambda: notice_row(inside)["waiting"] == "1", "the first to be given up")
    assert "notice N: given up at" in inside.log() and re.search("after [56] tries, 1 events", inside.log())


def test_the_time_in_which_nobody_tried_is_no_reason_to_give_up(inside):
    """An agent that was away for days, or a host that slept, and whose network comes a little later."""
    inside.import_os("F", "exit 1")
    up = inside.folder / "up"
    add_notice(inside, to_file(inside, before="test -e %s" % up), group_s=0)
    fail(inside)
    wait_for(lambda: "tried 1 times" in notice_row(inside)["message"], "a try to fail")
    inside.stop()
    inside.let_pass(3 * 86400)
    inside.start()
    wait_for(lambda: "tried 1 times" not in notice_row(inside)["message"], "another try")
    row, = inside.agent.notices.stored.list_waiting()
    assert row["tries"] == 2 and row["due"] > inside.now() + 20
    up.touch()
    inside.let_pass(31)
    wait_messages(inside)


def test_it_is_given_up_also_where_the_clock_was_set_back(inside):
    """A first try that is a year ahead does not make it a year of tries."""
    inside.import_os("F", "exit 1")
    inside.let_pass(365 * 86400)
    add_notice(inside, {"type": "os", "command": "false"}, group_s=0)
    fail(inside)
    wait_for(lambda: "tried 1 times" in notice_row(inside)["message"], "a try to fail")
    inside.clock.passed -= 365 * 86400
    for count in range(2, 7):
        wait_for(lambda: "tried %d times" % count in notice_row(inside)["message"]
                 or notice_row(inside)["message"].startswith("given up"), "try %d" % count)
        inside.let_pass(86400 // 4 + 1)
    wait_for(lambda: notice_row(inside)["message"].startswith("given up"), "it to be given up")


def test_the_delays_grow(inside, monkeypatch):
    inside.import_os("F", "exit 1")
    add_notice(inside, {"type": "os", "command": "false"}, group_s=0)
    fail(inside)
    delays = []
    for tries in range(1, 5):
        row = wait_for(lambda: [row for row in inside.agent.notices.stored.list_waiting() if row["tries"] == tries],
                       "try %d" % tries)[0]
        delays.append(round((row["due"] - inside.now()) / program.FIRST_RETRY_S))
        inside.let_pass(row["due"] - inside.now() + 0.1)
    assert delays == [1, 2, 4, 8]


def test_one_that_hangs_holds_back_nobody(inside, peers):
    """A mail server that never answers, another notice, sessions, other requests, and the end of the agent."""
    post = peers(Post, trickle=True)
    mail_server(inside, post)
    inside.import_os("F", "exit 1")
    add_notice(inside, {"type": "mail", "to": ["ops@example.org"]}, "STALLED", group_s=0)
    add_notice(inside, to_file(inside), group_s=0)
    fail(inside)
    wait_messages(inside)
    wait_for(lambda: inside.agent.notices._sending, "the mail to be on its way")
    fail(inside)
    assert len(wait_messages(inside, 2)) == 2
    begun = time.monotonic()
    assert inside.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    inside.stop()
    assert time.monotonic() - begun < 30        # not the minute that a silent server has
    inside.start()
    assert notice_row(inside, "STALLED")["waiting"] == "2"


def test_the_next_start_sends_it_under_the_same_id(inside, peers):
    silent = peers(Hook, silent=True)
    inside.import_os("F", "exit 1")
    add_notice(inside, {"type": "http", "url": hook_url(silent)}, group_s=0)
    fail(inside)
    wait_for(lambda: silent.seen, "the first try")
    inside.stop()
    silent.options["silent"] = False
    inside.start()
    wait_for(lambda: len(silent.seen) == 2, "the second")
    assert silent.seen[0][1]["Idempotency-Key"] == silent.seen[1][1]["Idempotency-Key"]
    assert silent.seen[0][2] == silent.seen[1][2]


# -- a repository that is away; two agents ---------------------------------------------

def test_what_lies_in_a_repository_that_was_detached(inside):
    inside.ok("ATTACH SECOND %s -CREATE" % (inside.folder / "second.db"))
    inside.import_document({"scenarios": [{"name": "F", "version": "1", "steps": [
        {"name": "a", "tasks": [{"type": "os", "command": "exit 1"}]}]}]}, "-REPO=SECOND")
    add_notice(inside, to_file(inside))
    inside.agent.notices.stop()
    session = fail(inside)
    inside.ok("DETACH SECOND")
    inside.stop()
    inside.start()
    inside.let_pass(61)
    inside.ok("ATTACH SECOND %s" % (inside.folder / "second.db"))
    send_now(inside, 1)
    assert str(wait_messages(inside)[0]["events"][0]["session"]) == session


def test_each_agent_sends_what_is_its_own(make_inside):
    first, second = make_inside("--name", "ONE").start(), make_inside("--name", "TWO").start()
    first.import_os("F", "exit 1")
    add_notice(first, to_file(first))
    own = {agent.agent.name: fail(agent) for agent in (first, second)}
    send_now(first, 1)
    send_now(second, 1)
    messages = wait_messages(first, 2)
    assert {message["agent"]: str(message["events"][0]["session"]) for message in messages} == own
    assert [len(message["events"]) for message in messages] == [1, 1]


def test_a_hold_holds_no_notice(inside):
    inside.import_os("F", "exit 1")
    add_notice(inside, to_file(inside))
    fail(inside)
    inside.ok("HOLD")
    send_now(inside, 1)
    wait_messages(inside)


# -- what is asked for -----------------------------------------------------------------

def test_it_is_imported_listed_and_given_back(inside):
    documents = [
        {"name": "OPS", "on": ["error", "failed"], "scenarios": ["A*"], "group_s": "5m",
         "send": {"type": "mail", "to": ["ops@example.org"]}},
        {"name": "HOOK", "send": {"type": "http", "url": {"env": "HOOK_URL"}, "headers": {"X": {"file": "/etc/x"}}}}]
    assert inside.import_document({"notices": documents}, "-DRY_RUN")["notices"] == "2"
    assert inside.rows("NOTICE LIST") == []
    assert inside.import_document({"notices": documents})["notices"] == "2"
    assert inside.import_document({"notices": documents})["notices"] == "0"
    exported = json.loads("".join(line[2:] for line in inside.ask("EXPORT")[:-1]))
    assert exported["notices"] == sorted(documents, key=lambda each: each["name"])
    assert inside.ask("NOTICE LIST") == [
        "* name=HOOK on=error,failed,stopped scenarios=* type=http waiting=0 last= message=",
        "* name=OPS on=error,failed scenarios=A* type=mail waiting=0 last= message=", "OK"]
    documents[0]["on"] = ["late"]
    rows = inside.rows("IMPORT '%s'" % json.dumps({"notices": documents}))
    assert [row["change"] for row in rows] == ["changed", "same"]
    inside.ok("NOTICE DEL OPS")
    assert inside.err("NOTICE DEL OPS") == inside.err("NOTICE TEST OPS") == "NOT_FOUND"
    assert [row["name"] for row in inside.rows("NOTICE LIST")] == ["HOOK"]


def test_what_waits_of_one_that_is_deleted_goes_with_it(inside):
    inside.import_os("F", "exit 1")
    add_notice(inside, to_file(inside))
    fail(inside)
    wait_events(inside, 1)
    inside.ok("NOTICE DEL N")
    add_notice(inside, to_file(inside))
    inside.let_pass(61)
    assert notice_row(inside)["waiting"] == "0" and not read_messages(inside)


@pytest.mark.parametrize("notice, paths", [
    ({}, ["name", "send"]),
    ({"name": "N", "on": ["eror"], "scenarios": ["a b"], "send": {"type": "fax"}, "group_s": -1, "x": 1},
     ["x", "on[0]", "scenarios[0]", "group_s", "send.type"]),
    ({"name": "N", "on": [], "send": {"type": "mail", "to": [], "cc": "x"}}, ["on", "send.cc", "send.to"]),
    ({"name": "N", "send": {"type": "mail", "to": ["a\nBcc: b"]}}, ["send.to[0]"]),
    ({"name": "N", "send": {"type": "http", "url": "ftp://x", "headers": {"a b": "c", "d": "e\r\nf", "Host": "g"}}},
     ["send.url", "send.headers.a b", "send.headers.Host", "send.headers.d"]),
    ({"name": "N", "send": {"type": "os", "command": []}}, ["send.command"]),
    ({"name": "N", "send": {}}, ["send.type"]), ({"name": "N", "send": "mail"}, ["send"]),
    ({"name": "N", "send": {"type": "os"}}, ["send.command"]), ({"name": "N", "send": {"type": ["os"]}}, ["send.type"]),
])
def test_all_faults_are_told_with_their_path(shared_inside, notice, paths):
    lines = shared_inside.ask("IMPORT '%s'" % json.dumps({"notices": [notice]}))
    assert lines[-1].startswith("ERR BAD_REQUEST")
    assert sorted(line[2:].rsplit(": ", 1)[0].split(": ")[0] for line in lines[:-1]) == \
        sorted("notices[0]." + path for path in paths)


def test_types_that_may_not_run_here(make_inside):
    agent = make_inside("--allow-types", "mail,set").start()
    lines = agent.ask("IMPORT '%s'" % json.dumps({"notices": [{"name": "N", "send": to_file(agent)}]}))
    assert lines[0].startswith("* notices[0].send.type: ") and "--allow-types" in lines[0]
    stored = json.dumps({"name": "N", "send": to_file(agent)})
    agent.agent.master.db.write(program.execute, "insert into notice values ('N', ?, ?)",
                                (stored, program.to_text(agent.now())))
    row = agent.ok("NOTICE TEST N")
    assert row["status"] == "ERROR" and "--allow-types" in row["message"] and not read_messages(agent)


def test_who_may(inside, quick_hashes):
    add_notice(inside, to_file(inside))
    for number, (role, options, codes) in enumerate([
            ("monitor", "", ["OK", "DENIED", "DENIED"]), ("operator", "", ["OK", "DENIED", "DENIED"]),
            ("administrator", " -SCENARIOS=A", ["DENIED", "DENIED", "DENIED"]),
            ("administrator", "", ["OK", "OK", "OK"])]):
        inside.ok("USERS ADD u%d -ROLE=%s%s -OS_USER=%d" % (number, role, options, 4000 + number))
        guest = Guest(inside, 4000 + number)
        replies = [guest.ask(line)[-1] for line in ("NOTICE LIST", "NOTICE TEST N", "NOTICE DEL N")]
        assert [reply.split()[reply.startswith("ERR")] for reply in replies] == codes
    noted = [(row["verb"], row["object"], row["outcome"]) for row in inside.rows("AUDIT -VERB=NOTICE")]
    assert ("NOTICE DEL", "N", "OK") in noted and ("NOTICE TEST", "N", "OK") in noted


def test_a_row_that_another_program_has_spoilt_costs_no_other(inside):
    inside.import_os("F", "exit 1")
    add_notice(inside, to_file(inside))
    for name, text in (("A", "{"), ("B", "[]"), ("C", '{"name": "C", "send": {"type": "os"}}')):
        inside.agent.master.db.write(program.execute, "insert into notice values (?, ?, 'x')", (name, text))
    fail(inside)
    send_now(inside, 1)
    wait_messages(inside)
    assert [row["name"] for row in inside.rows("NOTICE LIST")] == ["N"]


def test_while_the_master_cannot_be_written_nothing_is_sent_twice(inside, peers, monkeypatch):
    """A message that has come, which cannot be noted: that is noted later, and the message is not sent again."""
    peer, stored = peers(Hook), inside.agent.notices.stored
    tries = []

    def settle(*arguments):
        tries.append(arguments)
        if len(tries) < 4:
            raise program.RepositoryError("not now")
        return program.StoredNotices.settle(stored, *arguments)
    monkeypatch.setattr(stored, "settle", settle)
    inside.import_os("F", "exit 1")
    add_notice(inside, {"type": "http", "url": hook_url(peer)}, group_s=0)
    fail(inside)
    wait_for(lambda: notice_row(inside)["last"], "it to be noted")
    assert len(tries) == 4 and len(peer.seen) == 1 and notice_row(inside)["waiting"] == "0"


def test_every_attempt_and_a_limit_that_ends_one_at_once(inside):
    inside.import_os("F", "exit 1")
    inside.import_os("ONE", "sleep 1000", concurrency={"limit": 1, "on_limit": "error"})
    add_notice(inside, to_file(inside), group_s=50000)
    inside.ok("SCHED ADD S F 1 GLOBAL 'every 1h' -ATTEMPTS=2")
    inside.let_pass(3600)
    inside.ok("SCHED OFF S")
    wait_events(inside, 2)
    first = inside.ok("EXEC ONE")["session"]
    inside.wait_status(first, "RUNNING")
    inside.ok("EXEC ONE")
    send_now(inside, 3, after_s=50001)
    events = wait_messages(inside)[0]["events"]
    assert [event["kind"] for event in events] == ["error"] * 3
    assert events[0]["message"].endswith("attempt 2 of 2 is session %d" % events[1]["session"])
    assert events[2]["message"].endswith("scenario ONE is at its limit of open sessions: 1")
    inside.ok("STOP %s -IMMEDIATE" % first)


def test_much_that_waits_holds_back_neither_the_sending_nor_the_end(inside, monkeypatch):
    inside.import_os("F", "exit 1")
    add_notice(inside, to_file(inside), group_s=0)
    inside.stop()
    monkeypatch.setattr(program, "TAKEN_AT_ONCE", 1)
    monkeypatch.setattr(program, "TAKING_S", 0)
    take = program.Events._take

    def take_slowly(*arguments):
        time.sleep(0.1)
        take(*arguments)
    monkeypatch.setattr(program.Events, "_take", take_slowly)
    database = program.connect_file(str(inside.work), timeout_s=10)
    for number in range(300):
        database.execute("insert into happening(agent, kind, scenario, time, message) values"
                         " ('AGENT', 'failed', 'F', null, ?)", (str(number),))
    inside.start()
    wait_messages(inside)
    inside.stop()
    left, = database.execute("select count(*) from happening").fetchone()
    database.close()
    assert 0 < left < 300               # they wait for the next start


def test_what_could_not_be_taken_before_a_crash_is_taken_once(inside):
    """The agent is gone between the master's commit and that of the work repository."""
    inside.import_os("F", "exit 1")
    add_notice(inside, to_file(inside))
    inside.agent.notices.stop()
    session = fail(inside)
    repository, = inside.agent.places.list_open()
    happening, = repository.db.read(program.list_happenings, "AGENT", 10)[1]
    stored = inside.agent.notices.stored
    for _ in range(2):
        stored.take([(happening["id"], [("N", 60, {"kind": "error", "scenario": "F", "session": int(session),
                                                   "schedule": None, "due": None, "message": "", "lines": [],
                                                   "next": ""})])])
    inside.stop()
    inside.start()
    wait_for(lambda: not inside.agent.places.list_open()[0].db.read(program.list_happenings, "AGENT", 10)[1], "it to go")
    assert notice_row(inside)["waiting"] == "1"
