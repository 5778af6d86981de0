"""Load plans of small leaves, and what STATUS tells of them."""


def leaf(name, command=("true",), **more):
    """A scenario NAME 1 of one os task."""
    task = {"type": "os", "command": command if isinstance(command, str) else list(command)}
    return dict({"name": name, "version": "1", "steps": [{"name": "main", "tasks": [task]}]}, **more)


def make_plan(node, name="P", **more):
    """A scenario NAME 1 with this plan."""
    return dict({"name": name, "version": "1", "plan": node}, **more)


def put_plan(agent, node, *leaves, **more):
    """Imports the plan P of these leaves; A ends well, B badly."""
    agent.import_document({"scenarios": [leaf("A"), leaf("B", ("false",)), make_plan(node, **more)] + list(leaves)},
                          "-REPLACE")


def run_plan(agent, words="P", status="DONE"):
    """EXEC to the end -> (number, {place: its line})."""
    number = agent.ok("EXEC " + words)["session"]
    return number, wait_plan(agent, number, status)


def wait_plan(agent, number, status="DONE"):
    """Waits for the end of a plan -> {place: its line}."""
    row = agent.ok("WAIT %s -TIMEOUT=60" % number)
    assert row["status"] == status, (row, agent.ask("STATUS %s" % number))
    return plan_nodes(agent, number)


def plan_nodes(agent, number):
    """{place: its line} of the nodes of a plan."""
    return {row["node"]: row for row in agent.rows("STATUS %s" % number) if "node" in row}


def node_states(lines):
    """{place: status}."""
    return {place: row["status"] for place, row in lines.items()}


def plan_variable(agent, number, name):
    return next(row["value"] for row in agent.rows("STATUS %s" % number) if row.get("variable") == name)


def plan_children(agent, number):
    """The lines of the sessions of a plan, oldest first."""
    return agent.rows("SESSIONS -PARENT=%s -LIMIT=10000" % number)[::-1]
