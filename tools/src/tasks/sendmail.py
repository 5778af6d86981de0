"""Mail by the host's own program, where no server is named."""
import os
import shutil
import subprocess

from ..base.controls import one_line
from ..base.vocabulary import DONE
from .task import TaskError

SENDMAIL_PATH = "/usr/sbin:/usr/lib:/usr/local/sbin"     # where it lies that is in no PATH


def give_to_sendmail(message, limit_s):
    """Hands an EmailMessage to sendmail -> fields of a TaskResult. TaskError."""
    path = os.pathsep.join(filter(None, (os.environ.get("PATH"), SENDMAIL_PATH)))
    program = shutil.which("sendmail", path=path)
    if program is None:
        raise TaskError("there is no data server MAIL, and no program sendmail on this host")
    addresses = [address.addr_spec for address in message["To"].addresses]
    data = message.as_bytes(policy=message.policy.clone(linesep="\n"))
    try:
        process = subprocess.run([program, "-i", "--"] + addresses, input=data, timeout=limit_s,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        raise TaskError("%s took over %s s" % (program, limit_s)) from None
    except OSError as error:
        raise TaskError("%s: %s" % (program, error.strerror)) from None
    if process.returncode:
        raise TaskError("%s ended with exit code %d: %s" % (
            program, process.returncode, one_line(process.stdout.decode("utf-8", "replace"))))
    return {"status": DONE, "message": ""}
