"""README's first steps, as they stand there: agent.py alone in a fresh folder, line by line."""
import re
import shutil
import subprocess
import sys

import pytest

import agent as program
from conftest import AGENT, LIMIT_S, TOP

pytestmark = pytest.mark.once

BLOCKS = re.findall("```\n(.*?)```", (TOP / "README.md").read_text(encoding="utf-8"), re.S)
FIRST_STEPS = "".join(block for block in BLOCKS if "nc localhost" in block)
VERBS = {form.name.split()[0] for form in program.VERB_FORMS}
# what is another each time: instants, seconds
CHANGING = (r"\d{4}-\d\d-\d\dT[0-9:.]+[+-]\d\d:\d\d", r"(?:duration|uptime)=[0-9.]+")


def list_turns(text):
    """[(what is typed, the lines that answer)]; `nc` itself is none."""
    turns = []
    for line in re.sub("(?m)^\\$ nc .*\n", "", text).split("\n")[:-1]:
        if line.startswith("$ ") or line.split(" ")[0] in VERBS:
            turns.append((line, []))
        else:
            turns[-1][1].append(line)
    return turns


def is_like(shown, line):
    """Whether a line is as README shows it."""
    parts = re.split("(%s)" % "|".join(CHANGING), shown)
    pattern = "".join(re.escape(part) if place % 2 == 0 else
                      next(form for form in CHANGING if re.fullmatch(form, part))
                      for place, part in enumerate(parts))
    return re.fullmatch(pattern, line) is not None


def run_command(command, folder):
    """The lines that a command of README prints."""
    words = command.replace("python agent.py", '"%s" agent.py' % sys.executable)
    done = subprocess.run(["/bin/sh", "-c", words], cwd=str(folder), timeout=LIMIT_S,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True)
    assert done.returncode == 0, (command, done.stdout)
    return done.stdout.split("\n")[:-1]


@pytest.fixture
def alone(make_agent):
    """An agent whose file was copied by itself into a folder of its own."""
    agent = make_agent(folder="fresh", is_default=True, env={"TZ": "UTC"})
    agent.folder.mkdir()
    shutil.copy(str(AGENT), str(agent.folder / "agent.py"))
    agent.script = agent.folder / "agent.py"
    return agent.start()


def test_the_first_steps(alone):
    turns = list_turns(FIRST_STEPS)
    assert len(turns) > 12
    for typed, shown in turns:
        if typed.startswith("$ cat"):               # the document stands where an answer would
            lines, shown = run_command("\n".join([typed[2:]] + shown), alone.folder), []
        elif typed.startswith("$ "):
            lines = run_command(typed[2:], alone.folder)
        else:
            if typed.startswith("LOG "):            # a person types more slowly than it runs
                alone.ok(typed.replace("LOG", "WAIT"))
            lines = alone.ask(typed)
            if typed == "QUIT":
                alone.client = alone.connect()
        if shown == ["..."]:
            assert lines[-1].startswith("OK"), lines
            continue
        assert len(lines) == len(shown) and all(map(is_like, shown, lines)), (typed, shown, lines)
