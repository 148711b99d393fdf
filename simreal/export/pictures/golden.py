"""What a policy's bundle is told of how it sees: its camera, golden pictures, its estimators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from randomization.samplers.base import Manual
from simreal.common.errors import UserError
from simreal.export.pictures.beside import export_beside
from simreal.export.pictures.policy import Sight
from simreal.learners.pixels.layout import PictureStack, Seen
from simreal.training.run_directory import LoadedPolicy

_ENVIRONMENTS, _STEPS, _SEED = 2, 4, 11


def sight_of(policy: LoadedPolicy, bundle: Path) -> Sight:
    """How a policy sees, with pictures of its first control steps; without on a machine that cannot render. Estimators
    of its sensors are exported beside its bundle. Raises UserError and ExportError where they cannot be."""
    assert policy.config is not None
    sensors = export_beside(policy.config.sensors, bundle)
    if policy.observation is None:
        return Sight(sensors=sensors)
    try:
        return Sight(policy.observation, *_played(policy), sensors)
    except UserError:
        return Sight(policy.observation, sensors=sensors)


def _played(policy: LoadedPolicy) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    environment = policy.make_environment(_ENVIRONMENTS, Manual([]), _SEED)
    assert policy.observation is not None
    stack = PictureStack(policy.observation.pixels.stack)
    observed, read = environment.reset(), policy.reader(environment)
    policy.reset(torch.ones(_ENVIRONMENTS, dtype=torch.bool))
    stacks, components = [], []
    for step in range(_STEPS):
        seen: Seen = read(observed)
        held = stack.push(seen.pictures)
        if step in (0, _STEPS - 1):
            stacks.append(held)
            components.append(seen.components.float())
        result = environment.step(policy.act(seen))
        observed = result.observed
        stack.begin(result.done)
        policy.reset(result.done)
    return torch.cat(stacks).numpy(), torch.cat(components).numpy()
