#!/usr/bin/env python3
"""Joins the modules of tools/src into agent.py and tools/agentcli.py.

    python tools/build.py                       writes what has changed
    python tools/build.py --check               writes nothing, and fails when it would have to
    python tools/build.py --where 7251          the source of a line of agent.py
    python tools/build.py --where agentcli 12   the source of a line of the client

A product is its modules, each after those that it imports (ties: the order of FLOORS, then the
alphabet). Imports from the standard library are merged at the top. The docstring is a file beside
the main module, with lists of the modules and threads that their docstrings tell of. A statement
`NAME = ""  # embedded: FILE` becomes a literal with the text of that file. Python only checks; what
is written is text put together, so any Python makes the same bytes.

Exit status: 0; 1 a rule of the house is broken, each told with its file and line, or with --check
a product is not what the sources say; 2 usage.
"""
import argparse
import ast
import builtins
import collections
import os
import re
import symtable
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCES = "tools/src"
WIDTH = 100
RULER = "# " + "=" * 86

# floor -> the floors that it may use besides itself; "" is the top, where main.py lies
FLOORS = collections.OrderedDict([
    ("base", ()),
    ("timetable", ("base",)),
    ("definitions", ("base", "timetable")),
    ("store", ("base", "definitions")),
    ("processes", ("base", "store")),
    ("tasks", ("base", "definitions", "processes")),
    ("runtime", ("base", "definitions", "store", "processes", "tasks")),
    ("scheduling", ("base", "timetable", "store")),
])
FLOORS["agent"] = tuple(FLOORS)
FLOORS["protocol"] = tuple(FLOORS)
FLOORS["page"] = tuple(FLOORS)
FLOORS["server"] = ("base", "protocol", "page")
FLOORS[""] = tuple(FLOORS)
FLOORS["client"] = ("base",)

# what a product does before it imports anything else
FIRST = """import sys
# The folder of this file is searched first. A csv.py of the user's there must not stand for that of
# Python. Where CODE_FD is there (base/program.py), this was done already.
if vars(sys.modules["__main__"]) is globals() and "CODE_FD" not in globals() \\
        and not getattr(sys.flags, "safe_path", sys.flags.isolated):
    del sys.path[0]""".split("\n")
# `head` has the docstring; every module of `floors` belongs to it, imported or not
Product = collections.namedtuple("Product", "main head floors")
PRODUCTS = {"agent.py": Product("main.py", "agent.txt", FLOORS[""] + ("",)),
            "tools/agentcli.py": Product("client/main.py", "client/agentcli.txt", ("client",))}

Import = collections.namedtuple("Import", "line source names")  # `import x` has no source
Line = collections.namedtuple("Line", "text path number")       # no path: it is made here
_EMBEDDED = re.compile(r'(\w+) = ""  # embedded: (\S+)')
_THREAD = re.compile("Thread ([^:]+): (.*)")


class BuildError(Exception):
    """Rules of the house are broken; its text has a line for each."""


class Module:
    """One file of tools/src, taken apart. `fault(line, text)` notes what is wrong with it."""

    def __init__(self, path, text, faults):
        self.path, self.floor = path, os.path.dirname(path)
        self.is_main = path in [product.main for product in PRODUCTS.values()]
        self.fault = lambda line, text: faults.append((path, line, text))
        self.lines = text.split("\n")[:-1]
        self.imports, self.names, self.used = [], {}, set()
        for number, line in enumerate(self.lines, 1):
            if re.search("[\t\r]| $", line) or len(line) > WIDTH:
                self.fault(number, "has a tab, a CR, a space at its end or over %d columns" % WIDTH)
        match = re.match(r'"""([^"\n]+\.)(\n(?s:.*?))?"""\n', text)
        if not match:
            raise BuildError("%s/%s:1: begins with no sentence as its docstring" % (SOURCES, path))
        self.summary, self.first = match.group(1), match.group().count("\n")  # code is behind it
        self.told = match.group().replace('"""', "").rstrip().split("\n")
        try:
            self._read(ast.parse(text), symtable.symtable(text, path, "exec"))
        except SyntaxError as error:
            raise BuildError("%s/%s:%d: %s" % (SOURCES, path, error.lineno or 1, error.msg))

    def _read(self, tree, table):
        is_import = (ast.Import, ast.ImportFrom)
        top = [node for node in tree.body if isinstance(node, is_import)]
        if top != tree.body[1:len(top) + 1]:
            self.fault(top[-1].lineno, "imports stand at the top")
        for node in top:
            self._take_import(node)
            self.first = node.lineno
            while "(" in self.lines[node.lineno - 1] and ")" not in self.lines[self.first - 1]:
                self.first += 1
        for node in ast.walk(tree):
            if isinstance(node, is_import) and node not in top and (
                    isinstance(node, ast.ImportFrom) or node.names[0].asname):
                self.fault(node.lineno, "a function imports with `import x` alone")
        for node in tree.body[len(top) + 1:]:
            self._take_names(node)
        self._take_used(table)
        # from Python 3.12 on the table of a module has nothing of its comprehensions
        bound = {name.split(".")[0] for each in self.imports for name in each.names}
        for node in (each for each in tree.body if isinstance(each, ast.Assign)):
            self.used.update(bound.intersection(
                name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)))
        self._check_names()

    def _take_import(self, node):
        names = [alias.name for alias in node.names]
        if any(alias.asname for alias in node.names) or "*" in names:
            self.fault(node.lineno, "no `as` and no `*` in imports")
        source = getattr(node, "module", None)
        if getattr(node, "level", 0):
            folders = self.path.split("/")[:-node.level]
            source = "/".join(folders + (source or "").split(".")) + ".py"
        self.imports.append(Import(node.lineno, source, names))

    def _take_names(self, node):
        """What a statement of the module defines."""
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            self.names.setdefault(node.name, node.lineno)
        elif isinstance(node, ast.Assign):
            for name in (name for target in node.targets for name in ast.walk(target)):
                if isinstance(name, ast.Name):
                    self.names.setdefault(name.id, node.lineno)
        elif not (self.is_main and isinstance(node, ast.If)):
            self.fault(node.lineno, "only definitions and plain assignments stand in a module")

    def _take_used(self, table):
        """The global names that a scope and those within it use."""
        is_top = table.get_type() == "module"
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if symbol.is_referenced() and (not symbol.is_assigned() if is_top else
                                           symbol.is_global()):
                self.used.add(name)
                if name == "__file__" and table.get_name() != "program_path":
                    self.fault(self._find(name), "only program_path() reads __file__")
                if name == "__name__" and not (is_top and self.is_main):
                    self.fault(self._find(name), "only a main module reads __name__, at its end")
        for child in table.get_children():
            self._take_used(child)

    def _check_names(self):
        bound = {name.split(".")[0]: each.line for each in self.imports for name in each.names}
        for name in set(bound) - self.used:
            self.fault(bound[name], "%s is imported and not used" % name)
        for name in self.used.difference(bound, self.names, dir(builtins), ["__file__"]):
            self.fault(self._find(name), "%s is neither defined nor imported" % name)
        for name in set(self.names).intersection(dir(builtins)):
            self.fault(self.names[name], "%s hides a built-in name" % name)

    def _find(self, name):
        """The first line with a name."""
        word = re.compile(r"\b%s\b" % name)
        return next((i for i, line in enumerate(self.lines, 1) if word.search(line)), 1)


class House:
    """All modules of a folder. Raises BuildError, as its methods do."""

    def __init__(self, top=TOP):
        self._folder, self._faults, self.modules = os.path.join(top, SOURCES), [], {}
        for folder, _, files in sorted(os.walk(self._folder)):
            for name in sorted(name for name in files if name.endswith(".py")):
                path = os.path.relpath(os.path.join(folder, name), self._folder)
                self.modules[path] = Module(path, self._read(path), self._faults)
        for module in self.modules.values():
            if module.floor not in FLOORS or not module.floor and not module.is_main:
                module.fault(1, "stands on no floor of the house")
            for each in module.imports:
                if is_ours(each):
                    self._check_import(module, each)
        self._raise()

    def _read(self, path):
        with open(os.path.join(self._folder, path), encoding="utf-8", newline="") as file:
            return file.read()

    def _raise(self):
        if self._faults:
            raise BuildError("\n".join("%s/%s:%d: %s" % ((SOURCES,) + fault)
                                       for fault in sorted(set(self._faults))))

    def _check_import(self, module, each):
        other = self.modules.get(each.source)
        if other is None:
            module.fault(each.line, "there is no %s" % each.source)
        elif other.floor not in (module.floor,) + FLOORS.get(module.floor, ()):
            module.fault(each.line, "%s does not use %s" % (module.path, other.path))
        else:
            for name in set(each.names).difference(other.names):
                module.fault(each.line, "there is no %s in %s" % (name, other.path))

    def join(self, product):
        """The lines of a product: [Line]."""
        modules = self._sort(product)
        self._check_product(modules)
        parts = ["#!/usr/bin/env python3"] + quote(self._make_docstring(product, modules))
        lines = [Line(text, None, 0) for text in parts + FIRST + merge_imports(modules)]
        for module in modules:
            lines += [Line(text, module.path, 1) for text in ("", "", RULER, "# " + module.path)]
            lines += [Line(("# " + text).rstrip(), module.path, number)
                      for number, text in enumerate(module.told, 1)]
            lines += [Line(text, module.path, module.first) for text in (RULER, "")]
            lines += self._list_code(module)
        self._raise()
        return lines

    def _sort(self, product):
        """The modules of a product, each behind those that it imports."""
        floors, behind, begun = list(FLOORS), [], set()

        def add(module):
            begun.add(module)
            for each in filter(is_ours, module.imports):
                other = self.modules[each.source]
                if other not in begun:
                    add(other)
                elif other not in behind:
                    module.fault(each.line, "imports go round: %s leads back here" % other.path)
            behind.append(module)
        for module in sorted(self.modules.values(), key=lambda module: (
                floors.index(module.floor), module.is_main, module.path)):
            if module.floor in product.floors and module not in begun:
                add(module)
        return behind

    @staticmethod
    def _check_product(modules):
        """No name may mean two things in one file."""
        meanings = {}
        for module in modules:
            named = [(name, line, module.path) for name, line in module.names.items()]
            named += [(name.split(".")[0], each.line, each.source or "import")
                      for each in module.imports if not is_ours(each) for name in each.names]
            for name, line, meaning in named:
                if meanings.setdefault(name, meaning) != meaning:
                    module.fault(line, "%s is taken: %s" % (name, meanings[name]))

    def _make_docstring(self, product, modules):
        sections = [(module.path[:-3], module.summary) for module in modules]
        threads = [match.groups() for module in modules
                   for match in map(_THREAD.fullmatch, module.told) if match]
        return self._read(product.head).replace("{sections}", tabulate(sections)).replace(
            "{threads}", tabulate(threads))

    def _list_code(self, module):
        """The lines behind the imports, with the texts of what is embedded."""
        numbers = list(range(module.first + 1, len(module.lines) + 1))
        while numbers and not module.lines[numbers[0] - 1]:
            del numbers[0]
        for number in numbers:
            text = module.lines[number - 1]
            match = _EMBEDDED.fullmatch(text)
            if match:
                yield from self._embed(module, number, *match.groups())
            else:
                yield Line(text, module.path, number)

    def _embed(self, module, number, name, file):
        path = os.path.join(module.floor, file)
        try:
            text = self._read(path)
        except OSError as error:
            return module.fault(number, "%s: %s" % (path, error.strerror))
        if re.search('"""|[\r\0]|["\\\\]\\Z', text):
            module.fault(number, '%s cannot be quoted: it has """, a CR or a NUL, or ends with a '
                         '" or \\' % path)
        for count, line in enumerate(quote(text, name + " = "), 1):
            yield Line(line, path, count)


def is_ours(each):
    """Whether an Import is of a module of tools/src."""
    return (each.source or "").endswith(".py")


def quote(text, before=""):
    """The lines of a literal."""
    return ('%sr"""%s"""' % (before, text)).split("\n")


def merge_imports(modules):
    """The lines that import what the modules need of the standard library."""
    plain, names = set(), collections.defaultdict(set)
    for each in (each for module in modules for each in module.imports if not is_ours(each)):
        (names[each.source] if each.source else plain).update(each.names)
    return ["import " + name for name in sorted(plain)] + [
        "from %s import %s" % (source, ", ".join(sorted(names[source])))
        for source in sorted(names)]


def tabulate(rows):
    """[(name, text)] as lines with two columns, the second one filled up to WIDTH."""
    column = max([len(name) for name, _ in rows], default=0) + 6
    lines = []
    for name, text in rows:
        lines.append(("    " + name).ljust(column))
        for word in text.split():
            if len(lines[-1]) + 1 + len(word) > WIDTH:
                lines.append(" " * column)
            lines[-1] += " " + word
    return "\n".join(lines)


def check(top, name, data):
    """In words, whether a product differs from these bytes; nothing when it does not."""
    path = os.path.join(top, name)
    try:
        with open(path, "rb") as file:
            there = file.read()
    except FileNotFoundError:
        return "%s is not there" % name
    if there != data:
        pairs = zip(data.split(b"\n") + [b"\0"], there.split(b"\n") + [b""])
        line = next((i for i, (ours, theirs) in enumerate(pairs, 1) if ours != theirs), 1)
        return "%s is not what %s says, from line %d on" % (name, SOURCES, line)
    return "" if os.access(path, os.X_OK) else "%s is not executable" % name


def write(top, name, data):
    """Puts a product into its place, whole or not at all."""
    path = os.path.join(top, name)
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.chmod(path + ".new", 0o755)
    os.replace(path + ".new", path)


def find_source(house, product, number):
    """In words, where a line of a product comes from; `product` may lack folder and .py."""
    names = [name for name in PRODUCTS if product in (name, os.path.basename(name)[:-3])]
    lines = house.join(PRODUCTS[names[0]]) if names else []
    if not 0 < number <= len(lines):
        raise BuildError("%s has no line %d" % (product, number))
    line = lines[number - 1]
    return "%s/%s:%d" % (SOURCES, line.path, line.number) if line.path else "made by build.py"


def main(arguments=None, top=TOP):
    """Builds, checks or tells -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only tell what is to be written")
    parser.add_argument("--where", nargs="+", metavar=("[PRODUCT]", "LINE"), help="tell a source")
    wanted = parser.parse_args(arguments)
    try:
        house = House(top)
        if wanted.where:
            product, number = (["agent"] + wanted.where)[-2:]
            if not number.isdigit():
                parser.error("LINE is a number")
            print(find_source(house, product, int(number)))
            return 0
        built = {name: "".join(line.text + "\n" for line in house.join(product)).encode()
                 for name, product in PRODUCTS.items()}
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    wrong = collections.OrderedDict((name, check(top, name, built[name])) for name in built)
    for name in filter(wrong.get, wrong):
        if wanted.check:
            print("build: %s; mend it: python tools/build.py" % wrong[name], file=sys.stderr)
        else:
            write(top, name, built[name])
    return int(wanted.check and any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
