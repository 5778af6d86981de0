"""Names that are not ASCII, for an agent that was started without a locale: what it does, it does as with one."""
import os
import sys
import zipfile

import pytest

from support.tasks import Run, add, run

NAME = "M\u00fcller \u20ac"
NO_LOCALE = [{"LC_ALL": "", "LC_CTYPE": "", "LANG": ""}, {"LC_ALL": "C", "LC_CTYPE": "", "LANG": ""},
             {"LC_ALL": "POSIX", "LC_CTYPE": "", "LANG": "de_DE"}]


@pytest.fixture(scope="module", params=NO_LOCALE, ids=["none", "C", "POSIX"])
def without_locale(request, make):
    """A running agent in a folder that has such a name, too; begun as a user begins it, not by a trick of tests."""
    made = make("%s-%d" % (NAME, NO_LOCALE.index(request.param)), plain=True, env=request.param)
    made.import_document({
        "data_servers": [{"name": "FILE", "driver": "sqlite3", "database": str(made.folder / (NAME + ".db"))}],
        "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "FILE"}}]})
    return made


def test_file_tasks(without_locale, tmp_path):
    folder = tmp_path / NAME
    done = run(without_locale, {"type": "mkdir", "path": str(folder / "in")},
               {"type": "python", "code": "import os; open(os.environ['VAR_path'], 'w').write('a,b\\n1,2\\n')"},
               {"type": "wait_file", "path": "${path}", "stable_s": 0}, {"type": "wait_file", "path": "${path}*", "stable_s": 0},
               {"type": "copy", "from": "${path}", "to": str(folder / "copy.csv")},
               {"type": "copy", "from": str(folder / "in" / (NAME[:3] + "*.csv")), "to": str(folder / "out") + "/"},
               {"type": "move", "from": str(folder / "copy.csv"), "to": str(folder / (NAME + "2"))},
               {"type": "zip", "from": str(folder), "to": "${path}.zip"},
               {"type": "unzip", "from": "${path}.zip", "to": str(folder / "un")},
               {"type": "load_csv", "file": "${path}", "schema": "DWH", "table": NAME, "mode": "create"},
               {"type": "unload_csv", "query": 'select * from "%s"' % NAME, "schema": "DWH", "file": "${path}.out"},
               {"type": "refresh", "schema": "DWH", "variable": "count", "query": 'select count(*) from "%s"' % NAME},
               {"type": "delete", "path": str(folder / (NAME + "?"))},
               variables={"path": str(folder / "in" / (NAME + ".csv")), "count": ""})
    assert done.status == "DONE", (done.message, done.texts)
    assert done.values["count"] == "1"
    name = NAME + ".csv"
    assert sorted(os.listdir(str(folder / "in"))) == [name, name + ".out", name + ".zip"]
    assert os.listdir(str(folder / "out")) == [name] and sorted(os.listdir(str(folder))) == ["in", "out", "un"]
    with zipfile.ZipFile(str(folder / "in" / (name + ".zip"))) as archive:
        assert sorted(archive.namelist()) == sorted("%s/%s" % (NAME, path) for path in (
            "", "in/", "in/" + name, "out/", "out/" + name, NAME + "2"))
    assert (folder / "un" / NAME / "in" / name).read_text() == "a,b\n1,2\n"
    assert [path.name for path in without_locale.folder.glob("*.db") if NAME in path.name] == [NAME + ".db"]


def test_messages_and_log_lines(without_locale, tmp_path):
    done = run(without_locale, {"type": "copy", "from": str(tmp_path / NAME), "to": str(tmp_path / "out")})
    assert done.status == "ERROR" and NAME in done.message
    done = run(without_locale, {"type": "mkdir", "path": str(tmp_path / NAME)},
               {"type": "os", "command": ["mkfifo", str(tmp_path / NAME / "pipe")]},
               {"type": "os", "command": ["touch", str(tmp_path / NAME / "a")]},
               {"type": "zip", "from": str(tmp_path / NAME), "to": str(tmp_path / "z.zip")})
    assert done.status == "DONE" and done.texts == ["left out: %s/pipe is a named pipe" % (tmp_path / NAME)], done.texts


def test_arguments_environment_and_output_of_processes(without_locale, tmp_path):
    (tmp_path / "code.py").write_bytes(b"import os, sys\nprint(ascii(os.fsencode(sys.argv[1])), ascii(os.environb[b'VAR_v']))")
    (tmp_path / NAME).mkdir()
    told = repr(NAME.encode())
    for on_stale in ("error", "adopt"):
        done = run(without_locale, {"type": "os", "command": ["printf", "%s %s\\n", NAME, "${v}"], "cwd": str(tmp_path)},
                   {"type": "os", "command": "cat; echo \"${v}\"", "stdin": NAME},
                   {"type": "python", "file": str(tmp_path / "code.py"), "args": [NAME]},
                   {"type": "python", "code": "import os; print(os.listdir('.'))", "cwd": str(tmp_path / NAME),
                    "env": {"X": NAME}}, on_stale=on_stale, variables={"v": NAME})
        assert done.status == "DONE", (done.message, done.texts)
        assert done.texts == ["%s %s" % (NAME, NAME), NAME + NAME, "%s %s" % (told, told), "[]"]


def test_the_locale_of_tasks_is_that_of_the_agent(without_locale):
    done = run(without_locale, {"type": "os", "command": "echo \"${LC_ALL-} ${LANG-} ${AGENT_LC_ALL-}\""},
               {"type": "python", "code": "import os; print(os.environ.get('LC_ALL', ''), os.environ.get('LANG', ''), "
                                          "os.environ.get('AGENT_LC_ALL', ''))"})
    expected = "%s %s " % (without_locale.env["LC_ALL"], without_locale.env["LANG"])
    assert done.texts[0] == expected
    # before 3.7 a Python without a locale knows names of files by another alone
    assert done.texts[1] == expected or sys.version_info < (3, 7) and done.texts[1].endswith(" ")


def test_definitions_by_import_and_secrets_by_file(without_locale, tmp_path):
    (tmp_path / NAME).write_text("open-sesame\n")
    name = add(without_locale, {"type": "os", "command": "[ \"$VAR_pw\" = open-sesame ]"},
               variables={"pw": {"secret": True, "file": str(tmp_path / NAME)}})
    end = without_locale.ok("EXEC %s -SYNC" % name)
    assert end["status"] == "DONE", Run(without_locale, end["session"]).message


def test_python_tasks(without_locale, tmp_path):
    code = "import sys; open(sys.argv[1], 'w').close(); print(sys.argv[1])"
    (tmp_path / "code.py").write_text(code)
    done = run(without_locale, {"type": "python", "code": code, "args": [str(tmp_path / ("a" + NAME))]},
               {"type": "python", "file": str(tmp_path / "code.py"), "args": [str(tmp_path / ("b" + NAME))]})
    assert done.status == "DONE", done.message
    assert [(tmp_path / (letter + NAME)).exists() for letter in "ab"] == [True, True]
    assert done.texts == [str(tmp_path / (letter + NAME)) for letter in "ab"]
