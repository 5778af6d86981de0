"""Words of a request and of a reply: the grammar of section 4 of the contract, times and durations."""
import json
import random
import time

import pytest

import agent
import conftest


def words(line):
    """A line -> [(kind, name, value)]."""
    return [tuple(word) for word in agent.split_words(line)]


def argument(text):
    return "argument", "", text


def fault(function, *arguments):
    """The message of the BAD_REQUEST that a call raises."""
    with pytest.raises(agent.BadRequest) as caught:
        function(*arguments)
    return caught.value.message


def request(line):
    """A line -> the Request that its verb gets."""
    row, rest = agent.find_verb(agent.split_words(line))
    return agent.check_request(row, rest)


@pytest.fixture
def zone(monkeypatch):
    """Sets the agent's local zone."""
    def change(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()
    yield change
    monkeypatch.undo()
    time.tzset()


# -- words -----------------------------------------------------------------------------

@pytest.mark.parametrize("line, expected", [
    ("", []), (" \t ", []),
    ("a", ["a"]), ("  a \t b\t", ["a", "b"]),
    ("a\\b C:\\new\\table", ["a\\b", "C:\\new\\table"]),           # a backslash is literal too
    ("a\u00a0b a\u2003b \u3000", ["a\u00a0b", "a\u2003b", "\u3000"]),  # words are split at spaces and tabs alone
    ("a\vb\fc", ["a\vb\fc"]),
    ('"a b"', ["a b"]), ("'a b'", ["a b"]), (r'"a\tb"', ["a\tb"]),
    ("'a\tb'", ["a\tb"]), ('""', [""]), ("''", [""]), ("'' \"\" x", ["", "", "x"]),
    (r'"\n\"\\\/\u00e9\ud83d\ude00"', ['\n"\\/\u00e9\U0001f600']),
    (r"'\n\"'", [r'\n\"']),
    ('"it\'s"', ["it's"]), ("'say \"hi\"'", ['say "hi"']),
    ("a\"b\"'c'd", ["abcd"]), ("'a''b'", ["ab"]), ('"a""b"', ["ab"]), ("a' 'b", ["a b"]),
    ("'-x'", ["-x"]), ('"-x=1"', ["-x=1"]), ("''-x", ["-x"]), ("'a=b'", ["a=b"]), ("\"a\"=b", ["a=b"]),
    ("a'b'=c", ["ab=c"]),                                       # the bare beginning `a` has no `=`
    ("-1 -1.5 - -- --x -= -_a -\u00e9", ["-1", "-1.5", "-", "--", "--x", "-=", "-_a", "-\u00e9"]),
    ("=x 1a=b a-b=c a.b=c \u00e4=1 ==", ["=x", "1a=b", "a-b=c", "a.b=c", "\u00e4=1", "=="]),
    ("{} {a} a{ [1]", ["{}", "{a}", "a{", "[1]"]),
    ("'{\"a\": 1}'", ['{"a": 1}']), ('"{"', ["{"]), ("}'a'", ["}a"]),
    ("\u65e5\u672c \U0001f600", ["\u65e5\u672c", "\U0001f600"]),
])
def test_arguments(line, expected):
    assert words(line) == [argument(text) for text in expected]


@pytest.mark.parametrize("line, expected", [
    ("-x", ("option", "-x", None)), ("-X1_y", ("option", "-X1_y", None)),
    ("-x=", ("option", "-x", "")), ("-x=1=2", ("option", "-x", "1=2")), ("-x='a b'", ("option", "-x", "a b")),
    ('-x="a\\nb"', ("option", "-x", "a\nb")), ("-x=a' 'b", ("option", "-x", "a b")), ("-x=-y", ("option", "-x", "-y")),
    ("-x=a\\b", ("option", "-x", "a\\b")),
    ("a=", ("variable", "a", "")), ("_=1", ("variable", "_", "1")), ("A1=b=c", ("variable", "A1", "b=c")),
    ("a='b c'", ("variable", "a", "b c")), ('a="\\u00e9"', ("variable", "a", "\u00e9")), ("a=-1", ("variable", "a", "-1")),
    ("a=''", ("variable", "a", "")), ("a={", ("variable", "a", "{")), ("a='{'", ("variable", "a", "{")),
    ("a=$HOME;`x`|&", ("variable", "a", "$HOME;`x`|&")),
])
def test_options_and_variables(line, expected):
    assert words(line) == [expected]
    assert words("V %s w" % line) == [argument("V"), expected, argument("w")]


@pytest.mark.parametrize("line, named, reason", [
    ('a "b', "2", "no end"), ("a 'b c", "2", "no end"), ('a x"', '"x..."', "no end"), ('"\\"', "1", "no end"),
    (r'"\x"', "1", "not a JSON string"), (r'"\u12"', "1", "not a JSON string"),
    ('"a\tb"', "1", "not a JSON string"), ('"a\x01b"', "1", "not a JSON string"),
    (r'a "\u0000"', "2", "U+0000"), (r'v="x\u0000"', '"v=..."', "U+0000"),
    (r'"\ud800"', "1", "lone surrogates"), (r'"\udc00\ud800"', "1", "lone surrogates"),
    (r'-x="\udfff"', '"-x=..."', "lone surrogates"),
    ('x {"a":1}', '"{..."', "quote the document as one word"), ("v={'a'}", '"v=..."', "quote the document"),
    ("'a'{", "1", "quote the document"),
])
def test_faults_name_the_word(line, named, reason):
    assert fault(words, line).startswith("word %s: " % named) and reason in fault(words, line)


def test_long_word_is_cut_in_the_message():
    assert len(fault(words, "'" + "x" * 100000)) < 200


def test_what_json_writes_is_read_back():
    dice = random.Random(4)
    letters = "".join(map(chr, range(1, 0x180))) + "\u2028\u3000\ufeff\U0001f600{}'\"\\=- "
    for _ in range(500):
        texts = ["".join(dice.choice(letters) for _ in range(dice.randrange(12))) for _ in range(3)]
        quoted = [json.dumps(text, ensure_ascii=dice.choice((True, False))) for text in texts]
        if any("\x7f" < c < "\xa0" for c in "".join(texts)):
            quoted = [json.dumps(text) for text in texts]
        line = "%s v=%s -o=%s" % tuple(quoted)
        assert words(line) == [argument(texts[0]), ("variable", "v", texts[1]), ("option", "-o", texts[2])], line


def test_any_line_gives_words_or_bad_request():
    dice = random.Random(5)
    letters = "\"'\\ \t=-{}ab1\u00e9\U0001f600" + "\x01\r$"
    for _ in range(5000):
        line = "".join(dice.choice(letters) for _ in range(dice.randrange(14)))
        try:
            for word in words(line):
                assert word[0] in ("argument", "option", "variable")
        except agent.BadRequest:
            pass


def test_hostile_quoting_takes_no_time():
    def split(line):
        try:
            agent.split_words(line)
        except agent.BadRequest:
            pass
    for piece in ('"', "'", "\\", '"\\', "a'", '"a"', "'' ", "{"):
        line = piece * (65536 // len(piece))
        for each in (line, line + '"', line + "'"):
            _, turns = conftest.turns_of(lambda: split(each))
            assert turns < 65536 ** 2 / 100         # less than to look at a hundredth of the others for each


# -- requests --------------------------------------------------------------------------

def test_options_and_variables_stand_anywhere():
    expected = request("EXEC HELLO 001 GLOBAL who=me -PRIORITY=2 -NAME='a b'")
    assert expected == {"SCENARIO": "HELLO", "VERSION": "001", "CONTEXT": "GLOBAL", "-PRIORITY": 2, "-NAME": "a b"}
    assert expected.variables == {"who": "me"}
    for line in ("exec -name='a b' who=me HELLO -Priority=2 001 GLOBAL",
                 "Exec who=me HELLO 001 -PRIORITY=+2 GLOBAL -NAME=a' 'b",
                 "'EXEC' HELLO \"001\" 'GLOBAL' who='me' -PRIORITY='2' -NAME=\"a b\""):
        assert (request(line), request(line).variables) == (expected, expected.variables)


def test_verbs_and_option_names_have_no_case_and_variables_have():
    assert agent.find_verb(agent.split_words("pInG"))[0].name == "PING"
    assert agent.find_verb(agent.split_words("sched nExt"))[0].name == "SCHED NEXT"
    assert request("EXEC HELLO who=1 Who=2 WHO=3").variables == {"who": "1", "Who": "2", "WHO": "3"}


def test_other_letters_are_no_capitals_of_ascii():
    for line in ("p\u0131ng", "\u017fessions", "p\uff49ng"):        # dotless i, long s, fullwidth i
        with pytest.raises(agent.UnknownVerb):
            request(line)
    assert words("-\u017fync") == [argument("-\u017fync")]
    assert "no such option" in fault(request, "SESSIONS -L\u0131MIT=1")


@pytest.mark.parametrize("line, named", [
    ("PING x", '"x"'), ("EXEC", "SCENARIO"), ("EXEC A 1 C d", '"d"'), ("STOP", "SESSION"), ("STOP 1 2", '"2"'),
    ("EXEC A -NOPE", '"-NOPE"'), ("EXEC A -NOPE=1", '"-NOPE=..."'), ("PING -JSON=yes", '"-JSON=yes"'),
    ("EXEC A -SYNC -SYNC=1", '"-SYNC=1"'), ("EXEC A -LEVEL=1 -level=1", '"-level=1"'),
    ("STOP 1001 -IMMEDIATE=yes", '"-IMMEDIATE=yes"'), ("EXEC A -NAME", '"-NAME"'),
    ("EXEC A -LEVEL=6", '"-LEVEL=6"'), ("EXEC A -LEVEL=-1", '"-LEVEL=-1"'), ("EXEC A -LEVEL=", '"-LEVEL="'),
    ("EXEC A -LEVEL=1.0", '"-LEVEL=1.0"'), ("EXEC A -LEVEL=\u0663", '"-LEVEL=\\u0663"'),
    ("EXEC A -PRIORITY=x", '"-PRIORITY=x"'), ("EXEC A -PRIORITY=99999999999999999999", '"-PRIORITY='),
    ("EXEC A -TIMEOUT=0", '"-TIMEOUT=0"'), ("EXEC A -TIMEOUT=-1", '"-TIMEOUT=-1"'),
    ("EXEC A -TIMEOUT=1w", '"-TIMEOUT=1w"'), ("EXEC A -TIMEOUT=1e3", '"-TIMEOUT=1e3"'),
    ("EXEC A -TIMEOUT=nan", '"-TIMEOUT=nan"'), ("EXEC A -TIMEOUT=inf", '"-TIMEOUT=inf"'),
    ("EXEC A -TIMEOUT=\u0663", '"-TIMEOUT=\\u0663"'), ("EXEC A -SYNC=", '"-SYNC="'),
    ("EXEC A -AT=soon", '"-AT=soon"'), ("EXEC A -AT=2026-13-01", '"-AT=2026-13-01"'),
    ("EXEC A -AT=2026-02-30", '"-AT=2026-02-30"'), ("EXEC A -AT=9999-12-31T23:59-14:00", '"-AT=9999'),
    ("EXEC A -AT=0001-01-01T00:00+14:00", '"-AT=0001'), ("EXEC A -KEY=", '"-KEY="'),
    ("EXEC A -KEY=" + "x" * 257, '"-KEY=xxx'), ("EXEC A -REPO=a/b", '"-REPO=a/b"'),
    ("EXEC a/b", '"a/b"'), ("EXEC .a", '".a"'), ("EXEC -1", '"-1"'), ("EXEC ''", '""'), ("EXEC 'a b'", '"a b"'),
    ("EXEC " + "x" * 129, '"xxx'), ("EXEC A -2", '"-2"'), ("EXEC \u00e9", '"\\u00e9"'), ("EXEC A\u0661", '"A\\u0661"'),
    ("STOP x", '"x"'), ("STOP 0", '"0"'), ("STOP -1", '"-1"'), ("STOP 1.5", '"1.5"'), ("STOP 0x3e9", '"0x3e9"'),
    ("STOP \u0661\u0660\u0660\u0661", '"\\u0661'), ("STOP 99999999999999999999", '"9999'),
    ("PING who=1", '"who=..."'), ("STOP 1001 who=1", '"who=..."'), ("EXEC A who=1 who=1", '"who=..."'),
    ("SESSIONS -STATUS=BAD", '"-STATUS=BAD"'), ("SESSIONS -STATUS=", '"-STATUS="'),
    ("SESSIONS -LIMIT=0", '"-LIMIT=0"'), ("SESSIONS -LIMIT=1000001", '"-LIMIT=1000001"'),
    ("SESSIONS -JSON=yes", '"-JSON=yes"'), ("SESSIONS -SINCE=", '"-SINCE="'),
    ("SCHED ADD S A 1", "CONTEXT"),
    ("SCHED ADD S A 1 GLOBAL 'every 90s' -ENABLED=true", '"-ENABLED=true"'),
    ("SCHED ON", "NAME"), ("SCHED NEXT S -COUNT=x", '"-COUNT=x"'),
    ("PURGE -DAYS=x", '"-DAYS=x"'), ("PURGE -KEEP=-1", '"-KEEP=-1"'), ("PURGE -KEEP=1.5", '"-KEEP=1.5"'),
    ("SHUTDOWN -MAX_WAIT=", '"-MAX_WAIT="'), ("IMPORT {} {}", "word 3: one too many"), ("DROP A", "VERSION"),
    ("SCHED ADD S A GLOBAL 'daily at 02:00'", 'word "daily at 02:00" for CONTEXT: must be a name: '),
    ("STOP x", 'word "x" for SESSION: must be a whole number'), ("STOP 1 2", 'word "2": one too many: STOP SESSION'),
    ("EXEC A x=--y -NOPE=--y", 'word "-NOPE=...": EXEC has no such option'),
    ("EXEC A --sync", 'word "--sync" for VERSION: must be a name'), ("PING --json", '"--json": one too many'),
])
def test_bad_requests_name_the_word(line, named):
    assert named in fault(request, line)
    assert fault(request, line).endswith("; an option has one dash") == (" --" in line)


@pytest.mark.parametrize("line", ["SCHED", "SCHED FOO", "SCHED -LIST", "SCHED NEXT=1"])
def test_verbs_of_two_words(line):
    assert "LIST" in fault(request, line)


@pytest.mark.parametrize("line", ["FOO", "-x", "PING=1", "''", "P ING", "PINGS", "\ufeffPING", "PING\r", "SCHEDLIST",
                                  "'SCHED LIST'"])
def test_unknown_verbs(line):
    with pytest.raises(agent.UnknownVerb):
        request(line)


def test_names():
    for name in ("a", "0", "_", "A.b-c_9", "x" * 128):
        assert agent.check_name(name) == name
    for name in ("", ".", "-a", ".a", "a b", "a/b", "a\n", "a\0", "\u00e9", "x" * 129, None, 5):
        with pytest.raises(ValueError):
            agent.check_name(name)


def test_booleans_are_yes_and_no():
    add = "SCHED ADD S A 1 GLOBAL 'every 90s' -ENABLED="
    assert [request(add + text)["-ENABLED"] for text in ("yes", "NO", "Yes")] == [True, False, True]
    for text in ("true", "1", "on", "", "y"):
        assert "yes or no" in fault(request, add + text)


# -- rendering -------------------------------------------------------------------------

@pytest.mark.parametrize("value, text", [
    (None, ""), ("", ""), ("a", "a"), (5, "5"), (1.5, "1.5"), (True, "yes"), (False, "no"),
    ("".join(c for c in map(chr, range(33, 127)) if c not in "\"'\\"),) * 2,
    ("a b", '"a b"'), (" ", '" "'), ("it's", '"it\'s"'), ('"', r'"\""'), ("\\", r'"\\"'), ("\t", r'"\t"'),
    ("a\n", r'"a\n"'), ("\r\nOK x=1", r'"\r\nOK x=1"'), ("\x7f", r'"\u007f"'), ("\u00e9", r'"\u00e9"'),
    ("\U0001f600", r'"\ud83d\ude00"'), ("\x1b[2J", r'"\u001b[2J"'), ("\u2028", r'"\u2028"'),
])
def test_rendered_values(value, text):
    assert agent.render_value(value) == text
    assert agent.render_fields([("k", value), ("l", 1)]) == "k=%s l=1" % text


def test_every_value_is_read_back_and_is_one_ascii_line():
    dice = random.Random(6)
    for _ in range(1000):
        value = "".join(chr(dice.choice((dice.randrange(1, 128), dice.randrange(1, 0xd800), 0x1f600)))
                        for _ in range(dice.randrange(1, 8)))
        text = agent.render_value(value)
        assert all(" " <= c <= "\x7f" for c in text)
        assert (json.loads(text) if text[0] == '"' else text) == value
        assert agent.split_words("X %s" % text)[1].value == value or text[0] != '"'


# -- times and durations ---------------------------------------------------------------

@pytest.mark.parametrize("text, seconds", [
    ("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1.5", 1.5), ("0.5m", 30),
    ("007", 7)])
def test_durations(text, seconds):
    assert agent.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "+1", "1 s", " 1", "1w", "1S", "1ms", "1e3", ".5", "1.", "1,5", "nan",
                                  "inf", "1h30m", "\u0663", "9" * 16, "1s\n"])
def test_durations_that_are_none(text):
    for is_whole in (False, True):
        with pytest.raises(ValueError):
            agent.parse_duration(text, is_whole)


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("7", 7), ("0", 0)])
def test_durations_in_whole_seconds(text, seconds):
    found = agent.parse_duration(text, True)
    assert found == seconds and isinstance(found, int)


@pytest.mark.parametrize("text", ["1.5", "0.5m", "1.0", "9" * 10])
def test_durations_that_are_not_whole(text):
    with pytest.raises(ValueError):
        agent.parse_duration(text, True)


@pytest.mark.parametrize("name, text, utc", [
    ("UTC", "2026-12-01", "2026-12-01T00:00:00.000Z"), ("UTC", "2026-12-01T02:03", "2026-12-01T02:03:00.000Z"),
    ("UTC", "2026-12-01 02:03:04", "2026-12-01T02:03:04.000Z"),
    ("UTC", "2026-12-01t02:03:04.5", "2026-12-01T02:03:04.500Z"),
    ("UTC", "2026-12-01T02:03Z", "2026-12-01T02:03:00.000Z"), ("UTC", "2026-12-01T02:03+05:30", "2026-11-30T20:33:00.000Z"),
    ("UTC", "2026-12-01T02:03-0130", "2026-12-01T03:33:00.000Z"), ("UTC", "2024-02-29", "2024-02-29T00:00:00.000Z"),
    ("Europe/Zurich", "2026-12-01", "2026-11-30T23:00:00.000Z"), ("Europe/Zurich", "2026-07-01T02:00", "2026-07-01T00:00:00.000Z"),
    ("Europe/Zurich", "2026-07-01T02:00Z", "2026-07-01T02:00:00.000Z"),
    ("Europe/Zurich", "2026-03-29T02:30", "2026-03-29T01:00:00.000Z"),      # in the gap: the instant after it
    ("Europe/Zurich", "2026-10-25T02:30", "2026-10-25T00:30:00.000Z"),      # twice: the first time
    ("America/New_York", "2026-12-01", "2026-12-01T05:00:00.000Z"),
    ("Europe/Zurich", "2026-12-01 2:00", "2026-12-01T01:00:00.000Z"), ("Europe/Zurich", "2026-12-01Z", "2026-12-01T00:00:00.000Z"),
])
def test_times(zone, name, text, utc):
    zone(name)
    assert agent.to_text(agent.parse_time(text)) == utc


def test_a_date_at_the_end_of_a_range_is_its_last_instant(zone):
    zone("Europe/Zurich")
    assert agent.to_text(agent.parse_time("2026-12-01", True)) == "2026-12-01T22:59:59.999Z"
    assert agent.to_text(agent.parse_time("2026-12-01T02:00", True)) == "2026-12-01T01:00:00.000Z"
    assert agent.to_text(agent.parse_time("2026-03-29", True)) == "2026-03-29T21:59:59.999Z"     # a day of 23 hours


@pytest.mark.parametrize("text", [
    "", "2026", "2026-12", "2026-12-1", "2026-1-01", "20261201", "2026-12-01T", "2026-12-01T02",
    "2026-12-01  02:00", "2026-12-01T02:00:00,5", "2026-12-01T02:00 Z", "2026-12-01T24:00", "2026-12-01T02:60",
    "2026-12-01T02:00:60", "2026-00-01", "2026-13-01", "2026-02-29", "2026-12-00", "2026-12-01T02:00+24:00",
    "2026-12-01T02:00+1", "\u0662026-12-01", "2026-12-01\n", "0000-01-01", "0001-01-01T00:00+14:00",
    "9999-12-31T23:59-14:00", "12026-12-01", "-2026-12-01",
    "today 24:00", "today at 02:00", "today02:00", "now 02:00", "soon", "2:0", "02", "24:00", "02:00:60", "10", "10w", "1h30m",
    "+", "-", "h", "+-1h", "+ 1h", "1.5.2h", "1e3s", " now", "now ", "+99999999999d", "-800000d", "+3000000d", "to day",
    "\u0661h"])
def test_times_that_are_none(text):
    with pytest.raises(ValueError):
        agent.parse_time(text)
    with pytest.raises(ValueError):
        agent.parse_time(text, True)


@pytest.mark.parametrize("text, ahead, back", [
    ("now", "2026-11-28T10:30:15.500", None), ("NOW", "2026-11-28T10:30:15.500", None),
    ("today", "2026-11-28", None), ("yesterday", "2026-11-27", None), ("Tomorrow", "2026-11-29", None),
    ("today 08:00", "2026-11-28T08:00", None), ("yesterday 23:59:59", "2026-11-27T23:59:59", None),
    ("tomorrow 2:00", "2026-11-29T02:00", None), ("tomorrow  02:00", "2026-11-29T02:00", None),
    ("10:30:16", "2026-11-28T10:30:16", "2026-11-27T10:30:16"), ("10:30", "2026-11-29T10:30", "2026-11-28T10:30"),
    ("02:30", "2026-11-29T02:30", "2026-11-28T02:30"), ("23:00", "2026-11-28T23:00", "2026-11-27T23:00"),
    ("00:00", "2026-11-29", "2026-11-28"),
    ("10m", "2026-11-28T10:40:15.500", "2026-11-28T10:20:15.500"), ("1h", "2026-11-28T11:30:15.500", "2026-11-28T09:30:15.500"),
    ("+1h", "2026-11-28T11:30:15.500", None), ("-1h", "2026-11-28T09:30:15.500", None), ("+30", "2026-11-28T10:30:45.500", None),
    ("-0.5s", "2026-11-28T10:30:15", None), ("1D", "2026-11-29T10:30:15.500", "2026-11-27T10:30:15.500"),
    ("0s", "2026-11-28T10:30:15.500", None), ("2026-12-01T02:00Z", "2026-12-01T03:00", None)])
def test_times_that_count_from_now(zone, text, ahead, back):
    """`back` where it is another than `ahead`; a range that ends changes a date of ISO alone."""
    zone("Europe/Zurich")
    now = agent.parse_time("2026-11-28T10:30:15.5")
    for is_back, wanted in ((False, ahead), (True, back or ahead)):
        for is_end in (False, True):
            assert agent.parse_time(text, is_end, now, is_back) == agent.parse_time(wanted)


def test_clock_times_on_days_that_change_the_clock(zone):
    zone("Europe/Zurich")

    def found(text, now, is_back=False):
        return agent.to_text(agent.parse_time(text, False, agent.from_text(now), is_back))[:16]
    assert found("02:30", "2026-03-28T22:00:00Z") == "2026-03-29T01:00"             # in the gap
    assert found("yesterday 02:30", "2026-03-30T10:00:00Z") == "2026-03-29T01:00"
    assert found("02:30", "2026-10-24T22:30:00Z") == "2026-10-25T00:30"             # the first of two
    assert found("02:30", "2026-10-25T01:15:00Z", True) == "2026-10-25T00:30"
    assert found("02:30", "2026-10-25T01:15:00Z") == "2026-10-26T01:30"
    assert found("1d", "2026-10-24T22:30:00Z") == "2026-10-25T22:30"                # elapsed time
    assert found("tomorrow", "2026-10-24T22:30:00Z") == "2026-10-25T23:00"          # a day of 25 hours
    assert found("today", "2026-11-27T23:30:00Z") == "2026-11-27T23:00"             # the local day


@pytest.mark.parametrize("name", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_every_time_that_is_taken_can_be_kept_and_shown(zone, name):
    zone(name)
    for text in ("0002-01-01T00:00Z", "1800-01-01T00:00Z", "2026-12-01T02:03:04.567+05:30", "9998-12-31",
                 "9998-12-31T23:59:59.999999-14:00", "1969-12-31T23:59:59.5Z"):
        for is_end in (False, True):
            instant = agent.parse_time(text, is_end)
            kept = agent.to_text(instant)
            assert len(kept) == 24
            assert abs(agent.from_text(kept) - instant) < 0.01
            if "1970" < text < "9998-12-31":
                assert agent.parse_time(agent.to_local(kept)) == pytest.approx(instant, abs=0.01)
            if text > "1970":
                assert agent.to_local(kept)


def test_times_in_replies_have_their_offset(zone):
    zone("Europe/Zurich")
    assert agent.to_local("2026-12-01T01:02:03.004Z") == "2026-12-01T02:02:03.004+01:00"
    assert agent.to_local("2026-07-01T01:02:03.004Z") == "2026-07-01T03:02:03.004+02:00"
    assert agent.to_local(None) is None
    zone("Asia/Kolkata")
    assert agent.local_iso(0) == "1970-01-01T05:30:00+05:30"


def test_versions_sort_naturally():
    ordered = ["001", "2", "9", "10", "10.1", "10.2", "10.10", "11", "a", "a1", "a9", "a10"]
    shuffled = list(ordered)
    random.Random(7).shuffle(shuffled)
    assert sorted(shuffled, key=agent.version_key) == ordered
    long = "9" * 128
    assert agent.version_key(long) > agent.version_key("9" * 127)
