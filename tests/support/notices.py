"""Notices that write what they are given into a file, or tell a peer."""
import json

from conftest import wait_for


def to_file(agent, name="out", before="true"):
    """A `send` whose command appends what it gets to a file, a message a line."""
    return {"type": "os", "command": "%s && (cat; echo) >> %s" % (before, agent.folder / name)}


def read_messages(agent, name="out"):
    """The messages that such a command got."""
    path = agent.folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_notice(agent, way, name="N", **fields):
    agent.import_document({"notices": [dict({"name": name, "send": way, "group_s": 60}, **fields)]})


def notice_row(agent, name="N"):
    row, = [row for row in agent.rows("NOTICE LIST") if row["name"] == name]
    return row


def wait_events(agent, count, name="N"):
    """Waits until so many events wait in a notice."""
    wait_for(lambda: notice_row(agent, name)["waiting"] == str(count), "%d events to wait" % count)


def wait_messages(agent, count=1, name="out"):
    """Waits until a file has so many messages -> all of them."""
    wait_for(lambda: len(read_messages(agent, name)) >= count, "%d messages" % count)
    return read_messages(agent, name)


def send_now(agent, count, name="N", after_s=61):
    """Waits until so many events wait, and lets the time pass until they are sent."""
    wait_events(agent, count, name)
    agent.let_pass(after_s)
