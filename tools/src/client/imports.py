"""Documents and crontabs handed to the agent, and what is told of them."""
import json
import os
import re
import shutil
import sys

from .errors import ClientError, NO_CONNECTION, REFUSED, USAGE, WELL, reason_of
from .words import quote
from .connection import Connection
from .shown import complain, printable, put_fields, put_json, show_acknowledgement, show_document
from .crontab import make_crontab

# a fault of a document: place, field, reason
_FAULT = re.compile(r"(?:scenarios|schedules)\[(\d+)\](?:\S*\.)?(\S*): (.*)")


def read_bytes(path):
    """What is in a file, or - for standard input. Raises ClientError."""
    try:
        if path == "-":
            return sys.stdin.buffer.read() if sys.stdin else b""
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ClientError(USAGE, "cannot read %s: %s" % (ascii(path), reason_of(error)))


def read_document(path):
    """The text of a file to import. Raises ClientError."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ClientError(USAGE, "%s is not UTF-8" % ascii(path))


def get_user():
    """Who the client's user is."""
    import pwd          # not on every platform, and only a crontab asks
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def is_only_user(name):
    """Whether a user of this host has a name, and no program has it too."""
    import pwd
    try:
        return bool(pwd.getpwnam(name)) and not shutil.which(name)
    except KeyError:
        return False


def import_documents(options, paths, words):
    """Imports definitions documents, one after the other -> exit status.
    Raises ClientError, OSError of stdout."""
    texts = [read_document(path) for path in paths]
    with Connection(options.host, options.port) as connection:
        for path, text in zip(paths, texts):
            origin = "standard input: " if path == "-" else printable(path) + ": "
            reply = connection.ask(" ".join(["IMPORT", quote(text)] + words))
            try:
                show_acknowledgement(reply, options.json, origin)
            except ClientError as error:
                if error.status == REFUSED and not text.lstrip().startswith("{"):
                    complain(origin + "a document begins with {; crontabs are imported "
                             "with --crontab")
                raise ClientError(error.status,
                                  origin + str(error) if error.status == REFUSED else error)
    return WELL


def import_crontabs(options, paths, words):
    """Imports crontabs, or shows what they become -> exit status. Raises ClientError,
    OSError of stdout."""
    is_system = {"yes": True, "no": False}.get(options.crontab.get("SYSTEM"))
    user, home = get_user(), os.path.expanduser("~")
    crontabs = [make_crontab(path, is_system, user, home).read(read_bytes(path)) for path in paths]
    if is_system is None:
        check_user_fields(crontabs)
    if "DRY_RUN" in options.crontab:
        try:
            rehearse(options, crontabs, words)
        finally:
            for crontab in crontabs:
                tell_notes(crontab)
        for crontab in crontabs:
            show_document(json.dumps(crontab.document(), indent=2).split("\n"), options.json)
            tell_left_out(crontab)
        return WELL
    with Connection(options.host, options.port) as connection:
        for crontab in crontabs:
            try:
                fields = send_crontab(connection, crontab, words)
            finally:
                tell_notes(crontab)
            (put_json if options.json else put_fields)(dict(fields, left_out=crontab.left_out))
            tell_others(connection, crontab, [word for word in words if word.startswith("-REPO=")])
            tell_left_out(crontab)
    return WELL


def check_user_fields(crontabs):
    """Whether a system's crontab would pass for a user's, and its users for programs.
    Raises ClientError."""
    for crontab in crontabs:
        line, user = crontab.find_user_field(is_only_user) or (None, None)
        if line:
            raise ClientError(USAGE, "%s:%d: %s is a user of this host, as before the commands "
                              "of a system's crontab: say --system yes, or --system no if it is "
                              "a program: %s" % (crontab.name, line.number, printable(user),
                                                 printable(line.text)))


def rehearse(options, crontabs, words):
    """Leaves out the entries that the agent would refuse; says so where no agent can tell. Raises
    ClientError where all would be refused."""
    try:
        with Connection(options.host, options.port) as connection:
            for crontab in crontabs:
                send_crontab(connection, crontab, words, is_rehearsal=True)
    except ClientError as error:
        if error.status != NO_CONNECTION:
            raise
        complain("the rules are not checked, which the agent does at the import: %s" % error)


def send_crontab(connection, crontab, words, is_rehearsal=False):
    """Imports the entries, without those that the agent finds faulty -> the fields of its OK.
    Raises ClientError.

    A rehearsal has one scenario more, which no agent can take: it tells all faults,
    and imports nothing.
    """
    while True:
        document, extra = crontab.document(), len(crontab.entries)
        document["scenarios"] += [{}] * is_rehearsal
        reply = connection.ask(" ".join(["IMPORT", quote(json.dumps(document))] + words))
        faults = {}
        try:
            for line in reply:
                match = _FAULT.fullmatch(line)
                if match:
                    place, field, reason = match.groups()
                    reason = reason if reason.startswith(field) else "%s %s" % (field, reason)
                    faults.setdefault(int(place), reason)
            return {name: reply.fields[name] for name in ("scenarios", "schedules")}
        except ClientError as error:
            if is_rehearsal and list(faults) == [extra]:
                return {}
            faults.pop(extra, None)
            if not faults:
                raise
            crontab.refuse(faults)
            if str(error).startswith("ERR EXISTS "):
                raise ClientError(REFUSED, "ERR EXISTS nothing was imported; --replace takes "
                                  "the lines as they are now")


def tell_notes(crontab):
    """Says what of a crontab is not carried over."""
    for line, reason in sorted(crontab.notes):
        complain("%s:%d: %s: %s" % (crontab.name, line.number, reason, printable(line.text)))


def tell_left_out(crontab):
    """Says, below all else about a crontab, that something is missing."""
    if crontab.left_out:
        complain("%s: lines left out: %d; carried over: %d"
                 % (crontab.name, crontab.left_out, len(crontab.entries)))


def tell_others(connection, crontab, words):
    """Says which schedules an earlier state of a crontab has left: they fire as before."""
    names = [entry.schedule["name"] for entry in crontab.entries]
    for row in map(json.loads, connection.ask(" ".join(["SCHED LIST -JSON"] + words))):
        name = row["name"]
        if name == row["scenario"] and (name
                                        + ".").startswith(crontab.name + ".") and name not in names:
            complain("%s: schedule %s stands for none of the lines: sched del %s, if it is not "
                     "wanted any more"
                     % (crontab.name, name, name))
