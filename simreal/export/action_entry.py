"""What a contract says of targets that are added to something, and of tools that joints carry."""

from __future__ import annotations

from typing import Any

from envs.task import ActionComponent, Task
from envs.validation.contract_start import shown_positions


def relative_entry(task: Task, part: ActionComponent) -> dict[str, Any]:
    """What targets are added to, and how steps of a tool become steps of joints; nothing where neither is so."""
    if part.relative is None:
        return {}
    entry: dict[str, Any] = {"relative": part.relative, "inverse": None}
    if part.relative != "target":
        shown = shown_positions(task, part, part.relative, "relative")
        entry["relative"] = {"component": shown.component, "index": shown.index}
    if part.inverse is not None:
        *links, tip = part.inverse.chain.links
        keys = ("joint", "kind", "pos", "quat", "axis", "zero")
        entry["inverse"] = {
            "root": part.inverse.chain.root, "tool": part.inverse.chain.tip, "unit": part.inverse.unit,
            "damping": part.inverse.damping, "links": [{key: getattr(link, key) for key in keys} for link in links],
            "tip": {"pos": tip.pos, "quat": tip.quat},
        }  # fmt: skip
    return entry
