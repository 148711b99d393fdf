"""The floors: simreal on randomization on envs; imports point down only, and no file or function outgrows a reader."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("envs", "randomization", "simreal")  # from the ground up
LONGEST_FILE, LONGEST_FUNCTION = 450, 70
FOLDERS = (*FLOORS, "tests", "benchmarks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    """Dotted name of a module file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES if path.relative_to(ROOT).parts[0] in FLOORS}


def targets(node: ast.AST, module: str, modules: dict[str, Path]) -> list[str]:
    """Modules of ours that an import statement loads; a name that is a submodule counts as that module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] in FLOORS]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = module.split(".") if modules[module].name == "__init__.py" else module.split(".")[:-1]
        kept = package[: len(package) - node.level + 1]
        base = ".".join([*kept, base] if base else kept)
    if base.split(".")[0] not in FLOORS:
        return []
    return [f"{base}.{a.name}" if f"{base}.{a.name}" in modules else base for a in node.names]


def is_for_types(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:`, which runs nothing."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(module: str, modules: dict[str, Path], everywhere: bool) -> set[str]:
    """What a module imports: when it is loaded, or (`everywhere`) also in functions and for types."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(modules[module].read_text())]
    while todo:
        node = todo.pop()
        found.update(targets(node, module, modules))
        late = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or is_for_types(node)
        if everywhere or not late:
            todo += ast.iter_child_nodes(node)
    return found - {module}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """A path that leads back to where it began, or an empty list."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := visit(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for start in sorted(graph) if (found := visit(start, []))), [])


def arrows_up(modules: dict[str, Path]) -> list[str]:
    """Imports of a higher floor."""
    return [
        f"{module} imports {target}"
        for module in modules
        for target in imports(module, modules, everywhere=True)
        if FLOORS.index(target.split(".")[0]) > FLOORS.index(module.split(".")[0])
    ]


def test_imports_point_down_only() -> None:
    assert len(MODULES) > 20
    assert arrows_up(MODULES) == []


def test_there_is_no_cycle_among_modules() -> None:
    graph = {module: imports(module, MODULES, everywhere=False) for module in MODULES}
    assert sum(len(found) for found in graph.values()) > 40
    assert cycle(graph) == []


def test_the_walk_sees_every_kind_of_import(tmp_path: Path) -> None:
    def write(name: str, text: str) -> tuple[str, Path]:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return name, path

    modules = dict(
        [
            write("envs.a", "def f():\n    from randomization import b\n"),
            write("envs.d", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import simreal.c\n"),
            write("randomization.b", "from .e import x\n"),
            write("randomization.e", "import randomization.b as b, numpy\n"),
            write("simreal.c", "from envs import a\nfrom randomization.b import y\n"),
        ]
    )
    assert sorted(arrows_up(modules)) == ["envs.a imports randomization.b", "envs.d imports simreal.c"]
    assert imports("simreal.c", modules, everywhere=False) == {"envs.a", "randomization.b"}
    graph = {module: imports(module, modules, everywhere=False) for module in modules}
    assert cycle(graph) == ["randomization.b", "randomization.e", "randomization.b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno + 1 < LONGEST_FUNCTION, node.name
