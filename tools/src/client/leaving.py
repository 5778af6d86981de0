"""shutdown --wait: until the agent is gone."""
import time

from .errors import ClientError, NO_CONNECTION
from .live import ANSWER_S
from .login import connect

PAUSE_S = 0.2


def wait_until_gone(connection, options):
    """Returns when the agent that was asked to stop has closed its connection, and its port answers
    no more or another agent has it. Raises ClientError."""
    try:
        while True:
            connection.read_line()
    except ClientError:
        pass                            # it has closed it
    while True:
        try:
            with connect(options) as other:
                reply = other.ask("PING", ANSWER_S)
                list(reply)
                if reply.fields.get("status") != "STOPPING":
                    return
        except ClientError as error:
            if error.status == NO_CONNECTION:
                return
        time.sleep(PAUSE_S)
