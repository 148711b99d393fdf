"""The randomization block of an adopted robot: ranges from the numbers of its own model."""

from __future__ import annotations

import mujoco
import numpy as np

from envs.common.names import labels_of
from envs.locomotion.legged.velocity import LeggedVelocity
from envs.task import Task
from simreal.adopt.starter import TEMPLATES, text
from simreal.cli.suggest import suggested_yaml

_PAYLOAD, _ASIDE, _PUSH = 0.15, 0.1, 0.5  # of the robot's mass, of the base's size, of the largest speed commanded


def worlds_yaml(task: Task) -> str:
    """The block as YAML."""
    if not isinstance(task, LeggedVelocity):
        return suggested_yaml(task)
    model, trunk = task.model, task.robot.trunk or task.robot.base
    base = model.body(trunk).id
    labels = labels_of(model, "geom")
    touching = [labels[g] for g in range(model.ngeom) if model.geom_contype[g] and int(model.geom_bodyid[g]) != base]
    size = _size(model, base)
    heaviest = 1.0 + _PAYLOAD * float(model.body_subtreemass[base] / model.body_mass[base])
    return TEMPLATES.get_template("velocity_worlds.yaml.jinja").render(
        touching=touching, base=text(trunk), heaviest=heaviest, ahead=_ASIDE * size[0],
        aside=_ASIDE * size[1], push=_PUSH * task.command_limits[0], text=text,
    )  # fmt: skip


def _size(model: mujoco.MjModel, body: int) -> np.ndarray:
    """Lengths of the box round a body's shapes, m."""
    ends = [
        (model.geom_pos[g] - model.geom_rbound[g], model.geom_pos[g] + model.geom_rbound[g])
        for g in np.flatnonzero(model.geom_bodyid == body)
        if model.geom_rbound[g] > 0
    ]
    if not ends:
        return np.full(3, 0.1)
    return np.max([e[1] for e in ends], axis=0) - np.min([e[0] for e in ends], axis=0)
