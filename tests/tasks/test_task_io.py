"""Task types of files and archives on a real agent: good, bad and stopped courses."""
import os
import struct
import sys
import zipfile

import pytest

from conftest import wait_for
from support.tasks import begin, run, stop, with_databases     # noqa: F401 (a fixture)


# -- files -----------------------------------------------------------------------------

def one(kind, source, to, **fields):
    return dict({"type": kind, "from": str(source), "to": str(to)}, **fields)


def test_copy(with_databases, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c").write_text("c")
    os.chmod(str(tmp_path / "a.txt"), 0o640)
    done = run(with_databases, one("copy", tmp_path / "a.txt", tmp_path / "new.txt"),
               one("copy", tmp_path / "?.txt", tmp_path / "out"), one("copy", tmp_path / "a.txt", str(tmp_path / "made") + "/"),
               one("copy", tmp_path / "sub", tmp_path / "out"))
    assert done.status == "DONE", done.message
    assert [task["rows"] for task in done.tasks] == ["1", "2", "1", "1"]
    assert (tmp_path / "new.txt").read_text() == "a" and (tmp_path / "new.txt").stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.txt", "b.txt", "sub"]
    assert (tmp_path / "made" / "a.txt").read_text() == "a" and (tmp_path / "out" / "sub" / "c").read_text() == "c"
    assert (tmp_path / "a.txt").exists()


@pytest.mark.parametrize("kind", ["copy", "move"])
def test_what_copy_and_move_refuse(with_databases, tmp_path, kind):
    (tmp_path / "a").write_text("a")
    (tmp_path / "old").write_text("old")
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_text(name)
    for task, reason in [(one(kind, tmp_path / "a", tmp_path / "old", overwrite=False), "exists"),
                         (one(kind, tmp_path / "a", tmp_path / "a"), "onto itself"),
                         (one(kind, tmp_path / "a", tmp_path), "onto itself"),
                         (one(kind, tmp_path / "none*", tmp_path / "out"), "no file matches"),
                         (one(kind, tmp_path / "x", tmp_path / "x" / "in"), "into itself"),
                         (one(kind, tmp_path / "[xy]" / "same", tmp_path / "out"), "same"),
                         (one(kind, tmp_path / "a", "/no/where/a"), "/no/where/a")]:
        done = run(with_databases, task)
        assert done.status == "ERROR" and reason in done.message, (task, done.message)
    assert (tmp_path / "a").read_text() == "a" and (tmp_path / "old").read_text() == "old"
    assert (tmp_path / "x" / "same").read_text() == "x" and (tmp_path / "y" / "same").read_text() == "y"
    assert run(with_databases, one(kind, tmp_path / "a", tmp_path / "old")).status == "DONE"
    assert (tmp_path / "old").read_text() == "a" and (tmp_path / "a").exists() == (kind == "copy")
    assert not list(tmp_path.glob("**/*.part"))


def test_move_of_many_and_of_a_folder(with_databases, tmp_path):
    for name in ("1.csv", "2.csv"):
        (tmp_path / name).write_text(name)
    (tmp_path / "sub").mkdir()
    done = run(with_databases, one("move", tmp_path / "*.csv", tmp_path / "done"), one("move", tmp_path / "sub", tmp_path / "gone"))
    assert done.status == "DONE" and done.tasks[0]["rows"] == "2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["done", "gone"]
    assert sorted(p.name for p in (tmp_path / "done").iterdir()) == ["1.csv", "2.csv"]


def test_move_to_another_file_system(with_databases, tmp_path):
    other = "/dev/shm/agent-test-%d" % os.getpid()
    (tmp_path / "a").write_text("a")
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(str(tmp_path)).st_dev:
        pytest.skip("one file system")
    try:
        assert run(with_databases, one("move", tmp_path / "a", other)).status == "DONE"
        with open(other) as file:
            assert file.read() == "a"
        assert not (tmp_path / "a").exists()
    finally:
        if os.path.exists(other):
            os.unlink(other)


def test_a_stopped_copy_leaves_no_half_file(with_databases, tmp_path):
    (tmp_path / "to").write_text("old")
    with open(str(tmp_path / "large"), "wb") as file:
        file.truncate(1 << 40)              # holes: it takes no space
    session = begin(with_databases, one("copy", tmp_path / "large", tmp_path / "to"))
    wait_for(lambda: len(list(tmp_path.iterdir())) == 3, "the half of a file")
    stop(with_databases, session)
    assert (tmp_path / "to").read_text() == "old"
    for path in tmp_path.iterdir():
        path.unlink()


def test_delete_and_mkdir(with_databases, tmp_path):
    for name in ("a.tmp", "b.tmp", "keep", "[x]"):
        (tmp_path / name).write_text("")
    (tmp_path / "dir.tmp").mkdir()
    (tmp_path / "dir.tmp" / "f").write_text("")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "stays").write_text("")
    (tmp_path / "link.tmp").symlink_to(tmp_path / "target")
    done = run(with_databases, {"type": "delete", "path": str(tmp_path / "*.tmp")}, {"type": "delete", "path": str(tmp_path / "*.tmp")},
               {"type": "delete", "path": str(tmp_path / "[x]")},
               {"type": "mkdir", "path": str(tmp_path / "p" / "${v}")}, {"type": "mkdir", "path": str(tmp_path / "p" / "${v}")},
               variables={"v": "q/r"})
    assert done.status == "DONE", done.message
    assert [task["rows"] for task in done.tasks][:3] == ["4", "0", "1"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keep", "p", "target"]
    assert (tmp_path / "p" / "q" / "r").is_dir() and (tmp_path / "target" / "stays").exists()
    done = run(with_databases, {"type": "mkdir", "path": str(tmp_path / "keep")})
    assert done.status == "ERROR" and "keep" in done.message


# -- zip and unzip ---------------------------------------------------------------------

def test_zip_and_unzip(with_databases, tmp_path):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a" * 1000)
    if sys.version_info >= (3, 8):
        os.utime(str(folder / "a.txt"), (0, 0))
    (folder / "deep" / "\u00e9.txt").write_text("e")
    done = run(with_databases, one("zip", folder, tmp_path / "all.zip"), one("zip", folder / "*.txt", tmp_path / "some.zip"),
               one("unzip", tmp_path / "all.zip", tmp_path / "out"))
    assert done.status == "DONE", done.message
    assert [task["rows"] for task in done.tasks] == ["4", "1", "4"]
    with zipfile.ZipFile(str(tmp_path / "all.zip")) as archive:
        assert sorted(archive.namelist()) == ["in/", "in/a.txt", "in/deep/", "in/deep/\u00e9.txt"]
    with zipfile.ZipFile(str(tmp_path / "some.zip")) as archive:
        assert archive.namelist() == ["a.txt"]
    assert (tmp_path / "out" / "in" / "deep" / "\u00e9.txt").read_text() == "e"


def test_zip_does_not_pack_itself(with_databases, tmp_path):
    (tmp_path / "a").write_bytes(os.urandom(200000))
    for _ in range(2):
        done = run(with_databases, one("zip", tmp_path / "*", tmp_path / "all.zip", timeout=60))
        assert done.status == "DONE", done.message
        with zipfile.ZipFile(str(tmp_path / "all.zip")) as archive:
            assert archive.namelist() == ["a"]
    done = run(with_databases, one("zip", tmp_path, tmp_path / "all.zip", timeout=60))
    assert done.status == "DONE", done.message
    with zipfile.ZipFile(str(tmp_path / "all.zip")) as archive:
        assert archive.namelist() == ["%s/" % tmp_path.name, "%s/a" % tmp_path.name]


def test_zip_of_nothing_leaves_the_old(with_databases, tmp_path):
    (tmp_path / "all.zip").write_text("old")
    done = run(with_databases, one("zip", tmp_path / "none*", tmp_path / "all.zip"))
    assert done.status == "ERROR" and "no file matches" in done.message
    assert (tmp_path / "all.zip").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["../../x", "ok/../../x", "/tmp/agent-zip-x", "..\\..\\x", "\\x", "C:\\x", "C:/x", ".."])
def test_unzip_refuses_names_that_leave(with_databases, tmp_path, name):
    with zipfile.ZipFile(str(tmp_path / "evil.zip"), "w") as archive:
        archive.writestr("good", "good")
        archive.writestr(name, "evil")
    done = run(with_databases, one("unzip", tmp_path / "evil.zip", tmp_path / "a" / "b" / "out"))
    assert done.status == "ERROR" and "would leave the target folder" in done.message
    assert [p.name for p in tmp_path.iterdir()] == ["evil.zip"]


def test_unzip_and_links(with_databases, tmp_path):
    with zipfile.ZipFile(str(tmp_path / "link.zip"), "w") as archive:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc")
        archive.writestr("link/passwd", "evil")
    done = run(with_databases, one("unzip", tmp_path / "link.zip", tmp_path / "out"))
    assert done.status == "ERROR" and "symbolic link" in done.message and not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("old")
    (tmp_path / "out" / "way").symlink_to(tmp_path / "outside")
    (tmp_path / "out" / "straight").symlink_to(tmp_path / "outside" / "file")
    for name in ("way/file", "straight"):
        with zipfile.ZipFile(str(tmp_path / "by.zip"), "w") as archive:
            archive.writestr(name, "evil")
        done = run(with_databases, one("unzip", tmp_path / "by.zip", tmp_path / "out"))
        assert done.status == "ERROR" and "by a link" in done.message
    assert (tmp_path / "outside" / "file").read_text() == "old"


def test_unzip_limits_and_lies(with_databases, tmp_path):
    with zipfile.ZipFile(str(tmp_path / "big.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big", b"\0" * 5000000)
    done = run(with_databases, one("unzip", tmp_path / "big.zip", tmp_path / "out", max_bytes=4999999))
    assert done.status == "ERROR" and "max_bytes" in done.message and not (tmp_path / "out").exists()
    assert run(with_databases, one("unzip", tmp_path / "big.zip", tmp_path / "out", max_bytes=5000000)).status == "DONE"
    data = (tmp_path / "big.zip").read_bytes().replace(struct.pack("<L", 5000000), struct.pack("<L", 10))
    (tmp_path / "lie.zip").write_bytes(data)
    done = run(with_databases, one("unzip", tmp_path / "lie.zip", tmp_path / "lie", max_bytes=100))
    assert done.status == "ERROR" and not [p for p in (tmp_path / "lie").glob("**/*") if p.is_file()]


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\3\4 half"])
def test_unzip_of_what_is_no_zip(with_databases, tmp_path, content):
    (tmp_path / "no.zip").write_bytes(content)
    done = run(with_databases, one("unzip", tmp_path / "no.zip", tmp_path / "out"))
    assert done.status == "ERROR" and "not a zip" in done.message and not (tmp_path / "out").exists()
