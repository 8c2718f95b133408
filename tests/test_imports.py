"""Who imports whom: no circle, no arrow against the direction, no large file, no crowded folder.

Every import counts: at the top of a module, inside of a function, for types, and `import_module` with a name in the text. So
do the packages on the way: who imports `a.b.c` imports `a.b` and `a` too. The one exception is `jupyter_inplace/__init__.py`,
the public face: every module has it above itself, and no module imports anything from it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FACE = "jupyter_inplace"

#: Modules that import nothing of ours; every room may import them.
GROUND = {"_faults", "_interrupts", "_package", "_syntax", "_version"}
#: By room (a package or module right below `jupyter_inplace`) the other rooms that it may import.
BELOW = {
    "report": set(),
    "_rank": {"report"},
    "frameworks": {"report"},
    "record": {"report"},
    "explain": {"report", "record", "frameworks"},
    "rewrite": {"report", "record", "frameworks", "explain"},
    "show": {"report"},
    # The watch of another framework. Nobody imports it: `frameworks.companions` starts it by its name.
    "tensorflow": {"report", "record", "frameworks", "explain", "rewrite"},
}
#: They stand on top: they may import all other rooms and one another, and no other room imports them.
CALLERS = {"__main__", "cli", "magic", "merge", "progress", "pytest_plugin", "steps", "watch", "watch_on_arrival"}

MOST_LINES = 400
MOST_MODULES = 20


def modules() -> dict[str, Path]:
    """All modules by their dotted names; a package has the name of its folder."""
    found = {}
    for path in sorted((ROOT / FACE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported_names(module: str, tree: ast.AST) -> Iterator[str]:
    """The dotted names that a module imports, of a ``from`` import with the name behind it."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*start, node.module] if node.module else start)
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def arrows(module: str) -> set[str]:
    """The modules that a module imports, the packages around them too."""
    found = set()
    for name in imported_names(module, ast.parse(MODULES[module].read_text("utf-8"))):
        if name.split(".")[0] != FACE:
            continue
        target = name if name in MODULES else name.rpartition(".")[0]
        while target != FACE and target:
            found.add(target)
            target = target.rpartition(".")[0]
    return found - {module}


GRAPH = {module: arrows(module) for module in MODULES if module != FACE}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected parts with more than one module (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(graph[module]):
            if target not in index:
                visit(target)
            if target in stack:
                low[module] = min(low[module], low[target])
        if low[module] == index[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(set(stack[at:]))
            del stack[at:]

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return found


CIRCLES = circles(GRAPH)


def room_of(module: str) -> str:
    return module.split(".")[1]


def room_members(room: str) -> list[str]:
    return [module for module in GRAPH if room_of(module) == room]


ROOMS = sorted({room_of(module) for module in GRAPH})


def test_the_graph_is_seen():
    assert {f"{FACE}.report.data", f"{FACE}.report"} <= GRAPH[f"{FACE}.explain.window"]
    assert f"{FACE}.steps" in GRAPH[f"{FACE}.watch"]  # inside of a function
    assert f"{FACE}.rewrite.verify" in GRAPH[f"{FACE}.watch"]  # for types
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [{"a", "b", "c"}]


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_goes_through(room):
    assert [sorted(circle) for circle in CIRCLES if any(room_of(module) == room for module in circle)] == []


def test_every_room_has_its_place():
    assert set(ROOMS) == GROUND | set(BELOW) | CALLERS


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room):
    allowed = {room} | (GROUND if room not in GROUND else set()) | BELOW.get(room, set())
    if room in CALLERS:
        allowed |= (set(BELOW) | CALLERS) - {"tensorflow"}
    against = {(module, target) for module in room_members(room) for target in GRAPH[module]}
    assert sorted((module, target) for module, target in against if room_of(target) not in allowed) == []


def test_nothing_is_imported_from_the_public_face():
    for module in GRAPH:
        for name in imported_names(module, ast.parse(MODULES[module].read_text("utf-8"))):
            if name.rpartition(".")[0] == FACE:
                assert name in MODULES, f"{module} imports {name}"


@pytest.mark.parametrize(
    "package", [module for module, path in MODULES.items() if path.name == "__init__.py" and module != FACE]
)
def test_a_package_imports_nothing(package):
    # The parts of a report are imported from its package, which only hands on the names of the data.
    assert GRAPH[package] <= ({f"{FACE}.report.data"} if package == f"{FACE}.report" else set())


def sources() -> dict[str, Path]:
    front_end = (ROOT / "labextension" / "src").rglob("*.ts*")
    return {path.relative_to(ROOT).as_posix(): path for path in [*MODULES.values(), *sorted(front_end)]}


SOURCES = sources()


def is_large(name: str) -> bool:
    return SOURCES[name].read_text("utf-8").count("\n") > MOST_LINES


def test_no_file_is_large():
    assert [name for name in SOURCES if is_large(name)] == []


def test_no_folder_is_crowded():
    folders: dict[Path, int] = {}
    for path in SOURCES.values():
        folders[path.parent] = folders.get(path.parent, 0) + 1
    assert {str(folder.relative_to(ROOT)): count for folder, count in folders.items() if count > MOST_MODULES} == {}


def test_the_stub_names_what_the_package_holds():
    """`report/__init__.pyi` describes the package as the public face leaves it."""
    import jupyter_inplace.report as package

    tree = ast.parse((ROOT / FACE / "report" / "__init__.pyi").read_text("utf-8"))
    names = {
        f"{node.module}.{alias.name}" for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    homes = {name.rpartition(".")[2]: name.rpartition(".")[0] for name in names}
    (listed,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    assert set(listed) == set(homes) == set(package.__all__)
    for name, home in homes.items():
        value = getattr(package, name)
        assert value is getattr(__import__(home, fromlist=[name]), name)
