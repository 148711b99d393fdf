"""Puts what an estimator reads from pictures in place of components of the observation.

A camera has a clock of its own: a picture is taken at the first control step at or after each of its ticks, counted
from the beginning of an episode, and what it shows is known `latency_s` later, in whole control steps, rounded up.
Until then, and where pictures are lost, the last estimate stays. An episode's first picture is there at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from envs.common.stateful import Stateful
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.task import Task
from randomization.config import Performance
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Sampler
from randomization.visual.textures import UNSEEN
from simreal.common.errors import UserError
from simreal.vision.estimator.loading import Estimator, load_estimator
from simreal.vision.rendering.frames import FrameRenderer
from simreal.vision.sensors.config import SensorConfig

_EPS = 1e-9


class SeeingRandomizer(DomainRandomizer):
    """Randomization of an environment that sees: after the errors of its other sensors, estimators' components are put
    in their place. What randomization would do to these components does not matter then.

    Args:
        sampler, performance, explore: see `DomainRandomizer`.
        sensors: by component.

    Raises:
        UserError: an estimator does not exist, is of another task, or does not read its component.
    """

    def __init__(
        self,
        sampler: Sampler,
        performance: Performance,
        explore: bool,
        task: Task,
        task_id: str,
        sensors: Mapping[str, SensorConfig],
    ) -> None:
        super().__init__(sampler, performance, explore)
        groups: dict[SensorConfig, list[str]] = {}
        for name, sensor in sensors.items():
            groups.setdefault(sensor, []).append(name)
        self._kinds = [(sensor, _estimator(task, task_id, sensor, names), names) for sensor, names in groups.items()]
        self._eyes: list[Eye] = []

    def attach(self, environment: Environment) -> None:
        """See `DomainRandomizer.attach`; cameras are opened with the first picture."""
        if not isinstance(environment.engine, CpuEngine):
            raise UserError("sensors: estimators' pictures are drawn by the CPU engine; expected engine: cpu")
        super().attach(environment)
        self._eyes = [Eye(environment, self, *kind) for kind in self._kinds]

    def measure(self, observation: Tensor, first: Tensor | None) -> Tensor:
        """See `DomainRandomizer.measure`."""
        measured = super().measure(observation, first)
        measured = measured.clone() if measured is observation else measured
        for eye in self._eyes:
            eye.show(measured, first)
        return measured

    def state_dict(self) -> dict[str, Any]:
        """See `DomainRandomizer.state_dict`; and what is on its way from the cameras."""
        return super().state_dict() | {"eyes": [eye.state_dict() for eye in self._eyes]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        super().load_state_dict(state)
        for eye, kept in zip(self._eyes, state["eyes"], strict=True):
            eye.load_state_dict(kept)


def _estimator(task: Task, task_id: str, sensor: SensorConfig, names: list[str]) -> Estimator:
    estimator = load_estimator(sensor.estimator)
    read = {t.name for t in estimator.targets}
    measured = [c.name for c in task.measured_components()]
    for name in names:
        if name not in measured:
            raise UserError(f"sensors.{name}: expected a component that {task.id} measures: {', '.join(measured)}")
        if estimator.config.task != task_id:
            raise UserError(
                f"sensors.{name}: {sensor.estimator} is an estimator of {estimator.config.task}, expected one of "
                f"{task_id}"
            )
        if name not in read:
            raise UserError(f"sensors.{name}: {sensor.estimator} reads {', '.join(sorted(read))}, and not {name}")
    return estimator


class Eye(Stateful):
    """One estimator that looks at N environments.

    Args:
        environment: whose `layer` is attached.
        layer: of the environment.
        sensor, estimator, names: what it shows.
    """

    _state = ("_shown", "_ring", "_valid", "_newest")

    def __init__(
        self,
        environment: Environment,
        layer: DomainRandomizer,
        sensor: SensorConfig,
        estimator: Estimator,
        names: list[str],
    ) -> None:
        self._environment, self._layer, self._sensor, self._estimator, self._names = (
            environment, layer, sensor, estimator, names
        )  # fmt: skip
        slices, period_s = environment.task.slices("policy"), environment.task.control_period_s
        self._places = torch.cat([torch.arange(slices[n].start, slices[n].stop) for n in names])
        n, k = environment.num_envs, len(self._places)
        late = math.ceil(sensor.latency_s / period_s - _EPS)
        self._per_step = None if sensor.rate_hz is None else sensor.rate_hz * period_s
        self._shown = torch.zeros(n, k, dtype=torch.float64)
        self._ring = torch.zeros(n, late + 1, k, dtype=torch.float64)  # what pictures of the last steps showed
        self._valid = torch.zeros(n, late + 1, dtype=torch.bool)
        self._newest = 0
        self._renderer: FrameRenderer | None = None

    def show(self, measured: Tensor, first: Tensor | None) -> None:
        """Replace components of what is measured [N, nobs], in place; `first` as in `Effect.on_arrival`."""
        if first is not None:
            self._read_into(self._shown, first)
            self._valid &= ~first[:, None]
        else:
            slots = self._ring.shape[1]
            self._newest = (self._newest + 1) % slots
            taken = self._due()
            self._read_into(self._ring[:, self._newest], taken)
            self._valid[:, self._newest] = taken
            arrives = (self._newest + 1) % slots
            self._shown = torch.where(self._valid[:, arrives, None], self._ring[:, arrives], self._shown)
        measured[:, self._places] = self._shown.to(measured.dtype)

    def _due(self) -> Tensor:
        """Environments [N] whose camera takes a picture in this step that is not lost."""
        environment = self._environment
        steps = environment.steps
        due = torch.ones_like(steps, dtype=torch.bool)
        if self._per_step is not None:
            ticks = lambda at: torch.floor(at * self._per_step + _EPS)  # noqa: E731
            due = ticks(steps) > ticks(steps - 1)
        if self._sensor.drop:
            lost = environment.rng.uniform(f"picture {self._names[0]}", 1)[:, 0] < self._sensor.drop
            due &= ~lost
        return due

    def _read_into(self, values: Tensor, mask: Tensor) -> None:
        """Put what pictures of the environments in mask [N] show into values [N, k]."""
        rows = mask.nonzero()[:, 0]
        if not len(rows):
            return
        found = self._estimator.estimate(self._camera().take(rows, self._layer.lam[rows]))
        values[rows] = torch.cat([found[name][0] for name in self._names], dim=1).to(values.dtype)

    def _camera(self) -> FrameRenderer:
        if self._renderer is None:
            config, environment = self._estimator.config, self._environment
            self._renderer = FrameRenderer(
                environment, config.cameras, config.width, config.height, self._layer.parameters, environment.rng,
                patterns=UNSEEN if self._sensor.unseen else 0,
            )  # fmt: skip
        return self._renderer
