"""~/.agentcli: agents by name, and what wins over what."""
import os
import subprocess
import sys

import pytest

from conftest import LIMIT_S
from support.client import PATH


@pytest.fixture
def home(tmp_path):
    """home(text) writes ~/.agentcli -> its path."""
    def write(text, mode=0o600):
        path = tmp_path / ".agentcli"
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path
    write.folder = tmp_path
    return write


def ping_from(home, *words, **variables):
    """(exit status, standard error) of ping."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_")}
    done = subprocess.run([sys.executable, PATH, "ping"] + list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=dict(environment, HOME=str(home.folder), **variables), timeout=LIMIT_S)
    assert b"Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr.decode()


def test_an_agent_has_a_name(shared, home):
    home("[night]\nhost = 127.0.0.1\nport = %d\n[away]\nhost = 127.0.0.2\nport = 1\n" % shared.port)
    assert ping_from(home, "--host", "night")[0] == 0
    assert ping_from(home, AGENT_HOST="night")[0] == 0
    assert "127.0.0.2:1: " in ping_from(home, "--host", "away")[1]
    assert ping_from(home, "--host", "away", AGENT_HOST="night")[0] == 3


def test_what_wins_over_what(shared, home):
    home("[night]\nport = %d\n" % shared.port)
    assert ping_from(home, "--host", "night", AGENT_PORT="1")[0] == 0          # the section over the environment
    assert ping_from(home, "--host", "night", "--port", "1")[0] == 3            # the option over the section
    assert ping_from(home, AGENT_PORT=str(shared.port))[0] == 0               # no section for who names none
    home("[default]\nport = 1\nhost = 127.0.0.2\n")
    assert "127.0.0.2:1: " in ping_from(home, AGENT_PORT=str(shared.port))[1]
    assert ping_from(home, "--host", "127.0.0.1", AGENT_PORT=str(shared.port))[0] == 0      # a host of no section


def test_a_unix_socket_gives_way_to_a_port(shared, home):
    home("[default]\nunix = ~/no-socket\nuser = nobody\n")
    status, told = ping_from(home)
    assert status != 0 and ("no-socket" in told or "password" in told)
    home("[default]\nunix = ~/no-socket\n")
    assert str(home.folder / "no-socket") in ping_from(home)[1]
    assert ping_from(home, "--port", str(shared.port))[0] == 0
    home("[default]\nhost = 127.0.0.2\ntls = yes\n")
    assert "/no/socket" in ping_from(home, "--unix", "/no/socket")[1]          # without TLS


@pytest.mark.parametrize("text, told", [
    ("[night]\nprot = 1\n", "[night]: there is no setting 'prot'; there are host port unix"),
    ("[night]\nport = x\n", "the port must be a number from 1 to 65535, not 'x' ("),
    ("[night]\ntls = maybe\n", "[night]: tls must be yes or no"), ("host = 1\n", "no section headers"),
    ("[night]\n[night]\n", "already exists")])
def test_what_is_wrong_there_is_one_line(home, text, told):
    path = home(text)
    status, said = ping_from(home, "--host", "night")
    assert status == 2 and told in said and str(path) in said and said.count("\n") == 1


def test_a_file_that_others_may_write_is_not_believed(home, shared):
    home("[night]\nport = %d\n" % shared.port, 0o660)
    status, said = ping_from(home, "--host", "night")
    assert status == 2 and "others can change" in said


def test_a_file_that_is_no_text(home):
    (home.folder / ".agentcli").write_bytes(b"[a]\nhost = \xff\n")
    assert ping_from(home)[0] == 2
