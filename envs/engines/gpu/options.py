"""Settings of the GPU engine, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np

from envs.common.errors import EngineError
from envs.engines.base import callback_problems, model_problems
from envs.engines.cfrc_ext import without_plugin

_SOLVERS = {"newton": int(mujoco.mjtSolver.mjSOL_NEWTON), "cg": int(mujoco.mjtSolver.mjSOL_CG)}


@dataclass(frozen=True)
class GpuOptions:
    """Settings of the GPU engine.

    Attributes:
        contacts_per_env: contacts for which there is room, on average over environments; None chooses from the model.
        constraints_per_env: rows of constraints for which there is room in each; None chooses from the model.
        solver: replaces the model's constraint solver. Needed where that is PGS, which mujoco_warp does not have.
        deterministic: the same bits in every run, at some cost in speed.
    """

    contacts_per_env: int | None = None
    constraints_per_env: int | None = None
    solver: Literal["newton", "cg"] | None = None
    deterministic: bool = False


def with_options(model: mujoco.MjModel, options: GpuOptions) -> mujoco.MjModel:
    """The model as the GPU runs it: itself, or a copy with another solver, or without margins on height fields.

    There mujoco_warp 4.0 takes a contact to be deeper than it is, by one and a half times its margin, and turns its
    normal; without a margin both are MuJoCo's.

    Raises:
        EngineError: the model needs something that mujoco_warp does not have, or has with another meaning.
    """
    model = without_plugin(model)  # which is for cfrc_ext: the GPU engine computes that where it is read
    solver = mujoco.mjtSolver(int(model.opt.solver))
    if options.solver is None and int(solver) not in _SOLVERS.values():
        raise EngineError(
            f"engine: the model's solver {solver.name.removeprefix('mjSOL_')} does not run on the GPU: use the CPU "
            "engine, or set gpu.solver to newton or cg (contacts then differ slightly from the model's own)"
        )
    problems = list(_problems(model))
    for problem in (*model_problems(model), *callback_problems()):
        raise EngineError(f"engine: {problem}")
    if problems:
        raise EngineError(f"engine: {problems[0]} does not run on the GPU: use the CPU engine")
    wanted = int(solver) if options.solver is None else _SOLVERS[options.solver]
    geoms, pairs = _margins_on_height_fields(model)
    if wanted == int(solver) and not geoms.any() and not pairs.any():
        return model
    changed = copy.deepcopy(model)
    changed.opt.solver = wanted
    changed.geom_margin[geoms] = 0.0
    changed.pair_margin[pairs] = 0.0
    return changed


def has_height_field(model: mujoco.MjModel) -> bool:
    """Whether a shape of the model is a height field."""
    return bool((model.geom_type == int(mujoco.mjtGeom.mjGEOM_HFIELD)).any())


def _margins_on_height_fields(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Geoms (bool) that have a margin and may touch a height field, and such pairs."""
    fields = model.geom_type == int(mujoco.mjtGeom.mjGEOM_HFIELD)
    types, affinities = model.geom_contype, model.geom_conaffinity
    met = ((types[:, None] & affinities[fields]) | (affinities[:, None] & types[fields])).any(axis=1)
    geoms = (fields | met) & (model.geom_margin > 0) if fields.any() else np.zeros_like(fields)
    pairs = (fields[model.pair_geom1] | fields[model.pair_geom2]) & (model.pair_margin > 0)
    return geoms, pairs


def _problems(model: mujoco.MjModel) -> Iterator[str]:
    """What a model needs that mujoco_warp ignores or that this engine does not handle; it refuses the rest itself."""
    for i in range(model.nplugin):
        yield f"the model's plugin {mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_PLUGIN, i)!r}"
    if model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD):
        yield "a model with nativeccd switched off"
    if model.opt.disableactuator:
        yield "a model with groups of actuators switched off"
