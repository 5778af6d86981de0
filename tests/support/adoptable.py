"""Sessions whose processes outlive the agent."""
from conftest import wait_for


def adoptable(agent, *commands, **fields):
    agent.import_os("A", *commands, **dict(fields, on_stale="adopt"))

# for five minutes at most: what a failed test leaves behind ends, too
UNTIL_GO = "i=0; until [ -e go ] || [ $i -gt 3000 ]; do i=$((i+1)); sleep 0.1; done"


def spools(agent):
    return list(agent.folder.glob("*.spool.*"))


def pid_of(agent, name="pid"):
    path = agent.folder / name
    wait_for(lambda: path.exists() and path.read_text().strip(), "the pid of the task")
    return int(path.read_text())
