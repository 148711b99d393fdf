"""Which shapes of a model can touch, and what their contact takes of each.

MuJoCo's rules (its manual, Computation, Selection, and Modeling, Contact parameters): a `<pair>` has parameters of its
own. Any other contact takes those of the geom with the higher priority; of equals, the larger friction and condim, and
the mean of solref and solimp weighted by solmix (the smaller solref where one is in the direct format). Margins and
gaps are summed whatever the priority.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import mujoco
import numpy as np

_GEOM = mujoco.mjtGeom
_FLAT = (int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_HFIELD))  # no two of these touch
_NO_CONTACTS = int(mujoco.mjtDisableBit.mjDSBL_CONTACT) | int(mujoco.mjtDisableBit.mjDSBL_CONSTRAINT)
_NO_FILTER = int(mujoco.mjtDisableBit.mjDSBL_FILTERPARENT)
_OVERRIDE = int(mujoco.mjtEnableBit.mjENBL_OVERRIDE)
_TINY = float(mujoco.mjMINVAL)
# condim from which on a contact uses a column of geom_friction: sliding, spinning, rolling.
LEAST_CONDIM = (3, 4, 6)
_OF_SHAPES = ("contype", "conaffinity", "condim", "priority", "solmix", "friction", "solref", "solimp", "margin", "gap")
_OF_MODEL = (
    "geom_bodyid", "geom_type", "body_weldid", "body_parentid", "body_dofnum", "exclude_signature", "pair_geom1",
    "pair_geom2", "pair_dim", "flex_vertbodyid",
)  # fmt: skip


@dataclass(frozen=True)
class ContactPart:
    """A part of what a contact takes from its geoms.

    Attributes:
        name: friction, solref, solimp, margin or gap.
        kinds: of friction: sliding (0), spinning (1), rolling (2).
        stiffness, damping: of solref: powers of a factor with which the contact's spring and damper go.
    """

    name: str
    kinds: tuple[int, ...] = ()
    stiffness: float = 0.0
    damping: float = 0.0

    @property
    def compared(self) -> bool:
        """Whether a contact takes the larger of its two geoms' values, so that a partner decides what a factor does."""
        return self.name in ("friction", "solref")

    @property
    def time_powers(self) -> tuple[float, float]:
        """Powers with which time constant t and damping ratio z go: damping is 2 / t, stiffness 1 / (t z)^2 (manual,
        Modeling, Solver parameters)."""
        return -self.damping, self.damping - self.stiffness / 2

    @property
    def least_condim(self) -> int:
        """Of a contact that has this part."""
        return LEAST_CONDIM[min(self.kinds)] if self.kinds else 1


@dataclass(frozen=True)
class Contacts:
    """The C pairs of shapes that can touch. Shapes are the geoms and, numbered after them, the flexes.

    Attributes:
        shapes: [C, 2].
        pair: [C] the `<pair>` that has the parameters, or -1.
        dim: [C] condim.
        equal: [C] whether both shapes have one priority.
        weight: [C, 2] share of each shape in what is averaged.
        nominal: "friction", "solref", "solimp", "margin" and "gap" of all shapes, [shapes, ...].
        overridden: whether the model's `override` flag puts one set of parameters in place of all others.
    """

    shapes: np.ndarray
    pair: np.ndarray
    dim: np.ndarray
    equal: np.ndarray
    weight: np.ndarray
    nominal: Mapping[str, np.ndarray]
    overridden: bool

    def of(self, geom: int) -> np.ndarray:
        """The contacts [C] (bool) that a geom can have."""
        return (self.shapes == geom).any(axis=1)

    def pairs_of(self, name: str, geom: int, least_condim: int = 1) -> list[int]:
        """The `<pair>`s of a geom, of at least this condim, whose own values count."""
        if self.overridden and name != "gap":
            return []
        return [int(p) for p in self.pair[self.of(geom) & (self.pair >= 0) & (self.dim >= least_condim)]]

    def mixed(self, name: str, values: np.ndarray) -> np.ndarray:
        """What contacts take of values [shapes, k], [C, k]; means nothing for pairs."""
        first, second = values[self.shapes[:, 0]], values[self.shapes[:, 1]]
        if name in ("margin", "gap"):
            return first + second
        mean = self.weight[:, :1] * first + self.weight[:, 1:] * second
        if name == "friction":
            return np.where(self.equal[:, None], np.maximum(first, second), mean)
        if name == "solref":
            direct = (first[:, :1] <= 0) | (second[:, :1] <= 0)
            return np.where(self.equal[:, None] & direct, np.minimum(first, second), mean)
        return mean

    def takes(self, name: str, geom: int, least_condim: int = 1) -> bool:
        """Whether some contact that is no pair may take a geom's own value, for some values of the two."""
        return bool((self._sides[name] & (self.shapes == geom) & (self.dim >= least_condim)[:, None]).any())

    @cached_property
    def _sides(self) -> dict[str, np.ndarray]:
        """Of which of its two shapes each contact may take a value, [C, 2]."""
        free = (self.pair < 0)[:, None] & ~np.array(self.overridden)
        ruling = self.equal[:, None] | (self.weight == 1.0)
        direct = self.nominal["solref"][:, 0][self.shapes] <= 0
        mixed_formats = self.equal & (direct.sum(axis=1) == 1)
        both_direct = self.equal & direct.all(axis=1)
        solref = np.where(mixed_formats[:, None], direct, np.where(both_direct[:, None], True, self.weight > 0))
        return {
            "friction": free & ruling,
            "solref": free & solref,
            "solimp": free & (self.weight > 0),
            "margin": free & np.ones((1, 2), dtype=bool),
            "gap": (self.pair < 0)[:, None] & np.ones((1, 2), dtype=bool),
        }


_cache: dict[bytes, Contacts] = {}


def contacts_of(model: mujoco.MjModel) -> Contacts:
    """The contacts that a model can have; computed once for equal models."""
    read = [getattr(model, name) for name in _OF_MODEL]
    read += [getattr(model, f"{kind}_{name}") for kind in ("geom", "flex") for name in _OF_SHAPES]
    key = b"|".join(
        [*(array.tobytes() for array in read), str((model.opt.disableflags, model.opt.enableflags)).encode()]
    )
    if key not in _cache:
        if len(_cache) > 8:
            _cache.clear()
        _cache[key] = _contacts(model)
    return _cache[key]


def shape_name(model: mujoco.MjModel, shape: int) -> str:
    """Name of a geom or flex for messages."""
    kind, index = (
        (mujoco.mjtObj.mjOBJ_GEOM, shape) if shape < model.ngeom else (mujoco.mjtObj.mjOBJ_FLEX, shape - model.ngeom)
    )
    return mujoco.mj_id2name(model, kind, index) or f"{'geom' if shape < model.ngeom else 'flex'} {index}"


def _contacts(model: mujoco.MjModel) -> Contacts:
    both = {
        name: np.concatenate([getattr(model, f"{kind}_{name}") for kind in ("geom", "flex")]) for name in _OF_SHAPES
    }
    first, second = np.nonzero(np.triu(_touching(model, both["contype"], both["conaffinity"]), k=1))
    declared = np.sort(np.stack((model.pair_geom1, model.pair_geom2), axis=1), axis=1).reshape(-1, 2)
    moves = model.body_dofnum[model.body_weldid[model.geom_bodyid]] > 0 if model.ngeom else np.zeros(0, dtype=bool)
    usable = np.nonzero(moves[declared].any(axis=1))[0] if len(declared) else np.zeros(0, dtype=np.int64)
    own = {(int(a), int(b)) for a, b in declared}
    rest = [(int(a), int(b)) for a, b in zip(first, second, strict=True) if (int(a), int(b)) not in own]
    shapes = np.array([*declared[usable].tolist(), *rest], dtype=np.int64).reshape(-1, 2)
    if model.opt.disableflags & _NO_CONTACTS:
        shapes, usable = shapes[:0], usable[:0]
    pair = np.concatenate((usable, np.full(len(shapes) - len(usable), -1))).astype(np.int64)
    priority, dims, mix = (both[name][shapes] for name in ("priority", "condim", "solmix"))
    higher = priority > priority[:, ::-1]
    equal = priority[:, 0] == priority[:, 1]
    dim = np.where(equal, dims.max(axis=1, initial=0), (dims * higher).sum(axis=1))
    dim[pair >= 0] = model.pair_dim[pair[pair >= 0]]
    weighed = np.where(mix < _TINY, 0.0, mix)
    total = weighed.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, weighed / np.where(total > 0, total, 1.0), 0.5)
    weight = np.where(equal[:, None], shares, higher)
    nominal = {
        name: both[name].reshape(len(both[name]), -1) for name in ("friction", "solref", "solimp", "margin", "gap")
    }
    return Contacts(shapes, pair, dim, equal, weight, nominal, bool(model.opt.enableflags & _OVERRIDE))


def _touching(model: mujoco.MjModel, contype: np.ndarray, conaffinity: np.ndarray) -> np.ndarray:
    """Which shapes [shapes, shapes] pass MuJoCo's filters of contacts that are no pairs."""
    bits = (contype[:, None] & conaffinity[None, :]) != 0
    passed = bits | bits.T
    n = model.ngeom
    weld = model.body_weldid[model.geom_bodyid]
    parent = model.body_weldid[model.body_parentid[weld]]
    fixed = model.body_dofnum[weld] == 0
    flat = np.isin(model.geom_type, _FLAT)
    out = (weld[:, None] == weld[None, :]) | (fixed[:, None] & fixed[None, :]) | (flat[:, None] & flat[None, :])
    if not model.opt.disableflags & _NO_FILTER:
        related = (weld[:, None] == parent[None, :]) | (weld[None, :] == parent[:, None])
        out |= related & (weld != 0)[:, None] & (weld != 0)[None, :]
    bodies = model.geom_bodyid.astype(np.int64)
    low, high = np.minimum.outer(bodies, bodies), np.maximum.outer(bodies, bodies)
    out |= np.isin((low << 16) + high, model.exclude_signature)
    passed[:n, :n] &= ~out
    passed[n:, n:] = False  # flexes have no quantities of their own
    return passed
