"""The verbs on users, and the one by which they say who they are."""
from typing import NamedTuple

from ..base.clients import Client
from ..base.errors import BadRequest
from ..base.user_forms import KNOWN_LINE, USER_LINE, USER_NAME_LINE, USER_PASSWORD_LINE
from .table import verb
from .lines import fill


class Introduction(NamedTuple):
    """What a verb gives that changes who asks on its connection: who that is, and its OK."""
    client: Client
    fields: list


@verb("AUTH")
def _auth(agent, request):
    client = agent.access.log_in(request.client.peer, request["USER"], request["PASSWORD"])
    note = {"note": "this password is for one use: USERS PASSWORD %s sets yours" % client.user} \
        if client.is_temporary else {}
    return Introduction(client, fill(KNOWN_LINE, {"user": client.user, "role": client.role},
                                     **note))


@verb("USERS LIST")
def _users_list(agent, request):
    now = agent.clock.now()
    for user in agent.access.list_users():
        kind = "own" if user.until is None else "once" if user.until > now else "expired"
        yield fill(USER_LINE, {
            "user": user.name, "role": user.role, "scenarios": ",".join(user.scenarios),
            "os_user": user.os_user, "password": kind, "until": user.until,
            "created": user.created, "changed": user.changed})


@verb("USERS ADD")
def _users_add(agent, request):
    if "-ROLE" not in request:
        raise BadRequest("-ROLE is missing: monitor, operator or administrator")
    password = agent.access.add(request.client, request["NAME"], request["-ROLE"],
                                request["-SCENARIOS"] or (), request["-OS_USER"])
    return fill(USER_PASSWORD_LINE, {"user": request["NAME"], "password": password})


@verb("USERS SET")
def _users_set(agent, request):
    changes = {name[1:].lower(): request[name]
               for name in ("-ROLE", "-SCENARIOS", "-OS_USER") if name in request}
    if "os_user" in changes:
        changes["os_user"] = changes["os_user"] or None
    if not changes and "-RESET" not in request:
        raise BadRequest("nothing to change: give -ROLE, -SCENARIOS, -OS_USER or -RESET")
    password = agent.access.set(request.client, request["NAME"], changes, "-RESET" in request)
    return fill(USER_PASSWORD_LINE, {"user": request["NAME"]},
                **({} if password is None else {"password": password}))


@verb("USERS PASSWORD")
def _users_password(agent, request):
    client = agent.access.put_password(request.client, request["NAME"], request["NEW"])
    return Introduction(client, fill(USER_NAME_LINE, {"user": request["NAME"]}))


@verb("USERS DEL")
def _users_del(agent, request):
    agent.access.delete(request["NAME"])
    return fill(USER_NAME_LINE, {"user": request["NAME"]})
