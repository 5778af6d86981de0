"""agent.py --help: options in groups, none lost; a wrong option is told in two lines."""
import re

import pytest

import agent as program

pytestmark = pytest.mark.once


def test_each_option_stands_in_one_group(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        program.main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0 and text.startswith("usage: agent.py [OPTION ...]\n")
    names = [option.name for option in program.COMMAND_OPTIONS]
    assert sorted(re.findall(r"^  (?:-h, )?(--[a-z-]+)", text, re.M)) == sorted(names)
    grouped = ["--" + name for _, group in program.OPTION_GROUPS for name in group.split()]
    assert sorted(grouped) == sorted(names) and "\noptions:" not in text
    assert all("\n%s:\n" % title in text for title, _ in program.OPTION_GROUPS)
    for topic in re.findall("--manual ([a-z]+)", text):
        assert program.make_manual(topic)


def test_a_wrong_option(capsys):
    with pytest.raises(SystemExit):
        program.main(["--nope"])
    assert capsys.readouterr().err == "usage: agent.py [OPTION ...]\nagent.py: error: unrecognized arguments: --nope\n"
