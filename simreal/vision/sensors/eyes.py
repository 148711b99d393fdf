"""Environments that see: what an estimator reads from pictures in place of components of the observation, and pictures
for a policy that looks at them itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from envs.engines.base import WarpEngine
from envs.environment import Environment
from envs.task import Task
from randomization.config import Performance
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Sampler
from randomization.visual.textures import UNSEEN
from simreal.common.errors import UserError
from simreal.vision.estimator.loading import Estimator, load_estimator
from simreal.vision.rendering.frames import FrameRenderer
from simreal.vision.sensors.camera import Camera
from simreal.vision.sensors.config import SensorConfig
from simreal.vision.sensors.pixels import ObservationConfig, PixelsConfig


class SeeingRandomizer(DomainRandomizer):
    """Randomization of an environment that sees: after the errors of its other sensors, estimators' components are put
    in their place. What randomization would do to these components does not matter then.

    Args:
        sampler, performance, explore: see `DomainRandomizer`.
        sensors: by component.
        observation: how the pictures are taken that the policy gets; None: none.

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
        observation: ObservationConfig | None = None,
    ) -> None:
        super().__init__(sampler, performance, explore)
        self._pixels, self._camera = None if observation is None else observation.pixels, None
        groups: dict[SensorConfig, list[str]] = {}
        for name, sensor in sensors.items():
            groups.setdefault(sensor, []).append(name)
        self._kinds = [(sensor, _estimator(task, task_id, sensor, names), names) for sensor, names in groups.items()]
        self._eyes: list[Eye] = []

    def attach(self, environment: Environment) -> None:
        """See `DomainRandomizer.attach`; cameras are opened with the first picture."""
        if isinstance(environment.engine, WarpEngine):
            what = "sensors" if self._pixels is None else "observation"
            raise UserError(f"{what}: pictures are drawn by the CPU engine; expected engine: cpu")
        super().attach(environment)
        self._eyes = [Eye(environment, self, *kind) for kind in self._kinds]
        self._camera = None if self._pixels is None else PictureCamera(environment, self, self._pixels)

    def measure(self, observation: Tensor, first: Tensor | None) -> Tensor:
        """See `DomainRandomizer.measure`."""
        measured = super().measure(observation, first)
        measured = measured.clone() if measured is observation else measured
        for eye in self._eyes:
            eye.show(measured, first)
        return measured

    def look(self, first: Tensor | None) -> Tensor | None:
        """The policy's pictures; see `Randomizer.look`."""
        return None if self._camera is None else self._camera.look(first)

    def state_dict(self) -> dict[str, Any]:
        """See `DomainRandomizer.state_dict`; and what is on its way from the cameras."""
        state = super().state_dict() | {"eyes": [eye.state_dict() for eye in self._eyes]}
        return state if self._camera is None else state | {"camera": self._camera.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        super().load_state_dict(state)
        for eye, kept in zip(self._eyes, state["eyes"], strict=True):
            eye.load_state_dict(kept)
        if self._camera is not None:
            self._camera.load_state_dict(state["camera"])


def _estimator(task: Task, task_id: str, sensor: SensorConfig, names: list[str]) -> Estimator:
    estimator = load_estimator(sensor.estimator)
    read = {t.name for t in estimator.readings}
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


class Eye(Camera):
    """One estimator that looks at N environments.

    Args:
        environment: whose `layer` is attached.
        layer: of the environment.
        sensor, estimator, names: what it shows.
    """

    def __init__(
        self,
        environment: Environment,
        layer: DomainRandomizer,
        sensor: SensorConfig,
        estimator: Estimator,
        names: list[str],
    ) -> None:
        slices = environment.task.slices("policy")
        self._places = torch.cat([torch.arange(slices[n].start, slices[n].stop) for n in names])
        super().__init__(environment, sensor, names[0], (len(self._places),), torch.float64)
        self._layer, self._sensor, self._estimator, self._names = layer, sensor, estimator, names
        self._renderer: FrameRenderer | None = None

    def show(self, measured: Tensor, first: Tensor | None) -> None:
        """Replace components of what is measured [N, nobs], in place; `first` as in `Effect.on_arrival`."""
        measured[:, self._places] = self.look(first).to(measured.dtype)

    def read(self, rows: Tensor) -> Tensor:
        """See `Camera.read`."""
        found = self._estimator.estimate(self._camera().take(rows, self._layer.lam[rows]))
        return torch.cat([found[name][0] for name in self._names], dim=1)

    def _camera(self) -> FrameRenderer:
        if self._renderer is None:
            config, environment = self._estimator.config, self._environment
            self._renderer = FrameRenderer(
                environment, config.cameras, config.width, config.height, self._layer.parameters, environment.rng,
                patterns=UNSEEN if self._sensor.unseen else 0,
            )  # fmt: skip
        return self._renderer


class PictureCamera(Camera):
    """The camera that a policy looks through, in N environments: pictures [N, height, width, 3] uint8.

    Args:
        environment: whose `layer` is attached.
        layer: of the environment.
        config: of the pictures.
    """

    def __init__(self, environment: Environment, layer: DomainRandomizer, config: PixelsConfig) -> None:
        super().__init__(environment, config, "pixels", (config.height, config.width, 3), torch.uint8)
        self._layer, self._config = layer, config
        self._renderer: FrameRenderer | None = None

    def read(self, rows: Tensor) -> Tensor:
        """See `Camera.read`."""
        if self._renderer is None:
            config = self._config
            self._renderer = FrameRenderer(
                self._environment, [config.camera], config.width, config.height, self._layer.parameters,
                self._environment.rng,
            )  # fmt: skip
        pictures = torch.from_numpy(self._renderer.take(rows, self._layer.lam[rows])[:, 0])
        return pictures.flip(-1) if self._config.colours == "bgr" else pictures
