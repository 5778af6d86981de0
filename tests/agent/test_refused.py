"""An EXEC or RESTART that is answered with ERR has left nothing: no row, no secret, nothing that a later start runs."""
import contextlib
import errno
import os
import resource

import pytest

from support.outside import foreign_lock, list_secrets, query

pytestmark = pytest.mark.once

SECRET = "s3cr3t-Pa55"


def import_s_and_t(agent):
    """An agent with a scenario S, which takes a secret and leaves a mark, and T, which takes none."""
    agent.import_os("S", "echo S >> %s; test ! -e %s" % (agent.folder / "marks", agent.folder / "fail"),
                    variables={"password": {"secret": True}})
    agent.import_os("T", "echo T >> %s" % (agent.folder / "marks"))
    return agent


def check_nothing_stays(agent, count=0, marks=""):
    """There are so many sessions as before, no secret, and nothing more runs, nor after the next start."""
    for _ in range(2):
        assert len(query(agent.work, "select id from session where scenario <> 'HELLO'")) == count
        assert list_secrets(agent) == []
        assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"      # what was there before has begun before
        agent.stop()
        agent.start()
    agent.ok("EXEC HELLO -SYNC")
    path = agent.folder / "marks"
    assert (path.read_text() if path.exists() else "") == marks
    assert agent.rows("SESSIONS -STATUS=WAITING,QUEUED,RUNNING") == []


# -- the file of the secret ------------------------------------------------------------

def is_secret(file):
    """Whether a path, or an open file, is that of a secret."""
    return ".secret." in (os.readlink("/proc/self/fd/%d" % file) if isinstance(file, int) else os.fspath(file))


@pytest.fixture(params=["open EACCES", "open ENOSPC", "open EMFILE", "open EROFS", "fsync EIO", "fsync ENOSPC"])
def trouble(request):
    """with trouble(): this call of the system fails for files of secrets."""
    name, code = request.param.split()
    number, call = getattr(errno, code), getattr(os, name)

    def failing(file, *arguments, **keywords):
        if is_secret(file):
            raise OSError(number, os.strerror(number))
        return call(file, *arguments, **keywords)

    @contextlib.contextmanager
    def patched():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, name, failing)
            yield
    return patched


@pytest.mark.parametrize("options", ["", "-KEY=k", "-AT=2099-01-01", "-SYNC"])
def test_a_secret_that_cannot_be_kept_makes_no_session(inside, trouble, options):
    agent, line = import_s_and_t(inside), "EXEC S password=%s %s" % (SECRET, options)
    with trouble():
        for _ in range(2):
            assert agent.err(line) == "REPOSITORY"
        assert list_secrets(agent) == []
        assert agent.ok("EXEC T -SYNC")["status"] == "DONE"      # others are served
    check_nothing_stays(agent, 1, "T\n")
    assert "duplicate" not in agent.ok(line)


def test_a_restart_whose_secret_cannot_be_kept_changes_nothing(inside, trouble):
    agent = import_s_and_t(inside)
    (agent.folder / "fail").touch()
    assert agent.ok("EXEC S password=%s -SYNC" % SECRET)["status"] == "ERROR"
    before = query(agent.work, "select * from session")
    (agent.folder / "fail").unlink()
    with trouble():
        assert agent.err("RESTART 1001 password=%s" % SECRET) == "REPOSITORY"
        assert query(agent.work, "select * from session") == before and list_secrets(agent) == []
    check_nothing_stays(agent, 1, "S\n")
    agent.ok("RESTART 1001 password=%s" % SECRET)
    assert agent.ok("WAIT 1001")["status"] == "DONE" and list_secrets(agent) == []


# -- the commit ------------------------------------------------------------------------

@contextlib.contextmanager
def small_files(agent, size):
    """The disk has no room: no file of the agent grows beyond so many bytes."""
    _, hard = resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (hard, hard))


TROUBLES = {"locked": lambda agent: foreign_lock(agent.work),
            "no room for the session": lambda agent: small_files(agent, 4096),
            "no room for the secret": lambda agent: small_files(agent, 0)}


@pytest.mark.parametrize("name", sorted(TROUBLES))
def test_a_session_that_cannot_be_written_is_not_there(make_agent, name):
    """EXEC and RESTART with a secret, and EXEC without, at once; none is written in time."""
    agent = import_s_and_t(make_agent().start())
    (agent.folder / "fail").touch()
    assert agent.ok("EXEC S password=%s -SYNC" % SECRET)["status"] == "ERROR"
    (agent.folder / "fail").unlink()
    before = query(agent.work, "select * from session")
    lines = ["EXEC S password=" + SECRET, "EXEC S -KEY=k password=" + SECRET, "RESTART 1001 password=" + SECRET, "EXEC T"]
    clients = [agent.connect() for _ in lines]
    with TROUBLES[name](agent):
        for client, line in zip(clients, lines):
            client.send(line)
        for client in clients:
            assert client.reply()[-1].startswith("ERR REPOSITORY "), name
            client.close()
    assert list_secrets(agent) == []
    assert query(agent.work, "select * from session") == before
    check_nothing_stays(agent, 1, "S\n")
    assert "duplicate" not in agent.ok("EXEC S -KEY=k -SYNC password=" + SECRET)
    agent.ok("RESTART 1001 password=" + SECRET)
    assert agent.ok("WAIT 1001")["status"] == "DONE"


# -- what the writer refuses -----------------------------------------------------------

@pytest.mark.parametrize("line, code", [
    ("EXEC S password=%s other=1", "BAD_REQUEST"), ("EXEC S password=%s -KEY=used", "CONFLICT"),
    ("EXEC L password=%s", "BUSY"), ("EXEC S nowhere password=%s", "NOT_FOUND"),
    ("EXEC S password=abc%.0s", "BAD_REQUEST"), ("EXEC S -1 NOWHERE password=%s", "NOT_FOUND"),
    ("RESTART 1001 password=%s", "CONFLICT"), ("RESTART 9999001 password=%s", "NOT_FOUND")])
def test_what_is_refused_leaves_no_secret(inside, line, code):
    agent = import_s_and_t(inside)
    agent.import_os("L", "sleep 1000", variables={"password": {"secret": True}},
                    concurrency={"limit": 1, "on_limit": "skip"})
    agent.ok("EXEC T -SYNC -KEY=used")
    agent.ok("EXEC L -AT=2099-01-01 password=" + SECRET)
    assert len(list_secrets(agent)) == 1
    assert agent.err(line % SECRET) == code
    assert len(list_secrets(agent)) == 1
    agent.ok("STOP 2001")
    check_nothing_stays(agent, 2, "T\n")
