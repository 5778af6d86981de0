"""Files packed and unpacked: zip and unzip."""
import contextlib
import errno
import math
import os
import shutil
import stat
import struct
import sys
import time

from ..base.vocabulary import DONE
from ..base.controls import show_bytes, show_controls
from ..base.words import shorten
from ..definitions.kinds import Field, between
from .files import (FROM, is_folder, matching, open_regular, outermost, pattern_folder,
                    special_kind)
from .roots import Root
from .task import TaskError, helper_task, needed

LEADS_NOWHERE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
IS_FOLDER = 0x10            # of the attributes that DOS gave files
# The field of Info-ZIP's extended timestamp (their extrafld.txt): its id, 5 bytes, bit 0 says that
# the time of change follows, in seconds since the epoch. The archive's own time is local, of 1980
# to 2107, and has even seconds.
STAMP = struct.Struct("<HHBl")
STAMP_ID = 0x5455
OLDEST = (1980, 1, 1, 0, 0, 0)
WINDOWS = (0, 6, 10, 14)    # create_system: FAT, HPFS, NTFS, VFAT


@helper_task("zip", {"from": FROM, "to": needed("the archive")})
def pack(order):
    """Packs what a pattern matches; names in the archive count from the pattern's folder."""
    import zipfile
    folder, skipped, root = pattern_folder(order["from"]), [], Root(order.get("root"))
    members = []
    for path in outermost(matching(order["from"], root)):
        below = Below(os.path.realpath(order["to"]), skipped, root)
        members += below.list(path, os.path.relpath(path, folder))
    for line in skipped:
        print("left out: " + show_controls(line), file=sys.stderr)
    if all(name.endswith("/") for _, name in members):
        raise TaskError("%s: there is no file to pack" % order["from"])
    with root.written(order["to"], note=order["note"]) as file, \
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in members:
            _add(archive, path, name, root)
    return {"status": DONE, "rows": len(members),
            "message": "%d left out" % len(skipped) if skipped else ""}


class Below:
    """What there is to pack at a path: a folder and all below it, or a file. Links are followed.
    `skipped` takes lines about what cannot be packed. TaskError for what leads out of the Root."""

    def __init__(self, archive, skipped, root):
        self._archive, self._skipped, self._root = archive, skipped, root

    def list(self, path, name, above=()):
        """[(path, name in the archive)]; that of a folder ends in a slash. `above` is the way
        here, by which a circle of links is known."""
        if not above or os.path.islink(path):
            self._root.check(path)
        try:
            status = os.stat(path)
        except OSError as error:
            if not os.path.islink(path) or error.errno not in LEADS_NOWHERE:
                raise
            return self._skip(path, "a link that leads nowhere")
        if not stat.S_ISDIR(status.st_mode):
            kind = special_kind(status)
            if kind:
                return self._skip(path, kind)
            return [] if os.path.realpath(path) == self._archive else [(path, name)]
        place = status.st_dev, status.st_ino
        if place in above:
            return self._skip(path, "a link to a folder that it is in")
        members = [] if os.path.normpath(name) == "." else [(path, name + "/")]
        for each in sorted(os.listdir(path)):
            members += self.list(os.path.join(path, each), os.path.join(name, each),
                                 above + (place,))
        return members

    def _skip(self, path, reason):
        self._skipped.append("%s is %s" % (path, reason))
        return []


def _add(archive, path, name, root):
    """Adds a file or a folder, with its mode and its time of change."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise TaskError("%s: a name that is not UTF-8 cannot be packed"
                        % show_bytes(name)) from None
    if name.endswith("/"):
        archive.writestr(_make_member(name, os.stat(path)), b"")
        return
    with open_regular(path, root) as source:
        status = os.fstat(source.fileno())
        member = _make_member(name, status)
        member.file_size, member.compress_type = status.st_size, archive.compression
        with archive.open(member, "w") as file:
            shutil.copyfileobj(source, file, 1 << 20)


def _make_member(name, status):
    """The ZipInfo of a file or folder of this status."""
    import zipfile
    moment = time.localtime(min(max(status.st_mtime, 0), 1 << 32))[:6]
    path = os.path.normpath(name)
    member = zipfile.ZipInfo(path + "/" if name.endswith("/") else path, max(moment, OLDEST))
    member.external_attr = status.st_mode << 16
    if stat.S_ISDIR(status.st_mode):
        member.external_attr |= IS_FOLDER
    with contextlib.suppress(struct.error):     # beyond 32 bits
        member.extra = STAMP.pack(STAMP_ID, 5, 1, math.floor(status.st_mtime))
    return member


@helper_task("unzip", {
    "from": needed("the archive"), "to": needed("the folder that it is unpacked into"),
    "max_bytes": Field(between(1, 1 << 50), default=1 << 40,
                       meaning="one that would become larger is not unpacked")})
def unpack(order):
    """Unpacks an archive; nothing when a name would leave the folder or it is too large: all names
    and sizes are checked before anything is written, and zipfile takes no more than a size says."""
    import zipfile
    root = Root(order.get("root"))
    root.check_entry(order["to"].rstrip("/") + "/in it")
    with open_regular(order["from"], root) as source, zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        names = list_names(members)
        for member, name in zip(members, names):
            _check_member(member, name)
        if sum(member.file_size for member in members) > order["max_bytes"]:
            raise TaskError("%s would unpack to more than max_bytes (%d)"
                            % (order["from"], order["max_bytes"]))
        targets = list_targets(names, order["to"])
        _check_places(names, targets, order["to"])
        fresh = []                      # folders, whose mode and time come last
        for member, name, target in zip(members, names, targets):
            if name.endswith("/"):
                fresh += _make_folder(member, target, root)
            else:
                _extract(archive, member, target, order["note"], root)
        for target, member in reversed(fresh):
            with root.standing_in(target) as name:
                _take_status(member, name)
    return {"status": DONE, "rows": len(members)}


def list_names(members):
    """The names of an archive's members, where a backslash of Windows is a slash. Programs there
    may say that they are Unix; but then no name has a slash."""
    is_windows = not any("/" in member.filename for member in members)
    return [member.filename.replace("\\", "/")
            if is_windows or member.create_system in WINDOWS else member.filename
            for member in members]


def _check_member(member, name):
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or parts[0][1:2] == ":":
        raise TaskError("%s would leave the target folder; nothing was unpacked" % shorten(name))
    if member.external_attr >> 28 == 0xA:
        raise TaskError("%s is a symbolic link; nothing was unpacked" % shorten(name))


def list_targets(names, folder):
    """Where members go. TaskError when a link would lead one out of the folder."""
    root, inside, targets = os.path.realpath(folder), set(), []
    for name in names:
        target = os.path.join(folder, *name.split("/"))
        above = os.path.dirname(target)         # of a folder, whose name ends in a slash: itself
        if above not in inside:                 # once for all that is in it: it takes long
            _check_inside(above, root, name)
            inside.add(above)
        if os.path.islink(target):
            _check_inside(target, root, name)
        targets.append(target)
    return targets


def _check_inside(path, root, name):
    real = os.path.realpath(path)
    if real != root and not real.startswith(root.rstrip("/") + "/"):
        raise TaskError("%s would leave the target folder by a link" % shorten(name))


def _check_places(names, targets, folder):
    """TaskError when a file would take the place of a folder, or a folder of a file; also of what
    is there."""
    folders = set()
    for name in names:
        above = os.path.dirname(name)
        while above and above not in folders:
            folders.add(above)
            above = os.path.dirname(above)
    for name, target in zip(names, targets):
        if not name.endswith("/") and (name in folders or is_folder(target)):
            raise TaskError("%s is a file, and there is a folder of this name; nothing was "
                            "unpacked" % shorten(name))
    for name in folders:
        target = os.path.join(folder, name)
        if os.path.lexists(target) and not os.path.isdir(target):
            raise TaskError("%s is a folder, and there is a file of this name; nothing was "
                            "unpacked" % shorten(name))


def _make_folder(member, target, root):
    """Makes the folder of a member -> [(its path, member)] when it was missing."""
    is_new = not os.path.isdir(target)
    root.make_folders(target)
    return [(target, member)] if is_new else []


def _extract(archive, member, target, note, root):
    """Unpacks a file, with its mode and its time of change."""
    above = os.path.dirname(target) or "."
    if not os.path.isdir(above):
        root.make_folders(above)
    with archive.open(member) as source, root.written(target, note=note) as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        _take_status(member, file.fileno())


def _take_status(member, target):
    """Gives a file or folder the permission bits and the time that its member has."""
    mode = member.external_attr >> 16
    if mode:                            # else it was made where files have none
        os.chmod(target, mode & 0o777)
    moment = _find_time(member)
    if moment is not None:
        os.utime(target, (moment, moment))


def _find_time(member):
    """When a member was changed, epoch seconds; None when its archive does not say."""
    rest = member.extra
    while len(rest) >= 4:
        kind, size = struct.unpack("<HH", rest[:4])
        if kind == STAMP_ID and 5 <= size and len(rest) >= STAMP.size and rest[4] & 1:
            return STAMP.unpack(rest[:STAMP.size])[3]
        rest = rest[4 + size:]
    with contextlib.suppress(ValueError, OverflowError):
        if 0 not in member.date_time[:3]:
            return time.mktime(member.date_time + (0, 0, -1))
    return None
