"""tools/build.py: what it joins, what it refuses with file and line, and what it tells."""
import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest

from conftest import TOP

pytestmark = pytest.mark.once

PATH = str(TOP / "tools" / "build.py")

# a small house: === FILE before each file's text
SMALL = textwrap.dedent('''\
    === agent.txt
    agent.py: small.

    Sections:

    {sections}

    Threads:

    {threads}
    === base/words.py
    """Words."""
    import re
    from typing import Optional

    PLAIN = re.compile("x")


    def word(text: Optional[str]):
        """One."""
        return PLAIN.sub("y", text)
    === base/errors.py
    """Errors.

    Thread none N: does nothing; ends at once.
    """


    class Bad(Exception):
        """Bad."""
    === store/files.py
    """Files."""
    import os
    from typing import (Any,
                        List)

    from ..base.errors import Bad
    from ..base.words import word

    KINDS = (Any, List)


    def find(path):
        """A path."""
        import zipfile
        if zipfile.is_zipfile(path):
            raise Bad
        return os.path.abspath(word(path))
    === main.py
    """The command line."""
    import sys

    from .store.files import find


    def main():
        """Runs."""
        print(find("x"))


    if __name__ == "__main__":
        sys.exit(main())
    === client/main.py
    """The client."""
    from ..base.words import word

    if __name__ == "__main__":
        print(word("x"))
    === client/agentcli.txt
    agentcli.py: small.
    ''')
FILES = {part.partition("\n")[0]: part.partition("\n")[2]
         for part in SMALL.split("=== ") if part}
DOC = '"""Something."""\n'
FUNCTION = DOC + "\n\ndef a():\n"           # its first statement stands in line 5
WRONG_TEXT = "has a tab, a CR, a space at its end or over 100 columns"
PAGE = '"""The page."""\n\nPAGE = ""  # embedded: page.html\n'


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class House:
    """A small house in a folder of its own."""

    def __init__(self, build, top):
        self._build, self.top = build, top
        self.put(FILES)

    def put(self, files):
        """Writes {file: text} into it."""
        for name, text in files.items():
            path = self.top / "tools" / "src" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())

    def run(self, *arguments):
        """The command -> its exit status."""
        return self._build.main(arguments, str(self.top))

    def refuse(self, files):
        """The faults that these files bring about."""
        self.put(files)
        with pytest.raises(self._build.BuildError) as caught:
            house = self._build.House(str(self.top))
            for product in self._build.PRODUCTS.values():
                house.join(product)
        return str(caught.value).split("\n")

    def built(self, name="agent.py"):
        """The text of a product."""
        return (self.top / name).read_bytes().decode()


@pytest.fixture
def house(tmp_path, build):
    return House(build, tmp_path)


# ---- what is built ----------------------------------------------------------------------------

def test_the_docstring(house):
    assert house.run() == 0
    head = house.built().partition('"""\nimport ')[0]
    assert head.startswith('#!/usr/bin/env python3\nr"""agent.py: small.\n')
    assert ("\n    base/errors   Errors.\n    base/words    Words.\n    store/files   Files.\n"
            "    main          The command line.\n") in head
    assert "\n    none N   does nothing; ends at once.\n" in head


def test_the_code(house, tmp_path):
    assert house.run() == 0
    first, code = house.built().partition('"""\nimport ')[2].split("    del sys.path[0]\n")
    assert first.startswith("sys\n# The folder of this file is searched first.")
    assert code.startswith("import os\nimport re\nimport sys\nfrom typing import Any, List, Optional\n\n")
    places = [code.index("\n# %s.py\n" % name)
              for name in ("base/errors", "base/words", "store/files", "main")]
    assert places == sorted(places) and "from ." not in code
    assert "\n# Files.\n# ====" in code and "\n\nKINDS = (Any, List)\n\n\ndef find(" in code
    assert code.endswith('\n\nif __name__ == "__main__":\n    sys.exit(main())\n')
    done = subprocess.run([str(tmp_path / "agent.py")], stdout=subprocess.PIPE, cwd=str(tmp_path))
    assert os.path.basename(done.stdout.decode().strip()) == "y"


def test_the_client_has_what_it_imports(house):
    assert house.run() == 0
    client = house.built("tools/agentcli.py")
    assert "# base/words.py" in client and "base/errors" not in client


def test_imports_decide_the_order_before_the_alphabet(house):
    house.put({"base/errors.py": DOC + "from .words import word\n\nBAD = word('')\n",
               "store/files.py": DOC + "\n\ndef find(path):\n    return path\n"})
    assert house.run() == 0
    assert house.built().index("# base/words.py") < house.built().index("# base/errors.py")


def test_a_file_is_embedded(house, build):
    text = 'a "b" \\d\n<p>\u00e9</p>\n'
    house.put({"page/page.py": PAGE, "page/page.html": text})
    assert house.run() == 0
    names = {}
    exec(house.built().replace("sys.exit(main())", "pass"), names)
    assert names["PAGE"] == text
    line = house.built().split("\n").index("<p>\u00e9</p>") + 1
    found = build.find_source(build.House(str(house.top)), "agent", line)
    assert found == "tools/src/page/page.html:2"


# ---- what is told -----------------------------------------------------------------------------

def test_check_tells_what_mends_it(house, tmp_path, capfd):
    def check():
        return house.run("--check"), capfd.readouterr().err
    status, told = check()
    assert status == 1
    assert "agent.py is not there; mend it: python tools/build.py\n" in told
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


def test_where(house, capfd):
    assert house.run() == 0
    wanted = "    return os.path.abspath(word(path))"
    built = house.built().split("\n")
    source = FILES["store/files.py"].split("\n").index(wanted) + 1
    assert house.run("--where", str(built.index(wanted) + 1)) == 0
    assert house.run("--where", "agent", str(built.index("# Words.") + 1)) == 0
    assert house.run("--where", "agentcli", "2") == 0
    assert capfd.readouterr().out.splitlines() == [
        "tools/src/store/files.py:%d" % source, "tools/src/base/words.py:1", "made by build.py"]
    assert house.run("--where", "100000") == 1
    assert "no line 100000" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        house.run("--where", "x")


def test_all_faults_are_told_at_once(house, capfd):
    house.put({"store/a.py": DOC + "import os\n\nfilter = 1\n"})
    assert house.run() == 1
    assert capfd.readouterr().err.splitlines() == [
        "tools/src/store/a.py:2: os is imported and not used",
        "tools/src/store/a.py:4: filter hides a built-in name"]


def test_the_products_of_this_tree_are_current():
    done = subprocess.run([sys.executable, PATH, "--check"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (0, b"")


# ---- what is refused --------------------------------------------------------------------------

@pytest.mark.parametrize("text", ['a """ b\n', "a\r\n", "a\0\n", "ends in \\", 'ends in "'])
def test_what_cannot_be_quoted(house, text):
    told = house.refuse({"page/page.py": PAGE, "page/page.html": text})
    assert told[0].startswith("tools/src/page/page.py:3: page/page.html cannot be quoted: ")


def test_a_file_to_embed_that_is_not_there(house):
    assert house.refuse({"page/page.py": PAGE}) == [
        "tools/src/page/page.py:3: page/page.html: No such file or directory"]


@pytest.mark.parametrize("file, text, line, told", [
    ("base/words.py", DOC + "from ..store.files import find\n\nword = find\n", 2,
     "base/words.py does not use store/files.py"),
    ("timetable/a.py", DOC + "from ..store.files import find\n\nA = find\n", 2,
     "timetable/a.py does not use store/files.py"),
    ("client/a.py", DOC + "from ..store.files import find\n\nA = find\n", 2,
     "client/a.py does not use store/files.py"),
    ("store/z.py", DOC + "from ..base.words import nothing\n\nA = nothing\n", 2,
     "there is no nothing in base/words.py"),
    ("store/z.py", DOC + "from ..base.nothing import word\n\nA = word\n", 2,
     "there is no base/nothing.py"),
    ("store/z.py", DOC + "from ..base import words\n\nA = words\n", 2, "there is no base.py"),
    ("store/z.py", DOC + "from . import files\n\nA = files\n", 2, "there is no store/.py"),
    ("store/z.py", DOC + "import os\nimport re\n\nA = re\n", 2, "os is imported and not used"),
    ("store/z.py", DOC + "from ..base.words import word\n\nA = 1\n", 2,
     "word is imported and not used"),
    ("store/z.py", DOC + "import os as o\n\nA = o\n", 2, "no `as` and no `*` in imports"),
    ("store/z.py", DOC + "from os import path as p\n\nA = p\n", 2,
     "no `as` and no `*` in imports"),
    ("store/z.py", DOC + "from os import *\n\nA = 1\n", 2, "no `as` and no `*` in imports"),
    ("store/z.py", DOC + "A = 1\nimport os\nB = os\n", 3, "imports stand at the top"),
    ("store/z.py", FUNCTION + "    from os import path\n    return path\n", 5,
     "a function imports with `import x` alone"),
    ("store/z.py", FUNCTION + "    import os as o\n    return o\n", 5,
     "a function imports with `import x` alone"),
    ("store/z.py", FUNCTION + "    return find\n", 5, "find is neither defined nor imported"),
    ("store/z.py", DOC + "\n\ndef find():\n    pass\n", 4, "find is taken: store/files.py"),
    ("store/z.py", DOC + "_A = 1\nos = 2\n", 3, "os is taken: import"),
    ("store/z.py", DOC + "\nfilter = None\n", 3, "filter hides a built-in name"),
    ("store/z.py", FUNCTION + "    return __file__\n", 5, "only program_path() reads __file__"),
    ("store/z.py", DOC + "A = __name__\n", 2, "only a main module reads __name__, at its end"),
    ("main.py", FUNCTION + "    return __name__\n", 5,
     "only a main module reads __name__, at its end"),
    ("store/z.py", DOC + "A = 1\nif A:\n    B = 2\n", 3,
     "only definitions and plain assignments stand in a module"),
    ("store/z.py", DOC + "A = '\t'\n", 2, WRONG_TEXT),
    ("store/z.py", DOC + "A = 1\r\n", 2, WRONG_TEXT),
    ("store/z.py", DOC + "A = 1 \n", 2, WRONG_TEXT),
    ("store/z.py", DOC + "A = '%s'\n" % ("x" * 95), 2, WRONG_TEXT),
    ("store/z.py", "A = 1\n", 1, "begins with no sentence as its docstring"),
    ("store/z.py", '"""no sentence"""\nA = 1\n', 1, "begins with no sentence as its docstring"),
    ("attic/b.py", DOC + "A = 1\n", 1, "stands on no floor of the house"),
    ("b.py", DOC + "A = 1\n", 1, "stands on no floor of the house"),
])
def test_what_is_refused(house, file, text, line, told):
    assert "tools/src/%s:%d: %s" % (file, line, told) in house.refuse({file: text})


def test_what_is_no_python(house):
    told, = house.refuse({"store/z.py": DOC + "A = (\n"})
    assert told.startswith("tools/src/store/z.py:")


def test_imports_that_go_round(house):
    told = house.refuse({"store/a.py": DOC + "from .b import B\n\nA = B\n",
                         "store/b.py": DOC + "from .a import A\n\nB = A\n"})
    assert told == ["tools/src/store/b.py:2: imports go round: store/a.py leads back here"]


def test_the_same_private_name_in_two_modules(house):
    told = house.refuse({"store/a.py": DOC + "_A = 1\n", "store/b.py": DOC + "_A = 2\n"})
    assert told == ["tools/src/store/b.py:2: _A is taken: store/a.py"]


def test_comprehensions_at_the_top_make_no_names(house):
    house.put({"store/a.py": DOC + "A = {name: 1 for name in 'ab'}\n",
               "store/b.py": DOC + "name = 1\n"})
    assert house.run() == 0
