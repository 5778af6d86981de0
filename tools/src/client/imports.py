"""Documents and crontabs handed to the agent, and what is told of them."""
import json
import os
import re
import shutil
import sys

from .errors import ClientError, NO_CONNECTION, REFUSED, USAGE, WELL, reason_of
from .words import _FIELD, parse_fields, quote
from .login import connect
from .spelling import spell
from .shown import complain, put_fields, put_json, show_acknowledgement
from .tables import printable, put_table
from .mailto import notice_prefix
from .crontab import GUARDS, PREFIX, SEPARATORS, make_crontab, name_entries

# words of a shell that are no programs
BUILTINS = GUARDS | SEPARATORS | frozenset(
    "alias bg break case continue eval false fg function getopts hash jobs kill let local printf "
    "pwd read readonly return select set shift times trap ulimit unalias unset until wait".split())
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


def is_command(word, search_path):
    """Whether a word can begin a command here, or is none that could be a user."""
    paths = os.pathsep.join(filter(None, (search_path, os.environ.get("PATH"), os.defpath)))
    return (word in BUILTINS or not re.fullmatch("[a-z_][a-z0-9_-]*[$]?", word)
            or shutil.which(word, path=paths) is not None)


def import_documents(options, paths, words):
    """Imports definitions documents, one after the other -> exit status.
    Raises ClientError, OSError of stdout."""
    texts = [read_document(path) for path in paths]
    with connect(options) as connection:
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
        for crontab in crontabs:
            doubt_users(crontab)
    name_entries(crontabs, {})
    if "DRY_RUN" in options.crontab:
        try:
            coming = rehearse(options, crontabs, words)
        finally:
            for crontab in crontabs:
                tell_notes(crontab)
        show_entries(crontabs, coming, options.json)
    else:
        with connect(options) as connection:
            send_all(connection, options, crontabs, words)
    for crontab in crontabs:
        tell_left_out(crontab)
    return WELL


def send_all(connection, options, crontabs, words):
    """Imports crontabs, tells what is not carried over, and what they no longer have. Raises
    ClientError, OSError of stdout."""
    rows = list_known(connection, words)
    name_entries(crontabs, {row["name"]: (row["rule"], row["timezone"]) for row in rows})
    names = list_names(crontabs)
    for crontab in crontabs:
        try:
            fields = send_crontab(connection, crontab, words)
        finally:
            tell_notes(crontab)
        (put_json if options.json else put_fields)(dict(fields, left_out=crontab.left_out))
    tell_gone(connection, crontabs, names, words, "PRUNE" in options.crontab)


def show_entries(crontabs, coming, is_json):
    """A line for each entry: what its line becomes, and when it is due next."""
    rows = [dict({"crontab": crontab.name} if len(crontabs) > 1 else {}, line=entry.line.number,
                 name=entry.name, rule=entry.timing["rule"], next=coming.get(entry.name))
            for crontab in crontabs for entry in crontab.entries]
    if is_json:
        for row in rows:
            put_json(row)
    elif rows:
        put_table(rows)


def doubt_users(crontab):
    """Notes entries whose command begins with what is no program here: it may be a user."""
    for line, word in crontab.list_first_words():
        if not is_command(word.partition(":")[0], crontab.search_path):
            crontab.note(line, "%s is no program of this host; if it is a user, as before the "
                         "commands of a system's crontab, say --system yes" % printable(word))


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
    """Leaves out the entries that the agent would refuse, and tells what the crontabs no longer
    have -> {name: its next due time}; says so where no agent can tell. Raises ClientError where all
    would be refused."""
    coming = {}
    try:
        with connect(options) as connection:
            rows = list_known(connection, words)
            name_entries(crontabs, {row["name"]: (row["rule"], row["timezone"]) for row in rows})
            names = list_names(crontabs)
            for crontab in crontabs:
                send_crontab(connection, crontab, words + ["-DRY_RUN"], coming)
            tell_gone(connection, crontabs, names, words, is_pruning=False)
    except ClientError as error:
        if error.status != NO_CONNECTION:
            raise
        complain("the rules are not checked, which the agent does at the import: %s" % error)
    return coming


def send_crontab(connection, crontab, words, coming=None):
    """Imports the entries, without those that the agent finds faulty -> the fields of its OK. What
    it says of coming due times goes into `coming`. Raises ClientError."""
    while True:
        document = json.dumps(crontab.document())
        reply = connection.ask(" ".join(["IMPORT", quote(document)] + words))
        faults, warnings, notice_faults = {}, [], False
        try:
            for line in reply:
                fields = parse_fields(line) if _FIELD.match(line) else {}
                if "warning" in fields:
                    line = "%s: warning: %s" % (fields["path"], fields["warning"])
                if line.startswith("notices["):
                    crontab.refuse_notices(line.partition(": ")[2])
                    notice_faults = True
                match = _FAULT.fullmatch(line)
                if match:
                    place, field, reason = match.groups()
                    if reason.startswith("warning: "):
                        warnings.append((int(place), reason[len("warning: "):]))
                        continue
                    reason = reason if reason.startswith(field) else "%s %s" % (field, reason)
                    faults.setdefault(int(place), spell(reason))
                elif fields.get("next") and coming is not None:
                    coming[fields["name"]] = fields["next"]
            for place, reason in warnings:
                crontab.note(crontab.entries[place].line, spell(reason))
            return {name: reply.fields[name] for name in ("scenarios", "schedules")}
        except ClientError as error:
            if not (faults or notice_faults):
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


def list_repository(words):
    """Of the options of an IMPORT those that say in which repository."""
    return [word for word in words if word.startswith("-REPO=")]


def list_names(crontabs):
    """The names of all their entries."""
    return {entry.name for crontab in crontabs for entry in crontab.entries}


def list_known(connection, words):
    """The rows of the schedules that come from crontabs. Raises ClientError."""
    request = " ".join(["SCHED LIST -JSON"] + list_repository(words))
    return [row for row in map(json.loads, connection.ask(request))
            if row["name"] == row["scenario"] and row["name"].startswith(PREFIX)]


def tell_gone_notices(connection, crontabs, is_pruning):
    """Says which notices of MAILTO an earlier state of these crontabs has left, or deletes them.
    Raises ClientError."""
    rows = [json.loads(line) for line in connection.ask("NOTICE LIST -JSON")]
    for crontab in crontabs:
        names = {notice["name"] for notice in crontab.list_notices()}
        for name in [row["name"] for row in rows]:
            if name.startswith(notice_prefix(crontab.keywords)) and name not in names:
                if is_pruning:
                    list(connection.ask("NOTICE DEL " + name))
                complain("%s: notice %s stands for no MAILTO%s" % (
                    crontab.name, name, ": deleted" if is_pruning else
                    ", and mails as before: --prune deletes it"))


def tell_gone(connection, crontabs, names, words, is_pruning):
    """Says which schedules and notices an earlier state of these crontabs has left, or deletes
    them. Raises ClientError."""
    tell_gone_notices(connection, crontabs, is_pruning)
    where = list_repository(words)
    for row in list_known(connection, words):
        name = row["name"]
        if name in names:
            continue
        shown = map(json.loads, connection.ask(" ".join(["SCHED SHOW -JSON", name] + where)))
        keywords = [row["value"] for row in shown if row.get("option") == "KEYWORDS"]
        for crontab in crontabs:
            if keywords == [crontab.keywords]:
                for request in ["SCHED DEL " + name, "DROP %s 001" % name] if is_pruning else ():
                    list(connection.ask(" ".join([request] + where)))
                complain("%s: schedule %s stands for none of the lines%s" % (
                    crontab.name, name, ": deleted" if is_pruning else
                    ", and fires as before: --prune deletes it"))
                break
