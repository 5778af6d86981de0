"""--root: what leads out of the folder is neither read nor written, whichever way it goes."""
import contextlib
import os
import sqlite3
import struct
import zipfile

import pytest

from conftest import program as module
from support.outside import query
from support.tasks import work_of

OUTSIDE, INSIDE = "a text of a stranger", "ours"


class Yard:
    """A folder for tasks, one beside it that is not theirs, and links from one to the other."""

    def __init__(self, top):
        self.root, self.outside = top / "root", top / "root-beside"      # its name begins alike
        for folder in (self.root, self.outside, self.root / "deep"):
            folder.mkdir()
        self.file, self.other = self.root / "ours.csv", self.outside / "theirs.csv"
        self.file.write_text("a\n%s\n" % INSIDE)
        self.other.write_text("a\n%s\n" % OUTSIDE)
        (self.root / "link").symlink_to(self.other)
        (self.root / "door").symlink_to(self.outside, target_is_directory=True)
        with contextlib.closing(sqlite3.connect(str(self.outside / "theirs.db"))) as connection:
            connection.execute("create table t (a)")
            connection.execute("insert into t values ('%s')" % OUTSIDE)
            connection.commit()
        with zipfile.ZipFile(str(self.outside / "theirs.zip"), "w") as archive:
            archive.writestr("unpacked", OUTSIDE)
        self.before = self.look()

    def look(self):
        """All that is outside."""
        return {path.name: path.read_bytes() for path in self.outside.iterdir()}

    def work(self, kind, **fields):
        """Does a task whose texts may have {root} and {outside} -> its result."""
        def fill(value):
            if isinstance(value, list):
                return [fill(each) for each in value]
            return value.replace("{root}", str(self.root)).replace("{outside}", str(self.outside)) \
                if isinstance(value, str) else value
        fields = {name.rstrip("_"): fill(value) for name, value in fields.items()}
        if "database" in fields:
            fields["server"] = {"name": "D", "driver": fields.pop("driver", "sqlite3"), "connect": fields.pop("connect", {}),
                                "database": fields.pop("database"), "physical_schema": None}
            fields["values"] = fields.get("values", {})
        if fields.get("type") is None:
            fields.pop("type", None)
        return work_of(kind, root=os.path.realpath(str(self.root)), **fields)

    def refuse(self, kind, **fields):
        """A task that is refused, by the name of the folder, and changes nothing outside -> why."""
        with pytest.raises(module.TaskError) as caught:
            self.work(kind, **fields)
        assert self.look() == self.before
        return str(caught.value)

    def shows(self, text):
        """Whether a file of the folder, or of an archive or a database there, has this text."""
        return any(text.encode() in path.read_bytes() for path in self.root.glob("**/*")
                   if path.is_file() and not path.is_symlink())


@pytest.fixture
def yard(tmp_path):
    made = Yard(tmp_path)
    yield made
    assert made.look() == made.before and not made.shows(OUTSIDE)


CSV = dict(schema="S", table="t", database="{root}/x.db")
OUT_WAYS = ["{outside}/theirs.csv", "{root}/link", "{root}/door/theirs.csv", "{root}/../root-beside/theirs.csv",
            "{root}/deep/../../root-beside/theirs.csv"]
OUT_PATTERNS = ["{outside}/*", "{root}/door/*", "{root}/d*r/*", "{root}/**/theirs.csv", "{root}/*/../../root-beside/*",
                "{root}/lin?"]


@pytest.mark.parametrize("path", OUT_WAYS)
@pytest.mark.parametrize("kind, fields", [
    ("copy", {"from": "{path}", "to": "{root}/b"}),
    ("zip", {"from": "{path}", "to": "{root}/b"}),
    ("unzip", {"from": "{path}", "to": "{root}/b"}),
    ("load_csv", dict(CSV, mode="create", file="{path}")),
    ("mail", {"to": ["a@b.example"], "subject": "x", "attach": ["{path}"], "server": {"connect": {}}}),
], ids=lambda value: value if isinstance(value, str) else "")
def test_nothing_outside_is_read(yard, kind, fields, path):
    fields = {name: [path] if value == ["{path}"] else path if value == "{path}" else value
              for name, value in fields.items()}
    reason = yard.refuse(kind, **fields)
    assert "leads out of %s, where --root has the files of tasks" % yard.root in reason
    assert path.format(root=yard.root, outside=yard.outside) in reason


@pytest.mark.parametrize("pattern", OUT_PATTERNS)
@pytest.mark.parametrize("kind", ["copy", "zip"])
def test_no_pattern_finds_what_is_outside(yard, kind, pattern):
    assert "leads out of" in yard.refuse(kind, **{"from": pattern, "to": "{root}/b/"})


def test_what_is_not_there_outside_is_no_other_answer(yard):
    """Nobody learns so what there is."""
    for kind in ("copy", "move", "zip"):
        reasons = {yard.refuse(kind, **{"from": "{outside}/" + name, "to": "{root}/b"}).replace(name, "")
                   for name in ("theirs.csv", "nothing")}
        assert len(reasons) == 1, reasons
    for overwrite in (False, True):
        assert len({yard.refuse("copy", from_="{root}/ours.csv", to="{outside}/" + name, overwrite=overwrite).replace(
            name, "") for name in ("theirs.csv", "nothing")}) == 1


@pytest.mark.parametrize("to", ["{outside}/b", "{root}/door/b", "{root}/door/", "{root}/door", "{root}/../root-beside/b",
                                "{root}/new/../../root-beside/b"])
@pytest.mark.parametrize("kind, fields", [
    ("copy", {"from": "{root}/ours.csv", "to": "{to}"}),
    ("move", {"from": "{root}/ours.csv", "to": "{to}"}),
    ("zip", {"from": "{root}/ours.csv", "to": "{to}"}),
    ("mkdir", {"path": "{to}/new"}),
    ("unload_csv", dict(CSV, query="select 1 as a", file="{to}")),
    ("http", {"url": "http://127.0.0.1:1/", "save": "{to}"}),
], ids=lambda value: value if isinstance(value, str) else "")
def test_nothing_outside_is_written(yard, kind, fields, to):
    fields = {name: value.replace("{to}", to) if isinstance(value, str) else value for name, value in fields.items()}
    if kind in ("zip", "unload_csv", "http") and to in ("{root}/door", "{root}/door/"):
        fields = {name: value + "/b" if value == to else value for name, value in fields.items()}
    assert "leads out of" in yard.refuse(kind, **fields)


@pytest.mark.parametrize("kind", ["copy", "zip", "unload_csv"])
def test_a_link_is_replaced_and_not_written_through(yard, kind):
    yard.work(kind, **dict(CSV, query="select 1 as a", file="{root}/link", to="{root}/link",
                            from_="{root}/ours.csv"))
    assert not (yard.root / "link").is_symlink()


@pytest.mark.parametrize("path", ["{outside}", "{outside}/theirs.csv", "{root}/door/theirs.csv", "{root}/door/*",
                                  "{root}/*/theirs.csv", "{root}/..", "{root}/deep/../..", "{root}", "{root}/", "{root}/."])
def test_nothing_outside_is_deleted_nor_moved(yard, path):
    assert "leads out of" in yard.refuse("delete", path=path)
    assert "leads out of" in yard.refuse("move", from_=path, to="{root}/deep/b")


def test_a_link_itself_may_go(yard):
    yard.work("move", from_="{root}/link", to="{root}/deep/link")
    assert (yard.root / "deep" / "link").is_symlink()
    yard.work("delete", path="{root}/door")
    yard.work("delete", path="{root}/deep")
    assert sorted(path.name for path in yard.root.iterdir()) == ["ours.csv"]


def test_a_folder_is_copied_with_its_links_as_links(yard):
    for name in ("in", "in/deeper"):
        (yard.root / name).mkdir()
    (yard.root / "in" / "deeper" / "link").symlink_to(yard.other)
    yard.work("copy", from_="{root}/in", to="{root}/out")
    assert os.readlink(str(yard.root / "out" / "deeper" / "link")) == str(yard.other)
    yard.work("copy", from_="{root}/in", to="{root}/out/")       # and merged
    assert "leads out of" in yard.refuse("zip", from_="{root}/in", to="{root}/b.zip")
    assert not (yard.root / "b.zip").exists()


def test_an_archive_is_unpacked_inside_alone(yard):
    with zipfile.ZipFile(str(yard.root / "a.zip"), "w") as archive:
        archive.writestr("door/new", INSIDE)
    for to in ("{outside}", "{outside}/new", "{root}/door", "{root}/door/new", "{root}"):
        assert "leave" if to == "{root}" else "leads out of" in yard.refuse("unzip", from_="{root}/a.zip", to=to)
    yard.work("unzip", from_="{root}/a.zip", to="{root}/deep")
    assert (yard.root / "deep" / "door" / "new").read_text() == INSIDE


def test_what_is_inside_is_done(yard):
    yard.work("mkdir", path="{root}/new/er")
    yard.work("copy", from_="{root}/o*.csv", to="{root}/new/")
    yard.work("zip", from_="{root}/new", to="{root}/new.zip")
    yard.work("load_csv", **dict(CSV, mode="create", file="{root}/new/ours.csv"))
    yard.work("unload_csv", **dict(CSV, query="select * from t", file="{root}/new/out.csv"))
    assert (yard.root / "new" / "out.csv").read_bytes() == b"a\r\nours\r\n"
    yard.work("move", from_="{root}/new/out.csv", to="{root}/new/er")
    yard.work("delete", path="{root}/new/**/*.csv")
    for name in ("again", "other"):
        yard.work("copy", from_="{root}/new", to="{root}/" + name)
    yard.work("move", from_="{root}/again", to="{root}/moved/")
    yard.work("unzip", from_="{root}/new.zip", to="{root}/unpacked/here")
    yard.work("move", from_="{root}/other", to="{root}/unpacked/here/new")     # merged
    yard.work("delete", path="{root}/unpacked")
    assert (yard.root / "moved" / "again" / "er").is_dir() and not (yard.root / "other").exists()
    assert [path.name for path in (yard.root / "new").iterdir()] == ["er"]
    inner = yard.root / "inner"
    inner.symlink_to(yard.root / "new", target_is_directory=True)      # a link that stays inside
    yard.work("copy", from_="{root}/ours.csv", to="{root}/inner/c")
    assert (yard.root / "new" / "c").read_text() == yard.file.read_text()


# -- SQLite ----------------------------------------------------------------------------

@pytest.mark.parametrize("database", ["{outside}/theirs.db", "{outside}/new.db", "{root}/door/theirs.db", "{root}/../new.db",
                                      "file:{outside}/theirs.db", "FILE:///{outside}/theirs.db?mode=ro"])
@pytest.mark.parametrize("kind, fields", [
    ("sql", {"statement": "delete from t"}),
    ("refresh", {"variable": "v", "query": "select a from t"}),
    ("unload_csv", {"query": "select a from t", "file": "{root}/b"}),
    ("load_csv", {"table": "t", "file": "{root}/ours.csv"}),
], ids=lambda value: value if isinstance(value, str) else "")
def test_no_database_outside_is_opened(yard, kind, fields, database):
    reason = yard.refuse(kind, schema="S", database=database, **fields)
    assert "leads out of" in reason or "named by its path" in reason
    assert not (yard.outside / "new.db").exists() and not (yard.root.parent / "new.db").exists()


def test_a_link_to_a_database_outside_is_no_way(yard):
    (yard.root / "x.db").symlink_to(yard.outside / "theirs.db")
    assert "leads out of" in yard.refuse("sql", schema="S", statement="delete from t", database="{root}/x.db")


def test_a_database_inside_is_served(yard):
    (yard.root / "y.db").write_bytes(b"")
    fields = {"schema": "S", "database": "{root}/x.db"}
    yard.work("sql", script="create table t (a); attach database '{root}/y.db' as y; attach ':memory:' as m; "
               "attach '' as tmp; create table y.t as select 1 as a; create virtual table f using fts4(a)", **fields)
    assert yard.work("sql", statement="insert into t values (upper('x'))", **fields)["rows"] == 1
    assert yard.work("refresh", variable="v", query="select a from t", **fields)["values"] == {"v": "X"}
    assert query(yard.root / "y.db", "select * from t") == [(1,)]


@pytest.mark.parametrize("statement, reason", [
    ("attach database '{outside}/theirs.db' as o", "{outside}/theirs.db leads out of"),
    ("attach database '{outside}/new.db' as o", "leads out of"),
    ("attach database '{root}/door/theirs.db' as o", "leads out of"),
    ("attach database 'file:{outside}/theirs.db' as o", "named by its path"),
    ("attach database :v as o", "named by a literal"),
    ("attach database '{outside}' || '/theirs.db' as o", "named by a literal"),
    ("attach (select '{outside}/theirs.db') as o", "named by a literal"),
    ("vacuum into '{outside}/new.db'", ""),
    ("select load_extension('{outside}/theirs.db')", ""),
    ("select hex(fts3_tokenizer('simple'))", ""),
    ("select writefile('{outside}/new.db', 'x')", ""),
    ("pragma temp_store_directory='{outside}'", "temp_store_directory is not there"),
    ("PRAGMA Temp_Store_Directory='{outside}'", "is not there"),
    ("create virtual table c using csv(filename='{outside}/theirs.csv')", "csv is not there"),
])
@pytest.mark.parametrize("is_script", [False, True])
def test_no_sql_reaches_what_is_outside(yard, statement, reason, is_script):
    if "into" in statement and sqlite3.sqlite_version_info < (3, 27):
        pytest.skip("has no VACUUM INTO")
    fields = {"script": "create table n (a); " + statement} if is_script else {"statement": statement}
    with pytest.raises((module.TaskError, sqlite3.DatabaseError)) as caught:
        yard.work("sql", schema="S", database="{root}/x.db", values={"v": str(yard.outside / "theirs.db")}, **fields)
    assert reason.format(outside=yard.outside) in str(caught.value)
    assert yard.look() == yard.before and not (yard.outside / "new.db").exists()


@pytest.mark.parametrize("is_attached", [False, True])
def test_no_journal_that_somebody_has_written_deletes_what_is_outside(yard, is_attached):
    """It may name a file of a transaction over several databases, which SQLite deletes when it rolls that back."""
    made, path = yard.root / "made.db", yard.root / "x.db"
    with contextlib.closing(sqlite3.connect(str(made), isolation_level=None)) as connection:
        connection.execute("create table t (a)")
        connection.execute("insert into t values (hex(zeroblob(100000)))")
        connection.execute("pragma cache_size=2")
        connection.execute("begin immediate")
        connection.execute("update t set a = a || 'y'")
        path.write_bytes(made.read_bytes())
        journal = (yard.root / "made.db-journal").read_bytes()
    for victim, is_refused in ((yard.other, True), (yard.file, False)):
        name = os.fsencode(str(victim))
        end = struct.pack(">II", len(name), sum(name)) + module.JOURNAL_MAGIC
        (yard.root / "x.db-journal").write_bytes(journal + struct.pack(">I", 0x40000000 // 4096 + 1) + name + end)
        fields = {"script": "attach database '%s' as o; delete from o.t" % path, "database": "{root}/y.db"} if is_attached \
            else {"statement": "delete from t", "database": str(path)}
        if is_refused:
            assert "theirs.csv leads out of" in yard.refuse("sql", schema="S", **fields)
        else:
            yard.work("sql", schema="S", **fields)
            assert not yard.file.exists()       # so that is what SQLite does


@pytest.mark.parametrize("suffix", ["-wal", "-journal", "-shm"])
def test_no_link_beside_a_database_is_followed(yard, suffix):
    (yard.root / "y.db").write_bytes(b"")
    (yard.root / ("y.db" + suffix)).symlink_to(yard.other)
    for fields in ({"script": "attach database '{root}/y.db' as y; create table y.t (a)", "database": "{root}/x.db"},
                   {"statement": "create table t (a)", "database": "{root}/y.db"}):
        assert "y.db%s is a symbolic link" % suffix in yard.refuse("sql", schema="S", **fields)


def test_a_query_attaches_nothing_either(yard):
    with pytest.raises((module.TaskError, sqlite3.DatabaseError)):
        yard.work("refresh", schema="S", variable="v", query="attach database '{outside}/theirs.db' as o",
                   database="{root}/x.db")


@pytest.mark.parametrize("driver", ["sqlite3.dbapi2", "_sqlite3"])
def test_sqlite_under_another_name_is_refused(yard, driver):
    reason = yard.refuse("sql", schema="S", statement="delete from t", driver=driver, database="",
                          connect={"database": str(yard.outside / "theirs.db")})
    assert reason == "data server D: with --root the driver of SQLite is sqlite3"


# -- a link that changes between the look and the opening ------------------------------

@pytest.fixture(params=[1, 2, 3, 4, 5, 6])
def swapping(request, yard, monkeypatch):
    """A folder `way` of the Root that becomes a link to the one outside as soon as it was looked at so many times."""
    looks = []
    way = yard.root / "way"
    way.mkdir()
    for name in ("theirs.csv", "theirs.db"):
        (way / name).write_bytes(b"")
    with zipfile.ZipFile(str(yard.root / "inside.zip"), "w") as archive:
        archive.writestr("new/er/", "")
        archive.writestr("theirs.csv", INSIDE)

    def swap(path):
        looks.extend([path] * ("way" in str(path)))
        if len(looks) == request.param and not way.is_symlink():
            way.rename(yard.root / "way-before")
            way.symlink_to(yard.outside, target_is_directory=True)
    for name in ("check", "check_entry"):
        def look(root, path, before=getattr(module.Root, name)):
            before(root, path)
            swap(path)
        monkeypatch.setattr(module.Root, name, look)
    return yard


@pytest.mark.parametrize("kind, fields", [
    ("copy", {"from": "{root}/way/theirs.csv", "to": "{root}/b"}),
    ("load_csv", dict(CSV, mode="create", file="{root}/way/theirs.csv")),
    ("mail", {"to": ["a@b.example"], "subject": "x", "attach": ["{root}/way/theirs.csv"], "server": {"connect": {}}}),
    ("sql", {"schema": "S", "statement": "delete from t", "database": "{root}/way/theirs.db"}),
    ("unload_csv", dict(CSV, database="{root}/way/theirs.db", query="select a from t", file="{root}/b")),
    ("refresh", {"schema": "S", "variable": "v", "query": "select a from t", "database": "{root}/way/theirs.db"}),
    ("copy", {"from": "{root}/ours.csv", "to": "{root}/way/theirs.csv"}),
    ("copy", {"from": "{root}/deep", "to": "{root}/way/new"}),
    ("move", {"from": "{root}/ours.csv", "to": "{root}/way/theirs.csv"}),
    ("move", {"from": "{root}/ours.csv", "to": "{root}/way/new/er/"}),
    ("move", {"from": "{root}/way/theirs.csv", "to": "{root}/b"}),
    ("delete", {"path": "{root}/way/theirs.csv"}),
    ("delete", {"path": "{root}/way/*"}),
    ("mkdir", {"path": "{root}/way/new/er"}),
    ("zip", {"from": "{root}/ours.csv", "to": "{root}/way/theirs.csv"}),
    ("unzip", {"from": "{root}/inside.zip", "to": "{root}/way"}),
    ("unload_csv", dict(CSV, query="select 1 as a", file="{root}/way/theirs.csv")),
])
def test_a_link_put_in_after_the_look_is_seen_by_what_was_opened(swapping, kind, fields):
    """At whichever look: what is outside stays as it is, and comes not in."""
    if kind == "mail":                  # when the file was read, the mail would be sent
        fields = dict(fields, server={"connect": {"host": "127.0.0.1", "port": 1}})
    try:
        swapping.work(kind, **fields)
    except module.TaskError as error:
        assert not (swapping.root / "way").is_symlink() or "leads out of" in str(error) or kind == "mail"
    except sqlite3.OperationalError as error:
        assert "no such table" in str(error)        # of the one inside
    except FileNotFoundError as error:              # a folder that was just made went away with it
        assert "/way/new" in error.filename
