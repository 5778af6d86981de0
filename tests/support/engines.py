"""An agent with the engine HPC: the batch system of batch.py."""
import contextlib
import os
import signal
import sys

import pytest

from conftest import wait_for
from support import batch as system

LOOK_S = 0.15           # between two looks of an agent inside


class Batch:
    """The batch system of a test, and its engine."""

    def __init__(self, folder, python=sys.executable, program=system.__file__):
        self.folder, self.spool = folder / "batch", folder / "spool"
        self._words = [python, "-S", str(program)]
        self.folder.mkdir(parents=True)

    def definition(self, **fields):
        """The engine HPC of a document."""
        def template(verb, *words):
            return self._words + [str(self.folder), verb] + list(words)
        options = {"submit": template("submit", "${SCRIPT}", "${MARKER}"), "find": template("find", "${MARKER}"),
                   "state": template("state", "${ID}"), "cancel": template("cancel", "${ID}"),
                   "output": template("output", "${ID}")}
        return dict({"name": "HPC", "driver": "command", "options": options, "spool": str(self.spool)}, **fields)

    def fail(self, mode):
        """How it fails from now on; nothing: no more."""
        (self.folder / "mode").write_text(mode)

    def hold(self, is_held=True):
        """Nothing that is submitted begins."""
        if is_held:
            (self.folder / "held").touch()
        else:
            (self.folder / "held").unlink()

    def calls(self, verb=""):
        """The calls so far."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(verb)]

    def jobs(self):
        """The folders of the jobs."""
        return sorted(path.parent for path in self.folder.glob("*/marker"))


@pytest.fixture
def batch(tmp_path):
    """A batch system, of whose jobs none stays behind."""
    made = Batch(tmp_path)
    yield made
    for job in made.jobs():
        with contextlib.suppress(OSError, ValueError):
            if not (job / "state").exists():
                os.killpg(int((job / "pid").read_text()), signal.SIGKILL)


def engine_scenario(name, *tasks, **fields):
    """A scenario whose tasks run on HPC."""
    return dict({"name": name, "version": "1", "engine": "HPC", "steps": [{"name": "main", "tasks": list(tasks)}]},
                **fields)


def add_engine(agent, batch, *scenarios, **fields):
    """Imports the engine, and scenarios with it."""
    return agent.import_document({"engines": [batch.definition(**fields)], "scenarios": list(scenarios)}, "-REPLACE")


@pytest.fixture
def engines(make_inside, batch):
    """An agent inside that looks often, and its batch system."""
    agent = make_inside().start()
    agent.agent.settings.engine_look_s = LOOK_S
    add_engine(agent, batch)
    return agent


def exec_sync(agent, *tasks, options="", **fields):
    """Runs a scenario of these tasks on HPC to its end -> its last line."""
    agent.import_document({"scenarios": [engine_scenario("A", *tasks, **fields)]}, "-REPLACE")
    return agent.ok("EXEC A -SYNC=50 " + options)


def begin_there(agent, *tasks, options="", **fields):
    """Asks for such a session -> its number."""
    agent.import_document({"scenarios": [engine_scenario("A", *tasks, **fields)]}, "-REPLACE")
    return agent.ok("EXEC A " + options)["session"]


def wait_there(agent, session):
    """Waits until a task of a session runs on an engine -> its id there."""
    def find():
        message = agent.status(session)["message"]
        return message.startswith("runs on engine ") and message
    return wait_for(find, "the task to run there").rpartition(" ")[2]


def spool_is_empty(batch):
    """Whether nothing of a task is in its spool."""
    return not batch.spool.exists() or not list(batch.spool.iterdir())
