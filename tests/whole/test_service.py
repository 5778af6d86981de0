"""The agent under systemd: what it tells it, and the unit that it prints."""
import shutil
import socket
import subprocess
import sys

import pytest

from conftest import AGENT, LIMIT_S, wait_for


@pytest.fixture
def manager(tmp_path):
    """systemd's end of the socket: a function that gives all that was said so far, and its address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        said = []

        def hear():
            while True:
                try:
                    said.append(end.recv(4096).decode())
                except BlockingIOError:
                    return said
        yield hear, str(tmp_path / "notify")


def test_systemd_hears_that_it_is_ready_lives_and_stops(make_agent, manager):
    hear, address = manager
    agent = make_agent(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000", "WATCHDOG_PID": "1"}).start()
    wait_for(lambda: sum(text.startswith("WATCHDOG=1\n") for text in hear()) >= 3, "the watchdog to be told")
    assert hear()[0] == "READY=1\nSTATUS=READY: 0 running, 0 outstanding"
    agent.import_os("SHOW", "env | grep -c 'NOTIFY\\|WATCHDOG'; true")
    assert agent.log_texts(agent.ok("EXEC SHOW -SYNC")["session"]) == ["0"]
    assert agent.stop() == 0
    assert "STOPPING=1\nSTATUS=stopping" in hear()


def test_without_a_watchdog_it_is_told_no_more_than_that(make_agent, manager):
    hear, address = manager
    agent = make_agent(env={"NOTIFY_SOCKET": address}).start()
    agent.ok("EXEC HELLO -SYNC")
    assert agent.stop() == 0
    assert [text.split("\n")[0] for text in hear()] == ["READY=1", "STOPPING=1"]


def test_a_manager_that_is_gone_stops_nothing(make_agent, tmp_path):
    agent = make_agent(env={"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "100000"}).start()
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert agent.stop() == 0


def print_unit(*options, cwd=None):
    """What --service prints with these options."""
    return subprocess.run([sys.executable, str(AGENT)] + list(options), stdout=subprocess.PIPE, check=True, cwd=cwd,
                          timeout=LIMIT_S).stdout.decode()


def words_of(unit):
    """ExecStart as systemd reads it (systemd.service(5)), for what is quoted here."""
    import shlex
    line, = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line[len("ExecStart="):])]


def test_the_unit_starts_the_agent_with_the_options_that_it_was_asked_with(tmp_path):
    unit = print_unit("--service", "--name", "NIGHT", "--port", "4000", "--master", "a b/m%1$x.db", "--create",
                      "--max-sessions", "3", cwd=str(tmp_path))
    assert words_of(unit)[1:] == [str(AGENT), "--name", "NIGHT", "--port", "4000", "--master",
                                  str(tmp_path / "a b" / "m%1$x.db"), "--create", "--max-sessions", "3"]
    assert "Type=notify" in unit and "WatchdogSec=" in unit and "NoNewPrivileges=yes" in unit
    assert "WantedBy=multi-user.target" in unit


def test_the_unit_of_a_user_asks_for_nothing_that_users_may_not(tmp_path):
    unit = print_unit("--service=user", "--master", "m.db", cwd=str(tmp_path))
    assert "WantedBy=default.target" in unit and "User=" not in unit and "Protect" not in unit
    assert "systemctl --user" in unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
@pytest.mark.parametrize("kind", ["system", "user"])
def test_systemd_finds_no_fault_in_the_unit(tmp_path, kind):
    path = tmp_path / "agent-AGENT.service"
    path.write_text(print_unit("--service=" + kind, "--master", "m.db", cwd=str(tmp_path)))
    words = ["systemd-analyze"] + ["--user"] * (kind == "user") + ["verify", "--man=no", str(path)]
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S)
    said = [line for line in result.stdout.decode().splitlines() if path.name in line]
    assert said == [], result.stdout
