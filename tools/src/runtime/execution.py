"""One task under way: how it reaches its process, its data servers, and its session's values."""
import contextlib
import functools
import json
import os
from typing import Any, Callable, NamedTuple, Optional

from ..base.vocabulary import ERROR, MARKER, TRY_S
from ..base.errors import RepositoryError, RepositoryGone
from ..base.program import open_code, program_command
from ..base.times import Clock
from ..base.controls import one_line
from ..definitions.references import environment_name
from ..store.records import SessionRequest
from ..store.spool import noted_processes
from ..processes.alive import lives, make_marker
from ..processes.output import Capture, Output, cut_error
from ..processes.process import exit_text, is_passing, start_error
from ..processes.remains import clear_notes
from ..tasks.task import TaskError
from .awaiting import await_child, await_deaf, await_in_slot
from .bounds import Bounds
from .control import Interrupted, Left
from .sources import is_blocking, resolve_server
from .taskwaits import TaskWaits

SPOOL_LOOK_S = 0.05     # between two looks at what a minder has written


def is_for_now(error):
    """Whether an error says that a file cannot be read or written now, but may be later."""
    return isinstance(error, RepositoryError) and not isinstance(error, RepositoryGone)


class Surroundings(NamedTuple):
    """What sessions need of their agent."""
    clock: Clock
    identity: str                   # text of the agent's Identity
    output: Output
    max_output: int                 # bytes kept of a task's output
    on_end: Callable                # on_end(repository, Ending), once that is on disk
    on_loss: Callable               # on_loss(session number): its end cannot be recorded
    topology: Any                   # the Topology: data_server(schema, context), mail_server()
    children: Any                   # the Children: start(request, repository), bell(session) ...
    on_log: Callable                # on_log(session number): new lines of its log are on disk
    file_limit: Any                 # the FileLimit of the agent
    environment: dict               # of the agent, as it was when it started
    looks: Any                      # the Looks of all sessions
    bounds: Bounds = Bounds()       # of tasks on this host
    plans: Any = None               # the Families: check_context(name), took(repository, ticket)
    engines: Any = None             # the Engines


class Exit(NamedTuple):
    """How a process of a task has ended; nothing of it is known before."""
    rc: Optional[int] = None
    captured: Optional[bytes] = None    # the beginning of its standard output, where that is wanted
    last_error: str = ""            # the last line of its standard error
    words: str = ""                 # what an engine says of its end

    @property
    def text(self):
        """In words: its exit code, and what it said last."""
        text = exit_text(self.rc)
        if self.words:
            text = "%s (%s)" % (self.words, text)
        return "%s: %s" % (text, self.last_error) if self.last_error else text


class Execution(TaskWaits):
    """What a task type sees of the session that runs it, for one run of a task.

    `values` are the session's variables and the agent's own; `exit` is that of its newest process;
    `mask(text)` puts *** in place of secrets; `bounds` are those of tasks on this host.
    """

    def __init__(self, run, values, control, journal, around, is_adoptable):
        super().__init__(control, journal)
        self.values = values
        self.exit, self.mask, self.bounds = Exit(), journal.mask, around.bounds
        self._run, self._around = run, around
        self._is_adoptable = is_adoptable       # whether the session's processes outlive the agent
        self._capture = None

    def environment(self):
        """The agent's environment and the variables."""
        environment = dict(self._around.environment)
        environment.update((environment_name(name), value) for name, value in self.values.items())
        return environment

    def set_place(self, place, secrets):
        """Where it runs, if not here, is of no concern to one that runs here."""

    def work(self, kind, fields, is_resumed):
        """Has a task's type do what it does -> its TaskResult, or a generator of that."""
        return (kind.resume if is_resumed else kind.run)(fields, self)

    # -- processes ---------------------------------------------------------------------

    def process(self, command, is_adoptable=False):
        """A generator that waits without a thread: runs a Command to its end -> exit code;
        TaskError when it cannot start. `is_adoptable` says that the task's type can take it up
        again by adopt()."""
        command.environment[MARKER] = make_marker(self._journal.repository.mark,
                                                  self._journal.session, self._run)
        command = self.bounds.bounded(command)
        if is_adoptable and self._is_adoptable:
            return (yield from self._run_minded(command))
        process = yield from self._start(command)
        try:
            process.call_if_it_lives(self._note_life)
            yield from await_in_slot(self._control, process.has_exited)
            yield from await_deaf(process.is_complete)      # its last words go before a stop
        except Exception:
            self._finish(process)
            raise
        self._finish(process)
        return process.rc

    def _finish(self, process):
        """Waits for the end of a process, and tells how that was. What is over is noted no more,
        but what it has left is."""
        process.finish()
        self._control.drop_ended_roots()
        if self._control.has_roots:
            self._note(process)
        self.exit = Exit(process.rc, self._capture.captured, self._capture.last_error)

    def _note_life(self, process):
        self._journal.note_life(self._run, process.pid, process.started)

    def _note(self, process):
        journal = self._journal
        journal.note(journal.repository.progress.note_process, self._run, process.pid,
                     process.started)

    def _start(self, command, is_minder=False):
        """A generator: starts a process -> Process. TaskError, Interrupted."""
        control, journal, around = self._control, self._journal, self._around
        control.interrupt_if_asked()
        command = command._replace(file_limit=around.file_limit.to_restore)
        self.hand_over()                # what its process before has printed
        self._capture = Capture(around.max_output, functools.partial(journal.add_log, self._run),
                                around.clock, command.is_captured, journal.secrets)
        try:
            process = yield from self._once_it_can(
                lambda: control.start(command, self._capture, around.output, is_minder),
                is_passing)
        except (OSError, ValueError) as error:
            raise TaskError(start_error(error)) from None
        return process

    def _run_minded(self, command):
        """As `process`, by way of a minder, so that it outlives the agent. The minder is a process
        of the agent's: what a task says of the environment is not for another user's."""
        spool = yield from self._once_it_can(
            lambda: self._journal.make_spool(self._run), is_for_now)
        order = json.dumps([command, self._around.max_output, self._journal.secrets])
        try:
            minder = yield from self._start(command._replace(
                words=program_command("-s") + ["--hold", spool.path], cwd=None, stdin=order,
                environment=command.environment if command.user is None else
                dict(os.environ, **{MARKER: command.environment[MARKER]}),
                pass_fds=command.pass_fds + (open_code(),), is_captured=False, umask=None,
                user=None), is_minder=True)
        except (TaskError, Interrupted):
            spool.remove()              # nobody writes to it
            raise
        self._note(minder)
        self._journal.flush_later()
        with contextlib.suppress(RepositoryError):
            # the minder does so too, but maybe not before the agent is gone
            spool.note(holder=minder.pid, holder_started=minder.started)
        return (yield from self._follow(spool, lambda: minder.rc is None))

    def adopt(self):
        """A generator: goes on with the process of this task that a lost agent has started -> exit
        code. TaskError, Interrupted, Left."""
        spool = self._journal.find_spool(self._run)
        if spool is None:
            self._give_up("what its process wrote is gone")
        try:
            state = yield from self._once_it_can(spool.state, is_for_now)
        except RepositoryGone as error:
            self._give_up("what its process wrote is gone: %s" % error)
        return (yield from self._follow(
            spool, lambda: lives(state["holder"], state["holder_started"])))

    def _follow(self, spool, is_alive):
        """Takes what the minder writes, until the end -> exit code. TaskError, Interrupted, Left.
        What cannot be followed any more is ended."""
        try:
            state = yield from self._take_until_end(spool, is_alive)
        except Interrupted:
            with contextlib.suppress(RepositoryError):
                self._take_new(spool)
            self._journal.spend(spool)
            raise
        except RepositoryGone as error:
            self._give_up("what its process wrote is gone: %s" % error)
        finally:
            self._control.drop_ended_roots()
        self.exit = Exit(state["rc"], state["captured"], cut_error(state["last_error"] or ""))
        self._journal.spend(spool)
        if state["error"]:
            raise TaskError(state["error"])
        return self.exit.rc

    def _give_up(self, reason):
        """Ends what nobody follows any more: no other attempt runs beside it. Interrupted."""
        interrupt = Interrupted("task", ERROR, reason)
        self._control.sweep(interrupt)
        raise interrupt

    def _take_until_end(self, spool, is_alive):
        """Hands on what the minder writes, until it says the end or is gone -> its last state.
        Interrupted; Left, which goes before a stop: also when the time for stopping is over."""
        control, was_alive = self._control, True
        while True:
            try:
                state = self._take_new(spool)
            except RepositoryGone:
                raise
            except RepositoryError as error:
                self._tell(error)
                state = None            # it cannot be read now
            if state is not None and (state["is_over"] or not was_alive):
                break
            if control.is_leaving:
                raise Left()
            was_alive = is_alive()
            if state is None:
                yield from await_in_slot(control, lambda: control.is_leaving, TRY_S)
            elif was_alive:
                yield from await_in_slot(
                    control, lambda: control.is_leaving or not is_alive(), SPOOL_LOOK_S)
        if not state["is_over"]:
            self._give_up("the process that held it is gone")
        return state

    def _take_new(self, spool):
        """Hands over what is new in a spool -> its state."""
        state, rows, omitted = spool.read_new()
        for pid, started in noted_processes(state).items():
            self._control.add_root(pid, started, pid == state["holder"])
        if rows or omitted:
            self._journal.note(self._journal.repository.progress.add_log, self._run, rows, omitted)
            self._journal.flush_later()
        return state

    def close(self):
        """Ends the capture -> (rows, omitted): what of the log was not handed over."""
        if self._capture is None:
            return [], None
        self._around.output.forget(self._capture)       # it stores no more by itself
        return self._capture.take(is_end=True)

    def hand_over(self):
        """`close` where no end of a task has these rows."""
        rows, omitted = self.close()
        if rows or omitted:
            self._journal.add_log(self._run, rows, omitted, lambda: None)

    @contextlib.contextmanager
    def noting_parts(self):
        """A descriptor for the note of what the task's process writes beside its targets. What it
        has not put in place when this is over, killed maybe, is deleted."""
        notes = self._journal.repository.parts
        path = notes.make(self._journal.session)
        try:
            with open(path, "r+b") as note:
                yield note.fileno()
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.path.getsize(path):
                    clear_notes(notes, [path], self.bounds.discard)
                else:
                    os.unlink(path)

    # -- topology and children ---------------------------------------------------------

    def data_server(self, schema):
        """The data server behind a logical schema in the session's context. TaskError."""
        return self._resolved(self._around.topology.data_server(schema, self.values["CONTEXT"]))

    def mail_server(self):
        """The data server MAIL. TaskError."""
        return self._resolved(self._around.topology.mail_server())

    def _resolved(self, server):
        """The same with its secrets, which are shown nowhere from now on."""
        sources = [source for source in server["connect"].values() if isinstance(source, dict)]
        try:
            read = functools.partial(resolve_server, server, self.bounds.read)
            resolved = self._control.call(read) if any(map(is_blocking, sources)) else read()
        except ValueError as error:
            raise TaskError(one_line(error)) from None
        for secret in resolved["secrets"]:
            self._journal.hide(secret)
        return resolved

    def start_child(self, name, version, context, variables):
        """Starts a session of another scenario of the repository, or takes up the one that this
        task had when a crash interrupted it -> its number."""
        journal = self._journal
        db, progress = journal.repository.db, journal.repository.progress
        child = db.submit(progress.take_child, journal.session, self._run).result()
        if child is not None:
            return child
        return self._around.children.start(
            SessionRequest(name, "", version, context or self.values["CONTEXT"], variables,
                           name="child of %d" % journal.session, parent=journal.session,
                           parent_run=self._run, hidden=journal.secrets), journal.repository)

    def wait_child(self, session):
        """A generator that waits for the end of a child -> (status, message), as of await_child."""
        return await_child(self._around.children, self._control, self._journal.session, session)
