"""Whatever a client sends, by a seeded generator: no INTERNAL, one OK or ERR at the end of every reply, nothing for
whom it is not meant, and nothing that takes long. Each test's name has its seed; FUZZ_SEED and FUZZ_ROUNDS in the
environment make it other seeds, and more of them: FUZZ_SEED=7 FUZZ_ROUNDS=100 python -m pytest ..."""
import copy
import json
import re

import pytest

from conftest import program
from support.fuzz import BOMBS, HOSTILE, JSON_VALUES, SEEDS, Fuzz
from support.outside import query
from support.speaker import AT_WORK, CODES, Speaker

pytestmark = pytest.mark.once

STRANGE = {"AUTH", "BAD_REQUEST", "UNKNOWN_VERB", "TOO_LONG"}


def contents(running):
    """All that the repositories have, but for what the agent writes by itself."""
    return [(table, query(path, "select * from " + table)) for path in (running.work, running.master)
            for table, in query(path, "select name from sqlite_master where type='table'")
            if table not in ("commit_mark", "agent", "audit", "repository")]


@pytest.fixture
def speak(inside):
    """speak(role) -> Speaker"""
    inside.import_document({
        "contexts": ["DEV"], "calendars": [{"name": "CAL", "dates": ["2026-12-25"]}],
        "scenarios": [{"name": "S", "version": "9", "variables": {"v": "1"}, "steps": [
            {"name": "main", "tasks": [{"type": "set", "variable": "v", "value": "2"}]}]}],
        "schedules": [{"name": "T", "scenario": "S", "rule": "daily at 02:00", "exclude_dates": "CAL"}]})
    for _ in range(3):
        inside.ok("EXEC HELLO -SYNC")
    return lambda role: Speaker(inside, role)


@pytest.mark.parametrize("seed", SEEDS)
def test_requests_of_every_form(inside, speak, seed):
    speaker, fuzz = speak(program.ADMINISTRATOR), Fuzz(seed)
    for _ in range(1000):
        speaker.say(fuzz.request(AT_WORK))
    print(speaker.counts, "%.3f s: %r" % speaker.slowest)
    assert {"OK", "BAD_REQUEST", "NOT_FOUND"} <= set(speaker.counts), speaker.counts
    inside.ok("RELEASE")
    inside.import_os("AFTER", "true")
    assert inside.ok("EXEC AFTER -SYNC")["status"] == "DONE"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("role", [None, program.MONITOR])
def test_who_may_not_change_anything_changes_nothing(inside, speak, role, seed):
    before, speaker, fuzz = contents(inside), speak(role), Fuzz(seed)
    for _ in range(500):
        line = fuzz.request()
        code = speaker.say(line)
        verb = "".join(line.decode("utf-8", "replace").upper().split()[:1])
        assert role is not None or code in STRANGE or verb in ("", "HELP", "QUIT") and code in (
            "BLANK", "OK", "NOT_FOUND") or verb == "AUTH" and code == "BUSY", (line, code)
    assert set(speaker.counts) & {"AUTH", "DENIED"}, speaker.counts
    assert contents(inside) == before


@pytest.mark.parametrize("seed", SEEDS)
def test_definitions(inside, speak, seed):
    """With every type of task; nothing of it is begun."""
    inside.ok("HOLD")
    speaker, fuzz = speak(program.ADMINISTRATOR), Fuzz(seed)
    for _ in range(200):
        text = fuzz.document_text()
        options = fuzz.pick([b"", b"-DRY_RUN", b"-REPLACE", b"-REPLACE -JSON"])
        line = b"IMPORT %s %s" % (json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"), options)
        if speaker.say(line) == "OK":
            speaker.say(b"SCHED NEXT -COUNT=30 -ALL -FROM=%s -TO=%s" % (fuzz.time_word(), fuzz.time_word()))
    print(speaker.counts, "%.3f s: %r" % speaker.slowest)
    assert {"OK", "BAD_REQUEST"} <= set(speaker.counts), speaker.counts
    for line in (b"EXPORT", b"SCENARIOS", b"SCHED LIST", b"SCHED NEXT -COUNT=1000 -ALL", b"SCHED PLAN", b"SCHED WHY",
                 b"CONTEXTS", b"CALENDAR LIST", b"METRICS"):
        assert speaker.say(line) == "OK", line


def test_no_field_of_a_definition_takes_a_wrong_value_badly():
    """Each check gives a value back, or says in a ValueError what would be right."""
    tables = list(program.FIELD_TABLES.items()) + [(name, kind.fields) for name, kind in program.TASK_TYPES.items()]
    values = JSON_VALUES + HOSTILE + [[value] for value in JSON_VALUES] + [{"a": value} for value in JSON_VALUES]
    wrong = []
    for table, fields in tables:
        for name, field in fields.items():
            checked = [(field.kind.check, value) for value in values]
            for check, value in checked + [(field.kind.parse, text) for text in HOSTILE]:
                try:
                    check(copy.deepcopy(value))
                except (ValueError, OverflowError):
                    pass
                except Exception as error:
                    wrong.append((table, name, str(value)[:50], repr(error)))
    assert not wrong, wrong[:10]


def test_bombs(speak):
    speaker = speak(program.ADMINISTRATOR)
    for bomb in BOMBS:
        for text in (bomb, '{"scenarios": %s}' % bomb, '{"contexts": [%s]}' % bomb):
            line = "IMPORT " + json.dumps(text, ensure_ascii=False)
            assert speaker.say(line.encode()) in ("BAD_REQUEST", "OK"), text[:100]
        assert speaker.say(b"EXEC HELLO who=" + bomb.encode()) in ("BAD_REQUEST", "OK"), bomb[:100]


@pytest.mark.parametrize("seed", SEEDS)
def test_over_a_socket(shared, seed):
    """Lines of lengths about the limits, and of the generator: each has its reply, or the connection its end."""
    fuzz, limit = Fuzz(seed), program.MAX_LINE
    lines = [b"HELP " + b"x" * (limit + more - 5) for more in (-2, -1, 0, 1, 2)]
    lines += [b"IMPORT '" + b" " * (program.MAX_IMPORT_LINE + more - 9) + b"'" for more in (-1, 0, 1)]
    lines += [fuzz.request([form for form in AT_WORK if form.name != "IMPORT"]) for _ in range(150)]
    for number, line in enumerate(lines):
        answers, is_open = ask_and_look(shared, line, b"BARRIER%d" % number)
        assert len(answers) == 1 or not line.strip(b" \t\r") and answers == [], (line[:300], answers)
        assert set(answers) <= CODES | {"OK"}, (line[:300], answers)
        assert is_open or answers[0] == "TOO_LONG" or b"HTTP/" in line or line.startswith(b"QUIT"), (
            line[:300], answers)
    assert shared.ok("PING")["status"] == "READY"


def ask_and_look(running, line, barrier):
    """Sends one line on a connection of its own -> (the codes of what answers it, whether the next one is answered)."""
    answers = []
    with running.connect() as client:
        client.send("PING")
        client.send_raw(line + b"\nHELP " + barrier + b"\n")
        client.reply()
        while True:
            text = client.line()
            if not text or barrier.decode() in text:
                return answers, bool(text)
            assert re.match(r"\*( |$)|OK( |$)|ERR [A-Z_]+ ", text), (line[:300], text)
            if not text.startswith("*"):
                answers.append(text.split()[1] if text.startswith("ERR") else "OK")
