"""Folders with files, as tests make and compare them, and files that are large and take no space."""
import os
import struct


def tree(folder):
    """{path below: content, None of a folder, (target,) of a link}."""
    def content(path):
        if path.is_symlink():
            return (os.readlink(str(path)),)
        return path.read_bytes().decode("latin-1") if path.is_file() else None
    return {str(path.relative_to(folder)): content(path) for path in folder.glob("**/*")}


def make_tree(folder, **content):
    """Files by name, where __ stands for a slash; None makes a folder."""
    for name, text in content.items():
        path = folder / name.replace("__", "/")
        (path if text is None else path.parent).mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
    return folder


def hollow(path, size=1 << 40):
    """A file of zeros that takes no space."""
    with open(str(path), "wb") as file:
        file.truncate(size)
    return path


def hollow_zip(path, name, size):
    """An archive with a member of so many zeros, which takes no space; its checksum is wrong."""
    name = name.encode()
    common = struct.pack("<HHHHHLLLHH", 20, 0, 0, 0, 0x21, 1, size, size, len(name), 0)
    with open(str(path), "wb") as file:
        file.write(b"PK\3\4" + common + name)
        file.seek(size, 1)
        start = file.tell()
        file.write(b"PK\1\2" + b"\x14\0" + common + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + name)
        file.write(b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, file.tell() - start, start, 0))
