"""The walls of one file: sections in order, nothing referred to upwards, who may name what."""
import ast
import re
import statistics
import symtable

from conftest import TOP

SOURCE = (TOP / "agent.py").read_text(encoding="utf-8")
TREE = ast.parse(SOURCE)
LINES = SOURCE.split("\n")
TABLES = {"VERBS", "TASK_TYPES"}            # the mutable globals that there may be


def sections():
    """[(number, first line)] by the banners."""
    found = []
    for index, line in enumerate(LINES):
        match = re.match(r"# (\d+) \w+", line)
        if match and LINES[index - 1].startswith("# =====") and LINES[index + 1].startswith("# ====="):
            found.append((int(match.group(1)), index + 1))
    return found


SECTIONS = sections()


def section_of(line):
    return max((number for number, first in SECTIONS if first <= line), default=0)


def defined_names():
    """{global name: the section that defines it first}."""
    names = {}
    for node in TREE.body:
        targets = [node] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else \
            [t for t in getattr(node, "targets", ()) for t in ast.walk(t) if isinstance(t, ast.Name)]
        for target in targets:
            name = getattr(target, "name", None) or target.id
            names.setdefault(name, section_of(node.lineno))
    return names


def uses(*roots):
    """{section: how often it names one of these modules}."""
    found = {}
    for node in ast.walk(TREE):
        if isinstance(node, ast.Name) and node.id in roots and isinstance(node.ctx, ast.Load):
            section = section_of(node.lineno)
            found[section] = found.get(section, 0) + 1
    return found


def test_sections_stand_in_order_and_in_the_docstring():
    numbers = [number for number, _ in SECTIONS]
    assert numbers == sorted(set(numbers)) and numbers[0] == 1 and numbers[-1] == 17
    told = re.findall(r"^ +(\d+) [a-z]", ast.get_docstring(TREE, clean=False), re.M)
    assert [int(number) for number in told] == numbers


def global_uses():
    """[(line of the function or class, global name that it uses)], and those of the module's code."""
    def walk(table):
        for symbol in table.get_symbols():
            if table.get_type() != "module" and symbol.is_global() and symbol.is_referenced():
                yield table.get_lineno(), symbol.get_name()
        for child in table.get_children():
            yield from walk(child)
    yield from walk(symtable.symtable(SOURCE, "agent.py", "exec"))
    for node in TREE.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for child in ast.walk(node):
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load):
                    yield child.lineno, child.id


def test_no_section_refers_to_one_below_it():
    names = defined_names()
    wrong = ["line %d (section %d) uses %s of section %d" % (line, section_of(line), name, names[name])
             for line, name in global_uses() if names.get(name, 0) > section_of(line)]
    assert not wrong, "\n".join(wrong)


def test_who_may_use_what():
    assert set(uses("sqlite3")) <= {6, 7, 8, 10}
    assert set(uses("socket", "socketserver")) <= {10, 15}
    assert set(uses("threading")) <= {6, 9, 11, 12, 13, 15}
    sql = {section_of(number) for number, line in enumerate(LINES, 1)
           if re.search(r"[\"'](select .* from|insert into|update \w+ set|delete from|replace into) ", line)}
    assert sql and sql <= {6, 7, 8, 10}      # 10: to data servers


def test_the_time_of_day_is_read_in_the_clock_alone():
    readers = [node for node in ast.walk(TREE) if isinstance(node, ast.Attribute)
               and (isinstance(node.value, ast.Name) and node.value.id == "time"
                    and node.attr in ("time", "time_ns")
                    or node.attr in ("now", "today", "utcnow") and isinstance(node.value, ast.Name)
                    and node.value.id in ("datetime", "date"))]
    clock = next(node for node in TREE.body if isinstance(node, ast.ClassDef) and node.name == "Clock")
    inside = {id(node) for node in ast.walk(clock)}
    assert [node.lineno for node in readers if id(node) not in inside] == []


def test_no_mutable_globals_but_the_tables():
    mutable = [target.id for node in TREE.body if isinstance(node, ast.Assign)
               for target in node.targets if isinstance(target, ast.Name)
               and isinstance(node.value, (ast.Dict, ast.List, ast.Set)) and not target.id.isupper()]
    assert mutable == []
    empty = [node.targets[0].id for node in TREE.body if isinstance(node, ast.Assign)
             and isinstance(node.value, (ast.Dict, ast.List))
             and not (getattr(node.value, "keys", None) or getattr(node.value, "elts", None))]
    assert set(empty) == TABLES


def test_only_the_standard_library():
    import sys
    names = {alias.name.split(".")[0] for node in ast.walk(TREE) if isinstance(node, ast.Import)
             for alias in node.names}
    names |= {node.module.split(".")[0] for node in ast.walk(TREE)
              if isinstance(node, ast.ImportFrom)}
    known = getattr(sys, "stdlib_module_names", None)
    assert known is None or names <= set(known)


def test_every_section_class_and_public_function_has_a_docstring():
    missing = []
    for node in ast.walk(TREE):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            if not ast.get_docstring(node) and not is_nested(node):
                missing.append("%s, line %d" % (node.name, node.lineno))
    assert not missing, missing


NESTED = {inner for node in ast.walk(TREE) if isinstance(node, ast.FunctionDef)
          for inner in ast.walk(node) if inner is not node}


def is_nested(wanted):
    """Whether a function stands inside another, or overrides a method of the standard library."""
    if wanted.name in ("handle", "verify_request", "process_request_thread", "handle_error", "shutdown_request",
                       "get_request"):
        return True
    return wanted in NESTED


def test_sizes(capsys):
    functions = sorted((last_line(node) - node.lineno + 1, node.name) for node in ast.walk(TREE)
                       if isinstance(node, ast.FunctionDef))
    starts = [first for _, first in SECTIONS] + [len(LINES)]
    with capsys.disabled():
        print("\nagent.py: %d lines; functions: median %d, longest %s" % (
            len(LINES), statistics.median(size for size, _ in functions), functions[-1]))
        print("sections: %s" % ", ".join("%d: %d" % (number, end - first) for (number, first), end
                                         in zip(SECTIONS, starts[1:])))
    assert functions[-1][0] <= 60
    assert statistics.median(size for size, _ in functions) < 10
    classes = [(last_line(node) - node.lineno + 1, node.name) for node in TREE.body
               if isinstance(node, ast.ClassDef)]
    assert not [c for c in classes if c[0] >= 600], "a class of 600 lines wants a better idea"


def last_line(node):
    return max([getattr(child, "lineno", 0) for child in ast.walk(node)])


def test_readme_tells_every_verb_as_the_table_does():
    import agent
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    rows = ["| `%s` | %s |" % (row.form.replace("|", "\\|"), row.help)
            for row in agent.VERBS.values()]
    missing = [row for row in rows if row not in readme]
    assert not missing, "README.md lacks these lines:\n" + "\n".join(missing)
