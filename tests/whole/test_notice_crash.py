"""Notices of a whole agent that is killed: what was noted is sent after the start, once begun under the same id."""
import json
import sqlite3
import subprocess
import sys

import pytest

from conftest import AGENT, wait_for
from support.notices import add_notice, notice_row, read_messages, to_file, wait_messages
from support.peers import Hook, Peer

pytestmark = pytest.mark.once


def test_killed_between_the_end_and_the_notice(make_agent):
    agent = make_agent().start()
    agent.import_os("F", "echo x; exit 1")
    add_notice(agent, to_file(agent), group_s=1)
    for _ in range(3):
        session = agent.ok("EXEC F -SYNC")["session"]
        agent.kill()
        agent.start()
        wait_for(lambda: session in [str(event["session"]) for message in read_messages(agent)
                                     for event in message["events"]], "the notice of session %s" % session)
    messages = {message["id"]: message for message in read_messages(agent)}     # one may have come twice
    assert all(message == messages[message["id"]] for message in read_messages(agent))
    sessions = [event["session"] for message in messages.values() for event in message["events"]]
    assert len(set(sessions)) == len(sessions) == 3


def test_killed_while_it_was_sent(make_agent):
    peer = Peer(Hook, silent=True)
    agent = make_agent().start()
    agent.import_os("F", "exit 1")
    add_notice(agent, {"type": "http", "url": "http://127.0.0.1:%d/" % peer.port}, group_s=0)
    agent.ok("EXEC F -SYNC")
    wait_for(lambda: peer.seen, "the first try")
    agent.kill()
    peer.options["silent"] = False
    agent.start()
    wait_for(lambda: notice_row(agent)["last"], "it to be sent")
    assert len(peer.seen) == 2 and peer.seen[0][1]["Idempotency-Key"] == peer.seen[1][1]["Idempotency-Key"]
    assert peer.seen[0][2] == peer.seen[1][2]
    peer.close()


def test_a_crash_is_told_as_stale_or_as_an_error(make_agent):
    agent = make_agent().start()
    agent.import_os("NAP", "sleep 1000")
    agent.import_os("AGAIN", "sleep 1000", on_stale="restart")
    add_notice(agent, to_file(agent, "stale"), "STALE", on=["stale", "error"], group_s=1)
    add_notice(agent, to_file(agent, "error"), "ERROR", group_s=1)
    nap, again = (agent.ok("EXEC " + name)["session"] for name in ("NAP", "AGAIN"))
    for session in (nap, again):
        agent.wait_status(session, "RUNNING")
    agent.kill()
    agent.start()
    wait_for(lambda: sum(len(message["events"]) for message in read_messages(agent, "stale")) == 2, "both")
    events = [event for message in read_messages(agent, "stale") for event in message["events"]]
    assert {(event["kind"], str(event["session"])) for event in events} == {("stale", nap), ("stale", again)}
    event, = wait_messages(agent, 1, "error")[0]["events"]
    assert (event["kind"], str(event["session"])) == ("error", nap) and event["message"].startswith("stale")


def test_imported_beside_a_running_agent_and_the_end_of_the_agent(make_agent):
    agent = make_agent().start()
    agent.import_os("F", "exit 1")
    document = agent.folder / "notice.json"
    document.write_text(json.dumps({"notices": [{"name": "N", "send": {"type": "os", "command": "sleep 1000"},
                                                 "group_s": 0}]}))
    subprocess.check_call([sys.executable, str(AGENT), "--master", str(agent.master), "--import", str(document)],
                          stdout=subprocess.DEVNULL)
    agent.ok("EXEC F -SYNC")
    connection = sqlite3.connect(str(agent.master))
    wait_for(lambda: connection.execute("select 1 from notice_message where tried not null").fetchone(), "a try")
    other = agent.connect()
    other.send("NOTICE TEST N")         # which hangs, and holds up nobody
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    agent.ok("SHUTDOWN")
    assert agent.wait() == 0
    assert connection.execute("select count from notice_message").fetchone() == (1,)
    connection.close()
    other.close()
