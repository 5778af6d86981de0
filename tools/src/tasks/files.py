"""Files copied, moved, deleted, made, packed and unpacked."""
import collections
import errno
import glob
import os
import shutil
import sys
import zipfile

from ..base.vocabulary import DONE
from ..base.words import shorten
from ..definitions.kinds import BOOLEAN, Field, between
from ..base.files import name_beside, naming, written_beside
from .task import TaskError, check_regular, helper_task, needed


def matching(pattern):
    """What a pattern, or a plain path, matches. TaskError when that is nothing."""
    paths = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise TaskError("no file matches %s" % pattern)
    return paths


def destinations(pattern, to, overwrite):
    """[(from, to)]: into a folder when `to` is one, ends in a slash, or several files match."""
    paths = matching(pattern)
    is_folder = os.path.isdir(to) or to.endswith("/") or len(paths) > 1
    if is_folder:
        os.makedirs(to, exist_ok=True)
    pairs = [(path, os.path.join(to, os.path.basename(path.rstrip("/"))) if is_folder else to)
             for path in paths]
    counts = collections.Counter(target for _, target in pairs)
    for path, target in pairs:
        if counts[target] > 1:
            raise TaskError("several files would be written to %s" % target)
        if os.path.lexists(target) and not overwrite:
            raise TaskError("%s exists" % target)
        if os.path.lexists(target) and os.path.samefile(path, target):
            raise TaskError("%s would be written onto itself" % path)
        if (os.path.isdir(path)
                and (os.path.realpath(target) + "/").startswith(os.path.realpath(path) + "/")):
            raise TaskError("%s would be written into itself" % path)
    return pairs


def copy_one(path, target):
    """Copies a file, or a folder with all that is in it, by way of one beside the target."""
    if os.path.isdir(path) and not os.path.islink(path):
        copy_folder(path, target)
        return
    check_regular(path)
    with open(path, "rb") as source, written_beside(target, access=0o600) as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        # by the descriptor, which stays the file's; BSD and macOS have flags that need a name
        shutil.copystat(path, file.name if hasattr(os, "chflags") else file.fileno())


def copy_folder(path, target):
    """copy_one for a folder; FileExistsError when the target is there."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    part = name_beside(target, "part")
    try:
        shutil.copytree(path, part, symlinks=True, copy_function=copy_regular)
        with naming(target):
            os.rename(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def copy_regular(path, target, **keywords):
    """shutil.copy2 of what is a regular file."""
    check_regular(path)
    return shutil.copy2(path, target, **keywords)


def move_one(path, target):
    """Moves a file or folder: at once in one file system, by a copy between two."""
    try:
        os.replace(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_one(path, target)
        remove(path)


def remove(path):
    """Deletes a file, a link, or a folder with all that is in it."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


FROM = needed("a file or folder, or a pattern with * ? [...] or **")
COPY_FIELDS = {
    "from": FROM,
    "to": needed("its new name, or the folder that it is put into"),
    "overwrite": Field(BOOLEAN, default=True, meaning="false: what is there already is an error"),
}


@helper_task("copy", COPY_FIELDS)
@helper_task("move", COPY_FIELDS)
def copy_or_move(given):
    """Copies or moves what a pattern matches."""
    pairs = destinations(given["from"], given["to"], given["overwrite"])
    for path, target in pairs:
        (copy_one if given["type"] == "copy" else move_one)(path, target)
    return {"status": DONE, "rows": len(pairs)}


@helper_task("delete", {"path": needed("a file or folder, or a pattern")})
def delete(given):
    """Deletes what a pattern matches; nothing to delete is no error."""
    paths = [given["path"]] if os.path.lexists(given["path"]) else glob.glob(given["path"])
    for path in paths:
        remove(path)
    return {"status": DONE, "rows": len(paths)}


@helper_task("mkdir", {"path": needed("the folder")})
def make_folders(given):
    """Makes a folder and those above it; one that is there is no error."""
    os.makedirs(given["path"], exist_ok=True)
    return {"status": DONE}


# a file from before 1980 is one of 1980 in an archive, where Python can do that
ZIP_OPTIONS = {"strict_timestamps": False} if sys.version_info >= (3, 8) else {}


@helper_task("zip", {"from": FROM, "to": needed("the archive")})
def pack(given):
    """Packs what a pattern matches; names in the archive count from the pattern's folder."""
    names = []
    for source in matching(given["from"]):
        base = os.path.dirname(source.rstrip("/")) or "."
        names += [(path, os.path.relpath(path, base)) for path in files_below(source)
                  if os.path.realpath(path) != os.path.realpath(given["to"])]
    for path, _ in names:
        check_regular(path)
    with written_beside(given["to"]) as file, \
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, **ZIP_OPTIONS) as archive:
        for path, name in names:
            archive.write(path, name)
    return {"status": DONE, "rows": len(names)}


def files_below(path):
    """A file itself, or all files in a folder."""
    if not os.path.isdir(path):
        yield path
    for folder, _, names in os.walk(path):
        for name in sorted(names):
            yield os.path.join(folder, name)


@helper_task("unzip", {
    "from": needed("the archive"), "to": needed("the folder that it is unpacked into"),
    "max_bytes": Field(between(1, 1 << 50), default=1 << 40,
                       meaning="one that would become larger is not unpacked")})
def unpack(given):
    """Unpacks an archive; nothing when a name would leave the folder or it is too large: all names
    and sizes are checked before anything is written, and zipfile takes no more than a size says."""
    check_regular(given["from"])
    with zipfile.ZipFile(given["from"]) as archive:
        members = archive.infolist()
        for member in members:
            _check_member(member)
        if sum(member.file_size for member in members) > given["max_bytes"]:
            raise TaskError("%s would unpack to more than max_bytes (%d)"
                            % (given["from"], given["max_bytes"]))
        for member in members:
            _extract(archive, member, given["to"])
    return {"status": DONE, "rows": len(members)}


def _check_member(member):
    parts = member.filename.replace("\\", "/").split("/")
    if member.filename.startswith(("/", "\\")) or ".." in parts or parts[0][1:2] == ":":
        raise TaskError("%s would leave the target folder; nothing was unpacked"
                        % shorten(member.filename))
    if member.external_attr >> 28 == 0xA:
        raise TaskError("%s is a symbolic link; nothing was unpacked" % shorten(member.filename))


def _extract(archive, member, folder):
    target = os.path.join(folder, *member.filename.split("/"))
    real, root = os.path.realpath(target), os.path.realpath(folder)
    if os.path.commonpath([real, root]) != root:
        raise TaskError("%s would leave the target folder by a link" % shorten(member.filename))
    if member.filename.endswith("/"):
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    with archive.open(member) as source, written_beside(target) as file:
        shutil.copyfileobj(source, file)
