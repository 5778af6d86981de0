"""What a RESTART makes of a load plan: which of its nodes begin anew, and which are passed over."""
from ..base.vocabulary import RESTARTABLE
from ..base.errors import Conflict, NotFound
from .plans import PASSED, REOPENED, VOID, list_nodes


def reopen_plan(connection, row, plan, before, request):
    """Marks the rows of a plan that goes on by a RestartRequest -> {column: value} of its session.
    `plan` is its root now, `before` that which it had, if that could be read. NotFound,
    Conflict."""
    session = row["id"]
    connection.execute("update plan_node set status='STOPPED', ended=?, due=null where session=?"
                       " and (status='RUNNING' or due not null)", (row["ended"], session))
    if before is not None and before != plan:
        make_changed_void(connection, session, plan, before)
    if request.is_skipping:
        pass_over(connection, session, list_nodes(connection, session))
        return {"has_skipped": True}
    if request.from_step is not None:
        places = find_places(connection, session, plan, request.from_step)
        if any([begin_from(connection, session, plan, place, row["ended"]) for place in places]):
            return {"has_skipped": True}
    return {}


def mark_place(connection, session, place, mark, is_below=False):
    """Marks all rows of a place, or of what is below it, too."""
    connection.execute(
        "update plan_node set mark=? where session=? and (place=?%s)"
        % (" or substr(place, 1, ?) = ?" if is_below else ""),
        (mark, session, place) + ((len(place) + 1, place + ".") if is_below else ()))


def list_above(place):
    """The places above a place, the root's first."""
    words = place.split(".")
    return [".".join(words[:count]) for count in range(1, len(words))]


# -- other definitions -----------------------------------------------------------------

def list_plan_parts(node):
    """[(word of its place, PlanNode)] of what is right below a node; `*` for each value."""
    body, kind = node.body, node.kind
    if kind in ("serial", "parallel"):
        below = list(body.nodes)
    elif kind == "case":
        below = [branch.node for branch in body.branches]
    else:
        below = []
    nodes = [(str(number), each) for number, each in enumerate(below, 1)]
    if kind == "case" and body.otherwise is not None:
        nodes.append(("else", body.otherwise))
    if kind == "for_each":
        nodes.append(("*", body.node))
    if node.exception is not None:
        nodes.append(("exception", node.exception))
    return nodes


def list_all(root):
    """{place: PlanNode} of a plan, with `*` for the values of a for_each."""
    nodes, to_look = {}, [("1", root)]
    while to_look:
        place, node = to_look.pop()
        nodes[place] = node
        to_look += [("%s.%s" % (place, word), each) for word, each in list_plan_parts(node)]
    return nodes


def find_pattern(nodes, place):
    """The place in a definition of a place that was reached, or None."""
    pattern = ""
    for word in place.split("."):
        below = "%s.%s" % (pattern, word) if pattern else word
        pattern = below if below in nodes else pattern + ".*"
        if pattern not in nodes:
            return None
    return pattern


def tell_same(node):
    """What two nodes have to share for what one has reached to count for the other."""
    is_run = node.kind == "run"
    return node.kind, node.name, is_run and (node.body.scenario, node.body.version)


def make_changed_void(connection, session, plan, before):
    """Another definition: what stands elsewhere in it, or is something else, begins anew."""
    old, new = list_all(before), list_all(plan)
    for row in list_nodes(connection, session):
        pattern = find_pattern(old, row["place"])
        if pattern not in new or pattern not in old \
                or tell_same(new[pattern]) != tell_same(old[pattern]):
            mark_place(connection, session, row["place"], VOID, is_below=True)


# -- SKIP ------------------------------------------------------------------------------

def pass_over(connection, session, rows):
    """What failed counts as if it had not. Conflict: nothing has."""
    failed = {row["place"] for row in rows
              if row["status"] in RESTARTABLE and row["mark"] != PASSED
              and not row["place"].endswith(".exception")}
    above = {place for each in failed for place in list_above(each)}
    causes = failed - above
    if not causes:
        raise Conflict("nothing of session %d has failed to go on behind" % session)
    for place in causes:
        mark_place(connection, session, place, PASSED)
    for place in {each for cause in causes for each in list_above(cause)}:
        mark_place(connection, session, place, REOPENED)


# -- FROM ------------------------------------------------------------------------------

def find_places(connection, session, plan, text):
    """The places that the text of -FROM names: one, or by the name of a node all that it has.
    NotFound."""
    nodes = list_all(plan)
    rows = list_nodes(connection, session)
    named = [place for place, node in nodes.items() if node.name == text]
    if named:
        places = named if "*" not in named[0].split(".") else [
            row["place"] for row in rows if find_pattern(nodes, row["place"]) == named[0]]
    else:
        places = [text] if find_pattern(nodes, text) is not None else []
        if places and "*" in find_pattern(nodes, text).split(".") \
                and text not in [row["place"] for row in rows]:
            places = []
    if not places:
        raise NotFound("the plan of session %d has reached no node %s" % (session, text) if named
                       else "the plan of session %d has no node %s" % (session, text))
    if any("exception" in place.split(".") for place in places):
        raise Conflict("node %s is in an exception: it runs when its node fails" % text)
    return places


def begin_from(connection, session, plan, place, ended):
    """A node begins anew, and in the serials around it what comes behind -> whether that passes
    over what had failed. `ended` is when the plan ended before."""
    has_skipped = False
    nodes = list_all(plan)
    mark_place(connection, session, place, VOID, is_below=True)
    words = place.split(".")
    for count in range(1, len(words)):
        above = ".".join(words[:count])
        node = nodes[find_pattern(nodes, above)]
        put_missing(connection, session, above, node, ended)
        mark_place(connection, session, above, REOPENED)
        if node.kind == "serial":
            index = int(words[count]) - 1
            connection.execute("update plan_node set first=? where session=? and place=?",
                               (index, session, above))
            earlier = ["%s.%d" % (above, number) for number in range(1, index + 1)]
            has_skipped = has_skipped or any(
                row["place"] in earlier and row["status"] in RESTARTABLE
                for row in list_nodes(connection, session))
            for later in range(index + 1, len(node.body.nodes)):
                mark_place(connection, session, "%s.%d" % (above, later + 1), VOID, is_below=True)
    return has_skipped


def put_missing(connection, session, place, node, ended):
    """A row for a node that was not reached, or is void, as if it had failed."""
    if connection.execute("select 1 from plan_node where session=? and place=? and mark<>?",
                          (session, place, VOID)).fetchone():
        return
    run = connection.execute("select ifnull(max(run), 0) + 1 from plan_node where session=?",
                             (session,)).fetchone()[0]
    connection.execute(
        "insert into plan_node(session, run, place, since, kind, name, value, attempt, tries,"
        " status, begun, ended) values (?, ?, ?, ?, ?, ?, '', 0, 1, 'STOPPED', ?, ?)",
        (session, run, place, run, node.kind, node.name or "", ended, ended))
