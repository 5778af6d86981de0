"""The audit's chains: what a look through them finds, also after a purge."""
import contextlib
import hashlib
import json
import sqlite3
import threading

import pytest

import agent as program
from support.clock import NOON, FakeClock
from support.outside import change, query

COLUMNS = ("agent", "n", "time", "user", "os_user", "address", "verb", "object", "outcome", "count", "previous")
ROWS = 6
DAY = 86400.0


@pytest.fixture
def master(tmp_path):
    """A master whose chain A has some rows, a day between them, the first one at NOON."""
    (tmp_path / "master.db").touch()
    made = program.Master(str(tmp_path / "master.db"), FakeClock()).open()
    program.Chain(made, "A").append([happening(place) for place in range(ROWS)])
    program.Chain(made, "B").append([happening(0)])
    yield made
    made.db.close()


def happening(place, verb="STOP"):
    return program.Happening(NOON + place * DAY, program.Act(
        "", "r\u00f6ot", "127.0.0.1", verb, "%d001" % place, "OK"))


def states(master, noted=None):
    """{agent: ChainState} as another program reads it."""
    with contextlib.closing(sqlite3.connect(master.path)) as connection:
        connection.row_factory = sqlite3.Row
        return {state.agent: state for state in program.check_chains(connection, noted)}


def fault_of(master):
    """What is wrong with A; B is whole."""
    found = states(master)
    assert (found["B"].fault, found["B"].count) == ("", 1)
    return found["A"].fault


def purge(master, before):
    return program.Chain(master, "A").purge(before, happening(ROWS, "PURGE"))


def test_anybody_can_check_a_hash(master):
    """As the manual says it: SHA-256 over canonical JSON, and each row carries the one of the row before."""
    before = ""
    for row in query(master.path, "select %s, hash from audit where agent='A' order by n" % ", ".join(COLUMNS)):
        fields = dict(zip(COLUMNS, row))
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        assert fields["previous"] == before and row[-1] == hashlib.sha256(text.encode("ascii")).hexdigest()
        before = row[-1]
    assert states(master)["A"] == program.ChainState("A", ROWS, before, "", False)
    assert states(master, before)["A"].has_noted
    assert program.Chain(master, "A").find_end() == (ROWS, before)
    assert master.db.read(program.list_ends) == {
        "A": (ROWS, before), "B": (1, program.Chain(master, "B").find_end().hash)}


@pytest.mark.parametrize("n", (1, 3, ROWS))
@pytest.mark.parametrize("column", COLUMNS + ("hash",))
def test_a_change_of_any_column_is_found(master, column, n):
    change(master.path, "update audit set %s=%s || 7 where agent='A' and n=%d" % (column, column, n))
    found = {state.fault for state in states(master).values()}
    expected = {"agent": "row %d is missing" % n, "n": "row %d is missing" % n,
                "previous": "row %d does not follow row %d" % (n, n - 1)}.get(
                    column, "row %d is not as it was written" % n)
    if (column, n) in (("agent", ROWS), ("previous", 1), ("n", 1), ("agent", 1)):
        assert found - {""}             # of A7, which begins in its middle; or of a begin that is none
    else:
        assert expected in found


@pytest.mark.parametrize("n, expected", [
    (1, "row 1 is missing, and no purge took it"), (2, "row 2 is missing"), (5, "row 5 is missing"), (ROWS, "")])
def test_a_row_that_is_gone(master, n, expected):
    """The last one is missed by who knows its hash alone. What comes behind a fault is not believed."""
    head = program.Chain(master, "A").find_end().hash
    change(master.path, "delete from audit where agent='A' and n=%d" % n)
    assert fault_of(master) == expected
    assert states(master, head)["A"].has_noted == (n == 1)


def test_rows_in_another_order(master):
    change(master.path, "update audit set n=100 where n=3", "update audit set n=3 where n=4", "update audit set n=4 where n=100")
    assert fault_of(master) == "row 3 does not follow row 2"


@pytest.mark.parametrize("value", ("x'ff00'", "'two'", "3.5", "cast(x'ff41' as text)"))
@pytest.mark.parametrize("column", ("n", "count", "object", "previous", "hash"))
def test_what_no_agent_writes(master, column, value):
    change(master.path, "update audit set %s=%s where agent='A' and n=3" % (column, value))
    assert fault_of(master).startswith("row ")


def test_a_row_that_was_put_in(master):
    """With a hash of its own that is right, it stands where another does."""
    change(master.path, "update audit set n=n+100 where agent='A' and n>2", "update audit set n=n-99 where n>100")
    row = dict(zip(COLUMNS, ("A", 3, program.to_text(NOON), "", "root", "", "HOLD", "", "OK", 1)
                   + query(master.path, "select hash from audit where agent='A' and n=2")[0]))
    change(master.path, ("insert into audit values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                         [row[name] for name in COLUMNS] + [program.hash_row(row)]))
    assert fault_of(master) == "row 4 does not follow row 3"


def test_two_who_append_at_once_do_not_fork_it(master):
    other = program.Master(master.path, FakeClock()).open()

    def append(own):
        for place in range(40):
            program.Chain(own, "A").append([happening(place)] * 2)
    threads = [threading.Thread(target=append, args=(own,)) for own in (master, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.db.close()
    assert fault_of(master) == "" and states(master)["A"].count == ROWS + 160


# -- a purge ---------------------------------------------------------------------------

@pytest.mark.parametrize("days, gone", [(-1, 0), (0, 0), (0.5, 1), (3.5, 4), (ROWS, ROWS)])
def test_what_a_purge_leaves(master, days, gone):
    chain, before = program.Chain(master, "A"), NOON + days * DAY
    last = query(master.path, "select n, hash from audit where agent='A' and n=?", gone)
    assert chain.count_older(before) == gone == purge(master, before)
    assert chain.count_older(before) == 0 and fault_of(master) == ""
    rows = query(master.path, "select n, verb, object from audit where agent='A' order by n")
    assert rows[-1] == (ROWS + 1, "PURGE", "-AUDIT %d %s" % last[0] if last else "-AUDIT")
    assert [row[0] for row in rows] == list(range(gone + 1, ROWS + 2))


def test_a_purge_that_a_crash_has_cut_short(master, monkeypatch):
    """Its row comes first, then the rows go, the oldest first: the chain is whole at any time, and the next purge
    goes on."""
    monkeypatch.setattr(program, "PURGED_AT_ONCE", 2)
    monkeypatch.setattr(program.Chain, "_delete", lambda self, connection, last, whole=program.Chain._delete:
                        whole(self, connection, last) and 0)
    assert purge(master, NOON + 4.5 * DAY) == 5
    assert query(master.path, "select min(n), max(n) from audit where agent='A'") == [(3, ROWS + 1)]
    assert fault_of(master) == ""
    monkeypatch.undo()
    assert purge(master, NOON + 4.5 * DAY) == 3 and fault_of(master) == ""
    assert query(master.path, "select min(n), max(n) from audit where agent='A'") == [(6, ROWS + 2)]


def test_what_goes_besides_is_found(master):
    purge(master, NOON + 1.5 * DAY)
    assert fault_of(master) == ""
    change(master.path, "delete from audit where agent='A' and n=3")
    assert fault_of(master) == "row 3 is missing, and no purge took it"
    purge(master, NOON + 3.5 * DAY)
    assert fault_of(master) == ""          # it is told in a row, who purged
    change(master.path, "update audit set object=object || ' ' where agent='A' and verb='PURGE'")
    assert fault_of(master) == "row 4 is missing, and no purge took it"


def test_a_fault_is_told_also_where_the_begin_was_purged(master):
    purge(master, NOON + 1.5 * DAY)
    change(master.path, "update audit set user='x' where agent='A' and n=4")
    assert fault_of(master) == "row 4 is not as it was written"
