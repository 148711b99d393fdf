"""MuJoCo's enumerations are compared as integers.

In MuJoCo 4.0 `enum == np.int32(...)` is False where `np.int32(...) == enum` is True; `in` and dictionaries say False.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("envs", "randomization", "simreal", "tests", "benchmarks")
_COMPARISONS = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
_SEARCHES = ("index", "count", "isin", "in1d", "equal", "not_equal")


def is_enum(node: ast.AST, aliases: set[str]) -> bool:
    """Whether a value is a member of mujoco.mjt..., or a collection of such, that has not been made an integer."""
    if isinstance(node, ast.Name):
        return node.id in aliases
    if isinstance(node, ast.Attribute):
        owner = node.value
        named = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
        return node.attr.startswith("mj") and (named.startswith("mjt") or is_enum(owner, aliases))
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(is_enum(element, aliases) for element in node.elts)
    if isinstance(node, ast.Dict):
        return any(key is not None and is_enum(key, aliases) for key in node.keys)
    return False


def is_kind(node: ast.AST, aliases: set[str]) -> bool:
    """The same, or an enumeration itself."""
    return is_enum(node, aliases) or (isinstance(node, ast.Attribute) and node.attr.startswith("mjt"))


def aliases_of(tree: ast.AST) -> set[str]:
    """Names that stand for members, or collections of them, anywhere in a file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                found |= {t.id for t, value in pairs if isinstance(t, ast.Name) and is_kind(value, found)}
    return found


def enum_comparisons(source: str) -> Iterator[int]:
    """Lines that compare a member of an enumeration as it is."""
    tree = ast.parse(source)
    aliases = aliases_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(op, _COMPARISONS) for op in node.ops):
            compared: list[ast.AST] = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SEARCHES:
            compared = [node.func.value, *node.args]
        else:
            continue
        if any(is_enum(side, aliases) for side in compared):
            yield node.lineno


@pytest.mark.parametrize(
    "line",
    [
        "model.eq_type[0] == mujoco.mjtEq.mjEQ_WELD",
        "mjtEq.mjEQ_WELD != model.eq_type[0]",
        "kind in (mujoco.mjtEq.mjEQ_WELD, 3)",
        "KIND = mujoco.mjtEq.mjEQ_WELD\nkind == KIND",
        "A, KINDS = 1, {mujoco.mjtEq.mjEQ_WELD: 2}\nkind in KINDS",
        "np.isin(kinds, [mujoco.mjtEq.mjEQ_WELD])",
        "E = mujoco.mjtEq\nkind == E.mjEQ_WELD",
    ],
)
def test_the_search_finds(line: str) -> None:
    assert list(enum_comparisons(line))


@pytest.mark.parametrize(
    "line",
    [
        "model.eq_type[0] == int(mujoco.mjtEq.mjEQ_WELD)",
        "KINDS = (int(mujoco.mjtEq.mjEQ_WELD),)\nint(kind) in KINDS",
        "mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) == 3",
    ],
)
def test_the_search_passes(line: str) -> None:
    assert not list(enum_comparisons(line))


def test_enumerations_are_compared_as_integers() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)]
    assert len(files) > 100
    texts = {path: text for path in files if "mjt" in (text := path.read_text())}
    found = [f"{path}:{line}" for path, text in texts.items() for line in enum_comparisons(text)]
    assert not found, f"write int(mujoco.mjt...) in a comparison: {', '.join(found)}"
