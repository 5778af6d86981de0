"""The forms of requests: data that agent and client share, and the functions bound to them."""
import pytest

import agent as program

BY_NAME = {form.name: form for form in program.VERB_FORMS}


def test_a_form_is_read_into_its_parts():
    form = program.Form(
        "X", "SESSION [REASON] [VARIABLE=value ...] [-ALL] [-LIMIT=n] [-SYNC[=s]] [-UNTIL=a,b..c]",
        None, "what it does", kinds={"-UNTIL": "label"}, meanings={
            "REASON": "why", "-ALL": "all", "-SYNC": "wait", "-UNTIL": "its end"})
    assert form.usage == "SESSION [REASON] [VARIABLE=value ...]" and form.text == "X " + form.words
    assert [tuple(part) for part in program.list_parts(form)] == [
        ("SESSION", "session", "", True, False, "number of the session"),
        ("REASON", "label", "", False, False, "why"), ("-ALL", None, "", False, False, "all"),
        ("-LIMIT", "limit", "n", False, False, "how many lines at most (50)"),
        ("-SYNC", "seconds", "s", False, True, "wait"),
        ("-UNTIL", "label", "a,b..c", False, False, "its end")]
    assert program.Form("X", "", None, "").text == "X"


def test_every_form_has_one_name_kinds_that_there_are_and_a_reply():
    assert len(BY_NAME) == len(program.VERB_FORMS) == len(program.VERBS)
    for form in program.VERB_FORMS:
        parts = program.list_parts(form)
        assert len({part.name for part in parts}) == len(parts)
        assert set(form.kinds) <= {part.name for part in parts}
        for part in parts:
            assert part.kind is None or program.find_kind(part.kind)
        assert ("-JSON" in form.words) == (form.reply in (program.AS_ROWS, program.AS_RECORD))
        assert "[" not in form.words.replace(form.usage, "", 1).replace("[-", "").replace("[=", "")


def test_every_kind_is_used():
    used = {part.kind for form in program.VERB_FORMS for part in program.list_parts(form)}
    assert set(program.KINDS) <= used
    assert set(program.KIND_WORDS.values()) <= used


def test_every_field_of_a_schedule_has_its_option():
    words = {part.name.strip("-") for part in program.list_parts(BY_NAME["SCHED SET"])}
    for name in program.SCHEDULE_FIELDS:
        assert name.replace("session_name", "name").upper() in words | {"VARIABLES"}
    fields = {program.schedule_field(option) for option in program.SCHEDULE_OPTIONS}
    assert fields == set(program.SCHEDULE_FIELDS) - {"name", "scenario", "version", "context",
                                                     "rule", "variables"}


def test_a_verb_has_one_function(monkeypatch):
    with pytest.raises(LookupError, match="PING has two functions"):
        program.verb("PING")(lambda agent, request: None)
    with pytest.raises(LookupError, match="NOTHING"):
        program.verb("NOTHING")(lambda agent, request: None)
    monkeypatch.setitem(program.VERBS, "PING", program.VERBS["PING"]._replace(run=None))
    with pytest.raises(LookupError, match="PING has no function"):
        program.list_help()
