"""The verb BACKUP."""
from ..base.backup_forms import BACKUP_LINE
from ..agent.backups import back_up
from .table import verb
from .audit_verbs import AUDIT_WAIT_S
from .lines import fill


@verb("BACKUP")
def _backup(agent, request):
    agent.audit.flush(AUDIT_WAIT_S)         # the copy has all that was done before
    folder, files = back_up(agent, request["FOLDER"])
    return fill(BACKUP_LINE, {"folder": folder, "files": len(files),
                              "bytes": sum(entry.bytes for entry in files)})
