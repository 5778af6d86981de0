"""The audit: what is noted of requests, and how it comes to disk."""
import json
import threading

import pytest

import agent as program
from conftest import turns_of, wait_for
from support.audit import Notes
from support.outside import foreign_lock, query
from support.users import Guest, add_guest

BRIEF = "verb object outcome"
ALICE = program.Client(program.MONITOR, "alice", "alice", program.Peer(1001, "al", "10.0.0.7"))
STRANGER = program.Client(None, "uid 1002", "", program.Peer(1002, "uid 1002", "127.0.0.1"))


def audited(agent, options="", keys=BRIEF):
    """The rows of AUDIT, oldest first, without the start of the agent."""
    return [" ".join(row[key] for key in keys.split()) for row in agent.rows("AUDIT " + options)[::-1]
            if row["verb"] != "AGENT START"]


def ask_as(agent, client, *lines):
    """The codes that this client gets for these requests, on one connection."""
    conversation = program.Conversation(agent.agent, client)
    conversation.begin(b"HELP PING")
    return [" ".join(list(conversation.begin(line.encode()).chunks())[-1].split()[:2]) for line in lines]


def check_chain(agent):
    """The chain of the agent is whole -> how many rows it has."""
    agent.ok("AUDIT -LIMIT=1")
    state, = agent.agent.master.db.read(lambda connection: list(program.check_chains(connection)))
    assert state.fault == "" and state.agent == "AGENT"
    return state.count


# -- what is noted ---------------------------------------------------------------------

DOCUMENT = json.dumps({"scenarios": [{"name": "LOAD", "version": "1", "variables": {"v": "sesame"}, "steps": [
    {"name": "s", "tasks": [{"type": "os", "command": "echo sesame; exit 1"}]}]}]})
# a request, and what is noted of it: {object} {outcome} behind its verb; of others nothing
REQUESTS = [
    ("IMPORT '%s' -DRY_RUN" % DOCUMENT, None), ("IMPORT '%s'" % DOCUMENT, " OK"),
    ("IMPORT '%s' -REPO=WORKREP" % DOCUMENT, "-REPO=WORKREP OK"), ("IMPORT sesame", " BAD_REQUEST"),
    ("EXEC LOAD v=sesame -NAME=sesame -KEY=sesame -SYNC", None), ("EXEC LOAD 7 v=sesame", "LOAD 7 NOT_FOUND"),
    ("EXEC LOAD -KEY=sesame", "LOAD CONFLICT"), ("RESTART 1001 v=sesame", "1001 OK"), ("WAIT 1001", None),
    ("STOP 1001 -IMMEDIATE", "1001 CONFLICT"), ("STOP sesame", " BAD_REQUEST"),
    ("SCHED ADD S LOAD -1 GLOBAL 'daily at 02:00' v=sesame -KEYWORDS=sesame", "S OK"),
    ("SCHED SET S v=sesame2 -REPO=WORKREP", "S -REPO=WORKREP OK"), ("SCHED OFF S", "S OK"), ("SCHED ON S", "S OK"),
    ("SCHED OFF NONE", "NONE NOT_FOUND"), ("HOLD sesame -SCHEDULE=S", "S OK"), ("RELEASE -SCHEDULE=S", "S OK"),
    ("HOLD sesame", " OK"), ("RELEASE", " OK"), ("SCHED DEL S", "S OK"), ("SCHED UPDATE", " OK"),
    ("CLEAN -HOST=gone", "gone OK"), ("CALENDAR ADD C 2026-12-25", "C OK"), ("CALENDAR DEL C", "C OK"),
    ("ATTACH TWO sesame.db -CREATE", "TWO OK"), ("DETACH TWO", "TWO OK"), ("PURGE -KEEP=0 -DRY_RUN", None),
    ("PURGE -KEEP=0 -SCENARIO=LOAD", "LOAD OK"), ("DROP LOAD 1", "LOAD 1 OK"), ("DROP LOAD 1", "LOAD 1 NOT_FOUND"),
    ("PING", None), ("SESSIONS", None), ("STATUS 99001", None), ("NO_SUCH sesame", None), ("HELP", None)]


def test_what_is_noted_of_an_owner_and_never_a_value(inside):
    expected = []
    for request, told in REQUESTS:
        inside.ask(request)
        if told is not None:
            words = request.split()
            verb = " ".join(words[:1 + (words[0] in ("SCHED", "CALENDAR"))])
            expected.append("%s %s" % (verb, told))
    assert audited(inside) == expected
    assert "sesame" not in str(query(inside.master, "select * from audit"))
    assert set(audited(inside, keys="user os_user address count agent")) == {"   1 AGENT"}
    assert check_chain(inside) == len(expected) + 1


def test_every_verb_that_may_change_something_is_noted():
    """The role says it, so a new verb cannot be forgotten."""
    for name, row in program.VERBS.items():
        notes, request = Notes(), program.Request(row)
        for outcome in ("OK", "CONFLICT", "AUTH", "DENIED"):
            program.note_outcome(notes, row, STRANGER, request, outcome)
        is_change = row.role in ("operator", "administrator") or name == "USERS PASSWORD"
        is_told = is_change and name not in ("EXEC", "AUDIT", "USERS LIST")
        assert [outcome for _, _, outcome in notes.noted] == \
            ["OK"] * is_told + ["CONFLICT"] * is_change + ["AUTH", "DENIED"], name


def test_a_failed_auth_names_a_user_that_there_is_and_no_other_word(inside):
    inside.ok("USERS ADD alice -ROLE=monitor")
    for user in ("alice", "my-password"):
        assert inside.ask("AUTH %s wrong" % user)[-1].startswith("ERR AUTH")
    rows = [(row["object"], row["outcome"]) for row in inside.rows("AUDIT -VERB=AUTH")]
    assert sorted(rows) == [("", "AUTH"), ("alice", "AUTH")]
    assert "my-password" not in "".join(inside.ask("AUDIT -LIMIT=1000"))


def test_whoever_gets_another_password_is_noted_and_no_password_in_his_name_s_place(inside):
    once = inside.ok("USERS ADD alice -ROLE=monitor")["password"]
    guest = Guest(inside).log_in("alice", once)
    assert guest.code("USERS PASSWORD %s my-password" % once) == "DENIED"       # taken for: the old one, the new one
    guest.ok("USERS PASSWORD alice my-password")
    inside.ok("USERS PASSWORD alice my-password2")
    assert inside.err("USERS PASSWORD %s my-password" % once) == "NOT_FOUND"
    assert audited(inside, "-VERB='USERS PASSWORD'", "user object outcome") == [
        "alice  DENIED", "alice alice OK", " alice OK", "  NOT_FOUND"]
    assert once not in "".join(inside.ask("AUDIT -LIMIT=1000"))


def test_who_is_refused_the_rest_of_what_he_looks_at_is_noted(inside):
    inside.import_os("W", "until [ -e %s ]; do echo more; sleep 0.02; done" % (inside.folder / "go"))
    guest, session = add_guest(inside, "monitor", name="alice"), inside.ok("EXEC W")["session"]
    lines = guest.conversation.begin(("LOG %s -FOLLOW" % session).encode()).chunks()
    next(lines)
    inside.ok("USERS DEL alice")
    assert list(lines)[-1].startswith("ERR AUTH")
    (inside.folder / "go").touch()
    assert audited(inside, "-VERB=LOG") == ["LOG %s AUTH" % session]


def test_who_looks_costs_nothing(inside, monkeypatch):
    noted = []
    monkeypatch.setattr(program.Audit, "_note", lambda self, act: noted.append(act))
    for request in ("PING", "SESSIONS", "SCHED WHY", "METRICS", "SCENARIOS", "HELP", "AUDIT", "EXEC HELLO"):
        inside.ok(request)
    assert noted == []


def test_who_is_refused(inside):
    assert ask_as(inside, STRANGER, "PING", "EXEC HELLO", "STOP 1001", "STOP x y z", "NONSENSE", "QUIT") == [
        "ERR AUTH"] * 4 + ["ERR UNKNOWN_VERB", "OK"]
    assert ask_as(inside, ALICE, "PING", "HOLD", "SHUTDOWN", "AUDIT") == ["OK agent=AGENT"] + ["ERR DENIED"] * 3
    who = "user os_user address verb object outcome count"
    assert audited(inside, keys=who) == [
        " uid 1002 127.0.0.1 PING  AUTH 1", " uid 1002 127.0.0.1 EXEC HELLO AUTH 1",
        " uid 1002 127.0.0.1 STOP 1001 AUTH 1", " uid 1002 127.0.0.1 STOP  AUTH 1"] + [
            "alice al 10.0.0.7 %s  DENIED 1" % verb for verb in ("HOLD", "SHUTDOWN", "AUDIT")]


def test_a_change_counts_though_its_client_goes_away_amid_the_reply(inside):
    reply = inside._conversation.begin(("IMPORT '%s'" % DOCUMENT).encode())
    chunks = reply.chunks()
    assert next(chunks).startswith("* kind=scenario")
    chunks.close()
    assert audited(inside) == ["IMPORT  OK"]


def test_what_the_agent_does_by_itself(make_inside):
    agent = make_inside("--keep-days", "1").start()
    session = agent.ok("EXEC HELLO -SYNC")["session"]
    agent.ok("HOLD -UNTIL=+30m")
    for _ in range(26):                     # a clock that jumps is not believed at once
        agent.let_pass(3600)
        agent.agent.keeper.keep()
    assert agent.err("STATUS %s" % session) == "NOT_FOUND"
    me = program.own_user()
    assert audited(agent, keys="os_user address verb object outcome") == [
        "  HOLD  OK", "%s  RELEASE  OK" % me, "%s  PURGE -REPO=WORKREP OK" % me]
    agent.stop()
    agent.start()
    lines = [" ".join(row[key] for key in ("os_user", "verb", "outcome")) for row in agent.rows("AUDIT")]
    assert lines[:2] == ["%s AGENT START OK" % me, "%s AGENT STOP OK" % me] and check_chain(agent) == 6


# -- again and again -------------------------------------------------------------------

def test_the_same_again_and_again_is_one_row_a_minute(inside):
    def counts():
        return [int(row["count"]) for row in inside.rows("AUDIT -VERB=STOP -LIMIT=1000")[::-1]]
    ask_as(inside, STRANGER, *["STOP 1001"] * 50)
    assert counts() == [1]                  # at once
    inside.let_pass(30)
    ask_as(inside, STRANGER, *["STOP 1001"] * 7)
    assert counts() == [1]
    inside.let_pass(31)
    assert counts() == [1, 56]
    ask_as(inside, STRANGER, *["STOP 1001"] * 3)
    assert counts() == [1, 56]
    inside.let_pass(61)
    assert counts() == [1, 56, 3]
    inside.let_pass(61)                     # over; the next one is told at once
    assert counts() == [1, 56, 3]
    ask_as(inside, STRANGER, *["STOP 1001"] * 2)
    assert counts() == [1, 56, 3, 1]
    inside.stop()                           # nothing is lost at the end
    assert query(inside.master, "select sum(count) from audit where verb='STOP'") == [(62,)]


def test_the_thread_itself_sees_that_a_minute_is_over(inside, monkeypatch):
    monkeypatch.setattr(program, "REPEAT_S", 0.5)
    ask_as(inside, STRANGER, *["PING"] * 5)
    wait_for(lambda: query(inside.master, "select count from audit where verb='PING' order by n") == [(1,), (4,)],
             "the row of the others")


def test_ever_other_names_are_not_a_row_each(inside):
    """Of one who asks, some objects are told; of many who ask, some."""
    ask_as(inside, STRANGER, *["STOP %d" % number for number in range(1, 3001)])
    ask_as(inside, STRANGER, "HOLD", "EXEC HELLO")
    inside.let_pass(61)
    told = audited(inside, "-LIMIT=1000", "verb object count")
    assert sorted(told) == sorted(["STOP %d 1" % number for number in range(1, 17)] + [
        "STOP * 1", "HOLD * 1", "EXEC * 1", "STOP * 2983"])
    audit, peer = inside.agent.audit, STRANGER.peer
    for number in range(5000):
        audit.note(STRANGER._replace(peer=peer._replace(address="10.0.%d.%d" % divmod(number, 256))), "PING", "", "AUTH")
    inside.let_pass(61)
    told = audited(inside, "-VERB=PING -LIMIT=10000", "os_user address object count")
    assert len(told) < 1010 and told[-1].startswith("* * * ") and check_chain(inside) < 1100
    assert sum(int(line.split()[-1]) for line in told) == 5000
    for _ in range(2):
        inside.let_pass(61)
        inside.ok("AUDIT")
    assert not audit._repeats and not audit._kinds


def test_what_is_refused_in_a_flood_costs_others_little(inside):
    """A lock that nobody keeps, and a count."""
    audit = inside.agent.audit
    _, turns = turns_of(lambda: [audit.note(STRANGER, "PING", "", "AUTH") for _ in range(20000)])
    assert turns < 20000 * 1000
    assert sum(happening.act.verb == "PING" for happening in audit._waiting) <= 1


# -- what AUDIT shows ------------------------------------------------------------------

def test_what_can_be_listed(inside, monkeypatch):
    monkeypatch.setattr(program, "AUDIT_PAGE", 3)
    inside.ok("HOLD")
    inside.let_pass(7200)
    ask_as(inside, ALICE, "HOLD", "SHUTDOWN", "SCHED OFF S", "SCHED ON S", "STOP 1001")
    inside.ok("RELEASE")
    every = [row["n"] for row in inside.rows("AUDIT")]
    assert every == ["8", "7", "6", "5", "4", "3", "2", "1"]
    for options, expected in (
            ("-LIMIT=4", "8765"), ("-LIMIT=3", "876"), ("-WHO=alice", "76543"), ("-WHO=al", "76543"), ("-WHO=ali", ""),
            ("-VERB=hold", "32"), ("-VERB=SCHED", "65"), ("-VERB='sched  on'", "6"), ("-VERB=SCH", ""),
            ("-SINCE=-1h", "876543"), ("-SINCE=1h -VERB=HOLD", "3"), ("-WHO=alice -LIMIT=2", "76")):
        assert "".join(row["n"] for row in inside.rows("AUDIT " + options)) == expected, options
    assert inside.err("AUDIT -LIMIT=0") == "BAD_REQUEST" == inside.err("AUDIT x")


def test_two_agents_have_a_chain_each(make_inside):
    first = make_inside().start()
    second = make_inside("--name", "OTHER").start()
    for agent, request in ((first, "HOLD"), (second, "HOLD"), (second, "RELEASE")):
        first.let_pass(1)
        second.let_pass(1)
        agent.ok(request)
    heads = first.ok("AUDIT")["head"], second.ok("AUDIT")["head"]
    listed = [(row["agent"], row["n"], row["verb"]) for row in first.rows("AUDIT")]
    assert listed == [("OTHER", "3", "RELEASE"), ("OTHER", "2", "HOLD"), ("AGENT", "2", "HOLD"),
                      ("OTHER", "1", "AGENT START"), ("AGENT", "1", "AGENT START")]
    second.ok("PURGE -AUDIT -DAYS=0")       # its own alone
    assert [(row["agent"], row["n"]) for row in first.rows("AUDIT")] == [("OTHER", "4"), ("AGENT", "2"), ("AGENT", "1")]
    states = first.agent.master.db.read(lambda connection: list(program.check_chains(connection)))
    assert [(state.agent, state.fault) for state in states] == [("AGENT", ""), ("OTHER", "")]
    assert states[0].head == heads[0] and states[1].head == second.ok("AUDIT")["head"] != heads[1]


def test_purge_leaves_it_alone_unless_told(inside):
    for request in ("HOLD", "RELEASE"):
        inside.ok(request)
    inside.let_pass(86400 * 3)
    inside.ok("PURGE -DAYS=0")
    assert audited(inside) == ["HOLD  OK", "RELEASE  OK", "PURGE  OK"]
    for options in ("", " -KEEP=1", " -DAYS=1 -KEEP=1", " -DAYS=1 -STATUS=DONE", " -DAYS=1 -SCENARIO=HELLO"):
        assert inside.err("PURGE -AUDIT" + options) == "BAD_REQUEST", options
    inside.let_pass(61)
    before = len(inside.rows("AUDIT"))
    assert inside.ok("PURGE -AUDIT -DAYS=2 -DRY_RUN") == {"purged": "3", "dry_run": "yes"}
    assert len(inside.rows("AUDIT")) == before
    assert inside.ok("PURGE -AUDIT -DAYS=2") == {"purged": "3"}
    assert audited(inside)[0] == "PURGE  OK" and audited(inside)[-1].startswith("PURGE -AUDIT 3 ") and check_chain(inside)
    assert inside.ok("PURGE -AUDIT -DAYS=0")["purged"] == str(before - 2)
    row, = inside.rows("AUDIT")             # the one that has the last hash
    assert row["verb"] == "PURGE" and row["object"].startswith("-AUDIT %d " % (int(row["n"]) - 1)) and check_chain(inside) == 1


# -- a master that cannot be written ---------------------------------------------------

def test_what_cannot_be_written_is_kept_and_then_counted(inside, monkeypatch):
    monkeypatch.setattr(program, "MAX_ACTS", 300)
    monkeypatch.setattr(program, "AUDIT_RETRY_S", 0.05)
    audit = inside.agent.audit
    inside.ok("AUDIT")
    with foreign_lock(inside.master):
        for number in range(500):
            audit.note(ALICE, "SCHED OFF", "S%d" % number, "OK")
        # each time its writer waits no longer
        wait_for(lambda: inside.let_pass(6) or "the audit cannot be written" in inside.log(), "the trouble to be told")
        assert inside.ok("PING")["status"]
        assert inside.log().count("the audit cannot be written") == 1
    wait_for(lambda: not audit._waiting and not audit._lost, "the rows to be written")
    told = audited(inside, "-LIMIT=1000", "verb object outcome count")
    assert told == ["SCHED OFF S%d OK 1" % number for number in range(300)] + ["AUDIT LOST  REPOSITORY 200"]
    assert check_chain(inside) == 302


def test_ten_thousand_are_kept():
    assert program.MAX_ACTS == 10000 and program.REPEAT_S == 60


def test_a_request_never_waits_for_it(inside, monkeypatch):
    """While the one who writes is stuck."""
    may_write = threading.Event()
    monkeypatch.setattr(program.Chain, "append", lambda *_: may_write.wait(60))
    for _ in range(20):
        assert inside.ok("SCHED UPDATE") == {"schedules": "0"}
        assert ask_as(inside, STRANGER, "PING") == ["ERR AUTH"]
    assert len(inside.agent.audit._waiting) >= 20
    may_write.set()
