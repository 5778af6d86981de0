"""However a session ends, the same follows: its secrets are gone, it is counted, who waits for it is told."""
import re

import pytest

from conftest import wait_for
from support.outside import list_secrets
from support.tasks import import_secret

SECRET = "s3cr3t-Pa55"


def count_ends(agent):
    """{state: sessions that have ended so} of METRICS, without those of which there was none."""
    counts = {status: int(count) for line in agent.ask("METRICS")
              for status, count in re.findall(r'agent_sessions_ended_total\{status="(\w+)"\} (\d+)', line)}
    assert set(counts) == {"DONE", "WARNING", "ERROR", "STOPPED"}
    return {status: count for status, count in counts.items() if count}


def check_ended(agent, session, status, counts):
    """The session has ended so, nothing of its secrets is left, and METRICS has counted so many ends."""
    assert agent.wait_status(session, "DONE", "WARNING", "ERROR", "STOPPED")["status"] == status
    assert agent.ok("WAIT %s" % session)["status"] == status
    wait_for(lambda: not list_secrets(agent), "the secret to be gone")
    wait_for(lambda: count_ends(agent) == counts, "METRICS to show %s, not %s" % (counts, count_ends(agent)))


def execute(agent, name, options=""):
    """EXEC with the secret, which lies beside the repository then -> the session's number."""
    return agent.ok("EXEC %s password=%s %s" % (name, SECRET, options))["session"]


@pytest.mark.parametrize("code, status", [(0, "DONE"), (3, "ERROR")])
def test_run_to_its_end(inside, code, status):
    import_secret(inside, "S", 'test "$VAR_password" = %s && exit %d' % (SECRET, code))
    check_ended(inside, execute(inside, "S"), status, {status: 1})


def test_stopped_while_it_runs(inside):
    import_secret(inside, "S", "sleep 1000")
    session = execute(inside, "S")
    inside.wait_status(session, "RUNNING")
    assert list_secrets(inside)
    inside.ok("STOP %s -IMMEDIATE" % session)
    check_ended(inside, session, "STOPPED", {"STOPPED": 1})


@pytest.mark.parametrize("options", ["-AT=2099-01-01", "-KEYWORDS=held"])
def test_stopped_before_it_began(inside, options):
    import_secret(inside, "S", "true")
    inside.ok("HOLD")
    session = execute(inside, "S", options)
    assert inside.status(session)["status"] == "WAITING" and list_secrets(inside)
    assert inside.ok("STOP %s" % session)["status"] == "STOPPED"
    check_ended(inside, session, "STOPPED", {"STOPPED": 1})


def limited(on_limit, **fields):
    return {"concurrency": dict({"limit": 1, "on_limit": on_limit}, **fields)}


def test_waited_for_its_limit_in_vain(inside):
    import_secret(inside, "S", "sleep 1000", **limited("wait", max_wait=0.3))
    runs = execute(inside, "S")
    inside.wait_status(runs, "RUNNING")
    session = execute(inside, "S")
    inside.wait_status(session, "ERROR")
    assert "max_wait" in inside.status(session)["message"]
    wait_for(lambda: len(list_secrets(inside)) == 1, "the secret of the other to be left")
    inside.ok("STOP %s -IMMEDIATE" % runs)
    check_ended(inside, session, "ERROR", {"ERROR": 1, "STOPPED": 1})


def test_ended_at_once_by_its_limit(inside):
    import_secret(inside, "S", "sleep 1000", **limited("error"))
    runs = execute(inside, "S")
    inside.wait_status(runs, "RUNNING")
    said = inside.ok("EXEC S password=%s" % SECRET)
    assert said["status"] == "ERROR" and len(list_secrets(inside)) == 1
    assert count_ends(inside) == {"ERROR": 1}
    assert "its limit" in inside.ok("WAIT %s" % said["session"])["message"]
    inside.ok("STOP %s -IMMEDIATE" % runs)
    check_ended(inside, said["session"], "ERROR", {"ERROR": 1, "STOPPED": 1})


def test_ended_at_once_by_its_limit_when_it_came_due(inside):
    inside.import_os("S", "sleep 1000", **limited("error"))
    runs = inside.ok("EXEC S")["session"]
    inside.wait_status(runs, "RUNNING")
    inside.ok('SCHED ADD T S -1 GLOBAL "every 1s"')
    for _ in range(2):
        inside.let_pass(1)
    assert len(inside.rows("SESSIONS -SCHEDULE=T")) >= 2
    inside.ok("SCHED OFF T")
    rows = inside.rows("SESSIONS -SCHEDULE=T")
    assert {"its limit" in row["message"] for row in rows} == {True}
    check_ended(inside, rows[0]["session"], "ERROR", {"ERROR": len(rows)})


def test_the_next_attempt_of_what_its_limit_ended_waits_for_it(inside):
    inside.import_os("S", "until [ -e %s ]; do sleep 0.05; done" % (inside.folder / "go"), **limited("error"))
    runs = inside.ok("EXEC S")["session"]
    inside.wait_status(runs, "RUNNING")
    inside.ok('SCHED ADD T S -1 GLOBAL "every 1s" -ATTEMPTS=2 -RETRY_DELAY=0')
    wait_for(lambda: len(inside.rows("SESSIONS -SCHEDULE=T")) == 2, "T to fire, and its second attempt")
    inside.ok("SCHED OFF T")
    second, first = inside.rows("SESSIONS -SCHEDULE=T")
    assert first["status"] == "ERROR" and second["status"] in ("WAITING", "QUEUED")
    (inside.folder / "go").touch()
    check_ended(inside, second["session"], "DONE", {"DONE": 2, "ERROR": 1})


def test_replaced_by_the_next_due_time(make_inside, monkeypatch):
    """One that waits for the slot ends for the next; its secret came with RESTART."""
    monkeypatch.setenv("SOME_PASSWORD", SECRET)
    agent = make_inside("--max-sessions", "1").start()
    import_secret(agent, "S", "exit 3", {"env": "SOME_PASSWORD"})
    agent.import_os("NAP", "sleep 1000")
    agent.ok('SCHED ADD T S -1 GLOBAL "every 1s" -OVERLAP=stop')
    agent.let_pass(1)
    session = wait_for(lambda: agent.rows("SESSIONS -SCHEDULE=T -STATUS=ERROR"), "T to fire")[0]["session"]
    agent.ok("SCHED OFF T")
    wait_for(lambda: not agent.rows("SESSIONS -STATUS=WAITING,QUEUED,RUNNING"), "all to end")
    before = count_ends(agent)
    nap = agent.ok("EXEC NAP")["session"]
    agent.wait_status(nap, "RUNNING")
    agent.ok("RESTART %s password=%s" % (session, SECRET))
    assert agent.status(session)["status"] == "QUEUED" and list_secrets(agent)
    agent.ok("SCHED ON T")
    agent.let_pass(1)
    assert "the next due time had come" in agent.wait_status(session, "STOPPED")["message"]
    agent.ok("SCHED OFF T")
    rows = agent.rows("SESSIONS -SCHEDULE=T -STATUS=STOPPED")
    assert len(agent.rows("SESSIONS -SCHEDULE=T -STATUS=WAITING,QUEUED")) == 1
    check_ended(agent, session, "STOPPED", dict(before, STOPPED=len(rows)))


def test_closed_as_stale(make_agent):
    agent = make_agent().start()
    import_secret(agent, "S", "sleep 1000")
    session = execute(agent, "S")
    agent.wait_status(session, "RUNNING")
    assert list_secrets(agent)
    agent.kill()
    agent.start()
    assert "stale" in agent.status(session)["message"]
    check_ended(agent, session, "ERROR", {"ERROR": 1})
