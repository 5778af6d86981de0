"""What a task on an engine gets and gives; the batch system is that of support/batch.py."""
import stat

from conftest import wait_for
from support.engines import (add_engine, batch, begin_there, engines, exec_sync, spool_is_empty,     # noqa: F401 (fixtures)
                             wait_there)
from support.tasks import os_task


def test_it_runs_there_and_all_of_it_is_known(engines, batch):
    end = exec_sync(engines, os_task("echo \"${v} $SESSION $MORE\"; echo bad >&2; pwd; exit 3", cwd="/tmp",
                                     warning_codes=[3], capture="got", env={"MORE": "x'${v}"}),
                    os_task(["printf", "%s|", "a b", "${got}"]),
                    variables={"v": "it's \"so\"\n$HOME `x` \\", "got": ""})
    assert end["status"] == "WARNING" and "exit code 3: bad" in end["message"], end
    value = "it's \"so\"\n$HOME `x` \\ 1001 x'it's \"so\"\n$HOME `x` \\\n/tmp"
    assert engines.rows("STATUS 1001")[-1]["value"] == value
    assert engines.log_texts(1001) == value.split("\n") + ["bad"] + ("a b|%s|" % value).split("\n")
    assert [row["rc"] for row in engines.rows("STATUS 1001") if "task" in row] == ["3", "0"]
    wait_for(lambda: spool_is_empty(batch), "the spool to be cleared")
    assert len(batch.jobs()) == 2


def test_its_name_is_its_marker(engines, batch):
    exec_sync(engines, os_task("echo $AGENT_MARKER"))
    marker = engines.log_texts(1001)[0]
    assert (batch.jobs()[0] / "marker").read_text() == marker and marker.endswith(".1001.2")
    assert batch.calls("submit")[0].split()[1] == "%s/%s/script" % (batch.spool, marker)


def test_python_there(engines, batch, tmp_path):
    (tmp_path / "own.py").write_text("import sys\nprint('file', sys.argv[1:])\n")
    end = exec_sync(engines, {"type": "python", "code": "import os, sys\nprint(sys.argv[1:], os.environ['VAR_v'], __name__)",
                              "args": ["${v}", "two words"]},
                    {"type": "python", "file": str(tmp_path / "own.py"), "args": ["'q'"]},
                    {"type": "python", "code": "raise SystemExit('oh no')"}, variables={"v": "a'b"})
    assert (end["status"], "oh no" in end["message"]) == ("ERROR", True), end
    assert engines.log_texts(1001) == ["[\"a'b\", 'two words'] a'b __main__", "file [\"'q'\"]", "oh no"]


def test_a_secret_is_nowhere_but_in_a_file_that_is_gone_when_it_has_begun(engines, batch):
    batch.hold()
    session = begin_there(engines, os_task("echo \"<${word}>\"; ls \"$D\"; until [ -e \"$GO\" ]; do sleep 0.05; done",
                                     env={"D": str(batch.spool), "GO": str(batch.folder / "go"), "TWO": "is ${word}"}),
                    variables={"word": {"secret": True}}, options="word=open-sesame")
    wait_for(batch.jobs, "the job")
    folder, = batch.spool.iterdir()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"script": 0o700, "task": 0o600, "values": 0o600, "secrets": 0o600}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (batch.spool, folder)] == [0o700, 0o700]
    assert [path.name for path in folder.iterdir() if "open-sesame" in path.read_text()] == ["secrets"]
    assert "open-sesame" not in "".join(batch.calls()) + (batch.jobs()[0] / "script").read_text()
    batch.hold(False)
    wait_there(engines, session)
    wait_for(lambda: not (folder / "secrets").exists(), "the secret to be deleted")
    (batch.folder / "go").touch()
    assert engines.ok("WAIT %s" % session)["status"] == "DONE"
    assert engines.log_texts(session)[0] == "<***>"
    wait_for(lambda: spool_is_empty(batch), "the spool to be cleared")


def test_output_is_in_the_log_while_it_runs(engines, batch):
    session = begin_there(engines, os_task("echo one; printf half; until [ -e '%s' ]; do sleep 0.05; done; echo ' line'; echo two"
                                     % (batch.folder / "go")))
    wait_for(lambda: engines.log_texts(session) == ["one"], "the first line")
    (batch.folder / "go").touch()
    engines.ok("WAIT %s" % session)
    assert engines.log_texts(session) == ["one", "half line", "two"]


def test_much_output_is_kept_within_its_limit(make_inside, batch):
    agent = make_inside("--max-output", "20000").start()
    agent.agent.settings.engine_look_s = 0.15
    add_engine(agent, batch)
    exec_sync(agent, os_task("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); echo $i; done"))
    texts = agent.log_texts(1001)
    assert (texts[0], texts[-1]) == ("1", "100000") and any("are left out here" in text for text in texts)
    assert sum(len(text) + 40 for text in texts) < 25000


def test_output_of_many_megabytes_is_read_in_pieces(engines, batch):
    begin_there(engines, os_task("yes 0123456789 | head -c 9000000; printf end >&2; exit 3"))
    end = engines.ok("WAIT 1001")
    assert end["status"] == "ERROR" and "exit code 3: end" in end["message"]
    texts = engines.log_texts(1001)
    count, = [text for text in texts if "are left out here" in text]
    assert int(count.split()[1]) + len(texts) - 2 == 818182
