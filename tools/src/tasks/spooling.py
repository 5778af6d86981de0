"""The spool of an engine: what a task finds there, and how the agent writes, reads and clears it.

A task has a folder of its own in it, which bears its marker as name:

    script      what is submitted; it has no value of any variable, for an engine may show it
    task        what that runs: it makes `begin`, runs the command, and writes its exit code
    values      the environment of the command; secrets are in `secrets`, which is gone once read
    code        of a python task
    begin       a folder: who makes it may run the command, so it is run once at most
    out, err    what the command prints; engine.log: what the engine says of it
    end         the exit code, by one rename

What reads and writes there is done in processes by themselves, as the user of tasks: a file system
that does not answer keeps such a process alone.
"""
import json
import os
import shlex
from typing import NamedTuple, Optional

from ..base.controls import one_line
from ..base.program import alone_command
from ..processes.calls import NoAnswer
from ..processes.process import exit_text

READ_AT_ONCE = 1 << 22      # bytes of all tasks of an engine that one look takes


class EngineOrder(NamedTuple):
    """What is to run on an engine."""
    words: list
    environment: dict           # variables, and what `env` says
    secrets: dict               # likewise
    cwd: Optional[str] = None
    code: Optional[str] = None  # which a Python reads from descriptor 3
    is_python: bool = False     # words[0] is this host's Python: else the first in the PATH


def _exports(environment):
    return "".join("export %s=%s\n" % (name, shlex.quote(text))
                   for name, text in sorted(environment.items()))


def make_files(order, folder, home):
    """{name: text} of a task's folder; `home` is the agent's working folder."""
    quoted = shlex.quote(folder)
    lines = ["#!/bin/sh", "agent_mask=$(umask)", "umask 077",
             "mkdir %s/begin 2>/dev/null || exit 75    # it has begun before" % quoted,
             "exec >>%s/out 2>>%s/err </dev/null" % (quoted, quoted),
             "(", "umask \"$agent_mask\"", "unset agent_mask"]
    if order.secrets:
        lines += [". %s/secrets" % quoted, "rm -f %s/secrets" % quoted]
    lines += [". %s/values" % quoted]
    if order.cwd:
        lines.append("cd %s || exit 127" % shlex.quote(order.cwd))
    else:
        lines.append("cd %s 2>/dev/null || cd /" % shlex.quote(home))
    lines.append("set -- %s" % " ".join(map(shlex.quote, order.words)))
    if order.is_python:
        lines.append("[ -x \"$1\" ] || { shift; set -- python3 \"$@\"; }")
    lines += ["exec \"$@\"" + (" 3<%s/code" % quoted if order.code is not None else ""), ")",
              "agent_rc=$?",
              "echo \"$agent_rc\" >%s/end.part && mv -f %s/end.part %s/end" % (
                  quoted, quoted, quoted), "exit \"$agent_rc\"", ""]
    files = {"script": "#!/bin/sh\nexec /bin/sh %s/task\n" % quoted, "task": "\n".join(lines),
             "values": _exports(order.environment)}
    if order.secrets:
        files["secrets"] = _exports(order.secrets)
    if order.code is not None:
        files["code"] = order.code
    return files


def write_spool_alone():
    """In a process by itself: makes the folders of tasks. The order, as JSON on standard input, is
    {"spool": folder, "tasks": {name: {file: text}}}; the answer has {name: why not, or nothing}."""
    import json
    import os
    import stat
    import sys
    order = json.loads(sys.stdin.buffer.read().decode())
    spool, own, answer = order["spool"], os.geteuid(), {}

    def judge(path):
        """Why nothing is made in a folder that others may change."""
        status = os.stat(path)
        if status.st_uid not in (own, 0):
            return "%s belongs to another user (uid %d)" % (path, status.st_uid)
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            return "%s may be written by others (chmod go-w %s)" % (path, path)
        return ""

    def make(folder, files):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            status = os.lstat(folder)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != own or status.st_mode & 0o077:
                return "%s is there and is not this agent's: delete it" % folder
            if os.path.exists(folder + "/begin"):
                return ""                   # it runs, or has run
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for name in os.listdir(place):
                os.unlink(name, dir_fd=place)
            for name, text in files.items():
                mode = 0o700 if name == "script" else 0o600
                fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode,
                             dir_fd=place)
                with open(fd, "wb") as file:
                    file.write(text.encode("utf-8", "surrogateescape"))
                    file.flush()
                    os.fsync(file.fileno())
        finally:
            os.close(place)
        return ""
    if not os.path.isdir(spool):
        os.mkdir(spool, 0o700)
    fault = judge(spool)
    for name, files in order["tasks"].items():
        answer[name] = fault or make(os.path.join(spool, name), files)
    print(json.dumps(answer))


def look_spool_alone():
    """In a process by itself: reads what tasks have written. The order, as JSON on standard input,
    is {"limit": bytes of all, "tasks": [{"folder", "out", "err": bytes read before, "is_last",
    "is_captured"}]}; the answer is a list, in their order: {"is_gone"} or {"has_begun", "end",
    "out", "err", "has_more"}, and of what has ended {"captured", "tail", "engine"}, in base64."""
    import base64
    import json
    import os
    import stat
    import sys
    order, answers = json.loads(sys.stdin.buffer.read().decode()), []
    limit = order["limit"]

    def read(name, start, size):
        """(bytes of a file of the folder from there on, whether there are more)."""
        nonlocal limit
        try:
            fd = os.open(folder + "/" + name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return b"", False
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            file.seek(max(0, status.st_size + start) if start < 0 else start)
            data = file.read(min(size, limit)) if stat.S_ISREG(status.st_mode) else b""
            limit -= len(data)
            return data, file.tell() < status.st_size
    for task in order["tasks"]:
        folder = task["folder"]
        if not os.path.isdir(folder):
            answers.append({"is_gone": True})
            continue
        names = os.listdir(folder)      # so that a file system of the network looks anew
        end = read("end", 0, 20)[0].strip() if "end" in names else b""
        is_last = task["is_last"] or end.isdigit()
        answer = {"has_begun": "begin" in names, "end": int(end) if end.isdigit() else None,
                  "has_more": limit < 300000}
        for name in ("out", "err"):
            data, has_more = read(name, task[name], 1 << 20) if limit else (b"", True)
            if has_more or not is_last:     # whole lines, where there are any
                data = data[:data.rfind(b"\n") + 1] or (data if len(data) > 65536 else b"")
            answer[name] = base64.b64encode(data).decode()
            answer["has_more"] |= has_more and bool(data)
        if is_last and not answer["has_more"]:
            for key, name, start in (("captured", "out", 0), ("tail", "err", -4096),
                                     ("engine", "engine.log", 0)):
                data, _ = read(name, start, 65537) if key != "captured" or task["is_captured"] \
                    else (b"", False)
                answer[key] = base64.b64encode(data).decode()
        answers.append(answer)
    print(json.dumps(answers))


def clear_spool_alone():
    """In a process by itself: the order, as JSON on standard input, is {"claim": [folders],
    "remove": [folders]}. Makes `begin` in the first, so that no command runs there any more, and
    deletes the others; the answer has those of the first in which that was not there before."""
    import json
    import os
    import shutil
    import sys
    order, claimed = json.loads(sys.stdin.buffer.read().decode()), []
    for folder in order["claim"]:
        try:
            os.mkdir(folder + "/begin", 0o700)
            claimed.append(folder)
        except (FileExistsError, FileNotFoundError):
            pass
    for folder in order["remove"]:
        if os.path.isdir(folder) and not os.path.islink(folder) \
                and os.lstat(folder).st_uid == os.geteuid():
            shutil.rmtree(folder)
    print(json.dumps(claimed))


class EngineSpool:
    """The spool of one engine, by processes by themselves; call(words, data=bytes) -> Answer."""

    def __init__(self, folder, call):
        self.folder, self._call = folder, call

    def _do(self, function, order):
        """What a function that runs by itself answers. NoAnswer."""
        answer = self._call(alone_command(function), data=json.dumps(order).encode())
        try:
            return json.loads(answer.out.decode())
        except ValueError:
            raise NoAnswer("spool %s: %s" % (self.folder, one_line(
                answer.err.rpartition("\n")[2] or exit_text(answer.rc)))) from None

    def folder_of(self, marker):
        """The path of a task's folder."""
        return os.path.join(self.folder, marker)

    def write(self, tasks):
        """{name: {file: text}} -> {name: why it cannot be made for good, or nothing}."""
        return self._do(write_spool_alone, {"spool": self.folder, "tasks": tasks})

    def read(self, tasks):
        """As look_spool_alone."""
        return self._do(look_spool_alone, {"limit": READ_AT_ONCE, "tasks": tasks})

    def clear(self, claim=(), **folders):
        """As clear_spool_alone."""
        return self._do(clear_spool_alone, {
            "claim": list(claim), "remove": folders.get("remove", [])})
