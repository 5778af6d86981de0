"""What the runs of a load plan ask for: sessions, with the variables that are handed to them."""
import json

from ..base.errors import AgentError, BadRequest, RepositoryError, Unreadable
from ..base.times import from_text
from ..definitions.plan import hand_down, settle
from ..store.plans import NodeBegin
from ..store.records import RestartRequest, SessionRequest, Ticket


class PlanRequests:
    """Makes the requests of a plan's runs, and puts aside what is secret of them."""

    def __init__(self, row, scenario, journal, around):
        self._row, self._scenario = row, scenario
        self._journal, self._around, self._repository = journal, around, journal.repository
        self._faults = {}               # NodeState -> the AgentError why it has no request
        self._targets = {}              # (scenario, version) -> Scenario: asked for at once

    def forget(self):
        """What is asked for next may be another by now."""
        self._targets = {}

    def _get_target(self, *key):
        """The Scenario of a name and version. NotFound, RepositoryError."""
        if key not in self._targets:
            _, self._targets[key] = self._repository.db.read(
                self._repository.scenarios.get_scenario, *key)
        return self._targets[key]

    def prepare(self, node, change):
        """A NodeBegin with the request of its run; without one where that cannot be made, and
        take_fault() says why. RepositoryError: not now."""
        try:
            return self._make(node, change)
        except AgentError as error:
            if isinstance(error, RepositoryError) and not isinstance(error, Unreadable):
                raise
            self._faults[node] = error
        except ValueError as error:
            self._faults[node] = BadRequest(str(error))
        return change

    def take_fault(self, node):
        """The AgentError why a run has no request."""
        return self._faults.pop(node)

    def _make(self, node, change):
        """The NodeBegin with its request. AgentError."""
        values, row, journal = node.scope.all(), self._row, self._journal
        body = settle(node.plan, values).body
        context = body.context or row["context"]
        self._around.plans.check_context(context)
        former = node.child and self._repository.db.read(self._repository.sessions.find,
                                                         node.child)
        if former is not None and node.plan.restart != "session":
            target = self._repository.db.read(self._repository.sessions.get_scenario, former)
        else:
            former = None
            target = self._get_target(body.scenario, body.version)
        variables = hand_down(target, node.plan.body, values, frozenset(self._scenario.secrets))
        secrets = {name: value for name, value in variables.items() if name in target.secrets}
        is_held = self._around.plans.is_held(self._repository)
        words = [item for item in body.keywords.split(",") if item] + [
            word for word in node.words if "," not in word]
        request = SessionRequest(
            body.scenario, row["agent"], body.version, context, variables,
            journal.mask(" ".join(filter(None, (node.plan.name, node.value)))),
            journal.mask(",".join(words)), row["priority"] if body.priority is None
            else body.priority, row["level"], is_held=is_held, hidden=journal.secrets,
            due=row["due"] and from_text(row["due"]), asked_by=row["asked_by"],
            parent=row["id"], node=node.run)
        restart = None
        if former is not None:
            before = json.loads(former["given"])
            restart = RestartRequest(former["id"], {
                name: value for name, value in variables.items()
                if name in secrets or value != before.get(name, target.variables.get(name))},
                is_held=is_held, plan=row["id"])
        if secrets:
            name = self._repository.secrets.write(secrets)
            request = request._replace(secret_file=name)
            restart = restart and restart._replace(secret_file=name)
        return change._replace(request=request, former=restart)

    def close(self, pairs, results):
        """The changes of pairs (change, node) were recorded, with these results, or never will be
        (None): what was put aside for them belongs to their sessions now, or to nobody."""
        secrets = self._repository.secrets
        for (change, _), result in zip(pairs, results or [None] * len(pairs)):
            if not isinstance(change, NodeBegin) or change.request is None:
                continue
            if change.request.secret_file:
                secrets.settle(change.request.secret_file, isinstance(result, Ticket)
                               and result.has_secrets and result.ending is None)
            if isinstance(result, Ticket) and result.spent_file:
                secrets.forget(result.spent_file)
