"""One task under way on an engine, for the session that it is of."""
import errno
import functools
import json
import os
from typing import NamedTuple, Optional

from ..base.vocabulary import ERROR, LOCAL, MARKER, WRITE_S
from ..base.errors import AgentError
from ..definitions.references import environment_name
from ..definitions.engines import is_remote
from ..processes.alive import make_marker
from ..processes.output import Capture, cut_error, visible
from ..processes.process import is_passing
from ..tasks.task import TaskError, TaskResult
from .awaiting import Waiting
from .control import Interrupted, Left
from .engine_task import EngineTask, as_exit
from .execution import Execution, Exit


class EnginePlace(NamedTuple):
    """Where a task runs that names an engine."""
    definition: Optional[dict] = None   # of the engine; None: on this host
    fault: str = ""                     # why it can run nowhere


def find_engine(fields, context, around):
    """The EnginePlace of a task with these fields in a context; None: it names no engine."""
    name = fields.get("engine")
    if not is_remote(name):
        return None
    try:
        engine = around.topology.engine(name)
        target = engine["contexts"].get(context, name)
        if target == LOCAL:
            return EnginePlace()
        return EnginePlace(engine if target == name else around.topology.engine(target))
    except (TaskError, AgentError) as error:
        return EnginePlace(None, str(error))


def tell_marker(journal, run):
    """The marker of a run as the name of a task on an engine: it may be a file's, too."""
    return make_marker(journal.repository.mark, journal.session, run).replace("/", ".")


def note_engine(journal, run, engine, engines):
    """Notes, with the begin of a run, that it is for an engine."""
    journal.note(journal.repository.engine_runs.note, run, engine["name"],
                 engines.watch(engine).folder_of(tell_marker(journal, run)))


class EngineRecords:
    """What is to be on disk of a run on an engine, for its watch's thread."""

    def __init__(self, journal, run, clock):
        self._journal, self._run, self._clock = journal, run, clock
        self._runs, self._db = journal.repository.engine_runs, journal.repository.db

    def submit(self):
        """It is about to be submitted -> Pending."""
        return self._db.submit(self._runs.submit, self._journal.session, self._run,
                               self._clock.now(), within_s=WRITE_S)

    def take_id(self, engine_id):
        """The engine's id of it; nobody waits for that."""
        self._db.submit(self._runs.take_id, self._journal.session, self._run, engine_id)

    def log(self, rows, omitted, reading, on_stored):
        """Lines of its output."""
        self._journal.add_engine_log(self._run, rows, omitted, reading, on_stored)


class SpentFolder:
    """The folder of a task whose end is noted: it goes once that is on disk."""

    def __init__(self, folder, watch, repository):
        self._folder, self._watch, self._repository = folder, watch, repository

    def remove(self):
        """Has it deleted."""
        self._watch.spend(self._folder, functools.partial(
            self._repository.db.submit, self._repository.engine_runs.forget_folder, self._folder))


class EngineExecution(Execution):
    """An Execution whose process runs on an engine, unless the context says LOCAL."""

    def set_place(self, place, secrets):
        """Where it runs: the EnginePlace, None for one that a lost agent has begun; the names of
        the session's secrets."""
        self._place, self._secrets = place, secrets

    def work(self, kind, fields, is_resumed):
        """As of Execution."""
        row = None
        if self._place is None:
            journal = self._journal
            row = journal.repository.db.read(journal.repository.engine_runs.get, journal.session,
                                             self._run)
            if row["engine"] is None:           # its context said LOCAL
                return super().work(kind, fields, is_resumed)
            engine = self._around.topology.engine(row["engine"])
        elif self._place.fault:
            raise TaskError(self._place.fault)
        elif self._place.definition is None:
            return super().work(kind, fields, is_resumed)
        else:
            engine = self._place.definition
        return self._work_there(kind, fields, engine, row)

    def _work_there(self, kind, fields, engine, row):
        """A generator that waits without a thread until the task is over -> TaskResult. TaskError,
        Interrupted, Left."""
        watch = self._around.engines.watch(engine)
        task = self._make_task(kind, fields, watch, row)
        if row is not None and row["engine_stop"]:
            task.cancel()
        self._leave_if_asked(task)
        yield from self._once_it_can(functools.partial(self._post, watch, task), is_passing)
        try:
            if row is not None and row["engine_stop"]:
                raise Interrupted(*json.loads(row["engine_stop"]))
            while not task.is_over:
                yield Waiting(lambda: task.is_over or self._control.is_parting, None, (), task)
                self._leave_if_asked(task)
                self._control.wait(lambda: task.is_over, 0.0)
        except Interrupted as interrupt:
            yield from self._cancel(task, watch, interrupt)
            if task.end.is_given_up:
                raise Interrupted(interrupt.scope, interrupt.status, "%s; %s" % (
                    interrupt.reason, task.end.error)) from None
            raise
        finally:
            if task.is_over:
                self._journal.spend(SpentFolder(task.folder, watch, self._journal.repository))
        return self._result(kind, fields, task.end)

    @staticmethod
    def _post(watch, task):
        try:
            watch.post(task)
        except RuntimeError:                    # no thread
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    def _leave_if_asked(self, task):
        """Left: the agent stops, and what is on the engine goes on."""
        if self._control.is_parting and not task.is_over:
            raise Left()

    def _cancel(self, task, watch, interrupt):
        """A generator that waits until the engine says that it is over, whatever comes; noted is
        that it is to be, should the agent be lost meanwhile. Left."""
        journal = self._journal
        if not task.is_over:
            journal.note(journal.repository.engine_runs.stop, self._run, interrupt.scope,
                         interrupt.status, interrupt.reason)
            journal.flush_later()
            task.cancel()
            watch.wake()
        while not task.is_over:
            yield Waiting(lambda: task.is_over or self._control.is_parting, None, (), task,
                          is_deaf=True)
            self._leave_if_asked(task)

    def _make_task(self, kind, fields, watch, row):
        """The EngineTask of this run, taken up where a lost agent has left it. TaskError."""
        journal, around = self._journal, self._around
        marker = tell_marker(journal, self._run)
        order = kind.order(fields, self.values)
        plain, secret = {MARKER: marker}, {}
        for name, value in self.values.items():
            (secret if name in self._secrets else plain)[environment_name(name)] = value
        for name, text in order.environment.items():
            (secret if self.mask(text) != text else plain)[name] = text
        self._capture = Capture(around.max_output, None, around.clock, False, journal.secrets)
        folder = watch.folder_of(marker) if row is None else row["engine_folder"]
        task = EngineTask(
            marker, folder, order._replace(environment=plain, secrets=secret),
            EngineRecords(journal, self._run, around.clock), self._capture,
            fields["capture"] is not None, self._control.wake, os.getcwd(), watch.name)
        if row is not None:
            task.take_up(row)
            if row["engine_read"]:
                out, err, position = json.loads(row["engine_read"])
                task.skip(out, err)
                self._capture.go_on(position, row["log_size"])
        return task

    def _result(self, kind, fields, end):
        """What an EngineEnd makes of the task. TaskError."""
        if end.rc is None:
            return TaskResult(ERROR, None, message=end.error or end.words)
        codes = fields.get("ok_codes", [0]) + fields.get("warning_codes", [])
        lines = [line for line in end.tail.split(b"\n") if line.strip()]
        self.exit = Exit(as_exit(end.rc, codes), end.captured,
                         cut_error(self.mask(visible(lines[-1]))) if lines else "", end.words)
        if end.error:
            return TaskResult(ERROR, self.exit.rc, message=self.exit.text)
        return kind.result(fields, self.exit.rc, self)
