"""Where a session begins and goes on, with which definition and variables: EXEC -FROM, RESTART -SKIP, -REDEFINE."""
import pytest

from conftest import program, wait_for
from support.outside import change, query
from support.tasks import Run, add_steps, import_secret, os_task, step

SECRET = "open-sesame"


def set_to(variable, value):
    return {"type": "set", "variable": variable, "value": value}


def redefine(agent, name, *steps, **fields):
    """Another definition for a scenario's version."""
    agent.import_document({"scenarios": [dict({"name": name, "version": "1", "steps": list(steps)}, **fields)]},
                          "-REPLACE")


def run_end(agent, request):
    """What a session has become that a request has made, or let go on."""
    session = agent.ok(request)["session"]
    return Run(agent, session, agent.ok("WAIT %s" % session))


def steps_of(agent, session):
    """[(step, place, attempt, status)], place from 1."""
    return [(row["name"], row["step"], row["attempt"], row["status"]) for row in agent.rows("STATUS %s" % session)
            if "step" in row]


# -- variables -------------------------------------------------------------------------

def add_days(agent, folder):
    """A loop over days, of which day 3 fails until there is a file; what handles that goes on to the next."""
    following = {"type": "os", "command": "echo $((VAR_day + 1))", "capture": "day"}
    return add_steps(
        agent,
        {"name": "load", "on_error": "handle", "tasks": [
            {"type": "os", "command": "echo load $VAR_day; [ $VAR_day != 3 -o -e %s/go ]" % folder}]},
        {"name": "next", "tasks": [following]},
        {"name": "more", "on_false": "END", "on_ok": "load", "tasks": [
            {"type": "evaluate", "variable": "day", "operator": "<=", "value": "4"}]},
        {"name": "handle", "on_ok": "FAIL", "tasks": [following, set_to("seen", "yes")]},
        variables={"day": "1", "seen": "no"})


def test_restart_goes_on_with_the_day_that_failed_whatever_the_handler_has_set(inside, tmp_path):
    name = add_days(inside, tmp_path)
    failed = run_end(inside, "EXEC %s" % name)
    assert (failed.status, failed.values) == ("ERROR", {"day": "4", "seen": "yes"})
    again = run_end(inside, "RESTART %s" % failed.session)
    assert (again.status, again.texts[-2:]) == ("ERROR", ["load 3", "4"])
    (tmp_path / "go").touch()
    good = run_end(inside, "RESTART %s" % failed.session)
    assert (good.status, good.values) == ("DONE", {"day": "5", "seen": "no"})
    assert [text for text in good.texts if "load" in text] == [
        "load %d" % day for day in (1, 2, 3, 3, 3, 4)]


def test_restart_from_a_step_has_the_variables_with_which_it_last_began(inside, tmp_path):
    name = add_steps(
        inside, {"name": "a", "tasks": [set_to("v", "${v}a"), {"type": "os", "command": "echo a $VAR_v"}]},
        {"name": "b", "tasks": [set_to("v", "${v}b"), {"type": "os", "command": "echo b $VAR_v $VAR_w; false"}]},
        variables={"v": "", "w": "0"})
    failed = run_end(inside, "EXEC %s" % name)
    assert failed.texts == ["a a", "b ab 0"]
    assert run_end(inside, "RESTART %s" % failed.session).texts[2:] == ["b ab 0"]
    assert run_end(inside, "RESTART %s -FROM=b" % failed.session).texts[3:] == ["b ab 0"]
    assert run_end(inside, "RESTART %s w=1" % failed.session).texts[4:] == ["b ab 1"]
    assert run_end(inside, "RESTART %s" % failed.session).texts[5:] == ["b ab 1"]       # as its task last began
    assert run_end(inside, "RESTART %s -FROM=b v=x" % failed.session).texts[6:] == ["b xb 0"]   # as the step did
    assert run_end(inside, "RESTART %s -FROM=a" % failed.session).texts[7:] == ["a a", "b ab 0"]


def test_values_given_with_a_restart_stay_until_it_has_begun(inside):
    name = add_steps(inside, step("a", "echo $VAR_v; false"), variables={"v": "old"})
    failed = run_end(inside, "EXEC %s" % name)
    inside.ok("HOLD")
    inside.ok("RESTART %s v=new" % failed.session)
    inside.ok("STOP %s" % failed.session)
    inside.ok("RELEASE")
    assert run_end(inside, "RESTART %s" % failed.session).texts == ["old", "new"]


def test_a_stop_between_two_tasks_takes_back_no_variable(inside, tmp_path):
    """What goes on there has not begun in this round: the round before it counts no more."""
    pipe = tmp_path / "pipe"
    name = add_steps(
        inside, step("load", "echo load $VAR_day"),
        step("next", {"command": "touch %s; while [ -e %s ]; do sleep 0.02; done; echo $((VAR_day + 1))" % (pipe, pipe),
                      "capture": "day"}),
        {"name": "more", "on_ok": "load", "on_false": "END", "tasks": [
            {"type": "evaluate", "variable": "day", "operator": "<", "value": "3"}]},
        variables={"day": "1"})
    session = inside.ok("EXEC %s" % name)["session"]
    for stopped in (False, True):
        wait_for(pipe.exists)
        if stopped:
            inside.ok("STOP %s" % session)
        pipe.unlink()
        if not stopped:
            wait_for(lambda: inside.log_texts(session)[-1:] == ["load 2"])
    end = inside.ok("WAIT %s" % session)
    assert end["status"] == "STOPPED"
    assert run_end(inside, "RESTART %s" % session).texts == ["load 1", "2", "load 2", "3"]


@pytest.mark.parametrize("operator, texts", [("=", ["a", "yes"]), ("!=", ["a", "no"])])
def test_a_stop_in_the_moment_a_step_has_ended_repeats_nothing(inside, monkeypatch, operator, texts):
    """Whether it ended well or false: a RESTART goes on where it would have."""
    class Stopped(program.TASK_TYPES["evaluate"]):
        """An evaluate that a stop meets when it is over."""

        def run(self, fields, execution):
            result = super().run(fields, execution)
            if execution.values["v"] == "1":
                for session in inside.agent.queue.list_running():
                    session.stop(program.IMMEDIATE, "stopped")
            return result
    name = add_steps(
        inside, step("a", "echo a"), {"name": "b", "on_false": "no", "tasks": [
            {"type": "evaluate", "variable": "v", "operator": operator, "value": "1"}]},
        step("yes", "echo yes", on_ok="END"), step("no", "echo no"), variables={"v": "1"})
    monkeypatch.setitem(program.TASK_TYPES, "evaluate", Stopped)
    stopped = run_end(inside, "EXEC %s" % name)
    assert (stopped.status, stopped.texts) == ("STOPPED", ["a"])
    monkeypatch.undo()
    assert inside.err("RESTART %s -SKIP" % stopped.session) == "CONFLICT"
    end = run_end(inside, "RESTART %s" % stopped.session)
    assert (end.status, end.texts) == ("DONE", texts)


def test_a_stop_while_a_failure_is_told_leads_to_the_failure(inside, tmp_path):
    name = add_steps(
        inside, step("a", "echo a; [ -e %s/go ]" % tmp_path, on_error="alert"), step("b", "echo b", on_ok="END"),
        step("alert", "echo alert; while [ ! -e %s/go ]; do sleep 0.02; done" % tmp_path, on_ok="FAIL"))
    session = inside.ok("EXEC %s" % name)["session"]
    wait_for(lambda: inside.log_texts(session) == ["a", "alert"])
    inside.ok("STOP %s" % session)
    (tmp_path / "go").touch()
    assert inside.ok("WAIT %s" % session)["status"] == "ERROR"
    assert run_end(inside, "RESTART %s" % session).texts == ["a", "alert", "a", "b"]


def test_a_restart_after_a_failure_that_was_made_good_goes_not_back_to_it(inside, tmp_path):
    """It ends in FAIL by an evaluate: it goes on where something failed last, with the newest day of that."""
    name = add_steps(
        inside, {"name": "load", "tasks": [
            os_task("echo load $VAR_day; [ $VAR_day != 2 -o -e %s/go ]" % tmp_path),
            os_task("echo $((VAR_day + 1))", capture="day"),
            {"type": "evaluate", "variable": "day", "operator": "<", "value": "5"}], "on_ok": "load", "on_false": "FAIL"},
        variables={"day": "1"})
    failed = run_end(inside, "EXEC %s" % name)
    assert failed.texts == ["load 1", "2", "load 2"]
    (tmp_path / "go").touch()
    false = run_end(inside, "RESTART %s" % failed.session)
    assert (false.status, false.texts[3:]) == ("ERROR", ["load 2", "3", "load 3", "4", "load 4", "5"])
    assert inside.err("RESTART %s -SKIP" % failed.session) == "CONFLICT"
    assert run_end(inside, "RESTART %s" % failed.session).texts[9:] == ["load 4", "5"]


def test_only_tasks_that_change_a_variable_keep_what_it_was(inside):
    name = add_steps(inside, {"name": "a", "tasks": [set_to("v", "1"), set_to("v", "2"), set_to("v", "2"),
                                                     {"type": "os", "command": "false"}]},
                     variables={"v": "1", "w": "x" * 1000})
    run_end(inside, "EXEC %s" % name)
    assert query(inside.work, "select former from session_task order by run") == [
        (None,), ('{"v": "1"}',), (None,), (None,)]


def test_no_secret_is_kept_with_the_variables(inside):
    import_secret(inside, "S", "false")
    redefine(inside, "S", {"name": "a", "tasks": [
        {"type": "os", "command": "echo $VAR_password", "capture": "v"}, set_to("v", "x"),
        {"type": "os", "command": "false"}]}, variables={"password": {"secret": True}, "v": "y"})
    failed = run_end(inside, "EXEC S password=%s" % SECRET)
    assert run_end(inside, "RESTART %s password=%s -FROM=a" % (failed.session, SECRET)).values["v"] == "x"
    rows = query(inside.work, "select former from session_task where former not null")
    assert {"***" in text for text, in rows} == {True, False} and SECRET not in str(rows)


def make_former(path):
    """Brings a work repository to the form that it had before variables were kept."""
    former, version = path.with_name("former.db"), next(
        place for place, text in enumerate(program.WORK_MIGRATIONS) if "restart_run" in text)
    program.make_private(str(former))
    program.Database(str(former), "work", "former", program.WORK_MIGRATIONS[:version], program.Clock()).open().close()
    tables = [name for name, in query(former, "select name from sqlite_master where type='table'")]
    names = {table: ", ".join(row[1] for row in query(former, "pragma table_info(%s)" % table)) for table in tables}
    change(former, ("attach ? as new", (str(path),)), *[text for table in tables for text in (
        "delete from " + table, "insert into {0}({1}) select {1} from new.{0}".format(table, names[table]))])
    former.rename(path)


def test_sessions_from_before_have_their_variables_as_they_are(inside):
    name = add_steps(inside, {"name": "a", "tasks": [set_to("v", "${v}1"), os_task("echo $VAR_v; false"),
                                                     os_task("echo behind")]}, variables={"v": "0"})
    failed = [run_end(inside, "EXEC %s" % name).session for _ in range(2)]
    inside.stop()
    make_former(inside.work)
    inside.start()
    assert run_end(inside, "RESTART %s -SKIP" % failed[0]).texts == ["01", "behind"]
    assert run_end(inside, "RESTART %s -FROM=a" % failed[1]).texts == ["01", "011"]


# -- RESTART -SKIP ---------------------------------------------------------------------

def test_skip_goes_on_with_the_next_task_and_ends_warned(inside):
    name = add_steps(inside, step("a", "echo a1", "echo a2; false", "echo a3", attempts=2), step("b", "echo b"))
    failed = run_end(inside, "EXEC %s" % name)
    end = run_end(inside, "RESTART %s -SKIP" % failed.session)
    assert (end.status, end.texts) == ("WARNING", ["a1", "a2"] * 2 + ["a3", "b"])
    assert steps_of(inside, end.session) == [("a", "1", "1", "ERROR"), ("a", "1", "2", "ERROR"), ("a", "1", "3", "DONE"),
                                             ("b", "2", "1", "DONE")]


@pytest.mark.parametrize("on_ok, status, texts", [
    ("c", "WARNING", ["a", "c"]), ("END", "WARNING", ["a"]), ("FAIL", "ERROR", ["a"])])
def test_skip_of_a_last_task_leads_where_its_success_would(inside, on_ok, status, texts):
    name = add_steps(inside, step("a", "echo a; false", on_ok=on_ok), step("b", "echo b"), step("c", "echo c"))
    failed = run_end(inside, "EXEC %s" % name)
    end = run_end(inside, "RESTART %s -SKIP" % failed.session)
    assert (end.status, end.texts) == (status, texts)
    assert inside.err("RESTART %s -SKIP" % failed.session) == "CONFLICT"       # well ended, or nothing new has failed


def test_what_was_skipped_is_not_made_good_by_the_next_round(inside, tmp_path):
    """And its variables are those with which it failed: no day is left out but that one."""
    name = add_days(inside, tmp_path)
    end = run_end(inside, "RESTART %s -SKIP" % run_end(inside, "EXEC %s" % name).session)
    assert (end.status, end.values["day"]) == ("WARNING", "5")
    assert [text for text in end.texts if "load" in text] == ["load 1", "load 2", "load 3", "load 4"]


def test_skip_is_remembered_when_it_fails_again(inside, tmp_path):
    name = add_steps(inside, step("a", "false"), step("b", "[ -e %s/go ]" % tmp_path))
    failed = run_end(inside, "EXEC %s" % name)
    assert run_end(inside, "RESTART %s -SKIP" % failed.session).status == "ERROR"
    (tmp_path / "go").touch()
    assert run_end(inside, "RESTART %s -FROM=a" % failed.session).status == "ERROR"
    assert run_end(inside, "RESTART %s -SKIP" % failed.session).status == "WARNING"


def test_what_was_stopped_can_be_skipped(inside):
    name = add_steps(inside, step("a", "echo a; sleep 1000", "echo b"))
    session = inside.ok("EXEC %s" % name)["session"]
    wait_for(lambda: inside.log_texts(session) == ["a"])
    inside.ok("STOP %s -IMMEDIATE" % session)
    end = run_end(inside, "RESTART %s -SKIP" % session)
    assert (end.status, end.texts) == ("WARNING", ["a", "b"])


def test_skip_needs_something_that_failed(inside):
    inside.ok("HOLD")
    session = inside.ok("EXEC HELLO")["session"]
    inside.ok("STOP %s" % session)
    assert inside.err("RESTART %s -SKIP" % session) == "CONFLICT"
    for options in ("-SKIP -FROM=greet", "-SKIP -REDEFINE", "-SKIP=1"):
        assert inside.err("RESTART %s %s" % (session, options)) == "BAD_REQUEST"
    assert inside.status(session)["status"] == "STOPPED"


def test_a_skip_survives_a_crash_before_it_begins(make_agent):
    agent = make_agent().start()
    name = add_days(agent, agent.folder)
    failed = agent.ok("EXEC %s -SYNC" % name)["session"]
    agent.ok("HOLD")
    agent.ok("RESTART %s -SKIP" % failed)
    agent.kill()
    agent.start().ok("RELEASE")
    end = agent.wait_status(failed, "WARNING")
    texts = agent.log_texts(failed)
    assert end["message"] == "what had failed was skipped at the restart"
    assert [text for text in texts if "load" in text] == ["load %d" % day for day in (1, 2, 3, 4)]


# -- RESTART -REDEFINE -----------------------------------------------------------------

def test_a_restart_says_that_its_scenario_was_replaced(inside):
    name = add_steps(inside, step("a", "echo old; false"))
    failed = run_end(inside, "EXEC %s" % name)
    assert "note" not in inside.ok("RESTART %s" % failed.session)
    inside.ok("WAIT %s" % failed.session)
    redefine(inside, name, step("a", "echo new"))
    answer = inside.ok("RESTART %s" % failed.session)
    assert name in answer["note"] and "-REDEFINE" in answer["note"]
    assert Run(inside, failed.session, inside.ok("WAIT %s" % failed.session)).texts == ["old"] * 3
    answer = inside.ok("RESTART %s -REDEFINE" % failed.session)
    assert sorted(answer) == ["session", "status"]
    end = Run(inside, failed.session, inside.ok("WAIT %s" % failed.session))
    assert (end.status, end.texts) == ("DONE", ["old"] * 3 + ["new"])


def test_redefine_goes_on_with_the_step_of_that_name_from_its_first_task(inside):
    """Attempts, what ended badly, and variables are those of the step, wherever it stands now."""
    name = add_steps(inside, {"name": "a", "tasks": [set_to("v", "${v}a")]},
                     {"name": "b", "tasks": [os_task("echo b1 $VAR_v"), set_to("v", "${v}b"), os_task("false")]},
                     variables={"v": "", "gone": "x"})
    failed = run_end(inside, "EXEC %s" % name)
    redefine(inside, name, step("x", "echo x"), step("y", "echo y"), step("b", "echo new $VAR_v $VAR_more $VAR_gone"),
            variables={"v": "other", "more": "m"})
    end = run_end(inside, "RESTART %s -REDEFINE" % failed.session)
    assert (end.status, end.texts, end.values) == ("DONE", ["b1 a", "new a m"], {"v": "a", "more": "m"})
    assert steps_of(inside, end.session) == [("a", "1", "1", "DONE"), ("b", "2", "1", "ERROR"), ("b", "3", "2", "DONE")]


def test_redefine_where_the_step_or_the_version_is_gone(inside):
    name = add_steps(inside, step("a", "echo a; false"))
    failed = run_end(inside, "EXEC %s" % name)
    redefine(inside, name, step("b", "echo b"), step("c", "echo c"))
    assert inside.err("RESTART %s -REDEFINE" % failed.session) == "CONFLICT"
    assert inside.err("RESTART %s -REDEFINE -FROM=a" % failed.session) == "NOT_FOUND"
    assert inside.err("RESTART %s -FROM=c" % failed.session) == "NOT_FOUND"    # of the definition that it has
    inside.ok("DROP %s 1" % name)
    assert inside.err("RESTART %s -REDEFINE" % failed.session) == "NOT_FOUND"
    assert inside.status(failed.session)["status"] == "ERROR"
    assert "note" not in inside.ok("RESTART %s" % failed.session)
    inside.ok("WAIT %s" % failed.session)
    inside.import_document({"scenarios": [{"name": name, "version": "1", "steps": [step("b", "echo b"), step("c", "echo c")]}]})
    end = run_end(inside, "RESTART %s -REDEFINE -FROM=c" % failed.session)
    assert end.texts == ["a", "a", "c"]


def test_redefine_takes_secrets_and_the_timeout_as_they_are_now(inside):
    name = add_steps(inside, step("a", "false"), variables={"password": "plain text"}, timeout=500)
    failed = run_end(inside, "EXEC %s" % name)
    redefine(inside, name, step("a", "echo $VAR_password; false"), variables={"password": {"secret": True}}, timeout=700)
    assert inside.err("RESTART %s -REDEFINE" % failed.session) == "BAD_REQUEST"
    end = run_end(inside, "RESTART %s -REDEFINE password=%s" % (failed.session, SECRET))
    assert (end.texts, end.values) == (["***"], {"password": "***"})
    assert query(inside.work, "select variables, timeout from session") == [("{}", 700.0)]
    redefine(inside, name, step("a", "echo $VAR_password"), variables={"password": "plain"})
    end = run_end(inside, "RESTART %s -REDEFINE password=%s" % (failed.session, "given"))
    assert (end.texts[1:], end.values) == (["given"], {"password": "given"})
    assert list(inside.folder.glob("*.secret.*")) == []


def test_a_secret_is_not_stored_when_a_definition_makes_it_one_in_between(inside):
    """Its file is written by the names of before: it is tried anew, and nothing is changed."""
    name = add_steps(inside, step("a", "false"), variables={"password": {"secret": True}})
    failed = run_end(inside, "EXEC %s password=%s" % (name, SECRET))
    repository = inside.agent.places.list_open()[0]
    with pytest.raises(program.Changed):
        repository.db.write(repository.restarts.reopen, program.RestartRequest(
            int(failed.session), {"password": SECRET}, is_redefining=True))
    assert inside.status(failed.session)["status"] == "ERROR"


def test_redefine_mends_a_definition_that_cannot_be_read_any_more(inside):
    name = add_steps(inside, step("a", "true"), step("b", "echo b; false"))
    failed = run_end(inside, "EXEC %s" % name)
    change(inside.work, "update definition set body='{}' where id=(select definition from session)")
    assert inside.err("RESTART %s" % failed.session) == "REPOSITORY"
    redefine(inside, name, step("a", "true"), step("z", "true"), step("b", "echo mended"))
    assert run_end(inside, "RESTART %s -REDEFINE" % failed.session).texts == ["b", "mended"]


def test_a_redefined_restart_survives_a_crash(make_agent):
    agent = make_agent().start()
    name = add_steps(agent, step("a", "echo old; false"), variables={"v": "1"})
    failed = agent.ok("EXEC %s -SYNC" % name)["session"]
    redefine(agent, name, step("z", "echo z"), step("a", "echo new $VAR_v $VAR_w"), variables={"v": "1", "w": "2"})
    agent.ok("HOLD")
    agent.ok("RESTART %s -REDEFINE v=3" % failed)
    agent.kill()
    agent.start().ok("RELEASE")
    agent.wait_status(failed, "DONE")
    assert agent.log_texts(failed) == ["old", "new 3 2"]


# -- EXEC -FROM ------------------------------------------------------------------------

def test_exec_begins_with_a_step(inside):
    name = add_steps(inside, step("a", "echo a"), step("b", "echo b"), step("c", "echo c"))
    assert run_end(inside, "EXEC %s -FROM=b" % name).texts == ["b", "c"]
    name = add_steps(inside, step("a", "echo a"), step("b", "echo $VAR_v; false"), variables={"v": "1"})
    failed = run_end(inside, "EXEC %s 1 -FROM=b v=2" % name)
    assert (failed.status, failed.texts) == ("ERROR", ["2"])
    assert run_end(inside, "RESTART %s" % failed.session).texts == ["2", "2"]
    assert run_end(inside, "RESTART %s -FROM=a" % failed.session).texts[2:] == ["a", "2"]


def test_exec_from_a_step_that_is_not_there_makes_no_session(inside):
    for line, code in (("EXEC HELLO -FROM=nowhere", "NOT_FOUND"), ("EXEC HELLO -FROM=a/b", "BAD_REQUEST"),
                       ("EXEC HELLO -FROM=", "BAD_REQUEST")):
        assert inside.err(line) == code
    assert "nowhere" in inside.ask("EXEC HELLO -FROM=nowhere")[-1] and inside.rows("SESSIONS") == []


def test_a_key_is_the_same_with_another_first_step(inside):
    first = inside.ok("EXEC HELLO -KEY=k -FROM=greet")
    for options in ("", " -FROM=nowhere"):
        assert inside.ok("EXEC HELLO -KEY=k" + options)["session"] == first["session"]
    assert len(inside.rows("SESSIONS")) == 1


def test_a_session_from_a_step_that_is_stopped_or_crashes_begins_there_again(make_agent):
    agent = make_agent().start()
    name = add_steps(agent, step("a", "echo a"), step("b", "echo b1"), step("c", "echo c; [ -e go ] || sleep 1000"),
                     on_stale="restart")
    agent.ok("HOLD")
    waiting, stopped = [agent.ok("EXEC %s -FROM=b" % name)["session"] for _ in range(2)]
    agent.ok("STOP %s" % stopped)
    agent.kill()
    agent.start().ok("RELEASE")
    agent.ok("RESTART %s" % stopped)
    for session in (waiting, stopped):
        wait_for(lambda: agent.log_texts(session) == ["b1", "c"])
    (agent.folder / "go").touch()
    agent.kill()
    agent.start()
    for session in (waiting, stopped):
        agent.wait_status(session, "DONE")
        assert agent.log_texts(session) == ["b1", "c", "c"]
