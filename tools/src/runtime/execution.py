"""One task under way: how it reaches its process, its data servers, and its session's values.

Thread task N: one statement of SQL of session N; ends with it, or is interrupted.
"""
import json
import os
import threading
from typing import Any, Callable, NamedTuple

from ..base.vocabulary import MARKER
from ..base.program import open_code, program_command
from ..base.times import Clock
from ..definitions.references import environment_name
from ..store.files import Spool
from ..store.pending import Pending
from ..store.records import SessionRequest
from ..processes.tree import make_marker, start_time
from ..processes.output import Capture, Output
from ..processes.process import Process, start_error
from ..tasks.task import TaskError


class Interrupted(Exception):
    """A stop or a time-out: how far it reaches, and what it makes of what it ends."""

    def __init__(self, scope, status, message):
        super().__init__(message)
        self.scope, self.status, self.message = scope, status, message


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


class Left(Exception):
    """A session is left to the next start of the agent."""


class Surroundings(NamedTuple):
    """What sessions need of their agent."""
    clock: Clock
    identity: str                   # text of the agent's Identity
    output: Output
    max_output: int                 # bytes kept of a task's output
    on_end: Callable                # on_end(repository, Ending), once that is on disk
    on_loss: Callable               # on_loss(session number): its end cannot be recorded
    topology: Any                   # the Topology: data_server(schema, context), mail_server()
    # the Children: start(request, repository), find_end(session) ...
    children: Any


class Execution:
    """What a task type sees of the session that runs it."""

    def __init__(self, session, run, values):
        self.values = values
        self.rc = self.captured = None  # of its process
        self.rest = ([], None)          # rows of the log not yet handed over
        self._session, self._run, self._around = session, run, session.around
        self._capture = None

    def environment(self):
        """The agent's environment and the variables."""
        environment = dict(os.environ)
        environment.update((environment_name(name), value) for name, value in self.values.items())
        return environment

    def process(self, command, is_adoptable=False):
        """Runs a Command to its end -> exit code; TaskError when it cannot start."""
        command.environment[MARKER] = make_marker(self._session.repository.db.uuid,
                                                  self._session.number, self._run)
        if is_adoptable and self._session.is_adoptable:
            return self._hold(command)
        process = self._start(command)
        try:
            self._session.wait(lambda: process.rc is not None)
        finally:
            process.finish()
            self._session.process_ended()
            self.rc, self.captured = process.rc, self._capture.captured
        return process.rc

    def _start(self, command):
        """Starts a process and notes it -> Process. TaskError, Interrupted."""
        session, around = self._session, self._around
        session.interrupt_if_asked()
        self._capture = Capture(around.max_output, self._store, around.clock, command.is_captured,
                                session.secrets)
        try:
            process = Process(command, self._capture, around.output, session.wake)
        except (OSError, ValueError) as error:
            raise TaskError(start_error(error)) from None
        session.roots[process.pid] = process.started
        session.note(session.repository.progress.note_process, self._run, process.pid,
                     process.started)
        session.flush(is_waiting=False)
        return process

    def _store(self, rows, omitted, then):
        """What the capture hands to the log."""
        repository = self._session.repository
        repository.db.submit(repository.progress.add_log_later, self._session.number, self._run,
                             rows, omitted, then=lambda _: then())

    def _spool(self):
        return Spool(self._session.repository.spool_path(self._session.number, self._run))

    def _hold(self, command):
        """As `process`, by way of a holder, so that it outlives the agent."""
        spool = self._spool()
        spool.create()
        given = json.dumps([command, self._around.max_output, self._session.secrets])
        holder = self._start(command._replace(
            words=program_command() + ["--hold", spool.path], cwd=None,
            pass_fds=command.pass_fds + (open_code(),),
            stdin=given, is_captured=False))
        try:
            return self._follow(spool, lambda: holder.rc is None)
        finally:
            self._session.process_ended()

    def adopt(self):
        """Goes on with the process of this task that a lost agent has started -> exit code."""
        spool = self._spool()
        state = spool.state()
        pid, started = state["holder"], state["holder_started"]
        self._session.roots[pid] = started
        return self._follow(spool, lambda: start_time(pid) == started)

    def _follow(self, spool, is_alive):
        """Takes what the holder writes, until the end -> exit code. TaskError, Left."""
        progress, was_alive = (-1, None), True
        try:
            while True:
                state, progress = self._take_spool(spool, progress)
                if state["is_over"] or not was_alive:
                    break
                if self._session.is_leaving:
                    raise Left()
                was_alive = is_alive()
                # who is to leave does so, also when the time for stopping is over
                if was_alive:
                    self._session.wait(lambda: self._session.is_leaving or not is_alive(), 0.05)
        except Interrupted:
            self._take_spool(spool, progress)
            self._session.spent.append(spool)
            raise
        self._session.spent.append(spool)
        self.rc, self.captured = state["rc"], state["captured"]
        if not state["is_over"]:
            raise TaskError("the process that held it is gone")
        if state["error"]:
            raise TaskError(state["error"])
        return self.rc

    def _take_spool(self, spool, progress):
        """Hands new rows of a spool to the log -> (its state, how far it was read)."""
        after, omitted = progress
        state, rows, now_omitted = spool.read(after, omitted)
        if rows or now_omitted != omitted:
            self._session.note(self._session.repository.progress.add_log, self._run, rows,
                               None if now_omitted == omitted else now_omitted)
            self._session.flush(is_waiting=False)
        return state, (max([after] + [row[0] for row in rows]), now_omitted)

    def call(self, function, interrupt):
        """Runs function() in a thread of its own; interrupt() ends it early -> its value."""
        outcome = Pending(function)

        def work():
            try:
                outcome.finish(function())
            except BaseException as error:
                outcome.finish(error=error)
            self._session.wake()
        thread = threading.Thread(target=work, name="task %d" % self._session.number, daemon=True)
        thread.start()
        try:
            self._session.wait(lambda: outcome.is_done)
        finally:
            while thread.is_alive():
                if not outcome.is_done:
                    interrupt()
                thread.join(0.05)
        return outcome.result()

    def wait(self, seconds):
        """Waits; an immediate stop and time-outs end it."""
        self._session.wait(lambda: False, seconds)

    def monotonic(self):
        """Seconds that only ever go forward."""
        return self._around.clock.monotonic()

    def data_server(self, schema):
        """The data server behind a logical schema in the session's context. TaskError."""
        return self._hidden(self._around.topology.data_server(schema, self.values["CONTEXT"]))

    def mail_server(self):
        """The data server MAIL. TaskError."""
        return self._hidden(self._around.topology.mail_server())

    def _hidden(self, server):
        for secret in server["secrets"]:
            self._session.hide(secret)
        return server

    def start_child(self, name, version, context, variables):
        """Starts a session of another scenario of the repository -> its number."""
        return self._around.children.start(
            SessionRequest(name, "", version, context or self.values["CONTEXT"], variables,
                           name="child of %d" % self._session.number,
                           parent=self._session.number,
                           hidden=self._session.secrets), self._session.repository)

    def wait_child(self, number):
        """Waits for the end of a child, which does without this session's slot meanwhile ->
        (status, message). What ends the waiting ends the child."""
        children = self._around.children
        with children.lent_slot():
            try:
                while True:
                    row = children.find_end(number)
                    if row is not None:
                        return row["status"], row["message"]
                    self.wait(0.1)
            except Interrupted:
                children.stop(number)
                raise

    def close(self):
        """Ends the capture; `rest` is what it still held."""
        if self._capture:
            self._around.output.forget(self._capture)       # it stores no more by itself
            self.rest = self._capture.take(is_end=True)
