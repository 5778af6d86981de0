"""Load plans that are purged: with all below them, and not while anything of that is open."""
import pytest

from support.outside import query
from support.plans import make_plan, plan_children, put_plan, run_plan
from support.waiting import go, import_waiting, wait_begun

pytestmark = pytest.mark.once


def test_a_plan_of_more_children_than_a_purge_takes_at_once(inside):
    put_plan(inside, {"run": "A"})
    number, _ = run_plan(inside)
    child, = plan_children(inside, number)
    columns = "agent, scenario, version, definition, context, status, priority, level, created, ended, variables, given," \
        " parent, node"

    def multiply(connection):
        connection.execute(
            "with recursive count(n) as (select 1 union all select n + 1 from count where n < 450) insert into session(id, %s)"
            " select id + 1000 * n, %s from session, count where id=?" % (columns, columns), (int(child["session"]),))
    inside.agent.places.of_session(int(number)).db.write(multiply)
    assert inside.ok("PURGE -KEEP=0 -SCENARIO=P")["purged"] == "452"
    assert query(inside.work, "select count(*) from session") == [(0,)]


def test_what_was_restarted_deep_below_a_plan_keeps_it(inside):
    put_plan(inside, {"run": "Q"}, make_plan({"run": "B"}, "Q"))
    run_plan(inside, status="ERROR")
    inside.ok("DROP B 1")
    import_waiting(inside, "B")
    deepest = inside.rows("SESSIONS -SCENARIO=B")[0]["session"]
    inside.ok("RESTART %s -REDEFINE" % deepest)
    wait_begun(inside, deepest)
    assert inside.ok("PURGE -KEEP=0 -DRY_RUN")["purged"] == inside.ok("PURGE -KEEP=0")["purged"] == "0"
    go(inside)
    assert inside.ok("WAIT %s" % deepest)["status"] == "DONE"
    assert inside.ok("PURGE -KEEP=0")["purged"] == "3"
