"""Labels of a model's objects: one for each, none twice, so that a label says which object is meant.

An object with a name has it as its label. One without a name is called `kind<index>`; where an object of its kind
really has that name, `kind<index>_unnamed`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import mujoco

_COUNTS = {
    "body": "nbody", "geom": "ngeom", "joint": "njnt", "site": "nsite", "camera": "ncam", "light": "nlight",
    "tendon": "ntendon", "actuator": "nactuator", "sensor": "nsensor", "material": "nmat",
}  # fmt: skip
# `nactuator`, not `nu`: that one counts controls, of which an actuator may have several or none.


def names_of(model: mujoco.MjModel, kind: str) -> list[str]:
    """The names of all objects of a kind ("body", "geom", ...) in the model's order; "" for those without."""
    of_kind = mujoco.mjtObj(mujoco.mju_str2Type(kind))
    return [mujoco.mj_id2name(model, of_kind, i) or "" for i in range(getattr(model, _COUNTS[kind]))]


def labels_of(model: mujoco.MjModel, kind: str) -> list[str]:
    """The labels of all objects of a kind ("body", "geom", ...) in the model's order."""
    return with_made_up(names_of(model, kind), kind)


def label_of(model: mujoco.MjModel, kind: str, index: int) -> str:
    """The label of one object of a kind."""
    return labels_of(model, kind)[index]


def with_made_up(names: Sequence[str], kind: str, taken: Collection[str] = ()) -> list[str]:
    """Names with labels in the places of those that are empty; none of the labels is another's name or in `taken`."""
    real = {*names, *taken}
    return [name or free_label(f"{kind}{i}", "", "_unnamed", real) for i, name in enumerate(names)]


def free_label(label: str, before: str, after: str, taken: Collection[str]) -> str:
    """The label, with `before` put before it and `after` after it until it is not `taken`."""
    while label in taken:
        label = f"{before}{label}{after}"
    return label
