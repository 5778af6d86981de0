"""PING says how it is with the files: one that can only be read, one that is spoilt."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

from conftest import AGENT, wait_for
from server.test_peer import NOBODY


@pytest.fixture
def make_plain(make_agent):
    """make_agent(), of a user whom the modes of files bind, in a folder where he may go."""
    if os.getuid():
        yield make_agent
        return
    command = "exec setpriv --reuid=%d --regid=%d --clear-groups '%s'" % (NOBODY, NOBODY, sys.executable)
    if subprocess.call(command + " -c 'open(\"%s\")'" % AGENT, shell=True, stderr=subprocess.DEVNULL, cwd="/"):
        pytest.skip("another user cannot run this Python")
    base = pathlib.Path(tempfile.mkdtemp(prefix="standing-"))      # pytest's own are for its user alone
    base.chmod(0o755)
    wrapper = base / "python"
    wrapper.write_text('#!/bin/sh\n%s "$@"\n' % command)
    wrapper.chmod(0o755)
    os.mkdir(str(base / "repo"))
    os.chown(str(base / "repo"), NOBODY, NOBODY)
    agents = []

    def make(*options):
        agents.append(make_agent(*options, folder=str(base / "repo"), python=str(wrapper)))
        return agents[-1]
    yield make
    for agent in agents:
        agent.finish()
    shutil.rmtree(str(base))


def test_a_repository_that_can_only_be_read_at_the_start(make_plain):
    agent = make_plain().start()
    session = agent.ok("EXEC HELLO -SYNC")["session"]
    assert agent.stop() == 0
    agent.work.chmod(0o400)
    agent.start()
    wait_for(lambda: agent.ok("PING")["status"] == "STANDBY", "it to be read")      # a slow machine is late
    assert agent.ok("PING")["repositories"] == "0/1"
    assert agent.status(session)["status"] == "DONE" and agent.log_texts(session)
    agent.work.chmod(0o600)
    wait_for(lambda: agent.ok("PING")["status"] == "READY", "it to be written")
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    assert agent.log().count("cannot be written") == agent.log().count("can be written again") == 1


@pytest.mark.parametrize("name", ["master", "work"])
def test_a_file_whose_beginning_is_spoilt(agent, name):
    path = getattr(agent, name)
    assert agent.ok("EXEC HELLO -SYNC")["status"] == "DONE"
    keep = agent.folder / "keep"
    # by a process of its own: one that closes a file drops its locks of it
    subprocess.check_call("dd if=%s of=%s bs=8192 count=1 && dd if=/dev/zero of=%s bs=8192 count=1 conv=notrunc"
                          % (path, keep, path), shell=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: agent.ok("PING")["status"] == "DEGRADED", "the damage to be noticed")
    subprocess.check_call("dd if=%s of=%s conv=notrunc" % (keep, path), shell=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: agent.ok("PING")["status"] == "READY", "it to be over")
