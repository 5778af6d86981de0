"""Secrets that are read when they are needed, from the environment or from files."""
import functools
import os
import stat

from ..base.vocabulary import MAX_VALUE, MIN_SECRET
from ..definitions.kinds import check_size


def read_secret(source, read):
    """The value that {"env": name} or {"file": path} tells; read(path, size) gives the first bytes
    of a file. ValueError. A file may block, where it is on a mount that hangs: whoever reads one
    has to be able to leave it."""
    if "env" in source:
        if source["env"] not in os.environ:
            raise ValueError("the agent's environment has no %s" % source["env"])
        return check_size(os.environ[source["env"]])
    path = source["file"]
    try:
        data = read(path, MAX_VALUE + 3)                # and line ends
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("%s: is not UTF-8" % path) from None
    except ValueError as error:
        raise ValueError("%s: %s" % (path, error)) from None
    return check_size(text if len(data) == MAX_VALUE + 3 else text.rstrip("\n"))


def read_regular(path, size, root):
    """The first bytes of a regular file in a Root. ValueError, TaskError."""
    root.check(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):     # a pipe would make us wait, a device too
            raise ValueError("is no regular file")
        with open(path, "rb") as file:
            root.check_open(file, path)
            return file.read(size)
    except OSError as error:
        raise ValueError(error.strerror) from None


def read_secrets(sources, values, read):
    """[(name, value)] of secret variables {name: source}, of which some came as
    {name: value}; `read` as of read_secret. ValueError says which cannot be had, and why."""
    result = []
    for name, source in sources.items():
        if name not in values and not source:
            raise ValueError("secret %s: must be given" % name)
        try:
            value = values[name] if name in values else read_secret(source, read)
        except ValueError as error:
            raise ValueError("secret %s: %s" % (name, error)) from None
        if len(value) < MIN_SECRET:
            raise ValueError("secret %s: has under %d characters" % (name, MIN_SECRET))
        result.append((name, value))
    return result


def take_secrets(scenario, secret_file, control, journal, around):
    """{name: value} of the secret variables of a session, which are shown nowhere from now on.
    `secret_file` has those that came with its EXEC. ValueError."""
    sources, values = scenario.secrets, {}
    if not sources:
        return values
    read = functools.partial(read_secrets, sources, journal.repository.secrets.read(
        secret_file or str(journal.session)), around.bounds.read)
    can_block = any(map(is_blocking, sources.values()))
    if can_block and not journal.has_begun:
        journal.flush()                 # while it waits it is shown as running
    for name, value in control.call(read) if can_block else read():
        journal.hide(value)
        values[name] = value
    return values


def is_blocking(source):
    """Whether reading what a secret is read from can block."""
    return "file" in source


def resolve_server(server, read):
    """A data server as it was defined -> the same with its secrets read, and a list of them as
    `secrets`; `read` as of read_secret. ValueError."""
    connect, secrets = dict(server["connect"]), []
    for key, source in server["connect"].items():
        if isinstance(source, dict):
            try:
                connect[key] = read_secret(source, read)
            except ValueError as error:
                raise ValueError("data server %s: %s: %s" % (server["name"], key, error)) from None
            secrets.append(connect[key])
    return dict(server, connect=connect, secrets=secrets)
