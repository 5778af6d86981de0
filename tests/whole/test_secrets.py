"""A secret value is shown nowhere: not in the repository, logs, listings, errors or arguments."""
import json

import pytest

from conftest import wait_for
from support.tasks import os_task

VALUE = "s3cr3t-Pa55"


def secret_document(*tasks, **fields):
    return {"scenarios": [dict({
        "name": "S", "version": "1", "variables": {"password": {"secret": True}, "plain": "p", "out": ""},
        "steps": [{"name": "main", "tasks": list(tasks)}]}, **fields)]}


def test_shown_nowhere_and_gone_after_the_end(agent):
    agent.import_document(secret_document(
        os_task('echo "its $VAR_password!"; printf "%s" "${password}" >&2; exit 3', capture="out")))
    last = agent.ask("EXEC S password=%s -SYNC" % VALUE)[-1]
    assert "status=ERROR" in last
    assert agent.log_texts(1001) == ["its ***!", "***"] or agent.log_texts(1001) == ["***", "its ***!"]
    assert {"variable": "password", "value": "***"} in agent.rows("STATUS 1001")
    everything = "".join("\n".join(agent.ask(line)) for line in (
        "STATUS 1001", "SESSIONS", "EXPORT", "LOG 1001", "SESSIONS -JSON"))
    assert VALUE not in everything
    agent.stop()
    for path in agent.folder.iterdir():
        assert VALUE.encode() not in path.read_bytes(), path
    assert not list(agent.folder.glob("*.secret.*"))


def test_masked_across_reads_and_in_lines_without_end(agent):
    pieces = " ".join("'%s'" % piece for piece in (VALUE[:4], VALUE[4:]))
    agent.import_document(secret_document(
        os_task("for i in %s; do printf %%s $i; sleep 0.2; done; echo" % pieces),
        os_task("head -c 16380 /dev/zero | tr '\\0' x; printf %s \"${password}\"; "
                "head -c 40000 /dev/zero | tr '\\0' y")))
    agent.ok("EXEC S password=%s -SYNC" % VALUE)
    texts = agent.log_texts(1001)
    assert texts[0] == "***"
    assert VALUE not in "".join(texts) and "x***y" in "".join(texts[1:])


def test_lies_in_a_private_file_until_the_end(agent):
    agent.import_document(secret_document(os_task("sleep 1000")))
    agent.ok("EXEC S password=%s" % VALUE)
    agent.wait_status(1001, "RUNNING")
    found = list(agent.folder.glob("*.secret.*"))
    assert [path.stat().st_mode & 0o777 for path in found] == [0o600]
    assert json.loads(found[0].read_text()) == {"password": VALUE}
    agent.ok("STOP 1001 -IMMEDIATE")
    wait_for(lambda: not list(agent.folder.glob("*.secret.*")), "the secret to be gone")
    assert agent.err("RESTART 1001") == "BAD_REQUEST"
    agent.ok("RESTART 1001 password=another-one")
    agent.wait_status(1001, "RUNNING")
    agent.ok("STOP 1001 -IMMEDIATE")


def test_survives_a_kill_and_strays_are_removed(make_agent):
    agent = make_agent().start()
    agent.import_document(secret_document(os_task("until [ -e go ]; do sleep 0.1; done; test \"${password}\" = %s" % VALUE),
                                   on_stale="restart"))
    agent.ok("EXEC S password=%s" % VALUE)
    agent.wait_status(1001, "RUNNING")
    agent.kill()
    (agent.folder / "workrep.db.secret.999001").write_text("{}")
    agent.start()
    (agent.folder / "go").touch()
    agent.wait_status(1001, "DONE")
    wait_for(lambda: not list(agent.folder.glob("*.secret.*")), "no secret to be left")


def test_read_when_the_session_begins(make_agent, tmp_path):
    path = tmp_path / "key"
    path.write_text(VALUE + "\n")
    agent = make_agent(env={"FROM_ENV": "env-" + VALUE}).start()
    variables = {"a": {"secret": True, "file": str(path)}, "b": {"secret": True, "env": "FROM_ENV"}}
    agent.import_document(secret_document(os_task('echo "${a} ${b}"'), variables=variables))
    assert agent.ok("EXEC S -SYNC")["status"] == "DONE"
    assert agent.log_texts(1001) == ["*** ***"]
    path.unlink()
    end = agent.ok("EXEC S -SYNC")
    assert end["status"] == "ERROR" and "secret a" in end["message"]
    path.write_text("abc")
    assert "under 4" in agent.ok("EXEC S -SYNC")["message"]


@pytest.mark.parametrize("document, path", [
    (secret_document(os_task(["echo", "${password}"])), "scenarios[0].steps[0].tasks[0].command[1]"),
    (secret_document({"type": "python", "code": "1", "args": ["${password}"]}),
     "scenarios[0].steps[0].tasks[0].args[0]"),
    (secret_document(os_task("true", capture="password")), "scenarios[0].steps[0].tasks[0].capture"),
    (secret_document({"type": "set", "variable": "password", "value": "x"}),
     "scenarios[0].steps[0].tasks[0].variable"),
    (secret_document(os_task("true"), variables={"x": {"secret": False}}), "scenarios[0].variables.x"),
    (secret_document(os_task("true"), variables={"x": {"secret": True, "env": 1}}),
     "scenarios[0].variables.x"),
])
def test_refused_at_import(shared, document, path):
    lines = shared.ask("IMPORT '%s'" % json.dumps(document))
    assert any(line.startswith("* %s: " % path) for line in lines), lines
    assert lines[-1].startswith("ERR BAD_REQUEST")


def test_refused_where_it_would_be_stored_or_cannot_be_masked(agent):
    agent.import_document(secret_document(os_task("true")))
    assert agent.err("EXEC S") == "BAD_REQUEST"
    assert agent.err("EXEC S password=abc") == "BAD_REQUEST"
    for line in ("EXEC S password=%s password=%s", "PING password=%s%s", "EXEC S x=%s%s"):
        assert VALUE not in "".join(agent.ask(line % (VALUE, VALUE)))
    assert agent.err("SCHED ADD N S -1 GLOBAL 'daily at 02:00' password=%s" % VALUE) == "BAD_REQUEST"
    assert agent.err("SCHED ADD N S -1 GLOBAL 'daily at 02:00'") == "BAD_REQUEST"
    assert agent.rows("SESSIONS") == []


def test_a_child_takes_it_only_as_a_secret(agent):
    child = secret_document(os_task('test "${password}" = %s' % VALUE))["scenarios"][0]
    open_child = dict(child, name="OPEN", variables={"password": ""})
    for name, version in (("S", "1"), ("OPEN", "2")):
        parent = secret_document({"type": "scenario", "name": name, "variables": {"password": "${password}"}})
        parent["scenarios"][0].update(name="PARENT", version=version)
        parent["scenarios"] += [child, open_child]
        agent.import_document(parent)
    assert agent.ok("EXEC PARENT 1 password=%s -SYNC" % VALUE)["status"] == "DONE"
    end = agent.ok("EXEC PARENT 2 password=%s -SYNC" % VALUE)
    assert end["status"] == "ERROR" and "declare it secret" in end["message"]


def test_a_key_asks_again_for_the_same_session(agent):
    agent.import_document(secret_document(os_task("true")))
    assert "duplicate" not in agent.ok("EXEC S password=%s -KEY=k" % VALUE)
    assert agent.ok("EXEC S password=%s -KEY=k" % VALUE)["duplicate"] == "yes"
