"""What breaks while the agent runs: files deleted, and damaged in a page; clients that die amid a reply."""
import os
import socket
import struct

import pytest

from conftest import wait_for
from support.audit import verify
from support.outside import copy_repository, damage, query
from support.waiting import go, import_waiting, wait_begun, wait_ping

pytestmark = pytest.mark.once

LOOKS = ("SESSIONS", "STATUS 1001", "LOG 1001", "SCENARIOS", "SCHED LIST", "SCHED WHY", "EXPORT", "METRICS", "AUDIT")


def attach_other(agent):
    """A second repository with a scenario of its own, which has to go on."""
    agent.ok("ATTACH OTHER other.db -CREATE")
    agent.import_document({"scenarios": [{"name": "ELSE", "version": "1", "steps": [
        {"name": "s", "tasks": [{"type": "os", "command": "echo well"}]}]}]}, "-REPO=OTHER")


def is_well(agent, words="ELSE -REPO=OTHER"):
    """Whether a session, of the other repository, ends well."""
    return agent.ok("EXEC %s -SYNC" % words)["status"] == "DONE"


def delete_repository(path):
    for ending in ("-wal", "-shm", ""):
        if os.path.exists(str(path) + ending):
            os.unlink(str(path) + ending)


def test_a_work_repository_deleted_under_the_agent(agent):
    """The others go on, nothing is made in its place, and a copy that is put there is taken up."""
    attach_other(agent)
    import_waiting(agent)
    copy_repository(agent.work, agent.folder / "copy.db")
    session = agent.ok("EXEC W")["session"]
    wait_begun(agent, session)
    delete_repository(agent.work)
    assert agent.err("EXEC W") == "REPOSITORY" and is_well(agent)
    wait_ping(agent, status="DEGRADED", repositories="1/2", running="1")
    assert agent.err("STATUS %s" % session) == "REPOSITORY" and not agent.work.exists()
    os.rename(str(agent.folder / "copy.db"), str(agent.work))
    wait_ping(agent, status="READY", repositories="2/2")
    agent.ok("RELEASE -REPO=WORKREP")   # a copy starts held
    assert agent.err("STATUS %s" % session) == "NOT_FOUND" and is_well(agent)
    go(agent)                           # its number may be given again when it has ended
    wait_for(lambda: "ended in memory" in agent.log(), "its end to be told")
    assert is_well(agent, "HELLO")
    assert agent.stop() == 0 and query(agent.work, "pragma integrity_check") == [("ok",)]


def test_a_work_repository_damaged_in_a_page(agent):
    """Nothing of it is believed, nothing else is touched, also by the next start; a good copy mends it."""
    attach_other(agent)
    for _ in range(3):
        assert is_well(agent, "HELLO")
    copy_repository(agent.work, agent.folder / "copy.db")
    damage(agent.work, "session", "session_task")
    for request in LOOKS:
        last = agent.ask(request)[-1]
        assert last.startswith("OK") or last.startswith("ERR REPOSITORY "), (request, last)
    assert agent.err("EXEC HELLO") == "REPOSITORY" and agent.err("STATUS 1001") == "REPOSITORY" and is_well(agent)
    wait_ping(agent, status="DEGRADED", repositories="1/2")
    agent.kill()
    agent.start()
    assert agent.ok("PING")["repositories"] == "1/2" and is_well(agent)
    assert "malformed" in next(row["message"] for row in agent.rows("REPOS") if row["repository"] == "WORKREP")
    delete_repository(agent.work)
    os.rename(str(agent.folder / "copy.db"), str(agent.work))
    wait_ping(agent, status="READY", repositories="2/2")
    agent.ok("RELEASE -REPO=WORKREP")
    assert len(agent.rows("SESSIONS -REPO=WORKREP")) == 3 and is_well(agent, "HELLO")


@pytest.mark.parametrize("part", ("audit", "audit_time"))
def test_the_audit_damaged_in_a_page(agent, part):
    """It keeps nothing else of the master from being written."""
    agent.ok("AUDIT")
    damage(agent.master, part)
    agent.ok("HOLD")
    wait_for(lambda: "the audit cannot be written: master repository cannot be read: database disk image" in agent.log(), "that to be told")
    for _ in range(3):
        agent.ok("HOLD")
        agent.ok("RELEASE")
    assert is_well(agent, "HELLO") and agent.ok("PING")["status"] == "READY"
    assert agent.err("AUDIT") == "REPOSITORY" and (part != "audit" or verify(agent.master)[0] == 1)
    waiting, = [line for line in agent.ask("METRICS") if line.startswith("* agent_audit_rows_waiting ")]
    assert int(waiting.split()[-1]) == 8 and "master repository cannot be written" not in agent.log()
    assert agent.stop() == 0 and "rows of the audit could not be written" in agent.log()


def test_a_master_deleted_under_the_agent(agent):
    """Sessions and schedules go on; what cannot be kept is refused; the audit keeps it until a copy is there."""
    agent.ok("SCHED ADD S HELLO -1 GLOBAL 'every 1s'")
    agent.ok("AUDIT")
    copy_repository(agent.master, agent.folder / "copy.db")
    delete_repository(agent.master)
    last = agent.rows("SESSIONS -SCHEDULE=S -LIMIT=1")
    assert agent.err("STOP 99001") == "NOT_FOUND"
    wait_for(lambda: agent.rows("SESSIONS -SCHEDULE=S -LIMIT=1") != last, "the schedule to go on")
    assert is_well(agent, "HELLO") and agent.err("HOLD") == "REPOSITORY" and agent.err("CONTEXTS") == "REPOSITORY"
    assert agent.ok("PING")["status"] == "DEGRADED" and not agent.master.exists()
    os.rename(str(agent.folder / "copy.db"), str(agent.master))
    wait_for(lambda: not agent.ask("HOLD")[-1].startswith("ERR"), "the master to be back")
    wait_ping(agent, status="READY")
    told = [" ".join((row["verb"], row["outcome"])) for row in agent.rows("AUDIT")][::-1]
    assert told[:4] == ["AGENT START OK", "SCHED ADD OK", "STOP NOT_FOUND", "HOLD REPOSITORY"] and told[-1] == "HOLD OK"
    assert agent.stop() == 0 and verify(agent.master)[0] == 0


def test_clients_that_die_amid_a_reply(agent):
    """By a reset, after some of it: their connections come back, their EXECs stand, and nobody else waits."""
    agent.import_os("LONG", "i=0; while [ $i -lt 4000 ]; do echo line $i of a text that is a little longer; i=$((i+1)); done")
    session = agent.ok("EXEC LONG -SYNC")["session"]
    before = len(agent.rows("SESSIONS"))
    requests = ["LOG %s" % session, "LOG %s -FOLLOW" % session, "HELP", "EXPORT", "SESSIONS", "AUDIT"]
    for request in requests:
        for size in (1, 4096, 70000):
            client = socket.create_connection(("127.0.0.1", agent.port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"EXEC HELLO\n" + request.encode() + b"\nEXEC HELLO\n" + request.encode() + b"\n")
            client.recv(size)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            assert agent.ok("PING")["status"] == "READY"

    def connections():
        return [line.split()[-1] for line in agent.ask("METRICS") if line.startswith("* agent_connections ")]
    wait_for(lambda: connections() == ["1"], "their connections to be given back")
    count = len(agent.rows("SESSIONS -LIMIT=1000")) - before
    assert len(requests) * 3 <= count <= len(requests) * 6
    wait_ping(agent, running="0", queued="0")
    assert {row["status"] for row in agent.rows("SESSIONS -LIMIT=1000")} == {"DONE"}
