"""What a client may ask for whom some scenarios are not there: checked by what his words name.

A scenario is there for him by its name alone, whether it exists or not; a session or schedule by
its scenario. What is not there is NOT_FOUND in the words for what does not exist. Listings leave it
out themselves: they are given the patterns of who asks.
"""
from ..base.errors import Denied, NotFound
from ..definitions.model import parse_after

# verb -> its word that names a scenario
SCENARIO_WORDS = {"EXEC": "SCENARIO", "EXPORT": "SCENARIO", "DROP": "SCENARIO",
                  "SCHED ADD": "SCENARIO", "SCHED SET": "-SCENARIO"}
# verb -> its word that names a session
SESSION_WORDS = {"STOP": "SESSION", "RESTART": "SESSION", "STATUS": "SESSION", "LOG": "SESSION",
                 "WAIT": "SESSION"}
# verb that changes a schedule -> its word that names that
SCHEDULE_WORDS = {"HOLD": "-SCHEDULE", "RELEASE": "-SCHEDULE", "SCHED SET": "NAME",
                  "SCHED DEL": "NAME", "SCHED ON": "NAME", "SCHED OFF": "NAME"}
# further verbs: they name none, or leave out what is not there
OTHER_VERBS = ("PING", "SESSIONS", "SCENARIOS", "REPOS", "CONTEXTS", "PURGE", "HELP", "QUIT",
               "AUTH", "USERS PASSWORD", "SCHED LIST", "SCHED SHOW", "SCHED NEXT", "SCHED WHY",
               "SCHED PLAN", "CALENDAR LIST")
ALLOWED = frozenset(OTHER_VERBS).union(SCENARIO_WORDS, SESSION_WORDS, SCHEDULE_WORDS)


def check_words(agent, request):
    """Denied for what concerns the whole agent, NotFound for a scenario that is not there. Reads no
    file."""
    name = request.verb
    if name not in ALLOWED or name in ("HOLD", "RELEASE") and "-SCHEDULE" not in request:
        raise Denied("%s concerns more than the scenarios that are there for you%s" % (
            name, "; give -SCHEDULE" if name in ("HOLD", "RELEASE") else ""))
    if name == "PURGE" and "-AUDIT" in request:
        raise Denied("PURGE -AUDIT concerns what others have done, too")
    scenario = request[SCENARIO_WORDS[name]] if name in SCENARIO_WORDS else None
    if scenario is not None:
        check_scenario(agent, request, scenario)


def check_scenario(agent, request, name):
    """NotFound: a scenario is not there for who asks."""
    if not request.client.sees(name):
        names = [place.attachment.name for place in agent.places.list_all()]
        repository = request["-REPO"] or (names[0] if len(names) == 1 else None)
        raise NotFound("no attached repository has a scenario %s" % name if repository is None
                       else "no scenario %s in repository %s" % (name, repository))


def check_rows(agent, request):
    """NotFound for a session or schedule that is not there, as its repository tells; a schedule is
    looked for in those where it is."""
    client, name = request.client, request.verb
    if name in SESSION_WORDS:
        number = request[SESSION_WORDS[name]]
        repository = agent.places.of_session(number)
        repository.db.read(repository.sessions.get, number, client.scenarios)
    if name in SCHEDULE_WORDS:
        request["-REPO"] = find_schedule(agent, client, request[SCHEDULE_WORDS[name]],
                                         request["-REPO"]).name
    if name in ("SCHED ADD", "SCHED SET"):
        _check_after(agent, request)


def find_schedule(agent, client, name, repository):
    """The repository that has a schedule which is there for who asks. NotFound."""
    for candidate in agent.places.readable(repository):
        row = candidate.db.read(candidate.schedules.find, name)
        if row is not None and client.sees(row["scenario"]):
            return candidate
    raise NotFound("no schedule %s" % name)


def _check_after(agent, request):
    """NotFound: a schedule would run after what is not there."""
    try:
        conditions = parse_after(request["-AFTER"] or "")
    except ValueError:                  # the schedule's own check says why
        return
    for condition in conditions:
        if condition.kind == "scenario":
            check_scenario(agent, request, condition.name)
        else:
            find_schedule(agent, request.client, condition.name, request["-REPO"])


def is_condition_seen(repository, client, kind, name):
    """Whether who asks may know what became of a schedule or scenario that an `after` names."""
    if not client.is_narrowed or kind == "scenario":
        return client.sees(name)
    row = repository.db.read(repository.schedules.find, name)
    return row is not None and client.sees(row["scenario"])


def find_parent(agent, client, cache, number):
    """The number of a parent if it is there for who asks, else None; `cache` is of one listing."""
    if number is None or not client.is_narrowed:
        return number
    if number not in cache:
        cache[number] = None
        place = agent.places.find_by_id(number % 1000)
        repository = place and place.repository
        row = repository and repository.db.read(repository.sessions.find, number)
        if row is not None and client.sees(row["scenario"]):
            cache[number] = number
    return cache[number]
