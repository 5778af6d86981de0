"""Names that somebody has planted: whatever stands in them, no log, reply, message or terminal gets it as it is."""
import json
import os
import re
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing

import pytest

from conftest import AGENT, BOOT
from support.client import PATH
from support.tasks import os_task, step

pytestmark = pytest.mark.once

PLANTED = "p\x1b]0;x\x07\rOK q\nERR INTERNAL z\udcff\u202e"
SHOWN = r"p\x1b]0;x\x07"
HIDDEN = re.compile("[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SENT = PLANTED.replace("\udcff", "\u00e9")      # as JSON can have it


def check_clean(text, *parts):
    """Every line of a text is clean and none begins in the middle of a name."""
    for line in text.split("\n"):
        assert not HIDDEN.search(line) and not line.startswith(("OK q", "ERR INTERNAL z")), ascii(line)
    for part in parts:
        assert part in text, ascii(text)


def output_of(*words):
    """What a program prints, on stdout and stderr together."""
    return subprocess.run([os.fsencode(word) for word in (sys.executable,) + words], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL).stdout.decode()


@pytest.fixture(scope="module")
def planted(make, tmp_path_factory):
    """An agent in a folder of such a name, and such a folder."""
    folder = tmp_path_factory.mktemp("planted") / PLANTED
    folder.mkdir()
    return make(PLANTED), folder


def test_what_tasks_meet(planted):
    agent, folder = planted
    sent = folder.parent / SENT
    sent.mkdir()
    with zipfile.ZipFile(str(sent / "a.zip"), "w") as archive:
        archive.writestr("../" + SENT, b"x")
    (folder / SENT).mkdir()
    os.mkfifo(str(folder / SENT / "pipe"))
    (folder / SENT / "file").write_text("x")
    (sent / SENT).write_text("a,b\n1\n\x1b[2J\n")
    os.symlink(str(folder), str(sent / "link"))     # behind it the name is no UTF-8
    agent.import_document({
        "data_servers": [{"name": "F", "driver": "sqlite3", "database": str(sent / "no" / SENT)},
                         {"name": "G", "driver": "sqlite3", "database": str(sent / "g.db")}],
        "logical_schemas": [{"name": "F", "contexts": {"GLOBAL": "F"}}, {"name": "G", "contexts": {"GLOBAL": "G"}}]})
    tasks = [{"type": "load_csv", "file": str(sent / SENT), "schema": "G", "table": "t", "mode": "create",
              "max_errors": 2},
             {"type": "load_csv", "file": str(sent / "no"), "schema": "G", "table": "t"},
             {"type": "sql", "schema": "F", "statement": "select 1"},
             {"type": "unzip", "from": str(sent / "a.zip"), "to": str(sent / "to")},
             {"type": "zip", "from": str(sent / "link"), "to": str(sent / "b.zip")},
             {"type": "wait_file", "path": str(sent / "*"), "count": 99, "timeout": 0.1},
             {"type": "copy", "from": str(sent / SENT), "to": str(sent / "a.zip"), "overwrite": False},
             {"type": "copy", "from": str(sent / "link") + "/*", "to": str(sent / "x")},
             {"type": "delete", "path": "/proc/self/" + SENT}, {"type": "mkdir", "path": "/proc/self/" + SENT},
             os_task(["./" + SENT]), os_task("true", cwd=str(sent / "no"))]
    tasks.append({"type": "set", "variable": "v", "value": SENT})
    agent.import_document({"scenarios": [
        {"name": "T%d" % number, "version": "1", "steps": [step("s", task)], "variables": {"v": ""}}
        for number, task in enumerate(tasks)] + [
        {"name": "SECRET", "version": "1", "steps": [step("s", os_task())],
         "variables": {"v": {"secret": True, "file": str(sent / "no")}}}]})
    met = 0
    for name in ["T%d" % number for number in range(len(tasks))] + ["SECRET"]:
        lines = agent.ask("EXEC %s -SYNC" % name)
        number = re.search("session=([0-9]+)", lines[-1]).group(1)
        for line in lines + agent.ask("STATUS %s" % number) + agent.ask("LOG %s" % number):
            check_clean(line)
        met += "x1b]0;x" in lines[-1]
    assert met > 7
    for request in ("SESSIONS", "EXPORT", "REPOS", "SCENARIOS"):
        for line in agent.ask(request):
            check_clean(line)
    for words in (["sessions"], ["status", number], ["scenarios"]):
        check_clean(output_of(PATH, "--port", str(agent.port), *words))
    check_clean(agent.log())


def test_a_repository_path_and_one_of_the_master(planted):
    agent, folder = planted
    path = json.dumps(str(folder.parent / SENT / "x.db"))
    for options in ("", " -CREATE"):
        for line in agent.ask("ATTACH R %s%s" % (path, options)) + agent.ask("PING") + agent.ask("STATUS"):
            check_clean(line)
    check_clean(agent.log())
    check_clean(output_of("-c", BOOT, str(AGENT), "--master", str(folder / "missing.db")), SHOWN)


def test_files_that_are_imported(planted):
    agent, folder = planted
    good, bad = folder / (PLANTED + "good"), folder / (PLANTED + "bad")
    good.write_text('{"scenarios": []}')
    bad.write_bytes(b'{"scenarios": [{"name": "\\u001b[2J"}], "\\u202e": 1}')
    for path in (good, bad, folder / "missing"):
        check_clean(output_of("-c", BOOT, str(AGENT), "--master", str(agent.master), "--import", str(path)), SHOWN)
        check_clean(output_of(PATH, "--port", str(agent.port), "import", str(path)))
    check_clean(output_of(PATH, "ping", str(good)), SHOWN)     # as a shell finds them
    check_clean(output_of("-c", BOOT, str(AGENT), str(good)), SHOWN)
    crontab = folder / (PLANTED + "cron")
    crontab.write_bytes(b"* * * * * echo \x1b[2J\xff\n\x1b[2J * * x\n# c\x9b\n0 0 * * * true\n")
    for option in ("--dry-run", "--json"):
        check_clean(output_of(PATH, "--port", str(agent.port), "import", "--crontab", str(crontab), option))


def test_what_another_program_has_put_into_a_file_of_the_agent(planted, tmp_path):
    agent, _ = planted
    os.symlink(str(agent.folder), str(tmp_path / "link"))       # sqlite3 of Python 3.6 takes no other name
    agent.import_os("LOGS", "echo a")
    session = agent.ok("EXEC LOGS -SYNC")["session"]
    with closing(sqlite3.connect(str(tmp_path / "link" / agent.work.name), timeout=30)) as connection, connection:
        connection.execute("update session_log set line='\x1b[2J' || char(10) || 'OK q' where session=?", (session,))
    for line in agent.ask("LOG %s" % session):
        check_clean(line)
    check_clean(output_of(PATH, "--port", str(agent.port), "log", session))
