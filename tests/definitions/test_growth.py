"""Parsers of what a user may write: of four times the input they make at most some four times the work."""
import json
import random

import pytest

import agent
from conftest import turns_of


def collect(document):
    """The message of the fault of a document as text or a value, or None; as IMPORT finds it."""
    text = document if isinstance(document, str) else json.dumps(document)
    definitions = agent.Definitions()
    try:
        definitions.collect(text)
    except agent.AgentError as error:
        return error.message
    return definitions.faults[0][1] if definitions.faults else None


def task(**fields):
    """A document with one task."""
    return {"scenarios": [{"name": "A", "version": "1", "steps": [{"name": "s", "tasks": [fields]}]}]}


def sql_document(text):
    return task(type="sql", schema="DWH", script=text)


def schedule_document(**fields):
    return {"schedules": [dict({"name": "A", "scenario": "B"}, **fields)]}


def names(count, form="k%d"):
    return [form % index for index in range(count)]


def split(text):
    return len(list(agent.split_script(text, True)))


def twice(count):
    """The text of an object with one of its many fields twice."""
    return "{%s}" % ",".join('"%s":1' % name for name in names(count) + ["k%d" % (count - 1)])


GROWING = {
    "comments without an end": (collect, lambda n: sql_document("/* " * n)),
    "tags without an end": (collect, lambda n: sql_document(" ".join(names(n, "$t%d$")))),
    "one tag again and again": (collect, lambda n: sql_document("$t$x " * n)),
    "quotes": (collect, lambda n: sql_document("'\"`" * n)),
    "variables": (collect, lambda n: sql_document(":v " * n)),
    "references": (collect, lambda n: task(type="os", command="${" + "a" * n + "${" * n)),
    "a field twice": (collect, twice),
    "numbers": (collect, lambda n: '{"scenarios": %s}' % ("1" * 20 * n)),
    "columns and their types": (collect, lambda n: task(type="load_csv", file="f", schema="S", table="t",
                                                        columns=names(n), types=dict.fromkeys(names(n), "text"))),
    "conditions": (collect, lambda n: schedule_document(after=",".join(names(n)))),
    "dates": (collect, lambda n: schedule_document(rule="daily at 02:00", exclude_dates=",".join(["2026-01-01"] * n))),
    "a list of cron": (collect, lambda n: schedule_document(rule="cron 0 0 * * " + ",".join(["1#2"] * n))),
    "statements": (split, lambda n: "select 1;" * n),
    "statements of a trigger": (split, lambda n: "create trigger t after insert on x begin " + "select 1;" * n),
    "names in brackets": (split, lambda n: "[" * n + ";" * n),
    "statements in a comment": (split, lambda n: "/* ;" * n),
    "bare words": (agent.split_words, lambda n: "a " * n),
    "quoted words": (agent.split_words, lambda n: "'a' \"b\\n\" " * n),
    "one quoted word": (agent.split_words, lambda n: '"%s"' % ("a\\n" * n)),
    "secrets in a text": (lambda pair: agent.mask_all(*pair), lambda n: (" a word, and more" * n, names(n, "%08d"))),
    "secrets that are there": (lambda pair: agent.mask_all(*pair), lambda n: ("\n".join(names(n, "k%04d")), names(n, "k%04d"))),
    "a line": (agent.one_line, lambda n: "\n" * n),
}


@pytest.mark.parametrize("parse, make", list(GROWING.values()), ids=list(GROWING))
def test_four_times_the_input_is_four_times_the_work(parse, make):
    little, much, ratios = make(4000), make(16000), []
    for _ in range(10):             # the machine may be slow just now
        ratios.append(turns_of(lambda: parse(much))[1] / (turns_of(lambda: parse(little))[1] + 5000))
        if ratios[-1] < 8:
            return
    pytest.fail("%s times the work" % ratios)


def test_what_is_wrong_is_told_as_before():
    assert collect(twice(10)).endswith("field k9 stands twice")
    assert collect('{"scenarios": %s}' % ("1" * 1001)).endswith("a number has over 1000 digits")
    assert collect('{"scenarios": %s}' % ("1" * 1000)) == "must be a list"
    assert collect(schedule_document(after="A,B,A")) == "A stands twice"


# -- SQL -------------------------------------------------------------------------------

@pytest.mark.parametrize("text, names", [
    (":a /* :b */ -- :c\n':d' \":e\" `:f` x::g $t$ :h $t$ :i", ["a", "i"]), ("'it''s :a' :b", ["b"]),
    ("$a$ :b $c$ :d $a$ :e", ["e"]), ("$a$ :b", ["b"]), ("v$x$y :a", ["a"]), ("$$ :a $$ $$ :b", ["b"]),
    ("a[:b]", ["b"]), (":a /* :b", ["a"]), ("/*/ :a */ :b", ["b"])])
def test_variables_of_sql(text, names):
    assert agent.DatabaseTask.names_in(text) == names


@pytest.mark.parametrize("text, statements, elsewhere", [
    ("select 1; select 2", 2, 2), ("select 1;; -- x\n;", 1, 1), ("/* ; */ select 1", 1, 1), ("select 1 /* ;", 1, 1),
    ("select [a;b]; select 2", 2, 2), ("select '; '; select \"a;\"", 2, 2),
    ("create temp trigger t begin select 1; end; select 2", 2, 3),
    ("Explain Query Plan CREATE /* a */ TRIGGER t begin select case when 1 then 2 end; end ; select 2", 2, 3),
    ("create trigger t begin select 1; end /* ; */; select 2", 2, 3), ("create trigger t begin select 1;", 1, 1),
    ("create table trigger_x (a); select 1", 2, 2), ("create table t (a); end;", 2, 2)])
def test_statements_of_a_script(text, statements, elsewhere):
    assert len(list(agent.split_script(text, True))) == statements
    assert len(list(agent.split_script(text, False))) == elsewhere


def test_a_script_is_its_statements():
    """Whatever stands there: nothing is lost, and nothing comes twice."""
    def solid(text):
        return "".join(agent.bare_sql(text).replace(";", "").split())
    pieces, chooser = ["'", "''", "a", ";", "--x\n", "/*;*/", "$t$", ":v ", "[a;b]", "end;", "create trigger x ",
                       "\n", '"q;"'], random.Random(1)
    for _ in range(300):
        text = "".join(chooser.choice(pieces) for _ in range(12))
        assert solid(text) == solid("".join(agent.split_script(text, True))), text


# -- masks -----------------------------------------------------------------------------

@pytest.mark.parametrize("kind", [str, lambda text: text.encode()])
def test_many_secrets_are_masked_as_few(kind):
    chooser = random.Random(1)
    hidden = sorted({"%04d<%s>" % (number, "x" * (number % 9)) for number in range(2000)}, key=len, reverse=True)
    few = hidden[:200]
    for _ in range(20):
        words = [chooser.choice(hidden + ["a", "1<", ""]) for _ in range(400)]
        text = kind(" ".join(words + ["much more"] * 100))
        shown = kind(" ".join(["***" if word in hidden else word for word in words] + ["much more"] * 100))
        assert agent.mask_all(text, [kind(value) for value in hidden]) == shown
        assert kind("***") in agent.mask_all(text, [kind(value) for value in few])
