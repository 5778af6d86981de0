"""The form of BACKUP."""
from .form import Form
from .replies import ReplyLine, number_key, text_key
from .vocabulary import ADMINISTRATOR

BACKUP_LINE = ReplyLine("the backup", (
    text_key("folder", "its folder"),
    number_key("files", "databases in it: the master and the work repositories"),
    number_key("bytes", "how large they are together")))
BACKUP_FORMS = (
    Form("BACKUP", "FOLDER", ADMINISTRATOR,
         "copy the master and every work repository into a new folder, whole and checked; a "
         "relative path counts from the master's folder", oks=(BACKUP_LINE,),
         kinds={"FOLDER": "token"}, meanings={"FOLDER": "the folder, which must not exist"}),)
