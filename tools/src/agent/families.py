"""The children of load plans: what their plan asks of the agent for them."""
import collections
import contextlib

from ..base.vocabulary import IMMEDIATE, OUTSTANDING, STOPPED, WRITE_S
from ..base.errors import AgentError
from ..store.endings import tell_stop
from ..store.pending import Pending


class Families:
    """Sessions of plans; for the thread in which their plan goes on: nothing here waits."""

    def __init__(self, agent):
        self._agent = agent

    def check_context(self, name):
        """NotFound when there is no context of this name."""
        self._agent.desk.check_context(name)

    @property
    def has_room(self):
        """Whether there may be further outstanding sessions."""
        return self._agent.queue.counts()[1] < self._agent.settings.max_queue

    def is_held(self, repository):
        """Whether a session that is made now has to wait for a release."""
        return self._agent.desk.is_held(repository)

    def took(self, repository, ticket):
        """A session of a plan is on disk: it is queued, or has ended at once."""
        desk = self._agent.desk
        if ticket.ending is not None:
            desk.ended(repository, ticket.ending)
        elif ticket.status in OUTSTANDING:
            desk.queue_ticket(repository, ticket)

    def ask_stop(self, repository, number, mode, by):
        """Has a session end, NORMAL or IMMEDIATE; its plan hears of it, and asks again where that
        came to nothing, as while it was about to begin."""
        agent = self._agent

        def follow(pending):
            if pending.value is not None:
                agent.desk.ended(repository, pending.value)
                return
            session = agent.queue.find(number)
            if session is not None and session.repository is repository:
                session.stop(mode, tell_stop("at once" if mode == IMMEDIATE else "", by))
        session = agent.queue.find(number)
        if session is not None and session.is_begun:
            follow(Pending(None))
            return
        repository.db.submit(repository.endings.end_outstanding, number, STOPPED,
                             tell_stop("before it began", by), agent.clock.now(), on_done=follow)

    def ended(self, ending):
        """A session has ended: the plan that it belongs to, if any, looks what follows."""
        plan = ending.parent and self._agent.queue.find(ending.parent)
        if plan:
            plan.note_child(ending.session)

    def look(self, repository):
        """Another program has written to a repository: plans look at their children, and all who
        wait for the end of a session look, too. RepositoryError."""
        for session in self._agent.queue.list_running():
            if session.repository is repository:
                session.note_child(None)
        self._agent.watch.look(repository)

    def leave(self):
        """The agent stops: its plans go on with its next start. What runs of them then is their
        children's own business."""
        for session in self._agent.queue.list_running():
            if session.ticket.is_plan:
                session.leave()

    def cut(self):
        """What runs is about to be stopped, since the agent stops: the nodes of these sessions are
        begun again with their plans. Waits for that to be on disk, as long as it can be."""
        self.leave()
        agent = self._agent
        numbers = collections.defaultdict(list)
        for session in agent.queue.list_running():
            if session.ticket.is_child and not session.ticket.is_plan:
                numbers[session.repository].append(session.number)
        for pending in [repository.db.submit(repository.plans.note_cut, sessions, within_s=WRITE_S)
                        for repository, sessions in numbers.items()]:
            with contextlib.suppress(AgentError):
                pending.result()
