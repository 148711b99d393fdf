"""The floors: simreal on randomization on envs; imports point down only, and no file, function or folder outgrows a
reader."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rooms import DRAWING, FLOORS, ROOT, draw, imports, modules

LONGEST_FILE, LONGEST_FUNCTION, MOST_ENTRIES = 450, 60, 12
MOST_ROOMS = 16  # of a floor
FILES = sorted(path for folder in (*FLOORS, "tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py"))
MODULES = modules()
IMPORTS = {module: imports(module, MODULES) for module in MODULES}
FOLDERS = sorted({path.parent for path in MODULES.values()})


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


def arrows_up(graph: dict[str, set[str]]) -> list[str]:
    """Imports of a higher floor."""
    return [
        f"{module} imports {target}"
        for module, found in graph.items()
        for target in sorted(found)
        if FLOORS.index(target.split(".")[0]) > FLOORS.index(module.split(".")[0])
    ]


def test_imports_point_down_only() -> None:
    assert len(MODULES) > 20
    assert arrows_up(IMPORTS) == []


def test_there_is_no_cycle_among_modules_even_with_imports_in_functions_and_for_types() -> None:
    assert sum(len(found) for found in IMPORTS.values()) > 40
    assert cycle(IMPORTS) == []


def test_the_walk_sees_every_kind_of_import(tmp_path: Path) -> None:
    def write(name: str, text: str) -> tuple[str, Path]:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return name, path

    known = dict(
        [
            write("envs.a", "def f():\n    from randomization import b\n"),
            write("envs.d", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import simreal.c\n"),
            write("randomization.b", "from .e import x\n"),
            write("randomization.e", "import randomization.b as b, numpy\n"),
            write("simreal.c", "import importlib\nfrom envs import a\nimportlib.import_module('randomization.b').y\n"),
        ]
    )
    graph = {module: imports(module, known) for module in known}
    assert sorted(arrows_up(graph)) == ["envs.a imports randomization.b", "envs.d imports simreal.c"]
    assert graph["simreal.c"] == {"envs.a", "randomization.b"}
    assert cycle(graph) == ["randomization.b", "randomization.e", "randomization.b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def relative(paths: list[Path]) -> list[str]:
    """Names for pytest's lists."""
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", FILES, ids=relative(FILES))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno + 1 <= LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("folder", FOLDERS, ids=relative(FOLDERS))
def test_a_folder_is_small_and_says_what_is_in_it(folder: Path) -> None:
    entries = [path.name for path in folder.iterdir() if not path.name.startswith("_") and path.name != "py.typed"]
    most = MOST_ROOMS if folder.parent == ROOT else MOST_ENTRIES
    assert len(entries) <= most, sorted(entries)
    assert (folder / "__init__.py").is_file()
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


def test_the_drawing_shows_the_present_imports() -> None:
    assert DRAWING.read_text() == draw(MODULES), "run: python docs/rooms.py"


def test_what_architecture_md_names_exists() -> None:
    page = ROOT / "docs" / "architecture.md"
    names = set(
        re.findall(r"`((?:envs|randomization|simreal|tests|docs|configs|examples)/[\w./-]*)`", page.read_text())
    )
    assert len(names) > 30
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []
