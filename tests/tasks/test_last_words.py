"""The last word of tasks and sessions: why they ended so, in one line, and never the value of a secret."""
import pytest

from support.tasks import os_task, step

SECRET = "hush-hush-hush"


@pytest.fixture(scope="module")
def ended(shared_inside, tmp_path_factory):
    """ended(steps, **fields of the scenario) -> (row of the session, rows of its tasks)."""
    shared_inside.import_document({
        "data_servers": [{"name": "F", "driver": "sqlite3",
                          "database": str(tmp_path_factory.mktemp("dwh") / "dwh.db")}],
        "logical_schemas": [{"name": "DWH", "contexts": {"GLOBAL": "F"}}]})

    def run(*steps, options="", **fields):
        shared_inside.import_document({"scenarios": [dict({"name": "S", "version": "1", "steps": list(steps)}, **fields)]},
                                      "-REPLACE")
        number = shared_inside.ok("EXEC S %s" % options)["session"]
        row = shared_inside.wait_status(number, "DONE", "WARNING", "ERROR")
        return row, [each for each in shared_inside.rows("STATUS %s" % number) if "task" in each]
    return run


@pytest.mark.parametrize("on_stale", ["error", "adopt"])
@pytest.mark.parametrize("command, words", [
    ("nosuch", "not found"), ("echo first >&2; echo last >&2; echo; exit 3", "exit code 3: last"),
    (r"printf 'no end\n \n\t\n' >&2; exit 3", "exit code 3: no end"), ("printf half >&2; exit 3", "exit code 3: half"),
    ("exit 3", "exit code 3"), ("echo to out; exit 3", "exit code 3"),
    ("echo over >&2; kill -9 $$", "ended by signal 9 (SIGKILL): over"),
    (r"printf 'a\033]0;x\007\377\n' >&2; exit 3", r"exit code 3: a\x1b]0;x\x07\xff")])
def test_an_exit_code_comes_with_the_last_line_of_standard_error(ended, on_stale, command, words):
    row, tasks = ended(step("s", os_task(command)), on_stale=on_stale)
    assert tasks[0]["message"].endswith(words), tasks
    assert row["status"] == "ERROR" and row["message"] == "step s: task 1: " + tasks[0]["message"]


@pytest.mark.parametrize("on_stale", ["error", "adopt"])
def test_a_long_last_line_is_cut_and_secrets_are_masked_before(ended, on_stale):
    row, tasks = ended(step("s", os_task('echo "%s$VAR_pw$VAR_pw" >&2; exit 3' % ("x" * 198))), on_stale=on_stale,
                       variables={"pw": {"secret": True}}, options="pw=" + SECRET)
    assert tasks[0]["message"] == "exit code 3: %s**..." % ("x" * 198) and tasks[0]["message"] in row["message"]


def test_a_warning_code_and_a_python_task_have_it_too(ended):
    row, tasks = ended(step("s", os_task("echo mind >&2; exit 4", warning_codes=[4]), os_task("true")))
    assert tasks[0]["message"] == "exit code 4: mind"
    assert (row["status"], row["message"]) == ("WARNING", "step s: task 1: exit code 4: mind")
    row, tasks = ended(step("s", {"type": "python", "code": "raise ValueError('odd')"}))
    assert tasks[0]["message"] == "exit code 1: ValueError: odd" in row["message"]


@pytest.mark.parametrize("operator, value, words", [
    ("=", "2015", "false: v = 2015 (v is 2014)"), ("in", ["a", "b c"], 'false: v in a, "b c" (v is 2014)'),
    ("matches", "^3", "false: v matches ^3 (v is 2014)"), (">", "${w}", 'false: v > "x\\ny" (v is 2014)')])
def test_a_false_evaluate_says_what_it_has_compared(ended, operator, value, words):
    row, tasks = ended(step("s", {"type": "evaluate", "variable": "v", "operator": operator, "value": value},
                            on_false="FAIL"), variables={"v": "2014", "w": "x\ny"})
    assert tasks[0]["message"] == words and row["message"] == "step s: " + words


@pytest.mark.parametrize("value", [SECRET * 10, 'a\\"b\\\\c' * 12])
def test_a_false_evaluate_gives_no_secret_away(ended, value):
    plain = value.replace('\\"', '"').replace("\\\\", "\\")
    for compared in ("${pw}", ["${pw}", "x${pw}"]):
        operator = "in" if isinstance(compared, list) else "="
        row, tasks = ended(
            step("s", {"type": "evaluate", "variable": "v", "operator": operator, "value": compared},
                 {"type": "evaluate", "variable": "pw", "operator": "=", "value": "else"}, on_false="FAIL"),
            variables={"v": "2014", "pw": {"secret": True}}, options='pw="%s"' % value)
        assert plain[:8] not in row["message"] and "***" in row["message"], row
    row, _ = ended(step("s", {"type": "evaluate", "variable": "pw", "operator": "=", "value": "else"}, on_false="FAIL"),
                   variables={"pw": {"secret": True}}, options='pw="%s"' % value)
    assert row["message"] == "step s: false: pw = else (pw is ***)"


def test_a_task_says_what_it_gave_a_variable(ended):
    _, tasks = ended(step("s", {"type": "set", "variable": "v", "value": "${w} 2"}, os_task("echo 3", capture="v"),
                          {"type": "refresh", "variable": "v", "schema": "DWH", "query": "select 'a' || char(10)"},
                          {"type": "set", "variable": "v", "value": ""},
                          {"type": "set", "variable": "v", "value": "x${pw}"}),
                     variables={"v": "", "w": "1", "pw": {"secret": True}}, options="pw=" + SECRET)
    assert [task["message"] for task in tasks] == ['v = "1 2"', "v = 3", 'v = "a\\n"', 'v = ""', "v = x***"]


def test_a_set_says_why_it_failed(ended):
    row, tasks = ended(step("s", {"type": "set", "variable": "v", "value": "${v}${v}" * 40}),
                       variables={"v": "x" * 1000})
    assert tasks[0]["message"].startswith("v: the value ") and tasks[0]["message"] in row["message"]


def test_a_session_with_bad_rows_has_them_in_its_message(ended, tmp_path):
    file = tmp_path / "in.csv"
    file.write_text("a,b\n" + "1,2\n" * 15 + "1\n" + "1,2\n" * 82 + "1\n1\n")
    row, tasks = ended(step("load", {"type": "load_csv", "file": str(file), "schema": "DWH", "table": "t",
                                     "mode": "create", "max_errors": 3}), step("more", os_task("true")))
    words = "3 bad rows of 100 in %s, first line 17: 1 columns, not 2" % file
    assert (row["status"], row["message"], tasks[0]["message"]) == ("WARNING", "step load: task 1: " + words, words)


def test_an_error_passed_over_is_the_message_of_the_session(ended):
    row, _ = ended(step("a", os_task("echo no >&2; exit 3"), on_error="b"), step("b", os_task("true")))
    assert (row["status"], row["message"]) == ("WARNING", "step a: task 1: exit code 3: no")
