"""Who is at the other end: Access, wrong passwords, hashes and patterns."""
import hashlib
import itertools
import os
import pwd
import threading

import pytest

import agent as program
from conftest import LIMIT_S, wait_for
from support.clock import HurriedClock
from support.outside import change, foreign_lock
from support.users import Guest, add_guest, add_user

ME = os.getuid()

pytestmark = pytest.mark.usefixtures("quick_hashes")


def peer(uid=None, **fields):
    return program.Peer(uid, "uid %s" % uid, **fields)


# -- who is it -------------------------------------------------------------------------

def test_the_owner_is_known_without_the_master(tmp_path):
    settings = program.parse_arguments(["--master", str(tmp_path / "none.db")])
    access = program.Access(settings, program.Clock())
    for uid in {0, ME}:
        assert access.identify(peer(uid)).is_administrator and access.is_owner(peer(uid))
        assert access.identify(peer(uid, is_private=False)).role is None
    assert access.identify(peer(4000000)).role is None and access.identify(peer(None)).role is None
    access.close()


def test_an_os_user_and_a_certificate(inside):
    access = inside.agent.access
    assert not access.has_users()
    name = pwd.getpwuid(65534).pw_name
    inside.ok("USERS ADD guest -ROLE=operator -SCENARIOS=A* -OS_USER=%s" % name)
    inside.ok("USERS ADD alice -ROLE=monitor")
    assert access.has_users()
    client = access.identify(peer(65534))
    assert (client.role, client.user, client.name, client.scenarios) == ("operator", "guest", "guest", ("A*",))
    client = access.identify(peer(None, certificate="alice", is_private=True))
    assert (client.role, client.user, client.is_temporary) == ("monitor", "alice", False)
    assert access.identify(peer(None, certificate="nobody")).role is None
    assert access.identify(peer(65534, is_private=False)).role is None


def test_a_name_of_a_user_is_no_os_user_of_that_name(inside):
    inside.ok("USERS ADD root -ROLE=monitor")
    inside.ok("USERS ADD nobody -ROLE=administrator")
    assert Guest(inside, 65534).code("PING") == "AUTH"
    assert Guest(inside, 0).code("SCHED UPDATE") == "OK"


def test_requests_wait_for_no_repository(inside):
    """A locked master keeps nobody from being known."""
    guest = add_user(inside, "alice", "monitor")
    with foreign_lock(inside.master):
        assert guest.code("PING") == "OK"
        assert Guest(inside).log_in("alice", "correct horse").code("PING") == "OK"


def test_what_another_agent_changes_is_seen(make_inside):
    first = make_inside("--name", "A").start()
    guest = add_guest(first, "monitor", name="alice")
    second = make_inside("--name", "B").start()
    other = Guest(second, guest.conversation._client.peer.uid)
    assert other.code("PING") == "OK"
    first.ok("USERS DEL alice")
    second.let_pass(11)
    wait_for(lambda: other.code("PING") == "AUTH", "the other agent to look at the users")


def test_who_is_spoilt_by_another_program_is_nobody(inside):
    guest = add_guest(inside, "administrator", name="alice")
    once = inside.ok("USERS ADD bob -ROLE=monitor")["password"]
    change(inside.master, "update user set role='king' where name='alice'",
           "update user set one_time_until='never' where name='bob'")
    inside.let_pass(11)
    wait_for(lambda: guest.code("PING") == "AUTH", "the agent to look at the users")
    assert Guest(inside).code("AUTH bob %s" % once) == "AUTH" and Guest(inside).code("AUTH alice x") == "AUTH"
    assert [row["user"] for row in inside.rows("USERS LIST")] == ["bob"]


def test_a_user_is_kept_over_a_restart(make_inside):
    running = make_inside().start()
    add_user(running, "alice", "operator")
    running.stop()
    again = make_inside().start()
    assert Guest(again).log_in("alice", "correct horse").code("EXEC HELLO") == "OK"


def test_the_loopback_owner_looks_at_one_number(inside):
    """However many users there are: a request of the owner reads none of them while they stay as they are."""
    conversation = Guest(inside, 0).conversation
    inside.agent.access._users = inside.agent.access._os_users = None       # whoever reads them fails
    for _ in range(3):
        assert list(conversation.begin(b"PING").chunks())[0].startswith("OK")
    inside.agent.access._users, inside.agent.access._os_users = {}, {}


def test_an_older_master_gets_users(tmp_path):
    number = next(place for place, text in enumerate(program.MASTER_MIGRATIONS) if "table user" in text)
    path = tmp_path / "master.db"
    path.touch()
    program.Database(str(path), "master", "older", program.MASTER_MIGRATIONS[:number], program.Clock()).open().close()
    master = program.Master(str(path), program.Clock()).open()
    assert master.db.read(program.Users().list_all) == [] and (tmp_path / ("master.db.v%d" % number)).exists()
    master.db.close()


# -- wrong passwords -------------------------------------------------------------------

@pytest.fixture
def guesses():
    clock = HurriedClock()
    return program.Guesses(clock), clock


def seconds_to_wait(guesses, source, name):
    """How many seconds a source has to wait, 0 for none."""
    try:
        guesses.check(source, name)
        return 0
    except program.Busy as error:
        return int(error.message.split()[-2])


def test_wrong_passwords_cost_more_and_more_up_to_a_bound(guesses):
    counted, clock = guesses
    waits = []
    for _ in range(20):
        counted.note("here", "alice")
        waits.append(seconds_to_wait(counted, "here", "alice"))
        clock.passed += 31
        assert seconds_to_wait(counted, "here", "alice") == 0
    assert waits[:4] == [0] * 4 and waits == sorted(waits) and 1 <= waits[4] <= 2 and waits[-1] in (30, 31)
    clock.passed += program.FORGET_S
    counted.note("here", "alice")
    assert seconds_to_wait(counted, "here", "alice") == 0


def test_nobody_locks_out_a_user_who_comes_from_elsewhere(guesses):
    counted, _ = guesses
    for place in range(50):
        counted.note("source %d" % place, "alice")
    assert seconds_to_wait(counted, "another", "alice") == 0
    counted.note("another", "alice")                    # once wrong, all that was tried on her counts
    assert seconds_to_wait(counted, "another", "alice") > 20
    assert seconds_to_wait(counted, "another", "bob") == 0


def test_many_names_from_one_source_cost_as_much(guesses):
    counted, _ = guesses
    for place in range(10):
        counted.note("here", "user%d" % place)
    assert seconds_to_wait(counted, "here", "one more") > 20


def test_what_is_remembered_is_bounded(guesses):
    counted, _ = guesses
    for place in range(3 * program.MAX_REMEMBERED):
        counted.note("source %d" % place, "user %d" % place)
    assert len(counted._of_sources) == len(counted._of_users) == program.MAX_REMEMBERED


def test_one_provider_of_addresses_is_one_source():
    def source(address):
        return program.find_source(program.Peer(None, "", address))
    assert source("2001:db8::1") == source("2001:db8::ffff:1%eth0") != source("2001:db8:0:1::1")
    assert source("192.0.2.1") != source("192.0.2.2") and source("unix") == source("unix")
    assert program.find_source(program.Peer(5, "", "127.0.0.1")) != program.find_source(program.Peer(6, "", "127.0.0.1"))


def test_guessing_is_slowed_and_the_right_one_gets_in_elsewhere(inside):
    inside.ok("USERS ADD alice -ROLE=monitor")
    inside.ok("USERS PASSWORD alice 'correct horse'")
    guesser = Guest(inside, address="192.0.2.7")
    answers = [guesser.code("AUTH alice guess%d" % place) for place in range(6)]
    assert answers == ["AUTH"] * 5 + ["BUSY"]
    assert guesser.code("AUTH alice 'correct horse'") == "BUSY"         # not even asked
    assert Guest(inside, address="192.0.2.8").code("AUTH alice 'correct horse'") == "OK"
    inside.let_pass(31)
    assert guesser.code("AUTH alice 'correct horse'") == "OK"


def test_few_passwords_are_compared_at_once_and_few_wait():
    desk, begun, gate = program.PasswordDesk(), [], threading.Event()

    def work(name):
        begun.append(name)
        gate.wait(LIMIT_S)
        return name
    outcomes = []

    def ask(source):
        try:
            outcomes.append(desk._ask(source, work, source))
        except program.Busy:
            outcomes.append("busy")
    threads = [threading.Thread(target=ask, args=("flood",), daemon=True) for _ in range(30)]
    for thread in threads:
        thread.start()
    wait_for(lambda: outcomes.count("busy") == 30 - program.MAX_WAITING_OF_ONE, "the rest to be refused")
    assert begun == ["flood"]
    threads += [threading.Thread(target=ask, args=("other %d" % place,), daemon=True)
                for place in range(program.MAX_WAITING)]
    for thread in threads[30:]:
        thread.start()
    wait_for(lambda: outcomes.count("busy") == 30, "the queue to be full")
    gate.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(begun) == program.MAX_WAITING and len(outcomes) == 30 + program.MAX_WAITING
    desk.close()
    with pytest.raises(program.Stopping):
        desk.make_hash("late", "correct horse")


# -- hashes ----------------------------------------------------------------------------

def test_hashes_tell_their_parameters_and_no_two_are_alike():
    one, two = program.hash_password("correct hörse"), program.hash_password("correct hörse")
    assert one != two and one.split("$")[0] in ("scrypt", "pbkdf2") and "correct" not in one
    assert program.is_password("correct hörse", one) and program.is_password("correct hörse", two)
    for wrong in ("", "correct horse", "correct hörse "):
        assert not program.is_password(wrong, one)
    assert not program.is_password("", program.make_unusable_hash())


def test_a_hash_of_either_kind_is_compared():
    """As another host has made it: RFC 7914, section 12 (scrypt), and section 11 (PBKDF2), with fewer rounds."""
    salt = "NaCl".encode().hex()
    derived = hashlib.pbkdf2_hmac("sha256", b"Password", b"NaCl", 80000, 32).hex()
    assert derived.startswith("4ddcd8f60b98be21830cee5ef22701f9")
    assert program.is_password("Password", "pbkdf2$80000$%s$%s" % (salt, derived))
    assert program.is_password("password", "scrypt$1024:8:16$%s$%s" % (
        salt, "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162")) if has_scrypt() else True


def has_scrypt():
    return program.make_unusable_hash().startswith("scrypt")


@pytest.mark.parametrize("stored", ["", "x", "plain$1$00$00", "scrypt$x$00$00", "pbkdf2$1$zz$00", "scrypt$3:8:1$00$00"])
def test_a_spoilt_hash_fits_no_password_and_fails_nothing(stored):
    assert program.compare("correct horse", stored) is False


def test_an_unknown_user_costs_what_a_wrong_password_does():
    stored, nobody = program.hash_password("correct horse"), program.make_unusable_hash()
    assert nobody.rsplit("$", 2)[0] == stored.rsplit("$", 2)[0]


# -- patterns --------------------------------------------------------------------------

@pytest.mark.parametrize("pattern,yes,no", [
    ("LOAD", "LOAD", "load LOAD_ XLOAD"), ("LOAD_*", "LOAD_ LOAD_A LOAD_A_B", "LOAD XLOAD_A"),
    ("*", "A AB", ""), ("?", "A", "AB"), ("A?C", "ABC A.C", "AC ABBC"), ("*_X", "A_X _X A_X_X", "A_XX"),
    ("A*B*C", "ABC AxBxC ABBCBC", "ACB ABCD"), ("**A**", "A xAx", "B"), ("A.C", "A.C", "ABC"), ("a*", "abc", "Abc")])
def test_patterns(pattern, yes, no):
    assert all(program.is_match(pattern, text) for text in yes.split())
    assert not any(program.is_match(pattern, text) for text in no.split())


def test_patterns_against_a_slow_and_sure_one():
    def is_slow_match(pattern, text):
        if not pattern:
            return not text
        if pattern[0] == "*":
            return any(is_slow_match(pattern[1:], text[start:]) for start in range(len(text) + 1))
        return bool(text) and pattern[0] in ("?", text[0]) and is_slow_match(pattern[1:], text[1:])
    texts = ["".join(each) for size in range(5) for each in itertools.product("AB", repeat=size)]
    for size in range(5):
        for pattern in map("".join, itertools.product("A*?", repeat=size)):
            for text in texts:
                assert program.is_match(pattern, text) == is_slow_match(pattern, text), (pattern, text)


def test_no_pattern_takes_long():
    """With trials for each * it would take years."""
    assert not program.is_match("A*" * 63 + "C", "A" * 127 + "B")
    assert not program.is_match("*A" * 63 + "B", "A" * 128)
    assert not program.is_match("*" + "A" * 64 + "B", "A" * 128)


def test_patterns_are_names():
    assert program.check_patterns("LOAD_*,REPORT,LOAD_*") == ("LOAD_*", "REPORT") and program.check_patterns("") == ()
    for wrong in ("A,", "A B", "[A]", "A,,B", "A\\*", "{A}"):
        with pytest.raises(ValueError):
            program.check_patterns(wrong)
