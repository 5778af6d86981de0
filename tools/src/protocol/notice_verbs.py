"""The verbs on notices."""
from ..base.notice_forms import NOTICE_LINE, NOTICE_NAME_LINE, NOTICE_TEST_LINE
from .table import verb
from .lines import fill


@verb("NOTICE LIST")
def _notice_list(agent, request):
    for notice, waiting, last, message in agent.notices.list_rows():
        yield fill(NOTICE_LINE, {
            "name": notice["name"], "on": ",".join(notice["on"]),
            "scenarios": ",".join(notice["scenarios"]), "type": notice["send"]["type"],
            "waiting": waiting, "last": last, "message": message})


@verb("NOTICE TEST")
def _notice_test(agent, request):
    status, message = agent.notices.test(request["NAME"], request.client.name)
    return fill(NOTICE_TEST_LINE, {"notice": request["NAME"], "status": status,
                                   "message": message})


@verb("NOTICE DEL")
def _notice_del(agent, request):
    agent.notices.delete(request["NAME"])
    return fill(NOTICE_NAME_LINE, {"notice": request["NAME"]})
