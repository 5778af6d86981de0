"""One task under way: how it reaches its process, its data servers, and its session's values.

Thread task N: one statement of SQL of session N; ends with it, or is interrupted.
"""
import functools
import json
import os
import threading
from typing import Any, Callable, NamedTuple, Optional

from ..base.vocabulary import MARKER, MIN_SECRET
from ..base.program import open_code, program_command
from ..base.times import Clock
from ..definitions.references import environment_name
from ..store.pending import Pending
from ..store.records import SessionRequest
from ..processes.tree import make_marker, start_time
from ..processes.output import Capture, Output
from ..processes.process import Process, start_error
from ..tasks.task import TaskError
from .control import Interrupted, Left


def read_secret(source):
    """The value that {"env": name} or {"file": path} tells. ValueError."""
    if "env" in source:
        if source["env"] not in os.environ:
            raise ValueError("the agent's environment has no %s" % source["env"])
        return os.environ[source["env"]]
    try:
        with open(source["file"], encoding="utf-8") as file:
            return file.read().rstrip("\n")
    except OSError as error:
        raise ValueError("%s: %s" % (source["file"], error.strerror)) from None


def read_secrets(sources, given):
    """Yields (name, value) of secret variables {name: source}, of which some were given as
    {name: value}. ValueError says which cannot be had, and why."""
    for name, source in sources.items():
        if name not in given and not source:
            raise ValueError("secret %s: must be given" % name)
        try:
            value = given[name] if name in given else read_secret(source)
        except ValueError as error:
            raise ValueError("secret %s: %s" % (name, error)) from None
        if len(value) < MIN_SECRET:
            raise ValueError("secret %s: has under %d characters" % (name, MIN_SECRET))
        yield name, value


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


class Waiting(NamedTuple):
    """What a session waits for that needs no thread meanwhile."""
    is_over: Callable               # whether it can go on
    patience_s: Optional[float]     # after so many seconds it looks for itself


class Execution:
    """What a task type sees of the session that runs it, for one run of a task.

    `values` are the session's variables and the agent's own; `rc` and `captured` the exit code of
    its process and the beginning of its standard output (bytes), once it has ended.
    """

    def __init__(self, run, values, control, journal, around, is_adoptable):
        self.values = values
        self.rc = self.captured = None
        self._run, self._control, self._journal, self._around = run, control, journal, around
        self._is_adoptable = is_adoptable       # whether the session's processes outlive the agent
        self._capture = None

    def environment(self):
        """The agent's environment and the variables."""
        environment = dict(os.environ)
        environment.update((environment_name(name), value) for name, value in self.values.items())
        return environment

    # -- processes ---------------------------------------------------------------------

    def process(self, command, is_adoptable=False):
        """Runs a Command to its end -> exit code; TaskError when it cannot start. `is_adoptable`
        says that the task's type can take it up again by adopt()."""
        command.environment[MARKER] = make_marker(self._journal.repository.db.uuid,
                                                  self._journal.session, self._run)
        if is_adoptable and self._is_adoptable:
            return self._run_minded(command)
        process = self._start(command)
        try:
            self._control.wait(lambda: process.rc is not None)
        finally:
            process.finish()
            self._control.drop_ended_roots()
            self.rc, self.captured = process.rc, self._capture.captured
        return process.rc

    def _start(self, command):
        """Starts a process and notes it -> Process. TaskError, Interrupted."""
        control, journal, around = self._control, self._journal, self._around
        control.interrupt_if_asked()
        self._capture = Capture(around.max_output, functools.partial(journal.add_log, self._run),
                                around.clock, command.is_captured, journal.secrets)
        try:
            process = Process(command, self._capture, around.output, control.wake)
        except (OSError, ValueError) as error:
            raise TaskError(start_error(error)) from None
        control.add_root(process.pid, process.started)
        journal.note(journal.repository.progress.note_process, self._run, process.pid,
                     process.started)
        journal.flush_later()
        return process

    def _run_minded(self, command):
        """As `process`, by way of a minder, so that it outlives the agent."""
        spool = self._journal.make_spool(self._run)
        given = json.dumps([command, self._around.max_output, self._journal.secrets])
        try:
            minder = self._start(command._replace(
                words=program_command() + ["--hold", spool.path], cwd=None, stdin=given,
                pass_fds=command.pass_fds + (open_code(),), is_captured=False))
        except (TaskError, Interrupted):
            spool.remove()              # nobody writes to it
            raise
        # the minder does so too, but maybe not before the agent is gone
        spool.note(holder=minder.pid, holder_started=minder.started)
        return self._follow(spool, lambda: minder.rc is None)

    def adopt(self):
        """Goes on with the process of this task that a lost agent has started -> exit code.
        TaskError, Left."""
        spool = self._journal.find_spool(self._run)
        if spool is None:
            raise TaskError("what its process wrote is gone")
        state = spool.state()
        pid, started = state["holder"], state["holder_started"]     # the minder
        self._control.add_root(pid, started)
        return self._follow(spool, lambda: start_time(pid) == started)

    def _follow(self, spool, is_alive):
        """Takes what the minder writes, until the end -> exit code. TaskError, Interrupted, Left.
        """
        try:
            state = self._take_until_end(spool, is_alive)
        except Interrupted:
            self._take_new(spool)
            self._journal.spend(spool)
            raise
        finally:
            self._control.drop_ended_roots()
        self._journal.spend(spool)
        self.rc, self.captured = state["rc"], state["captured"]
        if not state["is_over"]:
            raise TaskError("the process that held it is gone")
        if state["error"]:
            raise TaskError(state["error"])
        return self.rc

    def _take_until_end(self, spool, is_alive):
        """Hands on what the minder writes, until it says the end or is gone -> its last state.
        Interrupted; Left, which goes before a stop: also when the time for stopping is over."""
        control, was_alive = self._control, True
        while True:
            state = self._take_new(spool)
            if state["is_over"] or not was_alive:
                return state
            if control.is_leaving:
                raise Left()
            was_alive = is_alive()
            if was_alive:
                control.wait(lambda: control.is_leaving or not is_alive(), 0.05)

    def _take_new(self, spool):
        """Hands over what is new in a spool -> its state."""
        state, rows, omitted = spool.read_new()
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

    # -- waiting -----------------------------------------------------------------------

    def call(self, function, interrupt):
        """Runs function() in a thread of its own; interrupt() ends it early -> its value."""
        pending = Pending(function)

        def work():
            try:
                pending.finish(function())
            except BaseException as error:
                pending.finish(error=error)
            self._control.wake()
        thread = threading.Thread(target=work, name="task %d" % self._journal.session, daemon=True)
        thread.start()
        try:
            self._control.wait(lambda: pending.is_done)
        finally:
            while thread.is_alive():
                if not pending.is_done:
                    interrupt()
                thread.join(0.05)
        return pending.result()

    def wait(self, seconds):
        """Waits; an immediate stop and time-outs end it."""
        self._control.wait(lambda: False, seconds)

    def monotonic(self):
        """Seconds that only ever go forward."""
        return self._around.clock.monotonic()

    # -- topology and children ---------------------------------------------------------

    def data_server(self, schema):
        """The data server behind a logical schema in the session's context. TaskError."""
        return self._hidden(self._around.topology.data_server(schema, self.values["CONTEXT"]))

    def mail_server(self):
        """The data server MAIL. TaskError."""
        return self._hidden(self._around.topology.mail_server())

    def _hidden(self, server):
        for secret in server["secrets"]:
            self._journal.hide(secret)
        return server

    def start_child(self, name, version, context, variables):
        """Starts a session of another scenario of the repository -> its number."""
        journal = self._journal
        return self._around.children.start(
            SessionRequest(name, "", version, context or self.values["CONTEXT"], variables,
                           name="child of %d" % journal.session, parent=journal.session,
                           hidden=journal.secrets), journal.repository)

    def wait_child(self, session):
        """A generator that waits for the end of a child -> (status, message): it yields a Waiting
        whenever the session is to go on later, without a thread meanwhile. What ends the waiting
        ends the child."""
        children, control = self._around.children, self._control
        with children.bell(session, control.wake) as bell:
            try:
                while True:
                    row = bell.find_end()
                    if row is not None:
                        return row["status"], row["message"]
                    yield Waiting(lambda: bell.has_rung, bell.patience_s)
                    control.wait(lambda: bell.has_rung, 0.0)
            except Interrupted:
                children.stop(session)
                raise
