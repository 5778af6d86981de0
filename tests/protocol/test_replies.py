"""The lines of replies: what the forms say of them is what a real agent sends."""
import json
import time

import pytest

import agent as program
from conftest import fields_of, wait_for
from support.audit import Notes

BY_NAME = {form.name: form for form in program.VERB_FORMS}
LINES = {line for form in BY_NAME.values() for line in form.oks + form.lines}

DOCUMENT = {
    "contexts": ["PROD"],
    "notices": [{"name": "OPS", "send": {"type": "os", "command": "cat"}}],
    "data_servers": [{"name": "S", "driver": "sqlite3", "database": "/tmp/s.db"}],
    "logical_schemas": [{"name": "L", "contexts": {"GLOBAL": "S", "PROD": "S.P"}}],
    "scenarios": [
        {"name": "W", "version": "1", "steps": [
            {"name": "one", "on_ok": "END", "tasks": [{"type": "sleep", "seconds": 0}]},
            {"name": "lost", "tasks": [{"type": "sleep", "seconds": 0}]}]},
        {"name": "A", "version": "1", "variables": {"v": "1", "s": {"secret": True}},
         "steps": [{"name": "one", "tasks": [{"type": "set", "variable": "v", "value": "2"}]}]},
        {"name": "PL", "version": "1", "plan": {"run": "W"}},
        {"name": "B", "version": "1", "variables": {"v": "x"},
         "steps": [{"name": "one", "tasks": [{"type": "os", "command": "echo hello; exit 1"}]}]}]}

# requests in order; each leaves what the next ones need. {day}: tomorrow
REQUESTS = """
PING
IMPORT '{document}'
EXEC A s=secret
EXEC A s=secret -KEY=k
EXEC A s=secret -KEY=k
EXEC B -NAME="a name" -KEYWORDS=x,y -SYNC
STATUS {bad}
STATUS {good}
EXEC PL -SYNC
STATUS {plan}
LOG {bad}
WAIT {bad}
RESTART {bad}
WAIT {bad}
SESSIONS
EXEC B -AT={day}
STOP {waiting}
CLEAN
SCENARIOS
REPOS
CONTEXTS
SCHED ADD S B -1 GLOBAL "daily at 02:00" v=1 -NAME=n -HOURS=01:00-03:00
SCHED ADD T B -1 GLOBAL "startup" -AFTER=S
SCHED ADD U B -1 GLOBAL -AFTER=scenario:A
EXEC A s=secret
SCHED WHY U
SCHED SET S -TIMEZONE=UTC
HOLD "a reason" -SCHEDULE=S -UNTIL={day}
SCHED LIST
SCHED SHOW S
SCHED SHOW T
SCHED NEXT -COUNT=3
SCHED WHY
SCHED PLAN -ALL
RELEASE -SCHEDULE=S
HOLD "a reason" -UNTIL={day}
PING
RELEASE
SCHED OFF S
SCHED ON S
SCHED UPDATE
IMPORT '{"schedules": [{"name": "S", "scenario": "B", "rule": "every 1h"}]}' -DRY_RUN
SCHED SET S -RULE='cron */90 * * * *'
CALENDAR ADD C 2026-12-25
CALENDAR SET C 2026-12-26
CALENDAR LIST
CALENDAR DEL C
ATTACH TWO two.db -CREATE
SCHED NEXT -COUNT=3
SCHED WHY
SCHED PLAN -ALL
DETACH TWO
SCHED DEL U
SCHED DEL T
SCHED DEL S
EXPORT A
DROP A 1
PURGE -DAYS=0
AUDIT
PURGE -AUDIT -DAYS=0
METRICS
BACKUP kept
HOLD -REPO=WORKREP
RELEASE -REPO=WORKREP
HELP
USERS ADD alice -ROLE=administrator -SCENARIOS=
USERS ADD bob -ROLE=monitor
NOTICE LIST
NOTICE TEST OPS
NOTICE DEL OPS
USERS LIST
USERS SET alice -RESET
USERS PASSWORD alice 'correct horse'
USERS DEL bob
AUTH alice 'correct horse'
SHUTDOWN -MAX_WAIT=1
"""


def keys_of(line):
    """The keys of a line of fields, in their order."""
    return list(fields_of(line))


def is_of(line, keys):
    """Whether a ReplyLine can have these keys."""
    rest = list(keys)
    for key in line.keys:
        if rest and rest[0] == key.name:
            del rest[0]
        elif not key.is_optional:
            return False
    return not rest


def form_of(request):
    words = request.split()
    return BY_NAME.get(" ".join(words[:2])) or BY_NAME[words[0]]


def test_every_line_is_of_its_form(agent):
    day = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() + 86400))
    places, seen = {"document": json.dumps(DOCUMENT), "day": day}, set()
    for request in REQUESTS.strip().split("\n"):
        for name, value in places.items():
            request = request.replace("{%s}" % name, str(value))
        if request == "SCHED WHY U":
            wait_for(lambda: len(agent.ask(request)) > 1, "the occurrence")
        *data, last = agent.ask(request)
        assert last.startswith("OK"), (request, last)
        form = form_of(request)
        rows = data if form.reply in (program.AS_FIELDS, program.AS_ROWS, program.AS_RECORD) else []
        for text, lines in [(text, form.lines) for text in rows] + [(last, form.oks)]:
            fitting = [line for line in lines if is_of(line, keys_of(text))]
            assert fitting, (request, text)
            seen.update(line.keys for line in fitting)
        number = fields_of(last).get("session")
        if request.startswith("EXEC A"):
            places["good"] = number
            wait_for(lambda: agent.status(number)["ended"], "the end")
        elif request.startswith("EXEC PL"):
            places["plan"] = number
        elif request.startswith("EXEC B"):
            places["bad" if "SYNC" in request else "waiting"] = number
    assert {form_of(request).name for request in REQUESTS.strip().split("\n")} | {"QUIT"} \
        == set(BY_NAME)
    unseen = {line.about for line in LINES if line.keys not in seen}
    assert unseen <= {program.DELAYED_LINE.about}, unseen


def test_every_key_says_what_it_is():
    for line in LINES:
        names = [key.name for key in line.keys]
        assert len(set(names)) == len(names) and (line.about or not names)
        for key in line.keys:
            assert key.meaning and key.kind in (
                program.TEXT_KEY, program.NUMBER_KEY, program.SECONDS_KEY, program.TIME_KEY,
                program.SECOND_KEY, program.FLAG_KEY)


def test_what_the_client_takes_for_numbers_follows_from_the_forms():
    assert {"session", "duration", "uptime", "slots", "never"} <= program.NUMBER_FIELDS
    assert program.FLAG_FIELDS == {"hold", "duplicate", "enabled", "dry_run"}
    kinds = {}
    for form in BY_NAME.values():
        for line in form.oks:
            for key in line.keys:
                kinds.setdefault(key.name, set()).add(key.kind)
    assert {name for name, kind in kinds.items() if len(kind) > 1} == set()
    assert not program.NUMBER_FIELDS & {"status", "message", "from", "agent"}


def test_a_line_is_filled_in_its_order():
    line = program.ReplyLine("x", (
        program.number_key("a", "a"), program.text_key("b", "b", True),
        program.ReplyKey("c", program.FLAG_KEY, "c"), program.time_key("d", "d"),
        program.ReplyKey("e", program.SECOND_KEY, "e")))
    assert line.form == "a= [b=] c= d= e="
    instant = program.from_text("2026-11-28T10:00:00.250Z")
    row = {"e": instant, "d": "2026-11-28T10:00:00.250Z", "c": 1, "other": 2}
    assert program.fill(line, row, a=3) == [
        ("a", 3), ("c", True), ("d", program.local_iso(instant, "milliseconds")),
        ("e", program.local_iso(instant))]
    assert program.fill(line, dict(a=1, b=2, c=None, d=instant, e=None)) == [
        ("a", 1), ("b", 2), ("c", None), ("d", program.local_iso(instant, "milliseconds")),
        ("e", None)]
    with pytest.raises(KeyError, match="'d'"):
        program.fill(line, {"a": 1, "c": True, "e": None})


def test_a_request_has_what_its_form_has_and_nothing_else():
    request = program.check_request(program.VERBS["STOP"], program.split_words("1001"))
    assert request["SESSION"] == 1001 and request["-IMMEDIATE"] is None
    assert "-IMMEDIATE" not in request and request.get("-IMMEDIATE", 7) == 7
    assert not request.is_json
    for ask in (request.__getitem__, request.get, request.__contains__):
        with pytest.raises(KeyError, match="STOP has no -NOW"):
            ask("-NOW")
    listing = program.check_request(program.VERBS["REPOS"], program.split_words("-json"))
    assert listing.is_json


def test_only_an_exec_is_pipelined():
    """EXECs of one connection share commits; every other verb sees what those before it did."""
    assert [form.name for form in BY_NAME.values() if form.is_pipelined] == ["EXEC"]
    made = []
    row = program.VERBS["PING"]._replace(is_pipelined=True, run=lambda *_: made.append(1))
    program.VERBS["PING"], before = row, program.VERBS["PING"]
    try:
        conversation = program.Conversation(Notes(), program.Client(program.ADMINISTRATOR, "test"))
        reply = conversation.begin(b"PING")
        reply.start()
        assert made == [1] and list(reply.chunks()) == ["OK"]
    finally:
        program.VERBS["PING"] = before
