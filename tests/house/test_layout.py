"""The walls of the house, from the files of tools/src: who imports and names what; its sizes."""
import ast
import collections
import importlib.util
import re
import statistics
import sys

import pytest

from conftest import TOP

pytestmark = pytest.mark.once

SOURCES = TOP / "tools" / "src"
MODULE_LINES, CLASS_LINES, FUNCTION_LINES, MEDIAN_LINES = 400, 250, 50, 10

# What is larger than it may be until it is rebuilt, with its size today: these can only shrink.
TOO_LARGE = {
}
# How often a module assigns an attribute of an object that another module defines, likewise.
REACHES_OVER = {
    "server/server.py": 1,
}
# what a name would tell of how a value came, where it is to say what it is
NO_NAMES = {"found", "told", "made", "left", "it", "then", "given", "known", "wanted", "taken", "done", "seen", "kept",
            "got"}
# floors that are built into both products, or into one: a name hides what its own product has
CLIENT_FLOORS = {"client", "base"}
# attributes of the standard library's own objects
NOT_OURS = {"__cause__", "__context__", "__name__", "compress_type", "crontab", "external_attr", "extra", "file_size", "is_creating",
            "minimum_version", "name", "num_tickets", "options", "own", "raiseExceptions", "row_factory", "text_factory",
            "verify_mode"}

# who may import a module of the standard library: floors, and single modules
MAY_IMPORT = {
    "sqlite3": {"store", "tasks/data.py"},
    "socket": {"server", "client", "tasks/network.py"},
    "socketserver": {"server"},
    "threading": {"store/writer.py", "store/pending.py", "store/connections.py", "processes", "runtime", "scheduling",
                  "agent", "server", "base/workers.py"},
}
TO_DATA_SERVERS = ("tasks/data.py", "tasks/csvfiles.py")
# the globals that begin empty; VERBS begins with the forms and gets their functions
TABLES = {"TASK_TYPES"}
OVERRIDDEN = {"handle", "verify_request", "process_request", "process_request_thread", "handle_error",
              "shutdown_request", "get_request", "server_close"}


def load_build():
    spec = importlib.util.spec_from_file_location("build", str(TOP / "tools" / "build.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path):
    return path.read_text(encoding="utf-8")


build = load_build()
TEXTS = {path.relative_to(SOURCES).as_posix(): read(path) for path in SOURCES.glob("**/*.py")}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}


def floor_of(path):
    return path.rpartition("/")[0]


def nodes(*kinds):
    """(path, node) of all modules."""
    return [(path, node) for path in sorted(TREES) for node in ast.walk(TREES[path])
            if isinstance(node, kinds)]


def size_of(node):
    """Lines from `def` or `class` to the last name or literal, as every Python tells them: before
    3.8 a function begins with its decorators, and none says where it ends."""
    above = [child.lineno for decorator in node.decorator_list for child in ast.walk(decorator)
             if hasattr(child, "lineno")]
    last = max(getattr(child, "lineno", 0) for child in ast.walk(node))
    return last - max([node.lineno - 1] + above)


def imported():
    """(path, line, module of the standard library)."""
    for path, node in nodes(ast.Import):
        for alias in node.names:
            yield path, node.lineno, alias.name.split(".")[0]
    for path, node in nodes(ast.ImportFrom):
        if not node.level:
            yield path, node.lineno, node.module.split(".")[0]


def test_the_floors_point_down():
    floors = list(build.FLOORS)
    for place, floor in enumerate(floors):
        assert set(build.FLOORS[floor]) <= set(floors[:place])
    assert {floor_of(path) for path in TREES} <= set(floors) and TREES


def test_imports_point_down():
    wrong = []
    for path, node in nodes(ast.ImportFrom):
        if node.level:
            other = "/".join(path.split("/")[:-node.level] + node.module.split(".")) + ".py"
            assert other in TREES, (path, node.lineno)
            if floor_of(other) not in build.FLOORS[floor_of(path)] + (floor_of(path),):
                wrong.append("%s:%d uses %s" % (path, node.lineno, other))
    assert not wrong, "\n".join(wrong)


def test_who_may_import_what():
    wrong = ["%s:%d imports %s" % (path, line, name) for path, line, name in imported()
             if name in MAY_IMPORT and not MAY_IMPORT[name].intersection((path, floor_of(path)))]
    assert not wrong, "\n".join(wrong)


def test_only_the_standard_library():
    known = getattr(sys, "stdlib_module_names", None)
    if known is None:
        pytest.skip("this Python does not know its modules' names")
    assert {name for _, _, name in imported()} <= set(known)


def test_sql_on_the_repositories_is_in_the_store_alone():
    sql = re.compile(r"[\"'](select .* from|insert into|update \w+ set|delete from|replace into) ")
    wrong = ["%s:%d" % (path, number) for path, text in TEXTS.items()
             for number, line in enumerate(text.split("\n"), 1)
             if sql.search(line) and floor_of(path) != "store" and path not in TO_DATA_SERVERS]
    assert not wrong, wrong


def test_the_time_of_day_is_read_in_the_clock_alone():
    readers = [(path, node.lineno) for path, node in nodes(ast.Attribute)
               if "%s.%s" % (getattr(node.value, "id", ""), node.attr) in (
                   "time.time", "time.time_ns", "datetime.now", "datetime.today",
                   "datetime.utcnow", "date.today")]
    clock = next(node for node in TREES["base/times.py"].body
                 if getattr(node, "name", "") == "Clock")
    inside = range(clock.lineno, clock.lineno + size_of(clock))
    assert readers and all(path == "base/times.py" and line in inside for path, line in readers)


def test_threads_are_told_where_they_are_made():
    wrong = []
    for path, node in nodes(ast.Call):
        if getattr(node.func, "attr", "") == "Thread" or getattr(node.func, "id", "") == "Worker":
            name = next((keyword.value for keyword in node.keywords if keyword.arg == "name"), None) or node.args[1]
            values = [vars(each).get("value", vars(each).get("s")) for each in ast.walk(name)]
            words = [value.split()[0] for value in values if isinstance(value, str)]
            if words and not re.search("^Thread %s\\b" % words[0], TEXTS[path], re.M):
                wrong.append("%s:%d" % (path, node.lineno))
    assert not wrong, wrong


def is_of_self(node):
    return getattr(node.value, "id", "") == "self"


def test_no_attribute_of_another_module_is_assigned():
    wrong = {}
    for path, tree in TREES.items():
        stored = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                  and isinstance(node.ctx, ast.Store)]
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
                 and isinstance(node.ctx, ast.Store)}       # fields of its classes are among them
        owned = {node.attr for node in stored if is_of_self(node)} | names | NOT_OURS
        lines = [node.lineno for node in stored if not is_of_self(node) and node.attr not in owned]
        if len(lines) > REACHES_OVER.get(path, 0):
            wrong[path] = lines
    assert not wrong, wrong


def test_no_mutable_globals_but_the_tables():
    empty, lower = set(), []
    for path, tree in TREES.items():
        for node in tree.body:
            value = getattr(node, "value", None)
            if isinstance(node, ast.Assign) and isinstance(value, (ast.Dict, ast.List, ast.Set)):
                names = [getattr(target, "id", "") for target in node.targets]
                lower += [(path, name) for name in names if not name.isupper()]
                if not (getattr(value, "keys", None) or getattr(value, "elts", None)):
                    empty.update(names)
    assert (lower, empty) == ([], TABLES)


def test_what_has_a_docstring():
    inner = {child for _, node in nodes(ast.FunctionDef) for child in ast.walk(node)
             if child is not node}
    missing, untold = [], []
    for path, node in nodes(ast.ClassDef, ast.FunctionDef):
        if node in inner or ast.get_docstring(node) or node.name in OVERRIDDEN:
            continue
        place = "%s:%d %s" % (path, node.lineno, node.name)
        if not node.name.startswith("_"):
            missing.append(place)
        elif not node.name.startswith("__") and size_of(node) > 10:
            untold.append(place)
    assert not missing, "\n".join(missing)
    assert not untold, "\n".join(untold)


def local_names(tree):
    """(name, line) of the arguments and local names of a module."""
    for top in ast.walk(tree):
        if isinstance(top, (ast.FunctionDef, ast.Lambda)):
            arguments = top.args
            for argument in arguments.args + arguments.kwonlyargs + [arguments.vararg, arguments.kwarg]:
                if argument:
                    yield argument.arg, argument.lineno
        body = top.body if isinstance(top, ast.FunctionDef) else ()
        for node in (each for part in body for each in ast.walk(part)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id, node.lineno


def field_names(tree):
    """(name, line) of the fields of a module's named tuples."""
    return ((node.target.id, node.lineno) for top in ast.walk(tree) if isinstance(top, ast.ClassDef)
            for node in top.body if isinstance(node, ast.AnnAssign))


def global_names(trees):
    """Names of functions, classes, constants and imports at the top of modules that become one file."""
    names = set()
    for tree in trees:
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Assign):
                names.update(getattr(target, "id", "") for target in node.targets)
            elif isinstance(node, ast.Import) or isinstance(node, ast.ImportFrom) and not node.level:
                names.update(alias.name.split(".")[0] for alias in node.names)
    return names


def test_names_tell_what_a_value_is():
    wrong = ["%s:%d %s" % (path, line, name) for path, tree in TREES.items()
             for name, line in {*local_names(tree), *field_names(tree)} if name in NO_NAMES]
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize("is_client", [False, True])
def test_no_local_name_hides_a_global_of_its_product(is_client):
    trees = {path: tree for path, tree in TREES.items()
             if (floor_of(path) in CLIENT_FLOORS if is_client else floor_of(path) != "client")}
    names = global_names(trees.values())
    wrong = ["%s:%d %s" % (path, line, name) for path, tree in trees.items()
             for name, line in set(local_names(tree)) if name in names]
    assert len(names) > 100 and not wrong, "\n".join(sorted(wrong))


def test_sizes(capsys):
    modules = {path: text.count("\n") for path, text in TEXTS.items()}
    classes = {node.name: size_of(node) for _, node in nodes(ast.ClassDef)}
    functions = {"%s %s" % (path, node.name): size_of(node)
                 for path, node in nodes(ast.FunctionDef)}
    with capsys.disabled():
        print("\n%d modules, %d lines; agent.py: %d, agentcli.py: %d" % (
            len(modules), sum(modules.values()), read(TOP / "agent.py").count("\n"),
            read(TOP / "tools" / "agentcli.py").count("\n")))
        for what, sizes in (("module", modules), ("class", classes), ("function", functions)):
            print("%s: median %d, longest: %s" % (
                what, statistics.median(sizes.values()), ", ".join(
                    "%s %d" % (name, sizes[name])
                    for name in sorted(sizes, key=sizes.get, reverse=True)[:3])))
    for sizes, limit in ((modules, MODULE_LINES), (classes, CLASS_LINES),
                         (functions, FUNCTION_LINES)):
        assert {name: size for name, size in sizes.items()
                if size > TOO_LARGE.get(name, limit)} == {}
    assert statistics.median(functions.values()) < MEDIAN_LINES
    gone = set(TOO_LARGE).difference(modules, classes) | set(REACHES_OVER).difference(modules)
    assert not gone, "these exceptions are not needed any more"


def test_the_build_keeps_the_width_too():
    lines = read(TOP / "tools" / "build.py").split("\n")
    assert [line for line in lines if len(line) > build.WIDTH] == [] and len(lines) < MODULE_LINES


def test_the_top_level_holds_nothing_else():
    names = {path.name for path in TOP.iterdir() if not path.name.startswith(".")} - {"__pycache__"}
    assert names == {"agent.py", "sqlite_repos", "tests", "tools", "LICENSE", "README.md"}


def test_readme_is_short_and_names_what_there_is():
    import agent
    readme = read(TOP / "README.md")
    assert readme.count("\n") <= 200
    verbs = {word for form in agent.VERB_FORMS for word in form.name.split()[:1]}
    shown = "".join(re.findall("```\n(.*?)```", readme, re.S))
    asked = re.findall("^([A-Z]+)(?: |$)", shown, re.M)
    asked += re.findall("`([A-Z]+)[`:]?(?: |`)", re.sub("`(HELLO|OK) ?.*?`", "", readme))
    assert asked and set(asked) - {"OK", "ERR", "END", "FAIL", "NEXT", "PLAN"} <= verbs
    for request in re.findall("^(?:EXEC|RESTART|WAIT|LOG|SCHED) .*", shown, re.M):
        row, words = agent.find_verb(agent.split_words(request))
        agent.check_request(row, words)
    for topic in re.findall("--manual ([a-z]+)", readme):
        assert agent.make_manual(topic)
    for path in re.findall("`([a-z]+/[a-z_]+[.]py)`", readme):
        assert path in TEXTS or (TOP / path).exists(), path
    options = {option.name for option in agent.COMMAND_OPTIONS} | {
        "--json", "--wait", "--status", "--crontab", "--dry-run", "--where", "--prune", "--of-host", "--since",
        "--follow"}
    assert set(re.findall("--[a-z][a-z-]+", readme)) <= options


# -- the tests -------------------------------------------------------------------------

def test_what_tests_share_is_defined_once():
    """A name of a helper, fixture or class is defined once in all test files; no test hides another of its file."""
    places, hidden = collections.defaultdict(list), []
    for path in sorted((TOP / "tests").glob("**/*.py")):
        names = [node.name for node in ast.parse(read(path)).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        hidden += [(path.name, name) for name in set(names) if names.count(name) > 1]
        for name in names:
            if not name.startswith("test_"):
                places[name].append(path.name)
    assert {name: files for name, files in places.items() if len(files) > 1} == {} and "wait_for" in places
    assert hidden == []
