"""Secrets that are read when they are needed, from the environment or from files."""
import os
import stat

from ..base.vocabulary import MAX_VALUE, MIN_SECRET
from ..definitions.kinds import check_size


def read_secret(source):
    """The value that {"env": name} or {"file": path} tells. ValueError. A file may block, where it
    is on a mount that hangs: whoever reads one has to be able to leave it."""
    if "env" in source:
        if source["env"] not in os.environ:
            raise ValueError("the agent's environment has no %s" % source["env"])
        return check_size(os.environ[source["env"]])
    path = source["file"]
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):     # a pipe would make us wait, a device too
            raise ValueError("%s: is no regular file" % path)
        with open(path, "rb") as file:
            data = file.read(MAX_VALUE + 3)             # and line ends
    except OSError as error:
        raise ValueError("%s: %s" % (path, error.strerror)) from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("%s: is not UTF-8" % path) from None
    return check_size(text if len(data) == MAX_VALUE + 3 else text.rstrip("\n"))


def read_secrets(sources, values):
    """[(name, value)] of secret variables {name: source}, of which some came as
    {name: value}. ValueError says which cannot be had, and why."""
    result = []
    for name, source in sources.items():
        if name not in values and not source:
            raise ValueError("secret %s: must be given" % name)
        try:
            value = values[name] if name in values else read_secret(source)
        except ValueError as error:
            raise ValueError("secret %s: %s" % (name, error)) from None
        if len(value) < MIN_SECRET:
            raise ValueError("secret %s: has under %d characters" % (name, MIN_SECRET))
        result.append((name, value))
    return result


def is_blocking(source):
    """Whether reading what a secret is read from can block."""
    return "file" in source


def resolve_server(server):
    """A data server as it was defined -> the same with its secrets read, and a list of them as
    `secrets`. ValueError."""
    connect, secrets = dict(server["connect"]), []
    for key, source in server["connect"].items():
        if isinstance(source, dict):
            try:
                connect[key] = read_secret(source)
            except ValueError as error:
                raise ValueError("data server %s: %s: %s" % (server["name"], key, error)) from None
            secrets.append(connect[key])
    return dict(server, connect=connect, secrets=secrets)
