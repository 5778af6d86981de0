"""SESSIONS on a repository with very many past sessions: what is listed, and that it costs no look at all of them."""
import itertools
import random

import pytest

import agent as program

ENDED, BASE = ("DONE", "WARNING", "ERROR", "STOPPED"), 1700000000


def fill(path, count, seed=1):
    """A repository with so many sessions; in the middle the clock was a year ahead for a while."""
    dice = random.Random(seed)
    repository = program.WorkRepository.create(1, "WORKREP", str(path), program.Clock())
    rows = []
    for n in range(1, count + 1):
        ahead = 365 * 86400 if count // 2 < n < count // 2 + 20 else 0
        created = program.to_text(BASE + n * 60 + ahead)
        status = dice.choices(ENDED, [95, 3, 1.5, 0.5])[0] if n < count - 10 else dice.choice(program.OPEN)
        rows.append((n * 1000 + 1, "AGENT", "RARE" if n % 97 == 0 else "S%d" % (n % 5), status, created, created,
                     "N%d" % (n % 4) if n % 3 == 0 else None, (n - n % 25) * 1000 + 1 if n % 5 == 1 else None,
                     dice.choice(("", "all", "all,k%d" % (n % 11)))))

    def work(connection):
        connection.executemany(
            "insert into session(id, agent, scenario, version, definition, context, status, created, ended, variables,"
            " given, schedule, parent, keywords) values (?, ?, ?, '1', 1, 'GLOBAL', ?, ?, ?, '{}', '{}', ?, ?, ?)", rows)
        for row in rows:
            repository.sessions.put_keywords(connection, row[0], row[-1])
    repository.db.write(work, within_s=60)
    return repository


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """A small one, and one ten times as large."""
    made = [fill(tmp_path_factory.mktemp("listing") / "work.db", count) for count in (2000, 20000)]
    yield made
    for repository in made:
        repository.db.close()


def filters(last_s):
    """Filters of each kind and together; `last_s` is when the newest session was created."""
    for statuses, scenario, keyword, parent in itertools.product(
            ((), ("ERROR",), ("RUNNING", "DONE")), (None, "S1"), (None, "all"), (1975001, 1000001, 25001, 7001)):
        yield program.SessionFilter(statuses, scenario, None, keyword, None, parent)
    sinces = (None, BASE, last_s - 86400, last_s - 3600, last_s + 30 * 86400, last_s + 900 * 86400)
    for statuses, scenario, schedule, keyword, since in itertools.product(
            ((), ("ERROR",), ("STOPPED", "ERROR"), ("RUNNING",), ("DONE", "QUEUED")), (None, "S1", "RARE", "NOPE"),
            (None, "N2", "NOPE"), (None, "all", "k7", "nope"), sinces):
        yield program.SessionFilter(statuses, scenario, schedule, keyword, since)


def test_the_same_as_by_looking_at_all(repositories):
    small = repositories[0]
    with small.db.reading() as connection:
        rows = connection.execute("select * from session order by id desc").fetchall()
    for wanted in filters(BASE + 2000 * 60):
        for below, limit in ((1 << 62, 50), (1000 * 1000, 7)):
            found = small.db.read(small.views.list_sessions, wanted, below, limit)
            expected = [row["id"] for row in rows if row["id"] < below
                        and (not wanted.statuses or row["status"] in wanted.statuses)
                        and wanted.scenario in (None, row["scenario"]) and wanted.schedule in (None, row["schedule"])
                        and wanted.parent in (None, row["parent"])
                        and (wanted.keyword is None or wanted.keyword in row["keywords"].split(","))
                        and (wanted.since is None or row["created"] >= program.to_text(wanted.since))]
            assert [row["id"] for row in found] == expected[:limit], wanted


def count_steps(repository, wanted):
    """How many steps of SQLite's machine a listing takes, in hundreds."""
    steps = []
    with repository.db.reading() as connection:
        connection.set_progress_handler(lambda: steps.append(1), 100)
        try:
            repository.views.list_sessions(connection, wanted, 1 << 62, 50)
        finally:
            connection.set_progress_handler(None, 0)
    return len(steps)


def test_one_filter_costs_no_more_among_ten_times_as_many(repositories):
    recent = BASE + 20000 * 60 - 3600
    for wanted in [program.SessionFilter()] + [program.SessionFilter(**{name: value}) for name, values in (
            ("statuses", [(status,) for status in program.STATES]), ("scenario", ["S1", "RARE", "NOPE"]),
            ("schedule", ["N1", "NOPE"]), ("keyword", ["all", "k7", "nope"]), ("since", [recent]),
            ("parent", [25001, 1975001, 7001])) for value in values]:
        small, large = (count_steps(repository, wanted) for repository in repositories)
        assert large <= 2 * small + 100, (wanted, small, large)     # to look at all takes over 1000


def test_sessions_of_an_older_file_are_known_by_their_keywords(tmp_path):
    path = str(tmp_path / "work.db")
    older = program.Database(path, "work", "older", program.WORK_MIGRATIONS[:2], program.Clock())
    program.make_private(path)
    older.open()

    def put(connection):
        connection.execute("update repository set id=1")
        connection.execute("insert into definition values (1, 'x', '{}')")
        for number, keywords in ((1001, "a,b"), (2001, ""), (3001, ",a,,long word,a,")):
            connection.execute("insert into session(id, agent, scenario, version, definition, context, status, created,"
                               " variables, given, keywords) values (?, 'A', 'S', '1', 1, 'GLOBAL', 'DONE', '', '{}', '{}',"
                               " ?)", (number, keywords))
    older.write(put)
    older.close()
    repository = program.WorkRepository(1, "WORKREP", path, program.Clock()).open()
    with repository.db.reading() as connection:
        rows = connection.execute("select keyword, session from session_keyword order by session, keyword").fetchall()
    repository.db.close()
    assert list(map(tuple, rows)) == [("a", 1001), ("b", 1001), ("a", 3001), ("long word", 3001)]


def count_purge_steps(repository, wanted, newest):
    """As count_steps, of deleting the first 200 that a purge names, which is taken back."""
    steps = []

    def work(connection):
        connection.set_progress_handler(lambda: steps.append(1), 100)
        try:
            repository.views.purge(connection, wanted, newest)
        finally:
            connection.set_progress_handler(None, 0)
        raise LookupError
    with pytest.raises(LookupError):
        repository.db.write(work)
    return len(steps)


@pytest.mark.parametrize("wanted", [
    program.PurgeFilter(keep=1000), program.PurgeFilter(before=BASE + 1000 * 60), program.PurgeFilter(before=BASE),
    program.PurgeFilter(before=BASE + 1000 * 60, keep=1000), program.PurgeFilter(before=BASE + 1000 * 60, scenario="S1")])
def test_each_step_of_a_purge_costs_no_more_among_ten_times_as_many(repositories, wanted):
    small, large = (count_purge_steps(repository, wanted, repository.db.read(repository.views.find_newest_purged, wanted))
                    for repository in repositories)
    assert large <= small * 1.5 + 5, (small, large)


def test_a_purge_names_the_same_as_by_looking_at_all(repositories):
    small = repositories[0]
    with small.db.reading() as connection:
        rows = connection.execute("select * from session where status in ('DONE', 'WARNING', 'ERROR', 'STOPPED')"
                                  " order by id desc").fetchall()
    for before, keep, statuses, scenario in itertools.product(
            (None, BASE, BASE + 1000 * 60, BASE + 400 * 86400), (None, 0, 300, 5000), ((), ("ERROR", "STOPPED")), (None, "S1")):
        these = [row for row in rows if (not statuses or row["status"] in statuses) and scenario in (None, row["scenario"])]
        expected = [row for row in these[keep or 0:] if before is None or row["ended"] < program.to_text(before)]
        assert small.db.read(small.views.count_purged, program.PurgeFilter(before, keep, statuses, scenario)) == len(expected)
