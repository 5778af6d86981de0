"""What a task was writing when its process was killed: deleted, by the notes that were taken of it.

Thread remains: deletes what one note tells of, and ends with that; a file system that does not
answer keeps this thread alone.
"""
import threading

from ..base.vocabulary import KILL_S
from ..base.program import log


def clear_notes(notes, paths, discard):
    """Deletes what these files of the PartNotes tell of, by discard(path); of what takes long the
    rest follows."""
    for path in paths:
        thread = threading.Thread(target=notes.clear, args=(path, discard), name="remains",
                                  daemon=True)
        thread.start()
        thread.join(KILL_S)
        if thread.is_alive():
            log.warning("what a task left half written is still being deleted, as %s says", path)
