"""Where the host does not tell who is at the other end: the owner is known by a token beside the master."""
import os

import pytest

import agent as program
from support.client import run_client
from support.users import Guest


@pytest.fixture
def telling_nothing(monkeypatch, make_inside):
    """Agents on a host that does not tell, as macOS: telling_nothing("--no-owner")."""
    monkeypatch.setattr(program, "HOST_TELLS", False)
    return make_inside


def token_of(running):
    """The path of the agent's token."""
    return running.folder / "master.db.AGENT.token"


def test_who_can_read_the_token_is_the_owner(telling_nothing):
    running = telling_nothing().start()
    path = token_of(running)
    assert path.stat().st_mode & 0o7777 == 0o600 and path.stat().st_uid == os.geteuid()
    token = path.read_text().strip()
    guest = Guest(running)
    assert guest.code("SESSIONS") == "AUTH"
    for wrong in ("", token[:-1], token.upper() + "x", "\u00e9"):
        assert Guest(running, address="10.0.0.%d" % len(wrong)).code('AUTH - "%s"' % wrong) in ("AUTH", "BAD_REQUEST")
    assert Guest(running, address="10.1.1.1", is_private=False).code("AUTH - %s" % token) == "DENIED"
    assert guest.ok("AUTH - %s" % token)["role"] == "administrator"
    assert guest.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    running.ok("USERS ADD alice -ROLE=monitor")
    assert guest.code("USERS LIST") == "OK"             # changes of users do not change him
    running.stop()
    assert not path.exists()


def test_it_is_new_with_each_start_and_never_through_a_link(telling_nothing, tmp_path):
    running = telling_nothing().start()
    path, before = token_of(running), token_of(running).read_text()
    running.stop()
    path.write_text(before)                             # a crash would have left it
    running.start()
    assert path.read_text() != before
    running.stop()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(program.CannotStart, match="the token .* cannot be written"):
        running.start()
    assert not (tmp_path / "elsewhere").exists()


def test_where_the_host_tells_and_without_an_owner_there_is_none(telling_nothing, monkeypatch):
    running = telling_nothing().start()
    running.ok("USERS ADD root -ROLE=administrator")
    running.stop()
    running = telling_nothing("--no-owner").start()
    assert not token_of(running).exists() and Guest(running).code("AUTH - x") == "AUTH"
    running.stop()
    monkeypatch.setattr(program, "HOST_TELLS", True)
    running = telling_nothing().start()
    assert not token_of(running).exists() and Guest(running).code("AUTH - x") == "AUTH"


def test_agentcli_by_the_token(telling_nothing, monkeypatch):
    running = telling_nothing().start()
    monkeypatch.setattr(program, "find_peer_uid", lambda connection: None)
    server = program.Server(running.agent, "127.0.0.1", 0, program.WireLimits())
    server.listen()
    try:
        assert run_client(server.port, "sessions").status == 4
        result = run_client(server.port, "sessions", "--user", "-", "--password-file", str(token_of(running)))
        assert result.status == 0, result
    finally:
        server.close()
