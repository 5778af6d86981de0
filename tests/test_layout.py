"""The walls of the house, from the files of tools/src themselves: who imports and names what, and how large it is."""
import ast
import importlib.util
import os
import re
import statistics
import sys

import pytest

from conftest import TOP

SOURCES = TOP / "tools" / "src"
MODULE_LINES, CLASS_LINES, FUNCTION_LINES, MEDIAN_LINES = 400, 250, 50, 10

# What is larger than it may be until it is rebuilt, with its size today: these can only shrink.
TOO_LARGE = {
    "agent/agent.py": 412, "scheduling/schedules.py": 441, "store/database.py": 413,
    "Agent": 384, "Database": 370, "Schedules": 410, "Session": 366, "SessionQueue": 252, "SessionTables": 372,
    "Timetable": 290,
}
# How often a module assigns an attribute of an object that another module defines, likewise.
REACHES_OVER = {
    "agent/agent.py": 3, "agent/places.py": 1, "runtime/session.py": 1, "runtime/slots.py": 4,
    "scheduling/forecast.py": 4, "scheduling/scheduler.py": 13, "scheduling/schedules.py": 2, "scheduling/visits.py": 1,
    "server/server.py": 2,
}
# Private functions of more than ten lines without a docstring, likewise.
UNTOLD = 42
NOT_OURS = {"__name__", "crontab", "is_creating", "name", "raiseExceptions", "row_factory"}    # of the standard library's objects

# who may name a module of the standard library: floors, and single modules
MAY_IMPORT = {
    "sqlite3": {"store", "tasks/data.py"},
    "socket": {"server", "client", "tasks/network.py"},
    "socketserver": {"server"},
    "threading": {"store/database.py", "store/pending.py", "processes", "runtime", "scheduling", "agent", "server"},
}
TABLES = {"TASK_TYPES"}     # the mutable globals that there may be; VERBS begins with the forms and ends with functions
OVERRIDDEN = {"handle", "verify_request", "process_request_thread", "handle_error", "shutdown_request", "get_request"}


def load_build():
    spec = importlib.util.spec_from_file_location("build", str(TOP / "tools" / "build.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build()
TEXTS = {path.relative_to(SOURCES).as_posix(): path.read_text(encoding="utf-8") for path in SOURCES.glob("**/*.py")}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}


def floor_of(path):
    return path.rpartition("/")[0]


def nodes(*kinds):
    """(path, node) of all modules."""
    return [(path, node) for path, tree in sorted(TREES.items()) for node in ast.walk(tree) if isinstance(node, kinds)]


def size_of(node):
    """Lines, by what every Python tells: those up to the last name or literal."""
    above = [child.lineno for decorator in node.decorator_list for child in ast.walk(decorator)
             if hasattr(child, "lineno")]           # before Python 3.8 a function begins with its decorators
    return max(getattr(child, "lineno", 0) for child in ast.walk(node)) - max([node.lineno - 1] + above)


def test_the_house_has_its_floors():
    floors = list(build.FLOORS)
    for place, floor in enumerate(floors):
        assert set(build.FLOORS[floor]) <= set(floors[:place])
    assert {floor_of(path) for path in TREES} - {"client"} <= set(floors) and TREES


def test_imports_point_down():
    wrong = []
    for path, node in nodes(ast.ImportFrom):
        if node.level:
            other = "/".join(path.split("/")[:-node.level] + node.module.split(".")) + ".py"
            assert other in TREES, (path, node.lineno)
            if floor_of(other) not in build.FLOORS[floor_of(path)] + (floor_of(path),):
                wrong.append("%s:%d uses %s" % (path, node.lineno, other))
    assert not wrong, "\n".join(wrong)


def imported():
    """(path, line, module of the standard library)."""
    for path, node in nodes(ast.Import, ast.ImportFrom):
        if not getattr(node, "level", 0):
            for name in [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]:
                yield path, node.lineno, name.split(".")[0]


def test_who_may_import_what():
    wrong = ["%s:%d imports %s" % (path, line, name) for path, line, name in imported()
             if name in MAY_IMPORT and not MAY_IMPORT[name].intersection((path, floor_of(path)))
             # a file of the store beside the repositories, and its words for what SQLite refuses
             and (name, path) != ("sqlite3", "store/files.py")]
    assert not wrong, "\n".join(wrong)


def test_only_the_standard_library():
    known = getattr(sys, "stdlib_module_names", None)
    if known is None:
        pytest.skip("this Python does not know its modules' names")
    assert {name for _, _, name in imported()} <= set(known)


def test_sql_on_the_repositories_is_in_the_store_alone():
    sql = re.compile(r"[\"'](select .* from|insert into|update \w+ set|delete from|replace into) ")
    wrong = ["%s:%d" % (path, number) for path, text in TEXTS.items() if floor_of(path) != "store"
             for number, line in enumerate(text.split("\n"), 1)
             if sql.search(line) and path not in ("tasks/data.py", "tasks/csvfiles.py")]       # to data servers
    assert not wrong, wrong


def test_the_time_of_day_is_read_in_the_clock_alone():
    readers = [(path, node.lineno) for path, node in nodes(ast.Attribute)
               if isinstance(node.value, ast.Name) and floor_of(path) != "client"
               and (node.value.id == "time" and node.attr in ("time", "time_ns")
                    or node.value.id in ("datetime", "date") and node.attr in ("now", "today", "utcnow"))]
    clock = next(node for node in TREES["base/times.py"].body if getattr(node, "name", "") == "Clock")
    inside = range(clock.lineno, clock.lineno + size_of(clock))
    assert [place for place in readers if place[0] != "base/times.py" or place[1] not in inside] == []


def test_threads_are_told_where_they_are_made():
    wrong = []
    for path, node in nodes(ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "Thread":
            name = next(keyword.value for keyword in node.keywords if keyword.arg == "name")
            texts = [ast.literal_eval(each) for each in ast.walk(name) if isinstance(each, (ast.Str, ast.Constant))
                     ] if sys.version_info < (3, 8) else [each.value for each in ast.walk(name)
                                                         if isinstance(each, ast.Constant)]
            words = [text.split()[0] for text in texts if isinstance(text, str)]
            if not any(re.search("^Thread %s\\b" % word, TEXTS[path], re.M) for word in words) and words:
                wrong.append("%s:%d" % (path, node.lineno))
    assert not wrong, wrong


def test_no_attribute_of_another_module_is_assigned():
    counts = {}
    for path, tree in TREES.items():
        owned = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                 and isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self"} | NOT_OURS
        owned |= {target.id for node in ast.walk(tree) if isinstance(node, (ast.Assign, ast.AnnAssign))
                  for target in getattr(node, "targets", [getattr(node, "target", None)]) if isinstance(target, ast.Name)}
        lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                 and isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") != "self" and node.attr not in owned]
        if len(lines) > REACHES_OVER.get(path, 0):
            counts[path] = lines
    assert not counts, counts


def test_no_mutable_globals_but_the_tables():
    empty, lower = set(), []
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Dict, ast.List, ast.Set)):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                lower += [(path, name) for name in names if not name.isupper()]
                if not (getattr(node.value, "keys", None) or getattr(node.value, "elts", None)):
                    empty.update(names)
    assert (lower, empty) == ([], TABLES)


def is_told(node):
    return bool(ast.get_docstring(node))


def test_what_has_a_docstring():
    inner = {child for _, node in nodes(ast.FunctionDef) for child in ast.walk(node) if child is not node}
    missing, untold = [], []
    for path, node in nodes(ast.ClassDef, ast.FunctionDef):
        if node in inner or is_told(node) or node.name in OVERRIDDEN:
            continue
        if not node.name.startswith("_"):
            missing.append("%s:%d %s" % (path, node.lineno, node.name))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("__") and size_of(node) > 10:
            untold.append("%s:%d %s" % (path, node.lineno, node.name))
    assert not missing, "\n".join(missing)
    assert len(untold) <= UNTOLD, "\n".join(untold)


def test_sizes(capsys):
    modules = {path: text.count("\n") for path, text in TEXTS.items()}
    classes = {node.name: size_of(node) for _, node in nodes(ast.ClassDef)}
    functions = {"%s %s" % (path, node.name): size_of(node) for path, node in nodes(ast.FunctionDef)}
    median = statistics.median(functions.values())
    with capsys.disabled():
        print("\nhouse: %d modules, %d lines; agent.py %d lines" % (
            len(modules), sum(modules.values()), (TOP / "agent.py").read_text(encoding="utf-8").count("\n")))
        for what, sizes in (("module", modules), ("class", classes), ("function", functions)):
            print("%s: median %d, longest %s" % (what, statistics.median(sizes.values()), ", ".join(
                "%s %d" % (name, sizes[name]) for name in sorted(sizes, key=sizes.get)[:-4:-1])))
    for sizes, limit in ((modules, MODULE_LINES), (classes, CLASS_LINES), (functions, FUNCTION_LINES)):
        assert {name: size for name, size in sizes.items() if size > TOO_LARGE.get(name, limit)} == {}
    assert median < MEDIAN_LINES
    gone = set(TOO_LARGE) - set(modules) - set(classes) | (set(REACHES_OVER) - set(modules))
    assert not gone, "these exceptions are not needed any more"


def test_the_build_is_small_too():
    assert os.path.getsize(str(TOP / "tools" / "build.py")) < 20000
    assert not [line for line in (TOP / "tools" / "build.py").read_text(encoding="utf-8").split("\n")
                if len(line) > build.WIDTH]


def test_readme_tells_every_verb_as_the_table_does():
    import agent
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    rows = ["| `%s` | %s |" % (row.form.replace("|", "\\|"), row.help)
            for row in agent.VERBS.values()]
    missing = [row for row in rows if row not in readme]
    assert not missing, "README.md lacks these lines:\n" + "\n".join(missing)
