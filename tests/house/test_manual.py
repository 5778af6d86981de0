"""The manual: it is current, whole, plain text, and has all that the program's tables have."""
import ast
import re
import subprocess
import sys

import pytest

import agent as program
from conftest import AGENT, LIMIT_S, TOP

pytestmark = pytest.mark.once

TEXT = program.make_manual()
BY_NAME = {form.name: form for form in program.VERB_FORMS}
TABLES = dict(program.FIELD_TABLES, **{"type " + name: kind.fields
                                       for name, kind in program.TASK_TYPES.items()})
# numbers that are nobody's business but the agent's own
INNER = {"MIN_LINE", "DRAIN_S", "FLOOD_S", "ATTACH_S", "GLANCE_S", "TRY_S"}


def manual(*topic):
    """python agent.py --manual TOPIC."""
    return subprocess.run([sys.executable, str(AGENT), "--manual"] + list(topic),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=LIMIT_S)


def one_line(text):
    """A text on one line."""
    return " ".join(text.split())


def test_the_file_is_current():
    path = TOP / "tools" / "MANUAL.md"
    assert path.read_text(encoding="utf-8") == TEXT, \
        "mend it: python agent.py --manual > tools/MANUAL.md"


def test_it_is_plain_text_without_open_places():
    assert not re.search("[^\n -~]", TEXT)
    assert "<<" not in TEXT and TEXT.endswith("\n")
    assert [line for line in TEXT.split("\n") if len(line) > program.WIDTH] == []
    assert not re.search(" $|\n\n\n", TEXT, re.M)


def test_the_command_prints_it_all_or_a_topic():
    done = manual()
    assert (done.returncode, done.stdout, done.stderr) == (0, TEXT, "")
    done = manual("exec")
    assert (done.returncode, done.stdout) == (0, program.make_manual("EXEC"))
    assert manual("sched", "why").stdout == program.make_manual("SCHED WHY")


def test_who_has_read_enough_is_told_nothing():
    command = '"%s" "%s" --manual | head -n 1' % (sys.executable, AGENT)
    done = subprocess.run(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, timeout=LIMIT_S,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert (done.stdout, done.stderr) == ("# agent.py: the manual\n", "")


def test_an_unknown_topic_is_one_line_that_lists_them():
    done = manual("nothing", "here")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "nothing here" in done.stderr
    for name, _ in program.list_topics():
        assert name in done.stderr


def test_each_topic_is_the_part_below_its_heading():
    topics = [name for name, _ in program.list_topics()]
    assert topics == ["start", "example", "sessions", "definitions", "plans", "tasks", "engines", "schedules",
                      "protocol", "verbs", "users", "connections", "page", "client", "crontab", "options",
                      "operating", "backup", "host", "notices", "audit", "limits", "guarantees",
                      "troubleshooting", "changes"]
    for name, about in program.list_topics():
        assert program.make_manual(name).startswith("## %s: %s\n" % (name, about))
        assert "- `%s`: %s" % (name, about) in TEXT
    headings = re.findall("^### (.*)$", TEXT, re.M)
    assert len({heading.lower() for heading in headings}) == len(headings)
    for heading in headings:
        for topic in {heading, heading.upper()}:
            assert program.make_manual(topic).startswith("### %s\n" % heading)
    parts = "".join(program.make_manual(name).rstrip() + "\n\n" for name in topics)
    assert parts.rstrip() in TEXT
    sched = re.findall("^### (.*)$", program.make_manual("sched"), re.M)
    assert sched == [name for name in BY_NAME if name.startswith("SCHED ")]


@pytest.mark.parametrize("name", TABLES)
def test_every_field_is_told_with_its_kind_and_meaning(name):
    text = one_line(program.make_manual(name[5:]) if name.startswith("type ") else TEXT)
    for field, kind in TABLES[name].items():
        assert kind.meaning and kind.kind.accepts, field
        match = re.search(r"- `%s` \(%s[;)][^:]*: %s\." % (
            field, re.escape(kind.kind.accepts), re.escape(kind.meaning)), text)
        assert match, field
        assert ("; required" in match.group().partition("): ")[0]) == kind.required


VALUES_OF_OPTIONS = {"--allow-types": "sql,copy", "--unix-mode": "0660"}
BESIDE_OPTIONS = {"--create": ["--master", "/tmp/m.db"], "--root": ["--allow-types", "sql"],
                  "--tls-key": ["--tls-cert", "/tmp/c.pem"], "--tls-client-ca": ["--tls-cert", "/tmp/c.pem"]}


def test_every_option_of_the_command_line_is_told_and_taken():
    text = one_line(program.make_manual("options"))
    for option in program.COMMAND_OPTIONS:
        assert "`%s`" % option.words in text and option.help_text in text
        if option.name not in ("--help", "--version"):
            value = VALUES_OF_OPTIONS.get(option.name) or (option.choices or ["1024"])[-1]
            words = [option.name] + ([value] if option.shown else [])
            words += BESIDE_OPTIONS.get(option.name, [])
            settings = vars(program.parse_arguments(words))
            attribute = option.attribute or option.name[2:].replace("-", "_")
            before = vars(program.parse_arguments([]))[attribute]
            assert settings[attribute] != before or attribute == "is_creating"


@pytest.mark.parametrize("name", BY_NAME)
def test_every_verb_is_told_as_help_tells_it(name):
    form, text = BY_NAME[name], one_line(program.make_manual(name))
    line = next(line for line in program._HELP.values() if line.startswith(form.text + ": "))
    assert "### %s %s %s." % (name, form.text, form.help[0].upper() + form.help[1:]) in text
    assert line == "%s: %s" % (form.text, form.help)
    for part in program.list_parts(form):
        shown = part.name + ("=" + part.shown if part.shown else "")
        if not part.is_field:
            assert "- `%s`" % shown in text and ": %s." % part.meaning in text
        else:
            field = program.schedule_field(part.name)
            assert "- `%s`" % field in program.make_manual("fields of a schedule")
    for reply in [line for line in form.lines + form.oks if line.keys]:
        assert reply.form in text
        for key in reply.keys:
            assert re.search(r"- `%s`[^:]*: %s\." % (key.name, re.escape(key.meaning)), text)


def test_no_word_of_a_form_is_explained_in_vain():
    parts = {form.name: {part.name for part in program.list_parts(form)}
             for form in BY_NAME.values()}
    for name, form in BY_NAME.items():
        assert set(form.meanings) <= parts[name], name
    used = {word for name, words in parts.items() for word in words - set(BY_NAME[name].meanings)}
    assert set(program.WORD_MEANINGS) <= used


def test_every_limit_is_told():
    path = TOP / "tools" / "src" / "base" / "vocabulary.py"
    names = {target.id for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)
             for target in ast.walk(node) if isinstance(target, ast.Name)}
    limits = {name for name in names if re.search("^M(AX|IN)_|_S$|_PER_|^KEEP", name)} - INNER
    told = {limit.name: limit for limit in program.LIMITS}
    assert limits <= set(told), limits - set(told)
    for name, limit in told.items():
        assert limit.value == getattr(program, name)
    text = program.make_manual("limits")
    assert "- 64 KiB: of a request (`--max-line`)" in text and "- 1 day: " in text
    assert "- 100,000: outstanding" in text and "- 0.2 s: " in text


def test_every_state_and_code_is_told():
    states = one_line(program.make_manual("states"))
    for state, before in program.TRANSITIONS.items():
        told = re.search("- `%s`: (.*?)(?= - `|$)" % state, states).group(1)
        assert {name for name in before if "`%s`" % name in told.partition("It comes")[2]} \
            == set(before)
    codes = program.make_manual("codes")
    for kind in program.AgentError.__subclasses__() + program.RepositoryError.__subclasses__():
        if kind is not program.CannotStart:
            assert "- `%s`: " % kind.code in codes


def test_the_first_examples_of_schedules_work_on_every_python(inside):
    """Without a zone by name, which Python 3.6 to 3.8 do not know."""
    text = program.make_manual("schedules")
    line, document = re.search(r"\n    (SCHED ADD .*)\n    (\{(?:.*\n)+?)\n", text).groups()
    assert "TZ=Europe/Zurich python agent.py" in one_line(text)
    name = inside.ok(line)["schedule"]
    assert inside.rows("SCHED NEXT %s -COUNT=1" % name)[0]["due"][11:16] == "02:30"
    inside.ok("SCHED DEL " + name)
    inside.ok("IMPORT '%s'" % one_line(document))
    assert [row["name"] for row in inside.rows("SCHED LIST")] == [name]
    if sys.version_info < (3, 9):
        assert "TZ=Europe/Zurich python agent.py" in inside.ask("SCHED SET %s -TIMEZONE=Asia/Tokyo" % name)[-1]
