"""A work repository: its tables, and all that is kept in them behind one name."""
import json
import os

from ..base.vocabulary import ADOPT, DEFAULT_NAME
from ..base.errors import AgentError, RepositoryError, Unreadable
from ..base.files import make_private, own_users, remove_own
from ..definitions.reader import Definitions
from .arrivals import Arrivals
from .database import Database
from .decisions import Decisions
from .endings import Endings
from .imports import Imports
from .ledger import Ledger
from .parts import PartNotes
from .plans import Plans
from .plantables import PLAN_TABLES
from .progress import Progress
from .restarts import Restarts
from .scenarios import Scenarios
from .schedules import PAGE, StoredSchedules
from .secrets import SecretFiles
from .sessions import Sessions
from .spool import Spools, noted_processes
from .views import Views
from .whereabouts import (Whereabouts, claim_id, find_id, find_spot, note_spot,
                          read_whereabouts)

STRAYS = 100            # so many files are locked at a time
PLAN = "plan"           # instead of the on_stale of a load plan, which it has not

WORK_MIGRATIONS = ("""
create table repository (
    kind text primary key,              -- work
    uuid text not null,
    id integer,                         -- 1..999, the last three digits of its session numbers
    last_session integer not null default 0,
    last_revision integer not null default 0            -- of schedules
);
create table commit_mark (
    writer integer primary key, mark integer not null, time text not null
);
create table definition (
    id integer primary key,
    digest text not null unique,        -- sha256 of the body
    body text not null                  -- a scenario version as JSON; never changed
);
create table scenario (
    name text not null, version text not null,
    version_key text not null,          -- sorts in natural order
    definition integer not null references definition(id),
    imported text not null,
    primary key (name, version)
);
create table session (
    id integer primary key,             -- n * 1000 + id of the repository
    agent text not null,
    scenario text not null, version text not null,
    definition integer not null references definition(id),
    context text not null,
    status text not null,
    name text not null default '', keywords text not null default '',
    priority integer not null default 0, level integer not null default 5,
    timeout real,                       -- seconds
    created text not null, start_at text, begun text, ended text,
    message text not null default '',
    variables text not null,            -- JSON: values as they stand
    given text not null,                -- JSON: those that came with EXEC
    key text,                           -- of EXEC -KEY
    schedule text, due text,
    ran_by text,                        -- identity of the agent that runs or ran it
    restart_step integer, restart_task integer      -- where RESTART goes on, from 0
);
create trigger session_number after insert on session begin
    update repository set last_session = max(last_session, new.id / 1000); end;
create index session_open on session(agent, status)
    where status in ('WAITING', 'QUEUED', 'RUNNING');
create unique index session_key on session(key) where key is not null;
create index session_schedule on session(schedule, id) where schedule is not null;
create table session_step (
    session integer not null, run integer not null,     -- run counts in the session
    step integer not null, name text not null, attempt integer not null,
    status text not null, begun text not null, ended text, message text not null default '',
    primary key (session, run)
) without rowid;
create table session_task (
    session integer not null, run integer not null,
    step_run integer not null, step integer not null, task integer not null,
    name text not null, type text not null, attempt integer not null,
    status text not null, begun text not null, ended text,
    rc integer, row_count integer, message text not null default '',
    pid integer, pid_started text,
    primary key (session, run)
) without rowid;
create table session_log (
    session integer not null, task_run integer not null,
    position integer not null,          -- bytes printed by the task before this line
    time text not null, stream text not null, line text not null,
    primary key (session, task_run, position)
) without rowid;
create table schedule (
    name text primary key,
    agent text not null,
    scenario text not null, version text not null, context text not null,
    rule text not null, timezone text not null,
    enabled integer not null,
    variables text not null,            -- JSON
    created text not null,
    revision integer not null,          -- tells an entry in memory that it is out of date
    decided text not null,              -- due times up to here have their decision
    hold_reason text, hold_by text, hold_since text, hold_until text
);
create table occurrence (
    schedule text not null, due text not null,          -- of several, the first
    last_due text not null, count integer not null default 1,
    decision text not null,             -- started late skipped failed
    reason text not null default '',    -- overlap misfire gap fold hold window limit repository
    session integer, decided text not null, message text not null default '',
    primary key (schedule, due)
) without rowid;
create index occurrence_session on occurrence(session) where session is not null;
""", """
-- JSON: the fields that are not default
alter table schedule add column options text not null default '{}';
-- a due time that waits for what `after` names
alter table schedule add column waiting text;
-- of the attempts of its schedule
alter table session add column attempt integer not null default 1;
alter table session add column is_parallel integer not null default 0;
create table schedule_condition (                   -- what `after` names
    schedule text not null, kind text not null,     -- schedule, scenario
    name text not null,
    met text,                           -- when a session of it ended well since the schedule fired
    primary key (schedule, kind, name)
) without rowid;
create index condition_name on schedule_condition(kind, name);
create index occurrence_due on occurrence(due);
create index session_schedule_open on session(schedule)
    where schedule is not null and status in ('WAITING', 'QUEUED', 'RUNNING');
create trigger schedule_changed
    after update of agent, scenario, version, context, rule, timezone, enabled, variables, options
    on schedule when new.revision = old.revision begin  -- by another program
    update repository set last_revision = last_revision + 1; update schedule set
    revision = (select last_revision from repository),
    decided = max(decided, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) where name = new.name; end;
""", """
-- the session whose task has started it
alter table session add column parent integer;
-- where the secrets lie that came with EXEC
alter table session add column secret_file text;
-- what listings ask for
create index session_created on session(created);
create index session_ended on session(status)
    where status in ('DONE', 'WARNING', 'ERROR', 'STOPPED');
create index session_scenario on session(scenario, status)
    where status in ('DONE', 'WARNING', 'ERROR', 'STOPPED');
create table session_keyword (                      -- what stands between the commas of keywords
    keyword text not null, session integer not null,
    primary key (keyword, session)
) without rowid;
with recursive part(session, keyword, rest) as (
    select id, '', keywords || ',' from session where keywords <> ''
    union all select session, substr(rest, 1, instr(rest, ',') - 1),
        substr(rest, instr(rest, ',') + 1) from part where rest <> '')
    insert or ignore into session_keyword select keyword, session from part where keyword <> '';
""", """
-- the session that this task has started, until its own end is noted
alter table session_task add column child integer;
-- when a purge looked at the clock last, and from when on it believes that
alter table repository add column purge_looked text;
alter table repository add column purge_from text;
""", """
-- the boot of the host at which its rule `boot` has fired, or that it has not to fire for
alter table schedule add column boot text;
""", """
-- the run of the task at which RESTART goes on; null: it has not begun
alter table session add column restart_run integer;
-- RESTART has set its variables to those with which it goes on, and it has not begun since
alter table session add column is_rewound integer not null default 0;
-- RESTART -SKIP has passed over what failed: it ends in WARNING at best
alter table session add column has_skipped integer not null default 0;
-- JSON: variables that this task has changed, or a RESTART behind it, as they were before
alter table session_task add column former text;
update session set restart_run = (
    select max(run) from session_task t where t.session = session.id and t.step = restart_step
    and t.task = restart_task and t.status in ('ERROR', 'STOPPED')) where restart_step not null;
-- what a session has started
create index session_parent on session(parent) where parent is not null;
""", """
-- the client that has asked for it; empty: a schedule, a task, or an older agent
alter table session add column asked_by text not null default '';
""", """
-- where the file was used last: elsewhere it is a copy. Null: not noted yet. `boot` is that of the
-- host, and the pid namespace
alter table repository add column host text;
alter table repository add column boot text;
alter table repository add column device text;
alter table repository add column inode text;
-- nothing begins in it
alter table repository add column hold_reason text;
alter table repository add column hold_by text;
alter table repository add column hold_since text;
alter table repository add column hold_until text;
-- when it was restored, and from where; null: RELEASE has said since that it goes on here
alter table repository add column restored text;
alter table repository add column restored_from text;
-- part of the markers of its processes since it was restored
alter table repository add column incarnation text not null default '';
""", PLAN_TABLES)

HELLO = {"scenarios": [{
    "name": "HELLO", "version": "001", "variables": {"who": "world"},
    "steps": [{"name": "greet", "tasks": [
        {"type": "os", "command": 'echo "Hello, ${who}! This is session $SESSION."'}]}]}]}


class WorkRepository:
    """One attached work repository: its file, and a store for each of its parts. Every method of a
    store takes a connection first: a reading one by `db.read`, or the writer's by `db.write`."""

    def __init__(self, number, name, path, clock, inbox=None, home=None):
        """`home`: (host id, boot) of its agent; None: where the file lies does not matter."""
        self.id, self.name, self.path = number, name, path
        self._clock, self._home, self.whereabouts = clock, home, Whereabouts()
        self.db = Database(path, "work", "work repository %s" % name, WORK_MIGRATIONS, clock,
                           inbox=inbox)
        self.secrets, self.spools, self.parts = SecretFiles(path), Spools(path), PartNotes(path)
        self.is_behind = False  # outstanding sessions and schedules must be read again
        self.scenarios, self.ledger, self.progress = Scenarios(name), Ledger(), Progress()
        self.sessions = Sessions(name, self.scenarios)
        self.views = Views(self.scenarios, self.sessions)
        self.schedules = StoredSchedules(name, self.scenarios, self.ledger)
        self.imports = Imports(self.scenarios, self.schedules)
        self.endings = Endings(self.sessions, self.progress, self.schedules)
        self.arrivals = Arrivals(self.db, self.scenarios, self.sessions, self.endings)
        self.restarts = Restarts(self.arrivals, self.scenarios, self.sessions)
        self.plans = Plans(self.sessions, self.arrivals, self.restarts)
        self.decisions = Decisions(self.schedules, self.arrivals, self.endings, self.ledger)

    @classmethod
    def create(cls, number, name, path, clock, inbox=None, home=None):
        """Makes a new file with the scenario HELLO and opens it."""
        make_private(path)
        try:
            return cls(number, name, path, clock, inbox, home).fill(clock)
        except AgentError:
            os.unlink(path)
            raise

    def fill(self, clock):
        """Opens a new empty file and puts the scenario HELLO into it -> itself."""
        repository = self.open()
        document = Definitions().read(json.dumps(HELLO))
        repository.db.write(repository.imports.put, document, DEFAULT_NAME, clock.now())
        return repository

    def open(self, expected_uuid=None):
        """Opens the file and checks that it is the one of this id; RepositoryError."""
        self.db.open()
        try:
            number = self.db.read(find_id)
            if number is None:
                number = self.db.write(claim_id, self.id)
            self.id = self.id or number         # ATTACH takes the id that the file has
            if number is None or number != self.id:
                raise RepositoryError("%s: the file is a work repository of id %s, not %s"
                                      % (self.db.label, number, self.id))
            if expected_uuid not in (None, self.db.uuid):
                raise RepositoryError("%s: the file carries another UUID than the one attached; "
                                      "DETACH and ATTACH it if that is meant" % self.db.label)
            self.look_around()
        except AgentError:
            self.db.close()
            raise
        return self

    # -- where it lies -----------------------------------------------------------------

    @property
    def hold(self):
        """The Hold of the repository, or None: something may begin."""
        return self.whereabouts.hold

    @property
    def is_copy(self):
        """Whether it is the copy of a repository, and nobody has said yet that it goes on here."""
        return self.whereabouts.is_copy

    @property
    def mark(self):
        """What the markers of its processes begin with."""
        incarnation = self.whereabouts.incarnation
        return self.db.uuid + (incarnation and "." + incarnation)

    def find_spot(self):
        """The Spot of the file; of nowhere, where that does not matter. RepositoryError."""
        return find_spot(self.path, *self._home) if self._home else (None,) * 4

    def look_around(self):
        """Reads its hold, and whether the file is a copy here; notes where a new one lies.
        RepositoryError."""
        before, spot = self.whereabouts, self._home and self.find_spot()
        since = before.hold.since if before.is_copy else self._clock.now()
        self.whereabouts = self.db.read(read_whereabouts, spot, since)
        if self.whereabouts.is_moved:
            self.db.submit(note_spot, spot)

    # -- what its owner has to do ------------------------------------------------------

    def set_behind(self, is_behind=True):
        """Its owner reads the outstanding sessions and the schedules again, or has begun to."""
        self.is_behind = is_behind

    # -- a page at a time: nothing stays open between ----------------------------------

    def list_schedules(self, name=None):
        """Yields the rows of schedules by name, as Schedules.list_page gives them."""
        after = ""
        while True:
            rows = self.db.read(self.schedules.list_page, name, after)
            yield from rows
            if len(rows) < PAGE:
                return
            after = rows[-1]["name"]

    def read_tickets(self, numbers):
        """Yields the Tickets of those of these sessions that are outstanding, in this order."""
        for start in range(0, len(numbers), PAGE):
            yield from self.db.read(self.sessions.list_tickets, numbers[start:start + PAGE])

    def read_schedules(self, names):
        """Yields the rows of these schedules."""
        for start in range(0, len(names), PAGE):
            yield from self.db.read(self.schedules.list_named, names[start:start + PAGE])

    # -- files beside ------------------------------------------------------------------

    def find_adoptable(self, row, is_alive):
        """The Ticket of a stale session whose process can be taken up again, or None.
        RepositoryError: what its process wrote cannot be read now.

        is_alive(pid, start time) tells whether the minder still lives.
        """
        on_stale = self.db.read(self._get_on_stale, row)
        if on_stale == PLAN:            # it goes on, whatever became of its children
            return self.db.read(self.sessions.make_ticket, row)._replace(is_adopted=True)
        if on_stale != ADOPT:
            return None
        interrupted = self.db.read(self.progress.find_interrupted, row["id"])
        state = interrupted and self.spools.find_state(row["id"], interrupted[1]["run"])
        if not state:
            return None
        has_minder = state["holder"] is not None and is_alive(state["holder"],
                                                              state["holder_started"])
        if not has_minder and not state["is_over"]:
            return None
        return self.db.read(self.sessions.make_ticket, row)._replace(is_adopted=True)

    def find_roots(self, session):
        """{pid: start time} of the processes that were noted of what a session has under way.
        RepositoryError."""
        interrupted = self.db.read(self.progress.find_interrupted, session)
        if not interrupted:
            return {}
        task = interrupted[1]
        state = self.spools.find_state(session, task["run"])
        roots = noted_processes(state) if state else {}
        if task["pid"]:
            roots[task["pid"]] = task["pid_started"]
        return roots

    def _get_on_stale(self, connection, row):
        try:
            scenario = self.sessions.get_scenario(connection, row)
            return scenario.on_stale if scenario.plan is None else PLAN
        except Unreadable:              # what its closing will say
            return "error"

    def forget_strays(self):
        """Deletes secrets and spools of sessions that have ended, or never were: left by a crash,
        or by a request that could not be written -> notes of such, which are the caller's."""
        names, spools, notes = (self.secrets.list_names(), self.spools.list_all(),
                                self.parts.list_all())
        if names or spools or notes:
            # by the writer, so behind what was being written when they were listed
            names, strays = self.db.write(self.sessions.list_strays, names, spools + notes)
            spools = [path for path, _ in spools if path in strays]
            notes = [path for path, _ in notes if path in strays]
        for path in spools:
            remove_own(path, own_users(self.path))
        names = sorted(names)
        for start in range(0, len(names), STRAYS):
            with self.secrets.settled(names[start:start + STRAYS]) as settled:
                # again, now that none of them can be committed meanwhile
                for name in self.db.write(self.sessions.list_strays, settled, ())[0]:
                    self.secrets.forget(name)
        return notes
