"""MAILTO of crontabs becomes notices: which, of what, told again, gone."""
import json
import sys

import pytest

from conftest import TOP
from support.client import run_client
from support.peers import Peer, Post

sys.path.insert(0, str(TOP / "tools"))

from agentcli import make_crontab       # noqa: E402

pytestmark = pytest.mark.once

TEXT = """\
0 1 * * * true none
MAILTO=ops@example.org, root
0 2 * * * true a
0 3 * * * false
MAILTO=""
0 4 * * * true quiet
MAILTO='me'
0 5 * * * true b
MAILTO=ops@example.org, root
0 6 * * * true c
"""


def notices_of(text, path="nightly"):
    return make_crontab(path, None, "me", "/home/me").read(text.encode()).list_notices()


def import_text(agent, text, *options):
    return run_client(agent.port, "import", "--crontab", "-", *options, input=text.encode())


def notices_in(agent):
    return {row["name"]: row["scenarios"].split(",") for row in agent.rows("NOTICE LIST")}


def test_one_for_each_value_of_the_scenarios_below_it():
    assert [(each["send"], each["scenarios"]) for each in notices_of(TEXT)] == [
        ({"type": "mail", "to": ["me"]}, ["CRON.true_b"]),
        ({"type": "mail", "to": ["ops@example.org", "root"]}, ["CRON.false", "CRON.true_a", "CRON.true_c"])]
    assert [each["name"] for each in notices_of(TEXT)][0] == "CRON.MAILTO.cron.me"


@pytest.mark.parametrize("value", ['""', "''", "", ","])
def test_who_names_nobody_is_sent_nothing(value):
    crontab = make_crontab("nightly", None, "me", "/home/me").read(("MAILTO=%s\n0 1 * * * true\n" % value).encode())
    assert crontab.list_notices() == [] and crontab.notes == [] and "notices" not in crontab.document()


def test_names_tell_values_and_crontabs_apart():
    names = {notices_of("MAILTO=%s\n0 1 * * * %s true\n" % (value, user), path)[0]["name"]
             for value in ("a@b", "a b", "a,b", "a.b", "a_b", "A_b", "a+b@c")
             for user, path in (("", "nightly"), ("me", "/etc/crontab"), ("me", "/etc/cron.d/x"), ("me", "/etc/cron.d/y"))}
    assert len(names) == 4 * 7 and all(len(name) <= 128 for name in names)


def test_imported_again_changed_and_gone(agent):
    result = import_text(agent, TEXT)
    assert (result.status, result.out) == (0, "scenarios=6 schedules=6 left_out=0\n")
    told = [line for line in result.err.splitlines() if "MAILTO" in line]
    assert len(told) == 3 and all("a mail is sent when a command fails, not when it prints" in line for line in told)
    before = notices_in(agent)
    assert sorted(map(len, before.values())) == [1, 3]
    import_text(agent, TEXT)
    assert notices_in(agent) == before
    gone = "".join(line + "\n" for line in TEXT.splitlines() if line not in ("MAILTO='me'", "0 6 * * * true c"))
    result = import_text(agent, gone, "--replace")
    assert "notice CRON.MAILTO.cron.me stands for no MAILTO, and mails as before: --prune deletes it" in result.err
    result = import_text(agent, gone, "--dry-run", "--prune")
    assert "--prune deletes it" in result.err and len(notices_in(agent)) == 2
    result = import_text(agent, gone, "--prune")
    assert "notice CRON.MAILTO.cron.me stands for no MAILTO: deleted" in result.err
    assert list(notices_in(agent).values()) == [["CRON.false", "CRON.true_a"]]
    assert import_text(agent, gone, "--prune").err.count("\n") == gone.count("MAILTO=ops")


def test_an_agent_that_sends_no_mail(make_agent):
    agent = make_agent("--allow-types", "os").start()
    result = import_text(agent, TEXT)
    assert (result.status, result.out) == (0, "scenarios=6 schedules=6 left_out=0\n")
    assert result.err.count("no mail is sent: tasks of this type (mail) may not run here") == 3
    assert notices_in(agent) == {}


def test_a_line_that_fails_is_mailed(agent):
    post = Peer(Post)
    agent.import_document({"data_servers": [{"name": "MAIL", "driver": "smtp", "connect": {
        "host": "127.0.0.1", "port": post.port}}]})
    import_text(agent, TEXT)
    name, = [name for name, scenarios in notices_in(agent).items() if "CRON.false" in scenarios]
    result = run_client(agent.port, "notice", "test", name)
    assert (result.status, result.out) == (0, "notice=%s status=DONE\n" % name)
    assert post.seen[0][1] == ["ops@example.org", "root"]
    rows = [json.loads(line) for line in run_client(agent.port, "notice", "list", "--json").out.splitlines()]
    assert {row["name"] for row in rows} == set(notices_in(agent))
    assert name in run_client(agent.port, "completion", "words", "--", "notice", "test", "CRON").out.split()
    post.options["login"] = True
    agent.import_document({"data_servers": [{"name": "MAIL", "driver": "smtp", "connect": {
        "host": "127.0.0.1", "port": post.port, "user": "me", "password": "wrong"}}]})
    result = run_client(agent.port, "notice", "test", name)
    assert result.status == 1 and "status=ERROR" in result.out and "wrong" not in result.out
    assert run_client(agent.port, "notice", "del", name).status == 0 and name not in notices_in(agent)
    assert run_client(agent.port, "notice", "test", name).status == 4
    post.close()
