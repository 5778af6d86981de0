"""What was found a moment ago is started without another look, and without another thread."""
import os
import shutil
import subprocess
import threading

import pytest

import agent
from agent import Capture, Command, Process, Programs
from conftest import wait_for


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of programs, taken for one on the device of the shell wherever it is."""
    made = tmp_path / "bin"
    made.mkdir()
    monkeypatch.setattr(agent, "ROOT_PROGRAM", str(made))
    return made


def wish(name, folder, **fields):
    return Command([name], {"PATH": "/no/such/folder:%s" % folder}, **fields)


def put_program(folder, name):
    path = folder / name
    shutil.copy(shutil.which("true"), str(path))
    return os.fsencode(str(path))


def test_what_was_found_is_known_for_a_moment(folder, monkeypatch):
    path, programs = put_program(folder, "program"), Programs()
    assert programs.find_near(wish("program", folder)) is None
    assert programs.open(wish("program", folder)) == path
    assert programs.find_near(wish("program", folder)) == path
    assert programs.find_near(wish("program", "/usr/bin")) is None          # another PATH
    assert programs.find_near(wish("program", folder, cwd="/")) is None     # another folder
    now = agent.time.monotonic()
    monkeypatch.setattr(agent.time, "monotonic", lambda: now + agent.NEAR_S + 0.1)
    assert programs.find_near(wish("program", folder)) is None


@pytest.mark.parametrize("kind", ["script", "missing", "no program", "far", "far folder"])
def test_what_may_hang_is_looked_for_each_time(folder, kind, monkeypatch):
    programs, command = Programs(), wish("program", folder)
    if kind == "script":                # its interpreter may be anywhere
        (folder / "program").write_text("#!/bin/sh\n")
    elif kind != "missing":
        put_program(folder, "program")
    if kind != "no program" and kind != "missing":
        (folder / "program").chmod(0o755)
    else:
        for path in folder.iterdir():
            path.chmod(0o644)
    if kind == "far":
        monkeypatch.setattr(agent, "ROOT_PROGRAM", "/proc/version")
    if kind == "far folder":
        command = command._replace(cwd="/proc")
    programs.open(command)
    assert programs.find_near(command) is None


def test_many_programs_take_no_memory_for_ever(folder, monkeypatch):
    monkeypatch.setattr(agent, "MAX_NEAR", 10)
    programs = Programs()
    for number in range(25):
        put_program(folder, "p%d" % number)
        programs.open(wish("p%d" % number, folder))
    assert len(programs._near) <= 10


def run_alone(command, output):
    """Starts a process as a session does, from a thread that lasts -> (its exit code, the threads that started it)."""
    ended = threading.Event()
    capture = Capture(1000, lambda *_: None, agent.Clock())
    process = Process(command, capture, output, ended.set)
    process.begun()
    wait_for(ended.is_set)
    process.finish()
    return process.rc


def list_starters():
    return [thread for thread in threading.enumerate() if thread.name.startswith("starter")]


def test_the_second_start_needs_no_other_thread(folder, output):
    put_program(folder, "program")
    for turn in range(3):
        before, is_near = output.starters._free, output.starters.programs.find_near(wish("program", folder)) is not None
        assert run_alone(wish("program", folder), output) == 0
        assert is_near == (turn > 0) and len(list_starters()) == 1, before
    done = []
    worker = threading.Thread(target=lambda: done.append(Process(
        wish("program", folder), Capture(1000, lambda *_: None, agent.Clock()), output, lambda: None, is_here=False)))
    worker.start()                      # a thread that may end before its process has others start it
    worker.join()
    done[0].begun().finish()
    assert done[0].rc == 0


def test_what_is_gone_within_that_moment_is_told_as_ever(folder, output):
    put_program(folder, "program")
    assert run_alone(wish("program", folder), output) == 0
    (folder / "program").unlink()
    with pytest.raises(FileNotFoundError) as first:
        run_alone(wish("program", folder), output)
    with pytest.raises(FileNotFoundError) as plain:
        subprocess.Popen(["program"], env={"PATH": str(folder)})
    assert agent.start_error(first.value) == agent.start_error(plain.value)
    put_program(folder, "program")
    assert run_alone(wish("program", folder), output) == 0
