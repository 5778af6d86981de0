"""tools/build.py: what it joins, what it refuses with file and line, and what --check and --where tell."""
import importlib.util
import os
import subprocess
import sys

import pytest

from conftest import TOP

PATH = str(TOP / "tools" / "build.py")


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALL = {
    "agent.txt": "agent.py: small.\n\nSections:\n\n{sections}\n\nThreads:\n\n{threads}\n",
    "base/words.py": '"""Words."""\nimport re\nfrom typing import Optional\n\nPLAIN = re.compile("x")\n\n\n'
                     'def word(text: Optional[str]):\n    """One."""\n    return PLAIN.sub("y", text)\n',
    "base/errors.py": '"""Errors.\n\nThread none N: does nothing; ends at once.\n"""\n\n\nclass Bad(Exception):\n'
                      '    """Bad."""\n',
    "store/files.py": '"""Files."""\nimport os\nfrom typing import (Any,\n                    List)\n\n'
                      'from ..base.errors import Bad\nfrom ..base.words import word\n\n'
                      'KINDS = (Any, List)\n\n\ndef find(path):\n    """A path."""\n    import zipfile\n'
                      '    if zipfile.is_zipfile(path):\n        raise Bad\n    return os.path.abspath(word(path))\n',
    "main.py": '"""The command line."""\nimport sys\n\nfrom .store.files import find\n\n\ndef main():\n    """Runs."""\n'
               '    print(find("x"))\n\n\nif __name__ == "__main__":\n    sys.exit(main())\n',
    "client/main.py": '"""The client."""\nfrom ..base.words import word\n\nif __name__ == "__main__":\n'
                      '    print(word("x"))\n',
    "client/agentcli.txt": "agentcli.py: small.\n",
}


@pytest.fixture
def house(tmp_path, build):
    """house({file: text}, ...) makes a small house, with these files instead of, or beside, those of SMALL."""
    class Small:
        top = str(tmp_path)

        def put(self, files):
            for name, text in files.items():
                path = tmp_path / "tools" / "src" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode() if isinstance(text, str) else text)

        def run(self, *arguments):
            return build.main(arguments, self.top)

        def refuse(self, files):
            self.put(files)
            with pytest.raises(build.BuildError) as caught:
                for product in build.PRODUCTS.values():
                    build.House(self.top).join(product)
            return str(caught.value)

        def built(self, name="agent.py"):
            return (tmp_path / name).read_text()
    small = Small()
    small.put(SMALL)
    return small


def test_what_is_built(house, tmp_path):
    assert house.run() == 0
    head, _, code = house.built().partition('"""\nimport ')
    assert head.startswith('#!/usr/bin/env python3\nr"""agent.py: small.\n')
    assert "\n    base/errors   Errors.\n    base/words    Words.\n    store/files   Files.\n" in head
    assert "\n    none N   does nothing; ends at once.\n" in head
    assert code.startswith("os\nimport re\nimport sys\nfrom typing import Any, List, Optional\n\n\n# =====")
    places = [code.index("\n# %s.py\n" % name) for name in ("base/errors", "base/words", "store/files", "main")]
    assert places == sorted(places) and "from ." not in code
    assert "\n# Files.\n# ====" in code and "\n\nKINDS = (Any, List)\n\n\ndef find(path):\n" in code
    assert code.endswith('\n\nif __name__ == "__main__":\n    sys.exit(main())\n')
    assert "base/errors" not in house.built("tools/agentcli.py") and "# base/words.py" in house.built("tools/agentcli.py")
    done = subprocess.run([str(tmp_path / "agent.py")], stdout=subprocess.PIPE, cwd=str(tmp_path))
    assert done.stdout.decode().strip() == os.path.join(os.path.realpath(str(tmp_path)), "y")


def test_imports_decide_the_order_before_the_alphabet(house):
    house.put({"base/errors.py": '"""Errors."""\nfrom .words import word\n\nBAD = word("")\n',
               "store/files.py": '"""Files."""\n\n\ndef find(path):\n    """A path."""\n    return path\n'})
    assert house.run() == 0
    assert house.built().index("# base/words.py") < house.built().index("# base/errors.py")


def test_check_tells_what_mends_it(house, tmp_path, capfd):
    def check():
        return house.run("--check"), capfd.readouterr().err
    status, told = check()
    assert status == 1 and "agent.py is not there; mend it: python tools/build.py\n" in told
    assert house.run() == 0 and check() == (0, "")
    os.chmod(str(tmp_path / "agent.py"), 0o644)
    assert "agent.py is not executable" in check()[1]
    assert house.run() == 0 and os.access(str(tmp_path / "agent.py"), os.X_OK)
    text = house.built()
    (tmp_path / "agent.py").write_text(text.replace("import os\n", "import os # x\n"))
    line = text[:text.index("import os\n")].count("\n") + 1
    assert "agent.py is not what tools/src says, from line %d on" % line in check()[1]
    (tmp_path / "agent.py").write_text(text + "more\n")
    assert check()[0] == 1
    assert house.run() == 0 and house.built() == text and check() == (0, "")


def test_where(house, capfd, build):
    assert house.run() == 0
    lines = house.built().split("\n")
    number = lines.index("    return os.path.abspath(word(path))") + 1
    source = SMALL["store/files.py"].split("\n").index("    return os.path.abspath(word(path))") + 1
    assert house.run("--where", str(number)) == 0
    assert house.run("--where", "agent", str(lines.index("# Words.") + 1)) == 0
    assert house.run("--where", "agentcli", "2") == 0
    assert capfd.readouterr().out == "tools/src/store/files.py:%d\ntools/src/base/words.py:1\nmade by build.py\n" % source
    assert house.run("--where", "100000") == 1 and "no line 100000" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        house.run("--where", "x")


def test_a_file_is_embedded(house, build):
    page = 'a "b" \\d\n<p>é</p>\n'
    house.put({"page/page.py": '"""The page."""\n\nPAGE = ""  # embedded: page.html\n', "page/page.html": page})
    assert house.run() == 0
    names = {}
    exec(compile(house.built().replace("sys.exit(main())", "pass"), "agent.py", "exec"), names)
    assert names["PAGE"] == page
    line = house.built().split("\n").index("<p>é</p>") + 1
    assert build.find_source(build.House(house.top), "agent", line) == "tools/src/page/page.html:2"


@pytest.mark.parametrize("text", ['a """ b\n', "a\r\n", "a\0\n", "ends in a \\", 'ends in a "'])
def test_what_cannot_be_quoted(house, text):
    told = house.refuse({"page/page.py": '"""The page."""\n\nPAGE = ""  # embedded: page.html\n', "page/page.html": text})
    assert told.startswith("tools/src/page/page.py:3: page/page.html cannot be quoted: ")


def test_a_file_to_embed_that_is_not_there(house):
    told = house.refuse({"page/page.py": '"""The page."""\n\nPAGE = ""  # embedded: page.html\n'})
    assert told == "tools/src/page/page.py:3: page/page.html: No such file or directory"


DOC = '"""Something."""\n'


@pytest.mark.parametrize("file, text, line, told", [
    ("base/words.py", DOC + "from ..store.files import find\n\nword = find\n", 2,
     "base/words.py does not use store/files.py"),
    ("timetable/a.py", DOC + "from ..store.files import find\n\nA = find\n", 2, "timetable/a.py does not use store/files.py"),
    ("store/z.py", DOC + "from ..base.words import nothing\n\nA = nothing\n", 2, "there is no nothing in base/words.py"),
    ("store/z.py", DOC + "from ..base.nothing import word\n\nA = word\n", 2, "there is no base/nothing.py"),
    ("store/z.py", DOC + "from ..base import words\n\nA = words\n", 2, "there is no base.py"),
    ("store/z.py", DOC + "from . import files\n\nA = files\n", 2, "there is no store/.py"),
    ("store/z.py", DOC + "import os\nimport re\n\nA = re\n", 2, "os is imported and not used"),
    ("store/z.py", DOC + "from ..base.words import word\n\nA = 1\n", 2, "word is imported and not used"),
    ("store/z.py", DOC + "import os as o\n\nA = o\n", 2, "no `as` and no `*` in imports"),
    ("store/z.py", DOC + "from os import path as p\n\nA = p\n", 2, "no `as` and no `*` in imports"),
    ("store/z.py", DOC + "from os import *\n\nA = 1\n", 2, "no `as` and no `*` in imports"),
    ("store/z.py", DOC + "A = 1\nimport os\nB = os\n", 3, "imports stand at the top"),
    ("store/z.py", DOC + "\n\ndef a():\n    from os import path\n    return path\n", 5,
     "a function imports with `import x` alone"),
    ("store/z.py", DOC + "\n\ndef a():\n    import os as o\n    return o\n", 5,
     "a function imports with `import x` alone"),
    ("store/z.py", DOC + "\n\ndef a():\n    return find\n", 5, "find is neither defined nor imported"),
    ("store/z.py", DOC + "\n\ndef find():\n    pass\n", 4, "find is taken: "),
    ("store/z.py", DOC + "_A = 1\nos = 2\n", 3, "os is taken: "),
    ("store/z.py", DOC + "\nfilter = None\n", 3, "filter hides a built-in name"),
    ("store/z.py", DOC + "\n\ndef where():\n    return __file__\n", 5, "only program_path() reads __file__"),
    ("store/z.py", DOC + "A = __name__\n", 2, "only a main module reads __name__, at its end"),
    ("main.py", DOC + "import sys\n\n\ndef main():\n    return __name__, sys\n", 6,
     "only a main module reads __name__, at its end"),
    ("store/z.py", DOC + "A = 1\nif A:\n    B = 2\n", 3, "only definitions and plain assignments stand in a module"),
    ("store/z.py", DOC + "A = '\t'\n", 2, "has a tab, a CR or over 100 columns"),
    ("store/z.py", DOC + "A = 1\r\n", 2, "has a tab, a CR or over 100 columns"),
    ("store/z.py", DOC + "A = '%s'\n" % ("x" * 95), 2, "has a tab, a CR or over 100 columns"),
    ("store/z.py", "A = 1\n", 1, "begins with no sentence as its docstring"),
    ("store/z.py", '"""no sentence"""\nA = 1\n', 1, "begins with no sentence as its docstring"),
    ("store/z.py", DOC + "A = (\n", 2, None),
    ("attic/b.py", DOC + "A = 1\n", 1, "stands on no floor of the house"),
    ("b.py", DOC + "A = 1\n", 1, "stands on no floor of the house"),
])
def test_what_is_refused(house, file, text, line, told):
    faults = house.refuse({file: text}).split("\n")
    if told is None:
        assert faults[0].startswith("tools/src/%s:" % file)
    else:
        assert any(fault.startswith("tools/src/%s:%d: %s" % (file, line, told)) for fault in faults), faults


def test_imports_that_go_round(house):
    told = house.refuse({"store/a.py": DOC + "from .b import B\n\nA = B\n", "store/b.py": DOC + "from .a import A\n\nB = A\n"})
    assert told == "tools/src/store/b.py:2: imports go round: store/a.py leads back here"


def test_the_same_private_name_in_two_modules(house):
    told = house.refuse({"store/a.py": DOC + "_A = 1\n", "store/b.py": DOC + "_A = 2\n"})
    assert told == "tools/src/store/b.py:2: _A is taken: store/a.py"


def test_comprehensions_at_the_top_make_no_names(house):
    house.put({"store/b.py": DOC + "A = {name: 1 for name in 'ab'}\n", "store/d.py": DOC + "name = 1\n"})
    assert house.run() == 0


def test_all_faults_are_told_at_once(house, capfd):
    house.put({"store/a.py": DOC + "import os\n\nfilter = 1\n"})
    assert house.run() == 1
    assert capfd.readouterr().err.splitlines() == ["tools/src/store/a.py:2: os is imported and not used",
                                                   "tools/src/store/a.py:4: filter hides a built-in name"]


def test_the_products_of_this_tree_are_current():
    done = subprocess.run([sys.executable, PATH, "--check"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (0, b"")
