"""The course of a load plan: does what its tree says, and tells it what happens.

    its rows are read, and make the tree    a RESTART: what was open is to begin again
      |
    what the tree says next is recorded     sessions of its nodes come to be in the same
      |                                     transaction as the nodes' rows
    it is done                              these sessions are queued, others stopped, values asked
      |
    it waits, without a thread, for news    a child has ended, a time has come, an answer is there,
      |                                     it is to stop; then the tree says what follows
    nothing is open any more                the last rows are recorded with the end of the session

Whatever is lost between two of these lines is found again by the rows: a child that was recorded
and not queued is outstanding; one that has ended unseen is seen at the next look; values that were
asked for and not recorded are asked for anew.
"""
import json

from ..base.vocabulary import DONE, ERROR, IMMEDIATE, NORMAL, RUNNING, STOPPED, WARNING
from ..base.errors import AgentError, Conflict, NotFound, RepositoryError, RepositoryGone
from ..base.times import from_text
from ..store.records import Ticket
from ..tasks.task import TaskError
from .awaiting import Waiting
from .control import Interrupted, Left
from .course import Outcome, own_values
from .plannodes import WELL
from .plantree import PlanTree
from .planrecords import PlanRecords
from .planquestions import PlanQuestions
from .sources import take_secrets

LOOK_AGAIN_S = 2.0      # between two looks at what is to end, or could not be read


class PlanCourse:
    """What the session of a load plan does between its begin and its end."""

    def __init__(self, row, scenario, control, journal, around, news):
        self._row, self._scenario, self._control = row, scenario, control
        self._journal, self._around, self._repository = journal, around, journal.repository
        self._news = news               # deque of children that may have ended; None: all
        self._tree = self._records = self._questions = None
        self._halt, self._mode = None, None     # the Interrupted that ends it; how its children end
        self._stopped = 0.0                     # when they were told so last, monotonic seconds
        self._is_blind = False          # what its children did could not be read
        self._looked = 0.0              # when it looked at all of them last, monotonic seconds

    def run(self, place):
        """A generator of Waitings, then -> Outcome. `place` is None where it goes on with what an
        agent before has begun. Left, RepositoryError."""
        is_restart = place is not None
        with self._control.deadline(self._row["timeout"], "session", self._find_spent(is_restart)):
            try:
                secrets = take_secrets(self._scenario, self._row["secret_file"], self._control,
                                       self._journal, self._around)
            except ValueError as error:
                return Outcome(ERROR, str(error))
            self._journal.flush()
            self._make_tree(secrets, is_restart)
            try:
                return (yield from self._go())
            except (Conflict, NotFound) as error:       # its row is not as it was
                raise RepositoryError(error.message) from None
            except (Left, AgentError):
                raise
            except Exception as error:  # a fault of the agent's own: nobody waits for them
                for number in self._tree.waits_for:
                    self._stop(number, "fault of the agent: %s" % error)
                raise
            finally:
                self._questions.close()

    def _find_spent(self, is_restart):
        """How many seconds of its timeout are over."""
        if is_restart or not self._row["begun"]:
            return 0.0
        return max(0.0, self._around.clock.now() - from_text(self._row["begun"]))

    def _make_tree(self, secrets, is_restart):
        """Makes the tree of what was reached before."""
        row, clock, scenario = self._row, self._around.clock, self._scenario
        repository, session = self._repository, self._journal.session
        rows, items = repository.db.read(repository.plans.list_rows, session)
        if is_restart:                  # nothing of it is open any more, whatever became of that
            rows = [each._replace(status=STOPPED if each.status == RUNNING else each.status,
                                  due=None) for each in rows]
        values = dict(json.loads(row["variables"]), **own_values(row))
        values.update(secrets)
        last_run = repository.db.read(repository.plans.find_last_run, session)
        self._tree = PlanTree(scenario.plan, values, last_run)
        self._tree.restore(rows, items, clock.monotonic() - clock.now())
        self._records = PlanRecords(row, scenario, self._journal, self._around,
                                    self._control.wake)
        self._questions = PlanQuestions(self._journal, self._around, self._control, session)
        self._news.append(None)
        if not is_restart and self._tree.has_questions:
            # what asked them before may have left processes
            self._control.sweep(Interrupted("session", ERROR, ""))
        self._tree.begin(clock.monotonic())

    # -- going on ----------------------------------------------------------------------

    def _go(self):
        """Goes on until nothing is open -> Outcome."""
        tree, clock = self._tree, self._around.clock
        while True:
            if self._control.is_leaving:
                raise Left()
            self._look_for_stop()
            self._take_news()
            tree.call(clock.monotonic())
            last = yield from self._carry_out()
            if tree.is_over:
                return self._conclude(last)
            if not self._has_news():
                yield Waiting(self._has_news, self._find_patience(), tuple(tree.waits_for),
                              is_deaf=self._halt is not None)
                is_overdue = clock.monotonic() >= self._looked + LOOK_AGAIN_S
                if self._is_blind or self._halt is not None and is_overdue:
                    self._news.append(None)

    def _has_news(self):
        control = self._control
        return bool(self._news) or self._questions.has_answer or control.is_leaving \
            or control.has_stop and self._mode is None \
            or control.is_due and self._mode != IMMEDIATE

    def _find_patience(self):
        """How many seconds to wait at most, or None."""
        due, now = self._tree.find_time(), self._around.clock.monotonic()
        times = [max(0.0, due - now)] if due is not None else []
        if self._halt is not None or self._is_blind or self._tree.has_ready:
            times.append(LOOK_AGAIN_S)
        return min(times) if times else None

    def _look_for_stop(self):
        """A stop or the time-out of the plan ends what is open of it; children that began
        meanwhile, and those that were to end in good order, are stopped again."""
        try:
            self._control.interrupt_if_asked(is_between=True)
        except Interrupted as interrupt:
            mode, before = IMMEDIATE if self._control.is_due else NORMAL, self._mode
            now, self._mode = self._around.clock.monotonic(), mode
            if self._halt is None:
                self._halt = interrupt
                self._tree.stop(interrupt.status, interrupt.message, now)
                self._questions.stop_all(interrupt.message)
            if mode != before or now >= self._stopped + LOOK_AGAIN_S:
                self._stopped = now
                for number in self._tree.waits_for:
                    self._stop(number)

    def _stop(self, number, reason=None):
        """Stops a child: with the plan, or for a time-out of its node."""
        by = "its plan, session %d: %s" % (self._journal.session,
                                           reason or self._halt.reason)
        mode = IMMEDIATE if reason is not None else self._mode
        self._around.plans.ask_stop(self._repository, number, mode, by)

    def _take_news(self):
        """What has become of its children, and what was asked for."""
        tree, now = self._tree, self._around.clock.monotonic()
        for node, items, fault in self._questions.take_answers():
            if fault is None:
                tree.take(node, items, now)
            else:
                tree.fail(node, fault, now)
        numbers = set()
        while self._news:
            numbers.add(self._news.popleft())
        waits_for = tree.waits_for
        if None in numbers:
            self._looked, numbers = now, waits_for
        else:
            numbers = numbers.intersection(waits_for)
        if not numbers:
            return
        try:
            ended, gone = self._repository.db.read(self._repository.plans.list_children,
                                                   self._journal.session, sorted(numbers))
            self._is_blind = False
        except RepositoryGone:
            raise
        except RepositoryError:         # it cannot be read now
            self._is_blind = True
            return
        for number, status, message, variables, is_cut in ended:
            node = tree.find(number)
            values = json.loads(variables) if node.plan.body.returns else {}
            values = {name: value if self._journal.mask(value) == value else None
                      for name, value in values.items()}
            tree.end_child(number, status, message, values, bool(is_cut), now)
        for number in gone:
            tree.end_child(number, ERROR, "it was purged", {}, False, now)

    # -- carrying out ------------------------------------------------------------------

    def _carry_out(self):
        """Records what follows, and does it, until nothing does -> the last changes, which are to
        be recorded with the end of the plan."""
        tree, clock = self._tree, self._around.clock
        while True:
            changes, ready, stops, questions = tree.advance(self._around.plans.has_room)
            if tree.is_over:
                return changes
            for node in stops:
                if not self._questions.stop(node, tree.tell_halt(node)):
                    self._stop(node.child, None if self._halt else tree.tell_halt(node))
            for node in questions:
                self._ask(node, clock.monotonic())
            if not (changes or ready or questions or stops):
                return []
            starts = [(change, None) for change in changes]
            starts += [(tree.row_of(node), node) for node in ready]
            for node, result in (yield from self._records.record(starts, tree.waits_for)):
                self._follow(node, result)

    def _ask(self, node, now):
        """Has the values of a for_each, or the branch of a case, found out."""
        values = node.scope.all()
        try:
            answer = self._questions.ask(node, values)
        except (AgentError, TaskError, ValueError) as error:
            self._tree.fail(node, str(error), now)
        else:
            if answer is not None:
                self._tree.take(node, answer[0], now)

    def _follow(self, node, result):
        """A run has begun, or could not: its session is queued."""
        now = self._around.clock.monotonic()
        if isinstance(result, Ticket):
            self._tree.begun(node, result.session, now)
            self._around.plans.took(self._repository, result)
        elif isinstance(result, int):
            self._tree.begun(node, result, now)
            self._news.append(result)
        else:
            self._tree.fail(node, result.message, now)

    # -- the end -----------------------------------------------------------------------

    def _conclude(self, changes):
        """Has the last changes recorded with its end -> Outcome."""
        if changes:
            self._journal.note(self._repository.plans.apply, [
                self._records.mask(change) for change in changes], self._around.clock.now())
        root, has_skipped = self._tree.root, self._row["has_skipped"]
        if self._halt is not None and not (root is not None and root.status in WELL):
            return Outcome(self._halt.status, self._halt.message)
        if root is None or root.status == DONE:
            return Outcome(WARNING, "what had failed was skipped at the restart") if has_skipped \
                else Outcome(DONE)
        return Outcome(root.status if root.status in WELL else ERROR, root.message)
