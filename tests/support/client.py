"""The client as a process."""
import collections
import json
import signal
import subprocess
import sys

from conftest import LIMIT_S, TOP

PATH = str(TOP / "tools" / "agentcli.py")

Result = collections.namedtuple("Result", "status out err")


def spawn(port, *words, path=PATH, **keywords):
    """Starts a client; its SIGINT is the default, whatever started the tests."""
    return subprocess.Popen([sys.executable, path, "--port", str(port)] + list(words), stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **keywords)


def run_client(port, *words, input=b"", **keywords):
    """Runs a client to its end -> Result."""
    process = spawn(port, *words, **keywords)
    out, err = process.communicate(input, timeout=LIMIT_S)
    assert b"Traceback" not in err, err.decode()
    return Result(process.returncode, out.decode(), err.decode())


def objects(result):
    """What --json printed, when all was well."""
    assert result.status == 0, result
    return [json.loads(line) for line in result.out.splitlines()]
