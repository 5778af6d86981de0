"""report: a period of an agent as one HTML document, which needs nothing beside it."""
import os
import stat
import sys
import tempfile

from ..base.times import Clock
from ..base.vocabulary import VERSION
from .colours import is_terminal
from .document import make_document
from .errors import ClientError, USAGE, WELL, reason_of
from .findings import Asker, Period, find_out
from .login import connect
from .period import read_instant
from .shown import put_fields, put_json

DEFAULT_SINCE = "1d"
REPORT_MARK = b"<!doctype html>\n<!-- a report of agentcli.py"


def write_report(options, arguments, words):
    """report -o FILE: asks the agent, and writes what it says as HTML -> exit status. Raises
    ClientError, OSError of stdout."""
    now = Clock().now()
    period = Period(read_instant("--since", options.own.get("SINCE", DEFAULT_SINCE), now),
                    min(now, read_instant("--until", options.own.get("UNTIL", "now"), now, True)),
                    now)
    if period.end <= period.begin:
        raise ClientError(USAGE, "--until must lie after --since, and --since in the past")
    path = options.own.get("OUTPUT", "-")
    check_target(path)
    with connect(options) as connection:
        asker = Asker(connection)
        findings = find_out(asker, period)
        place = connection.place
    made_by = "agentcli.py %s" % VERSION
    data = REPORT_MARK + (" %s -->\n" % VERSION).encode() + make_document(
        findings, place, made_by).encode("utf-8", "backslashreplace")
    if path == "-":
        sys.stdout.buffer.write(data)
    else:
        replace_file(path, data)
        (put_json if options.json else put_fields)({
            "file": path, "bytes": len(data), "sessions": len(findings.sessions),
            "failed": sum(past.status in ("ERROR", "STOPPED") for past in findings.sessions)})
    for trouble in asker.troubles.values():
        raise trouble                   # it is told in the report, too
    return WELL


def check_target(path):
    """Whether a report may be written there: a new file, or one that is a report. Raises
    ClientError."""
    if path == "-":
        if is_terminal(sys.stdout):
            raise ClientError(USAGE, "-o FILE says where to; without, it goes to standard output, "
                              "which is a terminal")
        return
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ClientError(USAGE, "%s is no file; -o - is standard output" % ascii(path))
        with open(path, "rb") as file:
            if file.read(len(REPORT_MARK)) not in (REPORT_MARK, b""):
                raise ClientError(USAGE, "%s is there, and is no report: it stays as it is"
                                  % ascii(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ClientError(USAGE, "%s: %s" % (ascii(path), reason_of(error)))


def replace_file(path, data):
    """Writes a file under another name beside it, and gives it its name then: it is never half
    there. One that was there keeps its mode, a new one is for its owner alone. Raises
    ClientError."""
    target = os.path.realpath(path)
    try:
        handle, beside = tempfile.mkstemp(".tmp", ".report-", os.path.dirname(target))
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if os.path.exists(target):
                os.chmod(beside, stat.S_IMODE(os.stat(target).st_mode))
            os.replace(beside, target)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise ClientError(USAGE, "cannot write %s: %s" % (ascii(path), reason_of(error)))
