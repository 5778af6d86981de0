"""The tables of load plans: a migration of a work repository."""

PLAN_TABLES = """
create table plan_node (                -- an attempt of a node of a plan that was reached
    session integer not null, run integer not null,     -- run counts in the session
    place text not null,                -- in the plan: 1.2 is the second one below the root
    since integer not null,             -- what is below it with a lower run does not count
    first integer not null default 0,   -- of a serial: the child that it begins with, from 0
    kind text not null, name text not null, value text not null,
    attempt integer not null,
    tries integer not null,             -- attempts since it was begun from above, or by a RESTART
    status text not null, begun text not null, ended text,
    due text,                           -- of its next attempt
    message text not null default '',
    child integer,                      -- the session of a run
    scope text,                         -- JSON: variables that the branch has taken back
    is_cut integer not null default 0,  -- a SHUTDOWN has ended its session
    mark text not null default '',      -- by a RESTART: void, passed, reopened
    primary key (session, run)
) without rowid;
create table plan_value (               -- what a for_each runs over, as it was when that began
    session integer not null, place text not null, position integer not null, value text not null,
    primary key (session, place, position)
) without rowid;
-- of a child of a plan: the run of its node
alter table session add column node integer;
"""
