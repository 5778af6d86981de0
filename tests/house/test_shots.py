"""The pictures of README: small, harmless, and still what the page and `top` look like."""
import collections
import importlib.util
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from conftest import TOP
from support.browser import find_browser

pytestmark = pytest.mark.once

FOLDER = TOP / "sqlite_repos" / "examples"
PICTURES = {"page.svg": ["The operator page", "Running", "Comes next"], "top.svg": ["agentcli.py top", "RUNNING", "q quit"]}


def load_shots():
    spec = importlib.util.spec_from_file_location("shots", str(TOP / "tools" / "shots.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words_in(path):
    """How often each word stands in a picture; of times and numbers only that there are some."""
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    text = " ".join(each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text"))
    return collections.Counter(re.sub("[0-9][0-9.]*", "0", text).split())


def check_picture(path):
    data = path.read_bytes()
    assert len(data) < 60 * 1024
    for each in ElementTree.fromstring(data.decode("utf-8")).iter():
        assert each.tag.rpartition("}")[2] in ("svg", "title", "style", "rect", "circle", "text"), each.tag
        assert not any(re.match("on|href|src|.*href$", name) for name in each.attrib), each.attrib
    assert b"url(" not in data and b"@import" not in data
    text = data.decode("utf-8")
    assert [word for word in PICTURES[path.name] if word not in text] == []


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_the_pictures_are_small_and_load_nothing(name):
    check_picture(FOLDER / name)


@pytest.mark.skipif(find_browser() is None, reason="needs a Chromium on this host")
def test_the_pictures_are_still_true(tmp_path):
    """Another font may cut a text elsewhere: so a few words may differ. Else: python tools/shots.py."""
    subprocess.run([sys.executable, str(TOP / "tools" / "shots.py"), "--folder", str(tmp_path)], check=True, timeout=50)
    for name in PICTURES:
        check_picture(tmp_path / name)
        there, now = words_in(FOLDER / name), words_in(tmp_path / name)
        differing = (there - now) + (now - there)
        assert sum(differing.values()) <= 12, (name, differing)


def test_what_is_drawn_is_escaped():
    shots = load_shots()
    layout = {"texts": [[1, 2, 3, "<b>&", "400", "15px", False, "rgb(1, 2, 3)"]], "paper": "rgb(255, 255, 255)",
              "shapes": [[kind, 1, 2, 3, 4, 0, "rgb(1, 2, 3)", "none"] for kind in ("rect", "dot", "ring", "diamond")]}
    root = ElementTree.fromstring(shots.draw_page(layout, 100, 100, "A page"))
    assert [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")] == ["<b>&"]
    picture = shots.ColouredPicture(2, 20)
    picture.take("a \x1b[31mred<\x1b[0m b\x1b[7m\n\rc ")
    assert list(picture.list_runs()) == [(0, 0, "a ", ()), (0, 2, "red<", ("31",)), (0, 6, " b" + " " * 12, ()),
                                         (1, 0, "c ", ("7",))]
    ElementTree.fromstring(shots.draw_terminal(picture.list_runs(), 2, 20, "A screen"))
