"""What users of zip and unzip have run into: what archives keep, names of Windows, and what cannot be packed."""
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import zipfile

import pytest

from conftest import program as module
from support.tasks import run, with_databases, work_of      # noqa: F401 (a fixture)
from support.trees import make_tree, tree

OLD = 981173107         # an odd second of 2001


def pack(source, to, **fields):
    return work_of("zip", **{"from": str(source), "to": str(to)}, **fields)


def unpack(source, to, **fields):
    defaults = dict({"from": str(source), "to": str(to)}, **fields)
    return work_of("unzip", **defaults)


def names_in(path):
    with zipfile.ZipFile(str(path)) as archive:
        return sorted(archive.namelist())


# -- what is packed --------------------------------------------------------------------

def test_pipes_sockets_and_dangling_links_are_left_out_with_a_word(with_databases, tmp_path):
    make_tree(tmp_path, d__a="1", d__deep__b="2")
    os.mkfifo(str(tmp_path / "d" / "pipe"))
    (tmp_path / "d" / "gone").symlink_to("nowhere")
    (tmp_path / "d" / "self").symlink_to("self")
    (tmp_path / "d" / "deep" / "round").symlink_to("..")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "d" / "socket"))
        done = run(with_databases, {"type": "zip", "from": str(tmp_path / "d"), "to": str(tmp_path / "d.zip"), "timeout": 60})
    assert (done.status, done.tasks[0]["rows"], done.tasks[0]["message"]) == ("DONE", "4", "5 left out"), done.message
    assert names_in(tmp_path / "d.zip") == ["d/", "d/a", "d/deep/", "d/deep/b"]
    assert sorted(done.texts) == sorted("left out: %s/d/%s" % (tmp_path, text) for text in (
        "pipe is a named pipe", "socket is a socket", "gone is a link that leads nowhere",
        "self is a link that leads nowhere", "deep/round is a link to a folder that it is in"))


@pytest.mark.parametrize("content", [dict(d__e=None), dict(d=None), dict(d__e__f__g=None)])
def test_empty_folders_alone_are_an_error(tmp_path, content):
    make_tree(tmp_path, **content)
    with pytest.raises(module.TaskError) as caught:
        pack(tmp_path / "d", tmp_path / "d.zip")
    assert "no file to pack" in str(caught.value) and not (tmp_path / "d.zip").exists()


def test_a_pipe_alone_is_an_error(tmp_path):
    os.mkfifo(str(tmp_path / "pipe"))
    with pytest.raises(module.TaskError):
        pack(tmp_path / "pipe", tmp_path / "d.zip")


def test_empty_and_linked_folders_are_kept(tmp_path):
    make_tree(tmp_path, d__a="1", d__empty=None, d__deep__empty=None, else__b="2", else__empty=None)
    (tmp_path / "d" / "way").symlink_to(tmp_path / "else")
    assert pack(tmp_path / "d", tmp_path / "d.zip")["rows"] == 8
    assert names_in(tmp_path / "d.zip") == ["d/", "d/a", "d/deep/", "d/deep/empty/", "d/empty/", "d/way/", "d/way/b",
                                            "d/way/empty/"]
    unpack(tmp_path / "d.zip", tmp_path / "out")
    assert tree(tmp_path / "out" / "d") == {"a": "1", "empty": None, "deep": None, "deep/empty": None, "way": None,
                                            "way/b": "2", "way/empty": None}


def test_names_count_from_the_folder_of_the_pattern(tmp_path):
    make_tree(tmp_path, **{"d__a__x.csv": "1", "d__b__x.csv": "2", "d__x.csv": "3", "d__y": "4"})
    for pattern, names in [("d/**/*.csv", ["a/x.csv", "b/x.csv", "x.csv"]), ("d/[ab]/x.csv", ["a/x.csv", "b/x.csv"]),
                           ("d/*.csv", ["x.csv"]), ("d/a/x.csv", ["x.csv"]), ("d/a/..", ["a/x.csv", "b/x.csv", "x.csv", "y"]),
                           ("d/**", ["d/a/x.csv", "d/b/x.csv", "d/x.csv", "d/y"])]:
        pack(tmp_path / pattern, tmp_path / "z.zip") if pattern != "d/a/.." else \
            pack(str(tmp_path) + "/d/a/..", tmp_path / "z.zip")
        expected = [name[2:] for name in names] if pattern == "d/**" else names
        assert [name for name in names_in(tmp_path / "z.zip") if not name.endswith("/")] == expected, pattern


def test_a_name_that_is_not_utf8_is_told(tmp_path):
    (tmp_path / "d").mkdir()
    try:
        open(os.fsencode(str(tmp_path / "d")) + b"/\xfc", "w").close()
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(module.TaskError) as caught:
        pack(tmp_path / "d", tmp_path / "d.zip")
    str(caught.value).encode()
    assert not (tmp_path / "d.zip").exists() and not list(tmp_path.glob(".*"))


# -- modes and times -------------------------------------------------------------------

@pytest.mark.parametrize("mode", [0o755, 0o600, 0o640, 0o4755, 0o2755, 0o444])
def test_permission_bits_and_time_go_and_come_back(tmp_path, mode):
    make_tree(tmp_path, d__script="1", d__empty=None, d__full__file="2")
    for name in ("script", "empty", "full"):
        (tmp_path / "d" / name).chmod(mode if name == "script" else mode | 0o500)
        os.utime(str(tmp_path / "d" / name), (OLD, OLD))
    pack(tmp_path / "d", tmp_path / "d.zip")
    unpack(tmp_path / "d.zip", tmp_path / "out")
    for name in ("script", "empty", "full"):
        status = (tmp_path / "out" / "d" / name).stat()
        assert stat.S_IMODE(status.st_mode) == (mode if name == "script" else mode | 0o500) & 0o777
        assert status.st_mtime == OLD


@pytest.mark.parametrize("moment", [0, 1 << 31, 5000000000])
def test_times_beyond_what_an_archive_has(tmp_path, moment):
    make_tree(tmp_path, a="1")
    os.utime(str(tmp_path / "a"), (moment, moment))
    pack(tmp_path / "a", tmp_path / "z.zip")
    unpack(tmp_path / "z.zip", tmp_path / "out")
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert moment == 5000000000 or abs((tmp_path / "out" / "a").stat().st_mtime - moment) <= 2


def test_an_archive_without_modes_and_times(tmp_path):
    with zipfile.ZipFile(str(tmp_path / "z.zip"), "w") as archive:
        for name, moment in (("now", (1980, 0, 0, 0, 0, 0)), ("then", (2001, 2, 3, 4, 5, 6))):
            info = zipfile.ZipInfo(name)
            info.date_time, info.create_system, info.external_attr = moment, 0, 0x20
            archive.writestr(info, "1")
    before, begun = os.umask(0o027), time.time()
    try:
        unpack(tmp_path / "z.zip", tmp_path / "out")
    finally:
        os.umask(before)
    now, then = [(tmp_path / "out" / name).stat() for name in ("now", "then")]
    assert stat.S_IMODE(now.st_mode) == stat.S_IMODE(then.st_mode) == 0o640
    assert now.st_mtime >= begun - 5 and time.localtime(then.st_mtime)[:6] == (2001, 2, 3, 4, 5, 6)


@pytest.mark.skipif(not (shutil.which("zip") and shutil.which("unzip")), reason="there is no Info-ZIP")
def test_with_info_zip(tmp_path):
    make_tree(tmp_path, d__script="1", d__empty=None)
    (tmp_path / "d" / "script").chmod(0o755)
    os.utime(str(tmp_path / "d" / "script"), (OLD, OLD))
    pack(tmp_path / "d", tmp_path / "ours.zip")
    subprocess.run(["unzip", "-q", str(tmp_path / "ours.zip"), "-d", str(tmp_path / "theirs")], check=True)
    subprocess.run(["zip", "-qr", str(tmp_path / "theirs.zip"), "d"], check=True, cwd=str(tmp_path))
    unpack(tmp_path / "theirs.zip", tmp_path / "ours")
    for folder in ("theirs", "ours"):
        assert tree(tmp_path / folder / "d") == {"script": "1", "empty": None}
        status = (tmp_path / folder / "d" / "script").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, OLD)


# -- names of archives -----------------------------------------------------------------

@pytest.mark.parametrize("system, names", [
    (0, ["dir\\b.txt", "dir\\empty\\"]), (10, ["dir\\b.txt", "dir\\empty\\"]), (3, ["dir\\b.txt", "dir\\empty\\"]),
    (0, ["dir/b.txt", "dir\\empty\\"])])
def test_backslashes_of_windows_are_folders(tmp_path, system, names):
    with zipfile.ZipFile(str(tmp_path / "z.zip"), "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.create_system = system
            archive.writestr(info, "" if name.endswith("\\") else "1")
    assert unpack(tmp_path / "z.zip", tmp_path / "out")["rows"] == 2
    assert tree(tmp_path / "out") == {"dir": None, "dir/b.txt": "1", "dir/empty": None}


def test_a_backslash_in_a_name_of_unix_stays(tmp_path):
    make_tree(tmp_path, **{"d__a\\b": "1"})
    pack(tmp_path / "d", tmp_path / "z.zip")
    unpack(tmp_path / "z.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == {"d": None, "d/a\\b": "1"}


def test_members_that_are_called_as_parts_were(tmp_path):
    with zipfile.ZipFile(str(tmp_path / "z.zip"), "w") as archive:
        for name in ("movie.part", "movie", "movie.part.part"):
            archive.writestr(name, name)
    unpack(tmp_path / "z.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == {name: name for name in ("movie.part", "movie", "movie.part.part")}


@pytest.mark.parametrize("names, there", [(["a", "a/b"], {}), (["z", "a"], {"a__b": "old"}), (["z", "a/b"], {"a": "old"}),
                                          (["z", "a/"], {"a": "old"})])
def test_a_file_and_a_folder_of_one_name_are_told_before_anything_is_unpacked(tmp_path, names, there):
    with zipfile.ZipFile(str(tmp_path / "z.zip"), "w") as archive:
        for name in names:
            archive.writestr(name, "")
    make_tree(tmp_path / "out", **there)
    before = tree(tmp_path)
    with pytest.raises(module.TaskError) as caught:
        unpack(tmp_path / "z.zip", tmp_path / "out")
    assert '"a" is a ' in str(caught.value) and tree(tmp_path) == before


def test_an_archive_that_is_a_pipe(tmp_path):
    os.mkfifo(str(tmp_path / "z.zip"))
    with pytest.raises(module.TaskError):
        unpack(tmp_path / "z.zip", tmp_path / "out")


def test_what_unpacking_asks_of_the_system_does_not_grow_with_the_depth_of_the_folder(tmp_path):
    def count_looks(folder):
        calls = []
        sys.setprofile(lambda frame, event, function: event == "c_call" and function is os.lstat and calls.append(1))
        try:
            module.unpack({"from": str(archive), "to": str(folder), "max_bytes": 10 ** 6, "note": None})
        finally:
            sys.setprofile(None)
        assert len(list(folder.glob("d/*"))) == 100
        return len(calls)
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(str(archive), "w") as file:
        for number in range(100):
            file.writestr("d/%d" % number, b"x")
    deep = tmp_path.joinpath(*["d"] * 20)
    deep.mkdir(parents=True)
    assert count_looks(deep / "new") - count_looks(tmp_path / "new") < 100
