"""Files copied, moved, deleted and made: copy, move, delete, mkdir."""
import contextlib
import errno
import glob
import itertools
import os
import shutil
import stat

from ..base.vocabulary import DONE
from ..definitions.kinds import BOOLEAN, Field
from ..base.files import part_beside
from .roots import ANYWHERE, Root
from .task import TaskError, helper_task, needed

SPECIAL_KINDS = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
                 (stat.S_ISBLK, "a device"), (stat.S_ISCHR, "a device"))


def find_paths(pattern):
    """What a pattern matches; a plain path that is there is that path, whatever it has of a
    pattern."""
    if os.path.lexists(pattern):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True))


def matching(pattern, root=ANYWHERE):
    """find_paths; TaskError when that is nothing, or would be out of a Root."""
    root.check_pattern(pattern)
    paths = find_paths(pattern)
    if not paths:
        raise TaskError("no file matches %s" % pattern)
    return paths


def pattern_folder(pattern):
    """The folder that names count from: of a plain path that which it is in, of a pattern what
    stands before its first part with * ? or [."""
    if os.path.basename(pattern) == "..":
        return pattern
    parts = pattern.rstrip("/").split("/")[:-1]
    if not os.path.lexists(pattern):
        parts = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    return "/".join(parts) or ("/" if pattern.startswith("/") else ".")


def crosses_link(path, folder):
    """Whether a link below a folder is on the way to a path that was found from there."""
    above = os.path.dirname(path)
    while above not in ("", "/", folder):
        if os.path.islink(above):
            return True
        above = os.path.dirname(above)
    return False


def outermost(paths):
    """Those that are in none of the others: those go with them."""
    outer = []
    for path in sorted(paths, key=lambda path: path.split("/")):
        if not outer or not path.startswith(outer[-1].rstrip("/") + "/"):
            outer.append(path)
    return outer


def special_kind(status):
    """What a thing of this status is when it is neither file, folder nor link; or None."""
    return next((text for is_one, text in SPECIAL_KINDS if is_one(status.st_mode)), None)


def check_source(path, may_be_pipe=False):
    """TaskError for what has no end, or may never begin: a device, a socket, a pipe unless that may
    be. OSError."""
    status = os.stat(path)
    kind = special_kind(status)
    if kind and not (may_be_pipe and stat.S_ISFIFO(status.st_mode)):
        raise TaskError("%s is %s" % (path, kind))


def _open_at_once(path, flags):
    """A descriptor; a pipe that nobody writes does not make it wait."""
    try:
        return os.open(path, flags | os.O_NONBLOCK)
    except BlockingIOError:             # a lease on a file, which Samba takes: never of a pipe
        return os.open(path, flags)


def open_regular(path, root=ANYWHERE):
    """The file, for reading; TaskError for what is out of a Root, and for what is none, and might
    never be read to its end."""
    root.check(path)
    source = open(path, "rb", opener=_open_at_once)
    try:
        root.check_open(source, path)
        kind = special_kind(os.fstat(source.fileno()))
        if kind:
            raise TaskError("%s is %s" % (path, kind))
    except TaskError:
        source.close()
        raise
    return source


def is_folder(path):
    """Whether there is a folder, and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def destinations(pattern, to, overwrite, is_move=False, root=ANYWHERE):
    """[(from, to)]: into a folder when `to` is one, ends in a slash, or several files match.
    TaskError, before anything is written."""
    paths = matching(pattern, root)
    is_into = os.path.isdir(to) or to.endswith("/") or len(paths) > 1
    paths = outermost(paths) if is_move else paths
    pairs = [(path, os.path.join(to, os.path.basename(path.rstrip("/"))) if is_into else to)
             for path in paths]
    targets = set()
    for path, target in pairs:
        (root.check_entry if is_move else root.check)(path)
        root.check_entry(target)
        if target in targets:
            raise TaskError("several files would be written to %s" % target)
        targets.add(target)
        if os.path.lexists(target) and not overwrite:
            raise TaskError("%s exists" % target)
        if os.path.isdir(path) and os.path.realpath(target).startswith(
                os.path.realpath(path).rstrip("/") + "/"):
            raise TaskError("%s would be written into itself" % path)
    pairs = [(path if is_move else follow(path), target) for path, target in pairs]
    for path, target in pairs:
        check_target(path, target)
        if not is_move:
            check_kinds(path)
    if is_into:
        root.make_folders(to)
    return pairs


def follow(path):
    """Where a link to a folder leads; any other path as it is."""
    return os.path.realpath(path) if os.path.isdir(path) else path


def check_target(path, target):
    """TaskError when a file would take the place of a folder, or a folder of a file, or
    something of itself."""
    if not os.path.lexists(target):
        return
    with contextlib.suppress(OSError):          # of a link that leads nowhere
        if os.path.samefile(path, target) and not (os.path.islink(path)
                                                   and os.path.islink(target)):
            raise TaskError("%s would be written onto itself" % path)
    if is_folder(path) != is_folder(target):
        raise TaskError("%s is %s folder, and %s is %s" % (
            (path, "a", target, "none") if is_folder(path) else (path, "no", target, "one")))
    if is_folder(path):
        for name in os.listdir(path):
            check_target(os.path.join(path, name), os.path.join(target, name))


def check_kinds(path):
    """TaskError for a pipe, a socket or a device, also below a folder."""
    if is_folder(path):
        for name in os.listdir(path):
            if not os.path.islink(os.path.join(path, name)):
                check_kinds(os.path.join(path, name))
        return
    check_source(path)


def copy_one(path, target, note=None, root=ANYWHERE):
    """Copies a file, or a folder with all that is in it, by way of one beside the target. `note`
    as of part_beside."""
    if not is_folder(path):
        with open_regular(path, root) as source, \
                root.written(target, access=0o600, note=note) as file:
            copy_content(source, file)
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    path = root.settled(path)
    with root.standing_at(target) as name, part_beside(name, note) as part:
        copy_tree(path, part, root)


def copy_content(source, file):
    """What is in an open file, and its mode and times."""
    shutil.copyfileobj(source, file, 1 << 20)
    file.flush()
    # by the descriptor, which stays the file's; BSD and macOS have flags that need a name
    shutil.copystat(source.name, file.name if hasattr(os, "chflags") else file.fileno())


def copy_tree(path, target, root=ANYWHERE):
    """A new folder with all that another has; links stay links."""
    os.mkdir(target, 0o700)
    for name in os.listdir(path):
        each, to = os.path.join(path, name), os.path.join(target, name)
        if os.path.islink(each):
            copy_link(each, to)
        elif os.path.isdir(each):
            copy_tree(each, to, root)
        else:
            with open_regular(each, root) as source, open(to, "xb") as file:
                root.check_open(file, to)
                copy_content(source, file)
    shutil.copystat(path, target)


def copy_link(path, target):
    """A new link that leads where another does."""
    os.symlink(os.readlink(path), target)
    shutil.copystat(path, target, follow_symlinks=False)


def copy_inner(path, target, note, root):
    """copy_one for what is in a folder: a link stays one."""
    if not os.path.islink(path):
        copy_one(path, target, note, root)
        return
    path = root.settled(path)
    with root.standing_at(target) as name, part_beside(name, note) as part:
        copy_link(path, part)


def move_one(path, target, note=None, root=ANYWHERE):
    """Moves a file or folder: at once in one file system, by a copy between two."""
    try:
        root.replace(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_inner(path, target, note, root)
        remove(path, root)


def merge(path, target, put, note, root):
    """Puts what is in a folder into another by put(from, to, note, root), folder by folder where
    both have one. What the other has alone stays."""
    for name in os.listdir(path):
        each, to = os.path.join(path, name), os.path.join(target, name)
        if is_folder(each) and is_folder(to):
            merge(each, to, put, note, root)
        else:
            put(each, to, note, root)
    if put is move_one:
        with root.standing_at(path) as name:
            os.rmdir(name)


def remove(path, root=ANYWHERE):
    """Deletes a file, a link, or a folder with all that is in it."""
    with root.standing_at(path) as name:
        if is_folder(name):
            shutil.rmtree(name)
        else:
            os.unlink(name)


FROM = needed("a file or folder, or a pattern with * ? [...] or **")
COPY_FIELDS = {
    "from": FROM,
    "to": needed("its new name, or the folder that it is put into"),
    "overwrite": Field(BOOLEAN, default=True, meaning="false: what is there already is an error"),
}


@helper_task("copy", COPY_FIELDS)
@helper_task("move", COPY_FIELDS)
def copy_or_move(order):
    """Copies or moves what a pattern matches."""
    is_move, root = order["type"] == "move", Root(order.get("root"))
    pairs = destinations(order["from"], order["to"], order["overwrite"], is_move, root)
    for path, target in pairs:
        if is_folder(path) and is_folder(target):
            merge(path, target, move_one if is_move else copy_inner, order["note"], root)
        else:
            (move_one if is_move else copy_one)(path, target, order["note"], root)
    return {"status": DONE, "rows": len(pairs)}


@helper_task("delete", {"path": needed("a file or folder, or a pattern with * ? [...] or **")})
def delete(order):
    """Deletes what a pattern matches; nothing to delete is no error."""
    pattern, root = order["path"], Root(order.get("root"))
    root.check_pattern(pattern)
    # behind a slash a link would be the folder that it leads to
    paths = outermost([path.rstrip("/") or path for path in find_paths(pattern)])
    if "**" in pattern:                 # which follows links
        paths = [path for path in paths if not crosses_link(path, pattern_folder(pattern))]
    for path in paths:
        root.check_entry(path)
    for path in paths:
        remove(path, root)
    return {"status": DONE, "rows": len(paths)}


@helper_task("mkdir", {"path": needed("the folder")})
def make_folders(order):
    """Makes a folder and those above it; one that is there is no error."""
    Root(order.get("root")).make_folders(order["path"])
    return {"status": DONE}
