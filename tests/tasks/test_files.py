"""What users of copy, move, delete and wait_file have run into: by their smallest inputs, whole or not at all."""
import os
import socket
import signal
import stat
import tempfile
import threading
from unittest import mock

import pytest

from conftest import program as module, wait_for
from support.outside import query
from support.tasks import begin, with_databases, stop, work_of      # noqa: F401 (a fixture)
from support.trees import hollow, hollow_zip, make_tree, tree

PART = ".*.part"


def copy(kind, source, to, **fields):
    return work_of(kind, **{"from": str(source), "to": str(to)}, **fields)


# -- a folder onto a folder ------------------------------------------------------------

@pytest.mark.parametrize("kind", ["copy", "move"])
def test_a_folder_that_is_there_is_merged_and_overwritten(tmp_path, kind):
    for text in ("old", "new"):
        make_tree(tmp_path / "d", a=text, deep__b=text, **({"deep__only_new": text} if text == "new" else {}))
        (tmp_path / "d" / "link").symlink_to(text)
        assert copy(kind, tmp_path / "d", str(tmp_path / "out") + "/")["rows"] == 1
        if text == "old":
            make_tree(tmp_path / "out" / "d", theirs="stays", deep__theirs="stays")
            if kind == "copy":
                (tmp_path / "d" / "link").unlink()
    assert tree(tmp_path / "out") == {
        "d": None, "d/a": "new", "d/deep": None, "d/deep/b": "new", "d/deep/only_new": "new", "d/link": ("new",),
        "d/theirs": "stays", "d/deep/theirs": "stays"}
    assert (tmp_path / "d").exists() == (kind == "copy")


@pytest.mark.parametrize("kind", ["copy", "move"])
@pytest.mark.parametrize("source, target, reason", [
    (dict(d__a="new", d__z="new"), dict(out__d__a="old", out__d__z__f="old"), "d/z is no folder, and"),
    (dict(d__a="new", d__z__f="new"), dict(out__d__a="old", out__d__z="old"), "d/z is a folder, and"),
    (dict(d="new"), dict(out__d__f="old"), "d is no folder, and"),
    (dict(d__a="new"), dict(out__d="old"), "d is a folder, and")])
def test_a_file_and_a_folder_of_one_name_are_told_before_anything_is_written(tmp_path, kind, source, target, reason):
    make_tree(tmp_path, **source)
    make_tree(tmp_path, **target)
    before = tree(tmp_path)
    with pytest.raises(module.TaskError) as caught:
        copy(kind, tmp_path / "d", tmp_path / "out")
    assert reason in str(caught.value) and tree(tmp_path) == before


def test_a_link_to_a_folder_in_the_target_is_not_written_through(tmp_path):
    make_tree(tmp_path, d__sub__a="new", else__a="old", out__d=None)
    (tmp_path / "out" / "d" / "sub").symlink_to(tmp_path / "else")
    with pytest.raises(module.TaskError):
        copy("copy", tmp_path / "d", tmp_path / "out")
    assert (tmp_path / "else" / "a").read_text() == "old"


@pytest.mark.parametrize("kind", ["copy", "move"])
def test_no_link_takes_the_place_of_what_it_leads_to(tmp_path, kind):
    make_tree(tmp_path, d=None, out__d__a="precious")
    (tmp_path / "d" / "a").symlink_to(tmp_path / "out" / "d" / "a")
    with pytest.raises(module.TaskError) as caught:
        copy(kind, tmp_path / "d", tmp_path / "out")
    assert "onto itself" in str(caught.value) and (tmp_path / "out" / "d" / "a").read_text() == "precious"


def test_a_link_to_a_folder_is_copied_as_what_it_leads_to(tmp_path):
    make_tree(tmp_path, release__a="1")
    (tmp_path / "current").symlink_to("release")
    for _ in range(2):
        copy("copy", tmp_path / "current", tmp_path / "out")
        assert tree(tmp_path / "out") in ({"a": "1"}, {"a": "1", "current": None, "current/a": "1"})


def test_what_is_moved_goes_once_and_what_came_meanwhile_stays(tmp_path, monkeypatch):
    make_tree(tmp_path, d__x__x__f="1", d__f="2")
    assert copy("move", str(tmp_path / "d" / "**"), tmp_path / "out")["rows"] == 1
    assert tree(tmp_path / "out") == {"d": None, "d/x": None, "d/x/x": None, "d/x/x/f": "1", "d/f": "2"}
    make_tree(tmp_path, d__new="3")
    rmdir = os.rmdir
    monkeypatch.setattr(os, "rmdir", lambda path: (make_tree(tmp_path, d__late="4"), rmdir(path)))
    with pytest.raises(OSError):
        copy("move", tmp_path / "d", tmp_path / "out")
    assert tree(tmp_path / "d") == {"late": "4"} and (tmp_path / "out" / "d" / "new").read_text() == "3"


@pytest.mark.parametrize("name", ["pipe", "socket"])
def test_what_has_no_end_is_told_before_anything_is_written(tmp_path, name):
    make_tree(tmp_path, d__a="1", d__deep__b="2")
    with socket.socket(socket.AF_UNIX) as listening:
        os.mkfifo(str(tmp_path / "d" / "deep" / "z")) if name == "pipe" else \
            listening.bind(str(tmp_path / "d" / "deep" / "z"))
        for source in (tmp_path / "d", tmp_path / "d" / "deep" / "z"):
            with pytest.raises(module.TaskError) as caught:
                copy("copy", source, tmp_path / "out")
            assert "d/deep/z is a %s" % name.replace("pipe", "named pipe") in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["d"]
        with pytest.raises(module.TaskError):
            copy("copy", "/dev/zero", tmp_path / "out")


# -- delete ----------------------------------------------------------------------------

def test_delete_goes_down_by_two_stars_and_not_through_links(tmp_path):
    make_tree(tmp_path, **{"d__a.tmp": "", "d__deep__er__b.tmp": "", "d__keep": "", "d__x.tmp__y.tmp": "",
                           "else__c.tmp": "", "else__f": ""})
    (tmp_path / "d" / "way").symlink_to(tmp_path / "else")
    (tmp_path / "d" / "loop").symlink_to(".")
    assert work_of("delete", path=str(tmp_path / "d" / "**" / "*.tmp"))["rows"] == 3
    assert sorted(tree(tmp_path)) == ["d", "d/deep", "d/deep/er", "d/keep", "d/loop", "d/way", "else", "else/c.tmp",
                                      "else/f"]
    assert work_of("delete", path=str(tmp_path / "d") + "/*/")["rows"] == 3     # links as such, behind a slash too
    assert sorted(tree(tmp_path)) == ["d", "d/keep", "else", "else/c.tmp", "else/f"]


# -- wait_file -------------------------------------------------------------------------

class Waiting:
    """A clock of its own; script(seconds) does what happens by then."""

    def __init__(self, script=lambda now: None):
        self._now, self._script = 0.0, script

    def monotonic(self):
        return self._now

    def wait(self, seconds):
        self._now += seconds
        self._script(self._now)
        assert self._now < 100, "it waits for ever"


def wait_file(clock, path, stable_s=1, absent=False):
    """What the process of a wait_file does -> (rows, when it was over)."""
    with tempfile.TemporaryFile() as result, mock.patch("time.monotonic", clock.monotonic), \
            mock.patch("time.sleep", clock.wait):
        module.wait_alone(str(os.dup(result.fileno())), os.fsencode(path).hex(), "1", str(stable_s), str(absent))
        result.seek(0)
        return int(result.read().decode()), clock.monotonic()


def test_wait_file_takes_a_plain_path_that_is_there(tmp_path):
    path = tmp_path / "report[1].csv"
    path.write_text("1")
    assert wait_file(Waiting(), path=str(path)) == (1, 1.0)

    def script(now):
        if now > 5 and path.exists():
            path.unlink()
    assert wait_file(Waiting(script), path=str(path), absent=True)[1] > 5
    (tmp_path / "report1.csv").write_text("1")
    assert wait_file(Waiting(), path=str(path)) == (1, 1.0)      # the pattern that it is else


@pytest.mark.parametrize("change", ["content", "mode", "name"])
def test_wait_file_waits_while_a_file_of_full_size_is_written(tmp_path, change):
    path = tmp_path / "in"
    path.write_bytes(b"\0" * 100)
    count = iter(range(1000))

    def script(now):
        if now > 6:
            return
        if change == "content":
            with open(str(path), "r+b") as file:
                file.write(b"x")
            os.utime(str(path), ns=(0, 1000 * next(count)))      # the clock of files may be coarse
        elif change == "mode":
            wait_for(lambda: (path.chmod(0o600), path.stat().st_ctime_ns)[1] > before.st_ctime_ns)
        else:
            (tmp_path / "new").write_bytes(b"\0" * 100)
            os.utime(str(tmp_path / "new"), ns=(0, 1000 * next(count)))
            os.replace(str(tmp_path / "new"), str(path))
    before = path.stat()
    now = wait_file(Waiting(script), path=str(path), stable_s=1)[1]
    assert now >= 6.5 if change != "mode" else now > 1


# -- whole or not at all ---------------------------------------------------------------

def test_two_writers_of_one_target_leave_one_whole_file(tmp_path):
    size, targets = 5000000, ("a", "b")
    for letter in targets:
        (tmp_path / letter).write_bytes(letter.encode() * size)
    (tmp_path / "to.part").write_text("somebody's")
    for _ in range(5):
        threads = [threading.Thread(target=copy, args=("copy", tmp_path / letter, tmp_path / "to")) for letter in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (tmp_path / "to").read_bytes() in [letter.encode() * size for letter in targets]
    assert (tmp_path / "to.part").read_text() == "somebody's" and not list(tmp_path.glob(PART))


def stopped_tasks(folder):
    """Tasks that do not end for long, by name."""
    (folder / "d").mkdir()
    (folder / "d" / "sub").mkdir()
    (folder / "d" / "sub" / "small").write_text("")
    (folder / "d" / "sub").chmod(0o500)
    hollow(folder / "d" / "z")
    hollow_zip(folder / "z.zip", "in/z", 0xF0000000)
    return {"copy": {"from": str(folder / "d" / "z"), "to": str(folder / "out" / "to")},
            "copy of a folder": {"type": "copy", "from": str(folder / "d"), "to": str(folder / "out" / "to")},
            "zip": {"from": str(folder / "d"), "to": str(folder / "out" / "to")},
            "unzip": {"from": str(folder / "z.zip"), "to": str(folder / "out")},
            "unload_csv": {"schema": "DWH", "file": str(folder / "out" / "to"), "query":
                           "with recursive c(n) as (select 1 union all select n + 1 from c) select n from c"}}


@pytest.mark.parametrize("kind, how", [
    (kind, how) for kind in ("copy", "copy of a folder", "zip", "unzip", "unload_csv") for how in ("stopped", "killed")]
    + [("zip", "timed out")])
def test_nothing_stays_of_what_is_cut_short(with_databases, tmp_path, kind, how):
    out = tmp_path / "out"
    out.mkdir()
    (out / "to").write_text("old") if kind != "copy of a folder" else None
    (out / ".to.part").write_text("somebody's")
    task = dict({"type": kind}, **stopped_tasks(tmp_path)[kind])
    if how == "timed out":
        task["timeout"] = 1
    session = begin(with_databases, task)
    wait_for(lambda: list(out.glob("**/.*.*.part")) or with_databases.status(session)["ended"], "the half of a file")
    if how == "stopped":
        stop(with_databases, session)
    elif how == "killed":
        pid = wait_for(lambda: query(with_databases.work, "select pid from session_task where session=?", int(session))[0][0])
        os.kill(pid, signal.SIGKILL)
    assert with_databases.wait_status(session, "ERROR", "STOPPED")
    assert [path.name for path in out.glob("**/*") if path.is_file() and path.name != "to"] == [".to.part"]
    assert kind == "copy of a folder" or (out / "to").read_text() == "old"
    assert not list(with_databases.folder.glob("*.parts.*"))


@pytest.mark.parametrize("on_stale", ["error", "restart"])
def test_nothing_stays_of_what_was_written_when_the_agent_was_killed(make_agent, tmp_path, on_stale):
    agent = make_agent().start()
    out = tmp_path / "out"
    out.mkdir()
    hollow(tmp_path / "z", 1 << 34)
    (out / ".to.0123456789abcdef.part").write_text("somebody's")
    session = begin(agent, {"type": "copy", "from": str(tmp_path / "z"), "to": str(out / "to")}, on_stale=on_stale)
    part = wait_for(lambda: [path for path in out.iterdir() if "0123456789abcdef" not in path.name], "a part")[0]
    pid = wait_for(lambda: query(agent.work, "select pid from session_task")[0][0])
    os.kill(pid, signal.SIGSTOP)                    # it writes no more
    note, = agent.folder.glob("*.parts.*")
    assert stat.S_IMODE(note.stat().st_mode) == 0o600 and note.name.startswith("workrep.db.parts.%s." % session)
    agent.kill()
    os.truncate(str(tmp_path / "z"), 3)
    agent.start()
    assert agent.wait_status(session, "ERROR", "DONE")["status"] == ("ERROR" if on_stale == "error" else "DONE")
    assert not part.exists() and not list(agent.folder.glob("*.parts.*"))
    assert sorted(path.name for path in out.iterdir()) == [".to.0123456789abcdef.part"] + ["to"] * (on_stale == "restart")


def test_a_note_deletes_nothing_but_what_it_can_have_named(inside, tmp_path):
    notes = inside.agent.places.list_open()[0].parts
    precious, part = tmp_path / "precious", tmp_path / ".a.0123456789abcdef.part"
    for path, text, is_kept in [(precious, None, True), (part, None, False), (part, "{", True), (part, "", True),
                                (part, '"%s' % part, True), (part, '["%s"]' % part, True), (part, 'x "%s"' % part, True)]:
        path.write_text("x")
        note = notes.make(1001)
        with open(note, "w") as file:
            file.write('"%s"' % path if text is None else text)
        assert notes.list_all() == [(note, 1001)]
        notes.clear(note)
        assert path.exists() == is_kept and not os.path.exists(note)
    note = notes.make(1001)
    os.unlink(note)
    notes.clear(note)
    (tmp_path / "foreign").write_text('"%s"' % part)
    os.symlink(str(tmp_path / "foreign"), note)
    notes.clear(note)
    assert part.exists() and notes.list_all() == []


def test_a_note_of_a_session_that_has_ended_is_followed_at_the_next_start(inside, tmp_path):
    parts = [tmp_path / (".%s.0123456789abcdef.part" % name) for name in ("file", "folder", "theirs")]
    parts[0].write_text("x")
    make_tree(parts[1], a__b="x")
    (parts[1] / "a").chmod(0o500)
    parts[2].write_text("x")
    notes = inside.agent.places.list_open()[0].parts
    for part in parts[:2]:
        with open(notes.make(77001), "w") as file:
            file.write('"%s"' % part)
    inside.stop()
    inside.start()
    assert [part.exists() for part in parts] == [False, False, True] and notes.list_all() == []


def test_a_file_system_that_does_not_answer_holds_nothing_up(monkeypatch):
    class Notes:
        """They are on it."""
        answered, is_cleared = threading.Event(), threading.Event()

        def clear(self, path, discard):
            self.answered.wait()
            self.is_cleared.set()
    notes = Notes()
    monkeypatch.setattr(module, "KILL_S", 0.05)
    module.clear_notes(notes, ["a note"], module.remove_all)
    assert not notes.is_cleared.is_set()
    notes.answered.set()
    assert notes.is_cleared.wait(60)
