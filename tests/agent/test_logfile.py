"""--log and --log-format: the file, its rotation, and entries as JSON."""
import json
import logging
import os
import signal
import stat

import pytest

import agent as program
from conftest import wait_for


def read_lines(folder):
    """The lines of FILE.5 to FILE.1 and FILE."""
    names = ["log.%d" % count for count in range(program.KEPT_FILES, 0, -1)] + ["log"]
    return [line for name in names if (folder / name).exists() for line in (folder / name).read_text().splitlines()]


def test_a_file_that_is_full_becomes_the_next_older_one(tmp_path):
    file = program.LogFile(str(tmp_path / "log"), 1000)
    for number in range(1000):
        data = b"line %d\n" % number
        assert file.write(data) == len(data)
    file.close()
    lines = read_lines(tmp_path)
    assert lines == ["line %d" % number for number in range(1000 - len(lines), 1000)]      # the newest, none twice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"] + ["log.%d" % n for n in range(1, 6)]
    for path in tmp_path.iterdir():
        assert path.stat().st_size <= 1000 and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_longer_than_the_size_is_written_whole(tmp_path):
    file = program.LogFile(str(tmp_path / "log"), 100)
    for data in (b"a\n", b"b" * 500 + b"\n", b"c\n"):
        file.write(data)
    file.close()
    assert read_lines(tmp_path) == ["a", "b" * 500, "c"]


def test_a_file_that_was_there_is_added_to(tmp_path):
    (tmp_path / "log").write_text("before\n")
    file = program.LogFile(str(tmp_path / "log"), 100000)
    file.write(b"after\n")
    file.close()
    assert read_lines(tmp_path) == ["before", "after"]


@pytest.mark.parametrize("place, reason", [
    ("link", "Too many levels of symbolic links"), ("none/log", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_is_told_and_nothing_starts(make_agent, tmp_path, place, reason):
    (tmp_path / "target").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    agent = make_agent("--log", str(tmp_path / place))
    agent.start(is_ready=False)
    assert agent.wait() == 1
    assert "--log %s cannot be opened: %s" % (tmp_path / place, reason) in agent.log()
    assert (tmp_path / "target").read_text() == "" and not agent.master.exists()


def test_after_sighup_the_log_goes_to_a_new_file(make_agent, tmp_path):
    path = tmp_path / "the log"
    agent = make_agent("--log", str(path)).start()
    wait_for(lambda: "ready on" in path.read_text(), "the log")
    assert agent.log().splitlines() == [line for line in agent.log().splitlines() if "ready on" in line]
    path.rename(tmp_path / "old")
    os.kill(agent.process.pid, signal.SIGHUP)
    wait_for(path.exists, "the new file")
    agent.ok("EXEC HELLO -SYNC")
    wait_for(lambda: "ends DONE" in path.read_text(), "the end of a session")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and "ends" not in (tmp_path / "old").read_text()
    assert agent.stop() == 0
    assert path.read_text().splitlines()[-1].endswith("INFO stopped")


def test_each_begin_and_end_is_a_line(make_agent):
    agent = make_agent().start()
    agent.import_os("BAD", "exit 3")
    agent.ok("EXEC HELLO -SYNC")
    session = agent.ok("EXEC BAD -SYNC")["session"]
    wait_for(lambda: "session %s of BAD ends ERROR" % session in agent.log(), "the line")
    lines = [line for line in agent.log().splitlines() if " of " in line]
    assert [line.split("session ")[1].split(" after")[0] for line in lines] == [
        "1001 of HELLO begins", "1001 of HELLO ends DONE", "2001 of BAD begins", "2001 of BAD ends ERROR"]
    assert "exit code 3" in lines[-1]
    waiting = agent.ok("EXEC HELLO -AT=+1h")["session"]
    agent.ok("STOP %s" % waiting)
    wait_for(lambda: "session %s of HELLO ends STOPPED: stopped before it began by" % waiting in agent.log(), "its end")


def test_entries_can_be_json(make_agent, tmp_path):
    path = tmp_path / "log"
    agent = make_agent("--log", str(path), "--log-format", "json").start()
    session = int(agent.ok("EXEC HELLO -SYNC")["session"])
    assert agent.stop() == 0
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(set(entry) >= {"time", "level", "message"} for entry in entries)
    begin, end = [entry for entry in entries if "event" in entry]
    assert (begin["event"], begin["session"], begin["scenario"]) == ("begin", session, "HELLO")
    assert (end["event"], end["session"], end["status"]) == ("end", session, "DONE") and end["duration"] >= 0
    assert entries[-1]["message"] == "stopped"


def test_a_traceback_and_odd_text_are_in_their_object():
    form = program.ObjectFormatter()
    try:
        raise ValueError("x\ny")
    except ValueError as error:
        record = logging.LogRecord("agent", logging.ERROR, "", 0, "a\nb %s", ("\x1b",),
                                   (type(error), error, error.__traceback__))
    line = form.format(record)
    assert line.isprintable() and line.isascii() if hasattr(line, "isascii") else line.isprintable()
    entry = json.loads(line)
    assert entry["message"] == "a\nb \x1b" and entry["traceback"].endswith("ValueError: x\ny")
    assert json.loads(form.tell_loss(3))["lost"] == 3
