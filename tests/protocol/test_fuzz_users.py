"""What users may send, by a seeded generator (see test_fuzz.py): strangers are not let in, who is narrowed is told
nothing of what is not there for him and changes nothing of it, and the agent serves its owner afterwards."""
import json

import pytest

from conftest import program
from support.fuzz import HOSTILE, SEEDS, Fuzz
from support.outside import query
from support.speaker import AT_WORK, Speaker, UserSpeaker
from support.users import Guest, add_guest, add_user

pytestmark = pytest.mark.once

HIDDEN = "ZQHIDDENQZ"       # in all that is not there for who is narrowed, and in nothing else
QUOTES = ['"%s"', "'%s'", "%s", '"%s', "%s'", '""%s', "'%s'x", '"\\u0000%s"', '"\\ud800%s"', "  %s\t", "%s\0", "=%s",
          "{%s"]


@pytest.fixture
def divided(inside):
    """An agent with scenarios, sessions and schedules that are there for all, and such that are not."""
    inside.import_os(HIDDEN, "echo %s" % HIDDEN, description="of %s" % HIDDEN)
    inside.import_document({"scenarios": [
        {"name": name, "version": "9", "variables": {"v": "1"}, "steps": [
            {"name": "main", "tasks": [{"type": "set", "variable": "v", "value": "2"}]}]} for name in ("S", "T")]})
    for name in (HIDDEN, "S", HIDDEN, "T", HIDDEN):
        inside.ok("EXEC %s -SYNC -NAME=%s" % (name, "of" + name))
    for name, rule in (("OF_S", "daily at 02:00"), ("T", "every 1h")):
        inside.ok("SCHED ADD %s S -1 GLOBAL \"%s\"" % (name, rule))
    inside.ok("SCHED ADD X%s %s -1 GLOBAL \"every 1d\" -AFTER=OF_S" % (HIDDEN, HIDDEN))
    inside.ok("EXEC %s -KEY=of%s -AT=+90d" % (HIDDEN, HIDDEN))
    return inside


def hidden_contents(running):
    """What the repository has that is not there for who is narrowed."""
    return [query(running.work, sql, HIDDEN) for sql in (
        "select * from session where scenario=? order by id", "select name, version from scenario where name=?",
        "select name, rule, enabled, options, variables, hold_reason, revision from schedule where scenario=?",
        "select t.* from session_task t join session s on s.id = t.session where s.scenario=?")]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("role", program.ROLES)
def test_who_is_narrowed(divided, role, seed):
    add_guest(divided, role, "S,T,A*,x*", "narrow")
    uid = int(query(divided.master, "select os_user from user where name='narrow'")[0][0].split()[-1])
    before, speaker, fuzz = hidden_contents(divided), UserSpeaker(divided, uid, HIDDEN), Fuzz(seed)
    assert all(before)
    for _ in range(400):
        speaker.say(fuzz.request(AT_WORK))
    print(speaker.counts)
    assert {"OK", "BAD_REQUEST", "NOT_FOUND", "DENIED"} <= set(speaker.counts), speaker.counts
    assert hidden_contents(divided) == before
    assert len(query(divided.master, "select name from user")) == 1
    assert divided.ok("EXEC %s -SYNC" % HIDDEN)["status"] == "DONE"


class Member(Speaker):
    """A user of a role, who says by his password who he is, whenever he connects again."""
    is_first = True

    def converse(self):
        if self.is_first:
            add_user(self._running, "member", self._client.role)
            self.is_first = False
        self.counts["AUTH said"] = self.counts.get("AUTH said", 0) + 1
        address = "127.1.%d.1" % self.counts["AUTH said"]
        return Guest(self._running, address=address).log_in("member", "correct horse").conversation


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("role", program.ROLES)
def test_who_has_said_who_he_is(divided, role, seed):
    """What is for administrators is for nobody below them."""
    speaker, fuzz = Member(divided, role), Fuzz(seed)
    speaker.say(b"PING")

    def defined():
        return [query(path, sql) for path, sql in (
            (divided.master, "select * from user"), (divided.master, "select * from calendar"),
            (divided.master, "select * from context"), (divided.master, "select id, name, path from work_repository"),
            (divided.work, "select * from scenario"),
            (divided.work, "select name, scenario, rule, options, variables from schedule"))]
    before = defined()
    for _ in range(300):
        speaker.say(fuzz.request(AT_WORK))
    print(speaker.counts)
    assert {"OK", "BAD_REQUEST", "NOT_FOUND"} <= set(speaker.counts), speaker.counts
    assert role == program.ADMINISTRATOR or defined() == before and "DENIED" in speaker.counts, speaker.counts
    divided.import_os("AFTER", "true")
    divided.ok("RELEASE")
    assert divided.ok("EXEC AFTER -SYNC")["status"] == "DONE"


@pytest.mark.parametrize("seed", SEEDS)
def test_auth_with_any_words(inside, seed):
    """Of a user that there is, by any words, quotes and sizes, but not by his password."""
    add_user(inside, "alice", "administrator")
    before, fuzz, counts = inside.ask("USERS LIST"), Fuzz(seed), {}
    words = HOSTILE + ["alice", "correct hors", "correct  horse", "x" * 70000, "\ud800", "\0", "\u00e9" * 200]
    for number in range(300):
        line = "AUTH " + " ".join(fuzz.pick(QUOTES).replace("%s", fuzz.pick(words))
                                  for _ in range(fuzz.pick([1, 2, 2, 2, 2, 3])))
        line = line.replace("\n", "").encode("utf-8", "surrogatepass")
        guest = Guest(inside, address="127.0.%d.%d" % (fuzz.rng.randrange(3), number % 250))
        reply = guest.conversation.begin(fuzz.damage(line) if fuzz.chance(0.2) else line)
        lines = list(reply.chunks()) if reply else []
        assert len(lines) <= 1, (line[:300], lines)
        code = lines[0].split()[1] if lines else "BLANK"
        counts[code] = counts.get(code, 0) + 1
        assert not lines or lines[0].startswith("ERR ") and code in {
            "AUTH", "BUSY", "BAD_REQUEST", "UNKNOWN_VERB", "TOO_LONG"}, (line[:300], lines)
        assert guest.conversation.is_over or guest.code("PING") == "AUTH", line[:300]
    print(counts)
    assert {"AUTH", "BAD_REQUEST"} <= set(counts), counts
    assert inside.ask("USERS LIST") == before


@pytest.mark.parametrize("seed", SEEDS)
def test_audit_with_any_options(divided, seed):
    fuzz, speaker = Fuzz(seed), Speaker(divided, program.ADMINISTRATOR)
    forms = [form for form in program.VERB_FORMS if form.name.split()[0] in ("AUDIT", "USERS")]
    for _ in range(300):
        speaker.say(fuzz.request(forms))
    for line in (b"AUDIT", b"AUDIT -LIMIT=100000 -JSON", b"USERS LIST", b"USERS LIST -JSON"):
        assert speaker.say(line) == "OK"
    print(speaker.counts)
    assert {"OK", "BAD_REQUEST", "NOT_FOUND"} <= set(speaker.counts), speaker.counts
    rows = [json.loads(line[2:]) for line in divided.ask("AUDIT -LIMIT=100000 -JSON")[:-1]]
    assert not any(word in json.dumps(rows) for word in ("correct horse", "a battery"))
    for role in (program.MONITOR, program.OPERATOR):
        other = Speaker(divided, role)
        for _ in range(60):
            other.say(fuzz.request([form for form in forms if form.role == program.ADMINISTRATOR]))
        assert set(other.counts) <= {"DENIED", "BAD_REQUEST", "UNKNOWN_VERB", "BLANK"}, other.counts
