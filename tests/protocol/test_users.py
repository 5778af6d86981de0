"""Users by the protocol: AUTH, USERS, roles, and what a narrowed user is told of."""
import json
import random

import pytest

import agent as program
from conftest import wait_for
from support.users import Guest, add_guest, add_user

WRONG = "ERR AUTH the user or the password is wrong"

pytestmark = pytest.mark.usefixtures("quick_hashes")


@pytest.fixture(scope="module")
def world(shared_inside):
    """Scenarios LOAD_A and LOAD_B, which users see who are narrowed to LOAD_*, and SECRET, which they do not; a
    session and a schedule of each, and what refers from one to the other."""
    running = shared_inside
    for name in ("LOAD_A", "LOAD_B", "SECRET"):
        running.import_os(name, "echo of %s" % name)
    running.import_document({"scenarios": [
        {"name": "SECRET_PARENT", "version": "1", "steps": [
            {"name": "main", "tasks": [{"type": "scenario", "name": "LOAD_A"}]}]},
        {"name": "LOAD_PARENT", "version": "1", "steps": [
            {"name": "main", "tasks": [{"type": "scenario", "name": "SECRET"}]}]},
        {"name": "SLOW", "version": "1", "steps": [
            {"name": "main", "tasks": [{"type": "os", "command": "sleep 1000"}]}]}]})
    running.sessions = {name: running.ok("EXEC %s -SYNC" % name)["session"]
                        for name in ("LOAD_A", "SECRET", "SECRET_PARENT", "LOAD_PARENT")}
    running.ok("SCHED ADD OF_LOAD LOAD_A -1 GLOBAL \"daily at 02:00\"")
    running.ok("SCHED ADD OF_SECRET SECRET -1 GLOBAL \"daily at 02:00\"")
    running.ok("SCHED ADD AFTER_SECRET LOAD_A -1 GLOBAL -AFTER=OF_SECRET,scenario:SECRET,scenario:LOAD_B")
    return running


@pytest.fixture(scope="module")
def narrowed(world):
    """Role -> a Guest of it who is narrowed to LOAD_*."""
    return {role: add_guest(world, role, "LOAD_*") for role in program.ROLES}


def distinct(rows, key):
    return sorted({row[key] for row in rows})


# -- who is it -------------------------------------------------------------------------

def test_until_auth_every_verb_but_auth_help_and_quit_is_auth(inside):
    for name, row in program.VERBS.items():
        guest = Guest(inside)
        if row.role is None:
            assert name in ("AUTH", "HELP", "QUIT")
        else:
            assert guest.err(name) == "AUTH", name
    assert Guest(inside).ask("HELP PING")[-1] == "OK"
    assert "AUTH" in Guest(inside).ask("PING")[-1].split(" ", 2)[2]


def test_auth_says_who_one_is_and_what_he_may_do(inside):
    guest = add_user(inside, "alice", "operator")
    assert guest.ask("AUTH alice 'correct horse'") == ["OK user=alice role=operator"]
    session = guest.ok("EXEC HELLO")["session"]
    assert inside.status(session)["by"] == "alice"
    assert guest.code("SHUTDOWN") == "DENIED"
    assert inside.status(inside.ok("EXEC HELLO")["session"])["by"] == "test"
    assert "by" not in inside.rows("SESSIONS")[0]


def test_a_wrong_password_and_an_unknown_user_have_the_same_answer(inside):
    inside.ok("USERS ADD alice -ROLE=monitor")
    assert Guest(inside).ask("AUTH alice nonsense") == Guest(inside).ask("AUTH nobody nonsense") == [WRONG]
    assert Guest(inside).ask("AUTH \"\" ''") == [WRONG]
    assert Guest(inside, address="127.0.0.2").ask("AUTH -JSON alice x") == ['ERR AUTH {"message": "%s"}' % WRONG[len("ERR AUTH "):]]


def test_auth_narrows_an_owner_and_never_widens_again(inside):
    owner = Guest(inside, 0)
    assert owner.code("USERS LIST") == "OK"
    inside.ok("USERS ADD bob -ROLE=monitor")
    inside.ok("USERS PASSWORD bob 'correct horse'")
    owner.log_in("bob", "correct horse")
    assert owner.code("PING") == "OK" and owner.code("EXEC HELLO") == "DENIED"
    assert owner.ask("AUTH bob wrong") == [WRONG]
    assert owner.code("EXEC HELLO") == "DENIED"         # a failure changes nothing
    inside.ok("USERS DEL bob")
    assert owner.code("PING") == "AUTH"


def test_a_password_needs_a_private_connection(inside):
    inside.ok("USERS ADD alice -ROLE=administrator -OS_USER=4000000")
    guest = Guest(inside, is_private=False, address="192.0.2.1")
    reply = guest.ask("AUTH alice x")[0]
    assert reply.startswith("ERR DENIED") and "TLS" in reply
    assert Guest(inside, 4000000, is_private=False).code("PING") == "AUTH"        # the host's word counts here alone
    assert Guest(inside, 0, is_private=False).code("PING") == "AUTH"


def test_a_first_line_that_is_no_well_formed_auth_closes(inside):
    for line in ("AUTH alice", "AUTH", "AUTH a b c", 'AUTH a "b'):
        guest = Guest(inside)
        assert guest.code(line) == "BAD_REQUEST" and guest.conversation.is_over
    guest = Guest(inside)
    assert guest.ask("AUTH a b") == [WRONG] and not guest.conversation.is_over


@pytest.mark.parametrize("line", [
    "AUTH alice hunter22 behind", "AUTH alice -hunter22", "AUTH alice pass=hunter22", 'AUTH alice hunter22"',
    "AUTH alice hunter22 -NOPE=hunter22", 'AUTH alice hunter22"half', "USERS PASSWORD alice hunter22 behind",
    "USERS PASSWORD alice -hunter22", "USERS PASSWORD alice x=hunter22", 'users password alice hunter22"x',
    "USERS PASSWORD nobody hunter22", "AUTH alice hunter22", 'USERS PASSWORD "hunter22 y" "hunter22 x"'])
def test_no_error_and_no_log_has_a_password(shared_inside, line):
    for asked in (shared_inside, Guest(shared_inside)):
        for more in ("", " -JSON"):
            text = "\n".join(asked.ask(line + more))
            assert "hunter22" not in text and "ERR" in text, text
    assert "hunter22" not in shared_inside.log()


def test_whatever_is_said_of_users_nothing_is_let_in_and_nothing_breaks(shared_inside):
    """Words in any order and quoting, from nobody: seeded, so that it is the same each time."""
    chance = random.Random(13)
    words = ["AUTH", "USERS", "ADD", "SET", "PASSWORD", "DEL", "LIST", "alice", '""', "''", '"', "'", "-ROLE=monitor",
             "-ROLE=", "-SCENARIOS=*", "-SCENARIOS=[", "-OS_USER=0", "-RESET", "-JSON", "x=1", "=", "{", "\\", "\t",
             '"\\u0000"', '"\\ud800"', "\u00e9", "\U0001f600" * 70, "A*" * 200, "auth", "HTTP/1.1"]
    before = shared_inside.ask("USERS LIST")
    for _ in range(500):
        line = " ".join(chance.choice(words) for _ in range(chance.randint(1, 6)))
        lines = Guest(shared_inside).ask("AUTH " + line if chance.random() < 0.3 else line)
        assert lines == [] or lines[-1].startswith("ERR ") and "INTERNAL" not in lines[-1], (line, lines)
    assert shared_inside.ask("USERS LIST") == before


# -- one-time passwords ----------------------------------------------------------------

def test_a_one_time_password_lets_in_to_set_the_next_alone(inside):
    password = inside.ok("USERS ADD alice -ROLE=administrator")["password"]
    guest = Guest(inside)
    reply = guest.ok("AUTH alice %s" % password)
    assert "USERS PASSWORD alice" in reply["note"]
    for name, row in program.VERBS.items():
        if row.role is not None and name != "USERS PASSWORD":
            assert guest.err(name) == "DENIED", name
    assert "USERS PASSWORD alice NEW" in guest.ask("PING")[0]
    assert guest.code("HELP PING") == "OK"
    inside.ok("USERS ADD bob -ROLE=monitor")
    assert guest.code("USERS PASSWORD bob 'correct horse'") == "DENIED"
    assert guest.code("USERS PASSWORD alice short") == "BAD_REQUEST"
    assert guest.code("USERS PASSWORD alice %s" % password) == "BAD_REQUEST"
    assert guest.ask("USERS PASSWORD alice 'correct horse'") == ["OK user=alice"]
    assert guest.code("PING") == "OK"                   # the connection goes on
    assert Guest(inside).ask("AUTH alice %s" % password) == [WRONG]         # it is used up
    assert Guest(inside).log_in("alice", "correct horse").code("USERS LIST") == "OK"


def test_a_one_time_password_ends_after_a_day(inside):
    password = inside.ok("USERS ADD alice -ROLE=monitor")["password"]
    early = Guest(inside).log_in("alice", password)
    assert inside.rows("USERS LIST")[0]["password"] == "once"
    inside.let_pass(86401)
    assert inside.rows("USERS LIST")[0]["password"] == "expired"
    assert Guest(inside).ask("AUTH alice %s" % password) == [WRONG]
    assert early.code("USERS PASSWORD alice 'correct horse'") == "AUTH"
    again = inside.ok("USERS SET alice -RESET")["password"]
    assert again != password
    Guest(inside).log_in("alice", again)


def test_one_time_passwords_can_be_typed_bare(inside):
    for place in range(3):
        password = inside.ok("USERS ADD user%d -ROLE=monitor" % place)["password"]
        (word,) = program.split_words(password)
        assert word.kind == "argument" and len(password) == 23


# -- USERS -----------------------------------------------------------------------------

def test_users_are_listed_and_their_hashes_are_not(inside):
    inside.ok("USERS ADD alice -ROLE=MONITOR -SCENARIOS=LOAD_*,REPORT -OS_USER=4000001")
    inside.ok("USERS ADD bob@example.org -ROLE=operator")
    first, second = inside.rows("USERS LIST")
    assert (first["user"], first["role"], first["scenarios"], first["os_user"]) == (
        "alice", "monitor", "LOAD_*,REPORT", "4000001")
    assert (second["user"], second["scenarios"], second["os_user"]) == ("bob@example.org", "", "")
    assert "scrypt" not in str(inside.ask("USERS LIST")) and "pbkdf2" not in str(inside.ask("USERS LIST"))


@pytest.mark.parametrize("line,code", [
    ("USERS ADD carol", "BAD_REQUEST"), ("USERS ADD carol -ROLE=king", "BAD_REQUEST"),
    ("USERS ADD -ROLE=monitor", "BAD_REQUEST"), ('USERS ADD "a b" -ROLE=monitor', "BAD_REQUEST"),
    ("USERS ADD carol -ROLE=monitor -SCENARIOS=A[B]", "BAD_REQUEST"),
    ("USERS ADD carol -ROLE=monitor -OS_USER=no.such.user", "BAD_REQUEST"),
    ("USERS SET nobody -ROLE=monitor", "NOT_FOUND"), ("USERS SET nobody -RESET", "NOT_FOUND"),
    ("USERS SET taken", "BAD_REQUEST"), ("USERS DEL nobody", "NOT_FOUND"),
    ("USERS PASSWORD nobody 'correct horse'", "NOT_FOUND"), ("USERS PASSWORD taken seven77", "BAD_REQUEST"),
    ("USERS ADD taken -ROLE=monitor", "EXISTS"), ("USERS ADD carol -ROLE=monitor -OS_USER=4000002", "EXISTS")])
def test_what_users_refuses(shared_inside, line, code):
    if not any(row["user"] == "taken" for row in shared_inside.rows("USERS LIST")):
        shared_inside.ok("USERS ADD taken -ROLE=monitor -OS_USER=4000002")
    before = shared_inside.ask("USERS LIST")
    assert shared_inside.err(line) == code
    assert shared_inside.ask("USERS LIST") == before


def test_users_password_is_ones_own_or_an_administrators_for_all(inside):
    alice, bob = add_guest(inside, "monitor", name="alice"), add_guest(inside, "administrator", name="bob")
    assert alice.code("USERS PASSWORD bob 'correct horse'") == "DENIED"
    assert alice.code("USERS PASSWORD nobody 'correct horse'") == "DENIED"      # nothing is told of who there is
    assert alice.ask("USERS PASSWORD alice 'correct horse'") == ["OK user=alice"]
    assert bob.ask("USERS PASSWORD alice 'battery staple'") == ["OK user=alice"]
    assert Guest(inside).ask("AUTH alice 'correct horse'") == [WRONG]
    Guest(inside).log_in("alice", "battery staple")


# -- at once ---------------------------------------------------------------------------

def test_changes_of_a_user_reach_open_connections_at_once(inside):
    guest = add_user(inside, "alice", "monitor")
    assert guest.code("EXEC HELLO") == "DENIED"
    inside.ok("USERS SET alice -ROLE=operator")
    assert guest.code("EXEC HELLO") == "OK"
    inside.ok("USERS SET alice -SCENARIOS=LOAD_*")
    assert guest.code("EXEC HELLO") == "NOT_FOUND"
    inside.ok("USERS SET alice -SCENARIOS=")
    assert guest.code("EXEC HELLO") == "OK"
    inside.ok("USERS SET alice -RESET")                 # whoever knows the old one is out
    assert guest.code("PING") == "AUTH"
    inside.ok("USERS PASSWORD alice 'correct horse'")
    assert guest.code("PING") == "AUTH"
    assert guest.log_in("alice", "correct horse").code("PING") == "OK"
    inside.ok("USERS DEL alice")
    inside.ok("USERS ADD alice -ROLE=administrator")    # another one of that name
    assert guest.code("PING") == "AUTH"


def test_an_os_user_is_let_in_and_out_while_he_is_connected(inside):
    guest = Guest(inside, 4000003)
    assert guest.code("PING") == "AUTH"
    inside.ok("USERS ADD alice -ROLE=monitor -OS_USER=4000003")
    assert guest.code("PING") == "OK"
    inside.ok("USERS SET alice -OS_USER=")
    assert guest.code("PING") == "AUTH"


def test_a_log_that_is_followed_ends_when_its_reader_is_deleted(inside):
    inside.import_os("TALK", "echo one; while [ ! -e %s ]; do sleep 0.02; done; echo two" % (inside.folder / "go"))
    guest = add_guest(inside, "monitor", name="alice")
    session = inside.ok("EXEC TALK")["session"]
    wait_for(lambda: inside.log_texts(session) == ["one"], "the first line")
    lines = (line for line in guest.conversation.begin(("LOG %s -FOLLOW" % session).encode()).chunks()
             if line is not program.FLUSH)
    assert next(lines).endswith("one")
    inside.ok("USERS DEL alice")
    (inside.folder / "go").write_text("")
    assert [line.split()[:2] for line in lines] == [["ERR", "AUTH"]]


# -- the last administrator ------------------------------------------------------------

def test_without_an_owner_the_last_administrator_stays(make_inside):
    running = make_inside(folder="a").start()
    running.ok("USERS ADD root1 -ROLE=administrator")
    running.ok("USERS DEL root1")                       # the owner gets in
    running.ok("USERS ADD root1 -ROLE=administrator -OS_USER=4000004")
    running.ok("USERS ADD half -ROLE=administrator -SCENARIOS=A*")
    running.stop()
    closed = make_inside("--no-owner", folder="a").start()
    assert Guest(closed, 0).code("PING") == "AUTH"
    one = Guest(closed, 4000004)
    for line in ("USERS DEL root1", "USERS SET root1 -ROLE=operator", "USERS SET root1 -SCENARIOS=A"):
        assert one.code(line) == "CONFLICT"
    one.ok("USERS SET root1 -OS_USER=4000004")
    one.ok("USERS ADD root2 -ROLE=administrator")
    one.ok("USERS DEL root1")
    assert one.code("PING") == "AUTH"


def test_no_owner_wants_an_administrator(make_inside):
    with pytest.raises(program.CannotStart, match="--no-owner.*USERS ADD"):
        make_inside("--no-owner").start()


# -- narrowed --------------------------------------------------------------------------

def test_listings_leave_out_what_is_not_there(world, narrowed):
    guest = narrowed["monitor"]
    assert distinct(guest.rows("SCENARIOS"), "scenario") == ["LOAD_A", "LOAD_B", "LOAD_PARENT"]
    assert distinct(guest.rows("SESSIONS"), "scenario") == ["LOAD_A", "LOAD_PARENT"]
    assert distinct(guest.rows("SCHED LIST"), "name") == ["AFTER_SECRET", "OF_LOAD"]
    assert distinct(guest.rows("SCHED NEXT"), "schedule") == ["OF_LOAD"]
    assert distinct(guest.rows("SCHED PLAN -ALL -TO=+2d"), "schedule") == ["OF_LOAD"]
    document = json.loads("".join(line[2:] for line in guest.ask("EXPORT")[:-1]))
    assert [each["name"] for each in document.pop("scenarios")] == ["LOAD_A", "LOAD_B", "LOAD_PARENT"]
    assert [each["name"] for each in document.pop("schedules")] == ["AFTER_SECRET", "OF_LOAD"]
    assert document == {}
    assert guest.code("PING") == "OK" and guest.code("REPOS") == "OK" and guest.code("CONTEXTS") == "OK"


def test_a_limit_counts_what_is_there(world):
    guest = add_guest(world, "monitor", "LOAD_A")
    for _ in range(3):
        world.ok("EXEC LOAD_A -SYNC")
        world.ok("EXEC SECRET -SYNC")
    rows = guest.rows("SESSIONS -LIMIT=3")
    assert [row["scenario"] for row in rows] == ["LOAD_A"] * 3
    assert guest.rows("SESSIONS -SCENARIO=SECRET") == []


@pytest.mark.parametrize("form", [
    "EXEC %s", "EXEC %s 7", "EXEC %s -1 NO_CONTEXT", "EXEC %s v=1", "EXEC %s -FROM=x", "EXEC %s -REPO=WORKREP",
    "EXPORT %s", "EXPORT %s 9", "DROP %s 1", "SCHED ADD NEW %s -1 GLOBAL 'daily at 02:00'",
    "SCHED SET OF_LOAD -SCENARIO=%s", "SCHED ADD NEW LOAD_A -1 GLOBAL -AFTER=scenario:%s"])
def test_a_hidden_scenario_and_none_have_the_same_answer(world, narrowed, form):
    guest = narrowed["administrator"]
    hidden, missing = guest.ask(form % "SECRET"), guest.ask(form % "ABSENT")
    assert hidden[0].startswith("ERR NOT_FOUND") and "SECRET" in hidden[0]
    assert hidden == [line.replace("ABSENT", "SECRET") for line in missing]


def test_a_scenario_that_is_not_there_has_the_answer_of_the_agent(world, narrowed):
    guest = narrowed["operator"]
    for line in ("EXEC ABSENT", "EXPORT ABSENT"):
        assert guest.ask(line) == world.ask(line)


@pytest.mark.parametrize("form", ["STOP %s", "RESTART %s", "STATUS %s", "LOG %s", "WAIT %s", "STOP %s -IMMEDIATE",
                                  "RESTART %s -SKIP", "LOG %s -FOLLOW -STEP=x"])
def test_a_hidden_session_and_none_have_the_same_answer(world, narrowed, form):
    guest = narrowed["operator"]
    number = world.sessions["SECRET"]
    hidden, missing = guest.ask(form % number), guest.ask(form % 999001)
    assert hidden[0].startswith("ERR NOT_FOUND")
    assert hidden == [line.replace("999001", number) for line in missing]


@pytest.mark.parametrize("form", ["SCHED SHOW %s", "SCHED NEXT %s", "SCHED WHY %s", "SCHED ON %s", "SCHED OFF %s",
                                  "SCHED SET %s -PRIORITY=1", "SCHED DEL %s", "HOLD -SCHEDULE=%s",
                                  "RELEASE -SCHEDULE=%s", "SCHED ADD NEW LOAD_A -1 GLOBAL -AFTER=%s"])
def test_a_hidden_schedule_and_none_have_the_same_answer(world, narrowed, form):
    guest = narrowed["administrator"]
    hidden, missing = guest.ask(form % "OF_SECRET"), guest.ask(form % "ABSENT")
    assert hidden[0].startswith("ERR NOT_FOUND")
    assert hidden == [line.replace("ABSENT", "OF_SECRET") for line in missing]


def test_no_line_leads_to_what_is_not_there(world, narrowed):
    guest = narrowed["monitor"]
    parent = world.sessions["SECRET_PARENT"]
    (child,) = world.rows("SESSIONS -PARENT=%s" % parent)
    assert child["parent"] == parent and guest.status(child["session"])["parent"] == ""
    assert {row["parent"] for row in guest.rows("SESSIONS")} == {""}
    assert guest.rows("SESSIONS -PARENT=%s" % parent) == guest.rows("SESSIONS -PARENT=999001") == []
    own = world.sessions["LOAD_PARENT"]
    assert guest.rows("SESSIONS -PARENT=%s" % own) == []
    met = {row["after"]: row["met"] for row in guest.rows("SCHED SHOW AFTER_SECRET") if "after" in row}
    assert met == {"OF_SECRET": "", "SECRET": "", "LOAD_B": ""}
    assert {row["after"]: bool(row["met"]) for row in world.rows("SCHED SHOW AFTER_SECRET") if "after" in row} == {
        "OF_SECRET": False, "SECRET": True, "LOAD_B": False}
    shown = guest.ask("SCHED WHY AFTER_SECRET")[-1]
    assert world.sessions["SECRET"] not in shown and "newest session" not in shown


def test_the_key_of_a_hidden_session_is_taken_and_says_no_more(world, narrowed):
    session = world.ok("EXEC SECRET -KEY=shared")["session"]
    reply = narrowed["operator"].ask("EXEC LOAD_A -KEY=shared")
    assert reply[0].startswith("ERR CONFLICT") and session not in reply[0]


def test_what_a_session_waits_for_names_no_hidden_session(make_inside):
    running = make_inside("--max-sessions", "1").start()
    for name in ("LOAD_A", "SLOW"):
        running.import_os(name, "sleep 1000")
    guest = add_guest(running, "operator", "LOAD_*", name="alice")
    slow = running.ok("EXEC SLOW")["session"]
    running.wait_status(slow, "RUNNING")
    session = guest.ok("EXEC LOAD_A")["session"]
    row, own = guest.status(session), running.status(session)
    assert (row["waits_for"], row["message"]) == ("slot", "limit 1 of the agent") and slow in own["message"]
    for each in (slow, session):
        running.ok("STOP %s -IMMEDIATE" % each)


def test_a_hidden_child_that_is_waited_for_has_no_number(inside):
    inside.import_os("SLOW", "sleep 1000")
    inside.import_document({"scenarios": [{"name": "LOAD_P", "version": "1", "steps": [
        {"name": "main", "tasks": [{"type": "scenario", "name": "SLOW"}]}]}]})
    guest = add_guest(inside, "operator", "LOAD_*")
    session = guest.ok("EXEC LOAD_P")["session"]
    own = wait_for(lambda: inside.status(session)["waits_for"] == "children" and inside.status(session), "the child")
    row = guest.status(session)
    assert (row["waits_for"], row["message"]) == ("children", "waits for a session that it began")
    assert own["message"].startswith("waits for session ")
    assert guest.code("STOP %s -IMMEDIATE" % session) == "OK"       # it goes down to what is not there
    assert {each["status"] for each in inside.rows("SESSIONS")} == {"STOPPED"}


@pytest.mark.parametrize("line", [
    "HOLD", "HOLD 'a reason'", "RELEASE", "HOLD -REPO=WORKREP", "RELEASE -REPO=WORKREP", "CLEAN", "METRICS", "AUDIT",
    "BACKUP x", "PURGE -AUDIT -DAYS=0", "PURGE -AUDIT -DAYS=0 -DRY_RUN", "SHUTDOWN", "IMPORT '{}'", "ATTACH A b",
    "DETACH WORKREP", "CALENDAR ADD A 2026-12-25", "SCHED UPDATE", "USERS LIST",
    "USERS ADD x -ROLE=administrator", "USERS SET narrowed -SCENARIOS=", "USERS DEL narrowed",
    "USERS PASSWORD shared 'correct horse'"])
def test_a_narrowed_administrator_has_nothing_of_the_whole_agent(world, line):
    if not any(row["user"] == "narrowed" for row in world.rows("USERS LIST")):
        world.ok("USERS ADD narrowed -ROLE=administrator -SCENARIOS=LOAD_* -OS_USER=4000010")
    assert Guest(world, 4000010).err(line) == "DENIED"


def test_every_verb_is_decided_of_for_the_narrowed():
    """What is new is denied until somebody has said what of it is there for whom."""
    agent_wide = {"CLEAN", "METRICS", "SHUTDOWN", "IMPORT", "ATTACH", "DETACH", "CALENDAR ADD", "CALENDAR SET",
                  "CALENDAR DEL", "SCHED UPDATE", "USERS LIST", "USERS ADD", "USERS SET", "USERS DEL"}
    assert not agent_wide & program.ALLOWED and program.ALLOWED <= set(program.VERBS)
    assert agent_wide <= set(program.VERBS)


def test_a_narrowed_user_does_what_is_there_for_him(inside):
    inside.import_os("LOAD_A", "true")
    inside.import_os("OTHER", "true")
    inside.ok("EXEC OTHER -SYNC")
    inside.ok("SCHED ADD OF_OTHER OTHER -1 GLOBAL 'daily at 02:00'")
    guest = add_guest(inside, "administrator", "LOAD_*", name="alice")
    session = guest.ok("EXEC LOAD_A -SYNC")["session"]
    assert guest.status(session)["status"] == "DONE" and guest.code("LOG %s" % session) == "OK"
    guest.ok("SCHED ADD S LOAD_A -1 GLOBAL 'daily at 02:00'")
    for line in ("SCHED OFF S", "SCHED ON S", "HOLD -SCHEDULE=S", "RELEASE -SCHEDULE=S", "SCHED SET S -PRIORITY=2"):
        assert guest.code(line) == "OK", line
    assert guest.code("SCHED DEL S") == "OK"
    assert guest.ok("PURGE -KEEP=0 -DRY_RUN")["purged"] == guest.ok("PURGE -KEEP=0")["purged"] == "1"
    assert [row["scenario"] for row in inside.rows("SESSIONS")] == ["OTHER"]
    inside.ok("SCHED ADD HIDDEN OTHER -1 GLOBAL -AFTER=scenario:LOAD_A")
    reply = guest.ask("DROP LOAD_A 1")[0]
    assert reply.startswith("ERR CONFLICT") and "HIDDEN" not in reply
    inside.ok("SCHED DEL HIDDEN")
    assert guest.code("DROP LOAD_A 1") == "OK"


def test_a_schedule_is_found_where_it_is_there(inside):
    inside.import_os("OTHER", "true")
    inside.ok("ATTACH SECOND second.db -CREATE")
    document = {"scenarios": [{"name": "LOAD_A", "version": "1", "steps": [
        {"name": "main", "tasks": [{"type": "os", "command": "true"}]}]}]}
    inside.import_document(document, "-REPO=SECOND")
    inside.ok("SCHED ADD S OTHER -1 GLOBAL 'daily at 02:00' -REPO=WORKREP")
    inside.ok("SCHED ADD S LOAD_A -1 GLOBAL 'daily at 03:00' -REPO=SECOND")
    guest = add_guest(inside, "operator", "LOAD_*", name="alice")
    guest.ok("SCHED OFF S")
    assert {row["scenario"]: row["enabled"] for row in inside.rows("SCHED LIST")} == {"OTHER": "yes", "LOAD_A": "no"}
    assert guest.code("SCHED OFF S -REPO=WORKREP") == "NOT_FOUND"
    assert guest.ask("EXEC OTHER") == [line.replace("ABSENT", "OTHER") for line in inside.ask("EXEC ABSENT")]


def test_occurrences_are_those_of_schedules_that_are_there(inside):
    for name in ("LOAD_A", "OTHER"):
        inside.import_os(name, "true")
        inside.ok("SCHED ADD OF_%s %s -1 GLOBAL 'every 1h'" % (name, name))
    inside.let_pass(3 * 3600)
    guest = add_guest(inside, "monitor", "LOAD_*", name="alice")
    assert distinct(inside.rows("SCHED WHY"), "schedule")[-2:] == ["OF_LOAD_A", "OF_OTHER"]
    rows = [row for row in guest.rows("SCHED WHY -LIMIT=2") if row["schedule"]]
    assert rows and distinct(rows, "schedule") == ["OF_LOAD_A"]
    inside.ok("SCHED DEL OF_OTHER")
    inside.ok("SCHED DEL OF_LOAD_A")
    assert distinct([row for row in guest.rows("SCHED WHY") if row["schedule"]], "schedule") == ["OF_LOAD_A"]
