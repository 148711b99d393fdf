"""Draw docs/rooms.svg: the three packages as floors, their folders as rooms, imports between rooms as arrows.

    python docs/rooms.py            # draw it anew
    python docs/rooms.py --check    # exit with 1 if the drawing is not that of the present imports

Also the project's only reader of imports: tests/project/test_architecture.py takes the graph from here.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DRAWING = ROOT / "docs" / "rooms.svg"
FLOORS = ("envs", "randomization", "simreal")  # from the ground up
TASTE = {  # fill of rooms, stroke of arrows, one line about the floor
    "simreal": ("#e6edfb", "#3b63b5", "learns, evaluates, exports"),
    "randomization": ("#fdeedd", "#c06a12", "turns parameters into worlds"),
    "envs": ("#e4f3e7", "#2f7d46", "simulates physics, defines tasks"),
}
WIDTH, MARGIN, GAP, LINE, PADDING = 1280, 24, 10, 13, 10  # pixels
HEADROOM, BETWEEN = 120, 70  # above the rooms of a floor, where its own arrows are; between floors
MOST_NAMES = 14  # in a room
Rooms = dict[str, list[str]]  # name of a room, as "envs/engines", and what is in it
Places = dict[str, tuple[float, float, float, float]]  # room -> x, y, width, height, pixels


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file of every module of the three packages."""
    found = {}
    for path in sorted(path for floor in FLOORS for path in (root / floor).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, known: dict[str, Path]) -> set[str]:
    """Modules of ours that a module imports anywhere: in functions, for types, by `import_module("...")`."""
    found = {name for node in ast.walk(ast.parse(known[module].read_text())) for name in _targets(node, module, known)}
    return found - {module}


def _targets(node: ast.AST, module: str, known: dict[str, Path]) -> Iterator[str]:
    """Modules of ours that one statement or call imports; a name that is a submodule counts as that module."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module.split(".") if known[module].name == "__init__.py" else module.split(".")[:-1]
            kept = ".".join(package[: len(package) - node.level + 1])
            base = f"{kept}.{base}" if base else kept
        names = [f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
        first = node.args[0]
        names = [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    yield from (name for name in names if name.split(".")[0] in FLOORS)


def room_of(module: str, known: dict[str, Path]) -> str:
    """The folder below the package that a module is in, "envs/engines"; "envs" for what lies in the package itself."""
    floor = module.split(".")[0]
    inside = known[module].relative_to(known[floor].parent)
    return f"{floor}/{inside.parts[0]}" if inside.parent.name else floor


def rooms(known: dict[str, Path]) -> Rooms:
    """What is in each room: names of modules, and of folders within it with a slash."""
    found: Rooms = {}
    for module, path in known.items():
        room = room_of(module, known)
        inside = path.relative_to(known[module.split(".")[0]].parent / Path(*room.split("/")[1:]))
        name = f"{inside.parts[0]}/" if inside.parent.name else path.stem
        names = found.setdefault(room, [])
        if not name.startswith("__") and name not in names:
            names.append(name)
    return found


def arrows(known: dict[str, Path]) -> Counter[tuple[str, str]]:
    """(from room, to room) -> number of imports of one module by another."""
    pairs = ((room_of(m, known), room_of(t, known)) for m in known for t in imports(m, known) if t in known)
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def draw(known: dict[str, Path]) -> str:
    """The drawing as SVG text; the text stays the same while files and (roughly) the numbers of imports do."""
    found, counts = rooms(known), arrows(known)
    places: Places = {}
    floors, texts, top = [], [], 16.0
    for floor in reversed(FLOORS):
        names = _in_order([room for room in found if _floor(room) == floor], counts)
        height = 34.0 + LINE * max(min(len(found[room]), MOST_NAMES) for room in names)
        places |= _side_by_side({room: found[room] for room in names}, top + HEADROOM, height)
        fill, stroke, about = TASTE[floor]
        band = {"x": MARGIN, "y": top, "width": WIDTH - 2 * MARGIN, "height": HEADROOM + height + PADDING, "rx": 10}
        floors.append(_tag("rect", **band, fill="#fafafa", stroke="#dddddd"))
        texts.append(_text(MARGIN + 12, top + 24, floor + "/", 17, "bold", stroke))
        texts.append(_text(MARGIN + 12, top + 42, about, 12, fill="#666666"))
        for room in names:
            texts += _room(room, found[room], places[room], fill, stroke)
        top += HEADROOM + height + PADDING + BETWEEN
    within = lambda pair: _floor(pair[0]) == _floor(pair[1])  # noqa: E731  # drawn last, over what comes from above
    lines = [_arrow(a, b, counts[a, b], places) for a, b in sorted(counts, key=lambda pair: (within(pair), pair))]
    height = top - BETWEEN + 40
    texts.append(
        _text(MARGIN, height - 16, "Arrows point at what is imported: by 1, 2-4, 5-9, 10 or more imports.", 12)
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">'
    )
    tips = [
        f'<marker id="{floor}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{stroke}"/></marker>'
        for floor, (_, stroke, _) in TASTE.items()
    ]
    paper = _tag("rect", width=WIDTH, height=height, fill="white")
    return "\n".join([head, "<defs>", *tips, "</defs>", paper, *floors, *lines, *texts, "</svg>", ""])


def _side_by_side(found: Rooms, y: float, height: float) -> Places:
    """Places for the rooms of a floor, each as wide as its names need, what is left over shared equally."""
    need = [max([60.0, 7.2 * len(_title(room)), *(5.9 * len(name) for name in found[room])]) for room in found]
    spare = (WIDTH - 2 * (MARGIN + PADDING) - GAP * (len(found) - 1) - sum(need)) / len(found)
    places: Places = {}
    x = float(MARGIN + PADDING)
    for room, width in zip(found, need, strict=True):
        places[room] = (x, y, width + spare, height)
        x += width + spare + GAP
    return places


def _room(room: str, names: list[str], place: tuple[float, float, float, float], fill: str, stroke: str) -> list[str]:
    """A box with the name of the room and of what is in it."""
    x, y, width, height = place
    inside = sorted(names, key=lambda name: (not name.endswith("/"), name))
    if len(inside) > MOST_NAMES:
        inside = [*inside[: MOST_NAMES - 1], f"and {len(inside) - MOST_NAMES + 1} more"]
    box = _tag("rect", x=x, y=y, width=width, height=height, rx=5, fill=fill, stroke=stroke)
    title = _text(x + 7, y + 17, _title(room), 11.5, "bold", fit=width - 14)
    step = lambda k: y + 34 + LINE * k  # noqa: E731
    return [
        box,
        title,
        *(_text(x + 7, step(k), name, 10, "normal", "#444444", width - 14) for k, name in enumerate(inside)),
    ]


def _in_order(names: list[str], counts: Counter[tuple[str, str]]) -> list[str]:
    """Rooms of one floor, importers to the left of what they import as far as possible; the heaviest first."""
    left, order = sorted(names), []
    while left:
        surplus = {a: sum(counts[a, b] - counts[b, a] for b in left) for a in left}
        order.append(max(left, key=lambda room: (surplus[room], room)))
        left.remove(order[-1])
    return order


def _arrow(source: str, target: str, count: int, places: Places) -> str:
    """An arc above the rooms of one floor, or a curve from the bottom of a room to the top of one further down."""
    x, y, width, height = places[source]
    to_x, to_y, to_width, _ = places[target]
    floor = _floor(source)
    size = sum(count >= least for least in (1, 2, 5, 10))
    if floor == _floor(target):
        right = to_x > x
        begin, end = x + width * (0.75 if right else 0.3), to_x + to_width * (0.25 if right else 0.7)
        rise = min(30.0 + 0.16 * abs(end - begin), HEADROOM * 1.2)
        path = f"M{begin:.0f} {y:.0f} C{begin:.0f} {y - rise:.0f} {end:.0f} {to_y - rise:.0f} {end:.0f} {to_y:.0f}"
        opacity = 0.8
    else:
        begin, end = x + width / 2, to_x + to_width * (0.4 + 0.2 * x / WIDTH)
        middle = (y + height + to_y) / 2
        path = f"M{begin:.0f} {y + height:.0f} C{begin:.0f} {middle:.0f} {end:.0f} {middle:.0f} {end:.0f} {to_y:.0f}"
        opacity = 0.35
    title = f"<title>{source} imports {target}</title>"
    style = f'stroke="{TASTE[floor][1]}" stroke-width="{(0.8, 1.5, 2.6, 4.2)[size - 1]}" stroke-opacity="{opacity}"'
    return f'<path d="{path}" fill="none" {style} marker-end="url(#{floor})">{title}</path>'


def _floor(room: str) -> str:
    return room.split("/")[0]


def _title(room: str) -> str:
    return room.partition("/")[2] + "/" if "/" in room else "(its own files)"


def _tag(name: str, **attributes: object) -> str:
    inside = " ".join(f'{key.replace("_", "-")}="{_number(value)}"' for key, value in attributes.items())
    return f"<{name} {inside}/>"


def _number(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def _text(
    x: float, y: float, text: str, size: float, weight: str = "normal", fill: str = "#222222", fit: float = 0.0
) -> str:
    """A line of text, squeezed to `fit` pixels where it would be about wider than that."""
    squeeze = f' textLength="{fit:.0f}" lengthAdjust="spacingAndGlyphs"' if 0 < fit < 0.59 * size * len(text) else ""
    return (
        f'<text x="{_number(float(x))}" y="{_number(float(y))}" font-size="{size}" font-weight="{weight}" '
        f'fill="{fill}" stroke="white" stroke-width="3" stroke-opacity="0.6" paint-order="stroke"{squeeze}>'
        f"{text}</text>"
    )


if __name__ == "__main__":
    drawing = draw(modules())
    if sys.argv[1:] == ["--check"]:
        sys.exit(DRAWING.read_text() != drawing and f"{DRAWING}: not of the present imports; run python docs/rooms.py")
    DRAWING.write_text(drawing)
