"""The audit of agents as users run them: it outlives kills, and --verify-audit looks through it."""
import contextlib
import os
import re
import signal
import subprocess
import sys
import re
import time

import pytest

import agent as program
from conftest import AGENT, BOOT, LIMIT_S, wait_for
from support.audit import verify
from support.outside import change, query

pytestmark = pytest.mark.once

SUMMARY = "select verb || ' ' || object || ' ' || outcome from audit order by n"


def summary(agent):
    """The rows on disk, oldest first."""
    return [row[0] for row in query(agent.master, SUMMARY)]


def test_from_start_to_stop_and_what_the_command_line_does(agent, tmp_path):
    document, wrong = tmp_path / "document.json", tmp_path / "wrong.json"
    document.write_text('{"contexts": ["PROD"]}')
    wrong.write_text('{"contexts": 7}')
    agent.ok("SCHED UPDATE")
    agent.ok("AUDIT")                   # both are written

    def import_file(*options):
        return subprocess.run([sys.executable, "-c", BOOT, str(AGENT), "--master", str(agent.master), "--import"]
                              + list(options),
                              stderr=subprocess.DEVNULL, timeout=LIMIT_S).returncode
    assert (import_file(str(document)), import_file(str(wrong), "--repo", "WORKREP")) == (0, 1)
    assert agent.ok("AUDIT")["head"]
    assert [row["address"] for row in agent.rows("AUDIT")] == ["", "", "127.0.0.1", ""]
    assert {row["os_user"] for row in agent.rows("AUDIT -WHO=%s" % program.own_user())} == {program.own_user()}
    code, lines, errors = verify(agent.master)
    assert (code, errors) == (0, "") and lines[0].startswith("chain AGENT: 4 rows, head ") and lines[0].endswith(", whole")
    assert agent.stop(signal.SIGINT) == 0
    assert import_file(str(document)) == 0
    assert summary(agent) == [
        "AGENT START  OK", "SCHED UPDATE  OK", "IMPORT  OK", "IMPORT -REPO=WORKREP BAD_REQUEST", "SIGNAL SIGINT OK",
        "AGENT STOP  OK", "IMPORT  OK"]
    head, = query(agent.master, "select hash from audit where n=6")[0]
    assert "the audit of AGENT ends with row 6, %s" % head in agent.log()
    assert verify(agent.master, "--head", head)[0] == 0


def test_what_verify_audit_answers(agent):
    for _ in range(3):
        agent.ok("SCHED UPDATE")
    head = agent.ok("AUDIT -LIMIT=1")["head"]
    assert agent.stop() == 0
    before = agent.master.read_bytes()
    assert verify(agent.master, "--head", head)[0] == 0 and agent.master.read_bytes() == before
    change(agent.master, "delete from audit where n>3")
    assert verify(agent.master)[0] == 0         # who does not know the head, does not miss the end
    code, lines, _ = verify(agent.master, "--head", head)
    assert code == 1 and lines[-1].startswith("no row has the hash %s: " % head)
    change(agent.master, "update audit set outcome='DENIED' where n=2")
    code, lines, _ = verify(agent.master)
    assert code == 1 and lines[0].endswith(", broken: row 2 is not as it was written")
    code, lines, errors = verify(agent.folder / "none.db")
    assert (code, lines) == (1, []) and "none.db" in errors and errors.count("\n") == 1
    (agent.folder / "text.db").write_text("no database at all, but a text" * 100)
    assert verify(agent.folder / "text.db")[:2] == (1, [])
    assert verify(agent.master, "--no-such")[0] == 2


def test_a_master_of_an_older_agent_has_none_yet(agent):
    assert agent.stop() == 0
    version = next(index for index, text in enumerate(program.MASTER_MIGRATIONS) if "create table audit" in text)
    later = re.findall("create table ([a-z_]+)", "".join(program.MASTER_MIGRATIONS[version:]))
    change(agent.master, *["drop table %s" % table for table in later] + ["pragma user_version=%d" % version])
    assert verify(agent.master) == (0, ["no audit: no agent has written one here yet"], "")
    agent.start()
    assert [row["verb"] for row in agent.rows("AUDIT")] == ["AGENT START"]


def test_the_chain_is_whole_after_each_kill(agent):
    """And what was told a second before is there."""
    for turn in range(1, 5):
        agent.ok("SCHED UPDATE")
        count = len(agent.rows("AUDIT -LIMIT=100000"))
        with agent.connect() as client:
            client.send_raw(b"SCHED UPDATE\nSTOP 99001\n" * 300)
            time.sleep(0.1 * turn)
            agent.kill()
        code, lines, _ = verify(agent.master)
        assert code == 0 and int(lines[0].split()[2]) >= count, lines
        agent.start()
    agent.ok("AUDIT")
    assert summary(agent).count("AGENT START  OK") == 5 and "AGENT STOP  OK" not in summary(agent)


def test_it_is_written_within_a_second_unasked(agent):
    agent.ok("HOLD")
    begun = time.monotonic()
    wait_for(lambda: "HOLD  OK" in summary(agent), "the row")
    assert time.monotonic() - begun < 10        # a second, on a machine that has nothing else to do


def test_what_waits_for_a_locked_master_holds_up_no_end(agent):
    """It is told how much is lost."""
    agent.ok("AUDIT")
    with contextlib.closing(program.connect_file(str(agent.master))) as other:
        other.execute("begin immediate")
        agent.ok("SCHED UPDATE")
        assert agent.ok("SHUTDOWN") == {}
        assert agent.wait() == 0
    assert "3 rows of the audit could not be written" in agent.log()
    assert "SCHED UPDATE  OK" not in summary(agent) and verify(agent.master)[0] == 0


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0 or not os.path.exists("/usr/bin/perl"),
                    reason="needs root, and a program that another user may run")
def test_another_user_of_the_host_is_named(agent):
    code = ("use IO::Socket::INET; $( = $) = 65533; $< = $> = 65533; $s = IO::Socket::INET->new('127.0.0.1:%d');"
            " print $s \"EXEC HELLO who=sesame\\n\" x 2000; $n = 0; while (<$s>) { last if ++$n == 2000 }" % agent.port)
    subprocess.run(["/usr/bin/perl", "-e", code], check=True, timeout=LIMIT_S)
    row, = agent.rows("AUDIT -VERB=EXEC")
    assert (row["user"], row["address"], row["object"], row["outcome"]) == ("", "127.0.0.1", "HELLO", "AUTH")
    assert row["os_user"] == "uid 65533" and "sesame" not in str(query(agent.master, "select * from audit"))
    assert agent.stop() == 0
    assert query(agent.master, "select count(*), sum(count) from audit where verb='EXEC'") == [(2, 2000)]
