"""Sessions that note that they have begun, and wait for a file."""
from conftest import wait_for


def wait_ping(agent, **fields):
    """Waits until PING shows these fields -> all of them."""
    def found():
        row = agent.ok("PING")
        return all(row[name] == value for name, value in fields.items()) and row
    return wait_for(found, "PING to show %s" % fields)


def marked(agent, number=1):
    """The file in which a scenario made by import_marking notes its sessions."""
    return agent.folder / ("marks%d" % number)


def import_waiting(agent, name="W"):
    """A scenario whose task notes its session and goes on when the file `go` is there."""
    agent.import_os(name, "echo $SESSION >> %s; until [ -e %s ]; do sleep 0.05; done; echo over"
                    % (marked(agent), agent.folder / "go"))


def marks(agent):
    return marked(agent).read_text().split() if marked(agent).exists() else []


def wait_begun(agent, *sessions):
    """Waits until the tasks of these sessions have begun."""
    wait_for(lambda: set(map(str, sessions)) <= set(marks(agent)), "sessions to begin")


def go(agent):
    (agent.folder / "go").write_text("")
