"""What a load plan has to find out before it can go on: values of a for_each, branches of a case.

Thread question N: what may block of that for session N, such as a query; ends with it.
"""
import threading

from ..base.vocabulary import IMMEDIATE, KILL_S, TERM_S
from ..base.errors import AgentError, BadRequest
from ..base.program import log, tell_traceback
from ..base.workers import Worker
from ..definitions.plan import DatesSource, FilesSource, ValuesSource, expand, settle
from ..tasks.evaluate import EvaluateTask
from ..tasks.loops import FileValues, QueryValues, list_values
from ..tasks.task import TaskError
from .control import Interrupted
from .execution import Execution


class Question:
    """Something that is found out in a thread of its own: work(execution) -> the answer."""

    def __init__(self, node, work, execution, control, on_answer):
        self.node, self.items, self.fault = node, None, None
        self._run = node.run            # the attempt that asks
        self._work, self._execution, self._control = work, execution, control
        self._on_answer = on_answer
        self._thread = None

    @property
    def is_asked(self):
        """Whether anybody waits for the answer still."""
        return self.node.run == self._run

    def start(self, name):
        """Begins to find it out. Busy: the host has no thread for it."""
        self._thread = Worker(self._find, name)
        if not self._thread.try_start():
            self.fault = "no thread to give"
            self._on_answer(self)

    def stop(self, reason):
        """Ends it at once."""
        self._control.stop(IMMEDIATE, reason)

    def join(self):
        """Waits for the end of its thread, for as long as ending its process takes."""
        if self._thread.is_alive():
            self._thread.join(TERM_S + KILL_S)

    def _find(self):
        """Its thread: whatever goes wrong is the answer, too."""
        try:
            self.items = self._work(self._execution)
        except Interrupted as interrupt:
            self.fault = interrupt.message
        except (TaskError, AgentError, ValueError) as error:
            self.fault = str(error)
        except OSError as error:
            self.fault = "%s: %s" % (error.strerror, error.filename)
        except Exception as error:      # a fault of the agent's own
            log.error("a node of a plan\n%s", tell_traceback(error))
            self.fault = "fault of the agent: %s" % error
        self._on_answer(self)
        self._execution.hand_over()


class PlanQuestions:
    """The questions of one plan, and their answers."""

    def __init__(self, journal, around, control, session):
        self._journal, self._around, self._control = journal, around, control
        self._session = session
        self._open = {}                 # NodeState -> Question
        self._answers = []              # Questions
        self._lock = threading.Lock()   # for these two

    @property
    def has_answer(self):
        """Whether take_answers() has any."""
        return bool(self._answers)

    def ask(self, node, values):
        """The values of a for_each as [(value, ...)], the branch of a case as [place]: at once,
        where that takes no time; else None, and take_answers() has it later. AgentError."""
        plan = settle(node.plan, values)
        if plan.kind == "case":
            if any(branch.operator == "matches" for branch in plan.body.branches):
                self._start(node, lambda execution: find_branch(plan.body, execution), values)
                return None
            return [find_branch(plan.body, self._make_execution(values, self._control,
                                                                self._journal))]
        if isinstance(plan.body.source, (ValuesSource, DatesSource)):
            return [self._check(expand(plan.body.source))]
        self._start(node, lambda execution: self._check(find_values(plan.body.source, execution)),
                    values)
        return None

    def _check(self, items):
        """Values that may be stored. BadRequest."""
        if any(self._journal.mask(item) != item for item in items):
            raise BadRequest("its values would store a secret")
        return items

    def _make_execution(self, values, control, journal):
        return Execution(0, values, control, journal, self._around, False)

    def _start(self, node, work, values):
        control = self._control.share()
        execution = self._make_execution(values, control, self._journal.share())
        question = Question(node, work, execution, control, self._answer)
        with self._lock:
            self._open[node] = question
        question.start("question %d" % self._session)

    def _answer(self, question):
        with self._lock:
            if self._open.get(question.node) is question:
                del self._open[question.node]
                self._answers.append(question)
        self._control.wake()

    def take_answers(self):
        """[(NodeState, its values or branch, why there are none or None)] of what is found out."""
        with self._lock:
            answers, self._answers = self._answers, []
        return [(question.node, question.items, question.fault) for question in answers
                if question.is_asked]

    def stop(self, node, reason):
        """Ends what is being found out for a node -> whether anything was."""
        question = self._open.get(node)
        if question is not None:
            question.stop(reason)
        return question is not None or node.plan.kind != "run"

    def stop_all(self, reason):
        """Ends all of it."""
        for question in list(self._open.values()):
            question.stop(reason)

    def close(self):
        """Nobody waits any more."""
        with self._lock:
            questions, self._open = list(self._open.values()), {}
        for question in questions:
            question.stop("its plan goes on later")
        for question in questions:
            question.join()


def find_branch(body, execution):
    """The place of the branch of a case that fits, or behind the last where none does. TaskError.
    """
    for place, (operator, value, _) in enumerate(body.branches):
        fields = {"variable": body.variable, "operator": operator, "value": value}
        if not execution.complete(EvaluateTask().run(fields, execution)).is_false:
            return place
    return len(body.branches)


def find_values(source, execution):
    """The values of a for_each that lie outside. TaskError, Interrupted."""
    if isinstance(source, FilesSource):
        return list_values(FileValues(), {"files": source.pattern}, execution)
    execution.bounds.check_type("refresh")
    return list_values(QueryValues(), {"schema": source.schema, "query": source.query}, execution)
