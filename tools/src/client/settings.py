"""Where the agent is, and as whom it is asked: options, the environment, and ~/.agentcli."""
import argparse
import configparser
import os
import re
import stat

from ..base.vocabulary import DEFAULT_PORT
from .errors import ClientError, USAGE, reason_of

DEFAULT_HOST = "127.0.0.1"
DEFAULT_SECTION = "default"     # for who names no agent
SETTINGS = ("host", "port", "unix", "tls", "tls-ca", "tls-cert", "tls-key", "user",
            "password-file")
PATHS = ("unix", "tls-ca", "tls-cert", "tls-key", "password-file")


def settings_path():
    """The file with what the client is to know of agents."""
    return os.path.join(os.path.expanduser("~"), ".agentcli")


def parse_port(text, source=""):
    """The number of a port. ValueError."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError("must be a number from 1 to 65535, not %s%s" % (ascii(text), source))
    return int(text)


def complete_place(options):
    """The options of a command line with what they leave out: a new Namespace. --host, else
    AGENT_HOST, names a section of ~/.agentcli or a host; an option wins over the section, that over
    AGENT_PORT. Raises ClientError."""
    name = options.host or os.environ.get("AGENT_HOST") or None
    section = read_sections(settings_path()).get(name or DEFAULT_SECTION)
    values = dict(section or {})
    host = values.pop("host", DEFAULT_HOST) if section is not None or name is None else name
    port = find_port(options, values.pop("port", None), name or DEFAULT_SECTION)
    if options.unix:                    # the section's host is not where it goes
        values = {key: values[key] for key in ("user", "password-file") if key in values}
    elif options.port:
        values.pop("unix", None)
    typed = {key: value for key, value in vars(options).items() if value not in (None, False)}
    values = {key.replace("-", "_"): value for key, value in values.items()}
    return argparse.Namespace(**dict(vars(options), **dict(values, **dict(
        typed, host=host, port=port))))


def find_port(options, text, name):
    """The port of --port, or that of a section (its text or None), or AGENT_PORT's. ClientError."""
    source = " (%s [%s])" % (settings_path(), name)
    if text is None:
        text, source = os.environ.get("AGENT_PORT") or str(DEFAULT_PORT), " (AGENT_PORT)"
    try:
        return options.port or parse_port(text, source)
    except ValueError as error:
        raise ClientError(USAGE, "the port %s" % error)


def read_sections(path):
    """The sections of a file: {name: {setting: value}}; none where there is no file. Raises
    ClientError: others may write it, or something in it is wrong."""
    parser = configparser.ConfigParser(default_section="", interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ClientError(USAGE, "others can change %s, which says whom to trust: chmod "
                                  "go-w" % path)
            parser.read_file(file)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(USAGE, "cannot read %s: %s" % (path, reason_of(error)))
    except configparser.Error as error:
        raise ClientError(USAGE, "%s: %s" % (path, " ".join(str(error).split())))
    return {name: _read_section(path, name, parser) for name in parser.sections()}


def _read_section(path, name, parser):
    """The settings of one section. Raises ClientError."""
    values = dict(parser[name])
    for key in values:
        if key not in SETTINGS:
            raise ClientError(USAGE, "%s [%s]: there is no setting %s; there are %s" % (
                path, name, ascii(key), " ".join(SETTINGS)))
    if "tls" in values:
        try:
            values["tls"] = parser[name].getboolean("tls")
        except ValueError:
            raise ClientError(USAGE, "%s [%s]: tls must be yes or no" % (path, name))
    for key in PATHS:
        if key in values:
            values[key] = os.path.expanduser(values[key])
    return values
