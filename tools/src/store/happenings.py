"""What notices have to tell: noted by a work repository itself, with the change that it is about.

An end of a session, or the decision on a due time, and its row here are one transaction: so nothing
is told that was not, and what was is told whatever becomes of the agent meanwhile. The notices of
an agent take its rows away.
"""
from ..base.times import find_time, from_text, to_text

LAST_SESSIONS = 10      # of a scenario that ended well: their median is usual
LEAST_SESSIONS = 5      # fewer do not tell what is usual
EVENT_LINES = 20        # of the end of a session's log
LINE_CHARACTERS = 500   # of each

HAPPENING_TABLES = """
-- whether ends of sessions that ended well are noted, too: a notice wants to know what takes long
alter table repository add column notes_all_ends integer not null default 0;
-- it was noted that it takes long
alter table session add column is_long integer not null default 0;
create table happening (
    n integer primary key,
    id text not null default (lower(hex(randomblob(8)))),   -- also where a copy goes on
    agent text not null,
    kind text not null,                 -- the state of its session, late, skipped, failed or long
    scenario text not null, session integer, schedule text, due text,
    time text,                          -- null: it has just been noted
    message text not null
);
create index happening_agent on happening(agent);
create trigger session_noted after update of status on session
    when new.status in ('ERROR', 'STOPPED') and old.status in ('WAITING', 'QUEUED', 'RUNNING')
    or new.status in ('DONE', 'WARNING') and old.status = 'RUNNING' and not new.is_long
        and (select notes_all_ends from repository)
    or new.status = 'QUEUED' and old.status = 'RUNNING' and new.message like 'stale%' begin
    insert into happening(agent, kind, scenario, session, schedule, due, time, message) values (
    new.agent, new.status, new.scenario, new.id, new.schedule, new.due,
    case new.status when 'QUEUED' then null else new.ended end, new.message); end;
create trigger occurrence_noted after insert on occurrence
    when new.decision in ('skipped', 'failed') begin
    insert into happening(agent, kind, scenario, session, schedule, due, time, message)
    select agent, new.decision, scenario, new.session, name, new.due, new.decided,
    ltrim(new.reason || ': ' || new.message, ': ') from schedule where name = new.schedule; end;
-- one more due time with the same decision; such that follow each other closely are one
create trigger occurrence_repeated after update of count on occurrence
    when new.decision in ('skipped', 'failed') and new.count > old.count
    and julianday(new.decided) - julianday(old.decided) > 0.02 begin
    insert into happening(agent, kind, scenario, session, schedule, due, time, message)
    select agent, new.decision, scenario, new.session, name, new.last_due, new.decided,
    ltrim(new.reason || ': ' || new.message, ': ') from schedule where name = new.schedule; end;
create trigger occurrence_late after update of decision on occurrence
    when new.decision = 'late' and old.decision <> 'late' begin
    insert into happening(agent, kind, scenario, session, schedule, due, message)
    select agent, 'late', scenario, new.session, name, new.due, '' from schedule
    where name = new.schedule; end;
"""


def list_happenings(connection, agent, limit):
    """(whether all ends are noted, rows of an agent's happenings in order)."""
    return (bool(connection.execute("select notes_all_ends from repository").fetchone()[0]),
            connection.execute("select * from happening where agent=? order by n limit ?",
                               (agent, limit)).fetchall())


def drop_happenings(connection, numbers):
    """They are taken; n each."""
    connection.executemany("delete from happening where n=?", [(n,) for n in numbers])


def note_all_ends(connection, is_wanted):
    """From now on ends of sessions that ended well are noted, too, or are not any more."""
    connection.execute("update repository set notes_all_ends=?", (is_wanted,))


def list_unnoted(connection, agent):
    """[(session, scenario, begun)] of an agent's running sessions that were not noted as long;
    epoch seconds."""
    return [(row["id"], row["scenario"], from_text(row["begun"])) for row in connection.execute(
        "select id, scenario, begun from session where agent=? and status='RUNNING'"
        " and not is_long and begun not null", (agent,))]


def find_usual(connection, scenario, before):
    """The median of how long, in seconds, the last sessions of a scenario took that had ended well
    before an instant; None: there were too few."""
    rows = []
    for status in ("DONE", "WARNING"):      # each is found at once, newest first
        rows += connection.execute(
            "select id, begun, ended from session where scenario=? and status=? and ended<=?"
            " and begun not null order by id desc limit ?",
            (scenario, status, to_text(before), LAST_SESSIONS)).fetchall()
    newest = sorted(rows, key=lambda row: -row["id"])[:LAST_SESSIONS]
    if len(newest) < LEAST_SESSIONS:
        return None
    durations = sorted(from_text(row["ended"]) - from_text(row["begun"]) for row in newest)
    middle = len(durations) // 2
    return max(0.0, (durations[middle] + durations[~middle]) / 2)


def note_long(connection, session, message, now):
    """A session that runs takes long: once."""
    if connection.execute("update session set is_long=1 where id=? and status='RUNNING' and"
                          " not is_long", (session,)).rowcount:
        connection.execute(
            "insert into happening(agent, kind, scenario, session, schedule, due, time, message)"
            " select agent, 'long', scenario, id, schedule, due, ?, ? from session where id=?",
            (to_text(now), message, session))


def find_end(connection, session):
    """(begun, ended, message, whether it was noted that it takes long) of a session; epoch seconds,
    None for what is not there."""
    row = connection.execute("select begun, ended, message, is_long from session where id=?",
                             (session,)).fetchone()
    return (None, None, "", False) if row is None else (
        find_time(row["begun"]), find_time(row["ended"]), row["message"], bool(row["is_long"]))


def find_family(connection, session):
    """(the session that has started it or None, whether it is a load plan that has begun)."""
    row = connection.execute(
        "select parent, exists (select 1 from plan_node where session=session.id) from session"
        " where id=?", (session,)).fetchone()
    return (None, False) if row is None else (row[0], bool(row[1]))


def read_last_lines(connection, session):
    """The last lines that the tasks of a session printed, secrets masked as in its log."""
    rows = connection.execute(
        "select line from session_log where session=? order by task_run desc, position desc"
        " limit ?", (session, EVENT_LINES)).fetchall()
    return [line if len(line) <= LINE_CHARACTERS else line[:LINE_CHARACTERS] + "..."
            for line, in reversed(rows)]
